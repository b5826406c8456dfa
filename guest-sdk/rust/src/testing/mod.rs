//! Runs an operator in a unit test: state in memory, time by hand, the host's semantics.
//!
//! ```
//! use tidegate_sdk::prelude::*;
//! use tidegate_sdk::testing::OperatorTest;
//!
//! #[operator(keyed)]
//! struct Count {
//!     seen: ValueState<u64>,
//! }
//!
//! impl Operator for Count {
//!     fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
//!         let seen = self.seen.update(ctx, |seen| seen + 1);
//!         if record.value() == b"bad" {
//!             reject!("number {seen} is bad");
//!         }
//!         ctx.emit(seen.to_string());
//!         Ok(())
//!     }
//! }
//!
//! let mut t = OperatorTest::<Count>::new();
//! t.send("JFK", "good", 1_000);
//! t.send("JFK", "bad", 2_000);
//! t.send("JFK", "good", 3_000);
//! assert_eq!(t.texts("main"), ["1", "2"]);            // the bad one left no trace
//! assert_eq!(t.rejected()[0].reason, "number 2 is bad");
//! assert_eq!(t.value::<u64>("seen", "JFK"), Some(2));
//! ```
//!
//! A call is atomic, as on the real host: when it fails, nothing of it is left. [`amnesia`](OperatorTest::amnesia) throws the instance
//! away after every call, which a good operator does not notice. A panic fails the test: the real host would find the record by
//! bisection and go on.

pub(crate) mod host;

use crate::context::{Context, Level};
use crate::declaration::{BatchInput, Descriptor, Failure, RejectedRow, TimeDomain, TimerInput};
use crate::encoding::StateValue;
use crate::encoding::map_key::MapKey;
use crate::operator::{Instance, Operator};
use crate::record::{ChangeKind, HeaderList, NO_TIMESTAMP, Record, Row, Timestamp};
use host::{Host, Metric};

/// Times that timers may set timers that are due at once: `timer_rounds_max` of the host.
const TIMER_ROUNDS_MAX: u32 = 10_000;

/// A record that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    pub key: Vec<u8>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    pub timestamp: Option<Timestamp>,
    pub change: ChangeKind,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Emitted {
    fn of(record: &Record<'_>) -> Self {
        Self {
            key: record.key().to_vec(),
            value: (!record.is_tombstone()).then(|| record.value().to_vec()),
            timestamp: record.timestamp(),
            change: record.change(),
            headers: record.headers().into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        }
    }

    /// The value as text, for comparing; panics on what is not UTF-8. A tombstone is empty.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().unwrap_or_default()).expect("an emitted value that is not UTF-8")
    }
}

/// A timer that waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetTimer {
    pub domain: TimeDomain,
    pub time: Timestamp,
    pub key: Vec<u8>,
    pub tag: u64,
}

/// What was rejected, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub key: Vec<u8>,
    /// The record's value; `None` for a tombstone and for a timer.
    pub value: Option<Vec<u8>>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub level: Level,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// An operator under test. See the [module](self) for an example.
#[derive(Debug)]
pub struct OperatorTest<O> {
    context: Context,
    instance: Option<Instance<O>>,
    host: Host,
    input: u32,
    amnesia: bool,
    rejected: Vec<Rejected>,
}

impl<O: Operator> Default for OperatorTest<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: Operator> OperatorTest<O> {
    /// A fresh operator, parallelism 1, no options. It starts with the first call, or with [`start`](Self::start).
    pub fn new() -> Self {
        let descriptor = O::describe();
        let operator_name = descriptor.name.clone();
        Self {
            context: Context { job: "test".to_owned(), operator_name, parallelism: 1, ..Context::default() },
            instance: None,
            host: Host::new(descriptor),
            input: 0,
            amnesia: false,
            rejected: Vec::new(),
        }
    }

    /// Sets an option of the job's `config`.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.context.options.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A new instance for every call: the output must stay the same.
    #[must_use]
    pub fn amnesia(mut self) -> Self {
        self.amnesia = true;
        self
    }

    /// Records sent from here on come from this input.
    pub fn input(&mut self, input: u32) -> &mut Self {
        self.input = input;
        self
    }

    /// What the operator declares.
    pub fn descriptor(&self) -> &Descriptor {
        self.host.descriptor()
    }

    /// Starts a new instance, as after a deployment, a trap or a recovery.
    pub fn start(&mut self) -> Result<(), Failure> {
        self.context.asked.take();
        let context = &self.context;
        self.host.begin(Vec::new(), Vec::new());
        let started = host::lend(&mut self.host, || Instance::start(context));
        self.host.end(started.is_ok());
        self.instance = Some(started?);
        Ok(())
    }

