//! A token bucket for each client: a request takes a token, and tokens come back evenly.
//!
//! ```
//! # use tidegate_core::rate_limit::RateLimiter;
//! let mut limiter = RateLimiter::new(2, 100);
//! assert_eq!(limiter.take("a", 0), Ok(()));
//! assert_eq!(limiter.take("a", 0), Ok(()), "a burst of one second's worth");
//! assert_eq!(limiter.take("a", 0), Err(500), "the next token comes in half a second");
//! assert_eq!(limiter.take("b", 0), Ok(()), "others do not suffer");
//! assert_eq!(limiter.take("a", 500), Ok(()));
//! ```
//!
//! Invariants:
//! * a client gets at most `per_second` requests at once and `per_second` a second;
//! * the number of buckets is bounded: clients that find no room share one, and a bucket that is full again makes room.

use std::collections::BTreeMap;

/// One request, in the unit that buckets count in: then a refill of whole numbers loses nothing.
const REQUEST: u64 = 1000;
/// A sweep looks at all buckets, so it must not happen for every request.
const SWEEP_EVERY_MS: u64 = 100;

#[derive(Debug)]
pub struct RateLimiter<Client> {
    per_second: u32,
    clients_max: usize,
    buckets: BTreeMap<Client, Bucket>,
    /// Of those who found no room.
    shared: Bucket,
    swept_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In thousandths of a request.
    level: u64,
    at_ms: u64,
}

impl<Client: Ord> RateLimiter<Client> {
    /// `per_second` 0: there is no limit.
    pub fn new(per_second: u32, clients_max: usize) -> Self {
        let shared = Bucket { level: u64::from(per_second) * REQUEST, at_ms: 0 };
        Self { per_second, clients_max, buckets: BTreeMap::new(), shared, swept_ms: 0 }
    }

    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// The error: after so many milliseconds there is a token.
    pub fn take(&mut self, client: Client, now_ms: u64) -> Result<(), u64> {
        if self.per_second == 0 {
            return Ok(());
        }
        let rate = u64::from(self.per_second);
        if self.buckets.len() >= self.clients_max && !self.buckets.contains_key(&client) {
            self.sweep(now_ms);
            if self.buckets.len() >= self.clients_max {
                return self.shared.take(rate, now_ms);
            }
        }
        self.buckets.entry(client).or_insert(Bucket { level: rate * REQUEST, at_ms: now_ms }).take(rate, now_ms)
    }

    /// Forgets those who would start with a full bucket anyway.
    fn sweep(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.swept_ms) < SWEEP_EVERY_MS {
            return;
        }
        self.swept_ms = now_ms;
        let rate = u64::from(self.per_second);
        self.buckets.retain(|_, bucket| bucket.refilled(rate, now_ms) < rate * REQUEST);
    }
}

impl Bucket {
    fn refilled(&self, rate: u64, now_ms: u64) -> u64 {
        // A clock that went back gives nothing.
        let came = now_ms.saturating_sub(self.at_ms).saturating_mul(rate);
        self.level.saturating_add(came).min(rate * REQUEST)
    }

    fn take(&mut self, rate: u64, now_ms: u64) -> Result<(), u64> {
        let level = self.refilled(rate, now_ms);
        *self = Self { level, at_ms: self.at_ms.max(now_ms) };
        match level.checked_sub(REQUEST) {
            Some(rest) => {
                self.level = rest;
                Ok(())
            }
            None => Err((REQUEST - level).div_ceil(rate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_any_time_a_client_gets_its_rate_and_one_burst() {
        let mut limiter = RateLimiter::new(7, 10);
        let passed = (0..10_000).filter(|now_ms| limiter.take(1, *now_ms).is_ok()).count();
        assert_eq!(passed, 7 + 7 * 10 - 1, "the burst, and what came in 9.999 s");
    }

    #[test]
    fn who_waits_as_long_as_told_gets_through() {
        let mut limiter = RateLimiter::new(3, 10);
        let mut now_ms = 0;
        for _ in 0..100 {
            if let Err(wait_ms) = limiter.take(1, now_ms) {
                assert!(wait_ms > 0 && limiter.take(1, now_ms + wait_ms - 1).is_err());
                now_ms += wait_ms;
                assert_eq!(limiter.take(1, now_ms), Ok(()));
            }
        }
    }

    #[test]
    fn the_buckets_are_bounded_and_late_comers_share_one() {
        let mut limiter = RateLimiter::new(1, 3);
        for client in 0..3 {
            assert_eq!(limiter.take(client, 1000), Ok(()));
        }
        assert_eq!(limiter.take(3, 1000), Ok(()), "the shared bucket");
        assert!(limiter.take(4, 1000).is_err(), "is one for all of them");
        assert!(limiter.take(0, 1000).is_err(), "and those with a bucket keep it");
        assert_eq!(limiter.buckets.len(), 3);
        assert_eq!(limiter.take(4, 2500), Ok(()), "buckets that are full again make room");
        assert_eq!(limiter.buckets.len(), 1);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_and_no_limit_is_no_limit() {
        let mut limiter = RateLimiter::new(1, 3);
        assert_eq!(limiter.take(1, 5000), Ok(()));
        assert!(limiter.take(1, 0).is_err());
        assert!(limiter.take(1, 5500).is_err());
        let mut none = RateLimiter::new(0, 3);
        assert!((0..100).all(|_| none.take(1, 0).is_ok()));
    }
}
