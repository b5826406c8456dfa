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
    /// Headers of one row.
    pub headers_max: usize,
    pub header_name_bytes_max: usize,
    /// Rows in one batch; slots and row indices are `u32`.
    pub batch_rows_max: u32,
}

impl Default for RowLimits {
    fn default() -> Self {
        Self {
            key_bytes_max: 64 * KIB,
            value_bytes_max: 16 * MIB,
            headers_bytes_max: 256 * KIB,
            headers_max: 1000,
            header_name_bytes_max: KIB,
            batch_rows_max: 1 << 20,
        }
    }
}

/// Bounds of one guest and of one call into it. The job file may lower or raise most of them per operator, within the ranges of
/// `job_graph::guest_limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
// Jobs that were stored before a limit got its name have its default.
#[serde(default)]
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
    /// Timers of one key, in both domains together: each is a node in a tree and a line in every snapshot.
    pub timers_per_key_max: u32,
    /// Times that timers may set timers that are due at once, for one watermark.
    pub timer_rounds_max: u32,
    /// Log lines of one call; more are counted and dropped.
    pub log_lines_per_call_max: u32,
    pub log_line_bytes_max: usize,
    /// Log lines of one task in a second, whatever the number of calls; more are counted and dropped.
    pub log_lines_per_second_max: u32,
    /// Bytes of these lines.
    pub log_bytes_per_second_max: usize,
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
            timers_per_key_max: 10_000,
            timer_rounds_max: 10_000,
            log_lines_per_call_max: 100,
            log_line_bytes_max: 8 * KIB,
            log_lines_per_second_max: 1000,
            log_bytes_per_second_max: MIB,
            observations_per_call_max: 1 << 16,
            metrics_max: 100,
            name_bytes_max: 128,
            declarations_max: 64,
            handles_max: 1024,
        }
    }
}

/// Bounds of the HTTP server: what one client, or all of them, can hold of the host. Timeouts are there so that whoever sends or reads
/// slowly, or not at all, gives back what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at once. Each costs a file descriptor, and the jobs need theirs.
    pub connections_max: usize,
    /// Of one client: one must not take all places.
    pub connections_per_client_max: usize,
    /// Sum of the names and values of a request's headers. A token and what browsers add fit in a quarter of it.
    pub header_bytes_max: usize,
    /// For the head of a request to arrive, from its first byte or from the answer before: also how long an idle connection is kept.
    pub header_read_timeout_ms: u64,
    /// For a body of up to [`REQUEST_BODY_BYTES_MAX`] to arrive.
    pub body_timeout_ms: u64,
    /// For a component to arrive. It holds one of few places meanwhile.
    pub upload_timeout_ms: u64,
    /// A client that takes no byte of its answer for so long is gone.
    pub write_timeout_ms: u64,
    pub tls_handshake_timeout_ms: u64,
    /// Of one client, and the burst that it may come in. 0: no limit.
    pub requests_per_second_max: u32,
    /// Streams of events at once: each wakes up for every event.
    pub event_subscribers_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            connections_per_client_max: 256,
            header_bytes_max: 16 * KIB,
            header_read_timeout_ms: 20_000,
            body_timeout_ms: 30_000,
            upload_timeout_ms: 300_000,
            write_timeout_ms: 60_000,
            tls_handshake_timeout_ms: 10_000,
            requests_per_second_max: 1000,
            event_subscribers_max: 64,
        }
    }
}

/// Path and query. Names of jobs and ids are short, and so is everything one can ask for.
pub const URI_BYTES_MAX: usize = 4 * KIB;
/// Clients whose requests are counted one by one; those beyond share one count.
pub const RATE_LIMIT_CLIENTS_MAX: usize = 10_000;
/// Tokens that a server accepts: each request is compared with all of them.
pub const TOKENS_MAX: usize = 100;
/// A shorter token can be guessed, a longer one is a mistake.
pub const TOKEN_BYTES: RangeInclusive<usize> = 16..=512;
/// Events of one job that are kept for those who come back: hours of a healthy job.
pub const JOURNAL_EVENTS_MAX: usize = 1000;
/// Log lines of one job's operators that are kept, and their bytes together.
pub const JOURNAL_LOG_LINES_MAX: usize = 2000;
pub const JOURNAL_LOG_BYTES_MAX: usize = 2 * MIB;

impl GuestLimits {
    /// `crossing_bytes_max` of an operator that may emit more than the default in one go.
    pub fn crossing_bytes_max(&self) -> usize {
        CROSSING_BYTES_MAX.max(self.output_bytes_max)
    }
}

