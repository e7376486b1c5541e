//! The real binary, started and ended by the test.

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::client::Client;
use super::sandbox::{Driver, Sandbox};
use super::{SOON, wait_until};

pub struct Agent {
    child: Child,
    log_path: PathBuf,
    socket_path: PathBuf,
}

/// Beside the test itself, where cargo puts what it builds for it.
pub fn fake_nvml_path() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("libfake_nvml.so")
}

pub fn command(sandbox: &Sandbox, subcommand: &str) -> Command {
    // Another binary, to see a test fail on one that has a rule broken.
    let binary = std::env::var_os("PACELINE_TEST_AGENT");
    let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_paceline-agent").into()));
    command.arg(subcommand);
    match sandbox.driver {
        Driver::Sim => command
            .args(["--driver", "sim", "--sim-dir"])
            .arg(sandbox.devices_path()),
        Driver::Nvml => command
            .args(["--driver", "nvml", "--nvml-library"])
            .arg(fake_nvml_path())
            .env("PACELINE_FAKE_NVML_DIR", sandbox.devices_path()),
        Driver::Exec => command
            .args(["--driver", "exec", "--exec-config"])
            .arg(sandbox.exec_config_path()),
    };
    if subcommand != "probe" {
        command.arg("--state-dir").arg(sandbox.state_path());
    }
    if subcommand == "serve" {
        command.arg("--socket").arg(sandbox.socket_path());
        command.arg("--policy").arg(sandbox.policy_path());
    }
    command
}

impl Agent {
    /// Serving when this returns.
    pub fn start(sandbox: &Sandbox) -> Self {
        Self::start_with(sandbox, |_| {})
    }

    pub fn start_with(sandbox: &Sandbox, change: impl FnOnce(&mut Command)) -> Self {
        let mut agent = Self::spawn(sandbox, change);
        wait_until("the agent serves", || {
            if let Some(status) = agent.child.try_wait().unwrap() {
                panic!("the agent left with {status}: {}", agent.log());
            }
            Client::try_new(&agent.socket_path).is_some()
        });
        agent
    }

    pub fn spawn(sandbox: &Sandbox, change: impl FnOnce(&mut Command)) -> Self {
        let log_path = sandbox.path.join("agent.log");
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .unwrap();
        let mut command = command(sandbox, "serve");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        change(&mut command);
        Self {
            child: command.spawn().unwrap(),
            log_path,
            socket_path: sandbox.socket_path(),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.socket_path)
    }

    pub fn sentinel(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    /// `None` while it runs.
    pub fn has_left(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Of this sentinel, now; `None` between two of them. The kernel's word, which no late log line can blur.
    pub fn worker_now(&self) -> Option<i32> {
        let sentinel = self.sentinel();
        let children = fs::read_to_string(format!("/proc/{sentinel}/task/{sentinel}/children")).ok()?;
        let mut pids = children.split(' ').filter_map(|pid| pid.trim().parse().ok());
        pids.find(|pid| {
            let arguments = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.contains("--worker-of") && is_alive(*pid)
        })
    }

    /// The latest one.
    pub fn worker(&self) -> i32 {
        let started = || {
            let mut lines = self.log_lines().into_iter().rev();
            lines.find(|line| line["message"] == "worker started")
        };
        wait_until("the sentinel says so", || started().is_some());
        let pid = started().unwrap()["pid"].as_i64().unwrap();
        pid.try_into().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log_path).unwrap()
    }

    pub fn log_lines(&self) -> Vec<Value> {
        let log = self.log();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    pub fn audit(&self, event: &str) -> Vec<Value> {
        let lines = self.log_lines().into_iter();
        lines
            .filter(|line| line["target"] == "audit" && line["event"] == event)
            .collect()
    }

    /// Log lines have a thread of their own and may come after the answer.
    pub fn wait_for_audit(&self, event: &str) -> Value {
        wait_until(event, || !self.audit(event).is_empty());
        self.audit(event).remove(0)
    }

    pub fn wait(&mut self) -> ExitStatus {
        let give_up_at = Instant::now() + SOON * 2;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < give_up_at,
                "the agent does not leave: {}",
                self.log()
            );
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        send(self.sentinel(), Signal::SIGTERM);
        let give_up_at = Instant::now() + SOON * 2;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > give_up_at {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

pub fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Dead only with all of its threads: a leader that is a zombie may have others that still hold its sockets.
pub fn is_alive(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    let mut stats = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    stats.any(|stat| {
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        !after_name.starts_with(['Z', 'X'])
    })
}
