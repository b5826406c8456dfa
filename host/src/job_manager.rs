//! The one handle through which HTTP and CLI reach modules and jobs. Cheap to clone.
//!
//! It keeps what users want (the job store) and what happens (runs of the runtime) together:
//!
//! ```text
//!  create/start ─► job.json: desired = running, start intent ─► runtime.start ─► follow the run
//!  stop ─► job.json: desired = stopped ─► run.cancel            (a stop with a savepoint: savepoint first)
//!  run finished or failed ─► job.json: desired = stopped, how it ended
//!  host comes up ─► every job with desired = running is started again
//! ```
//!
//! Invariants:
//! * what the user asked for is durable before it takes effect, so a crash in between is carried on by the next host;
//! * a job has at most one run that has not ended, and a late report of an older run changes nothing (its start id tells);
//! * writes of one job's file happen one after the other, and memory changes when the disk has;
//! * a caller who goes away (a closed connection) does not leave a change half made: changes run in tasks of their own;
//! * a module can't be deleted while a stored job names it, nor a job be created while its module goes.

mod error;
#[cfg(test)]
pub(crate) mod fake;
mod lifecycle;
mod operation;
mod runtime;
#[cfg(test)]
mod tests;

pub use crate::api::{CheckpointReport, JobState, JobStatus, SavepointInfo, StartFrom};
pub use crate::job_store::{StartIntent, StoredJob};
pub use error::ManagerError;
pub use operation::Waiter;
pub use runtime::{CheckedJob, JobArchive, JobError, JobRuntime, ReplayError, RunningJob, SavepointCheck};
pub use tidegate_core::checkpoint::StopMode;

use crate::api::{
    DeadLetter, DeadLetterPage, DeadLetterQuery, DesiredState, GraphEdge, GraphNode, JobGraph, JobView, JobWhy, ModuleView,
    NodeKind, OperationView, ReplayRequest, ReplayView, RunFacts, now_ms,
};
use crate::data_folder::DataFolder;
use crate::job_store::{JobStore, Unreadable};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::module_store::ModuleStore;
use operation::Operations;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use tidegate_core::diagnosis;
use tidegate_core::job_graph::spec::{JobSpec, PortRef};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Compilers at work at once: one uses all cores for a while, and a queue of uploads must not starve the jobs.
const COMPILING_MAX: usize = 1;

/// What a manager is made of.
pub struct Parts {
    pub runtime: Arc<dyn JobRuntime>,
    pub archive: Arc<dyn JobArchive>,
    pub modules: ModuleStore,
    pub jobs: JobStore,
    pub metrics: Arc<Metrics>,
    /// Relative paths in jobs that are created from now on are relative to this folder. Absolute.
    pub base: PathBuf,
    pub resume: Resume,
    /// Held until the end of the host.
    pub folder: Option<DataFolder>,
}

/// Which of the stored jobs start when the manager opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// All that are to run: a server.
    All,
    /// None: a job in the foreground, which must not bring its neighbours to life. `start` carries on what was asked for.
    None,
}

#[derive(Clone)]
pub struct JobManager {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    jobs: RwLock<BTreeMap<String, Arc<Job>>>,
    unreadable: Vec<Unreadable>,
    /// Held while the set of jobs changes, or that of modules shrinks.
    changing: tokio::sync::Mutex<()>,
    compiling: Semaphore,
    ready: AtomicBool,
    shutting_down: AtomicBool,
}

struct Job {
    slot: Mutex<Slot>,
    /// One write of the job's file at a time.
    writes: tokio::sync::Mutex<()>,
    /// One decision about the job's life at a time. Never held for as long as a run takes to end, but by a delete.
    transition: tokio::sync::Mutex<()>,
    operations: Operations,
    /// Over all runs, for as long as this host lives.
    journal: Arc<Journal>,
}

struct Slot {
    stored: StoredJob,
    /// The last run in this host, ended or not.
    run: Option<Run>,
    /// Writes down what becomes of that run, and ends with it.
    follower: Option<JoinHandle<()>>,
    /// The file is deleted: nobody may write it again.
    gone: bool,
}

#[derive(Clone)]
struct Run {
    /// Of the start intent that it began with.
    start: String,
    handle: Arc<dyn RunningJob>,
}

