//! Sessions from the command line, over a simulated RunPod.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Program, Sim};

const SPAWN: [&str; 10] = [
    "spawn",
    "--gpu",
    "h100",
    "--image",
    "x/y:1",
    "--port",
    "8000/http",
    "--auth",
    "bearer",
    "--json",
];

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

#[test]
fn a_session_lives_over_many_processes_and_is_given_back() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let spawned = atlas.run(&[&SPAWN[..], &["--user", "u1", "--wait-ready"]].concat());
    assert!(
        spawned
            .err
            .contains("waiting for an answer to GET / on port 8000"),
        "{}",
        spawned.err
    );
    let made = spawned.good();
    assert_eq!(made["options"]["probe"]["path"], "/");
    let (session, token) = (
        text(&made["session"]),
        text(&made["compute"]["auth"]["token"]),
    );
    assert_eq!(
        (&made["state"], &made["options"]["max_runtime_ms"]),
        (&"ready".into(), &86_400_000.into())
    );
    assert_eq!(made["compute"]["auth"]["header"], format!("Bearer {token}"));
    assert!(text(&made["compute"]["ports"][0]["url"]).starts_with("http://127.0.0.1:"));

    let all = atlas.run(&["ls", "--json"]).good();
    assert_eq!(
        (all.as_array().unwrap().len(), &all[0]["compute"]["id"]),
        (1, &made["compute"]["id"])
    );
    assert_eq!(
        atlas.run(&["ls", "--user", "u2", "--json"]).good(),
        Value::Array(vec![])
    );
    let shown = atlas.run(&["show", &session, "--json"]);
    assert!(
        !shown.out.contains(&token),
        "show without --secrets shows the token"
    );
    assert_eq!(
        atlas.run(&["show", &session, "--secrets", "--json"]).good()["compute"]["auth"]["token"],
        token
    );
    assert_eq!(
        atlas.run(&["touch", &session, "--json"]).good()["touch"],
        "recorded"
    );
    let stop = atlas.run(&["stop", &text(&made["compute"]["id"])]);
    assert!(
        stop.code == 1 && stop.err.contains(&format!("atlas rm {session}")),
        "{stop:?}"
    );

    assert_eq!(
        atlas.run(&["rm", &session, "--wait", "--json"]).good()["state"],
        "terminated"
    );
    assert_eq!(atlas.run(&["ls", "--json"]).good(), Value::Array(vec![]));
    assert_eq!(
        atlas.run(&["ls", "--all", "--json"]).good()[0]["state"],
        "terminated"
    );
    let touched = atlas.run(&["touch", &session, "--json"]);
    assert_eq!(
        (touched.code, &touched.json()["touch"]),
        (1, &"ended".into())
    );

    let events = atlas.run(&["events", &session, "--since", "0", "--json"]);
    let places: Vec<u64> = events
        .out
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["seq"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert!(
        places.len() > 4 && places.iter().zip(1..).all(|(seq, at)| *seq == at),
        "{places:?}"
    );
    assert!(
        events
            .out
            .lines()
            .last()
            .unwrap()
            .contains("\"terminated\""),
        "{}",
        events.out
    );
}

#[test]
fn a_create_that_commits_and_answers_500_leaves_one_machine_that_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let faults =
        r#"[{"cloud":"runpod","operation":"spawn_compute","kind":"commit-then-500","count":1}]"#;
    std::fs::write(dir.path().join("faults.json"), faults).unwrap();
    let sim = Sim::with(&["--speed", "120", "--faults", "faults.json"], dir.path());
    let atlas = Program::on(&sim);
    let made = atlas.run(&SPAWN).good();
    let audit = atlas.run(&["audit", "--json"]).good();
    let machines = audit["accounts"]["runpod"]["machines"].as_array().unwrap();
    assert_eq!(
        (machines.len(), &machines[0]["id"], &machines[0]["whose"]),
        (1, &made["compute"]["id"], &"session".into())
    );
}

