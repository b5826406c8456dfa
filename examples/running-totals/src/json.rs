//! Walks one flat JSON object without copying. Nested values are passed over, text is given as it stands (escapes untouched).

use tidegate_sdk::RecordError;

/// Name and raw value: a text without its quotes, everything else as written.
type Field<'a> = (&'a [u8], &'a [u8]);

/// The fields of an object.
pub fn fields(object: &[u8]) -> impl Iterator<Item = Result<Field<'_>, RecordError>> {
    let mut walk = Walk { bytes: object, at: 0, first: true };
    std::iter::from_fn(move || walk.next_field().transpose())
}

/// A whole number without a sign.
#[inline]
pub fn number(content: &[u8]) -> Result<u64, RecordError> {
    let mut number = 0_u64;
    for byte in content {
        let digit = byte.wrapping_sub(b'0');
        let next = number.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit)));
        match next {
            Some(next) if digit < 10 => number = next,
            _ => return Err(RecordError::new(format!("{:?} is no whole number", String::from_utf8_lossy(content)))),
        }
    }
    if content.is_empty() { Err(RecordError::new("a number is missing")) } else { Ok(number) }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    first: bool,
}

impl<'a> Walk<'a> {
    fn next_field(&mut self) -> Result<Option<Field<'a>>, RecordError> {
        self.blanks();
        if self.first {
            self.first = false;
            self.expect(b'{')?;
            self.blanks();
            if self.peek() == Some(b'}') {
                return self.end();
            }
        } else {
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.end(),
                // After the end, or after an error.
                None if self.at > self.bytes.len() => return Ok(None),
                _ => return Err(self.wrong("a comma or a brace")),
            }
            self.blanks();
        }
        let name = self.text()?;
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        let content = self.value()?;
        Ok(Some((name, content)))
    }

    fn end(&mut self) -> Result<Option<Field<'a>>, RecordError> {
        self.at += 1;
        self.blanks();
        if self.at < self.bytes.len() {
            return Err(self.wrong("the end"));
        }
        self.at = self.bytes.len() + 1;
        Ok(None)
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), RecordError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong(&format!("{:?}", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    #[cold]
    fn wrong(&mut self, expected: &str) -> RecordError {
        let at = self.at;
        self.at = self.bytes.len() + 1;
        RecordError::new(format!("not a JSON object: {expected} expected at byte {at}"))
    }

    fn text(&mut self) -> Result<&'a [u8], RecordError> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            // Whole runs at a time: going byte by byte through `peek` takes twice as long.
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(run) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                return Err(self.wrong("a closing quote"));
            };
            self.at += run;
            if rest[run] == b'"' {
                break;
            }
            self.at += 2;
        }
        let text = &self.bytes[start..self.at];
        self.at += 1;
        Ok(text)
    }

    fn value(&mut self) -> Result<&'a [u8], RecordError> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => return self.text(),
            Some(b'{' | b'[') => {
                let mut depth = 0;
                loop {
                    match self.peek() {
                        Some(b'"') => {
                            self.text()?;
                            continue;
                        }
                        Some(b'{' | b'[') => depth += 1,
                        Some(b'}' | b']') => depth -= 1,
                        Some(_) => {}
                        None => return Err(self.wrong("a closing bracket")),
                    }
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
            }
            _ => {
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                let rest = &self.bytes[start..];
                self.at += rest.iter().position(ends).unwrap_or(rest.len());
            }
        }
        if self.at == start { Err(self.wrong("a value")) } else { Ok(&self.bytes[start..self.at]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(object: &str) -> Result<Vec<(String, String)>, RecordError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields(object.as_bytes()).map(|field| field.map(|(name, content)| (text(name), text(content)))).collect()
    }

    #[test]
    fn fields_come_in_order_and_nested_values_as_they_are() {
        let fields = read(r#" { "a":1 , "b":"x\"y", "c":{"d":[1,"}"]},"e":null } "#).expect("an object");
        let expected = [("a", "1"), ("b", r#"x\"y"#), ("c", r#"{"d":[1,"}"]}"#), ("e", "null")];
        assert_eq!(fields, expected.map(|(name, content)| (name.to_owned(), content.to_owned())));
        assert_eq!(read("{}"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_object_is_an_error_and_ends() {
        for bad in [
            "",
            "1",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1]",
            "{\"a\":\"x",
            "{\"a\":1}x",
            "{a:1}",
            "{\"a\":[1",
            "{\"a\":,}",
            "{\"a\\",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whole_numbers_are_read_and_nothing_else() {
        assert_eq!(number(b"18446744073709551615"), Ok(u64::MAX));
        for bad in [&b""[..], b"-1", b"1.5", b"18446744073709551616", b"x"] {
            assert!(number(bad).is_err());
        }
    }
}
