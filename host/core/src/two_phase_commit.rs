//! The ledger of committables: what sinks made durable and nobody has committed yet.
//!
//! ```text
//!  reported by a task's acknowledgement ─► named by the next manifest ─► committed with its permit ─► confirmed, forgotten
//!          of a checkpoint that was aborted: stays, and goes with the next one
//! ```
//!
//! Invariants:
//! * what was reported stays until a checkpoint that names it is confirmed;
//! * a manifest names everything that was reported for it or for an older checkpoint and is not confirmed: sources are not
//!   rewound by an aborted checkpoint, so its rows exist nowhere else;
//! * nothing can be reported for a checkpoint that a manifest was made for: that row would be in no manifest.
//!
//! What this is not: durable. After a restart the manifest is the ledger, and recovery finishes it before a task starts.

use crate::checkpoint::{CheckpointId, Committable, SinkSnapshot, TaskId};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Ledger {
    /// The order of the keys is the order of commit.
    reported: BTreeMap<(CheckpointId, TaskId), Vec<SinkSnapshot>>,
    /// The newest checkpoint that a manifest was made for.
    named: CheckpointId,
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// A task acknowledged, in time or late. It does so once for a checkpoint, and in order.
    pub fn reported(&mut self, checkpoint: CheckpointId, task: TaskId, sinks: Vec<SinkSnapshot>) {
        assert!(
            checkpoint > self.named,
            "BUG: task {task} reported committables for checkpoint {checkpoint} after the manifest of {} was made",
            self.named
        );
        let sinks: Vec<_> = sinks.into_iter().filter(|sink| !sink.committables.is_empty()).collect();
        if !sinks.is_empty() {
            let before = self.reported.insert((checkpoint, task), sinks);
            assert!(before.is_none(), "BUG: task {task} reported committables for checkpoint {checkpoint} twice");
        }
    }

    /// For a checkpoint's manifest: from here on nothing may be reported for it or an older one.
    pub fn name_up_to(&mut self, checkpoint: CheckpointId) -> BTreeMap<String, Vec<Committable>> {
        self.named = self.named.max(checkpoint);
        self.unconfirmed_up_to(checkpoint)
    }

    /// By sink, oldest checkpoint first.
    pub fn unconfirmed_up_to(&self, checkpoint: CheckpointId) -> BTreeMap<String, Vec<Committable>> {
        let mut by_sink = BTreeMap::<_, Vec<_>>::new();
        for ((reported_for, _), sinks) in &self.reported {
            if *reported_for > checkpoint {
                break;
            }
            for SinkSnapshot { sink, committables } in sinks {
                by_sink.entry(sink.clone()).or_default().extend(committables.iter().cloned());
            }
        }
        by_sink
    }

    /// Every sink committed all that the checkpoint named.
    pub fn confirmed(&mut self, checkpoint: CheckpointId) {
        assert!(checkpoint <= self.named, "BUG: checkpoint {checkpoint} was confirmed before its manifest was made");
        self.reported.retain(|(reported_for, _), _| *reported_for > checkpoint);
    }

    pub fn unconfirmed(&self) -> usize {
        self.reported.values().flatten().map(|sink| sink.committables.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn task(index: u32) -> TaskId {
        TaskId { vertex: 0, index }
    }

    fn sink(name: &str, files: &[&str]) -> SinkSnapshot {
        SinkSnapshot { sink: name.into(), committables: files.iter().map(|file| json!(file)).collect() }
    }

    fn named(by_sink: BTreeMap<String, Vec<Committable>>) -> Vec<String> {
        by_sink.into_iter().map(|(sink, files)| format!("{sink}: {}", json!(files))).collect()
    }

    #[test]
    fn committables_are_named_by_sink_and_in_the_order_of_checkpoints() {
        let mut ledger = Ledger::new();
        ledger.reported(1, task(1), vec![sink("out", &["1-1"]), sink("late", &["l1"])]);
        ledger.reported(1, task(0), vec![sink("out", &["1-0a", "1-0b"]), sink("late", &[])]);
        assert_eq!(named(ledger.name_up_to(1)), [r#"late: ["l1"]"#, r#"out: ["1-0a","1-0b","1-1"]"#]);
        ledger.confirmed(1);
        assert_eq!((ledger.unconfirmed(), ledger.unconfirmed_up_to(9).len()), (0, 0));
    }

    #[test]
    fn those_of_an_aborted_checkpoint_go_with_the_next() {
        let mut ledger = Ledger::new();
        ledger.reported(1, task(0), vec![sink("out", &["a"])]); // 1 is aborted: nobody asks for its manifest
        ledger.reported(2, task(0), vec![sink("out", &["b"])]);
        ledger.reported(3, task(0), vec![sink("out", &["c"])]);
        assert_eq!(named(ledger.name_up_to(2)), [r#"out: ["a","b"]"#]);
        ledger.confirmed(2);
        assert_eq!(named(ledger.name_up_to(3)), [r#"out: ["c"]"#]);
    }

    #[test]
    fn a_manifest_made_before_the_last_commit_is_confirmed_names_that_again() {
        let mut ledger = Ledger::new();
        ledger.reported(1, task(0), vec![sink("out", &["a"])]);
        ledger.name_up_to(1);
        ledger.reported(2, task(0), vec![sink("out", &["b"])]);
        assert_eq!(named(ledger.name_up_to(2)), [r#"out: ["a","b"]"#]);
        ledger.confirmed(1);
        assert_eq!(named(ledger.unconfirmed_up_to(2)), [r#"out: ["b"]"#]);
    }

    #[test]
    #[should_panic(expected = "BUG: task 0/0 reported committables for checkpoint 1 after the manifest of 2 was made")]
    fn nothing_is_reported_behind_a_manifest() {
        let mut ledger = Ledger::new();
        ledger.name_up_to(2);
        ledger.reported(1, task(0), vec![]);
    }

    proptest! {
        /// Checkpoints complete or are aborted, commits are confirmed late or soon: each committable is committed once.
        #[test]
        fn every_committable_is_committed_once(epochs in prop::collection::vec((any::<bool>(), 0usize..3, any::<bool>()), 0..30)) {
            let mut ledger = Ledger::new();
            let (mut reported, mut committed, mut waiting) = (BTreeSet::new(), Vec::new(), Vec::new());
            let commit = |ledger: &mut Ledger, committed: &mut Vec<String>, checkpoint| {
                committed.extend(ledger.unconfirmed_up_to(checkpoint).into_values().flatten().map(|file| file.to_string()));
                ledger.confirmed(checkpoint);
            };
            for (epoch, (completes, files, confirm)) in epochs.into_iter().enumerate() {
                let checkpoint = epoch as u64 + 1;
                let committables: Vec<_> = (0..files).map(|file| json!(format!("{checkpoint}-{file}"))).collect();
                reported.extend(committables.iter().map(|file| file.to_string()));
                ledger.reported(checkpoint, task(0), vec![SinkSnapshot { sink: "out".into(), committables }]);
                if completes {
                    let names: BTreeSet<_> = ledger.name_up_to(checkpoint).into_values().flatten().map(|f| f.to_string()).collect();
                    let open = reported.iter().filter(|file| !committed.contains(*file));
                    prop_assert!(open.into_iter().all(|file| names.contains(file)));
                    waiting.push(checkpoint);
                }
                if confirm {
                    waiting.drain(..).for_each(|checkpoint| commit(&mut ledger, &mut committed, checkpoint));
                }
            }
            ledger.name_up_to(1000);
            commit(&mut ledger, &mut committed, 1000);
            prop_assert_eq!(committed.len(), reported.len());
            prop_assert_eq!(committed.into_iter().collect::<BTreeSet<_>>(), reported);
        }
    }
}
