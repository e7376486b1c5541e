//! The one thread that sets a device, and its mailbox. A call into a driver may hang for ever; then this thread hangs,
//! and no other. The mailbox is a cell: whoever comes back late finds the latest command, not a queue of old ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::arbiter::{Command, Completion, Setting};
use crate::audit;
use crate::device::{Device, DeviceError};
use crate::journal::Journal;
use crate::write_stats::{Direction, WriteStats};

pub struct DeviceThread {
    device: Arc<dyn Device>,
    mailbox: Mutex<Option<Command>>,
    posted: Condvar,
    stats: Mutex<WriteStats>,
    /// May be lowered. Read by the panic hook, which must not wait for a lock.
    touched: AtomicBool,
}

/// Set by a panic: from then on nothing may be lowered any more.
pub static CRASHING: AtomicBool = AtomicBool::new(false);

impl DeviceThread {
    /// `touched`: an earlier process may have left the device lowered, so what it is set to is unknown.
    pub fn start(
        device: Arc<dyn Device>,
        touched: bool,
        journal: Arc<Journal>,
        completed: impl Fn(Completion) + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let name = format!("set {}", device.info().id);
        let this = Arc::new(Self {
            device,
            mailbox: Mutex::new(None),
            posted: Condvar::new(),
            stats: Mutex::new(WriteStats::default()),
            touched: AtomicBool::new(touched),
        });
        let worker = Arc::clone(&this);
        thread::Builder::new()
            .name(name)
            .spawn(move || worker.run(&journal, &completed))?;
        Ok(this)
    }

    /// Replaces what the thread has not taken yet. Never waits for the device.
    pub fn post(&self, command: Command) {
        *self.mailbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(command);
        self.posted.notify_one();
    }

    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::SeqCst)
    }

    pub fn stats(&self) -> WriteStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn run(&self, journal: &Journal, completed: &impl Fn(Completion)) -> ! {
        // What the device is known to be set to; `None` once a write failed, and after an earlier process.
        let mut applied = (!self.is_touched()).then_some(Setting::Default);
        loop {
            let command = self.take();
            let result = self.apply(&command, &mut applied, journal);
            completed(Completion {
                device: command.device,
                generation: command.generation,
                setting: command.setting,
                result: result.map_err(|wrong| wrong.to_string()),
            });
            // After the answer: the device is at default, and nobody should wait for the disk to hear so.
            if command.release && applied == Some(Setting::Default) && self.is_touched() {
                self.forget(journal);
            }
        }
    }

    fn take(&self) -> Command {
        let mut cell = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(command) = cell.take() {
                return command;
            }
            cell = self.posted.wait(cell).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn apply(
        &self,
        command: &Command,
        applied: &mut Option<Setting>,
        journal: &Journal,
    ) -> Result<(), DeviceError> {
        if *applied == Some(command.setting) {
            return Ok(());
        }
        if let Setting::Ceiling { .. } = command.setting {
            self.prepare_to_lower(journal)?;
        }
        let before = applied.take();
        let started_at = Instant::now();
        let result = match command.setting {
            Setting::Default => self.device.reset_clock(),
            Setting::Ceiling { clock_mhz } => self.device.limit_clock(clock_mhz),
        };
        let call = started_at.elapsed();
        let direction = Direction::between(before, command.setting);
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).record(
            direction,
            call,
            result.is_ok(),
            command,
        );
        audit::clock_written(&self.device.info().id, command, direction, call, &result);
        if result.is_ok() {
            *applied = Some(command.setting);
        }
        result
    }

    /// Without a journal entry on the disk a crash would leave the device slow for ever, so without one it is not slowed.
    fn prepare_to_lower(&self, journal: &Journal) -> Result<(), DeviceError> {
        if CRASHING.load(Ordering::SeqCst) {
            return Err(DeviceError("the agent is crashing".to_owned()));
        }
        if self.is_touched() {
            return Ok(());
        }
        journal
            .touch(&self.device.info().id)
            .map_err(|wrong| DeviceError(format!("the journal cannot be written: {wrong}")))?;
        self.touched.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn forget(&self, journal: &Journal) {
        let id = &self.device.info().id;
        match journal.forget(id) {
            Ok(()) => self.touched.store(false, Ordering::SeqCst),
            // It stays journaled: the next start resets it once more, which harms nothing.
            Err(wrong) => tracing::error!(device = %id, "the journal cannot be written: {wrong}"),
        }
    }
}
