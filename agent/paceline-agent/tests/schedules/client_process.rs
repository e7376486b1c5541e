//! A client in a process of its own, to be stopped and killed: the test binary, started once more (see `support/holder`).
//! Unlike that one it leaves quietly when its lease is gone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::raw;
use crate::support::sandbox::Sandbox;

const WHAT: &str = "PACELINE_TEST_HOLD";

/// Its devices were told when this returns. `None`: no lease.
pub fn start(sandbox: &Sandbox, devices: &[String], clock_mhz: u32, ttl_ms: u64) -> Option<(Child, Value)> {
    let what = json!({"socket": sandbox.socket_path(), "devices": devices, "clock_mhz": clock_mhz,
        "ttl_ms": ttl_ms});
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "the_client_process", "--nocapture"])
        .env(WHAT, what.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut granted =
        lines.filter_map(|line| serde_json::from_str(line.ok()?.strip_prefix("holding ")?).ok());
    match granted.next() {
        Some(granted) => Some((child, granted)),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            None
        }
    }
}

pub fn run() {
    let Ok(what) = std::env::var(WHAT) else {
        return;
    };
    let what: Value = serde_json::from_str(&what).unwrap();
    let socket_path = what["socket"].as_str().unwrap().as_ref();
    let body = json!({"holder": "process", "devices": what["devices"], "ttl_ms": what["ttl_ms"]});
    let Some(Ok(lease)) = raw::lease(socket_path, &body) else {
        return;
    };
    for seq in 0.. {
        let body = json!({"epoch": lease.granted["epoch"], "seq": seq,
            "targets": [{"devices": what["devices"], "clock_mhz": what["clock_mhz"], "hold_ms": 60_000}]});
        let path = format!("/v1/leases/{}/targets", lease.id());
        let reply = raw::send(socket_path, "PUT", &path, &body.to_string());
        if reply.is_none_or(|reply| reply.status != 200) {
            return;
        }
        if seq == 0 {
            // On a line of its own: the harness has begun one with the test's name.
            println!("\nholding {}", lease.granted);
            std::io::stdout().flush().unwrap();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
