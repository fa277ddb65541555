//! `guard_proxy`: what a request costs the guard, against a bare hyper proxy that verifies nothing.
//!
//! Both proxies run here, one after the other in turns; the server behind and the client in front
//! are processes of their own, so the CPU that is counted is the proxy's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use atlas_guard::{Config, Guard};
use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::Failure;
use crate::measure::{Row, cpu_time, median};
use crate::server::Server;

/// Starts this program as the client: it reads `ADDRESS MILLISECONDS` a line and answers how many
/// requests it made.
pub(crate) const FLAG: &str = "--load";
const KEY: &str = "bench-key-of-24-characters";
const IN_FLIGHT: usize = 16;
const ROUNDS: usize = 31;
const ROUND: Duration = Duration::from_millis(100);

pub(crate) fn row(name: &'static str) -> Result<Row, Failure> {
    let server = Server::start()?;
    let mut load = Load::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (guard, bare) = runtime.block_on(async {
        let settings = |name| (name == atlas_core::PRESHARED_KEY_ENV).then(|| KEY.to_owned());
        let config = Config::from_env(settings)?
            .listen("127.0.0.1:0")?
            .upstream(&server.address.to_string())?;
        let guard = Guard::bind(config).await?;
        let address = guard.local_addr()?;
        tokio::spawn(guard.serve(std::future::pending()));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let bare = listener.local_addr()?;
        tokio::spawn(bare_proxy(listener, server.address));
        Ok::<_, Failure>((address, bare))
    })?;
    let (mut value, mut base) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let both = (load.micros_a_request(guard)?, load.micros_a_request(bare)?);
        // The first warms up.
        if round > 0 {
            value.push(both.0);
            base.push(both.1);
        }
    }
    Ok(Row {
        name,
        value: median(value),
        unit: "CPU microseconds a request",
        baseline: Some(median(base)),
        point_reads: None,
    })
}

/// hyper's server in front of hyper's pooled client, and nothing between but the address.
async fn bare_proxy(listener: TcpListener, upstream: SocketAddr) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector);
    let authority: Authority = upstream
        .to_string()
        .parse()
        .expect("a socket address is an authority");
    while let Ok((stream, _)) = listener.accept().await {
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let (client, authority) = (client.clone(), authority.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(authority.clone());
            *request.uri_mut() =
                Uri::from_parts(parts).expect("a request's path with an authority before it");
            client.request(request)
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// The client's side: does what its lines say until there are no more.
pub(crate) fn run() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (address, millis) = line
            .split_once(' ')
            .ok_or("a line is ADDRESS MILLISECONDS")?;
        let (address, span) = (address.parse()?, Duration::from_millis(millis.parse()?));
        let made = runtime.block_on(async move {
            let running: Vec<_> = (0..IN_FLIGHT)
                .map(|_| tokio::spawn(requests(address, span)))
                .collect();
            let mut made = 0;
            for worker in running {
                made += worker.await??;
            }
            Ok::<u32, Failure>(made)
        })?;
        println!("{made}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

async fn requests(address: SocketAddr, span: Duration) -> Result<u32, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends when its sender is dropped.
    tokio::spawn(connection);
    let end = Instant::now() + span;
    let mut made = 0;
    while Instant::now() < end {
        let request = Request::get("/v2/pods/q8d2m5x0c7hn4v")
            .header(header::HOST, address.to_string())
            .header(header::USER_AGENT, "bench")
            .header(header::AUTHORIZATION, format!("Bearer {KEY}"))
            .body(Empty::<Bytes>::new())?;
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(format!("the proxy answered {}", answer.status()).into());
        }
        if answer.into_body().collect().await?.to_bytes() != crate::server::pod() {
            return Err("the proxy changed the answer".into());
        }
        made += 1;
    }
    Ok(made)
}

/// The client in its own process. It ends with this value.
struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Load {
    fn start() -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("the client has no output")?);
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            answers,
        })
    }

    /// The CPU that this process used for each request that the client made.
    fn micros_a_request(&mut self, address: SocketAddr) -> Result<f64, Failure> {
        let before = cpu_time();
        let stdin = self.stdin.as_mut().ok_or("the client was ended")?;
        writeln!(stdin, "{address} {}", ROUND.as_millis())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let made: u32 = line
            .trim()
            .parse()
            .map_err(|_| "the client did not say how many requests it made")?;
        let used = cpu_time().saturating_sub(before);
        if made == 0 {
            return Err("no request was answered".into());
        }
        Ok(used.as_secs_f64() * 1e6 / f64::from(made))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends by itself when its input does; nothing is left to do where waiting fails.
        let _ = self.child.wait();
    }
}
