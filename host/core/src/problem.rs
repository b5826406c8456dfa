//! Everything that is wrong with a job at once: where, with what value, and what would be right.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The key as the author wrote it: `checkpoint.interval`, `operator.delays.parallelism`, `source.flights.path`.
    pub key: String,
    /// What stands there; `None` where something is missing.
    pub value: Option<String>,
    /// What is wrong with it and what is allowed.
    pub message: String,
}

impl Problem {
    pub fn new(key: impl Into<String>, value: Option<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), value, message: message.into() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {}: {}", self.key, value, self.message),
            None => write!(f, "{}: {}", self.key, self.message),
        }
    }
}
