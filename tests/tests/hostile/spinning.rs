//! A guest that does not come back.

use crate::component::{Component, SPIN};
use serde_json::json;
use std::time::Instant;
use tidegate_tests::host::Host;

#[test]
fn checkpoints_go_on_while_a_guest_spins_over_some_of_its_records() {
    let host = Host::start();
    host.push("contract");
    let lines: String = (0..1000).map(|i| if i % 20 == 7 { format!("bad {i}\n") } else { format!("{i}\n") }).collect();
    std::fs::write(host.work().join("input.txt"), lines).expect("writes the input");
    host.put_job(&json!({
        "name": "spins",
        "checkpoint": { "interval": "50ms", "timeout": "20s", "tolerable_failures": 0 },
        "restart": { "strategy": "none" },
        "batch": { "rows": 20 },
        "source": [{ "name": "lines", "connector": "file", "path": "input.txt", "format": "lines" }],
        "operator": [{
            "name": "spins", "module": "contract@1.0.0", "input": ["lines"], "key": "row", "config": { "case": "spin" },
            "limits": { "deadline": "30ms" },
        }],
        "sink": [{ "name": "out", "connector": "file", "input": ["spins"], "path": "out" }],
    }));
    // Fifty culprits, each found in some calls of 30 ms: long enough to see checkpoints in between.
    host.wait_for_checkpoints("spins", 3);
    host.wait_for_state("spins", "finished");
    assert_eq!(host.dead_letters("spins").len(), 50);
    assert_eq!(tidegate_tests::output::lines(&host.work().join("out")).len(), 950, "all others are there");
}

#[test]
fn a_job_can_be_stopped_while_its_guest_spins_far_from_its_deadline() {
    let host = Host::start();
    std::fs::write(host.work().join("input.txt"), "line\n").expect("writes the input");
    let component = Component { process: SPIN.to_owned(), ..Component::default() };
    host.client().put("/v1/modules/spin/1.0.0", "application/wasm", &component.bytes()).document();
    host.put_job(&json!({
        "name": "spins",
        "source": [{ "name": "lines", "connector": "file", "path": "input.txt", "format": "lines" }],
        "operator": [{ "name": "spins", "module": "spin@1.0.0", "input": ["lines"], "limits": { "deadline": "10m" } }],
        "sink": [{ "name": "out", "connector": "blackhole", "input": ["lines"] }],
    }));
    host.wait_for_state("spins", "running");
    let begun = Instant::now();
    host.stop("spins");
    // Nothing but the look at the stop ends the call: the deadline is ten minutes away.
    assert!(begun.elapsed().as_secs() < 300);
    let state = host.job("spins")["status"]["state"].clone();
    assert!(state == "cancelled" || state == "stopped", "{state}");
}
