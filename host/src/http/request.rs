//! What a request brings: body, query, wait. Read within bounds, or refused with the bound and what is expected.

use super::Host;
use super::problem::HttpProblem;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use tidegate_core::limits::{JOB_FILE_BYTES_MAX, REQUEST_BODY_BYTES_MAX};
use tidegate_core::units::parse_duration_ms;

/// Longer waits outlive proxies and the patience of clients: poll instead.
pub const WAIT_MAX: Duration = Duration::from_secs(600);

/// The query, of which every key is known.
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let query = parts.uri.query().map(|q| q.chars().take(200).collect());
                Err(HttpProblem::parameter("(the query)", query, rejection.body_text()))
            }
        }
    }
}

/// The named parts of the path.
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = HttpProblem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpProblem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(rejection) => {
                let path = parts.uri.path().chars().take(200).collect();
                Err(HttpProblem::parameter("(the path)", Some(path), rejection.body_text()))
            }
        }
    }
}

/// The body as it came, within the route's limit and within its time.
pub struct Body(pub Bytes);

impl FromRequest<Host> for Body {
    type Rejection = HttpProblem;

    async fn from_request(request: Request, host: &Host) -> Result<Self, HttpProblem> {
        Self::within(request, host.limits.body_timeout_ms, "body_timeout_ms").await
    }
}

impl Body {
    /// Whoever sends a byte now and then must not hold us for ever.
    pub async fn within(request: Request, timeout_ms: u64, name: &str) -> Result<Self, HttpProblem> {
        let body = tokio::time::timeout(Duration::from_millis(timeout_ms), Bytes::from_request(request, &())).await;
        let body = body.map_err(|_| {
            let detail = format!("the body did not arrive within {timeout_ms} ms ({name})");
            HttpProblem::new(StatusCode::REQUEST_TIMEOUT, "timed-out", "The body takes too long", detail)
        })?;
        body.map(Self).map_err(|rejection| match &rejection {
            BytesRejection::FailedToBufferBody(inner) if inner.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                too_large(REQUEST_BODY_BYTES_MAX)
            }
            _ => HttpProblem::new(StatusCode::BAD_REQUEST, "bad-request", "The body did not arrive", rejection.body_text()),
        })
    }
}

pub fn too_large(max: usize) -> HttpProblem {
    let detail = format!("the body exceeds the limit of {max} bytes");
    HttpProblem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail)
}

/// Without parameters such as `charset`, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn unsupported(found: Option<String>, expected: &str) -> HttpProblem {
    let detail = match found {
        Some(found) => format!("the body is {found}, expected is {expected}"),
        None => format!("the header `content-type` is missing, expected is {expected}"),
    };
    HttpProblem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body's type is not understood", detail)
        .remedy(format!("send `content-type: {expected}`"))
}

fn malformed(what: &str, error: impl ToString) -> HttpProblem {
    HttpProblem::new(
        StatusCode::BAD_REQUEST,
        "malformed",
        "The body is not well formed",
        format!("{what}: {}", error.to_string()),
    )
}

/// A small JSON document that may be left out altogether.
pub fn json_or_default<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &Bytes) -> Result<T, HttpProblem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    match media_type(headers) {
        Some(found) if found == "application/json" => serde_json::from_slice(body).map_err(|e| malformed("JSON", e)),
        found => Err(unsupported(found, "application/json")),
    }
}

/// A job, as JSON or as TOML.
pub fn job(headers: &HeaderMap, body: &Bytes) -> Result<Value, HttpProblem> {
    if body.len() > JOB_FILE_BYTES_MAX {
        return Err(too_large(JOB_FILE_BYTES_MAX));
    }
    match media_type(headers).as_deref() {
        Some("application/json") => serde_json::from_slice(body).map_err(|e| malformed("JSON", e)),
        Some("application/toml") => {
            let text = std::str::from_utf8(body).map_err(|e| malformed("TOML", e))?;
            toml::from_str::<Value>(text).map_err(|e| malformed("TOML", e))
        }
        found => Err(unsupported(found.map(str::to_owned), "application/json` or `application/toml")),
    }
}

/// `?wait=30s`. Without it the answer comes at once.
pub fn wait(text: Option<&str>) -> Result<Option<Duration>, HttpProblem> {
    let Some(text) = text else { return Ok(None) };
    let refuse = |message: String| HttpProblem::parameter("wait", Some(text.chars().take(40).collect()), message);
    let wait = Duration::from_millis(parse_duration_ms(text).map_err(|error| refuse(error.to_string()))?);
    if wait > WAIT_MAX { Err(refuse("at most 10m (wait_max)".into())) } else { Ok(Some(wait)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_with_their_unit_and_bounded() {
        assert_eq!(wait(None).unwrap(), None);
        assert_eq!(wait(Some("30s")).unwrap(), Some(Duration::from_secs(30)));
        assert_eq!(wait(Some("250ms")).unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(wait(Some("10m")).unwrap(), Some(WAIT_MAX));
        for text in ["", "30", "s", "-1s", "11m", "1h", "1.5s", "99999999999999999999s", "18446744073709551615m"] {
            assert!(wait(Some(text)).is_err(), "{text:?}");
        }
    }
}
