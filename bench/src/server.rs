//! The real binary, driven from outside as anybody would: a process, its HTTP API and its metrics.

use crate::engine::EngineError;
use crate::measure::Usage;
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to become ready, or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks: far below what is measured.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// A running `tidegate serve`. Dropping it kills it.
pub struct Server {
    process: Child,
    client: Client,
}

impl Server {
    /// Starts the process; it is not ready yet.
    pub fn start(binary: &Path, data: &Path) -> Result<Self, EngineError> {
        let address = free_address()?;
        let process = Command::new(binary)
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--listen", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| EngineError::new(format!("starting {}", binary.display()), error))?;
        Ok(Self { process, client: Client::new(&address) })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn usage(&self) -> Result<Usage, EngineError> {
        Usage::of_process(self.process.id()).map_err(|error| EngineError::new("measuring the server", error))
    }

    /// Waits until the server says it is ready.
    pub fn wait_until_ready(&mut self) -> Result<(), EngineError> {
        let start = Instant::now();
        loop {
            if self.client.is_ready() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(EngineError::new("waiting for the server", format!("it ended with {status}")));
            }
            if start.elapsed() > PATIENCE {
                return Err(EngineError::new("waiting for the server", format!("not ready after {PATIENCE:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until `done` says so.
pub fn wait_until(attempted: &str, mut done: impl FnMut() -> Result<bool, EngineError>) -> Result<(), EngineError> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > PATIENCE {
            return Err(EngineError::new(attempted, format!("not after {PATIENCE:?}")));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// An address that was free a moment ago. The server could choose one by itself, but then it would have to be asked which.
fn free_address() -> Result<String, EngineError> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.map(|address| address.to_string()).map_err(|error| EngineError::new("looking for a free port", error))
}

/// The HTTP API.
pub struct Client {
    base: String,
    agent: ureq::Agent,
}

impl Client {
    pub fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build();
        Self { base: format!("http://{address}"), agent: config.into() }
    }

    fn is_ready(&self) -> bool {
        self.agent.get(format!("{}/readyz", self.base)).call().is_ok_and(|response| response.status().is_success())
    }

    pub fn put_module(&self, name: &str, version: &str, component: &[u8]) -> Result<(), EngineError> {
        let path = format!("/v1/modules/{name}/{version}");
        let request = self.agent.put(format!("{}{path}", self.base)).content_type("application/wasm");
        accepted(&path, request.send(component))
    }

    pub fn put_job(&self, job: &Value) -> Result<(), EngineError> {
        let name = job["name"].as_str().unwrap_or_default();
        let path = format!("/v1/jobs/{name}");
        let request = self.agent.put(format!("{}{path}", self.base)).content_type("application/json");
        accepted(&path, request.send(job.to_string()))
    }
}

fn accepted(path: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<(), EngineError> {
    let attempted = || format!("PUT {path}");
    let mut response = answer.map_err(|error| EngineError::new(attempted(), error))?;
    if response.status().is_success() {
        return Ok(());
    }
    let problem = response.body_mut().read_to_string().unwrap_or_default();
    Err(EngineError::new(attempted(), format!("{} {problem}", response.status())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::thread::JoinHandle;

    /// Answers one request and gives back what it was.
    fn answer_once(status: &'static str, body: &'static str) -> (Client, JoinHandle<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = Client::new(&listener.local_addr().expect("an address").to_string());
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a request");
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            reader.read_line(&mut head).expect("a request line");
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a header");
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
            }
            let mut content = vec![0; length];
            reader.read_exact(&mut content).expect("a body");
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            reader.get_mut().write_all(answer.as_bytes()).expect("answers");
            (head.trim().to_string(), content)
        });
        (client, server)
    }

    #[test]
    fn a_job_is_put_under_its_name() {
        let (client, server) = answer_once("201 Created", "");
        client.put_job(&serde_json::json!({ "name": "bench" })).expect("is accepted");
        let (head, body) = server.join().expect("served");
        assert_eq!((head.as_str(), body.as_slice()), ("PUT /v1/jobs/bench HTTP/1.1", &br#"{"name":"bench"}"#[..]));
    }

    #[test]
    fn a_refusal_carries_the_problem() {
        let (client, server) = answer_once("409 Conflict", r#"{"title":"another digest"}"#);
        let error = client.put_module("w2", "0.1.0", b"\0asm").expect_err("is refused").to_string();
        assert!(error.contains("PUT /v1/modules/w2/0.1.0: 409 Conflict"), "{error}");
        assert!(error.contains("another digest"), "{error}");
        assert_eq!(server.join().expect("served").1, b"\0asm");
    }

    #[test]
    fn a_server_that_ends_is_not_waited_for() {
        let data = tempfile::tempdir().expect("a folder");
        let mut server = Server::start(Path::new("/bin/false"), data.path()).expect("starts");
        let error = server.wait_until_ready().expect_err("ended").to_string();
        assert!(error.contains("it ended with exit status: 1"), "{error}");
    }

    #[test]
    fn a_binary_that_is_not_there_is_named() {
        let error = Server::start(Path::new("/nowhere/tidegate"), Path::new("/tmp")).err().expect("no binary").to_string();
        assert!(error.starts_with("starting /nowhere/tidegate"), "{error}");
    }
}
