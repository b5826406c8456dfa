//! What a guest's WASI remembers: clock, randomness, handles, unfinished lines.
//!
//! Invariants:
//! * clock and randomness are functions of the last [`WasiState::begin_call`] and of what the guest did since;
//! * a guest never has more than `handles_max` handles, whatever it forgets to drop.

use super::WasiTrap;
use super::output::Output;
use tidegate_core::limits::GuestLimits;

/// Random bytes of one request. Runtimes ask for seeds of 16 to 2,500 bytes (a Mersenne twister's); the answer is built in host
/// memory.
pub const WASI_RANDOM_BYTES_MAX: u64 = 64 << 10;
/// Bytes that one call may write to stdout and stderr; the rest is dropped. Far more than a log keeps of one call, and little
/// enough that splitting it into lines takes no time.
pub const WASI_OUTPUT_BYTES_PER_CALL_MAX: usize = 1 << 20;

/// Bounds of one guest's WASI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WasiLimits {
    /// Handles that the guest has open at once, and pollables in one `poll`.
    pub handles_max: usize,
    /// A longer line is cut.
    pub log_line_bytes_max: usize,
    pub output_bytes_per_call_max: usize,
    pub random_bytes_max: u64,
}

impl From<&GuestLimits> for WasiLimits {
    fn from(limits: &GuestLimits) -> Self {
        Self {
            handles_max: limits.handles_max,
            log_line_bytes_max: limits.log_line_bytes_max,
            output_bytes_per_call_max: WASI_OUTPUT_BYTES_PER_CALL_MAX,
            random_bytes_max: WASI_RANDOM_BYTES_MAX,
        }
    }
}

impl Default for WasiLimits {
    fn default() -> Self {
        Self::from(&GuestLimits::default())
    }
}

/// Belongs to one store. Before the first call (while the instance initialises) time and seed are 0.
#[derive(Debug)]
pub struct WasiState {
    pub(super) limits: WasiLimits,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) handles: Handles,
    pub(super) output: Output,
}

impl WasiState {
    pub fn new(limits: WasiLimits) -> Self {
        Self {
            limits,
            clock: Clock::at(0),
            random: Random::new(0),
            handles: Handles::default(),
            output: Output::new(limits.output_bytes_per_call_max),
        }
    }

    /// A call starts: its time, and a seed of its own ([`seed`]). Handles stay, because runtimes keep them for life.
    pub fn begin_call(&mut self, processing_time_ms: i64, seed: u64) {
        self.clock = Clock::at(processing_time_ms);
        self.random = Random::new(seed);
        self.output = Output::new(self.limits.output_bytes_per_call_max);
    }

    /// Handles that the guest holds now.
    pub fn handles_open(&self) -> usize {
        self.handles.open
    }
}

