//! Barrier alignment at the input gate of one task.
//!
//! A barrier cuts each channel in two: what came before belongs to the checkpoint, what comes after does not. A task with
//! several channels snapshots when the barrier has come on all of them.
//!
//! ```text
//!  exactly-once     channel 0  a b ‖n · · ·      blocked: not read until channel 1 has brought n
//!                   channel 1  c d e f ‖n        now aligned: the snapshot holds a b c d e f, and nothing else
//!
//!  unaligned        channel 0  a ⇃ b ‖n          ⇃: read so far. n is announced when it is put into the channel, and overtakes: the
//!                   channel 1  c ⇃ d e f ‖n      snapshot holds a c, and the channel state b and d e f. Nobody waits
//! ```
//!
//! Invariants:
//! * exactly-once: when a checkpoint is aligned, each channel has been read up to its barrier and not further;
//! * unaligned: what was read of a channel when the snapshot was taken, and behind it the channel's state, are what came before the
//!   barrier, in its order: whatever is read between the snapshot and the channel's barrier is recorded, and nothing else;
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

/// A barrier overtakes what waits in front of it. To be carried out before anything else is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overtaking {
    pub checkpoint: CheckpointId,
    /// The first channel of this checkpoint: snapshot now and forward the barrier. From here on what is read of a channel that
    /// [`Aligner::is_recording`] belongs to the channel's state.
    pub snapshot: bool,
    /// The barrier leaves these channels, and with it all older ones: what stands in front of it is recorded and stays to be read.
    pub channels: Vec<usize>,
    /// Older checkpoints that can't be completed any more. The task declines them.
    pub abandoned: Vec<CheckpointId>,
    /// Channels that were blocked and may be read again.
    pub released: Vec<usize>,
    /// The barrier has come on every channel: nothing more is recorded. How long that took.
    pub complete_us: Option<u64>,
}

#[derive(Debug)]
struct Aligning {
    since_us: u64,
    arrived: Vec<bool>,
    count: usize,
    /// Channels that hold the barrier, and from when on it may overtake.
    announced: Vec<bool>,
    overtakes_at_us: u64,
    /// The snapshot is taken: channels whose barrier has not come are recorded.
    overtook: bool,
}

impl Aligning {
    fn new(channels: usize, now_us: u64) -> Self {
        let none = || vec![false; channels];
        Self { since_us: now_us, arrived: none(), count: 0, announced: none(), overtakes_at_us: u64::MAX, overtook: false }
    }

    fn is_waiting_to_overtake(&self) -> bool {
        !self.overtook && self.announced.iter().zip(&self.arrived).any(|(announced, arrived)| *announced && !arrived)
    }
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
        if self.is_over(checkpoint) {
            self.forget_aborted();
            return Arrival { outcome: Outcome::Ignored, abandoned, released };
        }

        let channels = self.last.len();
        let entry = self.aligning.entry(checkpoint).or_insert_with(|| Aligning::new(channels, now_us));
        assert!(!entry.overtook, "BUG: barrier {checkpoint} was read in its place after it had overtaken");
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

    /// A barrier was put into a channel and may overtake what waits in front of it, once `overtakes_at_us` has come. `None`: it keeps
    /// its place for now, see [`Self::next_overtake_us`].
    pub fn announced(
        &mut self,
        channel: usize,
        checkpoint: CheckpointId,
        overtakes_at_us: u64,
        now_us: u64,
    ) -> Option<Overtaking> {
        if self.mode != Delivery::ExactlyOnce || self.is_over(checkpoint) {
            // It will be read in its place, and ignored there.
            return None;
        }
        let channels = self.last.len();
        let entry = self.aligning.entry(checkpoint).or_insert_with(|| Aligning::new(channels, now_us));
        assert!(!entry.announced[channel], "BUG: channel {channel} announced barrier {checkpoint} twice");
        entry.announced[channel] = true;
        entry.overtakes_at_us = entry.overtakes_at_us.min(overtakes_at_us);
        (entry.overtook || entry.overtakes_at_us <= now_us).then(|| self.overtake(checkpoint, now_us))
    }

