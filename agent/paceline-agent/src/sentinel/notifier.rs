//! What systemd is told, over the socket that it names in NOTIFY_SOCKET (sd_notify(3)). By the sentinel, which is the
//! unit's main process; without such a socket nothing is said to anybody.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use emulated_device::monotonic_ns;

/// Not for our children: they are not the ones to say anything.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog_every: Option<Duration>,
    fed_at: Cell<Option<Instant>>,
}

impl Notifier {
    pub fn from_environment() -> Self {
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|name| match connect(&name) {
            Ok(to) => Some(to),
            Err(wrong) => {
                tracing::warn!("NOTIFY_SOCKET cannot be used: {wrong}");
                None
            }
        });
        Self {
            to,
            watchdog_every: watchdog_every(),
            fed_at: Cell::new(None),
        }
    }

    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=Serving.");
    }

    pub fn reloading(&self) {
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_ns() / 1_000));
    }

    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=Restoring default clocks.");
    }

    /// The unit is up all the while: the sentinel is, and it sees to a new worker.
    pub fn restoring(&self) {
        self.say("STATUS=The worker died; restoring default clocks.");
    }

    /// Called at every turn of the sentinel's loops; tells as often as it must.
    pub fn alive(&self) {
        let Some(every) = self.watchdog_every else {
            return;
        };
        let now = Instant::now();
        if self.fed_at.get().is_none_or(|at| now.duration_since(at) >= every) {
            self.fed_at.set(Some(now));
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, words: &str) {
        if let Some((socket, address)) = &self.to {
            // Nobody is left to be told where systemd does not listen, and a full queue must not stall us.
            let _ = socket.send_to_addr(words.as_bytes(), address);
        }
    }
}

fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// A third of what systemd waits: one late turn is not the end.
fn watchdog_every() -> Option<Duration> {
    let of_somebody_else = std::env::var("WATCHDOG_PID")
        .is_ok_and(|pid| pid.parse::<u32>().is_ok_and(|pid| pid != std::process::id()));
    let usec: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (!of_somebody_else && usec > 0).then(|| Duration::from_micros(usec) / 3)
}
