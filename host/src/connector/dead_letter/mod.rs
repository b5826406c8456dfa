//! Dead letters: rows that could not be processed, with everything needed to understand, mend and replay them.
//!
//! One JSON object a line, in files that are staged and committed like those of the file sink: a dead letter is output, and is
//! neither lost nor doubled when the job restarts. Bytes that are not UTF-8 stand under `…_base64`.

mod reader;

pub use reader::{DeadLetterPage, DeadLetterQuery, PAGE_LETTERS_MAX, epoch_of, find, list, scan};

use super::file::{FileSink, FileWriter, Place};
use super::row_text::RowText;
use super::{ConnectorError, PreCommit, Sink, SinkWriter, Visible};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;
use tidegate_core::checkpoint::{CheckpointId, Committable};
use tidegate_core::job_graph::spec::Delivery;
use tidegate_core::state_schema::TimeDomain;

/// Name of the sink in manifests, and prefix of the files.
pub const DEAD_LETTERS: &str = "dead-letters";
const SUFFIX: &str = "jsonl";

/// Why a row was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeadLetterKind {
    /// The guest refused it and went on.
    Rejected,
    /// The guest gave up the call because of it.
    BadRow,
    /// The guest ended in a trap.
    Trap,
    /// The guest did not come back in time.
    Deadline,
    /// The guest broke the contract or a limit, which the reason names.
    Violation,
    /// The source could not decode it, or found no timestamp.
    Decode,
    /// A keyed edge found no key in it.
    Key,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Set when it is written: `<epoch>-<task>-<number>`, unique in the job.
    pub id: String,
    pub kind: DeadLetterKind,
    pub reason: String,
    pub job: String,
    /// The node that gave the row up: an operator, or the source for `decode`.
    pub operator: String,
    /// `name@version` of the operator's module.
    pub module: Option<String>,
    pub digest: Option<String>,
    pub task: u32,
    pub source: Option<String>,
    pub split: Option<String>,
    pub record: Option<u64>,
    /// The row is the record at that place; false: it was made from it or from one before it.
    pub exact: bool,
    pub key: Vec<u8>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp: Option<i64>,
    /// As [`tidegate_core::row::ChangeKind::name`] has it.
    pub change: String,
    pub processing_time_ms: u64,
    /// Of the call that failed.
    pub call: CallProvenance,
    /// The letter that was replayed and failed again.
    pub replay_of: Option<String>,
}

/// What tells a timer of a key from its others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerName {
    pub domain: TimeDomain,
    pub time: i64,
    pub tag: u64,
}

/// The call that could not process the row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CallProvenance {
    /// The operator's input that the row came by.
    #[serde(default)]
    pub input: u32,
    /// Event time of the operator; absent before the first watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Which attempt of the job's run it was, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// Which instance of the guest in its task, from 1, and which call of the task: 0 where no guest was asked.
    #[serde(default)]
    pub instance: u64,
    #[serde(default)]
    pub call: u64,
    /// Where the guest was, innermost frame first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backtrace: Vec<String>,
    /// Set where a timer failed: the row has the timer's key, its time, and its tag as the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timer: Option<TimerName>,
}

impl DeadLetter {
    /// As a line, without the newline.
    pub fn to_line(&self) -> Vec<u8> {
        serde_json::to_vec(&Line::from(self)).expect("BUG: a dead letter is JSON")
    }

    /// Of key, value and headers.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + headers
    }

    /// The same as a value: a letter within another document.
    pub fn from_value(value: serde_json::Value) -> Result<Self, String> {
        let line: Line = serde_json::from_value(value).map_err(|error| error.to_string())?;
        line.try_into()
    }

    pub fn from_line(line: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        line.try_into()
    }
}

/// The form on disk.
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    kind: DeadLetterKind,
    reason: String,
    job: String,
    operator: String,
    #[serde(default)]
    module: Option<String>,
    #[serde(default)]
    digest: Option<String>,
    task: u32,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    split: Option<String>,
    #[serde(default)]
    record: Option<u64>,
    exact: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    /// Null and no `value_base64`: a tombstone.
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Header>,
    timestamp: Option<i64>,
    change: String,
    processing_time_ms: u64,
    #[serde(flatten)]
    call: CallProvenance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replay_of: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// (text, base64), of which one is there.
fn split_bytes(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

fn join_bytes(text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (_, Some(base64)) => STANDARD.decode(base64).map(Some).map_err(|error| error.to_string()),
        (text, None) => Ok(text.map(String::into_bytes)),
    }
}

