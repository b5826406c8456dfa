//! Components as users pushed them, named `name@version`, stored once by what they are.
//!
//! ```text
//!  modules/names/<name>/<version>.json   what the version is: digest, world, imports, states. Its existence is the push
//!  modules/blobs/<digest>.wasm           the component
//!  modules/cache/<digest>-<engine>.cwasm compiled for this machine; may be deleted at any time
//! ```
//!
//! Invariants:
//! * a version never changes: the same bytes again are a no-op, other bytes are refused;
//! * the blob is durable before a name points to it, and stays until the last name is gone;
//! * what a name says was found by the inspector in exactly these bytes;
//! * compiled code is handed out only with its checksum right: the engine does not check it, and runs it.
//!
//! The calls block on the disk and on the compiler. Whether a job still needs a module is the job manager's knowledge.

use crate::api::{ModuleDescription, ModuleView, Problem, now_ms};
use crate::durable_file;
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tidegate_core::limits::{MODULE_BYTES_MAX, NAME_BYTES_MAX};
use xxhash_rust::xxh3::xxh3_128;

/// Looks into components. Implemented by the wasm engine.
pub trait ModuleInspector: Send + Sync + 'static {
    /// Everything that makes the bytes unfit is in the error, not the first thing only. Takes as long as a compiler does.
    fn inspect(&self, bytes: &[u8]) -> Result<ModuleInfo, ModuleError>;

    /// Changes whenever compiled code of before can't be used any more: the engine's version and a hash of its settings. Becomes a
    /// part of file names.
    fn engine_version(&self) -> String;
}

#[derive(Debug, Clone)]
pub struct ModuleInfo {
    pub description: ModuleDescription,
    /// The engine's own form of the compiled component.
    pub compiled: Vec<u8>,
}

/// The component can't be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{attempted}: {cause}")]
pub struct ModuleError {
    pub attempted: String,
    pub cause: String,
    pub remedy: Option<String>,
    /// One for each import that is refused, each declaration that is out of bounds, and so on.
    pub problems: Vec<Problem>,
    /// The component is not to blame: the host could not look at it.
    pub is_of_the_host: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ModuleStoreError {
    #[error("{what} `{value}` is not allowed: {rule}")]
    BadName { what: &'static str, value: String, rule: &'static str },
    #[error("component of {bytes} bytes exceeds the limit of {max} (module_bytes_max)")]
    TooLarge { bytes: usize, max: usize },
    #[error(transparent)]
    Refused(#[from] ModuleError),
    #[error("{name}@{version} exists with digest {existing}, the pushed component has {pushed}")]
    VersionTaken { name: String, version: String, existing: String, pushed: String },
    #[error("{attempted}: {source}")]
    Storage { attempted: String, source: io::Error },
    #[error("{}: {cause}", path.display())]
    Damaged { path: PathBuf, cause: String },
}

type Result<T, E = ModuleStoreError> = std::result::Result<T, E>;

/// Cheap to clone.
#[derive(Clone)]
pub struct ModuleStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    inspector: Arc<dyn ModuleInspector>,
    engine: String,
    bytes_max: usize,
    /// Between "no name needs the blob" and its removal no push may count on it.
    blobs: Mutex<()>,
}

impl ModuleStore {
    /// `root` is the `modules` folder.
    pub fn open(root: &Path, inspector: Arc<dyn ModuleInspector>) -> Result<Self> {
        Self::with_limit(root, inspector, MODULE_BYTES_MAX)
    }

    pub fn with_limit(root: &Path, inspector: Arc<dyn ModuleInspector>, bytes_max: usize) -> Result<Self> {
        for folder in ["names", "blobs", "cache"] {
            let folder = root.join(folder);
            durable_file::create_folder(&folder).map_err(|e| storage(format!("make the folder {}", folder.display()), e))?;
            durable_file::remove_temporaries(&folder).map_err(|e| storage(format!("clean {}", folder.display()), e))?;
        }
        // Each name has a folder of its own, in which a push may have died.
        for folder in folder_entries(&root.join("names"))?.iter().filter(|folder| folder.is_dir()) {
            durable_file::remove_temporaries(folder).map_err(|e| storage(format!("clean {}", folder.display()), e))?;
        }
        let engine = inspector.engine_version();
        assert!(is_file_name(&engine), "BUG: engine version {engine:?} can't be part of a file name");
        Ok(Self { inner: Arc::new(Inner { root: root.to_owned(), inspector, engine, bytes_max, blobs: Mutex::new(()) }) })
    }

    pub fn bytes_max(&self) -> usize {
        self.inner.bytes_max
    }

    pub fn engine(&self) -> &str {
        &self.inner.engine
    }

