//! What the outside sees of a running job. Written by the job's own task, read by HTTP, the CLI and metrics.

use crate::api::{CheckpointStep, EventBody, GuestStatus, JobStatus, RestoreReport, TaskStatus, now_ms};
use crate::journal::Journal;
use crate::metrics::{JobMetrics, TaskMetrics};
use crate::task::activity::Activity;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tidegate_core::checkpoint::{CheckpointId, CheckpointKind, CheckpointReport, TaskId};
use tidegate_core::diagnosis::{RestartFacts, RunFacts, StartFacts, StartStep};
use tidegate_core::job_state::{JobEvent, JobState};
use tidegate_core::limits::CHECKPOINT_HISTORY_MAX;
use tokio::sync::watch;

/// Stalls that are kept for percentiles.
const STALLS_MAX: usize = 100_000;

pub struct JobShared {
    job: String,
    state: watch::Sender<JobState>,
    inner: Mutex<Inner>,
    metrics: Arc<JobMetrics>,
    journal: Arc<Journal>,
}

#[derive(Default)]
struct Inner {
    attempt: u32,
    error: Option<String>,
    running_since: Option<Instant>,
    restored: Option<RestoreReport>,
    /// The last that ended.
    reports: VecDeque<CheckpointReport>,
    pending: Vec<CheckpointReport>,
    stalls_us: Vec<u64>,
    tasks: Vec<TaskView>,
    /// When the run came into its state.
    state_since_ms: u64,
    restart: Option<RestartFacts>,
    start: Option<StartFacts>,
}

/// One task and the counters of its nodes, upstream first.
#[derive(Clone)]
pub struct TaskView {
    pub id: TaskId,
    pub task: Arc<TaskMetrics>,
    pub nodes: Vec<(String, Arc<TaskMetrics>)>,
    /// `delays[1]`, for people.
    pub name: String,
    pub activity: Arc<Activity>,
    /// Tasks at the other ends of its edges, in the order of the edges.
    pub targets: Vec<TaskId>,
    /// Tasks behind the channels of its gate.
    pub channels: Vec<TaskId>,
    /// Of the guest calls of each node.
    pub deadlines_ms: Vec<u64>,
    pub source: bool,
    /// The source is held to a rate.
    pub paced: bool,
    pub makes_watermarks: bool,
}

impl JobShared {
    pub fn new(job: &str, metrics: Arc<JobMetrics>, journal: Arc<Journal>) -> Self {
        let start = Some(StartFacts { step: StartStep::Preparing, since_ms: now_ms() });
        let inner = Mutex::new(Inner { state_since_ms: now_ms(), start, ..Inner::default() });
        Self { job: job.to_owned(), state: watch::Sender::new(JobState::Created), inner, metrics, journal }
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> JobState {
        *self.state.borrow()
    }

    pub fn watch(&self) -> watch::Receiver<JobState> {
        self.state.subscribe()
    }

    /// Something happened. What has no place in the current state is a bug of the driver: it is logged and changes nothing. Only an
    /// end is one all the same: whoever waits for it would wait for ever.
    pub fn event(&self, event: JobEvent) {
        match self.state().after(event) {
            Ok(state) => {
                tracing::info!(job = %self.job, from = %self.state(), to = %state, "job state");
                self.enter(state);
            }
            Err(refused) => {
                tracing::error!(job = %self.job, %refused, "an event in the wrong state");
                if event.is_end() {
                    self.explain(&format!("BUG: {refused}"));
                    self.enter(JobState::Failed);
                }
            }
        }
    }

    /// Told before it is true: whoever has seen an end finds the whole story in the journal.
    fn enter(&self, state: JobState) {
        if state.is_terminal() {
            self.count_dead_letters();
        }
        if state != self.state() {
            self.inner().state_since_ms = now_ms();
        }
        let troubled = matches!(state, JobState::Failing | JobState::Failed);
        let error = if troubled { self.inner().error.clone() } else { None };
        self.journal.state(self.state(), state, error);
        self.state.send_replace(state);
    }

    fn count_dead_letters(&self) {
        let tasks = self.inner().tasks.clone();
        let mut totals = std::collections::BTreeMap::<String, u64>::new();
        for (name, metrics) in tasks.iter().flat_map(|task| &task.nodes) {
            *totals.entry(name.clone()).or_default() += metrics.dead_letters.get();
        }
        for (operator, total) in totals {
            self.journal.dead_letters(&operator, total);
        }
    }

    pub fn attempt_begins(&self) {
        let mut inner = self.inner();
        inner.attempt += 1;
        inner.running_since = None;
        inner.restored = None;
        inner.pending.clear();
        inner.tasks.clear();
        inner.restart = None;
        inner.start = Some(StartFacts { step: StartStep::Restoring, since_ms: now_ms() });
    }

    pub fn views(&self) -> Vec<TaskView> {
        self.inner().tasks.clone()
    }

    /// All that is known here; tasks and checkpoints are added by who asks them.
    pub fn facts(&self) -> RunFacts {
        let inner = self.inner();
        let state = self.state();
        RunFacts {
            at_ms: now_ms(),
            state,
            since_ms: inner.state_since_ms,
            attempt: inner.attempt,
            error: inner.error.clone(),
            restart: inner.restart.clone().filter(|_| state == JobState::Restarting),
            start: inner.start.filter(|_| state == JobState::Starting),
            tasks: Vec::new(),
            checkpoints: Vec::new(),
        }
    }

    /// The one that is under way, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner().attempt
    }

