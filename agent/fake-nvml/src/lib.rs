//! A stand-in for `libnvidia-ml.so.1` over emulated devices, so that the agent's real NVML path runs without a GPU.
//!
//! - `PACELINE_FAKE_NVML_DIR` names the directory (layout in PROTOCOL.md). Device n is the n-th of its list.
//! - Every call is appended to `<dir>/nvml-ops.jsonl`.
//! - `<dir>/nvml-faults.json` is read anew for every call and makes functions fail, wait or hang.
//!
//! Only what the agent and zeusd 0.5 call is here. Behaviour follows nvml.h: codes, units, the order of the clock lists.

#![allow(non_snake_case)]
// The functions are C's: what their pointers must hold is nvml.h's to say, once for all of them.
#![allow(clippy::missing_safety_doc)]

mod call;
mod codes;
mod faults;
mod op_log;
mod out;

use std::ffi::{c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use call::{Handle, call, call_device};
use codes::*;
use out::{put, put_list, put_text};
use serde_json::json;

const MEMORY_CLOCK_MHZ: c_uint = 2619;

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    call("nvmlInit_v2", json!({}), call::initialise)
}

/// `NVML_INIT_FLAG_NO_GPUS` and `NVML_INIT_FLAG_NO_ATTACH` make no difference where every device is there.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(flags: c_uint) -> c_int {
    call("nvmlInitWithFlags", json!({"flags": flags}), call::initialise)
}

