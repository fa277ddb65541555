//! `atlas demo`, as the README tells a newcomer to run it.

use crate::program::{Program, ran};

#[test]
fn the_demo_ends_with_a_ledger_that_shows_no_live_machine() {
    let atlas = Program::new();
    let told = atlas.run(&["demo", "--json"]);
    let ledger = told.good();
    let clouds = ledger["clouds"].as_object().unwrap();
    let sum = |of: &str| {
        clouds
            .values()
            .map(|cloud| cloud[of].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        (sum("created"), sum("live"), sum("destroyed")),
        (4, 0, 4),
        "{}",
        told.err
    );
    for told_of in [
        "200 with the token, 401 without",
        "SIGKILL",
        "found by its launch key",
        "proved to be gone",
    ] {
        assert!(
            told.err.contains(told_of),
            "{told_of:?} is missing in {}",
            told.err
        );
    }
}

#[test]
fn the_main_job_runs_over_every_cloud_at_once_and_leaves_no_machine_on_any() {
    let atlas = Program::new();
    // Keys of real accounts are not for simulated clouds, nor the other way round.
    let mut command = atlas.command(&["demo", "--clouds", "runpod,fly,lambda,vast", "--json"]);
    let told = ran(command
        .env("VAST_API_KEY", "zz-real")
        .env("ATLAS_LAMBDA_SSH_KEY", "zz-real"));
    let ledger = told.good();
    for cloud in ["runpod", "fly", "lambda", "vast"] {
        let of = &ledger["clouds"][cloud];
        assert_eq!(
            (&of["created"], &of["live"], &of["destroyed"]),
            (&4.into(), &0.into(), &4.into()),
            "{cloud}: {}",
            told.err
        );
        let about = |what: &str| {
            told.err
                .lines()
                .any(|line| line.split_whitespace().nth(1) == Some(cloud) && line.contains(what))
        };
        for what in [
            "by hand",
            "was idle",
            "touched all the while",
            "SIGKILL",
            "found by its launch key",
            "proved to be gone",
        ] {
            assert!(
                about(what),
                "{what:?} of {cloud} is missing in {}",
                told.err
            );
        }
        let has_url = matches!(cloud, "runpod" | "fly");
        assert_eq!(
            about("200 with the token, 401 without"),
            has_url,
            "{cloud}: {}",
            told.err
        );
    }
}

#[test]
fn a_cloud_that_the_demo_does_not_know_is_a_wrong_command_line() {
    let told = Program::new().run(&["demo", "--clouds", "runpod,acme"]);
    assert!(told.code == 2 && told.err.contains("acme"), "{told:?}");
}
