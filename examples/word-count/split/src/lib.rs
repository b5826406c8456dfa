//! Lines in, words out: lower-case, without punctuation, each the key and the value of a record of its own.

use tidegate_sdk::prelude::*;

#[operator(outputs("words"))]
pub struct Split {
    /// The word at hand; nothing that lasts from record to record.
    word: String,
}

impl Operator for Split {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        for word in record.text()?.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            self.word.clear();
            self.word.extend(word.chars().flat_map(char::to_lowercase));
            let word = self.word.as_bytes();
            ctx.emit_row(Self::WORDS, &Row { key: word, value: Some(word), ..record.row() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::testing::OperatorTest;

    #[test]
    fn a_line_becomes_its_words_in_order() {
        let mut t = OperatorTest::<Split>::new();
        t.send("", "To be, or NOT to be \u{2013} that's \u{c4}rger!", 7);
        assert_eq!(t.texts("words"), ["to", "be", "or", "not", "to", "be", "that", "s", "\u{e4}rger"]);
        assert!(t.outputs("words").iter().all(|word| Some(&word.key) == word.value.as_ref() && word.timestamp == Some(7)));
    }

    #[test]
    fn a_line_that_is_no_text_is_rejected() {
        let mut t = OperatorTest::<Split>::new();
        t.send("", [b'a', 0xff], None);
        assert!(t.texts("words").is_empty());
        assert!(t.rejected()[0].reason.starts_with("the value is not UTF-8"));
    }
}
