//! Deploys by a fake `fly`: what is read, what it is given, and that nothing of it is left.

use std::path::PathBuf;
use std::time::Duration;

use atlas_fly_ops::{
    Ansi, AppName, DeployError, DeployEvent, DeployRequest, DeployTicket, Deployment, FlyCli,
    FlyToken, Pipe, Stage,
};

use crate::fly::Fly;

fn request(fake: &Fly) -> DeployRequest {
    let mut request = DeployRequest::new(fake.dir.path());
    request.grace = Duration::from_millis(200);
    request
}

fn ticket() -> DeployTicket {
    DeployTicket("t1".into())
}

/// Reads until a line of this text came.
async fn until(deployment: &mut Deployment, wanted: &str) {
    let wait = async {
        loop {
            match deployment.next().await {
                Some(DeployEvent::Line { text, .. }) if text == wanted => return,
                Some(_) => {}
                None => panic!("it ended before it said {wanted}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .expect("it says it in time");
}

async fn events(mut deployment: Deployment) -> (Vec<DeployEvent>, Result<String, DeployError>) {
    let mut seen = Vec::new();
    while let Some(event) = deployment.next().await {
        seen.push(event);
    }
    (seen, deployment.finish().await.map(|output| output.text()))
}

/// Waits until no process that the fake wrote down runs, and its leader is reaped.
async fn nothing_left(fake: &Fly) {
    let gone = async {
        while !fake.alive().is_empty() || !fake.unreaped().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone)
        .await
        .unwrap_or_else(|_| panic!("left: {:?}", fake.alive()));
}

#[tokio::test]
async fn a_deploy_gives_its_output_and_the_token_is_in_the_environment_only() {
    let fake = Fly::doing("pwd; echo done >&2");
    let mut request = request(&fake);
    request.app = Some(AppName::new("shop").unwrap());
    request.config = Some(PathBuf::from("fly.staging.toml"));
    request.arguments = vec!["--ha=false".into(), "; touch pwned".into()];
    request.token = Some(FlyToken::parse("FlyV1 fm2_s3cret").unwrap());
    let output = fake.cli().deploy(request).await.unwrap().text();
    assert!(
        output.contains(&format!(
            "{}\n",
            fake.dir.path().canonicalize().unwrap().display()
        )) && output.contains("done\n")
    );
    assert_eq!(
        fake.calls(),
        ["deploy --remote-only --app=shop --config fly.staging.toml --ha=false ; touch pwned"]
    );
    assert!(!fake.path("pwned").exists());
    let env = fake.env();
    assert_eq!(fake.stdin().as_deref(), Some("/dev/null"));
    assert_eq!(
        fake.working_directory(),
        fake.dir.path().canonicalize().ok()
    );
    for expected in [
        "FLY_API_TOKEN=fm2_s3cret",
        "CI=1",
        "NO_COLOR=1",
        "FLY_NO_UPDATE_CHECK=1",
    ] {
        assert!(env.iter().any(|line| line == expected), "{expected}");
    }
    // Cargo sets many variables of its own: none is passed on.
    assert!(!env.iter().any(|line| line.starts_with("CARGO")), "{env:?}");
}

#[tokio::test]
async fn what_is_wrong_before_the_start_is_said_and_nothing_runs() {
    let fake = Fly::doing("true");
    let missing = DeployRequest::new(fake.path("absent"));
    let nowhere = FlyCli::new().program("/nowhere/fly");
    // The folder is looked at before the executable.
    assert!(matches!(
        nowhere.deploy(missing).await,
        Err(DeployError::InvalidDirectory)
    ));
    assert!(matches!(
        nowhere.deploy(request(&fake)).await,
        Err(DeployError::NotFound)
    ));
    // There, and not executable.
    let inert = FlyCli::new().program(fake.path("scenario"));
    assert!(matches!(
        inert.deploy(request(&fake)).await,
        Err(DeployError::NotFound)
    ));
    for word in [
        "-t",
        "-tfm2_s3cret",
        "--access-token",
        "--access-token=fm2_s3cret",
    ] {
        let mut request = request(&fake);
        request.arguments = vec![word.into(), "fm2_s3cret".into()];
        let error = fake.cli().deploy(request).await.unwrap_err();
        assert!(
            matches!(error, DeployError::TokenInArguments)
                && !format!("{error:?} {error}").contains("s3cret")
        );
    }
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_relative_executable_is_the_one_of_here_and_not_of_the_folder_that_is_deployed() {
    let (ours, theirs) = (Fly::doing("echo ours"), Fly::doing("echo theirs"));
    let here = std::env::current_dir().unwrap();
    let up: PathBuf = here.components().skip(1).map(|_| "..").collect();
    let relative = up.join(ours.program().strip_prefix("/").unwrap());
    let place = theirs.dir.path().join(&relative);
    assert!(relative.is_relative() && place != relative);
    let output = FlyCli::new()
        .program(&relative)
        .deploy(request(&theirs))
        .await
        .unwrap();
    assert_eq!(output.text(), "ours\n");
}

#[tokio::test]
async fn limits_without_end_are_no_limits() {
    let fake = Fly::doing("echo done");
    let mut request = request(&fake);
    (request.activity_timeout, request.max_timeout, request.grace) =
        (Duration::MAX, Duration::MAX, Duration::MAX);
    let (_, result) = events(fake.cli().stream_deploy(ticket(), request).unwrap()).await;
    assert_eq!(result.unwrap(), "done\n");
}

#[tokio::test]
async fn the_executable_may_be_called_flyctl() {
    let fake = Fly::doing("echo here");
    std::fs::rename(fake.path("fly"), fake.path("flyctl")).unwrap();
    let cli = FlyCli::new().search_path(fake.dir.path());
    assert_eq!(cli.deploy(request(&fake)).await.unwrap().text(), "here\n");
}

#[tokio::test]
async fn exit_codes_and_signals_come_with_the_output_so_far() {
    for (end, code) in [
        ("exit 1", Some(1)),
        ("exit 127", Some(127)),
        ("kill -9 $$", None),
    ] {
        let fake = Fly::doing(&format!("echo so far; echo s3cret >&2; {end}"));
        let error = fake.cli().deploy(request(&fake)).await.unwrap_err();
        assert!(error.output().unwrap().text().contains("so far\n"));
        assert!(!format!("{error} {error:?}").contains("s3cret"));
        assert!(
            matches!(error, DeployError::ExitCode(got, _) if got == code),
            "{end}: {error:?}"
        );
    }
}

#[tokio::test]
async fn lines_outputs_colour_and_stages_are_told_apart() {
    let said = r#"printf '==> Buil'; sleep 0.05; printf 'ding image\n\n\033[32mgr\303'; sleep 0.05; printf '\251n\033[0m\n'
        echo 'Error: smoke checks for 6e8294c17d5083 failed' >&2"#;
    for (ansi, green) in [
        (Ansi::Strip, "grén"),
        (Ansi::Keep, "\u{1b}[32mgrén\u{1b}[0m"),
    ] {
        let fake = Fly::doing(said);
        let mut request = request(&fake);
        request.ansi = ansi;
        let (seen, result) = events(fake.cli().stream_deploy(ticket(), request).unwrap()).await;
        assert!(result.is_ok());
        let line = |pipe, text: &str| DeployEvent::Line {
            pipe,
            text: text.into(),
            cut: false,
        };
        let (err, out): (Vec<_>, Vec<_>) = seen.into_iter().partition(|event| {
            matches!(
                event,
                DeployEvent::Line {
                    pipe: Pipe::Stderr,
                    ..
                } | DeployEvent::Stage(Stage::CheckFailed)
            )
        });
        assert_eq!(
            out,
            [
                line(Pipe::Stdout, "==> Building image"),
                DeployEvent::Stage(Stage::Build),
                line(Pipe::Stdout, green)
            ]
        );
        let failed = "Error: smoke checks for 6e8294c17d5083 failed";
        assert_eq!(
            err,
            [
                line(Pipe::Stderr, failed),
                DeployEvent::Stage(Stage::CheckFailed)
            ]
        );
    }
}

/// A process that started another; both ignore what they are told to ignore. The second holds the
/// outputs open.
fn stubborn(trap: &str, says: &str) -> Fly {
    Fly::doing(&format!(
        r#"{trap}
        sh -c '{trap}
            echo $$ >> "$FAKE_FLY/pids"; echo "{says}"; while :; do sleep 0.1; done' &
        while :; do sleep 0.1; done"#
    ))
}

#[tokio::test]
async fn cancelled_or_dropped_at_any_stage_it_leaves_no_process() {
    for says in [
        "==> Verifying app config",
        "==> Building image",
        "==> Pushing image",
        "Running shop release_command: x",
        "> [1/1] Updating 6e8294c17d5083 [app]",
    ] {
        for trap in ["", "trap \"\" TERM INT"] {
            for drops in [false, true] {
                let fake = stubborn(trap, says);
                let mut deployment = fake.cli().stream_deploy(ticket(), request(&fake)).unwrap();
                until(&mut deployment, says).await;
                assert_eq!(fake.alive().len(), 2);
                if drops {
                    drop(deployment);
                } else {
                    let error = deployment.cancel().await.unwrap_err();
                    assert!(
                        matches!(&error,
                            DeployError::Cancelled(output) if output.text().contains(says)),
                        "{error:?}"
                    );
                }
                nothing_left(&fake).await;
            }
        }
    }
}

#[tokio::test]
async fn it_is_asked_before_it_is_killed() {
    let fake = Fly::doing(
        r#"trap 'echo leases released; touch "$FAKE_FLY/asked"; exit 127' TERM
        echo ready; while :; do sleep 0.05; done"#,
    );
    let mut request = request(&fake);
    request.grace = Duration::from_secs(30);
    let mut deployment = fake.cli().stream_deploy(ticket(), request).unwrap();
    until(&mut deployment, "ready").await;
    let error = deployment.cancel().await.unwrap_err();
    assert!(
        error.output().unwrap().text().contains("leases released"),
        "{error:?}"
    );
    assert!(fake.path("asked").exists());
}

#[tokio::test]
async fn silence_and_dribble_both_run_out_of_time() {
    let silent = Fly::doing("echo begun; exec sleep 600");
    let mut quiet = request(&silent);
    quiet.activity_timeout = Duration::from_millis(500);
    let dribbling = Fly::doing("while :; do echo drip; sleep 0.05; done");
    let mut endless = request(&dribbling);
    endless.max_timeout = Duration::from_millis(700);
    for (fake, request, said) in [(silent, quiet, "begun\n"), (dribbling, endless, "drip\n")] {
        let (_, result) = events(fake.cli().stream_deploy(ticket(), request).unwrap()).await;
        let error = result.unwrap_err();
        assert!(
            matches!(&error, DeployError::Timeout(output) if output.text().contains(said)),
            "{error:?}"
        );
        nothing_left(&fake).await;
    }
}

#[tokio::test]
async fn a_grandchild_that_holds_the_output_open_does_not_hold_up_the_end() {
    let fake = Fly::doing(r#"(sleep 600) & echo $! >> "$FAKE_FLY/pids"; echo out"#);
    let output = tokio::time::timeout(Duration::from_secs(60), fake.cli().deploy(request(&fake)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.text(), "out\n");
    nothing_left(&fake).await;
}

#[tokio::test]
async fn endless_output_is_bounded_and_a_reader_that_sleeps_is_told_what_it_missed() {
    let fake = Fly::doing("yes 'a line of output, again and again' | head -n 100000; echo the end");
    let mut deployment = fake.cli().stream_deploy(ticket(), request(&fake)).unwrap();
    // It runs to its end although its output is not read.
    let ended = async {
        while !fake.unreaped().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until(&mut deployment, "a line of output, again and again").await;
    tokio::time::timeout(Duration::from_secs(120), ended)
        .await
        .unwrap();
    let (seen, result) = events(deployment).await;
    let text = result.unwrap();
    assert!(
        text.len() < 1_100_000
            && text.ends_with("the end\n")
            && text.contains(" bytes left out]\n"),
        "{}",
        text.len()
    );
    let (mut lines, mut missed) = (1, 0);
    for event in seen {
        match event {
            DeployEvent::Missed(count) => missed += count,
            _ => lines += 1,
        }
    }
    assert!(missed > 0, "{lines}");
    assert_eq!(lines + missed, 100_001);
}

#[tokio::test(start_paused = true)]
async fn the_limits_are_fifteen_minutes_for_a_deploy_and_five_of_silence_or_thirty_for_a_streamed_one()
 {
    // Nothing but the limits ever wakes anybody: the clock jumps from one to the next.
    let fake = Fly::doing("exec sleep 86400");
    let minutes = |begun: tokio::time::Instant| begun.elapsed().as_secs() / 60;
    let begun = tokio::time::Instant::now();
    assert!(matches!(
        fake.cli().deploy(request(&fake)).await,
        Err(DeployError::Timeout(_))
    ));
    assert_eq!(minutes(begun), 15);
    for (silence, expected) in [(None, 5), (Some(Duration::from_secs(3600)), 30)] {
        let mut request = request(&fake);
        request.activity_timeout = silence.unwrap_or(request.activity_timeout);
        let begun = tokio::time::Instant::now();
        let (_, result) = events(fake.cli().stream_deploy(ticket(), request).unwrap()).await;
        assert!(matches!(result, Err(DeployError::Timeout(_))));
        assert_eq!(minutes(begun), expected);
    }
}

#[tokio::test]
async fn each_output_puts_off_the_end_for_silence() {
    let fake = Fly::doing("for n in 1 2 3 4 5 6 7 8; do sleep 0.4; printf .; done; echo done");
    let mut request = request(&fake);
    request.activity_timeout = Duration::from_secs(2);
    let (_, result) = events(fake.cli().stream_deploy(ticket(), request).unwrap()).await;
    assert_eq!(result.unwrap(), "........done\n");
}

#[tokio::test]
async fn torn_invalid_and_very_long_output_stays_text() {
    let fake = Fly::doing(
        r#"printf 'a\377b\r50%%\r100%%\n'; head -c 1000000 /dev/zero | tr '\0' x; printf '\nafter\n'; printf 'no end'"#,
    );
    let (seen, result) = events(fake.cli().stream_deploy(ticket(), request(&fake)).unwrap()).await;
    let lines: Vec<(usize, bool)> = seen
        .iter()
        .map(|event| match event {
            DeployEvent::Line { text, cut, .. } => (text.len(), *cut),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("a\u{fffd}b".len(), false),
            (3, false),
            (4, false),
            (64 * 1024, true),
            (5, false),
            (6, false)
        ]
    );
    assert!(result.unwrap().ends_with("after\nno end\n"));
}

#[tokio::test]
async fn long_lines_that_nobody_reads_are_bounded_by_their_bytes() {
    let fake = Fly::doing(
        "line=$(head -c 60000 /dev/zero | tr '\\0' x); for n in $(seq 300); do echo $line; done",
    );
    let mut deployment = fake.cli().stream_deploy(ticket(), request(&fake)).unwrap();
    let first = deployment.next().await;
    assert!(matches!(first, Some(DeployEvent::Line { .. })));
    let ended = async {
        while !fake.unreaped().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ended)
        .await
        .unwrap();
    let (seen, _) = events(deployment).await;
    let lines = seen
        .iter()
        .filter(|event| matches!(event, DeployEvent::Line { .. }))
        .count();
    assert!((50..=75).contains(&lines), "{lines} lines of 60 kB waited");
    assert_eq!(
        seen.last(),
        Some(&DeployEvent::Missed(u64::try_from(299 - lines).unwrap()))
    );
}
