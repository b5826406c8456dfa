//! The side of the host: starts workers, waits for them with a bound, and tells what became of them.

use super::{Answer, LENGTH_BYTES, SUBCOMMAND};
use crate::wasm::ModuleError;
use crate::wasm::inspect::Inspected;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_core::limits::{COMPILED_BYTES_MAX, COMPILERS_MAX, CompileLimits};

/// What is kept of a worker's last words.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// Between two looks at a worker that has not answered: short, because a small component takes tens of milliseconds.
const LOOK: Duration = Duration::from_millis(2);
/// The allocator takes address space in steps of this, and not of a GiB as it would by itself: what is reserved counts as taken.
const ALLOCATOR_STEP_KIB: &str = "32768";

/// Cheap to share; blocks.
pub struct CompileWorkers {
    program: PathBuf,
    limits: CompileLimits,
    at_work: Mutex<usize>,
    freed: Condvar,
}

impl CompileWorkers {
    /// Workers of the program that is running.
    pub fn new(limits: CompileLimits) -> io::Result<Self> {
        // The link leads to this very program, even when its file was replaced since.
        let link = PathBuf::from("/proc/self/exe");
        let program = if link.exists() { link } else { std::env::current_exe()? };
        Ok(Self::of(program, limits))
    }

    pub fn of(program: PathBuf, limits: CompileLimits) -> Self {
        Self { program, limits, at_work: Mutex::new(0), freed: Condvar::new() }
    }

    /// Compiles and checks a component. Waits for its turn.
    pub fn inspect(&self, component: &[u8], digest: &str) -> Result<Inspected, ModuleError> {
        let _turn = self.turn();
        let failed = |what: &'static str| move |error: io::Error| ModuleError::NoCompiler(format!("{what}: {error}"));
        let mut child = self.command().spawn().map_err(failed("start the worker"))?;
        let ended = converse(&mut child, component, Duration::from_secs(self.limits.wall_seconds_max()));
        let ended = ended.map_err(failed("talk to the worker"))?;
        let mut inspected = self.judge(ended)?;
        inspected.info.digest = digest.to_owned();
        Ok(inspected)
    }

    fn turn(&self) -> Turn<'_> {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        while *at_work >= COMPILERS_MAX {
            at_work = self.freed.wait(at_work).unwrap_or_else(PoisonError::into_inner);
        }
        *at_work += 1;
        Turn(self)
    }

    fn command(&self) -> Command {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let mut command = Command::new(&self.program);
        command
            .arg(SUBCOMMAND)
            .args(["--seconds", &self.limits.seconds_max.to_string()])
            .args(["--memory", &self.limits.memory_bytes_max.to_string()])
            .env_clear()
            .env("MIMALLOC_ARENA_RESERVE", ALLOCATOR_STEP_KIB)
            .env("RAYON_NUM_THREADS", threads.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// What the worker's end means.
    fn judge(&self, ended: Ended) -> Result<Inspected, ModuleError> {
        let too_long = ModuleError::CompileTooLong { seconds: self.limits.seconds_max };
        let too_large = ModuleError::CompileTooLarge { bytes: self.limits.memory_bytes_max };
        if ended.timed_out {
            return Err(too_long);
        }
        if ended.status.success() {
            return read_answer(ended.stdout).unwrap_or_else(|why| Err(ModuleError::CompilerCrashed(why)));
        }
        // The allocator's own words, and the system's: no memory, and no memory for the stack of a thread.
        if ["memory allocation of", "(os error 12)", "(os error 11)"].iter().any(|words| ended.stderr.contains(words)) {
            return Err(too_large);
        }
        Err(match signal(ended.status) {
            #[cfg(unix)]
            Some(libc::SIGXCPU) => too_long,
            // Not from here, or the hard limit of CPU time: whoever takes memory from processes sends this.
            #[cfg(unix)]
            Some(libc::SIGKILL) => {
                ModuleError::CompilerCrashed("something killed it, as the system does when memory runs out".to_owned())
            }
            Some(signal) => ModuleError::CompilerCrashed(format!("signal {signal}{}", last_words(&ended.stderr))),
            None => ModuleError::CompilerCrashed(format!("{}{}", ended.status, last_words(&ended.stderr))),
        })
    }
}

struct Turn<'a>(&'a CompileWorkers);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.at_work.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

/// A worker that is no more.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
    timed_out: bool,
}

/// Hands the component over, reads what comes, and waits for the end, or makes it.
fn converse(child: &mut Child, component: &[u8], patience: Duration) -> io::Result<Ended> {
    let (mut stdin, stdout, stderr) = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), Some(stderr)) => (stdin, stdout, stderr),
        _ => unreachable!("BUG: the worker has no pipes"),
    };
    let deadline = Instant::now() + patience;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A worker that has met a limit does not read to the end: its status says which.
            let _ = stdin.write_all(component);
        });
        let answer = scope.spawn(move || read_bounded(stdout, COMPILED_BYTES_MAX as u64));
        let words = scope.spawn(move || read_bounded(stderr, STDERR_BYTES_MAX));
        let mut timed_out = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            // Over its bound the reader is done while the worker still writes.
            if Instant::now() >= deadline && !timed_out {
                timed_out = true;
                child.kill()?;
            }
            std::thread::sleep(LOOK);
        };
        let read = |reader: std::thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            reader.join().unwrap_or_else(|_| Err(io::Error::other("BUG: a reader panicked")))
        };
        let (stdout, stderr) = (read(answer)?, read(words)?);
        Ok(Ended { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned(), timed_out })
    })
}

