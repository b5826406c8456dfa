//! Event time played back at a multiple of wall time.
//!
//! The tasks of a source share one clock, so that files on different tasks stay together. It starts with the first record that
//! any task reads; a task whose first record is older sets it back, so nothing is held for longer than it should be.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tidegate_core::row::{NO_TIMESTAMP, Timestamp};

#[derive(Debug)]
pub struct ReplayClock {
    /// Event time by wall time.
    speed: f64,
    started: OnceLock<Instant>,
    first: AtomicI64,
}

impl ReplayClock {
    pub fn new(speed: f64) -> Self {
        Self { speed, started: OnceLock::new(), first: AtomicI64::new(Timestamp::MAX) }
    }

    /// A task's first record.
    pub fn register(&self, timestamp: Timestamp, now: Instant) {
        self.first.fetch_min(timestamp, Relaxed);
        self.started.get_or_init(|| now);
    }

    /// Records up to this event time are due.
    pub fn horizon(&self, now: Instant) -> Timestamp {
        let Some(started) = self.started.get() else { return NO_TIMESTAMP };
        let passed_ms = now.saturating_duration_since(*started).as_secs_f64() * 1000.0 * self.speed;
        self.first.load(Relaxed).saturating_add(passed_ms as i64)
    }

    pub fn wait(&self, timestamp: Timestamp, now: Instant) -> Duration {
        let ahead_ms = timestamp.saturating_sub(self.horizon(now)).max(0) as f64;
        Duration::try_from_secs_f64(ahead_ms / 1000.0 / self.speed).unwrap_or(Duration::MAX)
    }
}

/// One reader's view of the clock during one poll.
pub struct Gate<'a> {
    clock: &'a ReplayClock,
    registered: &'a mut bool,
    now: Instant,
    horizon: Timestamp,
}

impl<'a> Gate<'a> {
    pub fn new(clock: &'a ReplayClock, registered: &'a mut bool) -> Self {
        let now = Instant::now();
        Self { clock, registered, now, horizon: clock.horizon(now) }
    }

    /// How long the record has to wait; `None`: it is due.
    #[inline]
    pub fn wait(&mut self, timestamp: Timestamp) -> Option<Duration> {
        if !*self.registered {
            self.clock.register(timestamp, self.now);
            *self.registered = true;
            self.horizon = self.clock.horizon(self.now);
        }
        (timestamp > self.horizon).then(|| self.clock.wait(timestamp, self.now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_time_runs_at_the_chosen_speed_from_the_earliest_first_record() {
        let clock = ReplayClock::new(60.0);
        let start = Instant::now();
        assert_eq!(clock.horizon(start), NO_TIMESTAMP);
        clock.register(5000, start);
        clock.register(2000, start + Duration::from_millis(1));
        clock.register(9000, start + Duration::from_millis(1));
        assert_eq!(clock.horizon(start), 2000);
        assert_eq!(clock.horizon(start + Duration::from_secs(1)), 62_000);
        assert_eq!(clock.wait(62_000, start), Duration::from_secs(1));
        assert_eq!(clock.wait(1000, start), Duration::ZERO);
        assert!(ReplayClock::new(1e-300).wait(5, start) > Duration::from_secs(1 << 40));
    }
}
