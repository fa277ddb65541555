//! The body of an answer: complete, cut off, or a log stream.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// A body. Its error represents a broken connection.
pub struct SimBody(Inner);

enum Inner {
    Whole(Option<Bytes>),
    /// What is still sent, whether that was flushed, and the length that was promised.
    Cut {
        sent: Option<Bytes>,
        flushed: bool,
        promised: u64,
    },
    Live(Box<Live>),
}

struct Live {
    next: Box<dyn FnMut() -> Option<Bytes> + Send + Sync>,
    every: Duration,
    wait: Option<Pin<Box<Sleep>>>,
}

impl SimBody {
    /// An empty body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Inner::Whole(None))
    }

    /// A body that polls for more at the interval `every`, until `next` returns `None`; an empty
    /// result sends nothing.
    pub(super) fn live(
        every: Duration,
        next: impl FnMut() -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self(Inner::Live(Box::new(Live {
            next: Box::new(next),
            every,
            wait: None,
        })))
    }

    /// The complete body, if it is in one piece.
    pub(super) fn whole(self) -> Option<Bytes> {
        match self.0 {
            Inner::Whole(bytes) => bytes,
            Inner::Cut { .. } | Inner::Live(_) => None,
        }
    }

    /// The first half of the body, followed by a broken connection.
    pub(super) fn cut_short(self) -> Self {
        match self.0 {
            Inner::Whole(Some(bytes)) => {
                let promised = bytes.len() as u64;
                Self(Inner::Cut {
                    sent: Some(bytes.slice(..bytes.len() / 2)),
                    flushed: false,
                    promised,
                })
            }
            Inner::Whole(None) | Inner::Cut { .. } | Inner::Live(_) => Self(Inner::Cut {
                sent: None,
                flushed: false,
                promised: 1,
            }),
        }
    }
}

impl From<&'static str> for SimBody {
    fn from(text: &'static str) -> Self {
        Self(Inner::Whole(Some(Bytes::from_static(text.as_bytes()))))
    }
}

impl From<Vec<u8>> for SimBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Inner::Whole(
            Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty()),
        ))
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Cut { sent, flushed, .. } => match sent.take().filter(|bytes| !bytes.is_empty())
            {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                // A server sends what it has when a body makes it wait; an immediate error would
                // overtake the first half.
                None if !*flushed => {
                    *flushed = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            },
            Inner::Live(live) => loop {
                if let Some(wait) = &mut live.wait {
                    ready!(wait.as_mut().poll(cx));
                    live.wait = None;
                }
                match (live.next)() {
                    None => return Poll::Ready(None),
                    Some(bytes) if bytes.is_empty() => {
                        live.wait = Some(Box::pin(sleep_until(Instant::now() + live.every)))
                    }
                    Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Cut { promised, .. } => SizeHint::with_exact(*promised),
            Inner::Live(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for SimBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimBody(..)")
    }
}
