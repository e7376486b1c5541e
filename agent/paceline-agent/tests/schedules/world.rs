//! One schedule: an agent, its clients, what they did, and what must hold after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::process::Child;
use std::time::{Duration, Instant};

use emulated_device::Command;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::client_process;
use crate::model::{self, Claim, Control, DEFAULT, Knob, Terms};
use crate::support::agent::{self, Agent, is_alive};
use crate::support::client::{Lease, Reply, request};
use crate::support::raw;
use crate::support::sandbox::{CLOCKS_MHZ, DEVICES, Driver, Sandbox};
use crate::support::seeded::Seeded;
use crate::watcher::{DEFAULT_POWER_LIMIT_MW, Range, Watcher, lowered, out_of_range};

/// What README measures in milliseconds, on two cores that other tests use too.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// A worker or sentinel is killed: the sentinel's `restore` or the worker's own, as processes that must get a core.
const BACK_AFTER_DEATH: Duration = Duration::from_secs(4);
/// 6 polls of 500 ms until a worker that is stopped counts as hung, then as above.
const BACK_AFTER_SILENCE: Duration = Duration::from_secs(8);
/// A failing reset is retried at least every 5 s; `restore` gives up after 5 s and the next worker goes on.
const BACK_AFTER_FAULT: Duration = Duration::from_secs(10);
/// The sentinel's waits between workers, a start that waits 1.5 s for devices, and a slow machine.
const SERVES_WITHIN: Duration = Duration::from_secs(20);
/// The sentinel gives up at six crashes a minute, and that is not what is tested here.
const WORKER_KILLS_MAX: u32 = 3;

pub struct World {
    /// First, because it ends first: it looks at the sandbox.
    watcher: Watcher,
    pub sandbox: Sandbox,
    pub seeded: Seeded,
    pub violations: Vec<String>,
    pub steps: u64,
    agent: Option<Agent>,
    held: Vec<Held>,
    half_closed: Vec<Held>,
    range: Range,
    allows_power_limits: bool,
    /// Per device, until when it may be late.
    excused_until: Vec<Instant>,
    has_fault: bool,
    /// Per device: a fault keeps it from being restored, for as long as the fault lasts.
    is_faulty: Vec<bool>,
    /// Everybody who could restore is dead.
    is_orphaned: bool,
    slow_since: BTreeMap<Knob, Instant>,
    troubled_at: Instant,
    worker_kills: u32,
    began_at: Instant,
    trace: String,
}

struct Held {
    id: String,
    epoch: u64,
    seq: u64,
    devices: Vec<u32>,
    controls: Vec<Control>,
    terms: Terms,
    by: By,
}

enum By {
    Us(Lease),
    Process(Child),
}

