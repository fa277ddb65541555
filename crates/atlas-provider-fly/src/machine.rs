//! What can be done with a machine beyond the contract: waiting, suspending, restarting, leases,
//! metadata, events, commands.

use std::collections::BTreeMap;
use std::time::Duration;

use atlas_core::{
    CallContext, ComputeId, Error, ErrorKind, Next, Outcome, Result, RetryClass, Secret, Timestamp,
};
use atlas_http::Call;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::Cloud;
use crate::place::Place;
use crate::preset::Preset;
use crate::{Fly, wire};

/// The longest that one call may wait, by Fly's own rule.
const LONGEST_WAIT: u64 = 60;
/// What a call that waits may take besides.
const BESIDES: Duration = Duration::from_secs(10);
/// For so long a machine that was made a moment ago may be unknown.
const MAY_BE_UNKNOWN: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A state to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitFor {
    /// Running.
    Started,
    /// Stopped, which still bills its root filesystem.
    Stopped,
    /// Suspended, which still bills its root filesystem.
    Suspended,
    /// Gone.
    Destroyed,
    /// Broken.
    Failed,
}

impl WaitFor {
    /// Fly's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Suspended => "suspended",
            Self::Destroyed => "destroyed",
            Self::Failed => "failed",
        }
    }
}

/// Something that happened to a machine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MachineEvent {
    /// The event's id at Fly.
    pub id: String,
    /// `launch`, `start`, `exit`, …
    pub kind: String,
    /// The state it led to.
    pub status: String,
    /// `user`, `flyd`, …
    pub source: String,
    /// When it happened, where Fly says.
    pub at: Option<Timestamp>,
    /// What more Fly says of it.
    pub request: Value,
}

/// What a command in a machine came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// Its exit code.
    pub exit_code: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// The right to change a machine, until it expires. A process that crashes with one blocks all
/// others until it expires, so keep it short.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lease {
    /// The machine.
    pub id: ComputeId,
    /// What proves it; empty for one that somebody else holds.
    pub nonce: Secret,
    /// Until when.
    pub expires_at: Option<Timestamp>,
    /// Who holds it.
    pub owner: Option<String>,
    /// For what.
    pub description: Option<String>,
}

