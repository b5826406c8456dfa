//! The sink that throws everything away and counts it: for benches, and for jobs whose effect is elsewhere.
//!
//! Rows and bytes are counted as they are written, so what a restart repeats is counted again. The digests are those of the
//! benchmark specification; `w2` looks at the last row of each key, so repeats do not change it.
//!
//! Invariants:
//! * counters are found by job and sink for as long as the process lives, or until they are forgotten;
//! * another job of the same name (another job id) starts from zero.

use super::generator::mix;
use super::options::OptionReader;
use super::{ConnectorContext, ConnectorError, PreCommit, Sink, SinkWriter, Visible};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use tidegate_core::checkpoint::{CheckpointId, Committable};
use tidegate_core::job_graph::spec::{Delivery, SinkSpec};
use tidegate_core::problem::Problem;
use tidegate_core::row::{Row, Rows};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What is computed from the rows beside their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestKind {
    None,
    /// The number of rows.
    Count,
    /// Rows and the sum of their prices, for the workload w1 in the binary or the JSON form.
    W1,
    /// Sum over keys of mix(mix(mix(key) + count) + sum), from the last row (bidder, count, sum as u64 LE) of each key.
    W2,
    /// Sum of a hash of each row's key, value and timestamp: the same for the same rows in any order.
    Rows,
}

const DIGESTS: [(&str, DigestKind); 5] = [
    ("none", DigestKind::None),
    ("count", DigestKind::Count),
    ("w1", DigestKind::W1),
    ("w2", DigestKind::W2),
    ("rows", DigestKind::Rows),
];

/// What the tasks of one sink have seen.
#[derive(Debug)]
pub struct Counters {
    job_id: String,
    kind: DigestKind,
    rows: AtomicU64,
    bytes: AtomicU64,
    /// Running sum of the kinds that have one.
    sum: AtomicU64,
    /// One table for each task: a lock that only its task takes while the job runs.
    tables: Mutex<Vec<Arc<Mutex<LastPerKey>>>>,
}

impl Counters {
    fn new(job_id: String, kind: DigestKind) -> Self {
        Self { job_id, kind, rows: 0.into(), bytes: 0.into(), sum: 0.into(), tables: Mutex::default() }
    }

    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Bytes of whole rows, their heads included.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// As the benchmark's JSON line prints it. `None` where no digest was asked for.
    pub fn digest(&self) -> Option<String> {
        match self.kind {
            DigestKind::None => None,
            DigestKind::Count => Some(self.rows().to_string()),
            DigestKind::W1 => Some(format!("{}:{}", self.rows(), self.sum.load(Relaxed))),
            DigestKind::Rows => Some(format!("{:016x}", self.sum.load(Relaxed))),
            DigestKind::W2 => Some(format!("{:016x}", self.last_per_key().digest())),
        }
    }

    /// Distinct keys, for the digest `w2`.
    pub fn keys(&self) -> Option<u64> {
        (self.kind == DigestKind::W2).then(|| self.last_per_key().keys())
    }

    /// The tables of all tasks as one. A key that moved to another task counts where its count is greatest, which is the last.
    fn last_per_key(&self) -> LastPerKey {
        let mut whole = LastPerKey::default();
        for table in locked(&self.tables).iter() {
            for (key, count, sum) in locked(table).entries() {
                if whole.get(key).0 < count {
                    whole.set(key, count, sum);
                }
            }
        }
        whole
    }

    fn table(&self, task: u32) -> Arc<Mutex<LastPerKey>> {
        let mut tables = locked(&self.tables);
        while tables.len() <= task as usize {
            tables.push(Arc::default());
        }
        Arc::clone(&tables[task as usize])
    }
}

/// Counts and sums by key: small keys by index, the others hashed.
#[derive(Debug, Default)]
struct LastPerKey {
    dense: Vec<(u64, u64)>,
    sparse: HashMap<u64, (u64, u64)>,
}

