//! Carries out what the checkpoint coordinator orders, and reports to it what came of it. No policy in here.
//!
//! ```text
//!   tasks ──reports──┐                        ┌──► gates (trigger, abort)
//!   store, sinks ────┼─► coordinator ─orders──┼──► store (manifest, decision, delete, merge), sinks (commit)
//!   people ──────────┘                        └──► people (savepoints, reports)
//! ```
//!
//! Invariants:
//! * events are handed over one at a time, orders are started in their order;
//! * the attempt ends with everything it started: no thread, no write of it goes on when `run` has returned.

use super::attempt::Attempt;
use super::restore::Sinks;
use super::status::JobShared;
use super::{Clock, Command, SavepointReply};
use crate::checkpoint_store::{AppendError, CheckpointStore, DecisionLog};
use crate::fault::{self, Fault};
use crate::task::gate::Gate;
use crate::task::snapshot::{explain, put_segment};
use crate::task::{Barrier, Control, Report, TaskError, monotonic_us};
use crate::traces::checkpoint::CheckpointTraces;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::checkpoint::{
    Action, CheckpointId, CommitPermit, Coordinator, Event, ManifestPointer, SegmentRef, StopMode, Suspended, TaskId,
};
use tidegate_core::job_state::JobEvent;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// Why an attempt is over.
#[derive(Debug)]
pub enum End {
    Finished,
    /// By a stop with a savepoint.
    Stopped,
    Cancelled,
    Failed {
        reason: String,
        fatal: bool,
    },
}

/// What nothing needs any more.
enum CleanUp {
    Trim(CheckpointId),
    Delete(Vec<String>),
}

/// What an asynchronous order came to.
enum Done {
    Event(Event),
    /// Orders whose outcome the coordinator does not wait for.
    Nothing,
}

/// A savepoint that somebody waits for.
struct Asked {
    stop: Option<StopMode>,
    reply: SavepointReply,
}

pub struct Drive<'a> {
    attempt: &'a mut Attempt,
    /// One decision at a time; the lock is for the compiler, the coordinator sees to the order.
    log: Arc<Mutex<DecisionLog>>,
    coordinator: Coordinator,
    /// Of this incarnation.
    first_checkpoint: CheckpointId,
    shared: &'a JobShared,
    commands: &'a mut mpsc::UnboundedReceiver<Command>,
    io: JoinSet<Done>,
    /// Goes on in the order of the orders: what is deleted must have gone from the log before.
    clean_ups: mpsc::UnboundedSender<CleanUp>,
    clock: Clock,
    running: BTreeSet<TaskId>,
    sources_ended: BTreeSet<TaskId>,
    savepoints: HashMap<u64, Asked>,
    /// Asked for before all tasks ran: there is nobody yet to inject barriers.
    early: Vec<Asked>,
    next_request: u64,
    /// The host goes down: whatever fails now is for the next one to begin again.
    suspending: bool,
    /// Where somebody collects them.
    traces: Option<CheckpointTraces>,
    end: Option<End>,
}

impl<'a> Drive<'a> {
    pub fn new(
        attempt: &'a mut Attempt,
        log: DecisionLog,
        coordinator: Coordinator,
        first_checkpoint: CheckpointId,
        shared: &'a JobShared,
        commands: &'a mut mpsc::UnboundedReceiver<Command>,
        clock: Clock,
    ) -> Self {
        let log = Arc::new(Mutex::new(log));
        let (clean_ups, orders) = mpsc::unbounded_channel();
        let mut io = JoinSet::new();
        io.spawn(clean_up(attempt.store.clone(), Arc::clone(&log), orders));
        let names = attempt.views.iter().map(|view| (view.id, view.name.clone()));
        let traces = CheckpointTraces::begin(&attempt.job, names);
        Self {
            attempt,
            log,
            coordinator,
            first_checkpoint,
            shared,
            commands,
            io,
            clean_ups,
            clock,
            running: BTreeSet::new(),
            sources_ended: BTreeSet::new(),
            savepoints: HashMap::new(),
            early: Vec::new(),
            next_request: 1,
            suspending: false,
            traces,
            end: None,
        }
    }

