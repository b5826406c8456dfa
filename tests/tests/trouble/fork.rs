//! A second job from a savepoint of the first: from there on each is on its own.

use crate::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_tests::cli::tidegate;

/// (least, greatest, how many) counts of each bidder.
fn chains(folder: &Path) -> BTreeMap<u64, (u64, u64, u64)> {
    let mut chains = BTreeMap::new();
    for line in output::lines(folder) {
        let total = Total::from_json(&line);
        let (least, greatest, counts) = chains.entry(total.bidder).or_insert((u64::MAX, 0, 0));
        (*least, *greatest, *counts) = (total.count.min(*least), total.count.max(*greatest), *counts + 1);
    }
    chains
}

#[test]
fn a_fork_of_a_running_job_goes_on_from_the_savepoint_and_both_finish_on_their_own() {
    let job = job(2_000);
    let mut host = started(&job);
    let path = format!("/v1/jobs/{}", job.name);
    let operation = host.client().post(&format!("{path}/savepoints?wait=60s"), &json!({})).document();
    let id = operation["savepoint"]["id"].as_str().unwrap_or_else(|| panic!("{operation}")).to_owned();
    let fork_out = host.work().join("fork-out");
    let fork = TotalsJob { name: "fork", parallelism: 1, ..self::job(4_000) };
    host.client().put_json("/v1/jobs/fork?start=false", &fork.document(&fork_out)).document();
    let from = json!({ "savepoint": id, "job": job.name });
    host.start_job("fork", from.clone());
    host.wait_for_checkpoints("fork", 1);
    assert_eq!(host.client().delete(&format!("{path}/savepoints/{id}")).status, 204, "the fork has a copy of its own");
    host.kill();
    host.restart();
    for name in ["fork", job.name] {
        host.wait_for_state(name, "finished");
    }
    assert_exactly_once(&host, &job);
    let (original, forked) = (chains(&host.work().join("out")), chains(&fork_out));
    for (bidder, (least, greatest, counts)) in &forked {
        assert_eq!(greatest - least + 1, *counts, "bidder {bidder}: gaps or repeats");
        assert_eq!(*greatest, original[bidder].1, "bidder {bidder} comes to its end");
    }
    assert!(forked.values().any(|(least, ..)| *least > 1), "it did not begin from nothing");
    host.client().post("/v1/jobs/fork/start", &json!({ "from": from })).problem(404);
}

#[test]
fn a_job_that_does_not_fit_is_told_everything_at_once() {
    let job = job(4_000);
    let host = started(&job);
    let savepoint = host.stop_with_savepoint(job.name);
    let mut other = TotalsJob { name: "other", ..self::job(4_000) }.document(&host.work().join("other-out"));
    other["key_groups"] = json!(128);
    other["operator"][0]["name"] = json!("sums");
    other["sink"][0]["input"] = json!(["sums"]);
    host.client().put_json("/v1/jobs/other?start=false", &other).document();
    let request = json!({ "from": { "savepoint": savepoint["id"], "job": job.name } });
    let problem = host.client().post("/v1/jobs/other/start", &request).problem(422);
    let keys: Vec<_> = problem["problems"].as_array().expect("problems").iter().map(|p| p["key"].clone()).collect();
    assert_eq!(keys, [json!("key_groups"), json!("operator.totals")], "{problem}");
    let none = format!("{}/none", job.name);
    let refused = tidegate().args(["savepoint", "restore", "other", &none, "--server", host.url()]).finish();
    assert!(refused.code == 1 && refused.errors.contains(&format!("there is no savepoint `{none}`")), "{refused}");
    let typo = host.client().post("/v1/jobs/other/start", &json!({ "from": { "savepoint": "x", "jop": "y" } })).problem(400);
    assert!(typo["detail"].as_str().is_some_and(|detail| detail.contains("jop")), "{typo}");
}
