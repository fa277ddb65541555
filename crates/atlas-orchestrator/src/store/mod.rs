//! Storage of records: rows with versions, batches with guards and a fence, event logs, and leases
//! on the store's own clock.
//!
//! A store does not interpret sessions: keys and values are bytes, serialised by the kernel's
//! records. It guarantees exactly what the protocols in docs/architecture.md rely on: a batch is
//! applied completely or not at all, and only if every guard still holds and its fence is still the
//! newest of its scope. The backend `memory` is here; others are crates of their own, and the
//! `conformance` suite checks whether a backend keeps the guarantees.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(test, feature = "conformance"))]
mod faulty;
mod holder;
mod memory;

use std::fmt::{self, Debug};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Timestamp};

#[cfg(any(test, feature = "conformance"))]
pub use self::faulty::{FaultyStore, StoreFault, StoreFaults, StoreOp};
pub use self::holder::StoreOwner;
pub use self::memory::{Memory, MemorySnapshot, draw_incarnation, other_realm};

/// The tables of the schema. Changes only add: a store creates tables that it lacks, and keeps
/// those it no longer knows. Matching it is exhaustive, so that a store must decide where the rows
/// of a new table go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Sessions with their attempts, by session id.
    Sessions,
    /// Sealed requests and credentials, by session id; erased when the session ends.
    Sealed,
    /// The session of each attempt, by attempt id; kept for the retention after its end.
    Attempts,
    /// Machine ids seen for an attempt, by attempt id and cloud id. Append-only.
    Sightings,
    /// The latest durable activity, by session id.
    Touches,
    /// The recorded state of an account: identity, scans, quarantine, breaker.
    Accounts,
    /// The last sign of life, by node name.
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
    /// The session of each session key, by key.
    Keys,
}

impl Table {
    /// Every table, in the order of their making.
    pub const ALL: [Self; 12] = [
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
        Self::Keys,
    ];

    /// The stable name, such as `sessions`.
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
            Self::Keys => "keys",
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
    /// The content of the row.
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

/// A right to write, with its number in the order of all such rights of one scope. A newer one
/// invalidates all older ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What the right applies to: `node/<name>`.
    pub scope: String,
    /// The holder of the right.
    pub holder: String,
    /// Increases with every acquisition of the scope, permanently, also after release and expiry.
    pub number: u64,
    /// When it expires, on the store's clock.
    pub expires_at: Timestamp,
    /// The store's clock when it was granted or renewed.
    pub store_time: Timestamp,
}

/// A condition that must hold for a batch to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The table of the guarded row.
    pub table: Table,
    /// The key of the guarded row.
    pub key: Vec<u8>,
    /// The version that was read; `None` if the row must not exist.
    pub expected: Option<u64>,
}

/// One event to append to a session's log.
#[derive(Clone, PartialEq, Eq)]
pub struct Append {
    /// The id of the session whose log is appended to.
    pub session: [u8; 16],
    /// The sequence number, from 1 and without gaps: the caller allocates it and guards the row
    /// that counts it. A store refuses one that does not follow the newest of that log
    /// ([`CommitError::Conflict`]).
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

/// A stored event.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The position among all events of this store, from 1, increasing without gaps: the cursor of
    /// [`Store::feed`].
    pub position: u64,
    /// The id of the session.
    pub session: [u8; 16],
    /// The sequence number in the session's log.
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

/// How far a store had come when it was last read. A store that is behind this point was rolled
/// back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePoint {
    /// The incarnation id of the store.
    pub incarnation: String,
    /// The number of its newest commit.
    pub commit: u64,
}

impl StorePoint {
    /// The current point of a store.
    #[must_use]
    pub fn of(info: &StoreInfo) -> Self {
        Self {
            incarnation: info.incarnation.clone(),
            commit: info.last_commit,
        }
    }

    /// Whether a store with this incarnation and newest commit `commit` has reached this point.
    #[must_use]
    pub fn is_reached_by(&self, incarnation: &str, commit: u64) -> bool {
        self.incarnation == incarnation && self.commit <= commit
    }
}

/// One transaction: applied completely or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The writer's knowledge of the store: a store that has not come this far, or is another,
    /// refuses the batch.
    pub since: Option<StorePoint>,
    /// The right under which it is written; `None` for rows that may always be appended
    /// (sightings).
    pub fence: Option<Fence>,
    /// Conditions that must hold.
    pub guards: Vec<Guard>,
    /// Rows to insert or overwrite.
    pub puts: Vec<(Table, Vec<u8>, Vec<u8>)>,
    /// Rows to delete; a missing row is not an error.
    pub deletes: Vec<(Table, Vec<u8>)>,
    /// Events to append, of any sessions; those of one session in ascending `seq`.
    pub appends: Vec<Append>,
}

impl Batch {
    /// An empty batch without a fence.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires that this fence is the newest of its scope.
    #[must_use]
    pub fn fenced(self, fence: Fence) -> Self {
        Self {
            fence: Some(fence),
            ..self
        }
    }

    /// Requires that the store has come at least this far.
    #[must_use]
    pub fn since(self, point: Option<StorePoint>) -> Self {
        Self {
            since: point,
            ..self
        }
    }

    /// Requires that the row has this version, or does not exist.
    pub fn guard(&mut self, table: Table, key: impl Into<Vec<u8>>, expected: Option<u64>) {
        self.guards.push(Guard {
            table,
            key: key.into(),
            expected,
        });
    }

