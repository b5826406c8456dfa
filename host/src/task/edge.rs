//! The sending end of an edge: which task of the next vertex a row goes to, and when a batch is shipped.
//!
//! Invariants:
//! * rows of one key go to the task that owns the key's group, in their order;
//! * with `overdraft` a full channel takes some more batches, and the task asks [`EdgeWriter::full`] before it begins another;
//! * a batch is shipped when it is full by rows or bytes, when it has waited for the linger time, when the task has nothing else to
//!   do, and always before a watermark or a barrier, which therefore never overtake rows.

use super::Element;
use super::activity::{Activity, Doing};
use super::gate::{Closed, Gate, Sent};
use crate::connector::json_field::{FieldError, Pointer, extract};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::job_graph::spec::BatchSpec;
use tidegate_core::key_group;
use tidegate_core::row::{self, Origin, Origins, Row, Rows};

/// Separates the parts of a key that is made of several fields.
const KEY_PART_SEPARATOR: u8 = 0x1f;

pub struct Target {
    pub gate: Arc<Gate>,
    pub channel: usize,
}

pub enum Partitioning {
    /// Task i to task i.
    Forward {
        task: usize,
    },
    Rebalance,
    Key {
        from: KeyFrom,
        key_groups: u32,
    },
}

pub enum KeyFrom {
    Row,
    Json(Vec<Pointer>),
}

/// A row whose key can't be found. It goes where the operator at the end of the edge sends bad records.
#[derive(Debug)]
pub struct Keyless {
    pub row: Vec<u8>,
    pub origin: Origin,
    pub reason: String,
}

pub struct EdgeWriter {
    /// The operator or sink at the other end.
    pub to_node: String,
    partitioning: Partitioning,
    targets: Vec<Target>,
    buffers: Vec<Buffer>,
    batch: BatchSpec,
    buffered_since: Option<Instant>,
    round_robin: usize,
    key: Vec<u8>,
    /// Time spent waiting for room.
    pub blocked: Duration,
    /// Batches beyond a full channel: the task does not wait in the middle of a batch, because a barrier may want to overtake.
    overdraft: usize,
    /// A channel that is full, by its place among the targets: nothing new is begun until it is not.
    full: Option<usize>,
    activity: Arc<Activity>,
    /// Number of the first target among those of all edges of the task.
    first_target: u32,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    origins: Vec<Origin>,
}

impl EdgeWriter {
    pub fn new(
        to_node: String,
        partitioning: Partitioning,
        targets: Vec<Target>,
        batch: BatchSpec,
        overdraft: usize,
        activity: Arc<Activity>,
        first_target: u32,
    ) -> Self {
        let buffers = targets.iter().map(|_| Buffer::default()).collect();
        Self {
            to_node,
            partitioning,
            targets,
            buffers,
            batch,
            buffered_since: None,
            round_robin: 0,
            key: Vec::new(),
            blocked: Duration::ZERO,
            overdraft,
            full: None,
            activity,
            first_target,
        }
    }

    pub fn write(&mut self, rows: Rows, keyless: &mut Vec<Keyless>) -> Result<(), Closed> {
        match &self.partitioning {
            Partitioning::Forward { task } => {
                let task = *task;
                self.ship(task, rows)
            }
            Partitioning::Rebalance => {
                let target = self.round_robin;
                self.round_robin = (target + 1) % self.targets.len();
                self.ship(target, rows)
            }
            // One task owns all keys, and they are in their place: nothing to look at.
            Partitioning::Key { from: KeyFrom::Row, .. } if self.targets.len() == 1 => self.ship(0, rows),
            Partitioning::Key { from: KeyFrom::Row, key_groups } => {
                let groups = *key_groups;
                self.scatter(&rows, groups)
            }
            Partitioning::Key { from: KeyFrom::Json(_), .. } => self.rekey(&rows, keyless),
        }
    }

    fn scatter(&mut self, rows: &Rows, groups: u32) -> Result<(), Closed> {
        let parallelism = self.targets.len() as u32;
        for (i, (row, bytes)) in row::raw(&rows.bytes).enumerate() {
            let group = key_group::group_of(key_group::hash(row.key), groups);
            let target = key_group::task_of(group, groups, parallelism) as usize;
            let buffer = &mut self.buffers[target];
            buffer.bytes.extend_from_slice(bytes);
            buffer.origins.push(rows.origins.get(i));
            if buffer.is_full(&self.batch) {
                self.ship_buffer(target)?;
            }
        }
        self.note_buffered();
        Ok(())
    }

