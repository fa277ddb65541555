//! A pod that ends itself once its command has ended. Pure.
//!
//! RunPod keeps the pod of a finished container, and bills its disks; only a delete ends the bill
//! (docs/clouds/runpod.md, "Life and money"). A pod finds its own id and a key for itself in its
//! environment, and may delete itself with them.

use atlas_core::ComputeRequest;

use crate::translate::shell_line;

/// What runs in the place of the command. The command's own words come as arguments and are never
/// read by the shell.
///
/// It says how the command ended where the machine was given somewhere to say it to, then deletes
/// the pod until that is taken: with `runpodctl`, which every pod has, or over REST. After that it
/// waits to be ended, for a container that exits may be started again.
const SCRIPT: &str = r#""$@"; code=$?; \
if [ -n "$ATLAS_CALLBACK_URL" ]; then \
curl -fsS -m 10 --retry 5 -H "Authorization: Bearer $ATLAS_CALLBACK_TOKEN" --data-binary "$code" "$ATLAS_CALLBACK_URL/exit" \
|| wget -qO- -T 10 --header "Authorization: Bearer $ATLAS_CALLBACK_TOKEN" --post-data "$code" "$ATLAS_CALLBACK_URL/exit"; \
fi >/dev/null 2>&1; \
until runpodctl remove pod "$RUNPOD_POD_ID" \
|| curl -fsS -m 30 -X DELETE -H "Authorization: Bearer $RUNPOD_API_KEY" "https://api.runpod.io/v2/pods/$RUNPOD_POD_ID"; \
do sleep 15; done >/dev/null 2>&1; \
sleep 300; exit "$code""#;

/// The shell's name for the script, in front of the command's words.
const NAME: &str = "atlas-task";

/// The arguments of a pod's container, as the one line that RunPod takes; `None` for the image's
/// own.
pub(crate) fn arguments(request: &ComputeRequest) -> Option<String> {
    let command = &request.command;
    if command.is_empty() {
        return None;
    }
    if !request.ends_with_command {
        return Some(shell_line(command));
    }
    let mut words: Vec<String> = ["sh", "-c", &script(), NAME].map(str::to_owned).into();
    words.extend_from_slice(command);
    Some(shell_line(&words))
}

/// On one line: a template's own parser of lines may not take others.
fn script() -> String {
    SCRIPT.replace("\\\n", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    /// Runs the line as the container's entrypoint would, with doubles of `runpodctl` and `curl`
    /// that note how they were called.
    fn run(
        dir: &Path,
        command: &[&str],
        env: &[(&str, &str)],
        runpodctl: &str,
    ) -> (Option<i32>, String, Vec<u8>) {
        use std::os::unix::fs::PermissionsExt;
        let calls = dir.join("calls");
        let tools = [
            (
                "runpodctl",
                format!(
                    "#!/bin/sh\necho \"runpodctl $*\" >>'{0}'\n{runpodctl}\n",
                    calls.display()
                ),
            ),
            (
                "curl",
                format!("#!/bin/sh\necho \"curl $*\" >>'{0}'\n", calls.display()),
            ),
            (
                "sleep",
                format!("#!/bin/sh\necho \"sleep $*\" >>'{0}'\n", calls.display()),
            ),
        ];
        for (name, text) in tools {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let request = ComputeRequest::cpu(2)
            .image("x")
            .command(command.iter().copied())
            .ends_with_command(true);
        let line = arguments(&request).unwrap();
        let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
        // `exec` with the line's words: what the cloud does with them.
        let mut container = Command::new("sh");
        container
            .args(["-c", &format!("exec {line}")])
            .env("PATH", path)
            .env("RUNPOD_POD_ID", "p1")
            .env("RUNPOD_API_KEY", "k1");
        let done = container
            .env_remove("ATLAS_CALLBACK_URL")
            .envs(env.iter().copied())
            .output()
            .unwrap();
        (
            done.status.code(),
            std::fs::read_to_string(calls).unwrap_or_default(),
            done.stdout,
        )
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir =
            std::env::temp_dir().join(format!("atlas-self-end-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn hostile_words_reach_the_command_unchanged_and_the_pod_is_deleted_after_it() {
        let dir = scratch("hostile");
        let words = [
            "",
            "a b",
            "it's",
            "\"$HOME\"",
            "$(exit 9)",
            "`id`",
            "new\nline",
            "; exit 1 #",
            "\\",
            "-n",
            "*",
            "é",
            "$@",
        ];
        let mut command = vec!["printf", "%s\\0"];
        command.extend(words);
        let (code, calls, printed) = run(&dir, &command, &[], "");
        let expected: Vec<u8> = words
            .iter()
            .flat_map(|word| [word.as_bytes(), b"\0"].concat())
            .collect();
        assert_eq!(
            String::from_utf8_lossy(&printed),
            String::from_utf8_lossy(&expected)
        );
        assert_eq!(
            (code, calls.as_str()),
            (Some(0), "runpodctl remove pod p1\nsleep 300\n")
        );
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_failed_command_is_reported_and_its_code_kept_and_the_pod_is_deleted_all_the_same() {
        let dir = scratch("failed");
        let callback = [
            ("ATLAS_CALLBACK_URL", "https://app.example/cb/s1"),
            ("ATLAS_CALLBACK_TOKEN", "t1"),
        ];
        let (code, calls, _) = run(&dir, &["sh", "-c", "exit 3"], &callback, "");
        assert_eq!(code, Some(3));
        let report = "curl -fsS -m 10 --retry 5 -H Authorization: Bearer t1 --data-binary 3 https://app.example/cb/s1/exit";
        assert_eq!(
            calls,
            format!("{report}\nrunpodctl remove pod p1\nsleep 300\n")
        );
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_pod_without_the_tool_deletes_itself_over_rest() {
        let dir = scratch("rest");
        let (_, calls, _) = run(&dir, &["true"], &[], "exit 127");
        let delete = "curl -fsS -m 30 -X DELETE -H Authorization: Bearer k1 https://api.runpod.io/v2/pods/p1";
        assert_eq!(
            calls,
            format!("runpodctl remove pod p1\n{delete}\nsleep 300\n")
        );
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_command_that_is_not_to_end_the_pod_is_left_as_it_is() {
        let request = ComputeRequest::cpu(2).image("x").command(["sleep", "9"]);
        assert_eq!(arguments(&request).as_deref(), Some("sleep 9"));
        assert_eq!(arguments(&ComputeRequest::cpu(2).image("x")), None);
        assert!(!script().contains('\n'));
    }
}
