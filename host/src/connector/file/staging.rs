//! Staged files: written in `.staging` under names of their own, made durable at the barrier, and moved by a rename after the
//! decision.
//!
//! ```text
//!  first row ─► .staging/<job id>~<sink>~<task>~<epoch>~<nonce>          (created, never appended to by anyone else)
//!  pre-commit ─► fsync of the file and of .staging                        (durable, still reversible)
//!  decided ─► rename to <prefix>-<task>-<epoch>-<job id>.<suffix>, fsync  (visible)
//! ```
//!
//! Invariants:
//! * a staged file has one writer for ever: its name holds a nonce of that writer, so a predecessor that is still running can't
//!   reach it;
//! * a visible name depends on task, epoch and job id alone, so committing again finds what the first time left.

use super::super::row_text::RowText;
use super::super::{ConnectorError, PreCommit, SinkWriter};
use crate::disk;
use crate::fault::io_step;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_core::checkpoint::{CheckpointId, Committable};
use tidegate_core::row::Rows;

/// What is gathered before it goes to the kernel.
const BUFFER_BYTES: usize = 256 << 10;
const STAGING: &str = ".staging";
/// Hidden, so no reader takes what is in it for output.
const RETRACTED: &str = ".retracted";
/// Parts of a staged name stand apart by this; job ids and names of sinks do not have it.
const SEPARATOR: char = '~';
/// Says that a staged file was committed: its visible file may be taken away by whoever reads the folder.
const COMMITTED: &str = ".committed";

/// Where a sink writes, and under which names.
#[derive(Debug, Clone)]
pub struct Place {
    pub folder: PathBuf,
    pub job_id: String,
    pub node: String,
    pub prefix: String,
    /// Without the dot.
    pub suffix: String,
    pub format: RowText,
    pub gzip: bool,
}

impl Place {
    pub fn staging(&self) -> PathBuf {
        self.folder.join(STAGING)
    }

    fn owner(&self) -> String {
        format!("{}{SEPARATOR}{}{SEPARATOR}", self.job_id, self.node)
    }

    /// Whether an entry of `.staging` was made by a writer of this job and sink.
    pub fn owns(&self, staged: &str) -> bool {
        staged.starts_with(&self.owner())
    }

    fn staged_name(&self, task: u32, epoch: CheckpointId, nonce: u64) -> String {
        format!("{}{task:03}{SEPARATOR}{epoch:08}{SEPARATOR}{nonce:016x}", self.owner())
    }

    fn final_name(&self, task: u32, epoch: CheckpointId) -> String {
        let job: String = self.job_id.chars().take(8).collect();
        format!("{}-{task:03}-{epoch:08}-{job}.{}", self.prefix, self.suffix)
    }

    /// Task and epoch of an entry of `.staging`, be it a staged file or the marker of one.
    pub fn staged_parts(&self, staged: &str) -> Option<(u32, CheckpointId)> {
        let mut parts = staged.strip_prefix(&self.owner())?.split(SEPARATOR);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// The epoch of a visible file, if it is one of this job and sink. Its ending may have been another then.
    pub fn visible_epoch(&self, name: &str) -> Option<CheckpointId> {
        let mut parts = name.strip_prefix(&self.prefix)?.strip_prefix('-')?.splitn(3, '-');
        let (task, epoch, rest) = (parts.next()?, parts.next()?, parts.next()?);
        let is_number = |text: &str, digits| text.len() >= digits && text.bytes().all(|byte| byte.is_ascii_digit());
        let job: String = self.job_id.chars().take(8).collect();
        let is_ours =
            is_number(task, 3) && is_number(epoch, 8) && rest.strip_prefix(&job).is_some_and(|rest| rest.starts_with('.'));
        epoch.parse().ok().filter(|_| is_ours)
    }

    pub fn visible_name(&self, task: u32, epoch: CheckpointId) -> String {
        self.final_name(task, epoch)
    }

    /// The staged name that a marker speaks of.
    pub fn marked(name: &str) -> Option<&str> {
        name.strip_suffix(COMMITTED)
    }

    /// Where files go that were taken back.
    pub fn retracted(&self) -> PathBuf {
        self.folder.join(RETRACTED)
    }

    pub fn marker_name(staged: &str) -> String {
        format!("{staged}{COMMITTED}")
    }

    pub fn failed(&self, what: &str, path: &Path, error: &std::io::Error) -> ConnectorError {
        let remedy = disk::remedy(error).map(str::to_owned);
        ConnectorError { remedy, ..ConnectorError::retry(format!("sink {}: {what} {}", self.node, path.display()), error) }
    }

    /// Creates the folders, and makes sure that they are still there after a power cut.
    pub fn create_folders(&self) -> Result<(), ConnectorError> {
        let staging = self.staging();
        io_step::io("file: create folder", || std::fs::create_dir_all(&staging))
            .map_err(|error| self.failed("creating", &staging, &error))?;
        self.sync_folder(&self.folder)?;
        match self.folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_folder(parent),
            _ => Ok(()),
        }
    }

    /// Makes the names in a folder durable.
    pub fn sync_folder(&self, folder: &Path) -> Result<(), ConnectorError> {
        io_step::io("file: fsync folder", || File::open(folder)?.sync_all())
            .map_err(|error| self.failed("fsync of folder", folder, &error))
    }
}

