//! Keyed state of one operator task: in memory, written in place, snapshotted without standing still.
//!
//! ```text
//!  begin_batch(rows) ─► key table ─► entries, slots        a key has an entry; an entry is an index into the cells of each state
//!  value_load / value_store / …  ─► cells + undo journal   slots are good until the call ends
//!  commit | rollback             ─► entries that hold nothing are given back
//!  freeze ─► drain … drain       ─► FrozenState ─► write_segment on another thread
//!  restore(segment) …            ─► the same state, of the key groups that this task owns
//! ```
//!
//! Invariants:
//! * a call either commits or rolls back; a rolled-back call has changed nothing, timers included;
//! * a snapshot is the state as of its freeze, whatever is written while it is drained;
//! * restoring a full segment and the deltas after it gives the state as of the last one;
//! * what the guest hands over (slots, columns, sizes) is checked here and answered with a [`StateError`]; a call in the wrong
//!   order is the host's own bug and asserted;
//! * an entry is given back when no cell, no tombstone that is still needed and no timer refers to it.
//!
//! What this is not: it knows no guests, no files and no clock. Times come in with each call.

mod budget;
mod cells;
mod clock;
mod collections;
mod error;
mod key_index;
mod key_table;
mod list_cells;
mod map_cells;
mod ordered_map;
mod payload;
mod record;
mod reducing;
mod restore;
pub mod segment;
mod small_bytes;
mod snapshot;
mod store;
mod timer_calls;
mod timers;
mod values;

#[cfg(test)]
mod tests;

pub use budget::{StateBudget, StateShare};
pub use cells::Counts;
pub use clock::CallTime;
pub use collections::LIST_BYTES_MAX;
pub use error::{SegmentError, StateError};
pub use segment::{Segment, merge_segments};
pub use snapshot::FrozenState;
pub use timer_calls::DueTimers;
pub use timers::Timer;

use cells::Context;
use clock::Clock;
use key_table::{Entry, KeyTable, Resolved};
use record::{EVENT_TIMERS, PROCESSING_TIMERS};
use snapshot::Snapshot;
use std::collections::VecDeque;
use std::ops::Range;
use store::Store;
use tidegate_core::key_group;
use tidegate_core::limits::GuestLimits;
use tidegate_core::state_schema::{StateDeclaration, StateKind, TimeDomain};

/// Index of a distinct key of the call.
pub type Slot = u32;

/// Index of a state in the operator's declarations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u16);

/// Byte strings as `bytes-column` has them: string i is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Column {
    pub data: Vec<u8>,
    pub offsets: Vec<u32>,
}

impl Column {
    pub fn new() -> Self {
        Self { data: Vec::new(), offsets: vec![0] }
    }

