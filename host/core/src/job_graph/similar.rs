//! "Did you mean": the nearest of the words that would have been right.

/// Longer words are never the typing error of a key or a name, and the distance costs the product of the lengths.
const WORD_BYTES_MAX: usize = 64;

/// The candidate that is few enough typing errors away from `word`; of two equally near ones the first.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let near = candidates.into_iter().filter(|candidate| candidate.len() <= WORD_BYTES_MAX).filter_map(|candidate| {
        let letters: Vec<char> = candidate.to_lowercase().chars().collect();
        // One error in three letters; the other word may be a little longer than the one written.
        let allowed = word.len().max(letters.len()).div_ceil(3).min(3);
        let distance = distance(&word, &letters);
        (distance <= allowed && distance < letters.len()).then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// `; did you mean "name"?`, or nothing: the end of a message.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|candidate| format!("; did you mean \"{candidate}\"?")).unwrap_or_default()
}

/// Insertions, deletions, replacements, and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{distance as distance_of, *};

    #[test]
    fn typing_errors_are_recognised_and_other_words_are_not() {
        let keys = ["name", "module", "input", "key", "parallelism", "on_error", "limits", "config"];
        for (word, expected) in [
            ("paralelism", Some("parallelism")),
            ("on-error", Some("on_error")),
            ("nmae", Some("name")),
            ("inputs", Some("input")),
            ("Key", Some("key")),
            ("path", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
    }

    #[test]
    fn a_very_long_word_is_not_compared() {
        assert_eq!(nearest(&"a".repeat(1 << 20), ["a"]), None);
    }

    #[test]
    fn distance_counts_a_swap_as_one() {
        let distance = |a: &str, b: &str| distance_of(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
