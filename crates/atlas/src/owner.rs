//! The answers of an atlas that holds a store, to requests over its socket.
//!
//! The command line uses these requests both for its own store and for another process's, so that
//! both behave the same. The protocol itself is the crate `atlas-owner`, whose types are here too.

use std::time::Duration;

use atlas_core::{AccountName, CallContext, ComputeRequest, Error, ErrorKind, ListFilter, Result};
use atlas_orchestrator::{
    AcceptReport, Cursor, Delivery, EventKind, Scope, SessionFilter, SessionId, SessionInfo,
    SessionKind, SessionOptions,
};

#[doc(inline)]
pub use atlas_owner::{
    Accept, AcceptAccount, AccountHealth, Answer, Audit, Await, Call, Clocks, CredentialView,
    EventItem, Events, EventsSent, Exposed, Filter, Health, HealthReport, Info, Items, List,
    NoItem, OwnerClient, PROTOCOL, Progress, Reap, ReapReports, Request, Sealed, SessionView,
    Spawn, SpawnAs, Stop, Stopped, Touch, Touched, Until,
};

use crate::facade::{Atlas, WeakAtlas};

/// What listens at the socket must not keep the atlas alive.
impl<C: Call> Answer<C> for WeakAtlas
where
    Atlas: Answer<C>,
{
    async fn answer(&self, call: C, items: Items<C::Item>) -> Result<C::Answer> {
        self.upgrade()?.answer(call, items).await
    }
}

// A request that changes something runs in its own task, which continues if the client disconnects.
// All others only read.

impl Answer<Spawn> for Atlas {
    async fn answer(&self, call: Spawn, items: Items<Progress>) -> Result<SessionView> {
        let Spawn {
            request,
            options,
            task,
        } = call;
        spawn(self, None, request.open()?, options, task, &items).await
    }
}

impl Answer<SpawnAs> for Atlas {
    async fn answer(&self, call: SpawnAs, items: Items<Progress>) -> Result<SessionView> {
        let SpawnAs {
            session,
            request,
            options,
            task,
        } = call;
        spawn(self, Some(session), request.open()?, options, task, &items).await
    }
}

impl Answer<Info> for Atlas {
    async fn answer(&self, call: Info, _: Items<NoItem>) -> Result<SessionView> {
        let Info { session, secrets } = call;
        let info = self.orchestrator().info(session).await?;
        Ok(SessionView::new(info, secrets))
    }
}

impl Answer<List> for Atlas {
    async fn answer(&self, List(filter): List, _: Items<NoItem>) -> Result<Vec<SessionView>> {
        let mut wanted = if filter.ended {
            SessionFilter::all()
        } else {
            SessionFilter::live()
        };
        wanted.user_id = filter.user;
        wanted.labels = filter.labels;
        wanted.account = filter.account;
        let found = self.list(wanted).await?;
        let view = |info| SessionView::new(info, false);
        Ok(found.into_iter().map(view).collect())
    }
}

impl Answer<Touch> for Atlas {
    async fn answer(&self, Touch { session }: Touch, _: Items<NoItem>) -> Result<Touched> {
        let orchestrator = self.orchestrator().clone();
        let touch = finish(async move { orchestrator.touch_durable(session).await }).await?;
        Ok(Touched { session, touch })
    }
}

impl Answer<Stop> for Atlas {
    async fn answer(&self, Stop { session }: Stop, _: Items<NoItem>) -> Result<Stopped> {
        let orchestrator = self.orchestrator().clone();
        let outcome = finish(async move { orchestrator.stop_tracked(session).await }).await?;
        Ok(Stopped { session, outcome })
    }
}

impl Answer<Await> for Atlas {
    async fn answer(&self, call: Await, _: Items<NoItem>) -> Result<SessionView> {
        let Await {
            session,
            until,
            longest_ms,
        } = call;
        let info = wait(self, session, until, Duration::from_millis(longest_ms)).await?;
        Ok(SessionView::new(info, false))
    }
}

impl Answer<Events> for Atlas {
    async fn answer(&self, call: Events, items: Items<EventItem>) -> Result<EventsSent> {
        let Events {
            session,
            since,
            follow,
        } = call;
        if let Some(id) = session {
            self.session(id).await?;
        }
        let scope = session.map_or(Scope::All, Scope::Session);
        let from = scope.after(since);
        let mut subscription = self.events(scope, from);
        let mut sent = EventsSent { events: 0 };
        while let Some(delivery) = if follow {
            subscription.next().await?
        } else {
            subscription.try_next().await?
        } {
            let item = EventItem {
                cursor: delivery.cursor.number(),
                event: delivery.event,
            };
            if items.send(item).await.is_err() {
                break;
            }
            sent.events += 1;
        }
        Ok(sent)
    }
}

