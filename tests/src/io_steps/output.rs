//! What a run has committed, in a form in which two runs can be compared.

use super::Shape;
use crate::output;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Lines by sink and task, in the order of the epochs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    pub lines: BTreeMap<(String, String), Vec<String>>,
    /// Staged files that nobody will ever commit.
    pub left: Vec<String>,
}

/// How far an output is from the right one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    pub lost: u64,
    pub duplicated: u64,
    /// The right lines in another order, or of another task.
    pub moved: u64,
}

impl Output {
    pub fn read(shape: &Shape, folder: &Path) -> Self {
        let mut found = Self::default();
        for sink in shape.sinks() {
            found.sink(sink, &folder.join(sink), |line| line);
        }
        found.sink("dead-letters", &folder.join("jobs").join(shape.job()).join("dead-letters"), without_time);
        found
    }

    fn sink(&mut self, sink: &str, folder: &Path, shown: impl Fn(String) -> String) {
        for file in output::files(folder) {
            // <prefix>-<task>-<epoch>-<job id>.<suffix>, and files come sorted by name: by task, then by epoch.
            let parts: Vec<_> = file.name.rsplit('-').collect();
            let lines = self.lines.entry((sink.to_owned(), parts[2].to_owned())).or_default();
            lines.extend(file.lines.into_iter().map(&shown));
        }
        self.left.extend(output::staged(folder).into_iter().map(|name| format!("{sink}/{name}")));
    }

    pub fn records(&self) -> u64 {
        self.lines.values().map(|lines| lines.len() as u64).sum()
    }

    /// By sink: what is missing and what is too many, against the right output.
    pub fn difference(&self, right: &Self) -> Difference {
        let mut difference = Difference::default();
        let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for (output, by) in [(right, 1), (self, -1)] {
            for ((sink, _), lines) in &output.lines {
                lines.iter().for_each(|line| *counts.entry((sink, line)).or_default() += by);
            }
        }
        for missing in counts.into_values() {
            difference.lost += missing.max(0) as u64;
            difference.duplicated += (-missing).max(0) as u64;
        }
        if (difference.lost, difference.duplicated) == (0, 0) && self.lines != right.lines {
            difference.moved = 1;
        }
        difference
    }
}

/// A dead letter without what depends on the moment: the time of the call, the epoch in its id, and how often was tried.
fn without_time(line: String) -> String {
    let mut letter: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
    let fields = letter.as_object_mut().expect("a dead letter is an object");
    for field in ["id", "processing_time_ms", "attempt", "instance", "call"] {
        fields.remove(field);
    }
    letter.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(lines: &[&str]) -> Output {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Output { lines: BTreeMap::from([(("out".to_owned(), "000".to_owned()), lines)]), left: Vec::new() }
    }

    #[test]
    fn what_is_missing_twice_or_out_of_order_is_told_apart() {
        let right = output(&["a", "b", "b", "c"]);
        assert_eq!(right.difference(&right), Difference::default());
        let difference = |lines: &[&str]| output(lines).difference(&right);
        assert_eq!(difference(&["a", "b", "c"]), Difference { lost: 1, duplicated: 0, moved: 0 });
        assert_eq!(difference(&["a", "b", "b", "b", "c"]), Difference { lost: 0, duplicated: 1, moved: 0 });
        assert_eq!(difference(&["b", "a", "b", "c"]), Difference { lost: 0, duplicated: 0, moved: 1 });
    }
}
