//! The world: life, money, reads, faults, repeatability.

use std::time::Duration;

use atlas_core::{LAUNCH_KEY_ENV, PRESHARED_KEY_ENV, Port, Secret, Usd};
use atlas_testkit::world::{
    Account, CloudSpec, Fault, FaultKind, FaultPlan, Lag, MachineSpec, MachineState, Refusal,
    Standing, Visit, World, WorldClock,
};

const KEY: &str = "a1-aaaaaa-nkyqgaabaeaqcaib-aibaeaqc";

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn world() -> (World, Account) {
    let world = World::new(7, WorldClock::manual()).with_cloud(CloudSpec::plain("mock"));
    let account = world.add_key("mock", "k", "me");
    (world, account)
}

fn command(line: &str) -> MachineSpec {
    let mut spec = MachineSpec::cpu("cpu", 2);
    spec.command = atlas_testkit::world::split(line);
    spec
}

#[test]
fn a_machine_provisions_starts_runs_stops_starts_again_and_ends() {
    let (world, me) = world();
    let made = world
        .create_machine("mock", &me, MachineSpec::gpu("gpu-a", 2), &world.honest())
        .unwrap();
    assert_eq!(made.state, MachineState::Provisioning);
    let state = || world.truth("mock", &made.id).unwrap().state;
    let mut seen = vec![state()];
    while let Some(next) = world.next_event() {
        world.advance(next.since(world.now()));
        seen.push(state());
    }
    assert_eq!(
        seen,
        [
            MachineState::Provisioning,
            MachineState::Starting,
            MachineState::Running
        ]
    );
    world.stop("mock", &me, &made.id).unwrap();
    assert_eq!(state(), MachineState::Stopped);
    assert_eq!(
        world.stop("mock", &me, &made.id).unwrap_err(),
        Refusal::WrongState(MachineState::Stopped)
    );
    world.start("mock", &me, &made.id, &world.honest()).unwrap();
    world.advance(secs(60));
    assert_eq!(state(), MachineState::Running);
    world.destroy("mock", &me, &made.id).unwrap();
    assert_eq!(state(), MachineState::Destroyed);
    assert!(
        world
            .machine("mock", &me, &made.id, &world.honest())
            .is_none()
    );
    assert_eq!(
        world.destroy("mock", &me, &made.id).unwrap_err(),
        Refusal::NotFound
    );
}

#[test]
fn every_started_second_is_billed_and_nothing_after_the_end() {
    let (world, me) = world();
    let mut spec = MachineSpec::gpu("gpu-a", 2);
    spec.tier = Some("secure".into());
    spec.volume_gb = 100;
    let made = world
        .create_machine("mock", &me, spec, &world.honest())
        .unwrap();
    let billed = || world.ledger().clouds["mock"].billed_usd;
    world.advance(Duration::from_millis(3_599_500));
    assert_eq!(
        billed(),
        Usd::from_cents(2 * 349),
        "two GPUs for an hour, the last half second rounded up"
    );
    world.stop("mock", &me, &made.id).unwrap();
    let stopped = billed();
    world.advance(secs(3600));
    assert_eq!(
        billed() - stopped,
        Usd::from_nanos(273_973 * 100),
        "a stopped machine bills for its disk only"
    );
    world.destroy("mock", &me, &made.id).unwrap();
    let ended = billed();
    world.advance(secs(1_000_000));
    assert_eq!(billed(), ended);
}

#[test]
fn what_is_sold_out_is_refused_and_counts_nothing() {
    let (world, me) = world();
    let most = |count| {
        let mut spec = MachineSpec::gpu("gpu-a", count);
        (spec.tier, spec.regions) = (Some("secure".into()), vec!["r2".into()]);
        spec
    };
    let made = world
        .create_machine("mock", &me, most(8), &world.honest())
        .unwrap();
    assert_eq!(
        world
            .create_machine("mock", &me, most(1), &world.honest())
            .unwrap_err(),
        Refusal::NoCapacity
    );
    assert_eq!(world.stock("mock", "gpu-a", "secure")["r2"], 0);
    world.skew_catalogue("mock", true);
    assert!(
        world.stock("mock", "gpu-a", "secure")["r2"] > 8,
        "a skewed catalogue says there are some"
    );
    assert_eq!(
        world
            .create_machine("mock", &me, most(1), &world.honest())
            .unwrap_err(),
        Refusal::NoCapacity
    );
    assert_eq!(world.ledger().clouds["mock"].created, 1);
    world.destroy("mock", &me, &made.id).unwrap();
    assert!(
        world
            .create_machine("mock", &me, most(8), &world.honest())
            .is_ok()
    );
}

