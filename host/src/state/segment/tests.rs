//! Segments that are cut, flipped or forged end in an error.

use super::super::tests::*;
use super::super::{KeyedState, StateId, merge_segments};
use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;
use tidegate_core::state_schema::TimeDomain;

/// Several blocks, every kind of record.
static SEGMENTS: LazyLock<[Segment; 2]> = LazyLock::new(|| {
    let mut state = state();
    [true, false].map(|full| {
        let keys: Vec<String> = (0..3000).map(|n| format!("key {n}")).collect();
        begin(&mut state, &keys);
        for slot in 0..3000 {
            let value = [slot as u8; 90];
            state.value_put(PAIR, slot, if full { &value[..16] } else { &[] }).unwrap();
            state.value_put(NOTE, slot, &value).unwrap();
            state.map_put(WINDOW, slot, &value[..1], &value).unwrap();
            state.list_add(LOG, slot, &value).unwrap();
            state.set_timer(slot, TimeDomain::EventTime, i64::from(full), u64::from(slot)).unwrap();
        }
        state.commit();
        snapshot(&mut state, full)
    })
});

fn open_all(bytes: &[u8]) -> Result<u64, SegmentError> {
    let reader = SegmentReader::open(bytes)?;
    let mut records = reader.records(0..reader.header.key_groups);
    let mut count = 0;
    while records.advance()? {
        count += 1;
    }
    Ok(count)
}

fn restore(bytes: &[u8]) -> Result<KeyedState, SegmentError> {
    let mut state = state();
    state.restore(bytes)?;
    Ok(state)
}

#[test]
fn a_segment_has_several_blocks_and_all_its_records() {
    for segment in &*SEGMENTS {
        let reader = SegmentReader::open(&segment.bytes).unwrap();
        assert_eq!(segment.entries, 15_000);
        assert!(reader.block_count() > 1);
        assert_eq!(open_all(&segment.bytes).unwrap(), segment.entries);
        assert_eq!(reader.header.full, segment.full);
        assert_eq!(segment.crc32c, crc32c::crc32c(&segment.bytes));
    }
}

#[test]
fn groups_of_a_task_are_read_without_the_others() {
    let segment = &SEGMENTS[0];
    let mut bytes = segment.bytes.clone();
    // The first block is damaged, and holds only groups at the beginning.
    let header = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[HEAD_BYTES + header + 100] ^= 1;
    assert!(restore(&bytes).is_err());
    let mut state = state_of(&declarations(), GROUPS - 2..GROUPS);
    state.restore(&bytes).unwrap();
    assert!(state.live_keys() > 500 && state.live_keys() < 1000);
}

#[test]
fn a_foreign_file_and_a_newer_format_are_told_apart() {
    assert!(matches!(restore(b"no"), Err(SegmentError::NotASegment { bytes: 2 })));
    assert!(matches!(restore(&[7; 500]), Err(SegmentError::NotASegment { .. })));
    let mut bytes = SEGMENTS[0].bytes.clone();
    bytes[8] = 2;
    let message = restore(&bytes).err().unwrap().to_string();
    assert!(message.contains("format 2; this host reads 1"), "{message}");
}

/// A segment around blocks that someone made up, with checksums that match.
fn forged(header: &[u8], blocks: &[(Vec<u8>, u32, u32)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&SEGMENT_FORMAT.to_le_bytes());
    out.extend_from_slice(&(header.len() as u32).to_le_bytes());
    out.extend_from_slice(header);
    let head_crc = crc32c::crc32c(&out);
    let mut index = Vec::new();
    for (block, raw_len, records) in blocks {
        index.extend_from_slice(&0u32.to_le_bytes());
        index.extend_from_slice(&(GROUPS - 1).to_le_bytes());
        index.extend_from_slice(&(out.len() as u64).to_le_bytes());
        index.extend_from_slice(&(block.len() as u32).to_le_bytes());
        index.extend_from_slice(&raw_len.to_le_bytes());
        index.extend_from_slice(&crc32c::crc32c(block).to_le_bytes());
        index.extend_from_slice(&records.to_le_bytes());
        out.extend_from_slice(block);
    }
    let mut footer = (out.len() as u64).to_le_bytes().to_vec();
    footer.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    footer.extend_from_slice(&head_crc.to_le_bytes());
    footer.extend_from_slice(&crc32c::crc32c(&index).to_le_bytes());
    footer.extend_from_slice(&blocks.iter().map(|block| u64::from(block.2)).sum::<u64>().to_le_bytes());
    footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
    footer.extend_from_slice(MAGIC);
    out.extend(index);
    out.extend(footer);
    out
}

