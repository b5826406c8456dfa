//! One declared state: its cells, and the checks that every access to it shares.

use super::cells::{ChunkedCells, Context, Counts};
use super::clock::Clock;
use super::error::{StateError, kind_name};
use super::key_table::Entry;
use super::list_cells::ListCells;
use super::map_cells::MapCells;
use super::payload::{FixedCells, StringCells};
use super::{Column, KeyedState, Slot, StateId};
use tidegate_core::limits::GuestLimits;
use tidegate_core::state_schema::{StateDeclaration, StateKind, TimeToLive};

/// Values of one size up to this lie flat. A chunk of them takes 1 MiB; greater ones would waste too much where keys are few.
const FLAT_BYTES_MAX: u32 = 256;

pub(super) enum Cells {
    Fixed(FixedCells),
    Strings(StringCells),
    Map(MapCells),
    List(ListCells),
}

impl Cells {
    fn join(&mut self, keys: usize, chunks: usize, epoch: u32) {
        match self {
            Self::Fixed(cells) => cells.join(keys, chunks, epoch),
            Self::Strings(cells) => cells.join(keys, chunks, epoch),
            Self::Map(cells) => cells.ensure(chunks),
            Self::List(cells) => cells.join(keys, chunks, epoch),
        }
    }

    pub fn holds(&self, entry: Entry) -> bool {
        match self {
            Self::Fixed(cells) => cells.holds(entry),
            Self::Strings(cells) => cells.holds(entry),
            Self::Map(cells) => cells.holds(entry),
            Self::List(cells) => cells.holds(entry),
        }
    }

    pub fn counts(&self) -> Counts {
        match self {
            Self::Fixed(cells) => cells.counts,
            Self::Strings(cells) => cells.counts,
            Self::Map(cells) => cells.counts,
            Self::List(cells) => cells.counts,
        }
    }

    /// Journals of the other kinds remember what was there once: the bound of the state is theirs.
    pub fn undo_bytes(&self) -> usize {
        match self {
            Self::Map(cells) => cells.undo_bytes(),
            Self::Fixed(_) | Self::Strings(_) | Self::List(_) => 0,
        }
    }

    pub fn commit(&mut self) {
        match self {
            Self::Fixed(cells) => cells.commit(),
            Self::Strings(cells) => cells.commit(),
            Self::Map(cells) => cells.commit(),
            Self::List(cells) => cells.commit(),
        }
    }

    pub fn rollback(&mut self, entries: &[Entry], garbage: &mut Vec<Entry>) {
        match self {
            Self::Fixed(cells) => cells.rollback(entries),
            Self::Strings(cells) => cells.rollback(entries),
            Self::Map(cells) => cells.rollback(entries, garbage),
            Self::List(cells) => cells.rollback(entries),
        }
    }

    pub fn freeze(&mut self) {
        match self {
            Self::Fixed(cells) => cells.freeze(),
            Self::Strings(cells) => cells.freeze(),
            Self::Map(cells) => cells.freeze(),
            Self::List(cells) => cells.freeze(),
        }
    }

    pub fn drain(&mut self, budget: &mut usize, context: &mut Context<'_>) -> bool {
        match self {
            Self::Fixed(cells) => cells.drain(budget, context),
            Self::Strings(cells) => cells.drain(budget, context),
            Self::Map(cells) => cells.drain(budget, context),
            Self::List(cells) => cells.drain(budget, context),
        }
    }
}

pub(super) struct Store {
    pub name: String,
    pub kind: StateKind,
    pub value_size: Option<u32>,
    pub ttl: Option<TimeToLive>,
    pub cells: Cells,
    /// Number of the call that last touched it.
    joined: u64,
}

impl Store {
    pub fn new(number: u16, declared: &StateDeclaration) -> Self {
        let domain = declared.ttl.map(|ttl| ttl.domain);
        // A size of 0 would be a state that holds nothing but empty values, and those are absent.
        let value_size = declared.value_size.filter(|size| *size > 0);
        let cells = match (declared.kind, value_size) {
            (StateKind::Value, Some(size)) if size <= FLAT_BYTES_MAX => {
                Cells::Fixed(FixedCells::new(number, size as usize, domain))
            }
            (StateKind::Value, _) => Cells::Strings(StringCells::new(number, 0, domain)),
            (StateKind::Reducing(_), _) => Cells::Fixed(FixedCells::new(number, 8, domain)),
            (StateKind::Map, _) => Cells::Map(MapCells::new(number, domain)),
            (StateKind::List, _) => Cells::List(ListCells::new(number, domain)),
        };
        Self { name: declared.name.clone(), kind: declared.kind, value_size, ttl: declared.ttl, cells, joined: 0 }
    }

    pub fn is_expired(&self, clock: &Clock, stamp: i64) -> bool {
        self.ttl.is_some_and(|ttl| clock.is_expired(ttl, stamp))
    }

    /// The value of an entry of a value or reducing state that has not expired.
    #[inline]
    pub fn value(&self, entry: Entry, clock: &Clock) -> Option<&[u8]> {
        let (value, stamp) = match &self.cells {
            Cells::Fixed(cells) => cells.get(entry)?,
            Cells::Strings(cells) => cells.get(entry)?,
            _ => return None,
        };
        (!self.is_expired(clock, stamp)).then_some(value)
    }

