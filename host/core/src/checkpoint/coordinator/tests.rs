//! Facts in, orders out. Orders are compared as short texts, reports left out.

use super::*;
use crate::checkpoint::{OperatorSnapshot, SegmentRef, SinkSnapshot, SourceSnapshot, SplitSnapshot};
use serde_json::json;

const A: TaskId = TaskId { vertex: 0, index: 0 };
const B: TaskId = TaskId { vertex: 1, index: 0 };

fn spec() -> CheckpointSpec {
    CheckpointSpec { interval_ms: Some(1000), timeout_ms: 5000, tolerable_failures: 1, retained: 2, ..CheckpointSpec::default() }
}

fn operators() -> BTreeMap<String, OperatorManifest> {
    let operator = OperatorManifest { module: "count@1".into(), digest: "d1".into(), parallelism: 1, ..Default::default() };
    BTreeMap::from([("count".to_owned(), operator)])
}

fn config(spec: CheckpointSpec) -> CoordinatorConfig {
    CoordinatorConfig {
        job: "flights".into(),
        key_groups: 16,
        spec,
        tasks: vec![A, B],
        operators: operators(),
        restored: None,
        inherit_chains: true,
        next_checkpoint: 1,
        now_ms: 0,
    }
}

fn segment(path: &str, full: bool, bytes: u64) -> SegmentRef {
    SegmentRef { path: path.into(), first_group: 0, end_group: 16, full, entries: bytes, bytes, crc32c: 7 }
}

fn pointer(checkpoint: CheckpointId) -> ManifestPointer {
    ManifestPointer { checkpoint, path: format!("manifests/{checkpoint}"), bytes: 1, crc32c: 1 }
}

/// A source task: one split whose position is the checkpoint.
fn source_part(checkpoint: CheckpointId) -> TaskSnapshot {
    let split = SplitSnapshot { split: "s".into(), position: json!(checkpoint), record: checkpoint, max_timestamp: None };
    TaskSnapshot { sources: vec![SourceSnapshot { source: "in".into(), splits: vec![split] }], ..Default::default() }
}

/// A task with a keyed operator and a sink that staged one file.
fn part(checkpoint: CheckpointId, segment: Option<SegmentRef>) -> TaskSnapshot {
    TaskSnapshot {
        operators: vec![OperatorSnapshot { operator: "count".into(), task_index: 0, segment }],
        sinks: vec![SinkSnapshot { sink: "out".into(), committables: vec![json!(format!("f{checkpoint}"))] }],
        ..Default::default()
    }
}

fn delta(checkpoint: CheckpointId) -> Option<SegmentRef> {
    Some(segment(&format!("seg/{checkpoint}"), false, 10))
}

struct Rig {
    coordinator: Coordinator,
    now: u64,
    manifests: BTreeMap<CheckpointId, Manifest>,
    reports: Vec<CheckpointReport>,
}

impl Rig {
    fn new(spec: CheckpointSpec) -> Self {
        Self::with(config(spec))
    }

    fn with(config: CoordinatorConfig) -> Self {
        Self { coordinator: Coordinator::new(config), now: 0, manifests: BTreeMap::new(), reports: Vec::new() }
    }

    fn tell(&mut self, event: Event) -> Vec<String> {
        let orders = self.coordinator.handle(self.now, event);
        orders.into_iter().filter_map(|order| self.note(order)).collect()
    }

    fn at(&mut self, now: u64) -> Vec<String> {
        self.now = now;
        self.tell(Event::Tick)
    }

    fn note(&mut self, order: Action) -> Option<String> {
        Some(match order {
            Action::Trigger { checkpoint, kind, full, stop } => {
                let stop = stop.map_or("", |stop| if stop.drain { " stop drain" } else { " stop" });
                format!("trigger {checkpoint} {kind:?}{}{stop}", if full { " full" } else { "" })
            }
            Action::AbortCheckpoint { checkpoint, .. } => format!("abort {checkpoint}"),
            Action::WriteManifest { checkpoint, manifest } => {
                self.manifests.insert(checkpoint, *manifest);
                format!("manifest {checkpoint}")
            }
            Action::WriteDecision { checkpoint, .. } => format!("decide {checkpoint}"),
            Action::CommitSinks { permit } => format!("commit {} {}", permit.checkpoint(), json!(permit.committables())),
            Action::StoreSavepoint { request, checkpoint, .. } => format!("store #{request} {checkpoint}"),
            Action::SavepointCompleted { request, .. } => format!("stored #{request}"),
            Action::SavepointFailed { request, .. } => format!("failed #{request}"),
            Action::Merge { segments, to_full, .. } => {
                let paths: Vec<_> = segments.iter().map(|segment| segment.path.as_str()).collect();
                format!("merge {}{}", paths.join(" "), if to_full { " to full" } else { "" })
            }
            Action::Delete { paths } => format!("delete {}", paths.join(" ")),
            Action::TrimLog { oldest } => format!("trim {oldest}"),
            Action::Report(report) => {
                self.reports.push(report);
                return None;
            }
            Action::StopJob { request } => format!("stop job #{request}"),
            Action::SuspendJob { last } => match last {
                Suspended::At(checkpoint) => format!("suspend job at {checkpoint}"),
                Suspended::Without { .. } => "suspend job without a checkpoint".into(),
            },
            Action::FinishJob => "finish job".into(),
            Action::FailJob { reason, fatal } => format!("fail job{}: {reason}", if fatal { " for good" } else { "" }),
        })
    }

