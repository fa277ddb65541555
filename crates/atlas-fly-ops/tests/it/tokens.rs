//! The token chain over a fake `fly`, real files and a clock in hand.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atlas_core::{Clock, ErrorKind, Result, Timestamp};
use atlas_fly_ops::conformance;
use atlas_fly_ops::{
    AnyTokenStore, AppName, FlyCli, FlyToken, MemoryTokenStore, MintScope, RedbTokenStore,
    StoredToken, TokenSlot, TokenSource, TokenStore, Tokens, TokensBuilder,
};
use atlas_http::CredentialSource as _;

use crate::fly::Fly;

#[derive(Debug)]
struct HandClock(Mutex<Timestamp>);

impl HandClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Timestamp::from_unix_seconds(
            1_790_000_000,
        ))))
    }

    fn advance(&self, span: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = now.saturating_add(span);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn app(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

fn token(text: &str) -> FlyToken {
    FlyToken::parse(text).unwrap()
}

fn text(token: &FlyToken) -> String {
    token.joined().expose().to_owned()
}

/// A chain without a configuration file.
fn chain(fake: &Fly, store: &AnyTokenStore) -> TokensBuilder {
    Tokens::builder()
        .store(store.clone())
        .config_file(None)
        .cli(Some(fake.cli()))
        .scope(MintScope::ReadOrganisation(Some("acme".into())))
        .host("h1")
}

/// A record of this token, without an end.
fn stored(text: &str) -> StoredToken {
    StoredToken {
        token: token(text),
        expires_at: None,
        name: None,
    }
}

fn memory() -> AnyTokenStore {
    AnyTokenStore::new(MemoryTokenStore::default())
}

#[tokio::test]
async fn a_thousand_callers_cause_one_run_of_the_cli_and_share_its_token() {
    let fake = Fly::standard();
    let tokens = chain(&fake, &memory()).build();
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let tokens = tokens.clone();
            tokio::spawn(async move { text(&tokens.get(&app("shop")).await.unwrap().token) })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), "fm2_mint1");
    }
    let calls = fake.calls();
    assert_eq!(calls.len(), 1);
    assert!(
        calls[0].starts_with("tokens create readonly acme --name=atlas-h1.shop."),
        "{}",
        calls[0]
    );
    assert!(
        calls[0].ends_with(" --expiry=86400s --json"),
        "{}",
        calls[0]
    );
}

#[tokio::test]
async fn a_thousand_callers_share_a_failure_and_the_cli_then_rests() {
    let fake =
        Fly::doing("echo fm2_not_a_token >&2; echo 'Error: org slug must be specified'; exit 1");
    let tokens = chain(&fake, &memory()).build();
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let tokens = tokens.clone();
            tokio::spawn(async move { tokens.get(&app("shop")).await.unwrap_err().kind() })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), ErrorKind::Unauthorized);
    }
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn apps_do_not_wait_for_each_other() {
    let fake = Fly::doing(r#"case "$*" in *.slow.*) exec sleep 600;; esac; standard "$@""#);
    let tokens = chain(&fake, &memory())
        .cli_timeout(Duration::from_secs(600))
        .build();
    let slow = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.get(&app("slow")).await }
    });
    tokens.get(&app("quick")).await.unwrap();
    assert!(!slow.is_finished());
}

#[tokio::test]
async fn a_cli_that_is_missing_hangs_or_talks_nonsense_is_a_step_that_missed() {
    let hangs = Fly::doing("exec sleep 600");
    let nonsense = Fly::doing("echo welcome to fly");
    let silent = Fly::doing("true");
    let missing = FlyCli::new().program("/nowhere/fly");
    for cli in [hangs.cli(), nonsense.cli(), silent.cli(), missing] {
        let store = memory();
        store
            .put(
                &app("shop"),
                TokenSlot::Manual,
                StoredToken {
                    token: token("fo1_hand"),
                    expires_at: None,
                    name: None,
                },
            )
            .await
            .unwrap();
        let tokens = chain(&silent, &store)
            .cli(Some(cli))
            .cli_timeout(Duration::from_millis(300))
            .build();
        let acquired = tokens.get(&app("shop")).await.unwrap();
        assert_eq!(
            (text(&acquired.token).as_str(), acquired.source),
            ("fo1_hand", TokenSource::Manual)
        );
    }
    assert!(hangs.alive().is_empty() && hangs.unreaped().is_empty());
}

