//! Test doubles of what runs jobs and keeps what they leave: they do what the job's document tells them to.
//!
//! * `"problems": ["a", "b"]`: the check finds these;
//! * `"state": "starting"`: runs begin in that state (else `running`);
//! * `"ends": "finished"` or `"failed"`: runs end at once;
//! * `"savepoint": "fail"` or `"hang"`: what savepoints do;
//! * `"cancel": "hang"`: the run never ends; `"suspend": "hang"`: its last checkpoint does not;
//! * `"panic": true`: the check panics.

use super::*;
use crate::api::{ModuleDescription, OperatorDescription, Problem, RunFacts, SavepointName, TaskStatus, now_ms};
use crate::module_store::{ModuleError, ModuleInfo, ModuleInspector};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use std::path::Path;
use tidegate_core::checkpoint::{CheckpointKind, CheckpointStatus};
use tidegate_core::job_graph::spec::{OperatorSpec, SourceSpec};

#[derive(Default)]
pub struct FakeRuntime {
    /// Every start: job, start id, from.
    pub starts: Mutex<Vec<(String, String, StartFrom)>>,
    runs: Mutex<BTreeMap<String, Arc<FakeRun>>>,
    pub archive: Arc<FakeArchive>,
}

impl FakeRuntime {
    pub fn last_run(&self, job: &str) -> Arc<FakeRun> {
        self.runs.lock().unwrap()[job].clone()
    }

    pub fn starts_of(&self, job: &str) -> Vec<StartFrom> {
        self.starts.lock().unwrap().iter().filter(|(name, ..)| name == job).map(|(.., from)| from.clone()).collect()
    }
}

impl JobRuntime for FakeRuntime {
    fn check(&self, source: &Value) -> Result<CheckedJob, Vec<Problem>> {
        assert!(source["panic"] != true, "the check panics, as told");
        if let Some(problems) = source["problems"].as_array() {
            let problem = |key: &Value| Problem::new(key.as_str().unwrap(), Some("?".into()), "is wrong");
            return Err(problems.iter().map(problem).collect());
        }
        let mut spec = crate::job_store::tests::stored(source["name"].as_str().unwrap()).spec;
        spec.checkpoint.retained = source["retained"].as_u64().unwrap_or(3) as u32;
        spec.sources.push(SourceSpec {
            name: "in".into(),
            connector: "generator".into(),
            parallelism: 1,
            watermark: None,
            on_error: Default::default(),
            errors: Default::default(),
            options: Default::default(),
        });
        for operator in source["operator"].as_array().into_iter().flatten() {
            spec.operators.push(OperatorSpec {
                name: "op".into(),
                module: operator["module"].as_str().unwrap().into(),
                inputs: vec![PortRef { node: "in".into(), port: None }],
                key: None,
                parallelism: 1,
                on_error: Default::default(),
                errors: Default::default(),
                limits: Default::default(),
                config: vec![],
            });
        }
        Ok(CheckedJob { spec, modules: BTreeMap::new() })
    }

    fn start(&self, job: StoredJob, from: StartFrom, journal: Arc<Journal>) -> Arc<dyn RunningJob> {
        self.starts.lock().unwrap().push((job.name.clone(), job.start.id.clone(), from));
        let begin = if job.source["state"] == "starting" { JobState::Starting } else { JobState::Running };
        let run = Arc::new(FakeRun {
            state: watch::Sender::new(begin),
            error: Mutex::default(),
            archive: self.archive.clone(),
            job: job.clone(),
            journal,
        });
        match job.source["ends"].as_str() {
            Some("finished") => run.enter(JobState::Finished, None),
            Some("failed") => run.enter(JobState::Failed, Some("the guest trapped")),
            _ => {}
        }
        self.runs.lock().unwrap().insert(job.name, run.clone());
        run
    }
}

pub struct FakeRun {
    state: watch::Sender<JobState>,
    error: Mutex<Option<String>>,
    archive: Arc<FakeArchive>,
    job: StoredJob,
    journal: Arc<Journal>,
}

impl FakeRun {
    pub fn enter(&self, state: JobState, error: Option<&str>) {
        *self.error.lock().unwrap() = error.map(str::to_owned);
        self.journal.state(*self.state.borrow(), state, error.map(str::to_owned));
        self.state.send_replace(state);
    }
}

impl RunningJob for FakeRun {
    fn status(&self) -> JobStatus {
        let task = TaskStatus {
            vertex: 0,
            index: 0,
            nodes: vec!["in".into(), "op".into()],
            records_in: 1_234_567,
            records_out: 1_234_000,
            busy: 0.25,
            backpressured: 0.0,
            idle: 0.75,
            watermark: Some(1_356_998_400_000),
            guests: Vec::new(),
        };
        let error = self.error.lock().unwrap().clone();
        JobStatus {
            state: *self.state.borrow(),
            attempt: 1,
            error,
            watermark: task.watermark,
            uptime_ms: 61_000,
            restored: None,
            tasks: vec![task],
        }
    }