    pub fn sweep(&mut self, budget: &mut usize, clock: &Clock, context: &mut Context<'_>) -> bool {
        let Some(ttl) = self.ttl else { return true };
        let is_expired = |stamp| clock.is_expired(ttl, stamp);
        match &mut self.cells {
            Cells::Fixed(cells) => cells.sweep(budget, is_expired, context),
            Cells::Strings(cells) => cells.sweep(budget, is_expired, context),
            Cells::Map(cells) => cells.sweep(budget, is_expired, context),
            Cells::List(cells) => cells.sweep(budget, is_expired, context),
        }
    }

    #[cold]
    pub fn wrong_kind(&self, used: &'static str) -> StateError {
        StateError::WrongKind { state: self.name.clone(), is: kind_name(self.kind), used }
    }

    pub fn check_size(&self, what: &'static str, bytes: usize, limit: usize, name: &'static str) -> Result<(), StateError> {
        if bytes <= limit {
            return Ok(());
        }
        Err(StateError::TooLarge { state: self.name.clone(), what, bytes: bytes as u64, limit: limit as u64, name })
    }

    pub fn check_count(&self, what: &'static str, count: usize, limit: u32, name: &'static str) -> Result<(), StateError> {
        if count <= limit as usize {
            return Ok(());
        }
        Err(StateError::TooMany { state: self.name.clone(), what, count: count as u64, limit: u64::from(limit), name })
    }

    /// A value that is to be stored. An empty one removes, whatever the size of the others.
    #[inline]
    pub fn check_value(&self, value: &[u8], limits: &GuestLimits) -> Result<(), StateError> {
        self.check_size("value", value.len(), limits.state_value_bytes_max, "state_value_bytes_max")?;
        match self.value_size {
            Some(size) if !value.is_empty() && value.len() != size as usize => {
                Err(StateError::WrongSize { state: self.name.clone(), bytes: value.len(), size })
            }
            _ => Ok(()),
        }
    }

    pub fn check_page(&self, bytes: usize, limits: &GuestLimits) -> Result<(), StateError> {
        // What does not fit into the guest's memory would only be built to be refused there.
        let limit = limits.memory_bytes_max.min(u32::MAX as usize);
        self.check_size("result", bytes, limit, "memory_bytes_max")
    }

    pub fn check_column(&self, what: &'static str, column: &Column) -> Result<(), StateError> {
        let bad = |why: String| Err(StateError::BadColumn { state: self.name.clone(), what, why });
        let Some(last) = column.offsets.last() else { return bad("it has no offsets".into()) };
        if let Some(at) = column.offsets.windows(2).position(|ends| ends[0] > ends[1]) {
            return bad(format!("offset {} is greater than offset {}", at, at + 1));
        }
        if *last as usize > column.data.len() {
            return bad(format!("the last offset is {last}, and there are {} bytes", column.data.len()));
        }
        Ok(())
    }

    pub fn check_equal(&self, slots: usize, what: &'static str, values: usize) -> Result<(), StateError> {
        if slots == values {
            return Ok(());
        }
        Err(StateError::UnequalColumns { state: self.name.clone(), slots, what, values })
    }
}

#[cold]
fn unknown_slot(store: &Store, slot: Slot, keys: usize) -> StateError {
    StateError::UnknownSlot { state: store.name.clone(), slot, keys: keys as u32 }
}

/// A state that is read in a call.
pub(super) struct Look<'a> {
    pub store: &'a Store,
    pub entries: &'a [Entry],
    pub clock: &'a Clock,
    pub limits: &'a GuestLimits,
}

impl Look<'_> {
    #[inline]
    pub fn entry(&self, slot: Slot) -> Result<Entry, StateError> {
        self.entries.get(slot as usize).copied().ok_or_else(|| unknown_slot(self.store, slot, self.entries.len()))
    }
}

/// A state that is written in a call.
pub(super) struct Access<'a> {
    pub store: &'a mut Store,
    pub entries: &'a [Entry],
    pub clock: &'a Clock,
    pub limits: &'a GuestLimits,
    pub context: Context<'a>,
}

impl Access<'_> {
    #[inline]
    pub fn entry(&self, slot: Slot) -> Result<Entry, StateError> {
        self.entries.get(slot as usize).copied().ok_or_else(|| unknown_slot(self.store, slot, self.entries.len()))
    }

    /// All before any is written, so that the loops after it need no errors.
    pub fn check_slots(&self, slots: &[Slot]) -> Result<(), StateError> {
        let keys = self.entries.len();
        match slots.iter().find(|slot| **slot as usize >= keys) {
            None => Ok(()),
            Some(slot) => Err(unknown_slot(self.store, *slot, keys)),
        }
    }

    #[inline]
    pub fn stamp(&self) -> i64 {
        self.clock.stamp(self.store.ttl)
    }
}

impl KeyedState {
    #[inline]
    pub(super) fn look(&self, state: StateId) -> Look<'_> {
        assert!(self.call.open, "BUG: state is read outside a call");
        Look {
            store: &self.stores[usize::from(state.0)],
            entries: &self.call.resolved.entries,
            clock: &self.clock,
            limits: &self.limits,
        }
    }

    #[inline]
    pub(super) fn access(&mut self, state: StateId) -> Access<'_> {
        assert!(self.call.open, "BUG: state is written outside a call");
        let Self { stores, call, keys, snapshot, garbage, clock, limits, .. } = self;
        let store = &mut stores[usize::from(state.0)];
        if store.joined != call.number {
            store.joined = call.number;
            call.joined.push(state.0);
            store.cells.join(call.resolved.entries.len(), keys.chunk_count(), snapshot.epoch);
        }
        Access { store, entries: &call.resolved.entries, clock, limits, context: Context { keys, snapshot, garbage } }
    }
}
