//! The command line as users have it, in this process, against a server on a loopback port.

use super::*;
use crate::config::HostConfig;
use crate::http::tests::TestHost;
use crate::job_manager::fake::{FakeInspector, FakeRuntime};
use crate::metrics::Metrics;
use crate::module_store::{ModuleInspector, ModuleStore};
use crate::server::{Engine, HostError};
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tidegate_core::limits::CompileLimits;

struct FakeWiring;

impl Wiring for FakeWiring {
    fn inspector(&self, _: &HostConfig) -> Result<Arc<dyn ModuleInspector>, HostError> {
        Ok(Arc::new(FakeInspector))
    }

    fn compile_worker(&self, limits: CompileLimits) -> u8 {
        assert_eq!(limits, CompileLimits { seconds_max: 7, memory_bytes_max: 8 << 30 });
        9
    }

    fn engine(&self, _: &HostConfig, _: &ModuleStore, _: &Arc<Metrics>) -> Result<Engine, HostError> {
        let runtime = Arc::new(FakeRuntime::default());
        let archive = runtime.archive.clone();
        Ok(Engine { runtime, archive })
    }
}

#[derive(Clone, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[derive(Debug)]
struct Outcome {
    code: u8,
    out: String,
    err: String,
}

impl Outcome {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    #[track_caller]
    fn json(self) -> Value {
        let outcome = self.ok();
        serde_json::from_str(&outcome.out).unwrap_or_else(|e| panic!("{e}: {outcome:#?}"))
    }

    /// Ends with this code, and tells why on stderr alone.
    #[track_caller]
    fn fails(self, code: u8, why: &str) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(self.err.contains(why), "{why:?} in {self:#?}");
        assert_eq!(self.out, "", "{self:#?}");
        self
    }
}

fn tidegate(args: &[&str]) -> Outcome {
    let (out, err) = (Captured::default(), Captured::default());
    let mut terminal = Terminal::plain(out.clone(), err.clone());
    let args = ["tidegate"].iter().chain(args).map(OsString::from);
    let code = exit_code(args, &FakeWiring, &mut terminal);
    Outcome { code, out: out.text(), err: err.text() }
}

fn on(host: &TestHost, args: &[&str]) -> Outcome {
    tidegate(&[args, &["--server", &host.url]].concat())
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    tidegate(&[]).fails(2, "Usage");
    tidegate(&["job", "stop", "a", "--drain"]).fails(2, "--savepoint");
    tidegate(&["module", "push", "delays", "x.wasm"]).fails(2, "NAME@VERSION");
    tidegate(&["job", "dead-letters", "a", "--limit", "0"]).fails(2, "0");
    tidegate(&["job", "list", "--server", "https://h"]).fails(2, "only http");
    tidegate(&["serve", "--listen", "nowhere"]).fails(2, "nowhere");
    tidegate(&["job", "create", "/does/not/exist.toml"]).fails(2, "/does/not/exist.toml");
    assert!(tidegate(&["--help"]).ok().out.contains("savepoint"));
    assert!(tidegate(&["--version"]).ok().out.starts_with("tidegate "));
    assert!(tidegate(&["completions", "bash"]).ok().out.contains("_tidegate"));
}

#[test]
fn the_compiler_of_the_program_is_there_and_not_shown() {
    // As `wasm::worker` calls it.
    let worker = tidegate(&["compile-worker", "--seconds", "7", "--memory", "8589934592"]);
    assert_eq!(worker.code, 9, "{worker:#?}");
    assert!(!tidegate(&["--help"]).ok().out.contains("compile-worker"));
    tidegate(&["serve", "--compile-seconds", "0"]).fails(2, "must be 1 to 3600 (compile_seconds_max)");
    tidegate(&["run", "x.toml", "--compile-memory", "1MiB"]).fails(2, "(compile_memory_bytes_max)");
}

