//! What every token store must do. Run it against a fresh store; it answers the first rule that is
//! broken.

use atlas_core::{Error, Timestamp};

use crate::app_name::AppName;
use crate::token::form::FlyToken;
use crate::token::store::{AnyTokenStore, StoredToken, TokenSlot};

/// Checks the rules.
///
/// # Errors
/// The rule that does not hold, in words.
pub async fn check(store: &AnyTokenStore) -> Result<(), String> {
    let [a, b] =
        ["suite-a", "suite-b"].map(|name| AppName::new(name).map_err(|error| error.to_string()));
    let (a, b) = (a?, b?);
    let slots = [TokenSlot::Cached, TokenSlot::Manual];
    for slot in slots {
        expect(store, &a, slot, None, "a record that was never put is none").await?;
        store
            .delete(&a, slot)
            .await
            .map_err(|_| "deleting what is not there is no error")?;
    }
    put(store, &a, TokenSlot::Cached, "fm2_one", Some(60)).await?;
    expect(
        store,
        &a,
        TokenSlot::Cached,
        Some(("fm2_one", Some(60))),
        "what was put comes back whole",
    )
    .await?;
    expect(
        store,
        &a,
        TokenSlot::Manual,
        None,
        "the two slots of an app are apart",
    )
    .await?;
    expect(store, &b, TokenSlot::Cached, None, "two apps are apart").await?;
    put(store, &a, TokenSlot::Manual, "fo1_two", None).await?;
    put(store, &a, TokenSlot::Cached, "fm2_three", Some(7)).await?;
    expect(
        store,
        &a,
        TokenSlot::Cached,
        Some(("fm2_three", Some(7))),
        "a put replaces what was there",
    )
    .await?;
    expect(
        store,
        &a,
        TokenSlot::Manual,
        Some(("fo1_two", None)),
        "a token without an end has none when it comes back",
    )
    .await?;
    store
        .delete(&a, TokenSlot::Cached)
        .await
        .map_err(|_| "a record can be deleted")?;
    expect(
        store,
        &a,
        TokenSlot::Cached,
        None,
        "what was deleted is gone",
    )
    .await?;
    expect(
        store,
        &a,
        TokenSlot::Manual,
        Some(("fo1_two", None)),
        "a delete takes one slot only",
    )
    .await?;
    if format!("{store:?}").contains("fo1_two") {
        return Err("a store's debug output shows no token".into());
    }
    store
        .delete(&a, TokenSlot::Manual)
        .await
        .map_err(|_| "a record can be deleted")?;
    Ok(())
}

/// Checks that records outlive the handle; `open` opens the same durable store each time. Run it
/// besides [`check`].
///
/// # Errors
/// The rule that does not hold, in words.
pub async fn check_durable(open: impl Fn() -> Result<AnyTokenStore, Error>) -> Result<(), String> {
    let open = || open().map_err(|_| "the store can be opened again".to_owned());
    let a = AppName::new("suite-a").map_err(|error| error.to_string())?;
    put(&open()?, &a, TokenSlot::Cached, "fm2_one", Some(60)).await?;
    put(&open()?, &a, TokenSlot::Manual, "fo1_two", None).await?;
    let again = open()?;
    expect(
        &again,
        &a,
        TokenSlot::Cached,
        Some(("fm2_one", Some(60))),
        "a record outlives the store's handle",
    )
    .await?;
    expect(
        &again,
        &a,
        TokenSlot::Manual,
        Some(("fo1_two", None)),
        "a record outlives the store's handle",
    )
    .await?;
    for slot in [TokenSlot::Cached, TokenSlot::Manual] {
        again
            .delete(&a, slot)
            .await
            .map_err(|_| "a record can be deleted")?;
    }
    drop(again);
    expect(
        &open()?,
        &a,
        TokenSlot::Manual,
        None,
        "what was deleted stays gone",
    )
    .await
}

async fn put(
    store: &AnyTokenStore,
    app: &AppName,
    slot: TokenSlot,
    token: &str,
    ends: Option<i64>,
) -> Result<(), String> {
    let record = StoredToken {
        token: FlyToken::parse(token).map_err(|error| error.to_string())?,
        expires_at: ends.map(Timestamp::from_unix_seconds),
        name: Some(format!("name {}", token.len())),
    };
    store
        .put(app, slot, record)
        .await
        .map_err(|_| "a put succeeds".to_owned())
}

async fn expect(
    store: &AnyTokenStore,
    app: &AppName,
    slot: TokenSlot,
    wanted: Option<(&str, Option<i64>)>,
    rule: &str,
) -> Result<(), String> {
    let got = store
        .get(app, slot)
        .await
        .map_err(|_| format!("a get succeeds ({rule})"))?;
    let got = got.map(|record| (record.token.joined(), record.expires_at, record.name));
    let same = match (&got, wanted) {
        (None, None) => true,
        (Some((token, ends, name)), Some((wanted, wanted_end))) => {
            token.expose() == wanted
                && *ends == wanted_end.map(Timestamp::from_unix_seconds)
                && name.as_deref() == Some(&*format!("name {}", wanted.len()))
        }
        _ => false,
    };
    if same { Ok(()) } else { Err(rule.to_owned()) }
}
