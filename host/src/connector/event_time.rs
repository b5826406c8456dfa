//! Event time from a field of a JSON value.
//!
//! Accepted: a whole number of milliseconds since the epoch (never seconds: which of the two is meant can't be told from the
//! number), RFC 3339 text, and text without an offset (`2013-01-01T05:00:00`, `2013-01-01 05:00:00`), which is UTC.

use super::json_field::{self, Field, Pointer};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::Offset;
use tidegate_core::row::{END_OF_TIME, NO_TIMESTAMP, Timestamp};

static PARSER: DateTimeParser = DateTimeParser::new();

/// Longer text is no point in time.
const TEXT_BYTES_MAX: usize = 64;

#[derive(Debug, Clone)]
pub struct EventTime {
    pointer: Option<Pointer>,
}

impl EventTime {
    /// Without a pointer records have no timestamp.
    pub fn new(pointer: Option<String>) -> Result<Self, String> {
        Ok(Self { pointer: pointer.map(|text| Pointer::parse(&text)).transpose()? })
    }

    /// Whether [`Self::of`] looks into values at all.
    pub fn is_some(&self) -> bool {
        self.pointer.is_some()
    }

    #[inline]
    pub fn of(&self, value: &[u8]) -> Result<Timestamp, String> {
        let Some(pointer) = &self.pointer else { return Ok(NO_TIMESTAMP) };
        let wrong = |text: &[u8]| {
            let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]).into_owned();
            format!(
                "the event time {} = {text} is neither a whole number of milliseconds nor a time like 2013-01-01T05:00:00Z",
                pointer.as_str()
            )
        };
        match json_field::find(value, pointer).map_err(|error| error.to_string())? {
            Field::Number(text) => milliseconds(text).ok_or_else(|| wrong(text)),
            Field::Text { raw, escaped: false } => instant(raw).ok_or_else(|| wrong(raw)),
            Field::Text { raw, escaped: true } => {
                let mut text = Vec::new();
                let resolved = json_field::unescape(raw, &mut text);
                resolved.and_then(|()| instant(&text)).ok_or_else(|| wrong(raw))
            }
            Field::Bool(flag) => Err(wrong(flag.to_string().as_bytes())),
        }
    }
}

fn milliseconds(text: &[u8]) -> Option<Timestamp> {
    let number = std::str::from_utf8(text).ok()?.parse().ok()?;
    // Both ends of the range mean something else.
    (number != NO_TIMESTAMP && number != END_OF_TIME).then_some(number)
}

fn instant(text: &[u8]) -> Option<Timestamp> {
    const DATE_BYTES: usize = "2013-01-01".len();
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let has_offset = text.iter().skip(DATE_BYTES).any(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-'));
    let timestamp = if has_offset {
        PARSER.parse_timestamp(text).ok()?
    } else {
        Offset::UTC.to_timestamp(PARSER.parse_datetime(text).ok()?).ok()?
    };
    Some(timestamp.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<Timestamp, String> {
        EventTime::new(Some("/t".into())).expect("a pointer").of(format!("{{\"a\":1,\"t\":{value}}}").as_bytes())
    }

    #[test]
    fn milliseconds_and_the_usual_texts_are_read() {
        for (value, expected) in [
            ("1357016400123", 1_357_016_400_123),
            ("-5", -5),
            ("0", 0),
            ("\"2013-01-01T05:00:00Z\"", 1_357_016_400_000),
            ("\"2013-01-01T05:00:00.123Z\"", 1_357_016_400_123),
            ("\"2013-01-01T00:00:00-05:00\"", 1_357_016_400_000),
            ("\"2013-01-01 05:00:00\"", 1_357_016_400_000),
            ("\"2013-01-01T05:00:00\"", 1_357_016_400_000),
            ("\"2013-01-01 05:00:00+00:00\"", 1_357_016_400_000),
            ("\"2013-01-01\\u005405:00:00Z\"", 1_357_016_400_000),
            ("\"1969-12-31T23:59:59.999Z\"", -1),
        ] {
            assert_eq!(of(value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_field_and_text() {
        for value in ["1.5", "1e12", "9223372036854775807", "-9223372036854775808", "99999999999999999999", "true"] {
            let message = of(value).expect_err(value);
            assert!(message.contains("/t") && message.contains(value), "{message}");
        }
        let (long, odd) = (format!("\"{}\"", "2".repeat(1000)), "\"2013-13-01T00:00:00Z\"");
        for value in ["\"\"", "\"yesterday\"", "\"2013-02-30 00:00:00\"", "\"1357016400123\"", long.as_str(), odd, "\"\u{e4}\""] {
            let message = of(value).expect_err(value);
            assert!(message.len() < 300 && message.contains("neither a whole number of milliseconds"), "{message}");
        }
        assert_eq!(of("null"), Err("the field /t is null".into()));
        assert!(EventTime::new(Some("t".into())).is_err());
    }

    #[test]
    fn without_a_field_there_is_no_timestamp() {
        assert_eq!(EventTime::new(None).expect("nothing to parse").of(b"anything"), Ok(NO_TIMESTAMP));
    }
}
