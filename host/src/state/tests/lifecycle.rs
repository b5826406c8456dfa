//! Keys come and go, snapshots are small, and what goes to another thread can.

use super::*;

#[test]
fn a_snapshot_and_the_state_can_change_threads() {
    fn is_send<T: Send>() {}
    is_send::<FrozenState>();
    is_send::<KeyedState>();
}

#[test]
fn a_key_that_is_only_looked_at_leaves_nothing() {
    let mut state = state();
    for commit in [true, false] {
        begin(&mut state, &["a", "b", "a"]);
        assert_eq!((state.key_count(), state.slots()), (2, &[0, 1, 0][..]));
        if commit {
            state.commit()
        } else {
            state.rollback()
        }
        assert_eq!(state.live_keys(), 0);
    }
}

#[test]
fn memory_does_not_grow_when_keys_come_and_go() {
    for checkpoints in [false, true] {
        let mut state = state();
        let mut settled = 0;
        for round in 0..300 {
            let keys: Vec<String> = (0..200).map(|n| format!("{round} {n} and long enough to lie elsewhere")).collect();
            for clear in [false, true] {
                begin(&mut state, &keys);
                for slot in 0..200 {
                    let value: &[u8] = if clear { b"" } else { b"twenty-four bytes of it.." };
                    state.value_put(NOTE, slot, value).unwrap();
                    state.map_put(WINDOW, slot, b"w", value).unwrap();
                    match clear {
                        true => state.cancel_timer(slot, TimeDomain::EventTime, 5, 1).unwrap(),
                        false => state.set_timer(slot, TimeDomain::EventTime, 5, 1).unwrap(),
                    }
                    if clear { state.list_clear(LOG, slot).unwrap() } else { state.list_add(LOG, slot, value).unwrap() }
                }
                state.commit();
                if checkpoints && !clear {
                    snapshot(&mut state, false);
                }
            }
            if checkpoints {
                let tombstones = snapshot(&mut state, false);
                assert_eq!(tombstones.entries, 4 * 200);
            }
            assert_eq!((state.live_keys(), state.live_entries(), state.dirty_entries().min(2000)), (0, 0, state.dirty_entries()));
            if round == 20 {
                settled = state.bytes();
            }
        }
        assert!(state.bytes() <= settled, "checkpoints {checkpoints}: {} bytes, {settled} before", state.bytes());
    }
}

#[test]
fn a_delta_holds_only_what_changed() {
    let mut state = state();
    let keys: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    begin(&mut state, &keys);
    state.value_store_all_fixed(PAIR, &[7; 16 * 5000]).unwrap();
    state.list_add_many(LOG, &[3; 1000], &column(&[b"element"; 1000])).unwrap();
    state.commit();
    assert_eq!(state.dirty_entries(), 5001);
    let base = snapshot(&mut state, true);
    assert_eq!((base.entries, base.full, state.dirty_entries()), (5001, true, 0));

    begin(&mut state, &["17", "new", "3"]);
    state.value_store_fixed(PAIR, &[0, 1], &[1; 32]).unwrap();
    state.list_add(LOG, 2, b"one more").unwrap();
    state.commit();
    let delta = snapshot(&mut state, false);
    assert_eq!((delta.entries, delta.full), (3, false));
    assert!(delta.bytes.len() < 1500, "{} bytes: the list was written as a whole", delta.bytes.len());

    let nothing = snapshot(&mut state, false);
    assert_eq!(nothing.entries, 0);
    let again = snapshot(&mut state, true);
    assert_eq!(again.entries, 5002);
    let merged = merge_segments(&[&base.bytes, &delta.bytes, &nothing.bytes], true).unwrap();
    assert_eq!(merged.bytes, again.bytes, "the same state is the same file");
}

