//! A byte string that lies in place while it is short: map keys and most values are 8 to 22 bytes, and an allocation for each
//! would cost more than the write itself.

use std::borrow::Borrow;
use std::cmp::Ordering;

const INLINE_MAX: usize = 22;

#[derive(Clone)]
pub(super) enum SmallBytes {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Boxed(Box<[u8]>),
}

impl SmallBytes {
    pub const EMPTY: Self = Self::Inline { len: 0, bytes: [0; INLINE_MAX] };

    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..*len as usize],
            Self::Boxed(bytes) => bytes,
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Inline { len: 0, .. })
    }

    /// Takes over `value`, in the allocation that is there where it has the right length.
    #[inline]
    pub fn set(&mut self, value: &[u8]) {
        match self {
            Self::Boxed(bytes) if bytes.len() == value.len() => bytes.copy_from_slice(value),
            _ => *self = value.into(),
        }
    }
}

impl From<&[u8]> for SmallBytes {
    #[inline]
    fn from(value: &[u8]) -> Self {
        if value.len() <= INLINE_MAX {
            let mut bytes = [0; INLINE_MAX];
            bytes[..value.len()].copy_from_slice(value);
            Self::Inline { len: value.len() as u8, bytes }
        } else {
            Self::Boxed(value.into())
        }
    }
}

impl Borrow<[u8]> for SmallBytes {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for SmallBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SmallBytes {}

impl PartialOrd for SmallBytes {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SmallBytes {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_strings_compare_as_bytes_do() {
        assert_eq!(size_of::<SmallBytes>(), 24);
        let strings: Vec<Vec<u8>> = (0..60).map(|n| vec![b'a'; n]).collect();
        for (n, a) in strings.iter().enumerate() {
            let small = SmallBytes::from(&a[..]);
            assert_eq!((small.as_slice(), small.is_empty()), (&a[..], n == 0));
            for b in &strings {
                assert_eq!(small.cmp(&SmallBytes::from(&b[..])), a.cmp(b));
            }
        }
    }
}
