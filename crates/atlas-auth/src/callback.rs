//! Callback tokens: a machine presents one when it reports to the host. They are bound to a task
//! and are not stored.
//!
//! The host mints one for the task, `ac1.EXPIRY.MAC`, where the MAC is over expiry and task. The
//! machine's token is bound to its attempt as well: `ac2.EXPIRY.ATTEMPT.MAC`, where the MAC is over
//! the attempt with the first MAC as key. A holder of the task's token can therefore bind it
//! without the host's secret, which a respawn after a restart does not have, and a machine cannot
//! remove the binding of its own. The host verifies with its own secret and the task named in the
//! URL.

use std::fmt;

use atlas_core::{Result, Secret, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use crate::signed_url::Verdict;

const PREFIX: &str = "ac1.";
const BOUND_PREFIX: &str = "ac2.";
/// The environment variable that holds the machine's callback token.
pub const TOKEN_ENV: &str = "ATLAS_CALLBACK_TOKEN";

/// Derives the token of this attempt from the task's token. `None` when `token` is not a task's
/// token, or `attempt` contains anything but letters and digits.
#[must_use]
pub fn bind(token: &Secret, attempt: &str) -> Option<Secret> {
    let (expiry, mac) = token.expose().strip_prefix(PREFIX)?.split_once('.')?;
    let mac = BASE64URL_NOPAD.decode(mac.as_bytes()).ok()?;
    if !is_plain(attempt) {
        return None;
    }
    let bound = BASE64URL_NOPAD.encode(bound_mac(&mac, attempt).as_ref());
    Some(Secret::new(format!(
        "{BOUND_PREFIX}{expiry}.{attempt}.{bound}"
    )))
}

fn is_plain(attempt: &str) -> bool {
    !attempt.is_empty() && attempt.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn bound_mac(task_mac: &[u8], attempt: &str) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, task_mac);
    hmac::sign(&key, attempt.as_bytes())
}

/// The sender that a valid token identifies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reporter {
    /// The machine of this attempt.
    Attempt(String),
    /// Any machine of the task: the token is older than tokens that name attempts, or the host
    /// passed the minted token on without binding it.
    Task,
}

/// The host's key for all callback tokens.
#[derive(Clone)]
pub struct CallbackKey(hmac::Key);

impl CallbackKey {
    /// Derived from a secret of the host (the realm's), so that it is the same on every node and
    /// after every restart.
    ///
    /// # Panics
    /// When the secret has fewer than [`crate::MIN_SECRET_BYTES`] bytes, because tokens could be
    /// forged. [`CallbackKey::try_new`] returns an error instead.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        Self::try_new(secret).expect("the secret of callback tokens has at least 16 bytes")
    }

    /// Like [`CallbackKey::new`], for a secret that comes from outside.
    ///
    /// # Errors
    /// `validation` for a secret of fewer than [`crate::MIN_SECRET_BYTES`] bytes.
    pub fn try_new(secret: &Secret) -> Result<Self> {
        crate::check_length(secret)?;
        Ok(Self(crate::derive_key(secret, b"atlas callback v1")))
    }

    /// The token of this task, to be bound to an attempt by [`bind`]. Valid up to and including the
    /// second `expires_at`. Always the same for the same input.
    #[must_use]
    pub fn mint(&self, task: &str, expires_at: Timestamp) -> Secret {
        let expiry = expires_at.unix_seconds();
        let mac = hmac::sign(&self.0, &message(expiry, task));
        Secret::new(format!(
            "{PREFIX}{expiry}.{}",
            BASE64URL_NOPAD.encode(mac.as_ref())
        ))
    }

    /// Verifies a token for this task, bound to an attempt or not. The signature is checked first,
    /// so that `expired` means "was once valid".
    #[must_use]
    pub fn verify(&self, task: &str, token: &str, now: Timestamp) -> Verdict {
        self.reporter(task, token, now).err().unwrap_or(Verdict::Ok)
    }

    /// Like [`CallbackKey::verify`], and returns the sender.
    ///
    /// # Errors
    /// Any verdict other than [`Verdict::Ok`].
    pub fn reporter(
        &self,
        task: &str,
        token: &str,
        now: Timestamp,
    ) -> std::result::Result<Reporter, Verdict> {
        let (text, attempt, mac) = match token.strip_prefix(BOUND_PREFIX) {
            Some(rest) => {
                let (text, rest) = rest.split_once('.').ok_or(Verdict::Malformed)?;
                let (attempt, mac) = rest.split_once('.').ok_or(Verdict::Malformed)?;
                (text, Some(attempt), mac)
            }
            None => {
                let rest = token.strip_prefix(PREFIX).ok_or(Verdict::Malformed)?;
                let (text, mac) = rest.split_once('.').ok_or(Verdict::Malformed)?;
                (text, None, mac)
            }
        };
        let (Ok(expiry), Ok(mac)) = (text.parse::<i64>(), BASE64URL_NOPAD.decode(mac.as_bytes()))
        else {
            return Err(Verdict::Malformed);
        };
        if expiry.to_string() != text || attempt.is_some_and(|attempt| !is_plain(attempt)) {
            return Err(Verdict::Malformed);
        }
        let task_mac = hmac::sign(&self.0, &message(expiry, task));
        let good = match attempt {
            Some(attempt) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, task_mac.as_ref());
                hmac::verify(&key, attempt.as_bytes(), &mac)
            }
            None => hmac::verify(&self.0, &message(expiry, task), &mac),
        };
        good.map_err(|_| Verdict::BadSignature)?;
        if expiry < now.unix_seconds() {
            return Err(Verdict::Expired);
        }
        Ok(attempt.map_or(Reporter::Task, |attempt| {
            Reporter::Attempt(attempt.to_owned())
        }))
    }
}

