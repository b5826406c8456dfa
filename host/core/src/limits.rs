//! Every bound has a name, a value and a reason.
//!
//! Invariant: a number, size or count that a guest, a record, a job file or a request controls is compared with one of these
//! before it is used, and the error names the bound. Units come last in the name.

use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Bounds of rows, checked where rows enter: at sources and at the guest boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLimits {
    /// A key is copied into the state table and into every segment.
    pub key_bytes_max: usize,
    /// Kafka's default for a message is 1 MiB; files have longer lines.
    pub value_bytes_max: usize,
    pub headers_bytes_max: usize,
    /// Rows in one batch; slots and row indices are `u32`.
    pub batch_rows_max: u32,
}

impl Default for RowLimits {
    fn default() -> Self {
        Self { key_bytes_max: 64 * KIB, value_bytes_max: 16 * MIB, headers_bytes_max: 256 * KIB, batch_rows_max: 1 << 20 }
    }
}

/// Bounds of one guest and of one call into it. The job file may lower or raise most of them per operator, within the ranges of
/// `job_graph::guest_limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// Linear memory of one instance. Most SDK guests need less than 2 MiB; an interpreter needs 30.
    pub memory_bytes_max: usize,
    /// Wall-clock time of one call. A call past it is ended, so that it can't hold a barrier.
    pub call_deadline_ms: u64,
    /// Sum of all bytes of rows that one call emits.
    pub output_bytes_max: usize,
    /// Rows that one call emits.
    pub output_rows_max: u32,
    /// One value of a state.
    pub state_value_bytes_max: usize,
    /// One key of a map state.
    pub map_key_bytes_max: usize,
    /// Entries of one `scan`, elements of one page of a list.
    pub scan_entries_max: u32,
    /// Elements of one list.
    pub list_elements_max: u32,
    /// Timers set in one call.
    pub timers_per_call_max: u32,
    /// Times that timers may set timers that are due at once, for one watermark.
    pub timer_rounds_max: u32,
    /// Log lines of one call; more are counted and dropped.
    pub log_lines_per_call_max: u32,
    pub log_line_bytes_max: usize,
    /// Observations that one call hands to histograms.
    pub observations_per_call_max: u32,
    /// Distinct metrics of one operator.
    pub metrics_max: u32,
    /// Names of states, ports, metrics and options.
    pub name_bytes_max: usize,
    /// States, and ports, that a component declares.
    pub declarations_max: usize,
    /// Handles of states and metrics that are open at once.
    pub handles_max: usize,
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 * MIB,
            call_deadline_ms: 1000,
            output_bytes_max: 64 * MIB,
            output_rows_max: 1 << 20,
            state_value_bytes_max: MIB,
            map_key_bytes_max: 64 * KIB,
            scan_entries_max: 10_000,
            list_elements_max: 1 << 20,
            timers_per_call_max: 1 << 16,
            timer_rounds_max: 10_000,
            log_lines_per_call_max: 100,
            log_line_bytes_max: 8 * KIB,
            observations_per_call_max: 1 << 16,
            metrics_max: 100,
            name_bytes_max: 128,
            declarations_max: 64,
            handles_max: 1024,
        }
    }
}

/// Stack of wasm frames: deep recursion traps here. One for the host, because the engine has one.
pub const GUEST_STACK_BYTES_MAX: usize = 512 * KIB;
/// Stack of a task's thread: a guest's frames and ours below them.
pub const TASK_STACK_BYTES: usize = 4 * MIB;

/// Bounds of what users hand over.
pub const MODULE_BYTES_MAX: usize = 64 * MIB;
pub const JOB_FILE_BYTES_MAX: usize = MIB;
pub const REQUEST_BODY_BYTES_MAX: usize = MIB;
/// Tasks are threads.
pub const PARALLELISM_MAX: u32 = 256;
/// Flink's upper bound of maxParallelism.
pub const KEY_GROUPS_MAX: u32 = 32_768;
pub const KEY_GROUPS_DEFAULT: u32 = 4096;
/// Sources, operators and sinks of one job.
pub const JOB_NODES_MAX: usize = 256;
/// Inputs of one operator or sink: an input gate looks at each in turn.
pub const NODE_INPUTS_MAX: usize = 64;
/// Problems that are told of one job file.
pub const PROBLEMS_MAX: usize = 100;
/// Names become file and metric names.
pub const NAME_BYTES_MAX: usize = 64;
/// Tasks of one job, all vertices together: each is a thread with a stack and an instance of its guests.
pub const JOB_TASKS_MAX: usize = 2048;
/// JSON pointers in one key: each is looked up in every record.
pub const KEY_FIELDS_MAX: usize = 16;
/// A hundred years. Sums of a time and a duration stay far from the ends of `i64` that mean something else.
pub const DURATION_MS_MAX: u64 = 100 * 365 * DAY_MS;

