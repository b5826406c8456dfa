//! Count and sum of the bids of each bidder, emitted for every bid: workload w2 of the benchmark.
//!
//! `format = "rows"` reads the benchmark's binary events (auction, bidder, price, dateTime as `u64`, little endian, then text that
//! is of no interest here) and writes bidder, count and sum as three `u64`. `format = "json"` reads and writes one flat JSON
//! object for each record.

mod json;

use tidegate_sdk::prelude::*;

#[operator(keyed)]
pub struct RunningTotals {
    totals: ValueState<(u64, u64)>,
    #[config(default = Format::Rows)]
    format: Format,
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

/// The numbers of a binary event.
struct Bid {
    bidder: u64,
    price: u64,
}

impl Bid {
    const BYTES: usize = 32;

    #[inline]
    fn from_rows(value: &[u8]) -> Result<Self, RecordError> {
        let Some(head) = value.first_chunk::<{ Self::BYTES }>() else {
            reject!("an event has at least {} bytes, this one has {}", Self::BYTES, value.len());
        };
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        Ok(Self { bidder: word(8), price: word(16) })
    }

    #[inline]
    fn from_json(value: &[u8]) -> Result<Self, RecordError> {
        let (mut bidder, mut price) = (None, None);
        for field in json::fields(value) {
            let (name, content) = field?;
            match name {
                b"bidder" => bidder = Some(json::number(content)?),
                b"price" => price = Some(json::number(content)?),
                _ => {}
            }
        }
        match (bidder, price) {
            (Some(bidder), Some(price)) => Ok(Self { bidder, price }),
            _ => reject!("bidder and price are needed"),
        }
    }
}

impl Operator for RunningTotals {
    #[inline]
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let bid = match self.format {
            Format::Rows => Bid::from_rows(record.value())?,
            Format::Json => Bid::from_json(record.value())?,
        };
        let (count, sum) = self.totals.get(ctx);
        let (count, sum) = (count + 1, sum.wrapping_add(bid.price));
        self.totals.set(ctx, (count, sum));
        match self.format {
            Format::Rows => {
                let mut out = [0; 24];
                out[..8].copy_from_slice(&bid.bidder.to_le_bytes());
                out[8..16].copy_from_slice(&count.to_le_bytes());
                out[16..].copy_from_slice(&sum.to_le_bytes());
                ctx.emit(out);
            }
            Format::Json => {
                ctx.emit_with(Self::MAIN, |out| {
                    out.text(r#"{"bidder":"#).number(bid.bidder).text(r#","count":"#).number(count);
                    out.text(r#","sum":"#).number(sum).text("}");
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::testing::OperatorTest;

    fn binary(bidder: u64, price: u64) -> Vec<u8> {
        let mut event: Vec<u8> = [6399, bidder, price, 1_700_000_000_000].iter().flat_map(|word| word.to_le_bytes()).collect();
        event.extend(b"\x05Apple\x10a706dd2f4d197e6f");
        event
    }

    fn total(bidder: u64, count: u64, sum: u64) -> Option<Vec<u8>> {
        Some([bidder, count, sum].iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    #[test]
    fn every_bid_gives_the_totals_so_far() {
        let mut t = OperatorTest::<RunningTotals>::new();
        let (a, b, bad) = (7_u64.to_le_bytes(), 8_u64.to_le_bytes(), vec![0; 31]);
        let events = [(a, binary(7, 100)), (b, binary(8, 1)), (a, bad), (a, binary(7, 23))];
        let rows = events.each_ref().map(|(key, event)| Row { key, value: Some(event), ..Row::default() });
        t.send_batch(&rows);
        let totals: Vec<_> = t.outputs("main").iter().map(|row| row.value.clone()).collect();
        assert_eq!(totals, [total(7, 1, 100), total(8, 1, 1), total(7, 2, 123)]);
        assert_eq!(t.rejected()[0].reason, "an event has at least 32 bytes, this one has 31");
        assert_eq!(t.value("totals", a), Some((2_u64, 123_u64)));
    }

    #[test]
    fn json_events_give_the_same_totals() {
        let mut t = OperatorTest::<RunningTotals>::new().option("format", "json").amnesia();
        let event = r#"{"auction":6399,"bidder":767,"price":2273011,"channel":"Apple","dateTime":1700000000000,"extra":"a7"}"#;
        t.send("767", event, 0);
        t.send("767", r#"{"bidder":767}"#, 0);
        t.send("767", event, 0);
        assert_eq!(t.texts("main"), [r#"{"bidder":767,"count":1,"sum":2273011}"#, r#"{"bidder":767,"count":2,"sum":4546022}"#]);
        assert_eq!(t.rejected()[0].reason, "bidder and price are needed");
    }
}
