//! From the job file, as TOML or as JSON of the same shape, to a [`JobSpec`].
//!
//! Invariants:
//! * all problems are told at once, each at the key path in the author's own form: `operator.delays.parallelism`, or
//!   `source[2].name` where the name itself is at fault (numbers count from 0);
//! * no key is passed over: what is not known here is refused, but for sources and sinks, whose connector knows the rest;
//! * what is missing has a default, or is a problem. Ranges, and what agrees with what, are checked by
//!   [`validate`](super::validate).

pub use super::fields::name_problem;
use super::fields::{Problems, Table, node_path, shown};
use super::guest_limits;
use super::spec::{
    BatchSpec, CheckpointSpec, Delivery, ErrorsSpec, JobLimits, JobSpec, KeySpec, OnError, OperatorSpec, PortRef, RestartSpec,
    SinkSpec, SourceSpec, WatermarkSpec,
};
use crate::limits::{ERRORS_PER_MS, GuestLimits, KEY_FIELDS_MAX, NAME_BYTES_MAX, NODE_INPUTS_MAX};
use crate::problem::{self, Problem};
use crate::units::format_duration_ms;
use serde_json::{Map, Value};

const ON_ERROR: [(&str, OnError); 3] = [("dead-letter", OnError::DeadLetter), ("skip", OnError::Skip), ("fail", OnError::Fail)];

pub fn parse_job(job: &Value) -> Result<JobSpec, Vec<Problem>> {
    let (spec, problems) = read_job(job);
    if problems.is_empty() { Ok(spec) } else { Err(problem::bounded(problems)) }
}

/// The job as far as it can be read: with problems, defaults and empty names stand where something is wrong, so that what is
/// right can still be checked.
pub(super) fn read_job(job: &Value) -> (JobSpec, Vec<Problem>) {
    let problems = Problems::default();
    let empty = Map::new();
    let map = job.as_object().unwrap_or_else(|| {
        problems.borrow_mut().push(Problem::new("job", Some(shown(job)), "must be a table"));
        &empty
    });
    let mut table = Table::new("", map, &problems);
    let name = read_name(&mut table, "the job's name");
    let delivery = read_delivery(&mut table);
    let key_groups = table.number("key_groups").unwrap_or_else(JobSpec::key_groups_default);
    let checkpoint = table.table("checkpoint").map(read_checkpoint).unwrap_or_default();
    let restart = table.table("restart").map(read_restart).unwrap_or_default();
    let batch = table.table("batch").map(read_batch).unwrap_or_default();
    let limits = table.table("limits").map(read_limits).unwrap_or_default();
    let node = |kind: &str, index: usize, map| {
        let name = Map::get(map, "name").and_then(Value::as_str).unwrap_or_default();
        Table::new(node_path(kind, index, name), map, &problems)
    };
    let sources = table.tables("source").into_iter().map(|(i, map)| read_source(node("source", i, map))).collect();
    let operators = table.tables("operator").into_iter().map(|(i, map)| read_operator(node("operator", i, map))).collect();
    let sinks = table.tables("sink").into_iter().map(|(i, map)| read_sink(node("sink", i, map))).collect();
    table.refuse_unknown();
    let spec = JobSpec { name, delivery, key_groups, checkpoint, restart, batch, limits, sources, operators, sinks };
    (spec, problems.into_inner())
}

fn read_name(table: &mut Table<'_>, what: &str) -> String {
    let Some(name) = table.required_text("name", what) else { return String::new() };
    if let Some(message) = name_problem(name) {
        table.problem("name", message);
    }
    name.to_string()
}

fn read_delivery(table: &mut Table<'_>) -> Delivery {
    let all = [Delivery::ExactlyOnce, Delivery::AtLeastOnce, Delivery::AtMostOnce];
    let choices = all.map(|delivery| (delivery.name(), delivery));
    // What can't be read is taken for the weaker one, so that no node is blamed for a guarantee that nobody asked for.
    let absent = if table.has("delivery") { Delivery::AtLeastOnce } else { Delivery::default() };
    table.choice("delivery", &choices).unwrap_or(absent)
}

