//! The open streams of each credential: limits them, and ends them when the credential is revoked
//! or expires.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_auth::Principal;
use atlas_auth::grant::GrantId;
use atlas_auth::signed_url;
use atlas_core::{Clock, Timestamp};
use hyper::Uri;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::activity::Connection;

/// How long an ended stream may take to notice it before its whole connection is closed. A stream
/// whose client reads nothing is not polled, so it does not notice.
const NOTICE: Duration = Duration::from_secs(1);
/// The longest sleep before the clock is read again: a wall clock may be stepped.
const LOOK: Duration = Duration::from_secs(30);

/// A credential, as streams are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    Bearer,
    Grant(GrantId),
    /// The signature of a signed URL.
    Url(Vec<u8>),
}

impl Holder {
    /// The credential that let this request pass.
    pub(crate) fn of(who: &Principal, uri: &Uri) -> Self {
        match who {
            Principal::Bearer => Self::Bearer,
            Principal::Grant(grant) => Self::Grant(grant.id()),
            Principal::SignedUrl(format) => Self::Url(
                signed_url::signature(*format, uri.query().unwrap_or_default()).unwrap_or_default(),
            ),
            _ => Self::Url(vec![]),
        }
    }
}

/// Why no further stream is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// This grant or signed URL has reached its limit.
    Credential,
    /// All credentials together have reached the guard's limit.
    Guard,
}

/// The open streams of one guard.
#[derive(Debug)]
pub(crate) struct Streams {
    clock: Arc<dyn Clock>,
    most: usize,
    most_each: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    open: usize,
    next: u64,
    holders: HashMap<Holder, Held>,
}

#[derive(Debug)]
struct Held {
    ended: CancellationToken,
    streams: HashMap<u64, Arc<Connection>>,
    expiry: Option<AbortHandle>,
}

impl Streams {
    pub(crate) fn new(clock: Arc<dyn Clock>, most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self {
            clock,
            most,
            most_each,
            table: Mutex::default(),
        })
    }

    /// Opens one stream of this credential. It is open until the answer is dropped. Streams of a
    /// credential with an expiry end when its last second is over.
    pub(crate) fn open(
        self: &Arc<Self>,
        holder: Holder,
        expires_at: Option<Timestamp>,
        connection: &Arc<Connection>,
    ) -> Result<Stream, Full> {
        let mut table = self.table();
        if table.open >= self.most {
            return Err(Full::Guard);
        }
        let held = table.holders.entry(holder.clone()).or_insert_with(|| {
            let ended = CancellationToken::new();
            Held {
                ended,
                streams: HashMap::new(),
                expiry: None,
            }
        });
        // The session's own credential has no separate limit: a backend can use it for all users.
        let most = match holder {
            Holder::Bearer => self.most,
            Holder::Grant(_) | Holder::Url(_) => self.most_each,
        };
        if held.streams.len() >= most {
            return Err(Full::Credential);
        }
        if let Some(expires_at) = expires_at
            && held.expiry.is_none()
        {
            let watching = Arc::clone(self).expire(holder.clone(), expires_at);
            held.expiry = Some(tokio::spawn(watching).abort_handle());
        }
        // Only grants end before their streams do.
        let ended = matches!(holder, Holder::Grant(_)).then(|| held.ended.clone());
        let id = table.next;
        if let Some(held) = table.holders.get_mut(&holder) {
            held.streams.insert(id, Arc::clone(connection));
        }
        table.next += 1;
        table.open += 1;
        drop(table);
        Ok(Stream {
            streams: Arc::clone(self),
            holder,
            id,
            ended,
        })
    }

    /// Ends everything that this credential has open.
    pub(crate) fn end(self: &Arc<Self>, holder: &Holder) {
        let table = self.table();
        let Some(held) = table.holders.get(holder) else {
            return;
        };
        held.ended.cancel();
        drop(table);
        let (streams, holder) = (Arc::clone(self), holder.clone());
        tokio::spawn(async move {
            tokio::time::sleep(NOTICE).await;
            if let Some(held) = streams.table().holders.get(&holder) {
                held.streams.values().for_each(|open| open.cut());
            }
        });
    }

    async fn expire(self: Arc<Self>, holder: Holder, expires_at: Timestamp) {
        // Valid through the whole of its last second.
        let end = Timestamp::from_unix_seconds(expires_at.unix_seconds().saturating_add(1));
        loop {
            let now = self.clock.now();
            if now >= end {
                return self.end(&holder);
            }
            tokio::time::sleep(end.since(now).min(LOOK)).await;
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    streams: Arc<Streams>,
    holder: Holder,
    id: u64,
    ended: Option<CancellationToken>,
}

/// Waits for the end of a stream's credential.
pub(crate) type Ended = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl Stream {
    /// Completes when the credential was revoked or has expired. `None` for a credential that does
    /// not end what it opened. Cancel safe.
    pub(crate) fn ended(&self) -> Option<Ended> {
        let ended = self.ended.clone()?;
        Some(Box::pin(ended.cancelled_owned()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut table = self.streams.table();
        table.open = table.open.saturating_sub(1);
        let Some(held) = table.holders.get_mut(&self.holder) else {
            return;
        };
        held.streams.remove(&self.id);
        if held.streams.is_empty()
            && let Some(held) = table.holders.remove(&self.holder)
            && let Some(expiry) = held.expiry
        {
            expiry.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use atlas_core::SystemClock;

    use super::*;

    fn url(text: &str) -> Holder {
        Holder::Url(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn streams_are_bounded_for_each_credential_and_in_all() {
        let streams = Streams::new(Arc::new(SystemClock), 3, 2);
        let connection = Arc::default();
        let open = |holder| streams.open(holder, None, &connection);
        let first = open(url("a")).unwrap();
        let _second = open(url("a")).unwrap();
        assert_eq!(open(url("a")).err(), Some(Full::Credential));
        let _third = open(url("b")).unwrap();
        assert_eq!(open(url("c")).err(), Some(Full::Guard));
        drop(first);
        assert!(open(url("a")).is_ok());
        assert_eq!(
            streams.table().holders.len(),
            2,
            "nothing is kept of others"
        );
    }
}
