//! The worker: builds everything, serves, and leaves with the devices at default clocks.

use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getppid};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::access::{Access, AccessFiles};
use crate::cli::{DriverName, ServeOptions};
use crate::control::{Control, ControlOptions};
use crate::device::DeviceId;
use crate::driver;
use crate::epoch::Epochs;
use crate::http::{self, AgentSocket, App, Listeners, Mode};
use crate::journal::{self, Journal};
use crate::limits::{SHUTDOWN_RESTORE_MAX, START_RESTORE_MAX, WORKER_LEAVES_MAX};
use crate::log;
use crate::panic_restore;
use crate::privilege::{self, Privilege};
use crate::restore::{Owed, owed, restore_all};
use crate::sentinel;
use crate::start_error::StartError;
use crate::state_dir::StateDir;

pub fn run(options: &ServeOptions) -> Result<ExitCode, StartError> {
    // The sentinel reads its signals from a descriptor and blocks them; its child inherits that.
    let unblocked = SigSet::empty().thread_set_mask();
    unblocked.map_err(|wrong| StartError::refused(format!("signal mask: {wrong}")))?;
    if let Some(group) = &options.socket_group {
        privilege::join_group(group);
    }
    let privilege = Privilege::drop_all_but_kept(options.driver.runs_commands());
    log::start(options.log_level.filter())
        .map_err(|wrong| StartError::refused(format!("no log thread: {wrong}")))?;
    tell_privilege(&privilege, &options.driver.driver);
    let leave = Arc::new(Notify::new());
    if let Some(sentinel) = options.worker_of {
        follow_sentinel_to_death(sentinel)?;
    }
    let directory = StateDir::open(&options.state_dir)?;
    let _lock = match options.worker_of {
        // Inherited: the descriptor came with us and stays open for as long as we live.
        Some(_) => None,
        None => Some(directory.lock(Duration::ZERO)?),
    };
    let access = Access::load(AccessFiles {
        policy: options.policy.clone(),
        tokens: options.tcp_token_file.clone(),
    })?;
    // Before any device is touched: where it cannot listen it does not start.
    let tcp = options.tcp.as_deref().map(http::bind_tcp).transpose()?;
    let epochs = Epochs::open(directory.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|wrong| StartError::refused(format!("no runtime: {wrong}")))?;
    let control = start_control(options, directory, &access)?;
    panic_restore::install(control.threads());
    #[cfg(debug_assertions)]
    panic_when_a_test_says_so();
    if options.worker_of.is_some() {
        leave_with_sentinel(Arc::clone(&control), Arc::clone(&leave))?;
    }
    let code = runtime.block_on(serve(options, access, tcp, epochs, control, &leave))?;
    // Not waiting for the runtime's own threads: one of them may be in a call that never returns.
    runtime.shutdown_background();
    Ok(code)
}

/// Not a refusal where it cannot set clocks: it still reads, and each device says by itself that it could not be set.
fn tell_privilege(privilege: &Privilege, drivers: &[DriverName]) {
    tracing::info!(
        effective = %privilege.effective(),
        bounding = %privilege.bounding(),
        uid = nix::unistd::geteuid().as_raw(),
        "capabilities"
    );
    for wrong in &privilege.wrong {
        tracing::warn!("a capability could not be dropped: {wrong}");
    }
    if drivers.contains(&DriverName::Nvml) && !privilege.may_set_clocks() {
        tracing::warn!(
            "no CAP_SYS_ADMIN: NVML will refuse to set clocks. Start as root, or give CAP_SYS_ADMIN to this user \
             (systemd: AmbientCapabilities; Kubernetes: capabilities.add)"
        );
    }
}

fn start_control(
    options: &ServeOptions,
    directory: StateDir,
    access: &Access,
) -> Result<Arc<Control>, StartError> {
    let found = journal::find(&directory);
    let unavailable = |wrong: driver::DriverError| StartError::unavailable(wrong.to_string());
    let mut devices = driver::open_all(&options.driver.choices()).map_err(unavailable)?;
    let was_lowered = !found.is_empty();
    let Owed { here, elsewhere } = owed(found, &devices);
    let owed = restore_all(&devices, here, START_RESTORE_MAX);
    if was_lowered {
        // Described anew: what a lowered device says of its limits is not what it can do. Closed first: a library that
        // does not count who has opened it would be closed for us as well.
        drop(std::mem::take(&mut devices));
        devices = driver::open_all(&options.driver.choices()).map_err(unavailable)?;
    }
    let journaled = owed.clone().into_iter().chain(elsewhere.clone()).collect();
    let journal = Journal::new(directory, journaled);
    journal
        .rewrite()
        .map_err(|wrong| StartError::refused(format!("the journal cannot be written: {wrong}")))?;
    let rules = access.rules();
    let declared = devices
        .iter()
        .map(|device| rules.declared(&device.info().id))
        .collect();
    let control_options = ControlOptions {
        devices,
        owed,
        elsewhere: elsewhere.into_keys().collect(),
        journal: Arc::new(journal),
        declared,
        observes: options.observe,
    };
    let is_worker = options.worker_of.is_some();
    Control::start(control_options, move || tell_sentinel(is_worker, sentinel::BEAT))
        .map_err(|wrong| StartError::refused(format!("no thread for a device: {wrong}")))
}

