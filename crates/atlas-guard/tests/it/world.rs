//! A guard with its server behind it, and a client in front.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atlas_auth::grant::{Access, Grant, GrantKey, Scope};
use atlas_auth::signed_url::{self, Format};
use atlas_core::{Clock, Secret, SystemClock, SystemEntropy};
use atlas_guard::{Config, Guard};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::upstream;

pub(crate) const KEY: &str = "preshared-key-of-a-session";
pub(crate) const SECRET: &str = "signing-secret-of-a-session";
pub(crate) const HOST: &str = "pod.example";

pub(crate) struct World {
    pub(crate) guard: SocketAddr,
    pub(crate) more: Arc<Notify>,
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl World {
    pub(crate) async fn new(settings: &[(&'static str, &str)]) -> Self {
        let more = Arc::new(Notify::new());
        let server = upstream::start(Arc::clone(&more)).await;
        Self {
            guard: start(settings, server).await,
            more,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.guard).await.unwrap()
    }

    /// Sends a request head (without its last line) and reads until the end of the answer.
    pub(crate) async fn ask(&self, head: &str) -> Got {
        let mut stream = self.connect().await;
        let head = head.replacen(
            "\n",
            &format!(" HTTP/1.1\nhost: {HOST}\nconnection: close\n"),
            1,
        );
        stream
            .write_all((head.trim_end().replace('\n', "\r\n") + "\r\n\r\n").as_bytes())
            .await
            .unwrap();
        read_answer(&mut stream).await
    }

    pub(crate) async fn get(&self, target: &str) -> Got {
        self.ask(&format!("GET {target}\n")).await
    }

    pub(crate) async fn get_with(&self, target: &str, token: &str) -> Got {
        self.ask(&format!("GET {target}\nauthorization: Bearer {token}"))
            .await
    }

    /// A number in the activity report.
    pub(crate) async fn activity(&self, name: &str) -> u64 {
        let got = self.get_with("/_atlas/activity", KEY).await;
        assert_eq!(got.status, 200, "{got:?}");
        let (_, rest) = got
            .body
            .split_once(&format!("\"{name}\":"))
            .expect("it reports it");
        rest.split([',', '}'])
            .next()
            .unwrap()
            .parse()
            .expect("it is a number")
    }

    /// Waits until the report says so.
    pub(crate) async fn until(&self, name: &str, value: u64) {
        let reached = async {
            while self.activity(name).await != value {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached)
            .await
            .expect("the report gets there");
    }
}

pub(crate) async fn start(settings: &[(&'static str, &str)], server: SocketAddr) -> SocketAddr {
    let found = |name| {
        let set = settings
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned());
        set.or_else(|| match name {
            "ATLAS_PRESHARED_KEY" => Some(KEY.to_owned()),
            "ATLAS_SIGNING_SECRET" => Some(SECRET.to_owned()),
            _ => None,
        })
    };
    let config = Config::from_env(found)
        .unwrap()
        .listen("127.0.0.1:0")
        .unwrap()
        .upstream(&server.to_string())
        .unwrap();
    let guard = Guard::bind(config).await.unwrap();
    let address = guard.local_addr().unwrap();
    tokio::spawn(guard.serve(std::future::pending()));
    address
}

pub(crate) async fn read_answer(stream: &mut TcpStream) -> Got {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_default();
    Got {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// Reads until this text has come.
pub(crate) async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let mut chunk = [0; 4096];
            let read = stream.read(&mut chunk).await.unwrap();
            assert_ne!(
                read,
                0,
                "ended before {text:?}: {}",
                String::from_utf8_lossy(&bytes)
            );
            bytes.extend_from_slice(&chunk[..read]);
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .expect("it comes");
    String::from_utf8(bytes).unwrap()
}

/// Path and query of a URL signed for the guard's host.
pub(crate) fn signed(format: Format, path: &str) -> String {
    let url = format!("https://{HOST}{path}");
    let signed = signed_url::sign(
        format,
        &url,
        &Secret::new(SECRET),
        SystemClock.now(),
        Duration::from_secs(60),
    );
    signed
        .unwrap()
        .strip_prefix(&format!("https://{HOST}"))
        .unwrap()
        .to_owned()
}

pub(crate) fn grant(access: Access, prefix: &str) -> (Grant, String) {
    grant_for(access, prefix, Duration::from_secs(60))
}

pub(crate) fn grant_for(access: Access, prefix: &str, lifetime: Duration) -> (Grant, String) {
    let scope = Scope::new(access, prefix).unwrap();
    let key = GrantKey::new(&Secret::new(SECRET)).unwrap();
    let (grant, token) = key.mint(scope, SystemClock.now(), lifetime, &SystemEntropy::new());
    (grant, token.expose().to_owned())
}
