//! What happens to a snapshot after its task has gone on: state is written to segments, sinks make their rows durable, and the
//! job hears of it.
//!
//! Invariant: acknowledgements of one task go out in the order of its barriers.

use super::Report;
use super::activity::Activity;
use super::in_flight::{ChannelStates, Inputs};
use crate::checkpoint_store::{CheckpointStore, SegmentDraft};
use crate::connector::{ConnectorError, PreCommit};
use crate::disk;
use crate::fault::{self, Fault};
use crate::state::FrozenState;
use crate::state::Segment;
use std::sync::Arc;
use std::time::Instant;
use tidegate_core::checkpoint::{
    CheckpointId, InFlight, OperatorSnapshot, SegmentRef, SinkSnapshot, SourceSnapshot, TaskId, TaskSnapshot, TaskTiming,
};
use tidegate_core::diagnosis::SnapshotStage;
use tokio::sync::{mpsc, oneshot};

pub struct AsyncPart {
    pub checkpoint: CheckpointId,
    pub sources: Vec<SourceSnapshot>,
    /// Operator, task index, and the state once the task has copied it out.
    pub operators: Vec<(String, u32, oneshot::Receiver<FrozenState>)>,
    pub sinks: Vec<(String, PreCommit)>,
    /// What the barriers overtook.
    pub in_flight: Option<InFlightPart>,
    /// It can't be completed. State and sinks are cut all the same, and count with the next checkpoint.
    pub declined: Option<String>,
    pub timing: TaskTiming,
}

pub struct InFlightPart {
    pub inputs: Arc<Inputs>,
    pub states: ChannelStates,
}

impl AsyncPart {
    pub fn new(checkpoint: CheckpointId) -> Self {
        Self {
            checkpoint,
            sources: Vec::new(),
            operators: Vec::new(),
            sinks: Vec::new(),
            in_flight: None,
            declined: None,
            timing: TaskTiming::default(),
        }
    }
}

/// Takes the parts of one task, one after another, until the task is gone.
pub async fn upload(
    task: TaskId,
    store: CheckpointStore,
    mut parts: mpsc::UnboundedReceiver<AsyncPart>,
    reports: mpsc::UnboundedSender<Report>,
    activity: Arc<Activity>,
) {
    // Committables of checkpoints that this task declined: their rows are staged, and the next acknowledgement carries them.
    let mut carried = Vec::new();
    while let Some(part) = parts.recv().await {
        let checkpoint = part.checkpoint;
        let Some(mut report) = upload_one(task, &store, part, &mut carried, &activity).await else { return };
        activity.snapshot(checkpoint, None);
        if let Report::Acknowledged { snapshot, .. } = &mut report {
            snapshot.sinks.splice(0..0, carried.drain(..));
        }
        tracing::debug!(job = store.job(), %task, checkpoint, "snapshot finished");
        if reports.send(report).is_err() {
            return;
        }
    }
}

/// `None`: the task died before its state was copied out, and the job knows already.
async fn upload_one(
    task: TaskId,
    store: &CheckpointStore,
    part: AsyncPart,
    carried: &mut Vec<SinkSnapshot>,
    activity: &Activity,
) -> Option<Report> {
    let AsyncPart { checkpoint, sources, operators, sinks, in_flight, mut declined, mut timing } = part;
    let begun = Instant::now();
    let sinks = match pre_commit(sinks).await {
        Ok(sinks) => sinks,
        Err(reason) => return Some(Report::PreCommitFailed { checkpoint, task, reason }),
    };
    let in_flight = match in_flight {
        Some(part) => match write_in_flight(store, checkpoint, part).await {
            Ok(written) => {
                timing.inflight_bytes = written.segment.bytes;
                timing.bytes += written.segment.bytes;
                Some(written)
            }
            Err(reason) => {
                declined = Some(format!("what was in flight: {reason}"));
                None
            }
        },
        None => None,
    };
    let mut snapshots = Vec::new();
    for (operator, task_index, frozen) in operators {
        activity.snapshot(checkpoint, Some(SnapshotStage::Draining));
        let frozen = frozen.await.ok()?;
        activity.snapshot(checkpoint, Some(SnapshotStage::Upload));
        match write_segment(store, &operator, task_index, checkpoint, frozen).await {
            Ok(segment) => {
                timing.bytes += segment.as_ref().map_or(0, |segment| segment.bytes);
                snapshots.push(OperatorSnapshot { operator, task_index, segment });
            }
            Err(reason) => declined = Some(format!("operator {operator}: {reason}")),
        }
    }
    timing.async_us = begun.elapsed().as_micros() as u64;
    Some(match declined {
        Some(reason) => {
            carried.extend(sinks);
            Report::Declined { checkpoint, task, reason }
        }
        None => {
            let snapshot = TaskSnapshot { sources, operators: snapshots, sinks, in_flight, timing };
            Report::Acknowledged { checkpoint, task, snapshot }
        }
    })
}

