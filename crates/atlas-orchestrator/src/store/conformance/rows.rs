//! Rows: versions, guards, atomic batches, ordered scans, and the information a store gives about
//! itself.

use std::collections::BTreeSet;

use atlas_core::ErrorKind;
use tokio::task::JoinSet;

use super::{Failure, Outcome, Subject, Verdict, holds, same, word};
use crate::store::{AnyStore, Batch, CommitError, StorePoint, Table};

const MANY: u32 = 100_000;
const SESSION: [u8; 16] = [7; 16];

fn put(table: Table, key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    batch
}

async fn value(
    store: &AnyStore,
    table: Table,
    key: &[u8],
) -> Result<Option<(u64, Vec<u8>)>, Failure> {
    Ok(store
        .get(table, key)
        .await?
        .map(|row| (row.version, row.value)))
}

async fn keys(
    store: &AnyStore,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Vec<u8>>, Failure> {
    Ok(store
        .scan(Table::Sessions, prefix, after, limit)
        .await?
        .into_iter()
        .map(|row| row.key)
        .collect())
}

/// Every key, scanned in pages of this size.
async fn walk(store: &AnyStore, prefix: &[u8], page: usize) -> Result<Vec<Vec<u8>>, Failure> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        let next = keys(store, prefix, all.last().map(Vec::as_slice), page).await?;
        if next.is_empty() {
            return Ok(all);
        }
        holds(
            "a page has at most as many rows as asked for",
            next.len() <= page,
        )?;
        all.extend(next);
    }
}

pub(super) async fn an_empty_store_answers_nothing<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    for table in Table::ALL {
        same("get", store.get(table, b"k").await?, None)?;
        same("scan", store.scan(table, b"", None, 10).await?, vec![])?;
    }
    same("events", store.events(SESSION, 0, 10).await?, vec![])?;
    same("feed", store.feed(0, 10).await?, vec![])?;
    same("leases", store.leases("").await?, vec![])?;
    let info = store.info().await?;
    same("newest commit", info.last_commit, 0)?;
    same("newest position", info.last_position, 0)?;
    same("fingerprint", info.fingerprint, None)?;
    holds("it has an incarnation", !info.incarnation.is_empty())?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_row_reads_back_with_the_number_of_its_commit<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let first = store.commit(put(Table::Sessions, b"a", b"1")).await?;
    let second = store.commit(put(Table::Sessions, b"b", b"2")).await?;
    same(
        "a",
        value(&store, Table::Sessions, b"a").await?,
        Some((first, b"1".to_vec())),
    )?;
    same(
        "b",
        value(&store, Table::Sessions, b"b").await?,
        Some((second, b"2".to_vec())),
    )?;
    let third = store.commit(put(Table::Sessions, b"a", b"3")).await?;
    same(
        "a, again",
        value(&store, Table::Sessions, b"a").await?,
        Some((third, b"3".to_vec())),
    )?;
    let scanned = store.scan(Table::Sessions, b"", None, 10).await?;
    same(
        "scanned",
        scanned.into_iter().map(|r| r.version).collect::<Vec<_>>(),
        vec![third, second],
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn tables_are_apart<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    let mut batch = Batch::new();
    for table in Table::ALL {
        batch.put(table, *b"k", table.as_str());
    }
    let number = store.commit(batch).await?;
    let mut batch = Batch::new();
    batch.delete(Table::Sealed, *b"k");
    store.commit(batch).await?;
    for table in Table::ALL {
        let wanted = (table != Table::Sealed).then(|| (number, table.as_str().into()));
        same(table.as_str(), value(&store, table, b"k").await?, wanted)?;
    }
    Ok(Verdict::Passed)
}

