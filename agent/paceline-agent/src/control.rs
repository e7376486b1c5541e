//! Drives the arbiter in real time: gives it `now`, posts what it decides into the devices' mailboxes, and wakes it
//! when something is due. The timer is a thread of its own: a busy HTTP side must not delay a lapse.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::arbiter::{
    Accepted, Allowance, Arbiter, Completion, DeviceIndex, Effect, EndReason, EndRefusal, GrantRefusal,
    GrantRequest, Knob, LeaseId, TargetsRefusal, TargetsRequest,
};
use crate::audit;
use crate::device::{ControlName, Device, DeviceId};
use crate::device_thread::{DeviceThread, DeviceThreadOptions, Listener, Written};
use crate::journal::{Entries, Journal};
use crate::limits::WORKER_BEAT_EVERY;
use crate::principal::Principal;
use crate::readback::Foreign;
use crate::sampler::Sampler;

pub struct Control {
    core: Mutex<Core>,
    timer_wake: Condvar,
    changed: watch::Sender<()>,
    threads: Vec<Arc<DeviceThread>>,
    samplers: Vec<Arc<Sampler>>,
    /// Journaled by an earlier agent and not among the devices of these drivers: nothing can be done here.
    elsewhere: Vec<DeviceId>,
}

struct Core {
    arbiter: Arbiter,
    streams: HashMap<LeaseId, oneshot::Sender<EndReason>>,
    lease_ends: BTreeMap<EndReason, u64>,
}

pub struct ControlOptions {
    pub devices: Vec<Arc<dyn Device>>,
    /// What is to be put back first.
    pub owed: Entries,
    pub elsewhere: BTreeSet<DeviceId>,
    pub journal: Arc<Journal>,
    /// Per device and control what the policy declares to be its default.
    pub declared: Vec<BTreeMap<ControlName, u32>>,
    /// Restore what is owed, lower nothing.
    pub observes: bool,
}

/// Hears of one device's writes, and passes them on to who reads it and who decides.
struct DeviceListener {
    sampler: Arc<Sampler>,
    control: Weak<Control>,
}

impl Listener for DeviceListener {
    fn writing(&self, control: ControlName) {
        self.sampler.writing(control);
    }

    fn written(&self, written: Written) {
        self.sampler.written(written);
    }

    fn completed(&self, completion: Completion) {
        if let Some(this) = self.control.upgrade() {
            this.change(|core, now| core.arbiter.completed(&completion, now));
        }
    }
}

/// Lives in the response stream of a lease: dropping it, for whatever reason, ends the lease.
pub struct LeaseGuard {
    control: Arc<Control>,
    lease_id: LeaseId,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        self.control
            .change(|core, now| core.arbiter.disconnected(self.lease_id, now));
    }
}

impl Control {
    /// Restoring what is journaled begins at once. `beat` is called a few times a second for as long as decisions flow.
    pub fn start(options: ControlOptions, beat: impl Fn() + Send + 'static) -> std::io::Result<Arc<Self>> {
        let steps = all_steps(&options.devices, &options.declared);
        let journaled: Vec<Knob> = steps
            .keys()
            .filter(|knob| {
                let id = &options.devices[knob.device.0].info().id;
                options
                    .owed
                    .get(id)
                    .is_some_and(|controls| controls.contains_key(&knob.control))
            })
            .copied()
            .collect();
        let arbiter = Arbiter::new(steps, &journaled, Instant::now());
        let mut failed = None;
        // The device threads report to the control that owns them, hence the cycle through a weak reference.
        let this = Arc::new_cyclic(|this: &Weak<Self>| {
            let mut threads = Vec::new();
            let mut samplers = Vec::new();
            for (index, device) in options.devices.iter().enumerate() {
                match start_device(&options, DeviceIndex(index), device, this) {
                    Ok((thread, sampler)) => {
                        threads.push(thread);
                        samplers.push(sampler);
                    }
                    Err(wrong) => failed = Some(wrong),
                }
            }
            Self {
                core: Mutex::new(Core {
                    arbiter,
                    streams: HashMap::new(),
                    lease_ends: BTreeMap::new(),
                }),
                timer_wake: Condvar::new(),
                changed: watch::Sender::new(()),
                threads,
                samplers,
                elsewhere: options.elsewhere.iter().cloned().collect(),
            }
        });
        if let Some(wrong) = failed {
            return Err(wrong);
        }
        let timer = Arc::clone(&this);
        thread::Builder::new()
            .name("timer".to_owned())
            .spawn(move || timer.run_timer(&beat))?;
        Ok(this)
    }

