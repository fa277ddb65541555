//! Events to subscribers: one reader of the store's feed for all of them, and a log to catch up
//! from.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result};
use tokio::sync::broadcast::{self, error::RecvError};

use super::core::Core;
use crate::event::{Cursor, Delivery, Event, EventKind, Scope};
use crate::ids::SessionId;
use crate::store::StoredEvent;

const PAGE: usize = 512;
/// How often the feed is looked at where other nodes write to the store too.
const POLL: Duration = Duration::from_secs(1);

fn decode(stored: &StoredEvent) -> Result<Event> {
    serde_json::from_slice(&stored.payload).map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            "an event in the store cannot be read",
        )
        .with_source(error)
    })
}

/// Reads the feed as it grows and hands it to every live subscriber; wakes sessions of ours that
/// other nodes changed.
pub(crate) async fn keep(core: Arc<Core>, mut position: u64) {
    core.fed_to.store(position, Ordering::Relaxed);
    loop {
        match core.store.feed(position, PAGE).await {
            Ok(page) if !page.is_empty() => {
                for stored in &page {
                    position = stored.position;
                    core.fed_to.store(position, Ordering::Relaxed);
                    let event = match decode(stored) {
                        Ok(event) => event,
                        Err(error) => {
                            // A reader of the log gets it; a live listener sees that a number is
                            // missing.
                            tracing::error!(position, %error, "an event is unreadable");
                            continue;
                        }
                    };
                    if !core.exclusive && concerns_owner(&event.kind) {
                        core.slots.wake(event.session);
                    }
                    let delivery = Delivery {
                        event,
                        cursor: Cursor::after(stored.position),
                        behind: 0,
                    };
                    // Nobody listens: nothing to do.
                    let _ = core.live.send(Arc::new(delivery));
                }
                continue;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the event feed could not be read"),
        }
        let wait = if core.exclusive {
            Duration::from_secs(60)
        } else {
            POLL
        };
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => return,
            () = core.fed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Changes that a node other than the owner makes.
fn concerns_owner(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Terminating { .. }
            | EventKind::Extended { .. }
            | EventKind::Reopened { .. }
            | EventKind::TaskEnded { .. }
            | EventKind::Owner { .. }
    )
}

/// Events in order, without gaps, as fast as the reader takes them: none is dropped, and nobody
/// waits for a slow reader.
#[derive(Debug)]
pub struct Subscription {
    core: Arc<Core>,
    scope: Scope,
    /// Of a session's scope: the newest `seq` handed out. Otherwise: the newest position.
    place: u64,
    /// Events up to this position were there before it began, and are not for it.
    floor: u64,
    buffer: std::collections::VecDeque<Delivery>,
    live: broadcast::Receiver<Arc<Delivery>>,
    /// Everything up to here was read from the log.
    caught_up: bool,
    /// It was told to end: what is in the log by then is handed out, and no more.
    ending: bool,
}

impl Subscription {
    pub(crate) fn new(core: Arc<Core>, scope: Scope, cursor: Cursor) -> Self {
        let caught_up = cursor == Cursor::NOW;
        let floor = if caught_up {
            core.fed_to.load(Ordering::Relaxed)
        } else {
            0
        };
        let live = core.live.subscribe();
        let place = if caught_up { 0 } else { cursor.place() };
        Self {
            core,
            scope,
            place,
            floor,
            buffer: std::collections::VecDeque::new(),
            live,
            caught_up,
            ending: false,
        }
    }

    fn wants(&self, delivery: &Delivery) -> bool {
        if delivery.cursor.place() <= self.floor {
            return false;
        }
        match &self.scope {
            Scope::Session(id) => delivery.event.session == *id && delivery.event.seq > self.place,
            Scope::User(user) => {
                delivery.event.user_id.as_ref() == Some(user)
                    && delivery.cursor.place() > self.place
            }
            Scope::All => delivery.cursor.place() > self.place,
        }
    }

    fn hand_out(&mut self, mut delivery: Delivery) -> Delivery {
        delivery.behind = self
            .core
            .fed_to
            .load(Ordering::Relaxed)
            .saturating_sub(delivery.cursor.place());
        self.place = match self.scope {
            Scope::Session(_) => delivery.event.seq,
            Scope::User(_) | Scope::All => delivery.cursor.place(),
        };
        if let Scope::Session(_) = self.scope {
            delivery.cursor = Cursor::after(delivery.event.seq);
        }
        delivery
    }

    /// Reads a page of the log; false when there is nothing new in it.
    async fn catch_up(&mut self) -> Result<bool> {
        let page = match &self.scope {
            Scope::Session(id) => {
                self.core
                    .store
                    .events(*id.as_bytes(), self.place, PAGE)
                    .await?
            }
            Scope::User(_) | Scope::All => self.core.store.feed(self.place, PAGE).await?,
        };
        let more = !page.is_empty();
        for stored in &page {
            let read = if let Scope::Session(_) = self.scope {
                stored.seq
            } else {
                stored.position
            };
            let event = match decode(stored) {
                Ok(event) => event,
                // What was read before it comes first; then it is said, once.
                Err(_) if !self.buffer.is_empty() => break,
                Err(error) => {
                    self.place = self.place.max(read);
                    return Err(error);
                }
            };
            let delivery = Delivery {
                event,
                cursor: Cursor::after(stored.position),
                behind: 0,
            };
            if self.wants(&delivery) {
                self.buffer.push_back(delivery);
            }
            if self.buffer.is_empty() {
                self.place = self.place.max(read);
            }
        }
        Ok(more)
    }

    /// The next event; `None` once the orchestrator has shut down, or
    /// [`Orchestrator::end_subscriptions`](crate::Orchestrator::end_subscriptions) was called, and
    /// everything was read that had happened by then. Cancel safe.
    ///
    /// # Errors
    /// When the log cannot be read; the next call tries again, and none is missed. An event that is
    /// there and cannot be understood is an error once, and the next call goes on behind it.
    pub async fn next(&mut self) -> Result<Option<Delivery>> {
        loop {
            while let Some(delivery) = self.buffer.pop_front() {
                if self.wants(&delivery) {
                    return Ok(Some(self.hand_out(delivery)));
                }
            }
            if !self.caught_up {
                if !self.catch_up().await? {
                    self.caught_up = true;
                }
                continue;
            }
            if self.ending {
                return Ok(None);
            }
            let received = tokio::select! {
                biased;
                received = self.live.recv() => received,
                () = self.core.unsubscribed.cancelled() => {
                    // What was committed and not handed to live readers yet is in the log.
                    (self.ending, self.caught_up) = (true, false);
                    continue;
                }
            };
            match received {
                Ok(delivery) if self.wants(&delivery) => {
                    if let Scope::Session(_) = self.scope
                        && self.place > 0
                        && delivery.event.seq != self.place + 1
                    {
                        self.caught_up = false;
                        continue;
                    }
                    return Ok(Some(self.hand_out((*delivery).clone())));
                }
                Ok(_) => {}
                // It is read from the log instead.
                Err(RecvError::Lagged(_)) => self.caught_up = false,
                Err(RecvError::Closed) => (self.ending, self.caught_up) = (true, false),
            }
        }
    }

    /// The next event that is there already, without waiting for another; `None` when everything
    /// was read.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    ///
    /// # Cancel safety
    /// As [`Subscription::next`].
    pub async fn try_next(&mut self) -> Result<Option<Delivery>> {
        self.caught_up = false;
        loop {
            while let Some(delivery) = self.buffer.pop_front() {
                if self.wants(&delivery) {
                    return Ok(Some(self.hand_out(delivery)));
                }
            }
            if !self.catch_up().await? {
                self.caught_up = true;
                return Ok(None);
            }
        }
    }
}

/// Waits until `done` says so of a session's record, or time is up.
pub(crate) async fn wait_for<T>(
    core: &Arc<Core>,
    id: SessionId,
    until: Option<tokio::time::Instant>,
    done: impl Fn(&crate::kernel::SessionRecord) -> Option<T>,
) -> Result<Option<T>> {
    let changed = core.slots.watch(id);
    let outcome = loop {
        let notified = changed.notified();
        tokio::pin!(notified);
        // Registered before the look: a change in between is not missed.
        notified.as_mut().enable();
        match core.load(id).await {
            Ok(Some(loaded)) => {
                if let Some(answer) = done(&loaded.record) {
                    break Ok(Some(answer));
                }
            }
            Ok(None) => break Err(Error::new(ErrorKind::NotFound, "no such session exists")),
            Err(error) => tracing::warn!(%error, "a session's record could not be read"),
        }
        let poll = if core.slots.contains(id) {
            Duration::from_secs(30)
        } else {
            POLL
        };
        let until = until
            .unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3600 * 24 * 365));
        tokio::select! {
            biased;
            () = core.stopped.cancelled() => break Err(Error::new(ErrorKind::Unavailable, "the orchestrator was shut down")),
            () = &mut notified => {}
            () = tokio::time::sleep(poll) => {}
            () = tokio::time::sleep_until(until) => break Ok(None),
        }
    };
    drop(changed);
    core.slots.unwatch(id);
    outcome
}
