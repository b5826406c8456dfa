//! One value for each key.
//!
//! The column of a batch is loaded on first use and stored at the end: as one block where values have one size, else as offsets
//! and bytes. All writes of a record concern one key, so its undo journal is one old value.

use super::arena::{Arena, Cell};
use super::{StateField, StateOptions, slot_of, undecodable, wit_type_of};
use crate::context::Ctx;
use crate::declaration::{StateDeclaration, StateKind};
use crate::encoding::StateValue;
use crate::platform;
use std::marker::PhantomData;

/// One value for each key.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// # #[operator(keyed)] struct Doc {
/// seen: ValueState<u64>,                  // 0 where nothing is stored
/// last_price: ValueState<Option<f64>>,    // None where nothing is stored
/// # }
/// # impl Operator for Doc { fn process(&mut self, _: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
/// let seen = self.seen.get(ctx) + 1;
/// self.seen.set(ctx, seen);
/// # Ok(()) } }
/// ```
#[derive(Debug)]
pub struct ValueState<V: StateValue> {
    name: &'static str,
    handle: platform::ValueHandle,
    keys: u32,
    loaded: bool,
    /// What each slot of the batch has seen.
    marks: Vec<Mark>,
    touched: bool,
    /// Types with one size: all values one after another.
    fixed: Vec<u8>,
    /// Other types: a cell for each slot.
    cells: Vec<Cell>,
    arena: Arena,
    /// The record at hand that wrote, its slot, and what was there before it.
    record: u32,
    record_slot: u32,
    before: Vec<u8>,
    before_mark: Mark,
    scratch: Vec<u8>,
    column: platform::BytesColumn,
    slots: Vec<u32>,
    value: PhantomData<fn() -> V>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
enum Mark {
    #[default]
    Clean,
    Written,
    Cleared,
}

impl<V: StateValue> ValueState<V> {
    /// The value of the key at hand; the type's zero (`0`, `""`, `None`, …) where nothing is stored.
    #[inline]
    pub fn get(&mut self, ctx: &Ctx<'_>) -> V {
        let slot = slot_of(ctx) as usize;
        self.load();
        let bytes = match V::SIZE {
            Some(size) => &self.fixed[slot * size..][..size],
            None => self.arena.get(self.cells[slot]),
        };
        V::decode(bytes).unwrap_or_else(|error| undecodable(self.name, &error))
    }

    #[inline]
    pub fn set(&mut self, ctx: &Ctx<'_>, value: V) {
        let slot = slot_of(ctx);
        self.load();
        self.journal(ctx.record, slot);
        self.marks[slot as usize] = Mark::Written;
        match V::SIZE {
            Some(size) => value.encode_fixed(&mut self.fixed[slot as usize * size..][..size]),
            None => {
                self.scratch.clear();
                value.encode(&mut self.scratch);
                self.arena.put(&mut self.cells[slot as usize], &self.scratch);
            }
        }
    }

