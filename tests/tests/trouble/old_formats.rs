//! Data folders that hosts of before have written: this host goes on with them as if it had written them itself. What is in them and
//! how a new one is made is told in `tests/fixtures/README.md`.

use crate::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use tidegate::data_folder::DATA_FORMAT;
use tidegate::fault::{CRASH_AT, Fault};

/// Stopped with a savepoint. Of its dead letters one was replayed and failed again, one is discarded, one waits to be replayed.
const STOPPED: &str = "stopped";
/// Its host crashed when a checkpoint was decided and its output not yet visible.
const CRASHED: &str = "crashed";
/// What the fixtures' hosts have read; of the crashed job some more.
const EARLY: u64 = 400;
const EARLY_OF_CRASHED: u64 = 408;
/// What this host reads.
const LATE: std::ops::Range<u64> = 500..800;
/// In the year 2200.
const NEVER_MS: u64 = 7_258_118_400_000;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// All that were ever kept.
fn archives() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for format in 1..=DATA_FORMAT {
        let folder = fixtures().join(format!("format-{format}"));
        let before = all.len();
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("the folder can be listed").path();
            all.extend(path.to_string_lossy().ends_with(".tar.gz").then_some(path));
        }
        assert!(all.len() > before, "{} has no fixture: see tests/fixtures/README.md", folder.display());
    }
    all
}

#[track_caller]
fn tar(arguments: &[&str], archive: &Path, folder: &Path, what: &[&str]) {
    let mut command = Command::new("tar");
    command.args(arguments).arg("-f").arg(archive).arg("-C").arg(folder).args(what);
    assert!(command.status().expect("there is a tar command").success(), "{command:?}");
}

// ---- the input -------------------------------------------------------------------------------------------------------------------

fn is_bad(n: u64) -> bool {
    n % 17 == 5
}

fn key(n: u64) -> String {
    format!("key-{}", n * 7 % 90)
}

fn line(n: u64, alarm_ms: u64) -> String {
    let mut record = json!({ "k": key(n), "n": n, "t": 1000 + 10 * n });
    match n {
        _ if n < EARLY => record["early"] = json!(1),
        _ if LATE.contains(&n) => record["late"] = json!(1),
        _ => {}
    }
    match n % 6 {
        // Some have fired when the fixture is made, some have not.
        0 => record["timer"] = json!(1500 + 10 * n),
        3 => record["timer"] = json!(9000 + 10 * n),
        _ => {}
    }
    match n {
        50 => record["alarm"] = json!(NEVER_MS),
        _ if n < EARLY && n.is_multiple_of(10) => record["alarm"] = json!(alarm_ms),
        _ => {}
    }
    if is_bad(n) {
        record["bad"] = json!(1);
    }
    record.to_string()
}

fn append(input: &Path, lines: impl IntoIterator<Item = String>) {
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    let mut file = fs::OpenOptions::new().create(true).append(true).open(input).expect("the input can be opened");
    file.write_all(text.as_bytes()).expect("the input can be written");
}

fn input(host: &Host, job: &str) -> PathBuf {
    host.work().join(format!("{job}.jsonl"))
}

fn document(job: &str, follow: bool, mended: bool, parallelism: u32) -> Value {
    let mut document = json!({
        "name": job,
        "checkpoint": { "interval": "500ms" },
        "source": [{
            "name": "lines", "connector": "file", "path": format!("{job}.jsonl"), "format": "json", "follow": follow,
            "start": "earliest", "watermark": { "field": "/t" },
        }],
        "operator": [{
            "name": "all", "module": "every-state@1.0.0", "input": ["lines"], "key": { "json": "/k" },
            "parallelism": parallelism, "config": { "mended": mended },
        }],
        "sink": [
            { "name": "rows", "connector": "file", "input": ["all"], "path": format!("{job}-rows") },
            { "name": "side", "connector": "file", "input": ["all.side"], "path": format!("{job}-side") },
        ],
    });
    if !follow {
        document["source"][0].as_object_mut().expect("a source").remove("start");
    }
    document
}

// ---- the oracle ------------------------------------------------------------------------------------------------------------------

/// What the guest keeps of a key, in other words than its own.
#[derive(Default)]
struct Key {
    ns: Vec<u64>,
    text: String,
    map: BTreeMap<String, u64>,
    list: Vec<String>,
    lasting: u64,
    event: BTreeMap<String, u64>,
}

