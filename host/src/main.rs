//! The `tidegate` program. Everything is in the library; here are only what a process has one of.

use std::process::ExitCode;
use std::sync::Arc;
use tidegate::cli::{self, Terminal};
use tidegate::config::HostConfig;
use tidegate::metrics::Metrics;
use tidegate::module_store::{ModuleInspector, ModuleStore};
use tidegate::server::{Engine, HostError, Wiring};

/// Batches are allocated on one thread and freed on another, which is what this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The wasm engine and the checkpoint store are connected here.
struct Wasm;

impl Wiring for Wasm {
    fn inspector(&self) -> Result<Arc<dyn ModuleInspector>, HostError> {
        Err(not_connected())
    }

    fn engine(&self, _: &HostConfig, _: &ModuleStore, _: &Arc<Metrics>) -> Result<Engine, HostError> {
        Err(not_connected())
    }
}

fn not_connected() -> HostError {
    HostError::Engine("it is not connected in this build".into())
}

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &Wasm, Terminal::of_the_process())
}
