//! Puts together what became of each checkpoint, from the facts and orders that pass through the job's driver.
//!
//! Invariant: a trace is given out once, when its checkpoint is committed, aborted, or left behind by the end of the attempt.

use super::send;
use std::collections::{BTreeMap, HashMap};
use tidegate_core::checkpoint::{Action, CheckpointId, CheckpointKind, Event, TaskId, TaskTiming};

/// Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub job: String,
    pub checkpoint: CheckpointId,
    pub kind: CheckpointKind,
    pub full: bool,
    pub bytes: u64,
    pub begin_us: u64,
    pub end_us: u64,
    /// Why it was given up.
    pub error: Option<String>,
    pub phases: Vec<Phase>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    pub name: &'static str,
    pub task: Option<String>,
    pub begin_us: u64,
    pub end_us: u64,
}

/// The checkpoints of one attempt that are under way.
pub struct CheckpointTraces {
    job: String,
    names: HashMap<TaskId, String>,
    open: BTreeMap<CheckpointId, Open>,
    give: fn(Trace),
}

struct Open {
    trace: Trace,
    /// The step of the host that is under way, and since when.
    step: Option<(&'static str, u64)>,
}

impl CheckpointTraces {
    /// `None` where nobody collects traces.
    pub fn begin(job: &str, names: impl Iterator<Item = (TaskId, String)>) -> Option<Self> {
        super::is_on().then(|| Self { job: job.to_owned(), names: names.collect(), open: BTreeMap::new(), give: send })
    }

    pub fn heard(&mut self, event: &Event, now_ms: u64) {
        let now_us = now_ms * 1000;
        match event {
            Event::TaskAcknowledged { checkpoint, task, snapshot } => {
                self.acknowledged(*checkpoint, *task, snapshot.timing, now_us)
            }
            Event::ManifestWritten { checkpoint, .. } | Event::Decided { checkpoint } => self.step_ends(*checkpoint, now_us),
            Event::SinksCommitted { checkpoint } => {
                self.step_ends(*checkpoint, now_us);
                self.end(*checkpoint, now_us, None);
            }
            _ => {}
        }
    }

    pub fn ordered(&mut self, action: &Action, now_ms: u64) {
        let now_us = now_ms * 1000;
        match action {
            Action::Trigger { checkpoint, kind, full, .. } => {
                let trace = Trace {
                    job: self.job.clone(),
                    checkpoint: *checkpoint,
                    kind: *kind,
                    full: *full,
                    bytes: 0,
                    begin_us: now_us,
                    end_us: now_us,
                    error: None,
                    phases: Vec::new(),
                };
                self.open.insert(*checkpoint, Open { trace, step: None });
            }
            Action::WriteManifest { checkpoint, .. } => self.step_begins(*checkpoint, "manifest", now_us),
            Action::WriteDecision { checkpoint, .. } => self.step_begins(*checkpoint, "decision", now_us),
            Action::CommitSinks { permit } => self.step_begins(permit.checkpoint(), "sink commit", now_us),
            Action::AbortCheckpoint { checkpoint, reason } => self.end(*checkpoint, now_us, Some(reason.clone())),
            _ => {}
        }
    }

    /// The attempt is over: what is still under way will not be finished by it.
    pub fn abandon(&mut self, now_ms: u64) {
        for checkpoint in self.open.keys().copied().collect::<Vec<_>>() {
            self.end(checkpoint, now_ms * 1000, Some("the attempt ended".to_owned()));
        }
    }

    /// What a task has measured, laid out backwards from its answer.
    fn acknowledged(&mut self, checkpoint: CheckpointId, task: TaskId, timing: TaskTiming, now_us: u64) {
        let name = self.names.get(&task).cloned().unwrap_or_else(|| task.to_string());
        let Some(Open { trace, .. }) = self.open.get_mut(&checkpoint) else { return };
        trace.bytes += timing.bytes;
        let mut end_us = now_us;
        for (phase, took_us) in [("async", timing.async_us), ("sync", timing.sync_us), ("align", timing.alignment_us)] {
            let begin_us = end_us.saturating_sub(took_us);
            if took_us > 0 {
                trace.phases.push(Phase { name: phase, task: Some(name.clone()), begin_us, end_us });
            }
            end_us = begin_us;
        }
    }

