//! The job as it runs: nodes chained into vertices, vertices joined by edges, each vertex as many tasks as its parallelism.
//!
//! ```text
//!   flights ─► parse ─►(key)─► delays ─► out          as written
//!                        └───► late
//!
//!   [flights -> parse] ══key══► [delays -> out]       as it runs: two vertices are threads, `─►` inside them a call
//!                      ══key══► [late]
//! ```
//!
//! Invariants:
//! * every node of the job is in exactly one vertex, and every connection is exactly one [`Target`] of its upstream node;
//! * a node is chained to its upstream if it has one input in all, the connection has no key and both have the same parallelism;
//!   every other node is the head of its vertex, so edges lead to heads only;
//! * nodes of a vertex stand in an order in which each comes after the one that feeds it;
//! * the same job gives the same numbers to vertices, nodes, edges and channels, so that they may be used in logs and snapshots.
//!
//! What this is not: a check. The job has passed [`validate`](super::validate); what fails here is our bug.

use super::spec::{JobSpec, KeySpec, PortRef};
use crate::checkpoint::TaskId;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExecutionGraph {
    pub vertices: Vec<Vertex>,
    pub edges: Vec<Edge>,
}

/// A chain of nodes that run on one thread for each task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vertex {
    /// `flights -> parse -> out`, for people.
    pub name: String,
    pub parallelism: u32,
    /// The head first. A chain may branch.
    pub nodes: Vec<Node>,
    /// Edges into the head, by input number.
    pub inputs: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    pub name: String,
    pub kind: NodeKind,
    /// By port: where its rows go. Watermarks and barriers go to all targets of all ports.
    pub outputs: Vec<Vec<Target>>,
}

/// An index into the lists of the [`JobSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    Source(usize),
    Operator(usize),
    Sink(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A node of the same vertex, called on the same thread.
    Chained {
        node: usize,
        input: u32,
    },
    Edge {
        edge: usize,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    pub from_vertex: usize,
    pub from_node: usize,
    pub from_port: usize,
    pub to_vertex: usize,
    /// Always the head, 0.
    pub to_node: usize,
    /// Which input of the operator: its place in `input`. Sinks tell none apart, but number them as well.
    pub input: u32,
    pub partitioning: Partitioning,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioning {
    /// Task i to task i.
    Forward,
    /// Batches in turn to every task.
    Rebalance,
    /// By key group.
    Key(KeySpec),
}

/// One upstream task's end of an edge, as the input gate of a task sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Channel {
    pub edge: usize,
    pub upstream_task: u32,
}

/// A node as written, before it has a place.
struct Plan<'a> {
    name: &'a str,
    kind: NodeKind,
    parallelism: u32,
    key: Option<&'a KeySpec>,
    inputs: Vec<Input>,
    ports: usize,
}

/// Upstream node (number of its plan) and port.
#[derive(Clone, Copy)]
struct Input {
    upstream: usize,
    port: usize,
}

impl ExecutionGraph {
    /// `outputs` gives the ports that an operator's component declares, port 0 first.
    pub fn build(spec: &JobSpec, outputs: &dyn Fn(&str) -> Vec<String>) -> Self {
        let plans = plan(spec, outputs);
        let mut graph = Self { vertices: Vec::new(), edges: Vec::new() };
        // Where each plan came to be: vertex and node.
        let mut places: Vec<Option<(usize, usize)>> = vec![None; plans.len()];
        for number in upstream_first(&plans) {
            let plan = &plans[number];
            let place = |upstream: usize| places[upstream].expect("BUG: a node before its upstream");
            let node = Node { name: plan.name.to_string(), kind: plan.kind, outputs: vec![Vec::new(); plan.ports] };
            let chained_to = match plan.inputs[..] {
                [input] if plan.key.is_none() && plans[input.upstream].parallelism == plan.parallelism => Some(input),
                _ => None,
            };
            if let Some(input) = chained_to {
                let (vertex, upstream) = place(input.upstream);
                let nodes = &mut graph.vertices[vertex].nodes;
                let target = Target::Chained { node: nodes.len(), input: 0 };
                nodes[upstream].outputs[input.port].push(target);
                nodes.push(node);
                places[number] = Some((vertex, nodes.len() - 1));
                continue;
            }
            let to_vertex = graph.vertices.len();
            let mut inputs = Vec::with_capacity(plan.inputs.len());
            for (i, input) in plan.inputs.iter().enumerate() {
                let (from_vertex, from_node) = place(input.upstream);
                let partitioning = match plan.key {
                    Some(key) => Partitioning::Key(key.clone()),
                    None if plans[input.upstream].parallelism == plan.parallelism => Partitioning::Forward,
                    None => Partitioning::Rebalance,
                };
                let edge = graph.edges.len();
                graph.vertices[from_vertex].nodes[from_node].outputs[input.port].push(Target::Edge { edge });
                graph.edges.push(Edge {
                    from_vertex,
                    from_node,
                    from_port: input.port,
                    to_vertex,
                    to_node: 0,
                    input: i as u32,
                    partitioning,
                });
                inputs.push(edge);
            }
            graph.vertices.push(Vertex { name: String::new(), parallelism: plan.parallelism, nodes: vec![node], inputs });
            places[number] = Some((to_vertex, 0));
        }
        for vertex in &mut graph.vertices {
            vertex.name = vertex.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(" -> ");
        }
        graph
    }

