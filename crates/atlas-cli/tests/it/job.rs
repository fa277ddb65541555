//! `atlas job`, over the mock cloud's endpoint.

use crate::program::Program;

#[test]
fn a_job_runs_streams_and_fails_with_its_own_words() {
    let atlas = Program::new();
    let job = |more: &[&str]| {
        atlas.run(
            &[
                &["job", "run", "sim-endpoint", "--provider", "mock", "--json"],
                more,
            ]
            .concat(),
        )
    };
    let echoed = job(&["--sync", "--input", r#"{"prompt":"hi"}"#]);
    assert_eq!(echoed.good()["status"], "completed", "{echoed:?}");
    assert_eq!(echoed.json()["output"]["prompt"], "hi");
    let failed = job(&["--sync", "--input", r#"{"error":"no weights"}"#]);
    assert_eq!(
        (failed.code, &failed.json()["status"]),
        (1, &"failed".into()),
        "{failed:?}"
    );
    let streamed = job(&["--stream", "--input", r#"{"stream":3}"#]);
    assert_eq!(
        (streamed.code, streamed.out.lines().count()),
        (0, 3),
        "{streamed:?}"
    );
    let unread = job(&["--input", "{hunter2"]);
    assert!(
        unread.code == 2 && !unread.err.contains("hunter2"),
        "{unread:?}"
    );
    let unknown = atlas.run(&["job", "get", "nowhere", "j1", "--provider", "mock"]);
    assert!(
        unknown.code == 1 && unknown.err.contains("not_found"),
        "{unknown:?}"
    );
}
