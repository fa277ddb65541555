//! Operations that only RunPod's deprecated GraphQL API has: spot pods, bid prices, the balance.
//!
//! It is rate-limited since September 2026 and answers 410 from early 2027 (docs/clouds/runpod.md,
//! "GraphQL"). It must be enabled explicitly: the feature `graphql` adds these methods, and
//! [`RunPodBuilder::spot`](crate::RunPodBuilder::spot) lets the provider rent spot. The key is sent
//! in the header, never in the URL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use atlas_core::{
    CallContext, Candidate, CloudType, Compute, ComputeId, ComputeRequest, ComputeStatus, DiskSize,
    Error, ErrorKind, GpuChoice, KeyCarriers, LAUNCH_KEY_ENV, LaunchKey, MemorySize, Next, Outcome,
    ProviderId, Result, RetryClass, Secret, Stock, UnreadableRow, Usd, UsdPerHour,
};
use atlas_http::{Answer, Call, Client, lenient, merge_json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::RunPod;
use crate::candidates::{cloud, tiers};
use crate::catalogue;
use crate::error::sold_out;
use crate::translate::{DEFAULT_DISK, MOUNT_PATH};
use crate::wire::read;

const PRICES: &str = "query Prices($in: GpuLowestPriceInput!) { gpuTypes { id memoryInGb \
    lowestPrice(input: $in) { minimumBidPrice \
                      stockStatus } } }";
const BALANCE: &str = "query Balance { myself { id clientBalance currentSpendPerHr spendLimit } }";
const RENT_SPOT: &str = "mutation Rent($in: PodRentInterruptableInput!) { made: \
    podRentInterruptable(input: $in) { id costPerHr } }";
const RESUME_SPOT: &str =
    "mutation Resume($in: PodBidResumeInput!) { made: podBidResume(input: $in) { id costPerHr } }";

/// The balance and spend of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// RunPod's id of the account.
    pub account: String,
    /// The remaining balance.
    pub balance: Usd,
    /// The current total price per hour, where the answer has one.
    pub spend: Option<UsdPerHour>,
    /// The maximum total price per hour.
    pub spend_limit: Option<UsdPerHour>,
}

/// The GraphQL API of one account.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    pub(crate) client: Client,
    /// Whether the provider rents spot.
    pub(crate) spot: bool,
    /// Whether the warning about the end of the API was logged.
    warned: Arc<AtomicBool>,
}

/// One entry of the bid prices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bid {
    pub(crate) gpu: String,
    pub(crate) memory: MemorySize,
    pub(crate) price: UsdPerHour,
    pub(crate) stock: Option<Stock>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    #[serde(deserialize_with = "lenient::text")]
    id: String,
    #[serde(default, deserialize_with = "lenient::opt_number")]
    cost_per_hr: Option<f64>,
}

impl Graph {
    /// The API through this client. Logs the warning at once if the provider is going to use it.
    pub(crate) fn new(client: Client, spot: bool) -> Self {
        let graph = Self {
            client,
            spot,
            warned: Arc::default(),
        };
        if spot {
            graph.warn();
        }
        graph
    }

