//! Delivers events to subscribers: one reader of the store's feed for all of them, and a log to
//! catch up from.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use atlas_core::{Error, ErrorKind, Result};
use tokio::sync::broadcast::{self, error::RecvError};

use super::core::Core;
use crate::event::{Cursor, Delivery, Event, Scope};
use crate::ids::SessionId;
use crate::store::StoredEvent;

const PAGE: usize = 512;
/// How often the feed is read if other nodes write to the store too.
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

/// Reads the feed as it grows and sends it to every live subscriber; wakes sessions of ours that
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
                            // A reader of the log gets the error; a live subscriber notices that a
                            // number is missing.
                            tracing::error!(position, %error, "an event is unreadable");
                            continue;
                        }
                    };
                    if !core.exclusive && event.kind.concerns_owner() {
                        core.slots.wake(event.session);
                    }
                    let delivery = Delivery {
                        event,
                        cursor: Cursor::after(stored.position),
                        behind: 0,
                    };
                    // There is no subscriber.
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

/// A subscription to events, in order and without gaps, at the speed of its reader. No event is
/// dropped, and a slow reader does not delay others.
#[derive(Debug)]
pub struct Subscription {
    core: Arc<Core>,
    scope: Scope,
    /// For the scope of one session: the latest delivered `seq`. Otherwise: the latest delivered
    /// position.
    place: u64,
    /// Events up to this position existed before the subscription started and are not delivered.
    floor: u64,
    buffer: std::collections::VecDeque<Delivery>,
    live: broadcast::Receiver<Arc<Delivery>>,
    /// Whether the log was read to its end, so that live events continue it.
    caught_up: bool,
    /// Whether the subscription was asked to end: it still delivers what the log contains by then.
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

    /// Reads a page of the log; false if it contains nothing new.
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
                // Events read before the unreadable one are delivered first; then the error is
                // returned once.
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

    /// The next event. `None` once the orchestrator has shut down, or
    /// [`Orchestrator::end_subscriptions`](crate::Orchestrator::end_subscriptions) was called, and
    /// every event until then was delivered. Cancel safe.
    /// # Errors
    /// When the log cannot be read; the next call tries again and no event is missed. An event that
    /// cannot be decoded is an error once, and the next call continues after it.
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
                    // Events that were committed and not yet sent to live subscribers are in the
                    // log.
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
                // The missed events are read from the log instead.
                Err(RecvError::Lagged(_)) => self.caught_up = false,
                Err(RecvError::Closed) => (self.ending, self.caught_up) = (true, false),
            }
        }
    }

    /// The next event that is already available, without waiting; `None` when all were delivered.
    ///
    /// # Errors
    /// Like [`Subscription::next`].
    ///
    /// # Cancel safety
    /// Like [`Subscription::next`].
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

/// Waits until `done` returns a value for a session's record, or the time limit is reached.
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
        // Registered before the check, so that a change in between is not missed.
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
            () = core.stopped.cancelled() => break Err(Error::new(ErrorKind::Unavailable,
                "the orchestrator was shut down")),
            () = &mut notified => {}
            () = tokio::time::sleep(poll) => {}
            () = tokio::time::sleep_until(until) => break Ok(None),
        }
    };
    drop(changed);
    core.slots.unwatch(id);
    outcome
}
