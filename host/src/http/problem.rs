//! Errors as `application/problem+json`.

use crate::api::{PROBLEM_JSON, ProblemDetails};
use crate::job_manager::ManagerError;
use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tidegate_core::problem::Problem;

/// What handlers fail with.
#[derive(Debug)]
pub struct HttpProblem(pub Box<ProblemDetails>);

impl HttpProblem {
    pub fn new(status: StatusCode, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(ProblemDetails {
            kind: format!("urn:tidegate:problem:{kind}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            remedy: None,
            problems: Vec::new(),
        }))
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// A parameter of the query, or a key of the body.
    pub fn parameter(key: &str, value: Option<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut problem =
            Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request is not understood", format!("{key}: {message}"));
        problem.0.problems.push(Problem::new(key, value, message));
        problem
    }
}

impl From<ManagerError> for HttpProblem {
    fn from(error: ManagerError) -> Self {
        let problem = error.problem();
        if problem.status >= 500 {
            tracing::error!(%error, status = problem.status, "request failed");
        }
        Self(Box::new(problem))
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(*self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

pub async fn no_such_route(uri: Uri) -> HttpProblem {
    let path: String = uri.path().chars().take(200).collect();
    HttpProblem::new(StatusCode::NOT_FOUND, "no-such-path", "There is no such path", format!("nothing is served at {path}"))
        .remedy("the API begins at /v1/jobs and /v1/modules")
}

pub async fn no_such_method(method: Method, uri: Uri) -> HttpProblem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("{path} has no {method}");
    HttpProblem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", "The method is not allowed here", detail)
        .remedy("the header `allow` lists what is")
}