impl Key {
    fn row(&mut self, record: &Value) -> String {
        let n = record["n"].as_u64().expect("a number");
        self.ns.push(n);
        let seen = self.ns.len() as u64;
        self.text = if self.text.len() > 20 { n.to_string() } else { format!("{}.{n}", self.text) };
        self.map.insert(format!("m{}", n % 7), n);
        self.map.remove(&format!("m{}", seen % 7));
        if self.list.len() == 5 {
            self.list.clear();
        }
        self.list.push(n.to_string());
        let pairs = |map: &BTreeMap<String, u64>| format!("{:?}", map.iter().collect::<Vec<_>>());
        let mut row = format!(
            "{n} {} number={seen} pair={:?} text={} map={} list={} sum={} greatest={:?} mean={}",
            record["k"].as_str().expect("a key"),
            (-(n as i64), seen as u32),
            self.text,
            pairs(&self.map),
            self.list.join("|"),
            self.ns.iter().sum::<u64>(),
            self.ns.iter().map(|n| n % 100).max(),
            self.ns.iter().sum::<u64>() as f64 / 2.0,
        );
        if record["early"].is_number() {
            self.lasting = n;
            self.event.insert(format!("e{}", n % 3), n);
        }
        if record["late"].is_number() {
            // What lived for a second is long gone.
            row += &format!(" brief=0 lasting={} event={}", self.lasting, pairs(&self.event));
        }
        row
    }
}

/// The rows and the side output of a job that has read all of its input and mends what is bad among the late ones.
fn expected(input: &Path) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut rows, mut side) = (BTreeMap::<String, Key>::new(), Vec::new(), Vec::new());
    for line in fs::read_to_string(input).expect("the input is there").lines() {
        let record: Value = serde_json::from_str(line).expect("the input is JSON");
        let (key, n) = (record["k"].as_str().expect("a key"), &record["n"]);
        if record["bad"].is_number() {
            side.extend(record["late"].is_number().then(|| format!("mended {n}")));
            continue;
        }
        rows.push(keys.entry(key.to_owned()).or_default().row(&record));
        side.extend(record["timer"].is_number().then(|| format!("timer {key} {n}")));
        let alarm = record["alarm"].as_u64().filter(|alarm| *alarm != NEVER_MS);
        side.extend(alarm.map(|_| format!("alarm {key} {n}")));
    }
    (rows, side)
}

#[track_caller]
fn assert_output(host: &Host, job: &str, mended: &BTreeSet<u64>) {
    let (rows, mut side) = expected(&input(host, job));
    side.extend(mended.iter().map(|n| format!("mended {n}")));
    for (sink, expected) in [("rows", rows), ("side", side)] {
        let folder = host.work().join(format!("{job}-{sink}"));
        output::assert_same_lines(&output::lines(&folder), &expected, &format!("{job}, {sink}"));
        assert_eq!(output::staged(&folder), Vec::<String>::new(), "{job}, {sink}");
    }
}

// ---- dead letters ----------------------------------------------------------------------------------------------------------------

/// The number in the record of a letter.
#[track_caller]
fn n_of(letter: &Value) -> u64 {
    let value = letter["value"].as_str().unwrap_or_else(|| panic!("no value: {letter}"));
    serde_json::from_str::<Value>(value).expect("a letter has its record")["n"].as_u64().expect("a number")
}

fn states(letters: &[Value]) -> BTreeMap<&str, usize> {
    let mut states = BTreeMap::new();
    for letter in letters {
        *states.entry(letter["state"]["state"].as_str().expect("a state")).or_default() += 1;
    }
    states
}

fn bad_among(range: std::ops::Range<u64>) -> BTreeSet<u64> {
    range.filter(|n| is_bad(*n)).collect()
}

fn request(host: &Host, job: &str, what: &str, body: Value) {
    host.client().post(&format!("/v1/jobs/{job}/dead-letters/{what}"), &body).document();
}

// ---- a folder of before goes on --------------------------------------------------------------------------------------------------

/// A host on the folder of an archive, which has everything but the modules.
fn host_on(archive: &Path) -> Host {
    eprintln!("{}", archive.display());
    let mut host = Host::prepared();
    tar(&["-xz"], archive, host.data().parent().expect("the data lies in a folder"), &[]);
    assert!(!host.data().join("modules").exists(), "code is no part of a fixture");
    host.restart();
    host
}

#[track_caller]
fn wait_for_failed(host: &Host, job: &str, part: &str) {
    let error = error_of_failed(host, job);
    assert!(error.contains(part), "{error}");
}

