//! Uploads as the module store sees them: looked into by the wasm engine.

use crate::api::{ModuleDescription, OperatorDescription};
use crate::module_store::{ModuleError, ModuleInfo, ModuleInspector, digest_of};
use crate::wasm::engine::WasmEngine;
use crate::wasm::worker::CompileWorkers;
use crate::wasm::{ModuleError as Unfit, inspect};

pub struct Inspector {
    engine: WasmEngine,
    /// `None`: in this process.
    workers: Option<CompileWorkers>,
}

impl Inspector {
    /// Compiles in this process: for programs that know their components.
    pub fn new(engine: WasmEngine) -> Self {
        Self { engine, workers: None }
    }

    /// Compiles in processes of their own: for components of strangers.
    pub fn with_workers(engine: WasmEngine, workers: CompileWorkers) -> Self {
        Self { engine, workers: Some(workers) }
    }
}

impl ModuleInspector for Inspector {
    fn inspect(&self, bytes: &[u8]) -> Result<ModuleInfo, ModuleError> {
        let digest = digest_of(bytes);
        let inspected = match &self.workers {
            Some(workers) => workers.inspect(bytes, &digest),
            None => inspect::inspect(&self.engine, bytes, &digest),
        };
        let inspected = inspected.map_err(unfit)?;
        let descriptor = inspected.info.descriptor;
        Ok(ModuleInfo {
            description: ModuleDescription {
                world: inspected.info.world,
                imports: inspected.info.imports,
                operator: OperatorDescription {
                    name: descriptor.name,
                    version: descriptor.version,
                    inputs: descriptor.inputs,
                    keyed: descriptor.keyed,
                    outputs: descriptor.outputs,
                },
                states: descriptor.states,
                compile_ms: inspected.info.compile_ms,
            },
            compiled: inspected.precompiled,
        })
    }

    fn engine_version(&self) -> String {
        self.engine.compatibility()
    }
}

fn unfit(error: Unfit) -> ModuleError {
    let cause = error.to_string();
    let is_of_the_host = matches!(error, Unfit::NoCompiler(_));
    let (remedy, problems) = match error {
        Unfit::NotAComponent(_) => ("build a component: cargo build --target wasm32-wasip2", Vec::new()),
        Unfit::DoesNotCompile(_) => ("check that the file is whole; wasm-tools validate says more", Vec::new()),
        Unfit::ForbiddenImports(_) => {
            ("take out what needs them: an operator gets its input as records and its time with each call", Vec::new())
        }
        Unfit::WrongWorld(_) => ("target the world processor or record-processor of tidegate:streaming@0.1.0", Vec::new()),
        Unfit::DescribeFailed(_) => {
            ("`describe` runs without state, input or output and must answer the same every time", Vec::new())
        }
        Unfit::BadDescriptor(problems) => ("mend what `describe` declares", problems),
        Unfit::DeclaresTooMuch(_) => ("build it with less memory, and fewer tables, to begin with", Vec::new()),
        Unfit::CompileTooLong { .. } | Unfit::CompileTooLarge { .. } => (
            "build it smaller and with smaller functions, or give the compiler more: --compile-seconds, --compile-memory",
            Vec::new(),
        ),
        Unfit::CompilerCrashed(_) => ("the host goes on; where the component is whole, please report it", Vec::new()),
        Unfit::NoCompiler(_) => ("look for a lack of memory or processes on this machine", Vec::new()),
    };
    ModuleError {
        attempted: "look into the component".to_owned(),
        cause,
        remedy: Some(remedy.to_owned()),
        problems,
        is_of_the_host,
    }
}
