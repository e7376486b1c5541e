//! Looks at the devices and the journal the whole time, from outside, and plays the emulator: the clock follows its lock.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use emulated_device::{Command, EmulatedDevice, Telemetry, monotonic_ns, write_telemetry};
use serde_json::Value;

use crate::model::Control;
use crate::support::sandbox::{CLOCKS_MHZ, DEVICES, Sandbox};

/// What the policies in force allow. Two of them while one replaces the other.
#[derive(Clone, Debug)]
pub struct Range {
    pub floor_mhz: u32,
    pub ceiling_mhz: u32,
    pub floor_power_limit_mw: u32,
}

pub struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    devices: PathBuf,
    journal: PathBuf,
    ids: Vec<String>,
    ranges: Mutex<Vec<Range>>,
    violations: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

pub fn lowered(command: &Command, default_power_limit_mw: u32) -> Vec<(Control, u32)> {
    let mut lowered = Vec::new();
    if command.lock_max_mhz != 0 {
        lowered.push((Control::Clock, command.lock_max_mhz));
    }
    if command.power_limit_mw != 0 && command.power_limit_mw != default_power_limit_mw {
        lowered.push((Control::PowerLimit, command.power_limit_mw));
    }
    lowered
}

pub const DEFAULT_POWER_LIMIT_MW: u32 = 700_000;

impl Watcher {
    pub fn start(sandbox: &Sandbox, range: Range) -> Self {
        let shared = Arc::new(Shared {
            devices: sandbox.devices_path(),
            journal: sandbox.state_path().join("journal.json"),
            ids: sandbox.devices(),
            ranges: Mutex::new(vec![range]),
            violations: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let seen = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !seen.is_over.load(Ordering::Relaxed) {
                for index in 0..DEVICES {
                    seen.look(index);
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    pub fn allow(&self, ranges: Vec<Range>) {
        *self.shared.ranges.lock().unwrap() = ranges;
    }

    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.violations.lock().unwrap())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn look(&self, index: u32) {
        let device = EmulatedDevice::open(&self.devices, index).unwrap();
        let before = device.command().unwrap();
        let clock_mhz = match before.lock_max_mhz {
            0 => CLOCKS_MHZ[CLOCKS_MHZ.len() - 1],
            locked => locked,
        };
        let telemetry = Telemetry {
            clock_mhz,
            power_mw: 310_000,
            energy_mj: 99_120,
            energy_at_ns: monotonic_ns(),
            utilization_pct: 97,
            temperature_c: 51,
            throttle_reasons: 0,
        };
        write_telemetry(&self.devices, index, &telemetry).unwrap();
        let lowered = lowered(&before, DEFAULT_POWER_LIMIT_MW);
        if lowered.is_empty() {
            return;
        }
        let journal = std::fs::read_to_string(&self.journal).unwrap_or_default();
        for &(control, value) in &lowered {
            if let Some(wrong) = out_of_range(&self.ranges.lock().unwrap(), control, value) {
                self.report(format!("device {index}: {wrong}"));
            }
        }
        if before.lock_max_mhz != 0 && before.lock_min_mhz != CLOCKS_MHZ[0] {
            self.report(format!("device {index}: locked from {} MHz", before.lock_min_mhz));
        }
        // Lowered by the same write before and after the journal was read: it must have been in there in between.
        if device.command().unwrap() != before {
            return;
        }
        let journal: Value = serde_json::from_str(&journal).unwrap_or_default();
        for (control, value) in lowered {
            if journal["devices"][&self.ids[index as usize]][control.name()].is_null() {
                self.report(format!(
                    "device {index}: {} held at {value} and not in the journal: {journal}",
                    control.name()
                ));
            }
        }
    }

    fn report(&self, wrong: String) {
        let mut violations = self.violations.lock().unwrap();
        if !violations.contains(&wrong) {
            violations.push(wrong);
        }
    }
}

/// Outside of every range, or beside the device's steps.
pub fn out_of_range(ranges: &[Range], control: Control, value: u32) -> Option<String> {
    let is_step = match control {
        Control::Clock => CLOCKS_MHZ.contains(&value),
        Control::PowerLimit => value.is_multiple_of(1000),
    };
    let is_within = ranges.iter().any(|range| match control {
        Control::Clock => (range.floor_mhz..=range.ceiling_mhz).contains(&value),
        Control::PowerLimit => (range.floor_power_limit_mw..DEFAULT_POWER_LIMIT_MW).contains(&value),
    });
    let why = match (is_step, is_within) {
        (false, _) => "no step of it",
        (true, false) => "outside of the policy",
        (true, true) => return None,
    };
    Some(format!("{} at {value}: {why}", control.name()))
}