    /// Time went on: a barrier that kept its place so far may overtake now.
    pub fn overtakes(&mut self, now_us: u64) -> Option<Overtaking> {
        let is_due = |aligning: &Aligning| aligning.is_waiting_to_overtake() && aligning.overtakes_at_us <= now_us;
        let due = self.aligning.iter().rfind(|(_, aligning)| is_due(aligning)).map(|(checkpoint, _)| *checkpoint)?;
        Some(self.overtake(due, now_us))
    }

    /// When [`Self::overtakes`] has something to say at the earliest.
    pub fn next_overtake_us(&self) -> Option<u64> {
        let waiting = self.aligning.values().filter(|aligning| aligning.is_waiting_to_overtake());
        waiting.map(|aligning| aligning.overtakes_at_us).min()
    }

    /// Whether what is read of the channel belongs to the state of channels of a checkpoint whose barrier it has not brought yet.
    pub fn is_recording(&self, channel: usize) -> bool {
        self.aligning.values().any(|aligning| aligning.overtook && !aligning.arrived[channel])
    }

    fn overtake(&mut self, checkpoint: CheckpointId, now_us: u64) -> Overtaking {
        // Only one barrier at a time has the right of way: an older one of which nobody knows the end can't be completed in order.
        let abandoned: Vec<_> = self.aligning.range(..checkpoint).map(|(id, _)| *id).collect();
        let mut released = Vec::new();
        for id in &abandoned {
            let older = self.aligning.remove(id).expect("BUG: an id just listed");
            released.extend(self.blocked_by(&older));
            self.aborted.insert(*id);
        }
        let entry = self.aligning.get_mut(&checkpoint).expect("BUG: only an announced barrier overtakes");
        let snapshot = !std::mem::replace(&mut entry.overtook, true);
        if snapshot {
            // They were read up to the barrier: nothing of them is in flight.
            released.extend((0..self.last.len()).filter(|channel| entry.arrived[*channel]));
        }
        let channels: Vec<_> =
            (0..self.last.len()).filter(|channel| entry.announced[*channel] && !entry.arrived[*channel]).collect();
        for channel in &channels {
            entry.arrived[*channel] = true;
            entry.count += 1;
            self.last[*channel] = checkpoint;
        }
        let is_complete = entry.count == self.last.len();
        let complete_us = is_complete.then(|| now_us.saturating_sub(entry.since_us));
        if is_complete {
            self.aligning.remove(&checkpoint);
            self.past = checkpoint;
        }
        self.forget_aborted();
        Overtaking { checkpoint, snapshot, channels, abandoned, released, complete_us }
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
        self.mode != Delivery::AtLeastOnce
            && self.aligning.values().any(|aligning| !aligning.overtook && aligning.arrived[channel])
    }

    /// The oldest checkpoint that waits for barriers, since when, and the channels it waits for: for "why does it stand still".
    pub fn waits_for(&self) -> Option<(CheckpointId, u64, Vec<usize>)> {
        let (checkpoint, aligning) = self.aligning.first_key_value()?;
        let missing = (0..self.last.len()).filter(|channel| !aligning.arrived[*channel]).collect();
        Some((*checkpoint, aligning.since_us, missing))
    }

