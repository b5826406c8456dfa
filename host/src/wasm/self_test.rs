//! Does the engine work on this machine? A component of 90 bytes is compiled and called.

use super::engine::WasmEngine;
use std::time::{Duration, Instant};
use wasmtime::Store;
use wasmtime::component::{Component, Linker};

/// `(component … (func (export "run") (result u32)))`, which answers 42.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0\
    \x01\x24\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x07\x07\x01\x03run\0\0\x0a\x06\x01\x04\0\x41\x2a\x0b\
    \x02\x04\x01\0\0\0\
    \x06\x09\x01\0\0\x01\0\x03run\
    \x07\x05\x01\x40\0\0\x79\
    \x08\x06\x01\0\0\0\0\0\
    \x0b\x09\x01\0\x03run\x01\0\0";

/// How long it took.
pub fn self_test() -> Result<Duration, String> {
    let begun = Instant::now();
    let answer = run().map_err(|error| format!("{error:#}"))?;
    if answer != 42 {
        return Err(format!("a component that answers 42 answered {answer}"));
    }
    Ok(begun.elapsed())
}

fn run() -> wasmtime::Result<u32> {
    let engine = WasmEngine::new()?;
    let component = Component::from_binary(engine.engine(), COMPONENT)?;
    let mut store = Store::new(engine.engine(), ());
    store.set_epoch_deadline(WasmEngine::deadline_ticks(10_000));
    let instance = Linker::new(engine.engine()).instantiate(&mut store, &component)?;
    let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run")?;
    let (answer,) = run.call(&mut store, ())?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_compiles_and_runs_a_component() {
        self_test().unwrap();
    }
}
