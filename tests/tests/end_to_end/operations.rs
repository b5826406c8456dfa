//! What operators of a host rely on: that it goes down in order, and what it tells about itself.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use tidegate_tests::cli::tidegate;
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::output;
use tidegate_tests::totals::{self, Total};

/// No checkpoint of its own accord within the test.
const JOB: TotalsJob =
    TotalsJob { name: "totals", records: 40_000, keys: 100, splits: 2, parallelism: 2, rate: Some(20_000), interval: "1h" };

fn records_read(job: &Value) -> u64 {
    let tasks = job["status"]["tasks"].as_array().cloned().unwrap_or_default();
    let of = |task: &Value| task["records_in"].as_u64().unwrap_or(0);
    tasks.iter().filter(|task| task["nodes"][0] == "bids").map(of).sum()
}

/// Lines of the log that are JSON objects with this message.
fn logged(host: &Host, message: &str) -> Vec<Value> {
    let lines: Vec<Value> = host.log_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    lines.into_iter().filter(|line| line["fields"]["message"] == message).collect()
}

fn asked_to_log_json() -> Host {
    let mut host = Host::prepared();
    host.set_env("TIDEGATE_LOG_FORMAT", "json");
    host.restart();
    host
}

#[test]
fn a_host_that_is_asked_to_end_takes_a_last_checkpoint_and_nothing_is_done_again() {
    let mut host = asked_to_log_json();
    host.push("running-totals");
    let out = host.work().join("out");
    host.put_job(&JOB.document(&out));
    tidegate_tests::wait::until("some records are read", std::time::Duration::from_secs(60), || {
        let job = host.job(JOB.name);
        if records_read(&job) > 2000 { Ok(()) } else { Err(job["status"].to_string()) }
    });
    assert!(host.completed_checkpoints(JOB.name).is_empty(), "the interval is an hour");
    assert!(host.terminate().success());
    let committed = output::lines(&out).len() as u64;
    let ended = logged(&host, "job ended");
    assert_eq!(ended.len(), 1, "{ended:?}");
    let read = ended[0]["fields"]["records_read"].as_u64().expect("how many records were read");
    assert!(read > 2000 && read < JOB.records, "{read}");
    assert_eq!(committed, read, "all that was read is committed: sources stopped at the barrier");

    host.restart();
    let finished = host.wait_for_state(JOB.name, "finished");
    assert_eq!(records_read(&finished), JOB.records - read, "nothing is read again, and nothing is left out");
    let verdict = totals::check(JOB.input(), output::lines(&out).iter().map(|line| Total::from_json(line)));
    assert!(verdict.is_exactly_once() && verdict.records == JOB.records, "{verdict}");
}

#[test]
fn a_job_whose_last_checkpoint_can_not_complete_holds_the_host_no_longer_than_it_may() {
    let mut host = Host::prepared();
    host.set_env("TIDEGATE_LOG_FORMAT", "json");
    host.set_env("TIDEGATE_SHUTDOWN_TIMEOUT", "200ms");
    host.restart();
    host.push("contract");
    let input = host.work().join("input.txt");
    std::fs::write(&input, "bad\n").expect("writes the input");
    host.put_job(&json!({
        "name": "spins",
        "checkpoint": { "interval": "1h" },
        "source": [{ "name": "lines", "connector": "file", "path": input, "format": "lines" }],
        "operator": [{
            "name": "spin", "module": "contract@1.0.0", "input": ["lines"], "key": "row", "on_error": "skip",
            "config": { "case": "spin" }, "limits": { "deadline": "600s" },
        }],
        "sink": [{ "name": "out", "connector": "blackhole", "input": ["spin"] }],
    }));
    tidegate_tests::wait::until("the guest spins", std::time::Duration::from_secs(60), || {
        let why = host.client().try_get("/v1/jobs/spins/why")?.document();
        let spins = why["tasks"].as_array().is_some_and(|tasks| tasks.iter().any(|task| task["wait"]["kind"] == "guest-call"));
        if spins { Ok(()) } else { Err(why.to_string()) }
    });
    // Far sooner than the guest's deadline: `terminate` waits for a minute.
    assert!(host.terminate().success());
    assert_eq!(logged(&host, "no last checkpoint in time: the next start goes on from the one before").len(), 1);
}

