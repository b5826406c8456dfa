//! Clients that are slow, many, or hungry: each meets a limit with a name, and the others are served meanwhile.

use super::*;
use crate::http::HttpConfig;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tidegate_core::limits::HttpLimits;

fn limited(change: impl FnOnce(&mut HttpLimits)) -> TestHost {
    let mut config = HttpConfig::default();
    change(&mut config.limits);
    TestHost::serving(config)
}

fn connect(host: &TestHost) -> TcpStream {
    let stream = TcpStream::connect(host.url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// All that comes until the server closes.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_head_that_trickles_in_ends_the_connection() {
    let host = limited(|limits| limits.header_read_timeout_ms = 200);
    let mut half = connect(&host);
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-more: ").unwrap();
    let silent = connect(&host);
    assert!(!rest(half).contains("200 OK"));
    assert_eq!(rest(silent), "");
    let mut idle = connect(&host);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(rest(idle).starts_with("HTTP/1.1 200 OK"), "answered, and closed when nothing followed");
}

#[test]
fn a_body_that_trickles_in_is_given_up_with_its_limit() {
    let host = limited(|limits| {
        limits.body_timeout_ms = 200;
        limits.upload_timeout_ms = 300;
    });
    for (path, name) in [("/v1/jobs/a", "body_timeout_ms"), ("/v1/modules/a/1", "upload_timeout_ms")] {
        let mut slow = connect(&host);
        let head = format!("PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{");
        slow.write_all(head.as_bytes()).unwrap();
        let answer = rest(slow);
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains(name) && answer.contains(PROBLEM_JSON), "{answer}");
    }
    host.create("a");
}

#[test]
fn headers_are_bounded_with_an_explanation_and_without_one() {
    let host = TestHost::open();
    let max = HttpLimits::default().header_bytes_max;
    let problem = host.call("GET", "/healthz", &[("x-large", &"x".repeat(max))], b"").problem(431);
    assert!(problem.detail.contains("header_bytes_max"), "{problem:?}");
    assert_eq!(host.call("GET", "/healthz", &[("x-large", &"x".repeat(max / 2))], b"").status, 200);
    let mut huge = connect(&host);
    // The server may close before it has read all of it.
    let _ = huge.write_all(format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-huge: {}", "x".repeat(1 << 20)).as_bytes());
    assert!(!rest(huge).contains("200 OK"));
    assert_eq!(host.get("/healthz").status, 200);
}

#[test]
fn connections_are_bounded_and_those_beyond_are_told_so() {
    for (all, per_client, name) in [(3, 100, "connections_max"), (100, 3, "connections_per_client_max")] {
        let host = limited(|limits| {
            limits.connections_max = all;
            limits.connections_per_client_max = per_client;
        });
        let mut held: Vec<_> = (0..3)
            .map(|_| {
                let mut stream = connect(&host);
                stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
                stream.read_exact(&mut [0; 15]).unwrap();
                stream
            })
            .collect();
        let mut refused = connect(&host);
        refused.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let answer = rest(refused);
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(name) && answer.contains(PROBLEM_JSON), "{answer}");
        held.clear();
        // The server notices that they are gone when it gets to it.
        let served = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            host.get("/healthz").status == 200
        });
        assert!(served, "places come back");
    }
}

#[test]
fn a_client_that_asks_too_often_waits_as_long_as_it_is_told() {
    let host = limited(|limits| limits.requests_per_second_max = 1);
    assert_eq!(host.get("/healthz").status, 200);
    let refused = (0..1000).map(|_| host.get("/v1/jobs")).find(|answer| answer.status == 429);
    let refused = refused.expect("a thousand at once pass no limit of one a second");
    assert!(refused.problem(429).detail.contains("requests_per_second_max"));
    assert_eq!(refused.retry_after.as_deref(), Some("1"));
    let served = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        host.get("/v1/jobs").status == 200
    });
    assert!(served, "tokens come back");
}

#[test]
fn no_limit_is_no_limit() {
    let host = limited(|limits| limits.requests_per_second_max = 0);
    assert!((0..200).all(|_| host.get("/healthz").status == 200));
}

#[test]
fn streams_of_events_are_bounded_and_a_closed_one_makes_room() {
    let host = limited(|limits| limits.event_subscribers_max = 1);
    host.create("a");
    let mut first = connect(&host);
    first.write_all(b"GET /v1/jobs/a/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    first.read_exact(&mut [0; 15]).unwrap();
    let problem = host.get("/v1/jobs/a/events").problem(503);
    assert!(problem.detail.contains("event_subscribers_max"), "{problem:?}");
    drop(first);
    // That the reader is gone shows when the next event is sent.
    let served = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        host.manager.journal("a").unwrap().dead_letters("op", crate::api::now_ms());
        let mut next = connect(&host);
        next.write_all(b"GET /v1/jobs/a/events HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut status = [0; 12];
        next.read_exact(&mut status).unwrap();
        status == *b"HTTP/1.1 200"
    });
    assert!(served, "places come back");
}
