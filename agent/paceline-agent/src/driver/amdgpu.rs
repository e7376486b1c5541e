//! The `amdgpu` driver: AMD's cards through the files of their kernel driver (Documentation/gpu/amdgpu/thermal.rst).
//! The clock is held down by the upper limit of `pp_od_clk_voltage` where overdrive is on, else by a mask of the levels
//! of `pp_dpm_sclk`; both want the performance level `manual` first. The power limit is hwmon's `power1_cap`.

use std::path::Path;
use std::sync::Arc;

use super::DriverError;
use super::steps::{found_power_limit_mw, power_steps};
use super::sysfs::{Sysfs, shared};
use crate::device::{Baseline, ControlName, Device, DeviceError, DeviceId, DeviceInfo, Reading};

const LEVEL: &str = "power_dpm_force_performance_level";
const LEVELS: &str = "pp_dpm_sclk";
const OVERDRIVE: &str = "pp_od_clk_voltage";

/// Between two ceilings of a range that the card takes at any MHz.
const OVERDRIVE_STEP_MHZ: u32 = 25;

pub struct AmdgpuDevice {
    info: DeviceInfo,
    sysfs: Arc<Sysfs>,
    directory: String,
    hwmon: Option<String>,
    clock: ClockBy,
}

#[derive(Debug, PartialEq, Eq)]
enum ClockBy {
    /// The highest clock that can be set at all.
    Overdrive,
    /// The clock of each level, as the file numbers them.
    Mask {
        levels_mhz: Vec<u32>,
    },
    Nothing,
}

pub fn open(root: &Path) -> Result<Vec<Arc<dyn Device>>, DriverError> {
    open_at(&Arc::new(Sysfs::at(root))).map(shared)
}

pub fn open_at(sysfs: &Arc<Sysfs>) -> Result<Vec<AmdgpuDevice>, DriverError> {
    let cards = sysfs.cards("amdgpu")?;
    Ok(cards
        .into_iter()
        .map(|card| AmdgpuDevice::new(sysfs, card))
        .collect())
}

