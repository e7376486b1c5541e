//! Events in, commands out: no devices, no waiting. Time is a number of milliseconds since the start.

mod faults;
mod laws;
mod revocation;

use super::bounds::Clamped;
use super::view::Status;
use super::*;
use crate::device::ControlName;
use crate::limits::{LEASES_MAX, LEASES_PER_PRINCIPAL_MAX, STUCK_AFTER, YIELD_FOR};

const CLOCKS_MHZ: [u32; 5] = [210, 990, 1005, 1290, 1980];
const UID: u32 = 1000;
const LOWERING_INTERVAL: Duration = Duration::from_millis(200);

/// Devices that answer when told to, and a clock that moves when told to.
struct World {
    arbiter: Arbiter,
    start: Instant,
    seq: u64,
    principal: Principal,
}

impl World {
    fn new(devices: usize) -> Self {
        Self::journaled(devices, &[])
    }

    fn journaled(devices: usize, journaled: &[Knob]) -> Self {
        let start = Instant::now();
        let steps = (0..devices)
            .map(|index| (clock(index), CLOCKS_MHZ.to_vec()))
            .collect();
        Self {
            arbiter: Arbiter::new(steps, journaled, start),
            start,
            seq: 0,
            principal: user(UID),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn grant(&mut self, id: u128, devices: &[usize], ms: u64) -> Result<(), GrantRefusal> {
        let terms = Terms {
            bounds: Bounds::on(&CLOCKS_MHZ, None, None),
            hold_max: Duration::from_millis(5_000),
            lowering_interval: LOWERING_INTERVAL,
        };
        let request = GrantRequest {
            id: LeaseId(id),
            epoch: 7,
            holder: format!("holder-{id}"),
            principal: self.principal.clone(),
            ttl: Duration::from_millis(3_000),
            knobs: devices.iter().map(|&index| (clock(index), terms)).collect(),
        };
        self.arbiter.grant(request, self.at(ms))
    }

    fn request(&mut self, id: u128, targets: Vec<Target>) -> TargetsRequest {
        self.seq += 1;
        TargetsRequest {
            lease_id: LeaseId(id),
            principal: user(UID),
            epoch: 7,
            seq: self.seq,
            targets,
        }
    }

    fn put(&mut self, id: u128, devices: &[usize], clock_mhz: u32, hold_ms: u64, ms: u64) -> Vec<Accepted> {
        let request = self.request(id, vec![slower(devices, clock_mhz, hold_ms)]);
        let now = self.at(ms);
        self.arbiter.put_targets(&request, now).expect("a good request")
    }

    fn advance(&mut self, ms: u64) {
        let now = self.at(ms);
        self.arbiter.advance(now);
    }

    /// The commands since the last time, as (device, clock or `None` for default). Nobody answers them.
    fn commands(&mut self) -> Vec<(usize, Option<u32>)> {
        let told = |command: Command| (command.knob.device.0, command.setting.value());
        self.full_commands().into_iter().map(told).collect()
    }

    fn full_commands(&mut self) -> Vec<Command> {
        let effects = self.arbiter.take_effects().into_iter();
        let commands = effects.filter_map(|effect| match effect {
            Effect::Command(command) => Some(command),
            Effect::LeaseEnded { .. } => None,
        });
        commands.collect()
    }

    fn answer(&mut self, command: Command, result: Result<(), &str>, ms: u64) {
        let completion = Completion {
            knob: command.knob,
            generation: command.generation,
            setting: command.setting,
            result: result.map_err(str::to_owned),
        };
        let now = self.at(ms);
        self.arbiter.completed(&completion, now);
    }

    /// Answers everything, and what follows from the answers, with success.
    fn answer_all(&mut self, ms: u64) -> Vec<(usize, Option<u32>)> {
        let mut told = Vec::new();
        loop {
            let commands = self.full_commands();
            if commands.is_empty() {
                return told;
            }
            for command in commands {
                told.push((command.knob.device.0, command.setting.value()));
                self.answer(command, Ok(()), ms);
            }
        }
    }

    fn status(&self, id: u128, device: usize) -> Status {
        let status = self.arbiter.status(LeaseId(id), clock(device));
        status.expect("the lease holds the device").0
    }
}

fn user(uid: u32) -> Principal {
    Principal::User { uid, gids: vec![uid] }
}

/// The clock of one device: a knob like any other.
fn clock(index: usize) -> Knob {
    Knob {
        device: DeviceIndex(index),
        control: ControlName::Clock,
    }
}

fn target(devices: &[usize], wish: Wish) -> Target {
    Target {
        wishes: devices.iter().map(|&index| (clock(index), wish)).collect(),
    }
}

fn slower(devices: &[usize], requested: u32, hold_ms: u64) -> Target {
    let hold = Duration::from_millis(hold_ms);
    target(devices, Wish::Limit { requested, hold })
}

fn default_clocks(devices: &[usize]) -> Target {
    target(devices, Wish::Default)
}

#[test]
fn the_fastest_demand_of_all_leases_wins() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 990, 5_000, 0);
    assert_eq!(world.answer_all(1), [(0, Some(990))]);
    // A new lease has said nothing, so it demands the default.
    world.grant(2, &[0], 10).expect("granted");
    assert_eq!(world.answer_all(10), [(0, None)]);
    world.put(2, &[0], 1290, 5_000, 300);
    assert_eq!(world.answer_all(300), [(0, Some(1290))]);
    // The slower one changes its mind: nothing to do.
    world.put(1, &[0], 210, 5_000, 310);
    assert_eq!(world.answer_all(310), []);
    world.arbiter.disconnected(LeaseId(2), world.at(600));
    assert_eq!(world.answer_all(600), [(0, Some(210))]);
    world.arbiter.disconnected(LeaseId(1), world.at(601));
    assert_eq!(world.answer_all(601), [(0, None)]);
}

