//! Timers of keys, by domain, in the order in which they fire.
//!
//! Setting, cancelling and firing are noted during a call and applied at its commit, so a rollback has nothing to undo.
//!
//! Invariants:
//! * `of_entry` counts the timers of each key;
//! * a timer is in the set once, with the epoch in which it was set (`since`; [`SETTLED`] once a snapshot holds it);
//! * `set_list` names what was set in this epoch; what is no longer in the set under the same number is void;
//! * `removed` names what left the set and is in the last snapshot: the key of each is kept by a reference until it is drained;
//! * what a running drain has not reached yet is emitted before it leaves the set.

use super::key_table::{Entry, KeyTable};
use super::record::{Op, Record, timer_sub};
use super::snapshot::Snapshot;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// A timer of this task. Ordered as timers fire; good for as long as the timer is set, across calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    time: i64,
    hash: u64,
    entry: Entry,
    tag: u64,
}

impl Timer {
    pub(super) fn new(time: i64, hash: u64, entry: Entry, tag: u64) -> Self {
        Self { time, hash, entry, tag }
    }

    pub fn time(&self) -> i64 {
        self.time
    }

    pub fn tag(&self) -> u64 {
        self.tag
    }

    pub(super) fn entry(&self) -> Entry {
        self.entry
    }
}

/// No epoch: those begin with 1.
const SETTLED: u32 = 0;

#[derive(Clone, Copy)]
struct Set {
    since: u32,
    seq: u32,
}

pub(super) struct Timers {
    /// What stands for the state's number in segments.
    state: u16,
    set: BTreeMap<Timer, Set>,
    of_entry: Vec<u32>,
    seq: u32,
    set_list: VecDeque<(Timer, u32)>,
    removed: VecDeque<Timer>,
    frozen_set_list: VecDeque<(Timer, u32)>,
    frozen_removed: VecDeque<Timer>,
    /// The last timer that a full drain has visited.
    drained_to: Option<Timer>,
    drain_is_done: bool,
}

impl Timers {
    pub fn new(state: u16) -> Self {
        Self {
            state,
            set: BTreeMap::new(),
            of_entry: Vec::new(),
            seq: 0,
            set_list: VecDeque::new(),
            removed: VecDeque::new(),
            frozen_set_list: VecDeque::new(),
            frozen_removed: VecDeque::new(),
            drained_to: None,
            drain_is_done: true,
        }
    }

    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// About: a node of a tree is mostly a good half full.
    pub fn bytes(&self) -> usize {
        self.set.len() * (size_of::<Timer>() + size_of::<Set>()) * 3 / 2
            + self.set_list.len() * size_of::<(Timer, u32)>()
            + self.of_entry.len() * size_of::<u32>()
    }

    /// Timers of one key.
    pub fn count_of(&self, entry: Entry) -> u32 {
        self.of_entry.get(entry as usize).copied().unwrap_or(0)
    }

    fn count_one_more(&mut self, entry: Entry) {
        if self.of_entry.len() <= entry as usize {
            self.of_entry.resize(entry as usize + 1, 0);
        }
        self.of_entry[entry as usize] += 1;
    }

    pub fn dirty(&self) -> usize {
        self.set_list.len() + self.removed.len()
    }

    pub fn next(&self) -> Option<i64> {
        self.set.first_key_value().map(|(timer, _)| timer.time)
    }

    pub fn contains(&self, timer: &Timer) -> bool {
        self.set.contains_key(timer)
    }

    pub fn due(&self, up_to: i64) -> impl Iterator<Item = Timer> {
        self.set.keys().copied().take_while(move |timer| timer.time <= up_to)
    }

    pub fn insert(&mut self, timer: Timer, keys: &mut KeyTable, snapshot: &Snapshot) {
        if self.set.contains_key(&timer) {
            return;
        }
        self.seq = self.seq.wrapping_add(1);
        self.set.insert(timer, Set { since: snapshot.epoch, seq: self.seq });
        self.count_one_more(timer.entry);
        self.set_list.push_back((timer, self.seq));
        keys.add_ref(timer.entry);
        self.forget_void_changes();
    }

    /// Without checkpoints nobody empties the list: a few of the oldest are looked at whenever most of it may be void.
    fn forget_void_changes(&mut self) {
        if self.set_list.len() < 2 * self.set.len() + 1024 {
            return;
        }
        for _ in 0..4 {
            let Some((timer, seq)) = self.set_list.pop_front() else { return };
            if self.set.get(&timer).is_some_and(|set| set.seq == seq) {
                self.set_list.push_back((timer, seq));
            }
        }
    }

