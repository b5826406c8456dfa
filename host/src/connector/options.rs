//! Options of connectors as their authors wrote them, read with all complaints collected.
//!
//! Invariants:
//! * every key is either asked for by the connector or reported as unknown, with the nearest known one;
//! * a value that is refused is reported with its key, itself and what is allowed, and reading goes on.

use serde_json::Value;
use std::ops::RangeInclusive;
use tidegate_core::job_graph::spec::Options;
use tidegate_core::problem::Problem;

/// Hands out options by key and remembers which keys exist.
pub struct OptionReader<'a> {
    /// `source.flights` or `sink.out`.
    prefix: String,
    options: &'a Options,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> OptionReader<'a> {
    pub fn new(side: &str, node: &str, options: &'a Options) -> Self {
        Self { prefix: format!("{side}.{node}"), options, known: Vec::new(), problems: Vec::new() }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.options.get(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.options.contains_key(key)
    }

    /// Reports a problem with the value of a key, or with its absence.
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        let value = self.options.get(key).map(shown);
        self.problems.push(Problem::new(format!("{}.{key}", self.prefix), value, message));
    }

    pub fn text(&mut self, key: &'static str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::String(_) => {
                self.refuse(key, "must not be empty");
                None
            }
            _ => {
                self.refuse(key, "must be text");
                None
            }
        }
    }

    pub fn required_text(&mut self, key: &'static str, what: &str) -> Option<String> {
        if !self.has(key) {
            self.known.push(key);
            self.refuse(key, format!("is missing: {what}"));
            return None;
        }
        self.text(key)
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.value(key) {
            None => default,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.refuse(key, "must be true or false");
                default
            }
        }
    }

    pub fn integer(&mut self, key: &'static str, allowed: RangeInclusive<u64>) -> Option<u64> {
        let found = match self.value(key)? {
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        if let Some(number) = found.filter(|number| allowed.contains(number)) {
            return Some(number);
        }
        self.refuse(key, format!("must be a whole number from {} to {}", allowed.start(), allowed.end()));
        None
    }

    /// A number above zero, written as a number or as text.
    pub fn positive(&mut self, key: &'static str) -> Option<f64> {
        let found = match self.value(key)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if let Some(number) = found.filter(|number: &f64| number.is_finite() && *number > 0.0) {
            return Some(number);
        }
        self.refuse(key, "must be a number above 0");
        None
    }

    /// One of a few words. `None`: absent, or refused and reported.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.value(key)?;
        let text = value.as_str().unwrap_or_default();
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let names = choices.iter().map(|(name, _)| *name);
        let hint = nearest(text, names.clone()).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
        self.refuse(key, format!("must be one of {}{hint}", list(names)));
        None
    }

    /// All complaints, those about keys that nobody asked for included.
    pub fn finish(mut self) -> Vec<Problem> {
        for (key, value) in self.options {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let message = match nearest(key, self.known.iter().copied()) {
                Some(near) => format!("is not an option here; did you mean `{near}`?"),
                None if self.known.is_empty() => "is not an option here; there are none".to_owned(),
                None => format!("is not an option here; there are {}", list(self.known.iter().copied())),
            };
            self.problems.push(Problem::new(format!("{}.{key}", self.prefix), Some(shown(value)), message));
        }
        self.problems
    }
}

/// A value as its author would recognise it, cut where it is long.
fn shown(value: &Value) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    let text = match value {
        Value::String(text) => format!("\"{text}\""),
        other => other.to_string(),
    };
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    text.chars().take(SHOWN_CHARS_MAX).chain("…".chars()).collect()
}

pub fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The candidate that is most likely meant, if one is near.
pub fn nearest<'n>(word: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let allowed = word.chars().count().div_ceil(3).max(1);
    let near = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate)).min_by_key(|(far, _)| *far)?;
    (near.0 <= allowed).then_some(near.1)
}

/// Edits (insert, delete, replace) between two words; a long word is far from everything and not looked at.
fn distance(a: &str, b: &str) -> usize {
    const WORD_CHARS_MAX: usize = 64;
    let b: Vec<char> = b.chars().collect();
    if a.chars().count() > WORD_CHARS_MAX || b.len() > WORD_CHARS_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn options(value: Value) -> Options {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn all_problems_come_at_once_with_key_value_and_what_is_allowed() {
        let options = options(json!({"format": "jsn", "rate": -1, "keys": 0, "folow": true, "zzz": 1, "path": 3}));
        let mut reader = OptionReader::new("source", "a", &options);
        assert_eq!(reader.choice("format", &[("json", 1), ("csv", 2)]), None);
        assert_eq!(reader.positive("rate"), None);
        assert_eq!(reader.integer("keys", 1..=10), None);
        assert!(!reader.flag("follow", false));
        assert_eq!(reader.text("path"), None);
        assert_eq!(reader.required_text("start", "earliest or latest"), None);
        let problems: Vec<String> = reader.finish().iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "source.a.format = \"jsn\": must be one of `json`, `csv` (did you mean `json`?)",
                "source.a.rate = -1: must be a number above 0",
                "source.a.keys = 0: must be a whole number from 1 to 10",
                "source.a.path = 3: must be text",
                "source.a.start: is missing: earliest or latest",
                "source.a.folow = true: is not an option here; did you mean `follow`?",
                "source.a.zzz = 1: is not an option here; there are `format`, `rate`, `keys`, `follow`, `path`, `start`",
            ]
        );
    }

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("kafak", ["file", "kafka"]), Some("kafka"));
        assert_eq!(nearest("postgres", ["file", "generator"]), None);
        assert_eq!(nearest("", ["file"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
