//! Random schedules of everything that can happen to an agent and its clients, against what must hold whatever happens.
//! Black box: the real binary, its HTTP, and what can be seen from outside (the devices, the journal, NVML's op log).
//!
//! `PACELINE_SCHEDULES=500 cargo test --test schedules -- --nocapture` runs more of them; `PACELINE_SEED=7` runs that one
//! again and prints what it did. `PACELINE_TEST_AGENT` names another binary. With it this was seen to fail, within 60
//! schedules, on agents that: lower without a journal entry; let holds or leases never lapse; delay raising by the lowering
//! rate limit; let the slowest lease win; take a stale seq or another epoch; fail one device of a group alone; round a clock
//! down; pass over the floor; never retry a reset; answer DELETE before the device is back; miss a half-closed stream with
//! unread bytes; keep leases that a new policy would not grant. Not on one whose worker does not watch its life-line: the kernel's SIGTERM comes all the same.
//!
//! Times differ from run to run, so a seed repeats what is done, not to the millisecond when.

#![allow(clippy::unwrap_used)]

mod support;

#[path = "schedules/client_process.rs"]
mod client_process;
#[path = "schedules/model.rs"]
mod model;
#[path = "schedules/watcher.rs"]
mod watcher;
#[path = "schedules/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use support::sandbox::Driver;
use support::seeded::number_from_environment;
use world::World;

const SCHEDULES_DEFAULT: u64 = 6;
const STEPS: u64 = 30;
/// A schedule mostly waits.
const AT_ONCE: usize = 3;

#[test]
#[ignore = "not a test: the client process of the schedules"]
fn the_client_process() {
    client_process::run();
}

#[test]
fn whatever_happens_devices_are_never_slower_than_their_leases_say() {
    let only = number_from_environment("PACELINE_SEED");
    let schedules = number_from_environment("PACELINE_SCHEDULES").unwrap_or(SCHEDULES_DEFAULT);
    let seeds = only.map_or(1..=schedules, |seed| seed..=seed);
    let next = AtomicU64::new(*seeds.start());
    let totals = Mutex::new((0u64, 0u64, 0usize));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        return;
                    }
                    let world = run(seed);
                    if only.is_some() || !world.violations.is_empty() {
                        eprintln!(
                            "PACELINE_SEED={seed} {:?}\n{}",
                            world.sandbox.driver,
                            world.trace()
                        );
                        let kept = world.sandbox.path.with_extension(format!("seed-{seed}"));
                        let _ = std::fs::rename(&world.sandbox.path, &kept);
                        eprintln!("its log and devices: {}", kept.display());
                    }
                    let mut totals = totals.lock().unwrap();
                    totals.0 += 1;
                    totals.1 += world.steps;
                    totals.2 += world.violations.len();
                }
            });
        }
    });
    let (schedules, steps, violations) = *totals.lock().unwrap();
    // On a line of its own: the harness may have begun one with the test's name.
    println!(
        "\n{}",
        json!({"schedules": schedules, "steps": steps, "violations": violations})
    );
    assert_eq!(violations, 0, "the traces above say what happened");
}

fn run(seed: u64) -> World {
    let driver = if seed.is_multiple_of(2) {
        Driver::Sim
    } else {
        Driver::Nvml
    };
    let mut world = World::new(driver, seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.quiesce();
    world
}
