//! Renting with one PUT on an ask. It is not idempotent, and a refused bid leaves an instance
//! behind.

use std::collections::BTreeMap;

use atlas_core::{Port, Secret, Usd, UsdPerHour};
use http::Response;
use serde_json::{Map, Value, json};

use super::envelope::{Failure, ok};
use super::stock::{self, Ask, NAME, WHOLE};
use super::{Call, Vast};
use crate::dialect::SimBody;
use crate::world::{MachineSpec, Refusal};

const RUNTYPES: &[&str] = &[
    "ssh",
    "jupyter",
    "args",
    "ssh_proxy",
    "ssh_direct",
    "jupyter_proxy",
    "jupyter_direct",
];
/// What the official client writes instead of some of them.
const COMPOSED: &[&str] = &[
    "ssh_direc ssh_proxy",
    "jupyter_direc ssh_direc ssh_proxy",
    "jupyter_proxy ssh_proxy",
];

impl Vast {
    pub(super) fn create(&self, call: &Call<'_>, id: &str) -> Result<Response<SimBody>, Failure> {
        let body = call.json()?;
        let ask_id: u64 = id.parse().unwrap_or(0);
        let gone = |failure: Failure| failure.with("ask_id", ask_id);
        let ask = stock::find(ask_id).ok_or_else(|| gone(no_longer(ask_id, false)))?;
        let order = Order::read(&body)?;
        if self.shared().quirks.refuses_with_200 {
            return Ok(ok(&json!({ "success": false, "error": "invalid_args",
                    "msg": "error: the machine refused the request" })));
        }
        self.solvent(&call.account)?;
        if self.loses_race() {
            self.world.set_stock(NAME, id, "", ask.place.0, 0);
        }
        let taken = !self.rentable(ask) && !self.shared().quirks.lets_twice;
        if taken && order.cancel_unavail {
            return Err(gone(no_longer(ask_id, true)));
        }
        if let Some(volume) = order.volume {
            self.check_volume(call, volume, ask.machine)?;
        }
        let low = order.price.filter(|price| *price < ask.min_bid);
        let spec = self.spec(ask, order);
        let others = taken.then(|| {
            self.world
                .stock(NAME, id, "")
                .get(ask.place.0)
                .copied()
                .unwrap_or(0)
        });
        if taken {
            self.world.set_stock(NAME, id, "", ask.place.0, WHOLE);
        }
        let made = self
            .world
            .create_machine(NAME, &call.account, spec, &call.arrival)
            .map_err(|refusal| match refusal {
                Refusal::NoCapacity => gone(no_longer(ask_id, true)),
                other => Failure::from(other),
            })?;
        let now = self.world.now();
        self.shared().rented.insert(ask_id, now);
        if let Some(others) = others {
            // Made without its GPU: it waits, its disk bills, and it starts by itself.
            self.world.stop_machine(NAME, &made.id);
            self.world.set_stock(NAME, id, "", ask.place.0, others);
            self.note(&made.id, |note| note.queued = true);
            return Ok(ok(
                &json!({ "success": true, "new_contract": made.id.parse::<u64>().unwrap_or(0) }),
            ));
        }
        if low.is_some() {
            self.world.stop_machine(NAME, &made.id);
            self.note(&made.id, |note| note.stopped = true);
            let msg = format!(
                "error 400/3606: invalid_price The bid is below the minimum of {}.",
                dollars(ask.min_bid)
            );
            let refused = Failure::new(400, "invalid_price", msg)
                .with("new_contract", made.id.parse::<u64>().unwrap_or(0));
            return Err(gone(refused));
        }
        self.note(&made.id, |note| note.started = Some(now));
        let secret = format!(
            "zz-instance-key-{}{}",
            self.world.word(32),
            self.world.word(16)
        );
        Ok(ok(
            &json!({ "success": true, "new_contract": made.id.parse::<u64>().unwrap_or(0),
                "instance_api_key": secret }),
        ))
    }

    fn loses_race(&self) -> bool {
        let quirks = &mut self.shared().quirks;
        let lost = quirks.races_lost > 0;
        quirks.races_lost = quirks.races_lost.saturating_sub(1);
        lost
    }

    fn spec(&self, ask: &Ask, order: Order) -> MachineSpec {
        let quirks = self.shared().quirks.clone();
        let price = order.price.filter(|_| !quirks.forgets_bid);
        let mut spec = MachineSpec::gpu(ask.id.to_string(), 1).named(order.label);
        spec.tier = Some(String::new());
        spec.regions = vec![ask.place.0.to_owned()];
        spec.env = order.env;
        spec.image = order.image;
        // The other run types replace the image's own program with Vast's.
        spec.command = if order.runtype == "args" {
            order.args.clone()
        } else {
            Vec::new()
        };
        spec.ports = order.ports;
        spec.volume_gb = order.disk;
        spec.spot = price.is_some();
        spec.bid = price;
        spec.extra = json!({
            "ask": ask.id, "flags": order.flags, "args": order.args, "runtype": order.runtype,
                "onstart": order.onstart,
            "gpu_name": quirks.delivers.unwrap_or_else(|| ask.gpu_name.to_owned()),
                "volume": order.volume,
        });
        spec
    }
}

