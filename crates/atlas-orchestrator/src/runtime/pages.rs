//! Iterates over the recorded sessions one page at a time, so that other tasks run in between.

use atlas_core::{Result, Timestamp};

use super::core::Core;
use super::{entries, index};
use crate::ids::SessionId;
use crate::kernel::glance::glance;
use crate::store::{Row, Table};

/// Reading a page and understanding its records takes a few milliseconds at most.
pub(crate) const PAGE: usize = 128;

/// Iterates over the rows of all sessions, in order of id.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    after: Option<Vec<u8>>,
}

impl Pages {
    /// The next page; `None` after the last.
    pub(crate) async fn next(&mut self, core: &Core) -> Result<Option<Vec<Row>>> {
        next_page(core, Table::Sessions, &[], &mut self.after).await
    }
}

/// A walk over the sessions that are not over, in order of id. It costs what these cost, however
/// many others are on record, as long as the indexes are whole.
#[derive(Debug)]
pub(crate) struct LivePages {
    after: Option<Vec<u8>>,
    indexed: bool,
}

impl LivePages {
    pub(crate) async fn begin(core: &Core) -> Result<Self> {
        Ok(Self {
            after: None,
            indexed: index::is_whole(core).await?,
        })
    }

    /// The next page; `None` behind the last. Of a row, no more than its head may be there.
    pub(crate) async fn next(&mut self, core: &Core) -> Result<Option<Vec<Row>>> {
        let table = if self.indexed {
            Table::Live
        } else {
            Table::Sessions
        };
        let mut page = next_page(core, table, &[], &mut self.after).await?;
        if let Some(rows) = &mut page {
            rows.retain(|row| !glance(&row.value).is_some_and(|glance| glance.over));
        }
        Ok(page)
    }

    /// Rows of a page, whole.
    pub(crate) async fn whole(&self, core: &Core, rows: Vec<Row>) -> Result<Vec<Row>> {
        if !self.indexed {
            return Ok(rows);
        }
        let ids: Vec<SessionId> = rows
            .iter()
            .filter_map(|row| SessionId::from_slice(&row.key))
            .collect();
        read(core, &ids).await
    }
}

/// A walk over sessions that are over, by the time of their end. To be begun only over whole
/// indexes.
#[derive(Debug)]
pub(crate) struct EndedPages {
    prefix: [u8; 1],
    after: Option<Vec<u8>>,
    until: Option<Vec<u8>>,
}

impl EndedPages {
    /// Of those whose events were forgotten, or of the others, the ones that ended from one time on
    /// and before another.
    pub(crate) fn of(forgotten: bool, from: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        let key = |at: Timestamp| entries::ended_key(forgotten, at, None);
        Self {
            prefix: [u8::from(forgotten)],
            after: from.map(key),
            until: until.map(key),
        }
    }

    /// The next page of whole rows; `None` behind the last.
    pub(crate) async fn next(&mut self, core: &Core) -> Result<Option<Vec<Row>>> {
        let page = next_page(core, Table::Ended, &self.prefix, &mut self.after).await?;
        let mut ids: Vec<SessionId> = page
            .iter()
            .flatten()
            .take_while(|row| self.until.as_ref().is_none_or(|until| row.key < *until))
            .filter_map(|row| entries::session_of(&row.key))
            .collect();
        if ids.is_empty() {
            return Ok(None);
        }
        ids.sort_unstable();
        read(core, &ids).await.map(Some)
    }
}

async fn next_page(
    core: &Core,
    table: Table,
    prefix: &[u8],
    after: &mut Option<Vec<u8>>,
) -> Result<Option<Vec<Row>>> {
    if after.is_some() {
        tokio::task::yield_now().await;
    }
    let rows = core
        .store
        .scan(table, prefix, after.as_deref(), PAGE)
        .await?;
    let Some(last) = rows.last() else {
        return Ok(None);
    };
    *after = Some(last.key.clone());
    Ok(Some(rows))
}

/// The rows of these sessions, whose ids ascend; those that are not on record are left out. Rows
/// that lie side by side are read together: a scan takes twice as many as the last one, for as long
/// as it comes upon nothing that was not asked for.
pub(crate) async fn read(core: &Core, ids: &[SessionId]) -> Result<Vec<Row>> {
    let mut found = Vec::with_capacity(ids.len());
    let (mut rest, mut limit) = (ids, 1);
    while let Some(first) = rest.first() {
        let before = u128::from_be_bytes(*first.as_bytes()).checked_sub(1);
        let before = before.map(u128::to_be_bytes);
        let after = before.as_ref().map(<[u8; 16]>::as_slice);
        let rows = core
            .store
            .scan(Table::Sessions, &[], after, limit.min(rest.len()))
            .await?;
        let Some(last) = rows.last() else { break };
        let answered = rest.partition_point(|id| id.as_bytes().as_slice() <= last.key.as_slice());
        let (asked, later) = rest.split_at(answered);
        let is_asked_for = |row: &Row| {
            SessionId::from_slice(&row.key).is_some_and(|id| asked.binary_search(&id).is_ok())
        };
        let (read, known) = (rows.len(), found.len());
        found.extend(rows.into_iter().filter(is_asked_for));
        limit = if found.len() - known == read {
            limit * 2
        } else {
            1
        };
        rest = later;
    }
    Ok(found)
}
