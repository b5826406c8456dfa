//! The host of the test kit: what the contract promises, in memory and on one thread.
//!
//! A call works on a copy of everything; `end` keeps the copy when the call was good and drops it when it was not. Slow, and plainly
//! right. What a real host would answer with a trap panics here, with the same reason.

use crate::context::Level;
use crate::declaration::{Descriptor, ReducerKind, StateDeclaration, StateKind, TimeDomain, TimeToLive};
use crate::record::{NO_TIMESTAMP, Record, Row, Timestamp};
use crate::testing::{Emitted, LogLine, SetTimer};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// The host of the call that is running on this thread.
pub(crate) fn with_host<R>(act: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with_borrow_mut(|host| {
        act(host.as_mut().expect("an operator has a host within a call only: run it through tidegate_sdk::testing::OperatorTest"))
    })
}

/// Lends the host to this thread while `run` runs.
pub(super) fn lend<R>(host: &mut Host, run: impl FnOnce() -> R) -> R {
    HOST.set(Some(std::mem::take(host)));
    let result = run();
    *host = HOST.take().expect("the host was lent above");
    result
}

/// As the contract's `bytes-column`.
#[derive(Debug, Default, Clone)]
pub(crate) struct BytesColumn {
    pub data: Vec<u8>,
    pub offsets: Vec<u32>,
}

impl BytesColumn {
    fn from_strings<'a>(strings: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut column = Self { data: Vec::new(), offsets: vec![0] };
        for string in strings {
            column.data.extend_from_slice(string);
            column.offsets.push(column.data.len() as u32);
        }
        column
    }

    fn strings(&self, count: usize) -> Vec<&[u8]> {
        assert_eq!(self.offsets.len(), count + 1, "a column of {count} strings has one offset more");
        self.offsets.windows(2).map(|pair| &self.data[pair[0] as usize..pair[1] as usize]).collect()
    }
}

type Key = Vec<u8>;
type Name = String;

type Entries = BTreeMap<Vec<u8>, Stored<Vec<u8>>>;

/// With the time of the last write, in the clock of the state's time to live.
#[derive(Debug, Clone)]
struct Stored<T> {
    content: T,
    written: Timestamp,
}

/// Everything that a call changes together or not at all.
#[derive(Debug, Clone, Default)]
pub(super) struct Durable {
    values: BTreeMap<(Name, Key), Stored<Vec<u8>>>,
    maps: BTreeMap<(Name, Key), Entries>,
    lists: BTreeMap<(Name, Key), Stored<Vec<Vec<u8>>>>,
    numbers: BTreeMap<(Name, Key), Stored<i64>>,
    pub timers: BTreeSet<SetTimer>,
    pub outputs: Vec<Vec<Emitted>>,
    pub metrics: BTreeMap<Name, Metric>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Metric {
    Counter(u64),
    Gauge(f64),
    Histogram(Vec<f64>),
}

#[derive(Debug, Default)]
pub(crate) struct Host {
    descriptor: Option<Descriptor>,
    pub(super) durable: Durable,
    before: Durable,
    pub(super) logs: Vec<LogLine>,
    pub(super) watermark: Option<Timestamp>,
    /// The watermark as far as state gets old by it: the end of a bounded input is no time.
    event_time: Timestamp,
    pub(super) processing_time: Timestamp,
    /// Of the call that runs: the keys of the slots, and the rows.
    keys: Vec<Key>,
    rows: Vec<u8>,
}

impl Host {
    pub fn new(descriptor: Descriptor) -> Self {
        let durable = Durable { outputs: vec![Vec::new(); descriptor.outputs.len()], ..Durable::default() };
        Self { descriptor: Some(descriptor), durable, event_time: NO_TIMESTAMP, ..Self::default() }
    }

    pub fn descriptor(&self) -> &Descriptor {
        self.descriptor.as_ref().expect("a host is made with a descriptor")
    }

    pub fn begin(&mut self, keys: Vec<Key>, rows: Vec<u8>) {
        self.before = self.durable.clone();
        (self.keys, self.rows) = (keys, rows);
    }

    pub fn end(&mut self, good: bool) {
        let before = std::mem::take(&mut self.before);
        if !good {
            self.durable = before;
        }
        self.keys.clear();
        self.rows.clear();
    }

