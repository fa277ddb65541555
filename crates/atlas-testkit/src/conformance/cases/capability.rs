//! Capabilities, both ways: a declared one works, an undeclared one is refused before any request.

use atlas_core::{
    AnyProvider, CallContext, Capability, CloudType, ComputeId, ComputeRequest, ComputeStatus,
    DiskSize, Error, ErrorKind, Gpu, JobId, JobRef, JobRequest, LaunchKey, LogQuery, Port,
    Presence, SpendQuery, Usd, VolumeId,
};
use serde_json::json;

use crate::conformance::bench::{Bench, Stop, Verdict, ensure};

/// A request that can only be honoured with this capability, if there is one.
fn demanding(bench: &Bench<'_>, capability: Capability) -> Option<ComputeRequest> {
    let plain = bench.request();
    let image = plain.image.clone().unwrap_or_else(|| "x/y:1".to_owned());
    Some(match capability {
        Capability::Gpu => ComputeRequest::gpu(Gpu::H100).image(image),
        Capability::Cpu => ComputeRequest::cpu(2).image(image),
        Capability::Spot => plain.spot(true),
        Capability::Templates => plain.template("conformance"),
        Capability::Volume => plain.volume(DiskSize::gb(20)),
        Capability::ContainerDisk => plain.container_disk(DiskSize::gb(20)),
        Capability::NetworkVolumes => plain.network_volume(VolumeId::new("conformance").ok()?),
        // Without a proxy an HTTP port is a TCP port on the machine's own address.
        Capability::HttpProxy if !bench.has(Capability::RawTcp) => plain.port(Port::http(8000)),
        Capability::RawTcp => plain.port(Port::tcp(22)),
        Capability::SymmetricPorts => plain.port(Port::symmetric_tcp(1)),
        Capability::Regions => plain.region(
            bench
                .subject()
                .region()
                .unwrap_or_else(|| "anywhere".to_owned()),
        ),
        Capability::CloudTypes => plain.cloud_type(CloudType::Secure),
        Capability::EndsWithCommand => plain.command(["sleep", "5"]).ends_with_command(true),
        _ => return None,
    })
}

const FIELDS: [Capability; 13] = [
    Capability::Gpu,
    Capability::Cpu,
    Capability::Spot,
    Capability::Templates,
    Capability::Volume,
    Capability::ContainerDisk,
    Capability::NetworkVolumes,
    Capability::HttpProxy,
    Capability::RawTcp,
    Capability::SymmetricPorts,
    Capability::Regions,
    Capability::CloudTypes,
    Capability::EndsWithCommand,
];

const OPERATIONS: [Capability; 7] = [
    Capability::Stop,
    Capability::Start,
    Capability::Logs,
    Capability::Spend,
    Capability::Serverless,
    Capability::JobStreaming,
    Capability::NetworkVolumes,
];

/// Calls an operation that can only be answered with this capability; `None` if the handle does not
/// offer the operations at all.
async fn operate(
    bench: &Bench<'_>,
    provider: &AnyProvider,
    cx: &CallContext,
    capability: Capability,
) -> Option<Result<(), Error>> {
    let id = bench.subject().unknown_id();
    Some(match capability {
        Capability::Stop => provider.stop(cx, &id).await,
        Capability::Start => provider.start(cx, &id).await,
        Capability::Logs => provider.logs(cx, &id, &LogQuery::default()).await.map(drop),
        Capability::Spend => {
            let now = bench.subject().now();
            let start = now.saturating_sub(std::time::Duration::from_secs(3600));
            provider
                .compute_spend(
                    cx,
                    &SpendQuery {
                        id: None,
                        start,
                        end: now,
                    },
                )
                .await
                .map(drop)
        }
        Capability::Serverless => {
            let request = JobRequest::new("no-such-endpoint", json!({}));
            provider.jobs()?.run_job(cx, &request).await.map(drop)
        }
        Capability::JobStreaming => {
            let endpoint = bench.subject().serverless().map_or_else(
                || "no-such-endpoint".to_owned(),
                |serverless| serverless.endpoint,
            );
            let job = JobRef {
                endpoint,
                id: JobId::new("no-such-job").ok()?,
            };
            provider.jobs()?.stream_job(cx, &job).await.map(drop)
        }
        Capability::NetworkVolumes => provider
            .network_volumes()?
            .list_network_volumes(cx)
            .await
            .map(drop),
        _ => return None,
    })
}

