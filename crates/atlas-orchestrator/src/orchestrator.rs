//! The orchestrator: the type through which an application manages sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use atlas_core::{
    AccountName, AnyProvider, AttemptId, Credential, Error, ErrorKind, Result, Timestamp,
};
use futures_util::{StreamExt, stream};

use crate::builder::Builder;
use crate::event::{Cursor, Reason, Scope};
use crate::handle::Session;
use crate::ids::SessionId;
use crate::info::{
    AttemptInfo, ReapReport, SessionInfo, Shutdown, ShutdownReport, StopOutcome, Touch,
};
use crate::kernel::record::Ending;
use crate::kernel::{Input, SessionRecord, limits};
use crate::options::SessionFilter;
use crate::report;
use crate::runtime::core::{Core, Loaded};
use crate::runtime::pages::{self, LivePages, Pages};
use crate::runtime::reaper::{self, Suspects};
use crate::runtime::steady::later;
use crate::runtime::{Subscription, accounts, entries, feed, flush, index, nodes};
use crate::session::SessionState;
use crate::store::Row;
use crate::unattended::Unattended;

/// How many sessions a node ends concurrently when it shuts down, so that a store with group commit
/// can combine the writes.
const ENDS_AT_ONCE: usize = 64;

/// Rents machines for sessions and gives them back. Cheap to clone; clones share one instance.
///
/// Dropping it does not stop anything: call [`Orchestrator::shutdown`].
#[derive(Clone, Debug)]
pub struct Orchestrator {
    pub(crate) core: Arc<Core>,
    pub(crate) suspects: Arc<BTreeMap<AccountName, Arc<Suspects>>>,
}

