//! The server side: the process that holds the store.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{Entropy, Error, ErrorKind, Next, Outcome};
use data_encoding::HEXLOWER;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::place;
use crate::request::{Answers, Request};
use crate::wire::{self, Ask, Fault, Hello, Line, MAX_REQUEST, PROTOCOL, Read};

/// Maximum number of clients at once; further clients get an error.
const MAX_CLIENTS: usize = 64;
/// Maximum number of queued items for a client that does not read; the handler then waits.
const ITEMS_AHEAD: usize = 16;
/// When a refused client should ask again.
const BUSY: Duration = Duration::from_millis(200);
/// How long a client may stay connected without sending a request.
const IDLE: Duration = Duration::from_secs(60);
/// The pause after a failed accept (too many open files) before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the server checks that the socket still exists: a cleaner of temporary files, or a
/// user, may remove it.
const LOOK: Duration = Duration::from_secs(1);
/// How long a closing owner waits for requests that asked to be finished.
const DRAIN: Duration = Duration::from_secs(30);

/// A listening owner's socket. Dropping it removes the socket and disconnects every client.
#[derive(Debug)]
pub struct OwnerSocket {
    path: PathBuf,
    identity: Bound,
    /// Once cancelled, no new request is started.
    draining: CancellationToken,
    /// Requests that are finished before the socket closes.
    unfinished: TaskTracker,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Device and inode of the socket that was bound last. A later owner's socket with the same name
/// must not be removed.
type Bound = Arc<Mutex<Option<(u64, u64)>>>;

/// Sends the lines that precede an answer, such as the events of `events -f`.
#[derive(Clone, Debug)]
pub(crate) struct RawItems {
    sender: mpsc::Sender<Value>,
    unfinished: TaskTracker,
    /// Held until the answer is written.
    token: Arc<Mutex<Option<TaskTrackerToken>>>,
}

impl RawItems {
    /// Sends one item; waits while the client does not keep up.
    pub(crate) async fn send(&self, item: Value) -> Result<(), Error> {
        self.sender
            .send(item)
            .await
            .map_err(|_| Error::new(ErrorKind::Unavailable, "the client has gone"))
    }

    /// Makes the owner finish this request before it closes its socket, within half a minute. For
    /// requests that should not be interrupted; a client that follows events is disconnected at
    /// once.
    pub(crate) fn finish_before_close(&self) {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        token.get_or_insert_with(|| self.unfinished.token());
    }
}

impl OwnerSocket {
    /// Listens for this store, which the caller must hold, and lets `owner` answer the requests.
    /// Only processes of the same user and root are answered.
    ///
    /// # Errors
    /// `unavailable` when the socket cannot be bound, or another kind of file has its name.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(store: &Path, entropy: &dyn Entropy, owner: impl Answers) -> Result<Self, Error> {
        Self::bind_to(store, entropy, move |request: Request, items: RawItems| {
            let owner = owner.clone();
            async move {
                if request.is_short() {
                    items.finish_before_close();
                }
                request.answered_by(&owner, items).await
            }
        })
    }