#[test]
fn a_demand_lapses_by_itself_when_its_hold_has_passed() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 990, 400, 100);
    world.answer_all(100);
    assert_eq!(world.arbiter.next_due(), Some(world.at(500)));
    world.advance(499);
    assert_eq!(world.answer_all(499), []);
    world.advance(500);
    assert_eq!(world.answer_all(500), [(0, None)]);
    assert_eq!(world.status(1, 0), Status::Applied);
}

#[test]
fn a_lease_that_is_not_renewed_expires_and_cannot_be_renewed_late() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 990, 5_000, 1_000);
    world.answer_all(1_000);
    let renewal = world.request(1, vec![]);
    // The timer may be late; the lease is not.
    let late = world.arbiter.put_targets(&renewal, world.at(4_000));
    assert_eq!(late, Err(TargetsRefusal::UnknownLease));
    assert_eq!(world.answer_all(4_000), [(0, None)]);
}

#[test]
fn a_refused_request_changes_nothing_and_renews_nothing() {
    let mut world = World::new(2);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 990, 5_000, 0);
    world.answer_all(0);
    let due = world.arbiter.next_due();
    let good = |world: &mut World, targets| world.request(1, targets);
    let other_epoch = TargetsRequest {
        epoch: 6,
        ..good(&mut world, vec![])
    };
    let stale = TargetsRequest {
        seq: 1,
        ..good(&mut world, vec![default_clocks(&[0])])
    };
    let stranger = TargetsRequest {
        principal: user(UID + 1),
        ..good(&mut world, vec![])
    };
    let not_held = good(&mut world, vec![default_clocks(&[0]), default_clocks(&[1])]);
    let too_long = good(&mut world, vec![default_clocks(&[]), slower(&[0], 990, 5_001)]);
    let hold_max = Duration::from_millis(5_000);
    let cases = [
        (other_epoch, TargetsRefusal::OtherEpoch { epoch: 7 }),
        (stale, TargetsRefusal::StaleSeq { last_seq: 1 }),
        (stranger, TargetsRefusal::NotYours),
        (
            not_held,
            TargetsRefusal::NotHeld {
                target: 1,
                knob: clock(1),
            },
        ),
        (too_long, TargetsRefusal::HoldTooLong { target: 1, hold_max }),
    ];
    for (request, refusal) in cases {
        assert_eq!(world.arbiter.put_targets(&request, world.at(50)), Err(refusal));
        assert_eq!(world.commands(), []);
        assert_eq!(world.arbiter.next_due(), due);
    }
    assert_eq!(
        world.arbiter.release(LeaseId(1), &user(UID + 1), world.at(50)),
        Err(EndRefusal::NotYours)
    );
}

