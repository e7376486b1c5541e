//! The agent's parts put together without threads, sockets and waiting, and what happens to them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fakes::{CLOCKS_MHZ, DiskHandle, FakeDevice, FakeDisk, Fault};
use super::oracle::{Oracle, is_clock};
use super::random::Random;
use crate::arbiter::{
    Arbiter, Bounds, Command, Completion, DeviceIndex, Effect, EndReason, Evidence, GrantRequest, Knob,
    LeaseId, Setting, Status, Target, TargetsRequest, Terms, Wish,
};
use crate::device::{ControlName, Device};
use crate::device_thread::{DeviceThread, DeviceThreadOptions, Listener, Worker, Written};
use crate::journal::Journal;
use crate::principal::Principal;

const DEVICES: usize = 3;
/// What the policy of this world lets everybody ask for.
const FLOOR_MHZ: u32 = 450;
const FLOOR_MW: u32 = 250_000;
const HOLD_MS_MAX: u64 = 5_000;
/// More than a schedule can have due in its longest pause.
const STOPS_MAX: u32 = 500;
const LOWERING_INTERVAL: Duration = Duration::from_millis(200);

pub struct World {
    seed: u64,
    random: Random,
    start: Instant,
    now_ms: u64,
    devices: Vec<Arc<FakeDevice>>,
    hung: [bool; DEVICES],
    disk: Arc<FakeDisk>,
    /// The clock that a policy declares to be the default of device 0, in some worlds.
    declared_mhz: Option<u32>,
    agent: Agent,
    oracle: Oracle,
    leases_made: u64,
    trace: Vec<String>,
    violations: Vec<String>,
}

/// What a kill -9 takes away.
struct Agent {
    arbiter: Arbiter,
    threads: Vec<Arc<DeviceThread>>,
    workers: Vec<Worker>,
    /// A command inside of a call that does not return.
    inside: Vec<Option<Command>>,
}

#[derive(Default)]
struct Heard {
    completions: RefCell<Vec<Completion>>,
}

impl Listener for Heard {
    fn writing(&self, _: ControlName) {}

    fn written(&self, _: Written) {}

    fn completed(&self, completion: Completion) {
        self.completions.borrow_mut().push(completion);
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let disk = FakeDisk::new();
        let devices: Vec<_> = (0..DEVICES).map(|index| FakeDevice::new(index, &disk)).collect();
        let declared_mhz = (random.below(4) == 0).then_some(1290);
        let start = Instant::now();
        let agent = Agent::start(&devices, &disk, declared_mhz, start);
        Self {
            seed,
            random,
            start,
            now_ms: 0,
            devices,
            hung: [false; DEVICES],
            disk,
            declared_mhz,
            agent,
            oracle: Oracle::default(),
            leases_made: 0,
            trace: Vec::new(),
            violations: Vec::new(),
        }
    }

    pub fn violations(self) -> Vec<String> {
        self.violations
    }

    /// One thing happens, and time passes.
    pub fn step(&mut self) {
        match self.random.below(20) {
            0..=2 => self.grant(),
            3..=7 => self.put(),
            8 => self.put_stale(),
            9 => self.end(),
            10 | 11 => self.fault(),
            12 | 13 => self.hang(),
            14 => self.foreign_writer(),
            15 if self.random.below(3) == 0 => self.crash(),
            16 if self.random.below(6) == 0 => self.shut_down(),
            _ => {
                let ms = self.random.below(700);
                self.pass(ms);
            }
        }
        let ms = self.random.below(60);
        self.pass(ms);
    }

    /// Nothing goes wrong any more and nobody wants anything: all must be as it was found.
    pub fn quiesce(&mut self) {
        self.note("quiesce".to_owned());
        self.disk.fail(false);
        for index in 0..DEVICES {
            let mut state = self.devices[index].state();
            state.on_limit = Fault::None;
            state.on_restore = Fault::None;
            drop(state);
            self.return_from_call(index);
        }
        self.settle();
        for id in self.oracle.ids() {
            self.disconnect(id);
        }
        self.pass(70_000);
        for knob in all_knobs() {
            if !self.is_default(knob) {
                let actual = self.actual(knob);
                self.violation(format!("{knob:?} is left at {actual}"));
            }
        }
        if self.agent.arbiter.next_due().is_some() {
            self.violation("something stays due for ever".to_owned());
        }
        // A record that could not be taken out of the journal costs the next start one more restore.
        self.crash();
        self.pass(10_000);
        if !self.disk.entries().is_empty() {
            let left = format!("{:?}", self.disk.entries());
            self.violation(format!("the journal keeps {left}"));
        }
    }

