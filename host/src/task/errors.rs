//! The bad records of a node, counted over all its tasks: one clock and one count, so that a storm is seen however it is spread.

use super::TaskError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tidegate_core::error_rate::ErrorRate;
use tidegate_core::job_graph::spec::ErrorsSpec;

pub struct NodeErrors {
    /// As in "operator clean".
    node: String,
    begun: Instant,
    rate: Mutex<ErrorRate>,
}

impl NodeErrors {
    pub fn new(node: String, spec: ErrorsSpec) -> Self {
        Self { node, begun: Instant::now(), rate: Mutex::new(ErrorRate::new(spec)) }
    }

    fn rate(&self) -> (MutexGuard<'_, ErrorRate>, u64) {
        (self.rate.lock().unwrap_or_else(PoisonError::into_inner), self.begun.elapsed().as_millis() as u64)
    }

    pub fn records(&self, records: u64) {
        if records > 0 {
            let (mut rate, now_ms) = self.rate();
            rate.records(records, now_ms);
        }
    }

    /// One record was given up, with so many bytes of a dead letter. An error where that is one too many: trying again from the last
    /// checkpoint would meet the same records.
    pub fn bad(&self, reason: &str, bytes: u64) -> Result<(), TaskError> {
        let (mut rate, now_ms) = self.rate();
        rate.bad(reason, bytes, now_ms);
        rate.check(&self.node).map_err(|storm| TaskError::Fatal(storm.message))
    }
}