    /// Appends a string. Whoever fills a column bounds it below 4 GiB.
    pub fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.end_string();
    }

    fn end_string(&mut self) {
        let end = u32::try_from(self.data.len());
        self.offsets.push(end.expect("BUG: a column of 4 GiB was built"));
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// String i of a column that was checked, or made here.
    pub fn get(&self, at: usize) -> &[u8] {
        &self.data[self.offsets[at] as usize..self.offsets[at + 1] as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.offsets.windows(2).map(|ends| &self.data[ends[0] as usize..ends[1] as usize])
    }
}

impl<'a> FromIterator<&'a [u8]> for Column {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(values: I) -> Self {
        let mut column = Self::new();
        values.into_iter().for_each(|value| column.push(value));
        column
    }
}

/// The open call.
#[derive(Default)]
struct Call {
    open: bool,
    /// Names the call, so that a state knows whether it has been touched in it.
    number: u64,
    resolved: Resolved,
    joined: Vec<u16>,
    timers: timer_calls::CallTimers,
}

pub struct KeyedState {
    declarations: Vec<StateDeclaration>,
    key_groups: u32,
    owned: Range<u32>,
    limits: GuestLimits,
    dropped_states: Vec<String>,
    keys: KeyTable,
    stores: Vec<Store>,
    /// Event time, processing time.
    timers: [timers::Timers; 2],
    call: Call,
    clock: Clock,
    snapshot: Snapshot,
    /// Number of the store that is being drained.
    drain_state: usize,
    /// Snapshots that a later freeze had to finish.
    drained: VecDeque<FrozenState>,
    /// Entries that may have become free.
    garbage: Vec<Entry>,
    sweep_state: usize,
}

fn kind_of(kind: StateKind) -> String {
    match kind {
        StateKind::Reducing(reducer) => format!("reducing state ({reducer:?})"),
        kind => format!("{} state", error::kind_name(kind)),
    }
}

fn domain_index(domain: TimeDomain) -> usize {
    match domain {
        TimeDomain::EventTime => 0,
        TimeDomain::ProcessingTime => 1,
    }
}

impl KeyedState {
    /// Empty state of the task that owns these key groups.
    pub fn new(declarations: &[StateDeclaration], key_groups: u32, owned: Range<u32>, limits: &GuestLimits) -> Self {
        assert!(declarations.len() < usize::from(EVENT_TIMERS), "BUG: {} states were declared", declarations.len());
        Self {
            declarations: declarations.to_vec(),
            key_groups,
            owned,
            limits: *limits,
            dropped_states: Vec::new(),
            keys: KeyTable::new(),
            stores: declarations.iter().enumerate().map(|(number, declared)| Store::new(number as u16, declared)).collect(),
            timers: [timers::Timers::new(EVENT_TIMERS), timers::Timers::new(PROCESSING_TIMERS)],
            call: Call::default(),
            clock: Clock::default(),
            snapshot: Snapshot::new(),
            drain_state: 0,
            drained: VecDeque::new(),
            garbage: Vec::new(),
            sweep_state: 0,
        }
    }

    pub fn state_id(&self, name: &str) -> Option<(StateId, StateKind)> {
        let number = self.stores.iter().position(|store| store.name == name)?;
        Some((StateId(number as u16), self.stores[number].kind))
    }

    /// Begins a call for these rows, which are checked: their distinct keys become its slots.
    pub fn begin_batch(&mut self, rows: &[u8], count: u32, now: CallTime) {
        self.begin(now);
        self.keys.resolve(rows, count, &mut self.call.resolved);
    }

    /// Begins a call for one key, which is slot 0.
    pub fn begin_key(&mut self, key: &[u8], now: CallTime) {
        self.begin(now);
        let resolved = &mut self.call.resolved;
        let (entry, made) = self.keys.find_or_insert(key_group::hash(key), key);
        if made {
            resolved.created.push(entry);
        }
        self.keys.assign(entry, &mut resolved.entries);
        resolved.slots.push(0);
    }

    fn begin(&mut self, now: CallTime) {
        assert!(!self.call.open, "BUG: a call begins within a call");
        self.clock.advance(now, &mut self.snapshot);
        let call = &mut self.call;
        call.open = true;
        call.number += 1;
        call.joined.clear();
        call.resolved.entries.clear();
        call.resolved.slots.clear();
        call.resolved.created.clear();
        call.timers.clear();
    }

    /// The slot of each row of the batch.
    pub fn slots(&self) -> &[Slot] {
        &self.call.resolved.slots
    }

    /// Distinct keys of the call.
    pub fn key_count(&self) -> u32 {
        self.call.resolved.entries.len() as u32
    }

    /// The key of a slot of the open call.
    pub fn key(&self, slot: Slot) -> &[u8] {
        assert!(self.call.open, "BUG: a slot is used outside its call");
        self.keys.key(self.call.resolved.entries[slot as usize])
    }

    /// The keys of the open call, by slot.
    pub fn keys_column(&self) -> Column {
        (0..self.key_count()).map(|slot| self.key(slot)).collect()
    }

    /// All that the call wrote holds.
    pub fn commit(&mut self) {
        assert!(self.call.open, "BUG: a commit without a call");
        for state in &self.call.joined {
            self.stores[usize::from(*state)].cells.commit();
        }
        self.apply_timers();
        self.end_call();
    }

    /// Nothing that the call wrote holds; timers that were due still are.
    pub fn rollback(&mut self) {
        assert!(self.call.open, "BUG: a rollback without a call");
        for state in &self.call.joined {
            self.stores[usize::from(*state)].cells.rollback(&self.call.resolved.entries, &mut self.garbage);
        }
        self.end_call();
    }

    fn end_call(&mut self) {
        self.call.open = false;
        self.garbage.append(&mut self.call.resolved.created);
        self.call.timers.clear();
        self.collect_garbage();
    }

    /// Gives entries back that turn out to hold nothing.
    fn collect_garbage(&mut self) {
        while let Some(entry) = self.garbage.pop() {
            let is_held =
                self.keys.is_free(entry) || self.keys.has_refs(entry) || self.stores.iter().any(|store| store.cells.holds(entry));
            if !is_held {
                self.keys.remove(entry);
            }
        }
    }

    /// Changes since the last freeze, tombstones included.
    pub fn dirty_entries(&self) -> u64 {
        let timers: usize = self.timers.iter().map(timers::Timers::dirty).sum();
        self.stores.iter().map(|store| store.cells.counts().dirty).sum::<u64>() + timers as u64
    }

    /// Values, map entries, lists and timers.
    pub fn live_entries(&self) -> u64 {
        let timers: usize = self.timers.iter().map(timers::Timers::len).sum();
        self.stores.iter().map(|store| store.cells.counts().live).sum::<u64>() + timers as u64
    }

    /// What values, map keys, elements and timers take, and the table of the keys.
    pub fn bytes(&self) -> u64 {
        let timers: usize = self.timers.iter().map(timers::Timers::bytes).sum();
        self.stores.iter().map(|store| store.cells.counts().bytes).sum::<u64>() + (self.keys.bytes() + timers) as u64
    }

    /// What the open call has made the journals remember.
    pub fn undo_bytes(&self) -> usize {
        self.stores.iter().map(|store| store.cells.undo_bytes()).sum()
    }

    /// Keys that have state or timers.
    pub fn live_keys(&self) -> u64 {
        self.keys.live() as u64
    }

    /// Counters of each state, in the order of the declarations.
    pub fn counts(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.stores.iter().map(|store| (store.name.as_str(), store.cells.counts()))
    }

    /// Removes up to `budget` expired entries' worth of cells, from where the last sweep ended. Between calls.
    pub fn sweep(&mut self, budget: usize, now: CallTime) {
        assert!(!self.call.open, "BUG: a sweep within a call");
        self.clock.advance(now, &mut self.snapshot);
        let mut budget = budget;
        let mut context = Context { keys: &self.keys, snapshot: &mut self.snapshot, garbage: &mut self.garbage };
        for _ in 0..self.stores.len() {
            let number = self.sweep_state % self.stores.len();
            if !self.stores[number].sweep(&mut budget, &self.clock, &mut context) {
                break;
            }
            self.sweep_state = number + 1;
        }
        self.collect_garbage();
    }
}
