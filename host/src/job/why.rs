//! Facts about what a run waits for, collected by looking at it several times within a moment. What they mean is decided in
//! `tidegate_core::diagnosis`.
//!
//! Invariant: nothing here slows a task down: it reads what the tasks' threads have written anyway.

use super::Command;
use super::status::{JobShared, TaskView};
use crate::api::now_ms;
use crate::task::activity::{Doing, uptime_ms};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tidegate_core::checkpoint::{CheckpointProgress, TaskId};
use tidegate_core::diagnosis::{
    AlignmentFacts, CheckpointFacts, RunFacts, Shares, SnapshotFacts, TaskFacts, Wait, watermark_holder,
};
use tokio::sync::{mpsc, oneshot};

/// Looks at the tasks, and the time between two of them: a share is as fine as there are looks.
const LOOKS: u32 = 16;
const BETWEEN_LOOKS: Duration = Duration::from_millis(12);
/// A driver that carries something out may be a moment; one that is taking the job down does not answer at all.
const PROGRESS_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Seen {
    busy: u32,
    guest: u32,
    resting: u32,
    downstream: BTreeMap<String, u32>,
}

pub async fn facts(shared: &JobShared, commands: mpsc::UnboundedSender<Command>) -> RunFacts {
    let mut seen: HashMap<TaskId, Seen> = HashMap::new();
    for look in 0..LOOKS {
        if look > 0 {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        let views = shared.views();
        if views.is_empty() {
            break;
        }
        let names = names(&views);
        for view in &views {
            count(view, &names, seen.entry(view.id).or_default());
        }
    }
    let (reply, answer) = oneshot::channel();
    let asked = commands.send(Command::Progress { reply }).is_ok();
    let progress = match asked {
        // Dropped, or too late: then nothing is known of checkpoints.
        true => tokio::time::timeout(PROGRESS_TIMEOUT, answer).await.ok().and_then(Result::ok).unwrap_or_default(),
        false => Vec::new(),
    };
    let views = shared.views();
    let names = names(&views);
    let mut facts = shared.facts();
    facts.tasks = views.iter().map(|view| task(view, &names, seen.get(&view.id).unwrap_or(&Seen::default()))).collect();
    facts.checkpoints = progress.into_iter().map(|it| checkpoint(it, &names)).collect();
    let sources: Vec<_> = views
        .iter()
        .zip(&facts.tasks)
        .filter(|(view, task)| view.makes_watermarks && !matches!(task.wait, Wait::SourceEnded | Wait::SourceStopped))
        .map(|(view, task)| (view.id, task.watermark))
        .collect();
    if let Some(holder) = watermark_holder(&sources) {
        let holds = |task: &&mut TaskFacts| (task.vertex, task.index) == (holder.vertex, holder.index);
        facts.tasks.iter_mut().filter(holds).for_each(|task| task.holds_watermark = true);
    }
    facts
}

fn names(views: &[TaskView]) -> HashMap<TaskId, String> {
    views.iter().map(|view| (view.id, view.name.clone())).collect()
}

fn name(names: &HashMap<TaskId, String>, id: Option<&TaskId>) -> String {
    id.and_then(|id| names.get(id)).cloned().unwrap_or_else(|| "a task".to_owned())
}

fn count(view: &TaskView, names: &HashMap<TaskId, String>, seen: &mut Seen) {
    match view.activity.now().0 {
        Doing::Working | Doing::Draining => seen.busy += 1,
        Doing::Guest(_) => {
            seen.busy += 1;
            seen.guest += 1;
        }
        Doing::Downstream(target) => {
            *seen.downstream.entry(name(names, view.targets.get(target as usize))).or_default() += 1;
        }
        Doing::Waiting | Doing::SourceWaits | Doing::SourceEnded | Doing::SourceStopped => seen.resting += 1,
        Doing::Starting | Doing::Ended => {}
    }
}

/// The wall clock's time of a moment that the activity's clock has noted.
fn wall(since_ms: u64) -> u64 {
    now_ms().saturating_sub(uptime_ms().saturating_sub(since_ms))
}

fn task(view: &TaskView, names: &HashMap<TaskId, String>, seen: &Seen) -> TaskFacts {
    let (doing, since_ms, rows) = view.activity.now();
    let missing = |channels: &[usize]| channels.iter().map(|channel| name(names, view.channels.get(*channel))).collect();
    let alignment = view.activity.alignment().map(|it| AlignmentFacts {
        checkpoint: it.checkpoint,
        since_ms: wall(it.since_ms),
        missing: missing(&it.missing),
    });
    let wait = match doing {
        Doing::Starting => Wait::Starting,
        Doing::Waiting => match &alignment {
            Some(AlignmentFacts { checkpoint, missing, .. }) => {
                Wait::Alignment { checkpoint: *checkpoint, missing: missing.clone() }
            }
            None => Wait::Input,
        },
        Doing::Downstream(target) => Wait::Downstream { task: name(names, view.targets.get(target as usize)) },
        Doing::Guest(node) => {
            let operator = view.nodes.get(node as usize).map(|(name, _)| name.clone()).unwrap_or_default();
            let deadline_ms = view.deadlines_ms.get(node as usize).copied().unwrap_or(0);
            Wait::GuestCall { operator, rows, deadline_ms }
        }
        Doing::Draining => Wait::Draining,
        Doing::Working => Wait::Working,
        Doing::SourceWaits if view.paced => Wait::SourceThrottled,
        Doing::SourceWaits => Wait::SourceIdle,
        Doing::SourceEnded => Wait::SourceEnded,
        Doing::SourceStopped => Wait::SourceStopped,
        Doing::Ended => Wait::Ended,
    };
    let share = |looks: u32| f64::from(looks) / f64::from(LOOKS);
    let snapshot = view.activity.snapshotting().map(|it| SnapshotFacts {
        checkpoint: it.checkpoint,
        stage: it.stage,
        since_ms: wall(it.since_ms),
    });
    TaskFacts {
        name: view.name.clone(),
        vertex: view.id.vertex,
        index: view.id.index,
        nodes: view.nodes.iter().map(|(name, _)| name.clone()).collect(),
        source: view.source,
        paced: view.paced,
        wait,
        since_ms: wall(since_ms),
        shares: Shares {
            busy: share(seen.busy),
            guest: share(seen.guest),
            resting: share(seen.resting),
            downstream: seen.downstream.iter().map(|(task, looks)| (task.clone(), share(*looks))).collect(),
        },
        alignment,
        snapshot,
        watermark: view.nodes.iter().filter_map(|(_, metrics)| metrics.watermark.get()).min(),
        holds_watermark: false,
    }
}

fn checkpoint(progress: CheckpointProgress, names: &HashMap<TaskId, String>) -> CheckpointFacts {
    let CheckpointProgress { checkpoint, kind, triggered_ms, phase, phase_since_ms, missing } = progress;
    let missing = missing.iter().map(|id| name(names, Some(id))).collect();
    CheckpointFacts { checkpoint, kind, triggered_ms, phase, phase_since_ms, missing }
}
