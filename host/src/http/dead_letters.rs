//! One dead letter, its bytes, and what is to become of it.

use super::Host;
use super::problem::HttpProblem;
use super::request::{self, Body, Segments};
use crate::api::{DeadLetter, ReplayRequest, ReplayView};
use crate::job_manager::ManagerError;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

pub async fn show(
    State(host): State<Host>,
    Segments((name, id)): Segments<(String, String)>,
) -> Result<Json<DeadLetter>, HttpProblem> {
    Ok(Json(host.manager.dead_letter(&name, &id).await?.0))
}

/// The record as it was, byte by byte. A tombstone has no value: 404.
pub async fn value(State(host): State<Host>, Segments((name, id)): Segments<(String, String)>) -> Result<Response, HttpProblem> {
    let (_, value) = host.manager.dead_letter(&name, &id).await?;
    let value = value.ok_or(ManagerError::NotFound { what: "value of the dead letter (a tombstone)", name: id })?;
    // Whatever it is, a browser must not take it for a page of ours.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, value).into_response())
}

pub async fn replay(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(StatusCode, Json<ReplayView>), HttpProblem> {
    let request: ReplayRequest = request::json_or_default(&headers, &body)?;
    Ok(answer(host.manager.replay(&name, request, false).await?))
}

pub async fn discard(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(StatusCode, Json<ReplayView>), HttpProblem> {
    let request: ReplayRequest = request::json_or_default(&headers, &body)?;
    let view = host.manager.replay(&name, request, true).await?;
    Ok((StatusCode::OK, Json(view)))
}

/// 202: written down, and under way; each letter tells when a checkpoint has it. 200: there was nothing to do.
fn answer(view: ReplayView) -> (StatusCode, Json<ReplayView>) {
    let status = if view.request.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    (status, Json(view))
}
