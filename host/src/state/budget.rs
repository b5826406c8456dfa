//! What the state of one job may take, all of its tasks together.
//!
//! Invariants:
//! * a call that makes the job's state grow beyond the bound does not count; one that does not make it grow always does, so a job
//!   that is over (after a restore with a lower bound) can still shrink;
//! * what a task holds is counted while the task lives, and not a moment longer.
//!
//! Tasks write side by side, so the sum is seen with the delay of a call: each of them may be over by what one call writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use tidegate_core::limits::JOB_STATE_WARN_PERCENT;

/// Of one job.
#[derive(Debug)]
pub struct StateBudget {
    job: String,
    bytes_max: u64,
    used: AtomicU64,
    warned: AtomicBool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the job's state would take {bytes} bytes, which exceeds the limit of {limit} (limits.state_bytes)")]
pub struct OverBudget {
    bytes: u64,
    limit: u64,
}

impl StateBudget {
    pub fn new(job: &str, bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { job: job.to_owned(), bytes_max, used: AtomicU64::new(0), warned: AtomicBool::new(false) })
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Said once, and again after the state has been well below.
    fn warn(&self, used: u64) {
        let high = self.bytes_max / 100 * JOB_STATE_WARN_PERCENT;
        if used >= high {
            if !self.warned.swap(true, Relaxed) {
                tracing::warn!(
                    job = %self.job, used, limit = self.bytes_max,
                    "the job's state has reached {JOB_STATE_WARN_PERCENT} % of its limit (limits.state_bytes): beyond it records are refused"
                );
            }
        } else if used < high / 10 * 9 {
            self.warned.store(false, Relaxed);
        }
    }
}

/// The part of one task.
#[derive(Debug, Default)]
pub struct StateShare {
    budget: Option<Arc<StateBudget>>,
    /// What the budget was told.
    told: u64,
    begun_with: u64,
}

impl StateShare {
    pub fn of(budget: Arc<StateBudget>) -> Self {
        Self { budget: Some(budget), told: 0, begun_with: 0 }
    }

    /// A call begins with so many bytes in the task's state.
    pub fn begin(&mut self, bytes: u64) {
        self.begun_with = bytes;
    }

    /// The open call has brought the task's state to so many bytes.
    pub fn check(&self, bytes: u64) -> Result<(), OverBudget> {
        let Some(budget) = self.budget.as_ref().filter(|_| bytes > self.begun_with) else { return Ok(()) };
        let total = budget.used().saturating_sub(self.told).saturating_add(bytes);
        if total <= budget.bytes_max { Ok(()) } else { Err(OverBudget { bytes: total, limit: budget.bytes_max }) }
    }

    /// The task's state has so many bytes.
    pub fn settle(&mut self, bytes: u64) {
        let Some(budget) = &self.budget else { return };
        if bytes == self.told {
            return;
        }
        let before = match bytes > self.told {
            true => budget.used.fetch_add(bytes - self.told, Relaxed),
            false => budget.used.fetch_sub(self.told - bytes, Relaxed),
        };
        let used = before.wrapping_add(bytes).wrapping_sub(self.told);
        self.told = bytes;
        budget.warn(used);
    }
}

impl Drop for StateShare {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_share_one_bound_and_give_back_what_they_held() {
        let budget = StateBudget::new("j", 100);
        let (mut a, mut b) = (StateShare::of(Arc::clone(&budget)), StateShare::of(Arc::clone(&budget)));
        a.begin(0);
        a.check(60).unwrap();
        a.settle(60);
        b.begin(0);
        b.check(40).unwrap();
        assert_eq!(b.check(41), Err(OverBudget { bytes: 101, limit: 100 }));
        drop(a);
        b.check(100).unwrap();
        b.settle(7);
        assert_eq!(budget.used(), 7);
    }

    #[test]
    fn what_is_over_already_may_shrink() {
        let budget = StateBudget::new("j", 100);
        let mut share = StateShare::of(budget);
        share.settle(200);
        share.begin(200);
        share.check(200).unwrap();
        share.check(150).unwrap();
        assert!(share.check(201).is_err());
    }
}
