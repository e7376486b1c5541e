//! Devices that fail, and devices that do not answer.

use super::*;

#[test]
fn one_failure_sends_its_whole_group_to_default_and_no_other_group() {
    let mut world = World::new(3);
    world.grant(1, &[0, 1, 2], 0).expect("granted");
    let request = world.request(1, vec![slower(&[0, 1], 990, 5_000), slower(&[2], 990, 5_000)]);
    world.arbiter.put_targets(&request, world.at(0)).expect("good");
    let commands = world.full_commands();
    world.answer(commands[0], Ok(()), 10);
    world.answer(commands[2], Ok(()), 10);
    assert!(!world.arbiter.are_settled(&[clock(0), clock(1)]));
    world.answer(commands[1], Err("no"), 11);
    assert_eq!(world.answer_all(12), [(1, None), (0, None)]);
    assert_eq!(world.status(1, 0), Status::Failed);
    assert_eq!(world.status(1, 1), Status::Failed);
    assert_eq!(world.status(1, 2), Status::Applied);
    assert!(world.arbiter.all_settled());
    // The next PUT is a new attempt.
    world.put(1, &[0, 1], 990, 5_000, 500);
    assert_eq!(world.answer_all(500), [(0, Some(990)), (1, Some(990))]);
    assert_eq!(world.status(1, 1), Status::Applied);
}

#[test]
fn a_reset_that_fails_is_retried_ever_more_seldom_until_it_works() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 990, 5_000, 0);
    world.answer_all(0);
    world.arbiter.disconnected(LeaseId(1), world.at(10));
    let mut now_ms = 10;
    for wait_ms in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
        let commands = world.full_commands();
        assert_eq!(commands.len(), 1);
        assert!(commands[0].release);
        world.answer(commands[0], Err("no"), now_ms);
        assert_eq!(world.arbiter.restores_overdue(), [clock(0)]);
        assert_eq!(world.arbiter.next_due(), Some(world.at(now_ms + wait_ms)));
        assert_eq!(
            world.grant(2, &[0], now_ms),
            Err(GrantRefusal::RestorePending(clock(0)))
        );
        now_ms += wait_ms;
        world.advance(now_ms);
    }
    assert_eq!(world.answer_all(now_ms), [(0, None)]);
    assert_eq!(world.arbiter.restores_overdue(), []);
    world.grant(2, &[0], now_ms).expect("granted");
}

#[test]
fn a_device_that_is_being_restored_is_not_lowered() {
    let mut world = World::new(2);
    world.grant(1, &[0, 1], 0).expect("granted");
    world.put(1, &[0], 990, 5_000, 0);
    let commands = world.full_commands();
    world.answer(commands[0], Err("no"), 1);
    // Its reset is under way; a group with it in it is not begun.
    world.put(1, &[0, 1], 990, 5_000, 2);
    assert_eq!(world.answer_all(3), [(0, None)]);
    assert_eq!(world.status(1, 0), Status::Failed);
    assert_eq!(world.status(1, 1), Status::Failed);
}

#[test]
fn a_device_that_does_not_answer_is_stuck_and_takes_its_group_to_default() {
    let mut world = World::new(3);
    world.grant(1, &[0, 1, 2], 0).expect("granted");
    let request = world.request(1, vec![slower(&[0, 1], 990, 5_000), slower(&[2], 990, 5_000)]);
    world.arbiter.put_targets(&request, world.at(0)).expect("good");
    let commands = world.full_commands();
    world.answer(commands[1], Ok(()), 10);
    world.answer(commands[2], Ok(()), 10);
    let stuck_ms = u64::try_from(STUCK_AFTER.as_millis()).expect("small");
    assert_eq!(world.arbiter.next_due(), Some(world.at(stuck_ms)));
    world.advance(stuck_ms);
    let late = world.full_commands();
    assert_eq!(
        late.iter()
            .map(|command| command.knob.device.0)
            .collect::<Vec<_>>(),
        [0, 1]
    );
    world.answer(late[1], Ok(()), stuck_ms + 1);
    assert_eq!(world.status(1, 0), Status::Stuck);
    assert_eq!(world.status(1, 1), Status::Failed);
    assert_eq!(world.status(1, 2), Status::Applied);
    assert!(world.arbiter.all_settled());
    assert_eq!(world.arbiter.restores_overdue(), [clock(0)]);
    // It comes back: the old command worked after all, then the default in its mailbox.
    world.answer(commands[0], Ok(()), 900);
    assert_eq!(world.commands(), []);
    assert_eq!(
        world.arbiter.restores_overdue(),
        [clock(0)],
        "it answers, but it is lowered now"
    );
    world.answer(late[0], Ok(()), 901);
    assert_eq!(world.status(1, 0), Status::Failed);
    assert_eq!(world.arbiter.restores_overdue(), []);
    world.put(1, &[0, 1], 990, 5_000, 1_000);
    assert_eq!(world.answer_all(1_000), [(0, Some(990)), (1, Some(990))]);
}

