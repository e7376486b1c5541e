//! Somebody else sets a knob that we hold: two writers on one device are worse than either alone, so we let go.

use std::time::Instant;

use super::Arbiter;
use super::effect::{Cause, Command, Effect, Evidence};
use super::lease::{Demand, Knob};
use super::setting::Setting;
use crate::limits::YIELD_FOR;

impl Arbiter {
    /// Nothing is written: what the device is at is the other one's choice.
    /// Every demand on the knob is over, and its groups are at default; clients hear `yielded` until they ask again
    /// after `YIELD_FOR`.
    pub fn foreign_writer(&mut self, knob: Knob, evidence: Evidence, now: Instant) {
        self.advance(now);
        let slot = self.slot_mut(knob);
        // A restore that is owed goes first: then what was seen may be what an earlier process of ours left.
        if slot.is_owed() || slot.acknowledged != slot.generation {
            return;
        }
        slot.yielded_until = Some(now + YIELD_FOR);
        slot.commanded = Setting::Default;
        slot.deferred_until = None;
        self.fail_groups(knob, false, now);
        for lease in self.leases.values_mut() {
            if let Some(holding) = lease.holdings.get_mut(&knob)
                && holding.demand == Demand::Failed
            {
                holding.demand = Demand::Yielded;
            }
        }
        let slot = self.slot_mut(knob);
        slot.generation += 1;
        slot.waiting_since.get_or_insert(now);
        let command = Command {
            knob,
            generation: slot.generation,
            setting: Setting::Default,
            release: false,
            cause: Cause::ForeignWriter,
            disown: Some(evidence),
        };
        self.effects.push(Effect::Command(command));
    }

    pub(super) fn end_yields(&mut self, now: Instant) {
        for slot in self.slots.values_mut() {
            if slot.yielded_until.is_some_and(|until| until <= now) {
                slot.yielded_until = None;
            }
        }
    }
}
