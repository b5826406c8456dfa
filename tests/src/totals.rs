//! A checker of running totals that trusts nobody: it knows the events, and that a key's records are counted and summed one after
//! the other. From (bidder, count, sum) for every record it follows the chain of each key from its first record to its last.
//!
//! What has to hold, for each bidder:
//! * the counts are 1, 2, 3, … without a gap (a gap: lost) and without a repeat (a repeat: duplicated);
//! * the sum grows from one count to the next by the price of exactly one event of this bidder, each event once;
//! * at most once, events may be missing: then the last counts are, and nothing in front of them;
//! * events of one split of the source come in the order of the split. Between splits there is no order.

use crate::generator::event;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What the job read.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    pub records: u64,
    pub keys: u64,
    pub splits: u64,
}

/// One emitted record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    pub bidder: u64,
    pub count: u64,
    pub sum: u64,
}

impl Total {
    /// `{"bidder":1,"count":2,"sum":3}`
    pub fn from_json(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
        let field = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("no number {name}: {line}"));
        Self { bidder: field("bidder"), count: field("count"), sum: field("sum") }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub records: u64,
    pub lost: u64,
    /// Of the lost ones, those that a later count of their key stands behind: output is missing that the state has.
    pub gaps: u64,
    pub duplicated: u64,
    /// What else is wrong; the first few.
    pub wrong: Vec<String>,
}

impl Verdict {
    pub fn is_exactly_once(&self) -> bool {
        (self.lost, self.duplicated, self.wrong.len()) == (0, 0, 0)
    }

