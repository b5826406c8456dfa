//! The host's side of every import of the contract.
//!
//! Thin on purpose: find the operator's environment, check what the guest says against its limits, hand on. State checks its own
//! arguments, since it knows slots and sizes. An error of any function here is a trap in the guest, which undoes the call.

use super::bindings::{logging, metrics, output, state, timers, types};
use super::env::{OperatorEnv, OperatorMeta, Phase, violation};
use super::guest_metrics::MetricKind;
use super::handle;
use super::instance::GuestStore;
use crate::state::{Column, KeyedState, StateId};
use tidegate_core::state_schema::{StateKind, TimeDomain};
use wasmtime::Result;
use wasmtime::component::Resource;

impl From<Column> for types::BytesColumn {
    fn from(column: Column) -> Self {
        Self { data: column.data, offsets: column.offsets }
    }
}

impl From<types::BytesColumn> for Column {
    fn from(column: types::BytesColumn) -> Self {
        Self { data: column.data, offsets: column.offsets }
    }
}

pub fn time_domain(domain: types::TimeDomain) -> TimeDomain {
    match domain {
        types::TimeDomain::EventTime => TimeDomain::EventTime,
        types::TimeDomain::ProcessingTime => TimeDomain::ProcessingTime,
    }
}

impl GuestStore {
    fn env(&mut self) -> Result<&mut OperatorEnv> {
        self.env.as_deref_mut().ok_or_else(|| violation("nothing but logging can be used before the call has begun"))
    }

    /// The state of a call that has keys: not in `describe`, not in `start`, not in an operator without keyed input.
    fn keyed(&mut self) -> Result<&mut KeyedState> {
        let env = self.env()?;
        if matches!(env.phase, Phase::Describe | Phase::Start) {
            return Err(violation(
                "state can be read and written while records or timers are processed, not in `describe` or `start`",
            ));
        }
        // At each access, so that no call grows far beyond: the last one is looked at when the call is over.
        env.check_state_bytes()?;
        env.state.as_mut().ok_or_else(|| violation("the operator is not keyed, so it has no state: set `keyed` in `describe`"))
    }

    fn state_handle<T>(&mut self, name: &str, is_kind: impl Fn(StateKind) -> bool, kind: &str) -> Result<Resource<T>> {
        self.count_handle()?;
        let env = self.env()?;
        let Some(state) = &env.state else {
            if env.phase == Phase::Describe {
                return Err(violation(format!("state `{name:.100}` was opened in `describe`, which has no state")));
            }
            return Err(violation(format!("state `{name:.100}` was opened, but the operator is not keyed")));
        };
        match state.state_id(name) {
            Some((StateId(id), found)) if is_kind(found) => Ok(Resource::new_own(u32::from(id))),
            Some((_, found)) => Err(violation(format!("state `{name}` was declared as {found:?} and opened as a {kind}"))),
            None => Err(violation(format!("state `{name:.100}` was not declared by `describe`"))),
        }
    }

    fn count_handle(&mut self) -> Result<()> {
        self.handles += 1;
        let limit = self.env()?.meta.limits.handles_max;
        if self.handles > limit {
            return Err(violation(format!("{} handles are open at once, the limit is {limit} (handles_max)", self.handles)));
        }
        Ok(())
    }

    fn metric_handle<T>(&mut self, name: String, kind: MetricKind) -> Result<Resource<T>> {
        self.count_handle()?;
        let env = self.env()?;
        let limits = env.meta.limits;
        Ok(Resource::new_own(env.metrics.open(name, kind, &limits)?))
    }

    fn dropped(&mut self) -> Result<()> {
        self.handles = self.handles.saturating_sub(1);
        Ok(())
    }
}

fn id<T>(handle: &Resource<T>) -> StateId {
    StateId(u16::try_from(handle.rep()).expect("BUG: a state handle that we did not make"))
}

impl types::Host for GuestStore {}
impl state::Host for GuestStore {}
impl metrics::Host for GuestStore {}

impl state::HostValueState for GuestStore {
    fn new(&mut self, name: String) -> Result<Resource<handle::ValueState>> {
        self.state_handle(&name, |kind| kind == StateKind::Value, "value-state")
    }

