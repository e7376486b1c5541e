//! What happens because time passes: expiry, lapse, stuck threads, retries, and slow-downs whose turn has come.

use std::time::Instant;

use super::effect::{Cause, EndReason};
use super::lease::{Demand, Knob, LeaseId};
use super::setting::Setting;
use super::slot::Restore;
use super::{Arbiter, Lease};

impl Arbiter {
    /// Does what is due at `now`. Every event does this first, so that a late timer gives nobody more time.
    pub fn advance(&mut self, now: Instant) {
        self.expire_leases(now);
        self.lapse_holds(now);
        self.notice_stuck(now);
        self.retry_restores(now);
        self.end_yields(now);
        self.lower_deferred(now);
    }

    /// When `advance` has something to do again. `None`: not until the next event.
    pub fn next_due(&self) -> Option<Instant> {
        let expiries = self.leases.values().map(|lease| lease.expires_at);
        let lapses = self.leases.values().flat_map(lapses_of);
        let slots = self.slots.values().flat_map(|slot| {
            let retry_at = match slot.restore {
                Restore::RetryAt { at, .. } => Some(at),
                Restore::NotOwed | Restore::UnderWay { .. } => None,
            };
            [slot.deferred_until, slot.stuck_at(), retry_at, slot.yielded_until]
        });
        expiries.chain(lapses).chain(slots.flatten()).min()
    }

    fn expire_leases(&mut self, now: Instant) {
        let expired: Vec<LeaseId> = self
            .leases
            .values()
            .filter(|lease| lease.expires_at <= now)
            .map(|lease| lease.id)
            .collect();
        for lease_id in expired {
            self.end(lease_id, EndReason::Expired, now);
        }
    }

    fn lapse_holds(&mut self, now: Instant) {
        let mut lapsed = Vec::new();
        for lease in self.leases.values_mut() {
            for (&knob, holding) in &mut lease.holdings {
                if matches!(holding.demand, Demand::Limit { lapses_at, .. } if lapses_at <= now) {
                    holding.demand = Demand::Default;
                    lapsed.push(knob);
                }
            }
        }
        self.settle_all(lapsed, Cause::HoldLapsed, now);
    }

    fn notice_stuck(&mut self, now: Instant) {
        for knob in self.knobs() {
            let slot = self.slot_mut(knob);
            if slot.stuck_at().is_none_or(|stuck_at| now < stuck_at) {
                continue;
            }
            slot.stuck = true;
            // Whenever the thread comes back, default is what it finds in its mailbox.
            // Counted as a failure: the knob is not known to be at default, and `/readyz` says so until it is.
            let failures = slot.failures().max(1);
            slot.restore = Restore::UnderWay { failures };
            self.command(knob, Setting::Default, Cause::GroupFailed, now);
            self.fail_groups(knob, true, now);
        }
    }

    fn retry_restores(&mut self, now: Instant) {
        for knob in self.knobs() {
            let slot = self.slot_mut(knob);
            let Restore::RetryAt { at, failures } = slot.restore else {
                continue;
            };
            if now < at {
                continue;
            }
            slot.restore = Restore::UnderWay { failures };
            let cause = if failures == 0 { Cause::Start } else { Cause::Retry };
            self.command(knob, Setting::Default, cause, now);
        }
    }

    fn lower_deferred(&mut self, now: Instant) {
        for knob in self.knobs() {
            let due = self.slots[&knob].deferred_until;
            if due.is_some_and(|due| due <= now) {
                self.settle(knob, Cause::LoweringDue, now);
            }
        }
    }

    pub(super) fn knobs(&self) -> impl Iterator<Item = Knob> + use<> {
        let knobs: Vec<Knob> = self.slots.keys().copied().collect();
        knobs.into_iter()
    }
}

fn lapses_of(lease: &Lease) -> impl Iterator<Item = Instant> {
    lease.holdings.values().filter_map(|holding| {
        let Demand::Limit { lapses_at, .. } = holding.demand else {
            return None;
        };
        Some(lapses_at)
    })
}
