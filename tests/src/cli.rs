//! The command line, as people and scripts use it.

use crate::host::binary;
use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// No command of a test runs for longer.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Tidegate(Command);

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Finished {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n---- stdout ----\n{}---- stderr ----\n{}", self.code, self.output, self.errors)
    }
}

/// A call of the program, in an environment that knows no server and no crash.
pub fn tidegate() -> Tidegate {
    let mut command = Command::new(binary());
    for name in ["TIDEGATE_SERVER", "TIDEGATE_DATA", "TIDEGATE_CRASH_AT", "TIDEGATE_LOG", "TIDEGATE_TOKEN", "TIDEGATE_TOKEN_FILE"]
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Tidegate(command)
}

impl Tidegate {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.0.args(args);
        self
    }

    /// Runs it to its end.
    pub fn finish(mut self) -> Finished {
        let mut process = self.0.spawn().unwrap_or_else(|error| panic!("{:?} does not start: {error}", self.0));
        // Read on threads: a full pipe would stop the process.
        let read = |mut pipe: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                // What was read before an error is told.
                let _ = pipe.read_to_end(&mut bytes);
                String::from_utf8_lossy(&bytes).into_owned()
            })
        };
        let output = read(Box::new(process.stdout.take().expect("is piped")));
        let errors = read(Box::new(process.stderr.take().expect("is piped")));
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = process.try_wait().expect("the process can be asked") {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                let _ = process.kill();
                let _ = process.wait();
                panic!("{:?} did not end within {PATIENCE:?}: {}", self.0, errors.join().expect("reads"));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |thread: std::thread::JoinHandle<String>| thread.join().expect("reads");
        Finished { code: status.code().unwrap_or(-1), output: text(output), errors: text(errors) }
    }
}