    /// What was written before there was a watermark counts as written when the first one came.
    pub fn advance_watermark(&mut self, watermark: Timestamp) {
        self.watermark = Some(watermark);
        if watermark == Timestamp::MAX {
            return;
        }
        if self.event_time == NO_TIMESTAMP {
            let Durable { values, maps, lists, numbers, .. } = &mut self.durable;
            let stamps = values
                .values_mut()
                .map(|stored| &mut stored.written)
                .chain(maps.values_mut().flat_map(BTreeMap::values_mut).map(|stored| &mut stored.written))
                .chain(lists.values_mut().map(|stored| &mut stored.written))
                .chain(numbers.values_mut().map(|stored| &mut stored.written));
            stamps.filter(|stamp| **stamp == NO_TIMESTAMP).for_each(|stamp| *stamp = watermark);
        }
        self.event_time = watermark;
    }

    fn declaration(&self, name: &str) -> &StateDeclaration {
        let declared = self.descriptor().states.iter().find(|state| state.name == name);
        declared.unwrap_or_else(|| panic!("the state {name:?} is not declared"))
    }

    pub fn check_state(&self, name: &str, kind: &str) {
        let declared = match self.declaration(name).kind {
            StateKind::Value => "value",
            StateKind::Map => "map",
            StateKind::List => "list",
            StateKind::Reducing(_) => "reducing",
        };
        assert!(declared == kind, "the state {name:?} is declared as {declared} and opened as {kind}");
    }

    fn id(&self, name: &str, slot: u32) -> (Name, Key) {
        let key = self.keys.get(slot as usize).unwrap_or_else(|| panic!("slot {slot} of {} in {name:?}", self.keys.len()));
        (name.to_owned(), key.clone())
    }

    fn slots(&self) -> std::ops::Range<u32> {
        0..self.keys.len() as u32
    }

    fn now(&self, name: &str) -> Timestamp {
        match self.declaration(name).ttl {
            Some(TimeToLive { domain: TimeDomain::EventTime, .. }) => self.event_time,
            _ => self.processing_time,
        }
    }

    fn live<T>(&self, name: &str, stored: &Stored<T>) -> bool {
        let Some(ttl) = self.declaration(name).ttl else { return true };
        stored.written == NO_TIMESTAMP || self.now(name) < stored.written.saturating_add_unsigned(ttl.ms)
    }

    fn size(&self, name: &str) -> usize {
        let size = self.declaration(name).value_size;
        size.unwrap_or_else(|| panic!("the state {name:?} has no value-size: no -fixed calls")) as usize
    }

    pub fn value(&self, name: &str, key: &[u8]) -> Option<&[u8]> {
        let stored = self.durable.values.get(&(name.to_owned(), key.to_vec()))?;
        self.live(name, stored).then_some(&stored.content)
    }

    fn put_value(&mut self, name: &str, slot: u32, value: &[u8]) {
        let (id, written) = (self.id(name, slot), self.now(name));
        if value.is_empty() {
            self.durable.values.remove(&id);
        } else {
            self.durable.values.insert(id, Stored { content: value.to_vec(), written });
        }
    }

    pub fn value_clear(&mut self, name: &str, slot: u32) {
        self.put_value(name, slot, &[]);
    }

    pub fn value_load(&mut self, name: &str) -> BytesColumn {
        BytesColumn::from_strings(self.keys.iter().map(|key| self.value(name, key).unwrap_or_default()))
    }

    pub fn value_store(&mut self, name: &str, slots: &[u32], values: &BytesColumn) {
        for (slot, value) in slots.iter().zip(values.strings(slots.len())) {
            self.put_value(name, *slot, value);
        }
    }

    pub fn value_load_fixed(&mut self, name: &str) -> Vec<u8> {
        let zeroes = vec![0; self.size(name)];
        self.keys.iter().flat_map(|key| self.value(name, key).unwrap_or(&zeroes).to_vec()).collect()
    }

    pub fn value_store_fixed(&mut self, name: &str, slots: &[u32], values: &[u8]) {
        let size = self.size(name);
        assert_eq!(values.len(), slots.len() * size, "values of {name:?} have {size} bytes each");
        for (slot, value) in slots.iter().zip(values.chunks(size)) {
            self.put_value(name, *slot, value);
        }
    }

    pub fn value_store_all_fixed(&mut self, name: &str, values: &[u8]) {
        let slots: Vec<u32> = self.slots().collect();
        self.value_store_fixed(name, &slots, values);
    }

    /// Live entries of a map, in order.
    pub fn map(&self, name: &str, key: &[u8]) -> Vec<(&[u8], &[u8])> {
        let map = self.durable.maps.get(&(name.to_owned(), key.to_vec()));
        let entries = map.into_iter().flatten().filter(|(_, stored)| self.live(name, stored));
        entries.map(|(key, stored)| (&key[..], &stored.content[..])).collect()
    }

