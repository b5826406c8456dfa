use super::faulty::{Faulty, Trouble};
use super::*;
use object_store::memory::InMemory;
use std::collections::BTreeMap;
use tidegate_core::checkpoint::{CheckpointKind, OperatorManifest};
use tidegate_core::recovery::{Decision, Restore, completed};

fn in_memory() -> (Arc<InMemory>, CheckpointStore) {
    let memory = Arc::new(InMemory::new());
    (memory.clone(), CheckpointStore::new(memory, "flights"))
}

fn draft(checkpoint: CheckpointId) -> SegmentDraft<'static> {
    SegmentDraft { operator: "count", task_index: 0, checkpoint, first_group: 0, end_group: 16, full: true, entries: 3 }
}

fn manifest(checkpoint: CheckpointId, segments: Vec<SegmentRef>) -> Manifest {
    let operator = OperatorManifest { parallelism: 1, tasks: vec![segments], ..OperatorManifest::default() };
    Manifest {
        format: MANIFEST_FORMAT,
        job: "flights".into(),
        checkpoint,
        kind: CheckpointKind::Checkpoint,
        key_groups: 16,
        operators: BTreeMap::from([("count".into(), operator)]),
        sources: BTreeMap::new(),
        sinks: BTreeMap::new(),
        end_of_input: false,
        time_ms: 5,
    }
}

async fn put_checkpoint(store: &CheckpointStore, checkpoint: CheckpointId) -> Result<(ManifestPointer, Manifest), StoreError> {
    let segment = store.put_segment(draft(checkpoint), format!("state {checkpoint}").into()).await?;
    let manifest = manifest(checkpoint, vec![segment]);
    Ok((store.put_manifest(&manifest).await?, manifest))
}

#[tokio::test]
async fn what_was_put_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open_local(&folder.path().join("new/state"), "flights").unwrap();
    let (pointer, manifest) = put_checkpoint(&store, 7).await.unwrap();
    let segment = manifest.segments().next().unwrap();
    assert_eq!(store.read_segment(segment).await.unwrap(), "state 7");
    assert_eq!(store.read_manifest(&pointer).await.unwrap(), manifest);
    assert_eq!((pointer.checkpoint, segment.bytes, segment.entries), (7, 7, 3));
    assert!(folder.path().join("new/state/jobs/flights").join(&segment.path).is_file());
}

#[tokio::test]
async fn two_segments_of_one_task_and_checkpoint_have_different_names() {
    let (_, store) = in_memory();
    let first = store.put_segment(draft(1), "a".into()).await.unwrap();
    let second = store.put_segment(draft(1), "b".into()).await.unwrap();
    assert_ne!(first.path, second.path);
    assert_eq!(store.read_segment(&first).await.unwrap(), "a");
}

#[tokio::test]
async fn damage_is_seen_when_it_is_read() {
    let (memory, store) = in_memory();
    let (pointer, manifest) = put_checkpoint(&store, 7).await.unwrap();
    let segment = manifest.segments().next().unwrap();
    memory.put(&store.location(&segment.path), "stAte 7".into()).await.unwrap();
    let error = store.read_segment(segment).await.unwrap_err().to_string();
    assert!(error.starts_with("segments/count/000-000000000007-") && error.contains("is damaged: its checksum is"), "{error}");
    memory.put(&store.location(&segment.path), "state".into()).await.unwrap();
    let error = store.read_segment(segment).await.unwrap_err().to_string();
    assert!(error.ends_with("is damaged: it has 5 bytes, 7 were written"), "{error}");
    memory.delete(&store.location(&pointer.path)).await.unwrap();
    assert!(matches!(store.read_manifest(&pointer).await, Err(StoreError::Missing { .. })));
}

