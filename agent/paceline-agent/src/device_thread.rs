//! The one thread that sets a device, and its mailbox. A call into a driver may hang for ever; then this thread hangs,
//! and no other. The mailbox has one cell per control: whoever comes back late finds the latest command, not a queue of
//! old ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::arbiter::{Command, Completion, Evidence, Setting};
use crate::audit;
use crate::device::{ControlName, Device, DeviceError};
use crate::journal::{Journal, Undo};
use crate::write_stats::{Direction, WriteStats};

pub struct DeviceThread {
    device: Arc<dyn Device>,
    /// What a policy declares as the way back, instead of what is found.
    declared: BTreeMap<ControlName, u32>,
    mailbox: Mutex<BTreeMap<ControlName, Command>>,
    posted: Condvar,
    stats: Mutex<BTreeMap<ControlName, WriteStats>>,
    /// What puts back each control that may be lowered; journaled. The panic hook reads it without waiting.
    owed: Mutex<BTreeMap<ControlName, Undo>>,
}

pub struct DeviceThreadOptions {
    pub device: Arc<dyn Device>,
    pub declared: BTreeMap<ControlName, u32>,
    /// What an earlier process may have left lowered, so that what it is set to is unknown.
    pub owed: BTreeMap<ControlName, Undo>,
    pub journal: Arc<Journal>,
    /// Restores what is owed, and lowers nothing.
    pub observes: bool,
}

/// A write that worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub control: ControlName,
    /// `None`: unknown.
    pub from: Option<Setting>,
    pub to: Setting,
    pub at: Instant,
}

/// Who hears of what the thread does.
pub trait Listener {
    fn writing(&self, control: ControlName);
    fn written(&self, written: Written);
    fn completed(&self, completion: Completion);
}

/// Set by a panic: from then on nothing may be lowered any more.
pub static CRASHING: AtomicBool = AtomicBool::new(false);

/// What the thread runs: the one that acts. Apart from it, so that tests can act without threads.
pub struct Worker {
    thread: Arc<DeviceThread>,
    journal: Arc<Journal>,
    observes: bool,
    /// What each control is known to be set to. Missing: at default, untouched. `None`: unknown, because a write failed,
    /// an earlier process was there, or somebody else is.
    applied: BTreeMap<ControlName, Option<Setting>>,
}

impl DeviceThread {
    pub fn start(
        options: DeviceThreadOptions,
        listener: impl Listener + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let name = format!("set {}", options.device.info().id);
        let (this, mut worker) = Self::new(options);
        thread::Builder::new()
            .name(name)
            .spawn(move || worker.run(&listener))?;
        Ok(this)
    }

    /// The mailbox, and who empties it.
    pub fn new(options: DeviceThreadOptions) -> (Arc<Self>, Worker) {
        let applied = options.owed.keys().map(|&control| (control, None)).collect();
        let this = Arc::new(Self {
            device: options.device,
            declared: options.declared,
            mailbox: Mutex::default(),
            posted: Condvar::new(),
            stats: Mutex::default(),
            owed: Mutex::new(options.owed),
        });
        let worker = Worker {
            thread: Arc::clone(&this),
            journal: options.journal,
            observes: options.observes,
            applied,
        };
        (this, worker)
    }

    /// Replaces what the thread has not taken yet. Never waits for the device. That a control is somebody else's is not
    /// forgotten by that: going to default then still means to leave it alone.
    pub fn post(&self, mut command: Command) {
        let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        let control = command.knob.control;
        let is_disowned = mailbox
            .get(&control)
            .is_some_and(|old| old.disown == Some(Evidence::Read));
        if is_disowned && command.setting == Setting::Default {
            command.disown = Some(Evidence::Read);
        }
        mailbox.insert(control, command);
        self.posted.notify_one();
    }

    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Something of it may be lowered.
    pub fn is_touched(&self) -> bool {
        !self.owed().is_empty()
    }

    /// What is owed, for the panic hook: `None` where the lock is taken, because a hook must not wait.
    pub fn try_owed(&self) -> Option<BTreeMap<ControlName, Undo>> {
        self.owed.try_lock().ok().map(|owed| owed.clone())
    }

    pub fn stats(&self, control: ControlName) -> WriteStats {
        let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.get(&control).cloned().unwrap_or_default()
    }

