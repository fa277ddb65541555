//! The state shared by every part of the runtime, and the only way to change a session's record.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{
    AccountName, AttemptId, Clock, ComputeId, ComputeRequest, Entropy, Error, ErrorKind, Result,
    Timestamp, TrackedKey,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::account::Account;
use super::deadline::Progress;
use super::entries;
use super::lease::NodeLease;
use super::slots::Slots;
use super::spawner::Spawner;
use super::steady::Steady;
use super::touches::Touches;
use crate::activity::{AnyActivitySource, AnyReadyProbe};
use crate::event::Delivery;
use crate::ids::SessionId;
use crate::kernel::{AttemptRow, Bounds, Cx, Evidence, Input, SessionRecord, TimeTrust, step};
use crate::policy::Policy;
use crate::realm::{IncarnationLedger, Realm};
use crate::store::{AnyStore, Batch, CommitError, Guard, Row, StoreInfo, StorePoint, Table};

/// The row with the reason why the process holds, in [`Table::Realm`].
pub(crate) const HOLD_ROW: &[u8] = b"hold";
/// The row with the earlier incarnations that this store continues, in [`Table::Realm`].
pub(crate) const ACCEPTED_ROW: &[u8] = b"accepted";
/// The row that says how far the indexes are built, in [`Table::Realm`].
pub(crate) const INDEX_ROW: &[u8] = b"index";
/// The row of the newest unclean node death, in [`Table::Realm`].
pub(crate) const DEATH_ROW: &[u8] = b"death";

/// The row that says how wrong the store's clock is, in [`Table::Realm`].
pub(crate) const CLOCK_ROW: &[u8] = b"clock";

/// The provisional reason for holding, after a batch was refused and before the store was examined.
const WENT_BACK: &str = "the store refused a batch: it has less in it than this process saw \
                         before, or its file was replaced or removed";

/// The shared state of a running orchestrator.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: AnyStore,
    pub(crate) exclusive: bool,
    pub(crate) durable: bool,
    pub(crate) realm: Arc<Realm>,
    pub(crate) ledger: Option<Arc<dyn IncarnationLedger>>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) policy: Policy,
    pub(crate) accounts: Vec<Arc<Account>>,
    pub(crate) default_account: Option<AccountName>,
    pub(crate) name_prefix: String,
    pub(crate) node: String,
    pub(crate) sources: Vec<AnyActivitySource>,
    pub(crate) probe: Option<AnyReadyProbe>,
    pub(crate) steady: Arc<Steady>,
    pub(crate) lease: NodeLease,
    pub(crate) slots: Slots,
    pub(crate) touches: Touches,
    /// Whether there may be a recorded session of ours without a driver.
    pub(crate) in_doubt: AtomicBool,
    hold: Mutex<Option<String>>,
    /// How far the store had come when last heard of.
    pub(crate) progress: Arc<Progress>,
    held: AtomicBool,
    /// Events as they are committed, for subscribers.
    pub(crate) live: broadcast::Sender<Arc<Delivery>>,
    /// The latest event that was sent to live subscribers.
    pub(crate) fed_to: AtomicU64,
    /// Notified when something with events was committed.
    pub(crate) fed: Notify,
    /// Set when no new session is accepted.
    pub(crate) closing: AtomicBool,
    /// Cancelled when no new effect may start; effects in progress are finished.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when every task must end.
    pub(crate) stopped: CancellationToken,
    /// Cancelled when every subscription must end; they end with the tasks at the latest.
    pub(crate) unsubscribed: CancellationToken,
    /// The tasks. A shutdown waits for them, and the store is free afterwards.
    tasks: TaskTracker,
}

/// The parts from which a core is built.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: AnyStore,
    pub(crate) progress: Arc<Progress>,
    pub(crate) exclusive: bool,
    pub(crate) durable: bool,
    pub(crate) realm: Arc<Realm>,
    pub(crate) ledger: Option<Arc<dyn IncarnationLedger>>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) policy: Policy,
    pub(crate) accounts: Vec<Arc<Account>>,
    pub(crate) default_account: Option<AccountName>,
    pub(crate) name_prefix: String,
    pub(crate) node: String,
    pub(crate) sources: Vec<AnyActivitySource>,
    pub(crate) probe: Option<AnyReadyProbe>,
    pub(crate) steady: Arc<Steady>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A record as last read or written.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) record: SessionRecord,
    pub(crate) version: u64,
    /// The row's bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Loaded {
    /// Decodes a row.
    ///
    /// # Errors
    /// When it is not a session of a known schema.
    pub(crate) fn of(row: Row) -> Result<Self> {
        Ok(Self {
            record: SessionRecord::decode(&row.value)?,
            version: row.version,
            bytes: row.value,
        })
    }

    /// Decodes one row of many. An unreadable row is left as it is and logged, and does not affect
    /// the others. No node looks after its machine then: the reaper reports it and does not delete
    /// it.
    pub(crate) fn readable(row: Row) -> Option<Self> {
        let key = SessionId::from_slice(&row.key);
        Self::of(row)
            .inspect_err(|error| {
                let session = key.map(|id| id.to_string());
                tracing::error!(session, %error,
                    "a session is left alone: its record cannot be read");
            })
            .ok()
    }
}

