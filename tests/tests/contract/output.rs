//! What goes out and what comes in: every part of a row survives.

use crate::contract;
use tidegate_core::row::{ChangeKind, NO_TIMESTAMP};
use tidegate_tests::guest::{MAIN, NOW, SIDE};
use tidegate_tests::rows::{TestRow, row, tombstone};

/// One row of each kind.
fn all_kinds() -> Vec<TestRow> {
    vec![
        row("k", "plain").at(1),
        row("", "").change(ChangeKind::UpdateBefore),
        tombstone("k").at(2).change(ChangeKind::UpdateAfter),
        tombstone("k").at(-3).change(ChangeKind::Retract).header("trace", "1").header("trace", ""),
        row([0xff, 0x00], [0x00, 0xff]).at(i64::MAX).header("ä", "ö"),
    ]
}

fn without_origins(rows: &[TestRow]) -> Vec<TestRow> {
    rows.iter().cloned().map(TestRow::without_origin).collect()
}

#[test]
fn rows_come_back_as_they_went_in() {
    for case in ["emit-echo", "record-echo", "forward-all"] {
        let answer = contract(case).ok(&all_kinds());
        assert_eq!(without_origins(answer.on(MAIN)), all_kinds(), "{case}");
    }
}

#[test]
fn a_guest_is_told_everything_about_its_batch() {
    let mut guest = contract("batch");
    let rows = [
        row("a", "x").at(5).header("h", "1").header("g", ""),
        tombstone("b").change(ChangeKind::Retract),
        row("a", "").at(6).change(ChangeKind::UpdateAfter),
    ];
    let answer = guest.call_input(3, &rows, NOW).expect("the call counts");
    let expected = [
        "input: 3".to_owned(),
        "count: 3".to_owned(),
        "slots: [0, 1, 0]".to_owned(),
        "key-count: 2".to_owned(),
        format!("watermark: {}", NOW.watermark),
        format!("processing-time: {}", NOW.processing_time),
        "row: a x 5 ChangeKind::Insert [h=1,g=]".to_owned(),
        format!("row: b none {NO_TIMESTAMP} ChangeKind::Retract []"),
        "row: a  6 ChangeKind::UpdateAfter []".to_owned(),
    ];
    assert_eq!(answer.report(), expected);
}

#[test]
fn rows_and_records_of_every_kind_are_the_same_on_every_output() {
    let (rows, records) = (contract("emit-kinds").ok(&[row("a", "")]), contract("record-kinds").ok(&[row("a", "")]));
    let kinds = without_origins(rows.on(MAIN));
    let trace = |row: TestRow| row.header("trace", "1").header("trace", "");
    let expected = [
        row("k", "plain").at(1),
        row("", "").change(ChangeKind::UpdateBefore),
        tombstone("k").at(2).change(ChangeKind::UpdateAfter),
        trace(tombstone("k").at(3).change(ChangeKind::Retract)),
        trace(row("k", "with headers").at(4)),
    ];
    assert_eq!(kinds, expected);
    for other in [rows.on(SIDE), records.on(MAIN), records.on(SIDE)] {
        assert_eq!(without_origins(other), kinds);
    }
}

#[test]
fn forwarded_rows_go_to_the_output_they_were_sent_to() {
    let rows: Vec<TestRow> = (0..5).map(|i| row("k", i.to_string())).collect();
    let answer = contract("forward-split").ok(&rows);
    assert_eq!(
        (answer.texts(MAIN), answer.texts(SIDE)),
        (vec!["0".into(), "2".into(), "4".into()], vec!["1".into(), "3".into()])
    );
    assert_eq!(contract("forward-reversed-twice").ok(&rows[..3]).texts(MAIN), ["2", "1", "0", "2", "1", "0"]);
}

#[test]
fn one_output_keeps_the_order_of_the_calls_that_filled_it() {
    let answer = contract("mixed-order").ok(&[row("a", "first"), row("b", "second")]);
    let expected = ["emitted before 0", "first", "recorded after 0", "emitted before 1", "second", "recorded after 1"];
    assert_eq!(answer.texts(MAIN), expected);
}

#[test]
fn emitting_nothing_gives_nothing() {
    assert!(contract("emit-nothing").ok(&[row("a", "x")]).outputs.is_empty());
}

#[test]
fn forwarded_rows_keep_their_origin_and_made_ones_get_that_of_their_batch() {
    // Test batches come from split 1, record 100 on.
    let answer = contract("mixed-order").ok(&[row("a", "x"), row("b", "y")]);
    let origins: Vec<_> = answer.on(MAIN).iter().map(|row| row.origin.expect("an origin")).collect();
    let told: Vec<_> = origins.iter().map(|origin| (origin.split(), origin.position(), origin.is_exact())).collect();
    let made = (1, 100, false);
    assert_eq!(told, [made, (1, 100, true), made, made, (1, 101, true), made]);
}

#[test]
fn an_empty_batch_is_no_trouble() {
    for case in ["emit-echo", "forward-all", "value-column", "fixed-all", "reducing-many", "list-many"] {
        contract(case).ok(&[]);
    }
}
