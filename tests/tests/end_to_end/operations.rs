//! What operators of a host rely on: that it goes down in order, and what it tells about itself.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, Read, Write};
use std::path::Path;
use tidegate_tests::cli::tidegate;
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::output;
use tidegate_tests::totals::{self, Total};

/// No checkpoint of its own accord within the test.
const JOB: TotalsJob =
    TotalsJob { name: "totals", records: 200_000, keys: 100, splits: 2, parallelism: 2, rate: Some(20_000), interval: "1h" };

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
    document["source"][0]["watermark"] = json!({ "out_of_orderness": "0s" });
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

/// A collector of one request at a time: answers each with an empty object and keeps its body.
fn collector() -> (String, std::sync::mpsc::Receiver<Value>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (bodies, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some((path, body)) = read_request(&stream) else { continue };
            assert_eq!(path, "/v1/traces");
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            // A host that is killed does not wait for the answer.
            let _ = (&stream).write_all(answer.as_bytes());
            if bodies.send(serde_json::from_slice(&body).expect("a body of JSON")).is_err() {
                return;
            }
        }
    });
    (format!("http://{address}"), received)
}

fn read_request(stream: &std::net::TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = std::io::BufReader::new(stream);
    let (mut line, mut path, mut len) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
        if let Some(target) = line.strip_prefix("POST ") {
            path = target.split(' ').next()?.to_owned();
        }
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            len = value.trim().parse().ok()?;
        }
        line.clear();
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn spans(request: &Value) -> Vec<Value> {
    request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_collector_gets_a_trace_of_each_checkpoint_with_its_phases() {
    let (endpoint, received) = collector();
    let mut host = Host::prepared();
    host.set_env("TIDEGATE_OTLP_ENDPOINT", &endpoint);
    host.restart();
    host.push("running-totals");
    host.put_job(&TotalsJob { rate: Some(2000), interval: "50ms", ..JOB }.document(&host.work().join("out")));
    let request = received.recv_timeout(std::time::Duration::from_secs(60)).expect("a trace comes");
    let all = spans(&request);
    let root = all.iter().find(|span| span["name"] == "checkpoint").unwrap_or_else(|| panic!("no root: {request}"));
    assert!(root["parentSpanId"].is_null() && root["status"]["code"] == 1, "{root}");
    let attribute = |key: &str| root["attributes"].as_array()?.iter().find(|it| it["key"] == key).map(|it| it["value"].clone());
    assert_eq!(attribute("tidegate.job"), Some(json!({ "stringValue": "totals" })));
    let nanos = |span: &Value, key: &str| span[key].as_str().and_then(|it| it.parse::<u64>().ok()).expect("nanoseconds as text");
    let children: Vec<_> = all.iter().filter(|span| span["parentSpanId"] == root["spanId"]).collect();
    for name in ["async", "manifest", "decision", "sink commit"] {
        let child = children.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {name}: {request}"));
        assert_eq!(child["traceId"], root["traceId"]);
        assert!(nanos(child, "startTimeUnixNano") <= nanos(child, "endTimeUnixNano"), "{child}");
        assert!(nanos(child, "endTimeUnixNano") <= nanos(root, "endTimeUnixNano"), "{child}");
    }
}

#[test]
fn a_collector_that_is_not_there_harms_nobody() {
    let mut host = Host::prepared();
    host.set_env("TIDEGATE_OTLP_ENDPOINT", "http://127.0.0.1:1");
    host.restart();
    host.push("running-totals");
    let job = TotalsJob { records: 10_000, rate: None, interval: "20ms", ..JOB };
    host.put_job(&job.document(&host.work().join("out")));
    host.wait_for_state(job.name, "finished");
    let verdict = totals::check(job.input(), output::lines(&host.work().join("out")).iter().map(|line| Total::from_json(line)));
    assert!(verdict.is_exactly_once(), "{verdict}");
    assert!(host.log_text().contains("traces don't reach their collector"), "the log says so");
}

#[test]
fn a_job_file_is_checked_with_the_modules_that_it_names_by_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let component = guest_build::component("running-totals");
    let job = |operator: &str, path: &str| {
        format!(
            "name = \"checked\"\n[[source]]\nname = \"in\"\nconnector = \"file\"\npath = \"{path}\"\nformat = \"json\"\n\
             [[operator]]\nname = \"totals\"\nmodule = \"{}\"\ninput = [\"in\"]\n{operator}\n\
             [[sink]]\nname = \"out\"\nconnector = \"file\"\ninput = [\"totals\"]\npath = \"out\"\n",
            component.display()
        )
    };
    let file = folder.path().join("job.toml");
    let check = |text: String| {
        std::fs::write(&file, text).expect("writes the job file");
        tidegate().args(["check", &file.display().to_string()]).finish()
    };
    std::fs::write(folder.path().join("in.json"), "").expect("writes the input");
    let sound = check(job("key = { json = \"/bidder\" }\nparallelism = 2", "in.json"));
    assert_eq!(sound.code, 0, "{sound}");
    for words in ["checked is sound", "totals", "by /bidder", "processor, keyed"] {
        assert!(sound.output.contains(words), "{words:?} in {sound}");
    }
    // A key is missing, and so is the input.
    let wrong = check(job("", "nothing.json"));
    assert_eq!(wrong.code, 2, "{wrong}");
    assert!(wrong.output.contains("operator.totals"), "{wrong}");
    let wrong = check(job("key = { json = \"/bidder\" }", "nothing.json"));
    assert!(wrong.code == 2 && wrong.output.contains("source.in.path") && wrong.output.contains("nothing.json"), "{wrong}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("lists").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "nothing is left behind: {left:?}");
}

#[test]
fn a_module_that_is_named_by_its_version_is_asked_of_the_server_or_said_to_be_unchecked() {
    let host = Host::start();
    host.push("running-totals");
    let job = TotalsJob { name: "totals", ..JOB }.document(&host.work().join("out"));
    let file = host.work().join("job.json");
    std::fs::write(&file, job.to_string()).expect("writes the job file");
    let path = file.display().to_string();
    let offline = tidegate().args(["check", &path]).finish();
    assert!(offline.code == 0 && offline.errors.contains("running-totals@1.0.0 was not looked into"), "{offline}");
    let online = tidegate().args(["--server", host.url(), "check", &path]).finish();
    assert!(online.code == 0 && online.output.contains("module running-totals@1.0.0: processor"), "{online}");
    std::fs::write(&file, job.to_string().replace("@1.0.0", "@9.9.9")).expect("writes the job file");
    let missing = tidegate().args(["--server", host.url(), "check", &path]).finish();
    assert!(missing.code == 2 && missing.output.contains("running-totals@9.9.9 is not there"), "{missing}");
}

#[test]
fn the_doctor_finds_a_host_and_its_folder_sound_and_one_damaged_byte() {
    let mut host = Host::start();
    host.push("running-totals");
    host.put_job(&TotalsJob { rate: Some(5000), interval: "50ms", ..JOB }.document(&host.work().join("out")));
    host.wait_for_checkpoints(JOB.name, 2);
    assert!(host.terminate().success());
    let data = host.data().display().to_string();
    let examine = |more: &[&str]| tidegate().args(["doctor", "--data", &data, "--listen", "127.0.0.1:0"]).args(more).finish();
    let sound = examine(&["--output", "json"]);
    let report: Value = serde_json::from_str(&sound.output).unwrap_or_else(|error| panic!("{error}: {sound}"));
    assert!(sound.code == 0 && report["ok"] == true, "{sound}");
    for subject in ["engine", "open files", "port", "data folder", "fsync", "clock", "free space", "modules", "job totals"] {
        let found = report["findings"].as_array().is_some_and(|all| all.iter().any(|it| it["subject"] == subject));
        assert!(found, "nothing about {subject}: {sound}");
    }
    let segments = host.data().join("jobs").join(JOB.name).join("segments/totals");
    for entry in std::fs::read_dir(&segments).expect("lists the segments").flatten() {
        let mut bytes = std::fs::read(entry.path()).expect("reads a segment");
        bytes[20] ^= 1;
        std::fs::write(entry.path(), bytes).expect("writes a segment");
    }
    let damaged = examine(&[]);
    assert_eq!(damaged.code, 1, "{damaged}");
    assert!(damaged.output.lines().any(|line| line.starts_with("fail") && line.contains("checksum")), "{damaged}");
}
