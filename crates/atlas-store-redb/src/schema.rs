//! The contents of the file: redb tables, row encodings, schema versions and migrations.

use atlas_core::{Error, ErrorKind, Timestamp};
use atlas_orchestrator::store::{Fence, Table};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

/// A table whose keys and values are plain bytes.
pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The store's own metadata, by name.
pub(super) const META: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("meta");
/// Events by session and sequence number: position, then payload.
pub(super) const EVENTS: Bytes = TableDefinition::new("events");
/// The location of the event at a position.
pub(super) const FEED: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("feed");
/// The newest sequence number ever used, by session; kept after the events are deleted.
pub(super) const HEADS: TableDefinition<'static, &'static [u8], u64> =
    TableDefinition::new("heads");
/// Leases by scope, as JSON.
pub(super) const LEASES: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("leases");

pub(super) const FORMAT: &str = "format";
pub(super) const SCHEMA_VERSION: &str = "schema_version";
pub(super) const FINGERPRINT: &str = "fingerprint";
pub(super) const INCARNATION: &str = "incarnation";
pub(super) const LAST_COMMIT: &str = "last_commit";
pub(super) const LAST_POSITION: &str = "last_position";

const FORMAT_NAME: &[u8] = b"atlas store";

/// A migration from the schema version that is its index in [`STEPS`] to the next. Migrations only
/// add.
pub(super) type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// Every step there is: this atlas writes the version that is their number.
pub(super) const STEPS: &[Step] = &[make_tables, make_indexes, make_keys];

/// Version 1: the tables of the contract, events, feed, heads and leases.
fn make_tables(txn: &WriteTransaction) -> Result<(), redb::Error> {
    let is_later = |table: &Table| is_index(*table) || *table == Table::Keys;
    for table in Table::ALL.into_iter().filter(|table| !is_later(table)) {
        txn.open_table(rows(table))?;
    }
    txn.open_table(EVENTS)?;
    txn.open_table(FEED)?;
    txn.open_table(HEADS)?;
    txn.open_table(LEASES)?;
    Ok(())
}

/// Version 2: the tables of the indexes over sessions. The runtime fills them.
fn make_indexes(txn: &WriteTransaction) -> Result<(), redb::Error> {
    for table in Table::ALL.into_iter().filter(|table| is_index(*table)) {
        txn.open_table(rows(table))?;
    }
    Ok(())
}

/// Version 3: the table of session keys.
fn make_keys(txn: &WriteTransaction) -> Result<(), redb::Error> {
    txn.open_table(rows(Table::Keys))?;
    Ok(())
}

fn is_index(table: Table) -> bool {
    matches!(table, Table::Live | Table::Users | Table::Ended)
}

/// Where the rows of a table are.
pub(super) fn rows(table: Table) -> Bytes {
    TableDefinition::new(match table {
        Table::Sessions => "rows/sessions",
        Table::Sealed => "rows/sealed",
        Table::Attempts => "rows/attempts",
        Table::Sightings => "rows/sightings",
        Table::Touches => "rows/touches",
        Table::Accounts => "rows/accounts",
        Table::Nodes => "rows/nodes",
        Table::Realm => "rows/realm",
        Table::Live => "rows/live",
        Table::Users => "rows/users",
        Table::Ended => "rows/ended",
        Table::Keys => "rows/keys",
    })
}

/// Initialises an empty database as a store.
pub(super) fn create(db: &Database, incarnation: &str) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert(FORMAT, FORMAT_NAME)?;
        meta.insert(SCHEMA_VERSION, 0_u64.to_be_bytes().as_slice())?;
        meta.insert(INCARNATION, incarnation.as_bytes())?;
        meta.insert(LAST_COMMIT, 0_u64.to_be_bytes().as_slice())?;
        meta.insert(LAST_POSITION, 0_u64.to_be_bytes().as_slice())?;
    }
    txn.commit()?;
    migrate(db, 0, STEPS)
}

/// Checks that this database is a store that this atlas can serve, and returns its schema version.
pub(super) fn examine(db: &Database) -> Result<u64, Error> {
    let txn = db.begin_read().map_err(|e| unreadable(e.into()))?;
    let not_ours = || Error::validation("store", "is a redb database, but not a store of atlas");
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(e)) => return Err(unreadable(e.into())),
        Err(_) => return Err(not_ours()),
    };
    let format = meta.get(FORMAT).map_err(|e| unreadable(e.into()))?;
    if format.is_none_or(|f| f.value() != FORMAT_NAME) {
        return Err(not_ours());
    }
    let version = number(&meta, SCHEMA_VERSION)?;
    let known = STEPS.len() as u64;
    // Schema versions only add, so one version ahead is readable and writable: during a rolling
    // update both versions run.
    if version > known + 1 {
        return Err(Error::validation(
            "store",
            format!(
                "was written by a newer atlas (schema {version}, this one knows up to {}): use \
                    that one",
                known + 1
            ),
        ));
    }
    number(&meta, LAST_COMMIT)?;
    number(&meta, LAST_POSITION)?;
    Ok(version)
}

/// Runs the pending migrations; each is committed with its version number in one transaction.
pub(super) fn migrate(db: &Database, from: u64, steps: &[Step]) -> Result<(), redb::Error> {
    for (done, step) in (1_u64..)
        .zip(steps)
        .skip(usize::try_from(from).unwrap_or(usize::MAX))
    {
        let txn = db.begin_write()?;
        step(&txn)?;
        txn.open_table(META)?
            .insert(SCHEMA_VERSION, done.to_be_bytes().as_slice())?;
        txn.commit()?;
    }
    Ok(())
}