/// How a store differs from what was last seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Goes,
    /// It has fewer commits than before: it was rolled back.
    Behind,
    /// It is another store, or was accepted again.
    Other,
    /// Its numbers continue, but it refused a batch: its file was replaced or removed, or it was
    /// rolled back for a moment.
    Refused,
}

/// Additional content of a commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) guards: Vec<Guard>,
    pub(crate) puts: Vec<(Table, Vec<u8>, Vec<u8>)>,
}

/// Why nothing is ended or made at the moment.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HoldRow {
    pub(crate) why: String,
    pub(crate) at: Timestamp,
}

/// The record of an operator's accept.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct AcceptedRow {
    /// The incarnation since the accept.
    pub(crate) incarnation: String,
    /// The earlier incarnations.
    pub(crate) before: Vec<String>,
}

/// How wrong the store's clock was when it was last compared with the clouds'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ClockRow {
    /// By how many milliseconds it was ahead of the time that processes went by.
    pub(crate) ahead_ms: i64,
}

/// An instant in a row of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TimeRow {
    pub(crate) at: Timestamp,
}

/// The key of the row of a sighting.
pub(crate) fn sighting_key(attempt: AttemptId, compute: &ComputeId) -> Vec<u8> {
    [attempt.as_bytes(), compute.as_str().as_bytes()].concat()
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            store,
            progress,
            exclusive,
            durable,
            realm,
            ledger,
            entropy,
            spawner,
            policy,
            accounts,
            ..
        } = parts;
        let touches = Touches::new(policy.flush, policy.safeguards().idle_margin);
        let stopped = CancellationToken::new();
        Self {
            store,
            exclusive,
            durable,
            realm,
            ledger,
            entropy,
            spawner,
            policy,
            accounts,
            default_account: parts.default_account,
            name_prefix: parts.name_prefix,
            node: parts.node,
            sources: parts.sources,
            probe: parts.probe,
            steady: parts.steady,
            lease: NodeLease::new(parts.clock),
            slots: Slots::default(),
            touches,
            in_doubt: AtomicBool::new(false),
            hold: Mutex::new(None),
            progress,
            held: AtomicBool::new(false),
            live: broadcast::channel(4096).0,
            fed_to: AtomicU64::new(0),
            fed: Notify::new(),
            closing: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            unsubscribed: stopped.child_token(),
            stopped,
            tasks: TaskTracker::new(),
        }
    }

    /// Spawns a task that ends when the orchestrator does.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawner
            .spawn(name, Box::pin(self.tasks.track_future(task)));
    }

    /// Ends every task, and waits until all have released their resources.
    pub(crate) async fn stop(&self) {
        self.stopped.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(30), self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(tasks = self.tasks.len(), "some tasks did not end");
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.steady.now()
    }

    /// Whether a guarded change can be written now: this node has a lease.
    pub(crate) fn may_commit(&self) -> bool {
        !self.policy.safeguards().fence || self.lease.fence().is_some()
    }

    /// Sleeps for `span`, but no longer than the orchestrator runs. False if it stopped.
    pub(crate) async fn sleep(&self, span: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stopped.cancelled() => false,
            () = tokio::time::sleep(span) => true,
        }
    }

    /// Whether a key was minted by this realm.
    pub(crate) fn is_genuine(&self, key: &TrackedKey) -> bool {
        key.realm() == self.realm.id() && (!self.policy.safeguards().mac || self.realm.verify(key))
    }

    pub(crate) fn account(&self, name: &AccountName) -> Option<&Arc<Account>> {
        self.accounts.iter().find(|account| account.name == *name)
    }

    /// An account that a caller named; an error if it is unknown.
    pub(crate) fn known_account(&self, name: &AccountName) -> Result<&Arc<Account>> {
        self.account(name)
            .ok_or_else(|| Error::validation("account", format!("no account is called {name}")))
    }

    /// The index of an account in the list; past its end for an account without a handle.
    pub(crate) fn account_index(&self, name: &AccountName) -> u16 {
        let index = self
            .accounts
            .iter()
            .position(|account| account.name == *name)
            .unwrap_or(self.accounts.len());
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    pub(crate) fn bounds(&self, name: &AccountName) -> Bounds {
        self.account(name).map_or_else(
            || Bounds {
                lease: self.policy.lease,
                limits: self.policy.account(name).limits.unwrap_or_default(),
            },
            |account| account.bounds,
        )
    }

    pub(crate) fn cx(&self, account: &AccountName) -> Cx<'_> {
        let handle = self.account(account);
        // Without a handle, nothing can be listed, and nothing is ended either.
        let looked = handle.map_or_else(|| self.steady.returns(), |handle| handle.looked_after());
        let (now, trust) = self.steady.trust(looked);
        let trust = if self.policy.safeguards().time_trust {
            trust
        } else {
            TimeTrust::since(trust.returned_at)
        };
        Cx {
            now,
            trust,
            policy: &self.policy,
            account: self.policy.account(account),
            bounds: self.bounds(account),
            held: self.is_held(),
        }
    }

    // ---- hold
    // ----------------------------------------------------------------------------------------------------

    pub(crate) fn is_held(&self) -> bool {
        // A refused batch counts as a hold even before the store was examined.
        self.held.load(Ordering::Acquire) || self.progress.is_refused()
    }

    pub(crate) fn hold_reason(&self) -> Option<String> {
        let hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = || self.progress.is_refused().then(|| WENT_BACK.to_owned());
        hold.clone().or_else(refused)
    }

    /// Starts to hold, so that nothing is ended or made, also after a restart, until an operator
    /// accepts the store.
    pub(crate) async fn hold(&self, why: &str) {
        if !self.policy.safeguards().incarnation {
            return;
        }
        let first = {
            let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
            let first = hold.is_none();
            hold.get_or_insert_with(|| why.to_owned());
            first
        };
        self.held.store(true, Ordering::Release);
        // From here on, every decision is made by a process that holds, so its writes are based on
        // the store as it is now.
        let went_back = match self.store.info().await {
            Ok(info) => self.progress.restart(Some(StorePoint::of(&info))),
            Err(_) => false,
        };
        if first || went_back {
            tracing::error!(
                why,
                "atlas holds: the store may have been rolled back; nothing is ended or made until \
                    an operator accepts it"
            );
            let row = HoldRow {
                why: why.to_owned(),
                at: self.now(),
            };
            let mut batch = Batch::new();
            batch.put(
                Table::Realm,
                HOLD_ROW,
                serde_json::to_vec(&row).unwrap_or_default(),
            );
            if let Err(error) = self.store.commit(batch).await {
                tracing::warn!(error = %Error::from(error), "the hold could not be made durable");
            }
        }
    }

    /// The last known point of the store. Taken before the store is read again, because commits
    /// continue in the meantime.
    pub(crate) fn known_store(&self) -> Option<StorePoint> {
        self.progress.known()
    }

    /// Compares the store with what was known of it before it was read.
    pub(crate) fn saw_store(&self, known: Option<&StorePoint>, info: &StoreInfo) -> Seen {
        match known {
            Some(known) if known.incarnation != info.incarnation => return Seen::Other,
            Some(known) if known.commit > info.last_commit => return Seen::Behind,
            _ => {}
        }
        if self.progress.is_refused() {
            return Seen::Refused;
        }
        self.progress.saw(StorePoint::of(info));
        Seen::Goes
    }

    /// Forgets the known point: an operator accepted the store as it is now.
    pub(crate) fn forget_store(&self) {
        self.progress.restart(None);
    }

    pub(crate) fn held_before(&self, why: String) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.held.store(true, Ordering::Release);
    }

    pub(crate) fn unhold(&self) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.held.store(false, Ordering::Release);
    }

    // ---- records
    // -------------------------------------------------------------------------------------------------

    pub(crate) async fn load(&self, id: SessionId) -> Result<Option<Loaded>> {
        match self.store.get(Table::Sessions, id.as_bytes()).await? {
            Some(row) => Loaded::of(row).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) async fn require(&self, id: SessionId) -> Result<Loaded> {
        self.load(id)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such session exists"))
    }

    /// The request of a session as it was made, including its credential.
    pub(crate) async fn request(&self, id: SessionId) -> Result<Option<ComputeRequest>> {
        let Some(row) = self.store.get(Table::Sealed, id.as_bytes()).await? else {
            return Ok(None);
        };
        let plain = self.realm.open(id.as_bytes(), &row.value)?;
        let request = serde_json::from_slice(&plain).map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "the sealed request of a session cannot be read",
            )
        })?;
        Ok(Some(request))
    }

    /// Applies one input to one session: the new record, its events and additional rows are written
    /// in one guarded, fenced batch.
    ///
    /// If nothing changed, nothing is written. After an error `loaded` may be stale: load it again.
    pub(crate) async fn apply(
        &self,
        loaded: &mut Loaded,
        evidence: &mut Evidence,
        input: &Input,
        extra: Extra,
    ) -> Result<bool, CommitError> {
        // Read before it is decided whether this process holds, so that a batch decided without a
        // hold is never written after the store was rolled back.
        let since = self.progress.since();
        let cx = self.cx(&loaded.record.account);
        let mut stepped = step(&loaded.record, evidence, &cx, input);
        let mut appends = Vec::new();
        for kind in std::mem::take(&mut stepped.events) {
            stepped.record.last_seq += 1;
            let seq = stepped.record.last_seq;
            let event = stepped.record.event(seq, cx.now, kind);
            appends.push((seq, serde_json::to_vec(&event).unwrap_or_default()));
        }
        let after = stepped.record.encode();
        if loaded.bytes == after && appends.is_empty() && extra.puts.is_empty() {
            *evidence = stepped.evidence;
            return Ok(false);
        }
        let id = loaded.record.id;
        let has_events = !appends.is_empty();
        let mut batch = Batch::new().since(since);
        if self.policy.safeguards().fence {
            match self.lease.fence() {
                Some(fence) => batch = batch.fenced(fence),
                None => return Err(CommitError::Fenced),
            }
            batch.guard(Table::Sessions, *id.as_bytes(), Some(loaded.version));
        }
        batch.guards.extend(extra.guards);
        batch.puts.extend(extra.puts);
        entries::put_session(
            &mut batch,
            Some((&loaded.record, &loaded.bytes)),
            &stepped.record,
            after.clone(),
        );
        if let Some(attempt) = stepped.intended {
            let row = AttemptRow {
                session: id,
                account: stepped.record.account.clone(),
            };
            batch.guard(Table::Attempts, *attempt.as_bytes(), None);
            batch.put(
                Table::Attempts,
                *attempt.as_bytes(),
                serde_json::to_vec(&row).unwrap_or_default(),
            );
        }
        if stepped.erase {
            batch.delete(Table::Sealed, *id.as_bytes());
            batch.delete(Table::Touches, *id.as_bytes());
        }
        for (seq, payload) in appends {
            batch.append(*id.as_bytes(), seq, payload);
        }
        let version = self.store.commit(batch).await?;
        loaded.record = stepped.record;
        (loaded.version, loaded.bytes) = (version, after);
        *evidence = stepped.evidence;
        self.slots.reindex(&loaded.record);
        if loaded.record.ending.is_some() {
            // From here on no touch is acknowledged, because it could not keep the session alive.
            self.touches.remove(id);
        }
        if has_events {
            self.fed.notify_one();
        }
        Ok(true)
    }

    /// Commits an input that does not come from the session's own driver: a stop, an extension, a
    /// report. Wakes the driver if it is on this node; an owner on another node learns of it
    /// through the feed.
    pub(crate) async fn tell(&self, id: SessionId, input: &Input) -> Result<Loaded> {
        let mut last = Error::new(ErrorKind::Conflict, "the record was changed meanwhile");
        for _ in 0..16 {
            let mut loaded = self.require(id).await?;
            match self
                .apply(
                    &mut loaded,
                    &mut Evidence::default(),
                    input,
                    Extra::default(),
                )
                .await
            {
                Ok(_) => {
                    self.slots.wake(id);
                    return Ok(loaded);
                }
                Err(CommitError::Conflict) => {}
                // The caller does not know yet that the store was rolled back, so that error is
                // returned first.
                Err(refused @ CommitError::RolledBack) => return Err(refused.into()),
                Err(error) => {
                    last = error.into();
                    // The commit may have been applied: the next round reads again before it
                    // decides.
                    if !self.sleep(Duration::from_millis(200)).await {
                        break;
                    }
                }
            }
        }
        Err(last)
    }
}
