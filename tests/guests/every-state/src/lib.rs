//! An operator with state of every kind. Each record changes all of it and shows all of it, so that whatever a restore loses or mixes
//! up comes out with the key's next record.
//!
//! Folders of older hosts hold snapshots of it (`tests/fixtures`): its name, its states and what it writes into them never change. What
//! new fixtures need beyond that goes into an operator of its own.
//!
//! A record is a JSON object with whole numbers and no blanks; which keys it has says what it does:
//!
//! * `n`, its number: goes into all states, and the row `n key …all states…` to `main`;
//! * `"early":1`: writes the states with a time to live; `"late":1`: shows them;
//! * `t` with `"timer":AT`, `"alarm":AT`: a timer in event time, in processing time, with `n` for its tag; each gives a row on `side`;
//! * `"bad":1`: is rejected, unless the option `mended` is set: then it gives the row `mended n` on `side`.

use tidegate_sdk::prelude::*;

#[operator(keyed, outputs("main", "side"))]
pub struct EveryState {
    /// Values of one size.
    number: ValueState<u64>,
    pair: ValueState<(i64, u32)>,
    /// Values of any size.
    text: ValueState<String>,
    map: MapState<String, u64>,
    list: ListState<String>,
    sum: ReducingState<SumS64>,
    greatest: ReducingState<MaxS64>,
    mean: ReducingState<SumF64>,
    /// Gone by the time at which anybody looks at it again.
    #[state(ttl = "1s")]
    brief: ValueState<u64>,
    #[state(ttl = "36500d")]
    lasting: ValueState<u64>,
    #[state(name = "lasting-event", ttl = "36500d", event_time)]
    lasting_event: MapState<String, u64>,
    #[config(default = false)]
    mended: bool,
}

/// The number under a key of the record.
fn number(text: &str, key: &str) -> Option<i64> {
    let (_, rest) = text.split_once(&format!("\"{key}\":"))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

impl Operator for EveryState {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let text = record.text()?;
        let Some(n) = number(text, "n") else { reject!("there is no n") };
        if number(text, "bad").is_some() {
            if !self.mended {
                reject!("record {n} is bad");
            }
            ctx.emit_to(Self::SIDE, format!("mended {n}"));
            return Ok(());
        }
        if let Some(at) = number(text, "timer") {
            ctx.set_timer(TimeDomain::EventTime, at, n as u64);
        }
        if let Some(at) = number(text, "alarm") {
            ctx.set_timer(TimeDomain::ProcessingTime, at, n as u64);
        }
        let seen = self.number.update(ctx, |seen| seen + 1);
        self.pair.set(ctx, (-n, seen as u32));
        // Now longer, now shorter.
        self.text.update(ctx, |text| if text.len() > 20 { n.to_string() } else { format!("{text}.{n}") });
        self.map.insert(ctx, &format!("m{}", n % 7), n as u64);
        self.map.remove(ctx, &format!("m{}", seen % 7));
        if self.list.len(ctx) == 5 {
            self.list.clear(ctx);
        }
        self.list.add(ctx, n.to_string());
        self.sum.add(ctx, n);
        self.greatest.add(ctx, n % 100);
        self.mean.add(ctx, n as f64 / 2.0);
        let lives = if number(text, "early").is_some() {
            self.brief.set(ctx, n as u64);
            self.lasting.set(ctx, n as u64);
            self.lasting_event.insert(ctx, &format!("e{}", n % 3), n as u64);
            String::new()
        } else if number(text, "late").is_none() {
            String::new()
        } else {
            let (brief, lasting) = (self.brief.get(ctx), self.lasting.get(ctx));
            format!(" brief={brief} lasting={lasting} event={:?}", self.lasting_event.range(ctx, ..))
        };
        let shown = format!(
            "{n} {} number={seen} pair={:?} text={} map={:?} list={} sum={} greatest={:?} mean={}{lives}",
            String::from_utf8_lossy(record.key()),
            self.pair.get(ctx),
            self.text.get(ctx),
            self.map.range(ctx, ..),
            self.list.get(ctx).join("|"),
            self.sum.get(ctx),
            self.greatest.get(ctx),
            self.mean.get(ctx),
        );
        ctx.emit(shown);
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let what = match timer.domain {
            TimeDomain::EventTime => "timer",
            TimeDomain::ProcessingTime => "alarm",
        };
        ctx.emit_to(Self::SIDE, format!("{what} {} {}", String::from_utf8_lossy(timer.key), timer.tag));
        Ok(())
    }
}
