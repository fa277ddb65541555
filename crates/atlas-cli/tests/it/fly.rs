//! `atlas fly`, over a fake `fly` and the simulated log API.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use atlas::testkit::fake_fly::FakeFly;
use serde_json::json;

use crate::program::{Program, Ran, Sim, ran};

/// A program whose `PATH` begins with a fake `fly`.
fn with_fly() -> (Program, FakeFly) {
    let atlas = Program::new();
    let folder = atlas.path().join("bin");
    fs::create_dir(&folder).expect("a folder of its own");
    let fly = FakeFly::new(&folder).expect("a folder that can be written");
    (atlas, fly)
}

fn command(atlas: &Program, fly: &FakeFly, args: &[&str]) -> Command {
    let mut command = atlas.command(args);
    command.env("PATH", format!("{}:/usr/bin:/bin", fly.folder().display()));
    command.env("ATLAS_FLY_ORG", "acme");
    command
}

fn run(atlas: &Program, fly: &FakeFly, args: &[&str]) -> Ran {
    ran(&mut command(atlas, fly, args))
}

#[test]
fn apps_are_one_line_of_json_and_what_was_not_used_is_told_beside_it() {
    let atlas = Program::new();
    for (folder, text) in [
        ("", "app = \"shop\"\n"),
        ("api", "app = 'api'\n"),
        ("bad", "app = oops\n"),
        ("a/b", "app = 'deep'\n"),
    ] {
        let folder = atlas.path().join("p").join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("fly.toml"), text).unwrap();
    }
    let found = atlas.run(&["fly", "apps", "p", "--json"]);
    assert_eq!(
        found.good(),
        json!([
            { "app": "api", "directory": "p/api", "config": "p/api/fly.toml" },
            { "app": "shop", "directory": "p", "config": "p/fly.toml" },
        ])
    );
    assert!(
        found.err.contains("bad/fly.toml") && found.err.contains("line 1"),
        "{found:?}"
    );
    assert_eq!(
        atlas
            .run(&["fly", "apps", "p", "--max-depth", "0", "--json"])
            .good()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        atlas
            .run(&["fly", "apps", "p", "--max-depth", "9", "--json"])
            .good()
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let table = atlas.run(&["fly", "apps", "p"]);
    assert!(
        table.code == 0 && table.out.starts_with("APP") && table.out.contains("p/api/fly.toml"),
        "{table:?}"
    );
    let nowhere = atlas.run(&["fly", "apps", "nowhere", "--json"]);
    assert_eq!(
        (nowhere.good(), nowhere.err.contains("nowhere")),
        (json!([]), true)
    );
}

#[test]
fn a_deploy_shows_its_progress_on_standard_error_and_its_outcome_on_standard_output() {
    let (atlas, fly) = with_fly();
    let done = run(
        &atlas,
        &fly,
        &[
            "fly",
            "deploy",
            "bin",
            "--app",
            "shop",
            "--json",
            "--",
            "--ha=false",
        ],
    );
    let document = done.good();
    assert_eq!(fly.calls(), ["deploy --remote-only --app=shop --ha=false"]);
    assert_eq!(
        (
            &document["deployed"],
            &document["exit_code"],
            &document["error"]
        ),
        (&json!(true), &json!(0), &json!(null))
    );
    let stages = json!([
        "verify",
        "build",
        "push",
        "release",
        "machines",
        "machine 6e8294c17d5083",
        "deployed"
    ]);
    assert_eq!(document["stages"], stages);
    assert!(
        document["output"]
            .as_str()
            .unwrap()
            .contains("==> Building image")
    );
    for expected in ["== build", "| ==> Building image", "! #1 DONE 0.1s"] {
        assert!(done.err.contains(expected), "{expected}: {done:?}");
    }
    let people = run(&atlas, &fly, &["fly", "deploy", "bin", "--quiet"]);
    assert_eq!(
        (people.code, people.out.as_str(), people.err.as_str()),
        (0, "deployed bin\n", "")
    );
}

