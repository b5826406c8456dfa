//! The host is killed with `kill -9` at random moments while a keyed job runs, and started again each time. In the end every record
//! was counted once.
//!
//! The job's output says for each record how many its key had had, what they summed up to and a hash of all of them, so the whole chain of
//! each key is checked against the events themselves (see `chain`). `KILLS` sets how often; `TIDEGATE_SEED` repeats the moments of an
//! earlier run. `make proof` does the same with a million keys.

use serde_json::json;
use std::time::{Duration, Instant};
use tidegate_tests::generator::event;
use tidegate_tests::host::Host;
use tidegate_tests::job::TotalsJob;
use tidegate_tests::kill_loop::{KillLoop, Killed, Trouble};
use tidegate_tests::output;
use tidegate_tests::random::Random;
use tidegate_tests::totals::Total;

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

/// Without alignment a snapshot may hold rows from behind the barrier, and they come again: counts may be too high, never too low.
#[test]
fn kills_of_an_at_least_once_job_lose_nothing() {
    const KILLS: usize = 6;
    let job = TotalsJob {
        name: "repeated",
        records: 60_000,
        keys: 500,
        splits: 2,
        parallelism: 2,
        rate: Some(8_000),
        interval: "100ms",
    };
    let mut random = Random::from_env();
    let mut host = Host::start();
    let out = host.work().join("out");
    host.push("running-totals");
    let mut document = job.document(&out);
    document["delivery"] = json!("at-least-once");
    host.put_job(&document);
    for _ in 0..KILLS {
        host.wait_for_checkpoints(job.name, 1);
        std::thread::sleep(random.up_to(Duration::from_millis(300)));
        assert_ne!(host.job(job.name)["status"]["state"], "finished", "the job was done before: nothing was proved");
        host.kill();
        host.restart();
    }
    host.wait_for_state(job.name, "finished");
    let mut counted = vec![0; job.keys as usize];
    for total in output::lines(&out).iter().map(|line| Total::from_json(line)) {
        let count = &mut counted[total.bidder as usize];
        *count = total.count.max(*count);
    }
    let mut expected = vec![0; job.keys as usize];
    (0..job.records).for_each(|i| expected[event(i, job.keys).bidder as usize] += 1);
    let repeated: u64 =
        counted.iter().zip(&expected).map(|(counted, expected): (&u64, &u64)| counted.saturating_sub(*expected)).sum();
    println!("{KILLS} kills: {repeated} records counted again");
    let lost: Vec<_> = (0..expected.len()).filter(|bidder| counted[*bidder] < expected[*bidder]).collect();
    assert!(lost.is_empty(), "seed {}: records of bidders {lost:?} are lost", random.seed());
}

#[test]
fn kills_with_unaligned_checkpoints_lose_and_repeat_nothing() {
    run(kills(20) / 2, 20_000, Trouble::Unaligned);
}
