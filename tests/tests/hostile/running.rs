//! What misbehaves in a job, beside a job that does not.

use crate::component::{Component, OK, SCRATCH, SPIN, words};
use serde_json::{Value, json};
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::output;
use tidegate_tests::totals::{self, Total};

/// Runs on the same host all the while.
const NEIGHBOUR: TotalsJob =
    TotalsJob { name: "neighbour", records: 40_000, keys: 100, splits: 2, parallelism: 1, rate: Some(2000), interval: "200ms" };

type Case = (&'static str, Component, &'static str);

fn process(body: impl Into<String>) -> Component {
    Component { process: body.into(), ..Component::default() }
}

fn start(body: impl Into<String>) -> Component {
    Component { start: body.into(), ..Component::default() }
}

/// Answers what lies at the scratch place, after these words were written there.
fn answer(changes: &[(u32, u32)]) -> String {
    let changes: Vec<_> = changes.iter().map(|(offset, word)| (SCRATCH + offset, *word)).collect();
    format!("{} (i32.const {SCRATCH})", words(&changes))
}

/// A list of a thousand elements of so many bytes, each with a text of 1 MiB at this offset: all of them the same MiB.
fn overlapping(element: u32, text: u32) -> String {
    format!(
        "(local $i i32)
         (loop $next
            (i32.store offset={text} (i32.add (i32.const 131072) (i32.mul (local.get $i) (i32.const {element}))) (i32.const 1310720))
            (i32.store offset={} (i32.add (i32.const 131072) (i32.mul (local.get $i) (i32.const {element}))) (i32.const 1048576))
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000))))",
        text + 4
    )
}

fn cases() -> Vec<Case> {
    let deeper = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (local.get 0)) (i32.const 1)))";
    let grows = "(table $t 1 funcref)";
    let emit = |words: &str, port: u32, count: u32, len: u32| {
        process(format!(
            "{words} (call $emit (i32.const {port}) (i32.const {count}) (i32.const {SCRATCH}) (i32.const {})) (i32.const {OK})",
            len as i32
        ))
    };
    let ok = format!("(i32.const {OK})");
    vec![
        ("traps", process("unreachable"), "wasm `unreachable` instruction executed"),
        ("spins", process(SPIN), "the call ran longer than 100 ms (limits.deadline)"),
        (
            "allocates",
            process("(loop $more (drop (memory.grow (i32.const 64))) (br $more)) unreachable"),
            "exceeds the limit of 67108864 (limits.memory)",
        ),
        ("recurses", Component { items: deeper.to_owned(), ..process("(call $deeper (i32.const 1))") }, "call stack exhausted"),
        ("start-traps", start("unreachable"), "could not start: "),
        ("start-spins", start(SPIN), "the call ran longer than 1000 ms (limits.deadline)"),
        // The host itself calls it, to hand over what `start` is told.
        (
            "realloc-recurses",
            Component {
                realloc: "(call $realloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1))",
                ..Component::default()
            },
            "call stack exhausted",
        ),
        ("realloc-answers-nonsense", Component { realloc: "(i32.const -16)", ..Component::default() }, "realloc return"),
        ("realloc-traps", Component { realloc: "unreachable", ..Component::default() }, "unreachable"),
        (
            "table-grows",
            Component {
                items: grows.to_owned(),
                ..process("(loop $more (drop (table.grow $t (ref.null func) (i32.const 65536))) (br $more)) unreachable")
            },
            "(table_elements_max)",
        ),
        ("emits-to-no-port", emit("", 0, 1, 16), "output port 0 does not exist: `describe` declares 0 outputs"),
        ("emits-outside-its-memory", emit("", 0, 1, u32::MAX), "out of bounds"),
        ("answers-outside-its-memory", process("(i32.const -16)"), "out of bounds"),
        ("answers-at-an-odd-address", process("(i32.const 4097)"), "aligned"),
        ("answers-no-known-case", process(answer(&[(0, 9)])), "discriminant"),
        ("rejects-four-billion-rows", process(answer(&[(8, u32::MAX)])), "out of bounds"),
        // One row, number 77, without a reason.
        (
            "rejects-a-row-that-is-not-there",
            process(answer(&[(4, SCRATCH + 64), (8, 1), (64, 77)])),
            "row 77 was rejected, the batch has 1",
        ),
        ("blames-a-row-that-is-not-there", process(answer(&[(0, 1), (4, 0), (8, 77)])), "bad-row named row 77 of a batch of 1"),
        // fatal, with two bytes of 0xff as its reason.
        ("gives-a-reason-that-is-no-text", process(answer(&[(0, 1), (4, 1), (8, SCRATCH + 64), (12, 2), (64, 0xffff)])), "utf-8"),
        (
            "gives-reasons-that-overlap",
            Component { memory: "40", ..process(format!("{} {}", overlapping(12, 4), answer(&[(4, 131072), (8, 1000)]))) },
            "the guest handed more than 134217728 bytes to the host at once (crossing_bytes_max)",
        ),
        (
            "logs-fields-that-overlap",
            Component {
                memory: "40",
                ..process(format!(
                    "{} (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 131072) (i32.const 1000)) {ok}",
                    overlapping(16, 8)
                ))
            },
            "(crossing_bytes_max)",
        ),
    ]
}

/// What the guests of the contract's tests do, in a job: the case, and the limit or rule that it meets.
const CONTRACT_CASES: [(&str, &str); 13] = [
    ("emit-huge-key", "(key_bytes_max)"),
    ("emit-huge-value", "(value_bytes_max)"),
    ("emit-too-much", "(output_bytes_max)"),
    ("emit-too-many-rows", "(output_rows_max)"),
    ("emit-many-headers", "(headers_max)"),
    ("value-bad-slot", "is outside the call"),
    ("column-decreasing", "the column of values does not fit"),
    ("value-too-large", "(state_value_bytes_max)"),
    ("map-key-too-large", "(map_key_bytes_max)"),
    ("timers-too-many", "(timers_per_call_max)"),
    ("timers-of-one-key", "(timers_per_key_max)"),
    ("metrics-too-many", "(metrics_max)"),
    ("handles-too-many", "(handles_max)"),
];