    /// Looks into the component, compiles it, stores it. `true`: the version is new.
    pub fn push(&self, name: &str, version: &str, bytes: &[u8]) -> Result<(ModuleView, bool)> {
        check_name(name)?;
        check_version(version)?;
        if bytes.len() > self.inner.bytes_max {
            return Err(ModuleStoreError::TooLarge { bytes: bytes.len(), max: self.inner.bytes_max });
        }
        let digest = digest_of(bytes);
        // Before the compiler: the usual case of a repeated push costs nothing.
        if let Some(existing) = self.get(name, version)? {
            return same_or_taken(existing, digest);
        }
        let info = self.inner.inspector.inspect(bytes)?;
        let view = ModuleView {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: digest.clone(),
            size_bytes: bytes.len() as u64,
            created_ms: now_ms(),
            description: info.description,
        };
        self.put_compiled(&digest, &info.compiled)?;

        let _blobs = self.lock_blobs();
        let blob = self.blob_path(&digest);
        durable_file::create(&blob, bytes).map_err(|e| storage(format!("store {}", blob.display()), e))?;
        let path = self.name_path(name, version);
        let json = serde_json::to_vec_pretty(&view).expect("BUG: a module's description is not JSON");
        let created = durable_file::create(&path, &json).map_err(|e| storage(format!("store {}", path.display()), e))?;
        if created {
            return Ok((view, true));
        }
        // Somebody pushed the same version at the same time.
        match self.get(name, version)? {
            Some(existing) => same_or_taken(existing, digest),
            None => Err(ModuleStoreError::Damaged { path, cause: "exists and can't be found".into() }),
        }
    }

    pub fn get(&self, name: &str, version: &str) -> Result<Option<ModuleView>> {
        if check_name(name).is_err() || check_version(version).is_err() {
            // What can't have been stored is not there.
            return Ok(None);
        }
        read_view(&self.name_path(name, version))
    }

    /// `name@version` of a job file.
    pub fn resolve(&self, reference: &str) -> Result<Option<ModuleView>> {
        match reference.split_once('@') {
            Some((name, version)) => self.get(name, version),
            None => Ok(None),
        }
    }

    /// By name, then by age.
    pub fn list(&self) -> Result<Vec<ModuleView>> {
        let names = self.inner.root.join("names");
        let mut views = Vec::new();
        for folder in folder_entries(&names)? {
            if !folder.is_dir() {
                continue;
            }
            for path in folder_entries(&folder)? {
                if path.extension().is_some_and(|e| e == "json")
                    && let Some(view) = read_view(&path)?
                {
                    views.push(view);
                }
            }
        }
        views.sort_by(|a, b| (&a.name, a.created_ms, &a.version).cmp(&(&b.name, b.created_ms, &b.version)));
        Ok(views)
    }

    /// `false` if there is no such version. The caller makes sure that no job needs it.
    pub fn delete(&self, name: &str, version: &str) -> Result<bool> {
        let _blobs = self.lock_blobs();
        let Some(view) = self.get(name, version)? else { return Ok(false) };
        let path = self.name_path(name, version);
        durable_file::remove(&path).map_err(|e| storage(format!("remove {}", path.display()), e))?;
        if let Some(folder) = path.parent() {
            // Fails while other versions are there, and nobody minds an empty folder.
            let _ = fs::remove_dir(folder);
        }
        if !self.list()?.iter().any(|other| other.digest == view.digest) {
            let blob = self.blob_path(&view.digest);
            durable_file::remove(&blob).map_err(|e| storage(format!("remove {}", blob.display()), e))?;
            for cached in folder_entries(&self.inner.root.join("cache"))? {
                if cached.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&view.digest)) {
                    durable_file::remove(&cached).map_err(|e| storage(format!("remove {}", cached.display()), e))?;
                }
            }
        }
        Ok(true)
    }

    /// The component's bytes, checked against the digest.
    pub fn component(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).map_err(|e| storage(format!("read {}", path.display()), e))?;
        let found = digest_of(&bytes);
        if found != digest {
            return Err(ModuleStoreError::Damaged { path, cause: format!("its SHA-256 is {found}: push the module again") });
        }
        Ok(bytes)
    }

    /// What [`Self::put_compiled`] stored for this engine. Nothing if it is missing or damaged: then compile again.
    pub fn compiled(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let path = self.cache_path(digest);
        let mut bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(storage(format!("read {}", path.display()), error)),
        };
        let Some(split) = bytes.len().checked_sub(CHECKSUM_BYTES) else { return self.drop_compiled(&path) };
        if xxh3_128(&bytes[..split]).to_le_bytes() != bytes[split..] {
            return self.drop_compiled(&path);
        }
        bytes.truncate(split);
        Ok(Some(bytes))
    }

    pub fn put_compiled(&self, digest: &str, compiled: &[u8]) -> Result<()> {
        let path = self.cache_path(digest);
        let mut bytes = Vec::with_capacity(compiled.len() + CHECKSUM_BYTES);
        bytes.extend_from_slice(compiled);
        bytes.extend_from_slice(&xxh3_128(compiled).to_le_bytes());
        durable_file::replace(&path, &bytes).map_err(|e| storage(format!("store {}", path.display()), e))
    }

    /// The machine code once more, where the cache has none. Waits for the compiler.
    pub fn compile_again(&self, digest: &str) -> Result<Vec<u8>> {
        let info = self.inner.inspector.inspect(&self.component(digest)?)?;
        if let Err(error) = self.put_compiled(digest, &info.compiled) {
            tracing::warn!(%digest, %error, "compiled code is not cached; the next start compiles again");
        }
        Ok(info.compiled)
    }

    fn drop_compiled(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        tracing::warn!(path = %path.display(), "compiled module is damaged and will be compiled again");
        durable_file::remove(path).map_err(|e| storage(format!("remove {}", path.display()), e))?;
        Ok(None)
    }

    fn lock_blobs(&self) -> std::sync::MutexGuard<'_, ()> {
        self.inner.blobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn name_path(&self, name: &str, version: &str) -> PathBuf {
        self.inner.root.join("names").join(name).join(format!("{version}.json"))
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        assert!(is_file_name(digest), "BUG: {digest:?} is no digest");
        self.inner.root.join("blobs").join(format!("{digest}.wasm"))
    }

    fn cache_path(&self, digest: &str) -> PathBuf {
        assert!(is_file_name(digest), "BUG: {digest:?} is no digest");
        self.inner.root.join("cache").join(format!("{digest}-{}.cwasm", self.inner.engine))
    }
}

