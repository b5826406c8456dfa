//! `tidegate check JOB.toml`: everything that can be known about a job file before a host has it.
//!
//! Invariants:
//! * all problems are told at once, in the words in which a server would refuse the job;
//! * nothing is pushed, created or started, and nothing stays on the disk;
//! * what could not be looked at is named as such, never passed in silence.

use super::client::Client;
use super::error::CliError;
use super::job_file::JobFile;
use super::module::module_path;
use super::terminal::{Colour, Table, Terminal, number, printable, text};
use crate::api::{ModuleDescription, ModuleView, Problem, now_ms};
use crate::connector::{ConnectorContext, catalog};
use crate::durable_file::unique_id;
use crate::module_store::{ModuleInspector, digest_of};
use crate::server::Wiring;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidegate_core::job_graph::execution::{ExecutionGraph, Partitioning};
use tidegate_core::job_graph::spec::{JobSpec, KeySpec, SinkSpec, SourceSpec};
use tidegate_core::job_graph::validate::{JobFacts, ModuleFacts, SinkFacts, SourceFacts, check_job};
use tidegate_core::limits::CompileLimits;

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The job, as TOML or JSON. Modules that are named by path are opened; those named NAME@VERSION are asked of --server.
    job: PathBuf,
}

/// `--output json`
#[derive(Debug, Serialize)]
struct Report {
    job: String,
    ok: bool,
    problems: Vec<Problem>,
    /// Modules that nobody could be asked about.
    unchecked: Vec<String>,
    modules: BTreeMap<String, ModuleDescription>,
    graph: Option<ExecutionGraph>,
}

pub fn check(args: &CheckArgs, server: Option<&Client>, wiring: &dyn Wiring, terminal: &mut Terminal) -> Result<u8, CliError> {
    let mut file = JobFile::read(&args.job)?;
    let inspector = wiring.inspector(CompileLimits::default())?;
    let mut problems = Vec::new();
    let mut facts = Facts { modules: BTreeMap::new(), wanted: wanted(&file.source), base: file.base.clone() };
    open_modules(&mut file, inspector, &mut facts, &mut problems, terminal)?;
    let mut unchecked = Vec::new();
    ask_for_modules(server, &mut facts, &mut unchecked)?;

    let spec = check_job(&file.source, &facts);
    let mut graph = None;
    match &spec {
        Ok(spec) => {
            problems.extend(paths(spec, &file.base));
            graph = Some(ExecutionGraph::build(spec, &|operator| facts.outputs(spec, operator)));
        }
        Err(found) => problems.extend(found.iter().cloned()),
    }
    let report = Report {
        job: file.name.clone(),
        ok: problems.is_empty(),
        problems,
        unchecked,
        modules: facts.modules.into_iter().filter_map(|(name, known)| Some((name, known.ok()?))).collect(),
        graph,
    };
    if !terminal.as_json(&report) {
        print(&report, &args.job, server.is_some(), terminal);
    }
    Ok(if report.ok { 0 } else { 2 })
}

/// What the check knows of modules, connectors and folders.
struct Facts {
    /// By reference. An error: nobody could be asked.
    modules: BTreeMap<String, Result<ModuleDescription, ()>>,
    wanted: BTreeMap<String, ModuleFacts>,
    base: PathBuf,
}

impl Facts {
    fn outputs(&self, spec: &JobSpec, operator: &str) -> Vec<String> {
        let module = spec.operators.iter().find(|it| it.name == operator).map(|it| it.module.as_str()).unwrap_or_default();
        self.module(module).map(|facts| facts.outputs).unwrap_or_default()
    }

    fn context(&self, node: &str) -> ConnectorContext {
        ConnectorContext { base: self.base.clone(), ..ConnectorContext::for_check(node) }
    }
}

impl JobFacts for Facts {
    fn module(&self, reference: &str) -> Result<ModuleFacts, String> {
        match self.modules.get(reference) {
            Some(Ok(known)) => Ok(ModuleFacts {
                digest: String::new(),
                keyed: known.operator.keyed,
                inputs: known.operator.inputs,
                outputs: known.operator.outputs.clone(),
                states: known.states.clone(),
            }),
            // It is taken for what the job makes of it: the rest of the job can be checked all the same.
            Some(Err(())) => self.wanted.get(reference).cloned().ok_or_else(|| format!("{reference} is named nowhere")),
            None => Err(format!("{reference} is not there: push it with `tidegate module push {reference} FILE`")),
        }
    }

