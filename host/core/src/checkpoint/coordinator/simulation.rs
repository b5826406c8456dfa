//! A whole job in miniature around the real coordinator: tasks that write state and stage rows, a store, sinks, failures and
//! restarts, everything in random order. The model knows what each segment and each staged file holds, so it can tell
//! whether a manifest would restore the right state and whether every row comes out once.

use super::*;
use crate::checkpoint::{OperatorSnapshot, SegmentRef, SinkSnapshot, SourceSnapshot, SplitSnapshot};
use proptest::prelude::*;
use serde_json::json;

const TASKS: u32 = 3;
const RETAINED: u32 = 3;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// Versions `after..=to` of a task's state, or rows of these numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    after: u64,
    to: u64,
}

/// Task 0 is a source, the others have an operator with state and a sink. Each step of work is one version and one row.
#[derive(Debug, Default)]
struct TaskModel {
    version: u64,
    /// What segments hold so far, written or lost.
    frozen: u64,
    staged: u64,
    /// Staged files that no acknowledgement has reported yet.
    unreported: Vec<String>,
    barriers: VecDeque<(CheckpointId, bool)>,
    aborted: BTreeSet<CheckpointId>,
    /// On its way to the coordinator, in order.
    sent: VecDeque<Event>,
    stopped: bool,
}

#[derive(Debug)]
enum Work {
    Manifest(Box<Manifest>),
    Decision(ManifestPointer),
    Commit(CommitPermit),
    Copy { request: u64, manifest: Box<Manifest> },
    Merge { operator: String, index: u32, segments: Vec<SegmentRef>, to_full: bool },
}

use crate::checkpoint::CommitPermit;

struct World {
    random: Random,
    failures: bool,
    /// In percent.
    slow_background: usize,
    slow_store: usize,
    coordinator: Coordinator,
    incarnation: u64,
    now: u64,
    tasks: Vec<TaskModel>,
    segments: BTreeMap<String, Span>,
    manifests: BTreeMap<String, Manifest>,
    /// The log: decided checkpoints in order.
    log: Vec<(ManifestPointer, Manifest)>,
    files: BTreeMap<String, (usize, Span)>,
    /// (reported for, file), of this incarnation.
    reported: Vec<(CheckpointId, String)>,
    committed: Vec<String>,
    confirmed: CheckpointId,
    /// Version of each task at its barrier.
    cuts: BTreeMap<(usize, CheckpointId), u64>,
    work: Vec<Work>,
    requests: u64,
    answered: BTreeSet<u64>,
    largest_id: CheckpointId,
    finished: bool,
    restarts: u32,
}

fn task_id(index: usize) -> TaskId {
    TaskId { vertex: u32::from(index > 0), index: index as u32 }
}

