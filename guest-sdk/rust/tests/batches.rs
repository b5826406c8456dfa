//! What an operator does must not depend on how its records fall into batches, nor on records that were rejected between them.
//!
//! A scripted operator runs random programs over every kind of state. Run as one batch, with rejected records in it and several
//! operations in a record, it must do exactly what it does one operation a batch without the rejected records: there, every
//! operation sees the plain host and none of the SDK's caches and journals.

use proptest::prelude::*;
use std::ops::ControlFlow;
use tidegate_sdk::prelude::*;
use tidegate_sdk::testing::{Emitted, OperatorTest};

#[operator(name = "script", keyed, outputs("main", "side"))]
struct Script {
    fixed: ValueState<(u64, bool)>,
    text: ValueState<String>,
    maybe: ValueState<Option<u32>>,
    map: MapState<i16, String>,
    list: ListState<String>,
    sum: ReducingState<SumS64>,
    least: ReducingState<MinS64>,
    steps: Counter,
    level: Gauge,
    sizes: Histogram,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    op: u8,
    a: u8,
    b: u8,
}

const OPS: u8 = 30;
const REJECT: u8 = 255;

impl Script {
    fn step(&mut self, Step { op, a, b }: Step, ctx: &mut Ctx<'_>) {
        let map_key = i16::from(a % 8) - 4;
        let text = |n: u8| "x".repeat(usize::from(n) % 20);
        let at = i64::from(a % 4);
        let domain = if b % 2 == 0 { TimeDomain::EventTime } else { TimeDomain::ProcessingTime };
        match op {
            0 => ctx.emit(format!("{:?}", self.fixed.get(ctx))),
            1 => self.fixed.set(ctx, (u64::from(a), b % 2 == 0)),
            2 => self.fixed.clear(ctx),
            3 => ctx.emit(self.text.get(ctx)),
            4 => self.text.set(ctx, text(a)),
            5 => self.text.clear(ctx),
            6 => ctx.emit(format!("{:?}", self.maybe.get(ctx))),
            7 => self.maybe.set(ctx, (a % 3 > 0).then_some(u32::from(b))),
            8 => ctx.emit(format!("{:?}", self.map.get(ctx, &map_key))),
            9 | 10 => self.map.insert(ctx, &map_key, text(b)),
            11 => self.map.remove(ctx, &map_key),
            12 => ctx.emit(format!("{:?}", self.map.range(ctx, map_key..i16::from(b % 8) - 4))),
            13 => ctx.emit(format!("{:?}", self.map.range(ctx, ..=map_key))),
            14 => self.map.remove_range(ctx, map_key..),
            15 => self.map.clear(ctx),
            16 => ctx.emit(format!("{} {}", self.map.is_empty(ctx), self.map.contains(ctx, &map_key))),
            17 => ctx.emit(format!("{:?}", self.map.first(ctx))),
            18 => self.list.add(ctx, text(a)),
            19 => ctx.emit(self.list.get(ctx).join(",")),
            20 => self.list.clear(ctx),
            21 => self.list.replace(ctx, (0..a % 3).map(|n| format!("{n}{b}"))),
            22 => self.sum.add(ctx, i64::from(a) - 100),
            23 => ctx.emit(format!("{} {:?}", self.sum.get(ctx), self.least.get(ctx))),
            24 => self.least.add(ctx, i64::from(a) - 100),
            25 => self.least.clear(ctx),
            26 => ctx.set_timer(domain, at, u64::from(b % 4)),
            27 => ctx.cancel_timer(domain, at, u64::from(b % 4)),
            28 => ctx.emit_to(Self::SIDE, format!("{}", self.list.len(ctx))),
            _ => {
                self.sum.clear(ctx);
                self.level.set(ctx, f64::from(a));
                self.sizes.observe(ctx, f64::from(b));
            }
        }
        self.steps.add(ctx, 1);
    }
}

