//! What is counted, and how Prometheus reads it at `/metrics`.
//!
//! A task thread owns its [`TaskMetrics`] and adds to plain atomics once a batch; nobody waits for anybody. Rendering reads them.
//! The registry's lock is taken when a task or a metric is registered and when a page is rendered, never on the hot path.
//!
//! Invariants:
//! * a counter never goes back while the host lives: a task that restarts is given the counters it had;
//! * a page is valid text format whatever names and labels jobs and guests chose ([`text`] escapes, [`guest`] checks);
//! * the number of guest metrics of an operator is bounded, so a guest can't fill the host's memory with names.

pub mod guest;
pub mod text;

use crate::api::JobState;
use guest::GuestMetrics;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use text::{Kind, Page};
use tidegate_core::checkpoint::{CheckpointKind, CheckpointReport, CheckpointStatus};
use tidegate_core::row::END_OF_TIME;

/// Only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Never goes down by it.
    pub fn raise(&self, value: u64) {
        self.0.fetch_max(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// An event time, or nothing yet.
#[derive(Debug)]
pub struct WatermarkGauge(AtomicI64);

impl Default for WatermarkGauge {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl WatermarkGauge {
    pub fn set(&self, milliseconds: i64) {
        self.0.store(milliseconds, Relaxed);
    }

    pub fn get(&self) -> Option<i64> {
        Some(self.0.load(Relaxed)).filter(|ms| *ms != i64::MIN)
    }
}

/// Bounds of [`Durations`]: 1 us to 8 s, each twice the one before.
const DURATION_BUCKETS: usize = 24;

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; DURATION_BUCKETS + 1],
    sum_us: AtomicU64,
}

impl Durations {
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // The first bucket whose bound, 2^i us, is not less.
        let bucket = us.clamp(1, 1 << 32).next_power_of_two().trailing_zeros() as usize;
        self.buckets[bucket.min(DURATION_BUCKETS)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn render(&self, labels: &[(&str, &str)], page: &mut Page) {
        let mut count = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed);
            let bound = if i < DURATION_BUCKETS { ((1u64 << i) as f64 / 1e6).to_string() } else { "+Inf".into() };
            page.sample("_bucket", &[labels, &[("le", &bound)]].concat(), count as f64);
        }
        page.sample("_sum", labels, self.sum_us.load(Relaxed) as f64 / 1e6);
        page.sample("_count", labels, count as f64);
    }
}

/// One node (source, operator or sink) in one task. Written by that task's thread alone.
#[derive(Debug, Default)]
pub struct TaskMetrics {
    pub records_in: Counter,
    pub records_out: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub batches_in: Counter,
    /// Rows that went to the dead-letter sink.
    pub dead_letters: Counter,
    /// Rows that were refused, whatever became of them.
    pub rejected: Counter,
    /// Calls that trapped or missed their deadline.
    pub traps: Counter,
    pub busy_us: Counter,
    pub idle_us: Counter,
    pub backpressured_us: Counter,
    pub watermark: WatermarkGauge,
    pub state_bytes: Gauge,
    pub state_keys: Gauge,
    pub guest_calls: Counter,
    pub guest_us: Counter,
    /// CPU time of the task's thread in its batches for the guest.
    pub guest_cpu_us: Counter,
    /// Linear memory of the instance that is there now, and the most there ever was.
    pub guest_memory: Gauge,
    pub guest_memory_peak: Gauge,
    /// How long the task stood still at each barrier.
    barrier_stalls: Durations,
}

impl TaskMetrics {
    /// The task stood still at a barrier for this long.
    pub fn stall(&self, took: Duration) {
        self.barrier_stalls.observe(took);
    }
}

/// Where a [`TaskMetrics`] belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskLabels {
    pub vertex: u32,
    /// The node's name; sources and sinks count as operators here.
    pub operator: String,
    pub task: u32,
}

/// One job: its checkpoints and restarts.
#[derive(Debug, Default)]
pub struct JobMetrics {
    pub restarts: Counter,
    checkpoints_completed: Counter,
    checkpoints_aborted: Counter,
    savepoints_completed: Counter,
    last_duration_ms: Gauge,
    last_bytes: Gauge,
    last_alignment_us: Gauge,
    last_sync_us: Gauge,
    last_async_us: Gauge,
    /// `limits.state_bytes` of the job.
    pub state_bytes_max: Gauge,
}

