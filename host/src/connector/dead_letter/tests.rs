use super::*;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

const JOB: &str = "0011223344556677";

fn letter(operator: &str, reason: &str) -> DeadLetter {
    DeadLetter {
        id: String::new(),
        kind: DeadLetterKind::Rejected,
        reason: reason.into(),
        job: "flights".into(),
        operator: operator.into(),
        module: Some("delays@1.2.0".into()),
        digest: Some("ab12".into()),
        task: 1,
        source: Some("in".into()),
        split: Some("data/a.csv".into()),
        record: Some(17),
        exact: true,
        key: b"UA".to_vec(),
        value: Some(b"{\"a\":1}".to_vec()),
        headers: vec![("trace".into(), b"\xff".to_vec()), ("trace".into(), b"x".to_vec())],
        timestamp: Some(5),
        change: "insert".into(),
        processing_time_ms: 99,
        call: CallProvenance::default(),
        replay_of: None,
    }
}

/// Commits one file for an epoch and task, and gives its name.
fn commit(folder: &Path, task: u32, epoch: u64, letters: &[(&str, &str)]) {
    let sink = DeadLetters::new(folder.to_owned(), JOB);
    let mut writer = sink.writer(task).expect("opens");
    writer.begin(epoch).expect("begins");
    for (operator, reason) in letters {
        writer.push(&mut letter(operator, reason)).expect("writes");
    }
    let committables = writer.pre_commit().expect("pre-commits")().expect("finishes");
    sink.commit(&committables).expect("commits");
}

fn page(folder: &Path, operator: Option<&str>, before: Option<&str>, limit: usize) -> DeadLetterPage {
    list(folder, &DeadLetterQuery { operator, before, limit }).expect("lists")
}

fn reasons(page: &DeadLetterPage) -> Vec<&str> {
    page.letters.iter().map(|letter| letter.reason.as_str()).collect()
}

fn all_reasons(folder: &Path, operator: Option<&str>, limit: usize) -> Vec<String> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = page(folder, operator, before.as_deref(), limit);
        assert!(page.letters.len() <= limit);
        all.extend(page.letters.into_iter().map(|letter| letter.reason));
        before = page.next;
        if before.is_none() {
            return all;
        }
    }
}

#[test]
fn letters_come_back_newest_first_in_pages_of_any_size() {
    let folder = tempfile::tempdir().expect("a folder");
    commit(folder.path(), 0, 1, &[("a", "1"), ("b", "2"), ("a", "3")]);
    commit(folder.path(), 1, 1, &[("b", "4")]);
    commit(folder.path(), 0, 12, &[("a", "5"), ("a", "6")]);
    for limit in 1..8 {
        assert_eq!(all_reasons(folder.path(), None, limit), ["6", "5", "4", "3", "2", "1"], "limit {limit}");
        assert_eq!(all_reasons(folder.path(), Some("a"), limit), ["6", "5", "3", "1"], "limit {limit}");
    }
    let first = page(folder.path(), None, None, 1);
    assert_eq!(first.letters[0].id, "00000012-000-000001");
    commit(folder.path(), 0, 13, &[("a", "newer")]);
    assert_eq!(reasons(&page(folder.path(), None, first.next.as_deref(), 2)), ["5", "4"], "new letters do not move a page");
}

#[test]
fn the_newest_letter_is_that_of_the_newest_checkpoint_whatever_the_clock_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = DeadLetters::new(folder.path().to_owned(), JOB);
    // A day back, ten years ahead, and a clock that was never set.
    for (epoch, processing_time_ms) in (1..).zip([1_700_000_000_000, 1_699_913_600_000, 2_015_619_200_000, 0]) {
        let mut writer = sink.writer(0).expect("opens");
        writer.begin(epoch).expect("begins");
        writer.push(&mut DeadLetter { processing_time_ms, ..letter("a", &epoch.to_string()) }).expect("writes");
        sink.commit(&writer.pre_commit().expect("pre-commits")().expect("finishes")).expect("commits");
    }
    assert_eq!(all_reasons(folder.path(), None, 1), ["4", "3", "2", "1"]);
    let times: Vec<u64> = page(folder.path(), None, None, 9).letters.iter().map(|letter| letter.processing_time_ms).collect();
    assert_eq!(times, [0, 2_015_619_200_000, 1_699_913_600_000, 1_700_000_000_000], "each tells the time of its call");
}