#[test]
fn a_savepoint_of_an_older_host_is_gone_on_from_to_the_end() {
    for archive in archives() {
        let host = host_on(&archive);
        let stored = host.job(STOPPED);
        assert_eq!(stored["status"]["state"], "stopped", "{stored}");
        let savepoints = host.client().get(&format!("/v1/jobs/{STOPPED}/savepoints")).document();
        let id = savepoints["savepoints"][0]["id"].as_str().unwrap_or_else(|| panic!("no savepoint: {savepoints}")).to_owned();
        let letters = host.dead_letters(STOPPED);
        let bad = bad_among(0..EARLY);
        assert_eq!(letters.iter().map(n_of).collect::<BTreeSet<_>>(), bad);
        let open = bad.len() - 2;
        assert_eq!(states(&letters), BTreeMap::from([("replayed", 1), ("discarded", 1), ("pending", 1), ("open", open)]));
        let pending = letters.iter().find(|letter| letter["state"]["state"] == "pending").map(n_of).expect("one is pending");
        assert_eq!(letters.iter().filter(|letter| letter["replay_of"].is_string()).count(), 1);

        host.push("every-state");
        append(&input(&host, STOPPED), LATE.map(|n| line(n, 0)));
        // With another parallelism: key groups move.
        host.put_job(&document(STOPPED, false, true, 3));
        host.start_job(STOPPED, json!({ "savepoint": id }));
        host.wait_for_state(STOPPED, "finished");
        assert_output(&host, STOPPED, &BTreeSet::from([pending]));
        let after = host.dead_letters(STOPPED);
        assert_eq!(states(&after), BTreeMap::from([("replayed", 2), ("discarded", 1), ("open", open)]));
    }
}

#[test]
fn the_latest_checkpoint_of_an_older_host_is_gone_on_from_to_the_end() {
    for archive in archives() {
        let host = host_on(&archive);
        let commits = folder(&host, CRASHED).commits();
        let (_, newest) = commits.last().expect("checkpoints were decided");
        // It ran when its host ended, so it is started, and says what is missing.
        wait_for_failed(&host, CRASHED, "tidegate module push every-state@1.0.0");
        host.push("every-state");
        append(&input(&host, CRASHED), LATE.map(|n| line(n, 0)));
        host.put_job(&document(CRASHED, false, true, 2));
        request(&host, CRASHED, "replay", json!({ "all": true }));
        host.start_job(CRASHED, json!("latest"));
        let finished = host.wait_for_state(CRASHED, "finished");
        assert_eq!(finished["status"]["restored"]["checkpoint"], newest["pointer"]["checkpoint"], "{}", finished["status"]);
        assert_output(&host, CRASHED, &bad_among(0..EARLY_OF_CRASHED));
    }
}

/// A fixture that lacks something proves nothing about it.
#[test]
fn the_fixtures_hold_what_they_promise() {
    for archive in archives() {
        let bytes = fs::metadata(&archive).expect("the archive is there").len();
        assert!(bytes < 200 << 10, "{} has {bytes} bytes", archive.display());
        let folder = tempfile::tempdir().expect("a folder");
        tar(&["-xz"], &archive, folder.path(), &[]);
        assert_promises(folder.path());
    }
}

fn assert_promises(folder: &Path) {
    let of = |job: &str| JobFolder(folder.join("data/jobs").join(job));
    let crashed = of(CRASHED);
    assert!(crashed.commits().len() >= 2, "retained checkpoints");
    let chains = crashed.chains();
    assert!(!chains.is_empty(), "state");
    assert!(chains.iter().any(|chain| chain.len() > 1 && chain[0] && !chain[1]), "a full segment and a delta: {chains:?}");
    let staged = ["rows", "side"].map(|sink| output::staged(&folder.join(format!("work/{CRASHED}-{sink}"))).len());
    assert!(staged[0] > 0, "output that is decided and not visible");
    assert!(!output::lines(&folder.join(format!("work/{CRASHED}-rows"))).is_empty(), "output that is");
    let entries = fs::read_dir(of(STOPPED).0.join("replays")).expect("a log of replays").count();
    assert_eq!(entries, 3, "one done, one discarded, one that waits");
}

// ---- a new one -------------------------------------------------------------------------------------------------------------------

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// Lines of the input that have come out, or were given up.
fn wait_until_read(host: &Host, job: &str, end: u64) {
    let bad = bad_among(0..end).len();
    host.wait_for_lines(&host.work().join(format!("{job}-rows")), end as usize - bad);
    until("the dead letters are committed", LIMIT, || {
        let found = host.dead_letters(job).iter().filter(|letter| letter["replay_of"].is_null()).count();
        if found == bad { Ok(()) } else { Err(format!("{found} of {bad}")) }
    });
}