#[test]
fn modules_are_pushed_listed_inspected_and_deleted() {
    let host = TestHost::open();
    let folder = tempfile::tempdir().unwrap();
    let wasm = write(folder.path(), "op.wasm", "component");
    assert!(on(&host, &["module", "list"]).ok().err.contains("no modules yet"));
    assert!(on(&host, &["module", "push", "delays@1.2.0", &wasm]).ok().out.starts_with("pushed delays@1.2.0"));
    assert!(on(&host, &["module", "push", "delays@1.2.0", &wasm]).ok().out.starts_with("unchanged"));
    let other = write(folder.path(), "other.wasm", "other");
    on(&host, &["module", "push", "delays@1.2.0", &other]).fails(1, "new version");
    let bad = write(folder.path(), "bad.wasm", "bad");
    let refused = on(&host, &["module", "push", "delays@1.2.1", &bad]).fails(2, "it imports what an operator may not have");
    assert!(
        refused.err.contains("  import = wasi:sockets/tcp@0.2.0: is not allowed\nhelp: build it without sockets"),
        "{}",
        refused.err
    );
    let list = on(&host, &["module", "list"]).ok().out;
    assert!(list.starts_with("MODULE") && list.contains("delays@1.2.0"), "{list}");
    assert!(on(&host, &["module", "inspect", "delays@1.2.0"]).ok().out.contains("tidegate:streaming/state@0.1.0"));
    assert_eq!(on(&host, &["module", "list", "--output", "json"]).json()["modules"][0]["version"], "1.2.0");
    on(&host, &["module", "delete", "delays@1.2.0"]).ok();
    on(&host, &["module", "inspect", "delays@1.2.0"]).fails(1, "there is no module `delays@1.2.0`");
}

#[test]
fn a_job_lives_through_all_its_verbs() {
    let host = TestHost::open();
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "flights.toml", "name = \"flights\"\nretained = 4\n");
    assert!(on(&host, &["job", "list"]).ok().err.contains("no jobs yet"));
    assert_eq!(on(&host, &["job", "create", &file]).ok().out, "created flights: it is running\n");
    assert_eq!(on(&host, &["job", "create", &file]).ok().out, "stored flights: it is running\n");
    let list = on(&host, &["job", "list"]).ok().out;
    let row = list.lines().nth(1).unwrap();
    assert!(row.contains("flights  running") && row.contains("1m 1s") && row.contains("2013-01-01 00:00:00Z"), "{list}");
    let shown = on(&host, &["job", "show", "flights"]).ok().out;
    assert!(shown.contains("in > op") && shown.contains("1,234,567") && shown.contains("75%"), "{shown}");
    assert_eq!(on(&host, &["job", "show", "flights", "--output", "json"]).json()["spec"]["retained"], 4);
    let checkpoints = on(&host, &["job", "checkpoints", "flights"]).ok().out;
    assert!(
        checkpoints.contains("completed") && checkpoints.contains("3.00 MiB") && checkpoints.contains("50 us"),
        "{checkpoints}"
    );

    assert!(on(&host, &["savepoint", "list", "flights"]).ok().err.contains("no savepoints yet"));
    assert!(on(&host, &["savepoint", "create", "flights"]).ok().out.starts_with("savepoint sp-1 of flights (2.00 KiB)"));
    let stopped = on(&host, &["job", "stop", "flights", "--savepoint", "--drain"]).ok();
    assert!(stopped.out.starts_with("stopped flights at savepoint sp-2"));
    assert!(stopped.err.contains("tidegate job start flights --from sp-2"));
    assert_eq!(on(&host, &["savepoint", "list", "flights", "--output", "json"]).json()["savepoints"][1]["id"], "sp-2");
    assert_eq!(on(&host, &["job", "start", "flights", "--from", "sp-2"]).ok().out, "flights is running\n");
    on(&host, &["job", "start", "flights", "--from", "fresh"]).fails(1, "it is running");
    on(&host, &["job", "delete", "flights"]).fails(1, "help: stop it first, or force the deletion");
    assert_eq!(on(&host, &["job", "stop", "flights"]).ok().out, "stopped flights\n");
    on(&host, &["savepoint", "delete", "flights", "sp-1"]).ok();
    on(&host, &["job", "delete", "flights", "--with-savepoints"]).ok();
    on(&host, &["job", "show", "flights"]).fails(1, "there is no job `flights`");
    on(&host, &["job", "show", "../modules"]).fails(1, "there is no job");
}

