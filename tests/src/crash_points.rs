//! A crash between any two durable steps of the real host: the job is started again, comes to its end, and its output is that of a run
//! without the crash. Also a second crash, while the host recovers from the first.

use crate::damage::{Damage, JobFolder};
use crate::host::Host;
use crate::job::{TotalsJob, unaligned};
use crate::output;
use crate::totals::{self, Total};
use crate::wait::until;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate::fault::{CRASH_AT, Fault};

/// For a host to come to its crash.
pub const CRASH_LIMIT: Duration = Duration::from_secs(60);

/// Keys enough for a checkpoint to find most of them unchanged: it writes deltas, and deltas are merged.
pub const JOB: TotalsJob =
    TotalsJob { name: "crashes", records: 6_000, keys: 2_000, splits: 2, parallelism: 2, rate: Some(6_000), interval: "50ms" };

/// Longer: with barriers that overtake, a savepoint waits for the checkpoint that is pending.
const UNALIGNED: TotalsJob = TotalsJob { records: 18_000, ..JOB };

/// As fast as it goes, with barriers that overtake: there is something in flight.
const FLOOD: TotalsJob = TotalsJob { records: 200_000, rate: None, ..JOB };

/// How the job takes its checkpoints, and what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Aligned,
    Unaligned,
    /// Each event counts once or not at all.
    AtMostOnce,
}

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
    /// The newest checkpoint can't be read when the host comes back.
    StepBack,
}

fn scenario(fault: Fault) -> Scenario {
    match fault {
        Fault::JobStoredTasksNot
        | Fault::SegmentWrittenAnswerNot
        | Fault::RecordsReservedHandedOutNot
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
        Fault::IncarnationWrittenFenceNot
        | Fault::RestoreWrittenSinksNot
        | Fault::SinksRecoveredTasksNot
        | Fault::BeginningReservedTasksNot => Scenario::Restart,
        Fault::InFlightWrittenAnswerNot => Scenario::Flood,
        Fault::StepBackWrittenOutputNot => Scenario::StepBack,
        Fault::FenceWrittenRestoreNot => Scenario::StartFromSavepoint,
        Fault::SavepointSegmentsWrittenManifestNot | Fault::SavepointManifestWrittenPointerNot => Scenario::Savepoint,
        Fault::SavepointWrittenStopNot => Scenario::Stop,
    }
}

/// The job, with a second sink, so that one can have committed and the other not.
pub fn document(host: &Host, of: &TotalsJob) -> Value {
    let mut job = of.document(&host.work().join("out"));
    let second = json!({ "name": "copy", "connector": "file", "input": ["totals"], "path": host.work().join("copy") });
    job["sink"].as_array_mut().expect("sinks").push(second);
    job
}

/// Passed by a job that reads at most once, and by no other.
fn is_at_most_once(fault: Fault) -> bool {
    matches!(fault, Fault::BeginningReservedTasksNot | Fault::RecordsReservedHandedOutNot)
}

/// What a run with two crashes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    Crashed,
    /// The way from the first crash to the end of the job does not pass the second point.
    NeverPassed,
}

/// Lets the host crash at a point on its way, and finishes without. Says what is wrong, or nothing.
pub fn crash_at(fault: Fault, passage: u64, mode: Mode) -> Result<(), String> {
    crash_and_finish(fault, passage, mode, None).map(|_| ())
}

/// The same with a second crash: the host that recovers from the first one is armed too.
pub fn crash_at_both(first: Fault, second: Fault) -> Result<Second, String> {
    crash_and_finish(first, 1, Mode::Aligned, Some(second)).map_err(|wrong| format!("{first}, then {second}: {wrong}"))
}

fn crash_and_finish(fault: Fault, passage: u64, mode: Mode, second: Option<Fault>) -> Result<Second, String> {
    let at_most_once = mode == Mode::AtMostOnce || is_at_most_once(fault) || second.is_some_and(is_at_most_once);
    let mut host = Host::prepared();
    let scenario = scenario(fault);
    let of = match (scenario, mode) {
        (Scenario::Flood, _) => FLOOD,
        (_, Mode::Unaligned) => UNALIGNED,
        (_, Mode::Aligned | Mode::AtMostOnce) => JOB,
    };
    let arm = |host: &mut Host| host.set_env(CRASH_AT, &format!("{fault}:{passage}"));
    if matches!(scenario, Scenario::Run | Scenario::Flood) {
        arm(&mut host);
    }
    host.restart();
    host.push("running-totals");
    let mut job = document(&host, &of);
    if mode == Mode::Unaligned && !at_most_once || scenario == Scenario::Flood {
        job = unaligned(job);
    }
    if at_most_once {
        job["delivery"] = json!("at-most-once");
    }
    let path = format!("/v1/jobs/{}", JOB.name);
    // The answer may be lost with the host.
    let _ = host.client().try_put_json(&path, &job);
    match scenario {
        Scenario::Run | Scenario::Flood => {}
        Scenario::Restart | Scenario::StepBack => {
            host.wait_for_checkpoints(JOB.name, 4);
            host.kill();
            if scenario == Scenario::StepBack {
                Damage::Flipped.to(&JobFolder(host.data().join("jobs").join(JOB.name)).manifest(0));
            }
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
    if let Err(wrong) = status
        && !until_ended(&mut host)
    {
        return Err(wrong);
    }
    let log = host.log_text();
    if !log.contains(&format!("{CRASH_AT}: {fault}")) {
        return Err(format!("{fault}: the host ended for another reason"));
    }
    host.wait_for_exit(CRASH_LIMIT);
    host.clear_env();
    let second = second.map_or(Second::NeverPassed, |second| crash_again(&mut host, second));
    host.clear_env();
    host.restart();
    finish(&host, &job);
    for sink in ["out", "copy"] {
        let folder = host.work().join(sink);
        let verdict = totals::check(of.input(), output::lines(&folder).iter().map(|line| Total::from_json(line)));
        let is_right = if at_most_once { verdict.is_at_most_once() } else { verdict.is_exactly_once() };
        if !is_right || verdict.records + verdict.lost != of.records {
            return Err(format!("{fault}: {sink}: {verdict}"));
        }
        if !output::staged(&folder).is_empty() {
            return Err(format!("{fault}: {sink}: left behind {:?}", output::staged(&folder)));
        }
    }
    Ok(second)
}

/// Leaves no process behind.
fn crash_again(host: &mut Host, second: Fault) -> Second {
    host.set_env(CRASH_AT, second.name());
    host.spawn();
    let path = format!("/v1/jobs/{}", JOB.name);
    let crashed = until(&format!("the host crashes at {second}, or has nothing left to do"), CRASH_LIMIT, || {
        if host.has_ended() {
            return Ok(true);
        }
        let answer = host.client().try_get(&path)?;
        let is_over = ["finished", "stopped"].iter().any(|state| answer.body.contains(&format!(r#""state":"{state}""#)));
        if answer.status == 404 || is_over { Ok(false) } else { Err(answer.to_string()) }
    });
    // It may be about to.
    if crashed || until_ended(host) {
        host.wait_for_exit(CRASH_LIMIT);
        return Second::Crashed;
    }
    host.kill();
    Second::NeverPassed
}

fn until_ended(host: &mut Host) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
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
