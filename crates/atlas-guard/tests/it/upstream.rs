//! The server behind the guard: echoes, generates, counts, holds streams open, upgrades.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_RANGE, RANGE, UPGRADE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// A body of so many zeros, or an event, a wait and another event.
pub(crate) enum Answer {
    Text(Option<Bytes>),
    Zeros(u64),
    Events {
        sent: u8,
        next: Pin<Box<dyn Future<Output = ()> + Send>>,
    },
}

const ZEROS: Bytes = Bytes::from_static(&[0; 64 * 1024]);

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Text(text) => text.take(),
            Self::Zeros(0) => None,
            Self::Zeros(left) => {
                let bytes = ZEROS
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= bytes as u64;
                Some(ZEROS.slice(..bytes))
            }
            Self::Events { sent: sent @ 0, .. } => {
                *sent = 1;
                Some(Bytes::from_static(b"data: 1\n\n"))
            }
            Self::Events {
                sent: sent @ 1,
                next,
            } => {
                std::task::ready!(next.as_mut().poll(cx));
                *sent = 2;
                Some(Bytes::from_static(b"data: 2\n\n"))
            }
            Self::Events { .. } => None,
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Zeros(left) => SizeHint::with_exact(*left),
            Self::Events { .. } => SizeHint::default(),
        }
    }
}

/// Starts it. The second event of a stream comes when `more` is notified.
pub(crate) async fn start(more: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let more = Arc::clone(&more);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, Arc::clone(&more)));
                let http = auto::Builder::new(TokioExecutor::new());
                let _ended = http
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn answer(
    mut request: Request<Incoming>,
    more: Arc<Notify>,
) -> Result<Response<Answer>, Infallible> {
    let path = request.uri().path().to_owned();
    let text = |text: String| Response::new(Answer::Text(Some(text.into())));
    Ok(match path.as_str() {
        "/zeros" => Response::new(Answer::Zeros(
            request.uri().query().unwrap().parse().unwrap(),
        )),
        "/sink" => {
            let mut bytes = 0;
            while let Some(Ok(frame)) = request.body_mut().frame().await {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
            text(bytes.to_string())
        }
        "/events" => {
            let next = Box::pin(async move { more.notified().await });
            Response::new(Answer::Events { sent: 0, next })
        }
        "/range" => {
            let asked = request.headers()[RANGE].to_str().unwrap().to_owned();
            Response::builder()
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, asked)
                .body(Answer::Text(None))
                .unwrap()
        }
        "/ws" if request.headers().contains_key(UPGRADE) => {
            let protocol = request.headers()[UPGRADE].clone();
            tokio::spawn(async move {
                let upgraded = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let (mut reader, mut writer) = tokio::io::split(upgraded);
                let _ended = tokio::io::copy(&mut reader, &mut writer).await;
                // Says so after the client has ended its half: what half-closed tunnels must still
                // carry.
                let _ended = tokio::io::AsyncWriteExt::write_all(&mut writer, b"|bye").await;
                let _ended = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
            });
            let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
            answer
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, protocol)
                .body(Answer::Text(None))
                .unwrap()
        }
        // What the server saw.
        _ => text(format!(
            "{} {} {:?}",
            request.method(),
            request.uri(),
            request.headers()
        )),
    })
}