#[tokio::test]
async fn a_manifest_of_a_newer_form_is_refused_with_the_remedy() {
    let (_, store) = in_memory();
    let newer = Manifest { format: MANIFEST_FORMAT + 1, ..manifest(1, vec![]) };
    let pointer = store.put_manifest(&newer).await.unwrap();
    let error = store.read_manifest(&pointer).await.unwrap_err().to_string();
    assert!(
        error.ends_with("has format 2, this version of tidegate knows 1: start it with the version that wrote it"),
        "{error}"
    );
}

#[tokio::test]
async fn deleting_what_is_gone_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open_local(folder.path(), "flights").unwrap();
    let (pointer, manifest) = put_checkpoint(&store, 1).await.unwrap();
    let paths = vec![manifest.segments().next().unwrap().path.clone(), pointer.path.clone()];
    store.delete(&paths).await.unwrap();
    store.delete(&paths).await.unwrap();
    assert!(matches!(store.read_manifest(&pointer).await, Err(StoreError::Missing { .. })));
}

#[tokio::test]
#[should_panic(expected = "BUG: savepoints/x/manifest.json was to be deleted, and belongs to a savepoint")]
async fn a_savepoint_is_not_deleted_as_garbage() {
    let (_, store) = in_memory();
    store.delete(&["savepoints/x/manifest.json".to_owned()]).await.unwrap();
}

#[tokio::test]
async fn a_decision_survives_and_the_next_incarnation_restores_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open_local(folder.path(), "flights").unwrap();
    let mut first = store.acquire(1).await.unwrap();
    assert_eq!((first.plan.restore, first.plan.next_checkpoint), (Restore::Fresh, 1));
    let (pointer, _) = put_checkpoint(&store, 1).await.unwrap();
    first.log.commit(pointer.clone(), 2).await.unwrap();
    let second = store.acquire(3).await.unwrap();
    assert_eq!((second.plan.restore, second.plan.next_checkpoint), (Restore::From(pointer), 102));
    assert_eq!((second.log.incarnation(), second.log.entries().len()), (2, 3));
}

#[tokio::test]
async fn the_last_decision_counts_whatever_the_clock_said_when_it_was_written() {
    const NOW: u64 = 1_700_000_000_000;
    const TEN_YEARS_MS: u64 = 315_619_200_000;
    let (_, store) = in_memory();
    let mut restored = Restore::Fresh;
    let mut next = 1;
    // A day back, ten years ahead, back again, and a clock that was never set.
    for (n, now_ms) in (1..).zip([NOW, NOW - 86_400_000, NOW + TEN_YEARS_MS, NOW, 0]) {
        let mut run = store.acquire(now_ms).await.unwrap();
        assert_eq!((run.plan.restore, run.log.incarnation()), (restored, n));
        assert!(run.plan.next_checkpoint >= next, "numbers only go up");
        let (pointer, _) = put_checkpoint(&store, run.plan.next_checkpoint).await.unwrap();
        next = pointer.checkpoint + 1;
        run.log.commit(pointer.clone(), now_ms.saturating_sub(1)).await.unwrap();
        restored = Restore::From(pointer);
    }
}

#[tokio::test]
async fn a_start_from_nothing_is_a_decision_too() {
    let (_, store) = in_memory();
    let mut first = store.acquire(1).await.unwrap();
    first.log.commit(put_checkpoint(&store, 1).await.unwrap().0, 2).await.unwrap();
    let mut second = store.acquire(3).await.unwrap();
    second.log.restore(None, "start", None, 4).await.unwrap();
    assert_eq!(store.acquire(5).await.unwrap().plan.restore, Restore::Fresh);
}