#[test]
fn a_thread_that_works_off_an_old_command_is_not_stuck_while_it_does() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 990, 5_000, 0);
    let first = world.full_commands()[0];
    world.put(1, &[0], 1290, 5_000, 400);
    let second = world.full_commands()[0];
    world.answer(first, Ok(()), 450);
    // Its wait for the second command begins with its answer to the first.
    assert_eq!(world.arbiter.next_due(), Some(world.at(450) + STUCK_AFTER));
    world.answer(second, Ok(()), 500);
    assert_eq!(world.status(1, 0), Status::Applied);
}

#[test]
fn what_an_earlier_agent_left_is_restored_before_anything_is_granted() {
    let mut world = World::journaled(2, &[clock(1)]);
    // Before the timer has run once: who asks now must wait, or clients meet a device that is still lowered.
    assert!(!world.arbiter.all_settled());
    assert!(world.grant(1, &[0], 0).is_ok());
    assert_eq!(
        world.grant(2, &[1], 0),
        Err(GrantRefusal::RestorePending(clock(1)))
    );
    let commands = world.full_commands();
    assert_eq!(commands.len(), 1);
    assert_eq!((commands[0].knob, commands[0].cause), (clock(1), Cause::Start));
    assert!(commands[0].release);
    assert!(!world.arbiter.all_settled());
    world.answer(commands[0], Ok(()), 5);
    assert!(world.arbiter.all_settled());
    assert!(world.grant(2, &[1], 5).is_ok());
}

#[test]
fn a_knob_that_somebody_else_sets_is_left_alone_with_its_group() {
    for evidence in [Evidence::Read, Evidence::Inferred] {
        let mut world = World::new(2);
        world.grant(1, &[0, 1], 0).expect("granted");
        world.put(1, &[0, 1], 990, 5_000, 0);
        world.answer_all(1);
        let now = world.at(1_500);
        world.arbiter.foreign_writer(clock(0), evidence, now);
        let commands = world.full_commands();
        let told: Vec<_> = commands
            .iter()
            .map(|one| (one.knob, one.setting, one.disown))
            .collect();
        assert_eq!(
            told,
            [
                (clock(1), Setting::Default, None),
                (clock(0), Setting::Default, Some(evidence))
            ],
            "the rest of the group goes to default; the knob itself is not written"
        );
        for command in commands {
            world.answer(command, Ok(()), 1_501);
        }
        assert_eq!(world.status(1, 0), Status::Yielded);
        assert_eq!(world.status(1, 1), Status::Failed);
        // Asking again within the yield is answered, and writes nothing.
        world.put(1, &[0, 1], 990, 5_000, 1_600);
        assert_eq!(world.commands(), []);
        assert_eq!(world.status(1, 0), Status::Yielded);
        assert_eq!(world.status(1, 1), Status::Yielded, "its group cannot be begun");
        // Others may still hold it, at default.
        world.grant(2, &[0], 1_700).expect("granted");
        world.answer_all(1_701);
        let after = 1_500 + u64::try_from(YIELD_FOR.as_millis()).expect("small");
        world.advance(after);
        world.answer_all(after);
        world.grant(3, &[1], after).expect("granted");
        world.put(3, &[1], 990, 5_000, after);
        assert_eq!(world.answer_all(after), [(1, Some(990))]);
    }
}

#[test]
fn what_was_seen_while_a_command_was_under_way_proves_nothing() {
    let mut world = World::new(1);
    world.grant(1, &[0], 0).expect("granted");
    world.put(1, &[0], 990, 5_000, 0);
    let now = world.at(1);
    world.arbiter.foreign_writer(clock(0), Evidence::Read, now);
    assert_eq!(world.answer_all(2), [(0, Some(990))]);
    assert_eq!(world.status(1, 0), Status::Applied);
}
