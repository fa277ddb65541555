//! The framework-free core: which reports are accepted, their format, and what they cause.

use std::sync::Arc;
use std::time::Duration;

use atlas_auth::callback::{CallbackKey, Reporter};
use atlas_auth::signed_url::Verdict;
use atlas_core::{AttemptId, ComputeRequest, ErrorKind, Result, Timestamp};
use atlas_orchestrator::{
    AttemptInfo, AttemptPhase, DEFAULT_TASK_RUNTIME, Orchestrator, Session, SessionId, SessionInfo,
    SessionKind, SessionOptions, TaskOutcome, Touch,
};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use tokio::time::Instant;

use super::address::CallbackUrl;
use super::limit::{Limits, Meters};
use super::service::CallbackService;

/// The environment variable in which a machine finds the URL for its reports.
pub const URL_ENV: &str = "ATLAS_CALLBACK_URL";
/// The environment variable in which a machine finds its token.
pub use atlas_auth::callback::TOKEN_ENV;
/// The maximum length of a report that the orchestrator accepts.
const MAX_TEXT: usize = 4096;
/// How much longer than its session a token is valid, because the last report may arrive late.
const GRACE: Duration = Duration::from_secs(3600);
/// How long the token of a session without `max_runtime` is valid.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a machine may report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Progress: a JSON object. Does not count as activity.
    Progress,
    /// Lines of the machine's log, as text. Does not count as activity.
    Log,
    /// User activity. The only report that keeps a session alive; its body is ignored.
    Activity,
    /// How its command ended: the exit code, as a number or as `{"exit_code": N}`.
    Exit,
}

impl Kind {
    /// The last segment of its path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Progress => "progress",
            Self::Log => "log",
            Self::Activity => "activity",
            Self::Exit => "exit",
        }
    }

    /// The maximum body size in bytes. A longer one is refused before it is parsed.
    #[must_use]
    pub const fn max_body(self) -> usize {
        match self {
            Self::Progress | Self::Log => MAX_TEXT,
            Self::Activity | Self::Exit => 256,
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Progress, Self::Log, Self::Activity, Self::Exit]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// Why a report was not accepted. The answer consists of the status only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Unknown path, or not a POST.
    NotFound,
    /// No token, or the token of another session.
    Unauthorized,
    /// The session's token has expired, the machine was replaced, or the session has ended: the
    /// machine should stop reporting.
    Gone,
    /// The session cannot store more reports. Activity and the exit code are still accepted.
    Full,
    /// Longer than [`Kind::max_body`].
    TooLarge,
    /// More than [`Limits`] allow; may be repeated after this time.
    TooMany(Duration),
    /// Not a valid report of this kind.
    Malformed,
    /// The body did not come in time.
    TooSlow,
    /// The host cannot accept it now; send it again.
    Unavailable,
}

impl Refusal {
    /// The status that the machine is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Gone => StatusCode::GONE,
            Self::TooLarge | Self::Full => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A report whose token and rate were accepted; its body was not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    session: SessionId,
    kind: Kind,
    /// `None` for a token that names only the session.
    attempt: Option<AttemptId>,
}

impl Admitted {
    /// The session whose machine reports.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// What it reports.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }
}

/// The callbacks of one orchestrator. Cheap to clone; clones share their rates.
#[derive(Clone, Debug)]
pub struct Callbacks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    orchestrator: Orchestrator,
    key: CallbackKey,
    url: CallbackUrl,
    limits: Limits,
    meters: Meters,
}

impl Callbacks {
    /// The callbacks of this orchestrator, with a key that is the same on every node and after
    /// every restart, at this external URL.
    #[must_use]
    pub fn new(orchestrator: Orchestrator, key: CallbackKey, url: CallbackUrl) -> Self {
        Self::with_limits(orchestrator, key, url, Limits::default())
    }

    /// Like [`Callbacks::new`], with custom limits.
    #[must_use]
    pub fn with_limits(
        orchestrator: Orchestrator,
        key: CallbackKey,
        url: CallbackUrl,
        limits: Limits,
    ) -> Self {
        Self(Arc::new(Inner {
            orchestrator,
            key,
            url,
            limits,
            meters: Meters::default(),
        }))
    }

