//! The chains of segments that the job's state consists of, and which segments nobody needs any more.
//!
//! ```text
//!  delays/0   [base @3] [delta @4] [delta @5] [delta @7]        manifest 5 is the chain up to @5, manifest 7 all of it
//!                       └── merged in the background ──┘         only where no pending checkpoint lies inside
//! ```
//!
//! Invariants:
//! * a piece belongs to the checkpoint that brought it, and a manifest takes the pieces up to its own;
//! * merges and cuts touch only what is older than every pending checkpoint;
//! * what a merge reads stays until the merge is over, and a merge whose segments were replaced meanwhile changes nothing.

use super::{CheckpointId, SAVEPOINTS, SegmentRef};
use crate::compaction;
use std::collections::{BTreeMap, BTreeSet};

type Owner = (String, u32);

#[derive(Debug)]
struct Piece {
    checkpoint: CheckpointId,
    /// `None`: the state was empty, and nothing older counts.
    segment: Option<SegmentRef>,
}

impl Piece {
    fn is_start(&self) -> bool {
        self.segment.as_ref().is_none_or(|segment| segment.full)
    }
}

#[derive(Debug, PartialEq)]
pub(super) struct MergeOrder {
    pub(super) operator: String,
    pub(super) task_index: u32,
    pub(super) segments: Vec<SegmentRef>,
    pub(super) to_full: bool,
}

#[derive(Debug, Default)]
pub(super) struct Chains {
    live: BTreeMap<Owner, Vec<Piece>>,
    /// What the merges under way read, and whether a full segment comes of it.
    merging: BTreeMap<Owner, (Vec<String>, bool)>,
    /// Every segment in the store that is ours to delete.
    known: BTreeSet<String>,
}

impl Chains {
    /// Goes on with the chains of a restored checkpoint.
    pub(super) fn inherit(&mut self, operator: &str, tasks: &[Vec<SegmentRef>], checkpoint: CheckpointId) {
        for (index, chain) in tasks.iter().enumerate() {
            let pieces = chain.iter().map(|segment| Piece { checkpoint, segment: Some(segment.clone()) }).collect();
            self.live.insert((operator.to_owned(), index as u32), pieces);
        }
    }

    /// A segment that exists, whether a chain needs it or not.
    pub(super) fn know(&mut self, path: &str) {
        if !path.starts_with(SAVEPOINTS) {
            self.known.insert(path.to_owned());
        }
    }

    /// A task's part of a checkpoint. With `full`, the absence of a segment says that there is no state.
    pub(super) fn append(
        &mut self,
        operator: &str,
        index: u32,
        checkpoint: CheckpointId,
        segment: Option<SegmentRef>,
        full: bool,
    ) {
        if let Some(segment) = &segment {
            self.know(&segment.path);
        } else if !full {
            return;
        }
        self.live.entry((operator.to_owned(), index)).or_default().push(Piece { checkpoint, segment });
    }

    /// The chain that a manifest of `checkpoint` names.
    pub(super) fn as_of(&self, operator: &str, index: u32, checkpoint: CheckpointId) -> Vec<SegmentRef> {
        let Some(pieces) = self.live.get(&(operator.to_owned(), index)) else { return Vec::new() };
        let end = pieces.partition_point(|piece| piece.checkpoint <= checkpoint);
        let start = pieces[..end].iter().rposition(Piece::is_start).unwrap_or(0);
        pieces[start..end].iter().filter_map(|piece| piece.segment.clone()).collect()
    }

    /// Cuts off what lies below a full segment. `settled`: no checkpoint up to this one is pending.
    pub(super) fn settle(&mut self, settled: CheckpointId) {
        for pieces in self.live.values_mut() {
            let end = pieces.partition_point(|piece| piece.checkpoint <= settled);
            if let Some(start) = pieces[..end].iter().rposition(Piece::is_start) {
                let empty = pieces[start].segment.is_none();
                pieces.drain(..start + usize::from(empty));
            }
        }
    }

    /// Merges that are due, one at a time for a task.
    pub(super) fn plan_merges(&mut self, settled: CheckpointId) -> Vec<MergeOrder> {
        let mut orders = Vec::new();
        for (owner, pieces) in &self.live {
            if self.merging.contains_key(owner) {
                continue;
            }
            let end = pieces.partition_point(|piece| piece.checkpoint <= settled);
            let chain: Vec<_> = pieces[..end].iter().map_while(|piece| piece.segment.clone()).collect();
            let Some(merge) = compaction::plan(&chain) else { continue };
            let segments = chain[merge.range].to_vec();
            let paths = segments.iter().map(|segment| segment.path.clone()).collect();
            self.merging.insert(owner.clone(), (paths, merge.to_full));
            let (operator, task_index) = owner.clone();
            orders.push(MergeOrder { operator, task_index, segments, to_full: merge.to_full });
        }
        orders
    }

    pub(super) fn merged(&mut self, operator: String, index: u32, replaced: &[String], by: SegmentRef) {
        let owner = (operator, index);
        let ordered = self.merging.remove(&owner);
        let Some((paths, to_full)) = ordered else { panic!("BUG: a merge for {owner:?} that nobody ordered") };
        assert_eq!(paths, replaced, "BUG: a merge for {owner:?} replaced something else than was ordered");
        assert_eq!(by.full, to_full, "BUG: the merged segment {} says full = {}", by.path, by.full);
        self.know(&by.path);
        let pieces = self.live.entry(owner).or_default();
        let path = |piece: &Piece| piece.segment.as_ref().map(|segment| segment.path.clone());
        let at = pieces.windows(replaced.len()).position(|window| window.iter().map(path).eq(replaced.iter().cloned().map(Some)));
        // Nowhere: a full snapshot came meanwhile. The merged segment is garbage then.
        if let Some(at) = at {
            let checkpoint = pieces[at + replaced.len() - 1].checkpoint;
            pieces.splice(at..at + replaced.len(), [Piece { checkpoint, segment: Some(by) }]);
        }
    }

    pub(super) fn merge_failed(&mut self, operator: String, index: u32) {
        let ordered = self.merging.remove(&(operator, index));
        assert!(ordered.is_some(), "BUG: a merge failed that nobody ordered");
    }

    /// Forgets, and answers, the segments that neither a chain, a merge nor anything in `needed` names.
    pub(super) fn take_garbage(&mut self, needed: &BTreeSet<String>) -> Vec<String> {
        let live = self.live.values().flatten().filter_map(|piece| piece.segment.as_ref()).map(|segment| &segment.path);
        let in_use: BTreeSet<_> = live.chain(self.merging.values().flat_map(|(paths, _)| paths)).chain(needed).collect();
        let garbage: Vec<_> = self.known.iter().filter(|path| !in_use.contains(path)).cloned().collect();
        for path in &garbage {
            self.known.remove(path);
        }
        garbage
    }
}
