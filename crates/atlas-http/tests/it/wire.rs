//! The same over real sockets, on real time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{CallContext, ErrorKind, Outcome, ProviderId, RetryClass, Secret};
use atlas_http::{Call, Client, ClientBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::cloud::{KEY, unpaced};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// What a server does with its n-th request (from 0), and whether the connection stays.
type Script = fn(usize) -> (Vec<u8>, Stays);

#[derive(Clone, Copy, PartialEq)]
enum Stays {
    Open,
    Closed,
    Reset,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

impl Server {
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let counts = Arc::<Counts>::default();
        let shared = counts.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, script, shared.clone()));
            }
        });
        Self { address, counts }
    }

    pub(crate) async fn answering_ok() -> Self {
        Self::start(|_| (OK.into(), Stays::Open)).await
    }

    fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        builder(&format!("http://{}", self.address))
    }
}

async fn serve(mut stream: TcpStream, script: Script, counts: Arc<Counts>) {
    let mut request = Vec::new();
    loop {
        let mut some = [0; 4096];
        let Ok(read @ 1..) = stream.read(&mut some).await else {
            return;
        };
        request.extend_from_slice(&some[..read]);
        // Every request here is short and its body empty: the blank line ends it.
        if !request.windows(4).any(|end| end == b"\r\n\r\n") {
            continue;
        }
        request.clear();
        let (answer, stays) = script(counts.requests.fetch_add(1, Ordering::SeqCst));
        if stream.write_all(&answer).await.is_err() || stays == Stays::Closed {
            return;
        }
        if stays == Stays::Reset {
            // With no linger, closing sends a reset.
            let _ = stream.set_zero_linger();
            return;
        }
    }
}

fn builder(url: &str) -> ClientBuilder {
    let key = ApiKey {
        secret: Secret::new(KEY),
        origin: Origin::Builder,
    };
    Client::builder(ProviderId::new("acme").expect("a good name"), url)
        .api_key("Bearer", key)
        .limits(unpaced())
}

fn call(class: RetryClass) -> Call {
    Call::post("spawn_compute", class, ["pods"])
}

fn once() -> CallContext {
    CallContext::new().with_retries(0)
}

#[tokio::test]
async fn a_refused_connection_was_never_sent() {
    let server = Server::answering_ok().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let cx = once().with_base_url(format!("http://{address}"));
    let error = server
        .builder()
        .build()
        .unwrap()
        .call(&cx, call(RetryClass::Create))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Transport, &Outcome::NeverSent),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_host_was_never_sent() {
    let error = builder("https://no-such-host.invalid")
        .build()
        .unwrap()
        .call(&once(), call(RetryClass::Create))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Transport, &Outcome::NeverSent),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_was_never_sent_anything() {
    let server =
        Server::start(|_| (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Stays::Closed)).await;
    let client = builder(&format!("https://{}", server.address))
        .build()
        .unwrap();
    let cx = once().with_timeout(Duration::from_millis(500));
    let error = client
        .call(&cx, call(RetryClass::Create))
        .await
        .unwrap_err();
    assert_eq!(error.outcome(), &Outcome::NeverSent, "{error}");
}

#[tokio::test]
async fn no_connection_before_the_deadline_was_never_sent() {
    // The port accepts, but no TLS handshake ever comes back.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = builder(&format!("https://{}", silent.local_addr().unwrap()))
        .build()
        .unwrap();
    let cx = once().with_timeout(Duration::from_millis(300));
    let error = client
        .call(&cx, call(RetryClass::Create))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Timeout, &Outcome::NeverSent),
        "{error}"
    );
}

