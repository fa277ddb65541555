//! The testkit's log API in process, and clients of it.

use atlas_core::Timestamp;
use atlas_fly_ops::{
    AnyTokenStore, AppName, FlyToken, LogClient, MemoryTokenStore, StoredToken, TokenSlot, Tokens,
};
use atlas_http::Transport;
use atlas_testkit::dialect::fly_logs::{FlyLogs, Line, Rights};
use atlas_testkit::world::{World, WorldClock};

/// 2026-11-21T00:00:00Z, where a world begins.
pub(crate) const BASE_NS: u64 = 1_795_219_200_000_000_000;

pub(crate) fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

/// An API that knows the app `shop` and the token `fm2_good`.
pub(crate) fn api() -> FlyLogs {
    let api = FlyLogs::new(World::new(7, WorldClock::manual()));
    api.add_token("fm2_good", Rights::Read);
    api.add_app("shop");
    api
}

/// Writes a line with an id of its own.
pub(crate) fn write(api: &FlyLogs, at: u64, message: &str) {
    let id = format!("shop-{}", api.count("shop"));
    api.write("shop", Line::new(at, message).id(id));
}

/// A client with these tokens: the stored one, and the manual one after it.
pub(crate) async fn client(api: &FlyLogs, stored: Option<&str>, manual: &str) -> LogClient {
    let store = AnyTokenStore::new(MemoryTokenStore::default());
    let ends = Some(Timestamp::from_unix_seconds(4_000_000_000));
    for (slot, text, expires_at) in [
        (TokenSlot::Cached, stored, ends),
        (TokenSlot::Manual, Some(manual), None),
    ] {
        if let Some(text) = text {
            let token = FlyToken::parse(text).unwrap();
            store
                .put(
                    &shop(),
                    slot,
                    StoredToken {
                        token,
                        expires_at,
                        name: None,
                    },
                )
                .await
                .unwrap();
        }
    }
    let tokens = Tokens::builder()
        .store(store)
        .config_file(None)
        .cli(None)
        .build();
    LogClient::with_transport(tokens, "https://api.example", Transport::new(api.clone()))
}