/// What stands in the manifest for a staged file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// In `.staging`.
    pub staged: String,
    #[serde(rename = "final")]
    pub visible: String,
    pub bytes: u64,
    pub crc32c: u32,
    pub rows: u64,
}

/// A file that counts what goes into it.
#[derive(Debug)]
struct Counted {
    file: File,
    bytes: u64,
    crc32c: u32,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = io_step::io("file: write", || self.file.write(bytes))?;
        self.bytes += written as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

enum Encoder {
    Plain(Counted),
    Gzip(Box<GzEncoder<Counted>>),
}

/// The file of one task and epoch.
struct StagedFile {
    name: String,
    visible: String,
    encoder: Encoder,
    buffer: Vec<u8>,
    rows: u64,
}

impl StagedFile {
    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.encoder {
            Encoder::Plain(file) => file.write_all(&self.buffer)?,
            Encoder::Gzip(encoder) => encoder.write_all(&self.buffer)?,
        }
        self.buffer.clear();
        Ok(())
    }

    /// Makes it durable under its staged name.
    fn finish(mut self, place: &Place) -> Result<Staged, ConnectorError> {
        let path = place.staging().join(&self.name);
        let failed = |error: std::io::Error| place.failed("writing", &path, &error);
        self.flush().map_err(failed)?;
        let counted = match self.encoder {
            Encoder::Plain(file) => file,
            Encoder::Gzip(encoder) => encoder.finish().map_err(failed)?,
        };
        io_step::io("file: fsync", || counted.file.sync_all()).map_err(|error| place.failed("fsync of", &path, &error))?;
        place.sync_folder(&place.staging())?;
        let (bytes, crc32c, rows) = (counted.bytes, counted.crc32c, self.rows);
        Ok(Staged { staged: self.name, visible: self.visible, bytes, crc32c, rows })
    }
}

/// Writes one staged file an epoch, and none in an epoch without rows.
pub struct FileWriter {
    place: Arc<Place>,
    task: u32,
    nonce: u64,
    epoch: Option<CheckpointId>,
    open: Option<StagedFile>,
}

impl FileWriter {
    pub fn new(place: Arc<Place>, task: u32) -> Result<Self, ConnectorError> {
        place.create_folders()?;
        // Random for each process and each writer.
        let nonce = RandomState::new().hash_one((std::process::id(), task));
        Ok(Self { place, task, nonce, epoch: None, open: None })
    }

    pub fn task(&self) -> u32 {
        self.task
    }

    pub fn epoch(&self) -> CheckpointId {
        self.epoch.expect("BUG: a row was written before an epoch began")
    }

    /// Appends to the file of the epoch, which is created with its first rows.
    pub fn append(&mut self, rows: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ConnectorError> {
        let file = match &mut self.open {
            Some(file) => file,
            None => {
                let file = self.create()?;
                self.open.insert(file)
            }
        };
        write(&mut file.buffer);
        file.rows += rows;
        if file.buffer.len() >= BUFFER_BYTES {
            let flushed = file.flush();
            let path = self.place.staging().join(&file.name);
            flushed.map_err(|error| self.place.failed("writing", &path, &error))?;
        }
        Ok(())
    }

    fn create(&self) -> Result<StagedFile, ConnectorError> {
        let epoch = self.epoch();
        let name = self.place.staged_name(self.task, epoch, self.nonce);
        let path = self.place.staging().join(&name);
        let file = io_step::io("file: create", || OpenOptions::new().write(true).create_new(true).open(&path));
        let file = file.map_err(|error| self.place.failed("creating", &path, &error))?;
        let counted = Counted { file, bytes: 0, crc32c: 0 };
        let encoder = if self.place.gzip {
            Encoder::Gzip(Box::new(GzEncoder::new(counted, flate2::Compression::fast())))
        } else {
            Encoder::Plain(counted)
        };
        let visible = self.place.final_name(self.task, epoch);
        Ok(StagedFile { name, visible, encoder, buffer: Vec::with_capacity(BUFFER_BYTES), rows: 0 })
    }
}

impl SinkWriter for FileWriter {
    fn begin(&mut self, epoch: CheckpointId) -> Result<(), ConnectorError> {
        // A file that is still open (its checkpoint was given up) keeps its name, which stays unique, and takes the new rows too.
        assert!(self.epoch.is_none_or(|last| last < epoch), "BUG: epoch {epoch} began after {:?}", self.epoch);
        self.epoch = Some(epoch);
        Ok(())
    }

    fn write(&mut self, rows: &Rows) -> Result<(), ConnectorError> {
        if rows.is_empty() {
            return Ok(());
        }
        let format = self.place.format;
        self.append(u64::from(rows.count), |out| format.write(rows, out))
    }

    fn pre_commit(&mut self) -> Result<PreCommit, ConnectorError> {
        let Some(file) = self.open.take() else { return Ok(Box::new(|| Ok(Vec::new()))) };
        let (place, steps) = (Arc::clone(&self.place), io_step::current());
        Ok(Box::new(move || {
            // On another thread.
            let _entered = steps.map(|steps| steps.enter());
            let staged = file.finish(&place)?;
            let committable: Committable = serde_json::to_value(staged).expect("BUG: a staged file is JSON");
            Ok(vec![committable])
        }))
    }

    fn abort(&mut self) {
        if let Some(file) = self.open.take() {
            // If it stays, recovery removes it.
            let _ = io_step::io("file: remove", || std::fs::remove_file(self.place.staging().join(file.name)));
        }
    }
}