    fn grant(&mut self) {
        let knobs = self.some_knobs();
        self.leases_made += 1;
        let id = LeaseId(u128::from(self.leases_made));
        let ttl_ms = 300 + self.random.below(3_000);
        let request = GrantRequest {
            id,
            epoch: self.leases_made,
            holder: "model".to_owned(),
            principal: user(),
            ttl: Duration::from_millis(ttl_ms),
            knobs: knobs.iter().map(|&knob| (knob, self.terms(knob))).collect(),
        };
        let granted = self.agent.arbiter.grant(request, self.now());
        self.note(format!("grant {id} of {knobs:?} ttl {ttl_ms}: {granted:?}"));
        if granted.is_ok() {
            self.oracle
                .granted(id, self.leases_made, ttl_ms, &knobs, self.now_ms);
        }
        self.settle();
    }

    fn put(&mut self) {
        let Some(id) = self.some_lease() else { return };
        let (epoch, last_seq) = {
            let lease = self.oracle.lease(id).expect("one of them");
            (lease.epoch, lease.seq)
        };
        let mut knobs = self.oracle.knobs(id);
        let mut targets = Vec::new();
        let mut asked = Vec::new();
        // Nothing, to renew; one group; or two.
        for _ in 0..self.random.below(3) {
            let count = knobs.len().min(1 + self.random.below(3) as usize);
            let of_group: Vec<Knob> = knobs.drain(..count).collect();
            if of_group.is_empty() {
                break;
            }
            let hold_ms = 1 + self.random.below(HOLD_MS_MAX);
            let is_default = self.random.below(5) == 0;
            let (mut wishes, mut demands) = (Vec::new(), Vec::new());
            for knob in of_group {
                let requested = self.some_value(knob);
                let hold = Duration::from_millis(hold_ms);
                let wish = if is_default {
                    Wish::Default
                } else {
                    Wish::Limit { requested, hold }
                };
                wishes.push((knob, wish));
                demands.push((knob, (!is_default).then(|| self.fitted(knob, requested))));
            }
            targets.push(Target { wishes });
            asked.push((demands, hold_ms));
        }
        let seq = last_seq + 1 + self.random.below(3);
        let request = TargetsRequest {
            lease_id: id,
            principal: user(),
            epoch,
            seq,
            targets,
        };
        let accepted = self.agent.arbiter.put_targets(&request, self.now());
        self.note(format!("put {id} seq {seq} {asked:?}: {}", accepted.is_ok()));
        match accepted {
            Ok(_) => self.oracle.put(id, seq, self.now_ms, &asked),
            Err(refusal) => self.violation(format!("a good PUT was refused: {refusal:?}")),
        }
        self.settle();
    }

    /// An old sequence number, or another lease's epoch: refused, and nothing is written for it.
    fn put_stale(&mut self) {
        let Some(id) = self.some_lease() else { return };
        let lease = self.oracle.lease(id).expect("one of them");
        let is_old_seq = lease.seq > 0 && self.random.below(2) == 0;
        let (epoch, seq) = if is_old_seq {
            (lease.epoch, lease.seq)
        } else {
            (lease.epoch + 1_000, lease.seq + 1)
        };
        let knob = self.oracle.knobs(id)[0];
        let wishes = vec![(knob, Wish::Default)];
        let targets = vec![Target { wishes }];
        let request = TargetsRequest {
            lease_id: id,
            principal: user(),
            epoch,
            seq,
            targets,
        };
        let before = self.writes();
        let answer = self.agent.arbiter.put_targets(&request, self.now());
        self.note(format!("stale put {id} epoch {epoch} seq {seq}"));
        self.settle();
        if answer.is_ok() || self.writes() != before {
            self.violation("a stale PUT did something".to_owned());
        }
    }