    fn source(&self, source: &SourceSpec) -> (Vec<Problem>, Option<SourceFacts>) {
        match catalog::build_source(source, &self.context(&source.name)) {
            Ok(built) => (Vec::new(), Some(SourceFacts { replayable: built.is_replayable() })),
            Err(problems) => (problems, None),
        }
    }

    fn sink(&self, sink: &SinkSpec) -> (Vec<Problem>, Option<SinkFacts>) {
        match catalog::build_sink(sink, &self.context(&sink.name)) {
            Ok(built) => (Vec::new(), Some(SinkFacts { strongest: built.strongest() })),
            Err(problems) => (problems, None),
        }
    }
}

fn operators(source: &Value) -> impl Iterator<Item = &Value> {
    source["operator"].as_array().into_iter().flatten()
}

/// By module reference, what the job file makes of it.
fn wanted(source: &Value) -> BTreeMap<String, ModuleFacts> {
    let inputs_of = |node: &Value| match &node["input"] {
        Value::Array(all) => all.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
        Value::String(one) => vec![one.clone()],
        _ => Vec::new(),
    };
    let sinks = source["sink"].as_array().into_iter().flatten();
    let all_inputs: Vec<String> = operators(source).chain(sinks).flat_map(inputs_of).collect();
    let mut wanted = BTreeMap::new();
    for operator in operators(source) {
        let (Some(module), Some(name)) = (operator["module"].as_str(), operator["name"].as_str()) else { continue };
        let mut outputs = vec!["main".to_owned()];
        for port in all_inputs.iter().filter_map(|input| input.strip_prefix(name)?.strip_prefix('.')) {
            if !outputs.iter().any(|known| known == port) {
                outputs.push(port.to_owned());
            }
        }
        let (keyed, inputs) = (operator.get("key").is_some(), inputs_of(operator).len() as u32);
        let facts = ModuleFacts { digest: String::new(), keyed, inputs, outputs, states: Vec::new() };
        wanted.insert(module.to_owned(), facts);
    }
    wanted
}

/// Modules named by path, compiled and looked into; one that is unfit is a problem of its operator.
fn open_modules(
    file: &mut JobFile,
    inspector: Arc<dyn ModuleInspector>,
    facts: &mut Facts,
    problems: &mut Vec<Problem>,
    terminal: &mut Terminal,
) -> Result<(), CliError> {
    file.push_modules(terminal, |name, version, bytes| {
        let view = |description| ModuleView {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: digest_of(&bytes),
            size_bytes: bytes.len() as u64,
            created_ms: now_ms(),
            description,
        };
        let reference = format!("{name}@{version}");
        match inspector.inspect(&bytes) {
            Ok(info) => {
                facts.modules.insert(reference, Ok(info.description.clone()));
                Ok((view(info.description), false))
            }
            Err(error) => {
                let mut message = error.cause.clone();
                for problem in &error.problems {
                    message.push_str(&format!("; {problem}"));
                }
                problems.push(Problem::new(format!("module {name}"), None, message));
                facts.modules.insert(reference, Err(()));
                let nothing = ModuleDescription {
                    world: String::new(),
                    imports: Vec::new(),
                    operator: Default::default(),
                    states: Vec::new(),
                    compile_ms: 0,
                };
                Ok((view(nothing), false))
            }
        }
    })?;
    // The paths are references now.
    facts.wanted.extend(wanted(&file.source));
    Ok(())
}

fn ask_for_modules(server: Option<&Client>, facts: &mut Facts, unchecked: &mut Vec<String>) -> Result<(), CliError> {
    let references: Vec<String> = facts.wanted.keys().filter(|reference| reference.contains('@')).cloned().collect();
    for reference in references {
        if facts.modules.contains_key(&reference) {
            continue;
        }
        let Some((name, version)) = reference.split_once('@') else { continue };
        match server {
            None => {
                facts.modules.insert(reference.clone(), Err(()));
                unchecked.push(reference);
            }
            // Where it is not there the check says so.
            Some(server) => {
                if let Some(view) = server.find::<ModuleView>(&module_path(name, version))? {
                    facts.modules.insert(reference, Ok(view.description));
                }
            }
        }
    }
    Ok(())
}

