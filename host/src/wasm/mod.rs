//! (in work)
pub mod wasi;