    fn owed(&self) -> MutexGuard<'_, BTreeMap<ControlName, Undo>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raising before lowering, where both wait.
    fn take(&self) -> Command {
        let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(command) = take_fastest(&mut mailbox) {
                return command;
            }
            mailbox = self.posted.wait(mailbox).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn take_fastest(mailbox: &mut BTreeMap<ControlName, Command>) -> Option<Command> {
    // Values of two controls are of two units; the clock is the one that deadlines wait for.
    let urgency = |command: &&Command| {
        let is_default = command.setting == Setting::Default;
        (is_default, command.knob.control == ControlName::Clock)
    };
    let fastest = mailbox.values().max_by_key(urgency).copied()?;
    mailbox.remove(&fastest.knob.control)
}

impl Worker {
    fn run(&mut self, listener: &impl Listener) -> ! {
        loop {
            let command = self.thread.take();
            self.act(&command, listener);
        }
    }

    /// What is in the mailbox now.
    #[cfg(test)]
    pub fn try_take(&self) -> Option<Command> {
        take_fastest(&mut self.thread.mailbox.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn act(&mut self, command: &Command, listener: &impl Listener) {
        let result = match command.disown {
            Some(evidence) => {
                self.disown(command, evidence);
                Ok(())
            }
            None => self.apply(command, listener),
        };
        listener.completed(Completion {
            knob: command.knob,
            generation: command.generation,
            setting: command.setting,
            result: result.map_err(|wrong| wrong.to_string()),
        });
        // After the answer: the control is at default, and nobody should wait for the disk to hear so.
        let control = command.knob.control;
        if command.release && self.is_default(control) && self.thread.owed().contains_key(&control) {
            self.forget(control);
        }
    }

    fn is_default(&self, control: ControlName) -> bool {
        self.applied
            .get(&control)
            .is_none_or(|setting| *setting == Some(Setting::Default))
    }

    fn apply(&mut self, command: &Command, listener: &impl Listener) -> Result<(), DeviceError> {
        let control = command.knob.control;
        let before = self
            .applied
            .get(&control)
            .copied()
            .unwrap_or(Some(Setting::Default));
        if before == Some(command.setting) {
            return Ok(());
        }
        let undo = match command.setting {
            Setting::Ceiling { .. } if self.observes => {
                audit::recommended(&self.thread.device.info().id, command);
                return Ok(());
            }
            Setting::Ceiling { .. } => self.prepare_to_lower(control)?,
            Setting::Default => match self.thread.owed().get(&control).cloned() {
                Some(undo) => undo,
                // Nothing of ours is there to be put back.
                None => {
                    self.applied.remove(&control);
                    return Ok(());
                }
            },
        };
        self.applied.insert(control, None);
        listener.writing(control);
        let device = &self.thread.device;
        let started_at = Instant::now();
        let result = match command.setting {
            Setting::Default => undo.apply(device.as_ref(), control),
            Setting::Ceiling { value } => device.limit(control, value, &undo.found),
        };
        let at = Instant::now();
        let call = at - started_at;
        let direction = Direction::between(before, command.setting);
        let mut stats = self.thread.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let of_control = stats.entry(control).or_default();
        of_control.record(direction, call, result.is_ok(), command);
        drop(stats);
        audit::written(&device.info().id, command, direction, call, &result);
        if result.is_ok() {
            self.applied.insert(control, Some(command.setting));
            let to = command.setting;
            listener.written(Written {
                control,
                from: before,
                to,
                at,
            });
        }
        result
    }

    /// Without a journal entry on the disk a crash would leave the device slow for ever, so without one it is not slowed.
    fn prepare_to_lower(&self, control: ControlName) -> Result<Undo, DeviceError> {
        if CRASHING.load(Ordering::SeqCst) {
            return Err(DeviceError::new("the agent is crashing"));
        }
        let device = &self.thread.device;
        if let Some(undo) = self.thread.owed().get(&control).cloned() {
            return self.still_ours(control, undo);
        }
        let undo = Undo {
            found: device.baseline(control)?,
            declared: self.thread.declared.get(&control).copied(),
        };
        let undo = self
            .journal
            .touch(&device.info().id, control, undo)
            .map_err(|wrong| DeviceError(format!("the journal cannot be written: {wrong}")))?;
        self.thread.owed().insert(control, undo.clone());
        Ok(undo)
    }

    /// We put it back and still hold its lease. Where it now says something else, somebody has set it since; to lower it
    /// would mean to put back the wrong thing later, and what was found first is never overwritten.
    fn still_ours(&self, control: ControlName, undo: Undo) -> Result<Undo, DeviceError> {
        if undo.declared.is_none() && self.is_default(control) {
            let now = self.thread.device.baseline(control)?;
            if now != undo.found {
                return Err(DeviceError(format!(
                    "its {control} says {:?} where this agent put back {:?}: somebody else sets it, so it is left alone \
                     until the leases on it have ended",
                    now.0, undo.found.0
                )));
            }
        }
        Ok(undo)
    }

    fn disown(&mut self, command: &Command, evidence: Evidence) {
        let control = command.knob.control;
        audit::foreign_writer(&self.thread.device.info().id, control, evidence);
        match evidence {
            // What we found is not what is to be put back any more, and what is there is not ours.
            Evidence::Read => {
                self.applied.remove(&control);
                if self.thread.owed().contains_key(&control) {
                    self.forget(control);
                }
            }
            Evidence::Inferred => {
                self.applied.insert(control, None);
            }
        }
    }

    fn forget(&self, control: ControlName) {
        let id = &self.thread.device.info().id;
        match self.journal.forget(id, control) {
            Ok(()) => {
                self.thread.owed().remove(&control);
            }
            // It stays journaled: the next start restores it once more, which harms nothing.
            Err(wrong) => tracing::error!(device = %id, "the journal cannot be written: {wrong}"),
        }
    }
}
