//! The settings of a job that are not about its nodes: ranges, and what agrees with what.

use super::spec::{CheckpointSpec, Delivery, JobSpec, RestartSpec};
use crate::limits::{
    BATCH_BYTES, BATCH_LINGER_MS, BATCH_ROWS, CHECKPOINT_ALIGNED_TIMEOUT_MS, CHECKPOINT_INTERVAL_MS, CHECKPOINT_MAX_CONCURRENT,
    CHECKPOINT_MIN_PAUSE_MS, CHECKPOINT_RETAINED, CHECKPOINT_TIMEOUT_MS, JOB_STATE_BYTES, KEY_GROUPS_MAX, RESTART_ATTEMPTS,
    RESTART_DELAY_MS, RESTART_RESET_AFTER_MS,
};
use crate::problem::Problem;
use crate::units::{format_bytes, format_duration_ms};
use std::ops::RangeInclusive;

pub(super) fn check(spec: &JobSpec, problems: &mut Vec<Problem>) {
    check_count("key_groups", spec.key_groups, &(1..=KEY_GROUPS_MAX), problems);
    check_checkpoint(&spec.checkpoint, problems);
    if spec.checkpoint.unaligned && spec.delivery != Delivery::ExactlyOnce {
        let message = format!(
            "can't go with delivery = \"{}\": what barriers overtake is kept for exactly-once alone; leave it out, or ask for that",
            spec.delivery.name()
        );
        problems.push(Problem::new("checkpoint.unaligned", Some("true".to_owned()), message));
    }
    check_restart(&spec.restart, problems);
    check_count("batch.rows", spec.batch.rows_max, &BATCH_ROWS, problems);
    check_range("batch.bytes", spec.batch.bytes_max, &BATCH_BYTES, |bytes| quoted(format_bytes(*bytes as u64)), problems);
    check_duration("batch.linger", spec.batch.linger_ms, &BATCH_LINGER_MS, problems);
    check_range(
        "limits.state_bytes",
        spec.limits.state_bytes_max,
        &JOB_STATE_BYTES,
        |bytes| quoted(format_bytes(*bytes)),
        problems,
    );
}

fn check_checkpoint(checkpoint: &CheckpointSpec, problems: &mut Vec<Problem>) {
    let found = problems.len();
    if let Some(interval_ms) = checkpoint.interval_ms {
        check_duration("checkpoint.interval", interval_ms, &CHECKPOINT_INTERVAL_MS, problems);
    }
    check_duration("checkpoint.min_pause", checkpoint.min_pause_ms, &CHECKPOINT_MIN_PAUSE_MS, problems);
    check_duration("checkpoint.timeout", checkpoint.timeout_ms, &CHECKPOINT_TIMEOUT_MS, problems);
    check_count("checkpoint.max_concurrent", checkpoint.max_concurrent, &CHECKPOINT_MAX_CONCURRENT, problems);
    check_count("checkpoint.retained", checkpoint.retained, &CHECKPOINT_RETAINED, problems);
    check_duration("checkpoint.aligned_timeout", checkpoint.aligned_timeout_ms, &CHECKPOINT_ALIGNED_TIMEOUT_MS, problems);
    if problems.len() > found {
        // What is out of range alone says nothing about the others.
        return;
    }
    let pause = || quoted(format_duration_ms(checkpoint.min_pause_ms));
    if let Some(interval_ms) = checkpoint.interval_ms
        && checkpoint.min_pause_ms > interval_ms
    {
        let message = format!(
            "is longer than checkpoint.interval ({}), which could then never be kept: lower one or raise the other",
            format_duration_ms(interval_ms)
        );
        problems.push(Problem::new("checkpoint.min_pause", Some(pause()), message));
    }
    if checkpoint.min_pause_ms > 0 && checkpoint.max_concurrent > 1 {
        let message = format!(
            "can't go with checkpoint.min_pause = {}: a pause between checkpoints leaves one under way at most, so set 1, or no pause",
            pause()
        );
        problems.push(Problem::new("checkpoint.max_concurrent", Some(checkpoint.max_concurrent.to_string()), message));
    }
    if checkpoint.unaligned && checkpoint.max_concurrent > 1 {
        let message = "can't go with checkpoint.unaligned = true: barriers that overtake must not overtake each other, so set 1";
        problems.push(Problem::new("checkpoint.max_concurrent", Some(checkpoint.max_concurrent.to_string()), message));
    }
    if checkpoint.unaligned && checkpoint.aligned_timeout_ms >= checkpoint.timeout_ms {
        let message = format!(
            "must be shorter than checkpoint.timeout ({}): no barrier would ever overtake",
            format_duration_ms(checkpoint.timeout_ms)
        );
        let value = quoted(format_duration_ms(checkpoint.aligned_timeout_ms));
        problems.push(Problem::new("checkpoint.aligned_timeout", Some(value), message));
    }
}

fn check_restart(restart: &RestartSpec, problems: &mut Vec<Problem>) {
    match *restart {
        RestartSpec::None => {}
        RestartSpec::FixedDelay { attempts, delay_ms } => {
            check_count("restart.attempts", attempts, &RESTART_ATTEMPTS, problems);
            check_duration("restart.delay", delay_ms, &RESTART_DELAY_MS, problems);
        }
        RestartSpec::ExponentialDelay { initial_ms, max_ms, reset_after_ms, attempts } => {
            if let Some(attempts) = attempts {
                check_count("restart.attempts", attempts, &RESTART_ATTEMPTS, problems);
            }
            check_duration("restart.initial", initial_ms, &RESTART_DELAY_MS, problems);
            check_duration("restart.max", max_ms, &RESTART_DELAY_MS, problems);
            check_duration("restart.reset_after", reset_after_ms, &RESTART_RESET_AFTER_MS, problems);
            if initial_ms > max_ms {
                let message = format!("is longer than restart.max ({})", format_duration_ms(max_ms));
                problems.push(Problem::new("restart.initial", Some(quoted(format_duration_ms(initial_ms))), message));
            }
        }
    }
}