impl Drop for Held {
    fn drop(&mut self) {
        if let By::Process(child) = &mut self.by {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl World {
    pub fn new(driver: Driver, seed: u64) -> Self {
        let sandbox = Sandbox::new(driver);
        let mut seeded = Seeded::new(seed);
        let range = any_range(&mut seeded);
        let watcher = Watcher::start(&sandbox, range.clone());
        let now = Instant::now();
        let mut world = Self {
            watcher,
            sandbox,
            seeded,
            violations: Vec::new(),
            steps: 0,
            agent: None,
            held: Vec::new(),
            half_closed: Vec::new(),
            range,
            allows_power_limits: true,
            excused_until: vec![now; DEVICES as usize],
            has_fault: false,
            is_faulty: vec![false; DEVICES as usize],
            is_orphaned: false,
            slow_since: BTreeMap::new(),
            troubled_at: now,
            worker_kills: 0,
            began_at: now,
            trace: String::new(),
        };
        world.write_policy();
        world.start();
        world
    }

    pub fn trace(&self) -> &str {
        &self.trace
    }

    fn note(&mut self, what: impl std::fmt::Display) {
        let at_ms = self.began_at.elapsed().as_millis();
        let step = self.steps;
        writeln!(self.trace, "  {at_ms:>6} ms  #{step:<3} {what}").expect("a string takes everything");
    }

    fn violated(&mut self, rule: &str, what: impl std::fmt::Display) {
        self.note(format_args!("VIOLATION {rule}: {what}"));
        if self.violations.len() < 20 {
            self.violations.push(format!("{rule}: {what}"));
        }
    }

    // ---- what is done ----

    pub fn step(&mut self) {
        self.steps += 1;
        if self.agent.is_none() && self.seeded.one_in(2) {
            self.start();
        }
        match self.seeded.below(44) {
            0..4 => self.grant(),
            4..6 => self.grant_to_process(),
            6..16 => self.put(),
            16..18 => self.put_stale(),
            18 => self.renew(),
            19..21 => self.delete(),
            21..23 => self.let_go(false),
            23..25 => self.let_go(true),
            25 => self.stop_process(),
            26 => self.kill_process(),
            27 => self.kill_worker(),
            28 => self.stop_worker(),
            29 => self.kill_sentinel(),
            30 => self.kill_both(),
            31 => self.terminate(),
            32 => self.restore(),
            33..35 => self.reload(),
            35..38 => self.break_nvml(),
            38 => self.mend_nvml(),
            39..42 => self.expect_effect(),
            _ => {
                let pause_ms = self.seeded.between(1, 300);
                self.pause(pause_ms);
            }
        }
        self.check();
        let pause_ms = self.seeded.below(40);
        self.pause(pause_ms);
    }

    /// Time passes; what must hold is looked at all the while.
    fn pause(&mut self, pause_ms: u64) {
        let until = Instant::now() + Duration::from_millis(pause_ms);
        loop {
            self.check();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(5)));
        }
    }

    fn pause_until(&mut self, within: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let give_up_at = Instant::now() + within;
        while !holds(self) {
            if Instant::now() > give_up_at {
                return false;
            }
            self.pause(2);
        }
        true
    }

    fn start(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.note("start");
        self.agent = Some(Agent::spawn(&self.sandbox, |_| {}));
        self.worker_kills = 0;
        let is_serving = self.pause_until(SERVES_WITHIN, |world| world.is_serving());
        if !is_serving {
            let left = self.agent.as_mut().unwrap().has_left();
            self.violated("serves", format_args!("not after a start ({left:?})"));
        }
        self.is_orphaned = false;
        self.excuse_all(BACK_WITHIN);
    }

    fn is_serving(&self) -> bool {
        raw::send(&self.sandbox.socket_path(), "GET", "/healthz", "").is_some_and(|reply| reply.status == 200)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Reply> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        raw::send(&self.sandbox.socket_path(), method, path, &body)
    }

    fn some_devices(&mut self, of: &[u32]) -> Vec<u32> {
        let chosen: Vec<u32> = of.iter().copied().filter(|_| !self.seeded.one_in(3)).collect();
        if chosen.is_empty() {
            vec![*self.seeded.one_of(of)]
        } else {
            chosen
        }
    }

    fn names(&self, devices: &[u32]) -> Vec<String> {
        devices.iter().map(|&index| self.sandbox.device(index)).collect()
    }

    fn any_controls(&mut self) -> Vec<Control> {
        if self.seeded.one_in(2) {
            vec![Control::Clock]
        } else {
            vec![Control::Clock, Control::PowerLimit]
        }
    }

    fn grant(&mut self) {
        if self.held.len() >= 3 {
            return;
        }
        let all: Vec<u32> = (0..DEVICES).collect();
        let devices = self.some_devices(&all);
        let controls = self.any_controls();
        let ttl_ms = *self.seeded.one_of(&[200, 500, 3_000, 60_000, 60_000]);
        let names: Vec<&str> = controls.iter().map(|control| control.name()).collect();
        let body = json!({"holder": "schedule", "devices": self.names(&devices), "controls": names,
            "ttl_ms": ttl_ms});
        let asked_at = Instant::now();
        match raw::lease(&self.sandbox.socket_path(), &body) {
            None => self.note("grant: nobody answers"),
            Some(Err(refusal)) => self.judge_refused_grant(&refusal, &controls),
            Some(Ok(lease)) => {
                let ttl = Duration::from_millis(ttl_ms);
                let terms = new_terms(&devices, &controls, ttl, asked_at);
                let id = lease.id();
                let epoch = lease.granted["epoch"].as_u64().unwrap();
                self.note(format_args!("grant {id}: {devices:?} {names:?} ttl {ttl_ms} ms"));
                self.held.push(Held {
                    id,
                    epoch,
                    seq: 0,
                    devices,
                    controls,
                    terms,
                    by: By::Us(lease),
                });
                // One that says nothing keeps its devices at default, and everybody else from being heard.
                if !self.seeded.one_in(6) {
                    self.put_on(self.held.len() - 1);
                }
            }
        }
    }

    fn judge_refused_grant(&mut self, refusal: &Reply, controls: &[Control]) {
        let is_denied = controls.contains(&Control::PowerLimit) && !self.allows_power_limits;
        self.note(format_args!("grant refused: {} {}", refusal.status, refusal.body));
        let is_explained = match refusal.status {
            403 => is_denied,
            // A restore is pending, or the worker is leaving.
            503 => true,
            _ => false,
        };
        if !is_explained {
            self.violated(
                "grants",
                format_args!("refused: {} {}", refusal.status, refusal.body),
            );
        }
    }

    fn grant_to_process(&mut self) {
        let processes = self.held.iter().filter(|held| matches!(held.by, By::Process(_)));
        if processes.count() >= 2 {
            return;
        }
        let devices: Vec<u32> = (0..DEVICES).collect();
        let ttl_ms = *self.seeded.one_of(&[400, 60_000]);
        let value = *self.seeded.one_of(&[210, 990, 1005, 1290]);
        let value = value.clamp(self.range.floor_mhz, self.range.ceiling_mhz);
        let asked_at = Instant::now();
        let Some((child, granted)) =
            client_process::start(&self.sandbox, &self.names(&devices), value, ttl_ms)
        else {
            self.note("a client process got no lease");
            return;
        };
        let ttl = Duration::from_millis(ttl_ms);
        let mut terms = new_terms(&devices, &[Control::Clock], ttl, asked_at);
        // It renews for as long as it runs. One with a short TTL may miss that on a busy machine.
        let never = Instant::now() + Duration::from_secs(3_600);
        terms.expires_at = (never, never);
        terms.is_uncertain = ttl_ms < 60_000;
        let claim = Claim {
            value,
            lapses_at: (never, never),
            is_deferred: true,
            said_at: Instant::now(),
        };
        terms.claims.values_mut().for_each(|demand| *demand = Some(claim));
        let id = granted["lease_id"].as_str().unwrap().to_owned();
        self.note(format_args!(
            "process {} holds {id}: {value} MHz, ttl {ttl_ms} ms",
            child.id()
        ));
        self.held.push(Held {
            id,
            epoch: granted["epoch"].as_u64().unwrap(),
            seq: 0,
            devices,
            controls: vec![Control::Clock],
            terms,
            by: By::Process(child),
        });
    }

    fn any_of_ours(&mut self) -> Option<usize> {
        let ours: Vec<usize> = (0..self.held.len())
            .filter(|&index| matches!(self.held[index].by, By::Us(_)))
            .collect();
        (!ours.is_empty()).then(|| *self.seeded.one_of(&ours))
    }

    fn any_process(&mut self) -> Option<usize> {
        let processes: Vec<usize> = (0..self.held.len())
            .filter(|&index| matches!(self.held[index].by, By::Process(_)))
            .collect();
        (!processes.is_empty()).then(|| *self.seeded.one_of(&processes))
    }

    fn put(&mut self) {
        match self.any_of_ours() {
            Some(index) => self.put_on(index),
            None => self.grant(),
        }
    }

    fn put_on(&mut self, index: usize) {
        let targets = self.any_targets(index);
        let held = &mut self.held[index];
        held.seq += self.seeded.between(1, 3);
        let (id, epoch, seq) = (held.id.clone(), held.epoch, held.seq);
        let said: Vec<Value> = targets.iter().map(|target| self.body_of(target)).collect();
        let body = json!({"epoch": epoch, "seq": seq, "targets": said});
        let asked_at = Instant::now();
        let reply = self.ask("PUT", &format!("/v1/leases/{id}/targets"), &body);
        let answered_at = Instant::now();
        match reply {
            None => {
                self.note(format_args!("PUT {id}: no answer"));
                self.lose(index);
            }
            Some(reply) if reply.status == 200 => {
                let answer = reply.json();
                let results = answer["results"].as_array().unwrap().clone();
                self.note(format_args!("PUT {id} {}: {}", json!(said), brief(&results)));
                self.renewed(index, (asked_at, answered_at));
                self.take_results(index, &targets, &results, (asked_at, answered_at));
            }
            Some(reply) if reply.status == 404 => self.lost(index, asked_at),
            Some(reply) => self.violated("PUT", format_args!("{} {}", reply.status, reply.body)),
        }
    }

    /// Of some of what the lease holds, in one group or two.
    fn any_targets(&mut self, index: usize) -> Vec<Wish> {
        let (held, controls) = (
            self.held[index].devices.clone(),
            self.held[index].controls.clone(),
        );
        let devices = self.some_devices(&held);
        let groups = if devices.len() > 1 && self.seeded.one_in(3) {
            devices.iter().map(|&one| vec![one]).collect()
        } else {
            vec![devices]
        };
        let mut targets = Vec::new();
        for devices in groups {
            let mut values = BTreeMap::new();
            for &control in &controls {
                let is_last = Some(&control) == controls.last();
                if controls.len() > 1 && (!is_last || !values.is_empty()) && self.seeded.one_in(3) {
                    continue;
                }
                let value = match (self.seeded.below(6), control) {
                    (0, _) => None,
                    (1..4, Control::Clock) => Some(*self.seeded.one_of(&CLOCKS_MHZ)),
                    (_, Control::Clock) => Some(self.seeded.between(1, 2_500) as u32),
                    (_, Control::PowerLimit) => Some(self.seeded.between(100_000, 750_000) as u32),
                };
                values.insert(control, value);
            }
            let hold_ms = match self.seeded.below(3) {
                0 => self.seeded.between(20, 800),
                _ => 60_000,
            };
            targets.push(Wish {
                devices,
                values,
                hold_ms,
            });
        }
        targets
    }

    fn body_of(&self, target: &Wish) -> Value {
        let mut body = json!({"devices": self.names(&target.devices)});
        for (control, value) in &target.values {
            body[format!("{}_{}", control.name(), control.unit())] = json!(value);
        }
        if target.values.values().any(Option::is_some) {
            body["hold_ms"] = json!(target.hold_ms);
        }
        body
    }

    fn renewed(&mut self, index: usize, (asked_at, answered_at): (Instant, Instant)) {
        let terms = &mut self.held[index].terms;
        terms.expires_at = (asked_at + terms.ttl, answered_at + terms.ttl);
    }

    fn take_results(
        &mut self,
        index: usize,
        targets: &[Wish],
        results: &[Value],
        (asked_at, answered_at): (Instant, Instant),
    ) {
        let mut told = Vec::new();
        for target in targets {
            let mut group = Vec::new();
            for &device in &target.devices {
                for (&control, &wanted) in &target.values {
                    let name = self.sandbox.device(device);
                    let result = results
                        .iter()
                        .find(|result| result["device"] == name && result["control"] == control.name());
                    let Some(result) = result else {
                        self.violated("PUT", format_args!("no result of {name} {control:?}"));
                        continue;
                    };
                    group.push((Knob { device, control }, wanted, result.clone()));
                }
            }
            let is_broken = |result: &Value| {
                matches!(
                    result["status"].as_str(),
                    Some("failed" | "stuck" | "yielded" | "observed")
                )
            };
            let has_failed = group.iter().any(|(_, _, result)| is_broken(result));
            for (knob, wanted, result) in group {
                let unit = knob.control.unit();
                let target = value_of(&result[format!("target_{unit}")], knob.control);
                let demand = value_of(&result[format!("demand_{unit}")], knob.control);
                if has_failed && target != DEFAULT {
                    self.violated(
                        "a group is set together or not at all",
                        format_args!("{knob:?} has failed or its group has, and its target is {target}"),
                    );
                }
                if result["status"] == "yielded" {
                    self.violated("nobody else writes", format_args!("{knob:?} is yielded"));
                }
                let claim = wanted.filter(|_| !has_failed && demand != DEFAULT);
                if let Some(wanted) = claim {
                    self.judge_demand(knob, wanted, demand);
                }
                let hold = Duration::from_millis(
                    targets
                        .iter()
                        .find(|one| one.devices.contains(&knob.device))
                        .map_or(0, |one| one.hold_ms),
                );
                let is_deferred = result["status"] == "deferred";
                let observed = self.observed(knob);
                let is_late = self.has_fault || self.slow_since.contains_key(&knob);
                if is_deferred && !is_late && observed < demand {
                    self.violated(
                        "raising is never deferred",
                        format_args!("{knob:?}: at {observed}, deferred to {demand}"),
                    );
                }
                let demand = claim.map(|_| Claim {
                    value: demand,
                    lapses_at: (asked_at + hold, answered_at + hold),
                    is_deferred,
                    said_at: answered_at,
                });
                self.held[index].terms.claims.insert(knob, demand);
                if !has_failed && !is_deferred {
                    told.push((knob, target));
                }
            }
        }
        for (knob, target) in told {
            self.judge_told(knob, target);
        }
    }

    /// Never slower than asked, except where the ceiling says so, and on a step within the range.
    fn judge_demand(&mut self, knob: Knob, wanted: u32, demand: u32) {
        if let Some(wrong) = out_of_range(std::slice::from_ref(&self.range), knob.control, demand) {
            self.violated("policy", wrong);
        }
        let ceiling = match knob.control {
            Control::Clock => self.range.ceiling_mhz,
            Control::PowerLimit => DEFAULT_POWER_LIMIT_MW,
        };
        if demand < wanted.min(ceiling) {
            self.violated(
                "never slower than asked",
                format_args!("{knob:?}: asked {wanted}, got {demand}"),
            );
        }
    }

    /// The answer says `applied`: then the device has it, unless something else was due meanwhile.
    fn judge_told(&mut self, knob: Knob, target: u32) {
        let now = Instant::now();
        let terms = || self.held.iter().map(|held| &held.terms);
        if self.is_faulty[knob.device as usize] || !model::is_quiet(terms(), knob, now) {
            return;
        }
        let observed = self.observed(knob);
        if observed != target {
            self.violated(
                "an applied target is on the device",
                format_args!("{knob:?}: answered {target}, found {observed}"),
            );
        }
    }

    fn put_stale(&mut self) {
        let Some(index) = self.any_of_ours() else {
            return;
        };
        let held = &self.held[index];
        if held.seq == 0 {
            return;
        }
        let (mut epoch, mut seq) = (held.epoch, held.seq);
        if self.seeded.one_in(2) {
            epoch += 1;
            seq += 1;
        } else {
            seq -= self.seeded.below(2);
        }
        let id = held.id.clone();
        let devices = self.names(&held.devices);
        let body = json!({"epoch": epoch, "seq": seq,
            "targets": [{"devices": devices, "clock_mhz": 210, "hold_ms": 60_000}]});
        let is_quiet = self.knobs().all(|knob| {
            let terms = self.held.iter().map(|held| &held.terms);
            model::is_quiet(terms, knob, Instant::now())
                && Instant::now() > self.excused_until[knob.device as usize]
        });
        let is_calm = is_quiet && !self.is_faulty.contains(&true);
        let before = self.commands();
        let asked_at = Instant::now();
        let reply = self.ask("PUT", &format!("/v1/leases/{id}/targets"), &body);
        self.note(format_args!(
            "stale PUT {id} epoch {epoch} seq {seq}: {:?}",
            reply.as_ref().map(|reply| reply.status)
        ));
        match reply {
            None => self.lose(index),
            Some(reply) if reply.status == 404 => self.lost(index, asked_at),
            Some(reply) if reply.status == 412 => {
                let after = self.commands();
                if is_calm && after != before && asked_at.elapsed() < Duration::from_millis(500) {
                    self.violated(
                        "a stale request writes nothing",
                        format_args!("{before:?} then {after:?}"),
                    );
                }
            }
            Some(reply) => self.violated(
                "a stale request is a 412",
                format_args!("{} {}", reply.status, reply.body),
            ),
        }
    }

    fn renew(&mut self) {
        let Some(index) = self.any_of_ours() else {
            return;
        };
        let held = &mut self.held[index];
        held.seq += 1;
        let (id, body) = (
            held.id.clone(),
            json!({"epoch": held.epoch, "seq": held.seq, "targets": []}),
        );
        let asked_at = Instant::now();
        match self.ask("PUT", &format!("/v1/leases/{id}/targets"), &body) {
            None => self.lose(index),
            Some(reply) if reply.status == 200 => {
                self.note(format_args!("renew {id}"));
                self.renewed(index, (asked_at, Instant::now()));
            }
            Some(reply) if reply.status == 404 => self.lost(index, asked_at),
            Some(reply) => self.violated("renew", format_args!("{} {}", reply.status, reply.body)),
        }
    }

    fn delete(&mut self) {
        let Some(index) = self.any_of_ours() else {
            return;
        };
        let id = self.held[index].id.clone();
        let asked_at = Instant::now();
        let reply = self.ask("DELETE", &format!("/v1/leases/{id}"), &Value::Null);
        let status = reply.as_ref().map(|reply| reply.status);
        self.note(format_args!("DELETE {id}: {status:?}"));
        match status {
            Some(204) => {
                let held = self.held.remove(index);
                for &knob in held.terms.claims.keys() {
                    let required = self.required(knob);
                    let observed = self.observed(knob);
                    if observed < required {
                        self.violated(
                            "a 204 comes after the device is back",
                            format_args!("{knob:?}: {observed}, not {required}"),
                        );
                    }
                }
            }
            Some(404) => self.lost(index, asked_at),
            Some(503) | None => self.lose(index),
            Some(status) => self.violated("DELETE", status),
        }
    }

    /// By closing the stream, or the client's half of it.
    fn let_go(&mut self, half: bool) {
        let Some(index) = self.any_of_ours() else {
            return;
        };
        let held = self.held.remove(index);
        self.note(format_args!(
            "{} {}",
            if half { "half-close" } else { "drop" },
            held.id
        ));
        if let (true, By::Us(lease)) = (half, &held.by) {
            if !self.seeded.one_in(3) {
                // What nobody reads any more must not hide the end behind it.
                let _ = lease
                    .reader
                    .get_ref()
                    .write_all(request("GET", "/healthz", "").as_bytes());
            }
            let _ = lease.reader.get_ref().shutdown(Shutdown::Write);
            // Open to the end: it must not take the close of the other half to end the lease.
            self.half_closed.push(held);
        }
    }

    fn stop_process(&mut self) {
        let Some(index) = self.any_process() else {
            return self.grant_to_process();
        };
        let By::Process(child) = &self.held[index].by else {
            return;
        };
        let pid = child.id().cast_signed();
        agent::send(pid, Signal::SIGSTOP);
        let ttl = self.held[index].terms.ttl;
        let now = Instant::now();
        // What it sent before may be read after. Its last renewal is at most as late as that.
        self.held[index].terms.expires_at = (now, now + ttl);
        self.held[index].terms.is_uncertain = true;
        let stopped_ms = self.seeded.between(50, 900);
        self.note(format_args!("SIGSTOP {pid} for {stopped_ms} ms"));
        self.pause(stopped_ms);
        let Some(index) = self.held.iter().position(|held| is_process(held, pid)) else {
            return;
        };
        if self.seeded.one_in(2) {
            agent::send(pid, Signal::SIGKILL);
            self.note(format_args!("SIGKILL {pid}"));
            self.held.remove(index);
            return;
        }
        agent::send(pid, Signal::SIGCONT);
        self.note(format_args!("SIGCONT {pid}"));
        let never = Instant::now() + Duration::from_secs(3_600);
        self.held[index].terms.expires_at = (never, never);
    }

    fn kill_process(&mut self) {
        let Some(index) = self.any_process() else {
            return;
        };
        let held = self.held.remove(index);
        self.note(format_args!("SIGKILL the process of {}", held.id));
    }

    fn kill_worker(&mut self) {
        let Some(worker) = self.agent.as_ref().and_then(Agent::worker_now) else {
            return;
        };
        if self.worker_kills == WORKER_KILLS_MAX {
            return;
        }
        self.worker_kills += 1;
        self.note(format_args!("SIGKILL worker {worker}"));
        agent::send(worker, Signal::SIGKILL);
        self.everybody_lost(BACK_AFTER_DEATH);
        if self.seeded.one_in(2) {
            self.pause_until(SERVES_WITHIN, |world| world.is_serving());
        }
    }

    /// Shorter than the silence that counts as hung: leases go on, and time has passed for them.
    fn stop_worker(&mut self) {
        let Some(worker) = self.agent.as_ref().and_then(Agent::worker_now) else {
            return;
        };
        let stopped_ms = self.seeded.between(20, 900);
        self.note(format_args!("SIGSTOP worker {worker} for {stopped_ms} ms"));
        agent::send(worker, Signal::SIGSTOP);
        self.troubled(BACK_AFTER_SILENCE);
        self.pause(stopped_ms);
        agent::send(worker, Signal::SIGCONT);
        self.troubled(BACK_AFTER_DEATH);
    }

    fn kill_sentinel(&mut self) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        let worker = agent.worker_now();
        self.note(format_args!("SIGKILL sentinel, worker {worker:?}"));
        agent::send(agent.sentinel(), Signal::SIGKILL);
        self.everybody_lost(BACK_AFTER_DEATH);
        agent.wait();
        // A `restore` of the sentinel's that it was in the middle of goes on by itself; no worker to ask otherwise.
        let Some(worker) = worker else {
            self.is_orphaned = true;
            return;
        };
        if !self.pause_until(Duration::from_secs(8), |_| !is_alive(worker)) {
            self.violated("a worker leaves with its sentinel", worker);
            agent::send(worker, Signal::SIGKILL);
        }
        // The worker was too young to have been told, and the next start must do it.
        self.is_orphaned =
            !self.sandbox.are_all_default() && self.worker_kills > 0 || self.is_faulty.contains(&true);
    }

