//! What the process tests share: a directory with emulated devices, the real binary, a client without a library.

#![allow(dead_code, clippy::unwrap_used)]

pub mod agent;
pub mod client;
pub mod holder;
pub mod mutate;
pub mod raw;
pub mod sandbox;
pub mod seeded;

use std::time::{Duration, Instant};

/// For what must happen soon on a machine that is busy with other tests. What "soon" is, `latency.rs` measures.
pub const SOON: Duration = Duration::from_secs(5);

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started_at = Instant::now();
    while !holds() {
        assert!(started_at.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_micros(500));
    }
    started_at.elapsed()
}