    /// The tower service that receives reports, to be mounted at the URL's path with that path
    /// stripped: `nest_service` in axum.
    #[must_use]
    pub fn service(&self) -> CallbackService {
        CallbackService::new(self.clone())
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Adds URL and token to a request, so that the session's machine can report until this time.
    #[must_use]
    pub fn equip(
        &self,
        request: ComputeRequest,
        session: SessionId,
        until: Timestamp,
    ) -> ComputeRequest {
        let url = format!("{}/{session}", self.0.url.as_str());
        request
            .env(URL_ENV, url)
            .env(TOKEN_ENV, self.0.key.mint(&session.to_string(), until))
    }

    /// Records a session whose machines can report, including respawned ones, and starts launching
    /// it.
    ///
    /// # Errors
    /// Like [`Orchestrator::launch`].
    ///
    /// # Cancel safety
    /// Like [`Orchestrator::launch`].
    pub async fn launch(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
        kind: SessionKind,
    ) -> Result<SessionId> {
        let orchestrator = &self.0.orchestrator;
        let id = orchestrator.new_id();
        let lasts = options.max_runtime.unwrap_or(if kind == SessionKind::Task {
            DEFAULT_TASK_RUNTIME
        } else {
            LONGEST
        });
        let until = orchestrator
            .now()
            .saturating_add(lasts.saturating_add(GRACE));
        orchestrator
            .launch_as(id, self.equip(request, id, until), options, kind)
            .await
    }

    /// Like [`Orchestrator::spawn`], with a machine that can report.
    ///
    /// # Errors
    /// Like [`Orchestrator::spawn`].
    ///
    /// # Cancel safety
    /// Like [`Orchestrator::spawn`].
    pub async fn spawn(&self, request: ComputeRequest, options: SessionOptions) -> Result<Session> {
        let id = self
            .launch(request, options, SessionKind::Interactive)
            .await?;
        let session = self.0.orchestrator.session(id).await?;
        session.await_accepted().await?;
        Ok(session)
    }

    /// Like [`Orchestrator::run_task`], with a machine that can report.
    ///
    /// # Errors
    /// Like [`Orchestrator::run_task`].
    ///
    /// # Cancel safety
    /// Like [`Orchestrator::run_task`].
    pub async fn run_task(
        &self,
        request: ComputeRequest,
        options: SessionOptions,
    ) -> Result<(Session, TaskOutcome)> {
        let id = self.launch(request, options, SessionKind::Task).await?;
        let session = self.0.orchestrator.session(id).await?;
        let outcome = session.await_outcome().await?;
        Ok((session, outcome))
    }

    /// Checks the headers of a report: `path` is `/SESSION/KIND`. Nothing is read from the store,
    /// and nothing is stored for a caller without a valid token.
    ///
    /// # Errors
    /// Why the report is refused.
    pub fn admit(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> std::result::Result<Admitted, Refusal> {
        let (task, kind) = path
            .strip_prefix('/')
            .and_then(|rest| rest.split_once('/'))
            .ok_or(Refusal::NotFound)?;
        let kind = Kind::of(kind)
            .filter(|_| method == Method::POST)
            .ok_or(Refusal::NotFound)?;
        let token = bearer(headers).ok_or(Refusal::Unauthorized)?;
        let now = self.0.orchestrator.now();
        let attempt = match self.0.key.reporter(task, token, now) {
            Ok(Reporter::Attempt(id)) => Some(id.parse().map_err(|_| Refusal::Unauthorized)?),
            Ok(_) => None,
            Err(Verdict::Expired) => return Err(Refusal::Gone),
            Err(_) => return Err(Refusal::Unauthorized),
        };
        let session: SessionId = task.parse().map_err(|_| Refusal::Unauthorized)?;
        self.0
            .meters
            .take(&self.0.limits, session, kind, Instant::now())
            .map_err(Refusal::TooMany)?;
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > kind.max_body() as u64) {
            return Err(Refusal::TooLarge);
        }
        Ok(Admitted {
            session,
            kind,
            attempt,
        })
    }

    /// Reads the body of an admitted report, and returns when it is recorded.
    ///
    /// # Errors
    /// Why the report is refused.
    ///
    /// # Cancel safety
    /// A dropped call may have recorded it.
    pub async fn deliver(
        &self,
        admitted: Admitted,
        body: &[u8],
    ) -> std::result::Result<(), Refusal> {
        let Admitted {
            session,
            kind,
            attempt,
        } = admitted;
        if body.len() > kind.max_body() {
            return Err(Refusal::TooLarge);
        }
        let orchestrator = &self.0.orchestrator;
        let report = match kind {
            Kind::Progress => Report::Text(progress(body)?),
            Kind::Log => Report::Text(log(body)),
            Kind::Activity => Report::Activity,
            Kind::Exit => Report::Exit(exit_code(body)?),
        };
        // A session that has ended or was deleted accepts no reports. Only the holder of its token
        // learns that.
        let info = orchestrator.info(session).await.map_err(refused)?;
        if info.reason.is_some() {
            return Err(Refusal::Gone);
        }
        let reporting = reporting(&info, attempt)?;
        match report {
            Report::Text(text) => orchestrator
                .report(session, kind.as_str(), &text)
                .await
                .map_err(refused),
            Report::Exit(code) => match reporting {
                Some(attempt) => orchestrator.report_exit_by(session, attempt, code).await,
                None => orchestrator.report_exit(session, code).await,
            }
            .map_err(refused),
            Report::Activity => match orchestrator
                .touch_from(session, "callback")
                .await
                .map_err(refused)?
            {
                Touch::Recorded => Ok(()),
                Touch::Ended => Err(Refusal::Gone),
                _ => Err(Refusal::Unavailable),
            },
        }
    }
}

enum Report {
    Text(String),
    Activity,
    Exit(i32),
}

fn refused(error: atlas_core::Error) -> Refusal {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Conflict => Refusal::Gone,
        ErrorKind::Quota => Refusal::Full,
        kind => {
            tracing::warn!(kind = kind.as_str(), "a callback could not be recorded");
            Refusal::Unavailable
        }
    }
}

