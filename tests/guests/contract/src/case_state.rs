//! State of all four kinds, point access and batch access.

use crate::bindings::tidegate::streaming::state::{ListState, MapState, Reducer, ReducingState, ValueState};
use crate::bindings::tidegate::streaming::types::{Batch, BytesColumn};
use crate::{Answer, report, rows, show, show_column, show_option};

pub const REDUCERS: [(&str, Reducer, &str); 7] = [
    ("sum-s64", Reducer::SumS64, "s64"),
    ("sum-f64", Reducer::SumF64, "f64"),
    ("min-s64", Reducer::MinS64, "s64"),
    ("max-s64", Reducer::MaxS64, "s64"),
    ("min-f64", Reducer::MinF64, "f64"),
    ("max-f64", Reducer::MaxF64, "f64"),
    ("count", Reducer::Count, "s64"),
];

pub fn run(case: &str, batch: &Batch) -> Option<Answer> {
    match case {
        "value-point" => value_point("value", batch),
        "value-clear" => value_clear(batch),
        "value-column" => value_column(batch),
        "value-empty" => value_empty(batch),
        "fixed-all" => fixed_all(batch),
        "fixed-some" => fixed_some(batch),
        "map-point" => map_point(batch),
        "map-scan" => map_scan(batch),
        "map-remove-range" => map_remove_range(batch),
        "map-many" => map_many(batch),
        "map-keep" => map_keep("map", batch),
        "list-point" => list_point(batch),
        "list-many" => list_many(batch),
        "list-replace" => list_replace(batch),
        "reducing-point" => reducing_point(batch),
        "reducing-many" => reducing_many(batch),
        "reducing-clear" => reducing_clear(batch),
        "ttl-event" => value_point("ttl-event", batch),
        "ttl-processing" => value_point("ttl-processing", batch),
        "ttl-map" => map_keep("ttl-map", batch),
        _ => return None,
    }
    Some(Ok(Vec::new()))
}

pub fn column<'a>(strings: impl IntoIterator<Item = &'a [u8]>) -> BytesColumn {
    let (mut data, mut offsets) = (Vec::new(), vec![0]);
    for string in strings {
        data.extend_from_slice(string);
        offsets.push(data.len() as u32);
    }
    BytesColumn { data, offsets }
}

/// The slot and the value of each row.
fn values(batch: &Batch) -> impl Iterator<Item = (u32, &[u8])> {
    batch.slots.iter().copied().zip(rows::iter(&batch.rows).map(|row| row.value.unwrap_or_default()))
}

/// The last value of each slot, which is what a batch leaves behind.
fn last_values(batch: &Batch) -> Vec<&[u8]> {
    let mut last: Vec<&[u8]> = vec![b""; batch.key_count as usize];
    for (slot, value) in values(batch) {
        last[slot as usize] = value;
    }
    last
}

fn numbers(batch: &Batch) -> Vec<i64> {
    values(batch).map(|(_, value)| std::str::from_utf8(value).unwrap().parse().unwrap()).collect()
}

/// For each row: what is there, then put the row's value, then what is there now.
fn value_point(name: &str, batch: &Batch) {
    let state = ValueState::new(name);
    for (slot, value) in values(batch) {
        report("before", show_option(state.get(slot).as_deref()));
        state.put(slot, value);
        report("after", show_option(state.get(slot).as_deref()));
    }
}

fn value_clear(batch: &Batch) {
    let state = ValueState::new("value");
    for (slot, value) in values(batch) {
        report("before", show_option(state.get(slot).as_deref()));
        state.put(slot, value);
        state.clear(slot);
        report("after", show_option(state.get(slot).as_deref()));
    }
}

/// The whole column, then each slot's last value stored (slots in descending order), then the column again.
fn value_column(batch: &Batch) {
    let state = ValueState::new("value");
    report("before", show_column(&state.load()));
    let slots: Vec<u32> = (0..batch.key_count).rev().collect();
    let last = last_values(batch);
    state.store(&slots, &column(slots.iter().map(|slot| last[*slot as usize])));
    report("after", show_column(&state.load()));
}

/// Storing an empty value removes the entry, point access and batch access alike.
fn value_empty(batch: &Batch) {
    let state = ValueState::new("value");
    for slot in 0..batch.key_count {
        state.put(slot, b"something");
    }
    state.put(0, b"");
    report("after put", show_option(state.get(0).as_deref()));
    let slots: Vec<u32> = (0..batch.key_count).collect();
    state.store(&slots, &column(slots.iter().map(|_| &b""[..])));
    report("after store", show_column(&state.load()));
}

