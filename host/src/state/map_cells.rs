//! A map for each key, with a snapshot of single map entries.
//!
//! A node carries what bits carry elsewhere: `dirty` (changed since the last freeze it has seen), `base` (in the last snapshot) and
//! `seen`, the freeze up to which it is settled. A removed node of the base stays as a tombstone (empty value) until it is drained.
//!
//! Invariants:
//! * every dirty node is in a list of changes under its number (`seq`): in `changes` where it changed in this epoch, in `frozen`
//!   where it waits to be drained; what is in a list and doesn't match a node any more is void;
//! * a node that a snapshot still needs is emitted before it is written (`settle`);
//! * an entry without nodes holds nothing.

use super::cells::{Context, Counts};
use super::key_table::{CHUNK, Entry, place};
use super::ordered_map::OrderedMap;
use super::record::{Op, Record};
use super::small_bytes::SmallBytes;
use std::collections::VecDeque;
use std::ops::Bound;
use tidegate_core::state_schema::TimeDomain;

#[derive(Clone)]
struct Node {
    /// Empty: a tombstone.
    value: SmallBytes,
    stamp: i64,
    seen: u32,
    seq: u32,
    dirty: bool,
    base: bool,
}

type Cell = OrderedMap<Node>;

struct Change {
    entry: Entry,
    seq: u32,
    key: SmallBytes,
}

struct Undo {
    slot: u32,
    key: SmallBytes,
    old: Option<Node>,
}

/// Where a walk over all nodes goes on: behind `key` of the entry, or at its head.
#[derive(Default)]
struct Cursor {
    entry: Entry,
    key: Option<SmallBytes>,
}

impl Cursor {
    fn bound(&self) -> Bound<&[u8]> {
        self.key.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()))
    }

    fn next_entry(&mut self) {
        self.entry += 1;
        self.key = None;
    }
}

pub(super) struct MapCells {
    pub state: u16,
    stamps: Option<TimeDomain>,
    chunks: Vec<Box<[Cell]>>,
    pub counts: Counts,
    seq: u32,
    changes: VecDeque<Change>,
    frozen: VecDeque<Change>,
    undo: Vec<Undo>,
    /// Of keys and values in `undo`, and of itself.
    undo_bytes: usize,
    drain_at: Cursor,
    sweep_at: Cursor,
}

impl MapCells {
    pub fn new(state: u16, stamps: Option<TimeDomain>) -> Self {
        Self {
            state,
            stamps,
            chunks: Vec::new(),
            counts: Counts::default(),
            seq: 0,
            changes: VecDeque::new(),
            frozen: VecDeque::new(),
            undo: Vec::new(),
            undo_bytes: 0,
            drain_at: Cursor::default(),
            sweep_at: Cursor::default(),
        }
    }

    pub fn ensure(&mut self, chunks: usize) {
        while self.chunks.len() < chunks {
            self.chunks.push((0..CHUNK).map(|_| Cell::default()).collect());
        }
    }

    fn cell(&self, entry: Entry) -> Option<&Cell> {
        let (chunk, at) = place(entry);
        self.chunks.get(chunk).map(|chunk| &chunk[at])
    }

    pub fn holds(&self, entry: Entry) -> bool {
        self.cell(entry).is_some_and(|cell| !cell.is_empty())
    }

    #[inline]
    pub fn get(&self, entry: Entry, key: &[u8]) -> Option<(&[u8], i64)> {
        let node = self.cell(entry)?.get(key)?;
        (!node.value.is_empty()).then(|| (node.value.as_slice(), node.stamp))
    }

