//! An operator of a chain: calls into its guest, and what becomes of records that can't be processed.
//!
//! Invariants:
//! * all effects of a call count, or none of them;
//! * one bad record costs itself and nothing else of its batch: the guest names it, or it is found by halving; after repeated trouble
//!   in one batch its records are tried one at a time;
//! * what is taken out of the stream is reported as a [`Culprit`], never dropped in silence.

use super::TaskError;
use super::activity::Activity;
use crate::connector::dead_letter::{DeadLetterKind, TimerName};
use crate::state::CallTime;
use crate::system;
use crate::wasm::bindings::batch_processing::DueTimers;
use crate::wasm::env::OperatorEnv;
use crate::wasm::instance::{CallError, Death, WasmOperator, cut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::job_graph::spec::OnError;
use tidegate_core::limits::TIMERS_PER_DELIVERY_MAX;
use tidegate_core::row::{self, NO_TIMESTAMP, Origin, Origins, Rows, Timestamp};
use tidegate_core::state_schema::TimeDomain;

/// Failed calls over one batch after which its rows are tried one at a time.
const TROUBLE_MAX: u32 = 8;

/// An operator that is part of the host's binary: what a guest is compared with in the benches.
pub trait NativeOperator: Send {
    /// State and outputs of the call are in `env`; rows of the batch in `rows`, their slots in the state.
    fn process_batch(&mut self, input: u32, rows: &Rows, now: CallTime, env: &mut OperatorEnv) -> Result<(), String>;
}

pub enum Logic {
    Wasm(Box<WasmOperator>),
    Native { operator: Box<dyn NativeOperator>, env: Box<OperatorEnv> },
}

impl Logic {
    pub fn env(&mut self) -> &mut OperatorEnv {
        match self {
            Self::Wasm(operator) => operator.env(),
            Self::Native { env, .. } => env,
        }
    }
}

/// Something that was taken out of the stream, with all that is known about why.
#[derive(Debug, Clone)]
pub struct Culprit {
    pub kind: DeadLetterKind,
    pub reason: String,
    /// The row, or for a timer a row with the timer's key and time and no value.
    pub row: Vec<u8>,
    pub origin: Origin,
    /// Frames of the guest, innermost first, where it trapped.
    pub backtrace: Vec<String>,
    /// The input of the operator that it came by.
    pub input: u32,
    /// Set where it was a timer and not a row.
    pub timer: Option<TimerName>,
    pub processing_time: i64,
    pub watermark: Timestamp,
    /// Number of the guest's instance in this task, and of the call among those of all its instances: 0 where no guest was asked.
    pub instance: u64,
    pub call: u64,
}

impl Culprit {
    /// A row that no guest was asked about.
    pub fn unasked(kind: DeadLetterKind, reason: String, row: Vec<u8>, origin: Origin) -> Self {
        Self {
            kind,
            reason,
            row,
            origin,
            backtrace: Vec::new(),
            input: 0,
            timer: None,
            processing_time: super::processing_time(),
            watermark: NO_TIMESTAMP,
            instance: 0,
            call: 0,
        }
    }
}

impl From<Death> for DeadLetterKind {
    fn from(how: Death) -> Self {
        match how {
            Death::Trap => Self::Trap,
            Death::Deadline => Self::Deadline,
            Death::Violation => Self::Violation,
        }
    }
}

pub struct OperatorNode {
    pub name: String,
    pub on_error: OnError,
    pub logic: Logic,
    /// Segments to put into the state before the first call, by path, oldest first.
    pub restore: Vec<(String, bytes::Bytes)>,
    pub metrics: Arc<crate::metrics::TaskMetrics>,
    pub watermark: Timestamp,
    pub activity: Arc<Activity>,
    /// Its place in the chain.
    pub number: u32,
}

/// What one batch, or one round of timers, came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub outputs: Vec<(u32, Rows)>,
    pub culprits: Vec<Culprit>,
    /// The last culprit ends the task: `on_error = "fail"`.
    pub failed: bool,
}

