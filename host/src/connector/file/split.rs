//! One file being read: from its position, a batch at a time.
//!
//! Invariants:
//! * `offset` and `record` name the first record that was not given out, whatever is buffered;
//! * a record is looked at, then given out or left where it is: what a batch has no room for is looked at again.

use super::super::event_time::EventTime;
use super::super::{BadRecord, BatchLimits, ConnectorError, SourceBatch};
use super::csv::Csv;
use super::framing::{Framing, Peek};
use super::input::{self, Compression, Fill, Head, Input};
use super::replay::Gate;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::checkpoint::SplitSnapshot;
use tidegate_core::row::{NO_TIMESTAMP, Row};

/// Bytes read or skipped in one poll that gives nothing out: a few milliseconds.
const POLL_BYTES_MAX: usize = 4 << 20;
/// Bad records of one batch.
const BAD_RECORDS_MAX: usize = 1000;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Lines,
    Json,
    Csv { header: bool, delimiter: u8, infer: bool },
    Raw,
}

/// How the files of a source are read.
#[derive(Debug)]
pub struct ReadOptions {
    pub format: Format,
    pub compression: Compression,
    pub follow: bool,
    pub event_time: EventTime,
    pub value_bytes_max: usize,
}

/// As it stands in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// In the uncompressed stream.
    pub offset: u64,
    /// Read to its end by a bounded source: not looked at again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
}

/// What a poll ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    More,
    /// The next record is not due before this time.
    Due(Duration),
    /// Nothing more for now; the file may grow.
    AtEnd,
    Ended,
}

pub struct FileSplit {
    pub name: Arc<str>,
    pub path: PathBuf,
    pub position: Position,
    pub record: u64,
    pub max_timestamp: Option<i64>,
    open: Option<OpenFile>,
    /// Length of the file on disk when its end was last seen and it was closed.
    closed_at: Option<u64>,
    json: Vec<u8>,
}

struct OpenFile {
    input: Input,
    framing: Framing,
    /// The header is read.
    has_header: bool,
    /// The input stands at the position.
    is_placed: bool,
}

impl FileSplit {
    pub fn new(name: String, path: PathBuf) -> Self {
        Self {
            name: name.into(),
            path,
            position: Position::default(),
            record: 0,
            max_timestamp: None,
            open: None,
            closed_at: None,
            json: Vec::new(),
        }
    }

    pub fn restore(snapshot: &SplitSnapshot, path: PathBuf) -> Result<Self, ConnectorError> {
        let position = serde_json::from_value(snapshot.position.clone()).map_err(|error| {
            let cause = format!("{} is not a position in a file ({error})", snapshot.position);
            ConnectorError::fatal(
                format!("restoring split {}", snapshot.split),
                cause,
                "the checkpoint was not made by a file source; start fresh or from another savepoint",
            )
        })?;
        let mut split = Self::new(snapshot.split.clone(), path);
        (split.position, split.record, split.max_timestamp) = (position, snapshot.record, snapshot.max_timestamp);
        Ok(split)
    }

    pub fn snapshot(&self) -> SplitSnapshot {
        SplitSnapshot {
            split: self.name.to_string(),
            position: serde_json::to_value(self.position).expect("BUG: a position is JSON"),
            record: self.record,
            max_timestamp: self.max_timestamp,
        }
    }

    /// Moves the position of a fresh split behind the last whole line that there is.
    pub fn start_at_end(&mut self, options: &ReadOptions) -> Result<(), ConnectorError> {
        let input = Input::open(&self.path, options.compression, None)?;
        if input.is_gzip() {
            return Err(ConnectorError::fatal(
                input::attempted(&self.path),
                "start = \"latest\" needs the end of a file, and that of a gzip file is not known without reading it",
                "set start = \"earliest\", or follow files that are not compressed",
            ));
        }
        self.position.head = Some(input.head);
        self.position.offset = input.last_line_end()?;
        if options.format == Format::Raw {
            self.position.done = true;
        }
        Ok(())
    }

