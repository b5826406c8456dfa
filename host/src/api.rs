//! The HTTP API's documents: what the server writes and the CLI reads, and the other way round.
//!
//! Invariants:
//! * requests refuse keys they do not know; answers may gain keys, and readers ignore those they do not know;
//! * times are milliseconds since 1970 and end in `_ms`, names of states and kinds are in kebab-case;
//! * every error is a [`ProblemDetails`], whatever went wrong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_core::checkpoint::CheckpointKind;
use tidegate_core::state_schema::StateDeclaration;

pub use tidegate_core::checkpoint::CheckpointReport;
pub use tidegate_core::diagnosis::RunFacts;
pub use tidegate_core::job_state::JobState;
pub use tidegate_core::problem::Problem;

/// Paths of the API, for the server's routes as for the CLI's calls.
pub const API_VERSION: &str = "v1";
pub const PROBLEM_JSON: &str = "application/problem+json";

// ---- errors -------------------------------------------------------------------------------------------------------------------

/// RFC 9457, with what to do about it and everything that is wrong with a document at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemDetails {
    /// `urn:tidegate:problem:<kind>`: for programs.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What was attempted and why it failed, with the values.
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

// ---- modules ------------------------------------------------------------------------------------------------------------------

/// A component as stored: immutable under its name and version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleView {
    pub name: String,
    pub version: String,
    /// SHA-256 of the component's bytes, in hexadecimal.
    pub digest: String,
    pub size_bytes: u64,
    pub created_ms: u64,
    #[serde(flatten)]
    pub description: ModuleDescription,
}

impl ModuleView {
    /// `name@version`, as job files write it.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

/// What a look into the component found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleDescription {
    /// `processor` or `record-processor`.
    pub world: String,
    pub imports: Vec<String>,
    pub operator: OperatorDescription,
    pub states: Vec<StateDeclaration>,
    pub compile_ms: u64,
}

/// What the component says of itself, but for its states.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct OperatorDescription {
    pub name: String,
    pub version: String,
    pub inputs: u32,
    pub keyed: bool,
    /// Names of the ports, port 0 first.
    pub outputs: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModuleList {
    pub modules: Vec<ModuleView>,
}

// ---- jobs ---------------------------------------------------------------------------------------------------------------------

/// What the user asked for. A host that comes up starts the jobs that are to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DesiredState {
    Running,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    pub name: String,
    /// Made when the job was created: tells two jobs of one name apart.
    pub job_id: String,
    pub desired: DesiredState,
    pub status: JobStatus,
    /// Digest of the module of each operator.
    pub modules: BTreeMap<String, String>,
    pub created_ms: u64,
    pub changed_ms: u64,
    /// How the last run ended; absent while one is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// As written by the user. Absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    pub state: JobState,
    pub at_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The savepoint that a stop took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobStatus {
    pub state: JobState,
    /// 1 for the first try of this run, one more for every restart.
    pub attempt: u32,
    /// Why the last attempt failed, or why the job did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Least event time among the tasks, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// Since this attempt started to run.
    pub uptime_ms: u64,
    /// What this attempt was restored from; absent while that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<RestoreReport>,
    pub tasks: Vec<TaskStatus>,
}

/// What an attempt began with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestoreReport {
    /// Absent: from nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
    /// The savepoint's id, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<String>,
    /// Not the newest checkpoint: what was newer and can't be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damaged>,
    /// Output that was visible, was taken back (into the sink's folder `.retracted`) and is produced again, by sink.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retracted: BTreeMap<String, Vec<String>>,
    /// Output that somebody had taken away, and that is produced again all the same, by sink.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repeated: BTreeMap<String, Vec<String>>,
    /// With `at-most-once`: records after the checkpoint that may have been handed out and are not read again, by source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given_up: BTreeMap<String, u64>,
}

impl RestoreReport {
    pub fn is_step_back(&self) -> bool {
        !(self.damaged.is_empty() && self.retracted.is_empty() && self.repeated.is_empty())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Damaged {
    /// Absent: an entry of the decision log, which may have been a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
    pub why: String,
}

impl JobStatus {
    /// Of a job that has no run in this host.
    pub fn ended(state: JobState, error: Option<String>) -> Self {
        Self { state, attempt: 0, error, watermark: None, uptime_ms: 0, restored: None, tasks: Vec::new() }
    }
}

/// One parallel instance of a chain of nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskStatus {
    pub vertex: u32,
    pub index: u32,
    /// Sources, operators and sinks that this task runs, upstream first.
    pub nodes: Vec<String>,
    pub records_in: u64,
    pub records_out: u64,
    /// Shares of the last seconds; they add up to one.
    pub busy: f64,
    pub backpressured: f64,
    pub idle: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<i64>,
    /// What the guests of its operators have used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<GuestStatus>,
}

/// The guest of one operator in one task. Counters go on over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuestStatus {
    pub operator: String,
    pub calls: u64,
    pub cpu_ms: u64,
    /// Linear memory of the instance that is there now.
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
}