impl Orchestrator {
    /// Starts building an orchestrator.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A handle to a recorded session.
    ///
    /// # Errors
    /// `not_found`; `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn session(&self, id: SessionId) -> Result<Session> {
        self.core.require(id).await?;
        Ok(Session::new(self.clone(), id))
    }

    /// The sessions that the filter selects, oldest first. Sessions with unreadable records are
    /// left out; [`audit`](Self::audit) names them.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn list(&self, filter: SessionFilter) -> Result<Vec<SessionInfo>> {
        let core = &self.core;
        let mut found = Vec::new();
        let mut take = |rows: Vec<Row>| {
            for loaded in rows.into_iter().filter_map(Loaded::readable) {
                if selects(&filter, &loaded.record) {
                    found.push(self.describe(&loaded.record, None));
                }
            }
        };
        match &filter.user_id {
            Some(user) if index::is_whole(core).await? => {
                let ids = entries::sessions_of(core, user, filter.ended).await?;
                for page in ids.chunks(pages::PAGE) {
                    take(pages::read(core, page).await?);
                    tokio::task::yield_now().await;
                }
            }
            _ if !filter.ended => {
                let mut pages = LivePages::begin(core).await?;
                while let Some(heads) = pages.next(core).await? {
                    take(pages.whole(core, heads).await?);
                }
            }
            _ => {
                let mut pages = Pages::default();
                while let Some(rows) = pages.next(core).await? {
                    take(rows);
                }
            }
        }
        Ok(found)
    }

    /// Whether the indexes of the store cover every session. Until then, listing sessions and
    /// taking them up reads every record there is; this orchestrator builds them meanwhile.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn is_indexed(&self) -> Result<bool> {
        index::is_whole(&self.core).await
    }

    /// The ids of the sessions that have not ended, oldest first.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn list_ids(&self) -> Result<Vec<SessionId>> {
        Ok(self
            .list(SessionFilter::live())
            .await?
            .into_iter()
            .map(|info| info.id)
            .collect())
    }

    /// Subscribes to events, in order and without gaps, after a cursor.
    #[must_use]
    pub fn subscribe(&self, scope: Scope, cursor: Cursor) -> Subscription {
        Subscription::new(self.core.clone(), scope, cursor)
    }

    /// Ends every subscription once it has delivered the events so far. For a server that closes
    /// its open event streams before the orchestrator shuts down: otherwise they would end only
    /// with the shutdown, and a graceful stop of the server would wait for them.
    pub fn end_subscriptions(&self) {
        self.core.unsubscribed.cancel();
    }

    /// Commits the end of a session, which is final, and returns how far it has come.
    ///
    /// # Errors
    /// `not_found`; `unavailable` when the store did not confirm the commit. It may have been
    /// applied; repeating the call is safe.
    ///
    /// # Cancel safety
    /// A dropped call may have committed the end.
    pub async fn stop_tracked(&self, id: SessionId) -> Result<StopOutcome> {
        let loaded = self.core.tell(id, &Input::Stop(Reason::Requested)).await?;
        Ok(self.outcome_of(&loaded.record))
    }

    fn outcome_of(&self, record: &SessionRecord) -> StopOutcome {
        match record.state() {
            SessionState::Terminated => StopOutcome::Terminated,
            _ => StopOutcome::Terminating {
                stuck: record
                    .attempts
                    .iter()
                    .find_map(|attempt| attempt.stuck.clone()),
                burn: record.cost(self.core.now()).burn,
            },
        }
    }

    /// Waits at most `wait` until every machine of an ending session is proved absent.
    ///
    /// # Errors
    /// `not_found`, `unavailable`. Reaching the time limit is an outcome, not an error.
    ///
    /// # Cancel safety
    /// Safe: it only waits, and can be called again.
    pub async fn await_terminated(&self, id: SessionId, wait: Duration) -> Result<StopOutcome> {
        let until = later(wait);
        let over = feed::wait_for(&self.core, id, Some(until), |record| {
            (record.state() == SessionState::Terminated).then_some(StopOutcome::Terminated)
        })
        .await?;
        match over {
            Some(outcome) => Ok(outcome),
            None => Ok(self.outcome_of(&self.core.require(id).await?.record)),
        }
    }

    /// Records activity now, in memory. For a session of another node, or one near its idle limit,
    /// the result is `Deferred`; see [`Orchestrator::touch_durable`].
    #[must_use]
    pub fn touch(&self, id: SessionId) -> Touch {
        match self.core.touches.touch(id, self.core.steady.now_millis()) {
            Some(touch) => touch,
            None if self.core.exclusive && self.core.touches.is_whole() => Touch::Ended,
            None => Touch::Deferred,
        }
    }

    /// Records activity now; returns when that is durable.
    ///
    /// # Errors
    /// `unavailable` when the store rejected the write.
    ///
    /// # Cancel safety
    /// A dropped call may have recorded the activity.
    pub async fn touch_durable(&self, id: SessionId) -> Result<Touch> {
        if self
            .core
            .touches
            .touch(id, self.core.steady.now_millis())
            .is_none()
        {
            let loaded = self.core.require(id).await?;
            if loaded.record.ending.is_some() {
                return Ok(Touch::Ended);
            }
            // The session belongs to another node: write the touch as that node would.
            self.core.touches.insert(
                id,
                loaded.record.options.idle_ttl,
                loaded.record.created_at,
                None,
            );
            let _ = self.core.touches.touch(id, self.core.steady.now_millis());
            let flushed = flush::flush(&self.core).await;
            self.core.touches.let_go(id);
            let ending = self.core.require(id).await?.record.ending.is_some();
            return Ok(match (flushed, ending) {
                (_, true) => Touch::Ended,
                (true, false) => Touch::Recorded,
                (false, false) => Touch::Deferred,
            });
        }
        if !flush::flush(&self.core).await {
            return Ok(Touch::Deferred);
        }
        // A previously committed end remains committed.
        let ending = self.core.require(id).await?.record.ending.is_some();
        Ok(if ending {
            Touch::Ended
        } else {
            Touch::Recorded
        })
    }

    /// Like [`Orchestrator::touch_durable`], for activity reported by another source than a touch;
    /// `info` names the source.
    ///
    /// # Errors
    /// Like [`Orchestrator::touch_durable`].
    ///
    /// # Cancel safety
    /// Like [`Orchestrator::touch_durable`].
    pub async fn touch_from(&self, id: SessionId, source: &str) -> Result<Touch> {
        let at = self.core.now();
        let touched = self.touch_durable(id).await?;
        if touched == Touch::Recorded {
            self.core.touches.came_from(id, at, source);
        }
        Ok(touched)
    }

    /// Vetoes the idle end that was announced: the session does not end for idleness before another
    /// `idle_ttl` from now.
    ///
    /// # Errors
    /// `not_found`, `unavailable`; `conflict` for a session without an idle limit, or one that is
    /// ending.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect; it can be repeated.
    pub async fn veto(&self, id: SessionId) -> Result<()> {
        let record = self.core.require(id).await?.record;
        match record.options.idle_ttl {
            Some(ttl) if record.ending.is_none() => self.extend(id, ttl).await,
            Some(_) => Err(Error::new(
                ErrorKind::Conflict,
                "the session is being ended",
            )),
            None => Err(Error::new(
                ErrorKind::Conflict,
                "the session has no idle limit",
            )),
        }
    }

    /// Postpones an idle end until `span` from now.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect; it can be repeated.
    pub async fn extend(&self, id: SessionId, span: Duration) -> Result<()> {
        let until = self.core.now().saturating_add(span);
        self.core.tell(id, &Input::Extend(until)).await.map(drop)
    }

    /// Records the exit code of a task that its machine reported through a callback.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect; it can be repeated.
    pub async fn report_exit(&self, id: SessionId, code: i32) -> Result<()> {
        self.core
            .tell(id, &Input::TaskReported(code))
            .await
            .map(drop)
    }

    /// Like [`Orchestrator::report_exit`], for the machine of this attempt. A machine that was
    /// replaced does not end its replacement.
    ///
    /// # Errors
    /// `conflict` when the session no longer uses this attempt; `not_found`, `unavailable`.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect; it can be repeated.
    pub async fn report_exit_by(&self, id: SessionId, attempt: AttemptId, code: i32) -> Result<()> {
        let replaced = || Error::new(ErrorKind::Conflict, "the machine was replaced");
        if !self.core.require(id).await?.record.may_report(attempt) {
            return Err(replaced());
        }
        let told = Input::TaskReportedBy(attempt, code);
        let record = self.core.tell(id, &told).await?.record;
        // The machine was replaced in the meantime, so its report did not count.
        if record.outcome.is_none() && !record.may_report(attempt) {
            return Err(replaced());
        }
        Ok(())
    }

    /// Records another report of a machine: progress, or a line of its log. It does not count as
    /// activity. It is stored as one line, without control characters and invisible characters.
    ///
    /// # Errors
    /// `validation` when it is longer than 4 KiB; `quota` when the session already stores its
    /// maximum of reports (20,000, and 4 MiB); `not_found`, `unavailable`.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect; repeating it then records the report twice.
    pub async fn report(&self, id: SessionId, kind: &str, text: &str) -> Result<()> {
        if kind.len() > 64 || text.len() > report::MAX_TEXT {
            return Err(Error::validation("report", "must be at most 4 KiB"));
        }
        let (kind, text) = (report::one_line(kind), report::one_line(text));
        let mut reports = self.core.require(id).await?.record.reports;
        if !reports.take(&text) {
            return Err(Error::new(
                ErrorKind::Quota,
                format!("session {id} keeps no more reports"),
            ));
        }
        self.core
            .tell(id, &Input::Reported(kind, text))
            .await
            .map(drop)
    }

    /// All information about a session, including its credential.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn info(&self, id: SessionId) -> Result<SessionInfo> {
        let loaded = self.core.require(id).await?;
        let credential = self
            .core
            .request(id)
            .await?
            .and_then(|request| request.credential);
        Ok(self.describe(&loaded.record, credential))
    }

    /// Waits until a session's machine is usable. Follows a respawn to the new machine.
    ///
    /// # Errors
    /// The error of the end when the session ends first; `timeout` when `wait` has passed. Both
    /// name the last state.
    ///
    /// # Cancel safety
    /// Safe: it only waits, and can be called again.
    pub async fn await_ready(&self, id: SessionId, wait: Duration) -> Result<SessionInfo> {
        let until = later(wait);
        let seen = feed::wait_for(&self.core, id, Some(until), |record| {
            (record.state() == SessionState::Ready || record.ending.is_some()).then_some(())
        })
        .await?;
        let info = self.info(id).await?;
        let last = format!("the session is {}", info.state.as_str());
        match (seen, &info.reason) {
            (Some(()), None) => Ok(info),
            (Some(()), Some(reason)) => Err(ended(reason, &last)),
            (None, _) => {
                let status = info
                    .status()
                    .map_or_else(String::new, |status| format!(", its machine {status}"));
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!("not ready in time: {last}{status}"),
                ))
            }
        }
    }

    /// Scans an account at once for machines without a session. A dry run deletes nothing.
    ///
    /// # Errors
    /// `validation` for an unknown account; otherwise the error of the cloud or the store.
    ///
    /// # Cancel safety
    /// A dropped call may have committed the deletion of some machines; those are carried out.
    /// Repeat it for the others.
    pub async fn reap_now(&self, account: &AccountName, dry_run: bool) -> Result<ReapReport> {
        let found = self.core.known_account(account)?;
        let suspects = self.suspects.get(account).cloned().unwrap_or_default();
        reaper::scan(
            &self.core,
            found,
            &suspects,
            dry_run || found.policy.report_only,
        )
        .await
    }

    /// Lets the reaper of an account continue after it found too many victims: those in its last
    /// report may be deleted, whatever their number.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be written.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect; it can be repeated.
    pub async fn acknowledge_breaker(&self, account: &AccountName) -> Result<()> {
        accounts::acknowledge(&self.core, account).await
    }

    /// States that the currently configured API key belongs to the same account as before. If one
    /// of our machines is seen with a new key, this is detected automatically; if none was alive
    /// when the key was replaced, only an operator can know it.
    ///
    /// # Errors
    /// `validation` for an unknown account; otherwise the error of the cloud or the store.
    ///
    /// # Cancel safety
    /// A dropped call may have taken effect; it can be repeated.
    pub async fn accept_account(&self, account: &AccountName) -> Result<()> {
        accounts::accept_identity(&self.core, self.core.known_account(account)?).await
    }

    /// Why the process holds, if the store may have been rolled back.
    #[must_use]
    pub fn hold(&self) -> Option<String> {
        self.core.hold_reason()
    }

    /// The configured accounts.
    pub fn accounts(&self) -> impl Iterator<Item = (&AccountName, &AnyProvider)> {
        self.core
            .accounts
            .iter()
            .map(|account| (&account.name, &account.provider))
    }

    /// The provider of an account, for calls outside sessions.
    #[must_use]
    pub fn provider(&self, account: &AccountName) -> Option<&AnyProvider> {
        self.core.account(account).map(|account| &account.provider)
    }

    /// The current time that decisions about sessions use.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.core.now()
    }

    /// How many sessions this node looks after.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.core.slots.len()
    }

    /// Whether records survive the end of this process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.core.durable
    }

    /// Shuts this orchestrator down in the given way. Calls in progress are finished first.
    ///
    /// # Errors
    /// `validation` for a [`Shutdown::Handover`] of live sessions if the store is lost with this
    /// process: their machines would run on without any record. Nothing is shut down then.
    /// `unavailable` when not even the intents could be committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the orchestrator is half shut down: call it again.
    pub async fn shutdown(&self, how: Shutdown) -> Result<ShutdownReport> {
        let core = &self.core;
        let mut report = ShutdownReport::default();
        core.closing.store(true, Ordering::Release);
        let live = match how {
            Shutdown::Handover if !core.durable => self.living().await,
            _ => 0,
        };
        if live > 0 {
            core.closing.store(false, Ordering::Release);
            return Err(Error::validation(
                "shutdown",
                format!(
                    "the store is in memory, so nobody could take over {live} live session(s), \
                     and their machines would run on without a record: use \
                     Shutdown::TerminateAll, or a store that outlives the process"
                ),
            ));
        }
        if let Shutdown::TerminateAll { wait } = how {
            let until = later(wait);
            let mut ended = BTreeSet::new();
            loop {
                // A launch that was in progress when new ones were refused may still appear.
                let ids: Vec<SessionId> = core
                    .slots
                    .ids()
                    .into_iter()
                    .filter(|id| ended.insert(*id))
                    .collect();
                if ids.is_empty() {
                    break;
                }
                self.end_all(&ids).await;
                for id in ids {
                    let over = feed::wait_for(core, id, Some(until), |record| {
                        (record.state() == SessionState::Terminated).then_some(())
                    });
                    match over.await {
                        Ok(Some(())) => report.terminated += 1,
                        Ok(None) | Err(_) => report.unsettled.push(id),
                    }
                }
            }
        }
        core.stopping.cancel();
        core.slots
            .quiesce(core.policy.lease.saturating_mul(4))
            .await;
        report.handed_over = core.slots.len() - report.unsettled.len().min(core.slots.len());
        // After the last flush, no touch is acknowledged from memory.
        core.touches.let_all_go();
        report.flushed = flush::flush(core).await;
        nodes::watch_ledger(core).await;
        nodes::leave(core, report.flushed).await;
        core.stop().await;
        Ok(report)
    }

    /// The number of sessions of this node that have not ended.
    async fn living(&self) -> usize {
        let mut living = 0;
        for id in self.core.slots.ids() {
            let loaded = self.core.load(id).await;
            let over =
                matches!(&loaded, Ok(Some(l)) if l.record.state() == SessionState::Terminated);
            living += usize::from(!over);
        }
        living
    }

    /// Commits the ends of these sessions, many at a time. One that cannot be written does not
    /// delay the others.
    async fn end_all(&self, ids: &[SessionId]) {
        let ends = ids.iter().copied().map(|id| {
            let core = self.core.clone();
            async move {
                if let Err(error) = core.tell(id, &Input::Stop(Reason::Shutdown)).await {
                    tracing::error!(session = %id, %error,
                        "could not record the termination of this session; it is still running");
                }
            }
        });
        stream::iter(ends)
            .buffer_unordered(ENDS_AT_ONCE)
            .collect::<()>()
            .await;
    }

    pub(crate) fn describe(&self, record: &SessionRecord, auth: Option<Credential>) -> SessionInfo {
        let cx = self.core.cx(&record.account);
        let touched = self
            .core
            .touches
            .newest(record.id)
            .unwrap_or(record.created_at);
        let own = record.own_activity();
        let last_activity = touched.max(own);
        let source = match () {
            () if touched > own => self.core.touches.origin(record.id, touched),
            () if record.ready_at == Some(own) => "ready".to_owned(),
            () if own > record.created_at => "accepted".to_owned(),
            () => "created".to_owned(),
        };
        let mut compute = record
            .attempts
            .iter()
            .rev()
            .find(|a| a.compute.is_some() && (a.is_serving() || record.ending.is_some()));
        if compute.is_none() {
            compute = record.serving();
        }
        SessionInfo {
            id: record.id,
            kind: record.kind,
            state: record.state(),
            account: record.account.clone(),
            provider: record.provider.clone(),
            options: record.options.clone(),
            created_at: record.created_at,
            compute: compute
                .and_then(|attempt| attempt.compute.clone())
                .map(|mut compute| {
                    compute.auth.clone_from(&auth);
                    compute
                }),
            auth,
            attempts: record.attempts.iter().map(describe_attempt).collect(),
            last_activity,
            last_activity_source: source,
            next_deadline: limits::next_deadline(record, touched, &cx),
            cost: record.cost(cx.now),
            unattended: Unattended::of(record),
            respawns: record.respawns,
            reason: record
                .ending
                .as_ref()
                .map(|Ending { reason, .. }| reason.clone()),
            outcome: record.outcome,
            stuck: record
                .attempts
                .iter()
                .find_map(|attempt| attempt.stuck.clone()),
            owner: record.owner.clone(),
            decisions: record.decisions.clone(),
            last_seq: record.last_seq,
        }
    }
}