fn path(span: Span, name: &str, full: bool) -> SegmentRef {
    SegmentRef {
        path: name.into(),
        first_group: 0,
        end_group: 8,
        full,
        entries: span.to - span.after,
        bytes: (span.to - span.after) * 10,
        crc32c: 0,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let max_concurrent = 1 + random.below(3) as u32;
        let (slow_background, slow_store) = ([0, 80, 97][random.below(3)], [0, 70][random.below(2)]);
        let coordinator = Coordinator::new(Self::config(max_concurrent, None, false, 1, 0));
        Self {
            random,
            failures: true,
            slow_background,
            slow_store,
            coordinator,
            incarnation: 1,
            now: 0,
            tasks: (0..TASKS).map(|_| TaskModel::default()).collect(),
            segments: BTreeMap::new(),
            manifests: BTreeMap::new(),
            log: Vec::new(),
            files: BTreeMap::new(),
            reported: Vec::new(),
            committed: Vec::new(),
            confirmed: 0,
            cuts: BTreeMap::new(),
            work: Vec::new(),
            requests: 0,
            answered: BTreeSet::new(),
            largest_id: 0,
            finished: false,
            restarts: 0,
        }
    }

    fn config(
        max_concurrent: u32,
        restored: Option<Restored>,
        inherit_chains: bool,
        next: u64,
        now_ms: u64,
    ) -> CoordinatorConfig {
        let operator = OperatorManifest { parallelism: TASKS - 1, ..Default::default() };
        CoordinatorConfig {
            job: "simulated".into(),
            key_groups: 8,
            spec: CheckpointSpec {
                interval_ms: Some(100),
                min_pause_ms: 10,
                timeout_ms: 300,
                max_concurrent,
                tolerable_failures: 2,
                retained: RETAINED,
                ..CheckpointSpec::default()
            },
            tasks: (0..TASKS as usize).map(task_id).collect(),
            operators: BTreeMap::from([("op".to_owned(), operator)]),
            restored,
            inherit_chains,
            next_checkpoint: next,
            now_ms,
        }
    }

    fn fails(&mut self, percent: usize) -> bool {
        self.failures && self.random.chance(percent)
    }

    fn tell(&mut self, event: Event) {
        for order in self.coordinator.handle(self.now, event) {
            self.carry_out(order);
            if self.finished {
                return;
            }
        }
    }

    fn carry_out(&mut self, order: Action) {
        match order {
            Action::Trigger { checkpoint, full, stop, .. } => {
                assert!(checkpoint > self.largest_id, "ids are used once");
                self.largest_id = checkpoint;
                for task in &mut self.tasks {
                    task.barriers.push_back((checkpoint, full));
                }
                self.tasks[0].stopped |= stop.is_some();
            }
            Action::AbortCheckpoint { checkpoint, .. } => {
                self.tasks.iter_mut().for_each(|task| _ = task.aborted.insert(checkpoint));
            }
            Action::WriteManifest { manifest, .. } => {
                self.check_manifest(&manifest);
                self.work.push(Work::Manifest(manifest));
            }
            Action::WriteDecision { checkpoint, pointer } => {
                assert!(self.log.last().is_none_or(|(last, _)| last.checkpoint < checkpoint), "decisions come in order");
                let is_decision = |work: &Work| matches!(work, Work::Decision(_));
                assert!(!self.work.iter().any(is_decision), "decisions are written one at a time");
                assert!(self.manifests.contains_key(&pointer.path), "the manifest is written first");
                self.work.push(Work::Decision(pointer));
            }
            Action::CommitSinks { permit } => {
                let (_, manifest) =
                    self.log.iter().find(|(pointer, _)| pointer.checkpoint == permit.checkpoint()).expect("decided");
                let named: Vec<_> = manifest.sinks.values().flatten().collect();
                assert!(permit.committables().values().flatten().all(|file| named.contains(&file)), "a manifest names it");
                assert!(!self.work.iter().any(|work| matches!(work, Work::Commit(_))), "commits are one at a time");
                self.work.push(Work::Commit(permit));
            }
            Action::StoreSavepoint { request, manifest, checkpoint } => {
                assert!(self.log.iter().any(|(pointer, _)| pointer.checkpoint == checkpoint), "decided first");
                self.work.push(Work::Copy { request, manifest });
            }
            Action::SavepointCompleted { request, .. } | Action::SavepointFailed { request, .. } => {
                assert!(self.answered.insert(request), "a savepoint request is answered once");
            }
            Action::Merge { operator, task_index, segments, to_full } => {
                self.work.push(Work::Merge { operator, index: task_index, segments, to_full });
            }
            Action::Delete { paths } => self.delete(paths),
            Action::TrimLog { .. } | Action::Report(_) => {}
            Action::StopJob { .. } | Action::SuspendJob { .. } => self.end(false),
            Action::FinishJob => self.end(true),
            Action::FailJob { fatal, .. } => {
                assert!(!fatal);
                self.restart();
            }
        }
    }

    /// Restoring from it would give each task the state it had at its barrier, and no row would be lost.
    fn check_manifest(&self, manifest: &Manifest) {
        let checkpoint = manifest.checkpoint;
        assert_eq!(manifest.sources["in"][0].record, self.cuts[&(0, checkpoint)]);
        for (index, chain) in manifest.operators["op"].tasks.iter().enumerate() {
            let mut at = 0;
            for segment in chain {
                let span = self.segments.get(&segment.path).unwrap_or_else(|| panic!("{} is in the store", segment.path));
                assert_eq!(span.after, at, "no piece is missing before {} in {chain:?}", segment.path);
                at = span.to;
            }
            assert_eq!(at, self.cuts[&(index + 1, checkpoint)], "the chain {chain:?} ends at the barrier");
        }
        let named: Vec<_> = manifest.sinks.values().flatten().map(|file| file.as_str().expect("a file").to_owned()).collect();
        let due = self.reported.iter().filter(|(id, _)| *id <= checkpoint && *id > self.confirmed);
        for (_, file) in due {
            assert_eq!(named.iter().filter(|named| *named == file).count(), 1, "{file} is named by checkpoint {checkpoint}");
        }
        assert!(named.iter().all(|file| self.reported.iter().any(|(id, reported)| reported == file && *id <= checkpoint)));
    }

    fn needed(&self) -> BTreeSet<String> {
        let retained = self.log.iter().rev().take(RETAINED as usize).flat_map(|(pointer, manifest)| {
            manifest.segments().map(|segment| segment.path.clone()).chain([pointer.path.clone()])
        });
        let work = self.work.iter().flat_map(|work| match work {
            // Aborted on its way: it will never be decided.
            Work::Manifest(manifest) if self.tasks[0].aborted.contains(&manifest.checkpoint) => Vec::new(),
            Work::Manifest(manifest) | Work::Copy { manifest, .. } => manifest.segments().map(|s| s.path.clone()).collect(),
            Work::Decision(pointer) => {
                let segments = self.manifests[&pointer.path].segments().map(|segment| segment.path.clone());
                segments.chain([pointer.path.clone()]).collect()
            }
            Work::Merge { segments, .. } => segments.iter().map(|segment| segment.path.clone()).collect(),
            Work::Commit(_) => Vec::new(),
        });
        retained.chain(work).collect()
    }

    fn delete(&mut self, paths: Vec<String>) {
        let needed = self.needed();
        for path in paths {
            assert!(!needed.contains(&path), "{path} is still needed");
            let existed = self.segments.remove(&path).is_some() | self.manifests.remove(&path).is_some();
            assert!(existed, "{path} is deleted once");
        }
    }

    /// One task works, or takes its next barrier.
    fn step_task(&mut self, index: usize) {
        let fails = self.fails(6);
        let pre_commit_fails = self.fails(1);
        let task = &mut self.tasks[index];
        if self.random.chance(50) || task.barriers.is_empty() {
            task.version += u64::from(!task.stopped) * self.random.below(5) as u64;
            return;
        }
        let (checkpoint, full) = task.barriers.pop_front().expect("there is one");
        if task.aborted.contains(&checkpoint) {
            return; // the news was faster than the barrier: nothing is cut
        }
        self.cuts.insert((index, checkpoint), task.version);
        let mut snapshot = TaskSnapshot::default();
        if index == 0 {
            let split = SplitSnapshot { split: "s".into(), position: json!(0), record: task.version, max_timestamp: None };
            snapshot.sources.push(SourceSnapshot { source: "in".into(), splits: vec![split] });
        } else {
            let span = Span { after: if full { 0 } else { task.frozen }, to: task.version };
            let name = format!("segments/{index}-{checkpoint}-{}", self.incarnation);
            let segment = (span.to > span.after).then(|| path(span, &name, full));
            task.frozen = task.version;
            if task.version > task.staged {
                let file = format!("{index}-{checkpoint}-{}", self.incarnation);
                self.files.insert(file.clone(), (index, Span { after: task.staged, to: task.version }));
                task.staged = task.version;
                task.unreported.push(file);
            }
            if !fails {
                if segment.is_some() {
                    self.segments.insert(name, span);
                }
                let committables = std::mem::take(&mut task.unreported).into_iter().map(|file| json!(file)).collect();
                snapshot.sinks.push(SinkSnapshot { sink: "out".into(), committables });
                let task_index = index as u32 - 1;
                snapshot.operators.push(OperatorSnapshot { operator: "op".into(), task_index, segment });
            }
        }
        let (task_id, reason) = (task_id(index), "injected".to_owned());
        self.tasks[index].sent.push_back(if pre_commit_fails {
            Event::PreCommitFailed { checkpoint, task: task_id, reason }
        } else if fails {
            Event::TaskDeclined { checkpoint, task: task_id, reason }
        } else {
            Event::TaskAcknowledged { checkpoint, task: task_id, snapshot }
        });
    }

    fn deliver(&mut self, index: usize) {
        let Some(event) = self.tasks[index].sent.pop_front() else { return };
        if let Event::TaskAcknowledged { checkpoint, snapshot, .. } = &event {
            let files = snapshot.sinks.iter().flat_map(|sink| &sink.committables);
            self.reported.extend(files.map(|file| (*checkpoint, file.as_str().expect("a file").to_owned())));
        }
        self.tell(event);
    }

    fn step_work(&mut self) {
        if self.work.is_empty() {
            return;
        }
        let at = self.random.below(self.work.len());
        // What runs in the background may take long, so that much happens meanwhile.
        let is_background = matches!(self.work[at], Work::Merge { .. } | Work::Copy { .. });
        if self.random.chance(if is_background { self.slow_background } else { self.slow_store }) {
            return;
        }
        let fails = self.fails(4);
        let applied = self.random.chance(50);
        let reason = "injected".to_owned();
        match self.work.swap_remove(at) {
            Work::Manifest(manifest) => {
                let checkpoint = manifest.checkpoint;
                if fails {
                    return self.tell(Event::ManifestFailed { checkpoint, reason });
                }
                let pointer = ManifestPointer {
                    checkpoint,
                    path: format!("manifests/{checkpoint}-{}", self.incarnation),
                    bytes: 1,
                    crc32c: 1,
                };
                self.manifests.insert(pointer.path.clone(), *manifest);
                self.tell(Event::ManifestWritten { checkpoint, pointer });
            }
            Work::Decision(pointer) => {
                let checkpoint = pointer.checkpoint;
                if !fails || applied {
                    let manifest = self.manifests[&pointer.path].clone();
                    self.log.push((pointer, manifest));
                }
                let event = if fails { Event::DecisionUnknown { checkpoint, reason } } else { Event::Decided { checkpoint } };
                self.tell(event);
            }
            Work::Commit(permit) => {
                let checkpoint = permit.checkpoint();
                for file in permit.committables().values().flatten() {
                    if fails && applied {
                        break; // some did, others did not
                    }
                    let file = file.as_str().expect("a file").to_owned();
                    assert!(!self.committed.contains(&file), "{file} is committed once");
                    self.committed.push(file);
                }
                if fails {
                    return self.tell(Event::CommitFailed { checkpoint, reason });
                }
                self.confirmed = checkpoint;
                self.tell(Event::SinksCommitted { checkpoint });
            }
            Work::Copy { request, manifest } => {
                let checkpoint = manifest.checkpoint;
                assert!(manifest.segments().all(|segment| self.segments.contains_key(&segment.path)), "all is there to copy");
                let pointer = ManifestPointer { checkpoint, path: format!("savepoints/{request}"), bytes: 1, crc32c: 1 };
                self.tell(if fails {
                    Event::SavepointStoreFailed { request, reason }
                } else {
                    Event::SavepointStored { request, pointer }
                });
            }
            Work::Merge { operator, index, segments, to_full } => {
                if fails {
                    return self.tell(Event::MergeFailed { operator, task_index: index, reason });
                }
                let first = self.segments[&segments[0].path];
                let last = self.segments[&segments[segments.len() - 1].path];
                let span = Span { after: first.after, to: last.to };
                let name = format!("segments/m{}-{}", self.now, self.segments.len());
                let name = format!("{name}-{}-{}", self.incarnation, self.random.below(usize::MAX));
                self.segments.insert(name.clone(), span);
                let replaced = segments.into_iter().map(|segment| segment.path).collect();
                let by = path(span, &name, to_full);
                self.tell(Event::Merged { operator, task_index: index, replaced, by });
            }
        }
    }

    /// What recovery does: the last decision is finished and restored, everything newer is dropped.
    fn restart(&mut self) {
        self.restarts += 1;
        self.incarnation += 1;
        self.work.clear();
        self.answered = (1..=self.requests).collect();
        let last = self.log.last().cloned();
        if let Some((_, manifest)) = &last {
            for file in manifest.sinks.values().flatten().map(|file| file.as_str().expect("a file")) {
                if !self.committed.iter().any(|committed| committed == file) {
                    self.committed.push(file.to_owned());
                }
            }
        }
        self.files.retain(|file, _| self.committed.contains(file));
        self.reported.clear();
        let needed = self.needed();
        self.segments.retain(|path, _| needed.contains(path));
        self.manifests.retain(|path, _| needed.contains(path));
        for (index, task) in self.tasks.iter_mut().enumerate() {
            let version = last.as_ref().map_or(0, |(pointer, _)| self.cuts[&(index, pointer.checkpoint)]);
            *task = TaskModel { version, frozen: version, staged: version, ..TaskModel::default() };
        }
        self.confirmed = last.as_ref().map_or(0, |(pointer, _)| pointer.checkpoint);
        let inherit = self.random.chance(70);
        let log = self.log.iter().filter(|(pointer, _)| self.manifests.contains_key(&pointer.path));
        let retained = log.map(|(pointer, manifest)| CompletedCheckpoint::from_log(pointer.clone(), manifest)).collect();
        let restored = last.map(|(_, manifest)| Restored { manifest, retained });
        let max_concurrent = 1 + self.random.below(3) as u32;
        let next = self.largest_id + 1 + self.random.below(3) as u64;
        self.coordinator = Coordinator::new(Self::config(max_concurrent, restored, inherit, next, self.now));
    }

    fn end(&mut self, everything_read: bool) {
        self.finished = true;
        if everything_read {
            let (_, manifest) = self.log.last().expect("decided");
            assert!(manifest.end_of_input);
        }
        assert_eq!(self.answered.len() as u64, self.requests, "every savepoint request was answered");
        // Everything up to the last barrier is out, once.
        let (last, _) = self.log.last().expect("decided");
        for index in 1..TASKS as usize {
            let mut spans: Vec<_> =
                self.committed.iter().map(|file| self.files[file]).filter(|(task, _)| *task == index).collect();
            spans.sort_by_key(|(_, span)| span.after);
            let mut at = 0;
            for (_, span) in spans {
                assert_eq!(span.after, at, "rows of task {index} come out once and in full");
                at = span.to;
            }
            assert_eq!(at, self.cuts[&(index, last.checkpoint)]);
        }
        assert_eq!(self.manifests.keys().filter(|path| path.starts_with("manifests/")).count().min(RETAINED as usize + 1), {
            self.log.len().min(RETAINED as usize)
        });
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..=4 => {
                let index = self.random.below(TASKS as usize);
                self.step_task(index);
            }
            5..=9 => {
                let index = self.random.below(TASKS as usize);
                self.deliver(index);
            }
            10..=12 => self.step_work(),
            13 if self.failures && self.random.chance(10) => {
                self.requests += 1;
                let stop = self.random.chance(5).then_some(StopMode { drain: false });
                self.tell(Event::SavepointRequested { request: self.requests, stop });
            }
            13 if self.failures && self.random.chance(1) => {
                // kill -9: an open decision may or may not have been applied.
                let open = self.work.iter().find_map(|work| match work {
                    Work::Decision(pointer) => Some(pointer.clone()),
                    _ => None,
                });
                if let Some(pointer) = open.filter(|_| self.random.chance(50)) {
                    let manifest = self.manifests[&pointer.path].clone();
                    self.log.push((pointer, manifest));
                }
                self.restart();
            }
            _ => {
                self.now += self.random.below(30) as u64;
                self.tell(Event::Tick);
            }
        }
    }

    /// No more failures and no more input: the job has to come to its end.
    fn calm_down(&mut self) {
        self.failures = false;
        for _ in 0..50_000 {
            if self.finished {
                return;
            }
            if self.random.chance(2) {
                self.tell(Event::AllSourcesEnded); // again after each restart, too
                continue;
            }
            self.step();
        }
        panic!("the job did not finish: {:#?}", self.coordinator);
    }
}

fn simulate(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        if world.finished {
            return world;
        }
        world.step();
    }
    world.calm_down();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn whatever_fails_in_whatever_order_state_is_whole_and_every_row_comes_out_once(seed in any::<u64>(), steps in 0usize..3000) {
        simulate(seed, steps);
    }
}

#[test]
fn the_simulation_reaches_what_it_is_for() {
    let worlds: Vec<_> = (0..100).map(|seed| simulate(seed, 3000)).collect();
    assert!(worlds.iter().map(|world| world.log.len()).sum::<usize>() > 300, "decisions");
    assert!(worlds.iter().map(|world| world.restarts).sum::<u32>() > 30, "restarts");
    assert!(worlds.iter().any(|world| world.manifests.len() < world.log.len()), "retention");
    assert!(worlds.iter().any(|world| world.requests > 3), "savepoints");
    let merged = |world: &World| world.log.iter().any(|(_, m)| m.segments().any(|s| s.path.starts_with("segments/m")));
    assert!(worlds.iter().filter(|world| merged(world)).count() > 3, "merges");
}