/// Why a job stands where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobWhy {
    pub job: String,
    /// One sentence: the cause, as far as it can be seen.
    pub diagnosis: String,
    #[serde(flatten)]
    pub facts: RunFacts,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    pub jobs: Vec<JobView>,
}

/// A savepoint, by its id. Of another job if that is named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavepointName {
    pub savepoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

impl std::fmt::Display for SavepointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.job {
            Some(job) => write!(f, "{job}/{}", self.savepoint),
            None => f.write_str(&self.savepoint),
        }
    }
}

/// Where a start begins: `"latest"`, `"fresh"`, `{"savepoint": ID}` or `{"savepoint": ID, "job": OTHER}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartFrom {
    /// From the last completed checkpoint, or from nothing if there is none.
    #[default]
    Latest,
    /// From nothing, whatever checkpoints there are.
    Fresh,
    /// Of another job: this one gets a copy, and both go on independently.
    #[serde(untagged)]
    Savepoint(SavepointName),
}

impl StartFrom {
    /// One of the job's own.
    pub fn savepoint(id: &str) -> Self {
        Self::Savepoint(SavepointName { savepoint: id.to_owned(), job: None })
    }
}

// By hand: what serde makes of an untagged variant does not say what is wrong with a document.
impl<'de> Deserialize<'de> for StartFrom {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> serde::de::Visitor<'de> for Form {
            type Value = StartFrom;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("`latest`, `fresh`, {\"savepoint\": ID} or {\"savepoint\": ID, \"job\": JOB}")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<StartFrom, E> {
                match word {
                    "latest" => Ok(StartFrom::Latest),
                    "fresh" => Ok(StartFrom::Fresh),
                    other => Err(E::unknown_variant(other, &["latest", "fresh", "savepoint"])),
                }
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<StartFrom, A::Error> {
                SavepointName::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(StartFrom::Savepoint)
            }
        }

        deserializer.deserialize_any(Form)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    #[serde(default)]
    pub from: StartFrom,
    /// With `latest`: where the newest checkpoint can't be read, go back to an older one, even if rows that somebody has taken away
    /// already are written again.
    #[serde(default)]
    pub allow_step_back: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Take a savepoint as the last thing.
    #[serde(default)]
    pub savepoint: bool,
    /// Fire all timers first, as if the input had come to its end.
    #[serde(default)]
    pub drain: bool,
    /// Chosen by the caller: the same id again is the same operation, so a call whose answer was lost can be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// The job as drawn: its nodes, how they are chained into vertices, and the streams between them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobGraph {
    pub nodes: Vec<GraphNode>,
    pub edges: Vec<GraphEdge>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    Source,
    Operator,
    Sink,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GraphNode {
    pub name: String,
    pub kind: NodeKind,
    /// The connector, or the module as `name@version`.
    pub runs: String,
    /// Absent where it follows from the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// The chain that this node is part of; absent while the job is not running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vertex: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GraphEdge {
    pub from: String,
    pub to: String,
    /// The side output; absent for the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    pub keyed: bool,
}

// ---- operations, savepoints, checkpoints ----------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    Savepoint,
    Stop,
    StopWithSavepoint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    Running,
    Completed,
    Failed,
}

/// Something that takes its time. Kept until the host ends or newer ones push it out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    pub id: String,
    pub job: String,
    pub kind: OperationKind,
    pub state: OperationState,
    pub started_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<SavepointInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemDetails>,
}

impl OperationView {
    /// Where to ask again.
    pub fn path(&self) -> String {
        format!("/{API_VERSION}/jobs/{}/operations/{}", self.job, self.id)
    }
}

/// Newest last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OperationList {
    pub operations: Vec<OperationView>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SavepointRequest {
    /// As in [`StopRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SavepointInfo {
    pub id: String,
    pub job: String,
    pub checkpoint: u64,
    /// Its folder; another job, or another host, can start from it.
    pub path: String,
    pub created_ms: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SavepointList {
    pub savepoints: Vec<SavepointInfo>,
}

/// Newest last. Of this run of the job; older ones are in the metrics and the logs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointList {
    pub checkpoints: Vec<CheckpointReport>,
}

// ---- dead letters -----------------------------------------------------------------------------------------------------------------

/// A record that the job could not process, and where it came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Unique in the job; also a place to go on from.
    pub id: String,
    /// `rejected`, `trap`, `deadline`, `decode` and so on, as in the dead-letter files.
    pub kind: String,
    pub reason: String,
    /// The node that gave the row up: an operator, or a source that could not decode it.
    pub operator: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Number of the record within its split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    pub processing_time_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LetterState>,
    /// Key, value, headers and what else the line in the file has; bytes that are not UTF-8 under `..._base64`.
    #[serde(flatten)]
    pub row: serde_json::Map<String, Value>,
}

