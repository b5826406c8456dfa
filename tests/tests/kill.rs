//! The host is killed with `kill -9` at random moments while a keyed job runs, and started again each time. In the end every record
//! was counted once.
//!
//! The job's output says for each record how many its key had had and what they summed up to, so the whole chain of each key is
//! checked against the events themselves (see `totals`). `TIDEGATE_SEED` repeats the moments of an earlier run.

use serde_json::Value;
use std::time::{Duration, Instant};
use tidegate_tests::host::Host;
use tidegate_tests::job::{TotalsJob, unaligned};
use tidegate_tests::output;
use tidegate_tests::random::Random;
use tidegate_tests::totals::{self, Total};

const KILLS: usize = 20;
/// From the start of a process to its end, at the most: it dies while it starts, while it restores, and at work.
const LIFE_MAX: Duration = Duration::from_secs(1);

const JOB: TotalsJob = TotalsJob {
    name: "killed",
    records: 160_000,
    keys: 500,
    splits: 2,
    parallelism: 2,
    // Slow enough to be still at work at the last kill, if every process lived for as long as it may.
    rate: Some(8_000),
    interval: "100ms",
};

#[test]
fn twenty_kills_at_random_moments_lose_and_repeat_nothing() {
    kill_at_random(|job| job);
}

#[test]
fn twenty_kills_with_unaligned_checkpoints_lose_and_repeat_nothing() {
    kill_at_random(unaligned);
}

fn kill_at_random(change: fn(Value) -> Value) {
    let mut random = Random::from_env();
    let mut host = Host::start();
    let out = host.work().join("out");
    host.push("running-totals");
    host.put_job(&change(JOB.document(&out)));
    host.wait_for_checkpoints(JOB.name, 1);

    let begun = Instant::now();
    let mut committed_before = 0;
    for kill in 1..=KILLS {
        let life = random.up_to(LIFE_MAX);
        std::thread::sleep(life);
        assert!(!host.has_ended(), "the host ended by itself before kill {kill}");
        host.kill();
        let committed = output::lines(&out).len();
        assert!(committed >= committed_before, "committed output shrank from {committed_before} to {committed} lines");
        assert!((committed as u64) < JOB.records, "the job was done before kill {kill}: nothing was proved");
        committed_before = committed;
        println!("kill {kill:2} after {:4} ms, {committed:6} records committed", life.as_millis());
        host.spawn();
    }
    host.wait_until_ready();
    host.wait_for_state(JOB.name, "finished");
    let totals = output::lines(&out).iter().map(|line| Total::from_json(line)).collect::<Vec<_>>();
    let verdict = totals::check(JOB.input(), totals);
    println!("{KILLS} kills in {:.1} s: {verdict}", begun.elapsed().as_secs_f64());
    assert!(verdict.is_exactly_once() && verdict.records == JOB.records, "seed {}: {verdict}", random.seed());
    assert_eq!(output::staged(&out), Vec::<String>::new(), "rows that nobody will ever commit");
}
