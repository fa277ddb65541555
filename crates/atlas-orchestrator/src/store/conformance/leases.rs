//! Leases on the store's own clock, and the fences they give.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Failure, Outcome, Subject, Verdict, holds, same, word};
use crate::store::{AnyStore, Batch, Fence, Table};

/// Long enough for a store that answers slowly, short enough for waiting if the store's clock
/// cannot be moved.
const TTL: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(600);

async fn take(store: &AnyStore, holder: &str, ttl: Duration) -> Result<Option<u64>, Failure> {
    Ok(store
        .lease_acquire("node/a", holder, ttl)
        .await?
        .map(|f| f.number))
}

async fn taken(store: &AnyStore, holder: &str, ttl: Duration) -> Result<Fence, Failure> {
    let fence = store.lease_acquire("node/a", holder, ttl).await?;
    fence.ok_or_else(|| Failure(format!("{holder} was not given a lease that is free")))
}

fn write(fence: &Fence) -> Batch {
    let mut batch = Batch::new().fenced(fence.clone());
    batch.put(Table::Nodes, *b"k", *b"v");
    batch
}

pub(super) async fn a_lease_is_held_by_one_until_it_expires<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    let fence = taken(&store, "one", TTL).await?;
    same(
        "scope and holder",
        (fence.scope.as_str(), fence.holder.as_str()),
        ("node/a", "one"),
    )?;
    same("its end", fence.expires_at.since(fence.store_time), TTL)?;
    holds(
        "its time is the store's",
        store.now().await? >= fence.store_time,
    )?;
    same("another, at once", take(&store, "two", TTL).await?, None)?;
    holds(
        "another scope is free",
        store.lease_acquire("node/b", "two", TTL).await?.is_some(),
    )?;
    subject.pass(TTL * 2).await;
    holds(
        "the store's clock moved",
        store.now().await? >= fence.expires_at,
    )?;
    same(
        "another, after its end",
        take(&store, "two", LONG).await?,
        Some(2),
    )?;
    same("the first, now", take(&store, "one", TTL).await?, None)?;
    Ok(Verdict::Passed)
}

