//! Running jobs: one supervisor for each, which makes attempts until the job ends.
//!
//! ```text
//!   supervisor ─► attempt (acquire, restore, build, drive) ─► failed ─► restart strategy ─► next attempt
//!                                                        └──► finished, stopped, cancelled: the end
//! ```
//!
//! * [`plan`]: the checked job with its code;
//! * [`restore`]: what an attempt starts from, by the decision log; [`step_back`]: when that can't be read;
//! * [`attempt`]: tasks, gates and threads;
//! * [`drive`]: the coordinator's orders and what came of them;
//! * [`replay_log`], [`replays`]: dead letters that go back into the job, and what became of each;
//! * [`reserved`]: what sources that read at most once may have handed out;
//! * [`status`]: what the outside sees;
//! * [`why`]: what a run waits for.

pub mod archive;
pub mod attempt;
mod connected;
pub mod dead_letters;
pub mod drive;
pub mod inspector;
pub mod plan;
pub mod replay_log;
pub mod replays;
pub mod reserved;
pub mod restore;
pub mod runtime;
pub mod splits;
pub mod status;
mod step_back;
pub mod supervisor;
mod why;

pub use connected::Connected;

use std::time::Instant;
use tidegate_core::checkpoint::{CheckpointProgress, ManifestPointer, StopMode};
use tokio::sync::oneshot;

/// What a savepoint came to.
pub type SavepointReply = oneshot::Sender<Result<ManifestPointer, String>>;

/// What people ask of a running job.
pub enum Command {
    Savepoint {
        stop: Option<StopMode>,
        reply: SavepointReply,
    },
    /// The host goes down: with a last checkpoint if the job runs, else at once.
    Suspend,
    /// Where the checkpoints under way stand.
    Progress {
        reply: oneshot::Sender<Vec<CheckpointProgress>>,
    },
    /// The log of replays has so many entries.
    Replay(u64),
    /// Without a checkpoint.
    Cancel,
}

/// Milliseconds since the Unix epoch that never go back: the wall clock at the start, and what has passed since.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    epoch_ms: u64,
    started: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { epoch_ms: u64::try_from(crate::task::processing_time()).unwrap_or(0), started: Instant::now() }
    }

    pub fn now_ms(&self) -> u64 {
        self.epoch_ms + self.started.elapsed().as_millis() as u64
    }
}