#[test]
#[ignore = "writes a new fixture: see tests/fixtures/README.md"]
fn write_a_fixture() {
    let mut host = Host::start();
    host.push("every-state");
    let alarm_ms = now_ms() + 60_000;
    for job in [STOPPED, CRASHED] {
        append(&input(&host, job), []);
        host.put_job(&document(job, true, false, 2));
    }
    // Much at once and then a little: the checkpoints after the first are deltas.
    let mut begin = 0;
    for end in [EARLY - 20, EARLY - 14, EARLY - 8, EARLY] {
        for job in [STOPPED, CRASHED] {
            append(&input(&host, job), (begin..end).map(|n| line(n, alarm_ms)));
        }
        for job in [STOPPED, CRASHED] {
            wait_until_read(&host, job, end);
        }
        begin = end;
    }
    let ids: Vec<_> = host.dead_letters(STOPPED).iter().map(|letter| letter["id"].clone()).collect();
    request(&host, STOPPED, "replay", json!({ "ids": [ids[0]] }));
    until("the replayed letter has failed again", LIMIT, || {
        let letters = host.dead_letters(STOPPED);
        if letters.iter().any(|letter| letter["replay_of"].is_string()) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    request(&host, STOPPED, "discard", json!({ "ids": [ids[1]] }));
    host.stop_with_savepoint(STOPPED);
    request(&host, STOPPED, "replay", json!({ "ids": [ids[2]] }));
    host.kill();

    append(&input(&host, CRASHED), (EARLY..EARLY_OF_CRASHED).map(|n| line(n, alarm_ms)));
    host.set_env(CRASH_AT, Fault::DecisionWrittenSinksNot.name());
    host.spawn();
    host.wait_for_exit(LIMIT);
    assert!(now_ms() < alarm_ms, "this took so long that alarms may have gone off: try again on a machine that is less busy");

    let folder = host.data().parent().expect("the data lies in a folder").to_owned();
    assert_promises(&folder);
    let target = fixtures().join(format!("format-{DATA_FORMAT}"));
    fs::create_dir_all(&target).expect("a folder for the fixture");
    let version = env!("CARGO_PKG_VERSION");
    let archive = (1..).map(|n| target.join(format!("{version}-{n}.tar.gz"))).find(|path| !path.exists()).expect("a free name");
    let left_out = ["--exclude=data/modules", "--exclude=data/host.lock"];
    tar(&[&left_out[..], &["--sort=name", "--owner=0", "--group=0", "-cz"]].concat(), &archive, &folder, &["data", "work"]);
    eprintln!("{} with {} bytes", archive.display(), fs::metadata(&archive).expect("it is there").len());
}

// ---- the format of the folder ----------------------------------------------------------------------------------------------------

/// A host that has ended, on a folder that has work in it.
fn ended() -> Host {
    let mut host = Host::start();
    host.terminate();
    host
}

#[track_caller]
fn refused(host: &mut Host, format: &[u8], parts: &[&str]) {
    let path = host.data().join("format.json");
    fs::write(&path, format).expect("the file can be written");
    let owner = fs::read(host.data().join("host.json")).expect("the last host has left its name");
    let said = host.log_text().len();
    host.spawn();
    assert!(!host.wait_for_exit(LIMIT).success());
    let log = host.log_text().split_off(said);
    for part in parts {
        assert!(log.contains(part), "no {part:?}: {log}");
    }
    assert_eq!(fs::read(&path).expect("the file is there"), format, "it is left as it is");
    assert_eq!(fs::read(host.data().join("host.json")).expect("still there"), owner, "and nothing else is touched");
}

#[test]
fn a_folder_of_a_newer_format_is_refused_with_both_formats_and_the_version_to_start() {
    let mut host = ended();
    let newer = DATA_FORMAT + 1;
    let knows = format!("knows format {DATA_FORMAT}");
    let format = format!(r#"{{"format":{newer},"written_by":"tidegate 9.1.0","what_is_new":["x"]}}"#);
    refused(
        &mut host,
        format.as_bytes(),
        &[&format!("has format {newer} (written by tidegate 9.1.0)"), &knows, "start it with tidegate 9.1.0 or newer"],
    );
}

#[test]
fn a_folder_whose_format_cannot_be_read_is_told_with_what_to_write_there() {
    let mut host = ended();
    let path = host.data().join("format.json").display().to_string();
    let good = fs::read(host.data().join("format.json")).expect("a host names the format");
    for damaged in [&b""[..], b"{\"format\":", b"[]", b"{\"format\":-1,\"written_by\":\"\"}", b"{\"format\":\"one\"}", &[0; 64]] {
        refused(&mut host, damaged, &[&path, "is damaged", &format!("{{\"format\": {DATA_FORMAT}, \"written_by\": \"\"}}")]);
    }
    // What it says to do helps.
    fs::write(&path, format!("{{\"format\": {DATA_FORMAT}, \"written_by\": \"\"}}")).expect("writes");
    host.restart();
    host.terminate();
    fs::write(&path, good).expect("writes");
    host.restart();
}