#[test]
fn every_line_of_a_json_log_is_json_and_says_whose_it_is() {
    let mut host = Host::prepared();
    host.set_env("TIDEGATE_LOG_FORMAT", "json");
    host.set_env("TIDEGATE_LOG", "info,tidegate=debug");
    host.restart();
    host.push("contract");
    let input = host.work().join("input.txt");
    std::fs::write(&input, "one\ntwo\nbad \"three\"\n").expect("writes the input");
    host.put_job(&json!({
        "name": "talks",
        "source": [{ "name": "lines", "connector": "file", "path": input, "format": "lines" }],
        "operator": [
            { "name": "say", "module": "contract@1.0.0", "input": ["lines"], "key": "row", "config": { "case": "log" } },
        ],
        "sink": [{ "name": "out", "connector": "blackhole", "input": ["say"] }],
    }));
    host.wait_for_state("talks", "finished");
    assert!(host.terminate().success());
    let text = host.log_text();
    // The announcement goes to stdout, which the test keeps in the same file.
    let lines = text.lines().filter(|line| !line.starts_with("tidegate ") || !line.contains("listens on"));
    let lines: Vec<Value> =
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string() && line["target"].is_string()));
    let of_guest: Vec<_> = lines.iter().filter(|line| line["target"] == "tidegate::guest").collect();
    assert!(!of_guest.is_empty(), "{text}");
    for line in of_guest {
        let fields = &line["fields"];
        assert_eq!(
            (&fields["job"], &fields["operator"], &fields["module"], &fields["task"]),
            (&json!("talks"), &json!("say"), &json!("contract@1.0.0"), &json!(0)),
            "{line}"
        );
    }
    let states: Vec<_> = lines.iter().filter(|line| line["fields"]["message"] == "job state").collect();
    assert!(states.len() >= 2 && states.iter().all(|line| line["fields"]["job"] == "talks"), "{states:?}");
}

/// Names of families as `docs/metrics.md` lists them.
fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rows = text.lines().filter(|line| line.starts_with("| `tidegate_"));
    let named = rows.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').map(str::to_owned).collect::<Vec<_>>());
    named.filter(|name| name.starts_with("tidegate_")).collect()
}

#[test]
fn the_metrics_of_a_running_job_and_the_documented_ones_are_the_same() {
    let host = Host::start();
    host.push("running-totals");
    let job = TotalsJob { rate: Some(1000), interval: "50ms", ..JOB };
    let mut document = job.document(&host.work().join("out"));
    document["source"][0]["watermark"] = json!({ "field": "/date_time" });
    host.put_job(&document);
    host.wait_for_checkpoints(job.name, 2);
    let page = host.client().get("/metrics").body;
    let announced: BTreeSet<String> =
        page.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect();
    let documented = documented();
    let missing: Vec<_> = announced.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&announced).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not documented: {missing:?}; documented and not there: {gone:?}");
    for name in &documented {
        let has_sample = page.lines().any(|line| line.starts_with(name.as_str()) && !line.starts_with('#'));
        assert!(has_sample, "{name} is announced and has no sample:\n{page}");
    }
    for name in ["tidegate_guest_cpu_seconds_total", "tidegate_guest_memory_bytes", "tidegate_guest_memory_peak_bytes"] {
        let sample = page.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains("operator=\"totals\""));
        let value = sample.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{name}: {sample:?}");
    }
    let job = host.job(job.name);
    let tasks = job["status"]["tasks"].as_array().expect("tasks");
    let guests: Vec<_> = tasks.iter().flat_map(|task| task["guests"].as_array().cloned().unwrap_or_default()).collect();
    assert!(guests.iter().any(|guest| guest["operator"] == "totals" && guest["memory_bytes"].as_u64() > Some(0)), "{job}");
    let shown = tidegate().args(["--server", host.url(), "job", "show", "totals"]).finish();
    assert!(shown.code == 0 && shown.output.contains("GUEST"), "{shown}");
}
