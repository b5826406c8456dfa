//! What comes from outside, bent in every way: job files, bodies of requests, rows of guests, segments, manifests, entries of logs, dead
//! letters, files of sources, fields and times.
//!
//! What has to hold, whatever the bytes are: nothing panics, and memory stays within [`MEMORY_BYTES_MAX`]. Where something is read well,
//! what was read holds its own promises (rows can be walked, a letter survives its own form).
//!
//! Inputs are real ones with some bytes changed, cut, doubled, or taken from another. A finding becomes a file in
//! `tests/corpus/<target>/`: those run first, every time. `FUZZ_SECONDS` looks for new ones for so long, and
//! `TIDEGATE_SEED` repeats that; without them the same inputs are tried each time, so that a change fails for what it changed.

use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tidegate::api::{JobView, ReplayRequest, SavepointRequest, StartRequest, StopRequest};
use tidegate::connector::dead_letter::{self, DeadLetter, DeadLetterQuery};
use tidegate::connector::event_time::EventTime;
use tidegate::connector::file::FileSource;
use tidegate::connector::json_field::{self, Pointer};
use tidegate::connector::{BatchLimits, ConnectorContext, Source, SourceBatch, SourceStatus, catalog};
use tidegate::job::replay_log;
use tidegate::job_store::StoredJob;
use tidegate::state::{CallTime, KeyedState, merge_segments};
use tidegate_core::checkpoint::Manifest;
use tidegate_core::job_graph::parse::parse_job;
use tidegate_core::job_graph::spec::{SinkSpec, SourceSpec};
use tidegate_core::limits::{GuestLimits, RowLimits};
use tidegate_core::recovery::{self, JobShape, LogEntry};
use tidegate_core::replay::{Progress, REPLAY_SOURCE};
use tidegate_core::row::{self, Rows};
use tidegate_core::state_schema::{self, StateDeclaration, StateKind};
use tidegate_core::units;
use tidegate_tests::random::Random;

/// Of each target, where nobody asks for more.
const INPUTS: u64 = 20_000;
/// Of the whole process. No input of the fuzzer has more than some hundred KiB.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const INPUT_BYTES_MAX: usize = 256 << 10;

struct Target {
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
}

const TARGETS: &[Target] = &[
    Target { name: "job-file", run: job_file, seeds: job_files },
    Target { name: "body", run: body, seeds: bodies },
    Target { name: "rows", run: rows, seeds: some_rows },
    Target { name: "segment", run: segment, seeds: segments },
    Target { name: "manifest", run: manifest, seeds: manifests },
    Target { name: "log", run: log, seeds: logs },
    Target { name: "dead-letter", run: letter, seeds: letters },
    Target { name: "file", run: file, seeds: files },
    Target { name: "field", run: field, seeds: fields },
    Target { name: "text", run: text, seeds: texts },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Vec<u8> {
    let path = root().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// ---- job files and bodies ---------------------------------------------------------------------------------------------------------

fn job_files() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = ["convert", "dedup", "flights", "record-upper", "running-totals", "word-count"]
        .map(|example| read(&format!("examples/{example}/job.toml")))
        .to_vec();
    let everything = br#"
name = "all"
delivery = "at-least-once"
key_groups = 128
checkpoint = { interval = "1s", min_pause = "0s", timeout = "1m", max_concurrent = 2, tolerable_failures = 3, retained = 3 }
restart = { strategy = "exponential-delay", initial = "200ms", max = "1m", reset_after = "10m", attempts = "unlimited" }
batch = { rows = 1024, bytes = "128KiB", linger = "5ms" }
[[source]]
name = "g"
connector = "generator"
rate = 1000.5
records = 10
keys = 7
seed = 3
errors = { max = 10, per = "1m", ratio = 0.5, ratio_min = 10, bytes = "off" }
watermark = { field = "/a/b", out_of_orderness = "5s", idle_after = "30s" }
[[operator]]
name = "o"
module = "m@1.0.0"
input = ["g"]
key = { json = ["/a", "/b~1c"] }
parallelism = 2
on_error = "skip"
limits = { memory = "64MiB", deadline = "1s" }
config = { a = 1, b = { c = [true] } }
[[sink]]
name = "s"
connector = "stdout"
input = ["o.side"]
"#;
    files.push(everything.to_vec());
    files.extend(files.clone().iter().map(|file| {
        let value: Value = toml::from_str(std::str::from_utf8(file).expect("UTF-8")).expect("TOML");
        value.to_string().into_bytes()
    }));
    files
}

fn job_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for value in [toml::from_str::<Value>(text).ok(), serde_json::from_str(text).ok()].into_iter().flatten() {
        match parse_job(&value) {
            Ok(job) => {
                let form = serde_json::to_value(&job).expect("a job is JSON");
                assert_eq!(
                    serde_json::from_value::<tidegate_core::job_graph::spec::JobSpec>(form).expect("reads its own form"),
                    job
                );
                job.sources.iter().for_each(check_source);
                job.sinks.iter().for_each(check_sink);
            }
            Err(problems) => {
                assert!(!problems.is_empty() && problems.len() <= 101, "{} problems", problems.len());
                let told: usize = problems.iter().map(|problem| problem.to_string().len()).sum();
                assert!(told < 1 << 20, "{told} bytes of problems");
            }
        }
    }
}