impl Job {
    fn new(stored: StoredJob) -> Arc<Self> {
        let journal = Arc::new(Journal::default());
        Arc::new(Self {
            slot: Mutex::new(Slot { stored, run: None, follower: None, gone: false }),
            writes: Default::default(),
            transition: Default::default(),
            operations: Operations::new(journal.clone()),
            journal,
        })
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn stored(&self) -> StoredJob {
        self.slot().stored.clone()
    }

    /// The run, if it has not ended.
    fn active(&self) -> Option<Run> {
        self.slot().run.clone().filter(|run| !run.handle.watch().borrow().is_terminal())
    }

    fn view(&self, with_spec: bool) -> JobView {
        let (stored, run) = {
            let slot = self.slot();
            (slot.stored.clone(), slot.run.clone())
        };
        let status = match (run, &stored.ended) {
            (Some(run), _) => run.handle.status(),
            (None, Some(ended)) => JobStatus::ended(ended.state, ended.error.clone()),
            (None, None) => JobStatus::ended(JobState::Created, None),
        };
        JobView {
            name: stored.name,
            job_id: stored.job_id,
            desired: stored.desired,
            status,
            modules: stored.modules,
            created_ms: stored.created_ms,
            changed_ms: stored.changed_ms,
            ended: stored.ended,
            spec: with_spec.then_some(stored.source),
        }
    }
}

/// What a PUT of a job came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Created,
    Replaced,
    Unchanged,
}

impl JobManager {
    /// Reads what is stored and starts what is to run.
    pub async fn open(parts: Parts) -> Result<Self, ManagerError> {
        assert!(parts.base.is_absolute(), "BUG: relative base folder {}", parts.base.display());
        let store = parts.jobs.clone();
        let loaded = blocking("read the stored jobs", move || Ok(store.load()?)).await?;
        for unreadable in &loaded.unreadable {
            tracing::error!(job = %unreadable.name, path = %unreadable.path.display(), cause = %unreadable.cause, "job can't be read");
        }
        let jobs = loaded.jobs.into_iter().map(|stored| (stored.name.clone(), Job::new(stored))).collect();
        let manager = Self {
            inner: Arc::new(Inner {
                parts,
                jobs: RwLock::new(jobs),
                unreadable: loaded.unreadable,
                changing: Default::default(),
                compiling: Semaphore::new(COMPILING_MAX),
                ready: AtomicBool::new(false),
                shutting_down: AtomicBool::new(false),
            }),
        };
        if manager.inner.parts.resume == Resume::All {
            manager.resume().await;
        }
        manager.inner.ready.store(true, Ordering::Release);
        Ok(manager)
    }

