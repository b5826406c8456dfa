//! Records in the row format of `wit/types.wit`, read where they lie and written in place.
//!
//! Nothing here allocates or copies on reading: a [`Record`] is a handful of pointers into the batch.

use crate::error::RecordError;

/// Milliseconds since the Unix epoch.
pub type Timestamp = i64;

/// How "no timestamp" travels.
pub(crate) const NO_TIMESTAMP: Timestamp = i64::MIN;

pub(crate) const HEADER_BYTES: usize = 16;
const KEY_LENGTH_MASK: u32 = 0x00ff_ffff;
const FLAG_SHIFT: u32 = 24;
const FLAG_CHANGE: u8 = 0b0000_0011;
const FLAG_TOMBSTONE: u8 = 0b0000_0100;
const FLAG_HEADERS: u8 = 0b0000_1000;

/// What a record says about its predecessor with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[repr(u8)]
pub enum ChangeKind {
    #[default]
    Insert = 0,
    UpdateBefore = 1,
    UpdateAfter = 2,
    Retract = 3,
}

impl ChangeKind {
    fn from_bits(bits: u8) -> Self {
        match bits & FLAG_CHANGE {
            0 => Self::Insert,
            1 => Self::UpdateBefore,
            2 => Self::UpdateAfter,
            _ => Self::Retract,
        }
    }
}

/// One record of the input.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
    timestamp: Timestamp,
    flags: u8,
    headers: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the head of `rows`, and its length. The host has checked the rows: wrong lengths are its bug and trap.
    #[inline]
    pub(crate) fn first(rows: &'a [u8]) -> (Self, usize) {
        let (head, rest) = rows.split_at(HEADER_BYTES);
        let first = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let flags = (first >> FLAG_SHIFT) as u8;
        let key_len = (first & KEY_LENGTH_MASK) as usize;
        let value_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let timestamp = i64::from_le_bytes([head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15]]);
        let (key, rest) = rest.split_at(key_len);
        let (value, rest) = rest.split_at(value_len);
        let mut len = HEADER_BYTES + key_len + value_len;
        let mut headers: &[u8] = &[];
        if flags & FLAG_HEADERS != 0 {
            let (size, rest) = rest.split_at(4);
            let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
            headers = &rest[..size];
            len += 4 + size;
        }
        (Self { key, value, timestamp, flags, headers }, len)
    }

    /// The key that partitions the stream.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The value; empty for a tombstone, see [`is_tombstone`](Self::is_tombstone).
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// The value as text; a record that is not UTF-8 is rejected by `?`.
    #[inline]
    pub fn text(&self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.value).map_err(|error| RecordError::new(format!("the value is not UTF-8: {error}")))
    }

    /// The key as text; a record whose key is not UTF-8 is rejected by `?`.
    #[inline]
    pub fn key_text(&self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.key).map_err(|error| RecordError::new(format!("the key is not UTF-8: {error}")))
    }

    /// Event time, where the record has one.
    #[inline]
    pub fn timestamp(&self) -> Option<Timestamp> {
        (self.timestamp != NO_TIMESTAMP).then_some(self.timestamp)
    }

    #[inline]
    pub(crate) fn raw_timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// Event time; a record without one is rejected by `?`.
    #[inline]
    pub fn event_time(&self) -> Result<Timestamp, RecordError> {
        self.timestamp().ok_or_else(|| RecordError::new("the record has no timestamp"))
    }

    /// The value is absent, which is not the same as empty: in a Kafka topic it deletes the key.
    #[inline]
    pub fn is_tombstone(&self) -> bool {
        self.flags & FLAG_TOMBSTONE != 0
    }

    #[inline]
    pub fn change(&self) -> ChangeKind {
        ChangeKind::from_bits(self.flags)
    }

    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        Headers { encoded: self.headers }
    }

    /// The same as a row to emit, for changing some of it: `Row { value: Some(b"…"), ..record.row() }`.
    #[inline]
    pub fn row(&self) -> Row<'a> {
        Row {
            key: self.key,
            value: (!self.is_tombstone()).then_some(self.value),
            timestamp: self.timestamp(),
            change: self.change(),
            headers: self.headers(),
        }
    }
}

/// Headers of a record, in order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    encoded: &'a [u8],
}

impl<'a> Headers<'a> {
    /// The first header of this name.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.into_iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        HeaderIter { rest: self.encoded }
    }
}

#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.rest.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at(u16::from_le_bytes(*len) as usize);
        let (len, rest) = rest.split_at(4);
        let (value, rest) = rest.split_at(u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize);
        self.rest = rest;
        Some((std::str::from_utf8(name).expect("the host checks header names"), value))
    }
}

/// Headers to emit.
#[derive(Debug, Clone, Default)]
pub struct HeaderList {
    encoded: Vec<u8>,
}

