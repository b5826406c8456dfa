//! The job of a workload, as its author would write it.
//!
//! Events come from the `generator` connector, which makes those of the specification; what is left goes to a `blackhole`, which
//! computes the digest of what it swallows. The engines differ in the operator's module alone.

use crate::plan::{BadHow, Bound, Format, OnError, RunPlan, Workload};
use serde_json::{Value, json};

pub const NAME: &str = "bench";
pub const SOURCE: &str = "events";
pub const SINK: &str = "out";

/// The operator of a workload; none where rows go from the source to the sink.
pub fn operator(workload: Workload) -> Option<&'static str> {
    match workload {
        Workload::W0 => None,
        Workload::W1 | Workload::W1map => Some("w1"),
        Workload::W2 | Workload::W2bad | Workload::Cold => Some("w2"),
        Workload::Ws => Some("ws"),
    }
}

/// The package of the guest.
pub fn package(workload: Workload) -> Option<&'static str> {
    match workload {
        Workload::W0 => None,
        Workload::W1 | Workload::W1map => Some("convert"),
        Workload::W2 | Workload::Cold => Some("running-totals"),
        Workload::W2bad => Some("bench-bad"),
        Workload::Ws => Some("bench-ws"),
    }
}

/// Where the output goes.
pub enum Sink<'a> {
    Blackhole,
    /// A folder.
    File(&'a str),
}

/// The job in the shape of the API.
pub fn spec(plan: &RunPlan, module: &str, sink: Sink<'_>) -> Value {
    let mut job = json!({
        "name": NAME,
        "delivery": "exactly-once",
        "checkpoint": { "interval": plan.interval.map_or("off".to_string(), |interval| format!("{}ms", interval.as_millis())) },
        "source": [source(plan)],
    });
    let output = match operator(plan.workload) {
        None => SOURCE,
        Some(name) => {
            job["operator"] = json!([operator_spec(plan, name, module)]);
            name
        }
    };
    job["sink"] = match sink {
        Sink::Blackhole => {
            json!([{ "name": SINK, "connector": "blackhole", "input": [output], "digest": digest(plan.workload) }])
        }
        Sink::File(path) => json!([{ "name": SINK, "connector": "file", "input": [output], "path": path }]),
    };
    job
}

fn source(plan: &RunPlan) -> Value {
    let mut source = json!({
        "name": SOURCE,
        "connector": "generator",
        "parallelism": plan.parallelism,
        "keys": plan.keys,
    });
    if plan.workload == Workload::Ws {
        source["form"] = json!("pair");
        source["prefill"] = json!(true);
    } else {
        source["format"] = json!(plan.format.name());
    }
    if let Bound::Records(records) = plan.bound {
        source["records"] = json!(records);
    }
    if let Some(rate) = plan.rate {
        source["rate"] = json!(rate);
    }
    source
}

fn operator_spec(plan: &RunPlan, name: &str, module: &str) -> Value {
    let mut operator = json!({
        "name": name,
        "module": module,
        "input": [SOURCE],
        "parallelism": plan.parallelism,
        "on_error": "fail",
    });
    if !matches!(plan.workload, Workload::Ws | Workload::W2bad) {
        operator["config"] = json!({ "format": plan.format.name() });
    }
    match plan.workload {
        Workload::W0 | Workload::W1 => {}
        Workload::W1map => operator["config"]["filter"] = json!(false),
        Workload::W2 | Workload::Cold => {
            // Bytes in: the key is for the engine to find, as in the other engines' byte modes.
            operator["key"] = match plan.format {
                Format::Rows => json!("row"),
                Format::Json => json!({ "json": "/bidder" }),
            };
        }
        Workload::W2bad => {
            let bad = plan.bad;
            operator["key"] = json!("row");
            operator["config"] = json!({ "bad_one_in": bad.one_in, "traps": bad.how == BadHow::Trap });
            operator["on_error"] = json!(match bad.on_error {
                OnError::Skip => "skip",
                OnError::DeadLetter => "dead-letter",
            });
            // Millions of them are what is measured.
            operator["errors"] = json!({ "max": "off", "ratio": "off", "bytes": "off" });
        }
        Workload::Ws => {
            operator["key"] = json!("row");
            operator["config"] = json!({ "value_bytes": plan.value_bytes });
        }
    }
    operator
}

/// What the blackhole computes. `ws` emits (key, counter, 0): the state's digest is then that of w2 without a sum.
fn digest(workload: Workload) -> &'static str {
    match workload {
        Workload::W0 => "count",
        Workload::W1 | Workload::W1map => "w1",
        Workload::W2 | Workload::W2bad | Workload::Ws | Workload::Cold => "w2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use clap::Parser;

    fn job(args: &str) -> Value {
        let args = ["bench", "--workload"].into_iter().chain(args.split_whitespace());
        let plan = Options::try_parse_from(args).expect("parses").plan();
        spec(&plan, "bench-w@0.1.0", Sink::Blackhole)
    }

    #[test]
    fn w2_is_keyed_by_the_rows_key_or_by_the_json() {
        let rows = job("w2 --keys 7 --interval off --records 10 --rate 5");
        assert_eq!(rows["operator"][0]["key"], "row");
        assert_eq!(rows["checkpoint"]["interval"], "off");
        assert_eq!(rows["source"][0]["records"], 10);
        assert_eq!(rows["source"][0]["rate"], 5.0);
        assert_eq!(rows["sink"][0], json!({"name": "out", "connector": "blackhole", "input": ["w2"], "digest": "w2"}));
        assert_eq!(job("w2 --format json")["operator"][0]["key"], json!({"json": "/bidder"}));
    }

    #[test]
    fn w0_has_no_operator_and_w1_no_key() {
        let w0 = job("w0");
        assert!(w0.get("operator").is_none());
        assert_eq!(w0["sink"][0]["input"][0], "events");
        assert!(job("w1")["operator"][0].get("key").is_none());
        assert_eq!(job("w1map")["operator"][0]["config"]["filter"], false);
    }

    #[test]
    fn ws_touches_every_key_first_and_says_how_large_a_value_is() {
        let ws = job("ws --keys 1000 --state-bytes 1e6");
        assert_eq!(ws["source"][0]["form"], "pair");
        assert_eq!(ws["source"][0]["prefill"], true);
        assert_eq!(ws["operator"][0]["config"]["value_bytes"], 1000);
    }
}
