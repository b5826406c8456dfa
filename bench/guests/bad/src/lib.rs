//! Workload w2bad: count and sum of each key, as in w2, of events of which some are bad.

use tidegate_sdk::prelude::*;

#[operator(keyed)]
pub struct Bad {
    totals: ValueState<(u64, u64)>,
    /// Events whose auction is a multiple of this are bad; 0: none.
    #[config(default = 0)]
    bad_one_in: u64,
    /// Bad events end in a trap, and are not rejected.
    #[config(default = false)]
    traps: bool,
}

impl Operator for Bad {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let Some(head) = record.value().first_chunk::<24>() else { reject!("an event has at least 24 bytes") };
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let (auction, bidder, price) = (word(0), word(8), word(16));
        let (count, sum) = self.totals.get(ctx);
        let (count, sum) = (count + 1, sum.wrapping_add(price));
        // The state is written first, so that there is something to undo.
        self.totals.set(ctx, (count, sum));
        if self.bad_one_in > 0 && auction.is_multiple_of(self.bad_one_in) {
            if self.traps {
                std::process::abort();
            }
            reject!("auction {auction} is bad");
        }
        let mut out = [0; 24];
        out[..8].copy_from_slice(&bidder.to_le_bytes());
        out[8..16].copy_from_slice(&count.to_le_bytes());
        out[16..].copy_from_slice(&sum.to_le_bytes());
        ctx.emit(out);
        Ok(())
    }
}
