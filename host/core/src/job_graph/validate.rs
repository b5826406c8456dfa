//! Whether a job can run: names, connections, what modules and connectors say of themselves, settings together.
//!
//! Invariants:
//! * all problems are told at once; one that only follows from another (an input that names a node whose own name could not be
//!   read) is not told;
//! * no guarantee is weakened silently: a job that asks for more than a node can give is refused with the nearest alternative;
//! * an [`ExecutionGraph`] of a job without problems can be built.
//!
//! What modules and connectors say comes in as [`JobFacts`]: core neither opens a module nor knows a connector.

use super::execution::ExecutionGraph;
use super::fields::{name_problem, node_path};
use super::parse::read_job;
use super::settings;
use super::similar::did_you_mean;
use super::spec::{Delivery, JobSpec, OperatorSpec, PortRef, SinkSpec, SourceSpec};
use crate::limits::{DURATION_MS_MAX, JOB_NODES_MAX, JOB_TASKS_MAX, NODE_INPUTS_MAX, PARALLELISM_MAX, PROBLEMS_MAX};
use crate::problem::{self, Problem};
use crate::state_schema::StateDeclaration;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a component said of itself when it was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFacts {
    pub digest: String,
    pub keyed: bool,
    pub inputs: u32,
    /// Port 0 first.
    pub outputs: Vec<String>,
    pub states: Vec<StateDeclaration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFacts {
    /// Repeats exactly the records after a restored position.
    pub replayable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkFacts {
    pub strongest: Delivery,
}

/// What the host knows and core does not.
pub trait JobFacts {
    /// `reference` is `name@version`. An error completes "can't be used: …".
    fn module(&self, reference: &str) -> Result<ModuleFacts, String>;

    /// What is wrong with the connector or its options, by the keys of the job file (`source.flights.path`).
    fn source(&self, source: &SourceSpec) -> (Vec<Problem>, Option<SourceFacts>);

    fn sink(&self, sink: &SinkSpec) -> (Vec<Problem>, Option<SinkFacts>);
}

/// Parses and validates in one, so that a fault of the form does not hide the faults of the matter.
pub fn check_job(job: &Value, facts: &dyn JobFacts) -> Result<JobSpec, Vec<Problem>> {
    let (spec, mut problems) = read_job(job);
    let read: BTreeSet<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    // What could not be read stands as a default or empty in the spec: nothing more is said about such a key.
    problems.extend(validate(&spec, facts).into_iter().filter(|problem| !read.contains(&problem.key)));
    if problems.is_empty() { Ok(spec) } else { Err(problem::bounded(problems)) }
}

pub fn validate(spec: &JobSpec, facts: &dyn JobFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(message) = name_problem(&spec.name) {
        problems.push(Problem::new("name", Some(quoted(&spec.name)), message));
    }
    let count = spec.sources.len() + spec.operators.len() + spec.sinks.len();
    if count > JOB_NODES_MAX {
        let message = format!("{count} sources, operators and sinks exceed the limit of {JOB_NODES_MAX} (job_nodes_max)");
        problems.push(Problem::new("job", None, message));
        return problems;
    }
    settings::check(spec, &mut problems);
    let mut check = Check { spec, nodes: BTreeMap::new(), modules: BTreeMap::new(), problems };
    check.names();
    check.parallelism();
    check.modules(facts);
    check.connectors(facts);
    check.inputs();
    check.keys();
    check.cycles();
    if check.problems.is_empty() {
        check.tasks();
    }
    problem::bounded(check.problems)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeRef {
    Source(usize),
    Operator(usize),
    Sink(usize),
}

impl NodeRef {
    fn number(self) -> String {
        match self {
            Self::Source(i) => format!("source[{i}]"),
            Self::Operator(i) => format!("operator[{i}]"),
            Self::Sink(i) => format!("sink[{i}]"),
        }
    }
}

struct Check<'a> {
    spec: &'a JobSpec,
    nodes: BTreeMap<&'a str, NodeRef>,
    /// By operator; absent where the module can't be used.
    modules: BTreeMap<usize, ModuleFacts>,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn problem(&mut self, key: impl Into<String>, value: Option<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(key, value, message));
    }

    fn path(&self, node: NodeRef) -> String {
        match node {
            NodeRef::Source(i) => node_path("source", i, &self.spec.sources[i].name),
            NodeRef::Operator(i) => node_path("operator", i, &self.spec.operators[i].name),
            NodeRef::Sink(i) => node_path("sink", i, &self.spec.sinks[i].name),
        }
    }

    fn all(&self) -> impl Iterator<Item = (NodeRef, &'a str)> + use<'a> {
        let spec = self.spec;
        let sources = spec.sources.iter().enumerate().map(|(i, source)| (NodeRef::Source(i), source.name.as_str()));
        let operators = spec.operators.iter().enumerate().map(|(i, operator)| (NodeRef::Operator(i), operator.name.as_str()));
        sources.chain(operators).chain(spec.sinks.iter().enumerate().map(|(i, sink)| (NodeRef::Sink(i), sink.name.as_str())))
    }

    fn names(&mut self) {
        if self.spec.sources.is_empty() {
            self.problem("source", None, "is missing: a job has one source at least");
        }
        if self.spec.sinks.is_empty() {
            self.problem("sink", None, "is missing: a job has one sink at least; connector = \"blackhole\" drops what it gets");
        }
        for (node, name) in self.all() {
            let key = format!("{}.name", node.number());
            if let Some(message) = name_problem(name) {
                self.problem(key, Some(quoted(name)), message);
            }
            // The first of a name keeps it, so that its readers are not at fault.
            let first = *self.nodes.entry(name).or_insert(node);
            if first != node && !name.is_empty() {
                let message =
                    format!("is already the name of {}: sources, operators and sinks share their names", first.number());
                self.problem(format!("{}.name", node.number()), Some(quoted(name)), message);
            }
        }
    }

    fn parallelism(&mut self) {
        for (node, _) in self.all() {
            let parallelism = match node {
                NodeRef::Source(i) => self.spec.sources[i].parallelism,
                NodeRef::Operator(i) => self.spec.operators[i].parallelism,
                NodeRef::Sink(i) => self.spec.sinks[i].parallelism.unwrap_or(1),
            };
            let path = self.path(node);
            settings::check_count(&format!("{path}.parallelism"), parallelism, &(1..=PARALLELISM_MAX), &mut self.problems);
            if let NodeRef::Operator(i) = node
                && self.spec.operators[i].key.is_some()
                && parallelism > self.spec.key_groups
                && parallelism <= PARALLELISM_MAX
            {
                let message = format!(
                    "is more than key_groups ({}): each task of a keyed operator owns one at least",
                    self.spec.key_groups
                );
                self.problem(format!("{path}.parallelism"), Some(parallelism.to_string()), message);
            }
        }
    }

    fn modules(&mut self, facts: &dyn JobFacts) {
        // Operators may share a module, and looking into one may cost something.
        let mut known: BTreeMap<&str, Result<ModuleFacts, String>> = BTreeMap::new();
        for (i, operator) in self.spec.operators.iter().enumerate() {
            if operator.module.is_empty() {
                self.problem(format!("{}.module", self.path(NodeRef::Operator(i))), None, "is missing");
                continue;
            }
            match known.entry(&operator.module).or_insert_with(|| facts.module(&operator.module)) {
                Ok(module) => {
                    self.modules.insert(i, module.clone());
                }
                Err(reason) => {
                    let message = format!("can't be used: {reason}");
                    self.problem(format!("{}.module", self.path(NodeRef::Operator(i))), Some(quoted(&operator.module)), message);
                }
            }
        }
    }

    fn connectors(&mut self, facts: &dyn JobFacts) {
        let delivery = self.spec.delivery;
        for (node, _) in self.all() {
            let unnamed = match node {
                NodeRef::Source(i) => self.spec.sources[i].connector.is_empty(),
                NodeRef::Operator(_) => false,
                NodeRef::Sink(i) => self.spec.sinks[i].connector.is_empty(),
            };
            if unnamed {
                self.problem(format!("{}.connector", self.path(node)), None, "is missing");
            }
        }
        for (i, source) in self.spec.sources.iter().enumerate().filter(|(_, source)| !source.connector.is_empty()) {
            let path = self.path(NodeRef::Source(i));
            if let Some(idle_after_ms) = source.watermark.as_ref().and_then(|watermark| watermark.idle_after_ms) {
                let key = format!("{path}.watermark.idle_after");
                settings::check_duration(&key, idle_after_ms, &(1..=DURATION_MS_MAX), &mut self.problems);
            }
            let (found, source_facts) = facts.source(source);
            self.problems.extend(found);
            if delivery != Delivery::AtMostOnce && source_facts.is_some_and(|facts| !facts.replayable) {
                let message = format!(
                    "can't repeat records after a restart, which {} needs, and at-least-once as well: read them from a source that \
                     keeps them, such as a file",
                    delivery.name()
                );
                self.problem(format!("{path}.connector"), Some(quoted(&source.connector)), message);
            }
        }
        for (i, sink) in self.spec.sinks.iter().enumerate().filter(|(_, sink)| !sink.connector.is_empty()) {
            let (found, sink_facts) = facts.sink(sink);
            self.problems.extend(found);
            if delivery == Delivery::ExactlyOnce && sink_facts.is_some_and(|facts| facts.strongest == Delivery::AtLeastOnce) {
                let message = "has no two-phase commit, so after a failure some rows appear again, and delivery = \"exactly-once\" can't \
                               be kept: set delivery = \"at-least-once\", or take a sink that commits, such as a file";
                self.problem(format!("{}.connector", self.path(NodeRef::Sink(i))), Some(quoted(&sink.connector)), message);
            }
        }
    }

    fn inputs(&mut self) {
        let found = self.problems.len();
        for (i, operator) in self.spec.operators.iter().enumerate() {
            let key = format!("{}.input", self.path(NodeRef::Operator(i)));
            if operator.inputs.is_empty() {
                self.problem(&key, None, "is missing: an operator has one input at least");
            } else if let Some(module) = self.modules.get(&i)
                && module.inputs as usize != operator.inputs.len()
            {
                let message = format!(
                    "{} given, and {} has {}: input number i of the operator is entry i of the list",
                    counted(operator.inputs.len()),
                    operator.module,
                    module.inputs
                );
                self.problem(&key, Some(shown_inputs(&operator.inputs)), message);
            }
            self.references(&key, &operator.inputs);
        }
        for (i, sink) in self.spec.sinks.iter().enumerate() {
            let key = format!("{}.input", self.path(NodeRef::Sink(i)));
            if sink.inputs.is_empty() {
                self.problem(&key, None, "is missing: a sink has one input at least");
            }
            let twice = sink.inputs.iter().enumerate().find(|(n, port)| sink.inputs[..*n].contains(port));
            if let Some((_, port)) = twice {
                let message = format!("names \"{}\" twice, so each of its rows would be written twice", port_text(port));
                self.problem(&key, Some(shown_inputs(&sink.inputs)), message);
            }
            self.references(&key, &sink.inputs);
        }
        // A wrong input may have meant the source that seems to be unread.
        if self.problems.len() == found {
            self.unread_sources();
        }
    }

    /// That there are such nodes, and that they have such ports.
    fn references(&mut self, key: &str, inputs: &[PortRef]) {
        if inputs.len() > NODE_INPUTS_MAX {
            let message = format!("has {} entries, which exceeds the limit of {NODE_INPUTS_MAX} (node_inputs_max)", inputs.len());
            self.problem(key, None, message);
            return;
        }
        for port in inputs {
            if let Some(message) = self.reference_problem(port) {
                self.problem(key, Some(quoted(&port_text(port))), message);
            }
        }
    }

    fn reference_problem(&self, port: &PortRef) -> Option<String> {
        // Comparing a name with all others costs something, and nobody reads more hints than problems are shown.
        let hints = self.problems.len() < PROBLEMS_MAX;
        match (self.nodes.get(port.node.as_str()), &port.port) {
            // The name that could not be read may be this one.
            (None, _) if self.nodes.contains_key("") => None,
            (None, _) => {
                let readable = self.nodes.iter().filter(|(_, node)| hints && !matches!(node, NodeRef::Sink(_)));
                Some(format!("no source or operator has this name{}", did_you_mean(&port.node, readable.map(|(name, _)| *name))))
            }
            (Some(NodeRef::Sink(_)), _) => Some("is a sink, which has no output".to_string()),
            (Some(NodeRef::Source(_)), None) => None,
            (Some(NodeRef::Source(_)), Some(_)) => Some(format!("a source has one output: write \"{}\"", port.node)),
            (Some(NodeRef::Operator(i)), name) => {
                let module = self.modules.get(i)?;
                let reference = &self.spec.operators[*i].module;
                match name {
                    _ if module.outputs.is_empty() => Some(format!("{reference} declares no output")),
                    Some(name) if !module.outputs.contains(name) => {
                        let outputs = module.outputs.iter().map(String::as_str);
                        let hint = if hints { did_you_mean(name, outputs) } else { String::new() };
                        Some(format!("{reference} has no such output; it has {}{hint}", module.outputs.join(", ")))
                    }
                    _ => None,
                }
            }
        }
    }

    fn keys(&mut self) {
        // The other way round is allowed: a key before an operator without state just spreads the rows.
        for (i, operator) in self.spec.operators.iter().enumerate() {
            if operator.key.is_none() && self.modules.get(&i).is_some_and(|module| module.keyed) {
                let message = format!(
                    "is missing: {} keeps state by key, so say which: key = {{ json = \"/field\" }}, or key = \"row\" for the key \
                     that the rows have already",
                    operator.module
                );
                self.problem(format!("{}.key", self.path(NodeRef::Operator(i))), None, message);
            }
        }
    }

    fn unread_sources(&mut self) {
        let inputs = self.spec.operators.iter().map(|o| &o.inputs).chain(self.spec.sinks.iter().map(|s| &s.inputs));
        let read: BTreeSet<&str> = inputs.flatten().map(|port| port.node.as_str()).collect();
        for (i, source) in self.spec.sources.iter().enumerate() {
            if !source.name.is_empty() && !read.contains(source.name.as_str()) {
                let message = "no operator or sink reads this source: name it in an input, or take it out";
                self.problem(self.path(NodeRef::Source(i)), None, message);
            }
        }
    }

    /// Each cycle that closes at an operator is told once, by all its names in the direction of the rows.
    fn cycles(&mut self) {
        let operators = &self.spec.operators;
        let mut readers: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); operators.len()];
        for (reader, operator) in operators.iter().enumerate() {
            for port in &operator.inputs {
                if let Some(NodeRef::Operator(upstream)) = self.nodes.get(port.node.as_str()) {
                    readers[*upstream].insert(reader);
                }
            }
        }
        let mut search =
            Search { operators, readers: &readers, done: vec![false; operators.len()], way: Vec::new(), cycles: Vec::new() };
        for operator in 0..operators.len() {
            search.visit(operator);
        }
        for (first, names) in search.cycles {
            let key = format!("{}.input", self.path(NodeRef::Operator(first)));
            let message = format!("closes a cycle ({names}), and rows would go round for ever; take one of its inputs out");
            self.problem(key, Some(shown_inputs(&operators[first].inputs)), message);
        }
    }

    /// Only of a job that is right otherwise: there must be a graph to count.
    fn tasks(&mut self) {
        let operators = &self.spec.operators;
        let outputs = |name: &str| {
            let number = operators.iter().position(|operator| operator.name == name).expect("BUG: an operator from elsewhere");
            self.modules[&number].outputs.clone()
        };
        let tasks = ExecutionGraph::build(self.spec, &outputs).task_count();
        if tasks > JOB_TASKS_MAX {
            let message =
                format!("needs {tasks} tasks, which exceeds the limit of {JOB_TASKS_MAX} (job_tasks_max): lower a parallelism");
            self.problem("job", None, message);
        }
    }
}

