//! Checkpoints under trouble: files that are damaged, disks that are full, two hosts on one folder, stores that fail. Over all of it
//! every record counts once, and the message says what to do.

mod clock;
mod damage;
mod disk;
mod failing;
mod fork;
mod old_formats;
mod two_hosts;

use serde_json::Value;
use std::time::Duration;
use tidegate_tests::damage::JobFolder;
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::output;
use tidegate_tests::totals::{self, Total};
use tidegate_tests::wait::until;

const LIMIT: Duration = Duration::from_secs(120);

fn job(rate: u64) -> TotalsJob {
    TotalsJob { name: "totals", records: 16_000, keys: 500, splits: 2, parallelism: 2, rate: Some(rate), interval: "100ms" }
}

/// A job that has completed some checkpoints and has far to go.
fn started(job: &TotalsJob) -> Host {
    let host = Host::start();
    host.push("running-totals");
    host.put_job(&job.document(&host.work().join("out")));
    host.wait_for_checkpoints(job.name, 4);
    host
}

fn folder(host: &Host, job: &str) -> JobFolder {
    JobFolder(host.data().join("jobs").join(job))
}

#[track_caller]
fn assert_exactly_once(host: &Host, job: &TotalsJob) {
    let out = host.work().join("out");
    let verdict = totals::check(job.input(), output::lines(&out).iter().map(|line| Total::from_json(line)));
    assert!(verdict.is_exactly_once() && verdict.records == job.records, "{verdict}");
    assert_eq!(output::staged(&out), Vec::<String>::new());
}

/// Waits until the job has failed and answers with its error.
#[track_caller]
fn error_of_failed(host: &Host, job: &str) -> String {
    let failed = until("the job fails", LIMIT, || {
        let job = host.job(job);
        if job["status"]["state"] == "failed" { Ok(job) } else { Err(job["status"].to_string()) }
    });
    error_of(&failed)
}

#[track_caller]
fn error_of(job: &Value) -> String {
    job["status"]["error"].as_str().unwrap_or_else(|| panic!("no error: {job}")).to_owned()
}
