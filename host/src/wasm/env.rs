//! What a guest call can reach: the state of its task, the outputs it makes, its log and its metrics.
//!
//! Invariants:
//! * the environment outlives instances: it is put into a store for a call and taken out afterwards, so a trap costs an instance and
//!   nothing else;
//! * outputs and metrics of a call are held here until it has returned ok; state writes are undone by the state's own journal.

use super::bindings::types;
use super::guest_metrics::TaskGuestMetrics;
use super::log_rate::LogRate;
use crate::journal::Journal;
use crate::state::{KeyedState, StateBudget, StateShare};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tidegate_core::limits::{GuestLimits, RowLimits, UNDO_BYTES_MAX};
use tidegate_core::row::{self, Origin, Origins, Row, Rows};

/// What stays the same for the life of an operator's task.
pub struct OperatorMeta {
    pub job: String,
    pub operator: String,
    pub module: String,
    pub digest: String,
    pub task_index: u32,
    pub parallelism: u32,
    pub options: Vec<(String, String)>,
    pub ports: u32,
    pub keyed: bool,
    pub limits: GuestLimits,
    pub row_limits: RowLimits,
    /// Where log lines are kept; `None` where nobody can ask for them.
    pub journal: Option<Arc<Journal>>,
}

/// A guest did what the contract forbids. It ends the call like a trap, and says which limit or rule it was.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

pub fn violation(message: impl Into<String>) -> wasmtime::Error {
    wasmtime::Error::new(Violation(message.into()))
}

/// Which exported function is running. Some imports make sense only in some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Describe,
    Start,
    Batch,
    Timers,
}

pub struct OperatorEnv {
    pub meta: Arc<OperatorMeta>,
    /// `None` where the operator is not keyed.
    pub state: Option<KeyedState>,
    pub outputs: CallOutputs,
    pub metrics: TaskGuestMetrics,
    pub phase: Phase,
    /// Rows of the current batch, for `forward`.
    pub batch_rows: u32,
    pub log_lines: u32,
    pub log_lines_dropped: u64,
    pub log_rate: LogRate,
    pub timers_set: u32,
    /// Set when the job is torn down: a call that runs on is ended.
    pub stopped: Arc<AtomicBool>,
    /// What the job's state may take, all tasks together.
    pub budget: StateShare,
}

impl OperatorEnv {
    pub fn new(meta: Arc<OperatorMeta>, state: Option<KeyedState>, metrics: TaskGuestMetrics) -> Self {
        Self {
            meta,
            state,
            outputs: CallOutputs::default(),
            metrics,
            phase: Phase::Start,
            batch_rows: 0,
            log_lines: 0,
            log_lines_dropped: 0,
            log_rate: LogRate::default(),
            timers_set: 0,
            stopped: Arc::default(),
            budget: StateShare::default(),
        }
    }

    /// As a task of a job has it: its calls end with the job, and its state counts with that of the others.
    pub fn of_task(mut self, stopped: Arc<AtomicBool>, budget: Arc<StateBudget>) -> Self {
        self.stopped = stopped;
        self.budget = StateShare::of(budget);
        self
    }

    pub fn begin(&mut self, phase: Phase, batch_rows: u32) {
        self.phase = phase;
        self.batch_rows = batch_rows;
        self.log_lines = 0;
        self.timers_set = 0;
        self.outputs.clear();
        self.metrics.drop_pending();
        if let Some(state) = &self.state {
            self.budget.begin(state.bytes());
        }
    }

    /// What can only be judged when the call is over. `batch`: the rows of the call, which the guest may have forwarded.
    pub fn check(&mut self, batch: &[u8]) -> Result<(), Violation> {
        self.outputs.check_forwarded(&self.meta, batch)?;
        if let Some(state) = &self.state {
            state.check_timers().map_err(|error| Violation(error.to_string()))?;
        }
        self.check_state_bytes()
    }

