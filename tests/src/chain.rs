//! A checker of `chain-totals` that trusts nobody and holds no output: lines are read once, in the order in which they were committed.
//!
//! For each key:
//! * ordinals are 1, 2, 3, … without a gap (lost) and without a repeat (duplicated);
//! * each step adds the price of one event, the hash is that of all prices so far in this order, and in the end the prices are those of
//!   the key's events, each as often as it should be;
//! * timers have told of each record once.
//!
//! 56 bytes a key.

use crate::generator::{Event, event, mix};
use crate::output;
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// What the job read.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    pub records: u64,
    pub keys: u64,
    /// Events whose price is a multiple of it are refused; 0: none.
    pub reject_every: u64,
    /// Each key comes once before the first comes again, so that the state is full from then on.
    pub prefill: bool,
}

impl Input {
    pub fn event(&self, i: u64) -> Event {
        let event = event(i, self.keys);
        if self.prefill && i < self.keys { Event { bidder: i, ..event } } else { event }
    }

    pub fn is_rejected(&self, price: u64) -> bool {
        self.reject_every > 0 && price.is_multiple_of(self.reject_every)
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Key {
    count: u64,
    sum: u64,
    chain: u64,
    /// Of all prices, without order.
    prices: u64,
    told: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub records: u64,
    pub lost: u64,
    pub duplicated: u64,
    /// What else is wrong; the first few.
    pub wrong: Vec<String>,
}

impl Verdict {
    pub fn is_exactly_once(&self) -> bool {
        (self.lost, self.duplicated, self.wrong.len()) == (0, 0, 0)
    }

    fn wrong(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.len() < 10 {
            self.wrong.push(what());
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} records, {} lost, {} duplicated", self.records, self.lost, self.duplicated)?;
        self.wrong.iter().try_for_each(|what| write!(f, "\n  {what}"))
    }
}

pub struct Checker {
    input: Input,
    keys: Vec<Key>,
    verdict: Verdict,
}

impl Checker {
    pub fn new(input: Input) -> Self {
        Self { input, keys: vec![Key::default(); input.keys as usize], verdict: Verdict::default() }
    }

    /// The next line of the task that owns the key.
    pub fn line(&mut self, line: &str) {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (bidder, second, third, fourth) = (next(), next(), next(), next());
        let verdict = &mut self.verdict;
        let Some(key) = bidder.parse().ok().and_then(|bidder: usize| self.keys.get_mut(bidder)) else {
            return verdict.wrong(|| format!("no such key: {line}"));
        };
        if second == "told" {
            return match third.parse::<u64>() {
                Ok(records) => key.told += records,
                Err(_) => verdict.wrong(|| format!("no number: {line}")),
            };
        }
        let (Ok(count), Ok(sum), Ok(chain)) = (second.parse::<u64>(), third.parse::<u64>(), fourth.parse::<u64>()) else {
            return verdict.wrong(|| format!("not three numbers: {line}"));
        };
        verdict.records += 1;
        if count <= key.count {
            verdict.duplicated += 1;
            return;
        }
        verdict.lost += count - key.count - 1;
        let price = sum.wrapping_sub(key.sum);
        if count == key.count + 1 && chain != mix(key.chain ^ price) {
            verdict.wrong(|| format!("the hash does not follow from the {} records before: {line}", count - 1));
        }
        *key = Key { count, sum, chain, prices: key.prices.wrapping_add(mix(price)), ..*key };
    }

    /// `told`: whether timers had to tell of each record.
    pub fn finish(self, told: bool) -> Verdict {
        let Self { input, keys, mut verdict } = self;
        let mut expected = vec![(0u64, 0u64); keys.len()];
        for i in 0..input.records {
            let event = input.event(i);
            if !input.is_rejected(event.price) {
                let (count, prices) = &mut expected[event.bidder as usize];
                (*count, *prices) = (*count + 1, prices.wrapping_add(mix(event.price)));
            }
        }
        for (bidder, (key, (count, prices))) in keys.iter().zip(expected).enumerate() {
            verdict.lost += count.saturating_sub(key.count);
            verdict.duplicated += key.count.saturating_sub(count);
            if key.count == count && key.prices != prices {
                verdict.wrong(|| format!("key {bidder}: {count} records, but not those of its events"));
            }
            if told && key.told != count {
                verdict.wrong(|| format!("key {bidder}: timers told of {} records, there were {count}", key.told));
            }
        }
        verdict
    }

    /// All that a file sink has committed, in the order of its epochs.
    pub fn folder(&mut self, folder: &Path) {
        for path in by_epoch(folder) {
            let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            for line in std::io::BufReader::with_capacity(1 << 20, file).lines() {
                self.line(&line.unwrap_or_else(|error| panic!("{}: {error}", path.display())));
            }
        }
        let left = output::staged(folder);
        if !left.is_empty() {
            self.verdict.wrong(|| format!("rows that nobody will ever commit: {left:?}"));
        }
    }
}

fn by_epoch(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.is_file())
        .collect();
    // <prefix>-<task>-<epoch>-<job id>.<suffix>
    paths.sort_by_key(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let parts: Vec<_> = name.rsplit('-').map(str::to_owned).collect();
        (parts.get(1).cloned(), parts.get(2).cloned())
    });
    paths
}