    fn get(&mut self, state: Resource<handle::ValueState>, key: u32) -> Result<Option<Vec<u8>>> {
        Ok(self.keyed()?.value_get(id(&state), key)?.map(<[u8]>::to_vec))
    }

    fn put(&mut self, state: Resource<handle::ValueState>, key: u32, value: Vec<u8>) -> Result<()> {
        Ok(self.keyed()?.value_put(id(&state), key, &value)?)
    }

    fn clear(&mut self, state: Resource<handle::ValueState>, key: u32) -> Result<()> {
        Ok(self.keyed()?.value_clear(id(&state), key)?)
    }

    fn load(&mut self, state: Resource<handle::ValueState>) -> Result<types::BytesColumn> {
        Ok(self.keyed()?.value_load(id(&state))?.into())
    }

    fn store(&mut self, state: Resource<handle::ValueState>, slots: Vec<u32>, values: types::BytesColumn) -> Result<()> {
        Ok(self.keyed()?.value_store(id(&state), &slots, &values.into())?)
    }

    fn load_fixed(&mut self, state: Resource<handle::ValueState>) -> Result<Vec<u8>> {
        Ok(self.keyed()?.value_load_fixed(id(&state))?)
    }

    fn store_fixed(&mut self, state: Resource<handle::ValueState>, slots: Vec<u32>, values: Vec<u8>) -> Result<()> {
        Ok(self.keyed()?.value_store_fixed(id(&state), &slots, &values)?)
    }

    fn store_all_fixed(&mut self, state: Resource<handle::ValueState>, values: Vec<u8>) -> Result<()> {
        Ok(self.keyed()?.value_store_all_fixed(id(&state), &values)?)
    }

    fn drop(&mut self, _: Resource<handle::ValueState>) -> Result<()> {
        self.dropped()
    }
}

impl state::HostMapState for GuestStore {
    fn new(&mut self, name: String) -> Result<Resource<handle::MapState>> {
        self.state_handle(&name, |kind| kind == StateKind::Map, "map-state")
    }

    fn get(&mut self, state: Resource<handle::MapState>, key: u32, map_key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        Ok(self.keyed()?.map_get(id(&state), key, &map_key)?.map(<[u8]>::to_vec))
    }

    fn put(&mut self, state: Resource<handle::MapState>, key: u32, map_key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        Ok(self.keyed()?.map_put(id(&state), key, &map_key, &value)?)
    }

    fn remove(&mut self, state: Resource<handle::MapState>, key: u32, map_key: Vec<u8>) -> Result<()> {
        Ok(self.keyed()?.map_remove(id(&state), key, &map_key)?)
    }

    fn contains(&mut self, state: Resource<handle::MapState>, key: u32, map_key: Vec<u8>) -> Result<bool> {
        Ok(self.keyed()?.map_contains(id(&state), key, &map_key)?)
    }

    fn is_empty(&mut self, state: Resource<handle::MapState>, key: u32) -> Result<bool> {
        Ok(self.keyed()?.map_is_empty(id(&state), key)?)
    }

    fn scan(
        &mut self,
        state: Resource<handle::MapState>,
        key: u32,
        first: Option<Vec<u8>>,
        last: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<u8>> {
        Ok(self.keyed()?.map_scan(id(&state), key, first.as_deref(), last.as_deref(), limit)?)
    }

    fn remove_range(
        &mut self,
        state: Resource<handle::MapState>,
        key: u32,
        first: Option<Vec<u8>>,
        last: Option<Vec<u8>>,
    ) -> Result<()> {
        Ok(self.keyed()?.map_remove_range(id(&state), key, first.as_deref(), last.as_deref())?)
    }

    fn clear(&mut self, state: Resource<handle::MapState>, key: u32) -> Result<()> {
        Ok(self.keyed()?.map_clear(id(&state), key)?)
    }

    fn load_many(
        &mut self,
        state: Resource<handle::MapState>,
        slots: Vec<u32>,
        map_keys: types::BytesColumn,
    ) -> Result<types::BytesColumn> {
        Ok(self.keyed()?.map_load_many(id(&state), &slots, &map_keys.into())?.into())
    }

    fn store_many(
        &mut self,
        state: Resource<handle::MapState>,
        slots: Vec<u32>,
        map_keys: types::BytesColumn,
        values: types::BytesColumn,
    ) -> Result<()> {
        Ok(self.keyed()?.map_store_many(id(&state), &slots, &map_keys.into(), &values.into())?)
    }

    fn drop(&mut self, _: Resource<handle::MapState>) -> Result<()> {
        self.dropped()
    }
}

impl state::HostListState for GuestStore {
    fn new(&mut self, name: String) -> Result<Resource<handle::ListState>> {
        self.state_handle(&name, |kind| kind == StateKind::List, "list-state")
    }

