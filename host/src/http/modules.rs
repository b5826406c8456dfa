//! `/v1/modules`

use super::Host;
use super::problem::HttpProblem;
use super::request::{Body, Segments, too_large};
use crate::api::{ModuleList, ModuleView};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use tidegate_core::limits::UPLOADS_WAITING_MAX;

/// 201 for a new version, 200 for one that is there with the same bytes.
pub async fn push(
    State(host): State<Host>,
    Segments((name, version)): Segments<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<ModuleView>), HttpProblem> {
    let max = host.manager.module_bytes_max();
    if content_length(request.headers()).is_some_and(|bytes| bytes > max as u64) {
        return Err(too_large(max).remedy("the limit is module_bytes_max"));
    }
    let Ok(_turn) = host.upload_queue.try_acquire() else {
        let detail = format!("{UPLOADS_WAITING_MAX} uploads wait for the compiler already (uploads_waiting_max)");
        let problem = HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many uploads at once", detail);
        return Err(problem.remedy("try again in a while"));
    };
    let _place = host.uploads.acquire().await.expect("BUG: nobody closes this semaphore");
    let body = Body::within(request, host.limits.upload_timeout_ms, "upload_timeout_ms").await;
    let Body(bytes) = body.map_err(|problem| if problem.0.status == 413 { too_large(max) } else { problem })?;
    let (view, created) = host.manager.push_module(&name, &version, bytes).await?;
    Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, Json(view)))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub async fn list(State(host): State<Host>) -> Result<Json<ModuleList>, HttpProblem> {
    Ok(Json(ModuleList { modules: host.manager.modules().await? }))
}

pub async fn show(
    State(host): State<Host>,
    Segments((name, version)): Segments<(String, String)>,
) -> Result<Json<ModuleView>, HttpProblem> {
    Ok(Json(host.manager.module(&name, &version).await?))
}

pub async fn delete(
    State(host): State<Host>,
    Segments((name, version)): Segments<(String, String)>,
) -> Result<StatusCode, HttpProblem> {
    host.manager.delete_module(&name, &version).await?;
    Ok(StatusCode::NO_CONTENT)
}
