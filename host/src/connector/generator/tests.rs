use super::*;
use serde_json::{Value, json};
use tidegate_core::job_graph::spec::{Delivery, OnError};
use tidegate_core::limits::RowLimits;
use tidegate_core::row;

const LIMITS: BatchLimits = BatchLimits { rows_max: 1024, bytes_max: 128 << 10 };

fn spec(options: Value, parallelism: u32) -> SourceSpec {
    SourceSpec {
        name: "events".into(),
        connector: "generator".into(),
        parallelism,
        watermark: None,
        on_error: OnError::Fail,
        errors: Default::default(),
        options: options.as_object().expect("an object").clone(),
    }
}

fn generator(options: Value, parallelism: u32) -> Generator {
    let context = ConnectorContext {
        job: "bench".into(),
        job_id: "0011223344556677".into(),
        node: "events".into(),
        delivery: Delivery::ExactlyOnce,
        base: ".".into(),
    };
    Generator::build(&spec(options, parallelism), &context).expect("good options")
}

/// Polls until the end, handing each batch over; waits are taken as "again".
fn drain(reader: &mut dyn SourceReader, mut each: impl FnMut(&SourceBatch)) {
    let mut batch = SourceBatch::default();
    loop {
        batch.clear();
        let status = reader.poll(&mut batch, LIMITS).expect("a generator does not fail");
        row::check(&batch.rows.bytes, batch.rows.count, &RowLimits::default()).expect("good rows");
        each(&batch);
        match status {
            SourceStatus::More => {}
            SourceStatus::Wait(wait) => std::thread::sleep(wait),
            SourceStatus::End => return,
        }
    }
}

fn values(source: &Generator, task: u32, parallelism: u32, restored: &[SplitSnapshot]) -> Vec<String> {
    let mut reader = source.open(task, parallelism, restored).expect("opens");
    let mut values = Vec::new();
    drain(&mut *reader, |batch| {
        values.extend(batch.rows.iter().map(|row| String::from_utf8_lossy(row.value.expect("no tombstones")).into_owned()));
    });
    values
}

