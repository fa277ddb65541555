//! Executes effects and produces the resulting kernel inputs. An effect only reads, calls and
//! reports; the driver commits.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atlas_auth::callback;
use atlas_core::{
    AccountName, AttemptId, ComputeId, ComputeRequest, Error, ErrorKind, LaunchKey, Next, Timestamp,
};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::core::{Core, DEATH_ROW, Extra, TimeRow, sighting_key};
use super::pacer::{Class, Permit};
use super::{plausible, proofs};
use crate::ids::SessionId;
use crate::kernel::{
    Activity, Answer, Effect, Failure, Identity, Input, Reading, SessionRecord, Walk,
};
use crate::store::{Batch, Guard, Table};

/// The longest wait for an activity source.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// The activity source for touches that could not be made while a node was away or dead.
const RETURN: &str = "a node was away";

/// The result of an effect.
#[derive(Debug)]
pub(crate) enum Done {
    /// An input for the kernel.
    Told(Effect, Box<Input>, Extra),
    /// It is this order's turn to make its call.
    Admitted(AttemptId, Permit, Option<String>),
    /// The create call was answered.
    Answered(AttemptId, Box<Answer>),
}

pub(crate) type Running = Pin<Box<dyn Future<Output = Done> + Send>>;

/// The row of a sighting.
#[derive(Debug, Serialize, Deserialize)]
struct SightingRow {
    at: Timestamp,
}

/// Whether the end of an attempt is committed.
fn is_ending(record: &SessionRecord, attempt: AttemptId) -> bool {
    record
        .attempt(attempt)
        .is_some_and(|attempt| attempt.kill.is_some())
}

/// The account, or the failure to report if there is no handle for it.
fn account(core: &Core, name: &AccountName) -> Result<Arc<Account>, Failure> {
    core.account(name).cloned().ok_or_else(Failure::no_handle)
}

/// Starts an effect.
pub(crate) fn run(core: Arc<Core>, record: &SessionRecord, effect: Effect) -> Running {
    let name = record.account.clone();
    let id = record.id;
    let record = record.clone();
    Box::pin(async move {
        let mut extra = Extra::default();
        let input = match &effect {
            Effect::Candidates => match candidates(&core, id, &name).await {
                Ok(list) if !list.is_empty() => place(&core, &record, list).await,
                found => Input::Candidates(found),
            },
            Effect::Intend => intend(&core, &record).await,
            Effect::EnsureSupport(attempt, index) => Input::SupportMade(
                *attempt,
                *index,
                ensure(&core, &record, *attempt, *index).await,
            ),
            Effect::Order(attempt) => {
                let account = match account(&core, &name) {
                    Ok(account) => account,
                    Err(failure) => {
                        return Done::Answered(
                            *attempt,
                            Box::new(Answer::NotApplied(Next::SameLater, failure)),
                        );
                    }
                };
                let identity = account.identity().await.ok();
                core.lease.wait(&core.stopped).await;
                return Done::Admitted(*attempt, account.pacer.admit(Class::Order).await, identity);
            }
            Effect::Recover(attempt) => recover(&core, *attempt).await,
            Effect::Walk(attempt) => Input::Walked(*attempt, walk(&core, &record, *attempt).await),
            Effect::Poll(attempt, compute) => {
                let seen = match account(&core, &name) {
                    Err(failure) => Err(failure),
                    Ok(account) => account
                        .look(compute, record.ready_at.is_some())
                        .await
                        .map(Box::new),
                };
                let seen = match seen {
                    Ok(compute) if record.ready_at.is_none() => {
                        Ok(probed(&core, &record, compute).await)
                    }
                    seen => seen,
                };
                Input::Observed(*attempt, seen)
            }
            Effect::PointRead(attempt, compute) => {
                let (begun, reading) = match account(&core, &name) {
                    Err(failure) => (core.now(), Reading::NoAnswer(failure)),
                    Ok(account) if is_ending(&record, *attempt) => {
                        proofs::prove(&core, &account, *attempt, compute).await
                    }
                    Ok(account) => account.read(Class::Resolve, compute).await,
                };
                Input::Read(*attempt, compute.clone(), begun, reading)
            }
            Effect::Delete(attempt, compute) => {
                let deleted = match account(&core, &name) {
                    Err(failure) => Err(failure),
                    Ok(account) => account
                        .call(
                            Class::Kill,
                            account.provider.terminate(account.context(), compute),
                        )
                        .await
                        .map_err(|error| Failure::from(&error)),
                };
                Input::Deleted(*attempt, compute.clone(), deleted)
            }
            Effect::Conclude(attempt) => conclude(&core, &name, *attempt).await,
            Effect::ReleaseSupport(attempt, index) => Input::SupportReleased(
                *attempt,
                *index,
                release(&core, &record, *attempt, *index).await,
            ),
            Effect::Finish | Effect::GiveUpPlacing => Input::Tick,
            Effect::Limits => {
                let (input, guards) = limits(&core, &record).await;
                extra.guards = guards;
                input
            }
        };
        Done::Told(effect, Box::new(input), extra)
    })
}

