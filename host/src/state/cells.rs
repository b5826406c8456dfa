//! Cells with one value for each key, and the bits that make a freeze cheap.
//!
//! Cells lie in chunks of 4096 entries. A chunk has four bits for each cell:
//!
//! ```text
//!  live    there is a value                 dirty    changed since the last freeze
//!  base    there was one at the freeze      frozen   part of the snapshot, and not yet drained
//! ```
//!
//! A freeze only raises the snapshot's epoch. A chunk follows when it is next touched or drained: dirty becomes frozen
//! (or, for a full snapshot, live does), base becomes live, dirty is emptied.
//!
//! Invariants:
//! * a frozen cell holds what it held at the freeze: whoever changes it emits it first;
//! * an absent cell is dirty only where it is in the base, so that a tombstone is needed; without bits a cell holds nothing and its
//!   entry may be given to another key;
//! * the first write to a cell in a call journals the old value; a rollback restores value, stamp, live and dirty. It does not
//!   restore frozen: what was emitted stays emitted, and it is the value of the freeze either way;
//! * the payload of an absent cell is empty (of a fixed one: zeroes), so a read needs no look at the bits.

use super::key_table::{CHUNK, Entry, KeyTable, place};
use super::record::{Op, Record};
use super::snapshot::Snapshot;
use tidegate_core::state_schema::TimeDomain;

/// What accesses need besides the cells.
pub(super) struct Context<'a> {
    pub keys: &'a KeyTable,
    pub snapshot: &'a mut Snapshot,
    /// Entries that may have become free.
    pub garbage: &'a mut Vec<Entry>,
}

/// Cheap counters of one state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Values, map entries, lists.
    pub live: u64,
    /// Of these, and of tombstones, what changed since the last freeze.
    pub dirty: u64,
    /// Of values, map keys and elements.
    pub bytes: u64,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Bits {
    pub live: u64,
    pub dirty: u64,
    pub frozen: u64,
    pub base: u64,
}

pub(super) const WORDS: usize = CHUNK / 64;

/// The bits of one chunk.
pub(super) struct Tracks {
    pub bits: Box<[Bits; WORDS]>,
    epoch: u32,
}

impl Tracks {
    pub fn new(epoch: u32) -> Self {
        Self { bits: Box::new([Bits::default(); WORDS]), epoch }
    }

    /// Follows the latest freeze. `first` is the entry of the chunk's first cell.
    #[inline]
    pub fn follow(&mut self, first: Entry, context: &mut Context<'_>) {
        if self.epoch != context.snapshot.epoch {
            self.follow_slowly(first, context);
        }
    }

    #[cold]
    fn follow_slowly(&mut self, first: Entry, context: &mut Context<'_>) {
        for (word, bits) in self.bits.iter_mut().enumerate() {
            assert!(bits.frozen == 0, "BUG: a freeze before the last one was drained");
            if context.snapshot.full {
                bits.frozen = bits.live;
                // A full snapshot needs no tombstones.
                let mut dropped = bits.dirty & !bits.live;
                while dropped != 0 {
                    context.garbage.push(first + word as u32 * 64 + dropped.trailing_zeros());
                    dropped &= dropped - 1;
                }
            } else {
                bits.frozen = bits.dirty;
            }
            bits.base = bits.live;
            bits.dirty = 0;
        }
        self.epoch = context.snapshot.epoch;
    }

    pub fn holds(&self, at: usize) -> bool {
        let bits = &self.bits[at / 64];
        (bits.live | bits.dirty | bits.frozen) >> (at % 64) & 1 == 1
    }

    /// Restored cells are in the base and clean.
    pub fn restore(&mut self, at: usize, live: bool) {
        let (bits, bit) = (&mut self.bits[at / 64], 1 << (at % 64));
        if live {
            bits.live |= bit;
            bits.base |= bit;
        } else {
            bits.live &= !bit;
            bits.base &= !bit;
        }
    }
}

pub(super) const WAS_LIVE: u8 = 1;
pub(super) const WAS_DIRTY: u8 = 2;

impl Bits {
    pub fn flags(&self, bit: u64) -> u8 {
        (if self.live & bit != 0 { WAS_LIVE } else { 0 }) | (if self.dirty & bit != 0 { WAS_DIRTY } else { 0 })
    }

