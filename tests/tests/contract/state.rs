//! Keyed state: all kinds, all functions, point access and batch access.

use crate::contract;
use tidegate::state::CallTime;
use tidegate_tests::guest::{Guest, NOW, Setup};
use tidegate_tests::rows::{TestRow, row};

/// Two keys, one of them twice.
fn abc() -> [TestRow; 3] {
    [row("a", "x"), row("b", "y"), row("a", "z")]
}

/// The state of a guest under another case: what one access wrote, the other reads.
fn with_state_of(guest: &mut Guest, case: &str) -> Guest {
    let mut next = Setup::new("contract").option("case", case).start();
    std::mem::swap(guest.state(), next.state());
    next
}

#[test]
fn a_value_is_read_back_within_the_batch_and_after_it() {
    let mut guest = contract("value-point");
    let report = guest.ok(&abc()).report();
    assert_eq!(report, ["before: none", "after: x", "before: none", "after: y", "before: x", "after: z"]);
    assert_eq!(guest.ok(&[row("a", "w"), row("c", "v")]).reported("before"), ["z", "none"]);
}

#[test]
fn a_cleared_value_is_gone() {
    let mut guest = contract("value-point");
    guest.ok(&[row("a", "x")]);
    let mut guest = with_state_of(&mut guest, "value-clear");
    assert_eq!(guest.ok(&[row("a", "y")]).report(), ["before: x", "after: none"]);
    assert_eq!(guest.ok(&[row("a", "y")]).reported("before"), ["none"]);
    assert_eq!(guest.state().live_entries(), 0);
}

#[test]
fn a_column_has_one_value_for_each_slot() {
    let mut guest = contract("value-column");
    assert_eq!(guest.ok(&abc()).report(), ["before: |", "after: z|y"]);
    assert_eq!(guest.ok(&[row("b", "1"), row("c", "2"), row("a", "3")]).report(), ["before: y||z", "after: 1|2|3"]);
}

#[test]
fn point_access_and_batch_access_see_the_same_values() {
    let mut points = contract("value-point");
    points.ok(&abc());
    let mut columns = with_state_of(&mut points, "value-column");
    assert_eq!(columns.ok(&[row("b", "p"), row("a", "q")]).reported("before"), ["y|z"]);
    let mut points = with_state_of(&mut columns, "value-point");
    assert_eq!(points.ok(&abc()).reported("before"), ["q", "p", "x"]);
}

#[test]
fn an_empty_value_is_an_absent_one() {
    let mut guest = contract("value-empty");
    assert_eq!(guest.ok(&abc()).report(), ["after put: none", "after store: |"]);
    assert_eq!(guest.state().live_entries(), 0);
}

#[test]
fn values_of_one_size_travel_as_one_block() {
    let mut guest = contract("fixed-all");
    assert_eq!(guest.ok(&abc()).report(), ["before: 0|0", "after: 2|1"]);
    assert_eq!(guest.ok(&abc()).report(), ["before: 2|1", "after: 4|2"]);
}

#[test]
fn a_zero_of_a_fixed_size_is_a_value_and_what_is_absent_reads_as_zero() {
    let mut guest = contract("fixed-some");
    let report = guest.ok(&[row("a", ""), row("b", ""), row("c", "")]).report();
    assert_eq!(report, ["after: 100|0|102", "zero: 0x0000000000000000", "cleared: none"]);
}

#[test]
fn map_entries_are_put_read_removed_and_told_apart_by_key() {
    let mut guest = contract("map-point");
    let of_one_key = [
        "empty at first: true",
        "a: 1",
        "b: 3",
        "c: none",
        "contains a, b: false, true",
        "empty with b: false",
        "empty after an empty value: true",
    ];
    assert_eq!(guest.ok(&[row("k", ""), row("l", "")]).report(), [of_one_key, of_one_key].concat());
    assert_eq!(guest.state().live_entries(), 0);
}

#[test]
fn a_scan_gives_entries_in_the_order_of_their_keys_within_its_bounds() {
    let mut guest = contract("map-scan");
    let of_slot = |slot: u32| {
        [
            format!("all: a=a{slot}|b=b{slot}|c=c{slot}|d=d{slot}|e=e{slot}"),
            format!("b to d: b=b{slot}|c=c{slot}"),
            format!("from d: d=d{slot}|e=e{slot}"),
            format!("to b: a=a{slot}"),
            format!("two: a=a{slot}|b=b{slot}"),
            format!("two more: c=c{slot}|d=d{slot}"),
            "nothing: ".to_owned(),
            "d to b: ".to_owned(),
        ]
    };
    assert_eq!(guest.ok(&[row("k", ""), row("l", "")]).report(), [of_slot(0), of_slot(1)].concat());
    // The same over entries that an earlier batch wrote.
    assert_eq!(guest.ok(&[row("l", ""), row("k", "")]).report(), [of_slot(0), of_slot(1)].concat());
}

