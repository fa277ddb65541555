//! What the file guarantees: durability, a single holder, and that damage is reported and never
//! made worse.

use std::fs;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atlas_core::SeededEntropy;
use atlas_orchestrator::store::{AnyStore, Memory, StoreOwner};

use super::*;
use redb::{Database, StorageBackend};

const SESSION: [u8; 16] = [9; 16];
const PAGE: usize = 4096;

fn options() -> RedbOptions {
    RedbOptions::new().wait(Duration::ZERO)
}

/// Commit `n` of the recorded history: every commit changes rows of several tables and appends an
/// event.
fn step(n: u64) -> Batch {
    let mut batch = Batch::new();
    for row in 0..8 {
        batch.put(
            Table::Sessions,
            format!("s{}", (n * 5 + row) % 64),
            vec![u8::try_from(n % 251).unwrap(); 700],
        );
    }
    batch.put(Table::Realm, *b"step", n.to_be_bytes());
    batch.delete(Table::Sessions, format!("s{}", (n * 7) % 64));
    batch.append(SESSION, n, vec![u8::try_from(n % 256).unwrap(); 300]);
    batch
}

type Contents = (u64, Vec<Vec<Row>>, Vec<StoredEvent>, Vec<StoredEvent>);

async fn contents(store: &AnyStore) -> Result<Contents, Error> {
    let mut tables = Vec::new();
    for table in Table::ALL {
        tables.push(store.scan(table, b"", None, 10_000).await?);
    }
    let log = store.events(SESSION, 0, 10_000).await?;
    Ok((
        store.info().await?.last_commit,
        tables,
        log,
        store.feed(0, 10_000).await?,
    ))
}

/// The state after each number of commits, from a memory store with the same commits.
async fn states(commits: u64) -> Vec<Contents> {
    let store = AnyStore::new(Memory::new(Arc::new(SystemClock), &SeededEntropy::new(1)));
    let mut states = vec![contents(&store).await.unwrap()];
    for n in 1..=commits {
        store.commit(step(n)).await.unwrap();
        states.push(contents(&store).await.unwrap());
    }
    states
}

/// A file with this many commits: as a clean close leaves it, and as a crash would (copied while
/// open).
async fn record(dir: &Path, commits: u64) -> [Recorded; 2] {
    let path = dir.join("recorded.redb");
    let store = options().open(&path).unwrap();
    for n in 1..=commits {
        store.commit(step(n)).await.unwrap();
    }
    let crashed = Recorded {
        kind: "crashed",
        file: fs::read(&path).unwrap(),
        sums: None,
    };
    drop(store);
    let sums = fs::read(dir.join("recorded.redb.sums")).unwrap();
    [
        Recorded {
            kind: "closed",
            file: fs::read(&path).unwrap(),
            sums: Some(sums),
        },
        crashed,
    ]
}

struct Recorded {
    kind: &'static str,
    file: Vec<u8>,
    sums: Option<Vec<u8>>,
}

impl Recorded {
    /// Replaces the store's file with this content, with the checksums as they were recorded.
    fn lay(&self, path: &Path, file: &[u8]) {
        fs::write(path, file).unwrap();
        let sums = path.with_extension("redb.sums");
        match &self.sums {
            Some(recorded) => fs::write(sums, recorded).unwrap(),
            None if sums.exists() => fs::remove_file(sums).unwrap(),
            None => {}
        }
    }
}

