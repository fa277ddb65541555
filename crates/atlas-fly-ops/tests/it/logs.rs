//! Logs over an API in process, on virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::{ErrorKind, Timestamp};
use atlas_fly_ops::{
    AppName, LogCursor, LogEvent, LogFilter, LogHub, LogHubOptions, LogSink, LogSubscription,
};
use atlas_testkit::dialect::fly_logs::{FlyLogs, Line, Refusal, Rights};
use atlas_testkit::world::{CloudSpec, Fault, FaultKind, World, WorldClock};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::log_api::{BASE_NS, api, client, shop, write};

async fn hub(world: &FlyLogs) -> LogHub {
    let mut options = LogHubOptions::default();
    options.clock = Arc::new(world.world().clock().clone());
    LogHub::new(client(world, None, "fm2_good").await, options)
}

/// The next entry's message; the event itself in words where it is none.
async fn message(subscription: &mut LogSubscription) -> String {
    match tokio::time::timeout(Duration::from_secs(300), subscription.next())
        .await
        .unwrap()
    {
        Some(LogEvent::Entry(entry)) => entry.message.clone().unwrap(),
        other => format!("{other:?}"),
    }
}

async fn messages(subscription: &mut LogSubscription, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(message(subscription).await);
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_for_nobody_and_the_last_subscriber_ends_the_reading() {
    let world = api();
    write(&world, BASE_NS, "one");
    let hub = hub(&world).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.asked().len(), 0);
    let mut first = hub.subscribe(&shop(), LogFilter::all(), None);
    assert_eq!(message(&mut first).await, "one");
    let second = hub.subscribe(&shop(), LogFilter::all(), None);
    drop(first);
    assert!(hub.is_running(&shop()));
    drop(second);
    assert!(!hub.is_running(&shop()));
    tokio::task::yield_now().await;
    let requests = world.asked().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.asked().len(), requests);
}

