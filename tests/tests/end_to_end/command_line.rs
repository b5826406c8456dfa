//! The command line against a server: the same things as over HTTP, for people and for scripts.

use serde_json::Value;
use tidegate_tests::cli::{Finished, tidegate};
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;

/// A command that talks to the host.
fn call(host: &Host, args: &[&str]) -> Finished {
    tidegate().arg("--server").arg(host.url()).args(args).finish()
}

#[track_caller]
fn ok(host: &Host, args: &[&str]) -> String {
    let finished = call(host, args);
    assert_eq!(finished.code, 0, "{args:?}: {finished}");
    finished.output
}

#[track_caller]
fn json(host: &Host, args: &[&str]) -> Value {
    let output = ok(host, &[args, &["--output", "json"]].concat());
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{args:?}: {error}: {output}"))
}

#[test]
fn a_job_is_deployed_watched_stopped_and_started_from_the_shell() {
    let host = Host::start();
    let component = guest_build::component("running-totals").display().to_string();
    ok(&host, &["module", "push", "running-totals@1.0.0", &component]);
    assert!(ok(&host, &["module", "list"]).contains("running-totals@1.0.0"));
    assert_eq!(json(&host, &["module", "inspect", "running-totals@1.0.0"])["world"], "processor");

    let job = TotalsJob {
        name: "totals",
        records: 10_000_000,
        keys: 10,
        splits: 1,
        parallelism: 1,
        rate: Some(1000),
        interval: "100ms",
    };
    let file = host.work().join("job.json");
    std::fs::write(&file, job.document(&host.work().join("out")).to_string()).expect("writes the job file");
    ok(&host, &["job", "create", &file.display().to_string()]);
    host.wait_for_checkpoints(job.name, 2);
    assert!(ok(&host, &["job", "list"]).contains("totals"));
    assert_eq!(json(&host, &["job", "show", "totals"])["status"]["state"], "running");
    assert!(ok(&host, &["job", "checkpoints", "totals"]).lines().count() > 2);

    let savepoint = json(&host, &["savepoint", "create", "totals"]);
    let id = savepoint["savepoint"]["id"].as_str().unwrap_or_else(|| panic!("{savepoint}")).to_owned();
    ok(&host, &["job", "stop", "totals", "--savepoint"]);
    host.wait_for_state("totals", "stopped");
    assert!(ok(&host, &["savepoint", "list", "totals"]).contains(&id));
    ok(&host, &["job", "start", "totals", "--from", &id]);
    host.wait_for_state("totals", "running");
    ok(&host, &["job", "delete", "totals", "--force", "--with-savepoints"]);
    assert!(!ok(&host, &["job", "list"]).contains("totals"));
}

#[test]
fn exit_codes_tell_failure_from_wrong_usage() {
    let host = Host::start();
    let not_there = call(&host, &["job", "show", "nobody"]);
    assert!(not_there.code == 1 && not_there.errors.contains("nobody"), "{not_there}");
    let wrong = call(&host, &["job", "shwo"]);
    assert!(wrong.code == 2 && wrong.errors.contains("show"), "{wrong}");
    let nobody = tidegate().args(["--server", "http://127.0.0.1:1", "job", "list"]).finish();
    assert!(nobody.code == 1 && nobody.errors.contains("127.0.0.1:1"), "{nobody}");
    let completions = tidegate().args(["completions", "bash"]).finish();
    assert!(completions.code == 0 && completions.output.contains("tidegate"), "{completions}");
}
