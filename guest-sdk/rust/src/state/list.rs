//! A list for each key: appended to, read in pages, or replaced as a whole.
//!
//! Writes of a batch are a log, handed over at its end. A read hands over what earlier records wrote (they are done, nothing will
//! undo them), asks the host, and puts what the record at hand wrote on top. Undo cuts the log back.

use super::{StateField, StateOptions, slot_of, undecodable, wit_type_of};
use crate::context::Ctx;
use crate::declaration::{StateDeclaration, StateKind};
use crate::encoding::StateValue;
use crate::platform;
use std::marker::PhantomData;

/// Elements asked for at a time.
const PAGE: u32 = 256;

/// A list for each key.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// # #[operator(keyed)] struct Doc {
/// log: ListState<String>,
/// # }
/// # impl Operator for Doc { fn process(&mut self, _: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
/// self.log.add(ctx, "landed".to_owned());
/// if self.log.len(ctx) >= 10 {
///     ctx.emit(self.log.get(ctx).join(","));
///     self.log.clear(ctx);
/// }
/// # Ok(()) } }
/// ```
#[derive(Debug)]
pub struct ListState<V: StateValue> {
    name: &'static str,
    handle: platform::ListHandle,
    ops: Vec<Op>,
    /// Bytes of all elements in `ops`.
    data: Vec<u8>,
    /// The record that wrote last, and where its part of `ops` and of `data` begins.
    record: u32,
    record_start: (usize, usize),
    slots: Vec<u32>,
    column: platform::BytesColumn,
    value: PhantomData<fn() -> V>,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Clear { slot: u32 },
    Add { slot: u32, start: usize, end: usize },
}

impl Op {
    fn slot(self) -> u32 {
        match self {
            Self::Clear { slot } | Self::Add { slot, .. } => slot,
        }
    }
}

impl<V: StateValue> ListState<V> {
    /// Appends an element. An element is never empty: an empty text, or `None`, adds nothing.
    #[inline]
    pub fn add(&mut self, ctx: &Ctx<'_>, value: V) {
        self.mark(ctx);
        self.push(slot_of(ctx), &value);
    }

    /// All elements, in the order they were added.
    pub fn get(&mut self, ctx: &Ctx<'_>) -> Vec<V> {
        let mut all = Vec::new();
        self.for_each(ctx, |value| all.push(value));
        all
    }

    /// Reads the list from its beginning, in pages, without holding all of it.
    pub fn for_each(&mut self, ctx: &Ctx<'_>, mut each: impl FnMut(V)) {
        let slot = slot_of(ctx);
        self.flush_done(ctx);
        let name = self.name;
        let mut give = |bytes: &[u8]| each(V::decode(bytes).unwrap_or_else(|error| undecodable(name, &error)));
        let (replaced, added) = self.own(slot);
        // The record at hand may have emptied the list: then nothing of what is stored counts.
        let mut next = if replaced { None } else { Some(0) };
        while let Some(first) = next {
            let page = self.handle.get(slot, first, PAGE);
            for pair in page.offsets.windows(2) {
                give(&page.data[pair[0] as usize..pair[1] as usize]);
            }
            let got = page.offsets.len().saturating_sub(1) as u32;
            next = (got == PAGE).then_some(first + got);
        }
        for op in added {
            if let Op::Add { start, end, .. } = *op {
                give(&self.data[start..end]);
            }
        }
    }

    pub fn len(&mut self, ctx: &Ctx<'_>) -> u32 {
        let slot = slot_of(ctx);
        self.flush_done(ctx);
        let (replaced, added) = self.own(slot);
        let stored = if replaced { 0 } else { self.handle.length(slot) };
        stored + added.filter(|op| matches!(op, Op::Add { .. })).count() as u32
    }

    pub fn is_empty(&mut self, ctx: &Ctx<'_>) -> bool {
        self.len(ctx) == 0
    }

