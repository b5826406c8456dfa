//! The `#[operator]` attribute and the `StateRecord` derive. Their documentation is in `tidegate-sdk`, which re-exports them.
//!
//! The attribute only wires fields together: it tells the SDK what the operator declares, opens the handles, and hands `begin`,
//! `undo` and `finish` of a batch to each of them. Everything that runs for each record is ordinary code in the SDK.

mod operator;
mod state_record;

use proc_macro::TokenStream;

/// Makes an [`Operator`](trait@tidegate_sdk::Operator) out of a struct, and exports it from the component.
///
/// On the struct:
///
/// - `name = "delays"`, `version = "1.0.0"`: default to those of the crate;
/// - `keyed`: records come with a key, and state and timers belong to it;
/// - `inputs = 2`: more than one input;
/// - `outputs("main", "late")`: names of the outputs, the main one first. Each becomes a constant: `Self::MAIN`, `Self::LATE`.
///
/// On the fields:
///
/// - `ValueState`, `MapState`, `ListState`, `ReducingState` are state of the key at hand. `#[state(name = "…", version = 2,
///   ttl = "1h", event_time)]` names it otherwise than the field, gives its schema's version, and lets entries end some time after
///   their last write (by processing time where `event_time` is not said);
/// - `Counter`, `Gauge`, `Histogram` are metrics. `#[metric(name = "…")]` names them otherwise;
/// - `#[config]` is an option of the job file, `#[config(name = "…", default = 15)]` with another name and a default;
/// - everything else begins as its `Default` in each instance. It must not carry anything from record to record: an instance may
///   be thrown away at any time.
#[proc_macro_attribute]
pub fn operator(arguments: TokenStream, item: TokenStream) -> TokenStream {
    operator::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Lets a struct with named fields be the value of a state: stored as a CBOR map, so that fields can be added and dropped.
///
/// Fields can be scalars, `bool`, `String`, `Vec<u8>`, other records, and `Option` and `Vec` of them. A field that is missing in
/// what was stored reads as its type's zero.
#[proc_macro_derive(StateRecord)]
pub fn state_record(item: TokenStream) -> TokenStream {
    state_record::expand(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