impl OperatorNode {
    pub fn process(&mut self, input: u32, rows: Rows, outcome: &mut Outcome) -> Result<(), TaskError> {
        let now = CallTime { watermark: self.watermark, processing_time: super::processing_time() };
        let begun = (Instant::now(), system::thread_cpu_time());
        let (count, bytes) = (u64::from(rows.count), rows.bytes.len() as u64);
        let done = match &self.logic {
            Logic::Wasm(guest) if !guest.takes_batches() => self.one_by_one(input, &rows, now, outcome),
            _ => self.batch(input, rows, now, outcome),
        };
        self.metrics.records_in.add(count);
        self.metrics.bytes_in.add(bytes);
        self.meter(begun);
        done
    }

    /// Once a batch: the CPU clock is a system call.
    fn meter(&mut self, (begun, cpu): (Instant, Duration)) {
        let metrics = &self.metrics;
        metrics.guest_us.add(begun.elapsed().as_micros() as u64);
        metrics.guest_cpu_us.add((system::thread_cpu_time() - cpu).as_micros() as u64);
        if let Logic::Wasm(guest) = &self.logic {
            metrics.guest_memory.set(guest.memory_bytes() as u64);
            metrics.guest_memory_peak.raise(guest.memory_peak_bytes() as u64);
        }
    }

    fn batch(&mut self, input: u32, rows: Rows, now: CallTime, outcome: &mut Outcome) -> Result<(), TaskError> {
        let mut trouble = 0;
        // Pieces of the batch that are still to be processed, the next one last.
        let mut pieces = vec![rows];
        while let Some(mut rows) = pieces.pop() {
            match self.call(input, &mut rows, now) {
                Ok(rejected) => {
                    let outputs = &mut outcome.outputs;
                    self.logic.env().outputs.take(&rows, |port, rows| outputs.push((port, rows)));
                    if !rejected.is_empty() {
                        self.reject(input, &rows, rejected, now, outcome)?;
                    }
                }
                Err(CallError::BadRow { row, reason }) if row < rows.count => {
                    trouble += 1;
                    let (before, culprit, after) = cut_out(&rows, row);
                    self.take_out(DeadLetterKind::BadRow, reason, Bad::Row(input, culprit), now, outcome)?;
                    // The guest asked for the same call without the row: both sides together, in their order.
                    let rest = join(before, after);
                    if trouble > TROUBLE_MAX {
                        pieces.extend(singles(&rest).rev())
                    } else if !rest.is_empty() {
                        pieces.push(rest)
                    }
                }
                Err(CallError::BadRow { row, reason }) => {
                    let message = format!("bad-row named row {row} of a batch of {}: {reason}", rows.count);
                    trouble += 1;
                    self.narrow(input, rows, DeadLetterKind::Violation, message, trouble, &mut pieces, now, outcome)?;
                }
                Err(CallError::Died { how, message }) => {
                    self.metrics.traps.add(1);
                    trouble += 1;
                    self.narrow(input, rows, how.into(), message, trouble, &mut pieces, now, outcome)?;
                }
                Err(error) => return Err(self.gave_up(error)),
            }
        }
        Ok(())
    }

    /// A call over `rows` died and nobody said which row it was.
    #[allow(clippy::too_many_arguments)]
    fn narrow(
        &mut self,
        input: u32,
        rows: Rows,
        kind: DeadLetterKind,
        message: String,
        trouble: u32,
        pieces: &mut Vec<Rows>,
        now: CallTime,
        outcome: &mut Outcome,
    ) -> Result<(), TaskError> {
        if rows.count <= 1 {
            let origin = rows.origins.get(0);
            return self.take_out(kind, message, Bad::Row(input, (rows.bytes, origin)), now, outcome);
        }
        if trouble > TROUBLE_MAX {
            pieces.extend(singles(&rows).rev());
        } else {
            let (first, second) = halve(&rows);
            pieces.push(second);
            pieces.push(first);
        }
        Ok(())
    }

    fn call(&mut self, input: u32, rows: &mut Rows, now: CallTime) -> Result<Vec<crate::wasm::instance::RejectedRow>, CallError> {
        self.metrics.guest_calls.add(1);
        let before = self.activity.guest_call(self.number, rows.count);
        let answer = self.call_logic(input, rows, now);
        self.activity.back_to(before);
        answer
    }

