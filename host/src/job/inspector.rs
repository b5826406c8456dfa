//! Uploads as the module store sees them: looked into by the wasm engine.

use crate::api::{ModuleDescription, OperatorDescription};
use crate::module_store::{ModuleError, ModuleInfo, ModuleInspector, digest_of};
use crate::wasm::engine::WasmEngine;
use crate::wasm::{ModuleError as Unfit, inspect};

pub struct Inspector {
    engine: WasmEngine,
}

impl Inspector {
    pub fn new(engine: WasmEngine) -> Self {
        Self { engine }
    }
}

impl ModuleInspector for Inspector {
    fn inspect(&self, bytes: &[u8]) -> Result<ModuleInfo, ModuleError> {
        let inspected = inspect::inspect(&self.engine, bytes, &digest_of(bytes)).map_err(unfit)?;
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
    };
    ModuleError { attempted: "look into the component".to_owned(), cause, remedy: Some(remedy.to_owned()), problems }
}
