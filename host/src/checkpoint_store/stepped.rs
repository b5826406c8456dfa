//! An object store whose calls are steps of an incarnation (see [`crate::fault::io_step`]).
//!
//! Of a listing and of several deletions the whole is one step: callers repeat them as a whole.

use crate::fault::io_step::IoSteps;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use std::ops::Range;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Stepped {
    pub inner: Arc<dyn ObjectStore>,
    pub steps: IoSteps,
}

fn refused() -> object_store::Error {
    object_store::Error::Generic { store: "stepped", source: "injected".into() }
}

impl Stepped {
    fn step<'a, T: Send + 'a>(&'a self, name: &'static str, call: BoxFuture<'a, Result<T>>) -> BoxFuture<'a, Result<T>> {
        self.steps.call_async(name, call, refused).boxed()
    }
}

impl std::fmt::Display for Stepped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stepped({})", self.inner)
    }
}

/// By what is stored there: a report says which calls were tried.
fn put_name(location: &Path, mode: &PutMode) -> &'static str {
    let path = location.as_ref();
    match mode {
        _ if path.contains("/savepoints/") => "store: put savepoint",
        PutMode::Create if path.contains("/inc/") => "store: create incarnation",
        PutMode::Create if path.contains("/commits/") => "store: create decision",
        _ if path.contains("/manifests/") => "store: put manifest",
        _ if path.contains("/segments/") => "store: put segment",
        _ => "store: put",
    }
}

// Written out as `async_trait` does it, which is no dependency of ours.
impl ObjectStore for Stepped {
    fn put_opts<'a, 'b, 'r>(
        &'a self,
        location: &'b Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> BoxFuture<'r, Result<PutResult>>
    where
        'a: 'r,
        'b: 'r,
        Self: 'r,
    {
        self.step(put_name(location, &opts.mode), self.inner.put_opts(location, payload, opts))
    }

    fn put_multipart_opts<'a, 'b, 'r>(
        &'a self,
        location: &'b Path,
        opts: PutMultipartOptions,
    ) -> BoxFuture<'r, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'r,
        'b: 'r,
        Self: 'r,
    {
        self.step("store: begin multipart", self.inner.put_multipart_opts(location, opts))
    }

    fn get_opts<'a, 'b, 'r>(&'a self, location: &'b Path, options: GetOptions) -> BoxFuture<'r, Result<GetResult>>
    where
        'a: 'r,
        'b: 'r,
        Self: 'r,
    {
        self.step("store: get", self.inner.get_opts(location, options))
    }

    fn get_ranges<'a, 'b, 'c, 'r>(&'a self, location: &'b Path, ranges: &'c [Range<u64>]) -> BoxFuture<'r, Result<Vec<Bytes>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        Self: 'r,
    {
        self.step("store: get ranges", self.inner.get_ranges(location, ranges))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, steps) = (Arc::clone(&self.inner), self.steps.clone());
        let deleted = async move {
            let all = async { Ok(inner.delete_stream(locations).collect::<Vec<_>>().await) };
            let deleted = steps.call_async("store: delete", all, refused).await;
            futures::stream::iter(deleted.unwrap_or_else(|error| vec![Err(error)]))
        };
        deleted.flatten_stream().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (listed, steps) = (self.inner.list(prefix), self.steps.clone());
        let listed = async move {
            let listed = steps.call_async("store: list", listed.try_collect::<Vec<_>>(), refused).await;
            futures::stream::iter(listed.map_or_else(|error| vec![Err(error)], |all| all.into_iter().map(Ok).collect()))
        };
        listed.flatten_stream().boxed()
    }

    fn list_with_delimiter<'a, 'b, 'r>(&'a self, prefix: Option<&'b Path>) -> BoxFuture<'r, Result<ListResult>>
    where
        'a: 'r,
        'b: 'r,
        Self: 'r,
    {
        self.step("store: list folder", self.inner.list_with_delimiter(prefix))
    }

    fn copy_opts<'a, 'b, 'c, 'r>(&'a self, from: &'b Path, to: &'c Path, options: CopyOptions) -> BoxFuture<'r, Result<()>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        Self: 'r,
    {
        self.step("store: copy", self.inner.copy_opts(from, to, options))
    }
}
