//! The events of the benchmark specification, bit for bit: event i is a function of i and of nothing that ran before it.
//!
//! Written for speed, because the generator's share is part of every measurement: a record is put together in a small array,
//! numbers are written eight digits at a time, and a row leaves in one copy. No allocation, no formatting machinery.

use tidegate_core::row::HEADER_BYTES;

/// Event time of event 0.
pub const TIME_BASE_MS: i64 = 1_700_000_000_000;

/// splitmix64 of x.
#[inline]
pub fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const CHANNELS: [(&[u8; 8], u8); 4] = [(b"Google\0\0", 6), (b"Facebook", 8), (b"Baidu\0\0\0", 5), (b"Apple\0\0\0", 5)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub auction: u64,
    pub bidder: u64,
    pub price: u64,
    channel: u8,
    pub extra: u64,
}

impl Event {
    pub fn channel(&self) -> &'static [u8] {
        let (name, len) = CHANNELS[usize::from(self.channel)];
        &name[..usize::from(len)]
    }
}

/// `x % divisor` for x below 2^63 by a multiplication: a division costs more than the rest of the record's number work.
#[derive(Debug, Clone, Copy)]
struct Modulus {
    divisor: u64,
    reciprocal: u64,
}

impl Modulus {
    fn new(divisor: u64) -> Self {
        assert!(divisor > 0, "BUG: a modulus of 0");
        Self { divisor, reciprocal: u64::MAX / divisor }
    }

    #[inline]
    fn of(self, x: u64) -> u64 {
        // The estimate is the quotient or one less: x / 2^64 < 1/2 times the reciprocal's error of less than 2.
        let quotient = ((u128::from(x) * u128::from(self.reciprocal)) >> 64) as u64;
        let rest = x - quotient * self.divisor;
        if rest >= self.divisor { rest - self.divisor } else { rest }
    }
}

/// What makes events of one configuration differ from those of another.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    keys: Modulus,
    /// 0 for the events of the specification; otherwise xored into the index before it is mixed.
    scramble: u64,
    /// Events below this number have their own number as the bidder.
    prefill: u64,
}

impl Recipe {
    pub fn new(keys: u64, seed: u64, prefill: bool) -> Self {
        Self {
            keys: Modulus::new(keys),
            scramble: if seed == 0 { 0 } else { mix(seed) },
            prefill: if prefill { keys } else { 0 },
        }
    }

    pub fn keys(&self) -> u64 {
        self.keys.divisor
    }

    #[inline]
    pub fn event(&self, i: u64) -> Event {
        let h0 = mix(i ^ self.scramble);
        let h1 = mix(h0);
        Event {
            auction: (h1 & 0x7fff_ffff) % 10_000,
            bidder: self.bidder_of(i, h0),
            price: 100 + (h1 >> 32) % 9_999_900,
            channel: (h0 >> 62) as u8,
            extra: h1,
        }
    }

    /// The bidder alone, for the forms that need no more.
    #[inline]
    pub fn bidder(&self, i: u64) -> u64 {
        self.bidder_of(i, mix(i ^ self.scramble))
    }

    #[inline]
    fn bidder_of(&self, i: u64, h0: u64) -> u64 {
        if i < self.prefill { i } else { self.keys.of(h0 >> 1) }
    }
}

/// Event time that follows the index: `base + i / per_ms`, for indices that grow by a fixed step, without dividing.
#[derive(Debug, Clone, Copy)]
pub struct EventClock {
    pub now_ms: i64,
    rest: u64,
    per_ms: u64,
    step_ms: i64,
    step_rest: u64,
}

impl EventClock {
    pub fn new(i: u64, step: u64, per_ms: u64) -> Self {
        Self {
            now_ms: TIME_BASE_MS + (i / per_ms) as i64,
            rest: i % per_ms,
            per_ms,
            step_ms: (step / per_ms) as i64,
            step_rest: step % per_ms,
        }
    }

    #[inline]
    pub fn advance(&mut self) {
        self.now_ms += self.step_ms;
        self.rest += self.step_rest;
        if self.rest >= self.per_ms {
            self.rest -= self.per_ms;
            self.now_ms += 1;
        }
    }
}

/// Greatest length of a record in any form, its row header and key included.
pub const RECORD_BYTES_MAX: usize = 192;

/// Where records are put together, and the decimal digits of the last event time: it changes once in a thousand records.
pub struct Scratch {
    bytes: [u8; RECORD_BYTES_MAX],
    time_ms: i64,
    time_digits: [u8; 16],
    time_len: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { bytes: [0; RECORD_BYTES_MAX], time_ms: i64::MIN, time_digits: [0; 16], time_len: 0 }
    }
}

