//! A client's connection: counted against the limit for as long as it is open, tunnels included, and watched when half closed.

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

/// How soon the kernel asks a silent peer whether it is there. A client that vanished must not count as open for hours.
const KEEPALIVE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Shared {
    stream: TcpStream,
    written: AtomicU64,
    _permit: OwnedSemaphorePermit,
}

/// The reading and writing end, which hyper or a tunnel owns.
#[derive(Debug)]
pub(crate) struct Socket(Arc<Shared>);

/// The end that watches.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Shared>);

impl Socket {
    pub(crate) fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
        Ok(Self(Arc::new(Shared { stream, written: AtomicU64::new(0), _permit: permit })))
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.0))
    }
}

impl Watch {
    /// Waits until the client has closed its half and nothing was written for a whole `timeout`: then it is gone, not waiting.
    /// Cancel safe.
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
        matches!(SockRef::from(&self.0.stream).peek(&mut [MaybeUninit::uninit()]), Ok(0))
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
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.stream.poll_read_ready(cx))?;
            match self.0.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(cx))?;
            match self.0.stream.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.0.wrote(&result);
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
        match SockRef::from(&self.0.stream).shutdown(std::net::Shutdown::Write) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
