//! The main job: flights, with side outputs, event-time windows by hand, and dead letters of three kinds.
//!
//! The oracle sorts and groups; the operators keep running sums and timers.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tidegate_tests::host::Host;
use tidegate_tests::output::{self, assert_same_lines};

const HEADER: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,\
                      dest,air_time,distance,hour,minute,time_hour";
/// 2013-01-01T10:00:00Z
const TEN: i64 = 1_357_034_400_000;
const HOUR_MS: i64 = 3_600_000;

fn flights_job(name: &str, input: &Path, out: &Path, parallelism: u32) -> Value {
    let sink = |name: &str, input: &str| json!({ "name": name, "connector": "file", "input": [input], "path": out.join(name), "suffix": "jsonl" });
    json!({
        "name": name,
        "checkpoint": { "interval": "100ms" },
        "source": [{
            "name": "departures", "connector": "file", "path": input, "format": "csv", "watermark": { "field": "/time_hour" },
        }],
        "operator": [
            { "name": "clean", "module": "flights-clean@1.0.0", "input": ["departures"], "parallelism": parallelism },
            {
                "name": "delays", "module": "flights-delays@1.0.0", "input": ["clean"], "parallelism": parallelism,
                "key": { "json": ["/carrier", "/origin"] }, "config": { "threshold_min": 15 },
            },
        ],
        "sink": [sink("hours", "delays"), sink("late", "delays.late"), sink("cancelled", "clean.cancelled")],
    })
}

fn host() -> Host {
    let host = Host::start();
    host.push("flights-clean");
    host.push("flights-delays");
    host
}

/// What is to come out of a table of flights that is in the order of its hours.
#[derive(Default)]
struct Expected {
    hours: Vec<String>,
    cancelled: Vec<Vec<String>>,
    /// Numbers of the rows that make no sense.
    bad: Vec<u64>,
}

fn expected(table: &str) -> Expected {
    let mut expected = Expected::default();
    let mut departures: Vec<(String, String, i64, i64)> = Vec::new();
    for (number, line) in (0..).zip(table.lines().skip(1)) {
        let fields: Vec<&str> = line.split(',').collect();
        let number_in = |at: usize| match fields[at] {
            "" | "NA" => Ok(None),
            text => text.parse::<i64>().map(Some).map_err(drop),
        };
        let code = |at: usize, len: usize| {
            fields[at].len() == len
                && fields[at] != "NA"
                && fields[at].bytes().all(|b| b.is_ascii_uppercase() || (len == 2 && b.is_ascii_digit()))
        };
        if fields.len() != 19 || !code(9, 2) || !code(12, 3) {
            expected.bad.push(number);
            continue;
        }
        match (number_in(3), number_in(5), hour_of(fields[18])) {
            (Ok(None), Ok(None), Some(_)) => expected.cancelled.push(fields.iter().map(|&field| field.to_owned()).collect()),
            (Ok(Some(clock)), Ok(Some(delay)), Some(hour))
                if (0..=2400).contains(&clock) && clock % 100 < 60 && (-720..=2880).contains(&delay) =>
            {
                departures.push((fields[9].to_owned(), fields[12].to_owned(), hour, delay));
            }
            _ => expected.bad.push(number),
        }
    }
    departures.sort();
    for group in departures.chunk_by(|a, b| (&a.0, &a.1, a.2) == (&b.0, &b.1, b.2)) {
        let (carrier, origin, hour, _) = &group[0];
        let delays = || group.iter().map(|flight| flight.3);
        expected.hours.push(format!(
            r#"{{"carrier":"{carrier}","origin":"{origin}","hour":{hour},"flights":{},"delay_sum":{},"delay_max":{},"delayed":{}}}"#,
            group.len(),
            delays().sum::<i64>(),
            delays().max().expect("a group has flights"),
            delays().filter(|delay| *delay >= 15).count()
        ));
    }
    expected
}

