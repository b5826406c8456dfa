//! The row format: the bytes that travel on every edge and cross the guest boundary unchanged.
//!
//! `wit/types.wit` is the normative text. One row is
//!
//! ```text
//! u32 key length (24 bits) | flags (8 bits)   u32 value length   s64 timestamp   key   value
//! [u32 length of the headers, then for each: u16 name length, name, u32 value length, value]
//! ```
//!
//! Invariants:
//! * a [`Rows`] made by this module, or that passed [`check`], can be walked without any further bounds failing;
//! * rows are self-contained: cutting a buffer at row boundaries, joining and scattering needs no rewriting.
//!
//! What this is not: a place where rows are interpreted. Keys, values and headers are bytes here.

use crate::limits::RowLimits;

/// Milliseconds since the Unix epoch.
pub type Timestamp = i64;

/// "No timestamp", and the watermark before there is one.
pub const NO_TIMESTAMP: Timestamp = i64::MIN;

/// The watermark that says: nothing will come any more.
pub const END_OF_TIME: Timestamp = i64::MAX;

/// Bytes of a row before its key.
pub const HEADER_BYTES: usize = 16;

const KEY_LENGTH_MASK: u32 = 0x00ff_ffff;
const FLAG_SHIFT: u32 = 24;
const FLAG_CHANGE: u8 = 0b0000_0011;
const FLAG_TOMBSTONE: u8 = 0b0000_0100;
const FLAG_HEADERS: u8 = 0b0000_1000;
const FLAG_RESERVED: u8 = 0b1111_0000;

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
    pub fn from_bits(bits: u8) -> Self {
        match bits & FLAG_CHANGE {
            0 => Self::Insert,
            1 => Self::UpdateBefore,
            2 => Self::UpdateAfter,
            _ => Self::Retract,
        }
    }

    /// The other way round from [`Self::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Insert, Self::UpdateBefore, Self::UpdateAfter, Self::Retract].into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::UpdateBefore => "update-before",
            Self::UpdateAfter => "update-after",
            Self::Retract => "retract",
        }
    }
}

/// One row, borrowed from its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    pub key: &'a [u8],
    /// `None` is a tombstone, which is not the same as an empty value.
    pub value: Option<&'a [u8]>,
    pub timestamp: Timestamp,
    pub change: ChangeKind,
    /// The encoded headers, empty where there are none; see [`headers`].
    pub headers: &'a [u8],
}

impl<'a> Row<'a> {
    pub fn new(key: &'a [u8], value: &'a [u8], timestamp: Timestamp) -> Self {
        Self { key, value: Some(value), timestamp, change: ChangeKind::Insert, headers: &[] }
    }

    pub fn encoded_len(&self) -> usize {
        HEADER_BYTES
            + self.key.len()
            + self.value.map_or(0, <[u8]>::len)
            + if self.headers.is_empty() { 0 } else { 4 + self.headers.len() }
    }

    /// Appends the row. The caller has checked the lengths against [`RowLimits`]; a key of 16 MiB or more can't be expressed.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert!(self.key.len() <= KEY_LENGTH_MASK as usize, "BUG: a key of {} bytes reached the row writer", self.key.len());
        let value = self.value.unwrap_or_default();
        assert!(u32::try_from(value.len()).is_ok(), "BUG: a value of {} bytes reached the row writer", value.len());
        let mut flags = self.change as u8;
        if self.value.is_none() {
            flags |= FLAG_TOMBSTONE;
        }
        if !self.headers.is_empty() {
            flags |= FLAG_HEADERS;
        }
        out.reserve(self.encoded_len());
        out.extend_from_slice(&(self.key.len() as u32 | (u32::from(flags) << FLAG_SHIFT)).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.timestamp.to_le_bytes());
        out.extend_from_slice(self.key);
        out.extend_from_slice(value);
        if !self.headers.is_empty() {
            out.extend_from_slice(&(self.headers.len() as u32).to_le_bytes());
            out.extend_from_slice(self.headers);
        }
    }
}

