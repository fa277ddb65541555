//! From an order to a proved end, on which every session depends.

use atlas_core::{
    Auth, Capability, Claim, Compute, ComputeId, ComputeStatus, Credential, ErrorKind, LaunchKey,
    PRESHARED_KEY_ENV, Secret,
};

use crate::conformance::bench::{Bench, Stop, Verdict, ensure};
use crate::world::FaultKind;

pub(super) async fn a_machine_goes_the_whole_round(bench: &Bench<'_>) -> Verdict {
    let (_, made) = bench.spawn(bench.request()).await?;
    ensure!(
        made.provider == *bench.provider().id(),
        "the machine says it is of {}",
        made.provider
    );
    ensure!(
        made.status != ComputeStatus::Terminated,
        "a new machine is {}",
        made.status
    );
    let read = bench.until_shown(&made.id).await?;
    ensure!(
        read.id == made.id && read.name == made.name,
        "read {:?} {:?}, made {:?} {:?}",
        read.id,
        read.name,
        made.id,
        made.name
    );
    until_listed(bench, &made.id, true).await?;
    bench
        .until_status(&made.id, &ComputeStatus::Running)
        .await?;
    bench.provider().terminate(bench.cx(), &made.id).await?;
    bench.until_absent(&made.id).await?;
    until_listed(bench, &made.id, false).await
}

async fn until_listed(bench: &Bench<'_>, id: &ComputeId, wanted: bool) -> Verdict {
    let mut patience = bench.patience();
    loop {
        let listing = bench.list().await?;
        let alive =
            |compute: &Compute| compute.id == *id && compute.status != ComputeStatus::Terminated;
        if listing.is_complete() && listing.computes.iter().any(alive) == wanted {
            return Ok(());
        }
        patience
            .again(&format!(
                "{id} is{} in the listing",
                if wanted { " not" } else { "" }
            ))
            .await?;
    }
}

pub(super) async fn a_bearer_credential_is_injected_and_returned(bench: &Bench<'_>) -> Verdict {
    let token = Secret::new("conformance-token-0123456789abcdef");
    let credential = Credential::bearer(token.clone(), "0".repeat(64));
    let (_, made) = bench
        .spawn(
            bench
                .request()
                .auth(Auth::Bearer)
                .credential(Some(credential)),
        )
        .await?;
    let returned = made
        .auth
        .as_ref()
        .map(|credential| credential.secret().expose().to_owned());
    ensure!(
        returned.as_deref() == Some(token.expose()),
        "the spawn does not hand back the minted credential"
    );
    let Some(control) = bench.subject().control() else {
        return Ok(());
    };
    let books = control
        .ledger()
        .await
        .into_iter()
        .find(|entry| entry.id == made.id);
    let Some(entry) = books else {
        return Err(Stop::Failed(format!(
            "the cloud's books do not know {}",
            made.id
        )));
    };
    if let Some(env) = entry.env {
        let found = env.get(PRESHARED_KEY_ENV).map(String::as_str);
        ensure!(
            found == Some(token.expose()),
            "{PRESHARED_KEY_ENV} is not in the container's environment"
        );
    }
    Ok(())
}

pub(super) async fn a_launch_key_is_carried_and_found(bench: &Bench<'_>) -> Verdict {
    let (key, made) = bench.spawn(bench.request().name("Key Carrier")).await?;
    let (other, _) = bench.spawn(bench.request()).await?;
    ensure!(
        bench.until_found(&key, 1).await? == [made.id.clone()],
        "the key finds another machine"
    );
    ensure!(
        !bench.until_found(&other, 1).await?.contains(&made.id),
        "another key finds the same machine"
    );
    let read = bench.until_shown(&made.id).await?;
    ensure!(
        read.keys.claim() == Claim::Whole(key),
        "its carriers say {:?}",
        read.keys
    );
    ensure!(
        bench
            .provider()
            .find_by_launch_key(bench.cx(), &bench.key())
            .await?
            .computes
            .is_empty(),
        "an unused key finds a machine"
    );
    Ok(())
}

pub(super) async fn an_untracked_machine_keeps_its_name_and_has_no_key(
    bench: &Bench<'_>,
) -> Verdict {
    let made = bench
        .spawn_as(
            &LaunchKey::untracked(),
            bench.request().name("conformance-untracked"),
        )
        .await?;
    let read = bench.until_shown(&made.id).await?;
    ensure!(
        read.name.as_deref() == Some("conformance-untracked"),
        "its name is {:?}",
        read.name
    );
    ensure!(
        read.keys.claim() == Claim::None,
        "its carriers say {:?}",
        read.keys
    );
    Ok(())
}