    /// What the attempt begins with.
    pub fn restored(&self, report: RestoreReport) {
        self.inner().restored = Some(report);
    }

    pub fn tasks(&self, tasks: Vec<TaskView>) {
        let mut inner = self.inner();
        inner.tasks = tasks;
        inner.start = Some(StartFacts { step: StartStep::StartingTasks, since_ms: now_ms() });
    }

    pub fn running(&self) {
        self.inner().running_since = Some(Instant::now());
        self.event(JobEvent::TasksStarted);
    }

    pub fn failed(&self, reason: &str) {
        self.explain(reason);
        self.event(JobEvent::FailureReported);
    }

    /// The last error, in the words that people see.
    pub fn explain(&self, reason: &str) {
        self.inner().error = Some(reason.to_owned());
    }

    pub fn restarted(&self, reason: String, attempt: u32, delay_ms: u64) {
        self.metrics.restarts.add(1);
        {
            let mut inner = self.inner();
            let attempt = inner.attempt + 1;
            inner.restart = Some(RestartFacts { due_ms: now_ms() + delay_ms, attempt, reason: reason.clone() });
        }
        self.journal.record(EventBody::Restart { reason, attempt, delay_ms });
    }

    pub fn triggered(&self, checkpoint: CheckpointId, kind: CheckpointKind) {
        let step = CheckpointStep::Triggered;
        self.journal.record(EventBody::Checkpoint { checkpoint, kind, step, duration_ms: 0, bytes: 0, reason: None });
    }

    /// A savepoint is in its place, or could not be taken.
    pub fn savepoint(&self, result: Result<CheckpointId, String>) {
        let (checkpoint, error) = match result {
            Ok(checkpoint) => (Some(checkpoint), None),
            Err(reason) => (None, Some(reason)),
        };
        self.journal.record(EventBody::Savepoint { checkpoint, error });
    }

    /// A checkpoint has ended.
    pub fn checkpoint(&self, report: CheckpointReport) {
        tracing::debug!(job = %self.job, ?report, "checkpoint");
        self.metrics.checkpoint(&report);
        self.journal.checkpoint(&report);
        self.count_dead_letters();
        let mut inner = self.inner();
        inner.reports.push_back(report);
        if inner.reports.len() > CHECKPOINT_HISTORY_MAX {
            inner.reports.pop_front();
        }
    }

    /// Those that are under way now.
    pub fn pending(&self, pending: Vec<CheckpointReport>) {
        self.inner().pending = pending;
    }

    /// Oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointReport> {
        let inner = self.inner();
        inner.reports.iter().chain(&inner.pending).cloned().collect()
    }

    pub fn stall(&self, us: u64) {
        let mut inner = self.inner();
        if inner.stalls_us.len() < STALLS_MAX {
            inner.stalls_us.push(us);
        }
    }

    /// How long tasks stood still at barriers, for the benches.
    pub fn stalls_us(&self) -> Vec<u64> {
        self.inner().stalls_us.clone()
    }

    pub fn status(&self) -> JobStatus {
        let inner = self.inner();
        let tasks: Vec<_> = inner.tasks.iter().map(task_status).collect();
        JobStatus {
            state: self.state(),
            attempt: inner.attempt,
            error: inner.error.clone(),
            watermark: tasks.iter().map(|task| task.watermark).min().flatten(),
            restored: inner.restored.clone(),
            uptime_ms: inner.running_since.map_or(0, |since| since.elapsed().as_millis() as u64),
            tasks,
        }
    }
}

fn task_status(view: &TaskView) -> TaskStatus {
    let (busy, idle, blocked) = (view.task.busy_us.get(), view.task.idle_us.get(), view.task.backpressured_us.get());
    let all = (busy + idle + blocked).max(1) as f64;
    TaskStatus {
        vertex: view.id.vertex,
        index: view.id.index,
        nodes: view.nodes.iter().map(|(name, _)| name.clone()).collect(),
        records_in: view.nodes.first().map_or(0, |(_, metrics)| metrics.records_in.get()),
        records_out: view.nodes.last().map_or(0, |(_, metrics)| metrics.records_out.get().max(metrics.records_in.get())),
        busy: busy as f64 / all,
        backpressured: blocked as f64 / all,
        idle: idle as f64 / all,
        watermark: view.nodes.iter().filter_map(|(_, metrics)| metrics.watermark.get()).min(),
        guests: view.nodes.iter().filter(|(_, metrics)| metrics.guest_calls.get() > 0).map(guest_status).collect(),
    }
}

fn guest_status((operator, metrics): &(String, Arc<TaskMetrics>)) -> GuestStatus {
    GuestStatus {
        operator: operator.clone(),
        calls: metrics.guest_calls.get(),
        cpu_ms: metrics.guest_cpu_us.get() / 1000,
        memory_bytes: metrics.guest_memory.get(),
        memory_peak_bytes: metrics.guest_memory_peak.get(),
    }
}
