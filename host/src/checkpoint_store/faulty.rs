//! An object store whose n-th call goes wrong, for tests.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// An error, and nothing happened.
    ErrorBefore,
    /// It happened, and an error is what comes back.
    ErrorAfter,
    /// Nothing happens any more, for this caller: it died before the call.
    DeathBefore,
    /// It happened, and the caller died before it heard.
    DeathAfter,
}

impl Trouble {
    pub(super) const ALL: [Self; 4] = [Self::ErrorBefore, Self::ErrorAfter, Self::DeathBefore, Self::DeathAfter];
}

#[derive(Debug)]
pub(super) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    at: usize,
    trouble: Trouble,
    calls: AtomicUsize,
    /// What was called, for the message of a failing test.
    pub(super) told: Mutex<Vec<String>>,
}

impl Faulty {
    /// The first call has the number 0.
    pub(super) fn new(inner: Arc<dyn ObjectStore>, at: usize, trouble: Trouble) -> Self {
        Self { inner, at, trouble, calls: AtomicUsize::new(0), told: Mutex::default() }
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// What to do with this call: is it carried out, and is its answer heard?
    fn next(&self, call: String) -> (bool, bool) {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        self.told.lock().unwrap().push(call);
        match (self.trouble, number.cmp(&self.at)) {
            (_, std::cmp::Ordering::Less) => (true, true),
            (Trouble::ErrorBefore, std::cmp::Ordering::Equal) => (false, false),
            (Trouble::ErrorAfter | Trouble::DeathAfter, std::cmp::Ordering::Equal) => (true, false),
            (Trouble::ErrorBefore | Trouble::ErrorAfter, std::cmp::Ordering::Greater) => (true, true),
            (Trouble::DeathBefore | Trouble::DeathAfter, _) => (false, false),
        }
    }

    fn around<'a, T: 'a>(&self, call: String, effect: BoxFuture<'a, Result<T>>) -> BoxFuture<'a, Result<T>> {
        let (happens, heard) = self.next(call);
        async move {
            let result = if happens { Some(effect.await) } else { None };
            result.filter(|_| heard).unwrap_or_else(|| Err(injected()))
        }
        .boxed()
    }
}

fn injected() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "injected".into() }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "faulty({})", self.inner)
    }
}

// Written out as `async_trait` does it, which is no dependency of ours.
impl ObjectStore for Faulty {
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
        self.around(format!("put {location}"), self.inner.put_opts(location, payload, opts))
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
        self.inner.put_multipart_opts(location, opts)
    }

    fn get_opts<'a, 'b, 'r>(&'a self, location: &'b Path, options: GetOptions) -> BoxFuture<'r, Result<GetResult>>
    where
        'a: 'r,
        'b: 'r,
        Self: 'r,
    {
        self.around(format!("get {location}"), self.inner.get_opts(location, options))
    }

    fn get_ranges<'a, 'b, 'c, 'r>(&'a self, location: &'b Path, ranges: &'c [Range<u64>]) -> BoxFuture<'r, Result<Vec<Bytes>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        Self: 'r,
    {
        self.inner.get_ranges(location, ranges)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (happens, heard) = self.next("delete".to_owned());
        let effect = happens.then(|| self.inner.delete_stream(locations));
        let effect = async move {
            let results = match effect {
                Some(effect) => effect.collect::<Vec<_>>().await,
                None => vec![],
            };
            futures::stream::iter(if heard { results } else { vec![Err(injected())] })
        };
        effect.flatten_stream().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.next(format!("list {prefix:?}")) {
            (_, true) => self.inner.list(prefix),
            (_, false) => futures::stream::iter([Err(injected())]).boxed(),
        }
    }

    fn list_with_delimiter<'a, 'b, 'r>(&'a self, prefix: Option<&'b Path>) -> BoxFuture<'r, Result<ListResult>>
    where
        'a: 'r,
        'b: 'r,
        Self: 'r,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'c, 'r>(&'a self, from: &'b Path, to: &'c Path, options: CopyOptions) -> BoxFuture<'r, Result<()>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        Self: 'r,
    {
        self.around(format!("copy {from} {to}"), self.inner.copy_opts(from, to, options))
    }
}
