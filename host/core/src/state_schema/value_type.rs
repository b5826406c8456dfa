//! Types of state values in WIT notation.
//!
//! ```text
//! type   := bool | u8 u16 u32 u64 | s8 s16 s32 s64 | f32 f64 | char | string | bytes
//!         | tuple<type, …> | list<type> | option<type> | record { name: type, … } | enum { name, … }
//! ```
//!
//! Invariants:
//! * what is displayed parses to the same type;
//! * parsing is bounded in length and depth before it recurses;
//! * a type has a packed size exactly if it is a scalar or a tuple of such types.

use crate::job_graph::similar;
use crate::limits::{VALUE_TYPE_BYTES_MAX, VALUE_TYPE_DEPTH_MAX};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F32,
    F64,
    Char,
    String,
    /// Without a structure that the host knows.
    Bytes,
    Tuple(Vec<ValueType>),
    Record(Vec<(String, ValueType)>),
    List(Box<ValueType>),
    Option(Box<ValueType>),
    Enum(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    #[error("has {bytes} bytes, which exceeds the limit of {VALUE_TYPE_BYTES_MAX} (value_type_bytes_max)")]
    TooLong { bytes: usize },
    #[error("is nested deeper than {VALUE_TYPE_DEPTH_MAX} (value_type_depth_max) at byte {at}")]
    TooDeep { at: usize },
    #[error("has {found} at byte {at} where {expected} was expected")]
    Unexpected { at: usize, found: String, expected: &'static str },
    #[error("has the unknown type \"{name}\" at byte {at}{hint}")]
    UnknownType { at: usize, name: String, hint: String },
    #[error("names \"{name}\" twice at byte {at}")]
    Twice { at: usize, name: String },
}

/// A value whose size is not that of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a value of type {value_type} has {expected} bytes, this one has {found}")]
pub struct WrongSize {
    pub value_type: ValueType,
    pub expected: u32,
    pub found: usize,
}

const SCALARS: [(&str, ValueType); 14] = [
    ("bool", ValueType::Bool),
    ("u8", ValueType::U8),
    ("u16", ValueType::U16),
    ("u32", ValueType::U32),
    ("u64", ValueType::U64),
    ("s8", ValueType::S8),
    ("s16", ValueType::S16),
    ("s32", ValueType::S32),
    ("s64", ValueType::S64),
    ("f32", ValueType::F32),
    ("f64", ValueType::F64),
    ("char", ValueType::Char),
    ("string", ValueType::String),
    ("bytes", ValueType::Bytes),
];
const CONSTRUCTORS: [&str; 5] = ["tuple", "record", "list", "option", "enum"];

impl ValueType {
    pub fn parse(text: &str) -> Result<Self, TypeError> {
        if text.len() > VALUE_TYPE_BYTES_MAX {
            return Err(TypeError::TooLong { bytes: text.len() });
        }
        let mut parser = Parser { text, at: 0 };
        let parsed = parser.value_type(0)?;
        parser.skip_space();
        if parser.at < text.len() {
            return Err(parser.unexpected("the end"));
        }
        Ok(parsed)
    }

    /// Bytes of every value: scalars and tuples of them are stored packed and little endian, a bool in one byte, a char in
    /// four. `None`: values differ in size. Strings and bytes are stored as they are, everything else as CBOR.
    pub fn packed_size(&self) -> Option<u32> {
        Some(match self {
            Self::Bool | Self::U8 | Self::S8 => 1,
            Self::U16 | Self::S16 => 2,
            Self::U32 | Self::S32 | Self::F32 | Self::Char => 4,
            Self::U64 | Self::S64 | Self::F64 => 8,
            Self::Tuple(parts) => return parts.iter().map(Self::packed_size).sum(),
            Self::String | Self::Bytes | Self::Record(_) | Self::List(_) | Self::Option(_) | Self::Enum(_) => return None,
        })
    }

    /// Whether a stored value can be of this type, as far as its size tells.
    pub fn check_packed(&self, value: &[u8]) -> Result<(), WrongSize> {
        match self.packed_size() {
            Some(expected) if expected as usize != value.len() => {
                Err(WrongSize { value_type: self.clone(), expected, found: value.len() })
            }
            _ => Ok(()),
        }
    }

    /// Whether values can be keys of a map state: packed big endian, or plain bytes, they sort as they should.
    pub fn is_map_key(&self) -> bool {
        matches!(self, Self::String | Self::Bytes) || self.packed_size().is_some()
    }
}

impl std::str::FromStr for ValueType {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        Self::parse(text)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = SCALARS.iter().find(|(_, scalar)| scalar == self) {
            return f.write_str(name);
        }
        match self {
            Self::Tuple(parts) => {
                f.write_str("tuple<")?;
                separated(f, parts, |f, part| write!(f, "{part}"))?;
                f.write_str(">")
            }
            Self::Record(fields) => {
                f.write_str("record { ")?;
                separated(f, fields, |f, (name, value_type)| write!(f, "{name}: {value_type}"))?;
                f.write_str(" }")
            }
            Self::Enum(cases) => {
                f.write_str("enum { ")?;
                separated(f, cases, |f, case| f.write_str(case))?;
                f.write_str(" }")
            }
            Self::List(element) => write!(f, "list<{element}>"),
            Self::Option(inner) => write!(f, "option<{inner}>"),
            _ => unreachable!("BUG: a scalar without a name"),
        }
    }
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut each: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn value_type(&mut self, depth: usize) -> Result<ValueType, TypeError> {
        self.skip_space();
        let at = self.at;
        if depth >= VALUE_TYPE_DEPTH_MAX {
            return Err(TypeError::TooDeep { at });
        }
        let name = self.name("a type")?;
        if let Some((_, scalar)) = SCALARS.iter().find(|(scalar, _)| *scalar == name) {
            return Ok(scalar.clone());
        }
        match name {
            "tuple" => Ok(ValueType::Tuple(self.items(b'<', b'>', "\",\" or \">\"", |parser| parser.value_type(depth + 1))?)),
            "list" => Ok(ValueType::List(Box::new(self.one_in_brackets(depth)?))),
            "option" => Ok(ValueType::Option(Box::new(self.one_in_brackets(depth)?))),
            "record" => {
                let mut fields: Vec<(String, ValueType)> = Vec::new();
                self.items(b'{', b'}', "\",\" or \"}\"", |parser| {
                    let at = parser.at;
                    let name = parser.name("the name of a field")?.to_string();
                    if fields.iter().any(|(other, _)| *other == name) {
                        return Err(TypeError::Twice { at, name });
                    }
                    parser.expect(b':', "\":\"")?;
                    fields.push((name, parser.value_type(depth + 1)?));
                    Ok(())
                })?;
                Ok(ValueType::Record(fields))
            }
            "enum" => {
                let mut cases: Vec<String> = Vec::new();
                self.items(b'{', b'}', "\",\" or \"}\"", |parser| {
                    let at = parser.at;
                    let name = parser.name("the name of a case")?.to_string();
                    if cases.contains(&name) {
                        return Err(TypeError::Twice { at, name });
                    }
                    cases.push(name);
                    Ok(())
                })?;
                Ok(ValueType::Enum(cases))
            }
            _ => Err(TypeError::UnknownType { at, name: name.chars().take(40).collect(), hint: hint(name) }),
        }
    }

    fn one_in_brackets(&mut self, depth: usize) -> Result<ValueType, TypeError> {
        self.expect(b'<', "\"<\"")?;
        let inner = self.value_type(depth + 1)?;
        self.expect(b'>', "\">\"")?;
        Ok(inner)
    }

    /// One or more, separated by commas; as in WIT the last may have one too.
    fn items<T>(
        &mut self,
        open: u8,
        close: u8,
        comma_or_close: &'static str,
        mut each: impl FnMut(&mut Self) -> Result<T, TypeError>,
    ) -> Result<Vec<T>, TypeError> {
        self.expect(open, if open == b'<' { "\"<\"" } else { "\"{\"" })?;
        let mut items = Vec::new();
        loop {
            self.skip_space();
            items.push(each(self)?);
            let comma = self.take(b',');
            if self.take(close) {
                return Ok(items);
            }
            if !comma {
                return Err(self.unexpected(comma_or_close));
            }
        }
    }

    /// `[a-z][a-z0-9-]*`
    fn name(&mut self, expected: &'static str) -> Result<&'a str, TypeError> {
        let rest = &self.text[self.at..];
        if !rest.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(self.unexpected(expected));
        }
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')).unwrap_or(rest.len());
        self.at += end;
        Ok(&rest[..end])
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), TypeError> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.text.as_bytes().get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn unexpected(&self, expected: &'static str) -> TypeError {
        let found = self.text[self.at..].chars().next().map_or("the end".to_string(), |c| format!("{c:?}"));
        TypeError::Unexpected { at: self.at, found, expected }
    }
}

