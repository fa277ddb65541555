//! Verifies requests: finds the credentials in a request, and removes them from it.

use std::net::IpAddr;
use std::sync::Arc;

use atlas_core::{Clock, Error, Result, Secret};
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, REFERER};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Uri};

use crate::grant::{self, Grant, GrantKey, Revoked};
use crate::signed_url::{Format, Key, Target, atlas, compatible, query};
use crate::token;

/// The verified sender of a request. The layers put it into the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// The holder of the session's bearer token.
    Bearer,
    /// The holder of a signed URL.
    SignedUrl(Format),
    /// The holder of this grant, which permits this request.
    Grant(Grant),
}

/// The address of the client, for signatures bound to one. Put it into the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The methods for which a URL of the compatible format is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Methods {
    Reading,
    Any,
}

/// The accepted credentials. Nothing is accepted until one is added.
#[derive(Clone, Debug)]
#[must_use]
pub struct Verifier {
    clock: Arc<dyn Clock>,
    bearers: Vec<token::Hash>,
    urls: Vec<Key>,
    compatible: bool,
    compatible_methods: Methods,
    grants: Vec<GrantKey>,
    revoked: Arc<Revoked>,
    host: Option<String>,
}

impl Verifier {
    /// A verifier that accepts nothing yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let revoked = Arc::default();
        Self {
            clock,
            bearers: vec![],
            urls: vec![],
            compatible: true,
            compatible_methods: Methods::Reading,
            grants: vec![],
            revoked,
            host: None,
        }
    }

    /// Accepts this bearer token, in addition to those already added.
    ///
    /// # Errors
    /// `validation` for a token of fewer than [`crate::MIN_SECRET_BYTES`] bytes.
    pub fn bearer(mut self, token: &Secret) -> Result<Self> {
        crate::check_length(token)?;
        self.bearers.push(token::Hash::of(token));
        Ok(self)
    }

    /// Accepts the bearer token with this hash.
    ///
    /// # Errors
    /// `validation` when it is not an output of [`token::hash`].
    pub fn bearer_hash(mut self, hash: &str) -> Result<Self> {
        let hash = token::Hash::parse(hash)
            .ok_or_else(|| Error::validation("hash", "must be 64 lower-case hex digits"))?;
        self.bearers.push(hash);
        Ok(self)
    }

    /// Accepts URLs signed with this secret, in addition to those already added: the old and the
    /// new one during a rotation.
    ///
    /// # Errors
    /// `validation` for a secret of fewer than [`crate::MIN_SECRET_BYTES`] bytes.
    pub fn signed_url(self, secret: &Secret) -> Result<Self> {
        Ok(self.url_key(Key::new(secret)?))
    }

    /// Accepts URLs signed with this key.
    pub fn url_key(mut self, key: Key) -> Self {
        self.urls.push(key);
        self
    }

    /// Accepts URLs of the compatible format for every method. They are not bound to a method, so
    /// by default they permit only `GET` (also of a WebSocket) and `HEAD`.
    pub fn compatible_for_any_method(self) -> Self {
        Self {
            compatible_methods: Methods::Any,
            ..self
        }
    }

    /// Accepts only URLs of the atlas format. The compatible format binds neither host nor method.
    pub fn atlas_format_only(self) -> Self {
        Self {
            compatible: false,
            ..self
        }
    }

    /// Accepts grants of this session's credential, where their scope permits the request.
    ///
    /// # Errors
    /// `validation` for a credential of fewer than [`crate::MIN_SECRET_BYTES`] bytes.
    pub fn grants(self, credential: &Secret) -> Result<Self> {
        Ok(self.grant_key(GrantKey::new(credential)?))
    }

    /// Accepts grants of this key, where their scope permits the request.
    pub fn grant_key(mut self, key: GrantKey) -> Self {
        self.grants.push(key);
        self
    }

    /// Sets the list of revoked grants.
    pub fn revoked(self, revoked: Arc<Revoked>) -> Self {
        Self { revoked, ..self }
    }

    /// Sets the host for which URLs are signed, if a proxy in front rewrites `Host`.
    pub fn host(self, host: impl Into<String>) -> Self {
        Self {
            host: Some(host.into()),
            ..self
        }
    }

    /// The verified sender of this request; `None` when it has no valid credential. If it has
    /// several credentials, one valid one is enough.
    #[must_use]
    pub fn check<B>(&self, request: &Request<B>) -> Option<Principal> {
        let client = request
            .extensions()
            .get::<ClientAddress>()
            .map(|client| client.0);
        self.check_parts(request.method(), request.uri(), request.headers(), client)
    }

    /// The same, for a request in parts.
    #[must_use]
    pub fn check_parts(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        client: Option<IpAddr>,
    ) -> Option<Principal> {
        // RFC 8441: instead of GET with Upgrade in HTTP/1, HTTP/2 uses CONNECT with :protocol,
        // which has a path.
        let method = if *method == Method::CONNECT && uri.path().starts_with('/') {
            "GET"
        } else {
            method.as_str()
        };
        if let Some(shown) = token::from_headers(headers) {
            if self.bearers.iter().any(|hash| hash.matches(shown)) {
                return Some(Principal::Bearer);
            }
            if let Some(grant) = self.grant(shown, method, uri.path()) {
                return Some(Principal::Grant(grant));
            }
        }
        let shown =
            parameters(uri).find_map(|pair| pair.strip_prefix(grant::PARAMETER)?.strip_prefix('='));
        if let Some(grant) = shown.and_then(|shown| self.grant(shown, method, uri.path())) {
            return Some(Principal::Grant(grant));
        }
        self.url(method, uri, headers, client)
    }

    fn grant(&self, shown: &str, method: &str, path: &str) -> Option<Grant> {
        if !shown.starts_with(grant::PREFIX) {
            return None;
        }
        let now = self.clock.now();
        let grant = self
            .grants
            .iter()
            .find_map(|key| key.verify(shown, now).ok())?;
        (grant.scope().allows(method, path) && !self.revoked.contains(grant.id())).then_some(grant)
    }

    fn url(
        &self,
        method: &str,
        uri: &Uri,
        headers: &HeaderMap,
        client: Option<IpAddr>,
    ) -> Option<Principal> {
        let path_and_query = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let host = match &self.host {
            Some(host) => host.as_str(),
            None => uri
                .authority()
                .map(http::uri::Authority::as_str)
                .or_else(|| headers.get(HOST)?.to_str().ok())?,
        };
        let target = Target::new(method, host, path_and_query);
        let now = self.clock.now();
        if target.is_signed() {
            let target = client.map_or(target, |client| target.client(client));
            return atlas::verify(&target, &self.urls, now)
                .is_ok()
                .then_some(Principal::SignedUrl(Format::Atlas));
        }
        let reads = matches!(method, "GET" | "HEAD");
        let good = self.compatible
            && (reads || self.compatible_methods == Methods::Any)
            && self
                .urls
                .iter()
                .any(|key| compatible::verify(path_and_query, key, now).is_ok());
        good.then_some(Principal::SignedUrl(Format::Compatible))
    }

    /// Removes every credential of ours from a request, so that the server behind never sees one;
    /// also from the `Referer`, in which a browser repeats the signed URL of the page. Everything
    /// else (another `Authorization`, other parameters) is unchanged, byte for byte.
    pub fn strip(&self, uri: &mut Uri, headers: &mut HeaderMap) {
        rewrite(headers, &AUTHORIZATION, |value| {
            let shown = value.to_str().ok().and_then(token::from_header);
            let ours = |shown: &str| {
                shown.starts_with(grant::PREFIX)
                    || self.bearers.iter().any(|hash| hash.matches(shown))
            };
            if shown.is_some_and(ours) {
                Kept::Nothing
            } else {
                Kept::All
            }
        });
        rewrite(headers, &REFERER, |value| {
            let Ok(text) = value.to_str() else {
                return Kept::Nothing;
            };
            let Some((page, query)) = text.split_once('?') else {
                return Kept::All;
            };
            match self.without_ours(query) {
                None => Kept::All,
                Some(query) => {
                    HeaderValue::from_str(&joined(page, &query)).map_or(Kept::Nothing, Kept::Rest)
                }
            }
        });
        let Some(query) = self.without_ours(uri.query().unwrap_or_default()) else {
            return;
        };
        let mut parts = uri.clone().into_parts();
        // A valid path and query remains valid when parameters are removed.
        parts.path_and_query = joined(uri.path(), &query).parse().ok();
        if let Ok(stripped) = Uri::from_parts(parts) {
            *uri = stripped;
        }
    }

    /// A query without our parameters; `None` when it has none.
    fn without_ours(&self, query: &str) -> Option<String> {
        let compatible = self.compatible && !self.urls.is_empty() && is_compatible(query);
        let keep = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or(pair);
            let signs =
                || query::pairs(name).any(|(name, _)| matches!(name.as_ref(), b"exp" | b"sig"));
            !(name == atlas::PARAMETER || name == grant::PARAMETER || compatible && signs())
        };
        let all = query.split('&');
        if all.clone().all(|pair| keep(&pair)) {
            return None;
        }
        Some(all.filter(keep).collect::<Vec<_>>().join("&"))
    }
}

/// What remains of a header's value.
enum Kept {
    All,
    Rest(HeaderValue),
    Nothing,
}

/// Rewrites each value of a header. Nothing is changed if all of them remain.
fn rewrite(headers: &mut HeaderMap, name: &HeaderName, keep: impl Fn(&HeaderValue) -> Kept) {
    let kept: Vec<Kept> = headers.get_all(name).iter().map(keep).collect();
    if kept.iter().all(|kept| matches!(kept, Kept::All)) {
        return;
    }
    let before: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    for (value, kept) in before.into_iter().zip(kept) {
        let value = match kept {
            Kept::All => value,
            Kept::Rest(rest) => rest,
            Kept::Nothing => continue,
        };
        headers.append(name, value);
    }
}

fn joined(path: &str, query: &str) -> String {
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

fn parameters(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().into_iter().flat_map(|query| query.split('&'))
}

fn is_compatible(query: &str) -> bool {
    let has = |wanted: &[u8]| query::pairs(query).any(|(name, _)| name.as_ref() == wanted);
    has(b"exp") && has(b"sig")
}

#[cfg(test)]
mod tests;
