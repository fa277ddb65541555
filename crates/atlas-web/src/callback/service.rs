//! The tower service over the core: reads at most the allowed size of a body, and answers with a
//! bare status.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower_service::Service;

use super::core::{Callbacks, Refusal};

/// Receives the reports of machines. Cheap to clone; mount it with the prefix of the callback URL
/// stripped.
#[derive(Clone, Debug)]
pub struct CallbackService(Callbacks);

impl CallbackService {
    pub(super) fn new(callbacks: Callbacks) -> Self {
        Self(callbacks)
    }
}

impl<B> Service<Request<B>> for CallbackService
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<NoBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<NoBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let callbacks = self.0.clone();
        Box::pin(async move { Ok(answer(take(&callbacks, request).await)) })
    }
}

async fn take<B>(callbacks: &Callbacks, request: Request<B>) -> Result<(), Refusal>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    let (head, body) = request.into_parts();
    let admitted = callbacks.admit(&head.method, head.uri.path(), &head.headers)?;
    let reading = read(body, admitted.kind().max_body());
    let body = tokio::time::timeout(callbacks.limits().body_timeout, reading)
        .await
        .map_err(|_| Refusal::TooSlow)??;
    callbacks.deliver(admitted, &body).await
}

/// Reads the whole body; refuses it at the first byte beyond the limit.
async fn read<B: Body + Send + 'static>(body: B, max: usize) -> Result<Vec<u8>, Refusal> {
    let mut body = Box::pin(body);
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|_| Refusal::Malformed)?.into_data() else {
            continue;
        };
        if data.remaining() > max - whole.len() {
            return Err(Refusal::TooLarge);
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            let length = chunk.len();
            whole.extend_from_slice(chunk);
            data.advance(length);
        }
    }
    Ok(whole)
}

fn answer(taken: Result<(), Refusal>) -> Response<NoBody> {
    let mut response = Response::new(NoBody);
    match taken {
        Ok(()) => *response.status_mut() = StatusCode::NO_CONTENT,
        Err(refusal) => {
            *response.status_mut() = refusal.status();
            match refusal {
                Refusal::Unauthorized => {
                    response
                        .headers_mut()
                        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                Refusal::TooMany(wait) => {
                    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                    response
                        .headers_mut()
                        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                _ => {}
            }
        }
    }
    response
}

/// The body of every answer: none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBody;

impl Body for NoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}
