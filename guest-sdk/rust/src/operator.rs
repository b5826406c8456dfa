//! The one trait that an author writes, and how it is driven.
//!
//! Invariants of the drive:
//! * every call begins with clean journals, whatever the call before it came to;
//! * after a rejected record, state, timers, metrics and outputs are what they were before it;
//! * everything is handed to the host at the end of the call and none of it when the call fails.

use crate::context::{Call, Context, Ctx, NO_SLOT, Timer};
use crate::declaration::{BatchInput, Descriptor, Failure, RejectedRow, TimerInput};
use crate::error::{RecordError, StartError, Verdict};
use crate::output::Outputs;
use crate::record::Record;
use crate::timers::TimerLog;

/// A stream operator. The [`#[operator]`](macro@crate::operator) attribute on the struct makes the fields work and exports it.
pub trait Operator: Parts {
    /// Called once in each instance, when state handles are open and `#[config]` fields are set: the place to look at them together.
    /// An instance must be able to start in the middle of a stream.
    fn start(&mut self, ctx: &Context) -> Result<(), StartError> {
        let _ = ctx;
        Ok(())
    }

    /// Called for each record. An error rejects the record and undoes what was done for it.
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError>;

    /// Called for each timer that is due.
    fn on_timer(&mut self, timer: &Timer<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let _ = ctx;
        Err(RecordError::fatal(format!("a timer for {} was set and the operator has no on_timer", timer.time)))
    }
}

/// What the attribute writes.
#[doc(hidden)]
pub trait Parts: Sized {
    fn describe() -> Descriptor;
    fn open(ctx: &Context) -> Result<Self, StartError>;
    fn begin(&mut self, keys: u32);
    fn undo(&mut self, record: u32);
    fn finish(&mut self);
}

/// A started operator.
#[doc(hidden)]
#[derive(Debug)]
pub struct Instance<O> {
    operator: O,
    call: Call,
}

impl<O: Operator> Instance<O> {
    pub fn start(context: &Context) -> Result<Self, Failure> {
        let started = O::open(context).and_then(|mut operator| {
            operator.start(context)?;
            context.refuse_unknown_options()?;
            Ok(operator)
        });
        match started {
            Ok(operator) => {
                let outputs = Outputs::new(O::describe().outputs.len());
                Ok(Self { operator, call: Call { outputs, timers: TimerLog::default() } })
            }
            Err(StartError { reason, transient: true }) => Err(Failure::Transient(reason)),
            Err(StartError { reason, transient: false }) => Err(Failure::Fatal(reason)),
        }
    }

    pub fn process_batch(&mut self, batch: &BatchInput<'_>) -> Result<Vec<RejectedRow>, Failure> {
        self.begin(batch.key_count);
        let mut rejected = Vec::new();
        let mut rest = batch.rows;
        for row in 0..batch.count {
            let (record, len) = Record::first(rest);
            rest = &rest[len..];
            let mut ctx = Ctx {
                call: &mut self.call,
                key: record.key(),
                record: row + 1,
                slot: batch.slots.get(row as usize).copied().unwrap_or(NO_SLOT),
                row: Some(row),
                input: batch.input,
                timestamp: record.raw_timestamp(),
                watermark: batch.watermark,
                processing_time: batch.processing_time,
            };
            if let Err(error) = self.operator.process(&record, &mut ctx) {
                rejected.push(self.reject(row, error)?);
            }
        }
        self.finish();
        Ok(rejected)
    }

    pub fn on_timers(&mut self, due: &TimerInput<'_>) -> Result<Vec<RejectedRow>, Failure> {
        let keys = due.key_offsets.len().saturating_sub(1);
        self.begin(keys as u32);
        let mut rejected = Vec::new();
        for (index, ((&slot, &time), &tag)) in due.slots.iter().zip(due.times).zip(due.tags).enumerate() {
            let (first, last) = (due.key_offsets[slot as usize], due.key_offsets[slot as usize + 1]);
            let key = &due.key_data[first as usize..last as usize];
            let mut ctx = Ctx {
                call: &mut self.call,
                key,
                record: index as u32 + 1,
                slot,
                row: None,
                input: 0,
                timestamp: time,
                watermark: due.watermark,
                processing_time: due.processing_time,
            };
            if let Err(error) = self.operator.on_timer(&Timer { key, domain: due.domain, time, tag }, &mut ctx) {
                rejected.push(self.reject(index as u32, error)?);
            }
        }
        self.finish();
        Ok(rejected)
    }

    fn begin(&mut self, keys: u32) {
        self.operator.begin(keys);
        self.call.outputs.clear();
        self.call.timers.clear();
    }

    #[cold]
    fn reject(&mut self, row: u32, error: RecordError) -> Result<RejectedRow, Failure> {
        match error.0 {
            Verdict::Rejected(reason) => {
                self.operator.undo(row + 1);
                self.call.outputs.undo(row + 1);
                self.call.timers.undo(row + 1);
                Ok(RejectedRow { row, reason })
            }
            Verdict::Fatal(reason) => Err(Failure::Fatal(reason)),
            Verdict::Transient(reason) => Err(Failure::Transient(reason)),
        }
    }

    fn finish(&mut self) {
        self.operator.finish();
        self.call.timers.flush();
        self.call.outputs.flush();
    }
}

/// Exports an operator. Written by the attribute, once in a component.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_operator {
    ($operator:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, unused_qualifications)]
        const _: () = {
            impl $crate::__private::Exported for $operator {
                fn with_instance<R>(run: impl FnOnce(&mut Option<$crate::__private::Instance<Self>>) -> R) -> R {
                    ::std::thread_local! {
                        static INSTANCE: ::core::cell::RefCell<Option<$crate::__private::Instance<$operator>>> =
                            const { ::core::cell::RefCell::new(None) };
                    }
                    INSTANCE.with_borrow_mut(run)
                }
            }
            type Component = $crate::__private::Component<$operator>;
    $crate::__private::bindings::export!(Component with_types_in $crate::__private::bindings);
        };
    };
}
