//! Timers in both domains. Row values are ignored; times are taken from the rows' timestamps (event time) and from the call
//! (processing time).

use crate::bindings::exports::tidegate::streaming::batch_processing::DueTimers;
use crate::bindings::tidegate::streaming::state::ValueState;
use crate::bindings::tidegate::streaming::timers::{cancel_timer, cancel_timers, set_timer, set_timers};
use crate::bindings::tidegate::streaming::types::{Batch, Failure, RejectedRow, TimeDomain};
use crate::{Answer, report, rows, show};

/// Timers are set for so long after the row's time, or after the call's.
const DELAY_MS: i64 = 1000;

pub fn run(case: &str, batch: &Batch) -> Option<Answer> {
    let event: Vec<i64> = rows::iter(&batch.rows).map(|row| row.timestamp + DELAY_MS).collect();
    let processing: Vec<i64> = batch.slots.iter().map(|_| batch.processing_time + DELAY_MS).collect();
    let each = |times: &[i64], act: &dyn Fn(u32, i64, u64)| {
        for (row, (slot, time)) in batch.slots.iter().zip(times).enumerate() {
            act(*slot, *time, row as u64);
        }
    };
    let tags: Vec<u64> = (0..u64::from(batch.count)).collect();
    match case {
        // One for each row, tag = row.
        "timers-event" | "timers-reject" | "timers-fatal" | "timers-trap" => {
            each(&event, &|slot, time, tag| set_timer(slot, TimeDomain::EventTime, time, tag));
        }
        "timers-processing" => each(&processing, &|slot, time, tag| set_timer(slot, TimeDomain::ProcessingTime, time, tag)),
        // The same thing twice is one timer.
        "timers-twice" => each(&event, &|slot, time, _| {
            set_timer(slot, TimeDomain::EventTime, time, 7);
            set_timer(slot, TimeDomain::EventTime, time, 7);
        }),
        // Odd rows are taken back; what was never set can be cancelled; set after cancelling stays.
        "timers-cancel" => each(&event, &|slot, time, tag| {
            set_timer(slot, TimeDomain::EventTime, time, tag);
            cancel_timer(slot, TimeDomain::EventTime, time, 1_000_000);
            if tag % 2 == 1 {
                cancel_timer(slot, TimeDomain::EventTime, time, tag);
            }
            if tag % 4 == 3 {
                set_timer(slot, TimeDomain::EventTime, time, tag);
            }
        }),
        "timers-columns" => {
            set_timers(TimeDomain::EventTime, &batch.slots, &event, &tags);
            set_timers(TimeDomain::ProcessingTime, &batch.slots, &processing, &tags);
            // Those of the first row are taken back.
            cancel_timers(TimeDomain::EventTime, &batch.slots[..1], &event[..1], &tags[..1]);
            cancel_timers(TimeDomain::ProcessingTime, &batch.slots[..1], &processing[..1], &tags[..1]);
        }
        // A timer that sets itself again, three times: `due` counts the tag down.
        "timers-again" | "timers-again-at-once" => each(&event, &|slot, time, _| set_timer(slot, TimeDomain::EventTime, time, 3)),
        // A timer for the row's time by the clock, that sets itself again every second until it has come up with the clock.
        "timers-catch-up" => {
            let times: Vec<i64> = rows::iter(&batch.rows).map(|row| row.timestamp).collect();
            each(&times, &|slot, time, tag| set_timer(slot, TimeDomain::ProcessingTime, time, tag));
        }
        "timers-for-ever-processing" => each(&processing, &|slot, time, _| {
            set_timer(slot, TimeDomain::ProcessingTime, time - DELAY_MS, 0);
        }),
        // A timer that sets itself again for ever, and is due at once.
        "timers-for-ever" => each(&event, &|slot, time, _| set_timer(slot, TimeDomain::EventTime, time, 0)),
        _ => return None,
    }
    Some(Ok(Vec::new()))
}

/// Reports every due timer as `domain time key tag`, and counts them in state by key.
pub fn due(case: &str, timers: &DueTimers) -> Answer {
    let domain = match timers.domain {
        TimeDomain::EventTime => "event",
        TimeDomain::ProcessingTime => "processing",
    };
    report(
        "call",
        format!("{} timers, watermark {}, processing time {}", timers.slots.len(), timers.watermark, timers.processing_time),
    );
    let fired = ValueState::new("value");
    let mut rejected = Vec::new();
    for (index, slot) in timers.slots.iter().enumerate() {
        let (time, tag) = (timers.times[index], timers.tags[index]);
        let (first, last) = (timers.keys.offsets[*slot as usize], timers.keys.offsets[*slot as usize + 1]);
        let key = &timers.keys.data[first as usize..last as usize];
        match case {
            "timers-reject" if tag == 1 => {
                rejected.push(RejectedRow { row: index as u32, reason: "this timer is rejected".to_owned() });
                continue;
            }
            "mixed" if tag == 2 => {
                rejected.push(RejectedRow { row: index as u32, reason: "this timer is rejected".to_owned() });
                continue;
            }
            "mixed" if tag == 1 => panic!("this timer traps"),
            "timers-fatal" => return Err(Failure::Fatal("on-timers says fatal".to_owned())),
            "timers-trap" => panic!("on-timers traps"),
            "timers-again" if tag > 0 => set_timer(*slot, timers.domain, time + DELAY_MS, tag - 1),
            "timers-again-at-once" if tag > 0 => set_timer(*slot, timers.domain, time, tag - 1),
            "timers-catch-up" if time + DELAY_MS <= timers.processing_time => {
                set_timer(*slot, timers.domain, time + DELAY_MS, tag);
            }
            "timers-for-ever" | "timers-for-ever-processing" => set_timer(*slot, timers.domain, time, tag + 1),
            _ => {}
        }
        let before = fired.get(*slot).map_or(0, |bytes| bytes[0]);
        fired.put(*slot, &[before.wrapping_add(1)]);
        report("timer", format!("{domain} {time} {} {tag} (number {})", show(key), before.wrapping_add(1)));
    }
    Ok(rejected)
}
