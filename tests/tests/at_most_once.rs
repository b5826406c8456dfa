//! `delivery = "at-most-once"`: after a failure a source goes on behind everything that it may have handed out. Events may be missing in
//! the end, and none counts twice, in the state or in the output.
//!
//! `KILLS` sets how often the host is killed; `TIDEGATE_SEED` repeats the moments of an earlier run.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate::fault::{CRASH_AT, Fault};
use tidegate_core::limits::RESERVED_RECORDS_MAX;
use tidegate_tests::generator::event;
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::output;
use tidegate_tests::random::Random;
use tidegate_tests::totals::{self, Total, Verdict};
use tidegate_tests::wait::until;

const NAME: &str = "most";
const RATE: u64 = 6_000;
const LIMIT: Duration = Duration::from_secs(120);

fn job(records: u64) -> TotalsJob {
    TotalsJob { name: NAME, records, keys: 500, splits: 3, parallelism: 2, rate: Some(RATE), interval: "100ms" }
}

fn document(job: &TotalsJob, out: &Path) -> Value {
    let mut document = job.document(out);
    document["delivery"] = json!("at-most-once");
    document["restart"] = json!({ "strategy": "fixed-delay", "attempts": 1000, "delay": "10ms" });
    document
}

fn verdict(job: &TotalsJob, out: &Path) -> Verdict {
    assert_eq!(output::staged(out), [""; 0], "rows that nobody will ever commit");
    let verdict = totals::check(job.input(), output::lines(out).iter().map(|line| Total::from_json(line)));
    println!("{verdict}");
    verdict
}

/// With other settings, from where the job stands.
fn go_on_with(host: &Host, document: &Value, from: Value) {
    host.stop(NAME);
    host.put_job(document);
    until("the job can be started", LIMIT, || {
        let answer = host.client().post(&format!("/v1/jobs/{NAME}/start"), &json!({ "from": from }));
        if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
    });
}

fn given_up(host: &Host) -> Option<u64> {
    host.job(NAME)["status"]["restored"]["given_up"]["bids"].as_u64()
}

fn started(job: &TotalsJob) -> (Host, PathBuf) {
    let host = Host::start();
    let out = host.work().join("out");
    host.push("running-totals");
    host.put_job(&document(job, &out));
    host.wait_for_checkpoints(NAME, 2);
    (host, out)
}

fn kills() -> u64 {
    match std::env::var("KILLS") {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("KILLS must be a whole number, not {text:?}")),
        _ => 12,
    }
}

#[test]
fn kills_at_random_moments_and_a_rescale_repeat_nothing() {
    let (mut random, kills) = (Random::from_env(), kills());
    let life_max = Duration::from_millis(800);
    let mut job = job((RATE as f64 * (kills as f64 * life_max.as_secs_f64() * 0.65 + 3.0)) as u64);
    let (mut host, out) = started(&job);
    for _ in 0..kills {
        std::thread::sleep(random.up_to(life_max));
        assert!(!host.has_ended(), "the host ended by itself");
        host.kill();
        host.spawn();
    }
    host.wait_until_ready();
    assert_ne!(host.job(NAME)["status"]["state"], "finished", "the job was done before the last kill: nothing was proved");
    (job.parallelism, job.rate) = (3, None);
    go_on_with(&host, &document(&job, &out), json!("latest"));
    host.wait_for_state(NAME, "finished");
    let verdict = verdict(&job, &out);
    assert!(verdict.is_at_most_once(), "seed {}: {verdict}", random.seed());
    assert!(verdict.lost > 0, "seed {}: no kill cost anything: nothing was proved", random.seed());
    assert_eq!(verdict.records + verdict.lost, job.records);
}

#[test]
fn what_a_crash_costs_is_what_the_job_says_it_gave_up() {
    let job = job(8_000);
    let (mut host, out) = started(&job);
    host.kill();
    host.restart();
    host.wait_for_state(NAME, "finished");
    let told = given_up(&host);
    let verdict = verdict(&job, &out);
    assert!(verdict.is_at_most_once() && verdict.lost > 0, "{verdict}");
    assert_eq!(told, Some(verdict.lost));
}

#[test]
fn an_end_in_order_costs_nothing() {
    let job = job(15_000);
    let (mut host, out) = started(&job);
    for _ in 0..2 {
        assert!(host.terminate().success());
        host.restart();
        host.wait_for_checkpoints(NAME, 1);
    }
    host.stop_with_savepoint(NAME);
    host.start_job(NAME, json!("latest"));
    host.wait_for_state(NAME, "finished");
    let verdict = verdict(&job, &out);
    assert!(verdict.is_exactly_once() && verdict.records == job.records, "{verdict}");
}