fn check_source(source: &SourceSpec) {
    // Built to be checked: nothing is opened.
    let _ = catalog::build_source(source, &ConnectorContext::for_check(&source.name)).map(|_| ());
}

fn check_sink(sink: &SinkSpec) {
    let _ = catalog::build_sink(sink, &ConnectorContext::for_check(&sink.name)).map(|_| ());
}

fn bodies() -> Vec<Vec<u8>> {
    [
        r#"{"from":"latest"}"#,
        r#"{"from":{"savepoint":"savepoint-000001"}}"#,
        r#"{"savepoint":true,"drain":true,"operation":"0123"}"#,
        r#"{"operation":"0123"}"#,
        r#"{"ids":["00000001-000-000000"],"operator":"o","after_ms":1,"before_ms":2,"all":true,"force":true,"dry_run":true}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn body(bytes: &[u8]) {
    let _ = serde_json::from_slice::<StartRequest>(bytes);
    let _ = serde_json::from_slice::<StopRequest>(bytes);
    let _ = serde_json::from_slice::<SavepointRequest>(bytes);
    if let Ok(request) = serde_json::from_slice::<ReplayRequest>(bytes) {
        let form = serde_json::to_vec(&request).expect("a request is JSON");
        assert_eq!(serde_json::from_slice::<ReplayRequest>(&form).expect("reads its own form"), request);
    }
    let _ = serde_json::from_slice::<JobView>(bytes);
    let _ = serde_json::from_slice::<StoredJob>(bytes);
}

// ---- rows and state ---------------------------------------------------------------------------------------------------------------

fn some_rows() -> Vec<Vec<u8>> {
    let mut headers = Vec::new();
    assert!(row::write_header(&mut headers, "trace", b"\xff") && row::write_header(&mut headers, "", b""));
    let mut rows = Rows::default();
    rows.push(&row::Row::new(b"key", b"value", 5));
    rows.push(&row::Row { value: None, headers: &headers, ..row::Row::new(b"", b"", i64::MIN) });
    rows.push(&row::Row { change: row::ChangeKind::Retract, headers: &headers, ..row::Row::new(b"k", b"v", i64::MAX) });
    // The number of rows goes in front.
    let with = |count: u8, bytes: &[u8]| [&[count], bytes].concat();
    vec![with(3, &rows.bytes), with(0, b""), with(1, &rows.bytes[..24])]
}

fn rows(bytes: &[u8]) {
    let Some((count, bytes)) = bytes.split_first() else { return };
    let limits = RowLimits {
        key_bytes_max: 100,
        value_bytes_max: 1000,
        headers_bytes_max: 100,
        batch_rows_max: 50,
        ..RowLimits::default()
    };
    if row::check(bytes, u32::from(*count), &limits).is_ok() {
        let walked: Vec<_> = row::raw(bytes).collect();
        assert_eq!(walked.len(), usize::from(*count));
        for (row, raw) in walked {
            let mut again = Vec::new();
            row.write(&mut again);
            assert_eq!(again, raw, "a row is written as it was read");
            assert!(row::headers(row.headers).map(|(name, value)| name.len() + value.len()).sum::<usize>() <= 100);
        }
    }
}

fn declarations() -> Vec<StateDeclaration> {
    let declare = |name: &str, kind, value_size, map_key_type: Option<&str>| StateDeclaration {
        name: name.to_owned(),
        kind,
        value_type: "bytes".to_owned(),
        map_key_type: map_key_type.map(str::to_owned),
        schema_version: 1,
        value_size,
        ttl: None,
    };
    vec![
        declare("value", StateKind::Value, None, None),
        declare("fixed", StateKind::Value, Some(8), None),
        declare("map", StateKind::Map, None, Some("bytes")),
        declare("list", StateKind::List, None, None),
    ]
}

fn new_state() -> KeyedState {
    KeyedState::new(&declarations(), 64, 0..64, &GuestLimits::default())
}

fn segments() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for full in [true, false] {
        let mut state = new_state();
        let mut rows = Rows::default();
        for i in 0..40_u64 {
            rows.push(&row::Row::new(&i.to_le_bytes(), b"", 0));
        }
        state.begin_batch(&rows.bytes, rows.count, CallTime { watermark: 0, processing_time: 0 });
        for slot in 0..40 {
            let domain = state_schema::TimeDomain::EventTime;
            state.set_timer(slot, domain, i64::from(slot) * 3, u64::from(slot)).expect("sets a timer");
        }
        state.commit();
        state.freeze(full);
        let frozen = loop {
            if let Some(frozen) = state.drain(usize::MAX) {
                break frozen;
            }
        };
        all.push(frozen.write_segment().bytes);
    }
    all
}

