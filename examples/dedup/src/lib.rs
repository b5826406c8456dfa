//! The first record of each key passes, as it is; later ones are dropped. After an hour of event time the next one passes again.
//!
//! A filter writes no rows: it forwards those that pass. A duplicate writes no state either, so it costs the checkpoint nothing.

use tidegate_sdk::prelude::*;

#[operator(keyed)]
pub struct Dedup {
    #[state(ttl = "1h", event_time)]
    seen: ValueState<bool>,
    duplicates: Counter,
}

impl Operator for Dedup {
    #[inline]
    fn process(&mut self, _: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        if self.seen.get(ctx) {
            self.duplicates.add(ctx, 1);
        } else {
            self.seen.set(ctx, true);
            ctx.forward();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::testing::{OperatorTest, headers};

    const HOUR_MS: i64 = 3_600_000;

    #[test]
    fn the_first_record_of_a_key_passes_unchanged() {
        let mut t = OperatorTest::<Dedup>::new();
        let trace = headers(&[("trace", b"1")]);
        let row = |key: &'static str, value| Row {
            key: key.as_bytes(),
            value,
            timestamp: Some(5),
            headers: trace.as_headers(),
            ..Row::default()
        };
        t.send_batch(&[row("a", Some(b"1")), row("b", None), row("a", Some(b"2")), row("b", Some(b"3"))]);
        let passed = t.outputs("main");
        assert_eq!(passed.len(), 2);
        assert_eq!((&passed[0].value, &passed[1].value), (&Some(b"1".to_vec()), &None));
        assert_eq!(passed[0].headers, [("trace".to_owned(), b"1".to_vec())]);
        assert_eq!(t.counter("duplicates"), 2);
    }

    #[test]
    fn after_an_hour_a_key_is_new_again() {
        let mut t = OperatorTest::<Dedup>::new().amnesia();
        t.advance_watermark(0);
        t.send("a", "first", 0);
        t.advance_watermark(HOUR_MS - 1);
        t.send("a", "second", HOUR_MS);
        t.advance_watermark(HOUR_MS);
        t.send("a", "third", HOUR_MS);
        assert_eq!(t.texts("main"), ["first", "third"]);
    }
}
