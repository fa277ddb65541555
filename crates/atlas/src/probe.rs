//! Checks over HTTP or TCP whether a machine answers, as the session's options describe.

use std::sync::Arc;
use std::time::Duration;

use atlas_core::{
    AccountLimits, CallContext, Clock, Compute, Entropy, ProviderId, Result, RetryClass,
};
use atlas_http::{Call, Client, Transport};
use atlas_orchestrator::{Probe, ReadyProbe, SessionId};
use tokio::net::TcpStream;

/// The default time limit of one check. A machine that needs longer is checked again in the next
/// poll.
const DEADLINE: Duration = Duration::from_secs(5);

/// Checks a machine from this process as its session's [`Probe`] says. A session without a probe is
/// usable when its cloud says so.
///
/// Over HTTP, 2xx and 3xx count as ready, and so do 401 and 403: a server answers and requires a
/// credential. The request carries none, and goes to the URL that the cloud gives the port, over
/// plain `http://` if it gives no other. Over TCP, an established connection counts as ready.
#[derive(Clone, Debug)]
pub struct NetProbe {
    client: Client,
    deadline: Duration,
}

impl NetProbe {
    /// A probe with a time limit of 5 seconds.
    ///
    /// # Errors
    /// `unavailable` when the platform's certificates cannot be read.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        Self::over(None, DEADLINE, clock, entropy)
    }

    /// A probe with another transport or time limit.
    ///
    /// # Errors
    /// Like [`NetProbe::new`].
    pub fn over(
        transport: Option<Transport>,
        deadline: Duration,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        // Each machine is checked separately, so there are no account-wide limits to share.
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
        Ok(Self {
            client: builder.build()?,
            deadline,
        })
    }

    async fn http(&self, url: String, path: &str, session: SessionId) -> bool {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let segments: Vec<&str> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        let mut call = Call::get("ready_probe", RetryClass::Safe, segments)
            .pace_key(session.to_string())
            .without_credential();
        if path.ends_with('/') && path.len() > 1 {
            call = call.trailing_slash();
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            call = call.query(name, value);
        }
        let answer = self
            .client
            .call(&CallContext::new().with_base_url(url), call)
            .await;
        match answer {
            Ok(_) => true,
            Err(error) => matches!(error.status(), Some(300..=399 | 401 | 403)),
        }
    }

    async fn tcp(&self, url: &str) -> bool {
        let Some(address) = url.strip_prefix("tcp://") else {
            return false;
        };
        matches!(
            tokio::time::timeout(self.deadline, TcpStream::connect(address)).await,
            Ok(Ok(_))
        )
    }
}

impl ReadyProbe for NetProbe {
    async fn is_ready(
        &self,
        session: SessionId,
        compute: &Compute,
        wanted: Option<&Probe>,
    ) -> bool {
        let Some(wanted) = wanted else { return true };
        let Some(port) = compute
            .ports
            .iter()
            .find(|port| port.internal == wanted.port())
        else {
            return false;
        };
        let reached = port.url.clone().or_else(|| {
            let (ip, port) = (compute.public_ip.as_ref()?, port.external?);
            Some(format!("tcp://{ip}:{port}"))
        });
        match (wanted, reached) {
            (Probe::Http { path, .. }, Some(url)) => {
                self.http(url.replacen("tcp://", "http://", 1), path, session)
                    .await
            }
            (Probe::Tcp { .. }, Some(url)) => self.tcp(&url).await,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    use atlas_core::{
        ComputeId, ComputeStatus, PortMapping, Protocol, SeededEntropy, SystemClock, Timestamp,
    };
    use tokio::net::TcpListener;

    fn machine(url: Option<String>, protocol: Protocol) -> Compute {
        let mut compute = Compute::new(
            ComputeId::new("m1").unwrap(),
            ProviderId::new("mock").unwrap(),
            ComputeStatus::Running,
        );
        compute.ports = vec![PortMapping {
            internal: 8000,
            external: None,
            protocol,
            url,
        }];
        compute
    }

    fn session() -> SessionId {
        SessionId::new(
            Timestamp::from_unix_seconds(1_790_000_000),
            &SeededEntropy::new(1),
        )
    }

    /// Answers with this status, and only to the expected path.
    fn http(status: u16) -> NetProbe {
        let service =
            tower::service_fn(move |request: http::Request<atlas_http::Body>| async move {
                let wanted = request
                    .uri()
                    .path_and_query()
                    .is_some_and(|path| path == "/v1/health?deep=1");
                let naked = !request.headers().contains_key("authorization");
                let answer =
                    http::Response::builder().status(if wanted && naked { status } else { 404 });
                Ok::<_, Infallible>(answer.body(String::new()).unwrap())
            });
        let entropy = Arc::new(SeededEntropy::new(1));
        NetProbe::over(
            Some(Transport::new(service)),
            DEADLINE,
            Arc::new(SystemClock),
            entropy,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_machine_is_usable_once_its_path_answers_and_not_while_a_proxy_does() {
        let wanted = Probe::http(8000, "/v1/health?deep=1");
        let there = machine(
            Some("https://m1-8000.proxy.example".to_owned()),
            Protocol::Http,
        );
        for (status, ready) in [
            (200, true),
            (204, true),
            (304, true),
            (401, true),
            (403, true),
            (404, false),
            (502, false),
        ] {
            assert_eq!(
                http(status)
                    .is_ready(session(), &there, Some(&wanted))
                    .await,
                ready,
                "{status}"
            );
        }
        assert!(
            !http(200)
                .is_ready(session(), &machine(None, Protocol::Http), Some(&wanted))
                .await,
            "no address yet"
        );
        assert!(
            !http(200)
                .is_ready(session(), &there, Some(&Probe::http(8000, "/other")))
                .await
        );
        assert!(
            !http(200)
                .is_ready(
                    session(),
                    &there,
                    Some(&Probe::http(9000, "/v1/health?deep=1"))
                )
                .await,
            "another port"
        );
        assert!(
            http(502).is_ready(session(), &there, None).await,
            "nothing was asked for"
        );
    }

    #[tokio::test]
    async fn a_machine_is_usable_once_it_takes_connections() {
        let entropy = Arc::new(SeededEntropy::new(1));
        let probe =
            NetProbe::over(None, Duration::from_secs(2), Arc::new(SystemClock), entropy).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let there = machine(Some(format!("tcp://{address}")), Protocol::Tcp);
        assert!(
            probe
                .is_ready(session(), &there, Some(&Probe::tcp(8000)))
                .await
        );
        drop(listener);
        assert!(
            !probe
                .is_ready(session(), &there, Some(&Probe::tcp(8000)))
                .await
        );
    }
}
