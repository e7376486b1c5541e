//! What setting a device has cost so far: counts, call times, failures.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::arbiter::{Cause, Command, Setting};
use crate::limits::CALL_TIMES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Raise,
    Lower,
}

impl Direction {
    /// From an unknown setting everything but the default counts as lowering.
    pub fn between(before: Option<Setting>, after: Setting) -> Self {
        match before {
            Some(before) if after < before => Direction::Lower,
            None if after != Setting::Default => Direction::Lower,
            _ => Direction::Raise,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Raise => "raise",
            Direction::Lower => "lower",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct WriteStats {
    pub raises: u64,
    pub lowers: u64,
    pub failures: u64,
    /// Successful resets, by why.
    pub restores: BTreeMap<Cause, u64>,
    call_us_max: u64,
    latest_call_us: VecDeque<u64>,
}

impl WriteStats {
    pub fn record(&mut self, direction: Direction, call: Duration, is_ok: bool, command: &Command) {
        match direction {
            Direction::Raise => self.raises += 1,
            Direction::Lower => self.lowers += 1,
        }
        if !is_ok {
            self.failures += 1;
        } else if command.setting == Setting::Default {
            *self.restores.entry(command.cause).or_default() += 1;
        }
        let call_us = u64::try_from(call.as_micros()).unwrap_or(u64::MAX);
        self.call_us_max = self.call_us_max.max(call_us);
        if self.latest_call_us.len() == CALL_TIMES_MAX {
            self.latest_call_us.pop_front();
        }
        self.latest_call_us.push_back(call_us);
    }

    pub fn count(&self) -> u64 {
        self.raises + self.lowers
    }

    /// Of the latest calls; `None` before the first.
    pub fn call_us_p50(&self) -> Option<u64> {
        let mut sorted: Vec<u64> = self.latest_call_us.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }

    pub fn call_us_max(&self) -> Option<u64> {
        (self.count() > 0).then_some(self.call_us_max)
    }
}