    fn end(&mut self) {
        let Some(id) = self.some_lease() else { return };
        if self.random.below(2) == 0 {
            return self.disconnect(id);
        }
        self.note(format!("release {id}"));
        if self.agent.arbiter.release(id, &user(), self.now()).is_err() {
            self.violation("a release was refused".to_owned());
        }
        self.oracle.ended(id);
        self.settle();
    }

    fn disconnect(&mut self, id: LeaseId) {
        self.note(format!("disconnect {id}"));
        self.agent.arbiter.disconnected(id, self.now());
        self.oracle.ended(id);
        self.settle();
    }

    fn fault(&mut self) {
        let index = self.random.below(DEVICES as u64) as usize;
        let fault =
            [Fault::None, Fault::None, Fault::Fails, Fault::FailsAfterEffect][self.random.below(4) as usize];
        match self.random.below(5) {
            0 | 1 => self.devices[index].state().on_limit = fault,
            2 | 3 => self.devices[index].state().on_restore = fault,
            _ => self.disk.fail(fault != Fault::None),
        }
        self.note(format!("fault {fault:?} near device {index}"));
    }

    fn hang(&mut self) {
        let index = self.random.below(DEVICES as u64) as usize;
        self.note(format!("device {index} hangs: {}", !self.hung[index]));
        if self.hung[index] {
            self.return_from_call(index);
        } else {
            self.hung[index] = true;
        }
        self.settle();
    }

    fn return_from_call(&mut self, index: usize) {
        self.hung[index] = false;
        if let Some(command) = self.agent.inside[index].take() {
            self.act(index, &command);
        }
    }

    /// Only where a reader would see it: while we hold the knob down, and nothing of ours is under way.
    fn foreign_writer(&mut self) {
        let knob = all_knobs()[self.random.below(2 * DEVICES as u64) as usize];
        let index = knob.device.0;
        let is_lowered = self.agent.arbiter.commanded(knob) != Setting::Default;
        if self.hung[index] || !is_lowered || self.is_troubled(knob) {
            return;
        }
        self.disk.fail(false);
        let evidence = if is_clock(knob) {
            self.devices[index].state().held.remove(&ControlName::Clock);
            Evidence::Inferred
        } else {
            let limit_mw = 300_000 + 50_000 * self.random.below(7) as u32;
            self.devices[index]
                .state()
                .held
                .insert(ControlName::PowerLimit, limit_mw);
            self.oracle.foreign(knob, limit_mw);
            Evidence::Read
        };
        self.note(format!("somebody else sets {knob:?}"));
        self.agent.arbiter.foreign_writer(knob, evidence, self.now());
        self.settle();
    }

    /// kill -9 of worker and sentinel, and the next start. A call that a dead process was in may still take effect.
    fn crash(&mut self) {
        self.note("crash".to_owned());
        for index in 0..DEVICES {
            if let Some(command) = self.agent.inside[index].take()
                && self.random.below(2) == 0
            {
                self.agent.workers[index].act(&command, &Heard::default());
            }
        }
        self.hung = [false; DEVICES];
        self.oracle.all_ended();
        self.agent = Agent::start(&self.devices, &self.disk, self.declared_mhz, self.now());
        let now = self.now();
        self.agent.arbiter.advance(now);
        self.settle();
    }

    fn shut_down(&mut self) {
        self.note("shut down".to_owned());
        self.agent.arbiter.shut_down(self.now());
        self.oracle.all_ended();
        self.settle();
        self.pass(2_000);
        self.crash();
    }

