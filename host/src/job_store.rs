//! What jobs there are, and what their users want of them. One file a job: `jobs/<name>/job.json`.
//!
//! Invariants:
//! * a job's file is whole: an update replaces it atomically and is durable when the call returns;
//! * a file that can't be read hides no other job, and nobody writes over it;
//! * `job_id` is made when the job is created and stays: a job that is deleted and created again has another one.
//!
//! What a job leaves behind while it runs (checkpoints, decisions, savepoints) lies in the same folder and is the checkpoint
//! store's business.

use crate::api::{DesiredState, Ended, StartFrom};
use crate::data_folder::Claim;
use crate::durable_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_core::job_graph::spec::JobSpec;

pub const JOB_FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredJob {
    /// [`JOB_FORMAT`] of the host that wrote it.
    pub format: u32,
    pub name: String,
    pub job_id: String,
    /// As the user wrote it.
    pub source: Value,
    /// As checked.
    pub spec: JobSpec,
    /// Digest of each operator's module.
    pub modules: BTreeMap<String, String>,
    /// Relative paths of the job are relative to this folder; absolute, so that it does not matter where the next host is started.
    pub base: PathBuf,
    pub desired: DesiredState,
    pub start: StartIntent,
    pub created_ms: u64,
    pub changed_ms: u64,
    pub ended: Option<Ended>,
    /// The job is being deleted: a host that comes up finishes that, whatever `desired` says.
    pub deleting: Option<Deleting>,
}

/// A start that the user asked for. Its id goes into the decision log with the decision to restore (or to begin afresh), so a
/// crash between the decision and the update of this file does not carry the intent out twice: a log whose last `restore` entry
/// has this id is continued from its latest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartIntent {
    pub id: String,
    pub from: StartFrom,
    /// The user accepts that this start goes back to an older checkpoint where the newest can't be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_step_back: bool,
}

impl StartIntent {
    pub fn new(from: StartFrom) -> Self {
        Self { id: durable_file::unique_id(), from, allow_step_back: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleting {
    pub savepoints: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {source}")]
pub struct JobStoreError {
    pub attempted: String,
    pub source: io::Error,
}

/// A job whose file is there and makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub name: String,
    pub path: PathBuf,
    pub cause: String,
}

#[derive(Debug, Default)]
pub struct Loaded {
    pub jobs: Vec<StoredJob>,
    pub unreadable: Vec<Unreadable>,
}

/// The calls block on the disk.
#[derive(Debug, Clone)]
pub struct JobStore {
    root: PathBuf,
    /// While it holds, this host may change the jobs' files.
    claim: Option<Arc<Claim>>,
}

impl JobStore {
    /// `root` is the `jobs` folder.
    pub fn open(root: &Path) -> Result<Self, JobStoreError> {
        durable_file::create_folder(root).map_err(|e| error(format!("make the folder {}", root.display()), e))?;
        Ok(Self { root: root.to_owned(), claim: None })
    }

    pub fn claimed_by(self, claim: Arc<Claim>) -> Self {
        Self { claim: Some(claim), ..self }
    }

    pub fn load(&self) -> Result<Loaded, JobStoreError> {
        let mut loaded = Loaded::default();
        let folders = fs::read_dir(&self.root)
            .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>())
            .map_err(|e| error(format!("list {}", self.root.display()), e))?;
        for folder in folders {
            let Some(name) = folder.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            if !folder.is_dir() {
                continue;
            }
            durable_file::remove_temporaries(&folder).map_err(|e| error(format!("clean {}", folder.display()), e))?;
            let path = self.path(&name);
            match read(&name, &path) {
                Ok(Some(job)) => loaded.jobs.push(job),
                // Savepoints of a deleted job.
                Ok(None) => {}
                Err(cause) => loaded.unreadable.push(Unreadable { name, path, cause }),
            }
        }
        loaded.jobs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(loaded)
    }

    pub fn save(&self, job: &StoredJob) -> Result<(), JobStoreError> {
        let path = self.path(&job.name);
        self.check_claim(&path)?;
        let json = serde_json::to_vec_pretty(job).expect("BUG: a stored job is not JSON");
        durable_file::replace(&path, &json).map_err(|e| error(format!("store {}", path.display()), e))
    }

    /// The folder goes too, when nothing else is left in it.
    pub fn remove(&self, name: &str) -> Result<(), JobStoreError> {
        let path = self.path(name);
        self.check_claim(&path)?;
        durable_file::remove(&path).map_err(|e| error(format!("remove {}", path.display()), e))?;
        let _ = fs::remove_dir(self.root.join(name));
        Ok(())
    }

    fn check_claim(&self, path: &Path) -> Result<(), JobStoreError> {
        let claim = self.claim.as_ref().map_or(Ok(()), |claim| claim.check());
        claim.map_err(|e| error(format!("change {}", path.display()), e))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name).join("job.json")
    }
}

fn read(name: &str, path: &Path) -> Result<Option<StoredJob>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let format = serde_json::from_slice::<Value>(&bytes).map_err(|e| e.to_string())?["format"].as_u64();
    if format != Some(u64::from(JOB_FORMAT)) {
        return Err(format!(
            "its format is {}, this host reads {JOB_FORMAT}",
            format.map_or("missing".into(), |f| f.to_string())
        ));
    }
    let job: StoredJob = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    if job.name != name {
        return Err(format!("it is about the job `{}`", job.name));
    }
    Ok(Some(job))
}

