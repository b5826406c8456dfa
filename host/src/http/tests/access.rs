//! Tokens, roles and TLS, from outside.

use super::*;
use crate::http::{Access, HttpConfig};
use std::sync::Arc;

const READER: &str = "reader-0123456789";
const WRITER: &str = "writer-0123456789";

fn guarded() -> HttpConfig {
    HttpConfig { access: Access::parse(&format!("read:{READER},write:{WRITER}")).unwrap(), ..Default::default() }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn without_a_token_nothing_is_told_but_health() {
    let host = TestHost::serving(guarded());
    for path in ["/v1/jobs", "/v1/jobs/a", "/v1/openapi.json", "/metrics", "/nothing", "/v1/jobs/a/events"] {
        let answer = host.get(path);
        answer.problem(401);
        assert_eq!(answer.challenge.as_deref(), Some(r#"Bearer realm="tidegate""#), "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(host.get(path).status, 200);
    }
    host.json("PUT", "/v1/jobs/a", &json!({})).problem(401);
    assert!(host.manager.jobs().is_empty());
}

#[test]
fn a_reader_reads_and_a_writer_does_everything() {
    let host = TestHost::serving(guarded());
    let call = |token: &str, method: &str, path: &str| {
        let authorization = bearer(token);
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        host.call(method, path, &headers, if method == "PUT" { b"{}" } else { b"" })
    };
    let refused = call(READER, "PUT", "/v1/jobs/a");
    assert!(refused.problem(403).detail.contains("role `read`"));
    assert!(refused.challenge.unwrap().contains("insufficient_scope"));
    assert_eq!(call(WRITER, "PUT", "/v1/jobs/a").status, 201);
    for path in ["/v1/jobs/a", "/metrics", "/v1/openapi.json"] {
        assert_eq!(call(READER, "GET", path).status, 200, "{path}");
        assert_eq!(call(WRITER, "GET", path).status, 200, "{path}");
    }
    for (method, path) in [("DELETE", "/v1/jobs/a"), ("POST", "/v1/jobs/a/stop"), ("POST", "/v1/jobs/a/savepoints")] {
        call(READER, method, path).problem(403);
    }
    assert_eq!(host.manager.show("a").unwrap().status.state, JobState::Running);
    assert_eq!(call(WRITER, "DELETE", "/v1/jobs/a?force=true").status, 204);
}

#[test]
fn what_only_looks_like_a_token_is_none() {
    let host = TestHost::serving(guarded());
    for authorization in [
        bearer("writer-012345678"),
        bearer("other-9876543210"),
        bearer(""),
        WRITER.to_owned(),
        format!("Basic {WRITER}"),
        format!("Bearer{WRITER}"),
        format!("Bearer {WRITER},{WRITER}"),
    ] {
        let answer = host.call("GET", "/v1/jobs", &[("authorization", &authorization)], b"");
        answer.problem(401);
        assert!(!answer.text.contains(WRITER), "a token is not echoed");
    }
    let twice = [("authorization", bearer(WRITER)), ("authorization", bearer(READER))];
    let twice: Vec<_> = twice.iter().map(|(name, value)| (*name, value.as_str())).collect();
    host.call("GET", "/v1/jobs", &twice, b"").problem(401);
    assert_eq!(host.call("GET", "/v1/jobs", &[("authorization", &format!("bearer {READER}"))], b"").status, 200);
}

#[test]
fn metrics_can_be_opened() {
    let host = TestHost::serving(HttpConfig { metrics_open: true, ..guarded() });
    assert_eq!(host.get("/metrics").status, 200);
    host.get("/v1/jobs").problem(401);
}

#[test]
fn with_a_certificate_the_api_is_https_and_nothing_else() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = crate::http::tls(chain.as_bytes(), key.as_bytes()).unwrap();
    let host = TestHost::serving(HttpConfig { tls: Some(tls), ..Default::default() });
    let agent = |roots| -> ureq::Agent {
        let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
        ureq::Agent::config_builder().http_status_as_error(false).tls_config(tls).build().into()
    };
    let trusted = ureq::tls::Certificate::from_pem(chain.as_bytes()).unwrap();
    let trusting = agent(ureq::tls::RootCerts::Specific(Arc::new(vec![trusted])));
    assert_eq!(host.call_with(&trusting, "GET", "/healthz", &[], b"").status, 200);
    host.call_with(&trusting, "GET", "/v1/jobs/none", &[], b"").problem(404);
    let strict = agent(ureq::tls::RootCerts::WebPki);
    assert!(strict.get(format!("{}/healthz", host.url)).call().is_err(), "a certificate that nobody vouches for");
    let plain = host.url.replace("https", "http");
    assert!(ureq::get(format!("{plain}/healthz")).call().is_err(), "plain text is not served");
    assert_eq!(host.call_with(&trusting, "GET", "/healthz", &[], b"").status, 200, "and all of that hurt nobody");
}
