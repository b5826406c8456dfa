//! What a component is and what it declares: asked once, at upload.

use super::bindings::lifecycle;
use super::engine::WasmEngine;
use super::env::OperatorMeta;
use super::instance::{DESCRIBE, LoadedModule};
use super::{ModuleError, imports};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use tidegate_core::limits::{
    DESCRIBE_MEMORY_BYTES_MAX, GuestLimits, IMPORTS_BYTES_MAX, MEMORIES_MAX, PROBLEMS_MAX, REASON_BYTES_MAX, RowLimits,
    TABLE_ELEMENTS_MAX, TABLES_MAX,
};
use tidegate_core::problem::{self, Problem};
use tidegate_core::state_schema::{self, Reducer, StateDeclaration, StateKind, TimeToLive};
use wasmtime::component::Component;

/// What the host knows of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleInfo {
    pub digest: String,
    pub bytes: u64,
    /// `processor` or `record-processor`
    pub world: String,
    pub imports: Vec<String>,
    pub has_migration: bool,
    pub compile_ms: u64,
    pub descriptor: Descriptor,
}

/// What `describe` answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    pub name: String,
    pub version: String,
    pub inputs: u32,
    pub keyed: bool,
    pub outputs: Vec<String>,
    pub states: Vec<StateDeclaration>,
}

/// A checked component and its machine code, which [`load`] takes back.
pub struct Inspected {
    pub info: ModuleInfo,
    pub precompiled: Vec<u8>,
}

/// A component that the compiler took, and how long that was.
pub struct Compiled {
    component: Component,
    compile_ms: u64,
}

/// Compiles and checks a component in this process: for a worker, and for programs that run components they trust.
pub fn inspect(engine: &WasmEngine, bytes: &[u8], digest: &str) -> Result<Inspected, ModuleError> {
    inspect_compiled(engine, compile(engine, bytes)?, bytes.len(), digest)
}

pub fn compile(engine: &WasmEngine, bytes: &[u8]) -> Result<Compiled, ModuleError> {
    check_preamble(bytes)?;
    let begun = Instant::now();
    let component =
        Component::from_binary(engine.engine(), bytes).map_err(|e| ModuleError::DoesNotCompile(cut(format!("{e:#}"))))?;
    Ok(Compiled { component, compile_ms: begun.elapsed().as_millis() as u64 })
}

/// Looks into a compiled component: its world, its imports, what it declares. Runs its `describe`.
pub fn inspect_compiled(engine: &WasmEngine, compiled: Compiled, bytes: usize, digest: &str) -> Result<Inspected, ModuleError> {
    let Compiled { component, compile_ms } = compiled;
    check_declared(&component)?;
    let kind = component.component_type();
    let names: usize = kind.imports(engine.engine()).map(|(name, _)| name.len()).sum();
    if names > IMPORTS_BYTES_MAX {
        let message = format!("imports with names of {names} bytes, the limit is {IMPORTS_BYTES_MAX} (imports_bytes_max)");
        return Err(ModuleError::DeclaresTooMuch(message));
    }
    let has_migration = kind.exports(engine.engine()).any(|(name, _)| name.starts_with("tidegate:streaming/migration@"));
    let module = LoadedModule::new(engine, &component, "(upload)", digest)?;
    let imports = kind.imports(engine.engine()).map(|(name, _)| name.to_owned()).collect();
    let descriptor = describe(&module)?;
    let world = if module.takes_batches() { "processor" } else { "record-processor" };
    let info = ModuleInfo {
        digest: digest.to_owned(),
        bytes: bytes as u64,
        world: world.to_owned(),
        imports,
        has_migration,
        compile_ms,
        descriptor,
    };
    let precompiled = component.serialize().map_err(|e| ModuleError::DoesNotCompile(format!("{e:#}")))?;
    Ok(Inspected { info, precompiled })
}

/// What an instance will need from its first moment, of which the host knows before there is one.
fn check_declared(component: &Component) -> Result<(), ModuleError> {
    // None: it imports core modules, which linking refuses.
    let Some(required) = component.resources_required() else { return Ok(()) };
    const PAGE_BYTES: u64 = 64 << 10;
    let memory = required.max_initial_memory_size.unwrap_or(0).saturating_mul(PAGE_BYTES);
    for (what, found, limit, name) in [
        ("memories", u64::from(required.num_memories), MEMORIES_MAX as u64, "memories_max"),
        ("tables", u64::from(required.num_tables), TABLES_MAX as u64, "tables_max"),
        ("bytes of memory to begin with", memory, DESCRIBE_MEMORY_BYTES_MAX as u64, "describe_memory_bytes_max"),
        ("elements of one table", required.max_initial_table_size.unwrap_or(0), TABLE_ELEMENTS_MAX as u64, "table_elements_max"),
    ] {
        if found > limit {
            return Err(ModuleError::DeclaresTooMuch(format!("{found} {what}, the limit is {limit} ({name})")));
        }
    }
    Ok(())
}

/// The compiler quotes names of the component, which may be of any length.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
    text
}

/// Loads machine code that this host has made and stored itself.
#[allow(unsafe_code)]
pub fn load(engine: &WasmEngine, precompiled: &[u8]) -> Result<Component, ModuleError> {
    // SAFETY: machine code comes only from the host's own cache folder, under a name that carries the component's digest and the
    // engine's compatibility hash; whoever can write there can replace the binary as well.
    unsafe { Component::deserialize(engine.engine(), precompiled) }.map_err(|e| ModuleError::DoesNotCompile(format!("{e:#}")))
}

