//! What a component declares about its states, and the types their values have.
//!
//! Scalars and tuples of them are stored packed and little endian, records as CBOR maps, map keys packed big endian so that
//! bytes sort as values do. So every SDK reads what another wrote.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDeclaration {
    pub name: String,
    pub kind: StateKind,
    /// In WIT notation, or `bytes`.
    pub value_type: String,
    pub map_key_type: Option<String>,
    pub schema_version: u32,
    /// All values have this many bytes.
    pub value_size: Option<u32>,
    pub ttl: Option<TimeToLive>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateKind {
    Value,
    Map,
    List,
    Reducing(Reducer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reducer {
    SumS64,
    SumF64,
    MinS64,
    MaxS64,
    MinF64,
    MaxF64,
    Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeDomain {
    EventTime,
    ProcessingTime,
}

/// Since the last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeToLive {
    pub ms: u64,
    pub domain: TimeDomain,
}
