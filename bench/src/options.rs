//! The command line, and the defaults that depend on the workload.

use crate::plan::{Bad, BadHow, Bound, EngineName, Format, OnError, RunPlan, Workload};
use clap::Parser;
use std::time::Duration;

/// Runs a workload on an engine and prints one JSON line a run.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Options {
    #[arg(long, value_enum)]
    pub workload: Workload,

    #[arg(long, value_enum, default_value = "tidegate")]
    pub engine: EngineName,

    /// Distinct keys [default: 1000; ws: 1000000]
    #[arg(long, value_parser = at_least_one)]
    pub keys: Option<u64>,

    /// End after so many records
    #[arg(long, value_parser = at_least_one, conflicts_with = "seconds")]
    pub records: Option<u64>,

    /// End after so many seconds [default: 20; cold: 1000 records]
    #[arg(long, value_parser = positive)]
    pub seconds: Option<f64>,

    /// Records a second in total [default: as fast as it goes; ws: 50000]
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,

    /// Time between checkpoints: 10ms, 1s, off
    #[arg(long, default_value = "1s", value_parser = interval)]
    pub interval: Interval,

    /// Form of the records; pojo is another word for rows
    #[arg(long, value_enum, default_value = "rows")]
    pub format: Format,

    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub parallelism: u32,

    /// Runs, each with a line of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,

    /// State of all keys together, in ws [default: 1e9]
    #[arg(long, value_parser = count)]
    pub state_bytes: Option<u64>,

    /// One record in so many is bad, in w2bad; a divisor of 10000, or 0 for none
    #[arg(long, default_value_t = 100, value_parser = divisor)]
    pub bad_one_in: u64,

    /// What the guest does with a bad record
    #[arg(long, value_enum, default_value = "reject")]
    pub bad_how: BadHow,

    /// What becomes of bad records
    #[arg(long, value_enum, default_value = "dead-letter")]
    pub on_error: OnError,
}

impl Options {
    pub fn plan(&self) -> RunPlan {
        let ws = self.workload == Workload::Ws;
        let keys = self.keys.unwrap_or(if ws { 1_000_000 } else { 1000 });
        let bound = match (self.records, self.seconds) {
            (Some(records), _) => Bound::Records(records),
            (None, Some(seconds)) => Bound::Seconds(seconds),
            (None, None) if self.workload == Workload::Cold => Bound::Records(1000),
            (None, None) => Bound::Seconds(20.0),
        };
        RunPlan {
            workload: self.workload,
            engine: self.engine,
            keys,
            bound,
            rate: self.rate.or(ws.then_some(50_000.0)),
            interval: self.interval.0,
            format: self.format,
            parallelism: self.parallelism,
            // The first eight bytes are the counter.
            value_bytes: (self.state_bytes.unwrap_or(1_000_000_000) / keys).max(8),
            bad: Bad { one_in: self.bad_one_in, how: self.bad_how, on_error: self.on_error },
        }
    }
}

/// A type of its own: clap reads an `Option` as an argument that may be left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval(Option<Duration>);

fn interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    let (number, ms) = match (text.strip_suffix("ms"), text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), ..) => (number, 1.0),
        (None, Some(number), _) => (number, 1000.0),
        (None, None, Some(number)) => (number, 60_000.0),
        (None, None, None) => return Err("a number with ms, s or m, or off".to_string()),
    };
    let ms = positive(number)? * ms;
    if !(1.0..=3_600_000.0).contains(&ms) {
        return Err("from 1ms to 60m, or off".to_string());
    }
    Ok(Interval(Some(Duration::from_secs_f64(ms / 1000.0))))
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("a number above 0".to_string()),
    }
}

/// The numbers of auctions are spread evenly below 10000.
fn divisor(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(number) if number == 0 || 10_000 % number == 0 => Ok(number),
        _ => Err("a divisor of 10000, or 0".to_string()),
    }
}

