//! The data folder as a whole: which format it has, and which host works in it.
//!
//! ```text
//!  <data>/format.json   {"format": 1}              a folder of a newer format is refused by name
//!  <data>/host.lock     locked while a host runs   a second host on this machine is refused, with what to do
//!  <data>/host.json     who came last              a host that is not named there any more changes no job's file
//! ```
//!
//! The lock is a courtesy to people: it fails on file systems that know no locks, and a host on another machine may not see it. What
//! keeps output right is each job's decision log, and what keeps a host that was taken over (stopped and continued, say) from writing
//! down its own view of the jobs is the claim in `host.json`.
//!
//! Invariants:
//! * nothing in the folder is touched before its format is known;
//! * who finds another host's claim writes no job file any more, for good: only a new process makes a new claim.

use crate::durable_file;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Raised when a host of before could not read what is written now.
pub const DATA_FORMAT: u32 = 1;
/// `off`: two hosts may start on one folder. For tests of what happens then.
pub const LOCK: &str = "TIDEGATE_DATA_LOCK";

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u32,
    /// For people.
    written_by: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    host: String,
    pid: u32,
    since_ms: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    #[error("{attempted} {}: {source}", path.display())]
    Io { attempted: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the data folder {} has format {format} (written by {written_by}), this is tidegate {} and knows format {DATA_FORMAT}",
        folder.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer { folder: PathBuf, format: u32, written_by: String },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{} works in the data folder {}", holder(.pid), folder.display())]
    InUse { folder: PathBuf, pid: Option<u32> },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another host".to_owned(), |pid| format!("another host (process {pid})"))
}

impl DataFolderError {
    pub fn remedy(&self) -> String {
        match self {
            Self::Io { source, .. } => crate::disk::remedy(source)
                .unwrap_or("check that the folder is there and that the host may write to it")
                .to_owned(),
            Self::Newer { written_by, .. } => format!("start it with {written_by} or newer, or choose another folder (--data)"),
            Self::Damaged { path, .. } => {
                let format = format!("{{\"format\": {DATA_FORMAT}, \"written_by\": \"\"}}");
                format!("put {} back from a copy, or write `{format}` into it if this version wrote the folder", path.display())
            }
            Self::InUse { pid, .. } => {
                let stop = pid.map_or_else(|| "stop that one".to_owned(), |pid| format!("stop that one (kill {pid})"));
                format!("{stop}, or give this one a folder of its own (--data)")
            }
        }
    }
}

fn io_error(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataFolderError {
    let path = path.to_owned();
    move |source| DataFolderError::Io { attempted, path, source }
}

/// The folder, as long as this host works in it.
#[derive(Debug)]
pub struct DataFolder {
    lock: Mutex<Option<File>>,
    claim: Arc<Claim>,
}

impl DataFolder {
    /// Blocks on the disk.
    pub fn open(folder: &Path) -> Result<Self, DataFolderError> {
        check_format(folder)?;
        let lock = lock(folder)?;
        let claim = Claim { path: folder.join("host.json"), host: durable_file::unique_id() };
        let owner = Owner { host: claim.host.clone(), pid: std::process::id(), since_ms: crate::api::now_ms() };
        let json = serde_json::to_vec(&owner).expect("BUG: an owner is not JSON");
        durable_file::replace(&claim.path, &json).map_err(io_error("write", &claim.path))?;
        Ok(Self { lock: Mutex::new(lock), claim: Arc::new(claim) })
    }

    pub fn claim(&self) -> Arc<Claim> {
        Arc::clone(&self.claim)
    }

    /// The jobs have ended: the next host may come.
    pub fn release(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn check_format(folder: &Path) -> Result<(), DataFolderError> {
    let path = folder.join("format.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // New, or of the first builds, which wrote format 1 and did not say so.
            let ours = Format { format: DATA_FORMAT, written_by: concat!("tidegate ", env!("CARGO_PKG_VERSION")).to_owned() };
            let json = serde_json::to_vec(&ours).expect("BUG: a format is not JSON");
            durable_file::create(&path, &json).map_err(io_error("write", &path))?;
            std::fs::read(&path).map_err(io_error("read", &path))?
        }
        Err(source) => return Err(io_error("read", &path)(source)),
    };
    let found: Format = serde_json::from_slice(&bytes)
        .map_err(|error| DataFolderError::Damaged { path: path.clone(), why: error.to_string() })?;
    if found.format > DATA_FORMAT {
        return Err(DataFolderError::Newer { folder: folder.to_owned(), format: found.format, written_by: found.written_by });
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<Option<File>, DataFolderError> {
    if std::env::var(LOCK).is_ok_and(|value| value == "off") {
        tracing::warn!("{LOCK}=off: nothing keeps a second host from starting on this folder");
        return Ok(None);
    }
    let path = folder.join("host.lock");
    OpenOptions::new().create(true).append(true).open(&path).map_err(io_error("open", &path))?;
    // For reading: a file that is open for writing keeps people from making the file system read-only.
    let file = File::open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let owner = std::fs::read(folder.join("host.json")).ok();
            let owner = owner.and_then(|bytes| serde_json::from_slice::<Owner>(&bytes).ok());
            Err(DataFolderError::InUse { folder: folder.to_owned(), pid: owner.map(|owner| owner.pid) })
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, path = %path.display(), "the file system knows no locks: start no second host on this folder");
            Ok(None)
        }
    }
}

/// Says that this host is the last that came.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    host: String,
}

impl Claim {
    /// Not for correctness of output: between this look and a write that follows somebody else may come.
    pub fn check(&self) -> io::Result<()> {
        let owner: Owner = serde_json::from_slice(&std::fs::read(&self.path)?)?;
        if owner.host == self.host {
            return Ok(());
        }
        let message = format!(
            "another host (process {}) has taken over this data folder, and this one changes nothing in it any more: \
             stop this one, and use the other",
            owner.pid
        );
        Err(io::Error::other(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_host_is_refused_with_the_first_ones_number_until_that_ends() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataFolder::open(folder.path()).unwrap();
        let error = DataFolder::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.remedy().contains("--data"), "{}", error.remedy());
        first.claim().check().unwrap();
        first.release();
        let second = DataFolder::open(folder.path()).unwrap();
        second.claim().check().unwrap();
        assert!(first.claim().check().unwrap_err().to_string().contains("has taken over"));
    }

    #[test]
    fn a_folder_of_a_newer_format_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("format.json"), r#"{"format":2,"written_by":"tidegate 9.1.0"}"#).unwrap();
        let error = DataFolder::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("has format 2 (written by tidegate 9.1.0)"), "{error}");
        assert!(error.remedy().contains("tidegate 9.1.0 or newer"));
        assert!(!folder.path().join("host.json").exists(), "nothing was touched");
        std::fs::write(folder.path().join("format.json"), "{").unwrap();
        assert!(matches!(DataFolder::open(folder.path()), Err(DataFolderError::Damaged { .. })));
    }
}
