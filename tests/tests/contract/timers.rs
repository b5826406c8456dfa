//! Timers: set, cancelled, due, and what becomes of those whose call fails.

use crate::contract;
use tidegate::state::CallTime;
use tidegate::wasm::instance::{CallError, Death};
use tidegate_core::row::END_OF_TIME;
use tidegate_core::state_schema::TimeDomain::{EventTime, ProcessingTime};
use tidegate_tests::guest::NOW;
use tidegate_tests::rows::row;

fn watermark(watermark: i64) -> CallTime {
    CallTime { watermark, ..NOW }
}

#[test]
fn event_time_timers_fire_when_the_watermark_has_come_to_them_in_the_order_of_their_times() {
    let mut guest = contract("timers-event");
    guest.ok(&[row("a", "").at(0), row("b", "").at(5), row("a", "").at(3)]);
    assert_eq!(guest.state().next_timer(EventTime), Some(1000));
    assert!(guest.fired(EventTime, watermark(999)).is_empty());
    assert_eq!(guest.fired(EventTime, watermark(1003)), ["event 1000 a 0 (number 1)", "event 1003 a 2 (number 2)"]);
    assert_eq!(guest.fired(EventTime, watermark(1005)), ["event 1005 b 1 (number 1)"]);
    assert_eq!(guest.state().timer_count(EventTime), 0);
}

#[test]
fn a_timer_call_is_told_the_time() {
    let mut guest = contract("timers-event");
    guest.ok(&[row("a", "").at(0), row("b", "").at(1)]);
    let answers = guest.fire(EventTime, watermark(7000)).expect("the call counts");
    assert_eq!(answers.len(), 1, "all that is due comes in one call");
    assert_eq!(answers[0].reported("call"), [format!("2 timers, watermark 7000, processing time {}", NOW.processing_time)]);
}

#[test]
fn processing_time_timers_fire_by_the_clock_and_not_by_the_watermark() {
    let mut guest = contract("timers-processing");
    guest.ok(&[row("a", "").at(0)]);
    let due = NOW.processing_time + 1000;
    assert!(guest.fired(ProcessingTime, watermark(i64::MAX / 2)).is_empty());
    let then = CallTime { processing_time: due, ..NOW };
    assert_eq!(guest.fired(ProcessingTime, then), [format!("processing {due} a 0 (number 1)")]);
}

#[test]
fn the_same_timer_set_twice_is_one() {
    let mut guest = contract("timers-twice");
    guest.ok(&[row("a", "").at(0), row("a", "").at(0), row("b", "").at(0)]);
    guest.ok(&[row("a", "").at(0)]);
    let fired = guest.fired(EventTime, watermark(1000));
    assert_eq!(fired.len(), 2, "{fired:?}");
}

#[test]
fn a_cancelled_timer_does_not_fire_and_one_set_afterwards_does() {
    let mut guest = contract("timers-cancel");
    guest.ok(&[row("a", "").at(0), row("a", "").at(1), row("a", "").at(2), row("a", "").at(3), row("a", "").at(4)]);
    let fired = guest.fired(EventTime, watermark(2000));
    let tags: Vec<_> = fired.iter().map(|line| line.split(' ').nth(3).expect("a tag")).collect();
    assert_eq!(tags, ["0", "2", "3", "4"]);
}

#[test]
fn timers_are_set_and_cancelled_in_columns() {
    let mut guest = contract("timers-columns");
    guest.ok(&[row("a", "").at(0), row("b", "").at(1)]);
    assert_eq!(guest.fired(EventTime, watermark(2000)), ["event 1001 b 1 (number 1)"]);
    let due = NOW.processing_time + 1000;
    let then = CallTime { processing_time: due, ..NOW };
    assert_eq!(guest.fired(ProcessingTime, then), [format!("processing {due} b 1 (number 2)")]);
}

#[test]
fn a_timer_can_set_the_next_one() {
    let mut guest = contract("timers-again");
    guest.ok(&[row("a", "").at(0)]);
    assert_eq!(guest.fired(EventTime, watermark(1000)), ["event 1000 a 3 (number 1)"]);
    let rest = ["event 2000 a 2 (number 2)", "event 3000 a 1 (number 3)", "event 4000 a 0 (number 4)"];
    assert_eq!(guest.fired(EventTime, watermark(9000)), rest);
}

#[test]
fn a_timer_that_is_due_at_once_fires_in_a_call_of_its_own() {
    let mut guest = contract("timers-again-at-once");
    guest.ok(&[row("a", "").at(0)]);
    let answers = guest.fire(EventTime, watermark(1000)).expect("the calls count");
    assert_eq!(answers.len(), 4);
}

#[test]
fn all_that_are_left_fire_at_the_end_of_time() {
    let mut guest = contract("timers-event");
    guest.ok(&[row("a", "").at(i64::MAX / 2), row("b", "").at(0)]);
    assert_eq!(guest.fired(EventTime, watermark(END_OF_TIME)).len(), 2);
}

#[test]
fn a_rejected_timer_is_named_and_the_others_count() {
    let mut guest = contract("timers-reject");
    guest.ok(&[row("a", "").at(0), row("a", "").at(1), row("a", "").at(2)]);
    let answers = guest.fire(EventTime, watermark(2000)).expect("the call counts");
    assert_eq!(answers[0].rejected.iter().map(|rejected| rejected.row).collect::<Vec<_>>(), [1]);
    assert_eq!(answers[0].reported("timer"), ["event 1000 a 0 (number 1)", "event 1002 a 2 (number 2)"]);
    assert_eq!(guest.state().timer_count(EventTime), 0);
}

#[test]
fn timers_of_a_failed_call_are_still_set_and_its_writes_are_gone() {
    for (case, dies) in [("timers-fatal", false), ("timers-trap", true)] {
        let mut guest = contract(case);
        guest.ok(&[row("a", "").at(0), row("b", "").at(1)]);
        let before = guest.state().live_entries();
        match guest.fire(EventTime, watermark(2000)) {
            Err(CallError::Died { how: Death::Trap, .. }) if dies => {}
            Err(CallError::Fatal(reason)) if !dies => assert_eq!(reason, "on-timers says fatal"),
            other => panic!("{case}: {other:?}"),
        }
        assert_eq!((guest.state().timer_count(EventTime), guest.state().live_entries()), (2, before), "{case}");
    }
}

#[test]
fn many_due_timers_come_in_calls_of_a_bounded_size() {
    let mut guest = contract("timers-event");
    let rows: Vec<_> = (0..3000).map(|i| row("a", "").at(i)).collect();
    guest.ok(&rows);
    let answers = guest.fire(EventTime, watermark(10_000)).expect("the calls count");
    let sizes: Vec<_> = answers.iter().map(|answer| answer.reported("timer").len()).collect();
    assert_eq!(sizes, [1024, 1024, 952]);
}
