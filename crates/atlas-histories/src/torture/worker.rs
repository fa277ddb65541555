//! The worker: an orchestrator over the real RunPod provider and one redb file, like any backend's.

use std::io::{BufRead, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use atlas::RunPod;
use atlas_core::{
    AnyProvider, Auth, ComputeRequest, Error, ErrorKind, Gpu, Port, Result, SystemEntropy,
};
use atlas_orchestrator::realm::{FileLedger, Realm};
use atlas_orchestrator::store::AnyStore;
use atlas_orchestrator::{
    Orchestrator, SessionFilter, SessionInfo, SessionKind, SessionOptions, SessionState, Shutdown,
};
use atlas_store_redb::Redb;
use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::orders::{KEEPER, Orders, Task, account};

/// Sessions that outlive the run, and the most that are under way besides.
const KEEPERS: usize = 4;
const MOST: usize = 14;

/// Reads its orders, and carries them out.
pub(crate) fn main() -> ExitCode {
    let mut line = String::new();
    let orders: Orders = match std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map(|_| serde_json::from_str(&line))
    {
        Ok(Ok(orders)) => orders,
        other => {
            eprintln!("torture worker: no orders: {other:?}");
            return ExitCode::from(2);
        }
    };
    // Nothing would kill it once its parent is gone.
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read(&mut [0; 1]);
        std::process::exit(3);
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("torture worker: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(work(&orders)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture worker: {:?}: {error}", orders.task);
            ExitCode::FAILURE
        }
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that does not listen any more is gone, and then so is this process.
    let _ = writeln!(out, "{what}").and_then(|()| out.flush());
}

async fn work(orders: &Orders) -> Result<()> {
    let orchestrator = start(orders).await?;
    if let Some(why) = orchestrator.hold() {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!("a killed process makes the next one hold: {why}"),
        ));
    }
    say("started");
    match orders.task {
        Task::Churn => churn(&orchestrator, orders).await,
        Task::Settle => {
            settle(&orchestrator, orders).await?;
            orchestrator.shutdown(Shutdown::Handover).await.map(drop)
        }
        Task::End => {
            let report = orchestrator
                .shutdown(Shutdown::TerminateAll {
                    wait: orders.patience,
                })
                .await?;
            let left = report.unsettled.len();
            if left == 0 {
                Ok(())
            } else {
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{left} sessions did not end"),
                ))
            }
        }
    }
}

async fn start(orders: &Orders) -> Result<Orchestrator> {
    let entropy = Arc::new(SystemEntropy::new());
    let provider = RunPod::builder()
        .environment(|name| std::env::var(name).ok())
        .limits(orders.limits)
        .build()?;
    Orchestrator::builder()
        .account(account()?, AnyProvider::new(provider))
        .store(AnyStore::new(Redb::open(&orders.store)?))
        .realm(Realm::load_or_create(&orders.secret, &*entropy)?)
        .ledger(Arc::new(FileLedger::beside(
            &orders.secret,
            entropy.clone(),
        )))
        .entropy(entropy)
        .policy(orders.policy.clone())
        .start()
        .await
}

/// Acts like users, concurrently, until it is killed.
async fn churn(orchestrator: &Orchestrator, orders: &Orders) -> Result<()> {
    let chance = Chance::new(orders.seed);
    loop {
        let live = orchestrator.list(SessionFilter::live()).await?;
        let (keepers, passing): (Vec<_>, Vec<_>) = live.iter().partition(|info| is_keeper(info));
        let room = MOST.saturating_sub(passing.iter().filter(|info| info.reason.is_none()).count());
        let wanted = usize::try_from(chance.draw(0..4)).unwrap_or(0).min(room);
        for more in 0..wanted {
            order(orchestrator, &chance, keepers.len() + more < KEEPERS).await;
        }
        for info in live.iter().filter(|info| info.reason.is_none()) {
            if chance.percent(40) {
                let _ = orchestrator.touch(info.id);
            }
            if !is_keeper(info) && chance.percent(12) {
                // What was not taken was not promised; the next one asks again.
                drop(orchestrator.stop_tracked(info.id).await);
            }
        }
        if let Some(why) = orchestrator.hold() {
            return Err(Error::new(ErrorKind::Conflict, format!("it holds: {why}")));
        }
        sleep(chance.millis(5..120)).await;
    }
}

fn is_keeper(info: &SessionInfo) -> bool {
    info.options.labels.contains_key(KEEPER)
}

async fn order(orchestrator: &Orchestrator, chance: &Chance, keeper: bool) {
    let request = ComputeRequest::gpu(Gpu::L40S)
        .image("x/y:1")
        .port(Port::http(8000))
        .auth(Auth::Bearer);
    let hour = Duration::from_secs(3600);
    let (request, options, kind) = match chance.draw(0..10) {
        _ if keeper => (
            request,
            SessionOptions::new().label(KEEPER, "yes").idle_ttl(hour),
            SessionKind::Interactive,
        ),
        0..3 => {
            let (seconds, code) = (chance.draw(0..200), chance.draw(0..3));
            let script = format!("sleep {seconds}; exit {code}");
            (
                request.command(["sh", "-c", &script]),
                SessionOptions::new().max_runtime(hour),
                SessionKind::Task,
            )
        }
        3..6 => (
            request,
            SessionOptions::new()
                .idle_ttl(hour)
                .max_runtime(chance.millis(500..5000)),
            SessionKind::Interactive,
        ),
        _ => (
            request,
            SessionOptions::new().idle_ttl(chance.millis(300..3000)),
            SessionKind::Interactive,
        ),
    };
    // Refused or not durable: then there is no session, and none was promised.
    drop(orchestrator.launch(request, options, kind).await);
}

/// Waits until only keepers live, and then as long as it takes to find and end what should not be
/// there.
async fn settle(orchestrator: &Orchestrator, orders: &Orders) -> Result<()> {
    let until = Instant::now() + orders.patience;
    let mut quiet_since: Option<Instant> = None;
    loop {
        let sessions = orchestrator.list(SessionFilter::all()).await?;
        let open: Vec<&SessionInfo> = sessions.iter().filter(|info| !is_settled(info)).collect();
        if let Some(why) = orchestrator.hold() {
            return Err(Error::new(ErrorKind::Conflict, format!("it holds: {why}")));
        }
        match (open.first(), quiet_since) {
            (None, Some(since)) if since.elapsed() >= orders.heal() => return Ok(()),
            (None, Some(_)) => {}
            (None, None) => quiet_since = Some(Instant::now()),
            (Some(_), _) if Instant::now() < until => quiet_since = None,
            (Some(first), _) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "{} sessions did not settle, the first of them: {first:?}",
                        open.len()
                    ),
                ));
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn is_settled(info: &SessionInfo) -> bool {
    use atlas_orchestrator::AttemptPhase::{Absent, Dead, Live, NotApplied};
    let over = |phase| matches!(phase, NotApplied | Absent | Dead);
    match info.state {
        SessionState::Terminated => info.attempts.iter().all(|attempt| over(attempt.phase)),
        SessionState::Ready => {
            is_keeper(info)
                && info
                    .attempts
                    .iter()
                    .all(|a| over(a.phase) || (a.phase == Live && a.terminating.is_none()))
        }
        _ => false,
    }
}