    /// Notes a write in bits and counters.
    #[inline]
    pub fn note(&mut self, bit: u64, live: bool, counts: &mut Counts) {
        if live {
            counts.live += u64::from(self.live & bit == 0);
            counts.dirty += u64::from(self.dirty & bit == 0);
            self.live |= bit;
            self.dirty |= bit;
        } else {
            counts.live -= u64::from(self.live & bit != 0);
            self.live &= !bit;
            if self.base & bit != 0 {
                counts.dirty += u64::from(self.dirty & bit == 0);
                self.dirty |= bit;
            } else {
                // The snapshot does not know it: nothing has to be taken back. A freeze since the cell got dirty has set the
                // counter to zero, but has also emptied the bit.
                counts.dirty -= u64::from(self.dirty & bit != 0);
                self.dirty &= !bit;
            }
        }
    }

    /// Takes a write back.
    pub fn undo(&mut self, bit: u64, flags: u8, counts: &mut Counts) {
        let (live, dirty) = (flags & WAS_LIVE != 0, flags & WAS_DIRTY != 0);
        counts.live = counts.live + u64::from(live) - u64::from(self.live & bit != 0);
        counts.dirty = counts.dirty + u64::from(dirty) - u64::from(self.dirty & bit != 0);
        self.live = if live { self.live | bit } else { self.live & !bit };
        self.dirty = if dirty { self.dirty | bit } else { self.dirty & !bit };
    }
}

/// How far the walks over all cells have come.
#[derive(Default)]
pub(super) struct Walks {
    pub drain_chunk: usize,
    sweep_at: Entry,
}

