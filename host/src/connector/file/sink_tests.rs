use super::*;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use tempfile::TempDir;
use tidegate_core::row::{Row, Rows};

const JOB: &str = "0011223344556677";

fn spec(options: Value) -> SinkSpec {
    SinkSpec {
        name: "out".into(),
        connector: "file".into(),
        inputs: Vec::new(),
        parallelism: None,
        options: options.as_object().expect("an object").clone(),
    }
}

fn sink_of(folder: &TempDir, job_id: &str, node: &str, options: Value) -> FileSink {
    let context = ConnectorContext {
        job: "job".into(),
        job_id: job_id.into(),
        node: node.into(),
        delivery: Delivery::ExactlyOnce,
        base: folder.path().to_owned(),
    };
    FileSink::build(&spec(options), &context).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn sink(folder: &TempDir) -> FileSink {
    sink_of(folder, JOB, "out", json!({"path": "out"}))
}

fn rows(values: &[&str]) -> Rows {
    let mut rows = Rows::default();
    values.iter().for_each(|value| rows.push(&Row::new(b"k", value.as_bytes(), 1)));
    rows
}

fn stage(sink: &FileSink, task: u32, epoch: u64, values: &[&str]) -> Vec<Committable> {
    let mut writer = sink.open(task, 2).expect("opens");
    writer.begin(epoch).expect("begins");
    writer.write(&rows(values)).expect("writes");
    writer.pre_commit().expect("pre-commits")().expect("finishes")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_str().expect("UTF-8").to_owned()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn visible(folder: &TempDir) -> Vec<String> {
    names(&folder.path().join("out"))
}

/// Staged files, markers left out.
fn staged(folder: &TempDir) -> Vec<String> {
    let mut names = names(&folder.path().join("out/.staging"));
    names.retain(|name| !name.ends_with(".committed"));
    names
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join("out").join(name)).expect("readable")
}

#[test]
fn nothing_is_visible_before_the_commit_and_all_of_it_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    let mut writer = sink.open(1, 2).expect("opens");
    writer.begin(7).expect("begins");
    assert!(staged(&folder).is_empty(), "a file is created with its first row");
    writer.write(&rows(&["one", "two"])).expect("writes");
    writer.write(&rows(&["three"])).expect("writes");
    let pre_commit = writer.pre_commit().expect("pre-commits");
    writer.begin(9).expect("begins while the other is still being made durable");
    writer.write(&rows(&["four"])).expect("writes");
    let first = pre_commit().expect("finishes");
    assert_eq!((first.len(), visible(&folder).len()), (1, 0));
    assert_eq!((&first[0]["rows"], &first[0]["bytes"]), (&json!(3), &json!(14)));
    let second = writer.pre_commit().expect("pre-commits")().expect("finishes");
    sink.commit(&[first, second].concat()).expect("commits");
    assert_eq!(visible(&folder), ["out-001-00000007-00112233.txt", "out-001-00000009-00112233.txt"]);
    assert_eq!(read(&folder, "out-001-00000007-00112233.txt"), "one\ntwo\nthree\n");
    assert_eq!(read(&folder, "out-001-00000009-00112233.txt"), "four\n");
    assert!(staged(&folder).is_empty());
}

#[test]
fn an_epoch_without_rows_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(stage(&sink(&folder), 0, 1, &[]).is_empty());
    assert!(staged(&folder).is_empty());
}

#[test]
fn committing_again_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    let committables = [stage(&sink, 0, 1, &["a"]), stage(&sink, 1, 1, &["b"])].concat();
    sink.commit(&committables[..1]).expect("commits half, as a crash would");
    for _ in 0..3 {
        sink.commit(&committables).expect("commits");
        sink.recover(&committables, 100).expect("recovers");
    }
    assert_eq!(visible(&folder).len(), 2);
}

#[test]
fn recovery_commits_what_is_decided_and_removes_every_other_file_of_this_job_and_sink() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = sink(&folder);
    let decided = [stage(&ours, 0, 1, &["a"]), stage(&ours, 1, 1, &["b"])].concat();
    stage(&ours, 0, 2, &["never decided"]);
    let mut open = ours.open(1, 2).expect("opens");
    open.begin(2).expect("begins");
    open.write(&rows(&["in the middle"])).expect("writes");
    let others = [
        sink_of(&folder, "aabbccddeeff0011", "out", json!({"path": "out"})),
        sink_of(&folder, JOB, "out2", json!({"path": "out", "prefix": "two"})),
    ];
    others.iter().for_each(|other| assert_eq!(stage(other, 0, 2, &["of another"]).len(), 1));
    assert_eq!(staged(&folder).len(), 6);
    ours.recover(&decided, 100).expect("recovers");
    assert_eq!((visible(&folder).len(), staged(&folder).len()), (2, 2));
    assert!(staged(&folder).iter().all(|name| others.iter().any(|other| other.place.owns(name))));
    ours.recover(&[], 100).expect("recovers with nothing decided");
    assert_eq!((visible(&folder).len(), staged(&folder).len()), (2, 2));
}