    /// Stops wherever the arbiter has something to do, as the timer does.
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        let mut stops = 0;
        while let Some(due) = self.agent.arbiter.next_due() {
            let due_ms =
                u64::try_from((due.saturating_duration_since(self.start)).as_millis()).expect("small");
            if due_ms > until_ms {
                break;
            }
            stops += 1;
            if stops > STOPS_MAX {
                self.violation("what is due is never done".to_owned());
                break;
            }
            self.now_ms = self.now_ms.max(due_ms);
            let now = self.now();
            self.agent.arbiter.advance(now);
            self.settle();
        }
        self.now_ms = until_ms;
        let now = self.now();
        self.agent.arbiter.advance(now);
        self.settle();
    }

    /// Everything that can act acts; then the promises are held against what is.
    fn settle(&mut self) {
        loop {
            let mut acted = false;
            for effect in self.agent.arbiter.take_effects() {
                acted = true;
                match effect {
                    Effect::Command(command) => self.agent.threads[command.knob.device.0].post(command),
                    Effect::LeaseEnded { lease_id, reason, .. } => {
                        if reason == EndReason::Expired && !self.oracle.has_expired(lease_id, self.now_ms) {
                            self.violation(format!("lease {lease_id} expired before its time"));
                        }
                        self.oracle.ended(lease_id);
                    }
                }
            }
            for index in 0..DEVICES {
                if self.agent.inside[index].is_some() {
                    continue;
                }
                if let Some(command) = self.agent.workers[index].try_take() {
                    acted = true;
                    if self.hung[index] {
                        self.agent.inside[index] = Some(command);
                    } else {
                        self.act(index, &command);
                    }
                }
            }
            if !acted {
                break;
            }
        }
        self.hear_failures();
        self.check();
    }

    fn act(&mut self, index: usize, command: &Command) {
        let heard = Heard::default();
        self.agent.workers[index].act(command, &heard);
        for completion in heard.completions.take() {
            let now = self.now();
            self.agent.arbiter.completed(&completion, now);
        }
        let wrongs = std::mem::take(&mut self.devices[index].state().violations);
        for wrong in wrongs {
            self.violation(format!("device {index}: {wrong}"));
        }
    }

    /// What a PUT would be answered now: all of a group, or none of it.
    fn hear_failures(&mut self) {
        for (id, knobs) in self.oracle.groups(self.now_ms) {
            let told = |knob: &Knob| self.agent.arbiter.status(id, *knob).map(|(status, _)| status);
            let statuses: Vec<Option<Status>> = knobs.iter().map(told).collect();
            let follows =
                |status: &Option<Status>| matches!(status, Some(Status::Applied | Status::Deferred));
            if statuses.iter().all(follows) {
                continue;
            }
            if statuses.iter().any(follows) {
                self.violation(format!("group {knobs:?} of {id} follows in part: {statuses:?}"));
            }
            for knob in knobs {
                self.oracle.failed(id, knob);
            }
        }
    }

    fn check(&mut self) {
        for knob in all_knobs() {
            let actual = self.actual(knob);
            let steps = if is_clock(knob) {
                CLOCKS_MHZ.to_vec()
            } else {
                Vec::new()
            };
            let floor = if is_clock(knob) { FLOOR_MHZ } else { FLOOR_MW };
            if actual < floor || (is_clock(knob) && !steps.contains(&actual)) {
                self.violation(format!(
                    "{knob:?} is at {actual}, outside of the policy or off its steps"
                ));
            }
            // Inside of a call that hangs, or while a restore fails, the device is the driver's; `/readyz` says so.
            if self.agent.inside[knob.device.0].is_some() || self.is_troubled(knob) {
                continue;
            }
            // What somebody else has set is theirs.
            if self.agent.arbiter.is_yielded(knob) {
                continue;
            }
            let is_default = self.is_default(knob);
            match self.oracle.fastest(knob, self.now_ms) {
                None if !is_default => {
                    let held = self.oracle.is_held(knob, self.now_ms);
                    self.violation(format!(
                        "{knob:?} is at {actual} and nobody wants it slower (held: {held})"
                    ));
                }
                Some(fastest) if !is_default && actual < fastest => {
                    self.violation(format!(
                        "{knob:?} is at {actual}, slower than the fastest demand {fastest}"
                    ));
                }
                _ => {}
            }
        }
    }

    /// A restore is owed that did not work at once.
    fn is_troubled(&self, knob: Knob) -> bool {
        self.agent.arbiter.restores_overdue().contains(&knob)
    }

    fn is_default(&self, knob: Knob) -> bool {
        let actual = self.actual(knob);
        if !is_clock(knob) {
            return actual == self.oracle.found_limit_mw(knob);
        }
        let declared = self.declared_mhz.filter(|_| knob.device.0 == 0);
        actual == *CLOCKS_MHZ.last().expect("it has some") || Some(actual) == declared
    }

    fn actual(&self, knob: Knob) -> u32 {
        self.devices[knob.device.0].actual(knob.control)
    }

    fn writes(&self) -> u64 {
        self.devices.iter().map(|device| device.state().writes).sum()
    }

    fn terms(&self, knob: Knob) -> Terms {
        let floor = if is_clock(knob) { FLOOR_MHZ } else { FLOOR_MW };
        Terms {
            bounds: Bounds::on(self.agent.arbiter.steps(knob), Some(floor), None),
            hold_max: Duration::from_millis(HOLD_MS_MAX),
            lowering_interval: LOWERING_INTERVAL,
        }
    }

    /// By the protocol's words: the next step up, within the policy's range.
    fn fitted(&self, knob: Knob, requested: u32) -> u32 {
        let floor = if is_clock(knob) { FLOOR_MHZ } else { FLOOR_MW };
        let steps = self.agent.arbiter.steps(knob);
        let next = steps.iter().copied().find(|&step| step >= requested.max(floor));
        next.unwrap_or(*steps.last().expect("a knob has steps"))
    }

    fn some_value(&mut self, knob: Knob) -> u32 {
        if is_clock(knob) {
            200 + self.random.below(1_900) as u32
        } else {
            180_000 + self.random.below(450_000) as u32
        }
    }

    fn some_knobs(&mut self) -> Vec<Knob> {
        let mut knobs: Vec<Knob> = all_knobs()
            .into_iter()
            .filter(|_| self.random.below(2) == 0)
            .collect();
        if knobs.is_empty() {
            knobs.push(all_knobs()[0]);
        }
        knobs
    }

    fn some_lease(&mut self) -> Option<LeaseId> {
        let ids = self.oracle.ids();
        let count = u64::try_from(ids.len()).expect("a few");
        (count > 0).then(|| ids[self.random.below(count) as usize])
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms)
    }

    fn note(&mut self, what: String) {
        self.trace.push(format!("{:>7} ms  {what}", self.now_ms));
    }

    fn violation(&mut self, what: String) {
        let last = self.trace.len().saturating_sub(40);
        let trace = self.trace[last..].join("\n");
        self.violations.push(format!(
            "seed {}, at {} ms: {what}\n{trace}",
            self.seed, self.now_ms
        ));
    }
}

