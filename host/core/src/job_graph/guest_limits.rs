//! `limits` of an operator: which bounds of a guest a job file may move, and how far.
//!
//! What is not in the table (lengths of names, numbers of declarations and handles) is settled when a module is uploaded, before
//! there is a job.

use super::fields::Table;
use crate::limits::GuestLimits;
use crate::units::{format_bytes, format_duration_ms};

#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Ms,
    Count,
}

struct Limit {
    key: &'static str,
    unit: Unit,
    least: u64,
    most: u64,
    set: fn(&mut GuestLimits, u64),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const LIMITS: &[Limit] = &[
    // A page of wasm memory, and all that 32 bits can address.
    Limit { key: "memory", unit: Unit::Bytes, least: 64 * KIB, most: 4096 * MIB, set: |l, v| l.memory_bytes_max = v as usize },
    // A barrier may have to wait for one call.
    Limit { key: "deadline", unit: Unit::Ms, least: 1, most: 600_000, set: |l, v| l.call_deadline_ms = v },
    Limit { key: "output_bytes", unit: Unit::Bytes, least: KIB, most: 1024 * MIB, set: |l, v| l.output_bytes_max = v as usize },
    Limit { key: "output_rows", unit: Unit::Count, least: 1, most: 1 << 24, set: |l, v| l.output_rows_max = v as u32 },
    Limit {
        key: "state_value_bytes",
        unit: Unit::Bytes,
        least: 1,
        most: 64 * MIB,
        set: |l, v| l.state_value_bytes_max = v as usize,
    },
    Limit { key: "map_key_bytes", unit: Unit::Bytes, least: 1, most: MIB, set: |l, v| l.map_key_bytes_max = v as usize },
    Limit { key: "scan_entries", unit: Unit::Count, least: 1, most: 1 << 20, set: |l, v| l.scan_entries_max = v as u32 },
    Limit { key: "list_elements", unit: Unit::Count, least: 1, most: 1 << 24, set: |l, v| l.list_elements_max = v as u32 },
    Limit { key: "timers_per_call", unit: Unit::Count, least: 0, most: 1 << 20, set: |l, v| l.timers_per_call_max = v as u32 },
    Limit { key: "timers_per_key", unit: Unit::Count, least: 1, most: 1 << 24, set: |l, v| l.timers_per_key_max = v as u32 },
    Limit { key: "timer_rounds", unit: Unit::Count, least: 1, most: 1 << 20, set: |l, v| l.timer_rounds_max = v as u32 },
    Limit {
        key: "log_lines_per_call",
        unit: Unit::Count,
        least: 0,
        most: 10_000,
        set: |l, v| l.log_lines_per_call_max = v as u32,
    },
    Limit { key: "log_line_bytes", unit: Unit::Bytes, least: 64, most: MIB, set: |l, v| l.log_line_bytes_max = v as usize },
    Limit {
        key: "log_lines_per_second",
        unit: Unit::Count,
        least: 0,
        most: 100_000,
        set: |l, v| l.log_lines_per_second_max = v as u32,
    },
    Limit {
        key: "log_bytes_per_second",
        unit: Unit::Bytes,
        least: 64,
        most: 64 * MIB,
        set: |l, v| l.log_bytes_per_second_max = v as usize,
    },
    Limit { key: "metrics", unit: Unit::Count, least: 0, most: 1000, set: |l, v| l.metrics_max = v as u32 },
];

/// The defaults, with what the table changes.
pub(super) fn read(mut table: Table<'_>) -> GuestLimits {
    let mut limits = GuestLimits::default();
    for limit in LIMITS {
        let value = match limit.unit {
            Unit::Bytes => table.bytes(limit.key),
            Unit::Ms => table.duration_ms(limit.key),
            Unit::Count => table.number(limit.key).map(u64::from),
        };
        let Some(value) = value else { continue };
        if (limit.least..=limit.most).contains(&value) {
            (limit.set)(&mut limits, value);
        } else {
            let text = |value| match limit.unit {
                Unit::Bytes => format_bytes(value),
                Unit::Ms => format_duration_ms(value),
                Unit::Count => value.to_string(),
            };
            table.problem(limit.key, format!("must be {} to {}", text(limit.least), text(limit.most)));
        }
    }
    table.refuse_unknown();
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_graph::fields::Problems;
    use serde_json::json;

    fn read_json(value: serde_json::Value) -> (GuestLimits, Vec<String>) {
        let problems = Problems::default();
        let limits = read(Table::new("operator.delays.limits", value.as_object().unwrap(), &problems));
        (limits, problems.into_inner().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let (limits, problems) = read_json(json!({ "memory": "128MiB", "deadline": 250, "output_rows": 10 }));
        assert_eq!(problems, Vec::<String>::new());
        let expected =
            GuestLimits { memory_bytes_max: 128 << 20, call_deadline_ms: 250, output_rows_max: 10, ..GuestLimits::default() };
        assert_eq!(limits, expected);
    }

    #[test]
    fn every_default_lies_in_its_own_range_and_every_bound_is_reachable() {
        for limit in LIMITS {
            let (least, most) = (json!({ limit.key: limit.least }), json!({ limit.key: limit.most }));
            assert_eq!(read_json(least).1, Vec::<String>::new(), "{}", limit.key);
            assert_eq!(read_json(most).1, Vec::<String>::new(), "{}", limit.key);
            assert_eq!(read_json(json!({ limit.key: limit.most + 1 })).1.len(), 1, "{}", limit.key);
            let mut limits = GuestLimits::default();
            (limit.set)(&mut limits, limit.least);
            assert_ne!(limits, GuestLimits::default(), "{} sets something", limit.key);
        }
    }

    #[test]
    fn out_of_range_names_the_range_in_its_unit() {
        let (_, problems) =
            read_json(json!({ "memory": "1KiB", "deadline": "1h", "metrics": 5000, "memroy": 1, "output_rows": -1 }));
        assert_eq!(
            problems,
            [
                "operator.delays.limits.memory = \"1KiB\": must be 64KiB to 4GiB",
                "operator.delays.limits.deadline = \"1h\": must be 1ms to 10m",
                "operator.delays.limits.output_rows = -1: must be a whole number from 0 to 4294967295",
                "operator.delays.limits.metrics = 5000: must be 0 to 1000",
                "operator.delays.limits.memroy: is not a known key; did you mean \"memory\"?",
            ]
        );
    }
}
