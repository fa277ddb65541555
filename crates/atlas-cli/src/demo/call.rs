//! Plain HTTP calls to this machine, as a browser would make them: the pods' own URLs and the
//! simulator's admin.

use std::time::Duration;

use atlas::Secret;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::failure::{Done, Failure};

/// Nobody on loopback takes longer, and nobody here sends more.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST: usize = 16 * 1024 * 1024;

/// The status a URL answers with, with or without a bearer token.
pub(super) async fn status(url: &str, token: Option<&Secret>) -> Done<u16> {
    Ok(exchange(Method::GET, url, token, None).await?.0)
}

/// The JSON a URL answers with.
pub(super) async fn get(url: &str) -> Done<Value> {
    json(url, exchange(Method::GET, url, None, None).await?)
}

/// Sends JSON.
pub(super) async fn post(url: &str, body: &Value) -> Done {
    let (status, _) = exchange(Method::POST, url, None, Some(body)).await?;
    if (200..300).contains(&status) {
        Ok(())
    } else {
        Err(Failure::new(format!("{url} answered {status}")))
    }
}

fn json(url: &str, (status, body): (u16, Bytes)) -> Done<Value> {
    match (status, serde_json::from_slice(&body)) {
        (200, Ok(value)) => Ok(value),
        (200, Err(error)) => Err(Failure::new(format!("{url} answered no JSON: {error}"))),
        _ => Err(Failure::new(format!("{url} answered {status}"))),
    }
}

async fn exchange(
    method: Method,
    url: &str,
    token: Option<&Secret>,
    body: Option<&Value>,
) -> Done<(u16, Bytes)> {
    tokio::time::timeout(PATIENCE, send(method, url, token, body))
        .await
        .map_err(|_| Failure::new(format!("{url} did not answer in {PATIENCE:?}")))?
        .map_err(|error| Failure::new(format!("{url} cannot be called: {error}")))
}

type Wrong = Box<dyn std::error::Error + Send + Sync>;

async fn send(
    method: Method,
    url: &str,
    token: Option<&Secret>,
    body: Option<&Value>,
) -> Result<(u16, Bytes), Wrong> {
    let uri: Uri = url.parse()?;
    let authority = uri
        .authority()
        .filter(|_| uri.scheme_str() == Some("http"))
        .ok_or("only http:// is called here")?;
    let path = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority.as_str());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    let bytes = body
        .map(|body| Bytes::from(body.to_string()))
        .unwrap_or_default();
    let request = request
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes))?;
    let stream = TcpStream::connect(authority.as_str()).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MOST)
        .collect()
        .await?
        .to_bytes();
    drop(sender);
    // The exchange is over; whether the connection closes cleanly concerns nobody any more.
    driver.abort();
    Ok((status, body))
}
