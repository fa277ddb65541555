//! Launching sessions: a request is checked, sealed and recorded; from there on the session's
//! driver (`runtime/reconciler.rs`) rents its machine.

use std::sync::atomic::Ordering;

use atlas_core::{Capability, ComputeRequest, Error, ErrorKind, Result};

use crate::event::EventKind;
use crate::handle::Session;
use crate::ids::SessionId;
use crate::kernel::SessionRecord;
use crate::kernel::record::Placing;
use crate::options::{SessionOptions, validate_key};
use crate::orchestrator::Orchestrator;
use crate::outcome::TaskOutcome;
use crate::runtime::account::Account;
use crate::runtime::adopt::Doubt;
use crate::runtime::core::Core;
use crate::runtime::entries;
use crate::runtime::keys::{self, Guards, Holder, Intent};
use crate::runtime::self_ending::request_self_ending;
use crate::session::SessionKind;
use crate::store::{Batch, CommitError, Table};

/// How many times a launch is tried again because another process takes or releases its session key
/// at the same time.
const KEY_TRIES: u32 = 64;

/// The result of [`Orchestrator::get_or_spawn`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Acquired {
    /// The session that has the key.
    pub session: Session,
    /// Whether this call created it.
    pub created: bool,
}

/// A session that is ready to be recorded.
struct Prepared {
    record: SessionRecord,
    /// The request with its credential, encrypted.
    sealed: Vec<u8>,
    intent: Intent,
}

impl Orchestrator {
    /// Rents a machine for a session; returns when a cloud has accepted the order.
    ///
    /// An order of unknown outcome is resolved first, so the result is a definite machine or an
    /// error.
    ///
    /// # Errors
    /// Before anything is sent: `validation` and `unsupported`; `conflict` when another session has
    /// the session key. Afterwards: the last error of the cloud; the session is then recorded as
    /// ended, and [`Orchestrator::list`] shows it.
    ///
    /// # Cancel safety
    /// A dropped call leaves the session recorded and its launch in progress; find it with
    /// [`Orchestrator::list`].
    pub async fn spawn(&self, request: ComputeRequest, options: SessionOptions) -> Result<Session> {
        let id = self
            .launch(request, options, SessionKind::Interactive)
            .await?;
        let session = Session::new(self.clone(), id);
        session.await_accepted().await?;
        Ok(session)
    }

    /// The session that has the session key of these options, or a new one; returns when a cloud
    /// has accepted its order. Of any number of concurrent calls with one key, on any number of
    /// nodes, exactly one creates a session.
    ///
    /// A session that exists must be what the request asks for; limits and labels may differ, and
    /// stay as they are. It is returned as it is: call [`Session::touch`] if this is activity.
    ///
    /// # Errors
    /// `validation` without a key; `conflict`, with the name of the first field that differs, when
    /// the session with this key was made with another request; `conflict` when that session is
    /// ending and the account's policy is `one_at_a_time`. Otherwise like [`Orchestrator::spawn`].
    ///
    /// # Cancel safety
    /// A dropped call may have created the session; the next call with the same key returns it.
    pub async fn get_or_spawn(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
    ) -> Result<Acquired> {
        let acquired = self.get_or_launch(request, options).await?;
        acquired.session.await_accepted().await?;
        Ok(acquired)
    }

    async fn get_or_launch(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
    ) -> Result<Acquired> {
        let Some(key) = options.key.clone() else {
            let message = "is needed to find the session again";
            return Err(Error::validation("key", message));
        };
        let prepared = self.prepare(self.new_id(), request, options, SessionKind::Interactive)?;
        for _ in 0..KEY_TRIES {
            match keys::holder(&self.core, &key).await? {
                Holder::Session(holder, theirs) => {
                    keys::check_intent(&key, &holder, &theirs, &prepared.intent)?;
                    return Ok(Acquired {
                        session: Session::new(self.clone(), holder.id),
                        created: false,
                    });
                }
                Holder::None(guards) => match self.record(&prepared, Some(&guards)).await {
                    Ok(()) => {
                        return Ok(Acquired {
                            session: Session::new(self.clone(), prepared.record.id),
                            created: true,
                        });
                    }
                    Err(CommitError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                },
            }
        }
        Err(contended(&key))
    }

    /// The session that has this session key, unless it is ending.
    ///
    /// # Errors
    /// `validation` when no session can have such a key; `unavailable` when the store cannot be
    /// read.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn find(&self, key: &str) -> Result<Option<Session>> {
        validate_key(key)?;
        Ok(match keys::holder(&self.core, key).await? {
            Holder::Session(record, _) if record.ending.is_none() => {
                Some(Session::new(self.clone(), record.id))
            }
            _ => None,
        })
    }

