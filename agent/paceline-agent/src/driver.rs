//! Finds the devices of the chosen drivers. The list is made once, at start.

mod amdgpu;
#[cfg(test)]
mod conformance;
mod exec;
mod nvml;
mod nvml_library;
mod rapl;
mod sim;
mod steps;
mod sysfs;
mod throttle;
mod xe;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::device::Device;

/// Which driver, and what it needs.
#[derive(Clone, Debug)]
pub enum DriverChoice {
    Sim { directory: PathBuf },
    Nvml { library: PathBuf },
    Amdgpu { sysfs: PathBuf },
    Xe { sysfs: PathBuf },
    Rapl { sysfs: PathBuf },
    Exec { config: PathBuf },
}

#[derive(Debug)]
pub struct DriverError(pub String);

impl fmt::Display for DriverError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for DriverError {}

/// The devices of all of them, in this order. A driver that was asked for and has none is an error: an agent without
/// devices has nothing to serve, and its operator should hear so.
pub fn open_all(choices: &[DriverChoice]) -> Result<Vec<Arc<dyn Device>>, DriverError> {
    let mut devices = Vec::new();
    for choice in choices {
        devices.extend(open(choice)?);
    }
    Ok(devices)
}

fn open(choice: &DriverChoice) -> Result<Vec<Arc<dyn Device>>, DriverError> {
    match choice {
        DriverChoice::Sim { directory } => sim::open(directory),
        DriverChoice::Nvml { library } => nvml::open(library),
        DriverChoice::Amdgpu { sysfs } => amdgpu::open(sysfs),
        DriverChoice::Xe { sysfs } => xe::open(sysfs),
        DriverChoice::Rapl { sysfs } => rapl::open(sysfs),
        DriverChoice::Exec { config } => exec::open(config),
    }
}
