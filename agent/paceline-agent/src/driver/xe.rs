//! The `xe` driver: Intel's cards through the files of their kernel driver. The clock is held down by `max_freq` of every
//! GT (the kernel rounds it to the hardware's 50/3 MHz), the power limit is hwmon's `power1_max`.

use std::path::Path;
use std::sync::Arc;

use super::DriverError;
use super::steps::{found_power_limit_mw, power_steps};
use super::sysfs::{Sysfs, shared};
use crate::device::{Baseline, ControlName, Device, DeviceError, DeviceId, DeviceInfo, Reading};

const STEP_MHZ: u32 = 50;

/// hwmon names no lowest limit; a share that no card falls below in use.
const LOWEST_POWER_SHARE: u32 = 4;

pub struct XeDevice {
    info: DeviceInfo,
    sysfs: Arc<Sysfs>,
    directory: String,
    hwmon: Option<String>,
    /// `tile0/gt0/freq0` …; the first is the one that computes.
    gts: Vec<Gt>,
}

struct Gt {
    name: String,
    lowest_mhz: u32,
    highest_mhz: u32,
}

pub fn open(root: &Path) -> Result<Vec<Arc<dyn Device>>, DriverError> {
    open_at(&Arc::new(Sysfs::at(root))).map(shared)
}

pub fn open_at(sysfs: &Arc<Sysfs>) -> Result<Vec<XeDevice>, DriverError> {
    let cards = sysfs.cards("xe")?;
    Ok(cards.into_iter().map(|card| XeDevice::new(sysfs, card)).collect())
}

impl XeDevice {
    fn new(sysfs: &Arc<Sysfs>, directory: String) -> Self {
        let slot = sysfs.uevent(&directory, "PCI_SLOT_NAME");
        let gts = find_gts(sysfs, &directory);
        let hwmon = sysfs.hwmon(&directory);
        let in_force_mhz = gts.first().and_then(|gt| {
            let mhz = sysfs.number(&format!("{directory}/{}/max_freq", gt.name))?;
            u32::try_from(mhz).ok()
        });
        let clocks_mhz = match (gts.first(), in_force_mhz) {
            (Some(gt), Some(in_force_mhz)) => {
                let below = gt.lowest_mhz.next_multiple_of(STEP_MHZ)..in_force_mhz;
                let mut steps: Vec<u32> = below.step_by(STEP_MHZ as usize).collect();
                steps.push(in_force_mhz);
                steps
            }
            _ => Vec::new(),
        };
        let limit_uw = hwmon
            .as_ref()
            .and_then(|hwmon| sysfs.number(&format!("{hwmon}/power1_max")));
        let limit_mw = limit_uw
            .and_then(|uw| u32::try_from(uw / 1_000).ok())
            .filter(|mw| *mw > 0);
        let info = DeviceInfo {
            id: DeviceId(format!("xe:{}", slot.unwrap_or_else(|| directory.clone()))),
            driver: "xe",
            name: None,
            uuid: None,
            clocks_mhz,
            power_limits_mw: limit_mw
                .map(|mw| power_steps(mw / LOWEST_POWER_SHARE, mw))
                .unwrap_or_default(),
            power_limit_mw: limit_mw.map(u64::from),
        };
        Self {
            info,
            sysfs: Arc::clone(sysfs),
            directory,
            hwmon,
            gts,
        }
    }

    fn file(&self, gt: &Gt, name: &str) -> String {
        format!("{}/{}/{name}", self.directory, gt.name)
    }

    fn of_first(&self, name: &str) -> Option<u32> {
        let number = self.sysfs.number(&self.file(self.gts.first()?, name))?;
        u32::try_from(number).ok()
    }

    fn sensor(&self, name: &str) -> Option<u64> {
        let hwmon = self.hwmon.as_ref()?;
        self.sysfs.number(&format!("{hwmon}/{name}"))
    }

    fn limit_power(&self, limit_mw: u32) -> Result<(), DeviceError> {
        let file = self.hwmon.as_ref().map(|hwmon| format!("{hwmon}/power1_max"));
        self.sysfs.limit_power(file, limit_mw)
    }

    /// The clock's baseline: `tile0/gt0/freq0=2000 …`.
    fn found_clocks(&self, baseline: &Baseline) -> Result<Vec<(&Gt, u32)>, DeviceError> {
        let wrong = || {
            DeviceError(format!(
                "the journal says {:?}, wanted GT=MHZ of each GT",
                baseline.0
            ))
        };
        let found = baseline.0.split(' ').map(|pair| {
            let (name, mhz) = pair.split_once('=').ok_or_else(wrong)?;
            let gt = self.gts.iter().find(|gt| gt.name == name).ok_or_else(wrong)?;
            Ok((gt, mhz.parse().map_err(|_| wrong())?))
        });
        found.collect()
    }

