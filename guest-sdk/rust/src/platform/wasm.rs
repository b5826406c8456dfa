//! The contract's imports and exports, over bindings that nobody else sees.

// Generated code calls the imports; there is no other way.
#[allow(unsafe_code, unused_qualifications, clippy::all, missing_docs)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "processor",
        pub_export_macro: true,
    });
}

pub(crate) mod imports {
    use super::bindings::tidegate::streaming as host;
    use crate::context::Level;
    use crate::declaration::TimeDomain;

    pub(crate) use host::metrics::{Counter, Gauge, Histogram};
    pub(crate) use host::types::BytesColumn;

    pub(super) fn domain(domain: TimeDomain) -> host::types::TimeDomain {
        match domain {
            TimeDomain::EventTime => host::types::TimeDomain::EventTime,
            TimeDomain::ProcessingTime => host::types::TimeDomain::ProcessingTime,
        }
    }

    pub(crate) fn emit(port: u32, count: u32, rows: &[u8]) {
        host::output::emit(port, count, rows);
    }

    pub(crate) fn forward(port: u32, rows: &[u32]) {
        host::output::forward(port, rows);
    }

    pub(crate) fn set_timers(time_domain: TimeDomain, slots: &[u32], times: &[i64], tags: &[u64]) {
        host::timers::set_timers(domain(time_domain), slots, times, tags);
    }

    pub(crate) fn cancel_timers(time_domain: TimeDomain, slots: &[u32], times: &[i64], tags: &[u64]) {
        host::timers::cancel_timers(domain(time_domain), slots, times, tags);
    }

    pub(crate) fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
        use host::logging::{Field, Level as Host};
        let level = match level {
            Level::Trace => Host::Trace,
            Level::Debug => Host::Debug,
            Level::Info => Host::Info,
            Level::Warn => Host::Warn,
            Level::Error => Host::Error,
        };
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| Field { name: (*name).to_owned(), value: (*value).to_owned() }).collect();
        host::logging::log(level, message, &fields);
    }

    #[derive(Debug)]
    pub(crate) struct ValueHandle(host::state::ValueState);

    impl ValueHandle {
        pub fn open(name: &str) -> Self {
            Self(host::state::ValueState::new(name))
        }

        pub fn clear(&self, slot: u32) {
            self.0.clear(slot);
        }

        pub fn load(&self) -> BytesColumn {
            self.0.load()
        }

        pub fn store(&self, slots: &[u32], values: &BytesColumn) {
            self.0.store(slots, values);
        }

        pub fn load_fixed(&self) -> Vec<u8> {
            self.0.load_fixed()
        }

        pub fn store_fixed(&self, slots: &[u32], values: &[u8]) {
            self.0.store_fixed(slots, values);
        }

        pub fn store_all_fixed(&self, values: &[u8]) {
            self.0.store_all_fixed(values);
        }
    }

    #[derive(Debug)]
    pub(crate) struct MapHandle(host::state::MapState);

    impl MapHandle {
        pub fn open(name: &str) -> Self {
            Self(host::state::MapState::new(name))
        }

        pub fn get(&self, slot: u32, key: &[u8]) -> Option<Vec<u8>> {
            self.0.get(slot, key)
        }

        pub fn is_empty(&self, slot: u32) -> bool {
            self.0.is_empty(slot)
        }

        pub fn scan(&self, slot: u32, first: Option<&[u8]>, last: Option<&[u8]>, limit: u32) -> Vec<u8> {
            self.0.scan(slot, first, last, limit)
        }

        pub fn remove_range(&self, slot: u32, first: Option<&[u8]>, last: Option<&[u8]>) {
            self.0.remove_range(slot, first, last);
        }

        pub fn clear(&self, slot: u32) {
            self.0.clear(slot);
        }

        pub fn store_many(&self, slots: &[u32], map_keys: &BytesColumn, values: &BytesColumn) {
            self.0.store_many(slots, map_keys, values);
        }
    }

    #[derive(Debug)]
    pub(crate) struct ListHandle(host::state::ListState);

    impl ListHandle {
        pub fn open(name: &str) -> Self {
            Self(host::state::ListState::new(name))
        }

        pub fn get(&self, slot: u32, first: u32, limit: u32) -> BytesColumn {
            self.0.get(slot, first, limit)
        }

        pub fn length(&self, slot: u32) -> u32 {
            self.0.length(slot)
        }

        pub fn replace(&self, slot: u32, values: &BytesColumn) {
            self.0.replace(slot, values);
        }

        pub fn clear(&self, slot: u32) {
            self.0.clear(slot);
        }

        pub fn add_many(&self, slots: &[u32], values: &BytesColumn) {
            self.0.add_many(slots, values);
        }
    }

    #[derive(Debug)]
    pub(crate) struct ReducingHandle(host::state::ReducingState);

    impl ReducingHandle {
        pub fn open(name: &str) -> Self {
            Self(host::state::ReducingState::new(name))
        }

        pub fn get(&self, slot: u32) -> Option<i64> {
            self.0.get(slot)
        }

        pub fn clear(&self, slot: u32) {
            self.0.clear(slot);
        }

        pub fn add_many(&self, slots: &[u32], values: &[i64]) {
            self.0.add_many(slots, values, false);
        }

        pub fn load(&self) -> Vec<i64> {
            self.0.load()
        }
    }
}

