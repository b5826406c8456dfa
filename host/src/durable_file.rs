//! Small files that must be whole or absent, whatever the machine does in between.
//!
//! Invariants:
//! * a reader sees a file's old content or its new content, never a part of either;
//! * when a call returns, what it did survives a loss of power: file and folder are synced;
//! * `create` of a file that exists changes nothing and says so: of two writers exactly one succeeds.
//!
//! A crash leaves at most a file whose name starts with [`TEMPORARY_PREFIX`]; [`remove_temporaries`] takes it away.

use crate::fault::io_step::io;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const TEMPORARY_PREFIX: &str = ".tmp-";

/// 32 hexadecimal digits that nobody has used before.
pub fn unique_id() -> String {
    // Every `RandomState` hashes with keys of its own, which start from the operating system's randomness.
    let half = || RandomState::new().hash_one(std::time::SystemTime::now());
    format!("{:016x}{:016x}", half(), half())
}

/// Makes the folder and all above it that are missing.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
    }
    match io("durable file: create folder", || fs::create_dir(folder)) {
        Ok(()) => sync_parent(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes the file if nobody has; `false` if it exists.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let temporary = write_temporary(path, bytes)?;
    // A link, unlike a rename, refuses to take another file's place.
    let linked = io("durable file: link", || fs::hard_link(&temporary, path));
    let removed = io("durable file: remove temporary", || fs::remove_file(&temporary));
    match linked {
        Ok(()) => removed.and_then(|()| sync_parent(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the file, in the place of an older one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_temporary(path, bytes)?;
    if let Err(error) = io("durable file: rename", || fs::rename(&temporary, path)) {
        let _ = io("durable file: remove temporary", || fs::remove_file(&temporary));
        return Err(error);
    }
    sync_parent(path)
}

/// `false` if there was none.
pub fn remove(path: &Path) -> io::Result<bool> {
    match io("durable file: remove", || fs::remove_file(path)) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// With all that is in it. After a crash some of it may still be there.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    match io("durable file: remove folder", || fs::remove_dir_all(folder)) {
        Ok(()) => sync_parent(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a crash left in this folder (not in those below). Only for a folder that nobody writes to yet.
pub fn remove_temporaries(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            io("durable file: remove temporary", || fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

fn write_temporary(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let folder = path.parent().expect("BUG: a durable file without a folder");
    create_folder(folder)?;
    let temporary = folder.join(format!("{TEMPORARY_PREFIX}{}", unique_id()));
    let written = (|| {
        let create = || OpenOptions::new().write(true).create_new(true).open(&temporary);
        let mut file = io("durable file: create", create)?;
        io("durable file: write", || file.write_all(bytes))?;
        io("durable file: fsync", || file.sync_all())
    })();
    if let Err(error) = written {
        let _ = io("durable file: remove temporary", || fs::remove_file(&temporary));
        return Err(error);
    }
    Ok(temporary)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    io("durable file: fsync folder", || File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_creators_the_first_wins_and_the_second_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        assert!(create(&path, b"one").unwrap());
        assert!(!create(&path, b"two").unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn replace_puts_the_new_content_in_place_and_temporaries_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::write(folder.path().join(".tmp-left-behind"), b"half").unwrap();
        remove_temporaries(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }

    #[test]
    fn unique_ids_do_not_repeat() {
        let ids: std::collections::BTreeSet<String> = (0..1000).map(|_| unique_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
