//! One field of a JSON value, found without parsing the rest: for keyed edges and event time.
//!
//! A hand-written scan, because objects of a hundred bytes pass by the million: a general parser's set-up costs more than the
//! search. It looks at what stands before the field only as closely as is needed to get past it, and not at what comes after;
//! whether a value is JSON at all is the source's question (`format = "json"`).
//!
//! Invariants:
//! * no input makes it panic, recurse or run past the end;
//! * of two fields of one name the first counts.

use memchr::memchr2;
use std::sync::Arc;

/// A JSON pointer (RFC 6901), split and unescaped once.
#[derive(Debug, Clone)]
pub struct Pointer {
    text: Arc<str>,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone)]
struct Token {
    name: Vec<u8>,
    /// The name stands in JSON as it is, so raw bytes can be compared.
    plain: bool,
    /// As a place in an array.
    index: Option<usize>,
}

impl Pointer {
    /// `""` names the whole value, `"/a/b"` a field of a field, `"/a/0"` an element too.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && !text.starts_with('/') {
            return Err(format!("a JSON pointer starts with `/`: did you mean `/{text}`?"));
        }
        let tokens = text.split('/').skip(1).map(token).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), tokens })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn token(raw: &str) -> Result<Token, String> {
    let mut name = String::with_capacity(raw.len());
    let mut rest = raw.chars();
    while let Some(char) = rest.next() {
        name.push(match char {
            '~' => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(format!("`~` in the JSON pointer part `{raw}` must be followed by 0 (for ~) or 1 (for /)")),
            },
            other => other,
        });
    }
    let plain = !name.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
    let is_index = name == "0" || (!name.starts_with('0') && !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()));
    let index = if is_index { name.parse().ok() } else { None };
    Ok(Token { name: name.into_bytes(), plain, index })
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("the field {pointer} is missing")]
    Missing { pointer: Arc<str> },
    #[error("the field {pointer} is null")]
    Null { pointer: Arc<str> },
    #[error("the field {pointer} is {found}, not text, a number or a boolean")]
    NotScalar { pointer: Arc<str>, found: &'static str },
    #[error("not JSON at byte {at} (looking for the field {pointer})")]
    NotJson { pointer: Arc<str>, at: usize },
}

/// A field as it stands in the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// Between the quotes.
    Text {
        raw: &'a [u8],
        escaped: bool,
    },
    Number(&'a [u8]),
    Bool(bool),
}

/// Appends the field's text: a string without quotes and escapes, a number or boolean as it is written.
#[inline]
pub fn extract(value: &[u8], pointer: &Pointer, out: &mut Vec<u8>) -> Result<(), FieldError> {
    match find(value, pointer)? {
        Field::Text { raw, escaped: false } => out.extend_from_slice(raw),
        Field::Text { raw, escaped: true } => {
            let before = out.len();
            if unescape(raw, out).is_none() {
                out.truncate(before);
                let at = raw.as_ptr() as usize - value.as_ptr() as usize;
                return Err(FieldError::NotJson { pointer: Arc::clone(&pointer.text), at });
            }
        }
        Field::Number(text) => out.extend_from_slice(text),
        Field::Bool(true) => out.extend_from_slice(b"true"),
        Field::Bool(false) => out.extend_from_slice(b"false"),
    }
    Ok(())
}

/// Finds the field.
#[inline]
pub fn find<'a>(value: &'a [u8], pointer: &Pointer) -> Result<Field<'a>, FieldError> {
    let mut scan = Scan { bytes: value, at: 0 };
    let found = scan.descend(pointer).and_then(|()| scan.scalar());
    let text = || Arc::clone(&pointer.text);
    found.map_err(|miss| match miss {
        Miss::Missing => FieldError::Missing { pointer: text() },
        Miss::Null => FieldError::Null { pointer: text() },
        Miss::NotScalar(found) => FieldError::NotScalar { pointer: text(), found },
        Miss::NotJson => FieldError::NotJson { pointer: text(), at: scan.at.min(value.len()) },
    })
}

