//! A job as its author wrote it, after parsing. Units are resolved (milliseconds, bytes), names are not.

use crate::checkpoint::CheckpointKind;
use crate::limits::{GuestLimits, JOB_STATE_BYTES_DEFAULT, KEY_GROUPS_DEFAULT};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Options that only one connector, or only the guest, understands.
pub type Options = Map<String, Value>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    #[default]
    ExactlyOnce,
    AtLeastOnce,
    /// Records that may have been handed out are not read again: see [`crate::reservation`].
    AtMostOnce,
}

impl Delivery {
    pub fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
            Self::AtMostOnce => "at-most-once",
        }
    }
}

/// What happens to a record that can't be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    #[default]
    DeadLetter,
    Skip,
    Fail,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    pub name: String,
    pub delivery: Delivery,
    pub key_groups: u32,
    pub checkpoint: CheckpointSpec,
    pub restart: RestartSpec,
    pub batch: BatchSpec,
    #[serde(default)]
    pub limits: JobLimits,
    pub sources: Vec<SourceSpec>,
    pub operators: Vec<OperatorSpec>,
    pub sinks: Vec<SinkSpec>,
}

impl JobSpec {
    pub fn key_groups_default() -> u32 {
        KEY_GROUPS_DEFAULT
    }
}

/// Flink's names and meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// Time between the starts of two checkpoints. `None` ("off"): only savepoints and the checkpoint at the end of the input.
    pub interval_ms: Option<u64>,
    /// Least time between the end of one checkpoint and the start of the next.
    pub min_pause_ms: u64,
    pub timeout_ms: u64,
    pub max_concurrent: u32,
    /// Failed checkpoints in a row that the job survives.
    pub tolerable_failures: u32,
    pub retained: u32,
    /// A barrier overtakes what waits in the channels, and that becomes part of the checkpoint.
    #[serde(default)]
    pub unaligned: bool,
    /// A barrier keeps its place for so long after its checkpoint's trigger before it overtakes.
    #[serde(default)]
    pub aligned_timeout_ms: u64,
}

impl CheckpointSpec {
    /// How long after its trigger a barrier may overtake; `None`: never. A savepoint has nothing in flight, so that it fits a job that
    /// has changed; behind the checkpoint at the end of the input nobody would come to process what is in flight.
    pub fn overtakes_after_ms(&self, kind: CheckpointKind) -> Option<u64> {
        (self.unaligned && kind == CheckpointKind::Checkpoint).then_some(self.aligned_timeout_ms)
    }
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self {
            interval_ms: Some(1000),
            min_pause_ms: 0,
            timeout_ms: 60_000,
            max_concurrent: 1,
            tolerable_failures: 3,
            retained: 3,
            unaligned: false,
            aligned_timeout_ms: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "kebab-case")]
pub enum RestartSpec {
    None,
    FixedDelay {
        attempts: u32,
        delay_ms: u64,
    },
    /// The delay doubles from `initial_ms` to `max_ms` and falls back after `reset_after_ms` without a failure.
    ExponentialDelay {
        initial_ms: u64,
        max_ms: u64,
        reset_after_ms: u64,
        attempts: Option<u32>,
    },
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self::ExponentialDelay { initial_ms: 200, max_ms: 60_000, reset_after_ms: 600_000, attempts: Some(20) }
    }
}

/// When a batch is shipped: it is full by rows, full by bytes, or has waited for `linger_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSpec {
    pub rows_max: u32,
    pub bytes_max: usize,
    pub linger_ms: u64,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self { rows_max: 1024, bytes_max: 128 << 10, linger_ms: 5 }
    }
}

/// How many bad records a source or an operator may have before they are a storm, see [`crate::error_rate`]. `None`: no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorsSpec {
    /// Bad records within the window.
    pub max: Option<u64>,
    pub per_ms: u64,
    /// Share of the window's records, which counts once `ratio_min` are bad.
    pub ratio: Option<f64>,
    pub ratio_min: u32,
    /// Bytes of dead letters within the window.
    pub bytes: Option<u64>,
}

impl Default for ErrorsSpec {
    /// A job with a few bad records goes on for ever; one that finds nothing but bad ones ends, and so does one that would fill the
    /// disk with dead letters.
    fn default() -> Self {
        Self { max: Some(100_000), per_ms: 60_000, ratio: Some(0.5), ratio_min: 1000, bytes: Some(1 << 30) }
    }
}

/// `[limits]` of the job as a whole; those of a guest stand with its operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobLimits {
    /// Keyed state of all operators and tasks together.
    pub state_bytes_max: u64,
}

impl Default for JobLimits {
    fn default() -> Self {
        Self { state_bytes_max: JOB_STATE_BYTES_DEFAULT }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceSpec {
    pub name: String,
    pub connector: String,
    pub parallelism: u32,
    pub watermark: Option<WatermarkSpec>,
    /// Records that can't be decoded, or have no readable timestamp.
    pub on_error: OnError,
    #[serde(default)]
    pub errors: ErrorsSpec,
    pub options: Options,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkSpec {
    /// JSON pointer to the event time in the value; `None`: the timestamp that the connector gives.
    pub field: Option<String>,
    pub out_of_orderness_ms: u64,
    /// A split without records for so long no longer holds the watermark back.
    pub idle_after_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OperatorSpec {
    pub name: String,
    /// `name@version`
    pub module: String,
    pub inputs: Vec<PortRef>,
    pub key: Option<KeySpec>,
    pub parallelism: u32,
    pub on_error: OnError,
    #[serde(default)]
    pub errors: ErrorsSpec,
    pub limits: GuestLimits,
    /// Handed to the guest as text.
    pub config: Vec<(String, String)>,
}

/// `"flights"` or, for a side output, `"delays.late"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRef {
    pub node: String,
    /// `None`: port 0.
    pub port: Option<String>,
}

/// How a keyed edge finds a record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySpec {
    /// The key the row has already (`key = "row"`).
    Row,
    /// JSON pointers into the value. One: the field's text. Several: the texts, joined by the unit separator 0x1f.
    Json(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkSpec {
    pub name: String,
    pub connector: String,
    pub inputs: Vec<PortRef>,
    /// `None`: that of its input.
    pub parallelism: Option<u32>,
    pub options: Options,
}