/// Keeps so many bytes and reads on to the end, so that nobody who writes has to wait.
fn read_bounded(mut from: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    from.by_ref().take(bytes_max).read_to_end(&mut kept)?;
    io::copy(&mut from, &mut io::sink())?;
    Ok(kept)
}

fn read_answer(mut stdout: Vec<u8>) -> Result<Result<Inspected, ModuleError>, String> {
    let cut_off = || "it ended without an answer".to_owned();
    let (length, rest) = stdout.split_first_chunk::<LENGTH_BYTES>().ok_or_else(cut_off)?;
    let json = rest.get(..u32::from_le_bytes(*length) as usize).ok_or_else(cut_off)?;
    let Answer(answer) = serde_json::from_slice(json).map_err(|error| format!("its answer can't be read: {error}"))?;
    let code_at = LENGTH_BYTES + json.len();
    let precompiled = stdout.split_off(code_at);
    Ok(answer.map(|info| Inspected { info, precompiled }))
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<i32> {
    None
}

fn last_words(stderr: &str) -> String {
    match stderr.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.chars().take(500).collect::<String>()),
        None => String::new(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that does what a worker may come to, in the place of one.
    fn worker(script: &str, limits: CompileLimits) -> (tempfile::TempDir, CompileWorkers) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (folder, CompileWorkers::of(path, limits))
    }

    fn error(script: &str) -> ModuleError {
        let (_folder, workers) = worker(script, CompileLimits::default());
        refusal(&workers)
    }

    /// Another test may be starting a process just when the program is written: until that one runs, this one is "busy".
    fn refusal(workers: &CompileWorkers) -> ModuleError {
        loop {
            match workers.inspect(&[7; 1 << 20], "d").err().expect("the worker fails") {
                ModuleError::NoCompiler(why) if why.contains("(os error 26)") => std::thread::yield_now(),
                error => return error,
            }
        }
    }

    #[test]
    fn every_end_of_a_worker_has_a_name() {
        let limits = CompileLimits::default();
        let crashed = |why: &str| ModuleError::CompilerCrashed(why.to_owned());
        for (script, expected) in [
            ("kill -XCPU $$", ModuleError::CompileTooLong { seconds: limits.seconds_max }),
            ("echo 'memory allocation of 77 bytes failed' >&2; kill -ABRT $$", too_large(limits)),
            ("echo 'mmap: Cannot allocate memory (os error 12)' >&2; exit 1", too_large(limits)),
            ("kill -SEGV $$", crashed("signal 11")),
            ("echo oops >&2; kill -BUS $$", crashed("signal 7: oops")),
            ("echo panicked >&2; exit 101", crashed("exit status: 101: panicked")),
            ("kill -KILL $$", crashed("something killed it, as the system does when memory runs out")),
            ("cat > /dev/null", crashed("it ended without an answer")),
            ("printf '\\377\\377\\377\\377{}'", crashed("it ended without an answer")),
        ] {
            assert_eq!(error(script), expected, "{script}");
        }
        assert!(
            matches!(error("printf '\\002\\000\\000\\000{}'"), ModuleError::CompilerCrashed(why) if why.contains("can't be read"))
        );
    }

    fn too_large(limits: CompileLimits) -> ModuleError {
        ModuleError::CompileTooLarge { bytes: limits.memory_bytes_max }
    }

    #[test]
    fn a_worker_that_does_nothing_is_killed_when_its_time_is_up() {
        let (_folder, mut workers) = worker("exec sleep 1000", CompileLimits::default());
        workers.limits = CompileLimits { seconds_max: 0, ..workers.limits };
        let mut child = workers.command().spawn().unwrap();
        let ended = converse(&mut child, b"", Duration::from_millis(20)).unwrap();
        assert_eq!(workers.judge(ended).err(), Some(ModuleError::CompileTooLong { seconds: 0 }));
    }

    #[test]
    fn a_program_that_is_not_there_is_no_fault_of_the_component() {
        let workers = CompileWorkers::of("/no/such/program".into(), CompileLimits::default());
        assert!(matches!(workers.inspect(b"", "d"), Err(ModuleError::NoCompiler(_))));
    }

    #[test]
    fn no_more_workers_run_at_once_than_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().display();
        // Each adds its mark, looks how many marks there are, and takes it away again.
        let script =
            format!("touch {lock}/$$; ls {lock} | wc -l >> {lock}/../counts-{}; sleep 0.05; rm {lock}/$$", std::process::id());
        let counts = folder.path().join(format!("../counts-{}", std::process::id()));
        let (_program, workers) = worker(&script, CompileLimits::default());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| refusal(&workers));
            }
        });
        let text = std::fs::read_to_string(&counts).unwrap();
        std::fs::remove_file(&counts).unwrap();
        let seen: Vec<usize> = text.lines().map(|line| line.trim().parse().unwrap()).collect();
        assert!(seen.len() == 8 && seen.iter().all(|at_once| (1..=COMPILERS_MAX).contains(at_once)), "{seen:?}");
    }
}