impl JobMetrics {
    /// For every report of the coordinator; pending ones change nothing.
    pub fn checkpoint(&self, report: &CheckpointReport) {
        match report.status {
            CheckpointStatus::Pending => {}
            CheckpointStatus::Aborted => self.checkpoints_aborted.add(1),
            CheckpointStatus::Completed => {
                self.checkpoints_completed.add(1);
                if report.kind == CheckpointKind::Savepoint {
                    self.savepoints_completed.add(1);
                }
                self.last_duration_ms.set(report.duration_ms);
                self.last_bytes.set(report.bytes);
                self.last_alignment_us.set(report.alignment_max_us);
                self.last_sync_us.set(report.sync_max_us);
                self.last_async_us.set(report.async_max_us);
            }
        }
    }
}

#[derive(Default)]
struct Job {
    metrics: Arc<JobMetrics>,
    tasks: BTreeMap<TaskLabels, Arc<TaskMetrics>>,
    guests: BTreeMap<String, Arc<GuestMetrics>>,
}

#[derive(Default)]
struct Requests {
    count: u64,
    us: u64,
}

/// All metrics of the host.
#[derive(Default)]
pub struct Metrics {
    jobs: Mutex<BTreeMap<String, Job>>,
    /// By method, route and status: routes are patterns, so there are few.
    requests: Mutex<BTreeMap<(String, String, u16), Requests>>,
}

impl Metrics {
    pub fn job(&self, job: &str) -> Arc<JobMetrics> {
        self.lock().entry(job.to_owned()).or_default().metrics.clone()
    }

    /// The same labels give the same counters.
    pub fn task(&self, job: &str, labels: TaskLabels) -> Arc<TaskMetrics> {
        self.lock().entry(job.to_owned()).or_default().tasks.entry(labels).or_default().clone()
    }

    /// The metrics that the guest of an operator makes, shared by its tasks.
    pub fn guest(&self, job: &str, operator: &str) -> Arc<GuestMetrics> {
        self.lock().entry(job.to_owned()).or_default().guests.entry(operator.to_owned()).or_default().clone()
    }

    /// The job is deleted, or starts anew with perhaps another shape.
    pub fn remove_job(&self, job: &str) {
        self.lock().remove(job);
    }

