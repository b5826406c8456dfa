//! A map for each key, ordered by its map keys.
//!
//! Entries that a batch touches are kept here until its end: read once from the host, written once to it. Removing a range or the
//! whole map is remembered as such (`Bulk`) and shadows the host until then. Walking a range merges the host's pages with the
//! entries kept here.
//!
//! Undo: the first write of a record to an entry copies the old value into the record's journal.

use super::arena::{Arena, Cell};
use super::{StateField, StateOptions, slot_of, undecodable, wit_type_of};
use crate::context::Ctx;
use crate::declaration::{StateDeclaration, StateKind};
use crate::encoding::StateValue;
use crate::encoding::map_key::MapKey;
use crate::platform;
use crate::record::Record;
use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow, RangeBounds};

/// Entries asked for at a time.
const PAGE: u32 = 256;
const NONE: u32 = u32::MAX;

/// A map for each key, ordered by its map keys.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// # #[operator(keyed)] struct Doc {
/// by_hour: MapState<i64, (u64, f64)>,
/// # }
/// # impl Operator for Doc { fn process(&mut self, _: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
/// let (count, sum) = self.by_hour.get(ctx, &7).unwrap_or_default();
/// self.by_hour.insert(ctx, &7, (count + 1, sum + 2.5));
/// for (hour, (count, _)) in self.by_hour.range(ctx, ..12) {
///     ctx.emit(format!("{hour}: {count}"));
/// }
/// self.by_hour.remove_range(ctx, ..12);
/// # Ok(()) } }
/// ```
#[derive(Debug)]
pub struct MapState<K: MapKey, V: StateValue> {
    name: &'static str,
    handle: platform::MapHandle,
    cache: Cache,
    bulks: Vec<Bulk>,
    key: Vec<u8>,
    value: Vec<u8>,
    slots: Vec<u32>,
    map_keys: platform::BytesColumn,
    values: platform::BytesColumn,
    types: PhantomData<fn() -> (K, V)>,
}

/// Everything from `first` to before `last` is removed, before any entry of the cache is written.
#[derive(Debug)]
struct Bulk {
    slot: u32,
    first: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
}

impl Bulk {
    fn covers(&self, slot: u32, key: &[u8]) -> bool {
        self.slot == slot && in_range(key, self.first.as_deref(), self.last.as_deref())
    }
}

fn in_range(key: &[u8], first: Option<&[u8]>, last: Option<&[u8]>) -> bool {
    first.is_none_or(|first| first <= key) && last.is_none_or(|last| key < last)
}

/// One entry of one key's map, as of the record at hand. An empty value is an absent entry, if it is `known` at all: an entry whose
/// only write was undone is not.
#[derive(Debug, Clone, Copy)]
struct Entry {
    slot: u32,
    hash: u32,
    key: Cell,
    value: Cell,
    known: bool,
    dirty: bool,
    next_in_bucket: u32,
    next_in_slot: u32,
}

#[derive(Debug, Default)]
struct Cache {
    entries: Vec<Entry>,
    bytes: Arena,
    /// First entry of each bucket; a power of two.
    buckets: Vec<u32>,
    /// First entry of each slot.
    slots: Vec<u32>,
    record: u32,
    /// Bulks there were before the record at hand.
    bulks_before: usize,
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
    fn clear(&mut self, keys: u32) {
        if !self.entries.is_empty() {
            self.entries.clear();
            self.bytes.clear();
            self.buckets.fill(NONE);
        }
        self.slots.clear();
        self.slots.resize(keys as usize, NONE);
        self.record = 0;
    }

