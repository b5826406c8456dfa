//! The row format, written out once more on purpose: a test of the host must not share code with it, nor with the SDK.

pub struct Row<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
    pub timestamp: i64,
    pub change: u8,
    pub headers: &'a [u8],
}

pub fn iter(rows: &[u8]) -> impl Iterator<Item = Row<'_>> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (key_len, flags) = ((word(0) & 0x00ff_ffff) as usize, word(0) >> 24);
        let value_len = word(4) as usize;
        let timestamp = i64::from_le_bytes(rest[8..16].try_into().unwrap());
        let (value_at, mut end) = (16 + key_len, 16 + key_len + value_len);
        let value = (flags & 4 == 0).then(|| &rest[value_at..end]);
        let mut headers: &[u8] = &[];
        if flags & 8 != 0 {
            let len = word(end) as usize;
            headers = &rest[end + 4..end + 4 + len];
            end += 4 + len;
        }
        let row = Row { key: &rest[16..value_at], value, timestamp, change: (flags & 3) as u8, headers };
        rest = &rest[end..];
        Some(row)
    })
}

pub fn write(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>, timestamp: i64, change: u8, headers: &[u8]) {
    let mut flags = u32::from(change);
    if value.is_none() {
        flags |= 4;
    }
    if !headers.is_empty() {
        flags |= 8;
    }
    let value = value.unwrap_or_default();
    out.extend_from_slice(&(key.len() as u32 | flags << 24).to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(&timestamp.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    if !headers.is_empty() {
        out.extend_from_slice(&(headers.len() as u32).to_le_bytes());
        out.extend_from_slice(headers);
    }
}

pub fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

pub fn headers(encoded: &[u8]) -> Vec<(String, Vec<u8>)> {
    let (mut rest, mut all) = (encoded, Vec::new());
    while !rest.is_empty() {
        let name_len = u16::from_le_bytes(rest[..2].try_into().unwrap()) as usize;
        let name = String::from_utf8(rest[2..2 + name_len].to_vec()).unwrap();
        let at = 2 + name_len;
        let value_len = u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        all.push((name, rest[at + 4..at + 4 + value_len].to_vec()));
        rest = &rest[at + 4 + value_len..];
    }
    all
}
