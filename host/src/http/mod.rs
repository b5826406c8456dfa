//! The HTTP API of part `/v1`: routes, and nothing that decides. Handlers turn a request into one call of the job manager and its
//! answer into a document.
//!
//! Invariants:
//! * every answer that is not a success is `application/problem+json`, whoever says no: route, method, body, query or manager;
//! * a body, a query and a wait are bounded before they are read;
//! * a panic in a handler is one 500, not the end of the server.
//!
//! `axum` is named in this folder only.

mod guard;
mod host;
mod jobs;
mod modules;
mod operations;
mod problem;
mod request;
#[cfg(test)]
pub(crate) mod tests;

use crate::job_manager::JobManager;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use std::future::Future;
use std::sync::Arc;
use tidegate_core::limits::{REQUEST_BODY_BYTES_MAX, UPLOADS_WAITING_MAX};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Modules in memory at once while they come in: each may have `MODULE_BYTES_MAX`.
const UPLOADS_MAX: usize = 2;

#[derive(Clone)]
struct Host {
    manager: JobManager,
    uploads: Arc<Semaphore>,
    /// Uploads that wait for one of these places, or have one.
    upload_queue: Arc<Semaphore>,
}

/// The whole API.
pub fn router(manager: JobManager) -> Router {
    let module_bytes_max = manager.module_bytes_max();
    let upload_queue = Arc::new(Semaphore::new(UPLOADS_MAX + UPLOADS_WAITING_MAX));
    let host = Host { manager, uploads: Arc::new(Semaphore::new(UPLOADS_MAX)), upload_queue };
    Router::new()
        .route(
            "/v1/modules/{name}/{version}",
            get(modules::show).put(modules::push).delete(modules::delete).layer(DefaultBodyLimit::max(module_bytes_max)),
        )
        .route("/v1/modules", get(modules::list))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{name}", get(jobs::show).put(jobs::put).delete(jobs::delete))
        .route("/v1/jobs/{name}/start", post(jobs::start))
        .route("/v1/jobs/{name}/stop", post(jobs::stop))
        .route("/v1/jobs/{name}/graph", get(jobs::graph))
        .route("/v1/jobs/{name}/checkpoints", get(jobs::checkpoints))
        .route("/v1/jobs/{name}/dead-letters", get(jobs::dead_letters))
        .route("/v1/jobs/{name}/savepoints", get(operations::savepoints).post(operations::trigger_savepoint))
        .route("/v1/jobs/{name}/savepoints/{id}", delete(operations::delete_savepoint))
        .route("/v1/jobs/{name}/operations", get(operations::list))
        .route("/v1/jobs/{name}/operations/{id}", get(operations::show))
        .route("/v1/version", get(host::version))
        .route("/healthz", get(host::healthz))
        .route("/readyz", get(host::readyz))
        .route("/metrics", get(host::metrics))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(REQUEST_BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(host.clone(), guard::guard))
        .with_state(host)
}

/// Serves until `end` resolves; requests that are under way are answered first.
pub async fn serve(
    listener: TcpListener,
    manager: JobManager,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(manager)).with_graceful_shutdown(end).await
}
