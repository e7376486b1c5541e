//! What the agent may do, and what it says to systemd and to probes. As root these tests see capabilities go; as
//! anybody else there are none to begin with.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use support::agent::{Agent, send};
use support::sandbox::{Driver, Sandbox};
use support::wait_until;

const SYS_ADMIN: u64 = 1 << 21;

/// One line of /proc/PID/status, as a number.
fn status(pid: i32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(value.trim_start_matches(':').trim(), 16).unwrap()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn the_agent_keeps_cap_sys_admin_and_nothing_else() {
    let sandbox = Sandbox::new(Driver::Nvml);
    let may_at_all = status(std::process::id().try_into().unwrap(), "CapEff") & SYS_ADMIN;
    let agent = Agent::start(&sandbox);
    for pid in [agent.sentinel(), agent.worker()] {
        assert_eq!(status(pid, "CapEff"), may_at_all);
        assert_eq!(status(pid, "CapPrm"), may_at_all);
        assert_eq!(status(pid, "CapInh") & !SYS_ADMIN, 0);
        assert_eq!(status(pid, "CapAmb") & !SYS_ADMIN, 0);
        if is_root() {
            assert_eq!(status(pid, "CapBnd"), may_at_all);
        }
        assert_eq!(status(pid, "NoNewPrivs"), 1);
    }
    let said = || {
        let mut lines = agent.log_lines().into_iter();
        lines.find(|line| line["message"] == "capabilities")
    };
    wait_until("it says what it may", || said().is_some());
    let wanted = if may_at_all == 0 { "none" } else { "CAP_SYS_ADMIN" };
    assert_eq!(said().unwrap()["effective"], wanted);
    // And that is enough for all that it does.
    let lease = agent.client().lease(&sandbox.devices(), 3_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 3_000);
    drop(lease);
    wait_until("all are at default", || sandbox.are_all_default());
}

#[test]
fn the_restoring_process_and_a_second_worker_have_no_more() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let first = agent.worker();
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    send(first, Signal::SIGKILL);
    wait_until("all are at default", || sandbox.are_all_default());
    wait_until("there is another", || agent.worker() != first);
    assert_eq!(status(agent.worker(), "CapEff") & !SYS_ADMIN, 0);
}

/// As under systemd with `User=` and no AmbientCapabilities: nobody's own, and nothing that could be gained.
#[test]
fn without_cap_sys_admin_it_serves_and_says_what_will_not_work() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new(Driver::Nvml);
    let uid = 54_321;
    let policy = json!([{"uids": [0, uid], "devices": ["*"], "controls": ["clock"]}]);
    sandbox.write_policy(&policy);
    fs::set_permissions(sandbox.policy_path(), fs::Permissions::from_mode(0o644)).unwrap();
    let own = |path: &std::path::Path| chown(path, Some(uid), Some(uid)).unwrap();
    own(&sandbox.path);
    own(&sandbox.devices_path());
    for entry in fs::read_dir(sandbox.devices_path()).unwrap() {
        own(&entry.unwrap().path());
    }
    // The binary stands where only root may look, in some checkouts.
    let binary = sandbox.path.join("paceline-agent");
    fs::copy(env!("CARGO_BIN_EXE_paceline-agent"), &binary).unwrap();
    let library = sandbox.path.join("libfake_nvml.so");
    fs::copy(support::agent::fake_nvml_path(), &library).unwrap();
    let agent = Agent::start_with(&sandbox, |command| {
        let log = fs::OpenOptions::new()
            .append(true)
            .open(sandbox.path.join("agent.log"))
            .unwrap();
        *command = Command::new(&binary);
        command
            .args(["serve", "--driver", "nvml", "--nvml-library"])
            .arg(&library);
        command.arg("--state-dir").arg(sandbox.state_path());
        command.arg("--socket").arg(sandbox.socket_path());
        command.arg("--policy").arg(sandbox.policy_path());
        command
            .env("PACELINE_FAKE_NVML_DIR", sandbox.devices_path())
            .stderr(log)
            .uid(uid)
            .gid(uid);
    });
    assert_eq!(status(agent.worker(), "CapEff"), 0);
    let warned = || {
        let lines = agent.log_lines().into_iter();
        lines
            .filter_map(|line| line["message"].as_str().map(str::to_owned))
            .any(|message| message.starts_with("no CAP_SYS_ADMIN"))
    };
    wait_until("it warns", warned);
    assert_eq!(agent.client().get("/v1/samples").status, 200);
}