/// `2013-01-DDTHH:00:00Z` of the sample's few days.
fn hour_of(text: &str) -> Option<i64> {
    let (day, hour) = text.strip_prefix("2013-01-")?.strip_suffix(":00:00Z")?.split_once('T')?;
    let (day, hour): (i64, i64) = (day.parse().ok()?, hour.parse().ok()?);
    Some(TEN + ((day - 1) * 24 + hour - 10) * HOUR_MS)
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("examples/flights/data/sample.csv")
}

#[track_caller]
fn assert_output(host: &Host, name: &str, out: &Path, expected: &Expected) {
    assert_same_lines(&output::lines(&out.join("hours")), &expected.hours, &format!("{name}: hours"));
    assert_eq!(output::lines(&out.join("late")), Vec::<String>::new(), "{name}: late");
    let found: Vec<Value> =
        output::lines(&out.join("cancelled")).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found.len(), expected.cancelled.len(), "{name}: cancelled");
    let flight = |flight: &Value| (flight["flight"].to_string(), flight["time_hour"].as_str().unwrap_or_default().to_owned());
    let mut found: Vec<_> = found.iter().map(flight).collect();
    let mut wanted: Vec<_> = expected.cancelled.iter().map(|fields| (fields[10].clone(), fields[18].clone())).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "{name}: cancelled");
    let mut bad: Vec<u64> = host.dead_letters(name).iter().map(|letter| letter["record"].as_u64().expect("a record")).collect();
    bad.sort_unstable();
    assert_eq!(bad, expected.bad, "{name}: dead letters, each once");
}

#[test]
fn the_sample_comes_out_right_with_one_task_and_with_two() {
    let host = host();
    let expected = expected(&std::fs::read_to_string(sample()).expect("reads the sample"));
    assert!(
        expected.hours.len() > 100 && !expected.cancelled.is_empty() && expected.bad.len() == 16,
        "an oracle with something to say"
    );
    for parallelism in [1, 2] {
        let (name, out) = (format!("flights-{parallelism}"), host.work().join(format!("out-{parallelism}")));
        host.put_job(&flights_job(&name, &sample(), &out, parallelism));
        host.wait_for_state(&name, "finished");
        assert_output(&host, &name, &out, &expected);
    }
}