#[test]
fn a_command_of_the_table_ends_its_machine_with_its_code() {
    let (world, me) = world();
    for (line, code) in [
        ("true", Some(0)),
        ("sh -c 'sleep 20; exit 3'", Some(3)),
        ("nginx", None),
    ] {
        let made = world
            .create_machine("mock", &me, command(line), &world.honest())
            .unwrap();
        world.advance(secs(60));
        let after = world.truth("mock", &made.id).unwrap();
        assert_eq!(after.exit_code, code, "{line}");
        assert_eq!(
            after.state,
            if code.is_some() {
                MachineState::Stopped
            } else {
                MachineState::Running
            },
            "{line}"
        );
    }
    let made = world
        .create_machine(
            "mock",
            &me,
            command("sh -c 'echo hello; exit 0'"),
            &world.honest(),
        )
        .unwrap();
    world.advance(secs(60));
    let log = world
        .log_of(
            "mock",
            &me,
            &made.id,
            Some(atlas_core::LogSource::Container),
        )
        .unwrap();
    let lines: Vec<&str> = log.iter().map(|entry| entry.line.as_str()).collect();
    assert_eq!(lines, ["container started", "hello"]);
}

#[test]
fn a_machine_answers_only_to_its_token_and_only_when_warm() {
    let (world, me) = world();
    let mut spec = MachineSpec::gpu("gpu-b", 1);
    spec.ports = vec![Port::http(8000), Port::tcp(22)];
    spec.env
        .insert(PRESHARED_KEY_ENV.into(), Secret::new("token"));
    let made = world
        .create_machine("mock", &me, spec, &world.honest())
        .unwrap();
    let visit = |port, token| world.visit("mock", &made.id, port, token);
    assert_eq!(visit(8000, Some("token")), Visit::NotYet);
    world.advance(secs(60));
    assert!(matches!(visit(8000, Some("token")), Visit::Welcome { .. }));
    assert_eq!(visit(8000, Some("wrong")), Visit::Refused);
    assert_eq!(visit(8000, None), Visit::Refused);
    assert_eq!(visit(22, Some("token")), Visit::Nobody);
    assert_eq!(world.visit("mock", "nobody", 8000, None), Visit::Nobody);
}

#[test]
fn a_late_machine_lives_and_bills_before_any_read_shows_it() {
    let (world, me) = world();
    world.inject([Fault::new(
        "mock",
        "spawn_compute",
        FaultKind::LateAppearance,
    )]);
    let arrival = world.arrive("mock", "spawn_compute", "k", None, false);
    let made = world
        .create_machine("mock", &me, MachineSpec::gpu("gpu-a", 1), &arrival)
        .unwrap();
    world.advance(world.cloud("mock").unwrap().visibility_bound);
    assert!(
        world
            .machine("mock", &me, &made.id, &world.honest())
            .is_none()
    );
    assert!(world.machines("mock", &me, &world.honest()).is_empty());
    assert_eq!(
        world.destroy("mock", &me, &made.id).unwrap_err(),
        Refusal::NotFound
    );
    let books = world.ledger().clouds.remove("mock").unwrap();
    assert_eq!((books.created, books.live), (1, 1));
    assert!(books.billed_usd > Usd::ZERO);
    world.advance(secs(1000));
    assert_eq!(world.machines("mock", &me, &world.honest()).len(), 1);
}

