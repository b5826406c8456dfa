//! What an engine should have computed, computed without it.
//!
//! The events of the specification, made again from nothing but their numbers: this file shares no code with the generator that
//! the engines read from, so that a mistake there can't hide here. It runs after the measurement, on all cores.
//!
//! Invariant: event `i` is a function of `i` and the number of keys alone.

use crate::plan::{RunPlan, Workload};
use std::num::NonZero;
use std::ops::Range;

/// splitmix64 of `x`.
pub fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The fields that the workloads look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bid {
    auction: u64,
    bidder: u64,
    price: u64,
}

#[derive(Debug, Clone, Copy)]
struct Generator {
    keys: u64,
    /// Events below this number have their own number as bidder.
    prefill: u64,
}

impl Generator {
    fn bid(self, i: u64) -> Bid {
        let h0 = mix(i);
        let h1 = mix(h0);
        let bidder = if i < self.prefill { i } else { (h0 >> 1) % self.keys };
        Bid { auction: (h1 & 0x7fff_ffff) % 10_000, bidder, price: 100 + (h1 >> 32) % 9_999_900 }
    }
}

/// The digest of the run: of the first records of each split, split `s` of P holding the events `local * P + s`. None where a
/// workload has none.
pub fn digest(plan: &RunPlan, records_by_split: &[u64]) -> Option<String> {
    let generator = Generator { keys: plan.keys, prefill: plan.prefill() };
    let all = |_: &Bid| true;
    let one_in_123 = |bid: &Bid| bid.auction.is_multiple_of(123);
    match plan.workload {
        Workload::W0 => Some(records_by_split.iter().sum::<u64>().to_string()),
        Workload::W1 => Some(w1(generator, records_by_split, one_in_123).to_string()),
        Workload::W1map => Some(w1(generator, records_by_split, all).to_string()),
        Workload::W2 => Some(state_text(&counts_and_sums(generator, records_by_split, all, |bid| bid.price))),
        Workload::W2bad => {
            let one_in = plan.bad.one_in;
            let good = move |bid: &Bid| one_in == 0 || !bid.auction.is_multiple_of(one_in);
            Some(state_text(&counts_and_sums(generator, records_by_split, good, |bid| bid.price)))
        }
        // The state of a key is a counter, and noise that follows from it.
        Workload::Ws => Some(state_text(&counts_and_sums(generator, records_by_split, all, |_| 0))),
        Workload::Cold => None,
    }
}

/// What came out of w1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Passed {
    records: u64,
    /// Of the converted prices.
    sum: u64,
}

impl std::fmt::Display for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.records, self.sum)
    }
}

fn w1(generator: Generator, records_by_split: &[u64], passes: impl Fn(&Bid) -> bool + Sync) -> Passed {
    let parts = on_all_cores(records_by_split, threads(), |events| {
        let mut passed = Passed::default();
        events.for_each(|i| {
            let bid = generator.bid(i);
            if passes(&bid) {
                passed.records += 1;
                passed.sum = passed.sum.wrapping_add(bid.price * 908 / 1000);
            }
        });
        passed
    });
    let add = |a: Passed, b: Passed| Passed { records: a.records + b.records, sum: a.sum.wrapping_add(b.sum) };
    parts.into_iter().fold(Passed::default(), add)
}

#[derive(Debug, Clone, Copy, Default)]
struct CountAndSum {
    count: u64,
    sum: u64,
}

