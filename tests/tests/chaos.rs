//! Everything that users and fate do to a job, in random order: `kill -9`, stops with and without a savepoint, savepoints at work,
//! starts from the latest checkpoint and from savepoints, other parallelisms. In the end every record was counted once.
//!
//! A start goes back only to where nothing later was committed: to the savepoint that the job was stopped with. `TIDEGATE_SEED` repeats
//! an order of events.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate_tests::host::Host;
use tidegate_tests::job::{TotalsJob, unaligned};
use tidegate_tests::output;
use tidegate_tests::random::Random;
use tidegate_tests::totals::{self, Total};

const STEPS: usize = 25;

fn job(parallelism: u32, rate: Option<u64>) -> TotalsJob {
    TotalsJob { name: "chaos", records: 120_000, keys: 400, splits: 3, parallelism, rate, interval: "60ms" }
}

struct Chaos {
    /// What is different from the plain job.
    change: fn(Value) -> Value,
    host: Host,
    random: Random,
    parallelism: u32,
}

impl Chaos {
    fn work(&mut self) {
        let longest = Duration::from_millis(400);
        std::thread::sleep(self.random.up_to(longest));
    }

    fn state(&self) -> String {
        self.host.job("chaos")["status"]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Asks for a start until the job takes it: it may still be on its way down.
    fn start(&self, from: Value) {
        tidegate_tests::wait::until("the job can be started", Duration::from_secs(30), || {
            let answer = self.host.client().post("/v1/jobs/chaos/start", &json!({ "from": from }));
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    /// Another number of tasks, most of the times.
    fn rescale(&mut self) {
        self.parallelism = 1 + self.random.below(3) as u32;
        self.host.put_job(&(self.change)(job(self.parallelism, Some(10_000)).document(&self.host.work().join("out"))));
    }

    fn step(&mut self) -> String {
        match self.random.below(6) {
            0 | 1 => {
                self.host.kill();
                self.host.spawn();
                // Every second host is killed again before it may be ready.
                if self.random.below(2) == 0 {
                    std::thread::sleep(self.random.up_to(Duration::from_millis(200)));
                    self.host.kill();
                    self.host.spawn();
                }
                self.host.wait_until_ready();
                "killed".to_owned()
            }
            2 => {
                self.host.terminate();
                self.host.restart();
                "terminated".to_owned()
            }
            3 => {
                self.host.stop("chaos");
                self.start(json!("latest"));
                "stopped at once, started from the latest checkpoint".to_owned()
            }
            4 => {
                let answer = self.host.client().post("/v1/jobs/chaos/savepoints", &json!({}));
                format!("savepoint asked for: {}", answer.status)
            }
            _ => {
                let answer = self.host.client().post("/v1/jobs/chaos/stop?wait=60s", &json!({ "savepoint": true }));
                if answer.status != 200 {
                    // Not running yet, or between two attempts.
                    return format!("no stop with a savepoint: {}", answer.body);
                }
                let savepoint = answer.document()["savepoint"]["id"].clone();
                self.host.wait_for_state("chaos", "stopped");
                self.rescale();
                let from = if self.random.below(2) == 0 { json!("latest") } else { json!({ "savepoint": savepoint }) };
                let told = format!("stopped with a savepoint, started from {from} with {} tasks", self.parallelism);
                self.start(from);
                told
            }
        }
    }
}

#[test]
fn whatever_happens_in_whatever_order_every_record_counts_once() {
    chaos(|job| job);
}

#[test]
fn whatever_happens_to_a_job_with_unaligned_checkpoints_every_record_counts_once() {
    chaos(unaligned);
}

fn chaos(change: fn(Value) -> Value) {
    let random = Random::from_env();
    let seed = random.seed();
    let mut chaos = Chaos { change, host: Host::start(), random, parallelism: 2 };
    let out = chaos.host.work().join("out");
    chaos.host.push("running-totals");
    chaos.host.put_job(&change(job(2, Some(10_000)).document(&out)));
    chaos.host.wait_for_checkpoints("chaos", 1);
    let begun = Instant::now();
    for step in 1..=STEPS {
        chaos.work();
        let told = chaos.step();
        let committed = output::lines(&out).len();
        println!("{:5.1} s {step:2} {told}; {committed} committed, {}", begun.elapsed().as_secs_f64(), chaos.state());
    }
    assert_ne!(chaos.state(), "finished", "the job was done before the last step: nothing was proved");
    // The rest at full speed.
    if chaos.state() != "stopped" {
        chaos.host.stop("chaos");
    }
    let last = job(2, None);
    chaos.host.put_job(&change(last.document(&out)));
    chaos.start(json!("latest"));
    chaos.host.wait_for_state("chaos", "finished");
    let verdict = totals::check(last.input(), output::lines(&out).iter().map(|line| Total::from_json(line)));
    println!("{STEPS} steps in {:.1} s: {verdict}", begun.elapsed().as_secs_f64());
    assert!(verdict.is_exactly_once() && verdict.records == last.records, "seed {seed}: {verdict}");
    assert_eq!(output::staged(&out), Vec::<String>::new(), "rows that nobody will ever commit");
}