#[test]
fn a_group_that_root_is_not_in_gets_the_socket_although_cap_chown_is_gone() {
    if !is_root() {
        return;
    }
    let Some(group) = nix::unistd::Group::from_name("daemon").unwrap() else {
        return;
    };
    let sandbox = Sandbox::new(Driver::Sim);
    for (named, gid) in [("daemon", group.gid.as_raw()), ("54321", 54_321)] {
        let agent = Agent::start_with(&sandbox, |command| {
            command.args(["--socket-group", named]);
        });
        let metadata = fs::metadata(sandbox.socket_path()).unwrap();
        assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (gid, 0o660));
        assert_eq!(status(agent.worker(), "CapEff") & !SYS_ADMIN, 0);
    }
}

fn check(sandbox: &Sandbox, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paceline-agent"));
    command
        .arg("check")
        .args(more)
        .arg("--socket")
        .arg(sandbox.socket_path());
    command.output().unwrap()
}

/// A signal stops a process of many threads only by and by.
fn is_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut stats = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).unwrap());
    stats.all(|stat| stat.rsplit(") ").next().unwrap_or_default().starts_with('T'))
}

#[test]
fn check_tells_a_probe_how_the_agent_is() {
    let sandbox = Sandbox::new(Driver::Sim);
    let none = check(&sandbox, &[]);
    assert_eq!(none.status.code(), Some(69));
    assert!(String::from_utf8(none.stderr).unwrap().contains("--socket"));
    let agent = Agent::start(&sandbox);
    assert_eq!(check(&sandbox, &[]).status.code(), Some(0));
    let ready = check(&sandbox, &["--ready"]);
    assert_eq!(ready.status.code(), Some(0));
    let said: serde_json::Value = serde_json::from_slice(&ready.stdout).unwrap();
    assert_eq!(said["status"], "ready");
    // Stopped: it is there and does not answer.
    send(agent.worker(), Signal::SIGSTOP);
    wait_until("every thread has stopped", || is_stopped(agent.worker()));
    assert_eq!(check(&sandbox, &[]).status.code(), Some(69));
    send(agent.worker(), Signal::SIGCONT);
}

#[test]
fn systemd_is_told_when_it_is_ready_reloads_lives_and_stops() {
    let sandbox = Sandbox::new(Driver::Sim);
    let path = sandbox.path.join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let hear = |wanted: &str| {
        let mut bytes = [0u8; 256];
        loop {
            let count = systemd
                .recv(&mut bytes)
                .unwrap_or_else(|_| panic!("never heard {wanted}"));
            let said = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if said.starts_with(wanted) {
                return said;
            }
        }
    };
    let mut agent = Agent::spawn(&sandbox, |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "1500000");
    });
    hear("READY=1");
    assert_eq!(
        agent.client().get("/healthz").status,
        200,
        "it was ready when it said so"
    );
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    send(agent.sentinel(), Signal::SIGHUP);
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    let environment = fs::read_to_string(format!("/proc/{}/environ", agent.worker())).unwrap();
    assert!(
        !environment.contains("NOTIFY_SOCKET"),
        "the worker says nothing by itself"
    );
    send(agent.worker(), Signal::SIGKILL);
    hear("STATUS=The worker died");
    hear("READY=1");
    send(agent.sentinel(), Signal::SIGTERM);
    hear("STOPPING=1");
    assert!(agent.wait().success());
}

/// SIGHUP kills a process that has not asked for it, which a worker that is starting has not.
#[test]
fn a_reload_that_comes_while_the_worker_starts_waits_until_it_serves() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::spawn(&sandbox, |_| {});
    agent.worker();
    send(agent.sentinel(), Signal::SIGHUP);
    agent.wait_for_audit("policy-reloaded");
    let lines = agent.log_lines();
    assert!(
        !lines.iter().any(|line| line["message"] == "worker died"),
        "{}",
        agent.log()
    );
}
