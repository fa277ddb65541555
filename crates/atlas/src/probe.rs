//! Whether a machine answers: the probe that the sessions' options describe, over HTTP and TCP.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{AccountLimits, CallContext, Clock, Compute, Entropy, ProviderId, Result, RetryClass};
use atlas_http::{Call, Client, Transport};
use atlas_orchestrator::{Probe, ReadyProbe, SessionId};
use tokio::net::TcpStream;

/// How long one question may take, unless set. A machine that needs longer is asked again at the next look.
const DEADLINE: Duration = Duration::from_secs(5);

/// Asks a machine as its session's [`Probe`] says, from this process. A session without one is usable when its cloud says so.
///
/// Over HTTP, 2xx and 3xx are a yes, and so are 401 and 403: something answers, and asks for a credential. The question carries none, and goes
/// to the URL that the cloud gives the port, over plain `http://` where it gives no other. Over TCP a connection is a yes.
#[derive(Clone, Debug)]
pub struct NetProbe {
    client: Client,
    deadline: Duration,
}

impl NetProbe {
    /// One that asks for 5 seconds at most.
    ///
    /// # Errors
    /// `unavailable` when the platform's certificates cannot be read.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        Self::over(None, DEADLINE, clock, entropy)
    }

    /// One over another transport, or with another deadline.
    ///
    /// # Errors
    /// As [`NetProbe::new`].
    pub fn over(
        transport: Option<Transport>,
        deadline: Duration,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        // Each machine answers for itself: there is no account whose limits they share.
        let limits = AccountLimits {
            call_deadline: deadline,
            call_interval: Duration::ZERO,
            concurrency: 256,
            ..AccountLimits::default()
        };
        let mut builder = Client::builder(ProviderId::new("probe")?, "http://localhost")
            .limits(limits)
            .allow_plain_http(true)
            .retries(0)
            .clock(clock)
            .entropy(entropy);
        if let Some(transport) = transport {
            builder = builder.transport(transport);
        }
        Ok(Self { client: builder.build()?, deadline })
    }

    async fn http(&self, url: String, path: &str, session: SessionId) -> bool {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let mut call = Call::get("ready_probe", RetryClass::Safe, segments).pace_key(session.to_string()).without_credential();
        if path.ends_with('/') && path.len() > 1 {
            call = call.trailing_slash();
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            call = call.query(name, value);
        }
        let answer = self.client.call(&CallContext::new().with_base_url(url), call).await;
        match answer {
            Ok(_) => true,
            Err(error) => matches!(error.status(), Some(300..=399 | 401 | 403)),
        }
    }

    async fn tcp(&self, url: &str) -> bool {
        let Some(address) = url.strip_prefix("tcp://") else { return false };
        matches!(tokio::time::timeout(self.deadline, TcpStream::connect(address)).await, Ok(Ok(_)))
    }
}

impl ReadyProbe for NetProbe {
    async fn is_ready(&self, session: SessionId, compute: &Compute, wanted: Option<&Probe>) -> bool {
        let Some(wanted) = wanted else { return true };
        let Some(port) = compute.ports.iter().find(|port| port.internal == wanted.port()) else { return false };
        let reached = port.url.clone().or_else(|| {
            let (ip, port) = (compute.public_ip.as_ref()?, port.external?);
            Some(format!("tcp://{ip}:{port}"))
        });
        match (wanted, reached) {
            (Probe::Http { path, .. }, Some(url)) => self.http(url.replacen("tcp://", "http://", 1), path, session).await,
            (Probe::Tcp { .. }, Some(url)) => self.tcp(&url).await,
            _ => false,
        }
    }
}
