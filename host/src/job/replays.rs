//! Dead letters that people send back, or are done with: which may be, and what became of each.
//!
//! ```text
//!   open ──► pending (an entry of the log names it) ──► replayed (a completed checkpoint has it behind its position)
//!     └────► discarded                    rewound: the job was started from before it, its record is read again
//! ```
//!
//! Invariant: what became of a letter is read from what is durable, the log of replays and the completed checkpoints; there is nothing
//! else that could disagree with them.

use super::dead_letters;
use super::plan::pointers;
use super::replay_log::{EntryKind, ReplayLog, Requested, head};
use super::runtime::SharedRuntime;
use crate::api::{LetterState, LetterStateName, ReplayRequest, ReplayView, now_ms};
use crate::checkpoint_store::StoreError;
use crate::connector::dead_letter::{self, DeadLetter, DeadLetterKind};
use crate::job_manager::{JobError, ReplayError};
use crate::job_store::StoredJob;
use crate::task::edge::read_key;
use crate::task::snapshot::explain;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tidegate_core::checkpoint::{CheckpointId, SplitSnapshot};
use tidegate_core::job_graph::spec::KeySpec;
use tidegate_core::key_group;
use tidegate_core::limits::{REPLAY_BYTES_MAX, REPLAY_LETTERS_MAX};
use tidegate_core::recovery;
use tidegate_core::replay::{Progress, REPLAY_SOURCE};

/// Letters that an answer names one by one.
const NAMED_MAX: usize = 100;

/// What became of the letters of a job, as of now.
pub struct LetterStates {
    log: Arc<ReplayLog>,
    requested: BTreeMap<String, Requested>,
    job_id: String,
    key_groups: u32,
    /// Positions of completed checkpoints, oldest first.
    completed: Vec<(CheckpointId, Vec<SplitSnapshot>)>,
}

impl LetterStates {
    pub fn of(&self, id: &str) -> LetterState {
        let state = |state, request, checkpoint| LetterState { state, request, checkpoint };
        let Some(requested) = self.requested.get(id) else {
            let name = if self.log.is_rewound(id) { LetterStateName::Rewound } else { LetterStateName::Open };
            return state(name, None, None);
        };
        let request = Some(requested.at.entry);
        if requested.kind == EntryKind::Discard {
            return state(LetterStateName::Discarded, request, None);
        }
        let has_read = |splits: &[SplitSnapshot]| {
            !Progress::restored(&self.job_id, &requested.operator, 0..self.key_groups, splits)
                .wants(requested.group, requested.at)
        };
        let replayed = self.completed.iter().rev().take_while(|(_, splits)| has_read(splits)).last();
        match replayed {
            Some((checkpoint, _)) => state(LetterStateName::Replayed, request, Some(*checkpoint)),
            None => state(LetterStateName::Pending, request, None),
        }
    }
}

