//! Time to live: what has expired reads as absent, is swept, and takes its stamp through a restore.

use super::*;

fn expiring(domain: TimeDomain) -> Vec<StateDeclaration> {
    declarations().into_iter().map(|declared| StateDeclaration { ttl: ttl(10, domain), ..declared }).collect()
}

fn write_all(state: &mut KeyedState, now: i64) {
    state.begin_key(b"k", at(now));
    state.value_put(PAIR, 0, &[1; 16]).unwrap();
    state.value_put(NOTE, 0, b"note").unwrap();
    state.value_put(BLOCK, 0, &[1; 300]).unwrap();
    state.reducing_add(SUM, 0, 5).unwrap();
    state.map_put(WINDOW, 0, b"w", b"x").unwrap();
    state.list_add(LOG, 0, b"x").unwrap();
    state.commit();
}

/// Which of the six states hold something, asked in every way.
fn live(state: &mut KeyedState, now: i64) -> usize {
    state.begin_key(b"k", at(now));
    let pair = state.value_load_fixed(PAIR).unwrap() != [0; 16];
    assert_eq!(state.value_get(PAIR, 0).unwrap().is_some(), pair);
    let note = !state.value_load(NOTE).unwrap().data.is_empty();
    let block = state.value_load_fixed(BLOCK).unwrap() != [0; 300];
    let sum = state.reducing_get(SUM, 0).unwrap().is_some();
    assert_eq!(state.reducing_load(SUM).unwrap()[0] != 0, sum);
    let window = !state.map_is_empty(WINDOW, 0).unwrap();
    assert_eq!(state.map_contains(WINDOW, 0, b"w").unwrap(), window);
    assert_eq!(!state.map_scan(WINDOW, 0, None, None, 1).unwrap().is_empty(), window);
    let log = state.list_length(LOG, 0).unwrap() > 0;
    assert_eq!(!state.list_get(LOG, 0, 0, 1).unwrap().is_empty(), log);
    state.rollback();
    [pair, note, block, sum, window, log].iter().filter(|live| **live).count()
}

#[test]
fn what_has_expired_reads_as_absent_and_is_swept() {
    for domain in [TimeDomain::EventTime, TimeDomain::ProcessingTime] {
        let mut state = state_of(&expiring(domain), 0..GROUPS);
        write_all(&mut state, 100);
        snapshot(&mut state, true);
        assert_eq!((live(&mut state, 109), live(&mut state, 110)), (6, 0));
        for _ in 0..1000 {
            state.sweep(100, at(109));
        }
        assert_eq!(state.live_entries(), 6);
        for _ in 0..1000 {
            state.sweep(100, at(110));
        }
        assert_eq!((state.live_entries(), state.live_keys()), (0, 1), "the key is kept for its tombstones");
        assert_eq!(snapshot(&mut state, false).entries, 6);
        assert_eq!(state.live_keys(), 0);
    }
}

#[test]
fn a_write_to_what_has_expired_begins_anew() {
    let mut state = state_of(&expiring(TimeDomain::EventTime), 0..GROUPS);
    write_all(&mut state, 100);
    for commit in [false, true] {
        state.begin_key(b"k", at(120));
        state.reducing_add(SUM, 0, 1).unwrap();
        state.list_add(LOG, 0, b"new").unwrap();
        assert_eq!(state.reducing_get(SUM, 0).unwrap(), Some(1));
        assert_eq!(state.list_get(LOG, 0, 0, 9).unwrap(), column(&["new"]));
        if commit {
            state.commit()
        } else {
            state.rollback()
        }
        assert_eq!(live(&mut state, 121), if commit { 2 } else { 0 });
        // Time only goes on, but a rolled-back call has left the old values: at their time they were there.
        assert_eq!(live(&mut state, 105), 6);
    }
}

#[test]
fn a_restored_value_is_as_old_as_it_was() {
    let mut state = state_of(&expiring(TimeDomain::EventTime), 0..GROUPS);
    write_all(&mut state, 100);
    let segments = [snapshot(&mut state, true), merge_segments(&[&snapshot(&mut state, true).bytes], true).unwrap()];
    for segment in segments {
        let mut restored = state_of(&expiring(TimeDomain::EventTime), 0..GROUPS);
        restored.restore(&segment.bytes).unwrap();
        assert_eq!((live(&mut restored, 109), live(&mut restored, 110)), (6, 0));

        // Stamps of another clock say nothing: they count from the first time that is known.
        let mut other = state_of(&expiring(TimeDomain::ProcessingTime), 0..GROUPS);
        other.restore(&segment.bytes).unwrap();
        assert_eq!((live(&mut other, 5000), live(&mut other, 5009), live(&mut other, 5010)), (6, 6, 0));
    }
}

#[test]
fn what_was_written_before_the_first_watermark_lives_on_from_it() {
    let mut state = state_of(&expiring(TimeDomain::EventTime), 0..GROUPS);
    write_all(&mut state, i64::MIN);
    assert_eq!(live(&mut state, i64::MIN), 6);
    assert_eq!((live(&mut state, 1000), live(&mut state, 1009), live(&mut state, i64::MAX)), (6, 6, 6));
    let segment = snapshot(&mut state, true);
    assert_eq!(live(&mut state, 1010), 0);
    let mut restored = state_of(&expiring(TimeDomain::EventTime), 0..GROUPS);
    restored.restore(&segment.bytes).unwrap();
    assert_eq!((live(&mut restored, 1009), live(&mut restored, 1010)), (6, 0));
}