impl Agent {
    fn start(
        devices: &[Arc<FakeDevice>],
        disk: &Arc<FakeDisk>,
        declared_mhz: Option<u32>,
        now: Instant,
    ) -> Self {
        let owed = disk.entries();
        let journal = Arc::new(Journal::new(DiskHandle(Arc::clone(disk)), owed.clone()));
        let mut steps = BTreeMap::new();
        let mut journaled = Vec::new();
        let (mut threads, mut workers) = (Vec::new(), Vec::new());
        for (index, device) in devices.iter().enumerate() {
            let declared = declared_mhz.filter(|_| index == 0);
            let own = owed.get(&device.info().id).cloned().unwrap_or_default();
            for control in ControlName::ALL {
                let knob = Knob {
                    device: DeviceIndex(index),
                    control,
                };
                let highest = declared.filter(|_| is_clock(knob)).unwrap_or(u32::MAX);
                let all = device.info().steps(control).iter().copied();
                steps.insert(knob, all.filter(|&step| step <= highest).collect());
                if own.contains_key(&control) {
                    journaled.push(knob);
                }
            }
            let (thread, worker) = DeviceThread::new(DeviceThreadOptions {
                device: Arc::clone(device) as Arc<dyn Device>,
                declared: declared
                    .map(|mhz| (ControlName::Clock, mhz))
                    .into_iter()
                    .collect(),
                owed: own,
                journal: Arc::clone(&journal),
                observes: false,
            });
            threads.push(thread);
            workers.push(worker);
        }
        Self {
            arbiter: Arbiter::new(steps, &journaled, now),
            threads,
            workers,
            inside: vec![None; devices.len()],
        }
    }
}

fn all_knobs() -> Vec<Knob> {
    let devices = (0..DEVICES).map(DeviceIndex);
    let knobs = devices.flat_map(|device| ControlName::ALL.map(|control| Knob { device, control }));
    knobs.collect()
}

fn user() -> Principal {
    Principal::User {
        uid: 1_000,
        gids: vec![1_000],
    }
}
