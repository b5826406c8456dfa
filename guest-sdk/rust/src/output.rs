//! What a call emits, gathered for each port and handed over once, at the end of the call.
//!
//! Invariants:
//! * rows and forwarded rows leave a port in the order in which the operator named them: `runs` keeps that order;
//! * nothing of the record at hand is ever handed over before the record is done, so that it can be cut off again.
//!
//! Undo costs one comparison for each row: the first row of a record on a port notes where the port stood.

use crate::platform;
use crate::record::{self, Row, Timestamp};

/// Rows of records that are done are handed over when a port holds this many bytes, so that a guest's memory stays small.
const FLUSH_BYTES: usize = 256 << 10;

/// An output of the operator: 0 is the main one. The attribute makes a constant of each name: `outputs("main", "late")` gives
/// `Self::MAIN` and `Self::LATE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Port(pub u32);

/// Consecutive things of one kind on a port.
#[derive(Debug, Clone, Copy)]
struct Run {
    forwarded: bool,
    count: u32,
    /// Where the run begins, in `rows` or in `forwards`.
    start: usize,
}

/// Where a port stood when the record at hand first emitted.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    rows: usize,
    forwards: usize,
    runs: usize,
    last_count: u32,
}

#[derive(Debug, Default)]
struct PortBuffer {
    rows: Vec<u8>,
    forwards: Vec<u32>,
    runs: Vec<Run>,
    /// The record that `mark` belongs to.
    marked_by: u32,
    mark: Mark,
}

impl PortBuffer {
    #[inline]
    fn append(&mut self, port: Port, record: u32, forwarded: bool) {
        if self.marked_by != record {
            self.begin(port, record);
        }
        match self.runs.last_mut() {
            Some(run) if run.forwarded == forwarded => run.count += 1,
            _ => {
                let start = if forwarded { self.forwards.len() } else { self.rows.len() };
                self.runs.push(Run { forwarded, count: 1, start });
            }
        }
    }

    #[inline]
    fn begin(&mut self, port: Port, record: u32) {
        if self.rows.len() >= FLUSH_BYTES {
            self.flush(port);
        }
        self.marked_by = record;
        self.mark = Mark {
            rows: self.rows.len(),
            forwards: self.forwards.len(),
            runs: self.runs.len(),
            last_count: self.runs.last().map_or(0, |run| run.count),
        };
    }

    fn undo(&mut self, record: u32) {
        if self.marked_by == record {
            self.rows.truncate(self.mark.rows);
            self.forwards.truncate(self.mark.forwards);
            self.runs.truncate(self.mark.runs);
            if let Some(run) = self.runs.last_mut() {
                run.count = self.mark.last_count;
            }
            self.marked_by = 0;
        }
    }

    fn flush(&mut self, port: Port) {
        // The end of a run is where the next one of its kind begins.
        let (mut rows_end, mut forwards_end) = (self.rows.len(), self.forwards.len());
        let mut ends = Vec::with_capacity(self.runs.len());
        for run in self.runs.iter().rev() {
            let end = if run.forwarded { &mut forwards_end } else { &mut rows_end };
            ends.push(*end);
            *end = run.start;
        }
        for (run, end) in self.runs.iter().zip(ends.into_iter().rev()) {
            if run.forwarded {
                platform::forward(port.0, &self.forwards[run.start..end]);
            } else {
                platform::emit(port.0, run.count, &self.rows[run.start..end]);
            }
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.forwards.clear();
        self.runs.clear();
        self.marked_by = 0;
    }
}

/// All ports of an operator.
#[derive(Debug)]
pub(crate) struct Outputs {
    ports: Vec<PortBuffer>,
}

impl Outputs {
    pub fn new(ports: usize) -> Self {
        Self { ports: (0..ports).map(|_| PortBuffer::default()).collect() }
    }

    #[inline]
    fn port(&mut self, port: Port) -> &mut PortBuffer {
        let known = self.ports.len();
        match self.ports.get_mut(port.0 as usize) {
            Some(buffer) => buffer,
            None => panic!("there is no output port {}: the operator declares {known}", port.0),
        }
    }

    #[inline]
    pub fn emit(&mut self, port: Port, record: u32, key: &[u8], timestamp: Timestamp, value: &[u8]) {
        let buffer = self.port(port);
        buffer.append(port, record, false);
        record::write_plain(&mut buffer.rows, key, timestamp, value);
    }

    #[inline]
    pub fn emit_with<R>(
        &mut self,
        port: Port,
        record: u32,
        key: &[u8],
        timestamp: Timestamp,
        write: impl FnOnce(&mut ValueWriter<'_>) -> R,
    ) -> R {
        let buffer = self.port(port);
        buffer.append(port, record, false);
        let start = record::begin_value(&mut buffer.rows, key, timestamp);
        let result = write(&mut ValueWriter { out: &mut buffer.rows });
        record::finish_value(&mut buffer.rows, start, key.len());
        result
    }

    #[inline]
    pub fn emit_row(&mut self, port: Port, record: u32, row: &Row<'_>) {
        let buffer = self.port(port);
        buffer.append(port, record, false);
        row.write(&mut buffer.rows);
    }

    #[inline]
    pub fn forward(&mut self, port: Port, record: u32, row: u32) {
        let buffer = self.port(port);
        buffer.append(port, record, true);
        buffer.forwards.push(row);
    }

    /// A call that failed may have left rows behind.
    pub fn clear(&mut self) {
        self.ports.iter_mut().for_each(PortBuffer::clear);
    }

    pub fn undo(&mut self, record: u32) {
        self.ports.iter_mut().for_each(|port| port.undo(record));
    }

    pub fn flush(&mut self) {
        for (number, buffer) in self.ports.iter_mut().enumerate() {
            buffer.flush(Port(number as u32));
        }
    }
}

/// Writes a value straight into the output buffer: bytes with the methods below, text with `write!`.
#[derive(Debug)]
pub struct ValueWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl ValueWriter<'_> {
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    #[inline]
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// A whole number in decimal digits; several times faster than `write!`.
    #[inline]
    pub fn number(&mut self, number: u64) -> &mut Self {
        let mut digits = [0; 20];
        let (mut at, mut rest) = (digits.len(), number);
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.bytes(&digits[at..])
    }

    /// The same with a sign where it is negative.
    #[inline]
    pub fn signed(&mut self, number: i64) -> &mut Self {
        if number < 0 {
            self.byte(b'-');
        }
        self.number(number.unsigned_abs())
    }

    #[inline]
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.out.push(byte);
        self
    }
}

impl std::fmt::Write for ValueWriter<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.text(text);
        Ok(())
    }
}

impl std::io::Write for ValueWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_write_would() {
        let mut out = Vec::new();
        let mut writer = ValueWriter { out: &mut out };
        for number in [0, 9, 10, 12_345, u64::MAX] {
            writer.number(number).byte(b' ');
        }
        for number in [0, -1, i64::MIN, i64::MAX] {
            writer.signed(number).byte(b' ');
        }
        let expected = format!("0 9 10 12345 {} 0 -1 {} {} ", u64::MAX, i64::MIN, i64::MAX);
        assert_eq!(String::from_utf8(out), Ok(expected));
    }
}
