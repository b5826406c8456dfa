//! Entries of map states that a batch touches, found by slot and map key, with a journal of the record at hand.
//!
//! Invariants:
//! * an entry stays where it is for the length of the batch, so its number names it;
//! * undo goes through the journal backwards, so of two writes of one entry the older value wins.

use super::arena::{Arena, Cell};

/// The end of a chain of entries.
const NONE: u32 = u32::MAX;

/// One entry of one key's map, as of the record at hand. An empty value is an absent entry, if it is `known` at all: an entry whose
/// only write was undone is not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub slot: u32,
    hash: u32,
    pub key: Cell,
    pub value: Cell,
    pub known: bool,
    pub dirty: bool,
    next_in_bucket: u32,
    next_in_slot: u32,
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    pub entries: Vec<Entry>,
    pub bytes: Arena,
    /// First entry of each bucket; a power of two.
    buckets: Vec<u32>,
    /// First entry of each slot.
    slots: Vec<u32>,
    /// The record at hand, if it wrote.
    pub record: u32,
    /// Bulks there were before it.
    pub bulks_before: usize,
    journal: Vec<Journaled>,
    journal_bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Journaled {
    entry: u32,
    known: bool,
    dirty: bool,
    /// Where the old value ends in `journal_bytes`.
    end: usize,
}

fn hash(slot: u32, key: &[u8]) -> u32 {
    const MULTIPLIER: u64 = 0x517c_c1b7_2722_0a95;
    let mut hash = u64::from(slot).wrapping_mul(MULTIPLIER);
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        hash = (hash.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER);
    }
    for byte in chunks.remainder() {
        hash = (hash.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(MULTIPLIER);
    }
    (hash >> 32) as u32
}

impl Cache {
    pub fn clear(&mut self, keys: u32) {
        if !self.entries.is_empty() {
            self.entries.clear();
            self.bytes.clear();
            self.buckets.fill(NONE);
        }
        self.slots.clear();
        self.slots.resize(keys as usize, NONE);
        self.record = 0;
    }

    /// No entry of this slot was asked for yet.
    pub fn is_untouched(&self, slot: u32) -> bool {
        self.slots[slot as usize] == NONE
    }

    pub fn find(&self, slot: u32, key: &[u8]) -> Option<usize> {
        let hash = hash(slot, key);
        let mut at = *self.buckets.get(hash as usize & self.buckets.len().wrapping_sub(1))?;
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.hash == hash && entry.slot == slot && self.bytes.get(entry.key) == key {
                return Some(at as usize);
            }
            at = entry.next_in_bucket;
        }
        None
    }

    /// An entry that nothing is known about. It must not be there yet.
    pub fn add(&mut self, slot: u32, key: &[u8]) -> usize {
        if self.entries.len() >= self.buckets.len() {
            self.grow();
        }
        let mut key_cell = Cell::default();
        self.bytes.put(&mut key_cell, key);
        let at = self.entries.len();
        let hash = hash(slot, key);
        let bucket = hash as usize & (self.buckets.len() - 1);
        self.entries.push(Entry {
            slot,
            hash,
            key: key_cell,
            value: Cell::default(),
            known: false,
            dirty: false,
            next_in_bucket: std::mem::replace(&mut self.buckets[bucket], at as u32),
            next_in_slot: std::mem::replace(&mut self.slots[slot as usize], at as u32),
        });
        at
    }

    fn grow(&mut self) {
        let buckets = (self.buckets.len() * 2).max(64);
        self.buckets.clear();
        self.buckets.resize(buckets, NONE);
        for (at, entry) in self.entries.iter_mut().enumerate() {
            let bucket = &mut self.buckets[entry.hash as usize & (buckets - 1)];
            entry.next_in_bucket = std::mem::replace(bucket, at as u32);
        }
    }

    pub fn mark(&mut self, record: u32, bulks: usize) {
        if self.record != record {
            self.record = record;
            self.bulks_before = bulks;
            self.journal.clear();
            self.journal_bytes.clear();
        }
    }

    pub fn write(&mut self, at: usize, value: &[u8]) {
        let entry = &mut self.entries[at];
        self.journal_bytes.extend_from_slice(self.bytes.get(entry.value));
        self.journal.push(Journaled { entry: at as u32, known: entry.known, dirty: entry.dirty, end: self.journal_bytes.len() });
        (entry.known, entry.dirty) = (true, true);
        self.bytes.put(&mut entry.value, value);
    }

    pub fn undo(&mut self) {
        while let Some(last) = self.journal.pop() {
            let start = self.journal.last().map_or(0, |journaled| journaled.end);
            let entry = &mut self.entries[last.entry as usize];
            (entry.known, entry.dirty) = (last.known, last.dirty);
            self.bytes.put(&mut entry.value, &self.journal_bytes[start..last.end]);
        }
        self.record = 0;
    }

    /// Entries of a slot, in no order.
    pub fn of_slot(&self, slot: u32) -> impl Iterator<Item = (usize, &Entry)> {
        let mut at = self.slots[slot as usize];
        std::iter::from_fn(move || {
            let here = at;
            let entry = self.entries.get(here as usize)?;
            at = entry.next_in_slot;
            Some((here as usize, entry))
        })
    }
}