impl fmt::Debug for CallbackKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallbackKey(..)")
    }
}

fn message(expiry: i64, task: &str) -> Vec<u8> {
    [&expiry.to_be_bytes()[..], task.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn a_callback_token_is_valid_for_its_task_and_time_only() {
        let key = CallbackKey::new(&Secret::new("the realm's secret"));
        let token = key.mint("task-1", at(100));
        assert_eq!(key.verify("task-1", token.expose(), at(100)), Verdict::Ok);
        assert_eq!(
            key.verify("task-1", token.expose(), at(101)),
            Verdict::Expired
        );
        assert_eq!(
            key.verify("task-2", token.expose(), at(100)),
            Verdict::BadSignature
        );
        assert_eq!(
            CallbackKey::new(&Secret::new("another realm's secret")).verify(
                "task-1",
                token.expose(),
                at(1)
            ),
            Verdict::BadSignature
        );
        assert_eq!(key.verify("task-1", "", at(1)), Verdict::Malformed);
    }

    #[test]
    fn a_bound_token_is_of_its_attempt_and_cannot_be_unbound_or_bound_again() {
        let key = CallbackKey::new(&Secret::new("the realm's secret"));
        let token = key.mint("task-1", at(100));
        let bound = bind(&token, "attempt1").unwrap();
        let reporter = |task, token: &str| key.reporter(task, token, at(100));
        let attempt = Reporter::Attempt("attempt1".to_owned());
        assert_eq!(reporter("task-1", bound.expose()), Ok(attempt));
        assert_eq!(reporter("task-1", token.expose()), Ok(Reporter::Task));
        assert_eq!(
            key.verify("task-1", bound.expose(), at(101)),
            Verdict::Expired
        );
        assert_eq!(
            reporter("task-2", bound.expose()),
            Err(Verdict::BadSignature)
        );
        let other = bound.expose().replace("attempt1", "attempt2");
        assert_eq!(reporter("task-1", &other), Err(Verdict::BadSignature));
        let (_, mac) = bound.expose().rsplit_once('.').unwrap();
        let unbound = format!("ac1.100.{mac}");
        assert_eq!(reporter("task-1", &unbound), Err(Verdict::BadSignature));
        assert!(bind(&bound, "attempt2").is_none());
        assert!(bind(&token, "").is_none() && bind(&token, "a.b").is_none());
    }

    #[test]
    fn a_secret_that_can_be_guessed_makes_no_callback_key() {
        for short in ["", "fifteen-bytes-x"] {
            assert!(CallbackKey::try_new(&Secret::new(short)).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_changed_byte_fails_and_nothing_panics(
            task: String, index: prop::sample::Index, to in "[A-Za-z0-9._-]", text: String,
        ) {
            let key = CallbackKey::new(&Secret::new("the realm's secret"));
            let token = key.mint(&task, at(100)).expose().to_owned();
            let index = index.index(token.len());
            prop_assume!(token[index..=index] != to);
            let mut changed = token.clone();
            changed.replace_range(index..=index, &to);
            prop_assert!(!key.verify(&task, &changed, at(1)).is_ok());
            prop_assert!(!key.verify(&task, &text, at(1)).is_ok());
            let bound = format!("ac2.{text}");
            prop_assert!(!key.verify(&task, &bound, at(1)).is_ok());
        }
    }
}
