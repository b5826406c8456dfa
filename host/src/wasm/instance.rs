//! One guest at work: an instance, its store, and calls into it.
//!
//! ```text
//!   call_batch ─► env into the store ─► deadline set ─► export called ─► env out again ─► commit, or rollback and a new instance
//! ```
//!
//! Invariants:
//! * after every call the environment is back with the operator, committed or rolled back, never in between;
//! * an instance that trapped is dropped and never called again;
//! * an instance holds nothing that must survive: `start` is all it needs to go on in the middle of a stream.

use super::bindings::{batch_processing, lifecycle, record_processing, types};
use super::engine::WasmEngine;
use super::env::{OperatorEnv, OperatorMeta, Phase, Violation, record_of, violation};
use super::wasi::{self, WasiLimits, WasiState, WasiTrap, WasiView};
use crate::api::{LogLevel, LogRecord};
use crate::state::CallTime;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidegate_core::limits::{
    BACKTRACE_FRAME_BYTES_MAX, BACKTRACE_FRAMES_MAX, CORE_INSTANCES_MAX, DESCRIPTOR_BYTES_MAX, MEMORIES_MAX, REASON_BYTES_MAX,
    START_DEADLINE_MS_MIN, TABLE_ELEMENTS_MAX, TABLES_MAX,
};
use tidegate_core::row::{Row, Rows};
use tidegate_core::state_schema::TimeDomain;
use wasmtime::component::{Component, InstancePre};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline, WasmBacktrace};

/// The operator's name while a component is looked into.
pub const DESCRIBE: &str = "(describe)";

/// What a store holds beside the instance.
pub struct GuestStore {
    pub(super) env: Option<Box<OperatorEnv>>,
    pub(super) handles: usize,
    meta: Arc<OperatorMeta>,
    wasi: WasiState,
    memory: MemoryLimit,
    /// Of the call.
    deadline_ms: u64,
    /// Of the call's time, behind the next look.
    ticks_left: u64,
}

impl GuestStore {
    pub fn new(meta: Arc<OperatorMeta>) -> Self {
        let memory = MemoryLimit { used: 0, limit: meta.limits.memory_bytes_max, elements: 0 };
        let wasi = WasiState::new(WasiLimits::from(&meta.limits));
        Self { env: None, handles: 0, meta, wasi, memory, deadline_ms: 0, ticks_left: 0 }
    }

    pub(super) fn log_line_bytes_max(&self) -> usize {
        self.meta.limits.log_line_bytes_max
    }

    /// A line for the operator's log, cut and counted.
    pub(super) fn guest_log(&mut self, level: tracing::Level, line: &str) {
        let limits = &self.meta.limits;
        let end = line.floor_char_boundary(limits.log_line_bytes_max);
        let (line, cut) = (&line[..end], if end < line.len() { "… (cut)" } else { "" });
        if let Some(env) = &mut self.env {
            if env.log_lines >= limits.log_lines_per_call_max {
                env.log_lines_dropped += 1;
                return;
            }
            env.log_lines += 1;
            if !env.log_rate.admits(line.len(), limits) {
                env.log_lines_dropped += 1;
                return;
            }
        }
        let OperatorMeta { job, operator, module, task_index: task, .. } = &*self.meta;
        macro_rules! at {
            ($level:ident) => {
                tracing::event!(target: "tidegate::guest", tracing::Level::$level, %job, %operator, %module, task, "{line}{cut}")
            };
        }
        if let Some(journal) = &self.meta.journal {
            journal.log(LogRecord {
                level: match level {
                    tracing::Level::ERROR => LogLevel::Error,
                    tracing::Level::WARN => LogLevel::Warn,
                    tracing::Level::INFO => LogLevel::Info,
                    tracing::Level::DEBUG => LogLevel::Debug,
                    tracing::Level::TRACE => LogLevel::Trace,
                },
                operator: operator.clone(),
                module: module.clone(),
                task: *task,
                message: format!("{line}{cut}"),
            });
        }
        match level {
            tracing::Level::ERROR => at!(ERROR),
            tracing::Level::WARN => at!(WARN),
            tracing::Level::INFO => at!(INFO),
            tracing::Level::DEBUG => at!(DEBUG),
            tracing::Level::TRACE => at!(TRACE),
        }
    }
}

