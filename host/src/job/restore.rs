//! What an attempt starts from: the job is taken over, the decision log says what is true, sinks finish what was decided.
//!
//! Invariants:
//! * a start that the user asked for (fresh, or from a savepoint) is itself a decision in the log, named by the id of the request: a
//!   crash right afterwards goes on with it, and neither does it again nor falls back to what was before;
//! * what can't be read is an error that names it, or a step back that is told, never a fresh start: see [`super::step_back`];
//! * nothing of a successor is touched: what is deleted here is named after checkpoints before the first of this incarnation.

use super::Clock;
use super::attempt::context;
use super::dead_letters::{DEAD_LETTERS, sink as dead_letter_sink};
use super::plan::JobPlan;
use super::replay_log::ReplayLog;
use super::reserved::Reserved;
use super::step_back::Newest;
use crate::api::{RestoreReport, StartFrom};
use crate::checkpoint_store::{AppendError, CheckpointStore, DecisionLog, Incarnations, Segments, StoreError, Whole};
use crate::connector::{ConnectorError, Sink, catalog};
use crate::fault::{self, Fault};
use crate::task::TaskError;
use crate::task::snapshot::explain;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tidegate_core::checkpoint::{
    CheckpointId, CompletedCheckpoint, Coordinator, CoordinatorConfig, InFlight, Manifest, ManifestPointer, OperatorManifest,
    Restored as RestoredCheckpoint, SAVEPOINTS,
};
use tidegate_core::job_graph::spec::JobSpec;
use tidegate_core::limits::{CHECKPOINTS_UNDECIDED_MAX, NAME_BYTES_MAX};
use tidegate_core::recovery::{self, JobShape};
use tidegate_core::replay::{Progress, REPLAY_SOURCE, Rewind};

/// Where the user wants the run to begin.
#[derive(Debug, Clone)]
pub struct Start {
    /// Names the request beyond a crash.
    pub id: String,
    pub from: StartFrom,
    pub allow_step_back: bool,
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

pub(super) fn retry(reason: String) -> Failed {
    Failed { reason, fatal: false }
}

pub(super) fn fatal(reason: String) -> Failed {
    Failed { reason, fatal: true }
}

pub type Sinks = BTreeMap<String, Box<dyn Sink>>;

/// All that an attempt needs to know about what was before.
pub struct Restored {
    pub log: DecisionLog,
    pub manifest: Option<Manifest>,
    pub sinks: Arc<Sinks>,
    pub segments: Segments,
    pub in_flight: Vec<(InFlight, bytes::Bytes)>,
    pub next_checkpoint: CheckpointId,
    pub replays: Arc<ReplayLog>,
    /// At most once.
    pub reserved: Option<Reserved>,
    pub report: RestoreReport,
    retained: Vec<CompletedCheckpoint>,
    inherit_chains: bool,
}

impl Restored {
    /// All input was read and committed: there is nothing left to run.
    pub fn is_finished(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.end_of_input)
    }

    /// Dead letters wait to be replayed: even a job whose input is at its end has something to do.
    pub fn has_replays(&self, plan: &JobPlan) -> bool {
        let positions = self.manifest.as_ref().and_then(|manifest| manifest.sources.get(REPLAY_SOURCE));
        let positions = positions.map_or(&[][..], Vec::as_slice);
        plan.spec.operators.iter().any(|operator| {
            let mut progress = Progress::restored(&plan.job_id, &operator.name, 0..plan.spec.key_groups, positions);
            progress.raise(self.reserved.as_ref().map_or(&[], |reserved| &reserved.beginning.replays));
            progress.next().entry <= self.replays.len()
        })
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
    run: &mut Incarnations,
    clock: Clock,
) -> Result<Restored, Failed> {
    let acquired = store.acquire_again(run, clock.now_ms()).await?;
    fault::point(Fault::FenceWrittenRestoreNot);
    let (mut log, mut next_checkpoint) = (acquired.log, acquired.plan.next_checkpoint);
    // The first fence is older than every manifest, and fences stay. Where there is none but ours, the log was lost, and ids go on
    // above those that are known all the same.
    let lost = if log.entries().len() == 1 { store.greatest_checkpoint().await? } else { None };
    if let Some(greatest) = lost {
        next_checkpoint = next_checkpoint.max(greatest.saturating_add(1 + CHECKPOINTS_UNDECIDED_MAX));
    }
    let sinks = build_sinks(plan, folder)?;
    let replays = open_replays(folder).await?;
    let rewinds = Rewinds { log: &replays, plan, next: next_checkpoint, clock };
    let chosen = if recovery::has_started(log.entries(), &start.id) || start.from == StartFrom::Latest {
        let newest =
            Newest { plan, store, start, sinks: &sinks, first: next_checkpoint, log_is_lost: lost.is_some(), rewinds, clock };
        newest.choose(&mut log).await?
    } else {
        asked_for(plan, store, start, &mut log, &rewinds).await?
    };
    fault::point(Fault::RestoreWrittenSinksNot);
    let Chosen { pointer, whole, mut report } = chosen;
    let (manifest, segments, in_flight) = match whole {
        Some(Whole { manifest, segments, in_flight }) => (Some(manifest), segments, in_flight),
        None => (None, Segments::new(), Vec::new()),
    };
    let begun_in = recovery::begun_in(log.entries());
    let reserved = Reserved::open(plan, folder, log.incarnation(), begun_in, manifest.as_ref()).await?;
    report.given_up = reserved.as_ref().map(|reserved| reserved.beginning.given_up.clone()).unwrap_or_default();
    let is_savepoint = pointer.as_ref().is_some_and(|pointer| pointer.path.starts_with(SAVEPOINTS));
    let mut inherit_chains = !is_savepoint;
    if let Some(manifest) = &manifest {
        inherit_chains &= fits(plan, manifest)?.inherits_chains();
    }
    recover_sinks(&sinks, manifest.as_ref().filter(|_| !is_savepoint), next_checkpoint).await?;
    let (retained, all_known) = retained(store, &log).await;
    if all_known {
        sweep(store, &log, &retained, next_checkpoint).await;
    }
    Ok(Restored {
        log,
        manifest,
        sinks,
        segments,
        in_flight,
        next_checkpoint,
        replays,
        reserved,
        report,
        retained,
        inherit_chains,
    })
}

async fn open_replays(folder: &Path) -> Result<Arc<ReplayLog>, Failed> {
    let folder = folder.to_owned();
    let opened = tokio::task::spawn_blocking(move || ReplayLog::open(&folder)).await;
    let failed = |why: String| Failed { reason: format!("the log of replayed dead letters: {why}"), fatal: true };
    opened.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
}

/// What was made of the input since an older checkpoint that the job goes on from is given up, and so are the dead letters of that
/// time. Written before the decision that it belongs to: a crash in between does both again.
pub(super) struct Rewinds<'a> {
    log: &'a Arc<ReplayLog>,
    plan: &'a JobPlan,
    /// The first checkpoint of this incarnation.
    next: CheckpointId,
    pub clock: Clock,
}

