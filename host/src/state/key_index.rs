//! From the hash of a key to its entry: extendible hashing over small open-addressing tables.
//!
//! ```text
//!  hash bits 16..47 = tag        directory[tag & mask] ─► table ─► slots[tag >> 17 ..]  { tag, entry }, linear probing
//! ```
//!
//! Invariants:
//! * no table has more than [`SLOTS_MAX`] slots (but at the greatest depth), so an insertion never moves more than that: growth
//!   does not stop a task, whatever the number of keys;
//! * a table moves by its tags alone: growth touches no entry;
//! * bits 48..63 are left out: they place the key group, and within one task they are nearly the same for all keys.

use super::key_table::Entry;

/// 256 KiB: moved in about a tenth of a millisecond.
const SLOTS_MAX: usize = 1 << 15;
const SLOTS_MIN: usize = 16;
/// The directory takes the bits of the tag below those of the place in a table.
const DEPTH_MAX: u32 = 17;

pub(super) const NONE: Entry = Entry::MAX;
const EMPTY: u64 = u64::MAX;

#[inline]
pub(super) fn tag_of(hash: u64) -> u32 {
    (hash >> 16) as u32
}

struct Table {
    /// tag << 32 | entry
    slots: Box<[u64]>,
    used: usize,
    depth: u32,
}

impl Table {
    fn new(slots: usize, depth: u32) -> Self {
        Self { slots: vec![EMPTY; slots].into_boxed_slice(), used: 0, depth }
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        (tag >> DEPTH_MAX) as usize & (self.slots.len() - 1)
    }

    fn insert(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = self.home((slot >> 32) as u32);
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
        self.used += 1;
    }

    fn is_full(&self) -> bool {
        (self.used + 1) * 8 > self.slots.len() * 5
    }
}

pub(super) struct KeyIndex {
    directory: Vec<u32>,
    depth: u32,
    tables: Vec<Table>,
}

impl KeyIndex {
    pub fn new() -> Self {
        Self { directory: vec![0], depth: 0, tables: vec![Table::new(SLOTS_MIN, 0)] }
    }

    #[inline]
    fn table(&self, tag: u32) -> &Table {
        &self.tables[self.directory[tag as usize & (self.directory.len() - 1)] as usize]
    }

    /// The slot where a key with this tag lies if nothing is in its way. The first stage of a batched look-up: loads of
    /// different keys don't wait for one another.
    #[inline]
    pub fn home_slot(&self, tag: u32) -> u64 {
        let table = self.table(tag);
        table.slots[table.home(tag)]
    }

    /// The second stage: an entry that has the tag, most likely the right one, or [`NONE`].
    #[inline]
    pub fn candidate(&self, tag: u32, home_slot: u64) -> Entry {
        if (home_slot >> 32) as u32 == tag || home_slot == EMPTY {
            return home_slot as u32;
        }
        self.find(tag, |_| true).unwrap_or(NONE)
    }

    #[inline]
    pub fn find(&self, tag: u32, is_key: impl Fn(Entry) -> bool) -> Option<Entry> {
        let table = self.table(tag);
        let mask = table.slots.len() - 1;
        let mut at = table.home(tag);
        loop {
            let slot = table.slots[at & mask];
            if slot == EMPTY {
                return None;
            }
            if (slot >> 32) as u32 == tag && is_key(slot as u32) {
                return Some(slot as u32);
            }
            at += 1;
        }
    }

    pub fn insert(&mut self, tag: u32, entry: Entry) {
        loop {
            let number = self.directory[tag as usize & (self.directory.len() - 1)] as usize;
            if !self.tables[number].is_full() {
                self.tables[number].insert((u64::from(tag) << 32) | u64::from(entry));
                return;
            }
            self.make_room(number);
        }
    }

    fn make_room(&mut self, number: usize) {
        let table = &mut self.tables[number];
        let (len, depth) = (table.slots.len(), table.depth);
        if len < SLOTS_MAX || depth == DEPTH_MAX {
            let old = std::mem::replace(table, Table::new(len * 2, depth));
            for slot in old.slots.iter().filter(|slot| **slot != EMPTY) {
                table.insert(*slot);
            }
            return;
        }
        if depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let old = std::mem::replace(table, Table::new(len, depth + 1));
        let mut sibling = Table::new(len, depth + 1);
        for slot in old.slots.iter().filter(|slot| **slot != EMPTY) {
            if (slot >> 32) >> depth & 1 == 1 { sibling.insert(*slot) } else { table.insert(*slot) }
        }
        let sibling_number = self.tables.len() as u32;
        self.tables.push(sibling);
        for (index, at) in self.directory.iter_mut().enumerate() {
            if *at as usize == number && index >> depth & 1 == 1 {
                *at = sibling_number;
            }
        }
    }

    /// Closes the gap by moving later slots back, so that no marks of the dead pile up where keys come and go.
    pub fn remove(&mut self, tag: u32, entry: Entry) {
        let number = self.directory[tag as usize & (self.directory.len() - 1)] as usize;
        let table = &mut self.tables[number];
        let mask = table.slots.len() - 1;
        let wanted = (u64::from(tag) << 32) | u64::from(entry);
        let mut gap = table.home(tag);
        while table.slots[gap] != wanted {
            assert!(table.slots[gap] != EMPTY, "BUG: entry {entry} is not in the index");
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let slot = table.slots[at];
            if slot == EMPTY {
                break;
            }
            let home = table.home((slot >> 32) as u32);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                table.slots[gap] = slot;
                gap = at;
            }
        }
        table.slots[gap] = EMPTY;
        table.used -= 1;
    }

    pub fn bytes(&self) -> usize {
        self.tables.iter().map(|table| table.slots.len() * 8).sum::<usize>() + self.directory.len() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::key_group;

    #[test]
    fn keys_are_found_through_growth_splits_and_removals() {
        let mut index = KeyIndex::new();
        let tag = |n: u32| tag_of(key_group::hash(&n.to_le_bytes()));
        for n in 0..200_000 {
            index.insert(tag(n), n);
        }
        assert!(index.tables.len() > 4 && index.tables.iter().all(|table| table.slots.len() <= SLOTS_MAX));
        for n in (0..200_000).step_by(3) {
            index.remove(tag(n), n);
        }
        for n in 0..200_000 {
            assert_eq!(index.find(tag(n), |entry| entry == n), (n % 3 != 0).then_some(n));
        }
    }
}
