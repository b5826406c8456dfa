//! Named places to crash: one between any two durable steps.
//!
//! `TIDEGATE_CRASH_AT=manifest-written-decision-not` ends the process at the first passage of that point as `kill -9` would, with `:3`
//! behind it at the third. Tests loop over [`Fault::ALL`], crash, start again, and compare what the outside sees with an oracle.
//! [`io_step`] is the other way: every call that leaves the process, by its number.
//!
//! Invariants:
//! * a point stands directly after the first of the two steps it is named after;
//! * without the variable a passage costs one load;
//! * passages are counted over all jobs of the process.

pub mod io_step;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub const CRASH_AT: &str = "TIDEGATE_CRASH_AT";

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)+) => {
        /// `AWrittenBNot`: A is durable, B has not been tried.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])* $fault,)+
        }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$fault,)+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => $name,)+
                }
            }
        }
    };
}

faults! {
    /// A job is stored, no task runs.
    JobStoredTasksNot = "job-stored-tasks-not",
    /// `inc/<n>` is ours, nobody is fenced.
    IncarnationWrittenFenceNot = "incarnation-written-fence-not",
    /// Older incarnations are dead, the choice of a savepoint or of a fresh start is not recorded.
    FenceWrittenRestoreNot = "fence-written-restore-not",
    /// That an older checkpoint is restored is in the log, newer output is still visible.
    StepBackWrittenOutputNot = "step-back-written-output-not",
    /// What to restore is settled, what was decided before is not finished.
    RestoreWrittenSinksNot = "restore-written-sinks-not",
    /// All sinks have finished what was decided, no task runs.
    SinksRecoveredTasksNot = "sinks-recovered-tasks-not",
    /// Where sources that read at most once begin is reserved, older reservations are still there and no task runs.
    BeginningReservedTasksNot = "beginning-reserved-tasks-not",
    /// Records are reserved by a source that reads at most once, none of them is handed out.
    RecordsReservedHandedOutNot = "records-reserved-handed-out-not",
    /// A sink's rows are in its staging file, which is not known to be durable.
    RowsStagedPreCommitNot = "rows-staged-pre-commit-not",
    /// A sink's part is durable, the task has not answered.
    PreCommittedAnswerNot = "pre-committed-answer-not",
    /// A task's state is in the store, the task has not answered.
    SegmentWrittenAnswerNot = "segment-written-answer-not",
    /// What barriers overtook on their way to a task is in the store, the task has not answered.
    InFlightWrittenAnswerNot = "in-flight-written-answer-not",
    /// All tasks have answered, no manifest is written.
    AllAnsweredManifestNot = "all-answered-manifest-not",
    ManifestWrittenDecisionNot = "manifest-written-decision-not",
    DecisionWrittenSinksNot = "decision-written-sinks-not",
    /// One sink has committed, another has not.
    OneSinkCommittedRestNot = "one-sink-committed-rest-not",
    /// One committable of a sink is visible, the next is not.
    OneFileCommittedRestNot = "one-file-committed-rest-not",
    SinksCommittedTrimNot = "sinks-committed-trim-not",
    LogTrimmedManifestsNot = "log-trimmed-manifests-not",
    ManifestsDeletedSegmentsNot = "manifests-deleted-segments-not",
    /// A merged segment is in the store, no chain names it.
    MergeWrittenChainNot = "merge-written-chain-not",
    /// A savepoint's segments are copied, its manifest is not.
    SavepointSegmentsWrittenManifestNot = "savepoint-segments-written-manifest-not",
    /// A savepoint's manifest is written, and nothing says that it is whole.
    SavepointManifestWrittenPointerNot = "savepoint-manifest-written-pointer-not",
    SavepointWrittenStopNot = "savepoint-written-stop-not",
    /// All output of a bounded job is visible, the job is not marked as finished.
    FinalCommittedFinishNot = "final-committed-finish-not",
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    #[error("{CRASH_AT}={value}: there is no crash point {name}; there are {}", names())]
    Unknown { value: String, name: String },
    #[error("{CRASH_AT}={value}: the passage {passage} is not a number from 1")]
    Passage { value: String, passage: String },
}

