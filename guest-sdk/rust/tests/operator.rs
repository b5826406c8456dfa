//! The promises of the SDK to an author, one by one.

use tidegate_sdk::prelude::*;
use tidegate_sdk::testing::{OperatorTest, headers};
use tidegate_sdk::{Failure, StateKind, TimeToLive};

#[derive(Debug, Clone, PartialEq, StateRecord)]
struct Visit {
    count: u64,
    place: String,
    rating: Option<f64>,
    seen_at: Vec<i64>,
}

#[operator(name = "everything", version = "2.1.0", keyed, inputs = 2, outputs("main", "too-late"))]
struct Everything {
    #[state(name = "visits", version = 3, ttl = "1h", event_time)]
    visit: ValueState<Visit>,
    #[state(ttl = "500ms")]
    short: ValueState<u64>,
    by_hour: MapState<(i64, u8), (u64, f64)>,
    names: ListState<String>,
    total: ReducingState<SumF64>,
    #[metric(name = "late_records")]
    late: Counter,
    #[config(default = 15)]
    threshold_min: i64,
    #[config(name = "mode", default = "plain")]
    how: String,
    #[config]
    limit: Option<u32>,
}

impl Operator for Everything {
    fn start(&mut self, ctx: &Context) -> Result<(), StartError> {
        if self.limit == Some(0) {
            return Err(StartError::new("a limit of 0 lets nothing through"));
        }
        if self.threshold_min < 0 {
            return Err(StartError::new(format!("threshold_min is {}: it can't be negative", self.threshold_min)));
        }
        if ctx.option("transient").is_some() {
            return Err(StartError::transient("not yet"));
        }
        Ok(())
    }

    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        match record.text()? {
            "visit" => {
                let mut visit = self.visit.get(ctx);
                visit.count += 1;
                visit.place = "JFK".to_owned();
                visit.rating = Some(4.5);
                visit.seen_at.push(record.event_time()?);
                self.visit.set(ctx, visit);
            }
            "short" => {
                let short = self.short.update(ctx, |n| n + 1);
                ctx.emit(short.to_string());
            }
            "late" => {
                self.late.add(ctx, 1);
                ctx.forward_to(Self::TOO_LATE);
            }
            "mixed" => {
                ctx.emit("before");
                ctx.forward();
                ctx.emit_with(Self::MAIN, |out| write!(out, "after {}", self.how))?;
            }
            "row" => {
                let mut list = record.headers().into_iter().fold(HeaderList::new(), |mut list, (name, value)| {
                    list.add(name, value);
                    list
                });
                list.add("input", ctx.input().to_string().as_bytes());
                let row =
                    Row { key: b"other", value: None, change: ChangeKind::Retract, headers: list.as_headers(), ..record.row() };
                ctx.emit_row(Self::MAIN, &row);
            }
            "timer" => {
                let at = record.event_time()?;
                ctx.set_timer(TimeDomain::EventTime, at + 10, 1);
                ctx.set_timer(TimeDomain::ProcessingTime, ctx.processing_time() + 10, 2);
                ctx.set_timer(TimeDomain::EventTime, at + 20, 3);
                ctx.cancel_timer(TimeDomain::EventTime, at + 20, 3);
            }
            "fatal" => {
                ctx.emit("never seen");
                return Err(RecordError::fatal("enough"));
            }
            "transient" => return Err(RecordError::transient("try again")),
            "log" => ctx.log_with(Level::Warn, "hello", &[("threshold", &self.threshold_min.to_string())]),
            other => reject!("{other:?} is not known"),
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        ctx.emit(format!("{:?} {} {}", timer.domain, timer.time, timer.tag));
        if timer.tag == 1 {
            ctx.set_timer(timer.domain, timer.time + 5, 9);
        }
        if timer.tag == 9 {
            reject!("timer 9");
        }
        Ok(())
    }
}

fn row<'a>(value: &'a str) -> Row<'a> {
    Row { key: b"k", value: Some(value.as_bytes()), timestamp: Some(1000), ..Row::default() }
}

