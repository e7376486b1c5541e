//! The journal: which controls this agent may have left lowered, and what undoes that. A control is in it before its
//! first write and until it is known to be at default again, so whoever finds it after a crash knows what to restore.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::device::{Baseline, ControlName, Device, DeviceError, DeviceId};
use crate::state_dir::StateDir;

const FILE: &str = "journal.json";
const FORMAT: &str = "paceline-agent-journal/2";

/// Per device and control, what puts it back.
pub type Entries = BTreeMap<DeviceId, BTreeMap<ControlName, Undo>>;

/// How one control is put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// What the driver found before our first write.
    pub found: Baseline,
    /// Where the policy declares one: back is to hold the control at this, whatever was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<u32>,
}

impl Undo {
    pub fn apply(&self, device: &dyn Device, control: ControlName) -> Result<(), DeviceError> {
        match self.declared {
            Some(value) => device.limit(control, value, &self.found),
            None => device.restore(control, &self.found),
        }
    }
}

/// Where a journal is kept. When `save` returns, a crash of the machine cannot take the text away.
pub trait Disk: Send + Sync {
    fn save(&self, text: &str) -> io::Result<()>;
}

impl Disk for StateDir {
    fn save(&self, text: &str) -> io::Result<()> {
        self.write(FILE, text)
    }
}

pub struct Journal {
    disk: Box<dyn Disk>,
    boot_id: String,
    entries: Mutex<Entries>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JournalFile {
    format: String,
    /// Nothing that the agent sets survives a reboot, so entries of an earlier boot are void.
    boot_id: String,
    devices: BTreeMap<String, BTreeMap<ControlName, Undo>>,
}

/// What an earlier process left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Entries(Entries),
    /// Unreadable, so every device may be lowered.
    Damaged {
        why: String,
    },
}

impl Found {
    pub fn is_empty(&self) -> bool {
        matches!(self, Found::Entries(entries) if entries.is_empty())
    }
}

pub fn find(directory: &StateDir) -> Found {
    match directory.read(FILE) {
        Ok(Some(text)) => parse(&text),
        Ok(None) => Found::Entries(Entries::new()),
        Err(wrong) => Found::Damaged {
            why: wrong.to_string(),
        },
    }
}

pub fn parse(text: &str) -> Found {
    match serde_json::from_str::<JournalFile>(text) {
        Ok(file) if file.format != FORMAT => Found::Damaged {
            why: format!("format: got {:?}, wanted {FORMAT:?}", file.format),
        },
        Ok(file) if file.boot_id != boot_id() && !file.devices.is_empty() => {
            tracing::warn!(
                "what was journaled before the last boot is void: nothing that was set survived it"
            );
            Found::Entries(Entries::new())
        }
        Ok(file) => {
            let devices = file.devices.into_iter();
            Found::Entries(devices.map(|(id, controls)| (DeviceId(id), controls)).collect())
        }
        Err(wrong) => Found::Damaged {
            why: wrong.to_string(),
        },
    }
}

impl Journal {
    pub fn new(disk: impl Disk + 'static, entries: Entries) -> Self {
        Self {
            disk: Box::new(disk),
            boot_id: boot_id(),
            entries: Mutex::new(entries),
        }
    }

    /// Must have returned before the control's first write. What is journaled already stays as it is, and is the answer:
    /// the first thing found is the only one that was there before us.
    pub fn touch(&self, device: &DeviceId, control: ControlName, undo: Undo) -> io::Result<Undo> {
        if let Some(first) = self.get(device, control) {
            return Ok(first);
        }
        self.change(|entries| {
            let controls = entries.entry(device.clone()).or_default();
            controls.insert(control, undo.clone());
        })?;
        Ok(undo)
    }

    pub fn get(&self, device: &DeviceId, control: ControlName) -> Option<Undo> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(device)?.get(&control).cloned()
    }

    /// Only once the control is known to be at default, or to be somebody else's.
    pub fn forget(&self, device: &DeviceId, control: ControlName) -> io::Result<()> {
        if self.get(device, control).is_none() {
            return Ok(());
        }
        self.change(|entries| {
            if let Some(controls) = entries.get_mut(device) {
                controls.remove(&control);
            }
            entries.retain(|_, controls| !controls.is_empty());
        })
    }

    /// Writes what is remembered now, changed or not: what was found may have been damaged.
    pub fn rewrite(&self) -> io::Result<()> {
        self.change(|_| {})
    }

    fn change(&self, change: impl FnOnce(&mut Entries)) -> io::Result<()> {
        // A poisoned map is still a map of names; refusing to journal would refuse to restore.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = entries.clone();
        change(&mut changed);
        let devices = changed.iter();
        let file = JournalFile {
            format: FORMAT.to_owned(),
            boot_id: self.boot_id.clone(),
            devices: devices
                .map(|(id, controls)| (id.0.clone(), controls.clone()))
                .collect(),
        };
        let text = serde_json::to_string(&file).expect("a journal has only strings and numbers");
        self.disk.save(&text)?;
        *entries = changed;
        Ok(())
    }
}

fn boot_id() -> String {
    // Without /proc every start looks like the same boot, which only keeps an entry longer.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
