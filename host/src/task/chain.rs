//! The nodes of one task, and how elements go through them without leaving the thread.
//!
//! Invariants:
//! * nodes stand in topological order, so a loop over them sees a node's outputs delivered before its neighbours are asked anything;
//! * a watermark passes a node only after the timers it makes due have fired and their rows are on their way;
//! * at a barrier every node is frozen between the same two batches: nothing is in flight inside a chain.

use super::edge::{EdgeWriter, Keyless};
use super::errors::NodeErrors;
use super::operator::{Culprit, Logic, OperatorNode, Outcome};
use super::snapshot::AsyncPart;
use super::{Barrier, Element, TaskError};
use crate::connector::SinkWriter;
use crate::connector::dead_letter::{DeadLetter, DeadLetterKind, TimerName};
use crate::job::dead_letters::DeadLetterLane;
use crate::job::splits::SplitNames;
use crate::metrics::TaskMetrics;
use crate::state::FrozenState;
use crate::wasm::instance::CallError;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::checkpoint::CheckpointId;
use tidegate_core::job_graph::spec::OnError;
use tidegate_core::limits::TIMERS_PER_DELIVERY_MAX;
use tidegate_core::row::{END_OF_TIME, Rows, Timestamp};
use tidegate_core::state_schema::TimeDomain;
use tokio::sync::oneshot;

/// Longest wait for a timer of processing time without a look at the clock.
const TIMER_LOOK_MS: i64 = 60_000;

pub struct Node {
    pub kind: NodeKind,
    /// By port.
    pub routes: Vec<Vec<Route>>,
}

pub enum NodeKind {
    /// The head of a source chain; its reader is with the [`super::source::SourceDriver`].
    Source,
    Operator(Box<OperatorNode>),
    Sink(SinkNode),
}

pub struct SinkNode {
    pub name: String,
    pub writer: Box<dyn SinkWriter>,
    pub metrics: Arc<TaskMetrics>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Node { node: usize, input: u32 },
    Edge(usize),
}

/// What becomes of rows that have no key for the operator at the end of an edge.
pub struct KeylessPolicy {
    pub on_error: OnError,
    pub input: u32,
    /// `None`: a sink, which needs no key.
    pub errors: Option<Arc<NodeErrors>>,
}

/// An operator whose frozen state is still being copied out.
struct Draining {
    node: usize,
    to: oneshot::Sender<FrozenState>,
}

pub struct Chain {
    nodes: Vec<Node>,
    edges: Vec<EdgeWriter>,
    /// What the nodes that edges lead to do about rows without a key.
    keyless_policies: Vec<KeylessPolicy>,
    /// By node; `None` for sources and sinks.
    errors: Vec<Option<Arc<NodeErrors>>>,
    dead_letters: DeadLetterLane,
    draining: Vec<Draining>,
    metrics: Arc<TaskMetrics>,
    keyless: Vec<Keyless>,
}

impl Chain {
    pub fn new(
        nodes: Vec<Node>,
        edges: Vec<EdgeWriter>,
        keyless_policies: Vec<KeylessPolicy>,
        errors: Vec<Option<Arc<NodeErrors>>>,
        dead_letters: DeadLetterLane,
        metrics: Arc<TaskMetrics>,
    ) -> Self {
        assert_eq!(nodes.len(), errors.len(), "BUG: errors of other nodes");
        Self { nodes, edges, keyless_policies, errors, dead_letters, draining: Vec::new(), metrics, keyless: Vec::new() }
    }

    /// Starts guests and the first epoch, before the first element.
    pub fn open(&mut self, epoch: CheckpointId) -> Result<(), TaskError> {
        for node in &mut self.nodes {
            match &mut node.kind {
                NodeKind::Source => {}
                NodeKind::Operator(operator) => operator.start()?,
                NodeKind::Sink(sink) => sink.writer.begin(epoch).map_err(|e| TaskError::connector(&sink.name, &e))?,
            }
        }
        self.dead_letters.begin(epoch)
    }

    pub fn dead_letters(&mut self) -> &mut DeadLetterLane {
        &mut self.dead_letters
    }

