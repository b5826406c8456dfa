//! Random numbers that can be had again: a test that uses them prints its seed first.

use crate::generator::mix;
use std::time::{Duration, SystemTime};

pub struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    /// The seed of `TIDEGATE_SEED`, or a new one. Printed, so that a failure can be repeated.
    pub fn from_env() -> Self {
        let seed = match std::env::var("TIDEGATE_SEED") {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("TIDEGATE_SEED must be a whole number, not {text:?}")),
            Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64),
        };
        println!("repeat with TIDEGATE_SEED={seed}");
        Self::from_seed(seed)
    }

    pub fn from_seed(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        mix(mix(self.seed).wrapping_add(self.drawn)) % bound
    }

    pub fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64 + 1))
    }
}
