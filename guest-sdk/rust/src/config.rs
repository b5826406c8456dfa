//! Options of the job file as typed fields.

use crate::error::StartError;

/// A type that a `#[config]` field can have: numbers, `bool`, `String`, `Option` of them, and whatever implements [`parse`].
///
/// [`parse`]: ConfigValue::parse
pub trait ConfigValue: Sized {
    /// What a value looks like, for the message when one does not: `a whole number`, `"rows" or "json"`.
    const EXPECTED: &'static str;

    /// `None` where the text is no such value.
    fn parse(text: &str) -> Option<Self>;

    fn from_option(name: &str, given: Option<&str>) -> Result<Self, StartError> {
        let Some(text) = given else {
            return Err(StartError::new(format!("the option {name:?} is missing: {} expected", Self::EXPECTED)));
        };
        Self::parse(text).ok_or_else(|| StartError::new(format!("the option {name:?} is {text:?}: {} expected", Self::EXPECTED)))
    }
}

macro_rules! parsed {
    ($($type:ty: $expected:literal),*) => {$(
        impl ConfigValue for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}

parsed! {
    u8: "a whole number from 0 to 255", u16: "a whole number from 0 to 65535", u32: "a whole number from 0 to 2^32 - 1",
    u64: "a whole number from 0 to 2^64 - 1", usize: "a whole number from 0 on", i8: "a whole number from -128 to 127",
    i16: "a whole number of 16 bits", i32: "a whole number of 32 bits", i64: "a whole number of 64 bits", f32: "a number",
    f64: "a number", bool: "true or false", String: "text"
}

impl<T: ConfigValue> ConfigValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(text: &str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn from_option(name: &str, given: Option<&str>) -> Result<Self, StartError> {
        if given.is_none() { Ok(None) } else { T::from_option(name, given).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_option_is_named_with_what_was_expected() {
        let error = u8::from_option("threshold", Some("300")).unwrap_err().to_string();
        assert_eq!(error, r#"the option "threshold" is "300": a whole number from 0 to 255 expected"#);
        let error = String::from_option("topic", None).unwrap_err().to_string();
        assert_eq!(error, r#"the option "topic" is missing: text expected"#);
    }

    #[test]
    fn an_optional_option_may_be_absent_and_not_wrong() {
        assert_eq!(Option::<u8>::from_option("limit", None).unwrap(), None);
        assert!(Option::<u8>::from_option("limit", Some("many")).is_err());
    }
}
