//! What the host must check before it uses it: sizes, counts, slots, offsets, names. Each case does one thing wrong.

use crate::bindings::tidegate::streaming::logging::{Level, log};
use crate::bindings::tidegate::streaming::metrics::{Counter, Gauge};
use crate::bindings::tidegate::streaming::output::{emit, forward};
use crate::bindings::tidegate::streaming::state::{ListState, MapState, ReducingState, ValueState};
use crate::bindings::tidegate::streaming::timers::{cancel_timer, set_timer, set_timers};
use crate::bindings::tidegate::streaming::types::{Batch, BytesColumn, TimeDomain};
use crate::{Answer, MAIN, has_bad, rows};

type Case = (&'static str, fn(&Batch));

pub fn run(case: &str, batch: &Batch) -> Option<Answer> {
    let (_, act) = CASES.iter().find(|(name, _)| *name == case)?;
    if has_bad(batch) {
        act(batch);
    }
    Some(Ok(Vec::new()))
}

const MIB: usize = 1 << 20;

fn one_row(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    rows::write(&mut out, key, Some(value), 0, 0, &[]);
    out
}

fn column(data: &[u8], offsets: &[u32]) -> BytesColumn {
    BytesColumn { data: data.to_vec(), offsets: offsets.to_vec() }
}

const CASES: &[Case] = &[
    // Rows.
    ("emit-bad-port", |_| emit(99, 1, &one_row(b"k", b"v"))),
    ("emit-cut-off", |_| emit(MAIN, 1, &one_row(b"k", b"value")[..18])),
    ("emit-cut-off-head", |_| emit(MAIN, 1, &one_row(b"k", b"value")[..7])),
    ("emit-too-few", |_| emit(MAIN, 2, &one_row(b"k", b"v"))),
    ("emit-too-many", |_| emit(MAIN, 1, &[one_row(b"k", b"v"), one_row(b"k", b"w")].concat())),
    ("emit-count-without-rows", |_| emit(MAIN, u32::MAX, &[])),
    ("emit-reserved-flags", |_| {
        let mut row = one_row(b"k", b"v");
        row[3] = 0x10;
        emit(MAIN, 1, &row);
    }),
    ("emit-tombstone-with-value", |_| {
        let mut row = one_row(b"k", b"v");
        row[3] = 4;
        emit(MAIN, 1, &row);
    }),
    ("emit-bad-headers", |_| {
        let mut row = Vec::new();
        rows::write(&mut row, b"k", Some(b"v"), 0, 0, &[9, 0, b'x']);
        emit(MAIN, 1, &row);
    }),
    ("emit-many-headers", |_| {
        let mut headers = Vec::new();
        for _ in 0..1001 {
            rows::header(&mut headers, "h", b"");
        }
        let mut row = Vec::new();
        rows::write(&mut row, b"k", Some(b"v"), 0, 0, &headers);
        emit(MAIN, 1, &row);
    }),
    ("emit-long-header-name", |_| {
        let (mut headers, mut row) = (Vec::new(), Vec::new());
        rows::header(&mut headers, &"n".repeat(1025), b"");
        rows::write(&mut row, b"k", Some(b"v"), 0, 0, &headers);
        emit(MAIN, 1, &row);
    }),
    ("emit-huge-length", |_| {
        let mut row = one_row(b"k", b"v");
        row[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        emit(MAIN, 1, &row);
    }),
    ("emit-huge-key", |_| emit(MAIN, 1, &one_row(&vec![b'k'; 65 << 10], b"v"))),
    ("emit-huge-value", |_| emit(MAIN, 1, &one_row(b"k", &vec![b'v'; 17 * MIB]))),
    ("emit-too-much", |_| {
        let row = one_row(b"k", &vec![b'v'; MIB]);
        for _ in 0..100 {
            emit(MAIN, 1, &row);
        }
    }),
    ("emit-too-many-rows", |_| {
        let rows = one_row(b"", b"").repeat(1 << 16);
        for _ in 0..17 {
            emit(MAIN, 1 << 16, &rows);
        }
    }),
    ("forward-bad-port", |_| forward(99, &[0])),
    ("forward-bad-row", |batch| forward(MAIN, &[0, batch.count])),
    ("forward-too-many-rows", |_| {
        let indices = vec![0; 1 << 16];
        for _ in 0..17 {
            forward(MAIN, &indices);
        }
    }),
    // A few bytes of indices, and as many copies of a row.
    ("forward-one-row-often", |_| forward(MAIN, &[0; 1000])),
    // Slots.
    ("value-bad-slot", |batch| drop(ValueState::new("value").get(batch.key_count))),
    ("value-store-bad-slot", |batch| ValueState::new("value").store(&[batch.key_count], &column(b"v", &[0, 1]))),
    ("fixed-store-bad-slot", |batch| ValueState::new("fixed").store_fixed(&[batch.key_count], &[0; 8])),
    ("map-bad-slot", |batch| MapState::new("map").put(batch.key_count, b"k", b"v")),
    ("list-bad-slot", |batch| ListState::new("list").add(batch.key_count, b"v")),
    ("reducing-bad-slot", |batch| drop(ReducingState::new("count").add_many(&[0, batch.key_count], &[1, 1], true))),
    ("timer-bad-slot", |batch| set_timer(batch.key_count, TimeDomain::EventTime, 0, 0)),
    ("timers-bad-slot", |batch| set_timers(TimeDomain::EventTime, &[batch.key_count], &[0], &[0])),
    // Columns.
    ("column-decreasing", |_| ValueState::new("value").store(&[0, 0], &column(b"abc", &[0, 3, 1]))),
    ("column-past-the-end", |_| ValueState::new("value").store(&[0], &column(b"abc", &[0, 4]))),
    ("column-not-from-zero", |_| ValueState::new("value").store(&[0], &column(b"abc", &[1, 3]))),
    ("column-not-to-the-end", |_| ValueState::new("value").store(&[0], &column(b"abc", &[0, 2]))),
    ("column-without-offsets", |_| ValueState::new("value").store(&[], &column(b"", &[]))),
    ("column-too-short", |_| ValueState::new("value").store(&[0, 0], &column(b"abc", &[0, 3]))),
    ("column-map-keys", |_| MapState::new("map").store_many(&[0], &column(b"", &[0]), &column(b"v", &[0, 1]))),
    ("column-list", |_| ListState::new("list").add_many(&[0], &column(b"v", &[0, 9]))),
    ("fixed-wrong-size", |_| ValueState::new("fixed").store_fixed(&[0], &[0; 7])),
    ("fixed-put-wrong-size", |_| ValueState::new("fixed").put(0, &[0; 7])),
    ("fixed-all-wrong-size", |batch| ValueState::new("fixed").store_all_fixed(&vec![0; batch.key_count as usize * 8 + 8])),
    ("fixed-on-bytes", |_| drop(ValueState::new("value").load_fixed())),
    ("reducing-wrong-length", |_| drop(ReducingState::new("count").add_many(&[0, 0], &[1], false))),
    ("timers-wrong-length", |_| set_timers(TimeDomain::EventTime, &[0, 0], &[0], &[0, 0])),
    // Sizes and numbers.
    ("value-too-large", |_| ValueState::new("value").put(0, &vec![b'v'; MIB + 1])),
    ("value-store-too-large", |_| {
        ValueState::new("value").store(&[0], &column(&vec![b'v'; MIB + 1], &[0, MIB as u32 + 1]));
    }),
    ("map-key-too-large", |_| MapState::new("map").put(0, &vec![b'k'; (64 << 10) + 1], b"v")),
    ("map-value-too-large", |_| MapState::new("map").put(0, b"k", &vec![b'v'; MIB + 1])),
    ("map-scan-too-many", |_| drop(MapState::new("map").scan(0, None, None, u32::MAX))),
    ("list-value-too-large", |_| ListState::new("list").add(0, &vec![b'v'; MIB + 1])),
    ("list-empty-element", |_| ListState::new("list").add(0, b"")),
    ("list-get-too-many", |_| drop(ListState::new("list").get(0, 0, u32::MAX))),
    ("timers-too-many", |_| {
        for time in 0..(1 << 16) + 1 {
            set_timer(0, TimeDomain::EventTime, time, 0);
        }
    }),
    ("timers-of-one-key", |_| {
        for time in 0..10_001 {
            set_timer(0, TimeDomain::EventTime, time, 0);
        }
    }),
    // Far more than a key may have, but the same ones again and again, and some that go at once.
    ("timers-set-again", |_| {
        for i in 0..30_000 {
            set_timer(0, TimeDomain::EventTime, 1_000_000 + i % 9000, 0);
        }
        for i in 0..9000 {
            cancel_timer(0, TimeDomain::EventTime, 1_000_000 + i, 0);
            set_timer(0, TimeDomain::ProcessingTime, i64::MAX - i, 0);
        }
    }),
    ("map-rewrite", |_| {
        let (map, value) = (MapState::new("map"), vec![b'v'; MIB]);
        for _ in 0..400 {
            map.put(0, b"k", &value);
        }
    }),
    ("list-grow", |_| ListState::new("list").add(0, &vec![b'v'; MIB])),
    ("log-too-many", |_| {
        for line in 0..1000 {
            log(Level::Info, &format!("line {line}"), &[]);
        }
    }),
    ("log-too-long", |_| log(Level::Info, &"long ".repeat(MIB), &[])),
    ("stderr-too-many", |_| {
        for line in 0..1000 {
            eprintln!("line {line}");
        }
    }),
    ("metrics-too-many", |_| {
        for number in 0..1000 {
            Counter::new(&format!("counter-{number}")).add(1);
        }
    }),
    ("metric-name-too-long", |_| drop(Counter::new(&"n".repeat(1000)))),
    ("metric-name-wrong", |_| drop(Counter::new("no such\nname{}"))),
    ("metric-kinds", |_| {
        Counter::new("one_name").add(1);
        Gauge::new("one_name").set(1.0);
    }),
    ("handles-too-many", |_| std::mem::forget((0..5000).map(|_| ValueState::new("value")).collect::<Vec<_>>())),
    // Names.
    ("state-undeclared", |_| drop(ValueState::new("undeclared"))),
    ("state-wrong-kind", |_| drop(MapState::new("value"))),
];
