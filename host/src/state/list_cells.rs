//! A list for each key. Elements lie flat, so that a page is two copies, and a snapshot takes only what was appended.
//!
//! Invariants (bits as in [`super::cells`]):
//! * `clean` elements from the front stand in older segments already, unless `replaced` says that the list as a whole is new;
//! * a frozen list is emitted before it is changed, and is clean from then on;
//! * a call journals the length before its first append, and the whole list before its first replacement.

use super::cells::{Bits, ChunkedCells, Context, Counts, Tracks, WAS_DIRTY, WAS_LIVE, Walks};
use super::key_table::{CHUNK, Entry, place};
use super::record::{Op, Record, put_varint, take_bytes};
use tidegate_core::state_schema::TimeDomain;

#[derive(Default, Clone)]
struct List {
    data: Vec<u8>,
    ends: Vec<u32>,
    clean: u32,
    replaced: bool,
}

impl List {
    fn element(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.data[start as usize..self.ends[at] as usize]
    }

    fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.ends.push(self.data.len() as u32);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }

    fn encode(&self, from: usize, out: &mut Vec<u8>) {
        for at in from..self.ends.len() {
            let element = self.element(at);
            put_varint(out, element.len() as u64);
            out.extend_from_slice(element);
        }
    }
}

struct Chunk {
    tracks: Tracks,
    lists: Box<[List]>,
    stamps: Option<Box<[i64]>>,
}

enum Undo {
    /// The list had this length, and grew.
    Append { slot: u32, len: u32, flags: u8, stamp: i64 },
    /// This was the list. What came before it in the journal applies to it.
    Replace { slot: u32, old: List, flags: u8, stamp: i64 },
}

const APPENDED: u8 = 1;
const REPLACED: u8 = 2;

pub(super) struct ListCells {
    pub state: u16,
    stamps: Option<TimeDomain>,
    chunks: Vec<Chunk>,
    pub counts: Counts,
    touched: Vec<u8>,
    undo: Vec<Undo>,
    encoded: Vec<u8>,
    walks: Walks,
}

impl ListCells {
    pub fn new(state: u16, stamps: Option<TimeDomain>) -> Self {
        Self {
            state,
            stamps,
            chunks: Vec::new(),
            counts: Counts::default(),
            touched: Vec::new(),
            undo: Vec::new(),
            encoded: Vec::new(),
            walks: Walks::default(),
        }
    }

    pub fn ensure(&mut self, chunks: usize, epoch: u32) {
        while self.chunks.len() < chunks {
            self.chunks.push(Chunk {
                tracks: Tracks::new(epoch),
                lists: vec![List::default(); CHUNK].into_boxed_slice(),
                stamps: self.stamps.map(|_| vec![0; CHUNK].into_boxed_slice()),
            });
        }
    }

    pub fn join(&mut self, keys: usize, chunks: usize, epoch: u32) {
        self.ensure(chunks, epoch);
        self.touched.clear();
        self.touched.resize(keys, 0);
    }

    pub fn holds(&self, entry: Entry) -> bool {
        let (chunk, at) = place(entry);
        self.chunks.get(chunk).is_some_and(|chunk| chunk.tracks.holds(at))
    }

    fn list(&self, entry: Entry) -> Option<&List> {
        let (chunk, at) = place(entry);
        self.chunks.get(chunk).map(|chunk| &chunk.lists[at])
    }

    pub fn len(&self, entry: Entry) -> usize {
        self.list(entry).map_or(0, |list| list.ends.len())
    }

    pub fn data_len(&self, entry: Entry) -> usize {
        self.list(entry).map_or(0, |list| list.data.len())
    }

    pub fn stamp(&self, entry: Entry) -> i64 {
        let (chunk, at) = place(entry);
        self.chunks.get(chunk).and_then(|chunk| chunk.stamps.as_ref()).map_or(0, |stamps| stamps[at])
    }

