//! Who gets what an unaligned checkpoint had in flight, when the job starts again, perhaps with other tasks.
//!
//! Invariants:
//! * every row goes to exactly one task;
//! * rows of a keyed edge go to the task that owns the group of their key, so they meet the state of their key;
//! * with the same tasks as before everything goes where it was, watermarks too. With others, rows of a channel without keys stay
//!   together, in their order, and watermarks are left out: sources tell them again, behind the rows.

use crate::checkpoint::InFlight;
use crate::key_group;
use std::ops::Range;

/// What one task takes of what one former task had in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    Nothing,
    /// All rows.
    All,
    /// Rows whose keys are in these groups.
    Groups(Range<u32>),
}

pub fn share(in_flight: &InFlight, task: u32, parallelism: u32, key_groups: u32) -> Share {
    if in_flight.parallelism == parallelism {
        return if in_flight.task_index == task { Share::All } else { Share::Nothing };
    }
    if !in_flight.keyed {
        return if in_flight.task_index % parallelism == task { Share::All } else { Share::Nothing };
    }
    let had = key_group::groups_of(in_flight.task_index, key_groups, in_flight.parallelism);
    let owns = key_group::groups_of(task, key_groups, parallelism);
    let both = had.start.max(owns.start)..had.end.min(owns.end);
    if both.is_empty() { Share::Nothing } else { Share::Groups(both) }
}

/// Whether the channels of a task, as (input, upstream task), are those that it had: then it can go on exactly where it stood.
pub fn has_same_channels(in_flight: &InFlight, parallelism: u32, channels: &[(u32, u32)]) -> bool {
    let had = in_flight.channels.iter().map(|channel| (channel.input, channel.upstream_task));
    in_flight.parallelism == parallelism && had.eq(channels.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{InFlightChannel, SegmentRef};
    use proptest::prelude::*;

    fn of(task_index: u32, parallelism: u32, keyed: bool) -> InFlight {
        let segment = SegmentRef {
            path: "segments/count/x".into(),
            first_group: 0,
            end_group: 0,
            full: true,
            entries: 1,
            bytes: 1,
            crc32c: 1,
        };
        let channels = vec![InFlightChannel { input: 0, upstream_task: 0, rows: 1, bytes: 9 }];
        InFlight { node: "count".into(), task_index, parallelism, keyed, channels, segment }
    }

    proptest! {
        #[test]
        fn every_row_goes_to_one_task_and_a_keyed_one_to_the_owner_of_its_group(
            before in 1u32..20, after in 1u32..20, keyed: bool, group in 0u32..64
        ) {
            // Before, a keyed row of this group was with its owner; one without a key was anywhere.
            let with: Vec<u32> = if keyed { vec![key_group::task_of(group, 64, before)] } else { (0..before).collect() };
            for task in with {
                let in_flight = of(task, before, keyed);
                let takers: Vec<u32> = (0..after).filter(|taker| match share(&in_flight, *taker, after, 64) {
                    Share::Nothing => false,
                    Share::All => true,
                    Share::Groups(groups) => groups.contains(&group),
                }).collect();
                prop_assert_eq!(takers.len(), 1);
                prop_assert!(!keyed || takers[0] == key_group::task_of(group, 64, after));
            }
        }
    }

    #[test]
    fn another_number_of_senders_or_receivers_makes_other_channels() {
        assert!(has_same_channels(&of(0, 2, true), 2, &[(0, 0)]));
        assert!(!has_same_channels(&of(0, 2, true), 3, &[(0, 0)]));
        assert!(!has_same_channels(&of(0, 2, true), 2, &[(0, 0), (0, 1)]));
    }
}
