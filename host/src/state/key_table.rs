//! The keys of a task: each has an entry, a number that is the index of its cells in every state.
//!
//! Invariants:
//! * an entry keeps its number while anything refers to it; entries lie in chunks, so nothing is ever moved as a whole;
//! * the slot of a key in the open call is `entry.slot`, and it holds only where `entries[entry.slot]` is that entry: nothing has
//!   to be reset between calls;
//! * `refs` counts timers and timer tombstones. Cells are not counted: they are looked at when an entry may have become free.
//!
//! A batch is resolved in stages, each of them a loop of loads that don't depend on each other, so that cache misses overlap:
//! hash all rows, load all home slots, load all entries, compare and assign.

use super::key_index::{KeyIndex, NONE, tag_of};
use tidegate_core::{key_group, row};

pub(super) type Entry = u32;

pub(super) const CHUNK_BITS: u32 = 12;
pub(super) const CHUNK: usize = 1 << CHUNK_BITS;

/// Where an entry lies: number of the chunk and place in it.
#[inline]
pub(super) fn place(entry: Entry) -> (usize, usize) {
    ((entry >> CHUNK_BITS) as usize, entry as usize & (CHUNK - 1))
}

const INLINE_KEY_MAX: usize = 15;
const LONG: u8 = 0xff;
const FREE: u8 = 0xfe;
/// Rows resolved at a time: their slots and entries together stay in the first-level cache.
const STAGE: usize = 256;

#[derive(Clone, Copy)]
struct KeyEntry {
    hash: u64,
    slot: u32,
    refs: u32,
    /// Up to 15 bytes, and the length in the last. `LONG`: the first four are the number of a long key.
    key: [u8; 16],
}

const UNUSED: KeyEntry = {
    let mut key = [0; 16];
    key[15] = FREE;
    KeyEntry { hash: 0, slot: 0, refs: 0, key }
};

/// Sixteen bytes that are the same for the same short key.
#[inline]
fn pack(bytes: &[u8], at: usize, len: usize) -> u128 {
    let raw = match bytes.get(at..at + 16) {
        Some(around) => u128::from_le_bytes(around.try_into().expect("sixteen bytes")) & ((1 << (8 * len)) - 1),
        None => {
            let mut key = [0; 16];
            key[..len].copy_from_slice(&bytes[at..at + len]);
            u128::from_le_bytes(key)
        }
    };
    raw | (len as u128) << 120
}

#[derive(Clone, Copy, Default)]
struct RowKey {
    hash: u64,
    at: usize,
    len: usize,
}

/// Reused by every batch.
#[derive(Default)]
struct Stages {
    keys: Vec<RowKey>,
    home_slots: Vec<u64>,
    candidates: Vec<(Entry, u64)>,
}

/// What a batch comes down to.
#[derive(Default)]
pub(super) struct Resolved {
    /// The entry of each slot.
    pub entries: Vec<Entry>,
    /// The slot of each row.
    pub slots: Vec<u32>,
    /// Entries made by this call: they are given back where it leaves nothing in them.
    pub created: Vec<Entry>,
}

pub(super) struct KeyTable {
    index: KeyIndex,
    chunks: Vec<Box<[KeyEntry; CHUNK]>>,
    len: u32,
    free: Vec<Entry>,
    /// In chunks as well.
    long: Vec<Vec<Box<[u8]>>>,
    free_long: Vec<u32>,
    long_bytes: usize,
    stages: Stages,
}

impl KeyTable {
    pub fn new() -> Self {
        Self {
            index: KeyIndex::new(),
            chunks: Vec::new(),
            len: 0,
            free: Vec::new(),
            long: Vec::new(),
            free_long: Vec::new(),
            long_bytes: 0,
            stages: Stages::default(),
        }
    }

