//! `touch_N`: touches by N threads over 100,000 sessions, against a sharded map with an atomic
//! store and nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use atlas_core::{AccountLimits, AnyProvider};
use atlas_orchestrator::store::AnyStore;
use atlas_orchestrator::{Orchestrator, SessionId, Touch};

use super::Measured;
use super::cloud::Obliging;
use super::sessions::{Fleet, Generated, builder, quiet};
use crate::Failure;
use crate::measure::{cpu_time, median};

const SESSIONS: u64 = 100_000;
const SHARDS: usize = 64;
const ROUNDS: usize = 11;
/// Of each thread, in each round.
const TOUCHES: u64 = 400_000;

/// The baseline: what a touch cannot do without.
struct Bare(Vec<RwLock<HashMap<SessionId, AtomicI64>>>);

impl Bare {
    fn new(ids: &[SessionId]) -> Self {
        let mut shards: Vec<HashMap<SessionId, AtomicI64>> =
            (0..SHARDS).map(|_| HashMap::new()).collect();
        for id in ids {
            shards[Self::shard(*id)].insert(*id, AtomicI64::new(0));
        }
        Self(shards.into_iter().map(RwLock::new).collect())
    }

    fn shard(id: SessionId) -> usize {
        usize::from(id.as_bytes()[15]) % SHARDS
    }

    fn touch(&self, id: SessionId, now: i64) -> bool {
        let shard = self.0[Self::shard(id)]
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard
            .get(&id)
            .map(|cell| cell.store(now, Ordering::Relaxed))
            .is_some()
    }
}

/// Touches per CPU second, by so many threads at once.
fn rate(
    threads: u64,
    ids: &[SessionId],
    touch: impl Fn(SessionId, u64) -> bool + Sync,
) -> Result<f64, Failure> {
    let before = cpu_time();
    let all = std::thread::scope(|scope| {
        let touch = &touch;
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    // A walk over all of them in an order that no cache foresees.
                    let mut at = thread.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
                    (0..TOUCHES).all(|turn| {
                        at = at
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let index = usize::try_from((at >> 33) % SESSIONS).unwrap_or(0);
                        touch(ids[index], turn)
                    })
                })
            })
            .collect();
        running
            .into_iter()
            .all(|thread| thread.join().unwrap_or(false))
    });
    if !all {
        return Err("a touch was not taken".into());
    }
    #[expect(clippy::cast_precision_loss, reason = "a few millions are exact")]
    Ok((threads * TOUCHES) as f64 / cpu_time().saturating_sub(before).as_secs_f64())
}

pub(super) fn measure(threads: u64) -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let fleet = Arc::new(Fleet::new(SESSIONS)?);
    let ids: Vec<SessionId> = (0..SESSIONS).map(|index| fleet.id(index)).collect();
    let bare = Bare::new(&ids);
    let orchestrator: Orchestrator = runtime.block_on(async {
        let cloud = AnyProvider::new(Obliging::new()?);
        let store = AnyStore::new(Generated::new(fleet));
        Ok::<_, Failure>(
            builder(store, cloud, quiet(AccountLimits::default()))?
                .start()
                .await?,
        )
    })?;
    let (mut value, mut base) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        // With the clock, the flush that makes them durable, and whatever else a touch is.
        let ours = rate(threads, &ids, |id, _| {
            orchestrator.touch(id) == Touch::Recorded
        })?;
        let theirs = rate(threads, &ids, |id, turn| {
            bare.touch(id, i64::try_from(turn).unwrap_or(0))
        })?;
        if round > 0 {
            value.push(ours);
            base.push(theirs);
        }
    }
    Ok(Measured {
        value: median(value),
        baseline: Some(median(base)),
        point_reads: None,
    })
}
