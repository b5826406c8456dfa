//! What a component declares about its states, and the types their values have.
//!
//! Scalars and tuples of them are stored packed and little endian, records as CBOR maps, map keys packed big endian so that
//! bytes sort as values do. So every SDK reads what another wrote.
//!
//! Invariant: behind [`validate`] every value type parses, every declared size agrees with its type, and every name is one that
//! can stand in a path, a metric and a segment.

mod value_type;

pub use value_type::{TypeError, ValueType, WrongSize};

use crate::limits::{DURATION_MS_MAX, GuestLimits, VALUE_SIZE_BYTES};
use crate::problem::Problem;
use crate::units::format_duration_ms;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A reducing state holds one number.
const REDUCING_BYTES: u32 = 8;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateDeclaration {
    pub name: String,
    pub kind: StateKind,
    /// In WIT notation, or `bytes`.
    pub value_type: String,
    pub map_key_type: Option<String>,
    pub schema_version: u32,
    /// All values have this many bytes.
    pub value_size: Option<u32>,
    pub ttl: Option<TimeToLive>,
}

impl StateDeclaration {
    /// Bytes of every value, where that is declared or follows from the kind: such values lie side by side.
    pub fn fixed_size(&self) -> Option<u32> {
        match self.kind {
            StateKind::Reducing(_) => Some(REDUCING_BYTES),
            _ => self.value_size,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StateKind {
    Value,
    Map,
    List,
    Reducing(Reducer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reducer {
    SumS64,
    SumF64,
    MinS64,
    MaxS64,
    MinF64,
    MaxF64,
    Count,
}

impl Reducer {
    pub fn name(self) -> &'static str {
        match self {
            Self::SumS64 => "sum-s64",
            Self::SumF64 => "sum-f64",
            Self::MinS64 => "min-s64",
            Self::MaxS64 => "max-s64",
            Self::MinF64 => "min-f64",
            Self::MaxF64 => "max-f64",
            Self::Count => "count",
        }
    }

    /// The types that its numbers can be declared as.
    fn value_types(self) -> &'static [ValueType] {
        match self {
            Self::SumS64 | Self::MinS64 | Self::MaxS64 => &[ValueType::S64],
            Self::SumF64 | Self::MinF64 | Self::MaxF64 => &[ValueType::F64],
            Self::Count => &[ValueType::S64, ValueType::U64],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TimeDomain {
    EventTime,
    ProcessingTime,
}

/// Since the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeToLive {
    pub ms: u64,
    pub domain: TimeDomain,
}

/// Everything that is wrong with the states that a component declares, by `states.NAME.FIELD` (`states[2].name` where the name
/// itself is at fault).
pub fn validate(states: &[StateDeclaration], limits: &GuestLimits) -> Vec<Problem> {
    let mut problems = Vec::new();
    if states.len() > limits.declarations_max {
        let message = format!("{} states exceed the limit of {} (declarations_max)", states.len(), limits.declarations_max);
        problems.push(Problem::new("states", None, message));
        // Nobody reads thousands of further lines.
        return problems;
    }
    let mut names = BTreeMap::new();
    for (i, state) in states.iter().enumerate() {
        let place = match name_problem(&state.name, limits) {
            Some(message) => {
                problems.push(Problem::new(format!("states[{i}].name"), Some(quoted(&state.name)), message));
                format!("states[{i}]")
            }
            None => match names.insert(state.name.as_str(), i) {
                Some(first) => {
                    let message = format!("is already the name of states[{first}]");
                    problems.push(Problem::new(format!("states[{i}].name"), Some(quoted(&state.name)), message));
                    format!("states[{i}]")
                }
                None => format!("states.{}", state.name),
            },
        };
        let mut report = |field: &str, value: Option<String>, message: String| {
            problems.push(Problem::new(format!("{place}.{field}"), value, message));
        };
        check_value_type(state, limits, &mut report);
        check_map_key(state, &mut report);
        if let Some(ttl) = state.ttl
            && !(1..=DURATION_MS_MAX).contains(&ttl.ms)
        {
            let message =
                format!("must be 1 ms to {}; leave ttl out to keep values for ever", format_duration_ms(DURATION_MS_MAX));
            report("ttl", Some(ttl.ms.to_string()), message);
        }
    }
    problems
}

fn check_value_type(state: &StateDeclaration, limits: &GuestLimits, report: &mut impl FnMut(&str, Option<String>, String)) {
    let value_type = match ValueType::parse(&state.value_type) {
        Ok(value_type) => Some(value_type),
        Err(e) => {
            report("value-type", Some(quoted(&state.value_type)), e.to_string());
            None
        }
    };
    if let (StateKind::Reducing(reducer), Some(value_type)) = (state.kind, &value_type) {
        let allowed = reducer.value_types();
        if !allowed.contains(value_type) {
            let allowed: Vec<String> = allowed.iter().map(ValueType::to_string).collect();
            let message = format!("the reducer {} keeps numbers of type {}", reducer.name(), allowed.join(" or "));
            report("value-type", Some(quoted(&state.value_type)), message);
            return;
        }
    }
    let Some(size) = state.value_size else { return };
    let value = Some(size.to_string());
    let (least, most) = (*VALUE_SIZE_BYTES.start(), *VALUE_SIZE_BYTES.end());
    if !VALUE_SIZE_BYTES.contains(&size) {
        report("value-size", value, format!("must be {least} to {most} bytes (value_size_bytes)"));
    } else if size as usize > limits.state_value_bytes_max {
        let message = format!("exceeds the limit of {} (state_value_bytes_max)", limits.state_value_bytes_max);
        report("value-size", value, message);
    } else if let Some(value_type) = value_type {
        match value_type.packed_size() {
            Some(packed) if packed != size => {
                report("value-size", value, format!("a packed {value_type} has {packed} bytes"));
            }
            // Opaque bytes may have one size all the same: the guest says so, and is held to it.
            None if value_type != ValueType::Bytes => {
                let message =
                    format!("values of type {value_type} differ in size; leave value-size out, or declare the type as bytes");
                report("value-size", value, message);
            }
            _ => {}
        }
    }
}

fn check_map_key(state: &StateDeclaration, report: &mut impl FnMut(&str, Option<String>, String)) {
    match (state.kind, &state.map_key_type) {
        (StateKind::Map, None) => {
            report("map-key-type", None, "is missing: a map state declares the type of its keys".to_string())
        }
        (StateKind::Map, Some(text)) => {
            let message = match ValueType::parse(text) {
                Ok(key_type) if key_type.is_map_key() => return,
                Ok(_) => "can't be a map key: use a scalar, a tuple of scalars, string or bytes".to_string(),
                Err(e) => e.to_string(),
            };
            report("map-key-type", Some(quoted(text)), message);
        }
        (_, Some(text)) => report("map-key-type", Some(quoted(text)), "only a map state has keys of its own".to_string()),
        (_, None) => {}
    }
}

fn name_problem(name: &str, limits: &GuestLimits) -> Option<String> {
    let pattern = "must be lower-case letters, digits and hyphens, beginning with a letter ([a-z][a-z0-9-]*)";
    if name.is_empty() {
        return Some(format!("is empty; it {pattern}"));
    }
    if name.len() > limits.name_bytes_max {
        return Some(format!("has {} bytes, which exceeds the limit of {} (name_bytes_max)", name.len(), limits.name_bytes_max));
    }
    let rest_is_right = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (!rest_is_right || !name.starts_with(|c: char| c.is_ascii_lowercase())).then(|| pattern.to_string())
}

/// What a guest says is shown, but not at any length.
fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, kind: StateKind, value_type: &str) -> StateDeclaration {
        let map_key_type = (kind == StateKind::Map).then(|| "string".to_string());
        StateDeclaration {
            name: name.to_string(),
            kind,
            value_type: value_type.to_string(),
            map_key_type,
            schema_version: 1,
            value_size: None,
            ttl: None,
        }
    }

    fn problems(states: &[StateDeclaration]) -> Vec<String> {
        validate(states, &GuestLimits::default()).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn right_declarations_have_no_problem() {
        let mut fixed = state("totals", StateKind::Value, "tuple<u64, f64>");
        fixed.value_size = Some(16);
        fixed.ttl = Some(TimeToLive { ms: 1, domain: TimeDomain::EventTime });
        let mut opaque = state("opaque", StateKind::Value, "bytes");
        opaque.value_size = Some(24);
        let mut by_pair = state("by-pair", StateKind::Map, "record { a: u64 }");
        by_pair.map_key_type = Some("tuple<u64, u8>".to_string());
        let mut declared = state("n2", StateKind::Reducing(Reducer::Count), "u64");
        declared.value_size = Some(8);
        let states = [
            fixed,
            opaque,
            by_pair,
            declared,
            state("seen", StateKind::List, "string"),
            state("n", StateKind::Reducing(Reducer::Count), "s64"),
            state("max", StateKind::Reducing(Reducer::MaxF64), "f64"),
        ];
        assert_eq!(problems(&states), Vec::<String>::new());
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let mut totals = state("totals", StateKind::Value, "tuple<u64, f64>");
        totals.value_size = Some(12);
        totals.map_key_type = Some("u64".to_string());
        totals.ttl = Some(TimeToLive { ms: 0, domain: TimeDomain::ProcessingTime });
        let mut map = state("map", StateKind::Map, "list<u88>");
        map.map_key_type = Some("record { a: u8 }".to_string());
        let mut bare = state("bare", StateKind::Map, "u8");
        bare.map_key_type = None;
        let mut name = state("name", StateKind::Value, "string");
        name.value_size = Some(8);
        let mut big = state("big", StateKind::Value, "bytes");
        big.value_size = Some(1 << 20);
        let states = [
            state("Totals", StateKind::Value, "u8"),
            totals,
            state("totals", StateKind::Value, "u8"),
            map,
            bare,
            name,
            big,
            state("sum", StateKind::Reducing(Reducer::SumS64), "u64"),
            state("count", StateKind::Reducing(Reducer::Count), "f64"),
            state("", StateKind::Value, "u8"),
        ];
        let forever = "states.totals.ttl = 0: must be 1 ms to 36500d; leave ttl out to keep values for ever";
        assert_eq!(
            problems(&states),
            [
                "states[0].name = \"Totals\": must be lower-case letters, digits and hyphens, beginning with a letter ([a-z][a-z0-9-]*)",
                "states.totals.value-size = 12: a packed tuple<u64, f64> has 16 bytes",
                "states.totals.map-key-type = \"u64\": only a map state has keys of its own",
                forever,
                "states[2].name = \"totals\": is already the name of states[1]",
                "states.map.value-type = \"list<u88>\": has the unknown type \"u88\" at byte 5; did you mean \"u8\"?",
                "states.map.map-key-type = \"record { a: u8 }\": can't be a map key: use a scalar, a tuple of scalars, string or bytes",
                "states.bare.map-key-type: is missing: a map state declares the type of its keys",
                "states.name.value-size = 8: values of type string differ in size; leave value-size out, or declare the type as bytes",
                "states.big.value-size = 1048576: must be 1 to 65536 bytes (value_size_bytes)",
                "states.sum.value-type = \"u64\": the reducer sum-s64 keeps numbers of type s64",
                "states.count.value-type = \"f64\": the reducer count keeps numbers of type s64 or u64",
                "states[9].name = \"\": is empty; it must be lower-case letters, digits and hyphens, beginning with a letter ([a-z][a-z0-9-]*)",
            ]
        );
    }

    #[test]
    fn too_many_states_are_one_problem() {
        let states: Vec<_> = (0..65).map(|i| state(&format!("s{i}"), StateKind::Value, "nonsense")).collect();
        assert_eq!(problems(&states), ["states: 65 states exceed the limit of 64 (declarations_max)"]);
    }

    #[test]
    fn reducing_states_have_eight_bytes_others_what_they_declare() {
        let mut value = state("v", StateKind::Value, "bytes");
        assert_eq!(value.fixed_size(), None);
        value.value_size = Some(24);
        assert_eq!(value.fixed_size(), Some(24));
        assert_eq!(state("n", StateKind::Reducing(Reducer::Count), "u64").fixed_size(), Some(8));
    }
}
