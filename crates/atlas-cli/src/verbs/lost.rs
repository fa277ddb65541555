//! `atlas doctor --end-all --realm-lost`: ends every machine by the ids on record when the realm's
//! secret is lost.
//!
//! Without the secret no orchestrator starts on the store, so this verb reads the records itself
//! and calls the clouds with the accounts' own keys. The store stays as it is: a repetition shows
//! what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atlas::{
    AccountName, AnyProvider, AttemptPhase, CallContext, Claim, Completeness, ComputeId,
    ListFilter, Presence, Redb, SessionId, Support, TrackedKey,
};
use atlas_orchestrator::kernel::SessionRecord;
use atlas_orchestrator::kernel::record::{Attempt, Fate};
use atlas_orchestrator::store::{Store, Table};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::failure::{Done, Failure};
use crate::output::{self, Output};
use crate::setup::Setup;

const PAGE: usize = 128;
/// How long the end of machines is waited for once their deletion was ordered.
const WAIT: Duration = Duration::from_secs(120);
/// How often a machine is looked at meanwhile.
const LOOK: Duration = Duration::from_secs(1);
const AGAIN: &str = "atlas doctor --end-all --realm-lost --yes";

/// An order on record that may have a machine, or supporting objects that are not released.
#[derive(Debug)]
struct Order {
    session: SessionId,
    account: AccountName,
    key: TrackedKey,
    /// The account that it was made on, as the cloud named it.
    identity: Option<String>,
    /// Whether the order's answer is not known: it may have a machine that is not on record.
    is_open: bool,
    machines: BTreeSet<ComputeId>,
    supports: Vec<Support>,
}

/// One machine and what was found out about it.
#[derive(Debug, Serialize)]
struct Machine {
    session: SessionId,
    account: AccountName,
    machine: ComputeId,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Present,
    Gone,
    Unknown,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }
}

/// Lists every machine on record, and with `confirmed` ends them all.
pub(crate) async fn end_all(setup: &Setup, confirmed: bool, out: Output) -> Done {
    let store = open(setup).await?;
    let mut missing = Vec::new();
    let orders = orders(&store, &mut missing).await?;
    let mut by_account: BTreeMap<AccountName, Vec<Order>> = BTreeMap::new();
    for order in orders {
        let account = order.account.clone();
        by_account.entry(account).or_default().push(order);
    }
    let mut machines = Vec::new();
    for (account, mut orders) in by_account {
        match setup.provider(&account) {
            Ok(provider) => {
                keep_own(&provider, &mut orders, &mut missing).await;
                find_unrecorded(&account, &provider, &mut orders, &mut missing).await;
                if confirmed {
                    end(&provider, &orders, out).await;
                }
                let looked = look(&provider, &orders, confirmed).await;
                if confirmed {
                    release(&provider, &orders, &looked, &mut missing).await;
                }
                machines.extend(looked);
            }
            Err(failure) => {
                missing.push(format!("account {account} cannot be used: {failure}"));
                let unknown = |order: &Order, id: &ComputeId| machine(order, id, State::Unknown);
                machines.extend(each(&orders).map(|(order, id)| unknown(order, id)));
            }
        }
    }
    let left = machines
        .iter()
        .filter(|machine| machine.state != State::Gone)
        .count();
    let report = json!({
        "confirmed": confirmed, "machines": machines, "left": left, "missing": missing,
    });
    out.answer(&report, || {
        let row = |one: &Machine| {
            vec![
                one.account.to_string(),
                one.machine.to_string(),
                one.session.to_string(),
                one.state.as_str().to_owned(),
                one.error.clone().unwrap_or_default(),
            ]
        };
        let heads = &["ACCOUNT", "MACHINE", "SESSION", "STATE", "ERROR"];
        let page = output::table(heads, machines.iter().map(row));
        let add = |page: output::Page, what: &String| page.with(&format!("\nmissing: {what}"));
        missing.iter().fold(page, add)
    })?;
    if left == 0 && missing.is_empty() {
        out.progress("no machine on record is left; begin again with a new store");
        return Ok(());
    }
    let why = if confirmed {
        format!("{left} machines may still bill, and the report names what is missing")
    } else {
        format!("nothing was ended: {left} machines on record may bill")
    };
    Err(Failure::new(why).goes_on_with(AGAIN))
}

/// The store, where this verb is the right one for it.
async fn open(setup: &Setup) -> Done<Redb> {
    if !setup.store().exists() {
        return Err(Failure::usage(format!(
            "there is no store {}",
            setup.store().display()
        )));
    }
    let Some(store) = setup.take().await? else {
        return Err(Failure::new(
            "another process holds the store, and has its realm secret: end the sessions with \
             atlas rm, or stop that process first",
        ));
    };
    match store.info().await?.fingerprint {
        Some(fingerprint) if !setup.has_secret_of(&fingerprint) => Ok(store),
        Some(_) => Err(Failure::usage(
            "the realm secret of this store is not lost: end the sessions with atlas rm",
        )),
        None => Err(Failure::usage(
            "this store belongs to no realm, so no machine is on record in it",
        )),
    }
}

/// Every order on record that is not known to be over.
async fn orders(store: &Redb, missing: &mut Vec<String>) -> Done<Vec<Order>> {
    let mut orders = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let rows = store
            .scan(Table::Sessions, &[], after.as_deref(), PAGE)
            .await?;
        let Some(last) = rows.last() else {
            return Ok(orders);
        };
        after = Some(last.key.clone());
        for row in rows {
            let Ok(record) = SessionRecord::decode(&row.value) else {
                let session = SessionId::from_slice(&row.key);
                let session = session.map_or_else(String::new, |id| id.to_string());
                missing.push(format!("the record of session {session} is unreadable"));
                continue;
            };
            for attempt in &record.attempts {
                orders.extend(order(store, &record, attempt).await?);
            }
        }
    }
}