    pub fn task_count(&self) -> usize {
        self.vertices.iter().map(|vertex| vertex.parallelism as usize).sum()
    }

    /// All tasks, by vertex and index.
    pub fn task_ids(&self) -> Vec<TaskId> {
        let tasks = |(vertex, v): (usize, &Vertex)| (0..v.parallelism).map(move |index| TaskId { vertex: vertex as u32, index });
        self.vertices.iter().enumerate().flat_map(tasks).collect()
    }

    pub fn is_source_vertex(&self, vertex: usize) -> bool {
        matches!(self.vertices[vertex].nodes[0].kind, NodeKind::Source(_))
    }

    /// Vertex and node where a node of the job runs.
    pub fn place_of(&self, kind: NodeKind) -> (usize, usize) {
        let find = |(vertex, v): (usize, &Vertex)| v.nodes.iter().position(|node| node.kind == kind).map(|node| (vertex, node));
        self.vertices.iter().enumerate().find_map(find).expect("BUG: a node of the job is in no vertex")
    }

    /// What the input gate of a task reads, in an order that never changes: by input, then by upstream task.
    pub fn channels_into(&self, vertex: usize, task: u32) -> Vec<Channel> {
        let senders = |edge: usize| self.senders(edge, task).map(move |upstream_task| Channel { edge, upstream_task });
        self.vertices[vertex].inputs.iter().flat_map(|edge| senders(*edge)).collect()
    }

    /// Upstream tasks that write to a task over an edge.
    pub fn senders(&self, edge: usize, task: u32) -> Range<u32> {
        match self.edges[edge].partitioning {
            Partitioning::Forward => task..task + 1,
            Partitioning::Rebalance | Partitioning::Key(_) => 0..self.vertices[self.edges[edge].from_vertex].parallelism,
        }
    }

    /// Downstream tasks that an upstream task writes to over an edge.
    pub fn receivers(&self, edge: usize, upstream_task: u32) -> Range<u32> {
        match self.edges[edge].partitioning {
            Partitioning::Forward => upstream_task..upstream_task + 1,
            Partitioning::Rebalance | Partitioning::Key(_) => 0..self.vertices[self.edges[edge].to_vertex].parallelism,
        }
    }
}