#[tokio::test]
async fn no_answer_before_the_deadline_is_unknown() {
    let server = Server::start(|_| (Vec::new(), Stays::Open)).await;
    let cx = once().with_timeout(Duration::from_millis(300));
    let error = server
        .builder()
        .build()
        .unwrap()
        .call(&cx, call(RetryClass::Create))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Timeout, &Outcome::Unknown(vec![])),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_cut_short_is_unknown_to_a_create_and_repeated_for_a_read() {
    const CUT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":";
    let script: Script = |n| {
        if n < 2 {
            (CUT.to_vec(), Stays::Closed)
        } else {
            (OK.into(), Stays::Open)
        }
    };
    let server = Server::start(script).await;
    let client = server.builder().build().unwrap();
    let error = client
        .call(&CallContext::new(), call(RetryClass::Create))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome(), server.requests()),
        (ErrorKind::Transport, &Outcome::Unknown(vec![]), 1)
    );
    client
        .call(&CallContext::new(), call(RetryClass::Safe))
        .await
        .unwrap();
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_connection_that_ends_instead_of_answering_is_unknown_and_a_create_is_not_replayed() {
    for stays in [Stays::Closed, Stays::Reset] {
        // The first answer leaves a connection in the pool; the create is sent on it and it dies.
        let script: Script = match stays {
            Stays::Reset => |n| {
                if n == 0 {
                    (OK.into(), Stays::Open)
                } else {
                    (Vec::new(), Stays::Reset)
                }
            },
            _ => |n| {
                if n == 0 {
                    (OK.into(), Stays::Open)
                } else {
                    (b"HTTP/1.1 201 Cre".to_vec(), Stays::Closed)
                }
            },
        };
        let server = Server::start(script).await;
        let client = server.builder().build().unwrap();
        client
            .call(&CallContext::new(), call(RetryClass::Safe))
            .await
            .unwrap();
        let error = client
            .call(&CallContext::new(), call(RetryClass::Create))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Transport, &Outcome::Unknown(vec![])),
            "{error}"
        );
        assert_eq!((server.connections(), server.requests()), (1, 2));
    }
}

#[tokio::test]
async fn one_connection_carries_many_calls() {
    let server = Server::answering_ok().await;
    let client = server.builder().build().unwrap();
    for _ in 0..20 {
        client
            .call(&CallContext::new(), call(RetryClass::Safe))
            .await
            .unwrap();
    }
    assert_eq!((server.connections(), server.requests()), (1, 20));
}

#[tokio::test]
async fn an_answer_over_the_cap_is_refused_and_leaves_a_create_unknown() {
    let announced: Script = |_| {
        (
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{}",
                "x".repeat(5000)
            )
            .into(),
            Stays::Open,
        )
    };
    let chunked: Script = |_| {
        (
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1388\r\n{}\r\n0\r\n\r\n",
                "x".repeat(5000)
            )
            .into(),
            Stays::Open,
        )
    };
    for script in [announced, chunked] {
        let server = Server::start(script).await;
        let client = server.builder().max_answer_bytes(4999).build().unwrap();
        let error = client
            .call(&CallContext::new(), call(RetryClass::Create))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome(), server.requests()),
            (ErrorKind::Provider, &Outcome::Unknown(vec![]), 1)
        );
        let client = server.builder().max_answer_bytes(5000).build().unwrap();
        assert_eq!(
            client
                .call(&CallContext::new(), call(RetryClass::Create))
                .await
                .unwrap()
                .bytes()
                .len(),
            5000
        );
    }
}

#[tokio::test]
async fn a_redirect_to_another_port_is_not_followed_with_the_key() {
    let other = Server::answering_ok().await;
    let moved: Script = |_| {
        (
            b"HTTP/1.1 302 Found\r\nlocation: /pods/here\r\ncontent-length: 0\r\n\r\n".to_vec(),
            Stays::Open,
        )
    };
    let server = Server::start(moved).await;
    let cloud = tower::layer::layer_fn({
        let to = format!("http://{}/pods", other.address);
        move |inner: atlas_http::Transport| {
            let to = to.clone();
            tower::util::MapResponse::new(
                inner,
                move |mut answer: http::Response<atlas_http::Body>| {
                    answer
                        .headers_mut()
                        .insert("location", to.parse().expect("a url is a header value"));
                    answer
                },
            )
        }
    });
    let client = server.builder().layer(&cloud).build().unwrap();
    let get = Call::get("get_compute", RetryClass::Safe, ["pods"]);
    assert_eq!(
        client
            .call(&CallContext::new(), get)
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Provider
    );
    assert_eq!((server.requests(), other.connections()), (1, 0));
}