enum Miss {
    Missing,
    Null,
    NotScalar(&'static str),
    NotJson,
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), Miss> {
        if self.peek() != Some(byte) {
            return Err(Miss::NotJson);
        }
        self.at += 1;
        Ok(())
    }

    /// Goes to the start of the value that the pointer names.
    #[inline]
    fn descend(&mut self, pointer: &Pointer) -> Result<(), Miss> {
        self.blanks();
        for token in &pointer.tokens {
            match self.peek() {
                Some(b'{') => self.field(token)?,
                Some(b'[') => self.element(token)?,
                Some(_) => return Err(Miss::Missing),
                None => return Err(Miss::NotJson),
            }
        }
        Ok(())
    }

    /// From `{` to the value of the field.
    #[inline]
    fn field(&mut self, token: &Token) -> Result<(), Miss> {
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b'}') {
            return Err(Miss::Missing);
        }
        loop {
            self.expect(b'"')?;
            let name = &self.bytes[self.at..];
            let is_it = if token.plain && name.get(token.name.len()) == Some(&b'"') && name.starts_with(&token.name) {
                self.at += token.name.len() + 1;
                true
            } else {
                let (raw, escaped) = self.string()?;
                if escaped { unescapes_to(raw, &token.name) } else { raw == token.name }
            };
            self.blanks();
            self.expect(b':')?;
            self.blanks();
            if is_it {
                return Ok(());
            }
            self.skip()?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => return Err(Miss::Missing),
                _ => return Err(Miss::NotJson),
            }
            self.blanks();
        }
    }

    /// From `[` to the element.
    fn element(&mut self, token: &Token) -> Result<(), Miss> {
        let Some(index) = token.index else { return Err(Miss::Missing) };
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b']') {
            return Err(Miss::Missing);
        }
        for _ in 0..index {
            self.skip()?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => return Err(Miss::Missing),
                _ => return Err(Miss::NotJson),
            }
            self.blanks();
        }
        Ok(())
    }

    /// From behind the opening quote to behind the closing one. What stands between, and whether there are escapes in it.
    #[inline]
    fn string(&mut self) -> Result<(&'a [u8], bool), Miss> {
        /// A call of memchr pays beyond this.
        const SHORT: usize = 16;
        let start = self.at;
        let mut escaped = false;
        let mut near = SHORT;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((&self.bytes[start..self.at - 1], escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(_) => self.at += 1,
                None => return Err(Miss::NotJson),
            }
            near -= 1;
            if near == 0 {
                near = SHORT;
                let rest = self.bytes.get(self.at..).ok_or(Miss::NotJson)?;
                self.at += memchr2(b'"', b'\\', rest).ok_or(Miss::NotJson)?;
            }
        }
    }

    /// From the start of a value to its end.
    #[inline]
    fn skip(&mut self) -> Result<(), Miss> {
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(|_| ())
            }
            Some(b'{' | b'[') => self.skip_nested(),
            Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                self.literal();
                Ok(())
            }
            _ => Err(Miss::NotJson),
        }
    }

    fn skip_nested(&mut self) -> Result<(), Miss> {
        let mut depth = 0usize;
        loop {
            let byte = self.peek().ok_or(Miss::NotJson)?;
            self.at += 1;
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b'"' => self.string().map(|_| ())?,
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    #[inline]
    fn literal(&mut self) -> &'a [u8] {
        let start = self.at;
        while let Some(byte) = self.peek() {
            if matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\t' | b'\r') {
                break;
            }
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }

    #[inline]
    fn scalar(&mut self) -> Result<Field<'a>, Miss> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                let (raw, escaped) = self.string()?;
                Ok(Field::Text { raw, escaped })
            }
            Some(b'{') => Err(Miss::NotScalar("an object")),
            Some(b'[') => Err(Miss::NotScalar("an array")),
            _ => match self.literal() {
                b"true" => Ok(Field::Bool(true)),
                b"false" => Ok(Field::Bool(false)),
                b"null" => Err(Miss::Null),
                text if is_number(text) => Ok(Field::Number(text)),
                _ => {
                    self.at = start;
                    Err(Miss::NotJson)
                }
            },
        }
    }
}

