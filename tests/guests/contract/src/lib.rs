//! Every item of the contract, one case at a time: the option `case` says which one. No SDK, so that what is tested is the
//! boundary and nothing else.
//!
//! A case runs in every batch and reports what it saw as rows on the output `report`: key = what was asked, value = what the host
//! answered, no timestamp. Bytes are shown as text where they are printable ASCII, else as `0x` and hex digits; what is absent as
//! `none`. Cases that misbehave do so only when a row of the batch has a value that begins with `bad`: so a host test can mix good
//! batches and bad ones, and watch bisection. In a timer call they behave.
//!
//! The README lists the cases.

mod case_failures;
mod case_limits;
mod case_output;
mod case_state;
mod case_timers;
mod rows;

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "processor" });
}

use bindings::exports::tidegate::streaming::batch_processing::{DueTimers, Guest as BatchProcessing};
use bindings::exports::tidegate::streaming::lifecycle::{
    Descriptor, Guest as Lifecycle, StateDeclaration, StateKind, TaskContext, TimeToLive,
};
use bindings::tidegate::streaming::types::{Batch, Failure, RejectedRow, TimeDomain};
use bindings::tidegate::streaming::{output, state};
use std::cell::RefCell;
use std::fmt::Display;

/// Data, as cases pass it on.
pub const MAIN: u32 = 0;
pub const SIDE: u32 = 1;
pub const REPORT: u32 = 2;

pub type Answer = Result<Vec<RejectedRow>, Failure>;

/// What `start` was told, and how often this instance was called since.
#[derive(Default)]
struct Started {
    case: String,
    context: String,
    calls: u64,
}

thread_local! {
    static STARTED: RefCell<Started> = RefCell::default();
    static REPORTED: RefCell<(u32, Vec<u8>)> = RefCell::default();
}

/// Adds a row to the report of this call.
pub fn report(what: &str, answer: impl Display) {
    REPORTED.with_borrow_mut(|(count, rows)| {
        *count += 1;
        rows::write(rows, what.as_bytes(), Some(answer.to_string().as_bytes()), i64::MIN, 0, &[]);
    });
}

pub fn show(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

pub fn show_option(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "none".to_owned(), show)
}

/// `a|bc||d`
pub fn show_column(column: &bindings::tidegate::streaming::types::BytesColumn) -> String {
    let strings: Vec<_> = column.offsets.windows(2).map(|pair| show(&column.data[pair[0] as usize..pair[1] as usize])).collect();
    strings.join("|")
}

pub fn has_bad(batch: &Batch) -> bool {
    rows::iter(&batch.rows).any(|row| row.value.is_some_and(|value| value.starts_with(b"bad")))
}

fn send_report() {
    REPORTED.with_borrow_mut(|(count, rows)| {
        if *count > 0 {
            output::emit(REPORT, *count, rows);
        }
        *count = 0;
        rows.clear();
    });
}

struct Contract;

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

fn with_ttl(domain: TimeDomain, declaration: StateDeclaration) -> StateDeclaration {
    StateDeclaration { ttl: Some(TimeToLive { ms: 1000, domain }), ..declaration }
}

impl Lifecycle for Contract {
    fn describe() -> Descriptor {
        let mut states = vec![
            declare("value", StateKind::ValueState, "bytes", None),
            declare("fixed", StateKind::ValueState, "u64", Some(8)),
            declare("map", StateKind::MapState, "bytes", None),
            declare("list", StateKind::ListState, "bytes", None),
            with_ttl(TimeDomain::EventTime, declare("ttl-event", StateKind::ValueState, "bytes", None)),
            with_ttl(TimeDomain::ProcessingTime, declare("ttl-processing", StateKind::ValueState, "bytes", None)),
            with_ttl(TimeDomain::EventTime, declare("ttl-map", StateKind::MapState, "bytes", None)),
        ];
        for (name, reducer, value_type) in case_state::REDUCERS {
            states.push(declare(name, StateKind::ReducingState(reducer), value_type, Some(8)));
        }
        Descriptor {
            name: "contract".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            inputs: 1,
            keyed: true,
            outputs: ["main", "side", "report"].map(str::to_owned).to_vec(),
            states,
        }
    }

    fn start(context: TaskContext) -> Result<(), Failure> {
        let option = |name: &str| context.options.iter().find(|option| option.name == name).map(|option| option.value.clone());
        let Some(case) = option("case") else { return Err(Failure::Fatal("the option \"case\" is missing".to_owned())) };
        match case.as_str() {
            "start-fatal" => return Err(Failure::Fatal("start says fatal".to_owned())),
            "start-transient" => return Err(Failure::Transient("start says transient".to_owned())),
            "start-trap" => panic!("start traps"),
            "start-spin" => case_failures::spin(),
            "start-undeclared" => drop(state::ValueState::new("undeclared")),
            "start-emit" => output::emit(MAIN, 0, &[]),
            _ => {}
        }
        let options: Vec<_> = context.options.iter().map(|option| format!("{}={}", option.name, option.value)).collect();
        let text = format!(
            "job={} operator={} task={} parallelism={} options={}",
            context.job,
            context.operator_name,
            context.task_index,
            context.parallelism,
            options.join(",")
        );
        STARTED.set(Started { case, context: text, calls: 0 });
        Ok(())
    }
}

impl BatchProcessing for Contract {
    fn process_batch(batch: Batch) -> Answer {
        let (case, context, calls) = STARTED.with_borrow_mut(|started| {
            started.calls += 1;
            (started.case.clone(), started.context.clone(), started.calls)
        });
        // What a failed call left behind in this instance.
        REPORTED.with_borrow_mut(|(count, rows)| {
            *count = 0;
            rows.clear();
        });
        let answer = match case.as_str() {
            "context" => {
                report("context", context);
                Ok(Vec::new())
            }
            "calls" => {
                report("calls", calls);
                Ok(Vec::new())
            }
            "batch" => {
                case_output::batch(&batch);
                Ok(Vec::new())
            }
            name => case_state::run(name, &batch)
                .or_else(|| case_timers::run(name, &batch))
                .or_else(|| case_output::run(name, &batch))
                .or_else(|| case_limits::run(name, &batch))
                .or_else(|| case_failures::run(name, &batch))
                .unwrap_or_else(|| Err(Failure::Fatal(format!("there is no case {name:?}")))),
        };
        if answer.is_ok() {
            send_report();
        }
        answer
    }

    fn on_timers(timers: DueTimers) -> Answer {
        let case = STARTED.with_borrow(|started| started.case.clone());
        let answer = case_timers::due(&case, &timers);
        if answer.is_ok() {
            send_report();
        }
        answer
    }
}

bindings::export!(Contract with_types_in bindings);