impl SharedRuntime {
    pub(super) async fn letter_states(&self, job: &StoredJob) -> Result<LetterStates, JobError> {
        let attempted = format!("see what became of the dead letters of {}", job.name);
        let failed = |error: StoreError| JobError::new(&attempted, explain(&error));
        let store = self.0.open_store(&job.name).map_err(failed)?;
        let log = store.read_log().await.map_err(failed)?;
        let mut completed = Vec::new();
        for pointer in recovery::completed(&log) {
            match store.read_manifest(pointer).await {
                Ok(mut manifest) => {
                    completed.push((pointer.checkpoint, manifest.sources.remove(REPLAY_SOURCE).unwrap_or_default()))
                }
                // Given up by retention while we looked.
                Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let folder = self.0.folder(&job.name);
        let read = tokio::task::spawn_blocking(move || {
            let log = ReplayLog::open(&folder)?;
            let requested = log.requested()?;
            Ok::<_, std::io::Error>((log, requested))
        });
        let (log, requested) = read.await.map_err(|e| JobError::new(&attempted, e))?.map_err(|e| JobError::new(&attempted, e))?;
        Ok(LetterStates { log, requested, job_id: job.job_id.clone(), key_groups: job.spec.key_groups, completed })
    }

    /// Chooses letters and writes the request down. Of two requests at once, one finds the letters of the other taken.
    pub(super) async fn request_replay(
        &self,
        job: &StoredJob,
        request: ReplayRequest,
        kind: EntryKind,
    ) -> Result<(ReplayView, u64), ReplayError> {
        loop {
            let states = self.letter_states(job).await?;
            let (folder, job, request) = (self.0.folder(&job.name), job.clone(), request.clone());
            let done = tokio::task::spawn_blocking(move || write_request(&folder, &job, &states, &request, kind)).await;
            let attempted = "write down a replay of dead letters";
            if let Some(done) = done.map_err(|e| JobError::new(attempted, e))?? {
                return Ok(done);
            }
        }
    }
}

/// `None`: another request came first.
fn write_request(
    folder: &Path,
    job: &StoredJob,
    states: &LetterStates,
    request: &ReplayRequest,
    kind: EntryKind,
) -> Result<Option<(ReplayView, u64)>, ReplayError> {
    let known = states.log.len();
    let (letters, mut view) = choose(&dead_letters::folder(folder), job, states, request, kind)?;
    view.letters = letters.len() as u64;
    view.ids = letters.iter().take(NAMED_MAX).map(|(_, letter)| letter.id.clone()).collect();
    if request.dry_run || letters.is_empty() {
        return Ok(Some((view, known)));
    }
    let number = known + 1;
    let written = states.log.create(number, &head(kind, now_ms(), &letters), &letters);
    if !written.map_err(|e| JobError::new(format!("write down a replay of dead letters of {}", job.name), e))? {
        return Ok(None);
    }
    view.request = Some(number);
    Ok(Some((view, number)))
}

fn refused(cause: String, remedy: &str) -> ReplayError {
    ReplayError::Refused { cause, remedy: remedy.to_owned() }
}

type Chosen = Vec<(u32, DeadLetter)>;

fn choose(
    folder: &Path,
    job: &StoredJob,
    states: &LetterStates,
    request: &ReplayRequest,
    kind: EntryKind,
) -> Result<(Chosen, ReplayView), ReplayError> {
    let filtered = request.operator.is_some() || request.after_ms.is_some() || request.before_ms.is_some();
    if request.ids.is_empty() && !filtered && !request.all {
        return Err(refused(
            "the request chooses no letters".into(),
            "choose with ids, operator, after_ms and before_ms, or say all",
        ));
    }
    if !request.ids.is_empty() && (filtered || request.all) {
        return Err(refused("ids and a filter were given".into(), "give the ids alone, or the filter alone"));
    }
    let mut view = ReplayView { dry_run: request.dry_run, ..ReplayView::default() };
    let mut chosen = Chosen::new();
    let mut bytes = 0;
    let read = |e: std::io::Error| JobError::new(format!("read the dead letters of {}", job.name), e);
    // The group and the letter, or why it can't be replayed.
    let fit = |letter: DeadLetter| -> Result<(u32, DeadLetter), (LetterStateName, String)> {
        let state = states.of(&letter.id);
        if !(state.state.is_open() || request.force && state.state != LetterStateName::Rewound) {
            return Err((state.state, state.to_string()));
        }
        match kind {
            EntryKind::Discard => Ok((0, letter)),
            _ => placed(job, letter).map_err(|why| (LetterStateName::Open, why)),
        }
    };
    if !request.ids.is_empty() {
        let ids: BTreeSet<&String> = request.ids.iter().collect();
        if ids.len() > REPLAY_LETTERS_MAX {
            let cause = format!("{} ids exceed the limit of {REPLAY_LETTERS_MAX} (replay_letters_max)", ids.len());
            return Err(refused(cause, "send several requests"));
        }
        for id in ids {
            let Some(letter) = dead_letter::find(folder, id).map_err(read)? else {
                return Err(ReplayError::NoLetter(id.chars().take(80).collect()));
            };
            match fit(letter) {
                Ok(fits) => {
                    bytes += fits.1.bytes();
                    if bytes > REPLAY_BYTES_MAX {
                        let cause = format!("the letters exceed the limit of {REPLAY_BYTES_MAX} bytes (replay_bytes_max)");
                        return Err(refused(cause, "send several requests"));
                    }
                    chosen.push(fits);
                }
                Err((state, why)) => {
                    let remedy = match state {
                        LetterStateName::Open => "correct the record where it comes from, or discard the letter",
                        LetterStateName::Rewound => "wait: the record itself is read again",
                        _ => "force it (`force`) to do it once more",
                    };
                    return Err(refused(format!("dead letter {id} {why}"), remedy));
                }
            }
        }
    } else {
        dead_letter::scan(folder, |letter| {
            let in_time = request.after_ms.is_none_or(|after| letter.processing_time_ms > after)
                && request.before_ms.is_none_or(|before| letter.processing_time_ms < before);
            if !in_time || request.operator.as_ref().is_some_and(|operator| *operator != letter.operator) {
                return true;
            }
            match fit(letter) {
                Ok(fits) => {
                    bytes += fits.1.bytes();
                    view.more = chosen.len() == REPLAY_LETTERS_MAX || (bytes > REPLAY_BYTES_MAX && !chosen.is_empty());
                    if !view.more {
                        chosen.push(fits);
                    }
                }
                Err((LetterStateName::Open, _)) => *view.left_out.entry("not-replayable".into()).or_default() += 1,
                Err((state, _)) => *view.left_out.entry(state.name().into()).or_default() += 1,
            }
            !view.more
        })
        .map_err(read)?;
    }
    Ok((chosen, view))
}

/// Where a letter goes: the key group decides about the task. A key that was not found is looked for again, as the job is now.
fn placed(job: &StoredJob, mut letter: DeadLetter) -> Result<(u32, DeadLetter), String> {
    if letter.kind == DeadLetterKind::Decode {
        return Err("was refused by the source, which reads its own input only".to_owned());
    }
    let Some(operator) = job.spec.operators.iter().find(|operator| operator.name == letter.operator) else {
        return Err(format!("is of operator {}, which the job has no longer", letter.operator));
    };
    if letter.call.input as usize >= operator.inputs.len() {
        return Err(format!("came by input {} of operator {}, which it has no longer", letter.call.input, operator.name));
    }
    if letter.kind == DeadLetterKind::Key
        && let Some(KeySpec::Json(fields)) = &operator.key
    {
        let mut key = Vec::new();
        if let Err(error) = read_key(letter.value.as_deref(), &pointers(fields), &mut key) {
            return Err(format!("still has no key: {error}"));
        }
        letter.key = key;
    }
    // What needs no key stays in the order of its split.
    let keyed = operator.key.is_some() || !letter.key.is_empty();
    let by = if keyed { letter.key.clone() } else { letter.split.clone().unwrap_or_default().into_bytes() };
    Ok((key_group::group_of(key_group::hash(&by), job.spec.key_groups), letter))
}
