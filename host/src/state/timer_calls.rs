//! Timers as calls see them: set, cancelled, and handed over when they are due.

use super::timers::Timer;
use super::{CallTime, KeyedState, Slot, StateError, domain_index};
use std::collections::HashMap;
use tidegate_core::state_schema::TimeDomain;

/// The timers that a call delivers, in the order in which they fire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DueTimers {
    pub domain: Option<TimeDomain>,
    pub slots: Vec<Slot>,
    pub times: Vec<i64>,
    pub tags: Vec<u64>,
    /// The same as names that outlive the call, for [`KeyedState::begin_timers_from`] and [`KeyedState::drop_timer`].
    pub timers: Vec<Timer>,
}

struct Change {
    slot: Slot,
    domain: TimeDomain,
    timer: Timer,
    set: bool,
}

#[derive(Default)]
pub(super) struct CallTimers {
    due: DueTimers,
    changes: Vec<Change>,
    sets: u32,
    cancels: u32,
}

impl CallTimers {
    pub fn clear(&mut self) {
        let DueTimers { domain, slots, times, tags, timers } = &mut self.due;
        *domain = None;
        slots.clear();
        times.clear();
        tags.clear();
        timers.clear();
        self.changes.clear();
        self.changes.shrink_to(4096);
        (self.sets, self.cancels) = (0, 0);
    }
}

fn domain_name(domain: TimeDomain) -> &'static str {
    match domain {
        TimeDomain::EventTime => "event-time timers",
        TimeDomain::ProcessingTime => "processing-time timers",
    }
}

impl KeyedState {
    /// Begins a call that delivers the first `max` timers with a time up to `up_to`. False: none is due, and no call is open.
    /// They are gone when the call commits, before what it sets is added; a rollback leaves them where they are.
    pub fn begin_timers(&mut self, domain: TimeDomain, up_to: i64, max: usize, now: CallTime) -> bool {
        assert!(!self.call.open, "BUG: a call begins within a call");
        let due: Vec<Timer> = self.timers[domain_index(domain)].due(up_to).take(max).collect();
        self.begin_timers_from(domain, &due, now)
    }

    /// The same with some of the timers of an earlier call that was rolled back. Those that are no longer set are left out.
    pub fn begin_timers_from(&mut self, domain: TimeDomain, timers: &[Timer], now: CallTime) -> bool {
        let set = &self.timers[domain_index(domain)];
        let mut timers: Vec<Timer> = timers.iter().copied().filter(|timer| set.contains(timer)).collect();
        if timers.is_empty() {
            return false;
        }
        timers.sort_unstable();
        timers.dedup();
        self.begin(now);
        let due = &mut self.call.timers.due;
        due.domain = Some(domain);
        for timer in &timers {
            due.slots.push(self.keys.assign(timer.entry(), &mut self.call.resolved.entries));
            due.times.push(timer.time());
            due.tags.push(timer.tag());
        }
        due.timers = timers;
        true
    }

    /// The timers of the open call; none in a call that delivers records.
    pub fn due(&self) -> &DueTimers {
        &self.call.timers.due
    }

    /// Takes a timer out for good, between calls: it can't be delivered.
    pub fn drop_timer(&mut self, domain: TimeDomain, timer: Timer) {
        assert!(!self.call.open, "BUG: a timer is dropped within a call");
        self.timers[domain_index(domain)].remove(timer, &mut self.keys, &mut self.snapshot, &mut self.garbage);
        self.collect_garbage();
    }

    /// The time of the next timer, as of the last commit.
    pub fn next_timer(&self, domain: TimeDomain) -> Option<i64> {
        self.timers[domain_index(domain)].next()
    }

    /// Timers that are set.
    pub fn timer_count(&self, domain: TimeDomain) -> usize {
        self.timers[domain_index(domain)].len()
    }

    pub fn set_timer(&mut self, slot: Slot, domain: TimeDomain, time: i64, tag: u64) -> Result<(), StateError> {
        self.change_timer(slot, domain, time, tag, true)
    }

    pub fn cancel_timer(&mut self, slot: Slot, domain: TimeDomain, time: i64, tag: u64) -> Result<(), StateError> {
        self.change_timer(slot, domain, time, tag, false)
    }

    /// Columns: one timer for each element.
    pub fn set_timers(&mut self, domain: TimeDomain, slots: &[Slot], times: &[i64], tags: &[u64]) -> Result<(), StateError> {
        self.change_timers(domain, slots, times, tags, true)
    }