fn counts_and_sums(
    generator: Generator,
    records_by_split: &[u64],
    counts: impl Fn(&Bid) -> bool + Sync,
    value: impl Fn(&Bid) -> u64 + Sync,
) -> Vec<CountAndSum> {
    /// Each thread has a table of its own; beyond this one thread has to do.
    const TABLES_BYTES_MAX: u64 = 2 << 30;
    let keys = usize::try_from(generator.keys).expect("BUG: more keys than addresses");
    let table_bytes = generator.keys.saturating_mul(size_of::<CountAndSum>() as u64);
    let threads = if table_bytes.saturating_mul(threads() as u64) <= TABLES_BYTES_MAX { threads() } else { 1 };
    let tables = on_all_cores(records_by_split, threads, |events| {
        let mut table = vec![CountAndSum::default(); keys];
        events.for_each(|i| {
            let bid = generator.bid(i);
            if !counts(&bid) {
                return;
            }
            let entry = &mut table[bid.bidder as usize];
            entry.count += 1;
            entry.sum = entry.sum.wrapping_add(value(&bid));
        });
        table
    });
    let merge = |mut a: Vec<CountAndSum>, b: Vec<CountAndSum>| {
        for (into, from) in a.iter_mut().zip(b) {
            into.count += from.count;
            into.sum = into.sum.wrapping_add(from.sum);
        }
        a
    };
    tables.into_iter().reduce(merge).unwrap_or_default()
}

/// Wrapping sum over the keys that have records.
fn state_digest(table: &[CountAndSum]) -> u64 {
    let entry = |(key, entry): (u64, &CountAndSum)| mix(mix(mix(key).wrapping_add(entry.count)).wrapping_add(entry.sum));
    (0..).zip(table).filter(|(_, entry)| entry.count > 0).map(entry).fold(0, u64::wrapping_add)
}

