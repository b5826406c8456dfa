//! The states of one run of a job.
//!
//! ```text
//!  created ─► starting ─► running ─────────────────────────► finished
//!               ▲  │         │ ▲ └─► stopping ─────────────► stopped
//!               │  └──┐   ┌──┘ └─────┘ (the savepoint failed)
//!               │     ▼   ▼
//!      restarting ◄─ failing ─────────────────────────────► failed
//!
//!  any of them ─► cancelling ─────────────────────────────► cancelled
//! ```
//!
//! Invariants:
//! * [`JobState::after`] is the only way from one state to another, and what it does not list is refused by name;
//! * nothing leads out of a terminal state: starting a stopped job again makes a new run, which begins at `created`;
//! * a failure is never lost: it leads to `failing`, and from there only to a restart, to `failed`, or to a cancel by the user;
//! * a cancel always gets through, and only an end that is stored already overtakes it.

use JobEvent::*;
use JobState::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Checked and stored; nothing runs.
    Created,
    /// Incarnation, restore, tasks coming up.
    Starting,
    Running,
    /// A stop with savepoint is under way: the job still runs.
    Stopping,
    /// Tasks are being taken down, and nothing is to be kept.
    Cancelling,
    /// Something failed: tasks are being taken down, and the restart strategy is asked.
    Failing,
    /// No task runs; waiting for the delay of the restart strategy.
    Restarting,
    /// All input was read, and the final checkpoint is committed.
    Finished,
    /// With a savepoint.
    Stopped,
    Cancelled,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobEvent {
    StartRequested,
    /// All tasks are restored and run.
    TasksStarted,
    /// The final checkpoint of a bounded input is committed.
    InputFinished,
    /// Stop with a savepoint.
    StopRequested,
    /// The savepoint is stored and all tasks are down.
    StopCompleted,
    /// There is no savepoint, and no task has failed: the job goes on.
    StopFailed,
    CancelRequested,
    /// After a cancel all tasks are down.
    TasksCancelled,
    /// Of a task, the coordinator, a restore. Several may come from one fault.
    FailureReported,
    /// All tasks are down, and the restart strategy has named a delay.
    RestartScheduled,
    /// The delay is over.
    RestartDue,
    /// All tasks are down, and the restart strategy or the kind of failure allows no further try.
    GaveUp,
}

/// An event that has no place in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {} can't take \"{}\"{}", .state.name(), .event.name(), self.remedy())]
pub struct Refused {
    pub state: JobState,
    pub event: JobEvent,
}

impl JobState {
    pub const ALL: [Self; 11] =
        [Created, Starting, Running, Stopping, Cancelling, Failing, Restarting, Finished, Stopped, Cancelled, Failed];

    /// The table. One line for each pair that has a meaning.
    pub fn after(self, event: JobEvent) -> Result<Self, Refused> {
        Ok(match (self, event) {
            (Created, StartRequested) => Starting,
            (Created, CancelRequested) => Cancelled,

            (Starting, TasksStarted) => Running,
            // What was restored is a final checkpoint whose commit the run before did not see through.
            (Starting, InputFinished) => Finished,
            (Starting, CancelRequested) => Cancelling,
            (Starting, FailureReported) => Failing,

            (Running, InputFinished) => Finished,
            (Running, StopRequested) => Stopping,
            (Running, CancelRequested) => Cancelling,
            (Running, FailureReported) => Failing,

            // The input may end while the savepoint is under way: then there is nothing left to stop.
            (Stopping, InputFinished) => Finished,
            (Stopping, StopCompleted) => Stopped,
            (Stopping, StopFailed) => Running,
            (Stopping, CancelRequested) => Cancelling,
            (Stopping, FailureReported) => Failing,

            // The final checkpoint may have been decided before the tasks heard of the cancel: what is committed is committed.
            (Cancelling, InputFinished) => Finished,
            (Cancelling, StopCompleted) => Stopped,
            (Cancelling, TasksCancelled) => Cancelled,
            // Repeated by an impatient user, or the echo of tasks and savepoints that were torn from their channels.
            (Cancelling, CancelRequested | FailureReported | StopFailed) => Cancelling,

            (Failing, RestartScheduled) => Restarting,
            (Failing, GaveUp) => Failed,
            (Failing, CancelRequested) => Cancelling,
            // One task's fault makes its neighbours fail as well, and the savepoint that was under way.
            (Failing, FailureReported | StopFailed) => Failing,

            (Restarting, RestartDue) => Starting,
            (Restarting, CancelRequested) => Cancelled,

            (state, event) => return Err(Refused { state, event }),
        })
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Finished | Stopped | Cancelled | Failed)
    }

    /// As in JSON, on the command line and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Created => "created",
            Starting => "starting",
            Running => "running",
            Stopping => "stopping",
            Cancelling => "cancelling",
            Failing => "failing",
            Restarting => "restarting",
            Finished => "finished",
            Stopped => "stopped",
            Cancelled => "cancelled",
            Failed => "failed",
        }
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl JobEvent {
    pub const ALL: [Self; 12] = [
        StartRequested,
        TasksStarted,
        InputFinished,
        StopRequested,
        StopCompleted,
        StopFailed,
        CancelRequested,
        TasksCancelled,
        FailureReported,
        RestartScheduled,
        RestartDue,
        GaveUp,
    ];

    /// The run is over with it, whatever came before.
    pub fn is_end(self) -> bool {
        matches!(self, InputFinished | StopCompleted | TasksCancelled | GaveUp)
    }

    pub fn name(self) -> &'static str {
        match self {
            StartRequested => "start-requested",
            TasksStarted => "tasks-started",
            InputFinished => "input-finished",
            StopRequested => "stop-requested",
            StopCompleted => "stop-completed",
            StopFailed => "stop-failed",
            CancelRequested => "cancel-requested",
            TasksCancelled => "tasks-cancelled",
            FailureReported => "failure-reported",
            RestartScheduled => "restart-scheduled",
            RestartDue => "restart-due",
            GaveUp => "gave-up",
        }
    }
}