    /// Frees what an idle file holds. It is opened again when it has grown.
    pub fn close(&mut self) {
        if self.open.take().is_some() {
            self.closed_at = std::fs::metadata(&self.path).ok().map(|metadata| metadata.len());
        }
    }

    /// Looks at the file on disk: it must be there and hold what was read.
    pub fn verify(&self) -> Result<(), ConnectorError> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => {
                let is_plain = self.open.as_ref().is_some_and(|open| !open.input.is_gzip());
                let shrunk_below = if is_plain { self.position.offset } else { self.closed_at.unwrap_or(0) };
                if metadata.len() < shrunk_below {
                    return Err(input::shrunk(&self.path, metadata.len(), self.position.offset));
                }
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(input::vanished(&self.path, self.position.offset)),
            Err(error) => Err(input::io_error(&self.path, &error)),
        }
    }

    /// Fills the batch, which is empty, as far as the file and the limits go.
    pub fn poll(
        &mut self,
        options: &ReadOptions,
        limits: BatchLimits,
        gate: &mut Option<Gate<'_>>,
        batch: &mut SourceBatch,
    ) -> Result<Polled, ConnectorError> {
        if self.position.done {
            return Ok(if options.follow { Polled::AtEnd } else { Polled::Ended });
        }
        let Some(mut open) = self.opened(options)? else { return Ok(Polled::AtEnd) };
        batch.split = Some(Arc::clone(&self.name));
        let polled = self.read(&mut open, options, limits, gate, batch)?;
        batch.first_record = self.record - u64::from(batch.rows.count);
        match polled {
            Polled::Ended => self.position.done = true,
            // A decoder that has come to an end does not go on: the file is opened anew when it has grown.
            Polled::AtEnd if open.input.is_gzip() => {
                self.open = Some(open);
                self.close();
            }
            _ => self.open = Some(open),
        }
        Ok(polled)
    }

    fn opened(&mut self, options: &ReadOptions) -> Result<Option<OpenFile>, ConnectorError> {
        if let Some(open) = self.open.take() {
            return Ok(Some(open));
        }
        if let Some(closed_at) = self.closed_at {
            let len = std::fs::metadata(&self.path).map_err(|error| input::io_error(&self.path, &error))?.len();
            if len == closed_at {
                return Ok(None);
            }
            if len < closed_at {
                return Err(input::shrunk(&self.path, len, self.position.offset));
            }
        }
        let input = match Input::open(&self.path, options.compression, self.position.head) {
            Err(_) if !self.path.exists() => return Err(input::vanished(&self.path, self.position.offset)),
            other => other?,
        };
        // Two bytes tell a compressed file from another, and a few more give a head worth comparing.
        if options.follow && input.head.bytes < 2 {
            return Ok(None);
        }
        let bytes_max = options.value_bytes_max;
        let framing = match options.format {
            Format::Lines | Format::Json => Framing::lines(bytes_max),
            Format::Csv { delimiter, infer, .. } => Framing::csv(Csv::new(delimiter, infer), bytes_max),
            Format::Raw => Framing::raw(bytes_max),
        };
        self.position.head.get_or_insert(input.head);
        self.closed_at = None;
        let has_header = !matches!(options.format, Format::Csv { header: true, .. });
        Ok(Some(OpenFile { input, framing, has_header, is_placed: false }))
    }

    fn read(
        &mut self,
        open: &mut OpenFile,
        options: &ReadOptions,
        limits: BatchLimits,
        gate: &mut Option<Gate<'_>>,
        batch: &mut SourceBatch,
    ) -> Result<Polled, ConnectorError> {
        let mut budget = POLL_BYTES_MAX;
        let mut at_end = false;
        let mut bad_bytes = 0;
        if open.has_header && !open.is_placed && !self.place(open, &mut budget)? {
            return Ok(Polled::More);
        }
        loop {
            if batch.rows.count >= limits.rows_max || batch.bad.len() >= BAD_RECORDS_MAX || bad_bytes > limits.bytes_max {
                return Ok(Polled::More);
            }
            // A file that is followed may grow: only a whole file taken as one record ends there.
            let last = at_end && (!options.follow || options.format == Format::Raw);
            let peek = open.framing.peek(&mut open.input, last);
            let bad = match peek {
                Peek::NeedMore if at_end => return Ok(Polled::AtEnd),
                Peek::NeedMore if budget == 0 => return Ok(Polled::More),
                Peek::NeedMore => {
                    match open.input.fill()? {
                        Fill::Bytes(read) => budget = budget.saturating_sub(read),
                        Fill::End => at_end = true,
                        Fill::CutOff if options.follow => return Ok(Polled::AtEnd),
                        Fill::CutOff => {
                            let cause = format!("the gzip data breaks off after {} bytes of content", open.input.offset);
                            let remedy = "put the whole file in its place, or follow it if it is still being written";
                            return Err(ConnectorError::fatal(input::attempted(&self.path), cause, remedy));
                        }
                    }
                    continue;
                }
                Peek::End => return Ok(Polled::Ended),
                Peek::Record { total, .. } if !open.has_header => {
                    self.take_header(open, total)?;
                    if !self.place(open, &mut budget)? {
                        return Ok(Polled::More);
                    }
                    continue;
                }
                Peek::Bad { ref reason, .. } | Peek::Skipped { ref reason } if !open.has_header => {
                    let cause = format!("the first line is not a header: {reason}");
                    return Err(ConnectorError::fatal(input::attempted(&self.path), cause, "is this a CSV file?"));
                }
                Peek::Record { total, body } => {
                    let taken = self.take(open, total, body, options, limits, gate, batch);
                    match taken {
                        Taken::Yes => {
                            open.framing.consume(&mut open.input, total);
                            self.advance(open);
                            continue;
                        }
                        Taken::Blank => {
                            open.framing.consume(&mut open.input, total);
                            self.position.offset = open.input.offset;
                            continue;
                        }
                        Taken::NoRoom => return Ok(Polled::More),
                        Taken::NotDue(wait) => return Ok(Polled::Due(wait)),
                        Taken::Bad(_, _) if batch.rows.count > 0 => return Ok(Polled::More),
                        Taken::Bad(bytes, reason) => {
                            open.framing.consume(&mut open.input, total);
                            (bytes, reason)
                        }
                    }
                }
                Peek::Bad { .. } | Peek::Skipped { .. } if batch.rows.count > 0 => return Ok(Polled::More),
                Peek::Bad { total, body, reason } => {
                    let bytes = open.input.bytes()[body].to_vec();
                    open.framing.consume_bad(&mut open.input, total);
                    (bytes, reason)
                }
                Peek::Skipped { reason } => {
                    let bytes = open.framing.skipped().to_vec();
                    open.framing.consume_bad(&mut open.input, 0);
                    (bytes, reason)
                }
            };
            let (bytes, reason) = bad;
            bad_bytes += bytes.len();
            batch.bad.push(BadRecord { split: self.name.to_string(), record: self.record, bytes, reason });
            self.advance(open);
        }
    }

    /// The record at the head was given out, as a row or as a bad one.
    fn advance(&mut self, open: &OpenFile) {
        self.position.offset = open.input.offset;
        self.record += 1;
    }

    fn take_header(&mut self, open: &mut OpenFile, total: usize) -> Result<(), ConnectorError> {
        let csv = open.framing.csv_mut().expect("BUG: a header is awaited in CSV only");
        csv.take_header().map_err(|cause| {
            let remedy = "mend the first line, or set header = false";
            ConnectorError::fatal(format!("reading the header of {}", self.path.display()), cause, remedy)
        })?;
        open.framing.consume(&mut open.input, total);
        open.has_header = true;
        Ok(())
    }

    /// Brings the input to the position. True: it is there.
    fn place(&mut self, open: &mut OpenFile, budget: &mut usize) -> Result<bool, ConnectorError> {
        if self.position.offset < open.input.offset {
            // Fresh: the first record stands behind the header.
            self.position.offset = open.input.offset;
        }
        let jumps = self.position.offset > open.input.offset;
        open.is_placed = open.input.advance_to(self.position.offset, *budget)?;
        if jumps && let Some(csv) = open.framing.csv_mut() {
            csv.restart();
        }
        if !open.is_placed {
            *budget = 0;
        }
        Ok(open.is_placed)
    }

    /// Turns the record at the head into a row of the batch.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "borrows of one poll, split so that the compiler sees them apart")]
    fn take(
        &mut self,
        open: &mut OpenFile,
        total: usize,
        body: std::ops::Range<usize>,
        options: &ReadOptions,
        limits: BatchLimits,
        gate: &mut Option<Gate<'_>>,
        batch: &mut SourceBatch,
    ) -> Taken {
        let OpenFile { input, framing, .. } = open;
        let record = &input.bytes()[..total];
        let bad = |reason: String| Taken::Bad(without_newlines(record).to_vec(), reason);
        let value = match framing.csv_mut() {
            Some(csv) => {
                self.json.clear();
                if let Err(reason) = csv.write_json(&mut self.json) {
                    return bad(reason);
                }
                if self.json.len() > options.value_bytes_max {
                    let bytes = self.json.len();
                    return bad(format!(
                        "{bytes} bytes as JSON exceed the limit of {} (value_bytes_max)",
                        options.value_bytes_max
                    ));
                }
                &self.json[..]
            }
            None => {
                let mut value = &record[body];
                if options.format == Format::Json {
                    if self.position.offset == 0 {
                        value = value.strip_prefix(BYTE_ORDER_MARK).unwrap_or(value);
                    }
                    if value.trim_ascii().is_empty() {
                        return Taken::Blank;
                    }
                    if let Err(reason) = check_json(value) {
                        return bad(reason);
                    }
                }
                value
            }
        };
        let timestamp = match options.event_time.of(value) {
            Ok(timestamp) => timestamp,
            Err(reason) => return bad(reason),
        };
        let row = Row::new(&[], value, timestamp);
        if batch.rows.count > 0 && batch.rows.bytes.len() + row.encoded_len() > limits.bytes_max {
            return Taken::NoRoom;
        }
        if timestamp != NO_TIMESTAMP {
            if let Some(wait) = gate.as_mut().and_then(|gate| gate.wait(timestamp)) {
                return Taken::NotDue(wait);
            }
            batch.max_timestamp = batch.max_timestamp.max(Some(timestamp));
            self.max_timestamp = self.max_timestamp.max(Some(timestamp));
        }
        batch.rows.push(&row);
        Taken::Yes
    }
}

/// The record without the newline that ends it, and without those before it, which CSV skips.
fn without_newlines(mut record: &[u8]) -> &[u8] {
    while let [b'\r' | b'\n', rest @ ..] | [rest @ .., b'\r' | b'\n'] = record {
        record = rest;
    }
    record
}

/// Whether a value is JSON. Deep nesting must not cost stack: serde_json skips without recursion, sonic-rs does not.
fn check_json(value: &[u8]) -> Result<(), String> {
    std::str::from_utf8(value).map_err(|error| format!("not JSON: not UTF-8 at byte {}", error.valid_up_to()))?;
    serde_json::from_slice::<serde::de::IgnoredAny>(value).map_err(|error| format!("not JSON: {error}"))?;
    Ok(())
}

enum Taken {
    Yes,
    /// Nothing there: not counted as a record.
    Blank,
    NoRoom,
    NotDue(Duration),
    Bad(Vec<u8>, String),
}
