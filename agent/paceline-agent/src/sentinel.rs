//! The parent. It starts the worker and waits, owning nothing that can go wrong: no driver, no socket, one thread.
//! When the worker dies otherwise than asked to, it has every journaled device restored and starts another worker.

mod notifier;
mod worker;

use std::collections::VecDeque;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::cli::ServeOptions;
use crate::journal;
use crate::limits::{RESTART_BACKOFF_FIRST, RESTARTS_MAX, RESTARTS_WITHIN, RESTORE_ALL_MAX};
use crate::log;
use crate::privilege::{self, Privilege};
use crate::start_error::StartError;
use crate::state_dir::StateDir;
use notifier::Notifier;
pub use worker::{BEAT, READY, RELOADED};
use worker::{Ended, Signals, Worker, poll_timeout};

/// sysexits.h, EX_SOFTWARE.
const EXIT_CRASHES: u8 = 70;

const RESTORE_TRIES_MAX: u32 = 3;

pub fn run(options: &ServeOptions) -> Result<ExitCode, StartError> {
    if let Some(group) = &options.socket_group {
        privilege::join_group(group);
    }
    // Before the first thread, and for the workers too: what root starts has what the bounding set has.
    let _ = Privilege::drop_all_but_kept(options.driver.runs_commands());
    let directory = StateDir::open(&options.state_dir)?;
    // Held by us and by every worker, so that nobody takes the devices over between two workers.
    let _lock = directory.lock(Duration::ZERO)?;
    // Before the first thread (the log's), so that no thread takes these signals away.
    let signals = Signals::block()?;
    log::start(options.log_level.filter())
        .map_err(|wrong| StartError::refused(format!("no log thread: {wrong}")))?;
    let notifier = Notifier::from_environment();
    let mut crashes: VecDeque<Instant> = VecDeque::new();
    let mut was_ready = false;
    loop {
        let mut worker = Worker::start()?;
        let ended = worker.watch(&signals, &notifier);
        was_ready |= worker.was_ready();
        let is_clean = restore_if_journaled(options, &directory, &notifier);
        match ended {
            Ended::Asked if is_clean => return Ok(ExitCode::SUCCESS),
            Ended::Asked => return Ok(ExitCode::FAILURE),
            // Its message has been printed. Starting it again cannot help while nothing was changed.
            Ended::RefusedToStart { code } if !was_ready => return Ok(ExitCode::from(code)),
            Ended::Undead => {
                tracing::error!("the worker was killed and does not die; no other is started beside it");
                return Ok(ExitCode::from(EXIT_CRASHES));
            }
            Ended::RefusedToStart { .. } | Ended::Crashed => notifier.restoring(),
        }
        let now = Instant::now();
        crashes.retain(|&at| now.duration_since(at) < RESTARTS_WITHIN);
        if crashes.len() == RESTARTS_MAX {
            tracing::error!(
                crashes = crashes.len() + 1,
                "the worker dies again and again; giving up"
            );
            return Ok(ExitCode::from(EXIT_CRASHES));
        }
        let backoff = RESTART_BACKOFF_FIRST * (1 << crashes.len());
        crashes.push_back(now);
        tracing::warn!(backoff_ms = backoff.as_millis() as u64, "starting another worker");
        notifier.alive();
        if signals.asked_to_leave_within(poll_timeout(backoff)) {
            return Ok(if is_clean {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    }
}

/// Whether the journal is empty in the end.
fn restore_if_journaled(options: &ServeOptions, directory: &StateDir, notifier: &Notifier) -> bool {
    for _ in 0..RESTORE_TRIES_MAX {
        if journal::find(directory).is_empty() {
            return true;
        }
        if restore_once(options, notifier) {
            break;
        }
    }
    journal::find(directory).is_empty()
}

/// In a process of its own: a driver's library that crashes or hangs must not take the sentinel along. Whether it came
/// to its end; then it has tried each device for as long as makes sense.
fn restore_once(options: &ServeOptions, notifier: &Notifier) -> bool {
    let mut command = Command::new("/proc/self/exe");
    command.args(["restore", "--lock-inherited", "--state-dir"]);
    command.arg(&options.state_dir);
    command.args(options.driver.to_args());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    for variable in notifier::VARIABLES {
        command.env_remove(variable);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(wrong) => {
            tracing::error!("the restoring process cannot be started: {wrong}");
            return false;
        }
    };
    // Its own bound, and room to open the driver.
    let give_up_at = Instant::now() + RESTORE_ALL_MAX * 2;
    loop {
        notifier.alive();
        match child.try_wait() {
            Ok(None) if Instant::now() < give_up_at => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => {
                tracing::error!("the restoring process hangs and is killed");
                let _ = child.kill();
                return false;
            }
            Ok(Some(status)) => return status.code().is_some(),
            Err(wrong) => {
                tracing::error!("the restoring process cannot be waited for: {wrong}");
                return false;
            }
        }
    }
}