    /// Aligned, given up, or overtaken by a newer one.
    fn is_over(&self, checkpoint: CheckpointId) -> bool {
        checkpoint <= self.past
            || self.aborted.contains(&checkpoint)
            || self.aligning.range(checkpoint + 1..).any(|(_, newer)| newer.overtook)
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
            Delivery::ExactlyOnce | Delivery::AtMostOnce if !aligning.overtook => {
                (0..self.last.len()).filter(|channel| aligning.arrived[*channel]).collect()
            }
            Delivery::ExactlyOnce | Delivery::AtMostOnce | Delivery::AtLeastOnce => Vec::new(),
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

    fn overtaking(checkpoint: CheckpointId, snapshot: bool, channels: &[usize], complete_us: Option<u64>) -> Option<Overtaking> {
        let channels = channels.to_vec();
        Some(Overtaking { checkpoint, snapshot, channels, abandoned: vec![], released: vec![], complete_us })
    }

    #[test]
    fn an_announced_barrier_overtakes_and_the_other_channels_are_recorded_until_theirs_comes() {
        let mut aligner = Aligner::new(2, Delivery::ExactlyOnce);
        assert_eq!(aligner.announced(1, 4, 0, 100), overtaking(4, true, &[1], None));
        assert_eq!((aligner.is_recording(0), aligner.is_recording(1)), (true, false));
        assert!(!aligner.is_blocked(1), "nobody waits");
        assert_eq!(aligner.announced(0, 4, 0, 130), overtaking(4, false, &[0], Some(30)));
        assert!(!aligner.is_recording(0));
        assert_eq!(aligner.barrier(0, 5, 140).outcome, Outcome::Blocked, "a savepoint is aligned");
        assert_eq!(aligner.barrier(1, 5, 150).outcome, aligned(5, 10));
    }

    #[test]
    fn a_barrier_keeps_its_place_until_its_time_has_come_and_then_releases_whom_it_blocked() {
        let mut aligner = Aligner::new(3, Delivery::ExactlyOnce);
        assert_eq!(aligner.announced(0, 1, 50, 10), None);
        assert_eq!(aligner.announced(1, 1, 50, 20), None);
        assert_eq!(aligner.barrier(0, 1, 30), outcome(Outcome::Blocked));
        assert_eq!((aligner.next_overtake_us(), aligner.overtakes(49)), (Some(50), None));
        let due = Overtaking { released: vec![0], ..overtaking(1, true, &[1], None).unwrap() };
        assert_eq!(aligner.overtakes(50), Some(due));
        assert_eq!((aligner.next_overtake_us(), aligner.is_blocked(0)), (None, false));
        assert_eq!((aligner.is_recording(0), aligner.is_recording(1), aligner.is_recording(2)), (false, false, true));
        assert_eq!(aligner.announced(2, 1, 50, 55), overtaking(1, false, &[2], Some(45)));
    }

    #[test]
    fn an_abort_ends_the_recording_and_a_late_barrier_is_ignored_in_its_place() {
        let mut aligner = Aligner::new(2, Delivery::ExactlyOnce);
        aligner.announced(0, 1, 0, 0);
        assert_eq!(aligner.aborted(1), Vec::<usize>::new());
        assert!(!aligner.is_recording(1));
        assert_eq!(aligner.announced(1, 1, 0, 5), None);
        assert_eq!(aligner.barrier(1, 1, 6), outcome(Outcome::Ignored));
        assert_eq!(aligner.announced(0, 2, 0, 7), overtaking(2, true, &[0], None));
    }

    /// What a task keeps of a checkpoint: what it had read of each channel at its snapshot, and the states of the channels.
    #[derive(Debug, Default, Clone)]
    struct Cut {
        read: Vec<Vec<u32>>,
        recorded: Vec<Vec<u32>>,
    }

    /// A gate in miniature: senders put elements into queues, a reader takes them out, in the order that `choices` says.
    struct Gate {
        aligner: Aligner,
        queues: Vec<std::collections::VecDeque<Element>>,
        read: Vec<Vec<u32>>,
        open: BTreeMap<CheckpointId, Cut>,
        complete: BTreeMap<CheckpointId, Cut>,
    }

    impl Gate {
        fn carry_out(&mut self, overtaking: Option<Overtaking>) {
            let Some(overtaking) = overtaking else { return };
            for abandoned in overtaking.abandoned {
                self.open.remove(&abandoned);
            }
            let id = overtaking.checkpoint;
            if overtaking.snapshot {
                let cut = Cut { read: self.read.clone(), recorded: vec![vec![]; self.queues.len()] };
                assert!(self.open.insert(id, cut).is_none(), "one snapshot for a checkpoint");
            }
            for channel in overtaking.channels {
                let queue = &mut self.queues[channel];
                let at = queue.iter().position(|element| *element == Element::Barrier(id)).expect("the barrier is there");
                let behind = queue.split_off(at + 1);
                queue.retain(|element| matches!(element, Element::Record(_)));
                let records = queue.iter().map(|element| match element {
                    Element::Record(record) => *record,
                    Element::Barrier(_) => unreachable!("taken out"),
                });
                self.open.get_mut(&id).expect("the snapshot was first").recorded[channel].extend(records);
                queue.extend(behind);
            }
            if overtaking.complete_us.is_some() {
                self.complete.insert(id, self.open.remove(&id).expect("it was open"));
            }
        }

        fn read(&mut self, channel: usize, now_us: u64) {
            match self.queues[channel].pop_front() {
                None => {}
                Some(Element::Record(record)) => {
                    if self.aligner.is_recording(channel) {
                        let cut = self.open.values_mut().next_back().expect("somebody records");
                        cut.recorded[channel].push(record);
                    }
                    self.read[channel].push(record);
                }
                Some(Element::Barrier(id)) => {
                    let arrival = self.aligner.barrier(channel, id, now_us);
                    for abandoned in arrival.abandoned {
                        self.open.remove(&abandoned);
                    }
                    if let Outcome::Aligned { checkpoint, .. } = arrival.outcome {
                        let cut = Cut { read: self.read.clone(), recorded: vec![vec![]; self.queues.len()] };
                        self.complete.insert(checkpoint, cut);
                    }
                }
            }
        }
    }

    /// `patience`: by checkpoint, how long after it was put into a channel a barrier may overtake; `None`: never.
    fn run_unaligned(
        channels: &[Vec<Element>],
        choices: &[(usize, bool)],
        patience: &[Option<u64>],
        aborts: &[(usize, CheckpointId)],
    ) -> BTreeMap<CheckpointId, Cut> {
        let count = channels.len();
        let mut gate = Gate {
            aligner: Aligner::new(count, Delivery::ExactlyOnce),
            queues: vec![Default::default(); count],
            read: vec![vec![]; count],
            open: BTreeMap::new(),
            complete: BTreeMap::new(),
        };
        let mut sent = vec![0; count];
        for step in 0.. {
            let now_us = step as u64;
            for (_, checkpoint) in aborts.iter().filter(|(when, _)| *when == step) {
                gate.aligner.aborted(*checkpoint);
                gate.open.remove(checkpoint);
            }
            let (channel, sends) = choices.get(step).map_or((step / 2 % count, step % 2 == 0), |(c, sends)| (c % count, *sends));
            if sends && sent[channel] < channels[channel].len() {
                let element = channels[channel][sent[channel]];
                sent[channel] += 1;
                gate.queues[channel].push_back(element);
                if let Element::Barrier(id) = element
                    && let Some(patience) = patience[id as usize - 1]
                {
                    let overtaking = gate.aligner.announced(channel, id, now_us + patience, now_us);
                    gate.carry_out(overtaking);
                }
            } else if !gate.aligner.is_blocked(channel) {
                gate.read(channel, now_us);
            }
            let overtaking = gate.aligner.overtakes(now_us);
            gate.carry_out(overtaking);
            let is_done = sent.iter().zip(channels).all(|(sent, all)| *sent == all.len());
            let can_read = |c: usize| !gate.queues[c].is_empty() && !gate.aligner.is_blocked(c);
            if is_done && step > choices.len() && gate.aligner.next_overtake_us().is_none() && !(0..count).any(can_read) {
                break;
            }
        }
        gate.complete
    }

    fn check_cuts(channels: &[Vec<Element>], complete: &BTreeMap<CheckpointId, Cut>) -> Result<(), TestCaseError> {
        for (checkpoint, cut) in complete {
            for (channel, elements) in channels.iter().enumerate() {
                let before = elements.iter().take_while(|e| !matches!(e, Element::Barrier(id) if id >= checkpoint));
                let expected: Vec<_> = before.filter_map(|e| if let Element::Record(r) = e { Some(*r) } else { None }).collect();
                let kept: Vec<_> = cut.read[channel].iter().chain(&cut.recorded[channel]).copied().collect();
                prop_assert_eq!(kept, expected, "checkpoint {} channel {}", checkpoint, channel);
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn snapshot_and_channel_state_are_what_came_before_the_barrier_in_its_order(
            channels in channels(false), choices in prop::collection::vec((0usize..8, any::<bool>()), 0..150),
            patience in prop::collection::vec(prop::option::of(0u64..20), 4),
        ) {
            let complete = run_unaligned(&channels, &choices, &patience, &[]);
            check_cuts(&channels, &complete)?;
            prop_assert!(complete.contains_key(&4), "nothing is newer than the last one");
        }

        #[test]
        fn neither_aborts_nor_skipped_barriers_tear_a_channel_state(
            channels in channels(true), choices in prop::collection::vec((0usize..8, any::<bool>()), 0..150),
            patience in prop::collection::vec(prop::option::of(0u64..20), 4),
            aborts in prop::collection::vec((0usize..60, 1u64..5), 0..4)
        ) {
            check_cuts(&channels, &run_unaligned(&channels, &choices, &patience, &aborts))?;
        }
    }
}
