//! An in-house cloud behind the contract: it runs through the conformance suite, then a session
//! runs on it.

mod provider;
mod room;

use std::time::Duration;

use atlas::testkit::conformance::{self, Control};
use atlas::{Atlas, ComputeRequest, Error, ErrorKind, SessionOptions, Shutdown};

use provider::InHouse;
use room::{KEY, Room};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let report = conformance::run(&Room::default()).await;
    println!("{report}");
    if report.failed > 0 {
        return Err(Error::new(
            ErrorKind::Provider,
            "the provider does not conform",
        ));
    }

    let room = Room::default();
    let atlas = Atlas::builder()
        .provider(InHouse::new(&room, KEY)?)
        .build()
        .await?;
    let session = atlas
        .spawn(
            ComputeRequest::cpu(2).image("in-house/worker:1"),
            SessionOptions::new().user("u42"),
        )
        .await?;
    session.stop().await?;
    atlas
        .shutdown(Shutdown::TerminateAll {
            wait: Duration::from_secs(60),
        })
        .await?;
    let live = room
        .ledger()
        .await
        .iter()
        .filter(|machine| machine.live)
        .count();
    println!("the machine room's own books: {live} live");
    Ok(())
}
