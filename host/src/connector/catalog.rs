//! Which connectors there are. A new one is a line in [`SOURCES`] or [`SINKS`].

use super::blackhole::{self, Blackhole};
use super::file::{FileSink, FileSinkOptions, FileSource, FileSourceOptions};
use super::generator::{Generator, GeneratorOptions};
use super::options::{list, nearest};
use super::stdout::{self, Stdout};
use super::{ConnectorContext, Sink, Source};
use tidegate_core::job_graph::spec::{Delivery, SinkSpec, SourceSpec};
use tidegate_core::problem::Problem;

/// What a connector that refuses its options answers.
type Built<T> = Result<T, Vec<Problem>>;

struct SourceEntry {
    name: &'static str,
    check: fn(&SourceSpec) -> Vec<Problem>,
    build: fn(&SourceSpec, &ConnectorContext) -> Built<Box<dyn Source>>,
}

struct SinkEntry {
    name: &'static str,
    check: fn(&SinkSpec) -> Vec<Problem>,
    build: fn(&SinkSpec, &ConnectorContext) -> Built<Box<dyn Sink>>,
}

const SOURCES: &[SourceEntry] = &[
    SourceEntry {
        name: "file",
        check: |spec| FileSourceOptions::parse(spec).err().unwrap_or_default(),
        build: |spec, context| Ok(Box::new(FileSource::build(spec, context)?)),
    },
    SourceEntry {
        name: "generator",
        check: |spec| GeneratorOptions::parse(spec).err().unwrap_or_default(),
        build: |spec, context| Ok(Box::new(Generator::build(spec, context)?)),
    },
];

const SINKS: &[SinkEntry] = &[
    SinkEntry {
        name: "blackhole",
        check: |spec| blackhole::parse(spec).err().unwrap_or_default(),
        build: |spec, context| Ok(Box::new(Blackhole::build(spec, context)?)),
    },
    SinkEntry {
        name: "file",
        check: |spec| FileSinkOptions::parse(spec).err().unwrap_or_default(),
        build: |spec, context| Ok(Box::new(FileSink::build(spec, context)?)),
    },
    SinkEntry {
        name: "stdout",
        check: |spec| stdout::parse(spec).err().unwrap_or_default(),
        build: |spec, context| Ok(Box::new(Stdout::build(spec, context)?)),
    },
];

/// All that is wrong with a source's connector and options, without touching the world.
pub fn check_source(spec: &SourceSpec) -> Vec<Problem> {
    match source_entry(spec) {
        Ok(entry) => (entry.check)(spec),
        Err(problem) => vec![problem],
    }
}

/// All that is wrong with a sink's connector and options, without touching the world.
pub fn check_sink(spec: &SinkSpec) -> Vec<Problem> {
    match sink_entry(spec) {
        Ok(entry) => (entry.check)(spec),
        Err(problem) => vec![problem],
    }
}

pub fn build_source(spec: &SourceSpec, context: &ConnectorContext) -> Result<Box<dyn Source>, Vec<Problem>> {
    let source = (source_entry(spec).map_err(|problem| vec![problem])?.build)(spec, context)?;
    if !source.is_replayable() && context.delivery != Delivery::AtMostOnce {
        let key = format!("source.{}.connector", spec.name);
        let message = format!("can't repeat records after a failure, which {} needs", context.delivery.name());
        return Err(vec![Problem::new(key, Some(spec.connector.clone()), message)]);
    }
    Ok(source)
}

/// Builds a sink, and refuses one that can't give what the job promises.
pub fn build_sink(spec: &SinkSpec, context: &ConnectorContext) -> Result<Box<dyn Sink>, Vec<Problem>> {
    let sink = (sink_entry(spec).map_err(|problem| vec![problem])?.build)(spec, context)?;
    match delivery_problem(spec, context.delivery, sink.strongest()) {
        Some(problem) => Err(vec![problem]),
        None => Ok(sink),
    }
}

