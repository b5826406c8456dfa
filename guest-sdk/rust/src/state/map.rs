//! A map for each key, ordered by its map keys.
//!
//! Entries that a batch touches are kept here until its end: read once from the host, written once to it. Removing a range or the
//! whole map is remembered as such (`Bulk`) and shadows the host until then. Walking a range merges the host's pages with the
//! entries kept here.

use super::map_cache::{Cache, Entry};
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
        if self.cache.is_untouched(slot) && !self.bulks.iter().any(|bulk| bulk.slot == slot) {
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
