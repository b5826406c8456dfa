//! The contract between host and guest, item by item, on the host's own boundary: with the guests on bare bindings (both worlds) and
//! with one on the SDK.
//!
//! What a guest sees it reports in rows; what becomes of its effects is seen in outputs, state, timers and metrics afterwards.

mod failures;
mod lifecycle;
mod limits;
mod one_bad_record;
mod output;
mod poison;
mod records;
mod sdk;
mod state;
mod timers;
mod upload;

use tidegate_tests::guest::{Guest, Setup};

/// The guest that takes batches, with one of its cases.
fn contract(case: &str) -> Guest {
    Setup::new("contract").option("case", case).start()
}