impl GuestStore {
    /// A piece of the call's time is over.
    fn at_deadline(&mut self) -> wasmtime::Result<UpdateDeadline> {
        if self.env.as_ref().is_some_and(|env| env.stopped.load(Ordering::Relaxed)) {
            return Err(wasmtime::Error::new(Overdue::Stopped));
        }
        if self.ticks_left == 0 {
            return Err(wasmtime::Error::new(Overdue::Deadline(self.deadline_ms)));
        }
        let next = self.ticks_left.min(LOOK_TICKS);
        self.ticks_left -= next;
        Ok(UpdateDeadline::Continue(next))
    }
}

impl WasiView for GuestStore {
    fn wasi(&mut self) -> &mut WasiState {
        &mut self.wasi
    }

    fn log_line(&mut self, stream: wasi::Stream, line: &str) {
        let level = match stream {
            wasi::Stream::Stdout => tracing::Level::INFO,
            wasi::Stream::Stderr => tracing::Level::WARN,
        };
        self.guest_log(level, line);
    }
}

/// Sums over all linear memories and all tables of the instance.
struct MemoryLimit {
    used: usize,
    limit: usize,
    elements: usize,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.used + desired.saturating_sub(current);
        if total > self.limit {
            return Err(violation(format!("linear memory of {total} bytes exceeds the limit of {} (limits.memory)", self.limit)));
        }
        self.used = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.elements.saturating_add(desired.saturating_sub(current));
        if total > TABLE_ELEMENTS_MAX {
            return Err(violation(format!(
                "tables of {total} elements exceed the limit of {TABLE_ELEMENTS_MAX} (table_elements_max)"
            )));
        }
        self.elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

/// A component that is compiled, linked and known to serve one of our worlds.
#[derive(Clone)]
pub struct LoadedModule {
    pub reference: String,
    pub digest: String,
    pre: InstancePre<GuestStore>,
    lifecycle: lifecycle::GuestIndices,
    processing: ProcessingIndices,
}

#[derive(Clone)]
enum ProcessingIndices {
    Batch(batch_processing::GuestIndices),
    Record(record_processing::GuestIndices),
}

impl LoadedModule {
    pub fn new(engine: &WasmEngine, component: &Component, reference: &str, digest: &str) -> Result<Self, super::ModuleError> {
        let pre = super::link(engine, component)?;
        let wrong_world = |e: wasmtime::Error| super::ModuleError::WrongWorld(format!("{e:#}"));
        let lifecycle = lifecycle::GuestIndices::new(&pre).map_err(wrong_world)?;
        let processing = match batch_processing::GuestIndices::new(&pre) {
            Ok(indices) => ProcessingIndices::Batch(indices),
            Err(no_batches) => match record_processing::GuestIndices::new(&pre) {
                Ok(indices) => ProcessingIndices::Record(indices),
                Err(no_records) => {
                    return Err(super::ModuleError::WrongWorld(format!(
                        "neither `processor` ({no_batches:#}) nor `record-processor` ({no_records:#})"
                    )));
                }
            },
        };
        Ok(Self { reference: reference.to_owned(), digest: digest.to_owned(), pre, lifecycle, processing })
    }

    pub fn takes_batches(&self) -> bool {
        matches!(self.processing, ProcessingIndices::Batch(_))
    }

