//! The dead letters of one task: what was taken out of the stream, with its provenance, written exactly once like any other output.
//!
//! Invariant: a dead letter belongs to the epoch of the record that it was made of. It is staged, pre-committed and committed with
//! the checkpoint, so a record that is replayed after a failure leaves one letter and not two.

use super::splits::SplitNames;
use crate::connector::SinkWriter;
use crate::connector::dead_letter::{DeadLetter, Kind};
use crate::task::TaskError;
use crate::task::operator::{Culprit, CulpritKind};
use crate::task::snapshot::AsyncPart;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_core::checkpoint::{CheckpointId, TaskId};
use tidegate_core::row::{self, Rows};

/// The sink's name in manifests. No node of a job can have it.
pub const DEAD_LETTERS: &str = "~dead-letters";

pub struct DeadLetterLane {
    job: String,
    task: TaskId,
    writer: Box<dyn SinkWriter>,
    splits: Arc<SplitNames>,
    /// Module and digest by operator.
    modules: BTreeMap<String, (String, String)>,
}

impl DeadLetterLane {
    pub fn new(
        job: String,
        task: TaskId,
        writer: Box<dyn SinkWriter>,
        splits: Arc<SplitNames>,
        modules: BTreeMap<String, (String, String)>,
    ) -> Self {
        Self { job, task, writer, splits, modules }
    }

    pub fn begin(&mut self, epoch: CheckpointId) -> Result<(), TaskError> {
        self.writer.begin(epoch).map_err(failed)
    }

    /// `node`: the operator that could not process the record, or the source that could not read it.
    pub fn push(&mut self, node: &str, culprit: Culprit) -> Result<(), TaskError> {
        let (row, _) = row::first(&culprit.row);
        let (module, digest) = self.modules.get(node).cloned().unzip();
        let place = self.splits.name(culprit.origin.split());
        let letter = DeadLetter {
            job: &self.job,
            node,
            module: module.as_deref(),
            digest: digest.as_deref(),
            task: self.task.index,
            source: place.as_ref().map(|(source, _)| source.as_str()),
            split: place.as_ref().map(|(_, split)| split.as_str()),
            record: place.as_ref().map(|_| culprit.origin.position()),
            exact: culprit.origin.is_exact(),
            kind: match culprit.kind {
                CulpritKind::Rejected => Kind::Rejected,
                CulpritKind::BadRow => Kind::BadRow,
                CulpritKind::Trap => Kind::Trap,
                CulpritKind::Deadline => Kind::Deadline,
                CulpritKind::Violation => Kind::Violation,
                CulpritKind::Decode => Kind::Decode,
            },
            reason: &culprit.reason,
            row,
            processing_time_ms: culprit.processing_time,
        };
        let mut line = Rows::default();
        line.push(&row::Row::new(&[], letter.to_json().as_bytes(), row.timestamp));
        self.writer.write(&line).map_err(failed)
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

fn failed(error: crate::connector::ConnectorError) -> TaskError {
    TaskError::connector("dead letters", &error)
}
