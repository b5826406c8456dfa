//! The HTTP API as any client sees it. Documents are JSON values: a test that used the host's own types could not see a wrong name.

use serde_json::Value;
use std::time::Duration;

/// Longer than any answer may take: waits that are meant to last have deadlines of their own.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    agent: ureq::Agent,
}

/// What came back, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    pub asked: String,
    pub status: u16,
    pub content_type: String,
    pub location: Option<String>,
    pub body: String,
}

impl Response {
    /// The document of a success.
    #[track_caller]
    pub fn document(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self}");
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// The problem document of a refusal.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.content_type, "application/problem+json", "{self}");
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"));
        assert_eq!(problem["status"], status, "{self}");
        for key in ["type", "title", "detail"] {
            assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "a problem has a {key}: {self}");
        }
        problem
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered {} ({}): {}", self.asked, self.status, self.content_type, self.body)
    }
}

impl Client {
    pub fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Self { base: format!("http://{address}"), agent: config.into() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// An answer, or why there is none: a host that is killed breaks connections.
    pub fn try_get(&self, path: &str) -> Result<Response, String> {
        let asked = format!("GET {path}");
        read(&asked, self.agent.get(format!("{}{path}", self.base)).call())
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.try_get(path).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    pub fn put(&self, path: &str, content_type: &str, body: &[u8]) -> Response {
        let request = self.agent.put(format!("{}{path}", self.base)).content_type(content_type);
        read(&format!("PUT {path}"), request.send(body)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    pub fn put_json(&self, path: &str, body: &Value) -> Response {
        self.try_put_json(path, body).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_put_json(&self, path: &str, body: &Value) -> Result<Response, String> {
        let request = self.agent.put(format!("{}{path}", self.base)).content_type("application/json");
        read(&format!("PUT {path} {body}"), request.send(body.to_string()))
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.try_post(path, body).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_post(&self, path: &str, body: &Value) -> Result<Response, String> {
        let request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
        read(&format!("POST {path} {body}"), request.send(body.to_string()))
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Response {
        read(&format!("DELETE {path}"), self.agent.delete(format!("{}{path}", self.base)).call())
            .unwrap_or_else(|error| panic!("{error}"))
    }
}

fn read(asked: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Response, String> {
    let mut answer = answer.map_err(|error| format!("{asked}: no answer: {error}"))?;
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (content_type, location) = (header("content-type").unwrap_or_default(), header("location"));
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_string().map_err(|error| format!("{asked}: the answer broke off: {error}"))?;
    Ok(Response { asked: asked.to_owned(), status, content_type, location, body })
}
