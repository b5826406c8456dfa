//! The checkpoint coordinator of one job: hears facts, gives orders, owns no clock and does no I/O.
//!
//! Semantics are Flink's, with these choices:
//! * *interval* is counted from trigger to trigger; *minimum pause* from the end of the last checkpoint, completed or aborted;
//! * *timeout* runs from the trigger until the decision is being written; from there on only the decision log knows;
//! * *maximum concurrent* holds for checkpoints of the interval. A savepoint is triggered at once, beside whatever is pending,
//!   but only one at a time; further requests wait. With unaligned checkpoints, it waits for the one that is pending too. Decided checkpoints that wait for their sinks' commit hold the interval up
//!   when more than `max_concurrent` pile up;
//! * *tolerable failures* counts aborted checkpoints in a row, savepoints left out: whoever asked for one hears of it. One more
//!   restarts the job. A failed stop-with-savepoint restarts it too, because its sources have stopped already;
//! * what can't be aborted halfway (a pre-commit, a decision, a commit) restarts the job when it fails, and recovery looks at
//!   what is there.
//!
//! ```text
//!             Collecting ──all tasks, oldest──► WritingManifest ──► Deciding ──► decided ──► committing ──► committed
//!                 │                                   │                │            (one at a time, in order)
//!                 └── timeout, decline, failure ──► aborted      fenced, unknown ──► the job ends
//! ```
//!
//! Late acknowledgements of aborted checkpoints still count: their committables go into the next manifest, their segments into the
//! chains. While one is missing, the chain has a hole, and the next checkpoint is triggered full.

use super::chains::{Chains, MergeOrder};
use super::completed::{CompletedCheckpoint, Retention};
use super::pending::{Pending, Phase, SavepointRequest};
use super::{
    Action, CheckpointId, CheckpointKind, CheckpointProgress, CheckpointReport, CheckpointStatus, Event, MANIFEST_FORMAT,
    MANIFEST_FORMAT_ALIGNED, Manifest, ManifestPointer, OperatorManifest, StopMode, Suspended, TaskId, TaskSnapshot,
};
use crate::diagnosis::CheckpointPhase;
use crate::job_graph::spec::CheckpointSpec;
use crate::limits::{CHECKPOINTS_UNDECIDED_MAX, SAVEPOINT_REQUESTS_MAX};
use crate::two_phase_commit::Ledger;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long the checkpoint at the end of the input waits after a failure where the job has no interval.
const FINAL_RETRY_MS: u64 = 1000;

#[derive(Debug)]
pub struct CoordinatorConfig {
    pub job: String,
    pub key_groups: u32,
    pub spec: CheckpointSpec,
    pub tasks: Vec<TaskId>,
    /// By operator. The segments in it are ignored.
    pub operators: BTreeMap<String, OperatorManifest>,
    /// `None`: a fresh start.
    pub restored: Option<Restored>,
    /// True: every task goes on with the segments of the task of the same index. Not so after a change of parallelism, and not
    /// after a start from a savepoint, whose segments are not ours: then the first checkpoint is full.
    pub inherit_chains: bool,
    /// From the recovery plan: above every id used so far.
    pub next_checkpoint: CheckpointId,
    /// Since the Unix epoch; it should not go back.
    pub now_ms: u64,
}

#[derive(Debug)]
pub struct Restored {
    pub manifest: Manifest,
    /// All completed checkpoints that are still in the store, oldest first, the restored one last.
    pub retained: Vec<CompletedCheckpoint>,
}

#[derive(Debug, Default)]
struct Task {
    acknowledged: CheckpointId,
    /// Aborted checkpoints whose acknowledgement may still come, and whether they were full.
    awaiting: BTreeMap<CheckpointId, bool>,
    /// Its part of this checkpoint is lost for good: deltas after it are worthless.
    hole: Option<CheckpointId>,
}

impl Task {
    /// The newest checkpoint that leaves a hole unless more is heard.
    fn missing(&self) -> Option<CheckpointId> {
        self.hole.max(self.awaiting.last_key_value().map(|(id, _)| *id))
    }
}

/// A savepoint's copy under way.
#[derive(Debug)]
struct Copy {
    segments: BTreeSet<String>,
    stop: bool,
}