/// Of the branch whose field numbers are used here.
const DRIVER_VERSION: &str = "550.54.15";

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: c_uint) -> c_int {
    call(
        "nvmlSystemGetDriverVersion",
        json!({}),
        || match call::device_count() {
            Some(_) => unsafe { put_text(text, length, DRIVER_VERSION) },
            None => UNINITIALIZED,
        },
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    call("nvmlShutdown", json!({}), call::forget)
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: c_int) -> *const c_char {
    codes::meaning(code).as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    call("nvmlDeviceGetCount_v2", json!({}), || {
        match call::device_count() {
            Some(devices) => unsafe { put(count, devices) },
            None => UNINITIALIZED,
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut Handle) -> c_int {
    call(
        "nvmlDeviceGetHandleByIndex_v2",
        json!({"index": index}),
        || match call::device_count() {
            None => UNINITIALIZED,
            Some(devices) if index >= devices => INVALID_ARGUMENT,
            // Never null: a null handle must stay recognisable.
            Some(_) => unsafe { put(handle, (index as usize + 1) as *mut c_void) },
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(handle: Handle, text: *mut c_char, length: c_uint) -> c_int {
    call_device("nvmlDeviceGetUUID", handle, json!({}), |device| unsafe {
        put_text(text, length, &device.description().uuid)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(handle: Handle, text: *mut c_char, length: c_uint) -> c_int {
    call_device("nvmlDeviceGetName", handle, json!({}), |device| unsafe {
        put_text(text, length, &device.description().name)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedMemoryClocks(
    handle: Handle,
    count: *mut c_uint,
    clocks: *mut c_uint,
) -> c_int {
    call_device(
        "nvmlDeviceGetSupportedMemoryClocks",
        handle,
        json!({}),
        |_| unsafe { put_list(count, clocks, &[MEMORY_CLOCK_MHZ]) },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSupportedGraphicsClocks(
    handle: Handle,
    memory_mhz: c_uint,
    count: *mut c_uint,
    clocks: *mut c_uint,
) -> c_int {
    let args = json!({"memory_mhz": memory_mhz});
    call_device("nvmlDeviceGetSupportedGraphicsClocks", handle, args, |device| {
        if memory_mhz != MEMORY_CLOCK_MHZ {
            return NOT_FOUND;
        }
        // NVML lists the fastest first.
        let descending: Vec<u32> = device.description().clocks_mhz.iter().rev().copied().collect();
        unsafe { put_list(count, clocks, &descending) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(handle: Handle, kind: c_uint, clock: *mut c_uint) -> c_int {
    call_device(
        "nvmlDeviceGetClockInfo",
        handle,
        json!({"kind": kind}),
        |device| unsafe { put_clock(device, kind, clock) },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClock(
    handle: Handle,
    kind: c_uint,
    which: c_uint,
    clock: *mut c_uint,
) -> c_int {
    let args = json!({"kind": kind, "which": which});
    call_device("nvmlDeviceGetClock", handle, args, |device| unsafe {
        put_clock(device, kind, clock)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceSetGpuLockedClocks(handle: Handle, min_mhz: c_uint, max_mhz: c_uint) -> c_int {
    let args = json!({"min_mhz": min_mhz, "max_mhz": max_mhz});
    call_device("nvmlDeviceSetGpuLockedClocks", handle, args, |device| {
        if min_mhz == 0 || min_mhz > max_mhz {
            return INVALID_ARGUMENT;
        }
        device.lock_clock(min_mhz, max_mhz).map_or(UNKNOWN, |()| SUCCESS)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceResetGpuLockedClocks(handle: Handle) -> c_int {
    call_device("nvmlDeviceResetGpuLockedClocks", handle, json!({}), |device| {
        device.lock_clock(0, 0).map_or(UNKNOWN, |()| SUCCESS)
    })
}

/// There is one memory clock, so a range that has it in it changes nothing.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceSetMemoryLockedClocks(handle: Handle, min_mhz: c_uint, max_mhz: c_uint) -> c_int {
    let args = json!({"min_mhz": min_mhz, "max_mhz": max_mhz});
    call_device("nvmlDeviceSetMemoryLockedClocks", handle, args, |_| {
        if (min_mhz..=max_mhz).contains(&MEMORY_CLOCK_MHZ) {
            SUCCESS
        } else {
            INVALID_ARGUMENT
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceResetMemoryLockedClocks(handle: Handle) -> c_int {
    call_device("nvmlDeviceResetMemoryLockedClocks", handle, json!({}), |_| {
        SUCCESS
    })
}

/// `nvmlEnableState_t`: 0 or 1. Kept for this process, one bit a device; a real driver keeps it for all.
static PERSISTENT: AtomicU64 = AtomicU64::new(0);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPersistenceMode(handle: Handle, mode: *mut c_uint) -> c_int {
    call_device("nvmlDeviceGetPersistenceMode", handle, json!({}), |device| {
        let on = PERSISTENT.load(Ordering::Relaxed) >> (device.index() % u64::BITS) & 1;
        unsafe { put(mode, c_uint::from(on == 1)) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceSetPersistenceMode(handle: Handle, mode: c_uint) -> c_int {
    call_device(
        "nvmlDeviceSetPersistenceMode",
        handle,
        json!({"mode": mode}),
        |device| {
            let bit = 1_u64 << (device.index() % u64::BITS);
            match mode {
                0 => PERSISTENT.fetch_and(!bit, Ordering::Relaxed),
                1 => PERSISTENT.fetch_or(bit, Ordering::Relaxed),
                _ => return INVALID_ARGUMENT,
            };
            SUCCESS
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(handle: Handle, power_mw: *mut c_uint) -> c_int {
    call_device(
        "nvmlDeviceGetPowerUsage",
        handle,
        json!({}),
        |device| match call::telemetry(device) {
            Ok(telemetry) => unsafe { put(power_mw, telemetry.power_mw) },
            Err(code) => code,
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEnergyConsumption(
    handle: Handle,
    energy_mj: *mut c_ulonglong,
) -> c_int {
    call_device(
        "nvmlDeviceGetTotalEnergyConsumption",
        handle,
        json!({}),
        |device| match call::telemetry(device) {
            Ok(telemetry) => unsafe { put(energy_mj, telemetry.energy_mj) },
            Err(code) => code,
        },
    )
}

/// `nvmlUtilization_t`.
#[repr(C)]
pub struct Utilization {
    gpu_pct: c_uint,
    memory_pct: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(handle: Handle, rates: *mut Utilization) -> c_int {
    call_device(
        "nvmlDeviceGetUtilizationRates",
        handle,
        json!({}),
        |device| match call::telemetry(device) {
            Ok(telemetry) => {
                let gpu_pct = telemetry.utilization_pct;
                unsafe {
                    put(
                        rates,
                        Utilization {
                            gpu_pct,
                            memory_pct: 0,
                        },
                    )
                }
            }
            Err(code) => code,
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    handle: Handle,
    sensor: c_uint,
    temperature_c: *mut c_uint,
) -> c_int {
    call_device(
        "nvmlDeviceGetTemperature",
        handle,
        json!({"sensor": sensor}),
        |device| match call::telemetry(device) {
            Ok(telemetry) => unsafe { put(temperature_c, telemetry.temperature_c) },
            Err(code) => code,
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksEventReasons(
    handle: Handle,
    reasons: *mut c_ulonglong,
) -> c_int {
    unsafe { put_reasons("nvmlDeviceGetCurrentClocksEventReasons", handle, reasons) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    handle: Handle,
    reasons: *mut c_ulonglong,
) -> c_int {
    unsafe { put_reasons("nvmlDeviceGetCurrentClocksThrottleReasons", handle, reasons) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerManagementLimit(handle: Handle, limit_mw: *mut c_uint) -> c_int {
    call_device("nvmlDeviceGetPowerManagementLimit", handle, json!({}), |device| {
        let default_mw = device.description().default_power_limit_mw;
        match device.command() {
            Ok(command) if command.power_limit_mw > 0 => unsafe { put(limit_mw, command.power_limit_mw) },
            Ok(_) => unsafe { put(limit_mw, default_mw) },
            Err(_) => UNKNOWN,
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerManagementDefaultLimit(
    handle: Handle,
    limit_mw: *mut c_uint,
) -> c_int {
    call_device(
        "nvmlDeviceGetPowerManagementDefaultLimit",
        handle,
        json!({}),
        |device| unsafe { put(limit_mw, device.description().default_power_limit_mw) },
    )
}

/// A share of the default below which no card can be set; that of an H100, about.
const LOWEST_POWER_SHARE: c_uint = 4;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerManagementLimitConstraints(
    handle: Handle,
    lowest_mw: *mut c_uint,
    highest_mw: *mut c_uint,
) -> c_int {
    let function = "nvmlDeviceGetPowerManagementLimitConstraints";
    call_device(function, handle, json!({}), |device| {
        let default_mw = device.description().default_power_limit_mw;
        match unsafe { put(lowest_mw, default_mw / LOWEST_POWER_SHARE) } {
            SUCCESS => unsafe { put(highest_mw, default_mw) },
            code => code,
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceSetPowerManagementLimit(handle: Handle, limit_mw: c_uint) -> c_int {
    let args = json!({"limit_mw": limit_mw});
    call_device("nvmlDeviceSetPowerManagementLimit", handle, args, |device| {
        let default_mw = device.description().default_power_limit_mw;
        if !(default_mw / LOWEST_POWER_SHARE..=default_mw).contains(&limit_mw) {
            return INVALID_ARGUMENT;
        }
        device.limit_power(limit_mw).map_or(UNKNOWN, |()| SUCCESS)
    })
}

/// `nvmlFieldValue_t`.
#[repr(C)]
pub struct FieldValue {
    field_id: c_uint,
    scope_id: c_uint,
    timestamp_us: c_longlong,
    latency_us: c_longlong,
    value_type: c_uint,
    code: c_int,
    value: u64,
}

const FIELD_TOTAL_ENERGY: c_uint = 83;
const FIELD_POWER_INSTANT: c_uint = 186;
const VALUE_UNSIGNED_INT: c_uint = 1;
const VALUE_UNSIGNED_LONG_LONG: c_uint = 3;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    handle: Handle,
    count: c_int,
    values: *mut FieldValue,
) -> c_int {
    let Ok(length) = usize::try_from(count) else {
        return INVALID_ARGUMENT;
    };
    if values.is_null() {
        return INVALID_ARGUMENT;
    }
    let values = unsafe { std::slice::from_raw_parts_mut(values, length) };
    let ids: Vec<c_uint> = values.iter().map(|value| value.field_id).collect();
    call_device(
        "nvmlDeviceGetFieldValues",
        handle,
        json!({"fields": ids}),
        |device| {
            for value in values {
                let known = call::telemetry(device).and_then(|telemetry| match value.field_id {
                    FIELD_TOTAL_ENERGY => Ok((VALUE_UNSIGNED_LONG_LONG, telemetry.energy_mj)),
                    FIELD_POWER_INSTANT => Ok((VALUE_UNSIGNED_INT, u64::from(telemetry.power_mw))),
                    _ => Err(NOT_SUPPORTED),
                });
                // As NVML does: one field that is not known fails by itself, not the call.
                match known {
                    Ok((value_type, number)) => {
                        value.code = SUCCESS;
                        value.value_type = value_type;
                        value.value = number;
                    }
                    Err(code) => value.code = code,
                }
            }
            SUCCESS
        },
    )
}

/// 0 graphics and 1 SM run at one clock here; 2 is memory.
unsafe fn put_clock(device: &emulated_device::EmulatedDevice, kind: c_uint, clock: *mut c_uint) -> c_int {
    match (kind, call::telemetry(device)) {
        (0 | 1, Ok(telemetry)) => unsafe { put(clock, telemetry.clock_mhz) },
        (2, _) => unsafe { put(clock, MEMORY_CLOCK_MHZ) },
        (0 | 1, Err(code)) => code,
        _ => INVALID_ARGUMENT,
    }
}

unsafe fn put_reasons(function: &'static str, handle: Handle, reasons: *mut c_ulonglong) -> c_int {
    call_device(function, handle, json!({}), |device| {
        match call::telemetry(device) {
            Ok(telemetry) => unsafe { put(reasons, telemetry.throttle_reasons) },
            Err(code) => code,
        }
    })
}
