//! Reads one table of a job file: each key once, with its type, every fault noted and none of them the end.
//!
//! Invariants:
//! * a fault is reported at the key path that its author wrote, with the value that stands there;
//! * reading never stops at a fault: whoever reads takes `None` and goes on;
//! * a key that nobody asked for is either handed on ([`Table::rest`]) or refused ([`Table::refuse_unknown`]).

use super::similar;
use super::spec::Options;
use crate::limits::{DURATION_MS_MAX, NAME_BYTES_MAX};
use crate::problem::Problem;
use crate::units;
use serde_json::{Map, Value};
use std::cell::RefCell;

/// Characters of a value that a problem shows.
const SHOWN_CHARS_MAX: usize = 80;
/// Unknown keys of one table that are told one by one: each is compared with all known ones.
const UNKNOWN_KEYS_MAX: usize = 20;

pub(super) type Problems = RefCell<Vec<Problem>>;

pub(super) struct Table<'a> {
    path: String,
    map: &'a Map<String, Value>,
    /// Keys that were asked for: the ones that are right here.
    known: Vec<&'static str>,
    problems: &'a Problems,
}

impl<'a> Table<'a> {
    pub fn new(path: impl Into<String>, map: &'a Map<String, Value>, problems: &'a Problems) -> Self {
        Self { path: path.into(), map, known: Vec::new(), problems }
    }

    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a fault of `key`, with the value that stands there.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        let value = self.map.get(key).map(shown);
        self.problems.borrow_mut().push(Problem::new(self.path(key), value, message));
    }

    /// The same for what may be a secret.
    pub fn problem_without_value(&self, key: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::new(self.path(key), None, message));
    }

    /// The value, if there is one. A `null` of JSON is the same as nothing.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// `read` says what is wrong with a value.
    fn read<T>(&mut self, key: &'static str, read: impl FnOnce(&'a Value) -> Result<T, String>) -> Option<T> {
        let value = self.value(key)?;
        read(value).map_err(|message| self.problem(key, message)).ok()
    }

    pub fn text(&mut self, key: &'static str) -> Option<&'a str> {
        self.read(key, |value| value.as_str().ok_or_else(|| "must be a text, as in \"…\"".to_string()))
    }

    /// A text that must be there. `what` completes "is missing: …".
    pub fn required_text(&mut self, key: &'static str, what: &str) -> Option<&'a str> {
        if self.value(key).is_none() {
            self.problem(key, format!("is missing: {what}"));
            return None;
        }
        self.text(key)
    }

    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, |value| value.as_bool().ok_or_else(|| "must be true or false".to_string()))
    }

    /// A whole number. Its range is a matter of validation; here it only has to fit.
    pub fn number(&mut self, key: &'static str) -> Option<u32> {
        self.read(key, |value| {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| format!("must be a whole number from 0 to {}", u32::MAX))
        })
    }

    /// A text like `"250ms"`, or a whole number of milliseconds.
    pub fn duration_ms(&mut self, key: &'static str) -> Option<u64> {
        self.read(key, duration_ms)
    }

    /// The outer `None`: not there, or wrong. The inner one: `"off"`.
    pub fn duration_ms_or_off(&mut self, key: &'static str) -> Option<Option<u64>> {
        self.read(key, |value| match value.as_str() {
            Some("off") => Ok(None),
            _ => duration_ms(value).map(Some).map_err(|message| format!("{message}; or \"off\"")),
        })
    }

    /// Whether the word `"off"` stands there.
    pub fn is_off(&mut self, key: &'static str) -> bool {
        self.value(key).and_then(Value::as_str) == Some("off")
    }

    /// A share of something.
    pub fn share(&mut self, key: &'static str) -> Option<f64> {
        self.read(key, |value| {
            let share = value.as_f64().filter(|share| (0.0..=1.0).contains(share));
            share.ok_or_else(|| "must be a number from 0.0 to 1.0, or \"off\"".to_string())
        })
    }

    /// A text like `"64MiB"`, or a whole number of bytes.
    pub fn bytes(&mut self, key: &'static str) -> Option<u64> {
        self.read(key, |value| match value {
            Value::String(text) => units::parse_bytes(text).map_err(|e| e.to_string()),
            _ => value.as_u64().ok_or_else(|| "must be a size like \"64MiB\", or a whole number of bytes".to_string()),
        })
    }

    /// One of several words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.read(key, |value| {
            let word = value.as_str().unwrap_or_default();
            choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice).ok_or_else(|| {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                format!("must be {}{}", names.join(" or "), similar::did_you_mean(word, choices.iter().map(|(name, _)| *name)))
            })
        })
    }

    /// A table below this one.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        let path = self.path(key);
        let problems = self.problems;
        self.read(key, |value| value.as_object().ok_or_else(|| format!("must be a table, as in [{path}]")))
            .map(|map| Table::new(path, map, problems))
    }

    /// The tables of `[[key]]`, with their numbers.
    pub fn tables(&mut self, key: &'static str) -> Vec<(usize, &'a Map<String, Value>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            self.problem(key, format!("must be a list of tables: write [[{key}]] with two brackets for each"));
            return Vec::new();
        };
        let table = |(i, item): (usize, &'a Value)| match item.as_object() {
            Some(map) => Some((i, map)),
            None => {
                let problem = Problem::new(format!("{}[{i}]", self.path(key)), Some(shown(item)), "must be a table");
                self.problems.borrow_mut().push(problem);
                None
            }
        };
        items.iter().enumerate().filter_map(table).collect()
    }

    /// Everything that was not asked for.
    pub fn rest(&self) -> Options {
        self.unknown().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Notes every key that was not asked for. Its value may be a secret that lost its way, so it is not shown.
    pub fn refuse_unknown(&self) {
        let unknown = self.unknown().count();
        for (key, _) in self.unknown().take(UNKNOWN_KEYS_MAX) {
            let hint = match similar::nearest(key, self.known.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known here are {}", self.known.join(", ")),
            };
            self.problem_without_value(key, format!("is not a known key; {hint}"));
        }
        if unknown > UNKNOWN_KEYS_MAX {
            let message = format!("{} further keys are not known", unknown - UNKNOWN_KEYS_MAX);
            let path = if self.path.is_empty() { "job" } else { &self.path };
            self.problems.borrow_mut().push(Problem::new(path, None, message));
        }
    }

    fn unknown(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter().filter(|(key, _)| !self.known.contains(&key.as_str()))
    }
}

