//! One worker as its sentinel sees it: a process, a pipe that it beats on, and the signals that concern both.

use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::notifier::{Notifier, VARIABLES};
use crate::limits::{WORKER_BEAT_EVERY, WORKER_LEAVES_MAX, WORKER_SILENT_POLLS_MAX};
use crate::start_error::{EXIT_REFUSED, EXIT_UNAVAILABLE, StartError};

pub struct Worker {
    child: Child,
    beats: PipeReader,
    /// Never written. That it closes when we die is what tells the worker.
    _life_line: PipeWriter,
    has_beaten: bool,
    was_ready: bool,
    /// SIGHUP came, and the worker has not said yet that it has looked.
    reload: Reload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reload {
    NotAsked,
    /// A worker that is starting has no handler for SIGHUP yet and would die of it.
    WaitsForReady,
    UnderWay,
}

/// What a worker writes to its sentinel: that decisions flow, once that it serves, and that it has looked at its files
/// again.
pub const BEAT: u8 = b'.';
pub const READY: u8 = b'R';
pub const RELOADED: u8 = b'L';

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Asked,
    RefusedToStart {
        code: u8,
    },
    Crashed,
    /// Killed, and still there: it is inside a call of a driver that cannot be interrupted.
    Undead,
}

/// Read from a descriptor: no handlers, and nothing is missed between two polls.
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    pub fn block() -> Result<Self, StartError> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            set.add(signal);
        }
        let refused = |wrong| StartError::refused(format!("signals: {wrong}"));
        set.thread_block().map_err(refused)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let descriptor = SignalFd::with_flags(&set, flags).map_err(refused)?;
        Ok(Self { descriptor })
    }

    /// Waits that long, unless told to leave.
    pub fn asked_to_leave_within(&self, timeout: PollTimeout) -> bool {
        let mut descriptors = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut descriptors, timeout);
        let mut is_asked = false;
        while let Some(signal) = self.next() {
            is_asked |= matches!(signal, Signal::SIGTERM | Signal::SIGINT);
        }
        is_asked
    }

    fn next(&self) -> Option<Signal> {
        let read = self.descriptor.read_signal().ok().flatten()?;
        Signal::try_from(read.ssi_signo as i32).ok()
    }
}

impl Worker {
    /// The same binary, even if its file was replaced meanwhile, with the same arguments.
    pub fn start() -> Result<Self, StartError> {
        let refused = |wrong| StartError::unavailable(format!("the worker cannot be started: {wrong}"));
        let (life_line_end, life_line) = pipe().map_err(refused)?;
        let (beats, beats_end) = pipe().map_err(refused)?;
        fcntl(&beats, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|wrong| refused(wrong.into()))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("paceline-agent")
            .args(std::env::args_os().skip(1))
            .arg(format!("--worker-of={}", std::process::id()))
            .stdin(Stdio::from(life_line_end))
            .stdout(Stdio::from(beats_end));
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        let child = command.spawn().map_err(refused)?;
        tracing::info!(pid = child.id(), "worker started");
        Ok(Self {
            child,
            beats,
            _life_line: life_line,
            has_beaten: false,
            was_ready: false,
            reload: Reload::NotAsked,
        })
    }

    /// It has served. What refuses to start after that is not a mistake of the command line.
    pub fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// Until it is dead: by itself, because we were told to leave, or because it fell silent and was killed.
    pub fn watch(&mut self, signals: &Signals, notifier: &Notifier) -> Ended {
        let mut silent_polls = 0;
        let mut leave_by: Option<Instant> = None;
        let mut killed_at: Option<Instant> = None;
        loop {
            if let Some(status) = self.exit_status() {
                return self.judge(status, leave_by.is_some());
            }
            if killed_at.is_some_and(|at| at.elapsed() > WORKER_LEAVES_MAX) {
                return Ended::Undead;
            }
            let woken = self.wait(signals);
            notifier.alive();
            let has_beaten = self.drain_beats(notifier);
            if has_beaten {
                silent_polls = 0;
            } else if !woken {
                silent_polls += 1;
            }
            while let Some(signal) = signals.next() {
                match signal {
                    Signal::SIGTERM | Signal::SIGINT => {
                        notifier.stopping();
                        self.send(Signal::SIGTERM);
                        leave_by.get_or_insert(Instant::now() + WORKER_LEAVES_MAX);
                    }
                    Signal::SIGHUP => self.ask_to_reload(notifier),
                    _ => {}
                }
            }
            // Before its first beat a worker has lowered nothing, and opening a driver may take its time.
            let is_hung = self.has_beaten && silent_polls >= WORKER_SILENT_POLLS_MAX;
            let is_late = leave_by.is_some_and(|leave_by| Instant::now() >= leave_by);
            if (is_hung || is_late) && killed_at.is_none() {
                tracing::error!(is_hung, is_late, "the worker does not answer and is killed");
                self.send(Signal::SIGKILL);
                killed_at = Some(Instant::now());
            }
        }
    }

    /// Whether anything but time brought us back.
    fn wait(&self, signals: &Signals) -> bool {
        let mut descriptors = [
            PollFd::new(signals.descriptor.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.beats.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut descriptors, poll_timeout(WORKER_BEAT_EVERY)) {
            Ok(ready) => ready > 0,
            Err(_) => true,
        }
    }

    fn ask_to_reload(&mut self, notifier: &Notifier) {
        if !self.was_ready {
            self.reload = Reload::WaitsForReady;
            return;
        }
        notifier.reloading();
        self.reload = Reload::UnderWay;
        self.send(Signal::SIGHUP);
    }

    fn drain_beats(&mut self, notifier: &Notifier) -> bool {
        let mut bytes = [0u8; 64];
        let mut beaten = false;
        while let Ok(count) = self.beats.read(&mut bytes) {
            if count == 0 {
                // Closed: the worker is dying, and SIGCHLD is on its way. Do not spin until then.
                std::thread::sleep(Duration::from_micros(200));
                break;
            }
            beaten = true;
            if bytes[..count].contains(&READY) {
                self.was_ready = true;
                notifier.ready();
                if self.reload == Reload::WaitsForReady {
                    self.ask_to_reload(notifier);
                }
            }
            if bytes[..count].contains(&RELOADED) && self.reload == Reload::UnderWay {
                self.reload = Reload::NotAsked;
                notifier.ready();
            }
        }
        self.has_beaten |= beaten;
        beaten
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        match self.child.try_wait() {
            Ok(status) => status,
            Err(wrong) => {
                tracing::error!("the worker cannot be waited for: {wrong}");
                None
            }
        }
    }

    fn judge(&self, status: ExitStatus, was_asked: bool) -> Ended {
        let pid = self.child.id();
        if was_asked {
            tracing::info!(pid, %status, "worker left");
            return Ended::Asked;
        }
        tracing::error!(pid, %status, signal = status.signal(), "worker died");
        match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code @ (EXIT_REFUSED | EXIT_UNAVAILABLE)) => Ended::RefusedToStart { code },
            _ => Ended::Crashed,
        }
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids are positive");
        // Fails where it is dead already, and then there is nothing to tell it.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

pub fn poll_timeout(wait: Duration) -> PollTimeout {
    PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
}
