//! What one run is: everything an engine needs to know, with the defaults filled in.

use clap::ValueEnum;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// source, discard: the generator's own cost
    W0,
    /// price * 908 / 1000, one record in 123 passes
    W1,
    /// the same, and every record passes
    W1map,
    /// keyed count and sum, a record out for every record in
    W2,
    /// w2 with records of which some are bad
    W2bad,
    /// state of a size, rewritten whole for every record
    Ws,
    /// process start to first committed output, on the real binary
    Cold,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Self::W0 => "w0",
            Self::W1 => "w1",
            Self::W1map => "w1map",
            Self::W2 => "w2",
            Self::W2bad => "w2bad",
            Self::Ws => "ws",
            Self::Cold => "cold",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// the operator as a WebAssembly component
    Tidegate,
    /// the same operator in Rust in the same runtime
    Native,
}

impl EngineName {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Native => "native",
        }
    }
}

/// Form of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// binary: what stands here for typed objects
    #[value(alias = "pojo")]
    Rows,
    Json,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Json => "json",
        }
    }
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    Records(u64),
    Seconds(f64),
}

/// Which records are bad, and what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bad {
    /// One in so many; 0: none.
    pub one_in: u64,
    pub how: BadHow,
    pub on_error: OnError,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BadHow {
    /// the guest undoes and rejects them
    Reject,
    /// the guest ends in a trap
    Trap,
}

/// As in the job file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    Skip,
    DeadLetter,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    pub workload: Workload,
    pub engine: EngineName,
    pub keys: u64,
    pub bound: Bound,
    /// Records a second in total; `None`: as fast as it goes.
    pub rate: Option<f64>,
    /// Between checkpoints; `None`: off.
    pub interval: Option<Duration>,
    pub format: Format,
    pub parallelism: u32,
    /// Of one key, in `ws`.
    pub value_bytes: u64,
    /// In `w2bad`.
    pub bad: Bad,
}

impl RunPlan {
    /// Events below this number have their own number as bidder.
    pub fn prefill(&self) -> u64 {
        if self.workload == Workload::Ws { self.keys } else { 0 }
    }
}
