//! The latest checkpoint of a job, and what happens when it can't be read: an older one, if no reader gets a row twice by that or the
//! user allows it. What is done is decided in `tidegate_core::recovery`; here the facts are gathered and the outcome is told.
//!
//! ```text
//!  candidates, newest first ─► the first that can be read whole ─► what is visible that came after it?
//!     ─► nothing is wrong ─► restored
//!     ─► may step back ═══ decision: restore, with what is skipped ═══► newer output is taken back ─► restored, and told
//!     ─► must ask ─► the job fails, with what is damaged, what would be repeated, and the command that allows it
//! ```
//!
//! Invariants:
//! * a checkpoint is restored only if its manifest and all its segments are as they were written;
//! * the step back is in the log before any output is taken back: a crash in between takes back the rest, and chooses nothing else;
//! * output of a successor that has fenced us is out of reach: it has epochs from `first` on.

use super::Clock;
use super::plan::JobPlan;
use super::restore::{Chosen, Failed, Rewinds, Sinks, Start, fatal, for_each_sink};
use crate::api::{Damaged, RestoreReport};
use crate::checkpoint_store::{CheckpointStore, DecisionLog, StoreError, Whole};
use crate::connector::{Sink, Visible};
use crate::fault::{self, Fault};
use crate::task::snapshot::explain;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tidegate_core::checkpoint::{CheckpointId, Committable};
use tidegate_core::job_graph::spec::Delivery;
use tidegate_core::recovery::{self, Candidate, Facts, Question, StepBack, Verdict};

/// Names of files that a message lists.
const LISTED_MAX: usize = 5;

/// A job that is to go on from its latest checkpoint.
pub(super) struct Newest<'a> {
    pub plan: &'a JobPlan,
    pub store: &'a CheckpointStore,
    pub start: &'a Start,
    pub sinks: &'a Arc<Sinks>,
    /// The first checkpoint of this incarnation.
    pub first: CheckpointId,
    /// There are manifests, and no entry of the log but our own fence.
    pub log_is_lost: bool,
    pub rewinds: Rewinds<'a>,
    pub clock: Clock,
}

/// Of the candidates.
struct Found {
    /// Its place among them.
    sound: Option<(usize, Whole)>,
    damaged: Vec<Damaged>,
    /// What manifests name that can be read though the checkpoint can't.
    named: BTreeMap<String, Vec<Committable>>,
}

