//! What an operator says of itself, and the plain types of a call. They mirror `wit/`, so that the core of the SDK is the same
//! natively and in a guest.

use crate::record::Timestamp;

/// Which clock a timer or a time to live goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeDomain {
    /// The watermark. Deterministic: a replay fires at the same place.
    EventTime,
    /// The host's clock, as recorded with each call.
    ProcessingTime,
}

/// How the host reduces the values of a [`ReducingState`](crate::ReducingState).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReducerKind {
    SumS64,
    SumF64,
    MinS64,
    MaxS64,
    MinF64,
    MaxF64,
    Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateKind {
    Value,
    Map,
    List,
    Reducing(ReducerKind),
}

/// Since the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeToLive {
    pub ms: u64,
    pub domain: TimeDomain,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDeclaration {
    pub name: String,
    pub kind: StateKind,
    pub value_type: String,
    pub map_key_type: Option<String>,
    pub schema_version: u32,
    pub value_size: Option<u32>,
    pub ttl: Option<TimeToLive>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub name: String,
    pub version: String,
    pub inputs: u32,
    pub keyed: bool,
    pub outputs: Vec<String>,
    pub states: Vec<StateDeclaration>,
}

/// A row of the call that the operator rejected and left no trace of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// Index in the batch, or of the timer.
    pub row: u32,
    pub reason: String,
}

/// A call that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    Fatal(String),
    Transient(String),
}

/// Input of one call with records.
#[derive(Debug, Clone, Copy)]
pub struct BatchInput<'a> {
    pub input: u32,
    pub count: u32,
    pub rows: &'a [u8],
    /// Empty where the operator is not keyed.
    pub slots: &'a [u32],
    pub key_count: u32,
    pub watermark: Timestamp,
    pub processing_time: Timestamp,
}

/// Input of one call with timers.
#[derive(Debug, Clone, Copy)]
pub struct TimerInput<'a> {
    pub domain: TimeDomain,
    pub slots: &'a [u32],
    pub times: &'a [Timestamp],
    pub tags: &'a [u64],
    pub key_data: &'a [u8],
    pub key_offsets: &'a [u32],
    pub watermark: Timestamp,
    pub processing_time: Timestamp,
}
