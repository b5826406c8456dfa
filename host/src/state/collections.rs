//! Map and list states, as `wit/state.wit` has them.

use super::list_cells::ListCells;
use super::map_cells::MapCells;
use super::store::{Access, Cells, Look};
use super::{Column, KeyedState, Slot, StateError, StateId};
use tidegate_core::row::{NO_TIMESTAMP, Row};

const MAP: &str = "map";
const LIST: &str = "list";

/// Bytes of all elements of one list, which lie in one piece.
pub const LIST_BYTES_MAX: usize = 1 << 30;

impl<'a> Look<'a> {
    fn map(&self) -> Result<&'a MapCells, StateError> {
        match &self.store.cells {
            Cells::Map(cells) => Ok(cells),
            _ => Err(self.store.wrong_kind(MAP)),
        }
    }

    fn map_value(&self, slot: Slot, map_key: &[u8]) -> Result<Option<&'a [u8]>, StateError> {
        let entry = self.entry(slot)?;
        self.store.check_size("map key", map_key.len(), self.limits.map_key_bytes_max, "map_key_bytes_max")?;
        let found = self.map()?.get(entry, map_key);
        Ok(found.filter(|(_, stamp)| !self.store.is_expired(self.clock, *stamp)).map(|(value, _)| value))
    }

    fn list(&self) -> Result<&'a ListCells, StateError> {
        match &self.store.cells {
            Cells::List(cells) => Ok(cells),
            _ => Err(self.store.wrong_kind(LIST)),
        }
    }

    /// Elements of a list; one that has expired has none.
    fn list_len(&self, slot: Slot) -> Result<usize, StateError> {
        let (cells, entry) = (self.list()?, self.entry(slot)?);
        let len = cells.len(entry);
        Ok(if len > 0 && self.store.is_expired(self.clock, cells.stamp(entry)) { 0 } else { len })
    }
}

impl Access<'_> {
    fn map_put(&mut self, slot: Slot, map_key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let (entry, stamp) = (self.entry(slot)?, self.stamp());
        self.store.check_size("map key", map_key.len(), self.limits.map_key_bytes_max, "map_key_bytes_max")?;
        self.store.check_value(value, self.limits)?;
        let value = (!value.is_empty()).then_some(value);
        let Cells::Map(cells) = &mut self.store.cells else { return Err(self.store.wrong_kind(MAP)) };
        cells.write(Some(slot), entry, map_key, value, stamp, &mut self.context);
        Ok(())
    }

    fn list_add(&mut self, slot: Slot, value: &[u8]) -> Result<(), StateError> {
        let (entry, stamp) = (self.entry(slot)?, self.stamp());
        self.store.check_value(value, self.limits)?;
        let Cells::List(cells) = &self.store.cells else { return Err(self.store.wrong_kind(LIST)) };
        // An empty value is an absent one, in a list as everywhere.
        if value.is_empty() {
            return Ok(());
        }
        let is_expired = cells.len(entry) > 0 && self.store.is_expired(self.clock, cells.stamp(entry));
        if !is_expired {
            let (len, bytes) = (cells.len(entry) + 1, cells.data_len(entry) + value.len());
            self.store.check_count("list elements", len, self.limits.list_elements_max, "list_elements_max")?;
            self.store.check_size("list", bytes, LIST_BYTES_MAX, "list_bytes_max")?;
        }
        let Cells::List(cells) = &mut self.store.cells else { return Err(self.store.wrong_kind(LIST)) };
        if is_expired {
            cells.replace(Some(slot), entry, std::iter::empty(), stamp, &mut self.context);
        }
        cells.append(slot, entry, value, stamp, &mut self.context);
        Ok(())
    }
}

impl KeyedState {
    pub fn map_get(&self, state: StateId, slot: Slot, map_key: &[u8]) -> Result<Option<&[u8]>, StateError> {
        self.look(state).map_value(slot, map_key)
    }

    pub fn map_put(&mut self, state: StateId, slot: Slot, map_key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.access(state).map_put(slot, map_key, value)
    }

    pub fn map_remove(&mut self, state: StateId, slot: Slot, map_key: &[u8]) -> Result<(), StateError> {
        self.access(state).map_put(slot, map_key, &[])
    }

    pub fn map_contains(&self, state: StateId, slot: Slot, map_key: &[u8]) -> Result<bool, StateError> {
        Ok(self.look(state).map_value(slot, map_key)?.is_some())
    }

    pub fn map_is_empty(&self, state: StateId, slot: Slot) -> Result<bool, StateError> {
        let look = self.look(state);
        let entry = look.entry(slot)?;
        let mut entries = look.map()?.scan(entry, None, None);
        Ok(!entries.any(|(_, _, stamp)| !look.store.is_expired(look.clock, stamp)))
    }