/// What became of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LetterState {
    pub state: LetterStateName,
    /// The request that replays or discards it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// Of those that are still known, the first completed checkpoint that has the replay in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LetterStateName {
    /// Nobody has done anything about it.
    Open,
    /// Asked to be replayed; no completed checkpoint has it yet.
    Pending,
    Replayed,
    Discarded,
    /// The job was started from before it: its record is read again.
    Rewound,
}

impl LetterStateName {
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Pending => "pending",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
            Self::Rewound => "rewound",
        }
    }

    pub fn is_open(self) -> bool {
        self == Self::Open
    }
}

impl std::fmt::Display for LetterState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "is {}", self.state.name())?;
        if let Some(request) = self.request {
            write!(f, " by request {request}")?;
        }
        match self.checkpoint {
            Some(checkpoint) => write!(f, " with checkpoint {checkpoint}"),
            None => Ok(()),
        }
    }
}

/// Which letters go back into the job, or are done with: `ids`, or all that are open and fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// By the processing time of the call that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_ms: Option<u64>,
    #[serde(default)]
    pub all: bool,
    /// Also letters that were replayed or discarded before.
    #[serde(default)]
    pub force: bool,
    /// Only say which they would be.
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayView {
    /// Number of the request, as letters name it; absent where nothing was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    pub letters: u64,
    /// The first of them.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Letters that fit the filter and are not among them, by state.
    #[serde(default)]
    pub left_out: BTreeMap<String, u64>,
    /// There are more than one request takes: ask again.
    #[serde(default)]
    pub more: bool,
    #[serde(default)]
    pub dry_run: bool,
    /// The job does not run; it reads them when it is started.
    #[serde(default)]
    pub waits_for_start: bool,
}

/// Newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterPage {
    pub dead_letters: Vec<DeadLetter>,
    /// Hand it over as `before` to go on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Lines that could not be read.
    #[serde(default)]
    pub unreadable: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterQuery {
    /// At most [`DEAD_LETTERS_PAGE_MAX`].
    pub limit: usize,
    /// [`DeadLetterPage::next`] of the page before.
    pub before: Option<String>,
    pub operator: Option<String>,
}

pub const DEAD_LETTERS_PAGE_DEFAULT: usize = 100;
/// One page is held in memory, and a record may have 16 MiB.
pub const DEAD_LETTERS_PAGE_MAX: usize = 1000;

// ---- events and logs ----------------------------------------------------------------------------------------------------------------

/// Something that happened to a job. `id` is the place to go on from: as `Last-Event-ID`, or as `after`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    pub id: String,
    pub at_ms: u64,
    #[serde(flatten)]
    pub event: EventBody,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EventBody {
    /// The job is in another state. As the first event of a stream that begins now it tells the state of the moment, without `from`.
    State {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<JobState>,
        to: JobState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// An attempt failed, and another one follows after the delay.
    Restart {
        reason: String,
        attempt: u32,
        delay_ms: u64,
    },
    Checkpoint {
        checkpoint: u64,
        kind: CheckpointKind,
        step: CheckpointStep,
        duration_ms: u64,
        bytes: u64,
        /// Why it was aborted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A savepoint is in its place, or could not be taken.
    Savepoint {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoint: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// Counted when a checkpoint has ended: so many more from this node, and so many since this run began.
    DeadLetters {
        operator: String,
        new: u64,
        total: u64,
    },
    /// Something that takes its time has begun or ended.
    Operation {
        operation: OperationView,
    },
    Log(LogRecord),
    /// Events before this one were pushed out before they could be sent.
    Lagged,
}

impl EventBody {
    pub const TYPES: [&str; 8] = ["state", "restart", "checkpoint", "savepoint", "dead-letters", "operation", "log", "lagged"];

    /// As in the key `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Restart { .. } => "restart",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Savepoint { .. } => "savepoint",
            Self::DeadLetters { .. } => "dead-letters",
            Self::Operation { .. } => "operation",
            Self::Log(_) => "log",
            Self::Lagged => "lagged",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointStep {
    Triggered,
    Completed,
    Aborted,
}

/// In the order of their weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What a guest said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogRecord {
    pub level: LogLevel,
    pub operator: String,
    /// `name@version`
    pub module: String,
    /// Index of the task among those of the operator.
    pub task: u32,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    pub id: String,
    pub at_ms: u64,
    #[serde(flatten)]
    pub record: LogRecord,
}

/// Oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogPage {
    pub lines: Vec<LogLine>,
    /// Hand it over as `after` to go on.
    pub next: String,
    /// Lines after `after` were pushed out by newer ones.
    pub lagged: bool,
}

pub const LOG_PAGE_DEFAULT: usize = 100;
/// One page is held in memory, and a line may have 1 MiB.
pub const LOG_PAGE_MAX: usize = 1000;

// ---- the host -----------------------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionView {
    pub version: String,
    pub api: String,
    /// The wasm engine, as it stands in the names of compiled modules.
    pub engine: String,
}

/// Milliseconds since 1970, for documents that people read.
pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
