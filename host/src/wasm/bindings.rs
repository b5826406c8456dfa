//! Generated from `wit/`: the contract as Rust types. Nothing here is written by hand.
//!
//! One world with the exports of both `processor` and `record-processor` is generated, and a component's own world is found out by
//! which of them it has. So types that both share are one type here.

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package tidegate:host;
        world any-processor {
            include tidegate:streaming/processor@0.1.0;
            export tidegate:streaming/record-processing@0.1.0;
        }
    ",
    world: "tidegate:host/any-processor",
    imports: { default: trappable },
    with: {
        "tidegate:streaming/state.value-state": crate::wasm::handle::ValueState,
        "tidegate:streaming/state.map-state": crate::wasm::handle::MapState,
        "tidegate:streaming/state.list-state": crate::wasm::handle::ListState,
        "tidegate:streaming/state.reducing-state": crate::wasm::handle::ReducingState,
        "tidegate:streaming/metrics.counter": crate::wasm::handle::Counter,
        "tidegate:streaming/metrics.gauge": crate::wasm::handle::Gauge,
        "tidegate:streaming/metrics.histogram": crate::wasm::handle::Histogram,
    },
});

pub use self::exports::tidegate::streaming::{batch_processing, lifecycle, record_processing};
pub use self::tidegate::streaming::{logging, metrics, output, state, timers, types};
