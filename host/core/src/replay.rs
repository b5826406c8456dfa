//! Dead letters that go back into the job: how far each operator has come in the log of replays.
//!
//! A replay is an input like any other. Its log has dense numbers; an entry names letters, and each letter is read by the task that
//! owns the letter's key group. What a task has read is part of its snapshot, so a crash neither loses nor doubles a letter.
//!
//! ```text
//!   entry 1: [letter, letter]   entry 2: discard   entry 3: rewind to checkpoint 7   entry 4: [letter]
//!            ▲ group 17 stands here                                  ▲ group 3000 stands here
//! ```
//!
//! Invariants:
//! * every key group of an operator has one position; a task reads from the least of its groups, and passes over what a group has
//!   behind it. So a job can be rescaled in the middle of a replay;
//! * positions belong to one log (the job's id): those of another job, or of a job of the same name before this one, count for nothing;
//! * a letter of a time line that was given up is void: after a start from an older checkpoint its record is read again by the
//!   source itself, and must not come twice.

use crate::checkpoint::{CheckpointId, SplitSnapshot};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The source that replays are in manifests. No node of a job can have the name.
pub const REPLAY_SOURCE: &str = "~replay";

/// The letter that is read next. Entries count from 1, their letters from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub entry: u64,
    pub letter: u64,
}

impl Position {
    pub const START: Self = Self { entry: 1, letter: 0 };

    pub fn next_letter(self) -> Self {
        Self { letter: self.letter + 1, ..self }
    }

    pub fn next_entry(self) -> Self {
        Self { entry: self.entry + 1, letter: 0 }
    }
}

/// Groups `first..end` of an operator, and where they stand. The form in manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    log: String,
    operator: String,
    first: u32,
    end: u32,
    #[serde(flatten)]
    position: Position,
}

/// How far the groups of one operator have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    log: String,
    operator: String,
    /// In the order of their groups, without gaps.
    parts: Vec<(Range<u32>, Position)>,
}

impl Progress {
    /// For the groups that a task owns, or all of them. Groups that the snapshot does not know begin at the start of the log.
    pub fn restored(log: &str, operator: &str, owned: Range<u32>, snapshot: &[SplitSnapshot]) -> Self {
        let mut known: Vec<Part> = snapshot
            .iter()
            .filter_map(|split| serde_json::from_value::<Part>(split.position.clone()).ok())
            .filter(|part| part.log == log && part.operator == operator && part.first < owned.end && owned.start < part.end)
            .collect();
        known.sort_by_key(|part| part.first);
        let mut parts = Vec::new();
        let mut at = owned.start;
        for part in known {
            let (first, end) = (part.first.max(at), part.end.min(owned.end));
            if first >= end {
                continue;
            }
            if at < first {
                parts.push((at..first, Position::START));
            }
            parts.push((first..end, part.position));
            at = end;
        }
        if at < owned.end {
            parts.push((at..owned.end, Position::START));
        }
        let mut progress = Self { log: log.to_owned(), operator: operator.to_owned(), parts };
        progress.join_equal();
        progress
    }

    fn join_equal(&mut self) {
        self.parts.dedup_by(|next, part| {
            let equal = part.1 == next.1;
            if equal {
                part.0.end = next.0.end;
            }
            equal
        });
    }

    /// What has to be read next.
    pub fn next(&self) -> Position {
        self.parts.iter().map(|(_, position)| *position).min().unwrap_or(Position::START)
    }

    /// Whether the letter at that place is for one of these groups and was not read yet.
    pub fn wants(&self, group: u32, at: Position) -> bool {
        self.parts.iter().any(|(groups, position)| groups.contains(&group) && *position <= at)
    }

    /// Everything in front of `to` was read, or passed over.
    pub fn advance(&mut self, to: Position) {
        for (_, position) in &mut self.parts {
            *position = (*position).max(to);
        }
        self.join_equal();
    }

    /// Groups that stand behind where a snapshot has them go there: what lies between may have been delivered.
    pub fn raise(&mut self, snapshot: &[SplitSnapshot]) {
        for split in snapshot {
            let Ok(part) = serde_json::from_value::<Part>(split.position.clone()) else { continue };
            if part.log != self.log || part.operator != self.operator {
                continue;
            }
            let raised = part.first..part.end;
            let cut = std::mem::take(&mut self.parts).into_iter().flat_map(|(groups, position)| {
                let (from, to) = (raised.start.clamp(groups.start, groups.end), raised.end.clamp(groups.start, groups.end));
                let to = to.max(from);
                [(groups.start..from, position), (from..to, position.max(part.position)), (to..groups.end, position)]
            });
            self.parts = cut.filter(|(groups, _)| !groups.is_empty()).collect();
            self.join_equal();
        }
    }

