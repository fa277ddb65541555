//! A tower layer that passes a request only with a valid credential. It works with axum, hyper and
//! tonic.
//!
//! It looks only at the headers and passes the request on unchanged, so WebSocket upgrades and
//! `Range` work. Its own only answer is a bare 401 that never says what was wrong.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::verifier::Verifier;

/// Wraps a service so that only requests that the verifier accepts reach it, with their
/// [`crate::Principal`] in the extensions.
#[derive(Clone, Debug)]
pub struct VerifyLayer(Arc<Verifier>);

impl VerifyLayer {
    /// A layer with this verifier.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Self(Arc::new(verifier))
    }
}

impl<S> Layer<S> for VerifyLayer {
    type Service = Verify<S>;

    fn layer(&self, inner: S) -> Verify<S> {
        Verify {
            verifier: Arc::clone(&self.0),
            inner,
        }
    }
}

/// The service that [`VerifyLayer`] makes.
#[derive(Clone, Debug)]
pub struct Verify<S> {
    verifier: Arc<Verifier>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Verify<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = VerifyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> VerifyFuture<S::Future> {
        let answer = self.verifier.check(&request).map(|principal| {
            request.extensions_mut().insert(principal);
            self.inner.call(request)
        });
        VerifyFuture { answer }
    }
}

pin_project! {
    /// The answer of the inner service, or 401.
    #[derive(Debug)]
    pub struct VerifyFuture<F> {
        #[pin]
        answer: Option<F>,
    }
}

impl<F, R, E> Future for VerifyFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().answer.as_pin_mut() {
            Some(answer) => Poll::Ready(ready!(answer.poll(cx))),
            None => Poll::Ready(Ok(unauthorized())),
        }
    }
}

/// The answer to every refused request.
#[must_use]
pub fn unauthorized<R: Default>() -> Response<R> {
    let mut response = Response::new(R::default());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(
        WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer realm=\"atlas\""),
    );
    response
}
