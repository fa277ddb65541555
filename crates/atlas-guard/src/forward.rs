//! Prepares requests and answers for forwarding: removes headers of one hop, and sets the server's
//! address.

use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Uri, Version};

use atlas_auth::Principal;

/// The header that names the verified sender to the server. A client's own header with this name is
/// removed.
pub(crate) const PRINCIPAL: HeaderName = HeaderName::from_static("x-atlas-principal");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// Whether a request asks for an upgrade to WebSocket. No other upgrade is passed on: after `h2c`
/// or any other one, further requests would pass without verification.
pub(crate) fn asks_for_websocket(head: &request::Parts) -> bool {
    let mut upgrades = head.headers.get_all(UPGRADE).iter();
    let websocket = matches!(
        (upgrades.next(), upgrades.next()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"websocket")
    );
    websocket
        && head.version == Version::HTTP_11
        && head.method == Method::GET
        && head.headers.contains_key(SEC_WEBSOCKET_KEY)
        && tokens(&head.headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

/// The error for a request without a host, with several, or with an invalid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadHost;

/// The host of a request; `None` if an HTTP/1.0 request has none. HTTP/2 has it in the URI, HTTP/1
/// in a header. If a request has both, they must agree, because the server may use the other one.
pub(crate) fn host_of(head: &request::Parts) -> Result<Option<Authority>, BadHost> {
    let plain = |host: &Authority| !host.as_str().contains('@') && !host.host().is_empty();
    let mut headers = head.headers.get_all(HOST).iter();
    let header = match (headers.next(), headers.next()) {
        (None, _) => None,
        (Some(value), None) => Some(Authority::try_from(value.as_bytes()).map_err(|_| BadHost)?),
        (Some(_), Some(_)) => return Err(BadHost),
    };
    match (head.uri.authority().cloned(), header) {
        (Some(uri), Some(header)) if uri != header => Err(BadHost),
        (Some(host), _) | (None, Some(host)) if plain(&host) => Ok(Some(host)),
        (None, None) if head.version < Version::HTTP_11 => Ok(None),
        _ => Err(BadHost),
    }
}

/// The protocol used with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/1.1 that is upgraded to a WebSocket.
    WebSocket,
    Http2,
}

/// Converts a client's request to one for the server, with the single verified host.
pub(crate) fn to_server(
    head: &mut request::Parts,
    host: Authority,
    protocol: Protocol,
    who: &Principal,
) {
    join_cookies(&mut head.headers);
    let trailers = tokens(&head.headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(&mut head.headers);
    head.headers.remove(PROXY_AUTHORIZATION);
    head.headers.remove(HTTP2_SETTINGS);
    // The guard's own HTTP server sends "100 Continue" as soon as the body is read.
    head.headers.remove(EXPECT);
    if trailers {
        head.headers
            .insert(TE, HeaderValue::from_static("trailers"));
    }
    if protocol == Protocol::WebSocket {
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    remove_claims(&mut head.headers);
    head.headers.insert(PRINCIPAL, describe(who));
    // HTTP/2 uses `:authority` for the host; an additional `Host` would be a second one.
    head.headers.remove(HOST);
    if protocol != Protocol::Http2
        && let Ok(host) = HeaderValue::from_str(host.as_str())
    {
        head.headers.insert(HOST, host);
    }
    let mut uri = hyper::http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(host);
    uri.path_and_query = Some(
        head.uri
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
    );
    head.uri = Uri::from_parts(uri).expect("scheme, authority and path are a URI");
    head.version = match protocol {
        Protocol::Http2 => Version::HTTP_2,
        Protocol::Http1 | Protocol::WebSocket => Version::HTTP_11,
    };
}

/// Keeps an answer out of shared caches: a client that gets it from a cache shows no credential to
/// the guard.
pub(crate) fn keep_private(headers: &mut HeaderMap) {
    let shared = |directive: &str| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        ["public", "private", "s-maxage"]
            .iter()
            .any(|shared| name.eq_ignore_ascii_case(shared))
    };
    let mut kept: Vec<&str> = tokens(headers, &CACHE_CONTROL)
        .filter(|directive| !directive.is_empty() && !shared(directive))
        .collect();
    kept.insert(0, "private");
    if let Ok(value) = HeaderValue::from_str(&kept.join(", ")) {
        headers.insert(CACHE_CONTROL, value);
    }
}

/// Removes headers that name the sender, except the guard's own, and every header that CGI, WSGI
/// and Rack treat as equal to another, because they read `_` like `-`: `content_length` would
/// change the framing of the body on a connection that other requests use afterwards.
fn remove_claims(headers: &mut HeaderMap) {
    const READ_BY_SERVERS: [&str; 10] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    let is_claim = |name: &&HeaderName| {
        let disguised = name.as_str().contains('_');
        **name == PRINCIPAL
            || disguised && {
                let plain = name.as_str().replace('_', "-");
                PRINCIPAL == plain.as_str() || READ_BY_SERVERS.contains(&plain.as_str())
            }
    };
    let claims: Vec<HeaderName> = headers.keys().filter(is_claim).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// HTTP/2 may split cookies into several fields, which HTTP/1 may not (RFC 9113 §8.2.3).
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

/// Removes trailers that affect the sender, the target, the framing or the origin of the request
/// (RFC 9110 §6.5.1). Some servers merge trailers into the headers.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    const EXACT: &[&str] = &[
        "age",
        "authorization",
        "cache-control",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "http2-settings",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "proxy-authorization",
        "range",
        "referer",
        "set-cookie",
        "te",
        "trailer",
        "vary",
        "via",
        "x-real-ip",
    ];
    const BEGINNINGS: &[&str] = &[
        "accept",
        "access-control-",
        "content-",
        "if-",
        "sec-",
        "x-atlas-",
        "x-forwarded",
        "x-http-",
        "x-original-",
        "x-rewrite-",
    ];
    let decides = |name: &&HeaderName| {
        let name = name.as_str().replace('_', "-");
        EXACT.contains(&name.as_str())
            || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
            || name.ends_with("-client-ip")
            || name.ends_with("-connecting-ip")
    };
    let removed: Vec<HeaderName> = trailers.keys().filter(decides).cloned().collect();
    for name in removed {
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

/// Removes headers that concern one connection and not the message (RFC 9110 §7.6.1).
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
        // `Connection: Host` or `Connection: Content-Length` is an attack.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_says_nothing_that_decides() {
        let mut trailers = HeaderMap::new();
        for name in [
            "authorization",
            "x-forwarded-for",
            "x_forwarded_proto",
            "content-type",
            "fly-client-ip",
            "if-match",
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
    fn no_header_passes_for_another_one_with_underscores() {
        let mut headers = HeaderMap::new();
        for name in [
            "content_length",
            "transfer_encoding",
            "x_atlas-principal",
            "x-atlas-principal",
            "proxy_authorization",
            "api_key",
            "content-length",
        ] {
            headers.insert(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_static("1"),
            );
        }
        remove_claims(&mut headers);
        let mut kept: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        kept.sort_unstable();
        assert_eq!(kept, ["api_key", "content-length"]);
    }

    fn head_of(uri: &str, version: Version, hosts: &[&str]) -> request::Parts {
        let mut request = hyper::Request::builder().uri(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        let host = |uri, version, hosts: &[&str]| {
            host_of(&head_of(uri, version, hosts))
                .map(|host| host.map(|host| host.as_str().to_owned()))
        };
        let (one, two, old) = (Version::HTTP_11, Version::HTTP_2, Version::HTTP_10);
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(host("/p", one, &["h:80"]), some("h:80"));
        assert_eq!(host("http://h/p", two, &[]), some("h"));
        assert_eq!(host("http://h/p", two, &["H"]), some("h"));
        assert_eq!(host("/p", old, &[]), Ok(None));
        for (uri, version, hosts) in [
            ("/p", one, &[][..]),
            ("/p", one, &["h", "h"]),
            ("/p", one, &["a", "b"]),
            ("/p", one, &[""]),
            ("/p", one, &["u@h"]),
            ("/p", one, &["h/p"]),
            ("/p", one, &["h, i"]),
            ("http://a/p", one, &["b"]),
            ("http://a/p", two, &["b"]),
            ("/p", two, &[]),
        ] {
            assert_eq!(host(uri, version, hosts), Err(BadHost), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn only_a_plain_websocket_upgrade_is_passed_on() {
        let asks = |upgrades: &[&str]| {
            let mut head = head_of("/ws", Version::HTTP_11, &["h"]);
            head.headers
                .insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
            head.headers
                .insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("x"));
            for upgrade in upgrades {
                head.headers
                    .append(UPGRADE, HeaderValue::from_str(upgrade).unwrap());
            }
            asks_for_websocket(&head)
        };
        assert!(asks(&["websocket"]) && asks(&["WebSocket"]));
        for upgrades in [
            &[][..],
            &["h2c"],
            &["websocket, h2c"],
            &["h2c, websocket"],
            &["websocket", "h2c"],
            &["websocket/13"],
            &["TLS/1.0"],
        ] {
            assert!(!asks(upgrades), "{upgrades:?}");
        }
    }

    #[test]
    fn no_answer_may_be_kept_by_a_shared_cache() {
        for (said, becomes) in [
            (&[][..], "private"),
            (&["public, max-age=60"], "private, max-age=60"),
            (&["max-age=5", "S-MaxAge=9, Public"], "private, max-age=5"),
            (&["no-store"], "private, no-store"),
            (&["private"], "private"),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            keep_private(&mut headers);
            let all: Vec<_> = headers.get_all(CACHE_CONTROL).iter().collect();
            assert_eq!(all, [becomes]);
        }
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
