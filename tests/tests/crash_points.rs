//! A crash between any two durable steps, one after the other: the job is started again, comes to its end, and its output is that of
//! a run without the crash. And two of them: a sample here, all in `make proof`.
//!
//! Every named point of the host is tried: one that a plain run does not pass gets the scenario that leads there. A point that is
//! never passed is an error too, because then nothing was tested.

use serde_json::json;
use std::time::Instant;
use tidegate::fault::{CRASH_AT, Fault};
use tidegate_tests::crash_points::{CRASH_LIMIT, JOB, Mode, Second, crash_at, crash_at_both, document};
use tidegate_tests::host::Host;
use tidegate_tests::output;
use tidegate_tests::random::Random;
use tidegate_tests::totals::{self, Total};

/// The points of one group, so that groups run side by side.
fn crash_at_all(group: usize, mode: Mode) {
    const GROUPS: usize = 2;
    let mine = Fault::ALL.iter().skip(group).step_by(GROUPS);
    let wrong: Vec<String> = mine
        .filter_map(|fault| {
            let begun = Instant::now();
            let outcome = crash_at(*fault, 1, mode);
            println!("{:5.1} s  {fault}", begun.elapsed().as_secs_f64());
            outcome.err()
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_crash_at_any_point_leaves_the_right_output_1() {
    crash_at_all(0, Mode::Aligned);
}

#[test]
fn a_crash_at_any_point_leaves_the_right_output_2() {
    crash_at_all(1, Mode::Aligned);
}

#[test]
fn a_crash_at_any_point_with_unaligned_checkpoints_leaves_the_right_output_1() {
    crash_at_all(0, Mode::Unaligned);
}

#[test]
fn a_crash_at_any_point_with_unaligned_checkpoints_leaves_the_right_output_2() {
    crash_at_all(1, Mode::Unaligned);
}

#[test]
fn a_crash_in_the_middle_of_the_job_leaves_the_right_output() {
    for fault in [Fault::PreCommittedAnswerNot, Fault::ManifestWrittenDecisionNot, Fault::DecisionWrittenSinksNot] {
        crash_at(fault, 5, Mode::Aligned).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn a_crash_of_a_job_at_most_once_repeats_nothing() {
    let points = [
        (Fault::RecordsReservedHandedOutNot, 40),
        (Fault::PreCommittedAnswerNot, 5),
        (Fault::DecisionWrittenSinksNot, 5),
        (Fault::SinksCommittedTrimNot, 3),
        (Fault::RestoreWrittenSinksNot, 1),
        (Fault::FenceWrittenRestoreNot, 1),
        (Fault::StepBackWrittenOutputNot, 1),
    ];
    for (fault, passage) in points {
        crash_at(fault, passage, Mode::AtMostOnce).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

/// Points that every recovery passes, and one further on.
const IN_RECOVERY: [Fault; 4] = [
    Fault::IncarnationWrittenFenceNot,
    Fault::RestoreWrittenSinksNot,
    Fault::SinksRecoveredTasksNot,
    Fault::DecisionWrittenSinksNot,
];
const PAIRS: u64 = 5;

#[test]
fn a_second_crash_in_the_recovery_from_the_first_changes_nothing() {
    let mut random = Random::from_env();
    for _ in 0..PAIRS {
        let first = Fault::ALL[random.below(Fault::ALL.len() as u64) as usize];
        let second = IN_RECOVERY[random.below(IN_RECOVERY.len() as u64) as usize];
        let crashed = crash_at_both(first, second).unwrap_or_else(|wrong| panic!("seed {}: {wrong}", random.seed()));
        println!("{first}, then {second}: {crashed:?}");
        // After its last crash a job may be stopped, or not be there: nothing is recovered then.
        let nothing_to_recover = [Fault::SavepointWrittenStopNot, Fault::FinalCommittedFinishNot].contains(&first);
        let far = second == Fault::DecisionWrittenSinksNot;
        assert!(crashed == Second::Crashed || nothing_to_recover || far, "{first}: the recovery never passed {second}");
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
