//! Who may slow which device how far: leases, their demands, and the one setting that follows for each knob.
//! Pure: events and `now` come in, effects go out. Devices, sockets, files and waiting are left to others.

mod bounds;
mod effect;
mod foreign;
mod lease;
mod revoke;
mod setting;
mod settle;
mod slot;
mod targets;
#[cfg(test)]
mod tests;
mod time;
mod view;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use bounds::Bounds;
pub use effect::{Cause, Command, Completion, Effect, EndReason, Evidence};
pub use lease::{DeviceIndex, Knob, LeaseId, Terms};
pub use revoke::Allowance;
pub use setting::Setting;
pub use targets::{Accepted, Target, TargetsRefusal, TargetsRequest, Wish};
pub use view::{HolderView, Status};

use crate::limits::{LEASES_MAX, LEASES_PER_PRINCIPAL_MAX};
use crate::principal::Principal;
use lease::{Demand, Holding, Lease};
use slot::{Restore, Slot};

pub struct Arbiter {
    slots: BTreeMap<Knob, Slot>,
    leases: BTreeMap<LeaseId, Lease>,
    groups_made: u64,
    closing: bool,
    effects: Vec<Effect>,
}

pub struct GrantRequest {
    pub id: LeaseId,
    pub epoch: u64,
    pub holder: String,
    pub principal: Principal,
    pub ttl: Duration,
    pub knobs: Vec<(Knob, Terms)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantRefusal {
    /// Of all, or of this principal.
    TooManyLeases {
        allowed: usize,
    },
    RestorePending(Knob),
    ShuttingDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndRefusal {
    UnknownLease,
    NotYours,
}

impl Arbiter {
    /// The steps of every knob, ascending. `journaled` ones may be lowered still: they are restored first.
    pub fn new(steps: BTreeMap<Knob, Vec<u32>>, journaled: &[Knob], now: Instant) -> Self {
        let slots = steps.into_iter().map(|(knob, steps)| (knob, Slot::new(steps)));
        let mut slots: BTreeMap<Knob, Slot> = slots.collect();
        for knob in journaled {
            let slot = slots.get_mut(knob).expect("a journaled knob is one of them");
            slot.restore = Restore::RetryAt { at: now, failures: 0 };
        }
        Self {
            slots,
            leases: BTreeMap::new(),
            groups_made: 0,
            closing: false,
            effects: Vec::new(),
        }
    }

    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub fn grant(&mut self, request: GrantRequest, now: Instant) -> Result<(), GrantRefusal> {
        self.advance(now);
        if self.closing {
            return Err(GrantRefusal::ShuttingDown);
        }
        if self.leases.len() >= LEASES_MAX {
            return Err(GrantRefusal::TooManyLeases { allowed: LEASES_MAX });
        }
        let all = self.leases.values();
        let own = all.filter(|lease| lease.principal.is(&request.principal));
        if own.count() >= LEASES_PER_PRINCIPAL_MAX {
            return Err(GrantRefusal::TooManyLeases {
                allowed: LEASES_PER_PRINCIPAL_MAX,
            });
        }
        for &(knob, _) in &request.knobs {
            if self.slots[&knob].is_owed() {
                return Err(GrantRefusal::RestorePending(knob));
            }
        }
        let knobs: Vec<Knob> = request.knobs.iter().map(|&(knob, _)| knob).collect();
        let holdings = request.knobs.into_iter().map(|(knob, terms)| {
            let demand = Demand::Default;
            let holding = Holding {
                terms,
                demand,
                default_group: None,
            };
            (knob, holding)
        });
        let lease = Lease {
            id: request.id,
            epoch: request.epoch,
            holder: request.holder,
            principal: request.principal,
            ttl: request.ttl,
            expires_at: now + request.ttl,
            last_seq: None,
            holdings: holdings.collect(),
        };
        self.leases.insert(lease.id, lease);
        self.settle_all(knobs, Cause::Granted, now);
        Ok(())
    }

    /// By its holder's DELETE.
    pub fn release(
        &mut self,
        lease_id: LeaseId,
        principal: &Principal,
        now: Instant,
    ) -> Result<Vec<Knob>, EndRefusal> {
        self.advance(now);
        let lease = self.leases.get(&lease_id).ok_or(EndRefusal::UnknownLease)?;
        if !lease.principal.is(principal) {
            return Err(EndRefusal::NotYours);
        }
        let knobs = lease.holdings.keys().copied().collect();
        self.end(lease_id, EndReason::Released, now);
        Ok(knobs)
    }

    /// The lease's stream is gone. Nothing happens where the lease ended before.
    pub fn disconnected(&mut self, lease_id: LeaseId, now: Instant) {
        self.end(lease_id, EndReason::Disconnected, now);
        self.advance(now);
    }

    pub fn completed(&mut self, completion: &Completion, now: Instant) {
        self.advance(now);
        let knob = completion.knob;
        let slot = self.slot_mut(knob);
        slot.acknowledged = completion.generation;
        slot.stuck = false;
        let is_latest = completion.generation == slot.generation;
        // A newer command is already in the mailbox: its wait begins when the thread comes back for it.
        slot.waiting_since = (!is_latest).then_some(now);
        match (&completion.result, is_latest) {
            (Ok(()), true) if completion.setting == Setting::Default => {
                slot.restore = Restore::NotOwed;
            }
            (Err(_), true) => self.write_failed(knob, completion.setting, now),
            // An answer to a command that was replaced: the newer one settles what follows.
            _ => {}
        }
        self.settle(knob, Cause::Targets, now);
    }

    /// Ends every lease; nothing is granted from here on.
    pub fn shut_down(&mut self, now: Instant) {
        self.closing = true;
        let all: Vec<LeaseId> = self.leases.keys().copied().collect();
        for lease_id in all {
            self.end(lease_id, EndReason::Shutdown, now);
        }
        for slot in self.slots.values_mut() {
            if let Restore::RetryAt { at, .. } = &mut slot.restore {
                *at = now;
            }
        }
        self.advance(now);
    }

    fn end(&mut self, lease_id: LeaseId, reason: EndReason, now: Instant) {
        let Some(lease) = self.leases.remove(&lease_id) else {
            return;
        };
        self.effects.push(Effect::LeaseEnded {
            lease_id,
            holder: lease.holder,
            principal: lease.principal,
            reason,
        });
        for &knob in lease.holdings.keys() {
            if self.is_held(knob) {
                self.settle(knob, Cause::Ended(reason), now);
            } else {
                // Even when it is at default already: this is what takes the knob out of the journal.
                self.command(knob, Setting::Default, Cause::Ended(reason), now);
            }
        }
    }

    fn slot_mut(&mut self, knob: Knob) -> &mut Slot {
        self.slots.get_mut(&knob).expect("knobs are those of the start")
    }
}
