//! What a guest has no right to is an error that names state, value and limit.

use super::*;

fn limited(change: impl FnOnce(&mut GuestLimits)) -> KeyedState {
    let mut limits = GuestLimits::default();
    change(&mut limits);
    let mut state = KeyedState::new(&declarations(), GROUPS, 0..GROUPS, &limits);
    begin(&mut state, &["a", "b"]);
    state
}

fn text<T: std::fmt::Debug>(result: Result<T, StateError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_slot_outside_the_call_is_named() {
    let mut state = limited(|_| {});
    let message = "state `note`: slot 2 is outside the call, which has 2 keys";
    assert_eq!(text(state.value_get(NOTE, 2)), message);
    assert_eq!(text(state.value_put(NOTE, 2, b"x")), message);
    assert_eq!(text(state.value_store(NOTE, &[0, 2], &column(&["x", "y"]))), message);
    assert!(text(state.map_put(WINDOW, 9, b"k", b"v")).contains("state `window`: slot 9"));
    assert!(text(state.list_get(LOG, 9, 0, 1)).contains("state `log`: slot 9"));
    assert!(text(state.reducing_add_many(SUM, &[0, 9], &[1, 2], false)).contains("state `sum`: slot 9"));
    assert!(text(state.set_timer(9, TimeDomain::EventTime, 0, 0)).contains("`event-time timers`: slot 9"));
}

#[test]
fn a_column_that_does_not_fit_is_refused() {
    let mut state = limited(|_| {});
    let bad = |offsets: &[u32]| Column { data: b"four".to_vec(), offsets: offsets.to_vec() };
    assert!(text(state.value_store(NOTE, &[], &bad(&[]))).contains("it has no offsets"));
    assert!(text(state.value_store(NOTE, &[0, 1], &bad(&[0, 3, 2]))).contains("offset 1 is greater than offset 2"));
    assert!(text(state.value_store(NOTE, &[0], &bad(&[0, 5]))).contains("the last offset is 5, and there are 4 bytes"));
    assert!(text(state.value_store(NOTE, &[0], &bad(&[u32::MAX, u32::MAX]))).contains("the last offset is 4294967295"));
    assert!(text(state.value_store(NOTE, &[0], &bad(&[0, 1, 2]))).contains("1 slots come with 2 values"));
    assert!(text(state.map_load_many(WINDOW, &[0], &bad(&[0, 9]))).contains("the column of map keys does not fit"));
    assert!(text(state.list_replace(LOG, 0, &bad(&[2, 1]))).contains("state `log`"));
    assert!(text(state.value_store_all_fixed(PAIR, &[0; 33])).contains("not a multiple of the value-size 16"));
    assert!(text(state.value_store_fixed(PAIR, &[0], &[0; 32])).contains("1 slots come with 2 bytes / value-size"));
    state.value_store(NOTE, &[1], &bad(&[1, 3])).unwrap();
    assert_eq!(state.value_get(NOTE, 1).unwrap(), Some(&b"ou"[..]));
}

#[test]
fn sizes_and_kinds_are_those_of_the_declaration() {
    let mut state = limited(|_| {});
    assert_eq!(text(state.value_put(PAIR, 0, b"x")), "state `pair`: a value of 1 bytes, where `value-size` says 16");
    assert!(text(state.value_put(BLOCK, 0, &[1; 299])).contains("`value-size` says 300"));
    assert!(text(state.value_load_fixed(NOTE)).contains("state `note` is declared without a `value-size`"));
    assert_eq!(text(state.map_get(NOTE, 0, b"k")), "state `note` is a value state, and was used as a map state");
    assert!(text(state.value_get(SUM, 0)).contains("is a reducing state"));
    assert!(text(state.list_add(WINDOW, 0, b"x")).contains("was used as a list state"));
    assert!(text(state.reducing_get(LOG, 0)).contains("was used as a reducing state"));
}

#[test]
fn limits_are_named() {
    let mut state = limited(|limits| {
        limits.state_value_bytes_max = 4;
        limits.map_key_bytes_max = 3;
        limits.list_elements_max = 2;
        limits.scan_entries_max = 5;
        limits.timers_per_call_max = 1;
    });
    let message = "state `note`: a value of 5 bytes exceeds the limit of 4 (state_value_bytes_max)";
    assert_eq!(text(state.value_put(NOTE, 0, b"12345")), message);
    assert!(text(state.value_store_all_fixed(PAIR, &[1; 32])).contains("state_value_bytes_max"));
    assert!(
        text(state.map_put(WINDOW, 0, b"1234", b"x")).contains("a map key of 4 bytes exceeds the limit of 3 (map_key_bytes_max)")
    );
    assert!(text(state.map_get(WINDOW, 0, b"1234")).contains("map_key_bytes_max"));
    assert!(text(state.map_put(WINDOW, 0, b"1", b"12345")).contains("state_value_bytes_max"));
    assert!(
        text(state.map_scan(WINDOW, 0, None, None, 6)).contains("6 entries of one scan exceed the limit of 5 (scan_entries_max)")
    );
    assert!(text(state.list_get(LOG, 0, 0, 6)).contains("scan_entries_max"));
    assert!(text(state.list_replace(LOG, 0, &column(&["a", "b", "c"]))).contains("list_elements_max"));
    assert!(
        text(state.list_add_many(LOG, &[0, 0, 0], &column(&["a", "b", "c"]))).contains("3 list elements exceed the limit of 2")
    );
    state.set_timer(0, TimeDomain::EventTime, 1, 0).unwrap();
    assert!(text(state.set_timer(0, TimeDomain::EventTime, 2, 0)).contains("2 timers set in one call exceed the limit of 1"));
}

#[test]
fn a_result_that_the_guest_could_not_hold_is_not_built() {
    let mut state = limited(|limits| limits.memory_bytes_max = 100);
    for slot in 0..2 {
        state.value_put(NOTE, slot, &[1; 60]).unwrap();
        state.map_store_many(WINDOW, &[slot, slot], &column(&["a", "b"]), &column(&[[1; 60], [1; 60]])).unwrap();
        state.list_add_many(LOG, &[slot, slot], &column(&[[1; 60], [1; 60]])).unwrap();
    }
    for message in [
        text(state.value_load(NOTE)),
        text(state.value_load_fixed(BLOCK)),
        text(state.map_scan(WINDOW, 0, None, None, 10)),
        text(state.map_load_many(WINDOW, &[0, 1], &column(&["a", "a"]))),
        text(state.list_get(LOG, 0, 0, 10)),
    ] {
        assert!(message.contains("exceeds the limit of 100 (memory_bytes_max)"), "{message}");
    }
    assert_eq!(state.list_get(LOG, 0, 1, 1).unwrap(), column(&[[1; 60]]));
}

#[test]
fn reducers_reduce() {
    use Reducer::*;
    let bits = |number: f64| number.to_bits() as i64;
    for (reducer, values, result) in [
        (SumS64, vec![i64::MAX, 1], i64::MIN),
        (Count, vec![7, 7, 7], 3),
        (MinS64, vec![3, -2, 5], -2),
        (MaxS64, vec![3, -2, 5], 5),
        (SumF64, vec![bits(1.5), bits(2.0)], bits(3.5)),
        (MinF64, vec![bits(f64::NAN), bits(2.0), bits(-1.0)], bits(-1.0)),
        (MaxF64, vec![bits(-0.0), bits(0.0)], bits(-0.0)),
    ] {
        let mut state = state_of(&[declare("n", StateKind::Reducing(reducer), None)], 0..GROUPS);
        state.begin_key(b"k", at(0));
        let slots = vec![0; values.len()];
        let new = state.reducing_add_many(StateId(0), &slots, &values, true).unwrap();
        assert_eq!((new.last(), state.reducing_get(StateId(0), 0).unwrap()), (Some(&result), Some(result)), "{reducer:?}");
        state.rollback();
    }
}

#[test]
fn pages_of_a_scan_go_on_after_the_last_map_key() {
    let mut state = limited(|_| {});
    let keys: Vec<[u8; 1]> = (0..50).map(|n| [n]).collect();
    state.map_store_many(WINDOW, &[1; 50], &column(&keys), &column(&keys)).unwrap();
    let (mut first, mut seen) = (None, Vec::new());
    loop {
        let rows = state.map_scan(WINDOW, 1, first.as_deref(), Some(&[40]), 7).unwrap();
        let page: Vec<u8> = tidegate_core::row::iter(&rows).map(|row| row.key[0]).collect();
        let Some(last) = page.last() else { break };
        first = Some(vec![*last, 0]);
        seen.extend(page);
    }
    assert_eq!(seen, (0..40).collect::<Vec<u8>>());
    assert!(state.map_scan(WINDOW, 1, Some(&[9]), Some(&[3]), 7).unwrap().is_empty());
}