    /// Elements `from..to`, which are there: their bytes, and where each ends counted from `start`.
    pub fn page(&self, entry: Entry, from: usize, to: usize) -> (&[u8], &[u32], u32) {
        let Some(list) = self.list(entry).filter(|_| from < to) else { return (&[], &[], 0) };
        let start = if from == 0 { 0 } else { list.ends[from - 1] };
        let ends = &list.ends[from..to];
        (&list.data[start as usize..ends[ends.len() - 1] as usize], ends, start)
    }

    /// Makes a list ready to be changed: emits it where the snapshot needs it.
    fn settle(&mut self, entry: Entry, context: &mut Context<'_>) {
        let (number, at) = place(entry);
        self.chunks[number].tracks.follow((number * CHUNK) as u32, context);
        if self.chunks[number].tracks.bits[at / 64].frozen >> (at % 64) & 1 == 1 {
            self.emit(entry, context);
        }
    }

    fn parts(&mut self, entry: Entry) -> (&mut List, &mut Bits, u64, Option<&mut i64>) {
        let (number, at) = place(entry);
        let chunk = &mut self.chunks[number];
        let stamp = chunk.stamps.as_mut().map(|stamps| &mut stamps[at]);
        (&mut chunk.lists[at], &mut chunk.tracks.bits[at / 64], 1 << (at % 64), stamp)
    }

    pub fn append(&mut self, slot: u32, entry: Entry, value: &[u8], stamp: i64, context: &mut Context<'_>) {
        self.settle(entry, context);
        let first = self.touched[slot as usize] == 0;
        self.touched[slot as usize] |= APPENDED;
        let mut counts = self.counts;
        let (list, bits, bit, last_write) = self.parts(entry);
        let undo = first.then(|| Undo::Append {
            slot,
            len: list.ends.len() as u32,
            flags: bits.flags(bit),
            stamp: last_write.as_ref().map_or(0, |stamp| **stamp),
        });
        list.push(value);
        bits.note(bit, true, &mut counts);
        counts.bytes += value.len() as u64;
        if let Some(last_write) = last_write {
            *last_write = stamp;
        }
        self.counts = counts;
        self.undo.extend(undo);
    }