    /// Reads, changes and writes; gives what was written.
    #[inline]
    pub fn update(&mut self, ctx: &Ctx<'_>, change: impl FnOnce(V) -> V) -> V
    where
        V: Clone,
    {
        let value = change(self.get(ctx));
        self.set(ctx, value.clone());
        value
    }

    /// Removes the key's entry.
    pub fn clear(&mut self, ctx: &Ctx<'_>) {
        let slot = slot_of(ctx);
        self.load();
        self.journal(ctx.record, slot);
        self.marks[slot as usize] = Mark::Cleared;
        match V::SIZE {
            Some(size) => self.fixed[slot as usize * size..][..size].fill(0),
            None => self.arena.put(&mut self.cells[slot as usize], &[]),
        }
    }

    #[inline]
    fn load(&mut self) {
        if !self.loaded {
            self.load_column();
        }
    }

    #[cold]
    fn load_column(&mut self) {
        self.loaded = true;
        let keys = self.keys as usize;
        self.marks.clear();
        self.marks.resize(keys, Mark::Clean);
        match V::SIZE {
            Some(size) => {
                self.fixed = self.handle.load_fixed();
                assert!(self.fixed.len() == keys * size, "the host loaded {} bytes for {keys} keys", self.fixed.len());
                self.before.resize(size, 0);
            }
            None => {
                let platform::BytesColumn { data, offsets } = self.handle.load();
                self.arena.adopt(data, &offsets, &mut self.cells);
                assert!(self.cells.len() == keys, "the host loaded {} values for {keys} keys", self.cells.len());
            }
        }
    }

    #[inline]
    fn journal(&mut self, record: u32, slot: u32) {
        if self.record != record {
            self.record = record;
            self.record_slot = slot;
            self.touched = true;
            self.before_mark = self.marks[slot as usize];
            match V::SIZE {
                Some(size) => self.before[..size].copy_from_slice(&self.fixed[slot as usize * size..][..size]),
                None => {
                    self.before.clear();
                    self.before.extend_from_slice(self.arena.get(self.cells[slot as usize]));
                }
            }
        }
    }

    fn store_fixed(&mut self, size: usize) {
        if self.marks.iter().all(|mark| *mark == Mark::Written) {
            return self.handle.store_all_fixed(&self.fixed);
        }
        self.scratch.clear();
        for (slot, mark) in self.marks.iter().enumerate() {
            match mark {
                Mark::Clean => {}
                Mark::Cleared => self.handle.clear(slot as u32),
                Mark::Written => {
                    self.slots.push(slot as u32);
                    self.scratch.extend_from_slice(&self.fixed[slot * size..][..size]);
                }
            }
        }
        if !self.slots.is_empty() {
            self.handle.store_fixed(&self.slots, &self.scratch);
        }
    }

    fn store_column(&mut self) {
        self.column.data.clear();
        self.column.offsets.clear();
        self.column.offsets.push(0);
        for (slot, mark) in self.marks.iter().enumerate() {
            if *mark != Mark::Clean {
                self.slots.push(slot as u32);
                self.column.data.extend_from_slice(self.arena.get(self.cells[slot]));
                self.column.offsets.push(self.column.data.len() as u32);
            }
        }
        if !self.slots.is_empty() {
            self.handle.store(&self.slots, &self.column);
        }
    }
}

impl<V: StateValue> StateField for ValueState<V> {
    fn declare(options: &StateOptions) -> StateDeclaration {
        options.declare(StateKind::Value, wit_type_of(V::wit_type), None, V::SIZE)
    }

    fn open(name: &'static str) -> Self {
        Self {
            name,
            handle: platform::ValueHandle::open(name),
            keys: 0,
            loaded: false,
            marks: Vec::new(),
            touched: false,
            fixed: Vec::new(),
            cells: Vec::new(),
            arena: Arena::default(),
            record: 0,
            record_slot: 0,
            before: Vec::new(),
            before_mark: Mark::Clean,
            scratch: Vec::new(),
            column: platform::BytesColumn { data: Vec::new(), offsets: Vec::new() },
            slots: Vec::new(),
            value: PhantomData,
        }
    }

    #[inline]
    fn begin(&mut self, keys: u32) {
        self.keys = keys;
        self.loaded = false;
        self.touched = false;
        self.record = 0;
    }

    fn undo(&mut self, record: u32) {
        if self.record == record {
            let slot = self.record_slot as usize;
            self.marks[slot] = self.before_mark;
            match V::SIZE {
                Some(size) => self.fixed[slot * size..][..size].copy_from_slice(&self.before[..size]),
                None => self.arena.put(&mut self.cells[slot], &self.before),
            }
            self.record = 0;
        }
    }

    fn finish(&mut self) {
        if self.touched {
            self.slots.clear();
            match V::SIZE {
                Some(size) => self.store_fixed(size),
                None => self.store_column(),
            }
        }
    }
}