    pub fn map_get(&mut self, name: &str, slot: u32, map_key: &[u8]) -> Option<Vec<u8>> {
        let (_, key) = self.id(name, slot);
        self.map(name, &key).into_iter().find(|(other, _)| *other == map_key).map(|(_, value)| value.to_vec())
    }

    pub fn map_is_empty(&mut self, name: &str, slot: u32) -> bool {
        let (_, key) = self.id(name, slot);
        self.map(name, &key).is_empty()
    }

    pub fn map_scan(&mut self, name: &str, slot: u32, first: Option<&[u8]>, last: Option<&[u8]>, limit: u32) -> Vec<u8> {
        let (_, key) = self.id(name, slot);
        let mut rows = Vec::new();
        let in_range = |key: &[u8]| first.is_none_or(|first| first <= key) && last.is_none_or(|last| key < last);
        for (map_key, value) in self.map(name, &key).into_iter().filter(|(key, _)| in_range(key)).take(limit as usize) {
            Row { key: map_key, value: Some(value), ..Row::default() }.write(&mut rows);
        }
        rows
    }

    pub fn map_remove_range(&mut self, name: &str, slot: u32, first: Option<&[u8]>, last: Option<&[u8]>) {
        let id = self.id(name, slot);
        if let Some(map) = self.durable.maps.get_mut(&id) {
            map.retain(|key, _| first.is_some_and(|first| &key[..] < first) || last.is_some_and(|last| last <= &key[..]));
        }
    }

    pub fn map_clear(&mut self, name: &str, slot: u32) {
        self.map_remove_range(name, slot, None, None);
    }

    pub fn map_store_many(&mut self, name: &str, slots: &[u32], map_keys: &BytesColumn, values: &BytesColumn) {
        for ((slot, key), value) in slots.iter().zip(map_keys.strings(slots.len())).zip(values.strings(slots.len())) {
            let (id, written) = (self.id(name, *slot), self.now(name));
            let map = self.durable.maps.entry(id).or_default();
            if value.is_empty() {
                map.remove(key);
            } else {
                map.insert(key.to_vec(), Stored { content: value.to_vec(), written });
            }
        }
    }

    pub fn list(&self, name: &str, key: &[u8]) -> &[Vec<u8>] {
        let stored = self.durable.lists.get(&(name.to_owned(), key.to_vec()));
        stored.filter(|stored| self.live(name, stored)).map_or(&[], |stored| &stored.content)
    }

    pub fn list_get(&mut self, name: &str, slot: u32, first: u32, limit: u32) -> BytesColumn {
        let (_, key) = self.id(name, slot);
        let page = self.list(name, &key).iter().skip(first as usize).take(limit as usize);
        BytesColumn::from_strings(page.map(Vec::as_slice))
    }

    pub fn list_length(&mut self, name: &str, slot: u32) -> u32 {
        let (_, key) = self.id(name, slot);
        self.list(name, &key).len() as u32
    }

    pub fn list_replace(&mut self, name: &str, slot: u32, values: &BytesColumn) {
        let count = values.offsets.len() - 1;
        self.list_clear(name, slot);
        self.list_add_many(name, &vec![slot; count], values);
    }

    pub fn list_clear(&mut self, name: &str, slot: u32) {
        let id = self.id(name, slot);
        self.durable.lists.remove(&id);
    }

    pub fn list_add_many(&mut self, name: &str, slots: &[u32], values: &BytesColumn) {
        for (slot, value) in slots.iter().zip(values.strings(slots.len())) {
            if value.is_empty() {
                continue;
            }
            let (id, written) = (self.id(name, *slot), self.now(name));
            let mut content = self.list(name, &id.1).to_vec();
            content.push(value.to_vec());
            self.durable.lists.insert(id, Stored { content, written });
        }
    }

    pub fn number(&self, name: &str, key: &[u8]) -> Option<i64> {
        let stored = self.durable.numbers.get(&(name.to_owned(), key.to_vec()))?;
        self.live(name, stored).then_some(stored.content)
    }

    pub fn reducing_get(&mut self, name: &str, slot: u32) -> Option<i64> {
        let (_, key) = self.id(name, slot);
        self.number(name, &key)
    }

    pub fn reducing_clear(&mut self, name: &str, slot: u32) {
        let id = self.id(name, slot);
        self.durable.numbers.remove(&id);
    }

    pub fn reducing_add_many(&mut self, name: &str, slots: &[u32], values: &[i64]) {
        let StateKind::Reducing(reducer) = self.declaration(name).kind else { unreachable!("checked when it was opened") };
        assert_eq!(slots.len(), values.len(), "as many values as slots");
        for (slot, value) in slots.iter().zip(values) {
            let (id, written) = (self.id(name, *slot), self.now(name));
            let content = reduced(reducer, self.number(name, &id.1), *value);
            self.durable.numbers.insert(id, Stored { content, written });
        }
    }

