//! Everything that is wrong with a job at once: where, with what value, and what would be right.

use crate::limits::PROBLEMS_MAX;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// As many as someone will read, and the number of the others.
pub fn bounded(mut problems: Vec<Problem>) -> Vec<Problem> {
    if problems.len() > PROBLEMS_MAX {
        let message = format!("{} further problems are not shown (problems_max)", problems.len() - PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        problems.push(Problem::new("job", None, message));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_problems_that_are_not_shown_are_counted() {
        let problems = vec![Problem::new("a", None, "wrong"); PROBLEMS_MAX + 2];
        assert_eq!(bounded(problems[..PROBLEMS_MAX].to_vec()).len(), PROBLEMS_MAX);
        let bounded = bounded(problems);
        assert_eq!(bounded.last().unwrap().to_string(), "job: 2 further problems are not shown (problems_max)");
    }
}