async fn pre_commit(sinks: Vec<(String, PreCommit)>) -> Result<Vec<SinkSnapshot>, String> {
    if sinks.is_empty() {
        return Ok(Vec::new());
    }
    let done = tokio::task::spawn_blocking(move || {
        let one = |(sink, pre_commit): (String, PreCommit)| -> Result<SinkSnapshot, (String, ConnectorError)> {
            fault::point(Fault::RowsStagedPreCommitNot);
            match pre_commit() {
                Ok(committables) => {
                    fault::point(Fault::PreCommittedAnswerNot);
                    Ok(SinkSnapshot { sink, committables })
                }
                Err(error) => Err((sink, error)),
            }
        };
        sinks.into_iter().map(one).collect::<Result<Vec<_>, _>>()
    });
    match done.await {
        Ok(Ok(sinks)) => Ok(sinks),
        Ok(Err((sink, error))) => Err(format!("sink {sink}: {error}")),
        Err(panicked) => Err(format!("a pre-commit panicked: {panicked}")),
    }
}

async fn write_segment(
    store: &CheckpointStore,
    operator: &str,
    task_index: u32,
    checkpoint: CheckpointId,
    frozen: FrozenState,
) -> Result<Option<SegmentRef>, String> {
    // An empty full snapshot says that there is no state any more; an empty delta says nothing.
    if frozen.entries() == 0 && !frozen.is_full() {
        return Ok(None);
    }
    let segment = tokio::task::spawn_blocking(move || frozen.write_segment())
        .await
        .map_err(|e| format!("writing a segment panicked: {e}"))?;
    let written = put_segment(store, operator, task_index, checkpoint, segment).await?;
    fault::point(Fault::SegmentWrittenAnswerNot);
    Ok(Some(written))
}

async fn write_in_flight(store: &CheckpointStore, checkpoint: CheckpointId, part: InFlightPart) -> Result<InFlight, String> {
    let InFlightPart { inputs, states } = part;
    let (bytes, channels) = states.encode(&inputs);
    let draft = SegmentDraft {
        operator: &inputs.node,
        task_index: inputs.task_index,
        checkpoint,
        first_group: inputs.groups.start,
        end_group: inputs.groups.end,
        full: true,
        entries: channels.iter().map(|channel| channel.rows).sum(),
    };
    let segment = store.put_in_flight(draft, bytes.into()).await.map_err(|e| explain(&e))?;
    fault::point(Fault::InFlightWrittenAnswerNot);
    let Inputs { node, task_index, parallelism, keyed, .. } = &*inputs;
    Ok(InFlight { node: node.clone(), task_index: *task_index, parallelism: *parallelism, keyed: *keyed, channels, segment })
}

pub async fn put_segment(
    store: &CheckpointStore,
    operator: &str,
    task_index: u32,
    checkpoint: CheckpointId,
    segment: Segment,
) -> Result<SegmentRef, String> {
    let Segment { bytes, entries, full, first_group, end_group, .. } = segment;
    let draft = SegmentDraft { operator, task_index, checkpoint, first_group, end_group, full, entries };
    store.put_segment(draft, bytes.into()).await.map_err(|e| explain(&e))
}

/// An error with its causes and what to do about it, for a reason that is only text.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text.push_str(&disk::advice(error));
    text
}
