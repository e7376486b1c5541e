//! The driver's side of one emulated device: commands out, telemetry in.

use std::path::{Path, PathBuf};

use crate::block::{self, COMMAND, TELEMETRY, u32_at, u64_at};
use crate::{Description, EmulatedDeviceError, description, monotonic_ns};

/// What drivers ask of the device. A clock of 0 is "not locked", a limit of 0 "the default".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    pub lock_min_mhz: u32,
    pub lock_max_mhz: u32,
    pub power_limit_mw: u32,
    pub writer_pid: u32,
    pub written_at_ns: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    pub clock_mhz: u32,
    pub power_mw: u32,
    pub energy_mj: u64,
    pub energy_at_ns: u64,
    pub utilization_pct: u32,
    pub temperature_c: u32,
    /// NVML's bits.
    pub throttle_reasons: u64,
}

/// One device of the directory. Cheap to share; every access opens the file anew.
#[derive(Clone, Debug)]
pub struct EmulatedDevice {
    index: u32,
    description: Description,
    state_path: PathBuf,
}

impl EmulatedDevice {
    pub fn open(directory: &Path, index: u32) -> Result<Self, EmulatedDeviceError> {
        let description = description::read(&directory.join(format!("{index}.json")))?;
        let state_path = directory.join(format!("{index}.state"));
        block::open(&state_path, false)?;
        Ok(Self {
            index,
            description,
            state_path,
        })
    }

    pub fn index(&self) -> u32 {
        self.index
    }

    pub fn description(&self) -> &Description {
        &self.description
    }

    pub fn command(&self) -> Result<Command, EmulatedDeviceError> {
        let file = block::open(&self.state_path, false)?;
        let bytes = block::read(&file, &self.state_path, COMMAND)?;
        Ok(command_of(&bytes))
    }

    /// What `command` and `telemetry` say, at the cost of one of them.
    pub fn state(&self) -> Result<(Command, Option<Telemetry>), EmulatedDeviceError> {
        let (command, telemetry) = block::read_both(&self.state_path)?;
        Ok((command_of(&command), telemetry_of(&telemetry)))
    }

    /// Locks the clock between two of its steps; `(0, 0)` unlocks. The power limit stays as it is.
    pub fn lock_clock(&self, min_mhz: u32, max_mhz: u32) -> Result<(), EmulatedDeviceError> {
        self.change_command(|[lock_min_mhz, lock_max_mhz, _]| {
            *lock_min_mhz = min_mhz;
            *lock_max_mhz = max_mhz;
        })
    }

    /// 0 is the default. The clock stays locked as it is.
    pub fn limit_power(&self, limit_mw: u32) -> Result<(), EmulatedDeviceError> {
        self.change_command(|[_, _, power_limit_mw]| *power_limit_mw = limit_mw)
    }

    /// What the block said is kept where `change` leaves it: minimum, maximum, power limit.
    fn change_command(&self, change: impl FnOnce(&mut [u32; 3])) -> Result<(), EmulatedDeviceError> {
        let file = block::open(&self.state_path, true)?;
        let bytes = block::read_torn_or_not(&file, &self.state_path, COMMAND)?;
        let mut told = [8, 12, 16].map(|offset| u32_at(&bytes, offset));
        change(&mut told);
        let mut body = Vec::with_capacity(24);
        for number in told {
            body.extend_from_slice(&number.to_le_bytes());
        }
        body.extend_from_slice(&std::process::id().to_le_bytes());
        body.extend_from_slice(&monotonic_ns().to_le_bytes());
        block::write(&file, &self.state_path, COMMAND, &body)
    }

    /// `None` until the emulator has written once.
    pub fn telemetry(&self) -> Result<Option<Telemetry>, EmulatedDeviceError> {
        let file = block::open(&self.state_path, false)?;
        let bytes = block::read(&file, &self.state_path, TELEMETRY)?;
        Ok(telemetry_of(&bytes))
    }
}

fn command_of(bytes: &[u8]) -> Command {
    Command {
        lock_min_mhz: u32_at(bytes, 8),
        lock_max_mhz: u32_at(bytes, 12),
        power_limit_mw: u32_at(bytes, 16),
        writer_pid: u32_at(bytes, 20),
        written_at_ns: u64_at(bytes, 24),
    }
}

fn telemetry_of(bytes: &[u8]) -> Option<Telemetry> {
    let is_written = block::head(bytes) != 0;
    is_written.then(|| Telemetry {
        clock_mhz: u32_at(bytes, 8),
        power_mw: u32_at(bytes, 12),
        energy_mj: u64_at(bytes, 16),
        energy_at_ns: u64_at(bytes, 24),
        utilization_pct: u32_at(bytes, 32),
        temperature_c: u32_at(bytes, 36),
        throttle_reasons: u64_at(bytes, 40),
    })
}

/// The devices of a directory, in the order of their numbers. Files with other names are not ours and are passed over.
pub fn list(directory: &Path) -> Result<Vec<EmulatedDevice>, EmulatedDeviceError> {
    let entries =
        std::fs::read_dir(directory).map_err(|source| EmulatedDeviceError::io(directory, "list", source))?;
    let mut indexes = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| EmulatedDeviceError::io(directory, "list", source))?;
        let name = entry.file_name();
        let index = name
            .to_str()
            .and_then(|name| name.strip_suffix(".state"))
            .and_then(|digits| digits.parse::<u32>().ok());
        indexes.extend(index);
    }
    indexes.sort_unstable();
    indexes
        .into_iter()
        .map(|index| EmulatedDevice::open(directory, index))
        .collect()
}
