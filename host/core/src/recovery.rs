//! What a new incarnation of a job decides from the decision log: where to fence, what to restore, which ids are free.
//!
//! ```text
//!  commits/   1 fence(1)   2 commit cp 1   3 commit cp 2   4 fence(2)   5 restore savepoint x   6 commit cp 103   7 fence(3)
//!             incarnation 1 ─────────────────────────────  incarnation 2 ────────────────────────────────────────  incarnation 3
//! ```
//!
//! Entries are created if absent, at dense numbers, and never changed. An incarnation writes a fence at the end of the log before it
//! does anything else; the last `commit` or `restore` before the fence is what it restores. Whoever worked on the job until then
//! tries its next number, finds the fence, and stops for good.
//!
//! Invariants:
//! * after a fence no older incarnation adds a decision: the number behind its last entry is taken, for ever;
//! * so trimming deletes old commits and restores, oldest first, and never a fence;
//! * a fence counts when nothing lies behind it once it is written: a host that read the log long ago may have put it in a place
//!   that was trimmed since, and it reads again then;
//! * what was decided last is what is restored: a start from a savepoint or from nothing is a decision too, and a crash right after
//!   it does not fall back to an older checkpoint;
//! * checkpoint ids are used once in the life of a job, also those of checkpoints that nobody decided;
//! * an entry that can't be read stands in the log as [`Decision::Lost`]. Below the last decision it changes nothing; behind it the
//!   truth may be in it, and nobody guesses. [`step_back`] says what follows from damage.
//!
//! What this is not: a lease. Two hosts that take a job from each other all the time make no progress, but no mistake either.

use crate::checkpoint::{CheckpointId, Manifest, ManifestPointer, OperatorManifest, SegmentRef};
use crate::key_group;
use crate::limits::CHECKPOINTS_UNDECIDED_MAX;
use crate::problem::Problem;
use crate::state_schema::StateDeclaration;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Position in the decision log, from 1.
pub type Seq = u64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The number it was written for; it is also its name in the store.
    pub seq: Seq,
    pub incarnation: u64,
    /// Of the incarnation. Together with `seq` it tells an entry of ours from anybody else's.
    pub uuid: String,
    #[serde(flatten)]
    pub decision: Decision,
    /// For people.
    pub time_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Decision {
    /// The checkpoint is true.
    Commit { pointer: ManifestPointer },
    /// Older incarnations are dead; this one uses ids from `first_checkpoint` on.
    Fence { first_checkpoint: CheckpointId },
    /// The job goes on from here, whatever was decided before. `None`: from nothing. `start` names the request of the user, so that
    /// it is not carried out twice.
    Restore {
        pointer: Option<ManifestPointer>,
        start: String,
        /// It was not the user who chose: something newer could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step_back: Option<StepBack>,
    },
    /// In memory only: the entry is missing or damaged.
    #[serde(skip)]
    Lost { why: String },
}

/// A restore that leaves out what can't be read any more. The history before it goes on to be this job's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepBack {
    /// Checkpoints that were decided and are given up, newest first.
    pub skipped: Vec<CheckpointId>,
    /// Output of these epochs and later ones is what the job will produce again.
    pub newer_from: CheckpointId,
}

