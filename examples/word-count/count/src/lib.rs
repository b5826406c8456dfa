//! Counts words. Each word comes as the key of a record; the new count goes out: `{"word":"be","count":2}`.

use tidegate_sdk::prelude::*;

#[operator(keyed)]
pub struct Count {
    count: ValueState<u64>,
}

impl Operator for Count {
    fn process(&mut self, record: &Record<'_>, ctx: &mut Ctx<'_>) -> Result<(), RecordError> {
        let word = record.key_text()?;
        // It stands in JSON as it is.
        if word.is_empty() || !word.chars().all(char::is_alphanumeric) {
            reject!("the key {word:?} is no word");
        }
        let count = self.count.update(ctx, |count| count + 1);
        ctx.emit_with(Self::MAIN, |out| write!(out, r#"{{"word":"{word}","count":{count}}}"#))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::testing::OperatorTest;

    #[test]
    fn each_word_has_its_own_count() {
        let mut t = OperatorTest::<Count>::new().amnesia();
        for word in ["to", "be", "or", "not", "to", "be"] {
            t.send(word, word, None);
        }
        assert_eq!(t.texts("main")[4..], [r#"{"word":"to","count":2}"#, r#"{"word":"be","count":2}"#]);
        assert_eq!(t.value("count", "to"), Some(2_u64));
    }

    #[test]
    fn a_batch_counts_as_single_records_do() {
        let mut t = OperatorTest::<Count>::new();
        let row = |word: &'static str| Row { key: word.as_bytes(), value: Some(word.as_bytes()), ..Row::default() };
        t.send_batch(&[row("to"), row("no word"), row("to")]);
        assert_eq!(t.texts("main"), [r#"{"word":"to","count":1}"#, r#"{"word":"to","count":2}"#]);
        assert_eq!(t.rejected()[0].reason, r#"the key "no word" is no word"#);
    }
}
