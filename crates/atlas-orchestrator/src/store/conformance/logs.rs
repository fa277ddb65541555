//! Event logs: gapless per session, numbered over all sessions, deleted only on request.

use tokio::task::JoinSet;

use super::{Failure, Outcome, Subject, Verdict, same, word};
use crate::store::{AnyStore, Batch, StoredEvent};

const A: [u8; 16] = [1; 16];
const B: [u8; 16] = [2; 16];

fn appends(places: &[([u8; 16], u64)]) -> Batch {
    let mut batch = Batch::new();
    for (session, seq) in places {
        batch.append(*session, *seq, format!("{}/{seq}", session[0]));
    }
    batch
}

async fn try_append(store: &AnyStore, places: &[([u8; 16], u64)]) -> &'static str {
    word(&store.commit(appends(places)).await)
}

fn seqs(events: Vec<StoredEvent>) -> Vec<u64> {
    events.into_iter().map(|e| e.seq).collect()
}

pub(super) async fn a_log_takes_only_the_next_event<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    same(
        "the second of none",
        try_append(&store, &[(A, 2)]).await,
        "conflict",
    )?;
    same(
        "the zeroth",
        try_append(&store, &[(A, 0)]).await,
        "conflict",
    )?;
    same("the first", try_append(&store, &[(A, 1)]).await, "applied")?;
    same(
        "the first again",
        try_append(&store, &[(A, 1)]).await,
        "conflict",
    )?;
    same("a gap", try_append(&store, &[(A, 3)]).await, "conflict")?;
    same(
        "two, with a gap between",
        try_append(&store, &[(A, 2), (A, 4)]).await,
        "conflict",
    )?;
    same(
        "two, in the wrong order",
        try_append(&store, &[(A, 3), (A, 2)]).await,
        "conflict",
    )?;
    same(
        "two, and another log's",
        try_append(&store, &[(A, 2), (B, 1), (A, 3)]).await,
        "applied",
    )?;
    same(
        "one right, another log's wrong",
        try_append(&store, &[(A, 4), (B, 3)]).await,
        "conflict",
    )?;
    same(
        "beyond counting",
        try_append(&store, &[(A, u64::MAX)]).await,
        "conflict",
    )?;
    same(
        "the log",
        seqs(store.events(A, 0, 99).await?),
        vec![1, 2, 3],
    )?;
    same(
        "the other log",
        seqs(store.events(B, 0, 99).await?),
        vec![1],
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn events_read_from_a_cursor_in_pages<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    for seq in 1..=20 {
        store.commit(appends(&[(A, seq), (B, seq)])).await?;
    }
    let mut cursor = 0;
    let mut seen = Vec::new();
    loop {
        let page = store.events(A, cursor, 7).await?;
        let Some(last) = page.last() else { break };
        cursor = last.seq;
        seen.extend(page);
    }
    same(
        "payloads",
        seen.iter()
            .all(|e| e.session == A && e.payload == format!("1/{}", e.seq).into_bytes()),
        true,
    )?;
    same("all of them", seqs(seen), (1..=20).collect())?;
    same(
        "after the last",
        seqs(store.events(A, 20, 7).await?),
        vec![],
    )?;
    same(
        "beyond the last",
        seqs(store.events(A, u64::MAX, 7).await?),
        vec![],
    )?;
    same("a page of none", seqs(store.events(A, 0, 0).await?), vec![])?;
    same(
        "an unknown session",
        seqs(store.events([3; 16], 0, 7).await?),
        vec![],
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn the_feed_numbers_all_events_without_gaps<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    store.commit(appends(&[(B, 1), (A, 1), (B, 2)])).await?;
    same("refused", try_append(&store, &[(A, 9)]).await, "conflict")?;
    store.commit(appends(&[(A, 2)])).await?;
    let all = store.feed(0, 99).await?;
    let places: Vec<_> = all.iter().map(|e| (e.position, e.session, e.seq)).collect();
    same(
        "in the order of commits",
        places,
        vec![(1, B, 1), (2, A, 1), (3, B, 2), (4, A, 2)],
    )?;
    same("from a cursor", store.feed(1, 2).await?, all[1..3].to_vec())?;
    same("after the last", store.feed(4, 9).await?, vec![])?;
    same("the newest position", store.info().await?.last_position, 4)?;
    let own = store.events(A, 0, 9).await?;
    same(
        "a log shows the same events",
        own,
        vec![all[1].clone(), all[3].clone()],
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn of_concurrent_appends_of_one_place_exactly_one_wins<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    for seq in 1..=5 {
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let store = store.clone();
            tasks.spawn(async move { try_append(&store, &[(A, seq)]).await });
        }
        let mut words = Vec::new();
        while let Some(word) = tasks.join_next().await {
            words.push(word.map_err(Failure::from)?);
        }
        words.sort_unstable();
        let mut wanted = vec!["conflict"; 8];
        wanted[0] = "applied";
        same(format!("event {seq}"), words, wanted)?;
    }
    same(
        "the log",
        seqs(store.events(A, 0, 99).await?),
        (1..=5).collect(),
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn forgotten_events_are_gone_and_the_next_still_follows<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    store.forget_events(A, 9).await?;
    store
        .commit(appends(&[(A, 1), (A, 2), (B, 1), (A, 3)]))
        .await?;
    store.forget_events(A, 2).await?;
    same("the log", seqs(store.events(A, 0, 9).await?), vec![3])?;
    let feed: Vec<_> = store
        .feed(0, 9)
        .await?
        .into_iter()
        .map(|e| e.position)
        .collect();
    same("the feed", feed, vec![3, 4])?;
    store.forget_events(A, u64::MAX).await?;
    same(
        "the log, all forgotten",
        seqs(store.events(A, 0, 9).await?),
        vec![],
    )?;
    same(
        "the newest position, forgotten or not",
        store.info().await?.last_position,
        4,
    )?;
    same(
        "from the start again",
        try_append(&store, &[(A, 1)]).await,
        "conflict",
    )?;
    same("the next", try_append(&store, &[(A, 4)]).await, "applied")?;
    let feed: Vec<_> = store
        .feed(0, 9)
        .await?
        .into_iter()
        .map(|e| (e.position, e.session, e.seq))
        .collect();
    same("the feed goes on", feed, vec![(3, B, 1), (5, A, 4)])?;
    Ok(Verdict::Passed)
}
