//! Writing through C's pointers: null is an invalid argument, a short buffer an insufficient size.

use std::ffi::{c_char, c_int, c_uint};

use crate::codes::{INSUFFICIENT_SIZE, INVALID_ARGUMENT, SUCCESS};

/// # Safety
/// `place` is null or may be written.
pub unsafe fn put<T>(place: *mut T, value: T) -> c_int {
    if place.is_null() {
        return INVALID_ARGUMENT;
    }
    unsafe { place.write(value) };
    SUCCESS
}

/// # Safety
/// `text` is null or has room for `length` bytes.
pub unsafe fn put_text(text: *mut c_char, length: c_uint, value: &str) -> c_int {
    if text.is_null() {
        return INVALID_ARGUMENT;
    }
    if value.len() >= length as usize {
        return INSUFFICIENT_SIZE;
    }
    unsafe {
        text.copy_from_nonoverlapping(value.as_ptr().cast(), value.len());
        text.add(value.len()).write(0);
    }
    SUCCESS
}

/// # Safety
/// `count` may be read and written; `list` is null or has room for `*count` numbers.
pub unsafe fn put_list(count: *mut c_uint, list: *mut c_uint, values: &[u32]) -> c_int {
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    let room = unsafe { count.read() } as usize;
    let needed = c_uint::try_from(values.len()).expect("a description has at most a megabyte of clocks");
    unsafe { count.write(needed) };
    if list.is_null() || room < values.len() {
        return INSUFFICIENT_SIZE;
    }
    unsafe { list.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    SUCCESS
}
