//! A crash between any two durable steps, one after the other: the job is started again, comes to its end, and its output is that of
//! a run without the crash.
//!
//! Every named point of the host is tried: one that a plain run does not pass gets the scenario that leads there. A point that is
//! never passed is an error too, because then nothing was tested.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate::fault::{CRASH_AT, Fault};
use tidegate_tests::host::Host;
use tidegate_tests::job::{TotalsJob, unaligned};
use tidegate_tests::output;
use tidegate_tests::totals::{self, Total};
use tidegate_tests::wait::until;

/// For a host to come to its crash.
const CRASH_LIMIT: Duration = Duration::from_secs(60);

/// Keys enough for a checkpoint to find most of them unchanged: it writes deltas, and deltas are merged.
const JOB: TotalsJob =
    TotalsJob { name: "crashes", records: 6_000, keys: 2_000, splits: 2, parallelism: 2, rate: Some(6_000), interval: "50ms" };

/// Longer: with barriers that overtake, a savepoint waits for the checkpoint that is pending.
const UNALIGNED: TotalsJob = TotalsJob { records: 18_000, ..JOB };

/// As fast as it goes, with barriers that overtake: there is something in flight.
const FLOOD: TotalsJob = TotalsJob { records: 200_000, rate: None, ..JOB };

/// What has to happen for a point to be passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// The job runs to its end.
    Run,
    /// The job runs to its end, with full channels and unaligned checkpoints.
    Flood,
    /// The host that crashes is the second one: it restores.
    Restart,
    /// A savepoint is taken at work.
    Savepoint,
    /// The job is stopped with a savepoint.
    Stop,
    /// The job, stopped with a savepoint, is started from it.
    StartFromSavepoint,
}

fn scenario(fault: Fault) -> Scenario {
    match fault {
        Fault::JobStoredTasksNot
        | Fault::SegmentWrittenAnswerNot
        | Fault::RowsStagedPreCommitNot
        | Fault::PreCommittedAnswerNot
        | Fault::AllAnsweredManifestNot
        | Fault::ManifestWrittenDecisionNot
        | Fault::DecisionWrittenSinksNot
        | Fault::OneSinkCommittedRestNot
        | Fault::OneFileCommittedRestNot
        | Fault::SinksCommittedTrimNot
        | Fault::LogTrimmedManifestsNot
        | Fault::ManifestsDeletedSegmentsNot
        | Fault::MergeWrittenChainNot
        | Fault::FinalCommittedFinishNot => Scenario::Run,
        Fault::InFlightWrittenAnswerNot => Scenario::Flood,
        Fault::IncarnationWrittenFenceNot | Fault::RestoreWrittenSinksNot | Fault::SinksRecoveredTasksNot => Scenario::Restart,
        Fault::FenceWrittenRestoreNot => Scenario::StartFromSavepoint,
        Fault::SavepointSegmentsWrittenManifestNot | Fault::SavepointManifestWrittenPointerNot => Scenario::Savepoint,
        Fault::SavepointWrittenStopNot => Scenario::Stop,
    }
}

/// The job, with a second sink, so that one can have committed and the other not.
fn document(host: &Host, of: &TotalsJob) -> Value {
    let mut job = of.document(&host.work().join("out"));
    let second = json!({ "name": "copy", "connector": "file", "input": ["totals"], "path": host.work().join("copy") });
    job["sink"].as_array_mut().expect("sinks").push(second);
    job
}

