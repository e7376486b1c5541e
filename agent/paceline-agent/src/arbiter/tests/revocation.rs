//! What a new policy does to leases that are held.

use super::*;

/// Allows everything of device 0 that the tests' leases have, changed by `change`, and nothing of others.
fn allows(change: impl Fn(&mut Allowance)) -> impl Fn(&Principal, Knob, &[u32]) -> Option<Allowance> {
    move |_, knob, _| {
        let mut allowance = Allowance {
            terms: Terms {
                bounds: Bounds::on(&CLOCKS_MHZ, None, None),
                hold_max: Duration::from_millis(5_000),
                lowering_interval: LOWERING_INTERVAL,
            },
            ttl_max: Duration::from_millis(3_000),
        };
        change(&mut allowance);
        (knob == clock(0)).then_some(allowance)
    }
}

/// A lease of device 0 at 990 MHz, and one of device 1 that demands nothing.
fn world() -> World {
    let mut world = World::new(2);
    world.grant(1, &[0], 0).expect("there is room");
    world.grant(2, &[1], 0).expect("there is room");
    world.put(1, &[0], 990, 2_000, 0);
    world.answer_all(0);
    world
}

#[test]
fn a_lease_ends_where_any_of_its_devices_is_allowed_less_than_it_has() {
    type Change = fn(&mut Allowance);
    let cases: [(&str, Change, bool); 6] = [
        ("the same", |_| {}, false),
        ("ttl", |new| new.ttl_max = Duration::from_millis(2_999), true),
        ("floor", |new| new.terms.bounds.floor = 1_005, true),
        ("ceiling", |new| new.terms.bounds.ceiling = 210, true),
        (
            "a hold shorter than what is left",
            |new| new.terms.hold_max = Duration::from_millis(999),
            true,
        ),
        (
            "a hold as long as what is left",
            |new| new.terms.hold_max = Duration::from_millis(1_000),
            false,
        ),
    ];
    for (what, change, is_revoked) in cases {
        let mut world = world();
        // The lease of device 1 ends in each case.
        let count = world.arbiter.revoke(allows(change), world.at(1_000));
        assert_eq!(count, 1 + usize::from(is_revoked), "{what}");
        let told = world.answer_all(1_000);
        assert_eq!(told.contains(&(0, None)), is_revoked, "{what}");
        assert!(told.contains(&(1, None)), "{what}");
        assert_eq!(world.arbiter.lease_count(), usize::from(!is_revoked), "{what}");
    }
}

#[test]
fn what_lapsed_before_the_new_policy_came_is_not_held_against_the_lease() {
    let mut world = world();
    let count = world
        .arbiter
        .revoke(allows(|new| new.terms.bounds.floor = 1_980), world.at(2_000));
    assert_eq!(count, 1);
    assert_eq!(world.arbiter.lease_count(), 1);
}

#[test]
fn a_revoked_lease_leaves_the_device_to_the_others_that_hold_it() {
    let mut world = World::new(1);
    world.principal = user(UID + 1);
    world.grant(1, &[0], 0).expect("there is room");
    world.principal = user(UID);
    world.grant(2, &[0], 0).expect("there is room");
    world.put(2, &[0], 990, 5_000, 0);
    world.answer_all(0);
    let all = allows(|_| {});
    let now = world.at(300);
    let count = world.arbiter.revoke(
        |who, knob, steps| all(who, knob, steps).filter(|_| who.is(&user(UID))),
        now,
    );
    assert_eq!(count, 1);
    assert_eq!(
        world.answer_all(300),
        [(0, Some(990))],
        "the idle one no longer holds it up"
    );
}