fn segment(bytes: &[u8]) {
    let _ = new_state().restore(bytes);
    let whole = &segments_once()[0];
    let _ = merge_segments(&[whole, bytes], true).map(|_| ());
}

fn segments_once() -> &'static [Vec<u8>] {
    static SEGMENTS: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    SEGMENTS.get_or_init(segments)
}

// ---- what lies on the disk ----------------------------------------------------------------------------------------------------------

fn manifests() -> Vec<Vec<u8>> {
    let manifest = r#"{"format":1,"job":"j","checkpoint":7,"kind":"checkpoint","key_groups":64,"operators":{"o":{"module":"m@1",
        "digest":"ab","parallelism":2,"states":[],"tasks":[[{"path":"segments/o/0-1-a.seg","first_group":0,"end_group":32,
        "full":true,"entries":3,"bytes":100,"crc32c":5}],[]]}},"sources":{"in":[{"split":"a","position":{"offset":5},"record":3,
        "max_timestamp":null}],"~replay":[{"split":"o/00000-00064","position":{"log":"job","operator":"o","first":0,"end":64,
        "entry":2,"letter":1},"record":1,"max_timestamp":null}]},"sinks":{"out":[{"staged":"x"}]},"end_of_input":false,"time_ms":1}"#;
    vec![manifest.as_bytes().to_vec()]
}

fn manifest(bytes: &[u8]) {
    let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return };
    let form = serde_json::to_vec(&manifest).expect("a manifest is JSON");
    // Not that it is the same: a position may hold numbers beyond what JSON keeps exactly.
    serde_json::from_slice::<Manifest>(&form).expect("reads its own form");
    let shape = JobShape {
        key_groups: 64,
        sources: BTreeSet::from(["in".to_owned(), REPLAY_SOURCE.to_owned()]),
        operators: [("o".to_owned(), 3)].into(),
        sinks: BTreeSet::from(["out".to_owned()]),
        inputs: Default::default(),
    };
    let _ = recovery::match_job(&manifest, &shape, &BTreeSet::new()).map(|_| ());
    for splits in manifest.sources.values() {
        for owned in [0..64, 5..9, 63..64] {
            let mut progress = Progress::restored("job", "o", owned.clone(), splits);
            progress.advance(progress.next());
            let again = Progress::restored("job", "o", owned, &progress.snapshot());
            assert_eq!(again, progress);
        }
    }
}

