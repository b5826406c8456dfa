//! The job as written ([`spec`]), as checked, and as it runs ([`execution`]).

pub mod execution;
pub mod parse;
pub mod similar;
pub mod spec;
pub mod validate;
