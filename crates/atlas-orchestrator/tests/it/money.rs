//! Money: what was quoted, what is observed, what the cloud bills, and what is at risk. The bill is
//! the world's meter's.

use std::time::Duration;

use atlas_core::{Usd, UsdPerHour};
use atlas_orchestrator::{EventKind, Limit, Reason, SessionInfo, SessionOptions};
use atlas_testkit::mock::CLOUD;
use atlas_testkit::world::{Fault, FaultKind, MachineSpec};

use crate::node::{Bench, Node, options, request, settle, sleep};

async fn ended(node: &Node, limit: Limit) -> Option<atlas_core::Timestamp> {
    let wanted = EventKind::Terminating {
        reason: Reason::Limit { limit },
    };
    node.events()
        .await
        .into_iter()
        .find(|event| event.kind == wanted)
        .map(|event| event.at)
}

#[tokio::test(start_paused = true)]
async fn a_session_knows_what_was_quoted_what_is_observed_and_what_was_billed() {
    let bench = Bench::new(1);
    let node = bench.node("a").await;
    let session = node
        .atlas
        .spawn(
            request(),
            options().idle_ttl(Duration::from_secs(24 * 3600)),
        )
        .await
        .unwrap();
    session.await_ready(Duration::from_secs(300)).await.unwrap();
    let before = session.info().await.unwrap().cost;
    assert!(
        before.quoted.is_some() && before.quoted == before.observed && before.billed.is_none(),
        "{before:?}"
    );
    assert_eq!(before.burn, before.observed.unwrap());
    let (me, id) = (
        bench.cloud.world().account("me"),
        bench.ledger().machines[0].id.clone(),
    );
    let dearer = before.quoted.unwrap().times(2);
    bench
        .cloud
        .world()
        .reprice(CLOUD, &me, &id, dearer)
        .unwrap();
    sleep(4 * 3600).await;
    let after = session.info().await.unwrap().cost;
    assert_eq!(
        (after.quoted, after.observed),
        (before.quoted, Some(dearer))
    );
    session.stop().await.unwrap();
    settle(&node, session.id()).await;
    // Bills come in arrears.
    sleep(3 * 3600).await;
    let over = session.info().await.unwrap().cost;
    assert_eq!(
        over.billed,
        Some(bench.ledger().billed_usd),
        "to the nano-dollar what the meter says"
    );
    assert_eq!(
        (over.quoted, over.observed, over.burn),
        (before.quoted, Some(dearer), UsdPerHour::ZERO),
        "told after the end too"
    );
    let (estimated, billed) = (over.estimated.nanos(), over.billed.unwrap().nanos());
    assert!(
        (estimated - billed).abs() < billed / 20,
        "estimated {}, billed {}",
        over.estimated,
        over.billed.unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_dearer_machine_brings_the_end_of_its_budget_forward() {
    let bench = Bench::new(2);
    let node = bench.node("a").await;
    let cap = Usd::from_cents(300);
    let session = node
        .atlas
        .spawn(
            request(),
            options()
                .idle_ttl(Duration::from_secs(24 * 3600))
                .max_cost(cap),
        )
        .await
        .unwrap();
    let first = session.await_ready(Duration::from_secs(300)).await.unwrap();
    let before = first.next_deadline.unwrap();
    assert_eq!(before.limit, Limit::MaxCost);
    let (me, id) = (
        bench.cloud.world().account("me"),
        bench.ledger().machines[0].id.clone(),
    );
    bench
        .cloud
        .world()
        .reprice(CLOUD, &me, &id, first.cost.observed.unwrap().times(3))
        .unwrap();
    sleep(200).await;
    let after = session.info().await.unwrap().next_deadline.unwrap();
    assert!(
        after.at
            < before
                .at
                .saturating_sub(before.at.since(first.created_at) / 3),
        "{before:?} {after:?}"
    );
    settle_limit(&node, &bench, session.id(), cap).await;
}

async fn settle_limit(node: &Node, bench: &Bench, id: atlas_orchestrator::SessionId, cap: Usd) {
    sleep(2 * 3600).await;
    settle(node, id).await;
    assert!(ended(node, Limit::MaxCost).await.is_some());
    assert!(
        bench.ledger().billed_usd <= cap,
        "{}",
        bench.ledger().billed_usd
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_at_risk_is_told_by_its_cause() {
    let mut bench = Bench::new(3);
    bench.policy.default_account.report_only = true;
    let node = bench.node("a").await;
    let nothing = UsdPerHour::ZERO;
    let serving = node.atlas.spawn(request(), options()).await.unwrap();
    serving.await_ready(Duration::from_secs(300)).await.unwrap();
    let price = serving.info().await.unwrap().cost.observed.unwrap();
    let risk = node.atlas.risk().await.unwrap();
    assert_eq!(
        (
            risk.serving,
            risk.unknown,
            risk.stuck,
            risk.quarantined,
            risk.orphan
        ),
        (price, nothing, nothing, nothing, nothing)
    );

    // Orphan: a machine under the key of an attempt that is over; the reaper only reports here.
    let ended = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(60).await;
    let key = bench.ledger().machines[1].launch_key.unwrap();
    ended.stop().await.unwrap();
    settle(&node, ended.id()).await;
    let me = bench.cloud.world().account("me");
    let mut clone = MachineSpec::gpu("gpu-a", 1).named(format!("atlas-x-{key}"));
    clone.tags = [(atlas_core::LAUNCH_KEY_TAG.to_owned(), key.to_string())].into();
    bench
        .cloud
        .world()
        .plant_machine(CLOUD, &me, clone)
        .unwrap();
    // Quarantined: a genuine key that is older than any record.
    let old = bench.realm.mint_key(
        node.atlas
            .now()
            .saturating_sub(Duration::from_secs(90 * 24 * 3600)),
        &atlas_core::SeededEntropy::new(5),
    );
    let mut relic = MachineSpec::gpu("gpu-a", 1).named(format!("atlas-x-{old}"));
    relic.tags = [(atlas_core::LAUNCH_KEY_TAG.to_owned(), old.to_string())].into();
    bench
        .cloud
        .world()
        .plant_machine(CLOUD, &me, relic)
        .unwrap();
    sleep(300).await;
    let risk = node.atlas.risk().await.unwrap();
    assert_eq!((risk.serving, risk.stuck), (price, nothing));
    assert!(
        risk.orphan > nothing && risk.orphan == risk.quarantined,
        "{risk:?}"
    );

    // Unknown: an order whose answer was lost.
    bench.cloud.world().inject([
        Fault::new(CLOUD, "spawn_compute", FaultKind::LateAppearance),
        Fault::new(CLOUD, "spawn_compute", FaultKind::CommitThenReset),
    ]);
    let id = node
        .atlas
        .launch(
            request(),
            options(),
            atlas_orchestrator::SessionKind::Interactive,
        )
        .await
        .unwrap();
    sleep(20).await;
    assert_eq!(node.atlas.risk().await.unwrap().unknown, price);
    node.atlas
        .session(id)
        .await
        .unwrap()
        .await_accepted()
        .await
        .unwrap();
    assert_eq!(node.atlas.risk().await.unwrap().unknown, nothing);

    // Stuck: an end that the cloud does not let be proved.
    bench.fault("list_compute", FaultKind::RevokeKey);
    sleep(100).await;
    serving.stop().await.unwrap();
    sleep(600).await;
    let risk = node.atlas.risk().await.unwrap();
    assert_eq!(risk.stuck, price, "{risk:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cap_is_refused_at_once_where_no_price_is_known() {
    let bench = Bench::new(4);
    let node = bench.node("a").await;
    let refused = node
        .atlas
        .spawn(request(), SessionOptions::new().max_cost(Usd::ZERO))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.kind(), refused.field()),
        (atlas_core::ErrorKind::Validation, Some("max_cost"))
    );
    assert_eq!(
        (
            bench.ledger().created,
            node.atlas.list_ids().await.unwrap().len()
        ),
        (0, 0)
    );
}

/// A session that reached its cap of three dollars on a machine that showed this price.
async fn capped(bench: &Bench, shown: Option<UsdPerHour>) -> SessionInfo {
    let node = bench.node("a").await;
    let wish = options()
        .idle_ttl(Duration::from_secs(24 * 3600))
        .max_cost(Usd::from_cents(300));
    let session = node.atlas.spawn(request(), wish).await.unwrap();
    bench.weather.show_price(shown);
    session.await_ready(Duration::from_secs(300)).await.unwrap();
    settle_limit(&node, bench, session.id(), Usd::from_cents(300)).await;
    session.info().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_cap_holds_by_the_quote_where_the_machine_shows_less_or_nothing_plausible() {
    let fortune = UsdPerHour::new(Usd::from_cents(5_000_000));
    let nothing = UsdPerHour::new(Usd::ZERO);
    let less = UsdPerHour::new(Usd::from_cents(-300));
    let cent = UsdPerHour::new(Usd::from_cents(1));
    for shown in [Some(nothing), Some(less), Some(cent), Some(fortune), None] {
        let bench = Bench::new(20);
        let info = capped(&bench, shown).await;
        let said = info
            .decisions
            .iter()
            .any(|decision| decision.text.contains("not plausible"));
        let doubtful = shown.is_some_and(|price| price != cent);
        assert_eq!(said, doubtful, "{shown:?}: {:?}", info.decisions);
        // An absurdly high price that is not billed ends nothing early.
        let billed = bench.ledger().billed_usd;
        assert!(
            billed >= Usd::from_cents(200),
            "{shown:?}: ended at {billed}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cap_is_not_given_away_for_an_offer_without_a_plausible_price() {
    for price in [None, Some(0), Some(-5), Some(5_000_000)] {
        let bench = Bench::new(21);
        let price = price.map(|cents| UsdPerHour::new(Usd::from_cents(cents)));
        bench.weather.show_price(price);
        let node = bench.node("a").await;
        let wish = options().max_cost(Usd::from_cents(100_000_000));
        let refused = node.atlas.spawn(request(), wish).await.unwrap_err();
        assert!(
            refused.to_string().contains("price"),
            "{price:?}: {refused}"
        );
        assert_eq!(bench.ledger().created, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_is_told_apart_from_what_may_be_owed_until_an_end_is_proved() {
    let bench = Bench::new(22);
    let node = bench.node("a").await;
    let session = node.atlas.spawn(request(), options()).await.unwrap();
    sleep(600).await;
    session.stop().await.unwrap();
    sleep(5).await;
    let ending = session.info().await.unwrap().cost;
    sleep(60).await;
    let later = session.info().await.unwrap().cost;
    assert_eq!(ending.spent, later.spent, "no sign of life in between");
    assert!(
        later.estimated > ending.estimated,
        "its absence is not proved yet"
    );
    settle(&node, session.id()).await;
    let over = session.info().await.unwrap().cost;
    let billed = bench.ledger().billed_usd;
    let off = (over.spent.nanos() - billed.nanos()).abs();
    assert!(
        off < billed.nanos() / 50,
        "spent {}, billed {billed}",
        over.spent
    );
    assert!(over.estimated > over.spent);
    sleep(3600).await;
    let long_over = session.info().await.unwrap().cost;
    assert_eq!(
        (long_over.spent, long_over.estimated),
        (over.spent, over.estimated)
    );
    let told = node
        .events()
        .await
        .into_iter()
        .find_map(|event| match event.kind {
            EventKind::Terminated { cost } => Some(cost),
            _ => None,
        });
    assert_eq!(told, Some(over.spent));
}
