//! What every call has in common: the devices, the faults, the log.

use std::ffi::{c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use emulated_device::{EmulatedDevice, Telemetry};
use serde_json::{Value, json};

use crate::codes::{INVALID_ARGUMENT, NOT_SUPPORTED, SUCCESS, UNINITIALIZED, UNKNOWN};
use crate::{faults, op_log};

/// `nvmlDevice_t`: the device's place in the list, plus one.
pub type Handle = *mut c_void;

const HANG_POLL: Duration = Duration::from_millis(10);

static LIBRARY: RwLock<Library> = RwLock::new(Library {
    initialised: 0,
    devices: None,
});

/// As nvml.h has it: initialisations are counted, and only the last shutdown forgets.
struct Library {
    initialised: u32,
    devices: Option<Arc<[EmulatedDevice]>>,
}

pub fn initialise() -> c_int {
    let Some(directory) = directory() else {
        eprintln!("fake NVML: PACELINE_FAKE_NVML_DIR is not set");
        return UNKNOWN;
    };
    match emulated_device::list(&directory) {
        Ok(devices) => {
            let mut library = LIBRARY.write().unwrap_or_else(PoisonError::into_inner);
            library.initialised += 1;
            library.devices = Some(devices.into());
            SUCCESS
        }
        Err(wrong) => {
            eprintln!("fake NVML: {wrong}");
            UNKNOWN
        }
    }
}

pub fn forget() -> c_int {
    let mut library = LIBRARY.write().unwrap_or_else(PoisonError::into_inner);
    let Some(left) = library.initialised.checked_sub(1) else {
        return UNINITIALIZED;
    };
    library.initialised = left;
    if left == 0 {
        library.devices = None;
    }
    SUCCESS
}

pub fn device_count() -> Option<c_uint> {
    let devices = devices()?;
    Some(c_uint::try_from(devices.len()).expect("a directory has fewer files"))
}

pub fn telemetry(device: &EmulatedDevice) -> Result<Telemetry, c_int> {
    // Before the emulator's first word the device can tell nothing.
    device.telemetry().map_err(|_| UNKNOWN)?.ok_or(NOT_SUPPORTED)
}

pub fn call(function: &'static str, args: Value, act: impl FnOnce() -> c_int) -> c_int {
    run(function, None, &args, act)
}

pub fn call_device(
    function: &'static str,
    handle: Handle,
    args: Value,
    act: impl FnOnce(&EmulatedDevice) -> c_int,
) -> c_int {
    let position = (handle as usize).checked_sub(1);
    let number = position.and_then(|position| u32::try_from(position).ok());
    run(function, number, &args, || {
        let Some(devices) = devices() else {
            return UNINITIALIZED;
        };
        let device = position.and_then(|position| devices.get(position));
        device.map_or(INVALID_ARGUMENT, act)
    })
}

fn run(function: &'static str, device: Option<u32>, args: &Value, act: impl FnOnce() -> c_int) -> c_int {
    let Some(directory) = directory() else {
        return act();
    };
    let code = injected(&directory, function, device, args).unwrap_or_else(act);
    op_log::append(&directory, function, device, args, &json!(code));
    code
}

/// Delays and hangs here; `None` where the call is to be done.
fn injected(directory: &Path, function: &str, device: Option<u32>, args: &Value) -> Option<c_int> {
    let mut fault = faults::find(directory, function, device);
    if fault.hang {
        op_log::append(directory, function, device, args, &json!("hang"));
        while fault.hang {
            std::thread::sleep(HANG_POLL);
            fault = faults::find(directory, function, device);
        }
    }
    std::thread::sleep(Duration::from_millis(fault.delay_ms));
    fault.code
}

/// Shared, not locked: a call that hangs must not hold up another.
fn devices() -> Option<Arc<[EmulatedDevice]>> {
    let library = LIBRARY.read().unwrap_or_else(PoisonError::into_inner);
    library.devices.clone()
}

fn directory() -> Option<PathBuf> {
    std::env::var_os("PACELINE_FAKE_NVML_DIR").map(PathBuf::from)
}
