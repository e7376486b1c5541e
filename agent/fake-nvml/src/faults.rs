//! `<dir>/nvml-faults.json`, for example
//! `{"nvmlDeviceSetGpuLockedClocks": {"device": 0, "return": 999, "delay_ms": 20, "hang": false}}`.
//! A function has one fault or a list of them; a fault without `device` is for all; without `return` the call is done.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub device: Option<u32>,
    #[serde(rename = "return")]
    pub code: Option<i32>,
    #[serde(default)]
    pub delay_ms: u64,
    /// Until the file says otherwise.
    #[serde(default)]
    pub hang: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Fault),
    Many(Vec<Fault>),
}

pub fn find(directory: &Path, function: &str, device: Option<u32>) -> Fault {
    let path = directory.join("nvml-faults.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Fault::default();
    };
    let faults: HashMap<String, OneOrMany> = match serde_json::from_str(&text) {
        Ok(faults) => faults,
        Err(wrong) => {
            // A test that injects nothing because of a typo would pass for the wrong reason.
            eprintln!("fake NVML: {}: {wrong}", path.display());
            std::process::abort();
        }
    };
    let of_function = match faults.get(function) {
        Some(OneOrMany::One(fault)) => std::slice::from_ref(fault),
        Some(OneOrMany::Many(faults)) => faults.as_slice(),
        None => &[],
    };
    let meant = of_function
        .iter()
        .find(|fault| fault.device.is_none() || fault.device == device);
    meant.cloned().unwrap_or_default()
}
