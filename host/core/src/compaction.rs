//! When the segments of one task's state are merged, and when a snapshot is written whole.
//!
//! A chain is a base (a full segment, or the oldest one) and deltas, oldest first. Reading it at a restore costs its sum, so it
//! must not grow; merging costs writing again, so it must not happen for every delta.
//!
//! ```text
//!  base ████████████████  ▄ ▄ ▄ ▄ ▄ ▄ ▄ ▄     eight small deltas     → one:   base ████████████████  ▆
//!  base ████████████████  ▇▇▇ ▇▇▇ ▇▇▇ ▇▇▇     more than half the base → full:  base █████████████████
//! ```
//!
//! Invariants:
//! * what is merged are neighbours, and a merge that takes the oldest segment in makes a full one;
//! * between two checkpoints a chain comes back to no more than a base and [`DELTAS_MAX`] deltas;
//! * a byte that a snapshot wrote is written again a bounded number of times (see the simulation below).
//!
//! What this is not: a store engine's compaction. Segments are only read at a restore, so there is no reading path to keep short.

use crate::checkpoint::SegmentRef;
use std::ops::Range;

/// A restore opens this many files for a task, and a base.
pub const DELTAS_MAX: usize = 8;

/// Below this many deltas nothing is merged, however small the base is: a merge costs a file and an fsync whatever its size.
pub const FULL_MERGE_DELTAS_MIN: usize = 4;

/// A merge of deltas takes at least this many of the newest, so that room is made for as many again.
pub const DELTA_MERGE_MIN: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// Positions in the chain.
    pub range: Range<usize>,
    /// Nothing is below the result: deletions need not be kept in it.
    pub to_full: bool,
}

/// What to merge in a chain, oldest segment first.
pub fn plan(chain: &[SegmentRef]) -> Option<Merge> {
    let (base, deltas) = chain.split_first()?;
    let delta_bytes: u64 = deltas.iter().map(|segment| segment.bytes).sum();
    if deltas.len() >= FULL_MERGE_DELTAS_MIN && delta_bytes > base.bytes / 2 {
        return Some(Merge { range: 0..chain.len(), to_full: true });
    }
    if deltas.len() < DELTAS_MAX {
        return None;
    }
    // From the newest back. An older delta joins while it is no more than twice what is gathered, so each time it is written
    // again it ends up in something half as large again: that is what bounds the rewriting.
    let mut first = chain.len() - DELTA_MERGE_MIN;
    let mut gathered: u64 = chain[first..].iter().map(|segment| segment.bytes).sum();
    while first > 1 && chain[first - 1].bytes <= gathered.saturating_mul(2) {
        first -= 1;
        gathered = gathered.saturating_add(chain[first].bytes);
    }
    Some(Merge { range: first..chain.len(), to_full: false })
}

