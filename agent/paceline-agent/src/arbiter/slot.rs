//! What the arbiter knows of one knob: what it was told, what it answered, and what is owed to it.

use std::time::{Duration, Instant};

use super::setting::Setting;
use crate::limits::{RESTORE_RETRY_FIRST, RESTORE_RETRY_MAX, STUCK_AFTER};

#[derive(Clone, Debug)]
pub struct Slot {
    /// Ascending and not empty; the last one is the default.
    pub steps: Vec<u32>,
    pub commanded: Setting,
    pub generation: u64,
    pub acknowledged: u64,
    /// Since when the device's thread owes an answer; `None` when it owes none.
    pub waiting_since: Option<Instant>,
    /// The thread has owed an answer for longer than `STUCK_AFTER`.
    pub stuck: bool,
    pub restore: Restore,
    pub last_lowering_at: Option<Instant>,
    /// A slow-down that the rate limit holds back until then.
    pub deferred_until: Option<Instant>,
    /// Somebody else was seen to set it: nothing is written until then.
    pub yielded_until: Option<Instant>,
}

/// The way back to default clocks after a write failed, or after an earlier process left the device lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restore {
    NotOwed,
    UnderWay { failures: u32 },
    RetryAt { at: Instant, failures: u32 },
}

impl Slot {
    pub fn new(steps: Vec<u32>) -> Self {
        Self {
            steps,
            commanded: Setting::Default,
            generation: 0,
            acknowledged: 0,
            waiting_since: None,
            stuck: false,
            restore: Restore::NotOwed,
            last_lowering_at: None,
            deferred_until: None,
            yielded_until: None,
        }
    }

    pub fn default_value(&self) -> u32 {
        *self.steps.last().expect("a knob has steps")
    }

    /// Slow-downs are refused while the way back is not known to work, and while somebody else sets the knob.
    pub fn may_be_slowed(&self) -> bool {
        self.restore == Restore::NotOwed && !self.stuck && self.yielded_until.is_none()
    }

    /// Not known to be at default although it should be: no lease on it is granted.
    pub fn is_owed(&self) -> bool {
        self.restore != Restore::NotOwed || self.stuck
    }

    /// A restore that did not work at once; `/readyz` shows it.
    pub fn restore_is_overdue(&self) -> bool {
        match self.restore {
            Restore::NotOwed => self.stuck,
            Restore::UnderWay { failures } | Restore::RetryAt { failures, .. } => failures > 0 || self.stuck,
        }
    }

    /// Nothing more will happen by itself soon: every command is answered, or there is no use in waiting.
    pub fn is_settled(&self) -> bool {
        let is_answered = self.acknowledged == self.generation && self.restore == Restore::NotOwed;
        is_answered || self.restore_is_overdue()
    }

    pub fn stuck_at(&self) -> Option<Instant> {
        let since = self.waiting_since.filter(|_| !self.stuck)?;
        Some(since + STUCK_AFTER)
    }

    pub fn failures(&self) -> u32 {
        match self.restore {
            Restore::NotOwed => 0,
            Restore::UnderWay { failures } | Restore::RetryAt { failures, .. } => failures,
        }
    }
}

/// Doubles with every failure: a device that cannot be reset now is rarely better a millisecond later.
pub fn restore_retry_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    RESTORE_RETRY_FIRST
        .saturating_mul(1 << doublings)
        .min(RESTORE_RETRY_MAX)
}
