//! `call_get_N`: a point read over loopback with N in flight, against bare hyper and a typed parse
//! on the same kind of connection.

use std::net::SocketAddr;
use std::time::Duration;

use atlas_core::config::{ApiKey, Origin};
use atlas_core::{
    AccountLimits, AnyProvider, CallContext, ComputeId, ProviderId, RetryClass, Secret,
};
use atlas_http::{Call, Client};
use atlas_provider_runpod::RunPod;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Failure;
use crate::measure::{Row, cpu_time, median};
use crate::server::Server;

const POD: &str = "q8d2m5x0c7hn4v";
/// Many short rounds: the two sides then meet the same neighbours.
const ROUNDS: usize = 31;
const ROUND: Duration = Duration::from_millis(100);
const WARM_UP: Duration = Duration::from_millis(200);

/// One way of reading the pod.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// `get_compute` of the RunPod provider through the handle: the contract, whole.
    Provider,
    /// The HTTP stack alone, into the baseline's type: what the stack costs without the contract.
    Stack,
    /// hyper with its pooled client, and nothing around it: no deadline, retry, pacing, span or
    /// error mapping. The baseline of the others, because their connections come from the same
    /// pool.
    Pooled,
    /// One hyper connection held by each caller, which a client of many hosts cannot do: what the
    /// pool itself costs.
    Held,
}

/// Measures one row.
pub(crate) fn row(
    name: &'static str,
    in_flight: usize,
    way: Way,
    baseline: Way,
) -> Result<Row, Failure> {
    let server = Server::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let ours = Caller::new(way, server.address, in_flight)?;
        let bare = Caller::new(baseline, server.address, in_flight)?;
        let (mut value, mut base) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let span = if round == 0 { WARM_UP } else { ROUND };
            let both = (
                calls_per_cpu_second(in_flight, span, || ours.clone().run(span)).await?,
                calls_per_cpu_second(in_flight, span, || bare.clone().run(span)).await?,
            );
            if round > 0 {
                value.push(both.0);
                base.push(both.1);
            }
        }
        Ok(Row {
            name,
            value: median(value),
            unit: "calls per CPU second",
            baseline: Some(median(base)),
            point_reads: None,
        })
    })
}

/// Runs so many workers at once and divides what they did by the CPU that this process used for it.
pub(crate) async fn calls_per_cpu_second<F>(
    workers: usize,
    span: Duration,
    worker: impl Fn() -> F,
) -> Result<f64, Failure>
where
    F: Future<Output = Result<u32, Failure>> + Send + 'static,
{
    let before = cpu_time();
    let running: Vec<_> = (0..workers).map(|_| tokio::spawn(worker())).collect();
    let mut calls = 0;
    for worker in running {
        calls += worker.await??;
    }
    let used = cpu_time().saturating_sub(before);
    if calls == 0 {
        return Err(format!("no call was answered in {span:?}").into());
    }
    Ok(f64::from(calls) / used.as_secs_f64())
}

fn limits(in_flight: usize) -> Result<AccountLimits, Failure> {
    Ok(AccountLimits {
        call_interval: Duration::ZERO,
        concurrency: u32::try_from(in_flight)?,
        ..AccountLimits::default()
    })
}

fn provider(address: SocketAddr, in_flight: usize) -> Result<AnyProvider, Failure> {
    let runpod = RunPod::builder()
        .api_key(Secret::new("bench-key"))
        .control_url(format!("http://{address}"))
        .limits(limits(in_flight)?)
        .build()?;
    Ok(AnyProvider::new(runpod))
}

fn client(address: SocketAddr, in_flight: usize) -> Result<Client, Failure> {
    let key = ApiKey {
        secret: Secret::new("bench-key"),
        origin: Origin::Builder,
    };
    let id = ProviderId::new("runpod")?;
    Ok(Client::builder(id, format!("http://{address}"))
        .api_key("Bearer", key)
        .limits(limits(in_flight)?)
        .build()?)
}

type Pool = Pooled<HttpConnector, Empty<Bytes>>;

#[derive(Clone)]
enum Caller {
    Provider(AnyProvider),
    Stack(Client),
    Pooled(Box<Pool>, SocketAddr),
    Held(SocketAddr),
}

