//! Departure delays by airline, airport and hour.
//!
//! Keyed by `["/carrier","/origin"]`. A flight belongs to the hour it was scheduled for. When the watermark says that no more
//! flights of an hour will come, one line goes out for each (airline, airport, hour) and the hour is forgotten:
//!
//! `{"carrier":"UA","origin":"EWR","hour":1357034400000,"flights":3,"delay_sum":11,"delay_max":9,"delayed":0}`
//!
//! A flight of an hour that is closed goes to `late`, as it came.

use serde::Deserialize;
use std::borrow::Cow;
use tidegate_sdk::prelude::*;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Between the fields of a key, as the host joins them.
const UNIT_SEPARATOR: u8 = 0x1f;

#[operator(keyed, outputs("main", "late"))]
pub struct Delays {
    /// Hours that are still open, by their first millisecond.
    hours: MapState<i64, Hour>,
    late_flights: Counter,
    /// A flight that leaves so many minutes after its time counts as delayed.
    #[config(default = 15)]
    threshold_min: i64,
    /// An hour stays open for so long after the watermark has passed its end.
    #[config(default = 0)]
    allowed_lateness_min: i64,
}

/// Number of flights, sum and maximum of their delays in minutes, number of delayed ones.
type Hour = (u64, i64, i64, u64);

#[derive(Deserialize)]
struct Departure<'a> {
    #[serde(borrow)]
    carrier: Cow<'a, str>,
    #[serde(borrow)]
    origin: Cow<'a, str>,
    dep_delay: i64,
    ts: i64,
}

