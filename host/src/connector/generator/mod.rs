//! The source of the benches: events by number, as fast as a core can make them, or paced.
//!
//! Split s of N makes the events `i = local * N + s` for local = 0, 1, 2, …: event time moves on together in all splits. N is chosen
//! at the first start (option `splits`, else the source's parallelism) and kept in the splits' names (`s/N`), so positions stay
//! exact under another parallelism. Split s belongs to task s % parallelism.
//!
//! Invariants:
//! * a split's record n is the same bytes whatever happened before it (the form `latency`, which carries the wall clock, excepted);
//! * a batch comes from one split; a reader with several splits goes on with the one that is furthest behind.

mod event;
mod pace;

pub use event::{Event, EventClock, RECORD_BYTES_MAX, Recipe, Scratch, TIME_BASE_MS, mix};

use super::options::OptionReader;
use super::{BatchLimits, ConnectorContext, ConnectorError, Source, SourceBatch, SourceReader, SourceStatus};
use pace::Pace;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tidegate_core::checkpoint::{CheckpointId, SplitSnapshot};
use tidegate_core::job_graph::spec::SourceSpec;
use tidegate_core::limits::PARALLELISM_MAX;
use tidegate_core::problem::Problem;

/// A table of this many counters is the most that a bench on a big machine holds.
const KEYS_MAX: u64 = 1 << 40;
const EVENTS_PER_MS_MAX: u64 = 1 << 30;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Binary,
    /// Value: the event's number.
    Pair,
    /// Value: the wall clock in ns when the batch was made.
    Latency,
}

#[derive(Debug, Clone)]
pub struct GeneratorOptions {
    keys: u64,
    events_per_ms: u64,
    seed: u64,
    prefill: bool,
    form: Form,
    with_key: bool,
    records: Option<u64>,
    rate: Option<f64>,
    splits: Option<u32>,
}

impl GeneratorOptions {
    pub fn parse(spec: &SourceSpec) -> Result<Self, Vec<Problem>> {
        let mut reader = OptionReader::new("source", &spec.name, &spec.options);
        let keys = reader.integer("keys", 1..=KEYS_MAX).unwrap_or(1000);
        let events_per_ms = reader.integer("events_per_ms", 1..=EVENTS_PER_MS_MAX).unwrap_or(1000);
        let seed = reader.integer("seed", 0..=u64::MAX).unwrap_or(0);
        let prefill = reader.flag("prefill", false);
        let format = reader.choice("format", &[("rows", Form::Binary), ("json", Form::Json)]);
        let form = reader.choice("form", &[("bid", None), ("pair", Some(Form::Pair)), ("latency", Some(Form::Latency))]);
        let with_key = reader.choice("key", &[("bidder", true), ("none", false)]).unwrap_or(true);
        let records = reader.integer("records", 0..=1 << 48);
        let rate = reader.positive("rate");
        let splits = reader.integer("splits", 1..=u64::from(PARALLELISM_MAX)).map(|splits| splits as u32);
        let form = match form.flatten() {
            Some(form) => {
                if reader.has("format") {
                    reader.refuse("format", "applies to the form `bid` only");
                }
                form
            }
            None => format.unwrap_or(Form::Json),
        };
        let problems = reader.finish();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { keys, events_per_ms, seed, prefill, form, with_key, records, rate, splits })
    }
}

pub struct Generator {
    node: String,
    options: GeneratorOptions,
    /// N of a fresh start.
    splits: u32,
}

impl Generator {
    pub fn build(spec: &SourceSpec, context: &ConnectorContext) -> Result<Self, Vec<Problem>> {
        let options = GeneratorOptions::parse(spec)?;
        let splits = options.splits.unwrap_or(spec.parallelism.max(1));
        Ok(Self { node: context.node.clone(), options, splits })
    }

    fn refuse(&self, cause: impl ToString, remedy: &str) -> ConnectorError {
        ConnectorError::fatal(format!("restoring the generator {}", self.node), cause, remedy)
    }

    /// The position of each split, by its number, and N.
    fn positions(&self, restored: &[SplitSnapshot]) -> Result<Vec<u64>, ConnectorError> {
        if restored.is_empty() {
            return Ok(vec![0; self.splits as usize]);
        }
        let remedy = "the checkpoint was not made by this source; start fresh or from another savepoint";
        let mut positions: Vec<Option<u64>> = vec![None; restored.len()];
        for snapshot in restored {
            let bad =
                || self.refuse(format!("split {} at {} is not one of a generator", snapshot.split, snapshot.position), remedy);
            let (number, of) = snapshot.split.split_once('/').ok_or_else(bad)?;
            let (number, of): (usize, usize) = (number.parse().map_err(|_| bad())?, of.parse().map_err(|_| bad())?);
            let local = snapshot.position.get("local").and_then(serde_json::Value::as_u64).ok_or_else(bad)?;
            if of != restored.len() || number >= of || positions[number].replace(local).is_some() {
                return Err(self.refuse(format!("split {} does not fit {} splits", snapshot.split, restored.len()), remedy));
            }
        }
        if let Some(asked) = self.options.splits
            && asked as usize != restored.len()
        {
            let cause = format!("option `splits` is {asked}, the checkpoint has {}", restored.len());
            return Err(self.refuse(cause, "the number of splits is chosen at the first start; take the option out"));
        }
        Ok(positions.into_iter().map(|local| local.expect("BUG: as many distinct numbers as splits")).collect())
    }
}

