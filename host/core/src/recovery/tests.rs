use super::*;
use crate::checkpoint::{CheckpointKind, SplitSnapshot};
use proptest::prelude::*;
use serde_json::json;

fn pointer(checkpoint: CheckpointId) -> ManifestPointer {
    ManifestPointer { checkpoint, path: format!("manifests/{checkpoint}"), bytes: 10, crc32c: 1 }
}

fn commit(checkpoint: CheckpointId) -> Decision {
    Decision::Commit { pointer: pointer(checkpoint) }
}

fn fence(first_checkpoint: CheckpointId) -> Decision {
    Decision::Fence { first_checkpoint }
}

fn log_at(decisions: impl IntoIterator<Item = (Seq, Decision)>) -> Vec<(Seq, LogEntry)> {
    let entry = |(seq, decision)| (seq, LogEntry { seq, incarnation: 1, uuid: "u".into(), decision, time_ms: 0 });
    decisions.into_iter().map(entry).collect()
}

fn log(decisions: impl IntoIterator<Item = Decision>) -> Vec<(Seq, LogEntry)> {
    log_at((1..).zip(decisions))
}

fn restore(pointer: Option<ManifestPointer>) -> Decision {
    Decision::Restore { pointer, start: "request".into(), step_back: None }
}

fn stepped_back(to: CheckpointId, skipped: &[CheckpointId]) -> Decision {
    let step_back = Some(StepBack { skipped: skipped.to_vec(), newer_from: to + 1 });
    Decision::Restore { pointer: Some(pointer(to)), start: "step-back".into(), step_back }
}

fn lost() -> Decision {
    Decision::Lost { why: "it is damaged".into() }
}

fn restored(decisions: impl IntoIterator<Item = Decision>) -> Restore {
    plan(&log(decisions)).unwrap().restore
}

#[test]
fn an_empty_log_is_a_fresh_start() {
    assert_eq!(plan(&[]), Ok(Plan { fence_at: 1, restore: Restore::Fresh, next_checkpoint: 1 }));
}

#[test]
fn the_last_decision_is_restored() {
    assert_eq!(restored([fence(1)]), Restore::Fresh);
    assert_eq!(restored([fence(1), commit(1), commit(2), fence(102)]), Restore::From(pointer(2)));
    let from_savepoint = restore(Some(pointer(1)));
    assert_eq!(restored([fence(1), commit(1), commit(2), fence(102), from_savepoint.clone()]), Restore::From(pointer(1)));
    assert_eq!(restored([fence(1), from_savepoint, commit(2)]), Restore::From(pointer(2)));
    assert_eq!(restored([fence(1), commit(1), restore(None)]), Restore::Fresh);
}

#[test]
fn ids_start_above_everything_a_predecessor_may_have_triggered() {
    let next = |decisions: Vec<Decision>| plan(&log(decisions)).unwrap().next_checkpoint;
    assert_eq!(next(vec![fence(1)]), 101, "it may have triggered 1 to 100 and decided none");
    assert_eq!(next(vec![fence(1), commit(7)]), 108);
    assert_eq!(next(vec![fence(1), commit(7), fence(108)]), 208);
    assert_eq!(next(vec![fence(1), restore(Some(pointer(5000)))]), 5101);
}

#[test]
fn a_log_with_a_hole_is_refused() {
    let holes = plan(&log_at([(1, fence(1)), (2, commit(1)), (4, commit(3))]));
    assert_eq!(holes, Err(CorruptLog::Gap { before: 2, after: 4 }));
    assert_eq!(plan(&log_at([(2, fence(1))])), Err(CorruptLog::Gap { before: 0, after: 2 }));
    assert_eq!(
        plan(&log_at([(1, fence(1)), (0, commit(1))])),
        Err(CorruptLog::Gap { before: 0, after: 0 }),
        "there is no entry 0"
    );
    let mut renamed = log([fence(1), commit(1)]);
    renamed[1].0 = 3;
    assert_eq!(plan(&renamed), Err(CorruptLog::Misplaced { seq: 3, says: 2 }));
}