/// What is wrong with a buffer of rows. Always the fault of whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error("row {row} at byte {at} is cut off: {needed} bytes needed, {left} left")]
    CutOff { row: u32, at: usize, needed: usize, left: usize },
    #[error("row {row} has reserved flag bits set ({flags:#010b})")]
    ReservedFlags { row: u32, flags: u8 },
    #[error("row {row} is a tombstone with a value of {bytes} bytes")]
    TombstoneWithValue { row: u32, bytes: usize },
    #[error("the {what} of row {row} has {bytes} bytes, which exceeds the limit of {limit} ({name})")]
    TooLarge { row: u32, what: &'static str, bytes: usize, limit: usize, name: &'static str },
    #[error("the headers of row {row} do not add up: {why}")]
    BadHeaders { row: u32, why: &'static str },
    #[error("row {row} has more headers than the limit of {limit} (headers_max)")]
    TooManyHeaders { row: u32, limit: usize },
    #[error("{claimed} rows were announced, the buffer holds {found}")]
    WrongCount { claimed: u32, found: u32 },
    #[error("{rows} rows in one batch exceed the limit of {limit} (batch_rows_max)")]
    TooManyRows { rows: u32, limit: u32 },
}

/// Checks a buffer that someone else wrote, whole and once, so that walking it later can't fail.
pub fn check(rows: &[u8], claimed: u32, limits: &RowLimits) -> Result<(), RowError> {
    if claimed > limits.batch_rows_max {
        return Err(RowError::TooManyRows { rows: claimed, limit: limits.batch_rows_max });
    }
    let mut at = 0;
    let mut row = 0;
    while at < rows.len() {
        if row == claimed {
            return Err(RowError::WrongCount { claimed, found: row + 1 });
        }
        at += check_row(&rows[at..], row, at, limits)?;
        row += 1;
    }
    if row != claimed {
        return Err(RowError::WrongCount { claimed, found: row });
    }
    Ok(())
}

#[inline]
fn check_row(rows: &[u8], row: u32, at: usize, limits: &RowLimits) -> Result<usize, RowError> {
    let cut_off = |needed: usize| RowError::CutOff { row, at, needed, left: rows.len() };
    let Some(head) = rows.first_chunk::<HEADER_BYTES>() else { return Err(cut_off(HEADER_BYTES)) };
    let (key_len, flags, value_len) = split_head(head);
    if flags & FLAG_RESERVED != 0 {
        return Err(RowError::ReservedFlags { row, flags });
    }
    let too_large = |what, bytes, limit, name| Err(RowError::TooLarge { row, what, bytes, limit, name });
    if key_len > limits.key_bytes_max {
        return too_large("key", key_len, limits.key_bytes_max, "key_bytes_max");
    }
    if value_len > limits.value_bytes_max {
        return too_large("value", value_len, limits.value_bytes_max, "value_bytes_max");
    }
    if flags & FLAG_TOMBSTONE != 0 && value_len != 0 {
        return Err(RowError::TombstoneWithValue { row, bytes: value_len });
    }
    let mut end = HEADER_BYTES + key_len + value_len;
    if flags & FLAG_HEADERS != 0 {
        let Some(len) = rows.get(end..end + 4) else { return Err(cut_off(end + 4)) };
        let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        if len > limits.headers_bytes_max {
            return too_large("headers", len, limits.headers_bytes_max, "headers_bytes_max");
        }
        let Some(encoded) = rows.get(end + 4..end + 4 + len) else { return Err(cut_off(end + 4 + len)) };
        check_headers(encoded, row, limits)?;
        end += 4 + len;
    }
    if end > rows.len() {
        return Err(cut_off(end));
    }
    Ok(end)
}

fn check_headers(mut encoded: &[u8], row: u32, limits: &RowLimits) -> Result<(), RowError> {
    let bad = |why| Err(RowError::BadHeaders { row, why });
    if encoded.is_empty() {
        return bad("the flag is set and there are none");
    }
    let mut count = 0;
    while !encoded.is_empty() {
        count += 1;
        if count > limits.headers_max {
            return Err(RowError::TooManyHeaders { row, limit: limits.headers_max });
        }
        let Some((len, rest)) = encoded.split_first_chunk::<2>() else { return bad("a name's length is cut off") };
        let bytes = u16::from_le_bytes(*len) as usize;
        if bytes > limits.header_name_bytes_max {
            let limit = limits.header_name_bytes_max;
            return Err(RowError::TooLarge { row, what: "name of a header", bytes, limit, name: "header_name_bytes_max" });
        }
        let Some((name, rest)) = rest.split_at_checked(bytes) else { return bad("a name is cut off") };
        if std::str::from_utf8(name).is_err() {
            return bad("a name is not UTF-8");
        }
        let Some((len, rest)) = rest.split_first_chunk::<4>() else { return bad("a value's length is cut off") };
        let Some((_, rest)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else {
            return bad("a value is cut off");
        };
        encoded = rest;
    }
    Ok(())
}

#[inline]
fn split_head(head: &[u8; HEADER_BYTES]) -> (usize, u8, usize) {
    let first = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let value_len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    ((first & KEY_LENGTH_MASK) as usize, (first >> FLAG_SHIFT) as u8, value_len)
}

/// Walks checked rows. Panics on a buffer that was never checked, which is our bug and never a guest's doing.
#[derive(Debug, Clone)]
pub struct RowIter<'a> {
    rest: &'a [u8],
}