    /// Rows that a source has made.
    pub fn from_source(&mut self, rows: Rows) -> Result<(), TaskError> {
        self.metrics.records_out.add(u64::from(rows.count));
        self.metrics.bytes_out.add(rows.bytes.len() as u64);
        self.route(0, 0, rows)
    }

    /// Rows for an input of a node.
    pub fn deliver(&mut self, node: usize, input: u32, rows: Rows) -> Result<(), TaskError> {
        if rows.is_empty() {
            return Ok(());
        }
        match &mut self.nodes[node].kind {
            NodeKind::Source => unreachable!("BUG: rows for a source"),
            NodeKind::Sink(sink) => {
                sink.metrics.records_in.add(u64::from(rows.count));
                sink.metrics.bytes_in.add(rows.bytes.len() as u64);
                sink.writer.write(&rows).map_err(|e| TaskError::connector(&sink.name, &e))
            }
            NodeKind::Operator(operator) => {
                let mut outcome = Outcome::default();
                if let Some(errors) = &self.errors[node] {
                    errors.records(u64::from(rows.count));
                }
                let at_the_end = operator.watermark == END_OF_TIME;
                let done = operator.process(input, rows, &mut outcome);
                done.map_err(|error| self.naming(error, &outcome))?;
                self.settle(node, outcome)?;
                // Only what is replayed comes after the end of time. No further watermark will fire what it has set.
                if at_the_end { self.fire(node, TimeDomain::EventTime) } else { Ok(()) }
            }
        }
    }

    /// A failure by `on_error = "fail"` says which record it was.
    fn naming(&self, error: TaskError, outcome: &Outcome) -> TaskError {
        match (error, outcome.culprits.last()) {
            (TaskError::Fatal(message), Some(culprit)) if outcome.failed => {
                TaskError::Fatal(format!("{message} ({})", self.dead_letters.place(culprit)))
            }
            (error, _) => error,
        }
    }

    fn settle(&mut self, node: usize, outcome: Outcome) -> Result<(), TaskError> {
        let NodeKind::Operator(operator) = &mut self.nodes[node].kind else { unreachable!("BUG: not an operator") };
        for culprit in outcome.culprits {
            let reason = culprit.reason.clone();
            let mut bytes = 0;
            if operator.on_error == OnError::DeadLetter {
                operator.metrics.dead_letters.add(1);
                bytes = self.dead_letters.push(&operator.name, culprit)?;
            }
            if let Some(errors) = &self.errors[node] {
                errors.bad(&reason, bytes as u64)?;
            }
        }
        let metrics = Arc::clone(&operator.metrics);
        for (port, rows) in outcome.outputs {
            metrics.records_out.add(u64::from(rows.count));
            metrics.bytes_out.add(rows.bytes.len() as u64);
            self.route(node, port, rows)?;
        }
        Ok(())
    }

    fn route(&mut self, node: usize, port: u32, rows: Rows) -> Result<(), TaskError> {
        let routes = self.nodes[node].routes.get(port as usize).map_or(0, Vec::len);
        for i in 0..routes {
            let route = self.nodes[node].routes[port as usize][i];
            if i + 1 == routes {
                return self.send(route, rows);
            }
            self.send(route, rows.clone())?;
        }
        Ok(())
    }

    fn send(&mut self, route: Route, rows: Rows) -> Result<(), TaskError> {
        let edge = match route {
            Route::Node { node, input } => return self.deliver(node, input, rows),
            Route::Edge(edge) => edge,
        };
        self.edges[edge].write(rows, &mut self.keyless)?;
        if !self.keyless.is_empty() {
            return self.take_out_keyless(edge);
        }
        Ok(())
    }

