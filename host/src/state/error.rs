//! What guests and stored segments can get wrong. All of it is an error that names the state, the value and the limit.

use tidegate_core::state_schema::StateKind;

/// An access that the guest had no right to. Becomes a trap; the call is rolled back as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("state `{state}` is a {is} state, and was used as a {used} state")]
    WrongKind { state: String, is: &'static str, used: &'static str },
    #[error("state `{state}`: slot {slot} is outside the call, which has {keys} keys")]
    UnknownSlot { state: String, slot: u32, keys: u32 },
    #[error("state `{state}`: the column of {what} does not fit: {why}")]
    BadColumn { state: String, what: &'static str, why: String },
    #[error("state `{state}`: {slots} slots come with {values} {what}")]
    UnequalColumns { state: String, slots: usize, what: &'static str, values: usize },
    #[error("state `{state}`: a {what} of {bytes} bytes exceeds the limit of {limit} ({name})")]
    TooLarge { state: String, what: &'static str, bytes: u64, limit: u64, name: &'static str },
    #[error("state `{state}`: {count} {what} exceed the limit of {limit} ({name})")]
    TooMany { state: String, what: &'static str, count: u64, limit: u64, name: &'static str },
    #[error("a key would have {count} timers, which exceeds the limit of {limit} (timers_per_key_max)")]
    TooManyTimers { count: u64, limit: u32 },
    #[error("state `{state}`: a value of {bytes} bytes, where `value-size` says {size}")]
    WrongSize { state: String, bytes: usize, size: u32 },
    #[error("state `{state}` is declared without a `value-size`, so it has no -fixed calls")]
    NotFixed { state: String },
}

/// A segment that can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("these {bytes} bytes are not a state segment: no `TGSTATE` at their head and end")]
    NotASegment { bytes: usize },
    #[error("the segment has format {found}; this host reads {known}: use the version of Tidegate that wrote it, or a newer one")]
    Format { found: u32, known: u32 },
    #[error("the segment is damaged at byte {at}: {what}")]
    Corrupt { at: u64, what: &'static str },
    #[error("the segment's header can't be read")]
    Header(#[source] serde_json::Error),
    #[error("the segment is of a job with {found} key groups, this one has {wanted}; the number is fixed for the life of a job")]
    KeyGroups { found: u32, wanted: u32 },
    #[error(
        "the segment holds states that the operator does not declare: {}; declare them, or say that they may be dropped",
        .names.join(", ")
    )]
    UnknownStates { names: Vec<String> },
    #[error("state `{state}` was stored as {was} and is declared as {is}")]
    StateDiffers { state: String, was: String, is: String },
    #[error("a merge needs at least one segment")]
    NothingToMerge,
}

pub(super) fn kind_name(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Value => "value",
        StateKind::Map => "map",
        StateKind::List => "list",
        StateKind::Reducing(_) => "reducing",
    }
}
