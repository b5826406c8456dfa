//! Stopping, starting and rescaling: over the whole of it every record counts once.

use serde_json::json;
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::output;
use tidegate_tests::totals::{self, Total, Verdict};

fn job(parallelism: u32, rate: Option<u64>) -> TotalsJob {
    TotalsJob { name: "totals", records: 40_000, keys: 300, splits: 2, parallelism, rate, interval: "100ms" }
}

fn verdict(host: &Host, job: &TotalsJob) -> Verdict {
    totals::check(job.input(), output::lines(&host.work().join("out")).iter().map(|line| Total::from_json(line)))
}

#[track_caller]
fn assert_exactly_once(host: &Host, job: &TotalsJob) {
    let verdict = verdict(host, job);
    assert!(verdict.is_exactly_once() && verdict.records == job.records, "{verdict}");
}

fn host() -> Host {
    let host = Host::start();
    host.push("running-totals");
    host
}

#[test]
fn running_totals_are_right_with_one_task_and_with_two() {
    for parallelism in [1, 2] {
        let (host, job) = (host(), job(parallelism, None));
        host.put_job(&job.document(&host.work().join("out")));
        let finished = host.wait_for_state(job.name, "finished");
        assert_eq!(finished["status"]["attempt"], 1, "no restart: {finished}");
        assert_exactly_once(&host, &job);
    }
}

#[test]
fn a_job_rescaled_from_one_to_two_and_back_counts_every_record_once() {
    let host = host();
    let out = host.work().join("out");
    let (one, two) = (job(1, Some(10_000)), job(2, Some(10_000)));
    host.put_job(&one.document(&out));
    host.wait_for_lines(&out, 8_000);
    let savepoint = host.stop_with_savepoint(one.name);
    assert!(savepoint["id"].is_string() && savepoint["path"].is_string() && savepoint["bytes"].as_u64() > Some(0), "{savepoint}");
    let at_first_stop = output::lines(&out).len();
    host.put_job(&two.document(&out));
    assert_eq!(host.job(two.name)["status"]["state"], "stopped", "replacing a stopped job does not start it");
    host.start_job(two.name, json!({ "savepoint": savepoint["id"] }));
    host.wait_for_lines(&out, at_first_stop + 8_000);
    let savepoint = host.stop_with_savepoint(two.name);
    assert!(output::lines(&out).len() < one.records as usize, "stopped before its end");
    let last = job(1, None);
    host.put_job(&last.document(&out));
    host.start_job(last.name, json!({ "savepoint": savepoint["id"] }));
    host.wait_for_state(last.name, "finished");
    assert_exactly_once(&host, &last);
}

#[test]
fn after_a_stop_with_a_savepoint_nothing_is_left_to_do_again() {
    let host = host();
    let out = host.work().join("out");
    let job = job(2, Some(10_000));
    host.put_job(&job.document(&out));
    host.wait_for_lines(&out, 5_000);
    host.stop_with_savepoint(job.name);
    let stopped = output::sorted_lines(&out);
    assert_eq!(output::staged(&out), Vec::<String>::new());
    // What is committed at the savepoint is a prefix of each key's chain: the counts have no gaps.
    let verdict = verdict(&host, &TotalsJob { records: job.records, ..job });
    assert_eq!((verdict.duplicated, verdict.wrong.len()), (0, 0), "{verdict}");
    host.start_job(job.name, json!("latest"));
    host.wait_for_lines(&out, stopped.len() + 3_000);
    host.stop(job.name);
    host.start_job(job.name, json!("latest"));
    host.wait_for_state(job.name, "finished");
    assert_exactly_once(&host, &job);
}

#[test]
fn a_savepoint_that_was_taken_at_work_is_a_place_to_go_back_to() {
    let host = host();
    let out = host.work().join("out");
    let job = job(2, Some(10_000));
    host.put_job(&job.document(&out));
    host.wait_for_lines(&out, 5_000);
    let path = format!("/v1/jobs/{}", job.name);
    let operation = host.client().post(&format!("{path}/savepoints?wait=60s"), &json!({})).document();
    assert_eq!(operation["state"], "completed", "{operation}");
    let savepoint = operation["savepoint"].clone();
    let listed = host.client().get(&format!("{path}/savepoints")).document();
    assert_eq!(listed["savepoints"], json!([savepoint]));
    host.wait_for_state(job.name, "finished");
    assert_exactly_once(&host, &job);
    let before = output::lines(&out).len();
    // The same output once more from there on, into another folder, as someone would do who mends a mistake.
    let again = host.work().join("again");
    let mut document = job.document(&again);
    document["source"][0].as_object_mut().expect("a source").remove("rate");
    host.put_job(&document);
    host.start_job(job.name, json!({ "savepoint": savepoint["id"] }));
    host.wait_for_state(job.name, "finished");
    let repeated = output::lines(&again);
    assert!(!repeated.is_empty() && repeated.len() < before, "{} of {before} lines came after the savepoint", repeated.len());
    let counts =
        |lines: &[String]| lines.iter().map(|line| Total::from_json(line)).map(|t| (t.bidder, t.count)).collect::<Vec<_>>();
    let (mut first, all) = (counts(&repeated), counts(&output::lines(&out)));
    // Everything that came again had come before, and the chain of each key goes on without a gap to its end.
    let all: std::collections::BTreeSet<_> = all.into_iter().collect();
    first.sort_unstable();
    assert!(first.iter().all(|total| all.contains(total)));
    assert!(
        first.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 + 1 == pair[1].1),
        "gaps or repeats after the savepoint"
    );
    let last = |bidder: u64| all.range((bidder, 0)..=(bidder, u64::MAX)).next_back().copied();
    let ends_right = first.chunk_by(|a, b| a.0 == b.0).all(|chain| chain.last().copied() == last(chain[0].0));
    assert!(ends_right, "a chain of the repeated part ends early");
    assert_eq!(host.client().delete(&format!("{path}/savepoints/{}", savepoint["id"].as_str().expect("an id"))).status, 204);
    assert_eq!(host.client().get(&format!("{path}/savepoints")).document()["savepoints"], json!([]));
}

#[test]
fn a_fresh_start_begins_from_nothing() {
    let host = host();
    let job = job(2, None);
    host.put_job(&job.document(&host.work().join("first")));
    host.wait_for_state(job.name, "finished");
    host.put_job(&job.document(&host.work().join("out")));
    host.start_job(job.name, json!("fresh"));
    host.wait_for_state(job.name, "finished");
    assert_exactly_once(&host, &job);
    assert_eq!(output::lines(&host.work().join("first")).len() as u64, job.records, "the first output is left alone");
}
