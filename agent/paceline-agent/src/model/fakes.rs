//! A device and a disk that do as they are told, and see what is done to them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::device::{Baseline, ControlName, Device, DeviceError, DeviceId, DeviceInfo, Reading};
use crate::journal::{self, Disk, Entries, Found};

pub const CLOCKS_MHZ: [u32; 6] = [210, 450, 990, 1005, 1290, 1980];
/// A site holds its cards at 600 W: what was there before us, and not the maker's default.
pub const FOUND_LIMIT_MW: u32 = 600_000;

pub struct FakeDisk {
    state: Mutex<(String, bool)>,
}

impl FakeDisk {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new((String::new(), false)),
        })
    }

    pub fn fail(&self, fails: bool) {
        self.state.lock().expect("one thread").1 = fails;
    }

    pub fn entries(&self) -> Entries {
        let text = self.state.lock().expect("one thread").0.clone();
        if text.is_empty() {
            return Entries::new();
        }
        match journal::parse(&text) {
            Found::Entries(entries) => entries,
            Found::Damaged { why } => panic!("the journal is damaged: {why}"),
        }
    }
}

/// A handle for a journal: the disk outlives it.
pub struct DiskHandle(pub Arc<FakeDisk>);

impl Disk for DiskHandle {
    fn save(&self, text: &str) -> io::Result<()> {
        let mut state = self.0.state.lock().expect("one thread");
        if state.1 {
            return Err(io::Error::other("the disk is full"));
        }
        text.clone_into(&mut state.0);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    Fails,
    /// Says that it failed, and has done it.
    FailsAfterEffect,
}

#[derive(Default)]
pub struct DeviceState {
    pub held: BTreeMap<ControlName, u32>,
    pub on_limit: Fault,
    pub on_restore: Fault,
    pub writes: u64,
    /// Writes that must not have happened.
    pub violations: Vec<String>,
}

pub struct FakeDevice {
    info: DeviceInfo,
    disk: Arc<FakeDisk>,
    state: Mutex<DeviceState>,
}

impl FakeDevice {
    pub fn new(index: usize, disk: &Arc<FakeDisk>) -> Arc<Self> {
        let power_limits_mw = (200..=FOUND_LIMIT_MW / 1_000)
            .step_by(50)
            .map(|watts| watts * 1_000);
        let held = [(ControlName::PowerLimit, FOUND_LIMIT_MW)].into();
        Arc::new(Self {
            info: DeviceInfo {
                id: DeviceId(format!("fake:{index}")),
                driver: "fake",
                name: None,
                uuid: None,
                clocks_mhz: CLOCKS_MHZ.to_vec(),
                power_limits_mw: power_limits_mw.collect(),
                power_limit_mw: None,
            },
            disk: Arc::clone(disk),
            state: Mutex::new(DeviceState {
                held,
                ..DeviceState::default()
            }),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, DeviceState> {
        self.state.lock().expect("one thread")
    }

    /// What the control is held at; a clock that is not locked runs at its fastest.
    pub fn actual(&self, control: ControlName) -> u32 {
        let fastest = *self.info.steps(control).last().expect("it has both");
        self.state().held.get(&control).copied().unwrap_or(fastest)
    }

    fn write(
        &self,
        fault: Fault,
        set: impl FnOnce(&mut BTreeMap<ControlName, u32>),
    ) -> Result<(), DeviceError> {
        let mut state = self.state();
        state.writes += 1;
        if fault != Fault::Fails {
            set(&mut state.held);
        }
        match fault {
            Fault::None => Ok(()),
            Fault::Fails | Fault::FailsAfterEffect => Err(DeviceError::new("a fault")),
        }
    }
}

impl Device for FakeDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn baseline(&self, control: ControlName) -> Result<Baseline, DeviceError> {
        Ok(Baseline(match control {
            ControlName::Clock => "reset".to_owned(),
            ControlName::PowerLimit => self.actual(control).to_string(),
        }))
    }

    fn limit(&self, control: ControlName, value: u32, baseline: &Baseline) -> Result<(), DeviceError> {
        let journaled = self.disk.entries();
        let undo = journaled
            .get(&self.info.id)
            .and_then(|controls| controls.get(&control));
        if undo.is_none_or(|undo| undo.found != *baseline) {
            let wrong = format!("{control} limited to {value} without its journal record");
            self.state().violations.push(wrong);
        }
        let fault = self.state().on_limit;
        let found = baseline.0.parse().unwrap_or(u32::MAX);
        self.write(fault, |held| {
            held.insert(control, value.min(found));
        })
    }

    fn restore(&self, control: ControlName, baseline: &Baseline) -> Result<(), DeviceError> {
        let fault = self.state().on_restore;
        self.write(fault, |held| {
            match baseline.0.parse() {
                Ok(found) => held.insert(control, found),
                Err(_) => held.remove(&control),
            };
        })
    }

    fn read(&self) -> Result<Reading, DeviceError> {
        Ok(Reading::default())
    }

    fn default_baseline(&self, _: ControlName) -> Option<Baseline> {
        None
    }
}