/// A number in the store's metadata.
pub(super) fn number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<u64, Error> {
    let found = meta.get(name).map_err(|e| unreadable(e.into()))?;
    let bytes = found.and_then(|v| <[u8; 8]>::try_from(v.value()).ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| {
        Error::new(
            ErrorKind::Unavailable,
            format!("the store lacks its {name}"),
        )
    })
}

/// A text in the store's metadata.
pub(super) fn text(txn: &ReadTransaction, name: &str) -> Result<Option<String>, Error> {
    let meta = txn.open_table(META).map_err(|e| unreadable(e.into()))?;
    let found = meta.get(name).map_err(|e| unreadable(e.into()))?;
    Ok(found.map(|v| String::from_utf8_lossy(v.value()).into_owned()))
}

/// Splits a version or position from the bytes that follow it.
pub(super) fn split_number(bytes: &[u8]) -> Result<(u64, &[u8]), Error> {
    let (number, rest) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
    Ok((u64::from_be_bytes(*number), rest))
}

/// The inverse of [`split_number`].
pub(super) fn join_number(number: u64, rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + rest.len());
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(rest);
    out
}

/// The key of an event: session id and sequence number, which sort in that order.
pub(super) fn event_key(session: &[u8; 16], seq: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(session);
    key[16..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The inverse of [`event_key`].
pub(super) fn split_event_key(key: &[u8]) -> Result<([u8; 16], u64), Error> {
    let (session, seq) = key.split_first_chunk::<16>().ok_or_else(malformed)?;
    Ok((
        *session,
        u64::from_be_bytes(seq.try_into().map_err(|_| malformed())?),
    ))
}

/// A stored lease.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lease {
    holder: String,
    number: u64,
    expires_at_ms: i64,
    store_time_ms: i64,
    pub(super) released: bool,
}

impl Lease {
    pub(super) fn of(fence: &Fence) -> Self {
        Self {
            holder: fence.holder.clone(),
            number: fence.number,
            expires_at_ms: fence.expires_at.unix_millis(),
            store_time_ms: fence.store_time.unix_millis(),
            released: false,
        }
    }

    pub(super) fn ended(fence: &Fence) -> Self {
        Self {
            released: true,
            ..Self::of(fence)
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|e| malformed().with_source(e))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a lease is plain numbers and text")
    }

    pub(super) fn fence(&self, scope: &str) -> Fence {
        Fence {
            scope: scope.to_owned(),
            holder: self.holder.clone(),
            number: self.number,
            expires_at: Timestamp::from_unix_millis(self.expires_at_ms),
            store_time: Timestamp::from_unix_millis(self.store_time_ms),
        }
    }

    /// Whether the fence's owner still holds it: not released, and not acquired by another since.
    pub(super) fn is(&self, fence: &Fence) -> bool {
        !self.released && self.number == fence.number && self.holder == fence.holder
    }
}

fn malformed() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the store holds a row that is not of its schema",
    )
}

/// The error for a failed redb operation.
pub(super) fn unreadable(source: redb::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the store's file could not be read or written",
    )
    .with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    fn add_table(txn: &WriteTransaction) -> Result<(), redb::Error> {
        txn.open_table(TableDefinition::<&str, u64>::new("rows/new"))?;
        Ok(())
    }

    fn database() -> Database {
        Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .unwrap()
    }

    #[test]
    fn an_older_store_is_carried_forward_with_its_rows_and_one_version_ahead_is_served() {
        let db = database();
        create(&db, "i").unwrap();
        let known = STEPS.len() as u64;
        assert_eq!(examine(&db).unwrap(), known);
        let txn = db.begin_write().unwrap();
        txn.open_table(rows(Table::Realm))
            .unwrap()
            .insert(b"k".as_slice(), b"v".as_slice())
            .unwrap();
        txn.commit().unwrap();

        let longer: Vec<Step> = STEPS.iter().copied().chain([add_table as Step]).collect();
        migrate(&db, known, &longer).unwrap();
        migrate(&db, known + 1, &longer).unwrap();
        assert_eq!(
            examine(&db).unwrap(),
            known + 1,
            "written by the next atlas, served by this one"
        );
        let read = db.begin_read().unwrap();
        assert_eq!(
            read.open_table(rows(Table::Realm))
                .unwrap()
                .get(b"k".as_slice())
                .unwrap()
                .unwrap()
                .value(),
            b"v"
        );
        assert!(
            read.open_table(TableDefinition::<&str, u64>::new("rows/new"))
                .is_ok()
        );

        let longest: Vec<Step> = longer.iter().copied().chain([add_table as Step]).collect();
        migrate(&db, known + 1, &longest).unwrap();
        let refused = examine(&db).unwrap_err();
        assert!(refused.to_string().contains("newer atlas"), "{refused}");
    }

    #[test]
    fn a_database_of_somebody_else_is_refused() {
        let db = database();
        assert!(
            examine(&db)
                .unwrap_err()
                .to_string()
                .contains("not a store of atlas")
        );
        let txn = db.begin_write().unwrap();
        txn.open_table(META)
            .unwrap()
            .insert(FORMAT, b"something else".as_slice())
            .unwrap();
        txn.commit().unwrap();
        assert!(
            examine(&db)
                .unwrap_err()
                .to_string()
                .contains("not a store of atlas")
        );
    }
}
