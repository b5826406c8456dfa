//! Key groups: the unit in which keyed state moves when a job is rescaled.
//!
//! Invariants:
//! * the group of a key depends on the key and on the job's number of groups alone, and never changes for the life of a job;
//! * groups grow with the hash, so what is sorted by hash is sorted by group, and a range of groups is a range of hashes;
//! * task p of P owns the groups g with g * P / G = p: contiguous, complete, disjoint.

use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// The hash that places a key. Stored with snapshots: changing it is a change of format.
#[inline]
pub fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

#[inline]
pub fn group_of(hash: u64, groups: u32) -> u32 {
    (((hash >> 32) * u64::from(groups)) >> 32) as u32
}

#[inline]
pub fn task_of(group: u32, groups: u32, parallelism: u32) -> u32 {
    (u64::from(group) * u64::from(parallelism) / u64::from(groups)) as u32
}

/// The groups that one task owns.
pub fn groups_of(task: u32, groups: u32, parallelism: u32) -> Range<u32> {
    let first = |task: u32| (u64::from(task) * u64::from(groups)).div_ceil(u64::from(parallelism)) as u32;
    first(task)..first(task + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_group_belongs_to_one_task_and_ranges_agree_with_it(groups in 1u32..5000, parallelism in 1u32..300) {
            let mut next = 0;
            for task in 0..parallelism {
                let range = groups_of(task, groups, parallelism);
                prop_assert_eq!(range.start, next);
                next = range.end;
                for group in range {
                    prop_assert_eq!(task_of(group, groups, parallelism), task);
                }
            }
            prop_assert_eq!(next, groups);
        }

        #[test]
        fn groups_grow_with_the_hash(a in any::<u64>(), b in any::<u64>(), groups in 1u32..40_000) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(group_of(low, groups) <= group_of(high, groups));
            prop_assert!(group_of(high, groups) < groups);
        }
    }

    #[test]
    fn the_hash_is_pinned() {
        // A stored snapshot is sorted by it.
        assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(hash(b"tidegate"), xxh3_64(b"tidegate"));
    }
}
