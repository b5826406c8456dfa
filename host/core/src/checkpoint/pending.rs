//! A checkpoint on its way: triggered, not yet decided, not yet given up.

use super::{
    CheckpointId, CheckpointKind, CheckpointReport, CheckpointStatus, InFlight, Manifest, ManifestPointer, SourceSnapshot,
    SplitSnapshot, StopMode, TaskId, TaskTiming,
};
use std::collections::{BTreeMap, BTreeSet};

/// A user's wish for a savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SavepointRequest {
    pub(super) request: u64,
    pub(super) stop: Option<StopMode>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Waits for tasks, or for an older checkpoint to be decided.
    Collecting,
    WritingManifest {
        manifest: Box<Manifest>,
    },
    /// From here on only the decision log knows: it can't be aborted any more.
    Deciding {
        manifest: Box<Manifest>,
        pointer: ManifestPointer,
    },
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) checkpoint: CheckpointId,
    pub(super) kind: CheckpointKind,
    pub(super) full: bool,
    pub(super) savepoint: Option<SavepointRequest>,
    pub(super) triggered_ms: u64,
    pub(super) phase_since_ms: u64,
    /// All sources had ended when it was triggered.
    pub(super) end_of_input: bool,
    pub(super) phase: Phase,
    acknowledged: BTreeMap<TaskId, TaskTiming>,
    sources: BTreeMap<String, BTreeMap<String, SplitSnapshot>>,
    in_flight: BTreeMap<TaskId, InFlight>,
}

impl Pending {
    pub(super) fn new(checkpoint: CheckpointId, kind: CheckpointKind, full: bool, now_ms: u64) -> Self {
        Self {
            checkpoint,
            kind,
            full,
            savepoint: None,
            triggered_ms: now_ms,
            phase_since_ms: now_ms,
            end_of_input: false,
            phase: Phase::Collecting,
            acknowledged: BTreeMap::new(),
            sources: BTreeMap::new(),
            in_flight: BTreeMap::new(),
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        task: TaskId,
        timing: TaskTiming,
        sources: Vec<SourceSnapshot>,
        in_flight: Option<InFlight>,
    ) {
        self.in_flight.extend(in_flight.map(|in_flight| (task, in_flight)));
        let before = self.acknowledged.insert(task, timing);
        assert!(before.is_none(), "BUG: task {task} answered checkpoint {} twice", self.checkpoint);
        for SourceSnapshot { source, splits } in sources {
            let by_split = self.sources.entry(source).or_default();
            for split in splits {
                let other = by_split.insert(split.split.clone(), split);
                assert!(other.is_none(), "BUG: two tasks own the split {:?}", other.map(|split| split.split));
            }
        }
    }

    pub(super) fn has_acknowledged(&self, task: TaskId) -> bool {
        self.acknowledged.contains_key(&task)
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(super) fn can_be_aborted(&self) -> bool {
        !matches!(self.phase, Phase::Deciding { .. })
    }

    pub(super) fn positions(&self) -> BTreeMap<String, Vec<SplitSnapshot>> {
        self.sources.iter().map(|(source, splits)| (source.clone(), splits.values().cloned().collect())).collect()
    }

    pub(super) fn in_flight(&self) -> Vec<InFlight> {
        self.in_flight.values().cloned().collect()
    }

    /// Segments of a manifest that may become true. State is kept by its chain until there is a manifest; what is in flight has none.
    pub(super) fn segments(&self) -> BTreeSet<String> {
        match &self.phase {
            Phase::Collecting => self.in_flight.values().map(|in_flight| in_flight.segment.path.clone()).collect(),
            Phase::WritingManifest { manifest } | Phase::Deciding { manifest, .. } => {
                manifest.segments().map(|segment| segment.path.clone()).collect()
            }
        }
    }

    pub(super) fn report(&self, status: CheckpointStatus, now_ms: u64, tasks: usize, reason: Option<String>) -> CheckpointReport {
        let timings = || self.acknowledged.values();
        CheckpointReport {
            checkpoint: self.checkpoint,
            kind: self.kind,
            status,
            duration_ms: now_ms.saturating_sub(self.triggered_ms),
            bytes: timings().map(|timing| timing.bytes).sum(),
            inflight_bytes: timings().map(|timing| timing.inflight_bytes).sum(),
            acknowledged: self.acknowledged.len() as u32,
            tasks: tasks as u32,
            alignment_max_us: timings().map(|timing| timing.alignment_us).max().unwrap_or(0),
            sync_max_us: timings().map(|timing| timing.sync_us).max().unwrap_or(0),
            async_max_us: timings().map(|timing| timing.async_us).max().unwrap_or(0),
            reason,
        }
    }
}