    /// Whether what the call has written so far still has room.
    pub fn check_state_bytes(&self) -> Result<(), Violation> {
        let Some(state) = &self.state else { return Ok(()) };
        if state.undo_bytes() > UNDO_BYTES_MAX {
            let message = format!("a call wrote map entries that take {} bytes to undo", state.undo_bytes());
            return Err(Violation(format!("{message}, which exceeds the limit of {UNDO_BYTES_MAX} (undo_bytes_max)")));
        }
        self.budget.check(state.bytes()).map_err(|error| Violation(error.to_string()))
    }

    /// The call counts: all of its effects become visible together.
    pub fn commit(&mut self) {
        if let Some(state) = &mut self.state {
            state.commit();
            self.budget.settle(state.bytes());
        }
        self.metrics.apply_pending();
    }

    /// The call never was.
    pub fn rollback(&mut self) {
        if let Some(state) = &mut self.state {
            state.rollback();
        }
        self.metrics.drop_pending();
        self.outputs.clear();
    }
}

/// What one call has emitted so far, in its order.
#[derive(Debug, Default)]
pub struct CallOutputs {
    parts: Vec<Part>,
    bytes: usize,
    rows: u32,
}

#[derive(Debug)]
enum Part {
    Rows { port: u32, count: u32, bytes: Vec<u8> },
    Forward { port: u32, rows: Vec<u32> },
}

impl CallOutputs {
    pub fn clear(&mut self) {
        self.parts.clear();
        self.bytes = 0;
        self.rows = 0;
    }

    fn count(&mut self, meta: &OperatorMeta, port: u32, rows: u32, bytes: usize) -> Result<(), Violation> {
        if port >= meta.ports {
            return Err(Violation(format!("output port {port} does not exist: `describe` declares {} outputs", meta.ports)));
        }
        self.rows = self.rows.saturating_add(rows);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.rows > meta.limits.output_rows_max {
            let limit = meta.limits.output_rows_max;
            return Err(Violation(format!(
                "a call emitted {} rows, which exceeds the limit of {limit} (output_rows_max)",
                self.rows
            )));
        }
        if self.bytes > meta.limits.output_bytes_max {
            let limit = meta.limits.output_bytes_max;
            return Err(Violation(format!(
                "a call emitted {} bytes, which exceeds the limit of {limit} (output_bytes_max)",
                self.bytes
            )));
        }
        Ok(())
    }

    pub fn emit(&mut self, meta: &OperatorMeta, port: u32, count: u32, bytes: Vec<u8>) -> Result<(), Violation> {
        self.count(meta, port, count, bytes.len())?;
        row::check(&bytes, count, &meta.row_limits).map_err(|e| Violation(format!("emit to port {port}: {e}")))?;
        if count > 0 {
            self.parts.push(Part::Rows { port, count, bytes });
        }
        Ok(())
    }

    pub fn emit_record(&mut self, meta: &OperatorMeta, port: u32, record: &types::StreamRecord) -> Result<(), Violation> {
        let headers = encode_headers(&record.headers, meta)?;
        let row = row_of(record, &headers, meta)?;
        self.count(meta, port, 1, row.encoded_len())?;
        if let Some(Part::Rows { port: last, count, bytes }) = self.parts.last_mut()
            && *last == port
        {
            row.write(bytes);
            *count += 1;
            return Ok(());
        }
        let mut bytes = Vec::new();
        row.write(&mut bytes);
        self.parts.push(Part::Rows { port, count: 1, bytes });
        Ok(())
    }

    pub fn forward(&mut self, meta: &OperatorMeta, port: u32, rows: Vec<u32>, batch_rows: u32) -> Result<(), Violation> {
        self.count(meta, port, u32::try_from(rows.len()).unwrap_or(u32::MAX), 0)?;
        if let Some(bad) = rows.iter().find(|row| **row >= batch_rows) {
            return Err(Violation(format!("forward of row {bad}: the batch has {batch_rows} rows")));
        }
        if !rows.is_empty() {
            self.parts.push(Part::Forward { port, rows });
        }
        Ok(())
    }