fn read_checkpoint(mut table: Table<'_>) -> CheckpointSpec {
    let default = CheckpointSpec::default();
    let checkpoint = CheckpointSpec {
        interval_ms: table.duration_ms_or_off("interval").unwrap_or(default.interval_ms),
        min_pause_ms: table.duration_ms("min_pause").unwrap_or(default.min_pause_ms),
        timeout_ms: table.duration_ms("timeout").unwrap_or(default.timeout_ms),
        max_concurrent: table.number("max_concurrent").unwrap_or(default.max_concurrent),
        tolerable_failures: table.number("tolerable_failures").unwrap_or(default.tolerable_failures),
        retained: table.number("retained").unwrap_or(default.retained),
        unaligned: table.flag("unaligned").unwrap_or(default.unaligned),
        aligned_timeout_ms: table.duration_ms("aligned_timeout").unwrap_or(default.aligned_timeout_ms),
    };
    if table.has("aligned_timeout") && !checkpoint.unaligned {
        let message =
            "has no meaning without checkpoint.unaligned = true: after it, barriers overtake; set that, or leave this out";
        table.problem("aligned_timeout", message);
    }
    table.refuse_unknown();
    checkpoint
}

fn read_restart(mut table: Table<'_>) -> RestartSpec {
    const STRATEGIES: [(&str, &str); 3] =
        [("none", "none"), ("fixed-delay", "fixed-delay"), ("exponential-delay", "exponential-delay")];
    let RestartSpec::ExponentialDelay { initial_ms, max_ms, reset_after_ms, attempts } = RestartSpec::default() else {
        unreachable!("BUG: the default restart strategy is another one")
    };
    let has_strategy = table.has("strategy");
    let strategy = table.choice("strategy", &STRATEGIES);
    // Where the strategy can't be read, nobody knows which keys belong to it: all of them are read.
    let known = strategy.is_some() || !has_strategy;
    let strategy = strategy.unwrap_or("exponential-delay");
    let unlimited = table.value("attempts").and_then(Value::as_str) == Some("unlimited");
    let given = if unlimited { None } else { table.number("attempts") };
    let delay = table.duration_ms("delay");
    let (initial, max, reset_after) = (table.duration_ms("initial"), table.duration_ms("max"), table.duration_ms("reset_after"));
    let belongs: &[&str] = match strategy {
        "none" => &[],
        "fixed-delay" => &["attempts", "delay"],
        _ => &["attempts", "initial", "max", "reset_after"],
    };
    for key in ["attempts", "delay", "initial", "max", "reset_after"] {
        if known && table.has(key) && !belongs.contains(&key) {
            let message = match belongs {
                [] => format!("has no meaning with strategy = \"{strategy}\"; leave it out"),
                _ => format!("has no meaning with strategy = \"{strategy}\", which knows {}", belongs.join(", ")),
            };
            table.problem(key, message);
        }
    }
    table.refuse_unknown();
    match strategy {
        "none" => RestartSpec::None,
        "fixed-delay" => {
            if unlimited {
                table.problem("attempts", "must be a number here; only strategy = \"exponential-delay\" goes on for ever");
            }
            RestartSpec::FixedDelay { attempts: given.unwrap_or(20), delay_ms: delay.unwrap_or(1000) }
        }
        _ => RestartSpec::ExponentialDelay {
            initial_ms: initial.unwrap_or(initial_ms),
            max_ms: max.unwrap_or(max_ms),
            reset_after_ms: reset_after.unwrap_or(reset_after_ms),
            attempts: if unlimited { None } else { given.or(attempts) },
        },
    }
}