/// Depth first, along the rows. At most [`JOB_NODES_MAX`] deep.
struct Search<'a> {
    operators: &'a [OperatorSpec],
    readers: &'a [BTreeSet<usize>],
    done: Vec<bool>,
    way: Vec<usize>,
    /// The operator at which a cycle closes, and the names around it.
    cycles: Vec<(usize, String)>,
}

impl Search<'_> {
    fn visit(&mut self, operator: usize) {
        if let Some(start) = self.way.iter().position(|passed| *passed == operator) {
            let around = self.way[start..].iter().chain([&operator]);
            let names: Vec<&str> = around.map(|number| self.operators[*number].name.as_str()).collect();
            self.cycles.push((operator, names.join(" -> ")));
            return;
        }
        if self.done[operator] {
            return;
        }
        self.way.push(operator);
        for reader in &self.readers[operator] {
            self.visit(*reader);
        }
        self.way.pop();
        self.done[operator] = true;
    }
}

fn port_text(port: &PortRef) -> String {
    match &port.port {
        Some(name) => format!("{}.{name}", port.node),
        None => port.node.clone(),
    }
}

fn shown_inputs(inputs: &[PortRef]) -> String {
    super::fields::shown(&inputs.iter().map(port_text).collect())
}

fn counted(inputs: usize) -> String {
    if inputs == 1 { "1 input is".to_string() } else { format!("{inputs} inputs are") }
}