#[test]
fn a_trimmed_log_has_fences_and_a_dense_end() {
    let trimmed = log_at([(1, fence(1)), (9, fence(107)), (15, commit(112)), (16, commit(113)), (17, fence(214))]);
    let plan_of_it = plan(&trimmed).unwrap();
    assert_eq!(plan_of_it, Plan { fence_at: 18, restore: Restore::From(pointer(113)), next_checkpoint: 314 });
    let broken = log_at([(1, fence(1)), (15, commit(112)), (17, fence(214))]);
    assert_eq!(plan(&broken), Err(CorruptLog::Gap { before: 15, after: 17 }));
}

#[test]
fn trimming_spares_fences_and_what_can_be_restored() {
    let entries = log([fence(1), commit(1), commit(2), fence(102), commit(103), commit(104)]);
    assert_eq!(removable(&entries, 103), [2, 3]);
    assert_eq!(removable(&entries, 1), [0; 0]);
    assert_eq!(removable(&entries, 77), [0; 0], "not a checkpoint of this log: nothing is deleted on a guess");
    let from_savepoint = restore(Some(pointer(1)));
    let entries = log([fence(1), commit(1), commit(2), from_savepoint, commit(103)]);
    assert_eq!(removable(&entries, 1), [2, 3], "the savepoint is what is kept, not the checkpoint of its number");
}

/// (checkpoint, first newer epoch) of each.
fn places(decisions: impl IntoIterator<Item = Decision>) -> Vec<(CheckpointId, CheckpointId)> {
    candidates(&log(decisions)).iter().map(|candidate| (candidate.pointer.checkpoint, candidate.newer_from)).collect()
}

#[test]
fn stepping_back_stays_within_the_history_since_the_last_start() {
    assert_eq!(places([fence(1), commit(1), commit(2), fence(102), commit(103)]), [(103, 104), (2, 3), (1, 2)]);
    assert_eq!(places([commit(1), restore(None), commit(2)]), [(2, 3)], "before it the job was another");
    // Output 2 to 4 came before the user went back to 1, so it is none of what came after it.
    assert_eq!(places([fence(1), commit(1), commit(4), restore(Some(pointer(1))), commit(5)]), [(5, 6), (1, 1)]);
    let mut later = log([fence(1), commit(1), commit(4), fence(105), restore(Some(pointer(1))), commit(105)]);
    later[3].1.incarnation = 2;
    later[4].1.incarnation = 2;
    assert_eq!(candidates(&later)[1].newer_from, 105);
}

#[test]
fn a_step_back_is_remembered_and_does_not_end_the_history() {
    let before = [fence(1), commit(1), commit(2), commit(3), fence(104), stepped_back(2, &[3])];
    let entries = log(before.clone());
    assert_eq!(plan(&entries).unwrap().restore, Restore::From(pointer(2)));
    let found = candidates(&entries);
    assert_eq!(found.iter().map(|candidate| candidate.pointer.checkpoint).collect::<Vec<_>>(), [2, 1], "3 is given up");
    assert!(found[0].agreed && !found[1].agreed);
    assert_eq!(completed(&entries), [&pointer(1), &pointer(2)]);
    let entries = log(before.into_iter().chain([commit(104)]));
    let found = candidates(&entries);
    assert_eq!(found.iter().map(|candidate| candidate.pointer.checkpoint).collect::<Vec<_>>(), [104, 2, 1]);
    assert!(found.iter().all(|candidate| !candidate.agreed), "what came since is new output");
    assert_eq!(found[1].newer_from, 3);
}

#[test]
fn what_is_lost_below_the_last_decision_changes_nothing() {
    let entries = log([fence(1), commit(1), lost(), commit(3), fence(104)]);
    assert_eq!(plan(&entries).unwrap().restore, Restore::From(pointer(3)));
    assert_eq!(doubtful(&entries), []);
    let found = candidates(&entries);
    assert_eq!(found.iter().map(|c| (c.pointer.checkpoint, c.in_doubt)).collect::<Vec<_>>(), [(3, false), (1, true)]);
}