#[test]
fn an_operator_describes_itself() {
    let t = OperatorTest::<Everything>::new();
    let descriptor = t.descriptor();
    assert_eq!((&descriptor.name[..], &descriptor.version[..]), ("everything", "2.1.0"));
    assert_eq!((descriptor.inputs, descriptor.keyed), (2, true));
    assert_eq!(descriptor.outputs, ["main", "too-late"]);
    let [visits, short, by_hour, names, total] = &descriptor.states[..] else { panic!("five states") };
    assert_eq!((&visits.name[..], visits.schema_version, visits.value_size), ("visits", 3, None));
    assert_eq!(visits.value_type, "record { count: u64, place: string, rating: option<f64>, seen-at: list<s64> }");
    assert_eq!(visits.ttl, Some(TimeToLive { ms: 3_600_000, domain: TimeDomain::EventTime }));
    assert_eq!((&short.value_type[..], short.value_size), ("u64", Some(8)));
    assert_eq!(short.ttl, Some(TimeToLive { ms: 500, domain: TimeDomain::ProcessingTime }));
    assert_eq!(by_hour.map_key_type.as_deref(), Some("tuple<s64, u8>"));
    assert_eq!((&by_hour.value_type[..], by_hour.kind), ("tuple<u64, f64>", StateKind::Map));
    assert_eq!((names.kind, &total.value_type[..]), (StateKind::List, "f64"));
}

