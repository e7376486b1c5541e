//! From demands to commands: the target of a knob, when it may be told, and what a failure does to its group.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Arbiter;
use super::effect::{Cause, Command, Effect};
use super::lease::{Demand, Knob};
use super::setting::Setting;
use super::slot::{Restore, restore_retry_after};

impl Arbiter {
    /// What the knob is set to is unknown now. Default is the one setting worth trying.
    pub(super) fn write_failed(&mut self, knob: Knob, setting: Setting, now: Instant) {
        let failures = self.slots[&knob].failures();
        if setting == Setting::Default {
            let failures = failures + 1;
            let at = now + restore_retry_after(failures);
            self.slot_mut(knob).restore = Restore::RetryAt { at, failures };
        } else {
            self.slot_mut(knob).restore = Restore::UnderWay { failures };
            self.command(knob, Setting::Default, Cause::GroupFailed, now);
        }
        self.fail_groups(knob, setting == Setting::Default, now);
    }

    /// Every group with a slow-down of this knob goes to default, all of its knobs; where the knob `cannot_go_back`,
    /// also those that only wanted it at default.
    pub(super) fn fail_groups(&mut self, knob: Knob, cannot_go_back: bool, now: Instant) {
        let mut touched = BTreeSet::new();
        for lease in self.leases.values_mut() {
            let failed = lease
                .holdings
                .get(&knob)
                .and_then(|holding| match holding.demand {
                    Demand::Limit { group, .. } => Some(group),
                    _ => holding.default_group.filter(|_| cannot_go_back),
                });
            let Some(failed) = failed else { continue };
            for (&member, holding) in &mut lease.holdings {
                if matches!(holding.demand, Demand::Limit { group, .. } if group == failed) {
                    holding.demand = Demand::Failed;
                    touched.insert(member);
                }
            }
        }
        self.settle_all(touched, Cause::GroupFailed, now);
    }

    pub(super) fn settle_all(&mut self, knobs: impl IntoIterator<Item = Knob>, cause: Cause, now: Instant) {
        for knob in knobs {
            self.settle(knob, cause, now);
        }
    }

    /// Tells the knob what follows from the demands, unless it was told so already or must wait its turn.
    pub(super) fn settle(&mut self, knob: Knob, cause: Cause, now: Instant) {
        let target = self.target(knob);
        let interval = self.lowering_interval(knob);
        let slot = self.slot_mut(knob);
        slot.deferred_until = None;
        if slot.restore != Restore::NotOwed || slot.yielded_until.is_some() || target == slot.commanded {
            return;
        }
        if target < slot.commanded {
            let allowed_at = slot.last_lowering_at.map(|last| last + interval);
            if let Some(allowed_at) = allowed_at
                && now < allowed_at
            {
                slot.deferred_until = Some(allowed_at);
                return;
            }
            slot.last_lowering_at = Some(now);
        }
        self.command(knob, target, cause, now);
    }

    pub(super) fn command(&mut self, knob: Knob, setting: Setting, cause: Cause, now: Instant) {
        let release = !self.is_held(knob);
        let slot = self.slot_mut(knob);
        slot.generation += 1;
        slot.commanded = setting;
        slot.deferred_until = None;
        slot.waiting_since.get_or_insert(now);
        let generation = slot.generation;
        self.effects.push(Effect::Command(Command {
            knob,
            generation,
            setting,
            release,
            cause,
            disown: None,
        }));
    }

    /// The fastest demand of all leases that hold the knob.
    pub(super) fn target(&self, knob: Knob) -> Setting {
        let demands = self.leases.values().filter_map(|lease| lease.holdings.get(&knob));
        let fastest = demands
            .map(|holding| match holding.demand {
                Demand::Default | Demand::Failed | Demand::Yielded => Setting::Default,
                Demand::Limit { value, .. } => Setting::Ceiling { value },
            })
            .max()
            .unwrap_or(Setting::Default);
        // A ceiling at the last step holds nothing back, and a knob that is not held needs no restoring.
        if fastest.value() == Some(self.slots[&knob].default_value()) {
            return Setting::Default;
        }
        fastest
    }

    /// The slowest rhythm any holder is held to: the knob is one, whoever asks.
    pub(super) fn lowering_interval(&self, knob: Knob) -> Duration {
        self.leases
            .values()
            .filter_map(|lease| lease.holdings.get(&knob))
            .map(|holding| holding.terms.lowering_interval)
            .max()
            .unwrap_or(Duration::ZERO)
    }

    pub(super) fn is_held(&self, knob: Knob) -> bool {
        self.leases
            .values()
            .any(|lease| lease.holdings.contains_key(&knob))
    }
}
