use super::fake::{FakeArchive, FakeRuntime, open, open_with};
use super::*;
use crate::api::{OperationState, StopRequest};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Polls for a fact that another task is about to make true.
async fn until(mut fact: impl FnMut() -> bool) {
    tokio::time::timeout(SOON, async {
        while !fact() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the fact did not come true");
}

async fn create(manager: &JobManager, name: &str, extra: serde_json::Value) -> Put {
    let mut source = extra;
    source["name"] = name.into();
    manager.put_job(name, source, None).await.unwrap().1
}

fn state(manager: &JobManager, name: &str) -> JobState {
    manager.show(name).unwrap().status.state
}

async fn stop(manager: &JobManager, name: &str, savepoint: bool) -> OperationView {
    let request = StopRequest { savepoint, ..Default::default() };
    manager.stop(name, request).await.unwrap().wait(SOON).await
}

fn is_conflict<T>(result: Result<T, ManagerError>) -> bool {
    matches!(result, Err(ManagerError::Conflict { .. }))
}

#[tokio::test]
async fn the_same_job_again_changes_nothing_and_another_waits_for_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, runtime) = open(folder.path()).await;
    assert_eq!(create(&manager, "a", json!({})).await, Put::Created);
    assert_eq!(create(&manager, "a", json!({})).await, Put::Unchanged);
    assert_eq!(runtime.starts_of("a").len(), 1);
    let id = manager.show("a").unwrap().job_id;

    let other = json!({ "name": "a", "retained": 9 });
    assert!(is_conflict(manager.put_job("a", other.clone(), None).await));
    stop(&manager, "a", false).await;
    let (view, put) = manager.put_job("a", other, None).await.unwrap();
    assert_eq!((put, view.job_id), (Put::Replaced, id));
    assert_eq!(state(&manager, "a"), JobState::Cancelled, "a replaced job waits to be started");
    assert_eq!(runtime.starts_of("a").len(), 1);
}

#[tokio::test]
async fn after_a_restart_exactly_the_jobs_that_are_to_run_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, runtime) = open(folder.path()).await;
    for name in ["running", "stopped", "finished", "failed"] {
        create(&manager, name, json!({})).await;
    }
    stop(&manager, "stopped", true).await;
    runtime.last_run("finished").enter(JobState::Finished, None);
    runtime.last_run("failed").enter(JobState::Failed, Some("the guest trapped"));
    until(|| ["finished", "failed"].iter().all(|name| manager.show(name).unwrap().ended.is_some())).await;
    assert!(manager.shutdown(SOON, SOON).await.is_empty());
    assert!(!manager.is_ready());
    assert!(matches!(manager.start("stopped", StartFrom::Latest).await, Err(ManagerError::ShuttingDown)));

    let (manager, runtime) = open(folder.path()).await;
    assert_eq!(runtime.starts.lock().unwrap().len(), 1);
    assert_eq!(runtime.starts_of("running"), [StartFrom::Latest]);
    assert_eq!(state(&manager, "running"), JobState::Running);
    assert_eq!(state(&manager, "finished"), JobState::Finished);
    let stopped = manager.show("stopped").unwrap();
    assert_eq!(stopped.ended.unwrap().savepoint.as_deref(), Some("sp-1"));
    let failed = manager.show("failed").unwrap();
    assert_eq!(failed.status.error.as_deref(), Some("the guest trapped"));
    assert_eq!(failed.desired, DesiredState::Stopped);
}

#[tokio::test]
async fn a_start_that_a_crash_interrupts_is_carried_on_with_the_same_id_and_forgotten_once_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, runtime) = open(folder.path()).await;
    create(&manager, "a", json!({ "state": "starting" })).await;
    stop(&manager, "a", false).await;
    manager.start("a", StartFrom::Fresh).await.unwrap();
    let id = runtime.starts.lock().unwrap()[1].1.clone();
    // The host is gone before the job ran.
    drop(manager);
    let (manager, runtime) = open(folder.path()).await;
    assert_eq!(runtime.starts.lock().unwrap().clone(), [("a".to_owned(), id, StartFrom::Fresh)]);
    runtime.last_run("a").enter(JobState::Running, None);
    until(|| manager.find("a").unwrap().stored().start.from == StartFrom::Latest).await;
    drop(manager);
    let (_manager, runtime) = open(folder.path()).await;
    assert_eq!(runtime.starts_of("a"), [StartFrom::Latest]);
}

#[tokio::test]
async fn a_failed_savepoint_leaves_the_job_running_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, _runtime) = open(folder.path()).await;
    create(&manager, "a", json!({ "savepoint": "fail" })).await;
    let operation = stop(&manager, "a", true).await;
    assert_eq!(operation.state, OperationState::Failed);
    let problem = operation.problem.unwrap();
    assert!(problem.detail.contains("the disk is full"), "{problem:?}");
    assert_eq!(problem.remedy.as_deref(), Some("make room"));
    assert_eq!(state(&manager, "a"), JobState::Running);
    assert_eq!(manager.show("a").unwrap().desired, DesiredState::Running);
}

#[tokio::test]
async fn a_plain_stop_overtakes_a_savepoint_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, _runtime) = open(folder.path()).await;
    create(&manager, "a", json!({ "savepoint": "hang" })).await;
    let request = StopRequest { savepoint: true, ..Default::default() };
    let hanging = manager.stop("a", request).await.unwrap();
    assert_eq!(stop(&manager, "a", false).await.state, OperationState::Completed);
    let operation = hanging.wait(SOON).await;
    assert_eq!(operation.state, OperationState::Failed);
    assert!(operation.problem.unwrap().detail.contains("cancelled first"));
}

