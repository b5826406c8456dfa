//! Makes one segment of a chain of them, so that a restore reads less. Works off-thread, one block of each segment at a time.

use super::super::kind_of;
use super::super::record::{EVENT_TIMERS, Op, Record};
use super::write::SegmentWriter;
use super::{RecordReader, Segment, SegmentError, SegmentHeader, SegmentReader};
use tidegate_core::state_schema::StateDeclaration;

/// A segment of the chain, and the numbers of its states in the merged table.
struct Input<'a> {
    records: RecordReader<'a>,
    ranks: Vec<u16>,
    /// Stamps of these states are of another clock than the merged table says.
    foreign_stamps: Vec<bool>,
    has_record: bool,
}

impl Input<'_> {
    fn advance(&mut self) -> Result<(), SegmentError> {
        self.has_record = self.records.advance()?;
        Ok(())
    }

    fn record(&self) -> Record<'_> {
        let mut record = self.records.record();
        if record.state < EVENT_TIMERS {
            let state = usize::from(record.state);
            record.state = self.ranks[state];
            record.stamp = record.stamp.filter(|_| !self.foreign_stamps[state]);
        }
        record
    }
}

/// Merges segments of one chain, oldest first: the newest wins. With `to_full` nothing older is below them, so tombstones are
/// dropped. What lies before a full segment of the same or more groups is left out.
pub fn merge_segments(segments: &[&[u8]], to_full: bool) -> Result<Segment, SegmentError> {
    let mut readers = segments.iter().map(|bytes| SegmentReader::open(bytes)).collect::<Result<Vec<_>, _>>()?;
    if readers.is_empty() {
        return Err(SegmentError::NothingToMerge);
    }
    let first_group = readers.iter().map(|reader| reader.header.first_group).min().unwrap_or_default();
    let end_group = readers.iter().map(|reader| reader.header.end_group).max().unwrap_or_default();
    let covers = |header: &SegmentHeader| header.full && header.first_group == first_group && header.end_group == end_group;
    if let Some(base) = readers.iter().rposition(|reader| covers(&reader.header)) {
        readers.drain(..base);
    }
    let key_groups = readers[0].header.key_groups;
    if let Some(other) = readers.iter().find(|reader| reader.header.key_groups != key_groups) {
        return Err(SegmentError::KeyGroups { found: other.header.key_groups, wanted: key_groups });
    }
    let full = to_full || covers(&readers[0].header);
    let states = merge_tables(&readers)?;
    let mut inputs = readers.iter().map(|reader| open_input(reader, &states)).collect::<Result<Vec<_>, _>>()?;
    let mut writer = SegmentWriter::new(SegmentHeader { key_groups, first_group, end_group, full, states });
    let mut at_least = Vec::new();
    let mut list = Vec::new();
    loop {
        at_least.clear();
        for (number, input) in inputs.iter().enumerate().filter(|(_, input)| input.has_record) {
            let order = at_least.first().map(|least: &usize| input.record().place_cmp(&inputs[*least].record()));
            match order {
                Some(std::cmp::Ordering::Greater) => continue,
                Some(std::cmp::Ordering::Less) => at_least.clear(),
                Some(std::cmp::Ordering::Equal) | None => {}
            }
            at_least.push(number);
        }
        let Some(newest) = at_least.last() else { break };
        list.clear();
        let mut record = inputs[*newest].record();
        if record.op == Op::Append {
            record.op = if full { Op::Replace } else { Op::Append };
            let parts = &at_least[..];
            // From the last segment that has the list as a whole, or has removed it.
            let base = parts.iter().rposition(|number| inputs[*number].record().op != Op::Append);
            if base.is_some() {
                record.op = Op::Replace;
            }
            parts[base.unwrap_or(0)..].iter().for_each(|number| list.extend_from_slice(inputs[*number].record().value));
            record.value = &list;
        }
        if !(full && record.op == Op::Remove) {
            writer.push(&record);
        }
        for number in &at_least {
            inputs[*number].advance()?;
        }
    }
    Ok(writer.finish())
}

/// All states by name, each as the newest segment declares it. Sorted tables keep the order of the records.
fn merge_tables(readers: &[SegmentReader<'_>]) -> Result<Vec<StateDeclaration>, SegmentError> {
    let mut states = std::collections::BTreeMap::<&str, &StateDeclaration>::new();
    for declared in readers.iter().flat_map(|reader| &reader.header.states) {
        if let Some(older) = states.insert(&declared.name, declared)
            && older.kind != declared.kind
        {
            return Err(SegmentError::StateDiffers {
                state: declared.name.clone(),
                was: kind_of(older.kind),
                is: kind_of(declared.kind),
            });
        }
    }
    Ok(states.into_values().cloned().collect())
}

fn open_input<'a>(reader: &'a SegmentReader<'a>, states: &[StateDeclaration]) -> Result<Input<'a>, SegmentError> {
    let rank = |name: &str| states.partition_point(|state| state.name.as_str() < name);
    let ranks: Vec<u16> = reader.header.states.iter().map(|state| rank(&state.name) as u16).collect();
    let domain = |state: &StateDeclaration| state.ttl.map(|ttl| ttl.domain);
    let foreign_stamps = (reader.header.states.iter().zip(&ranks))
        .map(|(state, rank)| domain(state) != domain(&states[usize::from(*rank)]))
        .collect();
    let records = reader.records(0..reader.header.key_groups);
    let mut input = Input { records, ranks, foreign_stamps, has_record: false };
    input.advance()?;
    Ok(input)
}
