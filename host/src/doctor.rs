//! A look at the machine and at a data folder: what would keep a host from running here, and whether what is stored can be read.
//!
//! Invariants:
//! * nothing is changed: the one file that is written is removed again;
//! * what can't be read is a finding with a remedy, never the end of the examination;
//! * it may run beside a host that is at work: what that host writes meanwhile is no damage.

use crate::api::ModuleView;
use crate::checkpoint_store::{CheckpointStore, StoreError};
use crate::durable_file::unique_id;
use crate::job_store::{JOB_FORMAT, StoredJob};
use crate::module_store::digest_of;
use crate::task::snapshot::explain;
use crate::{system, wasm};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tidegate_core::checkpoint::{MANIFEST_FORMAT, Manifest};
use tidegate_core::recovery::{self, Restore};

const FREE_BYTES_LEAST: u64 = 100 << 20;
const FREE_BYTES_ENOUGH: u64 = 1 << 30;
/// Sources keep files open, and each connection is one.
const OPEN_FILES_ENOUGH: u64 = 1024;
/// A checkpoint takes some of them.
const FSYNC_SLOW: Duration = Duration::from_millis(100);
const FSYNC_TRIES: usize = 5;
/// Between the clock of the machine and that of the file system.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(10);
/// 2026-01-01: before this program was made.
const CLOCK_LEAST: Duration = Duration::from_secs(1_767_225_600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    Ok,
    /// It works, and may not for long.
    Warn,
    Fail,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `fsync`, `job flights`.
    pub subject: String,
    pub health: Health,
    pub found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

fn finding(subject: &str, health: Health, found: impl Into<String>, remedy: Option<&str>) -> Finding {
    Finding { subject: subject.to_owned(), health, found: found.into(), remedy: remedy.map(str::to_owned) }
}

fn ok(subject: &str, found: impl Into<String>) -> Finding {
    finding(subject, Health::Ok, found, None)
}

fn warn(subject: &str, found: impl Into<String>, remedy: &str) -> Finding {
    finding(subject, Health::Warn, found, Some(remedy))
}

fn fail(subject: &str, found: impl Into<String>, remedy: &str) -> Finding {
    finding(subject, Health::Fail, found, Some(remedy))
}

/// The machine, without a data folder.
pub fn machine() -> Vec<Finding> {
    vec![engine(), open_files()]
}

/// Whether a host could listen there.
pub fn port(listen: SocketAddr) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => ok("port", format!("{listen} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => warn(
            "port",
            format!("{listen} is taken"),
            "a host may be running there (ask it with --server), or choose another --listen",
        ),
        Err(error) => fail("port", format!("{listen}: {error}"), "choose another address with --listen"),
    }
}

fn engine() -> Finding {
    match wasm::self_test::self_test() {
        Ok(took) => ok("engine", format!("compiled and ran a component in {} ms", took.as_millis())),
        Err(error) => fail("engine", error, "this machine can't run guests: report it with its processor and kernel"),
    }
}

fn open_files() -> Finding {
    match system::file_limit() {
        Ok((now, _)) if now >= OPEN_FILES_ENOUGH => ok("open files", format!("{now} allowed")),
        Ok((now, most)) => {
            let remedy = format!("raise it: ulimit -n {} (LimitNOFILE= of a systemd unit)", OPEN_FILES_ENOUGH.min(most));
            warn("open files", format!("{now} allowed, {OPEN_FILES_ENOUGH} are enough for most jobs"), &remedy)
        }
        Err(error) => warn("open files", error.to_string(), "look at ulimit -n"),
    }
}

/// The data folder and everything in it.
pub async fn data_folder(data: &Path) -> Vec<Finding> {
    if !data.exists() {
        return vec![warn(
            "data folder",
            format!("{} is not there", data.display()),
            "a host makes it; or name another with --data",
        )];
    }
    if !data.is_dir() {
        return vec![fail("data folder", format!("{} is not a folder", data.display()), "name a folder with --data")];
    }
    let mut findings = disk(data);
    findings.push(free_space(data));
    findings.extend(modules(data));
    for job in folders(&data.join("jobs")) {
        findings.extend(self::job(data, &job).await);
    }
    findings
}

