//! `make proof`: every step of every small job, every pair of named crash points, and a thousand kills of the real process under load with
//! a million keys. What it came to is one line of JSON on stdout; how it gets on is told on stderr.
//!
//! `KILLS`, `SEED`, `KEYS`, `RATE`, `LIFE_MS` (of a process that is to be killed) and `PAIRS_ONE_OF`, `POINTS_ONE_OF` (of pairs) change
//! its extent. `ONLY=steps`, `points` or `kills` runs one part.

use serde_json::json;
use std::time::{Duration, Instant, SystemTime};
use tidegate::fault::Fault;
use tidegate_tests::crash_points::{Second, crash_at_both};
use tidegate_tests::io_steps::enumerate::{Extent, Tally, enumerate, untried};
use tidegate_tests::io_steps::{Rig, Shape};
use tidegate_tests::kill_loop::{KillLoop, Trouble};
use tidegate_tests::random::Random;

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => default,
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {text:?}")),
        Err(_) => default,
    }
}

/// Of a pair whose first point was never passed.
const TRIES: usize = 3;

#[derive(Default)]
struct Sum {
    point_pairs: u64,
    kills: u64,
    aborted_checkpoints: u64,
    records: u64,
    lost: u64,
    duplicated: u64,
    wrong: Vec<String>,
}

fn main() {
    let begun = Instant::now();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = number("SEED", now);
    let only = std::env::var("ONLY").unwrap_or_default();
    let is_asked = |part: &str| only.is_empty() || only == part;
    eprintln!("repeat with SEED={seed}");
    let mut sum = Sum::default();
    let steps = if is_asked("steps") { steps(seed) } else { Tally::default() };
    if is_asked("points") {
        points(&mut sum);
    }
    if is_asked("kills") {
        kills(seed, &mut sum);
    }
    sum.wrong.extend(steps.wrong.iter().cloned());
    let figures = json!({
        "io_steps": steps.io_steps,
        "crash_runs": steps.crash_runs,
        "error_runs": steps.error_runs,
        "pairs": steps.pairs,
        "point_pairs": sum.point_pairs,
        "kills": sum.kills,
        "aborted_checkpoints": sum.aborted_checkpoints,
        "records": steps.records + sum.records,
        "lost": steps.lost + sum.lost,
        "duplicated": steps.duplicated + sum.duplicated,
        "wrong": sum.wrong.len(),
        "seed": seed,
        "seconds": begun.elapsed().as_secs(),
    });
    println!("{figures}");
    if !sum.wrong.is_empty() {
        eprintln!("wrong: {:#?}", sum.wrong);
        std::process::exit(1);
    }
}

fn steps(seed: u64) -> Tally {
    let rigs: Vec<_> = Shape::ALL.iter().copied().map(Rig::new).collect();
    let begun = Instant::now();
    let told = std::sync::Mutex::new(begun);
    let extent = Extent { pairs_one_of: number("PAIRS_ONE_OF", 1), ..Extent::FULL };
    let tally = enumerate(&rigs, extent, &Random::from_seed(seed), &|runs, job| {
        let Ok(mut last) = told.try_lock() else { return };
        if last.elapsed() > TELL_EVERY {
            *last = Instant::now();
            eprintln!("steps: {runs} runs in {} s, now: {job}", begun.elapsed().as_secs());
        }
    });
    for rig in &rigs {
        let untried = untried(rig, &tally);
        if !untried.is_empty() {
            eprintln!("steps: {}: never in trouble: {untried:?}", rig.shape.name);
        }
    }
    tally
}

/// All pairs of named crash points.
fn points(sum: &mut Sum) {
    let begun = Instant::now();
    let all = (Fault::ALL.len() * Fault::ALL.len()).div_ceil(number("POINTS_ONE_OF", 1) as usize);
    let pairs = Fault::ALL.iter().flat_map(|first| Fault::ALL.iter().map(move |second| (*first, *second)));
    let pairs = pairs.step_by(number("POINTS_ONE_OF", 1) as usize);
    for (done, (first, second)) in (1..).zip(pairs) {
        let mut outcome = std::panic::catch_unwind(|| crash_at_both(first, second));
        // Some points are passed only where checkpoints come as fast as they should: on a busy machine it takes another try.
        for _ in 1..TRIES {
            if !matches!(&outcome, Ok(Err(wrong)) if wrong.ends_with("never passed")) {
                break;
            }
            outcome = std::panic::catch_unwind(|| crash_at_both(first, second));
        }
        match outcome.unwrap_or_else(|_| Err(format!("{first}, then {second}: see above"))) {
            Ok(Second::Crashed) => sum.point_pairs += 1,
            Ok(Second::NeverPassed) => {}
            Err(wrong) => sum.wrong.push(wrong),
        }
        eprintln!("points: {done} of {all}, {}", time_left(begun, done as u64, all as u64));
    }
}

fn kills(seed: u64, sum: &mut Sum) {
    let kills = number("KILLS", 1000);
    let (keys, rate) = (number("KEYS", 1_000_000), number("RATE", 20_000));
    let life_max = Duration::from_millis(number("LIFE_MS", 2_000));
    // Most of them at the big job, a tenth at each of the others.
    let loops = [
        KillLoop { kills: kills - 2 * (kills / 10), keys, rate, life_max, trouble: Trouble::Nothing },
        KillLoop { kills: kills / 10, keys: 5_000, rate, life_max, trouble: Trouble::TimersDeadLettersIdle },
        KillLoop { kills: kills / 10, keys: 5_000, rate, life_max, trouble: Trouble::AbortedCheckpoints },
    ];
    let mut random = Random::from_seed(seed);
    for kill_loop in loops {
        if kill_loop.kills == 0 {
            continue;
        }
        let begun = Instant::now();
        let all = kill_loop.kills;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            kill_loop.run(&mut random, &mut |kill, what| {
                eprintln!("kills ({:?}): {kill} of {all} {what}, {}", kill_loop.trouble, time_left(begun, kill, all));
            })
        }));
        match outcome {
            Ok(killed) => {
                eprintln!("kills ({:?}): {}", kill_loop.trouble, killed.verdict);
                sum.kills += all;
                sum.aborted_checkpoints += killed.aborted_checkpoints;
                sum.records += killed.verdict.records;
                sum.lost += killed.verdict.lost;
                sum.duplicated += killed.verdict.duplicated;
                if !killed.verdict.is_exactly_once() {
                    sum.wrong.push(format!("kills ({:?}): {}", kill_loop.trouble, killed.verdict));
                }
            }
            Err(_) => sum.wrong.push(format!("kills ({:?}): see above", kill_loop.trouble)),
        }
    }
}

fn time_left(begun: Instant, done: u64, all: u64) -> String {
    let left = begun.elapsed().as_secs_f64() / done.max(1) as f64 * (all - done) as f64;
    format!("{:.0} min left", left / 60.0)
}