fn words(bytes: &[u8]) -> String {
    let words: Vec<_> = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()).to_string()).collect();
    words.join("|")
}

/// Counts the rows of each key.
fn fixed_all(batch: &Batch) {
    let state = ValueState::new("fixed");
    let mut counts = state.load_fixed();
    report("before", words(&counts));
    for slot in &batch.slots {
        let at = *slot as usize * 8;
        let count = u64::from_le_bytes(counts[at..at + 8].try_into().unwrap()) + 1;
        counts[at..at + 8].copy_from_slice(&count.to_le_bytes());
    }
    state.store_all_fixed(&counts);
    report("after", words(&state.load_fixed()));
}

/// Writes 100 + slot to slots 0, 2, 4, …; a zero to slot 1, if there is one, which is a value and no absence.
fn fixed_some(batch: &Batch) {
    let state = ValueState::new("fixed");
    let slots: Vec<u32> = (0..batch.key_count).step_by(2).collect();
    let values: Vec<u8> = slots.iter().flat_map(|slot| (100 + u64::from(*slot)).to_le_bytes()).collect();
    state.store_fixed(&slots, &values);
    report("after", words(&state.load_fixed()));
    if batch.key_count > 1 {
        state.store_fixed(&[1], &0_u64.to_le_bytes());
        report("zero", show_option(state.get(1).as_deref()));
        state.clear(1);
        report("cleared", show_option(state.get(1).as_deref()));
    }
}

fn map_point(batch: &Batch) {
    let state = MapState::new("map");
    for slot in 0..batch.key_count {
        state.clear(slot);
        report("empty at first", state.is_empty(slot));
        state.put(slot, b"a", b"1");
        state.put(slot, b"b", b"2");
        state.put(slot, b"b", b"3");
        report("a", show_option(state.get(slot, b"a").as_deref()));
        report("b", show_option(state.get(slot, b"b").as_deref()));
        report("c", show_option(state.get(slot, b"c").as_deref()));
        state.remove(slot, b"a");
        state.remove(slot, b"never there");
        report("contains a, b", format!("{}, {}", state.contains(slot, b"a"), state.contains(slot, b"b")));
        report("empty with b", state.is_empty(slot));
        state.put(slot, b"b", b"");
        report("empty after an empty value", state.is_empty(slot));
    }
}

fn show_rows(bytes: &[u8]) -> String {
    let entries: Vec<_> = rows::iter(bytes).map(|row| format!("{}={}", show(row.key), show_option(row.value))).collect();
    entries.join("|")
}

fn filled(batch: &Batch) -> MapState {
    let state = MapState::new("map");
    for slot in 0..batch.key_count {
        state.clear(slot);
        // Not in order: the map is.
        for key in ["d", "b", "e", "a", "c"] {
            state.put(slot, key.as_bytes(), format!("{key}{slot}").as_bytes());
        }
    }
    state
}

fn map_scan(batch: &Batch) {
    let state = filled(batch);
    for slot in 0..batch.key_count {
        report("all", show_rows(&state.scan(slot, None, None, 100)));
        report("b to d", show_rows(&state.scan(slot, Some(b"b"), Some(b"d"), 100)));
        report("from d", show_rows(&state.scan(slot, Some(b"d"), None, 100)));
        report("to b", show_rows(&state.scan(slot, None, Some(b"b"), 100)));
        report("two", show_rows(&state.scan(slot, None, None, 2)));
        report("two more", show_rows(&state.scan(slot, Some(b"b\0"), None, 2)));
        report("nothing", show_rows(&state.scan(slot, Some(b"x"), None, 2)));
        report("d to b", show_rows(&state.scan(slot, Some(b"d"), Some(b"b"), 100)));
    }
}

fn map_remove_range(batch: &Batch) {
    let state = filled(batch);
    for slot in 0..batch.key_count {
        state.remove_range(slot, Some(b"b"), Some(b"d"));
        report("without b and c", show_rows(&state.scan(slot, None, None, 100)));
        state.remove_range(slot, Some(b"e"), None);
        report("without e", show_rows(&state.scan(slot, None, None, 100)));
        state.remove_range(slot, None, None);
        report("without all", show_rows(&state.scan(slot, None, None, 100)));
    }
}