    /// Until the attempt is over. All tasks have ended then.
    pub async fn run(mut self) -> End {
        while self.end.is_none() {
            let tick = self.tick_at();
            tokio::select! {
                report = self.attempt.reports.recv() => match report {
                    Some(report) => self.report(report),
                    None => self.fail("all tasks are gone".to_owned(), false),
                },
                Some(done) = self.io.join_next() => match done {
                    Ok(Done::Event(event)) => {
                        if let Event::SinksCommitted { checkpoint } = &event {
                            self.tell_sources(Control::CheckpointCommitted(*checkpoint));
                        }
                        self.event(event);
                    }
                    Ok(Done::Nothing) => {}
                    Err(panicked) => self.fail(format!("an order of the checkpoint coordinator panicked: {panicked}"), false),
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    // Nobody can ask for anything any more: the host goes down.
                    None => self.end = Some(End::Cancelled),
                },
                () = tokio::time::sleep_until(tick) => self.event(Event::Tick),
            }
        }
        let end = self.end.take().expect("BUG: the loop ended without a reason");
        // Told before the tasks are taken down, which may last as long as a guest's deadline.
        match &end {
            End::Finished | End::Stopped => {}
            End::Cancelled => self.shared.event(JobEvent::CancelRequested),
            End::Failed { reason, .. } => self.shared.failed(reason),
        }
        self.tear_down().await;
        let now_ms = self.now_ms();
        if let Some(traces) = &mut self.traces {
            traces.abandon(now_ms);
        }
        for asked in self.savepoints.into_values().chain(self.early) {
            let _ = asked.reply.send(Err(format!("the job ended before the savepoint was complete: {end:?}")));
        }
        end
    }