#[test]
fn dead_letters_say_who_refused_what_and_from_where() {
    let host = host();
    let out = host.work().join("out");
    host.put_job(&flights_job("flights", &sample(), &out, 2));
    host.wait_for_state("flights", "finished");
    let letters = host.dead_letters("flights");
    let table = std::fs::read_to_string(sample()).expect("reads the sample");
    let rows: Vec<&str> = table.lines().skip(1).collect();
    let mut by_operator: BTreeMap<String, usize> = BTreeMap::new();
    for letter in &letters {
        let operator = letter["operator"].as_str().expect("an operator").to_owned();
        assert_eq!(letter["source"], "departures", "{letter}");
        assert_eq!(letter["exact"], true, "{letter}");
        assert!(letter["split"].as_str().is_some_and(|split| split.ends_with("sample.csv")), "{letter}");
        assert!(letter["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{letter}");
        let row = rows[letter["record"].as_u64().expect("a record") as usize];
        match operator.as_str() {
            // What the source could not read is kept as it stands in the file.
            "departures" => {
                assert_eq!((&letter["kind"], letter["value"].as_str()), (&json!("decode"), Some(row)), "{letter}");
                assert!(letter["module"].is_null(), "{letter}");
            }
            "clean" => {
                assert_eq!((&letter["kind"], &letter["module"]), (&json!("rejected"), &json!("flights-clean@1.0.0")), "{letter}");
                let tailnum = row.split(',').nth(11).expect("a tail number");
                assert!(letter["value"].as_str().is_some_and(|value| value.contains(tailnum)), "{letter}\n{row}");
            }
            other => panic!("{other}: {letter}"),
        }
        *by_operator.entry(operator).or_default() += 1;
    }
    assert!(by_operator.len() == 2, "both refuse some: {by_operator:?}");
    let of_node = host.client().get("/v1/jobs/flights/dead-letters?operator=clean&limit=1000");
    assert_eq!(of_node.document()["dead_letters"].as_array().map(Vec::len), by_operator.get("clean").copied());
}

#[test]
fn a_flight_of_an_hour_that_has_gone_out_is_late() {
    let host = host();
    let row = |hour: i64, flight: i64| {
        let (day, hour) = (1 + (10 + hour) / 24, (10 + hour) % 24);
        format!("2013,1,{day},900,900,7,1000,1000,0,UA,{flight},N1,EWR,IAH,100,100,9,0,2013-01-{day:02}T{hour:02}:00:00Z\n")
    };
    let mut table = format!("{HEADER}\n");
    let mut late = 0;
    for hour in 0..20 {
        for flight in 0..100 {
            table.push_str(&row(hour, flight));
            // Two hours old, and long after the first flight of this hour: batches have 16 rows.
            if flight >= 60 && flight % 20 == 0 && hour >= 2 {
                table.push_str(&row(hour - 2, 1000 + flight));
                late += 1;
            }
        }
    }
    let input = host.work().join("flights.csv");
    std::fs::write(&input, table).expect("writes the input");
    for parallelism in [1, 2] {
        let (name, out) = (format!("late-{parallelism}"), host.work().join(format!("out-{parallelism}")));
        let mut job = flights_job(&name, &input, &out, parallelism);
        job["batch"] = json!({ "rows": 16 });
        // Between two tasks of `clean` the order of batches is open, and with it what is late.
        job["operator"][0]["parallelism"] = json!(1);
        host.put_job(&job);
        host.wait_for_state(&name, "finished");
        let late_lines = output::lines(&out.join("late"));
        assert_eq!(late_lines.len(), late, "parallelism {parallelism}");
        assert!(late_lines.iter().all(|line| line.starts_with(r#"{"carrier":"UA","origin":"EWR","dep_delay":7,"ts":"#)));
        let hour = |hour: i64| {
            let start = TEN + hour * HOUR_MS;
            format!(r#"{{"carrier":"UA","origin":"EWR","hour":{start},"flights":100,"delay_sum":700,"delay_max":7,"delayed":0}}"#)
        };
        let expected: Vec<String> = (0..20).map(hour).collect();
        assert_same_lines(&output::lines(&out.join("hours")), &expected, &format!("parallelism {parallelism}"));
    }
}

#[test]
fn windows_that_are_open_when_the_job_is_stopped_and_rescaled_come_out_right() {
    let host = host();
    let (name, out) = ("flights", host.work().join("out"));
    let expected = expected(&std::fs::read_to_string(sample()).expect("reads the sample"));
    let job = |parallelism: u32, replay_speed: Option<u64>| {
        let mut job = flights_job(name, &sample(), &out, parallelism);
        // Two and a half days of flights, played back in some seconds.
        if let Some(speed) = replay_speed {
            job["source"][0]["replay_speed"] = json!(speed);
        }
        job
    };
    host.put_job(&job(1, Some(40_000)));
    host.wait_for_lines(&out.join("hours"), expected.hours.len() / 5);
    let first = host.stop_with_savepoint(name);
    host.put_job(&job(2, Some(40_000)));
    host.start_job(name, json!({ "savepoint": first["id"] }));
    host.wait_for_lines(&out.join("hours"), expected.hours.len() / 2);
    let second = host.stop_with_savepoint(name);
    assert!(output::lines(&out.join("hours")).len() < expected.hours.len(), "stopped before its end");
    host.put_job(&job(1, None));
    host.start_job(name, json!({ "savepoint": second["id"] }));
    host.wait_for_state(name, "finished");
    assert_output(&host, name, &out, &expected);
}
