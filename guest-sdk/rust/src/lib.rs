#![doc = include_str!("../README.md")]

extern crate self as tidegate_sdk;

mod config;
mod context;
mod declaration;
pub mod encoding;
mod error;
mod metrics;
mod operator;
mod output;
mod platform;
mod record;
mod state;
mod timers;

#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use config::ConfigValue;
pub use context::{Context, Ctx, Level, Timer};
pub use declaration::{Descriptor, Failure, RejectedRow, StateDeclaration, StateKind, TimeDomain, TimeToLive};
pub use encoding::StateValue;
pub use encoding::map_key::MapKey;
pub use error::{RecordError, StartError};
pub use metrics::{Counter, Gauge, Histogram};
pub use operator::Operator;
pub use output::{Port, ValueWriter};
pub use record::{ChangeKind, HeaderIter, HeaderList, Headers, Record, Row, Timestamp};
pub use state::{Count, ListState, MapState, MaxF64, MaxS64, MinF64, MinS64, Reducer, ReducingState, SumF64, SumS64, ValueState};
pub use tidegate_sdk_macros::{StateRecord, operator};

/// Everything an operator needs: `use tidegate_sdk::prelude::*;`
pub mod prelude {
    pub use crate::{
        ChangeKind, ConfigValue, Context, Count, Counter, Ctx, Gauge, HeaderList, Histogram, Level, ListState, MapState, MaxF64,
        MaxS64, MinF64, MinS64, Operator, Port, Record, RecordError, ReducingState, Row, StartError, StateRecord, SumF64, SumS64,
        TimeDomain, Timer, Timestamp, ValueState, operator, reject,
    };
    pub use std::fmt::Write as _;
}

/// What the macros' code refers to.
#[doc(hidden)]
pub mod __private {
    pub use crate::declaration::{Descriptor, StateDeclaration, TimeDomain};
    pub use crate::encoding::{DecodeError, StateValue, cbor};
    pub use crate::metrics::MetricField;
    pub use crate::operator::{Instance, Parts};
    #[cfg(target_arch = "wasm32")]
    pub use crate::platform::wasm::{Component, Exported, bindings};
    pub use crate::state::{StateField, StateOptions};
}
