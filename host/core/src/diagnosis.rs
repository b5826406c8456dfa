//! Why a job stands where it stands: facts about what each part waits for, and one sentence that names the cause.
//!
//! ```text
//!  split[0] ──waits for room──► count[0] ──waits for room──► slow[1] ──inside its guest     the cause is slow[1]
//! ```
//!
//! Invariants:
//! * every wait has a name, and a time at which it began;
//! * the cause is looked for where the waiting ends: who waits for somebody else is never the cause;
//! * the same facts give the same sentence.
//!
//! What this is not: a measurement. Who collects the facts looks at the job several times and says in how many of the looks a task
//! did what ([`Shares`]).

use crate::checkpoint::{CheckpointId, CheckpointKind};
use crate::job_state::JobState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A guest call that lasts so long is worth a sentence of its own.
const LONG_CALL_MS: u64 = 300;
/// A checkpoint that is under way for so long is late, however busy the job is.
const LONG_CHECKPOINT_MS: u64 = 2000;
/// Others must be seen waiting for a task in this share of the looks for it to hold them up.
const HELD_UP: f64 = 0.3;
/// Sources that rest in this share of the looks have nothing more to give.
const RESTING: f64 = 0.5;
/// Event time by which a source has to be behind all others to be named.
const WATERMARK_LAG_MS: i64 = 10_000;
/// Names in a list before it says how many more there are.
const NAMES_MAX: usize = 4;

