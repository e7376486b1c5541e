//! Writes and readings in, findings out. Time is a number of milliseconds since the start.

use super::*;
use crate::limits::SETTLE_PAIRS_MAX;

struct World {
    readback: Readback,
    start: Instant,
}

impl World {
    fn new() -> Self {
        Self {
            readback: Readback::default(),
            start: Instant::now(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn write(&mut self, control: ControlName, from: Option<Setting>, to: Setting, ms: u64) {
        self.readback.writing(control);
        let at = self.at(ms);
        self.readback.written(Written {
            control,
            from,
            to,
            at,
        });
    }

    fn see(&mut self, reading: &Reading, ms: u64) -> Vec<Foreign> {
        let at = self.at(ms);
        self.readback.see(reading, at, at)
    }

    fn clock(&mut self, clock_mhz: u32, ms: u64) -> Vec<Foreign> {
        let clock_mhz = Some(clock_mhz);
        self.see(
            &Reading {
                clock_mhz,
                ..Reading::default()
            },
            ms,
        )
    }

    fn power_limit(&mut self, limit_mw: u64, ms: u64) -> Vec<Foreign> {
        let power_limit_mw = Some(limit_mw);
        self.see(
            &Reading {
                power_limit_mw,
                ..Reading::default()
            },
            ms,
        )
    }

    /// Of all pairs.
    fn settles(&self) -> Vec<Told> {
        let pairs = self.readback.settles().pairs();
        let told = pairs.map(|(span, pair)| {
            let p50_ms = pair.us_p50().map(|us| us / 1_000);
            (span.from, span.to, pair.count, pair.late, p50_ms)
        });
        told.collect()
    }
}

/// (from, to, seen, late, p50 in ms).
type Told = (Option<u32>, Option<u32>, u64, u64, Option<u64>);

const CLOCK: ControlName = ControlName::Clock;
const DEFAULT: Option<Setting> = Some(Setting::Default);

fn ceiling(value: u32) -> Setting {
    Setting::Ceiling { value }
}

#[test]
fn the_time_until_a_clock_arrives_is_kept_per_pair() {
    let mut world = World::new();
    world.write(CLOCK, DEFAULT, ceiling(1290), 0);
    for (clock_mhz, ms) in [(1980, 2), (1500, 4), (1290, 9), (1290, 20)] {
        assert_eq!(world.clock(clock_mhz, ms), []);
    }
    world.write(CLOCK, Some(ceiling(1290)), Setting::Default, 300);
    for (clock_mhz, ms) in [(1290, 302), (1700, 306), (1905, 312), (1905, 320)] {
        assert_eq!(world.clock(clock_mhz, ms), []);
    }
    assert_eq!(
        world.settles(),
        [
            (None, Some(1290), 1, 0, Some(9)),
            (Some(1290), None, 1, 0, Some(20))
        ]
    );
    assert_eq!(
        world.readback.look_at(world.at(320)),
        None,
        "nothing is held, so nothing is watched"
    );
}

#[test]
fn what_an_idle_device_shows_is_no_settle_time() {
    let mut world = World::new();
    world.write(CLOCK, DEFAULT, ceiling(1290), 0);
    world.clock(345, 2);
    world.write(CLOCK, Some(ceiling(1290)), Setting::Default, 300);
    for ms in [302, 800, 1_400] {
        world.clock(345, ms);
    }
    assert_eq!(world.settles(), []);
}

#[test]
fn a_clock_that_does_not_arrive_is_late() {
    let mut world = World::new();
    world.write(CLOCK, DEFAULT, ceiling(1290), 0);
    for ms in [2, 400, 1_000] {
        world.clock(1980, ms);
    }
    assert_eq!(world.settles(), [(None, Some(1290), 0, 1, None)]);
}

#[test]
fn a_device_that_stays_above_its_ceiling_is_held_by_somebody_else() {
    let mut world = World::new();
    world.write(CLOCK, DEFAULT, ceiling(1290), 0);
    world.clock(1290, 20);
    // Once may be a glitch, a step beside the ceiling is nothing, and so is what comes before a clock can have settled.
    assert_eq!(world.clock(1980, 500), []);
    assert_eq!(world.clock(1305, 1_000), []);
    assert_eq!(world.clock(1980, 1_250), []);
    assert_eq!(world.clock(1290, 1_500), []);
    assert_eq!(world.clock(1980, 1_750), []);
    assert_eq!(world.clock(1980, 2_000), []);
    let foreign = Foreign {
        control: CLOCK,
        evidence: Evidence::Inferred,
    };
    assert_eq!(world.clock(1980, 2_250), [foreign]);
    assert_eq!(world.clock(1980, 2_500), [], "said once");
}

#[test]
fn a_getter_that_says_something_else_is_proof() {
    let mut world = World::new();
    let control = ControlName::PowerLimit;
    world.write(control, DEFAULT, ceiling(500_000), 0);
    // Rounded by the driver: what the first look says is what our write made.
    assert_eq!(world.power_limit(500_250, 1), []);
    assert_eq!(world.power_limit(500_250, 250), []);
    let foreign = Foreign {
        control,
        evidence: Evidence::Read,
    };
    assert_eq!(world.power_limit(400_000, 500), [foreign]);
}

#[test]
fn a_reading_that_began_before_the_write_is_passed_over() {
    let mut world = World::new();
    let control = ControlName::PowerLimit;
    world.write(control, DEFAULT, ceiling(500_000), 10);
    let old = Reading {
        power_limit_mw: Some(700_000),
        ..Reading::default()
    };
    let (began_at, at) = (world.at(9), world.at(12));
    assert_eq!(world.readback.see(&old, began_at, at), []);
    assert_eq!(world.power_limit(500_000, 20), []);
    assert_eq!(world.power_limit(500_000, 270), []);
}

#[test]
fn pairs_and_times_have_a_bound() {
    let mut settles = SettleTimes::default();
    let span = |from: usize| Span {
        from: Some(u32::try_from(from).expect("small")),
        to: None,
    };
    for from in 0..SETTLE_PAIRS_MAX + 10 {
        settles.record(span(from), Some(Duration::from_millis(5)));
        settles.record(span(0), Some(Duration::from_millis(5)));
    }
    assert_eq!(settles.pairs().count(), SETTLE_PAIRS_MAX);
    assert!(
        settles.pairs().any(|(known, _)| known == span(0)),
        "used, so it stays"
    );
    assert!(
        settles.pairs().all(|(known, _)| known != span(1)),
        "the oldest, so it goes"
    );
}