    /// Logs once that the API will end.
    fn warn(&self) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "runpod's GraphQL API is deprecated: it is rate-limited since 2026-09-17, answers \
                 410 from early 2027, and spot pods are being withdrawn with it"
            );
        }
    }

    async fn ask(
        &self,
        cx: &CallContext,
        operation: &'static str,
        class: RetryClass,
        query: &str,
        input: Value,
        secrets: Vec<Secret>,
    ) -> Result<Value> {
        let body = json!({"query": query, "variables": {"in": input}});
        let call = Call::post(operation, class, ["graphql"; 0])
            .json(&body)
            .scrub(secrets);
        self.warn();
        let answer = self.client.call(cx, call).await.map_err(switched_off)?;
        data(&answer, class)
    }

    /// The bid floor of every GPU of a tier, in a data centre or anywhere; and whether there are
    /// rows and all of them could be read.
    pub(crate) async fn bids(
        &self,
        cx: &CallContext,
        operation: &'static str,
        tier: CloudType,
        count: u32,
        region: Option<&str>,
    ) -> Result<(Vec<Bid>, bool)> {
        let mut input = json!({"gpuCount": count, "secureCloud": tier != CloudType::Community});
        if let Some(region) = region {
            input["dataCenterId"] = region.into();
        }
        let data = self
            .ask(cx, operation, RetryClass::Safe, PRICES, input, Vec::new())
            .await?;
        let Some(rows) = data.get("gpuTypes").and_then(Value::as_array) else {
            return Err(
                Error::new(ErrorKind::Provider, "the answer has no list of gpu types")
                    .outcome_is(Outcome::NotApplied(Next::SameLater)),
            );
        };
        let (mut bids, mut unreadable, mut read) = (Vec::new(), Vec::new(), 0);
        for row in rows {
            match bid(row) {
                Ok(found) => {
                    read += 1;
                    bids.extend(found);
                }
                Err(row) => unreadable.push(row),
            }
        }
        lenient::warn("gpu types", &unreadable);
        match unreadable.pop() {
            Some(row) if read == 0 => Err(row.into_error()),
            Some(_) => Ok((bids, false)),
            None => Ok((bids, read > 0)),
        }
    }

    /// The candidates for a bid, best first.
    pub(crate) async fn candidates(
        &self,
        cx: &CallContext,
        operation: &'static str,
        request: &ComputeRequest,
    ) -> Result<Vec<Candidate>> {
        let places: Vec<Option<&str>> = if request.region_hints.is_empty() {
            vec![None]
        } else {
            request
                .region_hints
                .iter()
                .map(|region| Some(region.as_str()))
                .collect()
        };
        if request.region_hints.iter().any(|region| region.len() == 2) {
            return Err(Error::validation(
                "region_hints",
                "spot is bid for by data centre, such as EU-RO-1",
            ));
        }
        let (mut found, mut complete) = (Vec::new(), true);
        for (tier_rank, tier) in tiers(request).iter().enumerate() {
            for (place, region) in places.iter().enumerate() {
                let (bids, whole) = self
                    .bids(cx, operation, *tier, request.gpu_count, *region)
                    .await?;
                complete &= whole;
                for bid in bids {
                    let rank = match request.gpu.as_ref() {
                        Some(GpuChoice::Named(name)) => catalogue::cards(*name)
                            .iter()
                            .position(|(_, id)| *id == bid.gpu),
                        Some(GpuChoice::Native(id)) => (*id == bid.gpu).then_some(0),
                        Some(GpuChoice::AtLeast(memory)) => (bid.memory >= *memory).then_some(0),
                        _ => None,
                    };
                    let Some(rank) = rank.filter(|_| bid.stock != Some(Stock::None)) else {
                        continue;
                    };
                    let mut candidate = Candidate::default();
                    candidate.gpu = catalogue::canonical(&bid.gpu);
                    candidate.native_type = Some(bid.gpu);
                    candidate.region = region.map(str::to_owned);
                    candidate.cloud_type = Some(*tier);
                    candidate.price = Some(bid.price.times(request.gpu_count));
                    candidate.stock = bid.stock;
                    found.push(((rank, bid.price, tier_rank, place), candidate));
                }
            }
        }
        // An empty or partly unreadable price list does not show that spot is withdrawn.
        if found.is_empty() && complete {
            return Err(withdrawn("runpod shows no spot price for what was asked"));
        }
        found.sort_by_key(|(order, _)| *order);
        Ok(found.into_iter().map(|(_, candidate)| candidate).collect())
    }

    /// Orders a spot pod. Exactly one call.
    pub(crate) async fn rent(
        &self,
        cx: &CallContext,
        provider: &ProviderId,
        key: &LaunchKey,
        request: &ComputeRequest,
        candidate: &Candidate,
    ) -> Result<Compute> {
        let name = key.machine_name(cx.name_prefix(), request.name.as_deref());
        let env = request.environment(key);
        let input = order(&name, &env, request, candidate)?;
        let secrets = env.values().cloned().collect();
        let data = self
            .ask(
                cx,
                "spawn_compute",
                RetryClass::Create,
                RENT_SPOT,
                input,
                secrets,
            )
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::NoCapacity => withdrawn("runpod has no instance for a spot pod"),
                _ => error,
            })?;
        let unread = || {
            Error::new(ErrorKind::Provider, "the order was answered without a pod")
                .outcome_is(Outcome::Unknown(Vec::new()))
        };
        let made: Made = data
            .get("made")
            .and_then(|made| read(made).ok())
            .ok_or_else(unread)?;
        let mut compute = Compute::new(
            ComputeId::new(&made.id).map_err(|_| unread())?,
            provider.clone(),
            ComputeStatus::Provisioning,
        );
        compute.ready = Some(false);
        compute.gpu_type = candidate.gpu;
        compute.native_type.clone_from(&candidate.native_type);
        compute.gpu_count = request.gpu_count;
        compute.cost_per_hour = made.cost_per_hr.and_then(UsdPerHour::from_f64);
        compute.region.clone_from(&candidate.region);
        compute.image.clone_from(&request.image);
        compute.keys =
            KeyCarriers::name_and_tag(&name, env.get(LAUNCH_KEY_ENV).map(Secret::expose));
        compute.name = Some(name);
        Ok(compute)
    }
}

