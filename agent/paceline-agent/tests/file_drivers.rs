//! The file drivers through the real binary: what was in the files comes back, whoever dies. What each driver writes, and
//! in which order, is tested beside the drivers.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;
use support::agent::{Agent, is_alive, send};
use support::sandbox::{Driver, Sandbox};
use support::wait_until;

/// One CPU package as the kernel shows it.
fn package(root: &Path) {
    let zone = "class/powercap/intel-rapl:0";
    let policy = "devices/system/cpu/cpufreq/policy0";
    for (path, text) in [
        (format!("{zone}/name"), "package-0"),
        (format!("{zone}/energy_uj"), "900000"),
        (format!("{zone}/max_energy_range_uj"), "1000000"),
        (format!("{zone}/constraint_0_name"), "long_term"),
        (format!("{zone}/constraint_0_power_limit_uw"), "250000000"),
        (
            "devices/system/cpu/cpu0/topology/physical_package_id".to_owned(),
            "0",
        ),
        (format!("{policy}/related_cpus"), "0"),
        (format!("{policy}/cpuinfo_min_freq"), "800000"),
        (format!("{policy}/scaling_max_freq"), "3600000"),
        (format!("{policy}/scaling_cur_freq"), "2100000"),
    ] {
        let full = root.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, format!("{text}\n")).unwrap();
    }
}

struct Tree {
    sandbox: Sandbox,
    root: PathBuf,
}

impl Tree {
    fn new() -> Self {
        let sandbox = Sandbox::new(Driver::Sim);
        let root = sandbox.path.join("sys");
        package(&root);
        let mut rule = sandbox.own_rule();
        rule["controls"] = json!(["clock", "power_limit"]);
        rule["lowering_min_interval_ms"] = json!(0);
        sandbox.write_policy(&json!([rule]));
        Self { sandbox, root }
    }

    /// Beside sim: several drivers serve one agent.
    fn add_to(&self, command: &mut Command) {
        command.args(["--driver", "rapl", "--sysfs-root"]).arg(&self.root);
    }

    fn start(&self) -> Agent {
        Agent::start_with(&self.sandbox, |command| self.add_to(command))
    }

    /// The clock in kHz, the power limit in microwatts.
    fn files(&self) -> (String, String) {
        let read = |path: &str| {
            fs::read_to_string(self.root.join(path))
                .unwrap()
                .trim()
                .to_owned()
        };
        (
            read("devices/system/cpu/cpufreq/policy0/scaling_max_freq"),
            read("class/powercap/intel-rapl:0/constraint_0_power_limit_uw"),
        )
    }

    fn is_as_found(&self) -> bool {
        self.files() == ("3600000".to_owned(), "250000000".to_owned())
    }
}

fn slow_down(agent: &Agent) -> support::client::Lease {
    let client = agent.client();
    let devices = ["rapl:0".to_owned()];
    let lease = client.lease_of(&devices, &["clock", "power_limit"], 60_000);
    let targets =
        json!([{"devices": devices, "clock_mhz": 1500, "power_limit_mw": 120_000, "hold_ms": 60_000}]);
    let answer = client.put(&lease, 1, &targets).json();
    assert_eq!(answer["results"][0]["status"], "applied", "{answer}");
    assert_eq!(answer["results"][1]["status"], "applied", "{answer}");
    lease
}

#[test]
fn the_end_of_a_lease_and_the_death_of_the_worker_put_the_files_back() {
    let tree = Tree::new();
    let agent = tree.start();
    let lease = slow_down(&agent);
    assert_eq!(tree.files(), ("1500000".to_owned(), "120000000".to_owned()));
    drop(lease);
    wait_until("the files are back", || tree.is_as_found());
    let lease = slow_down(&agent);
    send(agent.worker(), Signal::SIGKILL);
    wait_until("the sentinel has put them back", || tree.is_as_found());
    drop(lease);
}

#[test]
fn what_both_left_behind_is_put_back_by_restore_and_by_the_next_start() {
    for by_restore in [true, false] {
        let tree = Tree::new();
        let agent = tree.start();
        let (sentinel, worker) = (agent.sentinel(), agent.worker());
        let lease = slow_down(&agent);
        send(worker, Signal::SIGSTOP);
        send(sentinel, Signal::SIGKILL);
        send(worker, Signal::SIGKILL);
        drop(agent);
        drop(lease);
        wait_until("both are gone", || !is_alive(worker));
        assert_eq!(tree.files().0, "1500000");
        if by_restore {
            let mut command = support::agent::command(&tree.sandbox, "restore");
            tree.add_to(&mut command);
            assert!(command.output().unwrap().status.success());
            assert!(tree.is_as_found());
        } else {
            let agent = tree.start();
            assert!(tree.is_as_found(), "before anybody can connect");
            let described = agent.client().get("/v1/devices").json();
            let package = described["devices"]
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["device"] == "rapl:0");
            // Described after the restore, not as it was left.
            assert_eq!(package.unwrap()["default_clock_mhz"], 3600);
        }
        assert!(tree.sandbox.journal().is_empty());
    }
}

#[test]
fn a_file_that_cannot_be_written_is_a_failed_group_and_says_which() {
    let tree = Tree::new();
    let agent = tree.start();
    let client = agent.client();
    // Root writes what it likes; a directory it cannot.
    let limit = tree
        .root
        .join("class/powercap/intel-rapl:0/constraint_0_power_limit_uw");
    let devices = ["rapl:0".to_owned()];
    let lease = client.lease_of(&devices, &["clock", "power_limit"], 60_000);
    let policy = tree
        .root
        .join("devices/system/cpu/cpufreq/policy0/scaling_max_freq");
    fs::remove_file(&policy).unwrap();
    fs::create_dir(&policy).unwrap();
    let targets =
        json!([{"devices": devices, "clock_mhz": 1500, "power_limit_mw": 120_000, "hold_ms": 60_000}]);
    let answer = client.put(&lease, 1, &targets).json();
    assert_eq!(answer["results"][0]["status"], "failed", "{answer}");
    assert_eq!(answer["results"][1]["status"], "failed", "{answer}");
    assert_eq!(
        fs::read_to_string(&limit).unwrap().trim(),
        "250000000",
        "all or default"
    );
    fs::remove_dir(&policy).unwrap();
    fs::write(&policy, "3600000\n").unwrap();
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o644)).unwrap();
}
