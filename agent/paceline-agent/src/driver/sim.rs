//! The `sim` driver: emulated devices, written and read as PROTOCOL.md says. Behaves like NVML where it can:
//! a ceiling locks from the lowest clock, so that idle clocks may fall; reset is unlocked.

use std::path::Path;
use std::sync::Arc;

use emulated_device::{Command, EmulatedDevice, EmulatedDeviceError, monotonic_ns};

use super::DriverError;
use super::steps::{RESET, found_power_limit_mw, power_steps};
use super::throttle::reasons;
use crate::device::{Baseline, ControlName, Device, DeviceError, DeviceId, DeviceInfo, Reading};

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
    let devices = found.into_iter().map(|emulated| {
        let device = SimDevice::new(emulated).map_err(|wrong| DriverError(wrong.to_string()))?;
        Ok(Arc::new(device) as Arc<dyn Device>)
    });
    devices.collect()
}

/// A share of the default power limit below which no card can be set; that of an H100, about.
const LOWEST_POWER_SHARE: u32 = 4;

impl SimDevice {
    fn new(emulated: EmulatedDevice) -> Result<Self, EmulatedDeviceError> {
        let description = emulated.description();
        let limit_mw = in_force_mw(&emulated, &emulated.command()?);
        let info = DeviceInfo {
            id: DeviceId(format!("sim:{}", emulated.index())),
            driver: "sim",
            name: Some(description.name.clone()),
            uuid: Some(description.uuid.clone()),
            clocks_mhz: description.clocks_mhz.clone(),
            power_limits_mw: power_steps(description.default_power_limit_mw / LOWEST_POWER_SHARE, limit_mw),
            power_limit_mw: Some(u64::from(limit_mw)),
        };
        Ok(Self { info, emulated })
    }
}

/// The limit in force.
fn in_force_mw(emulated: &EmulatedDevice, command: &Command) -> u32 {
    match command.power_limit_mw {
        0 => emulated.description().default_power_limit_mw,
        told_mw => told_mw,
    }
}

impl Device for SimDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn baseline(&self, control: ControlName) -> Result<Baseline, DeviceError> {
        match control {
            ControlName::Clock => Ok(Baseline(RESET.to_owned())),
            ControlName::PowerLimit => {
                let told_mw = self.emulated.command().map_err(device_error)?.power_limit_mw;
                Ok(Baseline(told_mw.to_string()))
            }
        }
    }

    fn limit(&self, control: ControlName, value: u32, baseline: &Baseline) -> Result<(), DeviceError> {
        let done = match control {
            ControlName::Clock => {
                let lowest_mhz = self.emulated.description().lowest_clock_mhz();
                self.emulated.lock_clock(lowest_mhz, value)
            }
            ControlName::PowerLimit => {
                let found_mw = found_power_limit_mw(baseline)?;
                let at_most_mw = match found_mw {
                    0 => self.emulated.description().default_power_limit_mw,
                    found_mw => found_mw,
                };
                self.emulated.limit_power(value.min(at_most_mw))
            }
        };
        done.map_err(device_error)
    }

    fn restore(&self, control: ControlName, baseline: &Baseline) -> Result<(), DeviceError> {
        let done = match control {
            ControlName::Clock => self.emulated.lock_clock(0, 0),
            ControlName::PowerLimit => self.emulated.limit_power(found_power_limit_mw(baseline)?),
        };
        done.map_err(device_error)
    }

    fn read(&self) -> Result<Reading, DeviceError> {
        let (command, telemetry) = self.emulated.state().map_err(device_error)?;
        let power_limit_mw = in_force_mw(&self.emulated, &command);
        // Before the emulator's first word nothing more is known, which is not a device that cannot be read.
        let Some(telemetry) = telemetry else {
            return Ok(Reading {
                power_limit_mw: Some(u64::from(power_limit_mw)),
                ..Reading::default()
            });
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
            // As NVML: no getter for a locked clock.
            clock_limit_mhz: None,
            power_limit_mw: Some(u64::from(power_limit_mw)),
        })
    }

    fn default_baseline(&self, control: ControlName) -> Option<Baseline> {
        Some(match control {
            ControlName::Clock => Baseline(RESET.to_owned()),
            ControlName::PowerLimit => Baseline("0".to_owned()),
        })
    }
}

fn device_error(wrong: EmulatedDeviceError) -> DeviceError {
    DeviceError(wrong.to_string())
}