fn delivery_problem(spec: &SinkSpec, wanted: Delivery, strongest: Delivery) -> Option<Problem> {
    if wanted != Delivery::ExactlyOnce || strongest == Delivery::ExactlyOnce {
        return None;
    }
    let message = format!(
        "gives {} at best, the job asks for {}; set delivery = \"{0}\", or take another sink (`file` gives exactly-once)",
        strongest.name(),
        wanted.name()
    );
    Some(Problem::new(format!("sink.{}.connector", spec.name), Some(spec.connector.clone()), message))
}

fn source_entry(spec: &SourceSpec) -> Result<&'static SourceEntry, Problem> {
    let names = SOURCES.iter().map(|entry| entry.name);
    SOURCES.iter().find(|entry| entry.name == spec.connector).ok_or_else(|| unknown("source", &spec.name, &spec.connector, names))
}

fn sink_entry(spec: &SinkSpec) -> Result<&'static SinkEntry, Problem> {
    let names = SINKS.iter().map(|entry| entry.name);
    SINKS.iter().find(|entry| entry.name == spec.connector).ok_or_else(|| unknown("sink", &spec.name, &spec.connector, names))
}

fn unknown(side: &str, node: &str, connector: &str, names: impl Iterator<Item = &'static str> + Clone) -> Problem {
    let hint = nearest(connector, names.clone()).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
    let message = format!("is not a connector of a {side}; there are {}{hint}", list(names));
    Problem::new(format!("{side}.{node}.connector"), Some(connector.to_owned()), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tidegate_core::job_graph::spec::OnError;

    fn source(connector: &str, options: Value) -> SourceSpec {
        SourceSpec {
            name: "in".into(),
            connector: connector.into(),
            parallelism: 1,
            watermark: None,
            on_error: OnError::Fail,
            errors: Default::default(),
            options: options.as_object().expect("an object").clone(),
        }
    }

    fn sink(connector: &str, options: Value) -> SinkSpec {
        SinkSpec {
            name: "out".into(),
            connector: connector.into(),
            inputs: Vec::new(),
            parallelism: None,
            options: options.as_object().expect("an object").clone(),
        }
    }

    #[test]
    fn an_unknown_connector_is_answered_with_those_known() {
        let problems = check_source(&source("generatr", json!({})));
        assert_eq!(problems.len(), 1);
        let message = problems[0].to_string();
        assert!(message.starts_with("source.in.connector = generatr: is not a connector of a source; there are "), "{message}");
        assert!(message.ends_with("(did you mean `generator`?)"), "{message}");
        let message = check_sink(&sink("kafka", json!({})))[0].to_string();
        assert!(message.contains("`blackhole`"), "{message}");
    }

    #[test]
    fn a_sink_that_is_too_weak_is_refused_with_the_alternatives() {
        let mut context = ConnectorContext {
            job: "job".into(),
            job_id: "0011223344556677".into(),
            node: "out".into(),
            delivery: Delivery::ExactlyOnce,
            base: ".".into(),
        };
        let problems = build_sink(&sink("stdout", json!({})), &context).err().expect("refused");
        let message = problems[0].to_string();
        assert!(message.contains("at-least-once at best") && message.contains("`file`"), "{message}");
        context.delivery = Delivery::AtLeastOnce;
        assert!(build_sink(&sink("stdout", json!({})), &context).is_ok());
    }

    #[test]
    fn options_are_checked_by_their_connector() {
        assert!(check_source(&source("generator", json!({"keys": 5}))).is_empty());
        assert_eq!(check_source(&source("generator", json!({"key": 5, "records": -1}))).len(), 2);
        assert!(check_sink(&sink("blackhole", json!({}))).is_empty());
        assert_eq!(check_sink(&sink("blackhole", json!({"digst": "w2"})))[0].key, "sink.out.digst");
    }
}