#[test]
fn verbs_work_while_another_process_holds_the_store() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let made = atlas.run(&SPAWN).good();
    let session = text(&made["session"]);
    let mut holder = atlas
        .command(&["events", &session, "-f", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"created\""));

    assert_eq!(atlas.run(&["ls", "--json"]).good()[0]["session"], session);
    let second = atlas.run(&SPAWN).good();
    assert_ne!(second["session"], session);
    assert_eq!(
        atlas.run(&["rm", &session, "--json"]).good()["state"],
        "terminating"
    );
    assert!(
        lines.any(|line| line.unwrap().contains("\"terminating\"")),
        "the follower was told of the end"
    );
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(
        atlas
            .run(&["show", &text(&second["session"]), "--json"])
            .good()["session"],
        second["session"],
        "after a SIGKILL"
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_waiting_and_lets_go_of_the_store() {
    let atlas = Program::new();
    let args = [
        "--store",
        "a.redb",
        "run",
        "--provider",
        "mock",
        "--image",
        "x",
        "--",
        "sleep",
        "600",
    ];
    let mut waiting = atlas.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let line = told
        .find(|line| line.as_ref().unwrap().contains("ordering"))
        .unwrap()
        .unwrap();
    let session = line.split([' ', ':']).nth(1).unwrap().to_owned();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &waiting.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let status = waiting.wait().unwrap();
    let last: Vec<String> = told.map(Result::unwrap).collect();
    assert!(
        status.code() == Some(1) && last.iter().any(|line| line.contains("atlas ls")),
        "{status} {last:?}"
    );
    let all = atlas
        .run(&[
            "--store",
            "a.redb",
            "--provider",
            "mock",
            "ls",
            "--all",
            "--json",
        ])
        .good();
    assert_eq!(all[0]["session"], session, "what was begun is on record");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_rented() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    for (args, code, word) in [
        (&["spawn", "--image", "x", "--json"][..], 2, "--gpu"),
        (&["spawn", "--gpu", "h999", "--image", "x"], 2, "h999"),
        (
            &["spawn", "--gpu", "h100", "--image", "x", "--port", "0/http"],
            2,
            "port",
        ),
        (
            &["spawn", "--gpu", "h100", "--image", "x", "--env", "hunter2"],
            2,
            "number 1",
        ),
        (
            &["spawn", "--gpu", "h100", "--image", "x", "--spot"],
            1,
            "spot",
        ),
        (
            &[
                "spawn",
                "--gpu",
                "h100",
                "--image",
                "x",
                "--provider",
                "nowhere",
            ],
            2,
            "nowhere",
        ),
        (
            &["spawn", "--gpu", "h100", "--image", "ghcr.io/Me/infer:1"],
            2,
            "lower case",
        ),
        (
            &[
                "spawn", "--gpu", "h100", "--image", "x", "--probe", "http:80",
            ],
            2,
            "--port 80",
        ),
        (&["rm", "not-a-session"], 2, "session"),
        (&["show", "00000000000000000000000000"], 1, "not_found"),
    ] {
        let wrong = atlas.run(args);
        assert_eq!(
            (wrong.code, wrong.out.as_str()),
            (code, ""),
            "{args:?}: {wrong:?}"
        );
        assert!(
            wrong.err.contains(word) && !wrong.err.contains("hunter2"),
            "{args:?}: {}",
            wrong.err
        );
    }
    assert_eq!(
        atlas.run(&["audit", "--json"]).good()["accounts"]["runpod"]["machines"],
        Value::Array(vec![])
    );
}

#[test]
fn a_key_that_is_wrong_is_named_by_its_origin_and_never_shown() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let mut command = atlas.command(&SPAWN);
    let refused = crate::program::ran(
        command
            .env("RUNPOD_API_KEY", "zz-canary")
            .env("RUST_LOG", "trace"),
    );
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains("unauthorized") && !refused.err.contains("zz-canary"),
        "{}",
        refused.err
    );
}

#[test]
fn traces_show_spans_and_no_secret() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let mut command = atlas.command(&[&SPAWN[..], &["--env", "CANARY=zzCANARYzz"]].concat());
    let made = crate::program::ran(command.env("RUST_LOG", "trace"));
    let token = text(&made.good()["compute"]["auth"]["token"]);
    assert!(
        made.err.lines().count() > 3 && made.err.contains("spawn_compute"),
        "{}",
        made.err
    );
    for secret in ["zzCANARYzz", "sim-key", &token] {
        assert!(!made.err.contains(secret), "{secret} in {}", made.err);
    }
}

#[test]
fn the_operator_sees_what_is_there() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let doctor = atlas.run(&["doctor", "--json"]).good();
    assert_eq!(
        (&doctor["hold"], &doctor["accounts"]["runpod"]["answers"]),
        (&Value::Null, &true.into())
    );
    atlas
        .run(&["doctor", "--accept-account", "runpod", "--json"])
        .good();
    assert_ne!(
        atlas
            .run(&["doctor", "--accept-account", "nobody", "--json"])
            .code,
        0
    );
    let reaped = atlas.run(&["reap", "--dry-run", "--json"]).good();
    assert_eq!(
        reaped["accounts"]["runpod"]["victims"],
        Value::Array(vec![])
    );
    let gpus = atlas.run(&["gpus", "--json"]).good();
    assert!(
        gpus.as_array()
            .unwrap()
            .iter()
            .any(|gpu| gpu["gpu"] == "h100_sxm" && gpu["price"].is_string()),
        "{gpus}"
    );
    let table = atlas.run(&["gpus"]);
    assert!(
        table.out.starts_with("GPU ") && !table.out.contains('\u{1b}'),
        "no colour where nobody looks: {}",
        table.out
    );
}