/// Opens a damaged file. The result must be an error that leaves the file unchanged, or a state
/// that once existed.
async fn damaged(
    from: &Recorded,
    path: &Path,
    bytes: &[u8],
    what: &str,
    states: &[Contents],
    tally: &mut Tally,
) {
    from.lay(path, bytes);
    let opened = catch_unwind(|| options().open(path));
    match opened.unwrap_or_else(|_| panic!("{what}: opening panicked")) {
        Err(error) => {
            assert!(
                fs::read(path).unwrap() == bytes,
                "{what}: refused, but the file was changed"
            );
            assert!(error.to_string().contains("store"), "{what}: {error}");
            assert_ne!(error.kind(), ErrorKind::Conflict, "{what}: {error}");
            tally.refused += 1;
        }
        Ok(store) => {
            let store = AnyStore::new(store);
            let found = contents(&store)
                .await
                .unwrap_or_else(|e| panic!("{what}: opened, but then: {e}"));
            let age = states.iter().rev().position(|s| *s == found);
            let age = age.unwrap_or_else(|| panic!("{what}: opened with a state that never was"));
            tally.oldest = tally.oldest.max(age);
            store
                .commit(step(found.0 + 1))
                .await
                .unwrap_or_else(|e| panic!("{what}: not writable: {e:?}"));
            tally.opened += 1;
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    opened: usize,
    oldest: usize,
}

#[tokio::test]
async fn every_prefix_of_a_file_is_refused_untouched_or_sound() {
    let dir = tempfile::tempdir().unwrap();
    let states = states(40).await;
    for recorded in record(dir.path(), 40).await {
        let Recorded { kind, file, .. } = &recorded;
        let mut tally = Tally::default();
        let odd = [
            1,
            8,
            9,
            10,
            63,
            64,
            191,
            192,
            319,
            320,
            511,
            512,
            4095,
            4097,
            file.len() - 1,
            file.len() - 4095,
        ];
        for len in (0..=file.len()).step_by(PAGE).chain(odd) {
            let what = format!("{kind}, the first {len} bytes");
            damaged(
                &recorded,
                &dir.path().join("d.redb"),
                &file[..len],
                &what,
                &states,
                &mut tally,
            )
            .await;
        }
        assert!(tally.refused > 50 && tally.opened >= 1, "{kind}: {tally:?}");
        assert_eq!(
            tally.oldest, 0,
            "{kind}: a shortened file never opens with less than was acknowledged"
        );
    }
}

#[tokio::test]
async fn every_hole_in_a_file_is_refused_untouched_or_sound() {
    let dir = tempfile::tempdir().unwrap();
    let states = states(40).await;
    for recorded in record(dir.path(), 40).await {
        let Recorded { kind, file, .. } = &recorded;
        let mut tally = Tally::default();
        for at in (0..file.len()).step_by(PAGE) {
            let mut holed = file.clone();
            let end = file.len().min(at + PAGE);
            holed[at..end].fill(0);
            let what = format!("{kind}, a hole at {at}");
            damaged(
                &recorded,
                &dir.path().join("d.redb"),
                &holed,
                &what,
                &states,
                &mut tally,
            )
            .await;
        }
        assert!(tally.refused > 10 && tally.opened > 10, "{kind}: {tally:?}");
        assert!(tally.oldest <= 1, "{kind}: {tally:?}");
    }
}

/// Overwrites one page of an open store with zeros, behind its back, and closes the store.
#[cfg(unix)]
async fn damage_while_open(path: &Path, page: usize) {
    use std::os::unix::fs::FileExt;
    let store = options().open(path).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0; PAGE], (page * PAGE) as u64).unwrap();
    store.bind("realm").await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn damage_done_to_an_open_store_is_never_read_as_content() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let [closed, _] = record(dir.path(), 40).await;
    let whole = states(40).await.pop().unwrap();
    let (mut refused, mut found, mut unused) = (0, 0, 0);
    for page in (1..closed.file.len() / PAGE).step_by(4) {
        closed.lay(&path, &closed.file);
        damage_while_open(&path, page).await;
        match options().open(&path) {
            Ok(store) => {
                let store = AnyStore::new(store);
                match contents(&store).await {
                    Ok(read) => {
                        assert!(read == whole, "page {page}");
                        unused += 1;
                    }
                    Err(error) => {
                        drop(store);
                        let again = options().open(&path).unwrap_err();
                        assert!(again.to_string().contains("damaged"), "{error}: {again}");
                        found += 1;
                    }
                }
            }
            Err(error) => {
                assert!(
                    error.to_string().contains("damaged"),
                    "page {page}: {error}"
                );
                refused += 1;
            }
        }
    }
    // With debug assertions, redb reads the whole file when it opens it.
    assert!(
        refused + found > 3,
        "{refused} refused, {found} found when read, {unused} were free or written again"
    );
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.redb");
    for other in [&b""[..], b"hello", &[0; 100_000], &[0xFF; 100_000]] {
        fs::write(&path, other).unwrap();
        let error = options().open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation, "{error}");
        assert!(fs::read(&path).unwrap() == other);
    }
    drop(Database::create(dir.path().join("theirs.redb")).unwrap());
    let before = fs::read(dir.path().join("theirs.redb")).unwrap();
    let error = options().open(dir.path().join("theirs.redb")).unwrap_err();
    assert!(
        error.to_string().contains("not a store of atlas"),
        "{error}"
    );
    assert!(fs::read(dir.path().join("theirs.redb")).unwrap() == before);
    assert_eq!(
        options().open(dir.path()).unwrap_err().kind(),
        ErrorKind::Validation
    );
    assert_eq!(
        options()
            .open(dir.path().join("no/such/place"))
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_is_private_also_when_it_was_not() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    drop(options().open(&path).unwrap());
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(options().open(&path).unwrap());
    assert_eq!(mode(), 0o600);
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(
        left.len(),
        2,
        "neither draft nor owner's note is left: {left:?}"
    );
    assert!(path.with_extension("redb.sums").exists());
}