    fn call_logic(
        &mut self,
        input: u32,
        rows: &mut Rows,
        now: CallTime,
    ) -> Result<Vec<crate::wasm::instance::RejectedRow>, CallError> {
        match &mut self.logic {
            Logic::Wasm(guest) => {
                // A guest that can't even start is no record's fault.
                guest.start().map_err(start_failed)?;
                guest.call_batch(input, rows, now)
            }
            Logic::Native { operator, env } => {
                env.begin(crate::wasm::env::Phase::Batch, rows.count);
                if let Some(state) = &mut env.state {
                    state.begin_batch(&rows.bytes, rows.count, now);
                }
                operator.process_batch(input, rows, now, env).map_err(|reason| {
                    env.rollback();
                    CallError::Fatal(reason)
                })?;
                env.commit();
                Ok(Vec::new())
            }
        }
    }

    fn one_by_one(&mut self, input: u32, rows: &Rows, now: CallTime, outcome: &mut Outcome) -> Result<(), TaskError> {
        for single in singles(rows) {
            let Logic::Wasm(guest) = &mut self.logic else { unreachable!("BUG: only guests take one record at a time") };
            self.metrics.guest_calls.add(1);
            let (row, _) = row::first(&single.bytes);
            let before = self.activity.guest_call(self.number, 1);
            let called = match guest.start().map_err(start_failed) {
                Ok(()) => guest.call_record(input, &row, now),
                Err(error) => Err(error),
            };
            self.activity.back_to(before);
            match called {
                Ok(()) => {
                    let outputs = &mut outcome.outputs;
                    self.logic.env().outputs.take(&single, |port, rows| append(outputs, port, rows));
                }
                Err(CallError::BadRow { reason, .. }) => {
                    let bad = Bad::Row(input, (single.bytes, single.origins.get(0)));
                    self.take_out(DeadLetterKind::BadRow, reason, bad, now, outcome)?;
                }
                Err(CallError::Died { how, message }) => {
                    self.metrics.traps.add(1);
                    let bad = Bad::Row(input, (single.bytes, single.origins.get(0)));
                    self.take_out(how.into(), message, bad, now, outcome)?;
                }
                Err(error) => return Err(self.gave_up(error)),
            }
        }
        Ok(())
    }

    fn reject(
        &mut self,
        input: u32,
        rows: &Rows,
        rejected: Vec<crate::wasm::instance::RejectedRow>,
        now: CallTime,
        outcome: &mut Outcome,
    ) -> Result<(), TaskError> {
        let mut raw = row::raw(&rows.bytes).enumerate();
        for bad in rejected {
            let (index, (_, bytes)) = raw.find(|(i, _)| *i == bad.row as usize).expect("BUG: rejected rows were checked");
            let origin = rows.origins.get(index);
            self.take_out(DeadLetterKind::Rejected, bad.reason, Bad::Row(input, (bytes.to_vec(), origin)), now, outcome)?;
        }
        Ok(())
    }

    fn take_out(
        &mut self,
        kind: DeadLetterKind,
        message: String,
        bad: Bad,
        now: CallTime,
        outcome: &mut Outcome,
    ) -> Result<(), TaskError> {
        self.metrics.rejected.add(1);
        let (reason, backtrace) = CallError::split_backtrace(&message);
        let reason = cut(reason.to_owned());
        let failed = (self.on_error == OnError::Fail).then(|| {
            let name = &self.name;
            TaskError::Fatal(format!(
                "operator {name} could not process a record and its policy is on_error = \"fail\": {reason}"
            ))
        });
        let (instance, call) = match &self.logic {
            Logic::Wasm(guest) => guest.served(),
            Logic::Native { .. } => (0, 0),
        };
        let (input, timer, (row, origin)) = match bad {
            Bad::Row(input, row) => (input, None, row),
            Bad::Timer(timer, row) => (0, Some(timer), (row, Origin::UNKNOWN)),
        };
        let CallTime { watermark, processing_time } = now;
        outcome.culprits.push(Culprit {
            kind,
            reason,
            row,
            origin,
            backtrace,
            input,
            timer,
            processing_time,
            watermark,
            instance,
            call,
        });
        // Whoever reports the failure names the culprit.
        outcome.failed = failed.is_some();
        failed.map_or(Ok(()), Err)
    }

    fn gave_up(&self, error: CallError) -> TaskError {
        let message = format!("operator {}: {error}", self.name);
        match error {
            CallError::Transient(_) => TaskError::Restart(message),
            CallError::Stopped => TaskError::Closed,
            _ => TaskError::Fatal(message),
        }
    }

