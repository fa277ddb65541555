//! The format of a Fly token: a list of macaroons and OAuth tokens, with the scheme of each.

use atlas_core::{Error, Result, Secret};
use serde::Deserialize;

const MACAROONS: [&str; 3] = ["fm1r_", "fm1a_", "fm2_"];
const OAUTH: &str = "fo1_";

/// The `Authorization` scheme of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenScheme {
    /// Macaroons. The log API refuses them as `Bearer`.
    FlyV1,
    /// OAuth and personal access tokens.
    Bearer,
}

/// A credential: one or more parts. `Debug` shows none of it.
///
/// ```
/// use atlas_fly_ops::{FlyToken, TokenScheme};
/// let token = FlyToken::parse("Bearer FlyV1 fm2_a, fm2_b,fo1_c")?;
/// assert_eq!(token.scheme(), TokenScheme::FlyV1);
/// assert_eq!(token.authorization().expose(), "FlyV1 fm2_a,fm2_b");
/// assert_eq!(token.joined().expose(), "fm2_a,fm2_b,fo1_c");
/// # Ok::<(), atlas_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FlyToken {
    macaroons: Option<Secret>,
    others: Option<Secret>,
}

impl FlyToken {
    /// Parses a token in the form of `fly`, its configuration file or a user: leading schemes are
    /// removed, and the parts are split.
    ///
    /// # Errors
    /// `validation` for nothing, or for characters that no token has. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let (mut macaroons, mut others) = (Vec::new(), Vec::new());
        for part in without_schemes(text)
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            if !part.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(Error::validation(
                    "token",
                    "has characters that no fly token has",
                ));
            }
            if is_macaroon(part) {
                macaroons.push(part)
            } else {
                others.push(part)
            }
        }
        if macaroons.is_empty() && others.is_empty() {
            return Err(Error::validation("token", "is empty"));
        }
        let join = |parts: Vec<&str>| (!parts.is_empty()).then(|| Secret::new(parts.join(",")));
        Ok(Self {
            macaroons: join(macaroons),
            others: join(others),
        })
    }

    /// Parses the standard output of `fly tokens create` or `fly auth token`, including preceding
    /// notices.
    ///
    /// # Errors
    /// `validation` where there is no token in it.
    pub fn from_output(stdout: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Json {
            token: Secret,
        }
        let none = || Error::validation("token", "fly wrote none");
        // What comes before and after the document are notices.
        let read = |at: usize| {
            serde_json::Deserializer::from_str(&stdout[at..])
                .into_iter::<Json>()
                .next()?
                .ok()
        };
        let document = stdout.match_indices('{').find_map(|(at, _)| read(at));
        if let Some(json) = document {
            return Self::known(json.token.expose());
        }
        let line = stdout
            .lines()
            .rev()
            .find(|line| is_known(without_schemes(line)));
        Self::known(line.ok_or_else(none)?)
    }

    fn known(text: &str) -> Result<Self> {
        if is_known(without_schemes(text)) {
            Self::parse(text)
        } else {
            Err(Error::validation(
                "token",
                "fly printed something that is not a token",
            ))
        }
    }

    /// The scheme of the token.
    #[must_use]
    pub fn scheme(&self) -> TokenScheme {
        if self.macaroons.is_some() {
            TokenScheme::FlyV1
        } else {
            TokenScheme::Bearer
        }
    }

    /// The complete `Authorization` value. Macaroons are sent alone: other parts would make it
    /// malformed.
    #[must_use]
    pub fn authorization(&self) -> Secret {
        match (&self.macaroons, &self.others) {
            (Some(parts), _) => Secret::new(format!("FlyV1 {}", parts.expose())),
            (None, Some(parts)) => Secret::new(format!("Bearer {}", parts.expose())),
            (None, None) => Secret::new(""),
        }
    }

    /// The part that is sent where there is no scheme: the macaroons, else the rest.
    #[cfg(feature = "nats")]
    pub(crate) fn password(&self) -> Secret {
        self.macaroons
            .as_ref()
            .or(self.others.as_ref())
            .cloned()
            .unwrap_or_else(|| Secret::new(""))
    }

    /// Every part without a scheme, macaroons first: for `FLY_API_TOKEN` and for keeping.
    #[must_use]
    pub fn joined(&self) -> Secret {
        let parts: Vec<&str> = [&self.macaroons, &self.others]
            .into_iter()
            .flatten()
            .map(Secret::expose)
            .collect();
        Secret::new(parts.join(","))
    }
}

fn without_schemes(text: &str) -> &str {
    let mut rest = text.trim();
    loop {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if !word.eq_ignore_ascii_case("bearer") && !word.eq_ignore_ascii_case("flyv1") {
            return rest;
        }
        rest = after.trim();
    }
}

fn is_macaroon(part: &str) -> bool {
    MACAROONS.iter().any(|prefix| part.starts_with(prefix))
}

fn is_known(text: &str) -> bool {
    is_macaroon(text) || text.starts_with(OAUTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_prefix_has_its_scheme() {
        for (text, sent) in [
            ("fo1_x", "Bearer fo1_x"),
            ("fm2_x", "FlyV1 fm2_x"),
            ("fm1r_x", "FlyV1 fm1r_x"),
            ("fm1a_x", "FlyV1 fm1a_x"),
            ("fm3_x", "Bearer fm3_x"),
            ("something-else", "Bearer something-else"),
            ("BEARER flyv1  fm2_x,,", "FlyV1 fm2_x"),
            ("fo1_x,fm2_y", "FlyV1 fm2_y"),
        ] {
            assert_eq!(
                FlyToken::parse(text).unwrap().authorization().expose(),
                sent,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        for text in [
            "",
            "FlyV1 ",
            " , ,",
            "fm2_a b",
            "fm2_a\u{7f}",
            "last_login: 2026",
            "fm2_\r\nx",
        ] {
            let error = FlyToken::parse(text).unwrap_err();
            assert!(
                text.len() < 5 || !error.to_string().contains(text),
                "{text}"
            );
        }
    }

    #[test]
    fn notices_and_errors_of_the_cli_never_become_part_of_a_token() {
        let read = |text| {
            FlyToken::from_output(text)
                .map(|token| token.joined().expose().to_owned())
                .ok()
        };
        assert_eq!(read("FlyV1 fm2_a,fm2_b\n").as_deref(), Some("fm2_a,fm2_b"));
        assert_eq!(
            read("Update available 0.3 -> 0.4\n\nFlyV1 fm2_a\n\n").as_deref(),
            Some("fm2_a")
        );
        assert_eq!(read(r#"{"token":"FlyV1 fm2_a"}"#).as_deref(), Some("fm2_a"));
        for noisy in [
            "Update available 0.3 -> 0.4\n{\"token\": \"FlyV1 fm2_a\"}",
            "warning {odd}\n\n  {\n  \"token\": \"fm2_a\"\n}\nRun `fly version update`\n",
            "{\"level\":\"warn\"}\n{\"token\":\"fm2_a\"}\n",
        ] {
            assert_eq!(read(noisy).as_deref(), Some("fm2_a"), "{noisy}");
        }
        for none in [
            "",
            "Error: org slug must be specified",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"Error: no"}"#,
            "{half",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_part_reaches_debug(text in "\\PC{0,60}",
            part in "[a-zA-Z0-9]{12,40}") {
            let _ = (FlyToken::parse(&text), FlyToken::from_output(&text));
            let token = FlyToken::parse(&format!("fm2_{part},fo1_{part}")).unwrap();
            let printed = format!("{token:?}");
            prop_assert!(!printed.contains(&part), "{}", printed);
        }
    }
}