fn state_text(table: &[CountAndSum]) -> String {
    format!("{:016x}", state_digest(table))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Numbers of the events that one thread takes: a part of each split.
#[derive(Debug, Clone)]
struct Share {
    splits: u64,
    parts: Vec<Range<u64>>,
}

impl Share {
    fn for_each(self, mut work: impl FnMut(u64)) {
        for (split, locals) in (0..).zip(self.parts) {
            locals.for_each(|local| work(local * self.splits + split));
        }
    }
}

fn share(records_by_split: &[u64], thread: usize, threads: usize) -> Share {
    let (thread, threads) = (thread as u128, threads as u128);
    let cut = |records: u64, at: u128| (u128::from(records) * at / threads) as u64;
    let parts = records_by_split.iter().map(|records| cut(*records, thread)..cut(*records, thread + 1)).collect();
    Share { splits: records_by_split.len() as u64, parts }
}

/// Runs `work` on `threads` threads, each over its share of the events.
fn on_all_cores<R: Send>(records_by_split: &[u64], threads: usize, work: impl Fn(Share) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let work = &work;
        let spawn = |thread| {
            let share = share(records_by_split, thread, threads);
            scope.spawn(move || work(share))
        };
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        handles.into_iter().map(|handle| handle.join().expect("BUG: the reference panicked")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn event_json(out: &mut Vec<u8>, keys: u64, i: u64) {
        let h0 = mix(i);
        let Bid { auction, bidder, price } = Generator { keys, prefill: 0 }.bid(i);
        let channel = ["Google", "Facebook", "Baidu", "Apple"][(h0 >> 62) as usize];
        let time = 1_700_000_000_000 + i / 1000;
        let extra = mix(h0);
        write!(
            out,
            r#"{{"auction":{auction},"bidder":{bidder},"price":{price},"channel":"{channel}","dateTime":{time},"extra":"{extra:016x}"}}"#
        )
        .expect("a vector takes everything");
    }

    fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
        bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }

    fn check_json(records: u64, keys: u64, bytes: usize, hash: u64) {
        let (mut total, mut fnv, mut json) = (0, 0xcbf2_9ce4_8422_2325, Vec::new());
        for i in 0..records {
            json.clear();
            event_json(&mut json, keys, i);
            total += json.len();
            fnv = fnv1a(fnv, &json);
        }
        assert_eq!(total, bytes);
        assert_eq!(fnv, hash, "{fnv:x}");
    }

    fn check_digests(records: u64, keys: u64, passed: Passed, distinct: usize, state: u64) {
        let generator = Generator { keys, prefill: 0 };
        assert_eq!(w1(generator, &[records], |bid| bid.auction % 123 == 0), passed);
        let table = counts_and_sums(generator, &[records], |_| true, |bid| bid.price);
        assert_eq!(table.iter().filter(|entry| entry.count > 0).count(), distinct);
        assert_eq!(state_digest(&table), state, "{:x}", state_digest(&table));
    }

    #[test]
    fn mix_is_the_specifications() {
        let expected =
            [0xe220_a839_7b1d_cdaf, 0x910a_2dec_8902_5cc1, 0x9758_35de_1c97_56ce, 0x1d0b_14e4_db01_8fed, 0x6e73_e372_e233_8aca];
        assert_eq!([0, 1, 2, 3, 4].map(mix), expected);
    }

    #[test]
    fn events_are_the_specifications() {
        let expected = [
            r#"{"auction":6399,"bidder":767,"price":2273011,"channel":"Apple","dateTime":1700000000000,"extra":"a706dd2f4d197e6f"}"#,
            r#"{"auction":7470,"bidder":232,"price":1377828,"channel":"Baidu","dateTime":1700000000000,"extra":"5e41ab087439611e"}"#,
            r#"{"auction":2452,"bidder":55,"price":4573779,"channel":"Baidu","dateTime":1700000000000,"extra":"64684c4f0fd784b4"}"#,
            r#"{"auction":5015,"bidder":526,"price":7648112,"channel":"Google","dateTime":1700000000000,"extra":"bccdfd9c96a18897"}"#,
            r#"{"auction":8763,"bidder":989,"price":50160,"channel":"Facebook","dateTime":1700000000000,"extra":"a0567ef80dedf5cb"}"#,
        ];
        for (i, expected) in (0..).zip(expected) {
            let mut json = Vec::new();
            event_json(&mut json, 1000, i);
            assert_eq!(String::from_utf8_lossy(&json), expected);
        }
    }

    #[test]
    fn a_million_events_are_the_specifications() {
        check_json(1_000_000, 1000, 115_669_396, 0xb151_97c4_c6b2_8397);
        check_digests(1_000_000, 1000, Passed { records: 8284, sum: 37_459_610_839 }, 1000, 0xda00_b6a2_8b00_9ff7);
    }

    #[test]
    fn ten_million_events_have_the_specifications_digests() {
        let passed = Passed { records: 81_935, sum: 372_848_028_542 };
        check_digests(10_000_000, 1_000_000, passed, 999_951, 0xf40e_1d70_db74_c96c);
    }

    #[test]
    fn ten_million_events_are_the_specifications() {
        check_json(10_000_000, 1_000_000, 1_186_667_810, 0x9b63_747f_fe21_7e51);
    }

    #[test]
    fn splits_share_the_events_whatever_the_threads() {
        for threads in 1..5 {
            for splits in [vec![10], vec![4, 3, 3], vec![0, 7], vec![1, 0, 0, 0]] {
                let mut events = Vec::new();
                (0..threads).for_each(|thread| share(&splits, thread, threads).for_each(|i| events.push(i)));
                events.sort_unstable();
                let of_split = |s: usize| (0..splits[s]).map(move |local| local * 4 + s as u64);
                let expected_count: u64 = splits.iter().sum();
                assert_eq!(events.len() as u64, expected_count, "{splits:?}");
                if splits.len() == 4 {
                    assert_eq!(events, (0..4).flat_map(of_split).collect::<Vec<_>>());
                }
                if splits == [4, 3, 3] {
                    assert_eq!(events, (0..10).collect::<Vec<_>>(), "splits of one length are the first events");
                }
            }
        }
    }

    #[test]
    fn prefill_touches_every_key_once() {
        let generator = Generator { keys: 1000, prefill: 1000 };
        let table = counts_and_sums(generator, &[500, 500], |_| true, |_| 0);
        assert!(table.iter().all(|entry| entry.count == 1));
    }
}
