//! `2013-01-01T10:00:00Z` as milliseconds since the epoch, and nothing else.

/// `None` for what is not exactly a full hour in this form.
pub fn milliseconds(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:00:00Z";
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().ok();
    let (year, month, day, hour) = (number(0, 4)?, number(5, 7)?, number(8, 10)?, number(11, 13)?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) || hour > 23 {
        return None;
    }
    Some((days_since_epoch(year, month, day) * 24 + hour) * 3_600_000)
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's algorithm: years begin in March, so that the leap day is the last one.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn hours_are_read() {
        assert_eq!(milliseconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(milliseconds("2013-01-01T10:00:00Z"), Some(1_357_034_400_000));
        assert_eq!(milliseconds("2012-02-29T23:00:00Z"), Some(1_330_556_400_000));
        assert_eq!(milliseconds("1969-12-31T23:00:00Z"), Some(-3_600_000));
    }

    #[test]
    fn what_is_no_hour_is_none() {
        for text in [
            "",
            "yesterday",
            "2013-02-29T00:00:00Z",
            "2013-13-01T00:00:00Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T10:30:00Z",
            "2013-01-01 10:00:00",
            "2013-01-00T10:00:00Z",
            "2013-01-01T10:00:00Zz",
        ] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }
}