/// Runs the host application's own code, with this time limit and isolated from panics.
async fn asked<T>(longest: Duration, answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(longest, AssertUnwindSafe(answer).catch_unwind())
        .await
        .ok()?
        .ok()
}

/// A machine that its cloud reports as running is usable only when the host's probe agrees.
async fn probed(
    core: &Core,
    record: &SessionRecord,
    mut compute: Box<atlas_core::Compute>,
) -> Box<atlas_core::Compute> {
    if let Some(probe) = &core.probe
        && compute.status == atlas_core::ComputeStatus::Running
        && compute.ready.unwrap_or(true)
    {
        let longest = core.bounds(&record.account).limits.call_deadline;
        let usable = asked(
            longest,
            probe.is_ready(record.id, &compute, record.options.probe.as_ref()),
        )
        .await;
        compute.ready = Some(usable.unwrap_or(false));
    }
    compute
}

/// Makes the create call of an attempt. `calling` is already recorded.
pub(crate) fn call(
    core: Arc<Core>,
    record: &SessionRecord,
    attempt: AttemptId,
    permit: Permit,
) -> Running {
    let (id, name) = (record.id, record.account.clone());
    let pinned = record
        .attempt(attempt)
        .map(|a| (a.key, a.candidate.clone(), a.calling_at));
    Box::pin(async move {
        let local = |message: &str| {
            let error = Error::new(ErrorKind::Unavailable, message);
            Answer::NotApplied(Next::SameLater, Failure::from(&error))
        };
        let answer = match (account(&core, &name), core.request(id).await, pinned) {
            (Ok(account), Ok(Some(request)), Some((key, candidate, calling_at))) => {
                let request = reports_as(request.at(candidate), key.attempt());
                // The last check before the call: was the lease renewed recently enough, and is it
                // still soon after `calling`? The proof about a lost answer counts from there.
                let in_time = calling_at.is_some_and(|at| core.now().since(at) < core.policy.lease);
                if core.lease.may_act() && in_time || !core.policy.safeguards().fence {
                    let context = account.context();
                    let key = LaunchKey::Tracked(key);
                    let made = account
                        .call_with(
                            permit,
                            account.provider.spawn_compute(context, &key, &request),
                        )
                        .await;
                    match made {
                        Ok(compute) => {
                            Answer::Created(Box::new(compute), account.identity().await.ok())
                        }
                        Err(error) => Answer::from(&error),
                    }
                } else {
                    local("too much time passed between the commit and the call")
                }
            }
            (Err(failure), ..) => Answer::NotApplied(Next::SameLater, failure),
            (_, Ok(None), _) | (_, _, None) => local("the sealed request is gone"),
            (_, Err(error), _) => local(error.message()),
        };
        Done::Answered(attempt, Box::new(answer))
    })
}

/// The token in a sealed request's environment belongs to the session. A machine gets a token for
/// its own attempt, so that it can report only while it is the session's machine.
fn reports_as(mut request: ComputeRequest, attempt: AttemptId) -> ComputeRequest {
    let token = request.env.get(callback::TOKEN_ENV);
    if let Some(bound) = token.and_then(|token| callback::bind(token, &attempt.to_string())) {
        request.env.insert(callback::TOKEN_ENV.to_owned(), bound);
    }
    request
}

async fn sealed(core: &Core, id: SessionId) -> Result<ComputeRequest, Failure> {
    match core.request(id).await {
        Ok(Some(request)) => Ok(request),
        Ok(None) => Err(Failure::from(&Error::new(
            ErrorKind::Unavailable,
            "the sealed request is gone",
        ))),
        Err(error) => Err(Failure::from(&error)),
    }
}

async fn candidates(
    core: &Core,
    id: SessionId,
    name: &AccountName,
) -> Result<Vec<atlas_core::Candidate>, Failure> {
    let account = account(core, name)?;
    let request = sealed(core, id).await?;
    if let Some(pinned) = request.candidate {
        // The caller chose exactly this candidate.
        return Ok(vec![pinned]);
    }
    account
        .call(
            Class::Offer,
            account.provider.candidates(account.context(), &request),
        )
        .await
        .map_err(|error| Failure::from(&error))
}