/// The bid floor in a row of the price list; `None` where the GPU is not offered, which a `null`
/// price says.
fn bid(row: &Value) -> Result<Option<Bid>, UnreadableRow> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Line {
        #[serde(deserialize_with = "lenient::text")]
        id: String,
        #[serde(default, deserialize_with = "lenient::opt_number")]
        memory_in_gb: Option<u32>,
        #[serde(default, deserialize_with = "lenient::opt_object")]
        lowest_price: Option<Lowest>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lowest {
        #[serde(default, deserialize_with = "lenient::opt_number")]
        minimum_bid_price: Option<f64>,
        #[serde(default, deserialize_with = "lenient::opt_word")]
        stock_status: Option<String>,
    }
    let line: Line = lenient::row(row)?;
    // `unknown` is a sentinel and not a GPU.
    let not_offered = line.id == "unknown"
        || row["lowestPrice"].get("minimumBidPrice") == Some(&Value::Null)
        || row.get("lowestPrice") == Some(&Value::Null);
    if not_offered {
        return Ok(None);
    }
    let odd = || UnreadableRow::of(row, "lowestPrice.minimumBidPrice: is not a price");
    let lowest = line.lowest_price.ok_or_else(odd)?;
    let price = lowest
        .minimum_bid_price
        .filter(|price| *price >= 0.0)
        .and_then(UsdPerHour::from_f64)
        .ok_or_else(odd)?;
    let stock = match lowest.stock_status.as_deref() {
        // Without the field nothing is known.
        None if row["lowestPrice"].get("stockStatus").is_none() => None,
        None | Some("None") => Some(Stock::None),
        Some("Low") => Some(Stock::Low),
        Some("Medium") => Some(Stock::Medium),
        Some("High") => Some(Stock::High),
        Some(_) => None,
    };
    Ok(Some(Bid {
        gpu: line.id,
        memory: MemorySize::gib(line.memory_in_gb.unwrap_or_default()),
        price,
        stock,
    }))
}

/// The input of an order.
fn order(
    name: &str,
    env: &BTreeMap<String, Secret>,
    request: &ComputeRequest,
    candidate: &Candidate,
) -> Result<Value> {
    let Some(gpu) = candidate
        .native_type
        .as_ref()
        .filter(|_| request.gpu.is_some())
    else {
        return Err(Error::unsupported(
            "cpu",
            "runpod rents spot pods with gpus only",
        ));
    };
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| json!({"key": name, "value": value.expose()}))
        .collect();
    let ports: Vec<_> = request.ports.iter().map(ToString::to_string).collect();
    let mut input = Map::new();
    let mut put = |name: &str, value: Value| drop(input.insert(name.to_owned(), value));
    put("name", name.into());
    put(
        "cloudType",
        cloud(candidate.cloud_type.unwrap_or(request.cloud_type)).into(),
    );
    put("gpuTypeId", gpu.as_str().into());
    put("gpuCount", request.gpu_count.into());
    put("env", env.into());
    put("ports", ports.join(",").into());
    put(
        "containerDiskInGb",
        request
            .container_disk
            .unwrap_or(DEFAULT_DISK)
            .as_gb()
            .into(),
    );
    // If omitted, RunPod adds 20 GB that bill although they were not requested.
    put(
        "volumeInGb",
        request.volume.map_or(0, DiskSize::as_gb).into(),
    );
    if request.volume.is_some() || request.network_volume_id.is_some() {
        put("volumeMountPath", MOUNT_PATH.into());
    }
    let optional = [
        ("imageName", request.image.clone()),
        ("templateId", request.template_id.clone()),
        (
            "networkVolumeId",
            request.network_volume_id.as_ref().map(ToString::to_string),
        ),
        ("dataCenterId", candidate.region.clone()),
        ("dockerArgs", crate::self_end::command(request).stored()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, value.into());
        }
    }
    let price = candidate
        .price
        .ok_or_else(|| Error::validation("candidate", "has no price to bid"))?;
    // Rounded up to a nano-dollar, because a bid below the floor is refused.
    let each = price
        .per_hour()
        .nanos()
        .div_euclid(i64::from(request.gpu_count))
        + i64::from(
            price
                .per_hour()
                .nanos()
                .rem_euclid(i64::from(request.gpu_count))
                != 0,
        );
    let dollars = Usd::from_nanos(each).to_string();
    put(
        "bidPerGpu",
        dollars.parse::<f64>().map(Value::from).unwrap_or_default(),
    );
    let mut input = Value::Object(input);
    if !request.provider_opts.is_null() {
        merge_json(&mut input, &request.provider_opts);
    }
    Ok(input)
}

