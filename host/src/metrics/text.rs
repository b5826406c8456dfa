//! Prometheus' text format, version 0.0.4.
//!
//! Invariant: every family is announced once, before its samples, and every label value is escaped.

use std::fmt::Write;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

#[derive(Default)]
pub struct Page {
    text: String,
    family: String,
}

impl Page {
    /// Samples from here on are of this family.
    pub fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        name.clone_into(&mut self.family);
    }

    /// `suffix` is for the parts of a histogram.
    pub fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        for (i, (name, value)) in labels.iter().enumerate() {
            self.text.push_str(if i == 0 { "{" } else { "," });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = match value {
            v if v.is_nan() => writeln!(self.text, " NaN"),
            f64::INFINITY => writeln!(self.text, " +Inf"),
            f64::NEG_INFINITY => writeln!(self.text, " -Inf"),
            v => writeln!(self.text, " {v}"),
        };
    }

    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_labels_and_values_stay_within_their_line() {
        let mut page = Page::default();
        page.family("x", "two\nlines", Kind::Gauge);
        page.sample("", &[("a", "quote \" slash \\ line\n")], f64::NAN);
        page.sample("", &[], f64::INFINITY);
        assert_eq!(page.finish(), "# HELP x two\\nlines\n# TYPE x gauge\nx{a=\"quote \\\" slash \\\\ line\\n\"} NaN\nx +Inf\n");
    }
}
