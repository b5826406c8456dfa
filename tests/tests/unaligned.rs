//! Unaligned checkpoints from outside: what barriers overtook is in the checkpoint, and comes back, once, whatever the number of tasks.

use serde_json::{Value, json};
use std::time::Duration;
use tidegate_tests::host::Host;
use tidegate_tests::job::{TotalsJob, unaligned};
use tidegate_tests::output;
use tidegate_tests::totals::{self, Total};
use tidegate_tests::wait::until;

const LIMIT: Duration = Duration::from_secs(120);

/// Nobody paces the source, so its channels are full all the time.
fn job(parallelism: u32, records: u64) -> TotalsJob {
    TotalsJob { name: "flood", records, keys: 400, splits: 3, parallelism, rate: None, interval: "50ms" }
}

fn document(host: &Host, of: &TotalsJob) -> Value {
    unaligned(of.document(&host.work().join("out")))
}

fn in_flight(checkpoint: &Value) -> u64 {
    checkpoint["inflight_bytes"].as_u64().unwrap_or_else(|| panic!("no bytes in flight are reported: {checkpoint}"))
}

/// Until the last completed checkpoint is one that holds something in flight.
fn wait_for_something_in_flight(host: &Host, name: &str) -> u64 {
    until("a checkpoint with something in flight", LIMIT, || {
        let job = host.job(name);
        assert_ne!(job["status"]["state"], "finished", "the job was done before: nothing was proved");
        let last = host.completed_checkpoints(name).last().map(in_flight);
        last.filter(|bytes| *bytes > 0).ok_or_else(|| format!("the last completed one held {last:?}"))
    })
}

#[track_caller]
fn assert_exactly_once(host: &Host, of: &TotalsJob) {
    let out = host.work().join("out");
    let verdict = totals::check(of.input(), output::lines(&out).iter().map(|line| Total::from_json(line)));
    assert!(verdict.is_exactly_once() && verdict.records == of.records, "{verdict}");
    assert_eq!(output::staged(&out), Vec::<String>::new(), "rows that nobody will ever commit");
}

#[test]
fn what_was_in_flight_comes_back_once_after_kills_and_with_other_numbers_of_tasks() {
    let mut host = Host::start();
    host.push("running-totals");
    let records = 900_000;
    host.put_job(&document(&host, &job(2, records)));
    for parallelism in [2, 3, 1, 2] {
        let bytes = wait_for_something_in_flight(&host, "flood");
        println!("{bytes} bytes in flight, then kill -9, then {parallelism} tasks");
        host.kill();
        host.restart();
        wait_for_something_in_flight(&host, "flood");
        host.stop("flood");
        host.put_job(&document(&host, &job(parallelism, records)));
        host.start_job("flood", json!("latest"));
    }
    host.wait_for_state("flood", "finished");
    assert_exactly_once(&host, &job(2, records));
}

#[test]
fn a_savepoint_of_a_job_with_unaligned_checkpoints_has_nothing_in_flight() {
    let host = Host::start();
    host.push("running-totals");
    let of = job(2, 400_000);
    host.put_job(&document(&host, &of));
    wait_for_something_in_flight(&host, of.name);
    let savepoint = host.stop_with_savepoint(of.name);
    let id = savepoint["id"].as_str().expect("an id");
    let manifest = host.data().join("jobs").join(of.name).join("savepoints").join(id).join("manifest.json");
    let manifest: Value = serde_json::from_slice(&std::fs::read(&manifest).expect("a manifest")).expect("JSON");
    assert_eq!((&manifest["in_flight"], &manifest["format"]), (&Value::Null, &json!(1)), "older hosts read it");
    host.put_job(&document(&host, &job(1, of.records)));
    host.start_job(of.name, json!({ "savepoint": id }));
    host.wait_for_state(of.name, "finished");
    assert_exactly_once(&host, &of);
}

#[test]
fn with_an_aligned_timeout_nothing_is_overtaken_before_it_is_over() {
    let host = Host::start();
    host.push("running-totals");
    let of = job(2, 200_000);
    let mut document = document(&host, &of);
    document["checkpoint"]["aligned_timeout"] = json!("50s");
    host.put_job(&document);
    host.wait_for_checkpoints(of.name, 1);
    host.wait_for_state(of.name, "finished");
    let completed = host.completed_checkpoints(of.name);
    assert!(completed.iter().all(|checkpoint| in_flight(checkpoint) == 0), "{completed:#?}");
    assert_exactly_once(&host, &of);
}
