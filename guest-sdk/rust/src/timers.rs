//! Timers set and cancelled by a call, in order, and handed over at its end. Undo cuts the log back.

use crate::declaration::TimeDomain;
use crate::platform;
use crate::record::Timestamp;

#[derive(Debug, Clone, Copy)]
struct TimerOp {
    slot: u32,
    cancel: bool,
    domain: TimeDomain,
    time: Timestamp,
    tag: u64,
}

#[derive(Debug, Default)]
pub(crate) struct TimerLog {
    ops: Vec<TimerOp>,
    /// The record that wrote last, and where its part begins.
    record: u32,
    record_start: usize,
    slots: Vec<u32>,
    times: Vec<Timestamp>,
    tags: Vec<u64>,
}

impl TimerLog {
    #[inline]
    pub fn push(&mut self, record: u32, slot: u32, domain: TimeDomain, time: Timestamp, tag: u64, cancel: bool) {
        if self.record != record {
            self.record = record;
            self.record_start = self.ops.len();
        }
        self.ops.push(TimerOp { slot, cancel, domain, time, tag });
    }

    pub fn clear(&mut self) {
        self.ops.clear();
        self.record = 0;
    }

    pub fn undo(&mut self, record: u32) {
        if self.record == record {
            self.ops.truncate(self.record_start);
            self.record = 0;
        }
    }

    /// One call to the host for each run of the same kind: the order between setting and cancelling matters.
    pub fn flush(&mut self) {
        let Self { ops, slots, times, tags, .. } = self;
        for run in ops.chunk_by(|a, b| (a.cancel, a.domain) == (b.cancel, b.domain)) {
            slots.clear();
            times.clear();
            tags.clear();
            for op in run {
                slots.push(op.slot);
                times.push(op.time);
                tags.push(op.tag);
            }
            if run[0].cancel {
                platform::cancel_timers(run[0].domain, slots, times, tags);
            } else {
                platform::set_timers(run[0].domain, slots, times, tags);
            }
        }
        self.clear();
    }
}
