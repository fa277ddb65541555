//! Answers that keep coming.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_core::{CallContext, ErrorKind, RetryClass};
use atlas_http::{Body, BoxError, Call, Client, Transport};
use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use crate::cloud::{Cloud, answer};

/// A chunk every so often; then silence, an error or the end.
struct Ticking {
    left: u32,
    every: Duration,
    end: End,
    timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy)]
enum End {
    Silent,
    Broken,
    Clean,
}

impl http_body::Body for Ticking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return match self.end {
                End::Silent => Poll::Pending,
                End::Broken => Poll::Ready(Some(Err("reset".into()))),
                End::Clean => Poll::Ready(None),
            };
        }
        std::task::ready!(self.timer.as_mut().poll(cx));
        let next = Instant::now() + self.every;
        self.timer.as_mut().reset(next);
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"line\n")))))
    }
}

fn client(end: End) -> Client {
    let cloud = tower::service_fn(move |_: http::Request<Body>| async move {
        let every = Duration::from_secs(50);
        let body = Ticking {
            left: 3,
            every,
            end,
            timer: Box::pin(tokio::time::sleep(every)),
        };
        Ok::<_, BoxError>(http::Response::new(body))
    });
    Cloud::new([])
        .builder()
        .transport(Transport::new(cloud))
        .build()
        .expect("a good builder")
}

fn logs() -> Call {
    Call::get("logs", RetryClass::Safe, ["logs"]).accept("text/event-stream")
}

#[tokio::test(start_paused = true)]
async fn a_stream_outlives_the_deadline_while_it_speaks_and_ends_when_it_is_silent() {
    let begun = Instant::now();
    let mut answer = client(End::Silent)
        .call_streaming(&CallContext::new(), logs())
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(answer.chunk().await.unwrap().unwrap(), "line\n");
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(150));
    assert_eq!(
        answer.chunk().await.unwrap().unwrap_err().kind(),
        ErrorKind::Timeout
    );
    assert_eq!(begun.elapsed(), Duration::from_secs(150 + 60));
    assert!(answer.chunk().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_whether_it_broke_or_ended() {
    for (end, broken) in [(End::Broken, true), (End::Clean, false)] {
        let mut answer = client(end)
            .call_streaming(&CallContext::new(), logs())
            .await
            .unwrap();
        for _ in 0..3 {
            answer.chunk().await.unwrap().unwrap();
        }
        assert_eq!(
            answer.chunk().await.map(|last| last.unwrap_err().kind()),
            broken.then_some(ErrorKind::Transport)
        );
        assert!(answer.chunk().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_an_error_at_once() {
    let cloud = Cloud::new([answer(404, r#"{"detail":"no such pod"}"#)]);
    let error = cloud
        .client()
        .call_streaming(&CallContext::new(), logs())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::NotFound, "no such pod")
    );
}