    pub fn http_request(&self, method: &str, route: &str, status: u16, us: u64) {
        let mut requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let entry = requests.entry((method.to_owned(), route.to_owned(), status)).or_default();
        entry.count += 1;
        entry.us += us;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The page. States of jobs are not counted but asked for, so the caller brings them.
    pub fn render(&self, states: &[(String, JobState)]) -> String {
        let mut page = Page::default();
        page.family("tidegate_info", "The host.", Kind::Gauge);
        page.sample("", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        page.family("tidegate_job_state", "1 for the state that the job is in.", Kind::Gauge);
        for (job, current) in states {
            for state in JobState::ALL {
                page.sample("", &[("job", job), ("state", state.name())], f64::from(u8::from(state == *current)));
            }
        }
        let jobs = self.lock();
        render_jobs(&jobs, &mut page);
        render_tasks(&jobs, &mut page);
        let operators = jobs
            .iter()
            .flat_map(|(job, it)| it.guests.iter().map(move |(operator, metrics)| (job.as_str(), operator.as_str(), &**metrics)));
        guest::render(operators, &mut page);
        drop(jobs);
        let requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        page.family("tidegate_http_requests_total", "Requests answered.", Kind::Counter);
        for ((method, route, status), it) in requests.iter() {
            page.sample("", &[("method", method), ("route", route), ("status", &status.to_string())], it.count as f64);
        }
        page.family("tidegate_http_request_seconds_total", "Time to answer them.", Kind::Counter);
        for ((method, route, status), it) in requests.iter() {
            page.sample("", &[("method", method), ("route", route), ("status", &status.to_string())], it.us as f64 / 1e6);
        }
        page.finish()
    }
}

type OfJob = fn(&JobMetrics) -> f64;

const JOB_FAMILIES: [(&str, &str, Kind, OfJob); 10] = [
    ("tidegate_job_restarts_total", "Restarts after a failure.", Kind::Counter, |m| m.restarts.get() as f64),
    ("tidegate_checkpoints_completed_total", "Checkpoints completed, savepoints included.", Kind::Counter, |m| {
        m.checkpoints_completed.get() as f64
    }),
    ("tidegate_checkpoints_aborted_total", "Checkpoints aborted.", Kind::Counter, |m| m.checkpoints_aborted.get() as f64),
    ("tidegate_savepoints_completed_total", "Savepoints completed.", Kind::Counter, |m| m.savepoints_completed.get() as f64),
    ("tidegate_checkpoint_last_duration_seconds", "Trigger to completion of the last checkpoint.", Kind::Gauge, |m| {
        m.last_duration_ms.get() as f64 / 1e3
    }),
    ("tidegate_checkpoint_last_bytes", "Bytes that the last checkpoint wrote.", Kind::Gauge, |m| m.last_bytes.get() as f64),
    ("tidegate_checkpoint_last_alignment_seconds", "Longest alignment of a task in the last checkpoint.", Kind::Gauge, |m| {
        m.last_alignment_us.get() as f64 / 1e6
    }),
    ("tidegate_checkpoint_last_sync_seconds", "Longest standstill of a task in the last checkpoint.", Kind::Gauge, |m| {
        m.last_sync_us.get() as f64 / 1e6
    }),
    ("tidegate_checkpoint_last_async_seconds", "Longest background part of a task in the last checkpoint.", Kind::Gauge, |m| {
        m.last_async_us.get() as f64 / 1e6
    }),
    ("tidegate_job_state_bytes_max", "What the job's state may take (limits.state_bytes).", Kind::Gauge, |m| {
        m.state_bytes_max.get() as f64
    }),
];

fn render_jobs(jobs: &BTreeMap<String, Job>, page: &mut Page) {
    for (name, help, kind, read) in JOB_FAMILIES {
        page.family(name, help, kind);
        for (job, it) in jobs {
            page.sample("", &[("job", job)], read(&it.metrics));
        }
    }
    page.family("tidegate_job_state_bytes", "Memory of the job's keyed state, as of its last checkpoint.", Kind::Gauge);
    for (job, it) in jobs {
        let bytes: u64 = it.tasks.values().map(|task| task.state_bytes.get()).sum();
        page.sample("", &[("job", job)], bytes as f64);
    }
}

type OfTask = fn(&TaskMetrics) -> Option<f64>;

const TASK_FAMILIES: [(&str, &str, Kind, OfTask); 19] = [
    ("tidegate_records_in_total", "Records that came in.", Kind::Counter, |m| Some(m.records_in.get() as f64)),
    ("tidegate_records_out_total", "Records that went out.", Kind::Counter, |m| Some(m.records_out.get() as f64)),
    ("tidegate_bytes_in_total", "Bytes of rows that came in.", Kind::Counter, |m| Some(m.bytes_in.get() as f64)),
    ("tidegate_bytes_out_total", "Bytes of rows that went out.", Kind::Counter, |m| Some(m.bytes_out.get() as f64)),
    ("tidegate_batches_in_total", "Batches that came in.", Kind::Counter, |m| Some(m.batches_in.get() as f64)),
    ("tidegate_dead_letters_total", "Records written to the dead-letter sink.", Kind::Counter, |m| {
        Some(m.dead_letters.get() as f64)
    }),
    ("tidegate_rejected_total", "Records that could not be processed.", Kind::Counter, |m| Some(m.rejected.get() as f64)),
    ("tidegate_traps_total", "Guest calls that trapped or missed their deadline.", Kind::Counter, |m| Some(m.traps.get() as f64)),
    ("tidegate_busy_seconds_total", "Time at work.", Kind::Counter, |m| Some(m.busy_us.get() as f64 / 1e6)),
    ("tidegate_idle_seconds_total", "Time without input.", Kind::Counter, |m| Some(m.idle_us.get() as f64 / 1e6)),
    ("tidegate_backpressured_seconds_total", "Time waiting for downstream.", Kind::Counter, |m| {
        Some(m.backpressured_us.get() as f64 / 1e6)
    }),
    ("tidegate_watermark_seconds", "Event time up to which the input is complete.", Kind::Gauge, |m| {
        m.watermark.get().map(|ms| if ms == END_OF_TIME { f64::INFINITY } else { ms as f64 / 1e3 })
    }),
    ("tidegate_state_bytes", "Memory of keyed state.", Kind::Gauge, |m| Some(m.state_bytes.get() as f64)),
    ("tidegate_state_keys", "Keys with state.", Kind::Gauge, |m| Some(m.state_keys.get() as f64)),
    ("tidegate_guest_calls_total", "Calls into the guest.", Kind::Counter, |m| Some(m.guest_calls.get() as f64)),
    ("tidegate_guest_call_seconds_total", "Time inside the guest.", Kind::Counter, |m| Some(m.guest_us.get() as f64 / 1e6)),
    ("tidegate_guest_cpu_seconds_total", "CPU time of calls into the guest.", Kind::Counter, |m| {
        Some(m.guest_cpu_us.get() as f64 / 1e6)
    }),
    ("tidegate_guest_memory_bytes", "Linear memory of the guest's instance.", Kind::Gauge, |m| Some(m.guest_memory.get() as f64)),
    ("tidegate_guest_memory_peak_bytes", "The most linear memory that an instance of the guest had.", Kind::Gauge, |m| {
        Some(m.guest_memory_peak.get() as f64)
    }),
];

fn render_tasks(jobs: &BTreeMap<String, Job>, page: &mut Page) {
    for (name, help, kind, read) in TASK_FAMILIES {
        page.family(name, help, kind);
        for (job, it) in jobs {
            for (labels, metrics) in &it.tasks {
                if let Some(value) = read(metrics) {
                    labelled(job, labels, |labels| page.sample("", labels, value));
                }
            }
        }
    }
    page.family("tidegate_barrier_stall_seconds", "How long a task stood still at a barrier.", Kind::Histogram);
    for (job, it) in jobs {
        for (labels, metrics) in &it.tasks {
            // Most nodes of a chain have none: the chain's first counts for all.
            if metrics.barrier_stalls.buckets.iter().any(|bucket| bucket.load(Relaxed) > 0) {
                labelled(job, labels, |labels| metrics.barrier_stalls.render(labels, page));
            }
        }
    }
}

fn labelled(job: &str, labels: &TaskLabels, sample: impl FnOnce(&[(&str, &str)])) {
    let (vertex, task) = (labels.vertex.to_string(), labels.task.to_string());
    sample(&[("job", job), ("operator", &labels.operator), ("vertex", &vertex), ("task", &task)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(task: u32) -> TaskLabels {
        TaskLabels { vertex: 1, operator: "delays".into(), task }
    }

    #[test]
    fn a_restarted_task_goes_on_with_the_counters_it_had() {
        let metrics = Metrics::default();
        metrics.task("flights", labels(0)).records_in.add(5);
        metrics.task("flights", labels(0)).records_in.add(2);
        metrics.task("flights", labels(1)).records_in.add(1);
        let page = metrics.render(&[]);
        assert!(
            page.contains("tidegate_records_in_total{job=\"flights\",operator=\"delays\",vertex=\"1\",task=\"0\"} 7\n"),
            "{page}"
        );
        assert!(page.contains("task=\"1\"} 1\n"));
        assert!(!page.contains("tidegate_watermark_seconds{"), "no watermark yet");
        metrics.remove_job("flights");
        assert!(!metrics.render(&[]).contains("flights"));
    }

    #[test]
    fn stalls_at_barriers_are_counted_by_their_length() {
        let metrics = Metrics::default();
        let task = metrics.task("flights", labels(0));
        for us in [0, 1, 2, 3, 1000, 60_000_000] {
            task.stall(Duration::from_micros(us));
        }
        let page = metrics.render(&[]);
        for end in [
            "le=\"0.000001\"} 2",
            "le=\"0.000002\"} 3",
            "le=\"0.000004\"} 4",
            "le=\"0.001024\"} 5",
            "le=\"8.388608\"} 5",
            "le=\"+Inf\"} 6",
        ] {
            assert!(
                page.lines().any(|l| l.starts_with("tidegate_barrier_stall_seconds_bucket") && l.ends_with(end)),
                "{end} in\n{page}"
            );
        }
    }

    #[test]
    fn only_completed_checkpoints_change_the_last_one() {
        let metrics = Metrics::default();
        let job = metrics.job("flights");
        let mut report = CheckpointReport {
            checkpoint: 1,
            kind: CheckpointKind::Savepoint,
            status: CheckpointStatus::Completed,
            duration_ms: 1500,
            bytes: 10,
            inflight_bytes: 0,
            acknowledged: 1,
            tasks: 1,
            alignment_max_us: 0,
            sync_max_us: 20,
            async_max_us: 0,
            reason: None,
        };
        job.checkpoint(&report);
        report.status = CheckpointStatus::Aborted;
        report.duration_ms = 9;
        job.checkpoint(&report);
        let page = metrics.render(&[("flights".into(), JobState::Running)]);
        for line in [
            "tidegate_checkpoints_completed_total{job=\"flights\"} 1",
            "tidegate_savepoints_completed_total{job=\"flights\"} 1",
            "tidegate_checkpoints_aborted_total{job=\"flights\"} 1",
            "tidegate_checkpoint_last_duration_seconds{job=\"flights\"} 1.5",
            "tidegate_job_state{job=\"flights\",state=\"running\"} 1",
            "tidegate_job_state{job=\"flights\",state=\"failed\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} in\n{page}");
        }
    }
}