/// What is known of a job at one moment. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunFacts {
    pub at_ms: u64,
    pub state: JobState,
    /// Since when the job is in this state.
    pub since_ms: u64,
    pub attempt: u32,
    /// Why the last attempt failed, or why the job did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Between two attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartFacts>,
    /// While the job starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartFacts>,
    pub tasks: Vec<TaskFacts>,
    /// Those under way, oldest first.
    pub checkpoints: Vec<CheckpointFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestartFacts {
    pub due_ms: u64,
    pub attempt: u32,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartFacts {
    pub step: StartStep,
    pub since_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartStep {
    /// Modules are loaded or compiled.
    Preparing,
    /// Fence, sinks finish what was decided, segments are read.
    Restoring,
    /// Tasks put the state into place and start their guests.
    StartingTasks,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskFacts {
    /// `delays[1]`: the first operator of the chain, or its head, and the number of the parallel instance.
    pub name: String,
    pub vertex: u32,
    pub index: u32,
    pub nodes: Vec<String>,
    /// A source stands at its head.
    pub source: bool,
    /// That source is held to the rate its options give.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paced: bool,
    pub wait: Wait,
    /// Since when it does that.
    pub since_ms: u64,
    pub shares: Shares,
    /// Channels that are not read because others have not brought the barrier yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentFacts>,
    /// What of a snapshot is still to be made durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Its watermark is less than that of every other source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holds_watermark: bool,
}

/// What a task does, or waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Wait {
    /// State is put into place, guests are started.
    Starting,
    /// At the gate, and nothing comes.
    Input,
    /// At the gate: what could be read has brought the barrier of a checkpoint already.
    Alignment { checkpoint: CheckpointId, missing: Vec<String> },
    /// The channel to this task is full.
    Downstream { task: String },
    /// Inside one call of its guest.
    GuestCall { operator: String, rows: u32, deadline_ms: u64 },
    /// Copies frozen state out for a snapshot.
    Draining,
    /// Its own code: decoding, routing, sinks.
    Working,
    /// A source without new input.
    SourceIdle,
    /// A source that is held to the rate its options give.
    SourceThrottled,
    /// A source that has read all there is.
    SourceEnded,
    /// A source that was told to stop at a barrier.
    SourceStopped,
    /// The thread is gone.
    Ended,
}

/// In which share of the looks a task did what.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Shares {
    /// At work, guest calls included.
    pub busy: f64,
    /// Inside the guest.
    pub guest: f64,
    /// Without anything to do.
    pub resting: f64,
    /// By task whose channel was full.
    pub downstream: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlignmentFacts {
    pub checkpoint: CheckpointId,
    pub since_ms: u64,
    /// Tasks whose barrier has not come.
    pub missing: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotFacts {
    pub checkpoint: CheckpointId,
    pub stage: SnapshotStage,
    pub since_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotStage {
    /// Staged output is made durable.
    PreCommit,
    /// The task copies its frozen state out.
    Draining,
    /// State is written to the store.
    Upload,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointFacts {
    pub checkpoint: CheckpointId,
    pub kind: CheckpointKind,
    pub triggered_ms: u64,
    pub phase: CheckpointPhase,
    pub phase_since_ms: u64,
    /// Tasks that have not acknowledged it.
    pub missing: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointPhase {
    /// Tasks have not all acknowledged it.
    Tasks,
    Manifest,
    Decision,
    /// It is decided, and sinks make its output visible.
    SinkCommit,
}

/// The sentence.
pub fn diagnosis(job: &RunFacts) -> String {
    let lasts = took(job.at_ms.saturating_sub(job.since_ms));
    match job.state {
        JobState::Created => "the job was not started".to_owned(),
        JobState::Starting => starting(job, &lasts),
        JobState::Running | JobState::Stopping => running(job),
        JobState::Failing => format!("tasks are being taken down after a failure{}{}", held_by(job), because(job)),
        JobState::Cancelling => format!("tasks are being taken down{}", held_by(job)),
        JobState::Restarting => match &job.restart {
            Some(RestartFacts { due_ms, attempt, reason }) => {
                let wait = took(due_ms.saturating_sub(job.at_ms));
                format!("the job is between two attempts: attempt {attempt} begins in {wait}, because {reason}")
            }
            None => format!("the job is between two attempts{}", because(job)),
        },
        JobState::Finished => "the job has read all its input and is finished".to_owned(),
        JobState::Stopped => "the job was stopped with a savepoint".to_owned(),
        JobState::Cancelled => "the job was stopped".to_owned(),
        JobState::Failed => format!("the job has failed for good{}", because(job)),
    }
}

fn because(job: &RunFacts) -> String {
    job.error.as_ref().map(|error| format!(", because {error}")).unwrap_or_default()
}

/// A guest in a call is all that can hold up the end of an attempt for long.
fn held_by(job: &RunFacts) -> String {
    longest_call(job, 0)
        .map(|(task, lasts, ..)| format!("; {} is inside a guest call for {}", task.name, took(lasts)))
        .unwrap_or_default()
}

fn starting(job: &RunFacts, lasts: &str) -> String {
    let Some(StartFacts { step, since_ms }) = job.start else { return format!("the job has been starting for {lasts}") };
    let lasts = took(job.at_ms.saturating_sub(since_ms));
    match step {
        StartStep::Preparing => format!("the job's modules have been loading for {lasts}"),
        StartStep::Restoring => {
            format!("the job is being restored for {lasts}: its state is read, and its sinks finish what was decided")
        }
        StartStep::StartingTasks => {
            let waiting = job.tasks.iter().filter(|task| task.wait == Wait::Starting).map(|task| task.name.as_str());
            format!("tasks have been starting for {lasts}: {} not up yet", are(waiting.collect()))
        }
    }
}

fn running(job: &RunFacts) -> String {
    let late = job.checkpoints.iter().find(|checkpoint| job.at_ms.saturating_sub(checkpoint.triggered_ms) >= LONG_CHECKPOINT_MS);
    if let Some((task, lasts, operator, rows, deadline_ms)) = longest_call(job, LONG_CALL_MS) {
        let held = job.checkpoints.iter().find(|checkpoint| checkpoint.missing.contains(&task.name));
        let held = held.map(|it| format!(", and checkpoint {} waits for it", it.checkpoint)).unwrap_or_default();
        let name = &task.name;
        let lasts = took(lasts);
        return format!(
            "task {name} is the bottleneck: it has been inside one call of its guest {operator} for {lasts} ({rows} rows; the call is ended after {}){held}",
            took(deadline_ms)
        );
    }
    if let Some((task, waiters)) = bottleneck(job) {
        let held = late
            .map(|it| format!("; checkpoint {} waits behind it, {}", it.checkpoint, pending_for(job, it)))
            .unwrap_or_default();
        let Shares { busy, guest, .. } = task.shares;
        return format!(
            "task {} is the bottleneck: it is at work {} of the time ({} inside its guest), and {} for room in its channels{held}",
            task.name,
            percent(busy),
            percent(guest),
            wait(waiters)
        );
    }
    if let Some(checkpoint) = late {
        return pending(job, checkpoint);
    }
    quiet(job)
}

/// Who stands inside one guest call the longest: the task, for how long, the operator, its rows and the deadline.
fn longest_call(job: &RunFacts, at_least_ms: u64) -> Option<(&TaskFacts, u64, &str, u32, u64)> {
    let calls = job.tasks.iter().filter_map(|task| match &task.wait {
        Wait::GuestCall { operator, rows, deadline_ms } => {
            Some((task, job.at_ms.saturating_sub(task.since_ms), operator.as_str(), *rows, *deadline_ms))
        }
        _ => None,
    });
    calls.filter(|(_, lasts, ..)| *lasts >= at_least_ms).max_by_key(|(_, lasts, ..)| *lasts)
}

/// The task that others wait for most, and that waits for nobody itself; and those others.
fn bottleneck(job: &RunFacts) -> Option<(&TaskFacts, Vec<&str>)> {
    let waits_for = |task: &TaskFacts| task.shares.downstream.values().sum::<f64>();
    let held_up_by = |name: &str| -> f64 { job.tasks.iter().filter_map(|task| task.shares.downstream.get(name)).sum() };
    let causes = job.tasks.iter().filter(|task| held_up_by(&task.name) >= HELD_UP && waits_for(task) < HELD_UP);
    let cause = causes.max_by(|a, b| held_up_by(&a.name).total_cmp(&held_up_by(&b.name)))?;
    let waiters = job.tasks.iter().filter(|task| task.shares.downstream.contains_key(&cause.name));
    Some((cause, waiters.map(|task| task.name.as_str()).collect()))
}

fn pending_for(job: &RunFacts, checkpoint: &CheckpointFacts) -> String {
    format!("pending for {}", took(job.at_ms.saturating_sub(checkpoint.triggered_ms)))
}

fn pending(job: &RunFacts, checkpoint: &CheckpointFacts) -> String {
    let CheckpointFacts { checkpoint: id, phase, phase_since_ms, missing, .. } = checkpoint;
    let since = took(job.at_ms.saturating_sub(*phase_since_ms));
    let why = match phase {
        CheckpointPhase::Manifest => format!("its manifest has been on its way to the store for {since}"),
        CheckpointPhase::Decision => format!("its entry in the decision log has been on its way to the store for {since}"),
        CheckpointPhase::SinkCommit => format!("it is decided, and its sinks have been committing for {since}"),
        CheckpointPhase::Tasks => {
            let tasks = job.tasks.iter().filter(|task| missing.contains(&task.name));
            // Who has the barrier and does not come to an end is nearer to the cause than who waits for the barrier.
            match tasks.max_by_key(|task| (task.snapshot.is_some_and(|s| s.checkpoint == *id), task.alignment.is_none())) {
                None => "an older one is not decided yet".to_owned(),
                Some(task) => format!("{} not acknowledged it; {}", have(missing), task_of(job, task, *id)),
            }
        }
    };
    format!("checkpoint {id} is {}: {why}", pending_for(job, checkpoint))
}

fn task_of(job: &RunFacts, task: &TaskFacts, checkpoint: CheckpointId) -> String {
    let name = &task.name;
    if let Some(SnapshotFacts { stage, since_ms, .. }) = task.snapshot.filter(|it| it.checkpoint == checkpoint) {
        let since = took(job.at_ms.saturating_sub(since_ms));
        return match stage {
            SnapshotStage::PreCommit => format!("{name} has been making staged output durable for {since}"),
            SnapshotStage::Draining => format!("{name} has been copying its state out for {since}"),
            SnapshotStage::Upload => format!("{name} has been writing its state to the store for {since}"),
        };
    }
    if let Some(AlignmentFacts { missing, since_ms, .. }) = task.alignment.as_ref().filter(|it| it.checkpoint == checkpoint) {
        let since = took(job.at_ms.saturating_sub(*since_ms));
        return format!("{name} has waited {since} for the barrier from {}", names(missing));
    }
    format!("the barrier has not come to {name} yet, which {}", does(task))
}

fn quiet(job: &RunFacts) -> String {
    let sources: Vec<_> = job.tasks.iter().filter(|task| task.source).collect();
    if !sources.is_empty() && sources.iter().all(|task| task.wait == Wait::SourceEnded) {
        return match job.checkpoints.first() {
            Some(last) => format!(
                "all input is read: the job finishes with checkpoint {}, which is {}",
                last.checkpoint,
                pending_for(job, last)
            ),
            None => "all input is read: the job waits for its final checkpoint".to_owned(),
        };
    }
    let rests =
        |task: &&TaskFacts| task.shares.resting >= RESTING || matches!(task.wait, Wait::SourceEnded | Wait::SourceStopped);
    if !sources.is_empty() && sources.iter().all(rests) {
        let paced: Vec<_> = sources.iter().copied().filter(|task| task.paced && task.wait != Wait::SourceEnded).collect();
        if !paced.is_empty() {
            return format!("the job keeps up: {} held to the rate in the job file", are(named(&paced)));
        }
        let last = sources.iter().map(|task| task.since_ms).max().unwrap_or(job.at_ms);
        let since = took(job.at_ms.saturating_sub(last));
        return format!("the job waits for input: {} nothing new to give for {since}", have_names(named(&sources)));
    }
    if let Some(task) = job.tasks.iter().find(|task| task.holds_watermark) {
        return format!(
            "the job keeps up; source {} holds event time back, at {}",
            task.name,
            task.watermark.unwrap_or(i64::MIN)
        );
    }
    match job.tasks.iter().max_by(|a, b| a.shares.busy.total_cmp(&b.shares.busy)) {
        Some(task) => format!(
            "the job keeps up: no task waits for another; the busiest is {}, at work {} of the time",
            task.name,
            percent(task.shares.busy)
        ),
        None => "the job has no tasks".to_owned(),
    }
}

/// The one source whose event time is well behind that of all others: the clocks of healthy sources differ a little all the time.
pub fn watermark_holder<T: Copy>(sources: &[(T, Option<i64>)]) -> Option<T> {
    let mut sorted: Vec<_> = sources.iter().map(|(source, watermark)| (watermark.unwrap_or(i64::MIN), *source)).collect();
    sorted.sort_by_key(|(watermark, _)| *watermark);
    match sorted.as_slice() {
        [(least, source), (next, _), ..] if next.saturating_sub(*least) >= WATERMARK_LAG_MS => Some(*source),
        _ => None,
    }
}

/// What a task does, as the end of a sentence about it.
pub fn does(task: &TaskFacts) -> String {
    match &task.wait {
        Wait::Starting => "is starting".to_owned(),
        Wait::Input => "waits for input".to_owned(),
        Wait::Alignment { checkpoint, missing } => {
            format!("aligns checkpoint {checkpoint}: the barrier from {} is missing", names(missing))
        }
        Wait::Downstream { task } => format!("waits for room in the channel to {task}"),
        Wait::GuestCall { operator, rows, .. } => format!("is inside a call of {operator} with {rows} rows"),
        Wait::Draining => "copies its state out for a snapshot".to_owned(),
        Wait::Working => "is at work".to_owned(),
        Wait::SourceIdle => "has nothing new to read".to_owned(),
        Wait::SourceThrottled => "is held to its rate".to_owned(),
        Wait::SourceEnded => "has read all its input".to_owned(),
        Wait::SourceStopped => "has stopped at the barrier".to_owned(),
        Wait::Ended => "has ended".to_owned(),
    }
}

fn named<'a>(tasks: &[&'a TaskFacts]) -> Vec<&'a str> {
    tasks.iter().map(|task| task.name.as_str()).collect()
}

/// `a, b and 3 more`
fn names<T: AsRef<str>>(all: &[T]) -> String {
    let shown: Vec<&str> = all.iter().take(NAMES_MAX).map(AsRef::as_ref).collect();
    match all.len().saturating_sub(NAMES_MAX) {
        0 => match shown.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
            None => "nobody".to_owned(),
        },
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn verb<T: AsRef<str>>(all: &[T], one: &str, many: &str) -> String {
    format!("{} {}", names(all), if all.len() == 1 { one } else { many })
}

fn are(all: Vec<&str>) -> String {
    verb(&all, "is", "are")
}

fn have(all: &[String]) -> String {
    verb(all, "has", "have")
}

fn have_names(all: Vec<&str>) -> String {
    verb(&all, "has had", "have had")
}

fn wait(all: Vec<&str>) -> String {
    verb(&all, "waits", "wait")
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `250 ms`, `1.5 s`, `3 min`
fn took(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min", ms / 60_000),
    }
}

#[cfg(test)]
mod tests;
