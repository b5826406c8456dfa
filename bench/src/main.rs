//! The benchmark driver: runs a workload on an engine and prints one JSON line a run.
//!
//! Invariants:
//! * stdout carries the JSON lines and nothing else; progress and errors go to stderr;
//! * a run counts only if its digest is that of the reference, which knows nothing of the engine; else the exit code is 1;
//! * what a run did not measure is null, never 0.
//!
//! ```text
//!   options ── plan ── engine ── measured ──┬── report ── stdout
//!                                reference ─┘ (digest)
//! ```

mod cold;
mod engine;
mod in_process;
mod job;
mod measure;
mod native;
mod options;
mod plan;
mod reference;
mod report;
mod server;

use clap::Parser;
use engine::{Engine, Measured};
use measure::Progress;
use options::Options;
use plan::RunPlan;
use std::io::Write;
use std::process::ExitCode;

/// As in the `tidegate` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    let plan = options.plan();
    let engine = match engine::connect(plan.engine, plan.workload) {
        Ok(engine) => engine,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runs_well = runs(&*engine, &plan, options.repeat, &mut std::io::stdout().lock());
    if runs_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All runs, each with its line. False if one failed or did other work than it should have; the others still run, because
/// their numbers are worth having.
fn runs(engine: &dyn Engine, plan: &RunPlan, repeat: u32, out: &mut dyn Write) -> bool {
    let mut all_well = true;
    for run in 1..=repeat {
        let title = format!("{} {} {run}/{repeat}", plan.engine.name(), plan.workload.name());
        let mut progress = Progress::new(title.clone());
        let measured = match engine.run(plan, &mut progress) {
            Ok(measured) => measured,
            Err(error) => {
                eprintln!("{title}: {error}");
                all_well = false;
                continue;
            }
        };
        if let Err(wrong) = check(plan, &measured) {
            eprintln!("{title}: {wrong}");
            all_well = false;
        }
        let line = report::line(plan, &measured);
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            eprintln!("{title}: cannot write to stdout: {error}");
            return false;
        }
    }
    all_well
}

/// Compares the run's digest with the reference's over the records that the engine says it has processed.
fn check(plan: &RunPlan, measured: &Measured) -> Result<(), String> {
    let Some(expected) = reference::digest(plan, &measured.records_by_split) else { return Ok(()) };
    if let plan::Bound::Records(records) = plan.bound
        && measured.records() != records
    {
        return Err(format!("{} of {records} records were processed", measured.records()));
    }
    match &measured.digest {
        Some(digest) if *digest == expected => Ok(()),
        Some(digest) => Err(format!("the digest is {digest}, but over {} records it should be {expected}", measured.records())),
        None => Err(format!("the engine gave no digest; it should be {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::EngineError;

    /// Answers with what it is told to.
    struct Fake(Measured);

    impl Engine for Fake {
        fn run(&self, _: &RunPlan, _: &mut Progress) -> Result<Measured, EngineError> {
            Ok(self.0.clone())
        }
    }

    struct Broken;

    impl Engine for Broken {
        fn run(&self, _: &RunPlan, _: &mut Progress) -> Result<Measured, EngineError> {
            Err(EngineError::new("running the job", "it failed"))
        }
    }

    fn plan(args: &str) -> RunPlan {
        Options::try_parse_from(["bench"].into_iter().chain(args.split_whitespace())).expect("parses").plan()
    }

    fn million(digest: &str) -> Fake {
        let measured = Measured {
            records_by_split: vec![500_000, 500_000],
            seconds: 2.0,
            cpu_seconds: 0.5,
            digest: Some(digest.to_string()),
            ..Measured::default()
        };
        Fake(measured)
    }

    fn run(engine: &dyn Engine, plan: &RunPlan, repeat: u32) -> (bool, Vec<serde_json::Value>) {
        let mut out = Vec::new();
        let well = runs(engine, plan, repeat, &mut out);
        let text = String::from_utf8(out).expect("text");
        (well, text.lines().map(|line| serde_json::from_str(line).expect("one JSON value a line")).collect())
    }

    #[test]
    fn a_run_with_the_right_digest_is_one_line_and_well() {
        let (well, lines) = run(&million("da00b6a28b009ff7"), &plan("--workload w2 --records 1000000"), 3);
        assert!(well);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["digest"], "da00b6a28b009ff7");
        assert_eq!(lines[0]["records_per_cpu_second"], 2_000_000);
    }

    #[test]
    fn a_run_with_a_wrong_digest_still_has_its_line_but_is_not_well() {
        let (well, lines) = run(&million("da00b6a28b009ff8"), &plan("--workload w2 --records 1000000"), 1);
        assert!(!well);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn a_run_that_lost_records_is_not_well_even_if_its_digest_fits_what_it_did() {
        assert!(run(&million("da00b6a28b009ff7"), &plan("--workload w2 --seconds 1"), 1).0);
        assert!(!run(&million("da00b6a28b009ff7"), &plan("--workload w2 --records 1000001"), 1).0);
    }

    #[test]
    fn a_run_without_a_digest_is_not_well() {
        let engine = Fake(Measured { records_by_split: vec![1_000_000], ..Measured::default() });
        assert!(!run(&engine, &plan("--workload w1 --seconds 1"), 1).0);
    }

    #[test]
    fn a_run_that_failed_prints_no_line() {
        let (well, lines) = run(&Broken, &plan("--workload w2"), 2);
        assert!(!well);
        assert!(lines.is_empty());
    }
}
