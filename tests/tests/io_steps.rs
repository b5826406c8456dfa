//! A crash, an error or a late answer at the calls of a job to the outside: whatever goes wrong, its committed output is that of a run
//! in which nothing does. All steps of all jobs are tried by `make proof`; here all crashes of one job, and a sample of the rest.
//!
//! `TIDEGATE_SEED` repeats a sample.

use tidegate::fault::io_step::Trouble;
use tidegate_tests::io_steps::enumerate::{Extent, Tally, enumerate, untried};
use tidegate_tests::io_steps::{Rig, Shape};
use tidegate_tests::random::Random;

fn assert_right(tally: &Tally, random: &Random) {
    let (seed, wrong) = (random.seed(), &tally.wrong);
    let runs = (tally.crash_runs, tally.error_runs, tally.pairs);
    println!("{} steps; {runs:?} runs with a crash, an error, two crashes; {} records", tally.io_steps, tally.records);
    assert!(tally.is_right(), "seed {seed}: {} lost, {} duplicated: {wrong:#?}", tally.lost, tally.duplicated);
}

#[test]
fn a_crash_at_any_call_leaves_the_output_of_a_run_without_one() {
    let random = Random::from_env();
    let rigs = [Rig::new(Shape::KEYED_TWO)];
    let extent = Extent { one_of: |trouble| if trouble.is_crash() { 1 } else { 8 }, pairs_one_of: 100 };
    let tally = enumerate(&rigs, extent, &random, &|_, _| {});
    assert_right(&tally, &random);
    let untried = untried(&rigs[0], &tally);
    let crashes: Vec<_> = untried.iter().filter(|(_, trouble)| trouble.starts_with("Crash")).collect();
    assert!(crashes.is_empty(), "no crash was tried at {crashes:?}");
}

#[test]
fn a_call_that_goes_wrong_changes_no_output() {
    let random = Random::from_env();
    let others = [Shape::PLAIN, Shape::PLAIN_TWO, Shape::KEYED, Shape::GUEST, Shape::UNALIGNED];
    let rigs: Vec<_> = others.into_iter().map(Rig::new).collect();
    let extent = Extent { one_of: |trouble| if trouble == Trouble::CrashBefore { 10 } else { 6 }, pairs_one_of: 200 };
    assert_right(&enumerate(&rigs, extent, &random, &|_, _| {}), &random);
}