impl LastPerKey {
    /// 16 bytes each.
    const DENSE_MAX: u64 = 1 << 24;

    fn get(&self, key: u64) -> (u64, u64) {
        if key < Self::DENSE_MAX {
            return self.dense.get(key as usize).copied().unwrap_or_default();
        }
        self.sparse.get(&key).copied().unwrap_or_default()
    }

    #[inline]
    fn set(&mut self, key: u64, count: u64, sum: u64) {
        if key >= Self::DENSE_MAX {
            self.sparse.insert(key, (count, sum));
            return;
        }
        if key as usize >= self.dense.len() {
            self.dense.resize((key as usize + 1).next_power_of_two(), (0, 0));
        }
        self.dense[key as usize] = (count, sum);
    }

    fn entries(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        let dense = self.dense.iter().enumerate().map(|(key, (count, sum))| (key as u64, *count, *sum));
        let sparse = self.sparse.iter().map(|(key, (count, sum))| (*key, *count, *sum));
        dense.chain(sparse).filter(|(_, count, _)| *count > 0)
    }

    fn keys(&self) -> u64 {
        self.entries().count() as u64
    }

    fn digest(&self) -> u64 {
        let one = |(key, count, sum): (u64, u64, u64)| mix(mix(mix(key).wrapping_add(count)).wrapping_add(sum));
        self.entries().map(one).fold(0, u64::wrapping_add)
    }
}

type Registry = HashMap<(String, String), Arc<Counters>>;
static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);

/// A panic of another thread does not make a count wrong.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a blackhole of a job of this process has counted.
pub fn counters(job: &str, sink: &str) -> Option<Arc<Counters>> {
    locked(&REGISTRY).get(&(job.to_owned(), sink.to_owned())).cloned()
}

/// Drops the counters of a deleted job.
pub fn forget(job: &str) {
    locked(&REGISTRY).retain(|(name, _), _| name != job);
}

pub fn parse(spec: &SinkSpec) -> Result<DigestKind, Vec<Problem>> {
    let mut reader = OptionReader::new("sink", &spec.name, &spec.options);
    let kind = reader.choice("digest", &DIGESTS).unwrap_or(DigestKind::None);
    let problems = reader.finish();
    if problems.is_empty() { Ok(kind) } else { Err(problems) }
}

pub struct Blackhole {
    node: String,
    counters: Arc<Counters>,
}

impl Blackhole {
    pub fn build(spec: &SinkSpec, context: &ConnectorContext) -> Result<Self, Vec<Problem>> {
        let kind = parse(spec)?;
        let mut registry = locked(&REGISTRY);
        let counters = registry
            .entry((context.job.clone(), context.node.clone()))
            .and_modify(|old| {
                if old.job_id != context.job_id || old.kind != kind {
                    *old = Arc::new(Counters::new(context.job_id.clone(), kind));
                }
            })
            .or_insert_with(|| Arc::new(Counters::new(context.job_id.clone(), kind)));
        Ok(Self { node: context.node.clone(), counters: Arc::clone(counters) })
    }
}

impl Sink for Blackhole {
    fn open(&self, task: u32, _parallelism: u32) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Writer { node: self.node.clone(), counters: Arc::clone(&self.counters), table: self.counters.table(task) }))
    }

    /// Nothing is ever staged, so there is nothing to finish, drop or look for.
    fn commit(&self, _committables: &[Committable]) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn abort(&self, _committables: &[Committable]) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn recover(&self, _decided: &[Committable], _first: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    /// Nothing that anybody could look up, and nothing to take back.
    fn visible(&self, _epochs: Range<CheckpointId>, _named: &[Committable]) -> Result<Visible, ConnectorError> {
        Ok(Visible::default())
    }

    fn retract(&self, _epochs: Range<CheckpointId>) -> Result<Vec<String>, ConnectorError> {
        Ok(Vec::new())
    }

    fn strongest(&self) -> Delivery {
        Delivery::ExactlyOnce
    }
}

