//! PUT targets: what is refused, and what becomes of each knob's demand.

use std::time::{Duration, Instant};

use super::Arbiter;
use super::bounds::Clamped;
use super::effect::Cause;
use super::lease::{Demand, Group, Knob, Lease, LeaseId};
use super::slot::Slot;
use crate::principal::Principal;

pub struct TargetsRequest {
    pub lease_id: LeaseId,
    pub principal: Principal,
    pub epoch: u64,
    pub seq: u64,
    pub targets: Vec<Target>,
}

/// The knobs of one target are a group: set together, or all at default.
#[derive(Clone, Debug)]
pub struct Target {
    pub wishes: Vec<(Knob, Wish)>,
}

#[derive(Clone, Copy, Debug)]
pub enum Wish {
    Default,
    Limit { requested: u32, hold: Duration },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetsRefusal {
    UnknownLease,
    NotYours,
    OtherEpoch { epoch: u64 },
    StaleSeq { last_seq: u64 },
    NotHeld { target: usize, knob: Knob },
    HoldTooLong { target: usize, hold_max: Duration },
}

/// What was made of one knob's wish, before the knob answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub knob: Knob,
    pub requested: Option<u32>,
    pub demand: Option<u32>,
    pub clamped: Option<Clamped>,
}

impl Arbiter {
    /// All or nothing: a refused request renews nothing and changes nothing.
    pub fn put_targets(
        &mut self,
        request: &TargetsRequest,
        now: Instant,
    ) -> Result<Vec<Accepted>, TargetsRefusal> {
        self.advance(now);
        self.check_targets(request)?;
        let mut accepted = Vec::new();
        let mut named = Vec::new();
        for target in &request.targets {
            accepted.extend(self.replace_demands(request.lease_id, target, now));
            named.extend(target.wishes.iter().map(|&(knob, _)| knob));
        }
        let lease = self.lease_mut(request.lease_id);
        lease.last_seq = Some(request.seq);
        lease.expires_at = now + lease.ttl;
        self.settle_all(named, Cause::Targets, now);
        Ok(accepted)
    }

    fn check_targets(&self, request: &TargetsRequest) -> Result<(), TargetsRefusal> {
        let lease = self
            .leases
            .get(&request.lease_id)
            .ok_or(TargetsRefusal::UnknownLease)?;
        if !lease.principal.is(&request.principal) {
            return Err(TargetsRefusal::NotYours);
        }
        if lease.epoch != request.epoch {
            return Err(TargetsRefusal::OtherEpoch { epoch: lease.epoch });
        }
        if let Some(last_seq) = lease.last_seq
            && request.seq <= last_seq
        {
            return Err(TargetsRefusal::StaleSeq { last_seq });
        }
        for (target, asked) in request.targets.iter().enumerate() {
            for &(knob, wish) in &asked.wishes {
                let holding = lease
                    .holdings
                    .get(&knob)
                    .ok_or(TargetsRefusal::NotHeld { target, knob })?;
                let hold_max = holding.terms.hold_max;
                if let Wish::Limit { hold, .. } = wish
                    && hold > hold_max
                {
                    return Err(TargetsRefusal::HoldTooLong { target, hold_max });
                }
            }
        }
        Ok(())
    }

    fn replace_demands(&mut self, lease_id: LeaseId, target: &Target, now: Instant) -> Vec<Accepted> {
        self.groups_made += 1;
        let group = Group(self.groups_made);
        // Known before anything is written: a group with a knob that cannot be set is not begun.
        let slots = target.wishes.iter().map(|(knob, _)| &self.slots[knob]);
        let can_be_set = slots.clone().all(Slot::may_be_slowed);
        let is_yielded = slots.clone().any(|slot| slot.yielded_until.is_some());
        let mut accepted = Vec::new();
        for &(knob, wish) in &target.wishes {
            let steps = &self.slots[&knob].steps;
            let lease = self.leases.get_mut(&lease_id).expect("checked by check_targets");
            let holding = lease.holdings.get_mut(&knob).expect("checked by check_targets");
            let (requested, demand, clamped) = match wish {
                Wish::Default => {
                    holding.default_group = Some(group);
                    holding.demand = Demand::Default;
                    (None, None, None)
                }
                Wish::Limit { requested, hold } => {
                    let (value, clamped) = holding.terms.bounds.fit(steps, requested);
                    let lapses_at = now + hold;
                    holding.default_group = None;
                    holding.demand = match (can_be_set, is_yielded) {
                        (true, _) => Demand::Limit {
                            value,
                            lapses_at,
                            group,
                        },
                        (false, true) => Demand::Yielded,
                        (false, false) => Demand::Failed,
                    };
                    (Some(requested), Some(value), clamped)
                }
            };
            accepted.push(Accepted {
                knob,
                requested,
                demand,
                clamped,
            });
        }
        accepted
    }

    fn lease_mut(&mut self, lease_id: LeaseId) -> &mut Lease {
        self.leases.get_mut(&lease_id).expect("the caller checked")
    }
}
