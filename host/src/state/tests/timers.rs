//! Timers fire in order, once, and only when the call that they are delivered to commits.

use super::*;

const EVENT: TimeDomain = TimeDomain::EventTime;

fn with_timers() -> KeyedState {
    let mut state = state();
    begin(&mut state, &["a", "b", "c"]);
    state.set_timers(EVENT, &[2, 0, 1, 0, 0], &[10, 20, 10, 10, 10], &[0, 0, 0, 2, 1]).unwrap();
    state.set_timer(0, EVENT, 10, 1).unwrap();
    state.set_timer(0, TimeDomain::ProcessingTime, 1, 1).unwrap();
    assert_eq!(state.next_timer(EVENT), None, "timers are set when the call commits");
    state.commit();
    state
}

fn delivered(state: &KeyedState) -> Vec<(String, i64, u64)> {
    let due = state.due();
    let keys = state.keys_column();
    (0..due.slots.len())
        .map(|at| {
            let key = String::from_utf8(keys.get(due.slots[at] as usize).to_vec()).unwrap();
            (key, due.times[at], due.tags[at])
        })
        .collect()
}

#[test]
fn timers_fire_by_time_then_key_hash_then_tag() {
    let mut state = with_timers();
    assert_eq!((state.next_timer(EVENT), state.timer_count(EVENT)), (Some(10), 5));
    assert!(!state.begin_timers(EVENT, 9, 100, at(9)));
    assert!(state.begin_timers(EVENT, 19, 100, at(19)));
    let first = delivered(&state);
    assert_eq!((first.len(), state.key_count()), (4, 3));
    assert!(first.is_sorted_by_key(|(key, time, tag)| (*time, key_group::hash(key.as_bytes()), *tag)));
    state.rollback();
    assert_eq!(state.timer_count(EVENT), 5, "a rollback leaves them");

    assert!(state.begin_timers(EVENT, i64::MAX, 2, at(19)));
    assert_eq!(delivered(&state), first[..2]);
    state.commit();
    assert!(state.begin_timers(EVENT, i64::MAX, 100, at(20)));
    assert_eq!(delivered(&state)[..2], first[2..]);
    state.commit();
    assert_eq!((state.next_timer(EVENT), state.next_timer(TimeDomain::ProcessingTime)), (None, Some(1)));
    assert_eq!(state.live_keys(), 1);
}

#[test]
fn a_timer_may_set_itself_again() {
    let mut state = with_timers();
    assert!(state.begin_timers(EVENT, 10, 1, at(10)));
    let (slot, time, tag) = (state.due().slots[0], state.due().times[0], state.due().tags[0]);
    state.set_timer(slot, EVENT, time, tag).unwrap();
    state.commit();
    assert_eq!(state.timer_count(EVENT), 5);
}

#[test]
fn a_call_can_be_repeated_with_half_of_its_timers() {
    let mut state = with_timers();
    assert!(state.begin_timers(EVENT, 100, 100, at(100)));
    let timers = state.due().timers.clone();
    state.rollback();

    // The first half cancels one of the second.
    assert!(state.begin_timers_from(EVENT, &timers[..2], at(100)));
    let slot = state.due().slots[0];
    let victim = timers[2..].iter().find(|timer| timer.time() == 10).unwrap();
    let key_is_there = (0..state.key_count())
        .find(|slot| state.keys.hash(state.call.resolved.entries[*slot as usize]) == state.keys.hash(victim.entry()));
    if let Some(slot) = key_is_there {
        state.cancel_timer(slot, EVENT, victim.time(), victim.tag()).unwrap();
    }
    state.value_put(NOTE, slot, b"x").unwrap();
    state.commit();
    let gone = usize::from(key_is_there.is_some());
    assert!(state.begin_timers_from(EVENT, &timers, at(100)));
    assert_eq!(state.due().timers.len(), 3 - gone, "what fired or was cancelled does not come again");
    state.rollback();

    let last = *timers.last().unwrap();
    state.drop_timer(EVENT, last);
    state.drop_timer(EVENT, last);
    assert!(!state.begin_timers_from(EVENT, &[last], at(100)));
    assert_eq!(state.timer_count(EVENT), 2 - gone);
}

#[test]
fn a_timer_that_fires_during_a_drain_is_in_the_snapshot() {
    for full in [false, true] {
        let mut state = with_timers();
        if !full {
            snapshot(&mut state, true);
            begin(&mut state, &["b"]);
            state.cancel_timer(0, EVENT, 10, 0).unwrap();
            state.commit();
            begin(&mut state, &["b"]);
            state.set_timer(0, EVENT, 10, 0).unwrap();
            state.commit();
        }
        state.freeze(full);
        assert!(state.begin_timers(EVENT, 10, 100, at(10)));
        state.commit();
        let mut restored = super::state();
        if !full {
            restored.restore(&snapshot(&mut with_timers(), true).bytes).unwrap();
        }
        restored.restore(&drain_all(&mut state).bytes).unwrap();
        assert_eq!(restored.timer_count(EVENT), 5);
        // And the next snapshot takes them away.
        restored.restore(&snapshot(&mut state, false).bytes).unwrap();
        assert_eq!((restored.timer_count(EVENT), restored.live_keys()), (1, 1));
    }
}
