//! What an operator is handed: [`Context`] when it starts, [`Ctx`] with each record and timer.

use crate::config::ConfigValue;
use crate::declaration::TimeDomain;
use crate::error::StartError;
use crate::output::{Outputs, Port, ValueWriter};
use crate::platform;
use crate::record::{NO_TIMESTAMP, Row, Timestamp};
use crate::timers::TimerLog;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Where an operator runs and how the job configures it.
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub(crate) job: String,
    pub(crate) operator_name: String,
    pub(crate) task_index: u32,
    pub(crate) parallelism: u32,
    pub(crate) options: Vec<(String, String)>,
    /// Names that somebody asked for: an option that nobody knows is most likely a misspelt one.
    pub(crate) asked: RefCell<BTreeSet<String>>,
}

impl Context {
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The operator's name in the job.
    pub fn operator_name(&self) -> &str {
        &self.operator_name
    }

    /// 0 to parallelism - 1. Nothing emitted may depend on it: the job may be rescaled.
    pub fn task_index(&self) -> u32 {
        self.task_index
    }

    pub fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// An option of the job's `config` as text. `#[config]` on a field is the shorter way.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.options.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// An option, read as `T`; what reads wrongly is an error that names the option.
    pub fn config<T: ConfigValue>(&self, name: &str) -> Result<T, StartError> {
        T::from_option(name, self.option(name))
    }

    /// The same with a default.
    pub fn config_or<T: ConfigValue>(&self, name: &str, default: T) -> Result<T, StartError> {
        match self.option(name) {
            None => Ok(default),
            given => T::from_option(name, given),
        }
    }

    pub(crate) fn refuse_unknown_options(&self) -> Result<(), StartError> {
        let asked = self.asked.borrow();
        let unknown: Vec<_> = self.options.iter().map(|(name, _)| name).filter(|name| !asked.contains(*name)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let known = if asked.is_empty() { "it has no options".to_owned() } else { format!("its options are {asked:?}") };
        Err(StartError::new(format!("the operator does not know the options {unknown:?} ({known})")))
    }
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// A timer that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer<'a> {
    pub key: &'a [u8],
    pub domain: TimeDomain,
    /// The time it was set for.
    pub time: Timestamp,
    /// The number it was set with.
    pub tag: u64,
}

/// What outlives a record within a call.
#[derive(Debug)]
pub(crate) struct Call {
    pub outputs: Outputs,
    pub timers: TimerLog,
}

/// How rows are named that are not part of a keyed batch.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// One record, or one timer, at hand. All that is done through it is undone if the record is rejected.
#[derive(Debug)]
pub struct Ctx<'a> {
    pub(crate) call: &'a mut Call,
    pub(crate) key: &'a [u8],
    /// How undo journals tell records of a call apart; from 1 on.
    pub(crate) record: u32,
    pub(crate) slot: u32,
    /// Index in the batch; `None` for a timer.
    pub(crate) row: Option<u32>,
    pub(crate) input: u32,
    pub(crate) timestamp: Timestamp,
    pub(crate) watermark: Timestamp,
    pub(crate) processing_time: Timestamp,
}

impl<'a> Ctx<'a> {
    /// The key that state and timers belong to.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Which input of the operator the record came from.
    #[inline]
    pub fn input(&self) -> u32 {
        self.input
    }

    /// The watermark as it stood before this call: no record older than it is expected any more.
    #[inline]
    pub fn watermark(&self) -> Option<Timestamp> {
        (self.watermark != NO_TIMESTAMP).then_some(self.watermark)
    }

    /// Whether the watermark has passed this time, so that an event-time timer for it would fire at once.
    #[inline]
    pub fn is_past(&self, time: Timestamp) -> bool {
        self.watermark != NO_TIMESTAMP && time <= self.watermark
    }

    /// The host's clock, the same for the whole call and recorded with it.
    #[inline]
    pub fn processing_time(&self) -> Timestamp {
        self.processing_time
    }

    /// Emits a value on the main output, with the key and the timestamp of the record (or the timer) at hand.
    #[inline]
    pub fn emit(&mut self, value: impl AsRef<[u8]>) {
        self.emit_to(Port(0), value);
    }

    /// The same on any output.
    #[inline]
    pub fn emit_to(&mut self, port: Port, value: impl AsRef<[u8]>) {
        self.call.outputs.emit(port, self.record, self.key, self.timestamp, value.as_ref());
    }

    /// Emits a value that the closure writes straight into the output buffer. Its result is handed back, so `?` after a failed
    /// `write!` rejects the record, and what was written goes with it.
    #[inline]
    pub fn emit_with<R>(&mut self, port: Port, write: impl FnOnce(&mut ValueWriter<'_>) -> R) -> R {
        self.call.outputs.emit_with(port, self.record, self.key, self.timestamp, write)
    }

    /// Emits a row with a key, a timestamp, headers or a change kind of its own.
    #[inline]
    pub fn emit_row(&mut self, port: Port, row: &Row<'_>) {
        self.call.outputs.emit_row(port, self.record, row);
    }

    /// Passes the record on as it is, headers and all. The cheapest way out, and it keeps the record's exact origin. Panics for a
    /// timer, which has no record.
    #[inline]
    pub fn forward(&mut self) {
        self.forward_to(Port(0));
    }

    #[inline]
    pub fn forward_to(&mut self, port: Port) {
        let row = self.row.expect("there is no record to forward: a timer is at hand");
        self.call.outputs.forward(port, self.record, row);
    }

    /// Has `on_timer` called for this key at this time. The same (domain, time, tag) is kept once. An event-time timer fires when
    /// the watermark has passed it, and at the end of a bounded input at the latest.
    #[inline]
    pub fn set_timer(&mut self, domain: TimeDomain, time: Timestamp, tag: u64) {
        self.call.timers.push(self.record, self.timer_slot(), domain, time, tag, false);
    }

    /// Takes back a timer that was set with the same arguments for this key. One that is not there is no error.
    #[inline]
    pub fn cancel_timer(&mut self, domain: TimeDomain, time: Timestamp, tag: u64) {
        self.call.timers.push(self.record, self.timer_slot(), domain, time, tag, true);
    }

    fn timer_slot(&self) -> u32 {
        assert!(self.slot != NO_SLOT, "a timer belongs to a key: declare the operator `keyed`");
        self.slot
    }

    /// Writes a line to the operator's log. Not part of the result: a call that is repeated logs again.
    pub fn log(&self, level: Level, message: &str) {
        platform::log(level, message, &[]);
    }

    /// The same with named values.
    pub fn log_with(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        platform::log(level, message, fields);
    }
}