#[tokio::test]
async fn a_manual_token_does_not_run_the_cli_for_every_caller() {
    let fake = Fly::doing("exit 1");
    let tokens = chain(&fake, &memory()).build();
    tokens
        .set_manual(&app("shop"), token("fo1_hand"))
        .await
        .unwrap();
    for _ in 0..5 {
        assert_eq!(
            tokens.get(&app("shop")).await.unwrap().source,
            TokenSource::Manual
        );
    }
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn a_minted_token_outlives_the_process_and_its_file_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("private/tokens");
    let fake = Fly::standard();
    let open = || AnyTokenStore::new(RedbTokenStore::open(&folder).unwrap());
    let first = chain(&fake, &open())
        .build()
        .get(&app("shop"))
        .await
        .unwrap();
    let again = chain(&fake, &open())
        .build()
        .get(&app("shop"))
        .await
        .unwrap();
    assert_eq!(
        (
            text(&again.token).as_str(),
            again.source,
            fake.calls().len()
        ),
        ("fm2_mint1", TokenSource::Store, 1)
    );
    assert_eq!(again.expires_at, first.expires_at, "with the end it had");
    open()
        .put(&app("shop"), TokenSlot::Manual, stored("fo1_hand"))
        .await
        .unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.clone()), 0o700);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        ["cached.redb", "lock", "manual.redb"],
        "no draft and no copy is left"
    );
    assert!(files.iter().all(|file| mode(folder.join(file)) == 0o600));
}

#[tokio::test]
async fn the_configuration_file_is_read_again_and_never_kept() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yml");
    let clock = HandClock::new();
    let store = memory();
    let fake = Fly::standard();
    let tokens = chain(&fake, &store)
        .config_file(Some(config.clone()))
        .clock(clock.clone())
        .build();
    for round in ["fm2_first", "fm2_second"] {
        fs::write(
            &config,
            format!("access_token: \"{round}\"\nmetrics_token: fm2_m\n"),
        )
        .unwrap();
        let acquired = tokens.get(&app("shop")).await.unwrap();
        assert_eq!(
            (text(&acquired.token).as_str(), acquired.source),
            (round, TokenSource::Config)
        );
        clock.advance(Duration::from_secs(61));
    }
    assert!(
        store
            .get(&app("shop"), TokenSlot::Cached)
            .await
            .unwrap()
            .is_none()
    );
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_token_near_its_end_is_renewed_behind_the_callers_back() {
    let fake = Fly::standard();
    let clock = HandClock::new();
    let tokens = chain(&fake, &memory()).clock(clock.clone()).build();
    tokens.get(&app("shop")).await.unwrap();
    clock.advance(Duration::from_secs(23 * 3600 + 60));
    assert_eq!(
        text(&tokens.get(&app("shop")).await.unwrap().token),
        "fm2_mint1",
        "the old one serves meanwhile"
    );
    let renewed = async {
        while text(&tokens.get(&app("shop")).await.unwrap().token) == "fm2_mint1" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), renewed)
        .await
        .unwrap();
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test]
async fn refresh_and_invalidate_do_not_find_the_stored_copy_again() {
    let fake = Fly::standard();
    let tokens = chain(&fake, &memory()).build();
    let get = async || text(&tokens.get(&app("shop")).await.unwrap().token);
    assert_eq!(get().await, "fm2_mint1");
    let (a, b) = (app("shop"), app("shop"));
    let (a, b) = tokio::join!(tokens.refresh(&a), tokens.refresh(&b));
    assert_eq!(
        (text(&a.unwrap().token), text(&b.unwrap().token)),
        ("fm2_mint2".into(), "fm2_mint2".into()),
        "one search for both"
    );
    assert_eq!(get().await, "fm2_mint2");
    tokens.invalidate(&app("shop")).await.unwrap();
    tokens.invalidate(&app("never-seen")).await.unwrap();
    assert_eq!(get().await, "fm2_mint3");
    assert_eq!(fake.calls().len(), 3);
}