    /// Fires one round of timers that are due. False: there were none.
    pub fn fire_timers(&mut self, domain: TimeDomain, outcome: &mut Outcome) -> Result<bool, TaskError> {
        let now = CallTime { watermark: self.watermark, processing_time: super::processing_time() };
        let up_to = match domain {
            TimeDomain::EventTime => now.watermark,
            TimeDomain::ProcessingTime => now.processing_time,
        };
        let Logic::Wasm(guest) = &mut self.logic else { return Ok(false) };
        let Some(state) = &guest.env().state else { return Ok(false) };
        if state.next_timer(domain).is_none_or(|time| time > up_to) {
            return Ok(false);
        }
        let begun = (Instant::now(), system::thread_cpu_time());
        let fired = self.fire_due(domain, up_to, now, outcome);
        self.meter(begun);
        fired
    }

    fn fire_due(&mut self, domain: TimeDomain, up_to: i64, now: CallTime, outcome: &mut Outcome) -> Result<bool, TaskError> {
        let Logic::Wasm(guest) = &mut self.logic else { unreachable!("BUG: only guests have timers") };
        let mut at_once = if guest.takes_batches() { TIMERS_PER_DELIVERY_MAX } else { 1 };
        let mut fired = false;
        loop {
            let Logic::Wasm(guest) = &mut self.logic else { unreachable!("BUG: the logic changed") };
            let state = guest.env().state.as_mut().expect("BUG: state was there");
            if !state.begin_timers(domain, up_to, at_once, now) {
                return Ok(fired);
            }
            fired = true;
            self.metrics.guest_calls.add(1);
            let timers = guest.due_timers(domain, now);
            let due = timers.slots.len();
            let before = self.activity.guest_call(self.number, due as u32);
            let called = match guest.start().map_err(start_failed) {
                Ok(()) => guest.call_timers(now, &timers),
                Err(error) => Err(error),
            };
            self.activity.back_to(before);
            let bad = match called {
                Ok(rejected) => {
                    let outputs = &mut outcome.outputs;
                    guest.env().outputs.take(&Rows::default(), |port, rows| outputs.push((port, rows)));
                    for bad in rejected {
                        let timer = bad_timer(&timers, domain, bad.row as usize);
                        self.take_out(DeadLetterKind::Rejected, bad.reason, timer, now, outcome)?;
                    }
                    return Ok(true);
                }
                Err(CallError::BadRow { row, reason }) if due == 1 => (DeadLetterKind::BadRow, format!("timer {row}: {reason}")),
                Err(CallError::Died { how, message }) if due == 1 => (how.into(), message),
                // The first ones alone, until the culprit is the only one of a call.
                Err(CallError::BadRow { .. } | CallError::Died { .. }) => {
                    self.metrics.traps.add(1);
                    at_once = due / 2;
                    continue;
                }
                Err(error) => return Err(self.gave_up(error)),
            };
            // Laid ready again, and counted as fired without asking the guest.
            let state = self.logic.env().state.as_mut().expect("BUG: state was there");
            assert!(state.begin_timers(domain, up_to, 1, now), "BUG: the timer was not put back");
            state.commit();
            self.take_out(bad.0, bad.1, bad_timer(&timers, domain, 0), now, outcome)?;
            return Ok(true);
        }
    }
}

fn start_failed(error: CallError) -> CallError {
    match error {
        CallError::Died { message, .. } => CallError::Fatal(format!("`start` failed: {message}")),
        other => other,
    }
}

/// What is taken out.
enum Bad {
    /// With its input.
    Row(u32, (Vec<u8>, Origin)),
    /// As a row.
    Timer(TimerName, Vec<u8>),
}

fn bad_timer(timers: &DueTimers, domain: TimeDomain, index: usize) -> Bad {
    Bad::Timer(TimerName { domain, time: timers.times[index], tag: timers.tags[index] }, timer_row(timers, index))
}

/// A due timer as a row: its key, its time, and its tag as the value.
fn timer_row(timers: &DueTimers, index: usize) -> Vec<u8> {
    let slot = timers.slots[index] as usize;
    let key = &timers.keys.data[timers.keys.offsets[slot] as usize..timers.keys.offsets[slot + 1] as usize];
    let mut bytes = Vec::new();
    row::Row::new(key, timers.tags[index].to_string().as_bytes(), timers.times[index]).write(&mut bytes);
    bytes
}

