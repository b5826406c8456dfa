//! The file source: options, splits and who owns them, and the reader that goes from file to file.
//!
//! Each file is a split, named by its path as the job gives it. A split belongs to task hash(name) % parallelism. A bounded reader
//! reads its files one after the other in the order of their names; one that follows goes round all that have something new, and
//! looks for new files now and then.

use super::super::event_time::EventTime;
use super::super::options::OptionReader;
use super::super::{BatchLimits, ConnectorContext, ConnectorError, Source, SourceBatch, SourceReader, SourceStatus};
use super::input::{Compression, vanished};
use super::listing::{self, Listed};
use super::replay::{Gate, ReplayClock};
use super::split::{FileSplit, Format, Polled, ReadOptions};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::checkpoint::{CheckpointId, SplitSnapshot};
use tidegate_core::job_graph::spec::SourceSpec;
use tidegate_core::key_group;
use tidegate_core::limits::RowLimits;
use tidegate_core::problem::Problem;

/// New files are found, and gone ones missed, after this time.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at files that had nothing new; longer where there are many.
const IDLE_WAIT: Duration = Duration::from_millis(10);
const IDLE_WAIT_MAX: Duration = Duration::from_millis(500);
/// Files that a reader keeps open while they are idle.
const OPEN_FILES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Earliest,
    Latest,
}

pub struct FileSourceOptions {
    path: String,
    start: Start,
    replay_speed: Option<f64>,
    read: ReadOptions,
}

impl FileSourceOptions {
    pub fn parse(spec: &SourceSpec) -> Result<Self, Vec<Problem>> {
        let mut reader = OptionReader::new("source", &spec.name, &spec.options);
        let path = reader.required_text("path", "a file, a folder, or a pattern with `*`").unwrap_or_default();
        let formats = [("lines", "lines"), ("json", "json"), ("csv", "csv"), ("raw", "raw")];
        let format = reader.choice("format", &formats).unwrap_or("lines");
        let compressions = [("auto", Compression::Auto), ("none", Compression::None), ("gzip", Compression::Gzip)];
        let compression = reader.choice("compression", &compressions).unwrap_or(Compression::Auto);
        let follow = reader.flag("follow", false);
        let start = reader.choice("start", &[("earliest", Start::Earliest), ("latest", Start::Latest)]);
        if follow && !reader.has("start") {
            reader.refuse("start", "must be chosen with follow = true: `earliest` (all there is) or `latest` (what comes)");
        }
        if start == Some(Start::Latest) && !follow {
            reader.refuse("start", "without follow = true there is nothing to read after the end");
        }
        if start == Some(Start::Latest) && compression == Compression::Gzip {
            reader.refuse("start", "the end of a gzip file is not known without reading it; only `earliest` works");
        }
        let replay_speed = reader.positive("replay_speed");
        let watermark_field = spec.watermark.as_ref().and_then(|watermark| watermark.field.clone());
        if replay_speed.is_some() && watermark_field.is_none() {
            reader.refuse("replay_speed", "needs watermark.field: that is the time to play back");
        }
        let header = reader.flag("header", true);
        let delimiter = reader.text("delimiter");
        let infer = reader.choice("types", &[("infer", true), ("text", false)]).unwrap_or(true);
        let delimiter = match delimiter.as_deref() {
            None => b',',
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => *byte,
                _ => {
                    reader.refuse("delimiter", "must be one ASCII character, and neither a quote nor a newline");
                    b','
                }
            },
        };
        if format != "csv" {
            for key in ["header", "delimiter", "types"] {
                if reader.has(key) {
                    reader.refuse(key, "applies to format = \"csv\" only");
                }
            }
        }
        let event_time = EventTime::new(watermark_field);
        let mut problems = reader.finish();
        if let Err(message) = &event_time {
            let field = spec.watermark.as_ref().and_then(|watermark| watermark.field.clone());
            problems.push(Problem::new(format!("source.{}.watermark.field", spec.name), field, message.clone()));
        }
        let (true, Ok(event_time)) = (problems.is_empty(), event_time) else { return Err(problems) };
        let format = match format {
            "json" => Format::Json,
            "csv" => Format::Csv { header, delimiter, infer },
            "raw" => Format::Raw,
            _ => Format::Lines,
        };
        let value_bytes_max = RowLimits::default().value_bytes_max;
        let read = ReadOptions { format, compression, follow, event_time, value_bytes_max };
        Ok(Self { path, start: start.unwrap_or(Start::Earliest), replay_speed, read })
    }
}