    /// Calls `describe` in an instance of its own.
    pub fn describe(&self, meta: Arc<OperatorMeta>) -> Result<lifecycle::Descriptor, CallError> {
        let mut store = new_store(self.pre.engine(), &meta);
        store.set_hostcall_fuel(DESCRIPTOR_BYTES_MAX);
        let mut env = Box::new(OperatorEnv::new(Arc::clone(&meta), None, Default::default()));
        env.begin(Phase::Describe, 0);
        store.data_mut().env = Some(env);
        set_deadline(&mut store, meta.limits.call_deadline_ms);
        let instance = self.pre.instantiate(&mut store).map_err(|e| CallError::died(&e, &meta))?;
        let guest = self.lifecycle.load(&mut store, &instance).map_err(|e| CallError::died(&e, &meta))?;
        guest.call_describe(&mut store).map_err(|e| CallError::died(&e, &meta))
    }
}

fn new_store(engine: &wasmtime::Engine, meta: &Arc<OperatorMeta>) -> Store<GuestStore> {
    let mut store = Store::new(engine, GuestStore::new(Arc::clone(meta)));
    store.limiter(|data| &mut data.memory);
    store.set_hostcall_fuel(meta.limits.crossing_bytes_max());
    store.set_max_component_handles(HANDLES_PER_LIMIT * meta.limits.handles_max);
    store.epoch_deadline_callback(|mut store| store.data_mut().at_deadline());
    store
}

/// Stands between what a message says and the frames of the guest.
const BACKTRACE: &str = "\nwasm backtrace:";

/// Handles of the contract and of WASI are counted by us; those of resources that a component makes for itself by the engine.
const HANDLES_PER_LIMIT: usize = 4;

/// The call goes on for so long before the host looks whether anybody still waits for it.
const LOOK_TICKS: u64 = 10;

/// Why a call that ran on was ended.
#[derive(Debug, thiserror::Error)]
enum Overdue {
    #[error("the call ran longer than {0} ms (limits.deadline)")]
    Deadline(u64),
    #[error("the job is being stopped")]
    Stopped,
}

/// Gives the call so much time, in pieces.
fn set_deadline(store: &mut Store<GuestStore>, milliseconds: u64) {
    let ticks = WasmEngine::deadline_ticks(milliseconds);
    let first = ticks.min(LOOK_TICKS);
    store.data_mut().ticks_left = ticks - first;
    store.data_mut().deadline_ms = milliseconds;
    store.set_epoch_deadline(first);
}

/// Why a call came to nothing. Its effects are gone already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("row {row}: {reason}")]
    BadRow { row: u32, reason: String },
    #[error("the operator gave up: {0}")]
    Fatal(String),
    #[error("the operator asked for a restart: {0}")]
    Transient(String),
    #[error("{message}")]
    Died { how: Death, message: String },
    /// Nobody waits for the answer any more.
    #[error("the job is being stopped")]
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Trap,
    Deadline,
    /// It broke the contract or a limit, which the message names.
    Violation,
}

impl CallError {
    pub(super) fn died(error: &wasmtime::Error, meta: &OperatorMeta) -> Self {
        let (how, mut message) = match Self::died_of(error, meta) {
            Self::Died { how, message } => (how, message),
            stopped => return stopped,
        };
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            let shown = backtrace.to_string();
            // The first line is a title.
            let frames = shown.lines().skip(1).take(BACKTRACE_FRAMES_MAX);
            message.push_str(BACKTRACE);
            for frame in frames {
                message.push_str("\n  ");
                message.push_str(&frame[..frame.floor_char_boundary(BACKTRACE_FRAME_BYTES_MAX)]);
            }
            let more = backtrace.frames().len().saturating_sub(BACKTRACE_FRAMES_MAX);
            if more > 0 {
                message.push_str(&format!("\n  … and {more} more"));
            }
        }
        Self::Died { how, message }
    }

    /// What a message says, and the frames of the guest behind it.
    pub fn split_backtrace(message: &str) -> (&str, Vec<String>) {
        match message.split_once(BACKTRACE) {
            Some((what, frames)) => (what, frames.lines().map(|line| line.trim().to_owned()).filter(|l| !l.is_empty()).collect()),
            None => (message, Vec::new()),
        }
    }

    fn died_of(error: &wasmtime::Error, meta: &OperatorMeta) -> Self {
        match error.downcast_ref() {
            Some(Overdue::Stopped) => return Self::Stopped,
            Some(overdue @ Overdue::Deadline(_)) => {
                return Self::Died { how: Death::Deadline, message: overdue.to_string() };
            }
            None => {}
        }
        let violated = |message: String| Self::Died { how: Death::Violation, message: cut(message) };
        if let Some(Violation(what)) = error.downcast_ref() {
            return violated(what.clone());
        }
        if let Some(state) = error.downcast_ref::<crate::state::StateError>() {
            return violated(state.to_string());
        }
        if let Some(trap) = error.downcast_ref::<WasiTrap>() {
            return violated(trap.to_string());
        }
        // What the engine says on the way, without the backtrace that follows.
        let backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string);
        let causes = error.chain().map(ToString::to_string).filter(|cause| Some(cause) != backtrace.as_ref());
        let message = causes.collect::<Vec<_>>().join(": ");
        // The engine's errors for these have no types that one could ask for.
        if message.contains("fuel allocated for hostcalls has been exhausted") {
            let (limit, name) = match meta.operator.as_str() {
                DESCRIBE => (DESCRIPTOR_BYTES_MAX, "descriptor_bytes_max"),
                _ => (meta.limits.crossing_bytes_max(), "crossing_bytes_max"),
            };
            return violated(format!("the guest handed more than {limit} bytes to the host at once ({name})"));
        }
        if message.contains("instance count too high") {
            return violated(format!("the component has more than {CORE_INSTANCES_MAX} core instances (core_instances_max)"));
        }
        Self::Died { how: Death::Trap, message: cut(message) }
    }

    fn failure(failure: types::Failure) -> Self {
        match failure {
            types::Failure::BadRow(bad) => Self::BadRow { row: bad.row, reason: cut(bad.reason) },
            types::Failure::Fatal(reason) => Self::Fatal(cut(reason)),
            types::Failure::Transient(reason) => Self::Transient(cut(reason)),
        }
    }
}

