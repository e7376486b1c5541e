//! `nvmlReturn_t`, as far as it is used here.

use std::ffi::{CStr, c_int};

pub const SUCCESS: c_int = 0;
pub const UNINITIALIZED: c_int = 1;
pub const INVALID_ARGUMENT: c_int = 2;
pub const NOT_SUPPORTED: c_int = 3;
pub const NOT_FOUND: c_int = 6;
pub const INSUFFICIENT_SIZE: c_int = 7;
pub const UNKNOWN: c_int = 999;

pub fn meaning(code: c_int) -> &'static CStr {
    match code {
        SUCCESS => c"Success",
        UNINITIALIZED => c"Uninitialized",
        INVALID_ARGUMENT => c"Invalid Argument",
        NOT_SUPPORTED => c"Not Supported",
        4 => c"Insufficient Permissions",
        NOT_FOUND => c"Not Found",
        INSUFFICIENT_SIZE => c"Insufficient Size",
        13 => c"Function Not Found",
        15 => c"GPU is lost",
        UNKNOWN => c"Unknown Error",
        _ => c"Error",
    }
}