fn check_preamble(bytes: &[u8]) -> Result<(), ModuleError> {
    const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
    let what = if bytes.starts_with(CORE_MODULE) {
        "this is a core module, not a component: build for wasm32-wasip2, or wrap it with `wasm-tools component new`"
    } else if !bytes.starts_with(b"\0asm") {
        "this is not WebAssembly: the first bytes of a component are 00 61 73 6d"
    } else {
        return Ok(());
    };
    Err(ModuleError::NotAComponent(what.to_owned()))
}

fn describe(module: &LoadedModule) -> Result<Descriptor, ModuleError> {
    let limits = GuestLimits { memory_bytes_max: DESCRIBE_MEMORY_BYTES_MAX, output_bytes_max: 0, ..GuestLimits::default() };
    let meta = Arc::new(OperatorMeta {
        job: String::new(),
        operator: DESCRIBE.to_owned(),
        module: module.reference.clone(),
        digest: module.digest.clone(),
        task_index: 0,
        parallelism: 1,
        options: Vec::new(),
        ports: 0,
        keyed: false,
        limits,
        row_limits: RowLimits::default(),
        journal: None,
    });
    let described = module.describe(meta).map_err(|e| ModuleError::DescribeFailed(cut(e.to_string())))?;
    let mut problems = Vec::new();
    let mut bounded = |key: &str, found: usize, limit: usize, name: &str| {
        if found > limit {
            problems.push(Problem::new(key, Some(found.to_string()), format!("the limit is {limit} ({name})")));
        }
    };
    bounded("name", described.name.len(), limits.name_bytes_max, "name_bytes_max");
    bounded("version", described.version.len(), limits.name_bytes_max, "name_bytes_max");
    bounded("inputs", described.inputs as usize, limits.declarations_max, "declarations_max");
    bounded("outputs", described.outputs.len(), limits.declarations_max, "declarations_max");
    bounded("states", described.states.len(), limits.declarations_max, "declarations_max");
    // What is too many is told as one problem, not as one for each.
    for output in described.outputs.iter().take(PROBLEMS_MAX) {
        bounded("outputs", output.len(), limits.name_bytes_max, "name_bytes_max");
    }
    if !problems.is_empty() {
        return Err(ModuleError::BadDescriptor(problem::bounded(problems)));
    }
    let states: Vec<_> = described.states.into_iter().map(declaration).collect();
    problems.extend(state_schema::validate(&states, &limits));
    if described.inputs == 0 {
        problems.push(Problem::new("inputs", Some("0".to_owned()), "an operator has at least one input"));
    }
    if !states.is_empty() && !described.keyed {
        problems.push(Problem::new("keyed", Some("false".to_owned()), "states belong to keys: an operator with states is keyed"));
    }
    for (i, output) in described.outputs.iter().enumerate() {
        if described.outputs[..i].contains(output) {
            problems.push(Problem::new("outputs", Some(output.clone()), "the name stands twice"));
        }
    }
    if !problems.is_empty() {
        return Err(ModuleError::BadDescriptor(problem::bounded(problems)));
    }
    Ok(Descriptor {
        name: described.name,
        version: described.version,
        inputs: described.inputs,
        keyed: described.keyed,
        outputs: described.outputs,
        states,
    })
}

fn declaration(declared: lifecycle::StateDeclaration) -> StateDeclaration {
    use super::bindings::state::Reducer as Wit;
    StateDeclaration {
        name: declared.name,
        kind: match declared.kind {
            lifecycle::StateKind::ValueState => StateKind::Value,
            lifecycle::StateKind::MapState => StateKind::Map,
            lifecycle::StateKind::ListState => StateKind::List,
            lifecycle::StateKind::ReducingState(reducer) => StateKind::Reducing(match reducer {
                Wit::SumS64 => Reducer::SumS64,
                Wit::SumF64 => Reducer::SumF64,
                Wit::MinS64 => Reducer::MinS64,
                Wit::MaxS64 => Reducer::MaxS64,
                Wit::MinF64 => Reducer::MinF64,
                Wit::MaxF64 => Reducer::MaxF64,
                Wit::Count => Reducer::Count,
            }),
        },
        value_type: declared.value_type,
        map_key_type: declared.map_key_type,
        schema_version: declared.schema_version,
        value_size: declared.value_size,
        ttl: declared.ttl.map(|ttl| TimeToLive { ms: ttl.ms, domain: imports::time_domain(ttl.domain) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sdk_operator_is_what_it_declares() {
        let engine = WasmEngine::new().unwrap();
        let bytes = std::fs::read(guest_build::component("running-totals")).unwrap();
        let inspected = inspect(&engine, &bytes, "d").unwrap();
        let descriptor = &inspected.info.descriptor;
        assert_eq!((inspected.info.world.as_str(), descriptor.keyed, descriptor.inputs), ("processor", true, 1));
        assert_eq!((descriptor.states[0].name.as_str(), descriptor.states[0].value_size), ("totals", Some(16)));
        load(&engine, &inspected.precompiled).unwrap();
    }

    #[test]
    fn what_is_no_component_is_refused_with_the_reason() {
        let engine = WasmEngine::new().unwrap();
        let error = |bytes: &[u8]| inspect(&engine, bytes, "d").err().unwrap().to_string();
        assert!(error(b"#!/bin/sh").contains("this is not WebAssembly"));
        assert!(error(b"\0asm\x01\0\0\0").contains("core module, not a component"));
        assert!(error(b"\0asm\x0d\0\x01\0garbage").contains("does not compile"));
        let empty = wat::parse_str("(component)").unwrap();
        assert!(error(&empty).contains("does not serve a world"));
    }
}
