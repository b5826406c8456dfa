//! What people see of checkpoints: the pending ones and the last finished ones.

use super::CheckpointReport;
use crate::limits::CHECKPOINT_HISTORY_MAX;
use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct History {
    finished: VecDeque<CheckpointReport>,
}

impl History {
    pub(super) fn push(&mut self, report: CheckpointReport) {
        if self.finished.len() == CHECKPOINT_HISTORY_MAX {
            self.finished.pop_front();
        }
        self.finished.push_back(report);
    }

    pub(super) fn finished(&self) -> impl Iterator<Item = &CheckpointReport> {
        self.finished.iter()
    }
}
