//! How much of a guest's log is kept in a second, whatever the number of its calls.
//!
//! The log is no part of a result, so this is one of few places where the wall clock may decide something about a guest.

use std::time::{Duration, Instant};
use tidegate_core::limits::GuestLimits;

const WINDOW: Duration = Duration::from_secs(1);

/// Lines and bytes since the window began.
#[derive(Debug, Default)]
pub struct LogRate {
    begun: Option<Instant>,
    lines: u32,
    bytes: usize,
}

impl LogRate {
    pub fn admits(&mut self, bytes: usize, limits: &GuestLimits) -> bool {
        self.admits_at(Instant::now(), bytes, limits)
    }

    fn admits_at(&mut self, now: Instant, bytes: usize, limits: &GuestLimits) -> bool {
        if self.begun.is_none_or(|begun| now.duration_since(begun) >= WINDOW) {
            *self = Self { begun: Some(now), ..Self::default() };
        }
        let (lines, bytes) = (self.lines + 1, self.bytes.saturating_add(bytes));
        if lines > limits.log_lines_per_second_max || bytes > limits.log_bytes_per_second_max {
            return false;
        }
        (self.lines, self.bytes) = (lines, bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_bytes_and_the_next_one_again() {
        let limits = GuestLimits { log_lines_per_second_max: 2, log_bytes_per_second_max: 100, ..GuestLimits::default() };
        let (mut rate, begun) = (LogRate::default(), Instant::now());
        let mut admits = |ms, bytes| rate.admits_at(begun + Duration::from_millis(ms), bytes, &limits);
        assert_eq!([admits(0, 10), admits(500, 90), admits(999, 0)], [true, true, false], "lines");
        assert_eq!([admits(1000, 60), admits(1001, 41), admits(1002, 40)], [true, false, true], "bytes");
    }
}
