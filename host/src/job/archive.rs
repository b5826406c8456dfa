//! What a job has left on disk, whether it runs or not: savepoints and dead letters.

use super::replay_log::EntryKind;
use super::runtime::SharedRuntime;
use super::{dead_letters, restore};
use crate::api::{
    DeadLetter, DeadLetterPage, DeadLetterQuery, LetterState, ReplayRequest, ReplayView, SavepointInfo, SavepointName,
};
use crate::checkpoint_store::{CheckpointStore, Savepoint, StoreError};
use crate::connector::dead_letter;
use crate::job_manager::{JobArchive, JobError, ReplayError, SavepointCheck};
use crate::job_store::StoredJob;
use crate::task::snapshot::explain;
use futures::future::BoxFuture;
use std::path::Path;
use tidegate_core::checkpoint::SAVEPOINTS;
use tidegate_core::problem::Problem;
use tidegate_core::recovery::{self, Plan, Restore};

pub fn savepoint_info(job: &str, folder: &Path, savepoint: &Savepoint) -> SavepointInfo {
    SavepointInfo {
        id: savepoint.id.clone(),
        job: job.to_owned(),
        checkpoint: savepoint.manifest.checkpoint,
        path: folder.join(SAVEPOINTS).join(&savepoint.id).to_string_lossy().into_owned(),
        created_ms: savepoint.manifest.time_ms,
        bytes: savepoint.bytes(),
    }
}

fn failed(attempted: String) -> impl Fn(StoreError) -> JobError {
    move |error| JobError::new(attempted.clone(), explain(&error))
}

impl SharedRuntime {
    fn store(&self, job: &str) -> Result<CheckpointStore, JobError> {
        self.0.open_store(job).map_err(failed(format!("open the store of {job}")))
    }
}

impl JobArchive for SharedRuntime {
    fn savepoints<'a>(&'a self, job: &'a StoredJob) -> BoxFuture<'a, Result<Vec<SavepointInfo>, JobError>> {
        Box::pin(async move {
            let store = self.store(&job.name)?;
            let failed = failed(format!("list the savepoints of {}", job.name));
            let folder = self.0.folder(&job.name);
            let mut savepoints = Vec::new();
            for id in store.list_savepoints().await.map_err(&failed)? {
                match store.read_savepoint(&id).await {
                    Ok(savepoint) => savepoints.push(savepoint_info(&job.name, &folder, &savepoint)),
                    // One that is damaged hides no other.
                    Err(error) => {
                        tracing::error!(job = %job.name, savepoint = %id, error = explain(&error), "savepoint can't be read")
                    }
                }
            }
            // Numbers only go up; the clock may have gone back between two of them.
            savepoints.sort_by_key(|savepoint| savepoint.checkpoint);
            Ok(savepoints)
        })
    }

