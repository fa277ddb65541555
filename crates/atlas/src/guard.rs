//! Communication with the guards in the machines: reads their last verified request, which measures
//! idleness, and renews the permits without which their machines end themselves.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atlas_auth::control::ControlSecret;
use atlas_auth::grant::{Access, GrantId, GrantKey, Scope};
use atlas_core::{
    AccountLimits, CallContext, Clock, Compute, Credential, Entropy, Error, ErrorKind, Protocol,
    ProviderId, Result, RetryClass, Secret, Timestamp,
};
use atlas_http::{Call, Client};
use atlas_orchestrator::{ActivitySource, SessionId, SessionInfo, SessionState};
use serde::Deserialize;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::facade::{Atlas, WeakAtlas};

/// How long the grant for one read is valid. Machines' clocks may be off by this much.
const GRANT: Duration = Duration::from_secs(300);
const DEADLINE: Duration = Duration::from_secs(5);
/// Maximum number of guards that are called at the same time.
const AT_ONCE: usize = 64;

type Address = dyn Fn(&Compute) -> Option<String> + Send + Sync;

/// Where the guards of sessions' machines are reached. Pass it to
/// [`AtlasBuilder::guard_activity`](crate::AtlasBuilder::guard_activity).
///
/// A guard is asked before an idle warning or an idle end. The grant for this call permits only
/// reading the activity and is valid for five minutes, so a machine is also asked over plain
/// `http://` if its cloud gives no other URL. A session without a credential has no guard. A guard
/// that cannot be read counts as active, so that an outage does not end work in progress; give such
/// sessions a `max_runtime`.
#[derive(Clone)]
pub struct GuardActivity {
    address: Option<Arc<Address>>,
    deadline: Duration,
    renew_every: Option<Duration>,
}

impl GuardActivity {
    /// Guards are reached through the first HTTP port of a machine.
    #[must_use]
    pub fn new() -> Self {
        Self {
            address: None,
            deadline: DEADLINE,
            renew_every: None,
        }
    }

    /// Guards are reached through this port, numbered as inside their machines.
    #[must_use]
    pub fn port(self, internal: u32) -> Self {
        self.address(move |compute| compute.url(internal).map(str::to_owned))
    }

    /// Guards are reached at the URL that this function returns, such as one on a custom domain,
    /// instead of the cloud's.
    #[must_use]
    pub fn address(
        self,
        address: impl Fn(&Compute) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            address: Some(Arc::new(address)),
            ..self
        }
    }

    /// Sets the maximum time of one read, including its retry. The default is 5 seconds.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Renews the dead-man permits of all machines at this interval, until this atlas is shut down.
    /// Choose a third of the machines' `ATLAS_GUARD_PERMIT_SECS` or less. The permit of a session
    /// that is being ended is not renewed. Without this setting, a host that sets
    /// `ATLAS_GUARD_PERMIT_SECS` has to renew the permits itself.
    #[must_use]
    pub fn renew_permits(self, every: Duration) -> Self {
        Self {
            renew_every: Some(every.max(Duration::from_millis(10))),
            ..self
        }
    }

    fn url(&self, compute: &Compute) -> Option<String> {
        match &self.address {
            Some(address) => address(compute),
            None => compute
                .ports
                .iter()
                .filter(|port| port.protocol == Protocol::Http)
                .find_map(|port| port.url.clone()),
        }
    }
}

impl Default for GuardActivity {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for GuardActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardActivity")
            .field("deadline", &self.deadline)
            .field("renew_every", &self.renew_every)
            .finish_non_exhaustive()
    }
}

/// The connection to the guards of one atlas's machines.
#[derive(Clone, Debug)]
pub(crate) struct Guards {
    settings: GuardActivity,
    /// Set when the atlas is built. The atlas owns these guards, so this reference is weak.
    atlas: Arc<OnceLock<WeakAtlas>>,
    client: Client,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// The part of a guard's report that is used. The machine's clock is not trusted: only elapsed
/// times are.
#[derive(Deserialize)]
struct Report {
    last_activity: Option<serde::de::IgnoredAny>,
    idle_ms: u64,
}

impl Guards {
    pub(crate) fn new(
        settings: GuardActivity,
        atlas: Arc<OnceLock<WeakAtlas>>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        // Each machine is called separately, so there are no account-wide limits to share.
        let limits = AccountLimits {
            call_deadline: settings.deadline,
            call_interval: Duration::ZERO,
            concurrency: u32::try_from(AT_ONCE).unwrap_or(u32::MAX),
            ..AccountLimits::default()
        };
        // The base URL is a placeholder: every call sets its own.
        let client = Client::builder(ProviderId::new("guard")?, "http://localhost")
            .limits(limits)
            .allow_plain_http(true)
            .retries(1)
            .clock(clock.clone())
            .entropy(entropy.clone())
            .build()?;
        Ok(Self {
            settings,
            atlas,
            client,
            clock,
            entropy,
        })
    }