impl Rewinds<'_> {
    /// `start`: the decision's id. Without a manifest the job begins with nothing.
    pub async fn to(&self, manifest: Option<&Manifest>, start: &str) -> Result<(), Failed> {
        // A savepoint of another job has nothing of this job's time in it.
        let own = manifest.filter(|manifest| manifest.job == self.plan.spec.name);
        let rewind = Rewind { to: own.map_or(0, |manifest| manifest.checkpoint), next: self.next };
        let (log, id, now_ms) = (Arc::clone(self.log), start.to_owned(), self.clock.now_ms());
        let written = tokio::task::spawn_blocking(move || log.rewind(rewind, &id, now_ms)).await;
        let failed = |why: String| Failed { reason: format!("the log of replayed dead letters: {why}"), fatal: false };
        written.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
    }
}

/// What the attempt goes on from: its pointer is in the log.
pub(super) struct Chosen {
    pub pointer: Option<ManifestPointer>,
    pub whole: Option<Whole>,
    pub report: RestoreReport,
}

impl Chosen {
    pub fn nothing() -> Self {
        Self { pointer: None, whole: None, report: RestoreReport::default() }
    }

    pub fn from(pointer: &ManifestPointer, whole: Whole) -> Self {
        let savepoint = pointer.path.strip_prefix(SAVEPOINTS).and_then(|path| path.split('/').next()).map(str::to_owned);
        let report = RestoreReport { checkpoint: Some(pointer.checkpoint), savepoint, ..RestoreReport::default() };
        Self { pointer: Some(pointer.clone()), whole: Some(whole), report }
    }
}

