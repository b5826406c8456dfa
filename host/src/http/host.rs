//! About the host itself.

use super::Host;
use super::problem::HttpProblem;
use crate::api::{API_VERSION, VersionView};
use crate::metrics::text::CONTENT_TYPE;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;

pub async fn version(State(host): State<Host>) -> Json<VersionView> {
    let engine = host.manager.engine().to_owned();
    Json(VersionView { version: env!("CARGO_PKG_VERSION").into(), api: API_VERSION.into(), engine })
}

/// The process answers.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// All stored jobs are started and the host is not going down.
pub async fn readyz(State(host): State<Host>) -> Result<&'static str, HttpProblem> {
    if host.manager.is_ready() {
        return Ok("ready\n");
    }
    Err(HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", "the host is coming up or going down"))
}

pub async fn metrics(State(host): State<Host>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], host.manager.metrics_page())
}
