//! What an attempt starts from: the job is taken over, the decision log says what is true, sinks finish what was decided.
//!
//! Invariants:
//! * a start that the user asked for (fresh, or from a savepoint) is itself a decision in the log, named by the id of the request: a
//!   crash right afterwards goes on with it, and neither does it again nor falls back to what was before;
//! * what can't be read is an error that names it, never a fresh start.

use super::Clock;
use super::attempt::context;
use super::dead_letters::{DEAD_LETTERS, sink as dead_letter_sink};
use super::plan::JobPlan;
use crate::api::StartFrom;
use crate::checkpoint_store::{AppendError, CheckpointStore, DecisionLog, StoreError};
use crate::connector::{Sink, catalog};
use crate::fault::{self, Fault};
use crate::task::TaskError;
use crate::task::snapshot::explain;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tidegate_core::checkpoint::{
    CheckpointId, CompletedCheckpoint, Coordinator, CoordinatorConfig, InFlight, Manifest, ManifestPointer, OperatorManifest,
    Restored as RestoredCheckpoint, SAVEPOINTS, SegmentRef,
};
use tidegate_core::recovery::{self, JobShape, Restore};

/// Where the user wants the run to begin.
#[derive(Debug, Clone)]
pub struct Start {
    /// Names the request beyond a crash.
    pub id: String,
    pub from: StartFrom,
}

/// The attempt can't begin.
#[derive(Debug)]
pub struct Failed {
    pub reason: String,
    pub fatal: bool,
}

impl From<TaskError> for Failed {
    fn from(error: TaskError) -> Self {
        Self { fatal: matches!(error, TaskError::Fatal(_)), reason: error.to_string() }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self { reason: explain(&error), fatal: !error.is_retryable() }
    }
}

impl From<AppendError> for Failed {
    fn from(error: AppendError) -> Self {
        Self { reason: explain(&error), fatal: matches!(error, AppendError::Fenced { .. }) }
    }
}

fn fatal(reason: String) -> Failed {
    Failed { reason, fatal: true }
}

pub type Sinks = BTreeMap<String, Box<dyn Sink>>;

/// All that an attempt needs to know about what was before.
pub struct Restored {
    pub log: DecisionLog,
    pub manifest: Option<Manifest>,
    pub sinks: Arc<Sinks>,
    pub segments: BTreeMap<String, Vec<(SegmentRef, bytes::Bytes)>>,
    pub in_flight: Vec<(InFlight, bytes::Bytes)>,
    pub next_checkpoint: CheckpointId,
    retained: Vec<CompletedCheckpoint>,
    inherit_chains: bool,
}

impl Restored {
    /// All input was read and committed: there is nothing left to run.
    pub fn is_finished(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.end_of_input)
    }

    pub fn coordinator(&mut self, plan: &JobPlan, now_ms: u64) -> Coordinator {
        let restored =
            self.manifest.clone().map(|manifest| RestoredCheckpoint { manifest, retained: std::mem::take(&mut self.retained) });
        Coordinator::new(CoordinatorConfig {
            job: plan.spec.name.clone(),
            key_groups: plan.spec.key_groups,
            spec: plan.spec.checkpoint,
            tasks: plan.graph.task_ids(),
            operators: operator_manifests(plan),
            restored,
            inherit_chains: self.inherit_chains,
            next_checkpoint: self.next_checkpoint,
            now_ms,
        })
    }
}

/// What the job's operators are, without segments.
fn operator_manifests(plan: &JobPlan) -> BTreeMap<String, OperatorManifest> {
    let of = |operator: &tidegate_core::job_graph::spec::OperatorSpec| {
        let code = &plan.operators[&operator.name];
        OperatorManifest {
            module: code.module.clone(),
            digest: code.digest.clone(),
            parallelism: operator.parallelism,
            states: serde_json::to_value(&code.states).expect("BUG: declarations are not JSON"),
            tasks: vec![Vec::new(); operator.parallelism as usize],
        }
    };
    plan.spec.operators.iter().map(|operator| (operator.name.clone(), of(operator))).collect()
}