#[test]
fn a_range_of_a_map_is_removed_at_once() {
    let mut guest = contract("map-remove-range");
    let report = guest.ok(&[row("k", "")]).report();
    assert_eq!(report, ["without b and c: a=a0|d=d0|e=e0", "without e: a=a0|d=d0", "without all: "]);
}

#[test]
fn many_map_entries_are_loaded_and_stored_in_one_call() {
    let mut guest = contract("map-many");
    let report = guest.ok(&[row("k", "x"), row("l", "x"), row("k", "y")]).report();
    assert_eq!(report, ["before: ||", "after: row 0|row 1|row 2", "slot 0: x=row 0|y=row 2", "first removed: none"]);
    let report = guest.ok(&[row("k", "y"), row("k", "y")]).report();
    assert_eq!(report[..3], ["before: row 2|row 2", "after: row 1|row 1", "slot 0: y=row 1"], "the later one counts");
}

#[test]
fn a_map_keeps_its_entries_from_batch_to_batch() {
    let mut guest = contract("map-keep");
    assert_eq!(guest.ok(&[row("k", "2"), row("l", "9"), row("k", "1")]).reported("before"), ["", "", "2=+"]);
    assert_eq!(guest.ok(&[row("k", "3")]).reported("before"), ["1=+|2=+"]);
}

#[test]
fn a_list_is_appended_to_and_read_in_pages() {
    let mut guest = contract("list-point");
    let answer = guest.ok(&[row("k", "1"), row("k", "2"), row("k", "3")]);
    assert_eq!(answer.reported("length"), ["0", "1", "2"]);
    assert_eq!(answer.reported("all"), ["1", "1|2", "1|2|3"]);
    assert_eq!(answer.reported("first"), ["1", "1", "1"]);
    assert_eq!(answer.reported("second and third"), ["", "2", "2|3"]);
    assert_eq!(answer.reported("past the end"), ["", "", ""]);
    assert_eq!(guest.ok(&[row("k", "4")]).reported("all"), ["1|2|3|4"]);
}

#[test]
fn many_elements_are_appended_in_one_call() {
    let mut guest = contract("list-many");
    assert_eq!(guest.ok(&[row("k", "1"), row("l", "9"), row("k", "2")]).report(), ["all: 1|2", "all: 9"]);
    assert_eq!(guest.ok(&[row("l", "8"), row("k", "3")]).report(), ["all: 9|8", "all: 1|2|3"]);
}

#[test]
fn a_list_is_replaced_as_a_whole() {
    let mut before = contract("list-many");
    before.ok(&[row("k", "from before")]);
    let mut guest = with_state_of(&mut before, "list-replace");
    assert_eq!(guest.ok(&[row("k", "")]).report(), ["replaced: new|newer|newest", "cleared: 0", "replaced by nothing: 0"]);
    assert_eq!(guest.state().live_entries(), 0);
}

#[test]
fn every_reducer_reduces_one_by_one() {
    let mut guest = contract("reducing-point");
    let answer = guest.ok(&[row("a", "4"), row("a", "-2"), row("b", "7")]);
    for (reducer, steps) in [
        ("sum-s64", ["none -> 4", "4 -> 2", "none -> 7"]),
        ("sum-f64", ["none -> 2.0", "2.0 -> 1.0", "none -> 3.5"]),
        ("min-s64", ["none -> 4", "4 -> -2", "none -> 7"]),
        ("max-s64", ["none -> 4", "4 -> 4", "none -> 7"]),
        ("min-f64", ["none -> 2.0", "2.0 -> -1.0", "none -> 3.5"]),
        ("max-f64", ["none -> 2.0", "2.0 -> 2.0", "none -> 3.5"]),
        ("count", ["none -> 1", "1 -> 2", "none -> 1"]),
    ] {
        assert_eq!(answer.reported(reducer), steps, "{reducer}");
    }
    assert_eq!(guest.ok(&[row("a", "1")]).reported("sum-s64"), ["2 -> 3"]);
}

#[test]
fn many_additions_give_the_numbers_after_each_if_asked() {
    let mut guest = contract("reducing-many");
    let answer = guest.ok(&[row("a", "4"), row("a", "-2"), row("b", "7")]);
    for (reducer, new, load) in [
        ("sum-s64", "4|2|7", "4|14"),
        ("sum-f64", "2.0|1.0|3.5", "2.0|7.0"),
        ("min-s64", "4|-2|7", "-2|7"),
        ("max-s64", "4|4|7", "4|7"),
        ("min-f64", "2.0|-1.0|3.5", "-1.0|3.5"),
        ("max-f64", "2.0|2.0|3.5", "2.0|3.5"),
        ("count", "1|2|1", "4|2"),
    ] {
        let of = |what: &str| answer.reported(&format!("{reducer} {what}")).concat();
        assert_eq!((of("new"), of("silent"), of("load")), (new.to_owned(), String::new(), load.to_owned()), "{reducer}");
    }
}

