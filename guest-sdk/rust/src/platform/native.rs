//! The contract's imports, answered by the test kit's host on the same thread.

use crate::context::Level;
use crate::declaration::TimeDomain;
pub(crate) use crate::testing::host::BytesColumn;
use crate::testing::host::{Metric, with_host};

pub(crate) fn emit(port: u32, count: u32, rows: &[u8]) {
    with_host(|host| host.emit(port, count, rows));
}

pub(crate) fn forward(port: u32, rows: &[u32]) {
    with_host(|host| host.forward(port, rows));
}

pub(crate) fn set_timers(domain: TimeDomain, slots: &[u32], times: &[i64], tags: &[u64]) {
    with_host(|host| host.set_timers(domain, slots, times, tags));
}

pub(crate) fn cancel_timers(domain: TimeDomain, slots: &[u32], times: &[i64], tags: &[u64]) {
    with_host(|host| host.cancel_timers(domain, slots, times, tags));
}

pub(crate) fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
    with_host(|host| host.log(level, message, fields));
}

macro_rules! handles {
    ($($handle:ident { $(fn $function:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $host:ident;)* })*) => {$(
        #[derive(Debug)]
        pub(crate) struct $handle {
            name: String,
        }

        impl $handle {
            $(
                pub fn $function(&self $(, $argument: $type)*) $(-> $result)? {
                    with_host(|host| host.$host(&self.name $(, $argument)*))
                }
            )*
        }
    )*};
}

handles! {
    ValueHandle {
        fn clear(slot: u32) = value_clear;
        fn load() -> BytesColumn = value_load;
        fn store(slots: &[u32], values: &BytesColumn) = value_store;
        fn load_fixed() -> Vec<u8> = value_load_fixed;
        fn store_fixed(slots: &[u32], values: &[u8]) = value_store_fixed;
        fn store_all_fixed(values: &[u8]) = value_store_all_fixed;
    }
    MapHandle {
        fn get(slot: u32, key: &[u8]) -> Option<Vec<u8>> = map_get;
        fn is_empty(slot: u32) -> bool = map_is_empty;
        fn scan(slot: u32, first: Option<&[u8]>, last: Option<&[u8]>, limit: u32) -> Vec<u8> = map_scan;
        fn remove_range(slot: u32, first: Option<&[u8]>, last: Option<&[u8]>) = map_remove_range;
        fn clear(slot: u32) = map_clear;
        fn store_many(slots: &[u32], map_keys: &BytesColumn, values: &BytesColumn) = map_store_many;
    }
    ListHandle {
        fn get(slot: u32, first: u32, limit: u32) -> BytesColumn = list_get;
        fn length(slot: u32) -> u32 = list_length;
        fn replace(slot: u32, values: &BytesColumn) = list_replace;
        fn clear(slot: u32) = list_clear;
        fn add_many(slots: &[u32], values: &BytesColumn) = list_add_many;
    }
    ReducingHandle {
        fn get(slot: u32) -> Option<i64> = reducing_get;
        fn clear(slot: u32) = reducing_clear;
        fn add_many(slots: &[u32], values: &[i64]) = reducing_add_many;
        fn load() -> Vec<i64> = reducing_load;
    }
}

macro_rules! open_states {
    ($($handle:ident: $kind:literal),*) => {$(
        impl $handle {
            pub fn open(name: &str) -> Self {
                with_host(|host| host.check_state(name, $kind));
                Self { name: name.to_owned() }
            }
        }
    )*};
}

open_states!(ValueHandle: "value", MapHandle: "map", ListHandle: "list", ReducingHandle: "reducing");

macro_rules! metrics {
    ($($handle:ident: $function:ident($argument:ident: $type:ty) = $metric:expr;)*) => {$(
        #[derive(Debug)]
        pub(crate) struct $handle {
            name: String,
        }

        impl $handle {
            pub fn new(name: &str) -> Self {
                Self { name: name.to_owned() }
            }

            pub fn $function(&self, $argument: $type) {
                with_host(|host| host.measure(&self.name, $metric));
            }
        }
    )*};
}

metrics! {
    Counter: add(n: u64) = Metric::Counter(n);
    Gauge: set(value: f64) = Metric::Gauge(value);
    Histogram: observe(values: &[f64]) = Metric::Histogram(values.to_vec());
}
