//! The provider of `docs/guides/writing-a-provider.md`: it conforms, it is as short as promised,
//! and the guide shows it as it is.

#[path = "../../examples/in_house/provider.rs"]
mod provider;
#[path = "../../examples/in_house/room.rs"]
mod room;

use std::sync::Arc;
use std::time::Duration;

use atlas::testkit::conformance::{self, Control, Subject};
use atlas::testkit::world::WorldClock;
use atlas::{Atlas, Capability, SessionOptions, Shutdown};

use provider::InHouse;
use room::{KEY, Room};

const GUIDE: &str = include_str!("../../../../docs/guides/writing-a-provider.md");
const PROVIDER: &str = include_str!("../../examples/in_house/provider.rs");
const ROOM: &str = include_str!("../../examples/in_house/room.rs");
const MAIN: &str = include_str!("../../examples/in_house/main.rs");

#[tokio::test(start_paused = true)]
async fn the_guides_provider_conforms_and_skips_only_what_it_does_not_declare() {
    let room = Room::default();
    let report = conformance::run(&room).await;
    assert_eq!(report.failed, 0, "{report}");
    assert!(report.passed >= 50, "{report}");
    let declared = room.fresh().await.unwrap().capabilities();
    for skip in &report.skips {
        let missing: Capability = serde_json::from_value(skip.missing_capability.clone().into())
            .unwrap_or_else(|_| panic!("{} is skipped for {}", skip.case, skip.missing_capability));
        assert!(
            !declared.has(missing),
            "{} is skipped, and {missing} is declared",
            skip.case
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_on_the_guides_provider_leaves_nothing_alive() {
    let room = Room::default();
    let atlas = Atlas::builder()
        .provider(InHouse::new(&room, KEY).unwrap())
        .clock(Arc::new(WorldClock::following(1.0)))
        .build()
        .await
        .unwrap();
    atlas
        .spawn(room.request(), SessionOptions::new().user("u42"))
        .await
        .unwrap();
    assert_eq!(
        room.ledger()
            .await
            .iter()
            .filter(|machine| machine.live)
            .count(),
        1
    );
    atlas
        .shutdown(Shutdown::TerminateAll {
            wait: Duration::from_secs(60),
        })
        .await
        .unwrap();
    let books = room.ledger().await;
    assert!(books.len() == 1 && !books[0].live, "{books:?}");
}

#[test]
fn the_guide_shows_the_provider_as_it_is_in_one_file_of_about_200_lines() {
    let blocks: Vec<&str> = GUIDE
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a block is closed").0)
        .collect();
    assert!(
        PROVIDER.lines().count() < 220,
        "the provider has {} lines",
        PROVIDER.lines().count()
    );
    assert!(
        blocks.contains(&PROVIDER),
        "no block of the guide is examples/in_house/provider.rs"
    );
    for block in blocks {
        let shown = [PROVIDER, ROOM, MAIN]
            .iter()
            .any(|file| file.contains(block));
        assert!(
            shown,
            "this block is in no file of examples/in_house:\n{block}"
        );
    }
}
