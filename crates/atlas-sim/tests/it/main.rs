//! The simulator over real sockets: what a client, an operator and a shell see of it.

mod program;
mod tcp;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Sends a request on a connection of its own. An error is a connection cut before or within the
/// answer.
async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("{error}"))?;
    let authority = uri.authority().ok_or("no authority")?.as_str().to_owned();
    let stream = TcpStream::connect(&authority)
        .await
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let path = uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", authority);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::<Bytes>::from(body.to_owned()))
        .map_err(|error| error.to_string())?;
    let response: Response<_> = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let (parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| format!("body: {error}"))?
        .to_bytes();
    driver.abort();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
}

/// A call with the simulator's key.
async fn call(method: &str, url: &str, body: &str) -> Result<Answer, String> {
    send(
        method,
        url,
        &[
            ("authorization", "Bearer sim-key"),
            ("user-agent", "test/1"),
        ],
        body,
    )
    .await
}

/// Polls until it is so. What is waited for happens by itself, in real time, sixty times faster.
async fn until<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    for _ in 0..600 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}
