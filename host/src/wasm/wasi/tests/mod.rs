//! Guests that want more than they get.

mod by_hand;
mod clock_and_seed;
mod rust_guest;

use super::*;
use wasmtime::component::{Instance, Val};
use wasmtime::{Config, Store};

/// Keeps what was logged.
struct Log {
    wasi: WasiState,
    lines: Vec<(Stream, String)>,
}

impl WasiView for Log {
    fn wasi(&mut self) -> &mut WasiState {
        &mut self.wasi
    }

    fn log_line(&mut self, stream: Stream, line: &str) {
        self.lines.push((stream, line.to_string()));
    }
}

struct Guest {
    store: Store<Log>,
    instance: Instance,
}

fn engine() -> Engine {
    let mut config = Config::new();
    config.wasm_component_model(true).concurrency_support(false);
    Engine::new(&config).expect("engine")
}

fn instantiate(engine: &Engine, component: &Component) -> wasmtime::Result<Guest> {
    let mut linker = Linker::new(engine);
    link(&mut linker, component, engine)?;
    let mut store = Store::new(engine, Log { wasi: WasiState::new(WasiLimits::default()), lines: Vec::new() });
    let instance = linker.instantiate(&mut store, component)?;
    Ok(Guest { store, instance })
}

fn wat(text: &str) -> Guest {
    let engine = engine();
    let component = Component::new(&engine, wat::parse_str(text).expect("WAT")).expect("component");
    instantiate(&engine, &component).expect("links")
}

const CALL_MS: i64 = 1_700_000_000_123;

impl Guest {
    fn call(&mut self, params: &[Val]) -> wasmtime::Result<Val> {
        let run = self.instance.get_func(&mut self.store, "run").expect("exports run");
        let mut results = [Val::Bool(false)];
        let result = run.call(&mut self.store, params, &mut results);
        finish_call(self.store.data_mut());
        let [value] = results;
        result.map(|()| value)
    }

    fn number(&mut self) -> wasmtime::Result<u64> {
        match self.call(&[])? {
            Val::U64(number) => Ok(number),
            Val::U32(number) => Ok(u64::from(number)),
            other => panic!("a number, not {other:?}"),
        }
    }

    fn trap(&mut self) -> WasiTrap {
        let error = self.call(&[]).expect_err("traps");
        error.downcast_ref::<WasiTrap>().unwrap_or_else(|| panic!("another error: {error:?}")).clone()
    }
}
