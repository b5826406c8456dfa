//! Jobs as the job manager sees them: checked, started, watched, stopped.

use super::archive::savepoint_info;
use super::drive::savepoint_id;
use super::plan::{Code, JobPlan, MakeNative, OperatorCode};
use super::status::JobShared;
use super::supervisor::Supervisor;
use super::{Command, restore, why};
use crate::api::{CheckpointReport, JobStatus, RunFacts, SavepointInfo, StartFrom};
use crate::checkpoint_store::{CheckpointStore, Incarnations, StoreError};
use crate::connector::{ConnectorContext, catalog};
use crate::fault::io_step::IoSteps;
use crate::job_manager::{CheckedJob, JobError, JobRuntime, RunningJob};
use crate::job_store::StoredJob;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::module_store::ModuleStore;
use crate::task::snapshot::explain;
use crate::wasm::engine::WasmEngine;
use crate::wasm::inspect;
use crate::wasm::instance::LoadedModule;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_core::checkpoint::StopMode;
use tidegate_core::job_graph::spec::{JobSpec, SinkSpec, SourceSpec};
use tidegate_core::job_graph::validate::{JobFacts, ModuleFacts, SinkFacts, SourceFacts, check_job};
use tidegate_core::job_state::{JobEvent, JobState};
use tidegate_core::problem::Problem;
use tidegate_core::state_schema::StateDeclaration;
use tokio::sync::{mpsc, oneshot, watch};

/// An operator that is compiled into the host, under a module reference of its own.
#[derive(Clone)]
pub struct NativeModule {
    pub facts: ModuleFacts,
    pub make: MakeNative,
}

pub struct Runtime {
    engine: WasmEngine,
    modules: ModuleStore,
    /// The data folder: what a job stores lies below `jobs/<name>`.
    root: PathBuf,
    metrics: Arc<Metrics>,
    natives: BTreeMap<String, NativeModule>,
    loaded: Mutex<HashMap<String, LoadedModule>>,
    io_steps: Option<IoSteps>,
    amnesia: bool,
}

impl Runtime {
    pub fn new(engine: WasmEngine, modules: ModuleStore, root: &Path, metrics: Arc<Metrics>) -> Self {
        let (natives, loaded) = (BTreeMap::new(), Mutex::default());
        Self { engine, modules, root: root.to_owned(), metrics, natives, loaded, io_steps: None, amnesia: false }
    }

    /// Jobs run with a new instance for every call of a guest.
    pub fn with_amnesia(mut self, amnesia: bool) -> Self {
        self.amnesia = amnesia;
        self
    }

    pub fn with_native(mut self, reference: &str, module: NativeModule) -> Self {
        self.natives.insert(reference.to_owned(), module);
        self
    }

    /// Every call of this runtime's jobs that leaves the process is a step of one incarnation: for tests that let it go wrong.
    pub fn with_io_steps(mut self, steps: IoSteps) -> Self {
        self.io_steps = Some(steps);
        self
    }

    pub fn open_store(&self, job: &str) -> Result<CheckpointStore, StoreError> {
        let store = CheckpointStore::open_local(&self.root, job)?;
        Ok(match &self.io_steps {
            Some(steps) => store.stepped(steps),
            None => store,
        })
    }

    pub fn folder(&self, job: &str) -> PathBuf {
        self.root.join("jobs").join(job)
    }

