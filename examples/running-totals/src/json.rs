//! Walks one flat JSON object without copying. Nested values are passed over, text is given as it stands (escapes untouched).

use tidegate_sdk::RecordError;

/// The fields of an object as (name, raw value): a text without its quotes, everything else as written.
pub fn fields(object: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), RecordError>> {
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
    fn next_field(&mut self) -> Result<Option<(&'a [u8], &'a [u8])>, RecordError> {
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

    fn end(&mut self) -> Result<Option<(&'a [u8], &'a [u8])>, RecordError> {
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
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.wrong("a closing quote")),
            }
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
                while self.peek().is_some_and(|byte| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')) {
                    self.at += 1;
                }
            }
        }
        if self.at == start { Err(self.wrong("a value")) } else { Ok(&self.bytes[start..self.at]) }
    }
}