#[tokio::test]
async fn who_was_fenced_hears_by_whom() {
    let (_, store) = in_memory();
    let mut first = store.acquire(1).await.unwrap();
    let second = store.acquire(2).await.unwrap();
    let (pointer, _) = put_checkpoint(&store, 1).await.unwrap();
    let error = first.log.commit(pointer, 3).await.unwrap_err();
    let expected = format!("the job was taken over by incarnation 2 ({}), which wrote decision 2", second.log.uuid());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
#[should_panic(expected = "BUG: incarnation 1 decides again after it was stopped")]
async fn who_was_fenced_never_decides_again() {
    let (_, store) = in_memory();
    let mut first = store.acquire(1).await.unwrap();
    store.acquire(2).await.unwrap();
    let (pointer, _) = put_checkpoint(&store, 1).await.unwrap();
    first.log.commit(pointer.clone(), 3).await.unwrap_err();
    _ = first.log.commit(pointer, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_start_at_once_one_can_decide() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open_local(folder.path(), "flights").unwrap();
    let starts = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.acquire(1).await })
    });
    let mut acquired: Vec<Acquired> = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        match start.await.unwrap() {
            Ok(got) => acquired.push(got),
            Err(error) => assert!(matches!(error, StoreError::Fenced { .. }), "{error}"),
        }
    }
    let mut decided = 0;
    for Acquired { mut log, .. } in acquired {
        let (pointer, _) = put_checkpoint(&store, 1).await.unwrap();
        match log.commit(pointer, 2).await {
            Ok(()) => decided += 1,
            Err(error) => assert!(matches!(error, AppendError::Fenced { .. }), "{error}"),
        }
    }
    assert_eq!(decided, 1);
    let entries = store.read_log().await.unwrap();
    assert!(entries.windows(2).all(|pair| pair[0].1.incarnation <= pair[1].1.incarnation));
}

#[tokio::test]
async fn a_trimmed_log_keeps_fences_and_can_be_restored() {
    let (_, store) = in_memory();
    let mut first = store.acquire(1).await.unwrap().log;
    for checkpoint in 1..=5 {
        first.commit(put_checkpoint(&store, checkpoint).await.unwrap().0, 2).await.unwrap();
    }
    first.trim(4).await.unwrap();
    let seqs: Vec<_> = store.read_log().await.unwrap().iter().map(|(seq, _)| *seq).collect();
    assert_eq!(seqs, [1, 5, 6]);
    first.commit(put_checkpoint(&store, 6).await.unwrap().0, 2).await.unwrap();
    let second = store.acquire(3).await.unwrap();
    assert_eq!(completed(second.log.entries()).iter().map(|pointer| pointer.checkpoint).collect::<Vec<_>>(), [4, 5, 6]);
    assert!(matches!(&second.plan.restore, Restore::From(pointer) if pointer.checkpoint == 6));
}

async fn decided(checkpoints: std::ops::RangeInclusive<u64>) -> (Arc<InMemory>, CheckpointStore) {
    let (memory, store) = in_memory();
    let mut log = store.acquire(1).await.unwrap().log;
    for checkpoint in checkpoints {
        log.commit(put_checkpoint(&store, checkpoint).await.unwrap().0, 2).await.unwrap();
    }
    (memory, store)
}

#[tokio::test]
async fn a_decision_that_is_lost_in_the_middle_is_known_as_lost_and_the_last_one_counts() {
    let (memory, store) = decided(1..=3).await;
    memory.delete(&store.location(&StorePath::Decision { seq: 3 }.to_string())).await.unwrap();
    let acquired = store.acquire(3).await.unwrap();
    assert!(matches!(&acquired.plan.restore, Restore::From(pointer) if pointer.checkpoint == 3));
    assert!(matches!(&acquired.log.entries()[2].1.decision, Decision::Lost { why } if why == "it is missing"));
    assert!(tidegate_core::recovery::doubtful(acquired.log.entries()).is_empty());
}

/// Every bit of an entry, and every length.
#[tokio::test]
async fn a_damaged_decision_is_never_taken_for_another() {
    let (memory, store) = decided(1..=2).await;
    let path = store.location(&StorePath::Decision { seq: 3 }.to_string());
    let whole = memory.get(&path).await.unwrap().bytes().await.unwrap();
    let right = store.read_log().await.unwrap();
    let mut damaged = Vec::new();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1 << bit;
            damaged.push(bytes);
        }
        damaged.push(whole[..at].to_vec());
    }
    for bytes in damaged {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        memory.put(&path, bytes.into()).await.unwrap();
        let read = store.read_log().await.unwrap();
        let is_lost = matches!(read[2].1.decision, Decision::Lost { .. });
        assert!(is_lost || read == right, "{text}: {:?}", read[2]);
    }
}