impl Source for Generator {
    fn open(&self, task: u32, parallelism: u32, restored: &[SplitSnapshot]) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let positions = self.positions(restored)?;
        let of = positions.len() as u64;
        let splits: Vec<Split> = positions
            .into_iter()
            .enumerate()
            .filter(|(number, _)| *number as u32 % parallelism == task)
            .map(|(number, local)| Split::new(number as u64, of, local, &self.options))
            .collect();
        let share = splits.len() as f64 / of as f64;
        Ok(Box::new(Reader {
            recipe: Recipe::new(self.options.keys, self.options.seed, self.options.prefill),
            form: self.options.form,
            with_key: self.options.with_key,
            unpaced: if self.options.prefill { self.options.keys } else { 0 },
            pace: self.options.rate.map(|rate| Pace::new(rate * share)),
            splits,
            scratch: Scratch::default(),
        }))
    }

    fn is_replayable(&self) -> bool {
        true
    }
}

struct Split {
    name: Arc<str>,
    number: u64,
    /// N
    of: u64,
    local: u64,
    /// Records of this split when the source is bounded.
    end: u64,
    clock: EventClock,
    max_timestamp: Option<i64>,
    end_told: bool,
}

impl Split {
    fn new(number: u64, of: u64, local: u64, options: &GeneratorOptions) -> Self {
        let end = options.records.map_or(u64::MAX, |records| records.saturating_sub(number).div_ceil(of));
        let time_of = |local: u64| EventClock::new(local * of + number, of, options.events_per_ms);
        Self {
            name: format!("{number}/{of}").into(),
            number,
            of,
            local,
            end,
            clock: time_of(local),
            max_timestamp: local.checked_sub(1).map(|last| time_of(last).now_ms),
            end_told: false,
        }
    }
}

struct Reader {
    recipe: Recipe,
    form: Form,
    with_key: bool,
    /// Events below this number are made at full speed.
    unpaced: u64,
    pace: Option<Pace>,
    splits: Vec<Split>,
    scratch: Scratch,
}

impl Reader {
    /// The split to go on with: the one that is furthest behind and has something left, or an end to tell.
    fn next_split(&self) -> Option<usize> {
        let open = self.splits.iter().enumerate().filter(|(_, split)| !split.end_told);
        open.min_by_key(|(_, split)| split.local).map(|(index, _)| index)
    }
}

impl SourceReader for Reader {
    fn poll(&mut self, batch: &mut SourceBatch, limits: BatchLimits) -> Result<SourceStatus, ConnectorError> {
        let Some(index) = self.next_split() else { return Ok(SourceStatus::End) };
        let split = &mut self.splits[index];
        let first = split.local;
        let mut rows = u64::from(limits.rows_max).min(split.end - first);
        let mut wait = None;
        if let Some(pace) = &mut self.pace
            && first * split.of + split.number >= self.unpaced
        {
            let now = Instant::now();
            rows = rows.min(pace.allowed(now));
            if rows == 0 && first < split.end {
                return Ok(SourceStatus::Wait(pace.wait(now)));
            }
        } else if self.pace.is_some() {
            // The unpaced part ends where pacing begins, so that no batch has both.
            rows = rows.min((self.unpaced - (first * split.of + split.number)).div_ceil(split.of));
        }
        let out = &mut batch.rows.bytes;
        let stamp_ns = match self.form {
            Form::Latency => wall_clock_ns(),
            _ => 0,
        };
        let bytes_max = limits.bytes_max.saturating_sub(RECORD_BYTES_MAX);
        out.reserve(limits.bytes_max.min(rows as usize * RECORD_BYTES_MAX) + RECORD_BYTES_MAX);
        let mut made = 0;
        let mut i = first * split.of + split.number;
        while made < rows && (out.len() <= bytes_max || made == 0) {
            let time_ms = split.clock.now_ms;
            match self.form {
                Form::Json => {
                    let event = self.recipe.event(i);
                    self.scratch.json(&event, self.with_key.then_some(event.bidder), time_ms, out)
                }
                Form::Binary => {
                    let event = self.recipe.event(i);
                    self.scratch.binary(&event, self.with_key.then_some(event.bidder), time_ms, out)
                }
                Form::Pair => self.scratch.word(i, self.with_key.then(|| self.recipe.bidder(i)), time_ms, out),
                Form::Latency => self.scratch.word(stamp_ns, self.with_key.then(|| self.recipe.bidder(i)), time_ms, out),
            }
            split.max_timestamp = Some(time_ms);
            split.clock.advance();
            i += split.of;
            made += 1;
        }
        if let Some(pace) = &mut self.pace
            && first * split.of + split.number >= self.unpaced
        {
            pace.made(made);
            let now = Instant::now();
            wait = (pace.allowed(now) == 0).then(|| pace.wait(now));
        }
        split.local += made;
        split.end_told = split.local >= split.end;
        batch.rows.count = made as u32;
        batch.split = Some(Arc::clone(&split.name));
        batch.first_record = first;
        batch.max_timestamp = if made > 0 { split.max_timestamp } else { None };
        batch.split_ended = split.end_told;
        Ok(wait.map_or(SourceStatus::More, SourceStatus::Wait))
    }

    fn snapshot(&mut self) -> Vec<SplitSnapshot> {
        let of = |split: &Split| SplitSnapshot {
            split: split.name.to_string(),
            position: serde_json::json!({ "local": split.local }),
            record: split.local,
            max_timestamp: split.max_timestamp,
        };
        self.splits.iter().map(of).collect()
    }

    /// Nobody outside is told.
    fn checkpoint_committed(&mut self, _checkpoint: CheckpointId) {}
}

fn wall_clock_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos() as u64
}

#[cfg(test)]
mod tests;
