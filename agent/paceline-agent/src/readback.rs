//! Success is not effect. What was written is compared with what the device then does: how long a change takes to arrive,
//! and whether somebody else has set the control since. Pure: writes and readings come in, findings go out.

mod settle_times;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use settle_times::{SettleTimes, Span};

use crate::arbiter::{Evidence, Setting};
use crate::device::{ControlName, Reading};
use crate::device_thread::Written;
use crate::limits::{
    FOREIGN_READINGS_MIN, FOREIGN_SPAN_MIN, SETTLE_MAX, SETTLE_POLL_FIRST, SETTLE_POLL_MAX, WATCH_EVERY,
};

#[derive(Default)]
pub struct Readback {
    watched: BTreeMap<ControlName, Watched>,
    settles: SettleTimes,
}

struct Watched {
    written: Written,
    state: State,
    /// What the getter said at the first look after the write: drivers round. `None` where there is no getter.
    expected: Option<u64>,
    has_looked: bool,
    /// Readings in a row that the write cannot explain, and since when.
    unexplained: u32,
    unexplained_since: Option<Instant>,
}

#[derive(Clone, Copy)]
enum State {
    /// The clock has not arrived yet. `last_mhz` tells a clock that still moves from one that rests short of its target.
    Settling { last_mhz: Option<u32>, has_moved: bool },
    /// Arrived, or given up waiting.
    Settled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub control: ControlName,
    pub evidence: Evidence,
}

impl Readback {
    /// Before a write: what is read from here on says nothing about the write before.
    pub fn writing(&mut self, control: ControlName) {
        self.watched.remove(&control);
    }

    pub fn written(&mut self, written: Written) {
        let is_clock = written.control == ControlName::Clock;
        let state = match (is_clock, written.from) {
            (true, Some(_)) => State::Settling {
                last_mhz: None,
                has_moved: false,
            },
            _ => State::Settled,
        };
        let watched = Watched {
            written,
            state,
            expected: None,
            has_looked: false,
            unexplained: 0,
            unexplained_since: None,
        };
        self.watched.insert(written.control, watched);
    }

    /// A reading that began at `began_at` and ended at `at`.
    pub fn see(&mut self, reading: &Reading, began_at: Instant, at: Instant) -> Vec<Foreign> {
        let mut found = Vec::new();
        for (&control, watched) in &mut self.watched {
            if began_at < watched.written.at {
                continue;
            }
            if let Some(settled) = watched.settle(reading, at) {
                self.settles.record(span(&watched.written), settled);
            }
            if let Some(evidence) = watched.judge(control, reading, at) {
                found.push(Foreign { control, evidence });
            }
        }
        // A control at default is watched only until it has arrived there.
        self.watched
            .retain(|_, watched| watched.is_settling() || watched.written.to != Setting::Default);
        for foreign in &found {
            self.watched.remove(&foreign.control);
        }
        found
    }

    /// When to look again, if there is anything to look for.
    pub fn look_at(&self, now: Instant) -> Option<Instant> {
        self.watched.values().map(|watched| watched.look_at(now)).min()
    }

    pub fn settles(&self) -> &SettleTimes {
        &self.settles
    }
}

fn span(written: &Written) -> Span {
    Span {
        from: written.from.and_then(Setting::value),
        to: written.to.value(),
    }
}

impl Watched {
    fn is_settling(&self) -> bool {
        matches!(self.state, State::Settling { .. })
    }

    /// Dense at first, then rarer: a clock arrives within milliseconds or not at all soon.
    fn look_at(&self, now: Instant) -> Instant {
        if self.is_settling() {
            let waited = now.saturating_duration_since(self.written.at);
            return now + (waited / 4).clamp(SETTLE_POLL_FIRST, SETTLE_POLL_MAX);
        }
        now + WATCH_EVERY
    }

    /// `Some(Some(time))`: the clock has arrived. `Some(None)`: it has not within `SETTLE_MAX`. `None`: nothing to say, as
    /// for a change that an idle device would not show.
    fn settle(&mut self, reading: &Reading, at: Instant) -> Option<Option<Duration>> {
        let State::Settling { last_mhz, has_moved } = self.state else {
            return None;
        };
        let waited = at.saturating_duration_since(self.written.at);
        let Some(clock_mhz) = reading.clock_mhz else {
            self.state = State::Settled;
            return None;
        };
        let has_arrived = self.has_arrived(clock_mhz, last_mhz);
        if has_arrived {
            self.state = State::Settled;
            // There at the first look: it was so before the write, or nobody can tell.
            return has_moved.then_some(Some(waited));
        }
        if waited >= SETTLE_MAX {
            self.state = State::Settled;
            // A device that idles below its ceiling has nothing to arrive at.
            let is_lowering = matches!(self.written.to, Setting::Ceiling { value } if clock_mhz > value);
            return is_lowering.then_some(None);
        }
        self.state = State::Settling {
            last_mhz: Some(clock_mhz),
            has_moved: true,
        };
        None
    }

    /// Lowering: at or below the target. Raising: at the target, or above the old ceiling and at rest (a power limit or
    /// the temperature decides how far it goes).
    fn has_arrived(&self, clock_mhz: u32, last_mhz: Option<u32>) -> bool {
        let from = self.written.from.and_then(Setting::value);
        match (self.written.to, from) {
            (Setting::Ceiling { value }, None) => clock_mhz <= value,
            (Setting::Ceiling { value }, Some(from)) if value < from => clock_mhz <= value,
            (Setting::Ceiling { value }, Some(from)) => {
                clock_mhz >= value || (clock_mhz > from && last_mhz == Some(clock_mhz))
            }
            (Setting::Default, Some(from)) => clock_mhz > from && last_mhz == Some(clock_mhz),
            (Setting::Default, None) => true,
        }
    }

    fn judge(&mut self, control: ControlName, reading: &Reading, at: Instant) -> Option<Evidence> {
        let Setting::Ceiling { value } = self.written.to else {
            return None;
        };
        let said = match control {
            ControlName::Clock => reading.clock_limit_mhz.map(u64::from),
            ControlName::PowerLimit => reading.power_limit_mw,
        };
        if !self.has_looked {
            self.has_looked = true;
            self.expected = said;
        }
        if let (Some(expected), Some(said)) = (self.expected, said) {
            return (said != expected).then_some(Evidence::Read);
        }
        if control == ControlName::PowerLimit {
            return None;
        }
        let is_late = at.saturating_duration_since(self.written.at) >= SETTLE_MAX;
        let is_above = reading
            .clock_mhz
            .is_some_and(|clock_mhz| clock_mhz > tolerated(value));
        if !is_late || !is_above {
            self.unexplained = 0;
            self.unexplained_since = None;
            return None;
        }
        self.unexplained += 1;
        let since = *self.unexplained_since.get_or_insert(at);
        let is_long = at.saturating_duration_since(since) >= FOREIGN_SPAN_MIN;
        (is_long && self.unexplained >= FOREIGN_READINGS_MIN).then_some(Evidence::Inferred)
    }
}

/// Clocks are read a step beside what they are held to, now and then.
fn tolerated(ceiling_mhz: u32) -> u32 {
    ceiling_mhz + ceiling_mhz / 20 + 15
}
