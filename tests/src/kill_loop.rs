//! A host that is killed with `kill -9` at random moments while its job is at work, started again each time, and in the end left alone to
//! finish.
//!
//! Invariants:
//! * what is committed grows: nothing that was visible goes away;
//! * the job is still at work at the last kill, or nothing was proved;
//! * the output is judged by [`crate::chain`], the dead letters by the events themselves.

use crate::chain::{Checker, Input, Verdict, committed_bytes};
use crate::host::Host;
use crate::random::Random;
use crate::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// For a job to finish when nobody kills it any more.
const FINISH_LIMIT: Duration = Duration::from_secs(1800);
const NAME: &str = "killed";
const SPLITS: u64 = 2;
const FILLED_KEYS_MIN: u64 = 100_000;
/// Less than any line of the output.
const LINE_BYTES_MIN: u64 = 25;

#[derive(Debug, Clone)]
pub struct KillLoop {
    pub kills: u64,
    pub keys: u64,
    /// Records a second while there are kills, and as fast as it goes after the last one.
    pub rate: u64,
    /// From the start of a process to its end, at the most: it dies while it starts, while it restores, and at work.
    pub life_max: Duration,
    pub trouble: Trouble,
}

/// What happens to the job beside the kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Nothing,
    /// Event-time timers, dead letters, a second source that has nothing more to say and goes idle; ended by a drain.
    TimersDeadLettersIdle,
    /// Checkpoints that time out and are aborted now and then.
    AbortedCheckpoints,
    /// Barriers overtake what is in flight.
    Unaligned,
}

#[derive(Debug)]
pub struct Killed {
    pub verdict: Verdict,
    pub aborted_checkpoints: u64,
}

impl KillLoop {
    fn input(&self) -> Input {
        // Enough for all lives; half of the longest is what they last on average.
        let seconds = self.kills as f64 * self.life_max.as_secs_f64() * 0.65 + 3.0;
        let reject_every = if self.trouble == Trouble::TimersDeadLettersIdle { 97 } else { 0 };
        // And for the filling, which overshoots.
        let filling = if self.is_filled() { 3 * self.keys } else { 0 };
        let records = filling + (self.rate as f64 * seconds) as u64;
        Input { records, keys: self.keys, reject_every, prefill: self.is_filled() }
    }

    /// Kills begin when each key has its state: worth the while where there are many.
    fn is_filled(&self) -> bool {
        self.keys >= FILLED_KEYS_MIN
    }

    fn document(&self, work: &Path, rate: Option<u64>) -> Value {
        let input = self.input();
        let with_timers = self.trouble == Trouble::TimersDeadLettersIdle;
        let mut bids = json!({
            "name": "bids", "connector": "generator", "format": "rows", "parallelism": 2, "keys": input.keys,
            "records": input.records, "splits": SPLITS, "prefill": input.prefill,
        });
        if let Some(rate) = rate {
            bids["rate"] = json!(rate);
        }
        let mut checkpoint = json!({ "interval": "100ms" });
        if self.trouble == Trouble::AbortedCheckpoints {
            checkpoint = json!({ "interval": "20ms", "timeout": "10ms", "tolerable_failures": 1_000_000 });
        }
        let mut batch = json!({});
        if self.trouble == Trouble::Unaligned {
            checkpoint["unaligned"] = json!(true);
            batch["rows"] = json!(64);
        }
        let mut trickle = json!({ "name": "trickle", "connector": "file", "path": work.join("trickle"), "format": "json" });
        let mut config = json!({});
        if with_timers {
            bids["watermark"] = json!({ "out_of_orderness": "10ms", "idle_after": "100ms" });
            trickle["watermark"] = json!({ "field": "/time", "idle_after": "50ms" });
            trickle["follow"] = json!(true);
            trickle["start"] = json!("earliest");
            config = json!({ "window_ms": 20, "reject_every": input.reject_every });
        }
        let sources = [bids, trickle];
        let inputs: Vec<_> = sources.iter().map(|source| source["name"].clone()).collect();
        json!({
            "name": NAME,
            "checkpoint": checkpoint,
            "batch": batch,
            "restart": { "strategy": "fixed-delay", "attempts": 1_000_000, "delay": "10ms" },
            "source": sources,
            "operator": [{
                "name": "totals", "module": "chain-totals@1.0.0", "input": inputs, "key": "row", "parallelism": 2, "config": config,
            }],
            "sink": [{ "name": "out", "connector": "file", "input": ["totals"], "path": work.join("out") }],
        })
    }

