//! What a task does at this moment, written by its thread and read by whoever asks why a job stands still.
//!
//! Invariants:
//! * the thread pays one relaxed store for a change, no lock and no allocation; a lock is taken at barriers only;
//! * what is read is one consistent word: what the task does, of whom or what, and since when.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tidegate_core::checkpoint::CheckpointId;
use tidegate_core::diagnosis::SnapshotStage;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Starting,
    /// At the gate.
    Waiting,
    /// For room in the channel to a task: its place among the targets of all edges.
    Downstream(u32),
    /// Inside its guest: the node's place in the chain.
    Guest(u32),
    Draining,
    Working,
    SourceWaits,
    SourceEnded,
    SourceStopped,
    Ended,
}

/// The oldest checkpoint that waits for barriers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    pub checkpoint: CheckpointId,
    pub since_ms: u64,
    /// Channels of the gate.
    pub missing: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshotting {
    pub checkpoint: CheckpointId,
    pub stage: SnapshotStage,
    pub since_ms: u64,
}

/// Times are milliseconds since the process began to count, see [`uptime_ms`].
#[derive(Debug)]
pub struct Activity {
    /// Kind in 4 bits, whom or what in 20, since when in 40.
    word: AtomicU64,
    /// Of the guest call.
    rows: AtomicU32,
    at_barriers: Mutex<AtBarriers>,
}

#[derive(Debug, Default)]
struct AtBarriers {
    alignment: Option<Alignment>,
    snapshots: Vec<Snapshotting>,
}

/// What a task did before, to go back to.
#[derive(Debug, Clone, Copy)]
pub struct Before(u64);

impl Default for Activity {
    fn default() -> Self {
        Self { word: AtomicU64::new(pack(Doing::Starting)), rows: AtomicU32::new(0), at_barriers: Mutex::default() }
    }
}

impl Activity {
    pub fn enter(&self, doing: Doing) {
        self.word.store(pack(doing), Relaxed);
    }

    /// The same again changes nothing: it goes on since it began.
    pub fn stay(&self, doing: Doing) {
        if unpack(self.word.load(Relaxed)).0 != doing {
            self.enter(doing);
        }
    }

    /// For as long as something takes in the middle of something else.
    pub fn begin(&self, doing: Doing) -> Before {
        let before = Before(self.word.load(Relaxed));
        self.enter(doing);
        before
    }

    pub fn guest_call(&self, node: u32, rows: u32) -> Before {
        self.rows.store(rows, Relaxed);
        self.begin(Doing::Guest(node))
    }

    pub fn back_to(&self, before: Before) {
        self.word.store(before.0, Relaxed);
    }

    /// What, since when, and the rows of the last guest call.
    pub fn now(&self) -> (Doing, u64, u32) {
        let (doing, since_ms) = unpack(self.word.load(Relaxed));
        (doing, since_ms, self.rows.load(Relaxed))
    }

    pub fn align(&self, alignment: Option<Alignment>) {
        self.at_barriers().alignment = alignment;
    }

    pub fn alignment(&self) -> Option<Alignment> {
        self.at_barriers().alignment.clone()
    }

    /// `None`: it is acknowledged, declined, or given up.
    pub fn snapshot(&self, checkpoint: CheckpointId, stage: Option<SnapshotStage>) {
        let mut at = self.at_barriers();
        at.snapshots.retain(|it| it.checkpoint != checkpoint);
        at.snapshots.extend(stage.map(|stage| Snapshotting { checkpoint, stage, since_ms: uptime_ms() }));
    }

    /// The oldest that is not finished.
    pub fn snapshotting(&self) -> Option<Snapshotting> {
        self.at_barriers().snapshots.iter().min_by_key(|it| it.checkpoint).copied()
    }

    fn at_barriers(&self) -> MutexGuard<'_, AtBarriers> {
        self.at_barriers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Since the first question of this kind.
pub fn uptime_ms() -> u64 {
    origin().elapsed().as_millis() as u64
}

fn pack(doing: Doing) -> u64 {
    let (kind, what) = match doing {
        Doing::Starting => (0, 0),
        Doing::Waiting => (1, 0),
        Doing::Downstream(target) => (2, target),
        Doing::Guest(node) => (3, node),
        Doing::Draining => (4, 0),
        Doing::Working => (5, 0),
        Doing::SourceWaits => (6, 0),
        Doing::SourceEnded => (7, 0),
        Doing::SourceStopped => (8, 0),
        Doing::Ended => (9, 0),
    };
    kind << 60 | u64::from(what & 0xf_ffff) << 40 | (uptime_ms() & 0xff_ffff_ffff)
}

fn unpack(word: u64) -> (Doing, u64) {
    let what = (word >> 40 & 0xf_ffff) as u32;
    let doing = match word >> 60 {
        0 => Doing::Starting,
        1 => Doing::Waiting,
        2 => Doing::Downstream(what),
        3 => Doing::Guest(what),
        4 => Doing::Draining,
        5 => Doing::Working,
        6 => Doing::SourceWaits,
        7 => Doing::SourceEnded,
        8 => Doing::SourceStopped,
        9 => Doing::Ended,
        other => unreachable!("BUG: a task does number {other}"),
    };
    (doing, word & 0xff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_goes_on_keeps_its_beginning() {
        let activity = Activity::default();
        activity.enter(Doing::Waiting);
        let (_, since, _) = activity.now();
        while uptime_ms() == since {
            std::thread::yield_now();
        }
        activity.stay(Doing::Waiting);
        assert_eq!(activity.now().1, since);
        activity.enter(Doing::Waiting);
        assert!(activity.now().1 > since);
    }

    #[test]
    fn who_comes_back_from_a_call_goes_on_with_what_it_did() {
        let activity = Activity::default();
        activity.enter(Doing::Working);
        let before = activity.guest_call(3, 512);
        assert_eq!((activity.now().0, activity.now().2), (Doing::Guest(3), 512));
        let in_between = activity.begin(Doing::Downstream(1 << 19));
        assert_eq!(activity.now().0, Doing::Downstream(1 << 19));
        activity.back_to(in_between);
        assert_eq!(activity.now().0, Doing::Guest(3));
        activity.back_to(before);
        assert_eq!(activity.now().0, Doing::Working);
    }

    #[test]
    fn the_oldest_snapshot_that_is_not_finished_is_told() {
        let activity = Activity::default();
        activity.snapshot(4, Some(SnapshotStage::PreCommit));
        activity.snapshot(5, Some(SnapshotStage::PreCommit));
        activity.snapshot(4, Some(SnapshotStage::Upload));
        assert_eq!(activity.snapshotting().map(|it| (it.checkpoint, it.stage)), Some((4, SnapshotStage::Upload)));
        activity.snapshot(4, None);
        assert_eq!(activity.snapshotting().map(|it| it.checkpoint), Some(5));
    }
}
