//! Barrier alignment at the input gate of one task.
//!
//! A barrier cuts each channel in two: what came before belongs to the checkpoint, what comes after does not. A task with
//! several channels snapshots when the barrier has come on all of them.
//!
//! ```text
//!  exactly-once     channel 0  a b ‖n · · ·      blocked: not read until channel 1 has brought n
//!                   channel 1  c d e f ‖n        now aligned: the snapshot holds a b c d e f, and nothing else
//! ```
//!
//! Invariants:
//! * exactly-once: when a checkpoint is aligned, each channel has been read up to its barrier and not further;
//! * at-most-once aligns as exactly-once does: a snapshot that holds records from after the barrier would be restored without them;
//! * at-least-once: no channel ever waits, the snapshot may hold records from after the barrier, never fewer than those before;
//! * checkpoints align in the order of their ids;
//! * a checkpoint that can't be completed any more blocks nobody: when a channel brings a newer barrier first, the older
//!   checkpoint is abandoned, because barriers of one channel come in order.
//!
//! What this is not: a queue. It says who may be read; the gate reads.

use crate::checkpoint::CheckpointId;
use crate::job_graph::spec::Delivery;
use std::collections::{BTreeMap, BTreeSet};

/// What a barrier changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub outcome: Outcome,
    /// Older checkpoints that can't be completed any more. The task declines them.
    pub abandoned: Vec<CheckpointId>,
    /// Channels that were blocked and may be read again.
    pub released: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Do not read this channel until it is released.
    Blocked,
    /// At-least-once: counted, and the channel goes on.
    Counted,
    /// The barrier has come on every channel: snapshot now, forward the barrier, then read on.
    Aligned { checkpoint: CheckpointId, alignment_us: u64 },
    /// The barrier of a checkpoint that was aborted or is past.
    Ignored,
}

#[derive(Debug)]
struct Aligning {
    since_us: u64,
    arrived: Vec<bool>,
    count: usize,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Aligner {
    mode: Delivery,
    /// The last barrier that each channel brought.
    last: Vec<CheckpointId>,
    /// Exactly-once has one at most: a blocked channel can't bring a second barrier.
    aligning: BTreeMap<CheckpointId, Aligning>,
    /// Everything up to this one is aligned or given up.
    past: CheckpointId,
    /// Aborted ones whose barriers may still come.
    aborted: BTreeSet<CheckpointId>,
}

impl Aligner {
    pub fn new(channels: usize, mode: Delivery) -> Self {
        assert!(channels > 0, "BUG: a task without input channels has nothing to align");
        Self { mode, last: vec![0; channels], aligning: BTreeMap::new(), past: 0, aborted: BTreeSet::new() }
    }

    /// A barrier came. `now_us` is any clock that does not go back.
    pub fn barrier(&mut self, channel: usize, checkpoint: CheckpointId, now_us: u64) -> Arrival {
        assert!(!self.is_blocked(channel), "BUG: channel {channel} was read while it was blocked");
        assert!(
            checkpoint > self.last[channel],
            "BUG: channel {channel} brought barrier {checkpoint} after {}",
            self.last[channel]
        );
        self.last[channel] = checkpoint;
        let (abandoned, mut released) = self.abandon_older_than(checkpoint, channel);
        if checkpoint <= self.past || self.aborted.contains(&checkpoint) {
            self.forget_aborted();
            return Arrival { outcome: Outcome::Ignored, abandoned, released };
        }

        let channels = self.last.len();
        let entry = self.aligning.entry(checkpoint).or_insert_with(|| Aligning {
            since_us: now_us,
            arrived: vec![false; channels],
            count: 0,
        });
        entry.arrived[channel] = true;
        entry.count += 1;
        if entry.count < channels {
            let outcome = match self.mode {
                Delivery::ExactlyOnce | Delivery::AtMostOnce => Outcome::Blocked,
                Delivery::AtLeastOnce => Outcome::Counted,
            };
            return Arrival { outcome, abandoned, released };
        }

        let alignment_us = now_us.saturating_sub(entry.since_us);
        self.aligning.remove(&checkpoint);
        self.past = checkpoint;
        self.forget_aborted();
        if self.mode != Delivery::AtLeastOnce {
            // All the others waited for this channel.
            released = (0..channels).filter(|other| *other != channel).collect();
        }
        Arrival { outcome: Outcome::Aligned { checkpoint, alignment_us }, abandoned, released }
    }

