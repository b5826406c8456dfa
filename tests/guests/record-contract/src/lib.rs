//! The contract one record a call: world `record-processor`, keyed, point access. The option `case` says what is done with each
//! record; the README lists the cases.
//!
//! Reports are records on `report` with the record's key. Cases that misbehave do so for values that begin with `bad`, after effects.

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "record-processor" });
}

use bindings::exports::tidegate::streaming::lifecycle::{
    Descriptor, Guest as Lifecycle, StateDeclaration, StateKind, TaskContext,
};
use bindings::exports::tidegate::streaming::record_processing::{Guest as RecordProcessing, Moment};
use bindings::tidegate::streaming::logging::{Level, log};
use bindings::tidegate::streaming::metrics::Counter;
use bindings::tidegate::streaming::output::{emit, emit_record, forward};
use bindings::tidegate::streaming::state::{ListState, MapState, Reducer, ReducingState, ValueState};
use bindings::tidegate::streaming::timers::{cancel_timer, set_timer};
use bindings::tidegate::streaming::types::{ChangeKind, Failure, RejectedRow, StreamRecord, TimeDomain};
use std::cell::RefCell;
use std::hint::black_box;

const MAIN: u32 = 0;
const REPORT: u32 = 1;

/// The record's key is slot 0.
const KEY: u32 = 0;

/// Timers are set for so long after the record's time, or after the call's.
const DELAY_MS: i64 = 1000;

thread_local! {
    static CASE: RefCell<String> = RefCell::default();
}

struct RecordContract;

fn declare(name: &str, kind: StateKind, value_type: &str, size: Option<u32>) -> StateDeclaration {
    StateDeclaration {
        name: name.to_owned(),
        kind,
        value_type: value_type.to_owned(),
        map_key_type: matches!(kind, StateKind::MapState).then(|| "bytes".to_owned()),
        schema_version: 1,
        value_size: size,
        ttl: None,
    }
}

impl Lifecycle for RecordContract {
    fn describe() -> Descriptor {
        Descriptor {
            name: "record-contract".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            inputs: 1,
            keyed: true,
            outputs: vec!["main".to_owned(), "report".to_owned()],
            states: vec![
                declare("count", StateKind::ValueState, "u64", Some(8)),
                declare("map", StateKind::MapState, "bytes", None),
                declare("list", StateKind::ListState, "bytes", None),
                declare("sum", StateKind::ReducingState(Reducer::SumS64), "s64", Some(8)),
            ],
        }
    }

    fn start(context: TaskContext) -> Result<(), Failure> {
        match context.options.iter().find(|option| option.name == "case") {
            Some(option) => {
                CASE.set(option.value.clone());
                Ok(())
            }
            None => Err(Failure::Fatal("the option \"case\" is missing".to_owned())),
        }
    }
}

fn report(item: &StreamRecord, text: &str) {
    let value = Some(text.as_bytes().to_vec());
    let (key, timestamp) = (item.key.clone(), item.timestamp);
    emit_record(REPORT, &StreamRecord { key, value, timestamp, change: ChangeKind::Insert, headers: Vec::new() });
}

/// Adds one to the key's count, and gives it.
fn count() -> u64 {
    let state = ValueState::new("count");
    let before = state.get(KEY).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
    state.put(KEY, &(before + 1).to_le_bytes());
    before + 1
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl RecordProcessing for RecordContract {
    fn process(input: u32, item: StreamRecord, now: Moment) -> Result<(), Failure> {
        let case = CASE.with_borrow(Clone::clone);
        let value = item.value.clone().unwrap_or_default();
        let is_bad = value.starts_with(b"bad");
        match case.as_str() {
            "count" => report(&item, &count().to_string()),
            "echo" => emit_record(MAIN, &item),
            "forward" => forward(MAIN, &[0]),
            // Rows can be emitted from this world as well: this one is (key "k", value "v", timestamp 0).
            "emit" => emit(MAIN, 1, b"\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0kv"),
            "record" => {
                let headers: Vec<_> =
                    item.headers.iter().map(|header| format!("{}={}", header.name, text(&header.value))).collect();
                let value = item.value.as_deref().map_or("none".to_owned(), text);
                let (watermark, clock) = (now.watermark, now.processing_time);
                let time = item.timestamp;
                let line = format!("{input} {value} {time} {:?} [{}] {watermark} {clock}", item.change, headers.join(","));
                report(&item, &line);
            }
            "state" => {
                let (map, list, sum) = (MapState::new("map"), ListState::new("list"), ReducingState::new("sum"));
                map.put(KEY, &value, b"+");
                list.add(KEY, &value);
                sum.add(KEY, value.len() as i64);
                let entries = map.scan(KEY, None, None, 100).len();
                report(&item, &format!("{} {entries} {} {:?}", count(), list.length(KEY), sum.get(KEY)));
            }
            "timers-event" => set_timer(KEY, TimeDomain::EventTime, item.timestamp + DELAY_MS, 1),
            "timers-processing" => set_timer(KEY, TimeDomain::ProcessingTime, now.processing_time + DELAY_MS, 2),
            "timers-cancel" => {
                set_timer(KEY, TimeDomain::EventTime, item.timestamp + DELAY_MS, 3);
                cancel_timer(KEY, TimeDomain::EventTime, item.timestamp + DELAY_MS, 3);
            }
            "bad-row" | "fatal" | "transient" | "trap" | "spin" => {
                report(&item, &count().to_string());
                Counter::new("processed").add(1);
                log(Level::Info, "processed", &[]);
                if is_bad {
                    return Err(fail(&case));
                }
            }
            // Rows that are bad in different ways, as the word behind `bad ` says.
            "mixed" => {
                report(&item, &format!("{} #{}", text(&value), count()));
                let value = text(&value);
                match value.split_once("bad ").and_then(|(_, rest)| rest.split([' ', '"']).next()) {
                    None => {}
                    Some("reject" | "bad-row") => return Err(fail("bad-row")),
                    Some(wrong) => return Err(fail(if wrong == "spin" { "spin" } else { "trap" })),
                }
            }
            "forward-bad-row" if is_bad => forward(MAIN, &[1]),
            "bad-slot" if is_bad => ValueState::new("count").clear(1),
            "forward-bad-row" | "bad-slot" => report(&item, "good"),
            _ => return Err(Failure::Fatal(format!("there is no case {case:?}"))),
        }
        Ok(())
    }

    fn on_timer(key: Vec<u8>, domain: TimeDomain, time: i64, tag: u64, now: Moment) -> Result<(), Failure> {
        let item = StreamRecord { key, value: None, timestamp: time, change: ChangeKind::Insert, headers: Vec::new() };
        report(&item, &format!("{domain:?} {time} {tag} {} {} (number {})", now.watermark, now.processing_time, count()));
        Ok(())
    }
}

fn fail(case: &str) -> Failure {
    match case {
        "bad-row" => Failure::BadRow(RejectedRow { row: 0, reason: "the record is bad".to_owned() }),
        "fatal" => Failure::Fatal("the guest says fatal".to_owned()),
        "transient" => Failure::Transient("the guest says transient".to_owned()),
        "trap" => panic!("the guest panics over a bad record"),
        _ => {
            let mut number = 0_u64;
            loop {
                number = black_box(number.wrapping_add(1));
            }
        }
    }
}

bindings::export!(RecordContract with_types_in bindings);
