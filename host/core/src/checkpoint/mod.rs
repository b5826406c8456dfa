//! Checkpoints: the facts that a coordinator hears and the orders it gives.
//!
//! ```text
//!  Trigger ─► tasks snapshot at the barrier ─► TaskAcknowledged × all ─► WriteManifest ─► ManifestWritten
//!     ─► WriteDecision ─► Decided  ══ the checkpoint is true from here ══►  CommitSinks(permit) ─► SinksCommitted ─► Delete
//! ```
//!
//! Invariants:
//! * a checkpoint is decided only when every task has acknowledged it and every older one, and its manifest is written;
//! * decisions are written one at a time, in the order of their ids;
//! * sinks commit only with a [`CommitPermit`], and only a completed checkpoint makes one;
//! * a manifest names every committable that may not have been committed yet, whatever checkpoint it came from;
//! * a segment that a retained manifest or a live chain names is never deleted;
//! * what lies under [`SAVEPOINTS`] belongs to the user: the host never deletes it.

use crate::diagnosis::CheckpointPhase;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod chains;
mod completed;
pub mod coordinator;
mod pending;

pub use completed::{CommitPermit, CompletedCheckpoint};
pub use coordinator::{Coordinator, CoordinatorConfig, Restored};

/// Where savepoints lie, relative to the job's store.
pub const SAVEPOINTS: &str = "savepoints/";

/// Grows with every trigger, never restarts for the life of a job, has gaps where checkpoints were aborted.
pub type CheckpointId = u64;

/// One parallel instance of a vertex of the execution graph: a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    pub vertex: u32,
    pub index: u32,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.vertex, self.index)
    }
}

/// A stored piece of an operator's state: all entries of a range of key groups, or the changes since the piece before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRef {
    /// Relative to the job's store.
    pub path: String,
    /// Groups `first_group..end_group` that the writing task owned.
    pub first_group: u32,
    pub end_group: u32,
    /// True: nothing older is needed below it.
    pub full: bool,
    pub entries: u64,
    pub bytes: u64,
    pub crc32c: u32,
}

/// Where one split of a source stands: the record at `position` is the next to be read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitSnapshot {
    pub split: String,
    /// The connector's own form.
    pub position: serde_json::Value,
    /// Number of the next record, for provenance.
    pub record: u64,
    /// Greatest event time seen, so that the watermark stands where it stood.
    pub max_timestamp: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceSnapshot {
    pub source: String,
    pub splits: Vec<SplitSnapshot>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorSnapshot {
    pub operator: String,
    pub task_index: u32,
    /// `None`: nothing changed, or no state. Of a checkpoint that was triggered `full`: there is no state.
    pub segment: Option<SegmentRef>,
}

/// What a sink made durable and can commit or abort: a staged file, say. The form is the connector's own.
pub type Committable = serde_json::Value;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkSnapshot {
    pub sink: String,
    pub committables: Vec<Committable>,
}

/// What barriers of an unaligned checkpoint overtook in the input channels of one task: to be processed by the restored job before
/// anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The operator or sink that the channels lead to.
    pub node: String,
    pub task_index: u32,
    /// Tasks of the node.
    pub parallelism: u32,
    /// Rows went to the owner of their key, which they carry.
    pub keyed: bool,
    /// All channels of the task, those without elements too, in the order of the file.
    pub channels: Vec<InFlightChannel>,
    pub segment: SegmentRef,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlightChannel {
    /// Input number of the node.
    pub input: u32,
    pub upstream_task: u32,
    pub rows: u64,
    pub bytes: u64,
}

/// All that one task adds to a checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TaskSnapshot {
    pub sources: Vec<SourceSnapshot>,
    pub operators: Vec<OperatorSnapshot>,
    pub sinks: Vec<SinkSnapshot>,
    #[serde(default)]
    pub in_flight: Option<InFlight>,
    pub timing: TaskTiming,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct TaskTiming {
    /// First barrier seen to all barriers seen.
    pub alignment_us: u64,
    /// The task stood still for this long.
    pub sync_us: u64,
    /// From the end of the synchronous part to everything durable.
    pub async_us: u64,
    pub bytes: u64,
    /// Of `bytes`, what the barriers overtook.
    #[serde(default)]
    pub inflight_bytes: u64,
}

/// What stands in the store for a checkpoint. Enough to restore the job on any host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Raised when the form of a manifest or segment changes.
    pub format: u32,
    pub job: String,
    pub checkpoint: CheckpointId,
    pub kind: CheckpointKind,
    pub key_groups: u32,
    /// By operator, what the checkpoint's code was and how its state is laid out.
    pub operators: BTreeMap<String, OperatorManifest>,
    pub sources: BTreeMap<String, Vec<SplitSnapshot>>,
    /// Committables that are, or may still have to be, committed for this checkpoint. By sink.
    pub sinks: BTreeMap<String, Vec<Committable>>,
    /// Of an unaligned checkpoint: what was in the channels. A host that does not know it must not restore from it, so a manifest
    /// that has some is of format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<InFlight>,
    /// True when all sources had come to their end.
    pub end_of_input: bool,
    /// Wall clock, for people.
    pub time_ms: u64,
}

