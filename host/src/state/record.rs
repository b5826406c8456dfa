//! One change of state as snapshots and segments see it, and the buffer that a drain fills with them.
//!
//! The buffer is a list of pieces that are never moved: a drain may append a million records without copying what is there.

use std::cmp::Ordering;

/// State numbers of the timers, after those of all states.
pub(super) const EVENT_TIMERS: u16 = 0xfffe;
pub(super) const PROCESSING_TIMERS: u16 = 0xffff;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    Remove = 0,
    Put = 1,
    /// Elements at the end of the list that stands in older segments.
    Append = 2,
    /// The whole list.
    Replace = 3,
}

impl Op {
    pub fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Remove,
            1 => Self::Put,
            2 => Self::Append,
            _ => Self::Replace,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Record<'a> {
    pub hash: u64,
    pub key: &'a [u8],
    pub state: u16,
    pub op: Op,
    /// Map key; of a timer its time and tag, so that bytes sort as timers do.
    pub sub: &'a [u8],
    /// Time of the last write, of states with a time to live.
    pub stamp: Option<i64>,
    /// Of a list its elements, each as its length (varint) and its bytes: two lists are joined by joining the bytes.
    pub value: &'a [u8],
}

impl Record<'_> {
    /// The order of records in a segment.
    pub fn place_cmp(&self, other: &Record<'_>) -> Ordering {
        self.hash
            .cmp(&other.hash)
            .then_with(|| self.key.cmp(other.key).then(self.state.cmp(&other.state)).then_with(|| self.sub.cmp(other.sub)))
    }
}

/// The bytes of a timer that sort as (time, tag).
pub(super) fn timer_sub(time: i64, tag: u64) -> [u8; 16] {
    let mut sub = [0; 16];
    sub[..8].copy_from_slice(&((time as u64) ^ (1 << 63)).to_be_bytes());
    sub[8..].copy_from_slice(&tag.to_be_bytes());
    sub
}

pub(super) fn timer_of(sub: &[u8]) -> Option<(i64, u64)> {
    let (time, tag) = sub.split_first_chunk::<8>()?;
    let tag: [u8; 8] = tag.try_into().ok()?;
    Some(((u64::from_be_bytes(*time) ^ (1 << 63)) as i64, u64::from_be_bytes(tag)))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The number at the head of `bytes` and what follows. `None`: cut off, or more than 64 bits.
#[inline]
pub(super) fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

pub(super) fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = take_varint(bytes)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

const PIECE_BYTES: usize = 256 << 10;
const HEAD: usize = 32;
const NO_STAMP: u8 = 0;
const STAMP: u8 = 1;

/// Records in the order in which they were drained.
#[derive(Default)]
pub(super) struct RecordBuffer {
    pieces: Vec<Vec<u8>>,
    records: u64,
}

impl RecordBuffer {
    pub fn len(&self) -> u64 {
        self.records
    }

    #[inline]
    pub fn push(&mut self, record: &Record<'_>) {
        let needed = HEAD + record.key.len() + record.sub.len() + record.value.len();
        if self.pieces.last().is_none_or(|piece| piece.capacity() - piece.len() < needed) {
            self.pieces.push(Vec::with_capacity(needed.max(PIECE_BYTES)));
        }
        let piece = self.pieces.last_mut().expect("a piece");
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&record.hash.to_le_bytes());
        head[8..16].copy_from_slice(&record.stamp.unwrap_or_default().to_le_bytes());
        head[16..20].copy_from_slice(&(record.key.len() as u32).to_le_bytes());
        head[20..24].copy_from_slice(&(record.sub.len() as u32).to_le_bytes());
        head[24..28].copy_from_slice(&(record.value.len() as u32).to_le_bytes());
        head[28..30].copy_from_slice(&record.state.to_le_bytes());
        head[30] = record.op as u8;
        head[31] = if record.stamp.is_some() { STAMP } else { NO_STAMP };
        piece.extend_from_slice(&head);
        piece.extend_from_slice(record.key);
        piece.extend_from_slice(record.sub);
        piece.extend_from_slice(record.value);
        self.records += 1;
    }

    /// The record at a place of [`Self::places`].
    pub fn get(&self, place: u64) -> Record<'_> {
        Self::read(&self.pieces[(place >> 32) as usize][place as u32 as usize..]).0
    }

    fn read(bytes: &[u8]) -> (Record<'_>, usize) {
        let (head, rest) = bytes.split_first_chunk::<HEAD>().expect("BUG: a cut record");
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
        let (key, rest) = rest.split_at(number(16));
        let (sub, rest) = rest.split_at(number(20));
        let value = &rest[..number(24)];
        let stamp = i64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
        let record = Record {
            hash: u64::from_le_bytes(head[..8].try_into().expect("eight bytes")),
            key,
            state: u16::from_le_bytes([head[28], head[29]]),
            op: Op::from_bits(head[30]),
            sub,
            stamp: (head[31] == STAMP).then_some(stamp),
            value,
        };
        (record, HEAD + key.len() + sub.len() + value.len())
    }

    /// Hash and place of every record.
    pub fn places(&self) -> Vec<(u64, u64)> {
        let mut places = Vec::with_capacity(self.records as usize);
        for (number, piece) in self.pieces.iter().enumerate() {
            let mut at = 0;
            while at < piece.len() {
                let (record, len) = Self::read(&piece[at..]);
                places.push((record.hash, (number as u64) << 32 | at as u64));
                at += len;
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_timers_survive_and_sort(a in any::<(i64, u64)>(), b in any::<(i64, u64)>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, a.1);
            prop_assert_eq!(take_varint(&bytes), Some((a.1, &[][..])));
            prop_assert_eq!(take_varint(&bytes[..bytes.len() - 1]), None);
            prop_assert_eq!(timer_of(&timer_sub(a.0, a.1)), Some(a));
            prop_assert_eq!(timer_sub(a.0, a.1).cmp(&timer_sub(b.0, b.1)), a.cmp(&b));
        }
    }
}
