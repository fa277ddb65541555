//! Where records live: rows with versions, batches with guards and a fence, event logs, leases on
//! the store's own clock.
//!
//! A store does not interpret sessions: keys and values are bytes, serialised by the kernel's
//! records. It promises exactly what the protocols in docs/architecture.md rest on: a batch is
//! applied wholly or not at all, and only if every guard still holds and its fence is still the
//! newest of its scope. Backends: `memory`, `redb`, and any of yours; the `conformance` suite tells
//! whether yours keeps the promises.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(test, feature = "conformance"))]
mod faulty;
mod memory;
#[cfg(feature = "redb")]
mod redb;

use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Timestamp};

#[cfg(any(test, feature = "conformance"))]
pub use self::faulty::{FaultyStore, StoreFault, StoreFaults, StoreOp};
pub use self::memory::{Memory, MemorySnapshot};
#[cfg(feature = "redb")]
pub use self::redb::{Redb, RedbOptions, StoreOwner};

/// The tables of the schema. Additive: a store makes those it does not know of yet, and keeps those
/// it does not know any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Table {
    /// Sessions with their attempts, by session id.
    Sessions,
    /// Sealed requests and credentials, by session id; erased when the session ends.
    Sealed,
    /// Which session an attempt belongs to, by attempt id; kept for the retention after its end.
    Attempts,
    /// Ids ever seen under an attempt, by attempt id and cloud id. Append-only.
    Sightings,
    /// Newest durable activity, by session id.
    Touches,
    /// What is known of an account: identity, scans, quarantine, breaker.
    Accounts,
    /// Last signs of life, by node name.
    Nodes,
    /// The realm's own rows: the hold, the stores that were accepted, the newest death of a node,
    /// how far the indexes are built.
    Realm,
    /// Index of the sessions that are not over, by session id: the head of the session's row, empty
    /// when the row has none.
    Live,
    /// Index of sessions by user, then whether they are over, then session id.
    Users,
    /// Index of the sessions that are over, by whether their events were forgotten, then the time
    /// of their end, then session id.
    Ended,
}

impl Table {
    /// Every table, in the order of their making.
    pub const ALL: [Self; 11] = [
        Self::Sessions,
        Self::Sealed,
        Self::Attempts,
        Self::Sightings,
        Self::Touches,
        Self::Accounts,
        Self::Nodes,
        Self::Realm,
        Self::Live,
        Self::Users,
        Self::Ended,
    ];

    /// The stable name: `sessions`, ...
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Sealed => "sealed",
            Self::Attempts => "attempts",
            Self::Sightings => "sightings",
            Self::Touches => "touches",
            Self::Accounts => "accounts",
            Self::Nodes => "nodes",
            Self::Realm => "realm",
            Self::Live => "live",
            Self::Users => "users",
            Self::Ended => "ended",
        }
    }
}

/// One row. Its version is the number of the commit that wrote it last.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// The row's key within its table.
    pub key: Vec<u8>,
    /// The number of the commit that wrote it last.
    pub version: u64,
    /// What it holds.
    pub value: Vec<u8>,
}

impl Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("version", &self.version)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

/// A right to write, and its place in the order of all such rights of one scope. A newer one ends
/// all older ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What it is a right to: `node/<name>`.
    pub scope: String,
    /// Who holds it.
    pub holder: String,
    /// Grows with every acquisition of the scope, for ever, also after release and expiry.
    pub number: u64,
    /// Until when, on the store's clock.
    pub expires_at: Timestamp,
    /// The store's clock when it was granted or renewed.
    pub store_time: Timestamp,
}

/// What must still be so for a batch to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Which table.
    pub table: Table,
    /// Which row.
    pub key: Vec<u8>,
    /// The version that was read; `None` when the row must not exist.
    pub expected: Option<u64>,
}

/// One event to append to a session's log.
#[derive(Clone, PartialEq, Eq)]
pub struct Append {
    /// Whose log, by the session's id.
    pub session: [u8; 16],
    /// Its place, from 1, without gaps: the caller allocates it and guards the row that counts it.
    /// A store refuses one that does not follow the newest of that log ([`CommitError::Conflict`]).
    pub seq: u64,
    /// The event.
    pub payload: Vec<u8>,
}

impl Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("seq", &self.seq)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// An event as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its place among all events of this store, from 1, growing, without gaps: the cursor of
    /// [`Store::feed`].
    pub position: u64,
    /// Whose log.
    pub session: [u8; 16],
    /// Its place in that log.
    pub seq: u64,
    /// The event.
    pub payload: Vec<u8>,
}

impl Debug for StoredEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredEvent")
            .field("position", &self.position)
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

