//! `<dir>/nvml-ops.jsonl`: one line per call, appended with one write, so that several processes may share it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

/// A sampler left running overnight must not fill the disk.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub fn append(directory: &Path, function: &str, device: Option<u32>, args: &Value, result: &Value) {
    let line = json!({
        "function": function,
        "device": device,
        "args": args,
        "result": result,
        "at_ns": emulated_device::monotonic_ns(),
        "pid": std::process::id(),
    });
    let path = directory.join("nvml-ops.jsonl");
    let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) else {
        return;
    };
    if file
        .metadata()
        .is_ok_and(|metadata| metadata.len() < LOG_BYTES_MAX)
    {
        // A log that cannot be written must not change what the caller sees.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
