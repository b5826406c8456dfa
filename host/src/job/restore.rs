//! What an attempt starts from: the job is taken over, the decision log says what is true, sinks finish what was decided.
//!
//! Invariants:
//! * a start that the user asked for (fresh, or from a savepoint) is itself a decision in the log, named by the id of the request: a
//!   crash right afterwards goes on with it, and neither does it again nor falls back to what was before;
//! * what can't be read is an error that names it, never a fresh start.

use super::dead_letters::DEAD_LETTERS;
use super::plan::JobPlan;
use crate::api::StartFrom;
use crate::checkpoint_store::{Acquired, CheckpointStore, StoreError};
use crate::connector::{Sink, catalog};
use crate::task::TaskError;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_core::checkpoint::{CompletedCheckpoint, Coordinator, CoordinatorConfig, Manifest, OperatorManifest, Restored as RestoredCheckpoint, SegmentRef};

/// Where the user wants the run to begin.
#[derive(Debug, Clone)]
pub struct Start {
    pub id: String,
    pub from: StartFrom,
}
