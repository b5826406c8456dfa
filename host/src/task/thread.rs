//! The loop of a task: one thread, one gate, one chain.
//!
//! Invariants:
//! * the thread waits in one place only, the gate, and what it waits for has a deadline or is an element;
//! * a barrier is answered exactly once: acknowledged, declined, or the task has failed;
//! * nothing new is begun while a channel downstream is full and barriers may overtake: a barrier never waits for room;
//! * frozen state is copied out in small pieces between batches, so that no batch waits for a whole snapshot.

use super::activity::{Activity, Alignment, Doing, uptime_ms};
use super::chain::Chain;
use super::gate::{Gate, Received};
use super::in_flight::{ChannelStates, Inputs};
use super::replay::ReplayReader;
use super::snapshot::{AsyncPart, InFlightPart};
use super::source::SourceDriver;
use super::{Barrier, Control, Element, Report, TaskError, monotonic_us};
use crate::metrics::TaskMetrics;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::barrier::{Aligner, Outcome, Overtaking};
use tidegate_core::checkpoint::{CheckpointId, CheckpointKind, SourceSnapshot, TaskId};
use tidegate_core::diagnosis::SnapshotStage;
use tidegate_core::limits::IN_FLIGHT_BYTES_MAX;
use tidegate_core::row::Rows;
use tidegate_core::watermark::WatermarkMerge;
use tokio::sync::mpsc::UnboundedSender;

/// Frozen entries copied between two batches: some tens of microseconds.
const DRAIN_ENTRIES: usize = 2048;
/// And while there is nothing else to do.
const DRAIN_ENTRIES_IDLE: usize = 16_384;
/// Batches between two steps of the clean-up of expired state.
const SWEEP_EVERY: u64 = 64;

pub struct Task {
    pub id: TaskId,
    pub name: String,
    pub gate: Arc<Gate>,
    pub chain: Chain,
    pub head: Head,
    pub replay: ReplayReader,
    /// The barrier of a stop with a savepoint has passed.
    pub stopped: bool,
    /// The checkpoint that the job was restored from; the first epoch is the one after.
    pub restored: CheckpointId,
    /// What was in flight to nodes that were heads of their chains and are not any more.
    pub in_flight: Vec<(usize, Rows)>,
    pub reports: UnboundedSender<Report>,
    pub uploads: UnboundedSender<AsyncPart>,
    pub metrics: Arc<TaskMetrics>,
    pub activity: Arc<Activity>,
}

/// Where a task's elements come from.
pub enum Head {
    Source(SourceHead),
    Channels(ChannelHead),
}

pub struct SourceHead {
    pub driver: Box<SourceDriver>,
    /// After a stop-with-savepoint barrier nothing more is read.
    pub stopped: bool,
}

pub struct ChannelHead {
    /// The node and its input that each channel leads to.
    pub inputs: Vec<(usize, u32)>,
    pub aligner: Aligner,
    pub watermarks: WatermarkMerge,
    pub told_idle: bool,
    /// As a checkpoint names them.
    pub described: Arc<Inputs>,
    pub recording: Option<Recording>,
}

/// An unaligned checkpoint whose snapshot is taken and whose barrier has not come on every channel yet.
pub struct Recording {
    checkpoint: CheckpointId,
    states: ChannelStates,
    part: AsyncPart,
}

impl Task {
    /// Runs until the gate is closed or something fails. Never panics: a bug in here fails the job, not the host.
    pub fn run(mut self) {
        let id = self.id;
        let reports = self.reports.clone();
        let activity = Arc::clone(&self.activity);
        let done = catch_unwind(AssertUnwindSafe(|| {
            let done = self.work();
            if done.is_err() {
                self.chain.abort();
            }
            done
        }));
        let error = match done {
            Ok(Ok(()) | Err(TaskError::Closed)) => None,
            Ok(Err(error)) => Some(error),
            Err(panic) => {
                let what = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
                Some(TaskError::Restart(format!("task {} panicked: {}", id, what.unwrap_or("no message"))))
            }
        };
        activity.enter(Doing::Ended);
        if let Some(error) = error {
            let _ = reports.send(Report::Failed { task: id, error });
        }
        let _ = reports.send(Report::Ended { task: id });
    }

    /// Where its inputs stand: before it runs, where they begin.
    pub fn positions(&mut self) -> Vec<SourceSnapshot> {
        let source = match &mut self.head {
            Head::Source(source) => Some(source.driver.snapshot()),
            Head::Channels(_) => None,
        };
        source.into_iter().chain(self.replay.snapshot()).collect()
    }