/// Cells of one state, in chunks: walking over them in slices is the same for all kinds.
pub(super) trait ChunkedCells {
    fn chunks(&self) -> usize;
    fn tracks(&mut self, chunk: usize) -> &mut Tracks;
    fn walks(&mut self) -> &mut Walks;
    /// A frozen cell goes into the snapshot.
    fn emit(&mut self, entry: Entry, context: &mut Context<'_>);
    /// Removes what the entry has, if it is expired.
    fn expire(&mut self, entry: Entry, is_expired: &impl Fn(i64) -> bool, context: &mut Context<'_>);

    /// Emits frozen cells; false where the budget ended before them.
    fn drain(&mut self, budget: &mut usize, context: &mut Context<'_>) -> bool {
        while self.walks().drain_chunk < self.chunks() {
            let number = self.walks().drain_chunk;
            let first = (number * CHUNK) as u32;
            self.tracks(number).follow(first, context);
            for word in 0..WORDS {
                loop {
                    let frozen = self.tracks(number).bits[word].frozen;
                    if frozen == 0 {
                        break;
                    }
                    if *budget == 0 {
                        return false;
                    }
                    *budget -= 1;
                    self.emit(first + word as u32 * 64 + frozen.trailing_zeros(), context);
                }
            }
            self.walks().drain_chunk += 1;
        }
        true
    }

    /// Removes expired values, from where the last sweep ended. True: came to the end.
    fn sweep(&mut self, budget: &mut usize, is_expired: impl Fn(i64) -> bool, context: &mut Context<'_>) -> bool {
        let end = (self.chunks() * CHUNK) as u32;
        while self.walks().sweep_at < end {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let entry = self.walks().sweep_at;
            self.walks().sweep_at += 1;
            self.expire(entry, &is_expired, context);
        }
        self.walks().sweep_at = 0;
        true
    }
}

/// The values of one chunk.
pub(super) trait Payload {
    fn new(size: usize) -> Self;
    fn get(&self, at: usize, size: usize) -> &[u8];
    fn set(&mut self, at: usize, value: &[u8]);
    fn clear(&mut self, at: usize, size: usize);
}

pub(super) struct Chunk<P> {
    pub tracks: Tracks,
    pub payload: P,
    /// Times of the last writes, where the state has a time to live.
    pub stamps: Option<Box<[i64]>>,
}

struct Undo {
    slot: u32,
    len: u32,
    stamp: i64,
    flags: u8,
}

/// One value for each key. `P` says how values are kept.
pub(super) struct ValueCells<P> {
    pub state: u16,
    /// Of one value, where all have the same.
    pub size: usize,
    stamps: Option<TimeDomain>,
    pub chunks: Vec<Chunk<P>>,
    pub counts: Counts,
    touched: Vec<u8>,
    undo: Vec<Undo>,
    undo_bytes: Vec<u8>,
    walks: Walks,
}

impl<P: Payload> ValueCells<P> {
    pub fn new(state: u16, size: usize, stamps: Option<TimeDomain>) -> Self {
        Self {
            state,
            size,
            stamps,
            chunks: Vec::new(),
            counts: Counts::default(),
            touched: Vec::new(),
            undo: Vec::new(),
            undo_bytes: Vec::new(),
            walks: Walks::default(),
        }
    }

    pub fn ensure(&mut self, chunks: usize, epoch: u32) {
        while self.chunks.len() < chunks {
            self.chunks.push(Chunk {
                tracks: Tracks::new(epoch),
                payload: P::new(self.size),
                stamps: self.stamps.map(|_| vec![0; CHUNK].into_boxed_slice()),
            });
        }
    }

    /// First touch of the state in a call.
    pub fn join(&mut self, keys: usize, chunks: usize, epoch: u32) {
        self.ensure(chunks, epoch);
        self.touched.clear();
        self.touched.resize(keys, 0);
    }

    /// The value and the time of its last write. Empty, or all zeroes: absent.
    #[inline]
    pub fn get(&self, entry: Entry) -> Option<(&[u8], i64)> {
        let (chunk, at) = place(entry);
        let chunk = self.chunks.get(chunk)?;
        if chunk.tracks.bits[at / 64].live >> (at % 64) & 1 == 0 {
            return None;
        }
        Some((chunk.payload.get(at, self.size), chunk.stamps.as_ref().map_or(0, |stamps| stamps[at])))
    }

    pub fn holds(&self, entry: Entry) -> bool {
        let (chunk, at) = place(entry);
        self.chunks.get(chunk).is_some_and(|chunk| chunk.tracks.holds(at))
    }

    #[inline]
    fn journal(&mut self, slot: u32, entry: Entry) {
        if std::mem::replace(&mut self.touched[slot as usize], 1) != 0 {
            return;
        }
        let (chunk, at) = place(entry);
        let chunk = &self.chunks[chunk];
        let old = chunk.payload.get(at, self.size);
        let flags = chunk.tracks.bits[at / 64].flags(1 << (at % 64));
        let stamp = chunk.stamps.as_ref().map_or(0, |stamps| stamps[at]);
        self.undo_bytes.extend_from_slice(old);
        self.undo.push(Undo { slot, len: old.len() as u32, stamp, flags });
    }

    /// Writes a value, or with `None` removes it. `slot`: journal under it; `None` outside a call.
    #[inline]
    pub fn write(&mut self, slot: Option<u32>, entry: Entry, value: Option<&[u8]>, stamp: i64, context: &mut Context<'_>) {
        let (number, at) = place(entry);
        self.follow(number, context);
        let (word, bit) = (at / 64, 1u64 << (at % 64));
        let bits = self.chunks[number].tracks.bits[word];
        if value.is_none() && bits.live & bit == 0 {
            return;
        }
        if bits.frozen & bit != 0 {
            self.emit(entry, context);
        }
        if let Some(slot) = slot {
            self.journal(slot, entry);
        }
        let size = self.size;
        let chunk = &mut self.chunks[number];
        self.counts.bytes -= if bits.live & bit != 0 { chunk.payload.get(at, size).len() as u64 } else { 0 };
        chunk.tracks.bits[word].note(bit, value.is_some(), &mut self.counts);
        match value {
            Some(value) => {
                self.counts.bytes += value.len() as u64;
                chunk.payload.set(at, value);
                if let Some(stamps) = &mut chunk.stamps {
                    stamps[at] = stamp;
                }
            }
            None => {
                chunk.payload.clear(at, size);
                context.garbage.push(entry);
            }
        }
    }

    #[inline]
    pub fn follow(&mut self, number: usize, context: &mut Context<'_>) {
        self.chunks[number].tracks.follow((number * CHUNK) as u32, context);
    }

    pub fn commit(&mut self) {
        self.undo.clear();
        self.undo_bytes.clear();
        // A call with huge values must not keep its memory for ever.
        self.undo_bytes.shrink_to(1 << 20);
    }

    pub fn rollback(&mut self, entries: &[Entry]) {
        let mut end = self.undo_bytes.len();
        for undo in self.undo.drain(..).rev() {
            let (number, at) = place(entries[undo.slot as usize]);
            let chunk = &mut self.chunks[number];
            let (word, bit) = (at / 64, 1u64 << (at % 64));
            if chunk.tracks.bits[word].live & bit != 0 {
                self.counts.bytes -= chunk.payload.get(at, self.size).len() as u64;
            }
            chunk.tracks.bits[word].undo(bit, undo.flags, &mut self.counts);
            let old = &self.undo_bytes[end - undo.len as usize..end];
            end -= undo.len as usize;
            if undo.flags & WAS_LIVE != 0 {
                self.counts.bytes += u64::from(undo.len);
                chunk.payload.set(at, old);
            } else {
                chunk.payload.clear(at, self.size);
            }
            if let Some(stamps) = &mut chunk.stamps {
                stamps[at] = undo.stamp;
            }
        }
        self.commit();
    }

    pub fn freeze(&mut self) {
        self.counts.dirty = 0;
        self.walks.drain_chunk = 0;
    }

    /// Puts a cell as it stands in a segment.
    pub fn restore(&mut self, entry: Entry, value: Option<&[u8]>, stamp: i64, epoch: u32) {
        let (number, at) = place(entry);
        self.ensure(number + 1, epoch);
        if let Some(old) = self.get(entry).map(|(old, _)| old.len()) {
            self.counts.live -= 1;
            self.counts.bytes -= old as u64;
        }
        let chunk = &mut self.chunks[number];
        chunk.tracks.restore(at, value.is_some());
        match value {
            Some(value) => {
                self.counts.live += 1;
                self.counts.bytes += value.len() as u64;
                chunk.payload.set(at, value);
                if let Some(stamps) = &mut chunk.stamps {
                    stamps[at] = stamp;
                }
            }
            None => chunk.payload.clear(at, self.size),
        }
    }

    /// The fast way of [`Self::write`] for values of N bytes.
    #[inline]
    pub fn write_n<const N: usize>(&mut self, slot: u32, entry: Entry, value: &[u8; N], stamp: i64, context: &mut Context<'_>)
    where
        P: FixedPayload,
    {
        let (number, at) = place(entry);
        let chunk = &mut self.chunks[number];
        let (word, bit) = (at / 64, 1u64 << (at % 64));
        let is_behind = chunk.tracks.epoch != context.snapshot.epoch;
        let bits = &mut chunk.tracks.bits[word];
        if is_behind || bits.frozen & bit != 0 || chunk.stamps.is_some() {
            return self.write(Some(slot), entry, Some(value), stamp, context);
        }
        let cell = chunk.payload.cell::<N>(at);
        if std::mem::replace(&mut self.touched[slot as usize], 1) == 0 {
            self.undo.push(Undo { slot, len: N as u32, stamp: 0, flags: bits.flags(bit) });
            self.undo_bytes.extend_from_slice(cell);
        }
        self.counts.bytes += if bits.live & bit == 0 { N as u64 } else { 0 };
        bits.note(bit, true, &mut self.counts);
        *cell = *value;
    }
}

impl<P: Payload> ChunkedCells for ValueCells<P> {
    fn chunks(&self) -> usize {
        self.chunks.len()
    }

    fn tracks(&mut self, chunk: usize) -> &mut Tracks {
        &mut self.chunks[chunk].tracks
    }

    fn walks(&mut self) -> &mut Walks {
        &mut self.walks
    }

    #[inline]
    fn emit(&mut self, entry: Entry, context: &mut Context<'_>) {
        let (number, at) = place(entry);
        let chunk = &mut self.chunks[number];
        let bits = &mut chunk.tracks.bits[at / 64];
        let bit = 1 << (at % 64);
        bits.frozen &= !bit;
        let live = bits.live & bit != 0;
        if !live {
            context.garbage.push(entry);
        }
        let stamp = self.stamps.zip(chunk.stamps.as_ref()).map(|(domain, stamps)| context.snapshot.stamp(domain, stamps[at]));
        context.snapshot.out.push(&Record {
            hash: context.keys.hash(entry),
            key: context.keys.key(entry),
            state: self.state,
            op: if live { Op::Put } else { Op::Remove },
            sub: &[],
            stamp: if live { stamp } else { None },
            value: if live { chunk.payload.get(at, self.size) } else { &[] },
        });
    }

    fn expire(&mut self, entry: Entry, is_expired: &impl Fn(i64) -> bool, context: &mut Context<'_>) {
        if self.get(entry).is_some_and(|(_, stamp)| is_expired(stamp)) {
            self.write(None, entry, None, 0, context);
        }
    }
}

/// A payload whose values all have the same size.
pub(super) trait FixedPayload: Payload {
    fn cell<const N: usize>(&mut self, at: usize) -> &mut [u8; N];
    fn read<const N: usize>(&self, at: usize) -> &[u8; N];
}
