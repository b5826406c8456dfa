//! The file sink's job side: commit, abort and recovery of staged files.
//!
//! Invariants:
//! * a visible file is whole, decided, and never written again;
//! * `commit` decides nothing: it looks at what is there and finishes it, as often as it is called;
//! * what can't be explained (both names missing, a visible file that is another) is an error that says what to do, because the
//!   alternative is lost or doubled output.

use super::super::options::OptionReader;
use super::super::row_text::{FORMATS, RowText};
use super::super::{ConnectorContext, ConnectorError, Sink, SinkWriter, Visible};
use super::staging::{FileWriter, Place, Staged};
use crate::fault::{self, Fault, io_step};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_core::checkpoint::{CheckpointId, Committable};
use tidegate_core::job_graph::spec::{Delivery, SinkSpec};
use tidegate_core::limits::NAME_BYTES_MAX;
use tidegate_core::problem::Problem;

/// Commits whose markers are kept: recovery asks for the last few at most.
const MARKED_COMMITS: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSinkOptions {
    path: String,
    format: RowText,
    prefix: String,
    suffix: String,
    gzip: bool,
}

impl FileSinkOptions {
    pub fn parse(spec: &SinkSpec) -> Result<Self, Vec<Problem>> {
        let mut reader = OptionReader::new("sink", &spec.name, &spec.options);
        let path = reader.required_text("path", "the folder to write to").unwrap_or_default();
        let format = reader.choice("format", &FORMATS).unwrap_or(RowText::Lines);
        let gzip = reader.choice("compression", &[("none", false), ("gzip", true)]).unwrap_or(false);
        let prefix = reader.text("prefix");
        let suffix = reader.text("suffix");
        for (key, value) in [("prefix", &prefix), ("suffix", &suffix)] {
            if value.as_deref().is_some_and(|value| !is_name_part(value.trim_start_matches('.')) || value.len() > NAME_BYTES_MAX)
            {
                reader
                    .refuse(key, format!("becomes part of file names: letters, digits, `.`, `_`, `-`, at most {NAME_BYTES_MAX}"));
            }
        }
        if prefix.as_deref().is_some_and(|prefix| prefix.starts_with('.')) {
            reader.refuse("prefix", "must not begin with a dot: hidden files are not read by file sources");
        }
        let problems = reader.finish();
        if !problems.is_empty() {
            return Err(problems);
        }
        let default_suffix = match format {
            RowText::Lines => "txt",
            RowText::JsonEnvelope => "jsonl",
            RowText::Rows => "rows",
        };
        let mut suffix = suffix.unwrap_or_else(|| default_suffix.to_owned()).trim_start_matches('.').to_owned();
        if gzip && !suffix.ends_with("gz") {
            suffix.push_str(".gz");
        }
        Ok(Self { path, format, prefix: prefix.unwrap_or_else(|| spec.name.clone()), suffix, gzip })
    }
}