#[tokio::test]
async fn a_second_opener_waits_and_then_says_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let first = options().open(&path).unwrap();
    assert_eq!(StoreOwner::of(&path).unwrap().pid, std::process::id());
    let error = options()
        .wait(Duration::from_millis(120))
        .open(&path)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(
        error
            .to_string()
            .contains("held by this process itself, since 20"),
        "{error}"
    );
    first.commit(step(1)).await.unwrap();
    let waiting = tokio::spawn({
        let path = path.clone();
        async move {
            options()
                .wait(Duration::from_secs(30))
                .open_async(&path)
                .await
        }
    });
    drop(first);
    let second = waiting.await.unwrap().unwrap();
    assert_eq!(second.info().await.unwrap().last_commit, 1);
    drop(second);
    assert_eq!(StoreOwner::of(&path), None);
}

#[tokio::test]
async fn of_two_that_make_the_store_at_once_one_makes_it_and_the_other_waits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let incarnations: Vec<String> = std::thread::scope(|s| {
        let open = || {
            let store = options().wait(Duration::from_secs(30)).open(&path).unwrap();
            let txn = store.read().unwrap();
            schema::text(&txn, INCARNATION).unwrap().unwrap()
        };
        let threads: Vec<_> = (0..4).map(|_| s.spawn(open)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(
        incarnations.windows(2).all(|w| w[0] == w[1]),
        "{incarnations:?}"
    );
}

#[tokio::test]
async fn dropped_commits_are_written_before_the_store_closes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let store = options().open(&path).unwrap();
    for n in 1..=20 {
        let (reply, answer) = oneshot::channel();
        drop(answer);
        store
            .0
            .queue
            .as_ref()
            .unwrap()
            .send(Job {
                change: Change::Batch(step(n)),
                reply,
            })
            .await
            .unwrap();
    }
    drop(store);
    assert_eq!(
        options()
            .open(&path)
            .unwrap()
            .info()
            .await
            .unwrap()
            .last_commit,
        20
    );
}

#[tokio::test]
async fn many_who_wait_share_a_transaction_and_each_hears_only_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = options().open(dir.path().join("s.redb")).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..2000_u32 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut batch = Batch::new();
            batch.put(Table::Sessions, n.to_be_bytes(), *b"v");
            // Every tenth must be refused, and only those.
            batch.guard(Table::Attempts, *b"missing", (n % 10 == 0).then_some(1));
            (n, store.commit(batch).await)
        });
    }
    let mut numbers = std::collections::BTreeSet::new();
    while let Some(done) = tasks.join_next().await {
        let (n, answer) = done.unwrap();
        assert_eq!(answer.is_err(), n % 10 == 0, "{answer:?}");
        numbers.extend(answer);
    }
    assert_eq!(
        numbers.into_iter().collect::<Vec<_>>(),
        (1..=1800).collect::<Vec<_>>()
    );
    let rows = store.scan(Table::Sessions, b"", None, 5000).await.unwrap();
    assert_eq!(rows.len(), 1800);
}

/// A backend in memory that counts how often it was synced.
#[derive(Debug)]
struct Counting(redb::backends::InMemoryBackend, Arc<AtomicU64>);