async fn order(store: &Redb, record: &SessionRecord, attempt: &Attempt) -> Done<Option<Order>> {
    let left = attempt.supports.iter().filter(|step| !step.released);
    let supports: Vec<Support> = left.map(|step| step.support.clone()).collect();
    let mut machines = BTreeSet::new();
    if !attempt.is_terminal() {
        machines.extend(attempt.serving.clone());
        let own = attempt.own().filter(|seen| seen.fate != Fate::Gone);
        machines.extend(own.map(|seen| seen.id.clone()));
        // What an answer showed is kept beside the record too, in case the record was not written.
        let prefix = attempt.id.as_bytes();
        for row in store
            .scan(Table::Sightings, prefix, None, usize::MAX)
            .await?
        {
            let id = row.key.get(prefix.len()..).unwrap_or_default();
            let id = std::str::from_utf8(id).ok().map(ComputeId::new);
            let recorded = |id: &ComputeId| attempt.sighted.iter().any(|seen| seen.id == *id);
            machines.extend(id.and_then(Result::ok).filter(|id| !recorded(id)));
        }
    }
    let is_open = matches!(attempt.phase, AttemptPhase::Calling | AttemptPhase::Unknown);
    let order = Order {
        session: record.id,
        account: attempt.account.clone(),
        key: attempt.key,
        identity: attempt.identity.clone(),
        is_open,
        machines,
        supports,
    };
    let concerns = order.is_open || !order.machines.is_empty() || !order.supports.is_empty();
    Ok(concerns.then_some(order))
}

/// Leaves out what was ordered on another account than the key is of: its ids say nothing here.
async fn keep_own(provider: &AnyProvider, orders: &mut Vec<Order>, missing: &mut Vec<String>) {
    let identity = provider.identity(&CallContext::new()).await.ok();
    orders.retain(|order| match (&order.identity, &identity) {
        (Some(then), Some(now)) if then != now => {
            missing.push(format!(
                "session {} was ordered on another account than the key of {} is of: {}",
                order.session,
                order.account,
                order
                    .machines
                    .iter()
                    .map(ComputeId::as_str)
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
            false
        }
        _ => true,
    });
}

/// Adds the machines of orders whose answer is not known. Their launch keys are on record, so the
/// secret is not needed to recognise them.
async fn find_unrecorded(
    account: &AccountName,
    provider: &AnyProvider,
    orders: &mut [Order],
    missing: &mut Vec<String>,
) {
    if orders.iter().all(|order| !order.is_open) {
        return;
    }
    let cx = CallContext::new();
    let listing = match provider.list_compute(&cx, &ListFilter::all()).await {
        Ok(listing) => listing,
        Err(error) => {
            missing.push(format!("{account}: the machines were not listed: {error}"));
            return;
        }
    };
    if let Completeness::Incomplete(why) = &listing.completeness {
        missing.push(format!(
            "{account}: the list of machines is incomplete: {why}"
        ));
    }
    for order in orders.iter_mut().filter(|order| order.is_open) {
        let same = |claim| matches!(claim, Claim::Whole(key) if key == order.key);
        let found = listing.computes.iter();
        let found = found.filter(|machine| same(machine.keys.claim()));
        order
            .machines
            .extend(found.map(|machine| machine.id.clone()));
    }
}

fn each(orders: &[Order]) -> impl Iterator<Item = (&Order, &ComputeId)> {
    orders
        .iter()
        .flat_map(|order| order.machines.iter().map(move |id| (order, id)))
}

fn machine(order: &Order, id: &ComputeId, state: State) -> Machine {
    Machine {
        session: order.session,
        account: order.account.clone(),
        machine: id.clone(),
        state,
        error: None,
    }
}

/// Orders the deletion of every machine, whether it is seen or not: a read may lag behind an order.
async fn end(provider: &AnyProvider, orders: &[Order], out: Output) {
    for (order, id) in each(orders) {
        out.progress(format!("deleting {id} on {}", order.account));
        if let Err(error) = provider.terminate(&CallContext::new(), id).await {
            // Whether it is gone is read afterwards.
            tracing::warn!(account = %order.account, machine = %id, %error, "the deletion failed");
        }
    }
}

/// Looks at every machine; those whose deletion was ordered are looked at until they are gone.
async fn look(provider: &AnyProvider, orders: &[Order], ended: bool) -> Vec<Machine> {
    let until = Instant::now() + WAIT;
    let mut looked = Vec::new();
    for (order, id) in each(orders) {
        loop {
            let (state, error) = match provider.presence(&CallContext::new(), id).await {
                Presence::Absent => (State::Gone, None),
                Presence::Present => (State::Present, None),
                Presence::NoAnswer(error) => (State::Unknown, Some(error.to_string())),
            };
            if state == State::Gone || !ended || Instant::now() >= until {
                let found = machine(order, id, state);
                looked.push(Machine { error, ..found });
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    looked
}

/// Releases what was made for machines that are gone now.
async fn release(
    provider: &AnyProvider,
    orders: &[Order],
    looked: &[Machine],
    missing: &mut Vec<String>,
) {
    for order in orders {
        let is_gone = |id: &ComputeId| {
            let mut found = looked.iter().filter(|machine| machine.machine == *id);
            found.all(|machine| machine.state == State::Gone)
        };
        if !order.machines.iter().all(is_gone) {
            continue;
        }
        for support in &order.supports {
            let released = provider.release_support(&CallContext::new(), support).await;
            if let Err(error) = released {
                missing.push(format!(
                    "the {} {} on {} was not released: {error}",
                    support.kind, support.name, order.account
                ));
            }
        }
    }
}