#[tokio::test(start_paused = true)]
async fn one_reader_serves_a_thousand_and_one_that_never_reads_slows_nobody() {
    let world = api();
    let hub = hub(&world).await;
    let alone = {
        let mut only = hub.subscribe(&shop(), LogFilter::all(), None);
        write(&world, BASE_NS, "first");
        message(&mut only).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.asked().len()
    };
    let mut sleeper = hub.subscribe(&shop(), LogFilter::all(), None);
    let mut readers: Vec<_> = (0..1000)
        .map(|_| hub.subscribe(&shop(), LogFilter::all(), None))
        .collect();
    for reader in &mut readers {
        assert_eq!(message(reader).await, "first");
    }
    for round in 0..60 {
        (0..100_u64).for_each(|n| write(&world, BASE_NS + 1 + round * 100 + n, "more"));
        for reader in &mut readers[..3] {
            assert_eq!(messages(reader, 100).await, vec!["more"; 100]);
        }
    }
    assert_eq!(sleeper.next().await, Some(LogEvent::Lagged(6001 - 4096)));
    assert_eq!(message(&mut sleeper).await, "more");
    assert!(
        world.asked().len() < alone + 60 * 10,
        "{} {alone}",
        world.asked().len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopped_reader_says_so_to_all_and_a_new_one_can_begin() {
    let world = api();
    let hub = hub(&world).await;
    let mut all = [
        hub.subscribe(&shop(), LogFilter::all(), None),
        hub.subscribe(&shop(), LogFilter::all(), None),
    ];
    assert!(hub.stop(&shop()) && !hub.stop(&shop()));
    for one in &mut all {
        assert_eq!(
            (one.next().await, one.next().await),
            (Some(LogEvent::Stopped(None)), None)
        );
    }
    write(&world, BASE_NS, "again");
    let mut again = hub.subscribe(&shop(), LogFilter::all(), None);
    drop(all);
    assert_eq!(message(&mut again).await, "again");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_renewed_once_for_a_page() {
    let world = api();
    let client = client(&world, Some("fm2_old"), "fm2_good").await;
    client.page(&shop(), &LogFilter::all(), None).await.unwrap();
    assert_eq!(world.asked().len(), 2);
    world.revoke_token("fm2_good");
    let error = client
        .page(&shop(), &LogFilter::all(), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(!format!("{error} {error:?}").contains("fm2_"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn errors_leave_a_mark_and_lose_nothing() {
    let world = api();
    write(&world, BASE_NS, "before");
    let hub = hub(&world).await;
    let mut subscription = hub.subscribe(&shop(), LogFilter::all(), None);
    assert_eq!(message(&mut subscription).await, "before");
    world.refuse([503, 429, 500, 404, 502].map(|status| Refusal {
        status,
        retry_after: None,
    }));
    (1..=250).for_each(|n| write(&world, BASE_NS + n, &n.to_string()));
    let expected: Vec<_> = std::iter::once("Some(Gap(Unavailable))".to_owned())
        .chain((1..=250).map(|n| n.to_string()))
        .collect();
    assert_eq!(messages(&mut subscription, 251).await, expected);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_stays_unknown_and_a_token_that_stays_refused_end_the_reading() {
    for (fault, kind) in [(404, ErrorKind::NotFound), (403, ErrorKind::Forbidden)] {
        let world = api();
        world.refuse(
            [Refusal {
                status: fault,
                retry_after: None,
            }; 1000],
        );
        let mut subscription = hub(&world).await.subscribe(&shop(), LogFilter::all(), None);
        let begun = Instant::now();
        assert_eq!(subscription.next().await, Some(LogEvent::Gap(kind)));
        assert_eq!(
            subscription.next().await,
            Some(LogEvent::Stopped(Some(kind)))
        );
        assert_eq!(begun.elapsed() >= Duration::from_secs(60), fault == 404);
        assert!(world.asked().len() < 20, "{}", world.asked().len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cursor_gives_what_was_written_since_then_what_is_written_now_and_nothing_twice() {
    let world = api();
    (0..350).for_each(|n| write(&world, BASE_NS + n, &n.to_string()));
    let hub = hub(&world).await;
    let mut other = hub.subscribe(&shop(), LogFilter::all(), None);
    assert_eq!(
        message(&mut other).await,
        "250",
        "without a cursor: the newest page"
    );
    let mut subscription = hub.subscribe(&shop(), LogFilter::all(), Some(LogCursor(BASE_NS + 30)));
    let expected: Vec<_> = (30..350).map(|n| n.to_string()).collect();
    assert_eq!(messages(&mut subscription, 320).await, expected);
    write(&world, BASE_NS + 400, "now");
    assert_eq!(message(&mut subscription).await, "now");
    let at = subscription.cursor().unwrap();
    drop((subscription, other));
    // Late, and of before the cursor's page.
    write(&world, BASE_NS + 399, "late");
    let mut resumed = hub.subscribe(&shop(), LogFilter::all(), Some(at));
    let mut seen = Vec::new();
    while !seen.ends_with(&["late".to_owned(), "now".to_owned()]) {
        seen.push(message(&mut resumed).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_its_region_only() {
    let world = api();
    for (n, region) in (0_u64..).zip(["fra", "ams", "fra"]) {
        let mut line = Line::new(BASE_NS + n, format!("{region} {n}"));
        line.region = Some(region.into());
        world.write("shop", line);
    }
    let mut subscription =
        hub(&world)
            .await
            .subscribe(&shop(), LogFilter::all().region("fra"), None);
    assert_eq!(messages(&mut subscription, 2).await, ["fra 0", "fra 2"]);
}

struct Collecting(Arc<Mutex<Vec<LogEvent>>>);

impl LogSink for Collecting {
    async fn deliver(&self, _: &AppName, event: LogEvent) {
        self.0.lock().unwrap().push(event);
    }
}

struct Panicking;

impl LogSink for Panicking {
    async fn deliver(&self, _: &AppName, _: LogEvent) {
        panic!("a sink's own fault");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_gets_every_event_and_one_that_panics_ends_alone() {
    let world = api();
    (0..10).for_each(|n| write(&world, BASE_NS + n, "x"));
    let hub = hub(&world).await;
    let events = Arc::default();
    let good = hub.attach(
        &shop(),
        LogFilter::all(),
        None,
        Collecting(Arc::clone(&events)),
    );
    let bad = hub.attach(&shop(), LogFilter::all(), None, Panicking);
    bad.finished().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    hub.stop(&shop());
    good.finished().await;
    let events = events.lock().unwrap();
    assert_eq!(events.len(), 11);
    assert_eq!(events.last(), Some(&LogEvent::Stopped(None)));
}

#[tokio::test(start_paused = true)]
async fn a_page_says_what_the_api_said_asks_once_and_names_only_what_is_wanted() {
    let world = api();
    let client = client(&world, None, "fm2_good").await;
    let page = client.page(&shop(), &LogFilter::all(), None).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (0, None));
    assert_eq!(
        world.asked()[0].next_token,
        None,
        "what is not wanted is not named"
    );
    for (status, kind) in [
        (429, ErrorKind::RateLimited),
        (500, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
        (403, ErrorKind::Forbidden),
    ] {
        let before = world.asked().len();
        world.refuse([Refusal {
            status,
            retry_after: None,
        }]);
        let error = client
            .page(&shop(), &LogFilter::all(), Some(LogCursor(7)))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (kind, Some(status)),
            "{error:?}"
        );
        assert_eq!(
            world.asked().len(),
            before + 1,
            "{status} is not asked again here"
        );
    }
    assert_eq!(
        world.asked().last().unwrap().next_token.as_deref(),
        Some("7")
    );
    let unknown = client
        .page(&AppName::new("other").unwrap(), &LogFilter::all(), None)
        .await
        .unwrap_err();
    assert_eq!(
        unknown.kind(),
        ErrorKind::Unauthorized,
        "the manual token is another app's: there is none"
    );
}

#[tokio::test(start_paused = true)]
async fn odd_pages_cost_only_what_is_odd_in_them() {
    let world = api();
    let client = client(&world, None, "fm2_good").await;
    let mut odd = Line::new(BASE_NS, "odd").id("1");
    odd.timestamp = Some("yesterday".into());
    let mut missing = Line::new(BASE_NS + 1, "missing").id("2");
    (
        missing.timestamp,
        missing.level,
        missing.instance,
        missing.region,
    ) = (Some(String::new()), None, None, None);
    let mut raw = Line::new(BASE_NS + 2, "");
    raw.raw =
        Some(serde_json::json!({ "id": "3", "type": "log", "fly": null, "attributes": null }));
    let mut number = Line::new(BASE_NS + 3, "");
    number.raw = Some(serde_json::json!(5));
    let huge = Line::new(BASE_NS + 123_456_789, "x".repeat(10_000_000)).id("4");
    for line in [odd, missing, raw, number, huge] {
        world.write("shop", line);
    }
    let page = client.page(&shop(), &LogFilter::all(), None).await.unwrap();
    assert_eq!(
        (page.entries.len(), page.skipped, page.next),
        (4, 1, Some(LogCursor(BASE_NS + 123_456_789)))
    );
    let timestamps: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.timestamp.map(|at| at.to_string()))
        .collect();
    assert_eq!(
        timestamps,
        [
            None,
            None,
            None,
            Some("2026-11-21T00:00:00.123456789Z".to_owned())
        ]
    );
    assert_eq!(
        (
            page.entries[1].level.as_ref(),
            page.entries[2].message.as_ref()
        ),
        (None, None)
    );
    assert_eq!(page.entries[3].message.as_ref().unwrap().len(), 10_000_000);
    // The shape of the internal feed, whose `fly` may be null.
    world.quirk(|quirks| quirks.feed_shape = true);
    let feed = client
        .page(&shop(), &LogFilter::all().instance("6e8294c17d5083"), None)
        .await
        .unwrap();
    assert!(
        feed.entries
            .iter()
            .any(|entry| entry.message.as_deref() == Some("odd")
                && entry.region.as_deref() == Some("fra"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_app_is_asked_less_and_less_and_a_wait_that_the_api_asks_for_is_kept() {
    let world = api();
    let mut subscription = hub(&world).await.subscribe(&shop(), LogFilter::all(), None);
    let idle = tokio::time::timeout(Duration::from_secs(60), subscription.next()).await;
    assert!(idle.is_err(), "an empty page is not an event");
    let asked = world.asked().len();
    assert!((12..=20).contains(&asked), "{asked}");
    world.refuse([Refusal {
        status: 429,
        retry_after: Some(120),
    }]);
    assert_eq!(
        subscription.next().await,
        Some(LogEvent::Gap(ErrorKind::RateLimited))
    );
    let asked = world.asked().len();
    let _ = tokio::time::timeout(Duration::from_secs(119), subscription.next()).await;
    assert_eq!(world.asked().len(), asked);
    let _ = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await;
    assert!(world.asked().len() > asked);
}

#[tokio::test(start_paused = true)]
async fn two_apps_have_a_reader_each_and_two_subscriptions_of_one_hear_alike() {
    let world = api();
    world.add_token("fo1_all", Rights::Read);
    let hub = hub(&world).await;
    let mut first = hub.subscribe(&shop(), LogFilter::all(), None);
    let mut second = hub.subscribe(&shop(), LogFilter::all(), None);
    let other = hub.subscribe(&AppName::new("other").unwrap(), LogFilter::all(), None);
    write(&world, BASE_NS, "one");
    assert_eq!(
        (message(&mut first).await, message(&mut second).await),
        ("one".into(), "one".into())
    );
    hub.stop(&shop());
    assert!(!hub.is_running(&shop()) && hub.is_running(&AppName::new("other").unwrap()));
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_first_subscriber_gets_the_newest_page_and_nothing_older_after_it() {
    let world = api();
    (0..1000).for_each(|n| write(&world, BASE_NS + n, &n.to_string()));
    let mut subscription = hub(&world).await.subscribe(&shop(), LogFilter::all(), None);
    let expected: Vec<_> = (900..1000).map(|n| n.to_string()).collect();
    assert_eq!(messages(&mut subscription, 100).await, expected);
    assert!(
        tokio::time::timeout(Duration::from_secs(60), subscription.next())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn every_fault_that_the_world_knows_leaves_one_mark_and_loses_and_doubles_nothing() {
    let kinds = [
        FaultKind::Status500,
        FaultKind::Status429,
        FaultKind::Html502,
        FaultKind::Truncated,
        FaultKind::ResetBeforeCommit,
        FaultKind::CommitThenReset,
        FaultKind::CommitThenTimeout,
    ];
    for kind in kinds {
        let api =
            FlyLogs::new(World::new(7, WorldClock::manual()).with_cloud(CloudSpec::plain("fly")));
        api.add_token("fm2_good", Rights::Read);
        write(&api, BASE_NS, "before");
        let mut subscription = hub(&api).await.subscribe(&shop(), LogFilter::all(), None);
        assert_eq!(message(&mut subscription).await, "before");
        api.world()
            .inject([Fault::new("fly", "logs", kind).times(3)]);
        (1..=150).for_each(|n| write(&api, BASE_NS + n, &n.to_string()));
        let mut heard = messages(&mut subscription, 151).await;
        let gap = heard.remove(0);
        assert!(gap.starts_with("Some(Gap("), "{kind:?}: {gap}");
        assert_eq!(
            heard,
            (1..=150).map(|n| n.to_string()).collect::<Vec<_>>(),
            "{kind:?}"
        );
        assert!(
            api.world().waiting_faults().is_empty(),
            "{kind:?} struck three times"
        );
    }
}

/// One burst: how long after the one before, and for each entry how late it is (ms) and whether it
/// shares a nanosecond.
type Burst = (u64, Vec<(u64, bool)>);

fn bursts() -> impl Strategy<Value = Vec<Burst>> {
    proptest::collection::vec(
        (
            1_u64..12_000,
            proptest::collection::vec((0_u64..4_000, any::<bool>()), 0..14),
        ),
        0..12,
    )
}

/// What was heard, and what the API's own list says was written, each counted.
async fn heard_and_written(
    world: FlyLogs,
    bursts: Vec<Burst>,
    ids: bool,
) -> [BTreeMap<String, i32>; 2] {
    let mut subscription = hub(&world).await.subscribe(&shop(), LogFilter::all(), None);
    let heard = Arc::new(Mutex::new(BTreeMap::new()));
    let listening = tokio::spawn({
        let heard = heard.clone();
        async move {
            while let Some(event) = subscription.next().await {
                let text = match event {
                    LogEvent::Entry(entry) => format!(
                        "{} {}",
                        entry.timestamp.unwrap(),
                        entry.message.as_deref().unwrap()
                    ),
                    other => format!("{other:?}"),
                };
                *heard.lock().unwrap().entry(text).or_default() += 1;
            }
        }
    });
    let begun = Instant::now();
    for (number, (pause, entries)) in (0_u64..).zip(bursts) {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let now = BASE_NS / 1_000_000 + u64::try_from(begun.elapsed().as_millis()).unwrap();
        let (mut last, mut run) = (0, 0);
        for (n, (late, shares)) in (0_u64..).zip(entries) {
            // At most three share one nanosecond: fewer than a page, or no cursor of one nanosecond
            // could ever pass them.
            run = if shares && n > 0 && run < 2 {
                run + 1
            } else {
                0
            };
            let at = if run > 0 {
                last
            } else {
                (now - late) * 1_000_000 + number * 100 + n
            };
            last = at;
            // Two of one nanosecond may say the same: they are two all the same.
            let mut line = Line::new(at, format!("burst {number}"));
            line.id = ids.then(|| format!("id-{}", world.count("shop")));
            world.write("shop", line);
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    listening.abort();
    let mut written = BTreeMap::new();
    for line in world.lines("shop") {
        let second = Timestamp::from_unix_seconds(i64::try_from(line.at / 1_000_000_000).unwrap())
            .to_string();
        let at: Timestamp = format!(
            "{}.{:09}Z",
            second.trim_end_matches('Z'),
            line.at % 1_000_000_000
        )
        .parse()
        .unwrap();
        *written
            .entry(format!("{at} {}", line.message.unwrap()))
            .or_default() += 1;
    }
    let heard = heard.lock().unwrap().clone();
    [heard, written]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn equal_late_disordered_and_repeated_entries_are_heard_exactly_once(
        bursts in bursts(), page in 4_usize..8, inclusive: bool, token_as_number: bool,
            no_token_at_end: bool, disorder: bool,
        repeats: bool, ids: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let [heard, written] = runtime.block_on(async {
            let world = api();
            world.quirk(|quirks| {
                quirks.page_size = page;
                quirks.inclusive = inclusive;
                quirks.token_as_number = token_as_number;
                quirks.no_token_at_end = no_token_at_end;
                quirks.disorder = disorder;
                quirks.repeats = repeats;
            });
            heard_and_written(world, bursts, ids).await
        });
        prop_assert_eq!(heard, written);
    }
}

/// Lines at these places, each with an id; quirks as drawn.
fn written(places: &[u8], page: usize, inclusive: bool, disorder: bool, repeats: bool) -> FlyLogs {
    let world = api();
    for at in places {
        write(&world, BASE_NS + u64::from(*at), "x");
    }
    world.quirk(|quirks| {
        (
            quirks.page_size,
            quirks.inclusive,
            quirks.disorder,
            quirks.repeats,
        ) = (page, inclusive, disorder, repeats);
    });
    world
}

/// Ids and places of what comes within a minute, or of the first so many.
async fn heard(subscription: &mut LogSubscription, most: usize) -> Vec<(String, u64)> {
    let mut heard = Vec::new();
    while heard.len() < most
        && let Ok(Some(event)) =
            tokio::time::timeout(Duration::from_secs(60), subscription.next()).await
    {
        let LogEvent::Entry(entry) = event else {
            panic!("{event:?}")
        };
        let nanos = entry.timestamp.unwrap().to_string();
        let place = nanos
            .trim_start_matches("2026-11-21T00:00:00")
            .trim_matches(['.', 'Z']);
        heard.push((
            entry.id.clone().unwrap(),
            if place.is_empty() {
                0
            } else {
                format!("{place:0<9}").parse().unwrap()
            },
        ));
    }
    heard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn from_any_cursor_on_every_line_is_heard_once_and_a_resumed_reader_misses_none(
        // At most three in one nanosecond, and a page holds more.
        places in proptest::collection::btree_map(0_u8..60, 1_usize..4, 0..40), page in 4_usize..9,
            cursor in 0_u8..70,
        inclusive: bool, disorder: bool, repeats: bool, taken in 0_usize..30,
    ) {
        let places: Vec<u8> = places.into_iter().flat_map(|(at, count)| vec![at; count]).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = written(&places, page, inclusive, disorder, repeats);
            let hub = hub(&world).await;
            let from = Some(LogCursor(BASE_NS + u64::from(cursor)));
            let due = |line: &&Line| line.at >= BASE_NS + u64::from(cursor);
            let wanted: BTreeSet<String> = world.lines("shop").iter().filter(due).map(|line| line.id.clone().unwrap()).collect();

            let all = heard(&mut hub.subscribe(&shop(), LogFilter::all(), from), usize::MAX).await;
            let mut once: Vec<_> = all.iter().map(|(id, _)| id.clone()).collect();
            once.sort();
            let heard_ids: BTreeSet<String> = once.iter().cloned().collect();
            prop_assert_eq!(once.len(), heard_ids.len(), "something came twice: {:?}", all);
            prop_assert!(heard_ids.is_superset(&wanted), "{:?} of {:?}", heard_ids, wanted);
            prop_assert!(all.iter().all(|(_, at)| *at + 1 >= u64::from(cursor)),
                "what was long before came too: {:?}", all);

            let mut first = hub.subscribe(&shop(), LogFilter::all(), from);
            let before = heard(&mut first, taken).await;
            let at = first.cursor();
            drop(first);
            let after = heard(&mut hub.subscribe(&shop(), LogFilter::all(), at), usize::MAX).await;
            let both: BTreeSet<String> = before.into_iter().chain(after).map(|(id,
                _)| id).collect();
            prop_assert!(both.is_superset(&wanted), "{:?} of {:?}", both, wanted);
            Ok(())
        })?;
    }
}
