//! The host is killed with `kill -9` at random moments while a keyed job runs, and started again each time. In the end every record
//! was counted once.
//!
//! The job's output says for each record how many its key had had and what they summed up to, so the whole chain of each key is
//! checked against the events themselves (see `totals`). `TIDEGATE_SEED` repeats the moments of an earlier run.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate_tests::generator::event;
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

/// Without alignment a snapshot may hold rows from behind the barrier, and they come again: counts may be too high, never too low.
#[test]
fn kills_of_an_at_least_once_job_lose_nothing() {
    const KILLS: usize = 6;
    let job = TotalsJob { name: "repeated", records: 60_000, ..JOB };
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
