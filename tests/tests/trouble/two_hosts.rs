//! Two hosts on one folder by mistake: one of them goes on, the other stops with a message, and nothing is corrupted.

use crate::*;
use serde_json::json;

const LOCK: &str = "TIDEGATE_DATA_LOCK";

/// What a host has written that did not know yet that it is fenced is swept by the next start.
fn clear(host: &Host, job: &str) {
    host.start_job(job, json!("latest"));
    host.wait_for_state(job, "finished");
}

fn wait_for_end(host: &Host, job: &str) -> String {
    until("the job has ended", LIMIT, || {
        let state = host.job(job)["status"]["state"].as_str().unwrap_or_default().to_owned();
        if state == "finished" || state == "failed" { Ok(state) } else { Err(state) }
    })
}

#[test]
fn a_second_host_is_refused_while_the_first_one_runs() {
    let host = Host::start();
    let mut second = host.second();
    second.spawn();
    assert!(!second.wait_for_exit(LIMIT).success());
    let log = second.log_text();
    assert!(log.contains(&format!("process {}", host.pid())) && log.contains("--data"), "{log}");
    assert_eq!(host.client().get("/readyz").status, 200);
}

#[test]
fn a_host_that_comes_back_from_a_long_sleep_finds_its_job_taken_over_and_leaves_everything_alone() {
    let job = job(1_500);
    let sleeper = started(&job);
    sleeper.signal("STOP");
    let mut successor = sleeper.second();
    successor.spawn();
    assert!(!successor.wait_for_exit(LIMIT).success(), "the sleeper holds the lock");
    successor.set_env(LOCK, "off");
    successor.restart();
    successor.wait_for_checkpoints(job.name, 3);
    sleeper.signal("CONT");
    let error = error_of_failed(&sleeper, job.name);
    assert!(error.contains("was taken over by incarnation"), "{error}");
    let stored = || std::fs::read_to_string(sleeper.data().join("jobs").join(job.name).join("job.json")).expect("the job's file");
    assert!(stored().contains(r#""desired": "running""#), "{}", stored());
    // Whoever still talks to it is told.
    for request in ["start", "stop"] {
        let answer = sleeper.client().post(&format!("/v1/jobs/{}/{request}?wait=10s", job.name), &json!({}));
        assert!(answer.body.contains("has taken over this data folder") || answer.status == 400, "{answer}");
    }
    assert!(stored().contains(r#""desired": "running""#), "{}", stored());
    successor.wait_for_state(job.name, "finished");
    clear(&successor, job.name);
    assert_exactly_once(&successor, &job);
    assert_eq!(folder(&successor, job.name).orphans(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn of_two_hosts_that_start_at_once_one_finishes_the_job() {
    let job = job(2_000);
    let mut first = started(&job);
    first.kill();
    first.set_env(LOCK, "off");
    let mut second = first.second();
    second.set_env(LOCK, "off");
    first.spawn();
    second.spawn();
    first.wait_until_ready();
    second.wait_until_ready();
    let states = [wait_for_end(&first, job.name), wait_for_end(&second, job.name)];
    assert!(states.iter().any(|state| state == "finished"), "{states:?}");
    for host in [&first, &second] {
        let view = host.job(job.name);
        if view["status"]["state"] == "failed" {
            assert!(error_of(&view).contains("was taken over by incarnation"), "{view}");
        }
    }
    // The folder may belong to one of them and the job to the other. Whoever comes next finds everything in order.
    first.kill();
    second.kill();
    first.restart();
    wait_for_end(&first, job.name);
    clear(&first, job.name);
    assert_exactly_once(&first, &job);
}
