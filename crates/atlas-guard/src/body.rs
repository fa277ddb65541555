//! The bodies that pass through: frame by frame, counted, never collected in memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::activity::Open;
use crate::forward;
use crate::streams::Ended;

/// The direction of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// The body of the server's answer, read from its connection.
type FromServer = Pin<Box<dyn http_body::Body<Data = Bytes, Error = io::Error> + Send + Sync>>;

/// A body of the guard itself, or one that passes through.
pub(crate) enum Body {
    Own(Option<Bytes>),
    Through {
        incoming: Incoming,
        open: Arc<Open>,
        way: Way,
        ended: Option<Ended>,
    },
    Reply {
        reply: FromServer,
        open: Arc<Open>,
        ended: Option<Ended>,
    },
}

impl Body {
    pub(crate) fn to_server(incoming: Incoming, open: Arc<Open>) -> Self {
        Self::Through {
            incoming,
            open,
            way: Way::ToServer,
            // The answer's end is also its end.
            ended: None,
        }
    }

    pub(crate) fn to_client(incoming: Incoming, open: Arc<Open>) -> Self {
        let ended = open.ended();
        Self::Through {
            incoming,
            open,
            way: Way::ToClient,
            ended,
        }
    }

    pub(crate) fn reply(
        reply: impl http_body::Body<Data = Bytes, Error = io::Error> + Send + Sync + 'static,
        open: Arc<Open>,
    ) -> Self {
        let ended = open.ended();
        Self::Reply {
            reply: Box::pin(reply),
            open,
            ended,
        }
    }

    /// Whether the credential that opened it has ended.
    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Through {
                ended: Some(ended), ..
            }
            | Self::Reply {
                ended: Some(ended), ..
            } => ended.as_mut().poll(cx).is_ready(),
            _ => false,
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "Own(..)",
            Self::Through { .. } => "Through(..)",
            Self::Reply { .. } => "Reply(..)",
        })
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Own(None)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Own(Some(text.into()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.has_ended(cx) {
            // The client sees a broken answer, not a complete one.
            let error = io::Error::new(io::ErrorKind::ConnectionAborted, "the credential ended");
            return Poll::Ready(Some(Err(error)));
        }
        match this {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Through {
                incoming,
                open,
                way,
                ..
            } => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    match way {
                        Way::ToServer => open.received(data.len()),
                        Way::ToClient => open.sent(data.len()),
                    }
                }
                Poll::Ready(frame.map(|frame| match (frame, way) {
                    (Ok(mut frame), Way::ToServer) => {
                        frame
                            .trailers_mut()
                            .into_iter()
                            .for_each(forward::clean_trailers);
                        Ok(frame)
                    }
                    (frame, _) => frame.map_err(io::Error::other),
                }))
            }
            Self::Reply { reply, open, .. } => {
                let frame = ready!(reply.as_mut().poll_frame(cx));
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    open.sent(data.len());
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Through { incoming, .. } => incoming.is_end_stream(),
            Self::Reply { reply, .. } => reply.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Through { incoming, .. } => incoming.size_hint(),
            Self::Reply { reply, .. } => reply.size_hint(),
        }
    }
}
