//! Connectors: where rows come from and where they go.
//!
//! A source is a set of *splits* (a file, a partition). A reader owns some of them, runs on a task thread and is asked for one
//! batch at a time. A sink has one writer for each task, on the task's thread, and one committer for the job.
//!
//! Invariants:
//! * a reader that is restored from a [`SplitSnapshot`] goes on with exactly the record after the last one it gave out;
//! * after `pre_commit` everything written in the epoch is, when its [`PreCommit`] has finished, durable and still reversible;
//! * `commit`, `abort` and `recover` may be called again for the same committables with the same outcome;
//! * an error from a durable step means "unknown": the job restarts and recovery looks at what is there.
//!
//! No method has a forgiving default: a sink that forgets to abort does not compile.

pub mod blackhole;
pub mod catalog;
pub mod dead_letter;
pub mod event_time;
pub mod file;
pub mod generator;
pub mod json_field;
pub mod json_text;
pub mod options;
pub mod row_text;
pub mod stdout;
mod stepped;

pub use stepped::{SteppedSink, SteppedSource};

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::checkpoint::{CheckpointId, Committable, SplitSnapshot};
use tidegate_core::job_graph::spec::Delivery;
use tidegate_core::row::{Rows, Timestamp};

/// What went wrong at the world's edge.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {cause}{}", .remedy.as_ref().map(|r| format!(" ({r})")).unwrap_or_default())]
pub struct ConnectorError {
    pub attempted: String,
    pub cause: String,
    pub remedy: Option<String>,
    /// False where trying again can't help: the job fails instead of restarting.
    pub retry: bool,
}

impl ConnectorError {
    pub fn retry(attempted: impl Into<String>, cause: impl ToString) -> Self {
        Self { attempted: attempted.into(), cause: cause.to_string(), remedy: None, retry: true }
    }

    pub fn fatal(attempted: impl Into<String>, cause: impl ToString, remedy: impl Into<String>) -> Self {
        Self { attempted: attempted.into(), cause: cause.to_string(), remedy: Some(remedy.into()), retry: false }
    }
}

/// A record that could not be decoded. Its place is known, its bytes are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct BadRecord {
    pub split: String,
    pub record: u64,
    pub bytes: Vec<u8>,
    pub reason: String,
}

/// One batch from one split. Rows of different splits never share one.
#[derive(Debug, Default)]
pub struct SourceBatch {
    pub rows: Rows,
    /// Name of the split, shared: it is the same for thousands of batches.
    pub split: Option<Arc<str>>,
    /// Number of the first record of the batch. Bad records between good ones end the batch, so that row i is record first + i.
    pub first_record: u64,
    /// Greatest timestamp among the rows, for the watermark.
    pub max_timestamp: Option<Timestamp>,
    /// Records before the rows of this batch that could not be decoded.
    pub bad: Vec<BadRecord>,
    /// Nothing will come from this split after this batch, so it no longer holds the watermark back. The batch may be empty.
    pub split_ended: bool,
}

impl SourceBatch {
    /// Empties the batch and keeps its buffer.
    pub fn clear(&mut self) {
        self.rows.bytes.clear();
        self.rows.count = 0;
        self.split = None;
        self.max_timestamp = None;
        self.bad.clear();
        self.split_ended = false;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceStatus {
    /// The batch is as full as it gets; ask again at once.
    More,
    /// Nothing more at hand. Ask again after this time at the latest (the batch may hold some rows).
    Wait(Duration),
    /// Bounded, and at its end.
    End,
}

#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub rows_max: u32,
    pub bytes_max: usize,
}

/// Reads some splits of a source on a task thread.
pub trait SourceReader: Send {
    /// Fills `batch`, which is empty, from one split. Must not block for longer than a few milliseconds.
    fn poll(&mut self, batch: &mut SourceBatch, limits: BatchLimits) -> Result<SourceStatus, ConnectorError>;

    /// Positions after the last record given out. Called at the barrier, so it must be quick.
    fn snapshot(&mut self) -> Vec<SplitSnapshot>;

