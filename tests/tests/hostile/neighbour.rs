//! A measurement, no test: how much of its throughput a job keeps while hostile guests run and are pushed on the same host.
//!
//! ```sh
//! cargo test -p tidegate-tests --test hostile -- --ignored --nocapture neighbour
//! ```
//!
//! Phases with and without trouble take turns in one run, so that what else happens on the machine falls on both. The neighbour
//! has a rate that one core can bear: a job that wants all cores shares them with whatever else the host runs, hostile or not.

use crate::component::{Component, SPIN};
use serde_json::json;
use std::time::{Duration, Instant};
use tidegate_tests::host::Host;

const PHASE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;
const RATE: u64 = 100_000;

fn records(host: &Host) -> u64 {
    let metrics = host.client().get("/metrics").body;
    let of_totals = |line: &&str| line.starts_with("tidegate_records_in_total{") && line.contains("operator=\"totals\"");
    metrics.lines().filter(of_totals).filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// Records a second over one phase, in which this is done again and again.
fn phase(host: &Host, mut meanwhile: impl FnMut()) -> f64 {
    let (begun, before) = (Instant::now(), records(host));
    while begun.elapsed() < PHASE {
        meanwhile();
        std::thread::sleep(Duration::from_millis(100));
    }
    (records(host) - before) as f64 / begun.elapsed().as_secs_f64()
}

#[test]
#[ignore = "a measurement"]
fn neighbour_keeps_its_throughput() {
    let host = Host::start();
    host.push("running-totals");
    let generator = |name: &str, rate: u64| json!({ "name": name, "connector": "generator", "format": "json", "rate": rate });
    host.put_job(&json!({
        "name": "neighbour",
        "source": [generator("bids", RATE)],
        "operator": [{
            "name": "totals", "module": "running-totals@1.0.0", "input": ["bids"], "key": { "json": "/bidder" },
            "config": { "format": "json" },
        }],
        "sink": [{ "name": "out", "connector": "blackhole", "input": ["totals"] }],
    }));
    host.wait_for_checkpoints("neighbour", 2);
    let evil = [
        ("spins", SPIN),
        ("traps", "unreachable"),
        ("allocates", "(loop $more (drop (memory.grow (i32.const 64))) (br $more)) unreachable"),
    ];
    for (name, body) in evil {
        let component = Component { process: body.to_owned(), ..Component::default() };
        host.client().put(&format!("/v1/modules/{name}/1.0.0"), "application/wasm", &component.bytes()).document();
        host.put_job(&json!({
            "name": name,
            "batch": { "rows": 1 },
            "source": [generator("lines", 20)],
            "operator": [{
                "name": "evil", "module": format!("{name}@1.0.0"), "input": ["lines"], "on_error": "skip",
                "limits": { "deadline": "20ms" },
            }],
            "sink": [{ "name": "out", "connector": "blackhole", "input": ["lines"] }],
        }));
        host.stop(name);
    }
    let upload = Component { describe: "unreachable".to_owned(), ..Component::default() }.bytes();
    let (mut alone, mut beside) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        alone += phase(&host, || {});
        evil.iter().for_each(|(name, _)| host.start_job(name, json!("latest")));
        beside += phase(&host, || {
            host.client().put("/v1/modules/refused/1.0.0", "application/wasm", &upload).problem(422);
        });
        evil.iter().for_each(|(name, _)| host.stop(name));
    }
    println!(
        "{}",
        json!({
            "measured": "neighbour", "rate": RATE, "rounds": ROUNDS, "alone": alone / ROUNDS as f64, "beside": beside / ROUNDS as f64,
            "ratio": beside / alone,
        })
    );
}