/// The newest form that this host reads.
pub const MANIFEST_FORMAT: u32 = 2;
/// Of a manifest without rows in flight: older hosts read it.
const MANIFEST_FORMAT_ALIGNED: u32 = 1;

impl Manifest {
    /// All segments it needs: state, and what was in flight.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentRef> {
        let state = self.operators.values().flat_map(|operator| operator.tasks.iter().flatten());
        state.chain(self.in_flight.iter().map(|in_flight| &in_flight.segment))
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct OperatorManifest {
    /// `name@version`
    pub module: String,
    pub digest: String,
    pub parallelism: u32,
    /// As the component declared them.
    pub states: serde_json::Value,
    /// Chains of segments by task, oldest first.
    pub tasks: Vec<Vec<SegmentRef>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointKind {
    Checkpoint,
    Savepoint,
    /// At the end of a bounded input.
    Final,
}

/// Names a manifest beyond doubt: small enough for a decision record, checked when read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPointer {
    pub checkpoint: CheckpointId,
    pub path: String,
    pub bytes: u64,
    pub crc32c: u32,
}

/// A job that stops with a savepoint either leaves its timers as they are, or drains: the watermark goes to the end of time first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopMode {
    pub drain: bool,
}

/// Facts. Whoever reports one has no policy.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Time went on. Also asked for by [`Coordinator::next_deadline`].
    Tick,
    SavepointRequested {
        request: u64,
        stop: Option<StopMode>,
    },
    /// The host goes down: one more checkpoint, and sources stop at its barrier, so that the next start has nothing to do again.
    SuspendRequested,
    /// Every source task has read its last record.
    AllSourcesEnded,
    TaskAcknowledged {
        checkpoint: CheckpointId,
        task: TaskId,
        snapshot: TaskSnapshot,
    },
    /// The task could not snapshot or upload, or its barriers did not come in order. Its sinks' rows are not lost by that: they
    /// stay staged, and the task reports them with its next acknowledgement.
    TaskDeclined {
        checkpoint: CheckpointId,
        task: TaskId,
        reason: String,
    },
    /// A sink could not pre-commit, so what it had of the epoch is in doubt.
    PreCommitFailed {
        checkpoint: CheckpointId,
        task: TaskId,
        reason: String,
    },
    ManifestWritten {
        checkpoint: CheckpointId,
        pointer: ManifestPointer,
    },
    /// Written or not: without a decision it means nothing.
    ManifestFailed {
        checkpoint: CheckpointId,
        reason: String,
    },
    Decided {
        checkpoint: CheckpointId,
    },
    /// The record of the decision can't be said to exist or not. The driver has looked again and still can't tell.
    DecisionUnknown {
        checkpoint: CheckpointId,
        reason: String,
    },
    /// Somebody else took the job over.
    Fenced {
        by: String,
    },
    SinksCommitted {
        checkpoint: CheckpointId,
    },
    CommitFailed {
        checkpoint: CheckpointId,
        reason: String,
    },
    /// A savepoint's own copy of manifest and segments is in its place.
    SavepointStored {
        request: u64,
        pointer: ManifestPointer,
    },
    SavepointStoreFailed {
        request: u64,
        reason: String,
    },
    /// A background merge replaced neighbours of a chain by one segment.
    Merged {
        operator: String,
        task_index: u32,
        replaced: Vec<String>,
        by: SegmentRef,
    },
    MergeFailed {
        operator: String,
        task_index: u32,
        reason: String,
    },
}

