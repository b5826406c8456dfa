//! The command line as users have it, in this process, against a server on a loopback port.

use super::*;
use crate::api::JobState;
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
    fn inspector(&self, _: CompileLimits) -> Result<Arc<dyn ModuleInspector>, HostError> {
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
    tidegate(&["job", "list", "--server", "ftp://h"]).fails(2, "only http");
    tidegate(&["job", "logs", "a", "--level", "loud"]).fails(2, "loud");
    tidegate(&["serve", "--listen", "nowhere"]).fails(2, "nowhere");
    tidegate(&["job", "create", "/does/not/exist.toml"]).fails(2, "/does/not/exist.toml");
    assert!(tidegate(&["--help"]).ok().out.contains("savepoint"));
    assert!(tidegate(&["--version"]).ok().out.starts_with("tidegate "));
    assert!(tidegate(&["completions", "bash"]).ok().out.contains("_tidegate"));
}

#[test]
fn a_server_that_others_reach_needs_tokens_or_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let refused = tidegate(&["serve", "--listen", "0.0.0.0:0", "--data", &data]).fails(2, "no token is asked for");
    assert!(refused.err.contains("--token-file") && refused.err.contains("--insecure"), "{}", refused.err);
    let tokens = write(folder.path(), "tokens", "write:short\n");
    let refused = tidegate(&["serve", "--data", &data, "--token-file", &tokens]).fails(2, "token_bytes");
    assert!(!refused.err.contains("short"), "{}", refused.err);
    tidegate(&["serve", "--data", &data, "--tls-cert", &tokens]).fails(2, "--tls-key");
    tidegate(&["serve", "--data", &data, "--tls-cert", &tokens, "--tls-key", &tokens]).fails(1, "no certificate");
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

#[test]
fn commands_reach_a_server_with_tokens_and_a_certificate_of_its_own() {
    const WRITER: &str = "writer-0123456789";
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let tls = crate::http::tls(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    let access = crate::http::Access::parse(&format!("read:reader-0123456789\nwrite:{WRITER}")).unwrap();
    let host = TestHost::serving(crate::http::HttpConfig { access, tls: Some(tls), ..Default::default() });
    let ca = write(folder.path(), "ca.pem", &made.cert.pem());
    let token = write(folder.path(), "token", &format!("{WRITER}\n"));
    let of_server = write(folder.path(), "tokens", &format!("# ours\nread:reader-0123456789\nwrite:{WRITER}\n"));
    let job = write(folder.path(), "a.toml", "name = \"a\"\n");
    on(&host, &["job", "list"]).fails(1, "certificate");
    on(&host, &["job", "list", "--ca-cert", &ca]).fails(1, "is missing");
    on(&host, &["job", "create", &job, "--ca-cert", &ca, "--token-file", &token]).ok();
    on(&host, &["job", "stop", "a", "--ca-cert", &ca, "--token-file", &of_server]).ok();
    let reader = write(folder.path(), "reader", "reader-0123456789");
    on(&host, &["job", "start", "a", "--ca-cert", &ca, "--token-file", &reader]).fails(1, "role `read`");
    on(&host, &["job", "list", "--ca-cert", &job]).fails(2, "BEGIN CERTIFICATE");
    on(&host, &["job", "list", "--token-file", "/does/not/exist"]).fails(2, "/does/not/exist");
}

#[test]
fn logs_are_shown_and_followed_until_the_job_ends() {
    use crate::api::{LogLevel, LogRecord};
    let host = TestHost::open();
    host.create("a");
    let journal = host.manager.journal("a").unwrap();
    let say = |level, message: &str| {
        journal.log(LogRecord { level, operator: "op".into(), module: "m@1".into(), task: 3, message: message.into() });
    };
    assert!(on(&host, &["job", "logs", "a"]).ok().err.contains("no log lines"));
    say(LogLevel::Info, "hello");
    say(LogLevel::Error, "a \u{1b}[31mred\u{1b}[0m one");
    let shown = on(&host, &["job", "logs", "a"]).ok().out;
    assert!(shown.contains("info   op/3  hello") && !shown.contains('\u{1b}'), "{shown}");
    assert_eq!(on(&host, &["job", "logs", "a", "--level", "warn"]).ok().out.lines().count(), 1);
    assert_eq!(on(&host, &["job", "logs", "a", "--output", "json"]).json()["lines"][0]["message"], "hello");
    let followed = std::thread::scope(|scope| {
        let follow = scope.spawn(|| on(&host, &["job", "logs", "a", "--follow"]));
        // Whether the follower is there already does not matter: it begins where the page it read ends.
        say(LogLevel::Warn, "later");
        host.fake.last_run("a").enter(JobState::Failed, None);
        follow.join().unwrap().ok()
    });
    assert!(followed.out.contains("hello") && followed.out.contains("later"), "{followed:?}");
    assert!(followed.err.contains("a is failed"), "{followed:?}");
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
    assert_eq!(on(&host, &["job", "why", "flights"]).ok().out, "the job has no tasks\n");
    assert_eq!(on(&host, &["job", "why", "flights", "--output", "json"]).json()["state"], "running");
    on(&host, &["job", "why", "nobody"]).fails(1, "there is no job `nobody`");
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
fn one_dead_letter_is_shown_fetched_and_sent_back() {
    let host = TestHost::open();
    host.create("a");
    let folder = tempfile::tempdir().unwrap();
    assert!(on(&host, &["dead-letter", "show", "a", "7"]).ok().out.contains("kind         trap"));
    on(&host, &["dead-letter", "show", "a", "none"]).fails(1, "there is no dead letter `none`");
    let file = folder.path().join("value");
    on(&host, &["dead-letter", "fetch", "a", "7", "--out", file.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read(&file).unwrap(), b"XX,1\xff");
    assert_eq!(on(&host, &["dead-letter", "list", "a", "--limit", "2"]).ok().out.lines().count(), 3);
    let replayed = on(&host, &["dead-letter", "replay", "a", "--operator", "op"]).ok();
    assert!(replayed.out.contains("replay: 3 letters, request 1"), "{}", replayed.out);
    let dry = on(&host, &["dead-letter", "replay", "a", "--newer-than", "5m", "--dry-run"]).ok();
    assert!(dry.out.contains("would replay: 3 letters"), "{}", dry.out);
    on(&host, &["dead-letter", "replay", "a", "replayed"]).fails(1, "was replayed\nhelp: force it");
    on(&host, &["dead-letter", "discard", "a", "--older-than", "x"]).fails(2, "older-than");
    on(&host, &["dead-letter", "replay", "a", "7", "--all"]).fails(2, "--all");
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