impl Answer<Reap> for Atlas {
    async fn answer(&self, call: Reap, _: Items<NoItem>) -> Result<ReapReports> {
        let Reap {
            account,
            dry_run,
            acknowledge,
        } = call;
        let names: Vec<AccountName> = match account {
            Some(name) => vec![name],
            None => self.accounts().cloned().collect(),
        };
        let mut reports = ReapReports::default();
        for name in names {
            let orchestrator = self.orchestrator().clone();
            let account = name.clone();
            let report = finish(async move {
                if acknowledge {
                    orchestrator.acknowledge_breaker(&account).await?;
                }
                orchestrator.reap_now(&account, dry_run).await
            });
            reports.accounts.insert(name, report.await?);
        }
        Ok(reports)
    }
}

impl Answer<Audit> for Atlas {
    async fn answer(&self, Audit {}: Audit, _: Items<NoItem>) -> Result<atlas_orchestrator::Audit> {
        self.orchestrator().audit().await
    }
}

impl Answer<Health> for Atlas {
    async fn answer(&self, Health {}: Health, _: Items<NoItem>) -> Result<HealthReport> {
        let orchestrator = self.orchestrator();
        let mut accounts = std::collections::BTreeMap::new();
        for (name, provider) in orchestrator.accounts() {
            let listener = orchestrator.date_listener(name);
            let cx = CallContext::new().with_extension(listener);
            let health = match provider.list_compute(&cx, &ListFilter::all()).await {
                Ok(found) => AccountHealth::answering(found.computes.len(), found.is_complete()),
                Err(error) => AccountHealth::silent(error.to_string()),
            };
            accounts.insert(name.clone(), health);
        }
        Ok(HealthReport {
            hold: orchestrator.hold(),
            clocks: clocks(self),
            durable: orchestrator.is_durable(),
            sessions: orchestrator.tracked(),
            accounts,
        })
    }
}

impl Answer<Accept> for Atlas {
    async fn answer(&self, Accept {}: Accept, _: Items<NoItem>) -> Result<AcceptReport> {
        let orchestrator = self.orchestrator().clone();
        finish(async move { orchestrator.accept_store().await }).await
    }
}

impl Answer<AcceptAccount> for Atlas {
    async fn answer(&self, call: AcceptAccount, _: Items<NoItem>) -> Result<AccountName> {
        let orchestrator = self.orchestrator().clone();
        let account = call.account.clone();
        finish(async move { orchestrator.accept_account(&account).await }).await?;
        Ok(call.account)
    }
}

/// Compares clocks, and names the clouds whose clock differs so much that no decision relies on it.
fn clocks(atlas: &Atlas) -> Clocks {
    let report = atlas.orchestrator().clocks();
    let differing = report
        .differing()
        .map(|(account, ahead)| {
            let (size, side) = (ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead of" });
            format!("the clock of {account}'s cloud is {size:.0} s {side} the store's")
        })
        .collect();
    Clocks { report, differing }
}

/// Orders, and waits until it is known whether there is a machine: an unknown outcome is resolved
/// first.
async fn spawn(
    atlas: &Atlas,
    asked_as: Option<SessionId>,
    request: ComputeRequest,
    options: SessionOptions,
    task: bool,
    items: &Items<Progress>,
) -> Result<SessionView> {
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
    // A client that has disconnected misses the progress; the launch goes on.
    let say = async |progress: String| {
        let session = id;
        let _ = items.send(Progress { session, progress }).await;
    };
    say("on record".to_owned()).await;
    let session = atlas.session(id).await?;
    let mut told = session.events(Cursor::START);
    let mut accepted = std::pin::pin!(session.await_accepted());
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            placed = &mut accepted => break placed?,
            delivery = told.next(), if open => match delivery? {
                Some(Delivery { event, .. }) => say(progress(&event.kind)).await,
                None => open = false,
            },
        }
    }
    Ok(SessionView::new(session.info().await?, true))
}

/// A progress message for an event of a launch.
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
        EventKind::Refused { refusal, .. } => format!("refused: {refusal}"),
        EventKind::OutcomeUnknown { .. } => {
            "the answer was lost: looking for the machine by its launch key".to_owned()
        }
        other => other.name().to_owned(),
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
            // The outcome is part of the session's information; a missing outcome means that the
            // time ran out.
            if let Ok(ended) = tokio::time::timeout(longest, session.await_outcome()).await {
                ended?;
            }
        }
    }
    orchestrator.info(id).await
}

/// Runs an operation to its end, even if the caller no longer waits for it.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.map_err(|error| {
        Error::new(ErrorKind::Unknown, "the operation broke off").with_source(error)
    })?
}
