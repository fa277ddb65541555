//! The binary: large bodies at constant memory, a lapsed permit, its exit codes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::upstream;
use crate::world::{KEY, read_until};

const MIB: u64 = 1024 * 1024;

struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(server: SocketAddr, settings: &[(&str, &str)], command: &[&str]) -> Self {
        let mut guard = Command::new(env!("CARGO_BIN_EXE_atlas-guard"));
        guard.args(["--listen", "127.0.0.1:0", "--upstream", &server.to_string()]);
        guard
            .env("ATLAS_PRESHARED_KEY", KEY)
            .envs(settings.iter().copied())
            .stderr(Stdio::piped());
        if !command.is_empty() {
            guard.arg("--").args(command);
        }
        let mut child = guard.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .expect("it says where it listens");
        Self { child, address }
    }

    /// What the system says of its memory: `VmRSS` now, `VmHWM` at most.
    fn memory_kib(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    async fn exit_code(&mut self) -> Option<i32> {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

async fn server() -> SocketAddr {
    upstream::start(Arc::default()).await
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_constant_memory() {
    let guard = Running::start(server().await, &[], &[]);
    let client = Client::builder(TokioExecutor::new());
    let head = |method: &str, path: &str| {
        let url = format!("http://{}{path}", guard.address);
        Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {KEY}"))
    };
    let downloads = client.build_http();
    let request = head("GET", &format!("/zeros?{}", 1024 * MIB))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let mut body = downloads.request(request).await.unwrap().into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().data_ref().map_or(0, Bytes::len) as u64;
    }
    assert_eq!(bytes, 1024 * MIB);

    let chunk = Bytes::from(vec![0; 64 * 1024]);
    let chunks = (0..16_384)
        .map(move |_| Ok::<_, std::convert::Infallible>(http_body::Frame::data(chunk.clone())));
    let request = head("POST", "/sink")
        .body(StreamBody::new(futures_util::stream::iter(chunks)))
        .unwrap();
    let answer = client
        .build_http()
        .request(request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(answer.to_bytes(), (1024 * MIB).to_string());
    let peak = guard.memory_kib("VmHWM") / 1024;
    assert!(peak < 32, "{peak} MiB");
}

/// Takes all the open files that the system allows: a stream needs one here on each side, and many
/// systems begin with 1,024.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .unwrap();
}

#[tokio::test]
async fn a_thousand_open_streams_take_less_than_20_kb_each() {
    raise_file_limit();
    let guard = Running::start(server().await, &[], &[]);
    let mut streams = Vec::new();
    let open = async |streams: &mut Vec<TcpStream>| {
        let mut stream = TcpStream::connect(guard.address).await.unwrap();
        let head =
            format!("GET /events HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {KEY}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut stream, "data: 1").await;
        streams.push(stream);
    };
    open(&mut streams).await;
    let before = guard.memory_kib("VmRSS");
    while streams.len() < 1000 {
        open(&mut streams).await;
    }
    let grown = guard.memory_kib("VmRSS") - before;
    // The program itself is counted apart: unoptimised, it is several times as large as what runs
    // in a machine.
    assert!(
        grown < 20_000,
        "{grown} KiB for a thousand streams, beside {before} KiB"
    );
}

#[tokio::test]
async fn a_permit_that_is_not_renewed_ends_guard_and_server() {
    let mut guard = Running::start(
        server().await,
        &[("ATLAS_GUARD_PERMIT_SECS", "1")],
        &["sleep", "600"],
    );
    assert_eq!(guard.exit_code().await, Some(70));
}

#[tokio::test]
async fn the_server_does_not_inherit_the_guards_secrets() {
    let script = "test -z \
        \"$ATLAS_PRESHARED_KEY$ATLAS_SIGNING_SECRET$ATLAS_SIGNING_SECRET_NEXT$ATLAS_CONTROL_KEY\" \
                  && test \"$KEPT\" = 1 && exit 9";
    let control = atlas_auth::control::mint(&atlas_core::SystemEntropy::new());
    let control = atlas_auth::control::ControlSecret::new(&control).unwrap();
    let key = control.key().to_string();
    let settings = [
        ("ATLAS_SIGNING_SECRET", KEY),
        ("ATLAS_SIGNING_SECRET_NEXT", KEY),
        ("ATLAS_CONTROL_KEY", &key),
        ("KEPT", "1"),
    ];
    let mut guard = Running::start(server().await, &settings, &["sh", "-c", script]);
    assert_eq!(guard.exit_code().await, Some(9));
}

#[tokio::test]
async fn the_servers_exit_code_is_the_containers() {
    let mut guard = Running::start(server().await, &[], &["sh", "-c", "exit 3"]);
    assert_eq!(guard.exit_code().await, Some(3));
}

#[tokio::test]
async fn a_guard_without_a_credential_or_with_a_wrong_argument_exits_2() {
    let run = |arguments: &[&str], key: &str| {
        let mut guard = Command::new(env!("CARGO_BIN_EXE_atlas-guard"));
        let output = guard
            .args(arguments)
            .env("ATLAS_PRESHARED_KEY", key)
            .env_remove("ATLAS_SIGNING_SECRET")
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    for (arguments, key) in [
        (&[][..], ""),
        (&["--listen", "nowhere"], KEY),
        (&["--what"], KEY),
    ] {
        let (code, said) = run(arguments, key);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(said.contains("usage:") && !said.contains(KEY), "{said}");
    }
}