pub(super) async fn what_is_declared_is_supported(bench: &Bench<'_>) -> Verdict {
    for capability in FIELDS
        .into_iter()
        .filter(|capability| bench.has(*capability))
    {
        let Some(request) = demanding(bench, capability) else {
            continue;
        };
        let refused = bench
            .provider()
            .check(&request)
            .err()
            .filter(|error| error.field() == Some(capability.as_str().as_str()));
        ensure!(
            refused.is_none(),
            "{capability} is declared, and refused: {refused:?}"
        );
    }
    for capability in OPERATIONS
        .into_iter()
        .filter(|capability| bench.has(*capability))
    {
        match operate(bench, bench.provider(), &bench.once(), capability).await {
            None => {
                return Err(Stop::Failed(format!(
                    "{capability} is declared, and its group is missing"
                )));
            }
            Some(Err(error)) => ensure!(
                error.kind() != ErrorKind::Unsupported,
                "{capability} is declared, and refused: {error}"
            ),
            Some(Ok(())) => {}
        }
    }
    Ok(())
}

pub(super) async fn what_is_not_declared_is_refused_without_a_request(
    bench: &Bench<'_>,
) -> Verdict {
    let before = match bench.subject().control() {
        Some(control) => control.requests(None).await,
        None => 0,
    };
    let key = LaunchKey::Tracked(bench.key());
    for capability in FIELDS
        .into_iter()
        .filter(|capability| !bench.has(*capability))
    {
        let Some(request) = demanding(bench, capability) else {
            continue;
        };
        let answers = [
            bench
                .provider()
                .spawn_compute(bench.cx(), &key, &request)
                .await
                .err(),
            bench
                .provider()
                .candidates(bench.cx(), &request)
                .await
                .err(),
        ];
        for error in answers {
            let kind = error.as_ref().map(|error| error.kind());
            ensure!(
                kind == Some(ErrorKind::Unsupported),
                "{capability} is not declared: {error:?}"
            );
        }
    }
    for capability in OPERATIONS
        .into_iter()
        .filter(|capability| !bench.has(*capability))
    {
        if let Some(answer) = operate(bench, bench.provider(), bench.cx(), capability).await {
            let kind = answer.as_ref().map_err(Error::kind);
            ensure!(
                kind == Err(ErrorKind::Unsupported),
                "{capability} is not declared: {answer:?}"
            );
        }
    }
    if let Some(control) = bench.subject().control() {
        let sent = control.requests(None).await - before;
        ensure!(
            sent == 0,
            "{sent} requests were sent for what is not declared"
        );
    }
    Ok(())
}

pub(super) async fn candidates_are_priced(bench: &Bench<'_>) -> Verdict {
    bench.need(Capability::Prices)?;
    let candidates = bench
        .provider()
        .candidates(bench.cx(), &bench.request())
        .await?;
    ensure!(
        !candidates.is_empty(),
        "the subject's request has no candidate"
    );
    for candidate in &candidates {
        ensure!(
            candidate
                .price
                .is_some_and(|price| price.per_hour() > Usd::ZERO),
            "without a price: {candidate:?}"
        );
    }
    Ok(())
}

pub(super) async fn a_price_list_has_prices_and_stock(bench: &Bench<'_>) -> Verdict {
    bench.need(Capability::Gpu)?;
    let lines = bench.provider().list_gpu_types(bench.cx()).await?;
    ensure!(
        lines.iter().any(|line| line.gpu.is_some()),
        "no line of {} is of a GPU that the catalogue knows",
        lines.len()
    );
    for line in &lines {
        ensure!(
            line.provider == *bench.provider().id() && !line.native_id.is_empty(),
            "{line:?}"
        );
        ensure!(line.vram.as_mib() > 0, "without memory: {line:?}");
        ensure!(
            line.price.is_none_or(|price| price.per_hour() > Usd::ZERO),
            "costs nothing: {line:?}"
        );
    }
    ensure!(
        lines.iter().any(|line| line.price.is_some()),
        "no line has a price"
    );
    ensure!(
        lines.iter().any(|line| line.stock.is_some()),
        "no line has a stock"
    );
    Ok(())
}

