//! What the command line fails with: what was attempted, why not, what to do.

use crate::api::{Problem, ProblemDetails};
use crate::job_manager::ManagerError;
use crate::server::HostError;

#[derive(Debug, Clone, PartialEq)]
pub struct CliError {
    pub what: String,
    pub problems: Vec<Problem>,
    pub remedy: Option<String>,
    /// The server knows of no such thing.
    pub not_found: bool,
    code: u8,
}

/// The job, the server or the request failed.
const FAILED: u8 = 1;
/// The user wrote something that can't be right.
const WRONG_USAGE: u8 = 2;

impl CliError {
    pub fn failed(what: impl Into<String>) -> Self {
        Self { what: what.into(), problems: Vec::new(), remedy: None, not_found: false, code: FAILED }
    }

    pub fn usage(what: impl Into<String>) -> Self {
        Self { code: WRONG_USAGE, ..Self::failed(what) }
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub fn code(&self) -> u8 {
        self.code
    }
}

impl From<ProblemDetails> for CliError {
    fn from(problem: ProblemDetails) -> Self {
        let code = if matches!(problem.status, 400 | 413 | 415 | 422) { WRONG_USAGE } else { FAILED };
        // A parameter's problem stands in the detail already.
        let problems = if problem.status == 400 { Vec::new() } else { problem.problems };
        Self { what: problem.detail, problems, remedy: problem.remedy, not_found: problem.status == 404, code }
    }
}

impl From<ManagerError> for CliError {
    fn from(error: ManagerError) -> Self {
        error.problem().into()
    }
}

impl From<HostError> for CliError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Manager(error) => error.into(),
            HostError::Config(error) if error.is_usage() => Self { remedy: error.remedy(), ..Self::usage(error.to_string()) },
            error => {
                let remedy = error.remedy();
                Self { remedy, ..Self::failed(error.to_string()) }
            }
        }
    }
}