const DAY_MS: u64 = 24 * 3_600_000;

/// Bounds of a job's settings, as ranges, because the least values have reasons too.
///
/// Below Flink's 10 ms a job does nothing but checkpoints; beyond a day it has none.
pub const CHECKPOINT_INTERVAL_MS: RangeInclusive<u64> = 10..=DAY_MS;
pub const CHECKPOINT_MIN_PAUSE_MS: RangeInclusive<u64> = 0..=DAY_MS;
pub const CHECKPOINT_TIMEOUT_MS: RangeInclusive<u64> = 10..=DAY_MS;
pub const CHECKPOINT_ALIGNED_TIMEOUT_MS: RangeInclusive<u64> = 0..=DAY_MS;
/// Every checkpoint under way holds its frozen state in memory.
pub const CHECKPOINT_MAX_CONCURRENT: RangeInclusive<u32> = 1..=16;
/// Without one there is nothing to restore; each retained one keeps its segments on the disk.
pub const CHECKPOINT_RETAINED: RangeInclusive<u32> = 1..=1000;
/// No failures are forgiven with `strategy = "none"`, so at least one attempt here.
pub const RESTART_ATTEMPTS: RangeInclusive<u32> = 1..=1_000_000;
/// A delay of 0 would spin on a job that fails at once.
pub const RESTART_DELAY_MS: RangeInclusive<u64> = 1..=DAY_MS;
pub const RESTART_RESET_AFTER_MS: RangeInclusive<u64> = 1..=30 * DAY_MS;
/// Beyond this a larger batch gains nothing, and a barrier waits behind it.
pub const BATCH_ROWS: RangeInclusive<u32> = 1..=1 << 16;
pub const BATCH_BYTES: RangeInclusive<usize> = KIB..=16 * MIB;
/// 0: every read of the source is shipped at once.
pub const BATCH_LINGER_MS: RangeInclusive<u64> = 0..=60_000;

/// A state value of a declared size: its cells lie side by side in pages of 64, which are copied whole after a barrier.
pub const VALUE_SIZE_BYTES: RangeInclusive<u32> = 1..=64 << 10;
/// The text of a value's type, so that parsing it is bounded.
pub const VALUE_TYPE_BYTES_MAX: usize = 4 * KIB;
/// Types inside types: the parser recurses.
pub const VALUE_TYPE_DEPTH_MAX: usize = 16;
/// Batches waiting on one channel between two tasks. Two are enough to keep both sides busy, a few more smooth bursts; each may
/// hold 64 KiB and more, so many would only hide backpressure and lengthen the way of a barrier.
pub const CHANNEL_BATCHES_MAX: usize = 8;
/// Batches that a task of a job with unaligned checkpoints may put into a channel that is full, so that it need not wait in the middle
/// of a batch and sees a barrier before the next one: Flink's overdraft buffers. Beyond them it waits after all.
pub const CHANNEL_OVERDRAFT_BATCHES_MAX: usize = 8;
/// What one task may record of its channels for one unaligned checkpoint. A channel holds CHANNEL_BATCHES_MAX and
/// CHANNEL_OVERDRAFT_BATCHES_MAX batches of `batch.bytes`, so a task reaches it only with very large batches or hundreds of channels;
/// the checkpoint is declined then.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 * MIB;
/// Checkpoints that a job may trigger after the last decided one (or after its start) without another being decided. A new
/// incarnation starts its ids as far above, so an id is never used twice, not even by a predecessor that does not know it is dead.
pub const CHECKPOINTS_UNDECIDED_MAX: u64 = 100;
/// Savepoint requests that wait for their turn.
pub const SAVEPOINT_REQUESTS_MAX: usize = 100;
/// Finished checkpoints that the history shows.
pub const CHECKPOINT_HISTORY_MAX: usize = 100;
/// Timers handed over in one call.
pub const TIMERS_PER_DELIVERY_MAX: usize = 1024;
