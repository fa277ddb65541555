//! One request and its answer on one connection. Both bodies flow at once, and neither is held.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use hyper::http::request;
use hyper::{Method, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::framing::{self, Framing, Piece, invalid};
use super::{Answer, Upstream};
use crate::body::Body;

/// What is read at once, on the stack.
const CHUNK: usize = 32 * 1024;

/// True when a body has nothing in it.
pub(super) fn is_empty(body: &Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

/// A request on its way, before its answer.
pub(super) struct Exchange {
    pool: Arc<Upstream>,
    stream: TcpStream,
    method: Method,
    /// Boxed: most streams have long sent all of it.
    sending: Option<Box<Sending>>,
}

/// What of the request is still to be written.
struct Sending {
    body: Body,
    chunked: bool,
    ended: bool,
    out: VecDeque<Bytes>,
}

impl Exchange {
    pub(super) fn new(
        pool: Arc<Upstream>,
        stream: TcpStream,
        head: &request::Parts,
        body: Body,
    ) -> Self {
        let length = if is_empty(&body) {
            Some(0)
        } else {
            body.size_hint().exact()
        };
        let text = write_head(head, length);
        let sending = Sending {
            body,
            chunked: length.is_none(),
            ended: length == Some(0),
            out: VecDeque::from([text]),
        };
        Self {
            pool,
            stream,
            method: head.method.clone(),
            sending: Some(Box::new(sending)),
        }
    }

    /// Waits for the head of the answer.
    pub(super) async fn answer(mut self, asks_to_switch: bool) -> io::Result<Answer> {
        let mut read = Vec::new();
        let head = poll_fn(|cx| self.poll_head(cx, &mut read)).await?;
        let (mut head, length) = head;
        let rest = Bytes::copy_from_slice(&read[length..]);
        if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            // A server that switches protocols without a request, or to another protocol, does not
            // speak the protocol that the client expects.
            let to_websocket = asks_to_switch
                && head
                    .headers()
                    .get(UPGRADE)
                    .is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
            return match to_websocket {
                true => Ok(Answer::Switched(
                    head,
                    Prefixed {
                        stream: self.stream,
                        rest,
                    },
                )),
                false => Err(invalid()),
            };
        }
        let framing = Framing::of(&self.method, &head)?;
        let closes = head.headers().get_all(CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|text| {
                text.split(',')
                    .any(|token| token.trim().eq_ignore_ascii_case("close"))
            })
        });
        if matches!(framing, Framing::Chunked(_)) || head.headers().contains_key(TRANSFER_ENCODING)
        {
            head.headers_mut().remove(CONTENT_LENGTH);
        }
        // A server that wrongly sends a body after such headers may send it late: the next user of
        // the connection would read it as the answer.
        let bodiless = self.method == Method::HEAD
            || matches!(
                head.status(),
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let keep = !closes && !bodiless && !matches!(framing, Framing::Close);
        let mut reply = Reply {
            exchange: Some(self),
            framing,
            rest,
            keep,
            trailers: None,
        };
        reply.end_if_done();
        Ok(Answer::Response(head.map(|()| reply)))
    }

    /// Sends what can be sent, and reads until there is a final head. `read` holds it, and what
    /// came behind it.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        read: &mut Vec<u8>,
    ) -> Poll<io::Result<(Response<()>, usize)>> {
        // A server may refuse a body before it has arrived, and close: its answer takes precedence
        // over our failure to write.
        let unsent = match self.poll_send(cx) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        loop {
            while let Some((head, length)) = framing::head(read)? {
                if !head.status().is_informational()
                    || head.status() == StatusCode::SWITCHING_PROTOCOLS
                {
                    return Poll::Ready(Ok((head, length)));
                }
                read.drain(..length);
            }
            let before = read.len();
            ready!(self.poll_read(cx, |bytes| read.extend_from_slice(bytes)))?;
            if read.len() == before {
                return Poll::Ready(Err(
                    unsent.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
                ));
            }
        }
    }

    /// Writes the request as far as it goes. Ready when all of it is written. `InvalidInput`: the
    /// client's body broke off.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Ok(()));
        };
        loop {
            while !sending.out.is_empty() {
                let mut slices = [IoSlice::new(&[]), IoSlice::new(&[]), IoSlice::new(&[])];
                for (slice, bytes) in slices.iter_mut().zip(&sending.out) {
                    *slice = IoSlice::new(bytes);
                }
                let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices));
                let mut written = written.inspect_err(|_| sending.ended = true)?;
                while let Some(first) = sending.out.front_mut().filter(|_| written > 0) {
                    let step = written.min(first.len());
                    first.advance(step);
                    written -= step;
                    if first.is_empty() {
                        sending.out.pop_front();
                    }
                }
            }
            if sending.ended {
                self.sending = None;
                return Poll::Ready(Ok(()));
            }
            let frame = match ready!(Pin::new(&mut sending.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Err(io::ErrorKind::InvalidInput.into())),
                None => {
                    sending.ended = true;
                    if sending.chunked {
                        sending.out.push_back(Bytes::from_static(b"0\r\n\r\n"));
                    }
                    continue;
                }
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) if sending.chunked => {
                    let (before, after) = framing::chunk(data.len());
                    sending.out.extend([before, data, after]);
                }
                Ok(data) => sending.out.push_back(data),
                Err(frame) if sending.chunked => {
                    let mut text = b"0\r\n".to_vec();
                    frame
                        .trailers_ref()
                        .iter()
                        .for_each(|trailers| write_fields(&mut text, trailers));
                    text.extend_from_slice(b"\r\n");
                    sending.out.push_back(text.into());
                    sending.ended = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Reads once, by way of the stack: a connection that waits holds no buffer. Nothing taken
    /// means the end.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<()>> {
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
        take(chunk.filled());
        Poll::Ready(Ok(()))
    }
}

