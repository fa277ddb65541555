//! A client's connection: counted against the limit for as long as it is open, tunnels included,
//! and watched when half closed.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// Where HTTP/2's preface differs from every method: `PRI`.
const PREFACE: &[u8; 3] = b"PRI";
/// How soon the kernel asks a silent peer whether it is there. A client that vanished must not
/// count as open for hours.
const KEEPALIVE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    written: AtomicU64,
    _permit: OwnedSemaphorePermit,
}

/// The reading and writing end, which hyper or a tunnel owns.
#[derive(Debug)]
pub(crate) struct Socket {
    shared: Arc<Shared>,
    /// What was read to tell the protocol, and is still to be read by the implementation of that
    /// protocol.
    begun: Vec<u8>,
}

/// The end that watches.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Shared>);

impl Socket {
    pub(crate) fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(
            &TcpKeepalive::new()
                .with_time(KEEPALIVE)
                .with_interval(KEEPALIVE / 4),
        )?;
        Ok(Self {
            shared: Arc::new(Shared {
                stream,
                written: AtomicU64::new(0),
                _permit: permit,
            }),
            begun: vec![],
        })
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }

    /// True when the client begins with the preface of HTTP/2. Not cancel safe.
    pub(crate) async fn speaks_http2(&mut self) -> io::Result<bool> {
        let mut begun = [0; PREFACE.len()];
        let peeked = self.shared.stream.peek(&mut begun).await?;
        // Nearly always it is all there at once. Else it is taken, byte by byte: peeking again
        // would not wait.
        if peeked == PREFACE.len() || !PREFACE.starts_with(&begun[..peeked]) {
            return Ok(begun == *PREFACE);
        }
        while self.begun.len() < PREFACE.len() && PREFACE.starts_with(&self.begun) {
            let mut byte = [0];
            self.shared.stream.readable().await?;
            match self.shared.stream.try_read(&mut byte) {
                Ok(0) => break,
                Ok(_) => self.begun.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.begun == PREFACE)
    }
}

impl Watch {
    /// Waits until the client has closed its half and nothing was written for a whole `timeout`:
    /// then it is gone, not waiting. Cancel safe.
    pub(crate) async fn abandoned(self, timeout: Duration) {
        loop {
            let before = self.0.written.load(Relaxed);
            let closed_before = self.is_half_closed();
            tokio::time::sleep(timeout).await;
            if closed_before && self.is_half_closed() && self.0.written.load(Relaxed) == before {
                return;
            }
        }
    }

    fn is_half_closed(&self) -> bool {
        matches!(
            SockRef::from(&self.0.stream).peek(&mut [MaybeUninit::uninit()]),
            Ok(0)
        )
    }
}

impl Shared {
    fn wrote(&self, result: &io::Result<usize>) {
        if let Ok(bytes) = result {
            self.written.fetch_add(*bytes as u64, Relaxed);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let length = self.begun.len().min(buffer.remaining());
            buffer.put_slice(&self.begun[..length]);
            self.begun.drain(..length);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.shared.stream.poll_read_ready(cx))?;
            match self.shared.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.shared.stream.poll_write_ready(cx))?;
            match self.shared.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.shared.wrote(&result);
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.shared.stream).shutdown(std::net::Shutdown::Write) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
