//! `call_spawn`: an order through the contract after its intent is durable, against a bare hyper
//! POST after one redb group commit.
//!
//! Both sides write the same rows, share one sync with all other waiting writers, and post a body
//! of the same fields.

use std::net::SocketAddr;
use std::time::Duration;

use atlas_core::{
    AccountLimits, AnyProvider, CallContext, Candidate, Clock, ComputeRequest, Entropy, Error, Gpu,
    LaunchKey, Port, Secret, SystemClock,
};
use atlas_orchestrator::Realm;
use atlas_orchestrator::store::{AnyStore, Batch, Table};
use atlas_provider_runpod::RunPod;
use atlas_store_redb::Redb;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use redb::{Database, TableDefinition};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::Failure;
use crate::call_get::{calls_per_cpu_second, head, read};
use crate::measure::{Row, median};
use crate::server::Server;

const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(200);
/// As the store's own writer takes at most.
const MAX_GROUP: usize = 512;
const SECRET: &str = "0f9kXq27LmZt5cRvB1yHdWn8GsEoPa3J-benches";

type Table2 = TableDefinition<'static, &'static [u8], &'static [u8]>;
const SESSIONS: Table2 = TableDefinition::new("sessions");
const ATTEMPTS: Table2 = TableDefinition::new("attempts");
const EVENTS: Table2 = TableDefinition::new("events");
const FEED: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("feed");
const HEADS: TableDefinition<'static, &'static [u8], u64> = TableDefinition::new("heads");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");

/// What an intent puts on record.
struct Intent {
    session: [u8; 16],
    attempt: [u8; 10],
    record: Bytes,
    row: Bytes,
    event: Bytes,
}

impl Intent {
    fn new(entropy: &dyn Entropy) -> Self {
        let (mut session, mut attempt) = ([0; 16], [0; 10]);
        entropy.fill(&mut session);
        entropy.fill(&mut attempt);
        // As long as a session's record with one attempt, an attempt's row, and its event are.
        let text = |len: usize| Bytes::from("i".repeat(len));
        Self {
            session,
            attempt,
            record: text(900),
            row: text(70),
            event: text(180),
        }
    }
}

/// Measures the row.
pub(crate) fn row(name: &'static str) -> Result<Row, Failure> {
    let dir = tempfile::Builder::new().prefix("atlas-bench-").tempdir()?;
    let server = Server::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let store = AnyStore::new(Redb::open(dir.path().join("ours.redb"))?);
    let bare = Database::create(dir.path().join("bare.redb"))?;
    runtime.block_on(async {
        let ours = Ours::new(server.address, store)?;
        let theirs = Theirs::new(server.address, bare);
        let (mut value, mut base) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let ours = calls_per_cpu_second(IN_FLIGHT, ROUND, || ours.clone().run()).await?;
            let theirs = calls_per_cpu_second(IN_FLIGHT, ROUND, || theirs.clone().run()).await?;
            if round > 0 {
                value.push(ours);
                base.push(theirs);
            }
        }
        Ok(Row {
            name,
            value: median(value),
            unit: "orders per CPU second",
            baseline: Some(median(base)),
            point_reads: None,
        })
    })
}

#[derive(Clone)]
struct Ours {
    provider: AnyProvider,
    store: AnyStore,
    realm: std::sync::Arc<Realm>,
    request: ComputeRequest,
}

impl Ours {
    fn new(address: SocketAddr, store: AnyStore) -> Result<Self, Failure> {
        let limits = AccountLimits {
            call_interval: Duration::ZERO,
            concurrency: u32::try_from(IN_FLIGHT)?,
            ..AccountLimits::default()
        };
        let provider = RunPod::builder()
            .api_key(Secret::new("bench-key"))
            .control_url(format!("http://{address}"))
            .limits(limits)
            .build()?;
        let mut candidate = Candidate::default();
        candidate.native_type = Some("NVIDIA H100 80GB HBM3".to_owned());
        candidate.gpu = Some(Gpu::H100Sxm);
        let request = ComputeRequest::gpu(Gpu::H100Sxm)
            .image("ghcr.io/acme/infer:1.2.3")
            .port(Port::http(8000))
            .at(candidate);
        let realm = std::sync::Arc::new(Realm::new(&Secret::new(SECRET))?);
        Ok(Self {
            provider: AnyProvider::new(provider),
            store,
            realm,
            request,
        })
    }