const CHECKSUM_BYTES: usize = 16;

/// SHA-256 in hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub const NAME_RULE: &str = "1 to 64 of a-z, 0-9, `-` and `_`, a letter or digit first (name_bytes_max)";
const VERSION_RULE: &str = "1 to 64 of A-Z, a-z, 0-9, `.`, `-`, `_` and `+`, a letter or digit first (name_bytes_max)";

/// Names of jobs and modules become names of folders and of metrics.
pub fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed)
}

fn check_name(name: &str) -> Result<()> {
    if is_name(name) { Ok(()) } else { Err(bad_name("module name", name, NAME_RULE)) }
}

fn check_version(version: &str) -> Result<()> {
    if is_file_name(version) && version.len() <= NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(bad_name("module version", version, VERSION_RULE))
    }
}

fn bad_name(what: &'static str, value: &str, rule: &'static str) -> ModuleStoreError {
    ModuleStoreError::BadName { what, value: value.chars().take(NAME_BYTES_MAX).collect(), rule }
}

/// No separator, nothing hidden, no way up.
fn is_file_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'))
}

fn same_or_taken(existing: ModuleView, pushed: String) -> Result<(ModuleView, bool)> {
    if existing.digest == pushed {
        return Ok((existing, false));
    }
    Err(ModuleStoreError::VersionTaken { name: existing.name, version: existing.version, existing: existing.digest, pushed })
}

fn read_view(path: &Path) -> Result<Option<ModuleView>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| ModuleStoreError::Damaged { path: path.to_owned(), cause: e.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(storage(format!("read {}", path.display()), error)),
    }
}

fn folder_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(|e| storage(format!("list {}", folder.display()), e))
}

