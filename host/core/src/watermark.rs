//! Watermarks: how far event time has come, at a source and where channels meet.
//!
//! A watermark t says: no record with a timestamp of t or less will come. Where channels meet, the slowest decides; a channel
//! that is idle does not count.
//!
//! Invariants:
//! * a watermark never goes back;
//! * an idle channel holds nobody up, and one that is active again counts when it has caught up with what was already said;
//! * when all are idle the result is that of the furthest one, so the order in which they fell idle does not matter;
//! * the end of time comes only when every channel has reached it: a channel that ended says nothing about one that is idle.

use crate::row::{END_OF_TIME, NO_TIMESTAMP, Timestamp};

/// What a task tells those below it. Of a change in both, becoming active goes first and becoming idle goes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// `NO_TIMESTAMP`: none yet.
    pub watermark: Timestamp,
    pub idle: bool,
}

#[derive(Debug, Clone, Copy)]
struct Channel {
    watermark: Timestamp,
    idle: bool,
    /// False: active again, and still behind what was said without it.
    counts: bool,
}

/// Joins the watermarks of the channels of one task.
///
/// ```
/// use tidegate_core::watermark::{Status, WatermarkMerge};
/// let mut merge = WatermarkMerge::new(2);
/// assert_eq!(merge.watermark(0, 50), None); // channel 1 has said nothing yet
/// assert_eq!(merge.watermark(1, 20), Some(Status { watermark: 20, idle: false }));
/// assert_eq!(merge.idle(1, true), Some(Status { watermark: 50, idle: false }));
/// ```
#[derive(Debug)]
pub struct WatermarkMerge {
    channels: Vec<Channel>,
    status: Status,
}

impl WatermarkMerge {
    pub fn new(channels: usize) -> Self {
        let channel = Channel { watermark: NO_TIMESTAMP, idle: false, counts: true };
        Self { channels: vec![channel; channels], status: Status { watermark: NO_TIMESTAMP, idle: false } }
    }

    /// A channel's watermark. Answers the new status where it changed.
    pub fn watermark(&mut self, channel: usize, watermark: Timestamp) -> Option<Status> {
        let said = self.status.watermark;
        let channel = &mut self.channels[channel];
        channel.watermark = channel.watermark.max(watermark);
        channel.counts |= channel.watermark >= said;
        self.update()
    }

    /// A channel fell idle, or is active again.
    pub fn idle(&mut self, channel: usize, idle: bool) -> Option<Status> {
        let said = self.status.watermark;
        let channel = &mut self.channels[channel];
        if channel.idle == idle {
            return None;
        }
        channel.idle = idle;
        channel.counts = channel.watermark >= said;
        self.update()
    }

    pub fn current(&self) -> Status {
        self.status
    }

    /// What each channel said last.
    pub fn channels(&self) -> impl Iterator<Item = Timestamp> {
        self.channels.iter().map(|channel| channel.watermark)
    }

    fn add_channel(&mut self, watermark: Timestamp) -> usize {
        // A newcomer is late by definition: it counts from where the others are.
        let counts = watermark >= self.status.watermark;
        self.channels.push(Channel { watermark, idle: false, counts });
        self.channels.len() - 1
    }

    fn update(&mut self) -> Option<Status> {
        let mut open = self.channels.iter().filter(|channel| channel.watermark != END_OF_TIME).peekable();
        let status = if open.peek().is_none() {
            Status { watermark: END_OF_TIME, idle: false }
        } else if open.clone().all(|channel| channel.idle) {
            let furthest = open.map(|channel| channel.watermark).max().unwrap_or(NO_TIMESTAMP);
            Status { watermark: furthest.max(self.status.watermark), idle: true }
        } else {
            let slowest = open.filter(|channel| !channel.idle && channel.counts).map(|channel| channel.watermark).min();
            Status { watermark: slowest.unwrap_or(NO_TIMESTAMP).max(self.status.watermark), idle: false }
        };
        (status != self.status).then(|| {
            self.status = status;
            status
        })
    }
}

/// Makes the watermark of one source task from the timestamps of its splits, as Flink's bounded out-of-orderness does:
/// greatest timestamp − out-of-orderness − 1, of the slowest split that is not idle.
///
/// ```
/// use tidegate_core::watermark::WatermarkGenerator;
/// // Up to 5 s out of order; a split without records for 30 s no longer counts.
/// let mut source = WatermarkGenerator::new(5_000, Some(30_000));
/// let (a, b) = (source.add_split(None, 0), source.add_split(None, 0));
/// source.observe(a, 100_000, 10);
/// assert_eq!(source.current().watermark, i64::MIN); // b may bring anything yet
/// source.observe(b, 60_000, 20);
/// assert_eq!(source.current().watermark, 54_999); // a record of 55,000 may still come from b
/// source.tick(25_000);
/// source.observe(a, 100_001, 25_000);
/// source.tick(30_020);
/// assert_eq!(source.current().watermark, 95_000); // b is idle, a alone decides
/// source.observe(b, 61_000, 30_030);
/// assert_eq!(source.current().watermark, 95_000); // b's records are late now
/// source.ended(a);
/// source.ended(b);
/// assert_eq!(source.current().watermark, i64::MAX);
/// ```
#[derive(Debug)]
pub struct WatermarkGenerator {
    out_of_orderness_ms: u64,
    idle_after_ms: Option<u64>,
    splits: Vec<Split>,
    merge: WatermarkMerge,
}