/// Whether a snapshot of the live state is no dearer than a delta: more than half of the entries would be in the delta anyway,
/// and everything below it could be dropped.
pub fn wants_full_snapshot(dirty_entries: u64, live_entries: u64) -> bool {
    dirty_entries > live_entries / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chain(bytes: &[u64]) -> Vec<SegmentRef> {
        let segment = |(index, bytes): (usize, &u64)| SegmentRef {
            path: format!("{index}"),
            first_group: 0,
            end_group: 16,
            full: index == 0,
            entries: *bytes,
            bytes: *bytes,
            crc32c: 0,
        };
        bytes.iter().enumerate().map(segment).collect()
    }

    fn planned(bytes: &[u64]) -> Option<(Range<usize>, bool)> {
        plan(&chain(bytes)).map(|merge| (merge.range, merge.to_full))
    }

    #[test]
    fn a_short_chain_is_left_alone() {
        assert_eq!(planned(&[]), None);
        assert_eq!(planned(&[100]), None);
        assert_eq!(planned(&[1000, 1, 1, 1, 1, 1, 1, 1]), None);
        assert_eq!(planned(&[1, 100, 100, 100]), None, "three deltas, however large");
    }

    #[test]
    fn deltas_that_outgrow_half_the_base_become_a_new_base() {
        assert_eq!(planned(&[1000, 100, 100, 100, 200]), None);
        assert_eq!(planned(&[1000, 100, 100, 100, 201]), Some((0..5, true)));
    }

    #[test]
    fn small_deltas_are_merged_among_themselves() {
        assert_eq!(planned(&[1000, 1, 1, 1, 1, 1, 1, 1, 1]), Some((1..9, false)));
    }

    #[test]
    fn a_large_old_delta_is_not_written_again_for_small_new_ones() {
        assert_eq!(planned(&[10_000, 900, 5, 1, 1, 1, 1, 1, 1]), Some((2..9, false)));
        assert_eq!(planned(&[1_000_000, 90_000, 40_000, 9000, 300, 1, 1, 1, 1]), Some((5..9, false)));
    }

    #[test]
    fn a_snapshot_is_written_whole_when_most_of_it_changed() {
        assert!(!wants_full_snapshot(0, 0));
        assert!(!wants_full_snapshot(500, 1000));
        assert!(wants_full_snapshot(501, 1000));
        assert!(wants_full_snapshot(3, 0), "everything was deleted");
    }

    struct Simulated {
        written_by_snapshots: u64,
        written_by_merges: u64,
        longest: usize,
        largest_sum: u64,
    }

    /// A task with `live` entries of one byte, of which `dirty(epoch)` change between two checkpoints. Changes are taken to hit
    /// different entries, the worst case for merges of deltas.
    fn simulate(live: u64, epochs: u64, mut dirty: impl FnMut(u64) -> u64) -> Simulated {
        let mut bytes = vec![live];
        let mut simulated = Simulated { written_by_snapshots: live, written_by_merges: 0, longest: 0, largest_sum: 0 };
        for epoch in 0..epochs {
            let dirty = dirty(epoch).min(live);
            let full = wants_full_snapshot(dirty, live);
            if full {
                bytes.clear();
            }
            bytes.push(if full { live } else { dirty });
            simulated.written_by_snapshots += if full { live } else { dirty };
            simulated.longest = simulated.longest.max(bytes.len());
            simulated.largest_sum = simulated.largest_sum.max(bytes.iter().sum());
            while let Some(merge) = plan(&chain(&bytes)) {
                let sum = bytes[merge.range.clone()].iter().sum::<u64>();
                let merged = if merge.to_full { live } else { sum.min(live) };
                simulated.written_by_merges += if merge.to_full { sum.max(live) } else { sum };
                bytes.splice(merge.range, [merged]);
            }
        }
        simulated
    }

    #[test]
    fn steady_small_changes_are_written_a_few_times_only() {
        for (live, dirty) in [(1_000_000, 10), (1_000_000, 1000), (1_000_000, 50_000), (1000, 400), (10, 1)] {
            let simulated = simulate(live, 3000, |_| dirty);
            let amplification = simulated.written_by_merges as f64 / simulated.written_by_snapshots as f64;
            assert!(amplification < 6.0, "live {live}, dirty {dirty}: merges wrote {amplification:.1} times the snapshots");
            assert!(simulated.longest <= DELTAS_MAX + 1);
        }
    }

    proptest! {
        #[test]
        fn merging_is_bounded_in_writes_length_and_space(
            live in 1u64..100_000, sizes in prop::collection::vec(0u32..1000, 1..40), scale in 1u64..100
        ) {
            let simulated = simulate(live, 500, |epoch| u64::from(sizes[epoch as usize % sizes.len()]) * scale);
            let amplification = simulated.written_by_merges as f64 / simulated.written_by_snapshots as f64;
            prop_assert!(amplification < 8.0, "{amplification}");
            prop_assert!(simulated.longest <= DELTAS_MAX + 1);
            // Four deltas of at most half the live entries, and the base.
            prop_assert!(simulated.largest_sum <= 4 * live.max(4));
        }

        #[test]
        fn a_merge_is_of_neighbours_and_makes_the_chain_shorter(bytes in prop::collection::vec(0u64..10_000, 0..40)) {
            let mut bytes = bytes;
            while let Some(merge) = plan(&chain(&bytes)) {
                prop_assert!(merge.range.len() >= 2 && merge.range.end <= bytes.len());
                prop_assert_eq!(merge.to_full, merge.range.start == 0);
                let sum = bytes[merge.range.clone()].iter().sum();
                bytes.splice(merge.range, [sum]);
            }
            prop_assert!(bytes.len() <= DELTAS_MAX);
        }
    }
}
