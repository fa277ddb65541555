//! The common part of all dialects: a tower service that reads a request's body up to a limit, with
//! quirks and a reset.

use std::future::Future;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tower::Service;

use super::SimBody;

/// The future of a dialect's answer.
pub(super) type Answering =
    Pin<Box<dyn Future<Output = Result<Response<SimBody>, io::Error>> + Send>>;

/// Why a request's body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFault {
    TooLarge,
    Broken,
}

/// Reads a request's body, up to a maximum number of bytes.
pub(super) async fn collect<B>(body: B, most: usize) -> Result<Bytes, BodyFault>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, most).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyFault::TooLarge),
        Err(_) => Err(BodyFault::Broken),
    }
}

/// Makes a dialect a service. It has the fields `world: World` and `shared: Arc<Mutex<Shared>>`,
/// where `Shared: Default` has the field `quirks: Quirks`; and the methods
/// `most(&self, &Parts) -> usize`, the largest body, and `async fn answer(self, Parts,
/// Result<Bytes, BodyFault>) -> Result<Response<SimBody>, io::Error>`.
macro_rules! face {
    ($dialect:ident) => {
        impl $dialect {
            /// The same with quirks.
            #[must_use]
            pub fn with_quirks(self, quirks: Quirks) -> Self {
                self.set_quirks(quirks);
                self
            }

            /// Sets the quirks from now on.
            pub fn set_quirks(&self, quirks: Quirks) {
                self.shared().quirks = quirks;
            }

            /// Resets the dialect's own state, and keeps its quirks. The world has its own reset.
            pub fn reset(&self) {
                let mut shared = self.shared();
                *shared = Shared {
                    quirks: shared.quirks.clone(),
                    ..Shared::default()
                };
            }

            /// The world behind this dialect.
            #[must_use]
            pub fn world(&self) -> &$crate::world::World {
                &self.world
            }

            fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
                self.shared
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
            }
        }

        impl<B> tower::Service<http::Request<B>> for $dialect
        where
            B: http_body::Body + Send + 'static,
            B::Data: Send,
            B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        {
            type Response = http::Response<$crate::dialect::SimBody>;
            type Error = std::io::Error;
            type Future = $crate::dialect::face::Answering;

            fn poll_ready(
                &mut self,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), std::io::Error>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<B>) -> Self::Future {
                let this = self.clone();
                Box::pin(async move {
                    let (parts, body) = request.into_parts();
                    let body = $crate::dialect::face::collect(body, this.most(&parts)).await;
                    this.answer(parts, body).await
                })
            }
        }

        impl std::fmt::Debug for $dialect {
            /// Keys are not printed.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($dialect))
                    .field("world", &self.world)
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(super) use face;

/// A service that answers for a cloud. Dialects are such services, and so is everything that stands
/// before them.
pub trait CloudService:
    Service<Request<Full<Bytes>>, Response = Response<SimBody>, Error = io::Error, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> CloudService for S where
    S: Service<Request<Full<Bytes>>, Response = Response<SimBody>, Error = io::Error, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Makes a type that stands before a cloud a service. It reads each request completely and hands it
/// to the method `async fn pass(self, Parts, Bytes) -> io::Result<Response<SimBody>>`. The constant
/// `MOST` beside it is the largest body.
macro_rules! front {
    ($front:ident $(<$cloud:ident>)?) => {
        impl<B $(, $cloud)?> tower::Service<http::Request<B>> for $front $(<$cloud>)?
        where
            $($cloud: $crate::dialect::CloudService,)?
            B: http_body::Body + Send + 'static,
            B::Data: Send,
            B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        {
            type Response = http::Response<$crate::dialect::SimBody>;
            type Error = std::io::Error;
            type Future = $crate::dialect::face::Answering;

            fn poll_ready(
                &mut self,
                _cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<B>) -> Self::Future {
                let front = self.clone();
                Box::pin(async move {
                    let (parts, body) = request.into_parts();
                    let body = $crate::dialect::face::collect(body, MOST)
                        .await
                        .map_err(|_| std::io::ErrorKind::ConnectionAborted)?;
                    front.pass(parts, body).await
                })
            }
        }
    };
}
pub(super) use front;