impl LogEntry {
    /// For an entry that is missing or can't be read.
    pub fn lost(seq: Seq, why: String) -> Self {
        Self { seq, incarnation: 0, uuid: String::new(), decision: Decision::Lost { why }, time_ms: 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restore {
    /// Nothing was decided, or the last decision was to start from nothing.
    Fresh,
    From(ManifestPointer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where to try to write the fence.
    pub fence_at: Seq,
    pub restore: Restore,
    /// The first id that no incarnation can have used.
    pub next_checkpoint: CheckpointId,
}

/// The decision log does not add up. Nothing may be guessed from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CorruptLog {
    #[error(
        "the decision log has entries {before} and {after}, and nothing between them: entries were lost, \
         restore the job's folder from a backup or start the job from a savepoint under a new name"
    )]
    Gap { before: Seq, after: Seq },
    #[error("entry {seq} of the decision log says that it is entry {says}: files were renamed or copied")]
    Misplaced { seq: Seq, says: Seq },
}

/// What to do with a log that was read to its end. Entries in the order of their numbers.
pub fn plan(entries: &[(Seq, LogEntry)]) -> Result<Plan, CorruptLog> {
    check(entries)?;
    let last_seq = entries.last().map_or(0, |(seq, _)| *seq);
    let restore = match entries.iter().rev().find_map(|(_, entry)| decided(entry)) {
        Some(Some(pointer)) => Restore::From(pointer.clone()),
        Some(None) | None => Restore::Fresh,
    };
    // An incarnation stays within CHECKPOINTS_UNDECIDED_MAX of its first id, of what it restored and of what it decided.
    let used = entries.iter().map(|(_, entry)| match &entry.decision {
        Decision::Commit { pointer } | Decision::Restore { pointer: Some(pointer), .. } => pointer.checkpoint + 1,
        Decision::Fence { first_checkpoint } => *first_checkpoint,
        Decision::Restore { pointer: None, .. } | Decision::Lost { .. } => 1,
    });
    // A lost entry may have been a decision, and with it ids went on as far.
    let lost = entries.iter().filter(|(_, entry)| matches!(entry.decision, Decision::Lost { .. })).count() as u64;
    let margin = CHECKPOINTS_UNDECIDED_MAX + lost * (CHECKPOINTS_UNDECIDED_MAX + 1);
    let next_checkpoint = used.max().map_or(1, |base| base.saturating_add(margin));
    Ok(Plan { fence_at: last_seq + 1, restore, next_checkpoint })
}

/// Outer `None`: a fence, which decides nothing about the state.
fn decided(entry: &LogEntry) -> Option<Option<&ManifestPointer>> {
    match &entry.decision {
        Decision::Commit { pointer } => Some(Some(pointer)),
        Decision::Restore { pointer, .. } => Some(pointer.as_ref()),
        Decision::Fence { .. } | Decision::Lost { .. } => None,
    }
}

/// The incarnation in which the user last started the job from a savepoint or from nothing, or 0: what was reserved before it belongs
/// to another history. Where that entry was trimmed, so were the reservations, because a start clears them before it decides anything.
pub fn begun_in(entries: &[(Seq, LogEntry)]) -> u64 {
    let begins = |entry: &LogEntry| matches!(entry.decision, Decision::Restore { step_back: None, .. });
    entries.iter().rfind(|(_, entry)| begins(entry)).map_or(0, |(_, entry)| entry.incarnation)
}

/// Puts [`Decision::Lost`] where numbers are missing, from the oldest decision on. Only for a log that was read often enough to know
/// that nobody is trimming it meanwhile.
pub fn fill_gaps(entries: &mut Vec<(Seq, LogEntry)>) {
    let Some(last) = entries.last().map(|(seq, _)| *seq) else { return };
    let oldest = entries.iter().find(|(_, entry)| decided(entry).is_some());
    let first = match oldest {
        // What lies below it was trimmed.
        Some((seq, _)) => *seq,
        None => 1,
    };
    let known: BTreeSet<Seq> = entries.iter().map(|(seq, _)| *seq).collect();
    let missing = (first..last).filter(|seq| !known.contains(seq));
    entries.extend(missing.map(|seq| (seq, LogEntry::lost(seq, "it is missing".to_owned()))));
    entries.sort_by_key(|(seq, _)| *seq);
}

/// The entries behind the last decision that can't be read: one of them may have been a newer decision.
pub fn doubtful(entries: &[(Seq, LogEntry)]) -> Vec<(Seq, &str)> {
    let behind = entries.iter().rev().take_while(|(_, entry)| decided(entry).is_none());
    let lost = behind.filter_map(|(seq, entry)| match &entry.decision {
        Decision::Lost { why } => Some((*seq, why.as_str())),
        _ => None,
    });
    lost.collect()
}

/// From the oldest decision on, numbers are dense. Below it only fences are left, because trimming spares them.
fn check(entries: &[(Seq, LogEntry)]) -> Result<(), CorruptLog> {
    for (seq, entry) in entries {
        if entry.seq != *seq {
            return Err(CorruptLog::Misplaced { seq: *seq, says: entry.seq });
        }
    }
    let Some(oldest) = entries.iter().position(|(_, entry)| decided(entry).is_some()) else {
        // Only fences: nothing has been decided, so nothing has been trimmed.
        return check_dense(0, entries);
    };
    let trimmed = oldest > 0 || entries[0].0 > 1;
    // Numbers begin at 1.
    let first = entries[oldest].0;
    let before = if trimmed { first.checked_sub(1).ok_or(CorruptLog::Gap { before: 0, after: first })? } else { 0 };
    check_dense(before, &entries[oldest..])
}

fn check_dense(mut before: Seq, entries: &[(Seq, LogEntry)]) -> Result<(), CorruptLog> {
    for (seq, _) in entries {
        if *seq != before + 1 {
            return Err(CorruptLog::Gap { before, after: *seq });
        }
        before = *seq;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Our own earlier try went through.
    Mine,
    Theirs,
}

/// A create answered that the entry exists, or did not answer and it was found: whose is it?
pub fn create_answered(existing: &LogEntry, my_uuid: &str) -> Answered {
    if existing.uuid == my_uuid { Answered::Mine } else { Answered::Theirs }
}

/// A newer incarnation has the right of way: who finds an entry of one in the log stops before it fences.
pub fn superseded_by(entries: &[(Seq, LogEntry)], my_incarnation: u64) -> Option<&LogEntry> {
    entries.iter().map(|(_, entry)| entry).rfind(|entry| entry.incarnation > my_incarnation)
}

/// Whether a fence that was just written stands at the end of the log. Else it means nothing, does no harm, and the log has to be
/// read again: it was written to a number that had been taken and trimmed.
pub fn fence_holds(fence_at: Seq, last_in_log: Seq) -> bool {
    fence_at == last_in_log
}

/// The entries to delete, in this order, when checkpoints older than `oldest` can't be restored any more. The order matters: a
/// crash halfway leaves a dense log.
pub fn removable(entries: &[(Seq, LogEntry)], oldest: CheckpointId) -> Vec<Seq> {
    let names = |entry: &LogEntry| decided(entry).flatten().is_some_and(|pointer| pointer.checkpoint == oldest);
    let Some(kept) = entries.iter().rposition(|(_, entry)| names(entry)) else { return Vec::new() };
    entries[..kept].iter().filter(|(_, entry)| decided(entry).is_some()).map(|(seq, _)| *seq).collect()
}

/// A decided checkpoint that a job can go back to, as long as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub pointer: &'a ManifestPointer,
    /// Output of these epochs and later ones came after it.
    pub newer_from: CheckpointId,
    /// Going back to it was decided already, and nothing since: what came after it may be taken back without asking again.
    pub agreed: bool,
    /// Entries that can't be read lie between the end of the log and this one.
    pub in_doubt: bool,
}

/// What the job can be restored from, newest first, back to where the user last started it from a savepoint or from nothing: what
/// lies before that is another history.
pub fn candidates(entries: &[(Seq, LogEntry)]) -> Vec<Candidate<'_>> {
    let mut found: Vec<Candidate> = Vec::new();
    let (mut skipped, mut in_doubt) = (BTreeSet::new(), false);
    for (_, entry) in entries.iter().rev() {
        match &entry.decision {
            Decision::Fence { .. } => {}
            Decision::Lost { .. } => in_doubt = true,
            Decision::Commit { pointer } => {
                let known = found.iter().any(|candidate| candidate.pointer.path == pointer.path);
                if !known && !skipped.contains(&pointer.checkpoint) {
                    found.push(Candidate { pointer, newer_from: pointer.checkpoint + 1, agreed: false, in_doubt });
                }
            }
            Decision::Restore { pointer, step_back: Some(step), .. } => {
                skipped.extend(step.skipped.iter().copied());
                if let Some(pointer) = pointer
                    && !found.iter().any(|candidate| candidate.pointer.path == pointer.path)
                {
                    let agreed = found.is_empty() && !in_doubt;
                    found.push(Candidate { pointer, newer_from: step.newer_from, agreed, in_doubt });
                }
            }
            Decision::Restore { pointer, step_back: None, .. } => {
                if let Some(pointer) = pointer {
                    found.push(Candidate {
                        pointer,
                        newer_from: first_id_of(entries, entry.incarnation),
                        agreed: false,
                        in_doubt,
                    });
                }
                break;
            }
        }
    }
    found
}

