//! Iterates over the recorded sessions one page at a time, so that other tasks run in between.

use atlas_core::Result;

use super::core::Core;
use crate::store::{Row, Table};

/// The page size. Reading a page and decoding its records takes a few milliseconds at most.
const PAGE: usize = 128;

/// Iterates over the rows of all sessions, in order of id.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    after: Option<Vec<u8>>,
}

impl Pages {
    /// The next page; `None` after the last.
    pub(crate) async fn next(&mut self, core: &Core) -> Result<Option<Vec<Row>>> {
        if self.after.is_some() {
            tokio::task::yield_now().await;
        }
        let rows = core
            .store
            .scan(Table::Sessions, &[], self.after.as_deref(), PAGE)
            .await?;
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        self.after = Some(last.key.clone());
        Ok(Some(rows))
    }
}