    async fn tear_down(&mut self) {
        self.attempt.close();
        // The clean-up ends when it has done what was ordered.
        let _ = std::mem::replace(&mut self.clean_ups, mpsc::unbounded_channel().0);
        // What is being written is waited for: the next attempt must not meet it half way. A hanging disk holds us no longer than this.
        let io = &mut self.io;
        let drained = tokio::time::timeout(Duration::from_secs(30), async { while io.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(job = %self.attempt.job, "store or sink calls did not return within 30 s and are left behind");
        }
        self.attempt.join().await;
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn tick_at(&self) -> tokio::time::Instant {
        let far = Duration::from_secs(3600);
        let wait =
            self.coordinator.next_deadline().map_or(far, |at| Duration::from_millis(at.saturating_sub(self.now_ms())).min(far));
        tokio::time::Instant::now() + wait
    }

    fn fail(&mut self, reason: String, fatal: bool) {
        if self.suspending && self.end.is_none() {
            tracing::warn!(job = %self.attempt.job, %reason, "the job failed while its host goes down: it comes back with the next one");
            self.end = Some(End::Cancelled);
        }
        self.end.get_or_insert(End::Failed { reason, fatal });
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Running { task } => {
                self.running.insert(task);
                if self.is_running() {
                    self.shared.running();
                    // From here on triggers make sense.
                    self.event(Event::Tick);
                    for asked in std::mem::take(&mut self.early) {
                        self.savepoint(asked);
                    }
                }
            }
            Report::SourceEnded { task } => {
                self.sources_ended.insert(task);
                if self.sources_ended.len() == self.attempt.sources.len() {
                    self.event(Event::AllSourcesEnded);
                }
            }
            Report::Acknowledged { checkpoint, task, snapshot } => {
                self.shared.stall(snapshot.timing.sync_us);
                self.event(Event::TaskAcknowledged { checkpoint, task, snapshot });
            }
            Report::Declined { checkpoint, task, reason } => self.event(Event::TaskDeclined { checkpoint, task, reason }),
            Report::PreCommitFailed { checkpoint, task, reason } => {
                self.event(Event::PreCommitFailed { checkpoint, task, reason })
            }
            Report::Failed { task: _, error: TaskError::Closed } => {}
            Report::Failed { task, error } => {
                let fatal = matches!(error, TaskError::Fatal(_));
                let name = self.attempt.task_name(task);
                self.fail(format!("task {name}: {error}"), fatal);
            }
            Report::Ended { task } => {
                let name = self.attempt.task_name(task);
                self.fail(format!("task {name} ended by itself"), false);
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Cancel => self.end = Some(End::Cancelled),
            Command::Replay(known) => broadcast(&self.attempt.gates, Control::Replay(known)),
            Command::Savepoint { stop, reply } if self.is_running() => self.savepoint(Asked { stop, reply }),
            // There is nothing yet that a checkpoint would save.
            Command::Suspend if !self.is_running() => self.end = Some(End::Cancelled),
            Command::Suspend => {
                tracing::info!(job = %self.attempt.job, "the job takes a last checkpoint before the host goes down");
                self.suspending = true;
                self.event(Event::SuspendRequested);
            }
            Command::Progress { reply } => {
                // Who asked may be gone.
                let _ = reply.send(self.coordinator.progress());
            }
            Command::Savepoint { stop, reply } => self.early.push(Asked { stop, reply }),
        }
    }

    fn is_running(&self) -> bool {
        self.running.len() == self.attempt.gates.len()
    }

    fn savepoint(&mut self, asked: Asked) {
        let (request, stop) = (self.next_request, asked.stop);
        self.next_request += 1;
        if stop.is_some() && !self.is_stopping() {
            self.shared.event(JobEvent::StopRequested);
        }
        self.savepoints.insert(request, asked);
        self.event(Event::SavepointRequested { request, stop });
    }

    fn is_stopping(&self) -> bool {
        self.savepoints.values().any(|asked| asked.stop.is_some())
    }

    fn event(&mut self, event: Event) {
        // A job that is not running yet has nobody to inject barriers.
        if matches!(event, Event::Tick) && !self.is_running() {
            return;
        }
        tracing::trace!(job = %self.attempt.job, ?event, "coordinator hears");
        let now_ms = self.now_ms();
        if let Some(traces) = &mut self.traces {
            traces.heard(&event, now_ms);
        }
        for action in self.coordinator.handle(now_ms, event) {
            if let Some(traces) = &mut self.traces {
                traces.ordered(&action, now_ms);
            }
            self.carry_out(action);
        }
        self.shared.pending(self.coordinator.pending(self.now_ms()));
    }

    fn clean_up(&self, order: CleanUp) {
        self.clean_ups.send(order).expect("BUG: the clean-up ended before the attempt");
    }

    fn tell_sources(&self, control: Control) {
        for task in &self.attempt.sources {
            self.attempt.gates[task].control(control);
        }
    }

    fn carry_out(&mut self, action: Action) {
        let store = self.attempt.store.clone();
        match action {
            Action::Trigger { checkpoint, kind, full, stop } => {
                self.shared.triggered(checkpoint, kind);
                // The last one before the host goes down has nothing in flight behind it.
                let overtakes_after = self.attempt.checkpoint.overtakes_after_ms(kind).filter(|_| stop.is_none());
                let overtakes_at_us = overtakes_after.map(|ms| monotonic_us().saturating_add(ms.saturating_mul(1000)));
                let barrier = Barrier { checkpoint, kind, full, stop, overtakes_at_us };
                self.tell_sources(Control::Trigger(barrier));
            }
            Action::AbortCheckpoint { checkpoint, reason } => {
                tracing::warn!(job = %self.attempt.job, checkpoint, %reason, "checkpoint aborted");
                broadcast(&self.attempt.gates, Control::AbortCheckpoint(checkpoint));
            }
            Action::WriteManifest { checkpoint, manifest } => {
                self.io.spawn(async move {
                    fault::point(Fault::AllAnsweredManifestNot);
                    Done::Event(match store.put_manifest(&manifest).await {
                        Ok(pointer) => Event::ManifestWritten { checkpoint, pointer },
                        Err(error) => Event::ManifestFailed { checkpoint, reason: explain(&error) },
                    })
                });
            }
            Action::WriteDecision { checkpoint, pointer } => {
                let (log, now_ms) = (Arc::clone(&self.log), self.now_ms());
                self.io.spawn(async move { Done::Event(decide(&log, checkpoint, pointer, now_ms).await) });
            }
            Action::CommitSinks { permit } => {
                let sinks = self.attempt.sinks.clone();
                self.io.spawn(async move { Done::Event(commit(sinks, permit).await) });
            }
            Action::StoreSavepoint { request, checkpoint, manifest } => {
                self.io.spawn(async move {
                    Done::Event(match store.store_savepoint(&savepoint_id(checkpoint), &manifest).await {
                        Ok(pointer) => Event::SavepointStored { request, pointer },
                        Err(error) => Event::SavepointStoreFailed { request, reason: explain(&error) },
                    })
                });
            }
            Action::SavepointCompleted { request, pointer } => {
                if let Some(asked) = self.savepoints.remove(&request) {
                    self.shared.savepoint(Ok(pointer.checkpoint));
                    let _ = asked.reply.send(Ok(pointer));
                }
            }
            Action::SavepointFailed { request, reason } => {
                let Some(asked) = self.savepoints.remove(&request) else { return };
                self.shared.savepoint(Err(reason.clone()));
                let _ = asked.reply.send(Err(reason));
                // One of several requests may have been turned down because another one is being carried out.
                if asked.stop.is_some() && !self.is_stopping() {
                    self.shared.event(JobEvent::StopFailed);
                }
            }
            Action::Merge { operator, task_index, segments, to_full } => {
                // Named by no checkpoint, it is named after the first of this incarnation: predecessors sweep only what is older.
                let order = MergeOrder { operator, task_index, checkpoint: self.first_checkpoint, segments, to_full };
                self.io.spawn(async move { Done::Event(merge(store, order).await) });
            }
            Action::TrimLog { oldest } => self.clean_up(CleanUp::Trim(oldest)),
            Action::Delete { paths } => self.clean_up(CleanUp::Delete(paths)),
            Action::Report(report) => self.shared.checkpoint(report),
            Action::StopJob { .. } => {
                fault::point(Fault::SavepointWrittenStopNot);
                self.end = Some(End::Stopped);
            }
            Action::SuspendJob { last } => {
                let job = &self.attempt.job;
                match last {
                    Suspended::At(checkpoint) => {
                        tracing::info!(%job, checkpoint, "last checkpoint completed: the next start has nothing to do again")
                    }
                    Suspended::Without { reason } => {
                        tracing::warn!(%job, %reason, "no last checkpoint: the next start goes on from the one before")
                    }
                }
                self.end = Some(End::Cancelled);
            }
            Action::FinishJob => {
                fault::point(Fault::FinalCommittedFinishNot);
                self.end = Some(End::Finished);
            }
            Action::FailJob { reason, fatal } => self.fail(reason, fatal),
        }
    }
}

/// Ids are ordered as the checkpoints are.
pub fn savepoint_id(checkpoint: CheckpointId) -> String {
    format!("savepoint-{checkpoint:06}")
}

fn broadcast(gates: &BTreeMap<TaskId, Arc<Gate>>, control: Control) {
    for gate in gates.values() {
        gate.control(control);
    }
}

async fn clean_up(store: CheckpointStore, log: Arc<Mutex<DecisionLog>>, mut orders: mpsc::UnboundedReceiver<CleanUp>) -> Done {
    let job = store.job().to_owned();
    while let Some(order) = orders.recv().await {
        let done = match order {
            CleanUp::Trim(oldest) => {
                let trimmed = log.lock().await.trim(oldest).await;
                fault::point(Fault::LogTrimmedManifestsNot);
                trimmed
            }
            CleanUp::Delete(paths) => store.delete(&paths).await,
        };
        if let Err(error) = done {
            // Left behind: it costs room, and the next start sweeps it.
            tracing::warn!(%job, error = explain(&error), "could not remove what retention gave up");
        }
    }
    Done::Nothing
}

async fn decide(log: &Mutex<DecisionLog>, checkpoint: CheckpointId, pointer: ManifestPointer, now_ms: u64) -> Event {
    fault::point(Fault::ManifestWrittenDecisionNot);
    match log.lock().await.commit(pointer, now_ms).await {
        Ok(()) => Event::Decided { checkpoint },
        Err(AppendError::Fenced { incarnation, uuid, .. }) => Event::Fenced { by: format!("incarnation {incarnation} ({uuid})") },
        Err(error @ AppendError::Unknown { .. }) => Event::DecisionUnknown { checkpoint, reason: explain(&error) },
    }
}

async fn commit(sinks: Arc<Sinks>, permit: CommitPermit) -> Event {
    let checkpoint = permit.checkpoint();
    fault::point(Fault::DecisionWrittenSinksNot);
    let committed = tokio::task::spawn_blocking(move || {
        for (number, (sink, committables)) in permit.committables().iter().enumerate() {
            if number > 0 {
                fault::point(Fault::OneSinkCommittedRestNot);
            }
            let Some(sink) = sinks.get(sink) else { return Err(format!("sink {sink} is not part of the job any more")) };
            sink.commit(committables).map_err(|e| e.to_string())?;
        }
        Ok(())
    });
    match committed.await {
        Ok(Ok(())) => {
            fault::point(Fault::SinksCommittedTrimNot);
            Event::SinksCommitted { checkpoint }
        }
        Ok(Err(reason)) => Event::CommitFailed { checkpoint, reason },
        Err(panicked) => Event::CommitFailed { checkpoint, reason: format!("a commit panicked: {panicked}") },
    }
}

struct MergeOrder {
    operator: String,
    task_index: u32,
    checkpoint: CheckpointId,
    segments: Vec<SegmentRef>,
    to_full: bool,
}

async fn merge(store: CheckpointStore, order: MergeOrder) -> Event {
    let merged = try_merge(&store, &order).await;
    let MergeOrder { operator, task_index, segments, .. } = order;
    match merged {
        Ok(by) => {
            Event::Merged { operator, task_index, replaced: segments.into_iter().map(|segment| segment.path).collect(), by }
        }
        Err(reason) => Event::MergeFailed { operator, task_index, reason },
    }
}

async fn try_merge(store: &CheckpointStore, order: &MergeOrder) -> Result<SegmentRef, String> {
    let MergeOrder { operator, task_index, checkpoint, segments, to_full } = order;
    let to_full = *to_full;
    let mut pieces = Vec::with_capacity(segments.len());
    for segment in segments {
        pieces.push(store.read_segment(segment).await.map_err(|e| explain(&e))?);
    }
    let merged = tokio::task::spawn_blocking(move || {
        let pieces: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
        crate::state::merge_segments(&pieces, to_full)
    });
    let merged = merged.await.map_err(|e| format!("the merge panicked: {e}"))?.map_err(|e| e.to_string())?;
    let written = put_segment(store, operator, *task_index, *checkpoint, merged).await?;
    fault::point(Fault::MergeWrittenChainNot);
    Ok(written)
}
