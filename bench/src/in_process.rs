//! Workloads in the runtime itself, in this process: what is measured is the engine, without a server beside it.
//!
//! A run by records ends with its input; a run by time ends with a savepoint, whose positions say how many records of each split
//! are in the output.

use crate::engine::{Engine, EngineError, Measured};
use crate::job::{self, Sink};
use crate::measure::{Progress, Stopwatch, Usage};
use crate::native;
use crate::plan::{Bound, EngineName, Format, RunPlan};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate::api::{DesiredState, StartFrom};
use tidegate::connector::blackhole;
use tidegate::job::inspector::Inspector;
use tidegate::job::runtime::{JobRun, Runtime, SharedRuntime};
use tidegate::job_manager::{JobRuntime, RunningJob};
use tidegate::job_store::{JOB_FORMAT, StartIntent, StoredJob};
use tidegate::metrics::Metrics;
use tidegate::module_store::ModuleStore;
use tidegate::wasm::engine::WasmEngine;
use tidegate_core::checkpoint::{CheckpointStatus, Manifest, StopMode};
use tidegate_core::job_state::JobState;

const MODULE: (&str, &str) = ("bench-operator", "0.1.0");
const TICK: Duration = Duration::from_millis(20);

pub struct InProcess {
    engine: EngineName,
}

impl InProcess {
    pub fn new(engine: EngineName) -> Self {
        Self { engine }
    }
}

fn failed(attempted: &str) -> impl Fn(String) -> EngineError + '_ {
    move |cause| EngineError::new(attempted, cause)
}

impl Engine for InProcess {
    fn run(&self, plan: &RunPlan, progress: &mut Progress) -> Result<Measured, EngineError> {
        if self.engine == EngineName::Native && plan.format == Format::Json {
            return Err(EngineError::new("running native on json", "its operators read the binary form: use --format rows"));
        }
        let folder = tempfile::tempdir().map_err(|e| EngineError::new("making a folder", e))?;
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let tokio = tokio.map_err(|e| EngineError::new("starting tokio", e))?;
        let runtime = self.runtime(plan, folder.path(), progress)?;
        let stored = store(plan, &runtime, folder.path())?;
        blackhole::forget(job::NAME);
        let measured = tokio.block_on(measure(plan, &runtime, stored, folder.path(), progress));
        tokio.shutdown_timeout(Duration::from_secs(10));
        measured
    }
}

impl InProcess {
    fn runtime(&self, plan: &RunPlan, folder: &Path, progress: &mut Progress) -> Result<SharedRuntime, EngineError> {
        let engine = WasmEngine::new().map_err(|e| EngineError::new("making the wasm engine", e))?;
        let modules = ModuleStore::open(&folder.join("modules"), Arc::new(Inspector::new(engine.clone())));
        let modules = modules.map_err(|e| EngineError::new("opening the module store", e))?;
        let mut runtime = Runtime::new(engine, modules.clone(), folder, Arc::new(Metrics::default()));
        if let Some(package) = job::package(plan.workload) {
            match self.engine {
                EngineName::Native => runtime = runtime.with_native(&reference(), native::module(plan)),
                EngineName::Tidegate => {
                    progress.phase("building the operator");
                    let path = guest_build::try_component(package).map_err(|e| EngineError::new("building the operator", e))?;
                    let bytes = std::fs::read(path).map_err(|e| EngineError::new("reading the operator", e))?;
                    modules.push(MODULE.0, MODULE.1, &bytes).map_err(|e| EngineError::new("storing the operator", e))?;
                }
            }
        }
        Ok(SharedRuntime(Arc::new(runtime)))
    }
}

fn reference() -> String {
    format!("{}@{}", MODULE.0, MODULE.1)
}

fn store(plan: &RunPlan, runtime: &SharedRuntime, folder: &Path) -> Result<StoredJob, EngineError> {
    let source = job::spec(plan, &reference(), Sink::Blackhole);
    let checked = runtime.check(&source).map_err(|problems| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        EngineError::new("checking the job", problems.join("; "))
    })?;
    Ok(StoredJob {
        format: JOB_FORMAT,
        name: job::NAME.into(),
        job_id: "bench000000000000".into(),
        source,
        spec: checked.spec,
        modules: checked.modules,
        base: folder.to_owned(),
        desired: DesiredState::Running,
        start: StartIntent::new(StartFrom::Latest),
        created_ms: 0,
        changed_ms: 0,
        ended: None,
        deleting: None,
    })
}