    fn kill_both(&mut self) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        self.note("SIGKILL sentinel and worker");
        agent::send(agent.sentinel(), Signal::SIGSTOP);
        let worker = agent.worker_now();
        if let Some(worker) = worker {
            agent::send(worker, Signal::SIGKILL);
        }
        agent::send(agent.sentinel(), Signal::SIGKILL);
        self.is_orphaned = true;
        self.everybody_lost(BACK_AFTER_DEATH);
        agent.wait();
        if let Some(worker) = worker {
            self.pause_until(Duration::from_secs(5), |_| !is_alive(worker));
        }
    }

    fn terminate(&mut self) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        agent::send(agent.sentinel(), Signal::SIGTERM);
        self.everybody_lost(BACK_AFTER_DEATH);
        let asked_at = Instant::now();
        let status = agent.wait();
        self.note(format_args!("SIGTERM: {status} after {:?}", asked_at.elapsed()));
        let is_default = self.knobs().all(|knob| self.observed(knob) == DEFAULT);
        match status.code() {
            Some(0) if !is_default => {
                self.violated("0 is left in order", "a device is not at default");
            }
            Some(0) => {}
            Some(1) if self.is_faulty.contains(&true) => self.is_orphaned = true,
            _ => self.violated("SIGTERM leaves in order", status),
        }
    }

    fn restore(&mut self) {
        if self.agent.is_some() {
            return;
        }
        let status = agent::command(&self.sandbox, "restore").output().unwrap().status;
        self.note(format_args!("restore: {status}"));
        let is_default = self.knobs().all(|knob| self.observed(knob) == DEFAULT);
        match status.code() {
            Some(0) if is_default => self.is_orphaned = false,
            Some(0) => self.violated("restore restores", "0, and a device is not at default"),
            Some(1) if self.is_faulty.contains(&true) => {}
            _ => self.violated("restore restores", status),
        }
    }

    fn reload(&mut self) {
        if self.agent.is_none() || !self.is_serving() {
            return;
        }
        let old = self.range.clone();
        self.range = any_range(&mut self.seeded);
        self.allows_power_limits = !self.seeded.one_in(4);
        self.write_policy();
        self.watcher.allow(vec![old, self.range.clone()]);
        let (range, allows) = (self.range.clone(), self.allows_power_limits);
        self.note(format_args!("SIGHUP: {range:?}, power limits {allows}"));
        for held in &mut self.held {
            held.terms.is_uncertain = true;
        }
        self.troubled(BACK_WITHIN);
        let agent = self.agent.as_ref().unwrap();
        let sentinel = agent.sentinel();
        let count = |world: &Self| {
            let agent = world.agent.as_ref().unwrap();
            agent.audit("policy-reloaded").len()
        };
        let before = count(self);
        agent::send(sentinel, Signal::SIGHUP);
        if !self.pause_until(Duration::from_secs(5), |world| count(world) > before) {
            self.violated("reload", "not within 5 s");
            return;
        }
        self.sync_leases();
        // Whoever asked for less has lost its lease, and the device is faster: with what was written before it goes.
        let range = self.range.clone();
        let are_back = self.pause_until(BACK_WITHIN, |world| {
            world.is_faulty.contains(&true)
                || world.knobs().all(|knob| {
                    let observed = world.observed(knob);
                    observed == DEFAULT
                        || out_of_range(std::slice::from_ref(&range), knob.control, observed).is_none()
                })
        });
        if !are_back {
            self.violated("policy", "a device is outside of the new policy");
        }
        if !self.is_faulty.contains(&true) {
            self.watcher.allow(vec![range]);
        }
    }

    /// Whom the agent knows still.
    fn sync_leases(&mut self) {
        let Some(reply) = self.ask("GET", "/v1/devices", &Value::Null) else {
            return;
        };
        let devices = reply.json();
        let all = devices["devices"].as_array().unwrap().iter();
        let known: BTreeSet<String> = all
            .flat_map(|device| device["holders"].as_array().unwrap())
            .map(|holder| holder["lease_id"].as_str().unwrap().to_owned())
            .collect();
        self.held.retain(|held| known.contains(&held.id));
        for held in &mut self.held {
            held.terms.is_uncertain = matches!(held.by, By::Process(_));
        }
    }

    fn break_nvml(&mut self) {
        if self.sandbox.driver == Driver::Sim {
            return self.put();
        }
        let device = self.seeded.below(u64::from(DEVICES)) as u32;
        let function = *self.seeded.one_of(&[
            "nvmlDeviceSetGpuLockedClocks",
            "nvmlDeviceSetGpuLockedClocks",
            "nvmlDeviceResetGpuLockedClocks",
            "nvmlDeviceSetPowerManagementLimit",
        ]);
        let fault = match self.seeded.below(3) {
            0 => json!({"device": device, "return": *self.seeded.one_of(&[15, 999, 4])}),
            1 => json!({"device": device, "delay_ms": self.seeded.between(10, 400)}),
            _ => json!({"device": device, "hang": true}),
        };
        self.note(format_args!("fault {function}: {fault}"));
        let is_delay = fault["delay_ms"].is_u64();
        let fails_lowering_only = function == "nvmlDeviceSetGpuLockedClocks" && fault["return"].is_i64();
        self.end_faults();
        self.is_faulty[device as usize] = !is_delay && !fails_lowering_only;
        self.has_fault = true;
        self.sandbox.write_faults(&json!({function: [fault]}));
        self.troubled_at = Instant::now();
        self.put();
    }

    fn mend_nvml(&mut self) {
        self.note("no faults");
        self.end_faults();
        self.has_fault = false;
        self.sandbox.write_faults(&json!({}));
    }

    fn end_faults(&mut self) {
        let until = Instant::now() + BACK_AFTER_FAULT;
        for device in 0..DEVICES as usize {
            if std::mem::take(&mut self.is_faulty[device]) {
                self.excused_until[device] = self.excused_until[device].max(until);
            }
        }
        self.troubled_at = Instant::now();
    }

    /// A lease that is alone with what it holds, and whom nothing has happened to since, has what it asked for.
    fn expect_effect(&mut self) {
        let Some(index) = self.any_of_ours() else {
            return;
        };
        let held = &self.held[index];
        let id = held.id.clone();
        let mine: Vec<(Knob, Claim)> = held
            .terms
            .claims
            .iter()
            .filter_map(|(&knob, claim)| Some((knob, (*claim)?)))
            .collect();
        let lasts = Instant::now() + BACK_WITHIN * 2;
        for (knob, claim) in mine {
            let others = self.held.iter().filter(|other| other.id != id);
            let is_alone = others
                .clone()
                .all(|other| !other.terms.claims.contains_key(&knob));
            let held = self.held.iter().find(|held| held.id == id);
            let lives = held.is_some_and(|held| held.terms.expires_at.0 > lasts && !held.terms.is_uncertain);
            let is_due = is_alone && lives && claim.lapses_at.0 > lasts && claim.said_at > self.troubled_at;
            if !is_due || self.is_faulty.contains(&true) {
                continue;
            }
            if !self.pause_until(BACK_WITHIN, |world| world.observed(knob) == claim.value) {
                let observed = self.observed(knob);
                self.violated(
                    "what is asked for comes",
                    format_args!("{knob:?}: {observed}, not {}", claim.value),
                );
            }
        }
    }

    /// The end of every schedule: all is well again, the leases are gone, and so are their traces.
    pub fn quiesce(&mut self) {
        self.note("quiesce");
        self.mend_nvml();
        self.start();
        if !self.pause_until(SERVES_WITHIN, |world| world.is_serving()) {
            let left = self.agent.as_mut().unwrap().has_left();
            self.violated("serves", format_args!("not in the end ({left:?})"));
            return;
        }
        self.outlive_what_is_short();
        self.held.clear();
        let at_default = |world: &mut Self| world.knobs().all(|knob| world.observed(knob) == DEFAULT);
        if !self.pause_until(BACK_AFTER_FAULT, at_default) {
            self.violated("no lease, no lowering", "a device is lowered in the end");
        }
        let is_clean = |world: &mut Self| {
            world.sandbox.journal().is_empty()
                && world
                    .ask("GET", "/readyz", &Value::Null)
                    .is_some_and(|reply| reply.status == 200)
        };
        if !self.pause_until(BACK_AFTER_FAULT, is_clean) {
            self.violated(
                "ready in the end",
                format_args!("journal {:?}", self.sandbox.journal()),
            );
        }
        let log = self.agent.as_ref().unwrap().log();
        if log.contains("panicked") || log.contains("\"panic\"") {
            self.violated("nothing panics", "see the log");
        }
        self.terminate();
        self.check();
        self.check_op_log();
    }

    /// Leases and holds that are over soon end by themselves, before everybody leaves and takes them along.
    fn outlive_what_is_short(&mut self) {
        let soon = Instant::now() + Duration::from_millis(900);
        let lasts = |(_, latest): (Instant, Instant)| latest > soon;
        let ends_soon = self.held.iter().map(|held| &held.terms).any(|terms| {
            let mut claims = terms.claims.values().flatten();
            claims.clone().count() > 0 && !lasts(terms.expires_at)
                || claims.any(|claim| !lasts(claim.lapses_at))
        });
        if ends_soon {
            self.pause_until(Duration::from_secs(1), |_| Instant::now() > soon);
        }
        // Where it does not, `check` says so.
        self.pause_until(BACK_AFTER_FAULT * 2, |world| world.slow_since.is_empty());
    }

    /// Every set of the fake library, the ones too short to be seen included.
    fn check_op_log(&mut self) {
        let Ok(log) = std::fs::read_to_string(self.sandbox.devices_path().join("nvml-ops.jsonl")) else {
            return;
        };
        let wide = Range {
            floor_mhz: 210,
            ceiling_mhz: 1979,
            floor_power_limit_mw: 300_000,
        };
        let ops = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut wrongs = Vec::new();
        for op in ops {
            let args = &op["args"];
            let wrong = match op["function"].as_str() {
                Some("nvmlDeviceSetGpuLockedClocks") => out_of_range(
                    std::slice::from_ref(&wide),
                    Control::Clock,
                    args["max_mhz"].as_u64().unwrap() as u32,
                ),
                Some("nvmlDeviceSetPowerManagementLimit") => {
                    let limit_mw = args["limit_mw"].as_u64().unwrap() as u32;
                    out_of_range(std::slice::from_ref(&wide), Control::PowerLimit, limit_mw)
                        .filter(|_| limit_mw != DEFAULT_POWER_LIMIT_MW)
                }
                _ => None,
            };
            wrongs.extend(wrong);
        }
        for wrong in wrongs {
            self.violated("op log", wrong);
        }
    }

    // ---- what must hold ----

    fn check(&mut self) {
        for wrong in self.watcher.take_violations() {
            self.violated("watcher", wrong);
        }
        let now = Instant::now();
        if let Some(agent) = &mut self.agent
            && let Some(status) = agent.has_left()
        {
            self.violated("the agent stays", status);
            self.agent = None;
        }
        for knob in self.knobs() {
            let observed = self.observed(knob);
            let required = self.required(knob);
            if observed >= required {
                self.slow_since.remove(&knob);
                continue;
            }
            let since = *self.slow_since.entry(knob).or_insert(now);
            let device = knob.device as usize;
            let is_excused = now < self.excused_until[device] || self.is_faulty[device] || self.is_orphaned;
            if now > since + BACK_WITHIN && !is_excused {
                self.violated(
                    "never slower than the fastest demand",
                    format_args!("{knob:?} at {observed} for {:?}, wanted {required}", now - since),
                );
                self.slow_since.remove(&knob);
                self.excused_until[device] = now + BACK_AFTER_FAULT;
            }
        }
    }

    fn knobs(&self) -> impl Iterator<Item = Knob> + use<> {
        (0..DEVICES)
            .flat_map(|device| [Control::Clock, Control::PowerLimit].map(|control| Knob { device, control }))
    }

    fn required(&self, knob: Knob) -> u32 {
        let terms = self.held.iter().map(|held| &held.terms);
        model::required(terms, knob, Instant::now())
    }

    fn observed(&self, knob: Knob) -> u32 {
        let command = self.sandbox.command(knob.device);
        let lowered = lowered(&command, DEFAULT_POWER_LIMIT_MW).into_iter();
        let mut of_control = lowered.filter(|&(control, _)| control == knob.control);
        of_control.next().map_or(DEFAULT, |(_, value)| value)
    }

    fn commands(&self) -> Vec<Command> {
        (0..DEVICES).map(|index| self.sandbox.command(index)).collect()
    }

    fn excuse_all(&mut self, within: Duration) {
        let until = Instant::now() + within;
        for excused in &mut self.excused_until {
            *excused = (*excused).max(until);
        }
    }

    fn troubled(&mut self, within: Duration) {
        self.excuse_all(within);
        self.troubled_at = Instant::now();
    }

    fn everybody_lost(&mut self, within: Duration) {
        self.troubled(within);
        self.held.clear();
    }

    fn lose(&mut self, index: usize) {
        self.held.remove(index);
    }

    /// The agent says there is no such lease.
    fn lost(&mut self, index: usize, asked_at: Instant) {
        let held = self.held.remove(index);
        self.note(format_args!("{} is gone", held.id));
        if !held.terms.is_uncertain && Instant::now() < held.terms.expires_at.0 {
            self.violated(
                "a lease lasts its ttl",
                format_args!("{} ended {:?} early", held.id, held.terms.expires_at.0 - asked_at),
            );
        }
    }

    fn write_policy(&self) {
        let mut rule = self.sandbox.own_rule();
        rule["controls"] = if self.allows_power_limits {
            json!(["clock", "power_limit"])
        } else {
            json!(["clock"])
        };
        rule["floor_mhz"] = json!(self.range.floor_mhz);
        rule["ceiling_mhz"] = json!(self.range.ceiling_mhz);
        rule["floor_power_limit_mw"] = json!(self.range.floor_power_limit_mw);
        rule["lowering_min_interval_ms"] = json!(100);
        self.sandbox.write_policy(&json!([rule]));
    }
}

