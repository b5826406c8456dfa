//! What happened to a job, and what its guests said, kept for those who ask later: two rings, of events and of log lines.
//!
//! ```text
//!   status, drive, operations ─► events ─┐  one sequence of numbers
//!   guests ────────────────────► lines ──┴─► readers, each with a position of its own
//! ```
//!
//! A reader holds a position and nothing else. The rings are the queue of every reader: who is slow falls behind their ends, is told so, and
//! goes on with the oldest that is left.
//!
//! Invariants:
//! * whoever writes never waits for whoever reads; a slow or dead reader costs nothing;
//! * both rings are bounded, the lines by bytes too: a guest that floods its log pushes out lines, never events;
//! * ids grow, and one of another host or of a job deleted since is never taken for one of ours (the epoch in front tells).

use crate::api::{CheckpointStep, EventBody, EventView, JobState, LogLevel, LogLine, LogPage, LogRecord, now_ms};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_core::checkpoint::{CheckpointReport, CheckpointStatus};
use tidegate_core::limits::{JOURNAL_EVENTS_MAX, JOURNAL_LOG_BYTES_MAX, JOURNAL_LOG_LINES_MAX};
use tokio::sync::watch;

/// Of one job, over all its runs in this host.
pub struct Journal {
    /// When it was begun, in microseconds: in front of every id.
    epoch: u64,
    inner: Mutex<Inner>,
    news: watch::Sender<News>,
}

/// What wakes readers up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// Number of the newest entry.
    pub newest: u64,
    /// The job is deleted: nothing follows.
    pub closed: bool,
}

struct Inner {
    newest: u64,
    events: Ring,
    lines: Ring,
    /// Told so far, by node.
    dead_letters: BTreeMap<String, u64>,
}

struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// Number of the last entry that was pushed out.
    dropped: u64,
    entries_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
pub struct Entry {
    number: u64,
    at_ms: u64,
    body: EventBody,
}

/// Which entries a reader wants.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names of event types; `None`: all.
    pub types: Option<Vec<&'static str>>,
    /// Of log lines: this level and those above it.
    pub level: Option<LogLevel>,
    pub operator: Option<String>,
}

/// A piece of the journal.
pub struct Chunk {
    pub entries: Vec<Arc<Entry>>,
    /// Where to go on.
    pub position: u64,
    /// Entries between the position before and the first one here were pushed out.
    pub lagged: bool,
}

impl Default for Journal {
    fn default() -> Self {
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let inner = Inner {
            newest: 0,
            events: Ring::new(JOURNAL_EVENTS_MAX, usize::MAX),
            lines: Ring::new(JOURNAL_LOG_LINES_MAX, JOURNAL_LOG_BYTES_MAX),
            dead_letters: BTreeMap::new(),
        };
        Self {
            epoch: since_1970.as_micros() as u64,
            inner: Mutex::new(inner),
            news: watch::Sender::new(News { newest: 0, closed: false }),
        }
    }
}

impl Journal {
    // ---- writing ---------------------------------------------------------------------------------------------------------------

    pub fn record(&self, body: EventBody) {
        let mut inner = self.inner();
        inner.newest += 1;
        let entry = Arc::new(Entry { number: inner.newest, at_ms: now_ms(), body });
        if matches!(entry.body, EventBody::Log(_)) {
            inner.lines.push(entry)
        } else {
            inner.events.push(entry)
        }
        let newest = inner.newest;
        // Under the lock, so that numbers go out in their order.
        self.news.send_modify(|news| news.newest = newest);
    }

    pub fn state(&self, from: JobState, to: JobState, error: Option<String>) {
        self.record(EventBody::State { from: Some(from), to, error });
    }

    /// A checkpoint has ended.
    pub fn checkpoint(&self, report: &CheckpointReport) {
        let step = match report.status {
            CheckpointStatus::Pending => CheckpointStep::Triggered,
            CheckpointStatus::Completed => CheckpointStep::Completed,
            CheckpointStatus::Aborted => CheckpointStep::Aborted,
        };
        let CheckpointReport { checkpoint, kind, duration_ms, bytes, .. } = *report;
        self.record(EventBody::Checkpoint { checkpoint, kind, step, duration_ms, bytes, reason: report.reason.clone() });
    }

    /// Counters begin anew.
    pub fn run_begins(&self) {
        self.inner().dead_letters.clear();
    }

    /// The node's counter as it stands. Nothing is told where it has not moved.
    pub fn dead_letters(&self, operator: &str, total: u64) {
        let told = self.inner().dead_letters.insert(operator.to_owned(), total).unwrap_or(0);
        if total > told {
            self.record(EventBody::DeadLetters { operator: operator.to_owned(), new: total - told, total });
        }
    }

    pub fn log(&self, record: LogRecord) {
        self.record(EventBody::Log(record));
    }

    /// The job is gone: readers come to an end.
    pub fn close(&self) {
        self.news.send_modify(|news| news.closed = true);
    }

