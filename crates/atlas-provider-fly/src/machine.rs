//! Machine operations beyond the contract: waiting, suspending, restarting, leases, metadata,
//! events, commands.

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

/// The longest wait in seconds that Fly allows for one call.
const LONGEST_WAIT: u64 = 60;
/// The additional time allowed for a waiting call.
const BESIDES: Duration = Duration::from_secs(10);
/// For this long, a new machine may be unknown.
const MAY_BE_UNKNOWN: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A state to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitFor {
    /// The machine is running.
    Started,
    /// Stopped, which still bills its root filesystem.
    Stopped,
    /// Suspended, which still bills its root filesystem.
    Suspended,
    /// The machine was deleted.
    Destroyed,
    /// The machine failed to start.
    Failed,
}

impl WaitFor {
    /// Fly's name for it.
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

/// An event of a machine.
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
    /// When it happened, if Fly reports that.
    pub at: Option<Timestamp>,
    /// Fly's further details of the event.
    pub request: Value,
}

/// The result of a command in a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// Its exit code.
    pub exit_code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The right to change a machine until it expires. If a process crashes while it holds one, all
/// others have to wait for the expiry, so keep it short.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lease {
    /// The machine.
    pub id: ComputeId,
    /// The proof of the lease; empty for one with another holder.
    pub nonce: Secret,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// The holder.
    pub owner: Option<String>,
    /// The purpose that the holder gave.
    pub description: Option<String>,
}

impl Fly {
    /// Waits at most `within` until the machine is in one of these states; `None` when the time is
    /// up.
    ///
    /// One call to Fly waits at most a minute, and its 408 says nothing about the machine, so it is
    /// repeated until the time is up. Waiting only for `Started` would miss a machine that dies on
    /// the way: include `Stopped`, `Failed` and `Destroyed` too.
    ///
    /// # Errors
    /// `not_found` for a machine that does not exist, unless `Destroyed` is waited for; otherwise
    /// like any read.
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
        // Fly refuses to wait for `stopped` without a version.
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
                    // Older servers only confirm the wait, without naming the state.
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

    /// Suspends a machine: its memory is kept, and starting it resumes where it was.
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

    /// Sends a signal (such as `SIGTERM`) to the main process of a machine.
    ///
    /// # Errors
    /// `conflict` when it is not running.
    pub async fn signal(&self, cx: &CallContext, id: &ComputeId, signal: &str) -> Result<()> {
        let call = Cloud::act("signal", RetryClass::Create, &Place::of(id)?, "signal")
            .json(&json!({ "signal": signal }));
        self.cloud.call(cx, call).await.map(drop)
    }

    /// Removes a machine from its app's traffic, or adds it again.
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

    /// Runs a command in a machine, for at most `within`.
    ///
    /// # Errors
    /// `conflict` when the machine is not running. A command is never sent twice: after a lost
    /// answer its outcome is unknown.
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

    /// The latest events of a machine, newest first; at most fifty.
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

    /// Acquires the right to change a machine for this long.
    ///
    /// # Errors
    /// `conflict` if there is another holder.
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

    /// Extends a lease to this long from now.
    ///
    /// # Errors
    /// `conflict` if it has expired and there is another holder.
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

    /// The lease of a machine; `None` if there is none.
    ///
    /// # Errors
    /// Like any read. `not_found` if the machine does not exist.
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
            // The same status means no lease or no machine.
            return self
                .cloud
                .machine(cx, "lease", &at, false)
                .await
                .map(|_| None);
        }
        Ok(Some(lease(id, answer.json()?)))
    }

    /// Releases a lease.
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
    /// `not_found` if there is no such key or machine.
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

    /// Sets one value of a machine's metadata. This creates no new version and restarts nothing.
    ///
    /// # Errors
    /// `validation` for keys that belong to the platform or to atlas: with `fly_…` a deploy adopts
    /// the machine and destroys it.
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

    /// Sets values of a machine's metadata in one call; `None` removes a value.
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
    // The documentation has the bare value, the service wraps it in an envelope.
    let read = read.data.unwrap_or(read.bare);
    Lease {
        id: id.clone(),
        nonce: Secret::new(read.nonce.unwrap_or_default()),
        expires_at: read.expires_at.map(Timestamp::from_unix_seconds),
        owner: read.owner,
        description: read.description,
    }
}