#[test]
fn reads_lag_for_each_machine_by_itself_within_the_bound() {
    let (world, me) = world();
    world.set_lag("mock", Lag::within(secs(60)));
    for _ in 0..16 {
        world
            .create_machine("mock", &me, MachineSpec::gpu("gpu-b", 1), &world.honest())
            .unwrap();
    }
    let at_once = world.machines("mock", &me, &world.honest()).len();
    world.advance(secs(61));
    let all = world.machines("mock", &me, &world.honest());
    assert!(
        at_once < 16 && all.len() == 16,
        "{at_once} at once, {} after the bound",
        all.len()
    );
    for machine in &all {
        world.destroy("mock", &me, &machine.id).unwrap();
    }
    assert_eq!(world.ledger().clouds["mock"].live, 0);
    let ghosts = world.machines("mock", &me, &world.honest());
    assert!(
        !ghosts.is_empty()
            && ghosts
                .iter()
                .all(|ghost| ghost.state != MachineState::Destroyed)
    );
    world.advance(secs(61));
    assert!(world.machines("mock", &me, &world.honest()).is_empty());
}

#[test]
fn faults_on_a_life_strike_their_machine_and_are_counted() {
    let (world, me) = world();
    let create = |kind| {
        world.inject([Fault::new("mock", "spawn_compute", kind)]);
        let arrival = world.arrive("mock", "spawn_compute", "k", None, false);
        world.create_machine("mock", &me, MachineSpec::gpu("gpu-b", 1), &arrival)
    };
    let stuck = create(FaultKind::NeverReady).unwrap();
    let taken = create(FaultKind::Preempt).unwrap();
    let gone = create(FaultKind::Vanish).unwrap();
    let twin = create(FaultKind::DuplicateCommit).unwrap();
    assert_eq!(
        create(FaultKind::NoCapacity).unwrap_err(),
        Refusal::NoCapacity
    );
    world.advance(secs(600));
    let truth = |machine: &atlas_testkit::world::Machine| world.truth("mock", &machine.id).unwrap();
    assert_eq!(truth(&stuck).state, MachineState::Starting);
    assert_eq!(
        (truth(&taken).state, truth(&taken).preempted),
        (MachineState::Stopped, true)
    );
    assert_eq!(truth(&gone).state, MachineState::Destroyed);
    assert_eq!(truth(&twin).state, MachineState::Running);
    assert_eq!(world.ledger().clouds["mock"].created, 5);
    let struck: Vec<(&str, u64)> = world
        .struck()
        .into_iter()
        .map(|(kind, n)| (kind.as_str(), n))
        .collect();
    assert_eq!(
        struck,
        [
            ("duplicate-commit", 1),
            ("no-capacity", 1),
            ("preempt", 1),
            ("vanish", 1),
            ("never-ready", 1)
        ]
    );

    world.inject([Fault::new("mock", "presence", FaultKind::Vanish)]);
    world.arrive("mock", "get_compute", "k", Some(&stuck.id), false);
    assert_eq!(truth(&stuck).state, MachineState::Destroyed);
}

#[test]
fn lists_can_be_stale_partial_and_empty_and_still_look_whole() {
    let (world, me) = world();
    for _ in 0..6 {
        world
            .create_machine("mock", &me, MachineSpec::gpu("gpu-b", 1), &world.honest())
            .unwrap();
    }
    let list = |kind| {
        world.inject([Fault::new("mock", "list_compute", kind)]);
        let arrival = world.arrive("mock", "find_by_launch_key", "k", None, false);
        world.machines("mock", &me, &arrival).len()
    };
    assert_eq!(list(FaultKind::EmptyList), 0);
    assert!(list(FaultKind::PartialList) < 6);
    assert!(
        list(FaultKind::StaleList) < 6,
        "each as some time ago, when they were not there yet"
    );
    assert_eq!(world.machines("mock", &me, &world.honest()).len(), 6);
}

#[test]
fn a_revoked_key_is_bad_and_a_swapped_one_sees_another_account() {
    let (world, me) = world();
    world
        .create_machine("mock", &me, MachineSpec::gpu("gpu-b", 1), &world.honest())
        .unwrap();
    world.inject([
        Fault::new("mock", "list_compute", FaultKind::SwapAccount),
        Fault::new("mock", "terminate", FaultKind::RevokeKey),
    ]);
    world.arrive("mock", "list_compute", "k", None, false);
    let other = world.authorize("mock", "k").unwrap();
    assert_ne!(other, me);
    assert!(world.machines("mock", &other, &world.honest()).is_empty());
    world.arrive("mock", "terminate", "k", None, false);
    assert_eq!(world.authorize("mock", "k"), None);
    world.restore_key("mock", "k");
    assert_eq!(world.authorize("mock", "k"), Some(me));
}

