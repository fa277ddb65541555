//! The small in-memory state of each session. Records are read when something is to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use atlas_core::{AttemptId, Timestamp};
use tokio::sync::Notify;

use crate::ids::SessionId;
use crate::kernel::{Attempt, Evidence, Input, SessionRecord};

/// The maximum number of drivers per account that wait without occupying a place; each needs
/// memory.
const MOST_PARKED: usize = 4096;
/// Never due.
const NEVER: i64 = i64::MAX;

/// A session that this node looks after. An idle session is only this, 32 bytes, and its entries in
/// the maps beside it.
#[derive(Debug)]
struct Slot {
    /// When to plan next, in milliseconds since the epoch.
    due: i64,
    /// Facts that only this process has; `None` while the session is idle.
    hot: Option<Box<Hot>>,
    /// The account, as an index in the list of accounts.
    account: u16,
    /// A hash of what was last seen of its machine: an unchanged machine wakes no driver.
    seen: u32,
    /// Whether a driver is working on it.
    driving: bool,
    /// Whether something happened that the driver has not handled yet.
    dirty: bool,
}

impl Slot {
    fn new(account: u16) -> Self {
        Self {
            due: NEVER,
            hot: None,
            account,
            seen: 0,
            driving: false,
            dirty: false,
        }
    }
}

#[derive(Debug, Default)]
struct Hot {
    evidence: Evidence,
    inbox: Vec<Input>,
    signal: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<SessionId, Slot>,
    timers: BTreeSet<(i64, SessionId)>,
    /// Ready sessions by account, so that a slow account delays only its own sessions.
    ready: BTreeMap<u16, BTreeSet<SessionId>>,
    /// The session of each open attempt of ours, and whether the attempt is serving.
    attempts: BTreeMap<AttemptId, (SessionId, bool)>,
    /// Waiters for a change of a session's record.
    watchers: BTreeMap<SessionId, Arc<Notify>>,
    /// Number of working drivers by account.
    driving: BTreeMap<u16, usize>,
    /// Number of drivers by account that wait and occupy no place.
    parked: BTreeMap<u16, usize>,
}

/// The sessions of this node, their timers, and their drivers.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    state: Mutex<State>,
    /// Notified when a session became ready, or a timer moved to the front.
    pub(crate) changed: Notify,
}

/// An open attempt: one that has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) attempt: AttemptId,
    pub(crate) session: SessionId,
    /// Whether its machine is serving, so that nothing is being ended.
    pub(crate) serving: bool,
    /// A hash of what was last seen of its machine.
    pub(crate) seen: u32,
}

/// What a driver starts with.
#[derive(Debug)]
pub(crate) struct Work {
    /// The account whose place it occupies.
    pub(crate) account: u16,
    pub(crate) evidence: Evidence,
    pub(crate) signal: Arc<Notify>,
}

fn millis(at: Timestamp) -> i64 {
    // Rounded up, so that a timer never fires early.
    let millis = at.unix_millis();
    if Timestamp::from_unix_millis(millis) < at {
        millis.saturating_add(1)
    } else {
        millis
    }
}

impl State {
    fn set_ready(&mut self, id: SessionId) {
        if let Some(slot) = self.slots.get(&id) {
            self.ready.entry(slot.account).or_default().insert(id);
        }
    }

    fn takes_place(&mut self, account: u16) {
        *self.driving.entry(account).or_default() += 1;
    }

    fn leaves_place(&mut self, account: u16) {
        if let Some(driving) = self.driving.get_mut(&account) {
            *driving = driving.saturating_sub(1);
        }
    }

    /// The first ready session on an account with a free place.
    fn pop_ready(&mut self, room: usize) -> Option<SessionId> {
        let has_room = |account: &u16| {
            self.driving
                .get(account)
                .is_none_or(|driving| *driving < room)
        };
        let mut ready = self
            .ready
            .iter_mut()
            .filter(|(account, _)| has_room(account));
        ready.find_map(|(_, ready)| ready.pop_first())
    }

