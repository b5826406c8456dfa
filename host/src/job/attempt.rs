//! One attempt: everything that runs between a start (or restart) of a job and its end or failure.
//!
//! ```text
//!   acquire ─► plan ─► manifest ─► sinks recover ─► state read ─► tasks built ─► threads
//! ```
//!
//! Invariants:
//! * nothing is opened before the log is fenced: from then on no predecessor can decide anything;
//! * sinks finish what was decided and discard everything newer before the first writer is open;
//! * a task starts with exactly the state, the positions and the watermark of the restored checkpoint;
//! * what that checkpoint had in flight stands at the head of the gates before anything runs.

use super::dead_letters::DeadLetterLane;
use super::plan::JobPlan;
use super::replay_log::ReplayLog;
use super::reserved::Reserved;
use super::restore::Sinks;
use super::splits::SplitNames;
use super::status::TaskView;
use crate::checkpoint_store::{CheckpointStore, Segments};
use crate::connector::ConnectorContext;
use crate::connector::dead_letter::DeadLetters;
use crate::journal::Journal;
use crate::metrics::{Metrics, TaskLabels, TaskMetrics};
use crate::state::{KeyedState, StateBudget};
use crate::task::activity::Activity;
use crate::task::chain::{Chain, KeylessPolicy, Node, NodeKind, Route, SinkNode};
use crate::task::edge::{EdgeWriter, KeyFrom, Partitioning, Target};
use crate::task::errors::NodeErrors;
use crate::task::gate::Gate;
use crate::task::in_flight::{Inputs, decode, of_groups};
use crate::task::operator::{Logic, OperatorNode};
use crate::task::replay::ReplayReader;
use crate::task::snapshot;
use crate::task::source::SourceDriver;
use crate::task::thread::{ChannelHead, Head, SourceHead, Task};
use crate::task::{Element, Report, TaskError};
use crate::wasm::env::{OperatorEnv, OperatorMeta};
use crate::wasm::guest_metrics::TaskGuestMetrics;
use crate::wasm::instance::WasmOperator;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_core::barrier::Aligner;
use tidegate_core::checkpoint::{InFlight, Manifest, SegmentRef, TaskId};
use tidegate_core::in_flight::{self, Share};
use tidegate_core::job_graph::execution;
use tidegate_core::job_graph::spec::{CheckpointSpec, KeySpec, OnError};
use tidegate_core::key_group;
use tidegate_core::limits::{CHANNEL_OVERDRAFT_BATCHES_MAX, RowLimits, TASK_STACK_BYTES};
use tidegate_core::replay::{Progress, REPLAY_SOURCE};
use tidegate_core::row::{NO_TIMESTAMP, Rows};
use tidegate_core::watermark::WatermarkMerge;
use tokio::sync::mpsc;

/// Options that hold a source to a rate.
const PACED_BY: [&str; 2] = ["rate", "replay_speed"];

pub struct Attempt {
    pub job: String,
    pub store: CheckpointStore,
    pub gates: BTreeMap<TaskId, Arc<Gate>>,
    /// Tasks with a source at their head: where barriers start.
    pub sources: Vec<TaskId>,
    pub sinks: Arc<Sinks>,
    pub reports: mpsc::UnboundedReceiver<Report>,
    pub views: Vec<TaskView>,
    /// Says which barriers may overtake.
    pub checkpoint: CheckpointSpec,
    names: BTreeMap<TaskId, String>,
    threads: Vec<std::thread::JoinHandle<()>>,
    uploads: Vec<tokio::task::JoinHandle<()>>,
}

impl Attempt {
    pub fn task_name(&self, task: TaskId) -> String {
        self.names.get(&task).cloned().unwrap_or_else(|| task.to_string())
    }

    /// Nobody waits any more: tasks see it at their gates.
    pub fn close(&self) {
        for gate in self.gates.values() {
            gate.close();
        }
    }

    /// Until all threads are gone. A guest in a call ends with its deadline at the latest.
    pub async fn join(&mut self) {
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                // A panic was reported by the task itself.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
        for upload in self.uploads.drain(..) {
            let _ = upload.await;
        }
    }
}

impl Drop for Attempt {
    /// Also where whoever drives it is dropped, with the async runtime, in the middle: its threads must not wait for ever.
    fn drop(&mut self) {
        self.close();
    }
}