#[test]
fn lowering_waits_its_turn_and_raising_does_not() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 1290, 5_000, 0);
    assert_eq!(world.answer_all(0), [(0, Some(1290))]);
    world.put(1, &[0], 990, 5_000, 50);
    assert_eq!(world.answer_all(50), []);
    assert_eq!(world.status(1, 0), Status::Deferred);
    world.put(1, &[0], 1980, 5_000, 60);
    assert_eq!(world.answer_all(60), [(0, None)]);
    assert_eq!(world.status(1, 0), Status::Applied);
    world.put(1, &[0], 1005, 5_000, 70);
    world.advance(199);
    assert_eq!(world.answer_all(199), []);
    assert_eq!(world.arbiter.next_due(), Some(world.at(200)));
    world.advance(200);
    assert_eq!(world.answer_all(200), [(0, Some(1005))]);
}

#[test]
fn a_deferred_lowering_is_forgotten_with_the_demand_behind_it() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 1290, 5_000, 0);
    assert_eq!(world.answer_all(0), [(0, Some(1290))]);
    world.put(1, &[0], 990, 5_000, 50);
    world.put(1, &[0], 1290, 5_000, 60);
    world.advance(1_000);
    assert_eq!(world.answer_all(1_000), []);
}

#[test]
fn what_was_told_already_is_not_told_again() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 991, 5_000, 0);
    assert_eq!(world.answer_all(0), [(0, Some(1005))]);
    world.put(1, &[0], 1005, 5_000, 300);
    world.put(1, &[0], 1000, 5_000, 600);
    assert_eq!(world.answer_all(600), []);
}

#[test]
fn a_demand_for_the_fastest_clock_locks_nothing() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    let accepted = world.put(1, &[0], 1981, 5_000, 0);
    assert_eq!(accepted[0].demand, Some(1980));
    assert_eq!(accepted[0].clamped, Some(Clamped::Ceiling));
    assert_eq!(world.commands(), []);
}

#[test]
fn a_device_may_leave_the_journal_only_when_nobody_holds_it() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.grant(2, &[0], 0).expect("granted");
    world.put(1, &[0], 990, 5_000, 0);
    world.put(2, &[0], 990, 5_000, 0);
    world.arbiter.disconnected(LeaseId(1), world.at(10));
    world.arbiter.disconnected(LeaseId(2), world.at(20));
    let releases: Vec<bool> = world
        .full_commands()
        .iter()
        .map(|command| command.release)
        .collect();
    assert_eq!(releases, [false, true]);
}

#[test]
fn a_device_that_never_left_default_is_told_so_once_its_last_lease_ends() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.arbiter.disconnected(LeaseId(1), world.at(10));
    let commands = world.full_commands();
    assert_eq!(commands.len(), 1);
    assert!(commands[0].release);
}

#[test]
fn leases_have_a_bound() {
    let mut world = World::new(1);
    let too_many = |allowed| Err(GrantRefusal::TooManyLeases { allowed });
    for id in 0..LEASES_PER_PRINCIPAL_MAX as u128 {
        world.grant(id, &[0], 0).expect("below the bound");
    }
    assert_eq!(world.grant(999, &[0], 0), too_many(LEASES_PER_PRINCIPAL_MAX));
    world.principal = user(UID + 1);
    for id in LEASES_PER_PRINCIPAL_MAX as u128..LEASES_MAX as u128 {
        world.grant(id, &[0], 0).expect("somebody else has room");
    }
    assert_eq!(world.grant(999, &[0], 0), too_many(LEASES_MAX));
    world.arbiter.disconnected(LeaseId(0), world.at(1));
    assert_eq!(world.grant(999, &[0], 1), Ok(()));
}

#[test]
fn shutting_down_ends_every_lease_and_grants_none() {
    let mut world = World::new(2);
    world.grant(1, &[0, 1], 0).expect("granted");
    world.put(1, &[0, 1], 990, 5_000, 0);
    world.answer_all(0);
    world.arbiter.shut_down(world.at(10));
    assert_eq!(world.answer_all(10), [(0, None), (1, None)]);
    assert_eq!(world.grant(2, &[0], 20), Err(GrantRefusal::ShuttingDown));
    assert!(world.arbiter.all_settled());
}