fn plan<'a>(spec: &'a JobSpec, outputs: &dyn Fn(&str) -> Vec<String>) -> Vec<Plan<'a>> {
    let names = spec.sources.iter().map(|s| s.name.as_str()).chain(spec.operators.iter().map(|o| o.name.as_str()));
    let numbers: BTreeMap<&str, usize> = names.enumerate().map(|(number, name)| (name, number)).collect();
    let operator_ports: Vec<Vec<String>> = spec.operators.iter().map(|operator| outputs(&operator.name)).collect();
    let resolve = |inputs: &[PortRef]| -> Vec<Input> {
        let input = |port: &PortRef| {
            let upstream = *numbers.get(port.node.as_str()).unwrap_or_else(|| panic!("BUG: no node {} to read", port.node));
            let number = match &port.port {
                None => 0,
                Some(name) => {
                    let ports = upstream.checked_sub(spec.sources.len()).map(|operator| &operator_ports[operator]);
                    let number = ports.and_then(|ports| ports.iter().position(|port| port == name));
                    number.unwrap_or_else(|| panic!("BUG: {} has no output {name}", port.node))
                }
            };
            Input { upstream, port: number }
        };
        inputs.iter().map(input).collect()
    };
    let mut plans: Vec<Plan<'a>> = Vec::with_capacity(numbers.len() + spec.sinks.len());
    plans.extend(spec.sources.iter().enumerate().map(|(i, source)| Plan {
        name: &source.name,
        kind: NodeKind::Source(i),
        parallelism: source.parallelism,
        key: None,
        inputs: Vec::new(),
        ports: 1,
    }));
    plans.extend(spec.operators.iter().enumerate().map(|(i, operator)| Plan {
        name: &operator.name,
        kind: NodeKind::Operator(i),
        parallelism: operator.parallelism,
        key: operator.key.as_ref(),
        inputs: resolve(&operator.inputs),
        ports: operator_ports[i].len(),
    }));
    for (i, sink) in spec.sinks.iter().enumerate() {
        let inputs = resolve(&sink.inputs);
        let first = inputs.first().expect("BUG: a sink without input");
        let parallelism = sink.parallelism.unwrap_or(plans[first.upstream].parallelism);
        plans.push(Plan { name: &sink.name, kind: NodeKind::Sink(i), parallelism, key: None, inputs, ports: 0 });
    }
    plans
}