    fn rekey(&mut self, rows: &Rows, keyless: &mut Vec<Keyless>) -> Result<(), Closed> {
        let parallelism = self.targets.len() as u32;
        let mut key = std::mem::take(&mut self.key);
        for (i, (row, bytes)) in row::raw(&rows.bytes).enumerate() {
            let Partitioning::Key { from: KeyFrom::Json(pointers), key_groups } = &self.partitioning else {
                unreachable!("BUG: not a keyed edge")
            };
            key.clear();
            if let Err(error) = read_key(row.value, pointers, &mut key) {
                keyless.push(Keyless { row: bytes.to_vec(), origin: rows.origins.get(i), reason: error.to_string() });
                continue;
            }
            let group = key_group::group_of(key_group::hash(&key), *key_groups);
            let target = key_group::task_of(group, *key_groups, parallelism) as usize;
            let buffer = &mut self.buffers[target];
            Row { key: &key, ..row }.write(&mut buffer.bytes);
            buffer.origins.push(rows.origins.get(i));
            if buffer.is_full(&self.batch) {
                self.ship_buffer(target)?;
            }
        }
        self.key = key;
        self.note_buffered();
        Ok(())
    }

    fn note_buffered(&mut self) {
        if self.buffered_since.is_none() && self.buffers.iter().any(|buffer| !buffer.bytes.is_empty()) {
            self.buffered_since = Some(Instant::now());
        }
    }

    /// Tasks that share this task's rows.
    pub fn fan_out(&self) -> usize {
        match self.partitioning {
            Partitioning::Forward { .. } => 1,
            _ => self.targets.len(),
        }
    }

    /// When the linger time of what is buffered is over.
    pub fn linger_deadline(&self) -> Option<Instant> {
        self.buffered_since.map(|since| since + Duration::from_millis(self.batch.linger_ms))
    }

    pub fn flush(&mut self) -> Result<(), Closed> {
        if self.buffered_since.take().is_none() {
            return Ok(());
        }
        for target in 0..self.buffers.len() {
            if !self.buffers[target].bytes.is_empty() {
                self.ship_buffer(target)?;
            }
        }
        Ok(())
    }

    /// To all tasks of the next vertex that this task sends to, behind everything buffered.
    pub fn broadcast(&mut self, element: impl Fn() -> Element) -> Result<(), Closed> {
        self.flush()?;
        let only = self.forwards_to();
        for (i, target) in self.targets.iter().enumerate() {
            if only.is_none_or(|task| task == i) {
                target.gate.send(target.channel, element())?;
            }
        }
        Ok(())
    }

    fn ship_buffer(&mut self, target: usize) -> Result<(), Closed> {
        let buffer = &mut self.buffers[target];
        // The next batch of this target will be about as large.
        let (room, rows) = (self.batch.bytes_max.min(buffer.bytes.len() * 5 / 4), buffer.origins.len());
        let bytes = std::mem::replace(&mut buffer.bytes, Vec::with_capacity(room));
        let origins = std::mem::replace(&mut buffer.origins, Vec::with_capacity(rows));
        self.ship(target, Rows { bytes, count: origins.len() as u32, origins: Origins::Each(origins) })
    }

    fn ship(&mut self, target: usize, rows: Rows) -> Result<(), Closed> {
        let Target { gate, channel } = &self.targets[target];
        let begun = Instant::now();
        let mut before = None;
        let full = || before = Some(self.activity.begin(Doing::Downstream(self.first_target + target as u32)));
        let Sent { waited, is_full } = gate.send_telling(*channel, Element::Batch(rows), self.overdraft, full)?;
        // Without an overdraft whoever meets a full channel waits there.
        if is_full && self.overdraft > 0 {
            self.full = Some(target);
        }
        if waited {
            self.blocked += begun.elapsed();
        }
        if let Some(before) = before {
            self.activity.back_to(before);
        }
        Ok(())
    }

    /// The channel that has to get room before the task begins with another batch, as `why` numbers them. Its gate pokes when it has.
    pub fn full(&mut self) -> Option<u32> {
        if self.full.is_some() {
            let only = self.forwards_to();
            let targets = self.targets.iter().enumerate().filter(|(i, _)| only.is_none_or(|task| task == *i));
            // Every one is asked, so that each that is full pokes.
            self.full = targets
                .fold(None, |full, (i, target)| if target.gate.has_room(target.channel) { full } else { full.or(Some(i)) });
        }
        self.full.map(|target| self.first_target + target as u32)
    }

    fn forwards_to(&self) -> Option<usize> {
        match self.partitioning {
            Partitioning::Forward { task } => Some(task),
            Partitioning::Rebalance | Partitioning::Key { .. } => None,
        }
    }
}

impl Buffer {
    fn is_full(&self, batch: &BatchSpec) -> bool {
        self.origins.len() >= batch.rows_max as usize || self.bytes.len() >= batch.bytes_max
    }
}

/// The parts of a key, out of a value.
pub fn read_key(value: Option<&[u8]>, pointers: &[Pointer], key: &mut Vec<u8>) -> Result<(), FieldError> {
    for (i, pointer) in pointers.iter().enumerate() {
        if i > 0 {
            key.push(KEY_PART_SEPARATOR);
        }
        extract(value.unwrap_or_default(), pointer, key)?;
    }
    Ok(())
}