fn logs() -> Vec<Vec<u8>> {
    let log = r#"[{"seq":1,"incarnation":1,"uuid":"a","kind":"fence","first_checkpoint":1,"time_ms":1},
        {"seq":2,"incarnation":1,"uuid":"a","kind":"commit","pointer":{"checkpoint":1,"path":"manifests/1-a.json","bytes":10,"crc32c":1},"time_ms":1},
        {"seq":3,"incarnation":2,"uuid":"b","kind":"fence","first_checkpoint":101,"time_ms":1},
        {"seq":4,"incarnation":2,"uuid":"b","kind":"restore","pointer":null,"start":"s","time_ms":1}]"#;
    vec![log.as_bytes().to_vec()]
}

fn log(bytes: &[u8]) {
    let Ok(entries) = serde_json::from_slice::<Vec<LogEntry>>(bytes) else { return };
    let entries: Vec<_> = entries.into_iter().map(|entry| (entry.seq, entry)).collect();
    let _ = recovery::plan(&entries);
    let _ = recovery::completed(&entries).len();
    let _ = recovery::has_started(&entries, "s");
}

fn letters() -> Vec<Vec<u8>> {
    let letter = r#"{"id":"00000003-000-000001","kind":"trap","reason":"it trapped","job":"j","operator":"o","module":"m@1","digest":"ab",
        "task":1,"source":"in","split":"a.csv","record":17,"exact":true,"key":"k","value":null,"value_base64":"/w==",
        "headers":[{"name":"h","value":"v"},{"name":"b","value_base64":"AAE="}],"timestamp":5,"change":"insert","processing_time_ms":9,
        "input":1,"watermark":-5,"attempt":1,"instance":2,"call":3,"backtrace":["0: f"],
        "timer":{"domain":"event-time","time":5,"tag":18446744073709551615},"replay_of":"00000001-000-000000"}"#
        .replace(['\n'], "");
    let head = r#"{"format":1,"kind":"replay","time_ms":5,"letters":1,"operators":["o"],"rewind":{"to":1,"next":2},"start":"s"}"#;
    let line = format!(r#"{{"group":7,"letter":{letter}}}"#);
    [letter, head.to_owned(), line].map(String::into_bytes).to_vec()
}

fn letter(bytes: &[u8]) {
    let round = |letter: DeadLetter| {
        let again = DeadLetter::from_line(&letter.to_line()).expect("reads its own form");
        assert_eq!(again, letter);
        let _ = dead_letter::epoch_of(&letter.id);
    };
    let _ = DeadLetter::from_line(bytes).map(round);
    let _ = replay_log::parse_head(bytes);
    let _ = replay_log::parse_line(bytes).map(|(_, letter)| round(letter));
    // As a file of its own, now and then: the reader passes over what it can't read.
    if bytes.len().is_multiple_of(37) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("dead-letters-000-00000003-ab.jsonl"), bytes).expect("writes");
        let page = dead_letter::list(folder.path(), &DeadLetterQuery { operator: None, before: None, limit: 3 }).expect("lists");
        assert!(page.letters.len() <= 3);
        dead_letter::scan(folder.path(), |_| true).expect("scans");
        let _ = dead_letter::find(folder.path(), "00000003-000-000001").expect("looks");
    }
}

// ---- sources ------------------------------------------------------------------------------------------------------------------------

fn files() -> Vec<Vec<u8>> {
    let mut files = vec![
        b"one\ntwo\r\n\n\xff\xfe\nthree".to_vec(),
        b"{\"a\":1,\"time\":\"2013-01-01T05:00:00Z\"}\n{\"a\":{\"b\":[1,\"x\\u00e9\"]}}\nnot json\n".to_vec(),
        b"\xef\xbb\xbfname,time,n\nx,2013-01-01 05:00:00,1\n\"a \"\"b\"\"\nc\",,2\nshort\n".to_vec(),
    ];
    let sample = read("examples/flights/data/sample.csv");
    files.push(sample[..sample.len().min(4000)].to_vec());
    files
}

