//! Tasks: threads that run chains of operators over batches of rows.
//!
//! ```text
//!  gate (channels, alignment) ─► operator ─► operator ─► sink
//!                                    └─────► edge (partitioned, lingering) ─► gate of the next vertex
//! ```
//!
//! * [`gate`] and [`edge`]: how batches get from one task to the next;
//! * [`operator`]: calls into guests, and what happens to records that can't be processed;
//! * [`chain`]: the nodes of one task and the way of elements through them;
//! * [`source`]: readers, watermarks and bad records at the head of a source chain;
//! * [`activity`]: what a task does at this moment, for people;
//! * [`errors`]: when bad records are a storm; [`replay`]: dead letters that come back;
//! * [`thread`]: the loop; [`snapshot`]: what happens off the thread after a barrier; [`in_flight`]: what barriers overtook.

pub mod activity;
pub mod chain;
pub mod edge;
pub mod errors;
pub mod gate;
pub mod in_flight;
pub mod operator;
pub mod replay;
pub mod snapshot;
pub mod source;
pub mod thread;

use tidegate_core::checkpoint::{CheckpointId, CheckpointKind, StopMode, TaskId, TaskSnapshot};
use tidegate_core::row::{Rows, Timestamp};

/// What travels on a channel.
#[derive(Debug)]
pub enum Element {
    Batch(Rows),
    Watermark(Timestamp),
    /// The channel has nothing to say about time until its next watermark.
    Idle,
    Barrier(Barrier),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    pub checkpoint: CheckpointId,
    pub kind: CheckpointKind,
    /// Snapshot everything: an earlier piece is missing.
    pub full: bool,
    pub stop: Option<StopMode>,
    /// From when on it may overtake what waits in front of it ([`monotonic_us`]). `None`: it is aligned.
    pub overtakes_at_us: Option<u64>,
}

/// What the job tells a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// To sources: put this barrier into the stream.
    Trigger(Barrier),
    AbortCheckpoint(CheckpointId),
    CheckpointCommitted(CheckpointId),
    /// The log of replays has so many entries.
    Replay(u64),
}

/// What a task tells the job.
#[derive(Debug)]
pub enum Report {
    Running {
        task: TaskId,
    },
    SourceEnded {
        task: TaskId,
    },
    Acknowledged {
        checkpoint: CheckpointId,
        task: TaskId,
        snapshot: TaskSnapshot,
    },
    Declined {
        checkpoint: CheckpointId,
        task: TaskId,
        reason: String,
    },
    PreCommitFailed {
        checkpoint: CheckpointId,
        task: TaskId,
        reason: String,
    },
    Failed {
        task: TaskId,
        error: TaskError,
    },
    /// The thread is gone.
    Ended {
        task: TaskId,
    },
}

/// Why a task can't go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TaskError {
    /// Trying again from the last checkpoint may help.
    #[error("{0}")]
    Restart(String),
    /// It would only happen again.
    #[error("{0}")]
    Fatal(String),
    #[error("the job is being stopped")]
    Closed,
}

impl From<gate::Closed> for TaskError {
    fn from(_: gate::Closed) -> Self {
        Self::Closed
    }
}

impl TaskError {
    pub fn connector(node: &str, error: &crate::connector::ConnectorError) -> Self {
        let message = format!("{node}: {error}");
        if error.retry { Self::Restart(message) } else { Self::Fatal(message) }
    }
}

/// The clock of alignments: microseconds since some moment of this process. It never goes back.
pub fn monotonic_us() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// Wall clock in milliseconds: the processing time of a call.
pub fn processing_time() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