/// What the job is heading for. Ends are final: nothing is ordered after one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Running,
    /// With a savepoint, whose checkpoint this is.
    Stopping {
        request: u64,
        checkpoint: CheckpointId,
    },
    /// With its host, after this checkpoint.
    Suspending {
        checkpoint: CheckpointId,
    },
    /// All input is read.
    Finishing,
    Over,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Coordinator {
    job: String,
    key_groups: u32,
    spec: CheckpointSpec,
    operators: BTreeMap<String, OperatorManifest>,
    tasks: BTreeMap<TaskId, Task>,
    chains: Chains,
    ledger: Ledger,
    pending: BTreeMap<CheckpointId, Pending>,
    /// Decided, oldest first.
    uncommitted: VecDeque<CheckpointId>,
    /// What is known of them, for people.
    decided: BTreeMap<CheckpointId, CheckpointProgress>,
    /// The oldest of `uncommitted` is with the sinks.
    committing: bool,
    retention: Retention,
    copies: BTreeMap<u64, Copy>,
    /// Decided savepoints whose output is not committed yet.
    to_store: BTreeMap<CheckpointId, (u64, Box<Manifest>)>,
    requests: VecDeque<SavepointRequest>,
    course: Course,
    /// Decided, and not necessarily committed.
    final_decided: bool,
    next_checkpoint: CheckpointId,
    /// Ids stay below this until another checkpoint is decided.
    ids_end: CheckpointId,
    failures: u32,
    now_ms: u64,
    next_periodic_ms: Option<u64>,
    next_final_ms: u64,
    ended_ms: Option<u64>,
    merges_due: bool,
    garbage_due: bool,
}

impl Coordinator {
    pub fn new(config: CoordinatorConfig) -> Self {
        let CoordinatorConfig { job, key_groups, spec, tasks, operators, restored, inherit_chains, next_checkpoint, now_ms } =
            config;
        assert!(!tasks.is_empty(), "BUG: the job {job} has no tasks");
        assert!(next_checkpoint > 0, "BUG: checkpoint ids start at 1");
        let mut chains = Chains::default();
        let (mut next_checkpoint, mut hole, mut retained) = (next_checkpoint, None, Vec::new());
        if let Some(restored) = restored {
            let checkpoint = restored.manifest.checkpoint;
            next_checkpoint = next_checkpoint.max(checkpoint + 1);
            if inherit_chains {
                for (name, manifest) in &restored.manifest.operators {
                    let Some(template) = operators.get(name) else { continue };
                    let parallelism = template.parallelism;
                    assert_eq!(manifest.parallelism, parallelism, "BUG: the chains of {name} were inherited across a rescale");
                    chains.inherit(name, &manifest.tasks, checkpoint);
                }
            } else {
                hole = Some(next_checkpoint - 1);
            }
            restored.manifest.segments().for_each(|segment| chains.know(&segment.path));
            restored.retained.iter().flat_map(CompletedCheckpoint::segments).for_each(|path| chains.know(path));
            retained = restored.retained;
        }
        let tasks: BTreeMap<_, _> = tasks.into_iter().map(|task| (task, Task { hole, ..Task::default() })).collect();
        Self {
            job,
            key_groups,
            operators,
            tasks,
            chains,
            ledger: Ledger::new(),
            pending: BTreeMap::new(),
            uncommitted: VecDeque::new(),
            decided: BTreeMap::new(),
            committing: false,
            retention: Retention::new(spec.retained, retained),
            copies: BTreeMap::new(),
            to_store: BTreeMap::new(),
            requests: VecDeque::new(),
            course: Course::Running,
            final_decided: false,
            next_checkpoint,
            ids_end: next_checkpoint.saturating_add(CHECKPOINTS_UNDECIDED_MAX),
            failures: 0,
            now_ms,
            next_periodic_ms: spec.interval_ms.map(|interval| now_ms.saturating_add(interval)),
            next_final_ms: now_ms,
            ended_ms: None,
            merges_due: true,
            garbage_due: false,
            spec,
        }
    }