/// Takes the job over and makes true what was decided.
pub async fn restore(
    plan: &Arc<JobPlan>,
    folder: &Path,
    store: &CheckpointStore,
    start: &Start,
    clock: Clock,
) -> Result<Restored, Failed> {
    let acquired = store.acquire(clock.now_ms()).await?;
    fault::point(Fault::FenceWrittenRestoreNot);
    let (mut log, next_checkpoint) = (acquired.log, acquired.plan.next_checkpoint);
    let pointer = match asked_for(&log, start, store).await? {
        Some(pointer) => {
            log.restore(pointer.clone(), &start.id, clock.now_ms()).await?;
            pointer
        }
        None => match acquired.plan.restore {
            Restore::Fresh => None,
            Restore::From(pointer) => Some(pointer),
        },
    };
    fault::point(Fault::RestoreWrittenSinksNot);
    let is_savepoint = pointer.as_ref().is_some_and(|pointer| pointer.path.starts_with(SAVEPOINTS));
    let manifest = match &pointer {
        Some(pointer) => Some(store.read_manifest(pointer).await?),
        None => None,
    };
    let mut inherit_chains = !is_savepoint;
    if let Some(manifest) = &manifest {
        let fits = recovery::match_job(manifest, &shape(plan), &BTreeSet::new());
        let fits = fits.map_err(|problems| fatal(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        inherit_chains &= fits.inherits_chains();
    }
    let sinks = recover_sinks(plan, folder, manifest.as_ref(), is_savepoint).await?;
    let segments = match &manifest {
        Some(manifest) => read_segments(store, manifest).await?,
        None => BTreeMap::new(),
    };
    let mut in_flight = Vec::new();
    for one in manifest.iter().flat_map(|manifest| &manifest.in_flight) {
        in_flight.push((one.clone(), store.read_segment(&one.segment).await?));
    }
    let (retained, all_known) = retained(store, &log).await;
    if all_known {
        sweep(store, &log, &retained).await;
    }
    Ok(Restored { log, manifest, sinks, segments, in_flight, next_checkpoint, retained, inherit_chains })
}

fn shape(plan: &JobPlan) -> JobShape {
    let spec = &plan.spec;
    let mut sinks: BTreeSet<_> = spec.sinks.iter().map(|sink| sink.name.clone()).collect();
    sinks.insert(DEAD_LETTERS.to_owned());
    let operators = spec.operators.iter();
    let operators = operators.map(|operator| (operator.name.clone(), (operator.inputs.len() as u32, operator.key.is_some())));
    JobShape {
        key_groups: spec.key_groups,
        sources: spec.sources.iter().map(|source| source.name.clone()).collect(),
        operators: spec.operators.iter().map(|operator| (operator.name.clone(), operator.parallelism)).collect(),
        sinks,
        inputs: operators.chain(spec.sinks.iter().map(|sink| (sink.name.clone(), (sink.inputs.len() as u32, false)))).collect(),
    }
}

/// `Some` where the user asked for a beginning that the log does not know of yet.
async fn asked_for(log: &DecisionLog, start: &Start, store: &CheckpointStore) -> Result<Option<Option<ManifestPointer>>, Failed> {
    if recovery::has_started(log.entries(), &start.id) {
        return Ok(None);
    }
    match &start.from {
        StartFrom::Latest => Ok(None),
        StartFrom::Fresh => Ok(Some(None)),
        StartFrom::Savepoint(named) => {
            let savepoint =
                store.read_savepoint(named).await.map_err(|e| fatal(format!("start from savepoint {named}: {}", explain(&e))))?;
            Ok(Some(Some(savepoint.pointer)))
        }
    }
}

/// Sinks, with everything decided committed and everything else gone.
async fn recover_sinks(
    plan: &Arc<JobPlan>,
    folder: &Path,
    manifest: Option<&Manifest>,
    is_savepoint: bool,
) -> Result<Arc<Sinks>, Failed> {
    let plan = Arc::clone(plan);
    let folder = folder.to_owned();
    // A savepoint's output was committed when it was taken; what another job committed is not ours to touch.
    let decided = manifest.filter(|_| !is_savepoint).map(|manifest| manifest.sinks.clone()).unwrap_or_default();
    let recovered = tokio::task::spawn_blocking(move || {
        let mut sinks = Sinks::new();
        for spec in &plan.spec.sinks {
            let sink = catalog::build_sink(spec, &context(&plan, &spec.name)).map_err(|problems| {
                fatal(format!("sink {}: {}", spec.name, problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
            })?;
            sinks.insert(spec.name.clone(), sink);
        }
        sinks.insert(DEAD_LETTERS.to_owned(), Box::new(dead_letter_sink(&plan, &folder)));
        for (name, sink) in &sinks {
            sink.recover(decided.get(name).map_or(&[], Vec::as_slice))
                .map_err(|e| Failed { reason: format!("sink {name}: {e}"), fatal: !e.retry })?;
        }
        Ok(Arc::new(sinks))
    });
    recovered.await.unwrap_or_else(|e| Err(fatal(format!("recovering the sinks panicked: {e}"))))
}

async fn read_segments(
    store: &CheckpointStore,
    manifest: &Manifest,
) -> Result<BTreeMap<String, Vec<(SegmentRef, bytes::Bytes)>>, Failed> {
    let mut all = BTreeMap::new();
    for (name, operator) in &manifest.operators {
        let mut segments = Vec::new();
        for segment in operator.tasks.iter().flatten() {
            segments.push((segment.clone(), store.read_segment(segment).await?));
        }
        all.insert(name.clone(), segments);
    }
    Ok(all)
}

/// Completed checkpoints that are still in the store, and whether these are all there can be: while one is there and can't be read,
/// nobody knows what it needs, and nothing may be swept away.
async fn retained(store: &CheckpointStore, log: &DecisionLog) -> (Vec<CompletedCheckpoint>, bool) {
    let (mut retained, mut all_known) = (Vec::new(), true);
    for pointer in recovery::completed(log.entries()) {
        match store.read_manifest(pointer).await {
            Ok(manifest) => retained.push(CompletedCheckpoint::from_log(pointer.clone(), &manifest)),
            // Given up by retention, and its decision was not trimmed in time.
            Err(StoreError::Missing { .. }) => {}
            Err(error) => {
                tracing::warn!(
                    job = store.job(),
                    checkpoint = pointer.checkpoint,
                    error = explain(&error),
                    "an older checkpoint can't be read"
                );
                all_known = false;
            }
        }
    }
    (retained, all_known)
}

/// Removes what predecessors wrote and nobody decided, or gave up and did not come to delete. No task runs yet that could write more.
async fn sweep(store: &CheckpointStore, log: &DecisionLog, retained: &[CompletedCheckpoint]) {
    let mut keep = BTreeSet::new();
    for checkpoint in retained {
        keep.insert(checkpoint.pointer().path.clone());
        keep.extend(checkpoint.segments().map(str::to_owned));
    }
    match store.sweep(log, &keep).await {
        Ok(orphans) if !orphans.is_empty() => {
            tracing::info!(job = store.job(), objects = orphans.len(), "removed what no checkpoint names")
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(job = store.job(), error = explain(&error), "could not remove what no checkpoint names"),
    }
}