/// A new instance has at least so long to start, however short the deadline of calls is.
pub const START_DEADLINE_MS_MIN: u64 = 1000;
/// Stack of wasm frames: deep recursion traps here. One for the host, because the engine has one.
pub const GUEST_STACK_BYTES_MAX: usize = 512 * KIB;
/// Stack of a task's thread: a guest's frames and ours below them.
pub const TASK_STACK_BYTES: usize = 4 * MIB;

/// Bounds of one compilation, which runs in a process of its own: a component of a few hundred KiB can ask the compiler for hours
/// and for all memory. They depend on the machine, so `tidegate serve` has flags for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// CPU time of the compiler, all of its threads together, and of `describe` after it. A component of 10 MiB needs about 20 s.
    pub seconds_max: u64,
    /// Address space of the compiler. The component's bytes and its machine code are part of it.
    pub memory_bytes_max: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { seconds_max: 120, memory_bytes_max: 2 << 30 }
    }
}

impl CompileLimits {
    /// By the clock on the wall: for a compiler that does not get the CPU, or does not want it.
    pub fn wall_seconds_max(&self) -> u64 {
        self.seconds_max.saturating_mul(2).saturating_add(30)
    }
}

/// Records, and bytes of them, that a source task at most once reads ahead for one reservation: with small ones it would wait for the
/// disk all the time, with large ones a failure loses more, and a barrier waits until they are handed on.
pub const RESERVED_RECORDS_MAX: u32 = 4096;
pub const RESERVED_BYTES_MAX: usize = 4 * MIB;

/// Below a second, and below what the compiler needs for an empty component, nothing could be pushed.
pub const COMPILE_SECONDS: RangeInclusive<u64> = 1..=3600;
pub const COMPILE_MEMORY_BYTES: RangeInclusive<u64> = (128 << 20)..=(1 << 40);
/// Compilers at once. Each uses up to half of the cores.
pub const COMPILERS_MAX: usize = 2;
/// Uploads that wait for their turn; more are told to come back later.
pub const UPLOADS_WAITING_MAX: usize = 16;
/// Machine code of one component, as it comes back from the compiler.
pub const COMPILED_BYTES_MAX: usize = 1 << 30;
/// What `describe` answers, and what it writes to its log: far more than `declarations_max` names take.
pub const DESCRIPTOR_BYTES_MAX: usize = MIB;
/// Linear memory of the instance that answers `describe`. An operator whose memory begins larger could not be described.
pub const DESCRIBE_MEMORY_BYTES_MAX: usize = 256 * MIB;
/// Of one instance, for each of its core modules: memories reserve address space, tables and instances cost the host memory.
pub const MEMORIES_MAX: usize = 16;
pub const TABLES_MAX: usize = 64;
/// Elements of all tables together.
pub const TABLE_ELEMENTS_MAX: usize = 1 << 20;
pub const CORE_INSTANCES_MAX: usize = 256;
/// Data that a guest hands to the host in one call of an import, or as its answer, counted as the host has to allocate it. Strings of
/// a list may overlap in the guest's memory, so its size is no bound.
pub const CROSSING_BYTES_MAX: usize = 128 * MIB;
/// What one call may make the host remember, so that it can be undone: a map entry that is written again and again is remembered each
/// time.
pub const UNDO_BYTES_MAX: usize = 256 * MIB;
/// Names of all imports of a component: they are stored and shown with it.
pub const IMPORTS_BYTES_MAX: usize = 64 * KIB;
/// Text that a guest gives as the reason of a failure; a longer one is cut.
pub const REASON_BYTES_MAX: usize = 8 * KIB;
/// Imports that a refusal lists.
pub const FORBIDDEN_IMPORTS_SHOWN_MAX: usize = 20;

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

/// State of one job: values, map keys, lists, timers and the tables of keys, in memory. A write beyond it is refused, and the record
/// goes by its operator's policy. From 80 % on the host warns.
pub const JOB_STATE_BYTES: RangeInclusive<u64> = (1 << 20)..=(16 << 40);
pub const JOB_STATE_BYTES_DEFAULT: u64 = 16 << 30;
pub const JOB_STATE_WARN_PERCENT: u64 = 80;

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

/// Bad records are counted in tenths of this. A second is the least that says something, beyond a day a storm fills the disk first.
pub const ERRORS_PER_MS: RangeInclusive<u64> = 1000..=DAY_MS;

/// Frames of a trap that a dead letter shows, innermost first. Recursion has thousands, all the same.
pub const BACKTRACE_FRAMES_MAX: usize = 32;
/// Of one frame: mangled names of generic functions are long.
pub const BACKTRACE_FRAME_BYTES_MAX: usize = 512;
/// Dead letters that one request replays; the next request goes on with the rest.
pub const REPLAY_LETTERS_MAX: usize = 10_000;
/// Of the letters of one request. They are copied into it, in memory first.
pub const REPLAY_BYTES_MAX: usize = 64 * MIB;

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