    fn checkpoints(&self) -> Vec<CheckpointReport> {
        vec![CheckpointReport {
            checkpoint: 7,
            kind: CheckpointKind::Checkpoint,
            status: CheckpointStatus::Completed,
            duration_ms: 12,
            bytes: 3 << 20,
            inflight_bytes: 0,
            acknowledged: 2,
            tasks: 2,
            alignment_max_us: 100,
            sync_max_us: 50,
            async_max_us: 9_000,
            reason: None,
        }]
    }

    fn watch(&self) -> watch::Receiver<JobState> {
        self.state.subscribe()
    }

    fn savepoint(&self, stop: Option<StopMode>) -> BoxFuture<'static, Result<SavepointInfo, JobError>> {
        match self.job.source["savepoint"].as_str() {
            Some("fail") => {
                let error = JobError::new("take the savepoint", "the disk is full").remedy("make room");
                return futures::future::ready(Err(error)).boxed();
            }
            Some("hang") => return futures::future::pending().boxed(),
            _ => {}
        }
        let mut savepoints = self.archive.savepoints.lock().unwrap();
        let id = format!("sp-{}", savepoints.len() + 1);
        let info = SavepointInfo {
            path: format!("jobs/{}/savepoints/{id}", self.job.name),
            id,
            job: self.job.name.clone(),
            checkpoint: 8,
            created_ms: now_ms(),
            bytes: 2048,
        };
        savepoints.push(info.clone());
        if stop.is_some() {
            self.state.send_replace(JobState::Stopped);
        }
        futures::future::ready(Ok(info)).boxed()
    }

    fn why(&self) -> BoxFuture<'static, RunFacts> {
        let facts = RunFacts {
            at_ms: now_ms(),
            state: *self.state.borrow(),
            since_ms: now_ms(),
            attempt: 1,
            error: self.error.lock().unwrap().clone(),
            restart: None,
            start: None,
            tasks: Vec::new(),
            checkpoints: Vec::new(),
        };
        futures::future::ready(facts).boxed()
    }

    fn suspend(&self) {
        if self.job.source["suspend"] != "hang" {
            self.cancel();
        }
    }
    fn replay(&self, _: u64) {}

    fn cancel(&self) {
        if self.job.source["cancel"] != "hang" {
            self.state.send_replace(JobState::Cancelled);
        }
    }
}

#[derive(Default)]
pub struct FakeArchive {
    savepoints: Mutex<Vec<SavepointInfo>>,
    pub deleted: Mutex<Vec<(String, bool)>>,
    /// Deletions fail until this is taken back.
    pub refuse_delete: AtomicBool,
}

impl JobArchive for FakeArchive {
    fn savepoints<'a>(&'a self, job: &'a StoredJob) -> BoxFuture<'a, Result<Vec<SavepointInfo>, JobError>> {
        let all = self.savepoints.lock().unwrap().iter().filter(|it| it.job == job.name).cloned().collect();
        futures::future::ready(Ok(all)).boxed()
    }