/// A row in the making: a position that stays in a register.
struct RowWriter<'a> {
    bytes: &'a mut [u8; RECORD_BYTES_MAX],
    len: usize,
    value_start: usize,
}

impl<'a> RowWriter<'a> {
    /// Starts a row: `u32 key length | flags`, `u32 value length` (filled in by [`Self::end`]), timestamp, key.
    #[inline]
    fn begin(bytes: &'a mut [u8; RECORD_BYTES_MAX], key: Option<u64>, timestamp: i64) -> Self {
        bytes[..8].copy_from_slice(&if key.is_some() { 8u64 } else { 0 }.to_le_bytes());
        bytes[8..HEADER_BYTES].copy_from_slice(&timestamp.to_le_bytes());
        // Written in any case; without a key the value is put over it.
        bytes[HEADER_BYTES..HEADER_BYTES + 8].copy_from_slice(&key.unwrap_or(0).to_le_bytes());
        let value_start = HEADER_BYTES + if key.is_some() { 8 } else { 0 };
        Self { bytes, len: value_start, value_start }
    }

    #[inline]
    fn end(self) -> &'a [u8] {
        self.bytes[4..8].copy_from_slice(&((self.len - self.value_start) as u32).to_le_bytes());
        &self.bytes[..self.len]
    }

    /// Appends the row. A copy of a fixed length is a few moves where one of any length is a call; what is too much is cut off.
    #[inline]
    fn append<const N: usize>(self, out: &mut Vec<u8>) {
        let (whole, len) = (out.len() + self.len, self.len);
        if len > N {
            out.extend_from_slice(self.end());
            return;
        }
        self.bytes[4..8].copy_from_slice(&((len - self.value_start) as u32).to_le_bytes());
        out.extend_from_slice(self.bytes.first_chunk::<N>().expect("BUG: a copy longer than a record can be"));
        out.truncate(whole);
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.put_padded(bytes, N);
    }

    /// Writes N bytes of which `len` count.
    #[inline]
    fn put_padded<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        self.bytes[self.len..self.len + N].copy_from_slice(bytes);
        self.len += len;
    }

    #[inline]
    fn put_u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    #[inline]
    fn put_number(&mut self, number: u64) {
        if number < 100_000_000 {
            let (digits, len) = short_number(number);
            self.put_padded(&digits, len);
        } else {
            let (digits, len) = long_number(number);
            self.put_padded(&digits, len);
        }
    }

    #[inline]
    fn put_hex(&mut self, word: u64) {
        self.put(&eight_hex_digits((word >> 32) as u32).to_be_bytes());
        self.put(&eight_hex_digits(word as u32).to_be_bytes());
    }

    #[inline]
    fn put_channel(&mut self, event: &Event) {
        let (name, len) = CHANNELS[usize::from(event.channel & 3)];
        self.put_padded(name, usize::from(len));
    }
}

impl Scratch {
    #[inline]
    pub fn json(&mut self, event: &Event, key: Option<u64>, time_ms: i64, out: &mut Vec<u8>) {
        if self.time_ms != time_ms {
            let (digits, len) = long_number(time_ms as u64);
            self.time_ms = time_ms;
            self.time_digits.copy_from_slice(&digits[..16]);
            self.time_len = len;
        }
        let mut row = RowWriter::begin(&mut self.bytes, key, time_ms);
        row.put(b"{\"auction\":");
        row.put_number(event.auction);
        row.put(b",\"bidder\":");
        row.put_number(event.bidder);
        row.put(b",\"price\":");
        row.put_number(event.price);
        row.put(b",\"channel\":\"");
        row.put_channel(event);
        row.put(b"\",\"dateTime\":");
        row.put_padded(&self.time_digits, self.time_len);
        row.put(b",\"extra\":\"");
        row.put_hex(event.extra);
        row.put(b"\"}");
        row.append::<160>(out);
    }

    #[inline]
    pub fn binary(&mut self, event: &Event, key: Option<u64>, time_ms: i64, out: &mut Vec<u8>) {
        let mut row = RowWriter::begin(&mut self.bytes, key, time_ms);
        row.put_u64(event.auction);
        row.put_u64(event.bidder);
        row.put_u64(event.price);
        row.put_u64(time_ms as u64);
        row.put(&[CHANNELS[usize::from(event.channel & 3)].1]);
        row.put_channel(event);
        row.put(&[16]);
        row.put_hex(event.extra);
        row.append::<96>(out);
    }

