//! One guest behind the host's boundary: no tasks, no channels, no checkpoints. What the boundary does is seen without anything in
//! between.

use crate::rows::{self, TestRow};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tidegate::metrics::Metrics;
use tidegate::state::{CallTime, KeyedState};
use tidegate::wasm::engine::WasmEngine;
use tidegate::wasm::env::{OperatorEnv, OperatorMeta};
use tidegate::wasm::guest_metrics::TaskGuestMetrics;
use tidegate::wasm::inspect::{self, ModuleInfo};
use tidegate::wasm::instance::{CallError, Death, LoadedModule, RejectedRow, WasmOperator};
use tidegate_core::limits::{GuestLimits, KEY_GROUPS_DEFAULT, RowLimits};
use tidegate_core::row::Rows;
use tidegate_core::state_schema::TimeDomain;

/// Where reports of the contract's guests go: see their READMEs.
pub const MAIN: u32 = 0;
pub const SIDE: u32 = 1;
pub const REPORT: u32 = 2;

/// A call in the middle of a stream.
pub const NOW: CallTime = CallTime { watermark: 500, processing_time: 1_700_000_000_000 };

pub fn engine() -> &'static WasmEngine {
    static ENGINE: OnceLock<WasmEngine> = OnceLock::new();
    ENGINE.get_or_init(|| WasmEngine::new().expect("an engine"))
}

/// A guest package of the workspace: built, compiled and inspected once for all tests of a process.
pub fn module(package: &str) -> (LoadedModule, Arc<ModuleInfo>) {
    type Modules = HashMap<String, (LoadedModule, Arc<ModuleInfo>)>;
    static MODULES: Mutex<Option<Modules>> = Mutex::new(None);
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    let modules = modules.get_or_insert_default();
    if let Some((module, info)) = modules.get(package) {
        return (module.clone(), Arc::clone(info));
    }
    let path = guest_build::component(package);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let inspected = inspect::inspect(engine(), &bytes, "digest").unwrap_or_else(|error| panic!("{package}: {error}"));
    let component = inspect::load(engine(), &inspected.precompiled).expect("loads what it has compiled");
    let module = LoadedModule::new(engine(), &component, &format!("{package}@1.0.0"), "digest").expect("an operator");
    let info = Arc::new(inspected.info);
    modules.insert(package.to_owned(), (module.clone(), Arc::clone(&info)));
    (module, info)
}

/// What a guest is run with.
pub struct Setup {
    package: String,
    options: Vec<(String, String)>,
    limits: GuestLimits,
    amnesia: bool,
}

impl Setup {
    pub fn new(package: &str) -> Self {
        Self { package: package.to_owned(), options: Vec::new(), limits: GuestLimits::default(), amnesia: false }
    }

    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn limits(mut self, change: impl FnOnce(&mut GuestLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// A new instance for every call.
    pub fn amnesia(mut self) -> Self {
        self.amnesia = true;
        self
    }

    /// The operator as a task would have it: everything in its environment, nothing started.
    pub fn operator(&self) -> (WasmOperator, Metrics) {
        crate::logged::install();
        let (module, info) = module(&self.package);
        let descriptor = &info.descriptor;
        let meta = Arc::new(OperatorMeta {
            job: "job".to_owned(),
            operator: "operator".to_owned(),
            module: module.reference.clone(),
            digest: module.digest.clone(),
            task_index: 0,
            parallelism: 1,
            options: self.options.clone(),
            ports: descriptor.outputs.len() as u32,
            keyed: descriptor.keyed,
            limits: self.limits,
            row_limits: RowLimits::default(),
            journal: None,
        });
        const ALL_GROUPS: Range<u32> = 0..KEY_GROUPS_DEFAULT;
        let state = descriptor.keyed.then(|| KeyedState::new(&descriptor.states, KEY_GROUPS_DEFAULT, ALL_GROUPS, &self.limits));
        let metrics = Metrics::default();
        let env = OperatorEnv::new(meta, state, TaskGuestMetrics::new(metrics.guest("job", "operator")));
        (WasmOperator::new(module, env).with_amnesia(self.amnesia), metrics)
    }

    pub fn start(&self) -> Guest {
        let (operator, metrics) = self.operator();
        Guest { operator, metrics }
    }
}

pub struct Guest {
    pub operator: WasmOperator,
    metrics: Metrics,
}

/// What a call that counts has brought.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub rejected: Vec<RejectedRow>,
    pub outputs: BTreeMap<u32, Vec<TestRow>>,
}

impl Answer {
    pub fn on(&self, port: u32) -> &[TestRow] {
        self.outputs.get(&port).map_or(&[], Vec::as_slice)
    }