    fn check_savepoint<'a>(
        &'a self,
        job: &'a StoredJob,
        from: &'a SavepointName,
    ) -> BoxFuture<'a, Result<SavepointCheck, JobError>> {
        let owner = from.job.as_deref().unwrap_or(&job.name);
        let is_there = self.savepoints.lock().unwrap().iter().any(|it| it.job == owner && it.id == from.savepoint);
        futures::future::ready(Ok(is_there.then(Vec::new))).boxed()
    }

    fn delete_savepoint<'a>(&'a self, job: &'a StoredJob, id: &'a str) -> BoxFuture<'a, Result<bool, JobError>> {
        let mut all = self.savepoints.lock().unwrap();
        let before = all.len();
        all.retain(|it| it.job != job.name || it.id != id);
        futures::future::ready(Ok(all.len() < before)).boxed()
    }

    fn delete_job<'a>(&'a self, job: &'a StoredJob, savepoints: bool) -> BoxFuture<'a, Result<(), JobError>> {
        if self.refuse_delete.load(Ordering::Relaxed) {
            return futures::future::ready(Err(JobError::new("delete checkpoints", "permission denied"))).boxed();
        }
        self.deleted.lock().unwrap().push((job.name.clone(), savepoints));
        futures::future::ready(Ok(())).boxed()
    }

    fn dead_letters<'a>(&'a self, _: &'a StoredJob, query: DeadLetterQuery) -> BoxFuture<'a, Result<DeadLetterPage, JobError>> {
        let Ok(end) = query.before.map_or(Ok(250u64), |before| before.parse()) else {
            return futures::future::ready(Err(JobError::new("read the dead letters", "no such place").asked_wrong())).boxed();
        };
        let first = end.saturating_sub(query.limit as u64);
        let letter = |record| DeadLetter {
            id: format!("{record}"),
            kind: "rejected".into(),
            processing_time_ms: now_ms(),
            operator: "op".into(),
            reason: "no such carrier".into(),
            split: Some("flights.csv".into()),
            record: Some(record),
            row: [("value".to_owned(), Value::from("XX,1"))].into_iter().collect(),
            ..Default::default()
        };
        let page = DeadLetterPage {
            dead_letters: (first..end).rev().map(letter).collect(),
            next: (first > 0).then(|| first.to_string()),
            unreadable: 0,
        };
        futures::future::ready(Ok(page)).boxed()
    }

    fn dead_letter<'a>(
        &'a self,
        _: &'a StoredJob,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<(DeadLetter, Option<Vec<u8>>)>, JobError>> {
        let letter = DeadLetter { id: id.to_owned(), kind: "trap".into(), operator: "op".into(), ..Default::default() };
        let value = (id != "tombstone").then(|| b"XX,1\xff".to_vec());
        futures::future::ready(Ok((id != "none").then_some((letter, value)))).boxed()
    }

    fn replay<'a>(
        &'a self,
        _: &'a StoredJob,
        request: ReplayRequest,
        _: bool,
    ) -> BoxFuture<'a, Result<(ReplayView, u64), ReplayError>> {
        let answer = match request.ids.first().map(String::as_str) {
            Some("none") => Err(ReplayError::NoLetter("none".into())),
            Some("replayed") => {
                Err(ReplayError::Refused { cause: "dead letter replayed was replayed".into(), remedy: "force it".into() })
            }
            _ => {
                let dry_run = request.dry_run;
                let request = (!dry_run).then_some(1);
                Ok((ReplayView { request, letters: 3, dry_run, ..ReplayView::default() }, 1))
            }
        };
        futures::future::ready(answer).boxed()
    }
}

/// Bytes that begin with `bad` are refused.
pub struct FakeInspector;

impl ModuleInspector for FakeInspector {
    fn inspect(&self, bytes: &[u8]) -> Result<ModuleInfo, ModuleError> {
        if bytes.starts_with(b"bad") {
            return Err(ModuleError {
                attempted: "look into the component".into(),
                cause: "it imports what an operator may not have".into(),
                remedy: Some("build it without sockets".into()),
                problems: vec![Problem::new("import", Some("wasi:sockets/tcp@0.2.0".into()), "is not allowed")],
                is_of_the_host: false,
            });
        }
        let description = ModuleDescription {
            world: "processor".into(),
            imports: vec!["tidegate:streaming/state@0.1.0".into()],
            operator: OperatorDescription {
                name: "op".into(),
                version: "1".into(),
                inputs: 1,
                keyed: true,
                outputs: vec!["out".into()],
            },
            states: vec![],
            compile_ms: 3,
        };
        Ok(ModuleInfo { description, compiled: b"compiled".to_vec() })
    }

    fn engine_version(&self) -> String {
        "fake-1".into()
    }
}

/// A host on `data`, with the doubles it is made of.
pub async fn open(data: &Path) -> (JobManager, Arc<FakeRuntime>) {
    open_with(data, Arc::default()).await
}

pub async fn open_with(data: &Path, archive: Arc<FakeArchive>) -> (JobManager, Arc<FakeRuntime>) {
    open_as(data, archive, Resume::All).await
}

/// As `tidegate run` has it.
pub async fn open_foreground(data: &Path) -> (JobManager, Arc<FakeRuntime>) {
    open_as(data, Arc::default(), Resume::None).await
}

async fn open_as(data: &Path, archive: Arc<FakeArchive>, resume: Resume) -> (JobManager, Arc<FakeRuntime>) {
    let runtime = Arc::new(FakeRuntime { archive: archive.clone(), ..Default::default() });
    let parts = Parts {
        runtime: runtime.clone(),
        archive,
        modules: ModuleStore::with_limit(&data.join("modules"), Arc::new(FakeInspector), 1 << 16).unwrap(),
        jobs: JobStore::open(&data.join("jobs")).unwrap(),
        metrics: Arc::default(),
        base: data.to_owned(),
        resume,
        folder: None,
    };
    (JobManager::open(parts).await.unwrap(), runtime)
}