/// Other languages' names for the same things.
fn hint(name: &str) -> String {
    let meant = match name {
        "i8" => Some("s8"),
        "i16" => Some("s16"),
        "i32" | "int" => Some("s32"),
        "i64" | "long" => Some("s64"),
        "float32" | "float" => Some("f32"),
        "float64" | "double" => Some("f64"),
        "str" | "text" => Some("string"),
        "boolean" => Some("bool"),
        _ => None,
    };
    match meant {
        Some(meant) => format!("; did you mean \"{meant}\"?"),
        None => similar::did_you_mean(name, SCALARS.iter().map(|(scalar, _)| *scalar).chain(CONSTRUCTORS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_notation_parses() {
        for (text, size) in [
            ("bool", Some(1)),
            ("u8", Some(1)),
            ("s16", Some(2)),
            ("char", Some(4)),
            ("f32", Some(4)),
            ("u64", Some(8)),
            ("tuple<u64, f64>", Some(16)),
            ("tuple<bool, tuple<u32, char>>", Some(9)),
            ("tuple<u64, string>", None),
            ("string", None),
            ("bytes", None),
            ("record { count: u64, sum: f64 }", None),
            ("list<u8>", None),
            ("option<u8>", None),
            ("enum { on-time, late }", None),
            ("list<option<record { a: enum { x } }>>", None),
        ] {
            let parsed = ValueType::parse(text).unwrap_or_else(|e| panic!("{text} {e}"));
            assert_eq!(parsed.to_string(), text);
            assert_eq!(parsed.packed_size(), size, "{text}");
        }
    }

    #[test]
    fn space_and_a_last_comma_do_not_matter() {
        assert_eq!(ValueType::parse("  tuple < u8,\n\tu16 , > ").unwrap().to_string(), "tuple<u8, u16>");
        assert_eq!(ValueType::parse("record{a:u8,b:f64,}").unwrap().to_string(), "record { a: u8, b: f64 }");
    }

    #[test]
    fn errors_name_the_place_and_what_was_expected() {
        let error = |text: &str| ValueType::parse(text).unwrap_err().to_string();
        assert_eq!(error(""), "has the end at byte 0 where a type was expected");
        assert_eq!(error("tuple<>"), "has '>' at byte 6 where a type was expected");
        assert_eq!(error("tuple<u8 u8>"), "has 'u' at byte 9 where \",\" or \">\" was expected");
        assert_eq!(error("list<u8, u8>"), "has ',' at byte 7 where \">\" was expected");
        assert_eq!(error("u64 x"), "has 'x' at byte 4 where the end was expected");
        assert_eq!(error("record { a: u8, a: u8 }"), "names \"a\" twice at byte 16");
        assert_eq!(error("enum { a, a }"), "names \"a\" twice at byte 10");
        assert_eq!(error("i64"), "has the unknown type \"i64\" at byte 0; did you mean \"s64\"?");
        assert_eq!(error("list<strng>"), "has the unknown type \"strng\" at byte 5; did you mean \"string\"?");
        assert_eq!(error("Ünsinn"), "has 'Ü' at byte 0 where a type was expected");
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let nested = |depth: usize| format!("{}u8{}", "list<".repeat(depth), ">".repeat(depth));
        assert!(ValueType::parse(&nested(VALUE_TYPE_DEPTH_MAX - 1)).is_ok());
        assert!(matches!(ValueType::parse(&nested(VALUE_TYPE_DEPTH_MAX)), Err(TypeError::TooDeep { .. })));
        assert_eq!(ValueType::parse(&" ".repeat(5000)), Err(TypeError::TooLong { bytes: 5000 }));
    }

    #[test]
    fn a_value_of_the_wrong_size_is_told() {
        let pair = ValueType::parse("tuple<u64, f64>").unwrap();
        assert_eq!(pair.check_packed(&[0; 16]), Ok(()));
        assert_eq!(
            pair.check_packed(&[0; 12]).unwrap_err().to_string(),
            "a value of type tuple<u64, f64> has 16 bytes, this one has 12"
        );
        assert_eq!(ValueType::String.check_packed(b"any"), Ok(()));
    }

    fn any_type() -> impl Strategy<Value = ValueType> {
        let scalar = proptest::sample::select(SCALARS.iter().map(|(_, scalar)| scalar.clone()).collect::<Vec<_>>());
        let names = || proptest::collection::btree_set("[a-z][a-z0-9-]{0,8}", 1..4);
        scalar.prop_recursive(5, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 1..4).prop_map(ValueType::Tuple),
                inner.clone().prop_map(|t| ValueType::List(Box::new(t))),
                inner.clone().prop_map(|t| ValueType::Option(Box::new(t))),
                (names(), inner).prop_map(|(names, t)| ValueType::Record(names.into_iter().map(|n| (n, t.clone())).collect())),
                names().prop_map(|names| ValueType::Enum(names.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same_type(value_type in any_type()) {
            let text = value_type.to_string();
            if text.len() <= VALUE_TYPE_BYTES_MAX {
                prop_assert_eq!(ValueType::parse(&text), Ok(value_type));
            }
        }

        #[test]
        fn any_text_gives_an_answer(text in "\\PC*", almost in "(tuple|record|list|enum)? ?[<{]?[a-z0-9:,<>{} ]{0,40}") {
            let _ = ValueType::parse(&text);
            let _ = ValueType::parse(&almost);
        }
    }
}
