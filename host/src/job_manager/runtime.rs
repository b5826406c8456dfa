//! What the job manager needs of those who run jobs and keep what jobs leave behind. It knows them by these traits only, so it
//! can be tested without a guest, a thread or a checkpoint.

use crate::api::{
    CheckpointReport, DeadLetter, DeadLetterPage, DeadLetterQuery, JobState, JobStatus, ReplayRequest, ReplayView, RunFacts,
    SavepointInfo, SavepointName, StartFrom,
};
use crate::job_store::StoredJob;
use crate::journal::Journal;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_core::checkpoint::StopMode;
use tidegate_core::job_graph::spec::JobSpec;
use tidegate_core::problem::Problem;
use tokio::sync::watch;

/// A job that can be started.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedJob {
    pub spec: JobSpec,
    /// Digest of each operator's module.
    pub modules: BTreeMap<String, String>,
}

/// Runs jobs. One per host.
pub trait JobRuntime: Send + Sync + 'static {
    /// Everything wrong with the job at once; touches no state. May block: it looks up modules and connectors.
    fn check(&self, spec: &serde_json::Value) -> Result<CheckedJob, Vec<Problem>>;

    /// Starts in the background and returns at once; what goes wrong is told by the state. Called within the tokio runtime.
    ///
    /// `job.start.id` names this start beyond a crash: see [`crate::job_store::StartIntent`].
    /// What happens is told to the journal.
    fn start(&self, job: StoredJob, from: StartFrom, journal: Arc<Journal>) -> Arc<dyn RunningJob>;
}

/// One run of a job, from a start to its end; restarts after failures are within it. Stays readable after its end.
pub trait RunningJob: Send + Sync {
    fn status(&self) -> JobStatus;

    /// Newest last.
    fn checkpoints(&self) -> Vec<CheckpointReport>;

    /// An ended state is the last one: nothing of the run moves any more when it is seen.
    fn watch(&self) -> watch::Receiver<JobState>;

    /// Resolves when the savepoint is in its place, or can't be; with `stop`, the run ends as `stopped` afterwards. After a failure
    /// the run goes on.
    fn savepoint(&self, stop: Option<StopMode>) -> BoxFuture<'static, Result<SavepointInfo, JobError>>;

    /// What the run waits for, and since when. Takes a moment: it looks several times.
    fn why(&self) -> BoxFuture<'static, RunFacts>;

    /// The host goes down: takes a last checkpoint if the job runs, and ends as `cancelled` in any case, when that is committed or
    /// has failed. May last as long as a checkpoint may; [`RunningJob::cancel`] cuts it short.
    fn suspend(&self);
    /// The log of replayed dead letters has so many entries.
    fn replay(&self, known: u64);

    /// Stops without a checkpoint. Idempotent.
    fn cancel(&self);
}

/// `None`: there is none. Else what is wrong with it.
pub type SavepointCheck = Option<Vec<Problem>>;

/// What a job has left on disk, whether it runs or not. Implemented on the checkpoint store and the dead-letter files.
pub trait JobArchive: Send + Sync + 'static {
    /// Oldest first.
    fn savepoints<'a>(&'a self, job: &'a StoredJob) -> BoxFuture<'a, Result<Vec<SavepointInfo>, JobError>>;

    /// Everything that keeps the job from starting there, at once. `None`: there is no such savepoint.
    fn check_savepoint<'a>(
        &'a self,
        job: &'a StoredJob,
        from: &'a SavepointName,
    ) -> BoxFuture<'a, Result<SavepointCheck, JobError>>;

    /// `false` if there is none with this id.
    fn delete_savepoint<'a>(&'a self, job: &'a StoredJob, id: &'a str) -> BoxFuture<'a, Result<bool, JobError>>;

    /// Everything but the job's own file (and, unless asked for, its savepoints): a job created later under this name must find
    /// nothing to restore. Idempotent: it is called again after a crash.
    fn delete_job<'a>(&'a self, job: &'a StoredJob, savepoints: bool) -> BoxFuture<'a, Result<(), JobError>>;

    /// Newest first, within the query's limit. A `before` that names nothing is an error.
    fn dead_letters<'a>(&'a self, job: &'a StoredJob, query: DeadLetterQuery) -> BoxFuture<'a, Result<DeadLetterPage, JobError>>;

    /// One letter and the bytes of its value; `None` within for a tombstone.
    #[allow(clippy::type_complexity)]
    fn dead_letter<'a>(
        &'a self,
        job: &'a StoredJob,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<(DeadLetter, Option<Vec<u8>>)>, JobError>>;

    /// Chooses letters to be replayed, or to be done with, and writes that down; answers with the number of entries in the log.
    fn replay<'a>(
        &'a self,
        job: &'a StoredJob,
        request: ReplayRequest,
        discard: bool,
    ) -> BoxFuture<'a, Result<(ReplayView, u64), ReplayError>>;
}

/// Why dead letters are not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("there is no dead letter `{0}`")]
    NoLetter(String),
    #[error("{cause}")]
    Refused { cause: String, remedy: String },
    #[error(transparent)]
    Job(#[from] JobError),
}

/// Something that was asked of a job did not work out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{attempted}: {cause}")]
pub struct JobError {
    pub attempted: String,
    pub cause: String,
    pub remedy: Option<String>,
    /// What was asked makes no sense; nothing failed.
    pub asked_wrong: bool,
}

impl JobError {
    pub fn new(attempted: impl Into<String>, cause: impl ToString) -> Self {
        Self { attempted: attempted.into(), cause: cause.to_string(), remedy: None, asked_wrong: false }
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub fn asked_wrong(self) -> Self {
        Self { asked_wrong: true, ..self }
    }
}