impl AmdgpuDevice {
    fn new(sysfs: &Arc<Sysfs>, directory: String) -> Self {
        let file = |name: &str| format!("{directory}/{name}");
        let unique_id = sysfs.read(&file("unique_id")).ok().filter(|id| !id.is_empty());
        let slot = sysfs.uevent(&directory, "PCI_SLOT_NAME");
        let id = unique_id.clone().or(slot).unwrap_or_else(|| directory.clone());
        let hwmon = sysfs.hwmon(&directory);
        let overdrive = sysfs
            .read(&file(OVERDRIVE))
            .ok()
            .and_then(|text| overdrive(&text));
        let levels_mhz = sysfs
            .read(&file(LEVELS))
            .map(|text| levels(&text))
            .unwrap_or_default();
        let has_level = sysfs.exists(&file(LEVEL));
        let (clock, clocks_mhz) = match overdrive {
            Some(range) if has_level => (ClockBy::Overdrive, range.steps()),
            _ if has_level && levels_mhz.len() > 1 => {
                let mut steps = levels_mhz.clone();
                steps.sort_unstable();
                steps.dedup();
                (ClockBy::Mask { levels_mhz }, steps)
            }
            _ => (ClockBy::Nothing, Vec::new()),
        };
        let cap_mw = |name: &str| milli(sysfs.number(&format!("{}/{name}", hwmon.as_ref()?))?);
        let limit_mw = cap_mw("power1_cap");
        let power_limits_mw = match (cap_mw("power1_cap_min"), limit_mw) {
            (lowest_mw, Some(limit_mw)) => power_steps(lowest_mw.unwrap_or(limit_mw / 2), limit_mw),
            _ => Vec::new(),
        };
        let info = DeviceInfo {
            id: DeviceId(format!("amdgpu:{id}")),
            driver: "amdgpu",
            name: sysfs
                .read(&file("product_name"))
                .ok()
                .filter(|name| !name.is_empty()),
            uuid: unique_id,
            clocks_mhz,
            power_limits_mw,
            power_limit_mw: limit_mw.map(u64::from),
        };
        Self {
            info,
            sysfs: Arc::clone(sysfs),
            directory,
            hwmon,
            clock,
        }
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    fn sensor(&self, name: &str) -> Option<u64> {
        let hwmon = self.hwmon.as_ref()?;
        self.sysfs.number(&format!("{hwmon}/{name}"))
    }

    fn overdrive(&self) -> Result<Overdrive, DeviceError> {
        let text = self.sysfs.read(&self.file(OVERDRIVE))?;
        let path = self.file(OVERDRIVE);
        overdrive(&text).ok_or_else(|| DeviceError(format!("{path}: no OD_SCLK and OD_RANGE in it")))
    }

    fn limit_overdrive(&self, highest_mhz: u32) -> Result<(), DeviceError> {
        let path = self.file(OVERDRIVE);
        self.sysfs.write(&path, &format!("s 1 {highest_mhz}"))?;
        self.sysfs.write(&path, "c")
    }

    fn limit_power(&self, limit_mw: u32) -> Result<(), DeviceError> {
        let file = self.hwmon.as_ref().map(|hwmon| format!("{hwmon}/power1_cap"));
        self.sysfs.limit_power(file, limit_mw)
    }

    fn limit_clock(&self, value: u32, baseline: &Baseline) -> Result<(), DeviceError> {
        let found = FoundClock::parse(baseline)?;
        self.sysfs.write(&self.file(LEVEL), "manual")?;
        match &self.clock {
            ClockBy::Overdrive => self.limit_overdrive(value.min(found.highest_mhz.unwrap_or(u32::MAX))),
            ClockBy::Mask { levels_mhz } => {
                let within = levels_mhz.iter().enumerate().filter(|(_, mhz)| **mhz <= value);
                self.sysfs
                    .write(&self.file(LEVELS), &mask(within.map(|(level, _)| level)))
            }
            ClockBy::Nothing => Err(DeviceError::lacks(ControlName::Clock)),
        }
    }

    fn restore_clock(&self, baseline: &Baseline) -> Result<(), DeviceError> {
        let found = FoundClock::parse(baseline)?;
        // Somebody may have set another level meanwhile, and then the kernel takes neither table nor mask.
        self.sysfs.write(&self.file(LEVEL), "manual")?;
        match (&self.clock, found.highest_mhz) {
            (ClockBy::Overdrive, Some(highest_mhz)) => self.limit_overdrive(highest_mhz)?,
            // Which levels a site had masked before us no file tells; all of them is the driver's own default.
            (ClockBy::Mask { levels_mhz }, _) => {
                self.sysfs.write(&self.file(LEVELS), &mask(0..levels_mhz.len()))?;
            }
            _ => return Err(DeviceError::lacks(ControlName::Clock)),
        }
        self.sysfs.write(&self.file(LEVEL), &found.level)
    }
}

/// The clock's baseline: the performance level, and the overdrive's upper limit where that is what is changed.
struct FoundClock {
    level: String,
    highest_mhz: Option<u32>,
}

impl FoundClock {
    fn parse(baseline: &Baseline) -> Result<Self, DeviceError> {
        let mut words = baseline.0.split(' ');
        let wrong = || {
            DeviceError(format!(
                "the journal says {:?}, wanted \"LEVEL [MHZ]\"",
                baseline.0
            ))
        };
        let level = words.next().filter(|level| !level.is_empty()).ok_or_else(wrong)?;
        let highest_mhz = words.next().map(str::parse).transpose().map_err(|_| wrong())?;
        Ok(Self {
            level: level.to_owned(),
            highest_mhz,
        })
    }
}

impl Device for AmdgpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn baseline(&self, control: ControlName) -> Result<Baseline, DeviceError> {
        match control {
            ControlName::Clock => {
                let level = self.sysfs.read(&self.file(LEVEL))?;
                let words = match self.clock {
                    ClockBy::Overdrive => format!("{level} {}", self.overdrive()?.highest_mhz),
                    ClockBy::Mask { .. } | ClockBy::Nothing => level,
                };
                Ok(Baseline(words))
            }
            ControlName::PowerLimit => {
                let limit_mw = self.sensor("power1_cap").and_then(milli);
                let limit_mw = limit_mw.ok_or_else(|| DeviceError::lacks(control))?;
                Ok(Baseline(limit_mw.to_string()))
            }
        }
    }

    fn limit(&self, control: ControlName, value: u32, baseline: &Baseline) -> Result<(), DeviceError> {
        match control {
            ControlName::Clock => self.limit_clock(value, baseline),
            ControlName::PowerLimit => self.limit_power(value.min(found_power_limit_mw(baseline)?)),
        }
    }

    fn restore(&self, control: ControlName, baseline: &Baseline) -> Result<(), DeviceError> {
        match control {
            ControlName::Clock => self.restore_clock(baseline),
            ControlName::PowerLimit => self.limit_power(found_power_limit_mw(baseline)?),
        }
    }