/// The refusal of a spot pod. It is not a temporary lack of capacity: RunPod is withdrawing spot
/// (docs/clouds/runpod.md, "GraphQL"), so callers should not wait for it.
fn withdrawn(what: &str) -> Error {
    let message = format!(
        "{what}; spot pods are being withdrawn and waiting does not help: ask for on-demand, or \
         for spot on another cloud"
    );
    Error::unsupported("spot", message).outcome_is(Outcome::NotApplied(Next::Stop))
}

/// 410 means the end of the API, announced for early 2027.
fn switched_off(error: Error) -> Error {
    if error.status() != Some(410) {
        return error;
    }
    let message = "runpod has switched its GraphQL API off (410), and REST v2 has neither spot \
                   pods nor the balance: remove `spot` from this account's settings, and read the \
                   balance in runpod's console";
    Error::new(ErrorKind::Unsupported, message)
        .outcome_is(Outcome::NotApplied(Next::Stop))
        .with_status(410)
}

/// The data of an answer, or the error it contains. GraphQL returns errors with status 200.
fn data(answer: &Answer, class: RetryClass) -> Result<Value> {
    let mut body: Value = answer.json()?;
    if let Some(said) = body.pointer_mut("/errors/0/message") {
        // The message may repeat the request's secrets.
        *said = answer.scrubbed(said.as_str().unwrap_or_default()).into();
    }
    if let Some(error) = first_error(&body, class) {
        return Err(error.with_status(answer.status().as_u16()));
    }
    match body.get_mut("data").map(Value::take) {
        Some(data @ Value::Object(_)) => Ok(data),
        _ => Err(answer.misunderstood("the answer has neither data nor errors")),
    }
}

fn first_error(body: &Value, class: RetryClass) -> Option<Error> {
    let error = body.get("errors")?.as_array()?.first()?;
    let said = error
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let folded = said.to_ascii_lowercase();
    let (kind, next) = if sold_out(&folded) {
        (ErrorKind::NoCapacity, Some(Next::NextCandidate))
    } else if folded.contains("unauthorized") {
        (ErrorKind::Unauthorized, Some(Next::Stop))
    } else if folded.contains("balance") || folded.contains("spend limit") {
        (ErrorKind::Quota, Some(Next::Stop))
    } else if folded.contains("not found") || folded.contains("nonexistent") {
        (ErrorKind::NotFound, Some(Next::Stop))
    } else {
        // "Something went wrong", an internal error, or an unknown sentence: after a create the pod
        // may exist.
        (ErrorKind::Provider, None)
    };
    let outcome = match next {
        Some(next) => Outcome::NotApplied(next),
        None if class == RetryClass::Create => Outcome::Unknown(Vec::new()),
        None => Outcome::NotApplied(Next::SameLater),
    };
    let message: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(Error::new(kind, message.trim_end_matches('.')).outcome_is(outcome))
}

