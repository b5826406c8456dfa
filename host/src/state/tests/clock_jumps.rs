//! The wall clock may be another one after a restart: a day behind what a snapshot was written at, or years ahead. Processing time
//! takes part in that; what must not happen is that anything is lost early, fires twice, or panics.

use super::*;
use tidegate_core::state_schema::TimeDomain::ProcessingTime;

const NOW: i64 = 1_700_000_000_000;
const DAY: i64 = 86_400_000;
const TEN_YEARS: i64 = 3653 * DAY;
const TTL: i64 = 10_000;

fn when(processing_time: i64) -> CallTime {
    CallTime { watermark: 0, processing_time }
}

fn expiring() -> Vec<StateDeclaration> {
    let ttl = ttl(TTL as u64, ProcessingTime);
    declarations().into_iter().map(|declared| StateDeclaration { ttl, ..declared }).collect()
}

fn write(state: &mut KeyedState, key: &[u8], now: i64) {
    state.begin_key(key, when(now));
    state.value_put(NOTE, 0, b"note").unwrap();
    state.reducing_add(SUM, 0, 5).unwrap();
    state.map_put(WINDOW, 0, b"w", b"x").unwrap();
    state.list_add(LOG, 0, b"x").unwrap();
    state.commit();
}

/// How many of the four states of a key hold something.
fn live(state: &mut KeyedState, key: &[u8], now: i64) -> usize {
    state.begin_key(key, when(now));
    let live = [
        state.value_get(NOTE, 0).unwrap().is_some(),
        state.reducing_get(SUM, 0).unwrap().is_some(),
        !state.map_is_empty(WINDOW, 0).unwrap(),
        state.list_length(LOG, 0).unwrap() > 0,
    ];
    state.rollback();
    live.into_iter().filter(|live| *live).count()
}

fn restored(declarations: &[StateDeclaration], segment: &Segment) -> KeyedState {
    let mut state = state_of(declarations, 0..GROUPS);
    state.restore(&segment.bytes).unwrap();
    state
}

#[test]
fn state_of_a_time_that_is_still_to_come_lives_until_its_own_end() {
    let mut first = state_of(&expiring(), 0..GROUPS);
    write(&mut first, b"old", NOW);
    let mut state = restored(&expiring(), &snapshot(&mut first, true));
    // A day back, and a clock that was never set.
    for now in [NOW - DAY, 0, -1, i64::MIN + 1] {
        assert_eq!(live(&mut state, b"old", now), 4, "{now}");
        for _ in 0..100 {
            state.sweep(100, when(now));
        }
    }
    assert_eq!(state.live_entries(), 4, "sweeps look at the same clock");
    // What is written now lives as long as it was declared to, by the clock that there is.
    write(&mut state, b"new", NOW - DAY);
    assert_eq!(live(&mut state, b"new", NOW - DAY + TTL - 1), 4);
    assert_eq!(live(&mut state, b"new", NOW - DAY + TTL), 0);
    // A write to the old ones is a write of now, wherever the old stamp was. Lists have a stamp for each element.
    write(&mut state, b"old", NOW - DAY);
    let mut again = restored(&expiring(), &snapshot(&mut state, true));
    for state in [&mut state, &mut again] {
        assert_eq!(live(state, b"old", NOW - DAY + TTL - 1), 4);
        assert_eq!((live(state, b"old", NOW + TTL - 1) <= 1, live(state, b"old", NOW + TTL)), (true, 0));
    }
}

#[test]
fn a_clock_ten_years_ahead_ends_what_was_written_before_and_nothing_that_is_written_then() {
    let mut first = state_of(&expiring(), 0..GROUPS);
    write(&mut first, b"k", NOW);
    let mut state = restored(&expiring(), &snapshot(&mut first, true));
    let ahead = NOW + TEN_YEARS;
    assert_eq!(live(&mut state, b"k", ahead), 0);
    write(&mut state, b"k", ahead);
    assert_eq!(live(&mut state, b"k", ahead + TTL - 1), 4);
    // Put right again: what was written meanwhile lives on, and nothing else is touched.
    let mut state = restored(&expiring(), &snapshot(&mut state, true));
    assert_eq!(live(&mut state, b"k", NOW), 4);
    write(&mut state, b"k", NOW);
    assert_eq!(live(&mut state, b"k", NOW + TTL - 1), 4);
}