fn fits(plan: &JobPlan, manifest: &Manifest) -> Result<recovery::Match, Failed> {
    let fits = recovery::match_job(manifest, &shape(&plan.spec), &BTreeSet::new());
    fits.map_err(|problems| fatal(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

pub fn shape(spec: &JobSpec) -> JobShape {
    let mut sinks: BTreeSet<_> = spec.sinks.iter().map(|sink| sink.name.clone()).collect();
    sinks.insert(DEAD_LETTERS.to_owned());
    let operators = spec.operators.iter();
    let operators = operators.map(|operator| (operator.name.clone(), (operator.inputs.len() as u32, operator.key.is_some())));
    JobShape {
        key_groups: spec.key_groups,
        sources: spec.sources.iter().map(|source| source.name.clone()).chain([REPLAY_SOURCE.to_owned()]).collect(),
        operators: spec.operators.iter().map(|operator| (operator.name.clone(), operator.parallelism)).collect(),
        sinks,
        inputs: operators.chain(spec.sinks.iter().map(|sink| (sink.name.clone(), (sink.inputs.len() as u32, false)))).collect(),
    }
}

/// The user asked for a beginning that the log does not know of yet. It is read whole before it is decided: a damaged savepoint
/// changes nothing.
async fn asked_for(
    plan: &JobPlan,
    store: &CheckpointStore,
    start: &Start,
    log: &mut DecisionLog,
    rewinds: &Rewinds<'_>,
) -> Result<Chosen, Failed> {
    let chosen = match &start.from {
        StartFrom::Latest => unreachable!("BUG: a start from the latest checkpoint is not asked for here"),
        StartFrom::Fresh => Chosen::nothing(),
        StartFrom::Savepoint(named) => {
            let failed = |e: StoreError| fatal(format!("start from savepoint {named}: {}", explain(&e)));
            let other = named.job.as_ref().filter(|job| *job != store.job());
            let pointer = match other {
                // Ours from here on, whatever becomes of the other's.
                Some(job) => copy(store, &store.of_job(job), &named.savepoint, &start.id).await.map_err(failed)?,
                None => store.read_savepoint(&named.savepoint).await.map_err(failed)?.pointer,
            };
            let whole = store.read_whole(&pointer).await.map_err(failed)?;
            fits(plan, &whole.manifest)?;
            Chosen::from(&pointer, whole)
        }
    };
    rewinds.to(chosen.whole.as_ref().map(|whole| &whole.manifest), &start.id).await?;
    log.restore(chosen.pointer.clone(), &start.id, None, rewinds.clock.now_ms()).await?;
    Ok(chosen)
}

/// Under a name that says where it comes from and which start it was copied for: another start makes a copy of its own.
async fn copy(store: &CheckpointStore, other: &CheckpointStore, id: &str, start: &str) -> Result<ManifestPointer, StoreError> {
    let start = &start[..start.len().min(8)];
    let readable = format!("{}.{id}.{start}", other.job());
    let copy = if readable.len() <= NAME_BYTES_MAX { readable } else { format!("copy-{start}") };
    // A crash may have come between the copy and the decision.
    match store.read_savepoint(&copy).await {
        Ok(copied) => return Ok(copied.pointer),
        Err(StoreError::NoSavepoint { .. }) => {}
        Err(error) => return Err(error),
    }
    let savepoint = other.read_savepoint(id).await?;
    // Damage is named where it is, not where it was copied to.
    other.read_whole(&savepoint.pointer).await?;
    tracing::info!(job = store.job(), from = other.job(), savepoint = id, copy, "copies another job's savepoint");
    store.store_savepoint_of(other, &copy, &savepoint.manifest).await
}

fn build_sinks(plan: &Arc<JobPlan>, folder: &Path) -> Result<Arc<Sinks>, Failed> {
    let mut sinks = Sinks::new();
    for spec in &plan.spec.sinks {
        let sink = catalog::build_sink(spec, &context(plan, &spec.name)).map_err(|problems| {
            fatal(format!("sink {}: {}", spec.name, problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
        })?;
        sinks.insert(spec.name.clone(), plan.sink(sink));
    }
    sinks.insert(DEAD_LETTERS.to_owned(), plan.sink(Box::new(dead_letter_sink(plan, folder))));
    Ok(Arc::new(sinks))
}

/// Calls every sink off the threads that serve everyone.
pub(super) async fn for_each_sink<T: Send + 'static>(
    sinks: &Arc<Sinks>,
    call: impl Fn(&str, &dyn Sink) -> Result<T, ConnectorError> + Send + 'static,
) -> Result<BTreeMap<String, T>, Failed> {
    let sinks = Arc::clone(sinks);
    let called = tokio::task::spawn_blocking(move || {
        let mut answers = BTreeMap::new();
        for (name, sink) in sinks.iter() {
            let answer = call(name, &**sink).map_err(|e| Failed { reason: format!("sink {name}: {e}"), fatal: !e.retry })?;
            answers.insert(name.clone(), answer);
        }
        Ok(answers)
    });
    called.await.unwrap_or_else(|e| Err(fatal(format!("a call of the sinks panicked: {e}"))))
}

/// Everything decided is committed, and everything else that predecessors staged is gone. A savepoint decides nothing here: its output
/// was committed when it was taken, and what another job committed is not ours to touch.
async fn recover_sinks(sinks: &Arc<Sinks>, decided: Option<&Manifest>, first: CheckpointId) -> Result<(), Failed> {
    let decided = decided.map(|manifest| manifest.sinks.clone()).unwrap_or_default();
    let recover = move |name: &str, sink: &dyn Sink| sink.recover(decided.get(name).map_or(&[], Vec::as_slice), first);
    for_each_sink(sinks, recover).await.map(|_| ())
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
async fn sweep(store: &CheckpointStore, log: &DecisionLog, retained: &[CompletedCheckpoint], first: CheckpointId) {
    let mut keep = BTreeSet::new();
    for checkpoint in retained {
        keep.insert(checkpoint.pointer().path.clone());
        keep.extend(checkpoint.segments().map(str::to_owned));
    }
    match store.sweep(log, &keep, first).await {
        Ok(orphans) if !orphans.is_empty() => {
            tracing::info!(job = store.job(), objects = orphans.len(), "removed what no checkpoint names")
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(job = store.job(), error = explain(&error), "could not remove what no checkpoint names"),
    }
}
