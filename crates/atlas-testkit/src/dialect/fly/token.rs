//! The token of a call, and its permissions.

use atlas_core::Timestamp;
use http::{HeaderMap, Response, header};
use serde_json::json;

use super::answer::ok;
use super::{Call, Fly, NAME};
use crate::dialect::SimBody;

/// Restrictions of a token, beyond those of its organisation.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Scope {
    /// Only this app; the token cannot see others.
    pub app: Option<String>,
    /// Reading only.
    pub read_only: bool,
    /// Valid until this instant.
    pub expires_at: Option<Timestamp>,
}

impl Scope {
    /// One app, and everything in it.
    #[must_use]
    pub fn app(app: impl Into<String>) -> Self {
        Self {
            app: Some(app.into()),
            ..Self::default()
        }
    }

    /// Everything of the organisation, to read.
    #[must_use]
    pub fn read_only() -> Self {
        Self {
            read_only: true,
            ..Self::default()
        }
    }

    /// Limits the validity to this instant.
    #[must_use]
    pub fn until(self, expires_at: Timestamp) -> Self {
        Self {
            expires_at: Some(expires_at),
            ..self
        }
    }
}

const MACAROONS: [&str; 3] = ["fm1r_", "fm1a_", "fm2_"];

impl Fly {
    /// The valid token in an `Authorization` header. Each scheme accepts only its own kind: `FlyV1`
    /// only macaroons.
    pub(super) fn token(&self, headers: &HeaderMap) -> Option<String> {
        let (scheme, rest) = headers
            .get(header::AUTHORIZATION)?
            .to_str()
            .ok()?
            .trim()
            .split_once(' ')?;
        let only_macaroons = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => false,
            "flyv1" => true,
            _ => return None,
        };
        let strict = self.shared().quirks.strict_scheme;
        let mut rest = rest.trim();
        while let Some((word, after)) = rest.split_once(' ') {
            if !word.eq_ignore_ascii_case("bearer") && !word.eq_ignore_ascii_case("flyv1") {
                break;
            }
            if strict {
                return None;
            }
            rest = after.trim();
        }
        let macaroon = |part: &str| MACAROONS.iter().any(|prefix| part.starts_with(prefix));
        let mut parts = rest
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let found = parts.find(|part| {
            (!only_macaroons || macaroon(part)) && self.world.authorize(NAME, part).is_some()
        })?;
        let expired = self
            .shared()
            .scopes
            .get(found)
            .and_then(|scope| scope.expires_at)
            .is_some_and(|at| at <= self.world.now());
        (!expired).then(|| found.to_owned())
    }

    pub(super) fn current_token(&self, call: &Call<'_>) -> Response<SimBody> {
        let apps: Vec<&String> = call.scope.app.iter().collect();
        ok(&json!({ "tokens": [{
            "token_id": "7b1d0c5e", "org_slug": call.account.as_str(), "organization": "5521",
                "apps": apps,
            "user": "", "restricted_to_machine": "", "source_machine_id": "",
        }] }))
    }
}
