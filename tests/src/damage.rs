//! What a job has on the disk, read and damaged by somebody who knows nothing but its layout.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What may happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit in the middle.
    Flipped,
    /// The second half is gone.
    Truncated,
    Deleted,
}

impl Damage {
    pub const ALL: [Self; 3] = [Self::Flipped, Self::Truncated, Self::Deleted];

    /// Of the file under this name only: others may share its blocks.
    #[track_caller]
    pub fn to(self, path: &Path) {
        let mut bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let middle = bytes.len() / 2;
        fs::remove_file(path).expect("the file can be removed");
        match self {
            Self::Flipped => bytes[middle] ^= 1,
            Self::Truncated => bytes.truncate(middle),
            Self::Deleted => return,
        }
        fs::write(path, bytes).expect("the file can be written");
    }
}

/// The folder of one job.
#[derive(Debug, Clone)]
pub struct JobFolder(pub PathBuf);

impl JobFolder {
    /// Of the decision log, oldest first.
    #[track_caller]
    pub fn decisions(&self) -> Vec<(PathBuf, Value)> {
        let mut paths: Vec<PathBuf> = files_in(&self.0.join("commits"));
        paths.sort();
        paths.into_iter().map(|path| (path.clone(), read_json(&path))).collect()
    }

    #[track_caller]
    pub fn commits(&self) -> Vec<(PathBuf, Value)> {
        self.decisions().into_iter().filter(|(_, entry)| entry["kind"] == "commit").collect()
    }

    /// The manifest of the n-th commit from the end.
    #[track_caller]
    pub fn manifest(&self, from_end: usize) -> PathBuf {
        let commits = self.commits();
        let (_, entry) = &commits[commits.len() - 1 - from_end];
        self.0.join(entry["pointer"]["path"].as_str().expect("a commit has a path"))
    }

    /// Segments that the newest checkpoint has and the one before has not.
    #[track_caller]
    pub fn newest_segments(&self) -> Vec<PathBuf> {
        let older = segments_of(&self.manifest(1));
        segments_of(&self.manifest(0)).difference(&older).map(|path| self.0.join(path)).collect()
    }

    /// The chain of each task in the newest checkpoint: whether each segment, oldest first, is full.
    #[track_caller]
    pub fn chains(&self) -> Vec<Vec<bool>> {
        let manifest = read_json(&self.manifest(0));
        let operators = manifest["operators"].as_object().expect("a manifest has operators");
        let chains = operators.values().flat_map(|operator| operator["tasks"].as_array().expect("tasks"));
        let is_full = |segment: &Value| segment["full"].as_bool().expect("a segment is full or not");
        chains.map(|chain| chain.as_array().expect("a chain").iter().map(is_full).collect()).collect()
    }

    /// Manifests that no decision leads to, and temporary files beside them. (A segment may be left over when a job ends while
    /// segments are being merged; the next start sweeps it.)
    #[track_caller]
    pub fn orphans(&self) -> Vec<PathBuf> {
        let path = |entry: &Value| entry["pointer"]["path"].as_str().map(|path| self.0.join(path));
        let needed: BTreeSet<PathBuf> = self.decisions().iter().filter_map(|(_, entry)| path(entry)).collect();
        files_in(&self.0.join("manifests")).into_iter().filter(|path| !needed.contains(path)).collect()
    }
}

#[track_caller]
fn segments_of(manifest: &Path) -> BTreeSet<String> {
    let manifest = read_json(manifest);
    let operators = manifest["operators"].as_object().expect("a manifest has operators");
    let chains = operators.values().flat_map(|operator| operator["tasks"].as_array().expect("tasks"));
    let segments = chains.flat_map(|chain| chain.as_array().expect("a chain"));
    segments.map(|segment| segment["path"].as_str().expect("a path").to_owned()).collect()
}

#[track_caller]
fn read_json(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("the folder can be listed").path()).collect()
}