#[test]
fn a_freeze_within_a_drain_finishes_the_first() {
    let mut state = state();
    for round in 1..=3u8 {
        begin(&mut state, &["a", "b"]);
        state.value_store_all_fixed(PAIR, &[round; 32]).unwrap();
        state.commit();
        state.freeze(round == 1);
    }
    let mut restored = super::state();
    for round in 1..=3u8 {
        let frozen = state.drain(1).or_else(|| state.drain(1)).or_else(|| state.drain(1)).expect("one for each freeze");
        assert_eq!((frozen.is_full(), frozen.entries()), (round == 1, 2));
        restored.restore(&frozen.write_segment().bytes).unwrap();
        begin(&mut restored, &["a", "b"]);
        assert_eq!(restored.value_load_fixed(PAIR).unwrap(), [round; 32]);
        restored.rollback();
    }
    assert!(!state.is_draining() && state.drain(1).is_none());
}

#[test]
fn a_segment_names_what_the_operator_does_not_declare() {
    let mut state = state();
    state.begin_key(b"k", at(0));
    state.value_put(NOTE, 0, b"x").unwrap();
    state.reducing_add(SUM, 0, 5).unwrap();
    state.map_put(WINDOW, 0, b"w", b"x").unwrap();
    state.commit();
    let segment = snapshot(&mut state, true);

    let fewer = [declare("note", StateKind::Value, None), declare("window", StateKind::Map, None)];
    let mut other = state_of(&fewer, 0..GROUPS);
    let message = other.restore(&segment.bytes).unwrap_err().to_string();
    assert!(message.contains("does not declare: block, log, pair, sum;"), "{message}");
    other.drop_states(&["block", "log", "pair", "sum"].map(String::from));
    other.restore(&segment.bytes).unwrap();
    assert_eq!((other.live_entries(), other.live_keys()), (2, 1));

    let refused =
        |declarations: Vec<StateDeclaration>| state_of(&declarations, 0..GROUPS).restore(&segment.bytes).unwrap_err().to_string();
    let mut changed = declarations();
    changed[3].kind = StateKind::Reducing(Reducer::MaxS64);
    assert!(
        refused(changed).contains("state `sum` was stored as reducing state (SumS64) and is declared as reducing state (MaxS64)")
    );
    let mut changed = declarations();
    changed[0].value_size = Some(24);
    assert!(refused(changed).contains("state `pair` was stored as values of 16 bytes and is declared as values of 24 bytes"));
    let mut changed = declarations();
    changed[1].value_size = Some(8);
    assert!(refused(changed).contains("state `note` was stored as a value of 1 bytes and is declared as values of 8 bytes"));

    let mut other = KeyedState::new(&declarations(), 4 * GROUPS, 0..GROUPS, &GuestLimits::default());
    assert!(other.restore(&segment.bytes).unwrap_err().to_string().contains("8 key groups, this one has 32"));
}

#[test]
fn merging_leaves_out_states_of_no_record_and_unites_tables() {
    let mut older = state_of(&[declare("b", StateKind::Value, None), declare("a", StateKind::Value, None)], 0..GROUPS);
    let mut newer = state_of(&[declare("c", StateKind::Value, None), declare("b", StateKind::Value, None)], 0..GROUPS);
    for (state, value) in [(&mut older, "old"), (&mut newer, "new")] {
        state.begin_key(b"k", at(0));
        state.value_put(StateId(0), 0, value.as_bytes()).unwrap();
        state.value_put(StateId(1), 0, value.as_bytes()).unwrap();
        state.commit();
    }
    let (older, newer) = (snapshot(&mut older, true), snapshot(&mut newer, false));
    let merged = merge_segments(&[&older.bytes, &newer.bytes], false).unwrap();
    assert_eq!((merged.entries, merged.full), (3, true));
    let mut all = state_of(&["a", "b", "c"].map(|name| declare(name, StateKind::Value, None)), 0..GROUPS);
    all.restore(&merged.bytes).unwrap();
    all.begin_key(b"k", at(0));
    let values: Vec<_> = (0..3).map(|n| all.value_get(StateId(n), 0).unwrap().unwrap().to_vec()).collect();
    assert_eq!(values, [b"old", b"new", b"new"]);
    assert!(merge_segments(&[], true).is_err());
}