    fn work(&mut self) -> Result<(), TaskError> {
        self.chain.open(self.restored + 1)?;
        for (node, rows) in std::mem::take(&mut self.in_flight) {
            self.chain.deliver(node, 0, rows)?;
        }
        self.report(Report::Running { task: self.id })?;
        let mut next_poll = Some(Instant::now());
        let mut batches = 0u64;
        let mut resting = false;
        loop {
            let full = self.chain.full();
            let has_room = full.is_none();
            let wake = self.wake_at(next_poll, has_room);
            let waits = Instant::now();
            let rest = full.map_or_else(|| self.rest(), Doing::Downstream);
            if resting {
                self.activity.stay(rest)
            } else {
                self.activity.enter(rest)
            }
            resting = true;
            let received = self.gate.receive(wake, has_room);
            let begun = Instant::now();
            let waited = if has_room { &self.metrics.idle_us } else { &self.metrics.backpressured_us };
            waited.add((begun - waits).as_micros() as u64);
            let blocked = self.chain.blocked();
            match received {
                Received::Closed => return Err(TaskError::Closed),
                Received::Control(control) => self.control(control)?,
                Received::Announced(channel, barrier) => self.announced(channel, barrier)?,
                Received::Element(channel, element) => {
                    resting = false;
                    self.activity.enter(Doing::Working);
                    self.record(channel, &element);
                    self.element(channel, element)?;
                }
                Received::Restored(channel, element) => {
                    resting = false;
                    self.activity.enter(Doing::Working);
                    self.element(channel, element)?;
                }
                Received::Nothing => {}
            }
            self.overtake_where_due()?;
            if let Head::Source(source) = &mut self.head
                && !source.stopped
                && !source.driver.has_ended()
                && has_room
                && next_poll.is_none_or(|at| at <= begun)
            {
                let records = self.metrics.records_in.get();
                let before = self.activity.begin(Doing::Working);
                let wait = source.driver.advance(&mut self.chain)?;
                if self.metrics.records_in.get() == records {
                    // A look that found nothing is part of the wait.
                    self.activity.back_to(before);
                } else {
                    resting = false;
                }
                next_poll = begun.checked_add(wait);
                if source.driver.has_ended() {
                    self.report(Report::SourceEnded { task: self.id })?;
                }
            }
            if self.replay.has_more() && has_room && !self.has_stopped() {
                self.replay.advance(&mut self.chain)?;
            }
            batches += 1;
            if batches.is_multiple_of(SWEEP_EVERY) {
                self.chain.sweep();
            }
            if self.chain.is_draining() {
                let before = self.activity.begin(Doing::Draining);
                self.chain.drain(if self.gate.is_idle() { DRAIN_ENTRIES_IDLE } else { DRAIN_ENTRIES });
                self.activity.back_to(before);
            }
            let now = Instant::now();
            if wake.is_some_and(|at| at <= now) {
                self.chain.fire_processing_time()?;
            }
            self.chain.flush_lingering(now)?;
            let blocked = self.chain.blocked() - blocked;
            self.metrics.backpressured_us.add(blocked.as_micros() as u64);
            self.metrics.busy_us.add(begun.elapsed().saturating_sub(blocked).as_micros() as u64);
        }
    }

    /// After the barrier of a stop with a savepoint nothing more is read, replays as little as anything.
    fn has_stopped(&self) -> bool {
        self.stopped || matches!(&self.head, Head::Source(source) if source.stopped)
    }

