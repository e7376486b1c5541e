//! argv, and the help that comes with it.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::driver::DriverChoice;

#[derive(Parser)]
#[command(
    name = "paceline-agent",
    version,
    about = "Sets GPU clocks under leases, and always puts them back.",
    long_about = "The one privileged part of Paceline, one per GPU node. A client takes a lease over a Unix socket \
        (HTTP/1.1 + JSON) and slows devices down while it keeps the lease alive. When the client is killed, hangs, \
        or lets go, and when this agent is killed, crashes or stops, the devices go back to default clocks.\n\n\
        Start with `paceline-agent probe` to see what this node can do.",
    after_long_help = EXAMPLES
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Serve leases and samples on a Unix socket until SIGTERM.
    ///
    /// Runs as two processes: a sentinel, and the worker that it starts. When the worker dies the sentinel puts every
    /// journaled device back to default clocks and starts another; when the sentinel dies the worker does the same and
    /// leaves. SIGTERM and SIGINT restore, then exit with 0; SIGHUP reads the policy and the tokens again.
    ///
    /// Both drop every capability but CAP_SYS_ADMIN, which NVML asks for to set clocks. systemd is told over
    /// NOTIFY_SOCKET when the agent is ready, reloads, stops, and that it lives.
    ///
    /// Exit status: 0 left in order, 1 left with devices not known to be at default, 69 no driver or no device,
    /// 78 refused to start (the message says what to change), 70 crashed too often.
    #[command(after_long_help = SERVE_EXAMPLES)]
    Serve(ServeOptions),
    /// Put every journaled device back to default clocks, then exit. For systemd's ExecStopPost.
    ///
    /// Does nothing where the journal is empty. Exit status 0: no device is left lowered by this agent.
    #[command(after_long_help = RESTORE_EXAMPLES)]
    Restore(RestoreOptions),
    /// Ask a running agent how it is: prints its answer, exit status 0 when that is good. For probes and scripts.
    ///
    /// Exit status: 0 it serves (with --ready: and no device waits for a restore), 1 it answers otherwise, 69 nobody
    /// answers.
    Check(CheckOptions),
    /// Say what this node can do: devices, what of them can be set and in which steps, what they tell, how long a reading
    /// takes and how often the energy counter ticks. Reads only; needs no lease, no policy and no running agent.
    ///
    /// A counter that ticks every 100 ms cannot measure a step of 20 ms: take windows of ten ticks and more.
    ///
    /// With the exec driver its `read` commands are run, and nothing else of its file.
    #[command(after_long_help = PROBE_EXAMPLES)]
    Probe(ProbeOptions),
    /// Write a completion script for a shell to stdout.
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsOptions),
}

const EXAMPLES: &str = "Examples:
  paceline-agent probe --driver nvml
  paceline-agent serve --driver nvml --socket /run/paceline/agent.sock \\
    --state-dir /var/lib/paceline-agent --policy /etc/paceline/agent-policy.json
  curl --unix-socket /run/paceline/agent.sock http://agent/v1/devices
  paceline-agent restore --driver nvml --state-dir /var/lib/paceline-agent";

const SERVE_EXAMPLES: &str = "Examples:
  # NVIDIA GPUs and the CPU packages beside them
  paceline-agent serve --driver nvml --driver rapl --socket /run/paceline/agent.sock --socket-group paceline \\
    --state-dir /var/lib/paceline-agent --policy /etc/paceline/agent-policy.json
  # Only look, and say what would be set
  paceline-agent serve --observe --driver nvml --socket /run/paceline/agent.sock --state-dir /var/lib/paceline-agent
  # Where root is never granted: the site's own commands
  paceline-agent serve --driver exec --exec-config /etc/paceline/exec.json --socket /run/paceline/agent.sock \\
    --state-dir ~/.local/state/paceline-agent --policy ~/agent-policy.json";

const RESTORE_EXAMPLES: &str = "Examples:
  paceline-agent restore --driver nvml --state-dir /var/lib/paceline-agent
  # As the unit does: ExecStopPost=/usr/local/bin/paceline-agent restore --driver nvml --state-dir /var/lib/paceline-agent";

const PROBE_EXAMPLES: &str = "Examples:
  paceline-agent probe --driver nvml
  paceline-agent probe --driver nvml --driver rapl --watch-ms 5000 --json";

const COMPLETIONS_EXAMPLES: &str = "Examples:
  paceline-agent completions bash > /usr/share/bash-completion/completions/paceline-agent
  paceline-agent completions zsh > /usr/local/share/zsh/site-functions/_paceline-agent
  paceline-agent completions fish > ~/.config/fish/completions/paceline-agent.fish";

