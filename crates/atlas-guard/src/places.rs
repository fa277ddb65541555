//! A limited number of places for connections. When all are taken, the oldest connection without a
//! verified credential is closed, so that clients without a credential cannot block others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::activity::Connection;

#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    free: Arc<Semaphore>,
    strangers: Mutex<Strangers>,
}

/// Connections by age. Those that have shown a credential, or ended, are removed when they are
/// encountered.
#[derive(Debug, Default)]
struct Strangers {
    next: u64,
    prune_at: usize,
    by_age: BTreeMap<u64, Weak<Connection>>,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            free: Arc::new(Semaphore::new(limit)),
            strangers: Mutex::default(),
        }
    }

    /// Takes a place for this connection, waiting until one is free. Cancel safe.
    pub(crate) async fn take(&self, connection: &Arc<Connection>) -> OwnedSemaphorePermit {
        let free = Arc::clone(&self.free);
        let place = match Arc::clone(&free).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.evict();
                free.acquire_owned()
                    .await
                    .expect("the semaphore is never closed")
            }
        };
        self.remember(connection);
        place
    }

    /// Waits until every place is free. Cancel safe.
    pub(crate) async fn all_free(&self) {
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _all = self.free.acquire_many(all).await;
    }

    fn evict(&self) {
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while let Some((_, connection)) = strangers.by_age.pop_first() {
            if let Some(connection) = connection.upgrade()
                && !connection.is_verified()
            {
                return connection.cut();
            }
        }
    }

    fn remember(&self, connection: &Arc<Connection>) {
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if strangers.by_age.len() >= strangers.prune_at {
            strangers
                .by_age
                .retain(|_, weak| weak.upgrade().is_some_and(|open| !open.is_verified()));
            strangers.prune_at = 2 * strangers.by_age.len() + 64;
        }
        let age = strangers.next;
        strangers.next += 1;
        strangers.by_age.insert(age, Arc::downgrade(connection));
    }
}