#[derive(Debug)]
struct Split {
    max_timestamp: Timestamp,
    /// Of the last record, or of the start.
    seen_ms: u64,
}

impl WatermarkGenerator {
    pub fn new(out_of_orderness_ms: u64, idle_after_ms: Option<u64>) -> Self {
        Self { out_of_orderness_ms, idle_after_ms, splits: Vec::new(), merge: WatermarkMerge::new(0) }
    }

    /// `max_timestamp` comes from the snapshot where the split was restored. Answers the split's index.
    pub fn add_split(&mut self, max_timestamp: Option<Timestamp>, now_ms: u64) -> usize {
        let max_timestamp = max_timestamp.unwrap_or(NO_TIMESTAMP);
        self.splits.push(Split { max_timestamp, seen_ms: now_ms });
        let split = self.merge.add_channel(NO_TIMESTAMP);
        self.merge.watermark(split, self.watermark_of(max_timestamp));
        split
    }

    /// Records came from a split; `max_timestamp` is the greatest among them, `NO_TIMESTAMP` where none had one.
    pub fn observe(&mut self, split: usize, max_timestamp: Timestamp, now_ms: u64) -> Status {
        let entry = &mut self.splits[split];
        entry.seen_ms = now_ms;
        entry.max_timestamp = entry.max_timestamp.max(max_timestamp);
        let watermark = self.watermark_of(self.splits[split].max_timestamp);
        // Active before the watermark, so that it counts only when it has caught up.
        self.merge.idle(split, false);
        self.merge.watermark(split, watermark);
        self.current()
    }

    /// A split is at its end and holds nobody up any more.
    pub fn ended(&mut self, split: usize) -> Status {
        self.merge.watermark(split, END_OF_TIME);
        self.current()
    }

    /// The reader is at its end, with all its splits or without any.
    pub fn all_ended(&mut self) -> Status {
        for split in 0..self.splits.len() {
            self.merge.watermark(split, END_OF_TIME);
        }
        self.merge.update();
        self.current()
    }

    /// Time went on: splits may have fallen idle.
    pub fn tick(&mut self, now_ms: u64) -> Status {
        if let Some(idle_after_ms) = self.idle_after_ms {
            for (index, split) in self.splits.iter().enumerate() {
                if now_ms.saturating_sub(split.seen_ms) >= idle_after_ms {
                    self.merge.idle(index, true);
                }
            }
        }
        self.current()
    }

    /// When the next `tick` may change something: for a task that waits for input.
    pub fn next_idle_ms(&self) -> Option<u64> {
        let idle_after_ms = self.idle_after_ms?;
        let open = |index: usize| !self.merge.channels[index].idle && self.merge.channels[index].watermark != END_OF_TIME;
        let splits = self.splits.iter().enumerate().filter(|(index, _)| open(*index));
        splits.map(|(_, split)| split.seen_ms.saturating_add(idle_after_ms)).min()
    }

    pub fn current(&self) -> Status {
        self.merge.current()
    }

    /// For the split's snapshot.
    pub fn max_timestamp(&self, split: usize) -> Option<Timestamp> {
        Some(self.splits[split].max_timestamp).filter(|timestamp| *timestamp != NO_TIMESTAMP)
    }

