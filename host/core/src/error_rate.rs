//! When bad records are a storm: one is taken out and the job goes on, a storm of them means that something else is wrong.
//!
//! Counted for one node over a sliding window of `per`, whose steps are a tenth of it. It is a storm when
//! * more than `max` records were bad in the window, or
//! * more than `ratio` of its records were, and at least `ratio_min` of them; or
//! * the dead letters of the window have more than `bytes`.
//!
//! Invariants:
//! * the same facts at the same times give the same answer: time comes in as a number, and one that steps back is read as standing still;
//! * memory is bounded: ten steps, and [`REASONS_MAX`] groups of reasons of [`REASON_CHARS_MAX`] characters.

use crate::job_graph::spec::ErrorsSpec;
use crate::units::format_duration_ms;
use std::collections::VecDeque;

const STEPS: u64 = 10;
/// Groups of reasons that the message shows.
pub const REASONS_MAX: usize = 5;
pub const REASON_CHARS_MAX: usize = 200;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    records: u64,
    bad: u64,
    bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Reason {
    text: String,
    count: u64,
    last_ms: u64,
}

#[derive(Debug, Clone)]
pub struct ErrorRate {
    spec: ErrorsSpec,
    now_ms: u64,
    /// Start of each step that had records, oldest first.
    steps: VecDeque<(u64, Counts)>,
    window: Counts,
    reasons: Vec<Reason>,
}

/// Why the job has to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storm {
    pub message: String,
}

impl ErrorRate {
    pub fn new(spec: ErrorsSpec) -> Self {
        Self { spec, now_ms: 0, steps: VecDeque::new(), window: Counts::default(), reasons: Vec::new() }
    }

    fn step_ms(&self) -> u64 {
        (self.spec.per_ms / STEPS).max(1)
    }

    fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        while let Some((begun, counts)) = self.steps.front().copied()
            && begun.saturating_add(self.spec.per_ms) <= self.now_ms
        {
            self.window.records -= counts.records;
            self.window.bad -= counts.bad;
            self.window.bytes -= counts.bytes;
            self.steps.pop_front();
        }
        let step = self.now_ms - self.now_ms % self.step_ms();
        if self.steps.back().is_none_or(|(begun, _)| *begun != step) {
            self.steps.push_back((step, Counts::default()));
        }
    }

    fn count(&mut self, now_ms: u64, add: impl Fn(&mut Counts)) {
        self.advance(now_ms);
        add(&mut self.window);
        add(&mut self.steps.back_mut().expect("BUG: no step of time").1);
    }

    /// Records came to the node; some of them may turn out bad.
    pub fn records(&mut self, records: u64, now_ms: u64) {
        self.count(now_ms, |counts| counts.records += records);
    }

    /// One of them is bad, and `bytes` of dead letters are written for it.
    pub fn bad(&mut self, reason: &str, bytes: u64, now_ms: u64) {
        self.count(now_ms, |counts| {
            counts.bad += 1;
            counts.bytes += bytes;
        });
        self.note(reason);
    }

    /// Reasons that differ in their numbers only are one: row 17 and row 18 are refused for the same thing.
    fn note(&mut self, reason: &str) {
        let mut text = String::new();
        let mut before = ' ';
        for char in reason.lines().next().unwrap_or_default().chars().take(REASON_CHARS_MAX) {
            // Digits of a name, as in UTF-8, stay.
            match char {
                '0'..='9' if text.ends_with('#') => {}
                '0'..='9' if !before.is_alphanumeric() && before != '-' => text.push('#'),
                char => text.push(char),
            }
            before = char;
        }
        let now_ms = self.now_ms;
        if let Some(known) = self.reasons.iter_mut().find(|known| known.text == text) {
            known.count += 1;
            known.last_ms = now_ms;
            return;
        }
        if self.reasons.len() == REASONS_MAX {
            let rarest = (0..REASONS_MAX).min_by_key(|i| (self.reasons[*i].count, self.reasons[*i].last_ms));
            self.reasons.swap_remove(rarest.expect("BUG: no reasons"));
        }
        self.reasons.push(Reason { text, count: 1, last_ms: now_ms });
    }

    /// `Err`: too many for the job to go on. `node` as in "operator clean".
    pub fn check(&self, node: &str) -> Result<(), Storm> {
        let Counts { records, bad, bytes } = self.window;
        let per = format_duration_ms(self.spec.per_ms);
        let broken = if self.spec.max.is_some_and(|max| bad > max) {
            format!("the limit is {} (errors.max)", self.spec.max.unwrap_or_default())
        } else if let Some(ratio) = self.spec.ratio
            && bad >= u64::from(self.spec.ratio_min)
            && bad as f64 > ratio * records.max(bad) as f64
        {
            format!("the limit is a share of {ratio} once {} are bad (errors.ratio, errors.ratio_min)", self.spec.ratio_min)
        } else if self.spec.bytes.is_some_and(|max| bytes > max) {
            let max = self.spec.bytes.unwrap_or_default();
            format!("their dead letters have {bytes} bytes, the limit is {max} (errors.bytes)")
        } else {
            return Ok(());
        };
        let mut reasons: Vec<&Reason> = self.reasons.iter().collect();
        reasons.sort_by_key(|reason| (std::cmp::Reverse(reason.count), reason.text.clone()));
        let reasons: Vec<String> = reasons.iter().map(|reason| format!("{} × {}", reason.count, reason.text)).collect();
        let message = format!(
            "{node} could not process {bad} of {records} records within {per}; {broken}. Last reasons: {}. Correct the operator or \
             its input and start the job: it goes on from its last checkpoint. If so many bad records are expected, raise \
             `errors` of the node in the job file",
            reasons.join("; ")
        );
        Err(Storm { message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec() -> ErrorsSpec {
        ErrorsSpec { max: Some(100), per_ms: 60_000, ratio: Some(0.5), ratio_min: 10, bytes: Some(1000) }
    }

    #[test]
    fn a_bad_record_now_and_then_is_no_storm_however_long_it_goes_on() {
        let mut rate = ErrorRate::new(spec());
        for i in 0..100_000 {
            rate.records(100, i * 1000);
            rate.bad("bad", 1, i * 1000);
            assert_eq!(rate.check("operator o"), Ok(()), "{i}");
        }
        assert!(rate.steps.len() <= STEPS as usize + 1);
    }

    #[test]
    fn more_than_the_greatest_number_within_the_window_is_a_storm_and_the_message_says_all() {
        let mut rate = ErrorRate::new(spec());
        rate.records(10_000, 0);
        for i in 0..100 {
            let why = if i % 3 == 0 { "no field /carrier" } else { "row 7: not UTF-8" };
            rate.bad(&format!("{why} at {i}\n  a backtrace"), 1, i);
        }
        assert_eq!(rate.check("operator o"), Ok(()));
        rate.bad("row 8: not UTF-8 at 1234", 1, 200);
        let message = rate.check("operator o").unwrap_err().message;
        for part in [
            "operator o could not process 101 of 10000 records within 1m; the limit is 100 (errors.max)",
            "67 × row #: not UTF-8 at #; 34 × no field /carrier at #",
            "raise `errors`",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_share_counts_only_once_there_are_enough_bad_ones() {
        let mut rate = ErrorRate::new(spec());
        for i in 0..9 {
            rate.records(1, i);
            rate.bad("bad", 1, i);
        }
        assert_eq!(rate.check("source s"), Ok(()), "9 of 9, and 10 are the least");
        rate.records(1, 10);
        rate.bad("bad", 1, 10);
        assert!(rate.check("source s").unwrap_err().message.contains("errors.ratio"));
        rate.records(10, 11);
        assert_eq!(rate.check("source s"), Ok(()), "half of them is not more than half");
    }

    #[test]
    fn dead_letters_are_bounded_by_their_bytes_too() {
        let mut rate = ErrorRate::new(spec());
        rate.records(100, 0);
        rate.bad("large", 1000, 0);
        assert_eq!(rate.check("operator o"), Ok(()));
        rate.bad("large", 1, 0);
        assert!(rate.check("operator o").unwrap_err().message.contains("(errors.bytes)"));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut rate = ErrorRate::new(spec());
        rate.records(1000, 0);
        for _ in 0..100 {
            rate.bad("bad", 0, 0);
        }
        rate.records(1, 60_000);
        rate.bad("bad", 0, 60_000);
        assert_eq!((rate.check("operator o"), rate.window.bad), (Ok(()), 1));
    }

    #[test]
    fn a_limit_that_is_off_never_strikes() {
        let mut rate = ErrorRate::new(ErrorsSpec { max: None, ratio: None, bytes: None, ..spec() });
        for i in 0..10_000 {
            rate.bad("bad", 1 << 40, i);
        }
        assert_eq!(rate.check("operator o"), Ok(()));
    }

    proptest! {
        #[test]
        fn the_window_is_the_sum_of_its_steps_whatever_the_clock_does(facts in proptest::collection::vec((0u64..200_000, 0u64..50, any::<bool>()), 1..200)) {
            let mut rate = ErrorRate::new(spec());
            for (now, records, bad) in facts {
                rate.records(records, now);
                if bad {
                    rate.bad(&format!("reason {now} {records}"), records, now);
                }
                let sum = rate.steps.iter().fold(Counts::default(), |sum, (_, c)| Counts {
                    records: sum.records + c.records, bad: sum.bad + c.bad, bytes: sum.bytes + c.bytes,
                });
                prop_assert_eq!(sum, rate.window);
                prop_assert!(rate.steps.len() <= STEPS as usize + 1 && rate.reasons.len() <= REASONS_MAX);
            }
        }
    }
}
