//! `spawn_rate`: sessions put on record durably, against a bare redb that commits the same rows in
//! groups of the same size.

use std::path::Path;
use std::sync::Arc;

use atlas_core::{AccountLimits, AnyProvider, ComputeRequest, Gpu, Port};
use atlas_orchestrator::store::{AnyStore, Store, Table};
use atlas_orchestrator::{Orchestrator, SessionKind, SessionOptions};
use atlas_store_redb::Redb;
use redb::{Database, TableDefinition};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Measured;
use super::cloud::Obliging;
use super::sessions::{Undriven, builder, quiet};
use crate::Failure;
use crate::measure::median;

const ROUNDS: usize = 7;
/// Callers at once, and how many sessions each asks for in a round.
const CALLERS: usize = 256;
const EACH: usize = 8;
/// While one transaction reaches the disk the next one fills: half of the callers wait for each.
const GROUP: usize = CALLERS / 2;

type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;
const SESSIONS: Bytes = TableDefinition::new("sessions");
const SEALED: Bytes = TableDefinition::new("sealed");
const EVENTS: Bytes = TableDefinition::new("events");
const FEED: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("feed");
const HEADS: TableDefinition<'static, &'static [u8], u64> = TableDefinition::new("heads");
const META: TableDefinition<'static, &'static str, u64> = TableDefinition::new("meta");

/// One session's rows, as they were written.
struct Rows {
    key: Vec<u8>,
    session: Vec<u8>,
    sealed: Vec<u8>,
    event: Vec<u8>,
}

pub(super) fn measure() -> Result<Measured, Failure> {
    let dir = tempfile::Builder::new().prefix("atlas-bench-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let store = Redb::open(dir.path().join("ours.redb"))?;
    let bare = Database::create(dir.path().join("bare.redb"))?;
    let orchestrator = runtime.block_on(start(&store))?;
    let (mut value, mut base, mut position) = (Vec::new(), Vec::new(), 0);
    for round in 0..=ROUNDS {
        let began = Instant::now();
        runtime.block_on(launch(&orchestrator))?;
        let ours = began.elapsed();
        let rows = runtime.block_on(newest(&store))?;
        let began = Instant::now();
        for group in rows.chunks(GROUP) {
            position = write(&bare, group, position)?;
        }
        let theirs = began.elapsed();
        if round > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a few thousand are exact")]
            let sessions = (CALLERS * EACH) as f64;
            value.push(sessions / ours.as_secs_f64());
            base.push(sessions / theirs.as_secs_f64());
        }
    }
    check(dir.path())?;
    Ok(Measured {
        value: median(value),
        baseline: Some(median(base)),
        point_reads: None,
    })
}

/// No session is driven: what follows the record is the cloud's time, and is measured by other
/// rows.
async fn start(store: &Redb) -> Result<Orchestrator, Failure> {
    let policy = quiet(AccountLimits::default());
    let cloud = AnyProvider::new(Obliging::new()?);
    Ok(builder(AnyStore::new(store.clone()), cloud, policy)?
        .spawner(Arc::new(Undriven))
        .start()
        .await?)
}

async fn launch(orchestrator: &Orchestrator) -> Result<(), Failure> {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let orchestrator = orchestrator.clone();
        callers.spawn(async move {
            for _ in 0..EACH {
                let request = ComputeRequest::gpu(Gpu::H100)
                    .image("ghcr.io/acme/infer:1")
                    .port(Port::http(8000));
                let request = request.auth(atlas_core::Auth::Bearer);
                orchestrator
                    .launch(
                        request,
                        SessionOptions::new().user("u42"),
                        SessionKind::Interactive,
                    )
                    .await?;
            }
            Ok::<_, atlas_core::Error>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    Ok(())
}

/// The rows of a round's sessions. Their sizes are what counts: any round's are the same.
async fn newest(store: &Redb) -> Result<Vec<Rows>, Failure> {
    let sessions = store
        .scan(Table::Sessions, &[], None, CALLERS * EACH)
        .await?;
    let mut rows = Vec::with_capacity(sessions.len());
    for session in sessions {
        let id: [u8; 16] = session.key.as_slice().try_into()?;
        let sealed = store
            .get(Table::Sealed, &session.key)
            .await?
            .ok_or("a session without its request")?;
        let event = store
            .events(id, 0, 1)
            .await?
            .pop()
            .ok_or("a session without its event")?;
        rows.push(Rows {
            key: session.key,
            session: session.value,
            sealed: sealed.value,
            event: event.payload,
        });
    }
    Ok(rows)
}

fn write(db: &Database, group: &[Rows], mut position: u64) -> Result<u64, Failure> {
    let txn = db.begin_write()?;
    {
        let (mut sessions, mut sealed) = (txn.open_table(SESSIONS)?, txn.open_table(SEALED)?);
        let (mut events, mut feed, mut heads) = (
            txn.open_table(EVENTS)?,
            txn.open_table(FEED)?,
            txn.open_table(HEADS)?,
        );
        for rows in group {
            position += 1;
            // New keys, as new sessions have.
            let mut key = rows.key.clone();
            key[6..14].copy_from_slice(&position.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
            let event = [key.as_slice(), &1_u64.to_be_bytes()].concat();
            sessions.insert(key.as_slice(), rows.session.as_slice())?;
            sealed.insert(key.as_slice(), rows.sealed.as_slice())?;
            events.insert(event.as_slice(), rows.event.as_slice())?;
            feed.insert(position, event.as_slice())?;
            heads.insert(key.as_slice(), 1)?;
        }
        let mut meta = txn.open_table(META)?;
        meta.insert("last_commit", position)?;
        meta.insert("last_position", position)?;
    }
    txn.commit()?;
    Ok(position)
}

/// Both files are there: nothing was measured in memory.
fn check(dir: &Path) -> Result<(), Failure> {
    for name in ["ours.redb", "bare.redb"] {
        if std::fs::metadata(dir.join(name))?.len() == 0 {
            return Err(format!("{name} is empty").into());
        }
    }
    Ok(())
}