    fn ack(&mut self, checkpoint: CheckpointId, task: TaskId, snapshot: TaskSnapshot) -> Vec<String> {
        self.tell(Event::TaskAcknowledged { checkpoint, task, snapshot })
    }

    fn ack_both(&mut self, checkpoint: CheckpointId) -> Vec<String> {
        assert_eq!(self.ack(checkpoint, A, source_part(checkpoint)), [""; 0]);
        self.ack(checkpoint, B, part(checkpoint, delta(checkpoint)))
    }

    fn written(&mut self, checkpoint: CheckpointId) -> Vec<String> {
        self.tell(Event::ManifestWritten { checkpoint, pointer: pointer(checkpoint) })
    }

    fn decided(&mut self, checkpoint: CheckpointId) -> Vec<String> {
        self.tell(Event::Decided { checkpoint })
    }

    fn committed(&mut self, checkpoint: CheckpointId) -> Vec<String> {
        self.tell(Event::SinksCommitted { checkpoint })
    }

    /// From acknowledged by both tasks to committed.
    fn complete(&mut self, checkpoint: CheckpointId) -> Vec<String> {
        let mut orders = self.ack_both(checkpoint);
        orders.extend(self.written(checkpoint));
        orders.extend(self.decided(checkpoint));
        orders.extend(self.committed(checkpoint));
        orders
    }

    fn chain(&self, checkpoint: CheckpointId) -> Vec<&str> {
        self.manifests[&checkpoint].operators["count"].tasks[0].iter().map(|segment| segment.path.as_str()).collect()
    }
}

fn declined(checkpoint: CheckpointId, task: TaskId) -> Event {
    Event::TaskDeclined { checkpoint, task, reason: "disk full".into() }
}

fn savepoint(request: u64) -> Event {
    Event::SavepointRequested { request, stop: None }
}

fn stop_with_savepoint(request: u64) -> Event {
    Event::SavepointRequested { request, stop: Some(StopMode { drain: false }) }
}

fn stored(request: u64, checkpoint: CheckpointId) -> Event {
    Event::SavepointStored { request, pointer: pointer(checkpoint) }
}

#[test]
fn a_checkpoint_goes_from_trigger_to_commit_in_order() {
    let mut rig = Rig::new(spec());
    assert_eq!(rig.coordinator.next_deadline(), Some(1000));
    assert_eq!(rig.at(999), [""; 0]);
    assert_eq!(rig.at(1000), ["trigger 1 Checkpoint"]);
    assert_eq!(rig.ack(1, A, source_part(1)), [""; 0]);
    assert_eq!(rig.ack(1, B, part(1, delta(1))), ["manifest 1"]);
    assert_eq!(rig.written(1), ["decide 1"]);
    assert_eq!(rig.decided(1), [r#"commit 1 {"out":["f1"]}"#]);
    assert_eq!(rig.committed(1), [""; 0]);
    let manifest = &rig.manifests[&1];
    assert_eq!((manifest.sources["in"][0].record, manifest.sinks["out"].len()), (1, 1));
    assert_eq!((manifest.operators["count"].digest.as_str(), manifest.time_ms, manifest.end_of_input), ("d1", 1000, false));
    assert_eq!(rig.chain(1), ["seg/1"]);
    assert_eq!(rig.at(2000), ["trigger 2 Checkpoint"]);
    let shown = |report: &CheckpointReport| (report.checkpoint, report.status, report.duration_ms);
    assert_eq!(rig.reports.iter().map(shown).collect::<Vec<_>>(), [(1, CheckpointStatus::Completed, 0)]);
    assert_eq!(rig.coordinator.pending(2500).iter().map(shown).collect::<Vec<_>>(), [(2, CheckpointStatus::Pending, 500)]);
}

#[test]
fn without_an_interval_only_savepoints_are_taken() {
    let mut rig = Rig::new(CheckpointSpec { interval_ms: None, ..spec() });
    assert_eq!(rig.coordinator.next_deadline(), None);
    assert_eq!(rig.at(1_000_000), [""; 0]);
    assert_eq!(rig.tell(savepoint(1)), ["trigger 1 Savepoint"]);
}

#[test]
fn a_checkpoint_past_its_timeout_is_aborted_and_the_next_is_full() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.ack(1, B, part(1, delta(1)));
    assert_eq!(rig.coordinator.next_deadline(), Some(6000));
    assert_eq!(rig.at(5999), [""; 0]);
    assert_eq!(rig.at(6000), ["abort 1", "trigger 2 Checkpoint full"]);
    assert_eq!(rig.reports[0].status, CheckpointStatus::Aborted);
    let reason = "not completed within 5000 ms (checkpoint.timeout); 1 of 2 tasks had answered";
    assert_eq!(rig.reports[0].reason.as_deref(), Some(reason));
}

#[test]
fn a_checkpoint_whose_decision_is_being_written_is_not_aborted() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.ack_both(1);
    rig.written(1);
    assert_eq!(rig.at(60_000), [""; 0]);
    assert_eq!(rig.coordinator.next_deadline(), None);
    assert_eq!(rig.decided(1)[0], r#"commit 1 {"out":["f1"]}"#);
}

#[test]
fn a_manifest_that_comes_after_the_timeout_is_deleted() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.ack_both(1);
    assert_eq!(rig.at(6000), ["abort 1", "trigger 2 Checkpoint"], "all tasks had answered: nothing is missing");
    assert_eq!(rig.written(1), ["delete manifests/1"]);
}

