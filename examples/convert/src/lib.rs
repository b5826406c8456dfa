//! Prices in another currency, and a filter: workload w1 of the benchmark, stateless.
//!
//! An event passes when its auction divides by 123 (`filter = false`: always), with `price * 908 / 1000` in the place of its price.
//! `format = "rows"` is the benchmark's binary form (auction, bidder, price, dateTime as `u64`, little endian, then channel and extra
//! each as a length byte and text), `format = "json"` the flat JSON object with the same fields. Everything but the price stays.

mod price;

use tidegate_sdk::prelude::*;

/// The auctions that pass.
const EVERY: u64 = 123;

#[operator]
pub struct Convert {
    #[config(default = Format::Rows)]
    format: Format,
    #[config(default = true)]
    filter: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Rows,
    Json,
}

impl ConfigValue for Format {
    const EXPECTED: &'static str = r#""rows" or "json""#;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "rows" => Some(Self::Rows),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

fn converted(price: u64) -> u64 {
    price.wrapping_mul(908) / 1000
}

impl Convert {
    fn passes(&self, auction: u64) -> bool {
        !self.filter || auction.is_multiple_of(EVERY)
    }

    #[inline]
    fn rows(&self, value: &[u8], ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let Some((head, _)) = value.split_first_chunk::<32>() else {
            reject!("an event has at least 32 bytes, this one has {}", value.len());
        };
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        if self.passes(word(0)) {
            let price = converted(word(16)).to_le_bytes();
            ctx.emit_with(Self::MAIN, |out| {
                out.bytes(&value[..16]).bytes(&price).bytes(&value[24..]);
            });
        }
        Ok(())
    }

    #[inline]
    fn json(&self, value: &[u8], ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let found = price::find(value)?;
        if self.passes(found.auction) {
            ctx.emit_with(Self::MAIN, |out| {
                out.bytes(&value[..found.price.start]).number(converted(found.amount)).bytes(&value[found.price.end..]);
            });
        }
        Ok(())
    }
}

impl Operator for Convert {
    #[inline]
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        match self.format {
            Format::Rows => self.rows(record.value(), ctx),
            Format::Json => self.json(record.value(), ctx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::testing::OperatorTest;

    fn binary(auction: u64, price: u64) -> Vec<u8> {
        let mut event: Vec<u8> = [auction, 767, price, 1_700_000_000_000].iter().flat_map(|word| word.to_le_bytes()).collect();
        event.extend(b"\x05Apple\x10a706dd2f4d197e6f");
        event
    }

    fn json(auction: u64, price: u64) -> String {
        format!(
            r#"{{"auction":{auction},"bidder":767,"price":{price},"channel":"Apple","dateTime":1700000000000,"extra":"a706dd2f4d197e6f"}}"#
        )
    }

    #[test]
    fn what_passes_is_converted_and_otherwise_the_same() {
        let mut t = OperatorTest::<Convert>::new();
        t.send("k", binary(123, 2_273_011), 5);
        t.send("k", binary(124, 2_273_011), 5);
        t.send("k", binary(0, 1), 5);
        let passed: Vec<_> = t.outputs("main").iter().map(|row| row.value.clone()).collect();
        assert_eq!(passed, [Some(binary(123, 2_063_893)), Some(binary(0, 0))]);
        assert_eq!((&t.outputs("main")[0].key[..], t.outputs("main")[0].timestamp), (&b"k"[..], Some(5)));

        let mut t = OperatorTest::<Convert>::new().option("format", "json");
        t.send("k", json(246, 2_273_011), 5);
        t.send("k", json(245, 2_273_011), 5);
        assert_eq!(t.texts("main"), [json(246, 2_063_893)]);
    }

    #[test]
    fn without_the_filter_everything_passes() {
        let mut t = OperatorTest::<Convert>::new().option("filter", "false");
        t.send("k", binary(124, 1000), 5);
        assert_eq!(t.outputs("main")[0].value, Some(binary(124, 908)));
    }

    #[test]
    fn what_is_no_event_is_rejected() {
        let mut t = OperatorTest::<Convert>::new();
        t.send("k", [0; 31], 5);
        assert_eq!(t.rejected()[0].reason, "an event has at least 32 bytes, this one has 31");
        let mut t = OperatorTest::<Convert>::new().option("format", "json");
        for bad in [
            "",
            "{}",
            r#"{"auction":1}"#,
            r#"{"auction":"x","price":1}"#,
            r#"{"auction":1,"price":-1}"#,
            r#"{"auction":1,"price":1.5}"#,
        ] {
            t.send("k", bad, 5);
        }
        assert_eq!(t.rejected().len(), 6);
        assert!(t.texts("main").is_empty());
    }
}
