//! Brings stored segments back, of the key groups that this task owns, whoever wrote them.

use super::clock::UNKNOWN_TIME;
use super::error::SegmentError;
use super::record::{EVENT_TIMERS, Op, PROCESSING_TIMERS, Record, timer_of};
use super::segment::{SegmentHeader, SegmentReader};
use super::store::Cells;
use super::timers::Timer;
use super::{KeyedState, kind_of};
use tidegate_core::state_schema::StateDeclaration;

/// What becomes of a state of the segment.
#[derive(Clone, Copy)]
struct Target {
    /// `None`: dropped, because the user said so.
    store: Option<usize>,
    /// Its stamps are of the clock that the state is declared with.
    stamps_are_good: bool,
}

impl KeyedState {
    /// States that segments may hold although the operator declares them no longer: they are left out.
    pub fn drop_states(&mut self, names: &[String]) {
        self.dropped_states = names.to_vec();
    }

    /// The header of a segment that this state writes, and the number of each declared state in its table.
    pub(super) fn segment_header(&self) -> (SegmentHeader, Vec<u16>) {
        let mut order: Vec<usize> = (0..self.declarations.len()).collect();
        order.sort_by(|a, b| self.declarations[*a].name.cmp(&self.declarations[*b].name));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in order.iter().enumerate() {
            ranks[*number] = rank as u16;
        }
        let header = SegmentHeader {
            key_groups: self.key_groups,
            first_group: self.owned.start,
            end_group: self.owned.end,
            full: self.snapshot.full,
            states: order.iter().map(|number| self.declarations[*number].clone()).collect(),
        };
        (header, ranks)
    }

    /// Applies one segment of a chain, oldest first, beginning with its last full one. On an error the state is half restored, and
    /// good for nothing.
    pub fn restore(&mut self, segment: &[u8]) -> Result<(), SegmentError> {
        assert!(!self.call.open && !self.is_draining(), "BUG: a restore within a call or a drain");
        let reader = SegmentReader::open(segment)?;
        if reader.header.key_groups != self.key_groups {
            return Err(SegmentError::KeyGroups { found: reader.header.key_groups, wanted: self.key_groups });
        }
        let targets = self.targets(&reader.header)?;
        let mut records = reader.records(self.owned.clone());
        let mut result = Ok(());
        while records.advance()? {
            result = self.restore_record(&records.record(), &targets);
            if result.is_err() {
                break;
            }
        }
        self.collect_garbage();
        result
    }

    fn targets(&self, header: &SegmentHeader) -> Result<Vec<Target>, SegmentError> {
        let mut unknown = Vec::new();
        let mut targets = Vec::new();
        for stored in &header.states {
            let store = self.stores.iter().position(|store| store.name == stored.name);
            match store {
                Some(number) => self.check_target(stored, number)?,
                None if self.dropped_states.contains(&stored.name) => {}
                None => unknown.push(stored.name.clone()),
            }
            let domain = store.and_then(|number| self.stores[number].ttl).map(|ttl| ttl.domain);
            targets.push(Target { store, stamps_are_good: stored.ttl.map(|ttl| ttl.domain) == domain });
        }
        if unknown.is_empty() { Ok(targets) } else { Err(SegmentError::UnknownStates { names: unknown }) }
    }

    fn check_target(&self, stored: &StateDeclaration, number: usize) -> Result<(), SegmentError> {
        let store = &self.stores[number];
        let differs = |was: String, is: String| Err(SegmentError::StateDiffers { state: stored.name.clone(), was, is });
        if stored.kind != store.kind {
            return differs(kind_of(stored.kind), kind_of(store.kind));
        }
        match (stored.value_size.filter(|size| *size > 0), store.value_size) {
            (Some(was), Some(is)) if was != is => differs(format!("values of {was} bytes"), format!("values of {is} bytes")),
            _ => Ok(()),
        }
    }

    fn restore_record(&mut self, record: &Record<'_>, targets: &[Target]) -> Result<(), SegmentError> {
        if let EVENT_TIMERS | PROCESSING_TIMERS = record.state {
            let (time, tag) = timer_of(record.sub).expect("BUG: the reader let a malformed timer pass");
            let (entry, _) = self.keys.find_or_insert(record.hash, record.key);
            let timers = &mut self.timers[usize::from(record.state - EVENT_TIMERS)];
            timers.restore(Timer::new(time, record.hash, entry, tag), record.op, &mut self.keys, &mut self.garbage);
            if record.op == Op::Remove {
                self.garbage.push(entry);
            }
            return Ok(());
        }
        let target = targets[usize::from(record.state)];
        let Some(number) = target.store else { return Ok(()) };
        let store = &mut self.stores[number];
        let is_put = record.op == Op::Put;
        if let Some(size) = store.value_size.filter(|size| is_put && record.value.len() != *size as usize) {
            return Err(SegmentError::StateDiffers {
                state: store.name.clone(),
                was: format!("a value of {} bytes", record.value.len()),
                is: format!("values of {size} bytes"),
            });
        }
        let (entry, _) = self.keys.find_or_insert(record.hash, record.key);
        let epoch = self.snapshot.epoch;
        let value = is_put.then_some(record.value);
        let stamp = record.stamp.filter(|_| target.stamps_are_good).unwrap_or(UNKNOWN_TIME);
        let sound = match &mut store.cells {
            Cells::Fixed(cells) => {
                cells.restore(entry, value, stamp, epoch);
                true
            }
            Cells::Strings(cells) => {
                cells.restore(entry, value, stamp, epoch);
                true
            }
            Cells::Map(cells) => {
                cells.restore(entry, record.sub, value, stamp, epoch);
                true
            }
            Cells::List(cells) => cells.restore(entry, record.op, record.value, stamp, epoch),
        };
        if record.op == Op::Remove {
            self.garbage.push(entry);
        }
        if sound { Ok(()) } else { Err(SegmentError::Corrupt { at: 0, what: "the elements of a list do not add up" }) }
    }
}