/// One target of a PUT.
struct Wish {
    devices: Vec<u32>,
    values: BTreeMap<Control, Option<u32>>,
    hold_ms: u64,
}

fn any_range(seeded: &mut Seeded) -> Range {
    Range {
        floor_mhz: *seeded.one_of(&[210, 990]),
        ceiling_mhz: *seeded.one_of(&[1290, 1980]),
        floor_power_limit_mw: *seeded.one_of(&[300_000, 400_000]),
    }
}

fn new_terms(devices: &[u32], controls: &[Control], ttl: Duration, asked_at: Instant) -> Terms {
    let knobs = devices
        .iter()
        .flat_map(|&device| controls.iter().map(move |&control| Knob { device, control }));
    Terms {
        ttl,
        expires_at: (asked_at + ttl, Instant::now() + ttl),
        is_uncertain: false,
        claims: knobs.map(|knob| (knob, None)).collect(),
    }
}

/// `null` and the last step are the default.
fn value_of(said: &Value, control: Control) -> u32 {
    let last = match control {
        Control::Clock => CLOCKS_MHZ[CLOCKS_MHZ.len() - 1],
        Control::PowerLimit => DEFAULT_POWER_LIMIT_MW,
    };
    let value = said.as_u64().map(|value| value as u32);
    value.filter(|&value| value != last).unwrap_or(DEFAULT)
}

fn brief(results: &[Value]) -> String {
    let said = results.iter().map(|result| {
        let target = ["target_mhz", "target_mw"].map(|key| result[key].as_u64());
        let target = target[0].or(target[1]);
        format!("{}={target:?}", result["status"].as_str().unwrap_or("?"))
    });
    said.collect::<Vec<String>>().join(" ")
}

fn is_process(held: &Held, pid: i32) -> bool {
    matches!(&held.by, By::Process(child) if child.id().cast_signed() == pid)
}