    fn add(&mut self, state: Resource<handle::ListState>, key: u32, value: Vec<u8>) -> Result<()> {
        Ok(self.keyed()?.list_add(id(&state), key, &value)?)
    }

    fn get(&mut self, state: Resource<handle::ListState>, key: u32, first: u32, limit: u32) -> Result<types::BytesColumn> {
        Ok(self.keyed()?.list_get(id(&state), key, first, limit)?.into())
    }

    fn length(&mut self, state: Resource<handle::ListState>, key: u32) -> Result<u32> {
        Ok(self.keyed()?.list_length(id(&state), key)?)
    }

    fn replace(&mut self, state: Resource<handle::ListState>, key: u32, values: types::BytesColumn) -> Result<()> {
        Ok(self.keyed()?.list_replace(id(&state), key, &values.into())?)
    }

    fn clear(&mut self, state: Resource<handle::ListState>, key: u32) -> Result<()> {
        Ok(self.keyed()?.list_clear(id(&state), key)?)
    }

    fn add_many(&mut self, state: Resource<handle::ListState>, slots: Vec<u32>, values: types::BytesColumn) -> Result<()> {
        Ok(self.keyed()?.list_add_many(id(&state), &slots, &values.into())?)
    }

    fn drop(&mut self, _: Resource<handle::ListState>) -> Result<()> {
        self.dropped()
    }
}

impl state::HostReducingState for GuestStore {
    fn new(&mut self, name: String) -> Result<Resource<handle::ReducingState>> {
        self.state_handle(&name, |kind| matches!(kind, StateKind::Reducing(_)), "reducing-state")
    }

    fn add(&mut self, state: Resource<handle::ReducingState>, key: u32, value: i64) -> Result<()> {
        Ok(self.keyed()?.reducing_add(id(&state), key, value)?)
    }

    fn get(&mut self, state: Resource<handle::ReducingState>, key: u32) -> Result<Option<i64>> {
        Ok(self.keyed()?.reducing_get(id(&state), key)?)
    }

    fn clear(&mut self, state: Resource<handle::ReducingState>, key: u32) -> Result<()> {
        Ok(self.keyed()?.reducing_clear(id(&state), key)?)
    }

    fn add_many(
        &mut self,
        state: Resource<handle::ReducingState>,
        slots: Vec<u32>,
        values: Vec<i64>,
        return_new: bool,
    ) -> Result<Vec<i64>> {
        Ok(self.keyed()?.reducing_add_many(id(&state), &slots, &values, return_new)?)
    }

    fn load(&mut self, state: Resource<handle::ReducingState>) -> Result<Vec<i64>> {
        Ok(self.keyed()?.reducing_load(id(&state))?)
    }

    fn drop(&mut self, _: Resource<handle::ReducingState>) -> Result<()> {
        self.dropped()
    }
}

impl GuestStore {
    fn count_timers(&mut self, n: usize) -> Result<()> {
        let env = self.env()?;
        env.timers_set = env.timers_set.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        let limit = env.meta.limits.timers_per_call_max;
        if env.timers_set > limit {
            return Err(violation(format!(
                "a call set or cancelled {} timers, the limit is {limit} (timers_per_call_max)",
                env.timers_set
            )));
        }
        Ok(())
    }
}

impl timers::Host for GuestStore {
    fn set_timer(&mut self, key: u32, domain: types::TimeDomain, time: i64, tag: u64) -> Result<()> {
        self.count_timers(1)?;
        Ok(self.keyed()?.set_timer(key, time_domain(domain), time, tag)?)
    }

    fn cancel_timer(&mut self, key: u32, domain: types::TimeDomain, time: i64, tag: u64) -> Result<()> {
        self.count_timers(1)?;
        Ok(self.keyed()?.cancel_timer(key, time_domain(domain), time, tag)?)
    }

