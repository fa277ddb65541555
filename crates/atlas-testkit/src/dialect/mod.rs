//! One dialect for each cloud: its HTTP API over the world, exactly as its documents say, in
//! process and without sockets.
//!
//! A dialect is a tower `Service`. Its answers can also be what a network makes of them: an error
//! instead of an answer (a reset connection), no answer at all, or a body that breaks off.

mod body;
mod check;
pub mod cloud;
mod face;
pub mod fly;
pub mod fly_logs;
pub mod lambda;
pub mod mutated;
mod query;
pub mod runpod;
mod unserved;
pub mod vast;
pub mod watched;

use std::io;
use std::time::Duration;

use http::Response;

pub use body::SimBody;
pub use face::CloudService;

use crate::world::{Arrival, FaultKind, World};

/// Every simulated cloud.
pub const CLOUDS: &[&cloud::SimulatedCloud] =
    &[&runpod::CLOUD, &fly::CLOUD, &lambda::CLOUD, &vast::CLOUD];

/// The simulated cloud of this name.
#[must_use]
pub fn cloud_named(name: &str) -> Option<&'static cloud::SimulatedCloud> {
    CLOUDS.iter().copied().find(|cloud| cloud.name == name)
}

/// The delay of a slow answer, in simulated time: long for a call, but shorter than a deadline.
const SLOW: Duration = Duration::from_secs(10);

/// Delivers an answer under the fault that spoils it. `failed` and `limited` are the cloud's own
/// 500 and 429.
async fn deliver(
    world: &World,
    arrival: &Arrival,
    honest: Response<SimBody>,
    failed: impl FnOnce() -> Response<SimBody>,
    limited: impl FnOnce() -> Response<SimBody>,
) -> Result<Response<SimBody>, io::Error> {
    match arrival.answer() {
        Some(FaultKind::CommitThen500 | FaultKind::Status500) => Ok(failed()),
        Some(FaultKind::Status429) => Ok(limited()),
        Some(FaultKind::Status429ForHours) => {
            let mut refused = limited();
            refused.headers_mut().insert(
                http::header::RETRY_AFTER,
                FaultKind::LONG_WAIT.as_secs().into(),
            );
            Ok(refused)
        }
        Some(FaultKind::CommitThenReset | FaultKind::ResetBeforeCommit) => {
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(FaultKind::CommitThenTimeout) => std::future::pending().await,
        Some(FaultKind::Html502) => Ok(bad_gateway()),
        Some(FaultKind::Truncated) => {
            let (parts, body) = honest.into_parts();
            Ok(Response::from_parts(parts, body.cut_short()))
        }
        Some(FaultKind::Slow) => {
            tokio::time::sleep(world.clock().real(SLOW)).await;
            Ok(honest)
        }
        None => Ok(honest),
        // These change what is done or shown, in the world and in the dialects; the answer that
        // says so is left as it is.
        Some(
            FaultKind::DuplicateCommit
            | FaultKind::LateAppearance
            | FaultKind::StaleList
            | FaultKind::PartialList
            | FaultKind::EmptyList
            | FaultKind::PageShift
            | FaultKind::NoCapacity
            | FaultKind::QuotaExceeded
            | FaultKind::Preempt
            | FaultKind::Vanish
            | FaultKind::NeverReady
            | FaultKind::RevokeKey
            | FaultKind::SwapAccount,
        ) => Ok(honest),
    }
}

/// The page of a proxy in front of a cloud that lost the answer.
fn bad_gateway() -> Response<SimBody> {
    let html = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 \
        Bad Gateway</h1></center>\r\n\
                <hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n";
    let mut response = Response::new(SimBody::from(html));
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/html"),
    );
    response
}
