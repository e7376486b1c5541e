//! What others may ask of the arbiter. Nothing here changes anything.

use std::time::{Duration, Instant};

use super::Arbiter;
use super::lease::{Demand, DeviceIndex, LeaseId};
use super::setting::Setting;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Applied,
    Deferred,
    Failed,
    Stuck,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Applied => "applied",
            Status::Deferred => "deferred",
            Status::Failed => "failed",
            Status::Stuck => "stuck",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderView {
    pub lease_id: LeaseId,
    pub holder: String,
    /// `None`: at default, with or without having asked for it.
    pub clock_mhz: Option<u32>,
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

    /// How one device of a lease stands, and the effective target; `None` once the lease has ended.
    pub fn status(&self, lease_id: LeaseId, device: DeviceIndex) -> Option<(Status, Setting)> {
        let holding = self.leases.get(&lease_id)?.holdings.get(&device)?;
        let slot = &self.slots[device.0];
        let status = if slot.stuck {
            Status::Stuck
        } else if holding.demand == Demand::Failed || slot.restore_is_overdue() {
            Status::Failed
        } else if slot.deferred_until.is_some() {
            Status::Deferred
        } else {
            Status::Applied
        };
        Some((status, self.target(device)))
    }

    /// No answer is outstanding that is worth waiting for.
    pub fn are_settled(&self, devices: &[DeviceIndex]) -> bool {
        devices.iter().all(|device| self.slots[device.0].is_settled())
    }

    pub fn all_settled(&self) -> bool {
        self.slots.iter().all(super::Slot::is_settled)
    }

    /// Devices that should be at default and are not known to be.
    pub fn restores_overdue(&self) -> Vec<DeviceIndex> {
        self.devices()
            .filter(|device| self.slots[device.0].restore_is_overdue())
            .collect()
    }

    /// What the device was last told: its effective target, or faster while a slow-down waits its turn.
    pub fn commanded(&self, device: DeviceIndex) -> Setting {
        self.slots[device.0].commanded
    }

    pub fn holders(&self, device: DeviceIndex, now: Instant) -> Vec<HolderView> {
        let holders = self.leases.values().filter_map(|lease| {
            let holding = lease.holdings.get(&device)?;
            let (clock_mhz, hold_left) = match holding.demand {
                Demand::Default | Demand::Failed => (None, None),
                Demand::Clock {
                    clock_mhz, lapses_at, ..
                } => (Some(clock_mhz), Some(lapses_at.saturating_duration_since(now))),
            };
            Some(HolderView {
                lease_id: lease.id,
                holder: lease.holder.clone(),
                clock_mhz,
                hold_left,
            })
        });
        holders.collect()
    }
}