async fn serve(
    options: &ServeOptions,
    access: Access,
    tcp: Option<std::net::TcpListener>,
    epochs: Epochs,
    control: Arc<Control>,
    leave: &Notify,
) -> Result<ExitCode, StartError> {
    let no_signals = |wrong| StartError::refused(format!("signals: {wrong}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(no_signals)?;
    if !control.all_settled(START_RESTORE_MAX).await {
        tracing::error!("some journaled devices are not at default clocks yet; they are retried");
    }
    let (socket, listener) = AgentSocket::bind(&options.socket, options.socket_group.as_deref())?;
    let listener = UnixListener::from_std(listener)
        .map_err(|wrong| StartError::refused(format!("--socket: {wrong}")))?;
    let no_tcp = |wrong| StartError::refused(format!("--tcp: {wrong}"));
    let tcp = tcp.map(TcpListener::from_std).transpose().map_err(no_tcp)?;
    let tcp_address = tcp.as_ref().map(TcpListener::local_addr);
    let tcp_address = tcp_address.transpose().map_err(no_tcp)?;
    let app = Arc::new(App {
        control: Arc::clone(&control),
        access,
        token_refusals: http::Refusals::new(Instant::now()),
        epochs,
        mode: if options.observe {
            Mode::Observe
        } else {
            Mode::Control
        },
        closing: watch::Sender::new(false),
    });
    let serving = tokio::spawn(http::serve(Arc::clone(&app), Listeners { unix: listener, tcp }));
    let devices = control.threads().len();
    tell_sentinel(options.worker_of.is_some(), sentinel::READY);
    let tcp = tcp_address.map(tracing::field::display);
    tracing::info!(socket = %options.socket.display(), tcp, devices, "ready");
    let why = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            () = leave.notified() => break "the sentinel is gone",
            _ = hang_up.recv() => {
                let app = Arc::clone(&app);
                let is_worker = options.worker_of.is_some();
                // Reads files, and waits for grants under way: neither must hold up leaving.
                tokio::task::spawn_blocking(move || {
                    app.reload();
                    tell_sentinel(is_worker, sentinel::RELOADED);
                });
            }
        }
    };
    tracing::info!(why, "leaving");
    control.shut_down();
    control.all_settled(SHUTDOWN_RESTORE_MAX).await;
    app.closing.send_replace(true);
    // Bounded by `serve` itself. A task that panicked has ended the process already.
    let _ = serving.await;
    let pending = wait_for_journal(&control).await;
    socket.remove();
    for device in &pending {
        tracing::error!(%device, "left without knowing it to be at default clocks; it stays in the journal");
    }
    Ok(if pending.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The devices' threads take them out of the journal after they have answered. Answers with those that are still owed.
async fn wait_for_journal(control: &Control) -> Vec<DeviceId> {
    let give_up_at = Instant::now() + SHUTDOWN_RESTORE_MAX / 2;
    loop {
        let pending = control.restores_pending();
        let is_clean = control
            .threads()
            .iter()
            .all(|one| !one.is_touched() || pending.contains(&one.device().info().id));
        if is_clean || Instant::now() >= give_up_at {
            return pending;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The kernel sends SIGTERM when the sentinel dies, also by SIGKILL; a sentinel that died before we asked is seen by
/// its process id.
fn follow_sentinel_to_death(sentinel: i32) -> Result<(), StartError> {
    prctl::set_pdeathsig(Signal::SIGTERM)
        .map_err(|wrong| StartError::refused(format!("PR_SET_PDEATHSIG: {wrong}")))?;
    if getppid() != Pid::from_raw(sentinel) {
        return Err(StartError::unavailable(
            "the sentinel died before its worker had begun",
        ));
    }
    let flags = OFlag::O_NONBLOCK;
    fcntl(std::io::stdout(), FcntlArg::F_SETFL(flags))
        .map_err(|wrong| StartError::refused(format!("stdout is not the sentinel's pipe: {wrong}")))?;
    Ok(())
}

/// Standard output is a pipe to the sentinel. A full one is a sentinel that was stopped; a closed one is noticed by
/// `leave_with_sentinel`.
fn tell_sentinel(is_worker: bool, word: u8) {
    if is_worker {
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(&[word]).and_then(|()| stdout.flush());
    }
}

/// Standard input is a pipe that only the sentinel holds open. This thread restores without the help of the runtime:
/// were that hung, it would be the last one to act.
fn leave_with_sentinel(control: Arc<Control>, leave: Arc<Notify>) -> Result<(), StartError> {
    let watch = move || {
        let mut byte = [0u8; 1];
        loop {
            match std::io::stdin().read(&mut byte) {
                Ok(0) => break,
                Err(wrong) if wrong.kind() != std::io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        control.shut_down();
        leave.notify_one();
        std::thread::sleep(WORKER_LEAVES_MAX);
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("life-line".to_owned())
        .spawn(watch)
        .map(drop)
        .map_err(|wrong| StartError::refused(format!("no life-line thread: {wrong}")))
}

/// So that a test can see a panic restore. Not in release builds.
#[cfg(debug_assertions)]
fn panic_when_a_test_says_so() {
    let after_ms = std::env::var("PACELINE_AGENT_TEST_PANIC_AFTER_MS").ok();
    if let Some(after_ms) = after_ms.and_then(|text| text.parse().ok()) {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(after_ms));
            panic!("a test asked for this");
        });
    }
}
