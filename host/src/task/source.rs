//! The head of a source chain: asks the reader for batches, gives records their origin, makes the watermark, and takes records
//! that could not be decoded out of the stream.
//!
//! Invariants:
//! * a snapshot is taken between two batches, so its positions are those after the last record that went down the chain;
//! * a watermark goes out after the rows that it speaks of;
//! * at most once, a batch goes down the chain when a position behind it is durable, and a barrier finds nothing waiting
//!   (`tidegate_core::reservation`);
//! * watermarks are counted in batches, not in wall time, so that the same input gives the same stream again.

use super::TaskError;
use super::chain::Chain;
use super::errors::NodeErrors;
use super::operator::Culprit;
use crate::connector::dead_letter::DeadLetterKind;
use crate::connector::{BadRecord, BatchLimits, SourceBatch, SourceReader, SourceStatus};
use crate::job::reserved::Reserver;
use crate::job::splits::SplitNames;
use crate::metrics::TaskMetrics;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::checkpoint::{CheckpointId, SourceSnapshot};
use tidegate_core::job_graph::spec::{BatchSpec, OnError, WatermarkSpec};
use tidegate_core::limits::{RESERVED_BYTES_MAX, RESERVED_RECORDS_MAX};
use tidegate_core::row::{END_OF_TIME, NO_TIMESTAMP, Origin, Origins, Row, Timestamp};
use tidegate_core::watermark::WatermarkGenerator;

/// How often a source without input looks at its clock for idle splits.
const IDLE_TICK: Duration = Duration::from_millis(100);

/// Batches that were read ahead.
struct Ahead {
    reserver: Reserver,
    /// Reserved, not handed on yet.
    batches: VecDeque<SourceBatch>,
    /// What the reader said after the last of them.
    then: SourceStatus,
}

pub struct SourceDriver {
    name: String,
    reader: Box<dyn SourceReader>,
    on_error: OnError,
    errors: Arc<NodeErrors>,
    limits: BatchLimits,
    names: Arc<SplitNames>,
    /// By name: the job-wide handle, and the number within the watermark generator.
    splits: HashMap<String, (u16, usize)>,
    generator: WatermarkGenerator,
    makes_watermarks: bool,
    batch: SourceBatch,
    /// At most once.
    ahead: Option<Ahead>,
    batches_since_watermark: usize,
    told: Timestamp,
    told_idle: bool,
    ended: bool,
    started: Instant,
    metrics: Arc<TaskMetrics>,
}