#[tokio::test]
async fn a_refused_token_is_not_given_again_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yml");
    fs::write(&config, "access_token: fm2_config\n").unwrap();
    let fake = Fly::standard();
    let tokens = chain(&fake, &memory()).config_file(Some(config)).build();
    let credential = tokens.credential(&app("shop"));
    for expected in ["FlyV1 fm2_config", "FlyV1 fm2_mint1", "FlyV1 fm2_mint2"] {
        let value = credential.authorization().await.unwrap();
        assert_eq!(value.expose(), expected);
        credential.rejected(&value);
        // A second call that failed with the same value does not throw the next one away.
        credential.rejected(&value);
    }
}

#[tokio::test]
async fn every_token_this_host_minted_for_an_app_is_revoked_and_no_other() {
    let fake = Fly::standard();
    let tokens = chain(&fake, &memory()).build();
    assert_eq!(tokens.revoke(&app("shop")).await.unwrap(), 0);
    tokens.get(&app("shop")).await.unwrap();
    tokens.get(&app("shop-2")).await.unwrap();
    // The first is not in use any more, and lives on at fly's.
    tokens.refresh(&app("shop")).await.unwrap();
    assert_eq!(tokens.revoke(&app("shop")).await.unwrap(), 2);
    assert_eq!(
        fake.calls().last().map(String::as_str),
        Some("tokens revoke t1 t3")
    );
    assert_eq!(tokens.revoke(&app("shop")).await.unwrap(), 0);
    assert_eq!(
        text(&tokens.get(&app("shop")).await.unwrap().token),
        "fm2_mint4",
        "what was revoked is forgotten"
    );
    // A host that was renamed still knows the one it keeps.
    let store = memory();
    chain(&fake, &store)
        .build()
        .get(&app("other"))
        .await
        .unwrap();
    assert_eq!(
        chain(&fake, &store)
            .host("h2")
            .build()
            .revoke(&app("other"))
            .await
            .unwrap(),
        1
    );
    let alone = chain(&fake, &memory()).cli(None).build();
    assert_eq!(
        alone.revoke(&app("shop")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    fake.doing("exit 1").unwrap();
    assert_eq!(
        tokens.revoke(&app("shop")).await.unwrap_err().kind(),
        ErrorKind::Provider
    );
}

#[tokio::test]
async fn a_token_that_fly_did_not_revoke_is_named_although_fly_exits_with_0() {
    let fake = Fly::standard();
    let tokens = chain(&fake, &memory()).build();
    tokens.get(&app("shop")).await.unwrap();
    tokens.refresh(&app("shop")).await.unwrap();
    fs::write(fake.path("unrevokable"), "t2\n").unwrap();
    let error = tokens.revoke(&app("shop")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Provider);
    let text = error.to_string();
    assert!(
        text.contains("revoked 1 tokens of shop") && text.contains("t2"),
        "{text}"
    );
    assert!(!text.contains("t1"), "{text}");
    fs::remove_file(fake.path("unrevokable")).unwrap();
    assert_eq!(tokens.revoke(&app("shop")).await.unwrap(), 1);
}

#[tokio::test]
async fn without_an_organisation_fly_cannot_ask_and_the_error_says_how_to_name_one() {
    let fake = Fly::doing("unset FLY_ORG; standard \"$@\"");
    let tokens = chain(&fake, &memory())
        .scope(MintScope::ReadOrganisation(None))
        .build();
    for error in [
        tokens.get(&app("shop")).await.unwrap_err(),
        tokens.revoke(&app("shop")).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("ATLAS_FLY_ORG"), "{error}");
    }
}

#[tokio::test]
async fn the_environments_token_goes_first_and_when_it_is_refused_the_chain_goes_on() {
    let fake = Fly::standard();
    let store = memory();
    let tokens = chain(&fake, &store)
        .environment(Some(token("fo1_env")))
        .build();
    let acquired = tokens.get(&app("shop")).await.unwrap();
    assert_eq!(
        (text(&acquired.token).as_str(), acquired.source),
        ("fo1_env", TokenSource::Environment)
    );
    assert!(
        fake.calls().is_empty()
            && store
                .get(&app("shop"), TokenSlot::Cached)
                .await
                .unwrap()
                .is_none(),
        "it is never kept"
    );
    let credential = tokens.credential(&app("shop"));
    credential.rejected(&credential.authorization().await.unwrap());
    assert_eq!(
        tokens.get(&app("shop")).await.unwrap().source,
        TokenSource::Cli
    );
}

/// Ways in which a database may be damaged.
fn damages() -> [fn(&std::path::Path); 5] {
    [
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, "no database at all").unwrap(),
        |path| {
            let whole = fs::read(path).unwrap();
            fs::write(path, &whole[..whole.len() / 2]).unwrap();
        },
        // Its first pages are gone.
        |path| {
            let mut whole = fs::read(path).unwrap();
            whole[..8192].fill(0);
            fs::write(path, whole).unwrap();
        },
        // Every page but the header is noise.
        |path| {
            let mut whole = fs::read(path).unwrap();
            whole[4096..].fill(0xA5);
            fs::write(path, whole).unwrap();
        },
    ]
}

