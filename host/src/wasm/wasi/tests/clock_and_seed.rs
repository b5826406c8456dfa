use super::*;

fn state() -> WasiState {
    WasiState::new(WasiLimits::default())
}

#[test]
fn no_time_is_out_of_range() {
    for ms in [i64::MIN, -1, 0, i64::MAX] {
        let mut state = state();
        state.begin_call(ms, 0);
        assert!(state.clock.monotonic() > 0, "Go ends itself on 0");
        state.clock.sleep_until(u64::MAX);
        state.clock.monotonic();
        assert_eq!(state.clock.after(1), u64::MAX);
        assert!(state.clock.wall().1 < 1_000_000_000);
    }
}

#[test]
fn a_call_draws_the_same_whatever_calls_came_before() {
    let mut used = state();
    used.begin_call(1, 9);
    used.random.secure_u64();
    used.clock.sleep_until(u64::MAX);
    used.begin_call(5, 6);
    let mut fresh = state();
    fresh.begin_call(5, 6);
    assert_eq!(used.random.secure_bytes(33), fresh.random.secure_bytes(33));
    assert_eq!(used.random.insecure_u64(), fresh.random.insecure_u64());
    assert_eq!(used.random.insecure_seed(), fresh.random.insecure_seed());
    assert_eq!(used.clock.monotonic(), fresh.clock.monotonic());
}

#[test]
fn seeds_differ_by_everything_that_names_a_call() {
    let seeds = [
        seed("ab", "c", 0, 0),
        seed("a", "bc", 0, 0),
        seed("ab", "d", 0, 0),
        seed("ab", "c", 1, 0),
        seed("ab", "c", 0, 1),
        seed("ab", "c", 0, 1 << 32),
    ];
    let distinct: std::collections::HashSet<u64> = seeds.into_iter().collect();
    assert_eq!(distinct.len(), seeds.len());
    assert_eq!(seed("ab", "c", 0, 0), seeds[0]);
}
