//! Around every request: what is refused before any handler runs, what is counted, and what catches a handler's panic.

use super::Host;
use super::problem::HttpProblem;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

/// Names of jobs and ids are short, and so is everything one can ask for.
const URI_BYTES_MAX: usize = 4096;

pub async fn guard(State(host): State<Host>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // Patterns only: paths that nobody serves would make a label of whatever a client writes.
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", |path| path.as_str()).to_owned();
    let response = match refuse(&request) {
        Some(problem) => problem.into_response(),
        None => AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
            let detail = "a handler panicked; the log says where";
            HttpProblem::new(StatusCode::INTERNAL_SERVER_ERROR, "defect", "A defect in Tidegate", detail)
                .remedy("the host goes on; please report this with the log")
                .into_response()
        }),
    };
    let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    host.manager.metrics().http_request(known_method(&method), &route, response.status().as_u16(), us);
    response
}

fn refuse(request: &Request) -> Option<HttpProblem> {
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri > URI_BYTES_MAX {
        let detail = format!("the path has {uri} bytes, the limit is {URI_BYTES_MAX} (uri_bytes_max)");
        return Some(HttpProblem::new(StatusCode::URI_TOO_LONG, "too-large", "The path is too long", detail));
    }
    // A web page that the user happens to look at may send simple requests here, although it can't read the answers.
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !reads && let Some(origin) = request.headers().get(header::ORIGIN) {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        if own.is_none() || own != host {
            let detail = "the header `origin` names another site";
            return Some(HttpProblem::new(
                StatusCode::FORBIDDEN,
                "foreign-origin",
                "Changes from other web sites are refused",
                detail,
            ));
        }
    }
    None
}

/// Extension methods are free text, and no label may be.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}
