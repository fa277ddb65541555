//! `fanout`: one session's events to 1,000 subscribers, against tokio's broadcast channel with the
//! same values.

use std::sync::Arc;

use atlas_core::{AccountLimits, AnyProvider, SystemClock};
use atlas_orchestrator::store::{AnyStore, Memory};
use atlas_orchestrator::{Cursor, Delivery, Orchestrator, Scope, SessionId};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::Measured;
use super::cloud::Obliging;
use super::sessions::{Fleet, builder, quiet};
use crate::Failure;
use crate::measure::{cpu_time, median};

const SUBSCRIBERS: u32 = 1000;
const EVENTS: u32 = 200;
const ROUNDS: usize = 7;

pub(super) fn measure() -> Result<Measured, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let fleet = Fleet::new(1)?;
        let store = Memory::new(Arc::new(SystemClock), &atlas_core::SeededEntropy::new(1));
        fleet.put_into(&store).await?;
        let cloud = AnyProvider::new(Obliging::new()?);
        let orchestrator = builder(AnyStore::new(store), cloud, quiet(AccountLimits::default()))?
            .start()
            .await?;
        let id = fleet.id(0);
        let sample = sample(&orchestrator, id).await?;
        let (mut value, mut base) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let ours = deliver(&orchestrator, id).await?;
            let theirs = broadcast(&sample).await?;
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
    })
}

async fn sample(orchestrator: &Orchestrator, id: SessionId) -> Result<Delivery, Failure> {
    let mut events = orchestrator.subscribe(Scope::Session(id), Cursor::NOW);
    orchestrator.report(id, "progress", "50 %").await?;
    Ok(events.next().await?.ok_or("no event came")?)
}

fn per_cpu_second(before: std::time::Duration) -> f64 {
    f64::from(SUBSCRIBERS * EVENTS) / cpu_time().saturating_sub(before).as_secs_f64()
}

/// Each event is committed, read from the feed, and handed to each subscriber in order.
async fn deliver(orchestrator: &Orchestrator, id: SessionId) -> Result<f64, Failure> {
    let mut readers = JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        let mut events = orchestrator.subscribe(Scope::Session(id), Cursor::NOW);
        readers.spawn(async move {
            let mut last = None;
            for _ in 0..EVENTS {
                let seq = events
                    .next()
                    .await
                    .ok()
                    .flatten()
                    .map(|delivery| delivery.event.seq);
                if seq.is_none() || last.is_some_and(|last| seq != Some(last + 1)) {
                    return false;
                }
                last = seq;
            }
            true
        });
    }
    let before = cpu_time();
    for _ in 0..EVENTS {
        orchestrator.report(id, "progress", "50 %").await?;
        tokio::task::yield_now().await;
    }
    while let Some(whole) = readers.join_next().await {
        if !whole? {
            return Err("a subscriber missed an event".into());
        }
    }
    Ok(per_cpu_second(before))
}

async fn broadcast(sample: &Delivery) -> Result<f64, Failure> {
    let (sender, _) = broadcast::channel::<Delivery>(4096);
    let mut readers = JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        let mut events = sender.subscribe();
        readers.spawn(async move {
            for _ in 0..EVENTS {
                if events.recv().await.is_err() {
                    return false;
                }
            }
            true
        });
    }
    let before = cpu_time();
    for _ in 0..EVENTS {
        sender.send(sample.clone()).map_err(|_| "nobody listens")?;
        tokio::task::yield_now().await;
    }
    while let Some(whole) = readers.join_next().await {
        if !whole? {
            return Err("a receiver missed an event".into());
        }
    }
    Ok(per_cpu_second(before))
}
