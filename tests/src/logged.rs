//! What guests log, caught on the thread of the call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Debug, Clone, Default)]
pub struct Line {
    pub level: String,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

/// Lines that guests log while `act` runs.
pub fn logged(act: impl FnOnce()) -> Vec<Line> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::with_default(GuestLines(Arc::clone(&lines)), act);
    std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner))
}

struct GuestLines(Arc<Mutex<Vec<Line>>>);

impl Subscriber for GuestLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tidegate::guest"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { level: event.metadata().level().to_string(), ..Line::default() };
        event.record(&mut line);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    // Guests have no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => drop(self.fields.insert(name.to_owned(), text)),
        }
    }
}