    fn take_out_keyless(&mut self, edge: usize) -> Result<(), TaskError> {
        let to = self.edges[edge].to_node.clone();
        for bad in std::mem::take(&mut self.keyless) {
            let KeylessPolicy { on_error, input, errors } = &self.keyless_policies[edge];
            let culprit = Culprit { input: *input, ..Culprit::unasked(DeadLetterKind::Key, bad.reason, bad.row, bad.origin) };
            let reason = culprit.reason.clone();
            let mut bytes = 0;
            match on_error {
                OnError::Fail => {
                    let place = self.dead_letters.place(&culprit);
                    return Err(TaskError::Fatal(format!(
                        "no key for operator {to} (its policy is on_error = \"fail\"): {reason} ({place})"
                    )));
                }
                OnError::Skip => self.metrics.rejected.add(1),
                OnError::DeadLetter => {
                    bytes = self.dead_letters.push(&to, culprit)?;
                    self.metrics.dead_letters.add(1)
                }
            };
            if let Some(errors) = errors {
                errors.bad(&reason, bytes as u64)?;
            }
        }
        Ok(())
    }

    /// A dead letter comes back to the operator that gave it up. What fails because of it names it.
    pub fn replay(&mut self, node: usize, letter: &DeadLetter, rows: Rows) -> Result<(), TaskError> {
        self.dead_letters.replaying = Some(letter.id.clone());
        let done = match letter.call.timer {
            None => self.deliver(node, letter.call.input, rows),
            Some(timer) => self.replay_timer(node, &letter.key, timer),
        };
        self.dead_letters.replaying = None;
        done
    }

    /// It is set once more; due as it is, it fires at once.
    fn replay_timer(&mut self, node: usize, key: &[u8], timer: TimerName) -> Result<(), TaskError> {
        let NodeKind::Operator(operator) = &mut self.nodes[node].kind else { unreachable!("BUG: not an operator") };
        let now = crate::state::CallTime { watermark: operator.watermark, processing_time: super::processing_time() };
        let name = operator.name.clone();
        let failed = |why: String| TaskError::Fatal(format!("operator {name}: a timer can't be replayed: {why}"));
        let Some(state) = &mut operator.logic.env().state else {
            return Err(failed("the operator is not keyed any more".to_owned()));
        };
        state.begin_key(key, now);
        if let Err(error) = state.set_timer(0, timer.domain, timer.time, timer.tag) {
            state.rollback();
            return Err(failed(error.to_string()));
        }
        state.commit();
        self.fire(node, timer.domain)
    }

    /// Operators of this chain, with their nodes.
    pub fn operators(&self) -> impl Iterator<Item = (usize, &str)> {
        self.nodes.iter().enumerate().filter_map(|(at, node)| match &node.kind {
            NodeKind::Operator(operator) => Some((at, operator.name.as_str())),
            _ => None,
        })
    }

    pub fn splits(&self) -> &SplitNames {
        self.dead_letters.splits()
    }

    /// Event time goes on: timers fire node by node, then the next vertices are told.
    pub fn advance_watermark(&mut self, watermark: Timestamp) -> Result<(), TaskError> {
        for node in 0..self.nodes.len() {
            if let NodeKind::Operator(operator) = &mut self.nodes[node].kind {
                operator.watermark = watermark;
                operator.metrics.watermark.set(watermark);
                self.fire(node, TimeDomain::EventTime)?;
            }
        }
        for edge in &mut self.edges {
            edge.broadcast(|| Element::Watermark(watermark))?;
        }
        Ok(())
    }

    pub fn fan_out(&self) -> usize {
        self.edges.iter().map(EdgeWriter::fan_out).max().unwrap_or(1)
    }

    pub fn idle(&mut self) -> Result<(), TaskError> {
        for edge in &mut self.edges {
            edge.broadcast(|| Element::Idle)?;
        }
        Ok(())
    }

    /// Timers of processing time that are due.
    pub fn fire_processing_time(&mut self) -> Result<(), TaskError> {
        for node in 0..self.nodes.len() {
            if let NodeKind::Operator(_) = &self.nodes[node].kind {
                self.fire(node, TimeDomain::ProcessingTime)?;
            }
        }
        Ok(())
    }