#[derive(Args, Clone)]
pub struct CompletionsOptions {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// To stdout, whole.
pub fn write_completions(options: &CompletionsOptions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "paceline-agent", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[derive(Args, Clone)]
pub struct ServeOptions {
    /// Where to listen. The file gets mode 0660; a stale one is replaced, one that is answered on is not.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Group of the socket file, a name or a number: whoever is in it may connect and read. Setting needs a rule in the
    /// policy.
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,
    #[command(flatten)]
    pub driver: DriverOptions,
    /// Journal, epochs and lock. Made if missing, mode 0700. One agent at a time.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Who may slow which devices (JSON, see README.md). Must belong to root or to this user, writable by nobody else.
    /// Read again on SIGHUP: leases that it would not grant any more end, and an invalid one changes nothing.
    #[arg(long, value_name = "FILE", required_unless_present = "observe")]
    pub policy: Option<PathBuf>,
    /// Listen on loopback TCP as well, for clients that cannot open the socket: 127.0.0.1:9500 or [::1]:9500.
    ///
    /// Any other address, and every name, is a refusal to start: a token must not cross a network in the clear. Every
    /// request but `GET /healthz` needs `Authorization: Bearer TOKEN`; requests of browsers are refused.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "tcp_token_file")]
    pub tcp: Option<String>,
    /// Lines of `name token`, each at least 32 characters; rules of the policy name them in `tokens`. Mode 600 or 400,
    /// owned by root or this user.
    #[arg(long, value_name = "FILE", requires = "tcp")]
    pub tcp_token_file: Option<PathBuf>,
    /// Set nothing: leases are granted, and answered with what would have been set. What an earlier agent left lowered is
    /// restored all the same. Without a policy everybody may ask.
    #[arg(long)]
    pub observe: bool,
    /// Least serious lines to write to stderr. Audit lines are `info`.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// One process only, for a debugger. A kill -9 then leaves clocks lowered until `restore` or the next start.
    #[arg(long)]
    pub no_sentinel: bool,
    /// Given by the sentinel to its worker: the sentinel's process id.
    #[arg(long, hide = true, value_name = "PID")]
    pub worker_of: Option<i32>,
}

#[derive(Args, Clone)]
pub struct RestoreOptions {
    #[command(flatten)]
    pub driver: DriverOptions,
    /// The state directory of the agent whose devices are to be restored.
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Restore although another agent holds the state directory. Its journal is left alone.
    #[arg(long)]
    pub force: bool,
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Given by the sentinel, which holds the lock already.
    #[arg(long, hide = true)]
    pub lock_inherited: bool,
}

#[derive(Args, Clone)]
pub struct CheckOptions {
    /// The agent's socket.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Ask /readyz instead of /healthz: the state of restores, and of the latest reload of the policy.
    #[arg(long)]
    pub ready: bool,
}

#[derive(Args, Clone)]
pub struct ProbeOptions {
    #[command(flatten)]
    pub driver: DriverOptions,
    /// How long to watch the energy counters for their tick. 0: not at all.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub watch_ms: u64,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Clone)]
pub struct DriverOptions {
    /// Whose devices to serve. May be given several times.
    #[arg(long, value_enum, value_name = "DRIVER", required = true)]
    pub driver: Vec<DriverName>,
    /// Directory of the emulated devices (see PROTOCOL.md).
    #[arg(long, value_name = "DIR", required_if_eq("driver", "sim"))]
    pub sim_dir: Option<PathBuf>,
    /// The NVML library to load.
    #[arg(long, value_name = "PATH", default_value = "libnvidia-ml.so.1")]
    pub nvml_library: PathBuf,
    /// Where the file drivers (amdgpu, xe, rapl) look, for containers and tests.
    #[arg(long, value_name = "DIR", default_value = "/sys")]
    pub sysfs_root: PathBuf,
    /// The commands of the exec driver (JSON, see README.md). Owner and mode as the policy's.
    #[arg(long, value_name = "FILE", required_if_eq("driver", "exec"))]
    pub exec_config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum DriverName {
    /// Emulated devices of `paceline emulate`.
    Sim,
    /// NVIDIA GPUs, through NVML: clocks as a ceiling, power limits.
    Nvml,
    /// AMD GPUs, through the files of amdgpu.
    Amdgpu,
    /// Intel GPUs, through the files of xe.
    Xe,
    /// CPU packages: RAPL energy and power limit, cpufreq clocks.
    Rapl,
    /// Devices that are set by commands of this site: sudo rules, a daemon's client, a vendor's tool.
    Exec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl LogLevel {
    pub fn filter(self) -> LevelFilter {
        match self {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        }
    }
}

impl DriverOptions {
    /// In the order given, none twice.
    pub fn choices(&self) -> Vec<DriverChoice> {
        let mut names = Vec::new();
        for &name in &self.driver {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.into_iter().map(|name| self.choice(name)).collect()
    }

    /// Commands of a site's own are started, and may be `sudo`.
    pub fn runs_commands(&self) -> bool {
        self.driver.contains(&DriverName::Exec)
    }

    fn choice(&self, name: DriverName) -> DriverChoice {
        match name {
            DriverName::Sim => DriverChoice::Sim {
                directory: self.sim_dir.clone().expect("clap requires it with sim"),
            },
            DriverName::Nvml => DriverChoice::Nvml {
                library: self.nvml_library.clone(),
            },
            DriverName::Amdgpu => DriverChoice::Amdgpu {
                sysfs: self.sysfs_root.clone(),
            },
            DriverName::Xe => DriverChoice::Xe {
                sysfs: self.sysfs_root.clone(),
            },
            DriverName::Rapl => DriverChoice::Rapl {
                sysfs: self.sysfs_root.clone(),
            },
            DriverName::Exec => DriverChoice::Exec {
                config: self.exec_config.clone().expect("clap requires it with exec"),
            },
        }
    }

    /// The same options as argv, for a process of our own that works on the same devices.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        for name in &self.driver {
            let name = name.to_possible_value().expect("no driver is skipped");
            args.extend(["--driver".into(), name.get_name().into()]);
        }
        if let Some(sim_dir) = &self.sim_dir {
            args.extend(["--sim-dir".into(), sim_dir.into()]);
        }
        args.extend(["--nvml-library".into(), (&self.nvml_library).into()]);
        args.extend(["--sysfs-root".into(), (&self.sysfs_root).into()]);
        if let Some(exec_config) = &self.exec_config {
            args.extend(["--exec-config".into(), exec_config.into()]);
        }
        args
    }
}
