//! Why the manager could not do what it was asked, and how that reads as a problem document.

use super::runtime::JobError;
use crate::api::ProblemDetails;
use crate::job_store::JobStoreError;
use crate::module_store::ModuleStoreError;
use tidegate_core::problem::Problem;

#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("there is no {what} `{name}`")]
    NotFound { what: &'static str, name: String },
    #[error("{attempted}: {cause}")]
    Conflict { attempted: String, cause: String, remedy: String },
    /// The document is well formed, and wrong.
    #[error("{attempted}: {} found", count(.problems.len()))]
    Invalid { attempted: String, problems: Vec<Problem> },
    #[error(transparent)]
    Module(#[from] ModuleStoreError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error(transparent)]
    Store(#[from] JobStoreError),
    #[error("job file {path}: {cause}")]
    Unreadable { path: String, cause: String },
    #[error("{attempted}: no answer within {seconds} s")]
    TimedOut { attempted: String, seconds: u64 },
    #[error("the host is shutting down")]
    ShuttingDown,
    /// A thread of ours panicked; what it was doing is unknown.
    #[error("{attempted}: a defect in Tidegate: {cause}")]
    Bug { attempted: String, cause: String },
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".into() } else { format!("{problems} problems") }
}

impl ManagerError {
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound { .. } => 404,
            Self::Conflict { .. } => 409,
            Self::Invalid { .. } => 422,
            Self::Module(error) => match error {
                ModuleStoreError::BadName { .. } => 400,
                ModuleStoreError::TooLarge { .. } => 413,
                ModuleStoreError::Refused(error) if error.is_of_the_host => 500,
                ModuleStoreError::Refused(_) => 422,
                ModuleStoreError::VersionTaken { .. } => 409,
                ModuleStoreError::Storage { .. } | ModuleStoreError::Damaged { .. } => 500,
            },
            Self::Job(error) if error.asked_wrong => 400,
            Self::Job(_) | Self::Store(_) | Self::Unreadable { .. } | Self::Bug { .. } => 500,
            Self::TimedOut { .. } => 504,
            Self::ShuttingDown => 503,
        }
    }

    /// The last part of the problem's type, and its title.
    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::NotFound { .. } => ("not-found", "Not found"),
            Self::Conflict { .. } => ("conflict", "Not in this state"),
            Self::Invalid { .. } => ("invalid", "The document has problems"),
            Self::Module(error) => match error {
                ModuleStoreError::BadName { .. } => ("bad-name", "The name is not allowed"),
                ModuleStoreError::TooLarge { .. } => ("too-large", "The module is too large"),
                ModuleStoreError::Refused(error) if error.is_of_the_host => ("compiler", "The host could not compile it"),
                ModuleStoreError::Refused(_) => ("module-refused", "The module can't be used"),
                ModuleStoreError::VersionTaken { .. } => ("version-taken", "The version exists with other content"),
                ModuleStoreError::Storage { .. } => ("storage", "The host's storage failed"),
                ModuleStoreError::Damaged { .. } => ("damaged", "A stored file is damaged"),
            },
            Self::Job(error) if error.asked_wrong => ("bad-request", "The request is not understood"),
            Self::Job(_) => ("job", "The job could not do it"),
            Self::Store(_) => ("storage", "The host's storage failed"),
            Self::Unreadable { .. } => ("damaged", "A stored file is damaged"),
            Self::TimedOut { .. } => ("timed-out", "No answer in time"),
            Self::ShuttingDown => ("shutting-down", "The host is shutting down"),
            Self::Bug { .. } => ("defect", "A defect in Tidegate"),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } | Self::Invalid { .. } => None,
            Self::Conflict { remedy, .. } => Some(remedy.clone()),
            Self::Module(error) => match error {
                ModuleStoreError::Refused(error) => error.remedy.clone(),
                ModuleStoreError::VersionTaken { .. } => {
                    Some("push it under a new version: jobs rely on a version never changing".into())
                }
                ModuleStoreError::TooLarge { .. } => Some("build it with `opt-level = 3`, `strip = true`".into()),
                ModuleStoreError::BadName { .. } | ModuleStoreError::Storage { .. } | ModuleStoreError::Damaged { .. } => None,
            },
            Self::Job(error) => error.remedy.clone(),
            Self::Store(_) => Some("look for a full disk or missing rights in the data folder".into()),
            Self::Unreadable { .. } => {
                Some("put the file back from a copy, or move the job's folder away and restart the host".into())
            }
            Self::TimedOut { .. } => Some("ask for the job's state and try again".into()),
            Self::ShuttingDown => Some("try again when it is back".into()),
            Self::Bug { .. } => Some("the host goes on; please report this with the log".into()),
        }
    }

    pub fn problem(&self) -> ProblemDetails {
        let (kind, title) = self.kind();
        let problems = match self {
            Self::Invalid { problems, .. } => problems.clone(),
            Self::Module(ModuleStoreError::Refused(error)) => error.problems.clone(),
            _ => Vec::new(),
        };
        ProblemDetails {
            kind: format!("urn:tidegate:problem:{kind}"),
            title: title.into(),
            status: self.status(),
            detail: self.to_string(),
            remedy: self.remedy(),
            problems,
        }
    }
}
