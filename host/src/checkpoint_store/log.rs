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
//! * after a decision that is somebody else's or in doubt this incarnation adds nothing more;
//! * an entry ends with a checksum over the rest of it. One that is damaged, or missing between others, is read as
//!   [`Decision::Lost`], and what follows from that is decided in core;
//! * numbers of incarnations are above all in the log and in `inc/`; those below the newest that has fenced are deleted, fences never.

use super::{AppendError, CheckpointStore, StoreError, StorePath, unique_id};
use crate::fault::{self, Fault};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tidegate_core::checkpoint::{CheckpointId, ManifestPointer};
use tidegate_core::recovery::{self, Answered, CorruptLog, Decision, LogEntry, Plan, Seq, StepBack};

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

/// All incarnations of one run of a job in one host, those included whose fence was never confirmed.
#[derive(Debug, Default)]
pub struct Incarnations {
    first: Option<u64>,
    uuids: BTreeSet<String>,
}

impl Incarnations {
    /// Somebody else who has taken the job over from this run.
    fn superseded_by<'a>(&self, entries: &'a [(Seq, LogEntry)]) -> Option<&'a LogEntry> {
        let first = self.first?;
        entries.iter().map(|(_, entry)| entry).rfind(|entry| entry.incarnation > first && !self.uuids.contains(&entry.uuid))
    }
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
        self.acquire_again(&mut Incarnations::default(), now_ms).await
    }

    /// As [`Self::acquire`], for the next attempt of a run: one that somebody else has fenced meanwhile does not take the job back.
    pub async fn acquire_again(&self, run: &mut Incarnations, now_ms: u64) -> Result<Acquired, StoreError> {
        let uuid = unique_id();
        let mut entries = self.read_log().await?;
        if let Some(stranger) = run.superseded_by(&entries) {
            return Err(StoreError::fenced(stranger));
        }
        run.uuids.insert(uuid.clone());
        let known = entries.iter().map(|(_, entry)| entry.incarnation).max().unwrap_or(0);
        let incarnation = self.create_incarnation(known, &uuid, now_ms).await?;
        run.first.get_or_insert(incarnation);
        fault::point(Fault::IncarnationWrittenFenceNot);
        entries = self.read_log().await?;
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
                        self.trim_incarnations(incarnation).await;
                        let log = DecisionLog { store: self.clone(), incarnation, uuid, entries, lost: false };
                        return Ok(Acquired { log, plan });
                    }
                    entries = self.read_log().await?;
                }
            }
        }
        Err(StoreError::Contended { attempted: "fence the job", tries: ACQUIRE_TRIES })
    }

    /// Who has taken the job over from this run, if anybody has.
    pub async fn taken_over(&self, run: &Incarnations) -> Result<Option<StoreError>, StoreError> {
        let entries = self.read_log().await?;
        Ok(run.superseded_by(&entries).map(StoreError::fenced))
    }

    /// The decision log as it stands, for people. Who is to act on it needs [`CheckpointStore::acquire`].
    pub async fn read_log(&self) -> Result<Vec<(Seq, LogEntry)>, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let read = self.try_read_log().await;
            let retry = match read {
                Ok(mut entries) => match recovery::plan(&entries) {
                    Ok(_) => return Ok(entries),
                    // Nobody trims for so long: it is a hole.
                    Err(CorruptLog::Gap { .. }) if tries == READ_TRIES => {
                        recovery::fill_gaps(&mut entries);
                        return Ok(entries);
                    }
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
        let reads = self.list_log().await?.into_iter().map(|seq| async move {
            match self.read_entry(seq).await {
                Ok(entry) => Ok((seq, entry)),
                Err(StoreError::Corrupt { why, .. }) => Ok((seq, LogEntry::lost(seq, format!("it is damaged: {why}")))),
                Err(error) => Err(error),
            }
        });
        futures::stream::iter(reads).buffered(super::CONCURRENT_OBJECTS_MAX).try_collect().await
    }

    async fn list_log(&self) -> Result<Vec<Seq>, StoreError> {
        let mut numbers: Vec<_> =
            self.list(StorePath::DECISIONS).await?.iter().filter_map(|path| StorePath::number(path)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn read_entry(&self, seq: Seq) -> Result<LogEntry, StoreError> {
        let path = StorePath::Decision { seq }.to_string();
        let bytes = self.read(&path).await?;
        unseal(&bytes).map_err(|why| StoreError::Corrupt { path, why })
    }

    /// They only keep two starters from having one number, and who has a lower one than a fence stops at that fence. What can't be
    /// deleted is a few bytes.
    async fn trim_incarnations(&self, mine: u64) {
        let Ok(listed) = self.list(StorePath::INCARNATIONS).await else { return };
        let older = listed.into_iter().filter(|path| StorePath::number(path).is_some_and(|number| number < mine));
        if let Err(error) = self.delete_all(older.collect()).await {
            tracing::warn!(job = self.job(), %error, "could not remove older incarnations");
        }
    }

    pub(super) async fn read_json<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T, StoreError> {
        let bytes = self.read(path).await?;
        serde_json::from_slice(&bytes).map_err(|error| StoreError::Corrupt { path: path.to_owned(), why: error.to_string() })
    }

    /// Numbers only order those who start the job; the fence is what counts.
    async fn create_incarnation(&self, known: u64, uuid: &str, time_ms: u64) -> Result<u64, StoreError> {
        let listed = self.list(StorePath::INCARNATIONS).await?;
        let mut number = listed.iter().filter_map(|path| StorePath::number(path)).max().unwrap_or(0).max(known) + 1;
        for tries in 1..=ACQUIRE_TRIES {
            let path = StorePath::Incarnation { number }.to_string();
            let mine = Incarnation { incarnation: number, uuid: uuid.to_owned(), time_ms, pid: std::process::id() };
            let bytes = serde_json::to_vec(&mine).expect("BUG: an incarnation can be written as JSON");
            match self.create(&path, bytes.into()).await {
                Ok(()) => return Ok(number),
                Err(StoreError::Exists { .. }) => match self.read_json::<Incarnation>(&path).await {
                    Ok(there) if there.uuid == uuid => return Ok(number),
                    // Trimmed meanwhile by one who has fenced it: its number is used up all the same.
                    Ok(_) | Err(StoreError::Missing { .. }) => number += 1,
                    Err(error) => return Err(error),
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
        let bytes = seal(entry);
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
    pub async fn restore(
        &mut self,
        pointer: Option<ManifestPointer>,
        start: &str,
        step_back: Option<StepBack>,
        now_ms: u64,
    ) -> Result<(), AppendError> {
        self.append(Decision::Restore { pointer, start: start.to_owned(), step_back }, now_ms).await
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

const CHECKSUM: &[u8] = b",\"crc32c\":\"";
/// Of `,"crc32c":"01234567"}`.
const SEAL_BYTES: usize = 21;

/// The entry as JSON, with a last field that is a checksum over all before it.
pub(crate) fn seal(entry: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(entry).expect("BUG: an entry can be written as JSON");
    bytes.pop();
    let checksum = format!("{:08x}\"}}", crc32c::crc32c(&bytes));
    bytes.extend_from_slice(CHECKSUM);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

/// Entries of the first builds have no checksum, and are believed if they can be read.
pub(crate) fn unseal<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, String> {
    let body = &bytes[..bytes.len().saturating_sub(SEAL_BYTES)];
    if let Some(checksum) = bytes[body.len()..].strip_prefix(CHECKSUM) {
        let found = crc32c::crc32c(body);
        if !checksum.starts_with(format!("{found:08x}").as_bytes()) {
            let written = String::from_utf8_lossy(checksum.get(..8).unwrap_or_default()).into_owned();
            return Err(format!("its checksum is {found:08x}, {written} was written"));
        }
    } else if bytes.windows(CHECKSUM.len()).any(|window| window == CHECKSUM) {
        return Err("it does not end with its checksum".to_owned());
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

async fn pause(tries: usize) {
    tokio::time::sleep(std::time::Duration::from_millis(FIRST_PAUSE_MS << (tries - 1).min(6))).await;
}
