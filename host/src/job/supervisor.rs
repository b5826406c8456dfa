//! Makes attempts at a job until it ends.
//!
//! Invariants:
//! * one attempt at a time, and each takes the job over anew: what the last one left half done is finished or discarded first;
//! * the restart strategy alone says whether and when there is another one; a failure that would only repeat itself ends the job.

use super::attempt::Builder;
use super::drive::{Drive, End};
use super::plan::JobPlan;
use super::restore::{self, Start};
use super::status::JobShared;
use super::{Clock, Command, dead_letters};
use crate::checkpoint_store::{CheckpointStore, Incarnations};
use crate::fault::{self, Fault};
use crate::metrics::Metrics;
use crate::state::StateBudget;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::job_state::JobEvent;
use tidegate_core::restart::{Decision, RestartStrategy};
use tokio::sync::mpsc;

pub struct Supervisor {
    pub plan: Arc<JobPlan>,
    /// The job's own folder.
    pub folder: PathBuf,
    pub store: CheckpointStore,
    pub metrics: Arc<Metrics>,
    pub shared: Arc<JobShared>,
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// Where the first attempt begins; the log remembers it for those after.
    pub start: Start,
    /// Of this run.
    pub incarnations: Incarnations,
}

impl Supervisor {
    pub async fn run(mut self) {
        let clock = Clock::start();
        let mut strategy = RestartStrategy::new(self.plan.spec.restart);
        self.shared.event(JobEvent::StartRequested);
        fault::point(Fault::JobStoredTasksNot);
        loop {
            self.shared.attempt_begins();
            let end = self.attempt(clock, &mut strategy).await.unwrap_or_else(|failed| {
                self.shared.failed(&failed.reason);
                End::Failed { reason: failed.reason, fatal: failed.fatal }
            });
            let (mut reason, mut fatal) = match end {
                End::Finished => return self.shared.event(JobEvent::InputFinished),
                End::Stopped => return self.shared.event(JobEvent::StopCompleted),
                End::Cancelled => return self.shared.event(JobEvent::TasksCancelled),
                End::Failed { reason, fatal } => (reason, fatal),
            };
            // Whatever failed here, it was not ours any more.
            if let Ok(Some(by)) = self.store.taken_over(&self.incarnations).await {
                (reason, fatal) = (format!("{by}, on this host or another: this run of it ends"), true);
                self.shared.explain(&reason);
            }
            let job = &self.plan.spec.name;
            let delay_ms = match strategy.failed(clock.now_ms()) {
                _ if fatal => {
                    tracing::error!(%job, %reason, "job failed");
                    return self.shared.event(JobEvent::GaveUp);
                }
                Decision::GiveUp { reason: why } => {
                    tracing::error!(%job, %reason, %why, "job failed");
                    self.shared.explain(&format!("{reason} ({why})"));
                    return self.shared.event(JobEvent::GaveUp);
                }
                Decision::RestartAfter { delay_ms, attempt } => {
                    tracing::warn!(%job, %reason, delay_ms, attempt, "job restarts from its last checkpoint");
                    self.shared.restarted(reason, attempt, delay_ms);
                    delay_ms
                }
            };
            self.shared.event(JobEvent::RestartScheduled);
            if !self.wait(Duration::from_millis(delay_ms)).await {
                return self.shared.event(JobEvent::CancelRequested);
            }
            self.shared.event(JobEvent::RestartDue);
        }
    }

    /// False: somebody cancelled the job meanwhile.
    async fn wait(&mut self, delay: Duration) -> bool {
        let due = tokio::time::Instant::now() + delay;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => return true,
                command = self.commands.recv() => match command {
                    None | Some(Command::Cancel | Command::Suspend) => return false,
                    // Nobody has a checkpoint under way.
                    Some(Command::Progress { .. }) => {}
                    // The next attempt looks at the log.
                    Some(Command::Replay(_)) => {}
                    Some(Command::Savepoint { reply, .. }) => {
                        let _ = reply.send(Err("the job is between two attempts: try again when it runs".to_owned()));
                    }
                },
            }
        }
    }

    async fn attempt(&mut self, clock: Clock, strategy: &mut RestartStrategy) -> Result<End, restore::Failed> {
        let mut restored =
            restore::restore(&self.plan, &self.folder, &self.store, &self.start, &mut self.incarnations, clock).await?;
        // Allowed for this start, not for whatever its later attempts meet.
        self.start.allow_step_back = false;
        self.shared.restored(restored.report.clone());
        if restored.is_finished() && !restored.has_replays(&self.plan) {
            return Ok(End::Finished);
        }
        fault::point(Fault::SinksRecoveredTasksNot);
        let builder = Builder {
            plan: &self.plan,
            store: self.store.clone(),
            metrics: &self.metrics,
            journal: self.shared.journal(),
            restored: restored.manifest.as_ref(),
            sinks: Arc::clone(&restored.sinks),
            dead_letters: dead_letters::sink(&self.plan, &self.folder),
            budget: StateBudget::new(&self.plan.spec.name, self.plan.spec.limits.state_bytes_max),
            reserved: restored.reserved.take(),
            segments: std::mem::take(&mut restored.segments),
            in_flight: std::mem::take(&mut restored.in_flight),
            last_checkpoint: restored.next_checkpoint - 1,
            attempt: self.shared.attempt(),
            replays: Arc::clone(&restored.replays),
        };
        let mut attempt = builder.build()?;
        self.shared.tasks(attempt.views.clone());
        strategy.running_since(clock.now_ms());
        let coordinator = restored.coordinator(&self.plan, clock.now_ms());
        let first = restored.next_checkpoint;
        Ok(Drive::new(&mut attempt, restored.log, coordinator, first, &self.shared, &mut self.commands, clock).run().await)
    }
}