pub struct FileSource {
    base: PathBuf,
    path: String,
    start: Start,
    read: Arc<ReadOptions>,
    clock: Option<Arc<ReplayClock>>,
}

impl FileSource {
    pub fn build(spec: &SourceSpec, context: &ConnectorContext) -> Result<Self, Vec<Problem>> {
        let options = FileSourceOptions::parse(spec)?;
        Ok(Self {
            base: context.base.clone(),
            path: options.path,
            start: options.start,
            read: Arc::new(options.read),
            clock: options.replay_speed.map(|speed| Arc::new(ReplayClock::new(speed))),
        })
    }

    /// Lower bounds make what happens at them testable.
    #[cfg(test)]
    pub(super) fn with_value_bytes_max(mut self, bytes: usize) -> Self {
        Arc::get_mut(&mut self.read).expect("not yet shared").value_bytes_max = bytes;
        self
    }

    fn listed(&self) -> Result<Vec<Listed>, ConnectorError> {
        list(&self.base, &self.path)
    }

    /// The split of a checkpoint as a file: it must be there, and it must be one of this source's.
    fn restore(&self, snapshot: &SplitSnapshot, listed: &HashSet<&str>) -> Result<FileSplit, ConnectorError> {
        let path = self.base.join(&snapshot.split);
        let mut split = FileSplit::restore(snapshot, path.clone())?;
        // What a bounded run has read to its end may have grown since.
        split.position.done &= !self.read.follow || self.read.format == Format::Raw;
        if listed.contains(snapshot.split.as_str()) || split.position.done {
            return Ok(split);
        }
        if path.exists() {
            return Err(ConnectorError::fatal(
                format!("restoring split {}", snapshot.split),
                format!("the checkpoint has read this file, and the source's path is now {}", self.path),
                "set the path back, or start the job fresh",
            ));
        }
        Err(vanished(&path, split.position.offset))
    }
}

fn list(base: &std::path::Path, pattern: &str) -> Result<Vec<Listed>, ConnectorError> {
    listing::list(base, pattern)
        .map_err(|error| ConnectorError::retry(format!("listing {} below {}", pattern, base.display()), error))
}

fn owner(name: &str, parallelism: u32) -> u32 {
    (key_group::hash(name.as_bytes()) % u64::from(parallelism)) as u32
}

impl Source for FileSource {
    fn open(&self, task: u32, parallelism: u32, restored: &[SplitSnapshot]) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let listed = self.listed()?;
        if listed.is_empty() && restored.is_empty() && !self.read.follow && !self.base.join(&self.path).is_dir() {
            return Err(ConnectorError::fatal(
                format!("reading {}", self.base.join(&self.path).display()),
                "there is no such file",
                "correct the source's path, or set follow = true to wait for it",
            ));
        }
        let names: HashSet<&str> = listed.iter().map(|file| file.name.as_str()).collect();
        let mut splits = Vec::new();
        for snapshot in restored.iter().filter(|snapshot| owner(&snapshot.split, parallelism) == task) {
            splits.push(self.restore(snapshot, &names)?);
        }
        let known: HashSet<Arc<str>> = splits.iter().map(|split| Arc::clone(&split.name)).collect();
        for file in &listed {
            if owner(&file.name, parallelism) != task || known.contains(file.name.as_str()) {
                continue;
            }
            let mut split = FileSplit::new(file.name.clone(), file.path.clone());
            if self.start == Start::Latest && restored.is_empty() {
                split.start_at_end(&self.read)?;
            }
            splits.push(split);
        }
        splits.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Box::new(FileReader {
            base: self.base.clone(),
            path: self.path.clone(),
            task,
            parallelism,
            read: Arc::clone(&self.read),
            clock: self.clock.clone(),
            registered: false,
            splits,
            current: 0,
            next_scan: Instant::now() + SCAN_INTERVAL,
        }))
    }

    fn is_replayable(&self) -> bool {
        true
    }
}