impl Caller {
    fn new(way: Way, address: SocketAddr, in_flight: usize) -> Result<Self, Failure> {
        Ok(match way {
            Way::Provider => Self::Provider(provider(address, in_flight)?),
            Way::Stack => Self::Stack(client(address, in_flight)?),
            Way::Pooled => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                let pool = Pooled::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    .build(connector);
                Self::Pooled(Box::new(pool), address)
            }
            Way::Held => Self::Held(address),
        })
    }

    /// Calls one after the other until the span is over; each answer is checked.
    async fn run(self, span: Duration) -> Result<u32, Failure> {
        let (cx, id, end) = (
            CallContext::new(),
            ComputeId::new(POD)?,
            Instant::now() + span,
        );
        let mut held = match &self {
            Self::Held(address) => Some(connect(*address).await?),
            _ => None,
        };
        let mut calls = 0;
        while Instant::now() < end {
            match &self {
                Self::Provider(provider) => {
                    let compute = provider.get_compute(&cx, &id).await?;
                    if compute.id != id || compute.ports.len() != 2 {
                        return Err("the provider misread the answer".into());
                    }
                }
                Self::Stack(client) => {
                    let call =
                        Call::get("get_compute", RetryClass::Safe, ["v2", "pods", id.as_str()]);
                    client.json::<Pod>(&cx, call).await?.check()?;
                }
                Self::Pooled(client, address) => {
                    let mut request =
                        Request::get(format!("http://{address}/v2/pods/{id}")).body(Empty::new())?;
                    head(request.headers_mut(), None)?;
                    read(client.request(request).await?).await?;
                }
                Self::Held(address) => {
                    let sender = held.as_mut().ok_or("no connection is held")?;
                    let mut request = Request::get(format!("/v2/pods/{id}")).body(Empty::new())?;
                    head(request.headers_mut(), Some(*address))?;
                    sender.ready().await?;
                    read(sender.send_request(request).await?).await?;
                }
            }
            calls += 1;
        }
        Ok(calls)
    }
}

async fn connect(address: SocketAddr) -> Result<http1::SendRequest<Empty<Bytes>>, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends when its sender is dropped.
    tokio::spawn(connection);
    Ok(sender)
}

pub(crate) fn head(headers: &mut http::HeaderMap, host: Option<SocketAddr>) -> Result<(), Failure> {
    if let Some(host) = host {
        headers.insert(header::HOST, HeaderValue::try_from(host.to_string())?);
    }
    headers.insert(header::USER_AGENT, HeaderValue::from_static("bare"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(
        header::AUTHORIZATION,
        HeaderValue::from_static("Bearer bench-key"),
    );
    Ok(())
}

pub(crate) async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<(), Failure> {
    if !answer.status().is_success() {
        return Err("the server refused the baseline".into());
    }
    let body = answer.into_body().collect().await?.to_bytes();
    serde_json::from_slice::<Pod>(&body)?.check()
}

/// What `get_compute` reads of a pod, typed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "parsed as a program would that uses it")]
struct Pod {
    id: String,
    name: Option<String>,
    status: String,
    image: Option<String>,
    ports: Vec<String>,
    env: PodEnv,
    data_center_id: Option<String>,
    gpu: Option<PodGpu>,
    ssh: Option<Ssh>,
    cost: Option<f64>,
    runtime: Option<Runtime>,
    created_at: Option<String>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed as a program would that uses it")]
struct PodEnv {
    #[serde(rename = "ATLAS_LAUNCH_KEY")]
    launch_key: Option<String>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed as a program would that uses it")]
struct PodGpu {
    id: String,
    count: Option<u32>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed as a program would that uses it")]
struct Ssh {
    direct: Option<SshEndpoint>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed as a program would that uses it")]
struct SshEndpoint {
    host: Option<String>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed as a program would that uses it")]
struct Runtime {
    uptime: Option<f64>,
    ports: Vec<RuntimePort>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsed as a program would that uses it")]
struct RuntimePort {
    private: Option<u32>,
    public: Option<u32>,
    r#type: Option<String>,
    ip: Option<String>,
}

impl Pod {
    fn check(&self) -> Result<(), Failure> {
        if self.id == POD && self.ports.len() == 2 {
            Ok(())
        } else {
            Err("the answer is not the pod".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_two_kilobytes_and_both_sides_read_it() {
        let pod = crate::server::pod();
        assert!((1900..2200).contains(&pod.len()), "{}", pod.len());
        serde_json::from_slice::<Pod>(&pod)
            .unwrap()
            .check()
            .unwrap();
    }
}
