//! For tests of clients of a cloud: a cloud whose requests are recorded, and one that gives
//! prepared answers, right or wrong.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;
use tower::{Service, ServiceExt as _};

use super::SimBody;
use super::face::{CloudService, front};

/// The largest request that is read.
const MOST: usize = 8 << 20;

/// One request as it arrived.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Asked {
    /// Method and path.
    pub line: String,
    /// The query; empty for none.
    pub query: String,
    /// The `Authorization`; empty for none.
    pub authorization: String,
    /// The body, where it is JSON.
    pub body: Value,
}

impl fmt::Debug for Asked {
    /// Without the credential, and without a body that may have secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}?{}", self.line, self.query)
    }
}

/// What was asked of a [`Watched`] cloud. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Mutex<Vec<Asked>>>);

impl Requests {
    /// What was asked since the last time, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.list())
    }

    /// The same, only methods and paths.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.take().into_iter().map(|asked| asked.line).collect()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cloud whose requests are written down before it sees them.
#[derive(Clone, Debug)]
pub struct Watched<S> {
    cloud: S,
    requests: Requests,
}

impl<S> Watched<S> {
    /// This cloud, watched from now on.
    pub fn new(cloud: S) -> Self {
        Self {
            cloud,
            requests: Requests::default(),
        }
    }

    /// What is asked of it.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }
}

impl<S: CloudService> Watched<S> {
    async fn pass(self, parts: Parts, body: Bytes) -> io::Result<Response<SimBody>> {
        let authorization = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        self.requests.list().push(Asked {
            line: format!("{} {}", parts.method, parts.uri.path()),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            authorization: authorization.unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        });
        self.cloud
            .oneshot(Request::from_parts(parts, Full::new(body)))
            .await
    }
}

front!(Watched<S>);

/// A status and a body.
pub type Answer = (u16, &'static str);

/// A cloud that gives prepared answers.
#[derive(Clone, Debug)]
pub struct Canned(Arc<Script>);

#[derive(Debug)]
enum Script {
    /// In order; the last one is repeated.
    InTurn(Vec<Answer>, Mutex<usize>),
    /// By the end of the request's path.
    ByPath(Vec<(&'static str, Answer)>),
}

impl Canned {
    /// Gives these answers in order, whatever is requested; the last one is repeated.
    #[must_use]
    pub fn in_turn(answers: &[Answer]) -> Self {
        Self(Arc::new(Script::InTurn(answers.to_vec(), Mutex::default())))
    }

    /// Gives the answer whose text the path ends in; anything else is a 404 with an empty body.
    #[must_use]
    pub fn by_path(answers: &[(&'static str, u16, &'static str)]) -> Self {
        Self(Arc::new(Script::ByPath(
            answers
                .iter()
                .map(|(end, status, body)| (*end, (*status, *body)))
                .collect(),
        )))
    }

    fn answer(&self, path: &str) -> Answer {
        const NOTHING: Answer = (404, "");
        match &*self.0 {
            Script::InTurn(answers, next) => {
                let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                *next += 1;
                answers
                    .get(*next - 1)
                    .or(answers.last())
                    .copied()
                    .unwrap_or(NOTHING)
            }
            Script::ByPath(answers) => answers
                .iter()
                .find(|(end, _)| path.ends_with(end))
                .map_or(NOTHING, |(_, answer)| *answer),
        }
    }
}

impl<B> Service<Request<B>> for Canned {
    type Response = Response<SimBody>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Response<SimBody>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (status, body) = self.answer(request.uri().path());
        let mut response = Response::new(SimBody::from(body));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        std::future::ready(Ok(response))
    }
}
