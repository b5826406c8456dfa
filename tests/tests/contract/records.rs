//! The world that takes one record a call: the same effects, one at a time.

use crate::lifecycle::NOT_CONFIGURED;
use tidegate::state::CallTime;
use tidegate::wasm::instance::{CallError, Death};
use tidegate_core::row::ChangeKind;
use tidegate_core::state_schema::TimeDomain::{EventTime, ProcessingTime};
use tidegate_tests::guest::{Guest, MAIN, NOW, Setup, module};
use tidegate_tests::rows::{TestRow, row, tombstone};

/// This guest's second output.
const REPORT: u32 = 1;

fn contract(case: &str) -> Guest {
    Setup::new("record-contract").option("case", case).limits(|limits| limits.call_deadline_ms = 100).start()
}

#[test]
fn the_component_says_which_world_it_serves() {
    let (loaded, info) = module("record-contract");
    assert_eq!((info.world.as_str(), loaded.takes_batches()), ("record-processor", false));
    let error = Setup::new("record-contract").start().operator.start().expect_err("the case is missing");
    assert_eq!(error, CallError::Fatal(NOT_CONFIGURED.to_owned()));
}

#[test]
fn a_record_comes_with_all_of_its_parts_and_the_time_of_the_call() {
    let mut guest = contract("record");
    let rows = [row("a", "x").at(5).header("h", "1"), tombstone("b").at(6).change(ChangeKind::Retract)];
    let answer = guest.call_input(2, &rows, NOW).expect("counts");
    let clock = format!("{} {}", NOW.watermark, NOW.processing_time);
    let expected = [format!("2 x 5 ChangeKind::Insert [h=1] {clock}"), format!("2 none 6 ChangeKind::Retract [] {clock}")];
    assert_eq!(answer.texts(REPORT), expected);
}

#[test]
fn records_come_back_as_they_went_in() {
    let rows = [
        row("k", "plain").at(1),
        row("", ""),
        tombstone("k").at(2).change(ChangeKind::UpdateAfter),
        row("k", "with headers").at(-4).header("trace", "1").header("trace", ""),
    ];
    for case in ["echo", "forward"] {
        let answer = contract(case).ok(&rows);
        let back: Vec<_> = answer.on(MAIN).iter().cloned().map(TestRow::without_origin).collect();
        assert_eq!(back, rows, "{case}");
        let exact: Vec<_> = answer.on(MAIN).iter().map(|row| row.origin.expect("an origin").is_exact()).collect();
        assert_eq!(exact, [case == "forward"; 4], "{case}");
    }
}

#[test]
fn rows_can_be_emitted_from_this_world_too() {
    let answer = contract("emit").ok(&[row("a", "x")]);
    assert_eq!(answer.on(MAIN).iter().cloned().map(TestRow::without_origin).collect::<Vec<_>>(), [row("k", "v").at(0)]);
}

#[test]
fn the_key_of_the_record_is_slot_zero() {
    let mut guest = contract("count");
    assert_eq!(guest.ok(&[row("a", ""), row("b", ""), row("a", "")]).texts(REPORT), ["1", "1", "2"]);
    assert_eq!(guest.ok(&[row("a", ""), row("c", "")]).texts(REPORT), ["3", "1"]);
}

#[test]
fn every_kind_of_state_is_kept_for_each_key() {
    let mut guest = contract("state");
    // Count, bytes of the scanned map entries (17 and the key each), length of the list, sum of lengths.
    let answer = guest.ok(&[row("a", "xx"), row("a", "xx"), row("b", "y"), row("a", "zzz")]);
    assert_eq!(answer.texts(REPORT), ["1 19 1 Some(2)", "2 19 2 Some(4)", "1 18 1 Some(1)", "3 39 3 Some(7)"]);
}

#[test]
fn timers_fire_one_a_call_in_their_order() {
    let mut guest = contract("timers-event");
    guest.ok(&[row("b", "").at(7), row("a", "").at(5), row("a", "").at(7)]);
    let now = CallTime { watermark: 2000, ..NOW };
    let answers = guest.fire(EventTime, now).expect("counts");
    assert_eq!(answers.len(), 3);
    let fired: Vec<_> = answers.iter().flat_map(|answer| answer.on(REPORT)).map(|row| (row.key.clone(), row.text())).collect();
    let line = |time: i64, number: u64| format!("TimeDomain::EventTime {time} 1 2000 {} (number {number})", NOW.processing_time);
    assert_eq!(fired[0], (b"a".to_vec(), line(1005, 1)));
    let mut of_one_time = fired[1..].to_vec();
    of_one_time.sort();
    assert_eq!(of_one_time, [(b"a".to_vec(), line(1007, 2)), (b"b".to_vec(), line(1007, 1))]);
}

#[test]
fn timers_of_processing_time_fire_and_cancelled_ones_do_not() {
    let mut guest = contract("timers-processing");
    guest.ok(&[row("a", "")]);
    let then = CallTime { processing_time: NOW.processing_time + 1000, ..NOW };
    assert_eq!(guest.fire(ProcessingTime, then).expect("counts").len(), 1);
    let mut guest = contract("timers-cancel");
    guest.ok(&[row("a", "").at(0)]);
    assert!(guest.fire(EventTime, CallTime { watermark: 1_000_000, ..NOW }).expect("counts").is_empty());
}

#[test]
fn a_record_that_fails_leaves_no_trace() {
    for (case, expected) in [
        ("bad-row", CallError::BadRow { row: 0, reason: "the record is bad".to_owned() }),
        ("fatal", CallError::Fatal("the guest says fatal".to_owned())),
        ("transient", CallError::Transient("the guest says transient".to_owned())),
    ] {
        let mut guest = contract(case);
        assert_eq!(guest.ok(&[row("a", "good")]).texts(REPORT), ["1"], "{case}");
        assert_eq!(guest.call(&[row("a", "bad")], NOW), Err(expected), "{case}");
        assert_eq!(guest.ok(&[row("a", "good")]).texts(REPORT), ["2"], "{case}");
        assert_eq!(guest.metric("processed"), Some(2.0), "{case}");
    }
}

#[test]
fn a_guest_that_dies_over_a_record_is_started_again_for_the_next() {
    for (case, how, named) in [
        ("trap", Death::Trap, "unreachable"),
        ("spin", Death::Deadline, "limits.deadline"),
        ("forward-bad-row", Death::Violation, "forward of row 1: the batch has 1 rows"),
        ("bad-slot", Death::Violation, "state `count`: slot 1 is outside the call, which has 1 keys"),
    ] {
        let mut guest = contract(case);
        guest.ok(&[row("a", "good")]);
        let (died, message) = guest.dies(&[row("a", "bad")]);
        assert!(died == how && message.contains(named), "{case}: {died:?} {message}");
        let after = guest.ok(&[row("a", "good")]).texts(REPORT);
        assert!(after == ["2"] || after == ["good"], "{case}: {after:?}");
    }
}