#[test]
fn what_is_lost_behind_the_last_decision_is_in_doubt_and_its_ids_are_not_used_again() {
    let entries = log([fence(1), commit(1), lost(), fence(104)]);
    assert_eq!(doubtful(&entries), [(3, "it is damaged")]);
    assert!(candidates(&entries)[0].in_doubt);
    let whole = log([fence(1), commit(1), commit(101), fence(204)]);
    assert!(plan(&entries).unwrap().next_checkpoint >= plan(&whole[..3]).unwrap().next_checkpoint);
}

#[test]
fn gaps_are_filled_from_the_oldest_decision_on() {
    let mut entries = log_at([(1, fence(1)), (9, fence(107)), (15, commit(112)), (17, commit(114))]);
    fill_gaps(&mut entries);
    assert_eq!(entries.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 9, 15, 16, 17]);
    assert_eq!(plan(&entries).unwrap().restore, Restore::From(pointer(114)));
    let mut fences = log_at([(1, fence(1)), (4, fence(105))]);
    fill_gaps(&mut fences);
    assert_eq!(doubtful(&fences).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [3, 2]);
}

const SOUND: Facts =
    Facts { candidates: 3, sound: Some(0), in_doubt: false, newer: 0, gone: 0, agreed: false, may_repeat: false, allowed: false };

#[test]
fn a_sound_job_goes_on_and_a_new_one_begins() {
    assert_eq!(step_back(SOUND), Verdict::GoOn);
    assert_eq!(step_back(Facts { allowed: true, ..SOUND }), Verdict::GoOn, "allowed is not asked for");
    assert_eq!(step_back(Facts { candidates: 0, sound: None, ..SOUND }), Verdict::GoOn);
}

#[test]
fn the_host_steps_back_by_itself_where_no_reader_gets_a_row_twice() {
    for newer in [0, 2] {
        assert_eq!(step_back(Facts { sound: Some(1), newer, ..SOUND }), Verdict::StepBack { decide: true });
    }
    assert_eq!(step_back(Facts { newer: 1, ..SOUND }), Verdict::StepBack { decide: true }, "the end of the log is lost");
    let taken = Facts { sound: Some(1), newer: 1, gone: 1, ..SOUND };
    assert_eq!(step_back(taken), Verdict::Ask(Question::OutputGone));
    assert_eq!(step_back(Facts { may_repeat: true, ..taken }), Verdict::StepBack { decide: true });
    assert_eq!(step_back(Facts { allowed: true, ..taken }), Verdict::StepBack { decide: true });
}

#[test]
fn a_log_in_doubt_is_for_the_user() {
    let doubt = Facts { in_doubt: true, may_repeat: true, ..SOUND };
    assert_eq!(step_back(doubt), Verdict::Ask(Question::LogInDoubt));
    assert_eq!(step_back(Facts { allowed: true, ..doubt }), Verdict::StepBack { decide: true });
}

#[test]
fn a_crash_after_the_decision_takes_back_what_is_left_and_decides_nothing_again() {
    assert_eq!(step_back(Facts { agreed: true, newer: 1, gone: 1, ..SOUND }), Verdict::StepBack { decide: false });
}

#[test]
fn nothing_is_ever_started_from_nothing_because_of_damage() {
    let nothing = Facts { sound: None, allowed: true, may_repeat: true, ..SOUND };
    assert_eq!(step_back(nothing), Verdict::NothingSound, "all are damaged");
    assert_eq!(
        step_back(Facts { candidates: 0, newer: 1, ..nothing }),
        Verdict::NothingSound,
        "the log is gone, output is there"
    );
    assert_eq!(step_back(Facts { candidates: 0, in_doubt: true, ..nothing }), Verdict::NothingSound);
}

#[test]
fn completed_checkpoints_come_in_the_order_of_their_decisions() {
    let entries = log([fence(1), commit(1), commit(2), restore(Some(pointer(1))), commit(103)]);
    assert_eq!(completed(&entries), [&pointer(2), &pointer(1), &pointer(103)]);
}

