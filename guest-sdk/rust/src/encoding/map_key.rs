//! Keys of map states: packed big endian with the sign flipped, so that the host's order of bytes is the order of values.

use super::DecodeError;

/// A type that can be the key of a [`MapState`](crate::MapState).
pub trait MapKey: Sized {
    fn wit_type(out: &mut String);

    /// Appends the key. Never empty but for empty text or bytes.
    fn encode(&self, out: &mut Vec<u8>);

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// A key whose bytes have one size, and so can stand before others in a tuple.
pub trait FixedMapKey: MapKey {
    const BYTES: usize;
}

macro_rules! integers {
    ($($type:ty as $unsigned:ty, $flip:expr, $wit:literal);* $(;)?) => {$(
        impl MapKey for $type {
            fn wit_type(out: &mut String) {
                out.push_str($wit);
            }

            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&(*self as $unsigned ^ $flip).to_be_bytes());
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let packed = bytes.try_into().map_err(|_| DecodeError::size(size_of::<$type>(), bytes.len()))?;
                Ok((<$unsigned>::from_be_bytes(packed) ^ $flip) as $type)
            }
        }

        impl FixedMapKey for $type {
            const BYTES: usize = size_of::<$type>();
        }
    )*};
}

integers! {
    u8 as u8, 0, "u8";
    u16 as u16, 0, "u16";
    u32 as u32, 0, "u32";
    u64 as u64, 0, "u64";
    i8 as u8, 1 << 7, "s8";
    i16 as u16, 1 << 15, "s16";
    i32 as u32, 1 << 31, "s32";
    i64 as u64, 1 << 63, "s64";
}

impl MapKey for bool {
    fn wit_type(out: &mut String) {
        out.push_str("bool");
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes {
            [byte] => Ok(*byte != 0),
            _ => Err(DecodeError::size(1, bytes.len())),
        }
    }
}

impl FixedMapKey for bool {
    const BYTES: usize = 1;
}

/// Sorted as `f64::total_cmp` does: the sign bit is flipped for positive numbers, all bits for negative ones.
impl MapKey for f64 {
    fn wit_type(out: &mut String) {
        out.push_str("f64");
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let bits = self.to_bits();
        let flip = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
        out.extend_from_slice(&(bits ^ flip).to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let sortable = u64::from_be_bytes(bytes.try_into().map_err(|_| DecodeError::size(8, bytes.len()))?);
        let flip = if sortable >> 63 == 1 { 1 << 63 } else { u64::MAX };
        Ok(Self::from_bits(sortable ^ flip))
    }
}

impl FixedMapKey for f64 {
    const BYTES: usize = 8;
}

impl MapKey for String {
    fn wit_type(out: &mut String) {
        out.push_str("string");
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        std::str::from_utf8(bytes).map(Self::from).map_err(|error| DecodeError(error.to_string()))
    }
}

impl MapKey for Vec<u8> {
    fn wit_type(out: &mut String) {
        out.push_str("bytes");
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(bytes.to_vec())
    }
}

fn tuple_type(out: &mut String, parts: &[fn(&mut String)]) {
    out.push_str("tuple<");
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        part(out);
    }
    out.push('>');
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    bytes.split_at_checked(at).ok_or_else(|| DecodeError::size(at, bytes.len()))
}

impl<A: FixedMapKey, B: MapKey> MapKey for (A, B) {
    fn wit_type(out: &mut String) {
        tuple_type(out, &[A::wit_type, B::wit_type]);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (a, b) = split(bytes, A::BYTES)?;
        Ok((A::decode(a)?, B::decode(b)?))
    }
}

impl<A: FixedMapKey, B: FixedMapKey> FixedMapKey for (A, B) {
    const BYTES: usize = A::BYTES + B::BYTES;
}

impl<A: FixedMapKey, B: FixedMapKey, C: MapKey> MapKey for (A, B, C) {
    fn wit_type(out: &mut String) {
        tuple_type(out, &[A::wit_type, B::wit_type, C::wit_type]);
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
        self.2.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (a, rest) = split(bytes, A::BYTES)?;
        let (b, c) = split(rest, B::BYTES)?;
        Ok((A::decode(a)?, B::decode(b)?, C::decode(c)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn sorts<K: MapKey + PartialEq + Debug>(ascending: impl IntoIterator<Item = K>) {
        let mut last: Option<Vec<u8>> = None;
        for key in ascending {
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            assert_eq!(K::decode(&bytes).as_ref(), Ok(&key));
            assert!(last.is_none_or(|last| last < bytes), "{key:?} is out of order");
            last = Some(bytes);
        }
    }

    #[test]
    fn bytes_sort_as_values_do() {
        sorts([i64::MIN, -256, -1, 0, 1, 255, 256, i64::MAX]);
        sorts([i8::MIN, -1, 0, i8::MAX]);
        sorts([0_u32, 1, 255, 256, u32::MAX]);
        sorts([f64::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-300, 1.5, f64::INFINITY]);
        sorts([(-1_i32, "b".to_owned()), (0, "a".to_owned()), (0, "ab".to_owned()), (1, String::new())]);
        sorts([(false, 1_u16, 9_i8), (true, 0, -1), (true, 0, 1)]);
    }

    #[test]
    fn the_packed_form_is_pinned() {
        let mut bytes = Vec::new();
        (-1_i32).encode(&mut bytes);
        assert_eq!(bytes, [0x7f, 0xff, 0xff, 0xff]);
    }
}
