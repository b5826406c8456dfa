//! What a guest hands over is checked before it is used, and the error names the limit or the rule.

use crate::contract;
use tidegate::wasm::instance::Death;
use tidegate_core::state_schema::TimeDomain;
use tidegate_tests::guest::{MAIN, Setup};
use tidegate_tests::logged::logged;
use tidegate_tests::rows::row;

/// Cases of the guest, and what the host's message has to contain.
const REFUSED: &[(&str, &str)] = &[
    ("emit-bad-port", "output port 99 does not exist: `describe` declares 3 outputs"),
    ("emit-cut-off", "row 0 at byte 0 is cut off"),
    ("emit-cut-off-head", "row 0 at byte 0 is cut off: 16 bytes needed, 7 left"),
    ("emit-too-few", "2 rows were announced, the buffer holds 1"),
    ("emit-too-many", "1 rows were announced, the buffer holds 2"),
    ("emit-count-without-rows", "output_rows_max"),
    ("emit-reserved-flags", "row 0 has reserved flag bits set"),
    ("emit-tombstone-with-value", "row 0 is a tombstone with a value of 1 bytes"),
    ("emit-bad-headers", "the headers of row 0 do not add up"),
    ("emit-many-headers", "row 0 has more headers than the limit of 1000 (headers_max)"),
    (
        "emit-long-header-name",
        "the name of a header of row 0 has 1025 bytes, which exceeds the limit of 1024 (header_name_bytes_max)",
    ),
    ("emit-huge-length", "value_bytes_max"),
    ("emit-huge-key", "key_bytes_max"),
    ("emit-huge-value", "value_bytes_max"),
    ("emit-too-much", "output_bytes_max"),
    ("emit-too-many-rows", "output_rows_max"),
    ("forward-bad-port", "output port 99 does not exist"),
    ("forward-bad-row", "forward of row 2: the batch has 2 rows"),
    ("forward-too-many-rows", "output_rows_max"),
    ("value-bad-slot", "state `value`: slot 2 is outside the call, which has 2 keys"),
    ("value-store-bad-slot", "state `value`: slot 2 is outside"),
    ("fixed-store-bad-slot", "state `fixed`: slot 2 is outside"),
    ("map-bad-slot", "state `map`: slot 2 is outside"),
    ("list-bad-slot", "state `list`: slot 2 is outside"),
    ("reducing-bad-slot", "state `count`: slot 2 is outside"),
    ("timer-bad-slot", "slot 2 is outside"),
    ("timers-bad-slot", "slot 2 is outside"),
    ("column-decreasing", "state `value`: the column of values does not fit: offset 1 is greater than offset 2"),
    ("column-past-the-end", "state `value`: the column of values does not fit: the last offset is 4, and there are 3 bytes"),
    ("column-without-offsets", "state `value`: the column of values does not fit: it has no offsets"),
    ("column-too-short", "state `value`: 2 slots come with 1 values"),
    ("column-map-keys", "state `map`: 1 slots come with 0 map keys"),
    ("column-list", "state `list`: the column of values does not fit"),
    ("fixed-wrong-size", "state `fixed`"),
    ("fixed-put-wrong-size", "state `fixed`: a value of 7 bytes, where `value-size` says 8"),
    ("fixed-all-wrong-size", "state `fixed`"),
    ("fixed-on-bytes", "state `value` is declared without a `value-size`"),
    ("reducing-wrong-length", "state `count`: 2 slots come with 1 values"),
    ("timers-wrong-length", "2 slots come with 1 times"),
    ("value-too-large", "state `value`: a value of 1048577 bytes exceeds the limit of 1048576 (state_value_bytes_max)"),
    ("value-store-too-large", "state_value_bytes_max"),
    ("map-key-too-large", "state `map`: a map key of 65537 bytes exceeds the limit of 65536 (map_key_bytes_max)"),
    ("map-value-too-large", "state_value_bytes_max"),
    ("map-scan-too-many", "scan_entries_max"),
    ("list-value-too-large", "state_value_bytes_max"),
    ("list-get-too-many", "scan_entries_max"),
    ("timers-too-many", "timers_per_call_max"),
    ("timers-of-one-key", "a key would have 10001 timers, which exceeds the limit of 10000 (timers_per_key_max)"),
    ("metrics-too-many", "metrics_max"),
    ("metric-name-too-long", "name_bytes_max"),
    ("metric-name-wrong", "a name that is not allowed"),
    ("metric-kinds", "metric `one_name` is a counter already and can't be a gauge too"),
    ("handles-too-many", "handles_max"),
    ("state-undeclared", "state `undeclared` was not declared by `describe`"),
    ("state-wrong-kind", "state `value` was declared as Value and opened as a map-state"),
];