fn dollars(price: UsdPerHour) -> f64 {
    super::offers::dollars(price.per_hour())
}

/// The two answers for the same condition.
fn no_longer(ask: u64, taken: bool) -> Failure {
    if taken && ask.is_multiple_of(2) {
        return Failure::new(
            410,
            "no_such_ask",
            format!("error 410/3907: no_such_ask Instance type {ask} is no longer available."),
        );
    }
    Failure::new(
        404,
        "invalid_args",
        format!("error 404/3603: no_such_ask Instance type by id {ask} is not available."),
    )
}

/// What a create asks for.
struct Order {
    image: String,
    label: String,
    disk: u32,
    runtype: String,
    price: Option<UsdPerHour>,
    env: BTreeMap<String, Secret>,
    flags: Map<String, Value>,
    ports: Vec<Port>,
    args: Vec<String>,
    onstart: String,
    volume: Option<u64>,
    /// Nothing is made if the GPU is gone.
    cancel_unavail: bool,
}

impl Order {
    fn read(body: &Value) -> Result<Self, Failure> {
        // The error message repeats everything that was sent.
        let wrong = |what: &str| Failure::invalid(format!("{what}, got {body}"));
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let image = match (text("image"), body["template_hash_id"].as_str()) {
            (image, None) if image.is_empty() => return Err(wrong("image is required")),
            (image, Some(template)) if image.is_empty() => format!("template/{template}"),
            (image, _) => image,
        };
        let args: Vec<String> = match &body["args"] {
            Value::Array(list) => list
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => crate::world::split(&text("args_str")),
        };
        let onstart = text("onstart");
        if image.len() > 1024 || text("label").len() > 256 || onstart.len() > 4048 {
            return Err(wrong("image, label or onstart is too long"));
        }
        if args.iter().map(String::len).sum::<usize>() + text("args_str").len() + onstart.len()
            > 4096
        {
            return Err(wrong("args, args_str and onstart are too long together"));
        }
        let default = if args.is_empty() { "ssh" } else { "args" };
        let runtype = body["runtype"].as_str().unwrap_or(default).to_owned();
        if !RUNTYPES.contains(&runtype.as_str()) && !COMPOSED.contains(&runtype.as_str()) {
            return Err(wrong("runtype is unknown"));
        }
        let disk = if body["disk"].is_null() {
            8.0
        } else {
            body["disk"]
                .as_f64()
                .ok_or_else(|| wrong("disk must be a number"))?
        };
        if !(8.0..=65_536.0).contains(&disk) {
            return Err(wrong("disk must be at least 8"));
        }
        let disk = format!("{:.0}", disk.ceil()).parse().unwrap_or(8);
        let price = match &body["price"] {
            Value::Null => None,
            price => {
                let fits = price
                    .as_f64()
                    .filter(|price| (0.001..=128.0).contains(price));
                let price = fits.ok_or_else(|| {
                    Failure::new(400, "invalid_price", "error 400/3605: invalid_price")
                })?;
                Some(UsdPerHour::new(Usd::from_f64(price).unwrap_or_default()))
            }
        };
        let volume = (body["volume_info"]["create_new"] == false)
            .then(|| body["volume_info"]["volume_id"].as_u64())
            .flatten();
        let mut order = Self {
            image,
            label: text("label"),
            disk,
            runtype,
            price,
            env: BTreeMap::new(),
            flags: Map::new(),
            ports: Vec::new(),
            args,
            onstart,
            volume,
            cancel_unavail: body["cancel_unavail"].as_bool().unwrap_or(price.is_none()),
        };
        order.environment(&body["env"], &wrong)?;
        Ok(order)
    }

    /// Variables and Docker flags share one object; the string form of the document is not applied.
    fn environment(&mut self, env: &Value, wrong: &dyn Fn(&str) -> Failure) -> Result<(), Failure> {
        if env.to_string().len() > 32_768 {
            return Err(wrong("env is too long"));
        }
        for (name, value) in env.as_object().into_iter().flatten() {
            let Some(value) = value.as_str().filter(|_| name.len() <= 256) else {
                return Err(wrong("env must be an object of strings"));
            };
            if !name.starts_with('-') {
                self.env.insert(name.clone(), Secret::new(value));
                continue;
            }
            self.flags.insert(name.clone(), Value::from(value));
            let published = name
                .strip_prefix("-p ")
                .and_then(|ports| ports.rsplit(':').next());
            let number = published
                .filter(|port| !port.ends_with("/udp"))
                .and_then(|port| port.trim_end_matches("/tcp").parse().ok());
            // One number outside for each, and HTTP behind it where the image serves any.
            self.ports.extend(
                number
                    .into_iter()
                    .flat_map(|number| [Port::tcp(number), Port::http(number)]),
            );
        }
        Ok(())
    }
}
