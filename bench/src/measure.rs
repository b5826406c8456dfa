//! Clocks: wall time, CPU time and memory of a process, percentiles, and a line of progress a second.

use serde::Serialize;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Middle, tail and end of some durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// By nearest rank: each is a duration that was measured. None of nothing.
    pub fn of(samples_ms: &[f64]) -> Option<Self> {
        let mut sorted = samples_ms.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        let max = *sorted.last()?;
        Some(Self { p50: rank(50), p99: rank(99), max })
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system, all threads, those that ended included.
    pub cpu: Duration,
    pub rss_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("reading {path}: {cause}")]
pub struct UsageError {
    path: String,
    cause: String,
}

/// The kernel counts in hundredths of a second towards programs, whatever it uses itself. Runs of seconds are measured with it.
const TICKS_PER_SECOND: u64 = 100;

impl Usage {
    pub fn of_this_process() -> Result<Self, UsageError> {
        Self::read("self")
    }

    pub fn of_process(pid: u32) -> Result<Self, UsageError> {
        Self::read(&pid.to_string())
    }

    fn read(process: &str) -> Result<Self, UsageError> {
        let read = |file: &str| {
            let path = Path::new("/proc").join(process).join(file);
            let error = |cause: String| UsageError { path: path.display().to_string(), cause };
            std::fs::read_to_string(&path).map_err(|cause| error(cause.to_string())).map(|text| (text, path.clone()))
        };
        let (stat, stat_path) = read("stat")?;
        let (status, status_path) = read("status")?;
        let unreadable =
            |path: &Path| UsageError { path: path.display().to_string(), cause: "not in the form of proc(5)".to_string() };
        Ok(Self {
            cpu: cpu(&stat).ok_or_else(|| unreadable(&stat_path))?,
            rss_bytes: rss(&status).ok_or_else(|| unreadable(&status_path))?,
        })
    }
}

fn cpu(stat: &str) -> Option<Duration> {
    // The second field is the program's name in brackets, and may hold anything, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

fn rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Wall and CPU time of this process from `start` on. What an engine in another process uses, it reads itself.
pub struct Stopwatch {
    start: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub fn start() -> Result<Self, UsageError> {
        let cpu = Usage::of_this_process()?.cpu;
        Ok(Self { start: Instant::now(), cpu })
    }

    /// Seconds and CPU seconds.
    pub fn read(&self) -> Result<(f64, f64), UsageError> {
        let seconds = self.start.elapsed().as_secs_f64();
        let cpu = Usage::of_this_process()?.cpu.saturating_sub(self.cpu);
        Ok((seconds, cpu.as_secs_f64()))
    }
}

/// Tells on stderr how far a run is, at most once a second.
pub struct Progress {
    title: String,
    start: Instant,
    told: Option<Instant>,
    terminal: bool,
}

impl Progress {
    pub fn new(title: String) -> Self {
        Self { title, start: Instant::now(), told: None, terminal: std::io::stderr().is_terminal() }
    }

    /// Call as often as you like.
    pub fn records(&mut self, records: u64) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.tell(&format!("{seconds:.0} s, {:.1} M records", records as f64 / 1e6));
    }

    pub fn phase(&mut self, phase: &str) {
        self.told = None;
        self.tell(phase);
    }

    fn tell(&mut self, what: &str) {
        if self.told.is_some_and(|told| told.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.told = Some(Instant::now());
        // A terminal keeps one line of it.
        if self.terminal { eprint!("\r\x1b[K{}: {what}", self.title) } else { eprintln!("{}: {what}", self.title) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.told.is_some() {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values_by_nearest_rank() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(Percentiles::of(&samples), Some(Percentiles { p50: 100.0, p99: 198.0, max: 200.0 }));
        assert_eq!(Percentiles::of(&[7.0]), Some(Percentiles { p50: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(Percentiles::of(&[2.0, 1.0]), Some(Percentiles { p50: 1.0, p99: 2.0, max: 2.0 }));
        assert_eq!(Percentiles::of(&[]), None);
    }

    #[test]
    fn cpu_is_read_past_a_name_with_brackets() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 7 7 20 0 9 0 100 1000000 500 18446744073709551615";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("42 (x) S 1"), None);
        assert_eq!(rss("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(rss("Name:\tx\n"), None);
    }

    #[test]
    fn work_of_all_threads_shows_in_the_cpu_time() {
        let watch = Stopwatch::start().expect("/proc");
        let spin = || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(300) {
                std::hint::spin_loop();
            }
        };
        // Ended threads count too.
        std::thread::scope(|scope| {
            scope.spawn(spin);
        });
        let (seconds, cpu) = watch.read().expect("/proc");
        assert!(seconds >= 0.3);
        assert!(cpu > 0.05, "{cpu}");
        assert!(Usage::of_this_process().expect("/proc").rss_bytes > 1 << 20);
        assert!(!Usage::of_process(std::process::id()).expect("/proc").cpu.is_zero());
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let error = Usage::of_process(u32::MAX).expect_err("no such process");
        assert!(error.to_string().starts_with("reading /proc/4294967295/stat"), "{error}");
    }
}