#[test]
fn reducing_point_access_and_batch_access_see_the_same_numbers() {
    let mut many = contract("reducing-many");
    many.ok(&[row("a", "4"), row("b", "7")]);
    let mut points = with_state_of(&mut many, "reducing-point");
    assert_eq!(points.ok(&[row("b", "1"), row("a", "1")]).reported("sum-s64"), ["14 -> 15", "8 -> 9"]);
}

#[test]
fn a_cleared_number_begins_anew() {
    let mut guest = contract("reducing-clear");
    let answer = guest.ok(&[row("a", "1")]);
    for (reducer, number) in [("sum-s64", "-3"), ("sum-f64", "-1.5"), ("min-s64", "-3"), ("max-f64", "-1.5"), ("count", "1")] {
        assert_eq!(answer.reported(reducer), ["none", number], "{reducer}");
    }
    assert_eq!(guest.state().live_entries(), 0);
}

/// What is there before each write, the clock of one domain set by hand.
fn befores(case: &str, moment: fn(i64) -> CallTime, times: &[i64]) -> Vec<String> {
    let mut guest = contract(case);
    let before = |time: &i64| {
        let answer = guest.call(&[row("k", "v")], moment(*time)).expect("the call counts");
        answer.reported("before").concat()
    };
    times.iter().map(before).collect()
}

#[test]
fn a_value_expires_by_event_time_some_time_after_its_last_write() {
    let watermark = |watermark| CallTime { watermark, processing_time: 0 };
    // Each call writes again: 999 ms later it is still there, 1000 ms later it is gone.
    assert_eq!(befores("ttl-event", watermark, &[5000, 5999, 6998, 7998, 7998]), ["none", "v", "v", "none", "v"]);
}

#[test]
fn a_value_expires_by_processing_time_whatever_the_watermark_says() {
    let clock = |processing_time| CallTime { watermark: processing_time * 1_000_000, processing_time };
    assert_eq!(befores("ttl-processing", clock, &[5000, 5999, 6999]), ["none", "v", "none"]);
}

#[test]
fn entries_of_a_map_expire_one_by_one() {
    let mut guest = contract("ttl-map");
    let mut before = |watermark: i64, key: &str| {
        let answer = guest.call(&[row("k", key)], CallTime { watermark, processing_time: 0 }).expect("the call counts");
        answer.reported("before").concat()
    };
    assert_eq!(before(1000, "old"), "");
    assert_eq!(before(1500, "young"), "old=+");
    assert_eq!(before(2000, "third"), "young=+");
}

#[test]
fn what_has_expired_is_swept_away() {
    let mut guest = contract("ttl-event");
    let rows: Vec<TestRow> = (0..500).map(|i| row(format!("key {i}"), "v")).collect();
    guest.call(&rows, CallTime { watermark: 0, processing_time: 0 }).expect("the call counts");
    assert_eq!(guest.state().live_entries(), 500);
    for _ in 0..100 {
        guest.state().sweep(1000, CallTime { watermark: 1000, processing_time: 0 });
    }
    assert_eq!(guest.state().live_entries(), 0);
}

#[test]
fn state_of_one_key_is_never_seen_by_another() {
    let mut guest = contract("value-point");
    let keys: Vec<String> = (0..3000).map(|i| format!("{}{i}", "long key ".repeat(i % 4))).collect();
    let rows: Vec<TestRow> = keys.iter().map(|key| row(key, key)).collect();
    assert!(guest.ok(&rows).reported("before").iter().all(|before| before == "none"));
    assert_eq!(guest.ok(&rows).reported("before"), keys);
}

#[test]
fn an_instance_that_is_thrown_away_between_calls_changes_nothing() {
    let (module, _) = tidegate_tests::guest::module("contract");
    for case in ["value-point", "value-column", "fixed-all", "map-keep", "list-many", "reducing-many", "ttl-event"] {
        let (mut kept, mut amnesiac) = (contract(case), contract(case));
        for batch in 0..4 {
            let rows: Vec<TestRow> = (0..20).map(|i| row(format!("k{}", i * batch % 7), (i + batch).to_string())).collect();
            let expected = kept.call(&rows, NOW).expect("the call counts");
            amnesiac.recycle(&module);
            assert_eq!(amnesiac.call(&rows, NOW).expect("the call counts"), expected, "{case}, batch {batch}");
        }
    }
}
