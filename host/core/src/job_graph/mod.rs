//! The job as written ([`spec`]), as checked, and as it runs ([`execution`]).

pub mod execution;
mod fields;
mod guest_limits;
pub mod parse;
mod settings;
pub mod similar;
pub mod spec;
pub mod validate;
