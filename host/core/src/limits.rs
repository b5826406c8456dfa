//! Every bound has a name, a value and a reason.
//!
//! Invariant: a number, size or count that a guest, a record, a job file or a request controls is compared with one of these
//! before it is used, and the error names the bound. Units come last in the name.

use serde::{Deserialize, Serialize};

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

/// Bounds of one guest and of one call into it. The job file may lower or raise the first four per operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestLimits {
    /// Linear memory of one instance. Most SDK guests need less than 2 MiB; an interpreter needs 30.
    pub memory_bytes_max: usize,
    /// Stack of wasm frames: deep recursion traps here.
    pub stack_bytes_max: usize,
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
            stack_bytes_max: 512 * KIB,
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
            metrics_max: 100,
            name_bytes_max: 128,
            declarations_max: 64,
            handles_max: 1024,
        }
    }
}

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
/// Names become file and metric names.
pub const NAME_BYTES_MAX: usize = 64;
/// Batches waiting on one channel between two tasks. Two are enough to keep both sides busy, a few more smooth bursts; each may
/// hold 64 KiB and more, so many would only hide backpressure and lengthen the way of a barrier.
pub const CHANNEL_BATCHES_MAX: usize = 8;
/// Checkpoints that a job may trigger after the last decided one (or after its start) without another being decided. A new
/// incarnation starts its ids as far above, so an id is never used twice, not even by a predecessor that does not know it is dead.
pub const CHECKPOINTS_UNDECIDED_MAX: u64 = 100;
/// Savepoint requests that wait for their turn.
pub const SAVEPOINT_REQUESTS_MAX: usize = 100;
/// Finished checkpoints that the history shows.
pub const CHECKPOINT_HISTORY_MAX: usize = 100;
/// Timers handed over in one call.
pub const TIMERS_PER_DELIVERY_MAX: usize = 1024;