    pub fn cancel_timers(&mut self, domain: TimeDomain, slots: &[Slot], times: &[i64], tags: &[u64]) -> Result<(), StateError> {
        self.change_timers(domain, slots, times, tags, false)
    }

    fn change_timers(
        &mut self,
        domain: TimeDomain,
        slots: &[Slot],
        times: &[i64],
        tags: &[u64],
        set: bool,
    ) -> Result<(), StateError> {
        for (what, values) in [("times", times.len()), ("tags", tags.len())] {
            if values != slots.len() {
                let state = domain_name(domain).to_owned();
                return Err(StateError::UnequalColumns { state, slots: slots.len(), what, values });
            }
        }
        for ((slot, time), tag) in slots.iter().zip(times).zip(tags) {
            self.change_timer(*slot, domain, *time, *tag, set)?;
        }
        Ok(())
    }

    fn change_timer(&mut self, slot: Slot, domain: TimeDomain, time: i64, tag: u64, set: bool) -> Result<(), StateError> {
        assert!(self.call.open, "BUG: a timer is set outside a call");
        let entries = &self.call.resolved.entries;
        let Some(entry) = entries.get(slot as usize).copied() else {
            let state = domain_name(domain).to_owned();
            return Err(StateError::UnknownSlot { state, slot, keys: entries.len() as u32 });
        };
        let calls = &mut self.call.timers;
        let (count, what) = match set {
            true => (&mut calls.sets, "timers set in one call"),
            false => (&mut calls.cancels, "timers cancelled in one call"),
        };
        *count += 1;
        let limit = self.limits.timers_per_call_max;
        if *count > limit {
            return Err(StateError::TooMany {
                state: domain_name(domain).to_owned(),
                what,
                count: u64::from(*count),
                limit: u64::from(limit),
                name: "timers_per_call_max",
            });
        }
        calls.changes.push(Change { slot, domain, timer: Timer::new(time, self.keys.hash(entry), entry, tag), set });
        Ok(())
    }

    /// Whether the keys of the call will have more timers than they may when it commits. What it sets and cancels again does not count.
    pub fn check_timers(&self) -> Result<(), StateError> {
        let limit = self.limits.timers_per_key_max;
        let calls = &self.call.timers;
        if calls.sets == 0 {
            return Ok(());
        }
        let entries = &self.call.resolved.entries;
        let mut sets = vec![0u32; entries.len()];
        calls.changes.iter().filter(|change| change.set).for_each(|change| sets[change.slot as usize] += 1);
        let now = |entry| self.timers.iter().map(|timers| timers.count_of(entry)).sum::<u32>();
        for (entry, _) in entries.iter().copied().zip(sets).filter(|(entry, sets)| now(*entry).saturating_add(*sets) > limit) {
            // The same timer may be set for every record of a batch: only here is each looked at.
            let mut changed: HashMap<(usize, Timer), bool> = HashMap::new();
            if let Some(domain) = calls.due.domain {
                let due = calls.due.timers.iter().filter(|timer| timer.entry() == entry);
                changed.extend(due.map(|timer| ((domain_index(domain), *timer), false)));
            }
            for change in calls.changes.iter().filter(|change| change.timer.entry() == entry) {
                changed.insert((domain_index(change.domain), change.timer), change.set);
            }
            let mut count = u64::from(now(entry));
            for ((domain, timer), set) in &changed {
                match (self.timers[*domain].contains(timer), set) {
                    (false, true) => count += 1,
                    (true, false) => count -= 1,
                    _ => {}
                }
            }
            if count > u64::from(limit) {
                return Err(StateError::TooManyTimers { count, limit });
            }
        }
        Ok(())
    }

    /// At the commit: what was delivered goes, then what the call set and cancelled applies, in its order.
    pub(super) fn apply_timers(&mut self) {
        let Self { call, timers, keys, snapshot, garbage, .. } = self;
        if let Some(domain) = call.timers.due.domain {
            for timer in &call.timers.due.timers {
                timers[domain_index(domain)].remove(*timer, keys, snapshot, garbage);
            }
        }
        for change in &call.timers.changes {
            let timers = &mut timers[domain_index(change.domain)];
            match change.set {
                true => timers.insert(change.timer, keys, snapshot),
                false => timers.remove(change.timer, keys, snapshot, garbage),
            }
        }
    }
}