fn storage(attempted: String, source: io::Error) -> ModuleStoreError {
    ModuleStoreError::Storage { attempted, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::OperatorDescription;
    use crate::fault::io_step::{IoSteps, Trouble};
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Inspector {
        calls: AtomicUsize,
    }

    impl ModuleInspector for Inspector {
        fn inspect(&self, bytes: &[u8]) -> Result<ModuleInfo, ModuleError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            Ok(ModuleInfo {
                description: ModuleDescription {
                    world: "processor".into(),
                    imports: vec![],
                    operator: OperatorDescription::default(),
                    states: vec![],
                    compile_ms: 1,
                },
                compiled: bytes.iter().rev().copied().collect(),
            })
        }

        fn engine_version(&self) -> String {
            "48.0.0-test".into()
        }
    }

    fn store() -> (tempfile::TempDir, ModuleStore, Arc<Inspector>) {
        let folder = tempfile::tempdir().unwrap();
        let inspector = Arc::new(Inspector::default());
        let store = ModuleStore::with_limit(&folder.path().join("modules"), inspector.clone(), 100).unwrap();
        (folder, store, inspector)
    }

    fn temporaries(folder: &Path) -> Vec<PathBuf> {
        let entries = folder_entries(folder).unwrap().into_iter();
        let below = entries.flat_map(|path| if path.is_dir() { temporaries(&path) } else { vec![path] });
        below.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".tmp-")).collect()
    }

    #[test]
    fn a_push_that_goes_wrong_at_any_call_can_be_repeated_and_leaves_nothing_behind() {
        let mut tried = 0;
        for trouble in Trouble::ALL {
            for step in 0.. {
                let (folder, store, _) = store();
                store.push("delays", "1.0.0", b"one").unwrap();
                let steps = IoSteps::new(Some((step, trouble)), 0);
                let pushed = {
                    let _entered = steps.enter();
                    store.push("delays", "1.1.0", b"two")
                };
                if steps.taken() <= step {
                    pushed.unwrap();
                    break;
                }
                tried += 1;
                let root = folder.path().join("modules");
                let store = ModuleStore::with_limit(&root, Arc::new(Inspector::default()), 100).unwrap();
                assert_eq!(temporaries(&root), Vec::<PathBuf>::new(), "{trouble:?} at {:?}", steps.names().last());
                match store.get("delays", "1.1.0").unwrap() {
                    // What is there is whole.
                    Some(view) => assert_eq!(store.component(&view.digest).unwrap(), b"two"),
                    None => assert!(pushed.is_err(), "{trouble:?} at step {step}: told to be stored, and is not"),
                }
                let (view, _) = store.push("delays", "1.1.0", b"two").unwrap();
                assert_eq!(store.component(&view.digest).unwrap(), b"two");
                assert_eq!(store.list().unwrap().len(), 2);
            }
        }
        assert!(tried >= 4 * 15, "{tried}");
    }

    #[test]
    fn a_version_never_changes_and_the_same_bytes_are_not_compiled_twice() {
        let (_folder, store, inspector) = store();
        let (first, created) = store.push("delays", "1.2.0", b"one").unwrap();
        assert!(created);
        let (again, created) = store.push("delays", "1.2.0", b"one").unwrap();
        assert!(!created);
        assert_eq!(first, again);
        assert_eq!(inspector.calls.load(Ordering::Relaxed), 1);
        assert!(matches!(store.push("delays", "1.2.0", b"two"), Err(ModuleStoreError::VersionTaken { .. })));
        assert_eq!(store.resolve("delays@1.2.0").unwrap(), Some(first));
    }

    #[test]
    fn the_blob_stays_until_the_last_name_is_gone() {
        let (folder, store, _) = store();
        let (view, _) = store.push("a", "1", b"one").unwrap();
        store.push("b", "1", b"one").unwrap();
        assert_eq!(store.list().unwrap().len(), 2);
        assert!(store.delete("a", "1").unwrap());
        assert_eq!(store.component(&view.digest).unwrap(), b"one");
        assert!(store.delete("b", "1").unwrap());
        assert!(!store.delete("b", "1").unwrap());
        assert!(store.component(&view.digest).is_err());
        assert_eq!(store.compiled(&view.digest).unwrap(), None);
        for sub in ["names", "blobs", "cache"] {
            assert_eq!(fs::read_dir(folder.path().join("modules").join(sub)).unwrap().count(), 0, "{sub}");
        }
    }

    #[test]
    fn damaged_compiled_code_is_never_handed_out() {
        let (_folder, store, _) = store();
        let (view, _) = store.push("a", "1", b"one").unwrap();
        assert_eq!(store.compiled(&view.digest).unwrap().as_deref(), Some(&b"eno"[..]));
        let path = store.cache_path(&view.digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(store.compiled(&view.digest).unwrap(), None);
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_component_is_found_by_its_digest() {
        let (_folder, store, _) = store();
        let (view, _) = store.push("a", "1", b"one").unwrap();
        fs::write(store.blob_path(&view.digest), b"two").unwrap();
        assert!(matches!(store.component(&view.digest), Err(ModuleStoreError::Damaged { .. })));
    }

    #[test]
    fn names_that_leave_the_folder_and_components_over_the_limit_are_refused() {
        let (_folder, store, _) = store();
        for name in ["", "..", "a/b", "../a", ".a", "A", "a b", &"a".repeat(65)] {
            assert!(matches!(store.push(name, "1", b"x"), Err(ModuleStoreError::BadName { .. })), "{name:?}");
            assert_eq!(store.get(name, "1").unwrap(), None);
        }
        for version in ["", "..", "1/2", ".1", "1 2", &"1".repeat(65)] {
            assert!(matches!(store.push("a", version, b"x"), Err(ModuleStoreError::BadName { .. })), "{version:?}");
        }
        assert!(matches!(store.push("a", "1", &[0; 101]), Err(ModuleStoreError::TooLarge { bytes: 101, max: 100 })));
    }
}
