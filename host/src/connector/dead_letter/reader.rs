//! Reads committed dead letters back, newest first, a page at a time.
//!
//! Invariants:
//! * only committed files are looked at; a line that can't be read is counted and passed over;
//! * memory is bounded by the page, and the work for a page by the bytes that it reads (one whole file at least).

use super::{DEAD_LETTERS, DeadLetter, SUFFIX};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Result};
use std::path::Path;

/// Letters of one page.
pub const PAGE_LETTERS_MAX: usize = 1000;
/// A page ends early where its letters are large.
const PAGE_BYTES_MAX: usize = 32 << 20;
/// A page ends early where few letters fit the filter.
const SCAN_BYTES_MAX: u64 = 256 << 20;
/// The longest line there can be: a value of 16 MiB in base64 with key, headers and the rest.
const LINE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, Default)]
pub struct DeadLetterQuery<'a> {
    pub operator: Option<&'a str>,
    /// [`DeadLetterPage::next`] of the page before.
    pub before: Option<&'a str>,
    pub limit: usize,
}

#[derive(Debug, Default, PartialEq)]
pub struct DeadLetterPage {
    /// Newest first.
    pub letters: Vec<DeadLetter>,
    /// Where the next page begins; `None`: there are no older ones.
    pub next: Option<String>,
    /// Lines that can't be read.
    pub unreadable: u64,
}

/// A committed file, ordered by age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Committed {
    epoch: u64,
    task: u32,
    name: String,
}

impl Committed {
    /// From `dead-letters-<task>-<epoch>-<job>.jsonl`.
    fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(DEAD_LETTERS)?.strip_prefix('-')?.strip_suffix(SUFFIX)?.strip_suffix('.')?;
        let (task, rest) = rest.split_once('-')?;
        let (epoch, _job) = rest.split_once('-')?;
        Some(Self { epoch: epoch.parse().ok()?, task: task.parse().ok()?, name: name.to_owned() })
    }
}

/// The checkpoint that a letter was committed with, from its id.
pub fn epoch_of(id: &str) -> Option<u64> {
    parse_id(id).map(|(epoch, ..)| epoch)
}

/// `<epoch>-<task>-<number>`
fn parse_id(id: &str) -> Option<(u64, u32, u64)> {
    let mut parts = id.split('-');
    let parsed = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(parsed)
}

fn committed(folder: &Path) -> Result<Vec<Committed>> {
    let mut files = Vec::new();
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                files.extend(entry?.file_name().to_str().and_then(Committed::parse));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// One letter by its id. Only the files of its epoch and task are read.
pub fn find(folder: &Path, id: &str) -> Result<Option<DeadLetter>> {
    let Some((epoch, task, _)) = parse_id(id) else { return Ok(None) };
    let mut found = None;
    for file in committed(folder)?.into_iter().filter(|file| file.epoch == epoch && file.task == task) {
        scan_file(&folder.join(&file.name), &mut |letter| {
            if letter.id == id {
                found = Some(letter);
            }
            found.is_none()
        })?;
        if found.is_some() {
            break;
        }
    }
    Ok(found)
}

/// All letters, oldest first, one at a time, until `each` says that it has enough. Lines that can't be read are passed over.
pub fn scan(folder: &Path, mut each: impl FnMut(DeadLetter) -> bool) -> Result<()> {
    for file in committed(folder)? {
        if !scan_file(&folder.join(&file.name), &mut each)? {
            return Ok(());
        }
    }
    Ok(())
}

/// False: somebody has enough.
fn scan_file(path: &Path, each: &mut dyn FnMut(DeadLetter) -> bool) -> Result<bool> {
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(true);
        }
        if line.last() != Some(&b'\n') && read as u64 == LINE_BYTES_MAX {
            reader.skip_until(b'\n')?;
            continue;
        }
        if let Ok(letter) = DeadLetter::from_line(&line)
            && !each(letter)
        {
            return Ok(false);
        }
    }
}

/// A page of the dead letters in a folder. A `before` that names nothing known is an error of kind `InvalidInput`.
pub fn list(folder: &Path, query: &DeadLetterQuery<'_>) -> Result<DeadLetterPage> {
    let mut files = committed(folder)?;
    files.reverse();
    let mut before_line = u64::MAX;
    if let Some(before) = query.before {
        let (file, line) = parse_cursor(before)?;
        files.retain(|other| *other <= file);
        before_line = if files.first() == Some(&file) { line } else { u64::MAX };
    }
    let limit = query.limit.clamp(1, PAGE_LETTERS_MAX);
    let mut page = DeadLetterPage::default();
    let (mut bytes_left, mut scanned) = (PAGE_BYTES_MAX, 0);
    for (index, file) in files.iter().enumerate() {
        let older_files = index + 1 < files.len();
        let found = read_file(&folder.join(&file.name), query.operator, before_line, limit - page.letters.len(), bytes_left)?;
        before_line = u64::MAX;
        scanned += found.bytes;
        page.unreadable += found.unreadable;
        bytes_left = bytes_left.saturating_sub(found.letters.iter().map(|letter| letter.bytes).sum());
        let oldest = found.letters.front().map_or(0, |letter| letter.line);
        page.letters.extend(found.letters.into_iter().rev().map(|found| found.letter));
        if found.dropped {
            page.next = Some(format!("{}:{oldest}", file.name));
            break;
        }
        if older_files && (page.letters.len() >= limit || bytes_left == 0 || scanned >= SCAN_BYTES_MAX) {
            page.next = Some(format!("{}:0", file.name));
            break;
        }
    }
    Ok(page)
}

/// `<file>:<line>`: letters before that line of the file, and those of older files.
fn parse_cursor(text: &str) -> Result<(Committed, u64)> {
    let parsed = text.rsplit_once(':').and_then(|(name, line)| Some((Committed::parse(name)?, line.parse().ok()?)));
    parsed.ok_or_else(|| {
        std::io::Error::new(ErrorKind::InvalidInput, format!("`{text}` is not where a page of dead letters begins"))
    })
}

struct Found {
    line: u64,
    bytes: usize,
    letter: DeadLetter,
}

struct FoundInFile {
    /// Oldest first.
    letters: VecDeque<Found>,
    /// There are older ones that fit and had no room.
    dropped: bool,
    unreadable: u64,
    bytes: u64,
}

/// The newest letters of a file that fit.
fn read_file(path: &Path, operator: Option<&str>, before_line: u64, limit: usize, bytes_max: usize) -> Result<FoundInFile> {
    let mut found = FoundInFile { letters: VecDeque::new(), dropped: false, unreadable: 0, bytes: 0 };
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        // Somebody tidied up between the listing and now.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    let (mut line, mut kept_bytes) = (Vec::new(), 0);
    for number in 1..before_line {
        line.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        found.bytes += read as u64;
        if line.last() != Some(&b'\n') && read as u64 == LINE_BYTES_MAX {
            found.bytes += reader.skip_until(b'\n')? as u64;
            found.unreadable += 1;
            continue;
        }
        let Ok(letter) = DeadLetter::from_line(&line) else {
            found.unreadable += 1;
            continue;
        };
        if operator.is_some_and(|operator| operator != letter.operator) {
            continue;
        }
        kept_bytes += read;
        found.letters.push_back(Found { line: number, bytes: read, letter });
        while found.letters.len() > limit || (kept_bytes > bytes_max && found.letters.len() > 1) {
            kept_bytes -= found.letters.pop_front().map_or(0, |dropped| dropped.bytes);
            found.dropped = true;
        }
    }
    Ok(found)
}
