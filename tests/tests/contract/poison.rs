//! Random batches with random bad rows of every kind, against an oracle: the same operator on the same batches without the bad rows.
//! Outputs, their order, and the state to the byte must be the same, and every bad row must be told once, with what is known about it.

use crate::one_bad_record::node;
use std::collections::BTreeMap;
use tidegate::connector::dead_letter::DeadLetterKind;
use tidegate::task::operator::{OperatorNode, Outcome};
use tidegate_core::job_graph::spec::OnError;
use tidegate_core::limits::BACKTRACE_FRAMES_MAX;
use tidegate_core::state_schema::TimeDomain::EventTime;
use tidegate_tests::random::Random;
use tidegate_tests::rows::{self, TestRow, row};

/// How rows of a guest are made, and what becomes of the bad ones.
struct World {
    package: &'static str,
    case: &'static str,
    good: fn(u64) -> String,
    bad: &'static [(&'static str, DeadLetterKind)],
    /// Those that wait for the deadline are rare: each costs some of them.
    slow: &'static [(&'static str, DeadLetterKind)],
}

const WORLDS: [World; 3] = [
    World {
        package: "contract",
        case: "mixed",
        good: |n| format!("row {n}"),
        bad: &[
            ("bad reject", DeadLetterKind::Rejected),
            ("bad bad-row", DeadLetterKind::BadRow),
            ("bad trap", DeadLetterKind::Trap),
            ("bad exit", DeadLetterKind::Violation),
            ("bad allocate", DeadLetterKind::Violation),
        ],
        slow: &[("bad spin", DeadLetterKind::Deadline)],
    },
    World {
        package: "record-contract",
        case: "mixed",
        good: |n| format!("row {n}"),
        bad: &[("bad bad-row", DeadLetterKind::BadRow), ("bad trap", DeadLetterKind::Trap)],
        slow: &[("bad spin", DeadLetterKind::Deadline)],
    },
    World {
        package: "sdk-script",
        case: "",
        good: |n| format!("add {n}; append {n}; put k{n} {n}; sum; length; map; set {n}; timer {} 1; side {n}", 1000 + n),
        bad: &[
            ("add 5; append x; put x 1; timer 1 1; emit x; reject no", DeadLetterKind::Rejected),
            ("add 5; append x; remove k1; set 9; side y; no-such-command", DeadLetterKind::Rejected),
            ("add 5; append x; empty-map; emit x; panic now", DeadLetterKind::Trap),
        ],
        slow: &[("add 1; append y; spin", DeadLetterKind::Deadline)],
    },
];

type Said = BTreeMap<u32, Vec<(Vec<u8>, String, i64)>>;

fn run(node: &mut OperatorNode, batch: &[TestRow], said: &mut Said) -> Vec<(DeadLetterKind, u64)> {
    let mut outcome = Outcome::default();
    node.process(0, rows::batch(batch), &mut outcome).expect("bad rows are taken out");
    take(&outcome, said);
    for culprit in &outcome.culprits {
        let guest_died = matches!(culprit.kind, DeadLetterKind::Trap | DeadLetterKind::Deadline);
        assert_eq!(!culprit.backtrace.is_empty(), guest_died || culprit.kind == DeadLetterKind::Violation, "{culprit:?}");
        assert!(culprit.backtrace.len() <= BACKTRACE_FRAMES_MAX + 1, "{culprit:?}");
        assert!(!culprit.reason.contains("backtrace") && culprit.instance > 0 && culprit.call > 0, "{culprit:?}");
    }
    outcome.culprits.iter().map(|culprit| (culprit.kind, culprit.origin.position() - 100)).collect()
}

fn take(outcome: &Outcome, said: &mut Said) {
    for (port, rows) in &outcome.outputs {
        let rows = rows::read(rows);
        said.entry(*port).or_default().extend(rows.into_iter().map(|row| (row.key.clone(), row.text(), row.timestamp)));
    }
}

/// The whole state, in the form of a segment.
fn state(node: &mut OperatorNode) -> Vec<u8> {
    let state = node.logic.env().state.as_mut().expect("keyed");
    state.freeze(true);
    let frozen = loop {
        if let Some(frozen) = state.drain(usize::MAX) {
            break frozen;
        }
    };
    frozen.write_segment().bytes
}

