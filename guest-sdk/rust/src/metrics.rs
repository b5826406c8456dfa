//! Metrics of the operator's own, shown as `tidegate_guest_<name>`. They count with the result of a call, and a rejected record
//! leaves no trace in them.

use crate::context::Ctx;
use crate::platform;

/// Counts what happened.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// # #[operator] struct Doc {
/// late_flights: Counter,
/// # }
/// # impl Operator for Doc { fn process(&mut self, _: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
/// self.late_flights.add(ctx, 1);
/// # Ok(()) } }
/// ```
#[derive(Debug)]
pub struct Counter {
    handle: platform::Counter,
    sum: u64,
    record: u32,
    before: u64,
}

/// Shows the last value.
#[derive(Debug)]
pub struct Gauge {
    handle: platform::Gauge,
    value: Option<f64>,
    record: u32,
    before: Option<f64>,
}

/// Shows how values are distributed.
#[derive(Debug)]
pub struct Histogram {
    handle: platform::Histogram,
    values: Vec<f64>,
    record: u32,
    before: usize,
}

/// What the attribute calls on every metric field.
#[doc(hidden)]
pub trait MetricField: Sized {
    fn open(name: &str) -> Self;
    fn begin(&mut self);
    fn undo(&mut self, record: u32);
    fn finish(&mut self);
}

impl Counter {
    #[inline]
    pub fn add(&mut self, ctx: &Ctx<'_>, n: u64) {
        if self.record != ctx.record {
            (self.record, self.before) = (ctx.record, self.sum);
        }
        self.sum = self.sum.saturating_add(n);
    }
}

impl Gauge {
    #[inline]
    pub fn set(&mut self, ctx: &Ctx<'_>, value: f64) {
        if self.record != ctx.record {
            (self.record, self.before) = (ctx.record, self.value);
        }
        self.value = Some(value);
    }
}

impl Histogram {
    #[inline]
    pub fn observe(&mut self, ctx: &Ctx<'_>, value: f64) {
        if self.record != ctx.record {
            (self.record, self.before) = (ctx.record, self.values.len());
        }
        self.values.push(value);
    }
}

impl MetricField for Counter {
    fn open(name: &str) -> Self {
        Self { handle: platform::Counter::new(name), sum: 0, record: 0, before: 0 }
    }

    fn begin(&mut self) {
        (self.sum, self.record) = (0, 0);
    }

    fn undo(&mut self, record: u32) {
        if self.record == record {
            self.sum = self.before;
        }
    }

    fn finish(&mut self) {
        if self.sum != 0 {
            self.handle.add(self.sum);
        }
    }
}

impl MetricField for Gauge {
    fn open(name: &str) -> Self {
        Self { handle: platform::Gauge::new(name), value: None, record: 0, before: None }
    }

    fn begin(&mut self) {
        (self.value, self.record) = (None, 0);
    }

    fn undo(&mut self, record: u32) {
        if self.record == record {
            self.value = self.before;
        }
    }

    fn finish(&mut self) {
        if let Some(value) = self.value {
            self.handle.set(value);
        }
    }
}

impl MetricField for Histogram {
    fn open(name: &str) -> Self {
        Self { handle: platform::Histogram::new(name), values: Vec::new(), record: 0, before: 0 }
    }

    fn begin(&mut self) {
        self.values.clear();
        self.record = 0;
    }

    fn undo(&mut self, record: u32) {
        if self.record == record {
            self.values.truncate(self.before);
        }
    }

    fn finish(&mut self) {
        if !self.values.is_empty() {
            self.handle.observe(&self.values);
        }
    }
}
