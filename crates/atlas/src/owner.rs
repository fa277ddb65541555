//! What the process that holds a store is asked over its socket, and what it answers.
//!
//! The command line speaks this whether the store is its own or another process's, so that both do
//! the same. Requests and answers are JSON; a session looks as `atlas show --json` prints it.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{
    AccountName, CallContext, Compute, ComputeRequest, Credential, Error, ErrorKind, ListFilter,
    Result, Secret,
};
use atlas_orchestrator::owner::{Items, OwnerSocket};
use atlas_orchestrator::{
    Cursor, Delivery, EventKind, Scope, SessionFilter, SessionId, SessionInfo, SessionKind,
    SessionOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::facade::{Atlas, WeakAtlas};

const AHEAD: usize = 16;

/// Something asked of the owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// A session with a machine. Answered when it is known whether there is one; items tell what it
    /// waits for.
    Spawn {
        /// `ComputeRequest::expose`: it may hold secrets, and the socket is the user's alone.
        request: Sealed,
        /// The session's options and limits.
        options: SessionOptions,
        /// Whether it runs one command to its end.
        task: bool,
    },
    /// As [`Request::Spawn`], under an id that the asker drew: it may be asked again, of another
    /// owner too, and there is never more than one session.
    SpawnAs {
        /// The id.
        session: SessionId,
        /// As of [`Request::Spawn`].
        request: Sealed,
        /// The session's options and limits.
        options: SessionOptions,
        /// Whether it runs one command to its end.
        task: bool,
    },
    /// What is known of a session.
    Info {
        /// The session's id.
        session: SessionId,
        /// Whether its credential is part of the answer.
        #[serde(default)]
        secrets: bool,
    },
    /// Sessions on record.
    List(Filter),
    /// Somebody is there.
    Touch {
        /// The session's id.
        session: SessionId,
    },
    /// Ends a session; answered when its end is on record.
    Stop {
        /// The session's id.
        session: SessionId,
    },
    /// Waits for something, at most so long; answers what is known of the session then.
    Await {
        /// The session's id.
        session: SessionId,
        /// The state to wait for.
        until: Until,
        /// How long.
        longest_ms: u64,
    },
    /// Events, one an item; each has the place to go on from as `cursor`.
    Events {
        /// Whose; everybody's where unset.
        session: Option<SessionId>,
        /// Those after this place.
        #[serde(default)]
        since: u64,
        /// Goes on with what happens from now on, until the asker leaves.
        #[serde(default)]
        follow: bool,
    },
    /// Scans accounts for machines without a session, now.
    Reap {
        /// Which; all of them where unset.
        account: Option<AccountName>,
        /// Ends nothing.
        dry_run: bool,
        /// Lets a reaper go on that found too many victims.
        #[serde(default)]
        acknowledge: bool,
    },
    /// What is spent, and on what; scans every account and ends nothing.
    Audit,
    /// What the orchestrator can do at the moment, and what is in its way.
    Health,
    /// Accepts the store as the surviving copy.
    Accept,
    /// Accepts the key that is configured now as one of the account it stands for.
    AcceptAccount {
        /// The account whose present key is accepted.
        account: AccountName,
    },
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Until {
    /// Its machine is usable.
    Ready,
    /// Its task's command ended.
    Outcome,
    /// Every machine it had is proved to be gone.
    Terminated,
}

/// Which sessions to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Filter {
    /// Only of this user.
    pub user: Option<String>,
    /// Only with these labels.
    pub labels: BTreeMap<String, String>,
    /// Only on this account.
    pub account: Option<AccountName>,
    /// Also those that ended.
    pub ended: bool,
}

/// A request's whole JSON, secrets included; its `Debug` shows nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(Value);

impl Sealed {
    /// Takes a request.
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

/// Listens beside the store, and answers for this atlas.
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
    // The sender goes with the answer: what was sent before it is forwarded, all of it.
    let (forwarded, answer) = {
        let (mut forward, mut answer) = (
            std::pin::pin!(forward),
            std::pin::pin!(answer(&atlas, request, sender)),
        );
        tokio::select! {
            biased;
            gone = &mut forward => {
                // An asker that has gone is not answered.
                gone?;
                (Ok(()), answer.await)
            }
            answer = &mut answer => (forward.await, answer),
        }
    };
    forwarded.and(answer)
}

impl Request {
    /// Whether an owner that leaves answers it first, because it soon comes to an end by itself.
    /// What waits or follows is asked of the next owner.
    fn is_short(&self) -> bool {
        !matches!(self, Self::Await { .. } | Self::Events { follow: true, .. })
    }
}

/// Answers one request; what comes before the answer goes to `items`.
///
/// # Errors
/// As the operation of the facade that it is.
///
/// # Cancel safety
/// What changes something runs in a task of its own and goes on; everything else is a read.
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

/// How the clocks compare, and which clouds' differ so much that nothing is decided on it.
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
                json!({ "answers": true, "machines": listing.computes.len(), "complete": listing.is_complete() })
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
        // Asked before, of this owner or of the one before it.
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
                Some(Delivery { event, .. }) => say(items, json!({ "session": id, "progress": progress(&event.kind) })).await,
                None => open = false,
            },
        }
    }
    Ok(describe(&session.info().await?, true))
}

/// An event of a launch, for people.
fn progress(kind: &EventKind) -> String {
    match kind {
        EventKind::Attempt { placed, price, .. } => {
            let price = price.map_or_else(String::new, |price| format!(" at ${price}"));
            format!("ordering {placed}{price}")
        }
        EventKind::Accepted { compute, .. } => format!("machine {compute} is ordered"),
        EventKind::Adopted { compute, .. } => {
            format!("machine {compute} was found by its launch key")
        }
        EventKind::Refused { message, .. } => format!("refused: {message}"),
        EventKind::OutcomeUnknown { .. } => {
            "the answer was lost: looking for the machine by its launch key".to_owned()
        }
        other => json!(other)["event"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
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
            // The outcome is part of what is known of the session; time that is up shows by its
            // absence.
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

/// Runs to the end, whether or not somebody still waits for it.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.map_err(|error| {
        Error::new(ErrorKind::Unknown, "the operation broke off").with_source(error)
    })?
}

/// Tells the asker something. One that left already is not told.
async fn say(items: &mpsc::Sender<Value>, item: Value) {
    let _ = items.send(item).await;
}

/// A session as JSON: `session` and `compute` are fixed, the rest is what [`SessionInfo`] says.
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
