//! The three ways to say no, and what each costs.
//!
//! * a [`RecordError`] rejects one record: the SDK undoes what the record did, the operator's `on_error` decides about it, and the
//!   rest of the batch counts;
//! * a *transient* error drops the whole call, and the job starts again from its last checkpoint;
//! * a *fatal* one fails the job.
//!
//! A panic is the fourth: the host drops the call, finds the record by bisection and goes on with a new instance.

use std::fmt;

/// Why a record can't be processed. Made from any error by `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError(pub(crate) Verdict);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Rejected(String),
    Fatal(String),
    Transient(String),
}

impl RecordError {
    /// Rejects the record. The reason goes to the dead-letter sink with it.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(Verdict::Rejected(reason.into()))
    }

    /// Not this record's fault: the operator can't go on, and the job fails.
    pub fn fatal(reason: impl Into<String>) -> Self {
        Self(Verdict::Fatal(reason.into()))
    }

    /// Not this record's fault: worth another try from the last checkpoint.
    pub fn transient(reason: impl Into<String>) -> Self {
        Self(Verdict::Transient(reason.into()))
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Verdict::Rejected(reason) | Verdict::Fatal(reason) | Verdict::Transient(reason)) = &self.0;
        f.write_str(reason)
    }
}

// `RecordError` is deliberately no `std::error::Error`: this blanket conversion, which makes `?` work on everything, needs that.
impl<E: std::error::Error> From<E> for RecordError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// `return Err(RecordError::new(format!(…)))`
#[macro_export]
macro_rules! reject {
    ($($reason:tt)+) => {
        return ::core::result::Result::Err($crate::RecordError::new(::std::format!($($reason)+)))
    };
}

/// Why an operator can't start. Made from any error by `?`, and then fatal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    pub(crate) reason: String,
    pub(crate) transient: bool,
}

impl StartError {
    /// The job fails: starting again would end the same way.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), transient: false }
    }

    /// Worth another try.
    pub fn transient(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), transient: true }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl<E: std::error::Error> From<E> for StartError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}
