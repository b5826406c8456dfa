//! Both operators over the sample, natively, against the oracle: and the oracle against results that are wrong.

// By path, not as crates: a component's crate is a cdylib alone, or it would be built without link-time optimisation.
#[path = "../../clean/src/lib.rs"]
mod clean;
#[path = "../src/lib.rs"]
mod delays;

use clean::Clean;
use delays::Delays;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tidegate_sdk::Row;
use tidegate_sdk::testing::{Emitted, OperatorTest};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/sample.csv");
const ORACLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../oracle.py");

struct Result {
    hours: Vec<String>,
    late: Vec<String>,
    cancelled: Vec<String>,
    dead_letters: usize,
}

/// A row as the host's source hands it over; `None` where it can't, because columns are missing or there is no time.
fn decoded(header: &str, line: &str) -> Option<String> {
    let (names, fields): (Vec<_>, Vec<_>) = (header.split(',').collect(), line.split(',').collect());
    if names.len() != fields.len() || !fields[18].ends_with('Z') {
        return None;
    }
    let values = fields.iter().map(|field| match field {
        &"" | &"NA" => "null".to_owned(),
        number if number.parse::<i64>().is_ok() => (*number).to_owned(),
        text => format!("{text:?}"),
    });
    let members: Vec<_> = names.iter().zip(values).map(|(name, value)| format!("{name:?}:{value}")).collect();
    Some(format!("{{{}}}", members.join(",")))
}

fn run(batch: usize) -> Result {
    let (mut clean, mut delays) = (OperatorTest::<Clean>::new(), OperatorTest::<Delays>::new());
    let table = fs::read_to_string(SAMPLE).expect("the sample is in the repository");
    let (header, lines) = table.split_once('\n').expect("a header");
    let mut undecoded = 0;
    for lines in lines.lines().collect::<Vec<_>>().chunks(batch) {
        for line in lines {
            match decoded(header, line) {
                Some(row) => clean.send("", row, None),
                None => undecoded += 1,
            }
        }
        let departures: Vec<(String, i64, Emitted)> = clean.take("main").into_iter().map(keyed).collect();
        let rows: Vec<_> = departures
            .iter()
            .map(|(key, ts, departure)| Row {
                key: key.as_bytes(),
                value: departure.value.as_deref(),
                timestamp: Some(*ts),
                ..Row::default()
            })
            .collect();
        delays.send_batch(&rows);
        if let Some(last) = departures.iter().map(|(_, ts, _)| *ts).max() {
            delays.advance_watermark(last - 1);
        }
    }
    delays.end_of_input();
    let texts = |rows: Vec<Emitted>| rows.iter().map(|row| row.text().to_owned()).collect();
    assert!(delays.rejected().is_empty());
    Result {
        hours: texts(delays.take("main")),
        late: texts(delays.take("late")),
        cancelled: texts(clean.take("cancelled")),
        dead_letters: undecoded + clean.rejected().len(),
    }
}

fn keyed(departure: Emitted) -> (String, i64, Emitted) {
    let value: serde_json::Value = serde_json::from_str(departure.text()).expect("what clean writes is JSON");
    let text = |name: &str| value[name].as_str().expect("a text").to_owned();
    let ts = value["ts"].as_i64().expect("a time");
    (format!("{}\u{1f}{}", text("carrier"), text("origin")), ts, departure)
}

fn judged(name: &str, result: &Result) -> Output {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(fs::remove_dir_all(&out));
    for (sink, lines) in [("hours", &result.hours), ("late", &result.late), ("cancelled", &result.cancelled)] {
        let folder: PathBuf = out.join(sink);
        fs::create_dir_all(folder.join(".staging")).expect("a writable target folder");
        // In two parts, and with something that was never committed.
        let (first, second) = lines.split_at(lines.len() / 2);
        for (part, lines) in [("part-0.jsonl", first), ("part-1.jsonl", second)] {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(folder.join(part), text).expect("a writable target folder");
        }
        fs::write(folder.join(".staging/part-2.jsonl"), "not committed").expect("a writable target folder");
    }
    let count = result.dead_letters.to_string();
    let mut oracle = Command::new("python3");
    oracle.arg(ORACLE).args(["--input", SAMPLE, "--dead-letter-count", &count, "--out"]).arg(&out);
    oracle.output().expect("python3 is needed for the oracle")
}

#[test]
fn the_oracle_agrees_whatever_the_batches() {
    for (name, batch) in [("one", 1), ("some", 37), ("all", 10_000)] {
        let output = judged(name, &run(batch));
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn the_oracle_sees_what_is_missing_duplicated_wrong_or_unexpected() {
    type Spoil = fn(&mut Result);
    let spoil: [(&str, Spoil, &str); 6] = [
        ("missing", |result| drop(result.hours.pop()), "1 missing, 0 duplicated, 0 wrong"),
        ("duplicated", |result| result.hours.push(result.hours[0].clone()), "0 missing, 1 duplicated, 0 wrong"),
        (
            "wrong",
            |result| result.hours[7] = result.hours[7].replace("flights\":", "flights\":1"),
            "1 missing, 0 duplicated, 1 wrong",
        ),
        ("cancelled", |result| drop(result.cancelled.pop()), "cancelled flights"),
        ("late", |result| result.late.push(result.hours[0].clone()), "late flights: 0 expected"),
        ("dead", |result| result.dead_letters -= 1, "dead letters: 15, 16 expected"),
    ];
    for (name, spoil, message) in spoil {
        let mut result = run(100);
        spoil(&mut result);
        let output = judged(name, &result);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(text.contains(message) && text.contains("WRONG"), "{name}: {text}");
    }
}
