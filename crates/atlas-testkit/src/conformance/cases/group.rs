//! The optional operations besides jobs: logs, network volumes, spend.

use std::future::poll_fn;
use std::time::Duration;

use atlas_core::{
    BoxStream, Capability, ComputeStatus, DiskSize, LogLine, LogQuery, Result, SpendQuery, Usd,
    VolumeRequest,
};

use crate::conformance::bench::{Bench, Stop, Verdict, ensure};
use crate::world::FaultKind;

pub(super) async fn logs_are_read_to_their_end(bench: &Bench<'_>) -> Verdict {
    bench.need(Capability::Logs)?;
    let (_, made) = bench.spawn(bench.request()).await?;
    bench
        .until_status(&made.id, &ComputeStatus::Running)
        .await?;
    let mut patience = bench.long_patience();
    let lines = loop {
        let lines = collect(
            bench
                .provider()
                .logs(bench.cx(), &made.id, &LogQuery::default())
                .await?,
        )
        .await?;
        if lines.len() > 1 {
            break lines;
        }
        patience
            .again(&format!("{} lines of log", lines.len()))
            .await?;
    };
    ensure!(
        lines.iter().all(|line| !line.text.ends_with(['\n', '\r'])),
        "a line keeps its end"
    );
    let tail = collect(
        bench
            .provider()
            .logs(bench.cx(), &made.id, &LogQuery::default().tail(1))
            .await?,
    )
    .await?;
    ensure!(tail.len() == 1, "the last line is {} lines", tail.len());
    Ok(())
}

async fn collect(mut stream: BoxStream<Result<LogLine>>) -> Result<Vec<LogLine>, Stop> {
    let mut lines = Vec::new();
    while let Some(line) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        lines.push(line?);
        if lines.len() > 10_000 {
            return Err(Stop::Failed(
                "a log without following does not end".to_owned(),
            ));
        }
    }
    Ok(lines)
}

pub(super) async fn a_network_volume_is_made_listed_and_deleted(bench: &Bench<'_>) -> Verdict {
    bench.need(Capability::NetworkVolumes)?;
    let Some(volumes) = bench.provider().network_volumes() else {
        return Err(Stop::Failed(
            "network volumes are declared, and the group is missing".to_owned(),
        ));
    };
    let region = bench
        .subject()
        .region()
        .ok_or_else(|| Stop::Skipped("control:region".to_owned()))?;
    let request = VolumeRequest {
        name: "conformance".to_owned(),
        size: DiskSize::gb(20),
        region,
    };
    let made = volumes.create_network_volume(bench.cx(), &request).await?;
    ensure!(
        made.name == request.name && made.size == request.size && made.region == request.region,
        "asked {request:?}, got {made:?}"
    );
    let listed = volumes.list_network_volumes(bench.cx()).await?;
    ensure!(
        listed.iter().filter(|volume| volume.id == made.id).count() == 1,
        "{:?} is not listed once: {listed:?}",
        made.id
    );
    volumes.delete_network_volume(bench.cx(), &made.id).await?;
    volumes.delete_network_volume(bench.cx(), &made.id).await?;
    let listed = volumes.list_network_volumes(bench.cx()).await?;
    ensure!(
        !listed.iter().any(|volume| volume.id == made.id),
        "a deleted volume is listed"
    );
    if bench.subject().control().is_some() {
        bench
            .inject("create_network_volume", FaultKind::CommitThen500, 1)
            .await?;
        match volumes.create_network_volume(bench.cx(), &request).await {
            Ok(volume) => return Err(Stop::Failed(format!("a failed create answered {volume:?}"))),
            Err(error) => ensure!(
                error.outcome().is_unknown(),
                "a failed create is {:?}",
                error.outcome()
            ),
        }
        let count = volumes.list_network_volumes(bench.cx()).await?.len();
        ensure!(count == 1, "one failed create made {count} volumes");
    }
    Ok(())
}

pub(super) async fn spend_is_what_the_cloud_billed(bench: &Bench<'_>) -> Verdict {
    const HOURS: u32 = 3;
    bench.need(Capability::Spend)?;
    let start = bench
        .subject()
        .now()
        .saturating_sub(Duration::from_secs(3600));
    let (_, made) = bench.spawn(bench.request()).await?;
    let running = bench
        .until_status(&made.id, &ComputeStatus::Running)
        .await?;
    let query = |end| SpendQuery {
        id: Some(made.id.clone()),
        start,
        end,
    };
    if bench.subject().control().is_none() {
        bench
            .provider()
            .compute_spend(bench.cx(), &query(bench.subject().now()))
            .await?;
        return Ok(());
    }
    bench
        .subject()
        .wait(Duration::from_secs(3600) * HOURS)
        .await;
    bench.provider().terminate(bench.cx(), &made.id).await?;
    // A cloud bills in arrears: a day is longer than any documented delay.
    for _ in 0..24 {
        let rows = bench
            .provider()
            .compute_spend(bench.cx(), &query(bench.subject().now()))
            .await?;
        ensure!(
            rows.iter()
                .all(|row| row.id == made.id && row.start <= row.end),
            "rows of others: {rows:?}"
        );
        let billed: Usd = rows.iter().map(|row| row.amount).sum();
        let due = running
            .cost_per_hour
            .map_or(Usd::ZERO, |price| price.times(HOURS).per_hour());
        if billed >= due && billed > Usd::ZERO {
            ensure!(
                billed.nanos() <= due.nanos() * 2,
                "{HOURS} h at {:?} are billed {billed}",
                running.cost_per_hour
            );
            return Ok(());
        }
        bench.subject().wait(Duration::from_secs(3600)).await;
    }
    Err(Stop::Failed(format!(
        "a day later {HOURS} h at {:?} are not billed",
        running.cost_per_hour
    )))
}
