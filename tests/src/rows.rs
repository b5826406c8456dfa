//! Rows as a test writes them down, and as it reads them back.

use tidegate_core::row::{self, ChangeKind, NO_TIMESTAMP, Origin, Origins, Row, Rows};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRow {
    pub key: Vec<u8>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub timestamp: i64,
    pub change: ChangeKind,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Where the row came from. Of rows that go in: the row's number in its batch.
    pub origin: Option<Origin>,
}

/// A plain row without a timestamp.
pub fn row(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> TestRow {
    TestRow {
        key: key.as_ref().to_vec(),
        value: Some(value.as_ref().to_vec()),
        timestamp: NO_TIMESTAMP,
        change: ChangeKind::Insert,
        headers: Vec::new(),
        origin: None,
    }
}

pub fn tombstone(key: &str) -> TestRow {
    TestRow { value: None, ..row(key, "") }
}

impl TestRow {
    pub fn at(self, timestamp: i64) -> Self {
        Self { timestamp, ..self }
    }

    pub fn change(self, change: ChangeKind) -> Self {
        Self { change, ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// The value as text, where it is one.
    pub fn text(&self) -> String {
        self.value.as_ref().map_or_else(|| "(none)".to_owned(), |value| String::from_utf8_lossy(value).into_owned())
    }

    /// As it went in, whatever its origin was.
    pub fn without_origin(self) -> Self {
        Self { origin: None, ..self }
    }
}

/// The batch that a source with the split 1 would make of them, from its record 100 on.
pub fn batch(rows: &[TestRow]) -> Rows {
    let mut batch = Rows { origins: Origins::Run(Origin::new(1, 100)), ..Rows::default() };
    for test_row in rows {
        let mut headers = Vec::new();
        for (name, value) in &test_row.headers {
            assert!(row::write_header(&mut headers, name, value), "the header {name} can't be written");
        }
        batch.push(&Row {
            key: &test_row.key,
            value: test_row.value.as_deref(),
            timestamp: test_row.timestamp,
            change: test_row.change,
            headers: &headers,
        });
    }
    batch
}

pub fn read(rows: &Rows) -> Vec<TestRow> {
    let read = |(index, row): (usize, Row<'_>)| TestRow {
        key: row.key.to_vec(),
        value: row.value.map(<[u8]>::to_vec),
        timestamp: row.timestamp,
        change: row.change,
        headers: row::headers(row.headers).map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        origin: Some(rows.origins.get(index)),
    };
    let all: Vec<_> = rows.iter().enumerate().map(read).collect();
    assert_eq!(all.len(), rows.count as usize, "rows as counted and as walked");
    all
}
