//! The API from outside, on a loopback port, with doubles of what runs jobs.

mod access;
mod events;
mod limits;
mod openapi;

use crate::api::{JobState, JobView, ModuleList, ModuleView, OperationState, OperationView, PROBLEM_JSON, ProblemDetails};
use crate::job_manager::JobManager;
use crate::job_manager::fake::{self, FakeRuntime};
use serde_json::{Value, json};
use std::sync::Arc;

/// A host that ends with its value. Tests talk to it from their own thread.
pub(crate) struct TestHost {
    pub url: String,
    /// The host goes down when this is dropped or sent.
    pub end: Option<tokio::sync::oneshot::Sender<()>>,
    pub manager: JobManager,
    pub fake: Arc<FakeRuntime>,
    _folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl TestHost {
    pub fn open() -> Self {
        Self::serving(super::HttpConfig::default())
    }

    pub fn serving(config: super::HttpConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (manager, fake) = runtime.block_on(fake::open(folder.path()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        runtime.spawn(super::serve(listener, manager.clone(), config, async {
            let _ = ended.await;
        }));
        Self { url, end: Some(end), manager, fake, _folder: folder, _runtime: runtime }
    }

    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        self.call_with(&agent, method, path, headers, body)
    }

    pub fn call_with(&self, agent: &ureq::Agent, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = agent.run(request.body(body.to_vec()).unwrap()).unwrap();
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let (content_type, location, allow) = (header("content-type").unwrap_or_default(), header("location"), header("allow"));
        let (challenge, retry_after) = (header("www-authenticate"), header("retry-after"));
        let status = response.status().as_u16();
        let text = String::from_utf8_lossy(&response.body_mut().read_to_vec().unwrap()).into_owned();
        Answer { status, content_type, location, allow, challenge, retry_after, text }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    pub fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.call(method, path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    pub fn create(&self, name: &str) -> JobView {
        self.json("PUT", &format!("/v1/jobs/{name}"), &json!({ "name": name })).expect(201)
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    content_type: String,
    location: Option<String>,
    allow: Option<String>,
    challenge: Option<String>,
    retry_after: Option<String>,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn expect<T: serde::de::DeserializeOwned>(&self, status: u16) -> T {
        assert_eq!(self.status, status, "{self:?}");
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// A problem document whose parts agree with the answer around it.
    #[track_caller]
    pub fn problem(&self, status: u16) -> ProblemDetails {
        assert_eq!(self.content_type, PROBLEM_JSON, "{self:?}");
        let problem: ProblemDetails = self.expect(status);
        assert_eq!(problem.status, status);
        assert!(problem.kind.starts_with("urn:tidegate:problem:"));
        assert!(!problem.title.is_empty() && !problem.detail.is_empty());
        problem
    }
}

#[test]
fn every_refusal_is_a_problem_document() {
    let host = TestHost::open();
    host.create("a");
    let json = ("content-type", "application/json");
    for (status, answer) in [
        (404, host.get("/")),
        (404, host.get("/v1/nothing")),
        (404, host.get("/v1/jobs/none")),
        (404, host.get("/v1/jobs/a/operations/none")),
        (404, host.get("/v1/modules/a/..%2f..%2fjobs")),
        (404, host.call("DELETE", "/v1/jobs/a/savepoints/none", &[], b"")),
        (405, host.call("PATCH", "/v1/jobs/a", &[], b"")),
        (405, host.call("DELETE", "/v1/jobs", &[], b"")),
        (415, host.call("PUT", "/v1/jobs/b", &[], b"{}")),
        (415, host.call("PUT", "/v1/jobs/b", &[("content-type", "text/plain")], b"{}")),
        (415, host.call("POST", "/v1/jobs/a/stop", &[("content-type", "text/plain")], b"{}")),
        (400, host.call("PUT", "/v1/jobs/b", &[json], b"{")),
        (400, host.call("PUT", "/v1/jobs/b", &[("content-type", "application/toml")], b"name =")),
        (400, host.call("PUT", "/v1/jobs/b", &[("content-type", "application/toml")], b"\xff")),
        (422, host.call("PUT", "/v1/jobs/b", &[json], b"[]")),
        (422, host.call("PUT", "/v1/jobs/b", &[json], br#"{"name": "other"}"#)),
        (422, host.call("PUT", "/v1/jobs/B%2fc", &[json], b"{}")),
        (400, host.call("PUT", "/v1/modules/UP/1", &[], b"wasm")),
        (400, host.get("/v1/jobs/%ff")),
        (400, host.get("/v1/jobs/a/dead-letters?limit=0")),
        (400, host.get("/v1/jobs/a/dead-letters?limit=1001")),
        (400, host.get("/v1/jobs/a/dead-letters?lim=5")),
        (400, host.get("/v1/jobs/a/dead-letters?limit=x")),
        (400, host.get("/v1/jobs/a/dead-letters?before=x")),
        (400, host.call("POST", "/v1/jobs/a/savepoints?wait=1d", &[], b"")),
        (400, host.call("POST", "/v1/jobs/a/stop", &[json], br#"{"savepont": true}"#)),
        (422, host.call("POST", "/v1/jobs/a/stop", &[json], br#"{"drain": true}"#)),
        (409, host.call("DELETE", "/v1/jobs/a", &[], b"")),
        (409, host.call("POST", "/v1/jobs/a/start", &[json], br#"{"from": "fresh"}"#)),
        (400, host.call("POST", "/v1/jobs/a/start", &[json], br#"{"from": "yesterday"}"#)),
        (413, host.call("PUT", "/v1/jobs/b", &[json], &vec![b' '; (1 << 20) + 1])),
        (413, host.call("PUT", "/v1/modules/m/1", &[], &vec![0; (1 << 16) + 1])),
        (414, host.get(&format!("/v1/jobs/a?{}", "x".repeat(5000)))),
        (403, host.call("POST", "/v1/jobs/a/stop", &[("origin", "https://evil.example")], b"")),
        (403, host.call("POST", "/v1/jobs/a/stop", &[("origin", "null")], b"")),
        (500, host.json("PUT", "/v1/jobs/b", &json!({ "panic": true }))),
    ] {
        answer.problem(status);
    }
    assert_eq!(host.manager.show("a").unwrap().status.state, JobState::Running, "nothing of this touched the job");
    assert!(host.call("PATCH", "/v1/jobs/a", &[], b"").allow.unwrap().contains("PUT"));
}

#[test]
fn all_problems_of_a_job_come_at_once() {
    let host = TestHost::open();
    let problem = host.json("PUT", "/v1/jobs/a", &json!({ "problems": ["checkpoint.interval", "sink.out.path"] })).problem(422);
    assert_eq!(problem.problems.len(), 2);
    assert_eq!(problem.problems[1].key, "sink.out.path");
    assert_eq!(problem.problems[1].value.as_deref(), Some("?"));
    host.get("/v1/jobs/a").problem(404);
}

#[test]
fn a_job_is_created_as_json_or_toml_and_the_same_again_is_no_change() {
    let host = TestHost::open();
    let toml = ("content-type", "application/toml; charset=utf-8");
    let view: JobView = host.call("PUT", "/v1/jobs/a", &[toml], b"name = \"a\"\nretained = 4\n").expect(201);
    assert_eq!(view.status.state, JobState::Running);
    let again: JobView = host.json("PUT", "/v1/jobs/a", &json!({ "retained": 4 })).expect(200);
    assert_eq!(again.job_id, view.job_id);
    host.json("PUT", "/v1/jobs/a", &json!({ "retained": 5 })).problem(409);
    assert_eq!(host.fake.starts_of("a").len(), 1);
    let shown: Value = host.get("/v1/jobs/a").expect(200);
    assert_eq!(shown["spec"]["retained"], 4);
    let listed: Value = host.get("/v1/jobs").expect(200);
    assert_eq!(listed["jobs"][0]["status"]["tasks"][0]["records_in"], 1_234_567);
    assert_eq!(listed["jobs"][0].get("spec"), None);
    let waiting: JobView = host.json("PUT", "/v1/jobs/b?start=false", &json!({})).expect(201);
    assert_eq!(waiting.status.state, JobState::Created);
    let graph: Value = host.get("/v1/jobs/a/graph").expect(200);
    assert_eq!(graph["nodes"][0]["name"], "in");
    assert_eq!(graph["nodes"][0]["vertex"], 0);
}

#[test]
fn a_module_is_pushed_once_and_immutable() {
    let host = TestHost::open();
    let put = |version: &str, bytes: &[u8]| host.call("PUT", &format!("/v1/modules/op/{version}"), &[], bytes);
    let view: ModuleView = put("1.0.0", b"wasm").expect(201);
    assert_eq!(view.digest.len(), 64);
    assert_eq!(view.description.world, "processor");
    assert_eq!(put("1.0.0", b"wasm").expect::<ModuleView>(200), view);
    put("1.0.0", b"other").problem(409);
    let refused = put("1.0.1", b"bad").problem(422);
    assert_eq!(refused.problems[0].value.as_deref(), Some("wasi:sockets/tcp@0.2.0"));
    assert_eq!(refused.remedy.as_deref(), Some("build it without sockets"));
    assert_eq!(host.get("/v1/modules").expect::<ModuleList>(200).modules, std::slice::from_ref(&view));
    assert_eq!(host.get("/v1/modules/op/1.0.0").expect::<ModuleView>(200), view);
    host.json("PUT", "/v1/jobs/a", &json!({ "operator": [{ "module": "op@1.0.0" }] })).expect::<Value>(201);
    host.call("DELETE", "/v1/modules/op/1.0.0", &[], b"").problem(409);
    assert_eq!(host.call("DELETE", "/v1/jobs/a?force=true", &[], b"").status, 204);
    assert_eq!(host.call("DELETE", "/v1/modules/op/1.0.0", &[], b"").status, 204);
    host.get("/v1/modules/op/1.0.0").problem(404);
}

#[test]
fn a_savepoint_is_a_resource_to_poll_or_to_wait_for() {
    let host = TestHost::open();
    host.create("a");
    let done: OperationView = host.call("POST", "/v1/jobs/a/savepoints?wait=10s", &[], b"").expect(200);
    assert_eq!(done.savepoint.unwrap().id, "sp-1");

    let asked = host.json("POST", "/v1/jobs/a/savepoints", &json!({ "operation": "mine" }));
    assert!(asked.status == 202 || asked.status == 200);
    let location = asked.location.clone().unwrap();
    assert_eq!(location, "/v1/jobs/a/operations/mine");
    let polled: OperationView = host.get(&format!("{location}?wait=10s")).expect(200);
    assert_eq!(polled.state, OperationState::Completed);
    let repeated: OperationView = host.json("POST", "/v1/jobs/a/savepoints", &json!({ "operation": "mine" })).expect(200);
    assert_eq!(repeated, polled, "an answer that was lost can be asked for again");
    let list: Value = host.get("/v1/jobs/a/savepoints").expect(200);
    assert_eq!(list["savepoints"].as_array().unwrap().len(), 2);
    assert_eq!(host.call("DELETE", "/v1/jobs/a/savepoints/sp-1", &[], b"").status, 204);

    host.json("PUT", "/v1/jobs/full", &json!({ "savepoint": "fail" })).expect::<Value>(201);
    let problem = host.call("POST", "/v1/jobs/full/savepoints?wait=10s", &[], b"").problem(500);
    assert!(problem.detail.contains("the disk is full"));

    host.json("PUT", "/v1/jobs/slow", &json!({ "savepoint": "hang" })).expect::<Value>(201);
    let slow: OperationView = host.call("POST", "/v1/jobs/slow/savepoints?wait=10ms", &[], b"").expect(202);
    assert_eq!(host.get(&slow.path()).expect::<OperationView>(200).state, OperationState::Running);
}

#[test]
fn a_job_stops_with_a_savepoint_and_starts_from_it() {
    let host = TestHost::open();
    host.create("a");
    let stopped: OperationView = host.json("POST", "/v1/jobs/a/stop?wait=10s", &json!({ "savepoint": true })).expect(200);
    let savepoint = stopped.savepoint.unwrap().id;
    let view: JobView = host.get("/v1/jobs/a").expect(200);
    assert_eq!(view.status.state, JobState::Stopped);
    assert_eq!(view.ended.unwrap().savepoint.as_ref(), Some(&savepoint));
    host.json("POST", "/v1/jobs/a/start", &json!({ "from": { "savepoint": "none" } })).problem(404);
    let view: JobView = host.json("POST", "/v1/jobs/a/start", &json!({ "from": { "savepoint": savepoint } })).expect(200);
    assert_eq!(view.status.state, JobState::Running);
    host.call("POST", "/v1/jobs/a/stop?wait=10s", &[], b"").expect::<OperationView>(200);
    host.call("POST", "/v1/jobs/a/start", &[], b"").expect::<JobView>(200);
    assert_eq!(host.fake.starts_of("a").len(), 3);
}

#[test]
fn dead_letters_and_checkpoints_are_read_in_pages() {
    let host = TestHost::open();
    host.create("a");
    let mut path = "/v1/jobs/a/dead-letters?limit=100".to_owned();
    let mut records = Vec::new();
    loop {
        let page: crate::api::DeadLetterPage = host.get(&path).expect(200);
        records.extend(page.dead_letters.iter().map(|letter| letter.record.unwrap()));
        match page.next {
            Some(next) => path = format!("/v1/jobs/a/dead-letters?limit=100&before={next}"),
            None => break,
        }
    }
    assert_eq!(records, (0..250).rev().collect::<Vec<u64>>());
    let checkpoints: Value = host.get("/v1/jobs/a/checkpoints").expect(200);
    assert_eq!(checkpoints["checkpoints"][0]["checkpoint"], 7);
}

#[test]
fn a_dead_letter_its_bytes_and_its_replay_have_routes() {
    let host = TestHost::open();
    host.create("a");
    let letter: Value = host.get("/v1/jobs/a/dead-letters/7").expect(200);
    assert_eq!((&letter["id"], &letter["kind"]), (&Value::from("7"), &Value::from("trap")));
    let value = host.get("/v1/jobs/a/dead-letters/7/value");
    assert_eq!((value.status, value.content_type.as_str()), (200, "application/octet-stream"));
    for (status, path) in [(404, "none"), (404, "none/value"), (404, "tombstone/value")] {
        assert_eq!(host.get(&format!("/v1/jobs/a/dead-letters/{path}")).status, status, "{path}");
    }
    let replay = |body: Value| host.json("POST", "/v1/jobs/a/dead-letters/replay", &body);
    assert_eq!(replay(serde_json::json!({ "all": true })).status, 202);
    assert_eq!(replay(serde_json::json!({ "all": true, "dry_run": true })).status, 200);
    assert_eq!(replay(serde_json::json!({ "ids": ["none"] })).status, 404);
    assert_eq!(replay(serde_json::json!({ "ids": ["replayed"] })).status, 409);
    assert_eq!(replay(serde_json::json!({ "id": "7" })).status, 400);
    assert_eq!(host.json("POST", "/v1/jobs/a/dead-letters/discard", &serde_json::json!({ "all": true })).status, 200);
}

#[test]
fn health_readiness_version_and_metrics_are_served() {
    let host = TestHost::open();
    host.create("a");
    assert_eq!(host.get("/healthz").status, 200);
    assert_eq!(host.get("/readyz").status, 200);
    let version: Value = host.get("/v1/version").expect(200);
    assert_eq!(version["engine"], "fake-1");
    host.get("/what/ever");
    let page = host.get("/metrics");
    assert!(page.content_type.starts_with("text/plain; version=0.0.4"));
    assert!(page.text.contains("tidegate_job_state{job=\"a\",state=\"running\"} 1\n"), "{}", page.text);
    assert!(page.text.contains("tidegate_http_requests_total{method=\"PUT\",route=\"/v1/jobs/{name}\",status=\"201\"} 1\n"));
    assert!(page.text.contains("route=\"(none)\",status=\"404\"} 1\n"));
    assert!(!page.text.contains("/what"), "paths of clients are no labels");
}
