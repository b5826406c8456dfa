//! Every example runs as it stands: its job file over HTTP, in a copy of its folder, with the modules that the file names. What
//! newcomers copy has to work.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidegate_tests::cli::{Finished, tidegate};
use tidegate_tests::host::Host;
use tidegate_tests::output::{self, assert_same_lines};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("examples")
}

/// The files that a job reads, without the operators' code.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes a folder");
    for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let path = entry.expect("the folder can be listed").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_file() {
            std::fs::copy(&path, &target).expect("copies a file");
        } else if path.ends_with("data") {
            copy(&path, &target);
        }
    }
}

/// Modules of a job file as (name, version).
fn modules(job: &str) -> Vec<(String, String)> {
    let job: toml::Table = toml::from_str(job).expect("a job file is TOML");
    let operators = job["operator"].as_array().cloned().unwrap_or_default();
    let reference = |operator: &toml::Value| {
        let (name, version) = operator["module"].as_str()?.split_once('@')?;
        Some((name.to_owned(), version.to_owned()))
    };
    operators.iter().map(|operator| reference(operator).expect("a module is named with its version")).collect()
}

/// Runs an example to its end, in the host's working folder, which is a copy of the example's.
fn run(name: &str) -> Host {
    run_changed(name, false, |job| job)
}

fn run_changed(name: &str, amnesia: bool, change: impl FnOnce(String) -> String) -> Host {
    let mut host = Host::prepared();
    if amnesia {
        host.set_env("TIDEGATE_AMNESIA", "true");
    }
    host.restart();
    copy(&examples().join(name), &host.work());
    let job = change(std::fs::read_to_string(host.work().join("job.toml")).expect("reads the job file"));
    for (module, version) in modules(&job) {
        let bytes = std::fs::read(guest_build::component(&module)).expect("reads the component");
        host.client().put(&format!("/v1/modules/{module}/{version}"), "application/wasm", &bytes).document();
    }
    host.client().put(&format!("/v1/jobs/{name}"), "application/toml", job.as_bytes()).document();
    host.wait_for_state(name, "finished");
    host
}

fn records_in(host: &Host, operator: &str) -> u64 {
    let metrics = host.client().get("/metrics").body;
    let operator = format!(r#"operator="{operator}""#);
    let of_operator = metrics.lines().filter(|line| line.starts_with("tidegate_records_in_total{") && line.contains(&operator));
    of_operator.map(|line| line.rsplit_once(' ').expect("a sample has a value").1.parse::<u64>().expect("a whole number")).sum()
}

#[test]
fn every_example_with_a_job_is_run_here() {
    let mut found: Vec<String> = std::fs::read_dir(examples())
        .expect("there are examples")
        .map(|entry| entry.expect("can be listed").path())
        .filter(|path| path.join("job.toml").exists())
        .map(|path| path.file_name().expect("has a name").to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, EXAMPLES);
}

const EXAMPLES: [&str; 6] = ["convert", "dedup", "flights", "record-upper", "running-totals", "word-count"];

/// The job with outputs that can be compared: what it throws away, and less of what it makes up.
fn with_visible_outputs(job: String) -> String {
    job.replace("connector = \"blackhole\"", "connector = \"file\"\npath = \"out\"\nformat = \"json-envelope\"")
        .replace("records = 1_000_000", "records = 20_000")
}

/// All that a job wrote: the folder of each file and its lines, in an order of their own, because tasks run side by side.
fn written(host: &Host) -> Vec<(String, String)> {
    let out = host.work().join("out");
    let mut folders = vec![out.clone()];
    folders.extend(std::fs::read_dir(&out).expect("there is output").map(|entry| entry.expect("can be listed").path()));
    let visible =
        |folder: &PathBuf| folder.is_dir() && !folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut written: Vec<(String, String)> = folders
        .iter()
        .filter(|folder| visible(folder))
        .flat_map(|folder| {
            let name = folder.strip_prefix(&out).expect("below it").display().to_string();
            let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("can be listed").path());
            let files = files
                .filter(|file| file.is_file() && !file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
            files.flat_map(move |file| {
                let text = std::fs::read_to_string(&file).expect("reads output");
                text.lines().map(|line| (name.clone(), line.to_owned())).collect::<Vec<_>>()
            })
        })
        .collect();
    written.sort_unstable();
    written
}

fn guest_calls(host: &Host) -> u64 {
    let metrics = host.client().get("/metrics").body;
    let calls = metrics.lines().filter(|line| line.starts_with("tidegate_guest_calls_total{"));
    calls.map(|line| line.rsplit_once(' ').expect("a sample has a value").1.parse::<u64>().expect("a whole number")).sum()
}

/// The examples with timers (flights), states, side outputs and rejected rows among them.
#[test]
fn every_example_writes_the_same_bytes_with_a_new_instance_for_every_call() {
    for name in EXAMPLES {
        let usual = run_changed(name, false, with_visible_outputs);
        let forgetful = run_changed(name, true, with_visible_outputs);
        let (expected, found) = (written(&usual), written(&forgetful));
        assert!(!expected.is_empty() && guest_calls(&forgetful) > 0, "{name}");
        let difference = expected.iter().zip(&found).find(|(a, b)| a != b);
        assert!(expected == found, "{name}: {} lines and {}; {difference:?}", expected.len(), found.len());
        assert_eq!(usual.dead_letters(name).len(), forgetful.dead_letters(name).len(), "{name}");
    }
}

fn word_counts(text: &str) -> Vec<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let text = text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " ");
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_default() += 1;
    }
    let line = |word: &str, count: u64| format!(r#"{{"word":"{word}","count":{count}}}"#);
    counts.iter().flat_map(|(word, number)| (1..=*number).map(move |count| line(word, count))).collect()
}