/// Mints a key for an order of this candidate, and derives the supporting objects it needs.
async fn mint(
    core: &Core,
    record: &SessionRecord,
    candidate: Option<&atlas_core::Candidate>,
) -> Result<(atlas_core::TrackedKey, Vec<atlas_core::Support>), Failure> {
    let account = account(core, &record.account)?;
    let request = sealed(core, record.id)
        .await?
        .at(candidate.cloned().unwrap_or_default());
    let key = core.realm.mint_key(core.now(), &*core.entropy);
    let supports = account
        .provider
        .supports(&LaunchKey::Tracked(key), &request)
        .map_err(|error| Failure::from(&error))?;
    Ok((key, supports))
}

async fn place(
    core: &Core,
    record: &SessionRecord,
    candidates: Vec<atlas_core::Candidate>,
) -> Input {
    match mint(core, record, candidates.first()).await {
        Ok((key, supports)) => Input::Place {
            candidates,
            key,
            supports,
        },
        Err(failure) => Input::Candidates(Err(failure)),
    }
}

async fn intend(core: &Core, record: &SessionRecord) -> Input {
    let candidate = record
        .placing
        .as_ref()
        .and_then(|p| p.candidates.as_ref())
        .and_then(|list| list.first());
    match mint(core, record, candidate).await {
        Ok((key, supports)) => Input::Intend { key, supports },
        Err(failure) => Input::Candidates(Err(failure)),
    }
}

async fn ensure(
    core: &Core,
    record: &SessionRecord,
    attempt: AttemptId,
    index: usize,
) -> Result<atlas_core::Support, Failure> {
    let account = account(core, &record.account)?;
    let planned = record
        .attempt(attempt)
        .and_then(|a| Some((a.key, a.supports.get(index)?.support.clone())));
    let Some((key, support)) = planned else {
        return Err(Failure::no_handle());
    };
    let permit = account.pacer.admit(Class::Order).await;
    core.lease.wait(&core.stopped).await;
    account
        .call_with(
            permit,
            account
                .provider
                .ensure_support(account.context(), &LaunchKey::Tracked(key), &support),
        )
        .await
        .map_err(|error| Failure::from(&error))
}

async fn release(
    core: &Core,
    record: &SessionRecord,
    attempt: AttemptId,
    index: usize,
) -> Result<(), Failure> {
    let account = account(core, &record.account)?;
    let Some(step) = record.attempt(attempt).and_then(|a| a.supports.get(index)) else {
        return Ok(());
    };
    account
        .call(
            Class::Kill,
            account
                .provider
                .release_support(account.context(), &step.support),
        )
        .await
        .map_err(|error| Failure::from(&error))
}

async fn walk(core: &Core, record: &SessionRecord, attempt: AttemptId) -> Result<Walk, Failure> {
    let account = account(core, &record.account)?;
    let listed = account.walk().await?;
    let Some(attempt) = record.attempt(attempt) else {
        return Err(Failure::no_handle());
    };
    let mut found: BTreeMap<&ComputeId, &atlas_core::Compute> = listed
        .of_key(&attempt.key)
        .map(|machine| (&machine.id, machine))
        .collect();
    for seen in &attempt.sighted {
        // A machine that was renamed is recognised by its id.
        if let Some(machine) = listed.of_id(&seen.id) {
            found.insert(&machine.id, machine);
        }
    }
    let found: Vec<atlas_core::Compute> = found.into_values().cloned().collect();
    let complete = listed.is_complete() && plausible::is_plausible(core, &account, &listed).await;
    Ok(Walk {
        begun: listed.begun,
        complete,
        found,
    })
}

/// The recorded ids of an attempt, outside the session's row.
async fn sighted(core: &Core, attempt: AttemptId) -> Result<Vec<ComputeId>, Error> {
    let rows = core
        .store
        .scan(Table::Sightings, attempt.as_bytes(), None, 1000)
        .await?;
    let ids = rows
        .iter()
        .filter_map(|row| std::str::from_utf8(row.key.get(10..)?).ok())
        .filter_map(|id| ComputeId::new(id).ok());
    Ok(ids.collect())
}

async fn recover(core: &Core, attempt: AttemptId) -> Input {
    match sighted(core, attempt).await {
        Ok(ids) => Input::Lost(attempt, ids),
        Err(_) => {
            core.sleep(Duration::from_secs(1)).await;
            Input::Tick
        }
    }
}