/// The attempt whose machine reports: the one that serves, or, before any does, one whose order was
/// not answered yet. A machine that was replaced reports no more.
///
/// A token that names only the session may be that of any machine it ever had. It counts while the
/// machine was never replaced; `None` while there is no attempt at all.
fn reporting(
    info: &SessionInfo,
    attempt: Option<AttemptId>,
) -> std::result::Result<Option<AttemptId>, Refusal> {
    let serves =
        |found: &&AttemptInfo| found.phase == AttemptPhase::Live && found.terminating.is_none();
    let may_serve = |found: &&AttemptInfo| found.terminating.is_none() && found.ended_at.is_none();
    let serving = info.attempts.iter().find(serves);
    let speaks = |found: &&AttemptInfo| match serving {
        Some(serving) => serving.attempt == found.attempt,
        None => may_serve(found),
    };
    let mut speaking = info.attempts.iter().rev().filter(speaks);
    match attempt {
        Some(attempt) if speaking.any(|found| found.attempt == attempt) => Ok(Some(attempt)),
        None if info.respawns == 0 => Ok(speaking.next().map(|found| found.attempt)),
        _ => Err(Refusal::Gone),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A JSON object, kept as it came.
fn progress(body: &[u8]) -> std::result::Result<String, Refusal> {
    let text = std::str::from_utf8(body)
        .map_err(|_| Refusal::Malformed)?
        .trim();
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
        .map_err(|_| Refusal::Malformed)?;
    Ok(text.to_owned())
}

/// Text, with what is no UTF-8 replaced. The orchestrator makes one clean line of it.
fn log(body: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(body).into_owned();
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Exit {
    Bare(i32),
    Named { exit_code: i32 },
}

fn exit_code(body: &[u8]) -> std::result::Result<i32, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Exit::Bare(code) | Exit::Named { exit_code: code }) => Ok(code),
        Err(_) => Err(Refusal::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_exit_code_is_a_number_or_an_object_with_one() {
        assert_eq!(exit_code(b"3\n"), Ok(3));
        assert_eq!(exit_code(b"{\"exit_code\": 137}"), Ok(137));
        for body in [
            "",
            "three",
            "3.5",
            "99999999999",
            "[3]",
            "{\"code\":3}",
            "null",
            "\"3\"",
            "3 4",
        ] {
            assert_eq!(
                exit_code(body.as_bytes()),
                Err(Refusal::Malformed),
                "{body}"
            );
        }
    }

    #[test]
    fn progress_is_an_object_of_ordinary_depth() {
        assert!(progress(b" {\"percent\": 4} ").is_ok());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
        for body in [&b"[1]"[..], b"{", b"\xff", b"{}{}", b"", deep.as_bytes()] {
            assert_eq!(progress(body), Err(Refusal::Malformed));
        }
    }

    proptest! {
        #[test]
        fn no_body_panics_or_grows_beyond_what_the_orchestrator_takes(body in prop::collection::vec(any::<u8>(), 0..MAX_TEXT)) {
            prop_assert!(log(&body).len() <= MAX_TEXT);
            let _ = exit_code(&body);
            if let Ok(text) = progress(&body) {
                prop_assert!(text.len() <= MAX_TEXT);
            }
        }
    }
}