/// Output of these epochs and later ones belongs to the history that began from nothing, if the job has decided nothing since.
pub fn begun_from_nothing(entries: &[(Seq, LogEntry)]) -> CheckpointId {
    let last = entries.iter().map(|(_, entry)| entry).rfind(|entry| decided(entry).is_some());
    last.map_or(1, |entry| first_id_of(entries, entry.incarnation))
}

/// Above every id of those before it.
fn first_id_of(entries: &[(Seq, LogEntry)], incarnation: u64) -> CheckpointId {
    let first = entries.iter().find_map(|(_, entry)| match entry.decision {
        Decision::Fence { first_checkpoint } if entry.incarnation == incarnation => Some(first_checkpoint),
        _ => None,
    });
    // Its fence is lost: nothing is known to be newer, and nothing is taken back on a guess.
    first.unwrap_or(CheckpointId::MAX)
}

/// What was found out about a job that is to go on from its latest checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// How many [`candidates`] there are, and the first one that can be read whole.
    pub candidates: usize,
    pub sound: Option<usize>,
    /// [`doubtful`] entries lie behind the last decision, or [`Candidate::in_doubt`] is true of the sound one.
    pub in_doubt: bool,
    /// Visible output that is newer than the sound one and would be produced again. It can be taken back.
    pub newer: usize,
    /// The same, where it can't be taken back: somebody has taken it away.
    pub gone: usize,
    pub agreed: bool,
    /// The job promises at-least-once only.
    pub may_repeat: bool,
    /// The user said that the job may step back.
    pub allowed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong: the newest decision is restored, or there is none yet.
    GoOn,
    /// From the sound candidate. Newer output is taken back. With `decide`, this is a decision and goes into the log first.
    StepBack { decide: bool },
    /// A user has to allow it.
    Ask(Question),
    /// No checkpoint can be read, or the log of a job that has output is gone. Never answered with a start from nothing.
    NothingSound,
}