pub(super) async fn a_region_asked_for_is_the_region_rented(bench: &Bench<'_>) -> Verdict {
    bench.need(Capability::Regions)?;
    let region = match bench.subject().region() {
        Some(region) => region,
        // The last choice is the one that the cloud is least likely to make by itself.
        None => {
            let candidates = bench
                .provider()
                .candidates(bench.cx(), &bench.request())
                .await?;
            candidates
                .into_iter()
                .rev()
                .find_map(|candidate| candidate.region)
                .ok_or_else(|| Stop::Skipped("control:region".to_owned()))?
        }
    };
    let (_, made) = bench.spawn(bench.request().region(&region)).await?;
    let read = bench
        .until_status(&made.id, &ComputeStatus::Running)
        .await?;
    ensure!(
        read.region.as_deref() == Some(region.as_str()),
        "asked for {region}, got {:?}",
        read.region
    );
    Ok(())
}

pub(super) async fn an_http_port_gets_a_url(bench: &Bench<'_>) -> Verdict {
    if !bench.has(Capability::RawTcp) {
        bench.need(Capability::HttpProxy)?;
    }
    let (_, made) = bench.spawn(bench.request().port(Port::http(8000))).await?;
    let mut patience = bench.long_patience();
    loop {
        let read = bench.until_shown(&made.id).await?;
        if let Some(url) = read.url(8000) {
            ensure!(
                url.starts_with("http://") || url.starts_with("https://"),
                "not a URL: {url}"
            );
            return Ok(());
        }
        patience
            .again(&format!("its ports are {:?}", read.ports))
            .await?;
    }
}

pub(super) async fn spot_is_declared_exactly_when_it_is_rented(bench: &Bench<'_>) -> Verdict {
    let request = bench.request().spot(true);
    if bench.has(Capability::Spot) {
        let (_, made) = bench.spawn(request).await?;
        let read = bench.until_shown(&made.id).await?;
        if let (Some(spot), Some(candidate)) = (
            read.cost_per_hour,
            bench
                .provider()
                .candidates(bench.cx(), &bench.request())
                .await?
                .into_iter()
                .next(),
        ) {
            ensure!(
                candidate.price.is_none_or(|on_demand| spot <= on_demand),
                "spot costs {spot}, on demand {:?}",
                candidate.price
            );
        }
        return Ok(());
    }
    let error = bench
        .provider()
        .spawn_compute(bench.cx(), &LaunchKey::Tracked(bench.key()), &request)
        .await
        .err();
    ensure!(
        error.as_ref().map(Error::kind) == Some(ErrorKind::Unsupported),
        "spot is not declared: {error:?}"
    );
    Ok(())
}

pub(super) async fn an_exit_code_is_reported_exactly_when_declared(bench: &Bench<'_>) -> Verdict {
    let request = bench.request().command(["sh", "-c", "exit 3"]);
    let (_, made) = bench.spawn(request).await?;
    let mut patience = bench.long_patience();
    loop {
        let read = bench.until_shown(&made.id).await?;
        if !bench.has(Capability::ExitCodes) {
            ensure!(
                read.exit_code.is_none(),
                "exit codes are not declared, and one is reported: {:?}",
                read.exit_code
            );
            return Ok(());
        }
        if let Some(code) = read.exit_code {
            ensure!(code == 3, "the container exited with 3, reported is {code}");
            return Ok(());
        }
        patience
            .again(&format!("it is {}, without an exit code", read.status))
            .await?;
    }
}

/// If declared, a finished container costs no machine: it is stopped, or gone. Otherwise it is
/// refused, with the other fields.
pub(super) async fn a_machine_ends_with_its_command_where_declared(bench: &Bench<'_>) -> Verdict {
    if !bench.has(Capability::EndsWithCommand) {
        return Ok(());
    }
    let (_, made) = bench
        .spawn(
            bench
                .request()
                .command(["sleep", "60"])
                .ends_with_command(true),
        )
        .await?;
    bench.until_shown(&made.id).await?;
    let mut patience = bench.long_patience();
    while is_there(bench, &made.id).await? {
        patience
            .again("its command has ended, and the machine has not")
            .await?;
    }
    Ok(())
}

async fn is_there(bench: &Bench<'_>, id: &ComputeId) -> Result<bool, Stop> {
    match bench.provider().get_compute(bench.cx(), id).await {
        Ok(compute) => Ok(!matches!(
            compute.status,
            ComputeStatus::Stopped | ComputeStatus::Terminated
        )),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(!matches!(
            bench.provider().presence(bench.cx(), id).await,
            Presence::Absent
        )),
        Err(error) => Err(error.into()),
    }
}