    /// The same, with a handler of any kind of request.
    pub(crate) fn bind_to<Q, H, F>(
        store: &Path,
        entropy: &dyn Entropy,
        handler: H,
    ) -> Result<Self, Error>
    where
        Q: DeserializeOwned + Send + 'static,
        H: Fn(Q, RawItems) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        let path =
            place::socket_of(store).map_err(|e| place::failed(store, "has no store", Some(e)))?;
        let uid =
            place::own_uid().map_err(|e| place::failed(&path, "could not be bound", Some(e)))?;
        let mut random = [0; 8];
        entropy.fill(&mut random);
        let draft = HEXLOWER.encode(&random);
        let listener = place::bind(&path, store, &draft)?;
        let (stop, draining) = (CancellationToken::new(), CancellationToken::new());
        let unfinished = TaskTracker::new();
        let bound: Bound = Arc::new(Mutex::new(identity(&path).ok()));
        let server = Server {
            path: path.clone(),
            store: store.to_owned(),
            draft,
            uid,
            bound: bound.clone(),
            draining: draining.clone(),
            unfinished: unfinished.clone(),
            stop: stop.clone(),
        };
        let task = tokio::spawn(server.serve(listener, Arc::new(handler)));
        Ok(Self {
            identity: bound,
            path,
            draining,
            unfinished,
            stop,
            task,
        })
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops listening, finishes the requests that finish soon by themselves,
    /// disconnects every client, and waits until their handlers are dropped. The store can be
    /// closed then.
    ///
    /// # Cancel safety
    /// A dropped call stops the server nevertheless, without waiting.
    pub async fn close(mut self) {
        self.remove();
        self.draining.cancel();
        self.unfinished.close();
        if tokio::time::timeout(DRAIN, self.unfinished.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                requests = self.unfinished.len(),
                "the owner's socket closes before these requests were finished"
            );
        }
        self.stop.cancel();
        if let Err(e) = (&mut self.task).await {
            tracing::error!(error = %e, "the owner's socket ended badly");
        }
    }
}

impl OwnerSocket {
    /// Removes the socket from its directory if it is still ours.
    fn remove(&self) {
        let bound = self
            .identity
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let ours = bound.is_some() && identity(&self.path).ok() == bound;
        if ours && let Err(e) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %e,
                "the owner's socket could not be removed");
        }
    }
}

