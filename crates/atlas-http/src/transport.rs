//! Sends one request to a cloud and returns its answer: hyper by default, or any tower `Service`.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use http::{Request, Response};
use hyper_rustls::builderstates::WantsSchemes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client as Pooled, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};

use crate::body::{Body, BoxError};

/// The time limit for name resolution and TCP; TLS counts against the call's deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the idle limits of the clouds' proxies, so that we close an idle connection before
/// they do.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Sends one request and returns its answer. Cheap to clone. It is a tower `Service` itself, so
/// tower layers can wrap it.
#[derive(Clone)]
pub struct Transport(Inner);

#[derive(Clone)]
enum Inner {
    Wire(Arc<Wire>),
    Custom(BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>),
}

impl Transport {
    /// hyper with a connection pool, HTTP/1.1 and HTTP/2, and TLS by rustls with the platform's
    /// trusted certificates.
    #[must_use]
    pub fn hyper() -> Self {
        Self(Inner::Wire(Arc::new(Wire::new())))
    }

    /// Like [`Transport::hyper`], but trusts only these certificates (PEM): for a minimal container
    /// without the platform's certificates, or a proxy that terminates TLS.
    ///
    /// # Errors
    /// `validation` when it contains no certificate, or an invalid one.
    pub fn hyper_trusting(pem: &[u8]) -> Result<Self> {
        let wrong = || {
            Error::validation(
                "trusted_certificates",
                "hold no certificate, or one that cannot be read",
            )
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots
                .add(certificate.map_err(|_| wrong())?)
                .map_err(|_| wrong())?;
        }
        if roots.is_empty() {
            return Err(wrong());
        }
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|cause| {
            Error::new(ErrorKind::Unavailable, "tls cannot be set up").with_source(cause)
        })?
        .with_root_certificates(roots)
        .with_no_client_auth();
        let wire = Wire::new();
        wire.tls
            .get_or_init(|| encrypted(HttpsConnectorBuilder::new().with_tls_config(config)));
        Ok(Self(Inner::Wire(Arc::new(wire))))
    }

    /// Wraps any tower service: an in-process simulated cloud, a recorder, another client.
    ///
    /// Its errors count as "perhaps sent", except [`TransportError::never_sent`].
    pub fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Inner::Custom(BoxCloneSyncService::new(Boxing(service))))
    }

    /// Wraps this transport in a layer. The layer sees each attempt of a call, complete with its
    /// (sensitive) headers.
    #[must_use]
    pub fn layered<L, B>(self, layer: &L) -> Self
    where
        L: Layer<Self>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::new(layer.layer(self))
    }

    /// Loads the platform's certificates now instead of at the first call.
    pub(crate) fn prepare_tls(&self) -> Result<()> {
        match &self.0 {
            Inner::Wire(wire) => wire.tls().map(|_| ()),
            Inner::Custom(_) => Ok(()),
        }
    }

    /// Lets the sender of this request observe whether it got a connection; `None` if that cannot
    /// be determined.
    pub(crate) fn watch(&self, request: &mut Request<Body>) -> Option<CaptureConnection> {
        // Only for hyper itself: a layer may send another request than the observed one.
        matches!(self.0, Inner::Wire(_)).then(|| capture_connection(request))
    }

    /// Sends one request. The service must be ready.
    pub(crate) fn send(&self, request: Request<Body>) -> TransportFuture {
        match &self.0 {
            Inner::Wire(wire) => TransportFuture::wire(wire, request),
            Inner::Custom(service) => {
                let mut service = service.clone();
                TransportFuture(InnerFuture::Custom(Box::pin(async move {
                    std::future::poll_fn(|cx| service.poll_ready(cx)).await?;
                    service.call(request).await
                })))
            }
        }
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = TransportFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.0 {
            Inner::Wire(_) => Poll::Ready(Ok(())),
            Inner::Custom(service) => service.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Request<Body>) -> TransportFuture {
        match &mut self.0 {
            Inner::Wire(wire) => TransportFuture::wire(wire, request),
            Inner::Custom(service) => TransportFuture(InnerFuture::Custom(service.call(request))),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Inner::Wire(_) => "Transport(hyper)",
            Inner::Custom(_) => "Transport(custom)",
        })
    }
}

/// The future answer of a [`Transport`].
#[must_use = "futures do nothing unless polled"]
pub struct TransportFuture(InnerFuture);

enum InnerFuture {
    Wire(ResponseFuture),
    Custom(Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>),
}

impl TransportFuture {
    fn wire(wire: &Wire, request: Request<Body>) -> Self {
        Self(match wire.send(request) {
            Ok(answer) => InnerFuture::Wire(answer),
            Err(error) => InnerFuture::Custom(Box::pin(std::future::ready(Err(error)))),
        })
    }
}

impl Future for TransportFuture {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            InnerFuture::Wire(answer) => Pin::new(answer)
                .poll(cx)
                .map(|answer| Ok(answer.map_err(of_hyper)?.map(Body::incoming))),
            InnerFuture::Custom(answer) => answer.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for TransportFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportFuture")
    }
}

