//! Events and logs, as clients read them.

use super::*;
use crate::api::{EventBody, EventView, LogLevel, LogPage, LogRecord};
use std::io::{BufRead, BufReader};
use tidegate_core::limits::JOURNAL_EVENTS_MAX;

/// A stream of events, read one at a time.
struct Events(BufReader<ureq::BodyReader<'static>>);

impl Events {
    fn open(host: &TestHost, path: &str, last: Option<&str>) -> Self {
        let mut request = ureq::get(format!("{}{path}", host.url));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.call().unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(BufReader::new(response.into_body().into_reader()))
    }

    /// `None`: the stream has ended.
    fn next(&mut self) -> Option<EventView> {
        let (mut id, mut kind) = (String::new(), String::new());
        for line in self.0.by_ref().lines() {
            let line = line.ok()?;
            if let Some(value) = line.strip_prefix("id: ") {
                id = value.to_owned();
            } else if let Some(value) = line.strip_prefix("event: ") {
                kind = value.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let event: EventView = serde_json::from_str(data).unwrap();
                assert_eq!((&event.id, event.event.name()), (&id, kind.as_str()));
                return Some(event);
            }
        }
        None
    }

    fn names(&mut self, n: usize) -> Vec<&'static str> {
        (0..n).map(|_| self.next().expect("the stream goes on").event.name()).collect()
    }
}

use std::io::Read;

fn said(message: &str, level: LogLevel) -> LogRecord {
    LogRecord { level, operator: "op".into(), module: "op@1.0.0".into(), task: 1, message: message.into() }
}

#[test]
fn a_stream_begins_with_the_state_and_tells_what_follows() {
    let host = TestHost::open();
    host.create("a");
    let mut events = Events::open(&host, "/v1/jobs/a/events", None);
    let first = events.next().unwrap().event;
    assert!(matches!(first, EventBody::State { from: None, to: JobState::Running, .. }), "{first:?}");
    host.manager.journal("a").unwrap().log(said("hello", LogLevel::Info));
    assert_eq!(events.next().unwrap().event, EventBody::Log(said("hello", LogLevel::Info)));
    let done: OperationView = host.call("POST", "/v1/jobs/a/savepoints?wait=10s", &[], b"").expect(200);
    let told = [events.next().unwrap().event, events.next().unwrap().event];
    let states = told.map(|event| match event {
        EventBody::Operation { operation } => {
            assert_eq!(operation.id, done.id);
            operation.state
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(states, [OperationState::Running, OperationState::Completed]);
    host.fake.last_run("a").enter(JobState::Failed, Some("the guest trapped"));
    let end = events.next().unwrap().event;
    let EventBody::State { from: Some(JobState::Running), to: JobState::Failed, error: Some(error) } = end else {
        panic!("{end:?}")
    };
    assert!(error.contains("trapped"));
    assert_eq!(host.call("DELETE", "/v1/jobs/a", &[], b"").status, 204);
    assert_eq!(events.next(), None, "with the job the stream ends");
}

#[test]
fn a_client_that_comes_back_goes_on_where_it_was() {
    let host = TestHost::open();
    host.create("a");
    let journal = host.manager.journal("a").unwrap();
    for n in 1..=3 {
        journal.dead_letters("op", n);
    }
    let all: Vec<_> = {
        let mut events = Events::open(&host, "/v1/jobs/a/events?after=0", None);
        (0..3).map(|_| events.next().unwrap()).collect()
    };
    let mut again = Events::open(&host, "/v1/jobs/a/events", Some(&all[0].id));
    assert_eq!(again.next().as_ref(), Some(&all[1]));
    assert_eq!(again.next().as_ref(), Some(&all[2]));
    let mut by_query = Events::open(&host, &format!("/v1/jobs/a/events?after={}", all[1].id), None);
    assert_eq!(by_query.next().as_ref(), Some(&all[2]));
    let mut of_another_host = Events::open(&host, "/v1/jobs/a/events", Some("1f-77"));
    assert_eq!(of_another_host.names(2), ["lagged", "dead-letters"]);
    host.call("GET", "/v1/jobs/a/events", &[("last-event-id", "nonsense")], b"").problem(400);
    host.get("/v1/jobs/a/events?after=nonsense").problem(400);
    host.get("/v1/jobs/a/events?types=state,nonsense").problem(400);
    host.get("/v1/jobs/none/events").problem(404);
}

#[test]
fn a_slow_reader_is_told_that_it_lagged_and_goes_on() {
    let host = TestHost::open();
    host.create("a");
    let journal = host.manager.journal("a").unwrap();
    let mut events = Events::open(&host, "/v1/jobs/a/events?types=dead-letters,lagged&after=0", None);
    journal.dead_letters("op", 1);
    assert_eq!(events.names(1), ["dead-letters"]);
    // More than the ring, the connection's buffers and the socket hold; nobody reads meanwhile, and nothing here waits for that.
    let node = "n".repeat(10_000);
    let last = 3 * JOURNAL_EVENTS_MAX as u64;
    for total in 1..=last {
        journal.dead_letters(&node, total);
    }
    let mut lagged = false;
    loop {
        match events.next().expect("the stream goes on").event {
            EventBody::Lagged => lagged = true,
            EventBody::DeadLetters { total, .. } if total == last => break,
            EventBody::DeadLetters { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(lagged);
}

#[test]
fn a_host_that_goes_down_ends_its_streams() {
    let mut host = TestHost::open();
    host.create("a");
    let mut events = Events::open(&host, "/v1/jobs/a/events", None);
    assert_eq!(events.names(1), ["state"]);
    host.end.take();
    assert_eq!(events.next(), None);
}

#[test]
fn log_lines_are_read_by_level_operator_and_page() {
    let host = TestHost::open();
    host.create("a");
    let journal = host.manager.journal("a").unwrap();
    for n in 0..5 {
        journal.log(said(&format!("info {n}"), LogLevel::Info));
        journal.log(said(&format!("error {n}"), LogLevel::Error));
    }
    let page: LogPage = host.get("/v1/jobs/a/logs?level=warn&limit=2").expect(200);
    assert_eq!(page.lines.iter().map(|line| line.record.message.as_str()).collect::<Vec<_>>(), ["error 3", "error 4"]);
    let first: LogPage = host.get("/v1/jobs/a/logs?after=0&limit=4").expect(200);
    let second: LogPage = host.get(&format!("/v1/jobs/a/logs?after={}", first.next)).expect(200);
    assert_eq!((first.lines.len(), second.lines.len()), (4, 6));
    assert!(host.get("/v1/jobs/a/logs?operator=other").expect::<LogPage>(200).lines.is_empty());
    let mut lines = Events::open(&host, "/v1/jobs/a/events?types=log&level=error&after=0", None);
    assert_eq!(lines.next().unwrap().event, EventBody::Log(said("error 0", LogLevel::Error)));
    for wrong in ["limit=0", "limit=1001", "level=loud", "after=x", "lines=1"] {
        host.get(&format!("/v1/jobs/a/logs?{wrong}")).problem(400);
    }
    host.get("/v1/jobs/none/logs").problem(404);
}