    /// When to go on though nothing comes in.
    fn wake_at(&mut self, next_poll: Option<Instant>, has_room: bool) -> Option<Instant> {
        if self.chain.is_draining() || (self.replay.has_more() && has_room && !self.has_stopped()) {
            return Some(Instant::now());
        }
        let mut wake = self.chain.next_wake();
        if let Head::Source(source) = &self.head
            && !source.stopped
            && !source.driver.has_ended()
            && has_room
        {
            let poll = next_poll.unwrap_or_else(Instant::now);
            wake = Some(wake.map_or(poll, |at| at.min(poll)));
        }
        if let Head::Channels(head) = &self.head
            && let Some(overtakes_at_us) = head.aligner.next_overtake_us()
        {
            let at = Instant::now() + Duration::from_micros(overtakes_at_us.saturating_sub(monotonic_us()));
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
        wake
    }

    /// What standing at the gate means.
    fn rest(&self) -> Doing {
        match &self.head {
            Head::Channels(_) => Doing::Waiting,
            Head::Source(source) if source.stopped => Doing::SourceStopped,
            Head::Source(source) if source.driver.has_ended() => Doing::SourceEnded,
            Head::Source(_) => Doing::SourceWaits,
        }
    }

    fn report(&self, report: Report) -> Result<(), TaskError> {
        // Nobody listens any more: the job is being torn down.
        self.reports.send(report).map_err(|_| TaskError::Closed)
    }

    fn control(&mut self, control: Control) -> Result<(), TaskError> {
        match (control, &mut self.head) {
            (Control::Replay(known), _) => {
                self.replay.learn(known);
                Ok(())
            }
            (Control::Trigger(barrier), Head::Source(source)) => {
                source.driver.hand_on_reserved(&mut self.chain)?;
                if barrier.stop.is_some_and(|stop| stop.drain) {
                    source.driver.end_of_time(&mut self.chain)?;
                }
                source.stopped |= barrier.stop.is_some();
                let positions = source.driver.snapshot();
                let mut part = self.snapshot(barrier)?;
                part.sources.push(positions);
                self.hand_over(part)
            }
            (Control::Trigger(barrier), Head::Channels(_)) => {
                unreachable!("BUG: checkpoint {} triggered at a task without a source", barrier.checkpoint)
            }
            (Control::AbortCheckpoint(checkpoint), Head::Channels(head)) => {
                self.gate.unblock(&head.aligner.aborted(checkpoint));
                self.activity.align(alignment(&head.aligner));
                match head.recording.take_if(|recording| recording.checkpoint == checkpoint) {
                    // State and sinks are cut already, and count with the next checkpoint. Nobody needs what was in flight.
                    Some(recording) => self.hand_over(recording.part),
                    None => Ok(()),
                }
            }
            (Control::AbortCheckpoint(_), Head::Source(_)) => Ok(()),
            (Control::CheckpointCommitted(checkpoint), Head::Source(source)) => {
                source.driver.checkpoint_committed(checkpoint);
                Ok(())
            }
            (Control::CheckpointCommitted(_), Head::Channels(_)) => Ok(()),
        }
    }

    fn element(&mut self, channel: usize, element: Element) -> Result<(), TaskError> {
        let Head::Channels(head) = &mut self.head else { unreachable!("BUG: an element for a source") };
        match element {
            Element::Batch(rows) => {
                let (node, input) = head.inputs[channel];
                self.metrics.batches_in.add(1);
                let waking = head.watermarks.idle(channel, false);
                debug_assert!(waking.is_none_or(|status| !status.idle), "BUG: a batch made its channel idle");
                self.chain.deliver(node, input, rows)
            }
            Element::Watermark(watermark) => {
                let woken = head.watermarks.idle(channel, false);
                let moved = head.watermarks.watermark(channel, watermark);
                let Some(status) = moved.or(woken) else { return Ok(()) };
                if status.idle || status.watermark == tidegate_core::row::NO_TIMESTAMP {
                    return Ok(());
                }
                head.told_idle = false;
                self.chain.advance_watermark(status.watermark)
            }
            Element::Idle => {
                let Some(status) = head.watermarks.idle(channel, true) else { return Ok(()) };
                if status.watermark != tidegate_core::row::NO_TIMESTAMP {
                    self.chain.advance_watermark(status.watermark)?;
                }
                if status.idle && !head.told_idle {
                    head.told_idle = true;
                    self.chain.idle()?;
                }
                Ok(())
            }
            Element::Barrier(barrier) => self.barrier(channel, barrier),
        }
    }

    fn barrier(&mut self, channel: usize, barrier: Barrier) -> Result<(), TaskError> {
        let Head::Channels(head) = &mut self.head else { unreachable!("BUG: a barrier for a source") };
        let now_us = monotonic_us();
        let arrival = head.aligner.barrier(channel, barrier.checkpoint, now_us);
        for checkpoint in arrival.abandoned {
            self.abandon(checkpoint, barrier.checkpoint)?;
        }
        match arrival.outcome {
            Outcome::Blocked => self.gate.block(channel),
            Outcome::Counted | Outcome::Ignored => {}
            Outcome::Aligned { alignment_us, .. } => {
                let mut part = self.snapshot(barrier)?;
                part.timing.alignment_us = alignment_us;
                self.hand_over(part)?;
            }
        }
        self.gate.unblock(&arrival.released);
        if let Head::Channels(head) = &self.head {
            self.activity.align(alignment(&head.aligner));
        }
        Ok(())
    }

    fn snapshot(&mut self, barrier: Barrier) -> Result<AsyncPart, TaskError> {
        if barrier.kind == CheckpointKind::Final {
            self.replay.finish(&mut self.chain)?;
        }
        self.stopped |= barrier.stop.is_some();
        let mut part = self.chain.snapshot(barrier)?;
        part.sources.extend(self.replay.snapshot());
        Ok(part)
    }

    fn announced(&mut self, channel: usize, barrier: Barrier) -> Result<(), TaskError> {
        let Head::Channels(head) = &mut self.head else { unreachable!("BUG: a barrier for a source") };
        let overtakes_at_us = barrier.overtakes_at_us.expect("BUG: a barrier was announced that may not overtake");
        match head.aligner.announced(channel, barrier.checkpoint, overtakes_at_us, monotonic_us()) {
            Some(overtaking) => self.overtake(overtaking),
            None => Ok(()),
        }
    }

    fn overtake_where_due(&mut self) -> Result<(), TaskError> {
        if let Head::Channels(head) = &mut self.head
            && head.aligner.next_overtake_us().is_some()
            && let Some(overtaking) = head.aligner.overtakes(monotonic_us())
        {
            return self.overtake(overtaking);
        }
        Ok(())
    }

    fn overtake(&mut self, overtaking: Overtaking) -> Result<(), TaskError> {
        for checkpoint in overtaking.abandoned {
            self.abandon(checkpoint, overtaking.checkpoint)?;
        }
        let Head::Channels(head) = &mut self.head else { unreachable!("BUG: a barrier for a source") };
        let mut before = head.recording.take();
        let mut states = before.as_mut().map(|recording| &mut recording.states);
        let mut begun = None;
        if overtaking.snapshot {
            assert!(states.is_none(), "BUG: checkpoint {} is recorded on top of another", overtaking.checkpoint);
            let states = begun.insert(ChannelStates::new(head.watermarks.channels()));
            self.gate.restored(|channel, element| states.record(channel, element));
        }
        let states = begun.as_mut().or(states.take()).expect("BUG: a barrier overtook and nobody records");
        let mut barrier = None;
        for channel in overtaking.channels {
            let taken = self.gate.overtake(channel, overtaking.checkpoint, |element| states.record(channel, element));
            barrier = Some(taken);
        }
        self.gate.unblock(&overtaking.released);
        let mut recording = match (before, begun) {
            (Some(recording), None) => recording,
            (_, Some(states)) => {
                let barrier = barrier.expect("BUG: a barrier overtook in no channel");
                Recording { checkpoint: barrier.checkpoint, states, part: self.snapshot(barrier)? }
            }
            (None, None) => unreachable!("BUG: somebody records, as was just seen"),
        };
        let Head::Channels(head) = &mut self.head else { unreachable!("BUG: a barrier for a source") };
        match overtaking.complete_us {
            None => {
                head.recording = Some(recording);
                Ok(())
            }
            Some(alignment_us) => {
                recording.part.timing.alignment_us = alignment_us;
                if recording.states.is_too_large() {
                    let reason =
                        format!("more than {IN_FLIGHT_BYTES_MAX} bytes were in flight to one task (IN_FLIGHT_BYTES_MAX)");
                    recording.part.declined = Some(reason);
                } else if !recording.states.is_empty() {
                    let inputs = Arc::clone(&head.described);
                    recording.part.in_flight = Some(InFlightPart { inputs, states: recording.states });
                }
                self.hand_over(recording.part)
            }
        }
    }

    /// What is read between the snapshot and the channel's barrier belongs to the checkpoint as well.
    fn record(&mut self, channel: usize, element: &Element) {
        if let Head::Channels(ChannelHead { recording: Some(recording), aligner, .. }) = &mut self.head
            && !matches!(element, Element::Barrier(_))
            && aligner.is_recording(channel)
            && !recording.states.is_too_large()
        {
            recording.states.record(channel, element);
        }
    }

    /// A checkpoint that a newer barrier has made impossible.
    fn abandon(&mut self, checkpoint: CheckpointId, by: CheckpointId) -> Result<(), TaskError> {
        let Head::Channels(head) = &mut self.head else { unreachable!("BUG: a barrier for a source") };
        let reason = format!("barrier {by} overtook it");
        match head.recording.take_if(|recording| recording.checkpoint == checkpoint) {
            Some(Recording { mut part, .. }) => {
                part.declined = Some(reason);
                self.hand_over(part)
            }
            // Nothing was pre-committed for it: its rows are part of the next epoch.
            None => self.report(Report::Declined { checkpoint, task: self.id, reason }),
        }
    }

    fn hand_over(&mut self, part: AsyncPart) -> Result<(), TaskError> {
        self.activity.snapshot(part.checkpoint, Some(SnapshotStage::PreCommit));
        self.metrics.stall(Duration::from_micros(part.timing.sync_us));
        self.uploads.send(part).map_err(|_| TaskError::Closed)
    }
}

/// For people: whose barrier is missing, and since when.
fn alignment(aligner: &Aligner) -> Option<Alignment> {
    let (checkpoint, since_us, missing) = aligner.waits_for()?;
    let waited_ms = monotonic_us().saturating_sub(since_us) / 1000;
    Some(Alignment { checkpoint, since_ms: uptime_ms().saturating_sub(waited_ms), missing })
}
