//! Around every request: what is refused before any handler runs, what is counted, and what catches a handler's panic.
//!
//! Invariants:
//! * sizes and rates are checked before tokens, so that guessing them is slow too;
//! * a path that is not there needs a token like one that is: without one, nobody learns what is served.

use super::Host;
use super::access::Role;
use super::connections::Client;
use super::problem::HttpProblem;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::PoisonError;
use std::time::Instant;
use tidegate_core::limits::{HttpLimits, URI_BYTES_MAX};

/// Whoever asks whether the host is well needs no token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

pub async fn guard(State(host): State<Host>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // Patterns only: paths that nobody serves would make a label of whatever a client writes.
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", |path| path.as_str()).to_owned();
    let response = match refuse(&host, &request, &route) {
        Some(refusal) => refusal,
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

fn refuse(host: &Host, request: &Request, route: &str) -> Option<Response> {
    too_large(&host.limits, request)
        .map(IntoResponse::into_response)
        .or_else(|| too_many(host, request))
        .or_else(|| unauthorized(host, request, route))
        .or_else(|| foreign_origin(request).map(IntoResponse::into_response))
}

fn too_large(limits: &HttpLimits, request: &Request) -> Option<HttpProblem> {
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri > URI_BYTES_MAX {
        let detail = format!("the path has {uri} bytes, the limit is {URI_BYTES_MAX} (uri_bytes_max)");
        return Some(HttpProblem::new(StatusCode::URI_TOO_LONG, "too-large", "The path is too long", detail));
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > limits.header_bytes_max {
        let detail = format!("the headers have {headers} bytes, the limit is {} (header_bytes_max)", limits.header_bytes_max);
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Some(HttpProblem::new(status, "too-large", "The headers are too large", detail));
    }
    None
}

fn too_many(host: &Host, request: &Request) -> Option<Response> {
    let client = *request.extensions().get::<Client>().expect("BUG: a request of nobody");
    let now_ms = u64::try_from(host.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut rates = host.rates.lock().unwrap_or_else(PoisonError::into_inner);
    let wait_ms = rates.take(client, now_ms).err()?;
    let detail = format!("{client} may send {} a second (requests_per_second_max)", rates.per_second());
    let problem = HttpProblem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail)
        .remedy("wait as long as the header `retry-after` says; `tidegate serve --rate-limit` sets the limit");
    let mut response = problem.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1000)));
    Some(response)
}

fn unauthorized(host: &Host, request: &Request, route: &str) -> Option<Response> {
    if host.access.is_open() || OPEN.contains(&route) || (host.metrics_open && route == "/metrics") {
        return None;
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, title, detail, challenge) = match bearer(request.headers()).map(|token| host.access.role_of(token)) {
        Some(Some(Role::Write)) => return None,
        Some(Some(Role::Read)) if reads => return None,
        Some(Some(Role::Read)) => (
            StatusCode::FORBIDDEN,
            "forbidden",
            "The token may only read",
            "this request changes something, and the token has the role `read`",
            r#"Bearer realm="tidegate", error="insufficient_scope", scope="write""#,
        ),
        Some(None) => (
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "The token is not known",
            "the token in the header `authorization` is none of this server's",
            r#"Bearer realm="tidegate", error="invalid_token""#,
        ),
        None => (
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "A token is needed",
            "the header `authorization: Bearer TOKEN` is missing",
            r#"Bearer realm="tidegate""#,
        ),
    };
    let problem = HttpProblem::new(status, kind, title, detail)
        .remedy("use a token of this server (on the command line: --token-file or TIDEGATE_TOKEN)");
    let mut response = problem.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    Some(response)
}

/// The token of exactly one header `authorization`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn foreign_origin(request: &Request) -> Option<HttpProblem> {
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
