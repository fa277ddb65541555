//! `atlas gpus`: one price list over every cloud there is a key for.

use atlas::{AccountName, AnyProvider, CallContext, GpuType};
use serde_json::{Value, json};

use crate::failure::{Done, Failure};
use crate::output::{self, Output};
use crate::setup::Setup;
use crate::view;

pub(crate) async fn run(setup: &Setup, out: Output) -> Done {
    let accounts = setup.accounts();
    if accounts.is_empty() {
        return Err(Failure::usage("there is no key for any cloud: set RUNPOD_API_KEY, or name an account with --provider"));
    }
    let (mut lines, mut failed) = (Vec::new(), Vec::new());
    for (account, provider) in accounts {
        match read(&account, provider).await {
            Ok(offers) => lines.extend(offers.into_iter().map(|offer| (account.clone(), offer))),
            Err(failure) => failed.push((account, failure.to_string())),
        }
    }
    lines.sort_by(|(a, x), (b, y)| (x.price, a, &x.native_id).cmp(&(y.price, b, &y.native_id)));
    let document = lines.iter().map(|(account, offer)| {
        let mut line = json!(offer);
        line["account"] = json!(account);
        line
    });
    let broken = failed.iter().map(|(account, error)| json!({ "account": account, "error": error }));
    let document: Value = document.chain(broken).collect();
    out.answer(&document, || table(&lines, &failed))?;
    match failed.as_slice() {
        [] => Ok(()),
        [(account, error), ..] => Err(Failure::new(format!("no price list from {account}: {error}"))),
    }
}

async fn read(account: &AccountName, provider: Done<AnyProvider>) -> Done<Vec<GpuType>> {
    let provider = provider?;
    tracing::debug!(%account, "reading the price list");
    Ok(provider.list_gpu_types(&CallContext::new()).await?)
}

fn table(lines: &[(AccountName, GpuType)], failed: &[(AccountName, String)]) -> String {
    let dash = || "-".to_owned();
    let rows = lines.iter().map(|(account, offer)| {
        vec![
            offer.gpu.map_or_else(dash, |gpu| gpu.to_string()),
            account.to_string(),
            offer.vram.to_string(),
            offer.price.map_or_else(dash, |price| format!("${price}")),
            offer.spot_price.map_or_else(dash, |price| format!("${price}")),
            offer.stock.map_or_else(dash, |stock| view::plain(&json!(stock))),
            offer.cloud_type.map_or_else(dash, |tier| view::plain(&json!(tier))),
            offer.region.clone().unwrap_or_else(dash),
            offer.native_id.clone(),
        ]
    });
    let broken = failed.iter().map(|(account, _)| {
        let mut row = vec!["failed".to_owned(), account.to_string()];
        row.resize_with(9, dash);
        row
    });
    output::table(&["GPU", "ACCOUNT", "MEMORY", "PRICE", "SPOT", "STOCK", "TIER", "REGION", "CLOUD'S NAME"], rows.chain(broken))
}
