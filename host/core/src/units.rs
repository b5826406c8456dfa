//! Durations and sizes as people write them: `250ms`, `5m`, `64MiB`.
//!
//! Invariants:
//! * a value has one whole number and one unit, so there is nothing to guess: `1.5s` and `64MB` are refused with what to write;
//! * what is formatted here parses to the same number;
//! * errors do not repeat the text: whoever reports one (a [`Problem`](crate::problem::Problem), the command line) shows it.

use crate::limits::DURATION_MS_MAX;

const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("is not a whole number with a unit, as in {example}")]
    NotANumber { example: &'static str },
    #[error("has a fraction: write a whole number of a smaller unit, as in {example}")]
    Fraction { example: &'static str },
    #[error("has no unit: write {number}ms or {number}s")]
    MissingUnit { number: u64 },
    #[error("has the unknown unit \"{unit}\": {}units are {units}", .meant.map(|m| format!("write {m}; ")).unwrap_or_default())]
    UnknownUnit { unit: String, meant: Option<&'static str>, units: &'static str },
    #[error("is more than the limit of {limit} ({name})")]
    TooLarge { limit: String, name: &'static str },
}

/// Milliseconds. Callers that know `off` look for it first.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let too_large = || UnitError::TooLarge { limit: format_duration_ms(DURATION_MS_MAX), name: "duration_ms_max" };
    let (number, unit) = split(text, "250ms")?;
    let number = number.ok_or_else(too_large)?;
    if unit.is_empty() {
        return Err(UnitError::MissingUnit { number });
    }
    let Some((_, factor)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
        let meant = match unit.to_ascii_lowercase().as_str() {
            "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => Some("ms"),
            "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
            "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
            "h" | "hr" | "hour" | "hours" => Some("h"),
            "d" | "day" | "days" => Some("d"),
            _ => None,
        };
        return Err(UnitError::UnknownUnit { unit: shortened(unit), meant, units: "ms, s, m, h, d" });
    };
    number.checked_mul(*factor).filter(|ms| *ms <= DURATION_MS_MAX).ok_or_else(too_large)
}

/// Bytes. A plain number is a number of bytes.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let too_large = || UnitError::TooLarge { limit: format!("{} bytes", u64::MAX), name: "64 bits" };
    let (number, unit) = split(text, "64MiB")?;
    let number = number.ok_or_else(too_large)?;
    if unit.is_empty() {
        return Ok(number);
    }
    let Some((_, factor)) = BYTE_UNITS.iter().find(|(name, _)| *name == unit) else {
        // "MB" is 1,000,000 to some and 1,048,576 to others: neither is taken for granted.
        let meant = match unit.to_ascii_lowercase().as_str() {
            "b" | "byte" | "bytes" => Some("B"),
            "k" | "kb" | "ki" | "kib" => Some("KiB"),
            "m" | "mb" | "mi" | "mib" => Some("MiB"),
            "g" | "gb" | "gi" | "gib" => Some("GiB"),
            "t" | "tb" | "ti" | "tib" => Some("TiB"),
            _ => None,
        };
        return Err(UnitError::UnknownUnit { unit: shortened(unit), meant, units: "B, KiB, MiB, GiB, TiB" });
    };
    number.checked_mul(*factor).ok_or_else(too_large)
}

/// In the largest unit that loses nothing: `90s`, not `1.5m`.
pub fn format_duration_ms(ms: u64) -> String {
    if ms == 0 { "0s".to_string() } else { format(ms, DURATION_UNITS) }
}

pub fn format_bytes(bytes: u64) -> String {
    format(bytes, BYTE_UNITS)
}

fn format(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| number >= *factor && number.is_multiple_of(*factor);
    let (name, factor) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    format!("{}{name}", number / factor)
}

/// Digits and what follows them. The number is `None` where it does not fit 64 bits.
fn split<'a>(text: &'a str, example: &'static str) -> Result<(Option<u64>, &'a str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() {
        return Err(UnitError::NotANumber { example });
    }
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::Fraction { example });
    }
    Ok((digits.parse().ok(), rest.trim_start()))
}

fn shortened(unit: &str) -> String {
    unit.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_a_whole_number_and_a_unit() {
        for (text, ms) in
            [("1s", 1000), ("250ms", 250), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000), ("0s", 0), (" 10 s ", 10_000)]
        {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_or_plain() {
        for (text, bytes) in
            [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("512KiB", 512 << 10), ("4096", 4096), ("7B", 7), ("1TiB", 1 << 40)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_write() {
        let duration = |text| parse_duration_ms(text).unwrap_err().to_string();
        assert_eq!(duration("250"), "has no unit: write 250ms or 250s");
        assert_eq!(duration("1.5s"), "has a fraction: write a whole number of a smaller unit, as in 250ms");
        assert_eq!(duration("5 minutes"), "has the unknown unit \"minutes\": write m; units are ms, s, m, h, d");
        assert_eq!(duration("3 parsecs"), "has the unknown unit \"parsecs\": units are ms, s, m, h, d");
        assert_eq!(duration("soon"), "is not a whole number with a unit, as in 250ms");
        assert_eq!(duration(""), "is not a whole number with a unit, as in 250ms");
        assert_eq!(duration("-1s"), "is not a whole number with a unit, as in 250ms");
        assert_eq!(duration("40000d"), "is more than the limit of 36500d (duration_ms_max)");
        assert_eq!(duration("99999999999999999999s"), "is more than the limit of 36500d (duration_ms_max)");
        let bytes = |text| parse_bytes(text).unwrap_err().to_string();
        assert_eq!(bytes("64MB"), "has the unknown unit \"MB\": write MiB; units are B, KiB, MiB, GiB, TiB");
        assert_eq!(bytes("20000000TiB"), "is more than the limit of 18446744073709551615 bytes (64 bits)");
    }

    proptest! {
        #[test]
        fn what_is_formatted_parses_to_the_same(ms in 0..=DURATION_MS_MAX, bytes in any::<u64>(), unit in 0usize..5) {
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(ms)), Ok(ms));
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
            let round = (bytes % 1000) * BYTE_UNITS[unit].1;
            prop_assert_eq!(parse_bytes(&format_bytes(round)), Ok(round));
        }

        #[test]
        fn any_text_gives_an_answer(text in "\\PC*", number in "[0-9]{1,25}[ .]?[a-zA-Z]{0,4}") {
            for text in [text, number] {
                let _ = parse_duration_ms(&text);
                let _ = parse_bytes(&text);
            }
        }
    }
}