/// A transport error that says whether the request may have been received.
#[derive(Debug)]
pub struct TransportError {
    never_sent: bool,
    message: &'static str,
    source: Option<BoxError>,
}

impl TransportError {
    /// The request provably never left: connection refused, name not resolved, no TLS.
    #[must_use]
    pub const fn never_sent(message: &'static str) -> Self {
        Self {
            never_sent: true,
            message,
            source: None,
        }
    }

    /// The connection broke when the request may have been received.
    #[must_use]
    pub const fn broken(message: &'static str) -> Self {
        Self {
            never_sent: false,
            message,
            source: None,
        }
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<BoxError>) -> Self {
        Self {
            source: Some(source.into()),
            ..self
        }
    }

    /// Describes the error, and says whether the request provably never left.
    pub(crate) fn read(error: &BoxError) -> (bool, &'static str) {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
        while let Some(error) = cause {
            if let Some(known) = error.downcast_ref::<Self>() {
                return (known.never_sent, known.message);
            }
            cause = error.source();
        }
        (false, "the connection broke before the answer was complete")
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// Layers for one call only: set them as an extension of an [`atlas_core::CallContext`].
///
/// ```
/// use atlas_core::CallContext;
/// use atlas_http::CallLayers;
/// use tower::layer::util::Identity;
///
/// let cx = CallContext::new().with_extension(CallLayers::new(|transport| transport.layered(&Identity::new())));
/// # let _ = cx;
/// ```
#[derive(Clone)]
pub struct CallLayers(Arc<dyn Fn(Transport) -> Transport + Send + Sync>);

impl CallLayers {
    /// Wraps the transport of the call with this function.
    pub fn new(wrap: impl Fn(Transport) -> Transport + Send + Sync + 'static) -> Self {
        Self(Arc::new(wrap))
    }

    pub(crate) fn wrap(&self, transport: Transport) -> Transport {
        (self.0)(transport)
    }
}

impl fmt::Debug for CallLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallLayers(..)")
    }
}

/// Boxes the error and the body of a service.
#[derive(Clone)]
struct Boxing<S>(S);

impl<S, B> Service<Request<Body>> for Boxing<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move { Ok(answer.await.map_err(Into::into)?.map(Body::wrap)) })
    }
}

/// hyper, with one connection pool for plain connections (loopback) and one for TLS, which is
/// created when first needed.
struct Wire {
    plain: Pooled<HttpConnector, Body>,
    tls: OnceLock<Pooled<HttpsConnector<HttpConnector>, Body>>,
}

impl Wire {
    fn new() -> Self {
        let mut connector = connector();
        connector.enforce_http(true);
        Self {
            plain: pool().build(connector),
            tls: OnceLock::new(),
        }
    }

    fn tls(&self) -> Result<&Pooled<HttpsConnector<HttpConnector>, Body>> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls);
        }
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_platform_verifier(rustls::crypto::ring::default_provider())
            .map_err(|cause| {
                Error::new(
                    ErrorKind::Unavailable,
                    "the platform's trusted certificates cannot be read",
                )
                .with_source(cause)
            })?;
        Ok(self.tls.get_or_init(|| encrypted(https)))
    }

    fn send(&self, request: Request<Body>) -> Result<ResponseFuture, BoxError> {
        if request.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
            let tls = self
                .tls()
                .map_err(|error| TransportError::never_sent("no tls").with_source(error))?;
            return Ok(tls.request(request));
        }
        Ok(self.plain.request(request))
    }
}

/// HTTP/2 if the server agrees to it, else HTTP/1.1.
fn encrypted(
    tls: HttpsConnectorBuilder<WantsSchemes>,
) -> Pooled<HttpsConnector<HttpConnector>, Body> {
    pool().build(
        tls.https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector()),
    )
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEP_ALIVE));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

fn pool() -> hyper_util::client::legacy::Builder {
    let mut builder = Pooled::builder(TokioExecutor::new());
    builder
        // Repeats are decided here, by the call's class; hyper-util would repeat a create.
        .retry_canceled_requests(false)
        // Without a timer the idle timeout has no effect.
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_adaptive_window(true);
    builder
}

/// Determines for a hyper error whether the request may have been received.
fn of_hyper(error: hyper_util::client::legacy::Error) -> BoxError {
    // The error knows its connection once one was chosen for the request; without one, nothing was
    // written. `Canceled` on a chosen connection means that hyper handed the whole message back: it
    // was still queued when the connection closed (hyper 1.12 `client::dispatch::TrySendError`).
    // hyper-util keeps the kind private, so its `Display` is the only access to it; if that text
    // changes, the result is the cautious one.
    let never_sent = error.is_connect()
        || error.connect_info().is_none()
        || error.to_string() == "client error (Canceled)";
    let message = match (error.is_connect(), never_sent) {
        (true, _) => "could not connect",
        (false, true) => "the connection closed before the request was sent",
        (false, false) => "the connection broke after the request was sent",
    };
    TransportError {
        never_sent,
        message,
        source: Some(error.into()),
    }
    .into()
}
