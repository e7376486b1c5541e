//! The journal: which devices this agent may have left lowered. A device is in it before its first write and until it
//! is known to be at default again, so whoever finds it after a crash knows what to restore.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::device::DeviceId;
use crate::state_dir::StateDir;

const FILE: &str = "journal.json";
const FORMAT: &str = "paceline-agent-journal/1";

pub struct Journal {
    directory: StateDir,
    boot_id: String,
    touched: Mutex<BTreeSet<DeviceId>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalFile {
    format: String,
    /// A lock does not survive a reboot: entries of an earlier boot whose device is gone may be dropped.
    boot_id: String,
    devices: Vec<String>,
}

/// What an earlier process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Touched {
        devices: BTreeSet<DeviceId>,
        same_boot: bool,
    },
    /// Unreadable, so every device may be lowered.
    Damaged { why: String },
}

pub fn find(directory: &StateDir) -> Found {
    let text = match directory.read(FILE) {
        Ok(Some(text)) => text,
        Ok(None) => {
            return Found::Touched {
                devices: BTreeSet::new(),
                same_boot: true,
            };
        }
        Err(wrong) => {
            return Found::Damaged {
                why: wrong.to_string(),
            };
        }
    };
    match serde_json::from_str::<JournalFile>(&text) {
        Ok(file) if file.format == FORMAT => Found::Touched {
            devices: file.devices.into_iter().map(DeviceId).collect(),
            same_boot: file.boot_id == boot_id(),
        },
        Ok(file) => Found::Damaged {
            why: format!("format: got {:?}, wanted {FORMAT:?}", file.format),
        },
        Err(wrong) => Found::Damaged {
            why: wrong.to_string(),
        },
    }
}

impl Journal {
    pub fn new(directory: StateDir, touched: BTreeSet<DeviceId>) -> Self {
        Self {
            directory,
            boot_id: boot_id(),
            touched: Mutex::new(touched),
        }
    }

    /// Must have returned `Ok` before the device's first write.
    pub fn touch(&self, device: &DeviceId) -> io::Result<()> {
        self.change(|touched| touched.insert(device.clone()))
    }

    /// Only once the device is known to be at default.
    pub fn forget(&self, device: &DeviceId) -> io::Result<()> {
        self.change(|touched| touched.remove(device))
    }

    /// Writes what is remembered now, changed or not: what was found may have been damaged.
    pub fn rewrite(&self) -> io::Result<()> {
        self.change(|_| true)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<DeviceId>) -> bool) -> io::Result<()> {
        // A poisoned set is still a set of names; refusing to journal would refuse to restore.
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = touched.clone();
        if !change(&mut changed) {
            return Ok(());
        }
        let file = JournalFile {
            format: FORMAT.to_owned(),
            boot_id: self.boot_id.clone(),
            devices: changed.iter().map(|device| device.0.clone()).collect(),
        };
        let text = serde_json::to_string(&file).expect("a journal has only strings");
        self.directory.write(FILE, &text)?;
        *touched = changed;
        Ok(())
    }
}

fn boot_id() -> String {
    // Without /proc every start looks like the same boot, which only keeps an entry longer.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