    #[inline]
    pub fn word(&mut self, word: u64, key: Option<u64>, time_ms: i64, out: &mut Vec<u8>) {
        let mut row = RowWriter::begin(&mut self.bytes, key, time_ms);
        row.put_u64(word);
        row.append::<32>(out);
    }
}

/// The digits of a number below 10^8, and how many there are.
#[inline]
fn short_number(number: u64) -> ([u8; 8], usize) {
    let digits = eight_digits(number);
    // The last digit stays, whatever it is.
    let zeros = ((digits & 0x0f0f_0f0f_0f0f_0f0f) | (1 << 56)).trailing_zeros() / 8;
    ((digits >> (zeros * 8)).to_le_bytes(), 8 - zeros as usize)
}

/// The digits of any number, and how many there are.
#[inline(never)]
fn long_number(mut number: u64) -> ([u8; 24], usize) {
    let mut whole = [0; 24];
    for end in [24, 16, 8] {
        whole[end - 8..end].copy_from_slice(&eight_digits(number % 100_000_000).to_le_bytes());
        number /= 100_000_000;
    }
    let zeros = whole.iter().take(23).take_while(|digit| **digit == b'0').count();
    let mut digits = [0; 24];
    digits[..24 - zeros].copy_from_slice(&whole[zeros..]);
    (digits, 24 - zeros)
}

/// Eight decimal digits as ASCII, the first in the lowest byte. Halves, quarters and single digits are split side by side.
#[inline]
fn eight_digits(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | ((twos - tens * 10) << 8);
    ones | 0x3030_3030_3030_3030
}

/// Eight lower-case hex digits as ASCII, the first in the highest byte.
#[inline]
fn eight_hex_digits(word: u32) -> u64 {
    let x = u64::from(word);
    let x = (x | (x << 16)) & 0x0000_ffff_0000_ffff;
    let x = (x | (x << 8)) & 0x00ff_00ff_00ff_00ff;
    let x = (x | (x << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    // Bit 4 of a nibble plus six is set for ten and above: those stand 39 further on ('a' - '0' - 10).
    let letters = ((x + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    x + 0x3030_3030_3030_3030 + letters * 39
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        let expected =
            [0xe220_a839_7b1d_cdaf, 0x910a_2dec_8902_5cc1, 0x9758_35de_1c97_56ce, 0x1d0b_14e4_db01_8fed, 0x6e73_e372_e233_8aca];
        for (x, expected) in expected.into_iter().enumerate() {
            assert_eq!(mix(x as u64), expected);
        }
    }

    #[test]
    fn the_modulus_agrees_with_the_division() {
        let mut x = 1u64;
        for divisor in [1, 2, 3, 7, 1000, 1_000_000, 10_000_000, (1 << 62) - 57, 1 << 62, u64::MAX >> 1] {
            let modulus = Modulus::new(divisor);
            for _ in 0..2000 {
                x = mix(x);
                assert_eq!(modulus.of(x >> 1), (x >> 1) % divisor);
            }
            for edge in [0, 1, divisor - 1, divisor & (u64::MAX >> 1), u64::MAX >> 1] {
                assert_eq!(modulus.of(edge), edge % divisor);
            }
        }
    }

    #[test]
    fn numbers_and_hex_are_written_as_the_standard_library_would() {
        let check = |number: u64| {
            let mut bytes = [0; RECORD_BYTES_MAX];
            let mut row = RowWriter::begin(&mut bytes, Some(1), 2);
            row.put_number(number);
            row.put_hex(number);
            assert_eq!(row.end()[24..], *format!("{number}{number:016x}").as_bytes());
        };
        for power in 0..20 {
            let ten = 10u64.pow(power);
            [ten - 1, ten, ten + 1].into_iter().for_each(check);
        }
        (0..20_000).for_each(check);
        (0..20_000).map(mix).for_each(check);
        check(u64::MAX);
        for four in 0..10_000u64 {
            assert_eq!(
                eight_digits(four * 10_000 + 9999 - four).to_le_bytes(),
                *format!("{:08}", four * 10_000 + 9999 - four).as_bytes()
            );
        }
    }

    #[test]
    fn the_clock_agrees_with_the_division() {
        for (step, per_ms) in [(1, 1000), (2, 1000), (7, 3), (1, 1), (5000, 7), (4, 1000)] {
            let mut clock = EventClock::new(3, step, per_ms);
            for n in 0..5000 {
                assert_eq!(clock.now_ms, TIME_BASE_MS + ((3 + n * step) / per_ms) as i64);
                clock.advance();
            }
        }
    }
}
