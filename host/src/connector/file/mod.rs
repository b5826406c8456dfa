//! Files as a source (one file, a folder, a glob) and as a sink with two-phase commit.

mod csv;
mod framing;
mod input;
mod listing;
mod replay;
mod source;
mod split;

pub use source::{FileSource, FileSourceOptions};
