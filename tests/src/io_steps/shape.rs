//! The jobs whose every step is tried.

use super::native;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tidegate::job::runtime::Runtime;

const RECORDS: u64 = 240;
const KEYS: u64 = 7;

/// A new variant (another alignment, another connector) is a line in [`Shape::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub name: &'static str,
    pub operator: Operator,
    pub parallelism: u32,
    pub sinks: &'static [&'static str],
    /// Barriers that overtake, and batches so small that there is something to overtake.
    pub unaligned: bool,
    /// Records that can't be read, and records without a key.
    pub bad_records: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Source and sink are one task.
    None,
    /// Keyed, part of the test.
    Native,
    /// Keyed, a WebAssembly component.
    Guest,
}

impl Shape {
    pub const PLAIN: Self = Self {
        name: "one task, one sink",
        operator: Operator::None,
        parallelism: 1,
        sinks: &["out"],
        unaligned: false,
        bad_records: false,
    };
    pub const PLAIN_TWO: Self = Self { name: "one task, two sinks", sinks: &["out", "copy"], bad_records: true, ..Self::PLAIN };
    pub const KEYED: Self = Self { name: "keyed, one sink", operator: Operator::Native, ..Self::PLAIN };
    pub const KEYED_TWO: Self = Self {
        name: "keyed, two tasks, two sinks, dead letters",
        parallelism: 2,
        sinks: &["out", "copy"],
        bad_records: true,
        ..Self::KEYED
    };
    pub const GUEST: Self = Self { name: "keyed, a guest, two tasks", operator: Operator::Guest, parallelism: 2, ..Self::PLAIN };

    pub const UNALIGNED: Self =
        Self { name: "keyed, two tasks, two sinks, unaligned", unaligned: true, bad_records: false, ..Self::KEYED_TWO };

    pub const ALL: &'static [Self] = &[Self::PLAIN, Self::PLAIN_TWO, Self::KEYED, Self::KEYED_TWO, Self::GUEST, Self::UNALIGNED];

    pub fn job(&self) -> &'static str {
        "steps"
    }

    pub fn sinks(&self) -> &'static [&'static str] {
        self.sinks
    }

    /// Packages to push, with their components.
    pub fn guests(&self) -> Vec<(&'static str, PathBuf)> {
        match self.operator {
            Operator::Guest => vec![("running-totals", guest_build::component("running-totals"))],
            Operator::None | Operator::Native => Vec::new(),
        }
    }

    pub fn with_natives(&self, runtime: Runtime) -> Runtime {
        match self.operator {
            Operator::Native => runtime.with_native(native::REFERENCE, native::module()),
            Operator::None | Operator::Guest => runtime,
        }
    }

    /// Records of one file: they come in one order, so the right output is one and the same for all runs.
    pub fn write_input(&self, path: &Path) {
        let mut text = String::new();
        for i in 0..RECORDS {
            let (key, value) = (crate::generator::mix(i) % KEYS, crate::generator::mix(i) >> 40);
            let written = match i {
                _ if self.bad_records && i % 40 == 13 => writeln!(text, "{{\"k\": broken {i}"),
                _ if self.bad_records && i % 60 == 31 => writeln!(text, "{{\"v\":{value}}}"),
                _ => writeln!(text, "{{\"k\":{key},\"v\":{value},\"bidder\":{key},\"price\":{value}}}"),
            };
            written.expect("text can be written to");
        }
        std::fs::write(path, text).expect("the input can be written");
    }

    pub fn document(&self, input: &Path) -> Value {
        let source = json!({ "name": "in", "connector": "file", "path": input, "format": "json", "start": "earliest" });
        let (module, key, config) = match self.operator {
            Operator::Guest => ("running-totals@1.0.0", "/bidder", json!({ "format": "json" })),
            Operator::None | Operator::Native => (native::REFERENCE, "/k", json!({})),
        };
        let operator = json!({
            "name": "chain", "module": module, "input": ["in"], "key": { "json": key }, "parallelism": self.parallelism,
            "config": config,
        });
        let is_keyed = self.operator != Operator::None;
        let last = if is_keyed { "chain" } else { "in" };
        let sink = |name: &&str| json!({ "name": name, "connector": "file", "input": [last], "path": name });
        let mut job = json!({ "name": self.job(), "source": [source], "sink": self.sinks.iter().map(sink).collect::<Vec<_>>() });
        if is_keyed {
            job["operator"] = json!([operator]);
        }
        if self.unaligned {
            job["checkpoint"] = json!({ "unaligned": true });
            job["batch"] = json!({ "rows": 8 });
        }
        job
    }
}
