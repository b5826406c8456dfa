//! The durable side of checkpoints: segments, manifests, the decision log and savepoints of one job, in an object store.
//!
//! ```text
//!  jobs/<job>/inc/<n>.json                    incarnations                            created once
//!            /commits/<seq>.json              the decision log                        created once, see [`DecisionLog`]
//!            /manifests/<checkpoint>-<uuid>   what a checkpoint consists of           named by a decision
//!            /segments/<operator>/<task>-…    state                                   named by a manifest
//!            /savepoints/<id>/…               a manifest with segments of its own     never deleted but by the user
//! ```
//!
//! [`CheckpointStore`] reads and writes what can't conflict, because every name is unique; [`DecisionLog`] writes what can; it is
//! got with [`CheckpointStore::acquire`], which fences everybody else.
//!
//! ```
//! # use tidegate::checkpoint_store::CheckpointStore;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let store = CheckpointStore::open_local(folder.path(), "flights")?;
//! let acquired = store.acquire(0).await?;
//! assert_eq!(acquired.log.incarnation(), 1);
//! assert_eq!(acquired.plan.next_checkpoint, 1);
//! # Ok(())
//! # }
//! ```
//!
//! Errors: reading distinguishes "missing" and "corrupt" from "the store did not answer". Of a write that failed nobody
//! knows whether it took place. For unique names that does not matter; the decision log looks again, and says
//! [`AppendError::Unknown`] where even that does not tell.
//!
//! Invariants:
//! * everything is created if absent, nothing is ever overwritten (a savepoint's copy of a segment excepted: same bytes);
//! * what is read is compared with the length and checksum in whatever names it;
//! * what lies under `savepoints/` is deleted by [`CheckpointStore::delete_savepoint`] alone.

mod error;
mod log;
mod path;
mod savepoint;
mod stepped;

pub use error::{AppendError, StoreError};
pub use log::{Acquired, DecisionLog, Incarnations};
pub(crate) use log::{seal, unseal};
pub use path::StorePath;
pub use savepoint::Savepoint;

use crate::fault::io_step::IoSteps;
use crate::fault::{self, Fault};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_core::checkpoint::{CheckpointId, MANIFEST_FORMAT, Manifest, ManifestPointer, SAVEPOINTS, SegmentRef};

/// Objects that are read, copied or deleted at the same time. A local disk is busy with fewer, a remote store answers slowly.
const CONCURRENT_OBJECTS_MAX: usize = 16;

/// By operator: segments of all its tasks, those of one task oldest first.
pub type Segments = BTreeMap<String, Vec<(SegmentRef, Bytes)>>;

/// The part of an object store that belongs to one job.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    store: Arc<dyn ObjectStore>,
    job: Arc<str>,
}

/// What a segment is called, and what is said of it in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentDraft<'a> {
    pub operator: &'a str,
    pub task_index: u32,
    pub checkpoint: CheckpointId,
    pub first_group: u32,
    pub end_group: u32,
    pub full: bool,
    pub entries: u64,
}

impl CheckpointStore {
    pub fn new(store: Arc<dyn ObjectStore>, job: &str) -> Self {
        Self { store, job: job.into() }
    }

    /// In a local folder, which is made where it is not there. Every write is followed by an fsync of file and folder.
    pub fn open_local(folder: &std::path::Path, job: &str) -> Result<Self, StoreError> {
        let unusable =
            |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Folder { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(|error| unusable(error.into()))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| unusable(error.into()))?;
        // Off by default.
        Ok(Self::new(Arc::new(store.with_fsync(true)), job))
    }

    /// The same store, whose calls are steps of an incarnation.
    pub fn stepped(mut self, steps: &IoSteps) -> Self {
        self.store = Arc::new(stepped::Stepped { inner: self.store, steps: steps.clone() });
        self
    }

    /// The part of another job in the same store.
    pub fn of_job(&self, job: &str) -> Self {
        Self::new(Arc::clone(&self.store), job)
    }

    pub fn job(&self) -> &str {
        &self.job
    }