    fn step_begins(&mut self, checkpoint: CheckpointId, step: &'static str, now_us: u64) {
        if let Some(open) = self.open.get_mut(&checkpoint) {
            open.step = Some((step, now_us));
        }
    }

    fn step_ends(&mut self, checkpoint: CheckpointId, now_us: u64) {
        let Some(open) = self.open.get_mut(&checkpoint) else { return };
        if let Some((name, begin_us)) = open.step.take() {
            open.trace.phases.push(Phase { name, task: None, begin_us, end_us: now_us });
        }
    }

    fn end(&mut self, checkpoint: CheckpointId, now_us: u64, error: Option<String>) {
        let Some(Open { mut trace, .. }) = self.open.remove(&checkpoint) else { return };
        (trace.end_us, trace.error) = (now_us, error);
        (self.give)(trace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use tidegate_core::checkpoint::TaskSnapshot;

    thread_local! {
        static GIVEN: RefCell<Vec<Trace>> = const { RefCell::new(Vec::new()) };
    }

    fn traces() -> CheckpointTraces {
        let give = |trace| GIVEN.with_borrow_mut(|given| given.push(trace));
        let names = [(TaskId { vertex: 0, index: 1 }, "delays[1]".to_owned())].into();
        CheckpointTraces { job: "flights".into(), names, open: BTreeMap::new(), give }
    }

    fn trigger(checkpoint: CheckpointId) -> Action {
        Action::Trigger { checkpoint, kind: CheckpointKind::Checkpoint, full: false, stop: None }
    }

    #[test]
    fn a_checkpoint_is_given_out_once_with_what_each_task_measured() {
        let mut traces = traces();
        traces.ordered(&trigger(7), 1000);
        let timing = TaskTiming { alignment_us: 400, sync_us: 50, async_us: 3000, bytes: 11, ..TaskTiming::default() };
        let snapshot = TaskSnapshot { timing, ..TaskSnapshot::default() };
        traces.heard(&Event::TaskAcknowledged { checkpoint: 7, task: TaskId { vertex: 0, index: 1 }, snapshot }, 1010);
        traces.heard(&Event::SinksCommitted { checkpoint: 7 }, 1020);
        traces.heard(&Event::SinksCommitted { checkpoint: 7 }, 1030);
        traces.abandon(1040);
        let given = GIVEN.with_borrow_mut(std::mem::take);
        assert_eq!(given.len(), 1);
        let phase = |name, begin_us, end_us| Phase { name, task: Some("delays[1]".into()), begin_us, end_us };
        assert_eq!(
            given[0].phases,
            [phase("async", 1_007_000, 1_010_000), phase("sync", 1_006_950, 1_007_000), phase("align", 1_006_550, 1_006_950)]
        );
        assert_eq!((given[0].begin_us, given[0].end_us, given[0].bytes), (1_000_000, 1_020_000, 11));
    }

    #[test]
    fn what_is_aborted_or_left_behind_says_why() {
        let mut traces = traces();
        traces.ordered(&trigger(1), 0);
        traces.ordered(&trigger(2), 5);
        traces.ordered(&Action::AbortCheckpoint { checkpoint: 1, reason: "too late".into() }, 9);
        traces.abandon(10);
        let given = GIVEN.with_borrow_mut(std::mem::take);
        let errors: Vec<_> = given.iter().map(|it| (it.checkpoint, it.error.as_deref())).collect();
        assert_eq!(errors, [(1, Some("too late")), (2, Some("the attempt ended"))]);
    }
}
