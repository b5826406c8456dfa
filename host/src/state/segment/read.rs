//! Reads segments that anyone may have written.

use super::super::record::{EVENT_TIMERS, Op, PROCESSING_TIMERS, Record, take_bytes, take_varint, timer_of};
use super::{
    FLAG_SAME_KEY, FLAG_STAMP, FLAG_SUB, FLAGS_RESERVED, FOOTER_BYTES, HEAD_BYTES, INDEX_ENTRY_BYTES, MAGIC, SEGMENT_FORMAT,
    SegmentError, SegmentHeader,
};
use std::cmp::Ordering;
use std::io::Read;
use std::ops::Range;
use tidegate_core::key_group;
use tidegate_core::limits::KEY_GROUPS_MAX;
use tidegate_core::state_schema::StateKind;

struct Block {
    first_group: u32,
    last_group: u32,
    offset: usize,
    len: usize,
    raw_len: usize,
    crc32c: u32,
    records: u32,
}

/// A segment whose frame is sound: header, index and footer. Blocks are checked when they are read.
pub struct SegmentReader<'a> {
    bytes: &'a [u8],
    pub header: SegmentHeader,
    blocks: Vec<Block>,
}

fn corrupt(at: usize, what: &'static str) -> SegmentError {
    SegmentError::Corrupt { at: at as u64, what }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl<'a> SegmentReader<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Self, SegmentError> {
        let not_one = SegmentError::NotASegment { bytes: bytes.len() };
        if bytes.len() < HEAD_BYTES + FOOTER_BYTES || !bytes.starts_with(&MAGIC[..7]) || !bytes.ends_with(&MAGIC[..]) {
            return Err(not_one);
        }
        let format = u32_at(bytes, 8);
        if format != SEGMENT_FORMAT || bytes[7] != MAGIC[7] {
            return Err(SegmentError::Format { found: format, known: SEGMENT_FORMAT });
        }
        let footer_at = bytes.len() - FOOTER_BYTES;
        let footer = &bytes[footer_at..];
        if crc32c::crc32c(&footer[..28]) != u32_at(footer, 28) {
            return Err(corrupt(footer_at, "the footer's checksum does not match"));
        }
        let header_end = HEAD_BYTES + u32_at(bytes, 12) as usize;
        let blocks = u32_at(footer, 8) as usize;
        let index_at = usize::try_from(u64_at(footer, 0)).unwrap_or(usize::MAX);
        if header_end > index_at || index_at.checked_add(blocks.saturating_mul(INDEX_ENTRY_BYTES)) != Some(footer_at) {
            return Err(corrupt(footer_at, "header, index and footer do not add up to the length of the file"));
        }
        if crc32c::crc32c(&bytes[..header_end]) != u32_at(footer, 12) {
            return Err(corrupt(0, "the header's checksum does not match"));
        }
        let index = &bytes[index_at..footer_at];
        if crc32c::crc32c(index) != u32_at(footer, 16) {
            return Err(corrupt(index_at, "the index's checksum does not match"));
        }
        let header: SegmentHeader = serde_json::from_slice(&bytes[HEAD_BYTES..header_end]).map_err(SegmentError::Header)?;
        check_header(&header)?;
        let blocks = read_index(index, header_end, index_at, &header)?;
        if blocks.iter().map(|block| u64::from(block.records)).sum::<u64>() != u64_at(footer, 20) {
            return Err(corrupt(footer_at, "the number of records is not that of the blocks"));
        }
        Ok(Self { bytes, header, blocks })
    }

    #[cfg(test)]
    pub fn block_count(&self) -> usize {
        self.blocks.len()
    }

    fn read_block(&self, block: &Block, out: &mut Vec<u8>) -> Result<(), SegmentError> {
        let compressed = &self.bytes[block.offset..block.offset + block.len];
        if crc32c::crc32c(compressed) != block.crc32c {
            return Err(corrupt(block.offset, "the block's checksum does not match"));
        }
        out.clear();
        let damaged = |_| corrupt(block.offset, "the block can't be decompressed");
        let decoder = zstd::stream::read::Decoder::with_buffer(compressed).map_err(damaged)?;
        // One byte more than it should be, and no more memory than the bytes that really come out.
        decoder.take(block.raw_len as u64 + 1).read_to_end(out).map_err(damaged)?;
        if out.len() != block.raw_len {
            return Err(corrupt(block.offset, "the block has another length than the index says"));
        }
        Ok(())
    }

    /// Records of these key groups, in order. Only blocks that hold some of them are read.
    pub fn records(&self, groups: Range<u32>) -> RecordReader<'_> {
        RecordReader {
            segment: self,
            groups,
            next_block: 0,
            block: 0,
            raw: Vec::new(),
            at: 0,
            left: 0,
            place: Place::default(),
            op: Op::Put,
            stamp: None,
            value: 0..0,
            earlier: None,
        }
    }
}

