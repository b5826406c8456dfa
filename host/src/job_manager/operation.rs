//! What takes its time, seen from outside: a resource that is running, then completed or failed.
//!
//! Invariants:
//! * every operation ends, even when what carries it out panics;
//! * an id is one operation: a caller whose answer was lost asks again with the same id and starts nothing twice;
//! * a job remembers a bounded number of them, and never forgets one that is running.

use super::error::ManagerError;
use crate::api::{EventBody, OperationKind, OperationState, OperationView, SavepointInfo, now_ms};
use crate::durable_file::unique_id;
use crate::journal::Journal;
use crate::module_store::{NAME_RULE, is_name};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_core::problem::Problem;
use tokio::sync::watch;

/// Of one job, ended ones included: enough for any caller to come back for its answer.
const OPERATIONS_KEPT_MAX: usize = 100;
/// Of one job. Every savepoint that is under way copies all state.
const OPERATIONS_RUNNING_MAX: usize = 8;

#[derive(Default)]
pub struct Operations {
    all: Mutex<VecDeque<watch::Sender<OperationView>>>,
    journal: Arc<Journal>,
}

/// Asked for now, or before under the same id.
pub enum Begun {
    New(Running),
    Known(Waiter),
}

/// The right to end an operation. Dropped without that, the operation has failed.
pub struct Running {
    sender: watch::Sender<OperationView>,
    journal: Arc<Journal>,
    ended: bool,
}

/// The right to look at it.
pub struct Waiter(watch::Receiver<OperationView>);

impl Operations {
    pub fn new(journal: Arc<Journal>) -> Self {
        Self { all: Mutex::default(), journal }
    }

    pub fn begin(&self, job: &str, kind: OperationKind, id: Option<String>) -> Result<Begun, ManagerError> {
        let attempted = || format!("begin an operation of the job `{job}`");
        if let Some(id) = id.as_ref().filter(|id| !is_name(id)) {
            let problem = Problem::new("operation", Some(id.chars().take(80).collect()), format!("must be {NAME_RULE}"));
            return Err(ManagerError::Invalid { attempted: attempted(), problems: vec![problem] });
        }
        let mut all = self.lock();
        if let Some(known) = all.iter().find(|operation| id.as_ref().is_some_and(|id| operation.borrow().id == *id)) {
            let known_kind = known.borrow().kind;
            if known_kind != kind {
                return Err(ManagerError::Conflict {
                    attempted: attempted(),
                    cause: format!("the id `{}` was used for another kind of operation", known.borrow().id),
                    remedy: "choose another id, or none".into(),
                });
            }
            return Ok(Begun::Known(Waiter(known.subscribe())));
        }
        let stops = |kind| matches!(kind, OperationKind::Stop | OperationKind::StopWithSavepoint);
        let running = |operation: &watch::Sender<OperationView>| operation.borrow().state == OperationState::Running;
        if stops(kind)
            && let Some(other) = all.iter().find(|operation| running(operation) && stops(operation.borrow().kind))
        {
            if other.borrow().kind == kind {
                // The wish is on its way to be fulfilled.
                return Ok(Begun::Known(Waiter(other.subscribe())));
            }
            // A plain stop overtakes a stop with a savepoint that takes too long; the other way round there is nothing to save.
            if kind == OperationKind::StopWithSavepoint {
                return Err(ManagerError::Conflict {
                    attempted: attempted(),
                    cause: "the job is being stopped without a savepoint".into(),
                    remedy: "start it again to take one".into(),
                });
            }
        }
        if kind == OperationKind::Savepoint && all.iter().filter(|o| running(o)).count() >= OPERATIONS_RUNNING_MAX {
            return Err(ManagerError::Conflict {
                attempted: attempted(),
                cause: format!("{OPERATIONS_RUNNING_MAX} operations are running (operations_running_max)"),
                remedy: "wait for one of them to end".into(),
            });
        }
        while all.len() >= OPERATIONS_KEPT_MAX {
            match all.iter().position(|operation| !running(operation)) {
                Some(oldest) => all.remove(oldest),
                None => break,
            };
        }
        let sender = watch::Sender::new(OperationView {
            id: id.unwrap_or_else(unique_id),
            job: job.to_owned(),
            kind,
            state: OperationState::Running,
            started_ms: now_ms(),
            finished_ms: None,
            savepoint: None,
            problem: None,
        });
        all.push_back(sender.clone());
        self.journal.record(EventBody::Operation { operation: sender.borrow().clone() });
        Ok(Begun::New(Running { sender, journal: self.journal.clone(), ended: false }))
    }

