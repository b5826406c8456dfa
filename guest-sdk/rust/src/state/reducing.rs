//! A number for each key that the host reduces into.
//!
//! `add` alone loads nothing: additions are a log, handed over in one call at the end. Once a number has been read in a batch, its
//! slot is kept up to date here with the host's own arithmetic. Undo cuts the log back and puts the one number back that the
//! record at hand changed.

use super::{StateField, StateOptions, slot_of};
use crate::context::Ctx;
use crate::declaration::{ReducerKind, StateDeclaration, StateKind};
use crate::platform;
use std::marker::PhantomData;

/// How a [`ReducingState`] reduces. The host does the same: sums of `s64` wrap around, NaN loses against every other number.
pub trait Reducer {
    /// What is added.
    type In: Copy;
    /// What is read: the number, or for bounds `None` where nothing was added.
    type Out;

    #[doc(hidden)]
    const KIND: ReducerKind;
    /// Whether the number is 0 where nothing was added, so that the host's column says everything.
    #[doc(hidden)]
    const STARTS_AT_ZERO: bool;
    #[doc(hidden)]
    fn wire(value: Self::In) -> i64;
    #[doc(hidden)]
    fn reduce(number: i64, value: i64) -> i64;
    #[doc(hidden)]
    fn read(number: Option<i64>) -> Self::Out;
}

macro_rules! reducers {
    ($($(#[$doc:meta])* $name:ident: $in:ty => $out:ty, $kind:ident, zero $zero:literal,
        wire $wire:expr, reduce $reduce:expr, read $read:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}

        impl Reducer for $name {
            type In = $in;
            type Out = $out;
            const KIND: ReducerKind = ReducerKind::$kind;
            const STARTS_AT_ZERO: bool = $zero;

            #[inline]
            fn wire(value: $in) -> i64 {
                let wire: fn($in) -> i64 = $wire;
                wire(value)
            }

            #[inline]
            fn reduce(number: i64, value: i64) -> i64 {
                let reduce: fn(i64, i64) -> i64 = $reduce;
                reduce(number, value)
            }

            #[inline]
            fn read(number: Option<i64>) -> $out {
                let read: fn(Option<i64>) -> $out = $read;
                read(number)
            }
        }
    )*};
}

fn bits(value: f64) -> i64 {
    value.to_bits() as i64
}

fn float(bits: i64) -> f64 {
    f64::from_bits(bits as u64)
}

/// Written out: which of two zeroes `f64::min` gives depends on the machine.
fn better(number: i64, value: i64, wins: bool) -> i64 {
    if wins || float(number).is_nan() { value } else { number }
}

reducers! {
    /// The sum of whole numbers.
    SumS64: i64 => i64, SumS64, zero true, wire |value| value, reduce i64::wrapping_add, read Option::unwrap_or_default;
    /// The sum of floating-point numbers, in the order in which they are added.
    SumF64: f64 => f64, SumF64, zero true, wire bits, reduce |a, b| bits(float(a) + float(b)), read |n| float(n.unwrap_or(0));
    /// The least whole number.
    MinS64: i64 => Option<i64>, MinS64, zero false, wire |value| value, reduce i64::min, read |number| number;
    /// The greatest whole number.
    MaxS64: i64 => Option<i64>, MaxS64, zero false, wire |value| value, reduce i64::max, read |number| number;
    /// The least floating-point number.
    MinF64: f64 => Option<f64>, MinF64, zero false, wire bits, reduce |a, b| better(a, b, float(b) < float(a)), read |n| n.map(float);
    /// The greatest floating-point number.
    MaxF64: f64 => Option<f64>, MaxF64, zero false, wire bits, reduce |a, b| better(a, b, float(b) > float(a)), read |n| n.map(float);
    /// How often something was added.
    Count: () => i64, Count, zero true, wire |()| 1, reduce |number, _| number.wrapping_add(1), read Option::unwrap_or_default;
}

/// A number for each key.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// # #[operator(keyed)] struct Doc {
/// total: ReducingState<SumS64>,
/// longest: ReducingState<MaxS64>,
/// # }
/// # impl Operator for Doc { fn process(&mut self, _: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
/// self.total.add(ctx, 3);                                // loads nothing
/// let longest: Option<i64> = self.longest.get(ctx);
/// # Ok(()) } }
/// ```
#[derive(Debug)]
pub struct ReducingState<R: Reducer> {
    handle: platform::ReducingHandle,
    keys: u32,
    slots: Vec<u32>,
    values: Vec<i64>,
    /// Positions in `slots` before which a number is removed.
    clears: Vec<(usize, u32)>,
    record: u32,
    record_start: (usize, usize),
    /// The batch's numbers as far as they were read, up to date with the log.
    numbers: Vec<Number>,
    before: Option<(u32, Number)>,
    reducer: PhantomData<fn() -> R>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Unread,
    Absent,
    Is(i64),
}

impl<R: Reducer> ReducingState<R> {
    #[inline]
    pub fn add(&mut self, ctx: &Ctx<'_>, value: R::In) {
        let (slot, value) = (slot_of(ctx), R::wire(value));
        self.mark(ctx.record);
        self.slots.push(slot);
        self.values.push(value);
        if !self.numbers.is_empty() {
            let number = match self.numbers[slot as usize] {
                Number::Unread => return,
                Number::Absent => Self::reduced(None, value),
                Number::Is(number) => Self::reduced(Some(number), value),
            };
            self.change(slot, Number::Is(number));
        }
    }