fn check_header(header: &SegmentHeader) -> Result<(), SegmentError> {
    if !(1..=KEY_GROUPS_MAX).contains(&header.key_groups) {
        return Err(corrupt(HEAD_BYTES, "the number of key groups is out of range"));
    }
    if header.first_group > header.end_group || header.end_group > header.key_groups {
        return Err(corrupt(HEAD_BYTES, "the range of key groups is out of range"));
    }
    if header.states.len() >= usize::from(EVENT_TIMERS) || !header.states.is_sorted_by(|a, b| a.name < b.name) {
        return Err(corrupt(HEAD_BYTES, "the table of states is not sorted"));
    }
    Ok(())
}

fn read_index(index: &[u8], first: usize, end: usize, header: &SegmentHeader) -> Result<Vec<Block>, SegmentError> {
    let mut blocks = Vec::with_capacity(index.len() / INDEX_ENTRY_BYTES);
    let (mut offset, mut group) = (first, 0);
    for entry in index.chunks_exact(INDEX_ENTRY_BYTES) {
        let block = Block {
            first_group: u32_at(entry, 0),
            last_group: u32_at(entry, 4),
            offset: usize::try_from(u64_at(entry, 8)).unwrap_or(usize::MAX),
            len: u32_at(entry, 16) as usize,
            raw_len: u32_at(entry, 20) as usize,
            crc32c: u32_at(entry, 24),
            records: u32_at(entry, 28),
        };
        if block.offset != offset || block.len > end - offset {
            return Err(corrupt(end, "the blocks do not lie one after another"));
        }
        if block.first_group < group || block.last_group < block.first_group || block.last_group >= header.key_groups {
            return Err(corrupt(end, "the key groups of the blocks are not in order"));
        }
        (offset, group) = (offset + block.len, block.last_group);
        blocks.push(block);
    }
    if offset != end {
        return Err(corrupt(offset, "there are bytes between the last block and the index"));
    }
    Ok(blocks)
}

/// Where a record stands in the order; strings as ranges of the block.
#[derive(Default, Clone)]
struct Place {
    hash: u64,
    key: Range<usize>,
    state: u16,
    sub: Range<usize>,
}

/// Walks records of a range of key groups; the current one lies in the reader's block.
pub struct RecordReader<'a> {
    segment: &'a SegmentReader<'a>,
    groups: Range<u32>,
    next_block: usize,
    block: usize,
    raw: Vec<u8>,
    at: usize,
    /// Records of the block that are still to come.
    left: u32,
    place: Place,
    op: Op,
    stamp: Option<i64>,
    value: Range<usize>,
    /// The last record of the block before: hash, key, state, sub key.
    earlier: Option<(u64, Vec<u8>, u16, Vec<u8>)>,
}

