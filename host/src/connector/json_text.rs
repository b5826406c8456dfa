//! Writing JSON by hand, where a serializer's bookkeeping would be most of the cost.

/// Appends text as a JSON string. The caller has checked that it is UTF-8.
#[inline]
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    // No early end: the loop becomes a few vector instructions.
    if text.iter().fold(false, |any, byte| any | needs_escape(*byte)) {
        write_escaped(out, text);
    } else {
        out.extend_from_slice(text);
    }
    out.push(b'"');
}

#[inline]
fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn write_escaped(out: &mut Vec<u8>, text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(*byte),
        }
    }
}

/// Appends `"name":"text"`, or `"name_base64":"…"` where the bytes are no UTF-8.
pub fn write_bytes_field(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    use base64::Engine;
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    if std::str::from_utf8(bytes).is_ok() {
        out.extend_from_slice(b"\":");
        write_string(out, bytes);
    } else {
        out.extend_from_slice(b"_base64\":\"");
        out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
        out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_comes_back(text in "(?s).{0,40}") {
            let mut out = Vec::new();
            write_string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_base64_under_another_name() {
        let mut out = Vec::new();
        write_bytes_field(&mut out, "value", b"\xff\x00");
        out.push(b',');
        write_bytes_field(&mut out, "key", b"k\x01");
        assert_eq!(out, br#""value_base64":"/wA=","key":"k\u0001""#);
    }
}
