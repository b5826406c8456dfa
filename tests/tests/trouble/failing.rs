//! Checkpoints that come to nothing: aborted cleanly, the job goes on.

use crate::*;
use serde_json::json;

/// The checkpoints that were aborted for a reason, or all there are.
fn aborted(host: &Host, job: &str, reason: &str, at_least: usize) -> Result<(), String> {
    let list = host.client().get(&format!("/v1/jobs/{job}/checkpoints")).document();
    let all = list["checkpoints"].as_array().cloned().unwrap_or_default();
    let is_one =
        |report: &&Value| report["status"] == "aborted" && report["reason"].as_str().is_some_and(|text| text.contains(reason));
    if all.iter().filter(is_one).count() >= at_least { Ok(()) } else { Err(list.to_string()) }
}

fn wait_for_aborted(host: &Host, job: &str, reason: &str, at_least: usize) {
    until(&format!("{at_least} checkpoints are aborted: {reason}"), LIMIT, || aborted(host, job, reason, at_least));
}

#[test]
fn checkpoints_that_take_too_long_are_aborted_and_their_output_is_not_lost() {
    let job = job(500);
    let host = Host::start();
    host.push("running-totals");
    let out = host.work().join("out");
    let mut hasty = job.document(&out);
    hasty["checkpoint"] = json!({ "interval": "10ms", "timeout": "10ms", "tolerable_failures": 1000 });
    host.put_job(&hasty);
    // However fast the machine is: time passes while the host is held up, at one moment or another of a checkpoint.
    let mut turn = 0;
    until("3 checkpoints take too long", LIMIT, || {
        host.signal("STOP");
        std::thread::sleep(Duration::from_millis(30));
        host.signal("CONT");
        turn += 7;
        std::thread::sleep(Duration::from_millis(5 + turn % 13));
        aborted(&host, job.name, "checkpoint.timeout", 3)
    });
    let running = host.job(job.name);
    assert_eq!((&running["status"]["state"], &running["status"]["attempt"]), (&json!("running"), &json!(1)), "{running}");
    host.stop(job.name);
    host.put_job(&TotalsJob { rate: Some(4_000), ..job }.document(&out));
    host.start_job(job.name, json!("latest"));
    host.wait_for_state(job.name, "finished");
    assert_exactly_once(&host, &job);
    assert_eq!(folder(&host, job.name).orphans(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_store_that_fails_for_a_while_costs_checkpoints_and_nothing_else() {
    let job = job(1_500);
    let host = Host::start();
    host.push("running-totals");
    let mut document = job.document(&host.work().join("out"));
    document["checkpoint"]["tolerable_failures"] = json!(1000);
    host.put_job(&document);
    host.wait_for_checkpoints(job.name, 3);
    let files = folder(&host, job.name);
    for (part, reason) in [("manifests", "the manifest could not be written"), ("segments", "declined")] {
        let (folder, away) = (files.0.join(part), files.0.join("away"));
        std::fs::rename(&folder, &away).expect("moved away");
        std::fs::write(&folder, "no folder").expect("a file in its place");
        wait_for_aborted(&host, job.name, reason, 2);
        std::fs::remove_file(&folder).expect("removed");
        std::fs::rename(&away, &folder).expect("moved back");
        let before = host.completed_checkpoints(job.name).len();
        host.wait_for_checkpoints(job.name, before + 2);
    }
    let finished = host.wait_for_state(job.name, "finished");
    assert_eq!(finished["status"]["attempt"], 1, "no restart: {finished}");
    assert_exactly_once(&host, &job);
}
