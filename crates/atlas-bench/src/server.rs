//! The other side of a call: a bare hyper server in a child process, which answers every request
//! with one pod.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Failure;

/// Starts this program as the server. It ends when its standard input does, so never outlives its
/// parent.
pub(crate) const FLAG: &str = "--serve";

/// A pod as RunPod's REST v2 describes one, with an environment that fills it to 2 KB.
pub(crate) fn pod() -> Bytes {
    let env: serde_json::Map<_, _> = (0..24)
        .map(|n| {
            (
                format!("SETTING_NUMBER_{n}"),
                format!("a value of middling length {n}").into(),
            )
        })
        .collect();
    let pod = serde_json::json!({
        "id": "q8d2m5x0c7hn4v",
        "name": "atlas-u42-a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc",
        "status": "RUNNING",
        "image": "ghcr.io/acme/infer:1.2.3",
        "ports": ["8000/http", "22/tcp"],
        "env": env,
        "cloud": "SECURE",
        "locked": false,
        "dataCenterId": "EU-RO-1",
        "gpu": {"id": "NVIDIA H100 80GB HBM3", "count": 1, "name": "H100 SXM", "vram": 80},
        "disk": 50,
        "volume": {"size": 100, "path": "/workspace"},
        "ssh": {"direct": {"host": "203.0.113.7", "port": 10_322},
            "proxy": {"user": "q8d2m5x0c7hn4v-6441f0a1"}},
        "cost": 2.69,
        "costBreakdown": {"compute": 2.69, "disk": 0.007, "volume": 0.014},
        "runtime": {
            "uptime": 8_412,
            "ports": [
                {"private": 8000, "public": 60_212, "type": "http", "ip": "100.65.12.9"},
                {"private": 22, "public": 10_322, "type": "tcp", "ip": "203.0.113.7"}
            ],
            "gpus": [{"id": "GPU-5f2b", "gpuUtilPercent": 37, "memoryUtilPercent": 61}],
            "container": {"cpuPercent": 12, "memoryPercent": 23}
        },
        "createdAt": "2026-11-20T08:15:30.123Z"
    });
    Bytes::from(pod.to_string())
}

/// The server's side: listens, says where, serves until its parent is gone.
pub(crate) fn run() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    std::thread::spawn(move || runtime.block_on(serve(listener)));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

async fn serve(listener: TcpListener) {
    let body = pod();
    while let Ok((stream, _)) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let body = body.clone();
        let service = service_fn(move |_| {
            let mut answer = Response::new(Full::new(body.clone()));
            // The headers that every answer of the real API carries.
            for (name, value) in [
                ("x-request-id", "3f0c7a52-94f1-4f6b-a5a9-3d5c9a0be111"),
                (
                    "ratelimit",
                    r#""minute";r=57;t=12, "hour";r=2800;t=1812, "day";r=49500;t=45012"#,
                ),
                (
                    "ratelimit-policy",
                    r#""minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400"#,
                ),
            ] {
                answer
                    .headers_mut()
                    .insert(name, HeaderValue::from_static(value));
            }
            answer.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// The server in its own process. It ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Server {
    /// Starts it and waits until it listens.
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("the server has no output")?)
            .read_line(&mut line)?;
        let address = line
            .trim()
            .parse()
            .map_err(|_| "the server did not say where it listens")?;
        Ok(Self {
            address,
            child,
            stdin,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself when its input does; nothing is left to do where waiting fails.
        let _ = self.child.wait();
    }
}
