//! Devices that a site's own commands set: the same promises, whoever dies. Over a script that writes what it was told
//! into a file.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::agent::{Agent, is_alive, send};
use support::holder::{self, Holder};
use support::sandbox::{Driver, Sandbox};
use support::wait_until;

#[test]
#[ignore = "not a test: the client process of the others"]
fn the_holder_process() {
    holder::run();
}

struct Site {
    sandbox: Sandbox,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            sandbox: Sandbox::new(Driver::Exec),
        };
        let script = site.sandbox.path.join("site.sh");
        let text = format!("echo \"$@\" >> {}\n", site.sandbox.path.join("told").display());
        fs::write(&script, text).unwrap();
        let devices: Vec<Value> = ["0", "1"]
            .into_iter()
            .map(|id| {
                json!({
                    "id": id,
                    "clocks_mhz": [210, 990, 1980],
                    "limit_clock": ["sh", script, id, "limit", "{lowest_mhz},{clock_mhz}"],
                    "reset_clock": ["sh", script, id, "reset"],
                })
            })
            .collect();
        site.write_config(&json!({"format": "paceline-agent-exec/1", "devices": devices}));
        site
    }

    fn write_config(&self, config: &Value) {
        let path = self.sandbox.exec_config_path();
        fs::write(&path, config.to_string()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Of one device, in order.
    fn told(&self, id: &str) -> Vec<String> {
        let told = fs::read_to_string(self.sandbox.path.join("told")).unwrap_or_default();
        let of_it = told.lines().filter_map(|line| line.strip_prefix(id));
        of_it.map(|line| line.trim().to_owned()).collect()
    }

    fn are_reset(&self) -> bool {
        ["0", "1"]
            .iter()
            .all(|id| self.told(id).last().is_some_and(|last| last == "reset"))
    }

    fn restore(&self) -> Command {
        let mut command = support::agent::command(&self.sandbox, "restore");
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

#[test]
fn a_lease_slows_and_a_killed_client_is_put_back() {
    let site = Site::new();
    let _agent = Agent::start(&site.sandbox);
    let holder = Holder::start(&site.sandbox, 60_000);
    assert_eq!(site.told("0"), ["limit 210,990"]);
    assert_eq!(site.told("1"), ["limit 210,990"]);
    send(holder.pid(), Signal::SIGKILL);
    wait_until("the devices are back", || site.are_reset());
}

#[test]
fn a_killed_worker_is_restored_by_its_sentinel_with_the_same_commands() {
    let site = Site::new();
    let agent = Agent::start(&site.sandbox);
    let _holder = Holder::start(&site.sandbox, 60_000);
    send(agent.worker(), Signal::SIGKILL);
    wait_until("the devices are back", || site.are_reset());
}

#[test]
fn what_both_left_behind_is_restored_by_the_restore_command() {
    let site = Site::new();
    let agent = Agent::start(&site.sandbox);
    let worker = agent.worker();
    let _holder = Holder::start(&site.sandbox, 60_000);
    // The worker first held still, so that it cannot restore when its sentinel is gone.
    send(worker, Signal::SIGSTOP);
    send(agent.sentinel(), Signal::SIGKILL);
    send(worker, Signal::SIGKILL);
    wait_until("the worker is dead", || !is_alive(worker));
    assert!(!site.are_reset());
    assert!(site.restore().status().unwrap().success());
    assert!(site.are_reset());
    assert!(site.sandbox.journal().is_empty());
}

#[test]
fn a_file_that_others_can_write_or_that_has_no_way_back_is_refused() {
    let site = Site::new();
    fs::set_permissions(site.sandbox.exec_config_path(), fs::Permissions::from_mode(0o666)).unwrap();
    let output = support::agent::command(&site.sandbox, "serve").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("exec.json: mode 666 lets others write it"),
        "{said}"
    );
    site.write_config(&json!({"format": "paceline-agent-exec/1",
        "devices": [{"id": "0", "clocks_mhz": [990], "limit_clock": ["true", "{clock_mhz}"]}]}));
    let output = support::agent::command(&site.sandbox, "serve").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69));
    assert!(
        said.contains("devices[0].reset_clock: missing, wanted beside the other two"),
        "{said}"
    );
}