#[test]
fn recovery_before_anything_was_written_is_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    sink(&folder).recover(&[], 100).expect("recovers");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn aborted_files_are_gone_and_aborting_again_is_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    let committables = stage(&sink, 0, 1, &["a"]);
    sink.abort(&committables).expect("aborts");
    sink.abort(&committables).expect("aborts again");
    let mut writer = sink.open(0, 1).expect("opens");
    writer.begin(2).expect("begins");
    writer.write(&rows(&["b"])).expect("writes");
    writer.abort();
    assert!(staged(&folder).is_empty() && visible(&folder).is_empty());
    assert!(sink.commit(&committables).is_err(), "what was aborted can't be committed");
}

#[test]
fn two_writers_of_one_task_and_epoch_do_not_meet() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    let zombie = stage(&sink, 0, 1, &["zombie"]);
    let successor = stage(&sink, 0, 1, &["successor"]);
    assert_ne!(zombie[0]["staged"], successor[0]["staged"]);
    sink.recover(&successor, 100).expect("recovers");
    assert_eq!(read(&folder, "out-000-00000001-00112233.txt"), "successor\n");
    let error = sink.commit(&zombie).expect_err("the name is taken");
    assert!(error.to_string().contains("is another file"), "{error}");
}

#[test]
fn decided_output_that_is_missing_is_reported_loudly() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    let committables = stage(&sink, 0, 1, &["a"]);
    let name = committables[0]["staged"].as_str().expect("a name");
    fs::remove_file(folder.path().join("out/.staging").join(name)).expect("removed");
    let error = sink.recover(&committables, 100).expect_err("missing");
    assert!(!error.retry && error.remedy.is_some(), "{error}");
    let message = error.to_string();
    assert!(message.contains(name) && message.contains("out-000-00000001-00112233.txt"), "{message}");
}

#[test]
fn committed_files_may_be_taken_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = sink(&folder);
    let committables = stage(&ours, 0, 1, &["a"]);
    ours.commit(&committables).expect("commits");
    fs::remove_file(folder.path().join("out").join(&visible(&folder)[0])).expect("taken away");
    for _ in 0..2 {
        sink(&folder).recover(&committables, 100).expect("a new incarnation finds the marker");
    }
    assert!(visible(&folder).is_empty());
}

#[test]
fn markers_of_old_commits_are_cleared() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    for epoch in 1..=20 {
        sink.commit(&stage(&sink, 0, epoch, &["a"])).expect("commits");
    }
    assert_eq!(names(&folder.path().join("out/.staging")).len(), MARKED_COMMITS);
    assert_eq!(visible(&folder).len(), 20);
}

#[test]
fn a_visible_file_of_somebody_else_is_never_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    let committables = stage(&sink, 0, 1, &["a"]);
    let path = folder.path().join("out/out-000-00000001-00112233.txt");
    for content in ["b\n", "longer\n"] {
        fs::write(&path, content).expect("written");
        let error = sink.commit(&committables).expect_err("another file");
        assert!(!error.retry && error.to_string().contains("is another file"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("readable"), content);
    }
    fs::write(&path, "a\n").expect("written");
    sink.commit(&committables).expect("the same content is the same file");
    assert!(staged(&folder).is_empty());
}

#[test]
fn a_staged_file_that_lost_bytes_is_not_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    let committables = stage(&sink, 0, 1, &["a"]);
    fs::write(folder.path().join("out/.staging").join(&staged(&folder)[0]), "").expect("written");
    assert!(sink.commit(&committables).expect_err("short").to_string().contains("has 0 bytes, 2 were written"));
}

#[test]
fn committables_of_something_else_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, other) = (sink(&folder), sink_of(&folder, JOB, "two", json!({"path": "out"})));
    let mut bad = stage(&other, 0, 1, &["a"]);
    let mut outside = stage(&ours, 0, 1, &["a"])[0].clone();
    outside["final"] = json!("../escaped");
    bad.extend([json!({"epoch": 3}), outside]);
    for committable in bad {
        let error = ours.commit(std::slice::from_ref(&committable)).expect_err("refused");
        assert!(!error.retry, "{error}");
    }
}