impl HeaderList {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a header. Names are limited to 65,535 bytes; a longer one panics.
    pub fn add(&mut self, name: &str, value: &[u8]) -> &mut Self {
        let name_len = u16::try_from(name.len()).expect("a header's name has at most 65535 bytes");
        self.encoded.extend_from_slice(&name_len.to_le_bytes());
        self.encoded.extend_from_slice(name.as_bytes());
        self.encoded.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.encoded.extend_from_slice(value);
        self
    }

    pub fn as_headers(&self) -> Headers<'_> {
        Headers { encoded: &self.encoded }
    }
}

/// One record to emit with everything that it may have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Row<'a> {
    pub key: &'a [u8],
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub timestamp: Option<Timestamp>,
    pub change: ChangeKind,
    pub headers: Headers<'a>,
}

impl Row<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut flags = self.change as u8;
        if self.value.is_none() {
            flags |= FLAG_TOMBSTONE;
        }
        if !self.headers.is_empty() {
            flags |= FLAG_HEADERS;
        }
        let value = self.value.unwrap_or_default();
        write_head(out, self.key, flags, self.timestamp.unwrap_or(NO_TIMESTAMP), value.len());
        out.extend_from_slice(value);
        if !self.headers.is_empty() {
            out.extend_from_slice(&(self.headers.encoded.len() as u32).to_le_bytes());
            out.extend_from_slice(self.headers.encoded);
        }
    }
}

/// Everything before the value. A key that the length field can't hold panics: the host's limit is far below.
#[inline]
fn write_head(out: &mut Vec<u8>, key: &[u8], flags: u8, timestamp: Timestamp, value_len: usize) {
    assert!(key.len() <= KEY_LENGTH_MASK as usize, "a key of {} bytes can't be expressed (limit 16777215)", key.len());
    out.reserve(HEADER_BYTES + key.len() + value_len);
    let mut head = [0; HEADER_BYTES];
    head[..4].copy_from_slice(&(key.len() as u32 | (u32::from(flags) << FLAG_SHIFT)).to_le_bytes());
    head[4..8].copy_from_slice(&(value_len as u32).to_le_bytes());
    head[8..].copy_from_slice(&timestamp.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(key);
}

/// A row with a key, a value and a timestamp, which is what almost all are.
#[inline]
pub(crate) fn write_plain(out: &mut Vec<u8>, key: &[u8], timestamp: Timestamp, value: &[u8]) {
    write_head(out, key, 0, timestamp, value.len());
    out.extend_from_slice(value);
}

/// Starts a row whose value is written afterwards; [`finish_value`] sets its length.
#[inline]
pub(crate) fn begin_value(out: &mut Vec<u8>, key: &[u8], timestamp: Timestamp) -> usize {
    let row_start = out.len();
    write_head(out, key, 0, timestamp, 0);
    row_start
}

#[inline]
pub(crate) fn finish_value(out: &mut [u8], row_start: usize, key_len: usize) {
    let value_len = (out.len() - row_start - HEADER_BYTES - key_len) as u32;
    out[row_start + 4..row_start + 8].copy_from_slice(&value_len.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_written_reads_back_with_everything_it_had() {
        let mut headers = HeaderList::new();
        headers.add("trace", b"1").add("empty", b"");
        let row = Row {
            key: b"k",
            value: Some(b"value"),
            timestamp: Some(-5),
            change: ChangeKind::UpdateAfter,
            headers: headers.as_headers(),
        };
        let mut rows = Vec::new();
        row.write(&mut rows);
        Row { key: b"gone", ..Row::default() }.write(&mut rows);

        let (record, len) = Record::first(&rows);
        assert_eq!((record.key(), record.value(), record.timestamp()), (&b"k"[..], &b"value"[..], Some(-5)));
        assert_eq!((record.change(), record.is_tombstone()), (ChangeKind::UpdateAfter, false));
        assert_eq!(record.headers().into_iter().collect::<Vec<_>>(), [("trace", &b"1"[..]), ("empty", &b""[..])]);
        assert_eq!(record.headers().get("trace"), Some(&b"1"[..]));
        let (record, tail) = Record::first(&rows[len..]);
        assert!(record.is_tombstone() && record.headers().is_empty() && record.timestamp().is_none());
        assert_eq!(len + tail, rows.len());
    }

    #[test]
    fn a_value_written_in_place_gets_its_length() {
        let mut rows = Vec::new();
        let start = begin_value(&mut rows, b"key", 7);
        rows.extend_from_slice(b"abc");
        finish_value(&mut rows, start, 3);
        let mut plain = Vec::new();
        write_plain(&mut plain, b"key", 7, b"abc");
        assert_eq!(rows, plain);
    }
}
