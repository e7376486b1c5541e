//! One device as the rest of the agent sees it. What it is made of (NVML, sysfs, a command) is the driver's business.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `{driver}:{stable id}`, the name under which clients and the journal know a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub String);

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What of a device can be held down. For both, more is faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlName {
    /// In MHz.
    Clock,
    /// In mW.
    PowerLimit,
}

impl ControlName {
    pub const ALL: [ControlName; 2] = [ControlName::Clock, ControlName::PowerLimit];

    /// Its name in requests, answers, policies and journals.
    pub fn as_str(self) -> &'static str {
        match self {
            ControlName::Clock => "clock",
            ControlName::PowerLimit => "power_limit",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        ControlName::ALL
            .into_iter()
            .find(|control| control.as_str() == text)
    }
}

impl fmt::Display for ControlName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[derive(Clone, Debug)]
pub struct DeviceInfo {
    pub id: DeviceId,
    pub driver: &'static str,
    pub name: Option<String>,
    pub uuid: Option<String>,
    /// Steps of the clock: ascending, the last one is what the device runs at when nobody holds it down.
    /// Empty where its clock cannot be set.
    pub clocks_mhz: Vec<u32>,
    /// Steps of the power limit, likewise: the last one is the limit that the agent found.
    pub power_limits_mw: Vec<u32>,
    /// What the device may draw when nobody holds it down, where it says so.
    pub power_limit_mw: Option<u64>,
}

impl DeviceInfo {
    /// Ascending; empty where the device lacks the control.
    pub fn steps(&self, control: ControlName) -> &[u32] {
        match control {
            ControlName::Clock => &self.clocks_mhz,
            ControlName::PowerLimit => &self.power_limits_mw,
        }
    }

    /// What of it can be set.
    pub fn controls(&self) -> impl Iterator<Item = ControlName> + Clone + '_ {
        ControlName::ALL.into_iter().filter(|&control| self.has(control))
    }

    pub fn has(&self, control: ControlName) -> bool {
        !self.steps(control).is_empty()
    }
}

/// One batched read. `None` is "the device cannot tell", which is not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub clock_mhz: Option<u32>,
    pub power_mw: Option<u64>,
    pub energy_mj: Option<u64>,
    /// How long ago the energy counter last ticked, where the device says so itself.
    pub energy_age_ms: Option<u64>,
    pub utilization_pct: Option<u32>,
    pub temperature_c: Option<u32>,
    pub throttle_reasons: Option<Vec<String>>,
    /// What the clock is held at or below, by whomever. NVML has no getter for it.
    pub clock_limit_mhz: Option<u32>,
    /// The power limit in force, by whomever it was set.
    pub power_limit_mw: Option<u64>,
}

/// What a control said before the agent's first write, in the driver's own words, so that another process of the same
/// driver can put it back. Where a control has no getter these words say "reset".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Baseline(pub String);

/// The operation that failed and what the driver said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError(pub String);

impl DeviceError {
    pub fn new(wrong: impl Into<String>) -> Self {
        Self(wrong.into())
    }

    /// What a driver answers for a control that its `info` does not offer.
    pub fn lacks(control: ControlName) -> Self {
        Self(format!("this device has no {control} to set"))
    }
}

impl fmt::Display for DeviceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for DeviceError {}

/// Called from the device's own threads (one that sets, one that reads), and any call may hang.
pub trait Device: Send + Sync {
    fn info(&self) -> &DeviceInfo;

    /// What `restore` needs to undo every `limit` that follows. Writes nothing. Asked before the first write.
    fn baseline(&self, control: ControlName) -> Result<Baseline, DeviceError>;

    /// Holds the control at or below `value`, one of its steps, and never above `baseline`. A clock may still fall when
    /// idle.
    fn limit(&self, control: ControlName, value: u32, baseline: &Baseline) -> Result<(), DeviceError>;

    /// Back to what `baseline` said, in this process or in an earlier one. Done twice, it harms nothing.
    fn restore(&self, control: ControlName, baseline: &Baseline) -> Result<(), DeviceError>;

    fn read(&self) -> Result<Reading, DeviceError>;

    /// For a device whose journal cannot be read: the driver's own default. `None` where it has none that is known.
    fn default_baseline(&self, control: ControlName) -> Option<Baseline>;
}
