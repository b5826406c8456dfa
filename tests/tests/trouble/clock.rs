//! A wall clock that is far from what timers were set by.

use crate::*;
use serde_json::json;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// One row with this time for its timestamp, and a job that goes on waiting for more.
fn started_with(case: &str, time: i64) -> Host {
    let host = Host::start();
    host.push("contract");
    fs::write(host.work().join("lines.jsonl"), format!("{}\n", json!({ "k": "a", "t": time }))).expect("the input is written");
    host.put_job(&json!({
        "name": "timers",
        "checkpoint": { "interval": "50ms" },
        "source": [{
            "name": "lines", "connector": "file", "path": "lines.jsonl", "format": "json", "follow": true, "start": "earliest",
            "watermark": { "field": "/t" },
        }],
        "operator": [{
            "name": "contract", "module": "contract@1.0.0", "input": ["lines"], "key": { "json": "/k" },
            "config": { "case": case }, "limits": { "timer_rounds": 100 },
        }],
        "sink": [{ "name": "out", "connector": "file", "input": ["contract.report"], "path": "out" }],
    }));
    host
}

fn fired(host: &Host) -> Vec<i64> {
    let lines = output::lines(&host.work().join("out"));
    let times = lines.iter().filter_map(|line| line.strip_prefix("processing ")?.split(' ').next()?.parse().ok());
    let mut times: Vec<i64> = times.collect();
    times.sort_unstable();
    times
}

/// As after a long stop, or when the clock went ahead.
#[test]
fn timers_that_have_to_catch_up_with_the_clock_do_so_however_many_there_are() {
    const SECONDS: i64 = 3000;
    let begin = now_ms() - SECONDS * 1000;
    let mut host = started_with("timers-catch-up", begin);
    let wait_for = |host: &Host, count: usize| {
        until(&format!("{count} timers have fired"), LIMIT, || {
            let found = fired(host).len();
            if found >= count { Ok(()) } else { Err(format!("{found}; {}", host.job("timers")["status"])) }
        });
    };
    wait_for(&host, 1);
    host.kill();
    host.restart();
    wait_for(&host, SECONDS as usize);
    assert_eq!(host.wait_for_state("timers", "running")["status"]["attempt"], 1);
    let all = fired(&host);
    assert!(all.iter().copied().eq((begin..).step_by(1000).take(all.len())), "each once, and none left out: {all:?}");
}

#[test]
fn timers_that_never_come_nearer_to_the_clock_still_end_the_job() {
    let host = started_with("timers-for-ever-processing", 0);
    let error = error_of_failed(&host, "timers");
    assert!(error.contains("(timer_rounds_max)"), "{error}");
}