    pub fn reducing_load(&mut self, name: &str) -> Vec<i64> {
        self.keys.iter().map(|key| self.number(name, key).unwrap_or(0)).collect()
    }

    fn timer(&self, slot: u32, domain: TimeDomain, time: Timestamp, tag: u64) -> SetTimer {
        let (_, key) = self.id("timers", slot);
        SetTimer { domain, time, key, tag }
    }

    pub fn set_timers(&mut self, domain: TimeDomain, slots: &[u32], times: &[Timestamp], tags: &[u64]) {
        for ((slot, time), tag) in slots.iter().zip(times).zip(tags) {
            let timer = self.timer(*slot, domain, *time, *tag);
            self.durable.timers.insert(timer);
        }
    }

    pub fn cancel_timers(&mut self, domain: TimeDomain, slots: &[u32], times: &[Timestamp], tags: &[u64]) {
        for ((slot, time), tag) in slots.iter().zip(times).zip(tags) {
            let timer = self.timer(*slot, domain, *time, *tag);
            self.durable.timers.remove(&timer);
        }
    }

    /// Timers that are due, ordered by time.
    pub fn due(&self, domain: TimeDomain) -> Vec<SetTimer> {
        let now = match domain {
            TimeDomain::EventTime => self.watermark.unwrap_or(NO_TIMESTAMP),
            TimeDomain::ProcessingTime => self.processing_time,
        };
        let mut due: Vec<_> =
            self.durable.timers.iter().filter(|timer| timer.domain == domain && timer.time <= now).cloned().collect();
        due.sort_by(|a, b| (a.time, &a.key, a.tag).cmp(&(b.time, &b.key, b.tag)));
        due
    }

    fn output(&mut self, port: u32) -> &mut Vec<Emitted> {
        let known = self.durable.outputs.len();
        self.durable.outputs.get_mut(port as usize).unwrap_or_else(|| panic!("output {port} of {known}"))
    }

    pub fn emit(&mut self, port: u32, count: u32, rows: &[u8]) {
        let emitted: Vec<_> = records(rows).map(|record| Emitted::of(&record)).collect();
        assert_eq!(emitted.len(), count as usize, "rows announced and rows emitted");
        self.output(port).extend(emitted);
    }

    pub fn forward(&mut self, port: u32, indices: &[u32]) {
        let rows = std::mem::take(&mut self.rows);
        let records: Vec<_> = records(&rows).collect();
        for index in indices {
            self.output(port).push(Emitted::of(&records[*index as usize]));
        }
        self.rows = rows;
    }

    pub fn log(&mut self, level: Level, message: &str, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.logs.push(LogLine { level, message: message.to_owned(), fields });
    }

    pub fn measure(&mut self, name: &str, metric: Metric) {
        match (self.durable.metrics.get_mut(name), metric) {
            (Some(Metric::Counter(sum)), Metric::Counter(n)) => *sum += n,
            (Some(Metric::Gauge(value)), Metric::Gauge(new)) => *value = new,
            (Some(Metric::Histogram(all)), Metric::Histogram(new)) => all.extend(new),
            (Some(_), _) => panic!("the metric {name:?} is of another kind"),
            (None, metric) => drop(self.durable.metrics.insert(name.to_owned(), metric)),
        }
    }
}

fn records(rows: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (record, len) = Record::first(rest);
        rest = &rest[len..];
        Some(record)
    })
}

/// The host's own arithmetic, on purpose not the handles'.
fn reduced(reducer: ReducerKind, number: Option<i64>, value: i64) -> i64 {
    let float = |bits: i64| f64::from_bits(bits as u64);
    let bits = |float: f64| float.to_bits() as i64;
    match (reducer, number) {
        (ReducerKind::SumS64, number) => number.unwrap_or(0).wrapping_add(value),
        (ReducerKind::SumF64, number) => bits(float(number.unwrap_or(0)) + float(value)),
        (ReducerKind::Count, number) => number.unwrap_or(0).wrapping_add(1),
        (_, None) => value,
        (ReducerKind::MinS64, Some(number)) => number.min(value),
        (ReducerKind::MaxS64, Some(number)) => number.max(value),
        (_, Some(number)) if float(number).is_nan() => value,
        (ReducerKind::MinF64, Some(number)) => {
            if float(value) < float(number) {
                value
            } else {
                number
            }
        }
        (ReducerKind::MaxF64, Some(number)) => {
            if float(value) > float(number) {
                value
            } else {
                number
            }
        }
    }
}