    /// Adds a row to write.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.puts.push((table, key.into(), value.into()));
    }

    /// Adds a row to delete.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.deletes.push((table, key.into()));
    }

    /// Adds an event to append.
    pub fn append(&mut self, session: [u8; 16], seq: u64, payload: impl Into<Vec<u8>>) {
        self.appends.push(Append {
            session,
            seq,
            payload: payload.into(),
        });
    }

    /// Whether it changes nothing. Committing an empty batch still checks its guards and its fence.
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
    /// The fence is no longer the newest of its scope. Nothing was written.
    Fenced,
    /// The store has not come as far as [`Batch::since`] says, or is another: it was rolled back,
    /// replaced or removed while the writer used it. Nothing was written.
    RolledBack,
    /// The store could not be reached, or did not answer. **The batch may have been applied**: read
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

/// Information that a store gives about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// The kind of store: `memory`, `redb`, `postgres`, ...
    pub kind: String,
    /// The schema version of the stored data.
    pub schema_version: u32,
    /// The realm it belongs to (`Realm::fingerprint`), once one was bound to it.
    pub fingerprint: Option<String>,
    /// A random id, drawn for each new store and at each accept: a copy has the same, a fresh store
    /// another.
    pub incarnation: String,
    /// The number of the newest commit.
    pub last_commit: u64,
    /// The position of the newest event, 0 before the first.
    pub last_position: u64,
    /// Whether it outlives the process.
    pub durable: bool,
    /// Whether it is locked for one process at a time. The holder of an unexpired lease with the
    /// same name is then known to be dead.
    pub exclusive: bool,
}

/// A guarded row store. Implement this; call through [`AnyStore`].
///
/// # Errors
/// For every method: `unavailable` when the store cannot be reached. A failed read says nothing
/// about the contents.
///
/// # Cancel safety
/// Reads are cancel safe. A dropped [`Store::commit`] may have been applied.
pub trait Store: Debug + Send + Sync + 'static {
    /// The path where this store lives, if it has one on this machine; the path exists.
    ///
    /// What belongs to the store then lies beside it: the realm's secret, the note of its holder
    /// ([`StoreOwner`]), and the socket of the process that has it open. A store without a path is
    /// known to its process alone.
    fn location(&self) -> Option<&Path> {
        None
    }

    /// Information about this store, freshly read.
    fn info(&self) -> impl Future<Output = Result<StoreInfo, Error>> + Send;

    /// Binds a store without a realm to this one; does nothing if it is already bound to it.
    ///
    /// # Errors
    /// `conflict` when it is bound to another realm.
    fn bind(&self, fingerprint: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// Durably sets the incarnation: an operator accepted the store as the authoritative copy.
    fn set_incarnation(&self, incarnation: &str) -> impl Future<Output = Result<(), Error>> + Send;

    /// Reads one row.
    fn get(
        &self,
        table: Table,
        key: &[u8],
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send;

    /// Rows in ascending order of key whose key begins with `prefix`, after `after` (from the first
    /// if `None`); at most `limit`.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;

    /// Applies a batch, and returns its commit number when it is durable. An empty batch checks
    /// guards and fence, and returns the newest number.
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

    /// Deletes the events of a session up to and including `seq`. The next append still follows the
    /// newest event that ever existed.
    fn forget_events(
        &self,
        session: [u8; 16],
        up_to_seq: u64,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Acquires a scope that is free, expired, or held by the same holder; its number increases by
    /// one. `None` if another holder has it.
    fn lease_acquire(
        &self,
        scope: &str,
        holder: &str,
        ttl: Duration,
    ) -> impl Future<Output = Result<Option<Fence>, Error>> + Send;

    /// Extends a lease with the same number, also after its expiry if no other holder acquired it.
    /// `None` if another did.
    fn lease_renew(
        &self,
        fence: &Fence,
        ttl: Duration,
    ) -> impl Future<Output = Result<Option<Fence>, Error>> + Send;

    /// Releases a lease. Does nothing if it has been acquired by another holder.
    fn lease_release(&self, fence: &Fence) -> impl Future<Output = Result<(), Error>> + Send;

    /// All leases whose scope begins with `prefix`, in order of scope, including expired and
    /// released ones (a released one has `expires_at` at its release).
    fn leases(&self, prefix: &str) -> impl Future<Output = Result<Vec<Fence>, Error>> + Send;

    /// Reads the store's clock.
    fn now(&self) -> impl Future<Output = Result<Timestamp, Error>> + Send;
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

macro_rules! handle {
    ($($op:ident($($arg:ident: $ty:ty),*) -> $out:ty;)*) => {
        trait Erased: Debug + Send + Sync {
            fn location(&self) -> Option<&Path>;
            $(fn $op<'a>(&'a self $(, $arg: $ty)*) -> BoxFuture<'a, $out>;)*
        }

        impl<S: Store> Erased for S {
            fn location(&self) -> Option<&Path> {
                Store::location(self)
            }

            $(fn $op<'a>(&'a self $(, $arg: $ty)*) -> BoxFuture<'a, $out> {
                Box::pin(Store::$op(self $(, $arg)*))
            })*
        }

        #[expect(clippy::needless_lifetimes, reason = "the operations that borrow need it, and one \
            pattern serves all")]
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
    scan(table: Table, prefix: &'a [u8], after: Option<&'a [u8]>, limit: usize) -> Result<Vec<Row>,
        Error>;
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

/// A handle to any store, built-in or user-defined. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AnyStore(Arc<dyn Erased>);

impl AnyStore {
    /// Wraps a store.
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }

    /// See [`Store::location`].
    #[must_use]
    pub fn location(&self) -> Option<&Path> {
        self.0.location()
    }
}

impl<S: Store> From<S> for AnyStore {
    fn from(store: S) -> Self {
        Self::new(store)
    }
}