    /// Entries with `first <= map key < last`, at most `limit`, as rows (key = map key, value, no timestamp).
    pub fn map_scan(
        &self,
        state: StateId,
        slot: Slot,
        first: Option<&[u8]>,
        last: Option<&[u8]>,
        limit: u32,
    ) -> Result<Vec<u8>, StateError> {
        let look = self.look(state);
        let entry = look.entry(slot)?;
        let map = look.map()?;
        look.store.check_count("entries of one scan", limit as usize, look.limits.scan_entries_max, "scan_entries_max")?;
        let mut rows = Vec::new();
        let live = map.scan(entry, first, last).filter(|(_, _, stamp)| !look.store.is_expired(look.clock, *stamp));
        for (key, value, _) in live.take(limit as usize) {
            let row = Row::new(key, value, NO_TIMESTAMP);
            look.store.check_page(rows.len() + row.encoded_len(), look.limits)?;
            row.write(&mut rows);
        }
        Ok(rows)
    }

    pub fn map_remove_range(
        &mut self,
        state: StateId,
        slot: Slot,
        first: Option<&[u8]>,
        last: Option<&[u8]>,
    ) -> Result<(), StateError> {
        let mut access = self.access(state);
        let entry = access.entry(slot)?;
        let Cells::Map(cells) = &mut access.store.cells else { return Err(access.store.wrong_kind(MAP)) };
        cells.remove_range(slot, entry, first, last, &mut access.context);
        Ok(())
    }

    pub fn map_clear(&mut self, state: StateId, slot: Slot) -> Result<(), StateError> {
        self.map_remove_range(state, slot, None, None)
    }

    /// Values of the entries (slot i, map key i); empty where there is none.
    pub fn map_load_many(&self, state: StateId, slots: &[Slot], map_keys: &Column) -> Result<Column, StateError> {
        let look = self.look(state);
        look.store.check_column("map keys", map_keys)?;
        look.store.check_equal(slots.len(), "map keys", map_keys.len())?;
        let mut column = Column::new();
        column.offsets.reserve(slots.len());
        for (slot, map_key) in slots.iter().zip(map_keys.iter()) {
            let value = look.map_value(*slot, map_key)?.unwrap_or_default();
            look.store.check_page(column.data.len() + value.len(), look.limits)?;
            column.push(value);
        }
        Ok(column)
    }

    pub fn map_store_many(
        &mut self,
        state: StateId,
        slots: &[Slot],
        map_keys: &Column,
        values: &Column,
    ) -> Result<(), StateError> {
        let mut access = self.access(state);
        access.store.check_column("map keys", map_keys)?;
        access.store.check_column("values", values)?;
        access.store.check_equal(slots.len(), "map keys", map_keys.len())?;
        access.store.check_equal(slots.len(), "values", values.len())?;
        for ((slot, map_key), value) in slots.iter().zip(map_keys.iter()).zip(values.iter()) {
            access.map_put(*slot, map_key, value)?;
        }
        Ok(())
    }

    pub fn list_add(&mut self, state: StateId, slot: Slot, value: &[u8]) -> Result<(), StateError> {
        self.access(state).list_add(slot, value)
    }

    /// At most `limit` elements from number `first` on.
    pub fn list_get(&self, state: StateId, slot: Slot, first: u32, limit: u32) -> Result<Column, StateError> {
        let look = self.look(state);
        let len = look.list_len(slot)?;
        look.store.check_count("elements of one page", limit as usize, look.limits.scan_entries_max, "scan_entries_max")?;
        let from = (first as usize).min(len);
        let to = from.saturating_add(limit as usize).min(len);
        let (data, ends, start) = look.list()?.page(look.entry(slot)?, from, to);
        look.store.check_page(data.len(), look.limits)?;
        let offsets = std::iter::once(0).chain(ends.iter().map(|end| end - start)).collect();
        Ok(Column { data: data.to_vec(), offsets })
    }

    pub fn list_length(&self, state: StateId, slot: Slot) -> Result<u32, StateError> {
        Ok(self.look(state).list_len(slot)? as u32)
    }

    pub fn list_replace(&mut self, state: StateId, slot: Slot, values: &Column) -> Result<(), StateError> {
        let mut access = self.access(state);
        let (entry, stamp) = (access.entry(slot)?, access.stamp());
        access.store.check_column("values", values)?;
        access.store.check_count("list elements", values.len(), access.limits.list_elements_max, "list_elements_max")?;
        access.store.check_size("list", values.data.len(), LIST_BYTES_MAX, "list_bytes_max")?;
        for value in values.iter() {
            access.store.check_value(value, access.limits)?;
        }
        let Cells::List(cells) = &mut access.store.cells else { return Err(access.store.wrong_kind(LIST)) };
        cells.replace(Some(slot), entry, values.iter().filter(|value| !value.is_empty()), stamp, &mut access.context);
        Ok(())
    }

    pub fn list_clear(&mut self, state: StateId, slot: Slot) -> Result<(), StateError> {
        self.list_replace(state, slot, &Column::new())
    }

    /// Appends value i to the list of slot i of `slots`, in order.
    pub fn list_add_many(&mut self, state: StateId, slots: &[Slot], values: &Column) -> Result<(), StateError> {
        let mut access = self.access(state);
        access.store.check_column("values", values)?;
        access.store.check_equal(slots.len(), "values", values.len())?;
        slots.iter().zip(values.iter()).try_for_each(|(slot, value)| access.list_add(*slot, value))
    }
}