pub(super) async fn commit_numbers_grow_by_one<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    for wanted in 1..=5 {
        same(
            "number",
            store.commit(put(Table::Nodes, b"n", b"")).await?,
            wanted,
        )?;
        same("newest commit", store.info().await?.last_commit, wanted)?;
    }
    let mut refused = put(Table::Nodes, b"n", b"");
    refused.guard(Table::Nodes, *b"n", None);
    same(
        "a guard that cannot hold",
        word(&store.commit(refused).await),
        "conflict",
    )?;
    same(
        "a refused batch takes no number",
        store.commit(put(Table::Nodes, b"n", b"")).await?,
        6,
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn an_empty_batch_tests_and_changes_nothing<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    same("of a new store", store.commit(Batch::new()).await?, 0)?;
    let number = store.commit(put(Table::Accounts, b"a", b"1")).await?;
    let mut test = Batch::new();
    test.guard(Table::Accounts, *b"a", Some(number));
    same(
        "a guard that holds",
        store.commit(test.clone()).await?,
        number,
    )?;
    same("newest commit", store.info().await?.last_commit, number)?;
    test.guard(Table::Accounts, *b"b", Some(number));
    same(
        "a guard that does not hold",
        word(&store.commit(test).await),
        "conflict",
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_guard_holds_only_at_the_version_read<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    let guarded = |expected, value: &[u8]| {
        let mut batch = put(Table::Sessions, b"k", value);
        batch.guard(Table::Sessions, *b"k", expected);
        batch
    };
    same(
        "a version of a missing row",
        word(&store.commit(guarded(Some(0), b"x")).await),
        "conflict",
    )?;
    let first = store.commit(guarded(None, b"1")).await?;
    same(
        "none, but it exists",
        word(&store.commit(guarded(None, b"x")).await),
        "conflict",
    )?;
    let second = store.commit(guarded(Some(first), b"2")).await?;
    same(
        "an older version",
        word(&store.commit(guarded(Some(first), b"x")).await),
        "conflict",
    )?;
    same(
        "a newer version",
        word(&store.commit(guarded(Some(second + 1), b"x")).await),
        "conflict",
    )?;
    same(
        "the row",
        value(&store, Table::Sessions, b"k").await?,
        Some((second, b"2".to_vec())),
    )?;
    let mut two = guarded(Some(second), b"x");
    two.guard(Table::Attempts, *b"other", Some(1));
    same(
        "the second of two guards",
        word(&store.commit(two).await),
        "conflict",
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_row_written_again_after_a_delete_is_another_row<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let old = store.commit(put(Table::Sealed, b"k", b"1")).await?;
    let mut delete = Batch::new();
    delete.delete(Table::Sealed, *b"k");
    store.commit(delete).await?;
    same("deleted", store.get(Table::Sealed, b"k").await?, None)?;
    let new = store.commit(put(Table::Sealed, b"k", b"1")).await?;
    holds("it has a newer version", new > old)?;
    let mut stale = put(Table::Sealed, b"k", b"x");
    stale.guard(Table::Sealed, *b"k", Some(old));
    same(
        "a guard on the old one",
        word(&store.commit(stale).await),
        "conflict",
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn the_last_put_wins_and_deletes_come_after_puts<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let mut batch = put(Table::Sessions, b"twice", b"1");
    batch.put(Table::Sessions, *b"twice", *b"2");
    batch.delete(Table::Sessions, *b"gone");
    batch.delete(Table::Sessions, *b"never there");
    batch.put(Table::Sessions, *b"gone", *b"x");
    let number = store.commit(batch).await?;
    same(
        "twice",
        value(&store, Table::Sessions, b"twice").await?,
        Some((number, b"2".to_vec())),
    )?;
    same("gone", store.get(Table::Sessions, b"gone").await?, None)?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_refused_guard_leaves_nothing_of_its_batch<S: Subject>(
    subject: &S,
) -> Outcome {
    refused_whole(subject, |batch| {
        batch.guard(Table::Attempts, *b"missing", Some(1))
    })
    .await
}

pub(super) async fn a_refused_append_leaves_nothing_of_its_batch<S: Subject>(
    subject: &S,
) -> Outcome {
    refused_whole(subject, |batch| batch.append([8; 16], 2, *b"a gap")).await
}

async fn refused_whole<S: Subject>(subject: &S, spoil: impl Fn(&mut Batch)) -> Outcome {
    let store = subject.fresh().await?;
    let number = store.commit(put(Table::Sessions, b"kept", b"1")).await?;
    let mut batch = put(Table::Sessions, b"new", b"x");
    batch.put(Table::Sessions, *b"kept", *b"x");
    batch.put(Table::Sightings, *b"new", *b"x");
    batch.delete(Table::Sessions, *b"kept");
    batch.append(SESSION, 1, *b"x");
    spoil(&mut batch);
    same("the batch", word(&store.commit(batch).await), "conflict")?;
    same(
        "a row it would have removed",
        value(&store, Table::Sessions, b"kept").await?,
        Some((number, b"1".to_vec())),
    )?;
    same(
        "a row it would have made",
        store.get(Table::Sessions, b"new").await?,
        None,
    )?;
    same("another", store.get(Table::Sightings, b"new").await?, None)?;
    same("an event", store.events(SESSION, 0, 9).await?, vec![])?;
    same("the feed", store.feed(0, 9).await?, vec![])?;
    same("newest commit", store.info().await?.last_commit, number)?;
    let mut next = Batch::new();
    next.append(SESSION, 1, *b"first");
    same(
        "the log still begins at 1",
        word(&store.commit(next).await),
        "applied",
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn hostile_keys_and_values_read_back<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    let long = vec![0xAB; 1 << 20];
    let mut wanted: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (vec![], b"the empty key".to_vec()),
        (vec![0], vec![]),
        (vec![0, 0], vec![0; 5]),
        (b"'; drop table rows; --".to_vec(), b"\r\n\t\"\\%".to_vec()),
        ("Ünïcödé/…".as_bytes().to_vec(), long.clone()),
        (vec![0xFF], vec![0xFF; 9]),
        (vec![0xFF, 0xFF], vec![0xC0, 0x80]),
        (vec![b'k'; 1000], b"a long key".to_vec()),
    ];
    let mut batch = Batch::new();
    for (key, value) in &wanted {
        batch.put(Table::Sessions, key.clone(), value.clone());
    }
    batch.append(SESSION, 1, long.clone());
    batch.append(SESSION, 2, vec![]);
    let number = store.commit(batch).await?;
    wanted.sort();
    for (key, value) in &wanted {
        let row = store.get(Table::Sessions, key).await?;
        same(
            format!("key {key:?}"),
            row.map(|r| r.value == *value),
            Some(true),
        )?;
    }
    same(
        "in order",
        walk(&store, b"", 3).await?,
        wanted.iter().map(|(k, _)| k.clone()).collect(),
    )?;
    let events = store.events(SESSION, 0, 9).await?;
    same(
        "events",
        events.iter().map(|e| e.payload.len()).collect::<Vec<_>>(),
        vec![1 << 20, 0],
    )?;
    let mut batch = Batch::new();
    for (key, _) in &wanted {
        batch.guard(Table::Sessions, key.clone(), Some(number));
        batch.delete(Table::Sessions, key.clone());
    }
    store.commit(batch).await?;
    same("all removed", walk(&store, b"", 3).await?, vec![])?;
    Ok(Verdict::Passed)
}

pub(super) async fn scans_are_ordered_and_paged_without_loss<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    // Written out of order, over several commits.
    let mut wanted: Vec<Vec<u8>> = (0..97_u32)
        .map(|n| ((n * 61) % 97).to_be_bytes().to_vec())
        .collect();
    for keys in wanted.chunks(10) {
        let mut batch = Batch::new();
        keys.iter()
            .for_each(|key| batch.put(Table::Sessions, key.clone(), *b"v"));
        store.commit(batch).await?;
    }
    wanted.sort();
    for page in [1, 2, 7, 96, 97, 98, 10_000] {
        same(
            format!("pages of {page}"),
            walk(&store, b"", page).await?,
            wanted.clone(),
        )?;
    }
    same("a page of none", keys(&store, b"", None, 0).await?, vec![])?;
    same(
        "after the last",
        keys(&store, b"", Some(&[0xFF; 5]), 9).await?,
        vec![],
    )?;
    let mut between = wanted[3].clone();
    between.push(0);
    same(
        "after a key that is not there",
        keys(&store, b"", Some(&between), 1).await?,
        vec![wanted[4].clone()],
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_scan_keeps_to_its_prefix<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    let all: [&[u8]; 8] = [
        b"a",
        b"a/",
        b"a/1",
        b"a/2",
        b"a0",
        b"b",
        b"\xFF",
        b"\xFF\xFF\x01",
    ];
    let mut batch = Batch::new();
    all.iter()
        .for_each(|key| batch.put(Table::Sessions, *key, *b"v"));
    store.commit(batch).await?;
    let owned = |keys: &[&[u8]]| keys.iter().map(|k| k.to_vec()).collect::<Vec<_>>();
    for page in [1, 2, 100] {
        same(
            "a/",
            walk(&store, b"a/", page).await?,
            owned(&[b"a/", b"a/1", b"a/2"]),
        )?;
        same("a", walk(&store, b"a", page).await?, owned(&all[..5]))?;
        same("ff", walk(&store, b"\xFF", page).await?, owned(&all[6..]))?;
        same(
            "ff ff",
            walk(&store, b"\xFF\xFF", page).await?,
            owned(&all[7..]),
        )?;
        same("c", walk(&store, b"c", page).await?, vec![])?;
    }
    same(
        "after, before the prefix",
        keys(&store, b"a/", Some(b"A"), 9).await?,
        owned(&[b"a/", b"a/1", b"a/2"]),
    )?;
    same(
        "after, beyond the prefix",
        keys(&store, b"a/", Some(b"b"), 9).await?,
        vec![],
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_hundred_thousand_rows_are_scanned_once_each<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    for from in (0..MANY).step_by(10_000) {
        let mut batch = Batch::new();
        (from..from + 10_000).for_each(|n| batch.put(Table::Sessions, n.to_be_bytes(), [0x5A; 64]));
        store.commit(batch).await?;
    }
    let all = walk(&store, b"", 5_000).await?;
    same("rows", all.len(), MANY as usize)?;
    let right = all
        .iter()
        .zip(0..MANY)
        .all(|(key, n)| key.as_slice() == n.to_be_bytes());
    holds("each row once, in order", right)?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_batch_from_a_later_point_or_another_incarnation_is_refused_whole<
    S: Subject,
>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    store.commit(put(Table::Sessions, b"k", b"1")).await?;
    let here = StorePoint::of(&store.info().await?);
    let ahead = StorePoint {
        commit: here.commit + 1,
        ..here.clone()
    };
    let elsewhere = StorePoint {
        incarnation: format!("not-{}", here.incarnation),
        commit: 0,
    };
    for (what, point) in [("ahead", ahead.clone()), ("elsewhere", elsewhere)] {
        let batch = put(Table::Sessions, b"k", b"2").since(Some(point.clone()));
        same(what, word(&store.commit(batch).await), "rolled back")?;
        let empty = Batch::new().since(Some(point));
        same(what, word(&store.commit(empty).await), "rolled back")?;
    }
    same(
        "the row",
        value(&store, Table::Sessions, b"k").await?,
        Some((here.commit, b"1".to_vec())),
    )?;
    let next = put(Table::Sessions, b"k", b"3").since(Some(here));
    same("here", store.commit(next).await?, ahead.commit)?;
    Ok(Verdict::Passed)
}

pub(super) async fn of_concurrent_commits_on_one_version_exactly_one_wins<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    let mut version = None;
    for round in 0..5_u8 {
        let mut tasks = JoinSet::new();
        for n in 0..16_u8 {
            let (store, mut batch) = (store.clone(), put(Table::Sessions, b"k", &[round, n]));
            batch.guard(Table::Sessions, *b"k", version);
            tasks.spawn(async move { store.commit(batch).await });
        }
        let mut won = Vec::new();
        while let Some(answer) = tasks.join_next().await {
            match answer? {
                Ok(number) => won.push(number),
                Err(CommitError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        same(format!("winners of round {round}"), won.len(), 1)?;
        version = won.pop();
        same(
            "the row's version",
            value(&store, Table::Sessions, b"k").await?.map(|(v, _)| v),
            version,
        )?;
    }
    Ok(Verdict::Passed)
}

pub(super) async fn no_concurrent_update_is_lost<S: Subject>(subject: &S) -> Outcome {
    const WRITERS: u64 = 8;
    const EACH: u64 = 20;
    let store = subject.fresh().await?;
    let mut tasks = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut numbers = Vec::new();
            while (numbers.len() as u64) < EACH {
                let found = value(&store, Table::Realm, b"sum").await?;
                let sum = found
                    .as_ref()
                    .and_then(|(_, v)| v.as_slice().try_into().ok())
                    .map_or(0, u64::from_be_bytes);
                let mut batch = put(Table::Realm, b"sum", &(sum + 1).to_be_bytes());
                batch.guard(Table::Realm, *b"sum", found.map(|(version, _)| version));
                match store.commit(batch).await {
                    Ok(number) => numbers.push(number),
                    Err(CommitError::Conflict) => tokio::task::yield_now().await,
                    Err(other) => return Err(Failure::from(other)),
                }
            }
            Ok(numbers)
        });
    }
    let mut numbers = BTreeSet::new();
    while let Some(done) = tasks.join_next().await {
        numbers.extend(done??);
    }
    let sum = value(&store, Table::Realm, b"sum").await?.map(|(_, v)| v);
    same(
        "the sum",
        sum,
        Some((WRITERS * EACH).to_be_bytes().to_vec()),
    )?;
    same(
        "numbers, each given once",
        numbers.into_iter().collect::<Vec<_>>(),
        (1..=WRITERS * EACH).collect(),
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn a_store_is_bound_to_one_realm_for_ever<S: Subject>(subject: &S) -> Outcome {
    let store = subject.fresh().await?;
    store.bind("realm-a").await?;
    store.bind("realm-a").await?;
    let other = store.bind("realm-b").await;
    same(
        "another realm",
        other.map_err(|e| e.kind()),
        Err(ErrorKind::Conflict),
    )?;
    same(
        "fingerprint",
        store.info().await?.fingerprint,
        Some("realm-a".to_owned()),
    )?;
    Ok(Verdict::Passed)
}

pub(super) async fn incarnations_differ_and_can_be_set<S: Subject>(subject: &S) -> Outcome {
    let (one, two) = (subject.fresh().await?, subject.fresh().await?);
    let before = one.info().await?;
    holds(
        "two new stores are of two incarnations",
        before.incarnation != two.info().await?.incarnation,
    )?;
    same(
        "it stays",
        one.info().await?.incarnation,
        before.incarnation,
    )?;
    one.set_incarnation("accepted").await?;
    let after = one.info().await?;
    same("it was set", after.incarnation.as_str(), "accepted")?;
    same("no commit", after.last_commit, before.last_commit)?;
    Ok(Verdict::Passed)
}

pub(super) async fn what_was_acknowledged_is_there_after_reopening<S: Subject>(
    subject: &S,
) -> Outcome {
    let store = subject.fresh().await?;
    store.bind("realm-a").await?;
    let lease = store
        .lease_acquire("node/a", "a", std::time::Duration::from_secs(15))
        .await?;
    let mut batch = put(Table::Sessions, b"k", b"v");
    batch.fence = lease.clone();
    batch.append(SESSION, 1, *b"one");
    batch.append(SESSION, 2, *b"two");
    let number = store.commit(batch).await?;
    store.forget_events(SESSION, 2).await?;
    let info = store.info().await?;
    let Some(store) = subject.reopen(store).await? else {
        return Ok(Verdict::Skipped);
    };
    same("info", store.info().await?, info)?;
    same(
        "the row",
        value(&store, Table::Sessions, b"k").await?,
        Some((number, b"v".to_vec())),
    )?;
    let numbers = store
        .leases("")
        .await?
        .into_iter()
        .map(|l| (l.scope, l.holder, l.number))
        .collect::<Vec<_>>();
    same(
        "leases",
        numbers,
        vec![("node/a".to_owned(), "a".to_owned(), 1)],
    )?;
    let mut batch = Batch {
        fence: lease,
        ..Batch::new()
    };
    batch.append(SESSION, 3, *b"three");
    same(
        "the next event, under the same lease",
        store.commit(batch).await?,
        number + 1,
    )?;
    let feed = store.feed(0, 9).await?;
    same(
        "the feed goes on",
        feed.into_iter()
            .map(|e| (e.position, e.seq))
            .collect::<Vec<_>>(),
        vec![(3, 3)],
    )?;
    Ok(Verdict::Passed)
}