fn is_name_part(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

pub struct FileSink {
    place: Arc<Place>,
    /// Markers of the last commits, oldest first.
    markers: Mutex<VecDeque<Vec<String>>>,
}

impl FileSink {
    pub fn build(spec: &SinkSpec, context: &ConnectorContext) -> Result<Self, Vec<Problem>> {
        let options = FileSinkOptions::parse(spec)?;
        Ok(Self::new(Place {
            folder: context.base.join(options.path),
            job_id: context.job_id.clone(),
            node: context.node.clone(),
            prefix: options.prefix,
            suffix: options.suffix,
            format: options.format,
            gzip: options.gzip,
        }))
    }

    pub fn new(place: Place) -> Self {
        assert!(is_name_part(&place.job_id), "BUG: job id {} can't be part of a file name", place.job_id);
        Self { place: Arc::new(place), markers: Mutex::default() }
    }

    pub fn writer(&self, task: u32) -> Result<FileWriter, ConnectorError> {
        FileWriter::new(Arc::clone(&self.place), task)
    }

    fn parse(&self, committable: &Committable) -> Result<Staged, ConnectorError> {
        let staged: Staged =
            serde_json::from_value(committable.clone()).map_err(|error| self.not_ours(committable, &error.to_string()))?;
        let is_plain = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name);
        if !is_plain(&staged.staged) || !is_plain(&staged.visible) || !self.place.owns(&staged.staged) {
            return Err(self.not_ours(committable, "the names are not those of this job and sink"));
        }
        Ok(staged)
    }

    fn not_ours(&self, committable: &Committable, cause: &str) -> ConnectorError {
        ConnectorError::fatal(
            format!("sink {}: reading the committable {committable}", self.place.node),
            cause,
            "the checkpoint was made by another sink of this name; start fresh or from another savepoint",
        )
    }

    /// Looks at both names and finishes what is to be done.
    fn settle(&self, file: &Staged) -> Result<(), ConnectorError> {
        let (staged, visible) = (self.place.staging().join(&file.staged), self.place.folder.join(&file.visible));
        match (self.length(&staged)?, self.length(&visible)?) {
            (Some(bytes), None) if bytes == file.bytes => {
                io_step::io("file: rename", || std::fs::rename(&staged, &visible))
                    .map_err(|error| self.place.failed("renaming", &staged, &error))
            }
            (Some(bytes), None) => Err(self.refuse(
                file,
                format!("the staged file {} has {bytes} bytes, {} were written", staged.display(), file.bytes),
                "the disk lost what it had confirmed, or somebody wrote to the file; restore it, or start from an older savepoint",
            )),
            (None, Some(bytes)) if bytes == file.bytes => Ok(()),
            (Some(_), Some(bytes)) if bytes == file.bytes && self.crc32c(&visible)? == file.crc32c => {
                io_step::io("file: remove", || std::fs::remove_file(&staged))
                    .map_err(|error| self.place.failed("removing", &staged, &error))
            }
            (_, Some(bytes)) => Err(self.refuse(
                file,
                format!("{} exists and is another file ({bytes} bytes, {} were to be committed)", visible.display(), file.bytes),
                "move that file away, or give the sink a folder or prefix of its own, and start the job again",
            )),
            (None, None) if self.place.staging().join(Place::marker_name(&file.staged)).exists() => Ok(()),
            (None, None) => Err(self.refuse(
                file,
                format!("neither the staged file {} nor {} is there, so decided output is missing", staged.display(), visible.display()),
                "put the file back under either name; if its content was taken away on purpose, start the job fresh or from a savepoint",
            )),
        }
    }

    fn refuse(&self, file: &Staged, cause: String, remedy: &str) -> ConnectorError {
        ConnectorError::fatal(
            format!("sink {}: committing {} rows to {}", self.place.node, file.rows, file.visible),
            cause,
            remedy,
        )
    }

    fn length(&self, path: &Path) -> Result<Option<u64>, ConnectorError> {
        match io_step::io("file: stat", || std::fs::metadata(path)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.place.failed("looking at", path, &error)),
        }
    }

    fn crc32c(&self, path: &Path) -> Result<u32, ConnectorError> {
        let mut file = std::fs::File::open(path).map_err(|error| self.place.failed("opening", path, &error))?;
        let (mut crc32c, mut chunk) = (0, vec![0; 64 << 10]);
        loop {
            match std::io::Read::read(&mut file, &mut chunk) {
                Ok(0) => return Ok(crc32c),
                Ok(read) => crc32c = crc32c::crc32c_append(crc32c, &chunk[..read]),
                Err(error) => return Err(self.place.failed("reading", path, &error)),
            }
        }
    }

    /// Leaves a note that these are committed, so that a consumer may take the visible files away: a recovery that finds neither
    /// name would otherwise have to take them for lost. Not fsynced: after a power cut the question comes up again, that is all.
    fn mark(&self, files: &[Staged]) -> Result<(), ConnectorError> {
        let staging = self.place.staging();
        let names: Vec<String> = files.iter().map(|file| Place::marker_name(&file.staged)).collect();
        for name in &names {
            let path = staging.join(name);
            io_step::io("file: write marker", || std::fs::write(&path, b""))
                .map_err(|error| self.place.failed("writing", &path, &error))?;
        }
        let mut markers = self.markers.lock().unwrap_or_else(PoisonError::into_inner);
        markers.push_back(names);
        while markers.len() > MARKED_COMMITS {
            for name in markers.pop_front().unwrap_or_default() {
                if !markers.iter().any(|kept| kept.contains(&name)) {
                    self.remove(&staging.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Names in `.staging` that belong to this job and sink.
    fn staged(&self) -> Result<Vec<String>, ConnectorError> {
        Ok(self.names_in(&self.place.staging())?.into_iter().filter(|name| self.place.owns(name)).collect())
    }

    fn visible_of(&self, epochs: &Range<CheckpointId>) -> Result<Vec<String>, ConnectorError> {
        if epochs.is_empty() {
            return Ok(Vec::new());
        }
        let is_one = |name: &String| self.place.visible_epoch(name).is_some_and(|epoch| epochs.contains(&epoch));
        Ok(self.names_in(&self.place.folder)?.into_iter().filter(is_one).collect())
    }

    /// Sorted. A folder that is not there has none, and a name that is not UTF-8 is none of ours.
    fn names_in(&self, folder: &Path) -> Result<Vec<String>, ConnectorError> {
        let failed = |error: std::io::Error| self.place.failed("listing", folder, &error);
        let entries = match io_step::io("file: list", || std::fs::read_dir(folder)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry.map_err(failed)?.file_name().to_str().map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, path: &Path) -> Result<(), ConnectorError> {
        match io_step::io("file: remove", || std::fs::remove_file(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.place.failed("removing", path, &error)),
            _ => Ok(()),
        }
    }
}

impl Sink for FileSink {
    fn open(&self, task: u32, _parallelism: u32) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(self.writer(task)?))
    }

    fn commit(&self, committables: &[Committable]) -> Result<(), ConnectorError> {
        if committables.is_empty() {
            return Ok(());
        }
        let files: Vec<Staged> = committables.iter().map(|committable| self.parse(committable)).collect::<Result<_, _>>()?;
        for (number, file) in files.iter().enumerate() {
            if number > 0 {
                fault::point(Fault::OneFileCommittedRestNot);
            }
            self.settle(file)?;
        }
        // Should the old name come back after a power cut, it is found beside the new one and removed: one fsync is enough.
        self.place.sync_folder(&self.place.folder)?;
        self.mark(&files)
    }

    fn abort(&self, committables: &[Committable]) -> Result<(), ConnectorError> {
        for committable in committables {
            let file = self.parse(committable)?;
            self.remove(&self.place.staging().join(file.staged))?;
        }
        Ok(())
    }

    fn recover(&self, decided: &[Committable], first: CheckpointId) -> Result<(), ConnectorError> {
        self.commit(decided)?;
        let mut keep = HashSet::new();
        for committable in decided {
            keep.insert(Place::marker_name(&self.parse(committable)?.staged));
        }
        let mut markers: BTreeMap<CheckpointId, Vec<String>> = BTreeMap::new();
        for name in self.staged()? {
            let epoch = self.place.staged_parts(&name).map(|(_, epoch)| epoch);
            match (epoch, Place::marked(&name)) {
                // A successor's, which has taken the job over and did not tell us.
                (Some(epoch), _) if epoch >= first => {}
                (Some(epoch), Some(_)) => markers.entry(epoch).or_default().push(name),
                _ if keep.contains(&name) => {}
                _ => self.remove(&self.place.staging().join(&name))?,
            }
        }
        // The last ones stay: a step back asks them what was visible once.
        while markers.len() > MARKED_COMMITS {
            let (_, names) = markers.pop_first().expect("BUG: it has more than one");
            for name in names.iter().filter(|name| !keep.contains(*name)) {
                self.remove(&self.place.staging().join(name))?;
            }
        }
        *self.markers.lock().unwrap_or_else(PoisonError::into_inner) = markers.into_values().collect();
        match self.place.staging().is_dir() {
            true => self.place.sync_folder(&self.place.staging()),
            false => Ok(()),
        }
    }

    fn visible(&self, epochs: Range<CheckpointId>, named: &[Committable]) -> Result<Visible, ConnectorError> {
        let there: BTreeSet<String> = self.visible_of(&epochs)?.into_iter().collect();
        let staged: BTreeSet<String> = self.staged()?.into_iter().collect();
        let mut gone = BTreeSet::new();
        for name in &staged {
            let Some(marked) = Place::marked(name) else { continue };
            if let Some((task, epoch)) = self.place.staged_parts(marked).filter(|(_, epoch)| epochs.contains(epoch)) {
                gone.insert(self.place.visible_name(task, epoch));
            }
        }
        for committable in named {
            let file = self.parse(committable)?;
            let is_newer = self.place.staged_parts(&file.staged).is_some_and(|(_, epoch)| epochs.contains(&epoch));
            if is_newer && !staged.contains(&file.staged) {
                gone.insert(file.visible);
            }
        }
        gone.retain(|name| !there.contains(name));
        Ok(Visible { there: there.into_iter().collect(), gone: gone.into_iter().collect() })
    }

    /// They are moved into a hidden folder: nobody loses a byte by a step back.
    fn retract(&self, epochs: Range<CheckpointId>) -> Result<Vec<String>, ConnectorError> {
        let names = self.visible_of(&epochs)?;
        let retracted = self.place.retracted();
        if !names.is_empty() {
            io_step::io("file: create folder", || std::fs::create_dir_all(&retracted))
                .map_err(|error| self.place.failed("creating", &retracted, &error))?;
        }
        for name in &names {
            let path = self.place.folder.join(name);
            io_step::io("file: rename", || std::fs::rename(&path, retracted.join(name)))
                .map_err(|error| self.place.failed("taking back", &path, &error))?;
        }
        for marker in self.staged()?.iter().filter(|name| Place::marked(name).is_some()) {
            if self.place.staged_parts(marker).is_some_and(|(_, epoch)| epochs.contains(&epoch)) {
                self.remove(&self.place.staging().join(marker))?;
            }
        }
        if !names.is_empty() {
            self.place.sync_folder(&retracted)?;
            self.place.sync_folder(&self.place.folder)?;
        }
        Ok(names)
    }

    fn strongest(&self) -> Delivery {
        Delivery::ExactlyOnce
    }
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