    /// Map entries with `first <= key < last`, in order: key, value, time of the last write.
    pub fn scan<'a>(
        &'a self,
        entry: Entry,
        first: Option<&[u8]>,
        last: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8], i64)> {
        self.cell(entry)
            .map(|cell| cell.range(first.map_or(Bound::Unbounded, Bound::Included), last))
            .into_iter()
            .flatten()
            .filter(|(_, node)| !node.value.is_empty())
            .map(|(key, node)| (key.as_slice(), node.value.as_slice(), node.stamp))
    }

    /// Brings a node past the latest freeze: what the snapshot still needs of it is emitted.
    #[inline]
    fn settle(state: u16, stamps: Option<TimeDomain>, node: &mut Node, entry: Entry, key: &[u8], context: &mut Context<'_>) {
        let snapshot = &mut *context.snapshot;
        if node.seen == snapshot.epoch {
            return;
        }
        let live = !node.value.is_empty();
        if snapshot.active && if snapshot.full { live } else { node.dirty } {
            let stamp = stamps.filter(|_| live).map(|domain| snapshot.stamp(domain, node.stamp));
            snapshot.out.push(&Record {
                hash: context.keys.hash(entry),
                key: context.keys.key(entry),
                state,
                op: if live { Op::Put } else { Op::Remove },
                sub: key,
                stamp,
                value: node.value.as_slice(),
            });
        }
        node.base = live;
        node.dirty = false;
        node.seen = snapshot.epoch;
    }

    fn mark(&mut self, entry: Entry, key: &[u8]) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.counts.dirty += 1;
        self.changes.push_back(Change { entry, seq: self.seq, key: key.into() });
        self.seq
    }

    /// Writes a map entry, or with `None` removes it. `slot`: journal under it; `None` outside a call.
    pub fn write(
        &mut self,
        slot: Option<u32>,
        entry: Entry,
        key: &[u8],
        value: Option<&[u8]>,
        stamp: i64,
        context: &mut Context<'_>,
    ) {
        let (chunk, at) = place(entry);
        let Some(node) = self.chunks[chunk][at].get_mut(key) else {
            let Some(value) = value else { return };
            self.journal(slot, key, None);
            let seq = self.mark(entry, key);
            self.counts.live += 1;
            self.counts.bytes += (key.len() + value.len()) as u64;
            let node = Node { value: value.into(), stamp, seen: context.snapshot.epoch, seq, dirty: true, base: false };
            self.chunks[chunk][at].insert(key.into(), node);
            return;
        };
        let was_live = !node.value.is_empty();
        if !was_live && value.is_none() {
            return;
        }
        Self::settle(self.state, self.stamps, node, entry, key, context);
        let old_len = node.value.len();
        let (was_dirty, base) = (node.dirty, node.base);
        if let Some(slot) = slot {
            self.undo_bytes += size_of::<Undo>() + key.len() + old_len;
            self.undo.push(Undo { slot, key: key.into(), old: Some(node.clone()) });
        }
        if was_live {
            self.counts.live -= 1;
            self.counts.bytes -= (key.len() + old_len) as u64;
        }
        match value {
            Some(value) => {
                node.value.set(value);
                node.stamp = stamp;
                node.dirty = true;
                self.counts.live += 1;
                self.counts.bytes += (key.len() + value.len()) as u64;
            }
            None if base => {
                node.value = SmallBytes::EMPTY;
                node.dirty = true;
            }
            None => {
                self.counts.dirty -= u64::from(was_dirty);
                self.chunks[chunk][at].remove(key);
                context.garbage.push(entry);
                return;
            }
        }
        if !was_dirty {
            let seq = self.mark(entry, key);
            self.chunks[chunk][at].get_mut(key).expect("the node").seq = seq;
        }
    }

    fn journal(&mut self, slot: Option<u32>, key: &[u8], old: Option<Node>) {
        if let Some(slot) = slot {
            self.undo_bytes += size_of::<Undo>() + key.len();
            self.undo.push(Undo { slot, key: key.into(), old });
        }
    }

    /// Removes all map entries with `first <= key < last`.
    pub fn remove_range(
        &mut self,
        slot: u32,
        entry: Entry,
        first: Option<&[u8]>,
        last: Option<&[u8]>,
        context: &mut Context<'_>,
    ) {
        let keys: Vec<SmallBytes> = self.scan(entry, first, last).map(|(key, _, _)| key.into()).collect();
        for key in keys {
            self.write(Some(slot), entry, key.as_slice(), None, 0, context);
        }
    }

    /// What the open call has made the journal remember.
    pub fn undo_bytes(&self) -> usize {
        self.undo_bytes
    }

    pub fn commit(&mut self) {
        self.undo.clear();
        self.undo.shrink_to(4096);
        self.undo_bytes = 0;
        self.forget_void_changes();
    }

    /// Without checkpoints nobody empties the list, and entries that come and go leave void changes in it. Whenever more than half
    /// is void, each call looks at a few of the oldest, so that the work is spread.
    fn forget_void_changes(&mut self) {
        let dirty = self.counts.dirty as usize;
        let mut steps = 4 * (self.changes.len().saturating_sub(2 * dirty + 1024)).min(4096);
        while steps > 0 {
            steps -= 1;
            let Some(change) = self.changes.pop_front() else { return };
            let (chunk, at) = place(change.entry);
            let node = self.chunks[chunk][at].get(change.key.as_slice());
            if node.is_some_and(|node| node.dirty && node.seq == change.seq) {
                self.changes.push_back(change);
            }
        }
    }

    pub fn rollback(&mut self, entries: &[Entry], garbage: &mut Vec<Entry>) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            let entry = entries[undo.slot as usize];
            let (chunk, at) = place(entry);
            let cell = &mut self.chunks[chunk][at];
            if let Some(node) = cell.get(undo.key.as_slice()) {
                self.counts.dirty -= u64::from(node.dirty);
                if !node.value.is_empty() {
                    self.counts.live -= 1;
                    self.counts.bytes -= (undo.key.len() + node.value.len()) as u64;
                }
            }
            match undo.old {
                // A tombstone that went into the snapshot just before it was overwritten: nothing needs it any more.
                Some(old) if old.dirty || !old.value.is_empty() => {
                    self.counts.dirty += u64::from(old.dirty);
                    if !old.value.is_empty() {
                        self.counts.live += 1;
                        self.counts.bytes += (undo.key.len() + old.value.len()) as u64;
                    }
                    cell.insert(undo.key, old);
                }
                _ => {
                    cell.remove(undo.key.as_slice());
                    garbage.push(entry);
                }
            }
        }
        self.commit();
    }

    pub fn freeze(&mut self) {
        assert!(self.frozen.is_empty(), "BUG: a freeze before the last one was drained");
        self.frozen = std::mem::take(&mut self.changes);
        self.counts.dirty = 0;
        self.drain_at = Cursor::default();
    }

    /// Emits what the freeze changed, then, for a full snapshot, everything else.
    pub fn drain(&mut self, budget: &mut usize, context: &mut Context<'_>) -> bool {
        while let Some(change) = self.frozen.front() {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let (entry, seq) = (change.entry, change.seq);
            let key = self.frozen.pop_front().expect("a change").key;
            let (chunk, at) = place(entry);
            let cell = &mut self.chunks[chunk][at];
            let Some(node) = cell.get_mut(key.as_slice()) else { continue };
            if !node.dirty || node.seq != seq || node.seen == context.snapshot.epoch {
                continue;
            }
            Self::settle(self.state, self.stamps, node, entry, key.as_slice(), context);
            if node.value.is_empty() {
                cell.remove(key.as_slice());
                context.garbage.push(entry);
            }
        }
        self.frozen = VecDeque::new();
        !context.snapshot.full || self.drain_all(budget, context)
    }

    fn drain_all(&mut self, budget: &mut usize, context: &mut Context<'_>) -> bool {
        while let Some(keys) = self.walk(&self.drain_at, budget) {
            let entry = self.drain_at.entry;
            let (chunk, at) = place(entry);
            for key in &keys {
                let node = self.chunks[chunk][at].get_mut(key.as_slice()).expect("the node");
                Self::settle(self.state, self.stamps, node, entry, key.as_slice(), context);
            }
            match keys.into_iter().next_back() {
                Some(key) => self.drain_at.key = Some(key),
                None if *budget == 0 => return false,
                None => {
                    *budget -= 1;
                    self.drain_at.next_entry();
                }
            }
        }
        true
    }

    /// The next keys of the cursor's entry, as many as the budget allows. `None`: there are no more entries.
    fn walk(&self, cursor: &Cursor, budget: &mut usize) -> Option<Vec<SmallBytes>> {
        let (chunk, at) = place(cursor.entry);
        let cell = &self.chunks.get(chunk)?[at];
        let keys: Vec<_> = cell.range(cursor.bound(), None).take(*budget).map(|(key, _)| key.clone()).collect();
        *budget -= keys.len();
        Some(keys)
    }

    pub fn sweep(&mut self, budget: &mut usize, is_expired: impl Fn(i64) -> bool, context: &mut Context<'_>) -> bool {
        while let Some(keys) = self.walk(&self.sweep_at, budget) {
            let entry = self.sweep_at.entry;
            for key in &keys {
                if self.get(entry, key.as_slice()).is_some_and(|(_, stamp)| is_expired(stamp)) {
                    self.write(None, entry, key.as_slice(), None, 0, context);
                }
            }
            match keys.into_iter().next_back() {
                Some(key) => self.sweep_at.key = Some(key),
                None if *budget == 0 => return false,
                None => {
                    *budget -= 1;
                    self.sweep_at.next_entry();
                }
            }
        }
        self.sweep_at = Cursor::default();
        self.forget_void_changes();
        true
    }

    pub fn restore(&mut self, entry: Entry, key: &[u8], value: Option<&[u8]>, stamp: i64, epoch: u32) {
        let (chunk, at) = place(entry);
        self.ensure(chunk + 1);
        let cell = &mut self.chunks[chunk][at];
        if let Some(old) = cell.get(key) {
            self.counts.live -= 1;
            self.counts.bytes -= (key.len() + old.value.len()) as u64;
        }
        match value {
            Some(value) => {
                self.counts.live += 1;
                self.counts.bytes += (key.len() + value.len()) as u64;
                cell.insert(key.into(), Node { value: value.into(), stamp, seen: epoch, seq: 0, dirty: false, base: true });
            }
            None => {
                cell.remove(key);
            }
        }
    }
}
