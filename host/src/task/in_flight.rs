//! What barriers of an unaligned checkpoint overtook: recorded as it is read, written as one file a task, put back at the head of the
//! gates of a restored job.
//!
//! ```text
//!  magic | splits: number, source, split | channels: input, upstream task, elements
//!                                                      row batch: count, origins, rows │ watermark │ idle
//! ```
//!
//! Invariants:
//! * a channel's elements stand in the order in which its sender sent them, behind the watermark that it had come to;
//! * a row keeps its origin: the number of its split is that of the run that wrote it, and the table says what it means;
//! * what is read back is checked, whoever wrote it.

use super::Element;
use crate::job::splits::SplitNames;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tidegate_core::checkpoint::InFlightChannel;
use tidegate_core::key_group;
use tidegate_core::limits::{IN_FLIGHT_BYTES_MAX, RowLimits};
use tidegate_core::row::{self, Origin, Origins, Rows, Timestamp};

/// With the number of the form at its end.
const MAGIC: &[u8; 8] = b"tginfl\0\x01";

const BATCH: u8 = 0;
const WATERMARK: u8 = 1;
const IDLE: u8 = 2;

const RUN: u8 = 0;
const SAME: u8 = 1;
const EACH: u8 = 2;

/// The inputs of a task, as a checkpoint names them.
#[derive(Debug)]
pub struct Inputs {
    pub node: String,
    pub task_index: u32,
    pub parallelism: u32,
    pub keyed: bool,
    pub groups: Range<u32>,
    /// (input, upstream task) by channel.
    pub channels: Vec<(u32, u32)>,
    pub names: Arc<SplitNames>,
}

/// The states of the channels of one task, as far as they are recorded.
#[derive(Debug)]
pub struct ChannelStates {
    channels: Vec<ChannelState>,
    bytes: usize,
    elements: usize,
}

#[derive(Debug, Default)]
struct ChannelState {
    elements: u32,
    rows: u64,
    encoded: Vec<u8>,
    splits: Vec<u16>,
}

impl ChannelStates {
    /// `watermarks`: what each channel had come to at the snapshot; `NO_TIMESTAMP` where it had said nothing.
    pub fn new(watermarks: impl Iterator<Item = Timestamp>) -> Self {
        let mut states = Self { channels: Vec::new(), bytes: 0, elements: 0 };
        for (channel, watermark) in watermarks.enumerate() {
            states.channels.push(ChannelState::default());
            if watermark != row::NO_TIMESTAMP {
                states.record(channel, &Element::Watermark(watermark));
            }
        }
        // Where a channel stood is worth nothing without something in flight.
        states.elements = 0;
        states
    }

    pub fn record(&mut self, channel: usize, element: &Element) {
        let state = &mut self.channels[channel];
        let before = state.encoded.len();
        match element {
            Element::Batch(rows) => {
                state.rows += u64::from(rows.count);
                state.batch(rows);
            }
            Element::Watermark(watermark) => {
                state.encoded.push(WATERMARK);
                state.encoded.extend_from_slice(&watermark.to_le_bytes());
            }
            Element::Idle => state.encoded.push(IDLE),
            Element::Barrier(barrier) => unreachable!("BUG: barrier {} is not in flight", barrier.checkpoint),
        }
        state.elements += 1;
        self.elements += 1;
        self.bytes += state.encoded.len() - before;
    }

    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    /// More than a checkpoint may hold: the task declines it.
    pub fn is_too_large(&self) -> bool {
        self.bytes > IN_FLIGHT_BYTES_MAX
    }

    /// The file, and what the manifest says of its channels.
    pub fn encode(&self, inputs: &Inputs) -> (Vec<u8>, Vec<InFlightChannel>) {
        let mut out = Vec::with_capacity(self.bytes + 1024);
        out.extend_from_slice(MAGIC);
        let splits: BTreeMap<u16, (String, String)> = self
            .channels
            .iter()
            .flat_map(|state| &state.splits)
            .filter_map(|number| Some((*number, inputs.names.name(*number)?)))
            .collect();
        write_u32(&mut out, splits.len());
        for (number, (source, split)) in splits {
            out.extend_from_slice(&number.to_le_bytes());
            for name in [source, split] {
                write_u32(&mut out, name.len());
                out.extend_from_slice(name.as_bytes());
            }
        }
        write_u32(&mut out, self.channels.len());
        let mut channels = Vec::with_capacity(self.channels.len());
        for (state, (input, upstream_task)) in self.channels.iter().zip(inputs.channels.iter().copied()) {
            out.extend_from_slice(&input.to_le_bytes());
            out.extend_from_slice(&upstream_task.to_le_bytes());
            out.extend_from_slice(&state.elements.to_le_bytes());
            out.extend_from_slice(&state.encoded);
            channels.push(InFlightChannel { input, upstream_task, rows: state.rows, bytes: state.encoded.len() as u64 });
        }
        (out, channels)
    }
}

