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

use crate::upstream;
use crate::world::KEY;

const MIB: u64 = 1024 * 1024;

struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(server: SocketAddr, settings: &[(&str, &str)], command: &[&str]) -> Self {
        let mut guard = Command::new(env!("CARGO_BIN_EXE_atlas-guard"));
        guard.args(["--listen", "127.0.0.1:0", "--upstream", &server.to_string()]);
        guard.env("ATLAS_PRESHARED_KEY", KEY).envs(settings.iter().copied()).stderr(Stdio::piped());
        if !command.is_empty() {
            guard.arg("--").args(command);
        }
        let mut child = guard.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().expect("it says where it listens");
        Self { child, address }
    }

    /// The most memory it ever held, in MiB.
    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
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
        Request::builder().method(method).uri(url).header("authorization", format!("Bearer {KEY}"))
    };
    let downloads = client.build_http();
    let request = head("GET", &format!("/zeros?{}", 256 * MIB)).body(Empty::<Bytes>::new()).unwrap();
    let mut body = downloads.request(request).await.unwrap().into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().data_ref().map_or(0, Bytes::len) as u64;
    }
    assert_eq!(bytes, 256 * MIB);

    let chunk = Bytes::from(vec![0; 64 * 1024]);
    let chunks = (0..4096).map(move |_| Ok::<_, std::convert::Infallible>(http_body::Frame::data(chunk.clone())));
    let request = head("POST", "/sink").body(StreamBody::new(futures_util::stream::iter(chunks))).unwrap();
    let answer = client.build_http().request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.to_bytes(), (256 * MIB).to_string());
    assert!(guard.peak_mib() < 32, "{} MiB", guard.peak_mib());
}

#[tokio::test]
async fn a_permit_that_is_not_renewed_ends_guard_and_server() {
    let mut guard = Running::start(server().await, &[("ATLAS_GUARD_PERMIT_SECS", "1")], &["sleep", "600"]);
    assert_eq!(guard.exit_code().await, Some(70));
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
        let output = guard.args(arguments).env("ATLAS_PRESHARED_KEY", key).env_remove("ATLAS_SIGNING_SECRET").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, key) in [(&[][..], ""), (&["--listen", "nowhere"], KEY), (&["--what"], KEY)] {
        let (code, said) = run(arguments, key);
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(said.contains("usage:") && !said.contains(KEY), "{said}");
    }
}
