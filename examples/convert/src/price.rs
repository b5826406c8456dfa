//! Finds two numbers in a flat JSON object, and where the price stands.

use std::ops::Range;
use tidegate_sdk::{RecordError, reject};

pub struct Found {
    pub auction: u64,
    pub amount: u64,
    /// The digits of the price.
    pub price: Range<usize>,
}

/// Goes over the object once, name by name. Nested objects and lists are refused: the events have none.
pub fn find(object: &[u8]) -> Result<Found, RecordError> {
    let (mut auction, mut price) = (None, None);
    let mut at = skip_blanks(object, 0);
    expect(object, &mut at, b'{')?;
    loop {
        at = skip_blanks(object, at);
        let name = text(object, &mut at)?;
        at = skip_blanks(object, at);
        expect(object, &mut at, b':')?;
        at = skip_blanks(object, at);
        match name {
            b"auction" => auction = Some(number(object, &mut at)?.0),
            b"price" => price = Some(number(object, &mut at)?),
            _ if object.get(at) == Some(&b'"') => drop(text(object, &mut at)?),
            _ => at = end_of_word(object, at)?,
        }
        at = skip_blanks(object, at);
        match object.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => break,
            _ => reject!("not a flat JSON object: a comma or a brace expected at byte {at}"),
        }
    }
    match (auction, price) {
        (Some(auction), Some((amount, price))) => Ok(Found { auction, amount, price }),
        _ => reject!("auction and price are needed"),
    }
}

fn skip_blanks(object: &[u8], mut at: usize) -> usize {
    while matches!(object.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

fn expect(object: &[u8], at: &mut usize, byte: u8) -> Result<(), RecordError> {
    if object.get(*at) != Some(&byte) {
        reject!("not a flat JSON object: {:?} expected at byte {at}", char::from(byte));
    }
    *at += 1;
    Ok(())
}

/// A text without its quotes, escapes untouched.
fn text<'a>(object: &'a [u8], at: &mut usize) -> Result<&'a [u8], RecordError> {
    expect(object, at, b'"')?;
    let start = *at;
    loop {
        // Whole runs at a time: byte by byte takes twice as long.
        let rest = object.get(*at..).unwrap_or_default();
        let Some(run) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
            reject!("a text that begins at byte {start} has no end");
        };
        *at += run;
        if rest[run] == b'"' {
            break;
        }
        *at += 2;
    }
    *at += 1;
    Ok(&object[start..*at - 1])
}

fn number(object: &[u8], at: &mut usize) -> Result<(u64, Range<usize>), RecordError> {
    let start = *at;
    let mut number = 0_u64;
    while let Some(digit) = object.get(*at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        let Some(next) = number.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit))) else {
            reject!("the number at byte {start} is greater than 2^64 - 1");
        };
        number = next;
        *at += 1;
    }
    if *at == start {
        reject!("a whole number expected at byte {start}");
    }
    Ok((number, start..*at))
}

/// Past a number, true, false or null.
fn end_of_word(object: &[u8], start: usize) -> Result<usize, RecordError> {
    let word = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
    let len = object[start.min(object.len())..].iter().take_while(word).count();
    if len == 0 {
        reject!("not a flat JSON object: a value expected at byte {start}");
    }
    Ok(start + len)
}