    /// `progress` hears of each kill.
    pub fn run(&self, random: &mut Random, progress: &mut dyn FnMut(u64, &str)) -> Killed {
        let mut host = Host::start();
        let (work, out) = (host.work(), host.work().join("out"));
        // No events: dead letters.
        std::fs::write(work.join("trickle"), "{\"time\":1}\n{\"time\":2}\n").expect("the second input can be written");
        host.push("chain-totals");
        if self.is_filled() {
            host.put_job(&self.document(&work, None));
            let filled = self.keys * LINE_BYTES_MIN * 2;
            until("each key has its state", FINISH_LIMIT, || {
                let bytes = committed_bytes(&out);
                if bytes >= filled { Ok(()) } else { Err(format!("{bytes} of {filled} bytes")) }
            });
            self.go_on_with(&host, &self.document(&work, Some(self.rate)));
        } else {
            host.put_job(&self.document(&work, Some(self.rate)));
        }
        host.wait_for_checkpoints(NAME, 1);
        let (mut before, mut aborted) = (0, 0);
        for kill in 1..=self.kills {
            let life = random.up_to(self.life_max);
            std::thread::sleep(life);
            assert!(!host.has_ended(), "the host ended by itself before kill {kill}");
            if self.trouble == Trouble::AbortedCheckpoints {
                aborted += aborted_checkpoints(&host);
            }
            host.kill();
            let committed = committed_bytes(&out);
            assert!(committed >= before, "committed output shrank from {before} to {committed} bytes");
            before = committed;
            progress(kill, &format!("after {:4} ms, {} KiB committed", life.as_millis(), committed >> 10));
            host.spawn();
        }
        host.wait_until_ready();
        assert_ne!(host.job(NAME)["status"]["state"], "finished", "the job was done before the last kill: nothing was proved");
        self.finish(&host, &work, &out);
        if self.trouble == Trouble::AbortedCheckpoints {
            aborted += aborted_checkpoints(&host);
        }
        let mut checker = Checker::new(self.input());
        checker.folder(&out);
        let mut verdict = checker.finish(self.trouble == Trouble::TimersDeadLettersIdle);
        self.check_dead_letters(&host.data().join("jobs").join(NAME).join("dead-letters"), &mut verdict);
        Killed { verdict, aborted_checkpoints: aborted }
    }

    /// The same job with other settings, from its latest checkpoint.
    fn go_on_with(&self, host: &Host, job: &Value) {
        host.stop(NAME);
        host.put_job(job);
        until("the job can be started", Duration::from_secs(60), || {
            let answer = host.client().post(&format!("/v1/jobs/{NAME}/start"), &json!({ "from": "latest" }));
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    /// The rest at full speed, with checkpoints that can be completed.
    fn finish(&self, host: &Host, work: &Path, out: &Path) {
        let mut rest = self.document(work, None);
        rest["checkpoint"] = json!({ "interval": "500ms" });
        self.go_on_with(host, &rest);
        let state = || host.job(NAME)["status"].clone();
        if self.trouble != Trouble::TimersDeadLettersIdle {
            until("the job is finished", FINISH_LIMIT, || {
                let status = state();
                assert_ne!(status["state"], "failed", "{status}");
                if status["state"] == "finished" { Ok(()) } else { Err(status.to_string()) }
            });
            return;
        }
        // Its second source never ends: it has read all when nothing more is committed, and timers wait for the drain.
        let mut last = (0, Instant::now());
        until("all is read", FINISH_LIMIT, || {
            let bytes = committed_bytes(out);
            if bytes != last.0 {
                last = (bytes, Instant::now());
            }
            if last.0 > 0 && last.1.elapsed() > Duration::from_secs(5) { Ok(()) } else { Err(format!("{bytes} bytes")) }
        });
        let stop = json!({ "savepoint": true, "drain": true });
        let stopped = host.client().post(&format!("/v1/jobs/{NAME}/stop?wait=120s"), &stop).document();
        assert_eq!(stopped["state"], "completed", "{stopped}");
    }

    /// One for each refused event, and one for each row of the second input.
    fn check_dead_letters(&self, folder: &Path, verdict: &mut Verdict) {
        let input = self.input();
        let mut expected: BTreeSet<(String, u64)> = (0..input.records)
            .filter(|i| input.is_rejected(input.event(*i).price))
            .map(|i| (format!("{}/{SPLITS}", i % SPLITS), i / SPLITS))
            .collect();
        let mut trickled = 0;
        for line in crate::output::lines(folder) {
            let letter: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
            verdict.records += 1;
            if letter["source"] == "trickle" {
                trickled += 1;
                continue;
            }
            let place = (letter["split"].as_str().unwrap_or_default().to_owned(), letter["record"].as_u64().unwrap_or(u64::MAX));
            if !expected.remove(&place) {
                verdict.duplicated += 1;
            }
        }
        verdict.lost += expected.len() as u64;
        if trickled != 2 {
            verdict.wrong.push(format!("{trickled} dead letters of the second input, which had 2 rows"));
        }
    }
}

/// Of the process that runs. It may not answer yet.
fn aborted_checkpoints(host: &Host) -> u64 {
    let Ok(answer) = host.client().try_get(&format!("/v1/jobs/{NAME}/checkpoints")) else { return 0 };
    if answer.status != 200 {
        return 0;
    }
    let list = answer.document();
    list["checkpoints"].as_array().into_iter().flatten().filter(|checkpoint| checkpoint["status"] == "aborted").count() as u64
}