#[test]
fn many_rows_go_through_the_buffer_plain_and_compressed() {
    for compression in ["none", "gzip"] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = json!({"path": "out", "compression": compression, "suffix": ".log", "prefix": "p"});
        let sink = sink_of(&folder, JOB, "out", options);
        let values: Vec<String> = (0..200_000).map(|n| format!("value {n}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let committables = stage(&sink, 0, 1, &values);
        sink.commit(&committables).expect("commits");
        let name = &visible(&folder)[0];
        let bytes = fs::read(folder.path().join("out").join(name)).expect("readable");
        assert_eq!(committables[0]["bytes"], json!(bytes.len()));
        assert_eq!(committables[0]["crc32c"], json!(crc32c::crc32c(&bytes)));
        let mut text = String::new();
        if compression == "gzip" {
            assert_eq!(name, "p-000-00000001-00112233.log.gz");
            flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("gzip");
        } else {
            assert_eq!(name, "p-000-00000001-00112233.log");
            text = String::from_utf8(bytes).expect("UTF-8");
        }
        assert!(text.lines().eq(values.iter().copied()));
    }
}

#[test]
fn an_epoch_that_was_given_up_goes_on_in_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(&folder);
    let mut writer = sink.open(0, 1).expect("opens");
    for epoch in [1, 2] {
        writer.begin(epoch).expect("begins");
        writer.write(&rows(&["a"])).expect("writes");
    }
    sink.commit(&writer.pre_commit().expect("pre-commits")().expect("finishes")).expect("commits");
    assert_eq!(read(&folder, "out-000-00000001-00112233.txt"), "a\na\n");
}

#[test]
fn options_become_names_or_are_refused() {
    let options = |options: Value| FileSinkOptions::parse(&spec(options));
    assert_eq!(options(json!({"path": "p", "format": "json-envelope"})).expect("good").suffix, "jsonl");
    assert_eq!(options(json!({"path": "p", "format": "rows", "compression": "gzip"})).expect("good").suffix, "rows.gz");
    assert_eq!(options(json!({"path": "p", "suffix": ".csv.gz", "compression": "gzip"})).expect("good").suffix, "csv.gz");
    let bad = options(json!({"prefix": "../x", "suffix": "a/b", "format": "csv", "pth": 1})).expect_err("bad");
    let keys: Vec<&str> = bad.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        ["sink.out.path", "sink.out.format", "sink.out.prefix", "sink.out.suffix", "sink.out.prefix", "sink.out.pth"]
    );
}

#[test]
fn what_a_successor_has_staged_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = sink(&folder);
    stage(&ours, 0, 7, &["of a predecessor"]);
    let successors = stage(&ours, 0, 108, &["of a successor"]);
    ours.recover(&[], 100).expect("recovers");
    assert_eq!(staged(&folder), [successors[0]["staged"].as_str().expect("a name")]);
    ours.commit(&successors).expect("commits");
}

#[test]
fn what_is_visible_of_later_epochs_is_told_and_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, other) = (sink(&folder), sink_of(&folder, "ffffffffffffffff", "out", json!({"path": "out"})));
    let all: Vec<_> = (1..=4).flat_map(|epoch| stage(&ours, 0, epoch, &["x"])).collect();
    ours.commit(&all[..3]).expect("commits");
    other.commit(&stage(&other, 0, 3, &["of another job"])).expect("commits");
    let name = |epoch: u64| format!("out-000-{epoch:08}-00112233.txt");
    let found = ours.visible(2..100, &all).expect("looks");
    assert_eq!(found, Visible { there: vec![name(2), name(3)], gone: vec![] }, "4 was never visible");
    fs::remove_file(folder.path().join("out").join(name(3))).expect("a reader takes it away");
    // Known by its marker to a new incarnation, whether the manifest can be read or not.
    for named in [&all[..], &[]] {
        let found = sink(&folder).visible(2..100, named).expect("looks");
        assert_eq!(found, Visible { there: vec![name(2)], gone: vec![name(3)] });
    }
    assert_eq!(ours.visible(5..5, &all).expect("looks"), Visible::default());
    assert_eq!(ours.retract(2..100).expect("takes back"), [name(2)]);
    assert_eq!(ours.retract(2..100).expect("again"), [""; 0]);
    assert_eq!(visible(&folder), [name(1), "out-000-00000003-ffffffff.txt".to_owned()]);
    assert_eq!(fs::read_to_string(folder.path().join("out/.retracted").join(name(2))).expect("kept"), "x\n");
    assert_eq!(ours.visible(2..100, &[]).expect("looks"), Visible::default());
}
