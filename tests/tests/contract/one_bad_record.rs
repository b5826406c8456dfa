//! The operator of a task: one bad record costs itself and nothing else of its batch, however it is bad.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidegate::connector::dead_letter::DeadLetterKind;
use tidegate::metrics::TaskMetrics;
use tidegate::task::TaskError;
use tidegate::task::operator::{Logic, OperatorNode, Outcome};
use tidegate::wasm::instance::CallError;
use tidegate_core::job_graph::spec::OnError;
use tidegate_core::row::first;
use tidegate_core::state_schema::TimeDomain::EventTime;
use tidegate_tests::guest::{MAIN, NOW, Setup};
use tidegate_tests::rows::{self, TestRow, row};

pub fn node(package: &str, case: &str, on_error: OnError) -> OperatorNode {
    let mut setup = Setup::new(package).limits(|limits| limits.call_deadline_ms = 50);
    if !case.is_empty() {
        setup = setup.option("case", case);
    }
    let (operator, _) = setup.operator();
    OperatorNode {
        name: "operator".to_owned(),
        on_error,
        logic: Logic::Wasm(Box::new(operator)),
        restore: Vec::new(),
        metrics: Arc::new(TaskMetrics::default()),
        watermark: 0,
        activity: Arc::default(),
        number: 0,
    }
}

/// Twenty rows of two keys, those of these numbers bad.
fn with_bad_ones(bad: &[usize]) -> Vec<TestRow> {
    let value = |i: usize| if bad.contains(&i) { format!("bad {i}") } else { i.to_string() };
    (0..20).map(|i| row(["a", "b"][i % 2], value(i)).at(i as i64)).collect()
}

/// What the guest makes of the good rows: it numbers the rows of each key.
fn numbered(bad: &[usize]) -> Vec<String> {
    let mut seen = [0, 0];
    let good = (0..20).filter(|i| !bad.contains(i));
    good.map(|i| {
        seen[i % 2] += 1;
        format!("{i} #{} of {}", seen[i % 2], seen[i % 2])
    })
    .collect()
}

fn main_output(outcome: &Outcome) -> Vec<String> {
    outcome
        .outputs
        .iter()
        .filter(|(port, _)| *port == MAIN)
        .flat_map(|(_, rows)| rows::read(rows))
        .map(|row| row.text())
        .collect()
}

const CASES: [(&str, DeadLetterKind, &str); 8] = [
    ("reject", DeadLetterKind::Rejected, "is bad"),
    ("bad-row", DeadLetterKind::BadRow, "is bad"),
    ("trap", DeadLetterKind::Trap, "unreachable"),
    ("unreachable", DeadLetterKind::Trap, "unreachable"),
    ("spin", DeadLetterKind::Deadline, "limits.deadline"),
    ("recurse", DeadLetterKind::Trap, "wasm trap"),
    ("allocate", DeadLetterKind::Violation, "limits.memory"),
    ("exit", DeadLetterKind::Violation, "ended itself"),
];

#[test]
fn all_other_records_of_the_batch_count_in_their_order() {
    for bad in [&[7][..], &[0, 19], &[3, 4, 5, 12]] {
        for (case, kind, reason) in CASES {
            let mut node = node("contract", case, OnError::DeadLetter);
            let mut outcome = Outcome::default();
            node.process(0, rows::batch(&with_bad_ones(bad)), &mut outcome).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(main_output(&outcome), numbered(bad), "{case} {bad:?}");
            let positions: Vec<_> = outcome.culprits.iter().map(|culprit| culprit.origin.position() as usize - 100).collect();
            let mut sorted = positions.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, bad, "{case}");
            for culprit in &outcome.culprits {
                assert!(culprit.kind == kind && culprit.reason.contains(reason), "{case}: {:?} {}", culprit.kind, culprit.reason);
                assert!(culprit.origin.is_exact() && culprit.origin.split() == 1, "{case}: {:?}", culprit.origin);
                let (row, _) = first(&culprit.row);
                let value = format!("bad {}", culprit.origin.position() - 100);
                assert_eq!(row.value, Some(value.as_bytes()), "{case}");
            }
            assert_eq!(node.metrics.rejected.get(), bad.len() as u64, "{case}");
        }
    }
}

