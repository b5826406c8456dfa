//! What the outside sees of a running job. Written by the job's own task, read by HTTP, the CLI and metrics.

use crate::api::{JobStatus, RestoreReport, TaskStatus};
use crate::metrics::{JobMetrics, TaskMetrics};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tidegate_core::checkpoint::{CheckpointReport, TaskId};
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
}

/// One task and the counters of its nodes, upstream first.
#[derive(Clone)]
pub struct TaskView {
    pub id: TaskId,
    pub task: Arc<TaskMetrics>,
    pub nodes: Vec<(String, Arc<TaskMetrics>)>,
}

impl JobShared {
    pub fn new(job: &str, metrics: Arc<JobMetrics>) -> Self {
        Self { job: job.to_owned(), state: watch::Sender::new(JobState::Created), inner: Mutex::default(), metrics }
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
                self.state.send_replace(state);
            }
            Err(refused) => {
                tracing::error!(job = %self.job, %refused, "an event in the wrong state");
                if event.is_end() {
                    self.explain(&format!("BUG: {refused}"));
                    self.state.send_replace(JobState::Failed);
                }
            }
        }
    }

    pub fn attempt_begins(&self) {
        let mut inner = self.inner();
        inner.attempt += 1;
        inner.running_since = None;
        inner.restored = None;
        inner.pending.clear();
        inner.tasks.clear();
    }

    /// What the attempt begins with.
    pub fn restored(&self, report: RestoreReport) {
        self.inner().restored = Some(report);
    }

    pub fn tasks(&self, tasks: Vec<TaskView>) {
        self.inner().tasks = tasks;
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

    pub fn restarted(&self) {
        self.metrics.restarts.add(1);
    }

    /// A checkpoint has ended.
    pub fn checkpoint(&self, report: CheckpointReport) {
        tracing::debug!(job = %self.job, ?report, "checkpoint");
        self.metrics.checkpoint(&report);
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
    }
}