fn duration_ms(value: &Value) -> Result<u64, String> {
    match value {
        Value::String(text) => units::parse_duration_ms(text).map_err(|e| e.to_string()),
        _ => {
            let ms = value.as_u64().filter(|ms| *ms <= DURATION_MS_MAX);
            ms.ok_or_else(|| "must be a duration like \"250ms\" or \"5m\", or a whole number of milliseconds".to_string())
        }
    }
}

/// A value as its author would recognise it. Long ones are cut.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The path of a node's table: by its name, or by its number where the name does not serve.
pub(super) fn node_path(kind: &str, index: usize, name: &str) -> String {
    match name_problem(name) {
        None => format!("{kind}.{name}"),
        Some(_) => format!("{kind}[{index}]"),
    }
}

/// What is wrong with the name of a job or of a node. Names become file and metric names.
pub fn name_problem(name: &str) -> Option<String> {
    let pattern = "must be lower-case letters, digits, \"_\" and \"-\", beginning with a letter or digit ([a-z0-9][a-z0-9_-]*)";
    if name.len() > NAME_BYTES_MAX {
        return Some(format!("has {} bytes, which exceeds the limit of {NAME_BYTES_MAX} (name_bytes_max)", name.len()));
    }
    let first = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let right = name.bytes().next().is_some_and(first) && name.bytes().all(|b| first(b) || b == b'_' || b == b'-');
    (!right).then(|| pattern.to_string())
}