    /// Records a session and starts its launch, without waiting for a cloud.
    ///
    /// # Errors
    /// `validation`, `unsupported`; `conflict` when another session has the session key;
    /// `unavailable` when the store rejects the write.
    ///
    /// # Cancel safety
    /// A dropped call may have recorded the session.
    pub async fn launch(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
        kind: SessionKind,
    ) -> Result<SessionId> {
        self.launch_as(self.new_id(), request, options, kind).await
    }

    /// Generates an id for a session that is launched later, for data that must be bound to the id
    /// first, such as a callback token.
    #[must_use]
    pub fn new_id(&self) -> SessionId {
        SessionId::new(self.core.now(), &*self.core.entropy)
    }

    /// Like [`Orchestrator::launch`], with an id from [`Orchestrator::new_id`].
    ///
    /// # Errors
    /// Like [`Orchestrator::launch`]; `conflict` when the id is taken.
    ///
    /// # Cancel safety
    /// Like [`Orchestrator::launch`].
    pub async fn launch_as(
        &self,
        id: SessionId,
        request: ComputeRequest,
        options: SessionOptions,
        kind: SessionKind,
    ) -> Result<SessionId> {
        let prepared = self.prepare(id, request, options, kind)?;
        let Some(key) = prepared.record.options.key.clone() else {
            self.record(&prepared, None).await?;
            return Ok(id);
        };
        for _ in 0..KEY_TRIES {
            let guards = match keys::holder(&self.core, &key).await? {
                Holder::Session(holder, _) => return Err(keys::taken(&key, &holder)),
                Holder::None(guards) => guards,
            };
            match self.record(&prepared, Some(&guards)).await {
                Ok(()) => return Ok(id),
                // Either the key was taken meanwhile, or the id is taken.
                Err(CommitError::Conflict) if self.core.load(id).await?.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(&key))
    }

    /// Runs a command in a machine to its end, waits for its outcome, and ends the machine.
    ///
    /// # Errors
    /// Like [`Orchestrator::spawn`]. A task that failed is an outcome, not an error.
    ///
    /// # Cancel safety
    /// A dropped call leaves the task recorded and running.
    pub async fn run_task(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
    ) -> Result<(Session, TaskOutcome)> {
        let id = self.launch(request, options, SessionKind::Task).await?;
        let session = Session::new(self.clone(), id);
        let outcome = session.await_outcome().await?;
        Ok((session, outcome))
    }

    /// Checks a request and its options, and makes the record of the session and the sealed
    /// request. Nothing is written.
    fn prepare(
        &self,
        id: SessionId,
        request: ComputeRequest,
        options: SessionOptions,
        kind: SessionKind,
    ) -> Result<Prepared> {
        let core = &self.core;
        options.validate()?;
        let name = options
            .account
            .clone()
            .or_else(|| core.default_account.clone())
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Validation,
                    "no account was named and there is no default one",
                )
            })?;
        let account = core.known_account(&name)?;
        check_accepting(core)?;
        let credential = atlas_auth::mint(request.auth, &*core.entropy);
        let request = request.credential(credential);
        check_request(core, account, &request, &options)?;
        let now = core.now();
        let options = options.account(name.clone()).with_default_limits(kind);
        let key_until_absent = options.key.is_some() && account.policy.one_at_a_time;
        let (request, ends_itself) = request_self_ending(account, request, kind, &options);
        let sealed = core.realm.seal(
            id.as_bytes(),
            request.expose().to_string().as_bytes(),
            &*core.entropy,
        );
        let record = SessionRecord {
            id,
            owner: core.node.clone(),
            kind,
            account: name,
            provider: account.provider.id().clone(),
            options,
            created_at: now,
            attempts: Vec::new(),
            placing: Some(Placing {
                since: Some(now),
                ..Placing::default()
            }),
            ready_at: None,
            respawns: 0,
            last_seq: 1,
            ending: None,
            not_idle_before: None,
            warned: Vec::new(),
            heartbeat: None,
            outcome: None,
            decisions: Vec::new(),
            events_forgotten: false,
            billed: None,
            reports: crate::Reports::default(),
            ends_itself,
            key_until_absent,
        };
        let intent = match &record.options.key {
            Some(_) => Intent::of(&core.realm, &request, &record),
            None => Intent::default(),
        };
        Ok(Prepared {
            record,
            sealed,
            intent,
        })
    }

    /// Commits a prepared session with its first event, and hands it to its driver.
    ///
    /// # Errors
    /// `Conflict` when the id is taken, or when the key is no longer as `guards` say.
    async fn record(
        &self,
        prepared: &Prepared,
        guards: Option<&Guards>,
    ) -> Result<(), CommitError> {
        let (core, record) = (&self.core, &prepared.record);
        let id = record.id;
        let kind = EventKind::Created {
            account: record.account.clone(),
        };
        let created = record.event(1, record.created_at, kind);
        let mut batch = Batch::new();
        batch.fence = core.lease.fence();
        if batch.fence.is_none() {
            return Err(CommitError::Store(Error::new(
                ErrorKind::Unavailable,
                "this node's lease is not valid at the moment",
            )));
        }
        batch.guard(Table::Sessions, *id.as_bytes(), None);
        if let (Some(key), Some(guards)) = (&record.options.key, guards) {
            keys::take(&mut batch, key, guards, id, &prepared.intent);
        }
        let row = record.encode();
        entries::put_session(&mut batch, None, record, row.clone());
        batch.put(Table::Sealed, *id.as_bytes(), prepared.sealed.clone());
        batch.append(
            *id.as_bytes(),
            1,
            serde_json::to_vec(&created).unwrap_or_default(),
        );
        let doubt = Doubt::begin(core);
        match core.store.commit(batch).await {
            Ok(_) => {}
            // The answer of the commit was lost: the store itself shows whether it was applied.
            Err(CommitError::Store(error)) => match core.load(id).await {
                Ok(Some(loaded)) if loaded.bytes == row => {}
                _ => return Err(CommitError::Store(error)),
            },
            Err(refused) => {
                doubt.settled();
                return Err(refused);
            }
        }
        core.touches
            .insert(id, record.options.idle_ttl, record.created_at, None);
        core.slots
            .insert(record, core.account_index(&record.account), None);
        doubt.settled();
        core.fed.notify_one();
        Ok(())
    }
}