impl ChannelState {
    fn batch(&mut self, rows: &Rows) {
        self.encoded.reserve(rows.bytes.len() + 64);
        self.encoded.push(BATCH);
        self.encoded.extend_from_slice(&rows.count.to_le_bytes());
        let mut origin = |encoded: &mut Vec<u8>, origin: Origin| {
            encoded.extend_from_slice(&origin.0.to_le_bytes());
            // Rows of a split come in runs, and there are few splits.
            if self.splits.last() != Some(&origin.split()) && !self.splits.contains(&origin.split()) {
                self.splits.push(origin.split());
            }
        };
        match &rows.origins {
            Origins::Run(first) => {
                self.encoded.push(RUN);
                origin(&mut self.encoded, *first);
            }
            Origins::Same(same) => {
                self.encoded.push(SAME);
                origin(&mut self.encoded, *same);
            }
            Origins::Each(each) => {
                self.encoded.push(EACH);
                each.iter().for_each(|each| origin(&mut self.encoded, *each));
            }
        }
        write_u32(&mut self.encoded, rows.bytes.len());
        self.encoded.extend_from_slice(&rows.bytes);
    }
}

fn write_u32(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).unwrap_or_else(|_| panic!("BUG: {len} does not fit into a file of channel states"));
    out.extend_from_slice(&len.to_le_bytes());
}

/// One channel as it was.
#[derive(Debug)]
pub struct RestoredChannel {
    pub input: u32,
    pub upstream_task: u32,
    pub elements: Vec<Element>,
}

/// Reads a file back. The error says what does not add up in it.
pub fn decode(bytes: &[u8], names: &SplitNames) -> Result<Vec<RestoredChannel>, String> {
    let mut rest = Reader { bytes };
    if rest.take(MAGIC.len())? != MAGIC {
        return Err("it is not a file of channel states, or one of a newer form".to_owned());
    }
    let mut numbers = BTreeMap::new();
    for _ in 0..rest.u32()? {
        let number = u16::from_le_bytes(rest.array()?);
        let (source, split) = (rest.text()?, rest.text()?);
        numbers.insert(number, names.handle(source, split));
    }
    let mut channels = Vec::new();
    for _ in 0..rest.u32()? {
        let (input, upstream_task) = (rest.u32()?, rest.u32()?);
        let mut elements = Vec::new();
        for _ in 0..rest.u32()? {
            elements.push(rest.element(&numbers)?);
        }
        channels.push(RestoredChannel { input, upstream_task, elements });
    }
    if rest.bytes.is_empty() { Ok(channels) } else { Err(format!("{} bytes are left behind its end", rest.bytes.len())) }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(len)
            .ok_or_else(|| format!("it is cut off: {len} bytes needed, {} left", self.bytes.len()))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were taken"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a str, String> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.take(len)?).map_err(|e| format!("the name of a split is not text: {e}"))
    }

    fn origin(&mut self, numbers: &BTreeMap<u16, u16>) -> Result<Origin, String> {
        let origin = Origin(u64::from_le_bytes(self.array()?));
        let Some(number) = numbers.get(&origin.split()) else { return Ok(origin) };
        let renumbered = Origin::new(*number, origin.position());
        Ok(if origin.is_exact() { renumbered } else { renumbered.derived() })
    }

    fn element(&mut self, numbers: &BTreeMap<u16, u16>) -> Result<Element, String> {
        match self.array::<1>()?[0] {
            WATERMARK => Ok(Element::Watermark(i64::from_le_bytes(self.array()?))),
            IDLE => Ok(Element::Idle),
            BATCH => {
                let count = self.u32()?;
                let origins = match self.array::<1>()?[0] {
                    RUN => Origins::Run(self.origin(numbers)?),
                    SAME => Origins::Same(self.origin(numbers)?),
                    EACH => Origins::Each((0..count).map(|_| self.origin(numbers)).collect::<Result<_, _>>()?),
                    other => return Err(format!("there are no origins of kind {other}")),
                };
                let len = self.u32()? as usize;
                let bytes = self.take(len)?.to_vec();
                row::check(&bytes, count, &RowLimits::default()).map_err(|e| e.to_string())?;
                Ok(Element::Batch(Rows { bytes, count, origins }))
            }
            other => Err(format!("there is no element of kind {other}")),
        }
    }
}