    /// Puts these elements in the place of all that were there.
    pub fn replace(&mut self, ctx: &Ctx<'_>, values: impl IntoIterator<Item = V>) {
        self.clear(ctx);
        for value in values {
            self.push(slot_of(ctx), &value);
        }
    }

    pub fn clear(&mut self, ctx: &Ctx<'_>) {
        self.mark(ctx);
        self.ops.push(Op::Clear { slot: slot_of(ctx) });
    }

    fn push(&mut self, slot: u32, value: &V) {
        let start = self.data.len();
        value.encode(&mut self.data);
        let end = self.data.len();
        if end > start {
            self.ops.push(Op::Add { slot, start, end });
        }
    }

    #[inline]
    fn mark(&mut self, ctx: &Ctx<'_>) {
        if self.record != ctx.record {
            self.record = ctx.record;
            self.record_start = (self.ops.len(), self.data.len());
        }
    }

    /// What the record at hand did to this list since it last emptied it, and whether it did that.
    fn own(&self, slot: u32) -> (bool, impl Iterator<Item = &Op>) {
        // Only the record's own part is left after `flush_done`.
        let cleared = self.ops.iter().rposition(|op| matches!(op, Op::Clear { slot: other } if *other == slot));
        let from = cleared.map_or(0, |at| at + 1);
        (cleared.is_some(), self.ops[from..].iter().filter(move |op| op.slot() == slot))
    }

    /// Hands over what records before this one wrote.
    fn flush_done(&mut self, ctx: &Ctx<'_>) {
        self.mark(ctx);
        let (ops, data) = self.record_start;
        if ops == 0 {
            return;
        }
        self.flush(ops);
        self.ops.drain(..ops);
        self.data.drain(..data);
        for op in &mut self.ops {
            if let Op::Add { start, end, .. } = op {
                *start -= data;
                *end -= data;
            }
        }
        self.record_start = (0, 0);
    }

    fn flush(&mut self, until: usize) {
        let mut rest = &self.ops[..until];
        while let Some(first) = rest.first() {
            // A clear with what was added to the same list right after it is one `replace`; other additions go in one go.
            let (clear, body) = match first {
                Op::Clear { slot } => (Some(*slot), &rest[1..]),
                Op::Add { .. } => (None, rest),
            };
            let len = body
                .iter()
                .take_while(|op| matches!(op, Op::Add { slot, .. } if clear.is_none_or(|clear| clear == *slot)))
                .count();
            self.slots.clear();
            self.column.data.clear();
            self.column.offsets.clear();
            self.column.offsets.push(0);
            for op in &body[..len] {
                if let Op::Add { slot, start, end } = *op {
                    self.slots.push(slot);
                    self.column.data.extend_from_slice(&self.data[start..end]);
                    self.column.offsets.push(self.column.data.len() as u32);
                }
            }
            match clear {
                Some(slot) if len == 0 => self.handle.clear(slot),
                Some(slot) => self.handle.replace(slot, &self.column),
                None => self.handle.add_many(&self.slots, &self.column),
            }
            rest = &body[len..];
        }
    }
}

impl<V: StateValue> StateField for ListState<V> {
    fn declare(options: &StateOptions) -> StateDeclaration {
        options.declare(StateKind::List, wit_type_of(V::wit_type), None, V::SIZE)
    }

    fn open(name: &'static str) -> Self {
        Self {
            name,
            handle: platform::ListHandle::open(name),
            ops: Vec::new(),
            data: Vec::new(),
            record: 0,
            record_start: (0, 0),
            slots: Vec::new(),
            column: platform::BytesColumn { data: Vec::new(), offsets: Vec::new() },
            value: PhantomData,
        }
    }

    #[inline]
    fn begin(&mut self, _: u32) {
        self.ops.clear();
        self.data.clear();
        self.record = 0;
        self.record_start = (0, 0);
    }

    fn undo(&mut self, record: u32) {
        if self.record == record {
            self.ops.truncate(self.record_start.0);
            self.data.truncate(self.record_start.1);
            self.record = 0;
        }
    }

    fn finish(&mut self) {
        self.flush(self.ops.len());
    }
}
