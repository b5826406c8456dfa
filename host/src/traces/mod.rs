//! Traces for an OpenTelemetry collector: one for each checkpoint, with its phases as children. Off unless asked for.
//!
//! ```text
//!  checkpoint 7 ├── align, sync, async      of each task
//!               ├── manifest
//!               ├── decision
//!               └── sink commit
//! ```
//!
//! * [`checkpoint`]: what a job's driver hears and orders, put together to spans;
//! * [`otlp`]: their form on the wire (OTLP as JSON over HTTP).
//!
//! Invariants:
//! * switched off, it costs a look at an empty cell for each attempt of a job;
//! * no job waits for a collector: what can't be handed over at once is dropped and counted;
//! * a collector that is not there is a line in the log once in a while, and nothing else.
//!
//! Like the log, there is one for the process.

pub mod checkpoint;
mod otlp;

use checkpoint::Trace;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Traces that wait for the collector.
const WAITING_MAX: usize = 256;
/// Traces in one request.
const AT_ONCE_MAX: usize = 64;
/// For one request: the next ones wait meanwhile.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two complaints about the collector.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

struct Exporter {
    traces: SyncSender<Trace>,
    dropped: AtomicU64,
}

/// From here on traces are sent to the collector at this URL. The first call counts.
pub fn start(endpoint: &str) -> Result<(), String> {
    let url = otlp::traces_url(endpoint)?;
    let (traces, waiting) = sync_channel(WAITING_MAX);
    let exporter = Exporter { traces, dropped: AtomicU64::new(0) };
    if EXPORTER.set(exporter).is_ok() {
        let named = std::thread::Builder::new().name("tg-traces".into());
        named.spawn(move || export(&url, &waiting)).map_err(|error| format!("start the thread that sends traces: {error}"))?;
    }
    Ok(())
}

pub fn is_on() -> bool {
    EXPORTER.get().is_some()
}

/// Hands a trace over, or drops it: it never waits.
fn send(trace: Trace) {
    if let Some(exporter) = EXPORTER.get()
        && exporter.traces.try_send(trace).is_err()
    {
        exporter.dropped.fetch_add(1, Relaxed);
    }
}

fn export(url: &str, waiting: &Receiver<Trace>) {
    let mut config = ureq::Agent::config_builder().http_status_as_error(true).timeout_global(Some(REQUEST_TIMEOUT));
    if ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().any(|here| url.starts_with(here)) {
        // A proxy in the environment is for the world outside.
        config = config.proxy(None);
    }
    let agent: ureq::Agent = config.build().into();
    let mut complained: Option<Instant> = None;
    while let Ok(first) = waiting.recv() {
        let mut traces = vec![first];
        traces.extend(waiting.try_iter().take(AT_ONCE_MAX - 1));
        let body = otlp::request(&traces).to_string();
        let sent = agent.post(url).header("content-type", "application/json").send(body);
        if let Err(error) = sent
            && complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY)
        {
            complained = Some(Instant::now());
            let dropped = EXPORTER.get().map_or(0, |exporter| exporter.dropped.load(Relaxed));
            tracing::warn!(%url, %error, dropped, "traces don't reach their collector");
        }
    }
}
