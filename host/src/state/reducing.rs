//! Reducing states: a number for each key that the host reduces into.

use super::store::{Access, Cells};
use super::{KeyedState, Slot, StateError, StateId};
use tidegate_core::state_schema::{Reducer, StateKind};

const USED: &str = "reducing";

/// Sums and counts wrap around, as they do in the engines people come from. A number that is not a number loses against any
/// other in a minimum or maximum.
fn reduce(reducer: Reducer, old: Option<i64>, value: i64) -> i64 {
    let float = |bits: i64| f64::from_bits(bits as u64);
    let Some(old) = old else {
        return if reducer == Reducer::Count { 1 } else { value };
    };
    // Written out: the sign of the lesser of two zeroes must not depend on the machine.
    let wins = |is_better: bool| if is_better || float(old).is_nan() { value } else { old };
    match reducer {
        Reducer::SumS64 => old.wrapping_add(value),
        Reducer::Count => old.wrapping_add(1),
        Reducer::MinS64 => old.min(value),
        Reducer::MaxS64 => old.max(value),
        Reducer::SumF64 => (float(old) + float(value)).to_bits() as i64,
        Reducer::MinF64 => wins(float(value) < float(old)),
        Reducer::MaxF64 => wins(float(value) > float(old)),
    }
}

fn number(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("BUG: a reducing state holds something else than eight bytes"))
}

impl Access<'_> {
    #[inline]
    fn reduce(&mut self, reducer: Reducer, slot: Slot, value: i64) -> i64 {
        let (entry, stamp) = (self.entries[slot as usize], self.stamp());
        let new = reduce(reducer, self.store.value(entry, self.clock).map(number), value);
        let Cells::Fixed(cells) = &mut self.store.cells else { panic!("BUG: state `{}` is no number", self.store.name) };
        cells.write_n(slot, entry, &new.to_le_bytes(), stamp, &mut self.context);
        new
    }
}

impl KeyedState {
    fn reducing_access(&mut self, state: StateId) -> Result<(Access<'_>, Reducer), StateError> {
        let access = self.access(state);
        let StateKind::Reducing(reducer) = access.store.kind else { return Err(access.store.wrong_kind(USED)) };
        Ok((access, reducer))
    }

    pub fn reducing_add(&mut self, state: StateId, slot: Slot, value: i64) -> Result<(), StateError> {
        let (mut access, reducer) = self.reducing_access(state)?;
        access.entry(slot)?;
        access.reduce(reducer, slot, value);
        Ok(())
    }

    pub fn reducing_get(&self, state: StateId, slot: Slot) -> Result<Option<i64>, StateError> {
        let look = self.look(state);
        let StateKind::Reducing(_) = look.store.kind else { return Err(look.store.wrong_kind(USED)) };
        Ok(look.store.value(look.entry(slot)?, look.clock).map(number))
    }

    pub fn reducing_clear(&mut self, state: StateId, slot: Slot) -> Result<(), StateError> {
        let (mut access, _) = self.reducing_access(state)?;
        let entry = access.entry(slot)?;
        let Cells::Fixed(cells) = &mut access.store.cells else { panic!("BUG: state `{}` is no number", access.store.name) };
        cells.write(Some(slot), entry, None, 0, &mut access.context);
        Ok(())
    }

    /// Adds value i to slot i of `slots`, in order. With `return_new` the number after each addition, else nothing.
    pub fn reducing_add_many(
        &mut self,
        state: StateId,
        slots: &[Slot],
        values: &[i64],
        return_new: bool,
    ) -> Result<Vec<i64>, StateError> {
        let (mut access, reducer) = self.reducing_access(state)?;
        access.check_slots(slots)?;
        access.store.check_equal(slots.len(), "values", values.len())?;
        let mut new = Vec::with_capacity(if return_new { slots.len() } else { 0 });
        for (slot, value) in slots.iter().zip(values) {
            let number = access.reduce(reducer, *slot, *value);
            if return_new {
                new.push(number);
            }
        }
        Ok(new)
    }

    /// Numbers of all keys of the call; 0 where there is none.
    pub fn reducing_load(&self, state: StateId) -> Result<Vec<i64>, StateError> {
        let look = self.look(state);
        let StateKind::Reducing(_) = look.store.kind else { return Err(look.store.wrong_kind(USED)) };
        look.store.check_page(look.entries.len() * 8, look.limits)?;
        Ok(look.entries.iter().map(|entry| look.store.value(*entry, look.clock).map_or(0, number)).collect())
    }
}
