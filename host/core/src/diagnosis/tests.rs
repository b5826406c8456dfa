use super::*;

const NOW: u64 = 1_000_000;

fn task(name: &str, wait: Wait) -> TaskFacts {
    TaskFacts {
        name: name.to_owned(),
        vertex: 0,
        index: 0,
        nodes: vec![name.to_owned()],
        source: matches!(wait, Wait::SourceIdle | Wait::SourceThrottled | Wait::SourceEnded),
        paced: wait == Wait::SourceThrottled,
        wait,
        since_ms: NOW - 10,
        shares: Shares { resting: 1.0, ..Shares::default() },
        alignment: None,
        snapshot: None,
        watermark: None,
        holds_watermark: false,
    }
}

fn behind(name: &str, cause: &str, share: f64) -> TaskFacts {
    let mut task = task(name, Wait::Downstream { task: cause.to_owned() });
    task.shares.downstream.insert(cause.to_owned(), share);
    task
}

fn job(state: JobState, tasks: Vec<TaskFacts>) -> RunFacts {
    RunFacts {
        at_ms: NOW,
        state,
        since_ms: NOW - 60_000,
        attempt: 1,
        error: None,
        restart: None,
        start: None,
        tasks,
        checkpoints: Vec::new(),
    }
}

fn checkpoint(phase: CheckpointPhase, missing: &[&str]) -> CheckpointFacts {
    CheckpointFacts {
        checkpoint: 7,
        kind: CheckpointKind::Checkpoint,
        triggered_ms: NOW - 12_000,
        phase,
        phase_since_ms: NOW - 3000,
        missing: missing.iter().map(|name| (*name).to_owned()).collect(),
    }
}

#[test]
fn the_bottleneck_is_where_the_waiting_ends() {
    let mut slow = task("slow[1]", Wait::Working);
    slow.shares = Shares { busy: 0.97, guest: 0.9, ..Shares::default() };
    let tasks = vec![behind("in[0]", "split[0]", 1.0), behind("split[0]", "slow[1]", 0.9), slow, task("slow[0]", Wait::Input)];
    assert_eq!(
        diagnosis(&job(JobState::Running, tasks.clone())),
        "task slow[1] is the bottleneck: it is at work 97 % of the time (90 % inside its guest), and split[0] waits for room in its \
         channels"
    );
    let mut late = job(JobState::Running, tasks);
    late.checkpoints.push(checkpoint(CheckpointPhase::Tasks, &["slow[1]"]));
    assert!(diagnosis(&late).ends_with("its channels; checkpoint 7 waits behind it, pending for 12.0 s"), "{}", diagnosis(&late));
}

#[test]
fn somebody_who_is_waited_for_now_and_then_is_no_bottleneck() {
    let mut busy = task("count[0]", Wait::Working);
    busy.shares.busy = 0.6;
    let mut source = behind("in[0]", "count[0]", 0.1);
    (source.source, source.shares.resting) = (true, 0.2);
    let said = diagnosis(&job(JobState::Running, vec![source, busy]));
    assert_eq!(said, "the job keeps up: no task waits for another; the busiest is count[0], at work 60 % of the time");
}

#[test]
fn a_guest_that_does_not_come_back_is_named_with_its_deadline_and_what_waits_for_it() {
    let mut spinning = task("delays[1]", Wait::GuestCall { operator: "delays".to_owned(), rows: 512, deadline_ms: 5000 });
    spinning.since_ms = NOW - 3210;
    let mut job = job(JobState::Running, vec![behind("in[0]", "delays[1]", 1.0), spinning]);
    job.checkpoints.push(checkpoint(CheckpointPhase::Tasks, &["delays[1]"]));
    assert_eq!(
        diagnosis(&job),
        "task delays[1] is the bottleneck: it has been inside one call of its guest delays for 3.2 s (512 rows; the call is ended \
         after 5.0 s), and checkpoint 7 waits for it"
    );
}

#[test]
fn without_input_the_job_waits_for_it() {
    let mut source = task("in[0]", Wait::SourceIdle);
    source.since_ms = NOW - 61_000;
    let said = diagnosis(&job(JobState::Running, vec![source.clone(), task("count[0]", Wait::Input)]));
    assert_eq!(said, "the job waits for input: in[0] has had nothing new to give for 61.0 s");
    (source.wait, source.paced) = (Wait::SourceThrottled, true);
    let said = diagnosis(&job(JobState::Running, vec![source.clone(), task("other[0]", Wait::SourceThrottled)]));
    assert_eq!(said, "the job keeps up: in[0] and other[0] are held to the rate in the job file");
    source.wait = Wait::SourceEnded;
    let said = diagnosis(&job(JobState::Running, vec![source]));
    assert_eq!(said, "all input is read: the job waits for its final checkpoint");
}

