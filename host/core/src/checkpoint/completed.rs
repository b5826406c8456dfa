//! Completed checkpoints, and the permit to commit that only they give.
//!
//! Invariants:
//! * a [`CompletedCheckpoint`] is made from a recorded decision, by the coordinator or from the log, and a [`CommitPermit`] from it;
//! * at least [`RETAINED_MIN`] are kept, whatever the job says: that a commit returned does not prove that the newest can be read.

use super::{CheckpointId, Committable, Manifest, ManifestPointer, SAVEPOINTS};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One to restore, one to step back to.
pub const RETAINED_MIN: usize = 2;

/// A checkpoint with a recorded decision.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletedCheckpoint {
    pointer: ManifestPointer,
    segments: BTreeSet<String>,
}

impl CompletedCheckpoint {
    /// As a predecessor left it: the decision was read from the log, the manifest from the store.
    pub fn from_log(pointer: ManifestPointer, manifest: &Manifest) -> Self {
        Self { pointer, segments: manifest.segments().map(|segment| segment.path.clone()).collect() }
    }

    pub(super) fn decided(pointer: ManifestPointer, segments: BTreeSet<String>) -> Self {
        Self { pointer, segments }
    }

    pub fn checkpoint(&self) -> CheckpointId {
        self.pointer.checkpoint
    }

    pub fn pointer(&self) -> &ManifestPointer {
        &self.pointer
    }

    /// Paths of the segments that a restore would read.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().map(String::as_str)
    }

    pub(super) fn permit(&self, committables: BTreeMap<String, Vec<Committable>>) -> CommitPermit {
        CommitPermit { checkpoint: self.pointer.checkpoint, committables }
    }
}

/// Allows the sinks to commit. There is no other way to one than a decision.
#[derive(Debug, PartialEq)]
#[must_use = "committables of a decided checkpoint have to be committed"]
pub struct CommitPermit {
    checkpoint: CheckpointId,
    committables: BTreeMap<String, Vec<Committable>>,
}

impl CommitPermit {
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// By sink, oldest first. Sinks that have nothing to commit are not in it.
    pub fn committables(&self) -> &BTreeMap<String, Vec<Committable>> {
        &self.committables
    }
}

/// The completed checkpoints that can still be restored, oldest first.
#[derive(Debug)]
pub(super) struct Retention {
    keep: usize,
    retained: VecDeque<CompletedCheckpoint>,
}

impl Retention {
    pub(super) fn new(keep: u32, retained: Vec<CompletedCheckpoint>) -> Self {
        // In the order of their decisions, which is not that of their ids where a job was started from an older savepoint.
        Self { keep: (keep as usize).max(RETAINED_MIN), retained: retained.into() }
    }

    pub(super) fn push(&mut self, completed: CompletedCheckpoint) {
        self.retained.push_back(completed);
    }

    pub(super) fn get(&self, checkpoint: CheckpointId) -> Option<&CompletedCheckpoint> {
        self.retained.iter().find(|completed| completed.checkpoint() == checkpoint)
    }

    /// Lets go of what is too much and not newer than `committed`. Answers the manifests to delete.
    pub(super) fn retire(&mut self, committed: CheckpointId) -> Vec<String> {
        let mut paths = Vec::new();
        while self.retained.len() > self.keep && self.retained.front().is_some_and(|oldest| oldest.checkpoint() < committed) {
            let oldest = self.retained.pop_front().expect("BUG: the front was just there");
            if !oldest.pointer.path.starts_with(SAVEPOINTS) {
                paths.push(oldest.pointer.path);
            }
        }
        paths
    }

    pub(super) fn oldest(&self) -> Option<CheckpointId> {
        self.retained.front().map(CompletedCheckpoint::checkpoint)
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        self.retained.iter().flat_map(CompletedCheckpoint::segments)
    }
}