fn job(name: &str, module: &str, key: Option<Value>, config: Value) -> Value {
    let mut operator = json!({
        "name": "evil", "module": module, "input": ["lines"], "on_error": "fail", "config": config,
        "limits": { "deadline": "100ms" },
    });
    if let Some(key) = key {
        operator["key"] = key;
        // What it does takes longer than a loop.
        operator["limits"]["deadline"] = json!("5s");
    }
    json!({
        "name": name,
        "restart": { "strategy": "none" },
        "source": [{ "name": "lines", "connector": "file", "path": "input.txt", "format": "lines" }],
        "operator": [operator],
        "sink": [{ "name": "out", "connector": "blackhole", "input": ["lines"] }],
    })
}

fn with_neighbour() -> Host {
    let host = Host::start();
    std::fs::write(host.work().join("input.txt"), "bad\n").expect("writes the input");
    host.push("running-totals");
    host.put_job(&NEIGHBOUR.document(&host.work().join("out")));
    host.wait_for_checkpoints(NEIGHBOUR.name, 1);
    host
}

#[track_caller]
fn assert_the_neighbour_is_right(host: &mut Host, pid: u32) {
    assert!(!host.has_ended() && host.pid() == pid, "the host is the one it was");
    let job = host.wait_for_state(NEIGHBOUR.name, "finished");
    assert_eq!(job["status"]["attempt"], 1, "{job}");
    let lines = output::lines(&host.work().join("out"));
    let verdict = totals::check(NEIGHBOUR.input(), lines.iter().map(|line| Total::from_json(line)));
    assert!(verdict.is_exactly_once() && verdict.records == NEIGHBOUR.records, "{verdict}");
}

/// What the job failed with.
fn failure(host: &Host, job: &Value) -> String {
    host.put_job(job);
    let name = job["name"].as_str().expect("a name");
    let failed = host.wait_for_state(name, "failed");
    failed["status"]["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn each_fails_its_own_job_with_the_reason_by_name_and_the_neighbour_goes_on() {
    let mut host = with_neighbour();
    let pid = host.pid();
    let mut wrong = Vec::new();
    for (name, component, named) in cases() {
        host.client().put(&format!("/v1/modules/{name}/1.0.0"), "application/wasm", &component.bytes()).document();
        let error = failure(&host, &job(name, &format!("{name}@1.0.0"), None, json!({})));
        if !error.contains(named) {
            wrong.push(format!("{name}: {error}"));
        }
    }
    host.push("contract");
    for (case, named) in CONTRACT_CASES {
        let error = failure(&host, &job(case, "contract@1.0.0", Some(json!("row")), json!({ "case": case })));
        if !error.contains(named) {
            wrong.push(format!("{case}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_the_neighbour_is_right(&mut host, pid);
}

#[test]
fn a_flood_of_log_lines_does_not_fill_the_log_and_harms_nobody() {
    let mut host = with_neighbour();
    let pid = host.pid();
    // 10,000 lines a call, of 4 bytes each: "evil".
    let flood = format!(
        "(local $i i32)
         (loop $next
            (call $log (i32.const 2) (i32.const 3072) (i32.const 4) (i32.const 0) (i32.const 0))
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10000))))
         (i32.const {OK})"
    );
    host.client().put("/v1/modules/flood/1.0.0", "application/wasm", &process(flood).bytes()).document();
    std::fs::write(host.work().join("input.txt"), "line\n".repeat(300)).expect("writes the input");
    let mut job = job("flood", "flood@1.0.0", None, json!({}));
    job["batch"] = json!({ "rows": 1 });
    job["operator"][0]["limits"] = json!({ "log_lines_per_second": 50 });
    host.put_job(&job);
    host.wait_for_state("flood", "finished");
    let log = host.log_text();
    let lines = log.lines().filter(|line| line.contains("tidegate::guest") && line.contains("flood")).count();
    // The job takes a second or so, and each second has 50.
    assert!((1..300 * 100 / 2).contains(&lines), "{lines} lines of 3,000,000");
    assert_the_neighbour_is_right(&mut host, pid);
}

#[test]
fn state_that_grows_without_end_stops_at_the_limit_of_its_job() {
    let host = Host::start();
    std::fs::write(host.work().join("input.txt"), "bad\n".repeat(20)).expect("writes the input");
    host.push("contract");
    // Each record adds 1 MiB to the list of one key.
    let mut job = job("grows", "contract@1.0.0", Some(json!("row")), json!({ "case": "list-grow" }));
    job["limits"] = json!({ "state_bytes": "8MiB" });
    job["batch"] = json!({ "rows": 1 });
    job["operator"][0]["on_error"] = json!("dead-letter");
    host.put_job(&job);
    host.wait_for_state("grows", "finished");
    let letters = host.dead_letters("grows");
    assert!((12..=16).contains(&letters.len()), "{} of 20 records found no room", letters.len());
    for letter in &letters {
        assert!(letter.to_string().contains("exceeds the limit of 8388608 (limits.state_bytes)"), "{letter}");
    }
    assert!(host.log_text().contains("the job's state has reached 80 % of its limit"), "it was said in time");
    let metrics = host.client().get("/metrics").body;
    assert!(metrics.contains("tidegate_job_state_bytes_max{job=\"grows\"} 8388608"), "{metrics}");
}
