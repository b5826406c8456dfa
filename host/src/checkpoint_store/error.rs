//! What can go wrong with a job's store.

use std::path::PathBuf;
use tidegate_core::recovery::{CorruptLog, LogEntry, Seq};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("can't use {} as the folder of the state", folder.display())]
    Folder { folder: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    /// Of a write nobody knows whether it took place.
    #[error("can't {attempted} {path}")]
    Failed { attempted: &'static str, path: String, source: object_store::Error },
    #[error("{path} is missing")]
    Missing { path: String },
    #[error("{path} is there already")]
    Exists { path: String },
    #[error("{path} is damaged: {why}")]
    Corrupt { path: String, why: String },
    #[error("{path} has format {format}, this version of tidegate knows {known}: start it with the version that wrote it")]
    Newer { path: String, format: u32, known: u32 },
    #[error(transparent)]
    Log(#[from] CorruptLog),
    #[error("the job was taken over by incarnation {incarnation} ({uuid})")]
    Fenced { incarnation: u64, uuid: String },
    #[error("gave up after {tries} tries to {attempted}: others are writing there all the time")]
    Contended { attempted: &'static str, tries: usize },
    #[error("there is no savepoint {id}")]
    NoSavepoint { id: String },
    #[error(
        "savepoint {id} can't be used as a name: allowed are 1 to 64 letters, digits, '-', '_' and '.', not starting with '.'"
    )]
    SavepointName { id: String },
}

impl StoreError {
    pub(super) fn failed(attempted: &'static str, path: impl Into<String>, source: object_store::Error) -> Self {
        Self::Failed { attempted, path: path.into(), source }
    }

    pub(super) fn fenced(by: &LogEntry) -> Self {
        Self::Fenced { incarnation: by.incarnation, uuid: by.uuid.clone() }
    }

    /// Whether the same may succeed later, with nothing changed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Contended { .. } => true,
            Self::Folder { .. }
            | Self::Missing { .. }
            | Self::Exists { .. }
            | Self::Corrupt { .. }
            | Self::Newer { .. }
            | Self::Log(_)
            | Self::Fenced { .. }
            | Self::NoSavepoint { .. }
            | Self::SavepointName { .. } => false,
        }
    }
}

/// Why a decision is not known to be recorded. Either way this incarnation writes nothing any more.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the job was taken over by incarnation {incarnation} ({uuid}), which wrote decision {seq}")]
    Fenced { seq: Seq, incarnation: u64, uuid: String },
    /// It may be there, or come to be there. Only a new incarnation, behind its fence, can tell.
    #[error("can't tell whether decision {seq} was written, after {tries} tries")]
    Unknown { seq: Seq, tries: usize, source: StoreError },
}
