//! Resources of the account as a whole: SSH keys.

use atlas_core::{CallContext, Error, Result};
use serde::Deserialize;
use serde_json::json;

use crate::RunPod;

/// Read strictly: a key that was left out would be deleted by a client that adds one to what was
/// read and stores the result.
#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

impl RunPod {
    /// The public SSH keys that pods started with `startSsh` accept.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn ssh_keys(&self, cx: &CallContext) -> Result<Vec<String>> {
        Ok(self
            .control
            .fetch::<Keys>(cx, "ssh_keys", &["account", "ssh-keys"], &[])
            .await?
            .keys)
    }

    /// Replaces **all** public SSH keys by these; returns the stored ones.
    ///
    /// # Errors
    /// `validation` for a key with more than one line, or of a type that RunPod does not accept. A
    /// dropped call may have replaced them.
    pub async fn set_ssh_keys(&self, cx: &CallContext, keys: &[String]) -> Result<Vec<String>> {
        let plain = |key: &String| {
            let kind = ["ssh-", "ecdsa-", "sk-"]
                .iter()
                .any(|start| key.starts_with(start));
            kind && key.split(' ').count() >= 2 && !key.contains(['\n', '\r'])
        };
        if !keys.iter().all(plain) {
            return Err(Error::validation(
                "keys",
                "each must be one line such as ssh-ed25519 AAAA... comment",
            ));
        }
        Ok(self
            .control
            .replace::<Keys>(
                cx,
                "set_ssh_keys",
                &["account", "ssh-keys"],
                &json!({"keys": keys}),
            )
            .await?
            .keys)
    }
}