#[test]
fn the_form_of_an_entry_is_pinned() {
    let entry = LogEntry { seq: 5, incarnation: 2, uuid: "abc".into(), decision: commit(3), time_ms: 9 };
    let expected = json!({
        "seq": 5, "incarnation": 2, "uuid": "abc", "kind": "commit",
        "pointer": { "checkpoint": 3, "path": "manifests/3", "bytes": 10, "crc32c": 1 }, "time_ms": 9
    });
    assert_eq!(serde_json::to_value(&entry).unwrap(), expected);
    assert_eq!(serde_json::from_value::<LogEntry>(expected).unwrap(), entry);
    for decision in [fence(4), restore(None)] {
        let entry = LogEntry { decision, ..entry.clone() };
        assert_eq!(serde_json::from_str::<LogEntry>(&serde_json::to_string(&entry).unwrap()).unwrap(), entry);
    }
}

fn manifest(parallelism: u32) -> Manifest {
    let chain = |task| {
        vec![SegmentRef { path: format!("{task}"), first_group: 0, end_group: 0, full: true, entries: 1, bytes: 1, crc32c: 0 }]
    };
    let operator = OperatorManifest { parallelism, tasks: (0..parallelism).map(chain).collect(), ..Default::default() };
    let split = SplitSnapshot { split: "a".into(), position: json!(1), record: 1, max_timestamp: None };
    Manifest {
        format: 1,
        job: "j".into(),
        checkpoint: 9,
        kind: CheckpointKind::Checkpoint,
        key_groups: 16,
        operators: BTreeMap::from([("count".into(), operator)]),
        sources: BTreeMap::from([("in".into(), vec![split])]),
        sinks: BTreeMap::from([("out".into(), vec![json!("f")])]),
        in_flight: Vec::new(),
        end_of_input: false,
        time_ms: 0,
    }
}

fn shape(operators: &[(&str, u32)]) -> JobShape {
    JobShape {
        key_groups: 16,
        sources: BTreeSet::from(["in".to_owned()]),
        operators: operators.iter().map(|(name, parallelism)| ((*name).to_owned(), *parallelism)).collect(),
        sinks: BTreeSet::from(["out".to_owned()]),
        inputs: operators.iter().map(|(name, _)| ((*name).to_owned(), (1, true))).collect(),
    }
}

#[test]
fn operators_are_matched_by_name_and_split_again_after_a_rescale() {
    let none = BTreeSet::new();
    let same = match_job(&manifest(2), &shape(&[("count", 2)]), &none).unwrap();
    assert_eq!((same.inherits_chains(), same), (true, Match::default()));
    let other = match_job(&manifest(2), &shape(&[("count", 3), ("new", 1)]), &none).unwrap();
    assert_eq!(other, Match { resplit: vec!["count".into()], fresh: vec!["new".into()], dropped: vec![] });
    assert!(!other.inherits_chains());
}

#[test]
fn what_a_job_lacks_is_refused_by_name_unless_it_may_be_dropped() {
    let empty = JobShape { key_groups: 8, ..JobShape::default() };
    let problems = match_job(&manifest(1), &empty, &BTreeSet::new()).unwrap_err();
    let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["key_groups", "operator.count", "source.in", "sink.out"]);
    assert_eq!(
        problems[1].message,
        "checkpoint 9 holds state of the operator count, which the job does not have: \
         add it again, or give up all that is stored (--from fresh)"
    );
    let may_drop = ["count", "in", "out"].map(str::to_owned).into();
    let dropped = match_job(&manifest(1), &JobShape { key_groups: 16, ..JobShape::default() }, &may_drop).unwrap();
    assert_eq!(dropped.dropped, ["count", "in", "out"]);
}