    /// Each event counts once or not at all, in state and output alike.
    pub fn is_at_most_once(&self) -> bool {
        (self.gaps, self.duplicated, self.wrong.len()) == (0, 0, 0)
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < 10 {
            self.wrong.push(what);
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records, {} lost, {} duplicated", self.records, self.lost, self.duplicated)?;
        self.wrong.iter().try_for_each(|what| write!(f, "\n  {what}"))
    }
}

pub fn check(input: Input, totals: impl IntoIterator<Item = Total>) -> Verdict {
    let mut verdict = Verdict::default();
    // Event numbers by price, for each bidder. Prices of one bidder can repeat.
    let mut events: Vec<HashMap<u64, Vec<u64>>> = vec![HashMap::new(); input.keys as usize];
    let mut expected = vec![0u64; input.keys as usize];
    for i in 0..input.records {
        let event = event(i, input.keys);
        events[event.bidder as usize].entry(event.price).or_default().push(i);
        expected[event.bidder as usize] += 1;
    }
    let mut chains: Vec<BTreeMap<u64, u64>> = vec![BTreeMap::new(); input.keys as usize];
    for total in totals {
        verdict.records += 1;
        let Some(chain) = chains.get_mut(total.bidder as usize) else {
            verdict.wrong(format!("there is no bidder {}", total.bidder));
            continue;
        };
        if let Some(before) = chain.insert(total.count, total.sum) {
            verdict.duplicated += 1;
            if before != total.sum {
                verdict.wrong(format!("bidder {} has count {} with sums {before} and {}", total.bidder, total.count, total.sum));
            }
        }
    }
    for (bidder, (chain, events)) in chains.iter().zip(&mut events).enumerate() {
        let expected = expected[bidder];
        let found = chain.range(1..=expected).count() as u64;
        verdict.lost += expected - found;
        verdict.gaps += chain.keys().next_back().copied().unwrap_or(0).saturating_sub(chain.len() as u64);
        if found != chain.len() as u64 {
            verdict.wrong(format!("bidder {bidder} has {expected} events and counts up to {:?}", chain.keys().next_back()));
        }
        follow(bidder, chain, events, input.splits, &mut verdict);
    }
    verdict
}

/// Which event made each step of a chain.
fn follow(bidder: usize, chain: &BTreeMap<u64, u64>, events: &mut HashMap<u64, Vec<u64>>, splits: u64, verdict: &mut Verdict) {
    let mut last = vec![None; splits as usize];
    let mut before = (0, 0);
    // Where two events of a bidder have one price, nobody can say which of them came first.
    let ambiguous: HashSet<u64> = events.iter().filter(|(_, events)| events.len() > 1).map(|(price, _)| *price).collect();
    for (&count, &sum) in chain {
        if count != before.0 + 1 {
            // A gap was told as lost; behind it the chain can't be followed.
            return;
        }
        let price = sum.wrapping_sub(before.1);
        let Some(event) = events.get_mut(&price).and_then(Vec::pop) else {
            return verdict
                .wrong(format!("bidder {bidder}: count {count} adds {price}, the price of none of its events that are left"));
        };
        before = (count, sum);
        if ambiguous.contains(&price) {
            continue;
        }
        let split = (event % splits) as usize;
        if last[split] > Some(event) {
            return verdict.wrong(format!("bidder {bidder}: event {event} of split {split} comes after event {:?}", last[split]));
        }
        last[split] = Some(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: Input = Input { records: 2000, keys: 7, splits: 2 };

    /// The right answer, with the splits interleaved so that split 1 runs ahead.
    fn right() -> Vec<Total> {
        let (even, odd): (Vec<u64>, Vec<u64>) = (0..INPUT.records).partition(|i| i % 2 == 0);
        let mut sums: HashMap<u64, (u64, u64)> = HashMap::new();
        let order = odd.chunks(100).zip(even.chunks(100)).flat_map(|(odd, even)| odd.iter().chain(even));
        let total = |i: &u64| {
            let event = event(*i, INPUT.keys);
            let (count, sum) = sums.entry(event.bidder).or_default();
            (*count, *sum) = (*count + 1, *sum + event.price);
            Total { bidder: event.bidder, count: *count, sum: *sum }
        };
        order.map(total).collect()
    }

    #[test]
    fn the_right_answer_is_exactly_once() {
        let verdict = check(INPUT, right());
        assert!(verdict.is_exactly_once(), "{verdict}");
        assert_eq!(verdict.records, 2000);
    }

    #[test]
    fn a_missing_record_is_lost_wherever_it_stood() {
        for at in [0, 1000, 1999] {
            let mut totals = right();
            totals.remove(at);
            assert_eq!(check(INPUT, totals).lost, 1);
        }
    }

    /// As after a restart that goes on behind some records.
    #[test]
    fn events_that_never_came_are_lost_and_leave_no_gap() {
        let mut sums = (0, 0);
        let came = (0..INPUT.records).filter(|i| event(*i, INPUT.keys).bidder == 3).enumerate();
        let came = came.filter(|(n, _)| !(40..60).contains(n)).map(|(_, i)| event(i, INPUT.keys));
        let mut totals: Vec<_> = right().into_iter().filter(|total| total.bidder != 3).collect();
        totals.extend(came.map(|event| {
            sums = (sums.0 + 1, sums.1 + event.price);
            Total { bidder: 3, count: sums.0, sum: sums.1 }
        }));
        let verdict = check(INPUT, totals.clone());
        assert!(verdict.is_at_most_once() && verdict.lost == 20, "{verdict}");
        totals.retain(|total| (total.bidder, total.count) != (3, 50));
        assert!(!check(INPUT, totals).is_at_most_once(), "state and output must agree");
    }

    #[test]
    fn an_event_that_counts_twice_is_not_at_most_once() {
        let mut totals = right();
        let last = *totals.iter().rfind(|total| total.bidder == 3).expect("it has events");
        let again = event((0..INPUT.records).find(|i| event(*i, INPUT.keys).bidder == 3).expect("it has events"), INPUT.keys);
        // The last of its events is lost, and the first comes in its place once more.
        let before = totals.iter().find(|total| (total.bidder, total.count) == (3, last.count - 1)).expect("it has many").sum;
        totals.retain(|total| *total != last);
        totals.push(Total { sum: before + again.price, ..last });
        assert!(!check(INPUT, totals).is_at_most_once());
    }

    #[test]
    fn a_repeated_record_is_duplicated() {
        let mut totals = right();
        totals.push(totals[1234]);
        let verdict = check(INPUT, totals);
        assert_eq!((verdict.lost, verdict.duplicated), (0, 1));
    }

    #[test]
    fn a_record_that_is_counted_twice_in_state_does_not_pass() {
        let mut totals = right();
        let bidder = totals[500].bidder;
        // As after a restore that repeats a record on state that has it already: everything later counts one more.
        for total in totals.iter_mut().skip(500).filter(|total| total.bidder == bidder) {
            total.count += 1;
            total.sum += 100;
        }
        assert!(!check(INPUT, totals).is_exactly_once());
    }

    #[test]
    fn a_split_out_of_order_does_not_pass() {
        let mut sums = (0, 0);
        let events: Vec<u64> = (0..INPUT.records).filter(|i| event(*i, INPUT.keys).bidder == 3).collect();
        let mut swapped = events.clone();
        let second = (1..events.len()).find(|i| events[*i] % 2 == events[0] % 2).expect("two of a split");
        swapped.swap(0, second);
        let mut totals: Vec<_> = right().into_iter().filter(|total| total.bidder != 3).collect();
        totals.extend(swapped.iter().map(|i| {
            sums = (sums.0 + 1, sums.1 + event(*i, INPUT.keys).price);
            Total { bidder: 3, count: sums.0, sum: sums.1 }
        }));
        let verdict = check(INPUT, totals);
        assert!(verdict.wrong.iter().any(|what| what.contains("comes after")), "{verdict}");
    }
}