impl RecordReader<'_> {
    /// The record that [`Self::advance`] came to.
    pub fn record(&self) -> Record<'_> {
        Record {
            hash: self.place.hash,
            key: &self.raw[self.place.key.clone()],
            state: self.place.state,
            op: self.op,
            sub: &self.raw[self.place.sub.clone()],
            stamp: self.stamp,
            value: &self.raw[self.value.clone()],
        }
    }

    /// On to the next record. False: there is none.
    pub fn advance(&mut self) -> Result<bool, SegmentError> {
        loop {
            if self.left == 0 && !self.next_block()? {
                return Ok(false);
            }
            self.read_record()?;
            let group = key_group::group_of(self.place.hash, self.segment.header.key_groups);
            let block = &self.segment.blocks[self.block];
            if group < block.first_group || group > block.last_group {
                return Err(self.corrupt("a record is outside the key groups of its block"));
            }
            if group >= self.groups.end {
                self.left = 0;
                self.next_block = self.segment.blocks.len();
                return Ok(false);
            }
            if group >= self.groups.start {
                return Ok(true);
            }
        }
    }

    #[cold]
    fn corrupt(&self, what: &'static str) -> SegmentError {
        corrupt(self.segment.blocks[self.block].offset, what)
    }

    fn next_block(&mut self) -> Result<bool, SegmentError> {
        loop {
            if self.at < self.raw.len() {
                return Err(self.corrupt("the block has more bytes than its records"));
            }
            let Some(block) = self.segment.blocks.get(self.next_block) else { return Ok(false) };
            self.next_block += 1;
            if block.last_group < self.groups.start || block.first_group >= self.groups.end {
                continue;
            }
            if !self.raw.is_empty() {
                let last = self.record();
                self.earlier = Some((last.hash, last.key.to_vec(), last.state, last.sub.to_vec()));
            }
            self.block = self.next_block - 1;
            self.segment.read_block(block, &mut self.raw)?;
            (self.at, self.left) = (0, block.records);
            if self.left > 0 {
                return Ok(true);
            }
        }
    }

    fn read_record(&mut self) -> Result<(), SegmentError> {
        let is_first = self.at == 0;
        let before = self.place.clone();
        let Some(end) = self.parse(is_first) else { return Err(self.corrupt("a record is cut off")) };
        self.at = end;
        self.left -= 1;
        if let Err(what) = self.check_record() {
            return Err(self.corrupt(what));
        }
        let record = self.record();
        let order = if is_first {
            self.earlier.as_ref().map_or(Ordering::Less, |(hash, key, state, sub)| {
                (*hash, &key[..], *state, &sub[..]).cmp(&(record.hash, record.key, record.state, record.sub))
            })
        } else {
            let earlier = (before.hash, &self.raw[before.key], before.state, &self.raw[before.sub]);
            earlier.cmp(&(record.hash, record.key, record.state, record.sub))
        };
        if order != Ordering::Less {
            return Err(self.corrupt("the records are not in order"));
        }
        Ok(())
    }

    /// Parses the record at `at` and gives its end. None: it is cut off, or says what no record says.
    fn parse(&mut self, is_first: bool) -> Option<usize> {
        let raw = &self.raw[..];
        let (flags, mut rest) = raw[self.at..].split_first()?;
        if flags & FLAGS_RESERVED != 0 || (is_first && flags & FLAG_SAME_KEY != 0) {
            return None;
        }
        let range = |part: &[u8], rest: &[u8]| {
            let end = raw.len() - rest.len();
            end - part.len()..end
        };
        if flags & FLAG_SAME_KEY == 0 {
            let (key, tail) = take_bytes(rest)?;
            self.place.key = range(key, tail);
            self.place.hash = key_group::hash(key);
            rest = tail;
        }
        let (state, tail) = take_varint(rest)?;
        self.place.state = u16::try_from(state).ok()?;
        rest = tail;
        self.place.sub = 0..0;
        if flags & FLAG_SUB != 0 {
            let (sub, tail) = take_bytes(rest)?;
            self.place.sub = range(sub, tail);
            rest = tail;
        }
        self.stamp = None;
        if flags & FLAG_STAMP != 0 {
            let (stamp, tail) = rest.split_first_chunk::<8>()?;
            self.stamp = Some(i64::from_le_bytes(*stamp));
            rest = tail;
        }
        self.op = Op::from_bits(*flags);
        self.value = 0..0;
        if self.op != Op::Remove {
            let (value, tail) = take_bytes(rest)?;
            self.value = range(value, tail);
            rest = tail;
        }
        Some(raw.len() - rest.len())
    }

    /// What the kind of the state demands.
    fn check_record(&self) -> Result<(), &'static str> {
        let record = self.record();
        if let EVENT_TIMERS | PROCESSING_TIMERS = record.state {
            let is_timer = matches!(record.op, Op::Put | Op::Remove) && record.value.is_empty();
            return if is_timer && timer_of(record.sub).is_some() { Ok(()) } else { Err("a timer is malformed") };
        }
        let Some(declared) = self.segment.header.states.get(usize::from(record.state)) else {
            return Err("a record is of a state that the header does not have");
        };
        if record.op != Op::Remove && record.value.is_empty() {
            return Err("a value is empty");
        }
        if record.op == Op::Append && self.segment.header.full {
            return Err("a full segment appends to a list");
        }
        let fits = match declared.kind {
            StateKind::Map => matches!(record.op, Op::Put | Op::Remove),
            StateKind::Value => matches!(record.op, Op::Put | Op::Remove) && record.sub.is_empty(),
            StateKind::Reducing(_) => {
                record.sub.is_empty() && (record.op == Op::Remove || (record.op == Op::Put && record.value.len() == 8))
            }
            StateKind::List => record.op != Op::Put && record.sub.is_empty(),
        };
        if fits { Ok(()) } else { Err("a record does not fit the kind of its state") }
    }
}
