//! Just enough CBOR (RFC 8949) for records: maps with text keys, deterministic on writing, forgiving on reading.
//!
//! Written: fields in the order of the struct, shortest integers, floats always as 64 bits (32 for `f32`), definite lengths. Read:
//! fields in any order; one that is missing becomes its type's zero; one that is not known is skipped, whatever it holds. So
//! adding or dropping a field needs no migration.

use super::DecodeError;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const HALF: u8 = 0xf9;
const FLOAT32: u8 = 0xfa;
const FLOAT64: u8 = 0xfb;

/// Nesting of values that are skipped: more is no record of ours.
const DEPTH_MAX: u32 = 32;

/// A type that a field of a record can have.
pub trait CborField: Sized {
    fn wit_type(out: &mut String);
    fn write(&self, out: &mut Vec<u8>);
    fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError>;

    /// What a missing field is.
    fn zero() -> Self;
}

fn write_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..24 => out.push(major | argument as u8),
        24..0x100 => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

pub fn write_map(out: &mut Vec<u8>, fields: usize) {
    write_head(out, MAP, fields as u64);
}

pub fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Walks encoded CBOR.
#[derive(Debug, Clone)]
pub struct CborReader<'a> {
    rest: &'a [u8],
}

impl<'a> CborReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Nothing may follow a record.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError(format!("{} bytes follow the record", self.rest.len()))) }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        let left = self.rest.len();
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or_else(|| DecodeError(format!("{len} bytes of CBOR expected, {left} left")))?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn head(&mut self) -> Result<(u8, u64), DecodeError> {
        let first = self.byte()?;
        let argument = match first & 0x1f {
            short @ 0..24 => u64::from(short),
            24 => u64::from(self.byte()?),
            25 => u64::from(u16::from_be_bytes(self.array()?)),
            26 => u64::from(u32::from_be_bytes(self.array()?)),
            27 => u64::from_be_bytes(self.array()?),
            other => return Err(DecodeError(format!("CBOR length {other} is not supported"))),
        };
        Ok((first >> 5, argument))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn expect(&mut self, major: u8, what: &str) -> Result<u64, DecodeError> {
        match self.head()? {
            (found, argument) if found == major => Ok(argument),
            (found, _) => Err(DecodeError(format!("{what} expected, CBOR type {found} found"))),
        }
    }

    pub fn map(&mut self) -> Result<u64, DecodeError> {
        self.expect(MAP, "a map")
    }

    pub fn list(&mut self) -> Result<u64, DecodeError> {
        self.expect(ARRAY, "a list")
    }

    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.expect(TEXT, "text")?;
        std::str::from_utf8(self.take(len)?).map_err(|error| DecodeError(error.to_string()))
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.expect(BYTES, "bytes")?;
        self.take(len)
    }

    fn integer(&mut self) -> Result<i128, DecodeError> {
        match self.head()? {
            (UNSIGNED, argument) => Ok(i128::from(argument)),
            (NEGATIVE, argument) => Ok(-1 - i128::from(argument)),
            (found, _) => Err(DecodeError(format!("an integer expected, CBOR type {found} found"))),
        }
    }

    /// Floats of every width, and integers, which other languages write for whole numbers.
    fn float(&mut self) -> Result<f64, DecodeError> {
        match self.rest.first() {
            Some(&FLOAT64) => {
                self.byte()?;
                Ok(f64::from_be_bytes(self.array()?))
            }
            Some(&FLOAT32) => {
                self.byte()?;
                Ok(f64::from(f32::from_be_bytes(self.array()?)))
            }
            Some(&HALF) => {
                self.byte()?;
                Ok(half(u16::from_be_bytes(self.array()?)))
            }
            _ => Ok(self.integer()? as f64),
        }
    }

    fn is_null(&self) -> bool {
        self.rest.first() == Some(&NULL)
    }

    /// Passes over one value of whatever type.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), DecodeError> {
        if depth > DEPTH_MAX {
            return Err(DecodeError(format!("CBOR nested deeper than {DEPTH_MAX}")));
        }
        match self.head()? {
            (BYTES | TEXT, len) => self.take(len).map(drop),
            (ARRAY, count) => (0..count).try_for_each(|_| self.skip_nested(depth + 1)),
            (MAP, count) => (0..count.saturating_mul(2)).try_for_each(|_| self.skip_nested(depth + 1)),
            (TAG, _) => self.skip_nested(depth + 1),
            // The argument of a simple value or a float was its content.
            (UNSIGNED | NEGATIVE | SIMPLE, _) => Ok(()),
            _ => unreachable!("three bits have eight values"),
        }
    }
}

fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    }
}

macro_rules! integers {
    ($($type:ty: $wit:literal),*) => {$(
        impl CborField for $type {
            fn wit_type(out: &mut String) {
                out.push_str($wit);
            }

            #[allow(unused_comparisons, clippy::absurd_extreme_comparisons)]
            fn write(&self, out: &mut Vec<u8>) {
                if *self < 0 {
                    write_head(out, NEGATIVE, !(*self as i64) as u64);
                } else {
                    write_head(out, UNSIGNED, *self as u64);
                }
            }

            fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError> {
                let number = reader.integer()?;
                number.try_into().map_err(|_| DecodeError(format!("{number} does not fit {}", $wit)))
            }

            fn zero() -> Self {
                0
            }
        }
    )*};
}

integers!(u8: "u8", u16: "u16", u32: "u32", u64: "u64", i8: "s8", i16: "s16", i32: "s32", i64: "s64");