    pub fn forwards(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Forward { .. }))
    }

    /// A row can be forwarded any number of times, and only here is known how long each is.
    fn check_forwarded(&mut self, meta: &OperatorMeta, batch: &[u8]) -> Result<(), Violation> {
        let limit = meta.limits.output_bytes_max;
        let forwarded = self.parts.iter().filter_map(|part| match part {
            Part::Forward { rows, .. } => Some(rows),
            Part::Rows { .. } => None,
        });
        // Nearly always: no part can be longer than the batch, since it names no row twice.
        let most: usize = forwarded
            .clone()
            .map(|rows| if rows.is_sorted_by(|a, b| a < b) { batch.len() } else { usize::MAX })
            .fold(0, usize::saturating_add);
        if self.bytes.saturating_add(most) <= limit {
            return Ok(());
        }
        let lengths: Vec<usize> = row::raw(batch).map(|(_, bytes)| bytes.len()).collect();
        let bytes = forwarded.flatten().fold(self.bytes, |sum, row| sum.saturating_add(lengths[*row as usize]));
        if bytes > limit {
            return Err(Violation(format!(
                "a call emitted {bytes} bytes, which exceeds the limit of {limit} (output_bytes_max)"
            )));
        }
        Ok(())
    }

    /// Hands over what was emitted, gathered by port. `input` is the batch of the call, which forwarded rows are copied from.
    ///
    /// Rows that the guest made have no origin of their own: they carry that of the first row of the batch, marked as derived.
    pub fn take(&mut self, input: &Rows, mut deliver: impl FnMut(u32, Rows)) {
        if self.parts.is_empty() {
            return;
        }
        let derived = if input.count == 0 { Origin::UNKNOWN } else { input.origins.get(0).derived() };
        let same_port = |a: &Part, b: &Part| a.port() == b.port();
        // Nearly always one part for each port: the guest's buffer goes on as it is.
        if !self.parts.windows(2).any(|pair| same_port(&pair[0], &pair[1])) && distinct_ports(&self.parts) {
            for part in self.parts.drain(..) {
                match part {
                    Part::Rows { port, count, bytes } => deliver(port, Rows { bytes, count, origins: Origins::Same(derived) }),
                    Part::Forward { port, rows } => {
                        let mut gathered = Gathered::default();
                        gathered.forward(input, &rows);
                        deliver(port, gathered.finish());
                    }
                }
            }
            return;
        }
        let ports = self.parts.iter().map(Part::port).max().unwrap_or(0);
        for port in 0..=ports {
            let mut gathered = Gathered::default();
            for part in self.parts.iter().filter(|part| part.port() == port) {
                match part {
                    Part::Rows { count, bytes, .. } => gathered.rows(*count, bytes, derived),
                    Part::Forward { rows, .. } => gathered.forward(input, rows),
                }
            }
            if gathered.count > 0 {
                deliver(port, gathered.finish());
            }
        }
        self.parts.clear();
    }
}

impl Part {
    fn port(&self) -> u32 {
        match self {
            Self::Rows { port, .. } | Self::Forward { port, .. } => *port,
        }
    }
}

fn distinct_ports(parts: &[Part]) -> bool {
    parts.iter().enumerate().all(|(i, part)| parts[..i].iter().all(|earlier| earlier.port() != part.port()))
}

/// Output of one port that is put together from several parts.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    count: u32,
    origins: Vec<Origin>,
    starts: Vec<u32>,
}

impl Gathered {
    fn rows(&mut self, count: u32, bytes: &[u8], origin: Origin) {
        self.bytes.extend_from_slice(bytes);
        self.count += count;
        self.origins.resize(self.origins.len() + count as usize, origin);
    }