fn error(attempted: String, source: io::Error) -> JobStoreError {
    JobStoreError { attempted, source }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fault::io_step::{IoSteps, Trouble};

    pub(crate) fn stored(name: &str) -> StoredJob {
        StoredJob {
            format: JOB_FORMAT,
            name: name.into(),
            job_id: durable_file::unique_id(),
            source: serde_json::json!({ "name": name }),
            spec: JobSpec {
                name: name.into(),
                delivery: Default::default(),
                key_groups: JobSpec::key_groups_default(),
                checkpoint: Default::default(),
                restart: Default::default(),
                batch: Default::default(),
                limits: Default::default(),
                sources: vec![],
                operators: vec![],
                sinks: vec![],
            },
            modules: BTreeMap::new(),
            base: "/".into(),
            desired: DesiredState::Running,
            start: StartIntent::new(StartFrom::savepoint("sp-1")),
            created_ms: 1,
            changed_ms: 2,
            ended: None,
            deleting: None,
        }
    }

    #[test]
    fn a_job_is_read_back_as_it_was_saved_and_the_last_save_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = JobStore::open(folder.path()).unwrap();
        let mut job = stored("a");
        store.save(&job).unwrap();
        job.desired = DesiredState::Stopped;
        store.save(&job).unwrap();
        store.save(&stored("b")).unwrap();
        let loaded = JobStore::open(folder.path()).unwrap().load().unwrap();
        assert_eq!(loaded.jobs.len(), 2);
        assert_eq!(loaded.jobs[0], job);
        store.remove("a").unwrap();
        assert_eq!(store.load().unwrap().jobs.len(), 1);
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn a_change_that_goes_wrong_at_any_call_leaves_the_old_job_or_the_new_one() {
        let mut tried = 0;
        for (trouble, removes) in Trouble::ALL.into_iter().flat_map(|trouble| [(trouble, false), (trouble, true)]) {
            for step in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let store = JobStore::open(folder.path()).unwrap();
                let old = stored("a");
                let new = StoredJob { desired: DesiredState::Stopped, ..old.clone() };
                store.save(&old).unwrap();
                let steps = IoSteps::new(Some((step, trouble)), 0);
                let changed = {
                    let _entered = steps.enter();
                    if removes { store.remove("a") } else { store.save(&new) }
                };
                if steps.taken() <= step {
                    changed.unwrap();
                    break;
                }
                tried += 1;
                let loaded = JobStore::open(folder.path()).unwrap().load().unwrap();
                assert_eq!(loaded.unreadable, []);
                let expected = [vec![old], if removes { vec![] } else { vec![new] }];
                assert!(expected.contains(&loaded.jobs), "{trouble:?} at step {step}: {:?}", loaded.jobs);
                assert!(
                    changed.is_err() || loaded.jobs == expected[1],
                    "{trouble:?} at step {step}: told to be stored, and is not"
                );
                let left = fs::read_dir(folder.path().join("a")).map_or(0, |entries| entries.count());
                assert_eq!(left, loaded.jobs.len(), "{trouble:?} at step {step}: something is left behind");
            }
        }
        assert!(tried >= 4 * 7, "{tried}");
    }

    #[test]
    fn an_unreadable_job_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = JobStore::open(folder.path()).unwrap();
        store.save(&stored("good")).unwrap();
        for (name, content) in [("torn", "{\"format\": 1"), ("newer", "{\"format\": 2}"), ("empty", "")] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("job.json"), content).unwrap();
        }
        fs::create_dir(folder.path().join("only-savepoints")).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.jobs.len(), 1);
        let mut names: Vec<&str> = loaded.unreadable.iter().map(|u| u.name.as_str()).collect();
        names.sort();
        assert_eq!(names, ["empty", "newer", "torn"]);
    }
}