/// Why a step back is not for the host to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What can't be read may have been the user's own start from a savepoint or from nothing.
    LogInDoubt,
    /// Rows that somebody has taken away would be written again.
    OutputGone,
}

/// Whether to step back from what can't be read, to the newest checkpoint that can. Done at once where no reader gets a row twice by
/// it; else asked for.
pub fn step_back(facts: Facts) -> Verdict {
    let Facts { candidates, sound, in_doubt, newer, gone, agreed, may_repeat, allowed } = facts;
    let Some(sound) = sound else {
        let is_new = candidates == 0 && !in_doubt && newer + gone == 0;
        return if is_new { Verdict::GoOn } else { Verdict::NothingSound };
    };
    if sound == 0 && !in_doubt {
        if newer + gone == 0 {
            return Verdict::GoOn;
        }
        if agreed {
            return Verdict::StepBack { decide: false };
        }
    }
    match () {
        () if allowed => Verdict::StepBack { decide: true },
        () if in_doubt => Verdict::Ask(Question::LogInDoubt),
        () if gone > 0 && !may_repeat => Verdict::Ask(Question::OutputGone),
        () => Verdict::StepBack { decide: true },
    }
}

/// The completed checkpoints that may still be in the store, oldest first: candidates for retention.
pub fn completed(entries: &[(Seq, LogEntry)]) -> Vec<&ManifestPointer> {
    let mut pointers: Vec<&ManifestPointer> = Vec::new();
    for (_, entry) in entries {
        if let Decision::Restore { step_back: Some(step), .. } = &entry.decision {
            // Given up: nobody goes back to them.
            pointers.retain(|known| !step.skipped.contains(&known.checkpoint));
        }
        let Some(pointer) = decided(entry).flatten() else { continue };
        // Restored again: it is as young as its last decision.
        pointers.retain(|known| known.path != pointer.path);
        pointers.push(pointer);
    }
    pointers
}

/// Whether the log knows of this request already.
pub fn has_started(entries: &[(Seq, LogEntry)], request: &str) -> bool {
    entries.iter().any(|(_, entry)| matches!(&entry.decision, Decision::Restore { start, .. } if start == request))
}

/// What the job that is to be started has, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobShape {
    pub key_groups: u32,
    pub sources: BTreeSet<String>,
    /// With their parallelism.
    pub operators: BTreeMap<String, u32>,
    pub sinks: BTreeSet<String>,
    /// Of operators and sinks: how many inputs they have, and whether by key.
    pub inputs: BTreeMap<String, (u32, bool)>,
}

/// How a checkpoint fits a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Operators whose parallelism changed: their state is split again by key group.
    pub resplit: Vec<String>,
    /// Operators that start empty.
    pub fresh: Vec<String>,
    /// Operators, sources and sinks whose part of the checkpoint is dropped, as was allowed.
    pub dropped: Vec<String>,
}

impl Match {
    /// Whether every task can go on with the segments of the task of the same index.
    pub fn inherits_chains(&self) -> bool {
        self.resplit.is_empty()
    }
}

