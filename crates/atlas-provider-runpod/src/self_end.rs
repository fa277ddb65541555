//! A pod that deletes itself when its command has ended. Pure.
//!
//! RunPod keeps the pod of a finished container, and bills its disks; only a delete ends the bill
//! (docs/clouds/runpod.md, "Life and money"). A pod finds its own id and an API key for itself in
//! its environment, and may delete itself with them.

use atlas_core::ComputeRequest;

use crate::wire::Command;

/// The script that runs in place of the command. The command's words are passed as arguments and
/// are never interpreted by the shell.
///
/// It reports how the command ended, if the machine was given an address for reports, and then
/// deletes the pod until that succeeds: over REST v2 with `curl` or GNU `wget`, and finally with
/// `runpodctl`, which uses an API that has been switched off. After that it waits to be ended,
/// because a container that exits may be restarted.
///
/// Every process of a container can read the arguments of the others, so secrets are passed to
/// `curl` on its standard input and to `wget` in a file that only its owner can read, both written
/// by the shell's builtin `printf`. The `wget` of busybox does not support such a file, and fails.
const SCRIPT: &str = r#""$@"; code=$?
send() { token=$1; shift; printf 'header = "Authorization: Bearer %s"\n' "$token" | curl -fsS -K - "$@"; }
fetch() { token=$1; shift; rc=$(umask 077; mktemp) || return
printf 'header = Authorization: Bearer %s\n' "$token" >"$rc"
wget -qO- --config="$rc" "$@"; ok=$?; rm -f "$rc"; return "$ok"; }
if [ -n "$ATLAS_CALLBACK_URL" ]; then
send "$ATLAS_CALLBACK_TOKEN" -m 10 --retry 5 --data-binary "$code" "$ATLAS_CALLBACK_URL/exit" ||
fetch "$ATLAS_CALLBACK_TOKEN" -T 10 --post-data="$code" "$ATLAS_CALLBACK_URL/exit"
fi >/dev/null 2>&1
pod="https://api.runpod.io/v2/pods/$RUNPOD_POD_ID"
until send "$RUNPOD_API_KEY" -m 30 -X DELETE "$pod" ||
fetch "$RUNPOD_API_KEY" -T 30 --method=DELETE "$pod" ||
runpodctl remove pod "$RUNPOD_POD_ID"
do sleep 15; done >/dev/null 2>&1
sleep 300; exit "$code""#;

/// The shell's name for the script, which precedes the command's words.
const NAME: &str = "atlas-task";

