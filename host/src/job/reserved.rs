//! What a job that reads at most once may have handed out, on the disk. What follows from it is decided in
//! `tidegate_core::reservation`.
//!
//! ```text
//!  reserved/<incarnation>/begin.json         where all inputs stood when its tasks were started
//!                         0-1.json           where task 1 of vertex 0 may have come since; replaced for each stride
//!                         0-1-replay.json    the same for dead letters that come back
//! ```
//!
//! Invariants:
//! * a record is handed out after the file that covers it is synced, and only if no newer incarnation was there afterwards. A newer one is
//!   created before its successor looks at these files: either it sees the reservation, or this task sees the incarnation and stops;
//! * files of older incarnations go when `begin.json`, which is nowhere behind them, is durable;
//! * those of an older history go before a task of the new one runs, and so before anything is trimmed from the decision log;
//! * a file that can't be read is an error, never "nothing was handed out".

use super::plan::JobPlan;
use super::restore::{Failed, fatal, retry};
use crate::checkpoint_store::{StorePath, seal, unseal};
use crate::durable_file;
use crate::fault::{self, Fault};
use crate::task::TaskError;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_core::checkpoint::{Manifest, SourceSnapshot, TaskId};
use tidegate_core::job_graph::spec::Delivery;
use tidegate_core::reservation::{self, Beginning, Positions};

const FOLDER: &str = "reserved";
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Reservations {
    format: u32,
    sources: Vec<SourceSnapshot>,
}

/// Reservations of one job, as an incarnation finds and goes on with them.
#[derive(Debug)]
pub struct Reserved {
    /// Of the job.
    folder: PathBuf,
    incarnation: u64,
    pub beginning: Beginning,
}

/// Writes down what one task is about to hand out.
#[derive(Debug)]
pub struct Reserver {
    path: PathBuf,
    /// Of incarnations.
    folder: PathBuf,
    incarnation: u64,
}

impl Reserved {
    /// Nothing for a job with another guarantee. What it may have reserved while it had this one is removed: it says nothing about what
    /// has been read since.
    pub async fn open(
        plan: &Arc<JobPlan>,
        folder: &Path,
        incarnation: u64,
        begun_in: u64,
        manifest: Option<&Manifest>,
    ) -> Result<Option<Self>, Failed> {
        let (plan, folder) = (Arc::clone(plan), folder.to_owned());
        let checkpoint = manifest.map(|manifest| manifest.sources.clone()).unwrap_or_default();
        let opened = tokio::task::spawn_blocking(move || {
            let _entered = plan.io_steps.as_ref().map(|steps| steps.enter());
            if plan.spec.delivery == Delivery::AtMostOnce {
                Self::read(folder, incarnation, begun_in, &checkpoint).map(Some)
            } else {
                remove_older(&folder.join(FOLDER), u64::MAX).map(|()| None)
            }
        });
        let reserved = opened.await.unwrap_or_else(|e| Err(fatal(format!("reading the reservations panicked: {e}"))))?;
        if let Some(reserved) = &reserved {
            for (source, records) in &reserved.beginning.given_up {
                tracing::warn!(source, records, "at-most-once: records that may have been handed out are not read again");
            }
        }
        Ok(reserved)
    }

    fn read(folder: PathBuf, incarnation: u64, begun_in: u64, checkpoint: &Positions) -> Result<Self, Failed> {
        let reserved = folder.join(FOLDER);
        remove_older(&reserved, begun_in)?;
        let mut found = Vec::new();
        for (_, of_incarnation) in incarnations(&reserved)? {
            let listing = |error| retry(format!("list the reservations in {}: {error}", of_incarnation.display()));
            for entry in fs::read_dir(&of_incarnation).map_err(listing)? {
                let path = entry.map_err(listing)?.path();
                if path.extension().is_some_and(|extension| extension == "json") {
                    found.extend(read_file(&path)?.sources);
                }
            }
        }
        Ok(Self { folder, incarnation, beginning: reservation::begin(checkpoint, &found) })
    }

    fn own_folder(&self) -> PathBuf {
        self.folder.join(FOLDER).join(format!("{:010}", self.incarnation))
    }

    fn reserver(&self, name: &str) -> Reserver {
        Reserver {
            path: self.own_folder().join(name),
            folder: self.folder.join(StorePath::INCARNATIONS),
            incarnation: self.incarnation,
        }
    }

    /// Of a task's source.
    pub fn records(&self, task: TaskId) -> Reserver {
        self.reserver(&format!("{}-{}.json", task.vertex, task.index))
    }

    /// Of dead letters that come back to a task.
    pub fn replays(&self, task: TaskId) -> Reserver {
        self.reserver(&format!("{}-{}-replay.json", task.vertex, task.index))
    }

    /// Where all tasks begin, before any of them runs: from here on this says all that older files do.
    pub fn begin(&self, sources: Vec<SourceSnapshot>) -> Result<(), TaskError> {
        self.reserver("begin.json").write(sources)?;
        fault::point(Fault::BeginningReservedTasksNot);
        remove_older(&self.folder.join(FOLDER), self.incarnation).map_err(|failed| TaskError::Restart(failed.reason))
    }
}

impl Reserver {
    /// What is in front of these positions may be handed out from now on.
    pub fn reserve(&mut self, source: SourceSnapshot) -> Result<(), TaskError> {
        self.write(vec![source])?;
        fault::point(Fault::RecordsReservedHandedOutNot);
        Ok(())
    }

