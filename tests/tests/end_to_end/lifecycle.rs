//! What outlives what: jobs and modules a host, an operation its caller.

use serde_json::json;
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::output;
use tidegate_tests::totals::{self, Total};

const JOB: TotalsJob =
    TotalsJob { name: "totals", records: 30_000, keys: 100, splits: 2, parallelism: 2, rate: Some(15_000), interval: "100ms" };

fn started() -> Host {
    let host = Host::start();
    host.push("running-totals");
    host.put_job(&JOB.document(&host.work().join("out")));
    host.wait_for_checkpoints(JOB.name, 1);
    host
}

#[track_caller]
fn assert_exactly_once(host: &Host) {
    let verdict = totals::check(JOB.input(), output::lines(&host.work().join("out")).iter().map(|line| Total::from_json(line)));
    assert!(verdict.is_exactly_once() && verdict.records == JOB.records, "{verdict}");
}

#[test]
fn a_job_comes_back_by_itself_when_its_host_does() {
    let mut host = started();
    let created = host.job(JOB.name);
    let status = host.terminate();
    assert!(status.success(), "asked to end, a host ends well: {status}");
    host.restart();
    let back = host.job(JOB.name);
    assert_eq!((&back["job_id"], &back["desired"]), (&created["job_id"], &json!("running")));
    host.wait_for_state(JOB.name, "finished");
    assert_exactly_once(&host);
}

#[test]
fn a_stopped_job_stays_stopped_and_goes_on_where_it_was() {
    let mut host = started();
    host.stop(JOB.name);
    host.kill();
    host.restart();
    let job = host.job(JOB.name);
    assert_eq!(job["desired"], "stopped", "{job}");
    let committed = output::lines(&host.work().join("out")).len();
    assert!(committed > 0 && committed < JOB.records as usize);
    host.start_job(JOB.name, json!("latest"));
    host.wait_for_state(JOB.name, "finished");
    assert_exactly_once(&host);
}

/// Of several requests one is carried out; none of the others makes the job look as if it went on.
#[test]
fn a_stop_with_a_savepoint_is_carried_out_however_early_it_is_asked_for_and_however_often() {
    let mut host = started();
    host.kill();
    host.restart();
    let ask = |what: &str, body: serde_json::Value| {
        let (client, path) = (host.client().clone(), format!("/v1/jobs/{}/{what}?wait=60s", JOB.name));
        std::thread::spawn(move || client.post(&path, &body))
    };
    // The tasks are being restored.
    let savepoint = ask("savepoints", json!({}));
    let stop = ask("stop", json!({ "savepoint": true }));
    let again = ask("stop", json!({ "savepoint": true }));
    let answers = [stop, again].map(|asked| asked.join().expect("an answer"));
    savepoint.join().expect("an answer");
    host.wait_for_state(JOB.name, "stopped");
    let completed: Vec<_> = answers.iter().filter(|answer| answer.status == 200).map(|answer| answer.document()).collect();
    assert!(completed.iter().any(|operation| operation["state"] == "completed"), "{completed:?}");
    host.start_job(JOB.name, json!("latest"));
    host.wait_for_state(JOB.name, "finished");
    assert_exactly_once(&host);
}

#[test]
fn a_finished_job_stays_finished() {
    let mut host = started();
    host.wait_for_state(JOB.name, "finished");
    let before = output::files(&host.work().join("out"));
    host.kill();
    host.restart();
    // The host may have been killed before it had noted the end: then the job comes back and finds that there is nothing to do.
    host.wait_for_state(JOB.name, "finished");
    assert_eq!(output::files(&host.work().join("out")), before);
    assert_exactly_once(&host);
}

#[test]
fn checkpoints_are_reported_and_their_leftovers_are_bounded() {
    let host = started();
    host.wait_for_state(JOB.name, "finished");
    let completed = host.completed_checkpoints(JOB.name);
    let ids: Vec<_> = completed.iter().map(|checkpoint| checkpoint["checkpoint"].as_u64().expect("an id")).collect();
    assert!(ids.len() >= 5 && ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert_eq!(completed.last().expect("one")["kind"], "final");
    for checkpoint in &completed {
        assert_eq!(checkpoint["acknowledged"], checkpoint["tasks"], "{checkpoint}");
    }
    let manifests = host.data().join("jobs").join(JOB.name).join("manifests");
    let left = std::fs::read_dir(&manifests).unwrap_or_else(|error| panic!("{}: {error}", manifests.display())).count();
    // `checkpoint.retained` is 3 where the job does not say otherwise.
    assert!((1..=4).contains(&left), "{left} manifests for {} checkpoints", ids.len());
}

#[test]
fn a_job_whose_guest_asks_for_a_restart_gets_it_and_repeats_nothing() {
    let host = Host::start();
    host.push("sdk-script");
    let input = host.work().join("scripts.txt");
    // Whoever asks for another try gets one each time: only a new host without the line would help, so the job gives up in the end.
    std::fs::write(&input, "set 1; value\nvalue\ntransient the-sea-is-rough\n").expect("writes the input");
    // The guest has two inputs, and this test needs one.
    let nothing = host.work().join("nothing.txt");
    std::fs::write(&nothing, "").expect("writes the input");
    host.put_job(&json!({
        "name": "rough",
        "checkpoint": { "interval": "50ms" },
        "restart": { "strategy": "fixed-delay", "attempts": 3, "delay": "50ms" },
        "source": [
            { "name": "scripts", "connector": "file", "path": input, "format": "lines" },
            { "name": "nothing", "connector": "file", "path": nothing, "format": "lines" },
        ],
        "operator": [{ "name": "run", "module": "sdk-script@1.0.0", "input": ["scripts", "nothing"], "key": "row" }],
        "sink": [{ "name": "out", "connector": "file", "input": ["run"], "path": host.work().join("out") }],
    }));
    let failed = tidegate_tests::wait::until("the job gives up", std::time::Duration::from_secs(60), || {
        let job = host.job("rough");
        if job["status"]["state"] == "failed" { Ok(job) } else { Err(job["status"].to_string()) }
    });
    assert_eq!(failed["status"]["attempt"], 4, "one try and three more: {failed}");
    assert!(failed["status"]["error"].as_str().is_some_and(|error| error.contains("the-sea-is-rough")), "{failed}");
    assert!(output::lines(&host.work().join("out")).len() <= 2);
}

#[test]
fn a_deleted_job_is_gone_with_all_it_had() {
    let mut host = started();
    let path = format!("/v1/jobs/{}", JOB.name);
    let refused = host.client().delete(&path).problem(409);
    assert!(refused["remedy"].is_string(), "{refused}");
    host.client().delete("/v1/modules/running-totals/1.0.0").problem(409);
    assert_eq!(host.client().delete(&format!("{path}?force=true&savepoints=true")).status, 204);
    host.client().get(&path).problem(404);
    host.kill();
    host.restart();
    host.client().get(&path).problem(404);
    assert_eq!(host.client().delete("/v1/modules/running-totals/1.0.0").status, 204);
    // A new job of the same name begins from nothing.
    host.push("running-totals");
    std::fs::remove_dir_all(host.work().join("out")).expect("removes the output");
    host.put_job(&JOB.document(&host.work().join("out")));
    host.wait_for_state(JOB.name, "finished");
    assert_exactly_once(&host);
}