/// Bytes that are committed: whether a job gets on, without reading what it wrote.
pub fn committed_bytes(folder: &Path) -> u64 {
    by_epoch(folder).iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const INPUT: Input = Input { records: 3000, keys: 11, reject_every: 7, prefill: false };

    fn right() -> Vec<String> {
        let mut keys: HashMap<u64, (u64, u64, u64)> = HashMap::new();
        let events = (0..INPUT.records).map(|i| event(i, INPUT.keys)).filter(|event| !INPUT.is_rejected(event.price));
        let line = |event: Event| {
            let (count, sum, chain) = keys.entry(event.bidder).or_default();
            (*count, *sum, *chain) = (*count + 1, *sum + event.price, mix(*chain ^ event.price));
            format!("{} {count} {sum} {chain}", event.bidder)
        };
        events.map(line).collect()
    }

    fn check(lines: &[String]) -> Verdict {
        let mut checker = Checker::new(INPUT);
        lines.iter().for_each(|line| checker.line(line));
        checker.finish(false)
    }

    #[test]
    fn the_right_output_is_exactly_once() {
        let verdict = check(&right());
        assert!(verdict.is_exactly_once() && verdict.records > 2000, "{verdict}");
    }

    #[test]
    fn what_is_missing_is_lost_and_what_is_there_twice_is_duplicated() {
        for at in [0, 1000, right().len() - 1] {
            let mut lines = right();
            let line = lines.remove(at);
            assert_eq!(check(&lines).lost, 1);
            lines.insert(at, line.clone());
            lines.push(line);
            assert_eq!((check(&lines).lost, check(&lines).duplicated), (0, 1));
        }
    }

    #[test]
    fn two_records_of_a_key_in_the_wrong_order_do_not_pass() {
        let (mut sum, mut chain) = (0, 0);
        let mut prices: Vec<u64> =
            (0..INPUT.records).map(|i| event(i, INPUT.keys)).filter(|e| e.bidder == 3).map(|e| e.price).collect();
        prices.retain(|price| !INPUT.is_rejected(*price));
        let mut lines: Vec<String> = right().into_iter().filter(|line| !line.starts_with("3 ")).collect();
        for (i, price) in prices.iter().enumerate() {
            (sum, chain) = (sum + price, mix(chain ^ price));
            // As a state would say that took the records in another order than they are told in.
            let shown = if i == 5 { chain ^ 1 } else { chain };
            lines.push(format!("3 {} {sum} {shown}", i + 1));
        }
        assert!(!check(&lines).is_exactly_once());
    }

    #[test]
    fn a_record_that_was_counted_twice_in_state_does_not_pass() {
        let mut lines = right();
        let more: Vec<String> = lines.iter().filter(|line| line.starts_with("4 ")).cloned().collect();
        lines.retain(|line| !line.starts_with("4 "));
        lines.extend(more.iter().skip(1).cloned());
        assert!(!check(&lines).is_exactly_once());
    }

    #[test]
    fn timers_must_tell_of_each_record_once() {
        let mut checker = Checker::new(INPUT);
        right().iter().for_each(|line| checker.line(line));
        checker.line("3 told 2");
        assert!(checker.finish(true).wrong.iter().any(|what| what.contains("timers told")));
    }
}