#[test]
fn options_are_typed_and_an_unknown_one_is_refused() {
    let failure = |name: &str, value: &str| OperatorTest::<Everything>::new().option(name, value).start();
    assert_eq!(failure("threshold_min", "20"), Ok(()));
    let Err(Failure::Fatal(reason)) = failure("threshold_min", "many") else { panic!("a text is no number") };
    assert_eq!(reason, r#"the option "threshold_min" is "many": a whole number of 64 bits expected"#);
    let Err(Failure::Fatal(reason)) = failure("treshold_min", "20") else { panic!("a misspelt option") };
    assert!(reason.starts_with(r#"the operator does not know the options ["treshold_min"]"#), "{reason}");
    assert_eq!(failure("threshold_min", "-1"), Err(Failure::Fatal("threshold_min is -1: it can't be negative".to_owned())));
    assert_eq!(failure("transient", "1"), Err(Failure::Transient("not yet".to_owned())));
    assert_eq!(failure("limit", "7"), Ok(()));
    assert_eq!(failure("limit", "0"), Err(Failure::Fatal("a limit of 0 lets nothing through".to_owned())));
}

#[test]
fn a_record_is_a_value_of_a_state() {
    let mut t = OperatorTest::<Everything>::new();
    t.send_batch(&[row("visit"), row("visit")]);
    let visit = Visit { count: 2, place: "JFK".to_owned(), rating: Some(4.5), seen_at: vec![1000, 1000] };
    assert_eq!(t.value("visits", "k"), Some(visit));
}

#[test]
fn fields_can_come_and_go_without_a_migration() {
    #[derive(Debug, PartialEq, StateRecord)]
    struct Newer {
        place: String,
        added: u32,
    }
    let mut t = OperatorTest::<Everything>::new();
    t.send("k", "visit", 1);
    assert_eq!(t.value("visits", "k"), Some(Newer { place: "JFK".to_owned(), added: 0 }));
}

#[test]
fn emitted_and_forwarded_rows_keep_their_order() {
    let mut t = OperatorTest::<Everything>::new().option("mode", "fancy");
    t.send_batch(&[row("mixed"), row("nonsense"), row("mixed"), row("late")]);
    assert_eq!(t.texts("main"), ["before", "mixed", "after fancy", "before", "mixed", "after fancy"]);
    assert_eq!(t.texts("too-late"), ["late"]);
    assert_eq!(t.counter("late_records"), 1);
    assert_eq!(t.rejected().iter().map(|rejected| &rejected.reason[..]).collect::<Vec<_>>(), [r#""nonsense" is not known"#]);
}

#[test]
fn a_row_of_its_own_carries_key_headers_and_change_kind() {
    let mut t = OperatorTest::<Everything>::new();
    let trace = headers(&[("trace", b"1")]);
    t.input(1).send_batch(&[Row { headers: trace.as_headers(), ..row("row") }]);
    let emitted = &t.outputs("main")[0];
    assert_eq!((&emitted.key[..], &emitted.value, emitted.timestamp), (&b"other"[..], &None, Some(1000)));
    assert_eq!(emitted.change, ChangeKind::Retract);
    assert_eq!(emitted.headers, [("trace".to_owned(), b"1".to_vec()), ("input".to_owned(), b"1".to_vec())]);
}

#[test]
fn timers_fire_when_their_time_has_come_and_can_set_others() {
    let mut t = OperatorTest::<Everything>::new();
    t.advance_processing_time(50);
    t.send("k", "timer", 1000);
    assert_eq!(t.timers().len(), 2);
    t.advance_watermark(1009);
    assert!(t.texts("main").is_empty());
    t.advance_watermark(1020);
    assert_eq!(t.texts("main"), ["EventTime 1010 1"]);
    // The second one was due at once, and rejected: what it emitted is gone.
    assert_eq!(t.rejected()[0].reason, "timer 9");
    t.advance_processing_time(60);
    assert_eq!(t.texts("main"), ["EventTime 1010 1", "ProcessingTime 60 2"]);
    assert_eq!(t.outputs("main")[0].timestamp, Some(1010));
    assert!(t.timers().is_empty());
}

#[test]
fn a_failed_call_leaves_nothing_behind() {
    let mut t = OperatorTest::<Everything>::new();
    t.send("k", "short", 1000);
    let failed = t.try_send_batch(&[row("short"), row("fatal")]);
    assert_eq!(failed, Err(Failure::Fatal("enough".to_owned())));
    assert_eq!(t.try_send_batch(&[row("transient")]), Err(Failure::Transient("try again".to_owned())));
    assert_eq!(t.texts("main"), ["1"]);
    t.send("k", "short", 1000);
    assert_eq!(t.texts("main"), ["1", "2"]);
}

#[test]
fn state_with_a_time_to_live_ends() {
    let mut t = OperatorTest::<Everything>::new();
    t.send("k", "short", 1000);
    t.advance_processing_time(499);
    t.send("k", "short", 1000);
    t.advance_processing_time(999);
    t.send("k", "short", 1000);
    assert_eq!(t.texts("main"), ["1", "2", "1"]);

    t.send("k", "visit", 1000);
    t.advance_watermark(1000);
    t.advance_watermark(3_600_999);
    assert!(t.value::<Visit>("visits", "k").is_some());
    t.advance_watermark(3_601_000);
    assert!(t.value::<Visit>("visits", "k").is_none());
}

#[test]
fn the_end_of_the_input_makes_no_state_old() {
    let mut t = OperatorTest::<Everything>::new();
    t.send("k", "visit", 1000);
    t.advance_watermark(1000);
    t.end_of_input();
    assert!(t.value::<Visit>("visits", "k").is_some());
}

#[operator(keyed)]
struct Bounds {
    least: ReducingState<MinF64>,
    greatest: ReducingState<MaxF64>,
    sum: ReducingState<SumS64>,
    count: ReducingState<Count>,
}

impl Operator for Bounds {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let number: f64 = record.text()?.parse()?;
        self.least.add(ctx, number);
        self.greatest.add(ctx, number);
        self.sum.add(ctx, number as i64);
        self.count.add(ctx, ());
        let (least, greatest) = (self.least.get(ctx), self.greatest.get(ctx));
        ctx.emit(format!("{least:?} {greatest:?} {} {}", self.sum.get(ctx), self.count.get(ctx)));
        Ok(())
    }
}

#[test]
fn reducers_read_in_a_batch_what_the_host_will_have() {
    for batch in [1, 6] {
        let mut t = OperatorTest::<Bounds>::new();
        let rows = ["NaN", "1.5", "-2", "NaN", "9223372036854775807", "0"].map(row);
        rows.chunks(batch).for_each(|rows| t.send_batch(rows));
        let last = "Some(-2.0) Some(9.223372036854776e18) 9223372036854775806 6";
        assert_eq!(t.texts("main")[..3], ["Some(NaN) Some(NaN) 0 1", "Some(1.5) Some(1.5) 1 2", "Some(-2.0) Some(1.5) -1 3"]);
        assert_eq!(t.texts("main")[5], last);
        assert_eq!(t.number("least", "k").map(|bits| f64::from_bits(bits as u64)), Some(-2.0));
    }
}

#[test]
fn logs_carry_fields() {
    let mut t = OperatorTest::<Everything>::new();
    t.send("k", "log", 1000);
    assert_eq!(t.logs()[0].fields, [("threshold".to_owned(), "15".to_owned())]);
}

#[operator]
struct Stateless;

impl Operator for Stateless {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        if record.is_tombstone() {
            ctx.forward();
            return Ok(());
        }
        for word in record.text()?.split_whitespace() {
            ctx.emit(word);
        }
        Ok(())
    }
}

#[test]
fn an_operator_without_a_key_needs_no_slots() {
    let mut t = OperatorTest::<Stateless>::new();
    assert_eq!(t.descriptor().name, "tidegate-sdk");
    t.send("", "to be or not", None);
    t.send_batch(&[Row::default()]);
    t.send("", [0xff], None);
    assert_eq!(t.texts("main"), ["to", "be", "or", "not", ""]);
    assert_eq!(t.outputs("main")[4].value, None);
    assert!(t.rejected()[0].reason.starts_with("the value is not UTF-8"));
}
