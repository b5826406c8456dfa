//! The HTTP API of part `/v1`: routes, and nothing that decides. Handlers turn a request into one call of the job manager and its
//! answer into a document.
//!
//! Invariants:
//! * every answer that is not a success is `application/problem+json`, whoever says no: route, method, body, query or manager;
//! * a body, a query and a wait are bounded before they are read;
//! * a panic in a handler is one 500, not the end of the server;
//! * no client can hold more of the host than [`HttpLimits`] say, however slow it is or how often it comes.
//!
//! `axum`, `hyper` and `rustls` are named in this folder only (and by the CLI's client what it needs of TLS).

mod access;
mod connections;
mod dead_letters;
mod events;
mod guard;
mod host;
mod jobs;
mod modules;
mod openapi;
mod operations;
mod problem;
mod request;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

use crate::job_manager::JobManager;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, delete, get, post};
use connections::Client;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tidegate_core::limits::{HttpLimits, RATE_LIMIT_CLIENTS_MAX, REQUEST_BODY_BYTES_MAX, UPLOADS_WAITING_MAX};
use tidegate_core::rate_limit::RateLimiter;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::rustls::ServerConfig;

pub use access::{Access, AccessError, is_token};
pub use tls::{TlsError, config as tls};

/// Modules in memory at once while they come in: each may have `MODULE_BYTES_MAX`.
const UPLOADS_MAX: usize = 2;

/// How the API is served. The default: to everyone who reaches it, in plain text.
#[derive(Default)]
pub struct HttpConfig {
    pub access: Access,
    /// `/metrics` needs no token.
    pub metrics_open: bool,
    /// Made by [`tls`].
    pub tls: Option<Arc<ServerConfig>>,
    pub limits: HttpLimits,
}

#[derive(Clone)]
struct Host {
    manager: JobManager,
    access: Arc<Access>,
    metrics_open: bool,
    limits: HttpLimits,
    uploads: Arc<Semaphore>,
    /// Uploads that wait for one of these places, or have one.
    upload_queue: Arc<Semaphore>,
    subscribers: Arc<Semaphore>,
    rates: Arc<Mutex<RateLimiter<Client>>>,
    /// What the rates' clock counts from.
    started: Instant,
    /// True: streams that would never end by themselves do now.
    ends: watch::Receiver<bool>,
}

/// The router, and the paths that it knows: the description of the API is compared with them.
struct Routes {
    router: Router<Host>,
    paths: Vec<&'static str>,
}

impl Routes {
    fn new() -> Self {
        Self { router: Router::new(), paths: Vec::new() }
    }

    fn route(mut self, path: &'static str, methods: MethodRouter<Host>) -> Self {
        self.paths.push(path);
        Self { router: self.router.route(path, methods), paths: self.paths }
    }
}

/// The whole API. Each route is described in [`openapi`].
fn routes(module_bytes_max: usize) -> Routes {
    Routes::new()
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
        .route("/v1/jobs/{name}/why", get(jobs::why))
        .route("/v1/jobs/{name}/checkpoints", get(jobs::checkpoints))
        .route("/v1/jobs/{name}/dead-letters", get(jobs::dead_letters))
        .route("/v1/jobs/{name}/dead-letters/replay", post(dead_letters::replay))
        .route("/v1/jobs/{name}/dead-letters/discard", post(dead_letters::discard))
        .route("/v1/jobs/{name}/dead-letters/{id}", get(dead_letters::show))
        .route("/v1/jobs/{name}/dead-letters/{id}/value", get(dead_letters::value))
        .route("/v1/jobs/{name}/events", get(events::events))
        .route("/v1/jobs/{name}/logs", get(events::logs))
        .route("/v1/jobs/{name}/savepoints", get(operations::savepoints).post(operations::trigger_savepoint))
        .route("/v1/jobs/{name}/savepoints/{id}", delete(operations::delete_savepoint))
        .route("/v1/jobs/{name}/operations", get(operations::list))
        .route("/v1/jobs/{name}/operations/{id}", get(operations::show))
        .route("/v1/version", get(host::version))
        .route("/v1/openapi.json", get(openapi::openapi))
        .route("/healthz", get(host::healthz))
        .route("/readyz", get(host::readyz))
        .route("/metrics", get(host::metrics))
}

fn router(host: Host) -> Router {
    routes(host.manager.module_bytes_max())
        .router
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
    config: HttpConfig,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let HttpConfig { access, metrics_open, tls, limits } = config;
    let (ending, ends) = watch::channel(false);
    let host = Host {
        manager,
        access: Arc::new(access),
        metrics_open,
        limits,
        uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
        upload_queue: Arc::new(Semaphore::new(UPLOADS_MAX + UPLOADS_WAITING_MAX)),
        subscribers: Arc::new(Semaphore::new(limits.event_subscribers_max)),
        rates: Arc::new(Mutex::new(RateLimiter::new(limits.requests_per_second_max, RATE_LIMIT_CLIENTS_MAX))),
        started: Instant::now(),
        ends,
    };
    let end = async move {
        end.await;
        ending.send_replace(true);
    };
    connections::serve(listener, router(host), tls, limits, end).await
}