pub(super) fn check_count(key: &str, value: u32, range: &RangeInclusive<u32>, problems: &mut Vec<Problem>) {
    check_range(key, value, range, u32::to_string, problems);
}

pub(super) fn check_duration(key: &str, ms: u64, range: &RangeInclusive<u64>, problems: &mut Vec<Problem>) {
    check_range(key, ms, range, |ms| quoted(format_duration_ms(*ms)), problems);
}

fn check_range<T: PartialOrd>(
    key: &str,
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
    problems: &mut Vec<Problem>,
) {
    if !range.contains(&value) {
        let message = format!("must be {} to {}", show(range.start()), show(range.end()));
        problems.push(Problem::new(key, Some(show(&value)), message));
    }
}

/// As it stands in a job file.
fn quoted(text: String) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_graph::parse::parse_job;
    use serde_json::Value;

    fn problems(text: &str) -> Vec<String> {
        let value: Value = toml::from_str(&format!("name = 'j'\n{text}")).unwrap();
        let spec = parse_job(&value).unwrap_or_else(|e| panic!("{e:?}"));
        let mut problems = Vec::new();
        check(&spec, &mut problems);
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn defaults_and_bounds_are_right() {
        for text in [
            "",
            "key_groups = 1",
            "key_groups = 32768",
            "[checkpoint]\ninterval = 'off'\nmin_pause = '10s'",
            "[checkpoint]\ninterval = '10ms'\ntimeout = '1d'\nmax_concurrent = 16\nretained = 1\ntolerable_failures = 0",
            "[checkpoint]\ninterval = '1s'\nmin_pause = '1s'",
            "[restart]\nstrategy = 'none'",
            "[restart]\nattempts = 'unlimited'",
            "[batch]\nrows = 1\nbytes = '1KiB'\nlinger = 0",
        ] {
            assert_eq!(problems(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn every_range_is_named() {
        let text = "
            key_groups = 32769
            [checkpoint]
            interval = 9
            min_pause = '2d'
            timeout = 0
            max_concurrent = 17
            retained = 0
            [restart]
            attempts = 0
            initial = 0
            max = '2d'
            reset_after = '31d'
            [batch]
            rows = 0
            bytes = '1GiB'
            linger = '2m'
            [limits]
            state_bytes = '1KiB'
        ";
        assert_eq!(
            problems(text),
            [
                "key_groups = 32769: must be 1 to 32768",
                "checkpoint.interval = \"9ms\": must be \"10ms\" to \"1d\"",
                "checkpoint.min_pause = \"2d\": must be \"0s\" to \"1d\"",
                "checkpoint.timeout = \"0s\": must be \"10ms\" to \"1d\"",
                "checkpoint.max_concurrent = 17: must be 1 to 16",
                "checkpoint.retained = 0: must be 1 to 1000",
                "restart.attempts = 0: must be 1 to 1000000",
                "restart.initial = \"0s\": must be \"1ms\" to \"1d\"",
                "restart.max = \"2d\": must be \"1ms\" to \"1d\"",
                "restart.reset_after = \"31d\": must be \"1ms\" to \"30d\"",
                "batch.rows = 0: must be 1 to 65536",
                "batch.bytes = \"1GiB\": must be \"1KiB\" to \"16MiB\"",
                "batch.linger = \"2m\": must be \"0s\" to \"1m\"",
                "limits.state_bytes = \"1KiB\": must be \"1MiB\" to \"16TiB\"",
            ]
        );
    }

    #[test]
    fn settings_that_contradict_each_other_are_told_together() {
        assert_eq!(
            problems("[checkpoint]\ninterval = '1s'\nmin_pause = '2s'\nmax_concurrent = 2\n[restart]\ninitial = '2m'"),
            [
                "checkpoint.min_pause = \"2s\": is longer than checkpoint.interval (1s), which could then never be kept: lower one \
                 or raise the other",
                "checkpoint.max_concurrent = 2: can't go with checkpoint.min_pause = \"2s\": a pause between checkpoints leaves one \
                 under way at most, so set 1, or no pause",
                "restart.initial = \"2m\": is longer than restart.max (1m)",
            ]
        );
    }

    #[test]
    fn barriers_that_overtake_go_one_at_a_time_and_need_an_alignment_to_overtake() {
        assert_eq!(problems("[checkpoint]\nunaligned = true\naligned_timeout = '10s'"), Vec::<String>::new());
        let text = "delivery = 'at-least-once'\n[checkpoint]\nunaligned = true\naligned_timeout = '1m'\nmax_concurrent = 2";
        assert_eq!(
            problems(text),
            [
                "checkpoint.max_concurrent = 2: can't go with checkpoint.unaligned = true: barriers that overtake must not overtake \
                 each other, so set 1",
                "checkpoint.aligned_timeout = \"1m\": must be shorter than checkpoint.timeout (1m): no barrier would ever overtake",
                "checkpoint.unaligned = true: can't go with delivery = \"at-least-once\": what barriers overtake is kept for \
                 exactly-once alone; leave it out, or ask for that",
            ]
        );
    }
}