impl SourceDriver {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        name: String,
        mut reader: Box<dyn SourceReader>,
        watermark: Option<&WatermarkSpec>,
        on_error: OnError,
        errors: Arc<NodeErrors>,
        batch: BatchSpec,
        names: Arc<SplitNames>,
        metrics: Arc<TaskMetrics>,
    ) -> Self {
        let (out_of_orderness, idle_after) = watermark.map_or((0, None), |w| (w.out_of_orderness_ms, w.idle_after_ms));
        let mut generator = WatermarkGenerator::new(out_of_orderness, idle_after);
        let mut splits = HashMap::new();
        // Splits that have not been read yet hold the watermark back: their records may be the oldest.
        for split in reader.snapshot() {
            let handle = names.handle(&name, &split.split);
            splits.insert(split.split, (handle, generator.add_split(split.max_timestamp, 0)));
        }
        Self {
            name,
            reader,
            on_error,
            errors,
            limits: BatchLimits { rows_max: batch.rows_max, bytes_max: batch.bytes_max },
            names,
            splits,
            generator,
            makes_watermarks: watermark.is_some(),
            batch: SourceBatch::default(),
            ahead: None,
            batches_since_watermark: 0,
            told: NO_TIMESTAMP,
            told_idle: false,
            ended: false,
            started: Instant::now(),
            metrics,
        }
    }

    /// Nothing is handed on that `reserver` has not written down.
    pub fn at_most_once(self, reserver: Reserver) -> Self {
        Self { ahead: Some(Ahead { reserver, batches: VecDeque::new(), then: SourceStatus::More }), ..self }
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Sends one batch down the chain. Answers how long to wait before the next.
    pub fn advance(&mut self, chain: &mut Chain) -> Result<Duration, TaskError> {
        let status = if self.ahead.is_some() {
            self.take_reserved()?
        } else {
            self.batch.clear();
            self.reader.poll(&mut self.batch, self.limits).map_err(|e| TaskError::connector(&self.name, &e))?
        };
        self.hand_on(chain)?;
        self.batches_since_watermark += 1;
        match status {
            SourceStatus::More => {
                if self.batches_since_watermark >= chain.fan_out() {
                    self.tell_watermark(chain)?;
                }
                Ok(Duration::ZERO)
            }
            SourceStatus::Wait(wait) => {
                self.tell_watermark(chain)?;
                Ok(wait.min(IDLE_TICK))
            }
            SourceStatus::End => {
                self.ended = true;
                self.end_of_time(chain)?;
                chain.flush()?;
                Ok(Duration::MAX)
            }
        }
    }

    /// The next batch that may be handed on.
    fn take_reserved(&mut self) -> Result<SourceStatus, TaskError> {
        let ahead = self.ahead.as_mut().expect("BUG: nothing is reserved in this mode");
        if ahead.batches.is_empty() {
            let (mut records, mut bytes) = (0, 0);
            loop {
                let mut batch = SourceBatch::default();
                let rows_max = self.limits.rows_max.min(RESERVED_RECORDS_MAX - records);
                let limits = BatchLimits { rows_max, ..self.limits };
                ahead.then = self.reader.poll(&mut batch, limits).map_err(|e| TaskError::connector(&self.name, &e))?;
                let given = batch.rows.count + batch.bad.len() as u32;
                records += given;
                bytes += batch.rows.bytes.len() + batch.bad.iter().map(|bad| bad.bytes.len()).sum::<usize>();
                ahead.batches.push_back(batch);
                let is_full = records >= RESERVED_RECORDS_MAX || bytes >= RESERVED_BYTES_MAX;
                // What is there goes on now: more of it may be long in coming.
                if given == 0 || is_full || ahead.then != SourceStatus::More {
                    break;
                }
            }
            if records > 0 {
                let snapshot = SourceSnapshot { source: self.name.clone(), splits: self.reader.snapshot() };
                ahead.reserver.reserve(snapshot)?;
            }
        }
        self.batch = ahead.batches.pop_front().expect("BUG: a read-ahead without a batch");
        Ok(if ahead.batches.is_empty() { ahead.then } else { SourceStatus::More })
    }

    /// Before a barrier: the reader's positions are those of the last record that went down the chain.
    pub fn hand_on_reserved(&mut self, chain: &mut Chain) -> Result<(), TaskError> {
        while let Some(batch) = self.ahead.as_mut().and_then(|ahead| ahead.batches.pop_front()) {
            self.batch = batch;
            self.hand_on(chain)?;
        }
        // The reader is asked again for what it said after them.
        Ok(())
    }

    fn hand_on(&mut self, chain: &mut Chain) -> Result<(), TaskError> {
        let bad = std::mem::take(&mut self.batch.bad);
        self.errors.records(u64::from(self.batch.rows.count) + bad.len() as u64);
        for bad in bad {
            self.take_out(bad, chain)?;
        }
        if let Some(split) = self.batch.split.take() {
            let (handle, number) = self.split(&split);
            let mut rows = std::mem::take(&mut self.batch.rows);
            if !rows.is_empty() {
                self.metrics.records_in.add(u64::from(rows.count));
                self.metrics.bytes_in.add(rows.bytes.len() as u64);
                self.metrics.batches_in.add(1);
                rows.origins = Origins::Run(Origin::new(handle, self.batch.first_record));
                let room = rows.bytes.len();
                chain.from_source(rows)?;
                self.generator.observe(number, self.batch.max_timestamp.unwrap_or(NO_TIMESTAMP), self.now_ms());
                self.batch.rows.bytes.reserve(room);
            }
            if std::mem::take(&mut self.batch.split_ended) {
                self.generator.ended(number);
            }
        }
        Ok(())
    }

    /// Nothing can come any more, or the job drains: everything that waits for time fires.
    pub fn end_of_time(&mut self, chain: &mut Chain) -> Result<(), TaskError> {
        if self.told < END_OF_TIME {
            self.told = END_OF_TIME;
            chain.advance_watermark(END_OF_TIME)?;
        }
        Ok(())
    }

    fn tell_watermark(&mut self, chain: &mut Chain) -> Result<(), TaskError> {
        self.batches_since_watermark = 0;
        if !self.makes_watermarks {
            return Ok(());
        }
        let status = self.generator.tick(self.now_ms());
        if status.watermark > self.told {
            self.told = status.watermark;
            self.told_idle = false;
            self.metrics.watermark.set(status.watermark);
            chain.advance_watermark(status.watermark)?;
        }
        if status.idle != self.told_idle {
            self.told_idle = status.idle;
            if status.idle { chain.idle()? } else { chain.advance_watermark(self.told)? }
        }
        Ok(())
    }

    fn split(&mut self, split: &str) -> (u16, usize) {
        if let Some(known) = self.splits.get(split) {
            return *known;
        }
        let handle = self.names.handle(&self.name, split);
        let number = self.generator.add_split(None, self.now_ms());
        self.splits.insert(split.to_owned(), (handle, number));
        (handle, number)
    }

    fn take_out(&mut self, bad: BadRecord, chain: &mut Chain) -> Result<(), TaskError> {
        self.metrics.rejected.add(1);
        match self.on_error {
            OnError::Skip => self.errors.bad(&bad.reason, 0),
            OnError::Fail => Err(TaskError::Fatal(format!(
                "source {}: record {} of {} can't be read and the policy is on_error = \"fail\": {}",
                self.name, bad.record, bad.split, bad.reason
            ))),
            OnError::DeadLetter => {
                self.metrics.dead_letters.add(1);
                let (handle, _) = self.split(&bad.split);
                let mut row = Vec::new();
                Row::new(&[], &bad.bytes, NO_TIMESTAMP).write(&mut row);
                let reason = bad.reason.clone();
                let culprit = Culprit::unasked(DeadLetterKind::Decode, bad.reason, row, Origin::new(handle, bad.record));
                let bytes = chain.dead_letters().push(&self.name, culprit)?;
                self.errors.bad(&reason, bytes as u64)
            }
        }
    }

    pub fn snapshot(&mut self) -> SourceSnapshot {
        let waiting = self.ahead.as_ref().map_or(0, |ahead| ahead.batches.len());
        assert!(waiting == 0, "BUG: {waiting} batches of source {} were read and not handed on at a snapshot", self.name);
        let mut splits = self.reader.snapshot();
        for split in &mut splits {
            if let Some((_, number)) = self.splits.get(&split.split) {
                split.max_timestamp = self.generator.max_timestamp(*number).or(split.max_timestamp);
            }
        }
        SourceSnapshot { source: self.name.clone(), splits }
    }

    pub fn checkpoint_committed(&mut self, checkpoint: CheckpointId) {
        self.reader.checkpoint_committed(checkpoint);
    }
}