    fn atlas(&self) -> Result<Atlas> {
        self.atlas
            .get()
            .ok_or_else(|| unknown("this atlas is not built yet"))?
            .upgrade()
    }

    async fn info(&self, session: SessionId) -> Result<SessionInfo> {
        // The strong reference is dropped before a guard is called, or it would keep the atlas
        // alive.
        self.atlas()?.orchestrator().info(session).await
    }

    /// Mints a short-lived grant for the control paths of a session's guard, signed with the
    /// session's control secret, which no browser has. A session made before control secrets
    /// existed is controlled with its credential, as its machine still expects.
    fn grant(&self, credential: &Credential, access: Access) -> Result<Secret> {
        let now = self.clock.now();
        if let Some(secret) = credential.control_secret() {
            return Ok(ControlSecret::new(secret)?.grant(access, now, GRANT, &*self.entropy));
        }
        let key = GrantKey::new(credential.secret())?;
        let (_, grant) = key.mint(Scope::control(access), now, GRANT, &*self.entropy);
        Ok(grant)
    }

    /// Builds the call to a session's guard with its address; `None` if there is no guard.
    fn prepare(
        &self,
        info: &SessionInfo,
        access: Access,
        call: Call,
    ) -> Result<Option<(CallContext, Call)>> {
        let (Some(compute), Some(credential)) = (&info.compute, &info.auth) else {
            return Ok(None);
        };
        let url = self
            .settings
            .url(compute)
            .ok_or_else(|| unknown("the machine has no url for its guard yet"))?;
        let cx = CallContext::new()
            .with_base_url(url)
            .with_api_key(self.grant(credential, access)?);
        Ok(Some((cx, call.pace_key(info.id.to_string()))))
    }

    /// Calls the guard of a session's machine; `None` if there is none.
    async fn call(&self, info: &SessionInfo, access: Access, call: Call) -> Result<Option<Report>> {
        match self.prepare(info, access, call)? {
            Some((cx, call)) => self.client.json(&cx, call).await.map(Some),
            None => Ok(None),
        }
    }

    /// Revokes a grant at the guard of a session's machine.
    pub(crate) async fn revoke(&self, session: SessionId, grant: GrantId) -> Result<()> {
        let info = self.info(session).await?;
        let id = grant.to_string();
        let path = ["_atlas", "revoke", id.as_str()];
        let call = Call::post("guard_revoke", RetryClass::Idempotent, path);
        let prepared = self.prepare(&info, Access::All, call)?;
        let (cx, call) = prepared.ok_or_else(|| unknown("the session has no machine yet"))?;
        self.client.call(&cx, call).await.map(drop)
    }

    /// Starts renewing permits, if that was configured.
    pub(crate) fn renew_permits(self) -> Option<Renewal> {
        let every = self.settings.renew_every?;
        Some(Renewal(tokio::spawn(async move {
            let mut rounds = tokio::time::interval(every);
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                rounds.tick().await;
                let Ok(atlas) = self.atlas() else { return };
                let ids = atlas.orchestrator().list_ids().await;
                drop(atlas);
                // A store that does not answer now may answer in a later round. If it never does,
                // the permits expire and the machines end, as intended.
                let mut told = JoinSet::new();
                for id in ids.unwrap_or_default() {
                    if told.len() == AT_ONCE {
                        told.join_next().await;
                    }
                    let guards = self.clone();
                    told.spawn(async move { guards.renew(id).await });
                }
                told.join_all().await;
            }
        })))
    }

    async fn renew(&self, session: SessionId) {
        let Ok(info) = self.info(session).await else {
            return;
        };
        if matches!(
            info.state,
            SessionState::Terminating | SessionState::Terminated
        ) {
            return;
        }
        let call = Call::post("guard_permit", RetryClass::Idempotent, ["_atlas", "permit"]);
        // The client's span records why the call failed. The next round tries again, and a permit
        // outlasts several rounds.
        let _told = self.call(&info, Access::All, call).await;
    }
}

fn unknown(message: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

impl ActivitySource for Guards {
    fn name(&self) -> &str {
        "guard"
    }

    async fn last_activity(&self, session: SessionId) -> Result<Option<Timestamp>> {
        let info = self.info(session).await?;
        let call = Call::get("guard_activity", RetryClass::Safe, ["_atlas", "activity"]);
        let Some(report) = self.call(&info, Access::Read, call).await? else {
            return Ok(None);
        };
        let idle = Duration::from_millis(report.idle_ms);
        Ok(report
            .last_activity
            .map(|_| self.clock.now().saturating_sub(idle)))
    }
}

/// The task that renews permits. Dropping it stops the renewal.
#[derive(Debug)]
pub(crate) struct Renewal(JoinHandle<()>);

impl Renewal {
    pub(crate) fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.end();
    }
}