#[test]
fn failures_in_a_row_restart_the_job_and_a_completed_one_forgives_them() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    assert_eq!(rig.tell(declined(1, A)), ["abort 1"]);
    assert_eq!(rig.tell(declined(1, B)), [""; 0], "it is aborted already");
    rig.at(2000);
    rig.ack(2, A, source_part(2));
    rig.ack(2, B, part(2, Some(segment("seg/2", true, 10))));
    rig.written(2);
    rig.decided(2);
    rig.committed(2);
    rig.at(3000);
    assert_eq!(rig.tell(declined(3, A)), ["abort 3"]);
    rig.at(4000);
    let reason = "2 checkpoints failed in a row, 1 are tolerated (checkpoint.tolerable_failures); the last: \
                  the manifest could not be written: no";
    let orders = rig.tell(Event::ManifestFailed { checkpoint: 4, reason: "no".into() });
    assert_eq!(orders, ["abort 4".to_owned(), format!("fail job: {reason}")]);
    assert_eq!(rig.at(9000), [""; 0], "nothing is ordered after the end");
    assert_eq!(rig.coordinator.next_deadline(), None);
}

#[test]
fn a_late_answer_to_an_aborted_checkpoint_carries_its_rows_and_state_into_the_next() {
    let mut rig = Rig::new(CheckpointSpec { tolerable_failures: 5, ..spec() });
    rig.at(1000);
    rig.ack(1, A, source_part(1));
    rig.at(6000 - 1);
    assert_eq!(rig.tell(declined(1, A)), ["abort 1", "trigger 2 Checkpoint full"]);
    rig.ack(1, B, part(1, delta(1)));
    rig.tell(declined(2, A));
    // A has not answered 2, so a piece may be missing; B has answered 1 late, 2 not yet.
    rig.ack(2, A, source_part(2));
    rig.ack(2, B, part(2, Some(segment("seg/2", true, 10))));
    assert_eq!(rig.at(6999), ["trigger 3 Checkpoint"], "every late answer has come: nothing is missing any more");
    assert_eq!(rig.ack_both(3), ["manifest 3"]);
    rig.written(3);
    assert_eq!(rig.decided(3), [r#"commit 3 {"out":["f1","f2","f3"]}"#]);
    assert_eq!(rig.chain(3), ["seg/2", "seg/3"]);
    assert_eq!(rig.committed(3), ["delete seg/1"]);
}

#[test]
fn minimum_pause_is_kept_after_the_end_of_the_last_one() {
    let mut rig = Rig::new(CheckpointSpec { min_pause_ms: 700, ..spec() });
    rig.at(1000);
    rig.now = 1900;
    rig.complete(1);
    assert_eq!(rig.coordinator.next_deadline(), Some(2600));
    assert_eq!(rig.at(2599), [""; 0]);
    assert_eq!(rig.at(2600), ["trigger 2 Checkpoint"]);
    rig.at(2700);
    rig.tell(declined(2, A));
    assert_eq!(rig.coordinator.next_deadline(), Some(3600), "the interval is longer than the pause here");
}

#[test]
fn two_at_once_are_decided_in_order_and_each_manifest_stops_at_its_own_barrier() {
    let mut rig = Rig::new(CheckpointSpec { max_concurrent: 2, ..spec() });
    rig.at(1000);
    assert_eq!(rig.at(2000), ["trigger 2 Checkpoint"]);
    assert_eq!(rig.at(3000), [""; 0], "two are pending");
    rig.ack(1, B, part(1, delta(1)));
    rig.ack(2, B, part(2, delta(2)));
    assert_eq!(rig.ack(1, A, source_part(1)), ["manifest 1"]);
    assert_eq!(rig.ack(2, A, source_part(2)), [""; 0]);
    assert_eq!(rig.written(1), ["decide 1"]);
    assert_eq!(rig.decided(1), [r#"commit 1 {"out":["f1"]}"#, "manifest 2", "trigger 3 Checkpoint"]);
    assert_eq!((rig.chain(1), rig.chain(2)), (vec!["seg/1"], vec!["seg/1", "seg/2"]));
    assert_eq!(rig.manifests[&2].sinks["out"], [json!("f1"), json!("f2")], "f1 may not have been committed yet");
    rig.written(2);
    assert_eq!(rig.decided(2), [""; 0], "commits are one at a time");
    assert_eq!(rig.committed(1), [r#"commit 2 {"out":["f2"]}"#]);
}

#[test]
fn a_delta_over_a_lost_piece_aborts_its_checkpoint_and_the_next_is_full() {
    let mut rig = Rig::new(CheckpointSpec { max_concurrent: 2, tolerable_failures: 5, ..spec() });
    rig.at(1000);
    rig.at(2000);
    rig.ack(1, A, source_part(1));
    assert_eq!(rig.tell(declined(1, B)), ["abort 1"]);
    rig.ack(2, A, source_part(2));
    assert_eq!(rig.ack(2, B, part(2, delta(2))), ["abort 2"]);
    assert_eq!(rig.at(3000), ["trigger 3 Checkpoint full"]);
    assert_eq!(rig.at(4000), ["trigger 4 Checkpoint"], "3 mends the chain, if it is answered");
    rig.ack(3, A, source_part(3));
    assert_eq!(rig.ack(3, B, part(3, Some(segment("seg/3", true, 9)))), ["manifest 3"]);
    assert_eq!(rig.chain(3), ["seg/3"]);
    rig.written(3);
    assert_eq!(rig.decided(3)[0], r#"commit 3 {"out":["f2","f3"]}"#, "what was staged for 2 is not lost");
    assert_eq!(rig.committed(3), ["delete seg/2"]);
}

#[test]
fn a_task_that_skips_a_checkpoint_aborts_it() {
    let mut rig = Rig::new(CheckpointSpec { max_concurrent: 2, tolerable_failures: 5, ..spec() });
    rig.at(1000);
    rig.at(2000);
    assert_eq!(rig.ack(2, A, source_part(2)), ["abort 1"]);
    assert_eq!(rig.reports[0].reason.as_deref(), Some("task 0/0 went on to checkpoint 2 without it"));
    rig.ack(1, B, part(1, delta(1)));
    assert_eq!(rig.ack(2, B, part(2, delta(2))), ["manifest 2"], "A has no state that could be missing");
    assert_eq!(rig.chain(2), ["seg/1", "seg/2"]);
}

#[test]
fn state_that_is_empty_in_a_full_checkpoint_has_an_empty_chain() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.complete(1);
    rig.at(2000);
    rig.tell(declined(2, B));
    assert_eq!(rig.at(3000), ["trigger 3 Checkpoint full"]);
    rig.ack(3, A, source_part(3));
    rig.ack(3, B, part(3, None));
    assert_eq!(rig.chain(3), Vec::<&str>::new());
}

#[test]
fn a_savepoint_goes_beside_a_pending_checkpoint_and_is_copied_when_its_output_is_committed() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    assert_eq!(rig.tell(savepoint(7)), ["trigger 2 Savepoint"]);
    assert_eq!(rig.tell(savepoint(8)), [""; 0], "one at a time");
    assert_eq!(rig.ack_both(1), ["manifest 1"]);
    rig.ack_both(2);
    rig.written(1);
    assert_eq!(rig.decided(1), [r#"commit 1 {"out":["f1"]}"#, "manifest 2"]);
    rig.committed(1);
    rig.written(2);
    assert_eq!(rig.decided(2), [r#"commit 2 {"out":["f2"]}"#, "trigger 3 Savepoint"]);
    assert_eq!(rig.committed(2)[0], "store #7 2", "whoever starts from it counts on its output being visible");
    assert_eq!(rig.tell(stored(7, 2)), ["stored #7"]);
    assert_eq!(rig.tell(declined(3, A)), ["abort 3", "failed #8"]);
    assert_eq!(rig.coordinator.failures, 0, "whoever asked was told: it does not count");
}

#[test]
fn stopping_waits_for_the_commit_and_then_for_the_copy() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    assert_eq!(rig.tell(stop_with_savepoint(7)), ["trigger 2 Savepoint stop"]);
    assert_eq!(rig.tell(savepoint(8)), ["failed #8"]);
    assert_eq!(rig.tell(Event::AllSourcesEnded), [""; 0]);
    rig.complete(1);
    assert_eq!(rig.at(3000), [""; 0], "no checkpoint of the interval after the stop");
    rig.ack_both(2);
    rig.written(2);
    assert_eq!(rig.decided(2), [r#"commit 2 {"out":["f2"]}"#]);
    assert_eq!(rig.committed(2), ["store #7 2"]);
    assert_eq!(rig.tell(stored(7, 2)), ["stored #7", "stop job #7"]);
    assert_eq!(rig.tell(savepoint(9)), ["failed #9"]);
}

#[test]
fn a_stop_whose_savepoint_fails_restarts_the_job() {
    let mut rig = Rig::new(spec());
    rig.tell(stop_with_savepoint(7));
    let orders = rig.tell(declined(1, A));
    let reason = "the savepoint to stop with failed: task 0/0 declined: disk full";
    assert_eq!(orders, ["abort 1".to_owned(), "failed #7".into(), format!("fail job: {reason}")]);

    let mut rig = Rig::new(spec());
    rig.tell(stop_with_savepoint(7));
    rig.complete(1);
    let orders = rig.tell(Event::SavepointStoreFailed { request: 7, reason: "disk full".into() });
    assert_eq!(orders, ["failed #7", "fail job: the savepoint to stop with was not stored: disk full"]);
}

#[test]
fn at_the_end_of_the_input_a_last_checkpoint_follows_the_pending_ones_and_the_job_finishes_when_it_is_committed() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    assert_eq!(rig.tell(Event::AllSourcesEnded), [""; 0]);
    let orders = rig.complete(1);
    assert_eq!(orders[2..], [r#"commit 1 {"out":["f1"]}"#, "trigger 2 Final"]);
    assert_eq!(rig.tell(savepoint(1)), ["failed #1"]);
    assert_eq!(rig.complete(2), ["manifest 2", "decide 2", r#"commit 2 {"out":["f2"]}"#, "finish job"]);
    assert!(rig.manifests[&2].end_of_input && !rig.manifests[&1].end_of_input);
}

#[test]
fn a_job_without_interval_finishes_too_and_a_failed_last_checkpoint_is_tried_again() {
    let mut rig = Rig::new(CheckpointSpec { interval_ms: None, ..spec() });
    rig.now = 500;
    assert_eq!(rig.tell(Event::AllSourcesEnded), ["trigger 1 Final"]);
    assert_eq!(rig.tell(declined(1, A)), ["abort 1"]);
    assert_eq!(rig.coordinator.next_deadline(), Some(500 + FINAL_RETRY_MS));
    assert_eq!(rig.at(1500), ["trigger 2 Final full"]);
    let orders = rig.tell(declined(2, A));
    assert!(orders[1].starts_with("fail job: 2 checkpoints failed in a row"), "{orders:?}");
}

#[test]
fn a_savepoint_that_is_still_being_copied_holds_the_end_of_the_job() {
    let mut rig = Rig::new(CheckpointSpec { interval_ms: None, ..spec() });
    rig.tell(savepoint(1));
    rig.tell(Event::AllSourcesEnded);
    rig.complete(1);
    let orders = rig.complete(2);
    assert!(!orders.contains(&"finish job".to_owned()));
    assert_eq!(rig.tell(stored(1, 1)), ["stored #1", "finish job"]);
}

#[test]
fn who_is_fenced_stops_for_good_and_says_by_whom() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.tell(savepoint(5));
    rig.tell(savepoint(6));
    rig.ack_both(1);
    rig.written(1);
    let orders = rig.tell(Event::Fenced { by: "incarnation 3".into() });
    assert_eq!(orders, ["failed #6", "failed #5", "fail job for good: the job flights was taken over by incarnation 3"]);
    assert!(
        rig.reports.iter().all(|report| report.status == CheckpointStatus::Aborted) && rig.coordinator.pending(2000).is_empty()
    );
}

#[test]
fn what_is_in_doubt_restarts_the_job() {
    let unknown = |checkpoint| Event::DecisionUnknown { checkpoint, reason: "no answer".into() };
    let commit_failed = |checkpoint| Event::CommitFailed { checkpoint, reason: "no answer".into() };
    let pre_commit_failed = |checkpoint| Event::PreCommitFailed { checkpoint, task: B, reason: "no answer".into() };
    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.ack_both(1);
    rig.written(1);
    assert_eq!(rig.tell(unknown(1)), ["fail job: whether checkpoint 1 was decided is unknown: no answer"]);

    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.ack_both(1);
    rig.written(1);
    rig.decided(1);
    assert_eq!(rig.tell(commit_failed(1)), ["fail job: checkpoint 1 is decided, but its sinks did not commit: no answer"]);

    let mut rig = Rig::new(spec());
    rig.at(1000);
    assert_eq!(rig.tell(pre_commit_failed(1)), ["fail job: task 1/0 could not pre-commit checkpoint 1: no answer"]);
}

#[test]
fn a_merge_takes_its_place_in_the_chain_and_what_it_replaced_goes_when_no_manifest_needs_it() {
    let mut rig = Rig::new(spec());
    let mut orders = Vec::new();
    for checkpoint in 1..=5 {
        orders = rig.at(checkpoint * 1000);
        orders.extend(rig.complete(checkpoint));
    }
    let merge = "merge seg/1 seg/2 seg/3 seg/4 seg/5 to full".to_owned();
    assert_eq!(orders[4..], [merge, "trim 4".into(), "delete manifests/3".into()]);
    rig.at(6000);
    rig.complete(6);
    let replaced = (1..=5).map(|id| format!("seg/{id}")).collect();
    let merged = Event::Merged { operator: "count".into(), task_index: 0, replaced, by: segment("merged", true, 50) };
    assert_eq!(rig.tell(merged), [""; 0], "manifests 5 and 6 still name the old ones");
    rig.at(7000);
    assert_eq!(rig.complete(7)[3..], ["trim 6", "delete manifests/5"]);
    assert_eq!(rig.chain(7), ["merged", "seg/6", "seg/7"]);
    rig.at(8000);
    assert_eq!(rig.complete(8)[3..], ["trim 7", "delete manifests/6", "delete seg/1 seg/2 seg/3 seg/4 seg/5"]);
}

#[test]
fn a_merge_that_a_full_snapshot_overtook_is_thrown_away() {
    let mut rig = Rig::new(spec());
    for checkpoint in 1..=5 {
        rig.at(checkpoint * 1000);
        rig.complete(checkpoint);
    }
    for checkpoint in 6..=8 {
        rig.at(checkpoint * 1000);
        rig.ack(checkpoint, A, source_part(checkpoint));
        rig.ack(checkpoint, B, part(checkpoint, Some(segment(&format!("seg/{checkpoint}"), true, 10))));
        rig.written(checkpoint);
        rig.decided(checkpoint);
        assert!(!rig.committed(checkpoint).concat().contains("seg/1"), "the merge is still reading it");
    }
    let replaced = (1..=5).map(|id| format!("seg/{id}")).collect();
    let merged = Event::Merged { operator: "count".into(), task_index: 0, replaced, by: segment("merged", true, 50) };
    assert_eq!(rig.tell(merged), ["delete merged seg/1 seg/2 seg/3 seg/4 seg/5"]);
}

#[test]
fn a_failed_merge_is_ordered_again_after_the_next_checkpoint() {
    let mut rig = Rig::new(spec());
    for checkpoint in 1..=5 {
        rig.at(checkpoint * 1000);
        rig.complete(checkpoint);
    }
    let failed = Event::MergeFailed { operator: "count".into(), task_index: 0, reason: "no".into() };
    assert_eq!(rig.tell(failed), [""; 0]);
    rig.at(6000);
    assert!(rig.complete(6).concat().contains("merge seg/1 seg/2 seg/3 seg/4 seg/5 seg/6 to full"));
}

#[test]
fn segments_of_a_savepoint_are_kept_while_they_are_copied() {
    let mut rig = Rig::new(spec());
    rig.tell(savepoint(1));
    rig.complete(1);
    for checkpoint in 2..=5 {
        rig.at(checkpoint * 1000);
        rig.ack(checkpoint, A, source_part(checkpoint));
        rig.ack(checkpoint, B, part(checkpoint, Some(segment(&format!("seg/{checkpoint}"), true, 10))));
        rig.written(checkpoint);
        rig.decided(checkpoint);
        assert!(!rig.committed(checkpoint).concat().contains("seg/1"));
    }
    assert_eq!(rig.tell(stored(1, 1)), ["stored #1", "delete seg/1"]);
}

fn restored(inherit_chains: bool) -> Rig {
    let mut first = Rig::new(spec());
    first.at(1000);
    first.complete(1);
    let mut manifest = first.manifests.remove(&1).unwrap();
    manifest.operators.get_mut("count").unwrap().tasks[0].insert(0, segment("savepoints/x/seg", true, 100));
    let retained = vec![CompletedCheckpoint::from_log(pointer(1), &manifest)];
    let restored = Some(Restored { manifest, retained });
    Rig::with(CoordinatorConfig { restored, inherit_chains, next_checkpoint: 101, ..config(spec()) })
}

#[test]
fn a_restored_job_goes_on_with_its_chains() {
    let mut rig = restored(true);
    assert_eq!(rig.at(1000), ["trigger 101 Checkpoint"]);
    rig.ack_both(101);
    assert_eq!(rig.chain(101), ["savepoints/x/seg", "seg/1", "seg/101"]);
    assert_eq!(rig.manifests[&101].sinks.len(), 1, "recovery has committed what was decided before");
}

const DAY_MS: u64 = 86_400_000;
const TEN_YEARS_MS: u64 = 3653 * DAY_MS;

/// Takes the checkpoint that is due to its end.
fn complete_due(rig: &mut Rig, checkpoint: CheckpointId, at: u64) {
    assert_eq!(rig.at(at - 1), [""; 0], "an interval has not passed");
    assert_eq!(rig.at(at), [format!("trigger {checkpoint} Checkpoint")]);
    rig.complete(checkpoint);
}

#[test]
fn a_job_goes_on_by_its_own_clock_whatever_time_the_restored_manifest_has() {
    for (written_ms, now_ms) in [(5 * DAY_MS, 4 * DAY_MS), (5 * DAY_MS, 5 * DAY_MS + TEN_YEARS_MS), (TEN_YEARS_MS, 0)] {
        let mut first = Rig::with(CoordinatorConfig { now_ms: written_ms, ..config(spec()) });
        first.at(written_ms + 1000);
        first.complete(1);
        let manifest = first.manifests.remove(&1).unwrap();
        assert_eq!(manifest.time_ms, written_ms + 1000);
        let retained = vec![CompletedCheckpoint::from_log(pointer(1), &manifest)];
        let restored = Some(Restored { manifest, retained });
        let mut rig = Rig::with(CoordinatorConfig { restored, next_checkpoint: 101, now_ms, ..config(spec()) });
        assert_eq!(rig.coordinator.next_deadline(), Some(now_ms + 1000));
        for n in 1..=2 {
            complete_due(&mut rig, 100 + n, now_ms + n * 1000);
        }
        // The newest is the one with the greatest number, and its time is that of its own clock.
        assert_eq!(rig.manifests[&102].time_ms, now_ms + 2000);
        assert!(rig.reports.iter().all(|report| report.duration_ms == 0), "{:?}", rig.reports);
    }
}

#[test]
fn a_clock_that_goes_back_within_a_run_stands_still() {
    let mut rig = Rig::with(CoordinatorConfig { now_ms: DAY_MS, ..config(spec()) });
    assert_eq!(rig.at(DAY_MS + 1000), ["trigger 1 Checkpoint"]);
    assert_eq!(rig.at(0), [""; 0], "nothing times out, nothing is triggered");
    rig.complete(1);
    assert_eq!(rig.manifests[&1].time_ms, DAY_MS + 1000);
    complete_due(&mut rig, 2, DAY_MS + 2000);
}

#[test]
fn a_clock_that_goes_ahead_ten_years_costs_the_checkpoint_under_way_and_triggers_one() {
    let mut rig = Rig::new(spec());
    assert_eq!(rig.at(1000), ["trigger 1 Checkpoint"]);
    let orders = rig.at(TEN_YEARS_MS);
    let count = |what: &str| orders.iter().filter(|order| order.starts_with(what)).count();
    assert_eq!((count("abort 1"), count("trigger"), count("fail")), (1, 1, 0), "{orders:?}");
    assert_eq!(rig.at(TEN_YEARS_MS + 999), [""; 0], "missed intervals are not made up for");
}

#[test]
fn a_rescaled_job_starts_full_and_never_deletes_from_a_savepoint() {
    let mut rig = restored(false);
    let mut orders = Vec::new();
    for checkpoint in 101..=103 {
        let full = if checkpoint == 101 { " full" } else { "" };
        assert_eq!(rig.at((checkpoint - 100) * 1000), [format!("trigger {checkpoint} Checkpoint{full}")]);
        rig.ack(checkpoint, A, source_part(checkpoint));
        rig.ack(checkpoint, B, part(checkpoint, Some(segment(&format!("seg/{checkpoint}"), checkpoint == 101, 10))));
        orders.extend(rig.written(checkpoint));
        orders.extend(rig.decided(checkpoint));
        orders.extend(rig.committed(checkpoint));
    }
    assert_eq!(rig.chain(103), ["seg/101", "seg/102", "seg/103"]);
    assert_eq!(
        orders[orders.len() - 4..],
        [r#"decide 103"#, r#"commit 103 {"out":["f103"]}"#, "trim 102", "delete manifests/101"]
    );
    assert!(orders.contains(&"delete seg/1".to_owned()) && !orders.concat().contains("delete savepoints"));
}

#[test]
fn ids_do_not_run_away_from_the_last_decision() {
    let mut rig = Rig::new(CheckpointSpec { tolerable_failures: u32::MAX, ..spec() });
    for checkpoint in 1..=CHECKPOINTS_UNDECIDED_MAX {
        rig.at(checkpoint * 1000);
        assert_eq!(rig.tell(declined(checkpoint, A)), [format!("abort {checkpoint}")]);
    }
    let orders = rig.at(200_000);
    assert_eq!(orders, ["fail job: 100 checkpoints in a row were aborted (CHECKPOINTS_UNDECIDED_MAX)"]);
}

#[test]
fn decided_checkpoints_that_wait_for_their_sinks_hold_the_interval_up() {
    let mut rig = Rig::new(spec());
    for checkpoint in 1..=2 {
        rig.at(checkpoint * 1000);
        rig.ack_both(checkpoint);
        rig.written(checkpoint);
        rig.decided(checkpoint);
    }
    assert_eq!(rig.at(9000), [""; 0]);
    assert_eq!(rig.committed(1), [r#"commit 2 {"out":["f2"]}"#, "trigger 3 Checkpoint"]);
}

#[test]
#[should_panic(expected = "BUG: task 0/0 answered checkpoint 1 after 1")]
fn a_second_answer_is_a_bug() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.ack(1, A, source_part(1));
    rig.ack(1, A, source_part(1));
}

#[test]
#[should_panic(expected = "BUG: task 0/0 answered checkpoint 2, which it was not asked for")]
fn an_answer_to_a_checkpoint_that_was_not_triggered_is_a_bug() {
    let mut rig = Rig::new(spec());
    rig.at(1000);
    rig.ack(2, A, source_part(2));
}

#[test]
#[should_panic(expected = "BUG: checkpoint 2 was decided out of order")]
fn a_decision_out_of_order_is_a_bug() {
    let mut rig = Rig::new(CheckpointSpec { max_concurrent: 2, ..spec() });
    rig.at(1000);
    rig.at(2000);
    rig.decided(2);
}

#[test]
fn a_job_that_is_suspended_ends_when_its_last_checkpoint_is_committed_and_starts_no_other() {
    let mut rig = Rig::new(spec());
    assert_eq!(rig.tell(Event::SuspendRequested), ["trigger 1 Checkpoint stop"]);
    assert_eq!(rig.tell(Event::SuspendRequested), Vec::<String>::new());
    assert_eq!(rig.tell(Event::SavepointRequested { request: 9, stop: None }), ["failed #9"]);
    assert_eq!(rig.at(1500), Vec::<String>::new(), "the interval is over, and nothing is triggered");
    rig.ack(1, A, source_part(1));
    assert_eq!(rig.coordinator.progress()[0].missing, [B]);
    assert_eq!(rig.ack(1, B, part(1, delta(1))), ["manifest 1"]);
    assert_eq!(rig.coordinator.progress()[0].phase, CheckpointPhase::Manifest);
    assert_eq!(rig.tell(Event::ManifestWritten { checkpoint: 1, pointer: pointer(1) }), ["decide 1"]);
    rig.tell(Event::Decided { checkpoint: 1 });
    let progress = &rig.coordinator.progress()[0];
    assert_eq!((progress.phase, progress.phase_since_ms, progress.triggered_ms), (CheckpointPhase::SinkCommit, 1500, 0));
    assert_eq!(rig.tell(Event::SinksCommitted { checkpoint: 1 }).last().map(String::as_str), Some("suspend job at 1"));
    assert!(rig.coordinator.is_over() && rig.coordinator.progress().is_empty());
}

#[test]
fn a_last_checkpoint_that_is_aborted_ends_the_job_without_it() {
    let mut rig = Rig::new(spec());
    rig.tell(Event::SuspendRequested);
    let declined = Event::TaskDeclined { checkpoint: 1, task: B, reason: "the disk is full".into() };
    assert_eq!(rig.tell(declined), ["abort 1", "suspend job without a checkpoint"]);
}

#[test]
fn a_job_that_is_ending_anyway_is_not_suspended_on_top() {
    let mut rig = Rig::new(spec());
    rig.tell(Event::AllSourcesEnded);
    assert_eq!(rig.tell(Event::SuspendRequested), Vec::<String>::new());
    let mut rig = Rig::new(spec());
    rig.tell(Event::SavepointRequested { request: 1, stop: Some(StopMode { drain: false }) });
    assert_eq!(rig.tell(Event::SuspendRequested), Vec::<String>::new());
}
