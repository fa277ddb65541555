//! The server behind, over HTTP/2 without TLS: all requests on one connection, made again when it
//! ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::body::Body;

/// How much of one answer is taken ahead of a client that does not read it.
const STREAM_WINDOW: u32 = 64 * 1024;
/// How much of one request is held for a server that does not read it.
const SEND_BUFFER: usize = 64 * 1024;

/// The connection to one server.
pub(crate) struct Http2 {
    address: SocketAddr,
    connection_window: u32,
    sender: Mutex<Option<SendRequest<Body>>>,
}

impl Http2 {
    /// For at most `most_streams` concurrent streams: the connection's window has room for all of
    /// them, so that unread streams do not block others.
    pub(crate) fn new(address: SocketAddr, most_streams: usize) -> Arc<Self> {
        const LARGEST: u32 = i32::MAX.cast_unsigned();
        let streams = u32::try_from(most_streams).unwrap_or(u32::MAX);
        Arc::new(Self {
            address,
            connection_window: STREAM_WINDOW
                .saturating_mul(streams.saturating_add(1))
                .min(LARGEST),
            sender: Mutex::default(),
        })
    }

    /// Sends a request and waits for the head of its answer. Cancel safe: a dropped request is
    /// reset.
    pub(crate) async fn send(&self, request: Request<Body>) -> io::Result<Response<Incoming>> {
        let mut sender = self.connected(None).await?;
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            // The server closed the connection before it took the request.
            Err(mut refused) => match refused.take_message() {
                Some(request) => {
                    let mut sender = self.connected(Some(&sender)).await?;
                    sender.send_request(request).await.map_err(io::Error::other)
                }
                None => Err(io::Error::other(refused.into_error())),
            },
        }
    }

    /// The open connection, or a new one; never the one that was seen to have ended.
    async fn connected(&self, ended: Option<&SendRequest<Body>>) -> io::Result<SendRequest<Body>> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref()
            && !sender.is_closed()
            && ended.is_none()
        {
            return Ok(sender.clone());
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(self.connection_window)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            // Its requests learn of its end.
            let _ended = connection.await;
        });
        *kept = Some(sender.clone());
        Ok(sender)
    }
}