#[tokio::test]
async fn stopping_twice_and_starting_twice_is_the_same_as_once() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, runtime) = open(folder.path()).await;
    create(&manager, "a", json!({})).await;
    manager.start("a", StartFrom::Latest).await.unwrap();
    assert_eq!(runtime.starts_of("a").len(), 1);
    assert!(is_conflict(manager.start("a", StartFrom::Fresh).await), "a running job can't start afresh");
    for _ in 0..2 {
        assert_eq!(stop(&manager, "a", false).await.state, OperationState::Completed);
    }
    let operation = stop(&manager, "a", true).await;
    assert_eq!(operation.problem.unwrap().status, 409, "no savepoint of a stopped job");
    assert!(matches!(manager.start("a", StartFrom::savepoint("sp-9")).await, Err(ManagerError::NotFound { .. })));
    manager.start("a", StartFrom::Fresh).await.unwrap();
}

#[tokio::test]
async fn late_news_of_an_older_run_does_not_end_the_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, runtime) = open(folder.path()).await;
    create(&manager, "a", json!({})).await;
    stop(&manager, "a", false).await;
    let (job, old) = (manager.find("a").unwrap(), manager.find("a").unwrap().slot().run.clone().unwrap());
    manager.start("a", StartFrom::Latest).await.unwrap();
    runtime.last_run("a");
    manager.update_run(&job, &old, |stored| stored.desired = DesiredState::Stopped).await;
    assert_eq!(manager.show("a").unwrap().desired, DesiredState::Running);
}

#[tokio::test]
async fn a_deletion_that_stops_halfway_is_finished_by_the_next_host_and_never_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let archive = Arc::new(FakeArchive::default());
    let (manager, _runtime) = open_with(folder.path(), archive.clone()).await;
    create(&manager, "a", json!({})).await;
    assert!(is_conflict(manager.delete_job("a", false, false).await));
    archive.refuse_delete.store(true, Ordering::Relaxed);
    assert!(matches!(manager.delete_job("a", true, true).await, Err(ManagerError::Job(_))));
    assert!(is_conflict(manager.start("a", StartFrom::Latest).await));
    drop(manager);
    archive.refuse_delete.store(false, Ordering::Relaxed);
    let (manager, runtime) = open_with(folder.path(), archive.clone()).await;
    assert!(matches!(manager.show("a"), Err(ManagerError::NotFound { .. })));
    assert_eq!(archive.deleted.lock().unwrap().clone(), [("a".to_owned(), true)]);
    assert!(runtime.starts.lock().unwrap().is_empty());
    assert!(!folder.path().join("jobs/a").exists());
    assert_eq!(create(&manager, "a", json!({})).await, Put::Created);
}

#[tokio::test]
async fn a_job_that_cannot_be_read_is_told_about_and_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jobs/torn/job.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "{").unwrap();
    let (manager, _runtime) = open(folder.path()).await;
    assert!(matches!(manager.show("torn"), Err(ManagerError::Unreadable { .. })));
    let put = manager.put_job("torn", json!({ "name": "torn" }), None).await;
    assert!(matches!(put, Err(ManagerError::Unreadable { .. })));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "{");
    assert_eq!(create(&manager, "other", json!({})).await, Put::Created);
}

#[tokio::test]
async fn a_module_stays_while_a_job_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, _runtime) = open(folder.path()).await;
    manager.push_module("op", "1.0.0", b"wasm".to_vec()).await.unwrap();
    create(&manager, "a", json!({ "operator": [{ "module": "op@1.0.0" }] })).await;
    stop(&manager, "a", false).await;
    let refused = manager.delete_module("op", "1.0.0").await;
    assert!(matches!(&refused, Err(ManagerError::Conflict { cause, .. }) if cause == "used by a"), "{refused:?}");
    manager.delete_job("a", false, false).await.unwrap();
    manager.delete_module("op", "1.0.0").await.unwrap();
    assert!(matches!(manager.delete_module("op", "1.0.0").await, Err(ManagerError::NotFound { .. })));
}

#[tokio::test]
async fn a_panic_in_the_runtime_is_an_error_and_the_manager_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, _runtime): (_, Arc<FakeRuntime>) = open(folder.path()).await;
    let result = manager.put_job("a", json!({ "panic": true }), None).await;
    assert!(matches!(result, Err(ManagerError::Bug { .. })));
    assert_eq!(create(&manager, "a", json!({})).await, Put::Created);
}

#[tokio::test]
async fn a_host_that_goes_down_names_the_jobs_that_do_not_end() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, _runtime) = open(folder.path()).await;
    create(&manager, "good", json!({})).await;
    create(&manager, "stuck", json!({ "cancel": "hang" })).await;
    assert_eq!(manager.shutdown(Duration::ZERO, Duration::from_millis(20)).await, ["stuck"]);
    assert_eq!(manager.show("stuck").unwrap().desired, DesiredState::Running);
}

#[tokio::test]
async fn a_last_checkpoint_that_does_not_come_ends_with_its_time_and_the_job_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, _runtime) = open(folder.path()).await;
    create(&manager, "good", json!({})).await;
    create(&manager, "slow", json!({ "suspend": "hang" })).await;
    create(&manager, "stuck", json!({ "suspend": "hang", "cancel": "hang" })).await;
    assert_eq!(manager.shutdown(Duration::from_millis(20), Duration::from_millis(20)).await, ["stuck"]);
    for name in ["good", "slow"] {
        assert_eq!((state(&manager, name), manager.show(name).unwrap().desired), (JobState::Cancelled, DesiredState::Running));
    }
}