/// How far a store had come when it was last heard of. A store that is behind it was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePoint {
    /// The incarnation id of the store.
    pub incarnation: String,
    /// The number of its newest commit.
    pub commit: u64,
}

impl StorePoint {
    /// Where a store is now.
    #[must_use]
    pub fn of(info: &StoreInfo) -> Self {
        Self {
            incarnation: info.incarnation.clone(),
            commit: info.last_commit,
        }
    }

    /// Whether a store of this incarnation, whose newest commit is `commit`, has reached it.
    #[must_use]
    pub fn is_reached_by(&self, incarnation: &str, commit: u64) -> bool {
        self.incarnation == incarnation && self.commit <= commit
    }
}

/// One transaction: all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// What the writer knows of the store: it is refused by a store that has not come so far, or
    /// is another.
    pub since: Option<StorePoint>,
    /// The right under which it is written; none for what may always be appended (sightings).
    pub fence: Option<Fence>,
    /// What must still be so.
    pub guards: Vec<Guard>,
    /// Rows to write, new or over the old.
    pub puts: Vec<(Table, Vec<u8>, Vec<u8>)>,
    /// Rows to remove; one that is not there is no error.
    pub deletes: Vec<(Table, Vec<u8>)>,
    /// Events to append, of any sessions; those of one session in ascending `seq`.
    pub appends: Vec<Append>,
}

impl Batch {
    /// Writes nothing, under no fence.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only while this fence is the newest of its scope.
    #[must_use]
    pub fn fenced(self, fence: Fence) -> Self {
        Self {
            fence: Some(fence),
            ..self
        }
    }

    /// Only on a store that has come at least so far.
    #[must_use]
    pub fn since(self, point: Option<StorePoint>) -> Self {
        Self {
            since: point,
            ..self
        }
    }

    /// Only while the row has this version, or does not exist.
    pub fn guard(&mut self, table: Table, key: impl Into<Vec<u8>>, expected: Option<u64>) {
        self.guards.push(Guard {
            table,
            key: key.into(),
            expected,
        });
    }

    /// Writes a row.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.puts.push((table, key.into(), value.into()));
    }

    /// Removes a row.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.deletes.push((table, key.into()));
    }

    /// Appends an event.
    pub fn append(&mut self, session: [u8; 16], seq: u64, payload: impl Into<Vec<u8>>) {
        self.appends.push(Append {
            session,
            seq,
            payload: payload.into(),
        });
    }

    /// Whether it changes nothing. Committing it still tests its guards and its fence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty() && self.appends.is_empty()
    }
}

/// Why a batch was not applied.
#[derive(Debug)]
pub enum CommitError {
    /// A guard did not hold. Nothing was written.
    Conflict,
    /// The fence is not the newest of its scope any more. Nothing was written.
    Fenced,
    /// The store has not come as far as [`Batch::since`] says, or is another: it was rolled back,
    /// replaced or removed under the writer. Nothing was written.
    RolledBack,
    /// The store could not be asked, or did not answer. **The batch may have been applied**: read
    /// again before deciding.
    Store(Error),
}

impl From<CommitError> for Error {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => {
                Self::new(ErrorKind::Conflict, "the record was changed meanwhile")
            }
            CommitError::Fenced => {
                Self::new(ErrorKind::Unavailable, "another owner has taken over")
            }
            CommitError::RolledBack => Self::new(
                ErrorKind::Unavailable,
                "the store was rolled back, replaced or removed under this process: nothing is \
                 ended or made until an operator accepts it (atlas doctor --accept-store)",
            ),
            CommitError::Store(error) => error,
        }
    }
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// `memory`, `redb`, `postgres`, ...
    pub kind: String,
    /// Of the data on disk.
    pub schema_version: u32,
    /// The realm it belongs to (`Realm::fingerprint`), once one was bound to it.
    pub fingerprint: Option<String>,
    /// Drawn for each new store and at each accept: a copy has the same, a fresh store another.
    pub incarnation: String,
    /// The number of the newest commit.
    pub last_commit: u64,
    /// The position of the newest event, 0 before the first.
    pub last_position: u64,
    /// Whether it outlives the process.
    pub durable: bool,
    /// Whether it is locked for one process at a time: then the holder of an unexpired lease of the
    /// same name is known to be dead.
    pub exclusive: bool,
}