    /// The module's machine code: from memory, from the cache, or compiled anew.
    fn load(&self, reference: &str, digest: &str) -> Result<LoadedModule, String> {
        if let Some(loaded) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest) {
            return Ok(loaded.clone());
        }
        let cached = self.modules.compiled(digest).map_err(|e| e.to_string())?;
        let component = match cached.and_then(|precompiled| inspect::load(&self.engine, &precompiled).ok()) {
            Some(component) => component,
            None => {
                let precompiled = self.modules.compile_again(digest).map_err(|e| e.to_string())?;
                inspect::load(&self.engine, &precompiled).map_err(|e| e.to_string())?
            }
        };
        let loaded = LoadedModule::new(&self.engine, &component, reference, digest).map_err(|e| e.to_string())?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.to_owned(), loaded.clone());
        Ok(loaded)
    }

    /// The job with its code at hand. Blocks: code may have to be compiled.
    fn plan(&self, job: &StoredJob) -> Result<JobPlan, String> {
        let mut operators = BTreeMap::new();
        for operator in &job.spec.operators {
            let reference = &operator.module;
            let facts = self.module(reference).map_err(|e| format!("operator {}: module {reference}: {e}", operator.name))?;
            let code = match self.natives.get(reference) {
                Some(native) => Code::Native(Arc::clone(&native.make)),
                None => Code::Wasm(self.load(reference, &facts.digest).map_err(|e| format!("module {reference}: {e}"))?),
            };
            let ModuleFacts { digest, keyed, outputs, states, .. } = facts;
            operators
                .insert(operator.name.clone(), OperatorCode { module: reference.clone(), digest, keyed, outputs, states, code });
        }
        let mut plan = JobPlan::new(job.spec.clone(), job.job_id.clone(), job.base.clone(), operators);
        plan.io_steps = self.io_steps.clone();
        plan.amnesia = self.amnesia;
        Ok(plan)
    }

    /// What the modules of a job's operators declare. Those that can't be found are left out: the start will name them.
    pub fn declared_states(&self, spec: &JobSpec) -> BTreeMap<String, Vec<StateDeclaration>> {
        let facts = |module: &str| self.module(module).ok().map(|facts| facts.states);
        spec.operators.iter().filter_map(|operator| Some((operator.name.clone(), facts(&operator.module)?))).collect()
    }

    /// A run with more to see than the job manager asks for.
    pub fn launch(self: &Arc<Self>, job: StoredJob, from: StartFrom) -> Arc<JobRun> {
        self.launch_with(job, from, Arc::default())
    }

    pub fn launch_with(self: &Arc<Self>, job: StoredJob, from: StartFrom, journal: Arc<Journal>) -> Arc<JobRun> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(JobShared::new(&job.name, self.metrics.job(&job.name), journal));
        let run = Arc::new(JobRun {
            runtime: Arc::clone(self),
            job: job.name.clone(),
            folder: self.folder(&job.name),
            shared: Arc::clone(&shared),
            commands,
        });
        let runtime = Arc::clone(self);
        tokio::spawn(async move {
            let (name, start) =
                (job.name.clone(), restore::Start { id: job.start.id.clone(), from, allow_step_back: job.start.allow_step_back });
            let prepared = tokio::task::spawn_blocking(move || {
                let plan = runtime.plan(&job)?;
                let folder = runtime.folder(&job.name);
                let store = runtime.open_store(&job.name).map_err(|e| explain(&e))?;
                Ok::<_, String>((plan, folder, store, Arc::clone(&runtime.metrics)))
            });
            let prepared = prepared.await.unwrap_or_else(|e| Err(format!("preparing the job panicked: {e}")));
            match prepared {
                Ok((plan, folder, store, metrics)) => {
                    let plan = Arc::new(plan);
                    Supervisor {
                        plan,
                        folder,
                        store,
                        metrics,
                        shared,
                        commands: inbox,
                        start,
                        incarnations: Incarnations::default(),
                    }
                    .run()
                    .await;
                }
                Err(reason) => {
                    tracing::error!(job = %name, %reason, "job can't be started");
                    shared.event(JobEvent::StartRequested);
                    shared.failed(&reason);
                    shared.event(JobEvent::GaveUp);
                }
            }
        });
        run
    }
}

impl JobFacts for Runtime {
    fn module(&self, reference: &str) -> Result<ModuleFacts, String> {
        if let Some(native) = self.natives.get(reference) {
            return Ok(native.facts.clone());
        }
        let view = self.modules.resolve(reference).map_err(|e| e.to_string())?;
        let view =
            view.ok_or_else(|| format!("{reference} is not there: push it with `tidegate module push {reference} FILE`"))?;
        let operator = view.description.operator;
        Ok(ModuleFacts {
            digest: view.digest,
            keyed: operator.keyed,
            inputs: operator.inputs,
            outputs: operator.outputs,
            states: view.description.states,
        })
    }

