//! The same contract through the SDK: what an author writes with `get` and `set` is what the host keeps.
//!
//! The guest runs scripts (see tests/guests/sdk-script). A model of one key's state, a few lines of plain Rust, says what each script
//! has to answer, however records are cut into batches, whichever of them fail, and however often the instance is thrown away.

use std::collections::{BTreeMap, BTreeSet};
use tidegate::state::CallTime;
use tidegate::wasm::instance::{CallError, Death};
use tidegate_core::row::ChangeKind;
use tidegate_core::state_schema::TimeDomain::{EventTime, ProcessingTime};
use tidegate_tests::guest::{Guest, MAIN, NOW, SIDE, Setup, module};
use tidegate_tests::logged::logged;
use tidegate_tests::random::Random;
use tidegate_tests::rows::{TestRow, row};

fn script() -> Guest {
    Setup::new("sdk-script").start()
}

/// What one script for one key answers.
#[track_caller]
fn says(guest: &mut Guest, script: &str) -> String {
    guest.ok(&[row("k", script)]).texts(MAIN).join("|")
}

#[test]
fn states_of_all_kinds_are_read_back_by_later_batches() {
    let mut guest = script();
    says(&mut guest, "set 5; write ab; put x 1; put y 2; append one; append two; add 3; reach 9");
    assert_eq!(says(&mut guest, "value; text; map; list; sum; greatest"), r#"5;ab;[("x", 1), ("y", 2)];one,two;3;Some(9)"#);
    says(&mut guest, "unset; remove x; empty-list; unsum; write c");
    assert_eq!(says(&mut guest, "value; text; map; list; sum; length"), r#"0;abc;[("y", 2)];;0;0"#);
}

#[test]
fn later_records_of_a_batch_see_what_earlier_ones_wrote() {
    let mut guest = script();
    let scripts = ["set 1; add 2", "value; sum", "set 3; append x", "value; list"];
    let rows: Vec<_> = scripts.iter().map(|script| row("k", script)).collect();
    assert_eq!(guest.ok(&rows).texts(MAIN), ["1;2", "3;x"]);
}

#[test]
fn a_rejected_record_leaves_no_trace_and_the_others_of_its_batch_count() {
    let mut guest = script();
    let everything = "set 9; write no; put no 1; append no; add 100; reach 100; timer 1 1; emit no; side no; forward";
    let answer = guest.ok(&[
        row("k", "set 1; write yes; add 1; emit first"),
        row("k", format!("{everything}; reject because")),
        row("k", "value; text; map; list; sum; greatest"),
        row("l", format!("{everything}; reject again")),
    ]);
    let rejected: Vec<_> = answer.rejected.iter().map(|rejected| (rejected.row, rejected.reason.as_str())).collect();
    assert_eq!(rejected, [(1, "because"), (3, "again")]);
    assert_eq!(answer.texts(MAIN), ["first", "1;yes;[];;1;None"]);
    assert!(answer.on(SIDE).is_empty());
    assert_eq!(guest.state().timer_count(EventTime), 0);
    assert_eq!(guest.metric("commands"), Some(10.0), "commands of rejected records are not counted");
    assert_eq!(guest.metric("size_count"), Some(2.0));
}

#[test]
fn what_can_not_be_read_is_rejected_with_the_reason() {
    let mut guest = script();
    let answer = guest.ok(&[row("k", [0xff]), row("k", "set many"), row("k", "dance")]);
    let reasons: Vec<_> = answer.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
    assert!(
        reasons[0].contains("not UTF-8") && reasons[1].contains("invalid digit") && reasons[2].contains("dance"),
        "{reasons:?}"
    );
}

#[test]
fn fatal_transient_and_a_panic_drop_the_call() {
    let mut guest = script();
    says(&mut guest, "set 1");
    let call = |guest: &mut Guest, last: &str| guest.call(&[row("k", "set 2; timer 1 1"), row("k", last)], NOW);
    assert_eq!(call(&mut guest, "fatal stop"), Err(CallError::Fatal("stop".to_owned())));
    assert_eq!(call(&mut guest, "transient again"), Err(CallError::Transient("again".to_owned())));
    let mut died = None;
    let lines = logged(|| died = Some(call(&mut guest, "panic ouch")));
    assert!(matches!(died, Some(Err(CallError::Died { how: Death::Trap, .. }))), "{died:?}");
    assert!(lines.iter().any(|line| line.message.contains("ouch")), "the panic's message is in the log: {lines:?}");
    assert_eq!((says(&mut guest, "value"), guest.state().timer_count(EventTime)), ("1".to_owned(), 0));
}

#[test]
fn outputs_and_forwards_keep_their_order_and_their_parts() {
    let mut guest = script();
    let first = row("k", "emit a; forward; side s; emit b; forward-side; row r").at(3).header("h", "1");
    let answer = guest.ok(&[first.clone(), row("l", "emit c").at(4)]);
    let main: Vec<_> = answer.on(MAIN).iter().map(|row| (row.text(), row.key.clone(), row.timestamp)).collect();
    let k = b"k".to_vec();
    assert_eq!(
        main,
        [("a".into(), k.clone(), 3), (first.text(), k.clone(), 3), ("b".into(), k, 3), ("c".into(), b"l".to_vec(), 4)]
    );
    let [side, forwarded, made] = answer.on(SIDE) else { panic!("{:?}", answer.on(SIDE)) };
    assert_eq!((side.text(), forwarded.clone().without_origin()), ("s".to_owned(), first));
    assert_eq!((&made.value, made.timestamp, made.change), (&None, 7, ChangeKind::Retract));
    assert_eq!((made.key.as_slice(), &made.headers[..]), (&b"r"[..], &[("from".to_owned(), b"script".to_vec())][..]));
}

#[test]
fn timers_reach_the_operator_with_their_time_and_tag() {
    let mut guest = script();
    guest.ok(&[row("k", "timer 1000 1; timer 2000 2; timer 3000 13; timer 900 4; cancel 900 4; alarm 50 5")]);
    let texts =
        |answers: Vec<tidegate_tests::guest::Answer>| answers.iter().flat_map(|answer| answer.texts(MAIN)).collect::<Vec<_>>();
    let answers = guest.fire(EventTime, CallTime { watermark: 2500, ..NOW }).expect("counts");
    assert_eq!(texts(answers), ["timer 1000 1 after 0", "timer 2000 2 after 1"]);
    let answers = guest.fire(EventTime, CallTime { watermark: 9000, ..NOW }).expect("counts");
    assert_eq!(answers[0].rejected.len(), 1);
    let answers = guest.fire(ProcessingTime, NOW).expect("counts");
    assert_eq!(texts(answers), ["timer 50 5 after 2"], "the rejected timer's write was undone");
}

#[test]
fn options_are_typed_and_unknown_ones_are_refused() {
    let mut guest = Setup::new("sdk-script").option("prefix", "> ").start();
    assert_eq!(says(&mut guest, "value"), "> 0");
    let error = Setup::new("sdk-script").option("prefx", "> ").start().operator.start().expect_err("is not known");
    assert!(matches!(&error, CallError::Fatal(reason) if reason.contains("prefx") && reason.contains("prefix")), "{error}");
}

#[test]
fn the_input_and_the_time_of_the_call_are_told() {
    let mut guest = script();
    assert_eq!(guest.call_input(1, &[row("k", "input; now")], NOW).expect("counts").texts(MAIN), ["1;Some(500) 1700000000000"]);
    let early = CallTime { watermark: i64::MIN, processing_time: 5 };
    assert_eq!(guest.call(&[row("k", "now")], early).expect("counts").texts(MAIN), ["None 5"]);
}

#[test]
fn the_machine_is_out_of_reach_and_the_clock_is_that_of_the_call() {
    let mut guest = script();
    assert_eq!(says(&mut guest, "file; network; environment; clock"), format!("no file;no network;0;{}", NOW.processing_time));
}

/// One key, as the guest should see it.
#[derive(Default, Clone)]
struct Model {
    value: u64,
    map: BTreeMap<String, u64>,
    list: Vec<String>,
    sum: i64,
    greatest: Option<i64>,
    timers: BTreeSet<(i64, u64)>,
}

impl Model {
    /// The answers, or `None` for a rejected record, which changes nothing.
    fn run(&mut self, script: &str) -> Option<String> {
        let mut next = self.clone();
        let mut answers = Vec::new();
        for command in script.split("; ") {
            let words: Vec<&str> = command.split(' ').collect();
            let number = |at: usize| words[at].parse::<i64>().expect("a number");
            match words[0] {
                "value" => answers.push(next.value.to_string()),
                "set" => next.value = number(1) as u64,
                "unset" => next.value = 0,
                "get" => answers.push(format!("{:?}", next.map.get(words[1]))),
                "put" => drop(next.map.insert(words[1].to_owned(), number(2) as u64)),
                "remove" => drop(next.map.remove(words[1])),
                "remove-from" => next.map.retain(|key, _| key.as_str() < words[1] || key.as_str() >= words[2]),
                "map" => answers.push(format!("{:?}", next.map.iter().collect::<Vec<_>>())),
                "first" => answers.push(format!("{:?}", next.map.first_key_value())),
                "empty-map" => next.map.clear(),
                "append" => next.list.push(words[1].to_owned()),
                "list" => answers.push(next.list.join(",")),
                "length" => answers.push(next.list.len().to_string()),
                "empty-list" => next.list.clear(),
                "list-is" => next.list = words[1..].iter().map(|&word| word.to_owned()).collect(),
                "add" => next.sum += number(1),
                "sum" => answers.push(next.sum.to_string()),
                "unsum" => next.sum = 0,
                "reach" => next.greatest = next.greatest.max(Some(number(1))),
                "greatest" => answers.push(format!("{:?}", next.greatest)),
                "timer" => drop(next.timers.insert((number(1), number(2) as u64))),
                "cancel" => drop(next.timers.remove(&(number(1), number(2) as u64))),
                "reject" => return None,
                other => panic!("the model does not know {other}"),
            }
        }
        *self = next;
        Some(answers.join(";"))
    }
}

fn random_script(random: &mut Random) -> String {
    let commands: Vec<String> = (0..1 + random.below(5))
        .map(|_| {
            let (key, n) = (["a", "b", "c", "d"][random.below(4) as usize], random.below(50));
            match random.below(26) {
                0 | 1 => "value".to_owned(),
                2 | 3 => format!("set {n}"),
                4 => "unset".to_owned(),
                5 => format!("get {key}"),
                6 | 7 => format!("put {key} {n}"),
                8 => format!("remove {key}"),
                9 => format!("remove-from b {}", ["c", "d"][random.below(2) as usize]),
                10 => "map".to_owned(),
                11 => "first".to_owned(),
                12 => "empty-map".to_owned(),
                13 | 14 => format!("append {key}{n}"),
                15 => "list".to_owned(),
                16 => "length".to_owned(),
                17 => ["empty-list".to_owned(), format!("list-is {key} {n}")][random.below(2) as usize].clone(),
                18 => format!("add {n}"),
                19 => "sum".to_owned(),
                20 => "unsum".to_owned(),
                21 => format!("reach {n}"),
                22 => "greatest".to_owned(),
                23 => format!("timer {} {}", 1000 + n % 5, n % 3),
                24 => format!("cancel {} {}", 1000 + n % 5, n % 3),
                _ => "reject".to_owned(),
            }
        })
        .collect();
    commands.join("; ")
}

#[test]
fn any_scripts_in_any_batches_give_what_the_model_gives() {
    let mut random = Random::from_env();
    let (loaded, _) = module("sdk-script");
    for round in 0..40 {
        let mut guest = script();
        let mut models: BTreeMap<String, Model> = BTreeMap::new();
        for _ in 0..12 {
            let rows: Vec<TestRow> =
                (0..1 + random.below(30)).map(|_| row(format!("key {}", random.below(4)), random_script(&mut random))).collect();
            let (mut expected, mut rejected) = (Vec::new(), Vec::new());
            for (number, row) in (0..).zip(&rows) {
                match models.entry(String::from_utf8_lossy(&row.key).into_owned()).or_default().run(&row.text()) {
                    Some(answers) if answers.is_empty() => {
                        // An empty list answers with an empty text, and a record that says nothing emits nothing.
                        if ["list"].iter().any(|asks| row.text().split("; ").any(|command| command == *asks)) {
                            expected.push(answers);
                        }
                    }
                    Some(answers) => expected.push(answers),
                    None => rejected.push(number),
                }
            }
            if random.below(3) == 0 {
                guest.recycle(&loaded);
            }
            let answer = guest.ok(&rows);
            let seed = random.seed();
            assert_eq!(answer.texts(MAIN), expected, "round {round}, seed {seed}");
            assert_eq!(answer.rejected.iter().map(|r| r.row).collect::<Vec<_>>(), rejected, "round {round}, seed {seed}");
            let timers: usize = models.values().map(|model| model.timers.len()).sum();
            assert_eq!(guest.state().timer_count(EventTime), timers, "round {round}, seed {seed}");
        }
    }
}
