//! Fly's internal push feed: NATS inside the private network. It has no history and no guarantees;
//! losses are reported.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, Event};
use atlas_core::{Backoff, Entropy, ErrorKind};
use atlas_http::CredentialSource as _;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use crate::app_name::AppName;
use crate::logs::wire::{self, LogEntry};
use crate::token::Tokens;

/// The feed's own address in every private network.
const SERVER: &str = "nats://[fdaa::3]:4223";
const PATIENCE: Duration = Duration::from_secs(10);
/// A peer that is silent for this long counts as gone.
const PING: Duration = Duration::from_secs(20);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
const MOST_REFUSALS: u32 = 5;
/// What the client says of its connection and is not heard yet.
const EVENTS: usize = 64;

/// The source of pushed lines. Cheap to clone. It is internal to Fly, with no guarantee that it
/// stays as it is.
#[derive(Clone)]
pub struct NatsFeed(Arc<Inner>);

struct Inner {
    server: String,
    organisation: String,
    tokens: Tokens,
}

/// What a reader of the feed hears.
pub(super) enum Pushed {
    Entry(LogEntry),
    /// Lines were lost, or may have been.
    Gap(ErrorKind),
}

impl NatsFeed {
    /// The feed of this organisation (its slug), at its address in the private network.
    #[must_use]
    pub fn new(organisation: impl Into<String>, tokens: Tokens) -> Self {
        Self::at(SERVER, organisation, tokens)
    }

    /// The same at another address, such as `nats://[fdaa:2:9c1e::3]:4223` through WireGuard.
    #[must_use]
    pub fn at(server: impl Into<String>, organisation: impl Into<String>, tokens: Tokens) -> Self {
        Self(Arc::new(Inner {
            server: server.into(),
            organisation: organisation.into(),
            tokens,
        }))
    }

    /// Reads until it gives up; returns the reason.
    pub(super) async fn read(
        &self,
        app: &AppName,
        entropy: &dyn Entropy,
        mut give: impl FnMut(Pushed) + Send,
    ) -> ErrorKind {
        let (mut failures, mut refusals) = (0_u32, 0_u32);
        loop {
            let kind = self
                .connection(app, &mut give, &mut failures, &mut refusals)
                .await;
            if refusals >= MOST_REFUSALS {
                return kind;
            }
            if failures == 0 {
                tracing::warn!(
                    app = app.as_str(),
                    kind = kind.as_str(),
                    "the log feed is interrupted"
                );
                give(Pushed::Gap(kind));
            }
            let delay = BACKOFF.delay(failures, entropy);
            failures = failures.saturating_add(1);
            tokio::time::sleep(delay).await;
        }
    }

    /// One connection, to its end.
    async fn connection(
        &self,
        app: &AppName,
        give: &mut (impl FnMut(Pushed) + Send),
        failures: &mut u32,
        refusals: &mut u32,
    ) -> ErrorKind {
        let credential = self.0.tokens.credential(app);
        let (token, authorization) = match self.0.tokens.get(app).await {
            Ok(acquired) => (acquired.token.password(), acquired.token.authorization()),
            Err(error) => {
                *refusals += 1;
                return error.kind();
            }
        };
        let (events, mut happened) = mpsc::channel(EVENTS);
        let options = ConnectOptions::with_user_and_password(
            self.0.organisation.clone(),
            token.expose().to_owned(),
        )
        .name("atlas")
        .connection_timeout(PATIENCE)
        .ping_interval(PING)
        .ignore_discovered_servers()
        .max_reconnects(1)
        .event_callback(move |event| {
            let events = events.clone();
            // The client's own task for events waits here, and drops what comes meanwhile. It fails
            // only when this connection is over.
            async move { drop(events.send(event).await) }
        });
        let client = match options.connect(self.0.server.as_str()).await {
            Ok(client) => client,
            Err(error) => {
                return match error.kind() {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        *refusals += 1;
                        credential.rejected(&authorization);
                        ErrorKind::Unauthorized
                    }
                    ConnectErrorKind::TimedOut => ErrorKind::Timeout,
                    ConnectErrorKind::ServerParse => ErrorKind::Validation,
                    _ => ErrorKind::Transport,
                };
            }
        };
        // An app's name is of `[a-z0-9-]`: no wildcard can be in it.
        let Ok(mut lines) = client.subscribe(format!("logs.{app}.>")).await else {
            return ErrorKind::Transport;
        };
        if client.flush().await.is_err() {
            return ErrorKind::Transport;
        }
        (*failures, *refusals) = (0, 0);
        loop {
            tokio::select! {
                biased;
                event = happened.recv() => match event {
                    // We connect again ourselves: with a token that is good then, and with a mark
                    // in the log.
                    None | Some(Event::Disconnected | Event::Closed | Event::LameDuckMode) => return ErrorKind::Transport,
                    Some(Event::SlowConsumer(_)) => {
                        // One for each line that was dropped: one mark for those of a moment.
                        while matches!(happened.try_recv(), Ok(Event::SlowConsumer(_))) {}
                        give(Pushed::Gap(ErrorKind::RateLimited));
                    }
                    Some(_) => {}
                },
                line = lines.next() => match line {
                    None => return ErrorKind::Transport,
                    Some(line) => match wire::read_line(&line.payload) {
                        Some(entry) => give(Pushed::Entry(entry)),
                        None => tracing::debug!(app = app.as_str(), bytes = line.payload.len(),
                            "a line of the feed could not be read"),
                    },
                },
            }
        }
    }
}

impl fmt::Debug for NatsFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may hold a password, though ours comes from the tokens.
        let server = self.0.server.rsplit('@').next();
        f.debug_struct("NatsFeed")
            .field("server", &server)
            .field("organisation", &self.0.organisation)
            .finish_non_exhaustive()
    }
}
