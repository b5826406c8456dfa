//! What a job tells while it runs: its events as a stream, and what its operators log.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use tidegate_tests::cli::tidegate;
use tidegate_tests::host::Host;

#[test]
fn a_job_tells_its_states_checkpoints_dead_letters_and_logs() {
    let host = Host::start();
    host.push("contract");
    let input = host.work().join("in.jsonl");
    std::fs::write(&input, "{\"k\": \"a\"}\nnonsense\n{\"k\": \"b\"}\n").expect("writes the input");
    let job = json!({
        "name": "j",
        "source": [{ "name": "in", "connector": "file", "path": input, "format": "lines" }],
        "operator": [{
            "name": "talks", "module": "contract@1.0.0", "input": ["in"], "key": { "json": "/k" }, "config": { "case": "log" },
        }],
        "sink": [{ "name": "out", "connector": "file", "input": ["talks"], "path": host.work().join("out") }],
    });
    host.put_job(&job);
    host.wait_for_state("j", "finished");

    let page = host.client().get("/v1/jobs/j/logs?level=warn").document();
    let lines: Vec<_> = page["lines"].as_array().expect("a list of lines").iter().collect();
    let said = |message: &str| lines.iter().find(|line| line["message"].as_str().is_some_and(|it| it.contains(message)));
    let error = said("an error line").unwrap_or_else(|| panic!("{page}"));
    assert_eq!((&error["level"], &error["operator"], &error["task"]), (&json!("error"), &json!("talks"), &json!(0)));
    assert_eq!(error["module"], "contract@1.0.0");
    assert!(said("a warn line").is_some() && said("an info line").is_none(), "{page}");
    let shown = tidegate().args(["job", "logs", "j", "--follow", "--level", "error", "--server", host.url()]).finish();
    assert!(shown.code == 0 && shown.output.contains("talks/0  an error line"), "{shown}");
    assert!(shown.errors.contains("j is finished"), "{shown}");

    host.client().get("/v1/jobs/j/dead-letters?before=nonsense").problem(400);
    let events = kept_events(&host, "j", |event| event["to"] == "finished");
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let states: Vec<_> = of("state").iter().map(|event| event["to"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(states, ["starting", "running", "finished"]);
    let steps: Vec<_> = of("checkpoint").iter().filter(|it| it["kind"] == "final").map(|it| it["step"].clone()).collect();
    assert_eq!(steps, ["triggered", "completed"], "{events:#?}");
    let letters: u64 = of("dead-letters").iter().map(|event| event["new"].as_u64().unwrap_or_default()).sum();
    assert_eq!(letters, 1, "{events:#?}");
    assert!(of("log").iter().any(|event| event["message"] == "an error line"));
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap_or_default()).collect();
    assert!(ids.iter().all(|id| id.contains('-')), "{ids:?}");
}

/// Events from the first one that is kept to one that is looked for.
fn kept_events(host: &Host, job: &str, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let stream = ureq::get(format!("{}/v1/jobs/{job}/events?after=0", host.url())).call().expect("a stream of events");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut events = Vec::new();
    for line in BufReader::new(stream.into_body().into_reader()).lines() {
        let line = line.expect("the stream goes on");
        if let Some(data) = line.strip_prefix("data: ") {
            let event: Value = serde_json::from_str(data).expect("data is JSON");
            let last = is_last(&event);
            events.push(event);
            if last {
                return events;
            }
        }
    }
    panic!("the stream has ended: {events:#?}")
}

#[test]
fn a_guarded_host_serves_those_who_have_a_token() {
    let mut host = Host::prepared();
    host.set_env("TIDEGATE_TOKENS", "read:reader-0123456789,write:writer-0123456789");
    host.restart();
    host.client().get("/v1/jobs").problem(401);
    let file = |token: &str| {
        let path = host.work().join("token");
        std::fs::write(&path, token).expect("writes the token");
        path
    };
    let list = |token: &str| tidegate().args(["job", "list", "--server", host.url(), "--token-file"]).arg(file(token)).finish();
    let refused = list("nobody-0123456789");
    assert!(refused.code == 1 && refused.errors.contains("none of this server's"), "{refused}");
    let listed = list("reader-0123456789");
    assert!(listed.code == 0 && listed.errors.contains("no jobs yet"), "{listed}");
    assert!(!host.log_text().contains("0123456789"), "no token is logged");
}