    async fn run(self) -> Result<u32, Failure> {
        let (cx, end) = (CallContext::new(), Instant::now() + ROUND);
        let entropy = atlas_core::SystemEntropy::new();
        let mut orders = 0;
        while Instant::now() < end {
            let key = LaunchKey::Tracked(self.realm.mint_key(SystemClock.now(), &entropy));
            let intent = Intent::new(&entropy);
            let mut batch = Batch::new();
            batch.guard(Table::Sessions, intent.session, None);
            batch.put(Table::Sessions, intent.session, intent.record);
            batch.put(Table::Attempts, intent.attempt, intent.row);
            batch.append(intent.session, 1, intent.event);
            self.store.commit(batch).await.map_err(Error::from)?;
            let made = self
                .provider
                .spawn_compute(&cx, &key, &self.request)
                .await?;
            if made.ports.len() != 2 {
                return Err("the provider misread the answer".into());
            }
            orders += 1;
        }
        Ok(orders)
    }
}

type Job = (Intent, oneshot::Sender<bool>);

#[derive(Clone)]
struct Theirs {
    queue: mpsc::Sender<Job>,
    pool: Pooled<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

impl Theirs {
    fn new(address: SocketAddr, db: Database) -> Self {
        let (queue, mut jobs) = mpsc::channel::<Job>(1024);
        std::thread::spawn(move || {
            let (mut group, mut position) = (Vec::new(), 0);
            while jobs.blocking_recv_many(&mut group, MAX_GROUP) > 0 {
                let written = commit(&db, &group, &mut position).is_ok();
                for (_, reply) in group.drain(..) {
                    // A caller that stopped waiting gets no answer.
                    let _ = reply.send(written);
                }
            }
        });
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = Pooled::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self {
            queue,
            pool,
            address,
        }
    }

    async fn run(self) -> Result<u32, Failure> {
        let end = Instant::now() + ROUND;
        let entropy = atlas_core::SystemEntropy::new();
        let mut orders = 0;
        while Instant::now() < end {
            let (reply, answer) = oneshot::channel();
            self.queue
                .send((Intent::new(&entropy), reply))
                .await
                .map_err(|_| "the writer is gone")?;
            if !answer.await? {
                return Err("the intent was not written".into());
            }
            let body = serde_json::json!({
                "name": "atlas-session-a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc",
                "image": "ghcr.io/acme/infer:1.2.3",
                "gpu": { "id": "NVIDIA H100 80GB HBM3", "count": 1 },
                "cloud": "SECURE",
                "ports": ["8000/http"],
                "env": { "ATLAS_LAUNCH_KEY": "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc" },
            });
            let mut request = Request::post(format!("http://{}/v2/pods", self.address))
                .body(Full::new(Bytes::from(body.to_string())))?;
            head(request.headers_mut(), None)?;
            request.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            read(self.pool.request(request).await?).await?;
            orders += 1;
        }
        Ok(orders)
    }
}

fn commit(db: &Database, group: &[Job], position: &mut u64) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    {
        let (mut sessions, mut attempts) = (txn.open_table(SESSIONS)?, txn.open_table(ATTEMPTS)?);
        let (mut events, mut feed, mut heads) = (
            txn.open_table(EVENTS)?,
            txn.open_table(FEED)?,
            txn.open_table(HEADS)?,
        );
        for (intent, _) in group {
            *position += 1;
            let event = [intent.session.as_slice(), &1_u64.to_be_bytes()].concat();
            sessions.insert(intent.session.as_slice(), &*intent.record)?;
            attempts.insert(intent.attempt.as_slice(), &*intent.row)?;
            events.insert(event.as_slice(), &*intent.event)?;
            feed.insert(*position, event.as_slice())?;
            heads.insert(intent.session.as_slice(), 1)?;
        }
        let mut meta = txn.open_table(META)?;
        meta.insert("last_commit", *position)?;
        meta.insert("last_position", *position)?;
    }
    txn.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::SeededEntropy;

    #[test]
    fn every_intent_is_another_sessions() {
        let entropy = SeededEntropy::new(1);
        let (a, b) = (Intent::new(&entropy), Intent::new(&entropy));
        assert!(a.session != b.session && a.attempt != b.attempt);
    }
}