/// Refuses a launch while nothing may be ordered.
fn check_accepting(core: &Core) -> Result<()> {
    if core.is_held() {
        let why = core.hold_reason().unwrap_or_default();
        return Err(Error::new(
            ErrorKind::Unavailable,
            format!("atlas holds ({why}); an operator must accept the store first"),
        ));
    }
    if core.closing.load(Ordering::Acquire) {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the orchestrator is being shut down",
        ));
    }
    Ok(())
}

/// Refuses a request that the account's provider cannot honour with these options.
fn check_request(
    core: &Core,
    account: &Account,
    request: &ComputeRequest,
    options: &SessionOptions,
) -> Result<()> {
    account.check(request)?;
    if options.max_cost.is_some() {
        account
            .provider
            .capabilities()
            .require(Capability::Prices)?;
    }
    let Some(probe) = &options.probe else {
        return Ok(());
    };
    if core.probe.is_none() {
        return Err(Error::validation(
            "probe",
            "this orchestrator was given nothing to ask machines with",
        ));
    }
    let is_exposed = |number: u32| request.ports.iter().any(|port| port.number() == number);
    if request.template_id.is_none() && !is_exposed(probe.port()) {
        return Err(Error::validation(
            "probe",
            format!("port {} is not exposed", probe.port()),
        ));
    }
    Ok(())
}

fn contended(key: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the session key {key:?} changes too often at the moment; ask again"),
    )
}
