//! `atlas gpus`: the price list of an account's cloud.

use atlas::{AnyProvider, CallContext, GpuType};

use crate::failure::Done;
use crate::output::{self, Output};

pub(crate) async fn run(provider: &AnyProvider, out: Output) -> Done {
    let mut offers = provider.list_gpu_types(&CallContext::new()).await?;
    offers.sort_by(|a, b| (a.price, &a.native_id).cmp(&(b.price, &b.native_id)));
    out.answer(&offers, || table(&offers))
}

fn table(offers: &[GpuType]) -> String {
    let dash = || "-".to_owned();
    let rows = offers.iter().map(|offer| {
        vec![
            offer.gpu.map_or_else(dash, |gpu| gpu.to_string()),
            offer.native_id.clone(),
            offer.vram.to_string(),
            offer.price.map_or_else(dash, |price| format!("${price}")),
            offer.spot_price.map_or_else(dash, |price| format!("${price}")),
            offer.stock.map_or_else(dash, |stock| crate::view::plain(&serde_json::json!(stock))),
        ]
    });
    output::table(&["GPU", "CLOUD'S NAME", "MEMORY", "PRICE", "SPOT", "STOCK"], rows)
}
