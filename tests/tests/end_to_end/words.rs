//! Small jobs on files: word-count and dedup, with one task and with two.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use tidegate_tests::host::Host;
use tidegate_tests::output::{self, assert_same_lines};
use tidegate_tests::random::Random;

const WORDS: [&str; 24] = [
    "ebb",
    "flood",
    "gate",
    "harbour",
    "keel",
    "lock",
    "moon",
    "neap",
    "pier",
    "quay",
    "reef",
    "sail",
    "shoal",
    "spring",
    "surge",
    "swell",
    "tide",
    "wake",
    "wave",
    "weir",
    "Ärmelkanal",
    "été",
    "水門",
    "x1",
];

/// A text, and how often each of its words stands in it. The words are counted when they are chosen, so nothing has to be cut.
fn text(random: &mut Random, lines: usize) -> (Vec<u8>, BTreeMap<String, u64>) {
    let (mut text, mut counts) = (String::new(), BTreeMap::new());
    for _ in 0..lines {
        for _ in 0..random.below(9) {
            // Squared, so that some words are frequent and some rare.
            let word = WORDS[(random.below(24) * random.below(24) / 24) as usize];
            *counts.entry(word.to_lowercase()).or_default() += 1;
            let shown = if random.below(4) == 0 { word.to_uppercase() } else { word.to_owned() };
            write!(text, "{shown}{}", [" ", ", ", "; ", " - ", "! "][random.below(5) as usize]).expect("writes to memory");
        }
        text.push('\n');
    }
    (text.into_bytes(), counts)
}

fn word_count(input: &Path, out: &Path, parallelism: u32) -> Value {
    json!({
        "name": format!("words-{parallelism}"),
        "checkpoint": { "interval": "100ms" },
        "source": [{ "name": "lines", "connector": "file", "path": input, "format": "lines" }],
        "operator": [
            { "name": "split", "module": "word-split@1.0.0", "input": ["lines"], "parallelism": parallelism },
            { "name": "count", "module": "word-count@1.0.0", "input": ["split"], "key": "row", "parallelism": parallelism },
        ],
        "sink": [{ "name": "counts", "connector": "file", "input": ["count"], "path": out }],
    })
}

#[test]
fn every_word_is_counted_from_one_to_its_number() {
    let mut random = Random::from_env();
    let (text, counts) = text(&mut random, 4000);
    let host = Host::start();
    let input = host.work().join("text.txt");
    std::fs::write(&input, text).expect("writes the input");
    host.push("word-split");
    host.push("word-count");
    let line = |word: &String, count: u64| format!(r#"{{"word":"{word}","count":{count}}}"#);
    let expected: Vec<String> =
        counts.iter().flat_map(|(word, number)| (1..=*number).map(move |count| line(word, count))).collect();
    for parallelism in [1, 2] {
        let out = host.work().join(format!("out-{parallelism}"));
        let job = word_count(&input, &out, parallelism);
        host.put_job(&job);
        host.wait_for_state(job["name"].as_str().expect("a name"), "finished");
        assert_same_lines(&output::lines(&out), &expected, &format!("parallelism {parallelism}"));
    }
}

#[test]
fn a_line_that_is_no_text_becomes_a_dead_letter_with_its_place() {
    let host = Host::start();
    let input = host.work().join("text.txt");
    std::fs::write(&input, b"one two\n\xff\xfe no text\nthree\n\xc3\n".as_slice()).expect("writes the input");
    host.push("word-split");
    host.push("word-count");
    let out = host.work().join("out");
    host.put_job(&word_count(&input, &out, 1));
    host.wait_for_state("words-1", "finished");
    let line = |word: &str| format!(r#"{{"word":"{word}","count":1}}"#);
    assert_same_lines(&output::lines(&out), &["one", "two", "three"].map(line), "the other lines");
    let letters = host.dead_letters("words-1");
    let told: Vec<_> = letters.iter().map(|letter| (letter["record"].as_u64(), letter["value_base64"].as_str())).collect();
    // Records of a file count from 0.
    assert_eq!(told, [(Some(1), Some("//4gbm8gdGV4dA==")), (Some(3), Some("ww=="))]);
    let digest = host.client().get("/v1/modules/word-split/1.0.0").document()["digest"].clone();
    for letter in &letters {
        assert_eq!(
            (&letter["operator"], &letter["module"], &letter["kind"]),
            (&json!("split"), &json!("word-split@1.0.0"), &json!("rejected"))
        );
        assert_eq!((&letter["digest"], &letter["source"]), (&digest, &json!("lines")));
        assert!(letter["split"].as_str().is_some_and(|split| split.ends_with("text.txt")), "{letter}");
        assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("not UTF-8")), "{letter}");
    }
    let ids: BTreeSet<_> = letters.iter().map(|letter| letter["id"].to_string()).collect();
    assert_eq!(ids.len(), 2, "{letters:?}");
}

