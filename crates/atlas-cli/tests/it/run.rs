//! `atlas run`: the exit code is the container's.

use crate::program::Program;

#[test]
fn the_exit_code_is_the_simulated_machines_own() {
    let atlas = Program::new();
    let run = |script: &str| {
        let args = [
            "--store",
            "a.redb",
            "run",
            "--provider",
            "mock",
            "--image",
            "x",
            "--json",
            "--",
            "sh",
            "-c",
            script,
        ];
        atlas.run(&args)
    };
    let failed = run("exit 3");
    assert_eq!(failed.code, 3, "{failed:?}");
    assert_eq!(
        (
            &failed.json()["outcome"]["kind"],
            &failed.json()["outcome"]["exit_code"]
        ),
        (&"failed".into(), &3.into())
    );
    assert_eq!(failed.json()["outcome"]["proof"], "reported");
    let fine = run("exit 0");
    assert_eq!(
        (fine.code, &fine.json()["outcome"]["kind"]),
        (0, &"completed".into()),
        "{fine:?}"
    );
}

#[test]
fn a_limit_that_ends_the_command_first_exits_124() {
    let atlas = Program::new();
    let args = [
        "--store",
        "a.redb",
        "run",
        "--provider",
        "mock",
        "--image",
        "x",
        "--max-runtime",
        "8s",
        "--json",
        "--",
        "sleep",
        "600",
    ];
    let ended = atlas.run(&args);
    assert_eq!(
        (ended.code, &ended.json()["outcome"]["kind"]),
        (124, &"timed_out".into()),
        "{ended:?}"
    );
}

#[test]
fn atlas_failing_itself_exits_125() {
    let atlas = Program::new();
    std::fs::write(atlas.path().join("a.redb"), vec![7; 8192]).unwrap();
    let broken = atlas.run(&[
        "--store",
        "a.redb",
        "run",
        "--provider",
        "mock",
        "--image",
        "x",
        "--",
        "true",
    ]);
    assert_eq!((broken.code, broken.out.as_str()), (125, ""), "{broken:?}");
}
