//! All steps of a job, and all troubles at each of them.

use super::{End, Output, Rig, Run};
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use tidegate::fault::io_step::Trouble;

/// Wrong runs that are kept in words.
const WRONG_MAX: usize = 10;

/// How much of all there is to try is tried: one of so many, chosen by chance.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// By trouble.
    pub one_of: fn(Trouble) -> u64,
    /// Pairs of crashes; 0: none.
    pub pairs_one_of: u64,
}

impl Extent {
    pub const FULL: Self = Self { one_of: |_| 1, pairs_one_of: 1 };
}

#[derive(Debug, Default)]
pub struct Tally {
    /// Steps of the run without trouble, over all jobs.
    pub io_steps: u64,
    /// Runs with one crash.
    pub crash_runs: u64,
    /// Runs with a call that failed, or was told to have.
    pub error_runs: u64,
    /// Runs with two crashes, the second one in the recovery from the first.
    pub pairs: u64,
    /// Records in committed outputs that were compared.
    pub records: u64,
    pub lost: u64,
    pub duplicated: u64,
    /// What went wrong, in words, with all that is needed to do it again; the first few.
    pub wrong: Vec<String>,
    /// How often each call was the one in trouble.
    pub tried: BTreeMap<(&'static str, Trouble), u64>,
}

impl Tally {
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.io_steps += other.io_steps;
        self.crash_runs += other.crash_runs;
        self.error_runs += other.error_runs;
        self.pairs += other.pairs;
        self.records += other.records;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.wrong.extend(other.wrong);
        other.tried.into_iter().for_each(|(call, times)| *self.tried.entry(call).or_default() += times);
    }

    fn judge(&mut self, rig: &Rig, troubles: &[(u64, Trouble)], run: &Run, right: &Output) {
        self.records += run.output.records();
        for (life, (step, trouble)) in run.lives.iter().zip(troubles) {
            if let Some(name) = life.names.get(*step as usize) {
                *self.tried.entry((name, *trouble)).or_default() += 1;
            }
        }
        let difference = run.output.difference(right);
        self.lost += difference.lost;
        self.duplicated += difference.duplicated;
        if (run.end(), &run.output) == (&End::Finished, right) || self.wrong.len() >= WRONG_MAX {
            return;
        }
        let places: Vec<_> = troubles
            .iter()
            .zip(&run.lives)
            .map(|((step, trouble), life)| format!("{trouble:?} at step {step} ({:?})", life.names.get(*step as usize)))
            .collect();
        let (left, end) = (&run.output.left, run.end());
        let wrong = format!("{}: {}: {end:?}, {difference:?}, left {left:?}", rig.shape.name, places.join(", then "));
        eprintln!("{wrong}");
        self.wrong.push(wrong);
    }
}

/// Whether a number is among those that a seed chooses.
fn is_chosen(seed: u64, number: u64, one_of: u64) -> bool {
    one_of > 0 && crate::generator::mix(seed ^ crate::generator::mix(number)).is_multiple_of(one_of)
}

/// The whole enumeration over some jobs. `progress` hears how many runs there were.
pub fn enumerate(rigs: &[Rig], extent: Extent, random: &Random, progress: &(dyn Fn(u64, &str) + Sync)) -> Tally {
    let mut tally = Tally::default();
    let runs = AtomicU64::new(0);
    for rig in rigs {
        let (seed, name) = (random.seed(), rig.shape.name);
        let clean = rig.run(&[]);
        assert_eq!(clean.end(), &End::Finished, "{name}: the run without trouble");
        assert!(clean.output.left.is_empty() && clean.output.records() > 0, "{name}: {:?}", clean.output);
        let right = &clean.output;
        tally.io_steps += clean.lives[0].names.len() as u64;
        // A run may take a few steps more than the first one did: it is over when a step is not reached, several times in a row.
        let most = clean.lives[0].names.len() as u64 * 2;
        let missed = AtomicUsize::new(0);
        let singles = over(most, |step, tally| {
            if missed.load(SeqCst) > 8 {
                return;
            }
            for trouble in Trouble::ALL {
                if !is_chosen(seed, step << 2 | trouble as u64, (extent.one_of)(trouble)) {
                    continue;
                }
                let troubles = [(step, trouble)];
                let run = rig.run(&troubles);
                tally.judge(rig, &troubles, &run, right);
                let met = run.lives[0].names.len() as u64 > step;
                if met && trouble.is_crash() {
                    tally.crash_runs += 1
                }
                if met && !trouble.is_crash() {
                    tally.error_runs += 1
                }
                if met {
                    missed.store(0, SeqCst)
                } else {
                    _ = missed.fetch_add(1, SeqCst)
                }
                progress(runs.fetch_add(1, SeqCst) + 1, name);
            }
        });
        tally.add(singles);
        if extent.pairs_one_of == 0 {
            continue;
        }
        let steps = clean.lives[0].names.len() as u64;
        let pairs = over(steps, |first, tally| {
            for second in 0.. {
                let mut is_over = false;
                for trouble in [Trouble::CrashBefore, Trouble::CrashAfter] {
                    if !is_chosen(seed, (first << 20 | second) << 2 | trouble as u64, extent.pairs_one_of) {
                        // How long the recovery is, is known when it was run; a sample stops where the longest ever ended.
                        is_over |= second > 200;
                        continue;
                    }
                    let troubles = [(first, Trouble::CrashAfter), (second, trouble)];
                    let run = rig.run(&troubles);
                    tally.judge(rig, &troubles, &run, right);
                    let Some(recovery) = run.lives.get(1).map(super::Life::recovery) else {
                        is_over = true;
                        continue;
                    };
                    if second <= recovery && run.lives[1].end == End::Died {
                        tally.pairs += 1
                    } else {
                        is_over = true
                    }
                    progress(runs.fetch_add(1, SeqCst) + 1, name);
                }
                if is_over {
                    break;
                }
            }
        });
        tally.add(pairs);
    }
    tally
}

/// All numbers below `end`, by as many threads as there are processors.
fn over(end: u64, work: impl Fn(u64, &mut Tally) + Sync) -> Tally {
    let next = AtomicU64::new(0);
    let all = Mutex::new(Tally::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Tally::default();
                loop {
                    let number = next.fetch_add(1, SeqCst);
                    if number >= end {
                        break;
                    }
                    work(number, &mut mine);
                }
                all.lock().unwrap_or_else(PoisonError::into_inner).add(mine);
            });
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Calls that the run without trouble makes and that were never the one in trouble.
pub fn untried(rig: &Rig, tally: &Tally) -> BTreeSet<(&'static str, String)> {
    let names: BTreeSet<_> = rig.run(&[]).lives[0].names.iter().copied().collect();
    let all = names.into_iter().flat_map(|name| Trouble::ALL.map(|trouble| (name, trouble)));
    all.filter(|call| !tally.tried.contains_key(call)).map(|(name, trouble)| (name, format!("{trouble:?}"))).collect()
}