fn read_batch(mut table: Table<'_>) -> BatchSpec {
    let default = BatchSpec::default();
    let batch = BatchSpec {
        rows_max: table.number("rows").unwrap_or(default.rows_max),
        // What does not fit the machine's word is out of range anyway.
        bytes_max: table.bytes("bytes").map_or(default.bytes_max, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        linger_ms: table.duration_ms("linger").unwrap_or(default.linger_ms),
    };
    table.refuse_unknown();
    batch
}

fn read_limits(mut table: Table<'_>) -> JobLimits {
    let default = JobLimits::default();
    let limits = JobLimits { state_bytes_max: table.bytes("state_bytes").unwrap_or(default.state_bytes_max) };
    table.refuse_unknown();
    limits
}

fn read_source(mut table: Table<'_>) -> SourceSpec {
    SourceSpec {
        name: read_name(&mut table, "every source has one"),
        connector: table
            .required_text("connector", "where the records come from, as in \"file\"")
            .unwrap_or_default()
            .to_string(),
        parallelism: table.number("parallelism").unwrap_or(1),
        watermark: table.table("watermark").map(read_watermark),
        on_error: table.choice("on_error", &ON_ERROR).unwrap_or_default(),
        errors: table.table("errors").map(read_errors).unwrap_or_default(),
        options: table.rest(),
    }
}

fn read_watermark(mut table: Table<'_>) -> WatermarkSpec {
    let field = table.text("field");
    if let Some(message) = field.and_then(pointer_problem) {
        table.problem("field", message);
    }
    let watermark = WatermarkSpec {
        field: field.map(str::to_string),
        out_of_orderness_ms: table.duration_ms("out_of_orderness").unwrap_or(0),
        idle_after_ms: table.duration_ms_or_off("idle_after").flatten(),
    };
    table.refuse_unknown();
    watermark
}

fn read_errors(mut table: Table<'_>) -> ErrorsSpec {
    let default = ErrorsSpec::default();
    let max = if table.is_off("max") { None } else { table.number("max").map(u64::from).or(default.max) };
    let ratio = if table.is_off("ratio") { None } else { table.share("ratio").or(default.ratio) };
    let bytes = if table.is_off("bytes") { None } else { table.bytes("bytes").or(default.bytes) };
    let errors = ErrorsSpec {
        max,
        per_ms: table.duration_ms("per").unwrap_or(default.per_ms),
        ratio,
        ratio_min: table.number("ratio_min").unwrap_or(default.ratio_min),
        bytes,
    };
    if !ERRORS_PER_MS.contains(&errors.per_ms) {
        let (least, most) = (format_duration_ms(*ERRORS_PER_MS.start()), format_duration_ms(*ERRORS_PER_MS.end()));
        table.problem("per", format!("must be {least} to {most} (errors_per)"));
    }
    table.refuse_unknown();
    errors
}

fn read_operator(mut table: Table<'_>) -> OperatorSpec {
    let name = read_name(&mut table, "every operator has one");
    let module = table.required_text("module", "the operator's code, as in \"delays@1.2.0\"");
    if let Some(Err(message)) = module.map(module_reference) {
        table.problem("module", message);
    }
    let operator = OperatorSpec {
        name,
        module: module.unwrap_or_default().to_string(),
        inputs: read_inputs(&mut table),
        key: read_key(&mut table),
        parallelism: table.number("parallelism").unwrap_or(1),
        on_error: table.choice("on_error", &ON_ERROR).unwrap_or_default(),
        errors: table.table("errors").map(read_errors).unwrap_or_default(),
        limits: table.table("limits").map_or_else(GuestLimits::default, guest_limits::read),
        config: read_config(&mut table),
    };
    table.refuse_unknown();
    operator
}

fn read_sink(mut table: Table<'_>) -> SinkSpec {
    SinkSpec {
        name: read_name(&mut table, "every sink has one"),
        connector: table.required_text("connector", "where the records go, as in \"file\"").unwrap_or_default().to_string(),
        inputs: read_inputs(&mut table),
        parallelism: table.number("parallelism"),
        options: table.rest(),
    }
}

fn read_inputs(table: &mut Table<'_>) -> Vec<PortRef> {
    let Some(value) = table.value("input") else {
        table.problem("input", "is missing: the names of the nodes it reads from, as in [\"flights\"]");
        return Vec::new();
    };
    if let Some(items) = value.as_array().filter(|items| items.len() > NODE_INPUTS_MAX) {
        table.problem(
            "input",
            format!("has {} entries, which exceeds the limit of {NODE_INPUTS_MAX} (node_inputs_max)", items.len()),
        );
        return Vec::new();
    }
    let ports: Option<Vec<PortRef>> = value.as_array().filter(|items| !items.is_empty()).and_then(|items| {
        let port = |item: &Value| item.as_str().and_then(port_ref);
        items.iter().map(port).collect()
    });
    ports.unwrap_or_else(|| {
        table.problem("input", "must be a list of names, as in [\"flights\"], or [\"delays.late\"] for a side output");
        Vec::new()
    })
}

/// `node` or `node.port`. Whether there is such a node is a matter of validation.
fn port_ref(text: &str) -> Option<PortRef> {
    let (node, port) = match text.split_once('.') {
        Some((node, port)) => (node, Some(port)),
        None => (text, None),
    };
    let filled = !node.is_empty() && port.is_none_or(|port| !port.is_empty());
    filled.then(|| PortRef { node: node.to_string(), port: port.map(str::to_string) })
}

fn read_key(table: &mut Table<'_>) -> Option<KeySpec> {
    let value = table.value("key")?;
    let fields: Option<Vec<&str>> = match value {
        Value::String(word) if word == "row" => return Some(KeySpec::Row),
        Value::Object(map) if map.len() == 1 => match map.get("json") {
            Some(Value::String(field)) => Some(vec![field]),
            Some(Value::Array(fields)) if !fields.is_empty() => fields.iter().map(Value::as_str).collect(),
            _ => None,
        },
        _ => None,
    };
    let Some(fields) = fields else {
        table.problem("key", "must be \"row\", { json = \"/field\" } or { json = [\"/field\", \"/other\"] }");
        return None;
    };
    if fields.len() > KEY_FIELDS_MAX {
        table
            .problem("key", format!("has {} fields, which exceeds the limit of {KEY_FIELDS_MAX} (key_fields_max)", fields.len()));
    }
    // One message for the first is enough: the others will be wrong in the same way.
    if let Some(message) = fields.iter().find_map(|field| pointer_problem(field)) {
        table.problem("key", message);
    }
    Some(KeySpec::Json(fields.into_iter().map(str::to_string).collect()))
}

/// RFC 6901, without the empty pointer, which is the whole document.
fn pointer_problem(pointer: &str) -> Option<String> {
    if !pointer.starts_with('/') {
        return Some(format!("\"{pointer}\" is no JSON pointer: it begins with \"/\", as in \"/{}\"", pointer.replace('.', "/")));
    }
    let escapes_are_right = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (!escapes_are_right).then(|| format!("\"{pointer}\" is no JSON pointer: \"~\" is written \"~0\", and \"/\" in a name \"~1\""))
}

/// Text for the guest: strings as they are, everything else as JSON. Values may be secrets, so no problem shows one.
fn read_config(table: &mut Table<'_>) -> Vec<(String, String)> {
    let path = table.path("config");
    match table.value("config") {
        None => Vec::new(),
        Some(Value::Object(config)) => {
            let limit = GuestLimits::default().name_bytes_max;
            if let Some(long) = config.keys().find(|name| name.is_empty() || name.len() > limit) {
                table.problem_without_value(
                    "config",
                    format!("a name has {} bytes; 1 to {limit} are allowed (name_bytes_max)", long.len()),
                );
            }
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
            config.iter().map(|(name, value)| (name.clone(), text(value))).collect()
        }
        Some(_) => {
            table.problem_without_value("config", format!("must be a table, as in [{path}]"));
            Vec::new()
        }
    }
}

/// Splits `name@version`. The same rule for job files and for uploads.
pub fn module_reference(text: &str) -> Result<(&str, &str), String> {
    let Some((name, version)) = text.split_once('@') else {
        return Err("must be a module's name and version, as in \"delays@1.2.0\"".to_string());
    };
    if let Some(message) = name_problem(name) {
        return Err(format!("the module's name {message}"));
    }
    let right = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    let starts_right = version.starts_with(|c: char| c.is_ascii_alphanumeric());
    if version.len() > NAME_BYTES_MAX || !starts_right || !version.bytes().all(right) {
        return Err(format!(
            "the module's version must be 1 to {NAME_BYTES_MAX} letters, digits, \".\", \"-\", \"_\" and \"+\", beginning with a \
             letter or digit"
        ));
    }
    Ok((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn from_toml(text: &str) -> Value {
        toml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    fn problems(text: &str) -> Vec<String> {
        parse_job(&from_toml(text)).err().unwrap_or_default().iter().map(Problem::to_string).collect()
    }

    /// Problems of one operator, told by the part after its path.
    fn operator_problems(lines: &str) -> Vec<String> {
        let text = format!("name = 'j'\n[[operator]]\nname = 'o'\nmodule = 'm@1'\ninput = ['s']\n{lines}");
        problems(&text).iter().map(|p| p.strip_prefix("operator.o.").unwrap_or(p).to_string()).collect()
    }

    const FLIGHTS: &str = r#"
        name = "flight-delays"
        delivery = "exactly-once"

        [checkpoint]
        interval = "1s"
        min_pause = "0s"
        timeout = "1m"
        max_concurrent = 1
        tolerable_failures = 3
        retained = 3
        unaligned = false

        [[source]]
        name = "flights"
        connector = "file"
        path = "data/flights.csv"
        format = "lines"
        start = "earliest"
        watermark = { field = "/time", out_of_orderness = "5s", idle_after = "30s" }

        [[operator]]
        name = "delays"
        module = "delays@1.2.0"
        input = ["flights"]
        key = { json = "/carrier" }
        parallelism = 2
        on_error = "dead-letter"
        limits = { memory = "64MiB", deadline = "1s" }
        config = { threshold_min = 15, mode = "fast", exact = true, ratio = 0.5, by = { hours = [1, 2] } }

        [[sink]]
        name = "out"
        connector = "file"
        input = ["delays", "delays.late"]
        path = "out"
    "#;

    #[test]
    fn limits_of_the_whole_job_have_a_table_of_their_own() {
        let limits = |text: &str| parse_job(&from_toml(&format!("name = 'j'\n{text}"))).map(|job| job.limits.state_bytes_max);
        assert_eq!(limits(""), Ok(JobLimits::default().state_bytes_max));
        assert_eq!(limits("[limits]\nstate_bytes = '2GiB'"), Ok(2 << 30));
        let problems = limits("[limits]\nmemory = '2GiB'").unwrap_err();
        assert_eq!(problems[0].to_string(), "limits.memory: is not a known key; known here are state_bytes");
    }

    #[test]
    fn the_job_file_of_the_documentation_is_read() {
        let job = parse_job(&from_toml(FLIGHTS)).unwrap();
        assert_eq!((job.name.as_str(), job.delivery, job.key_groups), ("flight-delays", Delivery::ExactlyOnce, 4096));
        assert_eq!(job.checkpoint, CheckpointSpec::default());
        assert_eq!((job.restart, job.batch), (RestartSpec::default(), BatchSpec::default()));
        let source = &job.sources[0];
        assert_eq!((source.name.as_str(), source.connector.as_str(), source.parallelism), ("flights", "file", 1));
        let watermark = WatermarkSpec { field: Some("/time".into()), out_of_orderness_ms: 5000, idle_after_ms: Some(30_000) };
        assert_eq!(source.watermark, Some(watermark));
        let options = json!({ "path": "data/flights.csv", "format": "lines", "start": "earliest" });
        assert_eq!(Value::Object(source.options.clone()), options);
        let operator = &job.operators[0];
        assert_eq!(operator.inputs, [PortRef { node: "flights".into(), port: None }]);
        assert_eq!((&operator.key, operator.parallelism), (&Some(KeySpec::Json(vec!["/carrier".into()])), 2));
        assert_eq!(operator.limits, GuestLimits::default());
        let mut config = operator.config.clone();
        config.sort();
        let text = |name: &str, value: &str| (name.to_string(), value.to_string());
        let expected = [
            text("by", "{\"hours\":[1,2]}"),
            text("exact", "true"),
            text("mode", "fast"),
            text("ratio", "0.5"),
            text("threshold_min", "15"),
        ];
        assert_eq!(config, expected);
        let sink = &job.sinks[0];
        assert_eq!((sink.parallelism, Value::Object(sink.options.clone())), (None, json!({ "path": "out" })));
        assert_eq!(sink.inputs[1], PortRef { node: "delays".into(), port: Some("late".into()) });
    }

    #[test]
    fn a_spec_survives_its_own_json() {
        let job = parse_job(&from_toml(FLIGHTS)).unwrap();
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<JobSpec>(&text).unwrap(), job);
    }

    #[test]
    fn restart_and_batch_are_read_with_all_units() {
        let text = |restart: &str| format!("name = 'j'\n[restart]\n{restart}\n[batch]\nrows = 512\nbytes = '256KiB'\nlinger = 2");
        let restart = |lines: &str| parse_job(&from_toml(&text(lines))).map(|job| job.restart);
        assert_eq!(restart("strategy = 'none'"), Ok(RestartSpec::None));
        let fixed = RestartSpec::FixedDelay { attempts: 4, delay_ms: 3000 };
        assert_eq!(restart("strategy = 'fixed-delay'\nattempts = 4\ndelay = '3s'"), Ok(fixed));
        let exponential =
            RestartSpec::ExponentialDelay { initial_ms: 50, max_ms: 60_000, reset_after_ms: 3_600_000, attempts: None };
        assert_eq!(restart("initial = 50\nmax = '1m'\nreset_after = '1h'\nattempts = 'unlimited'"), Ok(exponential));
        let batch = parse_job(&from_toml(&text(""))).unwrap().batch;
        assert_eq!(batch, BatchSpec { rows_max: 512, bytes_max: 256 << 10, linger_ms: 2 });
    }

    #[test]
    fn all_problems_are_told_at_once_in_the_authors_form() {
        let text = r#"
            nmae = "flights"
            delivery = "exactly-onze"
            key_groups = -1
            [checkpoint]
            interval = "1 second"
            timeout = true
            aligned_timeout = "1s"
            retain = 3
            [restart]
            strategy = "fixed-delay"
            attempts = "unlimited"
            initial = "1s"
            [batch]
            bytes = "1MB"
            [[source]]
            name = "Flights"
            connector = "file"
            paralelism = 2
            parallelism = "two"
            watermark = { field = "time", idle_after = "never" }
            [[source]]
            connector = 7
            [[operator]]
            name = "delays"
            module = "delays"
            input = "flights"
            key = "carrier"
            parallelism = 2.5
            on_error = "ignore"
            limits = { memory = "1TiB" }
            config = [1]
            colour = "red"
            [[sink]]
            name = "out"
        "#;
        let names = "must be lower-case letters, digits, \"_\" and \"-\", beginning with a letter or digit ([a-z0-9][a-z0-9_-]*)";
        assert_eq!(
            problems(text),
            [
                "name: is missing: the job's name".to_string(),
                "delivery = \"exactly-onze\": must be \"exactly-once\" or \"at-least-once\" or \"at-most-once\"; did you mean \"exactly-once\"?".to_string(),
                "key_groups = -1: must be a whole number from 0 to 4294967295".to_string(),
                "checkpoint.interval = \"1 second\": has the unknown unit \"second\": write s; units are ms, s, m, h, d; or \"off\"".to_string(),
                "checkpoint.timeout = true: must be a duration like \"250ms\" or \"5m\", or a whole number of milliseconds".to_string(),
                "checkpoint.aligned_timeout = \"1s\": has no meaning without checkpoint.unaligned = true: after it, barriers overtake; \
                 set that, or leave this out"
                    .to_string(),
                "checkpoint.retain: is not a known key; did you mean \"retained\"?".to_string(),
                "restart.initial = \"1s\": has no meaning with strategy = \"fixed-delay\", which knows attempts, delay".to_string(),
                "restart.attempts = \"unlimited\": must be a number here; only strategy = \"exponential-delay\" goes on for ever".to_string(),
                "batch.bytes = \"1MB\": has the unknown unit \"MB\": write MiB; units are B, KiB, MiB, GiB, TiB".to_string(),
                format!("source[0].name = \"Flights\": {names}"),
                "source[0].parallelism = \"two\": must be a whole number from 0 to 4294967295".to_string(),
                "source[0].watermark.field = \"time\": \"time\" is no JSON pointer: it begins with \"/\", as in \"/time\"".to_string(),
                "source[0].watermark.idle_after = \"never\": is not a whole number with a unit, as in 250ms; or \"off\"".to_string(),
                "source[1].name: is missing: every source has one".to_string(),
                "source[1].connector = 7: must be a text, as in \"…\"".to_string(),
                "operator.delays.module = \"delays\": must be a module's name and version, as in \"delays@1.2.0\"".to_string(),
                "operator.delays.input = \"flights\": must be a list of names, as in [\"flights\"], or [\"delays.late\"] for a side output"
                    .to_string(),
                "operator.delays.key = \"carrier\": must be \"row\", { json = \"/field\" } or { json = [\"/field\", \"/other\"] }".to_string(),
                "operator.delays.parallelism = 2.5: must be a whole number from 0 to 4294967295".to_string(),
                "operator.delays.on_error = \"ignore\": must be \"dead-letter\" or \"skip\" or \"fail\"".to_string(),
                "operator.delays.limits.memory = \"1TiB\": must be 64KiB to 4GiB".to_string(),
                "operator.delays.config: must be a table, as in [operator.delays.config]".to_string(),
                "operator.delays.colour: is not a known key; known here are name, module, input, key, parallelism, on_error, errors, limits, config"
                    .to_string(),
                "sink.out.connector: is missing: where the records go, as in \"file\"".to_string(),
                "sink.out.input: is missing: the names of the nodes it reads from, as in [\"flights\"]".to_string(),
                "nmae: is not a known key; did you mean \"name\"?".to_string(),
            ]
        );
    }

    #[test]
    fn each_delivery_is_read_by_its_name() {
        for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce, Delivery::AtMostOnce] {
            let text = format!("name = 'j'\ndelivery = '{}'", delivery.name());
            assert_eq!(parse_job(&from_toml(&text)).expect("is read").delivery, delivery);
        }
    }

    #[test]
    fn keys_are_the_rows_own_or_json_pointers() {
        for (key, expected) in [
            (json!("row"), KeySpec::Row),
            (json!({ "json": "/a" }), KeySpec::Json(vec!["/a".into()])),
            (json!({ "json": ["/a", "/b/0/~1c"] }), KeySpec::Json(vec!["/a".into(), "/b/0/~1c".into()])),
        ] {
            let job = json!({ "name": "j", "operator": [{ "name": "o", "module": "m@1", "input": ["s"], "key": key }] });
            assert_eq!(parse_job(&job).unwrap().operators[0].key, Some(expected));
        }
        assert_eq!(
            operator_problems("key = { json = ['/a', 'b.c'] }"),
            ["key = {\"json\":[\"/a\",\"b.c\"]}: \"b.c\" is no JSON pointer: it begins with \"/\", as in \"/b/c\""]
        );
        assert_eq!(operator_problems("key = { json = '/a~2' }").len(), 1);
        assert_eq!(operator_problems("key = { json = [] }").len(), 1);
        assert_eq!(operator_problems("key = { json = '/a', csv = 'b' }").len(), 1);
        let many: Vec<String> = (0..17).map(|i| format!("'/{i}'")).collect();
        assert!(operator_problems(&format!("key = {{ json = [{}] }}", many.join(",")))[0].contains("(key_fields_max)"));
    }

    #[test]
    fn a_single_table_where_a_list_belongs_is_explained() {
        assert_eq!(
            problems("name = 'j'\n[source]\nname = 's'"),
            ["source = {\"name\":\"s\"}: must be a list of tables: write [[source]] with two brackets for each"]
        );
    }

    #[test]
    fn config_values_and_unknown_keys_may_be_secrets_and_are_not_shown() {
        let mut all = operator_problems(&format!("token = 'hunter2'\nconfig = {{ {} = 'hunter2' }}", "n".repeat(129)));
        all.extend(operator_problems("config = 'hunter2'"));
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|problem| !problem.contains("hunter2")), "{all:?}");
    }

    #[test]
    fn module_references_have_a_name_and_a_version() {
        assert_eq!(module_reference("delays@1.2.0-rc.1+b"), Ok(("delays", "1.2.0-rc.1+b")));
        for wrong in ["delays", "delays@", "@1", "De@1", "../x@1", "d@../1", "d@.1", "d@1/2", "d@1@2"] {
            assert!(module_reference(wrong).is_err(), "{wrong}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z0-9./@]{0,6}|row|off|1s|1MiB".prop_map(Value::from),
        ];
        let keys = "name|source|operator|sink|input|key|json|limits|memory|config|checkpoint|interval|restart|batch|watermark|[a-z]{1,6}";
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(keys, inner, 0..8).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_gives_a_job_or_problems(job in any_json()) {
            if let Err(problems) = parse_job(&job) {
                prop_assert!(!problems.is_empty());
            }
        }
    }
}