    pub fn remove(&mut self, timer: Timer, keys: &mut KeyTable, snapshot: &mut Snapshot, garbage: &mut Vec<Entry>) {
        let Some(set) = self.set.remove(&timer) else { return };
        self.of_entry[timer.entry as usize] -= 1;
        if set.since == snapshot.epoch {
            // No snapshot knows it.
            if keys.drop_ref(timer.entry) {
                garbage.push(timer.entry);
            }
            return;
        }
        if !self.drain_is_done && self.is_undrained(&timer, set, snapshot) {
            self.emit(&timer, Op::Put, keys, snapshot);
        }
        // The set's reference to the key goes over to the list.
        self.removed.push_back(timer);
    }

    fn is_undrained(&self, timer: &Timer, set: Set, snapshot: &Snapshot) -> bool {
        match snapshot.full {
            true => self.drained_to.is_none_or(|drained| *timer > drained),
            false => set.since + 1 == snapshot.epoch,
        }
    }

    fn emit(&self, timer: &Timer, op: Op, keys: &KeyTable, snapshot: &mut Snapshot) {
        snapshot.out.push(&Record {
            hash: timer.hash,
            key: keys.key(timer.entry),
            state: self.state,
            op,
            sub: &timer_sub(timer.time, timer.tag),
            stamp: None,
            value: &[],
        });
    }

    pub fn freeze(&mut self) {
        assert!(self.drain_is_done, "BUG: a freeze before the last one was drained");
        self.frozen_set_list = std::mem::take(&mut self.set_list);
        self.frozen_removed = std::mem::take(&mut self.removed);
        self.drained_to = None;
        self.drain_is_done = false;
    }

    /// Emits what was removed and what was set. Of a timer that was both, what says "set" is what holds at the freeze, in
    /// whatever order the two come out.
    pub fn drain(&mut self, budget: &mut usize, keys: &mut KeyTable, snapshot: &mut Snapshot, garbage: &mut Vec<Entry>) -> bool {
        if self.drain_is_done {
            return true;
        }
        while let Some(timer) = self.frozen_removed.front().copied() {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            self.frozen_removed.pop_front();
            if !snapshot.full {
                self.emit(&timer, Op::Remove, keys, snapshot);
            }
            if keys.drop_ref(timer.entry) {
                garbage.push(timer.entry);
            }
        }
        while let Some((timer, seq)) = self.frozen_set_list.front().copied() {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            self.frozen_set_list.pop_front();
            let Some(set) = self.set.get_mut(&timer).filter(|set| set.seq == seq) else { continue };
            if !snapshot.full {
                set.since = SETTLED;
                self.emit(&timer, Op::Put, keys, snapshot);
            }
        }
        if snapshot.full && !self.drain_all(budget, keys, snapshot) {
            return false;
        }
        self.frozen_set_list = VecDeque::new();
        self.frozen_removed = VecDeque::new();
        self.drain_is_done = true;
        true
    }

    fn drain_all(&mut self, budget: &mut usize, keys: &KeyTable, snapshot: &mut Snapshot) -> bool {
        loop {
            let from = self.drained_to.map_or(Bound::Unbounded, Bound::Excluded);
            let (mut visited, mut last) = (0, None);
            for (timer, set) in self.set.range((from, Bound::Unbounded)).take(*budget) {
                visited += 1;
                last = Some(*timer);
                if set.since != snapshot.epoch {
                    self.emit(timer, Op::Put, keys, snapshot);
                }
            }
            if visited == 0 {
                return *budget > 0;
            }
            *budget -= visited;
            self.drained_to = last;
        }
    }

    /// Takes over a timer as a segment has it.
    pub fn restore(&mut self, timer: Timer, op: Op, keys: &mut KeyTable, garbage: &mut Vec<Entry>) {
        if op == Op::Remove {
            if self.set.remove(&timer).is_some() {
                self.of_entry[timer.entry as usize] -= 1;
                if keys.drop_ref(timer.entry) {
                    garbage.push(timer.entry);
                }
            }
        } else if self.set.insert(timer, Set { since: SETTLED, seq: 0 }).is_none() {
            self.count_one_more(timer.entry);
            keys.add_ref(timer.entry);
        }
    }
}