fn header() -> Vec<u8> {
    let reader = SegmentReader::open(&SEGMENTS[1].bytes).unwrap();
    serde_json::to_vec(&reader.header).unwrap()
}

fn block(raw: &[u8], records: u32) -> (Vec<u8>, u32, u32) {
    (zstd::bulk::compress(raw, 1).unwrap(), raw.len() as u32, records)
}

#[test]
fn forged_lengths_are_errors() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let put_huge_key = [&[1u8][..], &huge].concat();
    // In the table sorted by name: 0 block, 1 log, 2 note, 3 pair, 4 sum, 5 window.
    let bad_list = [&[3u8, 1, b'k', 1, 3][..], &[200, 1, 2]].concat();
    for raw in [
        &put_huge_key[..],
        &bad_list[..],
        &[1, 1, b'k', 9, 1, 1],                      // an unknown state
        &[1, 1, b'k', 2, 0],                         // an empty value
        &[3, 1, b'k', 2, 1, 1],                      // a value that is a list
        &[1, 1, b'k', 4, 1, 1],                      // a number of one byte
        &[0x11, 2, 1, 1],                            // the key of nobody
        &[0xe1, 1, b'k', 2, 1, 1],                   // reserved flags
        &[5, 1, b'k', 0xfe, 0xff, 3, 1, 1, 0],       // a timer of one byte
        &[1, 1, b'k', 2, 1, 1, 1, 1, b'k', 2, 1, 1], // the same place twice
    ] {
        let records = if raw.len() == 12 { 2 } else { 1 };
        assert!(matches!(restore(&forged(&header(), &[block(raw, records)])), Err(SegmentError::Corrupt { .. })), "{raw:?}");
    }
    let good = block(&[1, 1, b'k', 2, 1, 1], 1);
    assert!(restore(&forged(&header(), std::slice::from_ref(&good))).is_ok());
    for wrong in [
        (good.0.clone(), u32::MAX, 1),
        (good.0.clone(), 1, 1),
        (good.0.clone(), good.1, 2),
        (vec![0; 10], 5, 1),
        block(&[0; 1 << 20], u32::MAX),
    ] {
        assert!(restore(&forged(&header(), &[wrong])).is_err());
    }
    assert!(restore(&forged(&header(), &[good.clone(), good])).is_err(), "blocks out of order");
    for header in [&b"{}"[..], b"[1", b"null", br#"{"key_groups":0,"first_group":0,"end_group":0,"full":true,"states":[]}"#] {
        assert!(restore(&forged(header, &[])).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn flipped_and_cut_segments_never_panic(which in 0usize..2, at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
        let good = &SEGMENTS[which].bytes;
        let at = at.index(good.len());
        let bytes = if cut { good[..at].to_vec() } else {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            bytes
        };
        prop_assert!(restore(&bytes).is_err());
        prop_assert!(merge_segments(&[&bytes], true).is_err());
        prop_assert!(merge_segments(&[good, &bytes], false).is_err());
    }

    #[test]
    fn made_up_blocks_never_panic(raw in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..60), records in 0u32..6) {
        let bytes = forged(&header(), &[block(&raw, records)]);
        if let Ok(mut state) = restore(&bytes) {
            prop_assert!(open_all(&bytes).unwrap() == u64::from(records));
            state.begin_key(b"k", at(0));
            let _ = state.value_get(StateId(1), 0);
            state.rollback();
        }
    }
}
