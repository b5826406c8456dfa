//! The seam between the driver and what it measures, and the connection to the runtime.

use crate::cold::ColdStart;
use crate::in_process::InProcess;
use crate::measure::Progress;
use crate::plan::{EngineName, RunPlan, Workload};

/// Runs one plan and says what it measured. A run starts from nothing: an empty state folder, no job.
pub trait Engine {
    fn run(&self, plan: &RunPlan, progress: &mut Progress) -> Result<Measured, EngineError>;
}

/// What one run came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// Records of each source split that are in the output the digest was made of. Split `s` of P holds the events
    /// `local * P + s`; a run that ends by time ends with a stop that lets every split tell its position.
    pub records_by_split: Vec<u64>,
    /// From the first record to the last.
    pub seconds: f64,
    /// Of all the engine's processes in the same time, user and system.
    pub cpu_seconds: f64,
    pub checkpoints: Option<u64>,
    /// One a checkpoint: from the trigger to its completion.
    pub checkpoint_ms: Vec<f64>,
    /// One a barrier and task: how long the task processed nothing because of it.
    pub stall_ms: Vec<f64>,
    pub latency_ms: Vec<f64>,
    /// The greatest that was seen.
    pub rss_bytes: Option<u64>,
    /// In the workload's own form: `reference::digest` has the same.
    pub digest: Option<String>,
    pub cold: Option<Cold>,
}

impl Measured {
    pub fn records(&self) -> u64 {
        self.records_by_split.iter().sum()
    }
}

/// What `cold` adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cold {
    /// Process start to first committed output.
    pub cold_ms: f64,
    /// Resident, ready, without a job.
    pub idle_bytes: u64,
    pub binary_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {cause}")]
pub struct EngineError {
    attempted: String,
    cause: String,
}

impl EngineError {
    pub fn new(attempted: impl Into<String>, cause: impl ToString) -> Self {
        Self { attempted: attempted.into(), cause: cause.to_string() }
    }
}

/// The engine of that name for that workload.
pub fn connect(engine: EngineName, workload: Workload) -> Result<Box<dyn Engine>, EngineError> {
    match (engine, workload) {
        (EngineName::Tidegate, Workload::Cold) => Ok(Box::new(ColdStart::of_this_build()?)),
        (EngineName::Native, Workload::Cold) => {
            Err(EngineError::new("running cold on native", "a cold start is that of the real binary: use --engine tidegate"))
        }
        (EngineName::Native, Workload::W2bad) => Err(EngineError::new(
            "running w2bad on native",
            "what bad records cost is the guest boundary's: use --engine tidegate",
        )),
        (engine, _) => Ok(Box::new(InProcess::new(engine))),
    }
}