impl Newest<'_> {
    pub async fn choose(&self, log: &mut DecisionLog) -> Result<Chosen, Failed> {
        let entries = log.entries().to_vec();
        let candidates = recovery::candidates(&entries);
        let Found { sound, mut damaged, named } = self.look(&candidates).await?;
        let place = sound.as_ref().map(|(place, _)| *place);
        let doubtful = recovery::doubtful(&entries);
        let in_log =
            |(seq, why): &(u64, &str)| Damaged { checkpoint: None, why: format!("entry {seq} of the decision log: {why}") };
        damaged.splice(0..0, doubtful.iter().map(in_log));
        if self.log_is_lost {
            let why = "the decision log is empty, but checkpoints were written".to_owned();
            damaged.push(Damaged { checkpoint: None, why });
        }
        let newer_from = match place {
            Some(place) => candidates[place].newer_from,
            None if candidates.is_empty() => recovery::begun_from_nothing(&entries),
            // Nothing can be restored, so nothing is taken back.
            None => self.first,
        };
        let epochs = newer_from.min(self.first)..self.first;
        let visible = self.visible(epochs.clone(), named).await?;
        let (newer, gone) = visible.values().fold((0, 0), |(newer, gone), it| (newer + it.there.len(), gone + it.gone.len()));
        let verdict = recovery::step_back(Facts {
            candidates: candidates.len(),
            sound: place,
            in_doubt: self.log_is_lost || !doubtful.is_empty() || place.is_some_and(|place| candidates[place].in_doubt),
            newer,
            gone,
            agreed: place.is_some_and(|place| candidates[place].agreed),
            may_repeat: self.plan.spec.delivery == Delivery::AtLeastOnce,
            allowed: self.start.allow_step_back,
        });
        let decide = match verdict {
            Verdict::GoOn => {
                return Ok(match sound {
                    Some((place, whole)) => Chosen::from(candidates[place].pointer, whole),
                    None => Chosen::nothing(),
                });
            }
            Verdict::Ask(question) => return Err(fatal(self.ask(question, &damaged, &candidates, place, &visible))),
            Verdict::NothingSound => return Err(fatal(self.nothing_sound(&damaged, &visible))),
            Verdict::StepBack { decide } => decide,
        };
        let (place, whole) = sound.expect("BUG: a step back to no checkpoint");
        let pointer = candidates[place].pointer.clone();
        if decide {
            let skipped = candidates[..place].iter().map(|candidate| candidate.pointer.checkpoint).collect();
            let id = if self.start.allow_step_back { self.start.id.clone() } else { format!("step-back-{}", log.incarnation()) };
            self.rewinds.to(Some(&whole.manifest), &id).await?;
            log.restore(Some(pointer.clone()), &id, Some(StepBack { skipped, newer_from }), self.clock.now_ms()).await?;
        }
        fault::point(Fault::StepBackWrittenOutputNot);
        let retracted = for_each_sink(self.sinks, move |_, sink: &dyn Sink| sink.retract(epochs.clone())).await?;
        let mut chosen = Chosen::from(&pointer, whole);
        chosen.report.damaged = damaged;
        chosen.report.retracted = retracted.into_iter().filter(|(_, names)| !names.is_empty()).collect();
        let repeated = visible.into_iter().map(|(sink, visible)| (sink, visible.gone)).filter(|(_, names)| !names.is_empty());
        chosen.report.repeated = repeated.collect();
        self.tell(&chosen.report);
        Ok(chosen)
    }

    /// The first candidate that can be read whole. A store that does not answer is no damage: the job tries again, unless the user
    /// has said that it is to step back.
    async fn look(&self, candidates: &[Candidate<'_>]) -> Result<Found, Failed> {
        let mut found = Found { sound: None, damaged: Vec::new(), named: BTreeMap::new() };
        for (place, candidate) in candidates.iter().enumerate() {
            let error = match self.store.read_whole(candidate.pointer).await {
                Ok(whole) => {
                    found.sound = Some((place, whole));
                    break;
                }
                Err(error @ (StoreError::Missing { .. } | StoreError::Corrupt { .. })) => error,
                Err(error @ StoreError::Failed { .. }) if self.start.allow_step_back => error,
                Err(error) => return Err(error.into()),
            };
            found.damaged.push(Damaged { checkpoint: Some(candidate.pointer.checkpoint), why: explain(&error) });
            if let Ok(manifest) = self.store.read_manifest(candidate.pointer).await {
                for (sink, committables) in manifest.sinks {
                    found.named.entry(sink).or_default().extend(committables);
                }
            }
        }
        Ok(found)
    }

    async fn visible(
        &self,
        epochs: Range<CheckpointId>,
        named: BTreeMap<String, Vec<Committable>>,
    ) -> Result<BTreeMap<String, Visible>, Failed> {
        if epochs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let look = move |name: &str, sink: &dyn Sink| sink.visible(epochs.clone(), named.get(name).map_or(&[], Vec::as_slice));
        for_each_sink(self.sinks, look).await
    }

    fn ask(
        &self,
        question: Question,
        damaged: &[Damaged],
        candidates: &[Candidate<'_>],
        place: Option<usize>,
        visible: &BTreeMap<String, Visible>,
    ) -> String {
        let place = place.expect("BUG: a question about no checkpoint");
        let sound = candidates[place].pointer.checkpoint;
        let why = match question {
            Question::LogInDoubt => {
                "what can't be read there may be a newer checkpoint, or your own start from a savepoint or from nothing"
                    .to_owned()
            }
            Question::OutputGone => {
                let gone = listed(visible, |visible| &visible.gone);
                format!("rows that were committed after it and have been taken away would be written again: {gone}")
            }
        };
        format!(
            "the latest checkpoint can't be restored: {}. The newest one that can is {sound}, but {why}. \
             To go on from {sound} all the same: tidegate job start {} --from latest --allow-step-back. \
             Otherwise put the damaged files back from a copy, or start from a savepoint",
            list_damaged(damaged),
            self.store.job()
        )
    }

    fn nothing_sound(&self, damaged: &[Damaged], visible: &BTreeMap<String, Visible>) -> String {
        let what = match damaged {
            [] => {
                let seen = listed(visible, |visible| if visible.there.is_empty() { &visible.gone } else { &visible.there });
                format!("the decision log of the job is empty, but it has committed output ({seen})")
            }
            damaged => format!("no checkpoint of the job can be restored: {}", list_damaged(damaged)),
        };
        let job = self.store.job();
        format!(
            "{what}. Put the files back from a copy, or start from a savepoint (tidegate savepoint list {job}); \
             to begin again from nothing, with all rows written again: tidegate job start {job} --from fresh"
        )
    }

    fn tell(&self, report: &RestoreReport) {
        tracing::error!(
            job = self.store.job(),
            checkpoint = report.checkpoint,
            damaged = list_damaged(&report.damaged),
            retracted = ?report.retracted,
            repeated = ?report.repeated,
            "the job is restored from an older checkpoint: the latest can't be read"
        );
    }
}

fn list_damaged(damaged: &[Damaged]) -> String {
    let one = |damaged: &Damaged| match damaged.checkpoint {
        Some(checkpoint) => format!("checkpoint {checkpoint}: {}", damaged.why),
        None => damaged.why.clone(),
    };
    if damaged.is_empty() {
        return "entries at the end of the decision log are missing".to_owned();
    }
    damaged.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn listed(visible: &BTreeMap<String, Visible>, names: fn(&Visible) -> &Vec<String>) -> String {
    let one = |(sink, visible): (&String, &Visible)| {
        let names = names(visible);
        let more = names.len().saturating_sub(LISTED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("sink {sink}: {}{more}", names[..names.len().min(LISTED_MAX)].join(", ")))
    };
    visible.iter().filter_map(one).collect::<Vec<_>>().join("; ")
}