#[test]
fn states_that_do_not_fit_are_told_all_at_once() {
    let state = |name: &str, kind: &str, size: Option<u32>| json!({ "name": name, "kind": kind, "value_type": "u64", "map_key_type": null, "schema_version": 1, "value_size": size, "ttl": null });
    let mut manifest = manifest(1);
    let operator = manifest.operators.get_mut("count").unwrap();
    operator.states =
        json!([state("a", "value", Some(8)), state("b", "list", None), state("c", "value", Some(8)), state("d", "list", None)]);
    let declared = |states: serde_json::Value| BTreeMap::from([("count".to_owned(), serde_json::from_value(states).unwrap())]);
    let same = declared(manifest.operators["count"].states.clone());
    assert_eq!(match_states(&manifest, &same), []);
    let other = declared(json!([state("a", "value", Some(16)), state("b", "value", None), state("d", "list", None)]));
    let keys: Vec<_> = match_states(&manifest, &other).into_iter().map(|problem| problem.key).collect();
    assert_eq!(keys, ["operator.count.states.a", "operator.count.states.b", "operator.count.states.c"]);
}

proptest! {
    #[test]
    fn after_a_rescale_every_group_is_read_from_the_chain_that_holds_it(old in 1u32..9, new in 1u32..9, groups in 9u32..64) {
        let manifest = manifest(old);
        let operator = &manifest.operators["count"];
        for task in 0..new {
            let range = key_group::groups_of(task, groups, new);
            let paths: Vec<_> = chains_for(operator, range.clone(), groups).iter().map(|chain| chain[0].path.clone()).collect();
            let expected: BTreeSet<_> = range.map(|group| key_group::task_of(group, groups, old).to_string()).collect();
            prop_assert_eq!(paths.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}

/// Some incarnations of a job on one simulated log, each a small machine that the test advances step by step.
mod explorer {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum State {
        /// Has read the log up to here.
        Reading(Vec<(Seq, LogEntry)>),
        /// Has written its fence and looks whether it counts.
        Fencing(Plan),
        /// Has fenced, restored this and decides.
        Deciding {
            next: Seq,
            checkpoint: CheckpointId,
        },
        Stopped,
    }

    #[derive(Debug, Clone)]
    struct Incarnation {
        number: u64,
        state: State,
        restored: Option<Restore>,
    }

    #[derive(Debug, Clone, Default)]
    struct World {
        store: BTreeMap<Seq, LogEntry>,
        incarnations: Vec<Incarnation>,
        started: u64,
        /// All that was ever decided, in order, also what was trimmed since.
        decided: Vec<LogEntry>,
        /// Fences that were written where the log had been trimmed.
        astray: usize,
    }

    /// What a create says, and what it does.
    #[derive(Debug, Clone, Copy)]
    enum Reply {
        Clean,
        /// It went through, and the answer got lost: the writer reads back.
        LostAfter,
        /// It did not go through, and the answer is an error: the writer reads back and tries again.
        LostBefore,
    }

    impl World {
        fn start(&mut self) {
            self.started += 1;
            let number = self.started;
            self.incarnations.push(Incarnation { number, state: State::Reading(Vec::new()), restored: None });
        }

        /// Create if absent, with read-back whenever the answer is not clean. True: the entry in the store is ours.
        fn create(&mut self, entry: LogEntry, reply: Reply) -> Option<LogEntry> {
            if let Reply::LostBefore = reply {
                return self.create(entry, Reply::Clean); // read back: absent; tried again
            }
            match self.store.get(&entry.seq) {
                Some(existing) if create_answered(existing, &entry.uuid) == Answered::Mine => None,
                Some(existing) => Some(existing.clone()),
                None => {
                    if self.store.range(entry.seq..).next().is_some() {
                        assert!(matches!(entry.decision, Decision::Fence { .. }), "a decision goes to the end of the log");
                        self.astray += 1;
                    } else {
                        self.decided.push(entry.clone());
                    }
                    self.store.insert(entry.seq, entry.clone());
                    match reply {
                        Reply::LostAfter => self.create(entry, Reply::Clean), // AlreadyExists: ours
                        Reply::Clean | Reply::LostBefore => None,
                    }
                }
            }
        }

        fn step(&mut self, index: usize, reply: Reply, trims: bool) {
            let Incarnation { number, state, .. } = self.incarnations[index].clone();
            let entry = |seq, decision| LogEntry { seq, incarnation: number, uuid: format!("u{number}"), decision, time_ms: 0 };
            let state = match state {
                State::Reading(entries) if entries.is_empty() && !self.store.is_empty() => {
                    State::Reading(self.store.clone().into_iter().collect())
                }
                State::Reading(entries) if superseded_by(&entries, number).is_some() => State::Stopped,
                State::Reading(mut entries) => {
                    let plan = plan(&entries).expect("a log that nobody damaged");
                    let fence = Decision::Fence { first_checkpoint: plan.next_checkpoint };
                    match self.create(entry(plan.fence_at, fence), reply) {
                        None => State::Fencing(plan),
                        Some(theirs) => {
                            entries.push((theirs.seq, theirs));
                            State::Reading(entries)
                        }
                    }
                }
                State::Fencing(plan) => {
                    let last = *self.store.last_key_value().expect("at least the fence").0;
                    if fence_holds(plan.fence_at, last) {
                        self.incarnations[index].restored = Some(plan.restore);
                        State::Deciding { next: plan.fence_at + 1, checkpoint: plan.next_checkpoint }
                    } else {
                        State::Reading(self.store.clone().into_iter().collect())
                    }
                }
                State::Deciding { next, checkpoint } => match self.create(entry(next, commit(checkpoint)), reply) {
                    None => {
                        if trims {
                            let entries: Vec<_> = self.store.clone().into_iter().collect();
                            removable(&entries, checkpoint).iter().for_each(|seq| _ = self.store.remove(seq));
                        }
                        State::Deciding { next: next + 1, checkpoint: checkpoint + 1 }
                    }
                    Some(_) => State::Stopped,
                },
                State::Stopped => State::Stopped,
            };
            self.incarnations[index].state = state;
            self.check();
        }

        fn check(&self) {
            let mut fenced_by = 0;
            let mut last = Restore::Fresh;
            let mut ids = BTreeSet::new();
            for (at, entry) in self.decided.iter().enumerate() {
                assert_eq!(entry.seq, at as u64 + 1, "numbers are given out once, trimmed or not");
                match &entry.decision {
                    Decision::Fence { .. } => {
                        assert!(entry.incarnation > fenced_by, "a newer incarnation has the right of way");
                        fenced_by = entry.incarnation;
                        let who = &self.incarnations[entry.incarnation as usize - 1];
                        assert!(who.restored.as_ref().is_none_or(|restored| *restored == last), "nothing decided is forgotten");
                    }
                    Decision::Commit { pointer } => {
                        assert_eq!(entry.incarnation, fenced_by, "nobody decides behind somebody else's fence");
                        assert!(ids.insert(pointer.checkpoint), "an id is used once");
                        last = Restore::From(pointer.clone());
                    }
                    Decision::Restore { .. } | Decision::Lost { .. } => unreachable!("not written here"),
                }
            }
            let store: Vec<_> = self.store.clone().into_iter().collect();
            assert!(plan(&store).is_ok(), "the log always adds up");
        }
    }

    /// Every order in which `n` incarnations can take their steps.
    fn explore(world: &World, steps_left: usize, explored: &mut usize) {
        *explored += 1;
        if steps_left == 0 {
            return;
        }
        for index in 0..world.incarnations.len() {
            if world.incarnations[index].state != State::Stopped {
                for reply in [Reply::Clean, Reply::LostAfter] {
                    let mut next = world.clone();
                    next.step(index, reply, true);
                    explore(&next, steps_left - 1, explored);
                }
            }
        }
    }

    #[test]
    fn a_fence_that_goes_where_the_log_was_trimmed_does_not_count() {
        let mut world = World::default();
        world.start();
        world.start();
        let step = |world: &mut World, index: usize, times: usize| (0..times).for_each(|_| world.step(index, Reply::Clean, true));
        step(&mut world, 0, 3); // incarnation 1 fences at 1 and decides at 2
        step(&mut world, 1, 1); // incarnation 2 reads that, and goes to sleep
        step(&mut world, 0, 3); // 1 decides at 3, 4 and 5, and trims what is older
        step(&mut world, 1, 1); // 2 fences at 3, which is free again
        assert_eq!((world.astray, &world.incarnations[1].restored), (1, &None));
        step(&mut world, 1, 3); // it reads again, and fences at the end
        assert_eq!(world.incarnations[1].restored, Some(Restore::From(pointer(4))));
        step(&mut world, 0, 1);
        assert_eq!(world.incarnations[0].state, State::Stopped);
    }

    #[test]
    fn in_every_order_of_steps_of_two_incarnations_nobody_decides_behind_a_fence() {
        let mut world = World::default();
        world.start();
        world.start();
        let mut explored = 0;
        explore(&world, 8, &mut explored);
        assert!(explored > 20_000, "{explored} states");
    }

    proptest! {
        #[test]
        fn incarnations_that_take_a_job_from_each_other_lose_no_decision_and_the_loser_stops(
            steps in prop::collection::vec((0usize..6, 0u8..6, any::<bool>()), 0..120)
        ) {
            let mut world = World::default();
            world.start();
            for (choice, reply, trims) in steps {
                if choice == 5 && world.incarnations.len() < 6 {
                    world.start();
                    continue;
                }
                let reply = match reply {
                    0 => Reply::LostAfter,
                    1 => Reply::LostBefore,
                    _ => Reply::Clean,
                };
                let index = choice % world.incarnations.len();
                world.step(index, reply, trims);
            }
            // The newest one gets through, and then nobody else does.
            let newest = world.incarnations.len() - 1;
            for _ in 0..500 {
                if !matches!(world.incarnations[newest].state, State::Deciding { .. }) {
                    world.step(newest, Reply::Clean, false);
                }
            }
            (0..newest).for_each(|index| (0..500).for_each(|_| world.step(index, Reply::Clean, false)));
            world.step(newest, Reply::Clean, false);
            let is_deciding = matches!(world.incarnations[newest].state, State::Deciding { .. });
            prop_assert!(is_deciding);
            for index in 0..world.incarnations.len() - 1 {
                prop_assert_eq!(&world.incarnations[index].state, &State::Stopped);
            }
        }
    }
}

#[test]
fn a_request_that_the_log_knows_is_not_carried_out_again() {
    let entries = log([fence(1), restore(None), commit(1)]);
    assert!(has_started(&entries, "request"));
    assert!(!has_started(&entries, "another"));
}

#[test]
fn rows_in_flight_to_a_node_that_is_not_as_it_was_are_not_dropped_silently() {
    use crate::checkpoint::{InFlight, InFlightChannel};
    let segment = SegmentRef {
        path: "segments/count/x".into(),
        first_group: 0,
        end_group: 16,
        full: true,
        entries: 1,
        bytes: 9,
        crc32c: 1,
    };
    let channels = vec![InFlightChannel { input: 0, upstream_task: 0, rows: 1, bytes: 9 }];
    let in_flight = InFlight { node: "count".into(), task_index: 0, parallelism: 1, keyed: true, channels, segment };
    let unaligned = Manifest { in_flight: vec![in_flight], ..manifest(1) };
    assert!(match_job(&unaligned, &shape(&[("count", 3)]), &BTreeSet::new()).is_ok(), "another parallelism is fine");
    for inputs in [None, Some((1, false)), Some((0, true))] {
        let mut job = shape(&[("count", 1)]);
        job.inputs = inputs.map(|inputs| ("count".to_owned(), inputs)).into_iter().collect();
        let problems = match_job(&unaligned, &job, &BTreeSet::new()).unwrap_err();
        assert!(problems.iter().any(|p| p.to_string().contains("rows on their way to count")), "{problems:?}");
    }
    assert_eq!(unaligned.segments().filter(|segment| segment.path == "segments/count/x").count(), 1, "retention keeps it");
}
