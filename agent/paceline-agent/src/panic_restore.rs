//! A panic means that we are wrong, and a wrong agent stops. First it puts back what it may have lowered; then it aborts,
//! and the sentinel restores once more from the journal.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::device_thread::{CRASHING, DeviceThread};
use crate::limits::PANIC_RESTORE_MAX;

pub fn install(threads: &[Arc<DeviceThread>]) {
    let threads = threads.to_vec();
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // A second panic, in this hook or in another thread, must not begin again.
        if !CRASHING.swap(true, Ordering::SeqCst) {
            print(info);
            restore_touched(&threads);
        }
        std::process::abort();
    }));
}

/// Waits for no lock that the panicking thread might hold, and for no device longer than the bound.
fn restore_touched(threads: &[Arc<DeviceThread>]) {
    let done = Arc::new(AtomicUsize::new(0));
    let mut wanted = 0;
    for one in threads {
        // Where it cannot be had, the device is the sentinel's.
        let owed = one.try_owed().unwrap_or_default();
        if owed.is_empty() {
            continue;
        }
        let device = Arc::clone(one.device());
        let done = Arc::clone(&done);
        wanted += 1;
        // Without a thread for it the device is the sentinel's, too.
        let _ = thread::Builder::new().spawn(move || {
            for (control, undo) in owed {
                let _ = undo.apply(device.as_ref(), control);
            }
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    let give_up_at = Instant::now() + PANIC_RESTORE_MAX;
    while done.load(Ordering::SeqCst) < wanted && Instant::now() < give_up_at {
        thread::sleep(Duration::from_millis(1));
    }
}