/// Orders. Whoever carries one out reports what came of it as an [`Event`].
#[derive(Debug)]
pub enum Action {
    /// To the sources, which inject the barrier. With `full`, tasks snapshot everything, because an earlier piece is missing.
    Trigger {
        checkpoint: CheckpointId,
        kind: CheckpointKind,
        full: bool,
        stop: Option<StopMode>,
    },
    /// To the tasks: forget the barrier, release what is aligned. Committables already reported stay with the coordinator.
    AbortCheckpoint {
        checkpoint: CheckpointId,
        reason: String,
    },
    WriteManifest {
        checkpoint: CheckpointId,
        manifest: Box<Manifest>,
    },
    WriteDecision {
        checkpoint: CheckpointId,
        pointer: ManifestPointer,
    },
    CommitSinks {
        permit: CommitPermit,
    },
    /// Copy manifest and segments to a place that retention does not touch.
    StoreSavepoint {
        request: u64,
        checkpoint: CheckpointId,
        manifest: Box<Manifest>,
    },
    SavepointCompleted {
        request: u64,
        pointer: ManifestPointer,
    },
    SavepointFailed {
        request: u64,
        reason: String,
    },
    Merge {
        operator: String,
        task_index: u32,
        segments: Vec<SegmentRef>,
        to_full: bool,
    },
    /// Manifests and segments that nothing needs any more.
    Delete {
        paths: Vec<String>,
    },
    /// Decisions about checkpoints older than this one are needed by nobody: their manifests are about to go.
    TrimLog {
        oldest: CheckpointId,
    },
    /// For people and metrics.
    Report(CheckpointReport),
    /// The stop that came with a savepoint is due.
    StopJob {
        request: u64,
    },
    /// The job goes down with its host, and comes back with the next one.
    SuspendJob {
        last: Suspended,
    },
    /// The final checkpoint is committed.
    FinishJob,
    /// Restart from the last completed checkpoint, or fail for good where `fatal`.
    FailJob {
        reason: String,
        fatal: bool,
    },
}

/// What came of the last checkpoint before the host goes down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suspended {
    /// It is committed: nothing was read after its barrier.
    At(CheckpointId),
    /// It was aborted: the next start goes on from the one before.
    Without { reason: String },
}

/// Where a checkpoint stands that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointProgress {
    pub checkpoint: CheckpointId,
    pub kind: CheckpointKind,
    pub triggered_ms: u64,
    pub phase: CheckpointPhase,
    pub phase_since_ms: u64,
    /// Tasks that have not acknowledged it.
    pub missing: Vec<TaskId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointReport {
    pub checkpoint: CheckpointId,
    pub kind: CheckpointKind,
    pub status: CheckpointStatus,
    /// Trigger to now, or to completion.
    pub duration_ms: u64,
    pub bytes: u64,
    /// Of `bytes`, what barriers overtook and the checkpoint holds therefore.
    #[serde(default)]
    pub inflight_bytes: u64,
    pub acknowledged: u32,
    pub tasks: u32,
    pub alignment_max_us: u64,
    pub sync_max_us: u64,
    pub async_max_us: u64,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointStatus {
    Pending,
    Completed,
    Aborted,
}
