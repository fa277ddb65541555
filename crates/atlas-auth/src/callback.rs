//! Callback tokens: what a machine shows when it reports to the host, bound to its task and kept
//! nowhere.
//!
//! `ac1.EXPIRY.MAC`, where the MAC is over expiry and task. The host verifies with its own secret
//! and the task named in the URL.

use std::fmt;

use atlas_core::{Secret, Timestamp};
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use crate::signed_url::Verdict;

const PREFIX: &str = "ac1.";

/// The host's key of all callback tokens.
#[derive(Clone)]
pub struct CallbackKey(hmac::Key);

impl CallbackKey {
    /// Derived from a secret of the host (the realm's), so that every node and every restart has
    /// the same one.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        Self(crate::derive_key(secret, b"atlas callback v1"))
    }

    /// The token of this task, valid up to and including the second of `expires_at`. Always the
    /// same for the same input.
    #[must_use]
    pub fn mint(&self, task: &str, expires_at: Timestamp) -> Secret {
        let expiry = expires_at.unix_seconds();
        let mac = hmac::sign(&self.0, &message(expiry, task));
        Secret::new(format!(
            "{PREFIX}{expiry}.{}",
            BASE64URL_NOPAD.encode(mac.as_ref())
        ))
    }

    /// Judges a token shown for this task. The signature is looked at first, so that `expired`
    /// means "was once valid".
    #[must_use]
    pub fn verify(&self, task: &str, token: &str, now: Timestamp) -> Verdict {
        let parts = token
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('.'));
        let Some((text, mac)) = parts else {
            return Verdict::Malformed;
        };
        let (Ok(expiry), Ok(mac)) = (text.parse::<i64>(), BASE64URL_NOPAD.decode(mac.as_bytes()))
        else {
            return Verdict::Malformed;
        };
        if expiry.to_string() != text {
            return Verdict::Malformed;
        }
        if hmac::verify(&self.0, &message(expiry, task), &mac).is_err() {
            return Verdict::BadSignature;
        }
        if expiry < now.unix_seconds() {
            Verdict::Expired
        } else {
            Verdict::Ok
        }
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
        let key = CallbackKey::new(&Secret::new("realm"));
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
            CallbackKey::new(&Secret::new("x")).verify("task-1", token.expose(), at(1)),
            Verdict::BadSignature
        );
        assert_eq!(key.verify("task-1", "", at(1)), Verdict::Malformed);
    }

    proptest! {
        #[test]
        fn any_changed_byte_fails_and_nothing_panics(
            task: String, index: prop::sample::Index, to in "[A-Za-z0-9._-]", text: String,
        ) {
            let key = CallbackKey::new(&Secret::new("realm"));
            let token = key.mint(&task, at(100)).expose().to_owned();
            let index = index.index(token.len());
            prop_assume!(token[index..=index] != to);
            let mut changed = token.clone();
            changed.replace_range(index..=index, &to);
            prop_assert!(!key.verify(&task, &changed, at(1)).is_ok());
            prop_assert!(!key.verify(&task, &text, at(1)).is_ok());
        }
    }
}
