//! Names of splits by the small numbers that rows carry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use tidegate_core::row::Origin;

/// One for a job: the same split has the same number in every task, for the life of an attempt.
#[derive(Debug, Default)]
pub struct SplitNames(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    numbers: HashMap<(String, String), u16>,
    names: Vec<(String, String)>,
}

impl SplitNames {
    /// Beyond [`Origin::SPLIT_MAX`] splits all share the last number, which has no name.
    pub fn handle(&self, source: &str, split: &str) -> u16 {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source.to_owned(), split.to_owned());
        if let Some(number) = names.numbers.get(&key) {
            return *number;
        }
        let number = names.names.len().min(usize::from(Origin::SPLIT_MAX)) as u16;
        if number < Origin::SPLIT_MAX {
            names.names.push(key.clone());
            names.numbers.insert(key, number);
        }
        number
    }

    /// Source and split, where they are known.
    pub fn name(&self, handle: u16) -> Option<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).names.get(usize::from(handle)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_split_has_the_same_number_and_the_overflow_has_no_name() {
        let names = SplitNames::default();
        assert_eq!((names.handle("a", "x"), names.handle("b", "x"), names.handle("a", "x")), (0, 1, 0));
        assert_eq!(names.name(1), Some(("b".to_owned(), "x".to_owned())));
        for i in 0..40_000 {
            names.handle("c", &i.to_string());
        }
        assert_eq!(names.handle("d", "y"), Origin::SPLIT_MAX);
        assert_eq!(names.name(Origin::SPLIT_MAX), None);
    }
}