impl Refused {
    /// For the requests of users; every other refused event is a fault of the host's.
    fn remedy(&self) -> &'static str {
        match (self.state, self.event) {
            (state, StopRequested | CancelRequested) if state.is_terminal() => ": it has come to its end already",
            (Starting | Failing | Restarting, StopRequested) => {
                ": a savepoint needs a running job; wait until it runs, or cancel it"
            }
            (Created, StopRequested) => ": it was not started",
            (Stopping, StopRequested) => ": it is stopping already",
            (Cancelling, StopRequested) => ": it is being cancelled already",
            (state, StartRequested) if state.is_terminal() => ": this run is over; starting makes a new one",
            (_, StartRequested) => ": it was started already",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns in the order of `JobEvent::ALL`; `-` is refused.
    const TABLE: &str = "
        created     starting -       -        -        -       -       cancelled  -         -          -          -        -
        starting    -        running finished -        -       -       cancelling -         failing    -          -        -
        running     -        -       finished stopping -       -       cancelling -         failing    -          -        -
        stopping    -        -       finished -        stopped running cancelling -         failing    -          -        -
        cancelling  -        -       finished -        stopped cancelling cancelling cancelled cancelling -          -        -
        failing     -        -       -        -        -       failing cancelling -         failing    restarting -        failed
        restarting  -        -       -        -        -       -       cancelled  -         -          -          starting -
        finished    -        -       -        -        -       -       -          -         -          -          -        -
        stopped     -        -       -        -        -       -       -          -         -          -          -        -
        cancelled   -        -       -        -        -       -       -          -         -          -          -        -
        failed      -        -       -        -        -       -       -          -         -          -          -        -
    ";

    #[test]
    fn the_whole_table_is_as_written() {
        let lines: Vec<Vec<&str>> =
            TABLE.lines().filter(|line| !line.trim().is_empty()).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), JobState::ALL.len());
        for (line, state) in lines.iter().zip(JobState::ALL) {
            assert_eq!(line[0], state.name());
            assert_eq!(line.len(), 1 + JobEvent::ALL.len());
            for (expected, event) in line[1..].iter().zip(JobEvent::ALL) {
                match state.after(event) {
                    Ok(next) => assert_eq!(next.name(), *expected, "{state} × {}", event.name()),
                    Err(refused) => {
                        assert_eq!("-", *expected, "{refused}");
                        let text = refused.to_string();
                        assert!(text.contains(state.name()) && text.contains(event.name()), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_leads_out_of_a_terminal_state_and_every_other_state_can_end() {
        for state in JobState::ALL {
            let next: Vec<JobState> = JobEvent::ALL.iter().filter_map(|event| state.after(*event).ok()).collect();
            assert_eq!(next.is_empty(), state.is_terminal(), "{state}");
            assert_eq!(state.after(CancelRequested).is_ok(), !state.is_terminal(), "{state} can be cancelled");
        }
    }

    #[test]
    fn what_ends_a_run_leads_to_a_terminal_state_only() {
        for (state, event) in JobState::ALL.iter().flat_map(|state| JobEvent::ALL.map(|event| (state, event))) {
            if event.is_end() {
                assert!(state.after(event).map_or(true, JobState::is_terminal), "{state} × {}", event.name());
            }
        }
    }

    #[test]
    fn names_are_those_of_the_json() {
        for state in JobState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
        for event in JobEvent::ALL {
            assert_eq!(serde_json::to_value(event).unwrap(), event.name());
        }
    }

    #[test]
    fn a_refusal_tells_a_user_what_to_do() {
        let refusal = |state: JobState, event| state.after(event).unwrap_err().to_string();
        assert_eq!(
            refusal(Restarting, StopRequested),
            "a job that is restarting can't take \"stop-requested\": a savepoint needs a running job; wait until it runs, or cancel it"
        );
        assert_eq!(
            refusal(Finished, StopRequested),
            "a job that is finished can't take \"stop-requested\": it has come to its end already"
        );
    }
}
