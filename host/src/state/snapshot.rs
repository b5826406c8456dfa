//! Freeze and drain: a snapshot is decided in O(1), taken in slices between batches, and sorted and written elsewhere.
//!
//! ```text
//!  freeze ──► drain(budget) ... drain(budget) ──► FrozenState ──► write_segment (another thread)
//!             a write in between emits the frozen value first
//! ```

use super::cells::Context;
use super::clock::UNKNOWN_TIME;
use super::record::RecordBuffer;
use super::segment::SegmentHeader;
use super::{KeyedState, domain_index};
use tidegate_core::state_schema::TimeDomain;

/// The snapshot that is being drained, as the cells see it.
pub(super) struct Snapshot {
    /// Number of freezes so far, plus one. 32 bits last for 497 days of a checkpoint every 10 ms.
    pub epoch: u32,
    pub full: bool,
    /// Some of it is not drained yet.
    pub active: bool,
    pub out: RecordBuffer,
    /// What a last write at an unknown time counts from: the clock's.
    pub first_times: [i64; 2],
}

impl Snapshot {
    pub fn new() -> Self {
        Self { epoch: 1, full: false, active: false, out: RecordBuffer::default(), first_times: [UNKNOWN_TIME; 2] }
    }

    pub fn stamp(&self, domain: TimeDomain, stamp: i64) -> i64 {
        if stamp == UNKNOWN_TIME { self.first_times[domain_index(domain)] } else { stamp }
    }
}

/// A drained snapshot: everything it needs is its own, so it can go to another thread.
pub struct FrozenState {
    pub(super) header: SegmentHeader,
    /// Number of each state in the header's table, by its number in the declarations.
    pub(super) ranks: Vec<u16>,
    pub(super) records: RecordBuffer,
}

impl FrozenState {
    /// Changes, tombstones included.
    pub fn entries(&self) -> u64 {
        self.records.len()
    }

    pub fn is_full(&self) -> bool {
        self.header.full
    }
}

impl KeyedState {
    /// Fixes the state as it stands, between two calls, in constant time. With `full` the snapshot holds all of it, else what
    /// changed since the last freeze. A snapshot that is still being drained is finished first: [`Self::drain`] hands out one
    /// [`FrozenState`] for each freeze, in their order.
    pub fn freeze(&mut self, full: bool) {
        assert!(!self.call.open, "BUG: a freeze within a call");
        if self.snapshot.active {
            let done = self.drain_slice(usize::MAX).expect("BUG: a drain without a bound did not end");
            self.drained.push_back(done);
        }
        assert!(self.snapshot.epoch < u32::MAX, "BUG: the epochs are used up");
        self.snapshot.epoch += 1;
        self.snapshot.full = full;
        self.snapshot.active = true;
        self.snapshot.out = RecordBuffer::default();
        self.drain_state = 0;
        for store in &mut self.stores {
            store.cells.freeze();
        }
        for timers in &mut self.timers {
            timers.freeze();
        }
    }

    /// Whether [`Self::drain`] has something to do or to hand out.
    pub fn is_draining(&self) -> bool {
        self.snapshot.active || !self.drained.is_empty()
    }

    /// Takes up to `budget` entries over into the snapshot. Some: this one is complete.
    pub fn drain(&mut self, budget: usize) -> Option<FrozenState> {
        assert!(!self.call.open, "BUG: a drain within a call");
        self.drained.pop_front().or_else(|| self.drain_slice(budget))
    }

    fn drain_slice(&mut self, mut budget: usize) -> Option<FrozenState> {
        if !self.snapshot.active {
            return None;
        }
        let mut is_done = true;
        while self.drain_state < self.stores.len() {
            let mut context = Context { keys: &self.keys, snapshot: &mut self.snapshot, garbage: &mut self.garbage };
            if !self.stores[self.drain_state].cells.drain(&mut budget, &mut context) {
                is_done = false;
                break;
            }
            self.drain_state += 1;
        }
        is_done = is_done
            && self
                .timers
                .iter_mut()
                .all(|timers| timers.drain(&mut budget, &mut self.keys, &mut self.snapshot, &mut self.garbage));
        self.collect_garbage();
        if !is_done {
            return None;
        }
        self.snapshot.active = false;
        let (header, ranks) = self.segment_header();
        Some(FrozenState { header, ranks, records: std::mem::take(&mut self.snapshot.out) })
    }
}
