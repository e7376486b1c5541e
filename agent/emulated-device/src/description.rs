//! `n.json`: what the device is. Written once by the emulator, so it is read once and kept.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::EmulatedDeviceError;

/// A description is a list of a few hundred clocks; a megabyte is somebody else's file.
const DESCRIPTION_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub uuid: String,
    pub name: String,
    /// Ascending and not empty. The unlocked device runs at the last one.
    pub clocks_mhz: Vec<u32>,
    pub default_power_limit_mw: u32,
}

impl Description {
    pub fn lowest_clock_mhz(&self) -> u32 {
        *self.clocks_mhz.first().expect("checked when read")
    }

    pub fn default_clock_mhz(&self) -> u32 {
        *self.clocks_mhz.last().expect("checked when read")
    }
}

pub(crate) fn read(path: &Path) -> Result<Description, EmulatedDeviceError> {
    let file = File::open(path).map_err(|source| EmulatedDeviceError::io(path, "open", source))?;
    let mut text = String::new();
    file.take(DESCRIPTION_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|source| EmulatedDeviceError::io(path, "read", source))?;
    let description: Description =
        serde_json::from_str(&text).map_err(|wrong| EmulatedDeviceError::shape(path, wrong))?;
    check(path, &description)?;
    Ok(description)
}

fn check(path: &Path, description: &Description) -> Result<(), EmulatedDeviceError> {
    let clocks = &description.clocks_mhz;
    if clocks.is_empty() || clocks[0] == 0 {
        return Err(EmulatedDeviceError::shape(
            path,
            "clocks_mhz: wanted at least one clock above 0",
        ));
    }
    if !clocks.windows(2).all(|pair| pair[0] < pair[1]) {
        return Err(EmulatedDeviceError::shape(
            path,
            "clocks_mhz: wanted ascending clocks, none twice",
        ));
    }
    Ok(())
}
