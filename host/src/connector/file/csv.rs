//! CSV records as JSON objects, cut with csv-core: quoted fields may hold delimiters, quotes and newlines.
//!
//! Invariants:
//! * a record is cut at a known number of bytes of its input, so positions are exact;
//! * cutting goes on where it stopped when more input comes; nothing is looked at twice.

use super::super::json_field::is_number;
use super::super::json_text::write_string;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

/// Nobody has so many columns; a binary file may.
const COLUMNS_MAX: usize = 16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    NeedMore,
    /// A record that ends after so many bytes.
    Record(usize),
    /// The same, ended by the end of the input instead of a newline.
    LastRecord(usize),
    TooLong,
    TooManyColumns,
    End,
}

pub struct Csv {
    reader: Reader,
    fields: Vec<u8>,
    fields_len: usize,
    ends: Vec<usize>,
    columns: usize,
    /// Input bytes that the record has taken so far.
    scanned: usize,
    complete: bool,
    ended_by_end: bool,
    infer: bool,
    /// `{"carrier":`, `,"origin":`, …
    prefixes: Vec<Vec<u8>>,
    has_header: bool,
}

impl Csv {
    pub fn new(delimiter: u8, infer: bool) -> Self {
        Self {
            reader: ReaderBuilder::new().delimiter(delimiter).build(),
            fields: vec![0; 4096],
            fields_len: 0,
            ends: vec![0; 64],
            columns: 0,
            scanned: 0,
            complete: false,
            ended_by_end: false,
            infer,
            prefixes: Vec::new(),
            has_header: false,
        }
    }

    /// Cuts the record at the head of `input`, which begins where it began the last time. `last`: no more will come.
    pub fn peek(&mut self, input: &[u8], last: bool, bytes_max: usize) -> Cut {
        while !self.complete {
            if self.scanned > bytes_max {
                return Cut::TooLong;
            }
            let rest = &input[self.scanned..];
            if rest.is_empty() && !last {
                return Cut::NeedMore;
            }
            let fields = &mut self.fields[self.fields_len..];
            let (result, read, written, columns) = self.reader.read_record(rest, fields, &mut self.ends[self.columns..]);
            self.scanned += read;
            self.fields_len += written;
            self.columns += columns;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if self.columns >= COLUMNS_MAX => return Cut::TooManyColumns,
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => (self.complete, self.ended_by_end) = (true, rest.is_empty()),
                ReadRecordResult::End => return Cut::End,
            }
        }
        match self.scanned {
            scanned if scanned > bytes_max => Cut::TooLong,
            scanned if self.ended_by_end => Cut::LastRecord(scanned),
            scanned => Cut::Record(scanned),
        }
    }

    /// The record is consumed; the next one begins.
    pub fn clear(&mut self) {
        (self.fields_len, self.columns, self.scanned) = (0, 0, 0);
        (self.complete, self.ended_by_end) = (false, false);
    }

    /// The next byte begins a record, whatever came before.
    pub fn restart(&mut self) {
        self.clear();
        self.reader.reset();
        // A reader that has read something no longer takes a byte order mark for one. An empty line is nothing to it.
        let _ = self.reader.read_record(b"\n", &mut [], &mut []);
    }

    fn field(&self, column: usize) -> &[u8] {
        let start = if column == 0 { 0 } else { self.ends[column - 1] };
        &self.fields[start..self.ends[column]]
    }

    /// Takes the record as the names of the columns.
    pub fn take_header(&mut self) -> Result<(), String> {
        let mut names: Vec<&str> = Vec::new();
        for column in 0..self.columns {
            let name = std::str::from_utf8(self.field(column)).map_err(|_| format!("column {} is not UTF-8", column + 1))?;
            if name.is_empty() {
                return Err(format!("column {} has no name", column + 1));
            }
            if names.contains(&name) {
                return Err(format!("two columns are named `{name}`"));
            }
            names.push(name);
        }
        self.prefixes = names.iter().enumerate().map(|(column, name)| prefix(column, name)).collect();
        self.has_header = true;
        Ok(())
    }

    /// Writes the record as a JSON object. Without a header columns are named `c1`, `c2`, ….
    pub fn write_json(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        if self.has_header && self.columns != self.prefixes.len() {
            return Err(format!("{} fields, the header has {}", self.columns, self.prefixes.len()));
        }
        for column in self.prefixes.len()..self.columns {
            self.prefixes.push(prefix(column, &format!("c{}", column + 1)));
        }
        if std::str::from_utf8(&self.fields[..self.fields_len]).is_err() {
            return Err("not UTF-8".into());
        }
        for column in 0..self.columns {
            out.extend_from_slice(&self.prefixes[column]);
            let field = self.field(column);
            if !self.infer {
                write_string(out, field);
            } else if field.is_empty() || field == b"NA" {
                out.extend_from_slice(b"null");
            } else if matches!(field[0], b'-' | b'0'..=b'9') && is_number(field) {
                out.extend_from_slice(field);
            } else {
                write_string(out, field);
            }
        }
        out.push(b'}');
        Ok(())
    }
}

fn prefix(column: usize, name: &str) -> Vec<u8> {
    let mut prefix = vec![if column == 0 { b'{' } else { b',' }];
    write_string(&mut prefix, name.as_bytes());
    prefix.push(b':');
    prefix
}