    /// Makes the list these elements. None: clears it. `slot`: journal under it; `None` outside a call.
    pub fn replace<'v>(
        &mut self,
        slot: Option<u32>,
        entry: Entry,
        values: impl Iterator<Item = &'v [u8]>,
        stamp: i64,
        context: &mut Context<'_>,
    ) {
        let mut new = List { replaced: true, ..List::default() };
        values.for_each(|value| new.push(value));
        if new.ends.is_empty() && self.len(entry) == 0 {
            return;
        }
        self.settle(entry, context);
        let journal = slot.filter(|slot| self.touched[*slot as usize] & REPLACED == 0);
        if let Some(slot) = slot {
            self.touched[slot as usize] |= REPLACED;
        }
        let mut counts = self.counts;
        let (list, bits, bit, last_write) = self.parts(entry);
        let (flags, old_stamp) = (bits.flags(bit), last_write.as_ref().map_or(0, |stamp| **stamp));
        let live = !new.ends.is_empty();
        bits.note(bit, live, &mut counts);
        if !live && bits.dirty & bit == 0 {
            // Nothing of it is in any snapshot.
            new.replaced = false;
        }
        counts.bytes = counts.bytes + new.data.len() as u64 - list.data.len() as u64;
        let old = std::mem::replace(list, new);
        if let Some(last_write) = last_write {
            *last_write = stamp;
        }
        self.counts = counts;
        if let Some(slot) = journal {
            self.undo.push(Undo::Replace { slot, old, flags, stamp: old_stamp });
        }
        if !live {
            context.garbage.push(entry);
        }
    }

    pub fn commit(&mut self) {
        self.undo.clear();
        self.undo.shrink_to(4096);
    }

    pub fn rollback(&mut self, entries: &[Entry]) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            let (Undo::Append { slot, flags, stamp, .. } | Undo::Replace { slot, flags, stamp, .. }) = &undo;
            let (slot, flags, stamp) = (*slot, *flags, *stamp);
            let mut counts = self.counts;
            let (list, bits, bit, last_write) = self.parts(entries[slot as usize]);
            let bytes = list.data.len() as u64;
            match undo {
                Undo::Append { len, .. } => list.truncate(len as usize),
                Undo::Replace { old, .. } => *list = old,
            }
            counts.bytes = counts.bytes + list.data.len() as u64 - bytes;
            bits.undo(bit, flags & (WAS_LIVE | WAS_DIRTY), &mut counts);
            if let Some(last_write) = last_write {
                *last_write = stamp;
            }
            self.counts = counts;
        }
        self.commit();
    }

    pub fn freeze(&mut self) {
        self.counts.dirty = 0;
        self.walks.drain_chunk = 0;
    }

    /// Applies an encoded list from a segment. False where its bytes don't add up.
    pub fn restore(&mut self, entry: Entry, op: Op, encoded: &[u8], stamp: i64, epoch: u32) -> bool {
        let (number, at) = place(entry);
        self.ensure(number + 1, epoch);
        let chunk = &mut self.chunks[number];
        let list = &mut chunk.lists[at];
        self.counts.live -= u64::from(!list.ends.is_empty());
        self.counts.bytes -= list.data.len() as u64;
        if op != Op::Append {
            *list = List::default();
        }
        let mut rest = encoded;
        let mut sound = true;
        while !rest.is_empty() {
            let Some((element, tail)) = take_bytes(rest)
                .filter(|(element, _)| !element.is_empty() && list.data.len() + element.len() <= u32::MAX as usize)
            else {
                sound = false;
                break;
            };
            list.push(element);
            rest = tail;
        }
        list.clean = list.ends.len() as u32;
        self.counts.live += u64::from(!list.ends.is_empty());
        self.counts.bytes += list.data.len() as u64;
        chunk.tracks.restore(at, !list.ends.is_empty());
        if let Some(stamps) = &mut chunk.stamps {
            stamps[at] = stamp;
        }
        sound
    }
}

impl ChunkedCells for ListCells {
    fn chunks(&self) -> usize {
        self.chunks.len()
    }

    fn tracks(&mut self, chunk: usize) -> &mut Tracks {
        &mut self.chunks[chunk].tracks
    }

    fn walks(&mut self) -> &mut Walks {
        &mut self.walks
    }

    fn emit(&mut self, entry: Entry, context: &mut Context<'_>) {
        let (state, domain) = (self.state, self.stamps);
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        let (list, bits, bit, stamp) = self.parts(entry);
        bits.frozen &= !bit;
        let whole = context.snapshot.full || list.replaced;
        let op = match list.ends.is_empty() {
            true => Op::Remove,
            false if whole => Op::Replace,
            false => Op::Append,
        };
        list.encode(if whole { 0 } else { list.clean as usize }, &mut encoded);
        list.clean = list.ends.len() as u32;
        list.replaced = false;
        let stamp = domain.zip(stamp).filter(|_| op != Op::Remove).map(|(domain, stamp)| context.snapshot.stamp(domain, *stamp));
        if op == Op::Remove {
            context.garbage.push(entry);
        }
        context.snapshot.out.push(&Record {
            hash: context.keys.hash(entry),
            key: context.keys.key(entry),
            state,
            op,
            sub: &[],
            stamp,
            value: &encoded,
        });
        encoded.shrink_to(1 << 20);
        self.encoded = encoded;
    }

    fn expire(&mut self, entry: Entry, is_expired: &impl Fn(i64) -> bool, context: &mut Context<'_>) {
        if self.len(entry) > 0 && is_expired(self.stamp(entry)) {
            self.replace(None, entry, std::iter::empty(), 0, context);
        }
    }
}
