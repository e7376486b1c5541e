//! The emulator's side, for tests in Rust. The emulator that users run is `paceline emulate`, in TypeScript.

use std::path::Path;

use crate::block::{self, MAGIC, STATE_BYTES, TELEMETRY};
use crate::{Description, EmulatedDevice, EmulatedDeviceError, Telemetry};

/// Makes device `index`, unlocked and without telemetry. An old one under this number is replaced.
pub fn create(
    directory: &Path,
    index: u32,
    description: &Description,
) -> Result<EmulatedDevice, EmulatedDeviceError> {
    let description_path = directory.join(format!("{index}.json"));
    let text = serde_json::to_string(description).expect("a description has only plain fields");
    std::fs::write(&description_path, text)
        .map_err(|source| EmulatedDeviceError::io(&description_path, "write", source))?;
    let state_path = directory.join(format!("{index}.state"));
    let mut state = vec![0u8; STATE_BYTES];
    state[..MAGIC.len()].copy_from_slice(MAGIC);
    std::fs::write(&state_path, state)
        .map_err(|source| EmulatedDeviceError::io(&state_path, "write", source))?;
    EmulatedDevice::open(directory, index)
}

pub fn write_telemetry(
    directory: &Path,
    index: u32,
    telemetry: &Telemetry,
) -> Result<(), EmulatedDeviceError> {
    let path = directory.join(format!("{index}.state"));
    let file = block::open(&path, true)?;
    let mut body = Vec::with_capacity(40);
    body.extend_from_slice(&telemetry.clock_mhz.to_le_bytes());
    body.extend_from_slice(&telemetry.power_mw.to_le_bytes());
    body.extend_from_slice(&telemetry.energy_mj.to_le_bytes());
    body.extend_from_slice(&telemetry.energy_at_ns.to_le_bytes());
    body.extend_from_slice(&telemetry.utilization_pct.to_le_bytes());
    body.extend_from_slice(&telemetry.temperature_c.to_le_bytes());
    body.extend_from_slice(&telemetry.throttle_reasons.to_le_bytes());
    block::write(&file, &path, TELEMETRY, &body)
}
