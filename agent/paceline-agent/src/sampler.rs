//! The one thread that reads a device. Apart from the one that sets it, so that a slow reading delays no clock.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::device::{Device, DeviceError, Reading};
use crate::limits::{READING_FRESH, READING_WAIT_MAX};

pub struct Sampler {
    device: Arc<dyn Device>,
    /// The number of the reading that somebody waits for.
    wanted: Mutex<u64>,
    asked: Condvar,
    latest: watch::Sender<Numbered>,
}

#[derive(Clone)]
struct Numbered {
    number: u64,
    at: Instant,
    result: Result<Reading, DeviceError>,
}

impl Sampler {
    pub fn start(device: Arc<dyn Device>) -> std::io::Result<Arc<Self>> {
        let name = format!("read {}", device.info().id);
        let none_yet = Numbered {
            number: 0,
            at: Instant::now(),
            result: Err(DeviceError("not read yet".to_owned())),
        };
        let this = Arc::new(Self {
            device,
            wanted: Mutex::new(0),
            asked: Condvar::new(),
            latest: watch::Sender::new(none_yet),
        });
        let worker = Arc::clone(&this);
        thread::Builder::new().name(name).spawn(move || worker.run())?;
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
        {
            let mut asked_for = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            *asked_for = (*asked_for).max(wanted);
        }
        self.asked.notify_one();
        let read = latest.wait_for(|known| known.number >= wanted);
        match tokio::time::timeout(READING_WAIT_MAX, read).await {
            Ok(Ok(known)) => known.result.clone(),
            Ok(Err(_)) => Err(DeviceError("the device's reader is gone".to_owned())),
            Err(_) => Err(DeviceError(format!(
                "no reading within {} ms",
                READING_WAIT_MAX.as_millis()
            ))),
        }
    }

    fn run(&self) -> ! {
        let mut number = 0;
        let mut energy = EnergyTick::default();
        loop {
            self.wait_until_asked(number);
            number += 1;
            let mut result = self.device.read();
            let at = Instant::now();
            if let Ok(reading) = &mut result {
                energy.see(reading, at);
            }
            self.latest.send_replace(Numbered { number, at, result });
        }
    }

    fn wait_until_asked(&self, done: u64) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        while *wanted <= done {
            wanted = self.asked.wait(wanted).unwrap_or_else(PoisonError::into_inner);
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
