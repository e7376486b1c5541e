//! Runs one command to its end, within a time and with bounded outputs. Without a thread: the caller's own waits.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::template::Template;
use crate::device::DeviceError;
use crate::limits::{EXEC_KILLED_MAX, EXEC_OUTPUT_BYTES_MAX, EXEC_TERMINATED_MAX};

/// How soon an end is seen that no output announces.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Of standard error, in a message.
const SAID_CHARS_MAX: usize = 300;

/// Runs one command at a time. One that cannot be killed (it is root's, or in the kernel) keeps the next from being
/// started: it might still set what the next one has put back.
#[derive(Default)]
pub struct Runner {
    unfinished: Mutex<Option<Child>>,
}

pub struct Run<'a> {
    pub template: &'a Template,
    pub args: Vec<String>,
    pub env: &'a BTreeMap<String, String>,
    pub timeout: Duration,
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{} {}`", self.template.name, self.args.join(" "))
    }
}

impl Runner {
    /// What it wrote to standard output.
    pub fn run(&self, run: &Run<'_>) -> Result<Vec<u8>, DeviceError> {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = unfinished.as_mut() {
            if !has_ended(child) {
                return Err(DeviceError(format!(
                    "{run} not begun: the command before, process {}, could not be killed and still runs",
                    child.id()
                )));
            }
            reap(child);
            *unfinished = None;
        }
        let mut child = spawn(run).map_err(|wrong| DeviceError(format!("{run}: {wrong}")))?;
        let mut outputs = Outputs::of(&mut child);
        if outputs.read_until_ended(&child, run.timeout) {
            let status = reap(&mut child);
            outputs.read_what_is_there();
            return outputs.judge(run, status);
        }
        if !end(&mut child, &mut outputs) {
            let pid = child.id();
            *unfinished = Some(child);
            return Err(DeviceError(format!(
                "{run}: no end within {} ms, and process {pid} cannot be killed",
                run.timeout.as_millis()
            )));
        }
        outputs.read_what_is_there();
        Err(DeviceError(format!(
            "{run}: no end within {} ms, killed{}",
            run.timeout.as_millis(),
            outputs.said()
        )))
    }
}

fn spawn(run: &Run<'_>) -> std::io::Result<Child> {
    let mut command = Command::new(&run.template.program);
    command.arg0(&run.template.name).args(&run.args);
    command.env_clear().envs(run.env).current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0);
    on_its_own(&mut command);
    command.spawn()
}

/// It dies with us: one that outlived a killed agent could slow the device after the restore. And it gets none of our
/// descriptors: the state directory's lock is inherited by children, and a hanging one would keep the next agent out.
#[allow(unsafe_code)]
fn on_its_own(command: &mut Command) {
    let prepare = || {
        // SAFETY: both are plain system calls, which may be made between fork and exec.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let all = (3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            if libc::syscall(libc::SYS_close_range, all.0, all.1, all.2) != 0 {
                // Before Linux 5.11. The agent itself has far fewer.
                for descriptor in 3..1024 {
                    libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
                }
            }
        }
        Ok(())
    };
    // SAFETY: `prepare` allocates nothing, takes no lock and makes only the calls above.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Not reaped yet, so that its process group is still its own.
fn has_ended(child: &Child) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(pid(child)), flags), Ok(WaitStatus::StillAlive))
}

/// Of one that has ended, with whatever it left in its group.
fn reap(child: &mut Child) -> Option<ExitStatus> {
    let _ = killpg(pid(child), Signal::SIGKILL);
    child.wait().ok()
}

/// Asked first: a `sudo` hands that on to what it runs, and cannot hand on being killed.
fn end(child: &mut Child, outputs: &mut Outputs) -> bool {
    for (signal, patience) in [
        (Signal::SIGTERM, EXEC_TERMINATED_MAX),
        (Signal::SIGKILL, EXEC_KILLED_MAX),
    ] {
        let _ = killpg(pid(child), signal);
        if outputs.read_until_ended(child, patience) {
            reap(child);
            return true;
        }
    }
    false
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process id fits"))
}

struct Outputs {
    stdout: Output<std::process::ChildStdout>,
    stderr: Output<std::process::ChildStderr>,
}

/// `pipe` is `None` once it is at its end.
struct Output<P> {
    pipe: Option<P>,
    kept: Vec<u8>,
    /// The latest is kept, else the earliest.
    keeps_tail: bool,
    is_cut: bool,
}

impl Outputs {
    fn of(child: &mut Child) -> Self {
        Self {
            stdout: Output::of(child.stdout.take(), false),
            stderr: Output::of(child.stderr.take(), true),
        }
    }

    /// Whether it has. Read all the while: a command must not wait for us to listen.
    fn read_until_ended(&mut self, child: &Child, patience: Duration) -> bool {
        let give_up_at = Instant::now() + patience;
        loop {
            self.read_what_is_there();
            if has_ended(child) {
                return true;
            }
            let left = give_up_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let open = [self.stdout.descriptor(), self.stderr.descriptor()];
            let open = open.into_iter().flatten();
            let mut waited: Vec<PollFd<'_>> = open.map(|one| PollFd::new(one, PollFlags::POLLIN)).collect();
            let wait = PollTimeout::try_from(left.min(LOOK_EVERY)).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut waited, wait);
        }
    }

    fn read_what_is_there(&mut self) {
        self.stdout.read_what_is_there();
        self.stderr.read_what_is_there();
    }

    fn judge(self, run: &Run<'_>, status: Option<ExitStatus>) -> Result<Vec<u8>, DeviceError> {
        let said = self.said();
        let wrong = match status.map(|status| (status.code(), status.signal())) {
            Some((Some(0), _)) if self.stdout.is_cut => {
                format!("more than {EXEC_OUTPUT_BYTES_MAX} bytes of output")
            }
            Some((Some(0), _)) => return Ok(self.stdout.kept),
            Some((Some(code), _)) => format!("exit status {code}"),
            Some((None, Some(signal))) => format!("ended by signal {signal}"),
            _ => "ended, nobody knows how".to_owned(),
        };
        Err(DeviceError(format!("{run}: {wrong}{said}")))
    }

    /// The last words of its standard error, on one line.
    fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr.kept);
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = words.join(" ");
        let skipped = line.chars().count().saturating_sub(SAID_CHARS_MAX);
        let tail: String = line
            .chars()
            .skip(skipped)
            .filter(|one| !one.is_control())
            .collect();
        match (tail.is_empty(), skipped) {
            (true, _) => String::new(),
            (false, 0) => format!(": {tail}"),
            (false, _) => format!(": …{tail}"),
        }
    }
}

impl<P: Read + AsFd> Output<P> {
    fn of(pipe: Option<P>, keeps_tail: bool) -> Self {
        if let Some(pipe) = &pipe {
            // Else whoever inherited it and writes nothing could keep us reading.
            let _ = fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        }
        Self {
            pipe,
            kept: Vec::new(),
            keeps_tail,
            is_cut: false,
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// At most a few rounds, so that endless output does not outlast the time.
    fn read_what_is_there(&mut self) {
        let mut part = [0u8; 16 * 1024];
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut part) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.keep(&part[..count]),
                Err(wrong) if wrong.kind() == ErrorKind::WouldBlock => return,
                Err(wrong) if wrong.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.pipe = None,
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        self.kept.extend_from_slice(part);
        let over = self.kept.len().saturating_sub(EXEC_OUTPUT_BYTES_MAX);
        self.is_cut |= over > 0;
        if self.keeps_tail {
            self.kept.drain(..over);
        } else {
            self.kept.truncate(EXEC_OUTPUT_BYTES_MAX);
        }
    }
}