    fn source(&self, source: &SourceSpec) -> (Vec<Problem>, Option<SourceFacts>) {
        let context = ConnectorContext::for_check(&source.name);
        match catalog::build_source(source, &context) {
            Ok(built) => (Vec::new(), Some(SourceFacts { replayable: built.is_replayable() })),
            Err(problems) => (problems, None),
        }
    }

    fn sink(&self, sink: &SinkSpec) -> (Vec<Problem>, Option<SinkFacts>) {
        let context = ConnectorContext::for_check(&sink.name);
        match catalog::build_sink(sink, &context) {
            Ok(built) => (Vec::new(), Some(SinkFacts { strongest: built.strongest() })),
            Err(problems) => (problems, None),
        }
    }
}

/// The runtime with a handle on itself: runs keep it alive.
#[derive(Clone)]
pub struct SharedRuntime(pub Arc<Runtime>);

impl JobRuntime for SharedRuntime {
    fn check(&self, spec: &serde_json::Value) -> Result<CheckedJob, Vec<Problem>> {
        let spec = check_job(spec, &*self.0)?;
        let digest = |reference: &str| self.0.module(reference).map(|facts| facts.digest).unwrap_or_default();
        let modules = spec.operators.iter().map(|operator| (operator.name.clone(), digest(&operator.module))).collect();
        Ok(CheckedJob { spec, modules })
    }

    fn start(&self, job: StoredJob, from: StartFrom, journal: Arc<Journal>) -> Arc<dyn RunningJob> {
        self.0.launch_with(job, from, journal)
    }
}

/// One run of a job.
pub struct JobRun {
    runtime: Arc<Runtime>,
    job: String,
    folder: PathBuf,
    shared: Arc<JobShared>,
    commands: mpsc::UnboundedSender<Command>,
}

impl JobRun {
    pub fn shared(&self) -> &JobShared {
        &self.shared
    }
}

impl RunningJob for JobRun {
    fn status(&self) -> JobStatus {
        self.shared.status()
    }

    fn checkpoints(&self) -> Vec<CheckpointReport> {
        self.shared.checkpoints()
    }

    fn watch(&self) -> watch::Receiver<JobState> {
        self.shared.watch()
    }

    fn savepoint(&self, stop: Option<StopMode>) -> BoxFuture<'static, Result<SavepointInfo, JobError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Savepoint { stop, reply });
        let (job, folder, store) = (self.job.clone(), self.folder.clone(), self.runtime.open_store(&self.job));
        Box::pin(async move {
            let failed = |cause: String| JobError::new(format!("take a savepoint of {job}"), cause);
            sent.map_err(|_| failed("the job has ended".to_owned()))?;
            let pointer = answer.await.map_err(|_| failed("the job has ended".to_owned()))?.map_err(failed)?;
            let store = store.map_err(|e| failed(explain(&e)))?;
            let savepoint = store.read_savepoint(&savepoint_id(pointer.checkpoint)).await.map_err(|e| failed(explain(&e)))?;
            Ok(savepoint_info(&job, &folder, &savepoint))
        })
    }

    fn why(&self) -> BoxFuture<'static, RunFacts> {
        let (shared, commands) = (Arc::clone(&self.shared), self.commands.clone());
        Box::pin(async move { why::facts(&shared, commands).await })
    }

    fn suspend(&self) {
        // A run that has ended has nothing to go down with.
        let _ = self.commands.send(Command::Suspend);
    }

    fn replay(&self, known: u64) {
        // A run that has ended reads the log when it starts again.
        let _ = self.commands.send(Command::Replay(known));
    }

    fn cancel(&self) {
        // A run that has ended has nothing to cancel.
        let _ = self.commands.send(Command::Cancel);
    }
}
