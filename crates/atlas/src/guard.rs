//! Idleness measured on real traffic: what the guards in the machines say of their last verified request.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use atlas_auth::grant::{Access, GrantKey, Scope};
use atlas_core::{
    AccountLimits, CallContext, Clock, Compute, Entropy, Error, ErrorKind, Protocol, ProviderId, Result, RetryClass, Timestamp,
};
use atlas_http::{Call, Client};
use atlas_orchestrator::{ActivitySource, SessionId};
use serde::Deserialize;

use crate::facade::WeakAtlas;

/// How long the grant for one look is valid. Machines' clocks may be off by as much.
const GRANT: Duration = Duration::from_secs(300);
const DEADLINE: Duration = Duration::from_secs(5);

type Address = dyn Fn(&Compute) -> Option<String> + Send + Sync;

/// Where the guards of sessions' machines are. Give it to [`AtlasBuilder::guard_activity`](crate::AtlasBuilder::guard_activity).
///
/// A guard is asked before an idle warning or end, with a grant that opens only the reading of its activity, and lives five
/// minutes: so a machine is asked over plain `http://` too, where its cloud gives no other. A session without a credential has no
/// guard. A guard that cannot be read counts as active, so that an outage ends nobody's work; give such sessions a `max_runtime`.
#[derive(Clone)]
pub struct GuardActivity {
    address: Option<Arc<Address>>,
    deadline: Duration,
}

impl GuardActivity {
    /// Guards answer behind the first port of a machine that speaks HTTP.
    #[must_use]
    pub fn new() -> Self {
        Self { address: None, deadline: DEADLINE }
    }

    /// Guards listen on this port inside their machines.
    #[must_use]
    pub fn port(self, internal: u32) -> Self {
        self.address(move |compute| compute.url(internal).map(str::to_owned))
    }

    /// Guards are reached at this URL, where it is another than the cloud's: a domain of one's own.
    #[must_use]
    pub fn address(self, address: impl Fn(&Compute) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { address: Some(Arc::new(address)), ..self }
    }

    /// How long one look may take, its repeat included. 5 seconds unless set.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    fn url(&self, compute: &Compute) -> Option<String> {
        match &self.address {
            Some(address) => address(compute),
            None => compute.ports.iter().filter(|port| port.protocol == Protocol::Http).find_map(|port| port.url.clone()),
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
        f.debug_struct("GuardActivity").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// The source of one atlas.
#[derive(Debug)]
pub(crate) struct GuardSource {
    guards: GuardActivity,
    /// Set when the atlas is built. It holds this source, not the other way round.
    atlas: Arc<OnceLock<WeakAtlas>>,
    client: Client,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// What is read of a guard's report. Its clock is not trusted: only how long ago counts.
#[derive(Deserialize)]
struct Report {
    last_activity: Option<serde::de::IgnoredAny>,
    idle_ms: u64,
}

impl GuardSource {
    pub(crate) fn new(
        guards: GuardActivity,
        atlas: Arc<OnceLock<WeakAtlas>>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        // Each machine answers for itself: there is no account whose limits they share.
        let limits = AccountLimits {
            call_deadline: guards.deadline,
            call_interval: Duration::ZERO,
            concurrency: 64,
            ..AccountLimits::default()
        };
        // Every call names its own server.
        let client = Client::builder(ProviderId::new("guard")?, "http://localhost")
            .limits(limits)
            .allow_plain_http(true)
            .retries(1)
            .clock(clock.clone())
            .entropy(entropy.clone())
            .build()?;
        Ok(Self { guards, atlas, client, clock, entropy })
    }
}

impl ActivitySource for GuardSource {
    fn name(&self) -> &str {
        "guard"
    }

    async fn last_activity(&self, session: SessionId) -> Result<Option<Timestamp>> {
        let unknown = |message| Error::new(ErrorKind::Unavailable, message);
        let atlas = self.atlas.get().ok_or_else(|| unknown("this atlas is not built yet"))?.upgrade()?;
        let info = atlas.orchestrator().info(session).await?;
        // Not kept over the call: it would keep the atlas alive.
        drop(atlas);
        let (Some(compute), Some(credential)) = (&info.compute, &info.auth) else { return Ok(None) };
        let url = self.guards.url(compute).ok_or_else(|| unknown("the machine has no url for its guard yet"))?;
        let key = GrantKey::new(credential.secret());
        let (_, grant) = key.mint(Scope::control(Access::Read), self.clock.now(), GRANT, &*self.entropy);
        let cx = CallContext::new().with_base_url(url).with_api_key(grant);
        let call = Call::get("guard_activity", RetryClass::Safe, ["_atlas", "activity"]).pace_key(session.to_string());
        let report: Report = self.client.json(&cx, call).await?;
        let idle = Duration::from_millis(report.idle_ms);
        Ok(report.last_activity.map(|_| self.clock.now().saturating_sub(idle)))
    }
}
