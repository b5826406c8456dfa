//! Connections: accepted within bounds, encrypted if asked, served by the router, and closed when nothing comes or goes on them.
//!
//! ```text
//!  accept ─► a place? ─► TLS handshake ─► head ─► router ─► answer ─► head ─► ...
//!              │ no          │ slow        │ slow    │ slow body    │ nobody reads
//!              503 and close close         close     408            close
//! ```
//!
//! Invariants:
//! * connections are bounded, in all and by client: the listener never waits for one of them;
//! * each step that depends on the client has its time: whoever sends or reads nothing gives the place back;
//! * when the server ends, requests that are under way are answered first, and idle connections are closed.

use super::problem::HttpProblem;
use axum::Router;
use axum::http::StatusCode;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_core::limits::{HttpLimits, URI_BYTES_MAX};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// Connections that are being told that there is no place for them. Those beyond are closed without a word.
const REFUSING_MAX: usize = 64;
/// For a refused client to send what it has on the way: a connection that is closed over unread bytes loses the answer.
const REFUSING_TIME: Duration = Duration::from_secs(1);
/// After an error that is not of one connection (no more file descriptors): room comes when others end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who asks: the address, of IPv6 the network, since a host may have all addresses of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let [a, b, c, d, ..] = v6.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address => address,
        })
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Accepts until `end` resolves, then lets requests finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    limits: HttpLimits,
    end: impl Future<Output = ()>,
) -> io::Result<()> {
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Places::new(limits.connections_max, limits.connections_per_client_max);
    let refusing = Arc::new(Semaphore::new(REFUSING_MAX));
    let graceful = GracefulShutdown::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let client = Client::from(peer.ip());
        let place = match places.take(client) {
            Ok(place) => place,
            Err(full) => {
                tracing::debug!(%client, full, "connection refused");
                if let Ok(permit) = refusing.clone().try_acquire_owned() {
                    let plain = acceptor.is_none();
                    tokio::spawn(async move {
                        let _permit = permit;
                        let _ = timeout(REFUSING_TIME, refuse(stream, plain.then_some(full))).await;
                    });
                }
                continue;
            }
        };
        let (router, acceptor, watcher) = (router.clone(), acceptor.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            // Answers are small and whole: waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            let stream = Watched::new(stream, Duration::from_millis(limits.write_timeout_ms));
            let service = with_client(router, client);
            // Errors are the client's: it went away, or what it sent is no HTTP.
            let _ = match acceptor {
                None => watcher.watch(connection(&limits).serve_connection(TokioIo::new(stream), service)).await,
                Some(acceptor) => {
                    let handshake = Duration::from_millis(limits.tls_handshake_timeout_ms);
                    match timeout(handshake, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            watcher.watch(connection(&limits).serve_connection(TokioIo::new(stream), service)).await
                        }
                        Ok(Err(error)) => {
                            tracing::debug!(%client, %error, "no TLS handshake");
                            return;
                        }
                        Err(_) => {
                            tracing::debug!(%client, "the TLS handshake takes too long (tls_handshake_timeout_ms)");
                            return;
                        }
                    }
                }
            };
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

fn connection(limits: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_read_timeout_ms))
        // A little more than what the guard refuses with an explanation: beyond, hyper says 431 and no more.
        .max_buf_size(2 * (limits.header_bytes_max + URI_BYTES_MAX) + (8 << 10));
    builder
}

fn with_client(
    router: Router,
    client: Client,
) -> impl Service<Request<Incoming>, Response = axum::response::Response, Error = std::convert::Infallible, Future: Send> {
    let router = TowerToHyperService::new(router);
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        router.call(request)
    })
}

/// The peer was gone before we looked.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Says why, if the connection is plain, and closes it.
async fn refuse(mut stream: TcpStream, full: Option<&'static str>) -> io::Result<()> {
    if let Some(full) = full {
        stream.write_all(refusal(full).as_bytes()).await?;
    }
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

fn refusal(full: &str) -> String {
    let problem = HttpProblem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "too-many-connections",
        "Too many connections",
        format!("the limit is {full}"),
    )
    .remedy("close connections that are not needed, and try again");
    let body = serde_json::to_string(&problem.0).expect("BUG: a problem is not JSON");
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}",
        crate::api::PROBLEM_JSON,
        body.len()
    )
}

/// Counts connections.
#[derive(Clone)]
struct Places {
    taken: Arc<Mutex<BTreeMap<Client, usize>>>,
    all: Arc<Semaphore>,
    per_client: usize,
}

/// The right to be connected. Given back when dropped.
struct Place {
    places: Places,
    client: Client,
    _one_of_all: tokio::sync::OwnedSemaphorePermit,
}

impl Places {
    fn new(all: usize, per_client: usize) -> Self {
        Self { taken: Arc::default(), all: Arc::new(Semaphore::new(all)), per_client }
    }

    /// The error names the bound that is met.
    fn take(&self, client: Client) -> Result<Place, &'static str> {
        let one_of_all = self.all.clone().try_acquire_owned().map_err(|_| "connections_max")?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(client).or_default();
        if *count >= self.per_client {
            return Err("connections_per_client_max");
        }
        *count += 1;
        Ok(Place { places: self.clone(), client, _one_of_all: one_of_all })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get_mut(&self.client).expect("BUG: a place of a client that has none");
        *count -= 1;
        if *count == 0 {
            taken.remove(&self.client);
        }
    }
}

/// A stream whose writes must get on: a peer that takes nothing for too long is an error.
struct Watched<S> {
    stream: S,
    patience: Duration,
    /// Running while a write waits.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stuck: None }
    }

    /// What a write came to, with the time that it has waited in mind.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let patience = self.patience;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        match stuck.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let why = "the client takes nothing of the answer (write_timeout_ms)";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        Client::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_mapped_addresses_are_those_they_map() {
        assert_eq!(client("2001:db8:1:2::3"), client("2001:db8:1:2:ffff::4"));
        assert_ne!(client("2001:db8:1:2::3"), client("2001:db8:1:3::3"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
    }

    #[test]
    fn places_are_bounded_by_client_and_in_all_and_come_back() {
        let places = Places::new(3, 2);
        let (one, other) = (client("10.0.0.1"), client("10.0.0.2"));
        let mut held = vec![places.take(one).ok().unwrap(), places.take(one).ok().unwrap()];
        assert_eq!(places.take(one).err(), Some("connections_per_client_max"));
        held.push(places.take(other).ok().unwrap());
        assert_eq!(places.take(other).err(), Some("connections_max"));
        held.clear();
        assert!(places.take(one).is_ok());
        assert!(places.taken.lock().unwrap().is_empty(), "clients that are gone are forgotten");
    }

    #[tokio::test]
    async fn a_write_that_gets_nowhere_is_an_error_in_the_end() {
        let (ours, theirs) = tokio::io::duplex(16);
        let mut watched = Watched::new(ours, Duration::from_millis(20));
        let error = watched.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }
}
