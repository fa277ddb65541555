//! TLS and HTTP/2, as they are towards a real cloud.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{CallContext, ErrorKind, Outcome, ProviderId, RetryClass, Secret};
use atlas_http::{Call, Client, Transport};
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::cloud::{KEY, unpaced};

struct Server {
    address: SocketAddr,
    pem: String,
    connections: Arc<AtomicUsize>,
}

/// A server that offers these protocols and answers with the version it was asked in and the key it
/// was given.
async fn serve(protocols: &[&str]) -> Server {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])
        .expect("a certificate can be made");
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a made key is a key");
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .and_then(|config| {
        config
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
    })
    .expect("the certificate fits its key");
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let http2 = protocols.contains(&"h2");
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address");
    let connections = Arc::<AtomicUsize>::default();
    let counted = connections.clone();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, counted) = (acceptor.clone(), counted.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                counted.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let version = if request.version() == Version::HTTP_2 {
                        2
                    } else {
                        1
                    };
                    let keyed = request.headers()["authorization"] == format!("Bearer {KEY}");
                    let body = format!(r#"{{"version":{version},"keyed":{keyed}}}"#);
                    Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(body))))
                });
                // The client ends the connection when the test does; how is of no interest.
                let _ = if http2 {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                } else {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                };
            });
        }
    });
    Server {
        address,
        pem: made.cert.pem(),
        connections,
    }
}

fn client(server: &Server, transport: Transport) -> Client {
    let key = ApiKey {
        secret: Secret::new(KEY),
        origin: Origin::Builder,
    };
    Client::builder(
        ProviderId::new("acme").expect("a good name"),
        format!("https://localhost:{}", server.address.port()),
    )
    .api_key("Bearer", key)
    .limits(unpaced())
    .transport(transport)
    .build()
    .expect("a good builder")
}

fn get() -> Call {
    Call::get("get_compute", RetryClass::Safe, ["pods"])
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered_and_one_connection_carries_calls_at_once() {
    for (protocols, version) in [(&["h2"][..], 2), (&["http/1.1"], 1), (&[], 1)] {
        let server = serve(protocols).await;
        let client = client(
            &server,
            Transport::hyper_trusting(server.pem.as_bytes()).unwrap(),
        );
        let read = async |client: &Client| {
            client
                .json::<serde_json::Value>(&CallContext::new(), get())
                .await
                .unwrap()
        };
        let answer = read(&client).await;
        assert_eq!(
            answer,
            serde_json::json!({"version": version, "keyed": true})
        );
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    client
                        .json::<serde_json::Value>(&CallContext::new(), get())
                        .await
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap()["version"], version);
        }
        if version == 2 {
            assert_eq!(server.connections.load(Ordering::SeqCst), 1);
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_the_call_before_anything_is_sent() {
    let (server, other) = (serve(&["h2"]).await, serve(&["h2"]).await);
    for transport in [
        Transport::hyper_trusting(other.pem.as_bytes()).unwrap(),
        Transport::hyper(),
    ] {
        let call = Call::post("spawn_compute", RetryClass::Create, ["pods"]);
        let cx = CallContext::new().with_retries(0);
        let error = client(&server, transport)
            .call(&cx, call)
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Transport, &Outcome::NeverSent),
            "{error}"
        );
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn what_holds_no_certificate_is_refused() {
    for bad in [
        "",
        "not pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert_eq!(
            Transport::hyper_trusting(bad.as_bytes())
                .unwrap_err()
                .field(),
            Some("trusted_certificates"),
            "{bad:?}"
        );
    }
}
