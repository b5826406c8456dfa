//! `at-most-once`: what may have been handed out is not read again.
//!
//! ```text
//!  records   0 ───────────► checkpoint ───── handed out ─────► (crash) ─────► reserved ─────────►
//!                               ▲ state and output are restored from here        ▲ the source goes on from here
//!                               └────────────────── given up ────────────────────┘
//! ```
//!
//! A task that reads a source takes some batches into memory, writes down where its reader stands behind them (the *reservation*), and
//! hands them on only when that is durable. At a barrier everything that is reserved is handed on first, so a checkpoint and the
//! reservation of its time name the same positions: a job that ends in order loses nothing.
//!
//! Invariants:
//! * a record is handed out behind no reservation but its own: a restart goes on from the greatest one of each split, or from the
//!   checkpoint where that is greater;
//! * a reservation is of a split, not of a task: the job can be rescaled in between;
//! * the watermark stands where the checkpoint has it: the stream goes on as if the records in between had never been there;
//! * reservations are those of one history: a start that the user asks for ([`crate::recovery::begun_in`]) begins without.

use crate::checkpoint::{SourceSnapshot, SplitSnapshot};
use crate::replay::REPLAY_SOURCE;
use std::collections::BTreeMap;

/// Positions by source.
pub type Positions = BTreeMap<String, Vec<SplitSnapshot>>;

/// What a job that goes on at most once begins from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beginning {
    pub positions: Positions,
    /// Records between the checkpoint and where the sources go on, by source; sources that give up none are left out.
    pub given_up: BTreeMap<String, u64>,
    /// Replays of dead letters are an input too. Their positions are of key groups, so they are not comparable by their names: see
    /// [`crate::replay::Progress::raise`].
    pub replays: Vec<SplitSnapshot>,
}

/// `reserved`: everything that any task of this history has reserved.
pub fn begin(checkpoint: &Positions, reserved: &[SourceSnapshot]) -> Beginning {
    let mut beginning = Beginning::default();
    let mut greatest: BTreeMap<&str, BTreeMap<&str, &SplitSnapshot>> = BTreeMap::new();
    for snapshot in reserved {
        if snapshot.source == REPLAY_SOURCE {
            beginning.replays.extend(snapshot.splits.iter().cloned());
            continue;
        }
        let splits = greatest.entry(&snapshot.source).or_default();
        for split in &snapshot.splits {
            let kept = splits.entry(&split.split).or_insert(split);
            if split.record > kept.record {
                *kept = split;
            }
        }
    }
    for (source, reserved) in greatest {
        let restored = checkpoint.get(source).map_or(&[][..], Vec::as_slice);
        let mut splits: BTreeMap<&str, SplitSnapshot> =
            restored.iter().map(|split| (split.split.as_str(), split.clone())).collect();
        let mut given_up = 0;
        for (name, reserved) in reserved {
            let known = splits.get(name);
            let (record, max_timestamp) = known.map_or((0, None), |split| (split.record, split.max_timestamp));
            if known.is_none() || reserved.record > record {
                given_up += reserved.record - record;
                splits.insert(name, SplitSnapshot { max_timestamp, ..reserved.clone() });
            }
        }
        if given_up > 0 {
            beginning.given_up.insert(source.to_owned(), given_up);
        }
        beginning.positions.insert(source.to_owned(), splits.into_values().collect());
    }
    beginning
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn split(name: &str, record: u64, max_timestamp: Option<i64>) -> SplitSnapshot {
        SplitSnapshot { split: name.into(), position: json!({ "offset": record * 10 }), record, max_timestamp }
    }

    fn of(source: &str, splits: Vec<SplitSnapshot>) -> SourceSnapshot {
        SourceSnapshot { source: source.into(), splits }
    }

    #[test]
    fn a_split_goes_on_from_the_greatest_that_anybody_reserved() {
        let checkpoint = Positions::from([("in".into(), vec![split("a", 10, Some(100)), split("b", 20, Some(200))])]);
        let reserved = [
            of("in", vec![split("a", 15, Some(150)), split("b", 20, Some(200))]),
            of("in", vec![split("a", 40, Some(400))]),
            of("in", vec![split("a", 30, None), split("b", 12, None)]),
        ];
        let beginning = begin(&checkpoint, &reserved);
        assert_eq!(
            beginning.positions["in"],
            [split("a", 40, None), split("b", 20, Some(200))].map(|split| SplitSnapshot {
                // As the checkpoint has it.
                max_timestamp: Some(if split.split == "a" { 100 } else { 200 }),
                ..split
            })
        );
        assert_eq!(beginning.given_up, BTreeMap::from([("in".into(), 30)]));
    }

    #[test]
    fn before_the_first_checkpoint_reservations_are_all_there_is() {
        let beginning = begin(&Positions::new(), &[of("in", vec![split("0/2", 7, Some(1)), split("1/2", 0, None)])]);
        assert_eq!(beginning.positions["in"], [split("0/2", 7, None), split("1/2", 0, None)]);
        assert_eq!(beginning.given_up["in"], 7);
    }

    #[test]
    fn without_reservations_checkpoints_count() {
        let checkpoint = Positions::from([("in".into(), vec![split("a", 10, Some(100))])]);
        assert_eq!(begin(&checkpoint, &[]), Beginning::default());
        let same = begin(&checkpoint, &[of("in", vec![split("a", 10, None)])]);
        assert_eq!((&same.positions, same.given_up.len()), (&checkpoint, 0));
    }

    #[test]
    fn splits_that_only_the_checkpoint_knows_stay() {
        let checkpoint = Positions::from([("in".into(), vec![split("a", 10, None), split("z", 5, None)])]);
        let beginning = begin(&checkpoint, &[of("in", vec![split("m", 3, None)])]);
        assert_eq!(beginning.positions["in"], [split("a", 10, None), split("m", 3, None), split("z", 5, None)]);
        assert_eq!(beginning.given_up["in"], 3);
    }

    #[test]
    fn replays_are_kept_apart() {
        let replays = of(REPLAY_SOURCE, vec![split("o/00000-00010", 3, None)]);
        let beginning = begin(&Positions::new(), &[replays.clone(), replays]);
        assert_eq!((beginning.positions.len(), beginning.replays.len()), (0, 2));
    }
}