    fn check_savepoint<'a>(
        &'a self,
        job: &'a StoredJob,
        from: &'a SavepointName,
    ) -> BoxFuture<'a, Result<SavepointCheck, JobError>> {
        Box::pin(async move {
            let store = self.store(from.job.as_ref().unwrap_or(&job.name))?;
            let problem = |error: &StoreError| Problem::new("from.savepoint", Some(from.to_string()), explain(error));
            let savepoint = match store.read_savepoint(&from.savepoint).await {
                Ok(savepoint) => savepoint,
                Err(StoreError::NoSavepoint { .. } | StoreError::SavepointName { .. }) => return Ok(None),
                Err(error) => return Ok(Some(vec![problem(&error)])),
            };
            let (name, spec) = (job.name.clone(), job.spec.clone());
            let runtime = std::sync::Arc::clone(&self.0);
            let declared = tokio::task::spawn_blocking(move || runtime.declared_states(&spec)).await;
            let declared = declared.map_err(|e| JobError::new(format!("look into the modules of {name}"), e))?;
            let mut problems = recovery::match_job(&savepoint.manifest, &restore::shape(&job.spec), &Default::default())
                .err()
                .unwrap_or_default();
            problems.extend(recovery::match_states(&savepoint.manifest, &declared));
            if let Err(error) = store.read_whole(&savepoint.pointer).await {
                problems.push(problem(&error));
            }
            Ok(Some(problems))
        })
    }

    fn delete_savepoint<'a>(&'a self, job: &'a StoredJob, id: &'a str) -> BoxFuture<'a, Result<bool, JobError>> {
        Box::pin(async move {
            let store = self.store(&job.name)?;
            let attempted = format!("delete savepoint {id} of {}", job.name);
            let log = store.read_log().await.map_err(failed(attempted.clone()))?;
            let folder = format!("{SAVEPOINTS}{id}/");
            if let Ok(Plan { restore: Restore::From(pointer), .. }) = recovery::plan(&log)
                && pointer.path.starts_with(&folder)
            {
                let cause = "the job was started from it and has completed no checkpoint since";
                return Err(JobError::new(attempted, cause).remedy("wait for the next checkpoint of the job"));
            }
            match store.delete_savepoint(id).await {
                Ok(()) => Ok(true),
                Err(StoreError::NoSavepoint { .. } | StoreError::SavepointName { .. }) => Ok(false),
                Err(error) => Err(failed(attempted)(error)),
            }
        })
    }

    fn delete_job<'a>(&'a self, job: &'a StoredJob, savepoints: bool) -> BoxFuture<'a, Result<(), JobError>> {
        let (folder, name) = (self.0.folder(&job.name), job.name.clone());
        Box::pin(async move {
            let removed = tokio::task::spawn_blocking(move || {
                // The log goes before what it names: a log that names what is gone would look like damage.
                let mut parts = vec!["dead-letters", "replays", "commits", "inc", "manifests", "segments"];
                if savepoints {
                    parts.push("savepoints");
                }
                for part in parts {
                    match std::fs::remove_dir_all(folder.join(part)) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            });
            let attempted = format!("delete what {name} has stored");
            removed.await.map_err(|e| JobError::new(&attempted, e))?.map_err(|e| JobError::new(&attempted, e))?;
            crate::connector::blackhole::forget(&name);
            Ok(())
        })
    }

    fn dead_letters<'a>(&'a self, job: &'a StoredJob, query: DeadLetterQuery) -> BoxFuture<'a, Result<DeadLetterPage, JobError>> {
        let folder = dead_letters::folder(&self.0.folder(&job.name));
        Box::pin(async move {
            let attempted = format!("read the dead letters of {}", job.name);
            let read = tokio::task::spawn_blocking(move || {
                let asked = dead_letter::DeadLetterQuery {
                    operator: query.operator.as_deref(),
                    before: query.before.as_deref(),
                    limit: query.limit,
                };
                dead_letter::list(&folder, &asked)
            });
            let page = read.await.map_err(|e| JobError::new(&attempted, e))?.map_err(|e| {
                let wrong = e.kind() == std::io::ErrorKind::InvalidInput;
                let error = JobError::new(&attempted, e);
                if wrong { error.asked_wrong().remedy("hand over the `next` of a page as `before`") } else { error }
            })?;
            // Letters can be read whatever became of the checkpoints.
            let states = self.letter_states(job).await;
            let states =
                states.inspect_err(|error| tracing::warn!(job = %job.name, %error, "dead letters are shown without state"));
            let state = |id: &str| states.as_ref().ok().map(|states| states.of(id));
            Ok(DeadLetterPage {
                dead_letters: page.letters.iter().map(|letter| shown(letter, state(&letter.id))).collect(),
                next: page.next,
                unreadable: page.unreadable,
            })
        })
    }

    fn dead_letter<'a>(
        &'a self,
        job: &'a StoredJob,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<(DeadLetter, Option<Vec<u8>>)>, JobError>> {
        let folder = dead_letters::folder(&self.0.folder(&job.name));
        Box::pin(async move {
            let attempted = format!("read a dead letter of {}", job.name);
            let name = id.to_owned();
            let read = tokio::task::spawn_blocking(move || dead_letter::find(&folder, &name));
            let letter = read.await.map_err(|e| JobError::new(&attempted, e))?.map_err(|e| JobError::new(&attempted, e))?;
            let Some(letter) = letter else { return Ok(None) };
            let state = self.letter_states(job).await?.of(id);
            Ok(Some((shown(&letter, Some(state)), letter.value)))
        })
    }

    fn replay<'a>(
        &'a self,
        job: &'a StoredJob,
        request: ReplayRequest,
        discard: bool,
    ) -> BoxFuture<'a, Result<(ReplayView, u64), ReplayError>> {
        let kind = if discard { EntryKind::Discard } else { EntryKind::Replay };
        Box::pin(self.request_replay(job, request, kind))
    }
}

/// The API shows a letter in the form of its file, and what became of it.
fn shown(letter: &dead_letter::DeadLetter, state: Option<LetterState>) -> DeadLetter {
    let shown: DeadLetter =
        serde_json::from_slice(&letter.to_line()).expect("BUG: the API and the files disagree about dead letters");
    DeadLetter { state, ..shown }
}