#[tokio::test]
async fn incarnations_are_trimmed_and_numbered_by_the_log() {
    let (memory, store) = in_memory();
    for _ in 0..4 {
        store.acquire(1).await.unwrap();
    }
    assert_eq!(store.list(StorePath::INCARNATIONS).await.unwrap(), ["inc/0000000004.json"]);
    memory.delete(&store.location("inc/0000000004.json")).await.unwrap();
    assert_eq!(store.acquire(1).await.unwrap().log.incarnation(), 5);
}

#[tokio::test]
async fn a_run_that_was_fenced_does_not_take_the_job_back() {
    let (_, store) = in_memory();
    let mut run = Incarnations::default();
    for attempt in 0..3 {
        store.acquire_again(&mut run, attempt).await.unwrap();
        assert!(store.taken_over(&run).await.unwrap().is_none());
    }
    let stranger = store.acquire(3).await.unwrap().log.incarnation();
    let told = store.taken_over(&run).await.unwrap().unwrap();
    let error = store.acquire_again(&mut run, 4).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { incarnation, .. } if incarnation == stranger), "{error}");
    assert_eq!(told.to_string(), error.to_string());
    // A new run, because a user has asked for one, does.
    store.acquire(5).await.unwrap();
}

#[tokio::test]
async fn a_sweep_removes_what_nobody_decided() {
    let (_, store) = in_memory();
    let mut acquired = store.acquire(1).await.unwrap();
    let (kept, manifest) = put_checkpoint(&store, 1).await.unwrap();
    acquired.log.commit(kept.clone(), 2).await.unwrap();
    let (orphan, _) = put_checkpoint(&store, 2).await.unwrap();
    let savepoint = store.store_savepoint("s", &manifest).await.unwrap();
    let acquired = store.acquire(3).await.unwrap();
    let keep = manifest.segments().map(|segment| segment.path.clone()).chain([kept.path.clone()]).collect();
    // Written by a successor that we do not know of.
    let first = acquired.plan.next_checkpoint;
    let (newer, _) = put_checkpoint(&store, first + 100).await.unwrap();
    let swept = store.sweep(&acquired.log, &keep, first).await.unwrap();
    assert_eq!(swept.len(), 2);
    store.read_manifest(&newer).await.unwrap();
    assert!(swept.contains(&orphan.path));
    store.read_manifest(&kept).await.unwrap();
    store.read_manifest(&savepoint).await.unwrap();
    assert_eq!(store.sweep(&acquired.log, &keep, first).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_savepoint_stands_on_its_own_until_it_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = CheckpointStore::open_local(folder.path(), "flights").unwrap();
    let (pointer, manifest) = put_checkpoint(&store, 4).await.unwrap();
    let stored = store.store_savepoint("before-upgrade", &manifest).await.unwrap();
    assert_eq!(store.store_savepoint("before-upgrade", &manifest).await.unwrap(), stored, "again: the same");
    let original = vec![manifest.segments().next().unwrap().path.clone(), pointer.path];
    store.delete(&original).await.unwrap();

    assert_eq!(store.list_savepoints().await.unwrap(), ["before-upgrade"]);
    let savepoint = store.read_savepoint("before-upgrade").await.unwrap();
    assert_eq!((savepoint.pointer.clone(), savepoint.manifest.kind), (stored, CheckpointKind::Savepoint));
    let segment = savepoint.manifest.segments().next().unwrap();
    assert!(segment.path.starts_with("savepoints/before-upgrade/segments/count/000-"));
    assert_eq!(store.read_segment(segment).await.unwrap(), "state 4");
    assert_eq!(savepoint.bytes(), savepoint.pointer.bytes + 7);

    // One of a job that was restored from a savepoint and still names its segments.
    let second = store.store_savepoint("second", &savepoint.manifest).await.unwrap();
    store.delete_savepoint("before-upgrade").await.unwrap();
    assert_eq!(store.list_savepoints().await.unwrap(), ["second"]);
    let second = store.read_manifest(&second).await.unwrap();
    assert_eq!(store.read_segment(second.segments().next().unwrap()).await.unwrap(), "state 4");
    let gone = store.read_savepoint("before-upgrade").await.unwrap_err();
    assert_eq!(gone.to_string(), "there is no savepoint before-upgrade");
    assert!(matches!(store.delete_savepoint("before-upgrade").await, Err(StoreError::NoSavepoint { .. })));
}

#[tokio::test]
async fn a_savepoint_id_is_a_name_and_no_path() {
    let (_, store) = in_memory();
    for id in ["", ".", "..", "../x", "a/b", "a b", "ä", &"x".repeat(65)] {
        let error = store.store_savepoint(id, &manifest(1, vec![])).await.unwrap_err();
        assert!(matches!(error, StoreError::SavepointName { .. }), "{id:?}");
    }
    store.store_savepoint("v1.2_3-x", &manifest(1, vec![])).await.unwrap();
    let taken = store.store_savepoint("v1.2_3-x", &manifest(2, vec![])).await.unwrap_err();
    assert_eq!(taken.to_string(), "savepoints/v1.2_3-x is there already");
}

/// What one incarnation of a job does, and what it believes to have done.
#[derive(Debug, Default)]
struct Believed {
    decided: Vec<CheckpointId>,
    /// Decided or not: the answer did not say.
    unknown: Option<CheckpointId>,
    savepoint: bool,
}

async fn incarnation(store: &CheckpointStore, believed: &mut Believed) -> Result<(), Box<dyn std::error::Error>> {
    let Acquired { mut log, plan } = store.acquire(1).await?;
    let mut kept = Vec::new();
    for checkpoint in plan.next_checkpoint..plan.next_checkpoint + 4 {
        let (pointer, manifest) = put_checkpoint(store, checkpoint).await?;
        believed.unknown = Some(checkpoint);
        log.commit(pointer.clone(), 2).await?;
        believed.unknown = None;
        believed.decided.push(checkpoint);
        if checkpoint == plan.next_checkpoint + 1 {
            store.store_savepoint(&format!("at-{checkpoint}"), &manifest).await?;
            believed.savepoint = true;
        }
        kept.push((pointer, manifest));
        if kept.len() > 2 {
            let (pointer, manifest) = kept.remove(0);
            log.trim(kept[0].0.checkpoint).await?;
            let segments = manifest.segments().map(|segment| segment.path.clone());
            store.delete(&segments.chain([pointer.path]).collect::<Vec<_>>()).await?;
        }
    }
    Ok(())
}

/// Every call of the store goes wrong once, in every way; after that a new incarnation finds what the old one believed.
#[tokio::test]
async fn trouble_at_any_call_loses_no_decision_and_leaves_nothing_half_done() {
    let mut calls = usize::MAX;
    let (mut survived, mut died) = (0, 0);
    for trouble in Trouble::ALL {
        for at in 0.. {
            if at >= calls {
                break;
            }
            let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let faulty = Arc::new(Faulty::new(memory.clone(), at, trouble));
            let mut believed = Believed::default();
            let result = incarnation(&CheckpointStore::new(faulty.clone(), "flights"), &mut believed).await;
            if faulty.calls() <= at {
                calls = faulty.calls();
                break;
            }
            match result {
                Ok(()) => survived += 1,
                Err(_) => died += 1,
            }
            let context = format!("{trouble:?} at {at}, {:?}: {believed:?}", faulty.told.lock().unwrap().get(at));

            let store = CheckpointStore::new(memory.clone(), "flights");
            let Acquired { log, plan } = store.acquire(9).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            let restored = match &plan.restore {
                Restore::Fresh => None,
                Restore::From(pointer) => Some(pointer.checkpoint),
            };
            let last = believed.decided.last().copied();
            assert!(restored == last || (restored.is_some() && restored == believed.unknown), "{context}: {restored:?}");
            if let Restore::From(pointer) = &plan.restore {
                let manifest = store.read_manifest(pointer).await.unwrap_or_else(|error| panic!("{context}: {error}"));
                for segment in manifest.segments() {
                    store.read_segment(segment).await.unwrap_or_else(|error| panic!("{context}: {error}"));
                }
            }
            let savepoints = store.list_savepoints().await.unwrap();
            assert!(!believed.savepoint || savepoints.len() == 1, "{context}");
            for id in savepoints {
                let savepoint = store.read_savepoint(&id).await.unwrap_or_else(|error| panic!("{context}: {error}"));
                for segment in savepoint.manifest.segments() {
                    store.read_segment(segment).await.unwrap_or_else(|error| panic!("{context}: {error}"));
                }
            }
            let fences = log.entries().iter().filter(|(_, entry)| matches!(entry.decision, Decision::Fence { .. }));
            assert!(fences.count() <= 2, "{context}");
            // And it can go on.
            drop(log);
            let mut again = Believed::default();
            incarnation(&store, &mut again).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(again.decided.first() > last.as_ref(), "{context}: ids are used once");
        }
    }
    assert!(survived > 10 && died > 80, "{survived} survived, {died} died");
}

/// A zombie's answer may come late: its create happens after a new incarnation has looked.
#[tokio::test]
async fn a_decision_that_arrives_behind_the_fence_does_not_count() {
    let (memory, store) = in_memory();
    let mut zombie = store.acquire(1).await.unwrap().log;
    zombie.commit(put_checkpoint(&store, 1).await.unwrap().0, 1).await.unwrap();
    let (late, _) = put_checkpoint(&store, 2).await.unwrap();
    let new = store.acquire(2).await.unwrap();
    assert!(matches!(&new.plan.restore, Restore::From(pointer) if pointer.checkpoint == 1));
    assert!(matches!(zombie.commit(late, 3).await, Err(AppendError::Fenced { incarnation: 2, .. })));
    let faulty = Arc::new(Faulty::new(memory, usize::MAX, Trouble::ErrorBefore));
    let third = CheckpointStore::new(faulty, "flights").acquire(4).await.unwrap();
    assert_eq!(third.plan.restore, new.plan.restore);
}

#[tokio::test]
async fn a_decision_in_doubt_says_so() {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = CheckpointStore::new(memory.clone(), "flights");
    let (pointer, _) = put_checkpoint(&store, 1).await.unwrap();
    let counting = Arc::new(Faulty::new(memory.clone(), usize::MAX, Trouble::ErrorBefore));
    CheckpointStore::new(counting.clone(), "other").acquire(1).await.unwrap();
    for (trouble, is_there) in [(Trouble::DeathBefore, false), (Trouble::DeathAfter, true)] {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let faulty = Arc::new(Faulty::new(memory.clone(), counting.calls(), trouble));
        let mut log = CheckpointStore::new(faulty, "flights").acquire(1).await.unwrap().log;
        let error = log.commit(pointer.clone(), 2).await.unwrap_err();
        assert_eq!(error.to_string(), "can't tell whether decision 2 was written, after 5 tries");
        let entries = CheckpointStore::new(memory, "flights").read_log().await.unwrap();
        assert_eq!(entries.len(), if is_there { 2 } else { 1 });
    }
}

#[test]
fn ids_differ() {
    let ids: BTreeSet<_> = (0..1000).map(|_| unique_id()).collect();
    assert_eq!(ids.len(), 1000);
    assert!(ids.iter().all(|id| id.len() == 32));
}
