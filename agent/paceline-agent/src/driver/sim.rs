//! The `sim` driver: emulated devices, written and read as PROTOCOL.md says. Behaves like NVML where it can:
//! a ceiling locks from the lowest clock, so that idle clocks may fall; reset is unlocked.

use std::path::Path;
use std::sync::Arc;

use emulated_device::{EmulatedDevice, monotonic_ns};

use super::DriverError;
use super::throttle::reasons;
use crate::device::{Device, DeviceError, DeviceId, DeviceInfo, Reading};

struct SimDevice {
    info: DeviceInfo,
    emulated: EmulatedDevice,
}

pub fn open(directory: &Path) -> Result<Vec<Arc<dyn Device>>, DriverError> {
    let found = emulated_device::list(directory)
        .map_err(|wrong| DriverError(format!("--sim-dir {}: {wrong}", directory.display())))?;
    if found.is_empty() {
        return Err(DriverError(format!(
            "--sim-dir {}: no devices in it; start `paceline emulate` first",
            directory.display()
        )));
    }
    Ok(found
        .into_iter()
        .map(|emulated| Arc::new(SimDevice::new(emulated)) as Arc<dyn Device>)
        .collect())
}

impl SimDevice {
    fn new(emulated: EmulatedDevice) -> Self {
        let description = emulated.description();
        let info = DeviceInfo {
            id: DeviceId(format!("sim:{}", emulated.index())),
            driver: "sim",
            name: Some(description.name.clone()),
            uuid: Some(description.uuid.clone()),
            clocks_mhz: description.clocks_mhz.clone(),
            power_limit_mw: Some(u64::from(description.default_power_limit_mw)),
        };
        Self { info, emulated }
    }

    fn lock(&self, min_mhz: u32, max_mhz: u32) -> Result<(), DeviceError> {
        self.emulated
            .lock_clock(min_mhz, max_mhz)
            .map_err(|wrong| DeviceError(wrong.to_string()))
    }
}

impl Device for SimDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn limit_clock(&self, ceiling_mhz: u32) -> Result<(), DeviceError> {
        self.lock(self.info.lowest_clock_mhz(), ceiling_mhz)
    }

    fn reset_clock(&self) -> Result<(), DeviceError> {
        self.lock(0, 0)
    }

    fn read(&self) -> Result<Reading, DeviceError> {
        let telemetry = self
            .emulated
            .telemetry()
            .map_err(|wrong| DeviceError(wrong.to_string()))?;
        // Before the emulator's first word nothing is known, which is not a device that cannot be read.
        let Some(telemetry) = telemetry else {
            return Ok(Reading::default());
        };
        let energy_age_ns = monotonic_ns().saturating_sub(telemetry.energy_at_ns);
        Ok(Reading {
            clock_mhz: Some(telemetry.clock_mhz),
            power_mw: Some(u64::from(telemetry.power_mw)),
            energy_mj: Some(telemetry.energy_mj),
            energy_age_ms: Some(energy_age_ns / 1_000_000),
            utilization_pct: Some(telemetry.utilization_pct),
            temperature_c: Some(telemetry.temperature_c),
            throttle_reasons: Some(reasons(telemetry.throttle_reasons)),
        })
    }
}
