//! The listening side: a limited number of connections, time limits for headers, and a graceful
//! shutdown.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::activity::{Connection, Report};
use crate::config::Config;
use crate::permit::Permit;
use crate::places::Places;
use crate::proxy::Proxy;
use crate::socket::Socket;

/// The maximum number of body bytes read at once.
const BUFFER: usize = 64 * 1024;
/// How much of an answer is buffered for an HTTP/2 client that does not read it.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;
/// How much of a request's body an HTTP/2 client may send ahead of the server.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
/// The maximum number of streams of one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 200;
/// How long open requests may continue after the guard was asked to shut down.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when the system has no more sockets.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A listening guard.
pub struct Guard {
    listener: TcpListener,
    proxy: Arc<Proxy>,
    http: Arc<Protocols>,
}

/// How each protocol is served.
struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// Binds the listener. Cancel safe.
    ///
    /// # Errors
    /// When the address is taken or not available on this host.
    pub async fn bind(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .half_close(true)
            .max_header_size(config.max_header_bytes as usize)
            .max_buf_size(BUFFER.max(config.max_header_bytes as usize));
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(config.max_header_bytes)
            .max_send_buf_size(HTTP2_SEND_BUFFER)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .max_concurrent_streams(HTTP2_STREAMS)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let http = Arc::new(Protocols { http1, http2 });
        Ok(Self {
            listener,
            proxy: Arc::new(Proxy::new(config)),
            http,
        })
    }

    /// The bound address.
    ///
    /// # Errors
    /// When the system cannot report it.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The permit that `POST /_atlas/permit` renews.
    #[must_use]
    pub fn permit(&self) -> Permit {
        self.proxy.permit.clone()
    }

    /// What `GET /_atlas/activity` answers.
    #[must_use]
    pub fn report(&self) -> Report {
        self.proxy.report()
    }

    /// Serves until `shutdown`, then lets open requests continue for five seconds. Not cancel safe:
    /// dropping it closes the listener at once and leaves connections to their tasks.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let places = Places::new(self.proxy.config.max_connections);
        let (closing, _) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        let http = self.http;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            };
            // While it waits for a place, others wait in the kernel's queue.
            let state = Arc::new(Connection::default());
            let place = tokio::select! {
                biased;
                () = &mut shutdown => break,
                place = places.take(&state) => place,
            };
            if let Ok(socket) = Socket::new(stream, place) {
                let closing = closing.subscribe();
                let (http, proxy) = (Arc::clone(&http), Arc::clone(&self.proxy));
                tokio::spawn(async move {
                    let cut = Arc::clone(&state);
                    let serving = connection(http, proxy, socket, peer, state, closing);
                    tokio::select! {
                        biased;
                        () = cut.is_cut() => {}
                        () = serving => {}
                    }
                });
            }
        }
        drop(self.listener);
        drop(closing);
        // Connections that are still open now end with the process.
        let _done = tokio::time::timeout(GRACE, places.all_free()).await;
    }
}

async fn connection(
    http: Arc<Protocols>,
    proxy: Arc<Proxy>,
    mut socket: Socket,
    peer: SocketAddr,
    open: Arc<Connection>,
    closing: watch::Receiver<()>,
) {
    let (header_timeout, half_closed) = (
        proxy.config.header_timeout,
        proxy.config.half_closed_timeout,
    );
    let abandoned = socket.watch().abandoned(half_closed);
    let Ok(Ok(speaks_http2)) = tokio::time::timeout(header_timeout, socket.speaks_http2()).await
    else {
        return;
    };
    let service = {
        let open = Arc::clone(&open);
        service_fn(move |request| {
            let (proxy, open) = (Arc::clone(&proxy), Arc::clone(&open));
            async move { Ok::<_, Infallible>(proxy.answer(request, peer, &open).await) }
        })
    };
    // hyper applies its header timeout to HTTP/1 only, and lets HTTP/2 connections stay idle
    // forever.
    let cut = Cut {
        abandoned,
        open,
        unused_for: header_timeout,
        closing,
    };
    let io = TokioIo::new(socket);
    if speaks_http2 {
        let serving = pin!(http.http2.serve_connection(io, service));
        drive(serving, http2::Connection::graceful_shutdown, cut).await;
    } else {
        let serving = pin!(http.http1.serve_connection(io, service).with_upgrades());
        drive(
            serving,
            http1::UpgradeableConnection::graceful_shutdown,
            cut,
        )
        .await;
    }
}

/// Why a connection may end before its client ends it.
struct Cut<A> {
    /// Completes when the client is gone.
    abandoned: A,
    /// The connection's activity: it is closed when no verified request arrived for too long.
    open: Arc<Connection>,
    unused_for: Duration,
    /// Notified when the guard shuts down.
    closing: watch::Receiver<()>,
}

/// Drives a connection until it ends or is closed. An unused one is notified first, so that a
/// request on its way is not lost.
async fn drive<C: Future>(
    mut serving: Pin<&mut C>,
    end: impl Fn(Pin<&mut C>),
    cut: Cut<impl Future<Output = ()>>,
) {
    let Cut {
        abandoned,
        open,
        unused_for,
        mut closing,
    } = cut;
    let (mut abandoned, mut unused) = (pin!(abandoned), pin!(open.unused(unused_for)));
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            _ = serving.as_mut() => return,
            () = &mut abandoned => return,
            () = &mut unused => {
                if told {
                    return;
                }
                unused.set(open.unused(unused_for));
            }
            // The sender is dropped without sending.
            _ = closing.changed(), if !told => {}
        }
        end(serving.as_mut());
        told = true;
    }
}
