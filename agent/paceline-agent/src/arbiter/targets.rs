//! PUT targets: what is refused, and what becomes of each device's demand.

use std::time::{Duration, Instant};

use super::Arbiter;
use super::clock_bounds::Clamped;
use super::effect::Cause;
use super::lease::{Demand, DeviceIndex, Group, Lease, LeaseId};
use crate::principal::Principal;

pub struct TargetsRequest {
    pub lease_id: LeaseId,
    pub principal: Principal,
    pub epoch: u64,
    pub seq: u64,
    pub targets: Vec<Target>,
}

/// The devices of one target are a group: set together, or all at default.
#[derive(Clone, Debug)]
pub struct Target {
    pub devices: Vec<DeviceIndex>,
    pub wish: Wish,
}

#[derive(Clone, Copy, Debug)]
pub enum Wish {
    Default,
    Clock { requested_mhz: u32, hold: Duration },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetsRefusal {
    UnknownLease,
    NotYours,
    OtherEpoch { epoch: u64 },
    StaleSeq { last_seq: u64 },
    NotHeld { target: usize, position: usize },
    HoldTooLong { target: usize, hold_max: Duration },
}

/// What was made of one device's wish, before the device answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub device: DeviceIndex,
    pub requested_mhz: Option<u32>,
    pub demand_mhz: Option<u32>,
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
            named.extend_from_slice(&target.devices);
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
            for (position, device) in asked.devices.iter().enumerate() {
                let holding = lease
                    .holdings
                    .get(device)
                    .ok_or(TargetsRefusal::NotHeld { target, position })?;
                let hold_max = holding.terms.hold_max;
                if let Wish::Clock { hold, .. } = asked.wish
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
        // Known before anything is written: a group with a device that cannot be set is not begun.
        let can_be_set = target
            .devices
            .iter()
            .all(|device| self.slots[device.0].may_be_slowed());
        let mut accepted = Vec::new();
        for &device in &target.devices {
            let clocks_mhz = &self.slots[device.0].clocks_mhz;
            let lease = self.leases.get_mut(&lease_id).expect("checked by check_targets");
            let holding = lease.holdings.get_mut(&device).expect("checked by check_targets");
            match target.wish {
                Wish::Default => {
                    holding.demand = Demand::Default;
                    accepted.push(Accepted {
                        device,
                        requested_mhz: None,
                        demand_mhz: None,
                        clamped: None,
                    });
                }
                Wish::Clock { requested_mhz, hold } => {
                    let (clock_mhz, clamped) = holding.terms.bounds.fit(clocks_mhz, requested_mhz);
                    holding.demand = if can_be_set {
                        Demand::Clock {
                            clock_mhz,
                            lapses_at: now + hold,
                            group,
                        }
                    } else {
                        Demand::Failed
                    };
                    accepted.push(Accepted {
                        device,
                        requested_mhz: Some(requested_mhz),
                        demand_mhz: Some(clock_mhz),
                        clamped,
                    });
                }
            }
        }
        accepted
    }

    fn lease_mut(&mut self, lease_id: LeaseId) -> &mut Lease {
        self.leases.get_mut(&lease_id).expect("the caller checked")
    }
}