/// Every row's value is a map key; its entry counts how often it came. Then all of slot 0, by scan.
fn map_many(batch: &Batch) {
    let state = MapState::new("map");
    let keys: Vec<&[u8]> = values(batch).map(|(_, value)| value).collect();
    let loaded = state.load_many(&batch.slots, &column(keys.iter().copied()));
    report("before", show_column(&loaded));
    let stored: Vec<String> = (0..keys.len()).map(|row| format!("row {row}")).collect();
    state.store_many(&batch.slots, &column(keys.iter().copied()), &column(stored.iter().map(|text| text.as_bytes())));
    report("after", show_column(&state.load_many(&batch.slots, &column(keys.iter().copied()))));
    report("slot 0", show_rows(&state.scan(0, None, None, 100)));
    if let Some(key) = keys.first() {
        state.store_many(&batch.slots[..1], &column([*key]), &column([&b""[..]]));
        report("first removed", show_option(state.get(batch.slots[0], key).as_deref()));
    }
}

/// For each row: all entries, then the row's value put as a new map key. Shows what persists from batch to batch.
fn map_keep(name: &str, batch: &Batch) {
    let state = MapState::new(name);
    for (slot, value) in values(batch) {
        report("before", show_rows(&state.scan(slot, None, None, 100)));
        state.put(slot, value, b"+");
    }
}

fn list_point(batch: &Batch) {
    let state = ListState::new("list");
    for (slot, value) in values(batch) {
        report("length", state.length(slot));
        state.add(slot, value);
        report("all", show_column(&state.get(slot, 0, 100)));
        report("first", show_column(&state.get(slot, 0, 1)));
        report("second and third", show_column(&state.get(slot, 1, 2)));
        report("past the end", show_column(&state.get(slot, 1000, 2)));
    }
}

fn list_many(batch: &Batch) {
    let state = ListState::new("list");
    state.add_many(&batch.slots, &column(values(batch).map(|(_, value)| value)));
    for slot in 0..batch.key_count {
        report("all", show_column(&state.get(slot, 0, 100)));
    }
}

fn list_replace(batch: &Batch) {
    let state = ListState::new("list");
    for slot in 0..batch.key_count {
        state.add(slot, b"old");
        state.replace(slot, &column([&b"new"[..], b"newer"]));
        state.add(slot, b"newest");
        report("replaced", show_column(&state.get(slot, 0, 100)));
        state.clear(slot);
        report("cleared", state.length(slot));
        state.replace(slot, &column([]));
        report("replaced by nothing", state.length(slot));
    }
}

/// Values of the f64 reducers travel as their bits.
fn wire(reducer: Reducer, value: i64) -> i64 {
    match reducer {
        Reducer::SumF64 | Reducer::MinF64 | Reducer::MaxF64 => (value as f64 / 2.0).to_bits() as i64,
        _ => value,
    }
}

fn number(reducer: Reducer, wire: i64) -> String {
    match reducer {
        Reducer::SumF64 | Reducer::MinF64 | Reducer::MaxF64 => format!("{:?}", f64::from_bits(wire as u64)),
        _ => wire.to_string(),
    }
}

fn list_of(reducer: Reducer, numbers: &[i64]) -> String {
    let texts: Vec<_> = numbers.iter().map(|wire| number(reducer, *wire)).collect();
    texts.join("|")
}

/// Row values are whole numbers; the f64 reducers get half of them. One report for each row and reducer.
fn reducing_point(batch: &Batch) {
    let values = numbers(batch);
    for (name, reducer, _) in REDUCERS {
        let state = ReducingState::new(name);
        for (slot, value) in batch.slots.iter().zip(&values) {
            let before = state.get(*slot).map_or("none".to_owned(), |wire| number(reducer, wire));
            state.add(*slot, wire(reducer, *value));
            let after = state.get(*slot).map_or("none".to_owned(), |wire| number(reducer, wire));
            report(name, format!("{before} -> {after}"));
        }
    }
}

fn reducing_many(batch: &Batch) {
    let values = numbers(batch);
    for (name, reducer, _) in REDUCERS {
        let state = ReducingState::new(name);
        let wires: Vec<i64> = values.iter().map(|value| wire(reducer, *value)).collect();
        report(&format!("{name} new"), list_of(reducer, &state.add_many(&batch.slots, &wires, true)));
        report(&format!("{name} silent"), list_of(reducer, &state.add_many(&batch.slots, &wires, false)));
        report(&format!("{name} load"), list_of(reducer, &state.load()));
    }
}

fn reducing_clear(batch: &Batch) {
    for (name, reducer, _) in REDUCERS {
        let state = ReducingState::new(name);
        for slot in 0..batch.key_count {
            state.add(slot, wire(reducer, 7));
            state.clear(slot);
            report(name, state.get(slot).map_or("none".to_owned(), |wire| number(reducer, wire)));
            state.add(slot, wire(reducer, -3));
            report(name, state.get(slot).map_or("none".to_owned(), |wire| number(reducer, wire)));
            state.clear(slot);
        }
    }
}
