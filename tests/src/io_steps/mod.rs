//! One small job in this process, with one of its calls to the outside gone wrong, as often as it takes: a run costs milliseconds, so
//! all calls can be tried.
//!
//! ```text
//!   incarnation 1 ─► step k: crash ─► incarnation 2 on the same folder ─► step j: crash ─► incarnation 3 ─► … ─► finished
//! ```
//!
//! Invariants:
//! * an incarnation shares nothing with the one before but the folder: another async runtime, another host, other stores;
//! * the next one begins when the calls under way at the death of the last one have come to their end, as after the death of a process;
//! * outputs are compared byte for byte, in order, for each task: only where one file ends and the next begins may differ, because
//!   checkpoints do not fall between the same records in every run.

pub mod enumerate;
mod native;
mod output;
mod shape;

pub use output::Output;
pub use shape::Shape;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tidegate::api::{DesiredState, StartFrom};
use tidegate::fault::io_step::{IoSteps, Trouble};
use tidegate::job::inspector::Inspector;
use tidegate::job::runtime::{Runtime, SharedRuntime};
use tidegate::job_manager::{JobRuntime, RunningJob};
use tidegate::job_store::{JOB_FORMAT, StartIntent, StoredJob};
use tidegate::metrics::Metrics;
use tidegate::module_store::ModuleStore;
use tidegate::wasm::engine::WasmEngine;
use tidegate_core::job_graph::spec::RestartSpec;
use tidegate_core::job_state::JobState;

/// For one incarnation. It needs some milliseconds; what takes longer hangs.
const LIFE_LIMIT: Duration = Duration::from_secs(60);
/// Batches between two checkpoints.
const BATCHES_PER_CHECKPOINT: u32 = 3;
const BATCH_ROWS: u32 = 20;

/// A job that is ready to be run any number of times.
pub struct Rig {
    pub shape: Shape,
    engine: WasmEngine,
    modules: ModuleStore,
    job: StoredJob,
    /// Input and modules, the same for all runs.
    _folder: TempDir,
}

/// How an incarnation came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Finished,
    Died,
    Failed(String),
    Hung(String),
}

#[derive(Debug)]
pub struct Life {
    pub end: End,
    /// The steps it took.
    pub names: Vec<&'static str>,
}

impl Life {
    /// Steps before the first record was read: the recovery. All of them where none was.
    pub fn recovery(&self) -> u64 {
        self.names.iter().position(|name| *name == "source: poll").unwrap_or(self.names.len()) as u64
    }
}

#[derive(Debug)]
pub struct Run {
    pub lives: Vec<Life>,
    pub output: Output,
}

impl Run {
    /// The last incarnation's.
    pub fn end(&self) -> &End {
        &self.lives.last().expect("there is one incarnation at least").end
    }
}

/// Memory, where there is a file system of it: what a disk costs is no part of this.
fn fast_folder() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("tidegate-steps-").tempdir_in(place).expect("a folder")
}

impl Rig {
    pub fn new(shape: Shape) -> Self {
        let folder = fast_folder();
        let engine = WasmEngine::new().expect("a wasm engine");
        let modules = ModuleStore::open(&folder.path().join("modules"), Arc::new(Inspector::new(engine.clone())));
        let modules = modules.expect("a module store");
        for (package, component) in shape.guests() {
            let bytes = std::fs::read(component).expect("a component");
            modules.push(package, "1.0.0", &bytes).expect("the guest is accepted");
        }
        shape.write_input(&folder.path().join("input"));
        let source = shape.document(&folder.path().join("input"));
        let runtime = Runtime::new(engine.clone(), modules.clone(), folder.path(), Arc::new(Metrics::default()));
        let runtime = SharedRuntime(Arc::new(shape.with_natives(runtime)));
        let checked = runtime.check(&source).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let mut spec = checked.spec;
        // Below what users may ask for: time is what such runs have least of.
        spec.checkpoint.interval_ms = Some(1);
        spec.checkpoint.retained = 2;
        spec.restart = RestartSpec::FixedDelay { attempts: 10, delay_ms: 0 };
        spec.batch.rows_max = BATCH_ROWS;
        spec.batch.linger_ms = 0;
        let job = StoredJob {
            format: JOB_FORMAT,
            name: shape.job().into(),
            job_id: "0011223344556677".into(),
            source,
            spec,
            modules: checked.modules,
            base: folder.path().to_owned(),
            desired: DesiredState::Running,
            start: StartIntent::new(StartFrom::Latest),
            created_ms: 0,
            changed_ms: 0,
            ended: None,
            deleting: None,
        };
        Self { shape, engine, modules, job, _folder: folder }
    }

    /// A run on a folder of its own: incarnation i meets `troubles[i]`, one after the last of them meets none.
    pub fn run(&self, troubles: &[(u64, Trouble)]) -> Run {
        let folder = fast_folder();
        let mut lives = Vec::new();
        for trouble in troubles.iter().copied().map(Some).chain([None]) {
            let life = self.live(&folder, IoSteps::new(trouble, BATCHES_PER_CHECKPOINT));
            let died = life.end == End::Died;
            lives.push(life);
            if !died {
                break;
            }
        }
        let output = Output::read(&self.shape, folder.path());
        Run { lives, output }
    }

    /// From the start of a process to its end.
    fn live(&self, folder: &TempDir, steps: IoSteps) -> Life {
        let mut job = self.job.clone();
        job.base = folder.path().to_owned();
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let end = tokio.block_on(async {
            let runtime = Runtime::new(self.engine.clone(), self.modules.clone(), folder.path(), Arc::new(Metrics::default()));
            let runtime = Arc::new(self.shape.with_natives(runtime).with_io_steps(steps.clone()));
            let run = runtime.launch(job, StartFrom::Latest);
            let mut state = run.watch();
            let ended = async {
                let ended = state.wait_for(|state| state.is_terminal()).await.map(|state| *state);
                match ended.expect("the run tells its end") {
                    JobState::Finished => End::Finished,
                    other => End::Failed(format!("{other}: {}", run.status().error.unwrap_or_default())),
                }
            };
            let end = tokio::select! {
                biased;
                () = steps.buried() => End::Died,
                end = ended => end,
                () = tokio::time::sleep(LIFE_LIMIT) => End::Hung(format!("{:?}", run.status())),
            };
            // It may have come to its end by the errors that a dead process hears.
            if steps.is_dead() {
                steps.buried().await
            }
            if steps.is_dead() { End::Died } else { end }
        });
        tokio.shutdown_background();
        Life { end, names: steps.names() }
    }
}