/// What a guest says as a reason, and names of its functions in a backtrace, may be of any length.
pub fn cut(mut text: String) -> String {
    let end = text.floor_char_boundary(REASON_BYTES_MAX);
    if end < text.len() {
        text.truncate(end);
        text.push_str("… (cut)");
    }
    text
}

struct Live {
    store: Store<GuestStore>,
    guest: Guest,
}

enum Guest {
    Batch(batch_processing::Guest),
    Record(record_processing::Guest),
}

/// The guest of one task of an operator.
pub struct WasmOperator {
    module: LoadedModule,
    live: Option<Live>,
    env: Option<Box<OperatorEnv>>,
    /// A new instance for every call.
    amnesia: bool,
    /// Calls so far: part of the seed of the guest's random numbers.
    calls: u64,
    /// The most linear memory that any instance had after a call.
    memory_peak: usize,
    /// Instances so far.
    instances: u64,
    /// Rows and slots of the call, moved in and out so that their memory is used again.
    slots: Vec<u32>,
}

/// A row that the guest itself rejected and left no trace of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    pub row: u32,
    pub reason: String,
}

impl WasmOperator {
    pub fn new(module: LoadedModule, env: OperatorEnv) -> Self {
        Self {
            module,
            live: None,
            env: Some(Box::new(env)),
            amnesia: false,
            calls: 0,
            memory_peak: 0,
            instances: 0,
            slots: Vec::new(),
        }
    }

    /// With a new instance for every call: an operator that keeps anything in its instance gives other results.
    pub fn with_amnesia(mut self, amnesia: bool) -> Self {
        self.amnesia = amnesia;
        self
    }

    pub fn env(&mut self) -> &mut OperatorEnv {
        self.env.as_mut().expect("BUG: the environment is in a store outside of a call")
    }

    pub fn takes_batches(&self) -> bool {
        self.module.takes_batches()
    }