#[test]
fn what_is_not_committed_is_not_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(page(folder.path(), None, None, 10), DeadLetterPage::default());
    assert_eq!(page(&folder.path().join("nowhere"), None, None, 10), DeadLetterPage::default());
    let sink = DeadLetters::new(folder.path().to_owned(), JOB);
    let mut writer = sink.writer(0).expect("opens");
    writer.begin(1).expect("begins");
    writer.push(&mut letter("a", "staged")).expect("writes");
    writer.pre_commit().expect("pre-commits")().expect("finishes");
    assert!(page(folder.path(), None, None, 10).letters.is_empty());
    sink.recover(&[], 100).expect("recovers");
    assert_eq!(fs::read_dir(folder.path().join(".staging")).expect("there").count(), 0);
}

#[test]
fn lines_that_can_not_be_read_are_counted_and_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    commit(folder.path(), 0, 1, &[("a", "1"), ("a", "2"), ("a", "3")]);
    let path = folder.path().join("dead-letters-000-00000001-00112233.jsonl");
    let text = fs::read(&path).expect("readable");
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let cut = &lines[1][..lines[1].len() / 2];
    let odd: Vec<u8> = [lines[0], b"\xff\xfe\n\n{}\n", cut, b"\n", lines[2], cut].concat();
    fs::write(&path, odd).expect("written");
    fs::write(folder.path().join("dead-letters-x-1-y.jsonl"), "?").expect("written");
    let page = page(folder.path(), None, None, 10);
    assert_eq!((reasons(&page), page.unreadable), (vec!["3", "1"], 5));
}

#[test]
fn a_page_of_large_letters_ends_early_and_the_next_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let large: Vec<String> = (0..5).map(|n| format!("{n}{}", "x".repeat(10 << 20))).collect();
    let letters: Vec<(&str, &str)> = large.iter().map(|reason| ("a", reason.as_str())).collect();
    commit(folder.path(), 0, 1, &letters[..4]);
    commit(folder.path(), 0, 2, &letters[4..]);
    let first = page(folder.path(), None, None, 10);
    assert!(first.letters.len() < 5 && first.next.is_some());
    let all: Vec<String> = all_reasons(folder.path(), None, 10).into_iter().map(|reason| reason[..1].to_owned()).collect();
    assert_eq!(all, ["4", "3", "2", "1", "0"]);
}

#[test]
fn a_cursor_that_is_none_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for before in ["", "x", "../../etc/passwd:1", "dead-letters-000-00000001-00112233.jsonl:x"] {
        let error = list(folder.path(), &DeadLetterQuery { before: Some(before), ..Default::default() }).expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

fn any_letter() -> impl Strategy<Value = DeadLetter> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
    let headers = proptest::collection::vec(("(?s).{0,5}", bytes()), 0..3);
    let place = (proptest::option::of("(?s).{0,9}"), proptest::option::of(any::<u64>()), proptest::option::of(any::<i64>()));
    (bytes(), proptest::option::of(bytes()), headers, place, "(?s).{0,20}", any::<bool>()).prop_map(
        |(key, value, headers, (split, record, timestamp), reason, exact)| DeadLetter {
            key,
            value,
            headers,
            record,
            timestamp,
            exact,
            digest: split.clone(),
            split,
            ..letter("op", &reason)
        },
    )
}

proptest! {
    #[test]
    fn any_letter_comes_back_from_its_line(letter in any_letter()) {
        let line = letter.to_line();
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(DeadLetter::from_line(&line).expect("read"), letter);
    }
}
