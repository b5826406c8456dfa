//! The decision log of one job: taking it over, adding to it, trimming it. What it means is decided in `tidegate_core::recovery`.
//!
//! ```text
//!  acquire:  create inc/<n+1> ─► read the log ─► create a fence at its end ─► does it stand at the end? ─► plan
//!                                     ▲                    │ taken                    │ no: trimmed there
//!                                     └────────────────────┴──────────────────────────┘
//! ```
//!
//! Invariants:
//! * an entry is created if absent and never changed; a create that says "exists", or fails, is followed by reading what is there;
//! * one decision at a time, at the next number;
//! * after a decision that is somebody else's or in doubt this incarnation adds nothing more.

use super::{AppendError, CheckpointStore, StoreError, StorePath, unique_id};
use crate::fault::{self, Fault};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use tidegate_core::checkpoint::{CheckpointId, ManifestPointer};
use tidegate_core::recovery::{self, Answered, CorruptLog, Decision, LogEntry, Plan, Seq};

/// A write that did not answer clearly is tried again so often; the pause doubles from the first one.
const WRITE_TRIES: usize = 5;
const FIRST_PAUSE_MS: u64 = 20;
/// Others start the same job at the same time, or go on deciding in it.
const ACQUIRE_TRIES: usize = 1000;
/// A listing is no snapshot: with somebody writing and trimming it may show a hole that is not there.
const READ_TRIES: usize = 5;

/// The job is ours, as far as anybody can tell.
#[derive(Debug)]
pub struct Acquired {
    pub log: DecisionLog,
    /// What to restore.
    pub plan: Plan,
}

/// The right to decide, until somebody else takes it.
#[derive(Debug)]
pub struct DecisionLog {
    store: CheckpointStore,
    incarnation: u64,
    uuid: String,
    /// As far as they are known and not trimmed, the last one at the end of the log.
    entries: Vec<(Seq, LogEntry)>,
    /// Fenced or in doubt.
    lost: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Incarnation {
    incarnation: u64,
    uuid: String,
    time_ms: u64,
    pid: u32,
}

/// What became of a create.
enum Created {
    Mine,
    Theirs(LogEntry),
    Unknown(StoreError),
}

impl CheckpointStore {
    /// Takes the job over: whoever worked on it until now can decide nothing more. `now_ms` is for people.
    pub async fn acquire(&self, now_ms: u64) -> Result<Acquired, StoreError> {
        let uuid = unique_id();
        let incarnation = self.create_incarnation(&uuid, now_ms).await?;
        fault::point(Fault::IncarnationWrittenFenceNot);
        let mut entries = self.read_log().await?;
        for _ in 0..ACQUIRE_TRIES {
            if let Some(newer) = recovery::superseded_by(&entries, incarnation) {
                return Err(StoreError::fenced(newer));
            }
            let plan = recovery::plan(&entries)?;
            let decision = Decision::Fence { first_checkpoint: plan.next_checkpoint };
            let fence = LogEntry { seq: plan.fence_at, incarnation, uuid: uuid.clone(), decision, time_ms: now_ms };
            match self.create_entry(&fence).await {
                Created::Unknown(error) => return Err(error),
                Created::Theirs(entry) => entries.push((entry.seq, entry)),
                Created::Mine => {
                    let last = self.list_log().await?.last().copied().unwrap_or(0);
                    if recovery::fence_holds(plan.fence_at, last) {
                        entries.push((fence.seq, fence));
                        let log = DecisionLog { store: self.clone(), incarnation, uuid, entries, lost: false };
                        return Ok(Acquired { log, plan });
                    }
                    entries = self.read_log().await?;
                }
            }
        }
        Err(StoreError::Contended { attempted: "fence the job", tries: ACQUIRE_TRIES })
    }