impl Operator for Delays {
    fn start(&mut self, _: &Context) -> Result<(), StartError> {
        if !(0..=7 * 24 * 60).contains(&self.allowed_lateness_min) {
            let given = self.allowed_lateness_min;
            return Err(StartError::new(format!("allowed_lateness_min is {given}: it must be 0 to 10080 (a week)")));
        }
        Ok(())
    }

    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let departure: Departure<'_> = serde_json::from_slice(record.value())?;
        let named = (departure.carrier.as_bytes(), departure.origin.as_bytes());
        if carrier_and_origin(ctx.key()) != Some(named) {
            reject!(r#"the key is not that of the record: the job needs key = {{ json = ["/carrier", "/origin"] }}"#);
        }
        let hour = departure.ts - departure.ts.rem_euclid(HOUR_MS);
        let closes = hour + HOUR_MS - 1 + self.allowed_lateness_min * MINUTE_MS;
        if ctx.is_past(closes) {
            self.late_flights.add(ctx, 1);
            ctx.forward_to(Self::LATE);
            return Ok(());
        }
        let delay = departure.dep_delay;
        let delayed = u64::from(delay >= self.threshold_min);
        let so_far = self.hours.get(ctx, &hour);
        if so_far.is_none() {
            // The hour goes along as the tag: where lateness is allowed the time alone does not say it.
            ctx.set_timer(TimeDomain::EventTime, closes, hour as u64);
        }
        let (flights, sum, max, over) = so_far.unwrap_or((0, 0, i64::MIN, 0));
        self.hours.insert(ctx, &hour, (flights + 1, sum + delay, max.max(delay), over + delayed));
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let hour = timer.tag as i64;
        let Some((flights, sum, max, delayed)) = self.hours.get(ctx, &hour) else { return Ok(()) };
        self.hours.remove(ctx, &hour);
        let Some((carrier, origin)) = carrier_and_origin(timer.key) else { reject!("the key is no airline and airport") };
        let (carrier, origin) = (std::str::from_utf8(carrier)?, std::str::from_utf8(origin)?);
        ctx.emit_with(Self::MAIN, |out| {
            write!(out, r#"{{"carrier":"{carrier}","origin":"{origin}","hour":{hour},"flights":{flights},"#)?;
            write!(out, r#""delay_sum":{sum},"delay_max":{max},"delayed":{delayed}}}"#)
        })?;
        Ok(())
    }
}

fn carrier_and_origin(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let separator = key.iter().position(|byte| *byte == UNIT_SEPARATOR)?;
    Some((&key[..separator], &key[separator + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::testing::OperatorTest;

    const KEY: &str = "UA\u{1f}EWR";
    const TEN: i64 = 1_357_034_400_000;

    fn departure(delay: i64, ts: i64) -> String {
        format!(r#"{{"carrier":"UA","origin":"EWR","dep_delay":{delay},"ts":{ts}}}"#)
    }

    fn send(t: &mut OperatorTest<Delays>, delay: i64, ts: i64) {
        t.send(KEY, departure(delay, ts), ts);
    }

    #[test]
    fn an_hour_goes_out_when_the_watermark_has_passed_it() {
        let mut t = OperatorTest::<Delays>::new().amnesia();
        send(&mut t, 2, TEN);
        send(&mut t, 40, TEN + 59 * MINUTE_MS);
        send(&mut t, -5, TEN);
        send(&mut t, 7, TEN + HOUR_MS);
        assert_eq!(t.timers().len(), 2);
        t.advance_watermark(TEN + HOUR_MS - 2);
        assert!(t.texts("main").is_empty());
        t.advance_watermark(TEN + HOUR_MS - 1);
        let ten = r#"{"carrier":"UA","origin":"EWR","hour":1357034400000,"flights":3,"delay_sum":37,"delay_max":40,"delayed":1}"#;
        assert_eq!(t.texts("main"), [ten]);
        assert_eq!(t.map::<i64, Hour>("hours", KEY), [(TEN + HOUR_MS, (1, 7, 7, 0))]);
        t.end_of_input();
        assert_eq!(t.texts("main").len(), 2);
        assert!(t.map::<i64, Hour>("hours", KEY).is_empty());
    }

    #[test]
    fn delays_below_zero_have_a_maximum_too() {
        let mut t = OperatorTest::<Delays>::new();
        send(&mut t, -5, TEN);
        send(&mut t, -3, TEN);
        t.end_of_input();
        assert!(t.texts("main")[0].contains(r#""delay_sum":-8,"delay_max":-3,"delayed":0"#));
    }

    #[test]
    fn a_flight_of_a_closed_hour_is_late() {
        let mut t = OperatorTest::<Delays>::new();
        send(&mut t, 2, TEN);
        t.advance_watermark(TEN + HOUR_MS - 1);
        send(&mut t, 90, TEN);
        assert_eq!(t.texts("late"), [departure(90, TEN)]);
        assert_eq!(t.counter("late_flights"), 1);
        assert_eq!(t.texts("main").len(), 1);
        assert!(t.timers().is_empty());
    }

    #[test]
    fn allowed_lateness_keeps_an_hour_open() {
        let mut t = OperatorTest::<Delays>::new().option("allowed_lateness_min", "30").option("threshold_min", "90");
        send(&mut t, 2, TEN);
        t.advance_watermark(TEN + HOUR_MS + 20 * MINUTE_MS);
        send(&mut t, 90, TEN);
        t.advance_watermark(TEN + HOUR_MS + 30 * MINUTE_MS);
        assert!(t.texts("main")[0].contains(r#""flights":2,"delay_sum":92,"delay_max":90,"delayed":1"#));
        assert!(t.texts("late").is_empty());
    }

    #[test]
    fn a_job_that_keys_otherwise_is_told_so() {
        let mut t = OperatorTest::<Delays>::new();
        t.send("UA", departure(1, TEN), TEN);
        assert!(t.rejected()[0].reason.contains(r#"key = { json = ["/carrier", "/origin"] }"#));
        let failed = OperatorTest::<Delays>::new().option("allowed_lateness_min", "-1").start();
        assert!(format!("{failed:?}").contains("0 to 10080"));
    }
}