#[test]
fn random_bad_rows_leave_outputs_order_and_state_as_if_they_had_never_been() {
    let mut random = Random::from_env();
    for world in &WORLDS {
        for round in 0..12 {
            let (mut with, mut without) =
                (node(world.package, world.case, OnError::DeadLetter), node(world.package, world.case, OnError::Fail));
            let (mut said, mut expected) = (Said::new(), Said::new());
            for _ in 0..1 + random.below(4) {
                let share = [0, 1, 3, 20][random.below(4) as usize];
                let (mut batch, mut bad, mut slow) = (Vec::new(), BTreeMap::new(), 0);
                for n in 0..1 + random.below(60) {
                    let key = format!("key-{}", random.below(5));
                    let value = if random.below(30) < share {
                        let kinds = if slow == 0 && round % 4 == 0 && random.below(8) == 0 { world.slow } else { world.bad };
                        slow += u32::from(kinds == world.slow);
                        let (value, kind) = kinds[random.below(kinds.len() as u64) as usize];
                        bad.insert(n, kind);
                        value.to_owned()
                    } else {
                        (world.good)(n)
                    };
                    batch.push(row(key, value).at(n as i64));
                }
                let mut told = run(&mut with, &batch, &mut said);
                told.sort_by_key(|(_, position)| *position);
                let expected_told: Vec<_> = bad.iter().map(|(n, kind)| (*kind, *n)).collect();
                assert_eq!(told, expected_told, "{} round {round}", world.package);
                let good: Vec<_> = (0..).zip(batch).filter(|(n, _)| !bad.contains_key(n)).map(|(_, row)| row).collect();
                if !good.is_empty() {
                    assert_eq!(run(&mut without, &good, &mut expected), [], "{}", world.package);
                }
            }
            assert_eq!(said, expected, "{} round {round}", world.package);
            assert!(state(&mut with) == state(&mut without), "the state of {} in round {round}", world.package);
        }
    }
}

#[test]
fn random_bad_timers_are_taken_out_and_the_others_fire_in_their_order() {
    let mut random = Random::from_env();
    for round in 0..12 {
        let (mut with, mut without) = (node("sdk-script", "", OnError::DeadLetter), node("sdk-script", "", OnError::Fail));
        let mut bad = Vec::new();
        let (mut batch, mut good) = (Vec::new(), Vec::new());
        for n in 0..200_u64 {
            let key = format!("key-{}", random.below(4));
            let tag = match random.below(20) {
                0 => 13,
                1 if round % 2 == 0 => 666,
                _ => 1,
            };
            let set = row(&key, format!("timer {n} {tag}")).at(0);
            if tag == 1 {
                good.push(set.clone());
            } else {
                bad.push((n as i64, tag, key));
            }
            batch.push(set);
        }
        let (mut said, mut expected) = (Said::new(), Said::new());
        assert!(run(&mut with, &batch, &mut said).is_empty() && run(&mut without, &good, &mut expected).is_empty());
        let mut told = Vec::new();
        for (node, said) in [(&mut with, &mut said), (&mut without, &mut expected)] {
            node.watermark = 1_000_000;
            loop {
                let mut outcome = Outcome::default();
                let fired = node.fire_timers(EventTime, &mut outcome).expect("bad timers are taken out");
                take(&outcome, said);
                told.extend(outcome.culprits);
                if !fired {
                    break;
                }
            }
        }
        let mut named: Vec<_> = told
            .iter()
            .map(|culprit| {
                let timer = culprit.timer.expect("a timer is named");
                let (row, _) = tidegate_core::row::first(&culprit.row);
                assert_eq!((timer.domain, timer.time, culprit.watermark), (EventTime, row.timestamp, 1_000_000));
                assert_eq!(culprit.kind, if timer.tag == 13 { DeadLetterKind::Rejected } else { DeadLetterKind::Trap });
                (timer.time, timer.tag, String::from_utf8_lossy(row.key).into_owned())
            })
            .collect();
        named.sort();
        assert_eq!(named, bad, "round {round}");
        assert_eq!(said, expected, "round {round}");
        assert!(state(&mut with) == state(&mut without), "the state in round {round}");
    }
}

#[test]
fn a_trap_is_told_with_the_functions_of_the_guest() {
    let mut node = node("contract", "mixed", OnError::DeadLetter);
    let mut outcome = Outcome::default();
    node.process(0, rows::batch(&[row("a", "bad trap")]), &mut outcome).expect("is taken out");
    let [culprit] = &outcome.culprits[..] else { panic!("{outcome:?}") };
    assert!(culprit.reason.contains("unreachable"), "{}", culprit.reason);
    let frames = culprit.backtrace.join("\n");
    assert!(frames.contains("process-batch") || frames.contains("case_failures::mixed"), "{frames}");
    assert!(!frames.contains("_ZN"), "names are readable: {frames}");
}