    /// The decision log as it stands, for people. Who is to act on it needs [`CheckpointStore::acquire`].
    pub async fn read_log(&self) -> Result<Vec<(Seq, LogEntry)>, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let retry = match self.try_read_log().await {
                Ok(entries) => match recovery::plan(&entries) {
                    Ok(_) => return Ok(entries),
                    Err(error @ CorruptLog::Gap { .. }) => StoreError::from(error),
                    Err(error) => return Err(error.into()),
                },
                // Trimmed between the listing and the reading.
                Err(error @ StoreError::Missing { .. }) => error,
                Err(error) => return Err(error),
            };
            if tries == READ_TRIES {
                return Err(retry);
            }
            pause(tries).await;
        }
    }

    async fn try_read_log(&self) -> Result<Vec<(Seq, LogEntry)>, StoreError> {
        let reads = self.list_log().await?.into_iter().map(|seq| async move { Ok((seq, self.read_entry(seq).await?)) });
        futures::stream::iter(reads).buffered(super::CONCURRENT_OBJECTS_MAX).try_collect().await
    }

    async fn list_log(&self) -> Result<Vec<Seq>, StoreError> {
        let mut numbers: Vec<_> =
            self.list(StorePath::DECISIONS).await?.iter().filter_map(|path| StorePath::number(path)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn read_entry(&self, seq: Seq) -> Result<LogEntry, StoreError> {
        self.read_json(&StorePath::Decision { seq }.to_string()).await
    }

    pub(super) async fn read_json<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, StoreError> {
        let bytes = self.read(path).await?;
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt { path: path.to_owned(), why: error.to_string() })
    }

    /// Numbers only order those who start the job; the fence is what counts.
    async fn create_incarnation(&self, uuid: &str, time_ms: u64) -> Result<u64, StoreError> {
        let listed = self.list(StorePath::INCARNATIONS).await?;
        let mut number = listed.iter().filter_map(|path| StorePath::number(path)).max().unwrap_or(0) + 1;
        for tries in 1..=ACQUIRE_TRIES {
            let path = StorePath::Incarnation { number }.to_string();
            let mine = Incarnation { incarnation: number, uuid: uuid.to_owned(), time_ms, pid: std::process::id() };
            let bytes = serde_json::to_vec(&mine).expect("BUG: an incarnation can be written as JSON");
            match self.create(&path, bytes.into()).await {
                Ok(()) => return Ok(number),
                Err(StoreError::Exists { .. }) => match self.read_json::<Incarnation>(&path).await?.uuid == uuid {
                    true => return Ok(number),
                    false => number += 1,
                },
                // It may be there: the next round finds out.
                Err(error) if tries >= WRITE_TRIES => return Err(error),
                Err(_) => pause(tries).await,
            }
        }
        Err(StoreError::Contended { attempted: "number an incarnation", tries: ACQUIRE_TRIES })
    }

    /// Create if absent, and look again until it is clear whose entry stands there.
    async fn create_entry(&self, entry: &LogEntry) -> Created {
        let path = StorePath::Decision { seq: entry.seq }.to_string();
        let bytes = serde_json::to_vec(entry).expect("BUG: a decision can be written as JSON");
        for tries in 1.. {
            let error = match self.create(&path, bytes.clone().into()).await {
                Ok(()) => return Created::Mine,
                // It may exist because an earlier try of ours went through and its answer did not.
                Err(error) => error,
            };
            let error = match self.read_entry(entry.seq).await {
                Ok(existing) => match recovery::create_answered(&existing, &entry.uuid) {
                    Answered::Mine => return Created::Mine,
                    Answered::Theirs => return Created::Theirs(existing),
                },
                // Absent: our create did not take place, or not yet. It is the same entry if it is tried again.
                Err(StoreError::Missing { .. }) => error,
                Err(error) => error,
            };
            if tries == WRITE_TRIES {
                return Created::Unknown(error);
            }
            pause(tries).await;
        }
        unreachable!("BUG: tries are counted")
    }
}

impl DecisionLog {
    pub fn job(&self) -> &str {
        self.store.job()
    }

    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// What is left of the log, oldest first: for stepping back and for retention.
    pub fn entries(&self) -> &[(Seq, LogEntry)] {
        &self.entries
    }

    /// Makes the checkpoint true.
    pub async fn commit(&mut self, pointer: ManifestPointer, now_ms: u64) -> Result<(), AppendError> {
        self.append(Decision::Commit { pointer }, now_ms).await
    }

    /// The job goes on from here; `None`: from nothing.
    pub async fn restore(&mut self, pointer: Option<ManifestPointer>, start: &str, now_ms: u64) -> Result<(), AppendError> {
        self.append(Decision::Restore { pointer, start: start.to_owned() }, now_ms).await
    }

    async fn append(&mut self, decision: Decision, time_ms: u64) -> Result<(), AppendError> {
        assert!(!self.lost, "BUG: incarnation {} decides again after it was stopped", self.incarnation);
        let seq = self.entries.last().map_or(0, |(seq, _)| *seq) + 1;
        let entry = LogEntry { seq, incarnation: self.incarnation, uuid: self.uuid.clone(), decision, time_ms };
        // Also while the answer is awaited: who drops this future does not know either.
        self.lost = true;
        match self.store.create_entry(&entry).await {
            Created::Mine => {
                self.lost = false;
                self.entries.push((seq, entry));
                Ok(())
            }
            Created::Theirs(theirs) => Err(AppendError::Fenced { seq, incarnation: theirs.incarnation, uuid: theirs.uuid }),
            Created::Unknown(source) => Err(AppendError::Unknown { seq, tries: WRITE_TRIES, source }),
        }
    }

    /// Deletes decisions about checkpoints older than `oldest`, one after the other: a crash halfway leaves a dense log.
    pub async fn trim(&mut self, oldest: CheckpointId) -> Result<(), StoreError> {
        for seq in recovery::removable(&self.entries, oldest) {
            let path = StorePath::Decision { seq }.to_string();
            match self.store.store.delete(&self.store.location(&path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => self.entries.retain(|(other, _)| *other != seq),
                Err(source) => return Err(StoreError::failed("delete", path, source)),
            }
        }
        Ok(())
    }
}

async fn pause(tries: usize) {
    tokio::time::sleep(std::time::Duration::from_millis(FIRST_PAUSE_MS << (tries - 1).min(6))).await;
}