#[test]
fn word_count_counts_its_text() {
    let host = run("word-count");
    let text = std::fs::read_to_string(host.work().join("text.txt")).expect("reads the text");
    assert_same_lines(&output::lines(&host.work().join("out")), &word_counts(&text), "word-count");
}

#[test]
fn dedup_keeps_the_first_visit_of_each_visitor() {
    let host = run("dedup");
    let visits = std::fs::read_to_string(host.work().join("visits.jsonl")).expect("reads the visits");
    let mut seen = Vec::new();
    let first = |line: &&str| {
        let visit: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let is_new = !seen.contains(&visit["visitor"]);
        seen.push(visit["visitor"].clone());
        is_new
    };
    let expected: Vec<String> = visits.lines().filter(first).map(str::to_owned).collect();
    assert_same_lines(&output::lines(&host.work().join("out")), &expected, "dedup");
}

#[test]
fn record_upper_writes_its_lines_in_capitals() {
    let host = run("record-upper");
    let text = std::fs::read_to_string(host.work().join("text.txt")).expect("reads the text");
    let expected: Vec<String> = text.lines().map(str::to_uppercase).collect();
    assert_same_lines(&output::lines(&host.work().join("out")), &expected, "record-upper");
}

#[test]
fn flights_agrees_with_its_oracle() {
    let host = run("flights");
    let letters = host.dead_letters("flights").len();
    let oracle = Command::new("python3")
        .current_dir(host.work())
        .args(["oracle.py", "--input", "data/sample.csv", "--out", "out", "--dead-letter-count", &letters.to_string()])
        .output()
        .expect("python3 starts");
    let said = String::from_utf8_lossy(&oracle.stdout);
    assert!(
        oracle.status.success() && said.contains("The result is right."),
        "{said}{}",
        String::from_utf8_lossy(&oracle.stderr)
    );
}

#[test]
fn running_totals_and_convert_read_all_of_their_records() {
    for (example, operator) in [("running-totals", "totals"), ("convert", "convert")] {
        let host = run(example);
        assert_eq!(records_in(&host, operator), 1_000_000, "{example}");
    }
}

/// The example's job with the components' paths in the place of the modules, as someone does who tries things out.
fn with_paths(host: &Host, name: &str) -> PathBuf {
    copy(&examples().join(name), &host.work());
    let path = host.work().join("job.toml");
    let mut job = std::fs::read_to_string(&path).expect("reads the job file");
    for (module, version) in modules(&job) {
        let component = guest_build::component(&module).display().to_string();
        job = job.replace(&format!("\"{module}@{version}\""), &format!("\"{component}\""));
    }
    std::fs::write(&path, job).expect("writes the job file");
    path
}

#[test]
fn a_job_runs_in_the_foreground_without_a_server() {
    let host = Host::prepared();
    let job = with_paths(&host, "word-count");
    let (out, text) = (host.work().join("out"), std::fs::read_to_string(host.work().join("text.txt")).expect("reads the text"));
    let run = |args: &[&str]| -> Finished { tidegate().arg("run").arg(&job).args(args).finish() };
    let first = run(&[]);
    assert_eq!(first.code, 0, "{first}");
    assert_same_lines(&output::lines(&out), &word_counts(&text), "the first run");
    let again = run(&[]);
    assert!(again.code == 0 && again.errors.contains("--fresh"), "what is finished is not done again: {again}");
    assert_same_lines(&output::lines(&out), &word_counts(&text), "the second run");
    let fresh = run(&["--fresh", "--output", "json"]);
    let summary: serde_json::Value = serde_json::from_str(&fresh.output).unwrap_or_else(|error| panic!("{error}: {fresh}"));
    assert_eq!((fresh.code, &summary["state"]), (0, &serde_json::json!("finished")), "{fresh}");
    assert_eq!(output::lines(&out).len(), 2 * word_counts(&text).len(), "from the beginning once more");
}

#[test]
fn a_job_that_fails_in_the_foreground_says_why_and_exits_with_one() {
    let host = Host::prepared();
    let job = with_paths(&host, "word-count");
    std::fs::remove_file(host.work().join("text.txt")).expect("removes the input");
    let failed = tidegate().arg("run").arg(&job).finish();
    assert!(failed.code == 1 && failed.errors.contains("text.txt"), "{failed}");
    std::fs::write(&job, "name = \"x\"\ncolour = 1\n").expect("writes the job file");
    let refused = tidegate().arg("run").arg(&job).finish();
    assert!(refused.code == 2 && refused.errors.contains("colour"), "{refused}");
}
