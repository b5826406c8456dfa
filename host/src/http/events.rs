//! `/v1/jobs/{name}/events` and `/v1/jobs/{name}/logs`: the journal, as a stream of server-sent events and in pages.
//!
//! Invariants:
//! * a stream holds a position in the journal and at most [`CHUNK`] events: a reader that is slow is told `lagged` and goes on;
//! * streams are bounded in number, and end with the job, with the host, and with the connection.

use super::Host;
use super::problem::HttpProblem;
use super::request::{Parameters, Segments};
use crate::api::{EventBody, EventView, LOG_PAGE_DEFAULT, LOG_PAGE_MAX, LogLevel, LogPage, now_ms};
use crate::journal::{Journal, News, Selection};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Events taken from the journal at a time.
const CHUNK: usize = 64;
/// Comments that keep proxies from closing a stream where nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventParameters {
    /// Go on after the event with this id (the header `Last-Event-ID` says the same and counts more); `0`: with all that is kept.
    /// Without either the stream begins with the state of the moment.
    after: Option<String>,
    /// Types of events, with commas between them. Without it: all of them.
    types: Option<String>,
    /// Of `log` events: this level and those above it.
    level: Option<LogLevel>,
    /// Of `log` events: those of this operator.
    operator: Option<String>,
}

pub async fn events(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<EventParameters>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let journal = host.manager.journal(&name)?;
    let types = parameters.types.as_deref().map(types).transpose()?;
    let selection = Selection { types, level: parameters.level, operator: parameters.operator };
    let last = match headers.get("last-event-id") {
        Some(id) => Some(("last-event-id", id.to_str().unwrap_or_default())),
        None => parameters.after.as_deref().map(|id| ("after", id)),
    };
    let Ok(place) = host.subscribers.clone().try_acquire_owned() else {
        let detail = format!("the limit is {} (event_subscribers_max)", host.limits.event_subscribers_max);
        let problem =
            HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-subscribers", "Too many streams of events", detail);
        return Err(problem.remedy("close one, or ask for /logs and the job's state from time to time"));
    };
    let mut ready = VecDeque::new();
    let position = match last {
        Some((key, id)) => {
            if journal.is_foreign(id) && position(&journal, key, id)? == 0 {
                ready.push_back(event(&lagged(&journal, 0)));
            }
            position(&journal, key, id)?
        }
        None => {
            let end = journal.end();
            let body = EventBody::State { from: None, to: host.manager.state(&name)?, error: None };
            ready.push_back(event(&EventView { id: journal.id(end), at_ms: now_ms(), event: body }));
            end
        }
    };
    let stream =
        Subscriber { news: journal.watch(), journal, selection, position, ready, host_ends: host.ends.clone(), _place: place };
    let stream = futures::stream::unfold(stream, |mut subscriber| async {
        let event = subscriber.next().await?;
        Some((Ok::<_, Infallible>(event), subscriber))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat")).into_response())
}

struct Subscriber {
    journal: Arc<Journal>,
    news: watch::Receiver<News>,
    selection: Selection,
    position: u64,
    ready: VecDeque<Event>,
    host_ends: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Subscriber {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // Before the journal is read: what comes after that is news again.
            let closed = self.news.borrow_and_update().closed;
            let chunk = self.journal.read(self.position, &self.selection, CHUNK);
            if chunk.lagged {
                self.ready.push_back(event(&lagged(&self.journal, self.position)));
            }
            self.ready.extend(chunk.entries.iter().map(|entry| event(&self.journal.view(entry))));
            self.position = chunk.position;
            if !self.ready.is_empty() {
                continue;
            }
            if closed {
                return None;
            }
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                _ = self.host_ends.wait_for(|ends| *ends) => return None,
            }
        }
    }
}

fn lagged(journal: &Journal, position: u64) -> EventView {
    EventView { id: journal.id(position), at_ms: now_ms(), event: EventBody::Lagged }
}

fn event(view: &EventView) -> Event {
    let data = serde_json::to_string(view).expect("BUG: an event is not JSON");
    Event::default().id(&view.id).event(view.event.name()).data(data)
}

fn position(journal: &Journal, key: &str, id: &str) -> Result<u64, HttpProblem> {
    let refuse = || HttpProblem::parameter(key, Some(id.chars().take(80).collect()), "must be the id of an event, or 0");
    journal.position(id).ok_or_else(refuse)
}

fn types(list: &str) -> Result<Vec<&'static str>, HttpProblem> {
    let known = |name: &str| EventBody::TYPES.into_iter().find(|known| *known == name);
    list.split(',')
        .map(|name| {
            known(name).ok_or_else(|| {
                let message = format!("one or more of {}", EventBody::TYPES.join(","));
                HttpProblem::parameter("types", Some(name.chars().take(80).collect()), message)
            })
        })
        .collect()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogParameters {
    /// Lines after the one with this id, oldest first (`0`: from the first one that is kept). Without it: the last ones.
    after: Option<String>,
    /// This level and those above it.
    level: Option<LogLevel>,
    operator: Option<String>,
    /// At most so many lines.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

pub async fn logs(
    State(host): State<Host>,
    Segments(name): Segments<String>,
    Parameters(parameters): Parameters<LogParameters>,
) -> Result<Json<LogPage>, HttpProblem> {
    let limit = parameters.limit.unwrap_or(LOG_PAGE_DEFAULT);
    if !(1..=LOG_PAGE_MAX).contains(&limit) {
        let message = format!("1 to {LOG_PAGE_MAX} (log_page_max)");
        return Err(HttpProblem::parameter("limit", Some(limit.to_string()), message));
    }
    let journal = host.manager.journal(&name)?;
    let after = parameters.after.as_deref().map(|id| position(&journal, "after", id)).transpose()?;
    let foreign = parameters.after.as_deref().is_some_and(|id| journal.is_foreign(id));
    let selection = Selection { types: None, level: parameters.level, operator: parameters.operator };
    let mut page = journal.lines(after, &selection, limit);
    page.lagged |= foreign;
    Ok(Json(page))
}
