//! The emulated device: a directory that the emulator, the `sim` driver and the fake NVML share.
//! The layout is stated in `agent/PROTOCOL.md`; this crate is its only reader and writer in Rust.
//! What the numbers mean (physics, policy) is left to those who use it.

mod block;
mod description;
mod device;
mod emulator;
mod error;

pub use description::Description;
pub use device::{Command, EmulatedDevice, Telemetry, list};
pub use emulator::{create, write_telemetry};
pub use error::EmulatedDeviceError;

/// CLOCK_MONOTONIC in nanoseconds, the time base of every instant in the directory.
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("CLOCK_MONOTONIC exists on every Linux");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
