//! What guests log, caught on the thread of the call.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Once;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Debug, Clone, Default)]
pub struct Line {
    pub level: String,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

thread_local! {
    static CAUGHT: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
}

/// Lines that guests log while `act` runs.
pub fn logged(act: impl FnOnce()) -> Vec<Line> {
    install();
    CAUGHT.set(Some(Vec::new()));
    act();
    CAUGHT.take().unwrap_or_default()
}

/// One subscriber for the process, there before any guest can log: a line of code that logs for the first time while subscribers come
/// and go on other threads may be taken for one that nobody listens to, for good.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(GuestLines).expect("no other subscriber"));
}

struct GuestLines;

impl Subscriber for GuestLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tidegate::guest"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { level: event.metadata().level().to_string(), ..Line::default() };
        event.record(&mut line);
        CAUGHT.with_borrow_mut(|caught| caught.iter_mut().for_each(|lines| lines.push(line.clone())));
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