    /// All stored jobs are started, and the host is not going down.
    pub fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire) && !self.inner.shutting_down.load(Ordering::Acquire)
    }

    pub fn engine(&self) -> &str {
        self.inner.parts.modules.engine()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.inner.parts.metrics
    }

    pub fn module_bytes_max(&self) -> usize {
        self.inner.parts.modules.bytes_max()
    }

    /// The page for Prometheus.
    pub fn metrics_page(&self) -> String {
        let states: Vec<_> = self.all().iter().map(|job| job.view(false)).map(|view| (view.name, view.status.state)).collect();
        self.inner.parts.metrics.render(&states)
    }

    // ---- modules --------------------------------------------------------------------------------------------------------------

    /// `true`: the version is new.
    pub async fn push_module(
        &self,
        name: &str,
        version: &str,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<(ModuleView, bool), ManagerError> {
        self.refuse_when_shutting_down()?;
        let (this, name, version) = (self.clone(), name.to_owned(), version.to_owned());
        detached("push the module", async move {
            let _compiler = this.inner.compiling.acquire().await.expect("BUG: nobody closes this semaphore");
            let modules = this.inner.parts.modules.clone();
            blocking("push the module", move || Ok(modules.push(&name, &version, bytes.as_ref())?)).await
        })
        .await
    }

    pub async fn modules(&self) -> Result<Vec<ModuleView>, ManagerError> {
        let modules = self.inner.parts.modules.clone();
        blocking("list modules", move || Ok(modules.list()?)).await
    }

    pub async fn module(&self, name: &str, version: &str) -> Result<ModuleView, ManagerError> {
        let (modules, name, version) = (self.inner.parts.modules.clone(), name.to_owned(), version.to_owned());
        blocking("look a module up", move || modules.get(&name, &version)?.ok_or_else(|| no_module(&name, &version))).await
    }

    pub async fn delete_module(&self, name: &str, version: &str) -> Result<(), ManagerError> {
        let (this, name, version) = (self.clone(), name.to_owned(), version.to_owned());
        detached("delete the module", async move {
            let _changing = this.inner.changing.lock().await;
            let reference = format!("{name}@{version}");
            let users: Vec<String> =
                this.all().iter().map(|job| job.stored()).filter(|job| uses(&job.spec, &reference)).map(|job| job.name).collect();
            if !users.is_empty() {
                return Err(ManagerError::Conflict {
                    attempted: format!("delete the module {reference}"),
                    cause: format!("used by {}", users.join(", ")),
                    remedy: "delete these jobs or let them use another version".into(),
                });
            }
            let modules = this.inner.parts.modules.clone();
            blocking("delete the module", move || match modules.delete(&name, &version)? {
                true => Ok(()),
                false => Err(no_module(&name, &version)),
            })
            .await
        })
        .await
    }

    // ---- jobs: questions ---------------------------------------------------------------------------------------------------

    /// By name, without their specs.
    pub fn jobs(&self) -> Vec<JobView> {
        self.all().iter().map(|job| job.view(false)).collect()
    }

    pub fn show(&self, name: &str) -> Result<JobView, ManagerError> {
        Ok(self.find(name)?.view(true))
    }

    /// States of the run that is under way, or was last.
    pub fn watch(&self, name: &str) -> Result<Option<watch::Receiver<JobState>>, ManagerError> {
        Ok(self.find(name)?.slot().run.as_ref().map(|run| run.handle.watch()))
    }

    /// Of the last run in this host, newest last.
    pub fn checkpoints(&self, name: &str) -> Result<Vec<CheckpointReport>, ManagerError> {
        let run = self.find(name)?.slot().run.clone();
        Ok(run.map(|run| run.handle.checkpoints()).unwrap_or_default())
    }

    /// What the job waits for, and since when; of the last run in this host.
    pub async fn why(&self, name: &str) -> Result<JobWhy, ManagerError> {
        let job = self.find(name)?;
        let run = job.slot().run.clone();
        let facts = match run {
            Some(run) => run.handle.why().await,
            None => {
                let JobView { status, changed_ms, ended, .. } = job.view(false);
                RunFacts {
                    at_ms: now_ms(),
                    state: status.state,
                    since_ms: ended.map_or(changed_ms, |ended| ended.at_ms),
                    attempt: 0,
                    error: status.error,
                    restart: None,
                    start: None,
                    tasks: Vec::new(),
                    checkpoints: Vec::new(),
                }
            }
        };
        Ok(JobWhy { job: name.to_owned(), diagnosis: diagnosis::diagnosis(&facts), facts })
    }

    /// What happened to the job and what its guests said, since this host came up.
    pub fn journal(&self, name: &str) -> Result<Arc<Journal>, ManagerError> {
        Ok(self.find(name)?.journal.clone())
    }

    /// Where it stands now.
    pub fn state(&self, name: &str) -> Result<JobState, ManagerError> {
        Ok(self.find(name)?.view(false).status.state)
    }

    pub fn graph(&self, name: &str) -> Result<JobGraph, ManagerError> {
        let job = self.find(name)?;
        let view = job.view(false);
        Ok(graph(&job.stored().spec, &view.status))
    }

    pub fn operations(&self, name: &str) -> Result<Vec<OperationView>, ManagerError> {
        Ok(self.find(name)?.operations.list())
    }

    pub fn operation(&self, name: &str, id: &str) -> Result<Waiter, ManagerError> {
        let missing = || ManagerError::NotFound { what: "operation (a host forgets them when it ends)", name: id.to_owned() };
        self.find(name)?.operations.find(id).ok_or_else(missing)
    }

    pub async fn savepoints(&self, name: &str) -> Result<Vec<SavepointInfo>, ManagerError> {
        let stored = self.find(name)?.stored();
        Ok(self.inner.parts.archive.savepoints(&stored).await?)
    }

    pub async fn delete_savepoint(&self, name: &str, id: &str) -> Result<(), ManagerError> {
        let (this, stored, id) = (self.clone(), self.find(name)?.stored(), id.to_owned());
        if stored.start.from == StartFrom::savepoint(&id) && stored.desired == DesiredState::Running {
            return Err(ManagerError::Conflict {
                attempted: format!("delete the savepoint `{id}`"),
                cause: "the job is starting from it".into(),
                remedy: "wait until the job is running".into(),
            });
        }
        detached("delete the savepoint", async move {
            match this.inner.parts.archive.delete_savepoint(&stored, &id).await? {
                true => Ok(()),
                false => Err(ManagerError::NotFound { what: "savepoint", name: id }),
            }
        })
        .await
    }

    pub async fn dead_letters(&self, name: &str, query: DeadLetterQuery) -> Result<DeadLetterPage, ManagerError> {
        let stored = self.find(name)?.stored();
        Ok(self.inner.parts.archive.dead_letters(&stored, query).await?)
    }

    pub async fn dead_letter(&self, name: &str, id: &str) -> Result<(DeadLetter, Option<Vec<u8>>), ManagerError> {
        let stored = self.find(name)?.stored();
        let found = self.inner.parts.archive.dead_letter(&stored, id).await?;
        found.ok_or_else(|| ManagerError::NotFound { what: "dead letter", name: id.chars().take(80).collect() })
    }

    /// Dead letters go back into the job, or (`discard`) are done with. Durable when it answers; a job that does not run reads them when
    /// it starts.
    pub async fn replay(&self, name: &str, request: ReplayRequest, discard: bool) -> Result<ReplayView, ManagerError> {
        self.refuse_when_shutting_down()?;
        let (this, job) = (self.clone(), self.find(name)?);
        detached("replay dead letters", async move {
            // A job that is being deleted, or replaced, has nothing to replay into.
            let _transition = job.transition.lock().await;
            let stored = job.stored();
            let attempted = format!("{} dead letters of {}", if discard { "discard" } else { "replay" }, stored.name);
            let (mut view, known) = match this.inner.parts.archive.replay(&stored, request, discard).await {
                Ok(done) => done,
                Err(ReplayError::NoLetter(id)) => return Err(ManagerError::NotFound { what: "dead letter", name: id }),
                Err(ReplayError::Refused { cause, remedy }) => return Err(ManagerError::Conflict { attempted, cause, remedy }),
                Err(ReplayError::Job(error)) => return Err(error.into()),
            };
            match job.active() {
                Some(run) if view.request.is_some() => run.handle.replay(known),
                Some(_) => {}
                None => view.waits_for_start = view.request.is_some() && !discard,
            }
            Ok(view)
        })
        .await
    }

    // ---- within ---------------------------------------------------------------------------------------------------------------

    fn all(&self) -> Vec<Arc<Job>> {
        self.inner.jobs.read().unwrap_or_else(|poisoned| poisoned.into_inner()).values().cloned().collect()
    }

    fn find(&self, name: &str) -> Result<Arc<Job>, ManagerError> {
        if let Some(unreadable) = self.inner.unreadable.iter().find(|it| it.name == name) {
            return Err(ManagerError::Unreadable {
                path: unreadable.path.display().to_string(),
                cause: unreadable.cause.clone(),
            });
        }
        let jobs = self.inner.jobs.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        jobs.get(name).cloned().ok_or_else(|| ManagerError::NotFound { what: "job", name: name.chars().take(80).collect() })
    }

    fn refuse_when_shutting_down(&self) -> Result<(), ManagerError> {
        if self.inner.shutting_down.load(Ordering::Acquire) { Err(ManagerError::ShuttingDown) } else { Ok(()) }
    }
}