    fn set_timers(&mut self, domain: types::TimeDomain, slots: Vec<u32>, times: Vec<i64>, tags: Vec<u64>) -> Result<()> {
        self.count_timers(slots.len())?;
        Ok(self.keyed()?.set_timers(time_domain(domain), &slots, &times, &tags)?)
    }

    fn cancel_timers(&mut self, domain: types::TimeDomain, slots: Vec<u32>, times: Vec<i64>, tags: Vec<u64>) -> Result<()> {
        self.count_timers(slots.len())?;
        Ok(self.keyed()?.cancel_timers(time_domain(domain), &slots, &times, &tags)?)
    }
}

impl GuestStore {
    fn emitting(&mut self) -> Result<(&mut OperatorEnv, std::sync::Arc<OperatorMeta>)> {
        let env = self.env()?;
        if matches!(env.phase, Phase::Describe | Phase::Start) {
            return Err(violation("output can be emitted while records or timers are processed, not in `describe` or `start`"));
        }
        let meta = std::sync::Arc::clone(&env.meta);
        Ok((env, meta))
    }
}

impl output::Host for GuestStore {
    fn emit(&mut self, port: u32, count: u32, rows: Vec<u8>) -> Result<()> {
        let (env, meta) = self.emitting()?;
        Ok(env.outputs.emit(&meta, port, count, rows)?)
    }

    fn emit_record(&mut self, port: u32, item: types::StreamRecord) -> Result<()> {
        let (env, meta) = self.emitting()?;
        Ok(env.outputs.emit_record(&meta, port, &item)?)
    }

    fn forward(&mut self, port: u32, row_indices: Vec<u32>) -> Result<()> {
        let (env, meta) = self.emitting()?;
        let rows = env.batch_rows;
        Ok(env.outputs.forward(&meta, port, row_indices, rows)?)
    }
}

impl logging::Host for GuestStore {
    fn log(&mut self, level: logging::Level, message: String, fields: Vec<logging::Field>) -> Result<()> {
        let bytes_max = self.log_line_bytes_max();
        let mut line = message;
        for field in fields {
            if line.len() > bytes_max {
                break;
            }
            // Quoting may make a text several times as long.
            let value = &field.value[..field.value.floor_char_boundary(bytes_max)];
            line.push_str(&format!(" {}={value:?}", field.name));
        }
        let level = match level {
            logging::Level::Trace => tracing::Level::TRACE,
            logging::Level::Debug => tracing::Level::DEBUG,
            logging::Level::Info => tracing::Level::INFO,
            logging::Level::Warn => tracing::Level::WARN,
            logging::Level::Error => tracing::Level::ERROR,
        };
        self.guest_log(level, &line);
        Ok(())
    }
}

impl metrics::HostCounter for GuestStore {
    fn new(&mut self, name: String) -> Result<Resource<handle::Counter>> {
        self.metric_handle(name, MetricKind::Counter)
    }

    fn add(&mut self, counter: Resource<handle::Counter>, n: u64) -> Result<()> {
        let env = self.env()?;
        Ok(env.metrics.add(counter.rep(), n, &env.meta.limits)?)
    }

    fn drop(&mut self, _: Resource<handle::Counter>) -> Result<()> {
        self.dropped()
    }
}

impl metrics::HostGauge for GuestStore {
    fn new(&mut self, name: String) -> Result<Resource<handle::Gauge>> {
        self.metric_handle(name, MetricKind::Gauge)
    }

    fn set(&mut self, gauge: Resource<handle::Gauge>, value: f64) -> Result<()> {
        let env = self.env()?;
        Ok(env.metrics.set(gauge.rep(), value, &env.meta.limits)?)
    }

    fn drop(&mut self, _: Resource<handle::Gauge>) -> Result<()> {
        self.dropped()
    }
}

impl metrics::HostHistogram for GuestStore {
    fn new(&mut self, name: String) -> Result<Resource<handle::Histogram>> {
        self.metric_handle(name, MetricKind::Histogram)
    }

    fn observe(&mut self, histogram: Resource<handle::Histogram>, values: Vec<f64>) -> Result<()> {
        let env = self.env()?;
        Ok(env.metrics.observe(histogram.rep(), values, &env.meta.limits)?)
    }

    fn drop(&mut self, _: Resource<handle::Histogram>) -> Result<()> {
        self.dropped()
    }
}