    /// Keys that have an entry.
    pub fn live(&self) -> usize {
        self.len as usize - self.free.len()
    }

    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.chunks.len() * CHUNK * size_of::<KeyEntry>() + self.long_bytes
    }

    #[inline]
    fn entry(&self, entry: Entry) -> &KeyEntry {
        let (chunk, at) = place(entry);
        &self.chunks[chunk][at]
    }

    #[inline]
    fn entry_mut(&mut self, entry: Entry) -> &mut KeyEntry {
        let (chunk, at) = place(entry);
        &mut self.chunks[chunk][at]
    }

    #[inline]
    pub fn key(&self, entry: Entry) -> &[u8] {
        let found = self.entry(entry);
        match found.key[15] {
            LONG => self.long_key(&found.key),
            FREE => panic!("BUG: the key of entry {entry} was freed"),
            len => &found.key[..len as usize],
        }
    }

    fn long_key(&self, reference: &[u8; 16]) -> &[u8] {
        let number = u32::from_le_bytes([reference[0], reference[1], reference[2], reference[3]]) as usize;
        &self.long[number / CHUNK][number % CHUNK]
    }

    #[inline]
    pub fn hash(&self, entry: Entry) -> u64 {
        self.entry(entry).hash
    }

    pub fn add_ref(&mut self, entry: Entry) {
        self.entry_mut(entry).refs += 1;
    }

    /// True where it was the last one.
    pub fn drop_ref(&mut self, entry: Entry) -> bool {
        let found = self.entry_mut(entry);
        assert!(found.refs > 0, "BUG: entry {entry} has no references left");
        found.refs -= 1;
        found.refs == 0
    }

    pub fn has_refs(&self, entry: Entry) -> bool {
        self.entry(entry).refs > 0
    }

    pub fn is_free(&self, entry: Entry) -> bool {
        self.entry(entry).key[15] == FREE
    }

    /// The entry of a key, made where there is none. True: made.
    pub fn find_or_insert(&mut self, hash: u64, key: &[u8]) -> (Entry, bool) {
        self.locate(hash, key, 0, key.len())
    }

    fn locate(&mut self, hash: u64, bytes: &[u8], at: usize, len: usize) -> (Entry, bool) {
        let tag = tag_of(hash);
        let found = if len <= INLINE_KEY_MAX {
            let packed = pack(bytes, at, len);
            self.index.find(tag, |entry| u128::from_le_bytes(self.entry(entry).key) == packed)
        } else {
            let key = &bytes[at..at + len];
            self.index.find(tag, |entry| {
                let found = self.entry(entry);
                found.hash == hash && found.key[15] == LONG && self.long_key(&found.key) == key
            })
        };
        match found {
            Some(entry) => (entry, false),
            None => (self.insert(hash, &bytes[at..at + len]), true),
        }
    }

    fn insert(&mut self, hash: u64, key: &[u8]) -> Entry {
        let entry = self.free.pop().unwrap_or_else(|| {
            let entry = self.len;
            assert!(entry < NONE, "BUG: {entry} keys in one task");
            if place(entry).0 == self.chunks.len() {
                let chunk: Box<[KeyEntry]> = vec![UNUSED; CHUNK].into_boxed_slice();
                self.chunks.push(chunk.try_into().ok().expect("the length of a chunk"));
            }
            self.len += 1;
            entry
        });
        let stored = if key.len() <= INLINE_KEY_MAX { pack(key, 0, key.len()).to_le_bytes() } else { self.insert_long(key) };
        *self.entry_mut(entry) = KeyEntry { hash, slot: 0, refs: 0, key: stored };
        self.index.insert(tag_of(hash), entry);
        entry
    }

    fn insert_long(&mut self, key: &[u8]) -> [u8; 16] {
        let number = match self.free_long.pop() {
            Some(number) => {
                self.long[number as usize / CHUNK][number as usize % CHUNK] = key.into();
                number
            }
            None => {
                if self.long.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    self.long.push(Vec::with_capacity(CHUNK));
                }
                let chunks = self.long.len();
                let last = self.long.last_mut().expect("a chunk");
                last.push(key.into());
                ((chunks - 1) * CHUNK + last.len() - 1) as u32
            }
        };
        self.long_bytes += key.len() + 16;
        let mut reference = [0; 16];
        reference[..4].copy_from_slice(&number.to_le_bytes());
        reference[15] = LONG;
        reference
    }

    /// Gives an entry back. Nothing may refer to it any more.
    pub fn remove(&mut self, entry: Entry) {
        let found = *self.entry(entry);
        assert!(found.refs == 0 && found.key[15] != FREE, "BUG: entry {entry} was freed while in use");
        self.index.remove(tag_of(found.hash), entry);
        if found.key[15] == LONG {
            let number = u32::from_le_bytes([found.key[0], found.key[1], found.key[2], found.key[3]]);
            let key = std::mem::take(&mut self.long[number as usize / CHUNK][number as usize % CHUNK]);
            self.long_bytes -= key.len() + 16;
            self.free_long.push(number);
        }
        *self.entry_mut(entry) = UNUSED;
        self.free.push(entry);
    }

    /// The slot of an entry in the call, given out at its first appearance.
    #[inline]
    pub fn assign(&mut self, entry: Entry, entries: &mut Vec<Entry>) -> u32 {
        let found = self.entry_mut(entry);
        let slot = found.slot;
        if entries.get(slot as usize) == Some(&entry) {
            return slot;
        }
        found.slot = entries.len() as u32;
        entries.push(entry);
        found.slot
    }

    /// Resolves the distinct keys of checked rows.
    pub fn resolve(&mut self, rows: &[u8], count: u32, out: &mut Resolved) {
        let mut stages = std::mem::take(&mut self.stages);
        out.slots.reserve(count as usize);
        let mut at = 0;
        let mut left = count as usize;
        while left > 0 {
            let block = left.min(STAGE);
            left -= block;

            stages.keys.clear();
            for _ in 0..block {
                let (found, len) = row::first(&rows[at..]);
                stages.keys.push(RowKey { hash: key_group::hash(found.key), at: at + row::HEADER_BYTES, len: found.key.len() });
                at += len;
            }
            stages.home_slots.clear();
            stages.home_slots.extend(stages.keys.iter().map(|key| self.index.home_slot(tag_of(key.hash))));
            stages.candidates.clear();
            stages.candidates.extend(
                stages.keys.iter().zip(&stages.home_slots).map(|(key, home)| (self.index.candidate(tag_of(key.hash), *home), 0)),
            );
            for (entry, hash) in &mut stages.candidates {
                if *entry != NONE {
                    *hash = self.entry(*entry).hash;
                }
            }
            for (key, (candidate, hash)) in stages.keys.iter().zip(&stages.candidates) {
                let is_it = *hash == key.hash && *candidate != NONE && self.is_key(*candidate, rows, key);
                // An earlier row of the batch may have made the entry since, so a miss looks again.
                let entry = if is_it {
                    *candidate
                } else {
                    let (entry, made) = self.locate(key.hash, rows, key.at, key.len);
                    if made {
                        out.created.push(entry);
                    }
                    entry
                };
                let slot = self.assign(entry, &mut out.entries);
                out.slots.push(slot);
            }
        }
        assert!(at == rows.len(), "BUG: unchecked rows: {count} rows end at byte {at} of {}", rows.len());
        self.stages = stages;
    }

    #[inline]
    fn is_key(&self, entry: Entry, rows: &[u8], key: &RowKey) -> bool {
        let found = self.entry(entry);
        if key.len <= INLINE_KEY_MAX {
            u128::from_le_bytes(found.key) == pack(rows, key.at, key.len)
        } else {
            found.key[15] == LONG && self.long_key(&found.key) == &rows[key.at..key.at + key.len]
        }
    }
}