    /// The coordinator gave the checkpoint up. Answers the channels that may be read again.
    pub fn aborted(&mut self, checkpoint: CheckpointId) -> Vec<usize> {
        if checkpoint <= self.past {
            // It was aligned here before the news came.
            return Vec::new();
        }
        self.aborted.insert(checkpoint);
        let aligning = self.aligning.remove(&checkpoint);
        self.forget_aborted();
        aligning.map_or_else(Vec::new, |aligning| self.blocked_by(&aligning))
    }

    pub fn is_blocked(&self, channel: usize) -> bool {
        self.mode != Delivery::AtLeastOnce && self.aligning.values().any(|aligning| aligning.arrived[channel])
    }

    /// The oldest checkpoint that waits for barriers, since when, and the channels it waits for: for "why does it stand still".
    pub fn waits_for(&self) -> Option<(CheckpointId, u64, Vec<usize>)> {
        let (checkpoint, aligning) = self.aligning.first_key_value()?;
        let missing = (0..self.last.len()).filter(|channel| !aligning.arrived[*channel]).collect();
        Some((*checkpoint, aligning.since_us, missing))
    }

    /// A channel that brings `checkpoint` will never bring an older one.
    fn abandon_older_than(&mut self, checkpoint: CheckpointId, channel: usize) -> (Vec<CheckpointId>, Vec<usize>) {
        let hopeless = |id: &CheckpointId, aligning: &Aligning| *id < checkpoint && !aligning.arrived[channel];
        let abandoned: Vec<_> = self.aligning.iter().filter(|(id, aligning)| hopeless(id, aligning)).map(|(id, _)| *id).collect();
        let mut released = Vec::new();
        for id in &abandoned {
            let aligning = self.aligning.remove(id).expect("BUG: an id just listed");
            released.extend(self.blocked_by(&aligning));
            self.aborted.insert(*id);
        }
        (abandoned, released)
    }

    fn blocked_by(&self, aligning: &Aligning) -> Vec<usize> {
        match self.mode {
            Delivery::ExactlyOnce | Delivery::AtMostOnce => {
                (0..self.last.len()).filter(|channel| aligning.arrived[*channel]).collect()
            }
            Delivery::AtLeastOnce => Vec::new(),
        }
    }

    /// Drops what no channel can bring any more, so that the set stays as small as the barriers under way.
    fn forget_aborted(&mut self) {
        let passed_everywhere = self.last.iter().copied().min().unwrap_or(0).max(self.past);
        self.aborted.retain(|id| *id > passed_everywhere);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcome(outcome: Outcome) -> Arrival {
        Arrival { outcome, abandoned: vec![], released: vec![] }
    }

    fn aligned(checkpoint: CheckpointId, alignment_us: u64) -> Outcome {
        Outcome::Aligned { checkpoint, alignment_us }
    }

    #[test]
    fn one_channel_aligns_at_once() {
        for mode in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
            let mut aligner = Aligner::new(1, mode);
            assert_eq!(aligner.barrier(0, 1, 10), outcome(aligned(1, 0)));
            assert_eq!(aligner.barrier(0, 2, 20), outcome(aligned(2, 0)));
        }
    }

    #[test]
    fn a_channel_waits_until_all_the_others_have_brought_the_barrier() {
        let mut aligner = Aligner::new(3, Delivery::ExactlyOnce);
        assert_eq!(aligner.barrier(1, 7, 100), outcome(Outcome::Blocked));
        assert_eq!(aligner.barrier(0, 7, 130), outcome(Outcome::Blocked));
        assert_eq!((aligner.is_blocked(0), aligner.is_blocked(1), aligner.is_blocked(2)), (true, true, false));
        assert_eq!(aligner.waits_for(), Some((7, 100, vec![2])));
        let last = aligner.barrier(2, 7, 175);
        assert_eq!(last, Arrival { outcome: aligned(7, 75), abandoned: vec![], released: vec![0, 1] });
        assert_eq!((0..3).filter(|channel| aligner.is_blocked(*channel)).count(), 0);
    }

