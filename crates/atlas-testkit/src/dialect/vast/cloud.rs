//! Vast's row in the list of simulated clouds.

use atlas_core::{ComputeRequest, Gpu};
use http::Method;

use super::{NAME, Quirks, Vast, cloud};
use crate::dialect::cloud::{
    Api, ClientSetup, KeyIn, Served, Setting, SimulatedCloud, Started, Strangers, Traffic, Url,
    Usage, is_one_of, limits, segments,
};
use crate::world::{MachineSpec, World};

/// The GPU that requests name.
const CARD: Gpu = Gpu::Rtx4090;

/// Vast.ai: its API, and the host where the results of commands and logs are.
pub const CLOUD: SimulatedCloud = SimulatedCloud {
    name: NAME,
    account: None,
    spec: cloud,
    reports_birth: true,
    listeners: &["control", "results"],
    urls: &[Url {
        name: "control",
        listener: "control",
        path: "",
    }],
    start,
    furnish: |_, _| {},
    client: ClientSetup {
        key: "VAST_API_KEY",
        urls: &[("ATLAS_VAST_URL", "control")],
        settings: &[],
    },
    usage: Usage {
        machine: || ComputeRequest::gpu(CARD),
        portless_differs: false,
        spot: true,
        limits: limits(90, 60, 200, 5, 8),
        open_variables: &["ATLAS_PORTS"],
    },
    strangers: Strangers {
        machine: |world| MachineSpec::gpu(free_ask(world), 1),
        // An ask is let once.
        copy: |world, spec| {
            spec.shape = free_ask(world);
            spec.regions = Vec::new();
        },
        key_in: KeyIn::Environment,
        share_support: false,
    },
    traffic: Traffic {
        orders: |method, path| method == Method::PUT && is_one_of(path, "asks"),
        reads: |method, path| method == Method::GET && is_one_of(path, "instances"),
        ends: |_, method, path, _| match (method, segments(path).as_slice()) {
            (&Method::DELETE, [.., "instances", id]) => vec![(*id).to_owned()],
            _ => Vec::new(),
        },
        deleted: (200, r#"{"success":true}"#),
    },
};

fn start(world: &World, setting: &Setting) -> Started {
    let mut quirks = Quirks::default();
    if !setting.rates {
        quirks.rates = None;
    }
    if let Some(page_size) = setting.page_size {
        quirks.page_size = page_size;
    }
    if let [_, results] = setting.addresses.as_slice() {
        quirks.results_url = format!("{results}/s3");
    }
    let vast = Vast::new(world.clone()).with_quirks(quirks);
    Started {
        services: vec![
            Served::Api(Api::new(vast.clone())),
            Served::Api(Api::new(vast.results())),
        ],
        reset: Box::new(move || vast.reset()),
    }
}

/// A free ask, preferably without the GPU that requests name.
fn free_ask(world: &World) -> String {
    let shapes = world
        .cloud(NAME)
        .map(|cloud| cloud.shapes)
        .unwrap_or_default();
    let is_free = |native: &str| {
        let stock = world.stock(NAME, native, "");
        stock.values().any(|free| *free >= 2)
    };
    shapes
        .into_iter()
        .filter(|shape| shape.gpu != Some(CARD))
        .find(|shape| is_free(&shape.native))
        .map(|shape| shape.native)
        .unwrap_or_default()
}
