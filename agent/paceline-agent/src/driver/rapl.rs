//! The `rapl` driver: CPU packages. Energy and power limit are powercap's `intel-rapl` (AMD's too goes by that name), the
//! clock is the `scaling_max_freq` of every cpufreq policy of the package.

mod counter;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::DriverError;
use super::steps::{found_power_limit_mw, power_steps};
use super::sysfs::{Sysfs, shared};
use crate::device::{Baseline, ControlName, Device, DeviceError, DeviceId, DeviceInfo, Reading};
use counter::WrappingCounter;

const POWERCAP: &str = "class/powercap";
const CPUFREQ: &str = "devices/system/cpu/cpufreq";

const STEP_KHZ: u64 = 100_000;

/// powercap names no lowest limit; below this share of what is in force a package barely computes.
const LOWEST_POWER_SHARE: u32 = 4;

/// More than any kernel has; a bound for the search.
const CONSTRAINTS_MAX: usize = 8;

pub struct RaplDevice {
    info: DeviceInfo,
    sysfs: Arc<Sysfs>,
    /// `class/powercap/intel-rapl:0`.
    zone: String,
    /// The file of the long-term limit, where there is one.
    limit_file: Option<String>,
    /// `devices/system/cpu/cpufreq/policy0` …
    policies: Vec<String>,
    energy: Mutex<WrappingCounter>,
}

pub fn open(root: &Path) -> Result<Vec<Arc<dyn Device>>, DriverError> {
    open_at(&Arc::new(Sysfs::at(root))).map(shared)
}

pub fn open_at(sysfs: &Arc<Sysfs>) -> Result<Vec<RaplDevice>, DriverError> {
    let zones = sysfs.names(POWERCAP, "intel-rapl:").into_iter();
    // Sub-zones (`intel-rapl:0:0`, core, dram) have a colon more.
    let zones = zones.filter(|zone| zone.matches(':').count() == 1);
    let packages = zones.filter_map(|zone| {
        let zone = format!("{POWERCAP}/{zone}");
        let name = sysfs.read(&format!("{zone}/name")).ok()?;
        let package = name.strip_prefix("package-")?.parse().ok()?;
        Some(RaplDevice::new(sysfs, zone, package))
    });
    let packages: Vec<RaplDevice> = packages.collect();
    if packages.is_empty() {
        let root = sysfs.root().display();
        return Err(DriverError(format!(
            "{root}/{POWERCAP}: no intel-rapl zone of a CPU package; is the module intel_rapl_msr loaded?"
        )));
    }
    Ok(packages)
}

impl RaplDevice {
    fn new(sysfs: &Arc<Sysfs>, zone: String, package: u32) -> Self {
        let limit_file = long_term_limit(sysfs, &zone);
        let limit_mw = limit_file.as_ref().and_then(|file| milli(sysfs.number(file)?));
        let limit_mw = limit_mw.filter(|mw| *mw > 0);
        let policies = policies_of(sysfs, package);
        let range_uj = sysfs.number(&format!("{zone}/max_energy_range_uj"));
        let info = DeviceInfo {
            id: DeviceId(format!("rapl:{package}")),
            driver: "rapl",
            name: sysfs.read(&format!("{zone}/name")).ok(),
            uuid: None,
            clocks_mhz: clocks(sysfs, &policies),
            power_limits_mw: limit_mw
                .map(|mw| power_steps(mw / LOWEST_POWER_SHARE, mw))
                .unwrap_or_default(),
            power_limit_mw: limit_mw.map(u64::from),
        };
        Self {
            info,
            sysfs: Arc::clone(sysfs),
            zone,
            limit_file,
            policies,
            energy: Mutex::new(WrappingCounter::new(range_uj)),
        }
    }

    fn max_freq_file(policy: &str) -> String {
        format!("{policy}/scaling_max_freq")
    }

    fn limit_power(&self, limit_mw: u32) -> Result<(), DeviceError> {
        self.sysfs.limit_power(self.limit_file.clone(), limit_mw)
    }

    /// The clock's baseline: `policy0=3600000 …` in kHz.
    fn found_clocks(&self, baseline: &Baseline) -> Result<Vec<(&str, u64)>, DeviceError> {
        let wrong = || {
            DeviceError(format!(
                "the journal says {:?}, wanted POLICY=KHZ of each policy",
                baseline.0
            ))
        };
        let found = baseline.0.split(' ').map(|pair| {
            let (name, khz) = pair.split_once('=').ok_or_else(wrong)?;
            let mut known = self.policies.iter();
            let policy = known
                .find(|policy| policy.ends_with(&format!("/{name}")))
                .ok_or_else(wrong)?;
            Ok((policy.as_str(), khz.parse().map_err(|_| wrong())?))
        });
        found.collect()
    }

    /// Over all policies, as one says it the other way round too: the highest clock, the highest limit.
    fn highest_khz(&self, file: &str) -> Option<u64> {
        let khz = self
            .policies
            .iter()
            .map(|policy| self.sysfs.number(&format!("{policy}/{file}")));
        khz.flatten().max()
    }
}

/// `constraint_N_power_limit_uw` whose name is `long_term`.
fn long_term_limit(sysfs: &Sysfs, zone: &str) -> Option<String> {
    let mut numbers = 0..CONSTRAINTS_MAX;
    let number = numbers.find(|number| {
        let name = sysfs.read(&format!("{zone}/constraint_{number}_name"));
        name.is_ok_and(|name| name == "long_term")
    })?;
    Some(format!("{zone}/constraint_{number}_power_limit_uw"))
}

