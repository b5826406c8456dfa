//! Whether and when a failed job is started again.
//!
//! Invariants:
//! * the same failures at the same times give the same decisions: time comes in as numbers, there is no chance in it;
//! * a fixed delay counts all failures of the job's run; an exponential delay forgets them once the job has run long enough;
//! * a clock that steps back is read as "no time has passed".

use crate::job_graph::spec::RestartSpec;
use crate::units::format_duration_ms;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// `attempt` counts from 1.
    RestartAfter {
        delay_ms: u64,
        attempt: u32,
    },
    GiveUp {
        reason: String,
    },
}

#[derive(Debug, Clone)]
pub struct RestartStrategy {
    spec: RestartSpec,
    /// Failures that count: all of them, or those since the job last ran long enough.
    failures: u32,
    running_since_ms: Option<u64>,
}

impl RestartStrategy {
    pub fn new(spec: RestartSpec) -> Self {
        Self { spec, failures: 0, running_since_ms: None }
    }

    /// Restarts since the start, or since the failures were last forgotten.
    pub fn attempts(&self) -> u32 {
        self.failures
    }

    /// All tasks run, since `now_ms`. Time spent in restoring is not time without a failure.
    pub fn running_since(&mut self, now_ms: u64) {
        self.running_since_ms = Some(now_ms);
    }

    /// The job has failed in a way that a restart may heal.
    pub fn failed(&mut self, now_ms: u64) -> Decision {
        let ran_for_ms = self.running_since_ms.take().map_or(0, |since| now_ms.saturating_sub(since));
        match self.spec {
            RestartSpec::None => give_up("the restart strategy is \"none\" (restart.strategy)".to_string()),
            RestartSpec::FixedDelay { attempts, delay_ms } => {
                if self.failures >= attempts {
                    return give_up(format!("all {attempts} restarts are used up (restart.attempts)"));
                }
                self.restart_after(delay_ms)
            }
            RestartSpec::ExponentialDelay { initial_ms, max_ms, reset_after_ms, attempts } => {
                if ran_for_ms >= reset_after_ms {
                    self.failures = 0;
                }
                if let Some(attempts) = attempts
                    && self.failures >= attempts
                {
                    return give_up(format!(
                        "all {attempts} restarts are used up without {} in one piece between them (restart.attempts, restart.reset_after)",
                        format_duration_ms(reset_after_ms)
                    ));
                }
                // Doubling is cut off before the shift could lose bits.
                let factor = 1u64 << self.failures.min(63);
                self.restart_after(initial_ms.saturating_mul(factor).min(max_ms))
            }
        }
    }

    fn restart_after(&mut self, delay_ms: u64) -> Decision {
        self.failures = self.failures.saturating_add(1);
        Decision::RestartAfter { delay_ms, attempt: self.failures }
    }
}

fn give_up(reason: String) -> Decision {
    Decision::GiveUp { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exponential(attempts: Option<u32>) -> RestartStrategy {
        RestartStrategy::new(RestartSpec::ExponentialDelay { initial_ms: 200, max_ms: 1000, reset_after_ms: 10_000, attempts })
    }

    fn delay(decision: Decision) -> u64 {
        match decision {
            Decision::RestartAfter { delay_ms, .. } => delay_ms,
            Decision::GiveUp { reason } => panic!("gave up: {reason}"),
        }
    }

    #[test]
    fn none_gives_up_at_once_and_says_why() {
        let reason = "the restart strategy is \"none\" (restart.strategy)".to_string();
        assert_eq!(RestartStrategy::new(RestartSpec::None).failed(0), Decision::GiveUp { reason });
    }

    #[test]
    fn a_fixed_delay_counts_every_failure_however_long_the_job_ran() {
        let mut strategy = RestartStrategy::new(RestartSpec::FixedDelay { attempts: 2, delay_ms: 50 });
        assert_eq!(strategy.failed(0), Decision::RestartAfter { delay_ms: 50, attempt: 1 });
        strategy.running_since(100);
        assert_eq!(strategy.failed(u64::MAX), Decision::RestartAfter { delay_ms: 50, attempt: 2 });
        assert_eq!(
            strategy.failed(u64::MAX),
            Decision::GiveUp { reason: "all 2 restarts are used up (restart.attempts)".to_string() }
        );
    }

    #[test]
    fn an_exponential_delay_doubles_up_to_its_greatest() {
        let mut strategy = exponential(None);
        let delays: Vec<u64> = (0..5).map(|_| delay(strategy.failed(0))).collect();
        assert_eq!(delays, [200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn running_long_enough_forgets_the_failures_and_a_moment_less_does_not() {
        let mut strategy = exponential(Some(2));
        strategy.failed(0);
        strategy.running_since(5000);
        assert_eq!(strategy.failed(14_999), Decision::RestartAfter { delay_ms: 400, attempt: 2 });
        strategy.running_since(20_000);
        assert_eq!(strategy.failed(30_000), Decision::RestartAfter { delay_ms: 200, attempt: 1 });
    }

    #[test]
    fn time_without_running_forgets_nothing() {
        let mut strategy = exponential(Some(1));
        strategy.running_since(0);
        strategy.failed(1);
        // It never came to run again, so the long time since says nothing.
        assert!(matches!(strategy.failed(1_000_000), Decision::GiveUp { .. }));
    }

    const DAY_MS: u64 = 86_400_000;
    const TEN_YEARS_MS: u64 = 3653 * DAY_MS;

    #[test]
    fn a_clock_that_goes_back_a_day_forgets_no_failure_and_holds_no_restart_up() {
        let mut strategy = exponential(Some(3));
        strategy.running_since(2 * DAY_MS);
        assert_eq!(strategy.failed(DAY_MS), Decision::RestartAfter { delay_ms: 200, attempt: 1 });
        strategy.running_since(DAY_MS);
        assert_eq!(strategy.failed(DAY_MS + 9_999), Decision::RestartAfter { delay_ms: 400, attempt: 2 });
        // Long enough by the clock that there is now.
        strategy.running_since(DAY_MS);
        assert_eq!(strategy.failed(DAY_MS + 10_000), Decision::RestartAfter { delay_ms: 200, attempt: 1 });
    }

    #[test]
    fn a_clock_that_goes_ahead_ten_years_starts_the_delays_over_and_no_more() {
        let mut strategy = exponential(Some(2));
        strategy.failed(0);
        strategy.running_since(1000);
        assert_eq!(strategy.failed(TEN_YEARS_MS), Decision::RestartAfter { delay_ms: 200, attempt: 1 });
        assert_eq!(strategy.failed(TEN_YEARS_MS), Decision::RestartAfter { delay_ms: 400, attempt: 2 });
        assert!(matches!(strategy.failed(TEN_YEARS_MS), Decision::GiveUp { .. }), "attempts still have an end");
    }

    proptest! {
        #[test]
        fn delays_stay_within_their_bounds_whatever_the_clock_does(
            events in proptest::collection::vec((any::<bool>(), any::<u64>()), 1..200),
            initial_ms in 1u64..100_000, max_ms in any::<u64>(), reset_after_ms in any::<u64>(),
        ) {
            let max_ms = max_ms.max(initial_ms);
            let spec = RestartSpec::ExponentialDelay { initial_ms, max_ms, reset_after_ms, attempts: None };
            let mut strategy = RestartStrategy::new(spec);
            for (ran, now) in events {
                if ran {
                    strategy.running_since(now);
                } else {
                    let delay = delay(strategy.failed(now));
                    prop_assert!((initial_ms..=max_ms).contains(&delay));
                }
            }
        }
    }
}
