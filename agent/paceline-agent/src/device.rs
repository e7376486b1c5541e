//! One device as the rest of the agent sees it. What it is made of (NVML, sysfs, a file) is the driver's business.

use std::fmt;

/// `{driver}:{stable id}`, the name under which clients and the journal know a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub String);

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
pub struct DeviceInfo {
    pub id: DeviceId,
    pub driver: &'static str,
    pub name: Option<String>,
    pub uuid: Option<String>,
    /// Ascending and not empty; the last one is what the unlocked device runs at.
    pub clocks_mhz: Vec<u32>,
    pub power_limit_mw: Option<u64>,
}

impl DeviceInfo {
    pub fn default_clock_mhz(&self) -> u32 {
        *self
            .clocks_mhz
            .last()
            .expect("drivers refuse a device without clocks")
    }

    pub fn lowest_clock_mhz(&self) -> u32 {
        *self
            .clocks_mhz
            .first()
            .expect("drivers refuse a device without clocks")
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
}

/// The operation that failed and what the driver said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError(pub String);

impl fmt::Display for DeviceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for DeviceError {}

/// Called from the device's own threads (one that sets, one that reads), and any call may hang.
pub trait Device: Send + Sync {
    fn info(&self) -> &DeviceInfo;
    /// Holds the clock at or below `ceiling_mhz`, a step of the device. It may still fall when idle.
    fn limit_clock(&self, ceiling_mhz: u32) -> Result<(), DeviceError>;
    /// Back to default clocks.
    fn reset_clock(&self) -> Result<(), DeviceError>;
    fn read(&self) -> Result<Reading, DeviceError>;
}