fn names() -> String {
    Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ")
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    passage: u64,
    passed: AtomicU64,
}

impl Armed {
    fn parse(value: &str) -> Result<Self, FaultError> {
        let (name, passage) = value.split_once(':').unwrap_or((value, "1"));
        let fault = Fault::ALL.iter().copied().find(|fault| fault.name() == name);
        let unknown = || FaultError::Unknown { value: value.to_owned(), name: name.to_owned() };
        let passage_error = || FaultError::Passage { value: value.to_owned(), passage: passage.to_owned() };
        let passage = passage.parse().ok().filter(|passage| *passage > 0).ok_or_else(passage_error)?;
        Ok(Self { fault: fault.ok_or_else(unknown)?, passage, passed: AtomicU64::new(0) })
    }

    fn is_due(&self, fault: Fault) -> bool {
        fault == self.fault && self.passed.fetch_add(1, Ordering::Relaxed) + 1 == self.passage
    }
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Reads the environment: called once at the start, so that a misspelt name is an error and not a test that tests nothing.
pub fn arm() -> Result<(), FaultError> {
    let armed = std::env::var(CRASH_AT).ok().map(|value| Armed::parse(&value)).transpose()?;
    // A second call finds the first one's answer, which is the same.
    ARMED.get_or_init(|| armed);
    Ok(())
}

/// A place to crash. Does nothing unless [`arm`] was called and the environment names this point.
#[inline]
pub fn point(fault: Fault) {
    if let Some(Some(armed)) = ARMED.get() {
        crash_where_due(armed, fault);
    }
}

#[cold]
fn crash_where_due(armed: &Armed, fault: Fault) {
    if armed.is_due(fault) {
        // Not `exit`: nothing may be flushed, closed or told.
        eprintln!("{CRASH_AT}: {fault}, passage {}", armed.passage);
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::process::Command;

    #[test]
    fn names_are_unique_and_lead_back_to_their_point() {
        let names: BTreeSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
        for fault in Fault::ALL {
            assert_eq!(Armed::parse(fault.name()).unwrap().fault, *fault);
        }
    }

    #[test]
    fn the_nth_passage_is_counted() {
        let armed = Armed::parse("decision-written-sinks-not:3").unwrap();
        let mut passages = (0..5).map(|_| armed.is_due(Fault::DecisionWrittenSinksNot));
        assert!(passages.by_ref().eq([false, false, true, false, false]));
        assert!(!armed.is_due(Fault::ManifestWrittenDecisionNot));
    }

    #[test]
    fn a_misspelt_point_is_an_error_that_names_the_right_ones() {
        let error = Armed::parse("decision-written").unwrap_err().to_string();
        assert!(
            error.starts_with("TIDEGATE_CRASH_AT=decision-written: there is no crash point decision-written; there are job-")
        );
        for passage in ["0", "x", "-1", ""] {
            let error = Armed::parse(&format!("decision-written-sinks-not:{passage}")).unwrap_err();
            assert!(matches!(error, FaultError::Passage { .. }), "{error}");
        }
    }

    /// Not a test of its own: the body of the process that is to crash.
    #[test]
    #[ignore = "run by a_named_passage_ends_the_process"]
    fn passes_twice() {
        arm().unwrap();
        point(Fault::ManifestWrittenDecisionNot);
        point(Fault::DecisionWrittenSinksNot);
        point(Fault::DecisionWrittenSinksNot);
    }

    #[test]
    fn a_named_passage_ends_the_process() {
        let run = |crash_at: Option<&str>| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "fault::tests::passes_twice", "--ignored", "--nocapture"]).env_remove(CRASH_AT);
            crash_at.into_iter().for_each(|value| _ = command.env(CRASH_AT, value));
            command.output().unwrap()
        };
        assert!(run(None).status.success());
        assert!(run(Some("decision-written-sinks-not:3")).status.success(), "it passes only twice");
        let crashed = run(Some("decision-written-sinks-not:2"));
        assert!(!crashed.status.success());
        assert!(String::from_utf8_lossy(&crashed.stderr).contains("TIDEGATE_CRASH_AT: decision-written-sinks-not, passage 2"));
    }
}
