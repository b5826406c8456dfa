//! Sources and sinks whose calls are steps of an incarnation (see [`crate::fault::io_step`]). The file calls below them are steps too.

use super::{BatchLimits, ConnectorError, PreCommit, Sink, SinkWriter, Source, SourceBatch, SourceReader, SourceStatus, Visible};
use crate::fault::io_step::IoSteps;
use std::ops::Range;
use std::time::Duration;
use tidegate_core::checkpoint::{CheckpointId, Committable, SplitSnapshot};
use tidegate_core::job_graph::spec::Delivery;
use tidegate_core::row::Rows;

/// How soon a source that holds back is asked again.
const HELD: Duration = Duration::from_micros(200);

pub struct SteppedSource {
    pub inner: Box<dyn Source>,
    pub steps: IoSteps,
}

struct SteppedReader {
    inner: Box<dyn SourceReader>,
    steps: IoSteps,
    /// Batches since the last snapshot.
    batches: u32,
}

fn refused(name: &'static str) -> impl FnOnce() -> ConnectorError {
    move || ConnectorError::retry(name, "injected")
}

impl Source for SteppedSource {
    fn open(&self, task: u32, parallelism: u32, restored: &[SplitSnapshot]) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let name = "source: open";
        let inner = self.steps.call(name, || self.inner.open(task, parallelism, restored), refused(name))?;
        Ok(Box::new(SteppedReader { inner, steps: self.steps.clone(), batches: 0 }))
    }

    fn is_replayable(&self) -> bool {
        self.inner.is_replayable()
    }
}

impl SourceReader for SteppedReader {
    fn poll(&mut self, batch: &mut SourceBatch, limits: BatchLimits) -> Result<SourceStatus, ConnectorError> {
        let most = self.steps.batches_per_checkpoint();
        if most > 0 && self.batches >= most && !self.steps.is_dead() {
            return Ok(SourceStatus::Wait(HELD));
        }
        let name = "source: poll";
        self.batches += 1;
        self.steps.call(name, || self.inner.poll(batch, limits), refused(name))
    }

    fn snapshot(&mut self) -> Vec<SplitSnapshot> {
        self.batches = 0;
        self.steps.infallible("source: snapshot", || self.inner.snapshot())
    }

    fn checkpoint_committed(&mut self, checkpoint: CheckpointId) {
        self.steps.infallible("source: checkpoint committed", || self.inner.checkpoint_committed(checkpoint));
    }
}

pub struct SteppedSink {
    pub inner: Box<dyn Sink>,
    pub steps: IoSteps,
}

struct SteppedWriter {
    inner: Box<dyn SinkWriter>,
    steps: IoSteps,
}

impl SteppedSink {
    fn step<T>(&self, name: &'static str, call: impl FnOnce() -> Result<T, ConnectorError>) -> Result<T, ConnectorError> {
        let _entered = self.steps.enter();
        self.steps.call(name, call, refused(name))
    }
}

impl Sink for SteppedSink {
    fn open(&self, task: u32, parallelism: u32) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        let inner = self.step("sink: open", || self.inner.open(task, parallelism))?;
        Ok(Box::new(SteppedWriter { inner, steps: self.steps.clone() }))
    }

    fn commit(&self, committables: &[Committable]) -> Result<(), ConnectorError> {
        self.step("sink: commit", || self.inner.commit(committables))
    }

    fn abort(&self, committables: &[Committable]) -> Result<(), ConnectorError> {
        self.step("sink: abort", || self.inner.abort(committables))
    }

    fn recover(&self, decided: &[Committable], first: CheckpointId) -> Result<(), ConnectorError> {
        self.step("sink: recover", || self.inner.recover(decided, first))
    }

    fn visible(&self, epochs: Range<CheckpointId>, named: &[Committable]) -> Result<Visible, ConnectorError> {
        self.step("sink: visible", || self.inner.visible(epochs, named))
    }

    fn retract(&self, epochs: Range<CheckpointId>) -> Result<Vec<String>, ConnectorError> {
        self.step("sink: retract", || self.inner.retract(epochs))
    }

    fn strongest(&self) -> Delivery {
        self.inner.strongest()
    }
}

impl SinkWriter for SteppedWriter {
    fn begin(&mut self, epoch: CheckpointId) -> Result<(), ConnectorError> {
        let name = "sink: begin";
        self.steps.call(name, || self.inner.begin(epoch), refused(name))
    }

    fn write(&mut self, rows: &Rows) -> Result<(), ConnectorError> {
        let name = "sink: write";
        self.steps.call(name, || self.inner.write(rows), refused(name))
    }

    fn pre_commit(&mut self) -> Result<PreCommit, ConnectorError> {
        let name = "sink: end epoch";
        let pre_commit = self.steps.call(name, || self.inner.pre_commit(), refused(name))?;
        let (name, steps) = ("sink: pre-commit", self.steps.clone());
        Ok(Box::new(move || steps.call(name, pre_commit, refused(name))))
    }

    fn abort(&mut self) {
        self.steps.infallible("sink: drop epoch", || self.inner.abort());
    }
}