fn describe_attempt(attempt: &crate::kernel::Attempt) -> AttemptInfo {
    AttemptInfo {
        attempt: attempt.id,
        phase: attempt.phase,
        terminating: attempt.kill.as_ref().map(|kill| kill.reason.clone()),
        computes: attempt.sighted.iter().map(|seen| seen.id.clone()).collect(),
        placed: attempt.placed(),
        price: attempt.price,
        created_at: attempt.created_at,
        ended_at: attempt.ended_at,
        message: attempt.message.clone(),
        stuck: attempt.stuck.clone(),
    }
}

fn selects(filter: &SessionFilter, record: &SessionRecord) -> bool {
    let state = record.state();
    filter
        .user_id
        .as_ref()
        .is_none_or(|user| record.options.user_id.as_ref() == Some(user))
        && filter
            .labels
            .iter()
            .all(|(name, value)| record.options.labels.get(name) == Some(value))
        && filter
            .account
            .as_ref()
            .is_none_or(|account| record.account == *account)
        && filter.state.is_none_or(|wanted| state == wanted)
        && (filter.ended || state != SessionState::Terminated)
}

/// The error of a wait during which the session ended.
pub(crate) fn ended(reason: &Reason, last: &str) -> Error {
    match reason {
        Reason::CannotPlace { message, kind } => {
            let kind = kind.parse().unwrap_or(ErrorKind::Unknown);
            Error::new(kind, format!("no machine could be had: {message}"))
        }
        other => {
            let why = serde_json::to_string(other).unwrap_or_default();
            Error::new(ErrorKind::Conflict, format!("{last}: {why}"))
        }
    }
}