    fn fire(&mut self, node: usize, domain: TimeDomain) -> Result<(), TaskError> {
        let mut rounds = 0u64;
        let mut rounds_max = 0;
        let mut begun_at = None;
        loop {
            let NodeKind::Operator(operator) = &mut self.nodes[node].kind else { unreachable!("BUG: not an operator") };
            if rounds == 0 {
                begun_at = next_timer(operator, domain);
                // As many as there are now, and room for timers that set timers which are due at once.
                let env = operator.logic.env();
                let timers = env.state.as_ref().map_or(0, |state| state.timer_count(domain)) as u64;
                rounds_max = timers + u64::from(env.meta.limits.timer_rounds_max);
            }
            let mut outcome = Outcome::default();
            let fired = operator.fire_timers(domain, &mut outcome).map_err(|error| self.naming(error, &outcome))?;
            if !fired {
                return Ok(());
            }
            let NodeKind::Operator(operator) = &mut self.nodes[node].kind else { unreachable!("BUG: not an operator") };
            rounds += 1;
            if rounds > rounds_max {
                // Timers that come nearer to the clock are catching up, after a long stop or a jump of the clock: what else the task has
                // to do goes first, and then they go on.
                let next = next_timer(operator, domain);
                if domain == TimeDomain::ProcessingTime && (next.is_none() || next > begun_at) {
                    return self.settle(node, outcome);
                }
                let (name, limit) = (&operator.name, operator.logic.env().meta.limits.timer_rounds_max);
                return Err(TaskError::Fatal(format!(
                    "operator {name}: timers go on setting timers that are due at once; the limit is {limit} rounds (timer_rounds_max)"
                )));
            }
            self.settle(node, outcome)?;
        }
    }

