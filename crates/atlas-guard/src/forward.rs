//! Request and answer on their way between client and server: which headers stay on this hop, and
//! where the server is.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use atlas_auth::Principal;

/// Tells the server behind who passed. What a client sends under this name is dropped.
pub(crate) const PRINCIPAL: HeaderName = HeaderName::from_static("x-atlas-principal");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The protocol that a request asks to change to, when HTTP/1.1 lets it.
pub(crate) fn upgrade_of(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = version == Version::HTTP_11
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    asked.then(|| headers.get(UPGRADE).cloned()).flatten()
}

/// Makes a client's request one to the server.
pub(crate) fn to_server(
    head: &mut request::Parts,
    upstream: &Authority,
    upgrade: Option<HeaderValue>,
    who: &Principal,
) {
    // One host, the one that was verified: HTTP/2 names it in the URI, HTTP/1 in a header, and
    // where both are, the URI counts (RFC 9112 §3.2.2). Of several headers a server might take
    // another.
    let named = head
        .uri
        .authority()
        .and_then(|authority| authority.as_str().rsplit('@').next());
    let host = named
        .and_then(|host| HeaderValue::from_str(host).ok())
        .or_else(|| head.headers.get(HOST).cloned());
    // HTTP/1.0 names none, and HTTP/1.1 must.
    let host = host.or_else(|| HeaderValue::from_str(upstream.as_str()).ok());
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    join_cookies(&mut head.headers);
    let trailers = tokens(&head.headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(&mut head.headers);
    head.headers.remove(PROXY_AUTHORIZATION);
    // The guard's own server says "100 Continue", as soon as the body is asked for.
    head.headers.remove(EXPECT);
    if trailers {
        head.headers
            .insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, protocol);
    }
    remove_claims(&mut head.headers);
    head.headers.insert(PRINCIPAL, describe(who));
    let mut uri = hyper::http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(upstream.clone());
    uri.path_and_query = Some(
        head.uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
    );
    head.uri = Uri::from_parts(uri).expect("scheme, authority and path are a URI");
    head.version = Version::HTTP_11;
}

/// Removes what says who passed, unless the guard says it: also `x_atlas_principal`, which is the
/// same name to CGI, WSGI and Rack.
fn remove_claims(headers: &mut HeaderMap) {
    let ours = &PRINCIPAL;
    let is_claim = |name: &&HeaderName| {
        name.as_str().len() == ours.as_str().len()
            && *ours == name.as_str().replace('_', "-").as_str()
    };
    let claims: Vec<HeaderName> = headers.keys().filter(is_claim).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// HTTP/2 may cut cookies into several fields, which HTTP/1 may not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(cookies) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookies);
    }
}

/// What of a request's trailers may follow its body: nothing that decides who asks for what.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    remove_claims(trailers);
    for name in [
        AUTHORIZATION,
        PROXY_AUTHORIZATION,
        COOKIE,
        HOST,
        CONTENT_LENGTH,
    ] {
        trailers.remove(name);
    }
}

fn describe(who: &Principal) -> HeaderValue {
    match who {
        Principal::Bearer => HeaderValue::from_static("bearer"),
        Principal::Grant(grant) => HeaderValue::from_str(&format!("grant {}", grant.id()))
            .expect("an id is letters, digits, - and _"),
        _ => HeaderValue::from_static("signed-url"),
    }
}

/// Removes what is about one connection and not about the message (RFC 9110 §7.6.1).
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named.iter().chain(&[
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ]) {
        // `Connection: Host` or `Connection: Content-Length` is an attack, not a wish.
        if *name != HOST && *name != CONTENT_LENGTH && *name != PRINCIPAL {
            headers.remove(name);
        }
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Connects to the one server there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connector(pub(crate) SocketAddr);

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_says_nothing_that_decides() {
        let mut trailers = HeaderMap::new();
        for name in [
            "authorization",
            "x_atlas_principal",
            "x-atlas-principal",
            "cookie",
            "host",
            "content-length",
            "x-sum",
        ] {
            trailers.insert(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_static("1"),
            );
        }
        clean_trailers(&mut trailers);
        assert_eq!(
            trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-sum"]
        );
    }

    #[test]
    fn what_a_client_says_about_its_own_connection_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (
                "connection",
                "keep-alive, X-Secret-Hop, host, content-length",
            ),
            ("keep-alive", "5"),
            ("x-secret-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("host", "h"),
            ("content-length", "3"),
            ("x-kept", "1"),
        ] {
            headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        remove_hop_by_hop(&mut headers);
        let mut kept: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["content-length", "host", "x-kept"]);
    }
}
