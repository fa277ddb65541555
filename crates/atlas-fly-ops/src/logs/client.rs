//! The log API's client: one page of one app.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atlas_core::{CallContext, ProviderId, Result, RetryClass};
use atlas_http::{Call, Client, Transport};
use tracing::{Instrument as _, field};

use crate::app_name::AppName;
use crate::logs::wire::{self, LogCursor, LogEntry, LogPage};
use crate::telemetry;
use crate::token::Tokens;

const BASE_URL: &str = "https://api.fly.io";
const TIMEOUT: Duration = Duration::from_secs(10);
const LARGEST_PAGE: usize = 64 * 1024 * 1024;

/// Selects log entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogFilter {
    /// Only of this region.
    pub region: Option<String>,
    /// Only of this machine.
    pub instance: Option<String>,
}

impl LogFilter {
    /// Selects all entries.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only of this region.
    #[must_use]
    pub fn region(self, region: impl Into<String>) -> Self {
        Self {
            region: Some(region.into()),
            ..self
        }
    }

    /// Only of this machine.
    #[must_use]
    pub fn instance(self, instance: impl Into<String>) -> Self {
        Self {
            instance: Some(instance.into()),
            ..self
        }
    }

    pub(crate) fn matches(&self, entry: &LogEntry) -> bool {
        self.region
            .as_ref()
            .is_none_or(|region| entry.region.as_ref() == Some(region))
            && self
                .instance
                .as_ref()
                .is_none_or(|instance| entry.instance.as_ref() == Some(instance))
    }
}

/// Reads logs with the tokens of the chain. Cheap to clone.
#[derive(Clone)]
pub struct LogClient(Arc<Inner>);

struct Inner {
    tokens: Tokens,
    base_url: String,
    transport: Transport,
    clients: Mutex<BTreeMap<AppName, Client>>,
}

impl LogClient {
    /// A client of Fly's own API.
    #[must_use]
    pub fn new(tokens: Tokens) -> Self {
        Self::with_transport(tokens, BASE_URL, Transport::hyper())
    }

    /// A client of another server. Plain `http://` for loopback only.
    #[must_use]
    pub fn at(tokens: Tokens, base_url: impl Into<String>) -> Self {
        Self::with_transport(tokens, base_url, Transport::hyper())
    }

    /// A client of another server, over another transport.
    #[must_use]
    pub fn with_transport(
        tokens: Tokens,
        base_url: impl Into<String>,
        transport: Transport,
    ) -> Self {
        Self(Arc::new(Inner {
            tokens,
            base_url: base_url.into(),
            transport,
            clients: Mutex::default(),
        }))
    }

    /// One page after the cursor; the newest entries if there is no cursor. A refused token is
    /// renewed once.
    ///
    /// # Errors
    /// `unauthorized`, `not_found`, `rate_limited` and so on, as the API answers; `provider` for an
    /// answer that is not a log.
    pub async fn page(
        &self,
        app: &AppName,
        filter: &LogFilter,
        from: Option<LogCursor>,
    ) -> Result<LogPage> {
        let span = tracing::info_span!(
            "fly.logs.fetch",
            app = app.as_str(),
            status = field::Empty,
            count = field::Empty,
            "error.type" = field::Empty,
        );
        let result = self.fetch(app, filter, from).instrument(span.clone()).await;
        match &result {
            Ok((status, page)) => {
                span.record("status", status);
                span.record("count", page.entries.len());
                telemetry::logs_fetched(*status, page.entries.len());
            }
            Err(error) => {
                error.status().map(|status| span.record("status", status));
                span.record("error.type", error.kind().as_str());
                telemetry::logs_fetched(error.status().unwrap_or(0), 0);
            }
        }
        result.map(|(_, page)| page)
    }

    async fn fetch(
        &self,
        app: &AppName,
        filter: &LogFilter,
        from: Option<LogCursor>,
    ) -> Result<(u16, LogPage)> {
        let client = self.client(app)?;
        let call = Call::get(
            "fetch_logs",
            RetryClass::Safe,
            ["api", "v1", "apps", app.as_str(), "logs"],
        )
        .query_opt("next_token", from.map(|cursor| cursor.to_string()))
        .query_opt("region", filter.region.as_deref())
        .query_opt("instance", filter.instance.as_deref());
        // Not repeated here: the tailing reader has its own waits.
        let answer = client
            .call(
                &CallContext::new().with_timeout(TIMEOUT).with_retries(0),
                call,
            )
            .await?;
        let page = wire::read(answer.bytes())
            .ok_or_else(|| answer.misunderstood("the answer is not a log"))?;
        Ok((answer.status().as_u16(), page))
    }

    fn client(&self, app: &AppName) -> Result<Client> {
        let mut clients = self
            .0
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(app) {
            return Ok(client.clone());
        }
        let client = Client::builder(ProviderId::new("fly")?, self.0.base_url.clone())
            .api("logs")
            .credential_source(self.0.tokens.credential(app))
            .max_answer_bytes(LARGEST_PAGE)
            .transport(self.0.transport.clone())
            .build()?;
        clients.insert(app.clone(), client.clone());
        Ok(client)
    }
}

impl fmt::Debug for LogClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogClient")
            .field("base_url", &self.0.base_url)
            .finish_non_exhaustive()
    }
}
