//! The changes of a job's life: create, start, stop, savepoint, delete, resume, and the end of the host.
//!
//! Each one makes the wish durable first and carries it out then. The comments at the steps say what a crash there means.

use super::operation::{Begun, Waiter};
use super::{
    CheckedJob, Job, JobError, JobManager, JobState, ManagerError, Put, Run, SavepointInfo, StartFrom, StartIntent, StopMode,
    StoredJob, blocking, detached,
};
use crate::api::{DesiredState, Ended, JobView, OperationKind, SavepointName, StartRequest, StopRequest, TaskStatus, now_ms};
use crate::durable_file::unique_id;
use crate::job_store::{Deleting, JOB_FORMAT};
use crate::module_store::{NAME_RULE, is_name};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidegate_core::problem::Problem;

/// For tasks to notice that they are to end. A guest call ends at its deadline, an upload at its timeout; then something is stuck.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// A savepoint is a checkpoint and has its timeout; on top of that its files are copied.
const SAVEPOINT_COPY_TIMEOUT: Duration = Duration::from_secs(600);
/// For the answer to a savepoint to arrive after the run that made it has ended.
const LATE_ANSWER: Duration = Duration::from_secs(5);

impl JobManager {
    // ---- create ------------------------------------------------------------------------------------------------------------------

