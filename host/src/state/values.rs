//! Value states, as `value-state` in `wit/state.wit` has them.

use super::store::{Access, Cells};
use super::{Column, KeyedState, Slot, StateError, StateId};
use tidegate_core::state_schema::StateKind;

const USED: &str = "value";

impl Access<'_> {
    /// Writes a checked value; an empty one removes.
    #[inline]
    fn put(&mut self, slot: Slot, value: &[u8]) {
        let (entry, stamp) = (self.entries[slot as usize], self.stamp());
        let value = (!value.is_empty()).then_some(value);
        match &mut self.store.cells {
            Cells::Fixed(cells) => cells.write(Some(slot), entry, value, stamp, &mut self.context),
            Cells::Strings(cells) => cells.write(Some(slot), entry, value, stamp, &mut self.context),
            _ => panic!("BUG: a value was put into state `{}`", self.store.name),
        }
    }

    fn store_n<const N: usize>(&mut self, slots: impl Iterator<Item = Slot>, values: &[u8]) -> bool {
        let stamp = self.stamp();
        let Cells::Fixed(cells) = &mut self.store.cells else { return false };
        for (slot, value) in slots.zip(values.as_chunks::<N>().0) {
            cells.write_n(slot, self.entries[slot as usize], value, stamp, &mut self.context);
        }
        true
    }

    /// Writes checked values of the declared size.
    fn store(&mut self, slots: impl Iterator<Item = Slot>, values: &[u8], size: usize) {
        match size {
            8 if matches!(self.store.cells, Cells::Fixed(_)) => self.store_n::<8>(slots, values),
            16 if matches!(self.store.cells, Cells::Fixed(_)) => self.store_n::<16>(slots, values),
            24 if matches!(self.store.cells, Cells::Fixed(_)) => self.store_n::<24>(slots, values),
            32 if matches!(self.store.cells, Cells::Fixed(_)) => self.store_n::<32>(slots, values),
            _ => {
                slots.zip(values.chunks_exact(size)).for_each(|(slot, value)| self.put(slot, value));
                true
            }
        };
    }
}

impl KeyedState {
    pub fn value_get(&self, state: StateId, slot: Slot) -> Result<Option<&[u8]>, StateError> {
        let look = self.look(state);
        if look.store.kind != StateKind::Value {
            return Err(look.store.wrong_kind(USED));
        }
        let entry = look.entry(slot)?;
        Ok(look.store.value(entry, look.clock))
    }

    pub fn value_put(&mut self, state: StateId, slot: Slot, value: &[u8]) -> Result<(), StateError> {
        let mut access = self.value_access(state)?;
        access.entry(slot)?;
        access.store.check_value(value, access.limits)?;
        access.put(slot, value);
        Ok(())
    }

    pub fn value_clear(&mut self, state: StateId, slot: Slot) -> Result<(), StateError> {
        let mut access = self.value_access(state)?;
        access.entry(slot)?;
        access.put(slot, &[]);
        Ok(())
    }

    fn value_access(&mut self, state: StateId) -> Result<Access<'_>, StateError> {
        let access = self.access(state);
        if access.store.kind != StateKind::Value {
            return Err(access.store.wrong_kind(USED));
        }
        Ok(access)
    }

    /// Values of all keys of the call, by slot.
    pub fn value_load(&self, state: StateId) -> Result<Column, StateError> {
        let look = self.look(state);
        if look.store.kind != StateKind::Value {
            return Err(look.store.wrong_kind(USED));
        }
        let mut column = Column::new();
        column.offsets.reserve(look.entries.len());
        for entry in look.entries {
            let value = look.store.value(*entry, look.clock).unwrap_or_default();
            look.store.check_page(column.data.len() + value.len(), look.limits)?;
            column.push(value);
        }
        Ok(column)
    }

    /// Writes string i for slot i of `slots`.
    pub fn value_store(&mut self, state: StateId, slots: &[Slot], values: &Column) -> Result<(), StateError> {
        let mut access = self.value_access(state)?;
        access.check_slots(slots)?;
        access.store.check_column("values", values)?;
        access.store.check_equal(slots.len(), "values", values.len())?;
        for (slot, value) in slots.iter().zip(values.iter()) {
            access.store.check_value(value, access.limits)?;
            access.put(*slot, value);
        }
        Ok(())
    }

    /// Bytes that a load of all keys of the call takes, for a state that has a `value-size`.
    pub fn value_fixed_len(&self, state: StateId) -> Result<usize, StateError> {
        let look = self.look(state);
        if look.store.kind != StateKind::Value {
            return Err(look.store.wrong_kind(USED));
        }
        let Some(size) = look.store.value_size else {
            return Err(StateError::NotFixed { state: look.store.name.clone() });
        };
        let bytes = size as usize * look.entries.len();
        look.store.check_page(bytes, look.limits)?;
        Ok(bytes)
    }

    /// Values of all keys of the call; zeroes for what is absent.
    pub fn value_load_fixed(&self, state: StateId) -> Result<Vec<u8>, StateError> {
        let mut out = vec![0; self.value_fixed_len(state)?];
        self.value_load_fixed_into(state, &mut out)?;
        Ok(out)
    }

    /// The same into a buffer of [`Self::value_fixed_len`] bytes, which may be the guest's memory.
    pub fn value_load_fixed_into(&self, state: StateId, out: &mut [u8]) -> Result<(), StateError> {
        let bytes = self.value_fixed_len(state)?;
        assert!(out.len() == bytes, "BUG: a buffer of {} bytes for {bytes}", out.len());
        let look = self.look(state);
        match &look.store.cells {
            Cells::Fixed(cells) => {
                cells.gather(look.entries, out, look.store.ttl.map(|ttl| move |stamp| look.clock.is_expired(ttl, stamp)));
            }
            _ => {
                let size = look.store.value_size.unwrap_or(1) as usize;
                for (entry, out) in look.entries.iter().zip(out.chunks_exact_mut(size)) {
                    match look.store.value(*entry, look.clock) {
                        Some(value) => out.copy_from_slice(value),
                        None => out.fill(0),
                    }
                }
            }
        }
        Ok(())
    }

    pub fn value_store_fixed(&mut self, state: StateId, slots: &[Slot], values: &[u8]) -> Result<(), StateError> {
        let mut access = self.value_access(state)?;
        let size = access.check_fixed(slots.len(), values)?;
        access.check_slots(slots)?;
        access.store(slots.iter().copied(), values, size);
        Ok(())
    }

    /// Writes all keys of the call.
    pub fn value_store_all_fixed(&mut self, state: StateId, values: &[u8]) -> Result<(), StateError> {
        let mut access = self.value_access(state)?;
        let keys = access.entries.len();
        let size = access.check_fixed(keys, values)?;
        access.store(0..keys as Slot, values, size);
        Ok(())
    }
}

impl Access<'_> {
    fn check_fixed(&self, slots: usize, values: &[u8]) -> Result<usize, StateError> {
        let Some(size) = self.store.value_size else {
            return Err(StateError::NotFixed { state: self.store.name.clone() });
        };
        let limits = self.limits;
        self.store.check_size("value", size as usize, limits.state_value_bytes_max, "state_value_bytes_max")?;
        let size = size as usize;
        if values.len() != slots * size {
            return self.store.check_equal(slots, "bytes / value-size", values.len() / size).and_then(|()| {
                Err(StateError::BadColumn {
                    state: self.store.name.clone(),
                    what: "values",
                    why: format!("{} bytes are not a multiple of the value-size {size}", values.len()),
                })
            });
        }
        Ok(size)
    }
}