#[tokio::test]
async fn a_corrupt_manual_store_is_refused_and_preserved_to_the_byte_and_a_corrupt_cache_is_rebuilt()
 {
    for (number, damage) in damages().into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tokens");
        let opened = AnyTokenStore::new(RedbTokenStore::open(&folder).unwrap());
        for slot in [TokenSlot::Cached, TokenSlot::Manual] {
            opened
                .put(&app("shop"), slot, stored("fo1_kept"))
                .await
                .unwrap();
        }
        // Under a store that is open already, and for one that is opened after it.
        damage(&folder.join("manual.redb"));
        damage(&folder.join("cached.redb"));
        let damaged = fs::read(folder.join("manual.redb")).unwrap();
        assert_eq!(
            opened
                .get(&app("shop"), TokenSlot::Manual)
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::Conflict,
            "{number}"
        );
        let fake = Fly::standard();
        let tokens = chain(&fake, &opened).build();
        assert_eq!(
            tokens
                .set_manual(&app("shop"), token("fo1_new"))
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::Conflict,
            "{number}"
        );
        assert_eq!(
            RedbTokenStore::open(&folder).unwrap_err().kind(),
            ErrorKind::Conflict,
            "{number}"
        );
        assert_eq!(
            tokens.get(&app("shop")).await.unwrap().source,
            TokenSource::Cli,
            "{number}"
        );
        assert!(
            opened
                .get(&app("shop"), TokenSlot::Cached)
                .await
                .unwrap()
                .is_some(),
            "{number}"
        );
        assert_eq!(
            fs::read(folder.join("manual.redb")).unwrap(),
            damaged,
            "{number}"
        );
        // If its owner removes it, an empty one is created.
        fs::remove_file(folder.join("manual.redb")).unwrap();
        tokens
            .set_manual(&app("shop"), token("fo1_new"))
            .await
            .unwrap();
        drop(RedbTokenStore::open(&folder).unwrap());
    }
}

#[tokio::test]
async fn two_stores_of_one_folder_see_each_others_tokens_and_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("t");
    let stores = [0; 2].map(|_| AnyTokenStore::new(RedbTokenStore::open(&folder).unwrap()));
    let mut puts = Vec::new();
    for n in 0..40 {
        let store = stores[n % 2].clone();
        puts.push(tokio::spawn(async move {
            store
                .put(
                    &app(&format!("app-{n}")),
                    TokenSlot::Cached,
                    stored("fm2_x"),
                )
                .await
        }));
    }
    for put in puts {
        put.await.unwrap().unwrap();
    }
    for n in 0..40 {
        assert!(
            stores[(n + 1) % 2]
                .get(&app(&format!("app-{n}")), TokenSlot::Cached)
                .await
                .unwrap()
                .is_some(),
            "{n}"
        );
    }
}

#[test]
fn a_folder_that_others_may_enter_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(
        RedbTokenStore::open(dir.path()).unwrap_err().kind(),
        ErrorKind::Validation
    );
}

#[tokio::test]
async fn our_stores_conform() {
    let dir = tempfile::tempdir().unwrap();
    let redb = AnyTokenStore::new(RedbTokenStore::open(dir.path().join("t")).unwrap());
    assert_eq!(conformance::check(&memory()).await, Ok(()));
    assert_eq!(conformance::check(&redb).await, Ok(()));
    let reopen = || RedbTokenStore::open(dir.path().join("t")).map(AnyTokenStore::new);
    assert_eq!(conformance::check_durable(reopen).await, Ok(()));
    let forgets = conformance::check_durable(|| Ok(memory())).await;
    assert_eq!(
        forgets,
        Err("a record outlives the store's handle".to_owned())
    );
}

