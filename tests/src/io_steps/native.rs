//! An operator that is part of the test: it chains the records of each key, so that one too many, too few or out of order changes
//! everything after it.

use crate::generator::mix;
use serde_json::Value;
use std::sync::Arc;
use tidegate::job::runtime::NativeModule;
use tidegate::state::{CallTime, StateId};
use tidegate::task::operator::NativeOperator;
use tidegate::wasm::env::OperatorEnv;
use tidegate_core::job_graph::validate::ModuleFacts;
use tidegate_core::row::{Row, Rows};
use tidegate_core::state_schema::{StateDeclaration, StateKind};

pub const REFERENCE: &str = "chain@1.0.0";
const STATE: StateId = StateId(0);

pub fn module() -> NativeModule {
    let state = StateDeclaration {
        name: "chain".into(),
        kind: StateKind::Value,
        value_type: "tuple<u64, u64>".into(),
        map_key_type: None,
        schema_version: 1,
        value_size: Some(16),
        ttl: None,
    };
    let facts =
        ModuleFacts { digest: "native".into(), keyed: true, inputs: 1, outputs: vec!["main".into()], states: vec![state] };
    NativeModule { facts, make: Arc::new(|| Box::new(Chain)) }
}

/// By key: how many there were, and a hash of all of them in their order.
struct Chain;

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl NativeOperator for Chain {
    fn process_batch(&mut self, _: u32, rows: &Rows, _: CallTime, env: &mut OperatorEnv) -> Result<(), String> {
        let state = env.state.as_mut().expect("BUG: the operator is keyed");
        let mut chains = state.value_load_fixed(STATE).map_err(|e| e.to_string())?;
        let mut out = Vec::new();
        for (row, slot) in rows.iter().zip(state.slots()) {
            let value: Value = serde_json::from_slice(row.value.unwrap_or_default()).map_err(|e| e.to_string())?;
            let at = *slot as usize * 16;
            let count = word(&chains, at) + 1;
            let hash = mix(word(&chains, at + 8) ^ value["v"].as_u64().unwrap_or_default());
            chains[at..at + 8].copy_from_slice(&count.to_le_bytes());
            chains[at + 8..at + 16].copy_from_slice(&hash.to_le_bytes());
            let line = format!("{} {count} {hash:016x}", value["k"]);
            Row::new(row.key, line.as_bytes(), row.timestamp).write(&mut out);
        }
        state.value_store_all_fixed(STATE, &chains).map_err(|e| e.to_string())?;
        let meta = Arc::clone(&env.meta);
        env.outputs.emit(&meta, 0, rows.count, out).map_err(|e| e.to_string())
    }
}