async fn measure(
    plan: &RunPlan,
    runtime: &SharedRuntime,
    stored: StoredJob,
    folder: &Path,
    progress: &mut Progress,
) -> Result<Measured, EngineError> {
    let run = runtime.0.launch(stored, StartFrom::Latest);
    wait_for(&run, JobState::Running).await?;
    let watch = Stopwatch::start().map_err(|e| EngineError::new("reading the clock", e))?;
    let mut rss_bytes = 0;
    let records_by_split = loop {
        tokio::time::sleep(TICK).await;
        rss_bytes = rss_bytes.max(Usage::of_this_process().map_or(0, |usage| usage.rss_bytes));
        progress.records(source_records(&run));
        let (seconds, _) = watch.read().map_err(|e| EngineError::new("reading the clock", e))?;
        match plan.bound {
            Bound::Seconds(bound) if seconds >= bound => break None,
            _ if run.watch().borrow().is_terminal() => break Some(()),
            _ => {}
        }
    };
    let (mut seconds, mut cpu_seconds) = watch.read().map_err(|e| EngineError::new("reading the clock", e))?;
    let manifest = match records_by_split {
        Some(()) => wait_for(&run, JobState::Finished).await.and_then(|()| last_manifest(folder))?,
        None => {
            let savepoint =
                run.savepoint(Some(StopMode { drain: false })).await.map_err(|e| EngineError::new("stopping the job", e))?;
            (seconds, cpu_seconds) = watch.read().map_err(|e| EngineError::new("reading the clock", e))?;
            read_manifest(&Path::new(&savepoint.path).join("manifest.json"))?
        }
    };
    let checkpoints: Vec<_> =
        run.checkpoints().into_iter().filter(|report| report.status == CheckpointStatus::Completed).collect();
    Ok(Measured {
        records_by_split: positions(&manifest)?,
        seconds,
        cpu_seconds,
        checkpoints: Some(checkpoints.len() as u64),
        checkpoint_ms: checkpoints.iter().map(|report| report.duration_ms as f64).collect(),
        stall_ms: run.shared().stalls_us().iter().map(|us| *us as f64 / 1e3).collect(),
        rss_bytes: Some(rss_bytes),
        digest: blackhole::counters(job::NAME, job::SINK).and_then(|counters| counters.digest()),
        ..Measured::default()
    })
}

fn source_records(run: &JobRun) -> u64 {
    run.status()
        .tasks
        .iter()
        .filter(|task| task.nodes.first().is_some_and(|node| node == job::SOURCE))
        .map(|task| task.records_in)
        .sum()
}

async fn wait_for(run: &JobRun, wanted: JobState) -> Result<(), EngineError> {
    let mut watch = run.watch();
    let reached = watch.wait_for(|state| *state == wanted || state.is_terminal()).await.map(|state| *state);
    match reached {
        Ok(state) if state == wanted || state == JobState::Finished => Ok(()),
        Ok(state) => {
            Err(EngineError::new("running the job", format!("it is {state}: {}", run.status().error.unwrap_or_default())))
        }
        Err(gone) => Err(EngineError::new("running the job", gone)),
    }
}

/// Of the newest checkpoint.
fn last_manifest(folder: &Path) -> Result<Manifest, EngineError> {
    let manifests = folder.join("jobs").join(job::NAME).join("manifests");
    let reading = failed("looking for the last checkpoint");
    let entries = std::fs::read_dir(&manifests).map_err(|e| reading(e.to_string()))?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let newest = paths
        .map(|path| read_manifest(&path))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .max_by_key(|manifest| manifest.checkpoint);
    newest.ok_or_else(|| reading(format!("{} is empty", manifests.display())))
}

fn read_manifest(path: &Path) -> Result<Manifest, EngineError> {
    let bytes = std::fs::read(path).map_err(|e| EngineError::new(format!("reading {}", path.display()), e))?;
    serde_json::from_slice(&bytes).map_err(|e| EngineError::new(format!("reading {}", path.display()), e))
}

/// Records made by each split, by the split's number.
fn positions(manifest: &Manifest) -> Result<Vec<u64>, EngineError> {
    let splits =
        manifest.sources.get(job::SOURCE).ok_or_else(|| EngineError::new("reading positions", "no source in the manifest"))?;
    let by_split: BTreeMap<u64, u64> = splits
        .iter()
        .map(|split| {
            // Named `s/N`; the position is the number of events it has made.
            let number = split.split.split_once('/').and_then(|(number, _)| number.parse().ok());
            number
                .map(|number| (number, split.record))
                .ok_or_else(|| EngineError::new("reading positions", format!("split {}", split.split)))
        })
        .collect::<Result<_, _>>()?;
    Ok(by_split.into_values().collect())
}