impl StorageBackend for Counting {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Queues these changes, then lets the writer process them; returns the answers and the number of
/// syncs.
fn serve(
    db: &Current,
    syncs: &AtomicU64,
    changes: Vec<Change>,
) -> (Vec<Result<Done, CommitError>>, u64) {
    let (queue, jobs) = mpsc::channel(QUEUE);
    let mut answers = Vec::new();
    for change in changes {
        let (reply, answer) = oneshot::channel();
        queue.try_send(Job { change, reply }).unwrap();
        answers.push(answer);
    }
    drop(queue);
    let before = syncs.load(Ordering::Relaxed);
    writer::run(
        db,
        || unreachable!("the disk does not fail"),
        || true,
        Reserve::none(),
        &SystemClock,
        jobs,
    );
    (
        answers
            .into_iter()
            .map(|a| a.blocking_recv().unwrap())
            .collect(),
        syncs.load(Ordering::Relaxed) - before,
    )
}

#[test]
fn all_who_wait_share_one_sync_and_a_refused_group_costs_none() {
    let syncs = Arc::new(AtomicU64::new(0));
    let db = Database::builder()
        .create_with_backend(Counting(
            redb::backends::InMemoryBackend::new(),
            syncs.clone(),
        ))
        .unwrap();
    schema::create(&db, "i").unwrap();
    let db = Current::new(db, Path::new("s.redb"));
    let (answers, one) = serve(&db, &syncs, vec![Change::Batch(step(1))]);
    assert!(answers[0].is_ok() && one > 0);
    let (answers, many) = serve(
        &db,
        &syncs,
        (2..=400).map(|n| Change::Batch(step(n))).collect(),
    );
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(many, one, "399 commits cost as many syncs as one");
    let (answers, refused) = serve(
        &db,
        &syncs,
        (0..50).map(|_| Change::Batch(step(7))).collect(),
    );
    assert!(
        answers
            .iter()
            .all(|a| matches!(a, Err(CommitError::Conflict)))
    );
    assert_eq!(refused, 0);
}

/// A disk that can be made full. Its clones are the same disk.
#[derive(Clone, Debug)]
struct Disk(Arc<(redb::backends::InMemoryBackend, AtomicBool)>);

impl Disk {
    fn room(&self) -> std::io::Result<&redb::backends::InMemoryBackend> {
        let full = self.0.1.load(Ordering::SeqCst);
        if full {
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        } else {
            Ok(&self.0.0)
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.0.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room()?.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.room()?.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room()?.write(offset, data)
    }
}

#[test]
fn after_a_full_disk_the_store_goes_on_with_all_that_was_acknowledged() {
    let disk = Disk(Arc::new((
        redb::backends::InMemoryBackend::new(),
        AtomicBool::new(false),
    )));
    let (reopened, full) = (disk.clone(), disk.clone());
    let open = move || {
        reopened
            .room()
            .map_err(|e| Error::new(ErrorKind::Unavailable, e.to_string()))?;
        Ok(Database::builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(reopened.clone())
            .unwrap())
    };
    let db = open().unwrap();
    schema::create(&db, "i").unwrap();
    let db = Arc::new(Current::new(db, Path::new("s.redb")));
    let (queue, jobs) = mpsc::channel(QUEUE);
    let write = move |n| {
        let (reply, answer) = oneshot::channel();
        queue
            .blocking_send(Job {
                change: Change::Batch(step(n)),
                reply,
            })
            .unwrap();
        answer.blocking_recv().unwrap()
    };
    // The sender is dropped with this closure, also on a panic, so that the writer ends.
    std::thread::scope(move |scope| {
        let served = db.clone();
        scope.spawn(move || {
            writer::run(&served, open, || true, Reserve::none(), &SystemClock, jobs)
        });
        assert!(matches!(write(1), Ok(Done::Commit(1))));
        full.0.1.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            assert!(matches!(write(2), Err(CommitError::Store(_))));
            assert!(db.get().is_err(), "nothing is read that might not be so");
        }
        full.0.1.store(false, Ordering::SeqCst);
        assert!(matches!(write(2), Ok(Done::Commit(2))));
        let log = events(&db.get().unwrap().begin_read().unwrap(), SESSION, 0, 9).unwrap();
        assert_eq!(log.len(), 2);
    });
}

/// A batch that adds a session, with the guard that a launch has.
fn new_session(n: u64) -> Batch {
    let mut batch = Batch::new();
    let key = format!("new-{n}");
    batch.guard(Table::Sessions, key.clone(), None);
    batch.put(Table::Sessions, key, vec![1; 700]);
    batch
}

#[test]
fn on_a_full_disk_the_reserve_records_ends_and_admits_no_session() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let kept = path.with_extension("redb.reserve");
    let disk = Disk(Arc::new((
        redb::backends::InMemoryBackend::new(),
        AtomicBool::new(false),
    )));
    // The disk is full until the reserve is given up.
    let (reopened, full, freed) = (disk.clone(), disk.clone(), kept.clone());
    let open = move || {
        if !freed.exists() {
            reopened.0.1.store(false, Ordering::SeqCst);
        }
        Ok(Database::builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(reopened.clone())
            .unwrap())
    };
    let db = Database::builder().create_with_backend(disk).unwrap();
    schema::create(&db, "i").unwrap();
    let current = Arc::new(Current::new(db, &path));
    let (queue, jobs) = mpsc::channel(QUEUE);
    let send = move |batch| {
        let (reply, answer) = oneshot::channel();
        let change = Change::Batch(batch);
        queue.blocking_send(Job { change, reply }).unwrap();
        answer
    };
    std::thread::scope(move |scope| {
        let write = |batch| send(batch).blocking_recv().unwrap();
        let reserve = Reserve::of(&path);
        let served = current.clone();
        scope.spawn(move || writer::run(&served, open, || true, reserve, &SystemClock, jobs));
        assert!(matches!(write(step(1)), Ok(Done::Commit(1))));
        assert!(matches!(write(new_session(1)), Ok(Done::Commit(2))));
        assert!(fs::metadata(&kept).unwrap().len() > 500_000);
        full.0.1.store(true, Ordering::SeqCst);
        let (end, session) = (send(step(2)), send(new_session(2)));
        let end = end.blocking_recv().unwrap();
        assert!(
            matches!(end, Ok(Done::Commit(3))),
            "written with the reserve"
        );
        let Err(CommitError::Store(refused)) = session.blocking_recv().unwrap() else {
            panic!("a session was added to a full disk");
        };
        assert!(
            refused.message().contains(&path.display().to_string()),
            "{refused}"
        );
        assert!(refused.message().contains("make room"), "{refused}");
        assert!(matches!(write(step(3)), Ok(Done::Commit(4))));
        // The directory has room, so the reserve is made again after a while.
        while !kept.exists() {
            assert!(write(step(3)).is_err(), "out of sequence");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(matches!(write(new_session(2)), Ok(Done::Commit(5))));
    });
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_file_is_refused_at_once_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let fifo = |path: &Path| {
        assert!(
            std::process::Command::new("mkfifo")
                .arg(path)
                .status()
                .unwrap()
                .success()
        );
    };
    let refused = |path: &Path| {
        let error = options()
            .wait(Duration::from_secs(60))
            .open(path)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Validation, "{error}");
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
        fs::remove_file(path)
            .or_else(|_| fs::remove_dir(path))
            .unwrap();
    };
    fifo(&path);
    refused(&path);
    fs::create_dir(&path).unwrap();
    refused(&path);
    std::os::unix::fs::symlink(dir.path().join("nothing"), &path).unwrap();
    refused(&path);
    // What lies beside the store is only of use to it.
    drop(options().open(&path).unwrap());
    for suffix in ["sums", "owner", "reserve"] {
        let beside = path.with_extension(format!("redb.{suffix}"));
        fs::remove_file(&beside)
            .or_else(|_| fs::exists(&beside).map(drop))
            .unwrap();
        fifo(&beside);
        drop(options().open(&path).unwrap());
    }
    let sums = path.with_extension("redb.sums");
    fs::remove_file(&sums).unwrap();
    fs::create_dir(&sums).unwrap();
    let error = options().open(&path).unwrap_err();
    assert!(
        error.to_string().contains(&sums.display().to_string()),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_store_whose_file_was_replaced_or_removed_refuses_every_change() {
    let dir = tempfile::tempdir().unwrap();
    let (path, aside) = (dir.path().join("s.redb"), dir.path().join("aside.redb"));
    let store = options().open(&path).unwrap();
    store.commit(step(1)).await.unwrap();
    fs::copy(&path, &aside).unwrap();
    store.commit(step(2)).await.unwrap();
    let kept = dir.path().join("kept.redb");
    let refused = async |n| matches!(store.commit(step(n)).await, Err(CommitError::RolledBack));

    fs::rename(&path, &kept).unwrap();
    assert!(refused(3).await, "nothing is at its path");
    fs::rename(&aside, &path).unwrap();
    assert!(refused(3).await, "another file is at its path");
    let lease = store.lease_acquire("node/a", "a", Duration::from_secs(1));
    assert_eq!(lease.await.unwrap_err().kind(), ErrorKind::Unavailable);
    fs::rename(&kept, &path).unwrap();
    store.commit(step(3)).await.unwrap();
    assert_eq!(store.info().await.unwrap().last_commit, 3);
}
