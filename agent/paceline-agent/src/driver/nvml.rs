//! The `nvml` driver: NVIDIA GPUs. A clock target is a ceiling (locked from the lowest clock), so that an idle GPU may
//! still fall to its idle clocks; back to default is NVML's own reset.

use std::path::Path;
use std::sync::Arc;

use super::DriverError;
use super::nvml_library::{DeviceHandle, Field, NvmlFailure, NvmlLibrary};
use super::steps::{RESET, found_power_limit_mw, power_steps};
use super::throttle::reasons;
use crate::device::{Baseline, ControlName, Device, DeviceError, DeviceId, DeviceInfo, Reading};

struct NvmlDevice {
    info: DeviceInfo,
    handle: DeviceHandle,
    library: Arc<NvmlLibrary>,
}

pub fn open(path: &Path) -> Result<Vec<Arc<dyn Device>>, DriverError> {
    let wrong = |wrong: String| DriverError(format!("--nvml-library {}: {wrong}", path.display()));
    let library = Arc::new(NvmlLibrary::open(path).map_err(wrong)?);
    let handles = library.devices().map_err(|failure| wrong(failure.to_string()))?;
    let mut devices: Vec<Arc<dyn Device>> = Vec::new();
    for (index, handle) in handles.into_iter().enumerate() {
        let described = handle
            .map_err(|failure| failure.to_string())
            .and_then(|handle| Ok((handle, describe(&library, handle)?)));
        match described {
            Ok((handle, info)) => devices.push(Arc::new(NvmlDevice {
                info,
                handle,
                library: Arc::clone(&library),
            })),
            // The node's other GPUs are still worth serving, and worth restoring.
            Err(wrong) => tracing::error!(index, "a GPU is left out: {wrong}"),
        }
    }
    if devices.is_empty() {
        return Err(wrong("it knows no GPU that can be used".to_owned()));
    }
    Ok(devices)
}

/// What this library cannot set, the device does not offer; it can still be read.
fn describe(library: &NvmlLibrary, handle: DeviceHandle) -> Result<DeviceInfo, String> {
    let uuid = library.uuid(handle).map_err(|failure| failure.to_string())?;
    let clocks_mhz = if library.can_lock_clocks() {
        clocks(library, handle).unwrap_or_else(|wrong| {
            tracing::warn!(%uuid, "its clock cannot be set: {wrong}");
            Vec::new()
        })
    } else {
        Vec::new()
    };
    let limit_mw = library.power_limit_mw(handle).ok();
    let range_mw = library.power_limit_range_mw(handle).ok();
    let power_limits_mw = match (limit_mw, range_mw) {
        (Some(limit_mw), Some((lowest_mw, _))) if library.can_limit_power() => {
            power_steps(lowest_mw, limit_mw)
        }
        _ => Vec::new(),
    };
    Ok(DeviceInfo {
        id: DeviceId(format!("nvml:{uuid}")),
        driver: "nvml",
        name: library.name(handle).ok(),
        uuid: Some(uuid),
        clocks_mhz,
        power_limits_mw,
        power_limit_mw: limit_mw
            .or_else(|| library.default_power_limit_mw(handle).ok())
            .map(u64::from),
    })
}

/// The graphics clocks at the fastest memory clock: locking the one leaves the other alone, and it is at its fastest
/// whenever there is work.
fn clocks(library: &NvmlLibrary, handle: DeviceHandle) -> Result<Vec<u32>, String> {
    let memory = library
        .memory_clocks_mhz(handle)
        .map_err(|failure| failure.to_string())?;
    let memory_mhz = memory.into_iter().max().ok_or("it lists no memory clock")?;
    let mut clocks_mhz = library
        .graphics_clocks_mhz(handle, memory_mhz)
        .map_err(|failure| failure.to_string())?;
    clocks_mhz.sort_unstable();
    clocks_mhz.dedup();
    clocks_mhz.retain(|&clock_mhz| clock_mhz > 0);
    if clocks_mhz.is_empty() {
        return Err("it lists no graphics clock".to_owned());
    }
    Ok(clocks_mhz)
}

impl Device for NvmlDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// NVML has no getter for locked clocks: back is to reset them.
    fn baseline(&self, control: ControlName) -> Result<Baseline, DeviceError> {
        match control {
            ControlName::Clock => Ok(Baseline(RESET.to_owned())),
            ControlName::PowerLimit => {
                let limit_mw = self.library.power_limit_mw(self.handle).map_err(device_error)?;
                Ok(Baseline(limit_mw.to_string()))
            }
        }
    }

    fn limit(&self, control: ControlName, value: u32, baseline: &Baseline) -> Result<(), DeviceError> {
        let done = match control {
            ControlName::Clock => {
                let lowest_mhz = *self
                    .info
                    .clocks_mhz
                    .first()
                    .ok_or_else(|| DeviceError::lacks(control))?;
                self.library.lock_clocks(self.handle, lowest_mhz, value)
            }
            ControlName::PowerLimit => {
                let limit_mw = value.min(found_power_limit_mw(baseline)?);
                self.library.set_power_limit_mw(self.handle, limit_mw)
            }
        };
        done.map_err(device_error)
    }

    fn restore(&self, control: ControlName, baseline: &Baseline) -> Result<(), DeviceError> {
        let done = match control {
            ControlName::Clock => self.library.reset_clocks(self.handle),
            ControlName::PowerLimit => {
                let limit_mw = found_power_limit_mw(baseline)?;
                self.library.set_power_limit_mw(self.handle, limit_mw)
            }
        };
        done.map_err(device_error)
    }

    fn default_baseline(&self, control: ControlName) -> Option<Baseline> {
        match control {
            ControlName::Clock => Some(Baseline(RESET.to_owned())),
            ControlName::PowerLimit => {
                let limit_mw = self.library.default_power_limit_mw(self.handle).ok()?;
                Some(Baseline(limit_mw.to_string()))
            }
        }
    }

    /// What cannot be told is `None`. A device that tells nothing at all is an error: it is lost, not taciturn.
    fn read(&self) -> Result<Reading, DeviceError> {
        let clock_mhz = self.library.clock_mhz(self.handle);
        // One call for both where the driver knows the fields. Field 186 is the power now; GetPowerUsage is averaged
        // over a second on GPUs since Ampere.
        let fields = [Field::PowerInstantMw, Field::TotalEnergyMj];
        let [power_mw, energy_mj] = self.library.fields(self.handle, fields).unwrap_or_default();
        let power_mw = power_mw.or_else(|| self.library.power_usage_mw(self.handle).ok().map(u64::from));
        let energy_mj = energy_mj.or_else(|| self.library.total_energy_mj(self.handle).ok());
        let reading = Reading {
            clock_mhz: clock_mhz.as_ref().ok().copied(),
            power_mw,
            energy_mj,
            energy_age_ms: None,
            utilization_pct: self.library.utilization_pct(self.handle).ok(),
            temperature_c: self.library.temperature_c(self.handle).ok(),
            throttle_reasons: self.library.throttle_reasons(self.handle).ok().map(reasons),
            clock_limit_mhz: None,
            power_limit_mw: self.library.power_limit_mw(self.handle).ok().map(u64::from),
        };
        match clock_mhz {
            Err(failure) if reading == Reading::default() => Err(device_error(failure)),
            _ => Ok(reading),
        }
    }
}

fn device_error(failure: NvmlFailure) -> DeviceError {
    DeviceError(failure.to_string())
}
