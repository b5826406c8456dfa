//! Guests: compiling, checking, linking and running components. The only place that names `wasmtime`.
//!
//! * [`engine`]: one engine for a host, with the tick that keeps deadlines;
//! * [`inspect`]: what a component is and declares, at upload;
//! * [`worker`]: the compiler in a process of its own, so that no component can eat the host;
//! * [`instance`]: calls into a running one;
//! * [`imports`] and [`wasi`]: what a guest can reach, and nothing else.

pub mod bindings;
pub mod engine;
pub mod env;
pub mod guest_metrics;
mod handle;
mod imports;
pub mod inspect;
pub mod instance;
mod log_rate;
pub mod self_test;
pub mod wasi;
pub mod worker;

use engine::WasmEngine;
use instance::GuestStore;
use serde::{Deserialize, Serialize};
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

/// Why a component can't be an operator.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum ModuleError {
    #[error("{0}")]
    NotAComponent(String),
    #[error("the component does not compile: {0}")]
    DoesNotCompile(String),
    #[error(transparent)]
    ForbiddenImports(wasi::ForbiddenImports),
    #[error("the component does not serve a world of tidegate:streaming@0.1.0: {0}")]
    WrongWorld(String),
    #[error("`describe` failed: {0}")]
    DescribeFailed(String),
    #[error("what `describe` declares is wrong: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    BadDescriptor(Vec<tidegate_core::problem::Problem>),
    #[error("the component declares more than an operator can have: {0}")]
    DeclaresTooMuch(String),
    #[error("the compiler needed more than {seconds} s for the component (compile_seconds_max)")]
    CompileTooLong { seconds: u64 },
    #[error("the compiler needed more than {bytes} bytes of memory for the component (compile_memory_bytes_max)")]
    CompileTooLarge { bytes: u64 },
    #[error("the compiler crashed over the component: {0}")]
    CompilerCrashed(String),
    /// Nothing is known of the component.
    #[error("the compiler can't be run: {0}")]
    NoCompiler(String),
}

/// Links everything a component may import, and refuses the rest by name.
fn link(engine: &WasmEngine, component: &Component) -> Result<InstancePre<GuestStore>, ModuleError> {
    let mut linker = Linker::<GuestStore>::new(engine.engine());
    wasi::link(&mut linker, component, engine.engine()).map_err(|error| match error {
        wasi::LinkError::Forbidden(forbidden) => ModuleError::ForbiddenImports(forbidden),
        error => ModuleError::WrongWorld(error.to_string()),
    })?;
    let linked = |result: wasmtime::Result<()>| result.map_err(|e| ModuleError::WrongWorld(format!("{e:#}")));
    linked(bindings::types::add_to_linker::<_, HasSelf<_>>(&mut linker, |data| data))?;
    linked(bindings::state::add_to_linker::<_, HasSelf<_>>(&mut linker, |data| data))?;
    linked(bindings::timers::add_to_linker::<_, HasSelf<_>>(&mut linker, |data| data))?;
    linked(bindings::output::add_to_linker::<_, HasSelf<_>>(&mut linker, |data| data))?;
    linked(bindings::logging::add_to_linker::<_, HasSelf<_>>(&mut linker, |data| data))?;
    linked(bindings::metrics::add_to_linker::<_, HasSelf<_>>(&mut linker, |data| data))?;
    linker.instantiate_pre(component).map_err(|e| ModuleError::WrongWorld(format!("{e:#}")))
}
