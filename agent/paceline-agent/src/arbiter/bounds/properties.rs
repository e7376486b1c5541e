use proptest::prelude::*;

use super::{Bounds, Clamped};

fn steps() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::btree_set(1u32..3_000, 1..30).prop_map(|steps| steps.into_iter().collect())
}

fn end() -> impl Strategy<Value = Option<u32>> {
    proptest::option::of(prop_oneof![1u32..3_200, Just(u32::MAX)])
}

fn requested() -> impl Strategy<Value = u32> {
    prop_oneof![9 => 0u32..3_200, 1 => any::<u32>()]
}

proptest! {
    #[test]
    fn both_ends_are_steps_and_in_order(steps in steps(), floor in end(), ceiling in end()) {
        let bounds = Bounds::on(&steps, floor, ceiling);
        prop_assert!(steps.contains(&bounds.floor) && steps.contains(&bounds.ceiling));
        prop_assert!(bounds.floor <= bounds.ceiling);
        // Too slow costs deadlines: a floor is exceeded rather than undercut, as far as there is a step to do it with.
        let highest = *steps.last().expect("one at least");
        prop_assert!(bounds.floor >= floor.unwrap_or(0).min(highest));
    }

    #[test]
    fn what_fits_is_a_step_within_bounds_and_fits_as_it_is(
        steps in steps(), floor in end(), ceiling in end(), requested in requested(),
    ) {
        let bounds = Bounds::on(&steps, floor, ceiling);
        let (value, clamped) = bounds.fit(&steps, requested);
        prop_assert!(steps.contains(&value));
        prop_assert!((bounds.floor..=bounds.ceiling).contains(&value));
        prop_assert_eq!(bounds.fit(&steps, value), (value, None));
        prop_assert_eq!(clamped.is_none(), value == requested);
    }

    #[test]
    fn never_slower_than_asked_unless_the_ceiling_says_so_and_no_faster_than_needed(
        steps in steps(), floor in end(), ceiling in end(), requested in requested(),
    ) {
        let bounds = Bounds::on(&steps, floor, ceiling);
        let (value, clamped) = bounds.fit(&steps, requested);
        if clamped == Some(Clamped::Ceiling) {
            prop_assert_eq!(value, bounds.ceiling);
            prop_assert!(requested > bounds.ceiling);
        } else {
            prop_assert!(value >= requested);
            let mut slower = steps.iter().filter(|&&step| step >= bounds.floor && step >= requested);
            prop_assert!(slower.all(|&step| step >= value));
        }
    }

    #[test]
    fn who_asks_for_more_gets_no_less(
        steps in steps(), floor in end(), ceiling in end(), one in requested(), other in requested(),
    ) {
        let bounds = Bounds::on(&steps, floor, ceiling);
        let (slow, fast) = (one.min(other), one.max(other));
        prop_assert!(bounds.fit(&steps, slow).0 <= bounds.fit(&steps, fast).0);
    }
}