/// Matches by name, never by position. Says everything that does not fit at once.
pub fn match_job(manifest: &Manifest, job: &JobShape, may_drop: &BTreeSet<String>) -> Result<Match, Vec<Problem>> {
    let mut found = Match::default();
    let mut problems = Vec::new();
    if manifest.key_groups != job.key_groups {
        let message = format!(
            "checkpoint {} was taken with {} key groups, and their number can't change in the life of a job",
            manifest.checkpoint, manifest.key_groups
        );
        problems.push(Problem::new("key_groups", Some(job.key_groups.to_string()), message));
    }
    let mut missing = |kind: &str, name: &str, what: &str| {
        if may_drop.contains(name) {
            found.dropped.push(name.to_owned());
            return;
        }
        let checkpoint = manifest.checkpoint;
        let message = format!(
            "checkpoint {checkpoint} holds {what} of the {kind} {name}, which the job does not have: \
             add it again, or give up all that is stored (--from fresh)"
        );
        problems.push(Problem::new(format!("{kind}.{name}"), None, message));
    };
    for (name, operator) in &manifest.operators {
        if !job.operators.contains_key(name) && operator.tasks.iter().any(|chain| !chain.is_empty()) {
            missing("operator", name, "state");
        }
    }
    for (name, splits) in &manifest.sources {
        if !job.sources.contains(name) && !splits.is_empty() {
            missing("source", name, "positions");
        }
    }
    for (name, committables) in &manifest.sinks {
        if !job.sinks.contains(name) && !committables.is_empty() {
            missing("sink", name, "decided output that may not be visible yet");
        }
    }
    for in_flight in &manifest.in_flight {
        let name = &in_flight.node;
        let inputs = in_flight.channels.iter().filter(|channel| channel.bytes > 0).map(|channel| channel.input + 1).max();
        let why = match job.inputs.get(name) {
            None => "which the job does not have".to_owned(),
            Some((_, keyed)) if *keyed != in_flight.keyed => "whose input had another key".to_owned(),
            Some((now, _)) if Some(*now) < inputs => format!("which has only {now} inputs"),
            Some(_) => continue,
        };
        let checkpoint = manifest.checkpoint;
        let message = format!(
            "checkpoint {checkpoint} is unaligned and holds rows on their way to {name}, {why}: \
             run the job as it was, stop it with a savepoint, which has none on their way, and start from that"
        );
        if !problems.iter().any(|problem: &Problem| problem.message == message) {
            problems.push(Problem::new(format!("node.{name}"), None, message));
        }
    }
    for (name, parallelism) in &job.operators {
        match manifest.operators.get(name) {
            None => found.fresh.push(name.clone()),
            Some(operator) if operator.parallelism != *parallelism => found.resplit.push(name.clone()),
            Some(_) => {}
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// Whether the states that the job's operators declare can hold what a checkpoint has for them. Says everything that does not fit at
/// once; the operators themselves are matched by [`match_job`].
pub fn match_states(manifest: &Manifest, declared: &BTreeMap<String, Vec<StateDeclaration>>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, operator) in &manifest.operators {
        let has_state = operator.tasks.iter().any(|chain| !chain.is_empty());
        // One that can't be read has none, as those of operators without state.
        let stored: Vec<StateDeclaration> = serde_json::from_value(operator.states.clone()).unwrap_or_default();
        let Some(declared) = declared.get(name).filter(|_| has_state) else { continue };
        for was in &stored {
            let key = format!("operator.{name}.states.{}", was.name);
            let Some(is) = declared.iter().find(|state| state.name == was.name) else {
                let message =
                    format!("checkpoint {} holds this state, and {name} declares none of this name", manifest.checkpoint);
                problems.push(Problem::new(key, None, message));
                continue;
            };
            let size = |state: &StateDeclaration| state.fixed_size().filter(|size| *size > 0);
            if was.kind != is.kind {
                let message = format!("is declared as {:?}, checkpoint {} holds {:?}", is.kind, manifest.checkpoint, was.kind);
                problems.push(Problem::new(key, None, message));
            } else if let (Some(had), Some(has)) = (size(was), size(is))
                && had != has
            {
                let message = format!("has values of {has} bytes, checkpoint {} holds values of {had}", manifest.checkpoint);
                problems.push(Problem::new(key, None, message));
            }
        }
    }
    problems
}

/// The chains that hold the state of these key groups, which may have been written with another parallelism. Their segments may
/// hold other groups too.
pub fn chains_for(operator: &OperatorManifest, groups: Range<u32>, key_groups: u32) -> Vec<&[SegmentRef]> {
    let owned_by = |task: usize| key_group::groups_of(task as u32, key_groups, operator.parallelism);
    let overlaps = |task: usize| {
        let owned = owned_by(task);
        owned.start < groups.end && groups.start < owned.end
    };
    let chains = operator.tasks.iter().enumerate().filter(|(task, chain)| !chain.is_empty() && overlaps(*task));
    chains.map(|(_, chain)| chain.as_slice()).collect()
}

#[cfg(test)]
mod tests;
