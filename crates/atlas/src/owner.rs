//! The requests that the owner of a store answers over its socket, and the answers.
//!
//! The command line uses these requests both for its own store and for another process's, so that
//! both behave the same. Requests and answers are JSON; a session is encoded as in `atlas show
//! --json`.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{
    AccountName, CallContext, Compute, ComputeRequest, Credential, Error, ErrorKind, ListFilter,
    Result, Secret,
};
use atlas_orchestrator::{
    Cursor, Delivery, Scope, SessionFilter, SessionId, SessionInfo, SessionKind, SessionOptions,
};
use atlas_owner::{Items, OwnerSocket};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::facade::{Atlas, WeakAtlas};

const AHEAD: usize = 16;

/// A request to the owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Starts a session with a machine. Answered when it is known whether there is a machine;
    /// progress is sent as items.
    Spawn {
        /// The encoding of `ComputeRequest::expose`. It may contain secrets; only the user can open
        /// the socket.
        request: Sealed,
        /// The session's options and limits.
        options: SessionOptions,
        /// Whether the session runs one command to its end.
        task: bool,
    },
    /// Like [`Request::Spawn`], with an id chosen by the client. The client may repeat the request,
    /// also to another owner, and there is never more than one session.
    SpawnAs {
        /// The id.
        session: SessionId,
        /// As in [`Request::Spawn`].
        request: Sealed,
        /// The session's options and limits.
        options: SessionOptions,
        /// Whether the session runs one command to its end.
        task: bool,
    },
    /// Returns information about a session.
    Info {
        /// The session's id.
        session: SessionId,
        /// Whether the answer includes its credential.
        #[serde(default)]
        secrets: bool,
    },
    /// Lists recorded sessions.
    List(Filter),
    /// Records activity: resets the idle timer of a session.
    Touch {
        /// The session's id.
        session: SessionId,
    },
    /// Ends a session; answered when the end is recorded.
    Stop {
        /// The session's id.
        session: SessionId,
    },
    /// Waits for a state with a time limit, then returns information about the session.
    Await {
        /// The session's id.
        session: SessionId,
        /// The state to wait for.
        until: Until,
        /// The maximum wait in milliseconds.
        longest_ms: u64,
    },
    /// Streams events, one per item. The `cursor` of each item is the position to resume from.
    Events {
        /// The session whose events are wanted; those of all sessions if unset.
        session: Option<SessionId>,
        /// Only events after this cursor.
        #[serde(default)]
        since: u64,
        /// Continues with new events until the client disconnects.
        #[serde(default)]
        follow: bool,
    },
    /// Scans accounts for machines without a session at once.
    Reap {
        /// The account to scan; all if unset.
        account: Option<AccountName>,
        /// Only reports what would be deleted.
        dry_run: bool,
        /// Acknowledges the reaper's breaker, so that a reaper that found too many victims
        /// continues.
        #[serde(default)]
        acknowledge: bool,
    },
    /// Scans every account and reports current spend by purpose; deletes nothing.
    Audit,
    /// Reports what the orchestrator can do at the moment and what prevents the rest.
    Health,
    /// Accepts this store as the authoritative copy.
    Accept,
    /// Accepts the currently configured API key as a key of the recorded account.
    AcceptAccount {
        /// The account whose current key is accepted.
        account: AccountName,
    },
}

/// A state to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Until {
    /// The session's machine is usable.
    Ready,
    /// The command of the session's task has ended.
    Outcome,
    /// Every machine the session had is proved absent.
    Terminated,
}

/// Selects the sessions to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Filter {
    /// Only sessions of this user.
    pub user: Option<String>,
    /// Only sessions with all these labels.
    pub labels: BTreeMap<String, String>,
    /// Only sessions on this account.
    pub account: Option<AccountName>,
    /// Includes sessions that have ended.
    pub ended: bool,
}

/// The complete JSON of a request, secrets included. Its `Debug` output shows nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(Value);

impl Sealed {
    /// Encodes a request.
    #[must_use]
    pub fn new(request: &ComputeRequest) -> Self {
        Self(request.expose())
    }

    fn open(self) -> Result<ComputeRequest> {
        serde_json::from_value(self.0)
            .map_err(|_| Error::validation("request", "is not a compute request"))
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(..)")
    }
}

/// Listens on the socket beside the store and answers requests for this atlas.
pub(crate) fn listen(
    atlas: WeakAtlas,
    store: &std::path::Path,
    entropy: &dyn atlas_core::Entropy,
) -> Result<OwnerSocket> {
    OwnerSocket::bind(store, entropy, move |request, items| {
        heard(atlas.clone(), request, items)
    })
}

