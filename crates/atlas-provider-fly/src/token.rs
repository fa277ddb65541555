//! How a Fly token is sent: macaroons as `FlyV1`, anything else as `Bearer`. See
//! docs/clouds/fly.md.

use atlas_core::{Error, ErrorKind, Next, Outcome, Result, Secret};

const MACAROONS: [&str; 3] = ["fm1r_", "fm1a_", "fm2_"];

/// The two schemes. `Bearer FlyV1 …` is malformed, and the log API does not accept a macaroon as
/// `Bearer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    FlyV1,
    Bearer,
}

impl Scheme {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::FlyV1 => "FlyV1",
            Self::Bearer => "Bearer",
        }
    }
}

/// Parses a token into the header's value and its scheme. `text` is what a user, `fly` or its files
/// contain: leading schemes are removed, commas separate tokens, and if there is a macaroon, only
/// macaroons are sent.
pub(crate) fn read(text: &Secret) -> Result<(Scheme, Secret)> {
    let mut rest = text.expose().trim();
    loop {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if !word.eq_ignore_ascii_case("bearer") && !word.eq_ignore_ascii_case("flyv1") {
            break;
        }
        rest = after.trim();
    }
    let parts: Vec<&str> = rest
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    if parts.is_empty()
        || parts
            .iter()
            .any(|part| !part.bytes().all(|b| b.is_ascii_graphic()))
    {
        let error = Error::new(ErrorKind::Unauthorized, "the api key is not a fly token");
        return Err(error.outcome_is(Outcome::NotApplied(Next::Stop)));
    }
    let macaroon = |part: &&str| MACAROONS.iter().any(|prefix| part.starts_with(prefix));
    let macaroons: Vec<&str> = parts.iter().copied().filter(macaroon).collect();
    Ok(if macaroons.is_empty() {
        (Scheme::Bearer, Secret::new(parts.join(",")))
    } else {
        (Scheme::FlyV1, Secret::new(macaroons.join(",")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_form_goes_under_its_scheme() {
        for (text, scheme, sent) in [
            ("fo1_x", Scheme::Bearer, "fo1_x"),
            ("fm2_x", Scheme::FlyV1, "fm2_x"),
            ("FlyV1 fm2_a, fm2_b,", Scheme::FlyV1, "fm2_a,fm2_b"),
            ("Bearer FLYV1 fm1r_x", Scheme::FlyV1, "fm1r_x"),
            ("fo1_x,fm1a_y", Scheme::FlyV1, "fm1a_y"),
            (" sim-key\n", Scheme::Bearer, "sim-key"),
        ] {
            let (under, token) = read(&Secret::new(text)).unwrap();
            assert_eq!((under, token.expose()), (scheme, sent), "{text}");
        }
        for none in ["", "Bearer ", ",", "fm2_a b"] {
            let error = read(&Secret::new(none)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthorized);
            assert!(none.len() < 3 || !error.to_string().contains(none));
        }
    }

    proptest! {
        #[test]
        fn a_long_list_is_never_cut(parts in prop::collection::vec("fm2_[a-zA-Z0-9]{1,400}",
            1..20)) {
            let (scheme, token) = read(&Secret::new(parts.join(","))).unwrap();
            prop_assert_eq!((scheme, token.expose().to_owned()), (Scheme::FlyV1, parts.join(",")));
        }
    }
}
