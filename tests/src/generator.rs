//! The events of the generator source, written out a second time from the benchmark's specification.

/// splitmix64 of x.
pub fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub auction: u64,
    pub bidder: u64,
    pub price: u64,
}

/// Event i of a generator with this many keys and `seed = 0`.
pub fn event(i: u64, keys: u64) -> Event {
    let h0 = mix(i);
    let h1 = mix(h0);
    Event { auction: (h1 & 0x7fff_ffff) % 10_000, bidder: (h0 >> 1) % keys, price: 100 + (h1 >> 32) % 9_999_900 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_those_of_the_specification() {
        let known = [(6399, 767, 2_273_011), (7470, 232, 1_377_828), (2452, 55, 4_573_779), (5015, 526, 7_648_112)];
        for (i, (auction, bidder, price)) in (0..).zip(known) {
            assert_eq!(event(i, 1000), Event { auction, bidder, price });
        }
        assert_eq!([mix(0), mix(4)], [0xe220_a839_7b1d_cdaf, 0x6e73_e372_e233_8aca]);
    }
}