fn no_module(name: &str, version: &str) -> ManagerError {
    let name = format!("{name}@{version}").chars().take(160).collect();
    ManagerError::NotFound { what: "module", name }
}

fn uses(spec: &JobSpec, module: &str) -> bool {
    spec.operators.iter().any(|operator| operator.module == module)
}

/// Runs a change to its end, even if the caller goes away, and survives its panic.
async fn detached<T: Send + 'static>(
    what: &'static str,
    change: impl Future<Output = Result<T, ManagerError>> + Send + 'static,
) -> Result<T, ManagerError> {
    tokio::spawn(change).await.unwrap_or_else(|error| Err(ManagerError::Bug { attempted: what.into(), cause: error.to_string() }))
}

/// Off the threads that serve everyone: disk and compilers block.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, ManagerError> + Send + 'static,
) -> Result<T, ManagerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(ManagerError::Bug { attempted: what.into(), cause: error.to_string() }))
}

/// As written, with the chains of the run that is under way.
fn graph(spec: &JobSpec, status: &JobStatus) -> JobGraph {
    let vertex = |name: &str| status.tasks.iter().find(|task| task.nodes.iter().any(|node| node == name)).map(|task| task.vertex);
    let mut graph = JobGraph::default();
    let mut node = |name: &str, kind, runs: &str, parallelism| {
        graph.nodes.push(GraphNode { name: name.into(), kind, runs: runs.into(), parallelism, vertex: vertex(name) });
    };
    for source in &spec.sources {
        node(&source.name, NodeKind::Source, &source.connector, Some(source.parallelism));
    }
    for operator in &spec.operators {
        node(&operator.name, NodeKind::Operator, &operator.module, Some(operator.parallelism));
    }
    for sink in &spec.sinks {
        node(&sink.name, NodeKind::Sink, &sink.connector, sink.parallelism);
    }
    let mut edges = |to: &str, inputs: &[PortRef], keyed| {
        for input in inputs {
            graph.edges.push(GraphEdge { from: input.node.clone(), to: to.into(), port: input.port.clone(), keyed });
        }
    };
    for operator in &spec.operators {
        edges(&operator.name, &operator.inputs, operator.key.is_some());
    }
    for sink in &spec.sinks {
        edges(&sink.name, &sink.inputs, false);
    }
    graph
}