/// Written, synced and removed: that the folder can be written to, how long an fsync takes, and what the file system's clock says.
fn disk(data: &Path) -> Vec<Finding> {
    let path = data.join(format!(".tidegate-doctor-{}", unique_id()));
    let remedy = "let the host's user own the folder, and look for a file system that is full or mounted read-only";
    let tried = (|| -> std::io::Result<(Duration, SystemTime)> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        let mut took = Vec::new();
        for _ in 0..FSYNC_TRIES {
            file.write_all(&[0; 4096])?;
            let begun = Instant::now();
            file.sync_all()?;
            took.push(begun.elapsed());
        }
        took.sort_unstable();
        Ok((took[FSYNC_TRIES / 2], file.metadata()?.modified()?))
    })();
    // Also of a file that could not be written to its end.
    let removed = std::fs::remove_file(&path);
    match tried {
        Err(error) => vec![fail("data folder", format!("{} can't be written to: {error}", data.display()), remedy)],
        Ok((took, modified)) => {
            let mut findings = vec![ok("data folder", format!("{} can be written to", data.display()))];
            if let Err(error) = removed {
                findings.push(warn("data folder", format!("{} can't be removed: {error}", path.display()), remedy));
            }
            let found = format!("a write of 4 KiB is durable after {:.1} ms", took.as_secs_f64() * 1e3);
            findings.push(match took > FSYNC_SLOW {
                true => warn("fsync", found, "checkpoints will be slow: put the data folder on a faster disk"),
                false => ok("fsync", found),
            });
            findings.push(clock(modified));
            findings
        }
    }
}

fn clock(of_the_disk: SystemTime) -> Finding {
    let now = SystemTime::now();
    let remedy = "set the clock: processing time, time to live and the times in logs come from it";
    let apart = now.duration_since(of_the_disk).unwrap_or_else(|earlier| earlier.duration());
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since >= CLOCK_LEAST => match apart <= CLOCK_DIFFERENCE {
            true => ok("clock", "it is plausible, and the file system agrees"),
            false => warn("clock", format!("the file system's is {} s apart", apart.as_secs()), remedy),
        },
        _ => fail("clock", "it stands before the time when this program was made", remedy),
    }
}

fn free_space(data: &Path) -> Finding {
    let mib = |bytes: u64| format!("{} MiB free", bytes >> 20);
    match system::free_bytes(data) {
        Ok(bytes) if bytes < FREE_BYTES_LEAST => fail("free space", mib(bytes), "make room: checkpoints can't be written"),
        Ok(bytes) if bytes < FREE_BYTES_ENOUGH => warn("free space", mib(bytes), "make room before checkpoints can't be written"),
        Ok(bytes) => ok("free space", mib(bytes)),
        Err(error) => warn("free space", error.to_string(), "look at df"),
    }
}

