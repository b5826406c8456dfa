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
                ctx.emit_with(Self::MAIN, |out| write!(out, r#"{{"bidder":{},"count":{count},"sum":{sum}}}"#, bid.bidder))?;
            }
        }
        Ok(())
    }
}