    // ---- reading ---------------------------------------------------------------------------------------------------------------

    pub fn watch(&self) -> watch::Receiver<News> {
        self.news.subscribe()
    }

    /// Behind the newest entry.
    pub fn end(&self) -> u64 {
        self.inner().newest
    }

    pub fn id(&self, number: u64) -> String {
        format!("{:x}-{number}", self.epoch)
    }

    /// The place that an id names: the beginning, for one that is not of this journal. `None`: it is none at all.
    pub fn position(&self, id: &str) -> Option<u64> {
        if id == "0" {
            return Some(0);
        }
        let (epoch, number) = id.split_once('-')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !digits(epoch) || !digits(number) {
            return None;
        }
        let (epoch, number) = (u64::from_str_radix(epoch, 16).ok()?, number.parse::<u64>().ok()?);
        // A number that is yet to come would make its reader deaf until then.
        if epoch == self.epoch && number <= self.end() { Some(number) } else { Some(0) }
    }

    /// Whether an id that [`position`](Self::position) understands comes from another host's life.
    pub fn is_foreign(&self, id: &str) -> bool {
        id != "0" && id != self.id(self.position(id).unwrap_or(0))
    }

    /// The next entries after a position, at most so many.
    pub fn read(&self, after: u64, selection: &Selection, max: usize) -> Chunk {
        let inner = self.inner();
        let mut events = inner.events.after(after).filter(|entry| selection.wants(entry)).peekable();
        let mut lines = inner.lines.after(after).filter(|entry| selection.wants(entry)).peekable();
        let mut entries = Vec::new();
        while entries.len() < max {
            let next = match (events.peek(), lines.peek()) {
                (Some(event), Some(line)) if line.number < event.number => lines.next(),
                (Some(_), _) => events.next(),
                (None, _) => lines.next(),
            };
            match next {
                Some(entry) => entries.push(entry.clone()),
                None => break,
            }
        }
        let position = if entries.len() < max { inner.newest } else { entries.last().map_or(after, |entry| entry.number) };
        let lost = |ring: &Ring| ring.dropped > after;
        let lagged = selection.wants_events() && lost(&inner.events) || selection.wants_lines() && lost(&inner.lines);
        Chunk { entries, position, lagged }
    }

    /// Log lines: the first ones after a position, or the last ones of all.
    pub fn lines(&self, after: Option<u64>, selection: &Selection, max: usize) -> LogPage {
        let selection = Selection { types: Some(vec!["log"]), ..selection.clone() };
        let mut chunk = self.read(after.unwrap_or(0), &selection, if after.is_some() { max } else { usize::MAX });
        let skip = chunk.entries.len().saturating_sub(max);
        chunk.entries.drain(..skip);
        let lines = chunk.entries.iter().filter_map(|entry| match &entry.body {
            EventBody::Log(record) => Some(LogLine { id: self.id(entry.number), at_ms: entry.at_ms, record: record.clone() }),
            _ => None,
        });
        LogPage { lines: lines.collect(), next: self.id(chunk.position), lagged: after.is_some() && chunk.lagged }
    }

    pub fn view(&self, entry: &Entry) -> EventView {
        EventView { id: self.id(entry.number), at_ms: entry.at_ms, event: entry.body.clone() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Selection {
    fn wants_type(&self, name: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&name))
    }

    fn wants_lines(&self) -> bool {
        self.wants_type("log")
    }

    fn wants_events(&self) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|name| *name != "log"))
    }

    fn wants(&self, entry: &Entry) -> bool {
        if !self.wants_type(entry.body.name()) {
            return false;
        }
        match &entry.body {
            EventBody::Log(record) => {
                self.level.is_none_or(|level| record.level >= level)
                    && self.operator.as_ref().is_none_or(|operator| record.operator == *operator)
            }
            _ => true,
        }
    }
}

impl Ring {
    fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, dropped: 0, entries_max, bytes_max }
    }

    fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > self.entries_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.dropped = oldest.number;
        }
    }

    fn after(&self, position: u64) -> impl Iterator<Item = &Arc<Entry>> {
        let first = self.entries.partition_point(|entry| entry.number <= position);
        self.entries.range(first..)
    }
}