    /// The number of the key at hand, with everything that was added before.
    pub fn get(&mut self, ctx: &Ctx<'_>) -> R::Out {
        let slot = slot_of(ctx);
        if self.numbers.get(slot as usize).is_none_or(|number| *number == Number::Unread) {
            self.fetch(ctx.record, slot);
        }
        R::read(match self.numbers[slot as usize] {
            Number::Is(number) => Some(number),
            Number::Absent | Number::Unread => None,
        })
    }

    /// Removes the key's number.
    pub fn clear(&mut self, ctx: &Ctx<'_>) {
        let slot = slot_of(ctx);
        self.mark(ctx.record);
        self.clears.push((self.slots.len(), slot));
        if !self.numbers.is_empty() {
            self.change(slot, Number::Absent);
        }
    }

    fn reduced(number: Option<i64>, value: i64) -> i64 {
        match number {
            Some(number) => R::reduce(number, value),
            None if R::STARTS_AT_ZERO => R::reduce(0, value),
            None => value,
        }
    }

    #[inline]
    fn mark(&mut self, record: u32) {
        if self.record != record {
            self.record = record;
            self.record_start = (self.slots.len(), self.clears.len());
            self.before = None;
        }
    }

    #[inline]
    fn change(&mut self, slot: u32, number: Number) {
        let old = std::mem::replace(&mut self.numbers[slot as usize], number);
        self.before.get_or_insert((slot, old));
    }

    /// Asks the host, after handing over what earlier records added, and puts the record's own additions on top.
    #[cold]
    fn fetch(&mut self, record: u32, slot: u32) {
        self.mark(record);
        let (adds, clears) = self.record_start;
        self.flush(adds, clears);
        self.slots.drain(..adds);
        self.values.drain(..adds);
        self.clears.drain(..clears);
        self.clears.iter_mut().for_each(|(at, _)| *at -= adds);
        self.record_start = (0, 0);
        if self.numbers.is_empty() {
            self.numbers.resize(self.keys as usize, Number::Unread);
            if R::STARTS_AT_ZERO {
                let column = self.handle.load();
                assert!(column.len() == self.numbers.len(), "the host loaded {} numbers for {} keys", column.len(), self.keys);
                for (number, loaded) in self.numbers.iter_mut().zip(column) {
                    *number = Number::Is(loaded);
                }
            }
        }
        if self.numbers[slot as usize] == Number::Unread {
            self.numbers[slot as usize] = self.handle.get(slot).map_or(Number::Absent, Number::Is);
        }
        // Everything left in the log is the record's own, and so of this slot.
        let stored = self.numbers[slot as usize];
        let mut number = match stored {
            Number::Is(number) => Some(number),
            Number::Absent | Number::Unread => None,
        };
        let mut clears = self.clears.iter().peekable();
        for (at, value) in self.values.iter().enumerate() {
            while clears.next_if(|(clear_at, _)| *clear_at <= at).is_some() {
                number = None;
            }
            number = Some(Self::reduced(number, *value));
        }
        if clears.next().is_some() {
            number = None;
        }
        let number = number.map_or(Number::Absent, Number::Is);
        if number != stored {
            self.change(slot, number);
        }
    }

    fn flush(&self, adds: usize, clears: usize) {
        let mut from = 0;
        for &(at, slot) in &self.clears[..clears] {
            self.add_many(from, at);
            self.handle.clear(slot);
            from = at;
        }
        self.add_many(from, adds);
    }

    fn add_many(&self, from: usize, until: usize) {
        if from < until {
            self.handle.add_many(&self.slots[from..until], &self.values[from..until]);
        }
    }
}

impl<R: Reducer> StateField for ReducingState<R> {
    fn declare(options: &StateOptions) -> StateDeclaration {
        let value_type = match R::KIND {
            ReducerKind::SumF64 | ReducerKind::MinF64 | ReducerKind::MaxF64 => "f64",
            _ => "s64",
        };
        options.declare(StateKind::Reducing(R::KIND), value_type.to_owned(), None, Some(8))
    }

    fn open(name: &'static str) -> Self {
        Self {
            handle: platform::ReducingHandle::open(name),
            keys: 0,
            slots: Vec::new(),
            values: Vec::new(),
            clears: Vec::new(),
            record: 0,
            record_start: (0, 0),
            numbers: Vec::new(),
            before: None,
            reducer: PhantomData,
        }
    }

    #[inline]
    fn begin(&mut self, keys: u32) {
        self.keys = keys;
        self.slots.clear();
        self.values.clear();
        self.clears.clear();
        self.numbers.clear();
        self.record = 0;
        self.record_start = (0, 0);
        self.before = None;
    }

    fn undo(&mut self, record: u32) {
        if self.record == record {
            self.slots.truncate(self.record_start.0);
            self.values.truncate(self.record_start.0);
            self.clears.truncate(self.record_start.1);
            if let Some((slot, number)) = self.before.take() {
                self.numbers[slot as usize] = number;
            }
            self.record = 0;
        }
    }

    fn finish(&mut self) {
        self.flush(self.slots.len(), self.clears.len());
    }
}
