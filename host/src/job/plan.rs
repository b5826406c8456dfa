//! A job that was checked, with everything it needs at hand: its graph and the code of its operators.

use crate::connector::json_field::Pointer;
use crate::connector::{Sink, Source, SteppedSink, SteppedSource, catalog};
use crate::fault::io_step::IoSteps;
use crate::task::TaskError;
use crate::task::operator::NativeOperator;
use crate::wasm::instance::LoadedModule;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tidegate_core::job_graph::execution::ExecutionGraph;
use tidegate_core::job_graph::spec::{JobSpec, SourceSpec};
use tidegate_core::state_schema::StateDeclaration;

pub struct JobPlan {
    pub spec: JobSpec,
    pub job_id: String,
    /// Relative paths of connectors start here.
    pub base: PathBuf,
    pub graph: ExecutionGraph,
    pub operators: BTreeMap<String, OperatorCode>,
    /// Tests number the calls that leave the process.
    pub io_steps: Option<IoSteps>,
    /// A new instance for every call of a guest.
    pub amnesia: bool,
}

/// What an operator runs.
pub struct OperatorCode {
    /// `name@version`
    pub module: String,
    pub digest: String,
    pub keyed: bool,
    pub outputs: Vec<String>,
    pub states: Vec<StateDeclaration>,
    pub code: Code,
}

pub type MakeNative = Arc<dyn Fn() -> Box<dyn NativeOperator> + Send + Sync>;

#[derive(Clone)]
pub enum Code {
    Wasm(LoadedModule),
    /// Compiled into the host: only benches and tests have any.
    Native(MakeNative),
}

/// The parts of a key.
pub fn pointers(fields: &[String]) -> Vec<Pointer> {
    fields.iter().map(|field| Pointer::parse(field).expect("BUG: a key's pointer was checked with the job")).collect()
}

impl JobPlan {
    pub fn new(spec: JobSpec, job_id: String, base: PathBuf, operators: BTreeMap<String, OperatorCode>) -> Self {
        let graph = ExecutionGraph::build(&spec, &|operator| operators[operator].outputs.clone());
        Self { spec, job_id, base, graph, operators, io_steps: None, amnesia: false }
    }

    pub fn build_source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>, TaskError> {
        let context = super::attempt::context(self, &spec.name);
        let built = catalog::build_source(spec, &context).map_err(|problems| {
            // The job was checked when it was created; what it needs from outside has changed since.
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            TaskError::Fatal(format!("source {}: {}", spec.name, problems.join("; ")))
        })?;
        Ok(match &self.io_steps {
            Some(steps) => Box::new(SteppedSource { inner: built, steps: steps.clone() }),
            None => built,
        })
    }

    /// A sink as the job uses it.
    pub fn sink(&self, built: Box<dyn Sink>) -> Box<dyn Sink> {
        match &self.io_steps {
            Some(steps) => Box::new(SteppedSink { inner: built, steps: steps.clone() }),
            None => built,
        }
    }

    /// Module and digest by operator, for the provenance of dead letters.
    pub fn operator_modules(&self) -> BTreeMap<String, (String, String)> {
        self.operators.iter().map(|(name, code)| (name.clone(), (code.module.clone(), code.digest.clone()))).collect()
    }
}
