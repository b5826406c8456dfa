//! The host is killed with `kill -9` at random moments while a keyed job runs, and started again each time. In the end every record
//! was counted once.
//!
//! The job's output says for each record how many its key had had, what they summed up to and a hash of all of them, so the whole chain of
//! each key is checked against the events themselves (see `chain`). `KILLS` sets how often; `TIDEGATE_SEED` repeats the moments of an
//! earlier run. `make proof` does the same with a million keys.

use std::time::{Duration, Instant};
use tidegate_tests::kill_loop::{KillLoop, Killed, Trouble};
use tidegate_tests::random::Random;

fn kills(default: u64) -> u64 {
    match std::env::var("KILLS") {
        Ok(text) if text.is_empty() => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("KILLS must be a whole number, not {text:?}")),
        Err(_) => default,
    }
}

fn run(kills: u64, keys: u64, trouble: Trouble) -> Killed {
    let mut random = Random::from_env();
    let kill_loop = KillLoop { kills, keys, rate: 8_000, life_max: Duration::from_secs(1), trouble };
    let begun = Instant::now();
    let killed = kill_loop.run(&mut random, &mut |kill, what| println!("kill {kill:2} {what}"));
    println!("{kills} kills in {:.1} s: {}", begun.elapsed().as_secs_f64(), killed.verdict);
    assert!(killed.verdict.is_exactly_once(), "seed {}: {}", random.seed(), killed.verdict);
    killed
}

#[test]
fn twenty_kills_at_random_moments_lose_and_repeat_nothing() {
    run(kills(20), 20_000, Trouble::Nothing);
}

#[test]
fn kills_among_timers_and_dead_letters_lose_and_repeat_nothing() {
    run(kills(20) / 4, 500, Trouble::TimersDeadLettersIdle);
}

#[test]
fn kills_among_aborted_checkpoints_lose_and_repeat_nothing() {
    let killed = run(kills(20) / 4, 2_000, Trouble::AbortedCheckpoints);
    println!("{} checkpoints were aborted", killed.aborted_checkpoints);
    assert!(killed.aborted_checkpoints > 0, "no checkpoint was aborted: nothing was proved");
}