/// The seed of a call: the same for the same job, operator, task and call (an epoch, a batch number: whatever comes again in a
/// replay).
pub fn seed(job: &str, operator: &str, task: u32, call: u64) -> u64 {
    let mut bytes = Vec::with_capacity(job.len() + operator.len() + 28);
    // Lengths first: ("ab", "c") and ("a", "bc") are different jobs.
    for name in [job, operator] {
        bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes.extend_from_slice(&task.to_le_bytes());
    bytes.extend_from_slice(&call.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

/// Stands still but for two things: a reading of the monotonic clock takes a nanosecond, and a sleep takes as long as it was asked
/// to (Go's `time.Sleep` polls until the monotonic clock is past the deadline, and would for ever).
///
/// The next call starts at its own time, even if this one slept beyond that: what a call sees must not depend on calls before it.
#[derive(Debug)]
pub(super) struct Clock {
    call_ns: u64,
    slept_ns: u64,
    monotonic_ns: u64,
}

impl Clock {
    fn at(processing_time_ms: i64) -> Self {
        let call_ns = u64::try_from(processing_time_ms).unwrap_or(0).saturating_mul(NS_PER_MS);
        Self { call_ns, slept_ns: 0, monotonic_ns: call_ns }
    }

    /// Never 0: Go's runtime takes 0 for a broken clock and ends itself.
    pub(super) fn monotonic(&mut self) -> u64 {
        self.monotonic_ns = self.monotonic_ns.saturating_add(1);
        self.monotonic_ns
    }

    /// The deadline of a sleep that starts now.
    pub(super) fn after(&self, duration_ns: u64) -> u64 {
        self.monotonic_ns.saturating_add(duration_ns)
    }

    pub(super) fn has_reached(&self, deadline_ns: u64) -> bool {
        self.monotonic_ns >= deadline_ns
    }

    pub(super) fn sleep_until(&mut self, deadline_ns: u64) {
        let slept = deadline_ns.saturating_sub(self.monotonic_ns);
        self.slept_ns = self.slept_ns.saturating_add(slept);
        self.monotonic_ns += slept;
    }

    /// Seconds and nanoseconds since the epoch: the time of the call, and what the guest slept since.
    pub(super) fn wall(&self) -> (u64, u32) {
        let ns = self.call_ns.saturating_add(self.slept_ns);
        let rest = u32::try_from(ns % NS_PER_S).expect("BUG: a remainder of 1e9 fits 32 bits");
        (ns / NS_PER_S, rest)
    }
}

/// Three streams of splitmix64 from one seed, so that what a runtime draws for its hash tables leaves the guest's own draws alone.
#[derive(Debug)]
pub(super) struct Random {
    seed: u64,
    secure: u64,
    insecure: u64,
}

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(x: u64) -> u64 {
    let z = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(GAMMA);
    mix(*state)
}

fn fill(state: &mut u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&next(state).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl Random {
    fn new(seed: u64) -> Self {
        let stream = |number: u64| mix(mix(seed) ^ number);
        Self { seed: stream(1), secure: stream(2), insecure: stream(3) }
    }

    pub(super) fn secure_u64(&mut self) -> u64 {
        next(&mut self.secure)
    }

    pub(super) fn secure_bytes(&mut self, len: usize) -> Vec<u8> {
        fill(&mut self.secure, len)
    }

    pub(super) fn insecure_u64(&mut self) -> u64 {
        next(&mut self.insecure)
    }

    pub(super) fn insecure_bytes(&mut self, len: usize) -> Vec<u8> {
        fill(&mut self.insecure, len)
    }

    /// The same each time within a call, as `wasi:random/insecure-seed` allows.
    pub(super) fn insecure_seed(&self) -> (u64, u64) {
        (mix(self.seed.wrapping_add(GAMMA)), mix(self.seed.wrapping_add(GAMMA.wrapping_mul(2))))
    }
}

/// Pollables have a deadline; the other resources have nothing but their count.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: usize,
    /// By the representation less one; `None` is free.
    deadlines: Vec<Option<u64>>,
    free: Vec<u32>,
}

/// The representation of a pollable that is always ready.
pub(super) const READY: u32 = 0;

impl WasiState {
    /// Counts a handle that the guest is about to get.
    pub(super) fn open_handle(&mut self, function: &str) -> Result<(), WasiTrap> {
        if self.handles.open >= self.limits.handles_max {
            return Err(WasiTrap::Limit {
                function: function.to_string(),
                attempted: format!("one handle more than the {} that are open", self.handles.open),
                max: self.limits.handles_max as u64,
                limit: "handles_max",
            });
        }
        self.handles.open += 1;
        Ok(())
    }

    pub(super) fn close_handle(&mut self) {
        assert!(self.handles.open > 0, "BUG: a WASI handle was dropped that was never counted");
        self.handles.open -= 1;
    }

    /// A pollable that is ready once the monotonic clock has reached `deadline_ns`.
    pub(super) fn open_timer(&mut self, function: &str, deadline_ns: u64) -> Result<u32, WasiTrap> {
        self.open_handle(function)?;
        let handles = &mut self.handles;
        Ok(match handles.free.pop() {
            Some(rep) => {
                handles.deadlines[rep as usize - 1] = Some(deadline_ns);
                rep
            }
            None => {
                handles.deadlines.push(Some(deadline_ns));
                u32::try_from(handles.deadlines.len()).expect("BUG: more timers than handles_max")
            }
        })
    }

    pub(super) fn close_pollable(&mut self, rep: u32) {
        self.close_handle();
        if rep != READY {
            let open = self.handles.deadlines[rep as usize - 1].take();
            assert!(open.is_some(), "BUG: timer {rep} was dropped twice");
            self.handles.free.push(rep);
        }
    }

    /// 0, which is long past, for a pollable that is always ready.
    pub(super) fn deadline(&self, rep: u32) -> u64 {
        if rep == READY {
            return 0;
        }
        self.handles.deadlines[rep as usize - 1].expect("BUG: the component model let a dropped timer through")
    }
}
