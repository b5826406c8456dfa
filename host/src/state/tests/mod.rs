//! Keyed state from outside, as the wasm boundary and the task use it.

mod clock_jumps;
mod guests;
mod lifecycle;
mod model;
mod timers;
mod ttl;

use super::*;
use tidegate_core::row::Rows;
use tidegate_core::state_schema::{Reducer, TimeToLive};

pub(super) const GROUPS: u32 = 8;

pub(super) fn declare(name: &str, kind: StateKind, value_size: Option<u32>) -> StateDeclaration {
    StateDeclaration {
        name: name.into(),
        kind,
        value_type: "bytes".into(),
        map_key_type: None,
        schema_version: 1,
        value_size,
        ttl: None,
    }
}

/// One of each kind. Their names are not in the order of the declarations.
pub(super) fn declarations() -> Vec<StateDeclaration> {
    vec![
        declare("pair", StateKind::Value, Some(16)),
        declare("note", StateKind::Value, None),
        declare("block", StateKind::Value, Some(300)),
        declare("sum", StateKind::Reducing(Reducer::SumS64), None),
        declare("window", StateKind::Map, None),
        declare("log", StateKind::List, None),
    ]
}

pub(super) const PAIR: StateId = StateId(0);
pub(super) const NOTE: StateId = StateId(1);
pub(super) const BLOCK: StateId = StateId(2);
pub(super) const SUM: StateId = StateId(3);
pub(super) const WINDOW: StateId = StateId(4);
pub(super) const LOG: StateId = StateId(5);

pub(super) fn state_of(declarations: &[StateDeclaration], owned: Range<u32>) -> KeyedState {
    KeyedState::new(declarations, GROUPS, owned, &GuestLimits::default())
}

pub(super) fn state() -> KeyedState {
    state_of(&declarations(), 0..GROUPS)
}

pub(super) fn at(watermark: i64) -> CallTime {
    CallTime { watermark, processing_time: watermark }
}

pub(super) fn ttl(ms: u64, domain: TimeDomain) -> Option<TimeToLive> {
    Some(TimeToLive { ms, domain })
}

pub(super) fn rows_of<K: AsRef<[u8]>>(keys: &[K]) -> Rows {
    let mut rows = Rows::default();
    for key in keys {
        rows.push(&tidegate_core::row::Row::new(key.as_ref(), b"payload", 5));
    }
    rows
}

pub(super) fn begin<K: AsRef<[u8]>>(state: &mut KeyedState, keys: &[K]) {
    let rows = rows_of(keys);
    state.begin_batch(&rows.bytes, rows.count, at(0));
}

pub(super) fn drain_all(state: &mut KeyedState) -> Segment {
    loop {
        if let Some(frozen) = state.drain(1000) {
            return frozen.write_segment();
        }
    }
}

pub(super) fn snapshot(state: &mut KeyedState, full: bool) -> Segment {
    state.freeze(full);
    drain_all(state)
}

pub(super) fn column<V: AsRef<[u8]>>(values: &[V]) -> Column {
    values.iter().map(AsRef::as_ref).collect()
}