struct Writer {
    node: String,
    counters: Arc<Counters>,
    table: Arc<Mutex<LastPerKey>>,
}

impl Writer {
    fn refuse(&self, row: &Row<'_>, wanted: &str) -> ConnectorError {
        let len = row.value.map_or(0, <[u8]>::len);
        let cause = format!("a value of {len} bytes is not {wanted}");
        ConnectorError::fatal(format!("digest of sink {}", self.node), cause, "take the option `digest` out")
    }

    fn sum_of_prices(&self, rows: &Rows) -> Result<u64, ConnectorError> {
        let mut sum = 0u64;
        for row in rows.iter() {
            let value = row.value.unwrap_or_default();
            // Of a binary event these would be bytes of an auction's number, which is below 10,000.
            let price = if value.starts_with(b"{\"a") { json_price(value) } else { word(value, 2) };
            sum = sum.wrapping_add(price.ok_or_else(|| self.refuse(&row, "an event of workload w1"))?);
        }
        Ok(sum)
    }

    fn keep_last(&self, rows: &Rows) -> Result<(), ConnectorError> {
        let mut table = locked(&self.table);
        for row in rows.iter() {
            let value = row.value.unwrap_or_default();
            let (Some(bidder), Some(count), Some(sum)) = (word(value, 0), word(value, 1), word(value, 2)) else {
                return Err(self.refuse(&row, "(bidder, count, sum) as three u64"));
            };
            table.set(bidder, count, sum);
        }
        Ok(())
    }
}