    #[test]
    fn at_least_once_counts_and_never_blocks() {
        let mut aligner = Aligner::new(2, Delivery::AtLeastOnce);
        assert_eq!(aligner.barrier(0, 1, 0), outcome(Outcome::Counted));
        assert_eq!(aligner.barrier(0, 2, 5), outcome(Outcome::Counted));
        assert!(!aligner.is_blocked(0));
        assert_eq!(aligner.barrier(1, 1, 10), outcome(aligned(1, 10)));
        assert_eq!(aligner.barrier(1, 2, 11), outcome(aligned(2, 6)));
    }

    #[test]
    fn a_newer_barrier_abandons_an_older_checkpoint_and_takes_its_place() {
        let mut aligner = Aligner::new(2, Delivery::ExactlyOnce);
        aligner.barrier(0, 1, 0);
        let newer = aligner.barrier(1, 2, 10);
        assert_eq!(newer, Arrival { outcome: Outcome::Blocked, abandoned: vec![1], released: vec![0] });
        assert_eq!(aligner.barrier(0, 2, 20).outcome, aligned(2, 10));
    }

    #[test]
    fn at_least_once_abandons_only_what_the_channel_skipped() {
        let mut aligner = Aligner::new(2, Delivery::AtLeastOnce);
        aligner.barrier(0, 1, 0);
        aligner.barrier(0, 2, 0);
        let skipping = aligner.barrier(1, 2, 4);
        assert_eq!(skipping, Arrival { outcome: aligned(2, 4), abandoned: vec![1], released: vec![] });
    }

    #[test]
    fn an_abort_releases_what_waited_and_late_barriers_are_ignored() {
        let mut aligner = Aligner::new(2, Delivery::ExactlyOnce);
        aligner.barrier(0, 1, 0);
        assert_eq!(aligner.aborted(1), vec![0]);
        assert_eq!(aligner.barrier(1, 1, 5), outcome(Outcome::Ignored));
        assert_eq!(aligner.barrier(1, 2, 6), outcome(Outcome::Blocked));
        assert_eq!(aligner.barrier(0, 2, 9).outcome, aligned(2, 3));
        assert!(aligner.aborted.is_empty(), "nothing can bring barrier 1 any more");
    }

    #[test]
    fn an_abort_ahead_of_its_barriers_leaves_an_older_alignment_alone() {
        let mut aligner = Aligner::new(2, Delivery::ExactlyOnce);
        aligner.barrier(0, 5, 0);
        assert_eq!(aligner.aborted(6), Vec::<usize>::new());
        assert!(aligner.is_blocked(0));
        assert_eq!(aligner.barrier(1, 5, 1).outcome, aligned(5, 1));
        assert_eq!(aligner.barrier(0, 6, 2), outcome(Outcome::Ignored));
        assert_eq!(aligner.barrier(1, 6, 3), outcome(Outcome::Ignored));
    }

