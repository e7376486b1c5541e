//! What PROTOCOL.md promises, from what clients asked and were answered. Knows nothing of how the agent does it.

use std::collections::BTreeMap;

use super::fakes::FOUND_LIMIT_MW;
use crate::arbiter::{Knob, LeaseId};
use crate::device::ControlName;

/// What one target asked of each knob (`None`: the default), and its hold in milliseconds.
pub type AskedGroup = (Vec<(Knob, Option<u32>)>, u64);

#[derive(Default)]
pub struct Oracle {
    leases: BTreeMap<LeaseId, Lease>,
    /// Where somebody else has set a power limit since: that is what counts as found.
    foreign: BTreeMap<Knob, u32>,
}

pub struct Lease {
    pub epoch: u64,
    pub seq: u64,
    ttl_ms: u64,
    expires_at_ms: u64,
    demands: BTreeMap<Knob, Option<Demand>>,
}

#[derive(Clone, Copy)]
struct Demand {
    value: u32,
    lapses_at_ms: u64,
    group: u64,
}

impl Oracle {
    pub fn granted(&mut self, id: LeaseId, epoch: u64, ttl_ms: u64, knobs: &[Knob], now_ms: u64) {
        let lease = Lease {
            epoch,
            seq: 0,
            ttl_ms,
            expires_at_ms: now_ms + ttl_ms,
            demands: knobs.iter().map(|&knob| (knob, None)).collect(),
        };
        self.leases.insert(id, lease);
    }

    pub fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub fn ids(&self) -> Vec<LeaseId> {
        self.leases.keys().copied().collect()
    }

    pub fn knobs(&self, id: LeaseId) -> Vec<Knob> {
        self.leases[&id].demands.keys().copied().collect()
    }

    /// An accepted PUT. `value: None` asks for the default.
    pub fn put(&mut self, id: LeaseId, seq: u64, now_ms: u64, targets: &[AskedGroup]) {
        let lease = self.leases.get_mut(&id).expect("it was accepted");
        lease.seq = seq;
        lease.expires_at_ms = now_ms + lease.ttl_ms;
        for (position, (knobs, hold_ms)) in targets.iter().enumerate() {
            let group = seq * 100 + position as u64;
            for &(knob, value) in knobs {
                let demand = value.map(|value| Demand {
                    value,
                    lapses_at_ms: now_ms + hold_ms,
                    group,
                });
                lease.demands.insert(knob, demand);
            }
        }
    }

    /// The client was told that this did not work.
    pub fn failed(&mut self, id: LeaseId, knob: Knob) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.demands.insert(knob, None);
        }
    }

    pub fn ended(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    pub fn all_ended(&mut self) {
        self.leases.clear();
    }

    /// Whether this lease may end by itself now.
    pub fn has_expired(&self, id: LeaseId, now_ms: u64) -> bool {
        self.leases
            .get(&id)
            .is_none_or(|lease| lease.expires_at_ms <= now_ms)
    }

    pub fn foreign(&mut self, knob: Knob, value: u32) {
        self.foreign.insert(knob, value);
    }

    pub fn is_held(&self, knob: Knob, now_ms: u64) -> bool {
        let mut live = self.leases.values().filter(|lease| lease.expires_at_ms > now_ms);
        live.any(|lease| lease.demands.contains_key(&knob))
    }

    /// The default of a power limit. A clock's is a reset, which is for the caller.
    pub fn found_limit_mw(&self, knob: Knob) -> u32 {
        self.foreign.get(&knob).copied().unwrap_or(FOUND_LIMIT_MW)
    }

    /// The fastest demand of all leases that hold the knob. `None`: the default.
    pub fn fastest(&self, knob: Knob, now_ms: u64) -> Option<u32> {
        let live = self.leases.values().filter(|lease| lease.expires_at_ms > now_ms);
        let mut fastest = None;
        for demand in live.filter_map(|lease| lease.demands.get(&knob)) {
            let in_force = demand.filter(|demand| demand.lapses_at_ms > now_ms)?;
            fastest = fastest.max(Some(in_force.value));
        }
        fastest
    }

    /// The knobs of every group that is in force, per lease.
    pub fn groups(&self, now_ms: u64) -> Vec<(LeaseId, Vec<Knob>)> {
        let mut groups: BTreeMap<(LeaseId, u64), Vec<Knob>> = BTreeMap::new();
        for (&id, lease) in &self.leases {
            for (&knob, demand) in &lease.demands {
                if let Some(demand) = demand
                    && demand.lapses_at_ms > now_ms
                {
                    groups.entry((id, demand.group)).or_default().push(knob);
                }
            }
        }
        groups.into_iter().map(|((id, _), knobs)| (id, knobs)).collect()
    }
}

/// Which of two knobs of one kind is which does not matter to a default clock.
pub fn is_clock(knob: Knob) -> bool {
    knob.control == ControlName::Clock
}