impl Entry {
    /// What counts against the bytes of its ring.
    fn bytes(&self) -> usize {
        match &self.body {
            EventBody::Log(record) => record.message.len() + record.operator.len() + record.module.len() + size_of::<Self>(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(operator: &str, level: LogLevel, message: String) -> LogRecord {
        LogRecord { level, operator: operator.into(), module: "m@1".into(), task: 0, message }
    }

    fn restart(n: u32) -> EventBody {
        EventBody::Restart { reason: "trouble".into(), attempt: n, delay_ms: 1 }
    }

    fn names(chunk: &Chunk) -> Vec<&'static str> {
        chunk.entries.iter().map(|entry| entry.body.name()).collect()
    }

    #[test]
    fn a_reader_sees_events_and_lines_in_the_order_they_happened() {
        let journal = Journal::default();
        journal.record(restart(1));
        journal.log(line("a", LogLevel::Info, "one".into()));
        journal.record(restart(2));
        let chunk = journal.read(0, &Selection::default(), 2);
        assert_eq!(names(&chunk), ["restart", "log"]);
        assert!(!chunk.lagged);
        let chunk = journal.read(chunk.position, &Selection::default(), 2);
        assert_eq!(names(&chunk), ["restart"]);
        assert!(journal.read(chunk.position, &Selection::default(), 2).entries.is_empty());
    }

    #[test]
    fn a_flood_of_lines_pushes_out_lines_and_no_event() {
        let journal = Journal::default();
        journal.record(restart(1));
        for _ in 0..3 * JOURNAL_LOG_LINES_MAX {
            journal.log(line("a", LogLevel::Info, "x".into()));
        }
        let events = Selection { types: Some(vec!["restart"]), ..Default::default() };
        let chunk = journal.read(0, &events, 10);
        assert_eq!(names(&chunk), ["restart"]);
        assert!(!chunk.lagged, "whoever wants no lines has missed nothing");
        let all = journal.read(0, &Selection::default(), usize::MAX);
        assert!(all.lagged);
        assert_eq!(all.entries.len(), 1 + JOURNAL_LOG_LINES_MAX);
        assert!(!journal.read(all.position, &Selection::default(), 1).lagged, "told once");
        for _ in 0..5 {
            journal.log(line("a", LogLevel::Info, "x".repeat(JOURNAL_LOG_BYTES_MAX / 2)));
        }
        assert!(journal.inner().lines.bytes <= JOURNAL_LOG_BYTES_MAX);
        assert_eq!(journal.lines(None, &Selection::default(), 10).lines.len(), 1);
    }

    #[test]
    fn events_are_bounded_and_a_slow_reader_goes_on_with_the_oldest_left() {
        let journal = Journal::default();
        for n in 0..JOURNAL_EVENTS_MAX as u32 + 7 {
            journal.record(restart(n));
        }
        let chunk = journal.read(3, &Selection::default(), 1);
        assert!(chunk.lagged);
        assert!(matches!(chunk.entries[0].body, EventBody::Restart { attempt: 7, .. }));
    }

    #[test]
    fn lines_are_chosen_by_level_and_operator_and_read_in_pages() {
        let journal = Journal::default();
        for n in 0..10 {
            journal.log(line("a", LogLevel::Debug, format!("a{n}")));
            journal.log(line("b", LogLevel::Error, format!("b{n}")));
        }
        let messages = |page: &LogPage| page.lines.iter().map(|line| line.record.message.clone()).collect::<Vec<_>>();
        let warnings = Selection { level: Some(LogLevel::Warn), ..Default::default() };
        assert_eq!(messages(&journal.lines(None, &warnings, 2)), ["b8", "b9"], "the last ones");
        let of_a = Selection { operator: Some("a".into()), ..Default::default() };
        let first = journal.lines(Some(0), &of_a, 4);
        assert_eq!(messages(&first), ["a0", "a1", "a2", "a3"]);
        let rest = journal.lines(journal.position(&first.next), &of_a, 100);
        assert_eq!(messages(&rest).first().map(String::as_str), Some("a4"));
        assert_eq!(rest.lines.len(), 6);
        assert!(journal.lines(journal.position(&rest.next), &of_a, 100).lines.is_empty());
    }

    #[test]
    fn an_id_of_another_life_leads_to_the_beginning_and_nonsense_is_none() {
        let journal = Journal::default();
        journal.record(restart(1));
        assert_eq!(journal.position(&journal.id(1)), Some(1));
        assert!(!journal.is_foreign(&journal.id(1)) && !journal.is_foreign("0"));
        assert_eq!(journal.position(&journal.id(2)), Some(0), "yet to come");
        assert_eq!(journal.position("1f-9"), Some(0));
        assert!(journal.is_foreign("1f-9"));
        for nonsense in ["", "-", "1-", "-1", "g-1", "1-x", "+1-1", "1 -1", "99999999999999999999-1"] {
            assert_eq!(journal.position(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn dead_letters_are_told_when_there_are_more() {
        let journal = Journal::default();
        for total in [0, 3, 3, 5] {
            journal.dead_letters("a", total);
        }
        journal.run_begins();
        journal.dead_letters("a", 2);
        let chunk = journal.read(0, &Selection::default(), 10);
        let told = |entry: &Arc<Entry>| match entry.body {
            EventBody::DeadLetters { new, total, .. } => (new, total),
            _ => panic!("{entry:?}"),
        };
        assert_eq!(chunk.entries.iter().map(told).collect::<Vec<_>>(), [(3, 3), (2, 5), (2, 2)]);
    }
}