#[test]
fn an_audit_shows_volumes_and_says_what_it_could_not_see() {
    use std::io::{Read as _, Write as _};

    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let body = r#"{"name":"old-data","size":100,"dataCenter":"EU-RO-1"}"#;
    let url = atlas.variable("ATLAS_RUNPOD_URL");
    let host = url.strip_prefix("http://").unwrap();
    let mut cloud = std::net::TcpStream::connect(host).unwrap();
    write!(
        cloud,
        "POST /v2/network-volumes HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer sim-key\r\n\
         user-agent: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: \
             close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut made = String::new();
    cloud.read_to_string(&mut made).unwrap();
    assert!(made.starts_with("HTTP/1.1 20"), "{made}");

    let audit = atlas.run(&["audit"]);
    assert_eq!(audit.code, 0, "{audit:?}");
    let volume = audit.out.lines().find(|line| line.contains("old-data"));
    assert!(
        volume.is_some_and(|line| line.starts_with("runpod ") && line.contains(" 100 ")),
        "{}",
        audit.out
    );
    assert!(
        audit
            .out
            .contains("unknown: runpod: the price of 1 volumes"),
        "{}",
        audit.out
    );
    let whole = atlas.run(&["audit", "--json"]).good();
    assert_eq!(whole["complete"], true);

    let blind = crate::program::ran(
        atlas
            .command(&["audit", "--json"])
            .env("RUNPOD_API_KEY", "zz-canary"),
    );
    assert_eq!(
        (blind.code, &blind.json()["complete"]),
        (1, &false.into()),
        "{blind:?}"
    );
    assert!(
        blind.err.contains("the audit is incomplete: runpod"),
        "{}",
        blind.err
    );
}

#[test]
fn spawns_that_start_together_on_a_fresh_store_all_have_a_session() {
    let sim = Sim::start("60");
    let atlas = Program::on(&sim);
    let together: Vec<_> = (0..12)
        .map(|_| {
            let mut command = atlas.command(&SPAWN);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let mut made: Vec<String> = together
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{told}");
            let document: Value = serde_json::from_slice(&output.stdout).unwrap();
            text(&document["session"])
        })
        .collect();
    let listed = atlas.run(&["ls", "--json"]).good();
    let mut listed: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|info| text(&info["session"]))
        .collect();
    made.sort();
    listed.sort();
    assert_eq!(made, listed);
}

#[cfg(unix)]
#[test]
fn a_verb_waits_while_the_holder_answers_too_many_others() {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    let sim = Sim::start("60");
    let atlas = Program::on(&sim);
    let mut holder = atlas.command(&["events", "--follow", "--json"]);
    let holder = holder.stdout(Stdio::null()).stderr(Stdio::null());
    let mut holder = holder.spawn().unwrap();
    let socket = atlas.path().join("atlas.redb.sock");
    let connect = || {
        loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            }
        }
    };
    let crowd: Vec<UnixStream> = (0..64).map(|_| connect()).collect();
    let mut refusal = String::new();
    connect().read_to_string(&mut refusal).unwrap();
    assert!(refusal.contains("too many"), "{refusal}");

    let mut list = atlas.command(&["ls", "--json"]);
    let list = list.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut list = list.spawn().unwrap();
    for _ in 0..20 {
        if let Some(status) = list.try_wait().unwrap() {
            panic!("it did not wait: {status}");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop(crowd);
    let output = list.wait_with_output().unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

#[test]
fn an_end_that_is_asked_for_without_a_holder_has_left_for_the_cloud_when_the_verb_returns() {
    let sim = Sim::start("60");
    let atlas = Program::on(&sim);
    let session = text(&atlas.run(&SPAWN).good()["session"]);
    let ended = atlas.run(&["rm", &session, "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(sim.live(), 0, "{ended:?}");
}

#[test]
fn machines_of_a_store_whose_realm_secret_is_lost_are_ended_by_the_ids_on_record() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let mut machines = Vec::new();
    for _ in 0..2 {
        let made = atlas.run(&SPAWN).good();
        machines.push(text(&made["compute"]["id"]));
    }
    machines.sort();
    let all = ["doctor", "--end-all", "--realm-lost", "--json"];
    let confirmed = [&all[..], &["--yes"]].concat();
    assert_eq!(atlas.run(&confirmed).code, 2, "the secret is not lost");
    assert_eq!(sim.live(), 2);

    std::fs::remove_file(atlas.path().join("atlas.redb.realm")).unwrap();
    assert_ne!(atlas.run(&["ls"]).code, 0, "the store does not open");
    for without in ["--realm-lost", "--end-all"] {
        assert_eq!(atlas.run(&["doctor", without]).code, 2, "needs the other");
    }
    let listed = atlas.run(&all);
    assert_eq!(listed.code, 1, "{listed:?}");
    assert!(listed.err.contains("--yes"), "{listed:?}");
    let ids = |report: &Value| {
        let rows = report["machines"].as_array().unwrap().iter();
        let mut ids: Vec<String> = rows.map(|row| text(&row["machine"])).collect();
        ids.sort();
        ids
    };
    assert_eq!((ids(&listed.json()), sim.live()), (machines.clone(), 2));
    assert_eq!(listed.json()["left"], 2);

    let ended = atlas.run(&confirmed);
    let report = ended.good();
    assert_eq!((ids(&report), sim.live()), (machines, 0));
    assert_eq!(report["left"], 0);
    assert_eq!(atlas.run(&all).good()["left"], 0, "nothing is left");
}
