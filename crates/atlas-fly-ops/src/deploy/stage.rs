//! Recognises the stage of a deploy in a line of `fly deploy`, by the CLI's words. An unknown line
//! is no stage.

/// The stage of a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The configuration is checked.
    Verify,
    /// The image is being built.
    Build,
    /// The image is being pushed.
    Push,
    /// The release command runs.
    Release,
    /// Machines are being updated; holds the machine that the line names, if any.
    Machines(Option<String>),
    /// A health or smoke check failed.
    CheckFailed,
    /// `fly` shows the URL of the app.
    Deployed,
}

impl Stage {
    /// The stage that a line without colour begins or reports.
    pub(crate) fn of(line: &str) -> Option<Self> {
        let line = line.trim_start();
        let low = line.to_ascii_lowercase();
        let step = low
            .strip_prefix("==> ")
            .or_else(|| low.strip_prefix("--> "));
        if let Some(step) = step {
            let begins = [
                ("verifying app config", Self::Verify),
                ("building image", Self::Build),
                ("pushing image", Self::Push),
            ];
            return begins
                .into_iter()
                .find(|(words, _)| step.starts_with(words))
                .map(|(_, stage)| stage);
        }
        if low.starts_with("visit your newly deployed app at ") {
            return Some(Self::Deployed);
        }
        let failing = ["failed", "timeout", "timed out", "unhealthy", "critical"]
            .iter()
            .any(|word| low.contains(word));
        if failing
            && ["health check", "smoke check"]
                .iter()
                .any(|check| low.contains(check))
        {
            return Some(Self::CheckFailed);
        }
        if low.contains("release_command") {
            return Some(Self::Release);
        }
        let updates = low.starts_with("updating existing machines")
            || low.contains("updating machine")
            || (low.contains("machine ") && low.contains(" update "))
            || (low.starts_with(['[', '>', '✔']) && low.contains("] updating "));
        updates.then(|| Self::Machines(machine_id(line)))
    }
}

/// The first word that looks like a machine's id: 14 hexadecimal digits.
fn machine_id(line: &str) -> Option<String> {
    line.split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| {
            word.len() == 14
                && word
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_deploy_have_their_stages() {
        let id = || Some("6e8294c17d5083".to_owned());
        for (line, stage) in [
            ("==> Verifying app config", Some(Stage::Verify)),
            ("==> Building image", Some(Stage::Build)),
            ("--> Pushing image done", Some(Stage::Push)),
            (
                "Running shop release_command: bin/migrate",
                Some(Stage::Release),
            ),
            (
                "Updating existing machines in 'shop' with rolling strategy",
                Some(Stage::Machines(None)),
            ),
            (
                "> [1/2] Updating 6e8294c17d5083 [app]",
                Some(Stage::Machines(id())),
            ),
            (
                "  Machine 6e8294c17d5083 [app] update finished: success",
                Some(Stage::Machines(id())),
            ),
            (
                "Error: timeout reached waiting for health checks to pass for machine \
                    6e8294c17d5083",
                Some(Stage::CheckFailed),
            ),
            (
                "Smoke checks for 6e8294c17d5083 failed: the app appears to be crashing",
                Some(Stage::CheckFailed),
            ),
            (
                "Visit your newly deployed app at https://shop.fly.dev/",
                Some(Stage::Deployed),
            ),
            ("Waiting for health checks to pass", None),
            ("npm warn update available", None),
            ("", None),
        ] {
            assert_eq!(Stage::of(line), stage, "{line}");
        }
    }
}
