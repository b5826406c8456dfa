//! The log of replays of a job: `replays/<number>.jsonl`, dense numbers from 1, each file created only if it is not there.
//!
//! The first line of an entry says what it is, each further line has one letter:
//!
//! ```text
//!   {"format":1,"kind":"replay","time_ms":…,"letters":2,"operators":["clean"]}
//!   {"group":17,"letter":{"id":"00000003-000-000000", …}}
//!   {"group":3000,"letter":{…}}
//! ```
//!
//! Invariants:
//! * an entry is whole and synced before anybody is told of it, and is never changed;
//! * of two requests at once one creates the number, and the other looks again at what became of its letters;
//! * letters are copied into their entry: what becomes of the dead-letter files later does not matter;
//! * memory is bounded by one line for a reader, and by `replay_bytes_max` for a writer.

use crate::connector::dead_letter::{DeadLetter, epoch_of};
use crate::durable_file;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_core::replay::{Position, Rewind};

const FORMAT: u32 = 1;
/// The longest line there can be: see the reader of dead letters.
const LINE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// Its letters go back into the job.
    Replay,
    /// Its letters are done with.
    Discard,
    /// The job was started from an older checkpoint.
    Rewind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntryHead {
    pub format: u32,
    pub kind: EntryKind,
    pub time_ms: u64,
    #[serde(default)]
    pub letters: u64,
    /// Whose letters they are.
    #[serde(default)]
    pub operators: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind: Option<Rewind>,
    /// Of a rewind: the start that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    group: u32,
    letter: serde_json::Value,
}

/// A letter of an entry.
pub struct EntryLetter {
    pub group: u32,
    pub letter: DeadLetter,
    /// Its record is read again by the source.
    pub is_void: bool,
}

pub struct ReplayLog {
    folder: PathBuf,
    /// All entries that were there when somebody last looked.
    heads: Mutex<Vec<EntryHead>>,
}

impl ReplayLog {
    /// Looks at what there is. An entry that can't be read is an error: letters would be lost.
    pub fn open(job_folder: &Path) -> io::Result<Arc<Self>> {
        let log = Self { folder: job_folder.join("replays"), heads: Mutex::default() };
        log.refresh()?;
        Ok(Arc::new(log))
    }

    fn path(&self, entry: u64) -> PathBuf {
        self.folder.join(format!("{entry:08}.jsonl"))
    }

    /// Reads the heads of new entries.
    pub fn refresh(&self) -> io::Result<u64> {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let number = heads.len() as u64 + 1;
            let mut reader = match File::open(self.path(number)) {
                Ok(file) => BufReader::new(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(heads.len() as u64),
                Err(error) => return Err(error),
            };
            let line = read_line(&mut reader)?.unwrap_or_default();
            let head: EntryHead = parse_head(&line).map_err(|why| damaged(&self.path(number), &why))?;
            heads.push(head);
        }
    }