fn quoted(text: &str) -> String {
    super::fields::shown(&Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::cell::Cell;

    /// Modules are named after what they are: `keyed@1`, `plain@1`, `join@1` (two inputs), `end@1` (no output).
    #[derive(Default)]
    struct Facts {
        looked: Cell<u32>,
    }

    impl JobFacts for Facts {
        fn module(&self, reference: &str) -> Result<ModuleFacts, String> {
            self.looked.set(self.looked.get() + 1);
            let facts = |keyed, inputs, outputs: &[&str]| {
                let outputs = outputs.iter().map(ToString::to_string).collect();
                Ok(ModuleFacts { digest: "d".into(), keyed, inputs, outputs, states: Vec::new() })
            };
            match reference {
                "keyed@1" => facts(true, 1, &["main", "late"]),
                "plain@1" => facts(false, 1, &["main"]),
                "join@1" => facts(true, 2, &["main"]),
                "end@1" => facts(false, 1, &[]),
                _ => Err("no such module in the store".to_string()),
            }
        }

        fn source(&self, source: &SourceSpec) -> (Vec<Problem>, Option<SourceFacts>) {
            match source.connector.as_str() {
                "generator" => (Vec::new(), Some(SourceFacts { replayable: true })),
                "socket" => (Vec::new(), Some(SourceFacts { replayable: false })),
                _ => (vec![Problem::new(format!("source.{}.connector", source.name), None, "unknown connector")], None),
            }
        }

        fn sink(&self, sink: &SinkSpec) -> (Vec<Problem>, Option<SinkFacts>) {
            let strongest = if sink.connector == "stdout" { Delivery::AtLeastOnce } else { Delivery::ExactlyOnce };
            (Vec::new(), Some(SinkFacts { strongest }))
        }
    }

    fn check(text: &str) -> Vec<String> {
        let value: Value = toml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        check_job(&value, &Facts::default()).err().unwrap_or_default().iter().map(Problem::to_string).collect()
    }

    /// A right job with these lines in its only operator, and more below.
    fn with_operator(lines: &str, more: &str) -> Vec<String> {
        check(&format!(
            "name = 'j'
            [[source]]
            name = 'flights'
            connector = 'generator'
            [[operator]]
            name = 'delays'
            {lines}
            [[sink]]
            name = 'out'
            connector = 'file'
            input = ['delays']
            {more}"
        ))
    }

    const NOTHING: [String; 0] = [];

    #[test]
    fn right_jobs_have_no_problem() {
        assert_eq!(with_operator("module = 'keyed@1'\ninput = ['flights']\nkey = 'row'", ""), NOTHING);
        // A key before an operator without state spreads the rows.
        assert_eq!(with_operator("module = 'plain@1'\ninput = ['flights']\nkey = { json = '/a' }", ""), NOTHING);
        assert_eq!(with_operator("module = 'join@1'\ninput = ['flights', 'flights']\nkey = 'row'", ""), NOTHING);
        let late = "[[sink]]\nname = 'late'\nconnector = 'file'\ninput = ['delays.late', 'flights']";
        assert_eq!(with_operator("module = 'keyed@1'\ninput = ['flights']\nkey = 'row'", late), NOTHING);
        // An operator whose output nobody reads.
        let silent = "[[operator]]\nname = 'x'\nmodule = 'end@1'\ninput = ['flights']";
        assert_eq!(with_operator("module = 'plain@1'\ninput = ['flights']", silent), NOTHING);
    }

    #[test]
    fn a_keyed_module_needs_a_key() {
        assert_eq!(
            with_operator("module = 'keyed@1'\ninput = ['flights']", ""),
            [
                "operator.delays.key: is missing: keyed@1 keeps state by key, so say which: key = { json = \"/field\" }, or key = \"row\" \
              for the key that the rows have already"
            ]
        );
    }

    #[test]
    fn inputs_name_nodes_and_ports_that_exist() {
        let more = "
            [[sink]]
            name = 'a'
            connector = 'file'
            input = ['delay', 'delays.lat', 'flights.x', 'out', 'somewhere']
            [[sink]]
            name = 'b'
            connector = 'file'
            input = ['delays', 'end', 'delays']
            [[operator]]
            name = 'end'
            module = 'end@1'
            input = ['flights', 'delays']
        ";
        assert_eq!(
            with_operator("module = 'keyed@1'\ninput = ['flights']\nkey = 'row'", more),
            [
                "operator.end.input = [\"flights\",\"delays\"]: 2 inputs are given, and end@1 has 1: input number i of the operator is \
                 entry i of the list",
                "sink.a.input = \"delay\": no source or operator has this name; did you mean \"delays\"?",
                "sink.a.input = \"delays.lat\": keyed@1 has no such output; it has main, late; did you mean \"late\"?",
                "sink.a.input = \"flights.x\": a source has one output: write \"flights\"",
                "sink.a.input = \"out\": is a sink, which has no output",
                "sink.a.input = \"somewhere\": no source or operator has this name",
                "sink.b.input = [\"delays\",\"end\",\"delays\"]: names \"delays\" twice, so each of its rows would be written twice",
                "sink.b.input = \"end\": end@1 declares no output",
            ]
        );
    }

    #[test]
    fn names_are_shared_by_all_nodes() {
        let more = "[[sink]]\nname = 'flights'\nconnector = 'file'\ninput = ['delays']";
        assert_eq!(
            with_operator("module = 'plain@1'\ninput = ['flights']", more),
            ["sink[1].name = \"flights\": is already the name of source[0]: sources, operators and sinks share their names"]
        );
    }

    #[test]
    fn a_cycle_is_told_by_its_names_and_once() {
        let more = "
            [[operator]]
            name = 'enrich'
            module = 'plain@1'
            input = ['delays']
            [[operator]]
            name = 'again'
            module = 'plain@1'
            input = ['enrich']
            [[operator]]
            name = 'self'
            module = 'plain@1'
            input = ['self']
        ";
        assert_eq!(
            with_operator("module = 'join@1'\nkey = 'row'\ninput = ['flights', 'again']", more),
            [
                "operator.delays.input = [\"flights\",\"again\"]: closes a cycle (delays -> enrich -> again -> delays), and rows would go \
                 round for ever; take one of its inputs out",
                "operator.self.input = [\"self\"]: closes a cycle (self -> self), and rows would go round for ever; take one of its inputs \
                 out",
            ]
        );
    }

    #[test]
    fn exactly_once_is_refused_where_a_node_cannot_keep_it() {
        let text = |delivery: &str, source: &str| {
            format!(
                "name = 'j'\ndelivery = '{delivery}'\n[[source]]\nname = 's'\nconnector = '{source}'\n[[sink]]\nname = 'out'\n\
                 connector = 'stdout'\ninput = ['s']"
            )
        };
        assert_eq!(check(&text("at-least-once", "generator")), NOTHING);
        assert_eq!(check(&text("at-most-once", "generator")), NOTHING);
        assert_eq!(check(&text("at-most-once", "socket")), NOTHING, "what is not read again need not be kept");
        assert_eq!(
            check(&text("exactly-once", "socket")),
            [
                "source.s.connector = \"socket\": can't repeat records after a restart, which exactly-once needs, and at-least-once as \
                 well: read them from a source that keeps them, such as a file",
                "sink.out.connector = \"stdout\": has no two-phase commit, so after a failure some rows appear again, and delivery = \
                 \"exactly-once\" can't be kept: set delivery = \"at-least-once\", or take a sink that commits, such as a file",
            ]
        );
    }

    #[test]
    fn parallelism_has_a_range_and_fits_the_key_groups() {
        let lines = "module = 'keyed@1'\ninput = ['flights']\nkey = 'row'\nparallelism = 9";
        let job = |groups: u32| {
            let text = format!(
                "name = 'j'\nkey_groups = {groups}\n[[source]]\nname = 'flights'\nconnector = 'generator'\nparallelism = 0\n\
                 [[operator]]\nname = 'delays'\n{lines}\n[[sink]]\nname = 'out'\nconnector = 'file'\ninput = ['delays']\nparallelism = 257"
            );
            check(&text)
        };
        assert_eq!(
            job(8),
            [
                "source.flights.parallelism = 0: must be 1 to 256",
                "operator.delays.parallelism = 9: is more than key_groups (8): each task of a keyed operator owns one at least",
                "sink.out.parallelism = 257: must be 1 to 256",
            ]
        );
        assert_eq!(job(9).len(), 2);
        assert_eq!(job(u32::MAX)[0], "key_groups = 4294967295: must be 1 to 32768");
    }

    #[test]
    fn a_job_has_a_source_that_is_read_and_a_sink() {
        assert_eq!(
            check("name = 'j'"),
            [
                "source: is missing: a job has one source at least",
                "sink: is missing: a job has one sink at least; connector = \"blackhole\" drops what it gets",
            ]
        );
        let more = "[[source]]\nname = 'idle'\nconnector = 'generator'\nwatermark = { idle_after = 0 }";
        assert_eq!(
            with_operator("module = 'plain@1'\ninput = ['flights']", more),
            [
                "source.idle.watermark.idle_after = \"0s\": must be \"1ms\" to \"36500d\"",
                "source.idle: no operator or sink reads this source: name it in an input, or take it out",
            ]
        );
    }

    #[test]
    fn faults_of_form_and_matter_are_told_together_and_none_twice() {
        let more = "[[source]]\nname = 'x'\nconnector = 'carrier-pigeon'\n[checkpoint]\nretained = 0\nintervall = 1";
        assert_eq!(
            with_operator("module = 'missing@1'\ninput = 'flights'", more),
            [
                "checkpoint.intervall: is not a known key; did you mean \"interval\"?",
                "operator.delays.input = \"flights\": must be a list of names, as in [\"flights\"], or [\"delays.late\"] for a side output",
                "checkpoint.retained = 0: must be 1 to 1000",
                "operator.delays.module = \"missing@1\": can't be used: no such module in the store",
                "source.x.connector: unknown connector",
            ]
        );
    }

    #[test]
    fn a_node_without_a_name_is_one_problem_and_its_readers_are_none() {
        let text = "name = 'j'\n[[source]]\nnmae = 's'\nconnector = 'generator'\n[[sink]]\nname = 'out'\nconnector = 'file'\ninput = ['s']";
        assert_eq!(check(text), ["source[0].name: is missing: every source has one"]);
    }

    #[test]
    fn an_unreadable_delivery_does_not_count_as_exactly_once() {
        let text = "name = 'j'\ndelivery = 'twice'\n[[source]]\nname = 's'\nconnector = 'generator'\n[[sink]]\nname = 'out'\n\
                    connector = 'stdout'\ninput = ['s']";
        assert_eq!(check(text), ["delivery = \"twice\": must be \"exactly-once\" or \"at-least-once\" or \"at-most-once\""]);
    }

    #[test]
    fn a_spec_that_did_not_come_through_the_parser_is_checked_as_well() {
        let text = "name = 'j'\n[[source]]\nname = 's'\nconnector = 'generator'\n[[operator]]\nname = 'o'\nmodule = 'plain@1'\n\
                    input = ['s']\n[[sink]]\nname = 'out'\nconnector = 'file'\ninput = ['o']";
        let mut spec = check_job(&toml::from_str(text).unwrap(), &Facts::default()).unwrap();
        spec.name = "J".to_string();
        spec.operators[0].module.clear();
        spec.operators[0].inputs.clear();
        spec.sinks[0].connector.clear();
        spec.sinks[0].inputs.clear();
        let keys: Vec<String> = validate(&spec, &Facts::default()).into_iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["name", "operator.o.module", "sink.out.connector", "operator.o.input", "sink.out.input"]);
    }

    #[test]
    fn nodes_and_tasks_are_bounded() {
        let job = |operators: usize, parallelism: u32| {
            let operator = |i: usize| json!({ "name": format!("o{i}"), "module": "keyed@1", "input": ["s"], "key": "row", "parallelism": parallelism });
            json!({
                "name": "j",
                "source": [{ "name": "s", "connector": "generator" }],
                "operator": (0..operators).map(operator).collect::<Vec<_>>(),
                "sink": [{ "name": "out", "connector": "file", "input": ["o0"] }],
            })
        };
        let facts = Facts::default();
        assert!(check_job(&job(254, 1), &facts).is_ok());
        assert_eq!(facts.looked.get(), 1, "a shared module is looked at once");
        let problems = |job| check_job(&job, &facts).unwrap_err().iter().map(Problem::to_string).collect::<Vec<_>>();
        assert_eq!(problems(job(255, 1)), ["job: 257 sources, operators and sinks exceed the limit of 256 (job_nodes_max)"]);
        assert_eq!(
            problems(job(8, 256)),
            ["job: needs 2049 tasks, which exceeds the limit of 2048 (job_tasks_max): lower a parallelism"]
        );
    }

    proptest! {
        /// Whatever is connected with whatever: either there are problems, or the graph can be built.
        #[test]
        fn a_job_without_problems_has_an_execution_graph(
            operators in proptest::collection::vec((0usize..4, proptest::collection::vec(0usize..9, 0..3), any::<bool>(), 1u32..4), 0..5),
            sinks in proptest::collection::vec(proptest::collection::vec(0usize..9, 0..3), 0..3),
        ) {
            let names = ["s0", "o0", "o1", "o2", "o3", "o4", "o0.late", "o1.late", "k0"];
            let pick = |inputs: &[usize]| inputs.iter().map(|i| names[*i]).collect::<Vec<_>>();
            let modules = ["keyed@1", "plain@1", "join@1", "end@1"];
            let operator = |(i, (module, inputs, key, parallelism)): (usize, &(usize, Vec<usize>, bool, u32))| {
                let key = if *key { json!("row") } else { Value::Null };
                json!({ "name": format!("o{i}"), "module": modules[*module], "input": pick(inputs), "key": key, "parallelism": parallelism })
            };
            let sink = |(i, inputs): (usize, &Vec<usize>)| json!({ "name": format!("k{i}"), "connector": "file", "input": pick(inputs) });
            let job = json!({
                "name": "j",
                "source": [{ "name": "s0", "connector": "generator" }],
                "operator": operators.iter().enumerate().map(operator).collect::<Vec<_>>(),
                "sink": sinks.iter().enumerate().map(sink).collect::<Vec<_>>(),
            });
            let facts = Facts::default();
            if let Ok(spec) = check_job(&job, &facts) {
                let outputs = |name: &str| {
                    let operator = spec.operators.iter().find(|operator| operator.name == name).unwrap();
                    facts.module(&operator.module).unwrap().outputs
                };
                ExecutionGraph::build(&spec, &outputs);
            }
        }
    }
}