    fn set_due(&mut self, id: SessionId, due: i64) {
        if let Some(slot) = self.slots.get_mut(&id) {
            if slot.due != NEVER {
                self.timers.remove(&(slot.due, id));
            }
            slot.due = due;
            if due != NEVER {
                self.timers.insert((due, id));
            }
        }
    }
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session, or updates what is known of it; `due` is when to plan it, `None` for now.
    pub(crate) fn insert(&self, record: &SessionRecord, account: u16, due: Option<Timestamp>) {
        let mut state = self.lock();
        let id = record.id;
        let slot = state.slots.entry(id).or_insert_with(|| Slot::new(account));
        slot.account = account;
        if slot.driving {
            // A driver at work may have read an older record, so it must read again.
            slot.dirty = true;
            slot.hot.get_or_insert_default().signal.notify_one();
        }
        Self::index(&mut state, record);
        match due {
            Some(due) => state.set_due(id, millis(due)),
            None => state.set_ready(id),
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Adds a session of which only the header of its row was read.
    pub(crate) fn insert_quiet(
        &self,
        id: SessionId,
        open: &[(AttemptId, bool)],
        account: u16,
        due: Timestamp,
    ) {
        let mut state = self.lock();
        state.slots.entry(id).or_insert_with(|| Slot::new(account));
        state.attempts.extend(
            open.iter()
                .map(|(attempt, serving)| (*attempt, (id, *serving))),
        );
        state.set_due(id, millis(due));
    }

    fn index(state: &mut State, record: &SessionRecord) {
        for attempt in &record.attempts {
            if attempt.is_terminal() {
                state.attempts.remove(&attempt.id);
            } else {
                state
                    .attempts
                    .insert(attempt.id, (record.id, attempt.is_serving()));
            }
        }
    }

    /// Updates the index of open attempts after a record changed.
    pub(crate) fn reindex(&self, record: &SessionRecord) {
        let mut state = self.lock();
        if state.slots.contains_key(&record.id) {
            Self::index(&mut state, record);
        }
        if let Some(watchers) = state.watchers.get(&record.id) {
            watchers.notify_waiters();
        }
    }

    /// Removes a session that ended, moved to another node, or is not recorded. False if something
    /// happened since its driver last read it: what the driver read may be old.
    pub(crate) fn remove(&self, id: SessionId, attempts: &[Attempt]) -> bool {
        let mut state = self.lock();
        if state.slots.get(&id).is_some_and(|slot| slot.dirty) {
            return false;
        }
        state.set_due(id, NEVER);
        if let Some(slot) = state.slots.remove(&id)
            && let Some(ready) = state.ready.get_mut(&slot.account)
        {
            ready.remove(&id);
        }
        for attempt in attempts {
            state.attempts.remove(&attempt.id);
        }
        if let Some(watchers) = state.watchers.get(&id) {
            watchers.notify_waiters();
        }
        true
    }

    /// Removes every session.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        let (driving, parked) = (
            std::mem::take(&mut state.driving),
            std::mem::take(&mut state.parked),
        );
        let watchers = std::mem::take(&mut state.watchers);
        *state = State {
            driving,
            parked,
            watchers,
            ..State::default()
        };
    }

    /// How many attempts on an account are being ended or searched for: those that are open and not
    /// serving.
    pub(crate) fn unsettled(&self, account: u16) -> usize {
        let state = self.lock();
        let of_account = |id: &SessionId| {
            state
                .slots
                .get(id)
                .is_some_and(|slot| slot.account == account)
        };
        state
            .attempts
            .values()
            .filter(|(session, serving)| !serving && of_account(session))
            .count()
    }

    pub(crate) fn contains(&self, id: SessionId) -> bool {
        self.lock().slots.contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().slots.len()
    }

    pub(crate) fn ids(&self) -> Vec<SessionId> {
        self.lock().slots.keys().copied().collect()
    }

    /// Makes a session be planned as soon as possible.
    pub(crate) fn wake(&self, id: SessionId) {
        self.tell(id, None);
    }

