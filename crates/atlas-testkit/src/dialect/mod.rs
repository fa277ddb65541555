//! One dialect for each cloud: its HTTP API over the world, exactly as its documents say, in
//! process and without sockets.
//!
//! A dialect is a tower `Service`. Its answers can also be what a network makes of them: an error
//! instead of an answer (a reset connection), no answer at all, or a body that breaks off.

mod body;
mod check;
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

use crate::world::{Arrival, FaultKind, World};

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
        _ => Ok(honest),
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
