//! How values and map keys become bytes: the same in every language, so that another SDK, and the host, can read them.
//!
//! * scalars and tuples of them: packed, little endian, one size for all values;
//! * text as UTF-8, bytes as they are;
//! * records: CBOR maps from field name to value, so that fields can come and go;
//! * map keys: packed, big endian, signs flipped, so that bytes sort as values do.
//!
//! Empty bytes mean "absent" in every state, so [`StateValue::decode`] makes the type's zero out of them.

pub mod cbor;
pub mod map_key;

use std::fmt;

/// Stored bytes that are not a value of the type: the state was written by something else. Not a record's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(pub String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl DecodeError {
    fn size(expected: usize, found: usize) -> Self {
        Self(format!("{expected} bytes expected, {found} found"))
    }
}

/// A type that a state can hold.
///
/// Implemented for scalars and tuples of them, `String`, `Vec<u8>`, `[u8; N]`, records with
/// [`#[derive(StateRecord)]`](derive@crate::StateRecord), and `Option` of all of these where "nothing stored" must differ from zero.
pub trait StateValue: Sized {
    /// Bytes of a value, where all have the same number.
    const SIZE: Option<usize>;

    /// Appends the type in WIT notation.
    fn wit_type(out: &mut String);

    /// Appends the value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Writes the value into exactly [`SIZE`](Self::SIZE) bytes. Called for types with a size only.
    fn encode_fixed(&self, out: &mut [u8]);

    /// The zero of the type for no bytes at all.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// A number or a truth value: packed little endian.
pub trait Scalar: Copy {
    const BYTES: usize;
    const WIT: &'static str;

