//! Where a record ends, in each of the formats.

use super::csv::{Csv, Cut};
use super::input::Input;
use memchr::memchr;
use std::ops::Range;

/// Bytes of a record that is too long which are kept for the dead letter.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The record at the head of the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Peek {
    NeedMore,
    /// Ends after `total` bytes; the record itself is `body` of them (of the cut fields, for CSV).
    Record {
        total: usize,
        body: Range<usize>,
    },
    /// Can't be cut as a record: `body` of the bytes is what is bad, and after `total` of them it goes on.
    Bad {
        total: usize,
        body: Range<usize>,
        reason: String,
    },
    /// The same for a record that the buffer does not hold; what is to be kept of it is in [`Framing::skipped`].
    Skipped {
        reason: String,
    },
    End,
}

enum Kind {
    Lines { scanned: usize },
    Csv(Box<Csv>),
    Raw { taken: bool },
}

pub struct Framing {
    kind: Kind,
    bytes_max: usize,
    /// A record that is too long for the buffer is thrown away as it comes, up to its newline; this is its beginning.
    skipped: Option<Skip>,
}

struct Skip {
    reason: String,
    kept: Vec<u8>,
    found_end: bool,
    whole: bool,
}

impl Framing {
    pub fn lines(bytes_max: usize) -> Self {
        Self { kind: Kind::Lines { scanned: 0 }, bytes_max, skipped: None }
    }

    pub fn csv(csv: Csv, bytes_max: usize) -> Self {
        Self { kind: Kind::Csv(Box::new(csv)), bytes_max, skipped: None }
    }

    pub fn raw(bytes_max: usize) -> Self {
        Self { kind: Kind::Raw { taken: false }, bytes_max, skipped: None }
    }

    pub fn csv_mut(&mut self) -> Option<&mut Csv> {
        match &mut self.kind {
            Kind::Csv(csv) => Some(csv),
            Kind::Lines { .. } | Kind::Raw { .. } => None,
        }
    }

    /// Looks at the head of the input. `last`: no more will come. Says the same again until [`Self::consume`].
    #[inline]
    pub fn peek(&mut self, input: &mut Input, last: bool) -> Peek {
        if self.skipped.is_some() {
            return self.skip(input, last);
        }
        let bytes = input.bytes();
        match &mut self.kind {
            Kind::Lines { scanned } => match memchr(b'\n', &bytes[*scanned..]) {
                Some(at) => {
                    let end = *scanned + at;
                    let body = if end > 0 && bytes[end - 1] == b'\r' { 0..end - 1 } else { 0..end };
                    if body.len() > self.bytes_max {
                        return Peek::Bad { total: end + 1, reason: too_long(self.bytes_max), body: 0..KEPT_BYTES_MAX.min(end) };
                    }
                    Peek::Record { total: end + 1, body }
                }
                // One more than allowed may be a carriage return.
                None if bytes.len() > self.bytes_max + 1 => self.begin_skip(input, last, false, too_long(self.bytes_max)),
                None if !last => {
                    *scanned = bytes.len();
                    Peek::NeedMore
                }
                None if bytes.is_empty() => Peek::End,
                None if bytes.len() > self.bytes_max => self.begin_skip(input, last, false, too_long(self.bytes_max)),
                None => Peek::Record { total: bytes.len(), body: 0..bytes.len() },
            },
            Kind::Csv(csv) => match csv.peek(bytes, last, self.bytes_max) {
                Cut::NeedMore => Peek::NeedMore,
                Cut::End => Peek::End,
                Cut::LastRecord(total) if is_unclosed(&bytes[..total]) => {
                    self.first_line(input, last, "a quoted field is not closed")
                }
                Cut::Record(total) | Cut::LastRecord(total) => Peek::Record { total, body: 0..total },
                Cut::TooLong => self.first_line(input, last, &too_long(self.bytes_max)),
                Cut::TooManyColumns => self.first_line(input, last, "too many columns"),
            },
            Kind::Raw { taken: true } => Peek::End,
            Kind::Raw { taken: false } if bytes.len() > self.bytes_max => {
                self.begin_skip(input, last, true, too_long(self.bytes_max))
            }
            Kind::Raw { taken: false } if !last => Peek::NeedMore,
            Kind::Raw { taken: false } => Peek::Record { total: bytes.len(), body: 0..bytes.len() },
        }
    }

    /// The record that was peeked at is given out, and the input moves on.
    #[inline]
    pub fn consume(&mut self, input: &mut Input, total: usize) {
        input.consume(total);
        match &mut self.kind {
            Kind::Lines { scanned } => *scanned = 0,
            Kind::Csv(csv) => csv.clear(),
            Kind::Raw { taken } => *taken = true,
        }
    }

    /// The same for a record that could not be cut.
    pub fn consume_bad(&mut self, input: &mut Input, total: usize) {
        self.consume(input, total);
        self.skipped = None;
        if let Kind::Csv(csv) = &mut self.kind {
            csv.restart();
        }
    }

    /// What is kept of a skipped record.
    pub fn skipped(&self) -> &[u8] {
        self.skipped.as_ref().map_or(&[], |skip| &skip.kept)
    }

    /// A CSV record that swallowed its neighbours, most likely for want of a closing quote: only its first line is given up, so
    /// that one bad line costs one line.
    fn first_line(&mut self, input: &mut Input, last: bool, reason: &str) -> Peek {
        let blank = input.bytes().iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        match memchr(b'\n', &input.bytes()[blank..]) {
            Some(at) => {
                Peek::Bad { total: blank + at + 1, body: blank..blank + at.min(KEPT_BYTES_MAX), reason: reason.to_owned() }
            }
            None => self.begin_skip(input, last, false, reason.to_owned()),
        }
    }

    /// `whole`: up to the end of the file, not of the line.
    fn begin_skip(&mut self, input: &mut Input, last: bool, whole: bool, reason: String) -> Peek {
        self.skipped = Some(Skip { reason, kept: Vec::new(), found_end: false, whole });
        self.skip(input, last)
    }

    fn skip(&mut self, input: &mut Input, last: bool) -> Peek {
        let Some(skip) = &mut self.skipped else { return Peek::NeedMore };
        if !skip.found_end {
            let newline = if skip.whole { None } else { memchr(b'\n', input.bytes()) };
            let content = &input.bytes()[..newline.unwrap_or(input.bytes().len())];
            skip.kept.extend_from_slice(&content[..content.len().min(KEPT_BYTES_MAX - skip.kept.len())]);
            input.consume(newline.map_or(input.bytes().len(), |at| at + 1));
            skip.found_end = newline.is_some() || last;
        }
        if skip.found_end { Peek::Skipped { reason: skip.reason.clone() } } else { Peek::NeedMore }
    }
}

fn too_long(bytes_max: usize) -> String {
    format!(
        "the record is longer than the limit of {bytes_max} bytes (value_bytes_max); its first {KEPT_BYTES_MAX} bytes are kept"
    )
}

/// Whether the last record of a file runs over several lines and ends inside quotes.
fn is_unclosed(bytes: &[u8]) -> bool {
    let record = bytes.trim_ascii();
    memchr(b'\n', record).is_some() && memchr::memchr_iter(b'"', record).count() % 2 == 1
}