/// The header block of a request. Its length comes from the body itself, never from the client's
/// headers.
fn write_head(head: &request::Parts, length: Option<u64>) -> Bytes {
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(head.method.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(target.as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\n");
    write_fields(&mut text, &head.headers);
    match length {
        None => text.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Some(0) if !matches!(head.method, Method::POST | Method::PUT | Method::PATCH) => {}
        Some(length) => text.extend_from_slice(format!("content-length: {length}\r\n").as_bytes()),
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

fn write_fields(text: &mut Vec<u8>, fields: &HeaderMap) {
    for (name, value) in fields
        .iter()
        .filter(|(name, _)| *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING)
    {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
}

/// The body of an answer. Goes on sending the request's while it is read.
pub(crate) struct Reply {
    /// `None` when the answer is complete.
    exchange: Option<Exchange>,
    framing: Framing,
    /// Read and not yet looked at.
    rest: Bytes,
    keep: bool,
    trailers: Option<HeaderMap>,
}

impl Reply {
    /// Gives the connection back when everything asked was sent and answered, and nothing else
    /// came.
    fn end_if_done(&mut self) {
        if !self.framing.is_done() {
            return;
        }
        let clean = self.keep && self.rest.is_empty();
        if let Some(exchange) = self
            .exchange
            .take()
            .filter(|exchange| clean && exchange.sending.is_none())
        {
            exchange.pool.keep(exchange.stream);
        }
    }

    /// The next data in what was read.
    fn cut(&mut self) -> io::Result<Option<Bytes>> {
        let data = match &mut self.framing {
            _ if self.rest.is_empty() => None,
            Framing::Close => Some(std::mem::take(&mut self.rest)),
            Framing::Length(0) => None,
            Framing::Length(left) => {
                let length = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(self.rest.len());
                *left -= length as u64;
                Some(self.rest.split_to(length))
            }
            Framing::Chunked(chunks) => {
                let whole = self.rest.clone();
                let mut bytes = &whole[..];
                let piece = chunks.next(&mut bytes)?;
                self.rest = whole.slice(whole.len() - bytes.len()..);
                match piece {
                    Piece::Data(data) => Some(whole.slice_ref(data)),
                    Piece::End(trailers) => {
                        self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
                        None
                    }
                    Piece::More => None,
                }
            }
        };
        self.end_if_done();
        Ok(data)
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            match this.cut() {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => {}
                Err(error) => {
                    this.exchange = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
            let Some(exchange) = &mut this.exchange else {
                return Poll::Ready(
                    this.trailers
                        .take()
                        .map(|trailers| Ok(Frame::trailers(trailers))),
                );
            };
            if let Poll::Ready(Err(error)) = exchange.poll_send(cx)
                && error.kind() == io::ErrorKind::InvalidInput
            {
                return Poll::Ready(Some(Err(error)));
            }
            let rest = &mut this.rest;
            let read = exchange.poll_read(cx, |bytes| *rest = Bytes::copy_from_slice(bytes));
            let end = match ready!(read) {
                Ok(()) if !this.rest.is_empty() => continue,
                Ok(()) if matches!(this.framing, Framing::Close) => None,
                Ok(()) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => Some(Err(error)),
            };
            this.exchange = None;
            return Poll::Ready(end);
        }
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none() && self.rest.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            _ => SizeHint::default(),
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("framing", &self.framing)
            .finish_non_exhaustive()
    }
}

/// A connection that switched protocols, with what the server already said in the new one.
#[derive(Debug)]
pub(crate) struct Prefixed {
    stream: TcpStream,
    rest: Bytes,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
