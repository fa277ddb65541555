//! The side of the process that holds the store.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{Entropy, Error, ErrorKind};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::place;
use super::wire::{self, Fault, Line, MAX_REQUEST, Read};

/// Clients served at once; one more is told so.
const MAX_CLIENTS: usize = 64;
/// Items on their way to a client that does not read; then the handler waits.
const ITEMS_AHEAD: usize = 16;
/// How long a client may hold its place without asking anything.
const IDLE: Duration = Duration::from_secs(60);
/// After a failed accept (too many open files), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening owner's socket. Dropping it removes the socket and leaves every client.
#[derive(Debug)]
pub struct OwnerSocket {
    path: PathBuf,
    /// Device and inode: a later owner's socket under the same name is not ours to remove.
    identity: Option<(u64, u64)>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Where a handler sends what comes before the answer: one event of `events -f` after another.
#[derive(Clone, Debug)]
pub struct Items(mpsc::Sender<Value>);

impl Items {
    /// Sends one; waits while the client does not keep up.
    ///
    /// # Errors
    /// `unavailable` when the client has gone.
    ///
    /// # Cancel safety
    /// A dropped call has sent the item or not.
    pub async fn send(&self, item: Value) -> Result<(), Error> {
        self.0
            .send(item)
            .await
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the client has gone"))
    }
}

impl OwnerSocket {
    /// Listens for this store, which the caller must hold, and answers each request with what the
    /// handler returns.
    ///
    /// Only processes of the same user, and root, are answered. A handler's future is dropped when
    /// its client goes away, so it must be cancel safe; what must go on is to be spawned by it.
    ///
    /// # Errors
    /// `unavailable` when the socket cannot be bound, or its name is taken by something that is not
    /// a socket.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind<H, F>(store: &Path, entropy: &dyn Entropy, handler: H) -> Result<Self, Error>
    where
        H: Fn(Value, Items) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        let path =
            place::socket_of(store).map_err(|e| place::failed(store, "has no store", Some(e)))?;
        let uid =
            place::own_uid().map_err(|e| place::failed(&path, "could not be bound", Some(e)))?;
        let listener = place::bind(&path, store, entropy)?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, uid, Arc::new(handler), stop.clone()));
        Ok(Self {
            identity: identity(&path).ok(),
            path,
            stop,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops listening, leaves every client, and waits until their handlers are dropped: then the
    /// store can be closed.
    ///
    /// # Cancel safety
    /// A dropped call stops all the same, without waiting.
    pub async fn close(mut self) {
        self.stop.cancel();
        if let Err(e) = (&mut self.task).await {
            tracing::error!(error = %e, "the owner's socket ended badly");
        }
    }
}

impl Drop for OwnerSocket {
    fn drop(&mut self) {
        self.stop.cancel();
        let ours = self.identity.is_some() && identity(&self.path).ok() == self.identity;
        if ours && let Err(e) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %e, "the owner's socket could not be removed");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

async fn serve<H, F>(listener: UnixListener, uid: u32, handler: Arc<H>, stop: CancellationToken)
where
    H: Fn(Value, Items) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = clients.join_next(), if !clients.is_empty() => {
                if let Err(e) = ended {
                    tracing::error!(error = %e, "a handler of the owner's socket panicked");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if !may_ask(&stream, uid) => drop(stream),
                Ok((stream, _)) if clients.len() >= MAX_CLIENTS => {
                    clients.spawn(refuse(stream));
                }
                Ok((stream, _)) => {
                    let handler = handler.clone();
                    clients.spawn(async move {
                        if let Err(e) = client(stream, &*handler).await {
                            tracing::debug!(error = %e, "a client of the owner's socket went away");
                        }
                    });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "the owner's socket could not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    clients.shutdown().await;
}

fn may_ask(stream: &UnixStream, uid: u32) -> bool {
    let peer = stream.peer_cred().map(|c| c.uid());
    let may = matches!(peer, Ok(peer) if peer == uid || peer == 0);
    if !may {
        tracing::warn!(peer = ?peer.ok(), "another user knocked at the owner's socket");
    }
    may
}

async fn refuse(mut stream: UnixStream) {
    let error = Error::new(
        ErrorKind::Unavailable,
        "the owner of the store is answering too many already",
    );
    // Whether the client hears it is not our concern any more.
    let _ = tokio::time::timeout(
        Duration::from_secs(1),
        wire::write(&mut stream, &Line::Error(Fault::from(&error))),
    )
    .await;
}

async fn client<H, F>(stream: UnixStream, handler: &H) -> io::Result<()>
where
    H: Fn(Value, Items) -> F,
    F: Future<Output = Result<Value, Error>>,
{
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let Ok(request) =
            tokio::time::timeout(IDLE, wire::read::<Value>(&mut read, MAX_REQUEST)).await
        else {
            return Ok(());
        };
        let wrong = match request? {
            Read::End => return Ok(()),
            Read::Line(request) => {
                answer(request, handler, &mut read, &mut write).await?;
                continue;
            }
            Read::TooLong => {
                Error::validation("request", format!("is longer than {MAX_REQUEST} bytes"))
            }
            Read::NotJson => Error::validation("request", "is not JSON"),
        };
        // What follows on this connection cannot be told from the rest of the bad request.
        return wire::write(&mut write, &Line::Error(Fault::from(&wrong))).await;
    }
}

async fn answer<H, F>(
    request: Value,
    handler: &H,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> io::Result<()>
where
    H: Fn(Value, Items) -> F,
    F: Future<Output = Result<Value, Error>>,
{
    let (sender, items) = mpsc::channel(ITEMS_AHEAD);
    let answered = CancellationToken::new();
    let done = {
        let mut work = std::pin::pin!(handler(request, Items(sender)));
        let mut pump = std::pin::pin!(pump(items, write, &answered));
        let (mut done, mut pumped) = (None, false);
        while done.is_none() || !pumped {
            tokio::select! {
                biased;
                written = &mut pump, if !pumped => {
                    written?;
                    pumped = true;
                }
                answer = &mut work, if done.is_none() => {
                    done = Some(answer);
                    answered.cancel();
                }
                // Nothing is read while we answer: bytes wait for their turn, and only the end is
                // looked for.
                gone = end_of(read) => return gone,
            }
        }
        done.expect("the loop ends only with an answer")
    };
    let line = match done {
        Ok(value) => Line::Done(value),
        Err(error) => Line::Error(Fault::from(&error)),
    };
    wire::write(write, &line).await
}

/// Writes items while the handler works, and after its answer those that are on their way.
///
/// Beside the handler, not in turn with it: a client that does not read must not stop the handler's
/// own clockwork.
async fn pump(
    mut items: mpsc::Receiver<Value>,
    write: &mut OwnedWriteHalf,
    answered: &CancellationToken,
) -> io::Result<()> {
    loop {
        let item = tokio::select! {
            biased;
            () = answered.cancelled(), if !items.is_closed() => {
                items.close();
                continue;
            }
            item = items.recv() => item,
        };
        match item {
            Some(item) => wire::write(write, &Line::Item(item)).await?,
            None => return Ok(()),
        }
    }
}

/// Returns when the client has closed its side; never when it sends its next request early.
async fn end_of(read: &mut BufReader<OwnedReadHalf>) -> io::Result<()> {
    if read.fill_buf().await?.is_empty() {
        return Ok(());
    }
    std::future::pending().await
}