struct FileReader {
    base: PathBuf,
    path: String,
    task: u32,
    parallelism: u32,
    read: Arc<ReadOptions>,
    clock: Option<Arc<ReplayClock>>,
    /// This reader's first record has set the clock.
    registered: bool,
    splits: Vec<FileSplit>,
    current: usize,
    next_scan: Instant,
}

impl FileReader {
    fn poll_bounded(&mut self, batch: &mut SourceBatch, limits: BatchLimits) -> Result<SourceStatus, ConnectorError> {
        let mut gate = self.clock.as_deref().map(|clock| Gate::new(clock, &mut self.registered));
        while let Some(split) = self.splits.get_mut(self.current) {
            if split.position.done {
                self.current += 1;
                continue;
            }
            return match split.poll(&self.read, limits, &mut gate, batch)? {
                Polled::More => Ok(SourceStatus::More),
                Polled::Due(wait) => Ok(SourceStatus::Wait(wait.min(SCAN_INTERVAL))),
                Polled::Ended | Polled::AtEnd => {
                    batch.split_ended = true;
                    Ok(SourceStatus::More)
                }
            };
        }
        Ok(SourceStatus::End)
    }

    fn poll_following(&mut self, batch: &mut SourceBatch, limits: BatchLimits) -> Result<SourceStatus, ConnectorError> {
        let now = Instant::now();
        if now >= self.next_scan {
            self.scan()?;
            self.next_scan = now + SCAN_INTERVAL;
        }
        let mut gate = self.clock.as_deref().map(|clock| Gate::new(clock, &mut self.registered));
        let mut wait = (IDLE_WAIT * (1 + self.splits.len() as u32 / OPEN_FILES_MAX as u32)).min(IDLE_WAIT_MAX);
        for _ in 0..self.splits.len() {
            let index = self.current % self.splits.len();
            let many = self.splits.len() > OPEN_FILES_MAX;
            let split = &mut self.splits[index];
            let polled = split.poll(&self.read, limits, &mut gate, batch)?;
            if many && polled == Polled::AtEnd {
                split.close();
            }
            self.current = index + 1;
            if polled == Polled::More || !batch.rows.is_empty() || !batch.bad.is_empty() {
                return Ok(SourceStatus::More);
            }
            if let Polled::Due(due) = polled {
                wait = wait.min(due);
            }
            batch.clear();
        }
        Ok(SourceStatus::Wait(wait))
    }

    /// Looks for new files, and after those that are known.
    fn scan(&mut self) -> Result<(), ConnectorError> {
        for split in self.splits.iter().filter(|split| !split.position.done) {
            split.verify()?;
        }
        let known: HashSet<Arc<str>> = self.splits.iter().map(|split| Arc::clone(&split.name)).collect();
        for file in list(&self.base, &self.path)? {
            if owner(&file.name, self.parallelism) == self.task && !known.contains(file.name.as_str()) {
                self.splits.push(FileSplit::new(file.name, file.path));
            }
        }
        Ok(())
    }
}

impl SourceReader for FileReader {
    fn poll(&mut self, batch: &mut SourceBatch, limits: BatchLimits) -> Result<SourceStatus, ConnectorError> {
        if self.read.follow { self.poll_following(batch, limits) } else { self.poll_bounded(batch, limits) }
    }

    fn snapshot(&mut self) -> Vec<SplitSnapshot> {
        self.splits.iter().map(FileSplit::snapshot).collect()
    }

    /// Nobody outside is told.
    fn checkpoint_committed(&mut self, _checkpoint: CheckpointId) {}
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
