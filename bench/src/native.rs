//! The operators of the workloads in Rust, in the same runtime: the limit that a guest is measured against.
//!
//! They use the host's state and outputs as a guest does through the contract (distinct keys of a batch loaded and stored once),
//! so the difference is WebAssembly and the boundary.

use crate::plan::{RunPlan, Workload};
use std::sync::Arc;
use tidegate::job::plan::MakeNative;
use tidegate::job::runtime::NativeModule;
use tidegate::state::{CallTime, Column, StateId};
use tidegate::task::operator::NativeOperator;
use tidegate::wasm::env::OperatorEnv;
use tidegate_core::job_graph::validate::ModuleFacts;
use tidegate_core::row::{HEADER_BYTES, Row, Rows};
use tidegate_core::state_schema::{StateDeclaration, StateKind};

const STATE: StateId = StateId(0);

pub fn module(plan: &RunPlan) -> NativeModule {
    let value_bytes = usize::try_from(plan.value_bytes).unwrap_or(usize::MAX);
    let pass_all = plan.workload == Workload::W1map;
    let (states, make): (Vec<StateDeclaration>, MakeNative) = match plan.workload {
        Workload::W0 | Workload::W1 | Workload::W1map => (Vec::new(), Arc::new(move || Box::new(Convert { pass_all }))),
        Workload::W2 | Workload::W2bad | Workload::Cold => {
            (vec![declared("tuple<u64, u64>", Some(16))], Arc::new(|| Box::new(Totals)))
        }
        Workload::Ws => (vec![declared("bytes", None)], Arc::new(move || Box::new(Rewrite { value_bytes }))),
    };
    let facts =
        ModuleFacts { digest: "native".into(), keyed: !states.is_empty(), inputs: 1, outputs: vec!["main".into()], states };
    NativeModule { facts, make }
}

fn declared(value_type: &str, value_size: Option<u32>) -> StateDeclaration {
    StateDeclaration {
        name: "state".into(),
        kind: StateKind::Value,
        value_type: value_type.into(),
        map_key_type: None,
        schema_version: 1,
        value_size,
        ttl: None,
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// w1: price * 908 / 1000, one auction in 123 passes.
struct Convert {
    pass_all: bool,
}

impl NativeOperator for Convert {
    fn process_batch(&mut self, _: u32, rows: &Rows, _: CallTime, env: &mut OperatorEnv) -> Result<(), String> {
        let mut out = Vec::new();
        let mut count = 0;
        for row in rows.iter() {
            let value = row.value.unwrap_or_default();
            if !self.pass_all && !word(value, 0).is_multiple_of(123) {
                continue;
            }
            let start = out.len();
            row.write(&mut out);
            let price = start + HEADER_BYTES + row.key.len() + 16;
            out[price..price + 8].copy_from_slice(&(word(value, 16) * 908 / 1000).to_le_bytes());
            count += 1;
        }
        let meta = Arc::clone(&env.meta);
        env.outputs.emit(&meta, 0, count, out).map_err(|e| e.to_string())
    }
}

/// w2: count and sum for each key.
struct Totals;

impl NativeOperator for Totals {
    fn process_batch(&mut self, _: u32, rows: &Rows, _: CallTime, env: &mut OperatorEnv) -> Result<(), String> {
        let state = env.state.as_mut().expect("BUG: w2 is keyed");
        let mut totals = state.value_load_fixed(STATE).map_err(|e| e.to_string())?;
        let mut out = Vec::with_capacity(rows.count as usize * (HEADER_BYTES + 8 + 24));
        for (row, slot) in rows.iter().zip(state.slots()) {
            let value = row.value.unwrap_or_default();
            let at = *slot as usize * 16;
            let (count, sum) = (word(&totals, at) + 1, word(&totals, at + 8).wrapping_add(word(value, 16)));
            totals[at..at + 8].copy_from_slice(&count.to_le_bytes());
            totals[at + 8..at + 16].copy_from_slice(&sum.to_le_bytes());
            let mut result = [0; 24];
            result[..8].copy_from_slice(&value[8..16]);
            result[8..16].copy_from_slice(&count.to_le_bytes());
            result[16..].copy_from_slice(&sum.to_le_bytes());
            Row::new(row.key, &result, row.timestamp).write(&mut out);
        }
        state.value_store_all_fixed(STATE, &totals).map_err(|e| e.to_string())?;
        let meta = Arc::clone(&env.meta);
        env.outputs.emit(&meta, 0, rows.count, out).map_err(|e| e.to_string())
    }
}

/// ws: the whole value of the key rewritten.
struct Rewrite {
    value_bytes: usize,
}

impl NativeOperator for Rewrite {
    fn process_batch(&mut self, _: u32, rows: &Rows, _: CallTime, env: &mut OperatorEnv) -> Result<(), String> {
        let state = env.state.as_mut().expect("BUG: ws is keyed");
        let before = state.value_load(STATE).map_err(|e| e.to_string())?;
        let mut counters: Vec<u64> = before.iter().map(|value| if value.is_empty() { 0 } else { word(value, 0) }).collect();
        let mut seeds = vec![0; counters.len()];
        let mut out = Vec::new();
        for (row, slot) in rows.iter().zip(state.slots()) {
            counters[*slot as usize] += 1;
            seeds[*slot as usize] = word(row.value.unwrap_or_default(), 0);
            let mut result = [0; 24];
            result[..8].copy_from_slice(row.key);
            result[8..16].copy_from_slice(&counters[*slot as usize].to_le_bytes());
            Row::new(row.key, &result, row.timestamp).write(&mut out);
        }
        let mut values = Column::new();
        let mut value = vec![0; self.value_bytes.max(8)];
        for (counter, seed) in counters.iter().zip(&seeds) {
            fill(&mut value, *seed);
            value[..8].copy_from_slice(&counter.to_le_bytes());
            values.push(&value);
        }
        let slots: Vec<u32> = (0..counters.len() as u32).collect();
        state.value_store(STATE, &slots, &values).map_err(|e| e.to_string())?;
        let meta = Arc::clone(&env.meta);
        env.outputs.emit(&meta, 0, rows.count, out).map_err(|e| e.to_string())
    }
}

/// Bytes that do not compress, as the guest makes them.
fn fill(value: &mut [u8], seed: u64) {
    let mut state = seed;
    for chunk in value.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}