    /// Creates the job and starts it. The same job again is no change; another one replaces a job that is not running, and is
    /// started only if `start` says so.
    pub async fn put_job(&self, name: &str, source: Value, start: Option<bool>) -> Result<(JobView, Put), ManagerError> {
        self.refuse_when_shutting_down()?;
        let (this, name) = (self.clone(), name.to_owned());
        detached("create the job", async move {
            let _changing = this.inner.changing.lock().await;
            let source = with_name(&name, source)?;
            let checked = this.check(&name, source.clone()).await?;
            match this.find(&name) {
                Ok(job) => this.replace(&job, source, checked, start.unwrap_or(false)).await,
                Err(ManagerError::NotFound { .. }) => this.create(name, source, checked, start.unwrap_or(true)).await,
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Everything that is wrong with the job, without creating it.
    async fn check(&self, name: &str, source: Value) -> Result<CheckedJob, ManagerError> {
        let runtime = self.inner.parts.runtime.clone();
        let attempted = format!("check the job `{name}`");
        let checked = blocking("check the job", move || {
            runtime.check(&source).map_err(|problems| ManagerError::Invalid { attempted, problems })
        })
        .await?;
        assert!(checked.spec.name == name, "BUG: checked {} and got {}", name, checked.spec.name);
        Ok(checked)
    }

    async fn create(
        &self,
        name: String,
        source: Value,
        checked: CheckedJob,
        start: bool,
    ) -> Result<(JobView, Put), ManagerError> {
        let now = now_ms();
        let stored = StoredJob {
            format: JOB_FORMAT,
            name: name.clone(),
            job_id: unique_id(),
            source,
            spec: checked.spec,
            modules: checked.modules,
            base: self.inner.parts.base.clone(),
            desired: if start { DesiredState::Running } else { DesiredState::Stopped },
            start: StartIntent::new(StartFrom::Latest),
            created_ms: now,
            changed_ms: now,
            ended: None,
            deleting: None,
        };
        let (store, copy) = (self.inner.parts.jobs.clone(), stored.clone());
        // A crash after this: the next host finds the job and starts it.
        blocking("store the job", move || Ok(store.save(&copy)?)).await?;
        let job = Job::new(stored);
        self.inner.jobs.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(name, job.clone());
        if start {
            self.run(&job);
        }
        Ok((job.view(true), Put::Created))
    }

    async fn replace(
        &self,
        job: &Arc<Job>,
        source: Value,
        checked: CheckedJob,
        start: bool,
    ) -> Result<(JobView, Put), ManagerError> {
        let _transition = job.transition.lock().await;
        let stored = job.stored();
        refuse_when_deleting(&stored)?;
        if stored.spec == checked.spec && stored.modules == checked.modules {
            return Ok((job.view(true), Put::Unchanged));
        }
        if job.active().is_some() {
            return Err(ManagerError::Conflict {
                attempted: format!("replace the job `{}`", stored.name),
                cause: format!("it is {} with another definition", job.view(false).status.state),
                remedy: format!("stop it first (tidegate job stop {} --savepoint), then create and start it", stored.name),
            });
        }
        let base = self.inner.parts.base.clone();
        self.update(job, |stored| {
            stored.source = source;
            stored.spec = checked.spec;
            stored.modules = checked.modules;
            stored.base = base;
        })
        .await?;
        if start {
            self.launch(job, StartIntent::new(StartFrom::Latest)).await?;
        }
        Ok((job.view(true), Put::Replaced))
    }

    // ---- start -------------------------------------------------------------------------------------------------------------------

    pub async fn start(&self, name: &str, from: StartFrom) -> Result<JobView, ManagerError> {
        self.start_as(name, StartRequest { from, allow_step_back: false }).await
    }

    pub async fn start_as(&self, name: &str, request: StartRequest) -> Result<JobView, ManagerError> {
        self.refuse_when_shutting_down()?;
        let StartRequest { from, allow_step_back } = request;
        let (this, job) = (self.clone(), self.find(name)?);
        detached("start the job", async move {
            let _transition = job.transition.lock().await;
            let stored = job.stored();
            refuse_when_deleting(&stored)?;
            if job.active().is_some() {
                let state = job.view(false).status.state;
                if from == StartFrom::Latest
                    && stored.desired == DesiredState::Running
                    && !matches!(state, JobState::Stopping | JobState::Cancelling)
                {
                    // It is what the caller wants it to be.
                    return Ok(job.view(true));
                }
                return Err(ManagerError::Conflict {
                    attempted: format!("start the job `{}`", stored.name),
                    cause: format!("it is {state}"),
                    remedy: "stop it first and wait until it has stopped".into(),
                });
            }
            if from == StartFrom::Latest
                && !allow_step_back
                && stored.desired == DesiredState::Running
                && job.slot().run.is_none()
            {
                // A host before this one was asked to run it and did not come to its end: what it was asked for still holds.
                this.run(&job);
                return Ok(job.view(true));
            }
            if let StartFrom::Savepoint(wanted) = &from {
                this.check_savepoint(&stored, wanted).await?;
            }
            this.launch(&job, StartIntent { allow_step_back, ..StartIntent::new(from) }).await?;
            Ok(job.view(true))
        })
        .await
    }

    /// What can be known before the job is touched. A start that was asked for and then fails leaves the job stopped.
    async fn check_savepoint(&self, stored: &StoredJob, wanted: &SavepointName) -> Result<(), ManagerError> {
        match self.inner.parts.archive.check_savepoint(stored, wanted).await? {
            None => Err(ManagerError::NotFound { what: "savepoint", name: wanted.to_string().chars().take(160).collect() }),
            Some(problems) if problems.is_empty() => Ok(()),
            Some(problems) => {
                let attempted = format!("start the job `{}` from savepoint {wanted}", stored.name);
                Err(ManagerError::Invalid { attempted, problems })
            }
        }
    }

    /// With the job's transition held.
    async fn launch(&self, job: &Arc<Job>, start: StartIntent) -> Result<(), ManagerError> {
        self.refuse_when_shutting_down()?;
        // A crash after this: the next host starts the job with this same intent, and its id keeps that from happening twice.
        self.update(job, |stored| {
            stored.desired = DesiredState::Running;
            stored.start = start;
            stored.ended = None;
        })
        .await?;
        self.run(job);
        Ok(())
    }

    fn run(&self, job: &Arc<Job>) {
        let mut slot = job.slot();
        let stored = slot.stored.clone();
        // Another run may have another shape; its counters start anew.
        self.inner.parts.metrics.remove_job(&stored.name);
        job.journal.run_begins();
        tracing::info!(job = %stored.name, from = ?stored.start.from, "job starts");
        let (start, from) = (stored.start.id.clone(), stored.start.from.clone());
        let run = Run { start, handle: self.inner.parts.runtime.start(stored, from, job.journal.clone()) };
        slot.run = Some(run.clone());
        slot.follower = Some(tokio::spawn(self.clone().follow(job.clone(), run)));
    }

    /// Starts what is to run after the host came up. One job that can't be dealt with does not hold up the others.
    pub(super) async fn resume(&self) {
        for job in self.all() {
            let stored = job.stored();
            if let Some(deleting) = stored.deleting {
                if let Err(error) = self.finish_delete(&job, deleting).await {
                    tracing::error!(job = %stored.name, %error, "job can't be deleted");
                }
            } else if stored.desired == DesiredState::Running {
                self.run(&job);
            }
        }
    }

    /// Writes down what becomes of the run.
    async fn follow(self, job: Arc<Job>, run: Run) {
        let mut watch = run.handle.watch();
        let mut intent_done = false;
        loop {
            let state = *watch.borrow_and_update();
            if state == JobState::Running && !intent_done {
                intent_done = true;
                // The decision to restore is in the log: from here on the latest checkpoint counts.
                self.update_run(&job, &run, |stored| {
                    stored.start.from = StartFrom::Latest;
                    stored.start.allow_step_back = false;
                })
                .await;
            }
            if state.is_terminal() {
                break;
            }
            if watch.changed().await.is_err() {
                break;
            }
        }
        let status = run.handle.status();
        let sources = job.stored().spec.sources;
        let is_source = |task: &&TaskStatus| task.nodes.first().is_some_and(|head| sources.iter().any(|it| it.name == *head));
        let records_read: u64 = status.tasks.iter().filter(is_source).map(|task| task.records_in).sum();
        tracing::info!(job = %job.stored().name, state = %status.state, error = status.error, records_read, "job ended");
        self.update_run(&job, &run, |stored| match status.state {
            JobState::Finished | JobState::Failed => {
                stored.desired = DesiredState::Stopped;
                stored.ended = Some(Ended { state: status.state, at_ms: now_ms(), error: status.error, savepoint: None });
            }
            JobState::Stopped | JobState::Cancelled if stored.desired == DesiredState::Stopped && stored.ended.is_none() => {
                stored.ended = Some(Ended { state: status.state, at_ms: now_ms(), error: None, savepoint: None });
            }
            // Cancelled with the host: it comes back with the host.
            _ => {}
        })
        .await;
    }

    // ---- stop and savepoint -----------------------------------------------------------------------------------------------------

    /// Ends the run, with a savepoint or without. A job that is not running is stopped already.
    pub async fn stop(&self, name: &str, request: StopRequest) -> Result<Waiter, ManagerError> {
        self.refuse_when_shutting_down()?;
        let job = self.find(name)?;
        if request.drain && !request.savepoint {
            let problem =
                Problem::new("drain", Some("true".into()), "needs `savepoint = true`: a drained job ends with a savepoint");
            return Err(ManagerError::Invalid { attempted: format!("stop the job `{name}`"), problems: vec![problem] });
        }
        let kind = if request.savepoint { OperationKind::StopWithSavepoint } else { OperationKind::Stop };
        let operation = match job.operations.begin(name, kind, request.operation)? {
            Begun::Known(waiter) => return Ok(waiter),
            Begun::New(operation) => operation,
        };
        let waiter = operation.waiter();
        let this = self.clone();
        tokio::spawn(async move {
            let result = match kind {
                OperationKind::StopWithSavepoint => {
                    this.stop_with_savepoint(&job, StopMode { drain: request.drain }).await.map(Some)
                }
                _ => this.stop_now(&job).await.map(|()| None),
            };
            operation.end(result);
        });
        Ok(waiter)
    }

    async fn stop_now(&self, job: &Arc<Job>) -> Result<(), ManagerError> {
        let run = {
            let _transition = job.transition.lock().await;
            let run = job.active();
            if run.is_some() || job.stored().desired == DesiredState::Running {
                // A crash after this: the job stays stopped.
                self.update(job, |stored| stored.desired = DesiredState::Stopped).await?;
            }
            run
        };
        let Some(run) = run else { return Ok(()) };
        run.handle.cancel();
        self.wait_for_end(job, &run).await?;
        let state = run.handle.status().state;
        self.update_run(job, &run, |stored| {
            stored.ended.get_or_insert(Ended { state, at_ms: now_ms(), error: None, savepoint: None });
        })
        .await;
        Ok(())
    }

    async fn stop_with_savepoint(&self, job: &Arc<Job>, mode: StopMode) -> Result<SavepointInfo, ManagerError> {
        let (run, savepoint) = self.take_savepoint(job, Some(mode)).await?;
        self.wait_for_end(job, &run).await?;
        // A crash before this: the job comes back and goes on from this very point; the caller, whose operation is lost, asks again.
        let (state, id) = (run.handle.status().state, savepoint.id.clone());
        self.update_run(job, &run, |stored| {
            stored.desired = DesiredState::Stopped;
            stored.ended = Some(Ended { state, at_ms: now_ms(), error: None, savepoint: Some(id) });
        })
        .await;
        Ok(savepoint)
    }

    pub async fn trigger_savepoint(&self, name: &str, operation: Option<String>) -> Result<Waiter, ManagerError> {
        self.refuse_when_shutting_down()?;
        let job = self.find(name)?;
        let operation = match job.operations.begin(name, OperationKind::Savepoint, operation)? {
            Begun::Known(waiter) => return Ok(waiter),
            Begun::New(operation) => operation,
        };
        let waiter = operation.waiter();
        let this = self.clone();
        tokio::spawn(async move {
            let result = this.take_savepoint(&job, None).await;
            operation.end(result.map(|(_, savepoint)| Some(savepoint)));
        });
        Ok(waiter)
    }

    async fn take_savepoint(&self, job: &Arc<Job>, stop: Option<StopMode>) -> Result<(Run, SavepointInfo), ManagerError> {
        let stored = job.stored();
        let attempted = format!("take a savepoint of the job `{}`", stored.name);
        let Some(run) = job.active() else {
            return Err(ManagerError::Conflict {
                attempted,
                cause: format!("it is {}", job.view(false).status.state),
                remedy: "a job that is not running has its savepoints already: list them, or start it".into(),
            });
        };
        let limit = Duration::from_millis(stored.spec.checkpoint.timeout_ms) + SAVEPOINT_COPY_TIMEOUT;
        let savepoint = run.handle.savepoint(stop);
        let mut watch = run.handle.watch();
        let ended = async {
            // An error means that the run is gone, which is an end too.
            let _ = watch.wait_for(|state| state.is_terminal()).await;
            tokio::time::sleep(LATE_ANSWER).await;
        };
        let info = tokio::select! {
            biased;
            result = tokio::time::timeout(limit, savepoint) => {
                result.map_err(|_| ManagerError::TimedOut { attempted, seconds: limit.as_secs() })??
            }
            () = ended => {
                let status = run.handle.status();
                let cause = status.error.map_or_else(|| format!("the job {} first", status.state), |e| format!("the job ended first: {e}"));
                return Err(JobError::new(attempted, cause).into());
            }
        };
        Ok((run, info))
    }

    async fn wait_for_end(&self, job: &Arc<Job>, run: &Run) -> Result<(), ManagerError> {
        let mut watch = run.handle.watch();
        let ended = watch.wait_for(|state| state.is_terminal());
        match tokio::time::timeout(END_TIMEOUT, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ManagerError::TimedOut {
                attempted: format!("end the tasks of the job `{}`", job.stored().name),
                seconds: END_TIMEOUT.as_secs(),
            }),
        }
    }

    // ---- delete ------------------------------------------------------------------------------------------------------------------

    /// Deletes the job with its checkpoints and dead letters, and with its savepoints if asked.
    pub async fn delete_job(&self, name: &str, force: bool, savepoints: bool) -> Result<(), ManagerError> {
        let (this, job) = (self.clone(), self.find(name)?);
        detached("delete the job", async move {
            let _changing = this.inner.changing.lock().await;
            let _transition = job.transition.lock().await;
            if let Some(run) = job.active() {
                if !force {
                    return Err(ManagerError::Conflict {
                        attempted: format!("delete the job `{}`", job.stored().name),
                        cause: format!("it is {}", job.view(false).status.state),
                        remedy: "stop it first, or force the deletion".into(),
                    });
                }
                this.update(&job, |stored| stored.desired = DesiredState::Stopped).await?;
                run.handle.cancel();
                this.wait_for_end(&job, &run).await?;
            }
            let deleting = Deleting { savepoints };
            // Without this a crash halfway would let the job come back with its checkpoints gone, and do everything again.
            this.update(&job, |stored| {
                stored.desired = DesiredState::Stopped;
                stored.deleting = Some(deleting);
            })
            .await?;
            this.finish_delete(&job, deleting).await
        })
        .await
    }

    async fn finish_delete(&self, job: &Arc<Job>, deleting: Deleting) -> Result<(), ManagerError> {
        let stored = job.stored();
        self.inner.parts.archive.delete_job(&stored, deleting.savepoints).await?;
        let _writes = job.writes.lock().await;
        let (store, name) = (self.inner.parts.jobs.clone(), stored.name.clone());
        blocking("remove the job", move || Ok(store.remove(&name)?)).await?;
        job.slot().gone = true;
        self.inner.jobs.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&stored.name);
        self.inner.parts.metrics.remove_job(&stored.name);
        job.journal.close();
        Ok(())
    }

    // ---- the end of the host ----------------------------------------------------------------------------------------------------

    /// Ends all runs, waits for them and for what is written about their ends. What the jobs are to do stays as it is, so the
    /// next host starts them again. Jobs that run have `last_checkpoint` to take one, and are cancelled then; for their tasks to end
    /// they have `at_most`. Answers with the jobs whose tasks did not end in time.
    pub async fn shutdown(&self, last_checkpoint: Duration, at_most: Duration) -> Vec<String> {
        self.inner.shutting_down.store(true, Ordering::Release);
        // Whoever is about to start a job has either done so or will see the flag.
        let _changing = self.inner.changing.lock().await;
        let mut followers = Vec::new();
        for job in self.all() {
            let _transition = job.transition.lock().await;
            let run = job.active();
            if let Some(run) = &run {
                if last_checkpoint.is_zero() { run.handle.cancel() } else { run.handle.suspend() }
            }
            // Also of a run that has just ended by itself: the next host must know how.
            let follower = job.slot().follower.take();
            followers.extend(follower.map(|follower| (job.stored().name, run, follower)));
        }
        let deadline = tokio::time::Instant::now() + last_checkpoint;
        let mut late = Vec::new();
        for (name, run, mut follower) in followers {
            if tokio::time::timeout_at(deadline, &mut follower).await.is_err() {
                if let (Some(run), false) = (run, last_checkpoint.is_zero()) {
                    let seconds = last_checkpoint.as_secs();
                    tracing::warn!(job = %name, seconds, "no last checkpoint in time: the next start goes on from the one before");
                    run.handle.cancel();
                }
                late.push((name, follower));
            }
        }
        let deadline = tokio::time::Instant::now() + at_most;
        let mut stuck = Vec::new();
        for (name, follower) in late {
            if tokio::time::timeout_at(deadline, follower).await.is_err() {
                stuck.push(name);
            }
        }
        if let Some(folder) = self.inner.parts.folder.as_ref().filter(|_| stuck.is_empty()) {
            folder.release();
        }
        stuck
    }

    // ---- the job's file -----------------------------------------------------------------------------------------------------------

    async fn update(&self, job: &Arc<Job>, change: impl FnOnce(&mut StoredJob)) -> Result<(), ManagerError> {
        let _writes = job.writes.lock().await;
        let mut next = {
            let slot = job.slot();
            if slot.gone {
                return Err(ManagerError::NotFound { what: "job", name: slot.stored.name.clone() });
            }
            slot.stored.clone()
        };
        change(&mut next);
        if next == job.slot().stored {
            return Ok(());
        }
        next.changed_ms = now_ms();
        let (store, copy) = (self.inner.parts.jobs.clone(), next.clone());
        blocking("store the job", move || Ok(store.save(&copy)?)).await?;
        job.slot().stored = next;
        Ok(())
    }

    /// For news of a run: nothing happens if another one has begun since. A failure is logged, not told: the run has ended or goes on
    /// all the same, and a host that comes up and finds the older file starts from the run's last checkpoint.
    pub(super) async fn update_run(&self, job: &Arc<Job>, run: &Run, change: impl FnOnce(&mut StoredJob)) {
        let change = |stored: &mut StoredJob| {
            if stored.start.id == run.start {
                change(stored);
            }
        };
        match self.update(job, change).await {
            Ok(()) | Err(ManagerError::NotFound { .. }) => {}
            Err(error) => tracing::error!(job = %job.stored().name, %error, "what became of the job can't be stored"),
        }
    }
}

fn refuse_when_deleting(stored: &StoredJob) -> Result<(), ManagerError> {
    if stored.deleting.is_none() {
        return Ok(());
    }
    Err(ManagerError::Conflict {
        attempted: format!("change the job `{}`", stored.name),
        cause: "its deletion has begun and did not come to its end".into(),
        remedy: "delete it again".into(),
    })
}

/// The name in the path counts; the document may repeat it and must not contradict.
fn with_name(name: &str, mut source: Value) -> Result<Value, ManagerError> {
    let invalid = |problem| ManagerError::Invalid { attempted: "create the job".into(), problems: vec![problem] };
    if !is_name(name) {
        return Err(invalid(Problem::new("name", Some(name.chars().take(80).collect()), format!("must be {NAME_RULE}"))));
    }
    let Some(object) = source.as_object_mut() else {
        return Err(invalid(Problem::new("(the document)", None, "must be a table of keys: name, source, operator, sink, ...")));
    };
    match object.get("name") {
        None => {
            object.insert("name".into(), name.into());
        }
        Some(Value::String(written)) if written == name => {}
        Some(other) => {
            return Err(invalid(Problem::new("name", Some(other.to_string()), format!("must be `{name}`, as in the path"))));
        }
    }
    Ok(source)
}