pub fn iter(rows: &[u8]) -> RowIter<'_> {
    RowIter { rest: rows }
}

/// The row at the head of `rows`, and its length.
#[inline]
pub fn first(rows: &[u8]) -> (Row<'_>, usize) {
    let head = rows.first_chunk::<HEADER_BYTES>().expect("BUG: unchecked rows");
    let (key_len, flags, value_len) = split_head(head);
    let timestamp = i64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
    let key_end = HEADER_BYTES + key_len;
    let mut end = key_end + value_len;
    let mut headers: &[u8] = &[];
    let value_end = end;
    if flags & FLAG_HEADERS != 0 {
        let len = u32::from_le_bytes(rows[end..end + 4].try_into().expect("four bytes")) as usize;
        headers = &rows[end + 4..end + 4 + len];
        end += 4 + len;
    }
    let row = Row {
        key: &rows[HEADER_BYTES..key_end],
        value: (flags & FLAG_TOMBSTONE == 0).then(|| &rows[key_end..value_end]),
        timestamp,
        change: ChangeKind::from_bits(flags),
        headers,
    };
    (row, end)
}

impl<'a> Iterator for RowIter<'a> {
    type Item = Row<'a>;

    #[inline]
    fn next(&mut self) -> Option<Row<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (row, len) = first(self.rest);
        self.rest = &self.rest[len..];
        Some(row)
    }
}

/// Walks rows with their bytes, for those who copy rows and don't look at them.
pub fn raw(rows: &[u8]) -> impl Iterator<Item = (Row<'_>, &[u8])> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (row, len) = first(rest);
        let (bytes, tail) = rest.split_at(len);
        rest = tail;
        Some((row, bytes))
    })
}

/// Walks encoded headers as (name, value).
pub fn headers(encoded: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        let (len, tail) = rest.split_first_chunk::<2>()?;
        let (name, tail) = tail.split_at(u16::from_le_bytes(*len) as usize);
        let (len, tail) = tail.split_first_chunk::<4>().expect("BUG: unchecked headers");
        let (value, tail) = tail.split_at(u32::from_le_bytes(*len) as usize);
        rest = tail;
        Some((std::str::from_utf8(name).expect("BUG: unchecked headers"), value))
    })
}

/// Appends one header in the encoded form. False where the name or the value can't be expressed.
pub fn write_header(out: &mut Vec<u8>, name: &str, value: &[u8]) -> bool {
    let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len())) else { return false };
    out.extend_from_slice(&name_len.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&value_len.to_le_bytes());
    out.extend_from_slice(value);
    true
}

/// Where a row came from: a split of a source and its position there. Eight bytes, so that every row can carry one.
///
/// Bit 63 set: the row was emitted by an operator somewhere after the record at that position, not copied from it.
/// Bits 62-48: the job-wide number of the split. Bits 47-0: position (record number, or a Kafka offset).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(pub u64);

impl Origin {
    const DERIVED: u64 = 1 << 63;
    const POSITION_BITS: u32 = 48;
    /// Splits beyond this number share one handle; their rows still name the position, not the split.
    pub const SPLIT_MAX: u16 = 0x7fff;
    pub const UNKNOWN: Self = Self(u64::MAX);

    pub fn new(split: u16, position: u64) -> Self {
        let split = u64::from(split.min(Self::SPLIT_MAX));
        Self((split << Self::POSITION_BITS) | (position & ((1 << Self::POSITION_BITS) - 1)))
    }

    pub fn split(self) -> u16 {
        ((self.0 & !Self::DERIVED) >> Self::POSITION_BITS) as u16
    }

    pub fn position(self) -> u64 {
        self.0 & ((1 << Self::POSITION_BITS) - 1)
    }

    /// The same place, as the origin of a row that an operator made.
    pub fn derived(self) -> Self {
        Self(self.0 | Self::DERIVED)
    }

    pub fn is_exact(self) -> bool {
        self.0 & Self::DERIVED == 0
    }
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.is_exact() { "" } else { "~" };
        write!(f, "{sign}{}@{}", self.split(), self.position())
    }
}