/// The command of a pod's container.
///
/// A command replaces the image's CMD, so an ENTRYPOINT of the image still runs. The script
/// replaces the ENTRYPOINT: as CMD alone it would be passed as arguments to an image such as
/// `vllm/vllm-openai`, which has its own ENTRYPOINT, and would never run.
pub(crate) fn command(request: &ComputeRequest) -> Command {
    let cmd = request.command.clone();
    let entrypoint = if request.ends_with_command && !cmd.is_empty() {
        ["sh", "-c", SCRIPT, NAME].map(str::to_owned).into()
    } else {
        Vec::new()
    };
    Command { entrypoint, cmd }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Output;

    /// A directory with fakes of the tools that a container has. Each records how it was called,
    /// and the contents of its standard input and of the file of `--config`.
    struct Tools(PathBuf);

    impl Tools {
        fn new(name: &str, tools: &[(&str, i32)]) -> Self {
            let dir =
                std::env::temp_dir().join(format!("atlas-self-end-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let here = Self(dir);
            for (tool, code) in tools.iter().chain(&[("sleep", 0)]) {
                here.put(tool, *code);
            }
            here
        }

        fn put(&self, tool: &str, code: i32) {
            use std::os::unix::fs::PermissionsExt;
            let (path, at) = (self.0.join(tool), self.0.display());
            let text = format!(
                "#!/bin/sh\necho \"{tool} $*\" >>'{at}/calls'\n\
                 case \"$*\" in *'-K -'*) cat >>'{at}/read';; esac\n\
                 for word; do case \"$word\" in --config=*) \
                 stat -c %a \"${{word#*=}}\" >>'{at}/modes'; cat \"${{word#*=}}\" >>'{at}/read';; \
                 esac; done\nexit {code}\n"
            );
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }

        /// Runs the container's command like the cloud: ENTRYPOINT and CMD combined, without a
        /// shell.
        fn run(&self, command: &[&str], env: &[(&str, &str)]) -> Output {
            let request = ComputeRequest::cpu(2)
                .image("x")
                .command(command.iter().copied())
                .ends_with_command(true);
            let Command { entrypoint, cmd } = super::command(&request);
            let path = format!("{}:/usr/bin:/bin", self.0.display());
            let mut container = std::process::Command::new(&entrypoint[0]);
            container
                .args(entrypoint[1..].iter().chain(&cmd))
                .env("PATH", path)
                .env("RUNPOD_POD_ID", "p1")
                .env("RUNPOD_API_KEY", "POD-KEY");
            container
                .env_remove("ATLAS_CALLBACK_URL")
                .envs(env.iter().copied())
                .output()
                .unwrap()
        }

        fn noted(&self, what: &str) -> String {
            std::fs::read_to_string(self.0.join(what)).unwrap_or_default()
        }
    }

    impl Drop for Tools {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    const CALLBACK: [(&str, &str); 2] = [
        ("ATLAS_CALLBACK_URL", "https://app.example/cb/s1"),
        ("ATLAS_CALLBACK_TOKEN", "CALLBACK-TOKEN"),
    ];
    const DELETE: &str = "curl -fsS -K - -m 30 -X DELETE https://api.runpod.io/v2/pods/p1\n";
    const WGET: &str = " -T 30 --method=DELETE https://api.runpod.io/v2/pods/p1\n";

    #[test]
    fn hostile_words_reach_the_command_unchanged_and_the_pod_is_deleted_after_it() {
        let tools = Tools::new("hostile", &[("curl", 0)]);
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
        let done = tools.run(&command, &[]);
        let expected: Vec<u8> = words
            .iter()
            .flat_map(|word| [word.as_bytes(), b"\0"].concat())
            .collect();
        assert_eq!(
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&expected)
        );
        assert_eq!(done.status.code(), Some(0));
        assert_eq!(tools.noted("calls"), format!("{DELETE}sleep 300\n"));
    }

    #[test]
    fn a_failed_command_is_reported_and_its_code_kept_and_the_pod_is_deleted_all_the_same() {
        let tools = Tools::new("failed", &[("curl", 0)]);
        let done = tools.run(&["sh", "-c", "exit 3"], &CALLBACK);
        assert_eq!(done.status.code(), Some(3));
        let report =
            "curl -fsS -K - -m 10 --retry 5 --data-binary 3 https://app.example/cb/s1/exit";
        assert_eq!(
            tools.noted("calls"),
            format!("{report}\n{DELETE}sleep 300\n")
        );
    }

    #[test]
    fn the_api_is_tried_with_every_tool_before_runpodctl() {
        let tools = Tools::new("order", &[("curl", 22), ("wget", 4), ("runpodctl", 0)]);
        tools.run(&["true"], &[]);
        let calls = tools.noted("calls");
        let calls: Vec<&str> = calls.lines().collect();
        let [curl, wget, runpodctl, sleep] = calls[..] else {
            panic!("{calls:?}");
        };
        assert_eq!(curl, DELETE.trim_end());
        assert!(wget.starts_with("wget -qO- --config=") && wget.ends_with(WGET.trim_end()));
        assert_eq!((runpodctl, sleep), ("runpodctl remove pod p1", "sleep 300"));
    }

    #[test]
    fn no_secret_is_an_argument_and_each_tool_is_given_it_all_the_same() {
        for (tool, failing) in [("curl", None), ("wget", Some(("curl", 7)))] {
            let mut tools = vec![(tool, 0)];
            tools.extend(failing);
            let tools = Tools::new(&format!("argv-{tool}"), &tools);
            tools.run(&["true"], &CALLBACK);
            let calls = tools.noted("calls");
            assert!(calls.contains(tool), "{calls}");
            for secret in ["CALLBACK-TOKEN", "POD-KEY"] {
                assert!(!calls.contains(secret), "{calls}");
                let read = tools.noted("read");
                assert!(
                    read.contains(&format!("Authorization: Bearer {secret}")),
                    "{read}"
                );
            }
            let modes = tools.noted("modes");
            assert!(modes.lines().all(|mode| mode == "600"), "{modes}");
            assert_eq!(modes.is_empty(), tool == "curl");
        }
    }

    #[test]
    fn a_deletion_that_is_refused_is_tried_again() {
        let tools = Tools::new("again", &[("curl", 22)]);
        let path = tools.0.join("sleep");
        // On the second attempt the cloud accepts it.
        let text = std::fs::read_to_string(&path).unwrap().replace(
            "\nexit 0\n",
            &format!(
                "\nsed -i 's/exit 22/exit 0/' '{}'\n",
                tools.0.join("curl").display()
            ),
        );
        std::fs::write(&path, text).unwrap();
        tools.run(&["true"], &[]);
        let calls = tools.noted("calls");
        assert_eq!(calls, format!("{DELETE}sleep 15\n{DELETE}sleep 300\n"));
    }

    #[test]
    fn a_command_that_is_not_to_end_the_pod_leaves_the_images_entrypoint() {
        let request = ComputeRequest::cpu(2).image("x").command(["sleep", "9"]);
        let plain = command(&request);
        assert_eq!(
            (plain.entrypoint.len(), plain.cmd),
            (0, vec!["sleep".into(), "9".into()])
        );
        assert_eq!(
            command(&ComputeRequest::cpu(2).image("x")),
            Command::default()
        );
    }
}