    /// As this driver words them.
    fn throttle_reasons(&self) -> Option<Vec<String>> {
        let directory = self.file(self.gts.first()?, "throttle");
        self.sysfs.number(&format!("{directory}/status"))?;
        let reasons = self.sysfs.names(&directory, "reason_").into_iter();
        let in_force =
            reasons.filter(|reason| self.sysfs.number(&format!("{directory}/{reason}")) == Some(1));
        Some(
            in_force
                .map(|reason| reason["reason_".len()..].to_owned())
                .collect(),
        )
    }
}

fn find_gts(sysfs: &Sysfs, directory: &str) -> Vec<Gt> {
    let mut gts = Vec::new();
    for tile in sysfs.names(directory, "tile") {
        for gt in sysfs.names(&format!("{directory}/{tile}"), "gt") {
            let name = format!("{tile}/{gt}/freq0");
            let mhz = |file: &str| {
                let number = sysfs.number(&format!("{directory}/{name}/{file}"))?;
                u32::try_from(number).ok()
            };
            if let (Some(lowest_mhz), Some(highest_mhz)) = (mhz("rpn_freq"), mhz("rp0_freq")) {
                gts.push(Gt {
                    name,
                    lowest_mhz,
                    highest_mhz,
                });
            }
        }
    }
    gts
}

impl Device for XeDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn baseline(&self, control: ControlName) -> Result<Baseline, DeviceError> {
        match control {
            ControlName::Clock => {
                let found = self.gts.iter().map(|gt| {
                    let mhz = self.sysfs.read(&self.file(gt, "max_freq"))?;
                    Ok(format!("{}={mhz}", gt.name))
                });
                let found: Vec<String> = found.collect::<Result<_, DeviceError>>()?;
                Ok(Baseline(found.join(" ")))
            }
            ControlName::PowerLimit => {
                let limit_uw = self
                    .sensor("power1_max")
                    .ok_or_else(|| DeviceError::lacks(control))?;
                Ok(Baseline((limit_uw / 1_000).to_string()))
            }
        }
    }

    fn limit(&self, control: ControlName, value: u32, baseline: &Baseline) -> Result<(), DeviceError> {
        match control {
            ControlName::Clock => {
                // A GT of another range (media) is held as near to it as it goes.
                for (gt, found_mhz) in self.found_clocks(baseline)? {
                    let mhz = value.clamp(gt.lowest_mhz, gt.highest_mhz.max(gt.lowest_mhz));
                    let mhz = mhz.min(found_mhz);
                    self.sysfs.write(&self.file(gt, "max_freq"), &mhz.to_string())?;
                }
                Ok(())
            }
            ControlName::PowerLimit => self.limit_power(value.min(found_power_limit_mw(baseline)?)),
        }
    }

    fn restore(&self, control: ControlName, baseline: &Baseline) -> Result<(), DeviceError> {
        match control {
            ControlName::Clock => {
                let found = self.found_clocks(baseline)?.into_iter();
                self.sysfs
                    .write_each(found.map(|(gt, mhz)| (self.file(gt, "max_freq"), mhz.to_string())))
            }
            ControlName::PowerLimit => self.limit_power(found_power_limit_mw(baseline)?),
        }
    }

    fn read(&self) -> Result<Reading, DeviceError> {
        self.sysfs.read(&format!("{}/uevent", self.directory))?;
        Ok(Reading {
            clock_mhz: self.of_first("act_freq"),
            power_mw: None,
            energy_mj: self.sensor("energy1_input").map(|uj| uj / 1_000),
            energy_age_ms: None,
            utilization_pct: None,
            temperature_c: None,
            throttle_reasons: self.throttle_reasons(),
            clock_limit_mhz: self.of_first("max_freq"),
            power_limit_mw: self.sensor("power1_max").map(|uw| uw / 1_000),
        })
    }

    fn default_baseline(&self, control: ControlName) -> Option<Baseline> {
        match control {
            ControlName::Clock => {
                let highest = self
                    .gts
                    .iter()
                    .map(|gt| format!("{}={}", gt.name, gt.highest_mhz));
                let highest: Vec<String> = highest.collect();
                (!highest.is_empty()).then(|| Baseline(highest.join(" ")))
            }
            ControlName::PowerLimit => {
                let limit_uw = self.sensor("power1_rated_max")?;
                Some(Baseline((limit_uw / 1_000).to_string()))
            }
        }
    }
}