impl CborField for f64 {
    fn wit_type(out: &mut String) {
        out.push_str("f64");
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(FLOAT64);
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError> {
        reader.float()
    }

    fn zero() -> Self {
        0.0
    }
}

impl CborField for f32 {
    fn wit_type(out: &mut String) {
        out.push_str("f32");
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(FLOAT32);
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError> {
        reader.float().map(|wide| wide as Self)
    }

    fn zero() -> Self {
        0.0
    }
}

impl CborField for bool {
    fn wit_type(out: &mut String) {
        out.push_str("bool");
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(if *self { TRUE } else { FALSE });
    }

    fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError> {
        match reader.byte()? {
            TRUE => Ok(true),
            FALSE => Ok(false),
            other => Err(DecodeError(format!("a truth value expected, CBOR byte {other:#04x} found"))),
        }
    }

    fn zero() -> Self {
        false
    }
}

impl CborField for String {
    fn wit_type(out: &mut String) {
        out.push_str("string");
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_text(out, self);
    }

    fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError> {
        reader.text().map(Self::from)
    }

    fn zero() -> Self {
        Self::new()
    }
}

/// Bytes as a CBOR byte string; other lists as arrays. `u8` has no list of its own, so the two don't collide.
impl CborField for Vec<u8> {
    fn wit_type(out: &mut String) {
        out.push_str("list<u8>");
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_head(out, BYTES, self.len() as u64);
        out.extend_from_slice(self);
    }

    fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError> {
        reader.bytes().map(<[u8]>::to_vec)
    }

    fn zero() -> Self {
        Self::new()
    }
}

/// A field type whose lists are arrays: everything but `u8`.
pub trait CborElement: CborField {}

macro_rules! elements {
    ($($type:ty),*) => {$(impl CborElement for $type {})*};
}
elements!(u16, u32, u64, i8, i16, i32, i64, f32, f64, bool, String);

impl<T: CborElement> CborField for Vec<T> {
    fn wit_type(out: &mut String) {
        out.push_str("list<");
        T::wit_type(out);
        out.push('>');
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_head(out, ARRAY, self.len() as u64);
        for element in self {
            element.write(out);
        }
    }

    fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError> {
        let count = reader.list()?;
        // Not `with_capacity`: the count is whatever the bytes say.
        (0..count).map(|_| T::read(reader)).collect()
    }

    fn zero() -> Self {
        Self::new()
    }
}

impl<T: CborField> CborField for Option<T> {
    fn wit_type(out: &mut String) {
        out.push_str("option<");
        T::wit_type(out);
        out.push('>');
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => out.push(NULL),
        }
    }

    fn read(reader: &mut CborReader<'_>) -> Result<Self, DecodeError> {
        if reader.is_null() {
            reader.byte()?;
            return Ok(None);
        }
        T::read(reader).map(Some)
    }

    fn zero() -> Self {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &impl CborField) -> Vec<u8> {
        let mut out = Vec::new();
        value.write(&mut out);
        out
    }

    fn read<T: CborField>(bytes: &[u8]) -> Result<T, DecodeError> {
        let mut reader = CborReader::new(bytes);
        let value = T::read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    #[test]
    fn the_bytes_are_those_of_the_rfc() {
        // Examples of RFC 8949, appendix A.
        assert_eq!(written(&23_u8), [0x17]);
        assert_eq!(written(&24_u8), [0x18, 0x18]);
        assert_eq!(written(&1000_u64), [0x19, 0x03, 0xe8]);
        assert_eq!(written(&u64::MAX), [0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(written(&-1_i64), [0x20]);
        assert_eq!(written(&-1000_i32), [0x39, 0x03, 0xe7]);
        assert_eq!(written(&i64::MIN), [0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(written(&1.1_f64), [0xfb, 0x3f, 0xf1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a]);
        assert_eq!(written(&vec![1_u8, 2]), [0x42, 1, 2]);
        assert_eq!(written(&vec![1_u16, 2]), [0x82, 1, 2]);
        assert_eq!(written(&"\u{fc}".to_owned()), [0x62, 0xc3, 0xbc]);
        assert_eq!(written(&None::<u8>), [0xf6]);
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(read(&written(&i64::MIN)), Ok(i64::MIN));
        assert_eq!(read(&written(&vec!["a".to_owned(), String::new()])), Ok(vec!["a".to_owned(), String::new()]));
        assert_eq!(read(&written(&Some(true))), Ok(Some(true)));
        assert_eq!(read(&written(&None::<String>)), Ok(None::<String>));
        // What other languages write for floats.
        assert_eq!(read(&[0xf9, 0x3c, 0x00]), Ok(1.0_f64));
        assert_eq!(read(&[0x18, 0x2a]), Ok(42.0_f64));
        assert_eq!(read(&[0xfa, 0x47, 0xc3, 0x50, 0x00]), Ok(100_000.0_f64));
    }

    #[test]
    fn wrong_and_cut_off_bytes_are_errors() {
        assert!(read::<u8>(&[0x19, 0x01, 0x00]).is_err(), "256 does not fit a u8");
        assert!(read::<u64>(&[0x20]).is_err(), "-1 does not fit a u64");
        assert!(read::<String>(&[0x65, b'a']).is_err());
        assert!(read::<Vec<u64>>(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(read::<bool>(&[0x01]).is_err());
        assert!(CborReader::new(&[0x81; 100]).skip().is_err(), "too deep");
    }

    #[test]
    fn any_value_can_be_skipped() {
        for bytes in
            [&[0x01][..], &[0x62, b'a', b'b'], &[0x82, 0x01, 0xa1, 0x61, b'k', 0xf6], &[0xc1, 0x1a, 0, 0, 0, 1], &[0xfb; 9]]
        {
            let mut reader = CborReader::new(bytes);
            assert_eq!(reader.skip(), Ok(()));
            assert_eq!(reader.end(), Ok(()));
        }
    }
}