    pub fn threads(&self) -> &[Arc<DeviceThread>] {
        &self.threads
    }

    pub fn sampler(&self, device: DeviceIndex) -> &Arc<Sampler> {
        &self.samplers[device.0]
    }

    pub fn device(&self, device: DeviceIndex) -> &Arc<dyn Device> {
        self.threads[device.0].device()
    }

    pub fn find(&self, id: &str) -> Option<DeviceIndex> {
        let position = self
            .threads
            .iter()
            .position(|thread| thread.device().info().id.0 == id);
        position.map(DeviceIndex)
    }

    /// The receiver hears once why the lease ended, unless its stream ends first.
    pub fn grant(
        self: &Arc<Self>,
        request: GrantRequest,
    ) -> Result<(LeaseGuard, oneshot::Receiver<EndReason>), GrantRefusal> {
        let lease_id = request.id;
        let (ended, hears_end) = oneshot::channel();
        self.change(|core, now| {
            core.arbiter.grant(request, now)?;
            core.streams.insert(lease_id, ended);
            Ok(())
        })?;
        let guard = LeaseGuard {
            control: Arc::clone(self),
            lease_id,
        };
        Ok((guard, hears_end))
    }

    pub fn put_targets(&self, request: &TargetsRequest) -> Result<Vec<Accepted>, TargetsRefusal> {
        self.change(|core, now| core.arbiter.put_targets(request, now))
    }

    pub fn release(&self, lease_id: LeaseId, principal: &Principal) -> Result<Vec<Knob>, EndRefusal> {
        self.change(|core, now| core.arbiter.release(lease_id, principal, now))
    }

    /// Leases that a new policy would not have granted end, the others go on under its terms.
    pub fn revoke(&self, allows: impl Fn(&Principal, Knob, &[u32]) -> Option<Allowance>) -> usize {
        self.change(|core, now| core.arbiter.revoke(allows, now))
    }

    pub fn shut_down(&self) {
        self.change(|core, now| core.arbiter.shut_down(now));
    }

    /// Waits until the knobs have answered, or until waiting is of no use, or for `wait_max`.
    pub async fn settled(&self, knobs: &[Knob], wait_max: Duration) -> bool {
        self.wait_until(wait_max, |arbiter| arbiter.are_settled(knobs))
            .await
    }

    pub async fn all_settled(&self, wait_max: Duration) -> bool {
        self.wait_until(wait_max, Arbiter::all_settled).await
    }

    /// Devices that should be at default and are not known to be.
    pub fn restores_pending(&self) -> Vec<DeviceId> {
        let overdue = self.view(|arbiter, _| arbiter.restores_overdue());
        let ours: BTreeSet<DeviceIndex> = overdue.into_iter().map(|knob| knob.device).collect();
        let ours = ours
            .into_iter()
            .map(|device| self.device(device).info().id.clone());
        ours.chain(self.elsewhere.iter().cloned()).collect()
    }

    pub fn lease_ends(&self) -> BTreeMap<EndReason, u64> {
        self.lock().lease_ends.clone()
    }

    /// Looks, and changes nothing.
    pub fn view<T>(&self, look: impl FnOnce(&Arbiter, Instant) -> T) -> T {
        look(&self.lock().arbiter, Instant::now())
    }

    async fn wait_until(&self, wait_max: Duration, holds: impl Fn(&Arbiter) -> bool) -> bool {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !self.view(|arbiter, _| holds(arbiter)) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(wait_max, wait).await.is_ok()
    }

    /// One event: decided and posted under the lock, so that no device hears of two decisions in the wrong order.
    /// Posting never waits. Log lines, which might, are written once the lock is free.
    fn change<T>(&self, event: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let mut core = self.lock();
        let answer = event(&mut core, Instant::now());
        let ended = self.perform(&mut core);
        drop(core);
        self.changed.send_replace(());
        self.timer_wake.notify_one();
        self.tell(ended);
        answer
    }