    fn watermark_of(&self, max_timestamp: Timestamp) -> Timestamp {
        let behind = i64::try_from(self.out_of_orderness_ms).unwrap_or(i64::MAX).saturating_add(1);
        // A record that claims the end of time must not end it: only `ended` does.
        max_timestamp.saturating_sub(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(watermark: Timestamp) -> Option<Status> {
        Some(Status { watermark, idle: false })
    }

    fn idle_at(watermark: Timestamp) -> Option<Status> {
        Some(Status { watermark, idle: true })
    }

    #[test]
    fn the_slowest_channel_decides() {
        let mut merge = WatermarkMerge::new(3);
        assert_eq!(merge.watermark(0, 10), None);
        assert_eq!(merge.watermark(1, 30), None);
        assert_eq!(merge.watermark(2, 20), at(10));
        assert_eq!(merge.watermark(0, 25), at(20));
        assert_eq!(merge.watermark(1, 40), None);
    }

    #[test]
    fn an_idle_channel_holds_nobody_up_and_a_returning_one_moves_nothing_back() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(0, 100);
        assert_eq!(merge.watermark(1, 10), at(10));
        assert_eq!(merge.idle(1, true), at(100));
        assert_eq!(merge.idle(1, false), None);
        assert_eq!(merge.watermark(1, 50), None);
        assert_eq!(merge.watermark(0, 200), at(200), "a channel that is still behind does not count");
        assert_eq!(merge.watermark(1, 210), None, "from here on it counts");
        assert_eq!(merge.watermark(0, 300), at(210));
    }

    #[test]
    fn all_idle_is_told_with_the_furthest_watermark() {
        for order in [[0, 1], [1, 0]] {
            let mut merge = WatermarkMerge::new(2);
            merge.watermark(0, 10);
            merge.watermark(1, 50);
            merge.idle(order[0], true);
            merge.idle(order[1], true);
            assert_eq!(merge.current(), Status { watermark: 50, idle: true });
            assert_eq!(merge.idle(0, false), at(50));
        }
    }

    #[test]
    fn an_ended_channel_does_not_end_time_for_an_idle_one() {
        let mut merge = WatermarkMerge::new(2);
        merge.watermark(1, 5);
        assert_eq!(merge.watermark(0, END_OF_TIME), at(5));
        assert_eq!(merge.idle(1, true), idle_at(5));
        assert_eq!(merge.watermark(1, END_OF_TIME), at(END_OF_TIME));
    }

    #[test]
    fn a_split_without_records_holds_the_watermark_until_it_is_idle() {
        let mut source = WatermarkGenerator::new(0, Some(100));
        let (a, b) = (source.add_split(None, 1000), source.add_split(None, 1000));
        assert_eq!(source.observe(a, 500, 1050), Status { watermark: NO_TIMESTAMP, idle: false });
        assert_eq!(source.next_idle_ms(), Some(1100));
        assert_eq!(source.tick(1099), Status { watermark: NO_TIMESTAMP, idle: false });
        assert_eq!(source.tick(1100), Status { watermark: 499, idle: false });
        assert_eq!(source.tick(1150), Status { watermark: 499, idle: true });
        assert_eq!(source.next_idle_ms(), None);
        assert_eq!(source.observe(b, 700, 1200), Status { watermark: 699, idle: false });
    }

    #[test]
    fn a_restored_split_stands_where_it_stood() {
        let mut source = WatermarkGenerator::new(10, None);
        source.add_split(Some(1000), 0);
        assert_eq!(source.current(), Status { watermark: 989, idle: false });
        assert_eq!((source.max_timestamp(0), source.next_idle_ms()), (Some(1000), None));
    }

    #[test]
    fn a_task_without_splits_is_at_the_end_when_its_reader_is() {
        let mut source = WatermarkGenerator::new(0, None);
        assert_eq!(source.current().watermark, NO_TIMESTAMP);
        assert_eq!(source.all_ended(), Status { watermark: END_OF_TIME, idle: false });
    }

    #[test]
    fn a_record_from_the_end_of_time_does_not_end_it() {
        let mut source = WatermarkGenerator::new(0, None);
        let split = source.add_split(None, 0);
        assert_eq!(source.observe(split, i64::MAX, 0).watermark, i64::MAX - 1);
        assert_eq!(source.observe(split, NO_TIMESTAMP, 0).watermark, i64::MAX - 1);
    }

    #[derive(Debug, Clone, Copy)]
    enum Fact {
        Watermark(usize, i64),
        Idle(usize, bool),
    }

    fn facts() -> impl Strategy<Value = Vec<Fact>> {
        let watermark = (0usize..3, -5i64..50).prop_map(|(channel, watermark)| Fact::Watermark(channel, watermark));
        let idle = (0usize..3, any::<bool>()).prop_map(|(channel, idle)| Fact::Idle(channel, idle));
        prop::collection::vec(prop_oneof![3 => watermark, 1 => idle], 0..60)
    }

    proptest! {
        #[test]
        fn the_merged_watermark_never_goes_back_and_never_passes_a_channel_that_kept_up(facts in facts()) {
            let mut merge = WatermarkMerge::new(3);
            let (mut channels, mut ever_idle, mut before) = ([NO_TIMESTAMP; 3], false, NO_TIMESTAMP);
            for fact in facts {
                match fact {
                    Fact::Watermark(channel, watermark) => {
                        channels[channel] = channels[channel].max(watermark);
                        merge.watermark(channel, watermark);
                    }
                    Fact::Idle(channel, idle) => {
                        ever_idle |= idle;
                        merge.idle(channel, idle);
                    }
                }
                let now = merge.current().watermark;
                prop_assert!(now >= before);
                prop_assert!(now <= channels.into_iter().max().unwrap());
                if !ever_idle {
                    prop_assert_eq!(now, channels.into_iter().min().unwrap());
                }
                before = now;
            }
        }
    }
}