/// Names of the folders in a folder, sorted.
fn folders(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

fn modules(data: &Path) -> Vec<Finding> {
    let (mut sound, mut findings) = (0, Vec::new());
    let names = data.join("modules").join("names");
    for name in folders(&names) {
        for entry in std::fs::read_dir(names.join(&name)).into_iter().flatten().flatten() {
            match module(data, &entry.path()) {
                Ok(()) => sound += 1,
                Err(error) => {
                    findings.push(fail(&format!("module {name}"), error, "push the module again, from the same component"));
                }
            }
        }
    }
    findings.insert(0, ok("modules", format!("{sound} can be read and have their digests")));
    findings
}

fn module(data: &Path, path: &Path) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let view: ModuleView = serde_json::from_slice(&std::fs::read(path).map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?;
    let blob = data.join("modules").join("blobs").join(format!("{}.wasm", view.digest));
    let bytes = std::fs::read(&blob).map_err(|error| format!("{}: {error}", blob.display()))?;
    match digest_of(&bytes) == view.digest {
        true => Ok(()),
        false => Err(format!("{} is damaged: it does not have the digest in its name", blob.display())),
    }
}

/// One job: its file, its log, the checkpoints that the log names, its savepoints, and what nothing names.
async fn job(data: &Path, name: &str) -> Vec<Finding> {
    let subject = format!("job {name}");
    let mut findings = Vec::new();
    match job_file(&data.join("jobs").join(name).join("job.json")) {
        Ok(Some(_)) => {}
        Ok(None) => findings.push(ok(&subject, "deleted; its savepoints are kept")),
        Err((found, remedy)) => findings.push(fail(&subject, found, remedy)),
    }
    let store = match CheckpointStore::open_local(data, name) {
        Ok(store) => store,
        Err(error) => {
            findings.push(fail(&subject, explain(&error), "check the folder's permissions"));
            return findings;
        }
    };
    let mut named = BTreeSet::new();
    findings.extend(checkpoints(&store, &subject, &mut named).await);
    findings.extend(savepoints(&store, &subject).await);
    findings.push(leftovers(&data.join("jobs").join(name), &subject, &named));
    findings
}

fn job_file(path: &Path) -> Result<Option<StoredJob>, (String, &'static str)> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err((format!("{}: {error}", path.display()), "check the file's permissions")),
        Ok(bytes) => bytes,
    };
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |error: serde_json::Error| {
        (format!("{} is damaged: {error}", path.display()), "put the file back from a copy; its checkpoints are not touched")
    };
    let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if format > JOB_FORMAT {
        let found = format!("{} has format {format}, this version knows {JOB_FORMAT}", path.display());
        return Err((found, "use the version of tidegate that wrote it, or a newer one"));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Reads every checkpoint that the log names, first the one that a restore begins with. What retention has given up may be gone.
async fn checkpoints(store: &CheckpointStore, subject: &str, named: &mut BTreeSet<String>) -> Vec<Finding> {
    let step_back = "start the job from a savepoint (job start --from), or fresh";
    let log = match store.read_log().await {
        Ok(log) => log,
        Err(error) => return vec![fail(subject, format!("its decision log: {}", explain(&error)), step_back)],
    };
    let from = match recovery::plan(&log) {
        Ok(plan) => match plan.restore {
            Restore::From(from) => from,
            Restore::Fresh => return vec![ok(subject, "it has no completed checkpoint: it starts from nothing")],
        },
        Err(error) => return vec![fail(subject, format!("its decision log: {error}"), step_back)],
    };
    let (mut read, mut segments, mut bytes, mut findings) = (0, 0, 0, Vec::new());
    for pointer in [&from].into_iter().chain(recovery::completed(&log).into_iter().filter(|it| **it != from)) {
        let checked = async {
            let manifest = store.read_manifest(pointer).await?;
            // Named even where one of them is damaged: it is not left over.
            named.insert(pointer.path.clone());
            named.extend(manifest.segments().map(|segment| segment.path.clone()));
            let size = check_segments(store, &manifest).await?;
            Ok::<_, StoreError>((manifest.segments().count(), size))
        };
        match checked.await {
            Ok((count, size)) => (read, segments, bytes) = (read + 1, segments + count, bytes + size),
            Err(error) if *pointer == from => {
                findings.push(fail(subject, format!("checkpoint {}: {}", pointer.checkpoint, explain(&error)), step_back));
            }
            Err(StoreError::Missing { .. }) => {}
            Err(error) => {
                let found = format!("checkpoint {}: {}", pointer.checkpoint, explain(&error));
                findings.push(warn(subject, found, "it is an older one, and the next checkpoints take its place"));
            }
        }
    }
    let (kib, newest) = (bytes.div_ceil(1024), from.checkpoint);
    let found = format!(
        "{read} checkpoints are sound (format {MANIFEST_FORMAT}; {segments} segments, {kib} KiB); the newest is {newest}"
    );
    findings.push(ok(subject, found));
    findings
}

/// Length and checksum of each.
async fn check_segments(store: &CheckpointStore, manifest: &Manifest) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for segment in manifest.segments() {
        bytes += store.read_segment(segment).await?.len() as u64;
    }
    Ok(bytes)
}

async fn savepoints(store: &CheckpointStore, subject: &str) -> Vec<Finding> {
    let remedy = "it can't be started from: delete it, and take another";
    let ids = match store.list_savepoints().await {
        Ok(ids) => ids,
        Err(error) => return vec![fail(subject, explain(&error), "check the folder's permissions")],
    };
    let (mut sound, mut findings) = (0, Vec::new());
    for id in ids {
        let checked = async {
            let savepoint = store.read_savepoint(&id).await?;
            check_segments(store, &savepoint.manifest).await
        };
        match checked.await {
            Ok(_) => sound += 1,
            Err(error) => findings.push(fail(subject, format!("savepoint {id}: {}", explain(&error)), remedy)),
        }
    }
    if sound > 0 {
        findings.push(ok(subject, format!("{sound} savepoints are sound")));
    }
    findings
}

/// Files under `manifests` and `segments` that no checkpoint names: of one that is under way, or left behind by a crash.
fn leftovers(folder: &Path, subject: &str, named: &BTreeSet<String>) -> Finding {
    let (mut files, mut bytes) = (0, 0);
    let mut open = vec![folder.join("manifests"), folder.join("segments")];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path: PathBuf = entry.path();
            let relative = path.strip_prefix(folder).map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(path),
                Ok(metadata) if !named.contains(&relative) => (files, bytes) = (files + 1, bytes + metadata.len()),
                _ => {}
            }
        }
    }
    match files {
        0 => ok(subject, "nothing is left over"),
        n => ok(
            subject,
            format!("{n} files ({} KiB) are named by no checkpoint: the next start removes them", bytes.div_ceil(1024)),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint_store::SegmentDraft;
    use tidegate_core::checkpoint::{CheckpointKind, OperatorManifest};

    fn worst(findings: &[Finding]) -> Health {
        match findings.iter() {
            all if all.clone().any(|it| it.health == Health::Fail) => Health::Fail,
            all if all.clone().any(|it| it.health == Health::Warn) => Health::Warn,
            _ => Health::Ok,
        }
    }

    /// A job with one checkpoint of one segment, and a segment that nothing names.
    async fn stored(data: &Path) -> String {
        let store = CheckpointStore::open_local(data, "flights").unwrap();
        let mut log = store.acquire(0).await.unwrap().log;
        let draft = |checkpoint| SegmentDraft {
            operator: "count",
            task_index: 0,
            checkpoint,
            first_group: 0,
            end_group: 16,
            full: true,
            entries: 1,
        };
        let segment = store.put_segment(draft(1), "the state".into()).await.unwrap();
        store.put_segment(draft(2), "left over".into()).await.unwrap();
        let path = segment.path.clone();
        let operator = OperatorManifest { parallelism: 1, tasks: vec![vec![segment]], ..Default::default() };
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            job: "flights".into(),
            checkpoint: 1,
            kind: CheckpointKind::Checkpoint,
            key_groups: 16,
            operators: [("count".to_owned(), operator)].into(),
            sources: Default::default(),
            in_flight: Vec::new(),
            sinks: Default::default(),
            end_of_input: false,
            time_ms: 0,
        };
        let pointer = store.put_manifest(&manifest).await.unwrap();
        log.commit(pointer, 0).await.unwrap();
        path
    }

    #[tokio::test]
    async fn a_sound_folder_has_no_findings_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        stored(folder.path()).await;
        let before = std::fs::read_dir(folder.path()).unwrap().count();
        let findings = data_folder(folder.path()).await;
        assert_eq!(
            worst(&findings.into_iter().filter(|it| it.subject != "free space" && it.subject != "fsync").collect::<Vec<_>>()),
            Health::Ok
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
    }

    #[tokio::test]
    async fn what_no_checkpoint_names_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        stored(folder.path()).await;
        let findings = data_folder(folder.path()).await;
        assert!(findings.iter().any(|it| it.found.starts_with("1 files (1 KiB) are named by no checkpoint")), "{findings:#?}");
    }

    #[tokio::test]
    async fn one_bit_of_a_segment_is_found_and_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let segment = folder.path().join("jobs/flights").join(stored(folder.path()).await);
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let findings = data_folder(folder.path()).await;
        let bad: Vec<_> = findings.iter().filter(|it| it.health == Health::Fail).collect();
        assert_eq!(bad.len(), 1, "{findings:#?}");
        assert!(bad[0].found.contains("checkpoint 1") && bad[0].found.contains("checksum"), "{bad:?}");
        assert!(bad[0].remedy.as_deref().unwrap().contains("savepoint"), "{bad:?}");
    }

    #[tokio::test]
    async fn a_job_file_that_makes_no_sense_or_is_from_the_future_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jobs/a/job.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        for (text, why) in [("{", "is damaged"), (r#"{"format": 99}"#, "has format 99")] {
            std::fs::write(&file, text).unwrap();
            let findings = data_folder(folder.path()).await;
            assert!(findings.iter().any(|it| it.health == Health::Fail && it.found.contains(why)), "{findings:#?}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_a_warning_because_it_may_be_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(port(address).health, Health::Warn);
        drop(listener);
        assert_eq!(port(address).health, Health::Ok);
    }
}