    fn pack(self, out: &mut [u8]);
    fn unpack(bytes: &[u8]) -> Self;
}

macro_rules! scalars {
    ($($type:ty: $wit:literal),*) => {$(
        impl Scalar for $type {
            const BYTES: usize = size_of::<$type>();
            const WIT: &'static str = $wit;

            #[inline]
            fn pack(self, out: &mut [u8]) {
                out.copy_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn unpack(bytes: &[u8]) -> Self {
                let mut packed = [0; size_of::<$type>()];
                packed.copy_from_slice(bytes);
                Self::from_le_bytes(packed)
            }
        }
        scalar_value!($type);
    )*};
}

macro_rules! scalar_value {
    ($type:ty) => {
        impl StateValue for $type {
            const SIZE: Option<usize> = Some(<$type as Scalar>::BYTES);

            fn wit_type(out: &mut String) {
                out.push_str(<$type as Scalar>::WIT);
            }

            fn encode(&self, out: &mut Vec<u8>) {
                let mut packed = [0; <$type as Scalar>::BYTES];
                self.pack(&mut packed);
                out.extend_from_slice(&packed);
            }

            #[inline]
            fn encode_fixed(&self, out: &mut [u8]) {
                self.pack(out);
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                match bytes.len() {
                    <$type as Scalar>::BYTES => Ok(Self::unpack(bytes)),
                    0 => Ok(Self::unpack(&[0; <$type as Scalar>::BYTES])),
                    found => Err(DecodeError::size(<$type as Scalar>::BYTES, found)),
                }
            }
        }
    };
}

scalars!(u8: "u8", u16: "u16", u32: "u32", u64: "u64", i8: "s8", i16: "s16", i32: "s32", i64: "s64", f32: "f32", f64: "f64");

impl Scalar for bool {
    const BYTES: usize = 1;
    const WIT: &'static str = "bool";

    #[inline]
    fn pack(self, out: &mut [u8]) {
        out[0] = u8::from(self);
    }

    #[inline]
    fn unpack(bytes: &[u8]) -> Self {
        bytes[0] != 0
    }
}
scalar_value!(bool);

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))*) => {$(
        impl<$($name: Scalar),+> StateValue for ($($name,)+) {
            const SIZE: Option<usize> = Some(0 $(+ $name::BYTES)+);

            fn wit_type(out: &mut String) {
                let types: &[&str] = &[$($name::WIT),+];
                out.push_str("tuple<");
                out.push_str(&types.join(", "));
                out.push('>');
            }

            fn encode(&self, out: &mut Vec<u8>) {
                let start = out.len();
                out.resize(start + (0 $(+ $name::BYTES)+), 0);
                self.encode_fixed(&mut out[start..]);
            }

            #[inline]
            fn encode_fixed(&self, out: &mut [u8]) {
                let mut _at = 0;
                $(
                    self.$index.pack(&mut out[_at.._at + $name::BYTES]);
                    _at += $name::BYTES;
                )+
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let size = 0 $(+ $name::BYTES)+;
                if bytes.is_empty() {
                    return Ok(($($name::unpack(&[0; 8][..$name::BYTES]),)+));
                }
                if bytes.len() != size {
                    return Err(DecodeError::size(size, bytes.len()));
                }
                let mut _at = 0;
                Ok(($({
                    let field = $name::unpack(&bytes[_at.._at + $name::BYTES]);
                    _at += $name::BYTES;
                    field
                },)+))
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}

impl<const N: usize> StateValue for [u8; N] {
    const SIZE: Option<usize> = Some(N);

    fn wit_type(out: &mut String) {
        out.push_str("bytes");
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    #[inline]
    fn encode_fixed(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.len() {
            0 => Ok([0; N]),
            found => bytes.try_into().map_err(|_| DecodeError::size(N, found)),
        }
    }
}

impl StateValue for String {
    const SIZE: Option<usize> = None;

    fn wit_type(out: &mut String) {
        out.push_str("string");
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn encode_fixed(&self, _: &mut [u8]) {
        unreachable!("text has no fixed size");
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        std::str::from_utf8(bytes).map(Self::from).map_err(|error| DecodeError(error.to_string()))
    }
}

impl StateValue for Vec<u8> {
    const SIZE: Option<usize> = None;

    fn wit_type(out: &mut String) {
        out.push_str("bytes");
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn encode_fixed(&self, _: &mut [u8]) {
        unreachable!("bytes have no fixed size");
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(bytes.to_vec())
    }
}

/// Stored exactly as `T` is; `None` is "nothing stored". Costs the fixed-size way: a zero must not look like an absent value.
impl<T: StateValue> StateValue for Option<T> {
    const SIZE: Option<usize> = None;

    fn wit_type(out: &mut String) {
        T::wit_type(out);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.encode(out);
        }
    }

    fn encode_fixed(&self, _: &mut [u8]) {
        unreachable!("an optional value has no fixed size");
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() { Ok(None) } else { T::decode(bytes).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<T: StateValue + PartialEq + fmt::Debug>(value: T, bytes: &[u8], wit: &str) {
        let mut encoded = Vec::new();
        value.encode(&mut encoded);
        assert_eq!(encoded, bytes);
        if let Some(size) = T::SIZE {
            let mut fixed = vec![0xff; size];
            value.encode_fixed(&mut fixed);
            assert_eq!(fixed, bytes);
        }
        assert_eq!(T::decode(bytes), Ok(value));
        let mut text = String::new();
        T::wit_type(&mut text);
        assert_eq!(text, wit);
    }

    #[test]
    fn the_packed_form_is_pinned() {
        // Other SDKs and stored checkpoints rely on these bytes.
        round_trip(0x0102_0304_u32, &[4, 3, 2, 1], "u32");
        round_trip(-2_i64, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "s64");
        round_trip(true, &[1], "bool");
        round_trip(1.5_f64, &1.5_f64.to_le_bytes(), "f64");
        round_trip((1_u8, -1_i16, true), &[1, 0xff, 0xff, 1], "tuple<u8, s16, bool>");
        round_trip("ä".to_owned(), &[0xc3, 0xa4], "string");
        round_trip(vec![1_u8, 2], &[1, 2], "bytes");
        round_trip([7_u8; 3], &[7, 7, 7], "bytes");
        round_trip(Some(1_u16), &[1, 0], "u16");
    }

    #[test]
    fn nothing_stored_reads_as_the_zero_of_the_type() {
        assert_eq!(<(u64, f64)>::decode(&[]), Ok((0, 0.0)));
        assert_eq!(String::decode(&[]), Ok(String::new()));
        assert_eq!(Option::<u64>::decode(&[]), Ok(None));
        assert_eq!(bool::decode(&[]), Ok(false));
    }

    #[test]
    fn bytes_of_another_type_are_an_error_and_no_value() {
        assert!(u64::decode(&[1, 2, 3]).is_err());
        assert!(<(u8, u8)>::decode(&[1]).is_err());
        assert!(String::decode(&[0xff]).is_err());
    }
}
