//! What a new policy does to the leases that are held: those that it would not grant any more end, the others go on
//! under its terms.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Arbiter;
use super::effect::EndReason;
use super::lease::{Demand, Knob, Lease, LeaseId, Terms};
use super::slot::Slot;
use crate::principal::Principal;

/// What the policy in force lets a principal do to one knob.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pub terms: Terms,
    pub ttl_max: Duration,
}

impl Arbiter {
    /// `allows` is the new policy; `None` where it lets the principal do nothing to the knob, whose steps it is given. Answers with how many
    /// leases ended.
    pub fn revoke(
        &mut self,
        allows: impl Fn(&Principal, Knob, &[u32]) -> Option<Allowance>,
        now: Instant,
    ) -> usize {
        self.advance(now);
        let mut revoked: Vec<LeaseId> = Vec::new();
        for lease in self.leases.values_mut() {
            if !take_terms(lease, &self.slots, &allows, now) {
                revoked.push(lease.id);
            }
        }
        let count = revoked.len();
        for lease_id in revoked {
            self.end(lease_id, EndReason::Revoked, now);
        }
        count
    }
}

/// False where the lease asks for more than is allowed now; it is to end then, whatever terms it has taken.
fn take_terms(
    lease: &mut Lease,
    slots: &BTreeMap<Knob, Slot>,
    allows: &impl Fn(&Principal, Knob, &[u32]) -> Option<Allowance>,
    now: Instant,
) -> bool {
    for (&knob, holding) in &mut lease.holdings {
        let Some(allowance) = allows(&lease.principal, knob, &slots[&knob].steps) else {
            return false;
        };
        if lease.ttl > allowance.ttl_max || !is_within(holding.demand, &allowance.terms, now) {
            return false;
        }
        holding.terms = allowance.terms;
    }
    true
}

fn is_within(demand: Demand, terms: &Terms, now: Instant) -> bool {
    match demand {
        Demand::Default | Demand::Failed | Demand::Yielded => true,
        Demand::Limit { value, lapses_at, .. } => {
            let is_in_bounds = (terms.bounds.floor..=terms.bounds.ceiling).contains(&value);
            let hold_left = lapses_at.saturating_duration_since(now);
            is_in_bounds && hold_left <= terms.hold_max
        }
    }
}