fn file(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("input"), bytes).expect("writes");
    for (format, field) in [("lines", None), ("json", Some("/time")), ("csv", Some("/time")), ("raw", None)] {
        let mut options = Map::new();
        options.insert("path".into(), "input".into());
        options.insert("format".into(), format.into());
        let mut job = serde_json::json!({ "name": "in", "connector": "file" });
        if let Some(field) = field {
            job["watermark"] = serde_json::json!({ "field": field });
        }
        job.as_object_mut().expect("a table").extend(options);
        let job = serde_json::json!({ "name": "j", "source": [job], "sink": [] });
        let spec = parse_job(&job).expect("a right job").sources.remove(0);
        let context = ConnectorContext { base: folder.path().to_owned(), ..ConnectorContext::for_check("in") };
        let source = FileSource::build(&spec, &context).expect("a right source");
        let Ok(mut reader) = source.open(0, 1, &[]) else { continue };
        let (mut batch, limits) = (SourceBatch::default(), BatchLimits { rows_max: 7, bytes_max: 500 });
        let mut records = 0;
        for polls in 0.. {
            assert!(polls < 10 * bytes.len() + 100, "{format}: no end after {polls} polls of {} bytes", bytes.len());
            batch.clear();
            let Ok(status) = reader.poll(&mut batch, limits) else { break };
            assert!(batch.rows.count <= limits.rows_max);
            row::check(&batch.rows.bytes, batch.rows.count, &RowLimits::default()).expect("rows are right");
            records += u64::from(batch.rows.count) + batch.bad.len() as u64;
            if matches!(status, SourceStatus::End) {
                break;
            }
        }
        assert!(records <= bytes.len() as u64 + 1, "{format}: {records} records of {} bytes", bytes.len());
        let snapshot = reader.snapshot();
        let _ = source.open(0, 1, &snapshot).map(|_| ());
    }
}

