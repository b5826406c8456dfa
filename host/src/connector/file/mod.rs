//! Files as a source (one file, a folder, a glob) and as a sink with two-phase commit.

mod csv;
mod framing;
mod input;
mod listing;
mod replay;
mod sink;
mod source;
mod split;
mod staging;

pub use sink::{FileSink, FileSinkOptions};
pub use source::{FileSource, FileSourceOptions};
pub use staging::{FileWriter, Place};