impl Fly {
    /// Waits until the machine is in one of these states, for as long as `within`; `None` when it
    /// was not by then.
    ///
    /// One call of Fly's waits a minute at most, and its 408 says nothing about the machine: it is
    /// asked again until the time is over. To wait for `Started` alone would miss a machine that
    /// dies on the way: name `Stopped`, `Failed` and `Destroyed` too.
    ///
    /// # Errors
    /// `not_found` for a machine that is not there, unless `Destroyed` is waited for; else as any
    /// read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        states: &[WaitFor],
        within: Duration,
    ) -> Result<Option<WaitFor>> {
        self.waited(cx, id, states, within)
            .await
            .map_err(|error| error.during(&self.id, "wait"))
    }

    async fn waited(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        states: &[WaitFor],
        within: Duration,
    ) -> Result<Option<WaitFor>> {
        let at = Place::of(id)?;
        if states.is_empty() {
            return Err(Error::validation("states", "name one at least"));
        }
        let begun = Instant::now();
        // Waiting for `stopped` is refused without the version it is about.
        let version = if states.contains(&WaitFor::Stopped) {
            self.version(cx, &at, begun).await?
        } else {
            None
        };
        loop {
            let left = within.saturating_sub(begun.elapsed());
            let seconds = left.as_secs().clamp(1, LONGEST_WAIT);
            let call = Cloud::look("wait", &at, "wait");
            let call = states
                .iter()
                .fold(call, |call, state| call.query("state", state.as_str()));
            let call = call
                .query("timeout", seconds.to_string())
                .query_opt("version", version.as_deref())
                .timeout(Duration::from_secs(seconds) + BESIDES)
                .accept_status(StatusCode::REQUEST_TIMEOUT)
                .accept_status(StatusCode::NOT_FOUND);
            let answer = self.cloud.call(cx, call).await?;
            match answer.status() {
                StatusCode::NOT_FOUND
                    if begun.elapsed() < MAY_BE_UNKNOWN
                        && !states.contains(&WaitFor::Destroyed) =>
                {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                StatusCode::NOT_FOUND => {
                    self.certain(cx, "wait", &at.app).await?;
                    if states.contains(&WaitFor::Destroyed) {
                        return Ok(Some(WaitFor::Destroyed));
                    }
                    let error = Error::new(ErrorKind::NotFound, "the machine is not there")
                        .with_status(404);
                    return Err(error.outcome_is(Outcome::NotApplied(Next::Stop)));
                }
                StatusCode::REQUEST_TIMEOUT => {}
                _ => {
                    let said = answer.json::<wire::Waited>()?.state;
                    // Older servers say only that it is so.
                    let found = states
                        .iter()
                        .copied()
                        .find(|state| said.as_deref().is_none_or(|said| said == state.as_str()));
                    return found.map(Some).ok_or_else(|| {
                        answer.misunderstood("another state than any that was waited for")
                    });
                }
            }
            if begun.elapsed() >= within {
                return Ok(None);
            }
        }
    }

    async fn version(
        &self,
        cx: &CallContext,
        at: &Place,
        begun: Instant,
    ) -> Result<Option<String>> {
        loop {
            match self.cloud.machine(cx, "wait version", at, false).await {
                Ok(answer) => {
                    let machine: wire::Machine = answer.json()?;
                    return Ok(machine.instance_id.or(machine.version));
                }
                Err(error)
                    if error.kind() == ErrorKind::NotFound && begun.elapsed() < MAY_BE_UNKNOWN =>
                {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Suspends a machine: its memory is kept, and starting it goes on where it was.
    ///
    /// # Errors
    /// `unsupported` for more than 2 GB of memory, found by reading the machine; `conflict` when
    /// its state does not allow it.
    pub async fn suspend(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        let at = Place::of(id)?;
        let answer = self.cloud.machine(cx, "suspend", &at, false).await?;
        let machine: wire::Machine = answer.json()?;
        let guest = machine
            .config
            .and_then(|config| config.guest)
            .unwrap_or_default();
        let preset = Preset::of(guest.cpu_kind.as_deref(), guest.cpus, guest.memory_mb);
        if preset.is_some_and(|preset| !preset.can_be_suspended()) {
            let error = Error::unsupported(
                "suspend",
                "fly suspends machines of up to 2 GB of memory only",
            );
            return Err(error.during(&self.id, "suspend"));
        }
        self.cloud
            .call(
                cx,
                Cloud::act("suspend", RetryClass::Idempotent, &at, "suspend"),
            )
            .await
            .map(drop)
    }

    /// Restarts a machine in place.
    ///
    /// # Errors
    /// `conflict` when its state does not allow it.
    pub async fn restart(&self, cx: &CallContext, id: &ComputeId) -> Result<()> {
        self.cloud
            .call(
                cx,
                Cloud::act("restart", RetryClass::Create, &Place::of(id)?, "restart"),
            )
            .await
            .map(drop)
    }

    /// Sends a signal (`SIGTERM`) to what runs in a machine.
    ///
    /// # Errors
    /// `conflict` when it does not run.
    pub async fn signal(&self, cx: &CallContext, id: &ComputeId, signal: &str) -> Result<()> {
        let call = Cloud::act("signal", RetryClass::Create, &Place::of(id)?, "signal")
            .json(&json!({ "signal": signal }));
        self.cloud.call(cx, call).await.map(drop)
    }

    /// Takes a machine out of its app's traffic, or puts it back.
    ///
    /// # Errors
    /// Like any idempotent call.
    pub async fn cordon(&self, cx: &CallContext, id: &ComputeId, cordoned: bool) -> Result<()> {
        let verb = if cordoned { "cordon" } else { "uncordon" };
        self.cloud
            .call(
                cx,
                Cloud::act("cordon", RetryClass::Idempotent, &Place::of(id)?, verb),
            )
            .await
            .map(drop)
    }

    /// Runs a command in a machine, for as long as `within`.
    ///
    /// # Errors
    /// `conflict` when the machine does not run. A command is never sent twice: a lost answer
    /// leaves its outcome unknown.
    pub async fn exec(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        command: &[String],
        within: Duration,
    ) -> Result<Executed> {
        let seconds = within.as_secs().clamp(1, LONGEST_WAIT);
        let call = Cloud::act("exec", RetryClass::Create, &Place::of(id)?, "exec")
            .json(&wire::Exec {
                command,
                timeout: seconds,
            })
            .timeout(Duration::from_secs(seconds) + BESIDES);
        let done: wire::Executed = self.cloud.read(cx, call).await?;
        Ok(Executed {
            exit_code: done.exit_code,
            stdout: done.stdout,
            stderr: done.stderr,
        })
    }

    /// The last events of a machine, newest first; fifty at most.
    ///
    /// # Errors
    /// Like any read.
    pub async fn events(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        most: u32,
    ) -> Result<Vec<MachineEvent>> {
        let call = Cloud::look("events", &Place::of(id)?, "events")
            .query("limit", most.clamp(1, 50).to_string());
        let read: Vec<wire::Event> = self.cloud.read(cx, call).await?;
        Ok(read
            .into_iter()
            .map(|event| MachineEvent {
                id: event.id.unwrap_or_default(),
                kind: event.kind.unwrap_or_default(),
                status: event.status.unwrap_or_default(),
                source: event.source.unwrap_or_default(),
                at: event.timestamp.map(Timestamp::from_unix_millis),
                request: event.request.unwrap_or_default(),
            })
            .collect())
    }

    /// The versions of a machine's configuration, newest first.
    ///
    /// # Errors
    /// Like any read.
    pub async fn versions(&self, cx: &CallContext, id: &ComputeId) -> Result<Vec<String>> {
        let read: Vec<wire::Version> = self
            .cloud
            .read(cx, Cloud::look("versions", &Place::of(id)?, "versions"))
            .await?;
        Ok(read.into_iter().map(|version| version.version).collect())
    }

    /// Takes the right to change a machine for this long.
    ///
    /// # Errors
    /// `conflict` where somebody else holds it.
    pub async fn take_lease(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        ttl: Duration,
        description: Option<&str>,
    ) -> Result<Lease> {
        let body = wire::TakeLease {
            ttl: ttl.as_secs().max(1),
            description,
        };
        let call = Cloud::act("lease", RetryClass::Create, &Place::of(id)?, "lease").json(&body);
        Ok(lease(id, self.cloud.read(cx, call).await?))
    }

    /// Holds a lease for this long from now on.
    ///
    /// # Errors
    /// `conflict` where it has expired and somebody else has it.
    pub async fn refresh_lease(
        &self,
        cx: &CallContext,
        held: &Lease,
        ttl: Duration,
    ) -> Result<Lease> {
        let body = wire::TakeLease {
            ttl: ttl.as_secs().max(1),
            description: held.description.as_deref(),
        };
        let call = Cloud::act(
            "lease",
            RetryClass::Idempotent,
            &Place::of(&held.id)?,
            "lease",
        )
        .json(&body);
        Ok(lease(
            &held.id,
            self.cloud
                .read(cx, Cloud::with_nonce(call, &held.nonce)?)
                .await?,
        ))
    }

    /// Who holds a machine; `None` for nobody.
    ///
    /// # Errors
    /// Like any read. `not_found` where the machine is not there.
    pub async fn lease(&self, cx: &CallContext, id: &ComputeId) -> Result<Option<Lease>> {
        let at = Place::of(id)?;
        let answer = self
            .cloud
            .call(
                cx,
                Cloud::look("lease", &at, "lease").accept_status(StatusCode::NOT_FOUND),
            )
            .await?;
        if answer.status() == StatusCode::NOT_FOUND {
            // The same status for no lease and for no machine.
            return self
                .cloud
                .machine(cx, "lease", &at, false)
                .await
                .map(|_| None);
        }
        Ok(Some(lease(id, answer.json()?)))
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// Like any idempotent call.
    pub async fn release_lease(&self, cx: &CallContext, held: &Lease) -> Result<()> {
        let at = Place::of(&held.id)?;
        let call = Call::delete(
            "lease",
            RetryClass::Idempotent,
            ["apps", &at.app, "machines", &at.id, "lease"],
        )
        .pace_key(&*at.id);
        let call = Cloud::with_nonce(call.accept_status(StatusCode::NOT_FOUND), &held.nonce)?;
        self.cloud.call(cx, call).await.map(drop)
    }

    /// A machine's metadata.
    ///
    /// # Errors
    /// Like any read.
    pub async fn metadata(
        &self,
        cx: &CallContext,
        id: &ComputeId,
    ) -> Result<BTreeMap<String, String>> {
        self.cloud
            .read(cx, Cloud::look("metadata", &Place::of(id)?, "metadata"))
            .await
    }

    /// One value of a machine's metadata.
    ///
    /// # Errors
    /// `not_found` where no lease or machine of that name exists.
    pub async fn metadata_value(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        key: &str,
    ) -> Result<String> {
        let at = Place::of(id)?;
        let call = Call::get(
            "metadata",
            RetryClass::Safe,
            ["apps", &at.app, "machines", &at.id, "metadata", key],
        );
        Ok(self
            .cloud
            .read::<wire::MetadataValue>(cx, call.pace_key(&*at.id))
            .await?
            .value)
    }

    /// Sets one value of a machine's metadata. It makes no new version and restarts nothing.
    ///
    /// # Errors
    /// `validation` for what belongs to the platform or to atlas: `fly_…` makes a deploy adopt the
    /// machine and destroy it.
    pub async fn set_metadata(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        key: &str,
        value: &str,
    ) -> Result<()> {
        let at = Place::of(id)?;
        let call = Call::post(
            "metadata",
            RetryClass::Idempotent,
            [
                "apps",
                &at.app,
                "machines",
                &at.id,
                "metadata",
                own_key(key)?,
            ],
        );
        self.cloud
            .call(cx, call.json(&json!({ "value": value })).pace_key(&*at.id))
            .await
            .map(drop)
    }

    /// Sets and, with `None`, removes values of a machine's metadata at once.
    ///
    /// # Errors
    /// Like [`Fly::set_metadata`].
    pub async fn update_metadata(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<()> {
        let at = Place::of(id)?;
        changes.keys().try_for_each(|key| own_key(key).map(drop))?;
        // An empty value removes, as `null` does.
        let metadata: BTreeMap<&String, &str> = changes
            .iter()
            .map(|(key, value)| (key, value.as_deref().unwrap_or_default()))
            .collect();
        let call = Call::patch(
            "metadata",
            RetryClass::Idempotent,
            ["apps", &at.app, "machines", &at.id, "metadata"],
        );
        self.cloud
            .call(
                cx,
                call.json(&json!({ "metadata": metadata }))
                    .pace_key(&*at.id),
            )
            .await
            .map(drop)
    }

    /// Removes one value of a machine's metadata.
    ///
    /// # Errors
    /// Like [`Fly::set_metadata`].
    pub async fn remove_metadata(&self, cx: &CallContext, id: &ComputeId, key: &str) -> Result<()> {
        let at = Place::of(id)?;
        let call = Call::delete(
            "metadata",
            RetryClass::Idempotent,
            [
                "apps",
                &at.app,
                "machines",
                &at.id,
                "metadata",
                own_key(key)?,
            ],
        );
        self.cloud.call(cx, call.pace_key(&*at.id)).await.map(drop)
    }
}

fn own_key(key: &str) -> Result<&str> {
    if key.starts_with("fly_") || key.starts_with("atlas-") {
        return Err(Error::validation(
            "metadata",
            format!("{key} is not for callers to set"),
        ));
    }
    Ok(key)
}

fn lease(id: &ComputeId, read: wire::ReadLease) -> Lease {
    // The document has it bare, the service in an envelope.
    let read = read.data.unwrap_or(read.bare);
    Lease {
        id: id.clone(),
        nonce: Secret::new(read.nonce.unwrap_or_default()),
        expires_at: read.expires_at.map(Timestamp::from_unix_seconds),
        owner: read.owner,
        description: read.description,
    }
}