#[test]
fn state_without_a_stamp_counts_from_the_first_time_of_this_run_however_the_clock_goes_then() {
    let mut first = state();
    write(&mut first, b"k", NOW);
    let segment = snapshot(&mut first, true);
    for begin in [NOW - DAY, NOW + TEN_YEARS, 0] {
        let mut state = restored(&expiring(), &segment);
        assert_eq!(live(&mut state, b"k", begin), 4);
        assert_eq!(live(&mut state, b"k", begin - DAY), 4, "back");
        assert_eq!((live(&mut state, b"k", begin + TTL - 1), live(&mut state, b"k", begin + TTL)), (4, 0));
    }
}

#[test]
fn the_ends_of_time_are_times() {
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX];
    for written in ends {
        let mut first = state_of(&expiring(), 0..GROUPS);
        write(&mut first, b"k", written);
        first.begin_key(b"k", when(written));
        for (tag, time) in (0..).zip(ends) {
            first.set_timer(0, ProcessingTime, time, tag).unwrap();
        }
        first.commit();
        let segment = snapshot(&mut first, true);
        for now in ends {
            let mut state = restored(&expiring(), &segment);
            // The least time is read as none: see the clock.
            let is_expired = now != i64::MIN && written != i64::MIN && now as i128 - written as i128 >= TTL as i128;
            assert_eq!(live(&mut state, b"k", now), if is_expired { 0 } else { 4 }, "written at {written}, read at {now}");
            state.sweep(100, when(now));
            let due = ends.iter().filter(|time| **time <= now).count();
            assert!(state.begin_timers(ProcessingTime, now, 100, when(now)));
            assert_eq!(state.due().times.len(), due);
            state.commit();
            assert_eq!(state.timer_count(ProcessingTime), ends.len() - due);
        }
    }
}

#[test]
fn timers_wait_for_their_own_time_and_each_fires_once() {
    let mut first = state();
    for (key, delay) in [(&b"a"[..], 1000), (b"b", 2000), (b"a", 3000), (b"c", TEN_YEARS / 2), (b"c", TEN_YEARS * 2)] {
        first.begin_key(key, when(NOW));
        first.set_timer(0, ProcessingTime, NOW + delay, delay as u64).unwrap();
        first.commit();
    }
    let segment = snapshot(&mut first, true);
    let fire = |state: &mut KeyedState, now: i64| -> Vec<i64> {
        if !state.begin_timers(ProcessingTime, now, 100, when(now)) {
            return Vec::new();
        }
        let times = state.due().times.clone();
        state.commit();
        times.iter().map(|time| time - NOW).collect()
    };
    // A day back: late, in their order, when their time has come.
    let mut state = restored(&declarations(), &segment);
    for now in [NOW - DAY, 0, -1, NOW, NOW + 999] {
        assert_eq!(fire(&mut state, now), [0; 0], "{now}");
    }
    assert_eq!(state.next_timer(ProcessingTime), Some(NOW + 1000));
    assert_eq!(fire(&mut state, NOW + 2000), [1000, 2000]);
    // Back once more: what has fired does not come again.
    assert_eq!(fire(&mut state, NOW - DAY), [0; 0]);
    assert_eq!(fire(&mut state, NOW + 3000), [3000]);
    // Ten years ahead: those whose time is over, and no others.
    let mut state = restored(&declarations(), &segment);
    assert_eq!(fire(&mut state, NOW + TEN_YEARS), [1000, 2000, 3000, TEN_YEARS / 2]);
    assert_eq!((fire(&mut state, NOW).len(), state.next_timer(ProcessingTime)), (0, Some(NOW + 2 * TEN_YEARS)));
}