    /// Sends one record as a batch of one. Panics when the call fails; a rejected record is no failure.
    pub fn send(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, timestamp: impl Into<Option<Timestamp>>) {
        let row = Row { key: key.as_ref(), value: Some(value.as_ref()), timestamp: timestamp.into(), ..Row::default() };
        self.send_batch(&[row]);
    }

    /// Sends several records as one batch. Panics when the call fails.
    pub fn send_batch(&mut self, rows: &[Row<'_>]) {
        if let Err(failure) = self.try_send_batch(rows) {
            panic!("the call failed: {failure:?}");
        }
    }

    /// The same, for tests of failures. A call that failed left nothing behind.
    pub fn try_send_batch(&mut self, rows: &[Row<'_>]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        let (mut slots, mut keys) = (Vec::new(), Vec::<Vec<u8>>::new());
        for row in rows {
            row.write(&mut bytes);
            if self.host.descriptor().keyed {
                let known = keys.iter().position(|key| key == row.key);
                slots.push(known.unwrap_or_else(|| {
                    keys.push(row.key.to_vec());
                    keys.len() - 1
                }) as u32);
            }
        }
        let batch = BatchInput {
            input: self.input,
            count: rows.len() as u32,
            rows: &bytes,
            slots: &slots,
            key_count: keys.len() as u32,
            watermark: self.host.watermark.unwrap_or(NO_TIMESTAMP),
            processing_time: self.host.processing_time,
        };
        let rejected = self.call(keys, bytes.clone(), |instance| instance.process_batch(&batch))?;
        self.rejected.extend(rejected.into_iter().map(|RejectedRow { row, reason }| Rejected {
            key: rows[row as usize].key.to_vec(),
            value: rows[row as usize].value.map(<[u8]>::to_vec),
            reason,
        }));
        Ok(())
    }

    /// No record older than this will come: event-time timers up to it fire.
    pub fn advance_watermark(&mut self, watermark: Timestamp) {
        assert!(self.host.watermark.is_none_or(|old| old <= watermark), "a watermark never goes back");
        self.host.advance_watermark(watermark);
        self.fire(TimeDomain::EventTime);
    }

    /// The input is bounded and over: all event-time timers fire.
    pub fn end_of_input(&mut self) {
        self.advance_watermark(Timestamp::MAX);
    }

    /// Sets the host's clock: processing-time timers up to it fire.
    pub fn advance_processing_time(&mut self, time: Timestamp) {
        assert!(self.host.processing_time <= time, "the host's clock never goes back");
        self.host.processing_time = time;
        self.fire(TimeDomain::ProcessingTime);
    }

    fn fire(&mut self, domain: TimeDomain) {
        for _ in 0..TIMER_ROUNDS_MAX {
            let due = self.host.due(domain);
            if due.is_empty() {
                return;
            }
            if let Err(failure) = self.call_timers(domain, &due) {
                panic!("the call of {} timers failed: {failure:?}", due.len());
            }
        }
        panic!("timers set timers that are due at once, {TIMER_ROUNDS_MAX} times over");
    }

    fn call_timers(&mut self, domain: TimeDomain, due: &[SetTimer]) -> Result<(), Failure> {
        let (mut slots, mut keys) = (Vec::new(), Vec::<Vec<u8>>::new());
        for timer in due {
            let known = keys.iter().position(|key| *key == timer.key);
            slots.push(known.unwrap_or_else(|| {
                keys.push(timer.key.clone());
                keys.len() - 1
            }) as u32);
        }
        let mut key_offsets = vec![0];
        key_offsets.extend(keys.iter().scan(0, |end, key| {
            *end += key.len() as u32;
            Some(*end)
        }));
        let input = TimerInput {
            domain,
            slots: &slots,
            times: &due.iter().map(|timer| timer.time).collect::<Vec<_>>(),
            tags: &due.iter().map(|timer| timer.tag).collect::<Vec<_>>(),
            key_data: &keys.concat(),
            key_offsets: &key_offsets,
            watermark: self.host.watermark.unwrap_or(NO_TIMESTAMP),
            processing_time: self.host.processing_time,
        };
        let due_before = due.to_vec();
        let rejected = self.call(keys, Vec::new(), |instance| {
            // A timer that fires is gone, and may be set again by the call.
            host::with_host(|host| host.durable.timers.retain(|timer| !due_before.contains(timer)));
            instance.on_timers(&input)
        })?;
        self.rejected.extend(rejected.into_iter().map(|RejectedRow { row, reason }| Rejected {
            key: due[row as usize].key.clone(),
            value: None,
            reason,
        }));
        Ok(())
    }

    fn call(
        &mut self,
        keys: Vec<Vec<u8>>,
        rows: Vec<u8>,
        act: impl FnOnce(&mut Instance<O>) -> Result<Vec<RejectedRow>, Failure>,
    ) -> Result<Vec<RejectedRow>, Failure> {
        if self.instance.is_none() || self.amnesia {
            self.start()?;
        }
        self.host.begin(keys, rows);
        let instance = self.instance.as_mut().expect("started above");
        let answer = host::lend(&mut self.host, || act(instance));
        self.host.end(answer.is_ok());
        answer
    }

    fn port(&self, port: &str) -> usize {
        let outputs = &self.host.descriptor().outputs;
        let found = outputs.iter().position(|name| name == port);
        found.unwrap_or_else(|| panic!("there is no output {port:?}: the operator declares {outputs:?}"))
    }

    /// Everything that came out of an output so far, in order.
    pub fn outputs(&self, port: &str) -> &[Emitted] {
        &self.host.durable.outputs[self.port(port)]
    }

    /// The same, and it is gone from there.
    pub fn take(&mut self, port: &str) -> Vec<Emitted> {
        let port = self.port(port);
        std::mem::take(&mut self.host.durable.outputs[port])
    }

    /// Values of everything that came out of an output so far, as text.
    pub fn texts(&self, port: &str) -> Vec<&str> {
        self.outputs(port).iter().map(Emitted::text).collect()
    }

    /// Records and timers that the operator rejected, in order.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Timers that wait, by domain and time.
    pub fn timers(&self) -> Vec<SetTimer> {
        self.host.durable.timers.iter().cloned().collect()
    }

    /// What a value state holds for a key.
    pub fn value<V: StateValue>(&self, state: &str, key: impl AsRef<[u8]>) -> Option<V> {
        self.host.check_state(state, "value");
        self.host.value(state, key.as_ref()).map(decoded)
    }

    /// The entries of a map state for a key, in order.
    pub fn map<K: MapKey, V: StateValue>(&self, state: &str, key: impl AsRef<[u8]>) -> Vec<(K, V)> {
        self.host.check_state(state, "map");
        let entries = self.host.map(state, key.as_ref()).into_iter();
        entries.map(|(key, value)| (K::decode(key).expect("a map key of another type"), decoded(value))).collect()
    }

    /// The elements of a list state for a key.
    pub fn list<V: StateValue>(&self, state: &str, key: impl AsRef<[u8]>) -> Vec<V> {
        self.host.check_state(state, "list");
        self.host.list(state, key.as_ref()).iter().map(|element| decoded(element)).collect()
    }

    /// The number of a reducing state for a key; those of the `f64` reducers as their bits.
    pub fn number(&self, state: &str, key: impl AsRef<[u8]>) -> Option<i64> {
        self.host.check_state(state, "reducing");
        self.host.number(state, key.as_ref())
    }

    /// Lines the operator logged.
    pub fn logs(&self) -> &[LogLine] {
        &self.host.logs
    }

    /// The count of a counter, 0 where it never counted.
    pub fn counter(&self, name: &str) -> u64 {
        match self.host.durable.metrics.get(name) {
            None => 0,
            Some(Metric::Counter(sum)) => *sum,
            Some(other) => panic!("{name:?} is no counter: {other:?}"),
        }
    }

    /// The value of a gauge that was set.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        match self.host.durable.metrics.get(name) {
            None => None,
            Some(Metric::Gauge(value)) => Some(*value),
            Some(other) => panic!("{name:?} is no gauge: {other:?}"),
        }
    }

    /// What a histogram observed, in order.
    pub fn histogram(&self, name: &str) -> &[f64] {
        match self.host.durable.metrics.get(name) {
            None => &[],
            Some(Metric::Histogram(values)) => values,
            Some(other) => panic!("{name:?} is no histogram: {other:?}"),
        }
    }
}

fn decoded<V: StateValue>(bytes: &[u8]) -> V {
    V::decode(bytes).expect("a state of another type")
}

/// Headers of a row to send: `headers(&[("trace", b"1")])`, kept alive by the caller.
pub fn headers(headers: &[(&str, &[u8])]) -> HeaderList {
    let mut list = HeaderList::new();
    for (name, value) in headers {
        list.add(name, value);
    }
    list
}
