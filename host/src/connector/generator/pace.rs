//! A steady number of records a second, made up for after a pause, but not for a long one.

use std::time::{Duration, Instant};

/// A source that stood still for longer does not flood the job with all it missed.
const ARREARS_MAX: Duration = Duration::from_secs(1);
/// Shorter waits cost more wake-ups than they smooth.
const WAIT_MIN: Duration = Duration::from_millis(1);

pub struct Pace {
    per_second: f64,
    /// When record 0 of the count was due; set at the first question.
    started: Option<Instant>,
    made: u64,
}

impl Pace {
    pub fn new(per_second: f64) -> Self {
        Self { per_second, started: None, made: 0 }
    }

    /// Records that are due and not made.
    pub fn allowed(&mut self, now: Instant) -> u64 {
        let started = *self.started.get_or_insert(now);
        let due = (now.saturating_duration_since(started).as_secs_f64() * self.per_second) as u64;
        let behind = due.saturating_sub(self.made);
        let behind_max = (ARREARS_MAX.as_secs_f64() * self.per_second).ceil() as u64;
        if behind > behind_max {
            // What is missed beyond the bound counts as made.
            self.made = due - behind_max;
            return behind_max;
        }
        behind
    }

    pub fn made(&mut self, records: u64) {
        self.made += records;
    }

    /// Until the next record is due.
    pub fn wait(&self, now: Instant) -> Duration {
        let Some(started) = self.started else { return WAIT_MIN };
        let due_after = Duration::try_from_secs_f64((self.made + 1) as f64 / self.per_second).unwrap_or(ARREARS_MAX);
        (started + due_after.min(Duration::from_secs(1 << 32))).saturating_duration_since(now).clamp(WAIT_MIN, ARREARS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_due_steadily_and_arrears_are_bounded() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pace = Pace::new(1000.0);
        assert_eq!(pace.allowed(at(0)), 0);
        assert_eq!(pace.wait(at(0)), Duration::from_millis(1));
        assert_eq!(pace.allowed(at(10)), 10);
        pace.made(4);
        assert_eq!(pace.allowed(at(10)), 6);
        pace.made(6);
        assert_eq!(pace.allowed(at(20)), 10);
        assert_eq!(pace.allowed(at(60_000)), 1000);
        pace.made(1000);
        assert_eq!(pace.allowed(at(60_000)), 0);
        assert_eq!(pace.allowed(at(60_005)), 5);
    }

    #[test]
    fn a_slow_pace_waits_long_but_bounded() {
        let start = Instant::now();
        let mut pace = Pace::new(0.001);
        assert_eq!(pace.allowed(start), 0);
        assert_eq!(pace.wait(start), ARREARS_MAX);
    }
}
