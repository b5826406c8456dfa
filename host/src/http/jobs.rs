//! `/v1/jobs`

use super::Host;
use super::operations::{WaitParameter, answer};
use super::problem::HttpProblem;
use super::request::{self, Body, Parameters, Segments};
use crate::api::{
    CheckpointList, DEAD_LETTERS_PAGE_DEFAULT, DEAD_LETTERS_PAGE_MAX, DeadLetterPage, DeadLetterQuery, JobGraph, JobList,
    JobView, JobWhy, StartRequest, StopRequest,
};
use crate::job_manager::Put;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;

pub async fn list(State(host): State<Host>) -> Json<JobList> {
    Json(JobList { jobs: host.manager.jobs() })
}

pub async fn show(State(host): State<Host>, Segments(name): Segments<String>) -> Result<Json<JobView>, HttpProblem> {
    Ok(Json(host.manager.show(&name)?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutParameters {
    /// A new job starts unless this is `false`; one that is replaced stays stopped unless this is `true`.
    start: Option<bool>,
}

/// 201 for a new job, 200 for one that is replaced or as it was.
pub async fn put(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<PutParameters>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(StatusCode, Json<JobView>), HttpProblem> {
    let source = request::job(&headers, &body)?;
    let (view, put) = host.manager.put_job(&name, source, parameters.start).await?;
    let status = match put {
        Put::Created => StatusCode::CREATED,
        Put::Replaced | Put::Unchanged => StatusCode::OK,
    };
    Ok((status, Json(view)))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteParameters {
    /// Stop the job first if it is running.
    #[serde(default)]
    force: bool,
    /// Its savepoints go too.
    #[serde(default)]
    savepoints: bool,
}

pub async fn delete(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<DeleteParameters>,
) -> Result<StatusCode, HttpProblem> {
    host.manager.delete_job(&name, parameters.force, parameters.savepoints).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn start(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<JobView>, HttpProblem> {
    let request: StartRequest = request::json_or_default(&headers, &body)?;
    Ok(Json(host.manager.start_as(&name, request).await?))
}

pub async fn stop(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<WaitParameter>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, HttpProblem> {
    let wait = parameters.duration()?;
    let request: StopRequest = request::json_or_default(&headers, &body)?;
    answer(host.manager.stop(&name, request).await?, wait).await
}

pub async fn graph(State(host): State<Host>, Segments(name): Segments<String>) -> Result<Json<JobGraph>, HttpProblem> {
    Ok(Json(host.manager.graph(&name)?))
}

pub async fn why(State(host): State<Host>, Segments(name): Segments<String>) -> Result<Json<JobWhy>, HttpProblem> {
    Ok(Json(host.manager.why(&name).await?))
}

pub async fn checkpoints(
    State(host): State<Host>,
    Segments(name): Segments<String>,
) -> Result<Json<CheckpointList>, HttpProblem> {
    Ok(Json(CheckpointList { checkpoints: host.manager.checkpoints(&name)? }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterParameters {
    /// At most so many.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
    /// `next` of the page before.
    before: Option<String>,
    /// Only those of this operator or source.
    operator: Option<String>,
}

pub async fn dead_letters(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<DeadLetterParameters>,
) -> Result<Json<DeadLetterPage>, HttpProblem> {
    let limit = parameters.limit.unwrap_or(DEAD_LETTERS_PAGE_DEFAULT);
    if !(1..=DEAD_LETTERS_PAGE_MAX).contains(&limit) {
        let message = format!("1 to {DEAD_LETTERS_PAGE_MAX} (dead_letters_page_max)");
        return Err(HttpProblem::parameter("limit", Some(limit.to_string()), message));
    }
    let query = DeadLetterQuery { limit, before: parameters.before, operator: parameters.operator };
    Ok(Json(host.manager.dead_letters(&name, query).await?))
}