use crate::context::Context;
use crate::declaration as sdk;
use crate::operator::{Instance, Operator};
use bindings::exports::tidegate::streaming::{batch_processing, lifecycle};
use bindings::tidegate::streaming::{state, types};
use std::marker::PhantomData;

/// What a component exports. The attribute names it once for the operator of the crate.
pub struct Component<O>(PhantomData<O>);

/// The one started instance of an operator. The attribute implements it: a static can't be generic.
pub trait Exported: Operator {
    fn with_instance<R>(run: impl FnOnce(&mut Option<Instance<Self>>) -> R) -> R;
}

fn failure(failure: sdk::Failure) -> types::Failure {
    match failure {
        sdk::Failure::Fatal(reason) => types::Failure::Fatal(reason),
        sdk::Failure::Transient(reason) => types::Failure::Transient(reason),
    }
}

fn answer(answer: Result<Vec<sdk::RejectedRow>, sdk::Failure>) -> Result<Vec<types::RejectedRow>, types::Failure> {
    match answer {
        Ok(rejected) => Ok(rejected.into_iter().map(|r| types::RejectedRow { row: r.row, reason: r.reason }).collect()),
        Err(failed) => Err(failure(failed)),
    }
}

fn reducer(kind: sdk::ReducerKind) -> state::Reducer {
    match kind {
        sdk::ReducerKind::SumS64 => state::Reducer::SumS64,
        sdk::ReducerKind::SumF64 => state::Reducer::SumF64,
        sdk::ReducerKind::MinS64 => state::Reducer::MinS64,
        sdk::ReducerKind::MaxS64 => state::Reducer::MaxS64,
        sdk::ReducerKind::MinF64 => state::Reducer::MinF64,
        sdk::ReducerKind::MaxF64 => state::Reducer::MaxF64,
        sdk::ReducerKind::Count => state::Reducer::Count,
    }
}

fn declaration(declared: sdk::StateDeclaration) -> lifecycle::StateDeclaration {
    lifecycle::StateDeclaration {
        name: declared.name,
        kind: match declared.kind {
            sdk::StateKind::Value => lifecycle::StateKind::ValueState,
            sdk::StateKind::Map => lifecycle::StateKind::MapState,
            sdk::StateKind::List => lifecycle::StateKind::ListState,
            sdk::StateKind::Reducing(kind) => lifecycle::StateKind::ReducingState(reducer(kind)),
        },
        value_type: declared.value_type,
        map_key_type: declared.map_key_type,
        schema_version: declared.schema_version,
        value_size: declared.value_size,
        ttl: declared.ttl.map(|ttl| lifecycle::TimeToLive { ms: ttl.ms, domain: imports::domain(ttl.domain) }),
    }
}

impl<O: Exported> lifecycle::Guest for Component<O> {
    fn describe() -> lifecycle::Descriptor {
        let descriptor = O::describe();
        lifecycle::Descriptor {
            name: descriptor.name,
            version: descriptor.version,
            inputs: descriptor.inputs,
            keyed: descriptor.keyed,
            outputs: descriptor.outputs,
            states: descriptor.states.into_iter().map(declaration).collect(),
        }
    }

    fn start(context: lifecycle::TaskContext) -> Result<(), types::Failure> {
        let context = Context {
            job: context.job,
            operator_name: context.operator_name,
            task_index: context.task_index,
            parallelism: context.parallelism,
            options: context.options.into_iter().map(|option| (option.name, option.value)).collect(),
            asked: Default::default(),
        };
        O::with_instance(|instance| {
            *instance = Some(Instance::start(&context).map_err(failure)?);
            Ok(())
        })
    }
}

impl<O: Exported> batch_processing::Guest for Component<O> {
    fn process_batch(input: types::Batch) -> Result<Vec<types::RejectedRow>, types::Failure> {
        O::with_instance(|instance| {
            let instance = instance.as_mut().expect("the host calls `start` before anything else");
            answer(instance.process_batch(&sdk::BatchInput {
                input: input.input,
                count: input.count,
                rows: &input.rows,
                slots: &input.slots,
                key_count: input.key_count,
                watermark: input.watermark,
                processing_time: input.processing_time,
            }))
        })
    }

    fn on_timers(timers: batch_processing::DueTimers) -> Result<Vec<types::RejectedRow>, types::Failure> {
        O::with_instance(|instance| {
            let instance = instance.as_mut().expect("the host calls `start` before anything else");
            answer(instance.on_timers(&sdk::TimerInput {
                domain: match timers.domain {
                    types::TimeDomain::EventTime => sdk::TimeDomain::EventTime,
                    types::TimeDomain::ProcessingTime => sdk::TimeDomain::ProcessingTime,
                },
                slots: &timers.slots,
                times: &timers.times,
                tags: &timers.tags,
                key_data: &timers.keys.data,
                key_offsets: &timers.keys.offsets,
                watermark: timers.watermark,
                processing_time: timers.processing_time,
            }))
        })
    }
}
