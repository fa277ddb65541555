//! The way from one process to a simulated cloud: places to crash at around every call, and a log
//! of the deletions sent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atlas_core::{Timestamp, Usd};
use atlas_http::Body;
use atlas_testkit::dialect::SimBody;
use atlas_testkit::dialect::cloud::Api;
use atlas_testkit::world::World;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::Service;

use crate::cloud::Cloud;
use crate::dice::Dice;
use crate::process::{Places, Process};
use crate::refusal::{Fate, Refusal};

/// A deletion that left a process.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub(crate) at: Timestamp,
    /// The machine.
    pub(crate) id: String,
    /// What the machine had cost by then.
    pub(crate) billed: Usd,
}

/// The deletions that left any process.
pub(crate) type Deletions = Arc<Mutex<Vec<Deletion>>>;

/// What the network does between every process and the clouds, besides what a cloud does itself.
#[derive(Clone, Debug)]
pub(crate) struct Network(Arc<Mutex<NetworkState>>);

#[derive(Debug)]
struct NetworkState {
    dice: Dice,
    lost_deletes_percent: u64,
    lost_deletes: u64,
    /// What the clouds refuse, and until when.
    refusals: Vec<(Instant, Refusal)>,
}

impl Network {
    /// Of so many of a hundred deletions only the answer arrives: the cloud's front says yes, and
    /// nothing is done.
    pub(crate) fn new(seed: u64, lost_deletes_percent: u64) -> Self {
        Self(Arc::new(Mutex::new(NetworkState {
            dice: Dice::new(seed, "network"),
            lost_deletes_percent,
            lost_deletes: 0,
            refusals: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, NetworkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No deletion is lost any more, and nothing is refused.
    pub(crate) fn calm(&self) {
        let mut state = self.state();
        state.lost_deletes_percent = 0;
        state.refusals.clear();
    }

    /// The clouds refuse this for so long.
    pub(crate) fn refuse(&self, refusal: Refusal, span: Duration) {
        self.state().refusals.push((Instant::now() + span, refusal));
    }

    /// What becomes of a call.
    fn judge(&self, cloud: Cloud, request: Request<Body>, ends: bool) -> Fate {
        let now = Instant::now();
        let mut state = self.state();
        state.refusals.retain(|(until, _)| now < *until);
        let mut request = request;
        for (_, refusal) in &state.refusals {
            match refusal.judge(cloud, request, ends) {
                Fate::Carried(carried) => request = carried,
                other => return other,
            }
        }
        Fate::Carried(request)
    }

    /// How many deletions were lost.
    pub(crate) fn lost_deletes(&self) -> u64 {
        self.state().lost_deletes
    }

    /// How long a message is under way: answers overtake each other.
    fn latency(&self) -> Duration {
        Duration::from_millis(self.state().dice.draw(1..120))
    }

    fn loses_delete(&self) -> bool {
        let mut state = self.state();
        let share = state.lost_deletes_percent;
        let lost = share > 0 && state.dice.percent(share);
        state.lost_deletes += u64::from(lost);
        lost
    }
}

/// A cloud in the hands of one process.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) inner: Api,
    pub(crate) cloud: Cloud,
    pub(crate) process: Process,
    pub(crate) places: Places,
    pub(crate) world: World,
    pub(crate) deletions: Deletions,
    pub(crate) network: Network,
}

/// What every server says of the time, in whole seconds (RFC 9110 §6.6.1).
fn date(now: Timestamp) -> Option<HeaderValue> {
    let now = jiff::Timestamp::from_millisecond(now.unix_millis()).ok()?;
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    let text = printer.timestamp_to_rfc9110_string(&now).ok()?;
    HeaderValue::from_str(&text).ok()
}

impl Service<Request<Body>> for Way {
    type Response = Response<SimBody>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<SimBody>, io::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let way = self.clone();
        let place = format!(
            "{} {} {}",
            self.cloud,
            request.method(),
            shape(request.uri().path())
        );
        Box::pin(async move {
            way.places
                .pass(&way.process, &format!("{place} before"))
                .await;
            sleep(way.network.latency()).await;
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            let ended = way
                .cloud
                .ended(&way.world, &parts.method, parts.uri.path(), &body);
            let ends = !ended.is_empty();
            let now = way.world.now();
            let ended = ended.into_iter().map(|id| {
                let machine = way.world.truth(way.cloud.as_str(), &id);
                let billed = machine.map_or(Usd::ZERO, |machine| machine.billed(now));
                Deletion {
                    at: now,
                    id,
                    billed,
                }
            });
            way.deletions
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(ended);
            let request = Request::from_parts(parts, Body::from(body));
            let request = match way.network.judge(way.cloud, request, ends) {
                Fate::Carried(request) => request,
                Fate::Answered(answer) => {
                    sleep(way.network.latency()).await;
                    return Ok(answer);
                }
                Fate::Later(request, wait) => {
                    // The cloud has taken it: it acts though the process that asked may be gone.
                    drop(tokio::spawn(async move {
                        sleep(wait).await;
                        let _ = inner.call(request).await;
                    }));
                    return Ok(way.cloud.forgets());
                }
            };
            let lost = ends && way.network.loses_delete();
            let mut answer = if lost {
                Ok(way.cloud.forgets())
            } else {
                inner.call(request).await
            };
            if let (Ok(answer), Some(date)) = (&mut answer, date(way.world.now())) {
                answer.headers_mut().insert(header::DATE, date);
            }
            sleep(way.network.latency()).await;
            way.places
                .pass(&way.process, &format!("{place} after"))
                .await;
            answer
        })
    }
}

/// A path without what is different in each: ids and names.
fn shape(path: &str) -> String {
    let mut before = "";
    let shown = path.split('/').map(|segment| {
        let named = matches!(before, "apps" | "orgs")
            || segment.contains([':', '.'])
            || segment.bytes().all(|b| b.is_ascii_digit());
        let known =
            segment.is_empty() || !named && (segment.len() < 10 || segment.contains(['-', '_']));
        before = segment;
        if known { segment } else { "{id}" }
    });
    shown.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_on_the_way_is_named_by_the_call_and_by_no_id() {
        for (path, place) in [
            ("/v2/pods/k3x9q2m7w1zp8f", "/v2/pods/{id}"),
            ("/v2/billing/pods", "/v2/billing/pods"),
            (
                "/v1/apps/atlas-a1-2f-9/machines/6e8294c17d5083",
                "/v1/apps/{id}/machines/{id}",
            ),
            (
                "/v1/apps/pods/ip_assignments/2001:db8::1",
                "/v1/apps/{id}/ip_assignments/{id}",
            ),
            ("/v1/orgs/sim-org/machines", "/v1/orgs/{id}/machines"),
            (
                "/api/v1/instance-operations/launch",
                "/api/v1/instance-operations/launch",
            ),
            (
                "/api/v1/instances/0c0900a02b9b08d8258f4b3a1e8479d4",
                "/api/v1/instances/{id}",
            ),
            ("/api/v0/asks/21310070/", "/api/v0/asks/{id}/"),
        ] {
            assert_eq!(shape(path), place);
        }
    }
}
