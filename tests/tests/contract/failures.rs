//! Calls that come to nothing: none of their effects is ever seen, and the next call works.

use crate::contract;
use tidegate::wasm::instance::{CallError, Death, RejectedRow};
use tidegate_core::state_schema::TimeDomain::EventTime;
use tidegate_tests::guest::{Guest, MAIN, NOW, Setup};
use tidegate_tests::rows::{TestRow, row};

/// The middle row is bad.
fn with_a_bad_one() -> [TestRow; 3] {
    [row("a", "2").at(2), row("a", "bad").at(3), row("b", "4").at(4)]
}

/// The guest of a case with a deadline that tests can wait for, after one good call.
fn after_a_good_call(case: &str) -> Guest {
    let mut guest = Setup::new("contract").option("case", case).limits(|limits| limits.call_deadline_ms = 100).start();
    assert_eq!(guest.ok(&[row("a", "1").at(1)]).texts(MAIN), ["1 #1 of 1"]);
    guest
}

/// Whatever failed in between, state, timers and metrics are what the good call left.
fn assert_no_trace(guest: &mut Guest, case: &str) {
    assert_eq!(guest.state().timer_count(EventTime), 1, "{case}");
    assert_eq!(guest.metric("effects"), Some(1.0), "{case}");
    // The guest counts the rows of a key and the elements of its list: both would show a write of the failed call.
    assert_eq!(guest.ok(&[row("a", "5").at(5), row("b", "6").at(6)]).texts(MAIN), ["5 #2 of 2", "6 #1 of 1"], "{case}");
    assert_eq!(guest.metric("effects"), Some(3.0), "{case}");
}

#[test]
fn a_failure_that_the_guest_reports_drops_the_whole_call() {
    let bad_row = |row: u32, reason: &str| CallError::BadRow { row, reason: reason.to_owned() };
    for (case, expected) in [
        ("fatal", CallError::Fatal("the guest says fatal".to_owned())),
        ("transient", CallError::Transient("the guest says transient".to_owned())),
        ("bad-row", bad_row(1, "row 1 is bad")),
        ("bad-row-unknown", bad_row(3, "no such row")),
    ] {
        let mut guest = after_a_good_call(case);
        assert_eq!(guest.call(&with_a_bad_one(), NOW), Err(expected), "{case}");
        assert_no_trace(&mut guest, case);
    }
}

#[test]
fn a_guest_that_dies_drops_the_whole_call_and_the_next_one_has_a_new_instance() {
    for (case, how, named) in [
        ("trap", Death::Trap, "unreachable"),
        ("unreachable", Death::Trap, "unreachable"),
        ("recurse", Death::Trap, "wasm trap"),
        ("spin", Death::Deadline, "(limits.deadline)"),
        ("allocate", Death::Violation, "(limits.memory)"),
        ("exit", Death::Violation, "the operator ended itself"),
    ] {
        let mut guest = after_a_good_call(case);
        let (died, message) = guest.dies(&with_a_bad_one());
        assert_eq!(died, how, "{case}: {message}");
        assert!(message.contains(named), "{case}: {message}");
        assert_no_trace(&mut guest, case);
    }
}

#[test]
fn an_endless_loop_ends_within_its_deadline() {
    let mut guest = after_a_good_call("spin");
    let begun = std::time::Instant::now();
    guest.dies(&with_a_bad_one());
    let took = begun.elapsed().as_millis();
    // The upper bound leaves room for a machine that is busy with other tests.
    assert!((95..5000).contains(&took), "{took} ms, the deadline is 100 ms");
}

#[test]
fn rows_that_the_guest_rejected_and_undid_are_named_and_all_others_count() {
    let mut guest = after_a_good_call("reject");
    let answer = guest.ok(&with_a_bad_one());
    assert_eq!(answer.rejected, [RejectedRow { row: 1, reason: "row 1 is bad".to_owned() }]);
    assert_eq!(answer.texts(MAIN), ["2 #2 of 2", "4 #1 of 1"]);
    assert_eq!((guest.metric("effects"), guest.state().timer_count(EventTime)), (Some(3.0), 3));
}

#[test]
fn a_row_that_is_rejected_twice_is_rejected_once() {
    let mut guest = after_a_good_call("reject-twice");
    assert_eq!(guest.ok(&with_a_bad_one()).rejected.len(), 1);
}

#[test]
fn rejecting_a_row_that_is_not_there_drops_the_call() {
    let mut guest = after_a_good_call("reject-unknown-row");
    let (how, message) = guest.dies(&with_a_bad_one());
    assert_eq!((how, message.as_str()), (Death::Violation, "row 3 was rejected, the batch has 3"));
    assert_no_trace(&mut guest, "reject-unknown-row");
}

#[test]
fn writes_of_every_kind_of_state_are_undone() {
    // `dies` is any failing case: what counts is the state that was there before, in each kind.
    for case in ["value-column", "fixed-all", "map-many", "map-keep", "list-many", "reducing-many", "ttl-event"] {
        let (mut writer, mut twin) = (contract(case), contract(case));
        let numbers = [row("a", "1"), row("b", "2"), row("a", "3")];
        writer.ok(&numbers);
        twin.ok(&numbers);
        let mut failing = Setup::new("contract").option("case", "trap").start();
        std::mem::swap(failing.state(), writer.state());
        failing.dies(&with_a_bad_one());
        std::mem::swap(failing.state(), writer.state());
        assert_eq!(writer.state().live_entries(), twin.state().live_entries(), "{case}");
        assert_eq!(writer.ok(&numbers), twin.ok(&numbers), "{case}");
    }
}
