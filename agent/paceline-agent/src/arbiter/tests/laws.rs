//! What must hold whatever happens, over random events. A failure prints its seed.

use super::*;
use crate::model::random::Random;
use std::collections::HashMap;

const DEVICES: usize = 3;

/// The devices, each with the command it has not answered yet and what it was really set to.
struct Fleet {
    mailboxes: [Option<Command>; DEVICES],
    lowered_at_ms: HashMap<usize, u64>,
}

impl Fleet {
    fn post(&mut self, world: &mut World, now_ms: u64, told: &mut [Setting; DEVICES], seed: u64) {
        for command in world.full_commands() {
            let device = command.knob.device.0;
            if command.setting < told[device]
                && let Some(last_ms) = self.lowered_at_ms.insert(device, now_ms)
            {
                let interval_ms = u64::try_from(LOWERING_INTERVAL.as_millis()).expect("small");
                assert!(now_ms - last_ms >= interval_ms, "seed {seed}: lowered too soon");
            }
            told[device] = command.setting;
            self.mailboxes[device] = Some(command);
        }
    }
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let mut world = World::new(DEVICES);
    let mut fleet = Fleet {
        mailboxes: [None; DEVICES],
        lowered_at_ms: HashMap::new(),
    };
    let mut told = [Setting::Default; DEVICES];
    let mut now_ms = 0;
    for _ in 0..400 {
        now_ms += random.below(120);
        let id = u128::from(random.below(4));
        let device = random.below(DEVICES as u64) as usize;
        match random.below(9) {
            0 => {
                // A second grant under one id cannot happen; random ids are made by the agent.
                if world.arbiter.ttl(LeaseId(id)).is_none() {
                    let _ = world.grant(id, &[device, (device + 1) % DEVICES], now_ms);
                }
            }
            1 => {
                let now = world.at(now_ms);
                world.arbiter.disconnected(LeaseId(id), now);
            }
            2..=4 => {
                let clock_mhz = 200 + random.below(1_900) as u32;
                let hold_ms = 1 + random.below(900);
                let request = world.request(id, vec![slower(&[device], clock_mhz, hold_ms)]);
                let now = world.at(now_ms);
                let _ = world.arbiter.put_targets(&request, now);
            }
            5 => world.advance(now_ms),
            6 => revoke(&mut world, &mut random, now_ms),
            _ => {
                if let Some(command) = fleet.mailboxes[device].take() {
                    let result = if random.below(10) == 0 { Err("no") } else { Ok(()) };
                    world.answer(command, result, now_ms);
                }
            }
        }
        fleet.post(&mut world, now_ms, &mut told, seed);
        check(&world, &told, seed);
    }
    settle(&mut world, &mut fleet, &mut told, now_ms, seed);
}

/// A new policy with another floor, one device of which it may take from everybody.
fn revoke(world: &mut World, random: &mut Random, now_ms: u64) {
    let floor_mhz = CLOCKS_MHZ[random.below(CLOCKS_MHZ.len() as u64) as usize];
    let taken = random.below(2 * DEVICES as u64) as usize;
    let allows = |_: &Principal, knob: Knob, _: &[u32]| {
        let allowance = Allowance {
            terms: Terms {
                bounds: Bounds::on(&CLOCKS_MHZ, Some(floor_mhz), None),
                hold_max: Duration::from_millis(5_000),
                lowering_interval: LOWERING_INTERVAL,
            },
            ttl_max: Duration::from_millis(3_000),
        };
        (knob.device.0 != taken).then_some(allowance)
    };
    let now = world.at(now_ms);
    world.arbiter.revoke(allows, now);
    for knob in world.arbiter.knobs() {
        if let Some(clock_mhz) = world.arbiter.target(knob).value() {
            assert!(clock_mhz >= floor_mhz && knob.device.0 != taken);
        }
    }
}

fn check(world: &World, told: &[Setting; DEVICES], seed: u64) {
    for knob in world.arbiter.knobs() {
        let target = world.arbiter.target(knob);
        let commanded = world.arbiter.commanded(knob);
        assert_eq!(
            commanded, told[knob.device.0],
            "seed {seed}: told one thing, remembered another"
        );
        assert!(commanded >= target, "seed {seed}: slower than the fastest demand");
        if !world.arbiter.is_held(knob) {
            assert_eq!(
                commanded,
                Setting::Default,
                "seed {seed}: lowered without a lease"
            );
        }
    }
}

/// With no more events, every device is at default in the end and nothing is due any more.
fn settle(world: &mut World, fleet: &mut Fleet, told: &mut [Setting; DEVICES], mut now_ms: u64, seed: u64) {
    for _ in 0..200 {
        for device in 0..DEVICES {
            if let Some(command) = fleet.mailboxes[device].take() {
                world.answer(command, Ok(()), now_ms);
            }
        }
        now_ms += 50;
        world.advance(now_ms);
        fleet.post(world, now_ms, told, seed);
    }
    assert_eq!(
        *told,
        [Setting::Default; DEVICES],
        "seed {seed}: lowered for ever"
    );
    assert_eq!(world.arbiter.next_due(), None, "seed {seed}: something stays due");
    assert!(world.arbiter.restores_overdue().is_empty(), "seed {seed}");
}

#[test]
fn no_device_is_ever_slower_than_its_fastest_demand_and_all_end_at_default() {
    for seed in 1..=300 {
        run(seed);
    }
}