    /// The checkpoint with these positions is committed: for sources that tell an outside system (a consumer group).
    fn checkpoint_committed(&mut self, checkpoint: CheckpointId);
}

/// A configured source of a job.
pub trait Source: Send + Sync {
    /// A reader for the splits that `task` of `parallelism` owns. `restored` holds the splits of all tasks, or nothing on a fresh
    /// start; the reader takes those it owns, by a rule that depends on the split's name (or number) and the parallelism alone.
    fn open(&self, task: u32, parallelism: u32, restored: &[SplitSnapshot]) -> Result<Box<dyn SourceReader>, ConnectorError>;

    /// Whether a restored reader repeats exactly the records after its position: needed for exactly-once and at-least-once.
    fn is_replayable(&self) -> bool;
}

/// The part of a pre-commit that may block (fsync, upload). Runs off the task thread.
pub type PreCommit = Box<dyn FnOnce() -> Result<Vec<Committable>, ConnectorError> + Send>;

/// Writes rows of one task.
pub trait SinkWriter: Send {
    /// Rows from here on belong to this epoch, named by the checkpoint that will end it. Ids may skip numbers.
    fn begin(&mut self, epoch: CheckpointId) -> Result<(), ConnectorError>;

    fn write(&mut self, rows: &Rows) -> Result<(), ConnectorError>;

    /// Ends the epoch. Quick: what takes time goes into the answer.
    fn pre_commit(&mut self) -> Result<PreCommit, ConnectorError>;

    /// The task ends without a checkpoint: what is open is dropped.
    fn abort(&mut self);
}

/// Output that would be produced again.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Visible {
    /// In its place: [`Sink::retract`] takes it back.
    pub there: Vec<String>,
    /// Was visible, and somebody has taken it away.
    pub gone: Vec<String>,
}

/// The job's side of a sink.
pub trait Sink: Send + Sync {
    fn open(&self, task: u32, parallelism: u32) -> Result<Box<dyn SinkWriter>, ConnectorError>;

    /// Makes decided committables visible. Idempotent.
    fn commit(&self, committables: &[Committable]) -> Result<(), ConnectorError>;

    /// Drops pre-committed ones that will never be decided. Idempotent.
    fn abort(&self, committables: &[Committable]) -> Result<(), ConnectorError>;

    /// After a restart and before any writer is open: finishes what is decided and discards everything else that this job's
    /// predecessors left behind. They had epochs before `first`; what has later ones is a successor's. Idempotent.
    fn recover(&self, decided: &[Committable], first: CheckpointId) -> Result<(), ConnectorError>;

    /// Output of these epochs that readers can see, or could: the job is about to go back to before them. `named` are committables of
    /// manifests that can still be read.
    fn visible(&self, epochs: Range<CheckpointId>, named: &[Committable]) -> Result<Visible, ConnectorError>;

    /// Takes back what is visible of these epochs, and answers with what that was. Idempotent.
    fn retract(&self, epochs: Range<CheckpointId>) -> Result<Vec<String>, ConnectorError>;

    /// The strongest guarantee this sink can give.
    fn strongest(&self) -> Delivery;
}

/// What a connector is told about the job it works for.
#[derive(Debug, Clone)]
pub struct ConnectorContext {
    pub job: String,
    /// Made once when the job is created; tells apart two jobs of one name that write to the same folder.
    pub job_id: String,
    /// Name of the source or sink.
    pub node: String,
    pub delivery: Delivery,
    /// Relative paths of the job file are relative to this folder.
    pub base: std::path::PathBuf,
}

impl ConnectorContext {
    /// For a look at a connector's options before there is a job: nothing is opened with it.
    pub fn for_check(node: &str) -> Self {
        Self {
            job: "check".to_owned(),
            job_id: "check".to_owned(),
            node: node.to_owned(),
            delivery: Delivery::AtLeastOnce,
            base: std::path::PathBuf::new(),
        }
    }
}