async fn heard(atlas: WeakAtlas, request: Value, items: Items) -> Result<Value> {
    let request: Request = serde_json::from_value(request)
        .map_err(|_| Error::validation("request", "is not known to this atlas"))?;
    let atlas = atlas.upgrade()?;
    if request.is_short() {
        items.finish_before_close();
    }
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let forward = async {
        while let Some(item) = receiver.recv().await {
            items.send(item).await?;
        }
        Ok::<_, Error>(())
    };
    // The sender is dropped with the answer, so everything sent before the answer is forwarded.
    let (forwarded, answer) = {
        let (mut forward, mut answer) = (
            std::pin::pin!(forward),
            std::pin::pin!(answer(&atlas, request, sender)),
        );
        tokio::select! {
            biased;
            gone = &mut forward => {
                // A client that has disconnected gets no answer.
                gone?;
                (Ok(()), answer.await)
            }
            answer = &mut answer => (forward.await, answer),
        }
    };
    forwarded.and(answer)
}

impl Request {
    /// Whether an owner that shuts down answers the request first, because it finishes soon by
    /// itself. Requests that wait or follow must be repeated to the next owner.
    fn is_short(&self) -> bool {
        !matches!(self, Self::Await { .. } | Self::Events { follow: true, .. })
    }
}

/// Answers one request; items that precede the answer are sent to `items`.
///
/// # Errors
/// Those of the facade's operation for this request.
///
/// # Cancel safety
/// A request that changes something runs in its own task, which continues if this future is
/// dropped. All others only read.
pub async fn answer(atlas: &Atlas, request: Request, items: mpsc::Sender<Value>) -> Result<Value> {
    match request {
        Request::Spawn {
            request,
            options,
            task,
        } => spawn(atlas, None, request.open()?, options, task, &items).await,
        Request::SpawnAs {
            session,
            request,
            options,
            task,
        } => spawn(atlas, Some(session), request.open()?, options, task, &items).await,
        Request::Info { session, secrets } => Ok(describe(
            &atlas.orchestrator().info(session).await?,
            secrets,
        )),
        Request::List(filter) => {
            let mut wanted = if filter.ended {
                SessionFilter::all()
            } else {
                SessionFilter::live()
            };
            wanted.user_id = filter.user;
            wanted.labels = filter.labels;
            wanted.account = filter.account;
            let found = atlas.list(wanted).await?;
            Ok(found.iter().map(|info| describe(info, false)).collect())
        }
        Request::Touch { session } => {
            let orchestrator = atlas.orchestrator().clone();
            let touch = finish(async move { orchestrator.touch_durable(session).await }).await?;
            Ok(json!({ "session": session, "touch": touch }))
        }
        Request::Stop { session } => {
            let orchestrator = atlas.orchestrator().clone();
            let outcome = finish(async move { orchestrator.stop_tracked(session).await }).await?;
            let mut document = json!(outcome);
            document["session"] = json!(session);
            Ok(document)
        }
        Request::Await {
            session,
            until,
            longest_ms,
        } => wait(atlas, session, until, Duration::from_millis(longest_ms))
            .await
            .map(|info| describe(&info, false)),
        Request::Events {
            session,
            since,
            follow,
        } => events(atlas, session, since, follow, &items).await,
        Request::Reap {
            account,
            dry_run,
            acknowledge,
        } => reap(atlas, account, dry_run, acknowledge).await,
        Request::Audit => Ok(json!(atlas.orchestrator().audit().await?)),
        Request::Health => health(atlas).await,
        Request::Accept => {
            let orchestrator = atlas.orchestrator().clone();
            let report = finish(async move { orchestrator.accept_store().await }).await?;
            Ok(json!(report))
        }
        Request::AcceptAccount { account } => {
            let orchestrator = atlas.orchestrator().clone();
            let accepted = account.clone();
            finish(async move { orchestrator.accept_account(&account).await }).await?;
            Ok(json!(accepted))
        }
    }
}