    /// The values on a port, as text.
    pub fn texts(&self, port: u32) -> Vec<String> {
        self.on(port).iter().map(TestRow::text).collect()
    }

    /// `question: answer` for each line of the report.
    pub fn report(&self) -> Vec<String> {
        self.on(REPORT).iter().map(|row| format!("{}: {}", String::from_utf8_lossy(&row.key), row.text())).collect()
    }

    /// The answers to one question.
    pub fn reported(&self, question: &str) -> Vec<String> {
        self.on(REPORT).iter().filter(|row| row.key == question.as_bytes()).map(TestRow::text).collect()
    }
}

impl Guest {
    /// One call with all rows; for a guest that takes one record, one call for each of them, up to the first that fails.
    pub fn call(&mut self, rows: &[TestRow], now: CallTime) -> Result<Answer, CallError> {
        self.call_input(0, rows, now)
    }

    pub fn call_input(&mut self, input: u32, rows: &[TestRow], now: CallTime) -> Result<Answer, CallError> {
        let mut answer = Answer::default();
        if self.operator.takes_batches() {
            let mut batch = rows::batch(rows);
            answer.rejected = self.operator.call_batch(input, &mut batch, now)?;
            self.take(&batch, &mut answer);
            return Ok(answer);
        }
        for single in rows {
            let batch = rows::batch(std::slice::from_ref(single));
            let row = batch.iter().next().expect("one row");
            self.operator.call_record(input, &row, now)?;
            self.take(&batch, &mut answer);
        }
        Ok(answer)
    }

    /// A call that has to count.
    #[track_caller]
    pub fn ok(&mut self, rows: &[TestRow]) -> Answer {
        self.call(rows, NOW).unwrap_or_else(|error| panic!("the call failed: {error}"))
    }

    /// A call that ends the instance: how, and what the host says about it.
    #[track_caller]
    pub fn dies(&mut self, rows: &[TestRow]) -> (Death, String) {
        match self.call(rows, NOW) {
            Err(CallError::Died { how, message }) => (how, message),
            other => panic!("the guest should have died: {other:?}"),
        }
    }

    /// Fires what is due, in as many calls as the guest's world asks for. Empty: nothing was due.
    pub fn fire(&mut self, domain: TimeDomain, now: CallTime) -> Result<Vec<Answer>, CallError> {
        let up_to = match domain {
            TimeDomain::EventTime => now.watermark,
            TimeDomain::ProcessingTime => now.processing_time,
        };
        let at_once = if self.operator.takes_batches() { 1024 } else { 1 };
        let mut answers = Vec::new();
        while self.state().begin_timers(domain, up_to, at_once, now) {
            let due = self.operator.due_timers(domain, now);
            let mut answer = Answer { rejected: self.operator.call_timers(now, &due)?, ..Answer::default() };
            self.take(&Rows::default(), &mut answer);
            answers.push(answer);
        }
        Ok(answers)
    }

    /// The lines that `on-timers` reported, of all calls.
    pub fn fired(&mut self, domain: TimeDomain, now: CallTime) -> Vec<String> {
        let answers = self.fire(domain, now).unwrap_or_else(|error| panic!("timers failed: {error}"));
        answers.iter().flat_map(|answer| answer.reported("timer")).collect()
    }

    fn take(&mut self, batch: &Rows, answer: &mut Answer) {
        let outputs = &mut answer.outputs;
        self.operator.env().outputs.take(batch, |port, rows| outputs.entry(port).or_default().extend(rows::read(&rows)));
    }

    /// A metric of the guest's own, as the host's page shows it: `name`, or `name_count` and `name_sum` of a histogram.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.metrics.render(&[]);
        let sample = page.lines().find_map(|line| line.strip_prefix(&format!("tidegate_guest_{name}{{")))?;
        let (labels, value) = sample.rsplit_once(' ').expect("a sample has a value");
        assert_eq!(labels, r#"job="job",operator="operator"}"#);
        Some(value.parse().expect("a value is a number"))
    }

    pub fn state(&mut self) -> &mut KeyedState {
        self.operator.env().state.as_mut().expect("the guest is keyed")
    }

    /// Throws the instance away, as a trap or a swap would: what is left is what the host holds.
    pub fn recycle(&mut self, module: &LoadedModule) {
        let env = self.operator.env();
        let empty = OperatorEnv::new(Arc::clone(&env.meta), None, TaskGuestMetrics::default());
        let env = std::mem::replace(env, empty);
        self.operator = WasmOperator::new(module.clone(), env);
    }
}
