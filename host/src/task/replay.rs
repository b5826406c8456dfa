//! Dead letters that come back: what a task reads from the log of replays, between its batches.
//!
//! Invariants:
//! * a letter is delivered to the operator that gave it up, in the task that owns its key group, and to nobody else;
//! * what was delivered, or passed over, is behind the position in the next snapshot, so a crash neither loses nor doubles a letter;
//! * at most once, a letter is delivered when it is durable that its entry is behind this task;
//! * letters come a few at a time, so that a barrier waits no longer for them than for a batch.

use super::TaskError;
use super::chain::Chain;
use crate::connector::dead_letter::DeadLetter;
use crate::job::replay_log::{OpenEntry, ReplayLog};
use crate::job::reserved::Reserver;
use std::sync::Arc;
use tidegate_core::checkpoint::SourceSnapshot;
use tidegate_core::replay::{Position, Progress, REPLAY_SOURCE};
use tidegate_core::row::{self, ChangeKind, NO_TIMESTAMP, Origin, Origins, Row, Rows};

/// Letters that are read between two batches.
const AT_ONCE: usize = 64;

pub struct ReplayReader {
    log: Arc<ReplayLog>,
    /// Entries that there are.
    known: u64,
    operators: Vec<OfOperator>,
    /// At most once.
    reserver: Option<Reserver>,
}

struct OfOperator {
    node: usize,
    name: String,
    progress: Progress,
    /// All in front of it may have been delivered.
    reserved: Position,
    /// The entry that is being read, open behind the letters that were read.
    open: Option<(Position, OpenEntry)>,
}

impl ReplayReader {
    /// `progress`: of every operator of the chain, in its order.
    pub fn new(log: Arc<ReplayLog>, chain: &Chain, mut progress: impl FnMut(&str) -> Progress) -> Self {
        let operators = chain
            .operators()
            .map(|(node, name)| OfOperator {
                node,
                name: name.to_owned(),
                progress: progress(name),
                reserved: Position::START,
                open: None,
            })
            .collect();
        Self { known: log.len(), log, operators, reserver: None }
    }

    pub fn at_most_once(self, reserver: Reserver) -> Self {
        Self { reserver: Some(reserver), ..self }
    }

    pub fn learn(&mut self, known: u64) {
        self.known = self.known.max(known);
    }

    pub fn has_more(&self) -> bool {
        self.operators.iter().any(|operator| operator.progress.next().entry <= self.known)
    }

    /// Delivers some letters.
    pub fn advance(&mut self, chain: &mut Chain) -> Result<(), TaskError> {
        for i in 0..self.operators.len() {
            for _ in 0..AT_ONCE {
                let operator = &mut self.operators[i];
                let at = operator.progress.next();
                if at.entry > self.known {
                    break;
                }
                if self.reserver.is_some() && operator.reserved < at.next_entry() {
                    operator.reserved = at.next_entry();
                    self.reserve()?;
                }
                self.operators[i].step(at, &self.log, chain)?;
            }
        }
        Ok(())
    }

    /// The entries that are being read, as if they had been.
    fn reserve(&mut self) -> Result<(), TaskError> {
        let reserved = self.operators.iter().flat_map(|operator| {
            let mut progress = operator.progress.clone();
            progress.advance(operator.reserved);
            progress.snapshot()
        });
        let snapshot = SourceSnapshot { source: REPLAY_SOURCE.to_owned(), splits: reserved.collect() };
        self.reserver.as_mut().map_or(Ok(()), |reserver| reserver.reserve(snapshot))
    }

    /// All that there is, before the last barrier of a bounded input.
    pub fn finish(&mut self, chain: &mut Chain) -> Result<(), TaskError> {
        while self.has_more() {
            self.advance(chain)?;
        }
        Ok(())
    }

    pub fn snapshot(&self) -> Option<SourceSnapshot> {
        let splits: Vec<_> = self.operators.iter().flat_map(|operator| operator.progress.snapshot()).collect();
        (!splits.is_empty()).then(|| SourceSnapshot { source: REPLAY_SOURCE.to_owned(), splits })
    }
}

impl OfOperator {
    fn step(&mut self, at: Position, log: &ReplayLog, chain: &mut Chain) -> Result<(), TaskError> {
        let failed = |why: String| TaskError::Fatal(format!("replay {} of dead letters: {why}", at.entry));
        let mut entry = match self.open.take() {
            Some((open_at, entry)) if open_at == at => entry,
            _ => log.read(at, &self.name).map_err(failed)?,
        };
        let Some(line) = entry.next().map_err(failed)? else {
            self.progress.advance(at.next_entry());
            return Ok(());
        };
        if line.letter.operator == self.name && self.progress.wants(line.group, at) && !line.is_void {
            let rows = rows_of(&line.letter, chain);
            chain.replay(self.node, &line.letter, rows)?;
        }
        self.progress.advance(at.next_letter());
        self.open = Some((at.next_letter(), entry));
        Ok(())
    }
}

/// The row as it was, with the place that it came from.
fn rows_of(letter: &DeadLetter, chain: &Chain) -> Rows {
    let mut headers = Vec::new();
    for (name, value) in &letter.headers {
        row::write_header(&mut headers, name, value);
    }
    let origin = match (&letter.source, &letter.split, letter.record) {
        (Some(source), Some(split), Some(record)) => {
            let origin = Origin::new(chain.splits().handle(source, split), record);
            if letter.exact { origin } else { origin.derived() }
        }
        _ => Origin::UNKNOWN,
    };
    let mut rows = Rows { origins: Origins::Same(origin), ..Rows::default() };
    rows.push(&Row {
        key: &letter.key,
        value: letter.value.as_deref(),
        timestamp: letter.timestamp.unwrap_or(NO_TIMESTAMP),
        change: ChangeKind::from_name(&letter.change).unwrap_or_default(),
        headers: &headers,
    });
    rows
}
