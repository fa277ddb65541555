//! The server behind, over HTTP/1.1: connections kept for the next request, one exchange at a time
//! on each.
//!
//! Our own and not hyper's client, for its memory: that holds some 20 KB of buffers for each open
//! stream, this holds none while a stream is silent (docs/adr/0002). It speaks to one server, which
//! is ours, without TLS, proxies or redirects.

mod exchange;
mod framing;
mod http2;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::{Method, Request, Response};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::body::Body;
use exchange::Exchange;
pub(crate) use exchange::{Prefixed, Reply};
pub(crate) use http2::Http2;

/// How long a connection is kept for the next request: less than the five seconds after which
/// common servers close it.
const IDLE: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS: usize = 256;

/// What a server answered.
pub(crate) enum Answer {
    Response(Response<Reply>),
    /// Of a server that speaks HTTP/2.
    Http2(Response<Incoming>),
    /// 101: the connection is no HTTP any more.
    Switched(Response<()>, Prefixed),
}

/// The connections to one server.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    idle: Mutex<Vec<(TcpStream, Instant)>>,
}

impl Upstream {
    pub(crate) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address,
            idle: Mutex::default(),
        })
    }

    /// Sends a request and waits for the head of its answer; bodies go on while the reply is read.
    /// Cancel safe: what is dropped closes its connection.
    pub(crate) async fn send(self: &Arc<Self>, request: Request<Body>) -> io::Result<Answer> {
        let (head, body) = request.into_parts();
        let asks_to_switch = head.headers.contains_key(UPGRADE);
        // A kept connection may be closed by the server in this very moment. Asking again is safe
        // where asking twice is, and possible where nothing of a body is gone (RFC 9110 §9.2.2).
        let repeatable = exchange::is_empty(&body)
            && matches!(
                head.method,
                Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
            );
        let mut body = Some(body);
        if let Some(stream) = self.kept() {
            let sent = if repeatable {
                Body::default()
            } else {
                body.take().unwrap_or_default()
            };
            match self
                .exchange(stream, &head, sent)
                .answer(asks_to_switch)
                .await
            {
                Err(error) if repeatable && error.kind() != io::ErrorKind::InvalidData => {}
                result => return result,
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        self.exchange(stream, &head, body.unwrap_or_default())
            .answer(asks_to_switch)
            .await
    }

    fn exchange(
        self: &Arc<Self>,
        stream: TcpStream,
        head: &hyper::http::request::Parts,
        body: Body,
    ) -> Exchange {
        Exchange::new(Arc::clone(self), stream, head, body)
    }

    /// A kept connection that is still open and silent.
    fn kept(&self) -> Option<TcpStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((stream, since)) = idle.pop() {
            let silent = matches!(stream.try_read(&mut [0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if silent && since.elapsed() < IDLE {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection on which everything asked was answered.
    fn keep(&self, stream: TcpStream) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push((stream, Instant::now()));
        }
    }
}