/// The rows of a batch whose keys are in these groups.
pub fn of_groups(rows: &Rows, groups: &Range<u32>, key_groups: u32) -> Rows {
    let mut kept = Rows::default();
    let mut origins = Vec::new();
    for (i, (row, bytes)) in row::raw(&rows.bytes).enumerate() {
        if groups.contains(&key_group::group_of(key_group::hash(row.key), key_groups)) {
            kept.bytes.extend_from_slice(bytes);
            kept.count += 1;
            origins.push(rows.origins.get(i));
        }
    }
    kept.origins = Origins::Each(origins);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::row::{NO_TIMESTAMP, Row};

    fn rows(keys: &[&str], origins: Origins) -> Rows {
        let mut rows = Rows { origins, ..Rows::default() };
        keys.iter().for_each(|key| rows.push(&Row::new(key.as_bytes(), b"v", 7)));
        rows
    }

    fn inputs(names: &Arc<SplitNames>) -> Inputs {
        Inputs {
            node: "count".into(),
            task_index: 0,
            parallelism: 1,
            keyed: true,
            groups: 0..16,
            channels: vec![(0, 0), (0, 1)],
            names: Arc::clone(names),
        }
    }

    fn encoded() -> (Vec<u8>, Vec<InFlightChannel>) {
        let names = Arc::new(SplitNames::default());
        let (a, b) = (names.handle("bids", "a"), names.handle("bids", "b"));
        let mut states = ChannelStates::new([NO_TIMESTAMP, 5].into_iter());
        assert!(states.is_empty(), "nothing is in flight yet");
        states.record(1, &Element::Batch(rows(&["x", "y"], Origins::Run(Origin::new(b, 10)))));
        states.record(1, &Element::Watermark(9));
        states.record(0, &Element::Batch(rows(&["z"], Origins::Each(vec![Origin::new(a, 3).derived()]))));
        states.record(0, &Element::Idle);
        assert!(!states.is_empty());
        states.encode(&inputs(&names))
    }

    #[test]
    fn elements_come_back_in_their_order_with_origins_of_the_new_run() {
        let (bytes, described) = encoded();
        assert_eq!(described.iter().map(|channel| channel.rows).collect::<Vec<_>>(), [1, 2]);
        // In the new run the splits have other numbers.
        let names = SplitNames::default();
        let (b, _) = (names.handle("bids", "b"), names.handle("other", "c"));
        let channels = decode(&bytes, &names).unwrap();
        let Element::Batch(batch) = &channels[1].elements[1] else { panic!("{channels:?}") };
        assert_eq!(*batch, rows(&["x", "y"], Origins::Run(Origin::new(b, 10))));
        assert!(matches!(channels[1].elements[..], [Element::Watermark(5), Element::Batch(_), Element::Watermark(9)]));
        let Element::Batch(batch) = &channels[0].elements[0] else { panic!("{channels:?}") };
        let origin = batch.origins.get(0);
        assert_eq!(names.name(origin.split()), Some(("bids".into(), "a".into())));
        assert_eq!((origin.position(), origin.is_exact()), (3, false));
        assert!(matches!(channels[0].elements[1], Element::Idle));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_an_error_and_never_a_panic() {
        let (bytes, _) = encoded();
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], &SplitNames::default()).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            // A changed value may still be one; the checksum in the manifest finds it.
            let _ = decode(&changed, &SplitNames::default());
        }
    }

    #[test]
    fn rows_are_shared_by_the_groups_of_their_keys() {
        let all = rows(&["a", "b", "c", "d", "e", "f"], Origins::Run(Origin::new(0, 0)));
        let halves = [0..8, 8..16].map(|groups| of_groups(&all, &groups, 16));
        assert_eq!(halves.iter().map(|half| half.count).sum::<u32>(), all.count);
        for (half, groups) in halves.iter().zip([0..8, 8..16]) {
            for (i, row) in half.iter().enumerate() {
                assert!(groups.contains(&key_group::group_of(key_group::hash(row.key), 16)));
                let at = half.origins.get(i).position() as usize;
                assert_eq!(all.iter().nth(at).unwrap().key, row.key, "a row keeps its origin");
            }
        }
    }
}
