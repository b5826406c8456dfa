//! The JSON line of a run. Names, order and units are those of the specification; what does not apply is null.

use crate::engine::Measured;
use crate::measure::Percentiles;
use crate::plan::{RunPlan, Workload};
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    engine: &'a str,
    workload: &'a str,
    keys: u64,
    records: Option<u64>,
    seconds: Option<f64>,
    cpu_seconds: Option<f64>,
    records_per_second: Option<u64>,
    records_per_cpu_second: Option<u64>,
    checkpoints: Option<u64>,
    checkpoint_ms: Option<P50P99>,
    stall_ms: Option<Percentiles>,
    latency_ms: Option<P50P99>,
    rss_mb: Option<f64>,
    digest: Option<&'a str>,
    #[serde(flatten)]
    cold: Option<ColdLine>,
}

#[derive(Serialize)]
struct P50P99 {
    p50: f64,
    p99: f64,
}

#[derive(Serialize)]
struct ColdLine {
    cold_ms: f64,
    idle_mb: f64,
    binary_mb: f64,
}

pub fn line(plan: &RunPlan, measured: &Measured) -> String {
    let throughput = plan.workload != Workload::Cold;
    let records = measured.records();
    let per = |seconds: f64| (throughput && seconds > 0.0).then(|| (records as f64 / seconds).round() as u64);
    let two = |samples: &[f64]| rounded(samples).map(|of| P50P99 { p50: of.p50, p99: of.p99 });
    let line = Line {
        engine: plan.engine.name(),
        workload: plan.workload.name(),
        keys: plan.keys,
        records: throughput.then_some(records),
        seconds: throughput.then(|| round(measured.seconds)),
        cpu_seconds: throughput.then(|| round(measured.cpu_seconds)),
        records_per_second: per(measured.seconds),
        records_per_cpu_second: per(measured.cpu_seconds),
        checkpoints: measured.checkpoints,
        checkpoint_ms: two(&measured.checkpoint_ms),
        stall_ms: rounded(&measured.stall_ms),
        latency_ms: two(&measured.latency_ms),
        rss_mb: measured.rss_bytes.map(megabytes),
        digest: measured.digest.as_deref(),
        cold: measured.cold.map(|cold| ColdLine {
            cold_ms: round(cold.cold_ms),
            idle_mb: megabytes(cold.idle_bytes),
            binary_mb: megabytes(cold.binary_bytes),
        }),
    };
    serde_json::to_string(&line).expect("BUG: the line has nothing that JSON has no words for")
}

/// Three digits: microseconds of milliseconds.
fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn rounded(samples: &[f64]) -> Option<Percentiles> {
    Percentiles::of(samples).map(|of| Percentiles { p50: round(of.p50), p99: round(of.p99), max: round(of.max) })
}

fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1e5).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cold;
    use crate::options::Options;
    use clap::Parser;

    fn plan(args: &[&str]) -> RunPlan {
        Options::try_parse_from(["bench"].iter().chain(args)).expect("parses").plan()
    }

    #[test]
    fn a_line_has_the_fields_of_the_specification_in_its_order() {
        let measured = Measured {
            records_by_split: vec![60, 40],
            seconds: 2.0,
            cpu_seconds: 0.5,
            checkpoints: Some(2),
            checkpoint_ms: vec![1.23456, 4.0],
            stall_ms: vec![0.5],
            latency_ms: Vec::new(),
            rss_bytes: Some(123_456_789),
            digest: Some("00ff".to_string()),
            cold: None,
        };
        let expected = r#"{"engine":"native","workload":"w2","keys":1000,"records":100,"seconds":2.0,"cpu_seconds":0.5,"records_per_second":50,"records_per_cpu_second":200,"checkpoints":2,"checkpoint_ms":{"p50":1.235,"p99":4.0},"stall_ms":{"p50":0.5,"p99":0.5,"max":0.5},"latency_ms":null,"rss_mb":123.5,"digest":"00ff"}"#;
        assert_eq!(line(&plan(&["--workload", "w2", "--engine", "native"]), &measured), expected);
    }

    #[test]
    fn a_cold_start_adds_its_fields_and_has_no_throughput() {
        let measured = Measured {
            cold: Some(Cold { cold_ms: 123.4567, idle_bytes: 40_000_000, binary_bytes: 25_060_000 }),
            ..Measured::default()
        };
        let expected = r#"{"engine":"tidegate","workload":"cold","keys":1000,"records":null,"seconds":null,"cpu_seconds":null,"records_per_second":null,"records_per_cpu_second":null,"checkpoints":null,"checkpoint_ms":null,"stall_ms":null,"latency_ms":null,"rss_mb":null,"digest":null,"cold_ms":123.457,"idle_mb":40.0,"binary_mb":25.1}"#;
        assert_eq!(line(&plan(&["--workload", "cold"]), &measured), expected);
    }

    #[test]
    fn no_time_is_no_throughput() {
        let text = line(&plan(&["--workload", "w2"]), &Measured::default());
        assert!(text.contains(r#""records_per_second":null"#), "{text}");
    }
}
