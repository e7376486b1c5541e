//! `paceline-agent restore`: every journaled device back to default clocks, by a process of its own. Run by systemd after
//! the agent has stopped, and by the sentinel when its worker has died.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::audit;
use crate::cli::RestoreOptions;
use crate::device::{Device, DeviceId};
use crate::driver;
use crate::journal::{self, Found, Journal};
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
    let _ = Privilege::drop_all_but_kept();
    log::start(options.log_level.filter())
        .map_err(|wrong| StartError::refused(format!("no log thread: {wrong}")))?;
    let directory = StateDir::open(&options.state_dir)?;
    let _lock = if options.force || options.lock_inherited {
        None
    } else {
        Some(directory.lock(LOCK_WAIT)?)
    };
    let found = journal::find(&directory);
    if is_empty(&found) {
        tracing::info!("nothing is journaled, so nothing is lowered");
        return Ok(ExitCode::SUCCESS);
    }
    let devices =
        driver::open(&options.driver.choice()).map_err(|wrong| StartError::unavailable(wrong.to_string()))?;
    let Owed { here, elsewhere } = owed(found, &devices);
    let left = restore_all(&devices, here);
    let left: BTreeSet<DeviceId> = left.into_iter().chain(elsewhere).collect();
    for device in &left {
        tracing::error!(%device, "not known to be at default clocks; it stays in the journal");
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

/// What a journal asks for, split by whether this driver has the device.
pub struct Owed {
    pub here: BTreeSet<DeviceId>,
    pub elsewhere: BTreeSet<DeviceId>,
}

pub fn is_empty(found: &Found) -> bool {
    matches!(found, Found::Touched { devices, .. } if devices.is_empty())
}

pub fn owed(found: Found, devices: &[Arc<dyn Device>]) -> Owed {
    let known: BTreeSet<DeviceId> = devices.iter().map(|device| device.info().id.clone()).collect();
    let (journaled, same_boot) = match found {
        Found::Touched { devices, same_boot } => (devices, same_boot),
        Found::Damaged { why } => {
            tracing::error!("the journal is damaged, so every device is restored: {why}");
            (known.clone(), true)
        }
    };
    let (here, mut elsewhere): (BTreeSet<_>, BTreeSet<_>) =
        journaled.into_iter().partition(|device| known.contains(device));
    if !same_boot && !elsewhere.is_empty() {
        tracing::warn!("devices journaled before the last boot are gone, and with them their locks");
        elsewhere.clear();
    }
    for device in &elsewhere {
        tracing::error!(%device, "journaled, but this driver does not know it; run `restore` with the driver that does");
    }
    Owed { here, elsewhere }
}

/// One thread per device, so that one that hangs keeps no other waiting. Answers with those that are left.
fn restore_all(devices: &[Arc<dyn Device>], mut left: BTreeSet<DeviceId>) -> BTreeSet<DeviceId> {
    let give_up_at = Instant::now() + RESTORE_ALL_MAX;
    let (done, dones) = mpsc::channel();
    for device in devices.iter().filter(|device| left.contains(&device.info().id)) {
        let device = Arc::clone(device);
        let done = done.clone();
        let started = thread::Builder::new().spawn(move || {
            while Instant::now() < give_up_at {
                let result = device.reset_clock();
                audit::device_restored(&device.info().id, &result);
                if result.is_ok() {
                    // Fails where the bound has passed and nobody counts any more.
                    let _ = done.send(device.info().id.clone());
                    return;
                }
                thread::sleep(TRY_AGAIN_AFTER);
            }
        });
        if let Err(wrong) = started {
            tracing::error!("no thread to restore a device with: {wrong}");
        }
    }
    drop(done);
    while !left.is_empty() {
        let wait = give_up_at.saturating_duration_since(Instant::now());
        match dones.recv_timeout(wait) {
            Ok(device) => left.remove(&device),
            Err(_) => break,
        };
    }
    left
}