/// Whether a text is a number as JSON writes it.
#[inline]
pub fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = digits(fraction);
        if len == 0 {
            return false;
        }
        rest = &fraction[len..];
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

fn unescapes_to(raw: &[u8], name: &[u8]) -> bool {
    let mut text = Vec::with_capacity(raw.len());
    unescape(raw, &mut text).is_some() && text == name
}

/// Appends a string's content with its escapes resolved. `None`: an escape is not one.
pub fn unescape(mut raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
    loop {
        let Some(at) = memchr::memchr(b'\\', raw) else {
            out.extend_from_slice(raw);
            return Some(());
        };
        out.extend_from_slice(&raw[..at]);
        let escape = *raw.get(at + 1)?;
        raw = &raw[at + 2..];
        let byte = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = hex(raw)?;
                raw = &raw[4..];
                if (0xd800..0xdc00).contains(&code) {
                    let low = hex(raw.strip_prefix(b"\\u")?)?;
                    raw = &raw[6..];
                    code = 0x10000 + ((code - 0xd800) << 10) + low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                }
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        };
        out.push(byte);
    }
}

fn hex(raw: &[u8]) -> Option<u32> {
    let digits = raw.first_chunk::<4>()?;
    digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(value: &str, pointer: &str) -> Result<String, FieldError> {
        let mut out = b"before".to_vec();
        let found = extract(value.as_bytes(), &Pointer::parse(pointer).expect("a pointer"), &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        let text = text.strip_prefix("before").expect("what was there stays");
        assert!(found.is_ok() || text.is_empty());
        found.map(|()| text.to_owned())
    }

    #[test]
    fn fields_are_found_by_their_pointer() {
        let value = r#" { "a" : 1.50 , "b":{"c":[true,{"d":"x"},[]],"e":"}{\"]["}, "f~/g":"tilde", "":"empty", "h\"i":"quoted", "last":"y" } "#;
        for (pointer, expected) in [
            ("/a", "1.50"),
            ("/b/c/0", "true"),
            ("/b/c/1/d", "x"),
            ("/b/e", "}{\"]["),
            ("/f~0~1g", "tilde"),
            ("/", "empty"),
            ("/h\"i", "quoted"),
            ("/last", "y"),
        ] {
            assert_eq!(get(value, pointer).as_deref(), Ok(expected), "{pointer}");
        }
        assert_eq!(get("\"whole\"", "").as_deref(), Ok("whole"));
        assert_eq!(get("-12", "").as_deref(), Ok("-12"));
        assert_eq!(get(r#"{"a":1,"a":2}"#, "/a").as_deref(), Ok("1"));
    }

    #[test]
    fn escapes_are_resolved_in_values_and_names() {
        let value = r#"{"\u0061b":"\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00","x\\":1,"x":"\u12","y":"\ud83d"}"#;
        assert_eq!(get(value, "/ab").as_deref(), Ok("\"\\/\u{8}\u{c}\n\r\t\u{e4}\u{1f600}"));
        assert_eq!(get(value, "/x\\").as_deref(), Ok("1"));
        assert!(matches!(get(value, "/x"), Err(FieldError::NotJson { .. })));
        assert!(matches!(get(value, "/y"), Err(FieldError::NotJson { .. })));
    }

    #[test]
    fn what_is_not_there_is_an_error_that_names_the_pointer() {
        let value = r#"{"a":null,"b":{"c":1},"d":[1],"e":nul,"f":01}"#;
        for (pointer, expected) in [
            ("/z", "the field /z is missing"),
            ("/b/z", "the field /b/z is missing"),
            ("/d/1", "the field /d/1 is missing"),
            ("/d/x", "the field /d/x is missing"),
            ("/b/c/e", "the field /b/c/e is missing"),
            ("/a", "the field /a is null"),
            ("/b", "the field /b is an object, not text, a number or a boolean"),
            ("/d", "the field /d is an array, not text, a number or a boolean"),
            ("/e", "not JSON at byte 34 (looking for the field /e)"),
            ("/f", "not JSON at byte 42 (looking for the field /f)"),
        ] {
            assert_eq!(get(value, pointer).expect_err(pointer).to_string(), expected);
        }
        for broken in
            ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"b\":1", "{\"b\":\"x", "{\"b\":[", "{b:1}", "{\"b\" 1}", "{\"b\":\"\\"]
        {
            assert!(matches!(get(broken, "/a"), Err(FieldError::NotJson { .. })), "{broken}");
        }
        assert!(Pointer::parse("a").expect_err("no slash").contains("`/a`"));
        assert!(Pointer::parse("/a~2").is_err());
    }

    #[test]
    fn numbers_are_those_of_json() {
        for good in ["0", "-0", "10", "1.5", "-1.25e10", "1E+5", "0.1e-1"] {
            assert!(is_number(good.as_bytes()), "{good}");
        }
        for bad in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "0x1", "1a", "NaN", "1.5.2", "1 "] {
            assert!(!is_number(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn an_escaped_name_is_another_than_its_raw_bytes() {
        // The field's name is one backslash, which the text writes as two.
        let text = r#"{"\\":1}"#;
        assert_eq!(get(text, r"/\").ok().as_deref(), Some("1"));
        assert!(get(text, r"/\\").is_err());
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "(?s).{0,30}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::btree_map("[a-c~/\"\\\\\u{e4}]{0,2}", inner, 0..5)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_whole_parse(value in any_json(), pointer in "(/[a-c0-2\"\\\\\u{e4}]{0,2}|/~0|/~1){0,3}", pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
            let expected = value.pointer(&pointer);
            match get(&text, &pointer) {
                Ok(found) => match expected.expect("found") {
                    serde_json::Value::String(expected) => prop_assert_eq!(&found, expected),
                    expected => prop_assert_eq!(found, expected.to_string()),
                },
                Err(FieldError::Missing { .. }) => prop_assert!(expected.is_none()),
                Err(FieldError::Null { .. }) => prop_assert!(expected.expect("found").is_null()),
                Err(FieldError::NotScalar { .. }) => {
                    let expected = expected.expect("found");
                    prop_assert!(expected.is_array() || expected.is_object());
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'['), Just(b':'), Just(b','), Just(b'a'), Just(b'u'), any::<u8>()], 0..60)) {
            for pointer in ["", "/a", "/a/0", "/0/a"] {
                let _ = extract(&bytes, &Pointer::parse(pointer).expect("a pointer"), &mut Vec::new());
            }
        }
    }

    #[test]
    #[ignore = "a measurement"]
    fn json_field_speed() {
        let value: &[u8] =
            br#"{"auction":6399,"bidder":767,"price":2273011,"channel":"Apple","dateTime":1700000000000,"extra":"a706dd2f4d197e6f"}"#;
        for name in ["auction", "bidder", "dateTime", "extra"] {
            let pointer = Pointer::parse(&format!("/{name}")).expect("a pointer");
            let (mut out, rounds) = (Vec::new(), 5_000_000);
            let started = std::time::Instant::now();
            for _ in 0..rounds {
                out.clear();
                extract(std::hint::black_box(value), &pointer, &mut out).expect("found");
                std::hint::black_box(&out);
            }
            let ours = started.elapsed();
            let started = std::time::Instant::now();
            for _ in 0..rounds {
                std::hint::black_box(sonic_rs::get(std::hint::black_box(value), &[name]).expect("found"));
            }
            let per = |time: std::time::Duration| time.as_secs_f64() * 1e9 / f64::from(rounds);
            println!("{name}: {:.1} ns, sonic_rs::get {:.1} ns", per(ours), per(started.elapsed()));
        }
    }
}