/// An order in which every node comes after all that feed it; of those that could come next the one written first.
fn upstream_first(plans: &[Plan<'_>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(plans.len());
    let mut placed = vec![false; plans.len()];
    while order.len() < plans.len() {
        let ready = |number: &usize| !placed[*number] && plans[*number].inputs.iter().all(|input| placed[input.upstream]);
        let next = (0..plans.len()).find(ready).expect("BUG: the job graph has a cycle");
        placed[next] = true;
        order.push(next);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_graph::parse::parse_job;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn source(name: &str, parallelism: u32) -> Value {
        json!({ "name": name, "connector": "generator", "parallelism": parallelism })
    }

    fn operator(name: &str, input: &[&str], key: bool, parallelism: u32) -> Value {
        let mut operator = json!({ "name": name, "module": "m@1", "input": input, "parallelism": parallelism });
        if key {
            operator["key"] = json!("row");
        }
        operator
    }

    fn sink(name: &str, input: &[&str]) -> Value {
        json!({ "name": name, "connector": "blackhole", "input": input })
    }

    /// Every operator has the outputs `main`, `late`.
    fn graph(sources: Vec<Value>, operators: Vec<Value>, sinks: Vec<Value>) -> ExecutionGraph {
        let job = json!({ "name": "j", "source": sources, "operator": operators, "sink": sinks });
        let spec = parse_job(&job).unwrap_or_else(|e| panic!("{e:?}"));
        ExecutionGraph::build(&spec, &|_| vec!["main".to_string(), "late".to_string()])
    }

    fn names(graph: &ExecutionGraph) -> Vec<&str> {
        graph.vertices.iter().map(|vertex| vertex.name.as_str()).collect()
    }

    #[test]
    fn a_pipeline_without_keys_is_one_thread() {
        let graph = graph(vec![source("s", 1)], vec![operator("a", &["s"], false, 1)], vec![sink("out", &["a"])]);
        assert_eq!(names(&graph), ["s -> a -> out"]);
        assert_eq!(graph.edges, []);
        assert_eq!(graph.task_ids(), [TaskId { vertex: 0, index: 0 }]);
        assert_eq!(graph.vertices[0].nodes[0].outputs, [[Target::Chained { node: 1, input: 0 }]]);
        assert_eq!(graph.vertices[0].nodes[1].outputs, [vec![Target::Chained { node: 2, input: 0 }], vec![]]);
        assert!(graph.is_source_vertex(0));
    }

    #[test]
    fn a_chain_breaks_at_a_key_and_goes_on_behind_it() {
        let graph = graph(
            vec![source("flights", 2)],
            vec![operator("parse", &["flights"], false, 2), operator("delays", &["parse"], true, 2)],
            vec![sink("out", &["delays"]), sink("late", &["delays.late"])],
        );
        assert_eq!(names(&graph), ["flights -> parse", "delays -> out -> late"]);
        let edge = &graph.edges[0];
        assert_eq!((edge.from_vertex, edge.from_node, edge.to_vertex, edge.to_node), (0, 1, 1, 0));
        assert_eq!(edge.partitioning, Partitioning::Key(KeySpec::Row));
        let delays = &graph.vertices[1].nodes[0];
        assert_eq!(delays.outputs, [[Target::Chained { node: 1, input: 0 }], [Target::Chained { node: 2, input: 0 }]]);
        assert!(!graph.is_source_vertex(1));
        assert_eq!(graph.place_of(NodeKind::Sink(1)), (1, 2));
        let channel = |upstream_task| Channel { edge: 0, upstream_task };
        assert_eq!(graph.channels_into(1, 1), [channel(0), channel(1)]);
    }

    #[test]
    fn a_chain_breaks_at_a_change_of_parallelism() {
        let graph = graph(vec![source("s", 1)], vec![operator("a", &["s"], false, 3)], vec![sink("out", &["a"])]);
        assert_eq!(names(&graph), ["s", "a -> out"]);
        assert_eq!(graph.edges[0].partitioning, Partitioning::Rebalance);
        assert_eq!(graph.channels_into(1, 2), [Channel { edge: 0, upstream_task: 0 }]);
        assert_eq!(graph.receivers(0, 0), 0..3);
        assert_eq!(graph.task_count(), 4);
    }

    #[test]
    fn a_sink_with_several_inputs_is_a_vertex_with_the_parallelism_of_the_first() {
        let graph = graph(
            vec![source("s", 2), source("t", 1)],
            vec![operator("a", &["s"], false, 2)],
            vec![sink("out", &["a.late", "t"])],
        );
        assert_eq!(names(&graph), ["s -> a", "t", "out"]);
        assert_eq!(graph.vertices[2].parallelism, 2);
        let kinds: Vec<_> = graph.edges.iter().map(|edge| (&edge.partitioning, edge.from_port, edge.input)).collect();
        assert_eq!(kinds, [(&Partitioning::Forward, 1, 0), (&Partitioning::Rebalance, 0, 1)]);
        let channel = |edge, upstream_task| Channel { edge, upstream_task };
        assert_eq!(graph.channels_into(2, 1), [channel(0, 1), channel(1, 0)]);
    }

    #[test]
    fn inputs_of_a_join_are_numbered_as_written_even_from_one_upstream() {
        let graph = graph(
            vec![source("s", 1)],
            vec![operator("join", &["b", "s", "b"], true, 2), operator("b", &["s"], false, 1)],
            vec![sink("out", &["join"])],
        );
        // `join` is written before what it reads.
        assert_eq!(names(&graph), ["s -> b", "join -> out"]);
        let from: Vec<_> = graph.edges.iter().map(|edge| (edge.from_node, edge.input)).collect();
        assert_eq!(from, [(1, 0), (0, 1), (1, 2)]);
        assert_eq!(graph.vertices[1].inputs, [0, 1, 2]);
    }

    /// Operators read from nodes written before them, so the graph has no cycle.
    fn any_job() -> impl Strategy<Value = (Vec<Value>, Vec<Value>, Vec<Value>)> {
        let node = (proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..4), any::<bool>(), 1u32..4);
        let lists = (proptest::collection::vec(1u32..4, 1..4), proptest::collection::vec(node.clone(), 0..10));
        (lists, proptest::collection::vec(node, 1..5)).prop_map(|((sources, operators), sinks)| {
            let mut names: Vec<String> = (0..sources.len()).map(|i| format!("s{i}")).collect();
            let sources_len = sources.len();
            let pick = |names: &[String], inputs: &[(prop::sample::Index, bool)]| -> Vec<String> {
                let port = |(index, late): &(prop::sample::Index, bool)| {
                    let number = index.index(names.len());
                    if *late && number >= sources_len { format!("{}.late", names[number]) } else { names[number].clone() }
                };
                inputs.iter().map(port).collect()
            };
            let sources = sources.iter().enumerate().map(|(i, parallelism)| source(&format!("s{i}"), *parallelism)).collect();
            let mut list = Vec::new();
            for (i, (inputs, key, parallelism)) in operators.iter().enumerate() {
                let inputs = pick(&names, inputs);
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                list.push(operator(&format!("o{i}"), &inputs, *key, *parallelism));
                names.push(format!("o{i}"));
            }
            let sinks = sinks.iter().enumerate().map(|(i, (inputs, own, parallelism))| {
                let inputs = pick(&names, inputs);
                let mut sink = sink(&format!("k{i}"), &inputs.iter().map(String::as_str).collect::<Vec<_>>());
                if *own {
                    sink["parallelism"] = json!(parallelism);
                }
                sink
            });
            (sources, list, sinks.collect())
        })
    }

    proptest! {
        #[test]
        fn every_node_and_connection_has_one_place((sources, operators, sinks) in any_job()) {
            let connections: usize = operators.iter().chain(&sinks).map(|node| node["input"].as_array().unwrap().len()).sum();
            let nodes = sources.len() + operators.len() + sinks.len();
            let graph = graph(sources, operators, sinks);
            let mut edges = BTreeSet::new();
            let (mut places, mut chained) = (0, 0);
            for (v, vertex) in graph.vertices.iter().enumerate() {
                places += vertex.nodes.len();
                let mut fed = BTreeSet::new();
                for (n, node) in vertex.nodes.iter().enumerate() {
                    prop_assert_eq!(graph.place_of(node.kind), (v, n));
                    for (port, target) in node.outputs.iter().enumerate().flat_map(|(p, ts)| ts.iter().map(move |t| (p, t))) {
                        match *target {
                            Target::Chained { node: below, input } => {
                                prop_assert!(below > n && input == 0);
                                prop_assert!(fed.insert(below), "fed twice");
                                chained += 1;
                            }
                            Target::Edge { edge } => {
                                let e = &graph.edges[edge];
                                prop_assert_eq!((e.from_vertex, e.from_node, e.from_port), (v, n, port));
                                prop_assert!(edges.insert(edge));
                            }
                        }
                    }
                }
                // All but the head are fed from inside.
                prop_assert_eq!(fed, (1..vertex.nodes.len()).collect::<BTreeSet<_>>());
                prop_assert_eq!(vertex.inputs.is_empty(), graph.is_source_vertex(v));
                for (i, edge) in vertex.inputs.iter().enumerate() {
                    let e = &graph.edges[*edge];
                    prop_assert_eq!((e.to_vertex, e.to_node, e.input as usize), (v, 0, i));
                    prop_assert!(e.from_vertex < v);
                    let same = graph.vertices[e.from_vertex].parallelism == vertex.parallelism;
                    match e.partitioning {
                        Partitioning::Forward => prop_assert!(same),
                        Partitioning::Rebalance => prop_assert!(!same),
                        Partitioning::Key(_) => {}
                    }
                    // Not to be chained: a key, another parallelism, or another input.
                    prop_assert!(e.partitioning != Partitioning::Forward || vertex.inputs.len() > 1);
                }
            }
            prop_assert_eq!(places, nodes);
            prop_assert_eq!(edges.len(), graph.edges.len());
            prop_assert_eq!(edges.len() + chained, connections);
        }

        #[test]
        fn what_senders_write_to_is_what_receivers_read((sources, operators, sinks) in any_job()) {
            let graph = graph(sources, operators, sinks);
            let mut written = BTreeSet::new();
            for (edge, e) in graph.edges.iter().enumerate() {
                for from in 0..graph.vertices[e.from_vertex].parallelism {
                    for to in graph.receivers(edge, from) {
                        written.insert((Channel { edge, upstream_task: from }, to));
                    }
                }
            }
            let mut read = BTreeSet::new();
            for (v, vertex) in graph.vertices.iter().enumerate() {
                for task in 0..vertex.parallelism {
                    read.extend(graph.channels_into(v, task).into_iter().map(|channel| (channel, task)));
                }
            }
            prop_assert_eq!(written, read);
        }
    }
}