    /// Stores a piece of state under a name of its own.
    pub async fn put_segment(&self, draft: SegmentDraft<'_>, bytes: Bytes) -> Result<SegmentRef, StoreError> {
        let SegmentDraft { operator, task_index, checkpoint, first_group, end_group, full, entries } = draft;
        let path = StorePath::Segment { operator, task_index, checkpoint, uuid: &unique_id() }.to_string();
        let (crc32c, len) = (crc32c::crc32c(&bytes), bytes.len() as u64);
        self.create(&path, bytes).await?;
        Ok(SegmentRef { path, first_group, end_group, full, entries, bytes: len, crc32c })
    }

    pub async fn read_segment(&self, segment: &SegmentRef) -> Result<Bytes, StoreError> {
        self.read_checked(&segment.path, segment.bytes, segment.crc32c).await
    }

    /// Stores a manifest under a name of its own. It means nothing until a decision points to it.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<ManifestPointer, StoreError> {
        let path = StorePath::Manifest { checkpoint: manifest.checkpoint, uuid: &unique_id() }.to_string();
        let bytes = serde_json::to_vec(manifest).expect("BUG: a manifest can be written as JSON");
        let pointer = pointer_to(manifest, path, &bytes);
        self.create(&pointer.path, bytes.into()).await?;
        Ok(pointer)
    }

    pub async fn read_manifest(&self, pointer: &ManifestPointer) -> Result<Manifest, StoreError> {
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        let path = &pointer.path;
        let bytes = self.read_checked(path, pointer.bytes, pointer.crc32c).await?;
        let corrupt = |error: serde_json::Error| StoreError::Corrupt { path: path.clone(), why: error.to_string() };
        // Before the rest: a newer form may not fit what is known here.
        let Format { format } = serde_json::from_slice(&bytes).map_err(corrupt)?;
        if format > MANIFEST_FORMAT {
            return Err(StoreError::Newer { path: path.clone(), format, known: MANIFEST_FORMAT });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(corrupt)?;
        if manifest.checkpoint != pointer.checkpoint {
            let why = format!("it is the manifest of checkpoint {}, not of {}", manifest.checkpoint, pointer.checkpoint);
            return Err(StoreError::Corrupt { path: path.clone(), why });
        }
        Ok(manifest)
    }

    /// The greatest checkpoint that a manifest is named after, decided or not.
    pub async fn greatest_checkpoint(&self) -> Result<Option<CheckpointId>, StoreError> {
        let manifests = self.list(StorePath::MANIFESTS).await?;
        Ok(manifests.iter().filter_map(|path| StorePath::checkpoint(path)).max())
    }

    /// The manifest and all segments that it names, whole.
    pub async fn read_whole(&self, pointer: &ManifestPointer) -> Result<(Manifest, Segments), StoreError> {
        let manifest = self.read_manifest(pointer).await?;
        let mut all = Segments::new();
        for (name, operator) in &manifest.operators {
            let mut segments = Vec::new();
            for segment in operator.tasks.iter().flatten() {
                segments.push((segment.clone(), self.read_segment(segment).await?));
            }
            all.insert(name.clone(), segments);
        }
        Ok((manifest, all))
    }

    /// Deletes manifests and segments. What is gone already is fine: an earlier try may have got so far.
    pub async fn delete(&self, paths: &[String]) -> Result<(), StoreError> {
        if let Some(path) = paths.iter().find(|path| path.starts_with(SAVEPOINTS)) {
            panic!("BUG: {path} was to be deleted, and belongs to a savepoint");
        }
        // Manifests go first: one without its segments must not be found.
        let (manifests, segments): (Vec<_>, Vec<_>) =
            paths.iter().cloned().partition(|path| path.starts_with(StorePath::MANIFESTS));
        self.delete_all(manifests).await?;
        if !segments.is_empty() {
            fault::point(Fault::ManifestsDeletedSegmentsNot);
        }
        self.delete_all(segments).await
    }

    /// Deletes the manifests and segments that are not in `keep`: what a predecessor had written and nobody decided, or was about
    /// to delete. For a job that is acquired and whose tasks do not run yet. Answers what was deleted.
    ///
    /// Only what is named after a checkpoint before `first`, the first of this incarnation: a successor that has fenced us without our
    /// knowing uses higher ids, and what it writes is not ours to delete.
    pub async fn sweep(
        &self,
        log: &DecisionLog,
        keep: &BTreeSet<String>,
        first: CheckpointId,
    ) -> Result<Vec<String>, StoreError> {
        assert_eq!(log.job(), self.job(), "BUG: the log of another job");
        let mut orphans = self.list(StorePath::MANIFESTS).await?;
        orphans.extend(self.list(StorePath::SEGMENTS).await?);
        orphans.retain(|path| !keep.contains(path) && StorePath::checkpoint(path).is_some_and(|checkpoint| checkpoint < first));
        self.delete(&orphans).await?;
        Ok(orphans)
    }

    async fn delete_all(&self, paths: Vec<String>) -> Result<(), StoreError> {
        let deletions = paths.into_iter().map(|path| async move {
            match self.store.delete(&self.location(&path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(source) => Err(StoreError::failed("delete", path, source)),
            }
        });
        futures::stream::iter(deletions).buffer_unordered(CONCURRENT_OBJECTS_MAX).try_collect().await
    }

    /// Unescaped, so that what is listed is called as it was written. Names of jobs and operators are checked where they come in.
    fn location(&self, path: &str) -> Path {
        let path = format!("jobs/{}/{path}", self.job);
        Path::parse(&path).unwrap_or_else(|error| panic!("BUG: {path} can't be a path: {error}"))
    }

    /// Create if absent. An error says nothing about whether it is there now, but [`StoreError::Exists`] does.
    async fn create(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.location(path), bytes.into(), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => Err(StoreError::Exists { path: path.to_owned() }),
            Err(source) => Err(StoreError::failed("create", path, source)),
        }
    }

    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        let result = match self.store.get(&self.location(path)).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        result.map_err(|source| match source {
            object_store::Error::NotFound { .. } => StoreError::Missing { path: path.to_owned() },
            source => StoreError::failed("read", path, source),
        })
    }

    async fn read_checked(&self, path: &str, len: u64, crc32c: u32) -> Result<Bytes, StoreError> {
        let bytes = self.read(path).await?;
        let corrupt = |why: String| Err(StoreError::Corrupt { path: path.to_owned(), why });
        if bytes.len() as u64 != len {
            return corrupt(format!("it has {} bytes, {len} were written", bytes.len()));
        }
        let found = crc32c::crc32c(&bytes);
        if found != crc32c {
            return corrupt(format!("its checksum is {found:08x}, {crc32c:08x} was written"));
        }
        Ok(bytes)
    }

    /// Paths below a folder, relative to the job, sorted.
    async fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let root = self.location("");
        let listed = self.store.list(Some(&self.location(folder)));
        let relative = listed.map_ok(|object| {
            let parts = object.location.prefix_match(&root).expect("BUG: a listing strayed from its folder");
            parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/")
        });
        let mut paths: Vec<_> = relative.try_collect().await.map_err(|source| StoreError::failed("list", folder, source))?;
        paths.sort_unstable();
        Ok(paths)
    }
}

fn pointer_to(manifest: &Manifest, path: String, bytes: &[u8]) -> ManifestPointer {
    ManifestPointer { checkpoint: manifest.checkpoint, path, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(bytes) }
}

/// 128 bits as hex digits, different for every call of every process: they name, they keep no secret.
fn unique_id() -> String {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = (std::process::id(), std::time::SystemTime::now(), CALLS.fetch_add(1, Ordering::Relaxed));
    // Each `RandomState` has keys from the system's source of randomness.
    format!("{:016x}{:016x}", RandomState::new().hash_one(call), RandomState::new().hash_one(call))
}

#[cfg(test)]
mod faulty;
#[cfg(test)]
mod tests;