/// A guarded row store. Implement this; call through [`AnyStore`].
///
/// # Errors
/// Everywhere: `unavailable` when the store cannot be asked. A read that fails says nothing about
/// what is there.
///
/// # Cancel safety
/// Reads are. A dropped [`Store::commit`] may have been applied.
pub trait Store: Debug + Send + Sync + 'static {
    /// What this store is, freshly read.
    fn info(&self) -> impl Future<Output = Result<StoreInfo, Error>> + Send;

    /// Binds a store without a realm to this one; does nothing when it is bound to it already.
    ///
    /// # Errors
    /// `conflict` when it is bound to another.
    fn bind(&self, fingerprint: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// Gives the store this incarnation, durably: the operator accepted it as the surviving copy.
    fn set_incarnation(&self, incarnation: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// One row.
    fn get(
        &self,
        table: Table,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send;

    /// Rows in ascending order of key, those after `after` (from the first when `None`) that begin
    /// with `prefix`; at most `limit`.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;

    /// Applies a batch, and answers its number once it is durable. An empty batch tests guards and
    /// fence, and answers the newest number.
    ///
    /// # Errors
    /// See [`CommitError`].
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<u64, CommitError>> + Send;

    /// Events of one session after `after_seq`, in order; at most `limit`.
    fn events(
        &self,
        session: [u8; 16],
        after_seq: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, Error>> + Send;

    /// Events of all sessions after `after_position`, in the order of their commits; at most
    /// `limit`.
    fn feed(
        &self,
        after_position: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, Error>> + Send;

    /// Forgets the events of a session up to and including `seq`. The next append still follows the
    /// newest there ever was.
    fn forget_events(
        &self,
        session: [u8; 16],
        up_to_seq: u64,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes a scope that is free, expired, or held by the same holder; its number grows by one.
    /// `None` when another holds it.
    fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<Option<Fence>, Error>> + Send;

    /// Prolongs a lease, keeping its number, also after its expiry if nobody took it. `None` when
    /// it is not ours any more.
    fn lease_renew(
        &self,
        fence: &Fence,
        ttl: Duration,
    ) -> impl Future<Output = Result<Option<Fence>, Error>> + Send;

    /// Gives a lease back. Not ours any more: nothing.
    fn lease_release(&self, fence: &Fence) -> impl Future<Output = Result<(), Error>> + Send;

    /// The leases there ever were whose scope begins with `prefix`, in order of scope, expired and
    /// released ones too (a released one has `expires_at` at its release).
    fn leases(&self, prefix: &str) -> impl Future<Output = Result<Vec<Fence>, Error>> + Send;

    /// The store's clock.
    fn now(&self) -> impl Future<Output = Result<Timestamp, Error>> + Send;
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

macro_rules! handle {
    ($($op:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        trait Erased: Debug + Send + Sync {
            $(fn $op<'a>(&'a self $(, $arg: $ty)*) -> BoxFuture<'a, $out>;)*
        }

        impl<S: Store> Erased for S {
            $(fn $op<'a>(&'a self $(, $arg: $ty)*) -> BoxFuture<'a, $out> {
                Box::pin(Store::$op(self $(, $arg)*))
            })*
        }

        #[expect(clippy::needless_lifetimes, reason = "the operations that borrow need it, and one pattern serves all")]
        impl AnyStore {
            $(
                #[doc = concat!("See [`Store::", stringify!($op), "`].")]
                ///
                /// # Errors
                #[doc = concat!("See [`Store::", stringify!($op), "`].")]
                pub async fn $op<'a>(&'a self $(, $arg: $ty)*) -> $out {
                    self.0.$op($($arg),*).await
                }
            )*
        }
    };
}

handle! {
    info() -> Result<StoreInfo, Error>;
    bind(fingerprint: &'a str) -> Result<(), Error>;
    set_incarnation(incarnation: &'a str) -> Result<(), Error>;
    get(table: Table, key: &'a [u8]) -> Result<Option<Row>, Error>;
    scan(table: Table, prefix: &'a [u8], after: Option<&'a [u8]>, limit: usize) -> Result<Vec<Row>, Error>;
    commit(batch: Batch) -> Result<u64, CommitError>;
    events(session: [u8; 16], after_seq: u64, limit: usize) -> Result<Vec<StoredEvent>, Error>;
    feed(after_position: u64, limit: usize) -> Result<Vec<StoredEvent>, Error>;
    forget_events(session: [u8; 16], up_to_seq: u64) -> Result<(), Error>;
    lease_acquire(scope: &'a str, holder: &'a str, ttl: Duration) -> Result<Option<Fence>, Error>;
    lease_renew(fence: &'a Fence, ttl: Duration) -> Result<Option<Fence>, Error>;
    lease_release(fence: &'a Fence) -> Result<(), Error>;
    leases(prefix: &'a str) -> Result<Vec<Fence>, Error>;
    now() -> Result<Timestamp, Error>;
}

/// Any store, ours or yours. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AnyStore(Arc<dyn Erased>);

impl AnyStore {
    /// Takes a store.
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}