fn part(rows: &Rows, first: usize, bytes: &[u8], count: u32) -> Rows {
    let origins = match &rows.origins {
        Origins::Run(origin) => Origins::Run(Origin(origin.0 + first as u64)),
        Origins::Same(origin) => Origins::Same(*origin),
        Origins::Each(each) => Origins::Each(each[first..first + count as usize].to_vec()),
    };
    Rows { bytes: bytes.to_vec(), count, origins }
}

fn offset_of(rows: &Rows, row: u32) -> usize {
    row::raw(&rows.bytes).take(row as usize).map(|(_, bytes)| bytes.len()).sum()
}

fn halve(rows: &Rows) -> (Rows, Rows) {
    let middle = rows.count / 2;
    let (first, second) = rows.bytes.split_at(offset_of(rows, middle));
    (part(rows, 0, first, middle), part(rows, middle as usize, second, rows.count - middle))
}

fn cut_out(rows: &Rows, at: u32) -> (Rows, (Vec<u8>, Origin), Rows) {
    let (before, rest) = rows.bytes.split_at(offset_of(rows, at));
    let (_, len) = row::first(rest);
    let (culprit, after) = rest.split_at(len);
    let origin = rows.origins.get(at as usize);
    (part(rows, 0, before, at), (culprit.to_vec(), origin), part(rows, at as usize + 1, after, rows.count - at - 1))
}

fn join(first: Rows, second: Rows) -> Rows {
    let mut outputs = Vec::new();
    append(&mut outputs, 0, first);
    append(&mut outputs, 0, second);
    outputs.pop().map(|(_, rows)| rows).unwrap_or_default()
}

fn singles(rows: &Rows) -> impl DoubleEndedIterator<Item = Rows> {
    let singles: Vec<Rows> = row::raw(&rows.bytes).enumerate().map(|(i, (_, bytes))| part(rows, i, bytes, 1)).collect();
    singles.into_iter()
}

/// Adds rows to the last batch of the same port, so that one record a call does not become one batch a record.
fn append(outputs: &mut Vec<(u32, Rows)>, port: u32, rows: Rows) {
    if rows.is_empty() {
        return;
    }
    let Some((_, last)) = outputs.iter_mut().find(|(to, _)| *to == port) else { return outputs.push((port, rows)) };
    let mut origins = match std::mem::replace(&mut last.origins, Origins::Same(Origin::UNKNOWN)) {
        Origins::Each(each) => each,
        other => (0..last.count as usize).map(|i| other.get(i)).collect(),
    };
    origins.extend((0..rows.count as usize).map(|i| rows.origins.get(i)));
    last.origins = Origins::Each(origins);
    last.bytes.extend_from_slice(&rows.bytes);
    last.count += rows.count;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::row::Row;

    fn rows(n: u64) -> Rows {
        let mut rows = Rows { origins: Origins::Run(Origin::new(1, 10)), ..Rows::default() };
        for i in 0..n {
            rows.push(&Row::new(b"k", &i.to_le_bytes(), i as i64));
        }
        rows
    }

    fn values(rows: &Rows) -> Vec<i64> {
        rows.iter().map(|row| row.timestamp).collect()
    }

    fn positions(rows: &Rows) -> Vec<u64> {
        (0..rows.count as usize).map(|i| rows.origins.get(i).position()).collect()
    }

    #[test]
    fn halves_keep_order_and_origins() {
        let (first, second) = halve(&rows(5));
        assert_eq!((values(&first), values(&second)), (vec![0, 1], vec![2, 3, 4]));
        assert_eq!(positions(&second), [12, 13, 14]);
    }

    #[test]
    fn a_row_is_cut_out_of_the_middle() {
        let (before, (_, origin), after) = cut_out(&rows(4), 1);
        assert_eq!((values(&before), origin.position(), values(&after)), (vec![0], 11, vec![2, 3]));
        let rest = join(before, after);
        assert_eq!((values(&rest), positions(&rest)), (vec![0, 2, 3], vec![10, 12, 13]));
    }

    #[test]
    fn singles_come_in_order() {
        let all: Vec<_> = singles(&rows(3)).map(|single| (values(&single)[0], positions(&single)[0])).collect();
        assert_eq!(all, [(0, 10), (1, 11), (2, 12)]);
    }
}
