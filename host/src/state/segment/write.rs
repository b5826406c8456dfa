//! Sorts a drained snapshot and writes it. Heavy: meant for another thread than the task's.

use super::super::record::{EVENT_TIMERS, Op, PROCESSING_TIMERS, Record, put_varint};
use super::super::snapshot::FrozenState;
use super::{
    BLOCK_RAW_BYTES, COMPRESSION_LEVEL, FLAG_SAME_KEY, FLAG_STAMP, FLAG_SUB, INDEX_ENTRY_BYTES, MAGIC, SEGMENT_FORMAT, Segment,
    SegmentHeader,
};
use tidegate_core::key_group;

/// Takes records in their order.
pub(super) struct SegmentWriter {
    header: SegmentHeader,
    out: Vec<u8>,
    head_crc: u32,
    index: Vec<u8>,
    block: Vec<u8>,
    block_records: u32,
    block_groups: (u32, u32),
    previous_key: Vec<u8>,
    entries: u64,
    compressor: zstd::bulk::Compressor<'static>,
}

impl SegmentWriter {
    pub fn new(header: SegmentHeader) -> Self {
        let json = serde_json::to_vec(&header).expect("BUG: a header is no JSON");
        let mut out = Vec::with_capacity(json.len() + 4096);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
        out.extend_from_slice(&u32::try_from(json.len()).expect("BUG: a header of 4 GiB").to_le_bytes());
        out.extend_from_slice(&json);
        Self {
            header,
            head_crc: crc32c::crc32c(&out),
            out,
            index: Vec::new(),
            block: Vec::with_capacity(BLOCK_RAW_BYTES + BLOCK_RAW_BYTES / 4),
            block_records: 0,
            block_groups: (0, 0),
            previous_key: Vec::new(),
            entries: 0,
            compressor: zstd::bulk::Compressor::new(COMPRESSION_LEVEL).expect("BUG: zstd refuses its level 1"),
        }
    }

    pub fn push(&mut self, record: &Record<'_>) {
        if self.block.len() >= BLOCK_RAW_BYTES {
            self.end_block();
        }
        let group = key_group::group_of(record.hash, self.header.key_groups);
        let is_first = self.block.is_empty();
        if is_first {
            self.block_groups.0 = group;
        }
        self.block_groups.1 = group;
        let same_key = !is_first && self.previous_key == record.key;
        let mut flags = record.op as u8;
        flags |= if record.sub.is_empty() { 0 } else { FLAG_SUB };
        flags |= if record.stamp.is_some() { FLAG_STAMP } else { 0 };
        flags |= if same_key { FLAG_SAME_KEY } else { 0 };
        let block = &mut self.block;
        block.push(flags);
        if !same_key {
            put_varint(block, record.key.len() as u64);
            block.extend_from_slice(record.key);
            self.previous_key.clear();
            self.previous_key.extend_from_slice(record.key);
        }
        put_varint(block, u64::from(record.state));
        if !record.sub.is_empty() {
            put_varint(block, record.sub.len() as u64);
            block.extend_from_slice(record.sub);
        }
        if let Some(stamp) = record.stamp {
            block.extend_from_slice(&stamp.to_le_bytes());
        }
        if record.op != Op::Remove {
            put_varint(block, record.value.len() as u64);
            block.extend_from_slice(record.value);
        }
        self.block_records += 1;
        self.entries += 1;
    }

    fn end_block(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let compressed = self.compressor.compress(&self.block).expect("BUG: zstd could not compress a block in memory");
        let number = |len: usize| u32::try_from(len).expect("BUG: a block of 4 GiB").to_le_bytes();
        self.index.extend_from_slice(&self.block_groups.0.to_le_bytes());
        self.index.extend_from_slice(&self.block_groups.1.to_le_bytes());
        self.index.extend_from_slice(&(self.out.len() as u64).to_le_bytes());
        self.index.extend_from_slice(&number(compressed.len()));
        self.index.extend_from_slice(&number(self.block.len()));
        self.index.extend_from_slice(&crc32c::crc32c(&compressed).to_le_bytes());
        self.index.extend_from_slice(&self.block_records.to_le_bytes());
        self.out.extend_from_slice(&compressed);
        self.block.clear();
        self.block_records = 0;
    }

    pub fn finish(mut self) -> Segment {
        self.end_block();
        let mut footer = Vec::new();
        footer.extend_from_slice(&(self.out.len() as u64).to_le_bytes());
        footer.extend_from_slice(&((self.index.len() / INDEX_ENTRY_BYTES) as u32).to_le_bytes());
        footer.extend_from_slice(&self.head_crc.to_le_bytes());
        footer.extend_from_slice(&crc32c::crc32c(&self.index).to_le_bytes());
        footer.extend_from_slice(&self.entries.to_le_bytes());
        footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        footer.extend_from_slice(MAGIC);
        self.out.extend_from_slice(&self.index);
        self.out.extend_from_slice(&footer);
        Segment {
            crc32c: crc32c::crc32c(&self.out),
            bytes: self.out,
            entries: self.entries,
            full: self.header.full,
            first_group: self.header.first_group,
            end_group: self.header.end_group,
        }
    }
}

impl FrozenState {
    /// The snapshot as a segment. Sorts, compresses and sums: about a microsecond an entry.
    pub fn write_segment(self) -> Segment {
        let Self { header, ranks, records } = self;
        let mut places = records.places();
        places.sort_unstable();
        let record = |place: u64| {
            let record = records.get(place);
            let state = match record.state {
                EVENT_TIMERS | PROCESSING_TIMERS => record.state,
                state => ranks[usize::from(state)],
            };
            Record { state, ..record }
        };
        let mut writer = SegmentWriter::new(header);
        for same_hash in places.chunk_by_mut(|a, b| a.0 == b.0) {
            // A timer that left and came back within the epoch was drained twice, and is set. Nothing else appears twice.
            same_hash.sort_by(|a, b| {
                let (a, b) = (record(a.1), record(b.1));
                a.place_cmp(&b).then_with(|| (b.op as u8).cmp(&(a.op as u8)))
            });
            let mut previous: Option<Record<'_>> = None;
            for (_, place) in same_hash.iter() {
                let record = record(*place);
                if let Some(previous) = previous.filter(|previous| previous.place_cmp(&record).is_eq()) {
                    assert!(previous.state >= EVENT_TIMERS, "BUG: state {} was drained twice", previous.state);
                    continue;
                }
                writer.push(&record);
                previous = Some(record);
            }
        }
        writer.finish()
    }
}