    pub fn snapshot(&self) -> Vec<SplitSnapshot> {
        let split = |(groups, position): &(Range<u32>, Position)| {
            let part = Part {
                log: self.log.clone(),
                operator: self.operator.clone(),
                first: groups.start,
                end: groups.end,
                position: *position,
            };
            SplitSnapshot {
                split: format!("{}/{:05}-{:05}", self.operator, groups.start, groups.end),
                position: serde_json::to_value(part).expect("BUG: a position is JSON"),
                record: position.letter,
                max_timestamp: None,
            }
        };
        self.parts.iter().map(split).collect()
    }
}

/// The user started the job from an older checkpoint, or from nothing (`to` 0): everything after it was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewind {
    pub to: CheckpointId,
    /// The first checkpoint after the start.
    pub next: CheckpointId,
}

impl Rewind {
    /// A letter of that epoch belongs to what was given up.
    pub fn voids(&self, epoch: CheckpointId) -> bool {
        self.to < epoch && epoch < self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_group;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(entry: u64, letter: u64) -> Position {
        Position { entry, letter }
    }

    #[test]
    fn groups_that_nobody_knows_begin_at_the_start_of_the_log() {
        let mut half = Progress::restored("job", "o", 0..50, &[]);
        assert_eq!(half.next(), Position::START);
        half.advance(at(3, 2));
        let whole = Progress::restored("job", "o", 0..100, &half.snapshot());
        assert_eq!((whole.next(), whole.parts.len()), (Position::START, 2));
        assert!(!whole.wants(49, at(3, 1)) && whole.wants(49, at(3, 2)) && whole.wants(50, at(1, 0)));
    }

    #[test]
    fn positions_of_another_log_or_operator_count_for_nothing() {
        let mut done = Progress::restored("job", "o", 0..100, &[]);
        done.advance(at(9, 0));
        for (log, operator) in [("other", "o"), ("job", "p")] {
            assert_eq!(Progress::restored(log, operator, 0..100, &done.snapshot()).next(), Position::START);
        }
        assert_eq!(Progress::restored("job", "o", 0..100, &done.snapshot()).next(), at(9, 0));
    }

    #[test]
    fn groups_are_raised_to_where_anybody_has_seen_them_and_never_lowered() {
        let mut seen = Progress::restored("job", "o", 40..60, &[]);
        seen.advance(at(3, 2));
        let mut half = Progress::restored("job", "o", 50..100, &[]);
        half.advance(at(2, 0));
        let mut whole = Progress::restored("job", "o", 0..100, &[]);
        whole.raise(&[seen.snapshot(), half.snapshot()].concat());
        assert_eq!(whole.parts, [(0..40, Position::START), (40..60, at(3, 2)), (60..100, at(2, 0))]);
        whole.raise(&half.snapshot());
        assert_eq!(whole.parts.len(), 3);
        let mut other = Progress::restored("job", "p", 0..100, &[]);
        other.raise(&seen.snapshot());
        assert_eq!(other.next(), Position::START);
    }

    #[test]
    fn a_rewind_voids_what_came_after_it_and_nothing_else() {
        let rewind = Rewind { to: 7, next: 20 };
        assert_eq!([7, 8, 19, 20].map(|epoch| rewind.voids(epoch)), [false, true, true, false]);
    }

    proptest! {
        /// Letters are read by whoever owns their group, in steps of any size, with rescales in between: each once, in order.
        #[test]
        fn each_letter_is_read_once_and_in_order_however_the_job_is_rescaled(
            groups in proptest::collection::vec(0u32..64, 1..60),
            stops in proptest::collection::vec((1u32..6, proptest::collection::vec(0usize..30, 6)), 1..8),
        ) {
            let mut snapshot = Vec::new();
            let mut read: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
            let last = (3, vec![usize::MAX; 6]);
            for (parallelism, steps) in stops.iter().chain([&last]) {
                let mut next = Vec::new();
                for task in 0..*parallelism {
                    let owned = key_group::groups_of(task, 64, *parallelism);
                    let mut progress = Progress::restored("job", "o", owned, &snapshot);
                    let mut position = progress.next();
                    for _ in 0..steps[task as usize].min(groups.len()) {
                        let Some(group) = groups.get(position.letter as usize) else { break };
                        if progress.wants(*group, position) {
                            read.entry(*group).or_default().push(position.letter);
                        }
                        position = position.next_letter();
                        progress.advance(position);
                    }
                    next.extend(progress.snapshot());
                }
                snapshot = next;
            }
            let mut expected: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
            for (letter, group) in (0..).zip(&groups) {
                expected.entry(*group).or_default().push(letter);
            }
            prop_assert_eq!(read, expected);
        }
    }
}
