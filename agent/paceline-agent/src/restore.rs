//! `paceline-agent restore`: every journaled device back to its default, by a process of its own. Run by systemd after
//! the agent has stopped, and by the sentinel when its worker has died.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::audit;
use crate::cli::RestoreOptions;
use crate::device::{ControlName, Device, DeviceId};
use crate::driver;
use crate::journal::{self, Entries, Found, Journal, Undo};
use crate::limits::RESTORE_ALL_MAX;
use crate::log;
use crate::privilege::Privilege;
use crate::start_error::StartError;
use crate::state_dir::StateDir;

/// A stopping agent may still hold the lock when systemd runs ExecStopPost.
const LOCK_WAIT: Duration = Duration::from_secs(2);

const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

pub fn run(options: &RestoreOptions) -> Result<ExitCode, StartError> {
    // Run as root without a unit of its own it would have them all.
    let _ = Privilege::drop_all_but_kept(options.driver.runs_commands());
    log::start(options.log_level.filter())
        .map_err(|wrong| StartError::refused(format!("no log thread: {wrong}")))?;
    let directory = StateDir::open(&options.state_dir)?;
    let _lock = if options.force || options.lock_inherited {
        None
    } else {
        Some(directory.lock(LOCK_WAIT)?)
    };
    let found = journal::find(&directory);
    if found.is_empty() {
        tracing::info!("nothing is journaled, so nothing is lowered");
        return Ok(ExitCode::SUCCESS);
    }
    let devices = driver::open_all(&options.driver.choices())
        .map_err(|wrong| StartError::unavailable(wrong.to_string()))?;
    let Owed { here, elsewhere } = owed(found, &devices);
    let left = restore_all(&devices, here, RESTORE_ALL_MAX);
    let left: Entries = left.into_iter().chain(elsewhere).collect();
    for device in left.keys() {
        tracing::error!(%device, "not known to be at default; it stays in the journal");
    }
    let is_done = left.is_empty();
    if !options.force {
        let journal = Journal::new(directory, left);
        if let Err(wrong) = journal.rewrite() {
            tracing::error!("the journal cannot be written: {wrong}");
        }
    }
    Ok(if is_done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What a journal asks for, split by whether these drivers have the device.
pub struct Owed {
    pub here: Entries,
    pub elsewhere: Entries,
}

pub fn owed(found: Found, devices: &[Arc<dyn Device>]) -> Owed {
    let journaled = match found {
        Found::Entries(entries) => entries,
        Found::Damaged { why } => {
            tracing::error!(
                "the journal is damaged, so every device is put back to its driver's default: {why}"
            );
            devices.iter().map(|device| defaults(device.as_ref())).collect()
        }
    };
    let known: BTreeSet<&DeviceId> = devices.iter().map(|device| &device.info().id).collect();
    let (here, elsewhere): (Entries, Entries) = journaled
        .into_iter()
        .partition(|(device, _)| known.contains(device));
    for device in elsewhere.keys() {
        tracing::error!(%device, "journaled, but these drivers do not know it; run `restore` with the driver that does");
    }
    Owed { here, elsewhere }
}

fn defaults(device: &dyn Device) -> (DeviceId, BTreeMap<ControlName, Undo>) {
    let controls = ControlName::ALL
        .into_iter()
        .filter(|&control| device.info().has(control));
    let undos = controls.filter_map(|control| {
        let found = device.default_baseline(control)?;
        Some((
            control,
            Undo {
                found,
                declared: None,
            },
        ))
    });
    (device.info().id.clone(), undos.collect())
}

/// One thread per device, so that one that hangs keeps no other waiting. Answers with what is left after `within`.
pub fn restore_all(devices: &[Arc<dyn Device>], owed: Entries, within: Duration) -> Entries {
    let give_up_at = Instant::now() + within;
    let mut left = owed;
    left.retain(|_, controls| !controls.is_empty());
    let (done, dones) = mpsc::channel();
    for device in devices {
        let Some(controls) = left.get(&device.info().id).cloned() else {
            continue;
        };
        let device = Arc::clone(device);
        let done = done.clone();
        let started = thread::Builder::new().spawn(move || {
            let mut controls = controls;
            while !controls.is_empty() && Instant::now() < give_up_at {
                controls.retain(|&control, undo| {
                    let result = undo.apply(device.as_ref(), control);
                    audit::device_restored(&device.info().id, control, &result);
                    if result.is_ok() {
                        // Fails where the bound has passed and nobody counts any more.
                        let _ = done.send((device.info().id.clone(), control));
                    }
                    result.is_err()
                });
                if !controls.is_empty() {
                    thread::sleep(TRY_AGAIN_AFTER);
                }
            }
        });
        if let Err(wrong) = started {
            tracing::error!("no thread to restore a device with: {wrong}");
        }
    }
    drop(done);
    while !left.is_empty() {
        let wait = give_up_at.saturating_duration_since(Instant::now());
        let Ok((device, control)) = dones.recv_timeout(wait) else {
            break;
        };
        if let Some(controls) = left.get_mut(&device) {
            controls.remove(&control);
        }
        left.retain(|_, controls| !controls.is_empty());
    }
    left
}