#[test]
fn an_account_in_bad_standing_gets_nothing_new() {
    let (world, me) = world();
    let create =
        || world.create_machine("mock", &me, MachineSpec::gpu("gpu-b", 1), &world.honest());
    let made = create().unwrap();
    for (standing, refusal) in [
        (Standing::NoMoney, Refusal::NoMoney),
        (Standing::Quota(1), Refusal::Quota),
        (Standing::ReadOnly, Refusal::Forbidden),
    ] {
        world.set_standing("mock", &me, standing);
        assert_eq!(create().unwrap_err(), refusal);
    }
    assert_eq!(
        world.destroy("mock", &me, &made.id).unwrap_err(),
        Refusal::Forbidden
    );
    world.set_standing("mock", &me, Standing::Good);
    assert!(world.destroy("mock", &me, &made.id).is_ok());
}

#[test]
fn clones_renames_and_lost_tags_are_in_the_books_with_what_key_they_carry() {
    let (world, me) = world();
    let mut spec = MachineSpec::gpu("gpu-b", 1).named(format!("atlas-x-{KEY}"));
    spec.env.insert(LAUNCH_KEY_ENV.into(), Secret::new(KEY));
    let made = world
        .create_machine("mock", &me, spec, &world.honest())
        .unwrap();
    let clone = world.clone_machine("mock", &made.id).unwrap();
    let keys = || -> Vec<Option<String>> {
        world.ledger().clouds["mock"]
            .machines
            .iter()
            .map(|line| line.launch_key.map(|key| key.to_string()))
            .collect()
    };
    assert_eq!(keys(), [Some(KEY.to_owned()), Some(KEY.to_owned())]);
    assert!(world.rename_machine("mock", &clone.id, "renamed"));
    assert_eq!(
        keys()[1].as_deref(),
        Some(KEY),
        "the environment still carries it"
    );
    assert!(world.retag_machine("mock", &clone.id, None));
    assert_eq!(keys()[1], None);
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_ledger_to_the_byte() {
    let run = |seed| async move {
        let spec = CloudSpec::plain("mock").lag(Lag::within(secs(60)));
        let world = World::new(seed, WorldClock::following(1.0)).with_cloud(spec);
        let me = world.add_key("mock", "k", "me");
        let plan = |kind| FaultPlan {
            cloud: None,
            operation: None,
            kind,
            per_million: 200_000,
        };
        world.plan_faults(
            FaultKind::ALL
                .iter()
                .copied()
                .filter(|kind| *kind != FaultKind::RevokeKey)
                .map(plan),
        );
        for _ in 0..40 {
            let arrival = world.arrive("mock", "spawn_compute", "k", None, false);
            let _ = world.create_machine("mock", &me, MachineSpec::gpu("gpu-b", 1), &arrival);
            tokio::time::advance(secs(7)).await;
            let arrival = world.arrive("mock", "list_compute", "k", None, true);
            if let Some(machine) = world.machines("mock", &me, &arrival).first() {
                let _ = world.destroy("mock", &me, &machine.id);
            }
        }
        serde_json::to_string(&world.ledger()).unwrap()
    };
    let (a, b, c) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(a, b);
    assert_ne!(a, c);
}

#[test]
fn the_books_are_written_as_the_admin_promises() {
    let (world, me) = world();
    let made = world
        .create_machine(
            "mock",
            &me,
            MachineSpec::gpu("gpu-b", 1).named("n"),
            &world.honest(),
        )
        .unwrap();
    world.destroy("mock", &me, &made.id).unwrap();
    let books = serde_json::to_value(world.ledger()).unwrap();
    let now = books["now"].as_str().unwrap();
    let expected = serde_json::json!({
        "now": now,
        "clouds": { "mock": { "created": 1, "live": 0, "destroyed": 1, "billed_usd": "0.000000000",
            "machines": [{
            "id": made.id, "name": "n", "state": "destroyed", "launch_key": null,
            "created_at": now, "destroyed_at": now, "billed_usd": "0.000000000",
        }] } },
    });
    assert_eq!(books, expected);
}