#[test]
fn what_breaks_a_rule_ends_the_call_with_the_rule_by_name() {
    let mut wrong = Vec::new();
    for (case, named) in REFUSED {
        let mut guest = contract(case);
        guest.ok(&[row("a", "good")]);
        let (how, message) = guest.dies(&[row("a", "bad"), row("b", "good")]);
        if how != Death::Violation || !message.contains(named) {
            wrong.push(format!("{case}: {how:?}: {message}"));
        }
        assert_eq!(guest.state().live_entries(), 0, "{case} left something behind");
        guest.ok(&[row("a", "good")]);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_empty_element_is_no_element_of_a_list() {
    let mut guest = contract("list-empty-element");
    guest.ok(&[row("a", "bad")]);
    assert_eq!(guest.state().live_entries(), 0);
}

#[test]
fn a_column_need_not_use_all_of_its_bytes() {
    for case in ["column-not-from-zero", "column-not-to-the-end"] {
        let mut guest = contract(case);
        guest.ok(&[row("a", "bad")]);
        let mut reader = contract("value-point");
        std::mem::swap(guest.state(), reader.state());
        let expected = if case == "column-not-from-zero" { "bc" } else { "ab" };
        assert_eq!(reader.ok(&[row("a", "")]).reported("before"), [expected]);
    }
}

#[test]
fn limits_are_those_of_the_operator() {
    let limited = |case: &str, change: fn(&mut tidegate_core::limits::GuestLimits)| {
        let mut guest = Setup::new("contract").option("case", case).limits(change).start();
        guest.dies(&[row("a", "bad")]).1
    };
    assert!(limited("emit-too-much", |limits| limits.output_bytes_max = 2 << 20).contains("limit of 2097152 (output_bytes_max)"));
    assert!(limited("value-too-large", |limits| limits.state_value_bytes_max = 9).contains("limit of 9 (state_value_bytes_max)"));
    assert!(limited("timers-too-many", |limits| limits.timers_per_call_max = 7).contains("limit is 7 (timers_per_call_max)"));
    let forwarded = limited("forward-one-row-often", |limits| limits.output_bytes_max = 1000);
    assert!(forwarded.contains("which exceeds the limit of 1000 (output_bytes_max)"), "{forwarded}");
    assert!(limited("timers-of-one-key", |limits| limits.timers_per_key_max = 9).contains("limit of 9 (timers_per_key_max)"));
    assert!(limited("allocate", |limits| limits.memory_bytes_max = 3 << 20).contains("limit of 3145728 (limits.memory)"));
}

#[test]
fn an_entry_that_is_written_again_and_again_is_not_remembered_without_end() {
    let mut guest = Setup::new("contract").option("case", "map-rewrite").limits(|it| it.call_deadline_ms = 60_000).start();
    let (how, message) = guest.dies(&[row("a", "bad")]);
    assert_eq!(how, Death::Violation, "{message}");
    assert!(message.contains("which exceeds the limit of 268435456 (undo_bytes_max)"), "{message}");
    assert_eq!(guest.state().live_entries(), 0);
    guest.ok(&[row("a", "good")]);
}

#[test]
fn timers_of_a_key_are_counted_as_they_stand_when_the_call_is_over() {
    let mut guest = contract("timers-set-again");
    guest.ok(&[row("a", "bad")]);
    assert_eq!(guest.state().timer_count(TimeDomain::EventTime), 0);
    assert_eq!(guest.state().timer_count(TimeDomain::ProcessingTime), 9000);
    // The same ones again are no more than they were.
    guest.ok(&[row("a", "bad")]);
    // Those of another key are none of this one's.
    guest.ok(&[row("b", "bad")]);
    assert_eq!(guest.state().timer_count(TimeDomain::ProcessingTime), 18_000);
}

#[test]
fn a_forwarded_row_counts_with_its_bytes() {
    let mut guest = contract("forward-one-row-often");
    assert_eq!(guest.ok(&[row("a", "bad")]).on(MAIN).len(), 1000, "within the limit a row may be forwarded any number of times");
}

#[test]
fn the_log_of_a_task_is_bounded_in_a_second_whatever_the_number_of_its_calls() {
    let mut guest = Setup::new("contract").option("case", "log-too-many").limits(|it| it.log_lines_per_second_max = 7).start();
    let lines = logged(|| (0..3).for_each(|_| drop(guest.ok(&[row("a", "bad")]))));
    assert!((7..=7 * 60).contains(&lines.len()), "{} lines", lines.len());
    assert_eq!(guest.operator.env().log_lines_dropped, 3000 - lines.len() as u64);
}

#[test]
fn lines_of_the_log_are_bounded_in_number() {
    for case in ["log-too-many", "stderr-too-many"] {
        let mut guest = contract(case);
        let lines = logged(|| drop(guest.ok(&[row("a", "bad")])));
        assert_eq!(lines.len(), 100, "{case}");
        assert_eq!(guest.operator.env().log_lines_dropped, 900, "{case}");
        let next = logged(|| drop(guest.ok(&[row("a", "bad")])));
        assert_eq!(next.len(), 100, "{case}: the next call may log again");
    }
}

#[test]
fn lines_of_the_log_are_bounded_in_length() {
    let mut guest = contract("log-too-long");
    let lines = logged(|| drop(guest.ok(&[row("a", "bad")])));
    let [line] = &lines[..] else { panic!("{} lines", lines.len()) };
    assert!(line.message.len() < 8300, "{} bytes", line.message.len());
    assert!(line.message.ends_with("… (cut)"));
}

#[test]
fn a_name_is_a_metric_of_one_kind() {
    let mut guest = contract("metrics");
    guest.ok(&[row("a", "1"), row("a", "2")]);
    guest.ok(&[row("a", "3")]);
    // Each call adds its rows, and 1 through a second handle of the same name.
    assert_eq!((guest.metric("rows"), guest.metric("last_batch")), (Some(5.0), Some(1.0)));
    assert_eq!(guest.metric("sizes_count"), Some(6.0));
    assert_eq!(guest.metric("sizes_sum"), Some(1.0 + 2.5 + 2.0 + 1.0 + 2.5 + 1.0));
}

#[test]
fn log_lines_say_who_they_are_from_and_are_not_part_of_the_result() {
    let mut guest = contract("log");
    let mut answer = None;
    let lines = logged(|| answer = Some(guest.ok(&[row("a", "")])));
    assert!(answer.expect("called").on(MAIN).is_empty());
    let messages: Vec<_> = lines.iter().map(|line| (line.level.as_str(), line.message.as_str())).collect();
    let expected = [
        ("TRACE", "a trace line"),
        ("DEBUG", "a debug line one=\"1\""),
        ("INFO", "an info line one=\"1\" two=\"zwei ä\""),
        ("WARN", "a warn line\nwith a second one"),
        ("ERROR", "an error line"),
        ("WARN", "a line to stderr"),
        ("INFO", "a line to stdout"),
    ];
    assert_eq!(messages, expected);
    let fields = &lines[0].fields;
    for (name, value) in [("job", "job"), ("operator", "operator"), ("module", "contract@1.0.0"), ("task", "0")] {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{fields:?}");
    }
}
