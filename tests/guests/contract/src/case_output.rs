//! What goes out and what comes in, unchanged: rows, records, forwarding, headers, tombstones, change kinds; logs and metrics.

use crate::bindings::tidegate::streaming::logging::{Field, Level, log};
use crate::bindings::tidegate::streaming::metrics::{Counter, Gauge, Histogram};
use crate::bindings::tidegate::streaming::output::{emit, emit_record, forward};
use crate::bindings::tidegate::streaming::types::{Batch, ChangeKind, Header, StreamRecord};
use crate::{Answer, MAIN, SIDE, report, rows, show, show_option};

const CHANGES: [ChangeKind; 4] = [ChangeKind::Insert, ChangeKind::UpdateBefore, ChangeKind::UpdateAfter, ChangeKind::Retract];

pub fn run(case: &str, batch: &Batch) -> Option<Answer> {
    match case {
        "emit-echo" => emit_echo(batch),
        "record-echo" => record_echo(batch),
        "emit-kinds" => emit_kinds(),
        "record-kinds" => record_kinds(),
        "forward-all" => forward(MAIN, &(0..batch.count).collect::<Vec<_>>()),
        "forward-split" => {
            forward(MAIN, &(0..batch.count).step_by(2).collect::<Vec<_>>());
            forward(SIDE, &(1..batch.count).step_by(2).collect::<Vec<_>>());
        }
        // Rows may go on more than once, and in any order.
        "forward-reversed-twice" => {
            for _ in 0..2 {
                forward(MAIN, &(0..batch.count).rev().collect::<Vec<_>>());
            }
        }
        "mixed-order" => mixed_order(batch),
        "emit-nothing" => {
            emit(MAIN, 0, &[]);
            forward(MAIN, &[]);
        }
        "log" => logs(),
        "metrics" => metrics(batch),
        _ => return None,
    }
    Some(Ok(Vec::new()))
}

/// Everything that the host hands over with a batch.
pub fn batch(batch: &Batch) {
    report("input", batch.input);
    report("count", batch.count);
    report("slots", format!("{:?}", batch.slots));
    report("key-count", batch.key_count);
    report("watermark", batch.watermark);
    report("processing-time", batch.processing_time);
    for row in rows::iter(&batch.rows) {
        let headers: Vec<_> = rows::headers(row.headers).iter().map(|(name, value)| format!("{name}={}", show(value))).collect();
        let (key, value) = (show(row.key), show_option(row.value));
        report("row", format!("{key} {value} {} {:?} [{}]", row.timestamp, CHANGES[row.change as usize], headers.join(",")));
    }
}

fn emit_echo(batch: &Batch) {
    let mut out = Vec::new();
    for row in rows::iter(&batch.rows) {
        rows::write(&mut out, row.key, row.value, row.timestamp, row.change, row.headers);
    }
    emit(MAIN, batch.count, &out);
}

fn record_echo(batch: &Batch) {
    for row in rows::iter(&batch.rows) {
        emit_record(
            MAIN,
            &StreamRecord {
                key: row.key.to_vec(),
                value: row.value.map(<[u8]>::to_vec),
                timestamp: row.timestamp,
                change: CHANGES[row.change as usize],
                headers: rows::headers(row.headers).into_iter().map(|(name, value)| Header { name, value }).collect(),
            },
        );
    }
}

/// One row of each kind, on both data outputs.
fn emit_kinds() {
    let mut headers = Vec::new();
    rows::header(&mut headers, "trace", b"1");
    rows::header(&mut headers, "trace", b"");
    let mut out = Vec::new();
    rows::write(&mut out, b"k", Some(b"plain"), 1, 0, &[]);
    rows::write(&mut out, b"", Some(b""), i64::MIN, 1, &[]);
    rows::write(&mut out, b"k", None, 2, 2, &[]);
    rows::write(&mut out, b"k", None, 3, 3, &headers);
    rows::write(&mut out, b"k", Some(b"with headers"), 4, 0, &headers);
    emit(MAIN, 5, &out);
    emit(SIDE, 5, &out);
}

/// The same as `emit_kinds`, record by record.
fn record_kinds() {
    let trace = || {
        vec![Header { name: "trace".to_owned(), value: b"1".to_vec() }, Header { name: "trace".to_owned(), value: Vec::new() }]
    };
    let record = |key: &[u8], value: Option<&[u8]>, timestamp: i64, change: ChangeKind, headers: Vec<Header>| StreamRecord {
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
        timestamp,
        change,
        headers,
    };
    for port in [MAIN, SIDE] {
        emit_record(port, &record(b"k", Some(b"plain"), 1, ChangeKind::Insert, vec![]));
        emit_record(port, &record(b"", Some(b""), i64::MIN, ChangeKind::UpdateBefore, vec![]));
        emit_record(port, &record(b"k", None, 2, ChangeKind::UpdateAfter, vec![]));
        emit_record(port, &record(b"k", None, 3, ChangeKind::Retract, trace()));
        emit_record(port, &record(b"k", Some(b"with headers"), 4, ChangeKind::Insert, trace()));
    }
}

/// What three functions put on one port keeps the order of the calls.
fn mixed_order(batch: &Batch) {
    for row in 0..batch.count {
        let mut out = Vec::new();
        rows::write(&mut out, b"k", Some(format!("emitted before {row}").as_bytes()), 0, 0, &[]);
        emit(MAIN, 1, &out);
        forward(MAIN, &[row]);
        let value = Some(format!("recorded after {row}").into_bytes());
        emit_record(MAIN, &StreamRecord { key: b"k".to_vec(), value, timestamp: 0, change: ChangeKind::Insert, headers: vec![] });
    }
}

fn logs() {
    let field = |name: &str, value: &str| Field { name: name.to_owned(), value: value.to_owned() };
    log(Level::Trace, "a trace line", &[]);
    log(Level::Debug, "a debug line", &[field("one", "1")]);
    log(Level::Info, "an info line", &[field("one", "1"), field("two", "zwei \u{e4}")]);
    log(Level::Warn, "a warn line\nwith a second one", &[]);
    log(Level::Error, "an error line", &[]);
    eprintln!("a line to stderr");
    println!("a line to stdout");
}

/// Handles are opened again in every call: the same name is the same metric.
fn metrics(batch: &Batch) {
    Counter::new("rows").add(u64::from(batch.count));
    Counter::new("rows").add(1);
    Gauge::new("last-batch").set(f64::from(batch.count));
    Histogram::new("sizes").observe(&[1.0, 2.5, f64::from(batch.count)]);
    report("metrics", "counted");
}
