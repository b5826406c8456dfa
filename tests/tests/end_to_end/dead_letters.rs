//! Dead letters from outside: what they tell, how a storm of them ends, and how they go back into the job, through kills.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;
use tidegate_tests::host::Host;
use tidegate_tests::output;
use tidegate_tests::random::Random;
use tidegate_tests::wait::until;

const PATIENCE: Duration = Duration::from_secs(120);

/// Rows of a few keys, some of them bad in some way, some with a timer that will be.
struct Input {
    lines: Vec<String>,
    /// By line: what is wrong with it.
    bad: BTreeMap<u64, &'static str>,
    bad_timers: u64,
    good_timers: u64,
}

fn input(random: &mut Random, records: u64, bad_in_hundred: u64) -> Input {
    let mut input = Input { lines: Vec::new(), bad: BTreeMap::new(), bad_timers: 0, good_timers: 0 };
    for n in 0..records {
        let mut text = format!(r#"{{"k":"key-{}","n":{n},"t":{}"#, random.below(20), 1000 + n);
        if random.below(100) < bad_in_hundred {
            let kind = ["reject", "reject", "bad-row", "trap"][random.below(4) as usize];
            write!(text, r#","do":"bad {kind}""#).expect("writes to memory");
            input.bad.insert(n, kind);
        } else {
            match random.below(100) {
                0 => {
                    text.push_str(r#","do":"timer-trap""#);
                    input.bad_timers += 1;
                }
                1 => {
                    text.push_str(r#","do":"timer-reject""#);
                    input.bad_timers += 1;
                }
                _ => input.good_timers += 1,
            }
        }
        text.push('}');
        input.lines.push(text);
    }
    input
}

fn job(host: &Host, case: &str, parallelism: u32) -> Value {
    json!({
        "name": "poison",
        "checkpoint": { "interval": "50ms" },
        "source": [{
            "name": "lines", "connector": "file", "path": host.work().join("lines.jsonl"), "format": "json",
            "watermark": { "field": "/t" },
        }],
        "operator": [{
            "name": "contract", "module": "contract@1.0.0", "input": ["lines"], "key": { "json": "/k" },
            "parallelism": parallelism, "config": { "case": case },
        }],
        "sink": [
            { "name": "rows", "connector": "file", "input": ["contract"], "path": host.work().join("rows") },
            { "name": "timers", "connector": "file", "input": ["contract.report"], "path": host.work().join("timers") },
        ],
    })
}

fn start(input: &Input) -> Host {
    let host = Host::start();
    std::fs::write(host.work().join("lines.jsonl"), input.lines.join("\n") + "\n").expect("writes the input");
    host.push("contract");
    host
}

/// Each row of the output: the number of its line, and the place in its key's chain. Fails where a chain has a gap or a repeat.
fn chains(host: &Host) -> BTreeSet<u64> {
    let (mut numbers, mut chains) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<u64>>::new());
    for line in output::lines(&host.work().join("rows")) {
        // `{"k":"key-1",…} #3 of 3`
        let (text, seen) = line.rsplit_once(" #").unwrap_or_else(|| panic!("no number: {line}"));
        let (seen, length) = seen.split_once(" of ").unwrap_or_else(|| panic!("no length: {line}"));
        assert_eq!(seen, length, "the two states of a key agree: {line}");
        let row: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(numbers.insert(row["n"].as_u64().expect("a number")), "twice: {line}");
        let key = row["k"].as_str().expect("a key").to_owned();
        assert!(chains.entry(key).or_default().insert(seen.parse().expect("a number")), "twice in the chain: {line}");
    }
    for (key, chain) in chains {
        assert!(chain.iter().copied().eq(1..=chain.len() as u64), "{key} has a gap: {chain:?}");
    }
    numbers
}

fn timers_fired(host: &Host) -> usize {
    output::lines(&host.work().join("timers")).iter().filter(|line| line.starts_with("event ")).count()
}

fn states(host: &Host) -> BTreeMap<String, usize> {
    let mut states = BTreeMap::new();
    for letter in host.dead_letters("poison") {
        *states.entry(letter["state"]["state"].as_str().expect("a state").to_owned()).or_default() += 1;
    }
    states
}

#[test]
fn letters_tell_all_that_is_known_and_come_back_once_whatever_is_killed() {
    let mut random = Random::from_env();
    let input = input(&mut random, 6000, 8);
    let mut host = start(&input);
    host.put_job(&job(&host, "mixed", 2));
    // Killed while it runs: letters of rows and of timers, none lost and none twice.
    for _ in 0..2 {
        std::thread::sleep(random.up_to(Duration::from_millis(300)));
        host.kill();
        host.restart();
    }
    host.wait_for_state("poison", "finished");
    let expected: BTreeSet<u64> = (0..6000).filter(|n| !input.bad.contains_key(n)).collect();
    assert_eq!(chains(&host), expected);
    let letters = host.dead_letters("poison");
    let (of_timers, of_rows): (Vec<_>, Vec<_>) = letters.iter().partition(|letter| letter["timer"].is_object());
    assert_eq!((of_timers.len() as u64, timers_fired(&host) as u64), (input.bad_timers, input.good_timers));
    let digest = host.client().get("/v1/modules/contract/1.0.0").document()["digest"].clone();
    let mut told = BTreeMap::new();
    for letter in &of_rows {
        let record = letter["record"].as_u64().expect("a record");
        let kind = letter["kind"].as_str().expect("a kind");
        let wrong = input.bad[&record];
        assert_eq!(kind, if wrong == "reject" { "rejected" } else { wrong }, "{letter}");
        assert!(told.insert(record, kind).is_none(), "record {record} is told twice");
        assert_eq!(
            (&letter["job"], &letter["operator"], &letter["module"]),
            (&json!("poison"), &json!("contract"), &json!("contract@1.0.0"))
        );
        assert_eq!((&letter["digest"], &letter["source"], &letter["input"]), (&digest, &json!("lines"), &json!(0)));
        assert_eq!(letter["value"], json!(input.lines[record as usize]));
        assert!(letter["split"].as_str().is_some_and(|split| split.ends_with("lines.jsonl")), "{letter}");
        for number in ["task", "processing_time_ms", "attempt", "instance", "call"] {
            assert!(letter[number].is_u64(), "{number} of {letter}");
        }
        assert_eq!(letter["backtrace"].is_array(), wrong == "trap", "{letter}");
        assert_eq!(letter["state"], json!({ "state": "open" }));
    }
    assert_eq!(told.len(), input.bad.len());

    // One, with its bytes.
    let id = of_rows[0]["id"].as_str().expect("an id");
    assert_eq!(&host.client().get(&format!("/v1/jobs/poison/dead-letters/{id}")).document(), of_rows[0]);
    let value = host.client().get(&format!("/v1/jobs/poison/dead-letters/{id}/value"));
    assert_eq!((value.status, value.content_type.as_str()), (200, "application/octet-stream"));
    assert_eq!(json!(value.body), of_rows[0]["value"]);
    host.client().get("/v1/jobs/poison/dead-letters/00000001-999-000000").problem(404);

    // Refused: nothing chosen; a letter that nobody knows.
    let replay = |host: &Host, body: Value| host.client().post("/v1/jobs/poison/dead-letters/replay", &body);
    assert!(replay(&host, json!({})).problem(409)["remedy"].as_str().is_some_and(|remedy| remedy.contains("all")));
    replay(&host, json!({ "ids": ["00000001-999-000000"] })).problem(404);
    replay(&host, json!({ "everything": true })).problem(400);
    // Discarded: no longer among the open ones.
    let discarded = of_rows[1]["id"].as_str().expect("an id");
    let discard = host.client().post("/v1/jobs/poison/dead-letters/discard", &json!({ "ids": [discarded] })).document();
    assert_eq!((discard["letters"].as_u64(), discard["request"].as_u64()), (Some(1), Some(1)));
    let dry = replay(&host, json!({ "all": true, "dry_run": true })).document();
    assert_eq!(dry["letters"].as_u64(), Some(letters.len() as u64 - 1), "{dry}");
    assert_eq!((&dry["left_out"], &dry["request"]), (&json!({ "discarded": 1 }), &Value::Null));
    assert_eq!(states(&host), BTreeMap::from([("open".into(), letters.len() - 1), ("discarded".into(), 1)]));

    // Mended, with another parallelism, and killed in the middle.
    host.put_job(&job(&host, "mended", 3));
    let asked = replay(&host, json!({ "all": true }));
    assert_eq!(asked.status, 202, "{asked}");
    assert_eq!(asked.document()["waits_for_start"], json!(true));
    let twice = replay(&host, json!({ "ids": [id] })).problem(409);
    assert!(twice["detail"].as_str().is_some_and(|detail| detail.contains("is pending by request 2")), "{twice}");
    host.start_job("poison", json!("latest"));
    for _ in 0..2 {
        std::thread::sleep(random.up_to(Duration::from_millis(150)));
        host.kill();
        host.restart();
    }
    host.wait_for_state("poison", "finished");
    let mut all: BTreeSet<u64> = (0..6000).collect();
    all.remove(&of_rows[1]["record"].as_u64().expect("a record"));
    assert_eq!(chains(&host), all, "every letter went through once, and nothing else");
    assert_eq!(states(&host), BTreeMap::from([("replayed".into(), letters.len() - 1), ("discarded".into(), 1)]));
    // Timers of replayed rows fire as well, and the bad ones fire again.
    let mended = letters.len() as u64 - 1;
    assert_eq!(timers_fired(&host) as u64, input.good_timers + mended, "timers of mended rows, and mended timers");
}

/// At most once, a letter that may have been delivered is not delivered again, whatever the parallelism is by then.
#[test]
fn letters_come_back_at_most_once_when_the_job_reads_so() {
    let mut random = Random::from_env();
    let input = input(&mut random, 6000, 8);
    let mut host = start(&input);
    let at_most_once = |host: &Host, case: &str, parallelism: u32| {
        let mut job = job(host, case, parallelism);
        job["delivery"] = json!("at-most-once");
        job
    };
    host.put_job(&at_most_once(&host, "mixed", 2));
    host.wait_for_state("poison", "finished");
    let good: BTreeSet<u64> = (0..6000).filter(|n| !input.bad.contains_key(n)).collect();
    assert_eq!(chains(&host), good, "nothing happened to it");
    host.put_job(&at_most_once(&host, "mended", 3));
    let asked = host.client().post("/v1/jobs/poison/dead-letters/replay", &json!({ "all": true }));
    assert_eq!(asked.status, 202, "{asked}");
    // The first task to reserve its share of the letters gets no further.
    host.terminate();
    host.set_env("TIDEGATE_CRASH_AT", "records-reserved-handed-out-not");
    host.restart();
    let _ = host.client().try_post("/v1/jobs/poison/start", &json!({ "from": "latest" }));
    host.wait_for_exit(PATIENCE);
    host.clear_env();
    host.restart();
    host.wait_for_state("poison", "finished");
    let came = chains(&host);
    assert!(
        came.is_superset(&good) && came.len() < 6000,
        "{} rows: a share of the letters is lost, and nothing else",
        came.len()
    );
    assert_eq!(host.dead_letters("poison").len() as u64, input.bad.len() as u64 + input.bad_timers, "none was written again");
}

#[test]
fn a_running_job_takes_letters_back_and_one_that_fails_again_names_the_old_one() {
    let mut random = Random::from_env();
    let mut input = input(&mut random, 300, 0);
    input.lines[7] = r#"{"k":"a","n":7,"t":1007,"do":"bad trap"}"#.to_owned();
    let host = start(&input);
    let mut job = job(&host, "mixed", 2);
    // It waits for more, so the job goes on running.
    job["source"][0]["follow"] = json!(true);
    job["source"][0]["start"] = json!("earliest");
    host.put_job(&job);
    let letters = |count: usize| {
        until("letters are committed", PATIENCE, || {
            let letters: Vec<_> = host
                .dead_letters("poison")
                .into_iter()
                .filter(|letter| letter["kind"] == "trap" && letter["timer"].is_null())
                .collect();
            if letters.len() == count { Ok(letters) } else { Err(format!("{} letters", letters.len())) }
        })
    };
    let first = letters(1).remove(0);
    let ids = json!({ "ids": [first["id"]] });
    let asked = host.client().post("/v1/jobs/poison/dead-letters/replay", &ids);
    assert_eq!((asked.status, &asked.document()["waits_for_start"]), (202, &json!(false)));
    let [old, new] = &letters(2)[..] else { unreachable!("two were waited for") };
    assert_eq!(new["replay_of"], first["id"]);
    assert_eq!((&new["record"], &new["value"], &new["exact"]), (&first["record"], &first["value"], &json!(true)));
    assert_eq!(old["state"]["state"], "replayed");
    assert!(old["state"]["checkpoint"].is_u64(), "{old}");
    assert_eq!(new["state"], json!({ "state": "open" }));
    host.client().post("/v1/jobs/poison/dead-letters/replay", &ids).problem(409);
    let forced = json!({ "ids": [first["id"]], "force": true });
    assert_eq!(host.client().post("/v1/jobs/poison/dead-letters/replay", &forced).status, 202);
    letters(3);
}

#[test]
fn a_storm_of_bad_records_fails_the_job_once_and_says_why() {
    let mut random = Random::from_env();
    let input = input(&mut random, 3000, 60);
    let host = start(&input);
    let mut job = job(&host, "mixed", 1);
    job["operator"][0]["errors"] = json!({ "max": 100, "per": "1m" });
    host.put_job(&job);
    let failed = host.wait_for_state("poison", "failed");
    let error = failed["status"]["error"].as_str().expect("a reason");
    for part in ["operator contract could not process 101 of", "within 1m", "(errors.max)", "× row # is bad", "raise `errors`"] {
        assert!(error.contains(part), "no {part:?}: {error}");
    }
    assert_eq!(failed["status"]["attempt"], json!(1), "it is not tried again and again: {failed}");
    // Two of three are bad, and nobody set a limit.
    let mut job = self::job(&host, "mixed", 1);
    job["name"] = json!("share");
    job["operator"][0]["errors"] = json!({ "ratio_min": 200 });
    host.put_job(&job);
    let failed = host.wait_for_state("share", "failed");
    assert!(failed["status"]["error"].as_str().is_some_and(|error| error.contains("errors.ratio")), "{failed}");
}

#[test]
fn on_error_fail_names_the_record() {
    let mut random = Random::from_env();
    for (wrong, reason) in [("reject", "is bad"), ("bad-row", "is bad"), ("trap", "unreachable"), ("exit", "ended itself")] {
        let mut input = input(&mut random, 50, 0);
        input.lines[33] = format!(r#"{{"k":"the-key","n":33,"t":1033,"do":"bad {wrong}"}}"#);
        let host = start(&input);
        let mut job = job(&host, "mixed", 1);
        job["operator"][0]["on_error"] = json!("fail");
        host.put_job(&job);
        let failed = host.wait_for_state("poison", "failed");
        let error = failed["status"]["error"].as_str().expect("a reason");
        for part in ["on_error = \"fail\"", reason, "record 33 of", "lines.jsonl", "source lines", "key \"the-key\""] {
            assert!(error.contains(part), "{wrong}: no {part:?}: {error}");
        }
        assert!(host.dead_letters("poison").is_empty() && chains(&host).is_empty(), "nothing of a failed epoch is visible");
        // Passed over, on the next try.
        job["operator"][0]["on_error"] = json!("skip");
        host.put_job(&job);
        host.start_job("poison", json!("latest"));
        host.wait_for_state("poison", "finished");
        assert_eq!((chains(&host).len(), host.dead_letters("poison").len()), (49, 0), "{wrong}");
    }
}
