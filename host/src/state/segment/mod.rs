//! The stored form of keyed state: one file for one snapshot of one task, format 1.
//!
//! ```text
//!  "TGSTATE\x01"   u32 format   u32 length of the header   header: SegmentHeader as JSON
//!  blocks, one after another: records, zstd level 1
//!  index, 32 bytes a block: u32 first group, u32 last group, u64 offset, u32 length, u32 raw length, u32 crc32c, u32 records
//!  u64 offset of the index   u32 blocks   u32 crc32c of everything before the blocks   u32 crc32c of the index
//!  u64 records   u32 crc32c of these 28 bytes   "TGSTATE\x01"
//! ```
//!
//! All numbers are little endian; a varint has seven bits a byte, the lowest first. A record is
//!
//! ```text
//!  u8 flags: bits 0-1 operation (0 remove, 1 put, 2 append, 3 replace), bit 2 a sub key follows, bit 3 a stamp follows,
//!            bit 4 the key is that of the record before; bits 5-7 are 0
//!  [varint length, key]   varint state   [varint length, sub key]   [s64 stamp]   not with remove: varint length, value
//! ```
//!
//! * `state` is an index into the header's table, which is sorted by name; 0xfffe and 0xffff are the timers of event time and of
//!   processing time. The sub key of a map entry is its map key; of a timer its time (big endian, sign bit flipped) and tag (big
//!   endian), and its value is empty. The value of a list is its elements, each as a varint length and its bytes.
//! * Records are sorted by (hash of the key, key, state, sub key), and each place appears once. The hash is that of
//!   `tidegate_core::key_group`, so the order is that of the key groups as well. A block's first record has its key.
//! * A delta says what changed since the segment before it: put and replace win over what is older, remove takes it away, append
//!   adds to the list that is there. A full segment has neither remove nor append.
//!
//! Readers treat every length as hostile: what does not add up is a [`SegmentError`], and nothing is allocated that is not paid
//! for by bytes which are there.

mod merge;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use merge::merge_segments;
pub(super) use read::{RecordReader, SegmentReader};
use serde::{Deserialize, Serialize};
use tidegate_core::state_schema::StateDeclaration;

use super::error::SegmentError;

pub const SEGMENT_FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"TGSTATE\x01";
const HEAD_BYTES: usize = 16;
const INDEX_ENTRY_BYTES: usize = 32;
const FOOTER_BYTES: usize = 40;
/// Compresses as well as larger ones do, and is what a restore reads too much at either end of its groups.
const BLOCK_RAW_BYTES: usize = 256 << 10;
const COMPRESSION_LEVEL: i32 = 1;

const FLAG_SUB: u8 = 1 << 2;
const FLAG_STAMP: u8 = 1 << 3;
const FLAG_SAME_KEY: u8 = 1 << 4;
const FLAGS_RESERVED: u8 = 0b1110_0000;

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeader {
    pub key_groups: u32,
    pub first_group: u32,
    pub end_group: u32,
    pub full: bool,
    /// Sorted by name.
    pub states: Vec<StateDeclaration>,
}

/// A finished segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub bytes: Vec<u8>,
    pub entries: u64,
    pub full: bool,
    pub first_group: u32,
    pub end_group: u32,
    /// Of all bytes.
    pub crc32c: u32,
}
