//! What the API refuses, it refuses with a problem document that names everything that is wrong.

use serde_json::{Value, json};
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;

fn problems_of(problem: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let problems = problem["problems"].as_array().cloned().unwrap_or_default();
    problems.iter().map(|problem| (text(&problem["key"]), text(&problem["message"]))).collect()
}

#[test]
fn all_problems_of_a_job_are_told_at_once() {
    let host = Host::start();
    host.push("running-totals");
    let job = json!({
        "name": "wrong",
        "colour": "blue",
        "checkpoint": { "interval": "1ms", "retained": 0 },
        "source": [{ "name": "in", "connector": "generatr" }, { "name": "in", "connector": "file" }],
        "operator": [
            { "name": "totals", "module": "running-totals@1.0.0", "input": ["nobody"], "parallelism": 0 },
            { "name": "other", "module": "not-there@1.0.0", "input": ["in"], "key": { "json": "bidder" } },
        ],
        "sink": [{ "name": "out", "connector": "file", "input": ["totals.side"] }],
    });
    let problem = host.client().put_json("/v1/jobs/wrong", &job).problem(422);
    let problems = problems_of(&problem);
    for key in [
        "colour",
        "checkpoint.interval",
        "checkpoint.retained",
        "source.in.connector",
        "source[1].name",
        "operator.totals.input",
        "operator.totals.parallelism",
        "operator.other.module",
        "operator.other.key",
        "sink.out.path",
    ] {
        assert!(problems.iter().any(|(found, _)| found.starts_with(key)), "nothing about {key} in {problems:#?}");
    }
    assert!(problems.iter().all(|(_, message)| !message.is_empty()));
    host.client().get("/v1/jobs/wrong").problem(404);
}

#[test]
fn what_goes_together_badly_is_told_too() {
    let host = Host::start();
    host.push("running-totals");
    let base = TotalsJob { name: "j", records: 1, keys: 1, splits: 1, parallelism: 1, rate: None, interval: "1s" };
    let refused = |change: fn(&mut Value)| {
        let mut job = base.document(&host.work().join("out"));
        change(&mut job);
        problems_of(&host.client().put_json("/v1/jobs/j", &job).problem(422))
    };
    let keyless = refused(|job| drop(job["operator"][0].as_object_mut().expect("an operator").remove("key")));
    assert!(keyless.iter().any(|(key, _)| key.starts_with("operator.totals")), "a keyed operator needs a key: {keyless:?}");
    let stdout = refused(|job| job["sink"][0] = json!({ "name": "out", "connector": "stdout", "input": ["totals"] }));
    assert!(
        stdout.iter().any(|(_, message)| message.contains("at-least-once")),
        "exactly-once is not weakened in silence: {stdout:?}"
    );
}

#[test]
fn a_module_that_cannot_be_an_operator_is_refused_with_the_reason() {
    let host = Host::start();
    let put = |bytes: &[u8]| host.client().put("/v1/modules/m/1.0.0", "application/wasm", bytes).problem(422).to_string();
    assert!(put(b"#!/bin/sh").contains("not WebAssembly"));
    assert!(put(b"\0asm\x01\0\0\0").contains("core module"));
    let greedy = wat::parse_str(
        r#"(component (import "wasi:http/outgoing-handler@0.2.6" (instance (export "handle" (func))))
            (import "acme:cache/store@1.0.0" (instance (export "get" (func)))))"#,
    );
    let greedy = put(&greedy.expect("is a component"));
    assert!(greedy.contains("wasi:http/outgoing-handler@0.2.6") && greedy.contains("acme:cache/store@1.0.0"), "{greedy}");
    host.client().get("/v1/modules/m/1.0.0").problem(404);
}

#[test]
fn a_version_of_a_module_never_changes() {
    let host = Host::start();
    host.push("dedup");
    let path = "/v1/modules/dedup/1.0.0";
    let bytes = std::fs::read(guest_build::component("dedup")).expect("reads the component");
    assert_eq!(host.client().put(path, "application/wasm", &bytes).status, 200, "the same bytes again are no change");
    let other = std::fs::read(guest_build::component("word-split")).expect("reads the component");
    let problem = host.client().put(path, "application/wasm", &other).problem(409);
    assert!(problem["remedy"].as_str().is_some_and(|remedy| remedy.contains("new version")), "{problem}");
    let module = host.client().get(path).document();
    assert_eq!((&module["name"], &module["version"], &module["world"]), (&json!("dedup"), &json!("1.0.0"), &json!("processor")));
    assert_eq!(module["states"][0]["name"], "seen", "{module}");
}

#[test]
fn what_is_not_there_or_not_possible_is_a_problem_document() {
    let host = Host::start();
    let client = host.client();
    client.get("/v1/jobs/nobody").problem(404);
    client.get("/v1/nothing").problem(404);
    client.post("/v1/jobs/nobody/stop", &json!({})).problem(404);
    client.post("/v1/jobs", &json!({})).problem(405);
    client.put("/v1/jobs/j", "application/json", b"{").problem(400);
    client.put("/v1/jobs/j", "text/plain", b"name = 'j'").problem(415);
    client.put("/v1/jobs/j", "application/json", &vec![b' '; (1 << 20) + 1]).problem(413);
    client.put_json("/v1/jobs/other", &json!({ "name": "j" })).problem(422);
}

#[test]
fn wrong_states_are_conflicts_and_repeated_wishes_are_none() {
    let host = Host::start();
    host.push("running-totals");
    let job = TotalsJob { name: "j", records: 1000, keys: 10, splits: 1, parallelism: 1, rate: None, interval: "1s" };
    let document = job.document(&host.work().join("out"));
    host.put_job(&document);
    host.wait_for_state("j", "finished");
    assert_eq!(host.client().put_json("/v1/jobs/j", &document).status, 200, "the same document again");
    host.client().post("/v1/jobs/j/savepoints?wait=10s", &json!({})).problem(409);
    host.client().post("/v1/jobs/j/start", &json!({ "from": { "savepoint": "none-of-mine" } })).problem(404);
    assert!(host.client().post("/v1/jobs/j/start", &json!({ "from": "somewhere" })).status == 400);
    let stop = json!({ "operation": "my-stop" });
    let first = host.client().post("/v1/jobs/j/stop?wait=10s", &stop).document();
    let second = host.client().post("/v1/jobs/j/stop?wait=10s", &stop).document();
    assert_eq!(first["id"], second["id"], "the same id is the same operation");
}

#[test]
fn the_host_tells_its_health_and_its_metrics() {
    let host = Host::start();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(host.client().get(path).status, 200);
    }
    let version = host.client().get("/v1/version").document();
    assert!(version["version"].is_string(), "{version}");
    host.push("running-totals");
    let job = TotalsJob { name: "j", records: 5000, keys: 10, splits: 1, parallelism: 1, rate: None, interval: "1s" };
    host.put_job(&job.document(&host.work().join("out")));
    host.wait_for_state("j", "finished");
    let metrics = host.client().get("/metrics").body;
    for family in [
        "tidegate_job_state{",
        "tidegate_checkpoints_completed_total{",
        "tidegate_records_in_total{",
        "tidegate_http_requests_total{",
    ] {
        assert!(metrics.contains(family), "no {family} in\n{metrics}");
    }
    let of_totals: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with("tidegate_records_in_total{") && line.contains(r#"operator="totals""#))
        .collect();
    assert!(of_totals.len() == 1 && of_totals[0].ends_with(" 5000"), "{of_totals:?}");
}
