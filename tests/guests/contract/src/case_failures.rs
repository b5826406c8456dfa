//! Every way for a record to be bad, each after effects that must leave no trace.

use crate::bindings::tidegate::streaming::logging::{Level, log};
use crate::bindings::tidegate::streaming::metrics::Counter;
use crate::bindings::tidegate::streaming::output::emit;
use crate::bindings::tidegate::streaming::state::{ListState, MapState, ReducingState, ValueState};
use crate::bindings::tidegate::streaming::timers::set_timer;
use crate::bindings::tidegate::streaming::types::{Batch, Failure, RejectedRow, TimeDomain};
use crate::{Answer, MAIN, has_bad, rows};
use std::hint::black_box;

/// What is wrong with a row of the case `mixed`: the word behind `bad ` in its value.
fn wrong_with(value: &[u8]) -> Option<&str> {
    let (_, rest) = std::str::from_utf8(value).ok()?.split_once("bad ")?;
    rest.split([' ', '"']).next()
}

/// Rows that are bad in different ways in one batch. Those to reject leave no trace; of the others the first one ends the call.
fn mixed(batch: &Batch) -> Answer {
    let bad: Vec<(u32, &str)> = (0..)
        .zip(rows::iter(&batch.rows))
        .filter_map(|(row, content)| Some((row, wrong_with(content.value.unwrap_or_default())?)))
        .collect();
    let rejected = |row: u32| RejectedRow { row, reason: format!("row {row} is bad") };
    let reject: Vec<u32> = bad.iter().filter(|(_, wrong)| *wrong == "reject").map(|(row, _)| *row).collect();
    effects(batch, &reject);
    match bad.iter().find(|(_, wrong)| *wrong != "reject") {
        None => Ok(reject.into_iter().map(rejected).collect()),
        Some((row, "bad-row")) => Err(Failure::BadRow(rejected(*row))),
        Some((_, "spin")) => spin(),
        Some((_, "exit")) => std::process::exit(3),
        Some((_, "allocate")) => allocate(),
        Some((row, wrong)) => panic!("row {row} is bad: {wrong}"),
    }
}

pub fn run(case: &str, batch: &Batch) -> Option<Answer> {
    match case {
        "mixed" => return Some(mixed(batch)),
        // The same operator once it is mended.
        "mended" => {
            effects(batch, &[]);
            return Some(Ok(Vec::new()));
        }
        _ => {}
    }
    let known = [
        "reject",
        "reject-unknown-row",
        "reject-twice",
        "bad-row",
        "bad-row-unknown",
        "fatal",
        "transient",
        "trap",
        "unreachable",
        "spin",
        "recurse",
        "allocate",
        "exit",
    ];
    if !known.contains(&case) {
        return None;
    }
    let bad: Vec<u32> = (0..)
        .zip(rows::iter(&batch.rows))
        .filter(|(_, row)| row.value.is_some_and(|value| value.starts_with(b"bad")))
        .map(|(row, _)| row)
        .collect();
    let rejected = |row: u32| RejectedRow { row, reason: format!("row {row} is bad") };
    // A guest that rejects rows leaves no trace of them; everything else writes first and fails then.
    if case.starts_with("reject") {
        effects(batch, &bad);
        return Some(Ok(match case {
            "reject-unknown-row" if !bad.is_empty() => vec![RejectedRow { row: batch.count, reason: "no such row".to_owned() }],
            "reject-twice" => bad.iter().flat_map(|row| [rejected(*row), rejected(*row)]).collect(),
            _ => bad.iter().copied().map(rejected).collect(),
        }));
    }
    effects(batch, &[]);
    if !has_bad(batch) {
        return Some(Ok(Vec::new()));
    }
    Some(Err(match case {
        "bad-row" => Failure::BadRow(rejected(bad[0])),
        "bad-row-unknown" => Failure::BadRow(RejectedRow { row: batch.count, reason: "no such row".to_owned() }),
        "fatal" => Failure::Fatal("the guest says fatal".to_owned()),
        "transient" => Failure::Transient("the guest says transient".to_owned()),
        "trap" => panic!("the guest panics over a bad row"),
        "unreachable" => std::process::abort(),
        "spin" => spin(),
        "recurse" => Failure::Fatal(format!("recursion came back with {}", recurse(1))),
        "allocate" => allocate(),
        "exit" => std::process::exit(3),
        _ => unreachable!(),
    }))
}

/// Writes everywhere for each row, but for those of `except`, and passes the rows on.
fn effects(batch: &Batch, except: &[u32]) {
    let (value, map, list, count) =
        (ValueState::new("value"), MapState::new("map"), ListState::new("list"), ReducingState::new("count"));
    let (mut out, mut emitted) = (Vec::new(), 0);
    for ((number, row), slot) in (0..).zip(rows::iter(&batch.rows)).zip(&batch.slots) {
        if except.contains(&number) {
            continue;
        }
        let bytes = row.value.unwrap_or_default();
        value.put(*slot, bytes);
        map.put(*slot, bytes, b"+");
        list.add(*slot, bytes);
        count.add(*slot, 1);
        let seen = count.get(*slot).unwrap_or_default();
        set_timer(*slot, TimeDomain::EventTime, row.timestamp + 1000, timer_tag(bytes));
        // The number of the row for its key: any trace of a dropped call would show in it.
        let numbered = format!("{} #{seen} of {}", crate::show(bytes), list.length(*slot));
        rows::write(&mut out, row.key, Some(numbered.as_bytes()), row.timestamp, 0, &[]);
        emitted += 1;
    }
    Counter::new("effects").add(u64::from(emitted));
    log(Level::Info, "effects", &[]);
    emit(MAIN, emitted, &out);
}

/// What the row's timer will do, in the case `mixed`: 1 traps, 2 is rejected.
fn timer_tag(value: &[u8]) -> u64 {
    let has = |word: &str| value.windows(word.len()).any(|window| window == word.as_bytes());
    if has("timer-trap") { 1 } else { u64::from(has("timer-reject")) * 2 }
}

pub fn spin() -> ! {
    let mut number = 0_u64;
    loop {
        number = black_box(number.wrapping_add(1));
    }
}

/// Nothing in the frame but a number: the stack of calls must overflow before the guest's own stack in memory does.
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    recurse(black_box(depth + 1)) ^ depth
}

/// Takes memory without touching it: the limit must be met before the deadline is.
fn allocate() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(black_box(Vec::<u8>::with_capacity(1 << 20)));
    }
}