    /// A fact and the time at which it is told.
    pub fn handle(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        self.now_ms = self.now_ms.max(now_ms);
        let mut orders = Vec::new();
        if self.is_over() {
            // The driver is told to end the job; what is still under way is for recovery to judge.
            if let Event::SavepointRequested { request, .. } = event {
                orders.push(Action::SavepointFailed { request, reason: format!("the job {} has ended", self.job) });
            }
            return orders;
        }
        match event {
            Event::Tick => {}
            Event::SavepointRequested { request, stop } => self.on_savepoint_requested(request, stop, &mut orders),
            Event::SuspendRequested => self.on_suspend_requested(&mut orders),
            Event::AllSourcesEnded => {
                // A stop with savepoint that is under way wins: the sources ended because they were told to.
                if self.course == Course::Running {
                    self.course = Course::Finishing;
                }
            }
            Event::TaskAcknowledged { checkpoint, task, snapshot } => {
                self.on_acknowledged(checkpoint, task, snapshot, &mut orders)
            }
            Event::TaskDeclined { checkpoint, task, reason } => {
                // Else it was aborted for another reason already.
                if self.pending.get(&checkpoint).is_some_and(Pending::can_be_aborted) {
                    self.abort(checkpoint, format!("task {task} declined: {reason}"), &mut orders);
                }
            }
            Event::PreCommitFailed { checkpoint, task, reason } => {
                self.fail(format!("task {task} could not pre-commit checkpoint {checkpoint}: {reason}"), false, &mut orders);
            }
            Event::ManifestWritten { checkpoint, pointer } => self.on_manifest_written(checkpoint, pointer, &mut orders),
            Event::ManifestFailed { checkpoint, reason } => {
                if self.pending.get(&checkpoint).is_some_and(Pending::can_be_aborted) {
                    self.abort(checkpoint, format!("the manifest could not be written: {reason}"), &mut orders);
                }
            }
            Event::Decided { checkpoint } => self.on_decided(checkpoint, &mut orders),
            Event::DecisionUnknown { checkpoint, reason } => {
                let reason = format!("whether checkpoint {checkpoint} was decided is unknown: {reason}");
                self.fail(reason, false, &mut orders);
            }
            Event::Fenced { by } => {
                self.fail(format!("the job {} was taken over by {by}", self.job), true, &mut orders);
            }
            Event::SinksCommitted { checkpoint } => self.on_sinks_committed(checkpoint, &mut orders),
            Event::CommitFailed { checkpoint, reason } => {
                let reason = format!("checkpoint {checkpoint} is decided, but its sinks did not commit: {reason}");
                self.fail(reason, false, &mut orders);
            }
            Event::SavepointStored { request, pointer } => {
                self.take_copy(request);
                orders.push(Action::SavepointCompleted { request, pointer });
            }
            Event::SavepointStoreFailed { request, reason } => {
                let copy = self.take_copy(request);
                orders.push(Action::SavepointFailed { request, reason: reason.clone() });
                if copy.stop {
                    self.fail(format!("the savepoint to stop with was not stored: {reason}"), false, &mut orders);
                }
            }
            Event::Merged { operator, task_index, replaced, by } => {
                self.chains.merged(operator, task_index, &replaced, by);
                (self.merges_due, self.garbage_due) = (true, true);
            }
            Event::MergeFailed { operator, task_index, .. } => {
                // Tried again after the next checkpoint, not at once: the store may be in trouble.
                self.chains.merge_failed(operator, task_index);
                self.garbage_due = true;
            }
        }
        self.go_on(&mut orders);
        orders
    }