    #[test]
    fn news_of_an_abort_that_comes_after_the_alignment_changes_nothing() {
        let mut aligner = Aligner::new(1, Delivery::ExactlyOnce);
        aligner.barrier(0, 1, 0);
        assert_eq!(aligner.aborted(1), Vec::<usize>::new());
        assert_eq!(aligner.barrier(0, 2, 0).outcome, aligned(2, 0));
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Element {
        Record(u32),
        Barrier(CheckpointId),
    }

    /// Channels with records and barriers 1, 2, 3, … in order; `skips` leaves a barrier out of a channel, as an upstream task
    /// does that heard of an abort first.
    fn channels(skips: bool) -> impl Strategy<Value = Vec<Vec<Element>>> {
        let epoch = (0usize..4, prop::bool::weighted(if skips { 0.8 } else { 1.0 }));
        prop::collection::vec(prop::collection::vec(epoch, 4), 1..5).prop_map(|channels| {
            let mut next = 0;
            let mut record = || {
                next += 1;
                Element::Record(next)
            };
            let build = |epochs: Vec<(usize, bool)>| {
                let mut elements = Vec::new();
                for (epoch, (records, with_barrier)) in epochs.into_iter().enumerate() {
                    elements.extend((0..records).map(|_| record()));
                    if with_barrier {
                        elements.push(Element::Barrier(epoch as u64 + 1));
                    }
                }
                elements
            };
            channels.into_iter().map(build).collect()
        })
    }

    fn before_barrier(channels: &[Vec<Element>], checkpoint: CheckpointId) -> BTreeSet<u32> {
        let mut records = BTreeSet::new();
        for channel in channels {
            for element in channel {
                match element {
                    Element::Record(record) => records.insert(*record),
                    Element::Barrier(id) if *id >= checkpoint => break,
                    Element::Barrier(_) => false,
                };
            }
        }
        records
    }

    /// Reads the channels in the order that `choices` says and reports what had been processed at each alignment.
    fn run(
        mode: Delivery,
        channels: &[Vec<Element>],
        choices: &[usize],
        aborts: &[(usize, CheckpointId)],
    ) -> Vec<(CheckpointId, BTreeSet<u32>)> {
        let mut aligner = Aligner::new(channels.len(), mode);
        let mut at = vec![0; channels.len()];
        let mut blocked = vec![false; channels.len()];
        let (mut processed, mut aligned) = (BTreeSet::new(), Vec::new());
        for step in 0.. {
            for (_, checkpoint) in aborts.iter().filter(|(when, _)| *when == step) {
                aligner.aborted(*checkpoint).into_iter().for_each(|channel| blocked[channel] = false);
            }
            let open: Vec<_> = (0..channels.len()).filter(|c| !blocked[*c] && at[*c] < channels[*c].len()).collect();
            let Some(channel) = open.get(choices.get(step).copied().unwrap_or(0) % open.len().max(1)).copied() else { break };
            let element = channels[channel][at[channel]];
            at[channel] += 1;
            match element {
                Element::Record(record) => _ = processed.insert(record),
                Element::Barrier(checkpoint) => {
                    let arrival = aligner.barrier(channel, checkpoint, step as u64);
                    arrival.released.iter().for_each(|channel| blocked[*channel] = false);
                    blocked[channel] |= arrival.outcome == Outcome::Blocked;
                    if let Outcome::Aligned { checkpoint, .. } = arrival.outcome {
                        aligned.push((checkpoint, processed.clone()));
                    }
                }
            }
            for (channel, blocked) in blocked.iter().enumerate() {
                assert_eq!(*blocked, aligner.is_blocked(channel), "what was answered and what is known agree");
            }
        }
        aligned
    }

    proptest! {
        #[test]
        fn a_snapshot_holds_exactly_what_came_before_the_barrier_whatever_the_order_of_reading(
            channels in channels(false), choices in prop::collection::vec(0usize..8, 0..100)
        ) {
            let aligned = run(Delivery::ExactlyOnce, &channels, &choices, &[]);
            prop_assert_eq!(aligned.iter().map(|(id, _)| *id).collect::<Vec<_>>(), vec![1, 2, 3, 4]);
            for (checkpoint, processed) in aligned {
                prop_assert_eq!(processed, before_barrier(&channels, checkpoint));
            }
        }

        #[test]
        fn neither_aborts_nor_skipped_barriers_put_a_record_on_the_wrong_side(
            channels in channels(true), choices in prop::collection::vec(0usize..8, 0..100),
            aborts in prop::collection::vec((0usize..40, 1u64..5), 0..4)
        ) {
            let aligned = run(Delivery::ExactlyOnce, &channels, &choices, &aborts);
            prop_assert!(aligned.is_sorted_by(|a, b| a.0 < b.0));
            for (checkpoint, processed) in aligned {
                prop_assert_eq!(processed, before_barrier(&channels, checkpoint));
            }
        }

        #[test]
        fn at_least_once_never_misses_a_record_from_before_the_barrier(
            channels in channels(false), choices in prop::collection::vec(0usize..8, 0..100)
        ) {
            let aligned = run(Delivery::AtLeastOnce, &channels, &choices, &[]);
            prop_assert_eq!(aligned.len(), 4);
            for (checkpoint, processed) in aligned {
                prop_assert!(processed.is_superset(&before_barrier(&channels, checkpoint)));
            }
        }
    }
}
