//! The real binary as a process: started on a folder, killed, started again.

use crate::client::Client;
use crate::wait::until;
use serde_json::Value;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

/// For a host to come up and to say that it is ready, jobs resumed. Far more than it needs, so that a busy machine fails no test.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Lines of the log that a failed test shows.
const LOG_TAIL: usize = 60;

/// The binary under test: `TIDEGATE_BINARY`, or the workspace's own, built if it is not fresh.
///
/// A link to it is kept for the life of the process: a build that runs meanwhile must not change what a test starts again.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = std::env::var_os("TIDEGATE_BINARY").map_or_else(build, PathBuf::from);
        let kept = built.with_file_name(format!("tidegate-under-test-{}", std::process::id()));
        // A leftover of another process of this number.
        let _ = std::fs::remove_file(&kept);
        match std::fs::hard_link(&built, &kept) {
            Ok(()) => Kept::of(kept),
            // Another file system, or none that knows links.
            Err(_) => built,
        }
    })
}

/// Links of processes that are gone are swept at the next start: nothing runs reliably at the end of a test process.
struct Kept;

impl Kept {
    fn of(kept: PathBuf) -> PathBuf {
        let folder = kept.parent().expect("a file lies in a folder");
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid =
                name.to_str().and_then(|name| name.strip_prefix("tidegate-under-test-")).and_then(|pid| pid.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        kept
    }
}

fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in a workspace");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace)
        .args(["build", "--quiet", "--package", "tidegate", "--bin", "tidegate", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "the host does not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = artifacts.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    executable.expect("cargo names the executable")
}

/// A host on a folder of its own. Dropping it kills the process; a test that panics gets the end of the log.
pub struct Host {
    /// Shared by two hosts where a test is about that.
    folder: Arc<TempDir>,
    log: PathBuf,
    process: Option<Child>,
    client: Client,
    environment: Vec<(String, String)>,
}

impl Host {
    /// A host that is ready.
    pub fn start() -> Self {
        let mut host = Self::prepared();
        host.restart();
        host
    }

    /// Its folders, and no process yet.
    pub fn prepared() -> Self {
        let folder = tempfile::Builder::new().prefix("tidegate-test-").tempdir().expect("a folder for the host");
        std::fs::create_dir(folder.path().join("work")).expect("a working folder");
        let log = folder.path().join("host.log");
        Self { folder: Arc::new(folder), log, process: None, client: Client::new("not started"), environment: Vec::new() }
    }

    /// Another host on the same folders, not started yet.
    pub fn second(&self) -> Self {
        let log = self.folder.path().join("second.log");
        Self { folder: Arc::clone(&self.folder), log, process: None, client: Client::new("not started"), environment: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the host was started").id()
    }

    /// `STOP` and `CONT`, say.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(sent.expect("there is a kill command").success(), "kill -{signal} {}", self.pid());
    }

    /// For the next start, until it is cleared.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn clear_env(&mut self) {
        self.environment.clear();
    }

    /// Where the host keeps everything.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The working folder of the process: relative paths in jobs begin here.
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Starts the process and waits until it is ready.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Starts the process and does not wait for anything.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the host is running");
        let address = free_address();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("a log file");
        let errors = log.try_clone().expect("a second handle of the log");
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data").arg(self.data()).args(["--listen", &address]).current_dir(self.work());
        command
            .env_remove("TIDEGATE_CRASH_AT")
            .env_remove("TIDEGATE_TOKENS")
            .env_remove("TIDEGATE_TOKEN_FILE")
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.process = Some(command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", binary().display())));
        self.client = Client::new(&address);
    }

    pub fn wait_until_ready(&mut self) {
        let client = self.client.clone();
        let process = self.process.as_mut().expect("the host was started");
        until("the host is ready", START_LIMIT, || {
            if let Ok(Some(status)) = process.try_wait() {
                panic!("the host ended before it was ready: {status}");
            }
            let ready = client.try_get("/readyz")?;
            if ready.status == 200 { Ok(()) } else { Err(ready.to_string()) }
        });
    }

    /// `kill -9`. Whatever it was doing is left where it was.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the host was started");
        process.kill().expect("the process can be killed");
        process.wait().expect("the process ends");
    }

    /// Waits until the process has ended by itself.
    pub fn wait_for_exit(&mut self, limit: Duration) -> ExitStatus {
        let mut process = self.process.take().expect("the host was started");
        until("the host ends", limit, || {
            process.try_wait().expect("the process can be asked").ok_or_else(|| "it runs".to_owned())
        })
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.try_wait().expect("the process can be asked").is_some())
    }

    /// Asks the process to end, as a service manager does, and waits for it.
    pub fn terminate(&mut self) -> ExitStatus {
        let id = self.process.as_ref().expect("the host was started").id();
        let sent = Command::new("kill").args(["-TERM", &id.to_string()]).status().expect("there is a kill command");
        assert!(sent.success(), "kill -TERM {id}: {sent}");
        self.wait_for_exit(START_LIMIT)
    }

    /// Where the API is, as `--server` wants it.
    pub fn url(&self) -> &str {
        self.client.base()
    }

    fn log(&self) -> &Path {
        &self.log
    }

    /// All that the host has said so far, over all its lives.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; there is nobody to tell.
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log_text();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("---- the end of the host's log ----\n{}", lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n"));
            if std::env::var_os("TIDEGATE_KEEP").is_some() {
                eprintln!("---- kept: {} ----", self.folder.path().display());
                if let Some(folder) = Arc::get_mut(&mut self.folder) {
                    folder.disable_cleanup(true);
                }
            }
        }
    }
}

/// An address that was free a moment ago.
fn free_address() -> String {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.expect("a free port").to_string()
}