    /// When to send [`Event::Tick`] at the latest. `None`: only facts can change anything.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        let timeouts = self.pending.values().filter(|pending| pending.can_be_aborted()).map(|pending| self.timeout_of(pending));
        timeouts.chain(self.periodic_due()).chain(self.final_due()).min()
    }

    /// Checkpoints that are under way, oldest first.
    pub fn pending(&self, now_ms: u64) -> Vec<CheckpointReport> {
        let pending = self.pending.values();
        pending.map(|pending| pending.report(CheckpointStatus::Pending, now_ms, self.tasks.len(), None)).collect()
    }

    /// Where the checkpoints under way stand, oldest first: until their output is visible.
    pub fn progress(&self) -> Vec<CheckpointProgress> {
        let pending = self.pending.values().map(|pending| CheckpointProgress {
            checkpoint: pending.checkpoint,
            kind: pending.kind,
            triggered_ms: pending.triggered_ms,
            phase: match pending.phase {
                Phase::Collecting => CheckpointPhase::Tasks,
                Phase::WritingManifest { .. } => CheckpointPhase::Manifest,
                Phase::Deciding { .. } => CheckpointPhase::Decision,
            },
            phase_since_ms: pending.phase_since_ms,
            missing: self.tasks.keys().copied().filter(|task| !pending.has_acknowledged(*task)).collect(),
        });
        self.decided.values().cloned().chain(pending).collect()
    }

    /// The job was told to stop, to finish or to fail: nothing is ordered any more.
    pub fn is_over(&self) -> bool {
        self.course == Course::Over
    }

    fn on_savepoint_requested(&mut self, request: u64, stop: Option<StopMode>, orders: &mut Vec<Action>) {
        let refusal = match self.course {
            Course::Stopping { .. } => Some(format!("the job {} is stopping with a savepoint", self.job)),
            Course::Finishing if self.final_decided || self.pending.values().any(|p| p.kind == CheckpointKind::Final) => {
                Some(format!("the job {} has read all its input and is finishing", self.job))
            }
            Course::Suspending { .. } => Some(format!("the host of the job {} goes down", self.job)),
            _ if self.requests.len() >= SAVEPOINT_REQUESTS_MAX => {
                Some(format!("{SAVEPOINT_REQUESTS_MAX} savepoint requests are waiting (SAVEPOINT_REQUESTS_MAX)"))
            }
            _ => None,
        };
        match refusal {
            Some(reason) => orders.push(Action::SavepointFailed { request, reason }),
            None => self.requests.push_back(SavepointRequest { request, stop }),
        }
    }

    /// A stop or an end that is under way brings a last checkpoint of its own.
    fn on_suspend_requested(&mut self, orders: &mut Vec<Action>) {
        if self.course != Course::Running {
            return;
        }
        self.trigger_with(CheckpointKind::Checkpoint, None, Some(StopMode { drain: false }), orders);
        if self.is_over() {
            return;
        }
        self.course = Course::Suspending { checkpoint: self.next_checkpoint - 1 };
        for SavepointRequest { request, .. } in std::mem::take(&mut self.requests) {
            orders.push(Action::SavepointFailed { request, reason: format!("the host of the job {} goes down", self.job) });
        }
    }

    fn on_acknowledged(&mut self, checkpoint: CheckpointId, id: TaskId, snapshot: TaskSnapshot, orders: &mut Vec<Action>) {
        let Some(task) = self.tasks.get(&id) else { panic!("BUG: {id} is no task of the job {}", self.job) };
        let newest = task.acknowledged;
        assert!(checkpoint > newest, "BUG: task {id} answered checkpoint {checkpoint} after {newest}");
        let late = task.awaiting.get(&checkpoint).copied();
        let full = late.or_else(|| self.pending.get(&checkpoint).map(|pending| pending.full));
        let Some(full) = full else { panic!("BUG: task {id} answered checkpoint {checkpoint}, which it was not asked for") };

        // Acknowledgements come in order: older ones that this task has not answered will never be answered.
        let older = self.pending.range(..checkpoint).filter(|(_, pending)| !pending.has_acknowledged(id));
        for skipped in older.map(|(skipped, _)| *skipped).collect::<Vec<_>>() {
            self.abort(skipped, format!("task {id} went on to checkpoint {checkpoint} without it"), orders);
        }
        if self.is_over() {
            return;
        }
        let task = self.tasks.get_mut(&id).expect("BUG: a task just seen");
        task.acknowledged = checkpoint;
        let after = task.awaiting.split_off(&checkpoint);
        let skipped = std::mem::replace(&mut task.awaiting, after);
        task.awaiting.remove(&checkpoint);
        task.hole = task.hole.max(skipped.last_key_value().map(|(id, _)| *id));

        let TaskSnapshot { sources, operators, sinks, in_flight, timing } = snapshot;
        if let Some(in_flight) = &in_flight {
            self.chains.know(&in_flight.segment.path);
        }
        let is_full = |segment: &Option<super::SegmentRef>| segment.as_ref().is_some_and(|segment| segment.full);
        if full || operators.iter().all(|operator| is_full(&operator.segment)) {
            task.hole = None;
        }
        let hole = task.hole;
        for super::OperatorSnapshot { operator, task_index, segment } in operators {
            let parallelism = self.operators.get(&operator).map(|template| template.parallelism);
            assert!(
                parallelism.is_some_and(|parallelism| task_index < parallelism),
                "BUG: task {id} has a snapshot of {operator}/{task_index}, which the job does not have"
            );
            assert!(!full || segment.is_none() || is_full(&segment), "BUG: {operator}/{task_index} answered full with a delta");
            match segment {
                Some(segment) if hole.is_some() => self.chains.know(&segment.path),
                segment => self.chains.append(&operator, task_index, checkpoint, segment, full),
            }
        }
        self.ledger.reported(checkpoint, id, sinks);
        if let Some(pending) = self.pending.get_mut(&checkpoint) {
            pending.acknowledge(id, timing, sources, in_flight);
            if let Some(hole) = hole {
                self.abort(checkpoint, format!("it builds on the part of task {id} in checkpoint {hole}, which is lost"), orders);
            }
        }
    }

    fn on_manifest_written(&mut self, checkpoint: CheckpointId, pointer: ManifestPointer, orders: &mut Vec<Action>) {
        let Some(pending) = self.pending.get_mut(&checkpoint) else {
            // It was aborted while the manifest was on its way: without a decision it means nothing.
            orders.push(Action::Delete { paths: vec![pointer.path] });
            return;
        };
        assert_eq!(pointer.checkpoint, checkpoint, "BUG: the manifest's pointer names another checkpoint");
        match std::mem::replace(&mut pending.phase, Phase::Collecting) {
            Phase::WritingManifest { manifest } => {
                pending.phase = Phase::Deciding { manifest, pointer: pointer.clone() };
                pending.phase_since_ms = self.now_ms;
                orders.push(Action::WriteDecision { checkpoint, pointer });
            }
            phase => panic!("BUG: a manifest of checkpoint {checkpoint} came in phase {phase:?}"),
        }
    }

    fn on_decided(&mut self, checkpoint: CheckpointId, orders: &mut Vec<Action>) {
        let oldest = self.pending.first_key_value().map(|(id, _)| *id);
        assert_eq!(oldest, Some(checkpoint), "BUG: checkpoint {checkpoint} was decided out of order");
        let pending = self.pending.remove(&checkpoint).expect("BUG: the oldest was just there");
        self.finish(&pending, CheckpointStatus::Completed, None, orders);
        let Pending { kind, savepoint, triggered_ms, phase: Phase::Deciding { manifest, pointer }, .. } = pending else {
            panic!("BUG: checkpoint {checkpoint} was decided before that was asked for");
        };
        let segments: BTreeSet<_> = manifest.segments().map(|segment| segment.path.clone()).collect();
        self.retention.push(CompletedCheckpoint::decided(pointer, segments.clone()));
        self.uncommitted.push_back(checkpoint);
        let progress = CheckpointProgress {
            checkpoint,
            kind,
            triggered_ms,
            phase: CheckpointPhase::SinkCommit,
            phase_since_ms: self.now_ms,
            missing: Vec::new(),
        };
        self.decided.insert(checkpoint, progress);
        self.ids_end = self.ids_end.max(checkpoint.saturating_add(1 + CHECKPOINTS_UNDECIDED_MAX));
        self.failures = 0;
        self.merges_due = true;
        self.final_decided |= kind == CheckpointKind::Final;
        // Before the copy: what readers wait for goes first.
        self.commit_next(orders);
        if let Some(SavepointRequest { request, stop }) = savepoint {
            // Its segments are kept from here on. It is stored when its output is visible: whoever starts from it counts on that.
            self.copies.insert(request, Copy { segments, stop: stop.is_some() });
            self.to_store.insert(checkpoint, (request, manifest));
        }
    }

    fn on_sinks_committed(&mut self, checkpoint: CheckpointId, orders: &mut Vec<Action>) {
        assert!(
            self.committing && self.uncommitted.front() == Some(&checkpoint),
            "BUG: commit of checkpoint {checkpoint} was reported, and {:?} is what was to be committed",
            self.uncommitted.front()
        );
        self.committing = false;
        self.uncommitted.pop_front();
        self.decided.remove(&checkpoint);
        self.ledger.confirmed(checkpoint);
        if let Some((request, manifest)) = self.to_store.remove(&checkpoint) {
            orders.push(Action::StoreSavepoint { request, checkpoint, manifest });
        }
        let paths = self.retention.retire(checkpoint);
        if let (false, Some(oldest)) = (paths.is_empty(), self.retention.oldest()) {
            // Decisions go before the manifests they point to.
            orders.push(Action::TrimLog { oldest });
            orders.push(Action::Delete { paths });
        }
        self.garbage_due = true;
    }

    fn take_copy(&mut self, request: u64) -> Copy {
        self.garbage_due = true;
        self.copies.remove(&request).unwrap_or_else(|| panic!("BUG: nobody asked to store the savepoint {request}"))
    }

    /// All that follows from where things stand, whatever the fact was.
    fn go_on(&mut self, orders: &mut Vec<Action>) {
        self.expire(orders);
        self.write_manifest(orders);
        self.commit_next(orders);
        self.end_where_due(orders);
        self.trigger_where_due(orders);
        if self.is_over() {
            return;
        }
        let settled = self.pending.first_key_value().map_or(CheckpointId::MAX, |(oldest, _)| oldest - 1);
        self.chains.settle(settled);
        if std::mem::take(&mut self.merges_due) {
            for MergeOrder { operator, task_index, segments, to_full } in self.chains.plan_merges(settled) {
                orders.push(Action::Merge { operator, task_index, segments, to_full });
            }
        }
        if std::mem::take(&mut self.garbage_due) {
            let mut needed: BTreeSet<String> = self.retention.segments().map(str::to_owned).collect();
            needed.extend(self.pending.values().flat_map(Pending::segments));
            needed.extend(self.copies.values().flat_map(|copy| copy.segments.iter().cloned()));
            let paths = self.chains.take_garbage(&needed);
            if !paths.is_empty() {
                orders.push(Action::Delete { paths });
            }
        }
    }

    fn expire(&mut self, orders: &mut Vec<Action>) {
        let late = self.pending.values().filter(|pending| pending.can_be_aborted() && self.timeout_of(pending) <= self.now_ms);
        for checkpoint in late.map(|pending| pending.checkpoint).collect::<Vec<_>>() {
            // An abort may end the job, and with it the rest.
            if let Some(pending) = self.pending.get(&checkpoint) {
                let (done, all, timeout) = (pending.acknowledged(), self.tasks.len(), self.spec.timeout_ms);
                let reason =
                    format!("not completed within {timeout} ms (checkpoint.timeout); {done} of {all} tasks had answered");
                self.abort(checkpoint, reason, orders);
            }
        }
    }

    fn write_manifest(&mut self, orders: &mut Vec<Action>) {
        let Some((&checkpoint, pending)) = self.pending.first_key_value() else { return };
        if pending.acknowledged() < self.tasks.len() || !matches!(pending.phase, Phase::Collecting) {
            return;
        }
        let mut operators = self.operators.clone();
        for (name, operator) in &mut operators {
            let chain = |index| self.chains.as_of(name, index, checkpoint);
            operator.tasks = (0..operator.parallelism).map(chain).collect();
        }
        let in_flight = pending.in_flight();
        let manifest = Box::new(Manifest {
            format: if in_flight.is_empty() { MANIFEST_FORMAT_ALIGNED } else { MANIFEST_FORMAT },
            job: self.job.clone(),
            checkpoint,
            kind: pending.kind,
            key_groups: self.key_groups,
            operators,
            sources: pending.positions(),
            sinks: self.ledger.name_up_to(checkpoint),
            in_flight,
            end_of_input: pending.end_of_input,
            time_ms: self.now_ms,
        });
        let pending = self.pending.get_mut(&checkpoint).expect("BUG: a checkpoint just seen");
        pending.phase = Phase::WritingManifest { manifest: manifest.clone() };
        pending.phase_since_ms = self.now_ms;
        orders.push(Action::WriteManifest { checkpoint, manifest });
    }

    fn commit_next(&mut self, orders: &mut Vec<Action>) {
        let Some(&checkpoint) = self.uncommitted.front() else { return };
        if self.committing || self.is_over() {
            return;
        }
        self.committing = true;
        let completed = self.retention.get(checkpoint).expect("BUG: a checkpoint was let go before it was committed");
        orders.push(Action::CommitSinks { permit: completed.permit(self.ledger.unconfirmed_up_to(checkpoint)) });
    }

    fn end_where_due(&mut self, orders: &mut Vec<Action>) {
        if !self.uncommitted.is_empty() || !self.copies.is_empty() {
            return;
        }
        match self.course {
            Course::Stopping { request, checkpoint } if !self.pending.contains_key(&checkpoint) => {
                orders.push(Action::StopJob { request });
                self.course = Course::Over;
            }
            Course::Suspending { checkpoint } if !self.pending.contains_key(&checkpoint) => {
                orders.push(Action::SuspendJob { last: Suspended::At(checkpoint) });
                self.course = Course::Over;
            }
            Course::Finishing if self.final_decided => {
                orders.push(Action::FinishJob);
                self.course = Course::Over;
            }
            Course::Running | Course::Stopping { .. } | Course::Suspending { .. } | Course::Finishing | Course::Over => {}
        }
    }

    fn trigger_where_due(&mut self, orders: &mut Vec<Action>) {
        if matches!(self.course, Course::Stopping { .. } | Course::Suspending { .. } | Course::Over) || self.final_decided {
            return;
        }
        // Barriers that overtake must not meet others on their way, so with them a savepoint waits for its turn.
        let waits =
            |pending: &Pending| self.spec.unaligned || pending.savepoint.is_some() || pending.kind == CheckpointKind::Final;
        let is_free = !self.pending.values().any(waits);
        if let Some(next) = self.requests.front().copied().filter(|_| is_free) {
            self.requests.pop_front();
            self.trigger(CheckpointKind::Savepoint, Some(next), orders);
        } else if self.final_due().is_some_and(|due| due <= self.now_ms) {
            self.trigger(CheckpointKind::Final, None, orders);
        } else if self.periodic_due().is_some_and(|due| due <= self.now_ms) {
            self.next_periodic_ms = self.spec.interval_ms.map(|interval| self.now_ms.saturating_add(interval));
            self.trigger(CheckpointKind::Checkpoint, None, orders);
        }
    }

    fn trigger(&mut self, kind: CheckpointKind, savepoint: Option<SavepointRequest>, orders: &mut Vec<Action>) {
        self.trigger_with(kind, savepoint, savepoint.and_then(|savepoint| savepoint.stop), orders);
    }

    fn trigger_with(
        &mut self,
        kind: CheckpointKind,
        savepoint: Option<SavepointRequest>,
        stop: Option<StopMode>,
        orders: &mut Vec<Action>,
    ) {
        let checkpoint = self.next_checkpoint;
        if checkpoint >= self.ids_end {
            if let Some(SavepointRequest { request, .. }) = savepoint {
                let reason = "too many checkpoints were aborted in a row".to_owned();
                orders.push(Action::SavepointFailed { request, reason });
            }
            let reason = format!("{CHECKPOINTS_UNDECIDED_MAX} checkpoints in a row were aborted (CHECKPOINTS_UNDECIDED_MAX)");
            return self.fail(reason, false, orders);
        }
        self.next_checkpoint += 1;
        let covered = self.pending.values().rfind(|pending| pending.full).map(|pending| pending.checkpoint);
        let missing = self.tasks.values().filter_map(Task::missing).max();
        let mut pending = Pending::new(checkpoint, kind, missing.is_some() && missing > covered, self.now_ms);
        pending.savepoint = savepoint;
        pending.end_of_input = self.course == Course::Finishing;
        let full = pending.full;
        self.pending.insert(checkpoint, pending);
        orders.push(Action::Trigger { checkpoint, kind, full, stop });
        if let Some(SavepointRequest { request, stop: Some(_) }) = savepoint {
            self.course = Course::Stopping { request, checkpoint };
            for SavepointRequest { request, .. } in std::mem::take(&mut self.requests) {
                let reason = format!("the job {} is stopping with a savepoint", self.job);
                orders.push(Action::SavepointFailed { request, reason });
            }
        }
    }

    fn abort(&mut self, checkpoint: CheckpointId, reason: String, orders: &mut Vec<Action>) {
        let pending = self.pending.remove(&checkpoint).expect("BUG: only pending checkpoints are aborted");
        assert!(pending.can_be_aborted(), "BUG: checkpoint {checkpoint} was aborted while its decision was being written");
        for (id, task) in self.tasks.iter_mut().filter(|(id, _)| !pending.has_acknowledged(**id)) {
            assert!(task.acknowledged < checkpoint, "BUG: task {id} skipped checkpoint {checkpoint} and nobody noticed");
            task.awaiting.insert(checkpoint, pending.full);
        }
        orders.push(Action::AbortCheckpoint { checkpoint, reason: reason.clone() });
        self.finish(&pending, CheckpointStatus::Aborted, Some(reason.clone()), orders);
        self.next_final_ms = self.now_ms.saturating_add(self.spec.interval_ms.unwrap_or(FINAL_RETRY_MS));
        if self.course == (Course::Suspending { checkpoint }) {
            // The sources have stopped, and the host goes down: there is nothing to try again.
            self.course = Course::Over;
            orders.push(Action::SuspendJob { last: Suspended::Without { reason } });
            return;
        }
        match pending.savepoint {
            Some(SavepointRequest { request, stop }) => {
                orders.push(Action::SavepointFailed { request, reason: reason.clone() });
                if stop.is_some() {
                    self.fail(format!("the savepoint to stop with failed: {reason}"), false, orders);
                }
            }
            None => {
                self.failures += 1;
                let tolerable = self.spec.tolerable_failures;
                if self.failures > tolerable {
                    let reason = format!(
                        "{} checkpoints failed in a row, {tolerable} are tolerated (checkpoint.tolerable_failures); the last: {reason}",
                        self.failures
                    );
                    self.fail(reason, false, orders);
                }
            }
        }
    }

    /// Ends the job: nothing else is ordered after this.
    fn fail(&mut self, reason: String, fatal: bool, orders: &mut Vec<Action>) {
        if self.is_over() {
            return;
        }
        self.course = Course::Over;
        for pending in std::mem::take(&mut self.pending).into_values() {
            let why = match pending.phase {
                Phase::Deciding { .. } => "the job ended before the decision was known",
                Phase::Collecting | Phase::WritingManifest { .. } => "the job ended",
            };
            self.finish(&pending, CheckpointStatus::Aborted, Some(format!("{why}: {reason}")), orders);
            self.requests.extend(pending.savepoint);
        }
        let open = self.copies.keys().copied().chain(self.requests.iter().map(|request| request.request));
        orders.extend(open.map(|request| Action::SavepointFailed { request, reason: reason.clone() }));
        orders.push(Action::FailJob { reason, fatal });
    }

    fn finish(&mut self, pending: &Pending, status: CheckpointStatus, reason: Option<String>, orders: &mut Vec<Action>) {
        self.ended_ms = Some(self.now_ms);
        orders.push(Action::Report(pending.report(status, self.now_ms, self.tasks.len(), reason)));
    }

    fn timeout_of(&self, pending: &Pending) -> u64 {
        pending.triggered_ms.saturating_add(self.spec.timeout_ms)
    }

    fn periodic_due(&self) -> Option<u64> {
        let concurrent = self.spec.max_concurrent.max(1) as usize;
        if self.course != Course::Running || self.pending.len() >= concurrent || self.uncommitted.len() > concurrent {
            return None;
        }
        let pause_ends = self.ended_ms.map_or(0, |ended| ended.saturating_add(self.spec.min_pause_ms));
        self.next_periodic_ms.map(|due| due.max(pause_ends))
    }

    /// After everything that was asked for before.
    fn final_due(&self) -> Option<u64> {
        let is_due =
            self.course == Course::Finishing && !self.final_decided && self.pending.is_empty() && self.requests.is_empty();
        is_due.then_some(self.next_final_ms)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
