use super::*;
use crate::connector::BadRecord;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;
use tidegate_core::job_graph::spec::{Delivery, OnError, WatermarkSpec};
use tidegate_core::row::NO_TIMESTAMP;

const LIMITS: BatchLimits = BatchLimits { rows_max: 7, bytes_max: 64 << 10 };

fn spec(options: Value, field: Option<&str>) -> SourceSpec {
    SourceSpec {
        name: "in".into(),
        connector: "file".into(),
        parallelism: 1,
        watermark: field.map(|field| WatermarkSpec { field: Some(field.into()), out_of_orderness_ms: 0, idle_after_ms: None }),
        on_error: OnError::DeadLetter,
        errors: Default::default(),
        options: options.as_object().expect("an object").clone(),
    }
}

fn source_with(base: &Path, options: Value, field: Option<&str>) -> FileSource {
    let context = ConnectorContext {
        job: "job".into(),
        job_id: "0011223344556677".into(),
        node: "in".into(),
        delivery: Delivery::ExactlyOnce,
        base: base.to_owned(),
    };
    FileSource::build(&spec(options, field), &context).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn source(base: &Path, options: Value) -> FileSource {
    source_with(base, options, None)
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    }
    folder
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory")
}

fn append(path: &Path, content: &[u8]) {
    fs::OpenOptions::new().append(true).open(path).expect("opens").write_all(content).expect("written");
}

/// What a reader gave out: (split, record, value, timestamp), and the bad ones.
#[derive(Debug, Default, Clone, PartialEq)]
struct Seen {
    rows: Vec<(String, u64, String, i64)>,
    bad: Vec<BadRecord>,
}

impl Seen {
    fn values(&self) -> Vec<&str> {
        self.rows.iter().map(|(_, _, value, _)| value.as_str()).collect()
    }

    fn take(&mut self, batch: &SourceBatch) {
        self.bad.extend(batch.bad.iter().cloned());
        let split = batch.split.as_deref().unwrap_or_default();
        let mut greatest = None;
        for (index, row) in batch.rows.iter().enumerate() {
            let value = String::from_utf8_lossy(row.value.expect("no tombstones")).into_owned();
            self.rows.push((split.to_owned(), batch.first_record + index as u64, value, row.timestamp));
            greatest = greatest.max(Some(row.timestamp).filter(|timestamp| *timestamp != NO_TIMESTAMP));
        }
        assert_eq!(batch.max_timestamp, greatest);
        if let (Some(bad), false) = (batch.bad.last(), batch.rows.is_empty()) {
            assert!(bad.record < batch.first_record, "bad records come before the rows of their batch");
        }
    }
}

fn poll(reader: &mut dyn SourceReader, seen: &mut Seen) -> Result<SourceStatus, ConnectorError> {
    let mut batch = SourceBatch::default();
    let status = reader.poll(&mut batch, LIMITS)?;
    assert!(batch.rows.count <= LIMITS.rows_max);
    seen.take(&batch);
    Ok(status)
}

/// Polls until the end, or until there is nothing more for now.
fn drain(reader: &mut dyn SourceReader) -> Result<Seen, ConnectorError> {
    let mut seen = Seen::default();
    while poll(reader, &mut seen)? == SourceStatus::More {}
    Ok(seen)
}

fn read(source: &FileSource) -> Seen {
    drain(&mut *source.open(0, 1, &[]).expect("opens")).expect("reads")
}

/// Reads to the end with a restore after every poll, and the whole in one go: both must be the same.
fn read_with_restores(source: &FileSource) -> Seen {
    let whole = read(source);
    let (mut seen, mut positions) = (Seen::default(), Vec::new());
    loop {
        let mut reader = source.open(0, 1, &positions).expect("opens");
        let status = poll(&mut *reader, &mut seen).expect("reads");
        let after = reader.snapshot();
        if status == SourceStatus::End {
            break;
        }
        positions = after;
    }
    assert_eq!(seen, whole);
    whole
}

