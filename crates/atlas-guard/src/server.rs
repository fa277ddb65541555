//! The listening side: connections up to a limit, slow heads cut, and an orderly end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::activity::Report;
use crate::config::Config;
use crate::permit::Permit;
use crate::proxy::Proxy;
use crate::socket::Socket;

/// The most of a head that is read before its size is judged.
const HEAD_BUFFER: usize = 64 * 1024;
/// How long open requests may go on after the guard was told to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait when the system gives no more sockets: only other connections' ends help.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A listening guard.
pub struct Guard {
    listener: TcpListener,
    proxy: Arc<Proxy>,
    http: auto::Builder<TokioExecutor>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Guard {
    /// Listens. Cancel safe.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(config: Config) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .half_close(true)
            .max_buf_size(HEAD_BUFFER.max(config.max_header_bytes as usize + 1024));
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(config.max_header_bytes)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        Ok(Self { listener, proxy: Arc::new(Proxy::new(config)), http })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system cannot say.
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

    /// Serves until `shutdown`, then lets open requests go on for ten seconds. Not cancel safe: drops the listener at once
    /// and leaves connections to their tasks.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let limit = self.proxy.config.max_connections;
        let places = Arc::new(Semaphore::new(limit));
        let (closing, _) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        let http = Arc::new(self.http);
        loop {
            // Who comes when all places are taken waits in the kernel's queue.
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
                (self.listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                next = next => next,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(EXHAUSTED).await;
                continue;
            };
            if let Ok(socket) = Socket::new(stream, place) {
                let closing = closing.subscribe();
                tokio::spawn(connection(Arc::clone(&http), Arc::clone(&self.proxy), socket, peer, closing));
            }
        }
        drop(self.listener);
        drop(closing);
        let all = u32::try_from(limit).unwrap_or(u32::MAX);
        // Whoever is not done by now is cut with the process.
        let _done = tokio::time::timeout(GRACE, places.acquire_many(all)).await;
    }
}

async fn connection(
    http: Arc<auto::Builder<TokioExecutor>>,
    proxy: Arc<Proxy>,
    socket: Socket,
    peer: SocketAddr,
    mut closing: watch::Receiver<()>,
) {
    let (header_timeout, half_closed) = (proxy.config.header_timeout, proxy.config.half_closed_timeout);
    let abandoned = socket.watch().abandoned(half_closed);
    let begun = AtomicBool::new(false);
    let begun = Arc::new(begun);
    let service = {
        let begun = Arc::clone(&begun);
        service_fn(move |request| {
            begun.store(true, Relaxed);
            let proxy = Arc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.answer(request, peer).await) }
        })
    };
    // hyper times the heads of HTTP/1 alone, and only once it knows that it is HTTP/1.
    let silent = async {
        tokio::time::sleep(header_timeout).await;
        if begun.load(Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let mut serving = pin!(http.serve_connection_with_upgrades(TokioIo::new(socket), service));
    let (mut silent, mut abandoned) = (pin!(silent), pin!(abandoned));
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            _ = serving.as_mut() => return,
            () = &mut silent => return,
            () = &mut abandoned => return,
            // The sender is dropped, and nothing ever sent.
            _ = closing.changed(), if !told => {
                serving.as_mut().graceful_shutdown();
                told = true;
            }
        }
    }
}