impl Operator for Script {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        for step in record.value().chunks(3) {
            if step[0] == REJECT {
                reject!("as the script says");
            }
            self.step(Step { op: step[0], a: step[1], b: step[2] }, ctx);
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Program {
    key: u8,
    steps: Vec<Step>,
    rejected: bool,
}

impl Program {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.steps.iter().flat_map(|step| [step.op, step.a, step.b]).collect();
        if self.rejected {
            bytes.extend([REJECT, 0, 0]);
        }
        bytes
    }
}

fn programs() -> impl Strategy<Value = Vec<Program>> {
    let step = (0..OPS, any::<u8>(), any::<u8>()).prop_map(|(op, a, b)| Step { op, a, b });
    let program = (0..3_u8, proptest::collection::vec(step, 1..6), proptest::bool::weighted(0.3));
    proptest::collection::vec(program.prop_map(|(key, steps, rejected)| Program { key, steps, rejected }), 1..40)
}

/// Everything that can be seen of an operator from outside.
fn seen(t: &OperatorTest<Script>) -> String {
    let rows =
        |port: &str| t.outputs(port).iter().map(|row: &Emitted| format!("{:?} {}", row.key, row.text())).collect::<Vec<_>>();
    let mut seen = format!("{:?}\n{:?}\n{:?}\n", rows("main"), rows("side"), t.timers());
    for key in 0..3_u8 {
        let key = [key];
        seen += &format!("{:?} ", t.value::<(u64, bool)>("fixed", key));
        seen += &format!("{:?} ", t.value::<String>("text", key));
        seen += &format!("{:?} ", t.value::<u32>("maybe", key));
        seen += &format!("{:?} ", t.map::<i16, String>("map", key));
        seen += &format!("{:?} ", t.list::<String>("list", key));
        seen += &format!("{:?} {:?}\n", t.number("sum", key), t.number("least", key));
    }
    seen + &format!("{} {:?} {:?}", t.counter("steps"), t.gauge("level"), t.histogram("sizes"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn batches_and_rejected_records_leave_no_trace(programs in programs(), batch in 1..40_usize) {
        let mut single = OperatorTest::<Script>::new().amnesia();
        for program in programs.iter().filter(|program| !program.rejected) {
            for step in &program.steps {
                single.send([program.key], [step.op, step.a, step.b], 0);
            }
        }

        let mut batched = OperatorTest::<Script>::new();
        for batch in programs.chunks(batch) {
            let bytes: Vec<_> = batch.iter().map(|program| ([program.key], program.bytes())).collect();
            let rows: Vec<_> =
                bytes.iter().map(|(key, value)| Row { key, value: Some(value), timestamp: Some(0), ..Row::default() }).collect();
            batched.send_batch(&rows);
        }

        prop_assert_eq!(batched.rejected().len(), programs.iter().filter(|program| program.rejected).count());
        prop_assert_eq!(seen(&batched), seen(&single));
    }
}

#[operator(keyed)]
struct Pages {
    map: MapState<u32, u32>,
    list: ListState<u32>,
}

impl Operator for Pages {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let count: u32 = record.text()?.parse()?;
        for n in 0..count {
            self.map.insert(ctx, &n, n + 1);
            self.list.add(ctx, n + 1);
        }
        let walked = self.map.range(ctx, ..).into_iter().filter(|(key, value)| key + 1 == *value).count();
        let mut some = 0;
        self.map.for_each(ctx, 3.., |_, _| {
            some += 1;
            if some == 300 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        ctx.emit(format!("{walked} {some} {}", self.list.get(ctx).len()));
        Ok(())
    }
}

#[test]
fn maps_and_lists_of_more_than_a_page_are_walked_whole() {
    let mut t = OperatorTest::<Pages>::new();
    t.send("k", "512", 0);
    t.send("k", "0", 0);
    t.send("k", "1000", 0);
    t.send("k", "1", 0);
    assert_eq!(t.texts("main"), ["512 300 512", "512 300 512", "1000 300 1512", "1000 300 1513"]);
}
