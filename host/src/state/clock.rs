//! Time as a call sees it, and what a time to live makes of it.

use super::domain_index;
use super::snapshot::Snapshot;
use tidegate_core::row::{END_OF_TIME, NO_TIMESTAMP};
use tidegate_core::state_schema::{TimeDomain, TimeToLive};

/// The times that hold for the whole of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTime {
    pub watermark: i64,
    pub processing_time: i64,
}

/// Stamp of a write before the first watermark, or restored from a segment of a time when the state had no time to live. It
/// counts from the first time that is known.
pub(super) const UNKNOWN_TIME: i64 = NO_TIMESTAMP;

/// By domain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    now: [i64; 2],
    first: [i64; 2],
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: [UNKNOWN_TIME; 2], first: [UNKNOWN_TIME; 2] }
    }
}

impl Clock {
    /// The end of a bounded input is no time at which state gets old: the timers that then fire still find it.
    pub fn advance(&mut self, now: CallTime, snapshot: &mut Snapshot) {
        if now.watermark != END_OF_TIME {
            self.now[domain_index(TimeDomain::EventTime)] = now.watermark;
        }
        self.now[domain_index(TimeDomain::ProcessingTime)] = now.processing_time;
        for (first, now) in self.first.iter_mut().zip(self.now) {
            if *first == UNKNOWN_TIME {
                *first = now;
            }
        }
        snapshot.first_times = self.first;
    }

    /// The stamp of a write that happens now.
    pub fn stamp(&self, ttl: Option<TimeToLive>) -> i64 {
        ttl.map_or(0, |ttl| self.now[domain_index(ttl.domain)])
    }

    /// Whether something written at `stamp` has expired.
    pub fn is_expired(&self, ttl: TimeToLive, stamp: i64) -> bool {
        let domain = domain_index(ttl.domain);
        let now = self.now[domain];
        let stamp = if stamp == UNKNOWN_TIME { self.first[domain] } else { stamp };
        now != UNKNOWN_TIME && i128::from(now) - i128::from(stamp) >= i128::from(ttl.ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_expires_before_a_watermark_or_by_the_end_of_the_input() {
        let (mut clock, mut snapshot) = (Clock::default(), Snapshot::new());
        let ttl = TimeToLive { ms: 10, domain: TimeDomain::EventTime };
        let stamp = clock.stamp(Some(ttl));
        assert!(!clock.is_expired(ttl, stamp));
        for (watermark, expired) in [(1000, false), (1009, false), (END_OF_TIME, false), (1010, true)] {
            clock.advance(CallTime { watermark, processing_time: 0 }, &mut snapshot);
            assert_eq!(clock.is_expired(ttl, stamp), expired, "{watermark}");
        }
        assert_eq!(snapshot.stamp(ttl.domain, stamp), 1000);
    }
}
