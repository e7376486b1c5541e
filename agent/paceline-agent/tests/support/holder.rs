//! A client that is a process of its own, to be killed and stopped: the test binary, started once more with one test to
//! run, which is this one's `run`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::client::Client;
use super::sandbox::Sandbox;

/// Slows every device down for a minute and renews, until it is killed.
pub struct Holder {
    pub child: Child,
}

const SOCKET: &str = "PACELINE_TEST_SOCKET";
const DEVICES: &str = "PACELINE_TEST_DEVICES";
const TTL_MS: &str = "PACELINE_TEST_TTL_MS";

impl Holder {
    /// The devices are lowered when this returns.
    pub fn start(sandbox: &Sandbox, ttl_ms: u64) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "the_holder_process", "--nocapture"])
            .env(SOCKET, sandbox.socket_path())
            .env(DEVICES, sandbox.devices().join(","))
            .env(TTL_MS, ttl_ms.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut holder = Self { child };
        let mut lines = BufReader::new(holder.child.stdout.take().unwrap()).lines();
        let is_holding = lines.any(|line| line.unwrap().contains("holding"));
        assert!(is_holding, "the holder did not get its lease");
        holder
    }

    pub fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let devices: Vec<String> = std::env::var(DEVICES)
        .unwrap()
        .split(',')
        .map(str::to_owned)
        .collect();
    let client = Client::new(socket.as_ref());
    let lease = client.lease(&devices, std::env::var(TTL_MS).unwrap().parse().unwrap());
    for seq in 0.. {
        client.slow(&lease, seq, &devices, 990, 60_000);
        if seq == 0 {
            println!("holding");
            std::io::stdout().flush().unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
