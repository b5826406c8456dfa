//! Savepoints, and the resources that stand for what takes its time.

use super::Host;
use super::problem::HttpProblem;
use super::request::{self, Body, Parameters, Segments};
use crate::api::{OperationList, OperationState, OperationView, SavepointList, SavepointRequest};
use crate::job_manager::Waiter;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitParameter {
    /// How long the answer may wait for the outcome, at most `10m`. Without it the answer comes at once.
    #[schemars(regex(pattern = r"^([0-9]{1,5}ms|[0-5]?[0-9]{1,2}s|[0-9]m|10m)$"))]
    wait: Option<String>,
}

impl WaitParameter {
    pub fn duration(&self) -> Result<Option<Duration>, HttpProblem> {
        request::wait(self.wait.as_deref())
    }
}

/// 202 with a place to ask again. Whoever waits is told the outcome: 200, or the problem.
pub async fn answer(waiter: Waiter, wait: Option<Duration>) -> Result<Response, HttpProblem> {
    let view = match wait {
        Some(wait) => waiter.wait(wait).await,
        None => waiter.view(),
    };
    let status = match view.state {
        OperationState::Running => StatusCode::ACCEPTED,
        OperationState::Completed => StatusCode::OK,
        OperationState::Failed => match view.problem {
            Some(problem) => return Err(HttpProblem(Box::new(problem))),
            None => StatusCode::OK,
        },
    };
    let path = view.path();
    Ok((status, [(header::LOCATION, path)], Json(view)).into_response())
}

pub async fn savepoints(State(host): State<Host>, Segments(name): Segments<String>) -> Result<Json<SavepointList>, HttpProblem> {
    Ok(Json(SavepointList { savepoints: host.manager.savepoints(&name).await? }))
}

pub async fn trigger_savepoint(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<WaitParameter>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, HttpProblem> {
    let wait = parameters.duration()?;
    let request: SavepointRequest = request::json_or_default(&headers, &body)?;
    answer(host.manager.trigger_savepoint(&name, request.operation).await?, wait).await
}

pub async fn delete_savepoint(
    State(host): State<Host>,
    Segments((name, id)): Segments<(String, String)>,
) -> Result<StatusCode, HttpProblem> {
    host.manager.delete_savepoint(&name, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn list(State(host): State<Host>, Segments(name): Segments<String>) -> Result<Json<OperationList>, HttpProblem> {
    Ok(Json(OperationList { operations: host.manager.operations(&name)? }))
}

/// 200 whatever became of it: the answer is about the operation, and it was found.
pub async fn show(
    State(host): State<Host>,
    Segments((name, id)): Segments<(String, String)>,
    Parameters(parameters): Parameters<WaitParameter>,
) -> Result<Json<OperationView>, HttpProblem> {
    let waiter = host.manager.operation(&name, &id)?;
    Ok(Json(match parameters.duration()? {
        Some(wait) => waiter.wait(wait).await,
        None => waiter.view(),
    }))
}
