//! What others may ask of the arbiter. Nothing here changes anything.

use std::time::{Duration, Instant};

use super::Arbiter;
use super::lease::{Demand, Knob, LeaseId};
use super::setting::Setting;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Applied,
    Deferred,
    Failed,
    Stuck,
    Yielded,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Applied => "applied",
            Status::Deferred => "deferred",
            Status::Failed => "failed",
            Status::Stuck => "stuck",
            Status::Yielded => "yielded",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderView {
    pub lease_id: LeaseId,
    pub holder: String,
    /// `None`: at default, with or without having asked for it.
    pub value: Option<u32>,
    pub hold_left: Option<Duration>,
}

impl Arbiter {
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// `None` once the lease has ended.
    pub fn ttl(&self, lease_id: LeaseId) -> Option<Duration> {
        self.leases.get(&lease_id).map(|lease| lease.ttl)
    }

    /// How one knob of a lease stands, and the effective target; `None` once the lease has ended.
    pub fn status(&self, lease_id: LeaseId, knob: Knob) -> Option<(Status, Setting)> {
        let holding = self.leases.get(&lease_id)?.holdings.get(&knob)?;
        let slot = &self.slots[&knob];
        let status = if slot.stuck {
            Status::Stuck
        } else if holding.demand == Demand::Yielded {
            Status::Yielded
        } else if holding.demand == Demand::Failed || slot.restore_is_overdue() {
            Status::Failed
        } else if slot.deferred_until.is_some() {
            Status::Deferred
        } else {
            Status::Applied
        };
        Some((status, self.target(knob)))
    }

    /// No answer is outstanding that is worth waiting for.
    pub fn are_settled(&self, knobs: &[Knob]) -> bool {
        knobs.iter().all(|knob| self.slots[knob].is_settled())
    }

    pub fn all_settled(&self) -> bool {
        self.slots.values().all(super::Slot::is_settled)
    }

    /// Devices that should be at default and are not known to be.
    pub fn restores_overdue(&self) -> Vec<Knob> {
        self.knobs()
            .filter(|knob| self.slots[knob].restore_is_overdue())
            .collect()
    }

    /// What the knob was last told: its effective target, or faster while a slow-down waits its turn.
    pub fn commanded(&self, knob: Knob) -> Setting {
        self.slots[&knob].commanded
    }

    pub fn steps(&self, knob: Knob) -> &[u32] {
        &self.slots[&knob].steps
    }

    /// Somebody else was seen to set it, less than `YIELD_FOR` ago.
    pub fn is_yielded(&self, knob: Knob) -> bool {
        self.slots[&knob].yielded_until.is_some()
    }

    pub fn holders(&self, knob: Knob, now: Instant) -> Vec<HolderView> {
        let holders = self.leases.values().filter_map(|lease| {
            let holding = lease.holdings.get(&knob)?;
            let (value, hold_left) = match holding.demand {
                Demand::Default | Demand::Failed | Demand::Yielded => (None, None),
                Demand::Limit { value, lapses_at, .. } => {
                    (Some(value), Some(lapses_at.saturating_duration_since(now)))
                }
            };
            Some(HolderView {
                lease_id: lease.id,
                holder: lease.holder.clone(),
                value,
                hold_left,
            })
        });
        holders.collect()
    }
}
