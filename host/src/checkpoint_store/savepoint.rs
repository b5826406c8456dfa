//! Savepoints: checkpoints with a manifest and segments of their own, which the host never deletes.
//!
//! Written in the order segments, manifest, pointer; deleted the other way round. So a savepoint that has its pointer is whole, and
//! one that has not does not exist.

use super::{CONCURRENT_OBJECTS_MAX, CheckpointStore, StoreError, StorePath, pointer_to};
use crate::fault::{self, Fault};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use std::collections::BTreeMap;
use tidegate_core::checkpoint::{CheckpointKind, Manifest, ManifestPointer, SAVEPOINTS};
use tidegate_core::limits::NAME_BYTES_MAX;

#[derive(Debug, Clone, PartialEq)]
pub struct Savepoint {
    pub id: String,
    pub pointer: ManifestPointer,
    pub manifest: Manifest,
}

impl Savepoint {
    /// Of state and manifest.
    pub fn bytes(&self) -> u64 {
        self.pointer.bytes + self.manifest.segments().map(|segment| segment.bytes).sum::<u64>()
    }
}

impl CheckpointStore {
    /// Copies what a manifest names. May be called again for the same id and manifest: it finishes what was begun.
    pub async fn store_savepoint(&self, id: &str, manifest: &Manifest) -> Result<ManifestPointer, StoreError> {
        self.store_savepoint_of(self, id, manifest).await
    }

    /// As [`Self::store_savepoint`], for a manifest whose segments lie in the part of another job of the same store: it may be deleted
    /// afterwards.
    pub async fn store_savepoint_of(&self, other: &Self, id: &str, manifest: &Manifest) -> Result<ManifestPointer, StoreError> {
        check_name(id)?;
        let mut manifest = manifest.clone();
        manifest.kind = CheckpointKind::Savepoint;
        let mut copies = BTreeMap::new();
        let state = manifest.operators.values_mut().flat_map(|operator| operator.tasks.iter_mut().flatten());
        for segment in state.chain(manifest.in_flight.iter_mut().map(|in_flight| &mut in_flight.segment)) {
            let copy = StorePath::SavepointSegment { id, segment: name_of(&segment.path) }.to_string();
            copies.insert(segment.path.clone(), copy.clone());
            segment.path = copy;
        }
        // Before anything is copied into a folder that is not ours.
        let path = StorePath::SavepointManifest { id }.to_string();
        let bytes = serde_json::to_vec(&manifest).expect("BUG: a manifest can be written as JSON");
        match self.read(&path).await {
            Err(StoreError::Missing { .. }) => {}
            Ok(existing) if existing == bytes => {}
            Ok(_) => return Err(StoreError::Exists { path: StorePath::Savepoint { id }.to_string() }),
            Err(error) => return Err(error),
        }
        let copying = copies.into_iter().map(|(from, to)| async move {
            let copied = self.store.copy(&other.location(&from), &self.location(&to)).await;
            copied.map_err(|source| match source {
                object_store::Error::NotFound { .. } => StoreError::Missing { path: from },
                source => StoreError::failed("copy", format!("{from} to {to}"), source),
            })
        });
        futures::stream::iter(copying).buffer_unordered(CONCURRENT_OBJECTS_MAX).try_collect::<()>().await?;
        fault::point(Fault::SavepointSegmentsWrittenManifestNot);

        let pointer = pointer_to(&manifest, path, &bytes);
        match self.create(&pointer.path, bytes.into()).await {
            // An earlier try got as far as this.
            Ok(()) | Err(StoreError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
        fault::point(Fault::SavepointManifestWrittenPointerNot);

        let bytes = serde_json::to_vec(&pointer).expect("BUG: a pointer can be written as JSON");
        match self.create(&StorePath::SavepointPointer { id }.to_string(), bytes.into()).await {
            Ok(()) | Err(StoreError::Exists { .. }) => Ok(pointer),
            Err(error) => Err(error),
        }
    }

    /// Ids of all savepoints that are whole, sorted.
    pub async fn list_savepoints(&self) -> Result<Vec<String>, StoreError> {
        let paths = self.list(SAVEPOINTS.trim_end_matches('/')).await?;
        let id_of = |path: &String| {
            let (id, rest) = path.strip_prefix(SAVEPOINTS)?.split_once('/')?;
            (rest == "pointer.json").then(|| id.to_owned())
        };
        Ok(paths.iter().filter_map(id_of).collect())
    }

    pub async fn read_savepoint(&self, id: &str) -> Result<Savepoint, StoreError> {
        check_name(id)?;
        let path = StorePath::SavepointPointer { id }.to_string();
        let pointer: ManifestPointer = self.read_json(&path).await.map_err(|error| match error {
            StoreError::Missing { .. } => StoreError::NoSavepoint { id: id.to_owned() },
            error => error,
        })?;
        let manifest = self.read_manifest(&pointer).await?;
        Ok(Savepoint { id: id.to_owned(), pointer, manifest })
    }

    /// Also removes what a savepoint that never became whole left behind. That no running job still reads it is for the caller to
    /// know.
    pub async fn delete_savepoint(&self, id: &str) -> Result<(), StoreError> {
        check_name(id)?;
        let folder = StorePath::Savepoint { id }.to_string();
        let paths = self.list(&folder).await?;
        if paths.is_empty() {
            return Err(StoreError::NoSavepoint { id: id.to_owned() });
        }
        let head = [StorePath::SavepointPointer { id }, StorePath::SavepointManifest { id }].map(|path| path.to_string());
        for path in &head {
            self.delete_all(vec![path.clone()]).await?;
        }
        self.delete_all(paths.into_iter().filter(|path| !head.contains(path)).collect()).await
    }
}

/// Operator and file name of a segment, wherever it lies.
fn name_of(path: &str) -> &str {
    let folder = path.rsplit_once('/').and_then(|(folders, _)| folders.rfind('/'));
    folder.map_or(path, |at| &path[at + 1..])
}

/// An id comes from a user and becomes a folder.
fn check_name(id: &str) -> Result<(), StoreError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_valid = (1..=NAME_BYTES_MAX).contains(&id.len()) && !id.starts_with('.') && id.chars().all(is_allowed);
    if is_valid { Ok(()) } else { Err(StoreError::SavepointName { id: id.to_owned() }) }
}