impl RunPod {
    /// The account's balance and spend.
    ///
    /// # Errors
    /// Like any read. Cancel safe.
    pub async fn balance(&self, cx: &CallContext) -> Result<Balance> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Myself {
            #[serde(deserialize_with = "lenient::text")]
            id: String,
            #[serde(deserialize_with = "lenient::number")]
            client_balance: f64,
            #[serde(default, deserialize_with = "lenient::opt_number")]
            current_spend_per_hr: Option<f64>,
            #[serde(default, deserialize_with = "lenient::opt_number")]
            spend_limit: Option<f64>,
        }
        let asked = self
            .graph
            .ask(
                cx,
                "balance",
                RetryClass::Safe,
                BALANCE,
                json!({}),
                Vec::new(),
            )
            .await;
        let data = asked.map_err(|error| error.during(&self.id, "balance"))?;
        let myself: Myself = read(data.get("myself").unwrap_or(&Value::Null))?;
        Ok(Balance {
            account: myself.id,
            balance: Usd::from_f64(myself.client_balance).ok_or_else(|| {
                Error::new(
                    ErrorKind::Provider,
                    "the balance in the answer is not an amount",
                )
            })?,
            spend: myself.current_spend_per_hr.and_then(UsdPerHour::from_f64),
            spend_limit: myself.spend_limit.and_then(UsdPerHour::from_f64),
        })
    }

    /// Starts a spot pod that was taken back, with this bid per GPU.
    ///
    /// # Errors
    /// `no_capacity` when the bid is too low or the GPUs are gone. Not cancel safe: the pod may
    /// have started.
    pub async fn resume_spot(
        &self,
        cx: &CallContext,
        id: &ComputeId,
        gpu_count: u32,
        bid_per_gpu: UsdPerHour,
    ) -> Result<()> {
        let bid: f64 = bid_per_gpu
            .per_hour()
            .to_string()
            .parse()
            .unwrap_or_default();
        let input = json!({"podId": id.as_str(), "gpuCount": gpu_count, "bidPerGpu": bid});
        let resumed = self
            .graph
            .ask(
                cx,
                "resume_spot",
                RetryClass::Create,
                RESUME_SPOT,
                input,
                Vec::new(),
            )
            .await;
        resumed
            .map(drop)
            .map_err(|error| error.during(&self.id, "resume_spot"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atlas_core::{Gpu, Port};

    #[test]
    fn an_order_for_spot_bids_and_lists_its_environment_in_graphqls_way() {
        let request = ComputeRequest::gpu(Gpu::L40S)
            .image("x/y:1")
            .gpu_count(2)
            .spot(true)
            .port(Port::http(8000))
            .port(Port::tcp(22));
        let mut candidate = Candidate::default();
        candidate.native_type = Some("NVIDIA L40S".to_owned());
        candidate.cloud_type = Some(CloudType::Community);
        candidate.price = UsdPerHour::from_f64(0.58);
        let env = BTreeMap::from([("A".to_owned(), Secret::new("1"))]);
        assert_eq!(
            order("n", &env, &request, &candidate).unwrap(),
            json!({"name": "n", "cloudType": "COMMUNITY", "gpuTypeId": "NVIDIA L40S",
                "gpuCount": 2, "imageName": "x/y:1",
                "env": [{"key": "A", "value": "1"}], "ports": "8000/http,22/tcp",
                    "containerDiskInGb": 50, "volumeInGb": 0,
                "bidPerGpu": 0.29})
        );
        assert!(
            order(
                "n",
                &env,
                &ComputeRequest::cpu(2).image("x").spot(true),
                &candidate
            )
            .is_err()
        );
    }

    #[test]
    fn errors_come_with_200_and_only_known_sentences_say_that_nothing_was_done() {
        let error = |message: &str| {
            let body = json!({"errors": [{"message": message, "extensions": {"code": "RUNPOD"}}],
                "data": {"made": null}});
            first_error(&body, RetryClass::Create).unwrap()
        };
        let not = Outcome::NotApplied;
        let table = [
            (
                "There are not enough free GPUs on the host machine to start this pod.",
                ErrorKind::NoCapacity,
                not(Next::NextCandidate),
            ),
            (
                "There are no longer any instances available with enough disk space.",
                ErrorKind::NoCapacity,
                not(Next::NextCandidate),
            ),
            ("Unauthorized", ErrorKind::Unauthorized, not(Next::Stop)),
            (
                "pod not found to terminate",
                ErrorKind::NotFound,
                not(Next::Stop),
            ),
            (
                "Something went wrong. Please try again later or contact support.",
                ErrorKind::Provider,
                Outcome::Unknown(vec![]),
            ),
        ];
        for (message, kind, outcome) in table {
            assert_eq!(
                (error(message).kind(), error(message).outcome()),
                (kind, &outcome),
                "{message}"
            );
        }
        assert!(first_error(&json!({"data": {}}), RetryClass::Create).is_none());
    }
}
