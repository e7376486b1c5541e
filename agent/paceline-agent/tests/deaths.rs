//! Whoever dies, hangs or leaves: the clocks go back to default. Over both drivers.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use support::agent::{Agent, command, is_alive, send};
use support::holder::{self, Holder};
use support::sandbox::{Driver, Sandbox};
use support::wait_until;

macro_rules! over_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod sim { $(#[test] fn $name() { super::$name(super::Driver::Sim); })* }
        mod nvml { $(#[test] fn $name() { super::$name(super::Driver::Nvml); })* }
    };
}

over_both_drivers!(
    a_killed_client_loses_its_lease_at_once,
    a_stopped_client_loses_its_lease_after_its_ttl,
    sigterm_restores_and_leaves_in_order,
    a_killed_worker_is_restored_by_its_sentinel_and_replaced,
    a_killed_sentinel_takes_its_worker_along,
    what_both_left_behind_is_restored_by_the_next_start,
    what_both_left_behind_is_restored_by_the_restore_command,
    a_start_that_has_restored_can_lower_again,
    a_panic_restores,
);

#[test]
#[ignore = "not a test: the client process of the others"]
fn the_holder_process() {
    holder::run();
}

fn a_killed_client_loses_its_lease_at_once(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let holder = Holder::start(&sandbox, 60_000);
    assert_eq!(sandbox.locked_mhz(0), 990);
    send(holder.pid(), Signal::SIGKILL);
    let took = wait_until("the devices are back", || sandbox.are_all_default());
    // Far from the TTL and the hold. How fast it is on a quiet machine, `latency.rs` says.
    assert!(took < Duration::from_millis(900), "{took:?}");
    assert_eq!(agent.wait_for_audit("lease-ended")["reason"], "disconnected");
}

fn a_stopped_client_loses_its_lease_after_its_ttl(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let holder = Holder::start(&sandbox, 500);
    let stopped_at = Instant::now();
    send(holder.pid(), Signal::SIGSTOP);
    wait_until("the devices are back", || sandbox.are_all_default());
    assert!(
        stopped_at.elapsed() >= Duration::from_millis(400),
        "{:?}",
        stopped_at.elapsed()
    );
    assert_eq!(agent.wait_for_audit("lease-ended")["reason"], "expired");
}

fn sigterm_restores_and_leaves_in_order(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let mut agent = Agent::start(&sandbox);
    let worker = agent.worker();
    let mut lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    send(agent.sentinel(), Signal::SIGTERM);
    assert_eq!(lease.ended().as_deref(), Some("shutdown"));
    assert!(agent.wait().success());
    assert!(sandbox.are_all_default());
    assert!(!is_alive(worker));
    assert!(sandbox.journal().is_empty());
    assert!(!sandbox.socket_path().exists());
}

fn a_killed_worker_is_restored_by_its_sentinel_and_replaced(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let agent = Agent::start(&sandbox);
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    let epoch = lease.granted["epoch"].as_u64().unwrap();
    let worker = agent.worker();
    send(worker, Signal::SIGKILL);
    wait_until("the devices are back", || sandbox.are_all_default());
    wait_until("another worker serves", || {
        agent.worker() != worker && support::client::Client::try_new(&sandbox.socket_path()).is_some()
    });
    assert!(sandbox.journal().is_empty());
    let next = agent.client().lease(&sandbox.devices(), 60_000);
    assert!(next.granted["epoch"].as_u64().unwrap() > epoch);
}

fn a_killed_sentinel_takes_its_worker_along(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let mut agent = Agent::start(&sandbox);
    let worker = agent.worker();
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    send(agent.sentinel(), Signal::SIGKILL);
    agent.wait();
    wait_until("the devices are back", || sandbox.are_all_default());
    wait_until("the worker has left", || !is_alive(worker));
    assert!(sandbox.journal().is_empty());
}

/// Lowered, journaled, and nobody left to restore.
fn kill_both(sandbox: &Sandbox) {
    let mut agent = Agent::start(sandbox);
    let worker = agent.worker();
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    // Stopped first, so that neither sees the other die.
    send(agent.sentinel(), Signal::SIGSTOP);
    send(worker, Signal::SIGKILL);
    send(agent.sentinel(), Signal::SIGKILL);
    agent.wait();
    wait_until("both are dead", || !is_alive(worker));
    assert_eq!(sandbox.locked_mhz(0), 990);
}

fn what_both_left_behind_is_restored_by_the_next_start(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    kill_both(&sandbox);
    let agent = Agent::start(&sandbox);
    assert!(sandbox.are_all_default(), "before anybody can connect");
    assert_eq!(agent.client().get("/readyz").status, 200);
    wait_until("the journal is empty", || sandbox.journal().is_empty());
    assert_eq!(agent.audit("device-restored").len(), 2);
}

/// Devices are opened twice by such a start. Found by `schedules.rs`: closing the first ones took the others along.
fn a_start_that_has_restored_can_lower_again(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    kill_both(&sandbox);
    let agent = Agent::start(&sandbox);
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    assert_eq!((sandbox.locked_mhz(0), sandbox.locked_mhz(1)), (990, 990));
}

fn what_both_left_behind_is_restored_by_the_restore_command(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    kill_both(&sandbox);
    assert!(command(&sandbox, "restore").status().unwrap().success());
    assert!(sandbox.are_all_default());
    assert!(sandbox.journal().is_empty());
    assert!(
        command(&sandbox, "restore").status().unwrap().success(),
        "and nothing to do after that"
    );
}

fn a_panic_restores(driver: Driver) {
    let sandbox = Sandbox::new(driver);
    let mut agent = Agent::start_with(&sandbox, |command| {
        command
            .arg("--no-sentinel")
            .env("PACELINE_AGENT_TEST_PANIC_AFTER_MS", "600");
    });
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    assert!(!agent.wait().success());
    assert!(sandbox.are_all_default());
    assert_eq!(
        sandbox.journal(),
        sandbox.devices(),
        "the journal is left for whoever checks after it"
    );
}

#[test]
fn a_worker_that_hangs_is_killed_and_restored() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let worker = agent.worker();
    let lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    send(worker, Signal::SIGSTOP);
    wait_until("the devices are back", || sandbox.are_all_default());
    wait_until("another worker serves", || agent.worker() != worker);
}

#[test]
fn a_worker_that_dies_again_and_again_is_given_up() {
    let sandbox = Sandbox::new(Driver::Sim);
    let mut agent = Agent::spawn(&sandbox, |command| {
        command.env("PACELINE_AGENT_TEST_PANIC_AFTER_MS", "0");
    });
    assert_eq!(agent.wait().code(), Some(70));
    assert!(sandbox.are_all_default());
}

#[test]
fn closing_half_a_lease_connection_releases_it_even_with_unread_requests_on_it() {
    let sandbox = Sandbox::new(Driver::Sim);
    let agent = Agent::start(&sandbox);
    let mut lease = agent.client().lease(&sandbox.devices(), 60_000);
    agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
    let mut stream = lease.reader.get_ref();
    // A pipelined request: hyper has bytes to read, and will not look for the end behind them.
    stream
        .write_all(support::client::request("GET", "/healthz", "").as_bytes())
        .unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.shutdown(Shutdown::Write).unwrap();
    let took = wait_until("the devices are back", || sandbox.are_all_default());
    assert!(took < Duration::from_millis(900), "{took:?}");
    assert_eq!(lease.ended(), None);
}

#[test]
fn a_damaged_journal_restores_every_device() {
    let sandbox = Sandbox::new(Driver::Sim);
    kill_both(&sandbox);
    std::fs::write(sandbox.state_path().join("journal.json"), "{\"format\":").unwrap();
    let agent = Agent::start(&sandbox);
    assert!(sandbox.are_all_default());
    assert_eq!(
        agent.client().get("/readyz").json()["restores_pending"],
        json!([])
    );
}

#[test]
fn a_device_of_another_driver_in_the_journal_keeps_the_agent_unready() {
    let sandbox = Sandbox::new(Driver::Nvml);
    kill_both(&sandbox);
    let as_sim = Sandbox {
        path: sandbox.path.clone(),
        driver: Driver::Sim,
    };
    let agent = Agent::start(&as_sim);
    let reply = agent.client().get("/readyz");
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["restores_pending"], json!(sandbox.devices()));
    drop(agent);
    assert!(command(&sandbox, "restore").status().unwrap().success());
    assert!(sandbox.are_all_default());
    std::mem::forget(as_sim);
}
