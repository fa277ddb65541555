//! Listeners and connections: bounded in number, and ended gracefully.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tower::{Service, ServiceExt};

/// The most connections of one listener; more wait to be accepted.
const MOST: usize = 512;
/// How long a listener rests after it could not accept.
const BREATH: Duration = Duration::from_millis(20);
/// How long a client may take over a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// The listeners of a simulator, each in a task of its own.
#[derive(Debug)]
pub(crate) struct Serving {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
        }
    }
}

impl Serving {
    /// Serves this service to every connection. An error of the service is a cut connection.
    pub(crate) fn add<S, B>(&mut self, listener: TcpListener, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + fmt::Debug,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut stopped = self.stop.subscribe();
        self.tasks.spawn(async move {
            let room = Arc::new(Semaphore::new(MOST));
            let mut connections = JoinSet::new();
            loop {
                let next = async {
                    let permit = room.clone().acquire_owned().await;
                    (permit, listener.accept().await)
                };
                tokio::select! { biased;
                    () = until(&mut stopped) => break,
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                    (permit, accepted) = next => match (permit, accepted) {
                        (Ok(permit), Ok((stream, _))) => {
                            connections.spawn(connection(stream, service.clone(), permit,
                                stopped.clone()));
                        }
                        // Out of file descriptors, or a client that left the queue: neither ends
                        // the listener, nor makes it spin.
                        _ => tokio::time::sleep(BREATH).await,
                    },
                }
            }
            drop(listener);
            while connections.join_next().await.is_some() {}
        });
    }

    /// Lets something run beside the listeners, until they stop.
    pub(crate) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stopped = self.stop.subscribe();
        self.tasks.spawn(async move {
            tokio::select! { biased;
                () = until(&mut stopped) => {}
                () = task => {}
            }
        });
    }

    /// Takes no more connections and waits this long for those there are.
    pub(crate) async fn stop(mut self, patience: Duration) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // What is left after that, a stalled answer say, is dropped with the set.
        let _ = tokio::time::timeout(patience, all).await;
        self.tasks.shutdown().await;
    }
}

async fn until(stopped: &mut watch::Receiver<bool>) {
    // A sender that is gone means stopped too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn connection<S, B>(
    stream: TcpStream,
    service: S,
    permit: OwnedSemaphorePermit,
    mut stopped: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + fmt::Debug,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Answers are small and a client waits for each.
    let _ = stream.set_nodelay(true);
    let serve = service_fn(move |request| service.clone().oneshot(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), serve);
    let mut connection = std::pin::pin!(connection);
    tokio::select! { biased;
        () = until(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
        // A cut connection is what some answers are meant to be.
        _ = connection.as_mut() => {}
    }
    drop(permit);
}

/// What a service that never fails answers with.
pub(crate) type Sure<T> = Result<T, Infallible>;