pub(super) async fn what_was_asked_for_is_what_was_rented(bench: &Bench<'_>) -> Verdict {
    let request = bench.request();
    let (_, made) = bench.spawn(request.clone()).await?;
    let read = bench
        .until_status(&made.id, &ComputeStatus::Running)
        .await?;
    if let Some(atlas_core::GpuChoice::Named(gpu)) = &request.gpu {
        let card = read.gpu_type;
        ensure!(
            card.is_some_and(|card| card == *gpu || gpu.variants().contains(&card)),
            "asked for {gpu}, got {card:?}"
        );
        ensure!(
            read.gpu_count == request.gpu_count,
            "asked for {}, got {}",
            request.gpu_count,
            read.gpu_count
        );
    }
    if bench.has(Capability::ContainerImage) && read.image.is_some() {
        ensure!(
            read.image == request.image,
            "asked for {:?}, got {:?}",
            request.image,
            read.image
        );
    }
    if bench.has(Capability::Prices) {
        ensure!(
            read.cost_per_hour
                .is_some_and(|price| price.per_hour() > atlas_core::Usd::ZERO),
            "it costs {:?}",
            read.cost_per_hour
        );
    }
    Ok(())
}

pub(super) async fn terminate_is_idempotent(bench: &Bench<'_>) -> Verdict {
    let (_, made) = bench.spawn(bench.request()).await?;
    bench.until_shown(&made.id).await?;
    bench.provider().terminate(bench.cx(), &made.id).await?;
    bench.provider().terminate(bench.cx(), &made.id).await?;
    bench.until_absent(&made.id).await?;
    bench.provider().terminate(bench.cx(), &made.id).await?;
    Ok(())
}

pub(super) async fn terminate_of_an_unknown_id_is_a_success(bench: &Bench<'_>) -> Verdict {
    bench
        .provider()
        .terminate(bench.cx(), &bench.subject().unknown_id())
        .await?;
    Ok(())
}

pub(super) async fn terminate_that_failed_is_an_error(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    let (_, made) = bench.spawn(bench.request()).await?;
    bench.until_shown(&made.id).await?;
    bench.inject("terminate", FaultKind::Status500, 1).await?;
    let answer = bench.provider().terminate(&bench.once(), &made.id).await;
    let live = bench
        .ledger()
        .await?
        .iter()
        .any(|entry| entry.id == made.id && entry.live);
    ensure!(
        answer.is_err() || !live,
        "terminate is a success, and the machine lives"
    );
    bench.provider().terminate(bench.cx(), &made.id).await?;
    bench.until_absent(&made.id).await
}

pub(super) async fn a_stopped_machine_starts_again(bench: &Bench<'_>) -> Verdict {
    bench.need(Capability::Stop)?;
    let (key, made) = bench.spawn(bench.request()).await?;
    bench
        .until_status(&made.id, &ComputeStatus::Running)
        .await?;
    bench.provider().stop(bench.cx(), &made.id).await?;
    bench
        .until_status(&made.id, &ComputeStatus::Stopped)
        .await?;
    bench.until_found(&key, 1).await?;
    bench.need(Capability::Start)?;
    bench.provider().start(bench.cx(), &made.id).await?;
    bench
        .until_status(&made.id, &ComputeStatus::Running)
        .await?;
    for answer in [
        bench
            .provider()
            .stop(bench.cx(), &bench.subject().unknown_id())
            .await,
        bench
            .provider()
            .start(bench.cx(), &bench.subject().unknown_id())
            .await,
    ] {
        let kind = answer.as_ref().map_err(|error| error.kind());
        ensure!(
            kind == Err(ErrorKind::NotFound),
            "stop or start of an unknown machine: {answer:?}"
        );
    }
    Ok(())
}

pub(super) async fn supporting_objects_are_made_once_and_released(bench: &Bench<'_>) -> Verdict {
    let key = LaunchKey::Tracked(bench.key());
    let planned = bench.provider().supports(&key, &bench.request())?;
    ensure!(
        planned == bench.provider().supports(&key, &bench.request())?,
        "two plans for one key differ"
    );
    let mut made = Vec::new();
    for support in &planned {
        let first = bench
            .provider()
            .ensure_support(bench.cx(), &key, support)
            .await?;
        let second = bench
            .provider()
            .ensure_support(bench.cx(), &key, support)
            .await?;
        ensure!(
            first.id.is_some() && first == second,
            "made twice: {first:?} and {second:?}"
        );
        made.push(first);
    }
    for support in made.iter().rev().chain(made.iter().rev()) {
        bench
            .provider()
            .release_support(bench.cx(), support)
            .await?;
    }
    Ok(())
}

pub(super) async fn an_identity_is_stable_and_not_the_key(bench: &Bench<'_>) -> Verdict {
    let identity = bench.provider().identity(bench.cx()).await?;
    ensure!(
        !identity.is_empty() && identity == bench.provider().identity(bench.cx()).await?,
        "two reads differ"
    );
    bench.shows_no_secret(&identity, &[])?;
    if let Some(stranger) = bench.subject().with_bad_key() {
        let other = stranger.identity(bench.cx()).await;
        ensure!(
            other.as_ref().ok() != Some(&identity),
            "a bad key has the same identity"
        );
    }
    Ok(())
}