    fn read(&self) -> Result<Reading, DeviceError> {
        // A card that is gone has no directory; one that is there and silent is taciturn.
        self.sysfs.read(&self.file("uevent"))?;
        let clock_hz = self.sensor("freq1_input");
        let power_uw = self
            .sensor("power1_average")
            .or_else(|| self.sensor("power1_input"));
        let limit = match self.clock {
            ClockBy::Overdrive => self.overdrive().ok().map(|range| range.highest_mhz),
            ClockBy::Mask { .. } | ClockBy::Nothing => None,
        };
        let small = |number: u64| u32::try_from(number).ok();
        Ok(Reading {
            clock_mhz: clock_hz.and_then(|hz| small(hz / 1_000_000)),
            power_mw: power_uw.map(|uw| uw / 1_000),
            energy_mj: self.sensor("energy1_input").map(|uj| uj / 1_000),
            energy_age_ms: None,
            utilization_pct: self.sysfs.number(&self.file("gpu_busy_percent")).and_then(small),
            temperature_c: self.sensor("temp1_input").and_then(|mc| small(mc / 1_000)),
            throttle_reasons: None,
            clock_limit_mhz: limit,
            power_limit_mw: self.sensor("power1_cap").map(|uw| uw / 1_000),
        })
    }

    fn default_baseline(&self, control: ControlName) -> Option<Baseline> {
        match control {
            ControlName::Clock => match self.clock {
                ClockBy::Overdrive => {
                    let highest_mhz = self.overdrive().ok()?.range_mhz.1;
                    Some(Baseline(format!("auto {highest_mhz}")))
                }
                ClockBy::Mask { .. } => Some(Baseline("auto".to_owned())),
                ClockBy::Nothing => None,
            },
            ControlName::PowerLimit => {
                let limit_mw = milli(self.sensor("power1_cap_default")?)?;
                Some(Baseline(limit_mw.to_string()))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Overdrive {
    highest_mhz: u32,
    range_mhz: (u32, u32),
}

impl Overdrive {
    /// Up to what is in force now.
    fn steps(self) -> Vec<u32> {
        let step = OVERDRIVE_STEP_MHZ as usize;
        let mut steps: Vec<u32> = (self.range_mhz.0..self.highest_mhz).step_by(step).collect();
        steps.push(self.highest_mhz);
        steps
    }
}

/// `OD_SCLK:` with its levels, `OD_RANGE:` with `SCLK: LOW HIGH`. `None` where either is missing.
fn overdrive(text: &str) -> Option<Overdrive> {
    let mut section = "";
    let mut highest_mhz = None;
    let mut range_mhz = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_suffix(':') {
            section = name;
        } else if section == "OD_SCLK" {
            highest_mhz = line
                .split_once(':')
                .and_then(|(_, clock)| mhz(clock))
                .or(highest_mhz);
        } else if section == "OD_RANGE"
            && let Some(range) = line.strip_prefix("SCLK:")
        {
            let mut ends = range.split_whitespace().filter_map(mhz);
            range_mhz = ends.next().zip(ends.next());
        }
    }
    Some(Overdrive {
        highest_mhz: highest_mhz?,
        range_mhz: range_mhz?,
    })
}

/// `0: 500Mhz`, the one in use with a star.
fn levels(text: &str) -> Vec<u32> {
    let clocks = text.lines().filter_map(|line| line.split_once(':'));
    clocks.filter_map(|(_, clock)| mhz(clock)).collect()
}

fn mhz(text: &str) -> Option<u32> {
    let digits = text.trim().trim_end_matches('*').trim();
    let digits = digits
        .strip_suffix("Mhz")
        .or_else(|| digits.strip_suffix("MHz"))?;
    digits.trim().parse().ok()
}

fn mask(levels: impl Iterator<Item = usize>) -> String {
    let levels: Vec<String> = levels.map(|level| level.to_string()).collect();
    levels.join(" ")
}

fn milli(micro: u64) -> Option<u32> {
    u32::try_from(micro / 1_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_clocks_are_read_as_the_kernel_writes_them() {
        let text = "OD_SCLK:\n0: 500Mhz\n1: 2475Mhz\nOD_MCLK:\n0: 97Mhz\n1: 1000MHz\nOD_RANGE:\nSCLK:     500Mhz       2800Mhz\nMCLK:     674Mhz       1075Mhz";
        let wanted = Overdrive {
            highest_mhz: 2475,
            range_mhz: (500, 2800),
        };
        assert_eq!(overdrive(text), Some(wanted));
        assert_eq!(overdrive("OD_SCLK:\n0: 500Mhz"), None);
        assert_eq!(levels("0: 500Mhz\n1: 800Mhz *\n2: 1700Mhz"), [500, 800, 1700]);
    }
}
