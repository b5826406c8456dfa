//! How the values of a chunk are kept: flat where all have one size, else as byte strings.

use super::cells::{FixedPayload, Payload, ValueCells};
use super::key_table::{CHUNK, Entry, place};
use super::small_bytes::SmallBytes;

/// Values of one size, one after another. An absent one is all zeroes.
pub(super) struct Flat(Box<[u8]>);

impl Payload for Flat {
    fn new(size: usize) -> Self {
        Self(vec![0; CHUNK * size].into_boxed_slice())
    }

    #[inline]
    fn get(&self, at: usize, size: usize) -> &[u8] {
        &self.0[at * size..(at + 1) * size]
    }

    #[inline]
    fn set(&mut self, at: usize, value: &[u8]) {
        self.0[at * value.len()..(at + 1) * value.len()].copy_from_slice(value);
    }

    #[inline]
    fn clear(&mut self, at: usize, size: usize) {
        self.0[at * size..(at + 1) * size].fill(0);
    }
}

impl FixedPayload for Flat {
    #[inline]
    fn cell<const N: usize>(&mut self, at: usize) -> &mut [u8; N] {
        (&mut self.0[at * N..(at + 1) * N]).try_into().expect("N bytes")
    }

    #[inline]
    fn read<const N: usize>(&self, at: usize) -> &[u8; N] {
        (&self.0[at * N..(at + 1) * N]).try_into().expect("N bytes")
    }
}

/// Values of any size. An absent one is empty.
pub(super) struct Strings(Box<[SmallBytes]>);

impl Payload for Strings {
    fn new(_: usize) -> Self {
        Self(vec![SmallBytes::EMPTY; CHUNK].into_boxed_slice())
    }

    #[inline]
    fn get(&self, at: usize, _: usize) -> &[u8] {
        self.0[at].as_slice()
    }

    #[inline]
    fn set(&mut self, at: usize, value: &[u8]) {
        self.0[at].set(value);
    }

    #[inline]
    fn clear(&mut self, at: usize, _: usize) {
        self.0[at] = SmallBytes::EMPTY;
    }
}

pub(super) type FixedCells = ValueCells<Flat>;
pub(super) type StringCells = ValueCells<Strings>;

impl FixedCells {
    /// Copies the values of all entries, zeroes for what is absent, and what `is_expired` says counts as absent.
    pub fn gather(&self, entries: &[Entry], out: &mut [u8], is_expired: Option<impl Fn(i64) -> bool>) {
        if let Some(is_expired) = is_expired {
            for (entry, out) in entries.iter().zip(out.chunks_exact_mut(self.size)) {
                match self.get(*entry) {
                    Some((value, stamp)) if !is_expired(stamp) => out.copy_from_slice(value),
                    _ => out.fill(0),
                }
            }
            return;
        }
        match self.size {
            8 => self.gather_n::<8>(entries, out),
            16 => self.gather_n::<16>(entries, out),
            24 => self.gather_n::<24>(entries, out),
            32 => self.gather_n::<32>(entries, out),
            size => {
                for (entry, out) in entries.iter().zip(out.chunks_exact_mut(size)) {
                    let (chunk, at) = place(*entry);
                    match self.chunks.get(chunk) {
                        Some(chunk) => out.copy_from_slice(chunk.payload.get(at, size)),
                        None => out.fill(0),
                    }
                }
            }
        }
    }

    fn gather_n<const N: usize>(&self, entries: &[Entry], out: &mut [u8]) {
        for (entry, out) in entries.iter().zip(out.as_chunks_mut::<N>().0) {
            let (chunk, at) = place(*entry);
            *out = match self.chunks.get(chunk) {
                Some(chunk) => *chunk.payload.read::<N>(at),
                None => [0; N],
            };
        }
    }
}