/// 10000000, 10_000_000 or 1e7.
fn count(text: &str) -> Result<u64, String> {
    /// Up to here every whole number has its own f64.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let plain = text.replace('_', "");
    if let Ok(number) = plain.parse::<u64>() {
        return Ok(number);
    }
    match plain.parse::<f64>() {
        Ok(number) if (0.0..=EXACT_MAX).contains(&number) && number.fract() == 0.0 => Ok(number as u64),
        _ => Err("a whole number, like 10000000 or 1e7".to_string()),
    }
}

fn at_least_one(text: &str) -> Result<u64, String> {
    match count(text)? {
        0 => Err("at least 1".to_string()),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<RunPlan, clap::Error> {
        Options::try_parse_from(["bench"].into_iter().chain(args.split_whitespace())).map(|options| options.plan())
    }

    #[test]
    fn the_command_of_the_specification_parses() {
        let plan = parse("--workload w2 --engine tidegate --keys 1000 --seconds 20 --interval 1s").expect("parses");
        let expected = RunPlan {
            workload: Workload::W2,
            engine: EngineName::Tidegate,
            keys: 1000,
            bound: Bound::Seconds(20.0),
            rate: None,
            interval: Some(Duration::from_secs(1)),
            format: Format::Rows,
            parallelism: 2,
            value_bytes: 1_000_000,
            bad: Bad { one_in: 100, how: BadHow::Reject, on_error: OnError::DeadLetter },
        };
        assert_eq!(plan, expected);
    }

    #[test]
    fn every_workload_engine_and_format_of_the_specification_has_its_word() {
        for workload in ["w0", "w1", "w1map", "w2", "w2bad", "ws", "cold"] {
            assert_eq!(parse(&format!("--workload {workload}")).expect(workload).workload.name(), workload);
        }
        for engine in ["tidegate", "native"] {
            assert_eq!(parse(&format!("--workload w0 --engine {engine}")).expect(engine).engine.name(), engine);
        }
        for (format, name) in [("rows", "rows"), ("pojo", "rows"), ("json", "json")] {
            assert_eq!(parse(&format!("--workload w0 --format {format}")).expect(format).format.name(), name);
        }
    }

    #[test]
    fn ws_is_paced_and_splits_its_state_over_its_keys() {
        let plan = parse("--workload ws --state-bytes 1e9").expect("parses");
        assert_eq!((plan.keys, plan.rate, plan.value_bytes, plan.prefill()), (1_000_000, Some(50_000.0), 1000, 1_000_000));
        let small = parse("--workload ws --state-bytes 0 --keys 10 --rate 7").expect("parses");
        assert_eq!((small.value_bytes, small.rate), (8, Some(7.0)));
    }

    #[test]
    fn intervals_have_units_or_are_off() {
        let interval = |text: &str| parse(&format!("--workload w2 --interval {text}")).map(|plan| plan.interval);
        assert_eq!(interval("off").expect("off"), None);
        assert_eq!(interval("10ms").expect("10ms"), Some(Duration::from_millis(10)));
        assert_eq!(interval("2m").expect("2m"), Some(Duration::from_secs(120)));
        assert_eq!(interval("0.5s").expect("0.5s"), Some(Duration::from_millis(500)));
        for wrong in ["1", "s", "-1s", "0s", "1h", "1e99s", "nan", "nans"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_numbers_are_refused() {
        for wrong in ["--keys 0", "--records 0", "--records 1.5", "--seconds 0", "--rate nan", "--parallelism 0", "--repeat 0"] {
            assert!(parse(&format!("--workload w2 {wrong}")).is_err(), "{wrong}");
        }
        assert!(parse("--workload w2 --records 1 --seconds 1").is_err(), "both bounds");
        assert!(parse("").is_err(), "no workload");
        assert_eq!(parse("--workload w2 --records 1_000").expect("parses").bound, Bound::Records(1000));
        assert_eq!(parse("--workload w2 --records 1e7").expect("parses").bound, Bound::Records(10_000_000));
    }
}