fn fields() -> Vec<Vec<u8>> {
    // A pointer, a zero byte, a value.
    [
        "/a/b\0{\"a\":{\"b\":1}}",
        "/a/0\0{\"x\":\"\\ud83d\\ude00\",\"a\":[\"2013-01-01T05:00:00Z\",-1e9]}",
        "/~0~1\0{\"~/\":true}",
        "\0\"text\"",
        "/t\0{\"t\":\"2013-01-01 05:00:00.123456789+01:00\"}",
        "/t\0{\"n\":{\"t\":[[[[]]]]},\"t\":9223372036854775807}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn field(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (Some(pointer), Some(value)) = (parts.next(), parts.next()) else { return };
    let Ok(pointer) = std::str::from_utf8(pointer) else { return };
    let Ok(parsed) = Pointer::parse(pointer) else { return };
    let mut out = Vec::new();
    if json_field::extract(value, &parsed, &mut out).is_ok() {
        assert!(out.len() <= value.len(), "a field of {} bytes out of {}", out.len(), value.len());
    }
    let _ = json_field::find(value, &parsed).map(|_| ());
    let time = EventTime::new(Some(pointer.to_owned())).expect("the pointer was read");
    if let Err(why) = time.of(value) {
        assert!(why.len() < 1000 + pointer.len(), "{why}");
    }
}

fn texts() -> Vec<Vec<u8>> {
    [
        "250ms",
        "5m",
        "64MiB",
        "18446744073709551615",
        "tuple<u64, list<option<string>>, result<f64, bool>>",
        "record { a: u64, b: string }",
        "delays@1.2.0+x",
        "00000003-000-000001",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(ms) = units::parse_duration_ms(text) {
        assert_eq!(units::parse_duration_ms(&units::format_duration_ms(ms)).expect("reads its own form"), ms);
    }
    let _ = units::parse_bytes(text);
    let declared = StateDeclaration { value_type: text.to_owned(), name: text.to_owned(), ..declarations().remove(0) };
    let problems = state_schema::validate(&[declared], &GuestLimits::default());
    assert!(problems.iter().map(|problem| problem.to_string().len()).sum::<usize>() < 1 << 20);
    let _ = tidegate_core::job_graph::parse::module_reference(text);
    let _ = tidegate_core::job_graph::parse::name_problem(text);
    let _ = dead_letter::epoch_of(text);
}

// ---- bending ------------------------------------------------------------------------------------------------------------------------

const WORDS: &[&[u8]] = &[
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551615",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"4294967296",
    b"/",
    b"~",
    b"\xef\xbb\xbf",
    b"off",
    b"[[",
    b"{}",
    b"[]",
    b"\"\"",
    b"=",
    b"'",
    b"#",
    b"\x80",
    b"1.7976931348623157e308",
    b"<",
    b">",
];

fn bend(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| seeds[random.below(seeds.len() as u64) as usize].clone();
    let mut bytes = pick(random);
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        let len = (random.below(1 + random_len(bytes.len())) as usize).min(bytes.len() - at);
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => drop(bytes.drain(at..at + len)),
            3 => bytes.truncate(at),
            4 => {
                let again = bytes[at..at + len].to_vec();
                // Doubled, or deep inside itself.
                for _ in 0..1 + random.below(3) * random.below(40) {
                    bytes.splice(at..at, again.iter().copied());
                }
            }
            5 | 6 => {
                let word = WORDS[random.below(WORDS.len() as u64) as usize];
                bytes.splice(at..at, word.iter().copied());
            }
            7 => {
                let other = pick(random);
                let from = random.below(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let number =
                    [0, 1, u64::from(u16::MAX), u64::from(u32::MAX), u64::MAX, 1 << 31, 1 << 24][random.below(7) as usize];
                for (byte, new) in bytes.iter_mut().skip(at).zip(number.to_le_bytes()) {
                    *byte = new;
                }
            }
        }
        bytes.truncate(INPUT_BYTES_MAX);
    }
    bytes
}

fn random_len(len: usize) -> u64 {
    (len as u64).min(200)
}

/// The most memory that the process ever had.
fn memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    kib << 10
}

fn run(target: &Target, bytes: &[u8], what: &str) {
    let done = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    let name = target.name;
    if done.is_err() {
        let finding = std::env::temp_dir().join(format!("fuzz-{name}-finding"));
        let _ = std::fs::write(&finding, bytes);
        panic!("{name}: {what} panics (keep {} in tests/corpus/{name}/): {}", finding.display(), bytes.escape_ascii());
    }
    let memory = memory_bytes();
    assert!(memory < MEMORY_BYTES_MAX, "{name}: {memory} bytes of memory after {what}: {}", bytes.escape_ascii());
}

#[test]
fn nothing_from_outside_makes_the_host_panic_or_take_memory_without_a_bound() {
    let asked = std::env::var("FUZZ_SECONDS").ok().map(|text| text.parse::<f64>().expect("FUZZ_SECONDS is a number"));
    let seconds = asked.unwrap_or(20.0);
    let inputs_max = if asked.is_some() { u64::MAX } else { INPUTS };
    let mut random = if asked.is_some() { Random::from_env() } else { Random::from_seed(1) };
    for target in TARGETS {
        let seeds = (target.seeds)();
        for seed in &seeds {
            run(target, seed, "an input as it should be");
        }
        let kept = root().join("tests/corpus").join(target.name);
        for finding in std::fs::read_dir(&kept).into_iter().flatten() {
            let path = finding.expect("a file").path();
            run(target, &std::fs::read(&path).expect("reads"), &path.display().to_string());
        }
        let (begun, mut runs) = (Instant::now(), 0_u64);
        let limit = Duration::from_secs_f64(seconds / TARGETS.len() as f64);
        while begun.elapsed() < limit && runs < inputs_max {
            let bytes = bend(&mut random, &seeds);
            run(target, &bytes, "a bent input");
            runs += 1;
        }
        println!("{}: {runs} inputs", target.name);
    }
}
