//! Rows as files and terminals show them.
//!
//! * `lines`: the value and a newline. A tombstone is an empty line.
//! * `json-envelope`: one object a line with everything a row has; bytes that are not UTF-8 stand under `…_base64`, a tombstone's
//!   value is null.
//! * `rows`: the raw row format, one row after the other.

use super::json_text::{write_bytes_field, write_string};
use tidegate_core::row::{NO_TIMESTAMP, Row, Rows, headers};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowText {
    Lines,
    JsonEnvelope,
    Rows,
}

/// As the option `format` names them.
pub const FORMATS: [(&str, RowText); 3] =
    [("lines", RowText::Lines), ("json-envelope", RowText::JsonEnvelope), ("rows", RowText::Rows)];

impl RowText {
    pub fn write(self, rows: &Rows, out: &mut Vec<u8>) {
        match self {
            Self::Lines => {
                out.reserve(rows.bytes.len());
                for row in rows.iter() {
                    out.extend_from_slice(row.value.unwrap_or_default());
                    out.push(b'\n');
                }
            }
            Self::JsonEnvelope => rows.iter().for_each(|row| write_envelope(&row, out)),
            Self::Rows => out.extend_from_slice(&rows.bytes),
        }
    }
}

fn write_envelope(row: &Row<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    write_bytes_field(out, "key", row.key);
    out.push(b',');
    match row.value {
        Some(value) => write_bytes_field(out, "value", value),
        None => out.extend_from_slice(b"\"value\":null"),
    }
    out.extend_from_slice(b",\"timestamp\":");
    match row.timestamp {
        NO_TIMESTAMP => out.extend_from_slice(b"null"),
        timestamp => out.extend_from_slice(timestamp.to_string().as_bytes()),
    }
    out.extend_from_slice(b",\"change\":");
    write_string(out, row.change.name().as_bytes());
    if !row.headers.is_empty() {
        for (index, (name, value)) in headers(row.headers).enumerate() {
            out.extend_from_slice(if index == 0 { b",\"headers\":[{\"name\":" } else { b",{\"name\":" });
            write_string(out, name.as_bytes());
            out.push(b',');
            write_bytes_field(out, "value", value);
            out.push(b'}');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::row::{ChangeKind, write_header};

    fn rows() -> Rows {
        let mut headers = Vec::new();
        assert!(write_header(&mut headers, "trace", b"a\"b"));
        assert!(write_header(&mut headers, "raw", b"\xff"));
        let mut rows = Rows::default();
        rows.push(&Row::new(b"k", b"one", 5));
        rows.push(&Row { key: b"\xfe", value: None, timestamp: NO_TIMESTAMP, change: ChangeKind::Retract, headers: &headers });
        rows
    }

    fn text(format: RowText) -> String {
        let mut out = Vec::new();
        format.write(&rows(), &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn lines_hold_values_and_tombstones_are_empty_ones() {
        assert_eq!(text(RowText::Lines), "one\n\n");
    }

    #[test]
    fn the_envelope_holds_everything_and_is_json() {
        let text = text(RowText::JsonEnvelope);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines[0], serde_json::json!({"key": "k", "value": "one", "timestamp": 5, "change": "insert"}));
        assert_eq!(
            lines[1],
            serde_json::json!({"key_base64": "/g==", "value": null, "timestamp": null, "change": "retract",
                "headers": [{"name": "trace", "value": "a\"b"}, {"name": "raw", "value_base64": "/w=="}]})
        );
    }

    #[test]
    fn rows_are_left_as_they_are() {
        let mut out = Vec::new();
        RowText::Rows.write(&rows(), &mut out);
        assert_eq!(out, rows().bytes);
    }
}
