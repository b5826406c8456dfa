//! The HTTP API as calls. Every failure becomes a [`CliError`] that says what to do.

use super::error::CliError;
use super::terminal::Terminal;
use crate::api::{OperationState, OperationView, ProblemDetails};
use crate::http::is_token;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Method, Request, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

/// A server that is there answers a connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Compiling a large component takes seconds to minutes on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// A page of dead letters is the largest answer.
const ANSWER_BYTES_MAX: u64 = 128 << 20;
/// One question to an operation. Short enough for any proxy.
const POLL_S: u32 = 20;

pub struct Client {
    agent: Agent,
    server: String,
    /// `Bearer …`
    authorization: Option<String>,
}

impl Client {
    /// `ca_cert`: what to trust instead of the public certificate authorities.
    pub fn new(server: &str, ca_cert: Option<&Path>) -> Result<Self, CliError> {
        let server = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let wrong = |cause: String| {
            CliError::usage(format!("server `{server}`: {cause}")).remedy("write it as http://HOST:PORT or https://HOST:PORT")
        };
        let uri: Uri = server.parse().map_err(|e| wrong(format!("{e}")))?;
        let host = uri.host().ok_or_else(|| wrong("has no host".into()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("only http and https are understood".into()));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT));
        if matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
            // A proxy in the environment is for the world outside.
            config = config.proxy(None);
        }
        if let Some(path) = ca_cert {
            config = config.tls_config(TlsConfig::builder().root_certs(certificates(path)?).build());
        }
        let server = server.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.build().into(), server, authorization: None })
    }

    pub fn use_token(&mut self, token: &str) -> Result<(), CliError> {
        if !is_token(token) {
            return Err(
                CliError::usage("the token has characters that no token has").remedy("letters, digits and -._~+/= are allowed")
            );
        }
        self.authorization = Some(format!("Bearer {token}"));
        Ok(())
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(self.send(Method::GET, path, None, SendBody::none())?)
    }

    /// `None`: there is no such thing.
    pub fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, CliError> {
        match self.send(Method::GET, path, None, SendBody::none()) {
            Ok(response) => self.json(response).map(Some),
            Err(error) if error.not_found => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is no document.
    pub fn get_bytes(&self, path: &str) -> Result<Vec<u8>, CliError> {
        let mut response = self.send(Method::GET, path, None, SendBody::none())?;
        let read = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        read.map_err(|error| CliError::failed(format!("the answer of {} broke off: {error}", self.server)))
    }

    pub fn delete(&self, path: &str) -> Result<(), CliError> {
        self.send(Method::DELETE, path, None, SendBody::none()).map(|_| ())
    }

    /// The answer and whether something was created.
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<(T, bool), CliError> {
        let response = self.send_json(Method::PUT, path, body)?;
        let created = response.status().as_u16() == 201;
        Ok((self.json(response)?, created))
    }

    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CliError> {
        self.json(self.send_json(Method::POST, path, body)?)
    }

    pub fn put_bytes<T: DeserializeOwned>(&self, path: &str, len: u64, mut body: impl Read) -> Result<(T, bool), CliError> {
        let headers = Some(("application/wasm", Some(len)));
        let response = self.send(Method::PUT, path, headers, SendBody::from_reader(&mut body))?;
        let created = response.status().as_u16() == 201;
        Ok((self.json(response)?, created))
    }

    /// The data of each event of a stream, until it breaks off or `each` says that it is enough.
    pub fn events<T: DeserializeOwned>(&self, path: &str, mut each: impl FnMut(T) -> bool) -> Result<(), CliError> {
        let mut response = self.send(Method::GET, path, None, SendBody::none())?;
        // Each line is bounded by the limits of what is told in it.
        for line in BufReader::new(response.body_mut().as_reader()).lines() {
            let Ok(line) = line else { break };
            let Some(data) = line.strip_prefix("data:") else { continue };
            let event = serde_json::from_str(data.trim_start())
                .map_err(|error| CliError::failed(format!("an event of {} is not understood: {error}", self.server)))?;
            if !each(event) {
                break;
            }
        }
        Ok(())
    }

    /// Waits until the operation has ended. The ones that failed are errors.
    pub fn finish(&self, operation: OperationView, terminal: &Terminal, doing: &str) -> Result<OperationView, CliError> {
        let _spinner = terminal.spinner(doing);
        let path = format!("{}?wait={POLL_S}s", operation.path());
        let mut operation = operation;
        while operation.state == OperationState::Running {
            operation = self.get(&path)?;
        }
        match operation.problem {
            Some(problem) => Err(problem.into()),
            None => Ok(operation),
        }
    }

    fn send_json(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Response<Body>, CliError> {
        let body = serde_json::to_vec(body).expect("BUG: a request is not JSON");
        let headers = Some(("application/json", Some(body.len() as u64)));
        self.send(method, path, headers, SendBody::from_reader(&mut body.as_slice()))
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        content: Option<(&str, Option<u64>)>,
        body: SendBody<'_>,
    ) -> Result<Response<Body>, CliError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        if let Some((kind, len)) = content {
            request = request.header("content-type", kind);
            if let Some(len) = len {
                request = request.header("content-length", len);
            }
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(body).map_err(|e| CliError::usage(format!("{}{path}: {e}", self.server)))?;
        let mut response = self.agent.run(request).map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap_or_default();
        Err(match serde_json::from_str::<ProblemDetails>(&text) {
            Ok(problem) => problem.into(),
            // Something in between, or no Tidegate at all.
            Err(_) => CliError::failed(format!("{} answered {status} and no explanation", self.server))
                .remedy("check that a Tidegate server listens there (--server, TIDEGATE_SERVER)"),
        })
    }

    fn json<T: DeserializeOwned>(&self, mut response: Response<Body>) -> Result<T, CliError> {
        response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json().map_err(|error| {
            CliError::failed(format!("the answer of {} is not understood: {error}", self.server))
                .remedy("check that a Tidegate server of this version listens there (--server, TIDEGATE_SERVER)")
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        let refused = matches!(error, ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused);
        let what = match error {
            _ if refused => format!("no server listens at {}", self.server),
            error => format!("no answer from {}: {error}", self.server),
        };
        CliError::failed(what).remedy("start one with `tidegate serve`, or name another with --server or TIDEGATE_SERVER")
    }
}

fn certificates(path: &Path) -> Result<RootCerts, CliError> {
    let wrong = |cause: String| CliError::usage(format!("read the certificates {}: {cause}", path.display()));
    let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| wrong(e.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(wrong("there is none in it (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}

/// The token alone, or as in the file of a server: then the first one that may write, else the first.
pub fn token_of_file(path: &Path) -> Result<String, CliError> {
    let wrong = |cause: String| CliError::usage(format!("read the token file {}: {cause}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let tokens: Vec<&str> = lines.filter(|line| !line.contains("sha256:")).collect();
    let chosen = tokens.iter().find(|line| line.starts_with("write:")).or(tokens.first());
    let chosen = chosen.ok_or_else(|| wrong("there is no token in it (digests can't be sent)".into()))?;
    let token = chosen.strip_prefix("write:").or(chosen.strip_prefix("read:")).unwrap_or(chosen);
    Ok(token.trim().to_owned())
}

/// A name within a path. Those that are right stay as they are; the server refuses the others.
pub fn segment(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'+' | b'@') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    // Dots alone would be taken for a way through the path.
    if name.bytes().all(|b| b == b'.') { name.replace('.', "%2E") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_one_segment_whatever_is_in_them() {
        assert_eq!(segment("flights-1.2_x"), "flights-1.2_x");
        assert_eq!(segment("a/b?c#d e%"), "a%2Fb%3Fc%23d%20e%25");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("ä"), "%C3%A4");
    }

    #[test]
    fn servers_are_named_with_or_without_http() {
        assert_eq!(Client::new("localhost:8080", None).unwrap().server(), "http://localhost:8080");
        assert_eq!(Client::new("http://h:1/", None).unwrap().server(), "http://h:1");
        assert_eq!(Client::new("https://h:1", None).unwrap().server(), "https://h:1");
        for wrong in ["ftp://h", "http://", "http://a b"] {
            assert_eq!(Client::new(wrong, None).err().map(|e| e.code()), Some(2), "{wrong}");
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Client::new(&free.to_string(), None).unwrap().get::<serde_json::Value>("/v1/jobs").unwrap_err();
        assert_eq!(error.what, format!("no server listens at http://{free}"));
        assert!(error.remedy.as_deref().unwrap().contains("tidegate serve"));
        assert_eq!(error.code(), 1);
    }
}