#[test]
fn a_start_that_the_user_asks_for_begins_where_the_user_says() {
    let mut job = job(12_000);
    let (mut host, _) = started(&job);
    let taken = host.client().post(&format!("/v1/jobs/{NAME}/savepoints?wait=60s"), &json!({})).document();
    let savepoint = taken["savepoint"]["id"].clone();
    std::thread::sleep(Duration::from_millis(300));
    host.kill();
    host.restart();
    go_on_with(&host, &document(&job, &host.work().join("savepoint")), json!({ "savepoint": savepoint }));
    host.wait_for_checkpoints(NAME, 1);
    assert_eq!(given_up(&host), None, "reservations of the time after the savepoint count for nothing");
    host.kill();
    host.restart();
    job.rate = None;
    let out = host.work().join("fresh");
    go_on_with(&host, &document(&job, &out), json!("fresh"));
    host.wait_for_state(NAME, "finished");
    let verdict = verdict(&job, &out);
    assert!(verdict.is_exactly_once() && verdict.records == job.records, "{verdict}");
}

/// Lines that were printed more than once over three lives, without a checkpoint in any of them.
fn printed_again(delivery: &str) -> usize {
    const RECORDS: u64 = 9_000;
    let mut host = Host::start();
    host.put_job(&json!({
        "name": NAME, "delivery": delivery, "checkpoint": { "interval": "1h" },
        "source": [{
            "name": "bids", "connector": "generator", "format": "json", "keys": 500, "records": RECORDS, "splits": 2,
            "parallelism": 2, "rate": RATE,
        }],
        "sink": [{ "name": "out", "connector": "stdout", "input": ["bids"] }],
    }));
    let printed = |host: &Host| {
        let mut times: HashMap<(u64, u64, u64), usize> = HashMap::new();
        let log = host.log_text();
        let rows = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        for row in rows {
            if let (Some(auction), Some(bidder), Some(price)) =
                (row["auction"].as_u64(), row["bidder"].as_u64(), row["price"].as_u64())
            {
                *times.entry((auction, bidder, price)).or_default() += 1;
            }
        }
        times
    };
    for life in 1..=2 {
        until("some rows are printed", LIMIT, || {
            let rows = printed(&host).values().sum::<usize>();
            if rows > life * 1000 { Ok(()) } else { Err(format!("{rows} rows")) }
        });
        host.kill();
        host.restart();
    }
    host.wait_for_state(NAME, "finished");
    let mut times = printed(&host);
    assert!(times.values().sum::<usize>() > 3000);
    // Two events may be alike.
    for i in 0..RECORDS {
        let event = event(i, 500);
        if let Some(times) = times.get_mut(&(event.auction, event.bidder, event.price)) {
            *times = times.saturating_sub(1);
        }
    }
    times.values().sum()
}

#[test]
fn what_was_printed_is_not_printed_again() {
    assert_eq!(printed_again("at-most-once"), 0);
    assert!(printed_again("at-least-once") > 0, "the same crashes, where records are repeated");
}

#[test]
fn a_file_is_read_on_behind_the_lines_that_were_reserved() {
    let mut host = Host::prepared();
    let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}")).collect();
    std::fs::write(host.work().join("lines"), lines.join("\n") + "\n").expect("the input can be written");
    host.set_env(CRASH_AT, &format!("{}:3", Fault::RecordsReservedHandedOutNot));
    host.restart();
    let out = host.work().join("out");
    // The answer may be lost with the host.
    let _ = host.client().try_put_json(
        &format!("/v1/jobs/{NAME}"),
        &json!({
            "name": NAME, "delivery": "at-most-once", "checkpoint": { "interval": "1h" },
            "source": [{ "name": "bids", "connector": "file", "path": host.work().join("lines") }],
            "sink": [{ "name": "out", "connector": "file", "input": ["bids"], "path": out }],
        }),
    );
    host.wait_for_exit(LIMIT);
    host.clear_env();
    host.restart();
    host.wait_for_state(NAME, "finished");
    let reserved = 3 * RESERVED_RECORDS_MAX as usize;
    assert_eq!(output::lines(&out), lines[reserved..]);
    assert_eq!(given_up(&host), Some(reserved as u64));
}