    /// When the task must wake up though nothing comes in.
    pub fn next_wake(&mut self) -> Option<Instant> {
        let lingers = self.edges.iter().filter_map(EdgeWriter::linger_deadline).min();
        let mut timer: Option<i64> = None;
        for node in &mut self.nodes {
            if let NodeKind::Operator(operator) = &mut node.kind
                && let Some(state) = &operator.logic.env().state
                && let Some(time) = state.next_timer(TimeDomain::ProcessingTime)
            {
                timer = Some(timer.map_or(time, |earliest| earliest.min(time)));
            }
        }
        let timer = timer.map(|time| Instant::now() + until_look(time, super::processing_time()));
        match (lingers, timer) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub fn flush(&mut self) -> Result<(), TaskError> {
        for edge in &mut self.edges {
            edge.flush()?;
        }
        Ok(())
    }

    /// Ships what has waited for its linger time.
    pub fn flush_lingering(&mut self, now: Instant) -> Result<(), TaskError> {
        for edge in &mut self.edges {
            if edge.linger_deadline().is_some_and(|deadline| deadline <= now) {
                edge.flush()?;
            }
        }
        Ok(())
    }

    /// The synchronous part of a snapshot, and the barrier to the next vertices. Nothing here takes longer with more state.
    pub fn snapshot(&mut self, barrier: Barrier) -> Result<AsyncPart, TaskError> {
        // What the checkpoint before has left goes first, whole.
        while self.is_draining() {
            self.drain(usize::MAX);
        }
        // Before the snapshot: the next vertices can align while this task is at it.
        for edge in &mut self.edges {
            edge.broadcast(|| Element::Barrier(barrier))?;
        }
        let begun = Instant::now();
        let next_epoch = barrier.checkpoint + 1;
        let mut part = AsyncPart::new(barrier.checkpoint);
        for (at, node) in self.nodes.iter_mut().enumerate() {
            match &mut node.kind {
                NodeKind::Source => {}
                NodeKind::Operator(operator) => {
                    let env = operator.logic.env();
                    let task_index = env.meta.task_index;
                    if let Some(state) = &mut env.state {
                        let full = barrier.full
                            || tidegate_core::compaction::wants_full_snapshot(state.dirty_entries(), state.live_entries());
                        state.freeze(full);
                        let (to, frozen) = oneshot::channel();
                        self.draining.push(Draining { node: at, to });
                        part.operators.push((operator.name.clone(), task_index, frozen));
                    }
                }
                NodeKind::Sink(sink) => {
                    let pre_commit = sink.writer.pre_commit().map_err(|e| TaskError::connector(&sink.name, &e))?;
                    part.sinks.push((sink.name.clone(), pre_commit));
                    sink.writer.begin(next_epoch).map_err(|e| TaskError::connector(&sink.name, &e))?;
                }
            }
        }
        self.dead_letters.snapshot(next_epoch, &mut part)?;
        part.timing.sync_us = begun.elapsed().as_micros() as u64;
        Ok(part)
    }

    pub fn is_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Copies some more of what is frozen. Called between batches.
    pub fn drain(&mut self, budget: usize) {
        let nodes = &mut self.nodes;
        let mut done = None;
        for (i, draining) in self.draining.iter().enumerate() {
            let NodeKind::Operator(operator) = &mut nodes[draining.node].kind else { unreachable!("BUG: not an operator") };
            let state = operator.logic.env().state.as_mut().expect("BUG: draining without state");
            if let Some(frozen) = state.drain(budget) {
                operator.metrics.state_bytes.set(state.bytes());
                operator.metrics.state_keys.set(state.live_keys());
                done = Some((i, frozen));
                break;
            }
        }
        if let Some((i, frozen)) = done {
            // Nobody waits for it when the checkpoint was given up: then the next one is full.
            let _ = self.draining.swap_remove(i).to.send(frozen);
        }
    }

    /// The channel that has to get room before another batch is begun: see [`EdgeWriter::full`].
    pub fn full(&mut self) -> Option<u32> {
        self.edges.iter_mut().fold(None, |full, edge| {
            let of_edge = edge.full();
            full.or(of_edge)
        })
    }

    pub fn blocked(&self) -> Duration {
        self.edges.iter().map(|edge| edge.blocked).sum()
    }

    pub fn sweep(&mut self) {
        for node in &mut self.nodes {
            if let NodeKind::Operator(operator) = &mut node.kind {
                let watermark = operator.watermark;
                if let Some(state) = &mut operator.logic.env().state {
                    state.sweep(
                        TIMERS_PER_DELIVERY_MAX,
                        crate::state::CallTime { watermark, processing_time: super::processing_time() },
                    );
                }
            }
        }
    }

    /// The task ends without a checkpoint.
    pub fn abort(&mut self) {
        for node in &mut self.nodes {
            if let NodeKind::Sink(sink) = &mut node.kind {
                sink.writer.abort();
            }
        }
        self.dead_letters.abort();
    }
}

impl OperatorNode {
    /// On the task's own thread: tasks restore side by side.
    fn start(&mut self) -> Result<(), TaskError> {
        let name = &self.name;
        if let Some(state) = &mut self.logic.env().state {
            for (path, segment) in std::mem::take(&mut self.restore) {
                state.restore(&segment).map_err(|e| TaskError::Fatal(format!("operator {name}: segment {path}: {e}")))?;
            }
            self.metrics.state_keys.set(state.live_keys());
            self.metrics.state_bytes.set(state.bytes());
            let bytes = state.bytes();
            self.logic.env().budget.settle(bytes);
        }
        let Logic::Wasm(guest) = &mut self.logic else { return Ok(()) };
        guest.start().map_err(|error| match error {
            CallError::Transient(why) => TaskError::Restart(format!("operator {name} could not start: {why}")),
            CallError::Stopped => TaskError::Closed,
            error => TaskError::Fatal(format!("operator {name} could not start: {error}")),
        })
    }
}

fn next_timer(operator: &mut OperatorNode, domain: TimeDomain) -> Option<i64> {
    operator.logic.env().state.as_ref()?.next_timer(domain)
}

/// Until a timer of processing time is due, or is to be looked at again: the wall clock may jump meanwhile.
fn until_look(timer: i64, now: i64) -> Duration {
    Duration::from_millis(timer.saturating_sub(now).clamp(0, TIMER_LOOK_MS) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_looked_at_when_it_is_due_and_once_a_minute_until_then() {
        let now = 1_700_000_000_000;
        let wait = |timer: i64, now: i64| until_look(timer, now).as_millis() as i64;
        assert_eq!([wait(now + 1500, now), wait(now, now), wait(now - 1500, now)], [1500, 0, 0]);
        // Ten years ahead, as after a clock that went back; and the ends of time.
        assert_eq!([wait(now + 315_576_000_000, now), wait(i64::MAX, now), wait(i64::MAX, -1)], [TIMER_LOOK_MS; 3]);
        assert_eq!([wait(i64::MIN, now), wait(i64::MIN, 0)], [0; 2]);
    }
}
