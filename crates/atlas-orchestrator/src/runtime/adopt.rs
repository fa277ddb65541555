//! Finds the sessions that this node must look after, and starts looking after them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use atlas_core::{Error, Result, Timestamp};

use super::core::{Core, Extra, Loaded};
use super::pages::LivePages;
use super::touches::touch_time;
use crate::ids::SessionId;
use crate::kernel::glance::{Glance, glance};
use crate::kernel::limits::next_look_of;
use crate::kernel::{Cx, Evidence, Input, SessionRecord, plan};
use crate::store::{Row, Table};

const PAGE: usize = 1000;

/// Held from before a commit that may make a session this node's until the session is looked after.
/// A lost commit answer, a failed read afterwards or a dropped call can each leave a session of
/// ours without a driver. Dropping this value unsettled requests a search for such sessions.
#[derive(Debug)]
pub(crate) struct Doubt<'a>(Option<&'a Core>);

impl<'a> Doubt<'a> {
    pub(crate) fn begin(core: &'a Core) -> Self {
        Self(Some(core))
    }

    /// Requests the search: there may be a session of ours without a driver.
    pub(crate) fn raise(core: &Core) {
        core.in_doubt.store(true, Ordering::Relaxed);
    }

    /// The session is looked after, or was not written.
    pub(crate) fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(core) = self.0 {
            Self::raise(core);
        }
    }
}

/// Searches for sessions of ours without a driver, if that was requested.
pub(crate) async fn dispel(core: &Arc<Core>) -> Result<()> {
    if !core.in_doubt.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    let doubt = Doubt::begin(core);
    adopt(core).await?;
    doubt.settled();
    Ok(())
}

/// Starts looking after a session of ours.
pub(crate) async fn take_up(core: &Core, record: &SessionRecord) -> Result<()> {
    let touch = match record.ending {
        None => core.store.get(Table::Touches, record.id.as_bytes()).await?,
        // Touches can no longer keep it alive.
        Some(_) => None,
    };
    let touched = touch.as_ref().and_then(|row| touch_time(&row.value));
    take_up_with(core, record, touched, touch.map(|row| row.version));
    Ok(())
}

fn take_up_with(
    core: &Core,
    record: &SessionRecord,
    touched: Option<Timestamp>,
    version: Option<u64>,
) {
    core.steady.took_up();
    let cx = core.cx(&record.account);
    let durable = believed(&cx, touched, record.created_at);
    if record.ending.is_none() {
        core.touches
            .insert(record.id, record.options.idle_ttl, durable, version);
    }
    let planned = plan(record, &Evidence::default(), durable, &cx);
    let due = if planned.effects.is_empty() {
        planned.due
    } else {
        Some(core.now())
    };
    let account = core.account_index(&record.account);
    // Nothing remains to be done: the session is recorded, and the walks over its account watch its
    // machine.
    core.slots.insert(
        record,
        account,
        Some(due.unwrap_or_else(|| core.now().saturating_add(core.policy.retention))),
    );
    if cx.believed(record.created_at) != record.created_at {
        core.slots.tell(record.id, Some(Input::TimeJumped));
    }
}

/// The latest recorded activity, except where a clock that was ahead wrote it.
fn believed(cx: &Cx<'_>, touched: Option<Timestamp>, created_at: Timestamp) -> Timestamp {
    let created_at = cx.believed(created_at);
    touched.map_or(created_at, |at| cx.believed(at).max(created_at))
}