impl Drop for OwnerSocket {
    fn drop(&mut self) {
        self.stop.cancel();
        self.remove();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

/// The state of the listening task.
struct Server {
    path: PathBuf,
    store: PathBuf,
    draft: String,
    uid: u32,
    bound: Bound,
    draining: CancellationToken,
    unfinished: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// Binds the socket again if it was removed.
    fn bind_again(&self, listener: &mut UnixListener) {
        let found = fs::symlink_metadata(&self.path);
        let gone = found.is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        // Locked while the socket is made, so that closing does not remove it in between.
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if !gone || bound.is_none() {
            return;
        }
        match place::bind(&self.path, &self.store, &self.draft) {
            Ok(again) => {
                *listener = again;
                *bound = identity(&self.path).ok();
                tracing::warn!(
                    path = %self.path.display(),
                    "the owner's socket had been removed, and was made again"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "the owner's socket was removed and cannot be made again");
            }
        }
    }

    async fn serve<Q, H, F>(self, mut listener: UnixListener, handler: Arc<H>)
    where
        Q: DeserializeOwned + Send + 'static,
        H: Fn(Q, RawItems) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, Error>> + Send + 'static,
    {
        let mut clients = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                _ = look.tick() => self.bind_again(&mut listener),
                Some(ended) = clients.join_next(), if !clients.is_empty() => {
                    if let Err(e) = ended {
                        tracing::error!(error = %e, "a handler of the owner's socket panicked");
                    }
                }
                accepted = listener.accept(), if !self.draining.is_cancelled() => match accepted {
                    Ok((stream, _)) if !may_ask(&stream, self.uid) => drop(stream),
                    Ok((stream, _)) if clients.len() >= MAX_CLIENTS => {
                        clients.spawn(refuse(stream));
                    }
                    Ok((stream, _)) => {
                        let handler = handler.clone();
                        let (draining, unfinished) = (self.draining.clone(),
                            self.unfinished.clone());
                        clients.spawn(async move {
                            if let Err(e) = client(stream, &*handler, &draining,
                                &unfinished).await {
                                tracing::debug!(error = %e,
                                    "a client of the owner's socket went away");
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
}

fn may_ask(stream: &UnixStream, uid: u32) -> bool {
    let peer = stream.peer_cred().map(|c| c.uid());
    let may = matches!(peer, Ok(peer) if peer == uid || peer == 0);
    if !may {
        tracing::warn!(peer = ?peer.ok(), "another user tried to connect to the owner's socket");
    }
    may
}

async fn refuse(mut stream: UnixStream) {
    let error = Error::new(
        ErrorKind::Unavailable,
        "the owner of the store is answering too many already",
    )
    .outcome_is(Outcome::NotApplied(Next::SameLater))
    .with_retry_after(BUSY);
    // Whether the client receives the refusal does not matter.
    let _ = tokio::time::timeout(
        Duration::from_secs(1),
        wire::write(&mut stream, &Line::Error(Fault::from(&error))),
    )
    .await;
}

async fn client<Q, H, F>(
    stream: UnixStream,
    handler: &H,
    draining: &CancellationToken,
    unfinished: &TaskTracker,
) -> io::Result<()>
where
    Q: DeserializeOwned,
    H: Fn(Q, RawItems) -> F,
    F: Future<Output = Result<Value, Error>>,
{
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut greeted = false;
    loop {
        let request = tokio::select! {
            biased;
            () = draining.cancelled() => return Ok(()),
            request = tokio::time::timeout(IDLE, wire::read(&mut read, MAX_REQUEST)) => request,
        };
        let Ok(request): Result<io::Result<Read<Value>>, _> = request else {
            return Ok(());
        };
        let wrong = match request? {
            Read::End => return Ok(()),
            Read::Line(line) => {
                let request = match serde_json::from_value(line) {
                    Ok(Ask::Hello(theirs)) => {
                        greeted = theirs == Hello::OURS;
                        wire::write(&mut write, &Line::Hello(Hello::OURS)).await?;
                        continue;
                    }
                    Ok(Ask::Request(request)) if greeted => request,
                    unknown => {
                        let refusal = refusal(greeted, unknown.err());
                        wire::write(&mut write, &Line::Error(Fault::from(&refusal))).await?;
                        continue;
                    }
                };
                let token = Arc::default();
                let items = |sender| RawItems {
                    sender,
                    unfinished: unfinished.clone(),
                    token: Arc::clone(&token),
                };
                answer(
                    |sender| handler(request, items(sender)),
                    &mut read,
                    &mut write,
                )
                .await?;
                drop(token);
                continue;
            }
            Read::TooLong => {
                Error::validation("request", format!("is longer than {MAX_REQUEST} bytes"))
            }
            Read::NotJson => Error::validation("request", "is not JSON"),
        };
        // After a malformed request, the start of the next one on this connection cannot be found.
        return wire::write(&mut write, &Line::Error(Fault::from(&wrong))).await;
    }
}

/// The error for a line that is JSON and cannot be answered.
fn refusal(greeted: bool, cause: Option<serde_json::Error>) -> Error {
    let why = if greeted {
        "is not known to the process that holds the store".to_owned()
    } else {
        format!(
            "comes from a command that does not speak version {PROTOCOL} of the protocol of the \
             process that holds the store: use the same release of atlas for both"
        )
    };
    let error = Error::validation("request", why);
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

async fn answer<H, F>(
    handler: H,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> io::Result<()>
where
    H: FnOnce(mpsc::Sender<Value>) -> F,
    F: Future<Output = Result<Value, Error>>,
{
    let (sender, items) = mpsc::channel(ITEMS_AHEAD);
    let answered = CancellationToken::new();
    let done = {
        let mut work = std::pin::pin!(handler(sender));
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
                // While a request is answered, nothing is read: bytes wait in the socket, and only
                // the end of the connection is watched for.
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

/// Writes items while the handler works, and the remaining ones after its answer.
///
/// It runs concurrently with the handler, because a client that does not read must not stop the
/// handler's own timers.
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

/// Returns when the client has closed its side; not when it sends its next request early.
async fn end_of(read: &mut BufReader<OwnedReadHalf>) -> io::Result<()> {
    if read.fill_buf().await?.is_empty() {
        return Ok(());
    }
    std::future::pending().await
}
