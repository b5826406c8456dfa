//! An ordered map that is a sorted vector while it is small: most maps of a key hold a few windows, and a B-tree node has room
//! for eleven entries.

use super::small_bytes::SmallBytes;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

/// A vector of this length is searched in four steps and moved in one; beyond it a tree wins.
const VECTOR_MAX: usize = 16;

pub(super) enum OrderedMap<V> {
    Vector(Vec<(SmallBytes, V)>),
    #[expect(clippy::box_collection, reason = "there is a cell for each key, and a tree in place makes it a third larger")]
    Tree(Box<BTreeMap<SmallBytes, V>>),
}

impl<V> Default for OrderedMap<V> {
    fn default() -> Self {
        Self::Vector(Vec::new())
    }
}

#[inline]
fn search<V>(vector: &[(SmallBytes, V)], key: &[u8]) -> Result<usize, usize> {
    vector.binary_search_by(|(found, _)| found.as_slice().cmp(key))
}

impl<V> OrderedMap<V> {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Vector(vector) => vector.is_empty(),
            Self::Tree(tree) => tree.is_empty(),
        }
    }

    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&V> {
        match self {
            Self::Vector(vector) => search(vector, key).ok().map(|at| &vector[at].1),
            Self::Tree(tree) => tree.get(key),
        }
    }

    #[inline]
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        match self {
            Self::Vector(vector) => search(vector, key).ok().map(|at| &mut vector[at].1),
            Self::Tree(tree) => tree.get_mut(key),
        }
    }

    pub fn insert(&mut self, key: SmallBytes, value: V) {
        match self {
            Self::Vector(vector) => match search(vector, key.as_slice()) {
                Ok(at) => vector[at].1 = value,
                Err(at) if vector.len() < VECTOR_MAX => {
                    // One entry is the commonest case, and 72 bytes each are worth counting.
                    if vector.len() < 4 {
                        vector.reserve_exact(1);
                    }
                    vector.insert(at, (key, value));
                }
                Err(_) => {
                    let mut tree: BTreeMap<_, _> = std::mem::take(vector).into_iter().collect();
                    tree.insert(key, value);
                    *self = Self::Tree(Box::new(tree));
                }
            },
            Self::Tree(tree) => {
                tree.insert(key, value);
            }
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        match self {
            Self::Vector(vector) => {
                let at = search(vector, key).ok()?;
                let (_, value) = vector.remove(at);
                if vector.is_empty() {
                    *vector = Vec::new();
                }
                Some(value)
            }
            Self::Tree(tree) => {
                let value = tree.remove(key);
                // Half the bound, so that a map at the bound does not change its form with every write.
                if tree.len() <= VECTOR_MAX / 2 {
                    *self = Self::Vector(std::mem::take(&mut **tree).into_iter().collect());
                }
                value
            }
        }
    }

    /// Entries with keys between the bounds, in order. Bounds that leave nothing between them give nothing.
    pub fn range<'a>(&'a self, first: Bound<&[u8]>, last: Option<&[u8]>) -> Range<'a, V> {
        let is_void = match (first, last) {
            (Bound::Included(first) | Bound::Excluded(first), Some(last)) => first >= last,
            _ => false,
        };
        if is_void {
            return Range::Vector([].iter());
        }
        match self {
            Self::Vector(vector) => {
                let from = match first {
                    Bound::Unbounded => 0,
                    Bound::Included(first) => search(vector, first).unwrap_or_else(|at| at),
                    Bound::Excluded(first) => search(vector, first).map_or_else(|at| at, |at| at + 1),
                };
                let to = last.map_or(vector.len(), |last| search(vector, last).unwrap_or_else(|at| at));
                Range::Vector(vector[from..to].iter())
            }
            Self::Tree(tree) => Range::Tree(tree.range::<[u8], _>((first, last.map_or(Bound::Unbounded, Bound::Excluded)))),
        }
    }
}

pub(super) enum Range<'a, V> {
    Vector(std::slice::Iter<'a, (SmallBytes, V)>),
    Tree(btree_map::Range<'a, SmallBytes, V>),
}

impl<'a, V> Iterator for Range<'a, V> {
    type Item = (&'a SmallBytes, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Vector(entries) => entries.next().map(|(key, value)| (key, value)),
            Self::Tree(entries) => entries.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_a_map_at_every_size(ops in proptest::collection::vec((any::<bool>(), 0u8..40), 0..300), range in any::<(u8, u8)>()) {
            let (mut map, mut model) = (OrderedMap::default(), BTreeMap::new());
            for (n, (insert, key)) in ops.into_iter().enumerate() {
                if insert {
                    map.insert(SmallBytes::from(&[key][..]), n);
                    model.insert(vec![key], n);
                } else {
                    prop_assert_eq!(map.remove(&[key]), model.remove(&vec![key]));
                }
                let all: Vec<_> = map.range(Bound::Unbounded, None).map(|(k, v)| (k.as_slice().to_vec(), *v)).collect();
                prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
                prop_assert_eq!(map.is_empty(), model.is_empty());
            }
            let (first, last) = (range.0 % 40, range.1 % 40);
            for bound in [Bound::Included(&[first][..]), Bound::Excluded(&[first][..])] {
                let found: Vec<_> = map.range(bound, Some(&[last])).map(|(k, _)| k.as_slice()[0]).collect();
                let is_in = |key: &u8| match bound {
                    Bound::Excluded(_) => *key > first && *key < last,
                    _ => *key >= first && *key < last,
                };
                prop_assert_eq!(found, model.keys().map(|key| key[0]).filter(is_in).collect::<Vec<_>>());
            }
        }
    }
}
