//! Workload ws: a value of `value_bytes` bytes for each key, rewritten whole for every record. Its first eight bytes count.

use tidegate_sdk::prelude::*;

#[operator(keyed)]
pub struct Ws {
    state: ValueState<Vec<u8>>,
    #[config(default = 1000)]
    value_bytes: usize,
}

impl Operator for Ws {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let Ok(event) = <[u8; 8]>::try_from(record.value()) else { reject!("an event of this workload has 8 bytes") };
        let Ok(key) = <[u8; 8]>::try_from(ctx.key()) else { reject!("a key of this workload has 8 bytes") };
        let mut value = self.state.get(ctx);
        value.resize(self.value_bytes.max(8), 0);
        let counter = 1 + u64::from_le_bytes(std::array::from_fn(|i| value[i]));
        fill(&mut value, u64::from_le_bytes(event));
        value[..8].copy_from_slice(&counter.to_le_bytes());
        self.state.set(ctx, value);
        let mut out = [0; 24];
        out[..8].copy_from_slice(&key);
        out[8..16].copy_from_slice(&counter.to_le_bytes());
        ctx.emit(out);
        Ok(())
    }
}

/// Bytes that do not compress.
fn fill(value: &mut [u8], seed: u64) {
    let mut state = seed;
    for chunk in value.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}
