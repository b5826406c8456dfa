//! All paths of a job's store, relative to its folder. Written into manifests and decisions, so a change is a change of format.

use std::fmt::{Display, Formatter, Result};
use tidegate_core::checkpoint::{CheckpointId, SAVEPOINTS};
use tidegate_core::recovery::Seq;

/// Numbers have leading zeros, so that people and stores list them in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorePath<'a> {
    Incarnation {
        number: u64,
    },
    Decision {
        seq: Seq,
    },
    Manifest {
        checkpoint: CheckpointId,
        uuid: &'a str,
    },
    Segment {
        operator: &'a str,
        task_index: u32,
        checkpoint: CheckpointId,
        uuid: &'a str,
    },
    /// What was in flight to a task.
    InFlight {
        node: &'a str,
        task_index: u32,
        checkpoint: CheckpointId,
        uuid: &'a str,
    },
    Savepoint {
        id: &'a str,
    },
    SavepointManifest {
        id: &'a str,
    },
    /// Written last: the savepoint is whole.
    SavepointPointer {
        id: &'a str,
    },
    /// `segment` as in `Segment`, without its folder.
    SavepointSegment {
        id: &'a str,
        segment: &'a str,
    },
}

impl StorePath<'_> {
    pub const INCARNATIONS: &'static str = "inc";
    pub const DECISIONS: &'static str = "commits";
    pub const MANIFESTS: &'static str = "manifests";
    pub const SEGMENTS: &'static str = "segments";

    /// The number in the name of an incarnation or a decision. `None`: not a name of ours.
    pub fn number(path: &str) -> Option<u64> {
        let (_, name) = path.rsplit_once('/')?;
        name.strip_suffix(".json")?.parse().ok()
    }

    /// The checkpoint in the name of a manifest or a segment. `None`: not a name of ours.
    pub fn checkpoint(path: &str) -> Option<CheckpointId> {
        let name = path.rsplit_once('/')?.1;
        let (rest, _uuid) = name.rsplit_once('-')?;
        rest.rsplit('-').next()?.parse().ok()
    }
}

impl Display for StorePath<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Incarnation { number } => write!(f, "{}/{number:010}.json", Self::INCARNATIONS),
            Self::Decision { seq } => write!(f, "{}/{seq:012}.json", Self::DECISIONS),
            Self::Manifest { checkpoint, uuid } => write!(f, "{}/{checkpoint:012}-{uuid}.json", Self::MANIFESTS),
            Self::Segment { operator, task_index, checkpoint, uuid } => {
                write!(f, "{}/{operator}/{task_index:03}-{checkpoint:012}-{uuid}.seg", Self::SEGMENTS)
            }
            Self::InFlight { node, task_index, checkpoint, uuid } => {
                write!(f, "{}/{node}/{task_index:03}-{checkpoint:012}-{uuid}.inflight", Self::SEGMENTS)
            }
            Self::Savepoint { id } => write!(f, "{SAVEPOINTS}{id}"),
            Self::SavepointManifest { id } => write!(f, "{SAVEPOINTS}{id}/manifest.json"),
            Self::SavepointPointer { id } => write!(f, "{SAVEPOINTS}{id}/pointer.json"),
            Self::SavepointSegment { id, segment } => write!(f, "{SAVEPOINTS}{id}/segments/{segment}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_pinned() {
        let paths = [
            (StorePath::Incarnation { number: 7 }, "inc/0000000007.json"),
            (StorePath::Decision { seq: 42 }, "commits/000000000042.json"),
            (StorePath::Manifest { checkpoint: 9, uuid: "ab" }, "manifests/000000000009-ab.json"),
            (
                StorePath::Segment { operator: "count", task_index: 1, checkpoint: 9, uuid: "ab" },
                "segments/count/001-000000000009-ab.seg",
            ),
            (
                StorePath::InFlight { node: "count", task_index: 1, checkpoint: 9, uuid: "ab" },
                "segments/count/001-000000000009-ab.inflight",
            ),
            (StorePath::SavepointManifest { id: "x" }, "savepoints/x/manifest.json"),
            (StorePath::SavepointPointer { id: "x" }, "savepoints/x/pointer.json"),
            (StorePath::SavepointSegment { id: "x", segment: "count/1.seg" }, "savepoints/x/segments/count/1.seg"),
        ];
        for (path, text) in paths {
            assert_eq!(path.to_string(), text);
        }
        assert_eq!(StorePath::number("commits/000000000042.json"), Some(42));
        assert_eq!(StorePath::number("commits/readme.txt"), None);
        assert_eq!(StorePath::checkpoint("manifests/000000000009-ab.json"), Some(9));
        assert_eq!(StorePath::checkpoint("segments/count/001-000000000009-ab.seg"), Some(9));
        assert_eq!(StorePath::checkpoint("segments/count/notes.txt"), None);
    }
}