#[test]
fn lines_are_records_and_the_last_needs_no_newline() {
    let folder = folder(&[("a.txt", b"one\r\n\ntwo\nth\xffree")]);
    let seen = read_with_restores(&source(folder.path(), json!({"path": "a.txt"})));
    assert_eq!(seen.values(), ["one", "", "two", "th\u{fffd}ree"]);
    assert_eq!(seen.rows[3].1, 3);
    assert_eq!(seen.rows[0].0, "a.txt");
}

#[test]
fn restored_positions_are_exact_in_every_format_and_compression() {
    let mut lines = String::new();
    let mut csv = "\u{feff}n,text\r\n".to_owned();
    let mut json = String::new();
    for n in 0..100 {
        lines += &format!("line {n}\n");
        csv += &format!("{n},\"a \"\"quoted\"\"\ntext, {n}\"\r\n");
        json += &format!("{{\"n\":{n}}}\n\n");
        if n % 10 == 3 {
            csv += "too,many,fields\r\n";
            json += "{nonsense\n";
        }
    }
    for compressed in [false, true] {
        let content = |text: &str| if compressed { gzip(text.as_bytes()) } else { text.as_bytes().to_vec() };
        let folder = folder(&[("in/lines", &content(&lines)), ("csv", &content(&csv)), ("json", &content(&json))]);
        let seen = read_with_restores(&source(folder.path(), json!({"path": "in", "format": "lines"})));
        assert_eq!(seen.values(), lines.lines().collect::<Vec<_>>());
        let seen = read_with_restores(&source(folder.path(), json!({"path": "csv", "format": "csv"})));
        assert_eq!((seen.rows.len(), seen.bad.len()), (100, 10));
        assert_eq!(seen.rows[42].2, r#"{"n":42,"text":"a \"quoted\"\ntext, 42"}"#);
        assert_eq!(seen.bad[1].record, 15);
        assert_eq!(
            (seen.bad[1].reason.as_str(), seen.bad[1].bytes.as_slice()),
            ("3 fields, the header has 2", &b"too,many,fields"[..])
        );
        let seen = read_with_restores(&source(folder.path(), json!({"path": "json", "format": "json"})));
        assert_eq!((seen.rows.len(), seen.bad.len()), (100, 10));
        assert!(seen.bad[0].reason.starts_with("not JSON: "), "{}", seen.bad[0].reason);
        assert_eq!(seen.rows[99].1, 109, "blank lines are no records, bad ones are");
    }
}

#[test]
fn csv_types_are_inferred_or_left_as_text() {
    let folder = folder(&[("a.csv", b"a;b;c;d;e\n1;-2.5e3;007;NA;\n\"1\";1.;x\"y;true;NaN\n")]);
    let read_as =
        |types: &str| read(&source(folder.path(), json!({"path": "a.csv", "format": "csv", "delimiter": ";", "types": types})));
    let inferred = read_as("infer");
    assert_eq!(inferred.rows[0].2, r#"{"a":1,"b":-2.5e3,"c":"007","d":null,"e":null}"#);
    assert_eq!(inferred.rows[1].2, r#"{"a":1,"b":"1.","c":"x\"y","d":"true","e":"NaN"}"#);
    assert_eq!(read_as("text").rows[0].2, r#"{"a":"1","b":"-2.5e3","c":"007","d":"NA","e":""}"#);
    let headless = read(&source(folder.path(), json!({"path": "a.csv", "format": "csv", "header": false})));
    assert_eq!(headless.rows[0].2, r#"{"c1":"a;b;c;d;e"}"#);
    assert_eq!(headless.rows.len(), 3);
}

#[test]
fn a_headless_file_is_restored_exactly() {
    let text: String = (0..50).map(|n| format!("{n},\u{feff}x\n")).collect();
    let folder = folder(&[("a.csv", text.as_bytes())]);
    let seen = read_with_restores(&source(folder.path(), json!({"path": "a.csv", "format": "csv", "header": false})));
    assert_eq!(seen.rows.len(), 50);
}

#[test]
fn a_missing_quote_costs_one_line() {
    let folder = folder(&[("a.csv", b"a,b\n1,2\n3,\"open\n5,6\n7,8\n")]);
    let seen = read_with_restores(&source(folder.path(), json!({"path": "a.csv", "format": "csv"})));
    assert_eq!(seen.values(), [r#"{"a":1,"b":2}"#, r#"{"a":5,"b":6}"#, r#"{"a":7,"b":8}"#]);
    assert_eq!(seen.bad.len(), 1);
    assert_eq!((seen.bad[0].reason.as_str(), seen.bad[0].bytes.as_slice()), ("a quoted field is not closed", &b"3,\"open"[..]));
}

#[test]
fn a_bad_header_is_fatal_and_says_so() {
    for (content, cause) in
        [(&b"a,a\n"[..], "two columns are named `a`"), (b"a,\n", "column 2 has no name"), (b"\xff\n", "not UTF-8")]
    {
        let folder = folder(&[("a.csv", content)]);
        let source = source(folder.path(), json!({"path": "a.csv", "format": "csv"}));
        let error = drain(&mut *source.open(0, 1, &[]).expect("opens")).expect_err("refused");
        assert!(!error.retry && error.to_string().contains(cause), "{error}");
    }
}

#[test]
fn json_is_checked_whole() {
    let lines: [&[u8]; 9] = [
        b"\xef\xbb\xbf{\"a\":1}",
        b"[1]",
        b" \"x\" ",
        b"{\"a\":1}}",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":01}",
        b"  ",
        b"{\"a\":tru}",
        b"{\"a\":{\"b\":[1,]}}",
    ];
    let folder = folder(&[("a.json", &lines.join(&b'\n'))]);
    let seen = read(&source(folder.path(), json!({"path": "a.json", "format": "json"})));
    assert_eq!(seen.values(), ["{\"a\":1}", "[1]", " \"x\" "]);
    let bad: Vec<&[u8]> = seen.bad.iter().map(|bad| bad.bytes.as_slice()).collect();
    assert_eq!(bad, [lines[3], lines[4], lines[5], lines[7], lines[8]]);
}

#[test]
fn deep_nesting_is_no_danger() {
    let deep = "[".repeat(3 << 20);
    let text = format!("{deep}\n{{\"a\":{deep}\n{{\"t\":{deep}{},\"a\":1}}\n", "]".repeat(3 << 20));
    let folder = folder(&[("a", text.as_bytes())]);
    let seen = read(&source_with(folder.path(), json!({"path": "a", "format": "json"}), Some("/a")));
    assert_eq!((seen.bad.len(), seen.rows[0].3), (2, 1));
}

#[test]
fn a_record_beyond_the_limit_is_bad_and_reading_goes_on_at_the_next_line() {
    let long = "x".repeat(900_000);
    let text = format!("a,b\n1,2\n{long}\n3,4\n\"{long}\",\"5\n6\"\n7,8\n{}\n{long}", "y".repeat(1001));
    for compressed in [false, true] {
        let content = if compressed { gzip(text.as_bytes()) } else { text.as_bytes().to_vec() };
        let folder = folder(&[("a", &content)]);
        let lines = source(folder.path(), json!({"path": "a"})).with_value_bytes_max(1000);
        let seen = read_with_restores(&lines);
        assert_eq!(seen.values(), ["a,b", "1,2", "3,4", "6\"", "7,8"]);
        assert_eq!(seen.bad.iter().map(|bad| bad.record).collect::<Vec<_>>(), [2, 4, 7, 8]);
        assert!(seen.bad.iter().all(|bad| bad.reason.contains("value_bytes_max") && bad.bytes.len() <= 64 << 10));
        let csv = source(folder.path(), json!({"path": "a", "format": "csv"})).with_value_bytes_max(1000);
        let seen = read_with_restores(&csv);
        assert_eq!(seen.values(), [r#"{"a":1,"b":2}"#, r#"{"a":3,"b":4}"#, r#"{"a":7,"b":8}"#]);
    }
}

#[test]
fn raw_takes_a_file_as_one_record() {
    let folder = folder(&[("in/a", b"one\ntwo\n"), ("in/b", b""), ("in/c", &[b'x'; 2000])]);
    let seen = read_with_restores(&source(folder.path(), json!({"path": "in", "format": "raw"})).with_value_bytes_max(1000));
    assert_eq!(seen.values(), ["one\ntwo\n", ""]);
    assert_eq!((seen.bad.len(), seen.bad[0].split.as_str()), (1, "in/c"));
}

#[test]
fn event_time_comes_from_the_field_and_a_record_without_it_is_bad() {
    let folder = folder(&[("a.csv", b"time,n\n2013-01-01T05:00:00Z,1\nNA,2\n1357016400001,3\nsoon,4\n")]);
    let seen = read(&source_with(folder.path(), json!({"path": "a.csv", "format": "csv"}), Some("/time")));
    let timestamps: Vec<i64> = seen.rows.iter().map(|row| row.3).collect();
    assert_eq!(timestamps, [1_357_016_400_000, 1_357_016_400_001]);
    let reasons: Vec<&str> = seen.bad.iter().map(|bad| bad.reason.as_str()).collect();
    assert_eq!(reasons[0], "the field /time is null");
    assert!(reasons[1].contains("/time = soon"), "{}", reasons[1]);
}

#[test]
fn files_belong_to_one_task_each_and_end_one_by_one() {
    let names: Vec<String> = (0..20).map(|n| format!("in/{n:02}.txt")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x\n"[..])).collect();
    let folder = folder(&files);
    let source = source(folder.path(), json!({"path": "in/*.txt"}));
    let (mut splits, mut ended, mut owned) = (Vec::new(), 0, Vec::new());
    for task in 0..3 {
        let mut reader = source.open(task, 3, &[]).expect("opens");
        let mut batch = SourceBatch::default();
        while reader.poll(&mut batch, LIMITS).expect("reads") == SourceStatus::More {
            let name = batch.split.as_deref().expect("named").to_owned();
            ended += u32::from(batch.split_ended);
            splits.extend((batch.rows.count > 0).then_some(name));
            batch.clear();
        }
        owned.push(reader.snapshot().len());
    }
    assert!(owned.iter().all(|count| *count > 0), "{owned:?}");
    splits.sort();
    assert_eq!(splits, names);
    assert_eq!(ended, 20);
}

#[test]
fn positions_move_to_other_tasks_when_the_job_is_rescaled() {
    let files: Vec<(String, String)> =
        (0..9).map(|n| (format!("in/{n}"), (0..20).map(|line| format!("{n}-{line}\n")).collect())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let folder = folder(&files);
    let source = source(folder.path(), json!({"path": "in"}));
    let (mut seen, mut positions) = (Seen::default(), Vec::new());
    for task in 0..2 {
        let mut reader = source.open(task, 2, &[]).expect("opens");
        for _ in 0..5 {
            poll(&mut *reader, &mut seen).expect("reads");
        }
        positions.extend(reader.snapshot());
    }
    for task in 0..3 {
        let rest = drain(&mut *source.open(task, 3, &positions).expect("opens")).expect("reads");
        seen.rows.extend(rest.rows);
    }
    seen.rows.sort();
    let before = seen.rows.len();
    seen.rows.dedup();
    assert_eq!((before, seen.rows.len()), (180, 180));
}

#[test]
fn a_file_that_is_followed_gives_whole_lines_as_they_come() {
    let folder = folder(&[("in/a", b"one\ntw")]);
    let source = source(folder.path(), json!({"path": "in", "follow": true, "start": "earliest"}));
    let mut reader = source.open(0, 1, &[]).expect("opens");
    assert_eq!(drain(&mut *reader).expect("reads").values(), ["one"]);
    let before = reader.snapshot();
    append(&folder.path().join("in/a"), b"o\nthree\nfo");
    assert_eq!(drain(&mut *reader).expect("reads").values(), ["two", "three"]);
    let mut again = source.open(0, 1, &before).expect("opens");
    assert_eq!(drain(&mut *again).expect("reads").values(), ["two", "three"]);
    fs::write(folder.path().join("in/b"), "new\n").expect("written");
    let mut seen = Seen::default();
    let deadline = Instant::now() + Duration::from_secs(20);
    while seen.rows.is_empty() && Instant::now() < deadline {
        poll(&mut *reader, &mut seen).expect("reads");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(seen.rows, [("in/b".into(), 0, "new".into(), NO_TIMESTAMP)]);
}

#[test]
fn following_waits_for_a_file_that_is_not_there_yet() {
    let folder = folder(&[]);
    let source = source(folder.path(), json!({"path": "later.csv", "format": "csv", "follow": true, "start": "earliest"}));
    let mut reader = source.open(0, 1, &[]).expect("opens");
    assert!(drain(&mut *reader).expect("reads").rows.is_empty());
    fs::write(folder.path().join("later.csv"), "a,").expect("written");
    let mut reader = source.open(0, 1, &reader.snapshot()).expect("opens");
    assert!(drain(&mut *reader).expect("reads").rows.is_empty());
    append(&folder.path().join("later.csv"), b"b\n1,2\n\"3\n");
    assert_eq!(drain(&mut *reader).expect("reads").values(), [r#"{"a":1,"b":2}"#]);
    append(&folder.path().join("later.csv"), b"\",4\n");
    assert_eq!(drain(&mut *reader).expect("reads").values(), [r#"{"a":"3\n","b":4}"#]);
}

#[test]
fn latest_begins_behind_the_last_whole_line_of_what_is_there() {
    let folder = folder(&[("in/a", b"old\npart"), ("in/b", b"a,b")]);
    let source = source(folder.path(), json!({"path": "in", "follow": true, "start": "latest"}));
    let mut reader = source.open(0, 1, &[]).expect("opens");
    assert!(drain(&mut *reader).expect("reads").rows.is_empty());
    append(&folder.path().join("in/a"), b"ial\nnew\n");
    fs::write(folder.path().join("in/c"), "in a new file\n").expect("written");
    let positions = reader.snapshot();
    let mut reader = source.open(0, 1, &positions).expect("opens");
    assert_eq!(drain(&mut *reader).expect("reads").values(), ["partial", "new", "in a new file"]);
    fs::write(folder.path().join("in/d"), gzip(b"x\n")).expect("written");
    let error = source.open(0, 1, &[]).err().expect("no end of a gzip file");
    assert!(!error.retry && error.to_string().contains("earliest"), "{error}");
}

#[test]
fn a_gzip_file_that_grows_by_members_is_followed() {
    let folder = folder(&[("a.gz", &gzip(b"one\ntw"))]);
    let source = source(folder.path(), json!({"path": "a.gz", "follow": true, "start": "earliest"}));
    let mut reader = source.open(0, 1, &[]).expect("opens");
    assert_eq!(drain(&mut *reader).expect("reads").values(), ["one"]);
    let member = gzip(b"o\nthree\n");
    append(&folder.path().join("a.gz"), &member[..12]);
    assert!(drain(&mut *reader).expect("reads").rows.is_empty());
    append(&folder.path().join("a.gz"), &member[12..]);
    assert_eq!(drain(&mut *reader).expect("reads").values(), ["two", "three"]);
}

#[test]
fn a_file_that_is_gone_shrunk_or_another_is_fatal_and_says_so() {
    let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
    for compressed in [false, true] {
        let content = |text: &str| if compressed { gzip(text.as_bytes()) } else { text.as_bytes().to_vec() };
        let folder = folder(&[("a", &content(&text)), ("other", b"x\n")]);
        let path = folder.path().join("a");
        let bounded = source(folder.path(), json!({"path": "a"}));
        let following = source(folder.path(), json!({"path": "a", "follow": true, "start": "earliest"}));
        for source in [&bounded, &following] {
            let mut reader = source.open(0, 1, &[]).expect("opens");
            for _ in 0..10 {
                poll(&mut *reader, &mut Seen::default()).expect("reads");
            }
            let positions = reader.snapshot();
            let fails = |what: &str| {
                let failed = source.open(0, 1, &positions).and_then(|mut reader| drain(&mut *reader));
                let error = failed.expect_err(what);
                assert!(!error.retry && error.remedy.is_some(), "{error}");
                assert!(error.to_string().contains(what), "{error}");
            };
            fs::write(&path, content(&text.replace("line 0", "lion 0"))).expect("written");
            fails("not the one");
            if !compressed {
                fs::write(&path, &text[..text.len() / 2]).expect("written");
                fails("not the one");
            }
            fs::remove_file(&path).expect("removed");
            fails("is gone");
            fs::write(&path, content(&text)).expect("written");
            assert!(drain(&mut *source.open(0, 1, &positions).expect("opens")).is_ok());
        }
    }
}

#[test]
fn a_file_that_shrinks_or_goes_while_it_is_followed_is_noticed() {
    let text = "line\n".repeat(2000);
    for gone in [false, true] {
        let folder = folder(&[("a", text.as_bytes())]);
        let source = source(folder.path(), json!({"path": "a", "follow": true, "start": "earliest"}));
        let mut reader = source.open(0, 1, &[]).expect("opens");
        drain(&mut *reader).expect("reads");
        if gone {
            fs::remove_file(folder.path().join("a")).expect("removed");
        } else {
            fs::write(folder.path().join("a"), &text[..5000]).expect("written");
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let error = loop {
            match poll(&mut *reader, &mut Seen::default()) {
                Err(error) => break error,
                Ok(_) => assert!(Instant::now() < deadline, "never noticed"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(!error.retry && error.to_string().contains(if gone { "is gone" } else { "has shrunk to 5000 bytes" }), "{error}");
    }
}

#[test]
fn damaged_gzip_is_fatal_and_says_so() {
    let whole = gzip("line\n".repeat(5000).as_bytes());
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    for content in [&whole[..whole.len() / 2], &damaged, b"plain text"] {
        let folder = folder(&[("a.gz", content)]);
        let source = source(folder.path(), json!({"path": "a.gz", "compression": "gzip"}));
        let error = drain(&mut *source.open(0, 1, &[]).expect("opens")).expect_err("damaged");
        assert!(!error.retry && error.to_string().contains("gzip"), "{error}");
    }
}

#[test]
fn replay_holds_records_until_they_are_due() {
    let folder = folder(&[("a", b"{\"t\":0}\n{\"t\":100000}\n{\"t\":200000}\n")]);
    let options = json!({"path": "a", "format": "json", "replay_speed": "1000"});
    let source = source_with(folder.path(), options, Some("/t"));
    let mut reader = source.open(0, 1, &[]).expect("opens");
    let (mut seen, started) = (Seen::default(), Instant::now());
    let status = poll(&mut *reader, &mut seen).expect("reads");
    assert_eq!(seen.rows.len(), 1);
    assert!(matches!(status, SourceStatus::Wait(wait) if wait <= Duration::from_millis(100)), "{status:?}");
    assert_eq!(reader.snapshot()[0].record, 1, "what is held is not given out");
    while seen.rows.len() < 3 {
        if let SourceStatus::Wait(wait) = poll(&mut *reader, &mut seen).expect("reads") {
            std::thread::sleep(wait);
        }
    }
    assert!(started.elapsed() >= Duration::from_millis(199), "{:?}", started.elapsed());
}

#[test]
fn many_idle_files_are_followed_with_few_open() {
    let names: Vec<String> = (0..150).map(|n| format!("in/{n:03}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"one\ntw"[..])).collect();
    let folder = folder(&files);
    let source = source(folder.path(), json!({"path": "in", "follow": true, "start": "earliest"}));
    let mut reader = source.open(0, 1, &[]).expect("opens");
    assert_eq!(drain(&mut *reader).expect("reads").rows.len(), 150);
    assert!(drain(&mut *reader).expect("reads").rows.is_empty());
    append(&folder.path().join("in/077"), b"o\n");
    assert_eq!(drain(&mut *reader).expect("reads").rows, [("in/077".into(), 1, "two".into(), NO_TIMESTAMP)]);
}

#[test]
fn a_path_that_leads_nowhere_is_refused_when_bounded() {
    let folder = folder(&[("empty/.hidden", b"x")]);
    for path in ["nowhere.csv", "*.csv"] {
        let error = source(folder.path(), json!({"path": path})).open(0, 1, &[]).err().expect("refused");
        assert!(!error.retry && error.to_string().contains("no such file"), "{error}");
    }
    assert!(read(&source(folder.path(), json!({"path": "empty"}))).rows.is_empty());
}

#[test]
fn options_are_checked_together() {
    let keys = |options: Value, field: Option<&str>| -> Vec<String> {
        let problems = FileSourceOptions::parse(&spec(options, field)).err().unwrap_or_default();
        problems.into_iter().map(|problem| problem.key.replace("source.in.", "")).collect()
    };
    assert_eq!(keys(json!({"follow": true}), None), ["path", "start"]);
    assert_eq!(keys(json!({"path": "a", "start": "latest", "header": true}), None), ["start", "header"]);
    let bad = json!({"path": "a", "format": "csv", "delimiter": "ab", "replay_speed": 2});
    assert_eq!(keys(bad, None), ["replay_speed", "delimiter"]);
    assert_eq!(keys(json!({"path": "a", "pth": 1}), Some("time")), ["pth", "watermark.field"]);
}

/// `cargo test --release -- --ignored file_reading_speed --nocapture` prints MB/s and records a second.
#[test]
#[ignore = "a measurement"]
fn file_reading_speed() {
    let mut json = Vec::new();
    let mut csv = b"auction,bidder,price,channel,dateTime,extra\n".to_vec();
    for n in 0..1_000_000u64 {
        let (a, b, p) = (n % 10_000, n * 7919 % 1000, n * 104_729 % 9_999_900);
        writeln!(
            json,
            "{{\"auction\":{a},\"bidder\":{b},\"price\":{p},\"channel\":\"Apple\",\"dateTime\":{n},\"extra\":\"{n:016x}\"}}"
        )
        .expect("in memory");
        writeln!(csv, "{a},{b},{p},Apple,{n},{n:016x}").expect("in memory");
    }
    let folder = folder(&[("a.json", &json), ("a.csv", &csv), ("a.json.gz", &gzip(&json))]);
    for (path, format, field) in [
        ("a.json", "lines", None),
        ("a.json", "json", None),
        ("a.json", "json", Some("/dateTime")),
        ("a.json.gz", "lines", None),
        ("a.csv", "csv", None),
        ("a.csv", "csv", Some("/dateTime")),
    ] {
        let source = source_with(folder.path(), json!({"path": path, "format": format}), field);
        let mut reader = source.open(0, 1, &[]).expect("opens");
        let (mut batch, mut rows) = (SourceBatch::default(), 0);
        let started = Instant::now();
        while reader.poll(&mut batch, BatchLimits { rows_max: 1024, bytes_max: 128 << 10 }).expect("reads") != SourceStatus::End {
            rows += batch.rows.count;
            batch.clear();
        }
        let seconds = started.elapsed().as_secs_f64();
        let bytes = if format == "csv" { csv.len() } else { json.len() };
        println!(
            "{path} as {format}, event time {field:?}: {:.0} MB/s, {:.0} ns a record",
            bytes as f64 / 1e6 / seconds,
            seconds * 1e9 / f64::from(rows)
        );
    }
}
