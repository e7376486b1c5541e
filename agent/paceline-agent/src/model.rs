//! Random schedules of operations, kills, faults and delays over the real arbiter, the real workers of the device threads
//! and the real journal, in virtual time, held against a model of what PROTOCOL.md promises (`oracle.rs`).
//!
//! `PACELINE_SCHEDULES=20000 cargo test --release model -- --nocapture` for many, `PACELINE_SEED=7` for one with its
//! trace. It has been seen to catch, each put in by hand: no journal record before a write, holds that do not lapse,
//! leases that do not expire, the slowest demand winning, a group that fails in part, raising behind the rate limit, a
//! stale seq or epoch taken, ends and starts that do not restore, another's limit put back, a floor ignored.

mod fakes;
mod oracle;
pub mod random;
mod world;

use world::World;

const STEPS: u64 = 120;

/// Answers with the violations, each with its seed and the steps before it.
fn run(seed: u64) -> Vec<String> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.quiesce();
    world.violations()
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn random_schedules_keep_every_promise() {
    let seeds = match number_from("PACELINE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number_from("PACELINE_SCHEDULES").unwrap_or(400),
    };
    let mut schedules = 0u64;
    let mut violations = Vec::new();
    for seed in seeds {
        schedules += 1;
        violations.extend(run(seed));
    }
    let steps = schedules * STEPS;
    println!(
        "{{\"schedules\":{schedules},\"steps\":{steps},\"violations\":{}}}",
        violations.len()
    );
    assert!(
        violations.is_empty(),
        "{}",
        violations[..violations.len().min(3)].join("\n\n")
    );
}