    pub fn find(&self, id: &str) -> Option<Waiter> {
        self.lock().iter().find(|operation| operation.borrow().id == id).map(|operation| Waiter(operation.subscribe()))
    }

    /// Newest last.
    pub fn list(&self) -> Vec<OperationView> {
        self.lock().iter().map(|operation| operation.borrow().clone()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<watch::Sender<OperationView>>> {
        self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Running {
    pub fn waiter(&self) -> Waiter {
        Waiter(self.sender.subscribe())
    }

    pub fn end(mut self, result: Result<Option<SavepointInfo>, ManagerError>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<Option<SavepointInfo>, ManagerError>) {
        self.ended = true;
        self.sender.send_modify(|view| {
            view.finished_ms = Some(now_ms());
            match result {
                Ok(savepoint) => {
                    view.state = OperationState::Completed;
                    view.savepoint = savepoint;
                }
                Err(error) => {
                    view.state = OperationState::Failed;
                    view.problem = Some(error.problem());
                }
            }
        });
        self.journal.record(EventBody::Operation { operation: self.sender.borrow().clone() });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let error =
                ManagerError::Bug { attempted: "carry out the operation".into(), cause: "it was given up halfway".into() };
            self.finish(Err(error));
        }
    }
}

impl Waiter {
    pub fn view(&self) -> OperationView {
        self.0.borrow().clone()
    }

    /// As it stands when it has ended, or when the time is up.
    pub async fn wait(mut self, at_most: Duration) -> OperationView {
        let ended = self.0.wait_for(|view| view.state != OperationState::Running);
        if let Ok(Ok(view)) = tokio::time::timeout(at_most, ended).await {
            return view.clone();
        }
        self.view()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(operations: &Operations, kind: OperationKind, id: Option<&str>) -> Result<Running, Option<ManagerError>> {
        match operations.begin("j", kind, id.map(str::to_owned)) {
            Ok(Begun::New(running)) => Ok(running),
            Ok(Begun::Known(_)) => Err(None),
            Err(error) => Err(Some(error)),
        }
    }

    #[test]
    fn the_same_id_is_the_same_operation() {
        let operations = Operations::default();
        let running = begin(&operations, OperationKind::Savepoint, Some("a")).unwrap_or_else(|_| panic!());
        assert!(matches!(begin(&operations, OperationKind::Savepoint, Some("a")), Err(None)));
        running.end(Ok(None));
        assert!(matches!(begin(&operations, OperationKind::Savepoint, Some("a")), Err(None)));
        assert!(matches!(begin(&operations, OperationKind::Stop, Some("a")), Err(Some(ManagerError::Conflict { .. }))));
        assert!(matches!(begin(&operations, OperationKind::Stop, Some("../a")), Err(Some(ManagerError::Invalid { .. }))));
        assert_eq!(operations.list().len(), 1);
    }

    #[test]
    fn an_operation_that_is_given_up_has_failed() {
        let operations = Operations::default();
        drop(begin(&operations, OperationKind::Savepoint, Some("a")));
        assert_eq!(operations.find("a").unwrap().view().state, OperationState::Failed);
    }

    #[test]
    fn running_operations_are_bounded_and_never_forgotten() {
        let operations = Operations::default();
        let running: Vec<_> =
            (0..OPERATIONS_RUNNING_MAX).map_while(|_| begin(&operations, OperationKind::Savepoint, None).ok()).collect();
        assert_eq!(running.len(), OPERATIONS_RUNNING_MAX);
        assert!(matches!(begin(&operations, OperationKind::Savepoint, None), Err(Some(ManagerError::Conflict { .. }))));
        let first = running[0].waiter().view().id;
        let mut running = running;
        running.truncate(1);
        for _ in 0..2 * OPERATIONS_KEPT_MAX {
            begin(&operations, OperationKind::Savepoint, None).unwrap_or_else(|_| panic!()).end(Ok(None));
        }
        assert_eq!(operations.list().len(), OPERATIONS_KEPT_MAX);
        assert_eq!(operations.find(&first).unwrap().view().state, OperationState::Running);
    }

    #[test]
    fn a_stop_joins_a_stop_and_overtakes_one_with_a_savepoint() {
        let operations = Operations::default();
        let with = begin(&operations, OperationKind::StopWithSavepoint, None).unwrap_or_else(|_| panic!());
        assert!(matches!(begin(&operations, OperationKind::StopWithSavepoint, None), Err(None)));
        let plain = begin(&operations, OperationKind::Stop, None).unwrap_or_else(|_| panic!());
        with.end(Ok(None));
        assert!(matches!(begin(&operations, OperationKind::StopWithSavepoint, None), Err(Some(ManagerError::Conflict { .. }))));
        plain.end(Ok(None));
    }
}
