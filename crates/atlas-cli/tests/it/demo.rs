//! `atlas demo`, as the README tells a newcomer to run it.

use crate::program::Program;

#[test]
fn the_demo_ends_with_a_ledger_that_shows_no_live_machine() {
    let atlas = Program::new();
    let told = atlas.run(&["demo", "--json"]);
    let ledger = told.good();
    let clouds = ledger["clouds"].as_object().unwrap();
    let sum = |of: &str| clouds.values().map(|cloud| cloud[of].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("created"), sum("live"), sum("destroyed")), (4, 0, 4), "{}", told.err);
    for told_of in ["200 with the token, 401 without", "SIGKILL", "found by its launch key", "proved to be gone"] {
        assert!(told.err.contains(told_of), "{told_of:?} is missing in {}", told.err);
    }
}
