//! The `exec` driver: devices that this agent sets, resets and reads through commands of the site. For nodes where root is
//! never granted and clocks are set through sudo rules, a daemon's client or a vendor's tool.

mod config;
mod run;
mod template;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use self::config::{ControlCommands, ExecDeviceConfig};
use self::run::{Run, Runner};
use self::template::{Placeholder, Template};
use super::DriverError;
use super::steps::RESET;
use crate::device::{Baseline, ControlName, Device, DeviceError, DeviceInfo, Reading};
use crate::json_fields::{FieldError, Fields};

struct ExecDevice {
    config: ExecDeviceConfig,
    /// Apart, so that a slow reading delays no clock.
    setting: Runner,
    reading: Runner,
}

/// Runs nothing yet.
pub fn open(path: &Path) -> Result<Vec<Arc<dyn Device>>, DriverError> {
    let devices = config::load(path)
        .map_err(|wrong| DriverError(format!("--exec-config {}: {wrong}", path.display())))?;
    let devices = devices.into_iter();
    Ok(devices
        .map(|config| Arc::new(ExecDevice::new(config)) as Arc<dyn Device>)
        .collect())
}

impl ExecDevice {
    fn new(config: ExecDeviceConfig) -> Self {
        Self {
            config,
            setting: Runner::default(),
            reading: Runner::default(),
        }
    }

    fn commands(&self, control: ControlName) -> Result<&ControlCommands, DeviceError> {
        let commands = self.config.controls.get(&control);
        commands.ok_or_else(|| DeviceError::lacks(control))
    }

    /// `value` is what the control is to be held to; not looked at by a command that puts it back.
    fn run(&self, runner: &Runner, template: &Template, value: u32) -> Result<Vec<u8>, DeviceError> {
        let info = &self.config.info;
        let args = template.fill(|placeholder| match placeholder {
            Placeholder::ClockMhz | Placeholder::PowerLimitMw => value,
            Placeholder::PowerLimitW => value / 1_000,
            Placeholder::LowestMhz => info.clocks_mhz[0],
            Placeholder::HighestMhz => info.clocks_mhz[info.clocks_mhz.len() - 1],
            Placeholder::HighestPowerLimitMw => highest_power_limit_mw(info),
            Placeholder::HighestPowerLimitW => highest_power_limit_mw(info) / 1_000,
        });
        runner.run(&Run {
            template,
            args,
            env: &self.config.env,
            timeout: self.config.timeout,
        })
    }
}

fn highest_power_limit_mw(info: &DeviceInfo) -> u32 {
    info.power_limits_mw[info.power_limits_mw.len() - 1]
}

impl Device for ExecDevice {
    fn info(&self) -> &DeviceInfo {
        &self.config.info
    }

    /// There is no getter that could be trusted to be one: the site's own reset is the way back.
    fn baseline(&self, control: ControlName) -> Result<Baseline, DeviceError> {
        self.commands(control)?;
        Ok(Baseline(RESET.to_owned()))
    }

    fn limit(&self, control: ControlName, value: u32, _: &Baseline) -> Result<(), DeviceError> {
        let limit = &self.commands(control)?.limit;
        self.run(&self.setting, limit, value).map(drop)
    }

    fn restore(&self, control: ControlName, _: &Baseline) -> Result<(), DeviceError> {
        let reset = &self.commands(control)?.reset;
        self.run(&self.setting, reset, 0).map(drop)
    }

    fn read(&self) -> Result<Reading, DeviceError> {
        let Some(read) = &self.config.read else {
            return Ok(Reading::default());
        };
        let output = self.run(&self.reading, read, 0)?;
        reading(&output).map_err(|wrong| DeviceError(format!("what `{}` says: {wrong}", read.name)))
    }

    fn default_baseline(&self, control: ControlName) -> Option<Baseline> {
        self.commands(control).ok().map(|_| Baseline(RESET.to_owned()))
    }
}

/// More than any driver knows.
const THROTTLE_REASONS_MAX: usize = 64;

/// One JSON object or several, one after the other: what a later one says counts. `null` is "cannot tell".
fn reading(output: &[u8]) -> Result<Reading, String> {
    let mut reading = Reading::default();
    let mut is_empty = true;
    for value in serde_json::Deserializer::from_slice(output).into_iter::<Value>() {
        let value = value.map_err(|wrong| wrong.to_string())?;
        read_fields(value, &mut reading).map_err(|wrong| wrong.to_string())?;
        is_empty = false;
    }
    if is_empty {
        return Err("nothing, wanted a JSON object".to_owned());
    }
    Ok(reading)
}

fn read_fields(mut value: Value, reading: &mut Reading) -> Result<(), FieldError> {
    const KEYS: [&str; 7] = [
        "clock_mhz",
        "power_mw",
        "energy_mj",
        "utilization_pct",
        "temperature_c",
        "throttle_reasons",
        "power_limit_mw",
    ];
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    let fields = Fields::of("", &value, &KEYS)?;
    let small = |key: &str| {
        let number = fields.whole(key, 0..=u64::from(u32::MAX))?;
        Ok(number.map(|number| u32::try_from(number).expect("the bound fits")))
    };
    let clock_mhz = small("clock_mhz")?;
    let utilization_pct = small("utilization_pct")?;
    let temperature_c = small("temperature_c")?;
    let texts = fields.texts("throttle_reasons", THROTTLE_REASONS_MAX)?;
    let throttle_reasons = texts.map(|texts| texts.into_iter().map(str::to_owned).collect());
    reading.clock_mhz = clock_mhz.or(reading.clock_mhz);
    reading.power_mw = fields.whole("power_mw", 0..=u64::MAX)?.or(reading.power_mw);
    reading.energy_mj = fields.whole("energy_mj", 0..=u64::MAX)?.or(reading.energy_mj);
    reading.utilization_pct = utilization_pct.or(reading.utilization_pct);
    reading.temperature_c = temperature_c.or(reading.temperature_c);
    reading.throttle_reasons = throttle_reasons.or_else(|| reading.throttle_reasons.take());
    reading.power_limit_mw = fields
        .whole("power_limit_mw", 0..=u64::MAX)?
        .or(reading.power_limit_mw);
    Ok(())
}
