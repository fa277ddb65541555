//! What a listing contains, and that it never claims to be complete when it is not.

use atlas_core::{ComputeStatus, GpuChoice, ListFilter};

use crate::conformance::bench::{Bench, Stop, Verdict, ensure};
use crate::world::FaultKind;

pub(super) async fn a_listing_is_whole_and_names_each_machine_once(bench: &Bench<'_>) -> Verdict {
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(bench.spawn(bench.request()).await?.1.id);
    }
    let mut patience = bench.patience();
    loop {
        let listing = bench.list().await?;
        let ids: Vec<_> = listing
            .computes
            .iter()
            .map(|compute| compute.id.clone())
            .collect();
        for id in &ids {
            ensure!(
                ids.iter().filter(|other| *other == id).count() == 1,
                "{id} is listed twice"
            );
        }
        if listing.is_complete() && made.iter().all(|id| ids.contains(id)) {
            return Ok(());
        }
        patience
            .again(&format!(
                "{:?} with {ids:?}, made {made:?}",
                listing.completeness
            ))
            .await?;
    }
}

pub(super) async fn filters_select(bench: &Bench<'_>) -> Verdict {
    let (key, first) = bench.spawn(bench.request().name("first")).await?;
    let (_, second) = bench.spawn(bench.request().name("second")).await?;
    let running = bench
        .until_status(&first.id, &ComputeStatus::Running)
        .await?;
    bench
        .until_status(&second.id, &ComputeStatus::Running)
        .await?;
    bench.until_found(&key, 1).await?;
    let name = running.name.clone().unwrap_or_default();
    let mut yes = vec![
        ListFilter::launch_key(key),
        ListFilter::all().name_prefix(&name),
        ListFilter::all().status(ComputeStatus::Running),
    ];
    let mut no = vec![
        ListFilter::launch_key(bench.key()),
        ListFilter::all().name_prefix("somebody-elses"),
        ListFilter::all().status(ComputeStatus::Failed),
        ListFilter::all().region("no-such-region"),
    ];
    if let Some(region) = &running.region {
        yes.push(ListFilter::all().region(region));
    }
    if let (Some(GpuChoice::Named(asked)), Some(card)) = (bench.request().gpu, running.gpu_type) {
        yes.extend([ListFilter::all().gpu(asked), ListFilter::all().gpu(card)]);
        let other = atlas_core::Gpu::ALL
            .iter()
            .find(|gpu| !gpu.variants().contains(&card) && **gpu != card);
        no.extend(other.map(|other| ListFilter::all().gpu(*other)));
    }
    for (filters, wanted) in [(&yes, true), (&no, false)] {
        for filter in filters {
            let listing = bench.provider().list_compute(bench.cx(), filter).await?;
            let found = listing
                .computes
                .iter()
                .any(|compute| compute.id == first.id);
            ensure!(
                found == wanted && listing.is_complete(),
                "{filter:?} gave {:?}",
                listing
            );
        }
    }
    let by_name = bench
        .provider()
        .list_compute(bench.cx(), &ListFilter::all().name_prefix(&name))
        .await?;
    ensure!(
        by_name.computes.len() == 1,
        "a whole name finds {} machines",
        by_name.computes.len()
    );
    Ok(())
}

pub(super) async fn a_partial_listing_is_incomplete(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(bench.spawn(bench.request()).await?.0);
    }
    for key in &keys {
        bench.until_found(key, 1).await?;
    }
    if !bench.control()?.break_listing().await {
        return Err(Stop::Skipped("control:break_listing".to_owned()));
    }
    let listing = bench
        .provider()
        .list_compute(&bench.once(), &ListFilter::all())
        .await;
    ensure!(
        !listing.as_ref().is_ok_and(|listing| listing.is_complete()),
        "a walk that broke off is called complete: {:?}",
        listing.map(|listing| listing.computes.len())
    );
    Ok(())
}

pub(super) async fn an_unreadable_listing_is_never_an_empty_one(bench: &Bench<'_>) -> Verdict {
    bench.control()?;
    let (key, _) = bench.spawn(bench.request()).await?;
    bench.until_found(&key, 1).await?;
    for fault in [
        FaultKind::Status500,
        FaultKind::Html502,
        FaultKind::Truncated,
    ] {
        bench.inject("list_compute", fault, 1).await?;
        let listing = bench
            .provider()
            .list_compute(&bench.once(), &ListFilter::all())
            .await;
        ensure!(
            !listing.as_ref().is_ok_and(|listing| listing.is_complete()),
            "after {fault} the listing is complete with {:?}",
            listing.map(|listing| listing.computes.len())
        );
    }
    ensure!(
        bench.list().await?.is_complete(),
        "the listing after the faults is incomplete"
    );
    Ok(())
}
