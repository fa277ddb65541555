//! Measures activity for the idle limit: bytes and times of verified traffic, and how much of it is
//! open.
//!
//! Refused requests, health checks and control calls never count: a client without a credential
//! must not keep a machine alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use atlas_core::{Clock, Timestamp};
use tokio::sync::Notify;

use crate::streams::{Ended, Stream};

/// The counters of one guard.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: Arc<dyn Clock>,
    started_ms: i64,
    /// Zero if there was none yet.
    last_ms: AtomicI64,
    received: AtomicU64,
    sent: AtomicU64,
    requests: AtomicU64,
    open: AtomicU64,
}

impl Activity {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            started_ms: clock.now().unix_millis(),
            clock,
            last_ms: AtomicI64::new(0),
            received: zero(),
            sent: zero(),
            requests: zero(),
            open: zero(),
        })
    }

    /// Records the start of a verified request on this connection. It is open until the last clone
    /// is dropped.
    pub(crate) fn begin(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        stream: Stream,
    ) -> Arc<Open> {
        self.requests.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        connection.begun.fetch_add(1, Relaxed);
        connection.open.fetch_add(1, Relaxed);
        self.touch();
        Arc::new(Open {
            activity: Arc::clone(self),
            connection: Arc::clone(connection),
            stream,
        })
    }

    fn touch(&self) {
        self.last_ms
            .fetch_max(self.clock.now().unix_millis(), Relaxed);
    }

    pub(crate) fn report(&self) -> Report {
        let instant = |millis| Timestamp::from_unix_millis(millis);
        let last = self.last_ms.load(Relaxed);
        Report {
            now: self.clock.now(),
            started_at: instant(self.started_ms),
            last_activity: (last != 0).then(|| instant(last)),
            bytes_in: self.received.load(Relaxed),
            bytes_out: self.sent.load(Relaxed),
            requests: self.requests.load(Relaxed),
            open: self.open.load(Relaxed),
        }
    }
}

/// The activity on one client connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// Verified requests so far. Refused ones do not keep a connection.
    begun: AtomicU64,
    /// Verified requests that have not ended.
    open: AtomicU64,
    cut: Notify,
}

impl Connection {
    /// True once a verified request arrived on it.
    pub(crate) fn is_verified(&self) -> bool {
        self.begun.load(Relaxed) > 0
    }

    /// Closes it at once, with everything it carries.
    pub(crate) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Waits until it must be closed. Cancel safe.
    pub(crate) async fn is_cut(&self) {
        self.cut.notified().await;
    }

    /// Waits until no verified request arrived or was open for a whole `span`. Cancel safe.
    pub(crate) async fn unused(&self, span: Duration) {
        let look = || (self.open.load(Relaxed) == 0).then(|| self.begun.load(Relaxed));
        loop {
            let before = look();
            tokio::time::sleep(span).await;
            if before.is_some() && before == look() {
                return;
            }
        }
    }
}

/// One open request or tunnel.
#[derive(Debug)]
pub(crate) struct Open {
    activity: Arc<Activity>,
    connection: Arc<Connection>,
    stream: Stream,
}

impl Open {
    /// Completes when the credential that opened it has ended, if it can end.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.stream.ended()
    }

    /// Counts bytes from the client.
    pub(crate) fn received(&self, bytes: usize) {
        self.activity.received.fetch_add(bytes as u64, Relaxed);
        self.activity.touch();
    }

    /// Counts bytes to the client.
    pub(crate) fn sent(&self, bytes: usize) {
        self.activity.sent.fetch_add(bytes as u64, Relaxed);
        self.activity.touch();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.open.fetch_sub(1, Relaxed);
        self.activity.open.fetch_sub(1, Relaxed);
        self.activity.touch();
    }
}

/// The report that the orchestrator's activity source reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The machine's clock, for a caller whose clock differs.
    pub now: Timestamp,
    /// When the guard started.
    pub started_at: Timestamp,
    /// When verified traffic last moved, started or ended; `None` before the first.
    pub last_activity: Option<Timestamp>,
    /// Body and tunnel bytes from clients.
    pub bytes_in: u64,
    /// Body and tunnel bytes to clients.
    pub bytes_out: u64,
    /// Verified requests so far.
    pub requests: u64,
    /// Verified requests and tunnels open now.
    pub open: u64,
}

impl Report {
    /// As one line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let last = self
            .last_activity
            .map_or_else(|| "null".to_owned(), |instant| format!("\"{instant}\""));
        let idle = self
            .now
            .since(self.last_activity.unwrap_or(self.started_at));
        format!(
            "{{\"now\":\"{}\",\"started_at\":\"{}\",\"last_activity\":{last},\"idle_ms\":{},\"bytes_in\":{},\"bytes_out\":{},\
             \"requests\":{},\"open\":{}}}",
            self.now,
            self.started_at,
            idle.as_millis(),
            self.bytes_in,
            self.bytes_out,
            self.requests,
            self.open
        )
    }
}
