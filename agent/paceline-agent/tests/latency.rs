//! How long the clocks stay low after a death. Not a test but a measurement, for a quiet machine:
//! `cargo test --release --test latency -- --ignored --nocapture --test-threads 1 how_long`

#![allow(clippy::unwrap_used)]

mod support;

use emulated_device::monotonic_ns;
use nix::sys::signal::Signal;
use support::agent::{Agent, is_alive, send};
use support::holder::{self, Holder};
use support::sandbox::{DEVICES, Driver, Sandbox};
use support::wait_until;

#[test]
#[ignore = "not a test: the client process of the measurement"]
fn the_holder_process() {
    holder::run();
}

/// From then until the last device was written, as the devices themselves say.
fn until_default_us(sandbox: &Sandbox, from_ns: u64) -> u64 {
    wait_until("the devices are back", || sandbox.are_all_default());
    let written = (0..DEVICES).map(|index| sandbox.command(index).written_at_ns);
    written.max().unwrap().saturating_sub(from_ns) / 1_000
}

fn print(what: &str, driver: Driver, mut taken_us: Vec<u64>) {
    taken_us.sort_unstable();
    let p50_us = taken_us[taken_us.len() / 2];
    let p90_us = taken_us[taken_us.len() * 9 / 10];
    let max_us = taken_us.last().unwrap();
    let count = taken_us.len();
    println!("{what:<32} {driver:?}: p50 {p50_us} us, p90 {p90_us} us, max {max_us} us, of {count}");
}

#[test]
#[ignore = "a measurement"]
fn how_long_clocks_stay_low() {
    for driver in [Driver::Sim, Driver::Nvml] {
        let sandbox = Sandbox::new(driver);
        let agent = Agent::start(&sandbox);
        let killed_clients = (0..50).map(|_| {
            let holder = Holder::start(&sandbox, 60_000);
            let from_ns = monotonic_ns();
            send(holder.pid(), Signal::SIGKILL);
            let taken_us = until_default_us(&sandbox, from_ns);
            std::thread::sleep(std::time::Duration::from_millis(250));
            taken_us
        });
        print("client killed (EOF) to default", driver, killed_clients.collect());
        let lapses = (0..20).map(|seq| {
            let lease = agent.client().lease(&sandbox.devices(), 60_000);
            let from_ns = monotonic_ns();
            agent.client().slow(&lease, seq, &sandbox.devices(), 990, 220);
            until_default_us(&sandbox, from_ns + 220_000_000)
        });
        print("hold over to default", driver, lapses.collect());
        drop(agent);
        let killed = |is_worker: bool| {
            let agent = Agent::start(&sandbox);
            let worker = agent.worker();
            let lease = agent.client().lease(&sandbox.devices(), 60_000);
            agent.client().slow(&lease, 1, &sandbox.devices(), 990, 60_000);
            let from_ns = monotonic_ns();
            send(if is_worker { worker } else { agent.sentinel() }, Signal::SIGKILL);
            let taken_us = until_default_us(&sandbox, from_ns);
            drop(agent);
            wait_until("the worker has let go of the lock", || !is_alive(worker));
            taken_us
        };
        print(
            "worker killed to default",
            driver,
            (0..20).map(|_| killed(true)).collect(),
        );
        print(
            "sentinel killed to default",
            driver,
            (0..20).map(|_| killed(false)).collect(),
        );
    }
}