    /// The same, with an input for its driver. Dropped if the session is not ours: its owner finds
    /// out by itself.
    pub(crate) fn tell(&self, id: SessionId, input: Option<Input>) {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&id) else {
            return;
        };
        slot.dirty = true;
        if let Some(input) = input {
            slot.hot.get_or_insert_default().inbox.push(input);
        }
        let signal = slot
            .driving
            .then(|| slot.hot.get_or_insert_default().signal.clone());
        match signal {
            Some(signal) => signal.notify_one(),
            None => {
                state.set_ready(id);
                drop(state);
                self.changed.notify_one();
            }
        }
    }

    /// Makes every session be planned as soon as possible.
    pub(crate) fn wake_all(&self) {
        let mut state = self.lock();
        let ids: Vec<SessionId> = state.slots.keys().copied().collect();
        for id in ids {
            match state.slots.get_mut(&id) {
                Some(slot) if slot.driving => {
                    slot.dirty = true;
                    slot.hot.get_or_insert_default().signal.notify_one();
                }
                _ => state.set_ready(id),
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The sessions that a jump of the time affects directly: those with an order that is not
    /// serving, whose age changes; after a jump backwards all, because of recorded instants later
    /// than now.
    pub(crate) fn ids_after_a_jump(&self, backwards: bool) -> Vec<SessionId> {
        if backwards {
            return self.ids();
        }
        let state = self.lock();
        let unsettled = state.attempts.values().filter(|(_, serving)| !serving);
        let ids: BTreeSet<SessionId> = unsettled.map(|(id, _)| *id).collect();
        ids.into_iter().collect()
    }

    /// The next session to work on, if its account has a free place; otherwise when there will be
    /// one.
    pub(crate) fn next(
        &self,
        now: Timestamp,
        room: usize,
    ) -> Result<(SessionId, Work), Option<Timestamp>> {
        let mut state = self.lock();
        let now = now.unix_millis();
        while let Some((due, id)) = state.timers.first().copied() {
            if due > now {
                break;
            }
            state.set_due(id, NEVER);
            state.set_ready(id);
        }
        let next_timer = state
            .timers
            .first()
            .map(|(due, _)| Timestamp::from_unix_millis(*due));
        while let Some(id) = state.pop_ready(room) {
            let Some(slot) = state.slots.get_mut(&id) else {
                continue;
            };
            if slot.driving {
                continue;
            }
            (slot.driving, slot.dirty) = (true, false);
            let account = slot.account;
            let hot = slot.hot.get_or_insert_default();
            let work = Work {
                account,
                evidence: std::mem::take(&mut hot.evidence),
                signal: hot.signal.clone(),
            };
            state.takes_place(account);
            return Ok((id, work));
        }
        Err(next_timer)
    }

    /// The inputs received since the driver last read.
    pub(crate) fn drain(&self, id: SessionId) -> Vec<Input> {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&id) else {
            return Vec::new();
        };
        slot.dirty = false;
        slot.hot
            .as_mut()
            .map(|hot| std::mem::take(&mut hot.inbox))
            .unwrap_or_default()
    }

    /// The driver has nothing to do until `due`. False if something happened meanwhile: it has to
    /// plan again.
    pub(crate) fn rest(&self, id: SessionId, evidence: &Evidence, due: Option<Timestamp>) -> bool {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&id) else {
            return true;
        };
        if slot.dirty {
            return false;
        }
        slot.hot = (!evidence.is_empty()).then(|| {
            Box::new(Hot {
                evidence: evidence.clone(),
                ..Hot::default()
            })
        });
        state.set_due(id, due.map_or(NEVER, millis));
        true
    }

    /// The driver has ended, in whatever way.
    pub(crate) fn released(&self, id: SessionId, account: u16, again: Option<Timestamp>) {
        let mut state = self.lock();
        state.leaves_place(account);
        let mut ready = false;
        if let Some(slot) = state.slots.get_mut(&id) {
            slot.driving = false;
            ready = slot.dirty || slot.hot.as_ref().is_some_and(|hot| !hot.inbox.is_empty());
        }
        if ready {
            state.set_ready(id);
        }
        if let Some(again) = again {
            state.set_due(id, millis(again));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits at most `longest` until no driver is working or waiting for a cloud.
    pub(crate) async fn quiesce(&self, longest: std::time::Duration) {
        let until = super::steady::later(longest);
        loop {
            {
                let state = self.lock();
                for slot in state.slots.values().filter(|slot| slot.driving) {
                    if let Some(hot) = &slot.hot {
                        hot.signal.notify_one();
                    }
                }
                if state
                    .driving
                    .values()
                    .chain(state.parked.values())
                    .all(|drivers| *drivers == 0)
                {
                    return;
                }
            }
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = tokio::time::sleep(std::time::Duration::from_millis(100)) => {}
            }
            if tokio::time::Instant::now() >= until {
                return;
            }
        }
    }

    /// Registers a waiter for changes of a session's record.
    pub(crate) fn watch(&self, id: SessionId) -> Arc<Notify> {
        self.lock().watchers.entry(id).or_default().clone()
    }

    /// Removes the entry of a session's waiters unless another waiter remains.
    pub(crate) fn unwatch(&self, id: SessionId) {
        let mut state = self.lock();
        // The map itself holds one reference.
        if state
            .watchers
            .get(&id)
            .is_some_and(|watchers| Arc::strong_count(watchers) <= 1)
        {
            state.watchers.remove(&id);
        }
    }

    /// The session of ours to which an open attempt belongs.
    pub(crate) fn session_of(&self, attempt: AttemptId) -> Option<SessionId> {
        self.lock().attempts.get(&attempt).map(|(id, _)| *id)
    }

    /// The open attempts of our sessions on an account.
    pub(crate) fn open_attempts(&self, account: u16) -> Vec<Open> {
        let state = self.lock();
        let open = state
            .attempts
            .iter()
            .filter_map(|(attempt, (session, serving))| {
                let slot = state
                    .slots
                    .get(session)
                    .filter(|slot| slot.account == account)?;
                Some(Open {
                    attempt: *attempt,
                    session: *session,
                    serving: *serving,
                    seen: slot.seen,
                })
            });
        open.collect()
    }

    /// Frees the place of a driver that only waits for its cloud. False if so many drivers wait
    /// already that it keeps its place.
    pub(crate) fn park(&self, account: u16) -> bool {
        let mut state = self.lock();
        let parked = state.parked.entry(account).or_default();
        if *parked >= MOST_PARKED {
            return false;
        }
        *parked += 1;
        state.leaves_place(account);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// The driver occupies a place again.
    pub(crate) fn unpark(&self, account: u16) {
        let mut state = self.lock();
        if let Some(parked) = state.parked.get_mut(&account) {
            *parked = parked.saturating_sub(1);
        }
        state.takes_place(account);
    }

    /// Records the hash of what was seen of a session's machine.
    pub(crate) fn saw(&self, id: SessionId, seen: u32) {
        if let Some(slot) = self.lock().slots.get_mut(&id) {
            slot.seen = seen;
        }
    }
}