#[test]
fn everything_that_is_wrong_with_a_job_is_told_at_once() {
    let host = TestHost::open();
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "bad.toml", "name = \"bad\"\nproblems = [\"checkpoint.interval\", \"sink.out.path\"]\n");
    let outcome = on(&host, &["job", "create", &file]).fails(2, "error: check the job `bad`: 2 problems found");
    assert!(outcome.err.contains("  checkpoint.interval = ?: is wrong\n  sink.out.path = ?: is wrong\n"), "{}", outcome.err);
}

#[test]
fn a_module_named_by_its_path_is_pushed_with_the_job() {
    let host = TestHost::open();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "my-op.wasm", "component");
    let toml = "name = \"a\"\n[[operator]]\nmodule = \"my-op.wasm\"\n[[operator]]\nmodule = \"./my-op.wasm\"\n";
    let file = write(folder.path(), "job.toml", toml);
    let outcome = on(&host, &["job", "create", &file]).ok();
    let modules = on(&host, &["module", "list", "--output", "json"]).json();
    let version = modules["modules"][0]["version"].as_str().unwrap().to_owned();
    assert!(version.starts_with("0.0.0-") && version.len() == 14, "{version}");
    assert!(outcome.err.contains(&format!("module my-op@{version}")), "{}", outcome.err);
    let spec = on(&host, &["job", "show", "a", "--output", "json"]).json();
    assert_eq!(spec["spec"]["operator"][1]["module"], format!("my-op@{version}"));
}

#[test]
fn a_savepoint_that_fails_says_why_and_what_to_do() {
    let host = TestHost::open();
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "job.json", r#"{"name": "a", "savepoint": "fail"}"#);
    on(&host, &["job", "create", &file]).ok();
    on(&host, &["savepoint", "create", "a"]).fails(1, "error: take the savepoint: the disk is full\nhelp: make room");
    on(&host, &["job", "stop", "a", "--savepoint"]).fails(1, "the disk is full");
}

#[test]
fn dead_letters_are_shown_with_their_place_and_the_next_page() {
    let host = TestHost::open();
    host.create("a");
    let page = on(&host, &["job", "dead-letters", "a", "--limit", "2"]).ok();
    assert!(page.out.contains("flights.csv#249  no such carrier  XX,1"), "{}", page.out);
    assert_eq!(page.out.lines().count(), 3);
    assert!(page.err.contains("older ones: --before 248"), "{}", page.err);
}

#[test]
fn run_ends_with_the_job_and_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.toml", "name = \"good\"\nends = \"finished\"\n[[source]]\nname = \"in\"\n");
    let summary = tidegate(&["run", &good, "--output", "json"]).json();
    assert_eq!(summary["state"], "finished");
    assert_eq!(summary["records_in"], 1_234_567);
    assert!(folder.path().join(".tidegate/jobs/good/job.json").exists());
    assert!(tidegate(&["run", &good]).ok().err.contains("--fresh"), "what is finished does not run again by accident");
    assert!(tidegate(&["run", &good, "--fresh"]).ok().out.contains("good finished: 1,234,567 records"));

    let failing = write(folder.path(), "failing.toml", "name = \"failing\"\nends = \"failed\"\n");
    let outcome = tidegate(&["run", &failing]);
    assert_eq!(outcome.code, 1, "{outcome:#?}");
    assert!(outcome.err.contains("error: the job `failing` failed: the guest trapped"), "{}", outcome.err);
    let wrong = write(folder.path(), "wrong.toml", "name = \"wrong\"\nproblems = [\"x\"]\n");
    tidegate(&["run", &wrong]).fails(2, "x = ?: is wrong");
}