/// Lets the host crash at a point on its way, and finishes without. Says what is wrong, or nothing.
fn crash_at(fault: Fault, passage: u64, is_unaligned: bool) -> Result<(), String> {
    let mut host = Host::prepared();
    let scenario = scenario(fault);
    let of = match scenario {
        Scenario::Flood => FLOOD,
        _ if is_unaligned => UNALIGNED,
        _ => JOB,
    };
    let arm = |host: &mut Host| host.set_env(CRASH_AT, &format!("{fault}:{passage}"));
    if matches!(scenario, Scenario::Run | Scenario::Flood) {
        arm(&mut host);
    }
    host.restart();
    host.push("running-totals");
    let mut job = document(&host, &of);
    if is_unaligned || scenario == Scenario::Flood {
        job = unaligned(job);
    }
    let path = format!("/v1/jobs/{}", JOB.name);
    // The answer may be lost with the host.
    let _ = host.client().try_put_json(&path, &job);
    match scenario {
        Scenario::Run | Scenario::Flood => {}
        Scenario::Restart => {
            host.wait_for_checkpoints(JOB.name, 2);
            host.kill();
            arm(&mut host);
            host.spawn();
        }
        Scenario::Savepoint | Scenario::Stop | Scenario::StartFromSavepoint => {
            host.wait_for_checkpoints(JOB.name, 2);
            if scenario == Scenario::StartFromSavepoint {
                host.stop_with_savepoint(JOB.name);
            }
            host.terminate();
            arm(&mut host);
            host.restart();
            let _ = match scenario {
                Scenario::Savepoint => host.client().try_post(&format!("{path}/savepoints"), &json!({})),
                Scenario::Stop => host.client().try_post(&format!("{path}/stop"), &json!({ "savepoint": true })),
                _ => {
                    let savepoints = host.client().get(&format!("{path}/savepoints")).document();
                    let id = savepoints["savepoints"][0]["id"].clone();
                    host.client().try_post(&format!("{path}/start"), &json!({ "from": { "savepoint": id } }))
                }
            };
        }
    }
    let status = until(&format!("the host crashes at {fault}"), CRASH_LIMIT, || {
        if host.has_ended() {
            return Ok(Ok(()));
        }
        match host.client().try_get(&path) {
            Ok(answer) if answer.body.contains(r#""state":"finished""#) => Ok(Err(format!("{fault}: never passed"))),
            Ok(answer) => Err(answer.body),
            Err(error) => Err(error),
        }
    });
    // The job may have been done a moment before its last point is passed.
    if status.is_err() && !until_ended(&mut host) {
        return status;
    }
    let log = host.log_text();
    if !log.contains(&format!("{CRASH_AT}: {fault}")) {
        return Err(format!("{fault}: the host ended for another reason"));
    }
    host.wait_for_exit(CRASH_LIMIT);
    host.clear_env();
    host.restart();
    finish(&host, &job);
    for sink in ["out", "copy"] {
        let folder = host.work().join(sink);
        let verdict = totals::check(of.input(), output::lines(&folder).iter().map(|line| Total::from_json(line)));
        if !verdict.is_exactly_once() || verdict.records != of.records {
            return Err(format!("{fault}: {sink}: {verdict}"));
        }
        if !output::staged(&folder).is_empty() {
            return Err(format!("{fault}: {sink}: left behind {:?}", output::staged(&folder)));
        }
    }
    Ok(())
}

fn until_ended(host: &mut Host) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        if host.has_ended() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Brings the job to its end, whatever its user has to do for it.
fn finish(host: &Host, job: &Value) {
    let path = format!("/v1/jobs/{}", JOB.name);
    let answer = host.client().get(&path);
    if answer.status == 404 {
        // The crash came before the job was stored, so nobody was told that it is.
        host.put_job(job);
    } else if answer.document()["desired"] == "stopped" && answer.document()["status"]["state"] != "finished" {
        host.start_job(JOB.name, json!("latest"));
    }
    host.wait_for_state(JOB.name, "finished");
}

/// The points of one group, so that groups run side by side.
fn crash_at_all(group: usize, is_unaligned: bool) {
    const GROUPS: usize = 2;
    let mine = Fault::ALL.iter().skip(group).step_by(GROUPS);
    let wrong: Vec<String> = mine
        .filter_map(|fault| {
            let begun = Instant::now();
            let outcome = crash_at(*fault, 1, is_unaligned);
            println!("{:5.1} s  {fault}", begun.elapsed().as_secs_f64());
            outcome.err()
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_crash_at_any_point_leaves_the_right_output_1() {
    crash_at_all(0, false);
}

#[test]
fn a_crash_at_any_point_leaves_the_right_output_2() {
    crash_at_all(1, false);
}

#[test]
fn a_crash_at_any_point_with_unaligned_checkpoints_leaves_the_right_output_1() {
    crash_at_all(0, true);
}

#[test]
fn a_crash_at_any_point_with_unaligned_checkpoints_leaves_the_right_output_2() {
    crash_at_all(1, true);
}

#[test]
fn a_crash_in_the_middle_of_the_job_leaves_the_right_output() {
    for fault in [Fault::PreCommittedAnswerNot, Fault::ManifestWrittenDecisionNot, Fault::DecisionWrittenSinksNot] {
        crash_at(fault, 5, false).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

/// Whoever starts from a savepoint counts on everything before it being visible.
#[test]
fn a_savepoint_is_not_there_before_its_output_is() {
    let mut host = Host::prepared();
    host.set_env(CRASH_AT, Fault::DecisionWrittenSinksNot.name());
    host.restart();
    host.push("running-totals");
    let mut job = document(&host, &JOB);
    // The first checkpoint is the savepoint's.
    job["checkpoint"]["interval"] = json!("1h");
    job["source"][0]["rate"] = json!(2_000);
    host.put_job(&job);
    host.wait_for_state(JOB.name, "running");
    let _ = host.client().try_post(&format!("/v1/jobs/{}/savepoints", JOB.name), &json!({}));
    host.wait_for_exit(CRASH_LIMIT);
    host.clear_env();
    host.restart();
    let savepoints = host.client().get(&format!("/v1/jobs/{}/savepoints", JOB.name)).document();
    assert_eq!(savepoints["savepoints"], json!([]), "the crash came before its output was committed");
    host.wait_for_state(JOB.name, "finished");
    let verdict = totals::check(JOB.input(), output::lines(&host.work().join("out")).iter().map(|line| Total::from_json(line)));
    assert!(verdict.is_exactly_once() && verdict.records == JOB.records, "{verdict}");
}

#[test]
fn a_misspelt_point_is_refused_at_the_start() {
    let mut host = Host::prepared();
    host.set_env(CRASH_AT, "no-such-point");
    host.spawn();
    assert!(!host.wait_for_exit(CRASH_LIMIT).success());
    assert!(host.log_text().contains("there is no crash point no-such-point"), "{}", host.log_text());
}