    fn forward(&mut self, input: &Rows, rows: &[u32]) {
        // All rows in their order, as filters with nothing to drop send them: one copy.
        if rows.len() == input.count as usize && rows.iter().enumerate().all(|(i, row)| *row as usize == i) {
            self.bytes.extend_from_slice(&input.bytes);
            self.count += input.count;
            self.origins.extend((0..rows.len()).map(|row| input.origins.get(row)));
            return;
        }
        if self.starts.is_empty() {
            let mut at = 0;
            for (_, bytes) in row::raw(&input.bytes) {
                self.starts.push(at);
                at += bytes.len() as u32;
            }
            self.starts.push(at);
        }
        for row in rows {
            let row = *row as usize;
            self.bytes.extend_from_slice(&input.bytes[self.starts[row] as usize..self.starts[row + 1] as usize]);
            self.origins.push(input.origins.get(row));
        }
        self.count += rows.len() as u32;
    }

    fn finish(self) -> Rows {
        Rows { bytes: self.bytes, count: self.count, origins: Origins::Each(self.origins) }
    }
}

fn encode_headers(headers: &[types::Header], meta: &OperatorMeta) -> Result<Vec<u8>, Violation> {
    let RowLimits { headers_max, header_name_bytes_max, headers_bytes_max, .. } = meta.row_limits;
    if headers.len() > headers_max {
        return Err(Violation(format!(
            "{} headers of one record exceed the limit of {headers_max} (headers_max)",
            headers.len()
        )));
    }
    let mut encoded = Vec::new();
    for header in headers {
        let bytes = header.name.len();
        if bytes > header_name_bytes_max || !row::write_header(&mut encoded, &header.name, &header.value) {
            return Err(Violation(format!(
                "a header name of {bytes} bytes exceeds the limit of {header_name_bytes_max} (header_name_bytes_max)"
            )));
        }
        if encoded.len() > headers_bytes_max {
            return Err(Violation(format!(
                "headers of {} bytes exceed the limit of {headers_bytes_max} (headers_bytes_max)",
                encoded.len()
            )));
        }
    }
    Ok(encoded)
}

fn row_of<'a>(record: &'a types::StreamRecord, headers: &'a [u8], meta: &OperatorMeta) -> Result<Row<'a>, Violation> {
    let over = |what, bytes, limit, name| Violation(format!("a {what} of {bytes} bytes exceeds the limit of {limit} ({name})"));
    let limits = &meta.row_limits;
    if record.key.len() > limits.key_bytes_max {
        return Err(over("key", record.key.len(), limits.key_bytes_max, "key_bytes_max"));
    }
    let value = record.value.as_deref();
    let value_len = value.map_or(0, <[u8]>::len);
    if value_len > limits.value_bytes_max {
        return Err(over("value", value_len, limits.value_bytes_max, "value_bytes_max"));
    }
    Ok(Row { key: &record.key, value, timestamp: record.timestamp, change: change_from_wit(record.change), headers })
}

fn change_from_wit(change: types::ChangeKind) -> row::ChangeKind {
    match change {
        types::ChangeKind::Insert => row::ChangeKind::Insert,
        types::ChangeKind::UpdateBefore => row::ChangeKind::UpdateBefore,
        types::ChangeKind::UpdateAfter => row::ChangeKind::UpdateAfter,
        types::ChangeKind::Retract => row::ChangeKind::Retract,
    }
}

/// A row as the one-at-a-time world sees it.
pub fn record_of(row: &Row<'_>) -> types::StreamRecord {
    types::StreamRecord {
        key: row.key.to_vec(),
        value: row.value.map(<[u8]>::to_vec),
        timestamp: row.timestamp,
        change: match row.change {
            row::ChangeKind::Insert => types::ChangeKind::Insert,
            row::ChangeKind::UpdateBefore => types::ChangeKind::UpdateBefore,
            row::ChangeKind::UpdateAfter => types::ChangeKind::UpdateAfter,
            row::ChangeKind::Retract => types::ChangeKind::Retract,
        },
        headers: row::headers(row.headers)
            .map(|(name, value)| types::Header { name: name.to_owned(), value: value.to_vec() })
            .collect(),
    }
}