/// Bytes, FNV-1a-64, w1 passing and sum, w2 distinct keys and digest.
fn digest_json(records: u64, keys: u64) -> (u64, u64, u64, u64, u64, u64) {
    let source = generator(json!({ "records": records, "keys": keys }), 1);
    let (mut bytes, mut fnv) = (0u64, 0xcbf2_9ce4_8422_2325u64);
    let mut reader = source.open(0, 1, &[]).expect("opens");
    drain(&mut *reader, |batch| {
        for row in batch.rows.iter() {
            let value = row.value.expect("no tombstones");
            bytes += value.len() as u64;
            fnv = value.iter().fold(fnv, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        }
    });
    let source = generator(json!({ "records": records, "keys": keys, "format": "rows" }), 1);
    let (mut passing, mut prices) = (0, 0);
    let mut state = vec![(0u64, 0u64); keys as usize];
    let mut reader = source.open(0, 1, &[]).expect("opens");
    drain(&mut *reader, |batch| {
        for row in batch.rows.iter() {
            let value = row.value.expect("no tombstones");
            let word = |at: usize| u64::from_le_bytes(value[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
            let (auction, bidder, price) = (word(0), word(1), word(2));
            assert_eq!(row.key, bidder.to_le_bytes());
            assert_eq!(row.timestamp, word(3) as i64);
            if auction % 123 == 0 {
                passing += 1;
                prices += price * 908 / 1000;
            }
            let (count, sum) = &mut state[bidder as usize];
            *count += 1;
            *sum += price;
        }
    });
    let seen = state.iter().enumerate().filter(|(_, (count, _))| *count > 0);
    let digest = |(key, (count, sum)): (usize, &(u64, u64))| mix(mix(mix(key as u64).wrapping_add(*count)).wrapping_add(*sum));
    let w2 = seen.clone().map(digest).fold(0, u64::wrapping_add);
    (bytes, fnv, passing, prices, seen.count() as u64, w2)
}

#[test]
fn the_first_events_are_those_of_the_specification() {
    let expected = [
        r#"{"auction":6399,"bidder":767,"price":2273011,"channel":"Apple","dateTime":1700000000000,"extra":"a706dd2f4d197e6f"}"#,
        r#"{"auction":7470,"bidder":232,"price":1377828,"channel":"Baidu","dateTime":1700000000000,"extra":"5e41ab087439611e"}"#,
        r#"{"auction":2452,"bidder":55,"price":4573779,"channel":"Baidu","dateTime":1700000000000,"extra":"64684c4f0fd784b4"}"#,
        r#"{"auction":5015,"bidder":526,"price":7648112,"channel":"Google","dateTime":1700000000000,"extra":"bccdfd9c96a18897"}"#,
        r#"{"auction":8763,"bidder":989,"price":50160,"channel":"Facebook","dateTime":1700000000000,"extra":"a0567ef80dedf5cb"}"#,
    ];
    assert_eq!(values(&generator(json!({ "records": 5 }), 1), 0, 1, &[]), expected);
}

#[test]
fn a_million_events_have_the_digests_of_the_specification() {
    assert_eq!(
        digest_json(1_000_000, 1000),
        (115_669_396, 0xb151_97c4_c6b2_8397, 8284, 37_459_610_839, 1000, 0xda00_b6a2_8b00_9ff7)
    );
}

#[test]
#[ignore = "ten million events take a while"]
fn ten_million_events_have_the_digests_of_the_specification() {
    assert_eq!(
        digest_json(10_000_000, 1_000_000),
        (1_186_667_810, 0x9b63_747f_fe21_7e51, 81_935, 372_848_028_542, 999_951, 0xf40e_1d70_db74_c96c)
    );
}

#[test]
fn the_binary_form_carries_channel_and_extra_with_their_lengths() {
    let source = generator(json!({ "records": 5, "format": "rows" }), 1);
    let mut seen = Vec::new();
    drain(&mut *source.open(0, 1, &[]).expect("opens"), |batch| {
        seen.extend(batch.rows.iter().map(|row| row.value.expect("no tombstones")[32..].to_vec()));
    });
    assert_eq!(seen[0], b"\x05Apple\x10a706dd2f4d197e6f");
    assert_eq!(seen[3], b"\x06Google\x10bccdfd9c96a18897");
    assert_eq!(seen[4], b"\x08Facebook\x10a0567ef80dedf5cb");
}

#[test]
fn any_number_of_tasks_makes_the_same_events() {
    let mut whole = values(&generator(json!({ "records": 5003 }), 1), 0, 1, &[]);
    whole.sort();
    for (parallelism, splits) in [(2, 2), (3, 2), (2, 5), (4, 7)] {
        let source = generator(json!({ "records": 5003, "splits": splits }), parallelism);
        let mut all: Vec<_> = (0..parallelism).flat_map(|task| values(&source, task, parallelism, &[])).collect();
        all.sort();
        assert_eq!(all, whole, "{parallelism} tasks, {splits} splits");
    }
}

#[test]
fn positions_are_exact_under_another_parallelism() {
    let options = json!({ "records": 20_000 });
    let mut whole = values(&generator(options.clone(), 1), 0, 1, &[]);
    whole.sort();
    let first = generator(options.clone(), 3);
    let (mut given, mut positions) = (Vec::new(), Vec::new());
    for task in 0..3 {
        let mut reader = first.open(task, 3, &[]).expect("opens");
        let mut batch = SourceBatch::default();
        for _ in 0..=task {
            batch.clear();
            reader.poll(&mut batch, LIMITS).expect("no failure");
            given.extend(batch.rows.iter().map(|row| String::from_utf8_lossy(row.value.expect("a value")).into_owned()));
        }
        positions.extend(reader.snapshot());
    }
    assert_eq!(positions[2].split, "2/3");
    assert_eq!(positions[2].record, positions[2].position["local"].as_u64().expect("a number"));
    let second = generator(options, 2);
    for task in 0..2 {
        given.extend(values(&second, task, 2, &positions));
    }
    given.sort();
    assert_eq!(given, whole);
}

#[test]
fn a_position_of_something_else_is_refused() {
    let snapshot = |split: &str, position: Value| SplitSnapshot { split: split.into(), position, record: 0, max_timestamp: None };
    let source = generator(json!({ "splits": 2 }), 1);
    for bad in [
        vec![snapshot("data/a.csv", json!({"offset": 3}))],
        vec![snapshot("0/1", json!({"local": 3}))],
        vec![snapshot("0/2", json!({"local": 3})), snapshot("0/2", json!({"local": 3}))],
        vec![snapshot("0/2", json!({"local": 3})), snapshot("2/2", json!({"local": 3}))],
        vec![snapshot("0/2", json!({"local": -3})), snapshot("1/2", json!({"local": 3}))],
    ] {
        let error = source.open(0, 1, &bad).err().expect("refused");
        assert!(!error.retry && error.remedy.is_some(), "{error}");
    }
}

#[test]
fn rows_of_several_splits_keep_event_time_together() {
    let source = generator(json!({ "records": 40_000, "splits": 4 }), 1);
    let mut greatest = [0; 4];
    drain(&mut *source.open(0, 1, &[]).expect("opens"), |batch| {
        let Some(split) = &batch.split else { return };
        let split = split[..1].parse::<usize>().expect("a number");
        greatest[split] = batch.max_timestamp.expect("timestamps");
        let apart = greatest.iter().max().expect("four") - greatest.iter().min().expect("four");
        assert!(greatest.contains(&0) || apart <= 5, "{greatest:?}");
    });
}

#[test]
fn the_pair_form_fills_every_key_once_and_is_paced_only_then() {
    let source = generator(json!({ "form": "pair", "keys": 5000, "prefill": true, "records": 5020, "rate": 1000 }), 1);
    let mut seen = Vec::new();
    let started = Instant::now();
    drain(&mut *source.open(0, 1, &[]).expect("opens"), |batch| {
        for row in batch.rows.iter() {
            let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            seen.push((word(row.key), word(row.value.expect("a value"))));
        }
    });
    assert!(started.elapsed() >= Duration::from_millis(19), "twenty records at a thousand a second");
    assert!((0..5000).all(|i| seen[i as usize] == (i, i)));
    assert!(
        seen[5000..].iter().zip(5000..).all(|((bidder, i), expected)| *bidder == (mix(expected) >> 1) % 5000 && *i == expected)
    );
}

#[test]
fn the_latency_form_carries_the_wall_clock() {
    let before = wall_clock_ns();
    let source = generator(json!({ "form": "latency", "records": 10 }), 1);
    drain(&mut *source.open(0, 1, &[]).expect("opens"), |batch| {
        for row in batch.rows.iter() {
            let stamp = u64::from_le_bytes(row.value.expect("a value").try_into().expect("eight bytes"));
            assert!((before..=wall_clock_ns()).contains(&stamp));
        }
    });
}

#[test]
fn seed_zero_is_the_specification_and_another_seed_is_not() {
    let plain = values(&generator(json!({ "records": 100 }), 1), 0, 1, &[]);
    assert_eq!(values(&generator(json!({ "records": 100, "seed": 0 }), 1), 0, 1, &[]), plain);
    let other = values(&generator(json!({ "records": 100, "seed": 7 }), 1), 0, 1, &[]);
    assert!(plain.iter().zip(&other).all(|(a, b)| a != b));
}

#[test]
fn rows_can_go_without_a_key() {
    let source = generator(json!({ "records": 10, "key": "none" }), 1);
    drain(&mut *source.open(0, 1, &[]).expect("opens"), |batch| assert!(batch.rows.iter().all(|row| row.key.is_empty())));
}

#[test]
fn an_empty_source_ends_at_once() {
    assert!(values(&generator(json!({ "records": 0 }), 2), 0, 2, &[]).is_empty());
    assert!(values(&generator(json!({ "records": 1, "splits": 1 }), 2), 1, 2, &[]).is_empty());
}

#[test]
fn batches_stay_within_their_limits() {
    let source = generator(json!({ "records": 1000 }), 1);
    let mut reader = source.open(0, 1, &[]).expect("opens");
    let (mut batch, mut rows) = (SourceBatch::default(), 0);
    loop {
        batch.clear();
        let status = reader.poll(&mut batch, BatchLimits { rows_max: 100, bytes_max: 2000 }).expect("no failure");
        assert!(batch.rows.bytes.len() <= 2000);
        rows += batch.rows.count;
        if status == SourceStatus::End {
            break;
        }
    }
    assert_eq!(rows, 1000);
}

#[test]
fn bad_options_are_all_reported() {
    let bad = spec(json!({ "keys": 0, "format": "csv", "form": "pair", "rat": 5 }), 1);
    let keys: Vec<String> = GeneratorOptions::parse(&bad).expect_err("bad").into_iter().map(|problem| problem.key).collect();
    assert_eq!(keys, ["source.events.keys", "source.events.format", "source.events.format", "source.events.rat"]);
}

/// `cargo test --release -- --ignored generator_speed --nocapture` prints ns a record.
#[test]
#[ignore = "a measurement"]
fn generator_speed() {
    for format in ["rows", "json"] {
        let source = generator(json!({ "records": 20_000_000, "format": format }), 1);
        let mut reader = source.open(0, 1, &[]).expect("opens");
        let started = Instant::now();
        let mut batch = SourceBatch::default();
        loop {
            batch.clear();
            if reader.poll(&mut batch, LIMITS).expect("no failure") == SourceStatus::End {
                break;
            }
        }
        println!("{format}: {:.1} ns a record", started.elapsed().as_secs_f64() * 1e9 / 20e6);
    }
}