async fn conclude(core: &Core, name: &AccountName, attempt: AttemptId) -> Input {
    let ids = match sighted(core, attempt).await {
        Ok(ids) => ids,
        Err(error) => return Input::Conclude(attempt, Err(Failure::from(&error)), Vec::new()),
    };
    let identity = async {
        let account = account(core, name)?;
        let now = account.identity().await?;
        let (known, aliases) = super::accounts::known_identity(core, name)
            .await
            .map_err(|error| Failure::from(&error))?;
        Ok(Identity {
            now,
            known,
            aliases,
        })
    };
    Input::Conclude(attempt, identity.await, ids)
}

/// The latest activity, and the guards that must hold when an end is decided by it.
async fn limits(core: &Core, record: &SessionRecord) -> (Input, Vec<Guard>) {
    let read = async {
        let touch = core.store.get(Table::Touches, record.id.as_bytes()).await?;
        if !core.exclusive {
            super::nodes::note_deaths(core).await?;
        }
        let death = core.store.get(Table::Realm, DEATH_ROW).await?;
        Ok::<_, Error>((touch, death))
    };
    let Ok((touch, death)) = read.await else {
        // Without the store nothing is decided.
        core.sleep(Duration::from_secs(1)).await;
        return (Input::Tick, Vec::new());
    };
    let guards = vec![
        Guard {
            table: Table::Touches,
            key: record.id.as_bytes().to_vec(),
            expected: touch.as_ref().map(|row| row.version),
        },
        Guard {
            table: Table::Realm,
            key: DEATH_ROW.to_vec(),
            expected: death.as_ref().map(|row| row.version),
        },
    ];
    let cx = core.cx(&record.account);
    let mut newest = Activity {
        at: cx.believed(record.created_at),
        source: "created".to_owned(),
        asked_at: cx.now,
    };
    if let Some(at) = cx.trust.touched_at.filter(|at| *at > newest.at) {
        (newest.at, newest.source) = (at, RETURN.to_owned());
    }
    let mut consider = |at: Timestamp, source: &str| {
        let at = cx.believed(at);
        if at > newest.at {
            (newest.at, newest.source) = (at, source.to_owned());
        }
    };
    if let Some(row) = &touch
        && let Some(at) = super::touches::touch_time(&row.value)
    {
        consider(at, "touch");
        core.touches
            .flushed(record.id, cx.believed(at), row.version);
    }
    if core.policy.safeguards().flush_touches
        && let Some(at) = core.touches.newest(record.id)
    {
        consider(at, "touch");
    }
    if let Some(row) = &death
        && let Ok(row) = serde_json::from_slice::<TimeRow>(&row.value)
        && core.policy.safeguards().flush_touches
    {
        consider(row.at, RETURN);
    }
    for source in &core.sources {
        match asked(LONGEST_LOOK, source.last_activity(record.id)).await {
            Some(Ok(Some(at))) => consider(at.min(core.now()), source.name()),
            Some(Ok(None)) => {}
            // A source that cannot be read counts as active; limits that do not depend on activity
            // still apply.
            Some(Err(_)) | None => consider(core.now(), source.name()),
        }
    }
    if core
        .touches
        .newest(record.id)
        .is_some_and(|known| newest.at > known)
    {
        core.touches.came_from(record.id, newest.at, &newest.source);
        core.touches.touch(record.id, newest.at.unix_millis());
    }
    (Input::Limits(newest), guards)
}

/// The rows that record what an answer showed, whatever happens to the session's own row.
pub(crate) fn sightings(attempt: AttemptId, answer: &Answer, now: Timestamp) -> Extra {
    let ids: Vec<&ComputeId> = match answer {
        Answer::Created(compute, _) => vec![&compute.id],
        Answer::Unknown(ids, _) | Answer::Unwanted(ids, _) => ids.iter().collect(),
        Answer::NotApplied(..) => Vec::new(),
    };
    let row = serde_json::to_vec(&SightingRow { at: now }).unwrap_or_default();
    let puts = ids
        .into_iter()
        .map(|id| (Table::Sightings, sighting_key(attempt, id), row.clone()))
        .collect();
    Extra {
        guards: Vec::new(),
        puts,
    }
}

/// Appends sightings without a fence or guard: they only ever add knowledge.
pub(crate) async fn append_sightings(core: &Core, extra: Extra) {
    if extra.puts.is_empty() {
        return;
    }
    for _ in 0..64 {
        let batch = Batch {
            puts: extra.puts.clone(),
            ..Batch::new()
        };
        match core.store.commit(batch).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(error = %Error::from(error),
                    "a sighting could not be put on record yet")
            }
        }
        if !core.sleep(Duration::from_secs(1)).await {
            return;
        }
    }
}