impl From<&DeadLetter> for Line {
    fn from(letter: &DeadLetter) -> Self {
        let (key, key_base64) = split_bytes(&letter.key);
        let (value, value_base64) = letter.value.as_deref().map_or((None, None), split_bytes);
        let header = |(name, value): &(String, Vec<u8>)| {
            let (value, value_base64) = split_bytes(value);
            Header { name: name.clone(), value, value_base64 }
        };
        Self {
            id: letter.id.clone(),
            kind: letter.kind,
            reason: letter.reason.clone(),
            job: letter.job.clone(),
            operator: letter.operator.clone(),
            module: letter.module.clone(),
            digest: letter.digest.clone(),
            task: letter.task,
            source: letter.source.clone(),
            split: letter.split.clone(),
            record: letter.record,
            exact: letter.exact,
            key,
            key_base64,
            value,
            value_base64,
            headers: letter.headers.iter().map(header).collect(),
            timestamp: letter.timestamp,
            change: letter.change.clone(),
            processing_time_ms: letter.processing_time_ms,
            call: letter.call.clone(),
            replay_of: letter.replay_of.clone(),
        }
    }
}

impl TryFrom<Line> for DeadLetter {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let header = |header: Header| Ok((header.name, join_bytes(header.value, header.value_base64)?.unwrap_or_default()));
        Ok(Self {
            id: line.id,
            kind: line.kind,
            reason: line.reason,
            job: line.job,
            operator: line.operator,
            module: line.module,
            digest: line.digest,
            task: line.task,
            source: line.source,
            split: line.split,
            record: line.record,
            exact: line.exact,
            key: join_bytes(line.key, line.key_base64)?.unwrap_or_default(),
            value: join_bytes(line.value, line.value_base64)?,
            headers: line.headers.into_iter().map(header).collect::<Result<_, String>>()?,
            timestamp: line.timestamp,
            change: line.change,
            processing_time_ms: line.processing_time_ms,
            call: line.call,
            replay_of: line.replay_of,
        })
    }
}

/// The dead letters of a job, as a sink.
pub struct DeadLetters {
    files: FileSink,
}

impl DeadLetters {
    pub fn new(folder: PathBuf, job_id: &str) -> Self {
        Self {
            files: FileSink::new(Place {
                folder,
                job_id: job_id.to_owned(),
                node: DEAD_LETTERS.to_owned(),
                prefix: DEAD_LETTERS.to_owned(),
                suffix: SUFFIX.to_owned(),
                format: RowText::Lines,
                gzip: false,
            }),
        }
    }

    /// `task` tells apart all tasks of the job that write dead letters.
    pub fn writer(&self, task: u32) -> Result<DeadLetterWriter, ConnectorError> {
        Ok(DeadLetterWriter { files: self.files.writer(task)?, in_epoch: 0 })
    }
}

impl Sink for DeadLetters {
    /// For rows whose values are lines of dead letters already; tasks use [`Self::writer`].
    fn open(&self, task: u32, parallelism: u32) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        self.files.open(task, parallelism)
    }

    fn commit(&self, committables: &[Committable]) -> Result<(), ConnectorError> {
        self.files.commit(committables)
    }

    fn abort(&self, committables: &[Committable]) -> Result<(), ConnectorError> {
        self.files.abort(committables)
    }

    fn recover(&self, decided: &[Committable], first: CheckpointId) -> Result<(), ConnectorError> {
        self.files.recover(decided, first)
    }

    fn visible(&self, epochs: Range<CheckpointId>, named: &[Committable]) -> Result<Visible, ConnectorError> {
        self.files.visible(epochs, named)
    }

    fn retract(&self, epochs: Range<CheckpointId>) -> Result<Vec<String>, ConnectorError> {
        self.files.retract(epochs)
    }

    fn strongest(&self) -> Delivery {
        self.files.strongest()
    }
}

/// Writes the dead letters of one task: [`Self::push`] between `begin` and `pre_commit`.
pub struct DeadLetterWriter {
    files: FileWriter,
    /// Letters since the epoch began.
    in_epoch: u64,
}

impl DeadLetterWriter {
    /// Gives the letter its id and appends it; the answer is its length.
    pub fn push(&mut self, letter: &mut DeadLetter) -> Result<usize, ConnectorError> {
        letter.id = format!("{:08}-{:03}-{:06}", self.files.epoch(), self.files.task(), self.in_epoch);
        self.in_epoch += 1;
        let line = letter.to_line();
        self.files.append(1, |out| {
            out.extend_from_slice(&line);
            out.push(b'\n');
        })?;
        Ok(line.len() + 1)
    }

    pub fn begin(&mut self, epoch: CheckpointId) -> Result<(), ConnectorError> {
        self.in_epoch = 0;
        self.files.begin(epoch)
    }

    pub fn pre_commit(&mut self) -> Result<PreCommit, ConnectorError> {
        self.files.pre_commit()
    }

    pub fn abort(&mut self) {
        self.files.abort();
    }
}

#[cfg(test)]
mod tests;
