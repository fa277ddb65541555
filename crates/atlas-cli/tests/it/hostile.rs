//! What a cloud, a repository or a folder says that is not trusted.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::program::{Program, Ran, Sim, ran};

const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[31mred\u{9b}2J\u{202e}gnp\u{200b}";

/// Asserts that nothing the program printed can control a terminal.
fn is_clean(run: &Ran) {
    for text in [&run.out, &run.err] {
        let hostile = text
            .chars()
            .find(|c| atlas::is_unsafe(*c) && !"\n\t".contains(*c));
        assert_eq!(hostile, None, "{text:?}");
    }
}

/// A RunPod that refuses every order, and repeats its environment as Go and PHP would write it.
/// Everything else is answered by the simulated cloud at `cloud`.
fn refusing_cloud(cloud: &str) -> String {
    let cloud = cloud
        .strip_prefix("http://")
        .expect("a plain URL")
        .to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let cloud = cloud.clone();
            std::thread::spawn(move || answer(stream.expect("a connection"), &cloud));
        }
    });
    url
}

/// Answers one request. A client that went away is no concern of the cloud's.
fn answer(stream: TcpStream, cloud: &str) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while reader.read_line(&mut head).ok()? > 2 {
        let line = head.lines().last()?.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut stream = reader.into_inner();
    if !head.starts_with("POST /v2/pods ") {
        let mut inner = TcpStream::connect(cloud).ok()?;
        let head = head.trim_end();
        write!(inner, "{head}\r\nconnection: close\r\n\r\n").ok()?;
        inner.write_all(&body).ok()?;
        std::io::copy(&mut inner, &mut stream).ok()?;
        return Some(());
    }
    let request: Value = serde_json::from_slice(&body).ok()?;
    let detail = format!("invalid env {HOSTILE} {}", request["env"]["DATABASE_URL"]);
    let answer = json!({ "title": "Bad", "status": 422, "detail": detail })
        .to_string()
        .replace('&', "\\u0026")
        .replace('/', "\\/");
    write!(
        stream,
        "HTTP/1.1 422 Unprocessable\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    )
    .ok()
}

#[test]
fn a_hostile_refusal_neither_controls_the_terminal_nor_repeats_a_secret() {
    let sim = Sim::start("120");
    let atlas = Program::on(&sim);
    let url = refusing_cloud(atlas.variable("ATLAS_RUNPOD_URL"));
    let run = |args: &[&str]| {
        ran(atlas
            .command(args)
            .env("ATLAS_RUNPOD_URL", &url)
            .env("DATABASE_URL", "postgres://u:hunter2@db/shop?a=1&b=2")
            .env("RUST_LOG", "trace"))
    };
    let spawn = [
        "spawn",
        "--provider",
        "runpod",
        "--cpu",
        "2",
        "--image",
        "x/y:1",
    ];
    let spawned = run(&[&spawn[..], &["--env", "APP=shop", "--env", "DATABASE_URL"]].concat());
    assert_eq!(spawned.code, 1, "{spawned:?}");
    assert!(spawned.err.contains("red"), "{spawned:?}");
    for shown in [spawned, run(&["events"]), run(&["events", "--json"])] {
        is_clean(&shown);
        let text = shown.out + &shown.err;
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_repository_cannot_control_the_terminal() {
    let atlas = Program::new();
    let folder = atlas.path().join(format!("repo/a{HOSTILE}\nb"));
    fs::create_dir_all(&folder).unwrap();
    let text = "app = \"shop\"\nprimary_region = \"\\u001b[31mX\\u0007\"\n";
    fs::write(folder.join("fly.toml"), text).unwrap();
    fs::write(atlas.path().join("repo/fly.toml"), "app = oops\n").unwrap();
    for args in [
        &["fly", "apps", "repo"][..],
        &["fly", "apps", "repo", "--json"],
    ] {
        let apps = atlas.run(args);
        assert_eq!(apps.code, 0, "{apps:?}");
        is_clean(&apps);
    }
    assert_eq!(atlas.run(&["fly", "apps", "repo"]).out.lines().count(), 2);
}

#[test]
fn warnings_are_not_coloured_on_a_pipe() {
    let atlas = Program::new();
    let warned = ran(atlas
        .command(&["fly", "tokens", "get", "shop"])
        .env("RUST_LOG", "trace")
        .env("PATH", atlas.path()));
    assert!(
        warned.code == 1 && warned.err.contains("WARN"),
        "{warned:?}"
    );
    is_clean(&warned);
}

#[test]
fn a_configuration_that_was_only_found_takes_no_key_anywhere() {
    let atlas = Program::new();
    let write = |file: &str, text: &str| {
        let path = atlas.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let text = format!("[accounts.vast]\nbase_url = \"{url}\"\n");
    let gpus = |args: &[&str]| {
        ran(atlas
            .command(&[&["gpus", "--provider", "vast"], args].concat())
            .env("VAST_API_KEY", "the-key"))
    };
    write("atlas.toml", &text);
    let refused = gpus(&[]);
    assert_eq!(refused.code, 2, "{refused:?}");
    for part in ["accounts.vast.base_url", "atlas.toml", "--config"] {
        assert!(refused.err.contains(part), "{part} in {}", refused.err);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0, "something was sent");

    // The same file is used when it is named, and when it is the user's own.
    for (file, args) in [
        ("named.toml", &["--config", "named.toml"][..]),
        (".config/atlas/atlas.toml", &[]),
    ] {
        write(file, &text);
        let _ = fs::remove_file(atlas.path().join("atlas.toml"));
        let before = connections.load(Ordering::SeqCst);
        let asked = gpus(args);
        assert_eq!(asked.code, 1, "{file}: {asked:?}");
        assert!(connections.load(Ordering::SeqCst) > before, "{file}");
    }
}

#[test]
fn the_idle_limit_of_the_configuration_counts_for_sessions_and_not_for_tasks() {
    let atlas = Program::new();
    let text = "store = 'a.redb'\n[orchestrator]\nidle_ttl = '20m'\n";
    fs::write(atlas.path().join("atlas.toml"), text).unwrap();
    let mock = ["--provider", "mock", "--json", "--quiet"];
    let limits = |args: &[&str]| {
        let made = atlas.run(&[&mock[..], args].concat()).good();
        let options = &made["options"];
        (
            options["idle_ttl_ms"].clone(),
            options["max_runtime_ms"].clone(),
        )
    };
    let day = json!(86_400_000);
    assert_eq!(
        limits(&["spawn", "--image", "x"]),
        (json!(1_200_000), Value::Null)
    );
    assert_eq!(
        limits(&["spawn", "--image", "x", "--idle-ttl", "5m"]),
        (json!(300_000), Value::Null)
    );
    assert_eq!(
        limits(&["run", "--image", "x", "--", "true"]),
        (Value::Null, day)
    );
}

#[test]
fn durations_without_end_are_limits_like_any_other() {
    let atlas = Program::new();
    let longest = "18446744073709551615ms";
    let mock = ["--provider", "mock", "--store", "a.redb", "--json"];
    let run = |args: &[&str]| atlas.run(&[&mock[..], args].concat()).good();
    let spawn = [
        "spawn",
        "--image",
        "x",
        "--idle-ttl",
        longest,
        "--max-runtime",
        longest,
    ];
    let session = run(&spawn)["session"].as_str().unwrap().to_owned();
    assert_eq!(
        run(&["rm", &session, "--wait", longest])["state"],
        "terminated"
    );
    run(&[
        "url",
        "sign",
        "https://x/y",
        "--secret",
        "0123456789abcdef",
        "--expires-in",
        &u64::MAX.to_string(),
    ]);
    let text = "[orchestrator]\nreap_interval = '213503982334d'\npoll_interval = '213503982334d'\n\
                [accounts.mock]\ncall_deadline = '213503982334d'\n";
    fs::write(atlas.path().join("long.toml"), text).unwrap();
    run(&["--config", "long.toml", "spawn", "--image", "x"]);
}