    /// Linear memory of the instance; 0 where there is none.
    pub fn memory_bytes(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.store.data().memory.used)
    }

    pub fn memory_peak_bytes(&self) -> usize {
        self.memory_peak
    }

    /// The last instance, counted from 1, and the calls of all of them.
    pub fn served(&self) -> (u64, u64) {
        (self.instances, self.calls)
    }

    /// Makes sure that there is a started instance: the guest may fail to start for reasons of its own.
    pub fn start(&mut self) -> Result<(), CallError> {
        if self.live.is_some() {
            return Ok(());
        }
        let meta = Arc::clone(&self.env().meta);
        self.instances += 1;
        let mut store = new_store(self.module.pre.engine(), &meta);
        let mut env = self.env.take().expect("BUG: the environment is in a store outside of a call");
        env.begin(Phase::Start, 0);
        store.data_mut().env = Some(env);
        // Instantiation runs guest code too: both share their time. A tight deadline is meant for calls; that a new instance comes
        // late on a busy machine is nobody's fault, and would fail the job.
        set_deadline(&mut store, meta.limits.call_deadline_ms.max(START_DEADLINE_MS_MIN));
        let started = self.start_in(&mut store, &meta);
        wasi::finish_call(store.data_mut());
        let mut env = store.data_mut().env.take().expect("BUG: the store lost the environment");
        env.metrics.apply_pending();
        self.env = Some(env);
        let guest = started?;
        self.live = Some(Live { store, guest });
        Ok(())
    }

    fn start_in(&self, store: &mut Store<GuestStore>, meta: &OperatorMeta) -> Result<Guest, CallError> {
        let died = |e: wasmtime::Error| CallError::died(&e, meta);
        let instance = self.module.pre.instantiate(&mut *store).map_err(died)?;
        let lifecycle = self.module.lifecycle.load(&mut *store, &instance).map_err(died)?;
        let guest = match &self.module.processing {
            ProcessingIndices::Batch(indices) => Guest::Batch(indices.load(&mut *store, &instance).map_err(died)?),
            ProcessingIndices::Record(indices) => Guest::Record(indices.load(&mut *store, &instance).map_err(died)?),
        };
        let context = lifecycle::TaskContext {
            job: meta.job.clone(),
            operator_name: meta.operator.clone(),
            task_index: meta.task_index,
            parallelism: meta.parallelism,
            options: meta
                .options
                .iter()
                .map(|(name, value)| lifecycle::OptionEntry { name: name.clone(), value: value.clone() })
                .collect(),
        };
        store.data_mut().wasi.begin_call(0, wasi::seed(&meta.job, &meta.operator, meta.task_index, 0));
        match lifecycle.call_start(&mut *store, &context).map_err(died)? {
            Ok(()) => Ok(guest),
            Err(failure) => Err(match CallError::failure(failure) {
                CallError::BadRow { reason, .. } => CallError::Fatal(format!("start answered bad-row: {reason}")),
                other => other,
            }),
        }
    }

    /// One call, with everything round it. `call` runs with the environment in the store; its answer decides what becomes of the effects.
    fn call<R>(
        &mut self,
        processing_time: i64,
        call: impl FnOnce(&Guest, &mut Store<GuestStore>) -> wasmtime::Result<Result<R, types::Failure>>,
    ) -> Result<R, CallError> {
        let mut live = self.live.take().expect("BUG: a call before start");
        let env = self.env.take().expect("BUG: the environment is in a store outside of a call");
        let meta = Arc::clone(&env.meta);
        self.calls += 1;
        let data = live.store.data_mut();
        data.wasi.begin_call(processing_time, wasi::seed(&meta.job, &meta.operator, meta.task_index, self.calls));
        data.env = Some(env);
        set_deadline(&mut live.store, meta.limits.call_deadline_ms);
        let answer = call(&live.guest, &mut live.store);
        wasi::finish_call(live.store.data_mut());
        self.memory_peak = self.memory_peak.max(live.store.data().memory.used);
        self.env = live.store.data_mut().env.take();
        match answer {
            Ok(answer) => {
                if !self.amnesia {
                    self.live = Some(live);
                }
                answer.map_err(CallError::failure)
            }
            // The instance is dropped here: what a trap left in its memory is of no use to anyone.
            Err(error) => Err(CallError::died(&error, &meta)),
        }
        .inspect_err(|_| self.env().rollback())
    }

    /// Hands a batch to the guest. On success the effects are committed; outputs wait in the environment.
    pub fn call_batch(&mut self, input: u32, rows: &mut Rows, now: CallTime) -> Result<Vec<RejectedRow>, CallError> {
        self.start()?;
        let count = rows.count;
        let env = self.env();
        env.begin(Phase::Batch, count);
        let mut key_count = 0;
        if let Some(state) = &mut env.state {
            state.begin_batch(&rows.bytes, count, now);
            key_count = state.key_count();
        }
        let mut slots = std::mem::take(&mut self.slots);
        slots.clear();
        if let Some(state) = &self.env().state {
            slots.extend_from_slice(state.slots());
        }
        let batch = types::Batch {
            input,
            count,
            rows: std::mem::take(&mut rows.bytes),
            slots,
            key_count,
            watermark: now.watermark,
            processing_time: now.processing_time,
        };
        let answer = self.call(now.processing_time, |guest, store| match guest {
            Guest::Batch(guest) => guest.call_process_batch(store, &batch),
            Guest::Record(_) => unreachable!("BUG: a batch for a guest that takes records"),
        });
        rows.bytes = batch.rows;
        self.slots = batch.slots;
        // A call that failed is rolled back already.
        let rejected = check_rejected(answer?, count, "batch").inspect_err(|_| self.env().rollback())?;
        self.conclude(&rows.bytes)?;
        Ok(rejected)
    }

    /// The guest's answer is good, and so must be the sum of what it did.
    fn conclude(&mut self, batch: &[u8]) -> Result<(), CallError> {
        let env = self.env();
        if let Err(Violation(message)) = env.check(batch) {
            env.rollback();
            return Err(CallError::Died { how: Death::Violation, message });
        }
        env.commit();
        Ok(())
    }

    /// The same for a guest that takes one record.
    pub fn call_record(&mut self, input: u32, row: &Row<'_>, now: CallTime) -> Result<(), CallError> {
        self.start()?;
        let env = self.env();
        env.begin(Phase::Batch, 1);
        if let Some(state) = &mut env.state {
            state.begin_key(row.key, now);
        }
        let record = record_of(row);
        let moment = moment(now);
        self.call(now.processing_time, |guest, store| match guest {
            Guest::Record(guest) => guest.call_process(store, input, &record, moment),
            Guest::Batch(_) => unreachable!("BUG: a record for a guest that takes batches"),
        })?;
        let mut bytes = Vec::new();
        // Only a guest that forwards asks for the row once more.
        if self.env().outputs.forwards() {
            row.write(&mut bytes);
        }
        self.conclude(&bytes)
    }

    /// Fires the timers that the state has laid ready with `begin_timers`.
    pub fn call_timers(&mut self, now: CallTime, due: &batch_processing::DueTimers) -> Result<Vec<RejectedRow>, CallError> {
        self.start()?;
        let count = due.slots.len() as u32;
        self.env().begin(Phase::Timers, 0);
        if !self.takes_batches() {
            assert_eq!(count, 1, "BUG: {count} timers at once for a guest that takes one");
            let wit_domain = due.domain;
            self.call(now.processing_time, |guest, store| match guest {
                Guest::Record(guest) => {
                    guest.call_on_timer(store, &due.keys.data, wit_domain, due.times[0], due.tags[0], moment(now))
                }
                Guest::Batch(_) => unreachable!("BUG: the guest changed its world"),
            })?;
            self.conclude(&[])?;
            return Ok(Vec::new());
        }
        let answer = self.call(now.processing_time, |guest, store| match guest {
            Guest::Batch(guest) => guest.call_on_timers(store, due),
            Guest::Record(_) => unreachable!("BUG: the guest changed its world"),
        })?;
        let rejected = check_rejected(answer, count, "timers").inspect_err(|_| self.env().rollback())?;
        self.conclude(&[])?;
        Ok(rejected)
    }

    /// The timers that the state has laid ready, as the guest gets them.
    pub fn due_timers(&mut self, domain: TimeDomain, now: CallTime) -> batch_processing::DueTimers {
        let state = self.env().state.as_ref().expect("BUG: timers without state");
        let due = state.due();
        batch_processing::DueTimers {
            domain: match domain {
                TimeDomain::EventTime => types::TimeDomain::EventTime,
                TimeDomain::ProcessingTime => types::TimeDomain::ProcessingTime,
            },
            slots: due.slots.clone(),
            times: due.times.clone(),
            tags: due.tags.clone(),
            keys: state.keys_column().into(),
            watermark: now.watermark,
            processing_time: now.processing_time,
        }
    }
}

fn moment(now: CallTime) -> record_processing::Moment {
    record_processing::Moment { watermark: now.watermark, processing_time: now.processing_time }
}

/// Rejected rows in their order, each once; a number outside the batch means that the guest has lost its bearings.
fn check_rejected(rejected: Vec<types::RejectedRow>, count: u32, of: &str) -> Result<Vec<RejectedRow>, CallError> {
    if rejected.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows: Vec<RejectedRow> = rejected.into_iter().map(|r| RejectedRow { row: r.row, reason: cut(r.reason) }).collect();
    rows.sort_by_key(|r| r.row);
    rows.dedup_by_key(|r| r.row);
    match rows.last() {
        Some(last) if last.row >= count => {
            let message = format!("row {} was rejected, the {of} has {count}", last.row);
            Err(CallError::Died { how: Death::Violation, message })
        }
        _ => Ok(rows),
    }
}