#[test]
fn bad_records_are_skipped_or_fail_the_job_as_the_operator_says() {
    let host = Host::start();
    let input = host.work().join("text.txt");
    std::fs::write(&input, b"one\n\xff\n".as_slice()).expect("writes the input");
    host.push("word-split");
    host.push("word-count");
    let job = |policy: &str| {
        let mut job = word_count(&input, &host.work().join(policy), 1);
        job["name"] = json!(policy);
        job["operator"][0]["on_error"] = json!(policy);
        job
    };
    host.put_job(&job("skip"));
    host.wait_for_state("skip", "finished");
    assert_eq!((output::lines(&host.work().join("skip")).len(), host.dead_letters("skip").len()), (1, 0));
    host.put_job(&job("fail"));
    let failed = tidegate_tests::wait::until("the job fails", std::time::Duration::from_secs(60), || {
        let job = host.job("fail");
        if job["status"]["state"] == "failed" { Ok(job) } else { Err(job["status"].to_string()) }
    });
    let error = failed["status"]["error"].as_str().expect("a reason");
    assert!(error.contains("on_error = \"fail\"") && error.contains("not UTF-8"), "{error}");
    assert!(output::lines(&host.work().join("fail")).is_empty(), "nothing of a failed epoch is visible");
}

#[test]
fn the_first_record_of_each_visitor_passes_unchanged() {
    let mut random = Random::from_env();
    let host = Host::start();
    host.push("dedup");
    // Within one hour of event time, so that nobody is forgotten; the blanks show that records are not rewritten.
    let visits: Vec<(u64, String)> = (0..6000)
        .map(|i| {
            let visitor = random.below(700);
            let time = 1_700_000_000_000_u64 + i * 500;
            (visitor, format!(r#"{{"visitor": "v{visitor}",  "page":"/{i}", "time":{time}}}"#))
        })
        .collect();
    let mut seen = BTreeSet::new();
    let expected: Vec<String> =
        visits.iter().filter(|(visitor, _)| seen.insert(*visitor)).map(|(_, line)| line.clone()).collect();
    let input = host.work().join("visits.jsonl");
    std::fs::write(&input, visits.iter().map(|(_, line)| format!("{line}\n")).collect::<String>()).expect("writes the input");
    for parallelism in [1, 2] {
        let (name, out) = (format!("dedup-{parallelism}"), host.work().join(format!("out-{parallelism}")));
        host.put_job(&json!({
            "name": name,
            "source": [{
                "name": "visits", "connector": "file", "path": input, "format": "json",
                "watermark": { "field": "/time", "out_of_orderness": "1m" },
            }],
            "operator": [{
                "name": "first", "module": "dedup@1.0.0", "input": ["visits"], "key": { "json": "/visitor" },
                "parallelism": parallelism,
            }],
            "sink": [{ "name": "out", "connector": "file", "input": ["first"], "path": out }],
        }));
        host.wait_for_state(&name, "finished");
        assert_same_lines(&output::lines(&out), &expected, &name);
        let metrics = host.client().get("/metrics").body;
        let duplicates =
            format!(r#"tidegate_guest_duplicates{{job="{name}",operator="first"}} {}"#, visits.len() - expected.len());
        assert!(metrics.contains(&duplicates), "no {duplicates} in the metrics");
    }
}