fn word(value: &[u8], index: usize) -> Option<u64> {
    value.get(index * 8..index * 8 + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

/// The number after `"price":`.
fn json_price(value: &[u8]) -> Option<u64> {
    const FIELD: &[u8] = b"\"price\":";
    let at = value.windows(FIELD.len()).position(|window| window == FIELD)? + FIELD.len();
    let digits = value[at..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.map(|byte| u64::from(byte - b'0')).try_fold(0u64, |price, digit| price.checked_mul(10)?.checked_add(digit))
}

impl SinkWriter for Writer {
    fn begin(&mut self, _epoch: CheckpointId) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn write(&mut self, rows: &Rows) -> Result<(), ConnectorError> {
        let sum = match self.counters.kind {
            DigestKind::None | DigestKind::Count => 0,
            DigestKind::W1 => self.sum_of_prices(rows)?,
            DigestKind::W2 => {
                self.keep_last(rows)?;
                0
            }
            DigestKind::Rows => rows.iter().map(|row| hash(&row)).fold(0, u64::wrapping_add),
        };
        if sum != 0 {
            self.counters.sum.fetch_add(sum, Relaxed);
        }
        self.counters.rows.fetch_add(u64::from(rows.count), Relaxed);
        self.counters.bytes.fetch_add(rows.bytes.len() as u64, Relaxed);
        Ok(())
    }

    fn pre_commit(&mut self) -> Result<PreCommit, ConnectorError> {
        Ok(Box::new(|| Ok(Vec::new())))
    }

    fn abort(&mut self) {}
}

fn hash(row: &Row<'_>) -> u64 {
    let key = xxh3_64_with_seed(row.key, row.timestamp as u64);
    match row.value {
        Some(value) => xxh3_64_with_seed(value, key),
        None => mix(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn blackhole(job: &str, job_id: &str, options: Value) -> Blackhole {
        let spec = SinkSpec {
            name: "out".into(),
            connector: "blackhole".into(),
            inputs: Vec::new(),
            parallelism: None,
            options: options.as_object().expect("an object").clone(),
        };
        let context = ConnectorContext {
            job: job.into(),
            job_id: job_id.into(),
            node: "out".into(),
            delivery: Delivery::ExactlyOnce,
            base: ".".into(),
        };
        Blackhole::build(&spec, &context).expect("good options")
    }

    fn rows(values: &[Vec<u8>]) -> Rows {
        let mut rows = Rows::default();
        values.iter().for_each(|value| rows.push(&Row::new(b"k", value, 7)));
        rows
    }

    fn words(words: [u64; 3]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn rows_and_bytes_of_all_tasks_are_counted() {
        let sink = blackhole("counting", "a", json!({"digest": "count"}));
        for task in 0..2 {
            let mut writer = sink.open(task, 2).expect("opens");
            writer.begin(1).expect("begins");
            writer.write(&rows(&[vec![0; 4], vec![0; 6]])).expect("writes");
            assert!(writer.pre_commit().expect("pre-commits")().expect("finishes").is_empty());
        }
        let counters = counters("counting", "out").expect("registered");
        assert_eq!((counters.rows(), counters.bytes()), (4, 2 * (2 * 17 + 10)));
        assert_eq!(counters.digest().as_deref(), Some("4"));
    }

    #[test]
    fn a_restart_keeps_the_counters_and_another_job_of_the_name_does_not() {
        blackhole("again", "a", json!({})).open(0, 1).expect("opens").write(&rows(&[vec![1]])).expect("writes");
        blackhole("again", "a", json!({}));
        assert_eq!(counters("again", "out").expect("registered").rows(), 1);
        blackhole("again", "b", json!({}));
        assert_eq!(counters("again", "out").expect("registered").rows(), 0);
        forget("again");
        assert!(counters("again", "out").is_none());
    }

    #[test]
    fn the_digest_w2_is_that_of_the_last_row_of_each_key_whatever_is_repeated_or_moved() {
        let sink = blackhole("w2", "a", json!({"digest": "w2"}));
        let far = LastPerKey::DENSE_MAX + 5;
        let mut first = sink.open(0, 2).expect("opens");
        first.write(&rows(&[words([3, 1, 10]), words([3, 2, 30]), words([far, 1, 5])])).expect("writes");
        first.write(&rows(&[words([3, 1, 10]), words([3, 2, 30])])).expect("writes");
        let mut second = sink.open(1, 2).expect("opens");
        second.write(&rows(&[words([3, 3, 60]), words([0, 1, 1])])).expect("writes");
        let one = |key: u64, count: u64, sum: u64| mix(mix(mix(key).wrapping_add(count)).wrapping_add(sum));
        let expected = one(3, 3, 60).wrapping_add(one(far, 1, 5)).wrapping_add(one(0, 1, 1));
        let counters = counters("w2", "out").expect("registered");
        assert_eq!(counters.digest(), Some(format!("{expected:016x}")));
        assert_eq!(counters.keys(), Some(3));
        let error = second.write(&rows(&[vec![0; 23]])).expect_err("too short");
        assert!(!error.retry);
    }

    #[test]
    fn the_digest_w1_sums_prices_in_both_forms() {
        let sink = blackhole("w1", "a", json!({"digest": "w1"}));
        let mut writer = sink.open(0, 1).expect("opens");
        writer
            .write(&rows(&[words([1, 2, 40]), br#"{"auction":1,"bidder":2,"price":2,"channel":"x"}"#.to_vec()]))
            .expect("writes");
        assert_eq!(counters("w1", "out").expect("registered").digest().as_deref(), Some("2:42"));
        writer.write(&rows(&[b"{}".to_vec()])).expect_err("no price");
    }

    #[test]
    fn the_digest_of_rows_does_not_depend_on_their_order() {
        let values = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        let mut reversed = values.clone();
        reversed.reverse();
        let mut digests = Vec::new();
        for (job, values) in [("rows1", &values[..]), ("rows2", &reversed[..]), ("rows3", &values[..2])] {
            blackhole(job, "a", json!({"digest": "rows"})).open(0, 1).expect("opens").write(&rows(values)).expect("writes");
            digests.push(counters(job, "out").expect("registered").digest());
        }
        assert_eq!(digests[0], digests[1]);
        assert_ne!(digests[0], digests[2]);
    }
}