/// Compares clocks, and names the clouds whose clock differs so much that no decision relies on it.
fn clocks(atlas: &Atlas) -> Value {
    let report = atlas.orchestrator().clocks();
    let differing: Vec<String> = report
        .differing()
        .map(|(account, ahead)| {
            let (size, side) = (ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead of" });
            format!("the clock of {account}'s cloud is {size:.0} s {side} the store's")
        })
        .collect();
    json!({ "report": report, "differing": differing })
}

async fn reap(
    atlas: &Atlas,
    only: Option<AccountName>,
    dry_run: bool,
    acknowledge: bool,
) -> Result<Value> {
    let names: Vec<AccountName> = match only {
        Some(name) => vec![name],
        None => atlas.accounts().cloned().collect(),
    };
    let mut reports = serde_json::Map::new();
    for name in names {
        let orchestrator = atlas.orchestrator().clone();
        let account = name.clone();
        let report = finish(async move {
            if acknowledge {
                orchestrator.acknowledge_breaker(&account).await?;
            }
            orchestrator.reap_now(&account, dry_run).await
        });
        reports.insert(name.to_string(), json!(report.await?));
    }
    Ok(json!({ "accounts": reports }))
}

async fn health(atlas: &Atlas) -> Result<Value> {
    let mut accounts = serde_json::Map::new();
    for (name, provider) in atlas.orchestrator().accounts() {
        let listener = atlas.orchestrator().date_listener(name);
        let cx = CallContext::new().with_extension(listener);
        let read = provider.list_compute(&cx, &ListFilter::all()).await;
        let seen = match &read {
            Ok(listing) => {
                json!({ "answers": true, "machines": listing.computes.len(),
                    "complete": listing.is_complete() })
            }
            Err(error) => json!({ "answers": false, "error": error.to_string() }),
        };
        accounts.insert(name.to_string(), seen);
    }
    Ok(json!({
        "hold": atlas.orchestrator().hold(),
        "clocks": clocks(atlas),
        "durable": atlas.orchestrator().is_durable(),
        "sessions": atlas.orchestrator().tracked(),
        "accounts": accounts,
    }))
}

/// Orders, and waits until it is known whether there is a machine: an unknown outcome is resolved
/// first.
async fn spawn(
    atlas: &Atlas,
    asked_as: Option<SessionId>,
    request: ComputeRequest,
    options: SessionOptions,
    task: bool,
    items: &mpsc::Sender<Value>,
) -> Result<Value> {
    let kind = if task {
        SessionKind::Task
    } else {
        SessionKind::Interactive
    };
    let ordering = atlas.clone();
    let id = asked_as.unwrap_or_else(|| atlas.new_id());
    let launched = finish(async move { ordering.launch_as(id, request, options, kind).await });
    match launched.await {
        Ok(_) => {}
        // The client has sent this request before, to this owner or to its predecessor.
        Err(error) if error.kind() == ErrorKind::Conflict && asked_as.is_some() => {
            atlas.session(id).await.map_err(|_| error)?;
        }
        Err(error) => return Err(error),
    }
    say(items, json!({ "session": id, "progress": "on record" })).await;
    let session = atlas.session(id).await?;
    let mut told = session.events(Cursor::START);
    let mut accepted = std::pin::pin!(session.await_accepted());
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            placed = &mut accepted => break placed?,
            delivery = told.next(), if open => match delivery? {
                Some(Delivery { event, .. }) => say(items, json!({ "session": id,
                    "progress": event.kind.progress() })).await,
                None => open = false,
            },
        }
    }
    Ok(describe(&session.info().await?, true))
}

async fn wait(
    atlas: &Atlas,
    id: SessionId,
    until: Until,
    longest: Duration,
) -> Result<SessionInfo> {
    let orchestrator = atlas.orchestrator();
    match until {
        Until::Ready => return orchestrator.await_ready(id, longest).await,
        Until::Terminated => drop(orchestrator.await_terminated(id, longest).await?),
        Until::Outcome => {
            let session = orchestrator.session(id).await?;
            // The outcome is part of the session's information; a missing outcome means that the
            // time ran out.
            if let Ok(ended) = tokio::time::timeout(longest, session.await_outcome()).await {
                ended?;
            }
        }
    }
    orchestrator.info(id).await
}

async fn events(
    atlas: &Atlas,
    session: Option<SessionId>,
    since: u64,
    follow: bool,
    items: &mpsc::Sender<Value>,
) -> Result<Value> {
    if let Some(id) = session {
        atlas.session(id).await?;
    }
    let mut subscription = atlas.events(
        session.map_or(Scope::All, Scope::Session),
        Cursor::after(since),
    );
    let mut sent = 0_u64;
    while let Some(delivery) = if follow {
        subscription.next().await?
    } else {
        subscription.try_next().await?
    } {
        let mut item = json!(delivery.event);
        item["cursor"] = json!(delivery.cursor);
        if items.send(item).await.is_err() {
            break;
        }
        sent += 1;
    }
    Ok(json!({ "events": sent }))
}

/// Runs an operation to its end, even if the caller no longer waits for it.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.map_err(|error| {
        Error::new(ErrorKind::Unknown, "the operation broke off").with_source(error)
    })?
}

/// Sends an item to the client, unless it has disconnected.
async fn say(items: &mpsc::Sender<Value>, item: Value) {
    let _ = items.send(item).await;
}

/// A session as JSON: `session` and `compute` are fixed, the other fields are those of
/// [`SessionInfo`].
#[must_use]
pub fn describe(info: &SessionInfo, secrets: bool) -> Value {
    let mut document =
        serde_json::to_value(info).expect("what is known of a session is plain data");
    document["session"] = json!(info.id);
    document["compute"] = info.compute.as_ref().map_or(Value::Null, |compute| {
        machine(compute, info.auth.as_ref(), secrets)
    });
    document
}

fn machine(compute: &Compute, credential: Option<&Credential>, secrets: bool) -> Value {
    let mut document = serde_json::to_value(compute).expect("a machine is plain data");
    let shown = |secret: Option<&Secret>| {
        secret
            .filter(|_| secrets)
            .map(Secret::expose)
            .map(str::to_owned)
    };
    document["auth"] = credential.map_or(Value::Null, |credential| {
        json!({
            "scheme": credential.scheme(),
            "token": shown(Some(credential.secret())),
            "header": shown(credential.header().as_ref()),
            "hash": credential.hash(),
        })
    });
    document
}
