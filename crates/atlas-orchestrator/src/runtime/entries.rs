//! The rows of a session and their index entries: the one place that writes them, so that an entry
//! is never committed without the record it says something about.
//!
//! The indexes are `Live` (what is to be looked after), `Users` (whose sessions) and `Ended` (what
//! the janitor has to do, and when). `index` says whether they cover every session of a store.

use atlas_core::{Result, Timestamp};

use super::core::Core;
use crate::ids::SessionId;
use crate::kernel::SessionRecord;
use crate::kernel::glance::head;
use crate::store::{Batch, Table};

/// Entries per scan of an index.
const PAGE: usize = 1000;

type Entry = (Table, Vec<u8>, Vec<u8>);

/// Writes a session's row, brings its index entries up to date, and releases its session key when
/// it no longer holds it. `before` is the record that it replaces, with its row.
pub(crate) fn put_session(
    batch: &mut Batch,
    before: Option<(&SessionRecord, &[u8])>,
    after: &SessionRecord,
    row: Vec<u8>,
) {
    let old = before.map_or_else(Vec::new, |(record, row)| of(record, row));
    let new = of(after, &row);
    for (table, key, _) in &old {
        if !new.iter().any(|(t, k, _)| (t, k) == (table, key)) {
            batch.delete(*table, key.clone());
        }
    }
    batch.put(Table::Sessions, *after.id.as_bytes(), row);
    if let Some(key) = before.and_then(|(record, _)| record.held_key())
        && after.held_key().is_none()
    {
        batch.delete(Table::Keys, key.as_bytes());
    }
    batch
        .puts
        .extend(new.into_iter().filter(|entry| !old.contains(entry)));
}

/// Removes a session's row with its index entries.
pub(crate) fn delete_session(batch: &mut Batch, record: &SessionRecord, row: &[u8]) {
    for (table, key, _) in of(record, row) {
        batch.delete(table, key);
    }
    batch.delete(Table::Sessions, *record.id.as_bytes());
}

/// Writes the entries of a row that is there already. One that cannot be read counts as not over:
/// a reader that looks for sessions finds it and reports it.
pub(super) fn put_entries(batch: &mut Batch, id: SessionId, row: &[u8]) {
    match SessionRecord::decode(row) {
        // The key says which session it is, as it does for every other reader.
        Ok(record) => batch.puts.extend(of(&SessionRecord { id, ..record }, row)),
        Err(_) => batch.put(Table::Live, *id.as_bytes(), head(row)),
    }
}

/// The entries of a record.
fn of(record: &SessionRecord, row: &[u8]) -> Vec<Entry> {
    let (id, over) = (record.id, record.is_over());
    let mut entries = Vec::with_capacity(2);
    if !over {
        entries.push((Table::Live, id.as_bytes().to_vec(), head(row).to_vec()));
    } else if let Some(done_at) = record.ending.as_ref().and_then(|ending| ending.done_at) {
        let key = ended_key(record.events_forgotten, done_at, Some(id));
        entries.push((Table::Ended, key, Vec::new()));
    }
    if let Some(user) = &record.options.user_id {
        let key = user_key(user, over, Some(id));
        entries.push((Table::Users, key, Vec::new()));
    }
    entries
}

/// The key of an entry of `Users`; without a session, what the keys of all of them begin with.
fn user_key(user: &str, over: bool, id: Option<SessionId>) -> Vec<u8> {
    // The length comes first, so that no user's keys begin with those of another.
    let len = u32::try_from(user.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut key = [&len, user.as_bytes(), &[u8::from(over)]].concat();
    key.extend(id.iter().flat_map(|id| id.as_bytes()));
    key
}

/// The key of an entry of `Ended`; without a session, what stands before all of this time.
pub(super) fn ended_key(forgotten: bool, done_at: Timestamp, id: Option<SessionId>) -> Vec<u8> {
    // With the sign turned round, keys are in the order of time.
    let time = (done_at.unix_millis().cast_unsigned() ^ (1 << 63)).to_be_bytes();
    let mut key = [&[u8::from(forgotten)], time.as_slice()].concat();
    key.extend(id.iter().flat_map(|id| id.as_bytes()));
    key
}

/// The session of an entry of `Users` or `Ended`: the last 16 bytes of its key.
pub(super) fn session_of(key: &[u8]) -> Option<SessionId> {
    key.last_chunk::<16>().copied().map(SessionId::from_bytes)
}

/// The sessions of a user in the order of their creation: those that are not over, and on request
/// the others too. To be asked only of whole indexes.
pub(crate) async fn sessions_of(core: &Core, user: &str, ended: bool) -> Result<Vec<SessionId>> {
    let mut ids = Vec::new();
    for over in [false, true].into_iter().take(1 + usize::from(ended)) {
        let prefix = user_key(user, over, None);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = core
                .store
                .scan(Table::Users, &prefix, after.as_deref(), PAGE)
                .await?;
            ids.extend(rows.iter().filter_map(|row| session_of(&row.key)));
            match rows.into_iter().last() {
                Some(last) => after = Some(last.key),
                None => break,
            }
            tokio::task::yield_now().await;
        }
    }
    ids.sort_unstable();
    Ok(ids)
}
