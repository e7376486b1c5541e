//! The one thread that reads a device. Apart from the one that sets it, so that a slow reading delays no clock. It reads
//! when somebody asks, and by itself while there is a write whose effect is to be seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::device::{ControlName, Device, DeviceError, Reading};
use crate::device_thread::Written;
use crate::limits::{READING_FRESH, READING_WAIT_MAX};
use crate::readback::{Foreign, Readback, SettleTimes};

pub struct Sampler {
    device: Arc<dyn Device>,
    inbox: Mutex<Inbox>,
    asked: Condvar,
    latest: watch::Sender<Numbered>,
    settles: Mutex<SettleTimes>,
}

#[derive(Default)]
struct Inbox {
    /// The number of the reading that somebody waits for.
    wanted: u64,
    /// The latest of each control.
    writes: BTreeMap<ControlName, Write>,
}

enum Write {
    Begun,
    Done(Written),
}

#[derive(Clone)]
struct Numbered {
    number: u64,
    at: Instant,
    result: Result<Reading, DeviceError>,
}

impl Sampler {
    pub fn start(
        device: Arc<dyn Device>,
        found: impl Fn(Foreign) + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let name = format!("read {}", device.info().id);
        let none_yet = Numbered {
            number: 0,
            at: Instant::now(),
            result: Err(DeviceError::new("not read yet")),
        };
        let this = Arc::new(Self {
            device,
            inbox: Mutex::default(),
            asked: Condvar::new(),
            latest: watch::Sender::new(none_yet),
            settles: Mutex::default(),
        });
        let worker = Arc::clone(&this);
        thread::Builder::new()
            .name(name)
            .spawn(move || worker.run(&found))?;
        Ok(this)
    }

    /// A reading that is at most `READING_FRESH` old, shared with whoever asks at the same time.
    pub async fn sample(&self) -> Result<Reading, DeviceError> {
        let mut latest = self.latest.subscribe();
        let wanted = {
            let known = latest.borrow();
            if known.number > 0 && known.at.elapsed() < READING_FRESH {
                return known.result.clone();
            }
            known.number + 1
        };
        self.tell(|inbox| inbox.wanted = inbox.wanted.max(wanted));
        let read = latest.wait_for(|known| known.number >= wanted);
        match tokio::time::timeout(READING_WAIT_MAX, read).await {
            Ok(Ok(known)) => known.result.clone(),
            Ok(Err(_)) => Err(DeviceError::new("the device's reader is gone")),
            Err(_) => Err(DeviceError(format!(
                "no reading within {} ms",
                READING_WAIT_MAX.as_millis()
            ))),
        }
    }

    /// The device is about to be written.
    pub fn writing(&self, control: ControlName) {
        self.tell(|inbox| {
            inbox.writes.insert(control, Write::Begun);
        });
    }

    pub fn written(&self, written: Written) {
        self.tell(|inbox| {
            inbox.writes.insert(written.control, Write::Done(written));
        });
    }

    /// How long changes have taken to arrive so far.
    pub fn settles(&self) -> SettleTimes {
        self.settles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn tell(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        self.asked.notify_one();
    }

    fn run(&self, found: &impl Fn(Foreign)) -> ! {
        let mut number = 0;
        let mut energy = EnergyTick::default();
        let mut readback = Readback::default();
        let mut published = 0;
        loop {
            self.wait_until_asked(number, &mut readback);
            number += 1;
            let began_at = Instant::now();
            let mut result = self.device.read();
            let at = Instant::now();
            if let Ok(reading) = &mut result {
                energy.see(reading, at);
                self.take_writes(&mut readback);
                for foreign in readback.see(reading, began_at, at) {
                    found(foreign);
                }
                if readback.settles().revision() != published {
                    published = readback.settles().revision();
                    *self.settles.lock().unwrap_or_else(PoisonError::into_inner) = readback.settles().clone();
                }
            }
            self.latest.send_replace(Numbered { number, at, result });
        }
    }

    fn wait_until_asked(&self, done: u64, readback: &mut Readback) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut look_at = None;
        loop {
            if !inbox.writes.is_empty() {
                take_all(&mut inbox, readback);
                look_at = None;
            }
            let now = Instant::now();
            let due = *look_at.get_or_insert_with(|| readback.look_at(now));
            if inbox.wanted > done || due.is_some_and(|due| due <= now) {
                return;
            }
            let wait = due.map_or(Duration::from_secs(3600), |due| due - now);
            let woken = self.asked.wait_timeout(inbox, wait);
            inbox = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take_writes(&self, readback: &mut Readback) {
        take_all(
            &mut self.inbox.lock().unwrap_or_else(PoisonError::into_inner),
            readback,
        );
    }
}

fn take_all(inbox: &mut Inbox, readback: &mut Readback) {
    for (control, write) in std::mem::take(&mut inbox.writes) {
        match write {
            Write::Begun => readback.writing(control),
            Write::Done(written) => readback.written(written),
        }
    }
}
/// NVML's energy counter ticks about every 100 ms and does not say when. Who reads it often enough can tell.
#[derive(Default)]
struct EnergyTick {
    last_mj: Option<u64>,
    ticked_at: Option<Instant>,
}

impl EnergyTick {
    fn see(&mut self, reading: &mut Reading, now: Instant) {
        let Some(energy_mj) = reading.energy_mj else {
            return;
        };
        if self.last_mj.is_some_and(|last_mj| last_mj != energy_mj) {
            self.ticked_at = Some(now);
        }
        self.last_mj = Some(energy_mj);
        if reading.energy_age_ms.is_none() {
            // Unknown until it was seen to change: the first reading may be of any age.
            let age: Option<Duration> = self.ticked_at.map(|at| now.saturating_duration_since(at));
            reading.energy_age_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_an_energy_counter_is_unknown_until_it_was_seen_to_tick() {
        let start = Instant::now();
        let mut tick = EnergyTick::default();
        let cases = [
            (0, 500, None),
            (40, 500, None),
            (60, 530, Some(0)),
            (95, 530, Some(35)),
        ];
        for (at_ms, energy_mj, wanted) in cases {
            let mut reading = Reading {
                energy_mj: Some(energy_mj),
                ..Reading::default()
            };
            tick.see(&mut reading, start + Duration::from_millis(at_ms));
            assert_eq!(reading.energy_age_ms, wanted, "at {at_ms} ms");
        }
    }
}