    fn find(&self, slot: u32, key: &[u8]) -> Option<usize> {
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
    fn add(&mut self, slot: u32, key: &[u8]) -> usize {
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

    fn mark(&mut self, record: u32, bulks: usize) {
        if self.record != record {
            self.record = record;
            self.bulks_before = bulks;
            self.journal.clear();
            self.journal_bytes.clear();
        }
    }

    fn write(&mut self, at: usize, value: &[u8]) {
        let entry = &mut self.entries[at];
        // A record that writes an entry twice journals it twice; undo goes backwards, so the oldest one wins.
        self.journal_bytes.extend_from_slice(self.bytes.get(entry.value));
        self.journal.push(Journaled { entry: at as u32, known: entry.known, dirty: entry.dirty, end: self.journal_bytes.len() });
        (entry.known, entry.dirty) = (true, true);
        self.bytes.put(&mut entry.value, value);
    }

    fn undo(&mut self) {
        while let Some(last) = self.journal.pop() {
            let start = self.journal.last().map_or(0, |journaled| journaled.end);
            let entry = &mut self.entries[last.entry as usize];
            (entry.known, entry.dirty) = (last.known, last.dirty);
            self.bytes.put(&mut entry.value, &self.journal_bytes[start..last.end]);
        }
        self.record = 0;
    }

    /// Entries of a slot, in no order.
    fn of_slot(&self, slot: u32) -> impl Iterator<Item = (usize, &Entry)> {
        let mut at = self.slots[slot as usize];
        std::iter::from_fn(move || {
            let here = at;
            let entry = self.entries.get(here as usize)?;
            at = entry.next_in_slot;
            Some((here as usize, entry))
        })
    }
}

impl<K: MapKey, V: StateValue> MapState<K, V> {
    /// The value of a map key.
    #[inline]
    pub fn get(&mut self, ctx: &Ctx<'_>, key: &K) -> Option<V> {
        let at = self.entry(slot_of(ctx), key);
        let cell = self.cache.entries[at].value;
        (!cell.is_empty()).then(|| self.decode_value(self.cache.bytes.get(cell)))
    }

    pub fn contains(&mut self, ctx: &Ctx<'_>, key: &K) -> bool {
        let at = self.entry(slot_of(ctx), key);
        !self.cache.entries[at].value.is_empty()
    }

    /// Puts a value. A value is never empty: an empty text or `None` removes the entry.
    #[inline]
    pub fn insert(&mut self, ctx: &Ctx<'_>, key: &K, value: V) {
        self.value.clear();
        value.encode(&mut self.value);
        self.write(ctx, key);
    }

    /// Reads, changes and writes; gives what was written.
    #[inline]
    pub fn update(&mut self, ctx: &Ctx<'_>, key: &K, change: impl FnOnce(Option<V>) -> V) -> V
    where
        V: Clone,
    {
        let value = change(self.get(ctx, key));
        self.insert(ctx, key, value.clone());
        value
    }

    /// Removes an entry. One that is not there is no error.
    pub fn remove(&mut self, ctx: &Ctx<'_>, key: &K) {
        self.value.clear();
        self.write(ctx, key);
    }

    /// The entries of a range of map keys, in order. See [`for_each`](Self::for_each) for walking without keeping them.
    pub fn range(&mut self, ctx: &Ctx<'_>, range: impl RangeBounds<K>) -> Vec<(K, V)> {
        let mut entries = Vec::new();
        self.for_each(ctx, range, |key, value| {
            entries.push((key, value));
            ControlFlow::Continue(())
        });
        entries
    }

    /// Walks the entries of a range in order, page by page, until the closure breaks.
    pub fn for_each(&mut self, ctx: &Ctx<'_>, range: impl RangeBounds<K>, mut each: impl FnMut(K, V) -> ControlFlow<()>) {
        let (first, last) = bounds(&range);
        let name = self.name;
        self.walk(slot_of(ctx), first, last.as_deref(), |key, value| {
            let key = K::decode(key).unwrap_or_else(|error| undecodable(name, &error));
            each(key, V::decode(value).unwrap_or_else(|error| undecodable(name, &error)))
        });
    }

    /// The entry with the least map key.
    pub fn first(&mut self, ctx: &Ctx<'_>) -> Option<(K, V)> {
        let mut first = None;
        self.for_each(ctx, .., |key, value| {
            first = Some((key, value));
            ControlFlow::Break(())
        });
        first
    }

    pub fn is_empty(&mut self, ctx: &Ctx<'_>) -> bool {
        let slot = slot_of(ctx);
        if self.cache.slots[slot as usize] == NONE && !self.bulks.iter().any(|bulk| bulk.slot == slot) {
            return self.handle.is_empty(slot);
        }
        let mut empty = true;
        self.walk(slot, None, None, |_, _| {
            empty = false;
            ControlFlow::Break(())
        });
        empty
    }

    /// Removes the entries of a range without reading them.
    pub fn remove_range(&mut self, ctx: &Ctx<'_>, range: impl RangeBounds<K>) {
        let slot = slot_of(ctx);
        let (first, last) = bounds(&range);
        self.cache.mark(ctx.record, self.bulks.len());
        let covered = |entry: &Entry, cache: &Cache| {
            !entry.value.is_empty() && in_range(cache.bytes.get(entry.key), first.as_deref(), last.as_deref())
        };
        let written: Vec<usize> =
            self.cache.of_slot(slot).filter(|(_, entry)| covered(entry, &self.cache)).map(|(at, _)| at).collect();
        for at in written {
            self.cache.write(at, &[]);
        }
        let known = |bulk: &Bulk| bulk.slot == slot && bulk.first.is_none() && bulk.last.is_none();
        if !self.bulks.iter().any(known) {
            self.bulks.push(Bulk { slot, first, last });
        }
    }

    /// Removes all entries of the key.
    pub fn clear(&mut self, ctx: &Ctx<'_>) {
        self.remove_range(ctx, ..);
    }

    fn decode_value(&self, bytes: &[u8]) -> V {
        V::decode(bytes).unwrap_or_else(|error| undecodable(self.name, &error))
    }

    /// The entry of a map key; asks the host on first use.
    #[inline]
    fn entry(&mut self, slot: u32, key: &K) -> usize {
        let at = self.place(slot, key);
        if !self.cache.entries[at].known {
            self.fetch(slot, at);
        }
        at
    }

    /// The entry of a map key, known or not.
    #[inline]
    fn place(&mut self, slot: u32, key: &K) -> usize {
        self.key.clear();
        key.encode(&mut self.key);
        self.cache.find(slot, &self.key).unwrap_or_else(|| self.cache.add(slot, &self.key))
    }

    fn fetch(&mut self, slot: u32, at: usize) {
        let shadowed = self.bulks.iter().any(|bulk| bulk.covers(slot, &self.key));
        let stored = if shadowed { None } else { self.handle.get(slot, &self.key) };
        let entry = &mut self.cache.entries[at];
        self.cache.bytes.put(&mut entry.value, stored.as_deref().unwrap_or_default());
        entry.known = true;
    }

    /// Writes `self.value`, without asking what is there: undo makes an entry unknown again that was unknown before.
    fn write(&mut self, ctx: &Ctx<'_>, key: &K) {
        let at = self.place(slot_of(ctx), key);
        self.cache.mark(ctx.record, self.bulks.len());
        self.cache.write(at, &self.value);
    }

    /// Merges the host's pages with the cache.
    fn walk(
        &mut self,
        slot: u32,
        first: Option<Vec<u8>>,
        last: Option<&[u8]>,
        mut each: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        let Self { handle, cache, bulks, .. } = self;
        let bytes = &cache.bytes;
        let mut kept: Vec<(&[u8], &[u8])> = cache
            .of_slot(slot)
            .filter(|(_, entry)| entry.known)
            .map(|(_, entry)| (bytes.get(entry.key), bytes.get(entry.value)))
            .filter(|(key, _)| in_range(key, first.as_deref(), last))
            .collect();
        kept.sort_unstable_by_key(|(key, _)| *key);
        let mut kept = kept.into_iter().peekable();
        let mut give = |key: &[u8], value: &[u8]| if value.is_empty() { ControlFlow::Continue(()) } else { each(key, value) };

        let mut from = first;
        loop {
            let page = handle.scan(slot, from.as_deref(), last, PAGE);
            let (mut rest, mut got) = (&page[..], 0);
            while !rest.is_empty() {
                let (row, len) = Record::first(rest);
                rest = &rest[len..];
                got += 1;
                while let Some((key, value)) = kept.next_if(|(key, _)| *key < row.key()) {
                    if give(key, value).is_break() {
                        return;
                    }
                }
                let went_on = match kept.next_if(|(key, _)| *key == row.key()) {
                    Some((key, value)) => give(key, value),
                    None if bulks.iter().any(|bulk| bulk.covers(slot, row.key())) => ControlFlow::Continue(()),
                    None => give(row.key(), row.value()),
                };
                if went_on.is_break() {
                    return;
                }
                if got == PAGE {
                    let mut next = row.key().to_vec();
                    next.push(0);
                    from = Some(next);
                }
            }
            if got < PAGE {
                break;
            }
        }
        for (key, value) in kept {
            if give(key, value).is_break() {
                return;
            }
        }
    }
}

/// A range of map keys as bytes: from `first`, up to and without `last`. Appending a zero byte gives the next key.
fn bounds<K: MapKey>(range: &impl RangeBounds<K>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let encoded = |key: &K, after: bool| {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        if after {
            bytes.push(0);
        }
        Some(bytes)
    };
    let first = match range.start_bound() {
        Bound::Included(key) => encoded(key, false),
        Bound::Excluded(key) => encoded(key, true),
        Bound::Unbounded => None,
    };
    let last = match range.end_bound() {
        Bound::Included(key) => encoded(key, true),
        Bound::Excluded(key) => encoded(key, false),
        Bound::Unbounded => None,
    };
    (first, last)
}

impl<K: MapKey, V: StateValue> StateField for MapState<K, V> {
    fn declare(options: &StateOptions) -> StateDeclaration {
        options.declare(StateKind::Map, wit_type_of(V::wit_type), Some(wit_type_of(K::wit_type)), V::SIZE)
    }

    fn open(name: &'static str) -> Self {
        let column = || platform::BytesColumn { data: Vec::new(), offsets: Vec::new() };
        Self {
            name,
            handle: platform::MapHandle::open(name),
            cache: Cache::default(),
            bulks: Vec::new(),
            key: Vec::new(),
            value: Vec::new(),
            slots: Vec::new(),
            map_keys: column(),
            values: column(),
            types: PhantomData,
        }
    }

    fn begin(&mut self, keys: u32) {
        self.cache.clear(keys);
        self.bulks.clear();
    }

    fn undo(&mut self, record: u32) {
        if self.cache.record == record {
            self.bulks.truncate(self.cache.bulks_before);
            self.cache.undo();
        }
    }

    fn finish(&mut self) {
        for bulk in &self.bulks {
            if bulk.first.is_none() && bulk.last.is_none() {
                self.handle.clear(bulk.slot);
            } else {
                self.handle.remove_range(bulk.slot, bulk.first.as_deref(), bulk.last.as_deref());
            }
        }
        let Self { cache, slots, map_keys, values, .. } = self;
        slots.clear();
        for column in [&mut *map_keys, &mut *values] {
            column.data.clear();
            column.offsets.clear();
            column.offsets.push(0);
        }
        for entry in cache.entries.iter().filter(|entry| entry.dirty) {
            slots.push(entry.slot);
            map_keys.data.extend_from_slice(cache.bytes.get(entry.key));
            map_keys.offsets.push(map_keys.data.len() as u32);
            values.data.extend_from_slice(cache.bytes.get(entry.value));
            values.offsets.push(values.data.len() as u32);
        }
        if !slots.is_empty() {
            self.handle.store_many(&self.slots, &self.map_keys, &self.values);
        }
    }
}
