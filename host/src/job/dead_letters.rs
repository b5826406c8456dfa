//! The dead letters of one task: what was taken out of the stream, with its provenance, written exactly once like any other output.
//!
//! Invariant: a dead letter belongs to the epoch of the record that it was made of. It is staged, pre-committed and committed with
//! the checkpoint, so a record that is replayed after a failure leaves one letter and not two.

use super::plan::JobPlan;
use super::splits::SplitNames;
use crate::connector::ConnectorError;
use crate::connector::dead_letter::{CallProvenance, DeadLetter, DeadLetterWriter, DeadLetters};
use crate::task::TaskError;
use crate::task::operator::Culprit;
use crate::task::snapshot::AsyncPart;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_core::checkpoint::{CheckpointId, TaskId};
use tidegate_core::row::{self, NO_TIMESTAMP};

/// The sink's name in manifests. No node of a job can have it.
pub const DEAD_LETTERS: &str = "~dead-letters";

/// Where a job's dead letters lie, below the job's own folder.
pub fn folder(job_folder: &Path) -> PathBuf {
    job_folder.join("dead-letters")
}

pub fn sink(plan: &JobPlan, job_folder: &Path) -> DeadLetters {
    DeadLetters::new(folder(job_folder), &plan.job_id)
}

pub struct DeadLetterLane {
    job: String,
    task: TaskId,
    writer: DeadLetterWriter,
    splits: Arc<SplitNames>,
    /// Module and digest by operator.
    modules: BTreeMap<String, (String, String)>,
    attempt: u32,
    /// The letter that is being replayed: what fails now failed because of it.
    pub replaying: Option<String>,
}

impl DeadLetterLane {
    pub fn new(
        job: String,
        task: TaskId,
        writer: DeadLetterWriter,
        splits: Arc<SplitNames>,
        modules: BTreeMap<String, (String, String)>,
        attempt: u32,
    ) -> Self {
        Self { job, task, writer, splits, modules, attempt, replaying: None }
    }

    pub fn begin(&mut self, epoch: CheckpointId) -> Result<(), TaskError> {
        self.writer.begin(epoch).map_err(failed)
    }

    /// Where a row came from, for people: source, split and number, and its key.
    pub fn place(&self, culprit: &Culprit) -> String {
        let (row, _) = row::first(&culprit.row);
        let key = String::from_utf8_lossy(&row.key[..row.key.len().min(80)]);
        if let Some(timer) = culprit.timer {
            return format!("the timer of key \"{key}\" at {} with tag {}", timer.time, timer.tag);
        }
        let place = match self.splits.name(culprit.origin.split()) {
            Some((source, split)) => {
                let made = if culprit.origin.is_exact() { "" } else { "made of or after " };
                format!("{made}record {} of {split} (source {source})", culprit.origin.position())
            }
            None => "a record of unknown origin".to_owned(),
        };
        if row.key.is_empty() { place } else { format!("{place}, key \"{key}\"") }
    }

    pub fn splits(&self) -> &SplitNames {
        &self.splits
    }

    /// `node`: the operator that could not process the record, or the source that could not read it. Answers with the letter's bytes.
    pub fn push(&mut self, node: &str, culprit: Culprit) -> Result<usize, TaskError> {
        let (row, _) = row::first(&culprit.row);
        let (module, digest) = self.modules.get(node).cloned().unzip();
        let (source, split) = self.splits.name(culprit.origin.split()).unzip();
        let mut letter = DeadLetter {
            id: String::new(),
            kind: culprit.kind,
            reason: culprit.reason,
            job: self.job.clone(),
            operator: node.to_owned(),
            module,
            digest,
            task: self.task.index,
            record: source.is_some().then(|| culprit.origin.position()),
            source,
            split,
            exact: culprit.origin.is_exact(),
            key: row.key.to_vec(),
            value: row.value.map(<[u8]>::to_vec),
            headers: row::headers(row.headers).map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
            timestamp: Some(row.timestamp).filter(|timestamp| *timestamp != NO_TIMESTAMP),
            change: row.change.name().to_owned(),
            processing_time_ms: u64::try_from(culprit.processing_time).unwrap_or(0),
            call: CallProvenance {
                input: culprit.input,
                watermark: Some(culprit.watermark).filter(|watermark| *watermark != NO_TIMESTAMP),
                attempt: self.attempt,
                instance: culprit.instance,
                call: culprit.call,
                backtrace: culprit.backtrace,
                timer: culprit.timer,
            },
            replay_of: self.replaying.clone(),
        };
        self.writer.push(&mut letter).map_err(failed)
    }

    /// The synchronous part of a snapshot, and the next epoch.
    pub fn snapshot(&mut self, next_epoch: CheckpointId, part: &mut AsyncPart) -> Result<(), TaskError> {
        let pre_commit = self.writer.pre_commit().map_err(failed)?;
        part.sinks.push((DEAD_LETTERS.to_owned(), pre_commit));
        self.writer.begin(next_epoch).map_err(failed)
    }

    pub fn abort(&mut self) {
        self.writer.abort();
    }
}

fn failed(error: ConnectorError) -> TaskError {
    TaskError::connector("dead letters", &error)
}
