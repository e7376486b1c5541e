//! From demands to commands: the target of a device, when it may be told, and what a failure does to its group.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Arbiter;
use super::effect::{Cause, Command, Effect};
use super::lease::{Demand, DeviceIndex};
use super::setting::Setting;
use super::slot::{Restore, restore_retry_after};

impl Arbiter {
    /// The state of the device is unknown now. Default is the one setting worth trying.
    pub(super) fn write_failed(&mut self, device: DeviceIndex, setting: Setting, now: Instant) {
        let failures = self.slots[device.0].failures();
        if setting == Setting::Default {
            let failures = failures + 1;
            let at = now + restore_retry_after(failures);
            self.slots[device.0].restore = Restore::RetryAt { at, failures };
        } else {
            self.slots[device.0].restore = Restore::UnderWay { failures };
            self.command(device, Setting::Default, Cause::GroupFailed, now);
        }
        self.fail_groups(device, now);
    }

    /// Every group with a slow-down of this device goes to default, all of its devices.
    pub(super) fn fail_groups(&mut self, device: DeviceIndex, now: Instant) {
        let mut touched = BTreeSet::new();
        for lease in self.leases.values_mut() {
            let Some(Demand::Clock { group: failed, .. }) =
                lease.holdings.get(&device).map(|holding| holding.demand)
            else {
                continue;
            };
            for (&member, holding) in &mut lease.holdings {
                if matches!(holding.demand, Demand::Clock { group, .. } if group == failed) {
                    holding.demand = Demand::Failed;
                    touched.insert(member);
                }
            }
        }
        self.settle_all(touched, Cause::GroupFailed, now);
    }

    pub(super) fn settle_all(
        &mut self,
        devices: impl IntoIterator<Item = DeviceIndex>,
        cause: Cause,
        now: Instant,
    ) {
        for device in devices {
            self.settle(device, cause, now);
        }
    }

    /// Tells the device what follows from the demands, unless it was told so already or must wait its turn.
    pub(super) fn settle(&mut self, device: DeviceIndex, cause: Cause, now: Instant) {
        let target = self.target(device);
        let interval = self.lowering_interval(device);
        let slot = &mut self.slots[device.0];
        slot.deferred_until = None;
        if slot.restore != Restore::NotOwed || target == slot.commanded {
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
        self.command(device, target, cause, now);
    }

    pub(super) fn command(&mut self, device: DeviceIndex, setting: Setting, cause: Cause, now: Instant) {
        let release = !self.is_held(device);
        let slot = &mut self.slots[device.0];
        slot.generation += 1;
        slot.commanded = setting;
        slot.deferred_until = None;
        slot.waiting_since.get_or_insert(now);
        self.effects.push(Effect::Command(Command {
            device,
            generation: slot.generation,
            setting,
            release,
            cause,
        }));
    }

    /// The fastest demand of all leases that hold the device.
    pub(super) fn target(&self, device: DeviceIndex) -> Setting {
        let demands = self
            .leases
            .values()
            .filter_map(|lease| lease.holdings.get(&device));
        let fastest = demands
            .map(|holding| match holding.demand {
                Demand::Default | Demand::Failed => Setting::Default,
                Demand::Clock { clock_mhz, .. } => Setting::Ceiling { clock_mhz },
            })
            .max()
            .unwrap_or(Setting::Default);
        // A ceiling at the fastest clock holds nothing back, and a device that is not locked needs no restoring.
        if fastest.clock_mhz() == Some(self.slots[device.0].default_clock_mhz()) {
            return Setting::Default;
        }
        fastest
    }

    /// The slowest rhythm any holder is held to: the device is one, whoever asks.
    pub(super) fn lowering_interval(&self, device: DeviceIndex) -> Duration {
        self.leases
            .values()
            .filter_map(|lease| lease.holdings.get(&device))
            .map(|holding| holding.terms.lowering_interval)
            .max()
            .unwrap_or(Duration::ZERO)
    }

    pub(super) fn is_held(&self, device: DeviceIndex) -> bool {
        self.leases
            .values()
            .any(|lease| lease.holdings.contains_key(&device))
    }
}