/// Takes up every session of this node that is not over and that it does not look after yet. Of
/// those that only limits can end, not more than the head of the row is read.
pub(crate) async fn adopt(core: &Arc<Core>) -> Result<()> {
    let mut touches = TouchRows::default();
    let mut pages = LivePages::begin(core).await?;
    while let Some(heads) = pages.next(core).await? {
        let (mut rest, mut touched) = (Vec::new(), BTreeMap::new());
        for row in heads {
            let Some(id) = SessionId::from_slice(&row.key).filter(|id| !core.slots.contains(*id))
            else {
                continue;
            };
            match glance(&row.value) {
                Some(glance) if glance.owner != core.node && !core.exclusive => {}
                Some(glance) if glance.quiet && glance.owner == core.node => {
                    adopt_quiet(core, id, &glance, touches.of(core, id).await?);
                }
                _ => {
                    touched.insert(id, touches.of(core, id).await?);
                    rest.push(row);
                }
            }
        }
        for row in pages.whole(core, rest).await? {
            if let Some(loaded) = Loaded::readable(row) {
                let touch = touched.remove(&loaded.record.id).flatten();
                adopt_whole(core, loaded, touch).await?;
            }
        }
    }
    core.touches.all_here();
    core.slots.changed.notify_one();
    Ok(())
}

type Touched = (Timestamp, u64);

/// Rows of touches, read in step with those of sessions: both are ordered by session, so neither
/// has to fit in memory as a whole.
#[derive(Default)]
struct TouchRows {
    page: VecDeque<Row>,
    last: Option<Vec<u8>>,
    done: bool,
}

impl TouchRows {
    /// The row of this session, if there is one. Sessions must be requested in ascending order.
    async fn of(&mut self, core: &Core, id: SessionId) -> Result<Option<Touched>> {
        loop {
            while let Some(row) = self.page.front() {
                match row.key.as_slice().cmp(id.as_bytes()) {
                    std::cmp::Ordering::Less => drop(self.page.pop_front()),
                    std::cmp::Ordering::Equal => {
                        return Ok(touch_time(&row.value).map(|at| (at, row.version)));
                    }
                    std::cmp::Ordering::Greater => return Ok(None),
                }
            }
            if self.done {
                return Ok(None);
            }
            self.page = core
                .store
                .scan(Table::Touches, &[], self.last.as_deref(), PAGE)
                .await?
                .into();
            match self.page.back() {
                Some(row) => self.last = Some(row.key.clone()),
                None => self.done = true,
            }
        }
    }
}

fn adopt_quiet(core: &Core, id: SessionId, glance: &Glance<'_>, touch: Option<Touched>) {
    core.steady.took_up();
    let mut names = core.accounts.iter().map(|account| &account.name);
    let cx = names
        .clone()
        .find(|name| name.as_str() == glance.account)
        .map(|name| core.cx(name));
    let durable = cx.as_ref().map_or(glance.created_at, |cx| {
        believed(cx, touch.map(|(at, _)| at), glance.created_at)
    });
    core.touches.insert(
        id,
        glance.idle_ttl,
        durable,
        touch.map(|(_, version)| version),
    );
    let index = names
        .position(|name| name.as_str() == glance.account)
        .unwrap_or(core.accounts.len());
    let account = u16::try_from(index).unwrap_or(u16::MAX);
    let due = cx
        .as_ref()
        .and_then(|cx| next_look_of(glance, durable, cx))
        .unwrap_or_else(|| core.now());
    core.slots.insert_quiet(id, &glance.open, account, due);
    if cx.is_some_and(|cx| cx.believed(glance.created_at) != glance.created_at) {
        core.slots.tell(id, Some(Input::TimeJumped));
    }
}

async fn adopt_whole(core: &Arc<Core>, mut loaded: Loaded, touch: Option<Touched>) -> Result<()> {
    if loaded.record.is_over() || loaded.record.owner != core.node && !core.exclusive {
        return Ok(());
    }
    if loaded.record.owner != core.node {
        // Only one process at a time can hold this store, so the previous owner is dead.
        let claim = Input::Claim(core.node.clone());
        core.apply(
            &mut loaded,
            &mut Evidence::default(),
            &claim,
            Extra::default(),
        )
        .await
        .map_err(Error::from)?;
    }
    take_up_with(
        core,
        &loaded.record,
        touch.map(|(at, _)| at),
        touch.map(|(_, version)| version),
    );
    Ok(())
}