#[test]
fn a_deploy_that_fails_exits_1_and_one_of_no_folder_2() {
    let (atlas, fly) = with_fly();
    fly.doing("echo so far; echo 'Error: smoke checks failed' >&2; exit 126")
        .unwrap();
    let failed = run(&atlas, &fly, &["fly", "deploy", "bin", "--json"]);
    let document = failed.json();
    assert_eq!(
        (failed.code, &document["deployed"], &document["exit_code"]),
        (1, &json!(false), &json!(126)),
        "{failed:?}"
    );
    assert_eq!(document["stages"], json!(["check failed"]));
    assert!(document["output"].as_str().unwrap().contains("so far\n"));
    fly.doing("echo begun; exec sleep 600").unwrap();
    let silent = run(
        &atlas,
        &fly,
        &["fly", "deploy", "bin", "--activity-timeout", "1s", "--json"],
    );
    assert_eq!(
        (silent.code, &silent.json()["error"]),
        (1, &json!("timeout"))
    );
    assert!(fly.alive().is_empty());
    assert_eq!(run(&atlas, &fly, &["fly", "deploy", "nowhere"]).code, 2);
    let without = atlas
        .command(&["fly", "deploy", "bin"])
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    assert_eq!(without.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&without.stderr).contains("no runnable fly executable"));
}

#[test]
fn ctrl_c_ends_a_deploy_and_all_that_it_started() {
    ended_by("-INT");
}

#[test]
fn a_program_that_is_terminated_or_loses_its_terminal_leaves_no_deploy_behind() {
    ended_by("-TERM");
    ended_by("-HUP");
}