/// Bad records by source and operator.
type Errors = BTreeMap<String, Arc<NodeErrors>>;

pub struct Builder<'a> {
    pub plan: &'a JobPlan,
    pub store: CheckpointStore,
    pub metrics: &'a Metrics,
    pub journal: &'a Arc<Journal>,
    pub restored: Option<&'a Manifest>,
    pub sinks: Arc<Sinks>,
    pub dead_letters: DeadLetters,
    pub budget: Arc<StateBudget>,
    /// At most once: what may have been handed out. Sources go on from there instead.
    pub reserved: Option<Reserved>,
    /// State to put into the tasks, read from the store beforehand.
    pub segments: Segments,
    /// Of an unaligned checkpoint.
    pub in_flight: Vec<(InFlight, bytes::Bytes)>,
    /// Checkpoints before this attempt have ids up to here.
    pub last_checkpoint: u64,
    /// Of the run, from 1.
    pub attempt: u32,
    pub replays: Arc<ReplayLog>,
}

impl Builder<'_> {
    /// Builds all tasks, then starts their threads.
    pub fn build(self) -> Result<Attempt, TaskError> {
        let graph = &self.plan.graph;
        self.metrics.job(&self.plan.spec.name).state_bytes_max.set(self.budget.bytes_max());
        let names = Arc::new(SplitNames::default());
        let mut gates: BTreeMap<TaskId, Arc<Gate>> = BTreeMap::new();
        let mut chained = BTreeMap::new();
        // Upstream first: a gate knows those of its senders.
        for id in graph.task_ids() {
            let sender = |channel: &execution::Channel| {
                let vertex = graph.edges[channel.edge].from_vertex as u32;
                Arc::clone(&gates[&TaskId { vertex, index: channel.upstream_task }])
            };
            let senders = graph.channels_into(id.vertex as usize, id.index).iter().map(sender).collect();
            let (at_gate, in_chain) = self.in_flight(id, &names)?;
            gates.insert(id, Gate::new(senders, at_gate));
            chained.insert(id, in_chain);
        }
        let (to_job, reports) = mpsc::unbounded_channel();
        let mut attempt = Attempt {
            job: self.plan.spec.name.clone(),
            store: self.store.clone(),
            gates: gates.clone(),
            sources: Vec::new(),
            sinks: Arc::clone(&self.sinks),
            reports,
            views: Vec::new(),
            checkpoint: self.plan.spec.checkpoint,
            names: BTreeMap::new(),
            threads: Vec::new(),
            uploads: Vec::new(),
        };
        let errors = self.errors();
        // File calls while writers are opened; tasks have threads of their own.
        let _entered = self.plan.io_steps.as_ref().map(|steps| steps.enter());
        let mut tasks = Vec::new();
        for id in graph.task_ids() {
            let (uploads, parts) = mpsc::unbounded_channel();
            let activity = Arc::new(Activity::default());
            attempt.uploads.push(tokio::spawn(snapshot::upload(
                id,
                self.store.clone(),
                parts,
                to_job.clone(),
                Arc::clone(&activity),
            )));
            let (mut task, view) = self.task(id, &gates, &names, &errors, to_job.clone(), uploads, activity)?;
            task.in_flight = chained.remove(&id).unwrap_or_default();
            if matches!(task.head, Head::Source(_)) {
                attempt.sources.push(id);
            }
            attempt.names.insert(id, task.name.clone());
            attempt.views.push(view);
            tasks.push(task);
        }
        if let Some(reserved) = &self.reserved {
            let positions = tasks.iter_mut().flat_map(Task::positions).collect();
            reserved.begin(positions)?;
        }
        for task in tasks {
            let (name, steps) = (thread_name(&task), self.plan.io_steps.clone());
            let work = move || {
                let _entered = steps.map(|steps| steps.enter());
                task.run();
            };
            let thread = std::thread::Builder::new().name(name).stack_size(TASK_STACK_BYTES).spawn(work);
            match thread {
                Ok(thread) => attempt.threads.push(thread),
                Err(error) => {
                    attempt.close();
                    return Err(TaskError::Restart(format!("could not start a thread for a task: {error}")));
                }
            }
        }
        Ok(attempt)
    }

    /// By source and operator.
    fn errors(&self) -> Errors {
        let spec = &self.plan.spec;
        let sources = spec.sources.iter().map(|source| ("source", &source.name, source.errors));
        let operators = spec.operators.iter().map(|operator| ("operator", &operator.name, operator.errors));
        let errors = |(kind, name, errors): (&str, &String, _)| {
            (name.clone(), Arc::new(NodeErrors::new(format!("{kind} {name}"), errors)))
        };
        sources.chain(operators).map(errors).collect()
    }

    #[allow(clippy::too_many_arguments)]
    fn task(
        &self,
        id: TaskId,
        gates: &BTreeMap<TaskId, Arc<Gate>>,
        names: &Arc<SplitNames>,
        errors: &Errors,
        reports: mpsc::UnboundedSender<Report>,
        uploads: mpsc::UnboundedSender<snapshot::AsyncPart>,
        activity: Arc<Activity>,
    ) -> Result<(Task, TaskView), TaskError> {
        let graph = &self.plan.graph;
        let vertex = &graph.vertices[id.vertex as usize];
        let job = &self.plan.spec.name;
        let counters =
            |node: &str| self.metrics.task(job, TaskLabels { vertex: id.vertex, operator: node.to_owned(), task: id.index });
        let metrics = counters(&vertex.nodes[0].name);
        let mut nodes = Vec::new();
        let mut edges = Vec::new();
        let mut policies = Vec::new();
        let mut view = self.view(id, Arc::clone(&metrics), Arc::clone(&activity));
        for node in &vertex.nodes {
            let node_metrics = counters(&node.name);
            let number = view.nodes.len() as u32;
            view.nodes.push((node.name.clone(), Arc::clone(&node_metrics)));
            let kind = match node.kind {
                execution::NodeKind::Source(_) => NodeKind::Source,
                execution::NodeKind::Operator(i) => {
                    view.deadlines_ms[number as usize] = self.plan.spec.operators[i].limits.call_deadline_ms;
                    let place = (number, Arc::clone(&activity));
                    NodeKind::Operator(Box::new(self.operator(i, id.index, node_metrics, &gates[&id], place)?))
                }
                execution::NodeKind::Sink(_) => {
                    let writer = self.sinks[&node.name].open(id.index, vertex.parallelism);
                    let writer = writer.map_err(|e| TaskError::connector(&node.name, &e))?;
                    NodeKind::Sink(SinkNode { name: node.name.clone(), writer, metrics: node_metrics })
                }
            };
            let routes = node
                .outputs
                .iter()
                .map(|targets| {
                    targets
                        .iter()
                        .map(|target| match *target {
                            execution::Target::Chained { node, input } => Route::Node { node, input },
                            execution::Target::Edge { edge } => {
                                let (writer, policy) = self.edge(edge, id, gates, errors, &activity, &mut view.targets);
                                edges.push(writer);
                                policies.push(policy);
                                Route::Edge(edges.len() - 1)
                            }
                        })
                        .collect()
                })
                .collect();
            nodes.push(Node { kind, routes });
        }
        // A number of its own among all tasks of the job: it becomes part of a file's name.
        let number = graph.vertices[..id.vertex as usize].iter().map(|v| v.parallelism).sum::<u32>() + id.index;
        let dead_letters = self.dead_letters.writer(number).map_err(|e| TaskError::connector("dead letters", &e))?;
        let lane =
            DeadLetterLane::new(job.clone(), id, dead_letters, Arc::clone(names), self.plan.operator_modules(), self.attempt);
        let of_nodes = vertex.nodes.iter().map(|node| match node.kind {
            execution::NodeKind::Operator(_) => errors.get(&node.name).cloned(),
            _ => None,
        });
        let chain = Chain::new(nodes, edges, policies, of_nodes.collect(), lane, Arc::clone(&metrics));
        let head = match vertex.nodes[0].kind {
            execution::NodeKind::Source(i) => {
                Head::Source(self.source(i, id, vertex.parallelism, names, errors, Arc::clone(&metrics))?)
            }
            _ => self.channels(id, names),
        };
        let mut replay = ReplayReader::new(Arc::clone(&self.replays), &chain, |operator| {
            let owned = key_group::groups_of(id.index, self.plan.spec.key_groups, vertex.parallelism);
            self.progress(operator, owned)
        });
        if let Some(reserved) = &self.reserved {
            replay = replay.at_most_once(reserved.replays(id));
        }
        let task = Task {
            id,
            name: format!("{} ({}/{})", vertex.name, id.index + 1, vertex.parallelism),
            gate: Arc::clone(&gates[&id]),
            chain,
            head,
            replay,
            stopped: false,
            restored: self.last_checkpoint,
            in_flight: Vec::new(),
            reports,
            uploads,
            metrics,
            activity,
        };
        Ok((task, view))
    }

    /// What the outside sees of a task, before its nodes and edges are built.
    fn view(&self, id: TaskId, task: Arc<TaskMetrics>, activity: Arc<Activity>) -> TaskView {
        let graph = &self.plan.graph;
        let vertex = &graph.vertices[id.vertex as usize];
        let channels = graph.channels_into(id.vertex as usize, id.index);
        let source = match vertex.nodes[0].kind {
            execution::NodeKind::Source(i) => Some(&self.plan.spec.sources[i]),
            _ => None,
        };
        // The part that people wrote: an operator says more than the source or sink that it is chained to.
        let main = vertex.nodes.iter().find(|node| matches!(node.kind, execution::NodeKind::Operator(_)));
        let main = main.filter(|_| source.is_none()).unwrap_or(&vertex.nodes[0]);
        TaskView {
            id,
            task,
            nodes: Vec::new(),
            name: format!("{}[{}]", main.name, id.index),
            activity,
            targets: Vec::new(),
            channels: channels
                .iter()
                .map(|channel| TaskId { vertex: graph.edges[channel.edge].from_vertex as u32, index: channel.upstream_task })
                .collect(),
            deadlines_ms: vec![0; vertex.nodes.len()],
            source: source.is_some(),
            paced: source.is_some_and(|source| PACED_BY.iter().any(|option| source.options.contains_key(*option))),
            makes_watermarks: source.is_some_and(|source| source.watermark.is_some()),
        }
    }

    /// How far the groups of an operator have come in the log of replays.
    fn progress(&self, operator: &str, owned: std::ops::Range<u32>) -> Progress {
        let snapshot = self.restored.and_then(|manifest| manifest.sources.get(REPLAY_SOURCE));
        let mut progress = Progress::restored(&self.plan.job_id, operator, owned, snapshot.map_or(&[], Vec::as_slice));
        progress.raise(self.reserved.as_ref().map_or(&[], |reserved| &reserved.beginning.replays));
        progress
    }

    fn source(
        &self,
        i: usize,
        id: TaskId,
        parallelism: u32,
        names: &Arc<SplitNames>,
        errors: &Errors,
        metrics: Arc<TaskMetrics>,
    ) -> Result<SourceHead, TaskError> {
        let spec = &self.plan.spec.sources[i];
        let source = self.plan.build_source(spec)?;
        let reserved = self.reserved.as_ref().and_then(|reserved| reserved.beginning.positions.get(&spec.name));
        let positions = reserved.or_else(|| self.restored.and_then(|manifest| manifest.sources.get(&spec.name)));
        let reader = source
            .open(id.index, parallelism, positions.map_or(&[], Vec::as_slice))
            .map_err(|e| TaskError::connector(&spec.name, &e))?;
        let mut driver = SourceDriver::new(
            spec.name.clone(),
            reader,
            spec.watermark.as_ref(),
            spec.on_error,
            Arc::clone(&errors[&spec.name]),
            self.plan.spec.batch,
            Arc::clone(names),
            metrics,
        );
        if let Some(reserved) = &self.reserved {
            driver = driver.at_most_once(reserved.records(id));
        }
        Ok(SourceHead { driver: Box::new(driver), stopped: false })
    }

    fn channels(&self, id: TaskId, names: &Arc<SplitNames>) -> Head {
        let graph = &self.plan.graph;
        let channels = graph.channels_into(id.vertex as usize, id.index);
        let vertex = &graph.vertices[id.vertex as usize];
        let keyed = matches!(vertex.nodes[0].kind, execution::NodeKind::Operator(i) if self.plan.spec.operators[i].key.is_some());
        let groups = if keyed { key_group::groups_of(id.index, self.plan.spec.key_groups, vertex.parallelism) } else { 0..0 };
        let described = Inputs {
            node: vertex.nodes[0].name.clone(),
            task_index: id.index,
            parallelism: vertex.parallelism,
            keyed,
            groups,
            channels: self.named_channels(id),
            names: Arc::clone(names),
        };
        let inputs =
            channels.iter().map(|channel| (graph.edges[channel.edge].to_node, graph.edges[channel.edge].input)).collect();
        Head::Channels(ChannelHead {
            inputs,
            aligner: Aligner::new(channels.len(), self.plan.spec.delivery),
            watermarks: WatermarkMerge::new(channels.len()),
            told_idle: false,
            described: Arc::new(described),
            recording: None,
        })
    }

    /// The channels of a task as a checkpoint names them: input and upstream task.
    fn named_channels(&self, id: TaskId) -> Vec<(u32, u32)> {
        let graph = &self.plan.graph;
        let channels = graph.channels_into(id.vertex as usize, id.index);
        channels.iter().map(|channel| (graph.edges[channel.edge].input, channel.upstream_task)).collect()
    }

    /// What the restored checkpoint had in flight to this task: at its gate, by channel, and inside its chain, by node.
    #[allow(clippy::type_complexity)]
    fn in_flight(&self, id: TaskId, names: &SplitNames) -> Result<(Vec<(usize, Element)>, Vec<(usize, Rows)>), TaskError> {
        let vertex = &self.plan.graph.vertices[id.vertex as usize];
        let channels = self.named_channels(id);
        let (mut at_gate, mut in_chain) = (Vec::new(), Vec::new());
        for (in_flight, bytes) in &self.in_flight {
            let Some(node) = vertex.nodes.iter().position(|node| node.name == in_flight.node) else { continue };
            let share = in_flight::share(in_flight, id.index, vertex.parallelism, self.plan.spec.key_groups);
            if share == Share::Nothing {
                continue;
            }
            let restored = decode(bytes, names)
                .map_err(|why| TaskError::Fatal(format!("what was in flight, {}: {why}", in_flight.segment.path)))?;
            // With other channels, what they said of time means nothing: sources say it again, behind these rows.
            let is_same = node == 0 && in_flight::has_same_channels(in_flight, vertex.parallelism, &channels);
            for (input, upstream_task, element) in restored
                .into_iter()
                .flat_map(|channel| channel.elements.into_iter().map(move |e| (channel.input, channel.upstream_task, e)))
            {
                let element = match (element, &share) {
                    (Element::Batch(rows), Share::Groups(groups)) => {
                        Element::Batch(of_groups(&rows, groups, self.plan.spec.key_groups))
                    }
                    (Element::Batch(rows), _) => Element::Batch(rows),
                    (_, _) if !is_same => continue,
                    (element, _) => element,
                };
                match element {
                    Element::Batch(rows) if rows.is_empty() => {}
                    Element::Batch(rows) if node > 0 || channels.is_empty() => in_chain.push((node, rows)),
                    element => {
                        // Any channel of the same input will do where the sender is not there any more.
                        let of_input = |channel: &(usize, &(u32, u32))| channel.1.0 == input;
                        let exact = channels.iter().position(|channel| *channel == (input, upstream_task));
                        let channel = exact.or_else(|| channels.iter().enumerate().find(of_input).map(|(at, _)| at));
                        let Some(channel) = channel else {
                            return Err(TaskError::Fatal(format!("{} has no input {input} any more", in_flight.node)));
                        };
                        at_gate.push((channel, element));
                    }
                }
            }
        }
        Ok((at_gate, in_chain))
    }

    fn operator(
        &self,
        i: usize,
        index: u32,
        metrics: Arc<TaskMetrics>,
        gate: &Gate,
        (number, activity): (u32, Arc<Activity>),
    ) -> Result<OperatorNode, TaskError> {
        let spec = &self.plan.spec.operators[i];
        let code = &self.plan.operators[&spec.name];
        let meta = Arc::new(OperatorMeta {
            job: self.plan.spec.name.clone(),
            operator: spec.name.clone(),
            module: spec.module.clone(),
            digest: code.digest.clone(),
            task_index: index,
            parallelism: spec.parallelism,
            options: spec.config.clone(),
            ports: code.outputs.len() as u32,
            keyed: code.keyed,
            limits: spec.limits,
            row_limits: RowLimits::default(),
            journal: Some(Arc::clone(self.journal)),
        });
        let (mut state, mut restore) = (None, Vec::new());
        if code.keyed {
            let groups = self.plan.spec.key_groups;
            let owned = key_group::groups_of(index, groups, spec.parallelism);
            let of_this_task = |segment: &SegmentRef| segment.first_group < owned.end && owned.start < segment.end_group;
            let all = self.segments.get(&spec.name).into_iter().flatten();
            restore = all
                .filter(|(segment, _)| of_this_task(segment))
                .map(|(segment, bytes)| (segment.path.clone(), bytes.clone()))
                .collect();
            state = Some(KeyedState::new(&code.states, groups, owned.clone(), &spec.limits));
        }
        let guest_metrics = self.metrics.guest(&self.plan.spec.name, &spec.name);
        let env = OperatorEnv::new(meta, state, TaskGuestMetrics::new(guest_metrics));
        let env = env.of_task(gate.stopped(), Arc::clone(&self.budget));
        let logic = match &code.code {
            super::plan::Code::Wasm(module) => {
                Logic::Wasm(Box::new(WasmOperator::new(module.clone(), env).with_amnesia(self.plan.amnesia)))
            }
            super::plan::Code::Native(make) => Logic::Native { operator: make(), env: Box::new(env) },
        };
        Ok(OperatorNode {
            name: spec.name.clone(),
            on_error: spec.on_error,
            logic,
            restore,
            metrics,
            watermark: NO_TIMESTAMP,
            activity,
            number,
        })
    }

    /// Adds the tasks that the edge leads to to `all_targets`.
    fn edge(
        &self,
        number: usize,
        from: TaskId,
        gates: &BTreeMap<TaskId, Arc<Gate>>,
        errors: &Errors,
        activity: &Arc<Activity>,
        all_targets: &mut Vec<TaskId>,
    ) -> (EdgeWriter, KeylessPolicy) {
        let graph = &self.plan.graph;
        let edge = &graph.edges[number];
        let to = &graph.vertices[edge.to_vertex];
        let head = &to.nodes[edge.to_node];
        let first_target = all_targets.len() as u32;
        all_targets.extend((0..to.parallelism).map(|index| TaskId { vertex: edge.to_vertex as u32, index }));
        let targets = (0..to.parallelism)
            .map(|index| {
                let id = TaskId { vertex: edge.to_vertex as u32, index };
                let channels = graph.channels_into(edge.to_vertex, index);
                let channel = channels.iter().position(|c| c.edge == number && c.upstream_task == from.index);
                Target { gate: Arc::clone(&gates[&id]), channel: channel.unwrap_or(usize::MAX) }
            })
            .collect();
        let partitioning = match &edge.partitioning {
            execution::Partitioning::Forward => Partitioning::Forward { task: from.index as usize },
            execution::Partitioning::Rebalance => Partitioning::Rebalance,
            execution::Partitioning::Key(key) => Partitioning::Key {
                from: match key {
                    KeySpec::Row => KeyFrom::Row,
                    KeySpec::Json(pointers) => KeyFrom::Json(super::plan::pointers(pointers)),
                },
                key_groups: self.plan.spec.key_groups,
            },
        };
        let on_error = match head.kind {
            execution::NodeKind::Operator(i) => self.plan.spec.operators[i].on_error,
            _ => OnError::Fail,
        };
        let policy = KeylessPolicy { on_error, input: edge.input, errors: errors.get(&head.name).cloned() };
        let (to_node, spec) = (head.name.clone(), &self.plan.spec);
        let overdraft = if spec.checkpoint.unaligned { CHANNEL_OVERDRAFT_BATCHES_MAX } else { 0 };
        (EdgeWriter::new(to_node, partitioning, targets, spec.batch, overdraft, Arc::clone(activity), first_target), policy)
    }
}

fn thread_name(task: &Task) -> String {
    // Linux shows 15 bytes of it.
    format!("tg-{}-{}", task.id.vertex, task.id.index)
}

/// What connectors are told about the job.
pub fn context(plan: &JobPlan, node: &str) -> ConnectorContext {
    ConnectorContext {
        job: plan.spec.name.clone(),
        job_id: plan.job_id.clone(),
        node: node.to_owned(),
        delivery: plan.spec.delivery,
        base: plan.base.clone(),
    }
}