/// Origins of the rows of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Row i stands at `first + i`: a batch as a source made it.
    Run(Origin),
    /// All rows share one.
    Same(Origin),
    Each(Vec<Origin>),
}

impl Origins {
    #[inline]
    pub fn get(&self, row: usize) -> Origin {
        match self {
            Self::Run(first) => Origin(first.0 + row as u64),
            Self::Same(origin) => *origin,
            Self::Each(origins) => origins[row],
        }
    }
}

/// A batch on an edge: rows, their number and where they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    pub bytes: Vec<u8>,
    pub count: u32,
    pub origins: Origins,
}

impl Default for Rows {
    fn default() -> Self {
        Self { bytes: Vec::new(), count: 0, origins: Origins::Same(Origin::UNKNOWN) }
    }
}

impl Rows {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn push(&mut self, row: &Row<'_>) {
        row.write(&mut self.bytes);
        self.count += 1;
    }

    pub fn iter(&self) -> RowIter<'_> {
        iter(&self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> RowLimits {
        RowLimits::default()
    }

    #[derive(Debug, Clone)]
    struct Owned {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        timestamp: i64,
        change: u8,
        headers: Vec<(String, Vec<u8>)>,
    }

    fn any_row() -> impl Strategy<Value = Owned> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let headers = proptest::collection::vec(("[a-z\u{e4}]{0,8}", bytes()), 0..3);
        (bytes(), proptest::option::of(bytes()), any::<i64>(), 0u8..4, headers)
            .prop_map(|(key, value, timestamp, change, headers)| Owned { key, value, timestamp, change, headers })
    }

    fn encode(rows: &[Owned]) -> Rows {
        let mut out = Rows::default();
        for row in rows {
            let mut headers = Vec::new();
            for (name, value) in &row.headers {
                assert!(write_header(&mut headers, name, value));
            }
            out.push(&Row {
                key: &row.key,
                value: row.value.as_deref(),
                timestamp: row.timestamp,
                change: ChangeKind::from_bits(row.change),
                headers: &headers,
            });
        }
        out
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(rows in proptest::collection::vec(any_row(), 0..20)) {
            let encoded = encode(&rows);
            prop_assert_eq!(check(&encoded.bytes, encoded.count, &limits()), Ok(()));
            for (row, read) in rows.iter().zip(encoded.iter()) {
                prop_assert_eq!(read.key, &row.key[..]);
                prop_assert_eq!(read.value, row.value.as_deref());
                prop_assert_eq!(read.timestamp, row.timestamp);
                prop_assert_eq!(read.change as u8, row.change);
                let found: Vec<_> = headers(read.headers).map(|(n, v)| (n.to_owned(), v.to_vec())).collect();
                prop_assert_eq!(&found, &row.headers);
            }
            prop_assert_eq!(encoded.iter().count(), rows.len());
        }

        #[test]
        fn a_checked_buffer_can_be_walked_whatever_its_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), claimed in 0u32..6) {
            if check(&bytes, claimed, &limits()).is_ok() {
                let walked: Vec<_> = iter(&bytes).map(|row| headers(row.headers).count()).collect();
                prop_assert_eq!(walked.len(), claimed as usize);
            }
        }

        #[test]
        fn a_row_cut_anywhere_is_refused(row in any_row(), cut in 0.0f64..1.0) {
            let encoded = encode(&[row]);
            let at = (encoded.bytes.len() as f64 * cut) as usize;
            prop_assert!(at == encoded.bytes.len() || check(&encoded.bytes[..at], 1, &limits()).is_err());
        }
    }

    #[test]
    fn limits_are_named() {
        let mut rows = Rows::default();
        rows.push(&Row::new(&[0; 100], b"v", 0));
        let tight = RowLimits { key_bytes_max: 99, ..limits() };
        let error = check(&rows.bytes, 1, &tight).unwrap_err();
        assert_eq!(error.to_string(), "the key of row 0 has 100 bytes, which exceeds the limit of 99 (key_bytes_max)");
    }

    #[test]
    fn an_origin_keeps_split_position_and_exactness() {
        let origin = Origin::new(3, 1_000_000);
        assert_eq!((origin.split(), origin.position(), origin.is_exact()), (3, 1_000_000, true));
        assert_eq!((origin.derived().split(), origin.derived().is_exact()), (3, false));
        assert_eq!(Origins::Run(origin).get(5).position(), 1_000_005);
    }
}
