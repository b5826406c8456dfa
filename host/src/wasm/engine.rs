//! The engine that compiles and runs guests: one for a host.
//!
//! Invariants:
//! * no guest call runs for longer than its deadline and one tick: the engine's epoch moves on every [`TICK`];
//! * concurrency support is off: it makes every crossing of the boundary three times dearer, and operators are synchronous.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_core::limits::GUEST_STACK_BYTES_MAX;
use wasmtime::{Config, Engine, OptLevel, WasmBacktraceDetails};

/// How finely deadlines are kept.
pub const TICK: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub struct WasmEngine {
    engine: Engine,
    _ticker: Arc<Ticker>,
}

/// Ends the ticking thread with the last clone of the engine.
struct Ticker(Arc<AtomicBool>);

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl WasmEngine {
    pub fn new() -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config
            .concurrency_support(false)
            .epoch_interruption(true)
            .max_wasm_stack(GUEST_STACK_BYTES_MAX)
            .cranelift_opt_level(OptLevel::Speed)
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .wasm_memory64(false);
        let engine = Engine::new(&config)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (weak, stop) = (engine.weak(), Arc::clone(&stopped));
        std::thread::Builder::new()
            .name("tg-epoch".into())
            .spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(TICK);
                    let Some(engine) = weak.upgrade() else { return };
                    engine.increment_epoch();
                }
            })
            .map_err(wasmtime::Error::new)?;
        Ok(Self { engine, _ticker: Arc::new(Ticker(stopped)) })
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ticks that a call of so many milliseconds may last. One more, because the current tick has begun already.
    pub fn deadline_ticks(milliseconds: u64) -> u64 {
        milliseconds.div_ceil(TICK.as_millis() as u64) + 1
    }

    /// Names what a precompiled component must have been made by to be loaded again.
    pub fn compatibility(&self) -> String {
        use std::hash::{Hash, Hasher};
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}