#[test]
fn a_late_checkpoint_is_explained_by_the_step_it_is_in() {
    let quiet = vec![task("in[0]", Wait::SourceIdle), task("count[0]", Wait::Input)];
    let mut waiting = job(JobState::Running, quiet);
    let said = |job: &RunFacts, end: &str| assert!(diagnosis(job).ends_with(end), "{}", diagnosis(job));
    waiting.checkpoints = vec![checkpoint(CheckpointPhase::Manifest, &[])];
    said(&waiting, "checkpoint 7 is pending for 12.0 s: its manifest has been on its way to the store for 3.0 s");
    waiting.checkpoints = vec![checkpoint(CheckpointPhase::SinkCommit, &[])];
    said(&waiting, "it is decided, and its sinks have been committing for 3.0 s");
    waiting.checkpoints = vec![checkpoint(CheckpointPhase::Tasks, &["in[0]", "count[0]"])];
    waiting.tasks[0].snapshot = Some(SnapshotFacts { checkpoint: 7, stage: SnapshotStage::Upload, since_ms: NOW - 9000 });
    said(&waiting, "in[0] and count[0] have not acknowledged it; in[0] has been writing its state to the store for 9.0 s");
    waiting.tasks[0].snapshot = None;
    waiting.checkpoints[0].missing.remove(0);
    waiting.tasks[1].alignment = Some(AlignmentFacts { checkpoint: 7, since_ms: NOW - 500, missing: vec!["in[1]".to_owned()] });
    said(&waiting, "count[0] has not acknowledged it; count[0] has waited 500 ms for the barrier from in[1]");
}

#[test]
fn a_checkpoint_that_has_just_begun_is_no_news() {
    let mut job = job(JobState::Running, vec![task("in[0]", Wait::SourceThrottled)]);
    job.checkpoints = vec![CheckpointFacts { triggered_ms: NOW - 20, ..checkpoint(CheckpointPhase::Tasks, &["in[0]"]) }];
    assert_eq!(diagnosis(&job), "the job keeps up: in[0] is held to the rate in the job file");
}

#[test]
fn a_job_that_does_not_run_says_what_it_waits_for_instead() {
    let mut job = job(JobState::Restarting, Vec::new());
    job.restart = Some(RestartFacts { due_ms: NOW + 4000, attempt: 3, reason: "task a[0]: the sea is rough".to_owned() });
    assert_eq!(
        diagnosis(&job),
        "the job is between two attempts: attempt 3 begins in 4.0 s, because task a[0]: the sea is rough"
    );
    job.state = JobState::Starting;
    job.start = Some(StartFacts { step: StartStep::Restoring, since_ms: NOW - 1500 });
    assert!(diagnosis(&job).starts_with("the job is being restored for 1.5 s"));
    job.state = JobState::Failed;
    job.error = Some("the guest says fatal".to_owned());
    assert_eq!(diagnosis(&job), "the job has failed for good, because the guest says fatal");
}

#[test]
fn every_state_has_its_sentence_even_without_tasks() {
    for state in JobState::ALL {
        assert!(diagnosis(&job(state, Vec::new())).len() > 10, "{state}");
    }
}

#[test]
fn long_lists_are_cut() {
    let all: Vec<String> = (0..6).map(|i| format!("t[{i}]")).collect();
    assert_eq!(names(&all), "t[0], t[1], t[2], t[3] and 2 more");
    assert_eq!(names(&all[..2]), "t[0] and t[1]");
}

#[test]
fn a_source_holds_event_time_back_when_it_is_far_behind_all_others() {
    assert_eq!(watermark_holder(&[("a", Some(100_000)), ("b", Some(5_000)), ("c", Some(99_000))]), Some("b"));
    assert_eq!(watermark_holder(&[("a", Some(100_000)), ("b", None)]), Some("b"));
    assert_eq!(watermark_holder(&[("a", Some(100_000)), ("b", Some(99_000))]), None);
    assert_eq!(watermark_holder(&[("a", Some(1))]), None);
}
