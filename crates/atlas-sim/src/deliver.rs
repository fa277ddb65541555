//! Delivers the webhooks of ended jobs, as RunPod does: up to three times, to the URL given with
//! the job.
//!
//! Plain `http://` only: a simulator has no business on the internet.

use std::time::Duration;

use atlas_testkit::dialect::runpod::webhook_body;
use atlas_testkit::world::{Webhook, World};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How often the world is asked for ends to report.
const LOOK: Duration = Duration::from_millis(50);
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after a failed delivery the next one comes, in simulated time.
const AGAIN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// Reports the end of every job that asked for it, until dropped.
pub(crate) async fn deliver(world: World) {
    let mut under_way = JoinSet::new();
    loop {
        for hook in world.take_webhooks() {
            under_way.spawn(report(world.clone(), hook));
        }
        while under_way.try_join_next().is_some() {}
        tokio::time::sleep(LOOK).await;
    }
}

async fn report(world: World, hook: Webhook) {
    let body = Bytes::from(webhook_body(&hook).to_string());
    for pause in [Duration::ZERO].into_iter().chain(AGAIN) {
        tokio::time::sleep(world.clock().real(pause)).await;
        if let Ok(Some(true)) =
            tokio::time::timeout(PATIENCE, post(hook.url.expose(), body.clone())).await
        {
            return;
        }
    }
    // After the third failure the cloud gives up, and the job keeps its status.
}

/// Whether it was taken; `None` where it could not be sent.
async fn post(url: &str, body: Bytes) -> Option<bool> {
    let uri: Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let authority = uri.authority()?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)))
        .await
        .ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header("host", authority.as_str())
        .header("content-type", "application/json")
        .header("user-agent", "Go-http-client/2.0")
        .body(Full::new(body))
        .ok()?;
    let answered = async move {
        sender
            .send_request(request)
            .await
            .is_ok_and(|answer| answer.status().is_success())
    };
    tokio::pin!(answered);
    tokio::select! { biased;
        taken = &mut answered => Some(taken),
        // A receiver may close as soon as it has answered; the answer is then already here.
        _ = connection => Some(answered.await),
    }
}