#[test]
fn one_record_that_spins_in_a_thousand_costs_a_few_deadlines() {
    for at in [0, 511, 777, 1023] {
        let mut node = node("contract", "spin", OnError::DeadLetter);
        let value = |i: usize| if i == at { "bad".to_owned() } else { i.to_string() };
        let all: Vec<TestRow> = (0..1024).map(|i| row("a", value(i)).at(i as i64)).collect();
        let mut outcome = Outcome::default();
        node.process(0, rows::batch(&all), &mut outcome).expect("the batch counts");
        assert_eq!((outcome.culprits.len(), main_output(&outcome).len()), (1, 1023));
        // Each call that misses its deadline halves what is left: ten halvings, and the record alone.
        let (spun, calls) = (node.metrics.traps.get(), node.metrics.guest_calls.get());
        assert!((1..=11).contains(&spun) && calls <= 32, "record {at}: {spun} deadlines, {calls} calls");
    }
}

#[test]
fn a_call_that_nobody_waits_for_is_ended_before_its_deadline() {
    let (mut operator, _) = Setup::new("contract").option("case", "spin").limits(|it| it.call_deadline_ms = 600_000).operator();
    let stopped = Arc::clone(&operator.env().stopped);
    std::thread::scope(|scope| {
        let running = scope.spawn(move || operator.call_batch(0, &mut rows::batch(&[row("a", "bad")]), NOW));
        stopped.store(true, Ordering::Relaxed);
        assert_eq!(running.join().expect("no panic"), Err(CallError::Stopped));
    });
}

#[test]
fn a_batch_of_nothing_but_bad_records_leaves_nothing() {
    let all: Vec<usize> = (0..20).collect();
    for (case, ..) in CASES.iter().filter(|(case, ..)| *case != "spin") {
        let mut node = node("contract", case, OnError::Skip);
        let mut outcome = Outcome::default();
        node.process(0, rows::batch(&with_bad_ones(&all)), &mut outcome).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!((main_output(&outcome).len(), outcome.culprits.len()), (0, 20), "{case}");
        assert_eq!(node.logic.env().state.as_ref().expect("keyed").live_entries(), 0, "{case}");
    }
}

#[test]
fn the_policy_fail_ends_the_task_at_the_first_bad_record() {
    for (case, ..) in CASES {
        let mut node = node("contract", case, OnError::Fail);
        let error = node.process(0, rows::batch(&with_bad_ones(&[7])), &mut Outcome::default());
        match error {
            Err(TaskError::Fatal(message)) => assert!(message.contains("on_error = \"fail\""), "{case}: {message}"),
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[test]
fn what_a_guest_says_of_itself_is_not_blamed_on_records() {
    let process =
        |case: &str| node("contract", case, OnError::Skip).process(0, rows::batch(&with_bad_ones(&[1])), &mut Outcome::default());
    match process("fatal") {
        Err(TaskError::Fatal(message)) => assert!(message.contains("the guest says fatal"), "{message}"),
        other => panic!("{other:?}"),
    }
    match process("transient") {
        Err(TaskError::Restart(message)) => assert!(message.contains("the guest says transient"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(process("start-trap"), Err(TaskError::Fatal(_))), "a guest that can't start is no record's fault");
}

#[test]
fn a_timer_that_is_rejected_or_kills_the_guest_is_taken_out() {
    for (case, kind, culprits) in [("timers-reject", DeadLetterKind::Rejected, 1), ("timers-trap", DeadLetterKind::Trap, 3)] {
        let mut node = node("contract", case, OnError::DeadLetter);
        node.process(0, rows::batch(&[row("a", "").at(0), row("a", "").at(1), row("b", "").at(2)]), &mut Outcome::default())
            .expect("counts");
        node.watermark = 5000;
        let mut outcome = Outcome::default();
        while node.fire_timers(EventTime, &mut outcome).unwrap_or_else(|error| panic!("{case}: {error}")) {}
        assert_eq!(outcome.culprits.len(), culprits, "{case}");
        assert!(outcome.culprits.iter().all(|culprit| culprit.kind == kind), "{case}: {:?}", outcome.culprits);
        // A timer stands as a row: its key, its time, and its tag as the value.
        let last = outcome.culprits.last().expect("a culprit");
        let (row, _) = first(&last.row);
        let expected = if culprits == 1 { (&b"a"[..], Some(&b"1"[..]), 1001) } else { (&b"b"[..], Some(&b"2"[..]), 1002) };
        assert_eq!((row.key, row.value, row.timestamp), expected, "{case}");
        assert_eq!(node.logic.env().state.as_ref().expect("keyed").timer_count(EventTime), 0, "{case}");
    }
}