    fn perform(&self, core: &mut Core) -> Vec<Effect> {
        let mut ended = Vec::new();
        for effect in core.arbiter.take_effects() {
            match &effect {
                Effect::Command(command) => self.threads[command.knob.device.0].post(*command),
                Effect::LeaseEnded { lease_id, reason, .. } => {
                    *core.lease_ends.entry(*reason).or_default() += 1;
                    if let Some(stream) = core.streams.remove(lease_id) {
                        // Nobody listens where the stream's end is what ended the lease.
                        let _ = stream.send(*reason);
                    }
                    ended.push(effect);
                }
            }
        }
        ended
    }

    fn tell(&self, ended: Vec<Effect>) {
        for effect in ended {
            if let Effect::LeaseEnded {
                lease_id,
                holder,
                principal,
                reason,
            } = effect
            {
                audit::lease_ended(lease_id, &holder, &principal, reason);
            }
        }
    }

    fn run_timer(&self, beat: &impl Fn()) -> ! {
        let mut beat_at = Instant::now();
        loop {
            let mut core = self.lock();
            let now = Instant::now();
            core.arbiter.advance(now);
            let ended = self.perform(&mut core);
            self.changed.send_replace(());
            if now >= beat_at || !ended.is_empty() {
                drop(core);
                beat();
                beat_at = now + WORKER_BEAT_EVERY;
                self.tell(ended);
                continue;
            }
            let due_at = core.arbiter.next_due().map_or(beat_at, |due| due.min(beat_at));
            let wait = due_at.saturating_duration_since(now);
            // Woken by every change, because any may bring something due earlier.
            drop(
                self.timer_wake
                    .wait_timeout(core, wait)
                    .expect("a panic ends the process"),
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("a panic ends the process")
    }
}

/// The steps of every knob there is. A declared default is the last one: what is above it is not ours to give.
fn all_steps(
    devices: &[Arc<dyn Device>],
    declared: &[BTreeMap<ControlName, u32>],
) -> BTreeMap<Knob, Vec<u32>> {
    let mut all = BTreeMap::new();
    for (index, device) in devices.iter().enumerate() {
        for control in ControlName::ALL {
            let steps = device.info().steps(control);
            let highest = declared[index].get(&control).copied().unwrap_or(u32::MAX);
            // Below the lowest step there is none to hold it at.
            let within = steps.partition_point(|&step| step <= highest).max(1);
            if !steps.is_empty() {
                let knob = Knob {
                    device: DeviceIndex(index),
                    control,
                };
                all.insert(knob, steps[..within].to_vec());
            }
        }
    }
    all
}

/// What is declared, on the device's own steps.
fn declared_steps(device: &dyn Device, declared: &BTreeMap<ControlName, u32>) -> BTreeMap<ControlName, u32> {
    let steps = declared.iter().filter_map(|(&control, &value)| {
        let steps = device.info().steps(control);
        let within = steps.partition_point(|&step| step <= value).max(1);
        Some((control, *steps.get(within - 1)?))
    });
    steps.collect()
}

fn start_device(
    options: &ControlOptions,
    index: DeviceIndex,
    device: &Arc<dyn Device>,
    this: &Weak<Control>,
) -> std::io::Result<(Arc<DeviceThread>, Arc<Sampler>)> {
    let control = Weak::clone(this);
    let found = move |foreign: Foreign| {
        if let Some(this) = control.upgrade() {
            let Foreign { control, evidence } = foreign;
            let knob = Knob {
                device: index,
                control,
            };
            this.change(|core, now| core.arbiter.foreign_writer(knob, evidence, now));
        }
    };
    let sampler = Sampler::start(Arc::clone(device), found)?;
    let thread_options = DeviceThreadOptions {
        device: Arc::clone(device),
        declared: declared_steps(device.as_ref(), &options.declared[index.0]),
        owed: options.owed.get(&device.info().id).cloned().unwrap_or_default(),
        journal: Arc::clone(&options.journal),
        observes: options.observes,
    };
    let listener = DeviceListener {
        sampler: Arc::clone(&sampler),
        control: Weak::clone(this),
    };
    let thread = DeviceThread::start(thread_options, listener)?;
    Ok((thread, sampler))
}
