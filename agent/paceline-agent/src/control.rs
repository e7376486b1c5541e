//! Drives the arbiter in real time: gives it `now`, posts what it decides into the devices' mailboxes, and wakes it
//! when something is due. The timer is a thread of its own: a busy HTTP side must not delay a lapse.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::arbiter::{
    Accepted, Allowance, Arbiter, Completion, DeviceIndex, Effect, EndReason, EndRefusal, GrantRefusal,
    GrantRequest, LeaseId, TargetsRefusal, TargetsRequest,
};
use crate::audit;
use crate::device::{Device, DeviceId};
use crate::device_thread::DeviceThread;
use crate::journal::Journal;
use crate::limits::WORKER_BEAT_EVERY;
use crate::principal::Principal;

pub struct Control {
    core: Mutex<Core>,
    timer_wake: Condvar,
    changed: watch::Sender<()>,
    threads: Vec<Arc<DeviceThread>>,
    /// Journaled by an earlier agent, of the same boot, and not among this driver's devices: nothing can be done here.
    foreign: Vec<DeviceId>,
}

struct Core {
    arbiter: Arbiter,
    streams: HashMap<LeaseId, oneshot::Sender<EndReason>>,
    lease_ends: BTreeMap<EndReason, u64>,
}

pub struct ControlOptions {
    pub devices: Vec<Arc<dyn Device>>,
    pub journaled: Vec<DeviceIndex>,
    pub foreign: Vec<DeviceId>,
    pub journal: Arc<Journal>,
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
        let clocks_mhz = options
            .devices
            .iter()
            .map(|device| device.info().clocks_mhz.clone())
            .collect();
        let arbiter = Arbiter::new(clocks_mhz, &options.journaled, Instant::now());
        let mut failed = None;
        // The device threads report to the control that owns them, hence the cycle through a weak reference.
        let this = Arc::new_cyclic(|this: &Weak<Self>| {
            let mut threads = Vec::new();
            for (index, device) in options.devices.iter().enumerate() {
                let touched = options.journaled.contains(&DeviceIndex(index));
                let this = Weak::clone(this);
                let completed = move |completion: Completion| {
                    if let Some(this) = this.upgrade() {
                        this.change(|core, now| core.arbiter.completed(&completion, now));
                    }
                };
                let journal = Arc::clone(&options.journal);
                match DeviceThread::start(Arc::clone(device), touched, journal, completed) {
                    Ok(thread) => threads.push(thread),
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
                foreign: options.foreign,
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

    pub fn release(&self, lease_id: LeaseId, principal: &Principal) -> Result<Vec<DeviceIndex>, EndRefusal> {
        self.change(|core, now| core.arbiter.release(lease_id, principal, now))
    }

    /// Leases that a new policy would not have granted end, the others go on under its terms.
    pub fn revoke(&self, allows: impl Fn(&Principal, DeviceIndex) -> Option<Allowance>) -> usize {
        self.change(|core, now| core.arbiter.revoke(allows, now))
    }

    pub fn shut_down(&self) {
        self.change(|core, now| core.arbiter.shut_down(now));
    }

    /// Waits until the devices have answered, or until waiting is of no use, or for `wait_max`.
    pub async fn settled(&self, devices: &[DeviceIndex], wait_max: Duration) -> bool {
        self.wait_until(wait_max, |arbiter| arbiter.are_settled(devices))
            .await
    }

    pub async fn all_settled(&self, wait_max: Duration) -> bool {
        self.wait_until(wait_max, Arbiter::all_settled).await
    }

    /// Devices that should be at default and are not known to be.
    pub fn restores_pending(&self) -> Vec<DeviceId> {
        let overdue = self.view(|arbiter, _| arbiter.restores_overdue());
        let ours = overdue
            .into_iter()
            .map(|device| self.device(device).info().id.clone());
        ours.chain(self.foreign.iter().cloned()).collect()
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
                Effect::Command(command) => self.threads[command.device.0].post(*command),
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
