//! Why a job stands where it stands: the sentence names the cause, and every wait has a name and a beginning.

use serde_json::{Value, json};
use std::time::Duration;
use tidegate_tests::cli::tidegate;
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::wait::until;

const LIMIT: Duration = Duration::from_secs(60);

/// Asks until the sentence has these words in it.
#[track_caller]
fn diagnosed(host: &Host, job: &str, words: &[&str]) -> Value {
    until(&format!("a diagnosis with {words:?}"), LIMIT, || {
        let why = host.client().try_get(&format!("/v1/jobs/{job}/why"))?.document();
        let said = why["diagnosis"].as_str().unwrap_or_default();
        if words.iter().all(|word| said.contains(word)) { Ok(why) } else { Err(why.to_string()) }
    })
}

fn task<'a>(why: &'a Value, name: &str) -> &'a Value {
    let tasks = why["tasks"].as_array().unwrap_or_else(|| panic!("no tasks: {why}"));
    tasks.iter().find(|task| task["name"] == name).unwrap_or_else(|| panic!("no task {name}: {why}"))
}

/// Lines through a guest that spins over each of them that begins with `bad`.
fn spinning(host: &Host, lines: usize, deadline: &str) -> Value {
    host.push("contract");
    let input = host.work().join("input.txt");
    std::fs::write(&input, "bad\n".repeat(lines)).expect("writes the input");
    json!({
        "name": "spins",
        "checkpoint": { "interval": "50ms" },
        "batch": { "rows": 1 },
        "source": [{ "name": "lines", "connector": "file", "path": input, "format": "lines" }],
        "operator": [{
            "name": "spin", "module": "contract@1.0.0", "input": ["lines"], "key": "row", "on_error": "skip",
            "config": { "case": "spin" }, "limits": { "deadline": deadline },
        }],
        "sink": [{ "name": "out", "connector": "blackhole", "input": ["spin"] }],
    })
}

#[test]
fn a_slow_guest_is_the_bottleneck_and_the_tasks_before_it_wait_for_room() {
    let host = Host::start();
    host.put_job(&spinning(&host, 100_000, "200ms"));
    let why = diagnosed(&host, "spins", &["task spin[0] is the bottleneck", "lines[0] waits for room"]);
    assert!(task(&why, "spin[0]")["shares"]["guest"].as_f64().is_some_and(|share| share > 0.3), "{why}");
    let source = &task(&why, "lines[0]")["shares"]["downstream"]["spin[0]"];
    assert!(source.as_f64().is_some_and(|share| share > 0.3), "{why}");
    let shown = tidegate().args(["--server", host.url(), "job", "why", "spins"]).finish();
    assert!(shown.code == 0 && shown.output.starts_with("task spin[0] is the bottleneck"), "{shown}");
}

#[test]
fn a_guest_that_spins_is_named_with_its_deadline_and_the_checkpoint_that_waits_for_it() {
    let host = Host::start();
    host.put_job(&spinning(&host, 1, "600s"));
    let why = diagnosed(
        &host,
        "spins",
        &["task spin[0] is the bottleneck: it has been inside one call of its guest spin", "waits for it"],
    );
    let wait = &task(&why, "spin[0]")["wait"];
    assert_eq!((&wait["kind"], &wait["operator"], &wait["deadline_ms"]), (&json!("guest-call"), &json!("spin"), &json!(600_000)));
    let checkpoint = &why["checkpoints"][0];
    assert_eq!((&checkpoint["phase"], &checkpoint["missing"]), (&json!("tasks"), &json!(["spin[0]"])), "{why}");
    assert!(checkpoint["triggered_ms"].as_u64() <= why["at_ms"].as_u64(), "{why}");
}

#[test]
fn a_job_without_input_waits_for_it_and_goes_on_waiting_since_the_same_moment() {
    let host = Host::start();
    host.push("contract");
    let input = host.work().join("input.txt");
    std::fs::write(&input, "").expect("writes the input");
    host.put_job(&json!({
        "name": "quiet",
        "checkpoint": { "interval": "1h" },
        "source": [{
            "name": "lines", "connector": "file", "path": input, "format": "lines", "follow": true, "start": "earliest",
        }],
        "operator": [
            { "name": "echo", "module": "contract@1.0.0", "input": ["lines"], "key": "row", "config": { "case": "emit-echo" } },
        ],
        "sink": [{ "name": "out", "connector": "blackhole", "input": ["echo"] }],
    }));
    let why = diagnosed(&host, "quiet", &["the job waits for input: lines[0]"]);
    assert_eq!(
        (&task(&why, "lines[0]")["wait"]["kind"], &task(&why, "echo[0]")["wait"]["kind"]),
        (&json!("source-idle"), &json!("input"))
    );
    let since = |why: &Value| task(why, "echo[0]")["since_ms"].as_u64().expect("a time");
    let first = since(&why);
    std::fs::write(&input, "hello\n").expect("writes the input");
    // The wait that follows is another one.
    until("a wait that began later", LIMIT, || {
        let why = host.client().try_get("/v1/jobs/quiet/why")?.document();
        if since(&why) > first + 5 { Ok(()) } else { Err(why.to_string()) }
    });
}

#[test]
fn a_job_between_two_attempts_says_when_the_next_one_begins_and_why() {
    let host = Host::start();
    host.push("contract");
    let input = host.work().join("input.txt");
    std::fs::write(&input, "bad\n").expect("writes the input");
    host.put_job(&json!({
        "name": "rough",
        "restart": { "strategy": "fixed-delay", "attempts": 3, "delay": "10m" },
        "source": [{ "name": "lines", "connector": "file", "path": input, "format": "lines" }],
        "operator": [
            { "name": "ask", "module": "contract@1.0.0", "input": ["lines"], "key": "row", "config": { "case": "transient" } },
        ],
        "sink": [{ "name": "out", "connector": "blackhole", "input": ["ask"] }],
    }));
    let why = diagnosed(&host, "rough", &["between two attempts: attempt 2 begins in", "the guest says transient"]);
    assert_eq!((&why["state"], &why["restart"]["attempt"]), (&json!("restarting"), &json!(2)), "{why}");
    assert!(why["restart"]["due_ms"].as_u64() > why["at_ms"].as_u64(), "{why}");
}

#[test]
fn a_job_that_was_stopped_and_one_that_is_not_there_are_answered_too() {
    let host = Host::start();
    host.push("running-totals");
    let job = TotalsJob { name: "totals", records: 1000, keys: 10, splits: 1, parallelism: 1, rate: None, interval: "100ms" };
    host.put_job(&job.document(&host.work().join("out")));
    host.wait_for_state("totals", "finished");
    assert_eq!(diagnosed(&host, "totals", &["finished"])["state"], "finished");
    host.client().get("/v1/jobs/nobody/why").problem(404);
}