    fn write(&self, sources: Vec<SourceSnapshot>) -> Result<(), TaskError> {
        let failed = |what: &Path, error: io::Error| {
            TaskError::Restart(format!("reserve records before they are handed out: {}: {error}", what.display()))
        };
        durable_file::replace(&self.path, &seal(&Reservations { format: FORMAT, sources })).map_err(|e| failed(&self.path, e))?;
        match newest(&self.folder).map_err(|e| failed(&self.folder, e))? {
            Some(newer) if newer > self.incarnation => Err(TaskError::Restart(format!(
                "incarnation {newer} has taken the job over from incarnation {}: nothing more is handed out here",
                self.incarnation
            ))),
            _ => Ok(()),
        }
    }
}

/// The newest incarnation of the job.
fn newest(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        newest = newest.max(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok()));
    }
    Ok(newest)
}

fn read_file(path: &Path) -> Result<Reservations, Failed> {
    let bytes = fs::read(path).map_err(|error| retry(format!("read the reservation {}: {error}", path.display())))?;
    let damaged = |why: String| {
        fatal(format!(
            "the reservation {} can't be read: {why}. Without it nobody knows which records were handed out: put it back from a \
             copy, or start the job from a savepoint or fresh",
            path.display()
        ))
    };
    let reservations: Reservations = unseal(&bytes).map_err(damaged)?;
    if reservations.format != FORMAT {
        return Err(damaged(format!("its format is {}, this version knows {FORMAT}", reservations.format)));
    }
    Ok(reservations)
}

/// Folders of incarnations, in any order.
fn incarnations(folder: &Path) -> Result<Vec<(u64, PathBuf)>, Failed> {
    let failed = |error| retry(format!("list the reservations in {}: {error}", folder.display()));
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    Ok(found)
}

fn remove_older(folder: &Path, than: u64) -> Result<(), Failed> {
    for (_, older) in incarnations(folder)?.into_iter().filter(|(number, _)| *number < than) {
        durable_file::remove_folder(&older)
            .map_err(|error| retry(format!("remove older reservations in {}: {error}", older.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_core::checkpoint::SplitSnapshot;

    fn at(record: u64) -> SourceSnapshot {
        let split = SplitSnapshot { split: "a".into(), position: json!(record), record, max_timestamp: None };
        SourceSnapshot { source: "in".into(), splits: vec![split] }
    }

    fn opened(folder: &Path, incarnation: u64, begun_in: u64) -> Reserved {
        fs::create_dir_all(folder.join("inc")).unwrap();
        fs::write(folder.join(format!("inc/{incarnation:010}.json")), "{}").unwrap();
        Reserved::read(folder.to_owned(), incarnation, begun_in, &Positions::new()).map_err(|e| e.reason).unwrap()
    }

    fn record(reserved: &Reserved) -> Option<u64> {
        reserved.beginning.positions.get("in").map(|splits| splits[0].record)
    }

    const TASK: TaskId = TaskId { vertex: 0, index: 1 };

    #[test]
    fn an_incarnation_goes_on_behind_what_all_before_it_have_reserved() {
        let folder = tempfile::tempdir().unwrap();
        let first = opened(folder.path(), 1, 0);
        assert_eq!(record(&first), None);
        first.begin(vec![at(0)]).unwrap();
        first.records(TASK).reserve(at(10)).unwrap();
        first.records(TASK).reserve(at(20)).unwrap();
        assert_eq!(record(&opened(folder.path(), 2, 0)), Some(20), "it died before it began");
        let third = opened(folder.path(), 3, 0);
        third.begin(vec![at(20)]).unwrap();
        assert_eq!(fs::read_dir(folder.path().join(FOLDER)).unwrap().count(), 1, "older ones are gone");
        assert_eq!(record(&opened(folder.path(), 4, 0)), Some(20));
    }

    #[test]
    fn another_history_begins_without_reservations() {
        let folder = tempfile::tempdir().unwrap();
        let first = opened(folder.path(), 1, 0);
        first.begin(vec![at(0)]).unwrap();
        first.records(TASK).reserve(at(10)).unwrap();
        let fresh = opened(folder.path(), 2, 2);
        assert_eq!(record(&fresh), None);
        fresh.begin(vec![at(0)]).unwrap();
        fresh.records(TASK).reserve(at(3)).unwrap();
        // Its own are those of this history.
        assert_eq!(record(&opened(folder.path(), 3, 2)), Some(3));
    }

    #[test]
    fn who_was_taken_over_from_hands_out_nothing_more() {
        let folder = tempfile::tempdir().unwrap();
        let first = opened(folder.path(), 1, 0);
        first.begin(vec![at(0)]).unwrap();
        let mut reserver = first.records(TASK);
        reserver.reserve(at(10)).unwrap();
        let second = opened(folder.path(), 2, 0);
        second.begin(vec![at(10)]).unwrap();
        let error = reserver.reserve(at(20)).expect_err("refused").to_string();
        assert!(error.contains("incarnation 2 has taken the job over"), "{error}");
    }

    #[test]
    fn a_damaged_reservation_is_named_and_nothing_is_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let first = opened(folder.path(), 1, 0);
        first.begin(vec![at(0)]).unwrap();
        let path = first.own_folder().join("begin.json");
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        for damaged in [&whole[..whole.len() - 1], &[][..], &flipped] {
            fs::write(&path, damaged).unwrap();
            let failed = Reserved::read(folder.path().to_owned(), 2, 0, &Positions::new()).expect_err("refused");
            assert!(failed.fatal && failed.reason.contains("begin.json can't be read"), "{}", failed.reason);
        }
    }
}
