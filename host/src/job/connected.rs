//! The host as users run it: the wasm engine, the checkpoint store and the runtime of jobs behind the seams of the server.

use super::inspector::Inspector;
use super::runtime::{Runtime, SharedRuntime};
use crate::config::HostConfig;
use crate::metrics::Metrics;
use crate::module_store::{ModuleInspector, ModuleStore};
use crate::server::{Engine, HostError, Wiring};
use crate::wasm::engine::WasmEngine;
use crate::wasm::worker::{self, CompileWorkers};
use std::sync::{Arc, OnceLock};
use tidegate_core::limits::CompileLimits;

/// One engine for uploads and jobs: code that was compiled for the one runs in the other.
#[derive(Default)]
pub struct Connected {
    engine: OnceLock<WasmEngine>,
}

impl Connected {
    fn wasm(&self) -> Result<WasmEngine, HostError> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine.clone());
        }
        let engine = WasmEngine::new().map_err(|e| HostError::Engine(format!("{e:#}")))?;
        Ok(self.engine.get_or_init(|| engine).clone())
    }
}

impl Wiring for Connected {
    fn inspector(&self, limits: CompileLimits) -> Result<Arc<dyn ModuleInspector>, HostError> {
        let workers = CompileWorkers::new(limits);
        let workers =
            workers.map_err(|e| HostError::Engine(format!("find this program, which compiles in a process of its own: {e}")))?;
        Ok(Arc::new(Inspector::with_workers(self.wasm()?, workers)))
    }

    fn compile_worker(&self, limits: CompileLimits) -> u8 {
        worker::serve(limits)
    }

    fn engine(&self, config: &HostConfig, modules: &ModuleStore, metrics: &Arc<Metrics>) -> Result<Engine, HostError> {
        let runtime =
            Arc::new(Runtime::new(self.wasm()?, modules.clone(), &config.data, Arc::clone(metrics)).with_amnesia(config.amnesia));
        let shared = SharedRuntime(runtime);
        Ok(Engine { runtime: Arc::new(shared.clone()), archive: Arc::new(shared) })
    }
}