/// A store with one fault.
#[derive(Debug)]
struct Broken(&'static str, MemoryTokenStore);

impl TokenStore for Broken {
    async fn get(&self, app: &AppName, slot: TokenSlot) -> Result<Option<StoredToken>> {
        let slot = if self.0 == "slots" {
            TokenSlot::Cached
        } else {
            slot
        };
        let app = if self.0 == "apps" {
            AppName::new("x")?
        } else {
            app.clone()
        };
        let found = self.1.get(&app, slot).await?;
        Ok(found.map(|record| {
            if self.0 == "end" {
                StoredToken {
                    expires_at: None,
                    ..record
                }
            } else {
                record
            }
        }))
    }

    async fn put(&self, app: &AppName, slot: TokenSlot, record: StoredToken) -> Result<()> {
        let slot = if self.0 == "slots" {
            TokenSlot::Cached
        } else {
            slot
        };
        let app = if self.0 == "apps" {
            AppName::new("x")?
        } else {
            app.clone()
        };
        if self.0 == "replace" && self.1.get(&app, slot).await?.is_some() {
            return Ok(());
        }
        self.1.put(&app, slot, record).await
    }

    async fn delete(&self, app: &AppName, slot: TokenSlot) -> Result<()> {
        if self.0 == "delete" {
            Ok(())
        } else {
            self.1.delete(app, slot).await
        }
    }
}

#[tokio::test]
async fn the_suite_finds_each_fault() {
    for (fault, rule) in [
        ("slots", "the two slots of an app are apart"),
        ("apps", "two apps are apart"),
        ("end", "what was put comes back whole"),
        ("replace", "a put replaces what was there"),
        ("delete", "what was deleted is gone"),
    ] {
        let store = AnyTokenStore::new(Broken(fault, MemoryTokenStore::default()));
        assert_eq!(
            conformance::check(&store).await,
            Err(rule.to_owned()),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn no_error_and_no_debug_output_shows_a_token() {
    let fake = Fly::doing("echo 'Error: fm2_leak in a message'; echo fm2_leak >&2; exit 1");
    let tokens = chain(&fake, &memory()).build();
    let error = tokens.get(&app("shop")).await.unwrap_err();
    tokens
        .set_manual(&app("shop"), token("fo1_leak"))
        .await
        .unwrap();
    let acquired = tokens.get(&app("shop")).await.unwrap();
    let printed = format!(
        "{error} {error:?} {acquired:?} {tokens:?} {:?}",
        tokens.credential(&app("shop"))
    );
    assert!(!printed.contains("leak"), "{printed}");
}

/// A store that fails or panics on request.
#[derive(Clone, Debug, Default)]
struct Failing {
    inner: Arc<MemoryTokenStore>,
    fails: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
}

impl TokenStore for Failing {
    async fn get(&self, app: &AppName, slot: TokenSlot) -> Result<Option<StoredToken>> {
        assert!(!self.panics.load(Ordering::Relaxed), "a store's own fault");
        self.inner.get(app, slot).await
    }

    async fn put(&self, app: &AppName, slot: TokenSlot, record: StoredToken) -> Result<()> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(atlas_core::Error::new(
                ErrorKind::Unavailable,
                "the disk is full",
            ));
        }
        self.inner.put(app, slot, record).await
    }

    async fn delete(&self, app: &AppName, slot: TokenSlot) -> Result<()> {
        self.inner.delete(app, slot).await
    }
}

#[tokio::test]
async fn a_minted_token_that_cannot_be_kept_is_used_all_the_same_and_a_manual_one_is_an_error() {
    let fake = Fly::standard();
    let failing = Failing::default();
    let tokens = chain(&fake, &AnyTokenStore::new(failing.clone())).build();
    failing.fails.store(true, Ordering::Relaxed);
    assert_eq!(
        text(&tokens.get(&app("shop")).await.unwrap().token),
        "fm2_mint1"
    );
    assert_eq!(
        tokens
            .set_manual(&app("other"), token("fo1_hand"))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
    fake.doing("exit 1").unwrap();
    assert_eq!(
        tokens.get(&app("other")).await.unwrap_err().kind(),
        ErrorKind::Unauthorized,
        "it is not used either"
    );
    failing.fails.store(false, Ordering::Relaxed);
    for manual in ["fo1_hand", "fo1_another"] {
        tokens
            .set_manual(&app("other"), token(manual))
            .await
            .unwrap();
        assert_eq!(
            text(&tokens.get(&app("other")).await.unwrap().token),
            manual,
            "a manual token is never held in memory"
        );
    }
}

#[tokio::test]
async fn a_search_that_is_cut_off_is_an_error_once_and_the_next_one_finds() {
    let fake = Fly::standard();
    let failing = Failing::default();
    let tokens = chain(&fake, &AnyTokenStore::new(failing.clone())).build();
    failing.panics.store(true, Ordering::Relaxed);
    assert_eq!(
        tokens.get(&app("shop")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    failing.panics.store(false, Ordering::Relaxed);
    assert_eq!(
        text(&tokens.get(&app("shop")).await.unwrap().token),
        "fm2_mint1"
    );
}

#[tokio::test]
async fn who_stops_waiting_leaves_the_search_to_the_others() {
    let fake = Fly::doing("sleep 0.3; standard \"$@\"");
    let tokens = chain(&fake, &memory()).build();
    let waiting = tokio::time::timeout(Duration::from_millis(100), tokens.get(&app("shop"))).await;
    assert!(waiting.is_err());
    assert_eq!(
        text(&tokens.get(&app("shop")).await.unwrap().token),
        "fm2_mint1"
    );
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn without_a_lead_nothing_is_renewed_before_its_end() {
    let fake = Fly::standard();
    let clock = HandClock::new();
    let tokens = chain(&fake, &memory())
        .clock(clock.clone())
        .renew_before(Duration::ZERO)
        .build();
    tokens.get(&app("shop")).await.unwrap();
    clock.advance(Duration::from_secs(23 * 3600 + 3500));
    for _ in 0..3 {
        assert_eq!(
            text(&tokens.get(&app("shop")).await.unwrap().token),
            "fm2_mint1"
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.calls().len(), 1);
    clock.advance(Duration::from_secs(3600));
    assert_eq!(
        text(&tokens.get(&app("shop")).await.unwrap().token),
        "fm2_mint2"
    );
}

#[tokio::test]
async fn a_mint_says_its_end_its_name_and_its_scope() {
    let fake = Fly::standard();
    let of = async |scope, name: &str| {
        chain(&fake, &memory())
            .scope(scope)
            .expiry(Duration::from_secs(7200))
            .build()
            .get(&app(name))
            .await
            .unwrap();
        let call = fake.calls().pop().unwrap();
        let (before, after) = call
            .split_once(&format!("--name=atlas-h1.{name}."))
            .unwrap();
        assert!(after.ends_with(" --expiry=7200s --json"), "{call}");
        before.trim_end().to_owned()
    };
    let org = || MintScope::ReadOrganisation(Some("acme".into()));
    assert_eq!(of(org(), "b").await, "tokens create readonly acme");
    assert!(fake.env().contains(&"FLY_ORG=acme".to_owned()));
    assert_eq!(fake.lines("organisation"), ["acme"]);
    assert_eq!(
        of(MintScope::DeployApp, "c").await,
        "tokens create deploy --app=c"
    );
    assert_eq!(
        fake.stdin().as_deref(),
        Some("/dev/null"),
        "it cannot ask anybody"
    );
}

#[tokio::test]
async fn the_configuration_file_may_be_missing_empty_half_written_unreadable_or_full_of_other_secrets()
 {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.yml");
    let fake = Fly::standard();
    let source = async || {
        let tokens = chain(&fake, &memory())
            .config_file(Some(config.clone()))
            .build();
        tokens.get(&app("shop")).await.unwrap().source
    };
    assert_eq!(source().await, TokenSource::Cli);
    for text in [
        "",
        "access_token: \"\"\n",
        "access_token: \"fm2_half",
        "metrics_token: fm2_metrics\n",
        "access_token:\nlast_login: x\n",
    ] {
        fs::write(&config, text).unwrap();
        assert_eq!(source().await, TokenSource::Cli, "{text}");
    }
    fs::write(
        &config,
        "# login\naccess_token: >-\n  fm2_a,fo1_b\nwire_guard_state:\n  acme: \
        {localprivate: s3cret}\n",
    )
    .unwrap();
    assert_eq!(source().await, TokenSource::Config);
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    assert_eq!(source().await, TokenSource::Cli);
}
