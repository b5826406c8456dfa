//! What an output checker needs that trusts nobody: each output carries its key's ordinal, the sum, and a hash of all inputs of the key so
//! far, in their order. Reads the generator's binary events, and a second input whose rows are none and are refused.
//!
//! With `window_ms` a timer of event time at the end of each window tells how many records of the key came since the last one; with
//! `reject_every` an event whose price is a multiple of it is refused.

use tidegate_sdk::prelude::*;

#[operator(keyed, inputs = 2)]
pub struct ChainTotals {
    /// Ordinal, sum, hash.
    chain: ValueState<(u64, u64, u64)>,
    /// Records that no timer has told of.
    untold: ValueState<u64>,
    #[config(default = 0)]
    window_ms: i64,
    #[config(default = 0)]
    reject_every: u64,
}

/// splitmix64 of x.
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Operator for ChainTotals {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let Some(head) = record.value().first_chunk::<32>() else { reject!("not an event") };
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let (bidder, price, time) = (word(8), word(16), word(24) as i64);
        let (count, sum, chain) = self.chain.get(ctx);
        let (count, sum, chain) = (count + 1, sum.wrapping_add(price), mix(chain ^ price));
        // Written before it is refused: a rejected record must leave nothing behind.
        self.chain.set(ctx, (count, sum, chain));
        if self.reject_every > 0 && price.is_multiple_of(self.reject_every) {
            reject!("the price {price}");
        }
        ctx.emit_with(Self::MAIN, |out| write!(out, "{bidder} {count} {sum} {chain}"))?;
        if self.window_ms > 0 {
            let untold = self.untold.get(ctx);
            self.untold.set(ctx, untold + 1);
            let ends = time - time.rem_euclid(self.window_ms) + self.window_ms - 1;
            ctx.set_timer(TimeDomain::EventTime, ends, 0);
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let untold = self.untold.get(ctx);
        if untold > 0 {
            self.untold.set(ctx, 0);
            let Some(key) = timer.key.first_chunk::<8>() else { reject!("not a key of the generator") };
            let bidder = u64::from_le_bytes(*key);
            ctx.emit_with(Self::MAIN, |out| write!(out, "{bidder} told {untold}"))?;
        }
        Ok(())
    }
}