    pub fn len(&self) -> u64 {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn heads(&self) -> Vec<EntryHead> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Creates the entry with that number. False: somebody else has, and what is known of it is refreshed.
    pub fn create(&self, number: u64, head: &EntryHead, letters: &[(u32, DeadLetter)]) -> io::Result<bool> {
        let mut bytes = serde_json::to_vec(head).expect("BUG: a head is JSON");
        bytes.push(b'\n');
        for (group, letter) in letters {
            bytes.extend_from_slice(format!(r#"{{"group":{group},"letter":"#).as_bytes());
            bytes.extend_from_slice(&letter.to_line());
            bytes.extend_from_slice(b"}\n");
        }
        let created = durable_file::create(&self.path(number), &bytes)?;
        self.refresh()?;
        Ok(created)
    }

    /// Writes down that the job starts anew from an older checkpoint. Once for a start, whatever crashes in between.
    pub fn rewind(&self, rewind: Rewind, start: &str, time_ms: u64) -> io::Result<()> {
        loop {
            let known = self.refresh()?;
            if self.heads().iter().any(|head| head.start.as_deref() == Some(start)) {
                return Ok(());
            }
            let head = EntryHead {
                format: FORMAT,
                kind: EntryKind::Rewind,
                time_ms,
                letters: 0,
                operators: BTreeSet::new(),
                rewind: Some(rewind),
                start: Some(start.to_owned()),
            };
            if self.create(known + 1, &head, &[])? {
                return Ok(());
            }
        }
    }

    /// Rewinds behind an entry; 0: all of them.
    fn rewinds_after(&self, entry: u64) -> Vec<Rewind> {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.iter().skip(entry as usize).filter_map(|head| head.rewind).collect()
    }

    /// Whether a letter belongs to a time line that was given up.
    pub fn is_rewound(&self, id: &str) -> bool {
        epoch_of(id).is_some_and(|epoch| self.rewinds_after(0).iter().any(|rewind| rewind.voids(epoch)))
    }

    /// An entry from that letter on. One without letters of this operator is empty to it.
    pub fn read(&self, at: Position, operator: &str) -> Result<OpenEntry, String> {
        let head = self.heads().get(at.entry as usize - 1).cloned();
        let head = match head {
            Some(head) => head,
            None => {
                self.refresh().map_err(|e| e.to_string())?;
                self.heads().get(at.entry as usize - 1).cloned().ok_or("the entry is gone")?
            }
        };
        if head.kind != EntryKind::Replay || !head.operators.contains(operator) {
            return Ok(OpenEntry { reader: None, left: 0, rewinds: Vec::new() });
        }
        let path = self.path(at.entry);
        let mut reader = BufReader::new(File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?);
        for _ in 0..=at.letter {
            read_line(&mut reader).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(OpenEntry {
            reader: Some(reader),
            left: head.letters.saturating_sub(at.letter),
            rewinds: self.rewinds_after(at.entry),
        })
    }

    /// What was asked for about each letter, the last word of each: entry, place in it, key group, operator.
    pub fn requested(&self) -> io::Result<BTreeMap<String, Requested>> {
        #[derive(Deserialize)]
        struct Named {
            id: String,
            operator: String,
        }
        #[derive(Deserialize)]
        struct Short {
            group: u32,
            letter: Named,
        }
        let mut all = BTreeMap::new();
        for (number, head) in (1..).zip(self.heads()) {
            if head.kind == EntryKind::Rewind {
                continue;
            }
            let path = self.path(number);
            let mut reader = BufReader::new(File::open(&path)?);
            read_line(&mut reader)?;
            let rewinds = self.rewinds_after(number);
            for letter in 0..head.letters {
                let line = read_line(&mut reader)?.unwrap_or_default();
                let line: Short = serde_json::from_slice(&line).map_err(|e| damaged(&path, &e.to_string()))?;
                // Void: as if it had never been asked for.
                if epoch_of(&line.letter.id).is_some_and(|epoch| rewinds.iter().any(|rewind| rewind.voids(epoch))) {
                    continue;
                }
                let requested = Requested {
                    kind: head.kind,
                    at: Position { entry: number, letter },
                    group: line.group,
                    operator: line.letter.operator,
                };
                all.insert(line.letter.id, requested);
            }
        }
        Ok(all)
    }
}

pub fn head(kind: EntryKind, time_ms: u64, letters: &[(u32, DeadLetter)]) -> EntryHead {
    EntryHead {
        format: FORMAT,
        kind,
        time_ms,
        letters: letters.len() as u64,
        operators: letters.iter().map(|(_, letter)| letter.operator.clone()).collect(),
        rewind: None,
        start: None,
    }
}

/// The last word about a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    pub kind: EntryKind,
    pub at: Position,
    pub group: u32,
    pub operator: String,
}

/// An entry that is being read.
pub struct OpenEntry {
    reader: Option<BufReader<File>>,
    left: u64,
    rewinds: Vec<Rewind>,
}

impl OpenEntry {
    /// `None`: that was all.
    pub fn read_next(&mut self) -> Result<Option<EntryLetter>, String> {
        let Some(reader) = self.reader.as_mut().filter(|_| self.left > 0) else { return Ok(None) };
        self.left -= 1;
        let line = read_line(reader).map_err(|e| e.to_string())?.ok_or("the file is cut off")?;
        let (group, letter) = parse_line(&line)?;
        let is_void = epoch_of(&letter.id).is_some_and(|epoch| self.rewinds.iter().any(|rewind| rewind.voids(epoch)));
        Ok(Some(EntryLetter { group, letter, is_void }))
    }
}

/// The first line of an entry.
pub fn parse_head(line: &[u8]) -> Result<EntryHead, String> {
    let head: EntryHead = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    if head.format != FORMAT {
        return Err(format!("its format is {}, and this version reads {FORMAT}", head.format));
    }
    Ok(head)
}

/// A further line of an entry: the key group and the letter.
pub fn parse_line(line: &[u8]) -> Result<(u32, DeadLetter), String> {
    let line: Line = serde_json::from_slice(line).map_err(|e| e.to_string())?;
    Ok((line.group, DeadLetter::from_value(line.letter)?))
}

fn read_line(reader: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok((read > 0).then_some(line))
}

fn damaged(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::dead_letter::{CallProvenance, DeadLetterKind};

    fn letter(id: &str) -> (u32, DeadLetter) {
        let letter = DeadLetter {
            id: id.to_owned(),
            kind: DeadLetterKind::Trap,
            reason: "it trapped".into(),
            job: "j".into(),
            operator: "o".into(),
            module: None,
            digest: None,
            task: 0,
            source: None,
            split: None,
            record: None,
            exact: false,
            key: b"k\xff".to_vec(),
            value: None,
            headers: vec![("h".into(), vec![0, 255])],
            timestamp: Some(1),
            change: "insert".into(),
            processing_time_ms: 1,
            call: CallProvenance { instance: 2, backtrace: vec!["0: f".into()], ..CallProvenance::default() },
            replay_of: Some("00000001-000-000000".into()),
        };
        (7, letter)
    }

    fn add(log: &ReplayLog, kind: EntryKind, ids: &[&str]) -> bool {
        let letters: Vec<_> = ids.iter().map(|id| letter(id)).collect();
        log.create(log.len() + 1, &head(kind, 5, &letters), &letters).expect("writes")
    }

    #[test]
    fn letters_come_back_as_they_were_from_any_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = ReplayLog::open(folder.path()).expect("opens");
        assert!(add(&log, EntryKind::Replay, &["00000001-000-000000", "00000001-000-000001", "00000001-000-000002"]));
        let log = ReplayLog::open(folder.path()).expect("opens again");
        for start in 0..4 {
            let mut entry = log.open_at(start, "o");
            let mut ids = Vec::new();
            while let Some(line) = entry.read_next().expect("reads") {
                assert_eq!((line.group, line.is_void, &line.letter), (7, false, &letter(&line.letter.id).1));
                ids.push(line.letter.id);
            }
            assert_eq!(ids.len() as u64, 3 - start, "{ids:?}");
        }
        assert!(log.open_at(0, "another").read_next().expect("reads").is_none());
    }

    impl ReplayLog {
        fn open_at(&self, letter: u64, operator: &str) -> OpenEntry {
            self.read(Position { entry: 1, letter }, operator).expect("opens")
        }
    }

    #[test]
    fn of_two_requests_for_one_number_the_second_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (open_log(folder.path()), open_log(folder.path()));
        assert!(add(&one, EntryKind::Replay, &["00000001-000-000000"]));
        let letters = [letter("00000001-000-000001")];
        assert!(!two.create(1, &head(EntryKind::Replay, 5, &letters), &letters).expect("looks"));
        assert_eq!((two.len(), two.requested().expect("reads").len()), (1, 1));
    }

    fn open_log(folder: &Path) -> Arc<ReplayLog> {
        ReplayLog::open(folder).expect("opens")
    }

    #[test]
    fn what_was_given_up_by_a_start_from_before_is_void() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        add(&log, EntryKind::Replay, &["00000003-000-000000", "00000009-000-000000"]);
        log.rewind(Rewind { to: 5, next: 20 }, "start-1", 1).expect("writes");
        log.rewind(Rewind { to: 5, next: 20 }, "start-1", 1).expect("is there already");
        assert_eq!(log.len(), 2);
        let mut entry = log.open_at(0, "o");
        let void: Vec<bool> = std::iter::from_fn(|| entry.read_next().expect("reads")).map(|line| line.is_void).collect();
        assert_eq!(void, [false, true]);
        assert_eq!(log.requested().expect("reads").keys().collect::<Vec<_>>(), ["00000003-000-000000"]);
        assert!(log.is_rewound("00000009-000-000000") && !log.is_rewound("00000020-000-000000"));
    }

    #[test]
    fn an_entry_that_is_damaged_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        add(&log, EntryKind::Discard, &["00000003-000-000000"]);
        std::fs::write(log.path(1), b"{\"format\":9}").expect("writes");
        let error = ReplayLog::open(folder.path()).err().expect("can't be read").to_string();
        assert!(error.contains("00000001.jsonl"), "{error}");
    }
}