/// Ends a deploy by this signal to the program, once it runs.
#[expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
fn ended_by(name: &str) {
    let (atlas, fly) = with_fly();
    let scenario = r#"trap 'echo released; exit 127' TERM
        sh -c 'echo $$ >> "$FAKE_FLY/pids"; while :; do sleep 0.05; done' & echo ready; forever"#;
    fly.doing(scenario).unwrap();
    let mut child = command(&atlas, &fly, &["fly", "deploy", "bin", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(progress.any(|line| line == "| ready"));
    let interrupted = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    assert!(progress.any(|line| line.starts_with("ending the deploy")));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["error"], "cancelled");
    assert!(
        document["output"].as_str().unwrap().contains("released\n"),
        "it was asked, not killed: {document}"
    );
    // What was killed is gone a moment later.
    for _ in 0..500 {
        if fly.alive().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("left: {:?}", fly.alive());
}

#[test]
fn a_token_is_made_once_shown_only_when_asked_for_and_revoked() {
    let (atlas, fly) = with_fly();
    let atlas_fly = |args: &[&str]| {
        run(
            &atlas,
            &fly,
            &[&["--store", "data/atlas.redb", "fly", "tokens"], args].concat(),
        )
    };
    let first = atlas_fly(&["get", "shop", "--json"]);
    assert_eq!(
        (&first.good()["source"], &first.good()["token"]),
        (&json!("cli"), &json!(null))
    );
    let again = atlas_fly(&["get", "shop", "--json", "--secrets"]);
    assert_eq!(
        (&again.good()["source"], &again.good()["token"]),
        (&json!("store"), &json!("fm2_mint1"))
    );
    let told = atlas_fly(&["get", "shop"]);
    assert!(
        told.out
            .starts_with("shop has a token from store, good until "),
        "{told:?}"
    );
    let renewed = atlas_fly(&["refresh", "shop", "--secrets"]);
    assert_eq!(
        (renewed.code, renewed.out.as_str()),
        (0, "fm2_mint2\n"),
        "{renewed:?}"
    );
    assert_eq!(
        atlas_fly(&["revoke", "shop", "--json"]).good(),
        json!({ "app": "shop", "revoked": 2 })
    );
    assert_eq!(
        atlas_fly(&["revoke", "shop", "--json"]).good()["revoked"],
        0
    );
    let creates: Vec<_> = fly
        .calls()
        .into_iter()
        .filter(|call| call.starts_with("tokens create"))
        .collect();
    assert_eq!(creates.len(), 2, "{creates:?}");
    for ran in [&first, &told] {
        assert!(!format!("{ran:?}").contains("fm2_"), "{ran:?}");
    }
    assert!(atlas.path().join("data/fly-tokens/cached.redb").is_file());
}

#[test]
fn a_token_is_set_from_standard_input_and_used_when_nothing_else_is_there() {
    let (atlas, fly) = with_fly();
    fly.doing("exit 1").unwrap();
    let none = run(&atlas, &fly, &["fly", "tokens", "get", "shop", "--json"]);
    assert!(
        none.code == 1 && none.out.is_empty() && none.err.contains("no fly token"),
        "{none:?}"
    );
    for (text, code) in [("fo1_by_hand\n", 0), ("two words\n", 2), ("", 2)] {
        let mut child = command(&atlas, &fly, &["fly", "tokens", "set", "shop"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(
            !format!("{output:?}").contains("by_hand")
                && !format!("{output:?}").contains("two words"),
            "{output:?}"
        );
    }
    let set = run(
        &atlas,
        &fly,
        &["fly", "tokens", "get", "shop", "--json", "--secrets"],
    );
    assert_eq!(
        (&set.good()["source"], &set.good()["token"]),
        (&json!("manual"), &json!("fo1_by_hand"))
    );
    let bad = run(&atlas, &fly, &["fly", "tokens", "get", "../x"]);
    assert_eq!(bad.code, 2);
}

#[test]
fn logs_come_from_the_simulated_api_as_lines_and_as_json() {
    let sim = Sim::start("1");
    let atlas = Program::on(&sim);
    let logs = |args: &[&str], key: &str| {
        let mut command = atlas.command(&[&["fly", "logs"], args].concat());
        ran(command.env("FLY_API_TOKEN", key).env("PATH", "/nowhere"))
    };
    let page = logs(&["sim-app", "--json"], "sim-key");
    assert_eq!(page.code, 0, "{page:?}");
    let entries: Vec<serde_json::Value> = page
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (entries.len(), &entries[1]["message"]),
        (3, &json!("listening on :8080"))
    );
    let people = logs(&["sim-app", "--region", "fra"], "sim-key");
    assert!(
        people
            .out
            .lines()
            .next()
            .unwrap()
            .ends_with("fra 6e8294c17d5083 [info] Starting machine"),
        "{people:?}"
    );
    assert_eq!(logs(&["sim-app", "--region", "ams"], "sim-key").out, "");
    let mut traced = atlas.command(&["fly", "logs", "sim-app"]);
    let traced = ran(traced
        .env("FLY_API_TOKEN", "sim-key")
        .env("RUST_LOG", "trace")
        .env("NO_COLOR", "1"));
    assert!(
        traced.err.contains("fly.logs.fetch") && traced.err.contains("count=3"),
        "{}",
        traced.err
    );
    assert!(
        !traced.err.contains("sim-key") && !traced.err.contains("listening on"),
        "no token and no line in {}",
        traced.err
    );
    let unknown = logs(&["other-app"], "sim-key");
    assert!(
        unknown.code == 1 && unknown.err.contains("not_found"),
        "{unknown:?}"
    );
    let refused = logs(&["sim-app"], "fo1_wrong");
    assert!(
        refused.code == 1 && !format!("{refused:?}").contains("fo1_wrong"),
        "{refused:?}"
    );
}

#[test]
fn logs_go_on_until_ctrl_c() {
    let sim = Sim::start("1");
    let atlas = Program::on(&sim);
    let mut child = atlas
        .command(&["fly", "logs", "sim-app", "-f", "--json"])
        .env("FLY_API_TOKEN", "sim-key")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line.contains("GET /healthz")));
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn flys_own_login_is_found_where_fly_keeps_it_and_the_environment_goes_before_it() {
    let (atlas, fly) = with_fly();
    let source = |folder: &str, env: &[(&str, &str)]| {
        let mut command = command(&atlas, &fly, &["fly", "tokens", "get", folder, "--json"]);
        let ran = ran(command.envs(env.iter().copied()));
        ran.good()["source"].as_str().unwrap().to_owned()
    };
    for folder in ["home/.fly", "elsewhere"] {
        let folder = atlas.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            folder.join("config.yml"),
            "access_token: fm2_login\nlast_login: 2026-09-20T07:00:12.5+02:00\n",
        )
        .unwrap();
    }
    let home = atlas.path().join("home").display().to_string();
    let elsewhere = atlas.path().join("elsewhere").display().to_string();
    assert_eq!(source("a", &[]), "cli");
    assert_eq!(source("b", &[("HOME", &home)]), "config");
    assert_eq!(source("c", &[("FLY_CONFIG_DIR", &elsewhere)]), "config");
    assert_eq!(
        source(
            "d",
            &[
                ("FLY_CONFIG_DIR", &elsewhere),
                ("FLY_ACCESS_TOKEN", ""),
                ("FLY_API_TOKEN", " ")
            ]
        ),
        "config"
    );
    assert_eq!(
        source(
            "e",
            &[
                ("FLY_CONFIG_DIR", &elsewhere),
                ("FLY_ACCESS_TOKEN", ""),
                ("FLY_API_TOKEN", "fo1_x")
            ]
        ),
        "environment"
    );
    let bad = ran(
        command(&atlas, &fly, &["fly", "tokens", "get", "f"]).env("FLY_API_TOKEN", "two words")
    );
    assert!(
        bad.code == 1 && !format!("{bad:?}").contains("two words"),
        "{bad:?}"
    );
}