pub(super) async fn each_acquisition_grows_the_number<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    same("first", take(&store, "one", LONG).await?, Some(1))?;
    same(
        "the same holder again",
        take(&store, "one", LONG).await?,
        Some(2),
    )?;
    let fence = taken(&store, "one", LONG).await?;
    store.lease_release(&fence).await?;
    same("after a release", take(&store, "two", TTL).await?, Some(4))?;
    subject.pass(TTL * 2).await;
    same("after an expiry", take(&store, "one", LONG).await?, Some(5))?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_renewal_keeps_the_number_and_moves_the_end<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let fence = taken(&store, "one", TTL).await?;
    let renewed = store.lease_renew(&fence, LONG).await?;
    let renewed = renewed.ok_or_else(|| Failure("its holder could not renew it".to_owned()))?;
    same("number", renewed.number, fence.number)?;
    same(
        "its end",
        renewed.expires_at.since(renewed.store_time),
        LONG,
    )?;
    holds(
        "its time is not before",
        renewed.store_time >= fence.store_time,
    )?;
    subject.pass(TTL * 2).await;
    same(
        "another, after the old end",
        take(&store, "two", TTL).await?,
        None,
    )?;
    same(
        "a batch under the fence as it was",
        word(&store.commit(write(&fence)).await),
        "applied",
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn an_expired_lease_that_nobody_took_still_counts<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let fence = taken(&store, "one", TTL).await?;
    subject.pass(TTL * 2).await;
    same(
        "a batch",
        word(&store.commit(write(&fence)).await),
        "applied",
    )?;
    holds(
        "it can be renewed",
        store.lease_renew(&fence, LONG).await?.is_some(),
    )?;
    same("then another", take(&store, "two", TTL).await?, None)?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_released_lease_is_free_at_once<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    let fence = taken(&store, "one", LONG).await?;
    store.lease_release(&fence).await?;
    same("renewing it", store.lease_renew(&fence, LONG).await?, None)?;
    same("another", take(&store, "two", LONG).await?, Some(2))?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_batch_under_the_newest_fence_is_applied<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    let fence = taken(&store, "one", LONG).await?;
    let number = store.commit(write(&fence)).await?;
    same(
        "an empty one",
        store.commit(Batch::new().fenced(fence.clone())).await?,
        number,
    )?;
    let mut conflicting = write(&fence);
    conflicting.guard(Table::Nodes, *b"k", None);
    same(
        "its guards are tested too",
        word(&store.commit(conflicting).await),
        "conflict",
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_batch_under_a_lost_lease_is_refused_whole<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let old = taken(&store, "one", TTL).await?;
    subject.pass(TTL * 2).await;
    let new = taken(&store, "two", LONG).await?;
    let mut batch = write(&old);
    batch.append([1; 16], 1, *b"x");
    same(
        "the old owner's batch",
        word(&store.commit(batch).await),
        "fenced",
    )?;
    same(
        "the old owner's empty batch",
        word(&store.commit(Batch::new().fenced(old)).await),
        "fenced",
    )?;
    same("its row", store.get(Table::Nodes, b"k").await?, None)?;
    same("its event", store.events([1; 16], 0, 9).await?, vec![])?;
    same(
        "the new owner's batch",
        word(&store.commit(write(&new)).await),
        "applied",
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_batch_under_a_released_or_invented_lease_is_refused<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let fence = taken(&store, "one", LONG).await?;
    let unknown = Fence {
        scope: "node/unknown".to_owned(),
        ..fence.clone()
    };
    same(
        "of a scope that never was",
        word(&store.commit(write(&unknown)).await),
        "fenced",
    )?;
    let ahead = Fence {
        number: fence.number + 1,
        ..fence.clone()
    };
    same(
        "of a number never given",
        word(&store.commit(write(&ahead)).await),
        "fenced",
    )?;
    let foreign = Fence {
        holder: "two".to_owned(),
        ..fence.clone()
    };
    same(
        "of another holder",
        word(&store.commit(write(&foreign)).await),
        "fenced",
    )?;
    let again = taken(&store, "one", LONG).await?;
    same(
        "of the same holder's earlier life",
        word(&store.commit(write(&fence)).await),
        "fenced",
    )?;
    store.lease_release(&again).await?;
    same(
        "released",
        word(&store.commit(write(&again)).await),
        "fenced",
    )?;
    same("nothing was written", store.info().await?.last_commit, 0)?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_batch_without_a_fence_needs_no_lease<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    taken(&store, "one", LONG).await?;
    let mut sighting = Batch::new();
    sighting.put(Table::Sightings, *b"k", *b"v");
    same("a sighting", word(&store.commit(sighting).await), "applied")?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_lost_lease_can_be_neither_renewed_nor_released<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let old = taken(&store, "one", TTL).await?;
    subject.pass(TTL * 2).await;
    let new = taken(&store, "two", LONG).await?;
    same("renewing", store.lease_renew(&old, LONG).await?, None)?;
    store.lease_release(&old).await?;
    same("it is still held", take(&store, "three", LONG).await?, None)?;
    holds(
        "its owner renews it",
        store.lease_renew(&new, LONG).await?.is_some(),
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn of_concurrent_acquirers_exactly_one_wins<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    let mut tasks = JoinSet::new();
    for n in 0..16 {
        let store = store.clone();
        tasks.spawn(async move {
            store
                .lease_acquire("reap/a", &format!("node-{n}"), LONG)
                .await
        });
    }
    let mut won = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        won.extend(answer??.map(|f| f.number));
    }
    same("numbers given", won, vec![1])?;
    Ok(Verdict::Passed)
}

pub(super) async fn leases_are_listed_in_order_also_when_over<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    for scope in ["reap/b", "node/c", "node/a", "node/b", "nodes"] {
        store.lease_acquire(scope, "one", TTL).await?;
    }
    let released = taken(&store, "one", LONG).await?;
    store.lease_release(&released).await?;
    subject.pass(TTL * 2).await;
    let now = store.now().await?;
    let listed = store.leases("node/").await?;
    let seen: Vec<_> = listed
        .iter()
        .map(|l| (l.scope.as_str(), l.number))
        .collect();
    same(
        "below a prefix",
        seen,
        vec![("node/a", 2), ("node/b", 1), ("node/c", 1)],
    )?;
    holds("all are over", listed.iter().all(|l| l.expires_at <= now))?;
    same("all", store.leases("").await?.len(), 5)?;
    same("none", store.leases("x").await?, vec![])?;
    Ok(Verdict::Passed)
}
