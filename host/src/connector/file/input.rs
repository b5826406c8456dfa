//! A file as a stream of uncompressed bytes with a known offset.
//!
//! Invariant: `offset` is the place in the uncompressed stream of the first byte of `bytes()`.

use super::super::ConnectorError;
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Large enough that the calls into the kernel do not show, small enough for the second-level cache.
const BUFFER_BYTES: usize = 256 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const HEAD_BYTES_MAX: usize = 1024;

/// The first bytes of a file as it is on disk: tells whether a file of the same name is the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub bytes: u64,
    pub crc32c: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Auto,
    None,
    Gzip,
}

enum Stream {
    Plain(File),
    Gzip(Box<MultiGzDecoder<File>>),
}

pub struct Input {
    path: PathBuf,
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    pub offset: u64,
    pub head: Head,
}

/// What came of asking for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    Bytes(usize),
    /// Nothing more for now.
    End,
    /// The file ends in the middle of a compressed block: it is still being written, or it is damaged.
    CutOff,
}

impl Input {
    /// Opens a file at its start. `expected` is the head it had when its position was taken.
    pub fn open(path: &Path, compression: Compression, expected: Option<Head>) -> Result<Self, ConnectorError> {
        let failed = |error: std::io::Error| io_error(path, &error);
        let mut file = File::open(path).map_err(failed)?;
        let mut first = Vec::with_capacity(HEAD_BYTES_MAX);
        (&mut file).take(HEAD_BYTES_MAX as u64).read_to_end(&mut first).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        if let Some(expected) = expected {
            let same = first.get(..expected.bytes as usize).is_some_and(|bytes| crc32c::crc32c(bytes) == expected.crc32c);
            if !same {
                return Err(changed(path, "its first bytes are not those that were read before"));
            }
        }
        let head = Head { bytes: first.len() as u64, crc32c: crc32c::crc32c(&first) };
        let gzip = match compression {
            Compression::None => false,
            Compression::Gzip => true,
            Compression::Auto => first.starts_with(&GZIP_MAGIC),
        };
        let stream = if gzip { Stream::Gzip(Box::new(MultiGzDecoder::new(file))) } else { Stream::Plain(file) };
        Ok(Self { path: path.to_owned(), stream, buffer: Vec::new(), start: 0, end: 0, offset: 0, head })
    }

    pub fn is_gzip(&self) -> bool {
        matches!(self.stream, Stream::Gzip(_))
    }

    /// The offset behind the last newline of a plain file that has just been opened.
    pub fn last_line_end(&self) -> Result<u64, ConnectorError> {
        const STEP_BYTES: u64 = 64 << 10;
        let Stream::Plain(file) = &self.stream else { return Ok(0) };
        let failed = |error: std::io::Error| io_error(&self.path, &error);
        let mut end = file.metadata().map_err(failed)?.len();
        let mut chunk = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(STEP_BYTES);
            chunk.resize((end - start) as usize, 0);
            let mut file = file;
            file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut chunk)).map_err(failed)?;
            if let Some(at) = memchr::memrchr(b'\n', &chunk) {
                return Ok(start + at as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    /// What is read and not consumed.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.end - self.start, "BUG: {bytes} bytes consumed, {} there", self.end - self.start);
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Reads more behind what is there. Grows the buffer where a record needs it: the caller bounds records.
    pub fn fill(&mut self) -> Result<Fill, ConnectorError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.buffer.len() - self.end < BUFFER_BYTES / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.buffer.len() - self.end < BUFFER_BYTES / 2 {
                self.buffer.resize((self.buffer.len() * 2).max(BUFFER_BYTES), 0);
            }
        }
        let room = &mut self.buffer[self.end..];
        let read = loop {
            let read = match &mut self.stream {
                Stream::Plain(file) => file.read(room),
                Stream::Gzip(decoder) => decoder.read(room),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(0) => Ok(Fill::End),
            Ok(read) => {
                self.end += read;
                Ok(Fill::Bytes(read))
            }
            Err(error) if self.is_gzip() && error.kind() == ErrorKind::UnexpectedEof => Ok(Fill::CutOff),
            Err(error) if self.is_gzip() && matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
                let cause = format!("the gzip data is damaged ({error})");
                Err(ConnectorError::fatal(attempted(&self.path), cause, "put an undamaged copy in its place"))
            }
            Err(error) => Err(io_error(&self.path, &error)),
        }
    }

    /// Goes on towards an offset. A plain file seeks; a compressed one reads, and stops when `budget` bytes are read.
    /// True: there.
    pub fn advance_to(&mut self, offset: u64, budget: usize) -> Result<bool, ConnectorError> {
        let mut left = budget;
        while self.offset < offset {
            let there = self.bytes().len() as u64;
            if let Stream::Plain(file) = &mut self.stream
                && offset - self.offset > there
            {
                let len = file.metadata().map_err(|error| io_error(&self.path, &error))?.len();
                if len < offset {
                    return Err(shrunk(&self.path, len, offset));
                }
                file.seek(SeekFrom::Start(offset)).map_err(|error| io_error(&self.path, &error))?;
                (self.start, self.end, self.offset) = (0, 0, offset);
                return Ok(true);
            }
            if there == 0 {
                match self.fill()? {
                    Fill::Bytes(read) => left = left.saturating_sub(read),
                    Fill::End | Fill::CutOff => return Err(shrunk(&self.path, self.offset, offset)),
                }
            }
            let there = self.bytes().len() as u64;
            self.consume(there.min(offset - self.offset) as usize);
            if left == 0 {
                return Ok(self.offset == offset);
            }
        }
        Ok(true)
    }
}

pub fn attempted(path: &Path) -> String {
    format!("reading {}", path.display())
}

const REMEDY: &str = "put the file back as it was, or start the job fresh or from a savepoint that fits";

pub fn changed(path: &Path, cause: &str) -> ConnectorError {
    ConnectorError::fatal(attempted(path), format!("the file is not the one that the position belongs to: {cause}"), REMEDY)
}

pub fn shrunk(path: &Path, len: u64, offset: u64) -> ConnectorError {
    let cause = format!("the file has shrunk to {len} bytes, the position is at byte {offset}");
    ConnectorError::fatal(attempted(path), cause, REMEDY)
}

pub fn vanished(path: &Path, offset: u64) -> ConnectorError {
    let cause = format!("the file is gone, the position is at byte {offset}");
    ConnectorError::fatal(attempted(path), cause, REMEDY)
}

pub fn io_error(path: &Path, error: &std::io::Error) -> ConnectorError {
    match error.kind() {
        ErrorKind::NotFound => {
            ConnectorError::fatal(attempted(path), "the file is gone", "put it back, or take it out of the source's path")
        }
        ErrorKind::PermissionDenied => ConnectorError::fatal(attempted(path), error, "let the host's user read it"),
        _ => ConnectorError::retry(attempted(path), error),
    }
}