/// What the job reads and writes is there and may be read and written.
fn paths(spec: &JobSpec, base: &Path) -> Vec<Problem> {
    let context = |node: &str| ConnectorContext { base: base.to_owned(), ..ConnectorContext::for_check(node) };
    let mut problems = Vec::new();
    for source in &spec.sources {
        let Ok(built) = catalog::build_source(source, &context(&source.name)) else { continue };
        for task in 0..source.parallelism {
            if let Err(error) = built.open(task, source.parallelism, &[]) {
                let path = source.options.get("path").and_then(Value::as_str).map(str::to_owned);
                problems.push(Problem::new(format!("source.{}.path", source.name), path, error.to_string()));
                break;
            }
        }
        if source.connector == "file"
            && let Some(path) = source.options.get("path").and_then(Value::as_str)
            && let Err(error) = readable(&base.join(path))
        {
            problems.push(Problem::new(format!("source.{}.path", source.name), Some(path.to_owned()), error));
        }
    }
    for sink in spec.sinks.iter().filter(|sink| sink.connector == "file") {
        let Some(path) = sink.options.get("path").and_then(Value::as_str) else { continue };
        if let Err(error) = writable(&base.join(path)) {
            problems.push(Problem::new(format!("sink.{}.path", sink.name), Some(path.to_owned()), error));
        }
    }
    problems
}

/// A file that is there can be opened. What is not there is the connector's business: a source may wait for it.
fn readable(path: &Path) -> Result<(), String> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::read_dir(path).map(|_| ()).map_err(|e| format!("can't be listed: {e}")),
        Ok(_) => std::fs::File::open(path).map(|_| ()).map_err(|e| format!("can't be read: {e}")),
        Err(_) => Ok(()),
    }
}

/// The folder can be written to, or made: tried in the nearest one that is there, with a file that is removed at once.
pub fn writable(folder: &Path) -> Result<(), String> {
    let nearest = folder.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
    if !nearest.is_dir() {
        return Err(format!("{} is not a folder", nearest.display()));
    }
    let probe = nearest.join(format!(".tidegate-check-{}", unique_id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    made.map_err(|error| format!("{} can't be written to: {error}", nearest.display()))?;
    std::fs::remove_file(&probe).map_err(|error| format!("remove {}: {error}", probe.display()))
}

fn print(report: &Report, path: &Path, has_server: bool, terminal: &mut Terminal) {
    if let Some(graph) = &report.graph {
        print_graph(graph, terminal);
    }
    for (reference, module) in &report.modules {
        let keyed = if module.operator.keyed { "keyed" } else { "not keyed" };
        let (world, outputs) = (&module.world, module.operator.outputs.join(", "));
        let imports = module.imports.join(", ");
        terminal.line(printable(&format!("module {reference}: {world}, {keyed}, outputs {outputs}; imports {imports}")));
    }
    for reference in &report.unchecked {
        let remedy = if has_server { "" } else { ": name a server with --server" };
        terminal.note(format!("module {} was not looked into{remedy}", printable(reference)));
    }
    let path = path.display();
    match report.problems.len() {
        0 => terminal.line(format!("{path}: {} {}", report.job, terminal.paint("is sound", Colour::Green))),
        n => {
            let problems = if n == 1 { "1 problem".to_owned() } else { format!("{n} problems") };
            terminal.line(format!("{path}: {} has {}", report.job, terminal.paint(&problems, Colour::Red)));
            for problem in &report.problems {
                terminal.line(format!("  {}", printable(&problem.to_string())));
            }
        }
    }
}

fn print_graph(graph: &ExecutionGraph, terminal: &mut Terminal) {
    let mut table = Table::new(["VERTEX", "TASKS", "NODES", "READS FROM"]);
    for (number_of, vertex) in graph.vertices.iter().enumerate() {
        let nodes: Vec<_> = vertex.nodes.iter().map(|node| node.name.as_str()).collect();
        let inputs = graph.edges.iter().filter(|edge| edge.to_vertex == number_of).map(|edge| {
            let how = match &edge.partitioning {
                Partitioning::Forward => "task by task".to_owned(),
                Partitioning::Rebalance => "in turn".to_owned(),
                Partitioning::Key(KeySpec::Row) => "by key".to_owned(),
                Partitioning::Key(KeySpec::Json(fields)) => format!("by {}", fields.join(", ")),
            };
            let from = &graph.vertices[edge.from_vertex].nodes[edge.from_node].name;
            let port = if edge.from_port == 0 { String::new() } else { format!(" port {}", edge.from_port) };
            format!("{from}{port} ({how})")
        });
        table.row([
            number(number_of.to_string()),
            number(vertex.parallelism.to_string()),
            text(nodes.join(" > ")),
            text(inputs.collect::<Vec<_>>().join("; ")),
        ]);
    }
    terminal.table(&table);
}