/// Those whose first CPU is of the package: a policy does not reach over two.
fn policies_of(sysfs: &Sysfs, package: u32) -> Vec<String> {
    let policies = sysfs.names(CPUFREQ, "policy").into_iter();
    let policies = policies.map(|name| format!("{CPUFREQ}/{name}"));
    let of_package = policies.filter(|policy| {
        let cpus = sysfs.read(&format!("{policy}/related_cpus")).unwrap_or_default();
        let first = cpus.split([' ', ',', '-']).next().unwrap_or_default();
        let topology = format!("devices/system/cpu/cpu{first}/topology/physical_package_id");
        sysfs.number(&topology) == Some(u64::from(package))
    });
    of_package.collect()
}

/// From the slowest clock to the limit in force, of the first policy: those of one package are alike.
fn clocks(sysfs: &Sysfs, policies: &[String]) -> Vec<u32> {
    let Some(policy) = policies.first() else {
        return Vec::new();
    };
    let khz = |file: &str| sysfs.number(&format!("{policy}/{file}"));
    let (Some(lowest), Some(in_force)) = (khz("cpuinfo_min_freq"), khz("scaling_max_freq")) else {
        return Vec::new();
    };
    let listed = sysfs.read(&format!("{policy}/scaling_available_frequencies"));
    let mut steps: Vec<u64> = match listed {
        Ok(text) => text
            .split_whitespace()
            .filter_map(|khz| khz.parse().ok())
            .collect(),
        Err(_) => (lowest.next_multiple_of(STEP_KHZ)..in_force)
            .step_by(STEP_KHZ as usize)
            .collect(),
    };
    steps.retain(|&khz| khz < in_force && khz >= lowest);
    steps.push(in_force);
    steps.sort_unstable();
    let mut mhz: Vec<u32> = steps
        .into_iter()
        .filter_map(|khz| u32::try_from(khz / 1_000).ok())
        .collect();
    mhz.dedup();
    mhz
}

impl Device for RaplDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn baseline(&self, control: ControlName) -> Result<Baseline, DeviceError> {
        match control {
            ControlName::Clock => {
                let found = self.policies.iter().map(|policy| {
                    let khz = self.sysfs.read(&Self::max_freq_file(policy))?;
                    let name = policy.rsplit('/').next().unwrap_or(policy);
                    Ok(format!("{name}={khz}"))
                });
                let found: Vec<String> = found.collect::<Result<_, DeviceError>>()?;
                Ok(Baseline(found.join(" ")))
            }
            ControlName::PowerLimit => {
                let file = self
                    .limit_file
                    .as_ref()
                    .ok_or_else(|| DeviceError::lacks(control))?;
                let limit_uw = self
                    .sysfs
                    .number(file)
                    .ok_or_else(|| DeviceError::lacks(control))?;
                Ok(Baseline((limit_uw / 1_000).to_string()))
            }
        }
    }

    fn limit(&self, control: ControlName, value: u32, baseline: &Baseline) -> Result<(), DeviceError> {
        match control {
            ControlName::Clock => {
                for (policy, found_khz) in self.found_clocks(baseline)? {
                    let khz = (u64::from(value) * 1_000).min(found_khz);
                    self.sysfs.write(&Self::max_freq_file(policy), &khz.to_string())?;
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
                    .write_each(found.map(|(policy, khz)| (Self::max_freq_file(policy), khz.to_string())))
            }
            ControlName::PowerLimit => self.limit_power(found_power_limit_mw(baseline)?),
        }
    }

    fn read(&self) -> Result<Reading, DeviceError> {
        let energy_uj = self.sysfs.number(&format!("{}/energy_uj", self.zone));
        let mut energy = self.energy.lock().unwrap_or_else(PoisonError::into_inner);
        let mhz = |khz: u64| u32::try_from(khz / 1_000).ok();
        let limit_uw = self.limit_file.as_ref().and_then(|file| self.sysfs.number(file));
        Ok(Reading {
            clock_mhz: self.highest_khz("scaling_cur_freq").and_then(mhz),
            energy_mj: energy_uj.map(|uj| energy.total(uj) / 1_000),
            clock_limit_mhz: self.highest_khz("scaling_max_freq").and_then(mhz),
            power_limit_mw: limit_uw.map(|uw| uw / 1_000),
            ..Reading::default()
        })
    }

    fn default_baseline(&self, control: ControlName) -> Option<Baseline> {
        match control {
            ControlName::Clock => {
                let highest = self.policies.iter().map(|policy| {
                    let khz = self.sysfs.number(&format!("{policy}/cpuinfo_max_freq"))?;
                    Some(format!("{}={khz}", policy.rsplit('/').next()?))
                });
                let highest: Vec<String> = highest.collect::<Option<_>>()?;
                (!highest.is_empty()).then(|| Baseline(highest.join(" ")))
            }
            ControlName::PowerLimit => {
                let highest = self
                    .limit_file
                    .as_ref()?
                    .replace("_power_limit_uw", "_max_power_uw");
                let limit_mw = milli(self.sysfs.number(&highest)?).filter(|mw| *mw > 0)?;
                Some(Baseline(limit_mw.to_string()))
            }
        }
    }
}

fn milli(micro: u64) -> Option<u32> {
    u32::try_from(micro / 1_000).ok()
}
