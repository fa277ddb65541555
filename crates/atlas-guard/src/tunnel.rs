//! What an upgraded connection carries, both ways, until both ends are done. Idle tunnels hold no
//! buffer.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use crate::activity::Open;

const CHUNK: usize = 16 * 1024;

/// Carries bytes between client and server until both directions have ended. An end of one is
/// passed on as the end of that one only; the other may go on, but not silently for longer than
/// `half_closed`. Not cancel safe: bytes read and not yet written are lost.
pub(crate) async fn carry<C, S>(
    client: C,
    server: S,
    open: &Open,
    half_closed: Duration,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client, mut server) = (client, server);
    let (mut up, mut down) = (Pump::default(), Pump::default());
    let mut silence = pin!(sleep(half_closed));
    let mut moved_before = None;
    poll_fn(|cx| {
        let up_ends = up.poll(cx, &mut client, &mut server, |bytes| open.received(bytes))?;
        let down_ends = down.poll(cx, &mut server, &mut client, |bytes| open.sent(bytes))?;
        match (up_ends, down_ends) {
            (Poll::Ready(()), Poll::Ready(())) => return Poll::Ready(Ok(())),
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
            _ => {}
        }
        let moved = Some(up.moved + down.moved);
        if moved_before != moved {
            moved_before = moved;
            silence.as_mut().reset(Instant::now() + half_closed);
        }
        silence.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// One direction. What could not be written at once is kept; nothing more is read before it is
/// gone.
#[derive(Default)]
struct Pump {
    rest: Vec<u8>,
    written: usize,
    /// Bytes so far.
    moved: u64,
    ended: bool,
    done: bool,
    unflushed: bool,
}

impl Pump {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: impl Fn(usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.done {
            while self.written < self.rest.len() {
                let bytes =
                    ready!(Pin::new(&mut *writer).poll_write(cx, &self.rest[self.written..]))?;
                if bytes == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += bytes;
                self.moved += bytes as u64;
                count(bytes);
            }
            if !self.rest.is_empty() {
                (self.rest, self.written) = (Vec::new(), 0);
            }
            if self.ended {
                ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                self.done = true;
                break;
            }
            let mut chunk = [MaybeUninit::uninit(); CHUNK];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut *reader).poll_read(cx, &mut chunk)? {
                Poll::Ready(()) if chunk.filled().is_empty() => self.ended = true,
                Poll::Ready(()) => {
                    self.unflushed = true;
                    let bytes = match Pin::new(&mut *writer).poll_write(cx, chunk.filled())? {
                        Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Poll::Ready(bytes) => bytes,
                        Poll::Pending => 0,
                    };
                    self.moved += bytes as u64;
                    count(bytes);
                    self.rest.extend_from_slice(&chunk.filled()[bytes..]);
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use atlas_core::SystemClock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::activity::{Activity, Open};
    use crate::streams::{Holder, Streams};

    fn begin(activity: &Arc<Activity>) -> Arc<Open> {
        let (streams, connection) = (Streams::new(Arc::new(SystemClock), 1, 1), Arc::default());
        let stream = streams.open(Holder::Bearer, None, &connection).unwrap();
        activity.begin(&connection, stream)
    }

    #[tokio::test]
    async fn an_end_of_one_direction_leaves_the_other_open_and_every_byte_is_counted() {
        let activity = Activity::new(Arc::new(SystemClock));
        let open = begin(&activity);
        let (mut browser, client) = duplex(7);
        let (server, mut app) = duplex(5);
        let tunnel =
            tokio::spawn(
                async move { carry(client, server, &open, Duration::from_secs(60)).await },
            );
        let sending = tokio::spawn(async move {
            browser.write_all(&[1; 100_000]).await.unwrap();
            browser.shutdown().await.unwrap();
            let mut answer = Vec::new();
            browser.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut asked = Vec::new();
        app.read_to_end(&mut asked).await.unwrap();
        assert_eq!(asked, [1; 100_000]);
        app.write_all(&[2; 50_000]).await.unwrap();
        drop(app);
        assert_eq!(sending.await.unwrap(), [2; 50_000]);
        tunnel.await.unwrap().unwrap();
        let report = activity.report();
        assert_eq!(
            (report.bytes_in, report.bytes_out, report.open),
            (100_000, 50_000, 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_tunnel_ends_when_nothing_moves_and_not_while_something_does() {
        let activity = Activity::new(Arc::new(SystemClock));
        let open = begin(&activity);
        let ((mut browser, client), (server, mut app)) = (duplex(64), duplex(64));
        let second = Duration::from_secs(1);
        let tunnel = tokio::spawn(async move { carry(client, server, &open, 10 * second).await });
        sleep(1000 * second).await;
        assert!(!tunnel.is_finished(), "neither end is closed");
        browser.shutdown().await.unwrap();
        for _ in 0..5 {
            sleep(9 * second).await;
            app.write_all(b"tick").await.unwrap();
        }
        let mut heard = [0; 20];
        browser.read_exact(&mut heard).await.unwrap();
        assert!(!tunnel.is_finished(), "the other goes on");
        let before = Instant::now();
        tunnel.await.unwrap().unwrap();
        assert_eq!(before.elapsed().as_secs(), 10);
    }
}
