//! A web backend that gives each user a machine of their own, with a graceful shutdown.
//!
//! ```sh
//! cargo run -p atlas --features full --example axum          # over a simulated cloud
//! RUNPOD_API_KEY=… cargo run -p atlas --features full --example axum
//! curl -XPOST localhost:3000/machines/u42                    # {"session":…,"url":…,"token":…}
//! curl -XPOST localhost:3000/machines/u42/touch
//! curl -XDELETE localhost:3000/machines/u42
//! ```
//!
//! Ctrl-C and SIGTERM hand over: no machine is ended, and the next start of this program goes on with all of
//! them.

use std::time::Duration;

use atlas::{
    AccountName, Atlas, Auth, ComputeRequest, Error, ErrorKind, Gpu, Port, Redb, RunPod, Session,
    SessionInfo, SessionOptions, Shutdown,
};
use atlas_testkit::mock::MockCloud;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

type Answer = Result<Json<Value>, (StatusCode, String)>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (account, provider) = match std::env::var("RUNPOD_API_KEY") {
        Ok(_) => (
            AccountName::new("runpod")?,
            atlas::AnyProvider::new(RunPod::from_env()?),
        ),
        Err(_) => (AccountName::new("mock")?, MockCloud::new(1).provider()),
    };
    let place = std::env::var("ATLAS_STORE").unwrap_or_else(|_| "axum-example.redb".to_owned());
    let atlas = Atlas::builder()
        .account(account, provider)
        .store(Redb::open(place)?)
        .build()
        .await?;

    let app = Router::new()
        .route("/machines/{user}", post(open).get(show).delete(close))
        .route("/machines/{user}/touch", post(touch))
        .with_state(atlas.clone());
    let listener = tokio::net::TcpListener::bind(
        std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned()),
    )
    .await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(asked_to_stop())
        .await?;

    let report = atlas.shutdown(Shutdown::Handover).await?;
    println!("handed over {} sessions", report.handed_over);
    Ok(())
}

/// Gives the user the machine they have, or rents one.
async fn open(State(atlas): State<Atlas>, Path(user): Path<String>) -> Answer {
    let request = ComputeRequest::gpu(Gpu::H100)
        .image("ghcr.io/me/infer:1")
        .port(Port::http(8000))
        .auth(Auth::Bearer);
    let options = SessionOptions::new()
        .user(&user)
        .key(key_of(&user))
        .idle_ttl(Duration::from_secs(900));
    // However often the user clicks, the key has one session. If the browser goes away meanwhile,
    // the order goes on, and the next click finds it.
    let acquired = atlas
        .get_or_spawn(request, options)
        .await
        .map_err(refused)?;
    acquired.session.touch();
    let info = acquired.session.info().await.map_err(refused)?;
    Ok(Json(credentials(&info)))
}

async fn show(State(atlas): State<Atlas>, Path(user): Path<String>) -> Answer {
    let session = session_of(&atlas, &user).await?;
    Ok(Json(json!(session.info().await.map_err(refused)?)))
}

async fn touch(State(atlas): State<Atlas>, Path(user): Path<String>) -> Answer {
    let session = session_of(&atlas, &user).await?;
    Ok(Json(json!({ "touch": session.touch() })))
}

async fn close(State(atlas): State<Atlas>, Path(user): Path<String>) -> Answer {
    let session = session_of(&atlas, &user).await?;
    Ok(Json(json!(session.terminate().await.map_err(refused)?)))
}

/// One machine per user: the session key of all their requests.
fn key_of(user: &str) -> String {
    format!("machine:{user}")
}

async fn session_of(atlas: &Atlas, user: &str) -> Result<Session, (StatusCode, String)> {
    let found = atlas.find(&key_of(user)).await.map_err(refused)?;
    found.ok_or_else(|| (StatusCode::NOT_FOUND, "this user has no machine".to_owned()))
}

fn credentials(info: &SessionInfo) -> Value {
    json!({
        "session": info.id,
        "url": info.compute.as_ref().and_then(|compute| compute.url(8000)),
        "token": info.auth.as_ref().map(|auth| auth.secret().expose()),
    })
}

fn refused(error: Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::NoCapacity | ErrorKind::Quota | ErrorKind::RateLimited => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Validation => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::BAD_GATEWAY,
    };
    (status, error.to_string())
}

/// Ctrl-C, or the SIGTERM by which a service manager ends a process.
async fn asked_to_stop() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            // The signal cannot be listened for. The program then ends only when it is killed, and
            // recovers at its next start.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
