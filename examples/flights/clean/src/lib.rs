//! Raw departures in, departures that make sense out.
//!
//! A flight that left goes out as compact JSON: `{"carrier":"UA","origin":"EWR","dep_delay":2,"ts":1357034400000}`, where `ts` is the
//! hour it was scheduled for. One that never left goes to `cancelled`, as it came. One that makes no sense is rejected with a
//! reason, and the job file says what becomes of it.

mod hour;

use serde::Deserialize;
use std::borrow::Cow;
use tidegate_sdk::prelude::*;

/// Nobody waits for more than two days at the gate, and nobody leaves half a day early.
const DELAY_MIN: std::ops::RangeInclusive<i64> = -12 * 60..=48 * 60;

#[operator(outputs("main", "cancelled"))]
pub struct Clean;

/// What is needed of a row of the flights table. Empty fields are null.
#[derive(Deserialize)]
struct Flight<'a> {
    #[serde(borrow)]
    carrier: Option<Cow<'a, str>>,
    #[serde(borrow)]
    origin: Option<Cow<'a, str>>,
    /// HHMM, as on a clock; absent where the flight was cancelled.
    dep_time: Option<i64>,
    /// In minutes.
    dep_delay: Option<i64>,
    #[serde(borrow)]
    time_hour: Option<Cow<'a, str>>,
}

impl Operator for Clean {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let flight: Flight<'_> = serde_json::from_slice(record.value())?;
        let carrier = code("carrier", flight.carrier.as_deref(), 2, |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())?;
        let origin = code("origin", flight.origin.as_deref(), 3, |byte| byte.is_ascii_uppercase())?;
        let Some(time) = &flight.time_hour else { reject!("time_hour is missing") };
        let Some(ts) = hour::milliseconds(time) else { reject!("time_hour is {time:?}, and no hour like 2013-01-01T10:00:00Z") };
        match (flight.dep_time, flight.dep_delay) {
            (None, None) => ctx.forward_to(Self::CANCELLED),
            (Some(dep_time), Some(delay)) => {
                if !(0..=2400).contains(&dep_time) || dep_time % 100 > 59 {
                    reject!("dep_time is {dep_time}, which no clock shows");
                }
                if !DELAY_MIN.contains(&delay) {
                    reject!("dep_delay is {delay} minutes, which is not in {DELAY_MIN:?}");
                }
                ctx.emit_with(Self::MAIN, |out| {
                    write!(out, r#"{{"carrier":"{carrier}","origin":"{origin}","dep_delay":{delay},"ts":{ts}}}"#)
                })?;
            }
            (Some(_), None) => reject!("dep_delay is missing though the flight has left"),
            (None, Some(_)) => reject!("dep_time is missing though the flight has a delay"),
        }
        Ok(())
    }
}

/// A code of so many letters. Being checked, it can stand in JSON as it is.
fn code<'a>(name: &str, code: Option<&'a str>, len: usize, good: impl Fn(u8) -> bool) -> Result<&'a str, RecordError> {
    match code {
        None => reject!("{name} is missing"),
        Some(code) if code.len() == len && code.bytes().all(good) => Ok(code),
        Some(code) => reject!("{name} is {code:?}, and no code of {len} letters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::testing::OperatorTest;

    fn row(carrier: &str, origin: &str, dep_time: &str, dep_delay: &str, time_hour: &str) -> String {
        format!(
            r#"{{"year":2013,"carrier":{carrier},"origin":{origin},"dep_time":{dep_time},"dep_delay":{dep_delay},"tailnum":null,"time_hour":{time_hour}}}"#
        )
    }

    const HOUR: &str = r#""2013-01-01T10:00:00Z""#;

    #[test]
    fn a_flight_that_left_goes_out_in_short() {
        let mut t = OperatorTest::<Clean>::new();
        t.send("", row(r#""UA""#, r#""EWR""#, "517", "2", HOUR), 1_357_034_400_000);
        assert_eq!(t.texts("main"), [r#"{"carrier":"UA","origin":"EWR","dep_delay":2,"ts":1357034400000}"#]);
        assert_eq!(t.outputs("main")[0].timestamp, Some(1_357_034_400_000));
        assert!(t.rejected().is_empty());
    }

    #[test]
    fn a_cancelled_flight_goes_to_its_output_as_it_came() {
        let mut t = OperatorTest::<Clean>::new();
        let cancelled = row(r#""EV""#, r#""EWR""#, "null", "null", HOUR);
        t.send("", &cancelled, 0);
        assert_eq!(t.texts("cancelled"), [cancelled]);
        assert!(t.texts("main").is_empty());
    }

    #[test]
    fn a_row_that_makes_no_sense_is_rejected_with_a_reason() {
        let mut t = OperatorTest::<Clean>::new();
        let (ua, ewr) = (r#""UA""#, r#""EWR""#);
        for (bad, reason) in [
            (row("null", ewr, "517", "2", HOUR), "carrier is missing"),
            (row(ua, "null", "517", "2", HOUR), "origin is missing"),
            (row(ua, r#""New York""#, "517", "2", HOUR), r#"origin is "New York", and no code of 3 letters"#),
            (row(ua, ewr, "517", "2", "null"), "time_hour is missing"),
            (row(ua, ewr, "517", "2", r#""yesterday""#), r#"time_hour is "yesterday", and no hour like 2013-01-01T10:00:00Z"#),
            (row(ua, ewr, "2575", "2", HOUR), "dep_time is 2575, which no clock shows"),
            (row(ua, ewr, "517", "9999", HOUR), "dep_delay is 9999 minutes, which is not in -720..=2880"),
            (row(ua, ewr, "517", "null", HOUR), "dep_delay is missing though the flight has left"),
            (row(ua, ewr, "null", "2", HOUR), "dep_time is missing though the flight has a delay"),
        ] {
            t.send("", bad, 0);
            assert_eq!(t.rejected().last().map(|rejected| rejected.reason.as_str()), Some(reason));
        }
        t.send("", row(ua, ewr, "517", r#""very late""#, HOUR), 0);
        t.send("", "no JSON at all", 0);
        assert_eq!(t.rejected().len(), 11);
        assert!(t.texts("main").is_empty() && t.texts("cancelled").is_empty());
    }
}
