//! What a guest's resource handles stand for: the number of a declared state or of a metric of its operator.
//!
//! Wasmtime keeps the handle tables, so a guest can't make a number up. The types here are never built: they only keep a handle of
//! one kind from being used as another.

macro_rules! handles {
    ($($name:ident),*) => { $(#[derive(Debug)] pub enum $name {})* };
}

handles!(ValueState, MapState, ListState, ReducingState, Counter, Gauge, Histogram);
